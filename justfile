# What contributors do often. Each recipe is one command, which can be typed as well.

# List the recipes
default:
    @just --list

# Unit and property tests
unit:
    cargo test --lib

# All tests; NAME picks some
test *NAME:
    cargo test {{NAME}}

# Format, lints and doc warnings, as .ci/run has them
lint:
    cargo fmt --all --check
    cargo clippy --all-targets -- -D warnings
    RUSTDOCFLAGS="-D warnings" cargo doc --no-deps

# The stages of a packet, in nanoseconds
bench:
    cargo bench --bench packets

# The highest rate without loss, as a share of a bare loop's; a minute for each case and round
fast-path *ARGS:
    scripts/fast-path {{ARGS}}

# Vectors and captures of other programs
captures:
    cargo test --test control_vectors --test control_captures --test test_captures

# All that a change must pass
ci:
    .ci/run

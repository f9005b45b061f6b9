//! Which sample a percentile is, and how many samples it takes.

use crate::report;

/// Samples that must lie beyond a percentile for it to be shown.
pub(super) const BEYOND: u64 = 10;
/// Percentiles, in hundred-thousandths.
pub(super) const WHOLE: u64 = 100_000;
pub(super) const MEDIAN: u64 = 50_000;
pub(super) const P90: u64 = 90_000;
pub(super) const P95: u64 = 95_000;
pub(super) const P99: u64 = 99_000;
pub(super) const P99_9: u64 = 99_900;
pub(super) const P99_99: u64 = 99_990;
pub(super) const P99_999: u64 = 99_999;

/// Nearest rank, counted from 1: the smallest with at least `part` hundred-thousandths of `n`
/// samples at or below it.
pub(super) fn nearest_rank(n: u64, part: u64) -> u64 {
    // ceil(n * part / WHOLE), without overflow.
    n / WHOLE * part + (n % WHOLE * part).div_ceil(WHOLE)
}

/// The same, where at least [`BEYOND`] samples lie beyond it; else the percentile would be noise.
pub(super) fn supported_rank(n: u64, part: u64) -> Option<u64> {
    let rank = nearest_rank(n, part);
    (n - rank >= BEYOND).then_some(rank)
}

/// How many samples the percentiles take that are `missing`.
pub(super) fn needed(missing: impl Fn(u64) -> bool) -> Option<report::SamplesNeeded> {
    let takes = |part: u64| missing(part).then_some(BEYOND * WHOLE / (WHOLE - part));
    let needed = report::SamplesNeeded {
        p90: takes(P90),
        p95: takes(P95),
        p99: takes(P99),
        p99_9: takes(P99_9),
        p99_99: takes(P99_99),
        p99_999: takes(P99_999),
    };
    (needed != report::SamplesNeeded::default()).then_some(needed)
}

/// As [`float`], which takes several times as long.
#[expect(
    clippy::cast_precision_loss,
    reason = "figures that are shown as floats: 53 bits are enough"
)]
pub(super) fn of_count(value: u64) -> f64 {
    value as f64
}

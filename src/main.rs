//! Runs the command line and turns its outcome into an exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    twamp_blast::cli::run(std::env::args_os())
}

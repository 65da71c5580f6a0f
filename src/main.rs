//! Parses the arguments, runs, prints what went wrong, and says so by the exit code:
//! 0 done, 1 refused or failed, 2 wrong usage.

#![expect(clippy::print_stderr, reason = "the last words of a command line")]

use clap::Parser;
use std::error::Error as _;
use std::process::ExitCode;

fn main() -> ExitCode {
    // Wrong usage ends in parse(), with 2.
    match outport::cli::Cli::parse().run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprint!("outport: {error}");
            let mut cause = error.source();
            while let Some(error) = cause {
                eprint!(" ({error})");
                cause = error.source();
            }
            eprintln!();
            ExitCode::FAILURE
        }
    }
}

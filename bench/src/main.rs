//! Measures Outport from outside: the release binary on loopback, over plain HTTP, by the CPU
//! time its process takes. A benchmark, not a test: nothing fails because a machine is slow.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "printing is what a command line does")]

mod carry;
mod client;
mod fill;
mod lists;
mod server;

use clap::{Parser, Subcommand};
use std::error::Error;
use std::process::ExitCode;

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// Measures the Outport binary.
#[derive(Parser)]
#[command(max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    Carry(carry::Carry),
    Lists(lists::Lists),
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().verb {
        Verb::Carry(carry) => carry.run(),
        Verb::Lists(lists) => lists.run(),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("outport-bench: {error}");
            ExitCode::FAILURE
        }
    }
}

//! Measures Outport from outside: the release binary on loopback, beside its peers, by what a
//! client sees and by the CPU time and memory that the server's process takes. A benchmark, not
//! a test: nothing fails because a machine is slow.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "printing is what a command line does")]

mod carry;
mod client;
mod contenders;
mod fill;
mod growth;
mod lists;
mod load;
mod measured;
mod payload;
mod rows;
mod server;
mod store;
mod table;
mod targets;

use clap::{Parser, Subcommand};
use std::error::Error;
use std::process::ExitCode;

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// Measures the Outport binary, and other registries beside it.
#[derive(Parser)]
#[command(max_term_width = 100, args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    verb: Option<Verb>,
    #[command(flatten)]
    table: table::Table,
}

#[derive(Subcommand)]
enum Verb {
    Carry(carry::Carry),
    Lists(lists::Lists),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let outcome = match cli.verb {
        None => cli.table.run(),
        Some(Verb::Carry(carry)) => carry.run(),
        Some(Verb::Lists(lists)) => lists.run(),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("outport-bench: {error}");
            ExitCode::FAILURE
        }
    }
}

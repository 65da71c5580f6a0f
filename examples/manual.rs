//! Writes the manual pages, and what shells need to complete a command line, both made from
//! the command line itself: `cargo run --example manual -- DIR`. Not a verb, so that the
//! binary need not carry it.

use clap::CommandFactory;
use clap_complete::Shell;
use outport::cli::Cli;
use std::path::PathBuf;

fn main() -> std::io::Result<()> {
    let Some(dir) = std::env::args_os().nth(1).map(PathBuf::from) else {
        return Err(std::io::Error::other("usage: manual DIR"));
    };
    std::fs::create_dir_all(&dir)?;
    let mut command = Cli::command();
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        clap_complete::generate_to(shell, &mut command, "outport", &dir)?;
    }
    clap_mangen::generate_to(command, &dir)
}

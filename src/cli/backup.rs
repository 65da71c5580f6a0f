//! `outport backup`, `outport restore`

use clap::Args;
use serde_json::json;
use std::fs::{File, OpenOptions};
use std::io::{BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::Common;
use super::progress::Progress;
use crate::error::{Error, Kind, Result, Thing};
use crate::registry::{Backup as Done, Registry};

/// Write the whole registry into one file, while it is served; the file holds its secrets
#[derive(Debug, Args)]
pub struct Backup {
    /// A new file, or - for standard output
    file: PathBuf,
}

/// Make a data directory from a backup
#[derive(Debug, Args)]
pub struct Restore {
    /// A file that `outport backup` wrote, or - for standard input
    file: PathBuf,
}

impl Backup {
    pub fn run(self, common: &Common) -> Result<()> {
        let registry = common.open()?;
        if self.file.as_os_str() == "-" {
            let done = back_up(&registry, std::io::stdout().lock())?;
            eprint_line(&sentence("Wrote", &done));
            return Ok(());
        }
        // Beside it until it is whole: a backup that broke off is not taken for one.
        let part = PathBuf::from(format!("{}.part", self.file.display()));
        if self.file.exists() {
            return Err(Kind::Exists(Thing::Request)
                .because(format!("{} is there already; name another file", self.file.display())));
        }
        let file = OpenOptions::new()
            .create(true)
            .write(true)
            .truncate(true)
            .mode(0o600)
            .open(&part)
            .map_err(|error| unusable(&part, &error))?;
        let outcome = back_up(&registry, BufWriter::with_capacity(1 << 20, &file)).and_then(|done| {
            file.sync_all()?;
            std::fs::rename(&part, &self.file)?;
            Ok(done)
        });
        if outcome.is_err() {
            // What is left of it is of no use; the first error is the one to be told.
            let _ = std::fs::remove_file(&part);
        }
        let done = outcome?;
        common.say(&json!({"backup": done, "file": self.file}), || sentence("Wrote", &done));
        complain(&done)
    }
}

impl Restore {
    pub fn run(self, common: &Common) -> Result<()> {
        let config = common.load()?;
        let dir = PathBuf::from(&config.data);
        let mut progress = Progress::default();
        let show = |done, all| progress.show(done, all);
        let outcome = if self.file.as_os_str() == "-" {
            Registry::restore(&dir, std::io::stdin().lock(), show)
        } else {
            let file = File::open(&self.file).map_err(|error| unusable(&self.file, &error))?;
            Registry::restore(&dir, file, show)
        };
        progress.clear();
        let done = outcome?;
        common.say(&json!({"restored": done, "data": config.data}), || sentence("Restored", &done));
        complain(&done)
    }
}

fn back_up(registry: &Registry, to: impl Write) -> Result<Done> {
    let mut progress = Progress::default();
    let outcome = registry.backup(to, |done, all| progress.show(done, all));
    progress.clear();
    outcome
}

fn sentence(what: &str, done: &Done) -> String {
    format!("{what} {} blobs of {} bytes, and all the rest.", done.blobs, done.bytes)
}

fn complain(done: &Done) -> Result<()> {
    match done.bad {
        0 => Ok(()),
        bad => Err(Kind::NotFound(Thing::Blob).because(format!(
            "{bad} blobs were damaged or missing; `outport check` lists what to push or import again"
        ))),
    }
}

fn unusable(path: &Path, error: &std::io::Error) -> Error {
    Kind::Invalid(Thing::Request).because(format!("{} cannot be used: {error}", path.display()))
}

/// Standard output is the backup itself.
#[expect(clippy::print_stderr, reason = "a command line says what it did")]
fn eprint_line(line: &str) {
    eprintln!("{line}");
}

//! `outport backup`, `outport restore`, `outport rebuild`

use clap::Args;
use serde_json::json;
use std::fs::{File, OpenOptions};
use std::io::{BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::progress::Progress;
use super::{Common, registry_options};
use crate::error::{Error, Kind, Result, Thing};
use crate::registry::{Backup as Done, Clock, Registry};

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

/// Make the database again from blobs and the log of manifests, when it is lost
#[derive(Debug, Args)]
pub struct Rebuild {}

impl Rebuild {
    pub fn run(self, common: &Common) -> Result<()> {
        let config = common.load()?;
        let dir = PathBuf::from(&config.data);
        let mut progress = Progress::default();
        let options = registry_options(&config)?;
        let outcome = Registry::rebuild(&dir, options, Clock::system(), |rebuilt| {
            progress.count(rebuilt.blobs + rebuilt.images);
        });
        progress.clear();
        let (registry, rebuilt) = outcome?;
        let password = registry.admin_init(None)?;
        common.say(&json!({"rebuilt": rebuilt, "admin_password": password}), || {
            let mut text = format!(
                "Found {} repositories, {} images, {} tags and {} blobs of {} bytes again.",
                rebuilt.repositories, rebuilt.images, rebuilt.tags, rebuilt.blobs, rebuilt.bytes
            );
            if let Some(password) = &password {
                text += &format!(
                    "\nPeople are not found again. The administrator is admin, with the password {password}"
                );
            }
            text
        });
        match rebuilt.damaged + rebuilt.missing + rebuilt.lost_images {
            0 => Ok(()),
            _ => Err(Kind::NotFound(Thing::Blob).because(format!(
                "{} files were damaged, {} blobs are missing, {} images are lost; `outport check` lists what to push again",
                rebuilt.damaged, rebuilt.missing, rebuilt.lost_images
            ))),
        }
    }
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

//! How often in a row the database failed: one byte each in a file of its own, for the
//! database can keep no notes of its own failures.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};

use super::blobs::open_or_make;

/// After so many a server only reads: starting over does not help.
const MANY: u64 = 3;

fn path(dir: &Path) -> PathBuf {
    dir.join("failures")
}

/// Counts one more.
pub(super) fn note(dir: &Path) {
    let file = open_or_make(OpenOptions::new().append(true), &path(dir));
    let noted = file.and_then(|mut file| {
        file.write_all(b"!")?;
        file.sync_all()
    });
    if let Err(error) = noted {
        tracing::error!(%error, "that the store failed could not be written down");
    }
}

/// Whether it failed so often that nothing shall be written.
pub(super) fn are_many(dir: &Path) -> bool {
    path(dir).metadata().is_ok_and(|found| found.len() >= MANY)
}

/// Forgets them: it worked for a while, or somebody stopped the server by hand.
pub(super) fn forget(dir: &Path) {
    match std::fs::remove_file(path(dir)) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            tracing::warn!(%error, "earlier failures could not be forgotten");
        }
        _ => {}
    }
}

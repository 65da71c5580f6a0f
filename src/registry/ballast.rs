//! A few megabytes kept full of nothing, so that a full disk can still be emptied:
//! deleting needs room for the database's log.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::blobs::open_or_make;

const BYTES: u64 = 8 << 20;
/// With less than this free the next commit might fail, so the ballast goes first.
const SHORT_BYTES: u64 = 2 << 20;
/// It is taken again only when it is not missed: this many times itself is free.
const ROOM: u64 = 4;

fn path(dir: &Path) -> PathBuf {
    dir.join("ballast")
}

fn free_bytes(dir: &Path) -> io::Result<u64> {
    let stat = rustix::fs::statvfs(dir)?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

/// Takes the room, if it is not taken and there is enough.
pub(super) fn keep(dir: &Path) -> io::Result<()> {
    let path = path(dir);
    if path.metadata().is_ok_and(|found| found.len() == BYTES) || free_bytes(dir)? < ROOM * BYTES {
        return Ok(());
    }
    let file = open_or_make(OpenOptions::new().write(true).truncate(true), &path)?;
    let taken = match rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, BYTES) {
        // Where room cannot be reserved it is filled.
        Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => fill(&file),
        taken => taken.map_err(Into::into),
    };
    if taken.is_err() {
        release(dir);
    }
    taken
}

fn fill(mut file: impl Write) -> io::Result<()> {
    let zeros = [0; 64 << 10];
    for _ in 0..BYTES / zeros.len() as u64 {
        file.write_all(&zeros)?;
    }
    Ok(())
}

/// Gives the room back.
pub(super) fn release(dir: &Path) {
    match std::fs::remove_file(path(dir)) {
        Ok(()) => tracing::warn!("the disk is full; the room kept for deleting is in use now"),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => tracing::error!(%error, "the room kept for deleting could not be given back"),
    }
}

/// Before a commit: one system call, while there is room.
pub(super) fn release_if_short(dir: &Path) {
    if free_bytes(dir).is_ok_and(|free| free < SHORT_BYTES) {
        release(dir);
    }
}

//! Blobs pushed shortly before the power went. A cheap card may lose or mix up what it
//! wrote last although it said that it was safe, so they are read again before anyone is
//! told that they are here. Pulls check every byte anyway.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use super::db::lock;
use super::{Registry, sql};
use crate::error::Result;
use crate::names::Digest;

/// How long before the end a push is suspect, in service seconds; and service time itself
/// may be behind by as much as it is written down late.
const RECENT_SECS: i64 = 10 * 60;
/// Most that are remembered: the rest is found by the scrub, and by pulls.
const SUSPECTS_MAX: u32 = 10_000;

#[derive(Default)]
pub(super) struct Suspects {
    /// With their sizes in bytes.
    left: Mutex<HashMap<Digest, u64>>,
    any: AtomicBool,
}

impl Suspects {
    fn get(&self, digest: &Digest) -> Option<u64> {
        match self.any.load(Ordering::Acquire) {
            true => lock(&self.left).get(digest).copied(),
            false => None,
        }
    }

    /// It was read, or written anew.
    pub fn clear(&self, digest: &Digest) {
        if self.any.load(Ordering::Acquire) {
            let mut left = lock(&self.left);
            left.remove(digest);
            self.any.store(!left.is_empty(), Ordering::Release);
        }
    }
}

impl Registry {
    /// After the power went: notes what was pushed last. One indexed look.
    pub(super) fn suspect_recent(&self) -> Result<()> {
        let since = self.db.service_secs_at_start() - RECENT_SECS;
        let recent = self.db.read(|tx| sql::blobs_recent(tx, since, SUSPECTS_MAX))?;
        self.suspects.any.store(!recent.is_empty(), Ordering::Release);
        lock(&self.suspects.left).extend(recent);
        Ok(())
    }

    /// True while a blob may have to be read before anyone is told of it, which blocks.
    pub fn has_suspects(&self) -> bool {
        self.suspects.any.load(Ordering::Acquire)
    }

    /// Reads a blob again if it is suspect; a bad one is out of service when this returns.
    pub(super) fn suspect_verify(&self, digest: &Digest) -> Result<()> {
        if let Some(bytes) = self.suspects.get(digest) {
            self.blob_verify(digest, bytes)?;
            self.suspects.clear(digest);
        }
        Ok(())
    }

    /// Reads all of them again. Returns how many were read. Blocks.
    pub fn suspects_verify(&self) -> Result<u64> {
        let mut read = 0;
        loop {
            let next = lock(&self.suspects.left).keys().next().cloned();
            let Some(digest) = next else { return Ok(read) };
            self.suspect_verify(&digest)?;
            read += 1;
        }
    }
}

//! Reading everything again and hashing it: a bit that flipped is found while somebody can
//! still push the image again, not when a gateway needs it.
//!
//! A pass goes through the blobs and then the manifests, by id, and remembers where it is:
//! a restart goes on there. Where it is, is written down beside other commits only.

use std::time::Duration;

use super::{Registry, sql};
use crate::error::{Kind, Result, Thing};
use crate::names::Digest;

/// Rows looked up at once.
const PAGE: u32 = 100;
/// Where the pass is, in `meta`, as JSON.
const AT: &str = "scrub.at";

/// Where a pass is: what was read last.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
struct At {
    manifests: bool,
    id: i64,
    /// Service time when this pass began, or, between two, the last one; 0: none ever did.
    began_secs: i64,
}

impl At {
    fn is_between(self) -> bool {
        !self.manifests && self.id == 0
    }
}

/// What a scrub read and found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct Scrubbed {
    pub blobs: u64,
    pub manifests: u64,
    /// Read, of both.
    pub bytes: u64,
    /// Blobs and manifests that were found to be wrong or missing just now.
    pub bad: u64,
    /// The end was reached; the next scrub begins anew.
    pub whole: bool,
}

/// What was read, for whoever watches.
pub enum Read<'a> {
    Blob { digest: &'a Digest, bytes: u64, good: bool },
    Manifest { digest: &'a Digest, bytes: u64, good: bool },
}

impl Read<'_> {
    pub fn bytes(&self) -> u64 {
        match self {
            Read::Blob { bytes, .. } | Read::Manifest { bytes, .. } => *bytes,
        }
    }
}

/// Something that is out of service until it is pushed or imported again.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Wanted {
    /// "blob" or "manifest".
    pub what: &'static str,
    pub digest: String,
    pub bytes: u64,
    /// `REPOSITORY:TAG` or `REPOSITORY@DIGEST` of images that need it, at most ten.
    pub images: Vec<String>,
}

impl Registry {
    /// Goes on with the pass, for as long as `go_on` says so of what was read. What is
    /// wrong goes out of service, and the next push or import of it heals it.
    ///
    /// Blocks. Reads past the page cache's care: what nobody else reads is dropped again.
    pub fn scrub(&self, mut go_on: impl FnMut(&Read) -> bool) -> Result<Scrubbed> {
        let mut scrubbed = Scrubbed::default();
        let mut at = self.scrub_at()?;
        if at.is_between() {
            at.began_secs = self.db.service_secs();
        }
        if !at.manifests {
            loop {
                let blobs = self.db.read(|tx| sql::blobs_after(tx, at.id, PAGE))?;
                if blobs.is_empty() {
                    at = At { manifests: true, id: 0, ..at };
                    break;
                }
                for (id, digest, bytes) in blobs {
                    let good = self.blob_verify(&digest, bytes)?;
                    scrubbed.blobs += 1;
                    scrubbed.bytes += bytes;
                    scrubbed.bad += u64::from(!good);
                    at.id = id;
                    self.scrub_is_at(at);
                    if !go_on(&Read::Blob { digest: &digest, bytes, good }) {
                        return Ok(scrubbed);
                    }
                }
            }
        }
        loop {
            let ids = self.db.read(|tx| sql::manifests_after(tx, at.id, PAGE))?;
            if ids.is_empty() {
                break;
            }
            for id in ids {
                at.id = id;
                self.scrub_is_at(at);
                let Some((digest, bytes, good)) = self.manifest_verify(id)? else { continue };
                scrubbed.manifests += 1;
                scrubbed.bytes += bytes;
                scrubbed.bad += u64::from(!good);
                if !go_on(&Read::Manifest { digest: &digest, bytes, good }) {
                    return Ok(scrubbed);
                }
            }
        }
        scrubbed.whole = true;
        self.scrub_is_at(At { manifests: false, id: 0, ..at });
        Ok(scrubbed)
    }

    /// A turn of the scrub that goes on by itself: so much that a pass takes about the
    /// period of the options, if it is asked for `every` so often. Reads nothing between
    /// the end of a pass and the end of its period.
    pub fn scrub_turn(&self, every: Duration) -> Result<Scrubbed> {
        let (at, period) = (self.scrub_at()?, self.options().scrub_period);
        let since = self.db.service_secs() - at.began_secs;
        let waits = at.is_between() && at.began_secs > 0 && since < seconds(period);
        if period.is_zero() || waits {
            return Ok(Scrubbed::default());
        }
        // What others keep on the disk makes us quicker, and no worse.
        let space = self.blobs.space()?;
        let budget = turn_bytes(space.total_bytes - space.free_bytes, every, period);
        let mut left = budget;
        self.scrub(|read| {
            left = left.saturating_sub(read.bytes());
            left > 0
        })
    }

    /// Begins the next pass at the start, wherever the last one was.
    pub fn scrub_from_start(&self) {
        self.scrub_is_at(At::default());
    }

    /// Bytes that one whole pass reads. Adds up every row.
    pub fn scrub_bytes(&self) -> Result<u64> {
        self.db.read(sql::stored_bytes)
    }

    fn scrub_at(&self) -> Result<At> {
        if let Some(note) = self.db.noted(AT) {
            return Ok(serde_json::from_slice(&note).unwrap_or_default());
        }
        let kept = self.db.read(|tx| sql::meta_get(tx, AT))?;
        // What an older version wrote otherwise is begun anew.
        Ok(kept.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default())
    }

    fn scrub_is_at(&self, at: At) {
        // Three numbers serialise.
        self.db.note(AT, serde_json::to_vec(&at).unwrap_or_default());
    }

    /// Reads a blob whole and compares its digest; a wrong one goes out of service. True
    /// also for one that was deleted or healed meanwhile.
    pub(super) fn blob_verify(&self, digest: &Digest, bytes: u64) -> Result<bool> {
        // A disk under strain may fail once; wrong bytes are read wrong again.
        let read = self.blobs.verify(digest, bytes);
        let Err((inode, why)) = read.or_else(|_| self.blobs.verify(digest, bytes)) else { return Ok(true) };
        let still = self.db.read(|tx| Ok(sql::blob(tx, digest)?.is_some_and(|blob| blob.live)))?;
        if still {
            let why = Kind::NotFound(Thing::Blob).from_cause(why);
            self.blob_is_bad(digest, inode, &why)?;
        }
        Ok(!still)
    }

    /// The same for a manifest: its digest, its bytes, whether they are right.
    fn manifest_verify(&self, id: i64) -> Result<Option<(Digest, u64, bool)>> {
        let Some((digest, body)) = self.db.read(|tx| sql::manifest_by_id(tx, id))? else { return Ok(None) };
        let good = super::digest_of(digest.algorithm(), &body) == digest;
        if !good {
            tracing::error!(%digest, "a manifest's bytes are wrong; it is out of service until it is pushed again");
            self.db.write(move |write| sql::manifest_set_bad(write.tx, id))?;
        }
        Ok(Some((digest, body.len() as u64, good)))
    }

    /// What is out of service, and which images wait for it: what to push or import again.
    /// At most `limit` rows.
    pub fn wanted(&self, limit: u32) -> Result<Vec<Wanted>> {
        self.db.read(|tx| {
            let mut wanted = Vec::new();
            for (id, digest, bytes) in sql::blobs_bad(tx, limit)? {
                let images = sql::images_of_blob(tx, id)?;
                wanted.push(Wanted { what: "blob", digest: digest.as_str().to_owned(), bytes, images });
            }
            for (id, digest, bytes) in sql::manifests_bad(tx, limit)? {
                let images = sql::names_of_manifest(tx, id)?;
                wanted.push(Wanted { what: "manifest", digest: digest.as_str().to_owned(), bytes, images });
            }
            Ok(wanted)
        })
    }
}

/// How much of a pass one turn does, so that a pass takes about `period`.
fn turn_bytes(pass_bytes: u64, every: Duration, period: Duration) -> u64 {
    /// A small store is done in a few turns; reading this much disturbs nobody.
    const LEAST: u64 = 4 << 20;
    let turns = (period.as_secs() / every.as_secs().max(1)).max(1);
    (pass_bytes / turns).max(LEAST)
}

fn seconds(period: Duration) -> i64 {
    i64::try_from(period.as_secs()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pass_takes_about_its_period_and_a_small_store_a_few_turns() {
        let (minute, month) = (Duration::from_secs(60), Duration::from_secs(30 * 86_400));
        assert_eq!(turn_bytes(43_200 << 30, minute, month), 1 << 30);
        assert_eq!(turn_bytes(1 << 20, minute, month), 4 << 20);
        assert_eq!(turn_bytes(1 << 30, minute, Duration::ZERO), 1 << 30);
    }
}

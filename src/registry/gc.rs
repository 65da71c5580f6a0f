//! Collection: what no manifest relies on goes, while pushes go on.
//!
//! Rows go first, in the writer's transaction, which asks again whether they are needed;
//! a manifest's own transaction asks whether its blobs are there. So whichever comes
//! first, the other sees it. Files go after that commit and only through the committer,
//! which also gives files their names: a push of the same bytes comes wholly before (its
//! row is seen, the file stays) or wholly after. Nothing here reads the wall clock.

use std::fs::File;
use std::time::Duration;

use super::db::Write;
use super::{Registry, blobs, sql};
use crate::error::{Kind, Result};
use crate::names::Digest;

/// Candidates weighed in one transaction: bounds how long a push waits for it.
pub(super) const SLICE: u32 = 200;

/// What a collection is asked to do.
#[derive(Debug, Clone, Copy)]
pub struct Collect {
    /// What was pushed, mounted or asked for within this time stays. Service time.
    pub grace: Duration,
    /// Change nothing, tell what would go.
    pub dry_run: bool,
}

/// Something that went, or would go, and why.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Gone {
    /// A rule of retention lets the tag go.
    Tag { repo: String, tag: String, rule: String },
    /// A rule lets the image go, or its last tag did.
    Image { repo: String, digest: String, rule: String },
    /// No manifest relies on it.
    Blob { digest: String, bytes: u64 },
}

/// What a collection did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Collected {
    pub tags: u64,
    pub images: u64,
    pub blobs: u64,
    /// Of those blobs.
    pub bytes: u64,
    /// Blobs that nothing relies on and that clients were told of within the grace.
    pub leased: u64,
}

impl Collected {
    pub(super) fn count(&mut self, gone: &Gone) {
        match gone {
            Gone::Tag { .. } => self.tags += 1,
            Gone::Image { .. } => self.images += 1,
            Gone::Blob { bytes, .. } => {
                self.blobs += 1;
                self.bytes += bytes;
            }
        }
    }
}

/// What was asked of the server, to know its answer by.
pub struct Ticket([u8; 16]);

/// The keys in `meta`: ticket and grace in seconds; ticket and what was done, as JSON.
const ASKED: &str = "collect.asked";
const ANSWERED: &str = "collect.answered";

/// One slice of candidates.
struct Slice {
    /// Where the next one begins; None: this was the last.
    next: Option<sql::Candidate>,
    gone: Vec<(Digest, u64)>,
    leased: u64,
}

impl Registry {
    /// Removes what nothing relies on, and what retention lets go. `told` hears of each.
    ///
    /// Safe beside pushes and pulls. Fails with `Unavailable` while another collection or a
    /// backup works on this directory. Blocks, for as long as it takes.
    pub fn collect(&self, ask: Collect, mut told: impl FnMut(&Gone)) -> Result<Collected> {
        let mut collected = Collected::default();
        // Nothing to do writes nothing, and takes no lock.
        let rules = self.options().retention.clone();
        if rules.is_empty() && !self.collect_is_due(ask.grace)? {
            return Ok(collected);
        }
        let _alone = lock_collection(&self.dir, false)?;
        let mut note = |gone: &Gone| {
            collected.count(gone);
            told(gone);
        };
        for rule in &rules {
            self.retain(rule, ask, &mut note)?;
        }
        let leased = self.sweep(ask, &mut note)?;
        collected.leased = leased;
        Ok(collected)
    }

    /// Whether a collection with this grace would find a candidate.
    fn collect_is_due(&self, grace: Duration) -> Result<bool> {
        let cut = self.cut_secs(grace);
        self.db.read(|tx| Ok(!sql::candidates(tx, FIRST, cut, 1)?.is_empty()))
    }

    /// What was seen at or before this service time is old enough.
    pub(super) fn cut_secs(&self, grace: Duration) -> i64 {
        self.db.service_secs().saturating_sub(i64::try_from(grace.as_secs()).unwrap_or(i64::MAX))
    }

    /// Lets blobs go that no manifest relies on. Returns how many stay because of a lease.
    fn sweep(&self, ask: Collect, note: &mut impl FnMut(&Gone)) -> Result<u64> {
        let cut = self.cut_secs(ask.grace);
        let (mut at, mut leased) = (Some(FIRST), 0);
        while let Some(from) = at {
            let leases = self.leases.clone();
            let slice = move |write: &mut Write| {
                let give_up = |repo: &str, digest: &Digest| ask.dry_run || leases.give_up(repo, digest, cut);
                weigh_slice(write, from, cut, &give_up)
            };
            let slice = if ask.dry_run { self.db.rehearse(slice) } else { self.db.write(slice) };
            // Committed or undone: what was given up is gone, or is here again.
            self.leases.settled();
            let slice = slice?;
            for (digest, bytes) in &slice.gone {
                note(&Gone::Blob { digest: digest.as_str().to_owned(), bytes: *bytes });
            }
            leased += slice.leased;
            at = slice.next;
            if !ask.dry_run {
                self.files_remove(slice.gone.into_iter().map(|(digest, _)| digest).collect())?;
            }
        }
        Ok(leased)
    }

    /// Asks the server of this directory to collect: it alone knows what its clients were
    /// told of. None if no server runs; then nobody was told anything.
    ///
    /// The ticket is for [`Registry::collect_answer`].
    pub fn collect_ask(&self, grace: Duration) -> Result<Option<Ticket>> {
        if !super::is_served(&self.dir)? {
            return Ok(None);
        }
        let mut ticket = [0; 16];
        super::random(&mut ticket)?;
        let ask = [&ticket[..], &grace.as_secs().to_le_bytes()].concat();
        self.db.write(move |write| sql::meta_set(write.tx, ASKED, &ask))?;
        Ok(Some(Ticket(ticket)))
    }

    /// What the server answered, once it has.
    pub fn collect_answer(&self, ticket: &Ticket) -> Result<Option<Collected>> {
        let Some(answer) = self.db.read(|tx| sql::meta_get(tx, ANSWERED))? else { return Ok(None) };
        match answer.strip_prefix(&ticket.0[..]) {
            None => Ok(None),
            Some(b"") => Err(Kind::Unavailable.because("the server could not collect; its log says why")),
            Some(collected) => {
                serde_json::from_slice(collected).map(Some).map_err(|error| Kind::Internal.from_cause(error))
            }
        }
    }

    /// For the server: collects if somebody asked for it since the last look. A look costs
    /// one indexed read.
    pub fn collect_if_asked(&self) -> Result<Option<Collected>> {
        let (asked, answered) =
            self.db.read(|tx| Ok((sql::meta_get(tx, ASKED)?, sql::meta_get(tx, ANSWERED)?)))?;
        let Some((ticket, grace)) = asked.as_deref().and_then(<[u8]>::split_first_chunk::<16>) else {
            return Ok(None);
        };
        if answered.is_some_and(|answer| answer.starts_with(ticket)) {
            return Ok(None);
        }
        let grace = grace.try_into().map(u64::from_le_bytes).unwrap_or(u64::MAX);
        let ask = Collect { grace: Duration::from_secs(grace), dry_run: false };
        let outcome = self.collect(ask, |_| {});
        let said = outcome.as_ref().map(serde_json::to_vec).unwrap_or(Ok(Vec::new()));
        let answer = [&ticket[..], &said.map_err(|error| Kind::Internal.from_cause(error))?].concat();
        self.db.write(move |write| sql::meta_set(write.tx, ANSWERED, &answer))?;
        outcome.map(Some)
    }

    /// Removes the files of digests that have no row. Names go while the committer holds
    /// the write lock; the bytes are freed outside of it, for a large file takes a while.
    pub(super) fn files_remove(&self, digests: Vec<Digest>) -> Result<u64> {
        if digests.is_empty() {
            return Ok(0);
        }
        let trash = self.db.write(move |write| {
            let mut trash = Vec::new();
            for digest in &digests {
                // Asked again: it may have been pushed since.
                if sql::blob(write.tx, digest)?.is_none() {
                    trash.extend(write.shelf.retire(digest)?);
                }
            }
            Ok(trash)
        })?;
        for path in &trash {
            blobs::discard(path);
        }
        Ok(trash.len() as u64)
    }
}

/// Before every candidate.
const FIRST: sql::Candidate = sql::Candidate { since_secs: -1, blob: 0 };

/// Weighs one slice of candidates, in one transaction.
fn weigh_slice(write: &mut Write, from: sql::Candidate, cut_secs: i64, give_up: GiveUp) -> Result<Slice> {
    let candidates = sql::candidates(write.tx, from, cut_secs, SLICE)?;
    let next = candidates.last().copied().filter(|_| candidates.len() == SLICE as usize);
    let mut slice = Slice { next, gone: Vec::new(), leased: 0 };
    for candidate in candidates {
        match weigh(write.tx, candidate, cut_secs, give_up)? {
            Verdict::Needed => {}
            Verdict::Leased => slice.leased += 1,
            Verdict::Gone(digest, bytes) => slice.gone.push((digest, bytes)),
        }
    }
    Ok(slice)
}

/// Whether a repository's blob may go: not while somebody was told of it.
pub(super) type GiveUp<'a> = &'a dyn Fn(&str, &Digest) -> bool;

pub(super) enum Verdict {
    /// A manifest relies on it, or somebody pushed it within the grace.
    Needed,
    /// Nothing does, but somebody was told that it is here.
    Leased,
    Gone(Digest, u64),
}

/// Takes a blob out of the repositories that do not need it, and away if none does.
pub(super) fn weigh(
    tx: &rusqlite::Connection,
    candidate: sql::Candidate,
    cut_secs: i64,
    give_up: GiveUp,
) -> Result<Verdict> {
    let blob = candidate.blob;
    let mut verdict = Verdict::Needed;
    if let Some((digest, bytes)) = sql::blob_by_id(tx, blob)? {
        for (repo, name) in sql::blob_holders_unused(tx, blob, cut_secs)? {
            if !give_up(&name, &digest) {
                return Ok(Verdict::Leased);
            }
            sql::repo_blob_delete(tx, repo, blob)?;
        }
        if sql::blob_delete_unheld(tx, blob)? {
            verdict = Verdict::Gone(digest, bytes);
        }
    }
    sql::candidate_delete(tx, candidate)?;
    // Pushed within the grace and not yet named: its turn comes.
    if let Some(since_secs) = sql::repo_blob_unused_since(tx, blob)? {
        sql::candidate_insert(tx, sql::Candidate { since_secs, blob })?;
    }
    Ok(verdict)
}

/// The right to remove blobs of a directory, or to rely on them all staying.
pub(super) struct CollectionLock(File);

impl Drop for CollectionLock {
    fn drop(&mut self) {
        // Closing is not enough: a process that another thread starts at this moment has the
        // file open too, until it runs its own program.
        let _ = self.0.unlock();
    }
}

/// Takes that right, for oneself or `shared`.
pub(super) fn lock_collection(dir: &std::path::Path, shared: bool) -> Result<CollectionLock> {
    let file = blobs::open_or_make(File::options().write(true), &dir.join("collection.lock"))?;
    let locked = if shared { file.try_lock_shared() } else { file.try_lock() };
    match locked {
        Ok(()) => Ok(CollectionLock(file)),
        Err(std::fs::TryLockError::WouldBlock) => {
            Err(Kind::Unavailable.because("a collection or a backup is at work; try again when it is done"))
        }
        Err(std::fs::TryLockError::Error(error)) => Err(error.into()),
    }
}

//! Blobs on their way here: hashed as they come, and gone on with where the line broke.

use bytes::Bytes;
use hyper::header::{CONTENT_LENGTH, CONTENT_RANGE, HeaderMap, HeaderValue, RANGE};
use hyper::{Method, StatusCode};
use std::collections::VecDeque;
use std::sync::Arc;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::net::Answer;
use super::retry::{Failed, Patience, Tried};
use super::{Access, Remote};
use crate::error::{Error, Kind, Result, Thing};
use crate::hash::Hash;
use crate::names::Digest;

/// Progress after which a break is the first again.
const PROGRESS: u64 = 1 << 20;
/// Blobs that are fetched at a time: the one that is read, and those after it.
const JOBS: usize = 4;
/// Pieces of a blob that wait to be read, of up to 256 KiB each. All jobs together hold 6 MiB.
const PIECES_AHEAD: usize = 4;

/// A blob, and where it is: mirrors before the registry itself.
#[derive(Clone)]
pub struct Wanted {
    pub digest: Digest,
    /// As the manifest says.
    pub size: u64,
    pub from: Vec<Arc<Remote>>,
}

/// A blob as it comes.
struct Download {
    wanted: Wanted,
    /// Which of the places it comes from is asked.
    place: usize,
    answer: Option<Answer>,
    got: u64,
    /// Where the last break was.
    broke_at: u64,
    hash: Hash,
    patience: Patience,
}

impl Download {
    /// From an offset on, up to which `hash` has seen everything.
    fn new(wanted: Wanted, got: u64, hash: Hash) -> Result<Download> {
        // The last place is the one that is tried again.
        let patience = wanted.from.last().ok_or(Kind::Internal)?.patience();
        Ok(Download { place: 0, answer: None, got, broke_at: got, hash, patience, wanted })
    }

    /// The next bytes; None at the end, when the digest was right.
    async fn piece(&mut self) -> Result<Option<Bytes>> {
        loop {
            if self.answer.is_none() {
                if self.got == self.wanted.size {
                    return self.finish();
                }
                match self.open().await {
                    Ok(answer) => self.answer = Some(answer),
                    Err(failed) => {
                        self.fell(failed).await?;
                        continue;
                    }
                }
            }
            let Some(answer) = &mut self.answer else { continue };
            match answer.piece().await {
                Ok(Some(bytes)) => {
                    self.got += bytes.len() as u64;
                    if self.got > self.wanted.size {
                        return Err(self.wrong(&format!("more than the {} bytes", self.wanted.size)));
                    }
                    self.hash.update(&bytes);
                    if self.got - self.broke_at >= PROGRESS {
                        self.patience.renew();
                    }
                    return Ok(Some(bytes));
                }
                Ok(None) if self.got < self.wanted.size => {
                    let why = format!("{} ended a blob early", self.remote());
                    self.fell(Failed::Passing(Kind::LengthMismatch.because(why), None)).await?;
                }
                Ok(None) => self.answer = None,
                // All is here; how the connection ended does not matter.
                Err(_) if self.got == self.wanted.size => self.answer = None,
                Err(failed) => self.fell(failed).await?,
            }
        }
    }

    fn remote(&self) -> &Arc<Remote> {
        // The place is never beyond the last.
        &self.wanted.from[self.place]
    }

    fn finish(&mut self) -> Result<Option<Bytes>> {
        match self.hash.digest() {
            digest if digest == self.wanted.digest => Ok(None),
            digest => Err(Kind::DigestMismatch.because(format!(
                "{} sent wrong bytes: {} has the digest {digest}",
                self.remote(),
                self.wanted.digest
            ))),
        }
    }

    fn wrong(&self, what: &str) -> Error {
        Kind::LengthMismatch.because(format!(
            "{} sends {what} that {} has",
            self.remote(),
            self.wanted.digest
        ))
    }

    /// After a failure the next place is asked, and the last one again after a while.
    async fn fell(&mut self, failed: Failed) -> Result<()> {
        self.answer = None;
        if self.place + 1 < self.wanted.from.len() {
            self.place += 1;
            return Ok(());
        }
        self.broke_at = self.got;
        self.patience.after(failed).await
    }

    /// Asks for what is missing.
    async fn open(&self) -> Tried<Answer> {
        let remote = self.remote();
        let url = remote.url(&format!("blobs/{}", self.wanted.digest));
        let mut headers = HeaderMap::new();
        if self.got > 0 {
            let range = HeaderValue::from_str(&format!("bytes={}-", self.got))
                .map_err(|error| Kind::Internal.from_cause(error))?;
            headers.insert(RANGE, range);
        }
        let mut answer = remote.send(&Method::GET, &url, &headers, Bytes::new(), Access::Pull).await?;
        match answer.status {
            StatusCode::OK => {
                let length = answer.header(CONTENT_LENGTH).and_then(|length| length.parse::<u64>().ok());
                if length.is_some_and(|length| length != self.wanted.size) {
                    return Err(Failed::Surely(self.wrong("other than the length")));
                }
                // It does not go on, it begins again: what was had is passed over.
                let mut over = self.got;
                while over > 0 {
                    let Some(mut bytes) = answer.piece().await? else { break };
                    let part = bytes.len().min(usize::try_from(over).unwrap_or(usize::MAX));
                    over -= part as u64;
                    if part < bytes.len() {
                        answer.unread(bytes.split_off(part));
                    }
                }
                Ok(answer)
            }
            StatusCode::PARTIAL_CONTENT => {
                let begins = format!("bytes {}-", self.got);
                if !answer.header(CONTENT_RANGE).is_some_and(|range| range.starts_with(&begins)) {
                    return Err(Failed::Surely(self.wrong("another range than that was asked for")));
                }
                Ok(answer)
            }
            _ => Err(remote.refused(answer, &format!("the blob {}", self.wanted.digest)).await),
        }
    }
}

/// Blobs in an order, a few fetched ahead while the first is read: small ones come side by side,
/// and a large one's connection and redirects are there when it is its turn.
///
/// Nothing is kept on a disk besides what the reader writes, and memory stays bounded: a blob
/// whose turn has not come stops after its first mebibyte, and if its server will not wait so
/// long, it goes on later from there.
pub struct Fetch {
    runtime: Handle,
    waiting: VecDeque<Wanted>,
    running: VecDeque<Blob>,
}

impl Fetch {
    pub fn new(runtime: &Handle, wanted: impl IntoIterator<Item = Wanted>) -> Fetch {
        Fetch { runtime: runtime.clone(), waiting: wanted.into_iter().collect(), running: VecDeque::new() }
    }

    /// The next blob, of which the reader has so many bytes already, hashed; None after the last.
    pub fn next(&mut self, got: u64, hash: Option<Hash>) -> Result<Option<Blob>> {
        if got > 0
            && let (Some(wanted), Some(hash)) = (self.skip(), hash)
        {
            let blob = Blob::start(&self.runtime, Download::new(wanted, got, hash)?);
            self.fill()?;
            return Ok(Some(blob));
        }
        self.fill()?;
        let blob = self.running.pop_front();
        self.fill()?;
        Ok(blob)
    }

    /// Passes over the next blob, which is had.
    pub fn skip(&mut self) -> Option<Wanted> {
        match self.running.pop_front() {
            Some(blob) => Some(blob.wanted.clone()),
            None => self.waiting.pop_front(),
        }
    }

    fn fill(&mut self) -> Result<()> {
        while self.running.len() < JOBS {
            let Some(wanted) = self.waiting.pop_front() else { break };
            let hash = Hash::new(wanted.digest.algorithm());
            self.running.push_back(Blob::start(&self.runtime, Download::new(wanted, 0, hash)?));
        }
        Ok(())
    }
}

/// A blob that is read by a thread that may block. It ends with an error, and not as a file
/// ends, if it is not whole.
pub struct Blob {
    wanted: Wanted,
    /// None comes last, when the digest was right.
    pieces: mpsc::Receiver<Result<Option<Bytes>>>,
    ended: bool,
    task: JoinHandle<()>,
}

impl Blob {
    fn start(runtime: &Handle, mut download: Download) -> Blob {
        let wanted = download.wanted.clone();
        let (sender, pieces) = mpsc::channel(PIECES_AHEAD);
        let task = runtime.spawn(async move {
            loop {
                let piece = download.piece().await;
                let last = !matches!(piece, Ok(Some(_)));
                // Or whoever read has had enough.
                if sender.send(piece).await.is_err() || last {
                    return;
                }
            }
        });
        Blob { wanted, pieces, ended: false, task }
    }

    pub fn digest(&self) -> &Digest {
        &self.wanted.digest
    }

    /// The next bytes; None at the end.
    pub fn piece(&mut self) -> Result<Option<Bytes>> {
        if self.ended {
            return Ok(None);
        }
        let lost = || Err(Kind::Internal.because("a download ended without a word"));
        let piece = self.pieces.blocking_recv().unwrap_or_else(lost)?;
        self.ended = piece.is_none();
        Ok(piece)
    }
}

impl Drop for Blob {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A blob that is small and wanted whole: an image's config.
impl Remote {
    pub async fn small_blob(self: &Arc<Remote>, digest: &Digest, size: u64, max: usize) -> Result<Vec<u8>> {
        if size > max as u64 {
            let why = format!("{digest} of {self} has {size} bytes, where {max} are the most");
            return Err(Kind::TooLarge(Thing::Blob).because(why));
        }
        let wanted = Wanted { digest: digest.clone(), size, from: vec![self.clone()] };
        let mut download = Download::new(wanted, 0, Hash::new(digest.algorithm()))?;
        let mut bytes = Vec::new();
        while let Some(piece) = download.piece().await? {
            bytes.extend_from_slice(&piece);
        }
        Ok(bytes)
    }
}

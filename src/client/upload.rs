//! Blobs on their way to another registry: in chunks that can be sent again, or in one body
//! where a registry takes no chunks.

use bytes::{Bytes, BytesMut};
use hyper::header::{
    CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, LOCATION, RANGE,
};
use hyper::{Method, StatusCode};
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::address::Url;
use super::net::{Answer, Outgoing};
use super::retry::{Failed, Tried, persevere};
use super::{Access, Remote};
use crate::error::{Error, Kind, Result, Thing};
use crate::names::{Digest, RepoName};

/// Bytes of a chunk: held in memory until the registry has them.
const CHUNK: usize = 8 << 20;
/// The largest chunk that is made for a registry which wants larger ones; ECR wants 5 MiB.
const CHUNK_MAX: usize = 32 << 20;
/// Pieces on their way into a body, of up to 256 KiB each.
const PIECES_AHEAD: usize = 4;
/// What a registry takes at the least in a chunk, if it says (OCI 1.1).
const CHUNK_MIN: HeaderName = HeaderName::from_static("oci-chunk-min-length");

/// How an upload began.
pub enum Begun {
    /// It was there already, or another repository had it.
    Had,
    Upload(Upload),
}

/// A blob that is being sent. Its bytes come from the beginning on, in order; those that an
/// earlier process sent are passed over.
pub struct Upload {
    remote: Arc<Remote>,
    digest: Digest,
    size: u64,
    url: Url,
    /// What the registry has.
    at: u64,
    /// What is passed over before that.
    over: u64,
    chunk: usize,
    held: BytesMut,
    /// In one body, because chunks were not taken.
    whole: Option<Whole>,
}

struct Whole {
    pieces: mpsc::Sender<Bytes>,
    answer: JoinHandle<Tried<Answer>>,
}

/// Why a chunk did not arrive.
enum Stuck {
    Failed(Failed),
    /// The registry takes no chunks.
    Dislikes(Error),
}

impl Remote {
    /// Begins to send a blob that is not there. `from` names a repository of the same registry
    /// that may have it; `open` an upload that an earlier process left, to go on with.
    pub async fn upload(
        self: &Arc<Remote>,
        digest: &Digest,
        size: u64,
        from: Option<&RepoName>,
        open: Option<&str>,
    ) -> Result<Begun> {
        let mut upload = Upload {
            remote: self.clone(),
            digest: digest.clone(),
            size,
            url: self.url("blobs/uploads/"),
            at: 0,
            over: 0,
            chunk: CHUNK,
            held: BytesMut::new(),
            whole: None,
        };
        // Whatever goes wrong with it, a new one will do.
        if let Some(url) = open.and_then(|open| Url::parse(open).ok())
            && url.origin == self.origin
            && let Ok(Some((at, url))) = upload.status_of(&url).await
            && at <= size
        {
            (upload.at, upload.over, upload.url) = (at, at, url);
            return Ok(Begun::Upload(upload));
        }
        Ok(if upload.begin(from).await? { Begun::Had } else { Begun::Upload(upload) })
    }
}

impl Upload {
    /// Opens a session; true if the blob was mounted instead.
    async fn begin(&mut self, from: Option<&RepoName>) -> Result<bool> {
        let remote = self.remote.clone();
        let mut url = remote.url("blobs/uploads/");
        let mut access = Access::Push;
        if let Some(from) = from {
            url = url.with_query("mount", self.digest.as_str()).with_query("from", remote.path(from));
            access = Access::Mount(from);
        }
        let answer = persevere(remote.patience(), || async {
            let answer = remote.send(&Method::POST, &url, &HeaderMap::new(), Bytes::new(), access).await?;
            match answer.status {
                StatusCode::CREATED | StatusCode::ACCEPTED => Ok(answer),
                _ => Err(remote.refused(answer, "an upload").await),
            }
        })
        .await?;
        let mounted = answer.status == StatusCode::CREATED && from.is_some();
        if !mounted {
            self.url = located(&answer, &url)?;
            let least = answer.header(CHUNK_MIN).and_then(|least| least.parse::<usize>().ok());
            self.chunk = CHUNK.max(least.unwrap_or(0));
            (self.at, self.over) = (0, 0);
        }
        answer.dismiss().await;
        Ok(mounted)
    }

    /// Takes the blob's next bytes, and sends them when they fill a chunk.
    pub async fn write(&mut self, mut bytes: Bytes) -> Result<()> {
        let over = bytes.len().min(usize::try_from(self.over).unwrap_or(usize::MAX));
        self.over -= over as u64;
        let _ = bytes.split_to(over);
        if bytes.is_empty() {
            return Ok(());
        }
        if let Some(whole) = &self.whole {
            if whole.pieces.send(bytes).await.is_err() {
                return self.whole_ended().await;
            }
            return Ok(());
        }
        self.held.extend_from_slice(&bytes);
        if self.chunk > CHUNK_MAX {
            return self.go_whole().await;
        }
        // The last bytes go with the request that ends the upload.
        let later = self.size.saturating_sub(self.at + self.held.len() as u64) > 0;
        if later && self.held.len() >= self.chunk {
            let chunk = self.held.split().freeze();
            match self.send_chunk(&chunk).await {
                Ok(()) => {}
                Err(Stuck::Dislikes(_)) if self.at == 0 => {
                    self.held = BytesMut::from(&chunk[..]);
                    self.begin(None).await?;
                    return self.go_whole().await;
                }
                Err(Stuck::Dislikes(error)) => return Err(error),
                Err(Stuck::Failed(failed)) => return Err(failed.into_error()),
            }
        }
        Ok(())
    }

    /// Ends the upload: the registry compares the digest.
    pub async fn finish(mut self) -> Result<()> {
        if self.whole.is_some() {
            return self.whole_ended().await;
        }
        let rest = self.held.split().freeze();
        if self.at + rest.len() as u64 != self.size {
            return Err(Kind::LengthMismatch.because(format!("{} is not as long as was said", self.digest)));
        }
        let mut patience = self.remote.patience();
        loop {
            let url = self.url.with_query("digest", self.digest.as_str());
            // What a break left of the rest there is not sent again.
            let bytes = rest.slice(rest.len() - usize::try_from(self.size - self.at).unwrap_or(0)..);
            let mut headers = octets();
            if self.at > 0 && !bytes.is_empty() {
                headers.insert(CONTENT_RANGE, range(self.at, bytes.len())?);
            }
            let sent = self.remote.send(&Method::PUT, &url, &headers, bytes, Access::Push).await;
            let failed = match sent {
                Ok(answer) if answer.status == StatusCode::CREATED => {
                    answer.dismiss().await;
                    return Ok(());
                }
                Ok(answer) => self.remote.refused(answer, &format!("the blob {}", self.digest)).await,
                Err(failed) => failed,
            };
            patience.after(failed).await?;
            // It may have arrived, and only the answer not.
            if self.remote.has_blob(&self.digest).await? {
                return Ok(());
            }
            self.find_place(self.size - rest.len() as u64).await?;
        }
    }

    /// Where to go on after the process that began it has gone; None while nothing would be won.
    pub fn session(&self) -> Option<String> {
        let worth = self.whole.is_none() && self.at > 0;
        worth.then(|| {
            format!(
                "{}://{}{}",
                if self.url.origin.https { "https" } else { "http" },
                self.url.origin,
                self.url.target
            )
        })
    }

    /// How many bytes the registry has, as far as is known.
    pub fn at(&self) -> u64 {
        self.at
    }

    async fn send_chunk(&mut self, chunk: &Bytes) -> std::result::Result<(), Stuck> {
        let (start, end) = (self.at, self.at + chunk.len() as u64);
        let mut patience = self.remote.patience();
        while self.at < end {
            let bytes = chunk.slice(usize::try_from(self.at - start).unwrap_or(0)..);
            let mut headers = octets();
            headers.insert(CONTENT_RANGE, range(self.at, bytes.len()).map_err(Failed::from)?);
            let sent = self.remote.send(&Method::PATCH, &self.url, &headers, bytes, Access::Push).await;
            let failed = match sent {
                Ok(answer) if matches!(answer.status.as_u16(), 202 | 204) => {
                    self.url = located(&answer, &self.url).map_err(Failed::from)?;
                    self.at = had(&answer).filter(|at| (start..=end).contains(at)).unwrap_or(end);
                    answer.dismiss().await;
                    continue;
                }
                Ok(answer) => {
                    let status = answer.status.as_u16();
                    let failed = self.remote.refused(answer, "a chunk").await;
                    match status {
                        400 | 404 | 405 | 411 | 413 | 415 | 501 if self.at == 0 => {
                            return Err(Stuck::Dislikes(failed.into_error()));
                        }
                        // Somewhere else than thought.
                        416 => Failed::Passing(failed.into_error(), None),
                        _ => failed,
                    }
                }
                Err(failed) => failed,
            };
            patience.after(failed).await.map_err(Failed::from)?;
            self.find_place(start).await.map_err(Failed::from)?;
            if self.at > end {
                return Err(Failed::Surely(self.lost()).into());
            }
        }
        Ok(())
    }

    /// Asks where the upload stands, which is not before what is still held here.
    async fn find_place(&mut self, held_from: u64) -> Result<()> {
        let Some((at, url)) = self.status_of(&self.url).await? else { return Err(self.lost()) };
        if at < held_from || at > self.size {
            return Err(self.lost());
        }
        (self.at, self.url) = (at, url);
        Ok(())
    }

    async fn status_of(&self, url: &Url) -> Result<Option<(u64, Url)>> {
        let remote = &self.remote;
        persevere(remote.patience(), || async {
            let answer =
                remote.send(&Method::GET, url, &HeaderMap::new(), Bytes::new(), Access::Push).await?;
            match answer.status {
                StatusCode::NO_CONTENT | StatusCode::OK | StatusCode::ACCEPTED => {
                    let place = (had(&answer).unwrap_or(0), located(&answer, url)?);
                    answer.dismiss().await;
                    Ok(Some(place))
                }
                status if super::is_passing(status) => Err(remote.refused(answer, "the upload").await),
                _ => {
                    answer.dismiss().await;
                    Ok(None)
                }
            }
        })
        .await
    }

    /// Sends what is held, and all that comes, in one body.
    async fn go_whole(&mut self) -> Result<()> {
        let (pieces, body) = mpsc::channel(PIECES_AHEAD);
        let remote = self.remote.clone();
        let url = self.url.with_query("digest", self.digest.as_str());
        let body = Outgoing::flow(body, self.size, remote.client.rate.clone());
        let mut headers = octets();
        let length = HeaderValue::from(self.size);
        headers.insert(CONTENT_LENGTH, length);
        let answer =
            tokio::spawn(
                async move { remote.send_once(&Method::PUT, &url, &headers, body, Access::Push).await },
            );
        let held = self.held.split().freeze();
        let taken = pieces.send(held).await.is_ok();
        self.whole = Some(Whole { pieces, answer });
        if taken { Ok(()) } else { self.whole_ended().await }
    }

    async fn whole_ended(&mut self) -> Result<()> {
        let Some(Whole { pieces, answer }) = self.whole.take() else { return Ok(()) };
        drop(pieces);
        let answer = answer.await.map_err(|error| Kind::Internal.from_cause(error))?;
        match answer {
            Ok(answer) if answer.status == StatusCode::CREATED => {
                answer.dismiss().await;
                Ok(())
            }
            Ok(answer) => {
                let failed = self.remote.refused(answer, &format!("the blob {}", self.digest)).await;
                // A body that was taken in part cannot be sent again from here.
                match failed {
                    Failed::Passing(..) => Err(self.lost()),
                    Failed::Surely(error) => Err(error),
                }
            }
            Err(Failed::Passing(..)) => Err(self.lost()),
            Err(Failed::Surely(error)) => Err(error),
        }
    }

    /// The blob must be sent from its beginning.
    fn lost(&self) -> Error {
        Kind::NotFound(Thing::Upload)
            .because(format!("{} lost the upload of {}; it begins again", self.remote, self.digest))
    }
}

impl From<Failed> for Stuck {
    fn from(failed: Failed) -> Stuck {
        Stuck::Failed(failed)
    }
}

fn octets() -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    headers
}

/// `from-to`, both inclusive, without a unit: the distribution protocol's own.
fn range(from: u64, bytes: usize) -> Result<HeaderValue> {
    let to = (from + bytes as u64).saturating_sub(1);
    HeaderValue::from_str(&format!("{from}-{to}")).map_err(|error| Kind::Internal.from_cause(error))
}

/// How many bytes an answer says were taken: `0-N`, where `0-0` is said of none.
fn had(answer: &Answer) -> Option<u64> {
    let text = answer.header(RANGE)?;
    let text = text.trim_start_matches("bytes=");
    let to = text.strip_prefix("0-")?.parse::<u64>().ok()?;
    Some(if to == 0 { 0 } else { to + 1 })
}

fn located(answer: &Answer, from: &Url) -> Result<Url> {
    answer.header(LOCATION).map_or_else(|| Ok(from.clone()), |location| from.join(location))
}

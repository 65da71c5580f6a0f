//! A request that was matched and allowed: what a handler works with.

use bytes::Bytes;
use hyper::body::{Body, Incoming};
use hyper::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderName};
use hyper::http::request::Parts;
use serde_json::{Map, Value};
use std::borrow::Cow;
use std::future::poll_fn;
use std::io::{self, Read};
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::time::{Instant, timeout};

use super::auth::Caller;
use super::route::Asked;
use super::{App, CONNECTION_BYTES};
use crate::error::{Error, Kind, Result, Thing};
use crate::names::{Digest, RepoName};
use crate::registry::{Mark, Next, Registry, Upload, User};

/// A body that sends nothing for this long is given up.
const BODY_SILENCE_MAX: Duration = Duration::from_secs(30);
/// After its first half minute a body must have come at this rate, in bytes a second.
const BODY_RATE_MIN: u64 = 1_024;
/// A body that must be whole in memory has this long to come.
const WHOLE_BODY_MAX: Duration = Duration::from_secs(120);
/// How much of a body is waited for before it is written: one checksum's worth.
const GATHER_BYTES: usize = 64 << 10;
/// How much is written at once if it is there already and memory allows: what it costs to hand a
/// stretch to a thread does not depend on its length.
const GATHER_BYTES_MAX: usize = 1 << 20;
/// Most frames held at once: a client may send bytes one by one.
const GATHER_FRAMES_MAX: usize = 256;

/// Frames that wait for a verb that reads a body as it comes.
const FEED_FRAMES: usize = 4;

/// Longest body of named values.
const FIELDS_BYTES_MAX: usize = 256 << 10;

pub struct Call {
    pub app: Arc<App>,
    asked: Arc<Asked>,
    caller: Caller,
    repo: Option<RepoName>,
    body: Option<Incoming>,
    /// Shared memory that a whole body took.
    shares: Vec<OwnedSemaphorePermit>,
}

impl Call {
    pub fn new(
        app: Arc<App>,
        asked: Arc<Asked>,
        caller: Caller,
        repo: Option<RepoName>,
        body: Incoming,
    ) -> Call {
        Call { app, asked, caller, repo, body: Some(body), shares: Vec::new() }
    }

    pub fn head(&self) -> &Parts {
        &self.asked.head
    }

    pub fn asked(&self) -> &Asked {
        &self.asked
    }

    pub fn is_head(&self) -> bool {
        self.head().method == hyper::Method::HEAD
    }

    pub fn caller(&self) -> &Caller {
        &self.caller
    }

    /// The user, where the row needs one. Nobody never gets past rows that push.
    pub fn user(&self) -> Result<&User> {
        self.caller.user.as_ref().ok_or(Kind::Unauthorized.into())
    }

    /// The repository of the path. Rows that call this have a `{name*}`.
    pub fn repo(&self) -> Result<&RepoName> {
        self.repo.as_ref().ok_or(Kind::NotFound(Thing::Repo).into())
    }

    pub fn param(&self, name: &str) -> &str {
        self.asked.params.get(name).unwrap_or_default()
    }

    pub fn digest(&self) -> Result<Digest> {
        Digest::parse(self.param("digest"))
    }

    /// A header's text; None also for one that is not text.
    pub fn header(&self, name: HeaderName) -> Option<&str> {
        self.head().headers.get(name)?.to_str().ok()
    }

    /// Every value a query gives a key, decoded.
    pub fn query_all<'a>(&'a self, key: &'a str) -> impl Iterator<Item = Cow<'a, str>> {
        let query = self.head().uri.query().unwrap_or_default();
        form_urlencoded::parse(query.as_bytes()).filter(move |(name, _)| name == key).map(|(_, value)| value)
    }

    pub fn query<'a>(&'a self, key: &'a str) -> Option<Cow<'a, str>> {
        self.query_all(key).next()
    }

    /// This request's path and query, with the page that comes next: its number, and where it
    /// begins if numbers do not reach it. None at the end.
    pub fn next_address(&self, number: u64, next: &Next) -> Option<String> {
        match next {
            Next::End => None,
            Next::Page => Some(self.page_address(number, None)),
            Next::After(mark) => Some(self.page_address(number, Some(mark))),
        }
    }

    /// This request's path and query, with another page.
    pub fn page_address(&self, number: u64, after: Option<&Mark>) -> String {
        let uri = &self.head().uri;
        let mut query = form_urlencoded::Serializer::new(String::new());
        for (name, value) in form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes()) {
            if name != "page" && name != "after" {
                query.append_pair(&name, &value);
            }
        }
        query.append_pair("page", &number.to_string());
        if let Some(mark) = after {
            query.append_pair("after", &mark.to_string());
        }
        format!("{}?{}", uri.path(), query.finish())
    }

    /// Where the page that is asked for begins, if the client followed such an address.
    pub fn after(&self) -> Result<Option<Mark>> {
        let mark = |text: Cow<str>| Mark::parse(&text).ok_or(Kind::NotFound(Thing::Page).into());
        self.query("after").map(mark).transpose()
    }

    /// How long the body says it is; None if it comes in chunks.
    pub fn content_length(&self) -> Result<Option<u64>> {
        match self.head().headers.get(CONTENT_LENGTH) {
            None => Ok(None),
            Some(value) => value
                .to_str()
                .ok()
                .and_then(|text| text.parse().ok())
                .map(Some)
                .ok_or(Kind::Invalid(Thing::Request).because("the Content-Length does not parse")),
        }
    }

    /// A short look at the registry, on the thread that asks: an indexed probe of pages
    /// that are in memory costs less than the way to another thread and back.
    pub fn look<T>(&self, verb: impl FnOnce(&Registry) -> Result<T>) -> Result<T> {
        verb(&self.app.registry)
    }

    /// A verb that writes, hashes or reads files, on a thread that may block.
    pub async fn run<T: Send + 'static>(
        &self,
        verb: impl FnOnce(&Registry) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        self.app.run(verb).await
    }

    /// The whole body, for what is small by its nature. More than `max` bytes are
    /// `TooLarge`, told before any are read if the client says so.
    ///
    /// The first 64 KiB are every connection's own. What goes beyond takes from memory that
    /// is shared, as it arrives, and keeps it until the call is over; so a body that is
    /// announced and never sent holds nothing, and one that drips is given up.
    pub async fn body(&mut self, max: usize, thing: Thing) -> Result<Bytes> {
        let too_large = || Kind::TooLarge(thing).because(format!("at most {max} bytes are taken here"));
        if self.content_length()?.is_some_and(|bytes| bytes > max as u64) {
            return Err(too_large());
        }
        let whole = async {
            let mut bytes = Vec::new();
            let mut pace = Pace::start();
            while let Some(frame) = self.frame(&mut pace).await? {
                if bytes.len() + frame.len() > max {
                    return Err(too_large());
                }
                let beyond = (bytes.len() + frame.len()).saturating_sub(GATHER_BYTES.max(bytes.len()));
                if beyond > 0 {
                    self.shares.push(self.app.body_memory(beyond).await?);
                }
                bytes.extend_from_slice(&frame);
            }
            Ok(bytes.into())
        };
        timeout(WHOLE_BODY_MAX, whole).await.unwrap_or(Err(Kind::Slow.into()))
    }

    /// A body's fields, whether it is JSON or a form of either kind: the Content-Type is a hint, for
    /// scripts send JSON and say form. What says JSON must be it. An empty body has no fields.
    /// Values of a form are texts, or lists of them where a name comes again; a JSON body must be
    /// an object.
    pub async fn fields(&mut self) -> Result<Map<String, Value>> {
        let body = self.body(FIELDS_BYTES_MAX, Thing::Request).await?;
        let text = body.trim_ascii();
        if text.is_empty() {
            return Ok(Map::new());
        }
        if text.starts_with(b"{") || text.starts_with(b"[") {
            return match serde_json::from_slice(text) {
                Ok(Value::Object(fields)) => Ok(fields),
                Ok(_) => Err(Kind::Invalid(Thing::Request).because("the body is not a JSON object")),
                Err(_) => Err(Kind::Invalid(Thing::Request).because("the JSON body does not parse")),
            };
        }
        let content_type = self.header(CONTENT_TYPE).unwrap_or_default();
        if content_type.starts_with("application/json") {
            return Err(Kind::Invalid(Thing::Request).because("the JSON body does not parse"));
        }
        if content_type.starts_with("multipart/form-data") {
            let boundary = content_type.split_once("boundary=").map_or("", |(_, boundary)| boundary);
            let boundary = boundary.split(';').next().unwrap_or_default().trim().trim_matches('"');
            return multipart(text, boundary)
                .ok_or(Kind::Invalid(Thing::Request).because("the multipart body does not parse"));
        }
        let mut fields = Map::new();
        for (name, value) in form_urlencoded::parse(text) {
            add_field(&mut fields, &name, &value);
        }
        Ok(fields)
    }

    /// Pours the body into an upload, and returns how many bytes the upload has then.
    ///
    /// What arrived is written even if the body then breaks off, so that the client may
    /// go on from there. A slow client holds a socket and at most 64 KiB, never a thread.
    pub async fn pour(&mut self, upload: &Upload) -> Result<u64> {
        let max = self.app.options().blob_bytes_max;
        let mut total = upload.bytes()?;
        let room = max.saturating_sub(total);
        let announced = self.content_length()?.unwrap_or(0);
        if announced > room {
            return Err(Kind::TooLarge(Thing::Blob).because(format!("a blob has at most {max} bytes here")));
        }
        self.look(|registry| registry.check_room(announced))?;
        let mut pace = Pace::start();
        let mut since_check = 0;
        loop {
            let Gathered { frames, share, end } = self.gather(&mut pace).await;
            let bytes: usize = frames.iter().map(Bytes::len).sum();
            if bytes > 0 {
                if total + bytes as u64 > max {
                    return Err(
                        Kind::TooLarge(Thing::Blob).because(format!("a blob has at most {max} bytes here"))
                    );
                }
                let upload = upload.clone();
                // After a failed write nobody knows where the file ends.
                total = self
                    .run(move |registry| {
                        upload.write(&frames).inspect_err(|_| registry.upload_cancel(&upload))
                    })
                    .await?;
            }
            drop(share);
            match end {
                None => {}
                Some(Ok(())) => return Ok(total),
                Some(Err(error)) => return Err(error),
            }
            since_check += bytes;
            if since_check >= 64 << 20 {
                since_check = 0;
                self.look(|registry| registry.check_room(0))?;
            }
        }
    }

    /// Hands the body to a verb that reads it as it comes, on a thread that may block: for what
    /// cannot be cut into writes. Such threads are few, so whoever asks must hold a permit.
    pub async fn feed<T: Send + 'static>(
        &mut self,
        _permit: OwnedSemaphorePermit,
        verb: impl FnOnce(&Registry, Feed) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (frames, came) = mpsc::channel(FEED_FRAMES);
        let app = self.app.clone();
        let feed = Feed { came, rest: Bytes::new() };
        let verb = app.run(move |registry| verb(registry, feed));
        let pump = async move {
            let mut pace = Pace::start();
            loop {
                let frame = self.frame(&mut pace).await.transpose();
                let Some(frame) = frame else { return };
                let ends = frame.is_err();
                // A verb that wants no more has failed, or is done.
                if frames.send(frame).await.is_err() || ends {
                    return;
                }
            }
        };
        tokio::join!(verb, pump).0
    }

    async fn gather(&mut self, pace: &mut Pace) -> Gathered {
        let mut gathered = Gathered { frames: Vec::new(), share: None, end: None };
        let mut bytes = 0;
        while gathered.frames.len() < GATHER_FRAMES_MAX && bytes < GATHER_BYTES_MAX {
            let frame = if bytes < GATHER_BYTES {
                // Enough to be worth a write: this much every connection may hold.
                self.frame(pace).await
            } else {
                // And what is there already, while memory for it is left.
                let held = gathered.share.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
                let needed = bytes + CONNECTION_BYTES - GATHER_BYTES;
                if needed > held && !self.app.gather_more(&mut gathered.share, needed - held) {
                    break;
                }
                let Some(frame) = self.frame_at_hand(pace).await else { break };
                frame
            };
            match frame {
                Ok(Some(frame)) => {
                    bytes += frame.len();
                    gathered.frames.push(frame);
                }
                Ok(None) => gathered.end = Some(Ok(())),
                Err(error) => gathered.end = Some(Err(error)),
            }
            if gathered.end.is_some() {
                break;
            }
        }
        gathered
    }

    /// The next bytes of the body; None at its end.
    async fn frame(&mut self, pace: &mut Pace) -> Result<Option<Bytes>> {
        let Some(body) = &mut self.body else { return Ok(None) };
        loop {
            let frame = timeout(BODY_SILENCE_MAX, poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)))
                .await
                .map_err(|_| Error::from(Kind::Slow))?;
            match frame {
                None => return Ok(None),
                Some(Err(error)) => {
                    return Err(Kind::Invalid(Thing::Request)
                        .because("the request body broke off")
                        .with_cause(error));
                }
                // Trailers say nothing we need.
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(bytes) => return pace.check(bytes).map(Some),
                    Err(_trailers) => {}
                },
            }
        }
    }

    /// The same, if it need not be waited for. The connection that fills the body runs in
    /// this very task, so it is given one turn to bring what the socket has.
    async fn frame_at_hand(&mut self, pace: &mut Pace) -> Option<Result<Option<Bytes>>> {
        let mut frame = std::pin::pin!(self.frame(pace));
        let mut turns = 1;
        poll_fn(|cx| match frame.as_mut().poll(cx) {
            Poll::Ready(frame) => Poll::Ready(Some(frame)),
            Poll::Pending if turns == 0 => Poll::Ready(None),
            Poll::Pending => {
                turns -= 1;
                cx.waker().wake_by_ref();
                Poll::Pending
            }
        })
        .await
    }
}

/// A body as a stream that blocks.
pub struct Feed {
    came: mpsc::Receiver<Result<Bytes>>,
    rest: Bytes,
}

impl Read for Feed {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.rest.is_empty() {
            match self.came.blocking_recv() {
                None => return Ok(0),
                Some(frame) => self.rest = frame.map_err(io::Error::other)?,
            }
        }
        let some = self.rest.len().min(buffer.len());
        buffer[..some].copy_from_slice(&self.rest.split_to(some));
        Ok(some)
    }
}

/// The texts of a multipart body (RFC 7578); files are left out. None if it does not parse.
fn multipart(body: &[u8], boundary: &str) -> Option<Map<String, Value>> {
    if boundary.is_empty() {
        return None;
    }
    // Every delimiter begins a line, the first one too.
    let text = format!("\r\n{}", std::str::from_utf8(body).ok()?);
    let mut fields = Map::new();
    for part in text.split(&format!("\r\n--{boundary}")).skip(1) {
        if part.starts_with("--") {
            return Some(fields);
        }
        let (head, value) = part.split_once("\r\n\r\n")?;
        let name = head.split_once("; name=\"").and_then(|(_, rest)| rest.split_once('"'));
        if let Some((name, rest)) = name
            && !rest.starts_with("; filename=")
        {
            add_field(&mut fields, name, value);
        }
    }
    None
}

/// Adds what a form says. Twice the same name is a list: which of two texts somebody else
/// would believe, nobody knows.
fn add_field(fields: &mut Map<String, Value>, name: &str, text: &str) {
    match fields.get_mut(name) {
        None => {
            fields.insert(name.to_owned(), text.into());
        }
        Some(Value::Array(list)) => list.push(text.into()),
        Some(first) => *first = Value::Array(vec![first.take(), text.into()]),
    }
}

/// A stretch of a body, on its way to the disk.
struct Gathered {
    frames: Vec<Bytes>,
    /// The memory it may use beyond what every connection has.
    share: Option<OwnedSemaphorePermit>,
    /// How the body ended, if it did.
    end: Option<Result<()>>,
}

/// Watches that a body does not drip.
struct Pace {
    start: Instant,
    bytes: u64,
}

impl Pace {
    fn start() -> Pace {
        Pace { start: Instant::now(), bytes: 0 }
    }

    fn check(&mut self, frame: Bytes) -> Result<Bytes> {
        self.bytes += frame.len() as u64;
        let elapsed = self.start.elapsed();
        if elapsed > BODY_SILENCE_MAX && self.bytes < BODY_RATE_MIN * elapsed.as_secs() {
            return Err(Kind::Slow.into());
        }
        Ok(frame)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_multipart_body_gives_its_texts_and_must_be_whole() {
        let body = "--b\r\nContent-Disposition: form-data; name=\"name\"\r\n\r\napp\r\n\
            --b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"x\"\r\n\r\ny\r\n\
            --b\r\nContent-Disposition: form-data; name=\"text\"\r\nContent-Type: text/plain\r\n\r\n\
            two\r\nlines --b--\r\n--b--\r\n";
        let fields = multipart(body.as_bytes(), "b").expect("parses");
        assert_eq!(Value::from(fields), serde_json::json!({"name": "app", "text": "two\r\nlines --b--"}));
        let cut = &body.as_bytes()[..body.len() - 8];
        for (body, boundary) in
            [(cut, "b"), (body.as_bytes(), ""), (body.as_bytes(), "c"), (&b"\xff"[..], "b")]
        {
            assert!(multipart(body, boundary).is_none());
        }
        assert!(multipart(b"--b--", "b").is_some_and(|fields| fields.is_empty()));
    }
}

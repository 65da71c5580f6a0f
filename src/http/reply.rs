//! Answers: JSON, bytes, and blobs that stream.

use bytes::Bytes;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use hyper::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::{Response, StatusCode};
use serde::Serialize;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tokio::sync::{OwnedSemaphorePermit, SemaphorePermit};
use tokio::task::JoinHandle;

use super::App;
use crate::error::{Error, Kind, Result, Thing};
use crate::registry::{BlobReader, Export, Piece};

pub type Reply = Response<Body>;

pub const JSON: &str = "application/json";

/// An answer's bytes.
pub enum Body {
    /// All at hand; None once they are given away.
    Full(Option<Bytes>),
    /// Read as the client takes it.
    Blob(BlobBody),
    /// The same, of many blobs.
    Export(Box<ExportBody>),
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>>>> {
        match self.get_mut() {
            Body::Full(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Body::Blob(blob) => blob.poll_piece(cx).map(|piece| piece.map(|piece| piece.map(Frame::data))),
            Body::Export(export) => {
                export.poll_piece(cx).map(|piece| piece.map(|piece| piece.map(Frame::data)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Body::Full(bytes) => bytes.as_ref().is_none_or(Bytes::is_empty),
            Body::Blob(blob) => blob.at == blob.end && blob.ready.is_none(),
            Body::Export(export) => export.left == 0,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Body::Full(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |b| b.len() as u64)),
            Body::Blob(blob) => {
                let ready = blob.ready.as_ref().map_or(0, |bytes| bytes.len() as u64);
                SizeHint::with_exact(blob.end - blob.at + ready)
            }
            Body::Export(export) => SizeHint::with_exact(export.left),
        }
    }
}

/// A stretch of a blob, read and checked a piece at a time while the one before is sent.
/// Ends with an error, and so the connection, at the first byte that is wrong.
pub struct BlobBody {
    app: Arc<App>,
    /// The file, and the right to have it open, until it is read to the end.
    blob: Option<(Arc<BlobReader>, OwnedSemaphorePermit)>,
    /// The first piece, which was read before the answer began.
    ready: Option<Bytes>,
    /// Bytes of the blob from here on are not yet read.
    at: u64,
    end: u64,
    reading: Option<JoinHandle<Result<Bytes>>>,
    /// The memory for pieces of full size, while there is enough for everybody.
    share: Option<OwnedSemaphorePermit>,
}

impl BlobBody {
    /// `first` is the piece that begins the stretch; what follows it goes up to `end`.
    pub fn new(
        app: Arc<App>,
        blob: BlobReader,
        (permit, share): (OwnedSemaphorePermit, Option<OwnedSemaphorePermit>),
        first: Bytes,
        at: u64,
        end: u64,
    ) -> BlobBody {
        let at = at + first.len() as u64;
        let blob = (at < end).then(|| (Arc::new(blob), permit));
        BlobBody { app, blob, ready: Some(first), at, end, reading: None, share }
    }

    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes>>> {
        if let Some(first) = self.ready.take() {
            return Poll::Ready(Some(Ok(first)));
        }
        let Some((blob, _)) = &self.blob else { return Poll::Ready(None) };
        if self.share.is_none() {
            self.share = self.app.piece_memory();
        }
        // A slow reader among many waits for nobody: it gets small pieces.
        let size = Piece::of(self.share.is_some());
        let (at, end) = (self.at, self.end);
        // What the kernel has in memory is not worth a thread.
        let at_hand = if self.reading.is_none() { blob.piece_at_hand(at, end, size) } else { None };
        let piece = match at_hand {
            Some(bytes) => Ok(bytes),
            None => {
                let reading = self.reading.get_or_insert_with(|| {
                    let (registry, blob) = (self.app.registry.clone(), blob.clone());
                    tokio::task::spawn_blocking(move || registry.blob_piece(&blob, at, end, size))
                });
                let piece = ready!(Pin::new(reading).poll(cx));
                self.reading = None;
                piece.unwrap_or_else(|stopped| Err(Kind::Unavailable.from_cause(stopped)))
            }
        };
        match &piece {
            Ok(bytes) => self.at += bytes.len() as u64,
            Err(_) => self.at = self.end,
        }
        if self.at >= self.end {
            self.blob = None;
        }
        Poll::Ready(Some(piece))
    }
}

/// Images as one stream, read and checked a piece at a time while the client takes it.
pub struct ExportBody {
    app: Arc<App>,
    /// None while it is being read, and after an error.
    export: Option<Export>,
    ready: Option<Bytes>,
    /// Bytes that the client has not got.
    left: u64,
    reading: Option<JoinHandle<(Export, Result<Option<Bytes>>)>>,
    share: Option<OwnedSemaphorePermit>,
    _permit: SemaphorePermit<'static>,
}

impl ExportBody {
    /// `first` is the piece that begins the stretch.
    pub fn new(app: Arc<App>, export: Export, first: Bytes, permit: SemaphorePermit<'static>) -> ExportBody {
        let left = export.layout().bytes;
        let (export, ready) = (Some(export), Some(first));
        ExportBody { app, export, ready, left, reading: None, share: None, _permit: permit }
    }

    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes>>> {
        if let Some(first) = self.ready.take() {
            self.left -= first.len() as u64;
            return Poll::Ready(Some(Ok(first)));
        }
        if self.share.is_none() {
            self.share = self.app.piece_memory();
        }
        let size = Piece::of(self.share.is_some());
        if self.reading.is_none() {
            let Some(mut export) = self.export.take() else { return Poll::Ready(None) };
            let registry = self.app.registry.clone();
            self.reading = Some(tokio::task::spawn_blocking(move || {
                let piece = registry.export_piece(&mut export, size);
                (export, piece)
            }));
        }
        let Some(reading) = &mut self.reading else { return Poll::Ready(None) };
        let outcome = ready!(Pin::new(reading).poll(cx));
        self.reading = None;
        Poll::Ready(match outcome {
            Ok((export, Ok(Some(piece)))) => {
                self.export = Some(export);
                self.left -= piece.len() as u64;
                Some(Ok(piece))
            }
            Ok((_, Ok(None))) => None,
            Ok((_, Err(error))) => Some(Err(error)),
            Err(stopped) => Some(Err(Kind::Unavailable.from_cause(stopped))),
        })
    }
}

/// An answer without a body.
pub fn empty(status: StatusCode) -> Reply {
    bytes(status, Bytes::new())
}

/// An answer of these bytes, with no type yet.
pub fn bytes(status: StatusCode, bytes: impl Into<Bytes>) -> Reply {
    let bytes = bytes.into();
    let len = bytes.len();
    let mut reply = Response::new(Body::Full(Some(bytes)));
    *reply.status_mut() = status;
    // No body is allowed with 204, and so no length.
    if status != StatusCode::NO_CONTENT && status != StatusCode::NOT_MODIFIED {
        reply.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(len));
    }
    reply
}

pub fn json(status: StatusCode, value: &impl Serialize) -> Reply {
    // Our own types serialise; a failure would be a bug, and an empty object says nothing false.
    let text = serde_json::to_vec(value).unwrap_or_else(|_| b"{}".to_vec());
    with(bytes(status, text), CONTENT_TYPE, JSON)
}

/// An answer with one more header. Values come from parsed names and numbers; one that
/// no header may hold is left out.
pub fn with(mut reply: Reply, name: HeaderName, value: impl AsRef<str>) -> Reply {
    if let Ok(value) = HeaderValue::from_str(value.as_ref()) {
        reply.headers_mut().append(name, value);
    }
    reply
}

/// What a Range header asks of so many bytes: None for everything.
///
/// One range is honoured; several, or another unit, mean the whole, as RFC 9110 §14.2
/// allows. A range that lies outside, or runs backwards, is `RangeOutside`.
pub fn range(header: Option<&str>, bytes: u64) -> Result<Option<(u64, u64)>> {
    let Some(spec) = header.and_then(|header| header.trim().strip_prefix("bytes=")) else {
        return Ok(None);
    };
    let outside = || Error::from(Kind::RangeOutside { size: bytes });
    let number = |text: &str| -> Result<u64> {
        let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        if !digits {
            return Err(Kind::Invalid(Thing::Request).because("the Range header does not parse"));
        }
        // More digits than a u64 has lie outside any blob.
        Ok(text.parse().unwrap_or(u64::MAX))
    };
    if spec.contains(',') {
        return Ok(None);
    }
    let (first, last) = spec.trim().split_once('-').unwrap_or((spec, "x"));
    let (start, end) = match (first.trim(), last.trim()) {
        ("", suffix) => {
            let suffix = number(suffix)?;
            if suffix == 0 {
                return Err(outside());
            }
            (bytes.saturating_sub(suffix), bytes)
        }
        (first, "") => (number(first)?, bytes),
        (first, last) => (number(first)?, number(last)?.saturating_add(1).min(bytes)),
    };
    if start >= end || start >= bytes { Err(outside()) } else { Ok(Some((start, end))) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_cut_to_the_blob() {
        for (text, expected) in [
            ("bytes=0-0", (0, 1)),
            ("bytes=2-4", (2, 5)),
            ("bytes=2-", (2, 10)),
            ("bytes=-3", (7, 10)),
            ("bytes=-99", (0, 10)),
            ("bytes=9-99999999999999999999999", (9, 10)),
        ] {
            assert_eq!(range(Some(text), 10).expect(text), Some(expected), "{text}");
        }
    }

    #[test]
    fn ranges_reach_beyond_what_32_bits_hold() {
        let bytes = 6_000_000_000;
        for (text, expected) in [
            ("bytes=4294967295-4294967296", (4_294_967_295, 4_294_967_297)),
            ("bytes=5000000000-", (5_000_000_000, bytes)),
            ("bytes=-1", (bytes - 1, bytes)),
            ("bytes=-4294967297", (1_705_032_703, bytes)),
        ] {
            assert_eq!(range(Some(text), bytes).expect(text), Some(expected), "{text}");
        }
    }

    #[test]
    fn ranges_outside_or_backwards_are_refused_and_several_mean_everything() {
        for text in ["bytes=10-", "bytes=500-0", "bytes=5-4", "bytes=-0", "bytes=99999999999999999999-"] {
            assert_eq!(range(Some(text), 10).expect_err(text).kind, Kind::RangeOutside { size: 10 });
        }
        for text in ["bytes=a-b", "bytes=", "bytes=1", "bytes=--1", "bytes=1-2-3"] {
            assert_eq!(range(Some(text), 10).expect_err(text).kind, Kind::Invalid(Thing::Request), "{text}");
        }
        for text in [None, Some("bytes=0-1,3-4"), Some("lines=1-2")] {
            assert_eq!(range(text, 10).expect("ignored"), None);
        }
        assert!(range(Some("bytes=0-0"), 0).is_err());
    }
}

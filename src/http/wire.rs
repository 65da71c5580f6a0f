//! One connection's bytes, between hyper and the socket: the clocks that hyper has not,
//! a body for the refusals it sends by itself, and a close that clients survive.

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

use super::reply;
use crate::error::Error;

/// From a request's first byte to the end of its head; on a new connection from the start.
const HEAD_MAX: Duration = Duration::from_secs(10);
/// How long a client may take nothing of what we send.
const STALL_MAX: Duration = Duration::from_secs(60);
/// A connection that is silent for so long between two requests needs no buffers of hyper's.
const REST_AFTER: Duration = Duration::from_millis(50);
/// How long, and how much, is still read from a client that was answered before it had
/// sent everything. Closing at once would make its kernel throw our answer away.
const LINGER_MAX: Duration = Duration::from_secs(3);
const LINGER_BYTES_MAX: usize = 32 << 20;

/// What a connection's two ends tell each other.
#[derive(Debug, Default)]
pub struct WireState {
    /// Whose bytes are on the way out.
    out: AtomicU8,
    /// The last head read had both a Content-Length and a Transfer-Encoding.
    framed_twice: AtomicBool,
    /// The answer goes out before the request has come in.
    rest_unread: AtomicBool,
}

/// Nobody's: what is read is a request's head.
const IDLE: u8 = 0;
/// A request was handed to us.
const ANSWERING: u8 = 1;
/// Our answer is complete, but perhaps not written to its end.
const FLUSHING: u8 = 2;

impl WireState {
    /// Marks that a request is being answered, until the guard's body has ended.
    pub fn answer(self: &Arc<Self>) -> Answering {
        self.out.store(ANSWERING, Ordering::Relaxed);
        Answering(self.clone())
    }

    /// Whether the head just read framed its body in two ways. hyper drops the length
    /// and goes on; a proxy before us may have done the opposite (RFC 9112 §6.1).
    pub fn was_framed_twice(&self) -> bool {
        self.framed_twice.load(Ordering::Relaxed)
    }

    fn is(&self, state: u8) -> bool {
        self.out.load(Ordering::Relaxed) == state
    }
}

pub struct Answering(Arc<WireState>);

impl Answering {
    /// The connection ends with this answer, and the client may still be sending.
    pub fn leave_rest_unread(&self) {
        self.0.rest_unread.store(true, Ordering::Relaxed);
    }

    pub fn until_end_of(self, body: reply::Body) -> Watched {
        Watched { body, _answering: self }
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        self.0.out.store(FLUSHING, Ordering::Relaxed);
    }
}

/// A body that tells when it has ended.
pub struct Watched {
    body: reply::Body,
    _answering: Answering,
}

impl Body for Watched {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Reads the names of a head's fields, as they come, for the two that frame a body.
#[derive(Default)]
struct Framing {
    /// The field's name so far, in lower case; as much of it as can matter.
    name: [u8; 18],
    len: usize,
    in_value: bool,
    length: bool,
    encoding: bool,
    ended: bool,
    /// More came with the head than the head.
    beyond: bool,
}

impl Framing {
    fn is_twice(&mut self, bytes: &[u8]) -> bool {
        for byte in bytes {
            match byte {
                _ if self.ended => {
                    self.beyond = true;
                    break;
                }
                b'\r' => {}
                b'\n' => {
                    self.ended = self.len == 0 && !self.in_value;
                    (self.len, self.in_value) = (0, false);
                }
                b':' if !self.in_value => {
                    self.in_value = true;
                    let name = self.name.get(..self.len).unwrap_or_default();
                    self.length |= name == b"content-length";
                    self.encoding |= name == b"transfer-encoding";
                }
                byte if !self.in_value => {
                    if let Some(place) = self.name.get_mut(self.len) {
                        *place = byte.to_ascii_lowercase();
                    }
                    self.len += 1;
                }
                _ => {}
            }
        }
        self.length && self.encoding
    }
}

pub struct Wire<S> {
    stream: S,
    state: Arc<WireState>,
    /// How the head that is being read says its body is framed.
    framing: Framing,
    /// When the head that is being read began.
    head_since: Option<Instant>,
    /// When the client last took something, while it takes nothing.
    stalled_since: Option<Instant>,
    clock: Option<Pin<Box<Sleep>>>,
    /// A refusal of hyper's, with the body it lacks, and how much of it is written.
    refusal: Option<(Vec<u8>, usize)>,
    refused: bool,
    linger: Option<(Instant, usize)>,
    /// Bytes came that may belong to the next request: hyper has them, and must keep them.
    ahead: bool,
    /// Since when nothing has come, between two requests.
    silent_since: Option<Instant>,
    /// hyper was told that the client is gone, so that it lets go of this.
    resting: bool,
    /// The byte that ended a rest.
    first: Option<u8>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Wire<S> {
    pub fn new(stream: S, state: Arc<WireState>) -> Wire<S> {
        Wire {
            stream,
            state,
            framing: Framing::default(),
            head_since: Some(Instant::now()),
            stalled_since: None,
            clock: None,
            refusal: None,
            refused: false,
            linger: None,
            ahead: false,
            silent_since: None,
            resting: false,
            first: None,
        }
    }

    /// Whether the connection, which hyper is done with, goes on: the client only is silent.
    pub fn rests(&self) -> bool {
        self.resting
    }

    /// Waits for the client to say something more. False if it closes instead.
    pub async fn wake(&mut self) -> io::Result<bool> {
        let mut byte = [0];
        if self.stream.read(&mut byte).await? == 0 {
            self.resting = false;
            return Ok(false);
        }
        (self.resting, self.first, self.head_since) = (false, Some(byte[0]), Some(Instant::now()));
        Ok(true)
    }

    /// Ends a rest, and the connection.
    pub async fn close(&mut self) -> io::Result<()> {
        self.resting = false;
        self.stream.shutdown().await
    }

    /// Whether it is time to rest; until then the task is woken for it. The clock is not wound
    /// anew for each request: it may go off early, and then is.
    fn rest_is_due(&mut self, cx: &mut Context<'_>) -> bool {
        let now = Instant::now();
        let due = *self.silent_since.get_or_insert(now) + REST_AFTER;
        if now >= due {
            return true;
        }
        let clock = self.clock.get_or_insert_with(|| Box::pin(sleep_until(due)));
        if clock.deadline() > due {
            clock.as_mut().reset(due);
        }
        if clock.as_mut().poll(cx).is_ready() {
            clock.as_mut().reset(due);
            // Its time has not come, for this one is later than now.
            let _ = clock.as_mut().poll(cx);
        }
        false
    }

    /// An error once `deadline` has passed; until then the task is woken for it.
    fn check(&mut self, cx: &mut Context<'_>, deadline: Instant) -> io::Result<()> {
        let clock = match &mut self.clock {
            Some(clock) => {
                if clock.deadline() != deadline {
                    clock.as_mut().reset(deadline);
                }
                clock
            }
            None => self.clock.insert(Box::pin(sleep_until(deadline))),
        };
        match clock.as_mut().poll(cx) {
            Poll::Ready(()) => Err(io::ErrorKind::TimedOut.into()),
            Poll::Pending => Ok(()),
        }
    }

    /// Watches that the client takes what is written.
    fn watch_stall<T>(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.stalled_since = None;
            return written;
        }
        let since = *self.stalled_since.get_or_insert_with(Instant::now);
        self.check(cx, since + STALL_MAX)?;
        Poll::Pending
    }

    /// The refusal to be written instead of these bytes, if they are one of hyper's own:
    /// nothing else is written while no answer of ours is on its way.
    fn own_refusal(&self, bytes: &[u8]) -> Option<Vec<u8>> {
        if !self.state.is(IDLE) {
            return None;
        }
        let line = bytes.strip_prefix(b"HTTP/1.1 ")?.split(|b| *b == b'\r').next()?;
        let line = std::str::from_utf8(line).ok()?;
        let (code, message) = match line.get(..3)? {
            "414" => ("UNSUPPORTED", "the request line is too long"),
            "431" => ("UNSUPPORTED", "too many or too long header fields"),
            status if status.starts_with('4') => ("UNSUPPORTED", "the request does not parse"),
            _ => return None,
        };
        let body = format!(r#"{{"errors":[{{"code":"{code}","message":"{message}"}}]}}"#);
        let refusal = format!(
            "HTTP/1.1 {line}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\
             docker-distribution-api-version: registry/2.0\r\nconnection: close\r\n\r\n{body}",
            body.len()
        );
        Some(refusal.into_bytes())
    }

    /// Writes the refusal to its end, then says that hyper's own bytes were written.
    fn poll_refusal(&mut self, cx: &mut Context<'_>, len: usize) -> Poll<io::Result<usize>> {
        while let Some((bytes, written)) = &mut self.refusal {
            if *written == bytes.len() {
                (self.refusal, self.refused) = (None, true);
                break;
            }
            let more = Pin::new(&mut self.stream).poll_write(cx, &bytes[*written..]);
            match more {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(more)) => *written += more,
                other => return self.watch_stall(cx, other),
            }
        }
        Poll::Ready(Ok(len))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Wire<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = match self.first.take() {
            Some(byte) => {
                buf.put_slice(&[byte]);
                Poll::Ready(Ok(()))
            }
            None => Pin::new(&mut self.stream).poll_read(cx, buf),
        };
        let came = buf.filled().len() > before;
        if !self.state.is(IDLE) {
            self.head_since = None;
            self.ahead |= came;
            return read;
        }
        if came {
            self.silent_since = None;
            self.head_since.get_or_insert_with(Instant::now);
            let twice = self.framing.is_twice(&buf.filled()[before..]);
            self.state.framed_twice.store(twice, Ordering::Relaxed);
            self.ahead = self.framing.beyond;
        }
        if read.is_pending() && self.head_since.is_none() && !self.ahead && self.rest_is_due(cx) {
            self.resting = true;
            return Poll::Ready(Ok(()));
        }
        if let (true, Some(since)) = (read.is_pending(), self.head_since) {
            self.check(cx, since + HEAD_MAX)?;
        }
        read
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Wire<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.refusal.is_none() {
            self.refusal = self.own_refusal(bytes).map(|refusal| (refusal, 0));
        }
        if self.refusal.is_some() {
            return self.poll_refusal(cx, bytes.len());
        }
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.watch_stall(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.state.is(IDLE) {
            let first = slices.iter().find(|slice| !slice.is_empty()).map_or(&[][..], |slice| slice);
            return self.poll_write(cx, first);
        }
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.watch_stall(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        let flushed = ready!(self.watch_stall(cx, flushed));
        // hyper flushes when its buffer is empty: our answer is out, to its last byte.
        if self.state.out.compare_exchange(FLUSHING, IDLE, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            self.framing = Framing::default();
            self.silent_since = None;
            if !self.ahead {
                self.head_since = None;
            }
        }
        Poll::Ready(flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.resting {
            return Poll::Ready(Ok(()));
        }
        if self.linger.is_none() {
            if !self.refused && !self.state.rest_unread.load(Ordering::Relaxed) {
                return Pin::new(&mut self.stream).poll_shutdown(cx);
            }
            ready!(Pin::new(&mut self.stream).poll_shutdown(cx))?;
            self.linger = Some((Instant::now() + LINGER_MAX, 0));
        }
        let mut sink = [std::mem::MaybeUninit::uninit(); 8 << 10];
        while let Some((until, read)) = self.linger {
            let mut buf = ReadBuf::uninit(&mut sink);
            match Pin::new(&mut self.stream).poll_read(cx, &mut buf) {
                Poll::Ready(Ok(())) if !buf.filled().is_empty() && read < LINGER_BYTES_MAX => {
                    self.linger = Some((until, read + buf.filled().len()));
                }
                Poll::Ready(_) => break,
                Poll::Pending => match self.check(cx, until) {
                    Ok(()) => return Poll::Pending,
                    Err(_) => break,
                },
            }
        }
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_that_frames_its_body_twice_is_noticed_however_it_is_cut() {
        let head = b"POST / HTTP/1.1\r\nHost: a:5\r\ncontent-LENGTH: 5\r\nTransfer-Encoding: chunked\r\n\r\n";
        for size in 1..head.len() {
            let mut framing = Framing::default();
            let told: Vec<bool> = head.chunks(size).map(|bytes| framing.is_twice(bytes)).collect();
            assert!(told.last().is_some_and(|twice| *twice), "{size}");
        }
    }

    #[test]
    fn a_body_and_a_value_may_say_what_they_like() {
        let mut framing = Framing::default();
        let head = b"PUT / HTTP/1.1\r\nX: transfer-encoding: chunked\r\nContent-Length: 30\r\n\r\n";
        assert!(!framing.is_twice(head));
        assert!(!framing.is_twice(b"Transfer-Encoding: chunked\r\n\r\n"));
    }
}

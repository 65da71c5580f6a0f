//! One connection's bytes, between hyper and the socket: the clocks that hyper has not,
//! a body for the refusals it sends by itself, and a close that clients survive.

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

use super::reply;
use crate::error::Error;

/// From a request's first byte to the end of its head; on a new connection from the start.
const HEAD_MAX: Duration = Duration::from_secs(10);
/// How long a client may take nothing of what we send.
const STALL_MAX: Duration = Duration::from_secs(60);
/// How long, and how much, is still read from a client that was answered before it had
/// sent everything. Closing at once would make its kernel throw our answer away.
const LINGER_MAX: Duration = Duration::from_secs(3);
const LINGER_BYTES_MAX: usize = 32 << 20;

/// Whose bytes are on the way out.
#[derive(Debug, Default)]
pub struct WireState(AtomicU8);

/// Nobody's: what is read is a request's head.
const IDLE: u8 = 0;
/// A request was handed to us.
const ANSWERING: u8 = 1;
/// Our answer is complete, but perhaps not written to its end.
const FLUSHING: u8 = 2;

impl WireState {
    /// Marks that a request is being answered, until the guard's body has ended.
    pub fn answer(self: &Arc<Self>) -> Answering {
        self.0.store(ANSWERING, Ordering::Relaxed);
        Answering(self.clone())
    }

    fn is(&self, state: u8) -> bool {
        self.0.load(Ordering::Relaxed) == state
    }
}

pub struct Answering(Arc<WireState>);

impl Answering {
    pub fn until_end_of(self, body: reply::Body) -> Watched {
        Watched { body, _answering: self }
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        self.0.0.store(FLUSHING, Ordering::Relaxed);
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

pub struct Wire<S> {
    stream: S,
    state: Arc<WireState>,
    /// When the head that is being read began.
    head_since: Option<Instant>,
    /// When the client last took something, while it takes nothing.
    stalled_since: Option<Instant>,
    clock: Option<Pin<Box<Sleep>>>,
    /// A refusal of hyper's, with the body it lacks, and how much of it is written.
    refusal: Option<(Vec<u8>, usize)>,
    linger: Option<(Instant, usize)>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Wire<S> {
    pub fn new(stream: S, state: Arc<WireState>) -> Wire<S> {
        Wire {
            stream,
            state,
            head_since: Some(Instant::now()),
            stalled_since: None,
            clock: None,
            refusal: None,
            linger: None,
        }
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
                self.refusal = None;
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
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        if !self.state.is(IDLE) {
            self.head_since = None;
            return read;
        }
        if buf.filled().len() > before {
            self.head_since.get_or_insert_with(Instant::now);
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
        let _ = self.state.0.compare_exchange(FLUSHING, IDLE, Ordering::Relaxed, Ordering::Relaxed);
        Poll::Ready(flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.linger.is_none() {
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

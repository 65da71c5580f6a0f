//! Connections to other servers: dialled within time limits, over TLS that is checked, kept
//! from one request to the next; and bodies that go out no faster than they may.

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::client::conn::http1::{Builder, SendRequest};
use hyper::header::{HOST, HeaderMap, HeaderValue, PROXY_AUTHORIZATION, USER_AGENT};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use rustls::crypto::ring;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use std::collections::HashMap;
use std::future::{Future, poll_fn};
use std::io;
use std::path::Path;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::{Instant, Sleep, sleep, timeout};
use tokio_rustls::TlsConnector;

use super::address::{Origin, Url};
use super::proxy::{Proxies, Proxy};
use super::retry::{Failed, Tried};
use crate::error::{Error, Kind, Result, Thing};

/// Connections kept for the next request, of one server.
const IDLE_MAX: usize = 8;
/// What one read takes at the most, and with it a piece of a body; a request's head likewise.
const READ_MAX: usize = 256 << 10;
/// Pieces that a body goes out in, so that a limited rate is even.
const PIECE_OUT: usize = 64 << 10;
/// How long a burst a limited rate allows for.
const BURST: Duration = Duration::from_millis(250);
/// How long a connection may take to see that its last answer has ended.
const SETTLE_MAX: Duration = Duration::from_secs(1);
/// Rest of an answer that is read for its connection's sake, in bytes.
const REST_MAX: usize = 64 << 10;

/// How long each part of a request may take.
#[derive(Debug, Clone, Copy)]
pub struct Times {
    /// To connect to one address, and to agree on TLS.
    pub connect: Duration,
    /// Until the next byte goes out or comes in.
    pub stall: Duration,
    /// From a request's last byte to its answer, where the registry may have gigabytes to move.
    pub commit: Duration,
}

impl Default for Times {
    fn default() -> Times {
        Times {
            connect: Duration::from_secs(15),
            stall: Duration::from_secs(60),
            commit: Duration::from_secs(600),
        }
    }
}

/// A byte rate that all bodies on the way out share.
#[derive(Debug)]
pub struct Rate {
    bytes_per_sec: u64,
    /// When what was given out so far will have gone.
    free_at: Mutex<Instant>,
}

impl Rate {
    pub fn new(bytes_per_sec: u64) -> Rate {
        Rate { bytes_per_sec: bytes_per_sec.max(1), free_at: Mutex::new(Instant::now()) }
    }

    /// Takes so many bytes' time, and returns when they may go.
    fn take(&self, bytes: usize) -> Instant {
        let mut free_at = self.free_at.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        // What was not used is lost, but for a short burst.
        let start = (*free_at).max(now.checked_sub(BURST).unwrap_or(now));
        let micros = (bytes as u64).saturating_mul(1_000_000) / self.bytes_per_sec;
        *free_at = start + Duration::from_micros(micros);
        start
    }
}

/// A request's body.
pub(super) struct Outgoing {
    source: Source,
    /// Bytes that are still to come.
    left: u64,
    rate: Option<Arc<Rate>>,
    /// A piece that waits for its time.
    held: Option<(Bytes, Pin<Box<Sleep>>)>,
    pulse: Arc<Pulse>,
}

enum Source {
    Bytes(Bytes),
    /// Pieces as they come, of a length known before.
    Flow(mpsc::Receiver<Bytes>),
}

/// Tells a server that takes nothing from one that is given nothing.
#[derive(Debug, Default)]
struct Pulse {
    /// Goes on with every piece that is taken.
    beats: AtomicU64,
    /// The next piece is ours to give.
    ours: AtomicBool,
    /// The last one was given.
    done: AtomicBool,
}

impl Pulse {
    fn now(&self) -> (u64, bool) {
        (self.beats.load(Ordering::Relaxed), self.done.load(Ordering::Relaxed))
    }
}

impl Outgoing {
    pub fn bytes(bytes: Bytes, rate: Option<Arc<Rate>>) -> Outgoing {
        Outgoing::new(bytes.len() as u64, Source::Bytes(bytes), rate)
    }

    pub fn flow(pieces: mpsc::Receiver<Bytes>, length: u64, rate: Option<Arc<Rate>>) -> Outgoing {
        Outgoing::new(length, Source::Flow(pieces), rate)
    }

    fn new(left: u64, source: Source, rate: Option<Arc<Rate>>) -> Outgoing {
        let pulse = Arc::new(Pulse { done: (left == 0).into(), ..Pulse::default() });
        Outgoing { source, left, rate, held: None, pulse }
    }

    fn next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        match &mut self.source {
            Source::Bytes(bytes) if bytes.is_empty() => Poll::Ready(None),
            Source::Bytes(bytes) => Poll::Ready(Some(bytes.split_to(bytes.len().min(PIECE_OUT)))),
            Source::Flow(pieces) => pieces.poll_recv(cx),
        }
    }
}

impl Body for Outgoing {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>>>> {
        let this = &mut *self;
        this.pulse.beats.fetch_add(1, Ordering::Relaxed);
        this.pulse.ours.store(true, Ordering::Relaxed);
        if this.held.is_none() {
            match ready!(this.next(cx)) {
                Some(piece) => {
                    let at = this.rate.as_ref().map_or_else(Instant::now, |rate| rate.take(piece.len()));
                    this.held = Some((piece, Box::pin(tokio::time::sleep_until(at))));
                }
                None if this.left > 0 => {
                    let why = "the source of an upload ended before its announced length";
                    return Poll::Ready(Some(Err(Kind::LengthMismatch.because(why))));
                }
                None => return Poll::Ready(None),
            }
        }
        if let Some((_, sleep)) = &mut this.held {
            ready!(sleep.as_mut().poll(cx));
        }
        this.pulse.ours.store(false, Ordering::Relaxed);
        Poll::Ready(this.held.take().map(|(piece, _)| {
            this.left = this.left.saturating_sub(piece.len() as u64);
            this.pulse.done.store(this.left == 0, Ordering::Relaxed);
            Ok(Frame::data(piece))
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0 && self.held.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

type Sender = SendRequest<Outgoing>;

/// All connections, and what they are made by.
pub(super) struct Net {
    tls: TlsConnector,
    proxies: Proxies,
    times: Times,
    idle: Mutex<HashMap<Origin, Vec<Sender>>>,
}

/// A stream of either kind.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

impl Net {
    /// `ca` is a file of authorities to trust instead of the system's.
    pub fn new(ca: Option<&Path>, proxies: Proxies, times: Times) -> Result<Net> {
        let mut roots = rustls::RootCertStore::empty();
        match ca {
            Some(file) => {
                let unusable = |why: String| {
                    Kind::Invalid(Thing::Request)
                        .because(format!("the authority {} cannot be used: {why}", file.display()))
                };
                for certificate in
                    CertificateDer::pem_file_iter(file).map_err(|error| unusable(error.to_string()))?
                {
                    let certificate = certificate.map_err(|error| unusable(error.to_string()))?;
                    roots.add(certificate).map_err(|error| unusable(error.to_string()))?;
                }
                if roots.is_empty() {
                    return Err(unusable("it holds no certificate".into()));
                }
            }
            // One that does not parse is one that nobody is trusted by.
            None => {
                roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            }
        }
        let mut config = rustls::ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
            .map_err(|error| Kind::Internal.from_cause(error))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Net { tls: TlsConnector::from(Arc::new(config)), proxies, times, idle: Mutex::default() })
    }

    /// One request and the head of its answer. A connection that was kept may have been closed by
    /// the other side meanwhile: what it did not take goes over a new one.
    pub async fn send(
        self: &Arc<Net>,
        method: &Method,
        url: &Url,
        headers: &HeaderMap,
        body: Outgoing,
    ) -> Tried<Answer> {
        let origin = &url.origin;
        let wait = match *method {
            Method::PUT | Method::PATCH | Method::POST => self.times.commit,
            _ => self.times.stall,
        };
        let pulse = body.pulse.clone();
        let mut request = Request::new(body);
        *request.method_mut() = method.clone();
        // What goes through a tunnel is said to the server itself.
        let proxy = self.proxies.to(origin).filter(|_| !origin.https);
        let target = match proxy {
            None => url.target.parse(),
            Some(_) => format!("http://{}{}", origin.authority(), url.target).parse(),
        };
        *request.uri_mut() = target.map_err(|_| unaskable())?;
        *request.headers_mut() = headers.clone();
        if let Some(login) = proxy.and_then(|proxy| proxy.login.clone()) {
            request.headers_mut().insert(PROXY_AUTHORIZATION, login);
        }
        introduce(&mut request, &origin.authority())?;
        loop {
            let (mut sender, kept) = match self.kept(origin).await {
                Some(sender) => (sender, true),
                None => (self.dial(origin).await?, false),
            };
            let sent = sender.try_send_request(request);
            match self.answered(origin, sent, &pulse, wait).await? {
                Ok(answer) => {
                    if let Some(proxy) = proxy {
                        check_proxy(proxy, answer.status())?;
                    }
                    let (head, body) = answer.into_parts();
                    return Ok(Answer {
                        status: head.status,
                        headers: head.headers,
                        body,
                        unread: None,
                        origin: origin.clone(),
                        net: self.clone(),
                        sender: Some(sender),
                    });
                }
                Err(mut error) => match error.take_message().filter(|_| kept) {
                    Some(untouched) => request = untouched,
                    None => return Err(broken(origin, &error.into_error())),
                },
            }
        }
    }

    /// Waits for an answer as long as bytes go out, and then for its time.
    async fn answered<T>(
        &self,
        origin: &Origin,
        sent: impl Future<Output = T>,
        pulse: &Pulse,
        wait: Duration,
    ) -> Tried<T> {
        let mut sent = std::pin::pin!(sent);
        loop {
            let before = pulse.now();
            let limit = if before.1 { wait } else { self.times.stall };
            match timeout(limit, &mut sent).await {
                Ok(answer) => return Ok(answer),
                Err(_) if pulse.now() == before && !pulse.ours.load(Ordering::Relaxed) => {
                    return Err(slow(origin));
                }
                Err(_) => {}
            }
        }
    }

    async fn kept(&self, origin: &Origin) -> Option<Sender> {
        loop {
            let mut sender = {
                let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
                idle.get_mut(origin)?.pop()?
            };
            // Its last answer has just ended, or it was closed.
            if let Ok(Ok(())) = timeout(SETTLE_MAX, sender.ready()).await {
                return Some(sender);
            }
        }
    }

    fn keep(&self, origin: &Origin, sender: Sender) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let senders = idle.entry(origin.clone()).or_default();
        if senders.len() < IDLE_MAX && !sender.is_closed() {
            senders.push(sender);
        }
    }

    /// A connection on which a server can be asked: to itself, or to a proxy that asks it.
    async fn dial(&self, origin: &Origin) -> Tried<Sender> {
        let stream = match self.proxies.to(origin) {
            None => self.connect(origin, |error| unreachable(origin, &error)).await?,
            Some(proxy) => {
                let stream = self
                    .connect(&proxy.origin, |error| {
                        unreachable(format_args!("{proxy}, which the environment names,"), &error)
                    })
                    .await?;
                match origin.https {
                    true => self.secure(origin, self.tunnel(proxy, origin, stream).await?).await?,
                    false => stream,
                }
            }
        };
        self.speak(origin, stream).await
    }

    /// A connection, and TLS if the server is asked by it.
    async fn connect(
        &self,
        origin: &Origin,
        unreachable: impl Fn(io::Error) -> Failed,
    ) -> Tried<Box<dyn Stream>> {
        let addresses = timeout(self.times.connect, tokio::net::lookup_host((origin.name(), origin.port)))
            .await
            .map_err(|_| unreachable(late()))?
            .map_err(&unreachable)?;
        let mut outcome = Err(io::Error::new(io::ErrorKind::NotFound, "its name has no address"));
        for address in addresses {
            outcome = timeout(self.times.connect, TcpStream::connect(address))
                .await
                .unwrap_or_else(|_| Err(late()));
            if outcome.is_ok() {
                break;
            }
        }
        let socket = outcome.map_err(unreachable)?;
        // Only speed is lost if it cannot be set.
        let _ = socket.set_nodelay(true);
        match origin.https {
            true => self.secure(origin, Box::new(socket)).await,
            false => Ok(Box::new(socket)),
        }
    }

    /// TLS with a server.
    async fn secure(&self, origin: &Origin, stream: Box<dyn Stream>) -> Tried<Box<dyn Stream>> {
        let name = ServerName::try_from(origin.name().to_owned()).map_err(|_| {
            let why = format!("{} is no name that TLS can check", origin.name());
            Failed::Surely(Kind::Invalid(Thing::Request).because(why))
        })?;
        let stream = timeout(self.times.connect, self.tls.connect(name, stream))
            .await
            .map_err(|_| unreachable(origin, &late()))?;
        Ok(Box::new(stream.map_err(|error| untrusted(origin, &error))?))
    }

    /// A way through a proxy to a server (RFC 9110 §9.3.6).
    async fn tunnel(
        &self,
        proxy: &Proxy,
        origin: &Origin,
        stream: Box<dyn Stream>,
    ) -> Tried<Box<dyn Stream>> {
        let mut sender = self.speak(&proxy.origin, stream).await?;
        let mut request = Request::new(Outgoing::bytes(Bytes::new(), None));
        *request.method_mut() = Method::CONNECT;
        *request.uri_mut() = origin.place().parse().map_err(|_| unaskable())?;
        introduce(&mut request, &origin.place())?;
        if let Some(login) = &proxy.login {
            request.headers_mut().insert(PROXY_AUTHORIZATION, login.clone());
        }
        let answer = timeout(self.times.connect, sender.send_request(request))
            .await
            .map_err(|_| slow(&proxy.origin))?
            .map_err(|error| broken(&proxy.origin, &error))?;
        check_proxy(proxy, answer.status())?;
        if !answer.status().is_success() {
            let status = answer.status();
            let error = Kind::Unavailable.because(format!("{proxy} does not connect to {origin}: {status}"));
            return Err(match status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS {
                true => Failed::Passing(error, None),
                false => Failed::Surely(error),
            });
        }
        let through = hyper::upgrade::on(answer).await.map_err(|error| broken(&proxy.origin, &error))?;
        Ok(Box::new(TokioIo::new(through)))
    }

    /// HTTP over a connection, which ends with its sender.
    async fn speak(&self, origin: &Origin, stream: Box<dyn Stream>) -> Tried<Sender> {
        let (sender, connection) = timeout(
            self.times.connect,
            Builder::new().max_buf_size(READ_MAX).handshake(TokioIo::new(stream)),
        )
        .await
        .map_err(|_| unreachable(origin, &late()))?
        .map_err(|error| broken(origin, &error))?;
        // What breaks it is told to whoever waits for an answer.
        tokio::spawn(async move {
            let _ = connection.with_upgrades().await;
        });
        Ok(sender)
    }
}

/// Whom a request is for, and who asks.
fn introduce(request: &mut Request<Outgoing>, host: &str) -> Tried<()> {
    let host = HeaderValue::from_str(host).map_err(|_| unaskable())?;
    request.headers_mut().insert(HOST, host);
    request
        .headers_mut()
        .insert(USER_AGENT, HeaderValue::from_static(concat!("outport/", env!("CARGO_PKG_VERSION"))));
    Ok(())
}

fn unaskable() -> Failed {
    Failed::Surely(Kind::Invalid(Thing::Request).because("an address cannot be asked for"))
}

fn late() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "it does not answer in time")
}

fn unreachable(whom: impl std::fmt::Display, error: &io::Error) -> Failed {
    Failed::Passing(Kind::Unavailable.because(format!("{whom} cannot be reached: {error}")), None)
}

/// A proxy that wants a login will want it the next time too.
fn check_proxy(proxy: &Proxy, status: StatusCode) -> Tried<()> {
    if status != StatusCode::PROXY_AUTHENTICATION_REQUIRED {
        return Ok(());
    }
    let why = match &proxy.login {
        None => "wants a login: put user:password@ before its name where the environment names it",
        Some(_) => "does not take the login that stands in the environment",
    };
    Err(Failed::Surely(Kind::Unauthorized.because(format!("{proxy} {why}"))))
}

/// An answer's head, and its body as it comes.
pub(super) struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    body: Incoming,
    /// A piece that was given back.
    unread: Option<Bytes>,
    origin: Origin,
    net: Arc<Net>,
    sender: Option<Sender>,
}

impl Answer {
    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    pub fn header(&self, name: impl hyper::header::AsHeaderName) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// The body's next bytes; None at its end, when the connection may serve again.
    pub async fn piece(&mut self) -> Tried<Option<Bytes>> {
        if let Some(piece) = self.unread.take() {
            return Ok(Some(piece));
        }
        loop {
            let frame = poll_fn(|cx| Pin::new(&mut self.body).poll_frame(cx));
            match timeout(self.net.times.stall, frame).await {
                Err(_) => return Err(slow(&self.origin)),
                Ok(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) if data.is_empty() => {}
                    Ok(data) => return Ok(Some(data)),
                    // Trailers tell us nothing.
                    Err(_) => {}
                },
                Ok(Some(Err(error))) => return Err(broken(&self.origin, &error)),
                Ok(None) => {
                    if let Some(sender) = self.sender.take() {
                        self.net.keep(&self.origin, sender);
                    }
                    return Ok(None);
                }
            }
        }
    }

    /// Gives back what [`Answer::piece`] gave too much.
    pub fn unread(&mut self, piece: Bytes) {
        self.unread = Some(piece).filter(|piece| !piece.is_empty());
    }

    /// The whole body, of a limited length.
    pub async fn bytes(&mut self, max: usize, what: &str) -> Tried<Vec<u8>> {
        let mut bytes = Vec::new();
        while let Some(piece) = self.piece().await? {
            if bytes.len() + piece.len() > max {
                let why = format!("{} sends {what} of more than {max} bytes", self.origin);
                return Err(Failed::Surely(Kind::TooLarge(Thing::Request).because(why)));
            }
            bytes.extend_from_slice(&piece);
        }
        Ok(bytes)
    }

    /// Reads what is left, if it is little, so that the connection serves again.
    pub async fn dismiss(mut self) {
        // If that fails the connection is gone, and nothing else.
        let _ = self.bytes(REST_MAX, "an answer").await;
    }
}

fn broken(origin: &Origin, error: &hyper::Error) -> Failed {
    let mut why = error.to_string();
    if let Some(cause) = std::error::Error::source(error) {
        why += &format!(": {cause}");
    }
    if error.is_parse() {
        let why = format!("{origin} does not speak HTTP as a registry does: {why}");
        return Failed::Surely(Kind::Unavailable.because(why));
    }
    Failed::Passing(Kind::Unavailable.because(format!("the connection to {origin} broke: {why}")), None)
}

fn slow(origin: &Origin) -> Failed {
    Failed::Passing(Kind::Slow.because(format!("{origin} took too long")), None)
}

/// What TLS refuses is refused the next time too.
fn untrusted(origin: &Origin, error: &io::Error) -> Failed {
    let Some(cause) = error.get_ref().and_then(|cause| cause.downcast_ref::<rustls::Error>()) else {
        let error = Kind::Unavailable.because(format!("the connection to {origin} broke: {error}"));
        return Failed::Passing(error, None);
    };
    let why = match cause {
        rustls::Error::InvalidCertificate(_) => format!(
            "the certificate of {origin} is not trusted: {cause}; if it is the right one, name its authority with --ca"
        ),
        rustls::Error::InvalidMessage(_) => format!(
            "{origin} does not speak TLS: {cause}; if it is meant to be asked by plain HTTP, say --insecure-http"
        ),
        _ => format!("no TLS with {origin}: {cause}"),
    };
    Failed::Surely(Kind::Unavailable.because(why))
}

/// Waits, and says nothing.
pub(super) fn silently() -> super::retry::Waiter {
    Arc::new(|wait, _| Box::pin(sleep(wait)))
}

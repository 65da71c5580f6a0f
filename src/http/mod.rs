//! The server: accepts, speaks TLS in each connection's own task, keeps its limits, and
//! drains when it is told to stop. Knows no SQL.

mod auth;
mod call;
mod gap;
mod hub;
mod index_v1;
mod jwt;
mod mlspace;
mod oci;
mod openapi;
mod ops;
mod reply;
mod route;
pub mod tls;
mod token;
mod wire;

use hyper::header::{CONNECTION, CONTENT_LENGTH, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use ring::hmac;
use rustls_pki_types::CertificateDer;
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::timeout;

use crate::error::{Error, Kind, Result, Thing};
use crate::registry::Registry;
use route::Asked;
use wire::{Wire, WireState};

pub use openapi::document as openapi_document;
pub use route::{DIALECTS, Dialect, Needs, Route};

/// What the configuration says to the server. All of it may change while it runs.
#[derive(Debug, Clone)]
pub struct Options {
    /// Nobody may pull what is public.
    pub anonymous_pull: bool,
    /// `tags/list` of a repository there is not: an empty list instead of 404.
    pub empty_tags_for_missing: bool,
    pub blob_bytes_max: u64,
    /// Proxies whose X-Forwarded-Proto and -Host are believed.
    pub trusted_proxies: Vec<IpAddr>,
    pub connections_max: usize,
    /// Blobs that are being pulled at once; each is an open file. Others wait.
    pub pulls_max: usize,
    pub connections_per_address: usize,
    /// The authority that clients must trust, as a file; None where it is somebody else's.
    pub ca: Option<PathBuf>,
}

/// A TLS handshake, or the first byte of anything, takes at most this long.
const HANDSHAKE_MAX: Duration = Duration::from_secs(10);
/// A kept-alive connection that asks nothing is closed after this long.
const IDLE_MAX: Duration = Duration::from_secs(60);
/// How long a server that was told to stop waits for the first request of connections that are
/// there: who came just before shall not find out that it is started anew.
const FIRST_ASKED_WITHIN: Duration = Duration::from_secs(1);
/// hyper's buffer for one connection: holds a head of the longest kind we read.
const CONNECTION_BYTES: usize = 64 << 10;
/// Bodies that must be whole in memory (manifests, forms), all together.
const BODY_BYTES_TOTAL: usize = 16 << 20;
/// What uploads may gather beyond 64 KiB each, all together: few have much of it, many little.
const GATHER_BYTES_TOTAL: usize = 1536 << 10;
/// Pulls that may use more than 64 KiB of memory at once. Others go on with that.
const GENEROUS_PULLS: usize = 8;

/// Archives that are taken in at once: each has a thread, and keeps collections waiting.
const IMPORTS: usize = 2;

/// What every request needs.
pub struct App {
    pub registry: Arc<Registry>,
    auth: auth::Auth,
    token_key: hmac::Key,
    options: RwLock<Arc<Options>>,
    body_memory: Arc<Semaphore>,
    gather_memory: Arc<Semaphore>,
    piece_memory: Arc<Semaphore>,
    pulls: Arc<Semaphore>,
    imports: Arc<Semaphore>,
    requests: AtomicU64,
    /// So that request ids of two processes differ.
    process: u32,
}

impl App {
    pub fn new(registry: Arc<Registry>, options: Options) -> Result<Arc<App>> {
        let mut process = [0; 4];
        crate::registry::random(&mut process)?;
        Ok(Arc::new(App {
            auth: auth::Auth::new(registry.clock())?,
            token_key: hmac::Key::new(hmac::HMAC_SHA256, &registry.secret("token")?),
            registry,
            pulls: Arc::new(Semaphore::new(options.pulls_max)),
            options: RwLock::new(Arc::new(options)),
            body_memory: Arc::new(Semaphore::new(BODY_BYTES_TOTAL)),
            gather_memory: Arc::new(Semaphore::new(GATHER_BYTES_TOTAL)),
            piece_memory: Arc::new(Semaphore::new(GENEROUS_PULLS)),
            imports: Arc::new(Semaphore::new(IMPORTS)),
            requests: AtomicU64::new(0),
            process: u32::from_le_bytes(process),
        }))
    }

    pub fn options(&self) -> Arc<Options> {
        self.options.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Takes new options; requests that began keep the old ones.
    pub fn set_options(&self, options: Options) {
        *self.options.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(options);
    }

    fn request_id(&self) -> String {
        let count = self.requests.fetch_add(1, Ordering::Relaxed);
        format!("{:08x}{count:08x}", self.process)
    }

    /// The bridge between here, where nothing may block, and the registry, where everything may.
    async fn run<T: Send + 'static>(
        &self,
        verb: impl FnOnce(&Registry) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let registry = self.registry.clone();
        tokio::task::spawn_blocking(move || verb(&registry))
            .await
            .unwrap_or_else(|stopped| Err(Kind::Internal.from_cause(stopped)))
    }

    /// Memory for a body that must be whole; waits while others have it.
    async fn body_memory(&self, bytes: usize) -> Result<OwnedSemaphorePermit> {
        let bytes = u32::try_from(bytes.min(BODY_BYTES_TOTAL)).unwrap_or(u32::MAX);
        let memory = self.body_memory.clone().acquire_many_owned(bytes);
        match timeout(IDLE_MAX, memory).await {
            Ok(Ok(share)) => Ok(share),
            _ => Err(Kind::TooMany { retry_secs: 5 }.into()),
        }
    }

    /// The right to have a blob open; waits while too many others have theirs.
    async fn pull_permit(&self) -> Result<OwnedSemaphorePermit> {
        match timeout(IDLE_MAX, self.pulls.clone().acquire_owned()).await {
            Ok(Ok(permit)) => Ok(permit),
            _ => Err(Kind::TooMany { retry_secs: 5 }.into()),
        }
    }

    /// The right to take an archive in.
    fn import_permit(&self) -> Result<OwnedSemaphorePermit> {
        self.imports.clone().try_acquire_owned().map_err(|_| {
            Kind::TooMany { retry_secs: 30 }.because("other archives are being taken in; try again in 30 s")
        })
    }

    /// More memory for an upload to gather in, if it is there: `share` is then what it has of it.
    fn gather_more(&self, share: &mut Option<OwnedSemaphorePermit>, bytes: usize) -> bool {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        match (self.gather_memory.clone().try_acquire_many_owned(bytes), share) {
            (Ok(more), Some(share)) => share.merge(more),
            (Ok(more), share) => *share = Some(more),
            (Err(_), _) => return false,
        }
        true
    }

    fn piece_memory(&self) -> Option<OwnedSemaphorePermit> {
        self.piece_memory.clone().try_acquire_owned().ok()
    }

    /// Whose request it is: behind a trusted proxy, the address that the proxy saw.
    fn client(&self, peer: Peer, head: &hyper::http::request::Parts) -> Peer {
        let forwarded = || {
            let header = head.headers.get_all("x-forwarded-for").iter().next_back()?.to_str().ok()?;
            header.rsplit(',').next()?.trim().parse().ok()
        };
        match self.options().trusted_proxies.contains(&peer.address) {
            // Its own certificate says nothing of those whom it speaks for.
            true => Peer { address: forwarded().unwrap_or(peer.address), certified: None, ..peer },
            false => peer,
        }
    }

    /// Scheme and host as the client sees them, so that it can be sent elsewhere here.
    fn origin(&self, asked: &Asked) -> (String, String) {
        let header = |name: &str| {
            let value = asked.head.headers.get(name)?.to_str().ok()?;
            Some(value.split(',').next().unwrap_or_default().trim().to_owned())
        };
        let trusted = asked.proxied;
        let forwarded = |name: &str| header(name).filter(|value| trusted && !value.is_empty());
        let scheme = match forwarded("x-forwarded-proto").as_deref() {
            Some("https") => "https",
            Some("http") => "http",
            _ if asked.peer.tls => "https",
            _ => "http",
        };
        let plain = |host: &String| host.bytes().all(|b| b.is_ascii_alphanumeric() || b".:-_[]".contains(&b));
        let host = forwarded("x-forwarded-host").filter(plain).or_else(|| header("host"));
        (scheme.to_owned(), host.unwrap_or_else(|| "localhost".to_owned()))
    }
}

/// Who is at the other end.
#[derive(Debug, Clone)]
pub struct Peer {
    pub address: IpAddr,
    pub tls: bool,
    /// The common name of a certificate that an authority of clients signed.
    pub certified: Option<Arc<str>>,
}

/// Seconds since 1970 as RFC 3339.
pub(crate) fn rfc3339(secs: i64) -> String {
    time::OffsetDateTime::from_unix_timestamp(secs)
        .ok()
        .and_then(|at| at.format(&time::format_description::well_known::Rfc3339).ok())
        .unwrap_or_default()
}

/// Microseconds since 1970 as RFC 3339, with all six digits: `2026-03-04T05:06:07.123456Z`.
fn rfc3339_us(us: i64) -> String {
    let Ok(at) = time::OffsetDateTime::from_unix_timestamp_nanos(i128::from(us) * 1_000) else {
        return String::new();
    };
    let (date, (hour, minute, second, micros)) = (at.date(), at.to_hms_micro());
    format!("{date}T{hour:02}:{minute:02}:{second:02}.{micros:06}Z")
}

/// Sockets, and what is served on them.
pub struct Server {
    listeners: Vec<TcpListener>,
    door: Door,
}

/// What every connection comes in by.
#[derive(Clone)]
struct Door {
    app: Arc<App>,
    tls: Option<Arc<tls::Tls>>,
    places: Arc<Semaphore>,
    by_address: Arc<Mutex<HashMap<IpAddr, usize>>>,
}

impl Server {
    /// Binds. Port 0 takes a free one, which [`Server::addresses`] tells.
    pub async fn bind(app: Arc<App>, addresses: &[SocketAddr], tls: Option<Arc<tls::Tls>>) -> Result<Server> {
        let mut listeners = Vec::new();
        for address in addresses {
            let listener = TcpListener::bind(address).await.map_err(|error| {
                Kind::Invalid(Thing::Request).because(format!("cannot listen on {address}: {error}"))
            })?;
            listeners.push(listener);
        }
        Ok(Server::new(app, listeners, tls))
    }

    /// Serves on sockets that somebody else bound and listens on. Needs a runtime.
    pub fn on(
        app: Arc<App>,
        sockets: Vec<std::net::TcpListener>,
        tls: Option<Arc<tls::Tls>>,
    ) -> Result<Server> {
        let mut listeners = Vec::with_capacity(sockets.len());
        for socket in sockets {
            socket.set_nonblocking(true)?;
            listeners.push(TcpListener::from_std(socket)?);
        }
        Ok(Server::new(app, listeners, tls))
    }

    fn new(app: Arc<App>, listeners: Vec<TcpListener>, tls: Option<Arc<tls::Tls>>) -> Server {
        let places = Arc::new(Semaphore::new(app.options().connections_max));
        Server { listeners, door: Door { app, tls, places, by_address: Arc::default() } }
    }

    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.listeners.iter().filter_map(|listener| listener.local_addr().ok()).collect()
    }

    /// Serves until `stop` turns true, then lets open requests finish, for `drain` at most.
    pub async fn serve(self, stop: watch::Receiver<bool>, drain: Duration) {
        let (open, mut all_closed) = tokio::sync::mpsc::channel::<()>(1);
        let mut accepting = tokio::task::JoinSet::new();
        for listener in self.listeners {
            accepting.spawn(self.door.clone().accept(listener, stop.clone(), open.clone()));
        }
        drop(open);
        while accepting.join_next().await.is_some() {}
        // Every connection holds a sender; the channel closes with the last of them.
        if timeout(drain, all_closed.recv()).await.is_err() {
            tracing::warn!("some requests did not finish in time and were cut off");
        }
    }
}

impl Door {
    /// Accepts until it is told to stop; then the listener is closed, and who comes is refused
    /// by the kernel.
    async fn accept(
        self,
        listener: TcpListener,
        mut stop: watch::Receiver<bool>,
        open: tokio::sync::mpsc::Sender<()>,
    ) {
        loop {
            // No place, no accept: the kernel's queue and then the clients wait.
            let place = tokio::select! {
                place = self.places.clone().acquire_owned() => place,
                () = stopped(&mut stop) => return,
            };
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = stopped(&mut stop) => return,
            };
            let (stream, address) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Out of file descriptors, most likely: those that close make room.
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            let Some(seat) =
                Seat::take(&self.by_address, address.ip(), self.app.options().connections_per_address)
            else {
                tracing::debug!(%address, "too many connections from one address");
                continue;
            };
            let (door, stop, open) = (self.clone(), stop.clone(), open.clone());
            tokio::spawn(async move {
                door.connection(stream, address.ip(), stop).await;
                drop((place, seat, open));
            });
        }
    }

    /// One connection from its first byte to its last.
    async fn connection(&self, stream: TcpStream, address: IpAddr, mut stop: watch::Receiver<bool>) {
        // Answers are short; none shall wait for the acknowledgement of another.
        if stream.set_nodelay(true).is_err() {
            return;
        }
        let Some(tls) = &self.tls else {
            // In boxes, so that a connection takes no room for what it is not at.
            let peer = Peer { address, tls: false, certified: None };
            return Box::pin(self.requests(stream, peer, stop)).await;
        };
        let handshake = Box::pin(async {
            let mut first = [0];
            match stream.peek(&mut first).await {
                // A handshake record begins with 22; a request with a letter.
                Ok(1) if first[0].is_ascii_uppercase() => Err(stream),
                _ => Ok(tls.acceptor().accept(stream).await),
            }
        });
        let handshake = tokio::select! {
            handshake = timeout(HANDSHAKE_MAX, handshake) => handshake,
            () = stopped_for(&mut stop, FIRST_ASKED_WITHIN) => return,
        };
        match handshake {
            Ok(Ok(Ok(stream))) => {
                let certificate = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
                // One without a name is of nobody, and no user is called that.
                let name = |der: &CertificateDer| tls::common_name(der).unwrap_or_default().into();
                let certified = certificate.map(name);
                Box::pin(self.requests(stream, Peer { address, tls: true, certified }, stop)).await;
            }
            Ok(Ok(Err(error))) => tracing::debug!(%address, %error, "the TLS handshake failed"),
            Ok(Err(plain)) => {
                const SENTENCE: &str = "this is an HTTPS server; ask by https://\n";
                let answer = format!(
                    "HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{SENTENCE}",
                    SENTENCE.len()
                );
                let state = Arc::new(WireState::default());
                let answering = state.answer();
                answering.leave_rest_unread();
                let mut wire = Wire::new(plain, state);
                let told = async {
                    wire.write_all(answer.as_bytes()).await?;
                    wire.shutdown().await
                };
                // Whoever does not wait for the answer does not want it.
                let _ = timeout(HANDSHAKE_MAX, told).await;
            }
            Err(_) => tracing::debug!(%address, "the TLS handshake took too long"),
        }
    }

    async fn requests<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        stream: S,
        peer: Peer,
        mut stop: watch::Receiver<bool>,
    ) {
        let state = Arc::new(WireState::default());
        let mut wire = Wire::new(stream, state.clone());
        let asked = AtomicBool::new(false);
        loop {
            let service = service_fn(|request: hyper::Request<hyper::body::Incoming>| {
                asked.store(true, Ordering::Relaxed);
                let answering = state.answer();
                let (mut head, body) = request.into_parts();
                if state.was_framed_twice() {
                    // Put back what hyper dropped, so that the head is refused for what it was.
                    head.headers.insert(CONTENT_LENGTH, HeaderValue::from(0));
                }
                let answer = route::answer(self.app.clone(), peer.clone(), head, body);
                async move {
                    let reply = answer.await;
                    if reply.headers().contains_key(CONNECTION) {
                        answering.leave_rest_unread();
                    }
                    Ok::<_, Error>(reply.map(|body| answering.until_end_of(body)))
                }
            });
            let mut connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(IDLE_MAX)
                // People look for Docker-Content-Digest on their screens, and scripts with grep.
                .title_case_headers(true)
                .max_buf_size(CONNECTION_BYTES)
                .max_headers(route::HEADER_FIELDS_MAX + 1)
                .serve_connection(TokioIo::new(wire), service);
            let wait = if asked.load(Ordering::Relaxed) { Duration::ZERO } else { FIRST_ASKED_WITHIN };
            let outcome = tokio::select! {
                outcome = &mut connection => outcome,
                () = stopped_for(&mut stop, wait) => {
                    Pin::new(&mut connection).graceful_shutdown();
                    (&mut connection).await
                }
            };
            if let Err(error) = outcome {
                tracing::debug!(address = %peer.address, %error, "the connection ended early");
                return;
            }
            wire = connection.into_parts().io.into_inner();
            if !wire.rests() {
                return;
            }
            // Without hyper, and its 16 KiB of buffers, until there is something to read.
            let woken = tokio::select! {
                woken = timeout(IDLE_MAX, wire.wake()) => matches!(woken, Ok(Ok(true))),
                () = stopped(&mut stop) => false,
            };
            if !woken {
                // Whoever does not wait for the farewell does not need it.
                let _ = timeout(HANDSHAKE_MAX, wire.close()).await;
                return;
            }
        }
    }
}

/// Returns once `stop` is true, or nobody is left to say so.
async fn stopped(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}

/// Returns so long after that.
async fn stopped_for(stop: &mut watch::Receiver<bool>, wait: Duration) {
    stopped(stop).await;
    tokio::time::sleep(wait).await;
}

/// One of the connections that an address may have.
struct Seat {
    by_address: Arc<Mutex<HashMap<IpAddr, usize>>>,
    address: IpAddr,
}

impl Seat {
    fn take(by_address: &Arc<Mutex<HashMap<IpAddr, usize>>>, address: IpAddr, max: usize) -> Option<Seat> {
        let mut table = by_address.lock().unwrap_or_else(PoisonError::into_inner);
        let count = table.entry(address).or_insert(0);
        // A proxy on this machine speaks for everybody.
        if *count >= max && !address.to_canonical().is_loopback() {
            return None;
        }
        *count += 1;
        Some(Seat { by_address: by_address.clone(), address })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut table = self.by_address.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = table.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                table.remove(&self.address);
            }
        }
    }
}

/// Every row of every table, one a line: who may do what, on one screen.
pub fn route_table() -> String {
    let mut lines = Vec::new();
    for dialect in DIALECTS {
        for route in dialect.routes {
            lines.push(format!(
                "{:<6} {:<6} {:<44} {:<8} {}",
                dialect.name,
                route.method,
                route.path,
                format!("{:?}", route.needs),
                route.handler
            ));
        }
    }
    lines.join("\n") + "\n"
}

/// Every kind of error in every dialect: status and code.
pub fn error_matrix() -> String {
    let mut head = format!("{:<26}", "kind");
    for dialect in DIALECTS {
        head += &format!(" {:<28}", dialect.name);
    }
    let mut lines = vec![head.trim_end().to_owned()];
    for kind in Kind::all() {
        let mut line = format!("{:<26}", format!("{kind:?}"));
        for dialect in DIALECTS {
            let (status, code) = (dialect.code)(kind);
            line += &format!(" {:<28}", format!("{status} {code}"));
        }
        lines.push(line.trim_end().to_owned());
    }
    lines.join("\n") + "\n"
}

//! A client that costs less than what it measures: blocking sockets, one connection, kept, and no
//! more of HTTP than the answers have.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::Result;
use crate::payload::{Blob, MANIFEST};

/// An answer that takes longer than this is a failure of the benchmark.
const PATIENCE: Duration = Duration::from_secs(600);
/// What is read at once, and the most that a head may have.
const BUFFER_BYTES: usize = 256 << 10;
/// So much of a body goes in one write with its head.
const FIRST_BYTES: usize = 64 << 10;

/// Where a server is reached, and what every request to it says beside its first line.
#[derive(Clone)]
pub struct Door {
    address: SocketAddr,
    tls: Option<Arc<ClientConfig>>,
    headers: String,
}

impl Door {
    /// By plain HTTP, as nobody in particular.
    pub fn new(address: SocketAddr) -> Door {
        // Some registries know no `*/*` where manifests are asked for.
        let headers = format!("Host: {address}\r\nAccept: {MANIFEST}, */*\r\n");
        Door { address, tls: None, headers }
    }

    pub fn over_tls(mut self, tls: Arc<ClientConfig>) -> Door {
        self.tls = Some(tls);
        self
    }

    /// Brings these credentials with every request.
    pub fn by(self, name: &str, password: &str) -> Door {
        let credentials = STANDARD.encode(format!("{name}:{password}"));
        self.saying("Authorization", &format!("Basic {credentials}"))
    }

    pub fn saying(mut self, name: &str, value: &str) -> Door {
        self.headers.push_str(&format!("{name}: {value}\r\n"));
        self
    }

    /// A request without a body, as it goes over the wire.
    pub fn request(&self, method: &str, target: &str) -> Vec<u8> {
        format!("{method} {target} HTTP/1.1\r\n{}\r\n", self.headers).into_bytes()
    }

    fn head(&self, method: &str, target: &str, kind: &str, bytes: usize) -> Vec<u8> {
        let kind = if bytes == 0 { String::new() } else { format!("Content-Type: {kind}\r\n") };
        format!("{method} {target} HTTP/1.1\r\n{}{kind}Content-Length: {bytes}\r\n\r\n", self.headers)
            .into_bytes()
    }

    pub fn connect(&self) -> Result<Client> {
        let tcp = TcpStream::connect(self.address)?;
        tcp.set_nodelay(true)?;
        tcp.set_read_timeout(Some(PATIENCE))?;
        let stream = match &self.tls {
            None => Stream::Plain(tcp),
            Some(config) => {
                let tls = ClientConnection::new(config.clone(), ServerName::from(self.address.ip()))?;
                Stream::Tls(Box::new(StreamOwned::new(tls, tcp)))
            }
        };
        Ok(Client { door: self.clone(), stream, buffer: vec![0; BUFFER_BYTES], read: 0, filled: 0 })
    }
}

/// TLS 1.3, for servers whose certificates the authority in this file signed.
pub fn trust(ca: &Path) -> Result<Arc<ClientConfig>> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(ca)? {
        roots.add(certificate?)?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

enum Stream {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl Stream {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        match self {
            Stream::Plain(stream) => stream.read(buffer),
            Stream::Tls(stream) => stream.read(buffer),
        }
    }

    fn write(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        match self {
            Stream::Plain(stream) => stream.write_all(bytes),
            Stream::Tls(stream) => stream.write_all(bytes).and_then(|()| stream.flush()),
        }
    }
}

pub struct Client {
    door: Door,
    stream: Stream,
    buffer: Vec<u8>,
    /// Of the buffer, what lies between these was received and not yet looked at.
    read: usize,
    filled: usize,
}

pub struct Answer {
    pub status: u16,
    head: String,
    /// Of the body.
    pub bytes: usize,
    /// Empty if the body was not to be kept.
    pub body: Vec<u8>,
}

impl Answer {
    /// The value of a header, by its name in any case.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut fields = self.head.lines().skip(1).filter_map(|line| line.split_once(':'));
        fields.find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
    }

    /// An error unless the status is this one. `what` is a text.
    pub fn must_be(self, status: u16, what: impl AsRef<[u8]>) -> Result<Answer> {
        if self.status == status {
            return Ok(self);
        }
        let (what, said) =
            (String::from_utf8_lossy(what.as_ref()), self.head.lines().next().unwrap_or_default());
        Err(format!("{what}: {said} instead of {status}").into())
    }

    /// Path and query of where an upload goes on.
    pub fn location(&self) -> Result<String> {
        let location = self.header("location").ok_or("no Location was told")?;
        Ok(match location.split_once("://") {
            Some((_, rest)) => format!("/{}", rest.split_once('/').map_or("", |(_, path)| path)),
            None => location.to_owned(),
        })
    }
}

impl Client {
    /// Asks for something, and keeps the body.
    pub fn get(&mut self, target: &str) -> Result<Answer> {
        let request = self.door.request("GET", target);
        self.stream.write(&request)?;
        self.answer(true, true)
    }

    /// Sends a manifest, or nothing.
    pub fn send(&mut self, method: &str, target: &str, body: &[u8]) -> Result<Answer> {
        let mut request = self.door.head(method, target, MANIFEST, body.len());
        request.extend_from_slice(body);
        self.stream.write(&request)?;
        self.answer(true, true)
    }

    /// Sends a blob.
    pub fn pour(&mut self, method: &str, target: &str, blob: &Blob) -> Result<Answer> {
        let mut first = self.door.head(method, target, "application/octet-stream", blob.bytes());
        let mut room = FIRST_BYTES;
        for piece in blob.pieces() {
            let (now, later) = piece.split_at(room.min(piece.len()));
            first.extend_from_slice(now);
            room -= now.len();
            if !later.is_empty() {
                self.stream.write(&std::mem::take(&mut first))?;
                self.stream.write(later)?;
            }
        }
        self.stream.write(&first)?;
        self.answer(true, true)
    }

    /// Asks as [`Door::request`] made it, and counts the body without keeping it.
    pub fn ask(&mut self, request: &[u8]) -> Result<Answer> {
        self.stream.write(request)?;
        self.answer(!request.starts_with(b"HEAD "), false)
    }

    /// The connection alone, without buffers.
    pub fn let_go(self) -> TcpStream {
        match self.stream {
            Stream::Plain(stream) => stream,
            Stream::Tls(stream) => stream.sock,
        }
    }

    fn answer(&mut self, has_body: bool, keep: bool) -> Result<Answer> {
        let head = self.take_head()?;
        let status = head.split(' ').nth(1).unwrap_or_default().parse()?;
        let mut answer = Answer { status, head, bytes: 0, body: Vec::new() };
        if !has_body {
            return Ok(answer);
        }
        if let Some(bytes) = answer.header("content-length") {
            answer.bytes = bytes.parse()?;
            self.take(answer.bytes, keep, &mut answer.body)?;
        } else if answer.header("transfer-encoding").is_some_and(|coding| coding == "chunked") {
            loop {
                let line = self.take_line()?;
                let bytes = usize::from_str_radix(line.split(';').next().unwrap_or_default().trim(), 16)?;
                if bytes == 0 {
                    break;
                }
                self.take(bytes, keep, &mut answer.body)?;
                answer.bytes += bytes;
                self.take_line()?;
            }
            while !self.take_line()?.is_empty() {}
        }
        Ok(answer)
    }

    /// Up to the empty line, without it.
    fn take_head(&mut self) -> Result<String> {
        loop {
            let text = &self.buffer[self.read..self.filled];
            if let Some(end) = text.windows(4).position(|four| four == b"\r\n\r\n") {
                let head = String::from_utf8_lossy(&text[..end]).into_owned();
                self.read += end + 4;
                return Ok(head);
            }
            self.fill()?;
        }
    }

    fn take_line(&mut self) -> Result<String> {
        loop {
            let text = &self.buffer[self.read..self.filled];
            if let Some(end) = text.windows(2).position(|two| two == b"\r\n") {
                let line = String::from_utf8_lossy(&text[..end]).into_owned();
                self.read += end + 2;
                return Ok(line);
            }
            self.fill()?;
        }
    }

    fn take(&mut self, mut bytes: usize, keep: bool, body: &mut Vec<u8>) -> Result<()> {
        while bytes > 0 {
            if self.read == self.filled {
                self.fill()?;
            }
            let now = bytes.min(self.filled - self.read);
            if keep {
                body.extend_from_slice(&self.buffer[self.read..self.read + now]);
            }
            (self.read, bytes) = (self.read + now, bytes - now);
        }
        Ok(())
    }

    fn fill(&mut self) -> Result<()> {
        self.buffer.copy_within(self.read..self.filled, 0);
        (self.filled, self.read) = (self.filled - self.read, 0);
        if self.filled == self.buffer.len() {
            return Err("an answer's head, or a line of it, is too long".into());
        }
        match self.stream.read(&mut self.buffer[self.filled..])? {
            0 => Err("the server closed the connection".into()),
            read => {
                self.filled += read;
                Ok(())
            }
        }
    }
}

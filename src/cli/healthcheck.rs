//! `outport healthcheck`: one question to the server of this machine, for what starts it again
//! when it is ill: a container's HEALTHCHECK, a supervisor, cron.

use clap::Args;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme, StreamOwned};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use serde::{Deserialize, Serialize};
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use super::Common;
use super::check::reached_at;
use crate::error::{Error, Kind, Result};

/// How long all of it may take. Nothing is written, so that a slow card is no excuse.
const PATIENCE: Duration = Duration::from_secs(5);
/// Longest answer that is read, in bytes; a good one has 300.
const ANSWER_BYTES_MAX: u64 = 16 << 10;

/// Ask the server of this machine whether it reads and writes
///
/// Exit code 0 if it does, 1 if not. No login is needed, nothing is written, and the certificate
/// may be whoever's: `outport check` says what that one is worth.
#[derive(Debug, Clone, Args)]
pub struct Healthcheck {
    /// Where the server listens [default: the first of server.listen]
    #[arg(long, value_name = "ADDR:PORT")]
    listen: Option<SocketAddr>,
    /// Ask by plain HTTP, as `serve --insecure-http` does [default: server.insecure_http]
    #[arg(long)]
    insecure_http: bool,
}

/// What `/readyz` says.
#[derive(Debug, Serialize, Deserialize)]
struct Health {
    status: String,
    reads: String,
    writes: String,
}

impl Healthcheck {
    pub fn run(self, common: &Common) -> Result<()> {
        let config = common.load()?;
        let listen = match self.listen {
            Some(address) => address,
            // Never empty, or it is an error.
            None => config.listen()?[0],
        };
        let address = reached_at(listen);
        let https = !(self.insecure_http || config.server.insecure_http);
        let server = format!("{}://{address}", if https { "https" } else { "http" });
        let (sender, answered) = mpsc::channel();
        // Left behind where it hangs: the process ends.
        thread::spawn(move || sender.send(ask(address, https)));
        let answer = match answered.recv_timeout(PATIENCE) {
            Ok(answer) => answer.map_err(|error| silent(&server, &error))?,
            Err(_) => return Err(silent(&server, &io::ErrorKind::TimedOut.into())),
        };
        let health = understand(&answer).ok_or_else(|| {
            Kind::Unavailable.because(format!(
                "{server} does not answer as Outport does; see which program listens there by `ss -ltnp`, or name \
                 the right address with --listen"
            ))
        })?;
        if health.status != "ok" {
            return Err(Kind::Unavailable.because(format!(
                "{server} is not well: reading: {}; writing: {}; `outport check` says what to do",
                health.reads, health.writes
            )));
        }
        common.say(&health, || format!("{server} reads and writes."));
        Ok(())
    }
}

fn silent(server: &str, error: &io::Error) -> Error {
    Kind::Unavailable.because(format!(
        "{server} does not answer ({error}); start the server, or see in its log where it listens and name that \
         with --listen, and --insecure-http if it has no TLS"
    ))
}

/// The whole answer to GET /readyz, as far as it is read.
fn ask(address: SocketAddr, https: bool) -> io::Result<Vec<u8>> {
    let stream = TcpStream::connect(address)?;
    match https {
        false => talk(stream, address),
        true => {
            let connection =
                ClientConnection::new(tls()?, ServerName::from(address.ip())).map_err(io::Error::other)?;
            talk(StreamOwned::new(connection, stream), address)
        }
    }
}

fn talk(mut line: impl Read + Write, address: SocketAddr) -> io::Result<Vec<u8>> {
    let request = format!("GET /readyz HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    line.write_all(request.as_bytes())?;
    line.flush()?;
    let mut answer = Vec::new();
    line.take(ANSWER_BYTES_MAX).read_to_end(&mut answer)?;
    Ok(answer)
}

/// None if that is nothing our server says. Its status is said in the body too.
fn understand(answer: &[u8]) -> Option<Health> {
    const END_OF_HEAD: &[u8] = b"\r\n\r\n";
    let end = answer.windows(END_OF_HEAD.len()).position(|window| window == END_OF_HEAD)?;
    serde_json::from_slice(&answer[end + END_OF_HEAD.len()..]).ok()
}

fn tls() -> io::Result<Arc<ClientConfig>> {
    let provider = Arc::new(ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Whoever(provider)))
        .with_no_client_auth();
    Ok(Arc::new(config))
}

/// Takes every certificate, whose key the server must have all the same. Names and authorities say
/// nothing here: clients call the server otherwise than by its address, a certificate from
/// elsewhere may be of an authority that this machine does not know, and nothing secret is told.
#[derive(Debug)]
struct Whoever(Arc<CryptoProvider>);

impl ServerCertVerifier for Whoever {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> std::result::Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

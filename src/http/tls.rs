//! Certificates: our own authority and a leaf made at first start, or files from
//! elsewhere; and the server's side of TLS.

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use rustls::crypto::{CryptoProvider, ring};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use time::{Duration, OffsetDateTime};
use tokio_rustls::TlsAcceptor;

use crate::error::{Error, Kind, Result, Thing};

/// Where the certificate comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// Made here, in this directory, for these names besides the usual ones.
    Own {
        dir: PathBuf,
        names: Vec<String>,
    },
    Files {
        cert: PathBuf,
        key: PathBuf,
    },
}

/// Valid from long ago: a board without a clock battery starts in the past.
const VALID_FROM_YEAR: i32 = 2000;
const CA_YEARS: i64 = 30;
/// Some clients take no leaf that lives longer.
const LEAF_DAYS: i64 = 820;
/// A leaf is made anew when less than this is left of it.
const RENEW_DAYS: i64 = 270;
/// The wall clock is never before this: when this code was written.
const NOT_BEFORE_THIS: i64 = 1_795_000_000;

pub struct Tls {
    acceptor: TlsAcceptor,
    shown: Arc<Shown>,
}

/// The certificate that new connections are shown.
#[derive(Debug)]
struct Shown(RwLock<Arc<CertifiedKey>>);

impl ResolvesServerCert for Shown {
    fn resolve(&self, _: ClientHello) -> Option<Arc<CertifiedKey>> {
        Some(self.0.read().unwrap_or_else(PoisonError::into_inner).clone())
    }
}

impl Tls {
    /// Loads or makes the certificate. `now_secs` is the wall clock's, since 1970.
    pub fn open(source: &Source, now_secs: i64) -> Result<Tls> {
        let provider = Arc::new(provider());
        let shown = Arc::new(Shown(RwLock::new(load(source, now_secs, &provider)?)));
        let internal = |error: rustls::Error| Kind::Internal.from_cause(error);
        let mut config = rustls::ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
            .map_err(internal)?
            .with_no_client_auth()
            .with_cert_resolver(shown.clone());
        // Our order: it knows what this CPU does well.
        config.ignore_client_order = true;
        // One protocol, without the attacks of the other.
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        config.ticketer = ring::Ticketer::new().map_err(internal)?;
        Ok(Tls { acceptor: TlsAcceptor::from(Arc::new(config)), shown })
    }

    pub fn acceptor(&self) -> &TlsAcceptor {
        &self.acceptor
    }

    /// Reads the files again, or renews what is about to run out or lacks a name.
    /// Connections go on with what they were shown; if this fails so do new ones.
    pub fn reload(&self, source: &Source, now_secs: i64) -> Result<()> {
        let key = load(source, now_secs, &provider())?;
        *self.shown.0.write().unwrap_or_else(PoisonError::into_inner) = key;
        Ok(())
    }
}

impl Source {
    /// The authority that clients must trust, as a file; None with files from elsewhere.
    pub fn ca_path(&self) -> Option<PathBuf> {
        match self {
            Source::Own { dir, .. } => Some(dir.join("ca.crt")),
            Source::Files { .. } => None,
        }
    }
}

/// ring's suites, AEAD with ephemeral keys only; ChaCha20 first on CPUs without AES.
fn provider() -> CryptoProvider {
    let mut provider = ring::default_provider();
    if !has_aes() {
        provider.cipher_suites.sort_by_key(|suite| !format!("{:?}", suite.suite()).contains("CHACHA20"));
    }
    provider
}

#[cfg(target_arch = "x86_64")]
fn has_aes() -> bool {
    std::arch::is_x86_feature_detected!("aes")
}

#[cfg(target_arch = "aarch64")]
fn has_aes() -> bool {
    std::arch::is_aarch64_feature_detected!("aes")
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn has_aes() -> bool {
    false
}

fn load(source: &Source, now_secs: i64, provider: &CryptoProvider) -> Result<Arc<CertifiedKey>> {
    let (cert, key) = match source {
        Source::Files { cert, key } => (cert.clone(), key.clone()),
        Source::Own { dir, names } => {
            let now = OffsetDateTime::from_unix_timestamp(now_secs.max(NOT_BEFORE_THIS))
                .map_err(|error| Kind::Internal.from_cause(error))?;
            make(dir, names, now)?;
            (dir.join("server.crt"), dir.join("server.key"))
        }
    };
    let unusable = |what: &str, path: &Path, why: String| {
        Kind::Invalid(Thing::Request)
            .because(format!("the TLS {what} {} cannot be used: {why}", path.display()))
    };
    let chain = CertificateDer::pem_file_iter(&cert)
        .and_then(Iterator::collect::<std::result::Result<Vec<_>, _>>)
        .map_err(|error| unusable("certificate", &cert, error.to_string()))?;
    if chain.is_empty() {
        return Err(unusable("certificate", &cert, "it holds no certificate".into()));
    }
    let private =
        PrivateKeyDer::from_pem_file(&key).map_err(|error| unusable("key", &key, error.to_string()))?;
    let certified = CertifiedKey::from_der(chain, private, provider)
        .map_err(|error| unusable("certificate", &cert, error.to_string()))?;
    Ok(Arc::new(certified))
}

/// Makes what is missing in `dir`: the authority, and a leaf that is still good for a
/// while and for all these names.
fn make(dir: &Path, names: &[String], now: OffsetDateTime) -> Result<()> {
    if !dir.is_dir() {
        use std::os::unix::fs::DirBuilderExt;
        std::fs::DirBuilder::new().mode(0o700).recursive(true).create(dir)?;
    }
    let (ca_crt, ca_key) = (dir.join("ca.crt"), dir.join("ca.key"));
    if !ca_crt.exists() || !ca_key.exists() {
        let key = KeyPair::generate().map_err(internal)?;
        let certificate = ca_params(now)?.self_signed(&key).map_err(internal)?;
        write(&ca_key, &key.serialize_pem(), 0o600)?;
        write(&ca_crt, &certificate.pem(), 0o644)?;
    }
    let names = all_names(names);
    let (crt, key, made_for) = (dir.join("server.crt"), dir.join("server.key"), dir.join("server.names"));
    let wanted = names.join("\n") + "\n";
    let fits = std::fs::read_to_string(&made_for).is_ok_and(|text| text == wanted);
    if fits && key.exists() && is_good(&crt, now) {
        return Ok(());
    }
    let ca_key = KeyPair::from_pem(&std::fs::read_to_string(&ca_key)?).map_err(internal)?;
    let ca_pem = std::fs::read_to_string(&ca_crt)?;
    let issuer = Issuer::from_ca_cert_pem(&ca_pem, ca_key).map_err(internal)?;
    let leaf_key = KeyPair::generate().map_err(internal)?;
    let leaf = leaf_params(&names, now)?.signed_by(&leaf_key, &issuer).map_err(internal)?;
    // The key before the certificate, the names last: a stop in between makes them anew.
    let _ = std::fs::remove_file(&made_for);
    write(&key, &leaf_key.serialize_pem(), 0o600)?;
    write(&crt, &(leaf.pem() + &ca_pem), 0o644)?;
    write(&made_for, &wanted, 0o644)
}

fn ca_params(now: OffsetDateTime) -> Result<CertificateParams> {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let mut id = [0; 4];
    crate::registry::random(&mut id)?;
    let name = format!("Outport CA {} {}", host_name(), crate::names::hex(&id));
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = rcgen::date_time_ymd(VALID_FROM_YEAR, 1, 1);
    params.not_after = now + Duration::days(365 * CA_YEARS);
    Ok(params)
}

fn leaf_params(names: &[String], now: OffsetDateTime) -> Result<CertificateParams> {
    let mut params = CertificateParams::new(names.to_vec()).map_err(|error| {
        Kind::Invalid(Thing::Request).because(format!("a name in tls.names cannot be used: {error}"))
    })?;
    params.distinguished_name.push(DnType::CommonName, host_name());
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    params.not_before = rcgen::date_time_ymd(VALID_FROM_YEAR, 1, 1);
    params.not_after = now + Duration::days(LEAF_DAYS);
    Ok(params)
}

/// Whether a leaf is good for a while yet, and not for longer than we would make one:
/// its maker's clock may have been far ahead.
fn is_good(crt: &Path, now: OffsetDateTime) -> bool {
    let Ok(der) = CertificateDer::from_pem_file(crt) else { return false };
    let Ok((_, certificate)) = x509_parser::parse_x509_certificate(&der) else { return false };
    let left = certificate.validity().not_after.to_datetime() - now;
    left > Duration::days(RENEW_DAYS) && left <= Duration::days(LEAF_DAYS + 1)
}

/// The names a leaf is for: this machine's, and those the configuration adds.
fn all_names(extra: &[String]) -> Vec<String> {
    let host = host_name();
    let mut names = vec!["localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()];
    if !host.contains('.') && host != "localhost" {
        names.push(format!("{host}.local"));
    }
    names.push(host);
    names.extend(extra.iter().cloned());
    let mut seen = std::collections::HashSet::new();
    names.retain(|name| seen.insert(name.clone()));
    names
}

/// This machine's name, if a certificate can hold it.
fn host_name() -> String {
    let name = rustix::system::uname().nodename().to_string_lossy().to_ascii_lowercase();
    let fits = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b".-".contains(&b));
    if fits { name } else { "localhost".to_owned() }
}

/// Writes a file whole or not at all, durable.
fn write(path: &Path, text: &str, mode: u32) -> Result<()> {
    let new = path.with_extension("new");
    let _ = std::fs::remove_file(&new);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&new)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    std::fs::rename(&new, path)?;
    if let Some(dir) = path.parent() {
        std::fs::File::open(dir)?.sync_all()?;
    }
    Ok(())
}

fn internal(error: rcgen::Error) -> Error {
    Kind::Internal.from_cause(error)
}

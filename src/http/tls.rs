//! The server's side of TLS: a certificate of our own making or files from elsewhere, swapped
//! while connections go on.

mod certificate;
mod own;

use rustls::crypto::{CryptoProvider, ring};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject;
use std::fmt::Display;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use tokio_rustls::TlsAcceptor;

use crate::error::{Error, Kind, Result, Thing};
use crate::machine::cpu;

pub use certificate::{Certificate, common_name};
pub use own::WRITTEN_SECS;

/// Where the certificate comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// Made here, in this directory, for these names besides this machine's own.
    Own {
        dir: PathBuf,
        names: Vec<String>,
    },
    Files {
        cert: PathBuf,
        key: PathBuf,
    },
}

impl Source {
    /// The authority that clients must trust, as a file; None with files from elsewhere.
    pub fn ca_path(&self) -> Option<PathBuf> {
        match self {
            Source::Own { dir, .. } => Some(dir.join("ca.crt")),
            Source::Files { .. } => None,
        }
    }

    /// The certificate with its chain, and its key.
    pub fn paths(&self) -> (PathBuf, PathBuf) {
        match self {
            Source::Own { dir, .. } => (dir.join("server.crt"), dir.join("server.key")),
            Source::Files { cert, key } => (cert.clone(), key.clone()),
        }
    }
}

/// The certificate that a server would show now, without making or renewing one. Fails, saying
/// why, if it or its key cannot be used.
pub fn look(source: &Source, now_secs: i64) -> Result<Certificate> {
    load(source, None, now_secs)?;
    Certificate::read(&source.paths().0)
}

pub struct Tls {
    /// By what new connections are served.
    serving: RwLock<Arc<ServerConfig>>,
    /// The files as they were when they were last read.
    read: Mutex<Vec<Option<Stamp>>>,
}

/// What changes with a file: its inode, its length, and when it was written and put there, in
/// seconds and nanoseconds.
type Stamp = (u64, u64, (i64, i64), (i64, i64));

impl Tls {
    /// Loads or makes the certificate. `now_secs` is the wall clock's, since 1970.
    /// `client_ca`: a file of authorities by whose certificates clients may log in.
    pub fn open(source: &Source, client_ca: Option<&Path>, now_secs: i64) -> Result<Tls> {
        prepare(source, now_secs)?;
        let read = Mutex::new(stamps(source, client_ca));
        Ok(Tls { serving: RwLock::new(load(source, client_ca, now_secs)?), read })
    }

    pub fn acceptor(&self) -> TlsAcceptor {
        self.serving.read().unwrap_or_else(PoisonError::into_inner).clone().into()
    }

    /// Renews what is about to run out or lacks a name, and reads the files again. Connections go
    /// on with what they were shown, and new ones too if this fails.
    pub fn reload(&self, source: &Source, client_ca: Option<&Path>, now_secs: i64) -> Result<()> {
        self.read.lock().unwrap_or_else(PoisonError::into_inner).clear();
        self.refresh(source, client_ca, now_secs).map(|_| ())
    }

    /// The same if anything has changed, and says whether. Costs a few system calls and no write
    /// where nothing has; what is bad is told of once.
    pub fn refresh(&self, source: &Source, client_ca: Option<&Path>, now_secs: i64) -> Result<bool> {
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        prepare(source, now_secs)?;
        let found = stamps(source, client_ca);
        if *read == found {
            return Ok(false);
        }
        *read = found;
        let config = load(source, client_ca, now_secs)?;
        *self.serving.write().unwrap_or_else(PoisonError::into_inner) = config;
        Ok(true)
    }
}

fn prepare(source: &Source, now_secs: i64) -> Result<()> {
    match source {
        Source::Own { dir, names } => own::make(dir, names, now_secs),
        Source::Files { .. } => Ok(()),
    }
}

fn stamps(source: &Source, client_ca: Option<&Path>) -> Vec<Option<Stamp>> {
    let (cert, key) = source.paths();
    let stamp = |path: &Path| {
        let found = std::fs::metadata(path).ok()?;
        let (written, put) = ((found.mtime(), found.mtime_nsec()), (found.ctime(), found.ctime_nsec()));
        Some((found.ino(), found.len(), written, put))
    };
    [Some(cert.as_path()), Some(key.as_path()), client_ca].iter().flatten().copied().map(stamp).collect()
}

fn load(source: &Source, client_ca: Option<&Path>, now_secs: i64) -> Result<Arc<ServerConfig>> {
    let (cert, key) = source.paths();
    let chain =
        certificate::chain(&certificate::read(&cert)?).map_err(|why| unusable("certificate", &cert, &why))?;
    let private = PrivateKeyDer::from_pem_file(&key).map_err(|error| unusable("key", &key, &error))?;
    let shown = Certificate::read(&cert)?;
    if !(shown.begins_secs..shown.ends_secs).contains(&now_secs) {
        tracing::warn!(
            from = super::rfc3339(shown.begins_secs),
            to = super::rfc3339(shown.ends_secs),
            now = super::rfc3339(now_secs),
            "the certificate is not valid by this machine's clock"
        );
    }
    let internal = |error: rustls::Error| Kind::Internal.from_cause(error);
    let provider = Arc::new(provider(cpu::has_aes()));
    let clients = match client_ca {
        None => WebPkiClientVerifier::no_client_auth(),
        Some(path) => WebPkiClientVerifier::builder_with_provider(authorities(path)?, provider.clone())
            // Who brings none may bring a password.
            .allow_unauthenticated()
            .build()
            .map_err(|error| unusable("authority of clients", path, &error))?,
    };
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .map_err(internal)?
        .with_client_cert_verifier(clients)
        .with_single_cert(chain, private)
        .map_err(|error| unusable("certificate", &cert, &error))?;
    // Our order: it knows what this CPU does well.
    config.ignore_client_order = true;
    // One protocol, without the attacks of the other.
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    // Anew with each reading: whom an authority let in that is gone is not let in again by a ticket.
    config.ticketer = ring::Ticketer::new().map_err(internal)?;
    Ok(Arc::new(config))
}

fn authorities(path: &Path) -> Result<Arc<RootCertStore>> {
    let wrong = |why: &dyn Display| unusable("authority of clients", path, why);
    let mut roots = RootCertStore::empty();
    for authority in certificate::chain(&certificate::read(path)?).map_err(|why| wrong(&why))? {
        roots.add(authority).map_err(|error| wrong(&error))?;
    }
    Ok(Arc::new(roots))
}

/// ring's suites, AEAD with ephemeral keys only; ChaCha20 first on CPUs without AES.
fn provider(has_aes: bool) -> CryptoProvider {
    let mut provider = ring::default_provider();
    let is_chacha =
        |suite: &rustls::SupportedCipherSuite| format!("{:?}", suite.suite()).contains("CHACHA20");
    provider.cipher_suites.sort_by_key(|suite| is_chacha(suite) == has_aes);
    provider
}

fn unusable(what: &str, path: &Path, why: &dyn Display) -> Error {
    Kind::Invalid(Thing::Request).because(format!("the TLS {what} {} cannot be used: {why}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustls::SupportedCipherSuite;

    #[test]
    fn aes_comes_first_where_the_cpu_has_it_and_chacha_where_it_has_not() {
        for has_aes in [true, false] {
            let suites = provider(has_aes).cipher_suites;
            let is_chacha = |suite: &SupportedCipherSuite| format!("{suite:?}").contains("CHACHA20");
            let versions: [fn(&SupportedCipherSuite) -> bool; 2] =
                [|suite| suite.tls13().is_some(), |suite| suite.tls13().is_none()];
            for version in versions {
                let of: Vec<bool> = suites.iter().filter(|suite| version(suite)).map(is_chacha).collect();
                assert_eq!(of.first(), Some(&!has_aes));
                assert!(of.contains(&true) && of.contains(&false), "neither is refused");
            }
        }
    }

    #[test]
    fn an_authority_and_its_leaf_made_after_2038_are_good() {
        const IN_2040_SECS: i64 = 2_218_000_000;
        const YEAR_SECS: i64 = 365 * 86_400;
        let dir = tempfile::tempdir().expect("makes one");
        own::make(dir.path(), &[], IN_2040_SECS).expect("makes both");
        let leaf = Certificate::read(&dir.path().join("server.crt")).expect("reads");
        let authority = Certificate::read(&dir.path().join("ca.crt")).expect("reads");
        assert!(leaf.begins_secs < IN_2040_SECS && leaf.ends_secs > IN_2040_SECS + YEAR_SECS);
        assert!(authority.ends_secs > IN_2040_SECS + 29 * YEAR_SECS);
        let key = std::fs::read(dir.path().join("server.key")).expect("reads");
        own::make(dir.path(), &[], IN_2040_SECS + YEAR_SECS / 12).expect("finds both good");
        assert!(std::fs::read(dir.path().join("server.key")).expect("reads") == key);
        own::make(dir.path(), &[], IN_2040_SECS + YEAR_SECS / 2).expect("makes another leaf");
        assert!(std::fs::read(dir.path().join("server.key")).expect("reads") != key);
    }

    #[test]
    fn a_file_of_2040_is_seen_to_be_of_2040() {
        use std::os::unix::fs::MetadataExt;
        let file = tempfile::tempfile().expect("makes one");
        let when = rustix::fs::Timespec { tv_sec: 2_218_000_000, tv_nsec: 7 };
        let both = rustix::fs::Timestamps { last_access: when, last_modification: when };
        rustix::fs::futimens(&file, &both).expect("is set");
        let found = file.metadata().expect("is there");
        assert_eq!((found.mtime(), found.mtime_nsec()), (2_218_000_000, 7));
    }

    #[test]
    fn every_suite_is_aead_with_ephemeral_keys() {
        for suite in provider(true).cipher_suites {
            let name = format!("{:?}", suite.suite());
            assert!(name.contains("GCM") || name.contains("POLY1305"), "{name}");
            assert!(name.starts_with("TLS13_") || name.starts_with("TLS_ECDHE_"), "{name}");
        }
    }
}

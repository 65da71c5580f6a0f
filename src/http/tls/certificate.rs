//! What stands in a file of certificates.

use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use sha2::{Digest as _, Sha256};
use std::net::IpAddr;
use std::path::Path;
use x509_parser::extensions::GeneralName;

use super::unusable;
use crate::error::Result;

/// Longest file of certificates that is read, in bytes. A long chain has 10,000.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// The first certificate of a file: the leaf of a chain, or an authority.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    /// Host names, maybe with `*` as their first label, and addresses.
    pub names: Vec<String>,
    /// Seconds since 1970.
    pub begins_secs: i64,
    pub ends_secs: i64,
    /// SHA-256 of all of it, as people compare it: `AB:CD:…`.
    pub fingerprint: String,
    /// All certificates of the file and nothing else, PEM.
    pub pem: String,
}

impl Certificate {
    /// Fails, naming the file, if it cannot be read or holds none.
    pub fn read(path: &Path) -> Result<Certificate> {
        let text = read(path)?;
        let chain = chain(&text).map_err(|why| unusable("certificate", path, &why))?;
        let wrong = |_| unusable("certificate", path, &"it holds what is no certificate");
        let (_, first) = x509_parser::parse_x509_certificate(&chain[0]).map_err(wrong)?;
        let mut names = Vec::new();
        if let Ok(Some(alternative)) = first.subject_alternative_name() {
            names.extend(alternative.value.general_names.iter().filter_map(name));
        }
        let pairs: Vec<String> = Sha256::digest(&chain[0]).iter().map(|byte| format!("{byte:02X}")).collect();
        Ok(Certificate {
            names,
            begins_secs: first.validity().not_before.timestamp(),
            ends_secs: first.validity().not_after.timestamp(),
            fingerprint: pairs.join(":"),
            pem: blocks(&text),
        })
    }

    /// Whether a client that calls the server by this name, or address, takes it.
    pub fn is_for(&self, host: &str) -> bool {
        let rest = |name: &str| name.split_once('.').map(|(_, rest)| rest.to_owned());
        match host.parse::<IpAddr>() {
            Ok(address) => self.names.iter().any(|name| name.parse() == Ok(address)),
            Err(_) => self.names.iter().any(|name| {
                name.eq_ignore_ascii_case(host)
                    || (name.starts_with("*.")
                        && rest(name).zip(rest(host)).is_some_and(|(a, b)| a.eq_ignore_ascii_case(&b)))
            }),
        }
    }
}

/// Whom a certificate is about, in DER: its common name, if it has exactly one.
pub fn common_name(certificate: &[u8]) -> Option<String> {
    let (_, certificate) = x509_parser::parse_x509_certificate(certificate).ok()?;
    let mut names = certificate.subject().iter_common_name();
    let name = names.next()?.as_str().ok()?.to_owned();
    names.next().is_none().then_some(name)
}

pub fn read(path: &Path) -> Result<String> {
    use std::io::Read;
    let mut text = String::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(FILE_BYTES_MAX).read_to_string(&mut text))
        .map_err(|error| unusable("certificate", path, &error))?;
    Ok(text)
}

/// The certificates of a PEM file, one at least; or why not.
pub fn chain(text: &str) -> std::result::Result<Vec<CertificateDer<'static>>, String> {
    let chain = CertificateDer::pem_slice_iter(text.as_bytes()).collect::<std::result::Result<Vec<_>, _>>();
    match chain {
        Ok(chain) if chain.is_empty() => Err("it holds no certificate".into()),
        Ok(chain) => Ok(chain),
        Err(error) => Err(error.to_string()),
    }
}

/// A file without what is written around its certificates.
fn blocks(text: &str) -> String {
    let mut inside = false;
    let mut blocks = String::new();
    for line in text.lines().map(str::trim) {
        inside |= line == "-----BEGIN CERTIFICATE-----";
        if inside {
            blocks.push_str(line);
            blocks.push('\n');
        }
        inside &= line != "-----END CERTIFICATE-----";
    }
    blocks
}

fn name(name: &GeneralName) -> Option<String> {
    match name {
        GeneralName::DNSName(name) if ServerName::try_from(name.trim_start_matches("*.")).is_ok() => {
            Some((*name).to_owned())
        }
        GeneralName::IPAddress(bytes) => {
            let v4 = <[u8; 4]>::try_from(*bytes).map(IpAddr::from);
            v4.or_else(|_| <[u8; 16]>::try_from(*bytes).map(IpAddr::from)).ok().map(|ip| ip.to_string())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_for_its_names_and_addresses_however_they_are_written() {
        let names = ["pi", "*.site.example", "192.0.2.2", "2001:db8::2"].map(str::to_owned).to_vec();
        let certificate = Certificate {
            names,
            begins_secs: 0,
            ends_secs: 0,
            fingerprint: String::new(),
            pem: String::new(),
        };
        for host in ["pi", "PI", "a.Site.example", "192.0.2.2", "2001:0db8::0002"] {
            assert!(certificate.is_for(host), "{host}");
        }
        for host in ["p", "site.example", "a.b.site.example", "192.0.2.3", "::1"] {
            assert!(!certificate.is_for(host), "{host}");
        }
    }

    #[test]
    fn only_certificates_of_a_file_are_handed_on() {
        let block = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        let text = format!("subject=CN = x\n{block}-----BEGIN PRIVATE KEY-----\nsecret\nEND\n{block}");
        assert_eq!(blocks(&text), format!("{block}{block}"));
    }
}

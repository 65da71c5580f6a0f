//! The authority of a data directory, and the leaf that it signs for its server.
//!
//! ```text
//! DIR/ca.crt, ca.key            made once; clients trust the first
//! DIR/server.crt, server.key    the leaf with its authority; made anew before it ends
//! DIR/server.names              whom the leaf was made for, a line each
//! ```

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use std::collections::HashSet;
use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use time::{Duration, OffsetDateTime};

use crate::error::{Error, Kind, Result, Thing};
use crate::machine;

/// Valid from long ago: a board without a clock battery starts in the past.
const CA_FROM_YEAR: i32 = 2000;
const CA_YEARS: i64 = 30;
/// A leaf begins so long ago, for clients whose clocks stood still while they were off. With what
/// is ahead these are 825 days: some clients take no leaf that lives longer.
const LEAF_PAST_DAYS: i64 = 455;
const LEAF_DAYS: i64 = 370;
/// A leaf is made anew when less than this is left of it: so far may our own clock lag behind.
const RENEW_DAYS: i64 = 270;
/// The wall clock is never before this: when this code was written.
pub const WRITTEN_SECS: i64 = 1_795_000_000;

/// Makes what is missing in `dir`: the authority, and a leaf that is still good for a while and
/// for this machine and all these names. Writes nothing where all is well.
pub fn make(dir: &Path, names: &[String], now_secs: i64) -> Result<()> {
    let now = OffsetDateTime::from_unix_timestamp(now_secs.max(WRITTEN_SECS))
        .map_err(|error| Kind::Internal.from_cause(error))?;
    if !dir.is_dir() {
        std::fs::DirBuilder::new().mode(0o700).recursive(true).create(dir)?;
    }
    let (ca_crt, ca_key) = (dir.join("ca.crt"), dir.join("ca.key"));
    // Not where the key alone is gone: another authority is one that no client trusts.
    if !ca_crt.exists() {
        let key = KeyPair::generate().map_err(internal)?;
        let certificate = ca_params(now)?.self_signed(&key).map_err(internal)?;
        write(&ca_key, &key.serialize_pem(), 0o600)?;
        write(&ca_crt, &certificate.pem(), 0o644)?;
    }
    let (crt, key, made_for) = (dir.join("server.crt"), dir.join("server.key"), dir.join("server.names"));
    let names = all_names(names);
    let ca_pem = std::fs::read_to_string(&ca_crt)?;
    if key.exists() && are_in(&names, &made_for) && is_good(&crt, &ca_pem, now) {
        return Ok(());
    }
    let ca_key = std::fs::read_to_string(&ca_key).map_err(|error| {
        Kind::Invalid(Thing::Request).because(format!(
            "no certificate can be signed, for the key of the authority, {}, cannot be read: {error}; bring it \
             back, or remove that directory for a new authority, which every client must be shown",
            ca_key.display()
        ))
    })?;
    let ca_key = KeyPair::from_pem(&ca_key).map_err(internal)?;
    let issuer = Issuer::from_ca_cert_pem(&ca_pem, ca_key).map_err(internal)?;
    let leaf_key = KeyPair::generate().map_err(internal)?;
    let leaf = leaf_params(&names, now)?.signed_by(&leaf_key, &issuer).map_err(internal)?;
    // The key before the certificate, the names last: a stop in between makes them anew.
    let _ = std::fs::remove_file(&made_for);
    write(&key, &leaf_key.serialize_pem(), 0o600)?;
    write(&crt, &(leaf.pem() + &ca_pem), 0o644)?;
    write(&made_for, &(names.join("\n") + "\n"), 0o644)
}

fn ca_params(now: OffsetDateTime) -> Result<CertificateParams> {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let mut id = [0; 4];
    crate::registry::random(&mut id)?;
    let name = format!("Outport CA {} {}", machine::host_name(), crate::names::hex(&id));
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = rcgen::date_time_ymd(CA_FROM_YEAR, 1, 1);
    params.not_after = now + Duration::days(365 * CA_YEARS);
    Ok(params)
}

fn leaf_params(names: &[String], now: OffsetDateTime) -> Result<CertificateParams> {
    let mut params = CertificateParams::new(names.to_vec()).map_err(|error| {
        Kind::Invalid(Thing::Request).because(format!("a name in tls.names cannot be used: {error}"))
    })?;
    params.distinguished_name.push(DnType::CommonName, machine::host_name());
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    params.not_before = now - Duration::days(LEAF_PAST_DAYS);
    params.not_after = now + Duration::days(LEAF_DAYS);
    Ok(params)
}

/// Whether a leaf is of this authority, good for a while yet, and not for longer than we would
/// make one: its maker's clock may have been far ahead.
fn is_good(crt: &Path, ca_pem: &str, now: OffsetDateTime) -> bool {
    let Ok(leaf) = super::Certificate::read(crt) else { return false };
    let left = Duration::seconds(leaf.ends_secs - now.unix_timestamp());
    leaf.pem.ends_with(ca_pem) && left > Duration::days(RENEW_DAYS) && left <= Duration::days(LEAF_DAYS + 1)
}

/// Whether a leaf was made for all of these. One that was made for more will do until it ends: an
/// address may come back.
fn are_in(names: &[String], made_for: &Path) -> bool {
    let text = std::fs::read_to_string(made_for).unwrap_or_default();
    let made_for: HashSet<&str> = text.lines().collect();
    names.iter().all(|name| made_for.contains(name.as_str()))
}

/// The names a leaf is for: this machine's, and those the configuration adds.
fn all_names(extra: &[String]) -> Vec<String> {
    let host = machine::host_name();
    let addresses = machine::addresses();
    let mut names = vec!["localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()];
    if !host.contains('.') && host != "localhost" {
        names.push(format!("{host}.local"));
    }
    names.push(host);
    names.extend(extra.iter().cloned());
    names.extend(machine::names_of(&addresses));
    names.extend(addresses.iter().map(ToString::to_string));
    let mut seen = HashSet::new();
    names.retain(|name| seen.insert(name.clone()));
    names
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

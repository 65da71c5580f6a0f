//! `outport check`: what of this machine, its disk, the store and the certificate is not as it
//! should be, each in a sentence with a remedy.

use clap::Args;
use serde::Serialize;
use std::fs::Metadata;
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::Common;
use super::print::when;
use super::serve::tls_source;
use crate::config::Config;
use crate::error::{Error, Kind, Result, Thing};
use crate::http::tls::{self, Certificate, Source};
use crate::machine::{self, cpu, disk};
use crate::registry::{self, Clock, Registry};

/// Most lines of what is wanted.
const WANTED_MAX: u32 = 1_000;
const DAY_SECS: i64 = 86_400;

/// Say whether all is well, what to do where it is not, and what to push or import again
#[derive(Debug, Clone, Args)]
pub struct Check {}

/// What a look at something came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    check: &'static str,
    state: State,
    says: String,
    /// What to do; None where all is well.
    remedy: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum State {
    Ok,
    /// It works, and may not for long.
    Warning,
    /// Something does not work.
    Failed,
}

impl Finding {
    fn ok(check: &'static str, says: impl Into<String>) -> Finding {
        Finding { check, state: State::Ok, says: says.into(), remedy: None }
    }

    fn warning(check: &'static str, says: impl Into<String>, remedy: impl Into<String>) -> Finding {
        Finding { check, state: State::Warning, says: says.into(), remedy: Some(remedy.into()) }
    }

    fn failed(check: &'static str, says: impl Into<String>, remedy: impl Into<String>) -> Finding {
        Finding { state: State::Failed, ..Finding::warning(check, says, remedy) }
    }

    fn line(&self) -> String {
        let state = match self.state {
            State::Ok => "ok",
            State::Warning => "WARNING",
            State::Failed => "FAILED",
        };
        let remedy = self.remedy.as_ref().map(|remedy| format!("\n{:22}→ {remedy}.", "")).unwrap_or_default();
        format!("{state:<8} {:<12} {}.{remedy}", self.check, self.says)
    }
}

impl Check {
    pub fn run(self, common: &Common) -> Result<()> {
        let config = common.load()?;
        let dir = PathBuf::from(&config.data);
        // Where there is none there is nothing to look at.
        let opened = match common.open() {
            Err(error) if error.kind == Kind::NotFound(Thing::Repo) => return Err(error),
            opened => opened,
        };
        let now_secs = (Clock::system().wall_us)() / 1_000_000;
        let served = registry::is_served(&dir);
        let mut findings = vec![clock(now_secs, &dir)];
        findings.extend(certificate(&config, now_secs));
        findings.extend(file_system(disk::mount_of(&dir).as_ref()));
        findings.extend(permissions(&dir, &tls_source(&config)));
        findings.extend(ports(&config, *served.as_ref().unwrap_or(&false))?);
        findings.push(instructions());
        match &opened {
            Ok(registry) => {
                findings.push(space(registry));
                findings.push(database(registry));
            }
            Err(error) => findings.push(not_opened(error)),
        }
        for finding in &findings {
            common.say(finding, || finding.line());
        }
        if let Ok(registry) = &opened {
            let finding = wanted(common, registry);
            common.say(&finding, || finding.line());
            findings.push(finding);
        }
        findings.retain(|finding| finding.state == State::Failed);
        match findings.as_slice() {
            [] => Ok(()),
            [failed, rest @ ..] => {
                let more =
                    if rest.is_empty() { String::new() } else { format!("; {} more failed", rest.len()) };
                let remedy = failed.remedy.as_deref().unwrap_or_default();
                Err(Kind::Unavailable.because(format!("{}; {remedy}{more}", failed.says)))
            }
        }
    }
}

/// By what tokens end, and by what clients take the certificate. Nothing is deleted by it.
fn clock(now_secs: i64, dir: &Path) -> Finding {
    const REMEDY: &str = "set it, best by NTP: `timedatectl set-ntp true`; a battery for the clock helps where \
                          there is no network";
    let written = std::fs::metadata(dir.join("registry.db")).map_or(0, |found| found.mtime());
    let says = format!("the clock says {}", when(now_secs.saturating_mul(1_000_000)));
    if now_secs < tls::WRITTEN_SECS {
        return Finding::warning("clock", format!("{says}, when this program was not yet written"), REMEDY);
    }
    if now_secs < written - DAY_SECS {
        let written = when(written.saturating_mul(1_000_000));
        return Finding::warning(
            "clock",
            format!("{says}, and the database was written at {written}"),
            REMEDY,
        );
    }
    if now_secs > tls::WRITTEN_SECS + 30 * 365 * DAY_SECS {
        return Finding::warning("clock", format!("{says}, which is far ahead"), REMEDY);
    }
    Finding::ok("clock", says)
}

/// What clients are shown, and whom they trust.
fn certificate(config: &Config, now_secs: i64) -> Vec<Finding> {
    const CERTIFICATE: &str = "certificate";
    /// By then somebody should have brought another one; our own is renewed long before.
    const SOON_DAYS: i64 = 14;
    if config.server.insecure_http {
        return vec![Finding::ok(CERTIFICATE, "there is none, for plain HTTP is served, as configured")];
    }
    let source = tls_source(config);
    let own = matches!(source, Source::Own { .. });
    if own && source.ca_path().is_some_and(|path| !path.exists()) {
        return vec![Finding::ok(CERTIFICATE, "it is made when the server first starts")];
    }
    let remedy = match own {
        true => "start the server, which makes what is missing; its log says what it cannot",
        false => {
            "bring a certificate and its key in PEM to where tls.cert and tls.key say; they are taken by themselves"
        }
    };
    let leaf = match tls::look(&source, now_secs) {
        Ok(leaf) => leaf,
        Err(error) => return vec![Finding::failed(CERTIFICATE, error.to_string(), remedy)],
    };
    let ends = when(leaf.ends_secs.saturating_mul(1_000_000));
    let names = leaf.names.join(", ");
    let mut wanted: Vec<String> = machine::addresses().iter().map(ToString::to_string).collect();
    wanted.extend(config.tls.names.iter().cloned());
    // A pattern is among the names as it is.
    wanted.retain(|name| own && !leaf.is_for(name) && !leaf.names.contains(name));
    let finding = if now_secs >= leaf.ends_secs {
        Finding::failed(CERTIFICATE, format!("the certificate ended at {ends}, by this clock"), remedy)
    } else if now_secs < leaf.begins_secs {
        let begins = when(leaf.begins_secs.saturating_mul(1_000_000));
        let says = format!("the certificate begins at {begins}, which is ahead of this clock");
        Finding::failed(CERTIFICATE, says, "set the clock, or bring another certificate")
    } else if leaf.ends_secs - now_secs < SOON_DAYS * DAY_SECS {
        Finding::warning(CERTIFICATE, format!("the certificate ends soon, at {ends}"), remedy)
    } else if !wanted.is_empty() {
        let says = format!("the certificate lacks {}", wanted.join(", "));
        Finding::warning(CERTIFICATE, says, "start the server, or wait half a minute: it adds them by itself")
    } else {
        Finding::ok(CERTIFICATE, format!("the certificate is good until {ends}, for {names}"))
    };
    let authority = source.ca_path().map(|path| match Certificate::read(&path) {
        Ok(ca) => {
            let says = format!("clients trust {}, SHA-256 fingerprint {}", path.display(), ca.fingerprint);
            Finding::ok("authority", says)
        }
        Err(error) => Finding::failed("authority", error.to_string(), "restore it from a backup"),
    });
    std::iter::once(finding).chain(authority).collect()
}

fn file_system(mount: Option<&disk::Mount>) -> Vec<Finding> {
    const FILE_SYSTEM: &str = "file system";
    let Some(mount) = mount else {
        return vec![Finding::ok(FILE_SYSTEM, "the kernel does not tell where the data directory lies")];
    };
    let kind = mount.kind.as_str();
    let has = |options: &[&str]| mount.options.iter().find(|option| options.contains(&option.as_str()));
    let on = format!("the data directory is on {kind}");
    let mut findings = Vec::new();
    let (why, remedy) = match kind {
        "vfat" | "msdos" | "exfat" | "ntfs" | "ntfs3" | "fuseblk" => (
            "which keeps no permissions, no file over 4 GiB (FAT) and loses names when the power goes",
            "move it to ext4, f2fs, btrfs or xfs",
        ),
        "nfs" | "nfs4" | "cifs" | "smb3" | "9p" | "afs" | "ceph" | "virtiofs" | "fuse.sshfs"
        | "fuse.glusterfs" => (
            "over a network, where locks and synced writes may not be what SQLite needs",
            "move it to a disk of this machine",
        ),
        "tmpfs" | "ramfs" | "overlay" | "aufs" => {
            ("which may be gone with the next start", "move it to a disk, or mount a volume there")
        }
        _ => ("", ""),
    };
    if !why.is_empty() {
        findings.push(Finding::warning(FILE_SYSTEM, format!("{on}, {why}"), remedy));
    }
    if has(&["ro"]).is_some() {
        let says = format!("{on}, mounted read-only");
        findings.push(Finding::failed(
            FILE_SYSTEM,
            says,
            "see in the kernel's log why (`dmesg`), and mount it for writing",
        ));
    }
    if let Some(option) = has(&["nobarrier", "barrier=0", "fsync_mode=nobarrier", "data=writeback"]) {
        let says = format!("{on} with {option}: what was acknowledged may be lost when the power goes");
        findings.push(Finding::warning(
            FILE_SYSTEM,
            says,
            "take that option out of /etc/fstab, and mount again",
        ));
    }
    if findings.is_empty() {
        findings.push(Finding::ok(FILE_SYSTEM, on));
    }
    findings.push(card(mount.wear()));
    findings
}

fn card(wear: Option<disk::Wear>) -> Finding {
    const CARD: &str = "card";
    const REMEDY: &str = "make a backup now (`outport backup`), and move to a new card";
    let used = |percent: u8| match percent {
        0..=100 => format!("{percent} % of its life is used up"),
        _ => "it has outlived what its maker promised".to_owned(),
    };
    match wear {
        None => Finding::ok(CARD, "the disk does not tell how worn it is, as most do not"),
        Some(disk::Wear { spare: 3, .. }) => {
            Finding::failed(CARD, "its spare blocks are nearly used up", REMEDY)
        }
        Some(disk::Wear { spare: 2, .. }) => {
            Finding::warning(CARD, "four fifths of its spare blocks are used up", REMEDY)
        }
        Some(disk::Wear { used_percent: Some(percent @ 90..), .. }) => {
            Finding::warning(CARD, used(percent), REMEDY)
        }
        Some(disk::Wear { used_percent: Some(percent), .. }) => {
            Finding::ok(CARD, format!("at most {}", used(percent)))
        }
        Some(disk::Wear { used_percent: None, .. }) => Finding::ok(CARD, "its spare blocks are there"),
    }
}

/// Who may read and write what is there. The files belong to whoever has the directory.
fn permissions(dir: &Path, source: &Source) -> Vec<Finding> {
    const PERMISSIONS: &str = "permissions";
    const OTHERS: u32 = 0o077;
    let look = |path: &Path| std::fs::metadata(path).ok();
    let Some(owner) = look(dir) else {
        return vec![Finding::failed(
            PERMISSIONS,
            "the data directory cannot be looked at",
            "run this as root",
        )];
    };
    let (_, key) = source.paths();
    let names = [
        "registry.db",
        "registry.db-wal",
        "registry.db-shm",
        "lock",
        "blobs",
        "uploads",
        "quarantine",
        "tls",
    ];
    let mut foreign: Vec<PathBuf> = names.iter().map(|name| dir.join(name)).collect();
    foreign.extend(key.starts_with(dir).then(|| key.clone()));
    foreign.retain(|path| look(path).is_some_and(|found: Metadata| found.uid() != owner.uid()));
    let mut findings = Vec::new();
    if !foreign.is_empty() {
        let foreign: Vec<_> = foreign.iter().map(|path| path.display().to_string()).collect();
        let says = format!("{} belong to somebody else than the data directory", foreign.join(", "));
        findings.push(Finding::failed(
            PERMISSIONS,
            says,
            format!("stop the server, then `chown -R {}:{} {}`", owner.uid(), owner.gid(), dir.display()),
        ));
    }
    for path in [dir, &key] {
        if look(path).is_some_and(|found| found.mode() & OTHERS != 0) {
            let says = format!("others than its owner may look into {}", path.display());
            findings.push(Finding::warning(PERMISSIONS, says, format!("`chmod go= {}`", path.display())));
        }
    }
    if findings.is_empty() {
        findings.push(Finding::ok(PERMISSIONS, "the data directory and its keys are for their owner alone"));
    }
    findings
}

/// Whether the addresses of the configuration answer, or could be listened on.
fn ports(config: &Config, served: bool) -> Result<Vec<Finding>> {
    const PORT: &str = "port";
    const PATIENCE: Duration = Duration::from_secs(3);
    let look = |address: &SocketAddr| {
        if served {
            return match TcpStream::connect_timeout(&reached_at(*address), PATIENCE) {
                Ok(_) => Finding::ok(PORT, format!("{address} answers")),
                Err(error) => Finding::warning(
                    PORT,
                    format!("a server runs, and {address} does not answer ({error})"),
                    "see in its log where it listens: options or systemd's socket may have told it otherwise",
                ),
            };
        }
        match TcpListener::bind(address) {
            Ok(_) => Finding::ok(PORT, format!("no server runs, and {address} is free for one")),
            Err(error) => {
                let remedy = match error.kind() {
                    ErrorKind::AddrInUse => {
                        "see which program has it by `ss -ltnp`; end that, or change server.listen"
                    }
                    ErrorKind::PermissionDenied => {
                        "ports below 1024 need outport.socket, for systemd to listen there, or another one"
                    }
                    ErrorKind::AddrNotAvailable => "this machine has no such address; change server.listen",
                    _ => "change server.listen",
                };
                Finding::failed(
                    PORT,
                    format!("no server runs, and none could listen on {address} ({error})"),
                    remedy,
                )
            }
        }
    };
    let addresses = config.listen()?;
    Ok(addresses.iter().filter(|address| address.port() != 0).map(look).collect())
}

/// Where somebody on this machine asks who listens everywhere.
pub fn reached_at(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

fn instructions() -> Finding {
    let found = cpu::instructions();
    let of = |has: bool| {
        let names: Vec<_> = found.iter().filter(|(_, found)| *found == has).map(|(name, _)| *name).collect();
        if names.is_empty() { "none".to_owned() } else { names.join(", ") }
    };
    let first = if cpu::has_aes() { "AES-GCM" } else { "ChaCha20-Poly1305" };
    Finding::ok(
        "cpu",
        format!("it has instructions for: {}; it lacks: {}; TLS prefers {first}", of(true), of(false)),
    )
}

fn space(registry: &Registry) -> Finding {
    const SPACE: &str = "space";
    const MIB: u64 = 1 << 20;
    const REMEDY: &str =
        "delete tags and images, and see by `outport gc --dry-run` what comes back; or move to a larger disk";
    let (space, reserve) = match registry.room() {
        Ok(room) => room,
        Err(error) => {
            return Finding::failed(SPACE, error.to_string(), "see in the kernel's log what is wrong");
        }
    };
    let says = format!(
        "{} of {} MiB are free, {} are kept back",
        space.free_bytes / MIB,
        space.total_bytes / MIB,
        reserve / MIB
    );
    match space.free_bytes {
        free if free < reserve => Finding::failed(SPACE, format!("{says}: pushes are refused"), REMEDY),
        free if free / 2 < reserve => Finding::warning(SPACE, format!("{says}: it is nearly full"), REMEDY),
        _ => Finding::ok(SPACE, says),
    }
}

fn database(registry: &Registry) -> Finding {
    const DATABASE: &str = "database";
    let version = registry::sqlite_version();
    // Damaged pages first: rows cannot be read from them.
    let looked = check_database(registry).and_then(|()| registry.check_rows());
    match looked {
        Ok(wrong) if wrong.is_empty() => {
            Finding::ok(DATABASE, format!("SQLite {version} finds every page and row as it should be"))
        }
        Ok(wrong) => Finding::failed(
            DATABASE,
            format!("SQLite {version} finds rows that contradict each other: {}", wrong.join("; ")),
            REBUILD,
        ),
        Err(error) => match error.to_string().split_once("; ") {
            Some((says, remedy)) => Finding::failed(DATABASE, says, remedy),
            None => Finding::failed(DATABASE, error.to_string(), REBUILD),
        },
    }
}

/// What to do with a database that is damaged.
const REBUILD: &str = "stop the server, then restore a backup into a new directory, or run `outport rebuild`";

/// An error that knows a remedy says it after a semicolon.
fn not_opened(error: &Error) -> Finding {
    let cause = std::error::Error::source(error).and_then(|cause| cause.downcast_ref::<std::io::Error>());
    let is_forbidden = cause.is_some_and(|cause| cause.kind() == ErrorKind::PermissionDenied);
    let otherwise =
        if is_forbidden { "run this as root, or as the user that the server runs as" } else { REBUILD };
    let text = error.to_string();
    let (says, remedy) = text.split_once("; ").unwrap_or((&text, otherwise));
    Finding::failed("database", format!("the store cannot be opened: {says}"), remedy)
}

/// Lists what is out of service.
fn wanted(common: &Common, registry: &Registry) -> Finding {
    const STORE: &str = "store";
    let wanted = match registry.wanted(WANTED_MAX) {
        Ok(wanted) => wanted,
        Err(error) => return Finding::failed(STORE, error.to_string(), REBUILD),
    };
    for row in &wanted {
        common.say(row, || {
            let images = if row.images.is_empty() { "nothing".to_owned() } else { row.images.join(", ") };
            format!("wanted: {} {} ({} bytes), for {images}", row.what, row.digest, row.bytes)
        });
    }
    match wanted.len() {
        0 => Finding::ok(STORE, "nothing is out of service"),
        count => Finding::failed(
            STORE,
            format!("{count} blobs or manifests are out of service"),
            "push or import these images again; what they bring heals the store",
        ),
    }
}

/// Reads every page of the database; fails, saying what to do, if one is not as it was written.
pub fn check_database(registry: &Registry) -> Result<()> {
    /// Pages read at once, 4 KiB each.
    const PAGES: u32 = 1_000;
    let (mut from, mut wrong) = (Some(1), 0);
    while let Some(page) = from {
        let checked = registry.check_pages(page, PAGES)?;
        wrong += checked.wrong.len();
        from = checked.next;
    }
    match wrong {
        0 => Ok(()),
        _ => Err(Kind::Unavailable.because(format!(
            "{wrong} pages of the database are damaged, and requests that need them fail; {REBUILD}"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(finding: &Finding) -> State {
        assert_eq!(finding.state == State::Ok, finding.remedy.is_none(), "{finding:?}");
        finding.state
    }

    #[test]
    fn a_clock_that_cannot_be_right_is_told_of() {
        let dir = tempfile::tempdir().expect("a directory");
        let at = |secs| state(&clock(secs, dir.path()));
        assert_eq!(at(tls::WRITTEN_SECS + DAY_SECS), State::Ok);
        for wrong in [0, tls::WRITTEN_SECS - 1, 4_000_000_000, i64::MAX] {
            assert_eq!(at(wrong), State::Warning, "{wrong}");
        }
        std::fs::write(dir.path().join("registry.db"), "").expect("is written");
        let written = std::fs::metadata(dir.path().join("registry.db")).expect("is there").mtime();
        assert_eq!(at(written.max(tls::WRITTEN_SECS)), State::Ok);
        if written - 2 * DAY_SECS > tls::WRITTEN_SECS {
            assert_eq!(at(written - 2 * DAY_SECS), State::Warning);
        }
    }

    #[test]
    fn file_systems_that_lose_what_was_acknowledged_are_told_of() {
        let on = |kind: &str, options: &str| {
            let findings = file_system(Some(&disk::Mount::new(kind, options)));
            findings.iter().filter(|finding| finding.check == "file system").map(state).collect::<Vec<_>>()
        };
        for good in ["ext4", "f2fs", "btrfs", "xfs", "zfs"] {
            assert_eq!(on(good, "rw,noatime,data=ordered"), [State::Ok], "{good}");
        }
        for bad in ["vfat", "exfat", "nfs4", "cifs", "tmpfs", "overlay"] {
            assert_eq!(on(bad, "rw"), [State::Warning], "{bad}");
        }
        for bad in ["nobarrier", "barrier=0", "data=writeback"] {
            assert_eq!(on("ext4", &format!("rw,{bad}")), [State::Warning], "{bad}");
        }
        assert_eq!(on("ext4", "ro"), [State::Failed]);
        assert_eq!(on("vfat", "ro,nobarrier"), [State::Warning, State::Failed, State::Warning]);
    }

    #[test]
    fn a_worn_card_is_told_of_before_it_fails() {
        let of = |used_percent, spare| state(&card(Some(disk::Wear { used_percent, spare })));
        assert_eq!((of(Some(10), 1), of(Some(80), 0), of(None, 1)), (State::Ok, State::Ok, State::Ok));
        assert_eq!(
            (of(Some(90), 1), of(Some(110), 1), of(Some(10), 2)),
            (State::Warning, State::Warning, State::Warning)
        );
        assert_eq!(of(Some(10), 3), State::Failed);
        assert_eq!(state(&card(None)), State::Ok);
    }
}

//! The whole directory in one tar file, taken while it is served, and back.
//!
//! ```text
//! outport-backup.json    what this is, and how much will follow
//! registry.db            one moment's rows
//! tls/…                  the site's own authority, so that clients go on trusting it
//! blobs/ALGORITHM/HEX    what those rows name
//! end.json               that this is all, and which blobs could not be read
//! ```
//!
//! No collection runs meanwhile, so every blob of that moment stays. A restore checks every
//! digest, and the database gets its name last: a directory that was restored by half
//! is none.

use serde::{Deserialize, Serialize};
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use tar::{Archive, Builder, EntryType, Header};

use super::blobs::{self, BlobReader, Blobs, Piece};
use super::gc::lock_collection;
use super::{Registry, sql};
use crate::error::{Error, Kind, Result, Thing};
use crate::names::Digest;

const HEAD: &str = "outport-backup.json";
const END: &str = "end.json";
const DATABASE: &str = "registry.db";
/// Where a restore keeps the database until all the rest is there.
const RESTORING: &str = "registry.db.restoring";
const VERSION: u32 = 1;
/// Longest file besides blobs and the database: keys, certificates and our own notes. A list
/// of damaged blobs is longer only where hardly one is left.
const SMALL_BYTES_MAX: u64 = 16 << 20;
/// Blobs looked up at once.
const PAGE: u32 = 500;

#[derive(Debug, Serialize, Deserialize)]
struct Head {
    version: u32,
    created_us: i64,
    blobs: u64,
    bytes: u64,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct End {
    blobs: u64,
    /// Digests of those that are damaged or missing.
    bad: Vec<String>,
}

/// How far a backup or a restore is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Backup {
    pub blobs: u64,
    /// Of those blobs.
    pub bytes: u64,
    /// Blobs that are not in it, or not whole: what they are is with `wanted`.
    pub bad: u64,
}

impl Registry {
    /// Writes a backup. `progress` hears how much is written, and how much there is.
    ///
    /// Needs as much free disk as the database has. Fails with `Unavailable` while a
    /// collection runs. What it writes holds password hashes and private keys.
    pub fn backup(&self, to: impl Write, mut progress: impl FnMut(u64, u64)) -> Result<Backup> {
        let _nothing_is_collected = lock_collection(&self.dir, true)?;
        let staged = Staged::new(&self.dir)?;
        self.db.copy_to(&staged.0)?;
        let rows = super::db::open_copy(&staged.0)?;
        let (count, all_bytes) = sql::blobs_sum(&rows)?;

        let mut tar = Builder::new(to);
        let head =
            Head { version: VERSION, created_us: (self.clock.wall_us)(), blobs: count, bytes: all_bytes };
        put_json(&mut tar, HEAD, &head)?;
        put_file(&mut tar, DATABASE, &staged.0)?;
        for path in files_in(&self.dir.join("tls"))? {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            put_file(&mut tar, &format!("tls/{name}"), &path)?;
        }
        let (mut done, mut end, mut last) = (Backup::default(), End::default(), 0);
        loop {
            let page = sql::blobs_after(&rows, last, PAGE)?;
            let Some((id, _, _)) = page.last() else { break };
            last = *id;
            for (id, digest, bytes) in page {
                match put_blob(&mut tar, &self.blobs, &digest, bytes, sql::blob_crcs(&rows, id)?)? {
                    true => (done.blobs, done.bytes) = (done.blobs + 1, done.bytes + bytes),
                    false => end.bad.push(digest.as_str().to_owned()),
                }
                progress(done.bytes, all_bytes);
            }
        }
        end.blobs = done.blobs;
        done.bad = end.bad.len() as u64;
        put_json(&mut tar, END, &end)?;
        let mut to = tar.into_inner()?;
        to.flush()?;
        Ok(done)
    }

    /// Makes a directory from a backup. It must not exist, be empty, or hold what an earlier
    /// restore left; `progress` as for a backup.
    ///
    /// Every digest is checked; blobs that are wrong or missing are out of service then, and
    /// counted. Fails with `Invalid` for what is no backup, or ends too early.
    pub fn restore(dir: &Path, from: impl Read, mut progress: impl FnMut(u64, u64)) -> Result<Backup> {
        check_empty(dir)?;
        let blobs = Blobs::open(dir)?;
        blobs::make_dir(&dir.join("tls"))?;
        let mut archive = Archive::new(from);
        let entries = archive.entries().map_err(|error| broken(&error))?;
        let (mut head, mut end, mut done) = (None, None, Backup::default());
        let staged = dir.join(RESTORING);
        for entry in entries {
            let mut entry = entry.map_err(|error| broken(&error))?;
            if entry.header().entry_type() != EntryType::Regular || end.is_some() {
                return Err(no_backup());
            }
            let path = entry.path().map_err(|error| broken(&error))?.into_owned();
            let bytes = entry.size();
            match (Inside::of(&path).ok_or_else(no_backup)?, &head) {
                (Inside::Head, None) => {
                    let found: Head = read_json(&mut entry)?;
                    if found.version != VERSION {
                        return Err(Kind::Invalid(Thing::Request).because(
                            "the backup was made by a newer Outport; restore it with that version",
                        ));
                    }
                    head = Some(found);
                }
                (_, None) => return Err(no_backup()),
                (Inside::Database, _) => take_file(&mut entry, &staged)?,
                (Inside::Tls(name), _) if bytes <= SMALL_BYTES_MAX => {
                    take_file(&mut entry, &dir.join("tls").join(name))?;
                }
                (Inside::Blob(digest), Some(head)) => {
                    if take_blob(&mut entry, &blobs, &digest)? {
                        (done.blobs, done.bytes) = (done.blobs + 1, done.bytes + bytes);
                    }
                    progress(done.bytes, head.bytes);
                }
                (Inside::End, _) => end = Some(read_json::<End>(&mut entry)?),
                _ => return Err(no_backup()),
            }
        }
        if end.is_none() || !staged.exists() {
            return Err(Kind::Invalid(Thing::Request)
                .because("the backup ends too early; nothing was restored that could be served"));
        }
        done.bad = finish(dir, &blobs, &staged)?;
        Ok(done)
    }
}

/// Makes what was restored durable, takes what is missing out of service, and only then
/// gives the database its name. Returns how many blobs are missing.
fn finish(dir: &Path, blobs: &Blobs, staged: &Path) -> Result<u64> {
    blobs.sync_names()?;
    blobs::sync_dir(&dir.join("tls"))?;
    let bad = {
        let mut rows = super::db::open_copy(staged)?;
        let tx = rows.transaction()?;
        let (mut bad, mut last) = (0, 0);
        loop {
            let page = sql::blobs_after(&tx, last, PAGE)?;
            let Some((id, _, _)) = page.last() else { break };
            last = *id;
            for (_, digest, bytes) in page {
                if !blobs.is_there(&digest, bytes) {
                    sql::blob_set_bad(&tx, &digest)?;
                    bad += 1;
                }
            }
        }
        tx.commit()?;
        bad
    };
    File::open(staged)?.sync_all()?;
    std::fs::rename(staged, dir.join(DATABASE))?;
    blobs::sync_dir(dir)?;
    Ok(bad)
}

/// A file of a backup.
enum Inside {
    Head,
    Database,
    Tls(String),
    Blob(Digest),
    End,
}

impl Inside {
    /// Only these names are known: nothing is ever written where an archive says.
    fn of(path: &Path) -> Option<Inside> {
        let parts: Vec<&str> = path.to_str()?.split('/').collect();
        match parts[..] {
            [HEAD] => Some(Inside::Head),
            [DATABASE] => Some(Inside::Database),
            [END] => Some(Inside::End),
            ["tls", name] => {
                let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
                let good = !name.starts_with('.') && !name.is_empty() && name.bytes().all(plain);
                good.then(|| Inside::Tls(name.to_owned()))
            }
            ["blobs", algorithm, hex] => Digest::parse(&format!("{algorithm}:{hex}")).ok().map(Inside::Blob),
            _ => None,
        }
    }
}

/// A copy of the database that goes away when it is not needed any more.
struct Staged(PathBuf);

impl Staged {
    fn new(dir: &Path) -> Result<Staged> {
        let path = dir.join("backup.tmp");
        // Of a backup that was stopped; two at once would use the same, and the second fails.
        blobs::discard(&path);
        Ok(Staged(path))
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        blobs::discard(&self.0);
    }
}

fn check_empty(dir: &Path) -> Result<()> {
    if dir.join(DATABASE).exists() {
        return Err(Kind::Exists(Thing::Repo)
            .because("the directory holds a registry; restore into an empty one, and keep this as it is"));
    }
    let ours = ["uploads", "blobs", "quarantine", "trash", "tls", RESTORING];
    if dir.is_dir() {
        for entry in std::fs::read_dir(dir)? {
            let name = entry?.file_name();
            if !ours.iter().any(|known| name == **known) {
                return Err(Kind::Exists(Thing::Repo).because(
                    "the directory is not empty; restore into one that is, or that does not exist",
                ));
            }
        }
    }
    Ok(())
}

fn no_backup() -> Error {
    Kind::Invalid(Thing::Request).because("this is not a backup that `outport backup` made")
}

fn broken(error: &io::Error) -> Error {
    Kind::Invalid(Thing::Request)
        .because("the backup cannot be read to its end; it is damaged, or not one of ours")
        .with_cause(error.to_string())
}

fn header(bytes: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(EntryType::Regular);
    header.set_size(bytes);
    header.set_mode(0o600);
    header
}

fn put_json(tar: &mut Builder<impl Write>, name: &str, value: &impl Serialize) -> Result<()> {
    let text = serde_json::to_vec(value).map_err(|error| Kind::Internal.from_cause(error))?;
    Ok(tar.append_data(&mut header(text.len() as u64), name, &text[..])?)
}

fn put_file(tar: &mut Builder<impl Write>, name: &str, path: &Path) -> Result<()> {
    let file = File::open(path)?;
    let bytes = file.metadata()?.len();
    Ok(tar.append_data(&mut header(bytes), name, file)?)
}

/// Appends a blob, each byte checked. False if it is damaged: then it is left out, or, if
/// that was found too late, filled up with zeros, which its digest gives away.
fn put_blob(
    tar: &mut Builder<impl Write>,
    blobs: &Blobs,
    digest: &Digest,
    bytes: u64,
    crcs: Vec<u8>,
) -> Result<bool> {
    let blob = match blobs.read(digest, bytes, crcs) {
        Ok(blob) => blob,
        Err(error) if error.kind == Kind::NotFound(Thing::Blob) => return Ok(false),
        Err(error) => return Err(error),
    };
    let mut pieces = Pieces { blob, at: 0, rest: bytes::Bytes::new(), bad: false };
    let name = format!("blobs/{}/{}", digest.algorithm().name(), digest.hex());
    tar.append_data(&mut header(bytes), name, &mut pieces)?;
    Ok(!pieces.bad)
}

/// A blob's checked bytes as a stream.
struct Pieces {
    blob: BlobReader,
    at: u64,
    rest: bytes::Bytes,
    bad: bool,
}

impl Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let end = self.blob.bytes();
        if self.rest.is_empty() && self.at < end && !self.bad {
            match self.blob.piece(self.at, end, Piece::Full) {
                Ok(piece) => self.rest = piece,
                Err(_) => self.bad = true,
            }
        }
        let left = usize::try_from(end - self.at).unwrap_or(usize::MAX);
        let some = buffer.len().min(left);
        let some = if self.bad { some } else { some.min(self.rest.len()) };
        if self.bad {
            buffer[..some].fill(0);
        } else {
            buffer[..some].copy_from_slice(&self.rest.split_to(some));
        }
        self.at += some as u64;
        Ok(some)
    }
}

/// The regular files of a directory, by name; none if it is not there.
fn files_in(dir: &Path) -> Result<Vec<PathBuf>> {
    if !dir.is_dir() {
        return Ok(Vec::new());
    }
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            files.push(entry.path());
        }
    }
    files.sort();
    Ok(files)
}

fn read_json<T: serde::de::DeserializeOwned>(from: &mut impl Read) -> Result<T> {
    let mut text = Vec::new();
    from.take(SMALL_BYTES_MAX).read_to_end(&mut text).map_err(|error| broken(&error))?;
    serde_json::from_slice(&text).map_err(|_| no_backup())
}

/// Writes and syncs a file of ours; an earlier one of that name is replaced.
fn take_file(from: &mut impl Read, path: &Path) -> Result<()> {
    let mut file = blobs::open_or_make(OpenOptions::new().write(true).truncate(true), path)?;
    copy(from, |some| Ok(file.write_all(some)?))?;
    Ok(file.sync_all()?)
}

/// Takes a blob, if its bytes have its digest.
fn take_blob(from: &mut impl Read, blobs: &Blobs, digest: &Digest) -> Result<bool> {
    let mut growing = blobs.restore_new(digest)?;
    let copied = copy(from, |some| Ok(growing.write(&[bytes::Bytes::copy_from_slice(some)])?));
    if let Err(error) = copied {
        growing.discard();
        return Err(error);
    }
    match growing.seal(digest) {
        Ok(mut sealed) => {
            // Their names all at once, at the end.
            sealed.sync()?;
            blobs.shelf().place(&mut sealed).map(|()| true)
        }
        Err(error) if error.kind == Kind::DigestMismatch => Ok(false),
        Err(error) => Err(error),
    }
}

/// Copies to the end; what cannot be read is the backup's fault, what cannot be written ours.
fn copy(from: &mut impl Read, mut to: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
    let mut buffer = vec![0; 256 << 10];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(some) => to(&buffer[..some])?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(broken(&error)),
        }
    }
}

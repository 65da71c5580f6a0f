//! A second copy of what names what, for the day the database is lost: repositories,
//! manifests and tags, appended to `manifests.log` after each commit.
//!
//! It is not synced with every commit: a power cut may take its last minute, and then only
//! matters if the database goes with it. Records hold the state of a row, found out after
//! the commit, so their order is that of the file. People, passwords and rights are not in
//! it; a backup has them.
//!
//! ```text
//! record: u32 length of the head, u32 length of the body, u32 CRC32C of both, head, body
//! ```
//!
//! Numbers are little-endian; the head is JSON, the body a manifest's bytes or nothing.

use rusqlite::Connection;
use rusqlite::hooks::Action;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use super::blobs::{discard, give, open_or_make, sync_dir};
use super::db::{Db, lock};
use super::sql;
use crate::error::{Kind, Result};

/// Most rows of one commit that are noted one by one; a larger change makes the log anew.
const TOUCHED_MAX: usize = 20_000;
/// Longest head and body: what a record that says more has is not read.
const HEAD_MAX: u32 = 64 << 10;
const BODY_MAX: u32 = 8 << 20;
/// A log is made anew when it has grown to twice what it was, and by this much.
const GROWTH_MIN: u64 = 1 << 20;
/// Rows written at once when it is made anew.
const PAGE: u32 = 200;

/// What a record says of a row: its state, or that it is gone.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Record {
    /// The first record of a log that was made from the database, and how long it was then:
    /// twenty digits, so that it can be written last.
    Made {
        bytes: String,
    },
    Repo {
        id: i64,
        name: String,
        private: bool,
    },
    /// The body follows.
    Manifest {
        id: i64,
        repo: i64,
        digest: String,
        media_type: String,
    },
    Tag {
        id: i64,
        repo: i64,
        name: String,
        manifest: i64,
    },
    RepoGone {
        id: i64,
    },
    ManifestGone {
        id: i64,
    },
    TagGone {
        id: i64,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Table {
    Repo,
    Manifest,
    Tag,
}

impl Table {
    fn of(name: &str) -> Option<Table> {
        match name {
            "repo" => Some(Table::Repo),
            "manifest" => Some(Table::Manifest),
            "tag" => Some(Table::Tag),
            _ => None,
        }
    }
}

/// Rows that the open transaction touched.
#[derive(Default)]
struct Touched {
    rows: BTreeSet<(Table, i64)>,
    /// More than are kept.
    too_many: bool,
}

/// The writer's end of the log.
pub(super) struct Journal {
    path: PathBuf,
    touched: Arc<Mutex<Touched>>,
}

impl Journal {
    /// Listens to what this connection changes.
    pub fn listen(dir: &Path, connection: &mut Connection) -> Result<Journal> {
        let touched: Arc<Mutex<Touched>> = Arc::default();
        let hears = touched.clone();
        connection.update_hook(Some(move |_: Action, _: &str, table: &str, row: i64| {
            if let Some(table) = Table::of(table) {
                let mut touched = lock(&hears);
                touched.too_many |= touched.rows.len() >= TOUCHED_MAX;
                if !touched.too_many {
                    touched.rows.insert((table, row));
                }
            }
        }))?;
        Ok(Journal { path: path(dir), touched })
    }

    /// Forgets what a transaction touched that was undone.
    pub fn forget(&self) {
        *lock(&self.touched) = Touched::default();
    }

    /// Appends the state of what the last commit touched. One write, and no sync.
    pub fn append(&self, connection: &Connection) -> Result<()> {
        let touched = std::mem::take(&mut *lock(&self.touched));
        if touched.rows.is_empty() && !touched.too_many {
            return Ok(());
        }
        let mut log = open_locked(&self.path)?;
        if touched.too_many {
            // Upkeep makes it anew from the database.
            return Ok(log.set_len(0)?);
        }
        // Whoever locks later reads later, so the last record of a row is its last state.
        let mut text = Vec::new();
        for (table, id) in touched.rows {
            let (record, body) = state(connection, table, id)?;
            put(&mut text, &record, &body)?;
        }
        Ok(log.write_all(&text)?)
    }
}

/// Opens the log, alone: others may append, or put a new one in its place. Not even when it was
/// read is noted, if it is ours: a look at it writes nothing.
fn open_locked(path: &Path) -> Result<File> {
    loop {
        let mut options = OpenOptions::new();
        options.read(true).append(true);
        let log = match open_or_make(options.clone().custom_flags(libc::O_NOATIME), path) {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => open_or_make(&options, path),
            opened => opened,
        }?;
        log.lock()?;
        if std::fs::metadata(path)
            .is_ok_and(|found| found.ino() == log.metadata().map_or(0, |ours| ours.ino()))
        {
            return Ok(log);
        }
    }
}

fn path(dir: &Path) -> PathBuf {
    dir.join("manifests.log")
}

fn state(tx: &Connection, table: Table, id: i64) -> Result<(Record, Vec<u8>)> {
    Ok(match table {
        Table::Repo => match sql::journal_repo(tx, id)? {
            Some((name, private)) => (Record::Repo { id, name, private }, Vec::new()),
            None => (Record::RepoGone { id }, Vec::new()),
        },
        Table::Manifest => match sql::journal_manifest(tx, id)? {
            Some(sql::JournalManifest { repo, digest, media_type, body }) => {
                (Record::Manifest { id, repo, digest, media_type }, body)
            }
            None => (Record::ManifestGone { id }, Vec::new()),
        },
        Table::Tag => match sql::journal_tag(tx, id)? {
            Some((repo, name, manifest)) => (Record::Tag { id, repo, name, manifest }, Vec::new()),
            None => (Record::TagGone { id }, Vec::new()),
        },
    })
}

fn put(to: &mut impl Write, record: &Record, body: &[u8]) -> Result<()> {
    let head = serde_json::to_vec(record).map_err(|error| Kind::Internal.from_cause(error))?;
    let too_long = |_| Kind::Internal.from_cause("a row is too long for the log of manifests");
    let lengths =
        [u32::try_from(head.len()).map_err(too_long)?, u32::try_from(body.len()).map_err(too_long)?];
    let crc = crc32c::crc32c_append(crc32c::crc32c(&head), body);
    for number in [lengths[0], lengths[1], crc] {
        to.write_all(&number.to_le_bytes())?;
    }
    to.write_all(&head)?;
    Ok(to.write_all(body)?)
}

/// Makes the log anew where it was not made from the database, or has grown to twice what it
/// was then. True if it was. Reads a page of rows at a time; the writer waits only while
/// what it appended meanwhile is copied.
pub(super) fn renew(dir: &Path, db: &Db) -> Result<bool> {
    let path = path(dir);
    let old_bytes = {
        let log = open_locked(&path)?;
        let bytes = log.metadata()?.len();
        match made_bytes(&log)? {
            Some(made) if bytes < 2 * made + GROWTH_MIN => return Ok(false),
            _ => bytes,
        }
    };
    let new_path = path.with_extension("log.new");
    // Of a process that was killed.
    discard(&new_path);
    let mut new = OpenOptions::new().read(true).create_new(true).write(true).mode(0o600).open(&new_path)?;
    give(&new, &new_path);
    let made = |bytes: u64| Record::Made { bytes: format!("{bytes:020}") };
    let mut to = BufWriter::new(&new);
    put(&mut to, &made(0), b"")?;
    write_all(db, &mut to)?;
    to.flush()?;
    drop(to);
    let bytes = new.metadata()?.len();
    new.seek(SeekFrom::Start(0))?;
    put(&mut new, &made(bytes), b"")?;
    // What was appended since: of rows that are in the snapshot as well it says the same or
    // more, and comes later.
    let mut old = open_locked(&path)?;
    old.seek(SeekFrom::Start(old_bytes))?;
    new.seek(SeekFrom::End(0))?;
    io::copy(&mut old, &mut new)?;
    new.sync_all()?;
    std::fs::rename(&new_path, &path)?;
    sync_dir(dir)?;
    Ok(true)
}

/// How long a log was when it was made; None for one that never was.
fn made_bytes(log: &File) -> Result<Option<u64>> {
    let mut records = Records::new(log)?;
    Ok(match records.next()? {
        Some((Record::Made { bytes }, _)) => bytes.parse().ok(),
        _ => None,
    })
}

/// Every row there is, each page of a snapshot of its own: what changes meanwhile is appended.
fn write_all(db: &Db, to: &mut impl Write) -> Result<()> {
    for table in [Table::Repo, Table::Manifest, Table::Tag] {
        let mut last = 0;
        loop {
            let ids = db.read(|tx| {
                let ids = match table {
                    Table::Repo => sql::journal_repos(tx, last, PAGE)?,
                    Table::Manifest => sql::journal_manifests(tx, last, PAGE)?,
                    Table::Tag => sql::journal_tags(tx, last, PAGE)?,
                };
                for id in &ids {
                    let (record, body) = state(tx, table, *id)?;
                    put(to, &record, &body)?;
                }
                Ok(ids)
            })?;
            match ids.last() {
                Some(id) => last = *id,
                None => break,
            }
        }
    }
    Ok(())
}

/// Where a manifest's bytes lie in a log.
#[derive(Debug, Clone, Copy)]
pub(super) struct Body {
    at: u64,
    bytes: u32,
}

/// A log's records, up to the first that is not whole: what follows was never finished.
struct Records<'a> {
    log: BufReader<&'a File>,
    at: u64,
}

impl<'a> Records<'a> {
    fn new(mut log: &'a File) -> Result<Records<'a>> {
        log.seek(SeekFrom::Start(0))?;
        Ok(Records { log: BufReader::new(log), at: 0 })
    }

    fn next(&mut self) -> Result<Option<(Record, Body)>> {
        let whole = |read: io::Result<()>| match read {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
            Err(error) => Err(error),
            Ok(()) => Ok(true),
        };
        let mut numbers = [0; 12];
        if !whole(self.log.read_exact(&mut numbers))? {
            return Ok(None);
        }
        let number = |at: usize| u32::from_le_bytes(numbers[at..at + 4].try_into().unwrap_or_default());
        let (head_bytes, body_bytes, crc) = (number(0), number(4), number(8));
        if head_bytes > HEAD_MAX || body_bytes > BODY_MAX {
            return Ok(None);
        }
        let mut head = vec![0; head_bytes as usize];
        let mut body = vec![0; body_bytes as usize];
        if !whole(self.log.read_exact(&mut head))? || !whole(self.log.read_exact(&mut body))? {
            return Ok(None);
        }
        if crc32c::crc32c_append(crc32c::crc32c(&head), &body) != crc {
            return Ok(None);
        }
        let Ok(record) = serde_json::from_slice(&head) else { return Ok(None) };
        let body = Body { at: self.at + 12 + u64::from(head_bytes), bytes: body_bytes };
        self.at = body.at + u64::from(body_bytes);
        Ok(Some((record, body)))
    }
}

/// A manifest as a log has it.
pub(super) struct Manifest {
    pub repo: i64,
    pub digest: String,
    pub media_type: String,
    pub body: Body,
}

/// What a log says was there last.
#[derive(Default)]
pub(super) struct Replayed {
    /// By id: name, private.
    pub repos: BTreeMap<i64, (String, bool)>,
    /// By id, oldest first.
    pub manifests: BTreeMap<i64, Manifest>,
    /// By id: repository, name, manifest.
    pub tags: BTreeMap<i64, (i64, String, i64)>,
}

/// The log of a directory that lost its database; None if there is none.
pub(super) fn open_log(dir: &Path) -> Result<Option<File>> {
    match File::open(path(dir)) {
        Ok(log) => Ok(Some(log)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Reads a log to its end. Holds names and ids, no manifests.
pub(super) fn replay(log: &File) -> Result<Replayed> {
    let mut last = Replayed::default();
    let mut records = Records::new(log)?;
    while let Some((record, body)) = records.next()? {
        match record {
            Record::Made { .. } => {}
            Record::Repo { id, name, private } => {
                last.repos.insert(id, (name, private));
            }
            Record::Manifest { id, repo, digest, media_type } => {
                last.manifests.insert(id, Manifest { repo, digest, media_type, body });
            }
            Record::Tag { id, repo, name, manifest } => {
                last.tags.insert(id, (repo, name, manifest));
            }
            Record::RepoGone { id } => {
                last.repos.remove(&id);
            }
            Record::ManifestGone { id } => {
                last.manifests.remove(&id);
            }
            Record::TagGone { id } => {
                last.tags.remove(&id);
            }
        }
    }
    Ok(last)
}

/// A manifest's bytes.
pub(super) fn read_body(log: &File, body: Body) -> Result<Vec<u8>> {
    let mut bytes = vec![0; body.bytes as usize];
    log.read_exact_at(&mut bytes, body.at)?;
    Ok(bytes)
}

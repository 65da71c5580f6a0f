//! The database: one writer that groups commits, a few readers that each see a snapshot.
//!
//! Everything that changes rows, and everything that moves files into `blobs/` or out
//! of it, is a closure handed to [`Db::write`]. One thread runs them: it opens a
//! transaction (SQLite's write lock, which also keeps other processes out), runs every
//! closure that is waiting, each in a savepoint of its own, syncs the directories they
//! renamed files into, commits once, and only then lets any of them answer.

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, OptionalExtension, Savepoint, Transaction, TransactionBehavior};
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use super::Clock;
use super::arrivals::Arrivals;
use super::blobs::{self, Blobs, Shelf};
use super::journal::Journal;
use super::pulls::Pulls;
use super::{ballast, failures, sql, vfs};
use crate::error::{Error, Kind, Result};
use crate::names::Digest;

/// Older versions can corrupt a WAL database when a write meets a checkpoint
/// (sqlite.org/wal.html#walresetbug).
const SQLITE_VERSION_MIN: i32 = 3_051_003;
/// "OutP", so that `file` and people know whose database this is.
const APPLICATION_ID: i32 = 0x4f75_7450;
/// The version of schema.sql.
const SCHEMA_VERSION: i32 = 6;
const SCHEMA: &str = include_str!("../../schema.sql");
/// How an older version becomes the next one: the one at index 0 makes version 2 of 1.
const MIGRATIONS: [&str; 5] = [
    include_str!("../../migrations/0002_names_for_every_dialect.sql"),
    include_str!("../../migrations/0003_candidates.sql"),
    include_str!("../../migrations/0004_sums_and_words.sql"),
    include_str!("../../migrations/0005_imports.sql"),
    include_str!("../../migrations/0006_pushers.sql"),
];

/// Most writes that share one commit. Bounds how long the first of them waits.
const BATCH_MAX: usize = 64;
/// Where this many bytes are to be synced by a commit, further writes wait for the next one.
const BATCH_LATE_BYTES: u64 = 16 << 20;
/// Blobs of an image that are pushed side by side arrive some milliseconds apart: while there are
/// some on their way, a commit waits up to this long for them,
const ALL_WITHIN: Duration = Duration::from_millis(50);
/// and looks this often whether they still are. What it waits is counted in looks as well, for
/// the clock may stand.
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// Most writes that wait for the writer; beyond it their threads block.
const QUEUE_MAX: usize = 256;
/// Most idle reader connections kept. Each holds at most 256 KiB of pages.
const READERS_KEPT: usize = 4;
/// How long a connection waits for another process's write lock.
const BUSY_WAIT: Duration = Duration::from_secs(5);
/// Prepared statements each connection keeps: all of them.
const STATEMENTS_KEPT: usize = 224;
/// How often a check of pages copies the log, to find the moment when there is nothing in it.
const CALM_TRIES: usize = 32;
/// How often what only counts, service time and pulls, is written down: at the most, and
/// only beside another write.
const COUNTS_EVERY_SECS: i64 = 15 * 60;
/// Most repositories whose pulls one commit writes down: each may be a page of its own.
const PULLED_MAX: usize = 500;

pub(super) struct Db {
    path: PathBuf,
    readers: Mutex<Vec<Connection>>,
    queue: Option<SyncSender<Box<dyn Work>>>,
    writer: Option<JoinHandle<()>>,
    health: Arc<Health>,
    notes: Arc<Mutex<Notes>>,
    /// Pulls that wait for a commit.
    pub pulls: Arc<Pulls>,
    /// Those that commits wait for.
    pub arrivals: Arrivals,
    clock: Clock,
    service: ServiceTime,
}

/// A stretch of the database that was checked.
#[derive(Debug, PartialEq, Eq)]
pub struct PagesChecked {
    /// Pages of the whole database, counted from 1.
    pub pages: u32,
    /// The pages that are not as they were written.
    pub wrong: Vec<u32>,
    /// Where to go on; none at the end.
    pub next: Option<u32>,
}

/// What is written to `meta` beside the next commit.
type Notes = BTreeMap<&'static str, Vec<u8>>;

/// What the writer found out about the disk.
#[derive(Default)]
struct Health {
    /// The last commit failed.
    troubled: AtomicBool,
    /// The database itself failed: nothing more is written by this process.
    failed: AtomicBool,
}

/// What a write closure works with: a savepoint's connection and the shelf of files.
pub(super) struct Write<'a> {
    pub tx: &'a Connection,
    pub shelf: &'a mut Shelf,
    /// Seconds this registry has been in service: it never jumps, unlike the wall clock.
    pub service_secs: i64,
    /// Wall clock, microseconds since 1970.
    pub now_us: i64,
}

impl Write<'_> {
    /// A push by this user, now; by none at the command line.
    pub fn stamp(&self, user: impl Into<Option<i64>>) -> sql::Stamp {
        sql::Stamp { by: user.into(), us: self.now_us, secs: self.service_secs }
    }
}

impl Db {
    /// Opens the database at `dir`/registry.db, or makes it with the whole schema.
    ///
    /// If it is not `writable`, every write is refused.
    pub fn open(dir: &Path, blobs: &Blobs, clock: &Clock, writable: bool) -> Result<Db> {
        if rusqlite::version_number() < SQLITE_VERSION_MIN {
            return Err(Kind::Internal.because("this build's SQLite is older than 3.51.3"));
        }
        let path = dir.join("registry.db");
        if !path.exists() {
            // Not by SQLite, which would not ask whose the directory is. It does for its other files.
            match blobs::create(&path) {
                Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => return Err(error.into()),
                _ => {}
            }
        }
        let mut connection = connect(&path, OpenFlags::default())?;
        let is_new = identify(&connection)?;
        if !vfs::has_checksums(&connection)? {
            drop(connection);
            add_checksums(&path)?;
            connection = connect(&path, OpenFlags::default())?;
        }
        migrate(&mut connection, is_new)?;
        let service = ServiceTime::open(&connection, clock)?;

        let (queue, waiting) = sync_channel(QUEUE_MAX);
        let health = Arc::new(Health::default());
        let notes = Arc::default();
        let pulls = Arc::default();
        let arrivals = Arrivals::default();
        if !writable {
            health.failed.store(true, Ordering::Relaxed);
        }
        let journal = Journal::listen(dir, &mut connection)?;
        let mut writer = Writer {
            connection,
            journal,
            shelf: blobs.shelf(),
            clock: clock.clone(),
            service: service.clone(),
            health: health.clone(),
            notes: Arc::clone(&notes),
            pulls: Arc::clone(&pulls),
            arrivals: arrivals.clone(),
            dir: dir.to_owned(),
            left: Vec::new(),
        };
        let writer =
            std::thread::Builder::new().name("committer".into()).spawn(move || writer.run(&waiting))?;
        Ok(Db {
            path,
            readers: Mutex::new(Vec::new()),
            queue: Some(queue),
            writer: Some(writer),
            health,
            notes,
            pulls,
            arrivals,
            clock: clock.clone(),
            service,
        })
    }

    /// Runs a closure on a snapshot. Nothing it sees changes while it runs.
    pub fn read<T>(&self, look: impl FnOnce(&Connection) -> Result<T>) -> Result<T> {
        let kept = lock(&self.readers).pop();
        let mut connection = match kept {
            Some(connection) => connection,
            None => {
                let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
                connect(&self.path, flags)?
            }
        };
        let outcome = (|| {
            let tx = connection.transaction_with_behavior(TransactionBehavior::Deferred)?;
            let outcome = look(&tx)?;
            tx.commit()?;
            Ok(outcome)
        })();
        let mut readers = lock(&self.readers);
        if readers.len() < READERS_KEPT {
            readers.push(connection);
        }
        outcome
    }

    /// Runs a closure in the next commit and returns when that commit is durable.
    ///
    /// A closure that fails leaves no row behind, and the others of its commit stand.
    /// Blocks; call it from a thread that may.
    pub fn write<T: Send + 'static>(
        &self,
        change: impl FnOnce(&mut Write) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let stopped = || Kind::Unavailable.because("the registry is stopping; try again");
        let (reply, answer) = sync_channel(1);
        let job = Job { change: Some(change), outcome: None, reply };
        self.queue.as_ref().ok_or_else(stopped)?.send(Box::new(job)).map_err(|_| stopped())?;
        answer.recv().map_err(|_| stopped())?
    }

    /// Reads at most `count` pages of the database's file from page `from` on, which is 1 or what
    /// the last call said, and checks them. What the log holds is copied into the file first, and
    /// checked on its way.
    ///
    /// Fails if the log is damaged, and with `Unavailable` if others write, or read, without a
    /// break. No write waits for it.
    pub fn check_pages(&self, from: u32, count: u32) -> Result<PagesChecked> {
        let mut connection = connect(&self.path, OpenFlags::default())?;
        for _ in 0..CALM_TRIES {
            connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()))?;
            let tx = connection.transaction_with_behavior(TransactionBehavior::Deferred)?;
            let pages: u32 = tx.query_row("PRAGMA page_count", [], |row| row.get(0))?;
            let end = from.saturating_add(count).min(pages.saturating_add(1));
            if let Some(wrong) = vfs::wrong_pages(&tx, from..end)? {
                return Ok(PagesChecked { pages, wrong, next: (end <= pages).then_some(end) });
            }
        }
        Err(Kind::Unavailable.because("the database is too busy to be checked; try again"))
    }

    /// Runs a closure as a write would, and undoes every row of it. Files are the closure's
    /// to leave alone.
    pub fn rehearse<T: Send + 'static>(
        &self,
        change: impl FnOnce(&mut Write) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (outcome, told) = sync_channel(1);
        let undone: Result<()> = self.write(move |write| {
            // The channel has room for one.
            let _ = outcome.send(change(write));
            Err(Kind::Unsupported.into())
        });
        told.try_recv().unwrap_or_else(|_| {
            undone.and_then(|()| Err(Kind::Internal.from_cause("a rehearsal was not run")))
        })
    }

    /// Makes the log that an earlier process left durable. What is read from it may never
    /// have been synced: the process was killed before, or its sync failed, after which the
    /// kernel takes these bytes for written. Only bytes that are written again are synced.
    pub fn log_write_again(&self) -> Result<()> {
        let mut log = self.path.clone().into_os_string();
        log.push("-wal");
        // In a write: nobody else adds to the log, or begins it anew, meanwhile.
        self.write(move |_| blobs::write_again(Path::new(&log)))
    }

    /// Notes something for `meta`, to be written beside the next commit that somebody waits
    /// for: no disk is woken for it, and a crash may forget it.
    pub fn note(&self, key: &'static str, value: Vec<u8>) {
        lock(&self.notes).insert(key, value);
    }

    /// What was noted and not yet written.
    pub fn noted(&self, key: &'static str) -> Option<Vec<u8>> {
        lock(&self.notes).get(key).cloned()
    }

    /// Writes one moment's rows to a new file beside the database. Other readers and writers
    /// go on.
    pub fn copy_to(&self, path: &Path) -> Result<()> {
        let connection = connect(&self.path, OpenFlags::default())?;
        connection.execute("VACUUM INTO ?1", [path.to_string_lossy()])?;
        Ok(())
    }

    /// Seconds in service when this process started, as far as was written down.
    pub fn service_secs_at_start(&self) -> i64 {
        self.service.at_start_secs
    }

    /// Seconds in service, for a look; a write has its own.
    pub fn service_secs(&self) -> i64 {
        self.service.now(&self.clock)
    }

    /// False after a write failed for a reason that is the disk's or the database's.
    pub fn is_sound(&self) -> bool {
        !self.health.troubled.load(Ordering::Relaxed) && !self.has_failed()
    }

    /// True once the database could not be written to for a reason that will not go away:
    /// this process shall end, and the next one recover what is on the disk.
    pub fn has_failed(&self) -> bool {
        self.health.failed.load(Ordering::Relaxed)
    }
}

impl Drop for Db {
    fn drop(&mut self) {
        // The writer's connection closes last: only it can fold the log into the database.
        lock(&self.readers).clear();
        drop(self.queue.take());
        if let Some(writer) = self.writer.take() {
            // A panic of the writer was logged where it happened.
            let _ = writer.join();
        }
    }
}

/// A poisoned lock guards nothing here that a panic could leave half done.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A queued write, with its closure's types forgotten.
trait Work: Send {
    /// Runs the closure; true if its rows are to be kept.
    fn run(&mut self, write: &mut Write) -> bool;
    /// Answers whoever waits, now that the commit is durable, or has failed with that kind.
    fn settle(self: Box<Self>, commit: std::result::Result<(), Kind>);
}

struct Job<F, T> {
    change: Option<F>,
    outcome: Option<Result<T>>,
    reply: SyncSender<Result<T>>,
}

impl<T: Send, F: FnOnce(&mut Write) -> Result<T> + Send> Work for Job<F, T> {
    fn run(&mut self, write: &mut Write) -> bool {
        let Some(change) = self.change.take() else { return false };
        // A release binary ends where it panics; others go on without this write.
        let outcome = catch_unwind(AssertUnwindSafe(|| change(write))).unwrap_or_else(|_| {
            Err(Kind::Internal.from_cause("a write panicked; its transaction was undone"))
        });
        let keep = outcome.is_ok();
        self.outcome = Some(outcome);
        keep
    }

    fn settle(self: Box<Self>, commit: std::result::Result<(), Kind>) {
        let unrun = || Err(Kind::Unavailable.into());
        let outcome = match commit {
            Ok(()) => self.outcome.unwrap_or_else(unrun),
            // A closure that had failed by itself keeps its own reason.
            Err(kind) => match self.outcome {
                Some(Err(error)) => Err(error),
                _ => Err(kind.into()),
            },
        };
        // Whoever waited may be gone: the connection was closed. The commit stands.
        let _ = self.reply.send(outcome);
    }
}

struct Writer {
    connection: Connection,
    journal: Journal,
    shelf: Shelf,
    clock: Clock,
    service: ServiceTime,
    health: Arc<Health>,
    notes: Arc<Mutex<Notes>>,
    pulls: Arc<Pulls>,
    arrivals: Arrivals,
    dir: PathBuf,
    /// What the last commit had no room for.
    left: Vec<Box<dyn Work>>,
}

impl Writer {
    fn run(&mut self, waiting: &Receiver<Box<dyn Work>>) {
        while let Some(mut batch) = self.gather(waiting) {
            let commit = self.commit(&mut batch);
            let placed = self.shelf.take_placed();
            self.note_in_journal(commit.is_ok());
            if let Err(error) = &commit {
                tracing::error!(?error, waiting = batch.len(), "a commit failed");
                self.after_failure(error, placed);
            }
            // A full disk or another process's lock says nothing of the next write.
            let troubled = commit.as_ref().is_err_and(|error| error.kind == Kind::Internal);
            self.health.troubled.store(troubled, Ordering::Relaxed);
            for job in batch {
                job.settle(commit.as_ref().copied().map_err(|error| error.kind));
            }
        }
    }

    /// Those who wait, and who is about to: a commit waits a moment for uploads that arrive just
    /// now, so that they share its syncs. Who is alone does not wait.
    /// None at the end.
    fn gather(&mut self, waiting: &Receiver<Box<dyn Work>>) -> Option<Vec<Box<dyn Work>>> {
        let mut batch = std::mem::take(&mut self.left);
        if batch.is_empty() {
            batch.push(waiting.recv().ok()?);
        }
        let began = (self.clock.monotonic)();
        let mut waited = Duration::ZERO;
        loop {
            batch.extend(waiting.try_iter().take(BATCH_MAX - batch.len()));
            let now = (self.clock.monotonic)();
            let late = waited.max(now.saturating_sub(began)) >= ALL_WITHIN;
            if late || batch.len() == BATCH_MAX || !self.arrivals.any(now) {
                return Some(batch);
            }
            match waiting.recv_timeout(LOOK_EVERY) {
                Ok(next) => batch.push(next),
                Err(RecvTimeoutError::Timeout) => waited += LOOK_EVERY,
                Err(RecvTimeoutError::Disconnected) => return Some(batch),
            }
        }
    }

    /// The second copy: worth a warning if it cannot be written, and not the push.
    fn note_in_journal(&self, committed: bool) {
        if !committed {
            self.journal.forget();
        } else if let Err(error) = self.journal.append(&self.connection) {
            tracing::warn!(
                ?error,
                "the log of manifests could not be written; a rebuild would miss something"
            );
        }
    }

    fn after_failure(&mut self, error: &Error, placed: Vec<Digest>) {
        if is_fatal(error) && !self.health.failed.swap(true, Ordering::Relaxed) {
            // After a failed sync nobody knows what the disk holds (the kernel forgets what it
            // could not write), so nothing is tried again by this process.
            failures::note(&self.dir);
        }
        if error.kind == Kind::Full {
            ballast::release(&self.dir);
        }
        if !self.health.failed.load(Ordering::Relaxed)
            && let Err(error) = self.remove_unrowed(placed)
        {
            tracing::warn!(?error, "files of a commit that failed stay until they are swept");
        }
    }

    /// Takes back names that a commit gave before it failed: on a full disk their files
    /// would keep the room that is missing.
    fn remove_unrowed(&mut self, placed: Vec<Digest>) -> Result<()> {
        let tx = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        for digest in placed {
            if sql::blob(&tx, &digest)?.is_none() {
                self.shelf.retire(&digest)?.as_deref().map(blobs::discard);
            }
        }
        Ok(())
    }

    /// One transaction for the batch, or for as much of it as has room; the rest is left.
    /// Rows and names are durable when it returns.
    fn commit(&mut self, batch: &mut Vec<Box<dyn Work>>) -> Result<()> {
        if self.health.failed.load(Ordering::Relaxed) {
            return Err(Kind::Unavailable.because(
                "the store failed and takes no writes until it is started again; see `outport check`",
            ));
        }
        ballast::release_if_short(&self.dir);
        let now_us = (self.clock.wall_us)();
        let service_secs = self.service.now(&self.clock);
        let mut tx = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let mut ran = 0;
        while ran < batch.len() && self.shelf.late_bytes() < BATCH_LATE_BYTES {
            let savepoint: Savepoint = tx.savepoint()?;
            let write = &mut Write { tx: &savepoint, shelf: &mut self.shelf, service_secs, now_us };
            let keep = batch[ran].run(write);
            ran += 1;
            // SQLite undoes all of a transaction in which a page could not be read; what came
            // after would be committed by itself.
            if savepoint.is_autocommit() {
                return Err(Kind::Internal.from_cause("the database undid the transaction"));
            }
            if keep {
                savepoint.commit()?;
            }
            // A savepoint that is dropped is rolled back.
        }
        self.left = batch.split_off(ran);
        let pulls = match self.service.is_due(service_secs) {
            true => self.pulls.due(PULLED_MAX),
            false => Vec::new(),
        };
        self.service.keep(&tx, service_secs)?;
        let notes = std::mem::take(&mut *lock(&self.notes));
        let outcome = finish(tx, &self.shelf, &notes, &pulls);
        if outcome.is_err() {
            // Nothing of it was written; newer notes stand.
            let mut waiting = lock(&self.notes);
            notes.into_iter().for_each(|(key, value)| {
                waiting.entry(key).or_insert(value);
            });
        } else {
            self.pulls.settle(&pulls);
        }
        outcome
    }
}

/// Writes what rides along, makes names durable, then rows.
fn finish(tx: Transaction, shelf: &Shelf, notes: &Notes, pulls: &[(String, u64)]) -> Result<()> {
    for (key, value) in notes {
        sql::meta_set(&tx, key, value)?;
    }
    for (repo, pulls) in pulls {
        sql::repo_add_pulls(&tx, repo, *pulls)?;
    }
    shelf.sync()?;
    tx.commit()?;
    Ok(())
}

/// Seconds in service: those written down, and those since this process started.
/// Counts only while a process runs, never jumps, survives reboots.
#[derive(Clone)]
struct ServiceTime {
    at_start_secs: i64,
    started: Duration,
    kept_secs: i64,
}

impl ServiceTime {
    fn open(connection: &Connection, clock: &Clock) -> Result<ServiceTime> {
        let kept = sql::meta_get(connection, "service_secs")?;
        let kept_secs =
            kept.and_then(|bytes| Some(i64::from_le_bytes(bytes.try_into().ok()?))).unwrap_or_default();
        // A push since then tells more.
        let at_start_secs = kept_secs.max(sql::candidate_newest(connection)?);
        Ok(ServiceTime { at_start_secs, started: (clock.monotonic)(), kept_secs })
    }

    fn now(&self, clock: &Clock) -> i64 {
        let since = (clock.monotonic)().saturating_sub(self.started);
        self.at_start_secs + i64::try_from(since.as_secs()).unwrap_or(i64::MAX / 2)
    }

    /// Whether what only counts is to be written down again.
    fn is_due(&self, now_secs: i64) -> bool {
        now_secs - self.kept_secs >= COUNTS_EVERY_SECS
    }

    fn keep(&mut self, tx: &Transaction, now_secs: i64) -> Result<()> {
        if self.is_due(now_secs) {
            sql::meta_set(tx, "service_secs", &now_secs.to_le_bytes())?;
            self.kept_secs = now_secs;
        }
        Ok(())
    }
}

/// Opens a copy of a database that nobody else has.
pub(super) fn open_copy(path: &Path) -> Result<Connection> {
    connect(path, OpenFlags::default())
}

/// A connection with the settings that durability and hostile files ask for.
fn connect(path: &Path, flags: OpenFlags) -> Result<Connection> {
    let connection = vfs::open(path, flags)?;
    connection.busy_timeout(BUSY_WAIT)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS_KEPT);
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false)?;
    // Else statements are planned anew whenever a value is bound that a plan might depend on,
    // which takes ten times as long as to run them.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    // A small WAL that is overwritten in place costs fewer flushes than a long one.
    connection.execute_batch(
        "PRAGMA synchronous = FULL;
         PRAGMA wal_autocheckpoint = 250;
         PRAGMA mmap_size = 0;
         PRAGMA cell_size_check = ON;
         PRAGMA foreign_keys = ON;
         PRAGMA temp_store = MEMORY;
         PRAGMA cache_size = -256;",
    )?;
    Ok(connection)
}

fn pragma(connection: &Connection, name: &str) -> Result<i32> {
    Ok(connection.pragma_query_value(None, name, |row| row.get(0))?)
}

/// True for a new file; refuses a file that is not ours.
fn identify(connection: &Connection) -> Result<bool> {
    let is_new = pragma(connection, "schema_version")? == 0;
    if !is_new && pragma(connection, "application_id")? != APPLICATION_ID {
        return Err(Kind::Internal.because("registry.db in the data directory is not an Outport database"));
    }
    Ok(is_new)
}

/// Gives the pages of a database checksums that was made before there were any.
///
/// All of it is written anew into the log, in one transaction, and copied from there. After a
/// crash the log is there, or the transaction never was.
fn add_checksums(path: &Path) -> Result<()> {
    let connection = vfs::open(path, OpenFlags::default())?;
    // Nobody may have it open meanwhile: they would write pages as they were used to. Whoever has
    // will not let it go soon.
    connection.busy_timeout(Duration::ZERO)?;
    let alone = "PRAGMA cache_size = -256; PRAGMA locking_mode = EXCLUSIVE; BEGIN IMMEDIATE; COMMIT;";
    connection.execute_batch(alone).map_err(|error| {
        Kind::Unavailable
            .because("the database is of an older version and in use; stop whatever uses it")
            .with_cause(error)
    })?;
    if vfs::has_checksums(&connection)? {
        return Ok(());
    }
    // Without the log, pages would be written before the first one says that they have checksums.
    connection.execute_batch("PRAGMA journal_mode = WAL;")?;
    vfs::make_room(&connection)?;
    connection.execute_batch("VACUUM; PRAGMA wal_checkpoint(TRUNCATE);")?;
    tracing::info!("every page of the database has a checksum now");
    Ok(())
}

/// Makes the schema in a new file; refuses a file that is from a newer Outport.
fn migrate(connection: &mut Connection, is_new: bool) -> Result<()> {
    if is_new {
        // All must be set before the first page is written.
        connection.execute_batch("PRAGMA page_size = 4096; PRAGMA auto_vacuum = NONE;")?;
        vfs::make_room(connection)?;
    }
    let mode: String = connection.pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get(0))?;
    if mode != "wal" {
        return Err(Kind::Internal.because(
            "the data directory's file system does not support SQLite's write-ahead log; use a local one",
        ));
    }
    // Tables are made anew while others refer to them. Has no effect inside a transaction.
    connection.execute_batch("PRAGMA foreign_keys = OFF;")?;
    // And their texts are changed.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, false)?;
    // Two processes may open a directory at once: the second waits here, then finds it done.
    let tx = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let found = pragma(&tx, "user_version")?;
    if found > SCHEMA_VERSION {
        return Err(Kind::Internal.because(
            "the data directory was written by a newer Outport; run that version, or restore a backup",
        ));
    }
    match usize::try_from(found) {
        Ok(0) => {
            tx.execute_batch(SCHEMA)?;
            tx.pragma_update(None, "application_id", APPLICATION_ID)?;
        }
        Ok(found) => {
            for step in &MIGRATIONS[found - 1..] {
                tx.execute_batch(step)?;
            }
        }
        Err(_) => {
            return Err(Kind::Internal.because("the database's version is not one that was ever released"));
        }
    }
    if found < SCHEMA_VERSION {
        let broken: Option<String> =
            tx.query_row("PRAGMA foreign_key_check", [], |row| row.get(0)).optional()?;
        if let Some(table) = broken {
            return Err(
                Kind::Internal.from_cause(format!("rows of {table} refer to nothing; nothing was changed"))
            );
        }
        tx.pragma_update(None, "user_version", SCHEMA_VERSION)?;
        tracing::info!(from = found, to = SCHEMA_VERSION, "the database is of the current version now");
    }
    tx.commit()?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
    connection.execute_batch("PRAGMA foreign_keys = ON;")?;
    Ok(())
}

/// Whether the database, rather than one write, failed.
fn is_fatal(error: &Error) -> bool {
    use rusqlite::ErrorCode::{DatabaseCorrupt, NotADatabase, SystemIoFailure};
    let cause = error.cause().and_then(|cause| cause.downcast_ref::<rusqlite::Error>());
    let Some(failure) = cause.and_then(rusqlite::Error::sqlite_error) else { return false };
    let is_failed = matches!(failure.code, SystemIoFailure | DatabaseCorrupt | NotADatabase);
    (is_failed || failure.extended_code == vfs::FULL_SYNC) && !cause.is_some_and(is_damage)
}

/// Whether a checksum told that the disk has changed something. Starting over would not help: the
/// next process finds it too, and where it is the log that was changed, ends the log there.
fn is_damage(error: &rusqlite::Error) -> bool {
    error.sqlite_error().is_some_and(|error| error.extended_code == rusqlite::ffi::SQLITE_IOERR_DATA)
}

/// Sorted at the source, because operators act on a full disk, a read-only one and a bad one.
impl From<rusqlite::Error> for Error {
    fn from(cause: rusqlite::Error) -> Error {
        use rusqlite::ErrorCode::{DatabaseBusy, DatabaseLocked, DiskFull, ReadOnly};
        if is_damage(&cause) {
            return Kind::Internal.because("a part of the registry's database is damaged").with_cause(cause);
        }
        let kind = match cause.sqlite_error_code() {
            Some(DiskFull) => Kind::Full,
            Some(ReadOnly | DatabaseBusy | DatabaseLocked) => Kind::Unavailable,
            _ => Kind::Internal,
        };
        kind.from_cause(cause)
    }
}

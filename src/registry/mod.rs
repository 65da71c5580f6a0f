//! The registry: true statements about a directory, and the verbs that keep them true.
//!
//! Synchronous. Nothing outside this module knows SQL or paths. A verb checks, runs one
//! transaction, and returns the richest honest row; dialects take what they show.

mod arrivals;
mod backup;
mod ballast;
mod blobs;
mod catalog;
mod db;
mod export;
mod failures;
mod gc;
mod grants;
mod images;
mod import;
mod index_v1;
mod journal;
mod keys;
mod leases;
mod mlspace;
mod open_files;
mod orgs;
mod pages;
mod password;
mod people;
mod pulls;
mod rebuild;
mod repos;
mod retention;
mod scrub;
mod services;
mod sql;
mod suspects;
mod tokens;
mod trust;
mod uploads;
mod vfs;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use crate::error::{Error, Kind, Result, Thing};
use crate::hash::digest_of;
use crate::manifest;
use crate::names::{Algorithm, Digest, Reference, RepoName, Tag, UploadId};
use blobs::Blobs;
use db::{Db, Write};

pub use backup::Backup;
pub use blobs::{BlobReader, Piece, Space};
pub use catalog::{PAGE_MAX, Page, Referrer, ReferrersPage, RepoRow};
pub use db::PagesChecked;
pub use export::{Choose, Export, ImagePattern};
pub use gc::{Collect, Collected, Gone, Ticket};
pub use grants::{Grant, Grantee, GroupName, GroupRow, Level, OWNERS, OrgRow, Pattern};
pub use images::{ImageBlob, ImageRow, ImageWhole, TAG_COLOR_MAX, TagLine, TagSet};
pub use import::{
    Allow, Arrived, Brought, Import, ImportAsk, ImportBy, ImportRow, RolledBack, Sender, TagMoved,
};
pub use index_v1::{Found, SignUp, SignUpAsk, V1Image, V1Token, v1_word};
pub use keys::KeyFile;
pub use mlspace::{About, GENERATED_PREFIX, Image, ImageTag, Relabel, RepoCard, Workspace};
pub use open_files::OpenFiles;
pub use orgs::{GroupGrant, GroupInfo, Member, OrgInfo, Person, Standing};
pub use pages::{Listed, Mark, Next, Order, REACH, Slice, Wish};
pub use people::{Access, Imported, PASSWORD_MIN, User, UserAdd, UserRow};
pub use rebuild::Rebuilt;
pub use repos::{PlatformRow, Pusher, Repo, RepoChange, TagRow};
pub use retention::Rule;
pub use scrub::{Read, Scrubbed, Wanted};
pub use services::{Service, ServiceMade, ServiceRow};
pub use tokens::{TOKEN_PREFIX, TokenRow, TokenScope};
pub use trust::TrustedKey;
pub use uploads::Upload;

/// Where time comes from. A test hands in its own.
#[derive(Clone)]
pub struct Clock {
    /// Microseconds since 1970, UTC; it may jump.
    pub wall_us: Arc<dyn Fn() -> i64 + Send + Sync>,
    /// Time since some fixed instant; it only grows.
    pub monotonic: Arc<dyn Fn() -> Duration + Send + Sync>,
}

impl Clock {
    pub fn system() -> Clock {
        let start = std::time::Instant::now();
        Clock {
            wall_us: Arc::new(|| {
                let since = std::time::UNIX_EPOCH.elapsed().unwrap_or_default();
                i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
            }),
            monotonic: Arc::new(move || start.elapsed()),
        }
    }
}

/// What the configuration says to the registry.
#[derive(Debug, Clone)]
pub struct Options {
    /// New repositories are private.
    pub private: bool,
    /// Everyone who is known may push names without a slash (`library/…`).
    pub library_open: bool,
    /// Who is nobody may pull from public repositories.
    pub anonymous_pull: bool,
    /// What becomes of people who sign up.
    pub sign_up: SignUp,
    /// Largest blob taken, in bytes.
    pub blob_bytes_max: u64,
    /// Pushes are refused when fewer bytes than this would stay free. None: 5 % of the
    /// disk, at least 256 MiB, at most 2 GiB.
    pub reserve_bytes: Option<u64>,
    /// Open uploads one user may have.
    pub uploads_per_user: usize,
    /// An upload nobody touched for this long is dropped.
    pub upload_expiry: Duration,
    /// What was pushed, mounted or asked for within this time is never collected.
    pub grace: Duration,
    /// How long a scrub of the whole store takes, in slices. Zero: it is not scrubbed.
    pub scrub_period: Duration,
    /// What goes without anybody deleting it, in this order.
    pub retention: Vec<Rule>,
}

/// Reserve: a twentieth of the disk, but a large disk need not keep tens of gigabytes.
const RESERVE_SHARE: u64 = 20;
const RESERVE_BYTES_MIN: u64 = 256 << 20;
const RESERVE_BYTES_MAX: u64 = 2 << 30;

/// A server that ran this long makes earlier failures of no account.
const FAILURES_FORGOTTEN: Duration = Duration::from_secs(3_600);

/// Manifests beyond this are read one at a time.
const READ_TOGETHER_BYTES: usize = 64 << 10;
/// A blob of at most so many bytes may be opened by who may not block: its checksums are on a page or
/// two of the database.
const AT_HAND_BYTES_MAX: u64 = 16 << 20;
/// A database of at most so many bytes is looked through at the first start of a boot: half a second
/// here, a few on a small machine. Of a larger one `outport check` tells.
const BOOT_CHECK_BYTES_MAX: u64 = 32 << 20;

/// What this process does with the data directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mode {
    /// The one server of this directory. Holds the boot's id, which tells whether
    /// unsynced bytes of the last process are still right.
    Serve { boot_id: String },
    /// A verb of the command line, beside a server or without one.
    Tool,
}

pub struct Registry {
    dir: PathBuf,
    db: Db,
    blobs: Blobs,
    clock: Clock,
    options: RwLock<Arc<Options>>,
    uploads: uploads::Uploads,
    leases: Arc<leases::Leases>,
    suspects: Arc<suspects::Suspects>,
    /// Held while a large manifest is read.
    reading: Mutex<()>,
    /// Held while a server runs on this directory.
    _lock: Option<File>,
    serving: bool,
    unclean: bool,
    rebooted: bool,
    /// By the monotonic clock.
    opened: Duration,
    /// False for a server that only reads, because the database failed too often.
    writable: bool,
}

impl Registry {
    /// Opens the data directory, making it if it is new.
    ///
    /// Fails if another server has it, if it was written by a newer version, or if its
    /// file system cannot hold what we promise. Costs the same for any size of store.
    pub fn open(dir: &Path, mode: &Mode, options: Options, clock: Clock) -> Result<Registry> {
        blobs::make_dir(dir)?;
        let lock = match mode {
            Mode::Serve { .. } => Some(lock_dir(dir)?),
            Mode::Tool => None,
        };
        if lock.is_some() && !dir.join("registry.db").exists() && blobs::any(dir)? {
            return Err(Kind::NotFound(Thing::Repo).because(
                "the blobs are there and the database is gone: restore a backup into a new directory, \
                 or make the database again with `outport rebuild`",
            ));
        }
        let blobs = Blobs::open(dir)?;
        let writable = lock.is_none() || !failures::are_many(dir);
        let db = Db::open(dir, &blobs, &clock, writable)?;
        // The database's own name, on its first day.
        blobs::sync_dir(dir)?;
        let start = match mode {
            Mode::Serve { boot_id } if writable => start(&db, &blobs, boot_id)?,
            Mode::Serve { .. } => {
                tracing::error!(
                    "the store failed again and again: it is read, and takes no writes; see `outport check`"
                );
                Start { unclean: false, rebooted: false }
            }
            Mode::Tool => Start { unclean: false, rebooted: false },
        };
        let uploads = uploads::Uploads::open(&blobs, &clock, db.arrivals.clone())?;
        let (serving, opened) = (lock.is_some(), (clock.monotonic)());
        let registry = Registry {
            dir: dir.to_owned(),
            db,
            blobs,
            clock,
            options: RwLock::new(Arc::new(options)),
            uploads,
            leases: Arc::default(),
            suspects: Arc::default(),
            reading: Mutex::default(),
            _lock: lock,
            serving,
            unclean: start.unclean,
            rebooted: start.rebooted,
            opened,
            writable,
        };
        if start.unclean && start.rebooted {
            registry.suspect_recent()?;
        }
        Ok(registry)
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    pub fn options(&self) -> Arc<Options> {
        self.options.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Takes new options; verbs that began keep the old ones.
    pub fn set_options(&self, options: Options) {
        *self.options.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(options);
    }

    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// How long this process has had the directory open.
    pub fn uptime(&self) -> Duration {
        (self.clock.monotonic)().saturating_sub(self.opened)
    }

    /// True if the last server of this directory did not stop by itself.
    pub fn was_unclean(&self) -> bool {
        self.unclean
    }

    /// A secret of this data directory, made when first asked for: 32 random bytes.
    pub fn secret(&self, name: &'static str) -> Result<[u8; 32]> {
        let key = format!("secret.{name}");
        let found = self.db.read(|tx| sql::meta_get(tx, &key))?;
        let found = match found {
            Some(secret) => secret,
            None => self.db.write(move |write| {
                if let Some(made_meanwhile) = sql::meta_get(write.tx, &key)? {
                    return Ok(made_meanwhile);
                }
                let mut secret = [0; 32];
                random(&mut secret)?;
                sql::meta_set(write.tx, &key, &secret)?;
                Ok(secret.to_vec())
            })?,
        };
        found.try_into().map_err(|_| Kind::Internal.from_cause("a secret is not 32 bytes long"))
    }

    // pull --------------------------------------------------------------------

    /// What a manifest is, without its bytes.
    pub fn manifest_stat(&self, repo: &RepoName, reference: &Reference) -> Result<ManifestRow> {
        self.db.read(|tx| manifest_row(tx, repo, reference)).map(|(_, row)| row)
    }

    /// A manifest and its bytes as they were pushed, checked against their digest. That of an
    /// image counts as a pull, that of an index not: its image follows. Of one that is longer
    /// than `bytes_max` only the row: whoever wants it must have the memory first.
    ///
    /// One whose bytes are wrong is taken out of service and answered as unknown, and
    /// the next push of it heals it.
    pub fn manifest(
        &self,
        repo: &RepoName,
        reference: &Reference,
        bytes_max: u64,
    ) -> Result<(ManifestRow, Option<Vec<u8>>)> {
        let (id, row, content) = self.db.read(|tx| {
            let (id, row) = manifest_row(tx, repo, reference)?;
            let content = (row.bytes <= bytes_max).then(|| sql::manifest_content(tx, id)).transpose()?;
            Ok((id, row, content))
        })?;
        let Some((body, repo_uuid, is_image)) = content else { return Ok((row, None)) };
        self.manifest_check(repo, id, &row, &body)?;
        if is_image {
            self.db.pulls.count(&repo_uuid);
        }
        Ok((row, Some(body)))
    }

    /// The same, whole, and nobody counts it.
    fn manifest_uncounted(&self, repo: &RepoName, reference: &Reference) -> Result<(ManifestRow, Vec<u8>)> {
        let (id, row, body) = self.db.read(|tx| {
            let (id, row) = manifest_row(tx, repo, reference)?;
            Ok((id, row, sql::manifest_body(tx, id)?))
        })?;
        self.manifest_check(repo, id, &row, &body)?;
        Ok((row, body))
    }

    fn manifest_check(&self, repo: &RepoName, id: i64, row: &ManifestRow, body: &[u8]) -> Result<()> {
        if digest_of(row.digest.algorithm(), body) == row.digest {
            return Ok(());
        }
        tracing::error!(%repo, digest = %row.digest, "a manifest's bytes are wrong; it is out of service until it is pushed again");
        self.db.write(move |write| sql::manifest_set_bad(write.tx, id))?;
        Err(Kind::NotFound(Thing::Manifest).into())
    }

    /// The size of a blob this repository holds, in bytes. Blocks while there are suspects.
    pub fn blob_stat(&self, repo: &RepoName, digest: &Digest) -> Result<u64> {
        self.lease(repo, digest)?;
        self.suspect_verify(digest)?;
        let key = self.db.read(|tx| sql::blob_in_repo(tx, repo, digest))?;
        match key {
            Some(key) if self.blobs.is_there(digest, key.bytes) => Ok(key.bytes),
            // A row whose file is gone: the client sends it again, which heals it.
            _ => Err(Kind::NotFound(Thing::Blob).into()),
        }
    }

    /// Opens a blob this repository holds. Blocks.
    pub fn blob(&self, repo: &RepoName, digest: &Digest) -> Result<BlobReader> {
        self.lease(repo, digest)?;
        let (bytes, crcs) = self.db.read(|tx| {
            let key = sql::blob_in_repo(tx, repo, digest)?.ok_or(Kind::NotFound(Thing::Blob))?;
            Ok((key.bytes, sql::blob_crcs(tx, key.id)?))
        })?;
        self.blob_open(digest, bytes, crcs)
    }

    /// The same, if nobody has to wait for a disk: None if somebody has, or if the blob is so large
    /// that the way to a thread does not count.
    pub fn blob_at_hand(&self, repo: &RepoName, digest: &Digest) -> Result<Option<BlobReader>> {
        self.lease(repo, digest)?;
        let row = self.db.read(|tx| {
            let key = sql::blob_in_repo(tx, repo, digest)?.ok_or(Kind::NotFound(Thing::Blob))?;
            match key.bytes <= AT_HAND_BYTES_MAX {
                true => Ok(Some((key.bytes, sql::blob_crcs(tx, key.id)?))),
                false => Ok(None),
            }
        })?;
        Ok(row.and_then(|(bytes, crcs)| self.blobs.read_at_hand(digest, bytes, crcs)))
    }

    /// Opens the file of a blob's row.
    fn blob_open(&self, digest: &Digest, bytes: u64, crcs: Vec<u8>) -> Result<BlobReader> {
        match self.blobs.read(digest, bytes, crcs) {
            Err(error) if error.kind == Kind::NotFound(Thing::Blob) => {
                self.blob_is_bad(digest, self.blobs.inode(digest), &error)?;
                Err(error)
            }
            outcome => outcome,
        }
    }

    /// The next checked bytes of an open blob; see [`BlobReader::piece`].
    ///
    /// A blob that fails here is out of service when this returns, and stays so until
    /// it is pushed again. Blocks.
    pub fn blob_piece(&self, blob: &BlobReader, at: u64, end: u64, size: Piece) -> Result<bytes::Bytes> {
        // A disk under strain may fail once; wrong bytes are read wrong again.
        let piece = blob.piece(at, end, size).or_else(|_| blob.piece(at, end, size));
        piece.or_else(|cause| {
            let error = Kind::NotFound(Thing::Blob).from_cause(cause);
            self.blob_is_bad(blob.digest(), Some(blob.inode()), &error)?;
            Err(error)
        })
    }

    /// Whoever is told that a blob is here may name it in a manifest for a while.
    fn lease(&self, repo: &RepoName, digest: &Digest) -> Result<()> {
        match self.leases.take(repo.full(), digest, self.db.service_secs()) {
            true => Ok(()),
            false => Err(Kind::NotFound(Thing::Blob).into()),
        }
    }

    /// Takes a blob out of service: its row says so, its file goes to quarantine.
    fn blob_is_bad(&self, digest: &Digest, inode: Option<u64>, why: &Error) -> Result<()> {
        tracing::error!(%digest, error = ?why, "a blob is damaged; it is out of service until it is pushed again");
        let (digest, blobs) = (digest.clone(), self.blobs.clone());
        self.db.write(move |write| {
            // A push may have healed it while it was being read.
            if blobs.inode(&digest) == inode {
                sql::blob_set_bad(write.tx, &digest)?;
                if let Some(inode) = inode {
                    write.shelf.quarantine(&digest, inode)?;
                }
            }
            Ok(())
        })
    }

    // push --------------------------------------------------------------------

    /// Begins an upload by this user into this repository.
    ///
    /// Fails with `TooMany` when the user has too many open, `Full` when the disk has
    /// no room for `bytes` more.
    pub fn upload_begin(
        &self,
        user: &User,
        repo: &RepoName,
        algorithm: Algorithm,
        bytes: u64,
    ) -> Result<Upload> {
        self.check_room(bytes)?;
        self.uploads.begin(&self.blobs, user.id, repo, algorithm, self.options().uploads_per_user)
    }

    /// How many bytes an upload has. Changes nothing.
    pub fn upload_stat(&self, user: &User, repo: &RepoName, id: &UploadId) -> Result<u64> {
        self.uploads.stat(&self.blobs, user.id, repo, id)
    }

    /// Goes on with an upload; whoever held it before is cut off.
    pub fn upload_resume(&self, user: &User, repo: &RepoName, id: &UploadId) -> Result<Upload> {
        self.uploads.resume(&self.blobs, user.id, repo, id)
    }

    /// Ends an upload without a blob.
    pub fn upload_cancel(&self, upload: &Upload) {
        self.uploads.cancel(upload);
    }

    /// Makes an upload the blob it was meant to be, held by this repository.
    ///
    /// Durable when it returns. Fails with `DigestMismatch`; the upload is gone after any
    /// failure.
    pub fn upload_commit(&self, upload: &Upload, repo: &RepoName, digest: &Digest) -> Result<()> {
        let mut sealed = self.uploads.take(upload)?.seal(digest)?;
        let (repo, private, by) = (repo.clone(), self.options().private, upload.user());
        let leases = self.leases.clone();
        upload.arrived();
        self.db.write(move |write| {
            let id = repo_make(write, &repo, private, Some(by))?;
            let known = sql::blob(write.tx, &sealed.digest)?;
            // The file is replaced even if a live row has one: these bytes were checked just
            // now, which heals damage that nobody has noticed.
            write.shelf.place(&mut sealed)?;
            let blob = match known {
                Some(known) if known.live && known.bytes == sealed.bytes => known.id,
                _ => sql::blob_upsert(write.tx, &sealed.digest, sealed.bytes, &sealed.crcs)?,
            };
            sql::repo_blob_set(write.tx, id, blob, write.service_secs)?;
            leases.is_back(repo.full(), &sealed.digest);
            Ok(())
        })?;
        self.suspects.clear(digest);
        Ok(())
    }

    /// Links a blob that some repository this user may read holds. False if there is none:
    /// the client then uploads. The source that a client names is a hint nobody needs, but
    /// where `only_from` is given it must be that one, and its reader was checked.
    pub fn blob_mount(
        &self,
        user: &User,
        repo: &RepoName,
        digest: &Digest,
        only_from: Option<RepoName>,
    ) -> Result<bool> {
        let readable = {
            let (user, digest, blobs) = (user.clone(), digest.clone(), self.blobs.clone());
            move |tx: &rusqlite::Connection| -> Result<Option<i64>> {
                let found = match &only_from {
                    Some(from) => sql::blob_in_repo(tx, from, &digest)?,
                    None => match sql::blob(tx, &digest)? {
                        Some(blob) if blob.live && sql::blob_readable(tx, blob.id, user.id)? => Some(blob),
                        _ => None,
                    },
                };
                Ok(found.filter(|blob| blobs.is_there(&digest, blob.bytes)).map(|blob| blob.id))
            }
        };
        self.suspect_verify(digest)?;
        // Most mounts miss, and a miss shall not cost a commit.
        if self.db.read(&readable)?.is_none() {
            return Ok(false);
        }
        let (repo, private, by) = (repo.clone(), self.options().private, user.id);
        let (digest, leases) = (digest.clone(), self.leases.clone());
        self.db.write(move |write| {
            let Some(blob) = readable(write.tx)? else { return Ok(false) };
            let id = repo_make(write, &repo, private, Some(by))?;
            sql::repo_blob_set(write.tx, id, blob, write.service_secs)?;
            leases.is_back(repo.full(), &digest);
            Ok(true)
        })
    }

    /// Stores a manifest and points tags at it, in one transaction; durable when it returns.
    ///
    /// Fails with `DigestMismatch` if `reference` is another digest, with `BlobMissing` if
    /// the repository does not hold what the manifest relies on.
    pub fn manifest_put(&self, push: ManifestPush) -> Result<ManifestPut> {
        let read = {
            // Read, a manifest may take several times its size.
            let _alone = (push.body.len() > READ_TOGETHER_BYTES).then(|| db::lock(&self.reading));
            manifest::read(&push.body, push.content_type.as_deref())?
        };
        self.check_room(push.body.len() as u64)?;
        for blob in &read.blobs {
            self.suspect_verify(blob)?;
        }
        let mut tags = push.tags;
        let digest = match push.reference {
            Reference::Digest(digest) => {
                if digest_of(digest.algorithm(), &push.body) != digest {
                    return Err(Kind::DigestMismatch.into());
                }
                digest
            }
            Reference::Tag(tag) => {
                tags.push(tag);
                digest_of(Algorithm::Sha256, &push.body)
            }
        };
        let put = ManifestPut { digest: digest.clone(), subject: read.subject.clone() };
        let (private, user, files) = (self.options().private, push.user, self.blobs.clone());
        self.db.write(move |write| {
            let repo = repo_make(write, &push.repo, private, Some(user))?;
            let blobs = blobs_held(write.tx, &files, &push.repo, &read.blobs)?;
            let stamp = write.stamp(user);
            let id = manifest_set(write.tx, repo, &digest, &read, &push.body, &blobs, stamp)?;
            for tag in &tags {
                sql::tag_set(write.tx, repo, tag, id, stamp)?;
            }
            sql::repo_set_pushed(write.tx, repo, write.now_us)
        })?;
        Ok(put)
    }

    // delete ------------------------------------------------------------------

    /// Deletes a manifest with its tags, or a tag alone. Visible at once.
    pub fn manifest_delete(&self, repo: &RepoName, reference: &Reference) -> Result<()> {
        let (repo, reference) = (repo.clone(), reference.clone());
        self.db.write(move |write| {
            let tx = write.tx;
            match &reference {
                Reference::Tag(tag) => {
                    let key = sql::repo(tx, &repo)?.ok_or(Kind::NotFound(Thing::Manifest))?;
                    if !sql::tag_delete(tx, key.id, tag)? {
                        return Err(Kind::NotFound(Thing::Manifest).into());
                    }
                    Ok(())
                }
                Reference::Digest(digest) => {
                    // Also one that is damaged and answered as absent: it can be got rid of.
                    let id = sql::manifest_id(tx, &repo, digest)?.ok_or(Kind::NotFound(Thing::Manifest))?;
                    sql::manifest_delete(tx, id)
                }
            }
        })
    }

    /// Takes a blob out of a repository. Fails with `InUse` while a manifest there relies
    /// on it: an acknowledged image stays whole.
    pub fn blob_delete(&self, repo: &RepoName, digest: &Digest) -> Result<()> {
        let (repo, digest) = (repo.clone(), digest.clone());
        self.db.write(move |write| {
            let missing = Kind::NotFound(Thing::Blob);
            let blob = sql::blob_in_repo(write.tx, &repo, &digest)?.ok_or(missing)?;
            let repo = sql::repo(write.tx, &repo)?.ok_or(missing)?;
            if let Some(user) = sql::blob_user(write.tx, repo.id, blob.id)? {
                return Err(Kind::InUse(Thing::Blob)
                    .because(format!("the blob is in use by manifest {user}; delete that first")));
            }
            sql::repo_blob_delete(write.tx, repo.id, blob.id)
        })
    }

    // upkeep ------------------------------------------------------------------

    /// Drops uploads nobody went on with. Returns how many.
    pub fn uploads_expire(&self) -> usize {
        self.uploads.expire(self.options().upload_expiry)
    }

    /// Removes files in `blobs/` that have no row: what a crash leaves between a rename
    /// and its commit. Returns how many. Asked for only after an unclean stop.
    pub fn orphans_remove(&self) -> Result<u64> {
        let mut removed = 0;
        for algorithm in Algorithm::ALL {
            self.blobs.walk(algorithm, |digests| {
                let orphans = self.db.read(|tx| without_row(tx, digests))?;
                removed += self.files_remove(orphans)?;
                Ok(())
            })?;
        }
        Ok(removed)
    }

    /// Reads so many pages of the database from one on, the first being 1, and says which are not
    /// as they were written. Fails if the database's log is damaged, or with `Unavailable` while it
    /// is never at rest. Blocks for as long as it takes to read so many times 4 KiB.
    pub fn check_pages(&self, from: u32, count: u32) -> Result<PagesChecked> {
        self.db.check_pages(from, count)
    }

    /// What keeps the directory fit, every few minutes. Writes only where something changed.
    pub fn upkeep(&self) {
        self.blobs.spares_clear();
        if let Err(error) = ballast::keep(&self.dir) {
            tracing::warn!(%error, "no room could be kept for deleting on a full disk");
        }
        if let Err(error) = journal::renew(&self.dir, &self.db) {
            tracing::warn!(?error, "the log of manifests could not be made anew");
        }
        if self.uptime() > FAILURES_FORGOTTEN && !self.db.has_failed() {
            failures::forget(&self.dir);
        }
    }

    /// True once the database failed: the server shall end, for the next one to recover.
    /// False where that was tried often enough, and this one only reads.
    pub fn shall_end(&self) -> bool {
        self.writable && self.db.has_failed()
    }

    /// What SQLite finds wrong in the database: rows and indexes that contradict each other, or rows
    /// that name what is not there. A few lines at most; reads all of it.
    pub fn check_rows(&self) -> Result<Vec<String>> {
        self.db.read(sql::wrong_rows)
    }

    /// The same, if the machine has started anew since the last server: then the disk may have lost what
    /// it said it had. Nothing for a larger database, for whoever stops the server waits for this.
    pub fn check_rows_of_boot(&self) -> Result<Vec<String>> {
        let bytes = std::fs::metadata(self.dir.join("registry.db"))?.len();
        if self.rebooted && bytes <= BOOT_CHECK_BYTES_MAX { self.check_rows() } else { Ok(Vec::new()) }
    }

    /// Whether pulls work: the database answers.
    pub fn check_reads(&self) -> Result<()> {
        self.db.read(|tx| sql::user_count(tx).map(|_| ()))
    }

    /// Whether pushes would be taken: the last commit went well, the disk is writable
    /// and has room. Writes nothing.
    pub fn check_writes(&self) -> Result<()> {
        if !self.db.is_sound() || !self.blobs.is_writable() {
            return Err(Kind::Unavailable.because("the store cannot be written to"));
        }
        self.check_room(0)
    }

    /// Notes a clean stop, and beside it what was counted.
    fn note_stop(&self) -> Result<()> {
        let pulls = self.db.pulls.due(usize::MAX);
        self.db.pulls.settle(&pulls);
        self.db.write(move |write| {
            for (repo, pulls) in pulls {
                sql::repo_add_pulls(write.tx, &repo, pulls)?;
            }
            sql::meta_set(write.tx, "running", &[0])
        })
    }

    /// Refuses what would eat into the reserve. Deletes and the database live from it.
    pub fn check_room(&self, bytes: u64) -> Result<()> {
        let options = self.options();
        if bytes > options.blob_bytes_max {
            return Err(Kind::TooLarge(Thing::Blob)
                .because(format!("a blob has at most {} bytes here", options.blob_bytes_max)));
        }
        let (Space { free_bytes, .. }, reserve) = self.room()?;
        if free_bytes < reserve.saturating_add(bytes) {
            return Err(Kind::Full.into());
        }
        Ok(())
    }

    /// The disk's space, and how much of what is free pushes may not use up, in bytes.
    pub fn room(&self) -> Result<(Space, u64)> {
        let space = self.blobs.space()?;
        let usual = || (space.total_bytes / RESERVE_SHARE).clamp(RESERVE_BYTES_MIN, RESERVE_BYTES_MAX);
        let reserve = self.options().reserve_bytes.unwrap_or_else(usual);
        Ok((space, reserve))
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        if self.serving && !self.shall_end() {
            // Stopped by somebody, who may have mended what was broken.
            failures::forget(&self.dir);
        }
        if self.serving
            && !self.db.has_failed()
            && let Err(error) = self.note_stop()
        {
            tracing::warn!(?error, "the clean stop could not be noted");
        }
    }
}

/// A manifest as lists and HEAD show it.
#[derive(Debug, Clone)]
pub struct ManifestRow {
    pub digest: Digest,
    pub media_type: String,
    pub bytes: u64,
}

/// A manifest on its way in.
pub struct ManifestPush {
    pub repo: RepoName,
    /// The id of who pushes.
    pub user: i64,
    /// A digest to be checked, or a tag to be set.
    pub reference: Reference,
    /// More tags to be set.
    pub tags: Vec<Tag>,
    pub content_type: Option<String>,
    pub body: bytes::Bytes,
}

pub struct ManifestPut {
    pub digest: Digest,
    pub subject: Option<Digest>,
}

/// 128 bits or more that nobody can guess.
pub fn random(bytes: &mut [u8]) -> Result<()> {
    getrandom::fill(bytes).map_err(|error| Kind::Internal.from_cause(error.to_string()))
}

fn manifest_row(
    tx: &rusqlite::Connection,
    repo: &RepoName,
    reference: &Reference,
) -> Result<(i64, ManifestRow)> {
    let key = match reference {
        Reference::Tag(tag) => sql::manifest_by_tag(tx, repo, tag)?,
        Reference::Digest(digest) => sql::manifest_by_digest(tx, repo, digest)?,
    };
    let key = key.ok_or(Kind::NotFound(Thing::Manifest))?;
    Ok((key.id, ManifestRow { digest: key.digest, media_type: key.media_type, bytes: key.bytes }))
}

/// A repository's id; made, with its namespace, if it is new.
fn repo_make(write: &Write, name: &RepoName, private: bool, by: Option<i64>) -> Result<i64> {
    if let Some(key) = sql::repo(write.tx, name)? {
        return Ok(key.id);
    }
    let namespace = sql::namespace_make(write.tx, name.namespace(), write.now_us)?;
    sql::repo_insert(write.tx, namespace, name, private, by, write.now_us)
}

/// Writes a manifest that was read, with the blobs it relies on, by their ids. Returns its id.
fn manifest_set(
    tx: &rusqlite::Connection,
    repo: i64,
    digest: &Digest,
    read: &manifest::Manifest,
    body: &[u8],
    blobs: &[i64],
    stamp: sql::Stamp,
) -> Result<i64> {
    let id = sql::manifest_upsert(tx, repo, digest, read, body, stamp)?;
    for blob in blobs {
        sql::edge_insert(tx, id, *blob)?;
    }
    for child in &read.children {
        sql::child_insert(tx, id, child)?;
    }
    Ok(id)
}

/// The rows of blobs a repository holds; all of them, or `BlobMissing` naming some.
fn blobs_held(
    tx: &rusqlite::Connection,
    files: &Blobs,
    repo: &RepoName,
    digests: &[Digest],
) -> Result<Vec<i64>> {
    let (mut held, mut missing) = (Vec::with_capacity(digests.len()), Vec::new());
    for digest in digests {
        match sql::blob_in_repo(tx, repo, digest)? {
            Some(blob) if files.is_there(digest, blob.bytes) => held.push(blob.id),
            _ => missing.push(digest.as_str()),
        }
    }
    if missing.is_empty() {
        return Ok(held);
    }
    Err(Kind::BlobMissing.because(format!("push these blobs to this repository first: {}", some(&missing))))
}

/// Some of these digests, and how many there are besides.
fn some(missing: &[&str]) -> String {
    /// How many missing blobs an error names.
    const NAMED_MAX: usize = 5;
    let named = missing[..missing.len().min(NAMED_MAX)].join(", ");
    match missing.len().saturating_sub(NAMED_MAX) {
        0 => named,
        more => format!("{named} and {more} more"),
    }
}

fn without_row(tx: &rusqlite::Connection, mut digests: Vec<Digest>) -> Result<Vec<Digest>> {
    let mut orphans = Vec::new();
    for digest in digests.drain(..) {
        if sql::blob(tx, &digest)?.is_none() {
            orphans.push(digest);
        }
    }
    Ok(orphans)
}

/// Whether a server has a directory just now.
pub fn is_served(dir: &Path) -> Result<bool> {
    match lock_dir_once(dir) {
        Ok(_let_go_at_once) => Ok(false),
        Err(error) if error.kind == Kind::Unavailable => Ok(true),
        Err(error) => Err(error),
    }
}

/// Takes the directory for one server. The lock ends with the process, however it ends.
/// A verb that looks whether there is one holds it for a moment, which is waited for.
fn lock_dir(dir: &Path) -> Result<File> {
    const TRIES: u32 = 10;
    const WAIT: Duration = Duration::from_millis(20);
    for _ in 1..TRIES {
        match lock_dir_once(dir) {
            Err(error) if error.kind == Kind::Unavailable => std::thread::sleep(WAIT),
            taken => return taken,
        }
    }
    lock_dir_once(dir)
}

fn lock_dir_once(dir: &Path) -> Result<File> {
    let file = blobs::open_or_make(std::fs::OpenOptions::new().write(true), &dir.join("lock"))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(std::fs::TryLockError::WouldBlock) => Err(Kind::Unavailable
            .because("another outport serves this data directory; stop it, or choose another --data")),
        Err(std::fs::TryLockError::Error(error)) => Err(error.into()),
    }
}

/// What a server found when it started.
struct Start {
    /// The last server did not stop by itself.
    unclean: bool,
    /// The machine has started anew since.
    rebooted: bool,
}

/// Notes that a server runs, and clears what an earlier boot left.
fn start(db: &Db, blobs: &Blobs, boot_id: &str) -> Result<Start> {
    let (last_boot, running) =
        db.read(|tx| Ok((sql::meta_get(tx, "boot_id")?, sql::meta_get(tx, "running")?)))?;
    let rebooted = last_boot.as_deref() != Some(boot_id.as_bytes());
    if rebooted {
        // Bytes that were not synced before the power went may be anything now.
        for left in blobs.uploads_left()? {
            blobs::discard(&left.path);
        }
    }
    let boot_id = boot_id.to_owned();
    blobs.trash_empty()?;
    db.log_write_again()?;
    db.write(move |write| {
        sql::meta_set(write.tx, "boot_id", boot_id.as_bytes())?;
        sql::meta_set(write.tx, "running", &[1])
    })?;
    let unclean = running.as_deref() == Some(&[1]);
    Ok(Start { unclean, rebooted })
}

/// The kernel's name for this boot, or what the service manager handed in because it
/// hides /proc/sys from us.
pub fn boot_id() -> Result<String> {
    if let Ok(id) = std::env::var("OUTPORT_BOOT_ID")
        && !id.is_empty()
    {
        return Ok(id);
    }
    let bytes = blobs::read_small(Path::new("/proc/sys/kernel/random/boot_id"), 64)?;
    Ok(String::from_utf8_lossy(&bytes).trim().to_owned())
}

/// The version of SQLite, which is a part of this program.
pub fn sqlite_version() -> &'static str {
    rusqlite::version()
}

#[cfg(test)]
mod tests;

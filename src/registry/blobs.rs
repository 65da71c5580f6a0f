//! Content-addressed files, and the uploads that grow into them.
//!
//! ```text
//! DATA/
//!   uploads/ID.USER.ALGORITHM.REPO   bytes that arrived; nobody's until they are committed
//!   uploads/import.ID                bytes that an archive brings, locked while they come
//!   blobs/sha256/HEX                 whole, synced, named by what it holds
//!   blobs/sha512/HEX
//!   quarantine/ALGORITHM-HEX         taken out of service, until a push heals it
//!   trash/ALGORITHM-HEX              without a row, on its way out
//! ```
//!
//! The order that makes an acknowledged push durable: the file's bytes are checked
//! ([`Growing::seal`]), it gets its name ([`Shelf::place`]), its bytes and the directory are
//! synced ([`Shelf::sync`]), the row is committed (db.rs), and then the client is answered.
//! A file without a row is invisible, so stopping anywhere leaves no wrong answer.

use bytes::Bytes;
use sha2::Digest as _;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::num::NonZeroU64;
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt, fchown, lchown};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::error::{Error, Kind, Result, Thing};
use crate::hash::Hash;
use crate::names::{Algorithm, Digest, RepoName, UploadId, hex};

/// How many bytes one checksum covers.
pub(super) const CHUNK_BYTES: usize = 64 << 10;
/// How many bytes are read, checked and handed on at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Piece {
    /// 256 KiB.
    Full,
    /// 64 KiB, the least that can be checked: for when memory is short.
    Small,
}

impl Piece {
    /// By whether there is memory for a full one.
    pub const fn of(has_memory: bool) -> Piece {
        if has_memory { Piece::Full } else { Piece::Small }
    }

    pub(super) const fn bytes(self) -> usize {
        match self {
            Piece::Full => 4 * CHUNK_BYTES,
            Piece::Small => CHUNK_BYTES,
        }
    }
}

/// Files of up to this many bytes are synced once they have their names: what they are made of,
/// their bytes and their names then are one commit of a journaling file system, which for
/// small files is most of what they cost. Larger ones are synced by whoever brings them, while
/// others commit.
const SYNCED_LATE_MAX: u64 = 4 << 20;

/// After so many bytes of an upload the kernel begins to write them: it would wait until a tenth of
/// the memory is to be written, and the client would wait for all of that at the end.
const BEGUN_EVERY: u64 = 8 << 20;

/// How files in `uploads/` begin that belong to an import.
const IMPORT: &str = "import.";

/// Full pieces whose memory is kept for the next: 2 MiB in all, given back every few minutes.
const SPARES_MAX: usize = 8;

/// Most slices one `writev` takes; Linux allows 1024.
const SLICES_MAX: usize = 256;

#[derive(Clone)]
pub(super) struct Blobs {
    root: PathBuf,
    spares: Arc<Spares>,
}

impl Blobs {
    /// Opens the tree below `root`, making what is missing, each directory durable.
    pub fn open(root: &Path) -> Result<Blobs> {
        let blobs = Blobs { root: root.to_owned(), spares: Arc::default() };
        for dir in [blobs.uploads(), blobs.quarantine(), blobs.trash()] {
            make_dir(&dir)?;
        }
        let device = std::fs::metadata(root)?.dev();
        for algorithm in Algorithm::ALL {
            let dir = blobs.dir(algorithm);
            make_dir(&dir)?;
            // A rename must be able to move an upload here.
            if std::fs::metadata(&dir)?.dev() != device {
                return Err(Kind::Internal
                    .because("blobs/ and uploads/ of the data directory must be on one file system"));
            }
        }
        Ok(blobs)
    }

    pub fn shelf(&self) -> Shelf {
        Shelf { blobs: self.clone(), placed: Vec::new(), late: Vec::new(), late_bytes: 0 }
    }

    fn uploads(&self) -> PathBuf {
        self.root.join("uploads")
    }

    fn quarantine(&self) -> PathBuf {
        self.root.join("quarantine")
    }

    fn quarantined(&self, digest: &Digest) -> PathBuf {
        self.quarantine().join(flat_name(digest))
    }

    fn trash(&self) -> PathBuf {
        self.root.join("trash")
    }

    /// Frees what a process that was stopped had thrown away and not yet removed.
    pub fn trash_empty(&self) -> Result<()> {
        for entry in std::fs::read_dir(self.trash())? {
            discard(&entry?.path());
        }
        Ok(())
    }

    fn dir(&self, algorithm: Algorithm) -> PathBuf {
        self.root.join("blobs").join(algorithm.name())
    }

    fn path(&self, digest: &Digest) -> PathBuf {
        self.dir(digest.algorithm()).join(digest.hex())
    }

    /// Gives back the memory that is kept for pulls.
    pub fn spares_clear(&self) {
        self.spares.list().clear();
    }

    /// Bytes an unprivileged process may still write, and the size of the file system.
    pub fn space(&self) -> Result<Space> {
        let stat = rustix::fs::statvfs(&self.root)?;
        Ok(Space {
            free_bytes: stat.f_bavail.saturating_mul(stat.f_frsize),
            total_bytes: stat.f_blocks.saturating_mul(stat.f_frsize),
        })
    }

    /// True if this process may write where uploads go. Writes nothing.
    pub fn is_writable(&self) -> bool {
        rustix::fs::access(self.uploads(), rustix::fs::Access::WRITE_OK).is_ok()
    }

    /// A new, empty upload. Not synced: it promises nothing yet.
    pub fn upload_new(&self, key: &UploadKey, algorithm: Algorithm) -> Result<Growing> {
        let path = self.uploads().join(key.file_name(algorithm));
        let file = create(&path)?;
        Ok(Growing::new(file, path, algorithm))
    }

    /// A file for a blob that an archive brings. Locked for as long as somebody writes it, which
    /// tells it from what a process left that was killed.
    pub fn import_new(&self, algorithm: Algorithm) -> Result<Growing> {
        let mut random = [0; 16];
        super::random(&mut random)?;
        let path = self.uploads().join(format!("{IMPORT}{}", hex(&random)));
        let dir = File::open(self.uploads())?;
        dir.lock_shared()?;
        let file = create(&path)?;
        file.lock()?;
        Ok(Growing::new(file, path, algorithm))
    }

    /// Removes what imports left that were killed.
    pub fn imports_clear(&self) -> Result<()> {
        let dir = File::open(self.uploads())?;
        // Nobody is between making a file and locking it.
        dir.lock()?;
        for entry in std::fs::read_dir(self.uploads())? {
            let entry = entry?;
            if entry.file_name().as_encoded_bytes().starts_with(IMPORT.as_bytes())
                && File::open(entry.path())?.try_lock().is_ok()
            {
                discard(&entry.path());
            }
        }
        Ok(())
    }

    /// A file for a blob that a backup brings.
    pub fn restore_new(&self, digest: &Digest) -> Result<Growing> {
        let path = self.uploads().join(format!("restore.{}", flat_name(digest)));
        // Of a restore that was stopped.
        discard(&path);
        let file = create(&path)?;
        Ok(Growing::new(file, path, digest.algorithm()))
    }

    /// Makes every name below `blobs/` durable.
    pub fn sync_names(&self) -> Result<()> {
        Algorithm::ALL.into_iter().try_for_each(|algorithm| sync_dir(&self.dir(algorithm)))
    }

    /// An upload that an earlier process of this boot began: found by its name, which
    /// holds whose it is, and hashed again.
    pub fn upload_reopen(&self, key: &UploadKey) -> Result<Growing> {
        for algorithm in Algorithm::ALL {
            let path = self.uploads().join(key.file_name(algorithm));
            match OpenOptions::new().read(true).append(true).open(&path) {
                Ok(file) => {
                    let mut growing = Growing::new(file, path, algorithm);
                    growing.rehash()?;
                    return Ok(growing);
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(Kind::NotFound(Thing::Upload).into())
    }

    /// Every upload file there is, with the user it belongs to. The directory is small:
    /// uploads are limited per user.
    pub fn uploads_left(&self) -> Result<Vec<UploadLeft>> {
        let mut left = Vec::new();
        for entry in std::fs::read_dir(self.uploads())? {
            let entry = entry?;
            let name = entry.file_name();
            let parts: Vec<&str> = name.to_str().unwrap_or_default().split('.').collect();
            let (id, user) = match parts[..] {
                [id, user, ..] => (UploadId::parse(id).ok(), user.parse().unwrap_or_default()),
                _ => (None, 0),
            };
            left.push(UploadLeft { id, user, path: entry.path() });
        }
        Ok(left)
    }

    /// Opens a blob's file for checked reading. `crcs` is its row's table of checksums.
    pub fn read(&self, digest: &Digest, bytes: u64, crcs: Vec<u8>) -> Result<BlobReader> {
        let rotten = |why: &'static str| Kind::NotFound(Thing::Blob).from_cause(why);
        let file = match open_quietly(&self.path(digest)) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(rotten("the blob's file is missing"));
            }
            Err(error) => return Err(error.into()),
        };
        BlobReader::new(file, digest, bytes, crcs, &self.spares)?
            .ok_or_else(|| rotten("the blob's file is not as long as its row says"))
    }

    /// The same, if the kernel knows the file without asking a disk: does not block. None if it
    /// does not, or if something is wrong, which is for [`Blobs::read`] to say.
    pub fn read_at_hand(&self, digest: &Digest, bytes: u64, crcs: Vec<u8>) -> Option<BlobReader> {
        use rustix::fs::{Mode, OFlags, ResolveFlags};
        let (path, flags) = (self.path(digest), OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOATIME);
        let file = rustix::fs::openat2(rustix::fs::CWD, path, flags, Mode::empty(), ResolveFlags::CACHED);
        BlobReader::new(file.ok()?.into(), digest, bytes, crcs, &self.spares).ok()?
    }

    /// Reads a blob's file whole and compares its digest. Fails with the inode that was
    /// read, if there was one, and what is wrong. What was read is dropped from the page
    /// cache, for nobody asked for it.
    pub fn verify(&self, digest: &Digest, bytes: u64) -> std::result::Result<(), (Option<u64>, io::Error)> {
        let file = open_quietly(&self.path(digest)).map_err(|error| (None, error))?;
        let inode = file.metadata().map_err(|error| (None, error))?.ino();
        let verify = || {
            let (mut hash, mut at) = (Hash::new(digest.algorithm()), 0);
            let mut buffer = vec![0; Piece::Full.bytes()];
            loop {
                match file.read_at(&mut buffer, at) {
                    Ok(0) => break,
                    Ok(read) => {
                        hash.update(&buffer[..read]);
                        at += read as u64;
                    }
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(error),
                }
            }
            // A hint, which a file system may not take.
            let _ = rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed);
            match at == bytes && hash.digest() == *digest {
                true => Ok(()),
                false => Err(io::Error::new(io::ErrorKind::InvalidData, "the file does not have its digest")),
            }
        };
        verify().map_err(|error| (Some(inode), error))
    }

    /// The size and the checksums of a blob's file, if it has its digest: what its row says.
    pub fn checksums(&self, digest: &Digest) -> Result<Option<(u64, Vec<u8>)>> {
        let path = self.path(digest);
        let mut growing = Growing::new(open_quietly(&path)?, path, digest.algorithm());
        growing.rehash()?;
        Ok((growing.hash.digest() == *digest).then(|| (growing.bytes, growing.crcs.finish())))
    }

    /// Whether a file of this length is at a blob's name: one system call.
    pub fn is_there(&self, digest: &Digest, bytes: u64) -> bool {
        std::fs::metadata(self.path(digest)).is_ok_and(|found| found.len() == bytes)
    }

    /// The inode now at a blob's name, if any.
    pub fn inode(&self, digest: &Digest) -> Option<u64> {
        std::fs::metadata(self.path(digest)).ok().map(|found| found.ino())
    }

    /// Names of the files of one algorithm, a bounded page at a time through the callback.
    pub fn walk(&self, algorithm: Algorithm, mut page: impl FnMut(Vec<Digest>) -> Result<()>) -> Result<()> {
        const PAGE: usize = 500;
        let mut digests = Vec::with_capacity(PAGE);
        for entry in std::fs::read_dir(self.dir(algorithm))? {
            let name = entry?.file_name();
            let text = format!("{}:{}", algorithm.name(), name.to_string_lossy());
            let Ok(digest) = Digest::parse(&text) else { continue };
            digests.push(digest);
            if digests.len() == PAGE {
                page(std::mem::take(&mut digests))?;
            }
        }
        page(digests)
    }
}

pub struct Space {
    pub free_bytes: u64,
    pub total_bytes: u64,
}

/// An upload's name and whose it is. The repository is in it by a hash, since names
/// may be longer than a file's.
pub(super) struct UploadKey {
    pub id: UploadId,
    pub user: i64,
    repo: String,
}

impl UploadKey {
    pub fn new(id: UploadId, user: i64, repo: &RepoName) -> UploadKey {
        let hash = sha2::Sha256::digest(repo.full().as_bytes());
        UploadKey { id, user, repo: hex(&hash[..8]) }
    }

    fn file_name(&self, algorithm: Algorithm) -> String {
        format!("{}.{}.{}.{}", self.id, self.user, algorithm.name(), self.repo)
    }

    pub fn is_for(&self, other: &UploadKey) -> bool {
        self.user == other.user && self.repo == other.repo
    }
}

/// A file found in `uploads/`.
pub(super) struct UploadLeft {
    /// None for a file that no upload of ours is called.
    pub id: Option<UploadId>,
    pub user: i64,
    pub path: PathBuf,
}

/// A digest as a file's name where both algorithms share a directory.
fn flat_name(digest: &Digest) -> String {
    format!("{}-{}", digest.algorithm().name(), digest.hex())
}

/// What only the committer may do: files get their names, and lose them, while it
/// holds the write lock.
pub(super) struct Shelf {
    blobs: Blobs,
    /// What got its name since the last commit.
    placed: Vec<Digest>,
    /// Those whose bytes are yet to be synced, and how many bytes.
    late: Vec<Arc<File>>,
    late_bytes: u64,
}

impl Shelf {
    /// Gives a sealed upload its name. Replaces what is there.
    pub fn place(&mut self, sealed: &mut Sealed) -> Result<()> {
        let Some(from) = sealed.path.clone() else { return Ok(()) };
        let to = self.blobs.path(&sealed.digest);
        // What is replaced may be good, and its row live: then these bytes must be durable first.
        if to.try_exists()? {
            sealed.sync()?;
        }
        std::fs::rename(from, to)?;
        sealed.path = None;
        self.placed.push(sealed.digest.clone());
        if !sealed.synced {
            self.late.push(Arc::clone(&sealed.file));
            self.late_bytes += sealed.bytes;
        }
        // What was wrong with it is of no more interest, and takes room.
        discard(&self.blobs.quarantined(&sealed.digest));
        Ok(())
    }

    /// Takes a bad file out of service, if it is still the one that was read.
    pub fn quarantine(&mut self, digest: &Digest, inode: u64) -> Result<()> {
        if self.blobs.inode(digest) == Some(inode) {
            std::fs::rename(self.blobs.path(digest), self.blobs.quarantined(digest))?;
        }
        Ok(())
    }

    /// Takes the name from a file that has no row. The path returned is the caller's to
    /// remove, outside the lock: freeing a large file takes a while.
    pub fn retire(&mut self, digest: &Digest) -> Result<Option<PathBuf>> {
        discard(&self.blobs.quarantined(digest));
        let trash = self.blobs.trash().join(flat_name(digest));
        match std::fs::rename(self.blobs.path(digest), &trash) {
            Ok(()) => Ok(Some(trash)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Makes durable what got its name since the last commit: one sync for each small file, and
    /// one for each directory.
    pub fn sync(&self) -> Result<()> {
        for file in &self.late {
            rustix::fs::fdatasync(file)?;
        }
        for algorithm in Algorithm::ALL {
            if self.placed.iter().any(|digest| digest.algorithm() == algorithm) {
                sync_dir(&self.blobs.dir(algorithm))?;
            }
        }
        Ok(())
    }

    /// How many bytes are yet to be synced.
    pub fn late_bytes(&self) -> u64 {
        self.late_bytes
    }

    /// What got its name since the last commit, which is over.
    pub fn take_placed(&mut self) -> Vec<Digest> {
        self.late.clear();
        self.late_bytes = 0;
        std::mem::take(&mut self.placed)
    }
}

/// Opens a file for reading without noting when it was read: a pull writes nothing.
fn open_quietly(path: &Path) -> io::Result<File> {
    match OpenOptions::new().read(true).custom_flags(libc::O_NOATIME).open(path) {
        // Only a file's owner may ask for that.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => File::open(path),
        opened => opened,
    }
}

/// Whether a data directory holds a blob, whatever its database says.
pub fn any(dir: &Path) -> Result<bool> {
    for algorithm in Algorithm::ALL {
        match std::fs::read_dir(dir.join("blobs").join(algorithm.name())) {
            Ok(mut entries) => {
                if entries.next().transpose()?.is_some() {
                    return Ok(true);
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(false)
}

/// Makes a directory and every missing one above it, each durable in its parent.
pub(super) fn make_dir(dir: &Path) -> Result<()> {
    let parent = match dir.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
        Some(parent) => parent,
        None => return Ok(()),
    };
    if dir.is_dir() {
        // Whoever made it may have been killed before its name was durable.
        return match File::open(parent) {
            // Then it was not one of us: we could not have made anything there.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(()),
            opened => Ok(opened?.sync_all()?),
        };
    }
    make_dir(parent)?;
    match DirBuilder::new().mode(0o700).create(dir) {
        Ok(()) => {
            if let Some((uid, gid)) = heir(dir) {
                let _ = lchown(dir, Some(uid), Some(gid));
            }
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(error.into()),
    }
    sync_dir(dir)?;
    sync_dir(parent)
}

/// Makes a file that nobody else reads, to append to; it must not be there.
pub(super) fn create(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new().read(true).append(true).create_new(true).mode(0o600).open(path)?;
    give(&file, path);
    Ok(file)
}

/// Opens a file as `options` say, which must write or append. One that is not there is made, for
/// nobody else to read.
pub(super) fn open_or_make(options: &OpenOptions, path: &Path) -> io::Result<File> {
    match options.clone().create_new(true).mode(0o600).open(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            options.clone().create(true).mode(0o600).open(path)
        }
        made => {
            let file = made?;
            give(&file, path);
            Ok(file)
        }
    }
}

/// A file that was just made belongs to whom its directory belongs: the server is seldom root, and
/// could not read what root imports. Only for a file that was not there: who has the directory
/// could have put a link to another there.
pub(super) fn give(file: &File, path: &Path) {
    if let Some((uid, gid)) = heir(path) {
        // Root without this right is confined, and whatever it serves it serves itself.
        let _ = fchown(file, Some(uid), Some(gid));
    }
}

/// To whom root gives what it makes: user and group.
fn heir(path: &Path) -> Option<(u32, u32)> {
    if !rustix::process::geteuid().is_root() {
        return None;
    }
    let dir = std::fs::metadata(path.parent()?).ok()?;
    (dir.uid() != 0).then(|| (dir.uid(), dir.gid()))
}

pub(super) fn sync_dir(dir: &Path) -> Result<()> {
    Ok(File::open(dir)?.sync_all()?)
}

/// Writes a file's bytes over themselves, if there is such a file, and syncs them.
pub(super) fn write_again(path: &Path) -> Result<()> {
    let file = match OpenOptions::new().read(true).write(true).open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        opened => opened?,
    };
    let (mut buffer, mut at) = (vec![0; Piece::Full.bytes()], 0);
    loop {
        match file.read_at(&mut buffer, at) {
            Ok(0) if at == 0 => return Ok(()),
            Ok(0) => return Ok(rustix::fs::fdatasync(&file)?),
            Ok(read) => {
                file.write_all_at(&buffer[..read], at)?;
                at += read as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// CRC32C of each 64 KiB of a stream.
#[derive(Default)]
struct Crcs {
    table: Vec<u8>,
    current: u32,
    filled: usize,
}

impl Crcs {
    fn update(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(bytes.len().min(CHUNK_BYTES - self.filled));
            self.current = crc32c::crc32c_append(self.current, now);
            self.filled += now.len();
            if self.filled == CHUNK_BYTES {
                self.close_chunk();
            }
            bytes = later;
        }
    }

    fn close_chunk(&mut self) {
        self.table.extend_from_slice(&self.current.to_le_bytes());
        (self.current, self.filled) = (0, 0);
    }

    fn finish(mut self) -> Vec<u8> {
        if self.filled > 0 {
            self.close_chunk();
        }
        self.table
    }
}

/// An upload's file and what is known of its bytes so far.
pub(super) struct Growing {
    file: File,
    path: PathBuf,
    algorithm: Algorithm,
    hash: Hash,
    crcs: Crcs,
    bytes: u64,
    /// How many of them the kernel was told to begin with.
    begun: u64,
}

impl Growing {
    fn new(file: File, path: PathBuf, algorithm: Algorithm) -> Growing {
        Growing {
            file,
            path,
            algorithm,
            hash: Hash::new(algorithm),
            crcs: Crcs::default(),
            bytes: 0,
            begun: 0,
        }
    }

    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Appends. After an error the file is of no more use: its end is unknown.
    pub fn write(&mut self, frames: &[Bytes]) -> io::Result<()> {
        for frames in frames.chunks(SLICES_MAX) {
            let mut slices: Vec<IoSlice> = frames.iter().map(|frame| IoSlice::new(frame)).collect();
            let mut slices = &mut slices[..];
            // Drops slices that are empty, which would look like a full disk below.
            IoSlice::advance_slices(&mut slices, 0);
            while !slices.is_empty() {
                match self.file.write_vectored(slices) {
                    Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                    Ok(written) => IoSlice::advance_slices(&mut slices, written),
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(error),
                }
            }
            for frame in frames {
                self.note(frame);
            }
        }
        if self.bytes.saturating_sub(self.begun) >= BEGUN_EVERY {
            self.begin();
        }
        Ok(())
    }

    /// Has the kernel begin to write what is new. A hint, for which nobody waits.
    fn begin(&mut self) {
        // Fewer than were begun with after a file could not be read again.
        let new = NonZeroU64::new(self.bytes.saturating_sub(self.begun));
        let _ = rustix::fs::fadvise(&self.file, self.begun, new, rustix::fs::Advice::DontNeed);
        self.begun = self.bytes;
    }

    fn note(&mut self, bytes: &[u8]) {
        self.hash.update(bytes);
        self.crcs.update(bytes);
        self.bytes += bytes.len() as u64;
    }

    /// Reads the file from its start and computes everything anew.
    fn rehash(&mut self) -> Result<()> {
        self.hash = Hash::new(self.algorithm);
        (self.crcs, self.bytes) = (Crcs::default(), 0);
        let mut buffer = vec![0; Piece::Full.bytes()];
        loop {
            match self.file.read_at(&mut buffer, self.bytes) {
                Ok(0) => return Ok(()),
                Ok(read) => self.note(&buffer[..read]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Settles which algorithm the digest will be of. Free while the upload is empty;
    /// later the file is read once more.
    pub fn expect(&mut self, algorithm: Algorithm) -> Result<()> {
        if self.algorithm == algorithm {
            return Ok(());
        }
        self.algorithm = algorithm;
        self.rehash()
    }

    /// Checks the digest; the file is then ready for the shelf.
    ///
    /// Fails with `DigestMismatch`, or with the disk's error. The file is gone after any
    /// failure.
    pub fn seal(mut self, digest: &Digest) -> Result<Sealed> {
        let outcome = self.expect(digest.algorithm()).and_then(|()| match self.hash.digest() == *digest {
            true => Ok(()),
            false => Err(Error::from(Kind::DigestMismatch)),
        });
        match outcome {
            Ok(()) => self.seal_as(digest.clone()),
            Err(error) => {
                self.discard();
                Err(error)
            }
        }
    }

    /// The digest of all that was written, once: then it is [`Growing::seal_as`]'s turn.
    pub fn digest(&mut self) -> Digest {
        self.hash.digest()
    }

    /// Closes the file under a digest that was checked or computed. Large ones are synced here.
    pub fn seal_as(mut self, digest: Digest) -> Result<Sealed> {
        if self.bytes <= SYNCED_LATE_MAX {
            // The committer need not wait as long.
            self.begin();
        }
        let (bytes, crcs) = (self.bytes, self.crcs.finish());
        let mut sealed =
            Sealed { path: Some(self.path), digest, bytes, crcs, file: Arc::new(self.file), synced: false };
        if bytes > SYNCED_LATE_MAX {
            sealed.sync()?;
        }
        Ok(sealed)
    }

    /// Removes the file.
    pub fn discard(self) {
        discard(&self.path);
    }
}

/// An upload whose bytes are checked. If it never gets its name, its file goes with it.
pub(super) struct Sealed {
    /// None once it is on the shelf.
    path: Option<PathBuf>,
    pub digest: Digest,
    pub bytes: u64,
    pub crcs: Vec<u8>,
    /// Open, because an import's file is locked until it has its name.
    file: Arc<File>,
    /// Whether its bytes are on the disk.
    synced: bool,
}

impl Sealed {
    /// Makes the bytes durable. A sync that failed is never tried again on the same file, for
    /// the kernel forgets what it could not write.
    pub fn sync(&mut self) -> Result<()> {
        if !self.synced {
            rustix::fs::fdatasync(&self.file)?;
            self.synced = true;
        }
        Ok(())
    }
}

impl Drop for Sealed {
    fn drop(&mut self) {
        if let Some(path) = &self.path {
            discard(path);
        }
    }
}

/// Removes an upload's file. One that cannot be removed now goes with the leftovers.
pub(super) fn discard(path: &Path) {
    if let Err(error) = std::fs::remove_file(path)
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!(%error, "an upload's file could not be removed");
    }
}

/// An open blob whose every byte is checked before it is handed out. It stays
/// readable when the blob is deleted meanwhile.
pub struct BlobReader {
    file: File,
    inode: u64,
    bytes: u64,
    crcs: Vec<u8>,
    digest: Digest,
    spares: Arc<Spares>,
}

/// Memory for full pieces, used again: to have it made by the kernel takes longer than to read a
/// piece. Of a smaller one the memory is its own.
#[derive(Default)]
struct Spares(Mutex<Vec<Vec<u8>>>);

impl Spares {
    fn list(&self) -> MutexGuard<'_, Vec<Vec<u8>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lend(self: &Arc<Spares>, len: usize) -> Lent {
        let kept = if len > CHUNK_BYTES { self.list().pop() } else { None };
        let bytes =
            kept.unwrap_or_else(|| vec![0; if len > CHUNK_BYTES { Piece::Full.bytes() } else { len }]);
        Lent { bytes, spares: self.clone() }
    }
}

/// The memory of a piece of a blob. It goes back where it came from.
struct Lent {
    bytes: Vec<u8>,
    spares: Arc<Spares>,
}

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        let mut list = self.spares.list();
        if self.bytes.len() == Piece::Full.bytes() && list.len() < SPARES_MAX {
            list.push(std::mem::take(&mut self.bytes));
        }
    }
}

impl BlobReader {
    /// None if the file is not as long as its row says.
    fn new(
        file: File,
        digest: &Digest,
        bytes: u64,
        crcs: Vec<u8>,
        spares: &Arc<Spares>,
    ) -> io::Result<Option<BlobReader>> {
        let found = file.metadata()?;
        let chunks = bytes.div_ceil(CHUNK_BYTES as u64);
        if found.len() != bytes || crcs.len() as u64 != 4 * chunks {
            return Ok(None);
        }
        let (inode, digest, spares) = (found.ino(), digest.clone(), spares.clone());
        Ok(Some(BlobReader { file, inode, bytes, crcs, digest, spares }))
    }

    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    pub fn digest(&self) -> &Digest {
        &self.digest
    }

    pub(super) fn inode(&self) -> u64 {
        self.inode
    }

    /// The bytes from `at`, at most up to `end`, at most a piece: whole 64 KiB chunks are
    /// read and checked, and what was asked for is cut out of them.
    ///
    /// Fails if the file is shorter than its row says, if a checksum differs, or if the
    /// disk says so. Blocks.
    pub fn piece(&self, at: u64, end: u64, size: Piece) -> io::Result<Bytes> {
        self.read_piece(at, end, size, FileExt::read_exact_at)
    }

    /// The same, if the kernel has the bytes in memory: does not block. None if it has not, or
    /// if they are not right, which is for [`BlobReader::piece`] to say.
    pub fn piece_at_hand(&self, at: u64, end: u64, size: Piece) -> Option<Bytes> {
        let read = |file: &File, buffer: &mut [u8], from| {
            let wanted = buffer.len();
            let into = &mut [IoSliceMut::new(buffer)];
            match rustix::io::preadv2(file, into, from, rustix::io::ReadWriteFlags::NOWAIT)? == wanted {
                true => Ok(()),
                false => Err(io::ErrorKind::WouldBlock.into()),
            }
        };
        self.read_piece(at, end, size, read).ok()
    }

    fn read_piece(
        &self,
        at: u64,
        end: u64,
        size: Piece,
        read: impl FnOnce(&File, &mut [u8], u64) -> io::Result<()>,
    ) -> io::Result<Bytes> {
        debug_assert!(at < end && end <= self.bytes);
        let chunk = CHUNK_BYTES as u64;
        let first = at / chunk;
        let from = first * chunk;
        let to = (from + size.bytes() as u64).min(end.next_multiple_of(chunk)).min(self.bytes);
        let len = usize::try_from(to - from).unwrap_or(size.bytes());
        let mut lent = self.spares.lend(len);
        let buffer = &mut lent.bytes[..len];
        read(&self.file, buffer, from)?;
        let first = usize::try_from(first).map_err(io::Error::other)?;
        for (chunk, expected) in buffer.chunks(CHUNK_BYTES).zip(self.crcs[4 * first..].chunks_exact(4)) {
            if crc32c::crc32c(chunk).to_le_bytes() != expected {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "checksum mismatch"));
            }
        }
        let until = end.min(to) - from;
        let cut = |at: u64| usize::try_from(at).unwrap_or(len);
        Ok(Bytes::from_owner(lent).slice(cut(at - from)..cut(until)))
    }
}

/// Reads a small file of the data directory, at most `max` bytes.
pub(super) fn read_small(path: &Path, max: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(max).read_to_end(&mut bytes)?;
    Ok(bytes)
}

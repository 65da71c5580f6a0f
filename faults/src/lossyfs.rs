//! A FUSE file system in memory that writes down everything that is done to it, and
//! fails when it is told to.

use fuser::{
    BackgroundSession, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation,
    INodeNo, KernelConfig, LockOwner, MountOption, OpenAccMode, OpenFlags, RenameFlags, ReplyAttr,
    ReplyCreate, ReplyData, ReplyDirectory, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyStatfs, ReplyWrite,
    Request, TimeOrNow, WriteFlags,
};
use std::ffi::OsStr;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::disk::{Disk, Ino, Op, ROOT};

/// Threads that answer the kernel. Each keeps a buffer of 16 MiB that is hardly touched.
const THREADS: usize = 2;
/// Longest write that comes in one piece.
const WRITE_MAX: u32 = 64 << 10;
const BLOCK: u32 = 4096;
/// The size of a disk that has room.
const ROOMY_BYTES: u64 = 64 << 30;
/// Nobody but the kernel changes anything, so it may believe what it knows.
const TTL: Duration = Duration::from_secs(86_400);
/// `fallocate` without growing the file.
const KEEP_SIZE: i32 = 1;

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Harm {
    /// ENOSPC, where room is taken: deleting and reading go on.
    Full,
    /// EIO, reading included. What was not synced when a sync fails is lost.
    Broken,
    /// A write takes half of what it was given, and says so.
    Short,
    /// Nothing happens any more, until the process that asks has been killed.
    Dead,
}

/// Harm to one operation, or to all from that one on.
#[derive(Debug, Clone, Copy)]
pub struct Fault {
    pub harm: Harm,
    /// How many operations that it could hit go well before.
    pub after: u64,
    pub once: bool,
}

/// Kinds of operations, as far as harm differs.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Act {
    /// Open, read, list.
    Look,
    Write,
    /// Make, link, rename, truncate, allocate.
    Grow,
    Remove,
    Sync,
}

impl Harm {
    fn hits(self, act: Act) -> bool {
        match self {
            Harm::Full => matches!(act, Act::Write | Act::Grow | Act::Sync),
            Harm::Broken => true,
            Harm::Short => act == Act::Write,
            Harm::Dead => act != Act::Look,
        }
    }
}

struct Inner {
    disk: Disk,
    log: Vec<Op>,
    next: Ino,
    fault: Option<Fault>,
    /// Operations the fault could have hit, and did hit.
    seen: u64,
    hit: u64,
    /// None: room for everything.
    capacity: Option<u64>,
}

/// The file system's state, in the hands of the kernel and of a test.
#[derive(Clone)]
pub struct Lossy(Arc<Mutex<Inner>>);

/// A mounted file system; unmounted when it is dropped.
pub struct Mounted(Option<BackgroundSession>);

impl Drop for Mounted {
    fn drop(&mut self) {
        if let Some(session) = self.0.take()
            && let Err(error) = session.umount_and_join()
        {
            eprintln!("the file system could not be unmounted: {error}");
        }
    }
}

impl Lossy {
    /// A file system that holds what a disk does.
    pub fn new(disk: Disk) -> Lossy {
        let next = disk.next_ino();
        Lossy(Arc::new(Mutex::new(Inner {
            disk,
            log: Vec::new(),
            next,
            fault: None,
            seen: 0,
            hit: 0,
            capacity: None,
        })))
    }

    /// Mounts it. Needs root, or the right to mount FUSE file systems.
    pub fn mount(&self, at: &Path) -> io::Result<Mounted> {
        let mut config = Config::default();
        config.mount_options = vec![MountOption::FSName("lossyfs".into()), MountOption::NoAtime];
        config.n_threads = Some(THREADS);
        Ok(Mounted(Some(fuser::spawn_mount(self.clone(), at, &config)?)))
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many operations were written down so far.
    pub fn ops(&self) -> usize {
        self.inner().log.len()
    }

    /// The disk as it is.
    pub fn disk(&self) -> Disk {
        self.inner().disk.clone()
    }

    /// The operations since the last call, and forgets them.
    pub fn take_log(&self) -> Vec<Op> {
        std::mem::take(&mut self.inner().log)
    }

    /// Makes everything durable, as time would.
    pub fn sync_all(&self) {
        self.inner().apply(Op::SyncAll);
    }

    /// Prepares harm; operations count from here.
    pub fn arm(&self, fault: Fault) {
        let mut inner = self.inner();
        (inner.fault, inner.seen, inner.hit) = (Some(fault), 0, 0);
    }

    /// Lifts the harm. Returns how many operations it hit.
    pub fn disarm(&self) -> u64 {
        let mut inner = self.inner();
        inner.fault = None;
        inner.hit
    }

    /// Leaves so many bytes free; None: as many as anybody wants.
    pub fn leave_free(&self, bytes: Option<u64>) {
        let mut inner = self.inner();
        let used = inner.disk.used();
        inner.capacity = bytes.map(|free| used + free);
    }
}

/// What becomes of an operation.
enum Verdict {
    Good,
    Half,
}

impl Inner {
    fn apply(&mut self, op: Op) {
        self.disk.apply(&op);
        self.log.push(op);
    }

    fn judge(&mut self, act: Act) -> Result<Verdict, Errno> {
        let Some(fault) = self.fault.filter(|fault| fault.harm.hits(act)) else { return Ok(Verdict::Good) };
        let n = self.seen;
        self.seen += 1;
        if n < fault.after || (n > fault.after && fault.once) {
            return Ok(Verdict::Good);
        }
        self.hit += 1;
        match fault.harm {
            Harm::Full => Err(Errno::ENOSPC),
            Harm::Broken | Harm::Dead => Err(Errno::EIO),
            Harm::Short => Ok(Verdict::Half),
        }
    }

    /// Fails where a file would grow beyond what is free.
    fn check_room(&self, ino: Ino, len: usize) -> Result<(), Errno> {
        let Some(capacity) = self.capacity else { return Ok(()) };
        let now = self.disk.content(ino).map_or(0, |content| content.len());
        let blocks = |len: usize| len.next_multiple_of(BLOCK as usize) as u64;
        let more = blocks(len).saturating_sub(blocks(now));
        if more > 0 && self.disk.used() + more > capacity { Err(Errno::ENOSPC) } else { Ok(()) }
    }

    fn attr(&self, ino: Ino) -> Result<FileAttr, Errno> {
        let (kind, size) = match self.disk.content(ino) {
            Some(content) => (FileType::RegularFile, content.len() as u64),
            None if self.disk.is_dir(ino) => (FileType::Directory, u64::from(BLOCK)),
            None => return Err(Errno::ENOENT),
        };
        Ok(FileAttr {
            ino: INodeNo(ino),
            size,
            blocks: size.div_ceil(512),
            atime: UNIX_EPOCH,
            mtime: UNIX_EPOCH,
            ctime: UNIX_EPOCH,
            crtime: UNIX_EPOCH,
            kind,
            perm: if kind == FileType::Directory { 0o700 } else { 0o600 },
            nlink: self.disk.links(ino),
            uid: 0,
            gid: 0,
            rdev: 0,
            blksize: BLOCK,
            flags: 0,
        })
    }

    fn find(&self, dir: INodeNo, name: &OsStr) -> Result<Ino, Errno> {
        self.disk.find(dir.0, text(name)?).ok_or(Errno::ENOENT)
    }

    fn make(&mut self, dir: INodeNo, name: &OsStr, is_dir: bool) -> Result<FileAttr, Errno> {
        let name = text(name)?.to_owned();
        self.judge(Act::Grow)?;
        if self.disk.find(dir.0, &name).is_some() {
            return Err(Errno::EEXIST);
        }
        let ino = self.next;
        self.next += 1;
        self.apply(Op::Make { ino, dir: dir.0, name, is_dir });
        self.attr(ino)
    }

    fn resize(&mut self, ino: Ino, len: u64, op: fn(Ino, usize) -> Op) -> Result<(), Errno> {
        let len = offset(len)?;
        self.judge(Act::Grow)?;
        self.check_room(ino, len)?;
        self.apply(op(ino, len));
        Ok(())
    }

    fn write(&mut self, ino: Ino, at: u64, bytes: &[u8], mapped: bool) -> Result<usize, Errno> {
        let at = offset(at)?;
        // Nobody could be told that a page was not written back.
        let verdict = if mapped { Verdict::Good } else { self.judge(Act::Write)? };
        self.check_room(ino, at + bytes.len())?;
        let len = match verdict {
            Verdict::Good => bytes.len(),
            Verdict::Half => bytes.len().div_ceil(2),
        };
        self.apply(Op::Write { ino, at, bytes: bytes[..len].into(), mapped });
        Ok(len)
    }

    fn remove(&mut self, dir: INodeNo, name: &OsStr) -> Result<(), Errno> {
        let ino = self.find(dir, name)?;
        self.judge(Act::Remove)?;
        if self.disk.names(ino).is_some_and(|names| !names.is_empty()) {
            return Err(Errno::ENOTEMPTY);
        }
        self.apply(Op::Remove { dir: dir.0, name: text(name)?.to_owned() });
        Ok(())
    }

    fn rename(
        &mut self,
        (from, name): (INodeNo, &OsStr),
        (to, new): (INodeNo, &OsStr),
        flags: RenameFlags,
    ) -> Result<(), Errno> {
        let ino = self.find(from, name)?;
        let replaced = self.disk.find(to.0, text(new)?);
        if flags.contains(RenameFlags::RENAME_NOREPLACE) && replaced.is_some() {
            return Err(Errno::EEXIST);
        }
        if flags.intersects(RenameFlags::RENAME_EXCHANGE | RenameFlags::RENAME_WHITEOUT) {
            return Err(Errno::EINVAL);
        }
        self.judge(Act::Grow)?;
        if replaced.and_then(|ino| self.disk.names(ino)).is_some_and(|names| !names.is_empty()) {
            return Err(Errno::ENOTEMPTY);
        }
        if replaced != Some(ino) {
            let op = Op::Rename { from: (from.0, text(name)?.into()), to: (to.0, text(new)?.into()) };
            self.apply(op);
        }
        Ok(())
    }

    fn sync(&mut self, ino: Ino) -> Result<(), Errno> {
        let verdict = self.judge(Act::Sync);
        match (&verdict, self.fault.map(|fault| fault.harm)) {
            (Ok(_), _) => self.apply(Op::Sync { ino }),
            (Err(_), Some(Harm::Dead)) => {}
            (Err(_), _) => self.apply(Op::SyncFailed { ino }),
        }
        verdict.map(|_| ())
    }
}

fn text(name: &OsStr) -> Result<&str, Errno> {
    name.to_str().ok_or(Errno::EINVAL)
}

fn offset(at: u64) -> Result<usize, Errno> {
    usize::try_from(at).map_err(|_| Errno::EFBIG)
}

/// Answers with nothing, or with an error.
fn settle(outcome: Result<(), Errno>, reply: ReplyEmpty) {
    match outcome {
        Ok(()) => reply.ok(),
        Err(errno) => reply.error(errno),
    }
}

fn enter(outcome: Result<FileAttr, Errno>, reply: ReplyEntry) {
    match outcome {
        Ok(attr) => reply.entry(&TTL, &attr, Generation(0)),
        Err(errno) => reply.error(errno),
    }
}

impl Filesystem for Lossy {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> io::Result<()> {
        config.set_max_write(WRITE_MAX).map_err(|_| io::ErrorKind::Unsupported)?;
        Ok(())
    }

    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let inner = self.inner();
        enter(inner.find(parent, name).and_then(|ino| inner.attr(ino)), reply);
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        match self.inner().attr(ino.0) {
            Ok(attr) => reply.attr(&TTL, &attr),
            Err(errno) => reply.error(errno),
        }
    }

    fn setattr(
        &self,
        _: &Request,
        ino: INodeNo,
        _: Option<u32>,
        _: Option<u32>,
        _: Option<u32>,
        size: Option<u64>,
        _: Option<TimeOrNow>,
        _: Option<TimeOrNow>,
        _: Option<SystemTime>,
        _: Option<FileHandle>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<fuser::BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let mut inner = self.inner();
        let truncate = |ino, len| Op::Truncate { ino, len };
        let outcome = size.map_or(Ok(()), |len| inner.resize(ino.0, len, truncate));
        match outcome.and_then(|()| inner.attr(ino.0)) {
            Ok(attr) => reply.attr(&TTL, &attr),
            Err(errno) => reply.error(errno),
        }
    }

    fn mkdir(&self, _: &Request, parent: INodeNo, name: &OsStr, _: u32, _: u32, reply: ReplyEntry) {
        enter(self.inner().make(parent, name, true), reply);
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        settle(self.inner().remove(parent, name), reply);
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        settle(self.inner().remove(parent, name), reply);
    }

    fn rename(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        newparent: INodeNo,
        newname: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        settle(self.inner().rename((parent, name), (newparent, newname), flags), reply);
    }

    fn link(&self, _: &Request, ino: INodeNo, newparent: INodeNo, newname: &OsStr, reply: ReplyEntry) {
        let mut inner = self.inner();
        let outcome = text(newname).and_then(|name| {
            inner.judge(Act::Grow)?;
            if inner.disk.find(newparent.0, name).is_some() {
                return Err(Errno::EEXIST);
            }
            inner.apply(Op::Link { ino: ino.0, dir: newparent.0, name: name.into() });
            inner.attr(ino.0)
        });
        enter(outcome, reply);
    }

    fn open(&self, _: &Request, _: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        // A file opened for reading is read from here, so that reading can fail.
        let reads = flags.acc_mode() == OpenAccMode::O_RDONLY;
        match self.inner().judge(Act::Look) {
            Ok(_) if reads => reply.opened(FileHandle(0), FopenFlags::empty()),
            Ok(_) => reply.opened(FileHandle(0), FopenFlags::FOPEN_KEEP_CACHE),
            Err(errno) => reply.error(errno),
        }
    }

    fn read(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        at: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let mut inner = self.inner();
        match inner.judge(Act::Look).and_then(|_| offset(at)) {
            Ok(at) => {
                let content = inner.disk.content(ino.0).cloned().unwrap_or_default();
                drop(inner);
                let end = content.len().min(at + size as usize);
                reply.data(content.get(at..end).unwrap_or_default());
            }
            Err(errno) => reply.error(errno),
        }
    }

    fn write(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        at: u64,
        bytes: &[u8],
        flags: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let mapped = flags.contains(WriteFlags::FUSE_WRITE_CACHE);
        match self.inner().write(ino.0, at, bytes, mapped) {
            Ok(written) => reply.written(u32::try_from(written).unwrap_or(u32::MAX)),
            Err(errno) => reply.error(errno),
        }
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }

    fn fsync(&self, _: &Request, ino: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        settle(self.inner().sync(ino.0), reply);
    }

    fn fsyncdir(&self, _: &Request, ino: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        settle(self.inner().sync(ino.0), reply);
    }

    fn readdir(&self, _: &Request, ino: INodeNo, _: FileHandle, skip: u64, mut reply: ReplyDirectory) {
        let mut inner = self.inner();
        if let Err(errno) = inner.judge(Act::Look) {
            return reply.error(errno);
        }
        let own = [(".".to_owned(), ino.0), ("..".to_owned(), ROOT)];
        let names = inner.disk.names(ino.0).cloned().unwrap_or_default();
        for (n, (name, ino)) in (1u64..).zip(own.into_iter().chain(names)) {
            let kind = if inner.disk.is_dir(ino) { FileType::Directory } else { FileType::RegularFile };
            if n > skip && reply.add(INodeNo(ino), n, kind, name) {
                break;
            }
        }
        reply.ok();
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        let inner = self.inner();
        let used = inner.disk.used();
        let total = inner.capacity.unwrap_or(ROOMY_BYTES);
        let (blocks, free) = (total / u64::from(BLOCK), total.saturating_sub(used) / u64::from(BLOCK));
        reply.statfs(blocks, free, free, 1 << 20, 1 << 20, BLOCK, 255, BLOCK);
    }

    fn create(&self, _: &Request, parent: INodeNo, name: &OsStr, _: u32, _: u32, _: i32, reply: ReplyCreate) {
        match self.inner().make(parent, name, false) {
            Ok(attr) => {
                let flags = FopenFlags::FOPEN_KEEP_CACHE;
                reply.created(&TTL, &attr, Generation(0), FileHandle(0), flags);
            }
            Err(errno) => reply.error(errno),
        }
    }

    fn fallocate(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        at: u64,
        len: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        let mut inner = self.inner();
        let now = inner.disk.content(ino.0).map_or(0, |content| content.len() as u64);
        settle(
            match mode {
                0 => inner.resize(ino.0, now.max(at + len), |ino, len| Op::Allocate { ino, len }),
                // Room beyond the end of a file is not modelled.
                KEEP_SIZE if at + len <= now => Ok(()),
                _ => Err(Errno::EOPNOTSUPP),
            },
            reply,
        );
    }
}

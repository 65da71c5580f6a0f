//! SQLite's files with a checksum in every page: what a disk has changed is found when it is read.
//!
//! SQLite reaches files through a table of functions, its VFS. Ours is SQLite's own for
//! Unix, with a function of ours before some of its own, for two kinds of file.
//!
//! The database: eight bytes at the end of each page, which SQLite leaves alone, hold the
//! page's number and a CRC32C of all before them. They are made when a page is written and
//! looked at whenever one is read.
//!
//! The log (`registry.db-wal`): SQLite writes a checksum with every frame, and looks at it
//! only after a crash. Here it is looked at whenever a page is read from the log, by readers
//! and when the log is copied into the database, so that no damage gets a good checksum there.
//!
//! A page that is wrong is SQLITE_IOERR_DATA, never other rows. What no checksum tells: a
//! whole page as it was some time ago (a write the disk has lost), and damage to memory, which
//! the index of the log (`registry.db-shm`) is; it is made anew when nobody has it open.
//!
//! After a crash SQLite reads the log up to the first frame that is wrong. If that cuts off what was
//! acknowledged, the log says so.
//!
//! Whoever writes to the database without this VFS leaves pages whose checksums are wrong.

#![expect(unsafe_code, reason = "SQLite is given functions, and calls them with pointers")]

use rusqlite::ffi;
use rusqlite::{Connection, OpenFlags};
use std::ffi::{CStr, c_char, c_int, c_void};
use std::ops::Range;
use std::path::Path;
use std::sync::OnceLock;

use crate::error::{Kind, Result};

/// What SQLite knows this VFS by.
const NAME: &CStr = c"outport";

/// Bytes of a page. Fixed when a database is made.
const PAGE: usize = 4096;
/// Bytes at the end of a page that SQLite leaves to us …
const ROOM: u8 = 8;
/// … for the page's number, little-endian, …
const NUMBER_AT: usize = PAGE - ROOM as usize;
/// … and the CRC32C of all before it, little-endian.
const SUM_AT: usize = NUMBER_AT + 4;
/// Where the first page says how much room SQLite leaves (sqlite.org/fileformat2.html#database_header).
const ROOM_AT: usize = 20;
/// No page is smaller: what SQLite reads with less are fields of the header, which it
/// believes only after it has read them again with the first page.
const PAGE_MIN: usize = 512;
/// The page where SQLite keeps its locks. It is never written.
const LOCK_PAGE: u32 = 0x4000_0000 / 4096 + 1;

/// The log: a head, then frames of a head and a page each (sqlite.org/fileformat2.html#walformat).
const LOG_HEAD: usize = 32;
const FRAME_HEAD: usize = 24;
const FRAME: usize = FRAME_HEAD + PAGE;
/// In a frame's head: pages of the database after this commit, or 0 if it does not end one.
const COMMIT: Range<usize> = 4..8;
/// In a frame's head: the salts of the log's head.
const SALTS: Range<usize> = 8..16;
/// In a frame's head: its checksum, which goes on from the last frame's.
const FRAME_SUM: Range<usize> = 16..24;
/// In the log's head.
const LOG_SALTS: Range<usize> = 16..24;
const LOG_SUM: Range<usize> = 24..32;

/// A disk was too full to sync what it had taken: file systems find room as late as that. Like any
/// sync that fails it leaves nobody sure of what the disk holds, so it is told from SQLITE_FULL,
/// after which all is as it was.
pub(super) const FULL_SYNC: c_int = ffi::SQLITE_FULL | 1 << 8;

/// The lock for reading whose holders find all there is in the database, none of it in the log
/// (sqlite.org/walformat.html#wal_locks: WAL_READ_LOCK(0)).
const READ_LOCK_0: c_int = 3;

/// Opens a connection that checks what it reads.
pub(super) fn open(path: &Path, flags: OpenFlags) -> Result<Connection> {
    static REGISTERED: OnceLock<c_int> = OnceLock::new();
    checked(*REGISTERED.get_or_init(register))?;
    Ok(Connection::open_with_flags_and_vfs(path, flags, NAME)?)
}

/// Leaves room for checksums: in a new database from now on, in an older one from the next VACUUM.
pub(super) fn make_room(connection: &Connection) -> Result<()> {
    let mut bytes = c_int::from(ROOM);
    // SAFETY: the connection is open, and SQLite reads and writes one integer.
    checked(unsafe {
        ffi::sqlite3_file_control(
            connection.handle(),
            c"main".as_ptr(),
            ffi::SQLITE_FCNTL_RESERVE_BYTES,
            (&raw mut bytes).cast(),
        )
    })
}

/// False for a database that was made before its pages had checksums.
pub(super) fn has_checksums(connection: &Connection) -> Result<bool> {
    with_database(connection, |database, _| database.has_checksums)
}

/// Those of some pages that are wrong, read anew from the file; none while the log holds newer
/// ones. To be called in a transaction, which keeps everybody from writing to the file.
pub(super) fn wrong_pages(connection: &Connection, pages: Range<u32>) -> Result<Option<Vec<u32>>> {
    with_database(connection, |database, file| {
        if database.read_lock != Some(READ_LOCK_0) {
            return None;
        }
        let mut page = [0; PAGE];
        let mut is_wrong = |number: &u32| {
            let offset = (u64::from(*number) - 1) * PAGE as u64;
            *number != LOCK_PAGE && database.read(file, &mut page, offset) != ffi::SQLITE_OK
        };
        Some(pages.filter(|number| is_wrong(number)).collect())
    })
}

fn checked(code: c_int) -> Result<()> {
    match code {
        ffi::SQLITE_OK => Ok(()),
        code => Err(rusqlite::Error::SqliteFailure(ffi::Error::new(code), None).into()),
    }
}

/// Works with the database file of a connection that [`open`] made.
fn with_database<T>(connection: &Connection, work: impl FnOnce(&mut Database, &File) -> T) -> Result<T> {
    let mut vfs: *mut ffi::sqlite3_vfs = std::ptr::null_mut();
    let mut file: *mut ffi::sqlite3_file = std::ptr::null_mut();
    // SAFETY: the connection is open, it is this thread's while it is borrowed, and SQLite
    // writes one pointer each time.
    unsafe {
        let main = c"main".as_ptr();
        let handle = connection.handle();
        let out = (&raw mut vfs).cast();
        checked(ffi::sqlite3_file_control(handle, main, ffi::SQLITE_FCNTL_VFS_POINTER, out))?;
        let out = (&raw mut file).cast();
        checked(ffi::sqlite3_file_control(handle, main, ffi::SQLITE_FCNTL_FILE_POINTER, out))?;
    }
    // SAFETY: SQLite gave out its VFS, which has a name, and its file, which is ours if the VFS is.
    let role = unsafe {
        let is_ours = !vfs.is_null() && CStr::from_ptr((*vfs).zName) == NAME;
        if is_ours && !file.is_null() && !(*file).pMethods.is_null() { Some(parts(file)) } else { None }
    };
    match role {
        Some((Role::Database(database), file)) => Ok(work(database, &file)),
        _ => Err(Kind::Internal.from_cause("the connection's file has no checksums to look at")),
    }
}

// the file below ---------------------------------------------------------------

/// A file as SQLite's own functions know it.
struct File {
    file: *mut ffi::sqlite3_file,
    methods: *const ffi::sqlite3_io_methods,
}

impl File {
    fn read(&self, out: &mut [u8], offset: u64) -> c_int {
        let Ok(bytes) = c_int::try_from(out.len()) else { return ffi::SQLITE_IOERR_READ };
        // SAFETY: the file is open, these are its functions, and `out` has so many bytes.
        unsafe {
            match (*self.methods).xRead {
                Some(read) => read(self.file, out.as_mut_ptr().cast(), bytes, offset.cast_signed()),
                None => ffi::SQLITE_IOERR_READ,
            }
        }
    }

    fn write(&self, data: &[u8], offset: u64) -> c_int {
        let Ok(bytes) = c_int::try_from(data.len()) else { return ffi::SQLITE_IOERR_WRITE };
        // SAFETY: the file is open, these are its functions, and `data` has so many bytes.
        unsafe {
            match (*self.methods).xWrite {
                Some(write) => write(self.file, data.as_ptr().cast(), bytes, offset.cast_signed()),
                None => ffi::SQLITE_IOERR_WRITE,
            }
        }
    }

    fn sync(&self, flags: c_int) -> c_int {
        // SAFETY: the file is open, and these are its functions.
        unsafe { (*self.methods).xSync.map_or(ffi::SQLITE_IOERR_FSYNC, |sync| sync(self.file, flags)) }
    }

    /// The system's number of the last error; 0 if it cannot say.
    fn last_errno(&self) -> c_int {
        let mut number: c_int = 0;
        // SAFETY: the file is open, these are its functions, and one integer is written.
        unsafe {
            if let Some(control) = (*self.methods).xFileControl {
                control(self.file, ffi::SQLITE_FCNTL_LAST_ERRNO, (&raw mut number).cast());
            }
        }
        number
    }

    /// Bytes of the file; 0 if it cannot say.
    fn len(&self) -> u64 {
        let mut bytes = 0;
        // SAFETY: the file is open, these are its functions, and one integer is written.
        let outcome = unsafe { (*self.methods).xFileSize.map(|size| size(self.file, &raw mut bytes)) };
        if outcome == Some(ffi::SQLITE_OK) { u64::try_from(bytes).unwrap_or(0) } else { 0 }
    }
}

// the database -----------------------------------------------------------------

struct Database {
    /// Turns true when the first page says so, and never false again.
    has_checksums: bool,
    /// The lock that a reader of the log has now.
    read_lock: Option<c_int>,
}

impl Database {
    fn new(file: &File) -> Database {
        let mut page = [0; PAGE];
        let is_whole = file.read(&mut page, 0) == ffi::SQLITE_OK;
        Database { has_checksums: !(is_whole && is_without_room(&page)), read_lock: None }
    }

    fn read(&mut self, file: &File, out: &mut [u8], offset: u64) -> c_int {
        let outcome = file.read(out, offset);
        // After a short read the rest is zeros, and SQLite would take them for a page.
        let is_short = outcome == ffi::SQLITE_IOERR_SHORT_READ;
        if (outcome != ffi::SQLITE_OK && !is_short) || out.len() < PAGE_MIN {
            return outcome;
        }
        let number = number_at(offset);
        self.has_checksums |= number == Some(1) && out.get(ROOM_AT) == Some(&ROOM);
        // All there is to read of a file that is new.
        let is_new = is_short && number == Some(1) && file.len() == 0;
        if !self.has_checksums || is_new {
            return outcome;
        }
        match (number, <&[u8; PAGE]>::try_from(&*out)) {
            (Some(number), Ok(page)) if !is_short && is_sealed(page, number) => ffi::SQLITE_OK,
            _ => {
                let page = number.unwrap_or_default();
                tracing::error!(page, "a page of the database is not as it was written");
                ffi::SQLITE_IOERR_DATA
            }
        }
    }

    fn write(&mut self, file: &File, data: &[u8], offset: u64) -> c_int {
        let number = number_at(offset);
        let has_room = number != Some(1) || data.get(ROOM_AT) == Some(&ROOM);
        self.has_checksums |= number == Some(1) && has_room;
        if !self.has_checksums {
            return file.write(data, offset);
        }
        match (number, <[u8; PAGE]>::try_from(data)) {
            (Some(number), Ok(mut page)) if has_room => {
                seal(&mut page, number);
                file.write(&page, offset)
            }
            _ => {
                tracing::error!(
                    offset,
                    bytes = data.len(),
                    "a page without room for a checksum was not written"
                );
                ffi::SQLITE_IOERR_WRITE
            }
        }
    }
}

/// The page that begins at a byte of the file.
fn number_at(offset: u64) -> Option<u32> {
    let page = PAGE as u64;
    if offset.is_multiple_of(page) { u32::try_from(offset / page + 1).ok() } else { None }
}

/// Sets a page's number and checksum. The number too is covered, and tells where a page
/// belongs that the disk has put elsewhere.
fn seal(page: &mut [u8; PAGE], number: u32) {
    page[NUMBER_AT..SUM_AT].copy_from_slice(&number.to_le_bytes());
    let sum = crc32c::crc32c(&page[..SUM_AT]);
    page[SUM_AT..].copy_from_slice(&sum.to_le_bytes());
}

fn is_sealed(page: &[u8; PAGE], number: u32) -> bool {
    page[NUMBER_AT..SUM_AT] == number.to_le_bytes()
        && page[SUM_AT..] == crc32c::crc32c(&page[..SUM_AT]).to_le_bytes()
}

/// Whether this is the first page of a database without checksums, and not of one that
/// has them and was changed where it says so.
fn is_without_room(page: &[u8; PAGE]) -> bool {
    let mut with_room = *page;
    with_room[ROOM_AT] = ROOM;
    page.starts_with(b"SQLite format 3\0")
        && page[ROOM_AT..ROOM_AT + 4] == [0, 64, 32, 32]
        && !is_sealed(&with_room, 1)
}

// the log ----------------------------------------------------------------------

/// What a connection knows of the log.
#[derive(Default)]
struct Log {
    /// The frame whose head was written last, while its page was not.
    begun: Option<u32>,
    /// The first frame that `sums` is about.
    first: u32,
    /// CRC32C of the pages this connection has written, frame after frame: four bytes for
    /// each 4 KiB of log. A transaction that outgrows the cache writes pages twice, and reads
    /// them again before their frames have checksums.
    sums: Vec<u32>,
}

impl Log {
    fn read(&mut self, file: &File, out: &mut [u8], offset: u64) -> c_int {
        match (frame_at(offset), out.len()) {
            (Some((number, FRAME_HEAD)), PAGE) => self.read_page(file, out, number),
            (Some((number, 0)), FRAME) => self.read_frame(file, out, number),
            // Where checksums that are made again go on from.
            (Some((number, 16)), 8) => match Frame::read(file, number) {
                Ok(frame) if frame.is_good => file.read(out, offset),
                Ok(_) => wrong_frame(number),
                Err(code) => code,
            },
            (None, LOG_HEAD) => {
                // Only a connection that reads the log from its beginning asks for this.
                self.sums.clear();
                let outcome = file.read(out, offset);
                if outcome == ffi::SQLITE_OK && !head_is_good(out) {
                    warn_of_cut(file, 0);
                }
                outcome
            }
            _ => file.read(out, offset),
        }
    }

    /// A page of a frame, for somebody who reads the database.
    fn read_page(&self, file: &File, out: &mut [u8], number: u32) -> c_int {
        let frame = match Frame::read(file, number) {
            Ok(frame) => frame,
            Err(code) => return code,
        };
        let page = &frame.bytes[FRAME_HEAD..];
        if !frame.is_good && self.sum(number) != Some(crc32c::crc32c(page)) {
            return wrong_frame(number);
        }
        out.copy_from_slice(page);
        ffi::SQLITE_OK
    }

    /// A whole frame: read when its checksum is made again at the end of a transaction, or to
    /// find the end of the log after a crash, which is the first frame that is not good.
    fn read_frame(&self, file: &File, out: &mut [u8], number: u32) -> c_int {
        let frame = match Frame::read(file, number) {
            Ok(frame) => frame,
            Err(code) => return code,
        };
        match self.sum(number) {
            Some(sum) if sum != crc32c::crc32c(&frame.bytes[FRAME_HEAD..]) => return wrong_frame(number),
            None if !frame.is_good => warn_of_cut(file, number),
            _ => {}
        }
        out.copy_from_slice(&frame.bytes);
        ffi::SQLITE_OK
    }

    fn write(&mut self, file: &File, data: &[u8], offset: u64) -> c_int {
        match (frame_at(offset), data.len()) {
            (Some((number, 0)), FRAME_HEAD) => self.begun = Some(number),
            (Some((number, FRAME_HEAD)), PAGE) => {
                let is_last = self.begun.take() == Some(number);
                self.note(number, crc32c::crc32c(data), is_last);
            }
            (None, _) => self.sums.clear(),
            _ => {}
        }
        file.write(data, offset)
    }

    /// Notes the page of a frame. What followed a frame that is now the last is gone.
    fn note(&mut self, number: u32, sum: u32, is_last: bool) {
        let index = number.checked_sub(self.first).map_or(usize::MAX, |index| index as usize);
        if self.sums.is_empty() || index > self.sums.len() {
            (self.first, self.sums) = (number, vec![sum]);
            return;
        }
        if is_last {
            self.sums.truncate(index);
        }
        match self.sums.get_mut(index) {
            Some(noted) => *noted = sum,
            None => self.sums.push(sum),
        }
    }

    fn sum(&self, number: u32) -> Option<u32> {
        self.sums.get(number.checked_sub(self.first)? as usize).copied()
    }
}

fn wrong_frame(frame: u32) -> c_int {
    tracing::error!(frame, "a frame of the database's log is not as it was written");
    ffi::SQLITE_IOERR_DATA
}

/// The frame that a byte of the log is in, counted from 1, and the byte's place there.
fn frame_at(offset: u64) -> Option<(u32, usize)> {
    let (offset, frame) = (offset.checked_sub(LOG_HEAD as u64)?, FRAME as u64);
    Some((u32::try_from(offset / frame + 1).ok()?, usize::try_from(offset % frame).ok()?))
}

fn frame_offset(number: u32) -> u64 {
    LOG_HEAD as u64 + (u64::from(number) - 1) * FRAME as u64
}

struct Frame {
    bytes: [u8; FRAME],
    /// It is of the present log, and its checksum goes on from the last frame's.
    is_good: bool,
}

impl Frame {
    fn read(file: &File, number: u32) -> std::result::Result<Frame, c_int> {
        let mut head = [0; LOG_HEAD];
        read_some(file, &mut head, 0)?;
        Frame::read_after(file, number, &head, &head[LOG_SALTS])
    }

    /// A frame of the log that has these salts.
    fn read_after(
        file: &File,
        number: u32,
        head: &[u8; LOG_HEAD],
        salts: &[u8],
    ) -> std::result::Result<Frame, c_int> {
        let mut last = [0; FRAME_SUM.end - FRAME_SUM.start];
        match number {
            1 => last.copy_from_slice(&head[LOG_SUM]),
            _ => read_some(file, &mut last, frame_offset(number - 1) + FRAME_SUM.start as u64)?,
        }
        let mut bytes = [0; FRAME];
        read_some(file, &mut bytes, frame_offset(number))?;
        let sum = log_sum(head, &last, &bytes[..SALTS.start]);
        let sum = log_sum(head, &sum, &bytes[FRAME_HEAD..]);
        let is_good = bytes[SALTS] == *salts && bytes[FRAME_SUM] == sum;
        Ok(Frame { bytes, is_good })
    }
}

/// Reads; what lies behind the end of the file is zeros.
fn read_some(file: &File, out: &mut [u8], offset: u64) -> std::result::Result<(), c_int> {
    match file.read(out, offset) {
        ffi::SQLITE_OK | ffi::SQLITE_IOERR_SHORT_READ => Ok(()),
        code => Err(code),
    }
}

fn head_is_good(head: &[u8]) -> bool {
    head.len() == LOG_HEAD && log_sum(head, &[0; 8], &head[..LOG_SUM.start]) == head[LOG_SUM]
}

/// SQLite's checksum of eight bytes and eight more …, going on from another
/// (sqlite.org/fileformat2.html#checksum_algorithm). The log's head says in which byte order.
fn log_sum(head: &[u8], from: &[u8], data: &[u8]) -> [u8; 8] {
    let word = |bytes: &[u8]| bytes.try_into().unwrap_or([0; 4]);
    let number = if head[3] & 1 == 1 { u32::from_be_bytes } else { u32::from_le_bytes };
    let mut one = u32::from_be_bytes(word(&from[..4]));
    let mut two = u32::from_be_bytes(word(&from[4..]));
    for pair in data.chunks_exact(8) {
        one = one.wrapping_add(number(word(&pair[..4]))).wrapping_add(two);
        two = two.wrapping_add(number(word(&pair[4..]))).wrapping_add(one);
    }
    let mut sum = [0; 8];
    sum[..4].copy_from_slice(&one.to_be_bytes());
    sum[4..].copy_from_slice(&two.to_be_bytes());
    sum
}

/// Says so if SQLite, which ends the log at a frame that is not good, cuts off what was
/// acknowledged. The end of a log after a crash looks the same, but for a good frame that goes on
/// from the end of a commit: it was written only after that commit was safely on the disk.
fn warn_of_cut(file: &File, frame: u32) {
    if matches!(has_commit_after(file, frame), Ok(true)) {
        tracing::error!(
            frame,
            "the database's log is damaged: what was written to the database after this frame is lost"
        );
    }
}

fn has_commit_after(file: &File, frame: u32) -> std::result::Result<bool, c_int> {
    let mut head = [0; LOG_HEAD];
    read_some(file, &mut head, 0)?;
    // A head that is wrong may still belong to the frames: then they have its salts, or the first
    // goes on from its checksum.
    let mut salts = [0; LOG_SALTS.end - LOG_SALTS.start];
    salts.copy_from_slice(&head[LOG_SALTS]);
    if frame == 0 {
        let mut theirs = salts;
        read_some(file, &mut theirs, frame_offset(1) + SALTS.start as u64)?;
        if Frame::read_after(file, 1, &head, &theirs)?.is_good {
            salts = theirs;
        }
    }
    let frames = frame_at(file.len()).map_or(0, |(number, _)| number - 1);
    for number in frame.max(1)..frames {
        let mut last = [0; FRAME_HEAD];
        read_some(file, &mut last, frame_offset(number))?;
        if last[COMMIT] == [0; 4] {
            continue;
        }
        // A frame whose checksum is right is this log's, even if its salts, which that leaves out,
        // are not: its checksum goes on from the log's head.
        let is_ours = last[SALTS] == salts || Frame::read_after(file, number, &head, &last[SALTS])?.is_good;
        if is_ours && Frame::read_after(file, number + 1, &head, &salts)?.is_good {
            return Ok(true);
        }
    }
    Ok(false)
}

// what SQLite calls ------------------------------------------------------------

/// Our VFS. SQLite has a pointer to its first field, which is one to the whole.
#[repr(C)]
struct Vfs {
    base: ffi::sqlite3_vfs,
    unix: *mut ffi::sqlite3_vfs,
}

/// A file that is ours. SQLite has a pointer to its first field, which is one to the whole.
#[repr(C)]
struct Ours {
    methods: ffi::sqlite3_io_methods,
    below: *const ffi::sqlite3_io_methods,
    role: Role,
}

enum Role {
    Database(Database),
    Log(Log),
}

/// Gives SQLite this VFS, once; it is never taken back.
fn register() -> c_int {
    // SAFETY: SQLite's VFS for Unix lives as long as the process, and so does ours, which is
    // leaked. Its functions but `xOpen` use of the VFS they are called with only fields
    // that ours has too.
    unsafe {
        let unix = ffi::sqlite3_vfs_find(c"unix".as_ptr());
        if unix.is_null() {
            return ffi::SQLITE_ERROR;
        }
        let base = ffi::sqlite3_vfs {
            pNext: std::ptr::null_mut(),
            zName: NAME.as_ptr(),
            xOpen: Some(open_file),
            ..*unix
        };
        let ours = Box::into_raw(Box::new(Vfs { base, unix }));
        ffi::sqlite3_vfs_register(&raw mut (*ours).base, 0)
    }
}

unsafe extern "C" fn open_file(
    vfs: *mut ffi::sqlite3_vfs,
    name: *const c_char,
    file: *mut ffi::sqlite3_file,
    flags: c_int,
    out_flags: *mut c_int,
) -> c_int {
    // SAFETY: SQLite calls this with the VFS that was registered and with memory for a file of
    // SQLite's own. Once that is open, its functions are replaced by a table of ours, which
    // `close` frees.
    unsafe {
        let unix = (*vfs.cast::<Vfs>()).unix;
        let Some(open) = (*unix).xOpen else { return ffi::SQLITE_CANTOPEN };
        let outcome = open(unix, name, file, flags, out_flags);
        if outcome != ffi::SQLITE_OK {
            return outcome;
        }
        let below = (*file).pMethods;
        let role = if flags & ffi::SQLITE_OPEN_MAIN_DB != 0 {
            Role::Database(Database::new(&File { file, methods: below }))
        } else if flags & ffi::SQLITE_OPEN_WAL != 0 {
            Role::Log(Log::default())
        } else {
            return outcome;
        };
        let methods = ffi::sqlite3_io_methods {
            // Without the functions of version 3, which map files into memory past `read`.
            iVersion: 2,
            xClose: Some(close),
            xRead: Some(read),
            xWrite: Some(write),
            xSync: Some(sync),
            xDeviceCharacteristics: Some(characteristics),
            xShmLock: Some(lock),
            ..*below
        };
        (*file).pMethods = Box::into_raw(Box::new(Ours { methods, below, role })).cast();
        outcome
    }
}

/// What is ours of a file, and what is SQLite's.
///
/// # Safety
///
/// `file` is one that `open_file` made ours. One thread at a time works with it.
unsafe fn parts<'a>(file: *mut ffi::sqlite3_file) -> (&'a mut Role, File) {
    // SAFETY: the pointer to the functions is one to the whole, which lives until `close`.
    unsafe {
        let ours = (*file).pMethods.cast_mut().cast::<Ours>();
        (&mut (*ours).role, File { file, methods: (*ours).below })
    }
}

unsafe extern "C" fn close(file: *mut ffi::sqlite3_file) -> c_int {
    // SAFETY: SQLite calls this once, with a file that `open_file` made ours.
    unsafe {
        let ours = Box::from_raw((*file).pMethods.cast_mut().cast::<Ours>());
        (*file).pMethods = ours.below;
        (*ours.below).xClose.map_or(ffi::SQLITE_OK, |close| close(file))
    }
}

unsafe extern "C" fn read(
    file: *mut ffi::sqlite3_file,
    out: *mut c_void,
    bytes: c_int,
    offset: ffi::sqlite3_int64,
) -> c_int {
    let offset = offset.cast_unsigned();
    // SAFETY: SQLite calls this with a file that `open_file` made ours and so many bytes.
    let ((role, below), out) = unsafe {
        (parts(file), std::slice::from_raw_parts_mut(out.cast::<u8>(), usize::try_from(bytes).unwrap_or(0)))
    };
    match role {
        Role::Database(database) => database.read(&below, out, offset),
        Role::Log(log) => log.read(&below, out, offset),
    }
}

unsafe extern "C" fn write(
    file: *mut ffi::sqlite3_file,
    data: *const c_void,
    bytes: c_int,
    offset: ffi::sqlite3_int64,
) -> c_int {
    let offset = offset.cast_unsigned();
    // SAFETY: SQLite calls this with a file that `open_file` made ours and so many bytes.
    let ((role, below), data) = unsafe {
        (parts(file), std::slice::from_raw_parts(data.cast::<u8>(), usize::try_from(bytes).unwrap_or(0)))
    };
    match role {
        Role::Database(database) => database.write(&below, data, offset),
        Role::Log(log) => log.write(&below, data, offset),
    }
}

/// As the file below, except that a full disk is told from one that is broken.
unsafe extern "C" fn sync(file: *mut ffi::sqlite3_file, flags: c_int) -> c_int {
    // SAFETY: SQLite calls this with a file that `open_file` made ours.
    let (_, below) = unsafe { parts(file) };
    match below.sync(flags) {
        ffi::SQLITE_IOERR_FSYNC if matches!(below.last_errno(), libc::ENOSPC | libc::EDQUOT) => FULL_SYNC,
        outcome => outcome,
    }
}

/// As the file below, except that parts of pages may not be read.
unsafe extern "C" fn characteristics(file: *mut ffi::sqlite3_file) -> c_int {
    // SAFETY: SQLite calls this with a file that `open_file` made ours.
    unsafe {
        let (_, below) = parts(file);
        let all = (*below.methods).xDeviceCharacteristics.map_or(0, |below| below(file));
        all & !ffi::SQLITE_IOCAP_SUBPAGE_READ
    }
}

/// Takes or gives back locks on the log's index, and remembers the one for reading.
unsafe extern "C" fn lock(file: *mut ffi::sqlite3_file, first: c_int, count: c_int, flags: c_int) -> c_int {
    // SAFETY: SQLite calls this with a file that `open_file` made ours.
    let (role, outcome) = unsafe {
        let (role, below) = parts(file);
        let lock = (*below.methods).xShmLock;
        (role, lock.map_or(ffi::SQLITE_IOERR_SHMLOCK, |lock| lock(file, first, count, flags)))
    };
    if let Role::Database(database) = role
        && outcome == ffi::SQLITE_OK
        && flags & ffi::SQLITE_SHM_SHARED != 0
        && first >= READ_LOCK_0
    {
        database.read_lock = (flags & ffi::SQLITE_SHM_LOCK != 0).then_some(first);
    }
    outcome
}

#[cfg(test)]
mod tests;

//! The file that a bundle is written to, or its volumes: `….part` until all of them are whole
//! and durable.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::archive::{VOLUMES_MAX, numbered};
use crate::error::{Error, Kind, Result, Thing};

/// Smallest volume, in bytes.
const VOLUME_BYTES_MIN: u64 = 64 << 10;

/// A file that grows, written anywhere up to its end.
#[derive(Debug)]
pub struct BundleFile {
    path: PathBuf,
    /// The size of a volume; None: one file, without a number.
    volume: Option<u64>,
    /// Held while this is: two at once would write into each other.
    _lock: File,
    /// One volume is open at a time: its number, from 1.
    open: (usize, File),
    /// Bytes there are, in all volumes.
    bytes: u64,
}

impl BundleFile {
    /// One for so many bytes, in which all that an earlier run wrote still is.
    ///
    /// Fails before anything is written where a file of such a name is there, somebody else
    /// writes to it just now, or there would be too many volumes.
    pub fn open(path: &Path, volume: Option<u64>, bytes: u64) -> Result<BundleFile> {
        BundleFile::check(path, volume, bytes)?;
        let first = part(&named(path, volume, 1));
        let lock = open_part(&first)?;
        if let Err(TryLockError::WouldBlock) = lock.try_lock() {
            return Err(Kind::Exists(Thing::Request)
                .because(format!("{} is being written by another process", first.display())));
        }
        let open = (1, open_part(&first)?);
        let mut file = BundleFile { path: path.to_owned(), volume, _lock: lock, open, bytes: 0 };
        file.bytes = file.bytes_there();
        Ok(file)
    }

    /// Fails where [`BundleFile::open`] would, without making anything.
    pub fn check(path: &Path, volume: Option<u64>, bytes: u64) -> Result<()> {
        for number in 1..=count(volume, bytes)? {
            let file = named(path, volume, number);
            if file.exists() {
                return Err(Kind::Exists(Thing::Request)
                    .because(format!("{} is there already; name another file", file.display())));
            }
        }
        Ok(())
    }

    /// The same as [`BundleFile::open`], and empty.
    pub fn create(path: &Path, volume: Option<u64>, bytes: u64) -> Result<BundleFile> {
        let mut file = BundleFile::open(path, volume, bytes)?;
        file.cut(0)?;
        Ok(file)
    }

    /// Bytes there are.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Reads bytes that are there.
    pub fn read(&mut self, mut to: &mut [u8], mut at: u64) -> Result<()> {
        while !to.is_empty() {
            let (number, place, room) = self.place(at, to.len());
            let (piece, rest) = to.split_at_mut(room);
            let outcome = self.volume(number)?.read_exact_at(piece, place);
            outcome.map_err(|error| self.unwritable(number, &error))?;
            (to, at) = (rest, at + room as u64);
        }
        Ok(())
    }

    /// Writes over what is there, and at its end.
    pub fn write(&mut self, mut bytes: &[u8], mut at: u64) -> Result<()> {
        while !bytes.is_empty() {
            let (number, place, room) = self.place(at, bytes.len());
            if number != self.open.0 {
                // What is full goes to the stick while the next one fills.
                let full = self.open.0;
                self.open.1.sync_all().map_err(|error| self.unwritable(full, &error))?;
            }
            let (piece, rest) = bytes.split_at(room);
            let outcome = self.volume(number)?.write_all_at(piece, place);
            outcome.map_err(|error| self.unwritable(number, &error))?;
            (bytes, at) = (rest, at + room as u64);
            self.bytes = self.bytes.max(at);
        }
        Ok(())
    }

    /// Takes all bytes from there on back.
    pub fn cut(&mut self, at: u64) -> Result<()> {
        let last = last(self.volume, at);
        let length = at - self.volume.map_or(0, |volume| volume * (last as u64 - 1));
        let outcome = self.volume(last)?.set_len(length);
        outcome.map_err(|error| self.unwritable(last, &error))?;
        self.bytes = at;
        self.remove_after(last);
        Ok(())
    }

    /// Makes everything durable and gives files their names, the first one last: where that is,
    /// all are. Returns them.
    pub fn finish(mut self) -> Result<Vec<PathBuf>> {
        self.cut(self.bytes)?;
        let count = last(self.volume, self.bytes);
        for number in 1..=count {
            // Also what an earlier run wrote, and was killed before it synced that.
            let outcome = self.volume(number)?.sync_all();
            outcome.map_err(|error| self.unwritable(number, &error))?;
        }
        let files: Vec<PathBuf> = (1..=count).map(|number| named(&self.path, self.volume, number)).collect();
        for file in files.iter().rev() {
            std::fs::rename(part(file), file).map_err(|error| unwritable(file, &error))?;
        }
        let dir = self.path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
        // Some file systems of sticks sync no directories.
        let _ = File::open(dir).and_then(|dir| dir.sync_all());
        Ok(files)
    }

    /// Leaves nothing behind.
    pub fn discard(self) {
        self.remove_after(0);
    }

    fn remove_after(&self, last: usize) {
        let most = self.volume.map_or(1, |_| VOLUMES_MAX);
        for number in last + 1..=most {
            if std::fs::remove_file(part(&named(&self.path, self.volume, number))).is_err() {
                // There are no more.
                break;
            }
        }
    }

    /// Where a byte is: a volume, the place in it, and how many of so many bytes it takes from there.
    fn place(&self, at: u64, bytes: usize) -> (usize, u64, usize) {
        let Some(volume) = self.volume else { return (1, at, bytes) };
        let room = usize::try_from(volume - at % volume).unwrap_or(usize::MAX);
        // Their number is limited.
        (usize::try_from(at / volume).unwrap_or(VOLUMES_MAX) + 1, at % volume, bytes.min(room))
    }

    fn volume(&mut self, number: usize) -> Result<&File> {
        if self.open.0 != number {
            self.open = (number, open_part(&part(&named(&self.path, self.volume, number)))?);
        }
        Ok(&self.open.1)
    }

    /// Volumes go on while each is full. One that is longer was of another size.
    fn bytes_there(&self) -> u64 {
        let length = |number| {
            let part = part(&named(&self.path, self.volume, number));
            std::fs::metadata(part).map_or(0, |found| found.len())
        };
        let Some(volume) = self.volume else { return length(1) };
        let mut bytes = 0;
        for number in 1..=VOLUMES_MAX {
            let found = length(number);
            bytes += found.min(volume);
            if found != volume {
                break;
            }
        }
        bytes
    }

    fn unwritable(&self, number: usize, error: &io::Error) -> Error {
        unwritable(&part(&named(&self.path, self.volume, number)), error)
    }
}

/// How many volumes so many bytes fill: at least one.
fn last(volume: Option<u64>, bytes: u64) -> usize {
    let count = volume.map_or(1, |volume| bytes.div_ceil(volume).max(1));
    usize::try_from(count).unwrap_or(usize::MAX)
}

fn count(volume: Option<u64>, bytes: u64) -> Result<usize> {
    if volume.is_some_and(|volume| volume < VOLUME_BYTES_MIN) {
        return Err(Kind::Invalid(Thing::Request).because("a volume has at least 64 KiB"));
    }
    match last(volume, bytes) {
        count if count <= VOLUMES_MAX => Ok(count),
        count => Err(Kind::Invalid(Thing::Request)
            .because(format!("these are {count} volumes, and names go to {VOLUMES_MAX}; make larger ones"))),
    }
}

/// A file, or one of its volumes.
fn named(path: &Path, volume: Option<u64>, number: usize) -> PathBuf {
    volume.map_or_else(|| path.to_owned(), |_| numbered(path, number))
}

fn part(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".part");
    name.into()
}

fn open_part(part: &Path) -> Result<File> {
    let file = OpenOptions::new().create(true).truncate(false).read(true).write(true).open(part);
    file.map_err(|error| unwritable(part, &error))
}

/// The error of a file, or of standard output, that takes no bytes.
pub fn unwritable(path: &Path, error: &io::Error) -> Error {
    let advice = match error.kind() {
        io::ErrorKind::FileTooLarge => "; FAT takes less than 4 GiB in a file: use --volume-size 4G",
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "; make room and run it again, or name another place"
        }
        _ => "",
    };
    Kind::Unavailable.because(format!("{} cannot be written: {error}{advice}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(count: u32) -> Vec<u8> {
        (0..count).map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()[3]).collect()
    }

    fn open(path: &Path, bytes: &[u8]) -> BundleFile {
        BundleFile::open(path, Some(VOLUME_BYTES_MIN), bytes.len() as u64).expect("opens")
    }

    fn write(file: &mut BundleFile, bytes: &[u8]) {
        let mut at = 0;
        for piece in bytes.chunks(77_777) {
            file.write(piece, at).expect("writes");
            at += piece.len() as u64;
        }
    }

    #[test]
    fn bytes_beyond_what_32_bits_hold_are_where_they_were_written() {
        let dir = tempfile::tempdir().expect("makes one");
        // Where one volume ends and the next begins; and in a file without any. Both are holes before.
        for (name, volume, at) in
            [("v.tar", Some(4_000_000_000), 7_999_999_997), ("b.tar", None, 5_000_000_000)]
        {
            let mut file = BundleFile::open(&dir.path().join(name), volume, 9_000_000_000).expect("opens");
            file.write(b"beyond", at).expect("writes");
            assert_eq!(file.bytes(), at + 6);
            let mut back = [0; 6];
            file.read(&mut back, at).expect("reads");
            assert_eq!(&back, b"beyond");
            assert_eq!(file.bytes_there(), if volume.is_some() { 0 } else { at + 6 });
        }
    }

    #[test]
    fn volumes_are_cuts_of_one_stream_and_have_no_names_before_the_end() {
        let dir = tempfile::tempdir().expect("makes one");
        let path = dir.path().join("b.tar");
        let bytes = noise(200_000);
        let mut file = open(&path, &bytes);
        write(&mut file, &bytes);
        assert!(!dir.path().join("b.tar.001").exists());
        let files = file.finish().expect("finishes");
        assert_eq!(files.len(), 4);
        let back: Vec<u8> = files.iter().flat_map(|file| std::fs::read(file).expect("reads")).collect();
        assert!(back == bytes);
        assert_eq!(std::fs::read_dir(dir.path()).expect("reads").count(), 4);
        let again =
            |bytes| BundleFile::open(&path, Some(VOLUME_BYTES_MIN), bytes).expect_err("none").to_string();
        assert!(again(1).contains("there already"));
        assert!(again(u64::MAX).contains("make larger ones"));
    }

    #[test]
    fn what_an_earlier_run_wrote_is_there_and_is_cut_wherever_it_is_wrong() {
        let dir = tempfile::tempdir().expect("makes one");
        let path = dir.path().join("b.tar");
        let bytes = noise(300_000);
        let mut file = open(&path, &bytes);
        write(&mut file, &bytes[..200_000]);
        assert!(BundleFile::open(&path, Some(VOLUME_BYTES_MIN), 1).is_err(), "one at a time");
        drop(file);
        for cut in [200_000, 2 * VOLUME_BYTES_MIN, 70_000, 0] {
            let mut file = open(&path, &bytes);
            file.cut(cut).expect("cuts");
            drop(file);
            let mut file = open(&path, &bytes);
            assert_eq!(file.bytes(), cut);
            let mut there = vec![0; usize::try_from(cut).expect("is small")];
            file.read(&mut there, 0).expect("reads");
            assert!(there == bytes[..there.len()], "{cut}");
        }
        let mut file = open(&path, &bytes);
        write(&mut file, &bytes);
        drop(file);
        // A volume of another size ends what is right.
        let file = BundleFile::open(&path, Some(2 * VOLUME_BYTES_MIN), 1).expect("opens");
        assert_eq!(file.bytes(), VOLUME_BYTES_MIN);
        file.discard();
        assert_eq!(std::fs::read_dir(dir.path()).expect("reads").count(), 0);
    }
}

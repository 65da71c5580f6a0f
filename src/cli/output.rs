//! Where a stream goes: a new file, several of a size that a stick takes, or standard output.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::error::{Error, Kind, Result, Thing};

/// Smallest volume, in bytes. Largest number of them: names end with three digits.
const VOLUME_BYTES_MIN: u64 = 64 << 10;
const VOLUMES_MAX: u64 = 999;

/// Files keep the name `….part` until all of them are whole and durable.
pub enum Output {
    Stream(io::Stdout),
    Files {
        path: PathBuf,
        /// The size of a volume; None: one file, without a number.
        volume: Option<u64>,
        file: File,
        /// Bytes in the file that grows.
        filled: u64,
        /// The files so far.
        count: u64,
        /// They have their names, or are to be left alone.
        done: bool,
    },
}

impl Output {
    /// For so many bytes to `path`, or to standard output if that is `-`. Fails before anything is
    /// written if a file of that name is there, or if there would be too many.
    pub fn create(path: &Path, volume: Option<u64>, bytes: u64) -> Result<Output> {
        if path.as_os_str() == "-" {
            return match volume {
                None => Ok(Output::Stream(io::stdout())),
                Some(_) => Err(Kind::Invalid(Thing::Request)
                    .because("standard output is one stream; name a file for its volumes")),
            };
        }
        if let Some(volume) = volume {
            if volume < VOLUME_BYTES_MIN {
                return Err(Kind::Invalid(Thing::Request).because("a volume has at least 64 KiB"));
            }
            let count = bytes.div_ceil(volume);
            if count > VOLUMES_MAX {
                return Err(Kind::Invalid(Thing::Request)
                    .because(format!("these are {count} volumes, and names go to 999; make larger ones")));
            }
        }
        let first = named(path, volume.map(|_| 1));
        if first.exists() {
            return Err(Kind::Exists(Thing::Request)
                .because(format!("{} is there already; name another file", first.display())));
        }
        let file = new_part(&first)?;
        Ok(Output::Files { path: path.to_owned(), volume, file, filled: 0, count: 1, done: false })
    }

    /// Appends.
    pub fn put(&mut self, mut bytes: &[u8]) -> Result<()> {
        match self {
            Output::Stream(out) => {
                out.write_all(bytes).map_err(|error| unwritable(Path::new("standard output"), &error))
            }
            Output::Files { path, volume, file, filled, count, .. } => {
                while !bytes.is_empty() {
                    let room = volume.map_or(u64::MAX, |volume| volume - *filled);
                    if room == 0 {
                        file.sync_all().map_err(|error| unwritable(path, &error))?;
                        (*count, *filled) = (*count + 1, 0);
                        *file = new_part(&named(path, Some(*count)))?;
                        continue;
                    }
                    let some = bytes.len().min(usize::try_from(room).unwrap_or(usize::MAX));
                    file.write_all(&bytes[..some]).map_err(|error| unwritable(path, &error))?;
                    *filled += some as u64;
                    bytes = &bytes[some..];
                }
                Ok(())
            }
        }
    }

    /// Makes everything durable and gives files their names, the first one last: where that is,
    /// all are. Returns them.
    pub fn finish(mut self) -> Result<Vec<PathBuf>> {
        match &mut self {
            Output::Stream(out) => {
                out.flush().map_err(|error| unwritable(Path::new("standard output"), &error))?;
                Ok(Vec::new())
            }
            Output::Files { path, volume, file, count, done, .. } => {
                file.sync_all().map_err(|error| unwritable(path, &error))?;
                let files: Vec<PathBuf> =
                    (1..=*count).map(|number| named(path, volume.map(|_| number))).collect();
                for file in files.iter().rev() {
                    std::fs::rename(part(file), file).map_err(|error| unwritable(file, &error))?;
                }
                *done = true;
                let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
                // Some file systems of sticks sync no directories.
                let _ = File::open(dir).and_then(|dir| dir.sync_all());
                Ok(files)
            }
        }
    }
}

/// What is left of an output that failed is of no use.
impl Drop for Output {
    fn drop(&mut self) {
        if let Output::Files { path, volume, count, done: false, .. } = self {
            for number in 1..=*count {
                // The first error is the one to be told.
                let _ = std::fs::remove_file(part(&named(path, volume.map(|_| number))));
            }
        }
    }
}

/// A file, or one of its volumes.
fn named(path: &Path, number: Option<u64>) -> PathBuf {
    match number {
        None => path.to_owned(),
        Some(number) => with_suffix(path, &format!(".{number:03}")),
    }
}

fn part(path: &Path) -> PathBuf {
    with_suffix(path, ".part")
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

fn new_part(path: &Path) -> Result<File> {
    let part = part(path);
    let file = OpenOptions::new().create(true).write(true).truncate(true).open(&part);
    file.map_err(|error| unwritable(&part, &error))
}

fn unwritable(path: &Path, error: &io::Error) -> Error {
    let advice = match error.kind() {
        io::ErrorKind::FileTooLarge => "; FAT takes less than 4 GiB in a file: use --volume-size 4G",
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "; make room, or name another place",
        _ => "",
    };
    Kind::Unavailable.because(format!("{} cannot be written: {error}{advice}", path.display()))
}

/// A size as people write it: `4G` is 4,000,000,000 bytes, which FAT takes, and `4Gi` 2^32, which
/// it does not.
pub fn size(text: &str) -> std::result::Result<u64, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match &text[digits.len()..] {
        "" => 1,
        "K" | "k" => 1_000,
        "M" => 1_000_000,
        "G" => 1_000_000_000,
        "T" => 1_000_000_000_000,
        "Ki" => 1 << 10,
        "Mi" => 1 << 20,
        "Gi" => 1 << 30,
        "Ti" => 1u64 << 40,
        _ => return Err("a size is a number and K, M, G, T, Ki, Mi, Gi or Ti".into()),
    };
    let number: u64 = digits.parse().map_err(|_| "a size begins with a whole number".to_owned())?;
    number.checked_mul(unit).ok_or_else(|| "this is too large".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn volumes_are_cuts_of_one_stream_and_have_no_names_before_the_end() {
        let dir = tempfile::tempdir().expect("makes one");
        let path = dir.path().join("b.tar");
        let bytes: Vec<u8> = (0..200_000u32).map(|n| n.to_le_bytes()[1]).collect();
        let mut output = Output::create(&path, Some(VOLUME_BYTES_MIN), bytes.len() as u64).expect("makes it");
        for piece in bytes.chunks(77_777) {
            output.put(piece).expect("writes");
        }
        assert!(!dir.path().join("b.tar.001").exists());
        let files = output.finish().expect("finishes");
        assert_eq!(files.len(), 4);
        let back: Vec<u8> = files.iter().flat_map(|file| std::fs::read(file).expect("reads")).collect();
        assert!(back == bytes);
        assert!(Output::create(&path, Some(VOLUME_BYTES_MIN), 1).is_err(), "they are there");
        assert!(Output::create(&path, Some(VOLUME_BYTES_MIN), u64::MAX).is_err(), "too many");
    }

    #[test]
    fn what_failed_leaves_nothing_behind() {
        let dir = tempfile::tempdir().expect("makes one");
        let mut output =
            Output::create(&dir.path().join("b"), Some(VOLUME_BYTES_MIN), 100_000).expect("makes it");
        output.put(&[0; 100_000]).expect("writes");
        drop(output);
        assert_eq!(std::fs::read_dir(dir.path()).expect("reads").count(), 0);
    }

    #[test]
    fn sizes_are_read_as_people_write_them() {
        assert_eq!(size("4G"), Ok(4_000_000_000));
        assert_eq!((size("64Ki"), size("100"), size("2k")), (Ok(65_536), Ok(100), Ok(2_000)));
        for bad in ["", "G", "-1", "1.5G", "4GB", "99999999T"] {
            assert!(size(bad).is_err(), "{bad}");
        }
    }
}

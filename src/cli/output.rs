//! Where a stream goes: a new file, several of a size that a stick takes, or standard output.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::carry::{BundleFile, unwritable};
use crate::error::{Kind, Result, Thing};

/// Where the bytes go.
pub enum Output {
    Stream(io::Stdout),
    /// None once it has its name, or is to be left alone.
    File(Option<BundleFile>),
}

impl Output {
    /// For so many bytes to `path`, or to standard output if that is `-`. Fails before anything is
    /// written if a file of that name is there, or if there would be too many volumes.
    pub fn create(path: &Path, volume: Option<u64>, bytes: u64) -> Result<Output> {
        if path.as_os_str() != "-" {
            return Ok(Output::File(Some(BundleFile::create(path, volume, bytes)?)));
        }
        no_volumes(volume)?;
        Ok(Output::Stream(io::stdout()))
    }

    /// Appends.
    pub fn put(&mut self, bytes: &[u8]) -> Result<()> {
        match self {
            Output::Stream(out) => {
                out.write_all(bytes).map_err(|error| unwritable(Path::new("standard output"), &error))
            }
            Output::File(file) => {
                let file = file.as_mut().ok_or(Kind::Internal)?;
                file.write(bytes, file.bytes())
            }
        }
    }

    /// Makes everything durable and gives files their names. Returns them.
    pub fn finish(mut self) -> Result<Vec<PathBuf>> {
        match &mut self {
            Output::Stream(out) => {
                out.flush().map_err(|error| unwritable(Path::new("standard output"), &error))?;
                Ok(Vec::new())
            }
            Output::File(file) => file.take().ok_or(Kind::Internal)?.finish(),
        }
    }
}

/// What is left of an output that failed is of no use.
impl Drop for Output {
    fn drop(&mut self) {
        if let Output::File(file) = self
            && let Some(file) = file.take()
        {
            file.discard();
        }
    }
}

/// Fails if standard output is to be cut.
pub fn no_volumes(volume: Option<u64>) -> Result<()> {
    match volume {
        None => Ok(()),
        Some(_) => Err(Kind::Invalid(Thing::Request)
            .because("standard output is one stream; name a file for its volumes")),
    }
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
    fn what_failed_leaves_nothing_behind() {
        let dir = tempfile::tempdir().expect("makes one");
        let mut output = Output::create(&dir.path().join("b"), Some(64 << 10), 100_000).expect("makes it");
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

//! Keys that sign bundles, in files; those whose bundles are taken are in the database.
//!
//! ```text
//! DATA/keys/NAME.key        {"name": …, "secret": …}, for its owner alone
//! DATA/keys/NAME.key.last   the sequence of the last bundle it signed
//! ```
//!
//! They are in no backup: a counter that was set back would sign bundles that sites refuse.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::{Registry, blobs};
use crate::bundle::{Key, KeyName, SEQUENCE_MAX};
use crate::error::{Error, Kind, Result, Thing};

/// Longest file of a key, in bytes. Ours have 200.
const FILE_BYTES_MAX: u64 = 4 << 10;

impl Registry {
    /// Where keys of this directory that sign are.
    pub fn keys_dir(&self) -> PathBuf {
        self.dir.join("keys")
    }
}

/// A key that signs, in its file.
pub struct KeyFile {
    path: PathBuf,
    pub key: Key,
}

#[derive(Serialize, Deserialize)]
struct Body {
    name: KeyName,
    secret: String,
}

impl KeyFile {
    /// Makes a new key. `Exists` if the file is there.
    pub fn create(path: &Path, name: &KeyName) -> Result<KeyFile> {
        let parent = parent(path);
        blobs::make_dir(parent).map_err(|error| unusable(parent, &error))?;
        let secret = Key::generate()?;
        let key = Key::of_secret(name.clone(), &secret)?;
        let body = Body { name: name.clone(), secret: BASE64.encode(&secret) };
        let text = serde_json::to_vec(&body).map_err(|error| Kind::Internal.from_cause(error))?;
        // The counter first: a key without one signs nothing.
        write_new(&last_path(path), b"0\n")?;
        write_new(path, &text)?;
        blobs::sync_dir(parent)?;
        Ok(KeyFile { path: path.to_owned(), key })
    }

    pub fn open(path: &Path) -> Result<KeyFile> {
        let text = blobs::read_small(path, FILE_BYTES_MAX).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => Kind::NotFound(Thing::Request)
                .because(format!("there is no key {}; `outport key new` makes one", path.display())),
            _ => unusable(path, &error),
        })?;
        let no_key =
            || Kind::Invalid(Thing::Request).because(format!("{} is no key of Outport's", path.display()));
        let body: Body = serde_json::from_slice(&text).map_err(|_| no_key())?;
        let secret = BASE64.decode(&body.secret).map_err(|_| no_key())?;
        let key = Key::of_secret(body.name, &secret).map_err(|_| no_key())?;
        Ok(KeyFile { path: path.to_owned(), key })
    }

    /// The keys of a directory, by file name.
    pub fn all(dir: &Path) -> Result<Vec<KeyFile>> {
        let mut paths = Vec::new();
        match std::fs::read_dir(dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(unusable(dir, &error)),
            Ok(entries) => {
                for entry in entries {
                    let path = entry?.path();
                    if path.extension().is_some_and(|kind| kind == "key") {
                        paths.push(path);
                    }
                }
            }
        }
        paths.sort();
        paths.iter().map(|path| KeyFile::open(path)).collect()
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The sequence of the last bundle it signed; 0 before the first.
    pub fn last(&self) -> Result<u64> {
        let path = last_path(&self.path);
        let number = blobs::read_small(&path, FILE_BYTES_MAX).ok().and_then(|text| {
            let text = String::from_utf8(text).ok()?;
            text.trim().parse().ok()
        });
        number.ok_or_else(|| {
            Kind::Invalid(Thing::Request).because(format!(
                "{} does not say how many bundles the key has signed; write the sequence of the last one \
                 there, as `outport bundle inspect` shows it",
                path.display()
            ))
        })
    }

    /// The sequence of the next bundle: durable when it returns, and never given twice.
    pub fn next(&self) -> Result<u64> {
        let path = last_path(&self.path);
        // Two that sign at once take turns.
        let lock = File::open(&self.path).map_err(|error| unusable(&self.path, &error))?;
        lock.lock().map_err(|error| unusable(&self.path, &error))?;
        let next = self.last()?.saturating_add(1);
        if next > SEQUENCE_MAX {
            return Err(Kind::Invalid(Thing::Request).because(format!(
                "{} says that the key has signed as many bundles as there are numbers; make a new key",
                path.display()
            )));
        }
        let part = with_suffix(&path, ".part");
        blobs::discard(&part);
        write_new(&part, format!("{next}\n").as_bytes())?;
        std::fs::rename(&part, &path).map_err(|error| unusable(&path, &error))?;
        blobs::sync_dir(parent(&path))?;
        Ok(next)
    }
}

fn parent(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

fn last_path(key: &Path) -> PathBuf {
    with_suffix(key, ".last")
}

/// Writes and syncs a file that only its owner reads; it must not be there.
fn write_new(path: &Path, text: &[u8]) -> Result<()> {
    let write = || {
        let mut file = blobs::create(path)?;
        file.write_all(text)?;
        file.sync_all()
    };
    write().map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => Kind::Exists(Thing::Request)
            .because(format!("{} is there already; keep it, or name another", path.display())),
        _ => unusable(path, &error),
    })
}

fn unusable(path: &Path, error: &dyn std::fmt::Display) -> Error {
    Kind::Invalid(Thing::Request).because(format!("{} cannot be used: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_key_file_is_its_owners_alone_and_its_sequence_only_grows() {
        let dir = tempfile::tempdir().expect("makes one");
        let path = dir.path().join("keys/depot.key");
        let name = KeyName::parse("depot").expect("parses");
        let made = KeyFile::create(&path, &name).expect("makes it");
        assert_eq!(std::fs::metadata(&path).expect("is there").permissions().mode() & 0o777, 0o600);
        assert_eq!(KeyFile::create(&path, &name).err().expect("is there").kind, Kind::Exists(Thing::Request));
        let read = KeyFile::open(&path).expect("reads it");
        assert_eq!((read.key.public(), &read.key.name), (made.key.public(), &name));
        assert_eq!(read.last().expect("is there"), 0);
        assert_eq!((read.next().expect("counts"), made.next().expect("counts")), (1, 2));
        assert_eq!(KeyFile::all(&dir.path().join("keys")).expect("reads them").len(), 1);
        std::fs::write(last_path(&path), u64::MAX.to_string()).expect("writes it");
        assert!(read.next().is_err(), "there are no more numbers");
        std::fs::remove_file(last_path(&path)).expect("removes it");
        assert!(read.next().is_err(), "a lost counter does not begin anew");
    }
}

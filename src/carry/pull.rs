//! Images of other registries on their way into a bundle, which goes on where it was if it broke off.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use tokio::runtime::Runtime;

use super::bundle::{DOCUMENT, Layout, Part, lay_out};
use crate::client::{Fetch, ImageName, Select, Selection, Wanted};
use crate::error::{Error, Kind, Result, Thing};
use crate::hash::Hash;
use crate::names::Digest;

/// What is read at once of what is had.
const PIECE: usize = 256 << 10;
/// Longest document that is gone on with.
const DOCUMENT_MAX: u64 = 16 << 20;

/// Where a bundle is written.
pub enum To {
    /// A file, as `FILE.part` until it is whole.
    File(PathBuf),
    Output,
}

/// What came of it.
#[derive(Debug, Default, serde::Serialize)]
pub struct Pulled {
    pub tags: u64,
    pub manifests: u64,
    /// Blobs in the bundle.
    pub blobs: u64,
    /// Bytes of the bundle.
    pub bytes: u64,
    /// Bytes of blobs that an earlier run had fetched.
    pub had: u64,
    /// Blobs and manifests that the site has.
    pub base: u64,
}

/// Fetches what is named into a bundle. `made` is the time, RFC 3339; `had` says what the site has;
/// `progress` hears of bytes done and of all.
pub fn pull(
    runtime: &Runtime,
    select: &Select,
    names: &[ImageName],
    to: &To,
    made: &str,
    had: &dyn Fn(&Digest) -> bool,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Pulled> {
    if let To::File(path) = to
        && path.exists()
    {
        return Err(Kind::Exists(Thing::Request)
            .because(format!("{} is there already; name another file", path.display())));
    }
    let selection = runtime.block_on(select.select(names))?;
    let mut pulled = Pulled::default();
    let base = |selection: &Selection| {
        let manifests = selection.manifests.iter().filter(|(fetched, _)| had(&fetched.digest)).count();
        manifests + selection.blobs.iter().filter(|(wanted, _)| had(&wanted.digest)).count()
    };
    pulled.base = base(&selection) as u64;
    match to {
        To::Output => {
            let layout = lay_out(&selection, made, had)?;
            drop(selection);
            let mut out = Stream { to: io::stdout().lock() };
            write(runtime, &layout, &mut out, &mut pulled, progress)?;
            out.to.flush().map_err(|error| unwritable(Path::new("standard output"), &error))?;
        }
        To::File(path) => {
            let part = part_of(path);
            let mut out = Growing::open(&part)?;
            // What an earlier run began says when it was made: the same bytes come again.
            let made = out.made().unwrap_or_else(|| made.to_owned());
            let layout = lay_out(&selection, &made, had)?;
            drop(selection);
            write(runtime, &layout, &mut out, &mut pulled, progress)?;
            out.finish(path)?;
        }
    }
    Ok(pulled)
}

fn part_of(path: &Path) -> PathBuf {
    let mut part = path.as_os_str().to_owned();
    part.push(".part");
    part.into()
}

/// Where a stream goes, in order, and what of it is there already.
trait Out {
    fn put(&mut self, bytes: &[u8]) -> Result<()>;

    /// Of the next `size` bytes, those that are there: how many, and their hash.
    fn had(&mut self, digest: &Digest, size: u64) -> Result<(u64, Hash)>;

    /// Takes the last bytes back; false if they are gone for good.
    fn back(&mut self, bytes: u64) -> Result<bool>;
}

fn write(
    runtime: &Runtime,
    layout: &Layout,
    out: &mut dyn Out,
    pulled: &mut Pulled,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<()> {
    let mut blobs = layout.blobs.iter();
    let fetch = |rest: &[Wanted]| Fetch::new(runtime.handle(), rest.iter().cloned());
    let mut fetching = fetch(&layout.blobs);
    let mut done = 0;
    for part in &layout.parts {
        match part {
            Part::Known(bytes) => {
                out.put(bytes)?;
                done += bytes.len() as u64;
            }
            Part::Blob => {
                let rest = blobs.as_slice();
                let wanted = blobs.next().ok_or(Kind::Internal)?;
                let (there, hash) = out.had(&wanted.digest, wanted.size)?;
                pulled.had += there;
                done += there;
                progress(done, layout.bytes);
                if there == wanted.size {
                    fetching.skip();
                } else {
                    let outcome = blob(&mut fetching, wanted, there, Some(hash), out, &mut |some| {
                        done += some;
                        progress(done, layout.bytes);
                    });
                    match outcome {
                        // What was there may have been torn when the power went: once more, all of it.
                        Err(error)
                            if error.kind == Kind::DigestMismatch
                                && there > 0
                                && out.back(wanted.size)? =>
                        {
                            tracing::debug!(%error, "a blob is fetched again from its start");
                            pulled.had -= there;
                            done -= wanted.size;
                            fetching = fetch(rest);
                            blob(&mut fetching, wanted, 0, None, out, &mut |some| {
                                done += some;
                                progress(done, layout.bytes);
                            })?;
                        }
                        // Wrong bytes do not stay for the next run.
                        Err(error) if error.kind == Kind::DigestMismatch => {
                            out.back(wanted.size)?;
                            return Err(error);
                        }
                        outcome => outcome?,
                    }
                }
            }
        }
        progress(done, layout.bytes);
    }
    (pulled.tags, pulled.manifests) = (layout.tags, layout.manifests);
    (pulled.blobs, pulled.bytes) = (layout.blobs.len() as u64, layout.bytes);
    Ok(())
}

fn blob(
    fetching: &mut Fetch,
    wanted: &Wanted,
    there: u64,
    hash: Option<Hash>,
    out: &mut dyn Out,
    done: &mut dyn FnMut(u64),
) -> Result<()> {
    let mut blob = fetching.next(there, hash)?.ok_or(Kind::Internal)?;
    debug_assert_eq!(blob.digest(), &wanted.digest);
    while let Some(piece) = blob.piece()? {
        out.put(&piece)?;
        done(piece.len() as u64);
    }
    Ok(())
}

struct Stream<W> {
    to: W,
}

impl<W: Write> Out for Stream<W> {
    fn put(&mut self, bytes: &[u8]) -> Result<()> {
        self.to.write_all(bytes).map_err(|error| unwritable(Path::new("standard output"), &error))
    }

    fn had(&mut self, digest: &Digest, _: u64) -> Result<(u64, Hash)> {
        Ok((0, Hash::new(digest.algorithm())))
    }

    fn back(&mut self, _: u64) -> Result<bool> {
        Ok(false)
    }
}

/// A file that an earlier run may have begun. What it wrote is compared, and hashed again: a power
/// cut leaves anything behind.
struct Growing {
    path: PathBuf,
    file: File,
    /// Bytes of it that may be right.
    length: u64,
    at: u64,
}

impl Growing {
    fn open(path: &Path) -> Result<Growing> {
        let open = OpenOptions::new().create(true).truncate(false).read(true).write(true).open(path);
        let file = open.map_err(|error| unwritable(path, &error))?;
        // Two at once would write into each other.
        file.try_lock().map_err(|_| {
            Kind::Exists(Thing::Request)
                .because(format!("{} is being written by another process", path.display()))
        })?;
        let length = file.metadata()?.len();
        Ok(Growing { path: path.to_owned(), file, length, at: 0 })
    }

    /// When the bundle that was begun here was made.
    fn made(&self) -> Option<String> {
        #[derive(serde::Deserialize)]
        struct Document {
            made: String,
        }
        let mut archive = tar::Archive::new(&self.file);
        let entry = archive
            .entries()
            .ok()?
            .take(2)
            .filter_map(io::Result::ok)
            .find(|entry| entry.path_bytes() == DOCUMENT.as_bytes() && entry.size() <= DOCUMENT_MAX)?;
        serde_json::from_reader::<_, Document>(entry).ok().map(|document| document.made)
    }

    fn cut(&mut self, at: u64) -> Result<()> {
        (self.length, self.at) = (at, at);
        self.file.set_len(at).map_err(|error| unwritable(&self.path, &error))
    }

    /// Whole and durable, under its own name.
    fn finish(self, path: &Path) -> Result<()> {
        let outcome = self
            .file
            .set_len(self.at)
            .and_then(|()| self.file.sync_all())
            .and_then(|()| std::fs::rename(&self.path, path));
        outcome.map_err(|error| unwritable(path, &error))?;
        let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
        // Some file systems of sticks sync no directories.
        let _ = File::open(dir).and_then(|dir| dir.sync_all());
        Ok(())
    }
}

impl Out for Growing {
    fn put(&mut self, bytes: &[u8]) -> Result<()> {
        let end = self.at + bytes.len() as u64;
        if self.at < self.length {
            let mut there = vec![0; bytes.len()];
            if end <= self.length && self.file.read_exact_at(&mut there, self.at).is_ok() && there == bytes {
                self.at = end;
                return Ok(());
            }
            self.cut(self.at)?;
        }
        self.file.write_all_at(bytes, self.at).map_err(|error| unwritable(&self.path, &error))?;
        (self.at, self.length) = (end, end);
        Ok(())
    }

    fn had(&mut self, digest: &Digest, size: u64) -> Result<(u64, Hash)> {
        let (start, there) = (self.at, self.length.saturating_sub(self.at).min(size));
        let mut hash = Hash::new(digest.algorithm());
        let mut piece = vec![0; PIECE];
        while self.at < start + there {
            let most = usize::try_from(start + there - self.at).unwrap_or(PIECE).min(PIECE);
            self.file
                .read_exact_at(&mut piece[..most], self.at)
                .map_err(|error| unwritable(&self.path, &error))?;
            hash.update(&piece[..most]);
            self.at += most as u64;
        }
        if there == size && hash.digest() != *digest {
            self.cut(start)?;
            return Ok((0, Hash::new(digest.algorithm())));
        }
        Ok((there, hash))
    }

    fn back(&mut self, bytes: u64) -> Result<bool> {
        self.cut(self.at.saturating_sub(bytes))?;
        Ok(true)
    }
}

fn unwritable(path: &Path, error: &io::Error) -> Error {
    let advice = match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "; make room, and run it again: it goes on from here"
        }
        io::ErrorKind::FileTooLarge => "; FAT takes no more than 4 GiB in a file",
        _ => "",
    };
    Kind::Unavailable.because(format!("{} cannot be written: {error}{advice}", path.display()))
}

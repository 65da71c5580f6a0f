//! Images of other registries on their way into a bundle, which goes on where it was if it broke off.

use bytes::Bytes;
use std::collections::{HashMap, HashSet};
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use tokio::runtime::Runtime;

use crate::bundle::{BlobLine, Contents, Held, Inventory, Layout, ManifestLine, Part, TagLine};
use crate::client::{Fetch, Fetched, ImageName, Select, Selection, Wanted};
use crate::error::{Error, Kind, Result, Thing};
use crate::hash::Hash;
use crate::manifest;
use crate::names::{Digest, RepoName, Tag};

/// What is read at once of what is had.
const PIECE: usize = 256 << 10;

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
    /// Blobs that the site has.
    pub base: u64,
}

/// Fetches what is named into a bundle. Blobs that `have` lists are named and not carried;
/// `progress` hears of bytes done and of all. The same images are the same bytes, so a file that an
/// earlier run began is gone on with as far as it agrees.
pub fn pull(
    runtime: &Runtime,
    select: &Select,
    names: &[ImageName],
    to: &To,
    have: Option<&Inventory>,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Pulled> {
    if let To::File(path) = to
        && path.exists()
    {
        return Err(Kind::Exists(Thing::Request)
            .because(format!("{} is there already; name another file", path.display())));
    }
    let selection = runtime.block_on(select.select(names))?;
    let layout = Layout::bundle(contents(&selection), have, None, None)?;
    let coming = Coming::new(selection, &layout);
    let mut pulled = Pulled {
        tags: layout.document.tags.len() as u64,
        manifests: layout.document.manifests.len() as u64,
        blobs: layout.document.blobs.len() as u64,
        base: layout.document.base.blobs.len() as u64,
        bytes: layout.bytes,
        had: 0,
    };
    match to {
        To::Output => {
            let mut out = Stream { to: io::stdout().lock() };
            write(runtime, &layout, &coming, &mut out, &mut pulled, progress)?;
            out.to.flush().map_err(|error| unwritable(Path::new("standard output"), &error))?;
        }
        To::File(path) => {
            let mut out = Growing::open(&part_of(path))?;
            write(runtime, &layout, &coming, &mut out, &mut pulled, progress)?;
            out.finish(path)?;
        }
    }
    Ok(pulled)
}

/// What was selected, as a bundle names it.
fn contents(selection: &Selection) -> Contents {
    let attestations: HashSet<Digest> = selection
        .manifests
        .iter()
        .flat_map(|(fetched, _)| manifest::index_attestations(&fetched.bytes))
        .map(|(attestation, _)| attestation)
        .collect();
    let held = |(fetched, repos): &(Fetched, Vec<RepoName>)| {
        let layers = manifest::blob_sizes(&fetched.bytes).into_iter().map(|(digest, _)| digest);
        Held {
            line: ManifestLine {
                digest: fetched.digest.clone(),
                size: fetched.bytes.len() as u64,
                media_type: fetched.manifest.media_type.to_owned(),
                repos: repos.clone(),
            },
            layers: layers.filter(|layer| fetched.manifest.config.as_ref() != Some(layer)).collect(),
            attests: attestations.contains(&fetched.digest),
            named: fetched.manifest.clone(),
        }
    };
    let blob = |(wanted, repos): &(Wanted, Vec<RepoName>)| BlobLine {
        digest: wanted.digest.clone(),
        size: wanted.size,
        repos: repos.clone(),
    };
    let tag = |(repo, tag, digest): &(RepoName, Tag, Digest)| TagLine {
        repo: repo.clone(),
        tag: tag.clone(),
        digest: digest.clone(),
    };
    let mut tags: Vec<TagLine> = selection.tags.iter().map(tag).collect();
    tags.sort_by(|one, next| (one.repo.full(), one.tag.as_str()).cmp(&(next.repo.full(), next.tag.as_str())));
    Contents {
        tags,
        manifests: selection.manifests.iter().map(held).collect(),
        blobs: selection.blobs.iter().map(blob).collect(),
    }
}

/// What the parts of a stream are filled with.
struct Coming {
    manifests: HashMap<Digest, Bytes>,
    /// Blobs that are carried, in the order of their parts.
    blobs: Vec<Wanted>,
}

impl Coming {
    fn new(selection: Selection, layout: &Layout) -> Coming {
        let carried: HashSet<&Digest> = layout.document.blobs.iter().map(|line| &line.digest).collect();
        let blobs = selection.blobs.into_iter().map(|(wanted, _)| wanted);
        let manifests = selection.manifests.into_iter().map(|(fetched, _)| (fetched.digest, fetched.bytes));
        Coming {
            manifests: manifests.collect(),
            // What is empty has no part.
            blobs: blobs.filter(|wanted| wanted.size > 0 && carried.contains(&wanted.digest)).collect(),
        }
    }
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
    coming: &Coming,
    out: &mut dyn Out,
    pulled: &mut Pulled,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<()> {
    let mut blobs = coming.blobs.iter();
    let fetch = |rest: &[Wanted]| Fetch::new(runtime.handle(), rest.iter().cloned());
    let mut fetching = fetch(&coming.blobs);
    let mut done = 0;
    for part in &layout.parts {
        match part {
            Part::Known(bytes) => {
                out.put(bytes)?;
                done += bytes.len() as u64;
            }
            Part::Manifest(at) => {
                let line = layout.document.manifests.get(*at).ok_or(Kind::Internal)?;
                out.put(coming.manifests.get(&line.digest).ok_or(Kind::Internal)?)?;
                done += line.size;
            }
            Part::Blob(_) => {
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

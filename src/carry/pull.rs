//! Images of other registries on their way into a bundle, which goes on where it was if it broke off.

use bytes::Bytes;
use std::collections::{HashMap, HashSet};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use tokio::runtime::Runtime;

use super::file::{BundleFile, unwritable};
use crate::bundle::{BlobLine, Contents, Held, Inventory, Key, Layout, ManifestLine, Part, Sent, TagLine};
use crate::client::{Fetch, Fetched, ImageName, Select, Selection, Wanted};
use crate::error::{Kind, Result};
use crate::hash::Hash;
use crate::manifest;
use crate::names::{Digest, RepoName, Tag};

/// What is read at once of what is had.
const PIECE: usize = 256 << 10;

/// Where a bundle is written.
pub enum To {
    /// A file, or its volumes of a size, as `….part` until they are whole.
    File {
        path: PathBuf,
        volume: Option<u64>,
    },
    Output,
}

/// Who signs a bundle.
pub struct Signing<'a> {
    pub key: &'a Key,
    /// The bundle's sequence and the moment it is made, RFC 3339: asked for once it is known
    /// what will be in it.
    pub number: &'a dyn Fn() -> Result<(u64, String)>,
}

/// What came of it.
#[derive(Debug, Default, serde::Serialize)]
pub struct Pulled {
    /// None where it went to standard output.
    pub files: Vec<PathBuf>,
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
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub sent: Option<Sent>,
}

/// Fetches what is named into a bundle. Blobs that `have` lists are named and not carried;
/// `progress` hears of bytes done and of all. The same images are the same bytes, but for what a
/// signature adds in front, so a file that an earlier run began is gone on with as far as it agrees.
pub fn pull(
    runtime: &Runtime,
    select: &Select,
    names: &[ImageName],
    to: &To,
    have: Option<&Inventory>,
    signing: Option<&Signing>,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Pulled> {
    if let To::File { path, volume } = to {
        // Before anybody is asked for anything.
        BundleFile::check(path, *volume, 0)?;
    }
    let selection = runtime.block_on(select.select(names))?;
    let number = signing.map(|signing| (signing.number)()).transpose()?;
    let (number, made) = number.unzip();
    let signed = signing.map(|signing| signing.key).zip(number);
    let layout = Layout::bundle(contents(&selection), have, made, signed)?;
    let coming = Coming::new(selection, &layout);
    let mut pulled = Pulled {
        tags: layout.document.tags.len() as u64,
        manifests: layout.document.manifests.len() as u64,
        blobs: layout.document.blobs.len() as u64,
        base: layout.document.base.blobs.len() as u64,
        bytes: layout.bytes,
        sent: layout.document.sent.clone(),
        ..Pulled::default()
    };
    match to {
        To::Output => {
            let mut out = Stream { to: io::stdout().lock() };
            write(runtime, &layout, &coming, &mut out, &mut pulled, progress)?;
            out.to.flush().map_err(|error| unwritable(Path::new("standard output"), &error))?;
        }
        To::File { path, volume } => {
            let mut out = Growing { file: BundleFile::open(path, *volume, layout.bytes)?, at: 0 };
            write(runtime, &layout, &coming, &mut out, &mut pulled, progress)?;
            out.file.cut(out.at)?;
            pulled.files = out.file.finish()?;
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
    file: BundleFile,
    at: u64,
}

impl Growing {
    fn cut(&mut self, at: u64) -> Result<()> {
        self.at = at;
        self.file.cut(at)
    }
}

impl Out for Growing {
    fn put(&mut self, bytes: &[u8]) -> Result<()> {
        let end = self.at + bytes.len() as u64;
        if end <= self.file.bytes() {
            let mut there = vec![0; bytes.len()];
            self.file.read(&mut there, self.at)?;
            if there == bytes {
                self.at = end;
                return Ok(());
            }
            // What follows may be right all the same: a new signature is as long as the last one.
        }
        self.file.write(bytes, self.at)?;
        self.at = end;
        Ok(())
    }

    fn had(&mut self, digest: &Digest, size: u64) -> Result<(u64, Hash)> {
        let (start, there) = (self.at, self.file.bytes().saturating_sub(self.at).min(size));
        let mut hash = Hash::new(digest.algorithm());
        let mut piece = vec![0; PIECE];
        while self.at < start + there {
            let most = usize::try_from(start + there - self.at).unwrap_or(PIECE).min(PIECE);
            self.file.read(&mut piece[..most], self.at)?;
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

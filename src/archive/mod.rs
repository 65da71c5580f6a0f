//! Archives of images, read as they come: what is a blob goes on to whoever takes it, what says
//! how blobs belong together is kept. Knows no registry and no HTTP.
//!
//! An archive is known by what is in it, not by its name: an OCI image layout (`index.json`), what
//! `docker save` writes (`manifest.json`, or `repositories` of before 2016), or a bundle of ours
//! (`outport/bundle.json`). Its entries may come in any order, since a stream cannot go back; only
//! a bundle begins with its document.

mod contents;
mod docker;
mod source;
mod tar;

use std::collections::{HashMap, HashSet};
use std::io::{self, Read};
use std::path::Path;
use std::sync::atomic::Ordering;

use crate::bundle::{DOCUMENT, DOCUMENT_BYTES_MAX, LINES_MAX, SIGNATURE, SIGNATURE_BYTES_MAX};
use crate::error::{Error, Kind, Result, Thing};
use crate::hash::Hash;
use crate::names::Digest;

pub use contents::{Content, Naming, Plan, Planned, strip_host};
pub use source::{VOLUMES_MAX, Volumes, numbered, unpack, unreadable, volumes};
pub use tar::{Entry, Form, Tar};

/// Most entries of an archive: as many as a bundle's document may name, and some. Each is
/// remembered, in 50 bytes.
const ENTRIES_MAX: usize = 2 * LINES_MAX + 1_000;
/// Most files that are called by a path and not by their digest, and links: of `docker save`, two
/// or three a layer.
const NAMED_MAX: usize = 10_000;
/// Longest of the files that say what is in an archive, in bytes.
const JSON_BYTES_MAX: u64 = 4 << 20;
/// What is kept of images' own JSON files from before 2016, all together, in bytes.
const V1_BYTES_MAX: usize = 4 << 20;
/// How many links may lie between a name and its file.
const LINKS_MAX: usize = 8;

/// Who takes what an archive holds, in the order it comes.
pub trait Taker {
    /// A bundle's document, and its signature if it has one: before any of its blobs.
    fn document(&mut self, document: &[u8], signature: Option<&[u8]>) -> Result<()>;

    /// A blob of so many bytes, to be read to its end. Gives the digest of what was read; that it
    /// is the `expected` one is checked by who asks. Errors of `from` are told by [`broken`].
    fn blob(&mut self, expected: Option<&Digest>, bytes: u64, from: &mut dyn Read) -> Result<Digest>;
}

/// The first 32 bytes of a digest: enough to tell blobs apart.
pub type Key = [u8; 32];

/// A blob that an archive brought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Carried {
    pub digest: Digest,
    pub bytes: u64,
}

/// What an archive said of itself, and what it held.
#[derive(Debug, Default)]
pub struct Archive {
    /// `outport/bundle.json`, as it came.
    pub document: Option<Vec<u8>>,
    /// `outport/bundle.sig`, likewise.
    pub signature: Option<Vec<u8>>,
    index: Option<Vec<u8>>,
    docker: Option<Vec<u8>>,
    repositories: Option<Vec<u8>>,
    layout: bool,
    blobs: HashMap<Key, u64>,
    /// Files that are called by their path.
    files: HashMap<String, Carried>,
    links: HashMap<String, String>,
    /// `ID/json` of images from before 2016; None once they were too many.
    v1: Option<HashMap<String, Vec<u8>>>,
}

impl Archive {
    /// How many bytes a blob had, if the archive brought it.
    pub fn bytes(&self, digest: &Digest) -> Option<u64> {
        self.blobs.get(&key(digest)).copied()
    }

    /// How many blobs it brought, manifests among them.
    pub fn blobs(&self) -> usize {
        self.blobs.len()
    }

    /// The same, to be looked at.
    pub fn sizes(&self) -> &HashMap<Key, u64> {
        &self.blobs
    }

    /// Which blobs it brought, and how many bytes each had.
    pub fn into_blobs(self) -> HashMap<Key, u64> {
        self.blobs
    }

    /// The blob that a path of the archive is, links followed.
    fn file(&self, path: &str) -> Option<Carried> {
        let mut path = path;
        for _ in 0..LINKS_MAX {
            if let Some(carried) = self.files.get(path) {
                return Some(carried.clone());
            }
            if let Some(digest) = blob_path(path)
                && let Some(bytes) = self.bytes(&digest)
            {
                return Some(Carried { digest, bytes });
            }
            path = self.links.get(path)?;
        }
        None
    }
}

/// A digest, short.
pub fn key(digest: &Digest) -> Key {
    let mut key = [0; 32];
    for (byte, pair) in key.iter_mut().zip(digest.hex().as_bytes().chunks_exact(2)) {
        // A digest is lower-case hex.
        let nibble = |letter: u8| if letter <= b'9' { letter - b'0' } else { letter - b'a' + 10 };
        *byte = nibble(pair[0]) << 4 | nibble(pair[1]);
    }
    key
}

/// Reads an archive from a stream to its end, unpacking it if need be.
///
/// Fails with a sentence that says what is wrong with the archive: damaged, torn, hostile, or no
/// archive of images.
pub fn read(from: impl Read + Send, taker: &mut dyn Taker) -> Result<Archive> {
    let mut tar = Tar::new(unpack(from)?);
    let mut reading = Reading::new(taker);
    while let Some(entry) = tar.entry()? {
        reading.entry(&entry, &mut tar)?;
    }
    reading.finish()
}

/// Reads an archive where it lies: a directory, a file, or the first of its volumes.
pub fn read_path(path: &Path, taker: &mut dyn Taker) -> Result<Archive> {
    if path.is_dir() {
        return read_dir(path, taker);
    }
    let paths = volumes(path)?;
    let last = paths.last().cloned().unwrap_or_default();
    let (volumes, ended) = Volumes::new(paths);
    read(volumes, taker).map_err(|error| match last.extension() {
        // It was read to where the files end, and that was too early.
        Some(number) if ended.load(Ordering::Relaxed) && (last != path || number == "001") => {
            error.kind.because(format!("{}; the last volume here is {}", error.detail(), last.display()))
        }
        _ => error,
    })
}

/// What a file seems to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// A bundle of ours: its document is among the first entries.
    Bundle,
    /// A tar archive.
    Archive,
    /// Something else, or not to be read.
    Nothing,
}

/// What a file seems to be, by how it begins.
pub fn find(path: &Path) -> Found {
    let look = || -> Result<Found> {
        let mut tar = Tar::new(unpack(Volumes::new(volumes(path)?).0)?);
        for _ in 0..2 {
            match tar.entry()? {
                Some(entry) if entry.path == DOCUMENT => return Ok(Found::Bundle),
                Some(_) => {}
                None => return Ok(Found::Nothing),
            }
        }
        Ok(Found::Archive)
    };
    look().unwrap_or(Found::Nothing)
}

/// Reads an archive that was unpacked into a directory. Links are not followed by the file system.
pub fn read_dir(dir: &Path, taker: &mut dyn Taker) -> Result<Archive> {
    let mut reading = Reading::new(taker);
    // A bundle's document first, as in its stream; then what says most.
    let first = ["oci-layout", DOCUMENT, SIGNATURE, "index.json", "manifest.json", "repositories"];
    for name in first {
        let path = dir.join(name);
        if path.symlink_metadata().is_ok_and(|found| found.is_file()) {
            reading.file_of_dir(name, &path)?;
        }
    }
    let mut within = vec![String::new()];
    while let Some(at) = within.pop() {
        let path = dir.join(&at);
        for entry in std::fs::read_dir(&path).map_err(|error| unreadable(&path, &error))? {
            let entry = entry.map_err(|error| unreadable(&path, &error))?;
            let kind = entry.file_type().map_err(|error| unreadable(&entry.path(), &error))?;
            let name = entry.file_name();
            let name = name.to_str().ok_or_else(|| refused("a file's name is not UTF-8"))?;
            let inside = if at.is_empty() { name.to_owned() } else { format!("{at}/{name}") };
            if inside.split('/').count() > DIR_DEPTH_MAX {
                return Err(refused("its directories lie too deep in each other"));
            }
            if kind.is_dir() {
                reading.count()?;
                within.push(inside);
            } else if kind.is_symlink() {
                let target = std::fs::read_link(entry.path()).map_err(|e| unreadable(&entry.path(), &e))?;
                let from = inside.rsplit_once('/').map_or("", |(parent, _)| parent);
                let target = tar::follow(from, target.as_os_str().as_encoded_bytes(), &inside)?;
                let entry = Entry { path: inside, form: Form::Link(target), bytes: 0 };
                reading.entry(&entry, &mut io::empty())?;
            } else if !kind.is_file() {
                return Err(refused(format!("{inside} is no file, directory or link; no image has such")));
            } else if !first.contains(&inside.as_str()) {
                reading.file_of_dir(&inside, &entry.path())?;
            }
        }
    }
    reading.finish()
}

/// Deepest directory: archives have `blobs/sha256`.
const DIR_DEPTH_MAX: usize = 16;

/// Reads a blob to its end and computes its digest: for takers that keep nothing.
pub fn digest_of_stream(expected: Option<&Digest>, from: &mut dyn Read) -> Result<Digest> {
    let mut hash = Hash::new(expected.map_or(crate::names::Algorithm::Sha256, Digest::algorithm));
    let mut buffer = vec![0; 64 << 10];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return Ok(hash.digest()),
            Ok(some) => hash.update(&buffer[..some]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(broken(&error)),
        }
    }
}

/// An archive on its way in.
struct Reading<'a> {
    taker: &'a mut dyn Taker,
    archive: Archive,
    /// Paths of what is kept here, to tell what comes twice.
    seen: HashSet<String>,
    entries: usize,
    /// The taker was given the document.
    told: bool,
}

impl<'a> Reading<'a> {
    fn new(taker: &'a mut dyn Taker) -> Reading<'a> {
        let archive = Archive { v1: Some(HashMap::new()), ..Archive::default() };
        Reading { taker, archive, seen: HashSet::new(), entries: 0, told: false }
    }

    fn count(&mut self) -> Result<()> {
        self.entries += 1;
        if self.entries > ENTRIES_MAX {
            return Err(refused(format!("it has more than {ENTRIES_MAX} entries")));
        }
        Ok(())
    }

    fn file_of_dir(&mut self, inside: &str, path: &Path) -> Result<()> {
        let file = std::fs::File::open(path).map_err(|error| unreadable(path, &error))?;
        let bytes = file.metadata().map_err(|error| unreadable(path, &error))?.len();
        let entry = Entry { path: inside.to_owned(), form: Form::File, bytes };
        self.entry(&entry, &mut Whole { from: file.take(bytes) })
    }

    fn entry(&mut self, entry: &Entry, from: &mut dyn Read) -> Result<()> {
        self.count()?;
        let path = entry.path.as_str();
        match &entry.form {
            Form::Dir => Ok(()),
            Form::Link(target) => {
                self.name(path)?;
                self.archive.links.insert(path.to_owned(), target.clone());
                Ok(())
            }
            Form::File => self.file(path, entry.bytes, from),
        }
    }

    /// Notes a path that must not come again.
    fn name(&mut self, path: &str) -> Result<()> {
        if self.seen.len() >= NAMED_MAX {
            return Err(refused(format!("it has more than {NAMED_MAX} files and links that are no blobs")));
        }
        if !self.seen.insert(path.to_owned()) {
            return Err(twice(path));
        }
        Ok(())
    }

    fn file(&mut self, path: &str, bytes: u64, from: &mut dyn Read) -> Result<()> {
        if let Some(digest) = blob_path(path) {
            return self.blob(path, &digest, bytes, from);
        }
        if path.starts_with("blobs/") {
            return Err(refused(format!("{path} is not called by a digest, as blobs are")));
        }
        self.name(path)?;
        let archive = &mut self.archive;
        match path {
            "oci-layout" => {
                check_layout(&small(path, JSON_BYTES_MAX, from)?)?;
                archive.layout = true;
            }
            DOCUMENT => {
                if self.told {
                    return Err(refused(format!("{path} must come before what it speaks of")));
                }
                archive.document = Some(small(path, DOCUMENT_BYTES_MAX as u64, from)?);
            }
            SIGNATURE => {
                if self.told || archive.document.is_none() {
                    return Err(refused(format!("{path} must follow the document it signs")));
                }
                archive.signature = Some(small(path, SIGNATURE_BYTES_MAX as u64, from)?);
            }
            // What the document says counts, and is shorter.
            "index.json" | "manifest.json" | "repositories" if archive.document.is_some() => {
                if path == "index.json" {
                    archive.index = Some(Vec::new());
                }
                self.tell()?;
            }
            "index.json" => {
                archive.index = Some(small(path, JSON_BYTES_MAX, from)?);
                self.tell()?;
            }
            "manifest.json" => {
                archive.docker = Some(small(path, JSON_BYTES_MAX, from)?);
                self.tell()?;
            }
            "repositories" => {
                archive.repositories = Some(small(path, JSON_BYTES_MAX, from)?);
                self.tell()?;
            }
            _ => match path.rsplit_once('/') {
                Some((id, "json")) => {
                    let text = small(path, JSON_BYTES_MAX, from)?;
                    archive.keep_v1(id, text);
                }
                _ if docker::may_be_blob(path) => {
                    self.tell()?;
                    let digest = self.taker.blob(None, bytes, from)?;
                    self.archive.blobs.insert(key(&digest), bytes);
                    self.archive.files.insert(path.to_owned(), Carried { digest, bytes });
                }
                // A layout may hold more than it has to.
                _ => {}
            },
        }
        Ok(())
    }

    fn blob(&mut self, path: &str, digest: &Digest, bytes: u64, from: &mut dyn Read) -> Result<()> {
        self.tell()?;
        if self.archive.blobs.contains_key(&key(digest)) {
            return Err(twice(path));
        }
        let found = self.taker.blob(Some(digest), bytes, from)?;
        if found != *digest {
            return Err(wrong_digest(path));
        }
        self.archive.blobs.insert(key(digest), bytes);
        Ok(())
    }

    /// Hands the document on before what follows it.
    fn tell(&mut self) -> Result<()> {
        if !self.told
            && let Some(document) = &self.archive.document
        {
            self.taker.document(document, self.archive.signature.as_deref())?;
        }
        self.told = true;
        Ok(())
    }

    fn finish(mut self) -> Result<Archive> {
        self.tell()?;
        let archive = self.archive;
        let known = archive.index.is_some() || archive.docker.is_some() || archive.repositories.is_some();
        if archive.layout && archive.index.is_none() {
            return Err(refused("it is an OCI image layout without its index.json"));
        }
        if archive.document.is_some() && archive.index.is_none() {
            return Err(refused("it is a bundle without its index.json"));
        }
        if !known {
            return Err(refused(
                "it holds no images: neither index.json of an OCI layout nor manifest.json of docker save \
                 is in it",
            ));
        }
        Ok(archive)
    }
}

impl Archive {
    fn keep_v1(&mut self, id: &str, text: Vec<u8>) {
        let kept: usize = self.v1.iter().flatten().map(|(_, text)| text.len()).sum();
        match &mut self.v1 {
            Some(v1) if kept + text.len() <= V1_BYTES_MAX => {
                v1.insert(id.to_owned(), text);
            }
            // They are needed only where there is no manifest.json.
            v1 => *v1 = None,
        }
    }
}

/// A file that must not be shorter than it was.
struct Whole<R> {
    from: io::Take<R>,
}

impl<R: Read> Read for Whole<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.from.read(buffer)? {
            0 if self.from.limit() > 0 && !buffer.is_empty() => Err(io::ErrorKind::UnexpectedEof.into()),
            some => Ok(some),
        }
    }
}

/// `blobs/ALGORITHM/HEX`.
fn blob_path(path: &str) -> Option<Digest> {
    let (algorithm, hex) = path.strip_prefix("blobs/")?.split_once('/')?;
    Digest::parse(&format!("{algorithm}:{hex}")).ok()
}

fn small(path: &str, max: u64, from: &mut dyn Read) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    from.take(max + 1).read_to_end(&mut bytes).map_err(|error| broken(&error))?;
    if bytes.len() as u64 > max {
        return Err(refused(format!("{path} has more than {max} bytes")));
    }
    Ok(bytes)
}

fn check_layout(text: &[u8]) -> Result<()> {
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Layout {
        image_layout_version: String,
    }
    match serde_json::from_slice::<Layout>(text) {
        Ok(layout) if layout.image_layout_version.starts_with("1.") => Ok(()),
        Ok(_) => Err(refused("its oci-layout names a version of the layout that is not known here")),
        Err(_) => Err(refused("its oci-layout does not parse")),
    }
}

fn twice(path: &str) -> Error {
    refused(format!("{path} comes twice"))
}

fn wrong_digest(path: &str) -> Error {
    Kind::DigestMismatch
        .because(format!("{path} does not have its digest: the archive is damaged; copy it again"))
}

/// An archive that is not taken, and why.
pub fn refused(why: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    let why: std::borrow::Cow<'static, str> = why.into();
    Kind::Invalid(Thing::Request).because(format!("the archive is not taken: {why}"))
}

/// The error of an archive that cannot be read to its end; one of ours that came through a stream
/// is taken out of it.
pub fn broken(error: &io::Error) -> Error {
    if let Some(ours) = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
        return ours.kind.because(ours.detail().into_owned());
    }
    match error.kind() {
        io::ErrorKind::UnexpectedEof => {
            refused("it ends too early; it was torn off, or a part of it is missing")
        }
        _ => refused("it cannot be read to its end; it is damaged").with_cause(error.to_string()),
    }
}

//! Archives on their way in: a slow push. Blobs are committed as they come, nobody's until a
//! manifest names them; then all manifests and tags of an archive appear in one transaction.
//!
//! While an import is at work nothing is collected, so what it found here stays. What it leaves
//! when it is stopped is collected like any blob that was pushed and never named; until then the
//! next try finds it here.

use bytes::Bytes;
use serde::Serialize;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::io::Read;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::blobs::{Blobs, Piece, Sealed};
use super::db::Write;
use super::gc::{CollectionLock, lock_collection};
use super::people::User;
use super::trust::check_sequence;
use super::{Registry, manifest_set, repo_make, some, sql};
use crate::archive::{self, Archive, Content, Key, Naming, Plan, Planned, Taker, broken, key, refused};
use crate::bundle::{Document, KeyName, Signature, Signs};
use crate::error::{Error, Kind, Result, Thing};
use crate::hash::digest_of;
use crate::manifest::{self, MANIFEST_BYTES_MAX};
use crate::names::{Algorithm, Digest, RepoName, Tag};

/// How much is read from an archive at once.
const READ_BYTES: usize = 256 << 10;
/// Room on the disk is looked at again after so many bytes.
const ROOM_EVERY: u64 = 64 << 20;
/// Blobs that share a commit: what a kill loses at most.
const TOGETHER_MAX: usize = 64;
const TOGETHER_BYTES: u64 = 8 << 20;
/// How long a collection that is at work is waited for.
const COLLECTION_WAIT: Duration = Duration::from_secs(60);
/// What a dry run keeps in memory of manifests and configs, in bytes.
const DRY_BYTES_MAX: usize = 16 << 20;
/// Imports that can be listed and put back.
const KEPT: u32 = 100;

/// Who imports: nobody in particular at the command line, who may name every blob there is.
#[derive(Debug, Clone, Default)]
pub struct ImportBy {
    pub user: Option<User>,
}

impl ImportBy {
    /// Whose rights count; none for those who may everything.
    fn bound(&self) -> Option<i64> {
        self.user.as_ref().filter(|user| !user.admin).map(|user| user.id)
    }
}

/// What an import may take although the site trusts keys.
#[derive(Debug, Clone, Copy, Default)]
pub struct Allow {
    /// What nobody signed whose key is trusted.
    pub unsigned: bool,
    /// A bundle older than the last one of its sender.
    pub older: bool,
    /// The last one of its sender once more.
    pub replayed: bool,
}

impl Allow {
    /// From the words people write.
    pub fn parse(words: &[impl AsRef<str>]) -> Result<Allow> {
        let mut allow = Allow::default();
        for word in words {
            match word.as_ref() {
                "unsigned" => allow.unsigned = true,
                "older" => allow.older = true,
                "replayed" => allow.replayed = true,
                _ => {
                    return Err(Kind::Invalid(Thing::Request)
                        .because("what can be allowed is unsigned, older and replayed"));
                }
            }
        }
        Ok(allow)
    }
}

/// What is asked of an import.
#[derive(Debug, Clone, Default)]
pub struct ImportAsk {
    pub by: ImportBy,
    pub naming: Naming,
    pub allow: Allow,
    /// Only what a trusted key signed, even if none is trusted.
    pub signed_only: bool,
    /// Read and check, and write nothing.
    pub dry_run: bool,
}

/// An archive on its way in.
pub struct Import<'r> {
    registry: &'r Registry,
    by: ImportBy,
    naming: Naming,
    /// What the archive brought, and how many bytes each blob has.
    carried: HashMap<Key, u64>,
    /// Written, and not committed yet.
    together: Vec<Sealed>,
    /// In a dry run nothing is written; what may be a manifest is kept here.
    dry: Option<HashMap<Digest, Bytes>>,
    heads: HashMap<Key, [u8; 4]>,
    sender: Sender,
    allow: Allow,
    signed_only: bool,
    /// The key whose sequence this import uses up; set once it was looked at who sent the archive.
    vouched: Option<Option<KeyName>>,
    done: Brought,
    told: Box<dyn FnMut(u64) + 'r>,
    /// No collection meanwhile.
    _stay: CollectionLock,
}

/// Who sent a bundle.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Sender {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<KeyName>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sequence: Option<u64>,
}

/// What came.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Brought {
    /// Blobs that were written, and their bytes; manifests are among them.
    pub blobs_new: u64,
    pub bytes_new: u64,
    /// Blobs that were here already, and were not written.
    pub blobs_here: u64,
    pub bytes_here: u64,
}

/// A tag that an import set.
#[derive(Debug, Clone, Serialize, PartialEq, Eq)]
pub struct TagMoved {
    pub repo: String,
    pub tag: String,
    pub digest: Digest,
    /// What it named before; none if it is new.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before: Option<Digest>,
}

/// An import that is done.
#[derive(Debug, Clone, Serialize)]
pub struct Arrived {
    /// What `outport rollback` calls it; none if no tag was moved.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<i64>,
    pub sender: Sender,
    pub images: u64,
    /// All that the archive names, also those that were like this before.
    pub tags: Vec<TagMoved>,
    #[serde(flatten)]
    pub brought: Brought,
    /// Images that an index lists for other platforms, which the archive does not hold.
    pub absent: Vec<Digest>,
    #[serde(skip)]
    pub is_bundle: bool,
}

/// An import, for a list.
#[derive(Debug, Clone, Serialize)]
pub struct ImportRow {
    pub id: i64,
    pub source: String,
    pub sender: Option<String>,
    pub sequence: Option<u64>,
    pub imported_us: i64,
    pub rolled_back_us: Option<i64>,
    /// How many tags it moved.
    pub tags: u64,
}

/// What was put back, and what was not.
#[derive(Debug, Clone, Serialize)]
pub struct RolledBack {
    pub id: i64,
    pub back: Vec<TagMoved>,
    /// Tags that others moved since, and those whose former image is gone: as they are.
    pub left: Vec<TagMoved>,
}

impl Registry {
    /// Begins an import. `told` hears how many bytes have come.
    ///
    /// Waits for a collection that is at work, a minute at most; `Unavailable` after that.
    pub fn import_begin<'r>(&'r self, ask: ImportAsk, told: impl FnMut(u64) + 'r) -> Result<Import<'r>> {
        let began = Instant::now();
        let stay = loop {
            match lock_collection(&self.dir, true) {
                Err(error) if error.kind == Kind::Unavailable && began.elapsed() < COLLECTION_WAIT => {
                    std::thread::sleep(Duration::from_millis(50));
                }
                outcome => break outcome?,
            }
        };
        if !ask.dry_run {
            self.blobs.imports_clear()?;
        }
        Ok(Import {
            registry: self,
            by: ask.by,
            naming: ask.naming,
            carried: HashMap::new(),
            together: Vec::new(),
            dry: ask.dry_run.then(HashMap::new),
            heads: HashMap::new(),
            sender: Sender::default(),
            allow: ask.allow,
            signed_only: ask.signed_only,
            vouched: None,
            done: Brought::default(),
            told: Box::new(told),
            _stay: stay,
        })
    }

    /// The last imports that moved tags, the newest first.
    pub fn imports(&self) -> Result<Vec<ImportRow>> {
        self.db.read(|tx| sql::imports(tx, KEPT))
    }

    /// Puts tags back as they were before an import, or before the last one that was not put
    /// back; all in one transaction. `NotFound(Request)` if there is none.
    pub fn rollback(&self, id: Option<i64>) -> Result<RolledBack> {
        self.db.write(move |write| {
            let tx = write.tx;
            let none = || Kind::NotFound(Thing::Tag);
            let row = match id {
                Some(id) => sql::import(tx, id)?.ok_or_else(|| {
                    none().because(format!("there is no import {id}; `outport rollback --list` shows them"))
                })?,
                None => sql::imports(tx, KEPT)?
                    .into_iter()
                    .find(|row| row.rolled_back_us.is_none())
                    .ok_or_else(|| none().because("there is no import whose tags could be put back"))?,
            };
            if row.rolled_back_us.is_some() {
                return Err(Kind::Exists(Thing::Tag)
                    .because(format!("the tags of import {} were put back already", row.id)));
            }
            let mut done = RolledBack { id: row.id, back: Vec::new(), left: Vec::new() };
            for moved in sql::import_tags(tx, row.id)? {
                match put_back(write, &moved)? {
                    true => done.back.push(moved),
                    false => done.left.push(moved),
                }
            }
            sql::import_set_rolled_back(tx, row.id, write.now_us)?;
            Ok(done)
        })
    }
}

/// Puts one tag back; false if others moved it since, or what it named is gone.
fn put_back(write: &Write, moved: &TagMoved) -> Result<bool> {
    let tx = write.tx;
    let (name, tag) = (RepoName::parse(&moved.repo)?, Tag::parse(&moved.tag)?);
    let Some(repo) = sql::repo(tx, &name)? else { return Ok(false) };
    let now = sql::tag_row(tx, repo.id, tag.as_str())?.map(|row| row.digest);
    if now.as_ref() != Some(&moved.digest) {
        return Ok(false);
    }
    match &moved.before {
        None => {
            sql::tag_delete(tx, repo.id, &tag)?;
        }
        Some(before) => {
            let Some(image) = sql::manifest_by_digest(tx, &name, before)? else { return Ok(false) };
            sql::tag_set(tx, repo.id, &tag, image.id, write.stamp(None))?;
        }
    }
    sql::repo_set_pushed(tx, repo.id, write.now_us)?;
    Ok(true)
}

impl Taker for Import<'_> {
    fn document(&mut self, document: &[u8], signature: Option<&[u8]>) -> Result<()> {
        self.vouched = Some(self.check_sender(document, signature)?);
        let document = Document::read(document)?;
        self.check_base(&document)?;
        if let Some(sent) = document.sent {
            self.sender = Sender { name: Some(sent.sender), sequence: Some(sent.sequence) };
        }
        Ok(())
    }

    fn blob(&mut self, expected: Option<&Digest>, bytes: u64, from: &mut dyn Read) -> Result<Digest> {
        if self.vouched.is_none() {
            // No document came before it, and none may come after.
            self.vouched = Some(self.check_unsigned()?);
        }
        let digest = match expected {
            _ if self.dry.is_some() => self.look_at(expected, bytes, from)?,
            Some(digest) if self.is_here(digest)? => self.pass_by(digest, from)?,
            _ => self.write(expected, bytes, from)?,
        };
        self.carried.insert(key(&digest), bytes);
        Ok(digest)
    }
}

impl Content for Import<'_> {
    fn small(&mut self, digest: &Digest, max: u64) -> Result<Option<Vec<u8>>> {
        if self.bytes(digest).is_none_or(|bytes| bytes > max) {
            return Ok(None);
        }
        if let Some(kept) = &self.dry {
            return Ok(Some(dry_body(kept, digest)));
        }
        self.flush()?;
        let blobs = &self.registry.blobs;
        self.registry.db.read(|tx| whole(tx, blobs, digest)).map(Some)
    }

    fn head(&mut self, digest: &Digest) -> Result<[u8; 4]> {
        Ok(self.heads.get(&key(digest)).copied().unwrap_or_default())
    }

    fn bytes(&self, digest: &Digest) -> Option<u64> {
        self.carried.get(&key(digest)).copied()
    }

    fn keep(&mut self, bytes: &[u8]) -> Result<Digest> {
        let digest = digest_of(Algorithm::Sha256, bytes);
        self.blob(Some(&digest), bytes.len() as u64, &mut &bytes[..])
    }
}

impl Import<'_> {
    /// Makes what an archive holds appear, all of it or nothing. `permit` is asked once for each
    /// repository; `source` is what a list of imports calls the archive.
    ///
    /// Fails with `BlobMissing` naming what is neither in the archive nor here.
    pub fn finish(
        mut self,
        archive: &Archive,
        source: &str,
        mut permit: impl FnMut(&RepoName) -> Result<()>,
    ) -> Result<Arrived> {
        if self.vouched.is_none() {
            // It brought no blobs, and moves tags all the same.
            self.vouched = Some(self.check_unsigned()?);
        }
        let naming = self.naming.clone();
        let plan = archive.plan(&naming, &mut self)?;
        let named = plan.manifests.iter().map(|planned| &planned.repo);
        let repos: BTreeSet<&str> =
            named.chain(plan.tags.iter().map(|(repo, ..)| repo)).map(RepoName::full).collect();
        for repo in repos {
            permit(&RepoName::parse(repo)?)?;
        }
        self.flush()?;
        let used = self.vouched.take().flatten().zip(self.sender.sequence);
        let allow = self.allow;
        let whole = Arc::new(Whole {
            plan,
            carried: std::mem::take(&mut self.carried),
            bound: self.by.bound(),
            files: self.registry.blobs.clone(),
        });
        let mut imported = Arrived {
            id: None,
            sender: self.sender.clone(),
            images: whole.plan.manifests.len() as u64,
            tags: Vec::new(),
            brought: self.done.clone(),
            absent: whole.plan.absent.clone(),
            is_bundle: archive.document.is_some(),
        };
        self.check_whole(&whole)?;
        if self.dry.is_some() {
            imported.tags = self.registry.db.read(|tx| whole.tags(tx))?;
            return Ok(imported);
        }
        let (by, private) = (self.by.user.as_ref().map(|user| user.id), self.registry.options().private);
        let (source, sender) = (source.to_owned(), self.sender.clone());
        let carried = &whole.plan.manifests[..whole.plan.carried];
        let manifests: Vec<Digest> = carried.iter().map(|planned| planned.digest.clone()).collect();
        let written = self.registry.db.write(move |write| {
            if let Some((key, sequence)) = &used {
                let trusted = sql::trusted_key(write.tx, key.as_str())?;
                // It may have been taken meanwhile by somebody else, or the key be trusted no more.
                let trusted =
                    trusted.ok_or_else(|| Kind::Denied.because("the key is not trusted any longer"))?;
                check_sequence(&trusted, *sequence, allow)?;
                sql::trusted_key_set_sequence(write.tx, key.as_str(), *sequence.max(&trusted.sequence))?;
            }
            let tags = whole.write(write, by, private)?;
            if tags.iter().all(|moved| moved.before.as_ref() == Some(&moved.digest)) {
                return Ok((None, tags));
            }
            let id = sql::import_insert(write.tx, &source, &sender, by, write.now_us)?;
            for moved in tags.iter().filter(|moved| moved.before.as_ref() != Some(&moved.digest)) {
                sql::import_tag_insert(write.tx, id, moved)?;
            }
            sql::imports_forget(write.tx, KEPT)?;
            Ok((Some(id), tags))
        })?;
        (imported.id, imported.tags) = written;
        self.registry.files_remove(manifests)?;
        Ok(imported)
    }

    /// Whether what a delta builds upon is here. All that is missing is counted, some is named.
    fn check_base(&self, document: &Document) -> Result<()> {
        let bound = self.by.bound();
        let files = &self.registry.blobs;
        let missing: Vec<(&Digest, u64)> = self.registry.db.read(|tx| {
            let mut missing = Vec::new();
            for line in &document.base.blobs {
                if held(tx, files, &line.digest, &line.repos, bound)?.is_none() {
                    missing.push((&line.digest, line.size));
                }
            }
            for line in &document.base.manifests {
                for repo in &line.repos {
                    if base_manifest(tx, &self.naming.under(repo)?, &line.digest, bound)?.is_none() {
                        missing.push((&line.digest, line.size));
                        break;
                    }
                }
            }
            Ok(missing)
        })?;
        if missing.is_empty() {
            return Ok(());
        }
        let named: Vec<&str> = missing.iter().map(|(digest, _)| digest.as_str()).collect();
        Err(Kind::BlobMissing.because(format!(
            "the bundle builds upon {} blobs and images that are not here, {} bytes of them: {}; \
             nothing was changed. Make an inventory here, and a bundle that has what is missing",
            missing.len(),
            missing.iter().fold(0, |sum: u64, (_, size)| sum.saturating_add(*size)),
            some(&named)
        )))
    }

    /// Whether a bundle is taken from whoever sent it. Gives the trusted key that signed it.
    fn check_sender(&self, document: &[u8], signature: Option<&[u8]>) -> Result<Option<KeyName>> {
        let Some(signature) = signature else { return self.check_unsigned() };
        let signature = Signature::read(signature)?;
        signature.verify(Signs::Bundle, document)?;
        let Some(trusted) = self.registry.trusted_key(&signature.public)? else {
            return self.check_unsigned().map_err(|error| {
                error.kind.because(format!(
                    "the bundle is signed by {}, whose key {} is not trusted here: \
                     `outport key trust {} {}` does that, if it is theirs",
                    signature.key, signature.public, signature.key, signature.public
                ))
            });
        };
        let sent =
            Document::read(document)?.sent.filter(|sent| sent.sender == signature.key).ok_or_else(|| {
                refused("it is signed, and its document does not name who signed it as its sender")
            })?;
        check_sequence(&trusted, sent.sequence, self.allow)?;
        Ok(Some(trusted.name))
    }

    /// What nobody vouches for is taken where no keys are trusted.
    fn check_unsigned(&self) -> Result<Option<KeyName>> {
        if self.allow.unsigned {
            return Ok(None);
        }
        match !self.signed_only && self.registry.trusted_keys()?.is_empty() {
            true => Ok(None),
            false => Err(Kind::Denied.because(
                "the archive is not signed, and this site takes what is signed by keys it trusts; \
                 --allow unsigned takes it all the same",
            )),
        }
    }

    /// Whether a blob need not be written: it is in the store, or was brought a moment ago.
    fn is_here(&self, digest: &Digest) -> Result<bool> {
        if self.together.iter().any(|sealed| sealed.digest == *digest) {
            return Ok(true);
        }
        self.registry.suspect_verify(digest)?;
        let blob = self.registry.db.read(|tx| sql::blob(tx, digest))?;
        Ok(blob.is_some_and(|blob| blob.live && self.registry.blobs.is_there(digest, blob.bytes)))
    }

    /// Reads a blob that is here already: what stands in an archive under a digest must have it.
    fn pass_by(&mut self, digest: &Digest, from: &mut dyn Read) -> Result<Digest> {
        let mut bytes = 0;
        let mut counted = Counted { from, told: &mut *self.told, bytes: &mut bytes, head: [0; 4] };
        let found = archive::digest_of_stream(Some(digest), &mut counted)?;
        let head = counted.head;
        self.heads.insert(key(&found), head);
        self.done.blobs_here += 1;
        self.done.bytes_here += bytes;
        Ok(found)
    }

    /// What a dry run does: computes digests, and keeps what may be a manifest or a config.
    fn look_at(&mut self, expected: Option<&Digest>, size: u64, from: &mut dyn Read) -> Result<Digest> {
        if !expected.map(|digest| self.is_here(digest)).transpose()?.unwrap_or_default() {
            self.registry.check_room(size)?;
        }
        if size > MANIFEST_BYTES_MAX as u64 {
            let mut bytes = 0;
            let mut counted = Counted { from, told: &mut *self.told, bytes: &mut bytes, head: [0; 4] };
            let found = archive::digest_of_stream(expected, &mut counted)?;
            let head = counted.head;
            self.heads.insert(key(&found), head);
            return Ok(found);
        }
        let mut bytes = Vec::new();
        from.read_to_end(&mut bytes).map_err(|error| broken(&error))?;
        let found = digest_of(expected.map_or(Algorithm::Sha256, Digest::algorithm), &bytes);
        let head = std::array::from_fn(|at| bytes.get(at).copied().unwrap_or_default());
        self.heads.insert(key(&found), head);
        let kept = self.dry.get_or_insert_default();
        if bytes.trim_ascii_start().starts_with(b"{") {
            if kept.values().map(Bytes::len).sum::<usize>() + bytes.len() > DRY_BYTES_MAX {
                return Err(Kind::TooLarge(Thing::Request)
                    .because("the archive has too many manifests for a dry run; import it"));
            }
            kept.insert(found.clone(), bytes.into());
        }
        Ok(found)
    }

    fn write(&mut self, expected: Option<&Digest>, size: u64, from: &mut dyn Read) -> Result<Digest> {
        self.registry.check_room(size)?;
        let algorithm = expected.map_or(Algorithm::Sha256, Digest::algorithm);
        let mut growing = self.registry.blobs.import_new(algorithm)?;
        let mut head = None;
        let told = &mut self.told;
        let registry = self.registry;
        let mut since_check = 0;
        let poured = pour(from, |piece| {
            let first: [u8; 4] = std::array::from_fn(|at| piece.get(at).copied().unwrap_or_default());
            head.get_or_insert(first);
            told(piece.len() as u64);
            since_check += piece.len() as u64;
            if since_check >= ROOM_EVERY {
                since_check = 0;
                registry.check_room(0)?;
            }
            Ok(growing.write(&[piece])?)
        });
        if let Err(error) = poured {
            growing.discard();
            return Err(error);
        }
        let digest = growing.digest();
        self.heads.insert(key(&digest), head.unwrap_or_default());
        if expected.is_some_and(|expected| *expected != digest) {
            growing.discard();
            return Ok(digest);
        }
        if expected.is_none() && self.is_here(&digest)? {
            growing.discard();
            self.done.blobs_here += 1;
            self.done.bytes_here += size;
            return Ok(digest);
        }
        self.done.blobs_new += 1;
        self.done.bytes_new += size;
        self.together.push(growing.seal_as(digest.clone())?);
        let bytes: u64 = self.together.iter().map(|sealed| sealed.bytes).sum();
        if bytes >= TOGETHER_BYTES || self.together.len() >= TOGETHER_MAX {
            self.flush()?;
        }
        Ok(digest)
    }

    /// Commits what was written: blobs that no repository has, and candidates for collection.
    fn flush(&mut self) -> Result<()> {
        if self.together.is_empty() {
            return Ok(());
        }
        let mut together = std::mem::take(&mut self.together);
        let digests: Vec<Digest> = together.iter().map(|sealed| sealed.digest.clone()).collect();
        self.registry.db.write(move |write| {
            for sealed in &mut together {
                write.shelf.place(sealed)?;
                let blob = sql::blob_upsert(write.tx, &sealed.digest, sealed.bytes, &sealed.crcs)?;
                sql::candidate_insert(write.tx, sql::Candidate { since_secs: write.service_secs, blob })?;
            }
            Ok(())
        })?;
        for digest in &digests {
            self.registry.suspects.clear(digest);
        }
        Ok(())
    }

    /// Looks whether everything is there before anything is written.
    fn check_whole(&self, whole: &Whole) -> Result<()> {
        if let Some(kept) = &self.dry {
            return self.registry.db.read(|tx| whole.check(tx, &|digest| Ok(dry_body(kept, digest))));
        }
        let blobs = &self.registry.blobs;
        self.registry.db.read(|tx| whole.check(tx, &|digest| self::whole(tx, blobs, digest)))
    }
}

/// All that is to appear.
struct Whole {
    plan: Plan,
    carried: HashMap<Key, u64>,
    /// Whose rights bound what may be named without having been brought.
    bound: Option<i64>,
    files: Blobs,
}

impl Whole {
    /// The blob behind a digest that a manifest of this repository may name: one that the archive
    /// brought, or that its sender may read here anyway.
    fn blob(&self, tx: &rusqlite::Connection, repo: &RepoName, digest: &Digest) -> Result<Option<i64>> {
        let bound = self.bound.filter(|_| !self.carried.contains_key(&key(digest)));
        held(tx, &self.files, digest, std::slice::from_ref(repo), bound)
    }

    fn check(&self, tx: &rusqlite::Connection, body: &dyn Fn(&Digest) -> Result<Vec<u8>>) -> Result<()> {
        let mut missing: BTreeSet<String> = BTreeSet::new();
        for planned in &self.plan.manifests[..self.plan.carried] {
            let body = body(&planned.digest)?;
            for blob in manifest::read(&body, planned.media_type.as_deref())?.blobs {
                // A dry run brought it and did not write it.
                let brought = self.carried.contains_key(&key(&blob));
                if !brought && self.blob(tx, &planned.repo, &blob)?.is_none() {
                    missing.insert(blob.as_str().to_owned());
                }
            }
        }
        let planned: HashSet<(&str, &str)> = self
            .plan
            .manifests
            .iter()
            .map(|planned| (planned.repo.full(), planned.digest.as_str()))
            .collect();
        for (repo, tag, digest) in &self.plan.tags {
            if !planned.contains(&(repo.full(), digest.as_str()))
                && sql::manifest_by_digest(tx, repo, digest)?.is_none()
            {
                return Err(no_image(repo, tag, digest));
            }
        }
        not_whole(&missing)
    }

    /// The bytes of a manifest that a delta builds upon and that its repository lacks.
    fn base_body(&self, tx: &rusqlite::Connection, planned: &Planned) -> Result<Option<Vec<u8>>> {
        let (repo, digest) = (&planned.repo, &planned.digest);
        if sql::manifest_by_digest(tx, repo, digest)?.is_some() {
            return Ok(None);
        }
        let elsewhere = base_manifest(tx, repo, digest, self.bound)?.ok_or_else(|| gone(digest))?;
        sql::manifest_body(tx, elsewhere).map(Some)
    }

    /// The tags, and what each names now.
    fn tags(&self, tx: &rusqlite::Connection) -> Result<Vec<TagMoved>> {
        let mut tags = Vec::new();
        for (repo, tag, digest) in &self.plan.tags {
            let before = match sql::repo(tx, repo)? {
                Some(key) => sql::tag_row(tx, key.id, tag.as_str())?.map(|row| row.digest),
                None => None,
            };
            tags.push(TagMoved {
                repo: repo.full().to_owned(),
                tag: tag.as_str().to_owned(),
                digest: digest.clone(),
                before,
            });
        }
        Ok(tags)
    }

    fn write(&self, write: &Write, by: Option<i64>, private: bool) -> Result<Vec<TagMoved>> {
        let (tx, stamp) = (write.tx, write.stamp(by));
        let tags = self.tags(tx)?;
        let mut missing: BTreeSet<String> = BTreeSet::new();
        for (at, planned) in self.plan.manifests.iter().enumerate() {
            // Its digest is checked again by whoever pulls it.
            let body = match at < self.plan.carried {
                true => whole(tx, &self.files, &planned.digest)?,
                false => match self.base_body(tx, planned)? {
                    Some(body) => body,
                    // It is in this repository already.
                    None => continue,
                },
            };
            let read = manifest::read(&body, planned.media_type.as_deref())?;
            let repo = repo_make(write, &planned.repo, private, by)?;
            let mut blobs = Vec::with_capacity(read.blobs.len());
            for digest in &read.blobs {
                match self.blob(tx, &planned.repo, digest)? {
                    Some(blob) => blobs.push(blob),
                    None => {
                        missing.insert(digest.as_str().to_owned());
                    }
                }
            }
            for blob in &blobs {
                sql::repo_blob_set(tx, repo, *blob, write.service_secs)?;
            }
            manifest_set(tx, repo, &planned.digest, &read, &body, &blobs, stamp)?;
            sql::repo_set_pushed(tx, repo, write.now_us)?;
        }
        not_whole(&missing)?;
        for planned in &self.plan.manifests[..self.plan.carried] {
            // It was a blob only to get here.
            if let Some(blob) = sql::blob(tx, &planned.digest)? {
                sql::blob_delete_unheld(tx, blob.id)?;
            }
        }
        for (name, tag, digest) in &self.plan.tags {
            let image = sql::manifest_by_digest(tx, name, digest)?;
            let (Some(repo), Some(image)) = (sql::repo(tx, name)?, image) else {
                return Err(no_image(name, tag, digest));
            };
            sql::tag_set(tx, repo.id, tag, image.id, stamp)?;
            sql::repo_set_pushed(tx, repo.id, write.now_us)?;
        }
        Ok(tags)
    }
}

fn no_image(repo: &RepoName, tag: &Tag, digest: &Digest) -> Error {
    Kind::BlobMissing.because(format!(
        "{repo}:{tag} is to name the image {digest}, which is neither in the archive nor here; nothing was changed"
    ))
}

fn not_whole(missing: &BTreeSet<String>) -> Result<()> {
    if missing.is_empty() {
        return Ok(());
    }
    let named: Vec<&str> = missing.iter().map(String::as_str).collect();
    Err(Kind::BlobMissing.because(format!(
        "its images rely on {} blobs that are neither in the archive nor here: {}; nothing was changed",
        missing.len(),
        some(&named)
    )))
}

/// What a dry run kept. What it did not is no JSON object, nor are no bytes at all.
fn dry_body(kept: &HashMap<Digest, Bytes>, digest: &Digest) -> Vec<u8> {
    kept.get(digest).map(|bytes| bytes.to_vec()).unwrap_or_default()
}

fn gone(digest: &Digest) -> Error {
    Kind::BlobMissing.because(format!("{digest} is not here any longer; import the archive again"))
}

/// The row of a live blob that is there whole: any for those who are not bound, otherwise one that
/// these repositories hold, or that they may read.
fn held(
    tx: &rusqlite::Connection,
    files: &Blobs,
    digest: &Digest,
    repos: &[RepoName],
    bound: Option<i64>,
) -> Result<Option<i64>> {
    let Some(blob) = sql::blob(tx, digest)? else { return Ok(None) };
    if !blob.live || !files.is_there(digest, blob.bytes) {
        return Ok(None);
    }
    let Some(user) = bound else { return Ok(Some(blob.id)) };
    for repo in repos {
        if sql::blob_in_repo(tx, repo, digest)?.is_some() {
            return Ok(Some(blob.id));
        }
    }
    Ok(sql::blob_readable(tx, blob.id, user)?.then_some(blob.id))
}

/// A manifest that a repository has, or that some repository has for those who are not bound.
fn base_manifest(
    tx: &rusqlite::Connection,
    repo: &RepoName,
    digest: &Digest,
    bound: Option<i64>,
) -> Result<Option<i64>> {
    match sql::manifest_by_digest(tx, repo, digest)? {
        Some(key) => Ok(Some(key.id)),
        None if bound.is_some() => Ok(None),
        None => sql::manifest_anywhere(tx, digest),
    }
}

/// The bytes of a blob that is small, each checked.
fn whole(tx: &rusqlite::Connection, files: &Blobs, digest: &Digest) -> Result<Vec<u8>> {
    let blob = sql::blob(tx, digest)?.filter(|blob| blob.live).ok_or_else(|| gone(digest))?;
    let reader = files.read(digest, blob.bytes, sql::blob_crcs(tx, blob.id)?)?;
    let mut bytes = Vec::new();
    while (bytes.len() as u64) < blob.bytes {
        let piece = reader.piece(bytes.len() as u64, blob.bytes, Piece::Full).map_err(|_| gone(digest))?;
        bytes.extend_from_slice(&piece);
    }
    Ok(bytes)
}

/// Reads a stream to its end, a piece at a time.
fn pour(from: &mut dyn Read, mut to: impl FnMut(Bytes) -> Result<()>) -> Result<()> {
    loop {
        let mut piece = vec![0; READ_BYTES];
        let mut filled = 0;
        while filled < piece.len() {
            match from.read(&mut piece[filled..]) {
                Ok(0) => break,
                Ok(some) => filled += some,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(broken(&error)),
            }
        }
        if filled == 0 {
            return Ok(());
        }
        piece.truncate(filled);
        to(piece.into())?;
    }
}

/// Tells how much passes, and keeps how it begins.
struct Counted<'a> {
    from: &'a mut dyn Read,
    told: &'a mut dyn FnMut(u64),
    bytes: &'a mut u64,
    head: [u8; 4],
}

impl Read for Counted<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let some = self.from.read(buffer)?;
        for (at, byte) in buffer[..some].iter().take(4).enumerate() {
            if let Some(place) = self.head.get_mut(usize::try_from(*self.bytes).unwrap_or(4) + at) {
                *place = *byte;
            }
        }
        *self.bytes += some as u64;
        (self.told)(some as u64);
        Ok(some)
    }
}

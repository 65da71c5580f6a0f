//! An archive sent to another registry: what is there is not sent, what breaks goes on, children
//! before indexes, tags last.

use bytes::Bytes;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

use crate::archive::{self, Content, Key, Naming, Plan, Taker, key};
use crate::bundle::Document;
use crate::client::{Begun, Client, Endpoint, Remote, Upload};
use crate::error::{Error, Kind, Result, Thing};
use crate::hash::{Hash, digest_of};
use crate::manifest;
use crate::names::{Algorithm, Digest, Reference, RepoName};

/// How often an archive is read at the most: once to know what is in it if that stands at its end,
/// and again for what a registry lost on the way.
const READS_MAX: usize = 6;
/// Largest file that is kept because it may be a manifest or a config, and most bytes of them.
const SMALL_MAX: u64 = manifest::MANIFEST_BYTES_MAX as u64;
const KEPT_MAX: usize = 64 << 20;
/// What is read of a blob at once.
const PIECE: usize = 128 << 10;
/// Questions to the registry at a time.
const JOBS: usize = 8;
/// Names that a sentence lists of what is missing.
const NAMED_MAX: usize = 20;
/// Longest file of open uploads, in bytes.
const SESSIONS_MAX: u64 = 1 << 20;

/// What is sent where.
pub struct Push<'a> {
    pub runtime: &'a Runtime,
    pub client: &'a Arc<Client>,
    pub to: Endpoint,
    pub naming: &'a Naming,
}

/// What came of it.
#[derive(Debug, Default, serde::Serialize)]
pub struct Pushed {
    /// Blobs that were sent, and their bytes.
    pub blobs: u64,
    pub bytes: u64,
    /// Blobs that another repository of the registry had.
    pub mounted: u64,
    /// Blobs that were there.
    pub had: u64,
    /// Manifests that were put.
    pub manifests: u64,
    pub tags: u64,
}

/// Uploads that were not ended, kept in a file beside the archive: who comes next goes on with
/// them. Without the file they begin again, so that it cannot be written is no error.
#[derive(Default)]
pub struct Sessions {
    path: Option<PathBuf>,
    open: BTreeMap<String, String>,
}

impl Sessions {
    pub fn beside(archive: &Path) -> Sessions {
        let mut path = archive.as_os_str().to_owned();
        path.push(".push");
        let path = PathBuf::from(path);
        let mut text = Vec::new();
        let read = std::fs::File::open(&path).and_then(|file| file.take(SESSIONS_MAX).read_to_end(&mut text));
        let open = read.ok().and_then(|_| serde_json::from_slice(&text).ok()).unwrap_or_default();
        Sessions { path: Some(path), open }
    }

    fn name(remote: &Remote, digest: &Digest) -> String {
        format!("{remote}@{digest}")
    }

    fn set(&mut self, name: &str, session: Option<String>) {
        match session {
            Some(session) => self.open.insert(name.to_owned(), session),
            None => self.open.remove(name),
        };
        let Some(path) = &self.path else { return };
        let _ = match self.open.is_empty() {
            true => std::fs::remove_file(path),
            false => std::fs::write(path, serde_json::to_vec(&self.open).unwrap_or_default()),
        };
    }
}

impl Push<'_> {
    /// Sends all that an archive holds and the registry does not. `from` is a file, the first of its
    /// volumes or a directory, or None for standard input, which can be read once. `progress` hears
    /// of bytes done and of all there are to be sent.
    pub fn push(
        &self,
        from: Option<&Path>,
        sessions: &mut Sessions,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Pushed> {
        let mut sending = Sending {
            push: self,
            sessions,
            progress,
            remotes: HashMap::new(),
            places: None,
            had: HashSet::new(),
            kept: HashMap::new(),
            kept_bytes: 0,
            heads: HashMap::new(),
            sizes: HashMap::new(),
            nameless: Vec::new(),
            nameless_at: 0,
            lost: None,
            all: 0,
            done: 0,
            pushed: Pushed::default(),
        };
        let mut plan = None;
        for _ in 0..READS_MAX {
            sending.nameless_at = 0;
            sending.lost = None;
            let learning = sending.places.is_none();
            let archive = match from {
                Some(path) => archive::read_path(path, &mut sending)?,
                None => archive::read(io::stdin(), &mut sending)?,
            };
            let learnt = learning && sending.places.is_none();
            if plan.is_none() {
                sending.sizes = archive.sizes().clone();
                plan = Some(archive.plan(self.naming, &mut sending)?);
            }
            if !learnt && sending.lost.is_none() {
                break;
            }
            if from.is_none() {
                return Err(sending.lost.unwrap_or_else(|| {
                    archive::refused("what is in it stands at its end; push it from a file")
                }));
            }
            if learnt && let Some(plan) = &plan {
                let places = sending.places_of(plan)?;
                sending.send_to(places)?;
            }
        }
        if let Some(error) = sending.lost {
            return Err(error);
        }
        sending.name(&plan.unwrap_or_default())
    }
}

/// Which repositories a blob belongs in.
type Places = HashMap<Key, (Digest, u64, Vec<RepoName>)>;

/// An archive on its way.
struct Sending<'a> {
    push: &'a Push<'a>,
    sessions: &'a mut Sessions,
    progress: &'a mut dyn FnMut(u64, u64),
    remotes: HashMap<String, Arc<Remote>>,
    /// None until it is known; a bundle says it first, others last.
    places: Option<Places>,
    /// Blobs that the registry has, with their repository.
    had: HashSet<(Key, String)>,
    kept: HashMap<Key, Bytes>,
    kept_bytes: usize,
    heads: HashMap<Key, [u8; 4]>,
    sizes: HashMap<Key, u64>,
    /// Digests of files that are not called by them, in order.
    nameless: Vec<Digest>,
    nameless_at: usize,
    /// A blob that must be sent again from its start.
    lost: Option<Error>,
    all: u64,
    done: u64,
    pushed: Pushed,
}

impl Sending<'_> {
    fn remote(&mut self, repo: &RepoName) -> Result<Arc<Remote>> {
        if let Some(remote) = self.remotes.get(repo.full()) {
            return Ok(remote.clone());
        }
        let remote = self.push.client.remote(&self.push.to, repo)?;
        self.remotes.insert(repo.full().to_owned(), remote.clone());
        Ok(remote)
    }

    /// Where the blobs of planned manifests belong.
    fn places_of(&self, plan: &Plan) -> Result<Places> {
        let mut places = Places::new();
        for planned in &plan.manifests {
            let text = self.kept.get(&key(&planned.digest)).ok_or_else(too_many)?;
            let read = manifest::read(text, planned.media_type.as_deref())?;
            for (digest, size) in manifest::blob_sizes(text) {
                if !read.blobs.contains(&digest) {
                    continue;
                }
                let size = self.sizes.get(&key(&digest)).copied().unwrap_or(size);
                let (_, _, repos) = places.entry(key(&digest)).or_insert((digest, size, Vec::new()));
                if !repos.contains(&planned.repo) {
                    repos.push(planned.repo.clone());
                }
            }
        }
        Ok(places)
    }

    /// Finds out what the registry has of it, and how much there is to send.
    fn send_to(&mut self, places: Places) -> Result<()> {
        let mut asked = Vec::new();
        for (digest, _, repos) in places.values() {
            for repo in repos {
                asked.push((digest.clone(), self.remote(repo)?, false));
            }
        }
        for (digest, remote) in self.there(asked, true)? {
            self.had.insert((key(&digest), remote.repo().full().to_owned()));
        }
        let missing = |(digest, size, repos): &(Digest, u64, Vec<RepoName>)| {
            let has = |repo: &RepoName| self.had.contains(&(key(digest), repo.full().to_owned()));
            if repos.iter().any(has) { 0 } else { *size }
        };
        self.all = places.values().map(missing).sum();
        self.pushed.had = places.values().filter(|place| missing(place) == 0 && place.1 > 0).count() as u64;
        (self.progress)(self.done, self.all);
        self.places = Some(places);
        Ok(())
    }

    /// Of these blobs, or manifests, those that are there, or those that are not.
    fn there(
        &self,
        asked: Vec<(Digest, Arc<Remote>, bool)>,
        there: bool,
    ) -> Result<Vec<(Digest, Arc<Remote>)>> {
        self.push.runtime.block_on(async {
            let (mut jobs, mut found) = (JoinSet::new(), Vec::new());
            let mut asked = asked.into_iter();
            loop {
                while jobs.len() < JOBS
                    && let Some((digest, remote, is_manifest)) = asked.next()
                {
                    jobs.spawn(async move {
                        let has = match is_manifest {
                            true => remote.has_manifest(&Reference::Digest(digest.clone())).await?,
                            false => remote.has_blob(&digest).await?,
                        };
                        Ok::<_, Error>((digest, remote, has))
                    });
                }
                let Some(job) = jobs.join_next().await else { return Ok(found) };
                let (digest, remote, has) = job.map_err(|error| Kind::Internal.from_cause(error))??;
                if has == there {
                    found.push((digest, remote));
                }
            }
        })
    }

    /// What a delta builds upon must be there.
    fn check_base(&mut self, document: &Document) -> Result<()> {
        let mut asked = Vec::new();
        let manifests = document.base.manifests.iter().map(|line| (&line.digest, &line.repos, true));
        let blobs = document.base.blobs.iter().map(|line| (&line.digest, &line.repos, false));
        for (digest, repos, is_manifest) in manifests.chain(blobs) {
            for repo in repos {
                let repo = self.push.naming.under(repo)?;
                asked.push((digest.clone(), self.remote(&repo)?, is_manifest));
            }
        }
        let missing = self.there(asked, false)?;
        if missing.is_empty() {
            return Ok(());
        }
        let names: Vec<String> =
            missing.iter().take(NAMED_MAX).map(|(digest, remote)| format!("{remote}@{digest}")).collect();
        let more = match missing.len() - names.len() {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        Err(Kind::BlobMissing.because(format!(
            "the bundle builds upon what this registry does not have; make one without --have, or push first \
             what is missing: {}{more}",
            names.join(", ")
        )))
    }

    fn keep_small(&mut self, digest: &Digest, bytes: Vec<u8>) -> Result<()> {
        let length = bytes.len();
        if self.kept.insert(key(digest), bytes.into()).is_none() {
            self.kept_bytes += length;
        }
        if self.kept_bytes > KEPT_MAX { Err(too_many()) } else { Ok(()) }
    }

    /// Reads a blob to know it; keeps it if it may be a manifest or a config.
    fn learn(&mut self, expected: Option<&Digest>, bytes: u64, from: &mut dyn Read) -> Result<Digest> {
        let digest = if bytes <= SMALL_MAX {
            let mut text = Vec::new();
            from.read_to_end(&mut text).map_err(|error| archive::broken(&error))?;
            let digest = digest_of(expected.map_or(Algorithm::Sha256, Digest::algorithm), &text);
            let mut head = [0; 4];
            let some = text.len().min(4);
            head[..some].copy_from_slice(&text[..some]);
            self.heads.insert(key(&digest), head);
            if text.first() == Some(&b'{') {
                self.keep_small(&digest, text)?;
            }
            digest
        } else {
            let mut head = [0; 4];
            from.read_exact(&mut head).map_err(|error| archive::broken(&error))?;
            let digest = archive::digest_of_stream(expected, &mut (&head[..]).chain(from))?;
            self.heads.insert(key(&digest), head);
            digest
        };
        if expected.is_none() {
            self.nameless.push(digest.clone());
        }
        Ok(digest)
    }

    /// Sends a blob to the repositories that lack it.
    fn send(
        &mut self,
        digest: &Digest,
        bytes: u64,
        repos: &[RepoName],
        from: &mut dyn Read,
    ) -> Result<Digest> {
        let mut from = Some(from);
        for repo in repos {
            let place = |repo: &RepoName| (key(digest), repo.full().to_owned());
            if self.had.contains(&place(repo)) {
                continue;
            }
            let sibling = repos.iter().find(|repo| self.had.contains(&place(repo)));
            let remote = self.remote(repo)?;
            let name = Sessions::name(&remote, digest);
            let open = self.sessions.open.get(&name).cloned();
            let begin = remote.upload(digest, bytes, sibling, open.as_deref());
            match (self.push.runtime.block_on(begin)?, from.take()) {
                (Begun::Had, unread) => {
                    from = unread;
                    self.pushed.mounted += 1;
                }
                (Begun::Upload(upload), Some(stream)) => {
                    let found = self.send_one(upload, &name, digest, stream)?;
                    if found != *digest {
                        return Ok(found);
                    }
                    if self.lost.is_some() {
                        continue;
                    }
                    self.pushed.blobs += 1;
                    self.pushed.bytes += bytes;
                }
                // The registry does not mount: this repository has its turn when the archive is read again.
                (Begun::Upload(_), None) => {
                    let why = format!("{remote} still lacks {digest}");
                    self.lost = Some(Kind::NotFound(Thing::Upload).because(why));
                    continue;
                }
            }
            self.had.insert(place(repo));
        }
        if let Some(unread) = from {
            io::copy(unread, &mut io::sink()).map_err(|error| archive::broken(&error))?;
        }
        Ok(digest.clone())
    }

    /// Reads a blob to its end, and sends it; what the registry loses is noted.
    fn send_one(
        &mut self,
        mut upload: Upload,
        name: &str,
        digest: &Digest,
        from: &mut dyn Read,
    ) -> Result<Digest> {
        let runtime = self.push.runtime;
        let mut hash = Hash::new(digest.algorithm());
        let (before, mut at) = (self.done, 0);
        let note = |outcome: Result<()>, lost: &mut Option<Error>| match outcome {
            Err(error) if error.kind == Kind::NotFound(Thing::Upload) => {
                *lost = Some(error);
                Ok(false)
            }
            outcome => outcome.map(|()| true),
        };
        let mut whole = true;
        loop {
            let mut piece = vec![0; PIECE];
            let some = match from.read(&mut piece) {
                Ok(0) => break,
                Ok(some) => some,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(archive::broken(&error)),
            };
            piece.truncate(some);
            hash.update(&piece);
            if !whole {
                continue;
            }
            whole = note(runtime.block_on(upload.write(piece.into())), &mut self.lost)?;
            self.done += some as u64;
            (self.progress)(self.done, self.all);
            if upload.at() != at {
                at = upload.at();
                self.sessions.set(name, upload.session());
            }
        }
        let found = hash.digest();
        if found == *digest && whole {
            whole = note(runtime.block_on(upload.finish()), &mut self.lost)?;
        }
        self.sessions.set(name, None);
        if !whole {
            self.done = before;
        }
        Ok(found)
    }

    /// Puts manifests, those that others list first, and at last the tags.
    fn name(mut self, plan: &Plan) -> Result<Pushed> {
        let mut asked = Vec::new();
        for planned in &plan.manifests {
            asked.push((planned.digest.clone(), self.remote(&planned.repo)?, true));
        }
        let there: HashSet<(Digest, String)> = self
            .there(asked, true)?
            .into_iter()
            .map(|(digest, remote)| (digest, remote.repo().full().to_owned()))
            .collect();
        let runtime = self.push.runtime;
        for planned in &plan.manifests {
            if there.contains(&(planned.digest.clone(), planned.repo.full().to_owned())) {
                continue;
            }
            let reference = Reference::Digest(planned.digest.clone());
            self.put(
                runtime,
                &planned.repo,
                &reference,
                &planned.digest,
                planned.media_type.as_deref(),
                plan,
            )?;
            self.pushed.manifests += 1;
        }
        for (repo, tag, digest) in &plan.tags {
            let planned = plan.manifests.iter().find(|planned| planned.digest == *digest);
            let media_type = planned.and_then(|planned| planned.media_type.as_deref());
            self.put(runtime, repo, &Reference::Tag(tag.clone()), digest, media_type, plan)?;
            self.pushed.tags += 1;
        }
        Ok(self.pushed)
    }

    fn put(
        &mut self,
        runtime: &Runtime,
        repo: &RepoName,
        reference: &Reference,
        digest: &Digest,
        media_type: Option<&str>,
        plan: &Plan,
    ) -> Result<()> {
        let remote = self.remote(repo)?;
        let text = match self.kept.get(&key(digest)) {
            Some(text) => text.clone(),
            // A tag of what a delta builds upon.
            None => runtime
                .block_on(remote.manifest(&Reference::Digest(digest.clone())))?
                .map(|fetched| fetched.bytes)
                .ok_or_else(|| Kind::NotFound(Thing::Manifest).because(format!("{remote} lacks {digest}")))?,
        };
        let read = manifest::read(&text, media_type)?;
        let outcome = runtime.block_on(remote.manifest_put(reference, read.media_type, &text));
        outcome.map_err(|error| match plan.absent.is_empty() && read.children.is_empty() {
            false if error.kind == Kind::BlobMissing => error.kind.because(format!(
                "{error}; this registry takes an index only with all images it lists, and not all are in the archive"
            )),
            _ => error,
        })
    }
}

impl Taker for Sending<'_> {
    fn document(&mut self, document: &[u8], _: Option<&[u8]>) -> Result<()> {
        if self.places.is_some() {
            return Ok(());
        }
        let document = Document::read(document)?;
        self.check_base(&document)?;
        let mut places = Places::new();
        for item in &document.blobs {
            let repos = item.repos.iter().map(|repo| self.push.naming.under(repo)).collect::<Result<_>>()?;
            places.insert(key(&item.digest), (item.digest.clone(), item.size, repos));
        }
        self.send_to(places)
    }

    fn blob(&mut self, expected: Option<&Digest>, bytes: u64, from: &mut dyn Read) -> Result<Digest> {
        let Some(places) = &self.places else { return self.learn(expected, bytes, from) };
        let digest = match expected {
            Some(digest) => digest.clone(),
            // The archive is read again: they come as they came.
            None => {
                self.nameless_at += 1;
                let known = self.nameless.get(self.nameless_at - 1);
                known.cloned().ok_or_else(|| archive::refused("it changed while it was read"))?
            }
        };
        match places.get(&key(&digest)) {
            Some((_, _, repos)) => {
                let repos = repos.clone();
                self.send(&digest, bytes, &repos, from)
            }
            None if self.kept.contains_key(&key(&digest)) || bytes > SMALL_MAX => {
                io::copy(from, &mut io::sink()).map_err(|error| archive::broken(&error))?;
                Ok(digest)
            }
            // A bundle's manifests.
            None => self.learn(Some(&digest), bytes, from),
        }
    }
}

impl Content for Sending<'_> {
    fn small(&mut self, digest: &Digest, max: u64) -> Result<Option<Vec<u8>>> {
        match (self.kept.get(&key(digest)), self.bytes(digest)) {
            (Some(text), _) if text.len() as u64 <= max => Ok(Some(text.to_vec())),
            (None, Some(bytes)) if bytes <= max => Ok(Some(Vec::new())),
            _ => Ok(None),
        }
    }

    fn head(&mut self, digest: &Digest) -> Result<[u8; 4]> {
        Ok(self.heads.get(&key(digest)).copied().unwrap_or_default())
    }

    fn bytes(&self, digest: &Digest) -> Option<u64> {
        let kept = || self.kept.get(&key(digest)).map(|text| text.len() as u64);
        self.sizes.get(&key(digest)).copied().or_else(kept)
    }

    fn keep(&mut self, bytes: &[u8]) -> Result<Digest> {
        let digest = digest_of(Algorithm::Sha256, bytes);
        self.keep_small(&digest, bytes.to_vec())?;
        Ok(digest)
    }
}

fn too_many() -> Error {
    Kind::TooLarge(Thing::Manifest)
        .because("the archive has more than 64 MiB of manifests and configs; split it")
}

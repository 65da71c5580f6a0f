//! The store itself: linked into this process for images of crashes, and in a process of
//! its own, which can be killed, on the file system that loses things.

use bytes::Bytes;
use outport::error::{Error, Kind};
use outport::names::{Algorithm, Digest, Reference, RepoName, Tag, UploadId};
use outport::registry::{
    Clock, Collect, ImportAsk, ManifestPush, Mode, Options, Piece, Registry, SignUp, Upload, User,
};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::fmt;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use crate::script::{Key, State, Step, archive, sha256};

pub const PASSWORD: &str = "correct horse";
/// How much of an upload goes into one write.
const FRAME_BYTES: usize = 64 << 10;
/// Longest a request may take. None takes a second; a process that hangs is a finding.
pub const ANSWER_WITHIN: Duration = Duration::from_secs(60);

/// Why a request was not done, as far as a test cares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Why {
    NotFound,
    Full,
    Unavailable,
    /// Bytes were served that are not those that were asked for.
    WrongBytes,
    /// The process ended.
    Gone,
    Other,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Failure {
    pub why: Why,
    pub text: String,
}

impl Failure {
    pub fn new(why: Why, text: impl Into<String>) -> Failure {
        Failure { why, text: text.into() }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.why, self.text)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        let why = match error.kind {
            Kind::NotFound(_) => Why::NotFound,
            Kind::Full => Why::Full,
            Kind::Unavailable => Why::Unavailable,
            _ => Why::Other,
        };
        Failure::new(why, format!("{error:?}"))
    }
}

/// What an acknowledgement says besides: an upload's id, or nothing.
pub type Outcome = Result<String, Failure>;

/// A registry that steps can be done to.
pub trait Subject: Sync {
    /// Returns when the step was acknowledged or refused. A step of an upload that began
    /// comes with what its beginning was acknowledged with.
    fn run(&self, step: &Step, upload: Option<&str>) -> Outcome;
    /// What is there of these, and whatever else is listed. A thing that cannot be read
    /// is there with a value that nothing was ever given.
    fn look(&self, keys: &[Key]) -> Result<State, Failure>;
}

/// A subject in a process of its own: killed when it is dropped.
pub trait Running: Subject + Send {
    /// Whether it said that it shall end, for the next one to recover.
    fn has_failed(&self) -> bool;
    /// Lets it stop by itself. Returns whether it said that all went well.
    fn stop(self: Box<Self>) -> bool;
}

/// The linked store.
pub struct Store {
    pub registry: Registry,
    user: OnceLock<User>,
    uploads: Mutex<HashMap<usize, Upload>>,
    /// What became of tidying up after an unclean stop; how many blobs were read again.
    pub upkeep: Result<u64, Failure>,
}

pub fn options() -> Options {
    Options {
        private: true,
        library_open: false,
        anonymous_pull: false,
        sign_up: SignUp::Closed,
        blob_bytes_max: 1 << 30,
        reserve_bytes: Some(0),
        uploads_per_user: 64,
        upload_expiry: Duration::from_secs(86_400),
        grace: Duration::from_secs(3_600),
        scrub_period: Duration::ZERO,
        retention: Vec::new(),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn reference(text: &str) -> Result<Reference, Error> {
    match Digest::parse(text) {
        Ok(digest) => Ok(Reference::Digest(digest)),
        Err(_) => Ok(Reference::Tag(Tag::parse(text)?)),
    }
}

/// None for what is not there.
fn found<T>(outcome: Result<T, Error>) -> Result<Option<T>, Failure> {
    match outcome {
        Ok(found) => Ok(Some(found)),
        Err(error) if matches!(error.kind, Kind::NotFound(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

impl Store {
    /// Opens a directory as a server does: what a crash left is tidied up at once.
    pub fn open(dir: &Path, boot: &str) -> Result<Store, Failure> {
        let mode = Mode::Serve { boot_id: boot.into() };
        let registry = Registry::open(dir, &mode, options(), Clock::system())?;
        let tidy = || {
            if registry.was_unclean() {
                registry.orphans_remove()?;
            }
            registry.suspects_verify()
        };
        let upkeep = tidy().map_err(Failure::from);
        Ok(Store { registry, user: OnceLock::new(), uploads: Mutex::default(), upkeep })
    }

    /// The administrator; made, with a password that takes a while to hash, if this is the
    /// first start.
    pub fn user(&self) -> Result<&User, Failure> {
        if let Some(user) = self.user.get() {
            return Ok(user);
        }
        self.registry.admin_init(Some(PASSWORD))?;
        let mut users = self.registry.users()?.into_iter().map(|row| row.user);
        let admin = users.find(|user| user.name == "admin");
        let admin = admin.ok_or_else(|| Failure::new(Why::Other, "there is no administrator"))?;
        Ok(self.user.get_or_init(|| admin))
    }

    /// An upload of this process, or one that an earlier process began.
    fn upload(&self, slot: usize, repo: &str, id: Option<&str>) -> Result<Upload, Failure> {
        if let Some(upload) = lock(&self.uploads).get(&slot) {
            return Ok(upload.clone());
        }
        let id = id.ok_or_else(|| Failure::new(Why::NotFound, "the upload never began"))?;
        let upload =
            self.registry.upload_resume(self.user()?, &RepoName::parse(repo)?, &UploadId::parse(id)?)?;
        lock(&self.uploads).insert(slot, upload.clone());
        Ok(upload)
    }

    /// How many bytes an upload has, by its id.
    pub fn upload_bytes(&self, repo: &str, id: &str) -> Result<Option<u64>, Failure> {
        found(self.registry.upload_stat(self.user()?, &RepoName::parse(repo)?, &UploadId::parse(id)?))
    }

    fn write(upload: &Upload, bytes: &[u8]) -> Result<(), Failure> {
        for frame in bytes.chunks(FRAME_BYTES) {
            upload.write(&[Bytes::copy_from_slice(frame)])?;
        }
        Ok(())
    }

    /// A blob's bytes. None if there is none; `WrongBytes` if they are not those it is named by.
    pub fn blob(&self, repo: &str, digest: &str) -> Result<Option<Vec<u8>>, Failure> {
        let (repo, digest) = (RepoName::parse(repo)?, Digest::parse(digest)?);
        let Some(reader) = found(self.registry.blob(&repo, &digest))? else { return Ok(None) };
        let mut bytes = Vec::new();
        while (bytes.len() as u64) < reader.bytes() {
            let piece = self.registry.blob_piece(&reader, bytes.len() as u64, reader.bytes(), Piece::Full)?;
            bytes.extend_from_slice(&piece);
        }
        right(bytes, digest.as_str()).map(Some)
    }

    /// The same of a manifest, by tag or digest; its digest is told, too.
    pub fn manifest(&self, repo: &str, asked: &str) -> Result<Option<(String, Vec<u8>)>, Failure> {
        let outcome = self.registry.manifest(&RepoName::parse(repo)?, &reference(asked)?, u64::MAX);
        let Some((row, body)) = found(outcome)? else { return Ok(None) };
        let digest = row.digest.as_str().to_owned();
        // Every one is within that; without a body it would be as wrong as with other bytes.
        Ok(Some((digest.clone(), right(body.unwrap_or_default(), &digest)?)))
    }

    fn value(&self, key: &Key) -> Result<Option<String>, Failure> {
        match key {
            Key::Repo(_) => Ok(None),
            Key::Blob(repo, digest) => {
                let stat = self.registry.blob_stat(&RepoName::parse(repo)?, &Digest::parse(digest)?);
                let Some(len) = found(stat)? else { return Ok(None) };
                match self.blob(repo, digest)? {
                    Some(bytes) if bytes.len() as u64 == len => Ok(Some(len.to_string())),
                    _ => Ok(Some("named, but not readable".into())),
                }
            }
            Key::Manifest(repo, digest) => {
                let body = self.manifest(repo, digest)?.map(|(_, body)| body);
                Ok(body.map(|body| String::from_utf8_lossy(&body).into_owned()))
            }
            Key::Tag(repo, tag) => {
                let stat = self.registry.manifest_stat(&RepoName::parse(repo)?, &reference(tag)?);
                let Some(row) = found(stat)? else { return Ok(None) };
                match self.manifest(repo, tag)? {
                    Some((digest, _)) if digest == row.digest.as_str() => Ok(Some(digest)),
                    _ => Ok(Some("named, but not readable".into())),
                }
            }
        }
    }
}

/// The bytes, if their digest is this one.
fn right(bytes: Vec<u8>, digest: &str) -> Result<Vec<u8>, Failure> {
    match sha256(&bytes) == digest {
        true => Ok(bytes),
        false => {
            Err(Failure::new(Why::WrongBytes, format!("{digest} was served as {} other bytes", bytes.len())))
        }
    }
}

impl Subject for Store {
    fn run(&self, step: &Step, id: Option<&str>) -> Outcome {
        let (registry, user) = (&self.registry, self.user()?);
        let missing = |what: &str| Failure::new(Why::NotFound, what);
        match step {
            Step::Start { .. } | Step::Stop | Step::Kill => {
                return Err(Failure::new(Why::Other, "a store does not start itself"));
            }
            Step::Push { repo, blob } => {
                let (repo, bytes) = (RepoName::parse(repo)?, blob.bytes());
                let upload = registry.upload_begin(user, &repo, Algorithm::Sha256, blob.len as u64)?;
                Store::write(&upload, &bytes)?;
                registry.upload_commit(&upload, &repo, &Digest::parse(&sha256(&bytes))?)?;
            }
            Step::Mount { repo, from, blob } => {
                let (repo, from) = (RepoName::parse(repo)?, RepoName::parse(from)?);
                if !registry.blob_mount(user, &repo, &Digest::parse(&blob.digest())?, Some(from))? {
                    return Err(missing("there is nothing to mount"));
                }
            }
            Step::UploadBegin { slot, repo } => {
                let upload = registry.upload_begin(user, &RepoName::parse(repo)?, Algorithm::Sha256, 0)?;
                let id = upload.id().to_string();
                lock(&self.uploads).insert(*slot, upload);
                return Ok(id);
            }
            Step::UploadWrite { slot, repo, blob, from, to } => {
                Store::write(&self.upload(*slot, repo, id)?, &blob.bytes()[*from..*to])?;
            }
            Step::UploadCommit { slot, repo, blob } => {
                let digest = Digest::parse(&blob.digest())?;
                registry.upload_commit(&self.upload(*slot, repo, id)?, &RepoName::parse(repo)?, &digest)?;
            }
            Step::UploadCancel { slot, repo } => registry.upload_cancel(&self.upload(*slot, repo, id)?),
            Step::PutManifest { repo, tag, body } => {
                let reference = match tag {
                    Some(tag) => Reference::Tag(Tag::parse(tag)?),
                    None => Reference::Digest(Digest::parse(&sha256(body.as_bytes()))?),
                };
                registry.manifest_put(ManifestPush {
                    repo: RepoName::parse(repo)?,
                    user: user.id,
                    reference,
                    tags: Vec::new(),
                    content_type: None,
                    body: Bytes::copy_from_slice(body.as_bytes()),
                })?;
            }
            Step::Pull { repo, blob } => {
                self.blob(repo, &blob.digest())?.ok_or_else(|| missing("the blob is not there"))?;
            }
            Step::PullManifest { repo, reference, digest } => {
                let (found, _) =
                    self.manifest(repo, reference)?.ok_or_else(|| missing("the manifest is not there"))?;
                if found != *digest {
                    return Err(Failure::new(Why::WrongBytes, "another manifest was served"));
                }
            }
            Step::DeleteTag { repo, tag: reference_text }
            | Step::DeleteManifest { repo, digest: reference_text } => {
                registry.manifest_delete(&RepoName::parse(repo)?, &reference(reference_text)?)?;
            }
            Step::DeleteBlob { repo, blob } => {
                registry.blob_delete(&RepoName::parse(repo)?, &Digest::parse(&blob.digest())?)?;
            }
            Step::Collect => {
                registry.collect(Collect { grace: Duration::ZERO, dry_run: false }, |_| {})?;
            }
            Step::DeleteRepo { repo } => registry.repo_remove(&RepoName::parse(repo)?)?,
            Step::Import { repo, tag, blobs, body } => {
                let bytes = archive(&format!("{repo}:{tag}"), blobs, body);
                let mut import = registry.import_begin(ImportAsk::default(), |_| {})?;
                let read = outport::archive::read(&bytes[..], &mut import)?;
                import.finish(&read, "archive.tar", |_| Ok(()))?;
            }
        }
        Ok(String::new())
    }

    fn look(&self, keys: &[Key]) -> Result<State, Failure> {
        const ALL: u32 = 1_000;
        let mut state = State::new();
        for key in keys {
            if let Some(value) = self.value(key)? {
                state.insert(key.clone(), value);
            }
        }
        for row in self.registry.repo_rows("", ALL)? {
            for tag in self.registry.tags(&RepoName::parse(&row.name)?, "", ALL)?.names {
                let key = Key::Tag(row.name.clone(), tag);
                state.entry(key).or_insert_with(|| "listed, but not asked for".into());
            }
            let of_repo = || state.iter().filter(|(key, _)| key.repo() == row.name);
            let manifests = of_repo().filter(|(key, _)| matches!(key, Key::Manifest(..))).count() as u64;
            let bytes: u64 = of_repo()
                .filter(|(key, _)| matches!(key, Key::Blob(..)))
                .filter_map(|(_, len)| len.parse::<u64>().ok())
                .sum();
            let sums = match (row.images == manifests, row.blob_bytes == bytes) {
                (true, true) => String::new(),
                _ => format!(
                    "{} images and {} bytes by its sums, {manifests} and {bytes} by looking",
                    row.images, row.blob_bytes
                ),
            };
            state.insert(Key::Repo(row.name), sums);
        }
        Ok(state)
    }
}

#[derive(Serialize, Deserialize)]
enum Ask {
    Run(Step, Option<String>),
    Look(Vec<Key>),
    Stop,
}

#[derive(Serialize, Deserialize)]
enum Answer {
    /// Besides: whether the process is of no more use, and shall end.
    Ran(Outcome, bool),
    Looked(Result<Vec<(Key, String)>, Failure>),
}

/// What [`Process`] runs: a store that takes requests from standard input, each on a thread
/// of its own, until it is told to stop. Returns how the process ends.
pub fn serve(dir: &Path, boot: &str) -> std::process::ExitCode {
    use std::process::ExitCode;
    fn say(id: u64, answer: &Answer) {
        let mut out = std::io::stdout().lock();
        let text = serde_json::to_string(&(id, answer)).expect("answers serialise");
        // Who asked may be gone.
        let _ = writeln!(out, "{text}").and_then(|()| out.flush());
    }
    let ready = Store::open(dir, boot).and_then(|store| {
        store.user()?;
        store.registry.upkeep();
        Ok(store)
    });
    let store = match ready {
        Ok(store) => Arc::new(store),
        Err(failure) => {
            say(0, &Answer::Ran(Err(failure), true));
            return ExitCode::FAILURE;
        }
    };
    say(0, &Answer::Ran(Ok(String::new()), false));
    let mut running = Vec::new();
    for line in std::io::stdin().lock().lines() {
        let Ok(line) = line else { break };
        let Ok((id, ask)) = serde_json::from_str::<(u64, Ask)>(&line) else { return ExitCode::FAILURE };
        let store = store.clone();
        match ask {
            Ask::Stop => break,
            Ask::Run(step, upload) => {
                running.push(std::thread::spawn(move || {
                    let outcome = store.run(&step, upload.as_deref());
                    say(id, &Answer::Ran(outcome, store.registry.shall_end()));
                }));
            }
            Ask::Look(keys) => {
                let looked = store.look(&keys).map(|state| state.into_iter().collect());
                say(id, &Answer::Looked(looked));
            }
        }
    }
    for thread in running {
        // A panic was printed where it happened; whoever waits hears that we are gone.
        let _ = thread.join();
    }
    ExitCode::SUCCESS
}

type Waiting = Arc<Mutex<Option<HashMap<u64, Sender<Answer>>>>>;

/// A store in a process of its own.
pub struct Process {
    child: Mutex<std::process::Child>,
    stdin: Mutex<ChildStdin>,
    /// None once the process is gone.
    waiting: Waiting,
    next: Mutex<u64>,
    failed: AtomicBool,
}

impl Process {
    /// Starts one on a directory, in a boot of this name; it is ready when this returns.
    pub fn start(dir: &Path, boot: &str) -> Result<Process, Failure> {
        let gone = |error: std::io::Error| Failure::new(Why::Gone, error.to_string());
        let own = std::env::current_exe().map_err(gone)?;
        let mut child = Command::new(own)
            .arg("store")
            .arg(dir)
            .arg(boot)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(gone)?;
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
        let (stdin, stdout) = stdin.zip(stdout).expect("both are pipes");
        let (told, ready) = channel();
        let waiting: Waiting = Arc::new(Mutex::new(Some(HashMap::from([(0, told)]))));
        let process = Process {
            child: Mutex::new(child),
            stdin: Mutex::new(stdin),
            waiting: waiting.clone(),
            next: Mutex::new(1),
            failed: AtomicBool::new(false),
        };
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let Ok((id, answer)) = serde_json::from_str::<(u64, Answer)>(&line) else { break };
                let asked = lock(&waiting).as_mut().and_then(|waiting| waiting.remove(&id));
                if let Some(asked) = asked {
                    // It may have given up.
                    let _ = asked.send(answer);
                }
            }
            lock(&waiting).take();
        });
        match ready.recv_timeout(ANSWER_WITHIN) {
            Ok(Answer::Ran(outcome, _)) => outcome.map(|_| process),
            _ => Err(Failure::new(Why::Gone, "the store ended before it was ready")),
        }
    }

    fn ask(&self, ask: &Ask) -> Result<Answer, Failure> {
        let gone = || Failure::new(Why::Gone, "the store's process ended");
        let id = {
            let mut next = lock(&self.next);
            *next += 1;
            *next
        };
        let (told, answer) = channel();
        lock(&self.waiting).as_mut().ok_or_else(gone)?.insert(id, told);
        let text = serde_json::to_string(&(id, ask)).expect("requests serialise");
        writeln!(lock(&self.stdin), "{text}").map_err(|_| gone())?;
        answer.recv_timeout(ANSWER_WITHIN).map_err(|_| gone())
    }
}

impl Running for Process {
    fn has_failed(&self) -> bool {
        self.failed.load(Ordering::Relaxed)
    }

    fn stop(self: Box<Self>) -> bool {
        let text = serde_json::to_string(&(0, Ask::Stop)).expect("requests serialise");
        // Fails if it is gone, which its status tells.
        let _ = writeln!(lock(&self.stdin), "{text}");
        lock(&self.child).wait().is_ok_and(|status| status.success())
    }
}

impl Drop for Process {
    /// kill -9.
    fn drop(&mut self) {
        let mut child = lock(&self.child);
        // Both fail only if it is gone and was waited for.
        let _ = child.kill();
        let _ = child.wait();
    }
}

impl Subject for Process {
    fn run(&self, step: &Step, upload: Option<&str>) -> Outcome {
        match self.ask(&Ask::Run(step.clone(), upload.map(str::to_owned)))? {
            Answer::Ran(outcome, failed) => {
                self.failed.fetch_or(failed, Ordering::Relaxed);
                outcome
            }
            Answer::Looked(_) => Err(Failure::new(Why::Other, "the store answered something else")),
        }
    }

    fn look(&self, keys: &[Key]) -> Result<State, Failure> {
        match self.ask(&Ask::Look(keys.to_vec()))? {
            Answer::Looked(looked) => looked.map(|state| state.into_iter().collect()),
            Answer::Ran(..) => Err(Failure::new(Why::Other, "the store answered something else")),
        }
    }
}

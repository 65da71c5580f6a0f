//! Whether what a crash left is still the registry that was promised.
//!
//! The promises, each a check of every image:
//!
//! - I1: nothing that was acknowledged is lost;
//! - I2: nothing is served with wrong bytes;
//! - I3: what was under way is there as a whole or not at all, and nothing else is there;
//! - I4: the store opens by itself, at once;
//! - I5: the request that was cut off succeeds when it is made again;
//! - I6: nothing panics.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Write as _};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::disk::{Image, Model};
use crate::script::{Blob, Key, State, Step, Uploads, sha256};
use crate::store::{Failure, Store, Subject, Why};

/// The registry's directory, on the file system and in every image of it.
pub const DATA: &str = "store";
/// The longest a start may take.
pub const START_WITHIN: Duration = Duration::from_secs(5);
/// Images that wait for somebody to check them.
const QUEUE: usize = 32;
/// Violations that are kept whole.
const SHOWN: usize = 20;
/// At which operations a first start that was cut off is gone on with.
const FIRST_EVERY: usize = 16;
/// The boot after a power cut.
pub const NEXT_BOOT: &str = "the boot after";

/// Everything some steps speak of.
#[derive(Debug, Default, Clone)]
pub struct World {
    pub keys: BTreeSet<Key>,
    blobs: BTreeMap<String, Blob>,
    bodies: BTreeMap<String, String>,
    /// What each tag ever pointed at.
    tagged: BTreeMap<Key, BTreeSet<String>>,
}

impl World {
    pub fn of<'a>(steps: impl IntoIterator<Item = &'a Step>) -> World {
        let mut world = World::default();
        steps.into_iter().for_each(|step| world.add(step));
        world
    }

    pub fn add(&mut self, step: &Step) {
        match step {
            Step::Push { repo, blob }
            | Step::Mount { repo, blob, .. }
            | Step::UploadCommit { repo, blob, .. } => {
                self.keys.insert(Key::Blob(repo.clone(), blob.digest()));
                self.blobs.insert(blob.digest(), *blob);
            }
            Step::Import { repo, tag, blobs, body } => {
                blobs.iter().for_each(|blob| self.add(&Step::push(repo, *blob)));
                self.add(&Step::put(repo, tag, body));
            }
            Step::PutManifest { repo, tag, body } => {
                let digest = sha256(body.as_bytes());
                self.keys.insert(Key::Manifest(repo.clone(), digest.clone()));
                self.bodies.insert(digest.clone(), body.clone());
                if let Some(tag) = tag {
                    let key = Key::Tag(repo.clone(), tag.clone());
                    self.tagged.entry(key.clone()).or_default().insert(digest);
                    self.keys.insert(key);
                }
            }
            _ => {}
        }
    }

    pub fn keys(&self) -> Vec<Key> {
        self.keys.iter().cloned().collect()
    }

    /// A push that makes this true again.
    fn heal(&self, key: &Key, value: &str) -> Option<Step> {
        match key {
            Key::Repo(_) => None,
            Key::Blob(repo, digest) => Some(Step::push(repo, *self.blobs.get(digest)?)),
            Key::Manifest(repo, digest) => Some(Step::PutManifest {
                repo: repo.clone(),
                tag: None,
                body: self.bodies.get(digest)?.clone(),
            }),
            Key::Tag(repo, tag) => Some(Step::put(repo, tag, self.bodies.get(value)?)),
        }
    }
}

/// What is owed at one moment.
#[derive(Debug, Default)]
pub struct Expect {
    pub world: Arc<World>,
    /// What was acknowledged.
    pub state: State,
    /// What was asked for and not answered yet, in order.
    pub under_way: Vec<Step>,
    /// Uploads that are open, with ids and the bytes they have at least and at most.
    pub uploads: Vec<(String, String, usize, usize)>,
    /// The boot the machine was in.
    pub boot: String,
    /// Whether the next start must find that the last process did not stop by itself.
    pub unclean: Option<bool>,
}

impl Expect {
    /// What may be there, each with how it came about: any of what was under way.
    pub fn allowed(&self) -> Vec<State> {
        (0..1usize << self.under_way.len())
            .map(|chosen| {
                let mut state = self.state.clone();
                for (n, step) in self.under_way.iter().enumerate() {
                    if chosen & (1 << n) != 0 {
                        step.apply(&mut state);
                    }
                }
                state
            })
            .collect()
    }

    /// What must be there once all that was under way was asked for again.
    pub fn after(&self) -> State {
        let mut state = self.state.clone();
        for step in &self.under_way {
            if step.again().is_some() {
                step.apply(&mut state);
            }
        }
        state
    }

    /// Open uploads by what was acknowledged, and what may have come since.
    pub fn set_uploads(&mut self, acked: &Uploads, ids: &BTreeMap<usize, String>) {
        for (slot, (repo, min)) in acked {
            let about = self.under_way.iter().find(|step| step.slot() == Some(*slot));
            let max = match about {
                None => *min,
                Some(Step::UploadWrite { to, .. }) => *to,
                // It is being committed, or dropped.
                Some(_) => continue,
            };
            if let Some(id) = ids.get(slot) {
                self.uploads.push((repo.clone(), id.clone(), *min, max));
            }
        }
    }
}

/// How two states differ, in words.
pub fn difference(found: &State, owed: &State) -> String {
    let mut text = String::new();
    for (key, value) in owed {
        match found.get(key) {
            None => _ = write!(text, "; {key} is missing"),
            Some(other) if other != value => {
                let other: String = other.chars().take(80).collect();
                _ = write!(text, "; {key} is {other:?}");
            }
            Some(_) => {}
        }
    }
    for key in found.keys().filter(|key| !owed.contains_key(key)) {
        _ = write!(text, "; {key} should not be there");
    }
    text.trim_start_matches("; ").to_owned()
}

/// Where an image comes from.
#[derive(Debug, Clone)]
pub struct Origin {
    pub script: String,
    /// How many operations had been done, and the last of them in words.
    pub ops: usize,
    pub last: String,
    pub model: Model,
    /// Set if the hardware lied: by which seed.
    pub lies: Option<u64>,
}

impl Origin {
    /// The name it is counted under.
    fn word(&self) -> &'static str {
        if self.lies.is_some() { "lying" } else { self.model.word() }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Origin { script, ops, last, model, lies } = self;
        write!(f, "{script}, {ops} operations, {model}")?;
        if let Some(seed) = lies {
            write!(f, " lies({seed})")?;
        }
        write!(f, ", after {last}")
    }
}

struct Job {
    origin: Origin,
    image: Image,
    expect: Arc<Expect>,
}

/// How many images of a model were looked at.
#[derive(Debug, Default, Clone, Copy)]
pub struct Count {
    /// Moments at which the power went.
    pub points: u64,
    /// Images that differ from the one before, or from which more is owed: those were opened.
    pub images: u64,
    pub violations: u64,
    /// Of lying hardware: images from which something acknowledged was lost, those that the store
    /// refused to open, or to write to, because its database was damaged, and those of a damaged
    /// database that did not keep what it took.
    pub lost: u64,
    pub refused: u64,
    pub forgot: u64,
}

/// What came of all images.
#[derive(Debug, Default)]
pub struct Report {
    pub counts: BTreeMap<&'static str, Count>,
    pub violations: Vec<String>,
    pub slowest_start: Duration,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:12}{:>10}{:>10}{:>12}", "model", "moments", "images", "violations")?;
        for (model, Count { points, images, violations, lost, refused, forgot }) in &self.counts {
            writeln!(f, "{model:12}{points:10}{images:10}{violations:12}")?;
            if lost + refused + forgot > 0 {
                writeln!(f, "  {lost} lost something and healed, {refused} were refused as damaged")?;
                writeln!(f, "  {forgot} of damaged ones forgot what was pushed again")?;
            }
        }
        write!(f, "slowest start {:.0?}", self.slowest_start)
    }
}

impl Report {
    pub fn images(&self) -> u64 {
        self.counts.values().map(|count| count.images).sum()
    }

    pub fn violated(&self) -> u64 {
        self.counts.values().map(|count| count.violations).sum()
    }
}

/// What is done about a violation, besides counting it.
#[derive(Debug, Clone)]
pub enum OnViolation {
    /// It is told at once, and its image is left below `keep`, if that is given.
    Print { keep: Option<PathBuf> },
    /// It is one that must happen.
    Expected,
}

/// Threads that open images and look at what is in them.
pub struct Pool {
    jobs: Option<SyncSender<Job>>,
    threads: Vec<JoinHandle<()>>,
    report: Arc<Mutex<Report>>,
    /// The image of each model before, to tell which are new.
    before: BTreeMap<(Model, Option<u64>), (Image, Arc<Expect>)>,
}

impl Pool {
    /// As many threads as the machine has processors, each with a directory of its own below
    /// `scratch`, which is best in memory.
    pub fn new(scratch: &Path, on_violation: &OnViolation) -> Pool {
        let (jobs, waiting) = sync_channel(QUEUE);
        let waiting = Arc::new(Mutex::new(waiting));
        let report = Arc::new(Mutex::new(Report::default()));
        let threads = std::thread::available_parallelism().map_or(2, usize::from);
        let threads = (0..threads)
            .map(|n| {
                let (dir, on_violation) = (scratch.join(format!("image-{n}")), on_violation.clone());
                let (waiting, report) = (waiting.clone(), report.clone());
                std::thread::spawn(move || work(&waiting, &report, &dir, &on_violation))
            })
            .collect();
        Pool { jobs: Some(jobs), threads, report, before: BTreeMap::new() }
    }

    /// Hands an image over, if it is not the one before of this model with nothing more owed.
    pub fn check(&mut self, origin: Origin, image: Image, expect: &Arc<Expect>) {
        let known = self.before.get(&(origin.model, origin.lies));
        let is_new = known.is_none_or(|(known, owed)| !Arc::ptr_eq(owed, expect) || *known != image);
        {
            let mut report = self.report.lock().unwrap_or_else(PoisonError::into_inner);
            let count = report.counts.entry(origin.word()).or_default();
            count.points += 1;
            count.images += u64::from(is_new);
        }
        if is_new {
            self.before.insert((origin.model, origin.lies), (image.clone(), expect.clone()));
            let job = Job { origin, image, expect: expect.clone() };
            self.jobs
                .as_ref()
                .expect("not finished")
                .send(job)
                .expect("threads work until there are no jobs");
        }
    }

    /// Counts a moment whose image another model has, too.
    pub fn pass(&mut self, origin: &Origin) {
        let mut report = self.report.lock().unwrap_or_else(PoisonError::into_inner);
        report.counts.entry(origin.word()).or_default().points += 1;
    }

    /// Violations so far.
    pub fn violated(&self) -> u64 {
        self.report.lock().unwrap_or_else(PoisonError::into_inner).violated()
    }

    /// Waits for all that was handed over.
    pub fn finish(mut self) -> Report {
        drop(self.jobs.take());
        for thread in self.threads.drain(..) {
            thread.join().expect("what a check panics with is caught");
        }
        std::mem::take(&mut *self.report.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn work(waiting: &Mutex<Receiver<Job>>, report: &Mutex<Report>, dir: &Path, on_violation: &OnViolation) {
    loop {
        let job = waiting.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(job) = job else { return };
        let mut seen = Seen::default();
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            fresh(dir)?;
            job.image.write(dir)?;
            match job.origin.lies {
                None => honest(&dir.join(DATA), &job, &mut seen),
                Some(_) => lying(&dir.join(DATA), &job.expect, &mut seen),
            }
            std::fs::remove_dir_all(dir)
        }));
        match outcome {
            Ok(Ok(())) => {}
            Ok(Err(error)) => seen.say(format!("the image could not be made: {error}")),
            Err(_) => seen.say("I6: a panic".into()),
        }
        let mut report = report.lock().unwrap_or_else(PoisonError::into_inner);
        report.slowest_start = report.slowest_start.max(seen.start);
        let count = report.counts.entry(job.origin.word()).or_default();
        count.lost += u64::from(seen.lost && !seen.refused && !seen.forgot);
        count.refused += u64::from(seen.refused);
        count.forgot += u64::from(seen.forgot);
        if seen.problems.is_empty() {
            continue;
        }
        count.violations += 1;
        let Origin { script, ops, last, model, lies } = &job.origin;
        let lies = lies.map_or(String::new(), |seed| format!(" lies({seed})"));
        let text =
            format!("{script}, {ops} operations, {model}{lies}, after {last}: {}", seen.problems.join(" | "));
        if report.violations.len() < SHOWN {
            if let OnViolation::Print { keep } = on_violation {
                eprintln!("VIOLATION {text}");
                let kept = keep.as_ref().map(|keep| {
                    keep.join(format!("{}-{}", job.origin.script, job.origin.ops)).join(job.origin.word())
                });
                if let Some(Err(error)) = kept.map(|kept| fresh(&kept).and_then(|()| job.image.write(&kept)))
                {
                    eprintln!("the image could not be kept: {error}");
                }
            }
            report.violations.push(text);
        }
    }
}

/// An empty directory.
pub fn fresh(dir: &Path) -> std::io::Result<()> {
    if dir.exists() {
        std::fs::remove_dir_all(dir)?;
    }
    std::fs::create_dir_all(dir)
}

/// What a check came upon.
#[derive(Default)]
struct Seen {
    problems: Vec<String>,
    start: Duration,
    lost: bool,
    refused: bool,
    forgot: bool,
}

impl Seen {
    fn say(&mut self, problem: String) {
        self.problems.push(problem);
    }
}

/// All six promises, on hardware that keeps its own.
fn honest(data: &Path, job: &Job, seen: &mut Seen) {
    let expect = &job.expect;
    let killed = job.origin.model == Model::Kill;
    let boot = if killed { &expect.boot } else { NEXT_BOOT };
    let started = Instant::now();
    let store = match Store::open(data, boot) {
        Ok(store) => store,
        Err(failure) => return seen.say(format!("I4: the store does not open: {failure}")),
    };
    seen.start = started.elapsed();
    if seen.start > START_WITHIN {
        seen.say(format!("I4: the start took {:?}", seen.start));
    }
    if let Err(failure) = &store.upkeep {
        seen.say(format!("I4: what the crash left could not be tidied up: {failure}"));
    }
    if expect.unclean.is_some_and(|unclean| unclean != store.registry.was_unclean()) {
        seen.say(format!(
            "I4: the last stop is taken for {}",
            if expect.unclean == Some(true) { "clean" } else { "a crash" }
        ));
    }
    compare(&store, expect, &expect.allowed(), "I1, I2, I3", seen);
    if let Err(problem) = check_files(data, killed) {
        seen.say(problem);
    }
    if killed {
        for (repo, id, min, max) in &expect.uploads {
            match store.upload_bytes(repo, id) {
                Ok(Some(bytes)) if (*min as u64..=*max as u64).contains(&bytes) => {}
                Ok(bytes) => seen.say(format!("I1: an upload of {min}..={max} bytes has {bytes:?}")),
                Err(failure) => seen.say(format!("I1: an upload cannot be asked for: {failure}")),
            }
        }
    }
    // Making the administrator takes long: not for each image of a first start.
    if job.origin.ops.is_multiple_of(FIRST_EVERY)
        && let Err(failure) = store.user()
    {
        seen.say(format!("I5: the first start cannot be finished: {failure}"));
    }
    for step in expect.under_way.iter().filter_map(Step::again) {
        match store.run(&step, None) {
            Ok(_) => {}
            // It had been done already.
            Err(failure) if step.deletes() && failure.why == Why::NotFound => {}
            Err(failure) => seen.say(format!("I5: {step}, once more: {failure}")),
        }
    }
    if !expect.under_way.is_empty() {
        compare(&store, expect, &[expect.after()], "I5", seen);
    }
    match store.registry.check_pages(1, u32::MAX) {
        Ok(checked) if checked.wrong.is_empty() => {}
        Ok(checked) => seen.say(format!("I3: pages of the database are damaged: {:?}", checked.wrong)),
        Err(error) => seen.say(format!("I3: the database's pages cannot be checked: {error:?}")),
    }
    drop(store);
    if let Err(problem) = check_database(data, true) {
        seen.say(format!("I3: {problem}"));
    }
}

fn compare(store: &Store, expect: &Expect, allowed: &[State], promise: &str, seen: &mut Seen) {
    match store.look(&expect.world.keys()) {
        Ok(found) if allowed.contains(&found) => {}
        Ok(found) => seen.say(format!("{promise}: {}", difference(&found, &allowed[0]))),
        Err(failure) => seen.say(format!("{promise}: it cannot be read: {failure}")),
    }
}

/// Every file that has a blob's name is that blob, and no upload outlives the power.
fn check_files(data: &Path, killed: bool) -> Result<(), String> {
    let list = |dir: &str| -> Result<Vec<PathBuf>, String> {
        let entries = std::fs::read_dir(data.join(dir)).map_err(|error| format!("{dir}: {error}"))?;
        Ok(entries.map_while(Result::ok).map(|entry| entry.path()).collect())
    };
    for path in list("blobs/sha256")? {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let bytes = std::fs::read(&path).map_err(|error| error.to_string())?;
        if sha256(&bytes) != format!("sha256:{name}") {
            return Err(format!("I2: the file {name} has {} other bytes", bytes.len()));
        }
    }
    let (uploads, quarantined) = (list("uploads")?.len(), list("quarantine")?.len());
    match (killed, uploads, quarantined) {
        (false, 1.., _) => Err(format!("I3: {uploads} uploads outlived the power cut")),
        (_, _, 1..) => Err(format!("I1: {quarantined} blobs went to quarantine")),
        _ => Ok(()),
    }
}

/// The database is whole, and, on honest hardware, has a row for each blob's file.
fn check_database(data: &Path, honest: bool) -> Result<(), String> {
    let files = std::fs::read_dir(data.join("blobs/sha256")).map_or(0, Iterator::count);
    let look = || -> rusqlite::Result<Option<String>> {
        let database = rusqlite::Connection::open(data.join("registry.db"))?;
        let found: String = database.query_row("PRAGMA integrity_check", [], |row| row.get(0))?;
        if found != "ok" {
            return Ok(Some(found));
        }
        if database.prepare("PRAGMA foreign_key_check")?.exists([])? {
            return Ok(Some("rows refer to nothing".into()));
        }
        let rows: i64 = database.query_row("SELECT count(*) FROM blob WHERE live", [], |row| row.get(0))?;
        let differ = honest && usize::try_from(rows) != Ok(files);
        Ok(differ.then(|| format!("{rows} rows of blobs, and {files} files")))
    };
    match look() {
        Ok(None) => Ok(()),
        Ok(Some(found)) => Err(format!("the database: {found}")),
        Err(error) => Err(format!("the database cannot be checked: {error}")),
    }
}

/// Whether a page of the database's file has another checksum than its bytes, or is another page's.
fn check_sums(data: &Path) -> Result<(), String> {
    const PAGE: usize = 4096;
    let bytes = std::fs::read(data.join("registry.db")).map_err(|error| error.to_string())?;
    for (number, page) in (1u32..).zip(bytes.chunks(PAGE)) {
        let (sealed, sum) = page.split_at(page.len().saturating_sub(4));
        if page.len() < PAGE
            || sealed[PAGE - 8..] != number.to_le_bytes()
            || *sum != crc32c::crc32c(sealed).to_le_bytes()
        {
            return Err(format!("page {number} is not as it was written"));
        }
    }
    Ok(())
}

/// Hardware that lies may lose what was acknowledged. It may not make us serve wrong
/// bytes; and unless the database itself is damaged, pushing again heals everything.
fn lying(data: &Path, expect: &Expect, seen: &mut Seen) {
    // Before anybody looks: by its rows alone not every damage is seen, and who looks for those
    // copies the log into the file, without checksums.
    let sums = check_sums(data);
    let is_damaged = || sums.is_err() || check_database(data, false).is_err();
    let store = match Store::open(data, NEXT_BOOT) {
        Ok(store) => store,
        Err(failure) => {
            seen.refused = is_damaged();
            if !seen.refused {
                seen.say(format!("I4: the store does not open: {failure}"));
            }
            return;
        }
    };
    let mut owed = expect.after();
    owed.retain(|key, _| !matches!(key, Key::Repo(_)));
    for key in &expect.world.keys {
        if let Err(problem) = check_bytes(&store, &expect.world, key) {
            seen.say(problem);
        }
    }
    let found = store.look(&expect.world.keys()).unwrap_or_default();
    seen.lost = expect.state.iter().any(|(key, value)| found.get(key) != Some(value));
    // Blobs, manifests, tags: each needs those before.
    let heals = owed.iter().filter_map(|(key, value)| Some((key, expect.world.heal(key, value)?)));
    let (mut failed, mut forgotten) = (None, Vec::new());
    for (key, step) in heals {
        let healed = store.run(&step, None).map(|_| store.look(std::slice::from_ref(key)));
        match healed {
            Ok(Ok(found)) if found.get(key) == owed.get(key) => {}
            Ok(Ok(_)) => {
                forgotten.push(format!("I5: {key} was pushed again, acknowledged, and is not right"));
            }
            Ok(Err(failure)) | Err(failure) => failed = Some((key, failure)),
        }
    }
    drop(store);
    if failed.is_none() && forgotten.is_empty() {
        return;
    }
    if is_damaged() {
        (seen.refused, seen.forgot) = (failed.is_some(), !forgotten.is_empty());
        return;
    }
    forgotten.into_iter().for_each(|problem| seen.say(problem));
    if let Some((key, failure)) = failed {
        seen.say(format!("I5: {key} cannot be pushed again: {failure}"));
    }
}

fn check_bytes(store: &Store, world: &World, key: &Key) -> Result<(), String> {
    let wrong = |failure: Failure| match failure.why {
        Why::WrongBytes => Err(format!("I2: {failure}")),
        _ => Ok(()),
    };
    match key {
        Key::Repo(_) => Ok(()),
        Key::Blob(repo, digest) => store.blob(repo, digest).map(|_| ()).or_else(wrong),
        Key::Manifest(repo, digest) => store.manifest(repo, digest).map(|_| ()).or_else(wrong),
        Key::Tag(repo, tag) => match store.manifest(repo, tag) {
            Ok(Some((digest, _))) if !world.tagged.get(key).is_some_and(|had| had.contains(&digest)) => {
                Err(format!("I2: {key} is one it never was"))
            }
            Ok(_) => Ok(()),
            Err(failure) => wrong(failure),
        },
    }
}

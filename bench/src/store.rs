//! A data directory that is filled by the registry's own verbs in this process: what a year of
//! pushes would have left, in minutes.

use bytes::Bytes;
use outport::names::{Algorithm, Digest, Reference, RepoName, Tag};
use outport::registry::{Clock, ManifestPush, Mode, Options, Registry, SignUp, User};
use rustix::fs::statvfs;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::Result;
use crate::fill::{ADMIN, PASSWORD};
use crate::payload::digest;

/// Pushes that go on at once. The registry groups what waits together into one commit.
const THREADS: usize = 64;
/// Files in memory, if this much of it is free.
const MEMORY: &str = "/dev/shm";
const MEMORY_FREE: u64 = 6 << 30;
/// How often it is told how far we are.
const TELL: usize = 50_000;

pub struct Store {
    pub registry: Registry,
    pub user: User,
}

/// Fills a new data directory; leaves one that was filled with the same as it is. `mark` says
/// with what. New repositories are private or not.
pub fn once(dir: &Path, mark: &str, private: bool, fill: impl FnOnce(Store) -> Result<()>) -> Result<()> {
    let done = dir.join("filled");
    if std::fs::read_to_string(&done).is_ok_and(|text| text == mark) {
        return Ok(());
    }
    if done.exists() || dir.join("registry.db").exists() {
        return Err(format!("{} holds something else; name a new directory", dir.display()).into());
    }
    let started = Instant::now();
    // Nothing of it must outlive a power cut: it is made in memory, where there is room, and moved.
    let memory = Path::new(MEMORY);
    let roomy = statvfs(memory).is_ok_and(|stat| stat.f_bavail.saturating_mul(stat.f_frsize) >= MEMORY_FREE);
    if roomy && let Ok(made) = tempfile::tempdir_in(memory) {
        fill(Store::open(made.path(), private)?)?;
        copy(made.path(), dir)?;
    } else {
        fill(Store::open(dir, private)?)?;
    }
    std::fs::write(done, mark)?;
    eprintln!("filled {} in {:.0} s", dir.display(), started.elapsed().as_secs_f64());
    Ok(())
}

/// Copies what a directory holds into another, with the rights that it has.
fn copy(from: &Path, to: &Path) -> Result<()> {
    std::fs::create_dir_all(to)?;
    std::fs::set_permissions(to, std::fs::metadata(from)?.permissions())?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let to = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &to)?;
        } else {
            std::fs::copy(entry.path(), to)?;
        }
    }
    Ok(())
}

impl Store {
    fn open(dir: &Path, private: bool) -> Result<Store> {
        let options = Options {
            private,
            library_open: false,
            anonymous_pull: true,
            sign_up: SignUp::Closed,
            blob_bytes_max: 1 << 30,
            reserve_bytes: Some(0),
            uploads_per_user: 64,
            upload_expiry: Duration::from_secs(3_600),
            grace: Duration::from_secs(3_600),
            scrub_period: Duration::ZERO,
            retention: Vec::new(),
        };
        let mode = Mode::Serve { boot_id: outport::registry::boot_id()? };
        let registry = Registry::open(dir, &mode, options, Clock::system())?;
        registry.admin_init(Some(PASSWORD))?;
        let user = registry.user_verify(ADMIN, PASSWORD)?.ok_or("there is no administrator")?;
        Ok(Store { registry, user })
    }

    pub fn blob(&self, repo: &str, bytes: Vec<u8>) -> Result<()> {
        let (repo, digest) = (RepoName::parse(repo)?, Digest::parse(&digest(&bytes))?);
        let upload = self.registry.upload_begin(&self.user, &repo, Algorithm::Sha256, 0)?;
        upload.write(&[Bytes::from(bytes)])?;
        Ok(self.registry.upload_commit(&upload, &repo, &digest)?)
    }

    /// Lets a repository have a blob that is there.
    pub fn mount(&self, repo: &str, digest: &str) -> Result<()> {
        match self.registry.blob_mount(&self.user, &RepoName::parse(repo)?, &Digest::parse(digest)?, None)? {
            true => Ok(()),
            false => Err("a blob was not there".into()),
        }
    }

    pub fn put(&self, repo: &str, text: String, tags: &[String]) -> Result<()> {
        let tags = tags.iter().map(|tag| Tag::parse(tag)).collect::<outport::error::Result<Vec<_>>>()?;
        self.registry.manifest_put(ManifestPush {
            repo: RepoName::parse(repo)?,
            user: self.user.id,
            reference: Reference::Digest(Digest::parse(&digest(text.as_bytes()))?),
            tags,
            content_type: None,
            body: text.into(),
        })?;
        Ok(())
    }

    /// Does something for every number below `count`, on many threads.
    pub fn each(&self, what: &str, count: usize, make: impl Fn(usize) -> Result<()> + Sync) -> Result<()> {
        let (next, failed) = (AtomicUsize::new(0), Mutex::new(None));
        let work = || {
            loop {
                let n = next.fetch_add(1, Ordering::Relaxed);
                if n >= count {
                    return;
                }
                if n > 0 && n.is_multiple_of(TELL) {
                    eprintln!("{what}: {n} of {count}");
                }
                if let Err(error) = make(n) {
                    next.store(count, Ordering::Relaxed);
                    if let Ok(mut failed) = failed.lock() {
                        *failed = Some(format!("{what} {n}: {error}"));
                    }
                    return;
                }
            }
        };
        std::thread::scope(|scope| {
            for _ in 0..THREADS {
                scope.spawn(work);
            }
        });
        match failed.into_inner() {
            Ok(None) => Ok(()),
            Ok(Some(error)) => Err(error.into()),
            Err(_) => Err("a thread panicked".into()),
        }
    }
}

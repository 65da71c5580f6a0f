//! A store of some size, made by the registry's own verbs in this process: what is measured
//! later is what a year of pushes would have left.

use bytes::Bytes;
use outport::names::{Algorithm, Digest, Reference, RepoName, Tag, UserName};
use outport::registry::{
    Clock, Grantee, GroupName, Level, ManifestPush, Mode, Options, Pattern, Registry, RepoChange, SignUp,
    User, UserAdd,
};
use sha2::Digest as _;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::Result;

pub const PASSWORD: &str = "correct horse";
/// The administrator, who sees everything.
pub const ADMIN: &str = "admin";
/// Owns the organisation that holds half of all repositories.
pub const OWNER: &str = "olga";
/// Owns a namespace of a few repositories, and nothing else.
pub const SMALL: &str = "uma";
/// Was granted a thousand private repositories one by one.
pub const GRANTEE: &str = "grete";
/// Sees what is public.
pub const STRANGER: &str = "sam";

/// The organisation with half of all repositories, and its remarkable ones.
pub const FLEET: &str = "fleet";
pub const BIG: &str = "fleet/big";
pub const MULTI: &str = "fleet/multi";
pub const SIGNED: &str = "fleet/signed";
/// An organisation with many groups and many members.
pub const CROWD: &str = "crowd";

const GRANTS: usize = 1_000;
const GROUPS: usize = 1_000;
const MEMBERS: usize = 2_000;
/// The other namespaces, an odd number so that each has both public and private repositories: users', organisations', and those of nobody in particular.
const NAMESPACES: usize = 1_001;
const USERS: usize = 400;
const ORGS: usize = 200;
const CONFIGS: usize = 1_000;
const MULTI_TAGS: usize = 300;
const PLATFORMS: [(&str, &str); 8] = [
    ("amd64", ""),
    ("arm64", "v8"),
    ("arm", "v7"),
    ("arm", "v6"),
    ("386", ""),
    ("ppc64le", ""),
    ("riscv64", ""),
    ("s390x", ""),
];
const REFERRERS: usize = 2_000;
/// Pushes that go on at once. The registry groups what waits together into one commit.
const THREADS: usize = 64;

const FIRST_WORDS: [&str; 16] = [
    "camera", "gateway", "sensor", "broker", "meter", "valve", "pump", "robot", "lift", "drone", "printer",
    "scanner", "router", "modem", "charger", "turbine",
];
const SECOND_WORDS: [&str; 16] = [
    "agent", "driver", "proxy", "api", "worker", "ui", "sync", "cache", "store", "logger", "updater",
    "bridge", "monitor", "backup", "auth", "edge",
];

/// How much there is: so many repositories, and ten times as many tags.
#[derive(Clone, Copy)]
pub struct Shape {
    pub repos: usize,
}

impl Shape {
    /// Repositories of [`FLEET`], the remarkable ones not counted.
    pub fn fleet(self) -> usize {
        self.repos / 2
    }

    /// Tags of [`BIG`]; each five are one image's.
    pub fn big_tags(self) -> usize {
        self.repos * 5
    }

    /// The name of the repository of this number. Every other one is private.
    pub fn repo(self, n: usize) -> String {
        let words =
            format!("{}-{}", FIRST_WORDS[n % FIRST_WORDS.len()], SECOND_WORDS[n / 7 % SECOND_WORDS.len()]);
        match n.checked_sub(self.fleet()) {
            None => format!("{FLEET}/{words}-{n:05}"),
            Some(other) => format!("{}/{words}-{n:05}", namespace(other % NAMESPACES)),
        }
    }

    /// What is granted to [`GRANTEE`]: private ones, half of them in [`FLEET`].
    fn granted(self, n: usize) -> String {
        let step = (self.repos / GRANTS).max(2) / 2 * 2;
        self.repo((n * step + 1) % self.repos)
    }
}

pub fn is_private(n: usize) -> bool {
    n % 2 == 1
}

fn namespace(n: usize) -> String {
    match n {
        0 => SMALL.to_owned(),
        _ if n < USERS => format!("user{n:03}"),
        _ if n < USERS + ORGS => format!("org{n:03}"),
        _ => format!("site{n:03}"),
    }
}

pub fn big_tag(n: usize) -> String {
    format!("build-{}.{}-{n:06}", n / 1_000, n % 7)
}

/// The digest whose referrers are many.
pub fn subject() -> String {
    digest(b"a subject that is not here")
}

fn digest(bytes: &[u8]) -> String {
    let hex: String = sha2::Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

/// A config of the size that real ones have.
fn config(n: usize) -> String {
    let (architecture, variant) = PLATFORMS[n % PLATFORMS.len()];
    let history: String = (0..12)
        .map(|step| {
            format!(r#"{{"created":"2026-01-02T03:04:05Z","created_by":"RUN step {step} of {n}","empty_layer":{}}},"#, step % 2 == 0)
        })
        .collect();
    format!(
        r#"{{"architecture":"{architecture}","variant":"{variant}","os":"linux","created":"2026-01-02T03:04:05Z","author":"bench","config":{{"Env":["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin","BUILD={n}"],"Cmd":["/usr/bin/agent","--foreground"],"Labels":{{"org.opencontainers.image.version":"{n}"}}}},"rootfs":{{"type":"layers","diff_ids":["{}"]}},"history":[{}]}}"#,
        digest(b"layer"),
        history.trim_end_matches(',')
    )
}

fn manifest(config: &str, mark: &str, more: &str) -> String {
    let (digest, size) = (digest(config.as_bytes()), config.len());
    format!(
        r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"{digest}","size":{size}}},"layers":[],"annotations":{{"mark":"{mark}"}}{more}}}"#
    )
}

/// The repository, by number, whose config pushes of new manifests use. [`BIG`] has it too.
pub const ANOTHER: usize = 2;

/// A manifest to push, like those that are there.
pub fn another_manifest(mark: &str) -> String {
    manifest(&config(ANOTHER), mark, "")
}

/// Fills a new data directory; leaves one that was filled as it is.
pub fn fill(dir: &Path, shape: Shape) -> Result<()> {
    let done = dir.join("filled");
    if std::fs::read_to_string(&done).is_ok_and(|repos| repos == shape.repos.to_string()) {
        return Ok(());
    }
    if done.exists() || dir.join("registry.db").exists() {
        return Err(format!("{} holds something else; name a new directory", dir.display()).into());
    }
    let started = Instant::now();
    Filling::new(dir, shape)?.all()?;
    std::fs::write(done, shape.repos.to_string())?;
    eprintln!("filled {} in {:.0} s", dir.display(), started.elapsed().as_secs_f64());
    Ok(())
}

struct Filling {
    registry: Registry,
    shape: Shape,
    user: User,
    configs: Vec<String>,
}

impl Filling {
    fn new(dir: &Path, shape: Shape) -> Result<Filling> {
        let options = Options {
            private: true,
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
        Ok(Filling { registry, shape, user, configs: (0..CONFIGS).map(config).collect() })
    }

    fn all(&self) -> Result<()> {
        self.people()?;
        self.blobs()?;
        self.each("repositories", self.shape.repos, |n| self.small_repo(n))?;
        self.each("images of one repository", self.shape.big_tags() / 5, |n| self.big_image(n))?;
        self.each("indexes", MULTI_TAGS, |n| self.index(n))?;
        self.each("referrers", REFERRERS, |n| self.referrer(n))?;
        for repo in [BIG, MULTI, SIGNED] {
            self.registry.repo_set_private(&RepoName::parse(repo)?, false)?;
        }
        self.each("grants", GRANTS, |n| {
            let pattern = Pattern::Repo(RepoName::parse(&self.shape.granted(n))?);
            Ok(self.registry.grant(&pattern, &Grantee::parse(GRANTEE)?, Level::Read)?)
        })
    }

    fn people(&self) -> Result<()> {
        for name in [OWNER, SMALL, GRANTEE, STRANGER] {
            let name = UserName::parse(name)?;
            self.registry.user_add(&UserAdd {
                name: &name,
                password: PASSWORD,
                admin: false,
                email: None,
            })?;
        }
        // Nobody logs in as these, so any hash will do.
        let names = (1..USERS).map(namespace).chain((0..MEMBERS).map(|n| format!("member{n:04}")));
        let hash = "$2a$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW";
        let lines: String = names.map(|name| format!("{name}:{hash}\n")).collect();
        self.registry.users_import(&lines)?;
        let owner = UserName::parse(OWNER)?;
        for org in [FLEET, CROWD].into_iter().map(str::to_owned).chain((USERS..USERS + ORGS).map(namespace)) {
            self.registry.org_add(&UserName::parse(&org)?, "", &owner)?;
        }
        self.each("groups", GROUPS, |n| {
            Ok(self.registry.group_add(&GroupName::parse(&format!("{CROWD}/team{n:04}"))?, "")?)
        })?;
        self.each("members", MEMBERS, |n| {
            let member = UserName::parse(&format!("member{n:04}"))?;
            for group in ["team0000".to_owned(), format!("team{:04}", 1 + n % (GROUPS - 1))] {
                self.registry.group_join(&GroupName::parse(&format!("{CROWD}/{group}"))?, &member)?;
            }
            Ok(())
        })
    }

    /// The configs, in the repositories that hold many of them.
    fn blobs(&self) -> Result<()> {
        self.each("configs", CONFIGS, |n| {
            let bytes = self.configs[n].as_bytes();
            let digest = Digest::parse(&digest(bytes))?;
            let repo = RepoName::parse(BIG)?;
            let upload = self.registry.upload_begin(&self.user, &repo, Algorithm::Sha256, 0)?;
            upload.write(&[Bytes::copy_from_slice(bytes)])?;
            self.registry.upload_commit(&upload, &repo, &digest)?;
            self.mount(MULTI, n)
        })?;
        self.mount(SIGNED, 0)
    }

    fn mount(&self, repo: &str, config: usize) -> Result<()> {
        let digest = Digest::parse(&digest(self.configs[config % CONFIGS].as_bytes()))?;
        match self.registry.blob_mount(&self.user, &RepoName::parse(repo)?, &digest, None)? {
            true => Ok(()),
            false => Err("a config was not there".into()),
        }
    }

    fn put(&self, repo: &str, text: String, tags: &[String]) -> Result<()> {
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

    /// A repository with two images of two and three tags. Every fifth has a description.
    fn small_repo(&self, n: usize) -> Result<()> {
        let name = self.shape.repo(n);
        if n.is_multiple_of(5) || !is_private(n) {
            let description =
                n.is_multiple_of(5).then(|| format!("Runs beside number {n}, keeps its state elsewhere"));
            let change = RepoChange { description, private: Some(is_private(n)), ..RepoChange::default() };
            self.registry.repo_create(&self.user, &RepoName::parse(&name)?, change)?;
        }
        self.mount(&name, n)?;
        let config = &self.configs[n % CONFIGS];
        self.put(&name, manifest(config, &format!("{n} a"), ""), &["v1.0".into(), "v1.1".into()])?;
        let tags = ["latest".into(), "v2".into(), "v2.0".into()];
        self.put(&name, manifest(config, &format!("{n} b"), ""), &tags)
    }

    fn big_image(&self, n: usize) -> Result<()> {
        let tags: Vec<String> = (n * 5..n * 5 + 5).map(big_tag).collect();
        self.put(BIG, manifest(&self.configs[n % CONFIGS], &format!("big {n}"), ""), &tags)
    }

    fn index(&self, n: usize) -> Result<()> {
        let mut children = Vec::new();
        for (at, (architecture, variant)) in PLATFORMS.into_iter().enumerate() {
            let text = manifest(&self.configs[(n * 8 + at) % CONFIGS], &format!("multi {n} {at}"), "");
            children.push(format!(
                r#"{{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"{}","size":{},"platform":{{"architecture":"{architecture}","variant":"{variant}","os":"linux"}}}}"#,
                digest(text.as_bytes()),
                text.len()
            ));
            self.put(MULTI, text, &[])?;
        }
        let text = format!(
            r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[{}]}}"#,
            children.join(",")
        );
        self.put(MULTI, text, &[format!("v{n}")])
    }

    fn referrer(&self, n: usize) -> Result<()> {
        let about = format!(
            r#","artifactType":"application/vnd.example.sbom","subject":{{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"{}","size":500}}"#,
            subject()
        );
        self.put(SIGNED, manifest(&self.configs[0], &format!("referrer {n}"), &about), &[])
    }

    /// Does something for every number below `count`, on many threads.
    fn each(&self, what: &str, count: usize, make: impl Fn(usize) -> Result<()> + Sync) -> Result<()> {
        let (next, failed) = (AtomicUsize::new(0), std::sync::Mutex::new(None));
        let work = || {
            loop {
                let n = next.fetch_add(1, Ordering::Relaxed);
                if n >= count {
                    return;
                }
                if n % 10_000 == 0 {
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

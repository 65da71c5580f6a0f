//! The store whose lists are measured: people, namespaces, and repositories of all kinds.

use outport::names::{RepoName, UserName};
use outport::registry::{Grantee, GroupName, Level, Pattern, RepoChange, UserAdd};
use std::path::Path;

use crate::Result;
use crate::payload::{MANIFEST, bare_manifest, digest};
use crate::store::{Store, once};

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

/// The repository, by number, whose config pushes of new manifests use. [`BIG`] has it too.
pub const ANOTHER: usize = 2;

/// A manifest to push, like those that are there.
pub fn another_manifest(mark: &str) -> String {
    bare_manifest(&config(ANOTHER), mark, "")
}

/// Fills a new data directory; leaves one that was filled as it is.
pub fn fill(dir: &Path, shape: Shape) -> Result<()> {
    once(dir, &shape.repos.to_string(), true, |store| {
        Filling { store, shape, configs: (0..CONFIGS).map(config).collect() }.all()
    })
}

struct Filling {
    store: Store,
    shape: Shape,
    configs: Vec<String>,
}

impl Filling {
    fn all(&self) -> Result<()> {
        self.people()?;
        self.blobs()?;
        self.store.each("repositories", self.shape.repos, |n| self.small_repo(n))?;
        self.store.each("images of one repository", self.shape.big_tags() / 5, |n| self.big_image(n))?;
        self.store.each("indexes", MULTI_TAGS, |n| self.index(n))?;
        self.store.each("referrers", REFERRERS, |n| self.referrer(n))?;
        for repo in [BIG, MULTI, SIGNED] {
            self.store.registry.repo_set_private(&RepoName::parse(repo)?, false)?;
        }
        self.store.each("grants", GRANTS, |n| {
            let pattern = Pattern::Repo(RepoName::parse(&self.shape.granted(n))?);
            Ok(self.store.registry.grant(&pattern, &Grantee::parse(GRANTEE)?, Level::Read)?)
        })
    }

    fn people(&self) -> Result<()> {
        for name in [OWNER, SMALL, GRANTEE, STRANGER] {
            let name = UserName::parse(name)?;
            self.store.registry.user_add(&UserAdd {
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
        self.store.registry.users_import(&lines)?;
        let owner = UserName::parse(OWNER)?;
        for org in [FLEET, CROWD].into_iter().map(str::to_owned).chain((USERS..USERS + ORGS).map(namespace)) {
            self.store.registry.org_add(&UserName::parse(&org)?, "", &owner)?;
        }
        self.store.each("groups", GROUPS, |n| {
            Ok(self.store.registry.group_add(&GroupName::parse(&format!("{CROWD}/team{n:04}"))?, "")?)
        })?;
        self.store.each("members", MEMBERS, |n| {
            let member = UserName::parse(&format!("member{n:04}"))?;
            for group in ["team0000".to_owned(), format!("team{:04}", 1 + n % (GROUPS - 1))] {
                self.store.registry.group_join(&GroupName::parse(&format!("{CROWD}/{group}"))?, &member)?;
            }
            Ok(())
        })
    }

    /// The configs, in the repositories that hold many of them.
    fn blobs(&self) -> Result<()> {
        self.store.each("configs", CONFIGS, |n| {
            self.store.blob(BIG, self.configs[n].clone().into_bytes())?;
            self.mount(MULTI, n)
        })?;
        self.mount(SIGNED, 0)
    }

    fn mount(&self, repo: &str, config: usize) -> Result<()> {
        self.store.mount(repo, &digest(self.configs[config % CONFIGS].as_bytes()))
    }

    /// A repository with two images of two and three tags. Every fifth has a description.
    fn small_repo(&self, n: usize) -> Result<()> {
        let name = self.shape.repo(n);
        if n.is_multiple_of(5) || !is_private(n) {
            let description =
                n.is_multiple_of(5).then(|| format!("Runs beside number {n}, keeps its state elsewhere"));
            let change = RepoChange { description, private: Some(is_private(n)), ..RepoChange::default() };
            self.store.registry.repo_create(&self.store.user, &RepoName::parse(&name)?, change)?;
        }
        self.mount(&name, n)?;
        let config = &self.configs[n % CONFIGS];
        self.store.put(
            &name,
            bare_manifest(config, &format!("{n} a"), ""),
            &["v1.0".into(), "v1.1".into()],
        )?;
        let tags = ["latest".into(), "v2".into(), "v2.0".into()];
        self.store.put(&name, bare_manifest(config, &format!("{n} b"), ""), &tags)
    }

    fn big_image(&self, n: usize) -> Result<()> {
        let tags: Vec<String> = (n * 5..n * 5 + 5).map(big_tag).collect();
        self.store.put(BIG, bare_manifest(&self.configs[n % CONFIGS], &format!("big {n}"), ""), &tags)
    }

    fn index(&self, n: usize) -> Result<()> {
        let mut children = Vec::new();
        for (at, (architecture, variant)) in PLATFORMS.into_iter().enumerate() {
            let text = bare_manifest(&self.configs[(n * 8 + at) % CONFIGS], &format!("multi {n} {at}"), "");
            children.push(format!(
                r#"{{"mediaType":"{MANIFEST}","digest":"{}","size":{},"platform":{{"architecture":"{architecture}","variant":"{variant}","os":"linux"}}}}"#,
                digest(text.as_bytes()),
                text.len()
            ));
            self.store.put(MULTI, text, &[])?;
        }
        let text = format!(
            r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[{}]}}"#,
            children.join(",")
        );
        self.store.put(MULTI, text, &[format!("v{n}")])
    }

    fn referrer(&self, n: usize) -> Result<()> {
        let about = format!(
            r#","artifactType":"application/vnd.example.sbom","subject":{{"mediaType":"{MANIFEST}","digest":"{}","size":500}}"#,
            subject()
        );
        self.store.put(SIGNED, bare_manifest(&self.configs[0], &format!("referrer {n}"), &about), &[])
    }
}

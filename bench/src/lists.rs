//! `lists`: what a page of every list costs the server, in a store of 100,000 repositories and
//! 1,000,000 tags.

use clap::Args;
use serde::Serialize;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::Result;
use crate::client::{Answer, Client, Door};
use crate::fill::{
    self, ADMIN, BIG, CROWD, FLEET, GRANTEE, MULTI, OWNER, PASSWORD, SIGNED, SMALL, STRANGER, Shape,
};
use crate::payload::scatter;
use crate::server::{self, Server, free_address, plain_outport};

/// What a page of every list costs the server.
#[derive(Args)]
pub struct Lists {
    /// The binary to measure; otherwise the one beside this program
    #[arg(long, value_name = "FILE")]
    binary: Option<PathBuf>,
    /// A directory to fill, or one that was filled before; otherwise one that goes away
    #[arg(long)]
    data: Option<PathBuf>,
    /// Repositories; there are ten times as many tags
    #[arg(long, default_value_t = 100_000)]
    repos: usize,
    /// Rows whose words hold this, alone
    #[arg(long, default_value = "")]
    only: String,
    /// Print JSON instead of Markdown
    #[arg(long)]
    json: bool,
}

/// Requests before the first that counts: caches fill, passwords are checked.
const WARM_UP: usize = 16;
/// The figure is the middle one of so many batches; a batch takes so much CPU time, and at
/// least so many requests.
const BATCHES: usize = 9;
const BATCH_CPU: Duration = Duration::from_millis(30);
const BATCH_REQUESTS: usize = 8;
/// Pages that numbers reach.
const NUMBERED: usize = 100;
/// Pages of a walk that are measured together.
const WALK_BATCH: usize = 50;

/// A page, or many of its kind: the target for each number, so that no cache is hit by asking
/// for the same again and again.
struct Page {
    dialect: &'static str,
    what: String,
    by: &'static str,
    target: Target,
}

#[derive(Serialize)]
struct Measured {
    dialect: &'static str,
    page: String,
    by: &'static str,
    /// Of one answer's body, in KiB.
    kib: f64,
    /// Server CPU for one page.
    cpu_ms: f64,
    /// Latency at the client.
    p50_ms: f64,
    p99_ms: f64,
}

impl Lists {
    pub fn run(self) -> Result<()> {
        let shape = Shape { repos: self.repos };
        let own = tempfile::tempdir()?;
        let dir = self.data.as_deref().unwrap_or(own.path());
        fill::fill(dir, shape)?;
        let (binary, address) = (server::binary(self.binary.as_deref())?, free_address()?);
        let server = Server::start(plain_outport(&binary, dir, address), address, false)?;
        let mut rows = Vec::new();
        for page in pages(&server, shape)? {
            if self.wants(page.dialect, &page.what, page.by) {
                rows.push(note(measure(&server, &page)?));
            }
        }
        for (dialect, what, by, target) in walks(&server)? {
            if self.wants(dialect, what, by) {
                rows.push(note(walk(&server, dialect, what, by, target)?));
            }
        }
        for (what, by, repo) in [
            ("manifest PUT, a new tag among 500,000", ADMIN, BIG.to_owned()),
            ("manifest PUT, a new tag among 5", ADMIN, shape.repo(fill::ANOTHER)),
        ] {
            if self.wants("oci", what, by) {
                rows.push(note(push(&server, what, &repo)?));
            }
        }
        match self.json {
            true => println!("{}", serde_json::to_string_pretty(&rows)?),
            false => print_table(&rows),
        }
        eprintln!("peak memory of the server: {} KiB", server.peak_kib()?);
        Ok(())
    }

    fn wants(&self, dialect: &str, what: &str, by: &str) -> bool {
        format!("{dialect} {what} {by}").contains(&self.only)
    }
}

/// Tells how it goes on.
fn note(row: Measured) -> Measured {
    eprintln!("{:8.3} ms  {} {} {}", row.cpu_ms, row.dialect, row.page, row.by);
    row
}

fn print_table(rows: &[Measured]) {
    println!("| API | page | asked by | KiB | CPU ms | p50 ms | p99 ms |");
    println!("|---|---|---|--:|--:|--:|--:|");
    for Measured { dialect, page, by, kib, cpu_ms, p50_ms, p99_ms } in rows {
        println!("| {dialect} | {page} | {by} | {kib:.1} | {cpu_ms:.2} | {p50_ms:.2} | {p99_ms:.2} |");
    }
}

// What is asked -------------------------------------------------------------------------

/// How many full pages of so many names numbers reach. Strangers see half of the repositories.
fn numbered(names: usize, page: usize) -> usize {
    (names / page).clamp(1, NUMBERED)
}

fn same(target: impl Into<String>) -> Target {
    let target = target.into();
    Box::new(move |_| target.clone())
}

pub fn many(target: impl Fn(usize) -> String + 'static) -> Target {
    Box::new(target)
}

fn pages(server: &Server, shape: Shape) -> Result<Vec<Page>> {
    let mut pages = Vec::new();
    let mut add = |dialect, what: &str, by, target| {
        pages.push(Page { dialect, what: what.to_owned(), by, target });
    };
    oci(shape, &mut add);
    v1(shape, &mut add);
    hub(shape, &mut add);
    mlspace(server, shape, &mut add)?;
    Ok(pages)
}

/// What is asked for, by number.
pub type Target = Box<dyn Fn(usize) -> String>;

fn oci(shape: Shape, add: &mut impl FnMut(&'static str, &str, &'static str, Target)) {
    let middle = move |n| shape.repo(scatter(n, shape.repos));
    for by in [ADMIN, OWNER, GRANTEE, SMALL, STRANGER] {
        add("oci", "_catalog, n=100, first", by, same("/v2/_catalog?n=100"));
        add("oci", "_catalog, n=100, anywhere", by, {
            many(move |n| format!("/v2/_catalog?n=100&last={}", middle(n)))
        });
        add("oci", "_catalog, n=100, last", by, same("/v2/_catalog?n=100&last=user399/z"));
    }
    for by in [ADMIN, STRANGER] {
        add("oci", "_catalog, all 10,000", by, many(move |n| format!("/v2/_catalog?last={}", middle(n / 4))));
    }
    let tag = move |n| fill::big_tag(scatter(n, shape.big_tags()));
    add("oci", "tags/list of 500,000, n=100, first", ADMIN, same(format!("/v2/{BIG}/tags/list?n=100")));
    for by in [ADMIN, STRANGER] {
        add("oci", "tags/list of 500,000, n=100, anywhere", by, {
            many(move |n| format!("/v2/{BIG}/tags/list?n=100&last={}", tag(n)))
        });
    }
    add("oci", "tags/list of 500,000, all 10,000", ADMIN, {
        many(move |n| format!("/v2/{BIG}/tags/list?last={}", tag(n)))
    });
    add("oci", "tags/list of 5", ADMIN, many(move |n| format!("/v2/{}/tags/list", middle(n))));
    let referrers = format!("/v2/{SIGNED}/referrers/{}", fill::subject());
    add("oci", "referrers, n=100, first", ADMIN, same(format!("{referrers}?n=100")));
    let digest = |n| format!("sha256%3A{:02x}{}", scatter(n, 256), "0".repeat(62));
    let from = referrers.clone();
    add(
        "oci",
        "referrers, n=100, anywhere",
        ADMIN,
        many(move |n| format!("{from}?n=100&last={}", digest(n))),
    );
    add("oci", "referrers, all 1,000", ADMIN, same(referrers));
}

/// What is searched for: how often it is found, and the text.
const SEARCHED: [(&str, &str); 5] = [
    ("a word of 6,250 names", "camera"),
    ("words of 400 names", "valve-cache"),
    ("a number of one name", "-01234"),
    ("a word of no name", "zebra"),
    ("two letters", "ca"),
];

fn v1(shape: Shape, add: &mut impl FnMut(&'static str, &str, &'static str, Target)) {
    for (found, text) in SEARCHED {
        for by in [ADMIN, OWNER, GRANTEE, SMALL, STRANGER] {
            add("v1", &format!("search, {found}"), by, same(format!("/v1/search?q={text}&n=100")));
        }
    }
    add("v1", "search, a word of 6,250 names, page 10", ADMIN, same("/v1/search?q=camera&n=100&page=10"));
    add("v1", "search, everything", STRANGER, same("/v1/search?q=&n=100"));
    let middle = move |n| shape.repo(scatter(n, shape.repos));
    add("v1", "tags of 5", ADMIN, many(move |n| format!("/v1/repositories/{}/tags", middle(n))));
    add("v1", "tags, the first of 500,000", ADMIN, same(format!("/v1/repositories/{BIG}/tags")));
    add("v1", "images of 2", ADMIN, many(move |n| format!("/v1/repositories/{}/images", middle(n))));
    add("v1", "images, the first of 100,000", ADMIN, same(format!("/v1/repositories/{BIG}/images")));
}

fn hub(shape: Shape, add: &mut impl FnMut(&'static str, &str, &'static str, Target)) {
    let of_fleet = format!("/v2/repositories/{FLEET}/?page_size=100");
    for by in [ADMIN, OWNER, GRANTEE, STRANGER] {
        for (order, words) in
            [("", "newest"), ("-last_updated", "oldest"), ("name", "by name"), ("-name", "by name down")]
        {
            let list = format!("{of_fleet}&ordering={order}");
            add("hub", &format!("repositories of 50,000, {words}, first"), by, same(list.clone()));
            add("hub", &format!("repositories of 50,000, {words}, by number"), by, {
                many(move |n| format!("{list}&page={}", 1 + scatter(n, numbered(shape.fleet() / 2, 100))))
            });
        }
        let list = format!("{of_fleet}&name=");
        add("hub", "repositories of 50,000, a word of 3,125 names", by, same(format!("{list}camera")));
        add("hub", "repositories of 50,000, a word of no name", by, same(format!("{list}zebra")));
    }
    add(
        "hub",
        "repositories of 50",
        OWNER,
        // Of even number: what the others hold is private, all of it where there is little.
        many(|n| format!("/v2/repositories/site{}/?page_size=100", 600 + 2 * scatter(n, 200))),
    );
    for (found, text) in SEARCHED {
        for by in [ADMIN, STRANGER] {
            let target = format!("/v2/search/repositories/?query={text}&page_size=100");
            add("hub", &format!("search, {found}"), by, same(target));
        }
    }
    add("hub", "search, everything", STRANGER, same("/v2/search/repositories/?page_size=100"));
    let of_big = format!("/v2/repositories/{BIG}/tags/?page_size=100");
    for (order, words) in
        [("", "newest"), ("-last_updated", "oldest"), ("name", "by name"), ("-name", "by name down")]
    {
        let list = format!("{of_big}&ordering={order}");
        add("hub", &format!("tags of 500,000, {words}, first"), STRANGER, same(list.clone()));
        add("hub", &format!("tags of 500,000, {words}, by number"), STRANGER, {
            many(move |n| format!("{list}&page={}", 1 + scatter(n, numbered(shape.big_tags(), 100))))
        });
    }
    for (found, text) in
        [("a text of 71,000 names", ".3-"), ("a text of one name", "-001234"), ("a text of no name", "zebra")]
    {
        add("hub", &format!("tags of 500,000, {found}"), STRANGER, same(format!("{of_big}&name={text}")));
    }
    let middle = move |n| shape.repo(scatter(n, shape.repos));
    add(
        "hub",
        "tags of 5",
        ADMIN,
        many(move |n| format!("/v2/repositories/{}/tags/?page_size=100", middle(n))),
    );
    add("hub", "tags of 300, of 8 platforms each", STRANGER, {
        many(|n| format!("/v2/repositories/{MULTI}/tags/?page_size=100&page={}", 1 + n % 3))
    });
    add("hub", "a repository", ADMIN, many(move |n| format!("/v2/repositories/{}/", middle(n))));
    add("hub", "a repository of 500,000 tags", STRANGER, same(format!("/v2/repositories/{BIG}/")));
    add("hub", "organisations of 202", OWNER, same("/v2/user/orgs/?page_size=100"));
    add("hub", "groups of 1,001", ADMIN, {
        many(|n| format!("/v2/orgs/{CROWD}/groups/?page_size=100&page={}", 1 + n % 10))
    });
    add("hub", "groups of 1,001, a text of 1 name", ADMIN, {
        same(format!("/v2/orgs/{CROWD}/groups/?page_size=100&search=0500"))
    });
    add("hub", "groups of 1,001, those of one user", ADMIN, {
        same(format!("/v2/orgs/{CROWD}/groups/?page_size=100&username=member0100"))
    });
    add("hub", "members of 2,001", ADMIN, {
        many(|n| format!("/v2/orgs/{CROWD}/members/?page_size=100&page={}", 1 + n % 20))
    });
    add("hub", "members of a group of 2,000", ADMIN, {
        many(|n| format!("/v2/orgs/{CROWD}/groups/team0000/members/?page_size=100&page={}", 1 + n % 20))
    });
    add("hub", "groups of a repository", ADMIN, same(format!("/v2/repositories/{BIG}/groups/")));
    add("hub", "access tokens", ADMIN, same("/v2/access-tokens"));
}

const MLSPACE: &str = "/public/v2/docker_registry/v2";

/// A text of what is answered, by its JSON pointer.
fn find(server: &Server, target: &str, pointer: &str) -> Result<String> {
    let answer = client(server, ADMIN, None)?.get(target)?;
    let body: serde_json::Value = serde_json::from_slice(&answer.body)?;
    let text = body.pointer(pointer).and_then(|value| value.as_str()).map(str::to_owned);
    text.ok_or_else(|| format!("{target}: {} and no {pointer}", answer.status).into())
}

/// A repository's id, found as clients find it.
fn uuid(server: &Server, repo: &str) -> Result<String> {
    find(server, &format!("/v2/repositories/{repo}/"), "/uuid")
}

fn mlspace(
    server: &Server,
    shape: Shape,
    add: &mut impl FnMut(&'static str, &str, &'static str, Target),
) -> Result<()> {
    let (big, multi) = (uuid(server, BIG)?, uuid(server, MULTI)?);
    // An organisation's is told by each repository of it.
    let fleet = find(server, &format!("{MLSPACE}/repositories/{big}"), "/registry_id")?;
    let image = find(server, &format!("{MLSPACE}/images/?repository_id={big}&page_size=1"), "/0/id")?;
    let within = move |target: String| format!("{target}#{fleet}");
    for by in [ADMIN, OWNER, GRANTEE, STRANGER] {
        add(
            "mlspace",
            "registries/current of 50,000",
            by,
            same(within(format!("{MLSPACE}/registries/current"))),
        );
        let list = within(format!("{MLSPACE}/repositories/?page=PAGE"));
        add("mlspace", "repositories of 50,000, first", by, same(list.replace("PAGE", "1")));
        add("mlspace", "repositories of 50,000, by number", by, {
            many(move |n| {
                list.replace("PAGE", &(1 + scatter(n, numbered(shape.fleet() / 2, 50))).to_string())
            })
        });
    }
    add("mlspace", "repositories, one's own few", SMALL, same(format!("{MLSPACE}/repositories/")));
    add("mlspace", "a repository of 500,000 tags", STRANGER, same(format!("{MLSPACE}/repositories/{big}")));
    for (words, pages) in [("first", 1), ("by number", numbered(shape.big_tags() / 5, 100))] {
        let list = format!("{MLSPACE}/images/?repository_id={big}");
        add("mlspace", &format!("images of 100,000, {words}"), STRANGER, {
            many(move |n| format!("{list}&page={}", 1 + scatter(n, pages)))
        });
    }
    add("mlspace", "images of 300, of 8 platforms each", STRANGER, {
        many(move |n| format!("{MLSPACE}/images/?repository_id={multi}&page={}", 1 + n % 3))
    });
    add("mlspace", "tags of an image", STRANGER, same(format!("{MLSPACE}/tags/?image_id={image}")));
    Ok(())
}

/// Lists that are followed from page to page, by `next` or by `Link`: by whom, and from where.
fn walks(server: &Server) -> Result<Vec<(&'static str, &'static str, &'static str, String)>> {
    let repos = format!("/v2/repositories/{FLEET}/?page_size=100");
    let tags = format!("/v2/repositories/{BIG}/tags/?page_size=100");
    let images = format!("{MLSPACE}/images/?repository_id={}", uuid(server, BIG)?);
    Ok(vec![
        ("hub", "repositories of 50,000, newest, each page by next", OWNER, repos.clone()),
        (
            "hub",
            "repositories of 50,000, by name, each page by next",
            GRANTEE,
            format!("{repos}&ordering=name"),
        ),
        ("hub", "tags of 500,000, newest, each page by next", STRANGER, tags.clone()),
        ("hub", "tags of 500,000, by name, each page by next", STRANGER, format!("{tags}&ordering=name")),
        (
            "hub",
            "tags of 500,000, a text of one name, each page by next",
            STRANGER,
            format!("{tags}&name=-001234"),
        ),
        ("mlspace", "images of 100,000, each page by Link", STRANGER, images),
    ])
}

// Measuring -------------------------------------------------------------------------------

fn client(server: &Server, by: &str, workspace: Option<&str>) -> Result<Client> {
    let door = Door::new(server.address).by(by, PASSWORD);
    match workspace {
        Some(id) => door.saying("x-workspace-id", id).connect(),
        None => door.connect(),
    }
}

fn measure(server: &Server, page: &Page) -> Result<Measured> {
    // What follows a # is the workspace that the request names.
    let first = (page.target)(0);
    let mut client = client(server, page.by, first.split_once('#').map(|(_, workspace)| workspace))?;
    let mut get = |n: usize| -> Result<usize> {
        let target = (page.target)(n);
        let target = target.split('#').next().unwrap_or_default();
        let answer = client.get(target)?;
        match answer.status {
            200 => Ok(answer.body.len()),
            status => Err(format!("{target}, by {}: {status}", page.by).into()),
        }
    };
    let bytes = get(0)?;
    let before = server.cpu()?;
    (1..WARM_UP).try_for_each(|n| get(n).map(|_| ()))?;
    let each = server.cpu()?.since(&before) / u32::try_from(WARM_UP)?;
    let requests = (BATCH_CPU.as_nanos() / each.as_nanos().max(1)).max(BATCH_REQUESTS as u128).min(1_000);
    let requests = usize::try_from(requests)?;
    let (mut batches, mut latencies) = (Vec::new(), Vec::new());
    for batch in 0..BATCHES {
        let before = server.cpu()?;
        for n in 0..requests {
            let started = Instant::now();
            get(WARM_UP + batch * requests + n)?;
            latencies.push(started.elapsed());
        }
        batches.push(server.cpu()?.since(&before) / u32::try_from(requests)?);
    }
    batches.sort_unstable();
    Ok(measured(page.dialect, &page.what, page.by, bytes, batches[BATCHES / 2], latencies))
}

/// Follows a list to its end; the CPU time is that of the dearest stretch.
fn walk(
    server: &Server,
    dialect: &'static str,
    what: &str,
    by: &'static str,
    mut target: String,
) -> Result<Measured> {
    let mut client = client(server, by, None)?;
    client.get(&target)?;
    let (mut stretches, mut bytes, mut latencies) = (Vec::new(), 0, Vec::new());
    while !target.is_empty() {
        let before = server.cpu()?;
        let mut pages = 0;
        while !target.is_empty() && pages < WALK_BATCH {
            let started = Instant::now();
            let answer = client.get(&target)?;
            latencies.push(started.elapsed());
            if answer.status != 200 {
                return Err(format!("{target}: {}", answer.status).into());
            }
            (bytes, pages) = (bytes.max(answer.body.len()), pages + 1);
            target = following(&answer)?;
        }
        if pages == WALK_BATCH {
            stretches.push(server.cpu()?.since(&before) / u32::try_from(pages)?);
        }
    }
    let dearest = stretches.into_iter().max().unwrap_or_default();
    Ok(measured(dialect, what, by, bytes, dearest, latencies))
}

/// The path and query of the next page, as an answer says it; empty at the end.
fn following(answer: &Answer) -> Result<String> {
    if let Some(link) = answer.header("link") {
        return Ok(link.trim_start_matches('<').split('>').next().unwrap_or_default().to_owned());
    }
    let body: serde_json::Value = serde_json::from_slice(&answer.body)?;
    let next = body["next"].as_str().unwrap_or_default();
    Ok(next.splitn(4, '/').nth(3).map(|path| format!("/{path}")).unwrap_or_default())
}

/// A thousand pushes of a small image with a new tag, one after the other.
fn push(server: &Server, what: &str, repo: &str) -> Result<Measured> {
    let mut client = client(server, ADMIN, None)?;
    let run = format!("{:x}", std::process::id());
    let mut put = |n: usize| -> Result<usize> {
        let body = fill::another_manifest(&format!("{run} {n}"));
        let target = format!("/v2/{repo}/manifests/again-{run}-{n}");
        match client.send("PUT", &target, body.as_bytes())?.status {
            201 => Ok(body.len()),
            status => Err(format!("{target}: {status}").into()),
        }
    };
    let (mut batches, mut latencies, mut bytes) = (Vec::new(), Vec::new(), 0);
    for batch in 0..10 {
        let before = server.cpu()?;
        for n in 0..100 {
            let started = Instant::now();
            bytes = put(batch * 100 + n)?;
            latencies.push(started.elapsed());
        }
        batches.push(server.cpu()?.since(&before) / 100);
    }
    batches.sort_unstable();
    Ok(measured("oci", what, ADMIN, bytes, batches[batches.len() / 2], latencies))
}

#[expect(clippy::cast_precision_loss, reason = "figures of a few digits")]
fn measured(
    dialect: &'static str,
    what: &str,
    by: &'static str,
    bytes: usize,
    cpu: Duration,
    mut latencies: Vec<Duration>,
) -> Measured {
    latencies.sort_unstable();
    let at = |percent: usize| latencies[(latencies.len() * percent / 100).min(latencies.len() - 1)];
    let ms = |time: Duration| time.as_secs_f64() * 1_000.0;
    Measured {
        dialect,
        page: what.to_owned(),
        by,
        kib: bytes as f64 / 1_024.0,
        cpu_ms: ms(cpu),
        p50_ms: ms(at(50)),
        p99_ms: ms(at(99)),
    }
}

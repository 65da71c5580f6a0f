//! How the cost of one thing grows with what the store holds.

use serde::Serialize;
use std::path::Path;
use std::time::Duration;

use crate::Result;
use crate::client::Door;
use crate::contenders::OUTPORT;
use crate::fill::{ADMIN, PASSWORD};
use crate::lists::{Target, many};
use crate::load::{Until, run};
use crate::measured::{Measured, digits};
use crate::payload::{self, Family, scatter};
use crate::rows::{CLIENTS, put_manifest, repeat, repo, tag, warm};
use crate::server::{Server, free_address, plain_outport};
use crate::store::{self, Store};
use crate::targets::Figure;

/// How much a store holds: tags, all of one repository; other repositories, with an index each;
/// and blobs.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Level {
    tags: usize,
    repos: usize,
    blobs: usize,
}

const fn level(tags: usize, blobs: usize) -> Level {
    Level { tags, repos: tags, blobs }
}

pub const WHOLE: [Level; 3] = [level(100, 100), level(10_000, 10_000), level(1_000_000, 100_000)];
pub const SHORT: [Level; 3] = [level(100, 10), level(200, 20), level(400, 40)];

/// A row of one level.
#[derive(Serialize)]
pub struct Grown {
    level: Level,
    #[serde(flatten)]
    measured: Measured,
}

const REPO: &str = "bench/tags";
const BLOBS: &str = "bench/blobs";
const BLOB_BYTES: usize = 4 << 10;
/// What is in each repository that is there for the number: it needs no blobs.
const EMPTY_INDEX: &str =
    r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}"#;
/// Tags of each image.
const TAGS_EACH: usize = 10;
/// Names of a page: half of the smallest level, so that pages are full wherever they begin.
const PAGE: usize = 50;
/// Different requests of each kind.
const REQUESTS: usize = 8_192;

const START: &str = "growth: start to first answer";
const IDLE: &str = "growth: idle";
const TAGS: &str = "growth: a page of tags";
const CATALOG: &str = "growth: a page of the catalog";
const GET: &str = "growth: manifest GET by tag";
const BLOB: &str = "growth: blob GET, 4 KiB";
const PUT: &str = "growth: manifest PUT, a new tag";

/// The figures that are shown of each.
const SHOWN: [(&str, Figure); 5] = [
    ("ms", |row| row.start_ms),
    ("RSS, MiB", |row| row.rss_mib),
    ("/s", |row| row.per_s),
    ("CPU ms", |row| row.cpu_ms),
    ("p50 ms", |row| row.p50_ms),
];

/// Measures Outport at each level. Its data directories are made in `work` unless they are there.
pub fn measure(
    binary: &Path,
    work: &Path,
    levels: &[Level],
    time: Duration,
    starts: usize,
    only: &str,
) -> Result<Vec<Grown>> {
    let mut grown = Vec::new();
    // Filling takes minutes: what is asked for by another row's name is not this.
    let wanted = |row: &str| only.is_empty() || only.starts_with("growth") && row.contains(only);
    if ![START, IDLE, TAGS, CATALOG, GET, BLOB, PUT].into_iter().any(wanted) {
        return Ok(grown);
    }
    for level in levels.iter().copied() {
        let dir = work.join(format!("grown-{}-{}", level.tags, level.blobs));
        store::once(&dir, &format!("{level:?}"), false, |store| level.fill(&store))?;
        let start = || {
            let address = free_address()?;
            Server::start(plain_outport(binary, &dir, address), address, false)
        };
        let mut times = (0..starts).map(|_| Ok(start()?.started_in)).collect::<Result<Vec<_>>>()?;
        times.sort_unstable();
        let server = start()?;
        std::thread::sleep(time.min(Duration::from_secs(1)));
        let mut note = |measured: Measured| {
            if wanted(&measured.row) {
                let measured = Measured { server: OUTPORT.to_owned(), ..measured };
                eprintln!("{} tags: {measured}", level.tags);
                grown.push(Grown { level, measured });
            }
        };
        note(Measured::start(START, times[times.len() / 2], server.binary_bytes()?));
        note(Measured::memory(IDLE, server.rss_kib()?));
        // The catalog is for those who are known.
        let door = Door::new(server.address).by(ADMIN, PASSWORD);
        for (row, target) in level.pages() {
            let requests: Vec<_> = (0..REQUESTS).map(|n| door.request("GET", &target(n))).collect();
            if wanted(row) {
                note(Measured::operations(row, &repeat(&server, &door, &requests, Until::Passed(time))?));
            }
        }
        if wanted(PUT) {
            note(level.put(&server, time)?);
        }
    }
    Ok(grown)
}

impl Level {
    fn fill(self, store: &Store) -> Result<()> {
        let blobs = Family::new(&payload::noise(), BLOB_BYTES);
        store.each("blobs", self.blobs, |n| {
            store.blob(BLOBS, blobs.blob(n).pieces().collect::<Vec<_>>().concat())
        })?;
        let config = blobs.blob(0);
        store.mount(REPO, &config.digest)?;
        store.each("images of one repository", self.tags / TAGS_EACH, |n| {
            let tags: Vec<_> = (n * TAGS_EACH..(n + 1) * TAGS_EACH).map(tag).collect();
            store.put(REPO, payload::manifest(&config, &[], &n.to_string()), &tags)
        })?;
        store.each("repositories", self.repos, |n| store.put(&repo(n), EMPTY_INDEX.to_owned(), &[tag(0)]))
    }

    /// What is asked for by GET: the target for each number.
    fn pages(self) -> [(&'static str, Target); 4] {
        let blobs = Family::new(&payload::noise(), BLOB_BYTES);
        let (tags, repos) = (self.tags - PAGE, self.repos - PAGE);
        let blob = move |n| blobs.blob(scatter(n, self.blobs)).digest;
        [
            (TAGS, many(move |n| format!("/v2/{REPO}/tags/list?n={PAGE}&last={}", tag(scatter(n, tags))))),
            (CATALOG, many(move |n| format!("/v2/_catalog?n={PAGE}&last={}", repo(scatter(n, repos))))),
            (GET, many(move |n| format!("/v2/{REPO}/manifests/{}", tag(scatter(n, self.tags))))),
            (BLOB, many(move |n| format!("/v2/{BLOBS}/blobs/{}", blob(n)))),
        ]
    }

    fn put(self, server: &Server, time: Duration) -> Result<Measured> {
        let door = Door::new(server.address).by(ADMIN, PASSWORD);
        let config = Family::new(&payload::noise(), BLOB_BYTES).blob(0);
        // Another one in each run, for the directory may stay.
        let run_id = format!("{:x}", std::process::id());
        let sample = run(
            server,
            CLIENTS,
            Until::Passed(time),
            || warm(&door),
            |client, n| {
                let mark = format!("{run_id}-{n}");
                put_manifest(client, REPO, &format!("again-{mark}"), &payload::manifest(&config, &[], &mark))
            },
        )?;
        Ok(Measured::operations(PUT, &sample))
    }
}

/// A line for each figure, a column for each level, and the last one's ratio to the first.
pub fn markdown(grown: &[Grown]) -> String {
    let mut levels: Vec<Level> = Vec::new();
    let mut rows: Vec<&str> = Vec::new();
    for Grown { level, measured } in grown {
        if levels.last().is_none_or(|last| last.tags != level.tags) {
            levels.push(*level);
        }
        if !rows.contains(&measured.row.as_str()) {
            rows.push(&measured.row);
        }
    }
    if levels.is_empty() {
        return String::new();
    }
    let titles: Vec<String> = levels
        .iter()
        .map(|level| format!("{} tags, {} repositories, {} blobs", level.tags, level.repos, level.blobs))
        .collect();
    let mut lines = vec![
        format!("| | {} | last to first |", titles.join(" | ")),
        format!("|---|{}--:|", "--:|".repeat(levels.len())),
    ];
    for row in rows {
        let of_row: Vec<&Measured> =
            grown.iter().map(|grown| &grown.measured).filter(|of| of.row == row).collect();
        for (what, figure) in SHOWN {
            let values: Vec<f64> = of_row.iter().copied().filter_map(figure).collect();
            if let [first, .., last] = values.as_slice() {
                let cells: Vec<String> = values.iter().copied().map(digits).collect();
                let row = row.trim_start_matches("growth: ");
                lines.push(format!("| {row}: {what} | {} | {} × |", cells.join(" | "), digits(last / first)));
            }
        }
    }
    lines.join("\n")
}

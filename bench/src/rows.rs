//! What each server is made to do. A stage has a server and a directory of its own, so that no
//! row's memory, files or caches are another's.

use rustix::process::{Resource, getrlimit};
use std::net::TcpStream;
use std::path::Path;
use std::time::Duration;

use crate::Result;
use crate::client::{Client, Door};
use crate::contenders::{Contender, Pki, Way};
use crate::load::{Sample, Until, run};
use crate::measured::{Measured, row};
use crate::payload::{self, Blob, Family, scatter};
use crate::server::Server;

/// Clients at once, but where a row says otherwise; with large blobs.
pub const CLIENTS: usize = 8;
const LARGE_CLIENTS: usize = 2;
/// Requests of each client before the first that counts: caches fill, passwords are checked.
const WARM_UP: usize = 50;
/// An image: four layers and a config, 1.4 MB.
const LAYERS: [usize; 4] = [1_000_000, 300_000, 80_000, 20_000];
const CONFIG: usize = 3_000;
/// Repositories that images are pushed to in turn.
const APPS: usize = 64;
const MIDDLING: usize = 256 << 10;
/// Different ones that are pulled in turn.
const MIDDLING_BLOBS: usize = 64;
/// Pages of lists that are asked for in turn.
const PAGES: usize = 256;
/// Files that this process keeps for itself.
const OWN_FILES: usize = 200;
const REPO: &str = "bench/app";

/// How much is done.
#[derive(Clone, Copy)]
pub struct Sizes {
    /// How long each rate is measured.
    pub time: Duration,
    /// How long a server that was started, or was left by everybody, is left alone before its
    /// memory is looked at.
    pub rest: Duration,
    pub starts: usize,
    pub tags: usize,
    pub repos: usize,
    /// Bytes of a large blob, and how many are pushed to be timed.
    pub large: usize,
    pub large_blobs: usize,
    /// Uploads at once, and their bytes.
    pub uploads: [(usize, usize); 2],
    pub idle: usize,
}

impl Sizes {
    pub fn whole(time: Duration) -> Sizes {
        Sizes {
            time,
            rest: Duration::from_secs(2),
            starts: 9,
            tags: 10_000,
            repos: 2_000,
            large: 256 << 20,
            large_blobs: 6,
            uploads: [(8, 256 << 20), (64, 64 << 20)],
            idle: 10_000,
        }
    }

    /// A few seconds, to see that every row works.
    pub fn short() -> Sizes {
        Sizes {
            time: Duration::from_millis(100),
            rest: Duration::from_millis(10),
            starts: 1,
            tags: 120,
            repos: 20,
            large: 8 << 20,
            large_blobs: 2,
            uploads: [(8, 1 << 20), (64, 1 << 18)],
            idle: 100,
        }
    }
}

/// All rows of one server.
pub struct Rows<'a> {
    pub contender: &'a Contender,
    pub pki: &'a Pki,
    pub sizes: Sizes,
    pub short: bool,
    /// Where data directories are made.
    pub work: &'a Path,
    /// Rows whose names hold this, alone.
    pub only: &'a str,
    pub measured: Vec<Measured>,
}

impl Rows<'_> {
    pub fn all(&mut self) -> Result<()> {
        self.starts()?;
        self.stage(&[row::IMAGE], Way::Plain, &[], Self::images)?;
        self.stage(&[row::GET, row::HEAD, row::MIDDLING], Way::Plain, &[], Self::pulls)?;
        self.stage(&[row::BASIC], Way::Basic, &[], |rows, server| rows.gets(row::BASIC, server, Way::Basic))?;
        self.stage(&[row::PUT, row::TAGS_PAGE, row::TAGS_ALL], Way::Plain, &[], Self::tags)?;
        self.stage(&[row::CATALOG], Way::Plain, &[], Self::catalog)?;
        self.stage(&[row::LARGE_PUSH, row::LARGE_PULL], Way::Plain, &[], |rows, server| {
            rows.large(row::LARGE_PUSH, row::LARGE_PULL, server, Way::Plain)
        })?;
        self.stage(&[row::TLS_PUSH, row::TLS_PULL], Way::Tls, &[], |rows, server| {
            rows.large(row::TLS_PUSH, row::TLS_PULL, server, Way::Tls)
        })?;
        self.stage(&[row::TLS_GET], Way::Tls, &[], |rows, server| rows.gets(row::TLS_GET, server, Way::Tls))?;
        let let_in = (self.sizes.idle + CLIENTS).to_string();
        let settings = [("OUTPORT_SERVER_CONNECTIONS_MAX", let_in.as_str())];
        self.stage(&[row::CONNECTIONS], Way::Plain, &settings, Self::connections)?;
        for (name, (count, bytes)) in [row::UPLOADS_8, row::UPLOADS_64].into_iter().zip(self.sizes.uploads) {
            self.stage(&[name], Way::Plain, &[], |rows, server| rows.uploads(name, server, count, bytes))?;
        }
        Ok(())
    }

    /// Starts a server for what belongs together, if any of it is wanted.
    fn stage(
        &mut self,
        rows: &[&'static str],
        way: Way,
        settings: &[(&str, &str)],
        measure: impl FnOnce(&mut Self, &Server) -> Result<()>,
    ) -> Result<()> {
        if !self.wants(rows) {
            return Ok(());
        }
        let dir = tempfile::tempdir_in(self.work)?;
        let Some(server) = self.contender.start(dir.path(), way, self.pki, settings)? else { return Ok(()) };
        let outcome = measure(self, &server)
            .map_err(|error| format!("{}: {}: {error}", self.contender.name, rows.join(", ")).into());
        match outcome {
            // What a peer cannot do is no row of its own, and does not end the others'. In short
            // it is asked whether each row works.
            Err(error) if self.contender.is_peer() && !self.short => {
                eprintln!("left out: {error}");
                Ok(())
            }
            outcome => outcome,
        }
    }

    fn wants(&self, rows: &[&str]) -> bool {
        rows.iter().any(|row| row.contains(self.only))
    }

    fn note(&mut self, measured: Measured) {
        if self.wants(&[&measured.row]) {
            let named = Measured { server: self.contender.name.clone(), ..measured };
            eprintln!("{named}");
            self.measured.push(named);
        }
    }

    fn until(&self) -> Until {
        Until::Passed(self.sizes.time)
    }

    /// Again and again on a directory that is there: the middle one counts.
    fn starts(&mut self) -> Result<()> {
        if !self.wants(&[row::START, row::IDLE]) {
            return Ok(());
        }
        let dir = tempfile::tempdir_in(self.work)?;
        let start = || -> Result<Server> {
            let server = self.contender.start(dir.path(), Way::Plain, self.pki, &[])?;
            server.ok_or_else(|| "it does not start".into())
        };
        let binary = start()?.binary_bytes()?;
        let (mut times, mut rss) = (Vec::new(), 0);
        for last in (0..self.sizes.starts).rev() {
            let server = start()?;
            times.push(server.started_in);
            if last == 0 {
                std::thread::sleep(self.sizes.rest);
                rss = server.rss_kib()?;
            }
        }
        times.sort_unstable();
        self.note(Measured::start(row::START, times[times.len() / 2], binary));
        self.note(Measured::memory(row::IDLE, rss));
        Ok(())
    }

    fn images(&mut self, server: &Server) -> Result<()> {
        let noise = payload::noise();
        let layers = LAYERS.map(|bytes| Family::new(&noise, bytes));
        let configs = Family::new(&noise, CONFIG);
        let door = self.contender.door_to_write(server, Way::Plain, self.pki);
        let sample = run(
            server,
            CLIENTS,
            self.until(),
            || warm(&door),
            |client, n| {
                let repo = format!("{REPO}-{}", n % APPS);
                push_image(
                    client,
                    &repo,
                    &n.to_string(),
                    &configs.blob(n),
                    &layers.each_ref().map(|of| of.blob(n)),
                )
            },
        )?;
        self.note(Measured::operations(row::IMAGE, &sample));
        Ok(())
    }

    /// A manifest by its tag, and blobs of some size.
    fn pulls(&mut self, server: &Server) -> Result<()> {
        let target = self.one_image(server, Way::Plain)?;
        let door = self.contender.door(server, Way::Plain, self.pki);
        let (get, head) = (door.request("GET", &target), door.request("HEAD", &target));
        self.repeat(row::GET, server, &door, &[get])?;
        self.repeat(row::HEAD, server, &door, &[head])?;
        let family = Family::new(&payload::noise(), MIDDLING);
        let blobs: Vec<Blob> = (0..MIDDLING_BLOBS).map(|n| family.blob(n)).collect();
        let mut client = self.contender.door_to_write(server, Way::Plain, self.pki).connect()?;
        blobs.iter().try_for_each(|blob| push_blob(&mut client, REPO, blob))?;
        let asked: Vec<_> = blobs.iter().map(|blob| door.request("GET", &blob_at(blob))).collect();
        self.repeat(row::MIDDLING, server, &door, &asked)
    }

    fn gets(&mut self, name: &'static str, server: &Server, way: Way) -> Result<()> {
        let target = self.one_image(server, way)?;
        let door = self.contender.door(server, way, self.pki);
        let request = door.request("GET", &target);
        self.repeat(name, server, &door, &[request])
    }

    /// Pushes an image, and tells where its manifest is.
    fn one_image(&self, server: &Server, way: Way) -> Result<String> {
        let noise = payload::noise();
        let mut client = self.contender.door_to_write(server, way, self.pki).connect()?;
        let blob = |bytes| Family::new(&noise, bytes).blob(0);
        push_image(&mut client, REPO, "latest", &blob(CONFIG), &LAYERS.map(blob))?;
        Ok(format!("/v2/{REPO}/manifests/latest"))
    }

    fn repeat(
        &mut self,
        name: &'static str,
        server: &Server,
        door: &Door,
        requests: &[Vec<u8>],
    ) -> Result<()> {
        let sample = repeat(server, door, requests, self.until())?;
        self.note(Measured::operations(name, &sample));
        Ok(())
    }

    fn tags(&mut self, server: &Server) -> Result<()> {
        let door = self.contender.door_to_write(server, Way::Plain, self.pki);
        let config = Family::new(&payload::noise(), CONFIG).blob(0);
        push_blob(&mut door.connect()?, REPO, &config)?;
        let sample = run(
            server,
            CLIENTS,
            Until::Done(self.sizes.tags),
            || warm(&door),
            |client, n| put_manifest(client, REPO, &tag(n), &payload::manifest(&config, &[], &n.to_string())),
        )?;
        self.note(Measured::operations(row::PUT, &sample));
        let door = self.contender.door(server, Way::Plain, self.pki);
        let pages: Vec<_> = (0..PAGES)
            .map(|n| {
                format!(
                    "/v2/{REPO}/tags/list?n=100&last={}",
                    tag(scatter(n, self.sizes.tags.saturating_sub(100)))
                )
            })
            .map(|target| door.request("GET", &target))
            .collect();
        self.repeat(row::TAGS_PAGE, server, &door, &pages)?;
        self.repeat(row::TAGS_ALL, server, &door, &[door.request("GET", &format!("/v2/{REPO}/tags/list"))])
    }

    fn catalog(&mut self, server: &Server) -> Result<()> {
        let door = self.contender.door_to_write(server, Way::Plain, self.pki);
        let config = Family::new(&payload::noise(), CONFIG).blob(0);
        let manifest = payload::manifest(&config, &[], "");
        push_blob(&mut door.connect()?, REPO, &config)?;
        run(
            server,
            CLIENTS,
            Until::Done(self.sizes.repos),
            || door.connect(),
            |client, n| {
                let repo = repo(n);
                let from = format!("/v2/{repo}/blobs/uploads/?mount={}&from={REPO}", config.digest);
                let mounted = client.send("POST", &from, b"")?;
                if mounted.status != 201 {
                    let place = with_digest(&mounted.must_be(202, "a mount")?.location()?, &config);
                    client.pour("PUT", &place, &config)?.must_be(201, "a blob")?;
                }
                put_manifest(client, &repo, "latest", &manifest)
            },
        )?;
        // Outport lists repositories to those it knows.
        let pages: Vec<_> = (0..PAGES)
            .map(|n| {
                format!("/v2/_catalog?n=100&last={}", repo(scatter(n, self.sizes.repos.saturating_sub(100))))
            })
            .map(|target| door.request("GET", &target))
            .collect();
        self.repeat(row::CATALOG, server, &door, &pages)
    }

    fn large(&mut self, push: &'static str, pull: &'static str, server: &Server, way: Way) -> Result<()> {
        let door = self.contender.door_to_write(server, way, self.pki);
        let family = Family::new(&payload::noise(), self.sizes.large);
        let count = self.sizes.large_blobs;
        let sample = run(
            server,
            LARGE_CLIENTS,
            Until::Done(count),
            || warm(&door),
            |client, n| push_blob(client, REPO, &family.blob(n)).map(|()| self.sizes.large),
        )?;
        self.note(Measured::bytes(push, &sample));
        let door = self.contender.door(server, way, self.pki);
        let asked: Vec<_> = (0..count).map(|n| door.request("GET", &blob_at(&family.blob(n)))).collect();
        let sample = run(
            server,
            LARGE_CLIENTS,
            self.until(),
            || warm(&door),
            |client, n| Ok(client.ask(&asked[n % count])?.must_be(200, pull)?.bytes),
        )?;
        self.note(Measured::bytes(pull, &sample));
        Ok(())
    }

    /// As many connections as may be, each of which has asked once.
    fn connections(&mut self, server: &Server) -> Result<()> {
        let files = getrlimit(Resource::Nofile).current;
        let room = files.map_or(Ok(usize::MAX), usize::try_from)?.saturating_sub(OWN_FILES);
        let count = self.sizes.idle.min(room);
        if count < self.sizes.idle {
            eprintln!("{count} connections only: {room} more files may be open");
        }
        let door = self.contender.door(server, Way::Plain, self.pki);
        let connect = |_| door.connect().and_then(|mut client| client.get("/v2/").map(|_| client.let_go()));
        let idle: Vec<TcpStream> = (0..count).map(connect).collect::<Result<_>>()?;
        std::thread::sleep(self.sizes.rest);
        self.note(Measured::memory(row::CONNECTIONS, server.rss_kib()?));
        drop(idle);
        Ok(())
    }

    fn uploads(&mut self, name: &'static str, server: &Server, count: usize, bytes: usize) -> Result<()> {
        let door = self.contender.door_to_write(server, Way::Plain, self.pki);
        let family = Family::new(&payload::noise(), bytes);
        let sample = run(
            server,
            count,
            Until::Done(count),
            || warm(&door),
            |client, n| push_blob(client, REPO, &family.blob(n)).map(|()| bytes),
        )?;
        self.note(Measured::bytes(name, &sample));
        Ok(())
    }
}

/// Asks for these in turn.
pub fn repeat(server: &Server, door: &Door, requests: &[Vec<u8>], until: Until) -> Result<Sample> {
    let ask = |client: &mut Client, n: usize| -> Result<usize> {
        let request = &requests[n % requests.len()];
        let line = request.split(|byte| *byte == b'\r').next().unwrap_or_default();
        Ok(client.ask(request)?.must_be(200, line)?.bytes)
    };
    let begin = || {
        let mut client = door.connect()?;
        (0..WARM_UP).try_for_each(|n| ask(&mut client, n).map(|_| ()))?;
        Ok(client)
    };
    run(server, CLIENTS, until, begin, ask)
}

/// A connection that has asked for something.
pub fn warm(door: &Door) -> Result<Client> {
    let mut client = door.connect()?;
    client.get("/v2/")?;
    Ok(client)
}

pub fn tag(n: usize) -> String {
    format!("build-{n:07}")
}

pub fn repo(n: usize) -> String {
    format!("site-{:03}/app-{n:07}", n / 10_000)
}

fn blob_at(blob: &Blob) -> String {
    format!("/v2/{REPO}/blobs/{}", blob.digest)
}

fn with_digest(place: &str, blob: &Blob) -> String {
    format!("{place}{}digest={}", if place.contains('?') { '&' } else { '?' }, blob.digest)
}

/// As most clients do: an upload, its bytes in one piece, its end.
fn push_blob(client: &mut Client, repo: &str, blob: &Blob) -> Result<()> {
    let begun = client.send("POST", &format!("/v2/{repo}/blobs/uploads/"), b"")?.must_be(202, "an upload")?;
    let sent = client.pour("PATCH", &begun.location()?, blob)?.must_be(202, "its bytes")?;
    client.send("PUT", &with_digest(&sent.location()?, blob), b"")?.must_be(201, "its end")?;
    Ok(())
}

/// Tells how many bytes went.
fn push_image(client: &mut Client, repo: &str, tag: &str, config: &Blob, layers: &[Blob]) -> Result<usize> {
    for blob in layers.iter().chain([config]) {
        push_blob(client, repo, blob)?;
    }
    let blobs: usize = layers.iter().chain([config]).map(Blob::bytes).sum();
    Ok(blobs + put_manifest(client, repo, tag, &payload::manifest(config, layers, tag))?)
}

/// Tells how many bytes went.
pub fn put_manifest(client: &mut Client, repo: &str, reference: &str, text: &str) -> Result<usize> {
    let target = format!("/v2/{repo}/manifests/{reference}");
    client.send("PUT", &target, text.as_bytes())?.must_be(201, "a manifest")?;
    Ok(text.len())
}

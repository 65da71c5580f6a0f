//! Pulling blobs and manifests: bytes, ranges, conditions.

use crate::harness::{OCI_MANIFEST, Site, Wishes, noise, sha256};
use std::time::Duration;

#[test]
fn an_image_comes_back_byte_for_byte_by_tag_and_by_digest() {
    let site = Site::new();
    let text = site.image_of("team/app", &noise(200_000, 1));
    let digest =
        site.put_manifest("team/app", "v1", &text).header("docker-content-digest").unwrap().to_owned();
    assert_eq!(digest, sha256(text.as_bytes()));
    for reference in ["v1", &digest] {
        let answer = site
            .ask("GET", &format!("/v2/team/app/manifests/{reference}"))
            .header("Accept", "text/html")
            .send();
        assert_eq!((answer.status, answer.body.as_slice()), (200, text.as_bytes()));
        assert_eq!(answer.header("content-type"), Some(OCI_MANIFEST));
        assert_eq!(answer.header("docker-content-digest"), Some(digest.as_str()));
        let head = site.ask("HEAD", &format!("/v2/team/app/manifests/{reference}")).send();
        assert_eq!((head.status, head.body.len()), (200, 0));
        assert_eq!(head.header("content-length"), Some(text.len().to_string().as_str()));
        assert_eq!(head.header("docker-content-digest"), Some(digest.as_str()));
    }
}

#[test]
fn blobs_of_every_awkward_length_come_back_whole_and_in_ranges() {
    let site = Site::new();
    for (seed, len) in [0, 1, 65_535, 65_536, 65_537, 262_144, 262_145, 1_000_003].into_iter().enumerate() {
        let bytes = noise(len, seed as u64);
        let digest = site.push_blob("team/app", &bytes);
        let target = format!("/v2/team/app/blobs/{digest}");
        let whole = site.get(&target);
        assert_eq!((whole.status, &whole.body), (200, &bytes), "{len}");
        assert_eq!(whole.header("accept-ranges"), Some("bytes"));
        assert_eq!(whole.header("docker-content-digest"), Some(digest.as_str()));
        let head = site.ask("HEAD", &target).send();
        assert_eq!(head.header("content-length"), Some(len.to_string().as_str()));
        let marks = [0, 1, len / 2, 65_535, 65_536, 65_537, len.saturating_sub(1)];
        for first in marks.into_iter().filter(|mark| *mark < len) {
            for last in marks.into_iter().filter(|mark| *mark >= first && *mark < len) {
                let part = site.ask("GET", &target).header("Range", &format!("bytes={first}-{last}")).send();
                assert_eq!(
                    (part.status, part.body.as_slice()),
                    (206, &bytes[first..=last]),
                    "{len}: {first}-{last}"
                );
                assert_eq!(part.header("content-range").unwrap(), format!("bytes {first}-{last}/{len}"));
            }
            let suffix = site.ask("GET", &target).header("Range", &format!("bytes=-{}", len - first)).send();
            assert_eq!((suffix.status, suffix.body.as_slice()), (206, &bytes[first..]));
        }
        let beyond = site.ask("GET", &target).header("Range", &format!("bytes={len}-")).send();
        beyond.is(416, "RANGE_INVALID");
        assert_eq!(beyond.header("content-range").unwrap(), format!("bytes */{len}"));
    }
}

#[test]
fn what_the_client_has_is_not_sent_again() {
    let site = Site::new();
    let digest = site.push_image("team/app", "v1", b"layer");
    let blob = site.push_blob("team/app", b"layer");
    for (target, digest) in [("manifests/v1", &digest), (&format!("blobs/{blob}"), &blob)] {
        for condition in [format!("\"{digest}\""), "*".into(), format!("\"other\", W/\"{digest}\"")] {
            let answer =
                site.ask("GET", &format!("/v2/team/app/{target}")).header("If-None-Match", &condition).send();
            assert_eq!((answer.status, answer.body.len()), (304, 0), "{target} {condition}");
            assert_eq!(answer.header("etag").unwrap(), format!("\"{digest}\""));
        }
        let changed =
            site.ask("GET", &format!("/v2/team/app/{target}")).header("If-None-Match", "\"other\"").send();
        assert_eq!(changed.status, 200);
    }
    let missing = format!("/v2/team/app/blobs/sha256:{}", "0".repeat(64));
    assert_eq!(site.ask("GET", &missing).header("If-None-Match", "*").send().status, 404);
    let other = site
        .ask("GET", &format!("/v2/team/app/blobs/{blob}"))
        .header("Range", "bytes=0-1")
        .header("If-Range", "\"x\"")
        .send();
    assert_eq!(
        (other.status, other.body.as_slice()),
        (200, b"layer".as_slice()),
        "the range was meant for other bytes"
    );
}

#[test]
fn a_blob_is_seen_only_through_a_repository_that_holds_it() {
    let site = Site::new();
    let digest = site.push_blob("team/app", b"private bytes");
    assert_eq!(site.get(&format!("/v2/team/app/blobs/{digest}")).status, 200);
    site.get(&format!("/v2/team/other/blobs/{digest}")).is(404, "BLOB_UNKNOWN");
    assert_eq!(site.ask("HEAD", &format!("/v2/team/other/blobs/{digest}")).send().status, 404);
}

#[test]
fn every_answer_names_the_protocol_and_the_request() {
    let site = Site::new();
    for target in ["/v2/", "/v2", "/v2/_catalog", "/v2/team/none/tags/list", "/v2/x/manifests/none"] {
        let answer = site.get(target);
        assert_eq!(answer.header("docker-distribution-api-version"), Some("registry/2.0"), "{target}");
        assert_eq!(answer.header("x-request-id").unwrap().len(), 16);
    }
    assert_eq!(site.get("/v2/").body, b"{}");
}

#[test]
fn a_name_without_a_slash_is_the_same_repository_in_library() {
    let site = Site::new();
    let digest = site.push_image("hello", "latest", b"layer");
    for name in ["hello", "library/hello"] {
        let answer = site.get(&format!("/v2/{name}/manifests/latest"));
        assert_eq!(answer.header("docker-content-digest"), Some(digest.as_str()));
        assert_eq!(site.get(&format!("/v2/{name}/tags/list")).json()["name"], name);
    }
    assert_eq!(site.get("/v2/_catalog").strings("repositories"), ["library/hello"]);
}

/// Pulls of `team/app`, as Docker Hub's dialect tells them.
fn pull_count(site: &Site) -> u64 {
    let count = |target: &str, at: fn(&serde_json::Value) -> &serde_json::Value| {
        at(&site.get(target).json())["pull_count"].as_u64().unwrap()
    };
    let told = count("/v2/repositories/team/app/", |repo| repo);
    assert_eq!(count("/v2/repositories/team/", |list| &list["results"][0]), told);
    assert_eq!(count("/v2/search/repositories/?query=app", |list| &list["results"][0]), told);
    told
}

fn pull(site: &Site, reference: &str) {
    assert_eq!(site.get(&format!("/v2/team/app/manifests/{reference}")).status, 200);
}

/// What is on the disk of rows, byte for byte.
fn written(site: &Site) -> [Vec<u8>; 3] {
    ["registry.db", "registry.db-wal", "manifests.log"]
        .map(|name| std::fs::read(site.path(name)).unwrap_or_default())
}

#[test]
fn a_pull_is_counted_at_once_and_nothing_is_written_for_it() {
    let site = Site::new();
    let digest = site.push_image("team/app", "v1", b"layer");
    site.push_index("team/app", "all", &[&digest]);
    site.hands.advance(Duration::from_secs(3_600));
    let before = written(&site);
    assert_eq!(pull_count(&site), 0);
    for _ in 0..20 {
        pull(&site, "v1");
    }
    // An image for many platforms: the index, and then the image.
    pull(&site, "all");
    pull(&site, &digest);
    assert_eq!(pull_count(&site), 21);
    let blob = sha256(b"layer");
    assert_eq!(site.get(&format!("/v2/team/app/blobs/{blob}")).status, 200);
    assert_eq!(site.ask("HEAD", "/v2/team/app/manifests/v1").send().status, 200);
    let known = site.ask("GET", "/v2/team/app/manifests/v1").header("If-None-Match", &digest).send();
    assert_eq!(known.status, 304);
    site.get("/v2/team/app/manifests/none").is(404, "MANIFEST_UNKNOWN");
    assert_eq!(pull_count(&site), 21, "a look is not a pull, nor is a layer, nor what the client has");
    assert!(written(&site) == before);
}

#[test]
fn pulls_are_written_beside_other_commits_and_outlive_stops_and_mostly_crashes() {
    let site = Site::new();
    site.push_image("team/app", "v1", b"layer");
    pull(&site, "v1");
    let site = site.restart();
    assert_eq!(pull_count(&site), 1, "the stop is noted, and they beside it");
    pull(&site, "v1");
    site.hands.advance(Duration::from_secs(15 * 60));
    site.push_blob("else/other", b"a commit");
    assert_eq!(pull_count(&site), 2, "once, though the row has it now");
    pull(&site, "v1");
    site.push_blob("else/other", b"another commit, a moment later");
    assert_eq!(pull_count(&site), 3);
    let site = Site::resume(site.crash(), "this boot");
    assert_eq!(pull_count(&site), 2, "what came after the last quarter of an hour is forgotten");
    pull(&site, "v1");
    assert_eq!(site.ask("DELETE", "/v2/repositories/team/app/").send().status, 202);
    site.push_image("team/app", "v1", b"layer");
    assert_eq!(
        pull_count(&site),
        0,
        "a new one of that name, of that id, and by a clock that stands, of that time"
    );
}

#[test]
fn health_is_told_to_nobody_in_particular() {
    let site = Site::new();
    for target in ["/livez", "/readyz", "/healthz", "/"] {
        assert_eq!(site.ask("GET", target).by_nobody().send().status, 200, "{target}");
    }
    let mut wishes = Wishes::default();
    wishes.registry.reserve_bytes = Some(u64::MAX);
    let full = site.restart_with(wishes);
    let ready = full.get("/readyz");
    assert_eq!((ready.status, ready.json()["reads"].as_str()), (503, Some("ok")));
    assert_eq!(full.get("/livez").status, 200);
}

#[test]
fn pulls_beyond_the_limit_wait_their_turn() {
    use std::io::{Read, Write};
    let mut wishes = Wishes::default();
    wishes.http.pulls_max = 1;
    let site = Site::with(wishes);
    // More than sockets hold for a client that does not read.
    let large = site.push_blob("a/b", &noise(16 << 20, 9));
    let small = site.push_blob("a/b", b"small");
    let pull = |digest: &str| {
        let mut stream = std::net::TcpStream::connect(site.address).unwrap();
        stream.write_all(&site.ask("GET", &format!("/v2/a/b/blobs/{digest}")).bytes()).unwrap();
        stream
    };
    let mut first = pull(&large);
    first.read_exact(&mut [0; 100]).unwrap();
    let mut second = pull(&small);
    second.set_nonblocking(true).unwrap();
    for _ in 0..100 {
        assert_eq!(site.ask("HEAD", &format!("/v2/a/b/blobs/{small}")).send().status, 200);
        assert!(second.read(&mut [0]).is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock));
    }
    drop(first);
    second.set_nonblocking(false).unwrap();
    let mut answer = Vec::new();
    second.read_to_end(&mut answer).unwrap();
    let (answer, _) = crate::harness::Answer::read(&answer, false);
    assert_eq!((answer.status, answer.body.as_slice()), (200, &b"small"[..]));
}

#[test]
fn a_connection_goes_on_after_a_long_silence_wherever_it_began() {
    use std::io::{Read, Write};
    let site = Site::new();
    let mut stream = std::net::TcpStream::connect(site.address).unwrap();
    let request = b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n";
    // What came of the next request: nothing, a piece, all but the end.
    let mut at = 0;
    for piece in [0, 0, 1, 3, request.len() - 1, 0, 0] {
        let mut bytes = request[at..].to_vec();
        bytes.extend(&request[..piece]);
        stream.write_all(&bytes).unwrap();
        at = piece;
        let mut answer = [0; 1_000];
        let read = stream.read(&mut answer).unwrap();
        assert!(answer[..read].starts_with(b"HTTP/1.1 200"), "{:?}", &answer[..read]);
        // Much longer than the server keeps buffers for who is silent.
        let began = std::time::Instant::now();
        while began.elapsed() < Duration::from_millis(150) {
            site.get("/livez");
        }
    }
}

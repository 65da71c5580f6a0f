//! Uploads: whole, in chunks, streamed, resumed, cancelled, mounted.

use crate::harness::{Site, Wishes, manifest, noise, raw, sha256, sha512};
use std::time::Duration;

#[test]
fn a_blob_can_be_pushed_in_every_way_there_is() {
    let site = Site::new();
    let bytes = noise(300_000, 7);
    let digest = sha256(&bytes);
    let check = |how: &str, repo: &str| {
        let answer = site.get(&format!("/v2/{repo}/blobs/{digest}"));
        assert_eq!((answer.status, answer.body == bytes), (200, true), "{how}");
    };

    let answer = site.ask("POST", &format!("/v2/a/post/blobs/uploads/?digest={digest}")).body(&bytes).send();
    assert_eq!(answer.status, 201);
    assert_eq!(answer.header("location").unwrap(), format!("/v2/a/post/blobs/{digest}"));
    check("one POST", "a/post");

    let to = site.begin_upload("a/put");
    assert!(to.starts_with("/v2/a/put/blobs/uploads/"), "relative: {to}");
    let answer = site.ask("PUT", &format!("{to}?digest={digest}")).body(&bytes).send();
    assert_eq!((answer.status, answer.header("docker-content-digest")), (201, Some(digest.as_str())));
    check("POST and PUT", "a/put");

    let to = site.begin_upload("a/stream");
    let answer = site.ask("PATCH", &to).chunked(&bytes, 7_000).send();
    assert_eq!((answer.status, answer.header("range")), (202, Some("0-299999")));
    let answer = site.ask("PUT", &format!("{to}?digest={}", digest.replace(':', "%3A"))).send();
    assert_eq!(answer.status, 201);
    check("a stream", "a/stream");

    let to = site.begin_upload("a/chunks");
    for (at, chunk) in bytes.chunks(100_000).enumerate().take(2) {
        let first = at * 100_000;
        let answer = site
            .ask("PATCH", &to)
            .header("Content-Range", &format!("{first}-{}", first + 99_999))
            .body(chunk)
            .send();
        assert_eq!(
            (answer.status, answer.header("range").unwrap()),
            (202, format!("0-{}", first + 99_999).as_str())
        );
    }
    let status = site.get(&to);
    assert_eq!((status.status, status.header("range")), (204, Some("0-199999")));
    let last = site
        .ask("PUT", &format!("{to}?digest={digest}"))
        .header("Content-Range", "200000-299999")
        .body(&bytes[200_000..])
        .send();
    assert_eq!(last.status, 201);
    check("chunks", "a/chunks");
    assert_eq!(site.uploads_left(), 0);
}

#[test]
fn sha512_works_announced_or_not() {
    let site = Site::new();
    let bytes = noise(100_000, 8);
    let digest = sha512(&bytes);
    let early = site.ask("POST", "/v2/a/b/blobs/uploads/?digest-algorithm=sha512").send();
    for to in [early.header("location").unwrap().to_owned(), site.begin_upload("a/b")] {
        assert_eq!(site.ask("PATCH", &to).body(&bytes).send().status, 202);
        assert_eq!(site.ask("PUT", &format!("{to}?digest={digest}")).send().status, 201);
        assert_eq!(site.get(&format!("/v2/a/b/blobs/{digest}")).body, bytes);
    }
    site.ask("POST", "/v2/a/b/blobs/uploads/?digest-algorithm=md5").send().is(400, "DIGEST_INVALID");
}

#[test]
fn a_chunk_out_of_order_is_told_where_to_go_on() {
    let site = Site::new();
    let to = site.begin_upload("a/b");
    assert_eq!(site.ask("PATCH", &to).body(&[1; 100]).send().status, 202);
    for (range, bytes) in [("50-149", 100), ("101-200", 100), ("0-99", 100)] {
        let answer = site.ask("PATCH", &to).header("Content-Range", range).body(&vec![2; bytes]).send();
        answer.is(416, "RANGE_INVALID");
        assert_eq!((answer.header("range"), answer.header("location")), (Some("0-99"), Some(to.as_str())));
    }
    site.ask("PATCH", &to).header("Content-Range", "100-110").body(b"short").send().is(400, "SIZE_INVALID");
    site.ask("PATCH", &to)
        .header("Content-Range", "from here")
        .body(b"x")
        .send()
        .is(400, "BLOB_UPLOAD_INVALID");
    assert_eq!(site.get(&to).header("range"), Some("0-99"), "nothing of it was taken");
    let empty = site.begin_upload("a/b");
    let answer = site.ask("PATCH", &empty).send();
    assert_eq!((answer.status, answer.header("range")), (202, Some("0-0")), "docker reads it so");
}

#[test]
fn a_chunk_that_does_not_fit_leaves_alone_whoever_uploads() {
    use std::io::{Read, Write};
    let site = Site::new();
    let to = site.begin_upload("a/b");
    let mut running = site.ask("PATCH", &to).claiming(200_000).bytes();
    running.extend(vec![1; 100_000]);
    let mut stream = std::net::TcpStream::connect(site.address).unwrap();
    stream.write_all(&running).unwrap();
    assert!((0..10_000).any(|_| site.get(&to).header("range") != Some("0-0")), "it runs");
    site.ask("PATCH", &to).header("Content-Range", "5-9").body(b"12345").send().is(416, "RANGE_INVALID");
    stream.write_all(&[1; 100_000]).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    assert_eq!(crate::harness::Answer::read(&answer, false).0.header("range"), Some("0-199999"));
    let chunked =
        site.ask("PATCH", &to).header("Content-Range", "200000-200004").chunked(b"too many bytes", 4).send();
    chunked.is(400, "SIZE_INVALID");
}

#[test]
fn a_wrong_digest_is_refused_and_leaves_nothing() {
    let site = Site::new();
    let wrong = sha256(b"other bytes");
    site.ask("POST", &format!("/v2/a/b/blobs/uploads/?digest={wrong}"))
        .body(b"bytes")
        .send()
        .is(400, "DIGEST_INVALID");
    let to = site.begin_upload("a/b");
    site.ask("PUT", &to).body(b"bytes").send().is(400, "DIGEST_INVALID");
    site.ask("PUT", &format!("{to}?digest=sha256:short")).body(b"bytes").send().is(400, "DIGEST_INVALID");
    assert_eq!(site.get(&to).header("range"), Some("0-0"), "the upload is still there");
    site.ask("PUT", &format!("{to}?digest={wrong}")).body(b"bytes").send().is(400, "DIGEST_INVALID");
    site.get(&to).is(404, "BLOB_UPLOAD_UNKNOWN");
    assert_eq!(site.uploads_left(), 0);
    assert_eq!(site.get(&format!("/v2/a/b/blobs/{wrong}")).status, 404);
}

#[test]
fn a_cancelled_upload_is_gone() {
    let site = Site::new();
    let to = site.begin_upload("a/b");
    assert_eq!(site.ask("DELETE", &to).send().status, 204);
    for method in ["GET", "PATCH", "DELETE"] {
        site.ask(method, &to).send().is(404, "BLOB_UPLOAD_UNKNOWN");
    }
    assert_eq!(site.uploads_left(), 0);
}

#[test]
fn an_upload_belongs_to_its_user_and_its_repository() {
    let site = Site::new();
    let to = site.begin_upload("bob/app");
    site.ask("PATCH", &to).by("bob").body(b"x").send().is(404, "BLOB_UPLOAD_UNKNOWN");
    site.ask("PATCH", &to.replace("bob/app", "bob/other")).body(b"x").send().is(404, "BLOB_UPLOAD_UNKNOWN");
    assert_eq!(site.ask("PATCH", &to).body(b"x").send().status, 202);
}

#[test]
fn what_arrived_before_the_line_broke_need_not_be_sent_again() {
    // A 5 GB layer over a line that breaks every few minutes never arrives if it starts over.
    let site = Site::new();
    let bytes = noise(500_000, 9);
    let to = site.begin_upload("a/b");
    let mut cut = site.ask("PATCH", &to).body(&bytes).bytes();
    cut.truncate(cut.len() - 200_000);
    let stream = {
        use std::io::Write;
        let mut stream = std::net::TcpStream::connect(site.address).unwrap();
        stream.write_all(&cut).unwrap();
        stream
    };
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let mut rest = Vec::new();
    // Until the server has noticed, and has written what it got.
    let _ = std::io::Read::read_to_end(&mut &stream, &mut rest);
    let range = site.get(&to).header("range").unwrap().to_owned();
    let have: usize = range.strip_prefix("0-").unwrap().parse::<usize>().unwrap() + 1;
    assert!(have > 250_000 && have <= 300_000, "{have}");
    let answer = site
        .ask("PATCH", &to)
        .header("Content-Range", &format!("{have}-{}", bytes.len() - 1))
        .body(&bytes[have..])
        .send();
    assert_eq!(answer.status, 202);
    assert_eq!(site.ask("PUT", &format!("{to}?digest={}", sha256(&bytes))).send().status, 201);
}

#[test]
fn uploads_survive_a_restart_within_one_boot_and_not_a_power_cut() {
    let site = Site::new();
    let bytes = noise(300_000, 10);
    let to = site.begin_upload("a/b");
    assert_eq!(site.ask("PATCH", &to).body(&bytes[..200_001]).send().status, 202);
    let site = site.restart();
    assert_eq!(site.get(&to).header("range"), Some("0-200000"));
    site.ask("GET", &to).by("bob").send().is(403, "DENIED");
    site.get(&to.replace("/a/b/", "/other/repo/")).is(404, "BLOB_UPLOAD_UNKNOWN");
    assert_eq!(site.ask("PATCH", &to).body(&bytes[200_001..]).send().status, 202);
    let wishes = Wishes { boot_id: "another boot".into(), ..Wishes::default() };
    let other = site.begin_upload("a/b");
    let digest = sha256(&bytes);
    assert_eq!(site.ask("PUT", &format!("{to}?digest={digest}")).send().status, 201);
    let site = site.restart_with(wishes);
    site.get(&other).is(404, "BLOB_UPLOAD_UNKNOWN");
    assert_eq!(site.uploads_left(), 0, "unsynced bytes may be anything after a power cut");
    assert_eq!(site.get(&format!("/v2/a/b/blobs/{digest}")).body, bytes);
}

#[test]
fn the_request_that_takes_an_upload_up_is_the_one_that_holds_it() {
    // A client whose line died comes back while the server still waits for the old one.
    use std::io::{Read, Write};
    let site = Site::new();
    let to = site.begin_upload("a/b");
    let mut old = site.ask("PATCH", &to).claiming(200_000).bytes();
    old.extend(vec![1; 100_000]);
    let mut stuck = std::net::TcpStream::connect(site.address).unwrap();
    stuck.write_all(&old).unwrap();
    let begun = (0..10_000).any(|_| site.get(&to).header("range") != Some("0-0"));
    assert!(begun, "the old request holds the upload");
    let new = site.ask("PATCH", &to).body(&[2; 10]).send();
    assert_eq!(new.status, 202);
    let have = new.header("range").unwrap().to_owned();
    let _ = stuck.write_all(&[1; 100_000]);
    let mut answer = Vec::new();
    let _ = stuck.read_to_end(&mut answer);
    let (answer, _) = crate::harness::Answer::read(&answer, false);
    answer.is(404, "BLOB_UPLOAD_UNKNOWN");
    assert_eq!(site.get(&to).header("range"), Some(have.as_str()), "the old request wrote nothing more");
}

#[test]
fn abandoned_uploads_expire_and_make_room() {
    let mut wishes = Wishes::default();
    wishes.registry.uploads_per_user = 3;
    let site = Site::with(wishes);
    let first = site.begin_upload("a/b");
    site.hands.advance(Duration::from_secs(60));
    site.begin_upload("a/b");
    site.begin_upload("a/b");
    let refused = site.ask("POST", "/v2/a/b/blobs/uploads/").send();
    refused.is(429, "TOOMANYREQUESTS");
    assert_eq!(refused.header("retry-after"), Some("60"));
    assert_eq!(
        site.ask("POST", "/v2/bob/b/blobs/uploads/").by("bob").send().status,
        202,
        "others have their own"
    );
    site.hands.advance(Duration::from_secs(560));
    site.begin_upload("a/b");
    site.get(&first).is(404, "BLOB_UPLOAD_UNKNOWN");
    site.hands.advance(Duration::from_secs(86_400));
    assert_eq!(site.registry.uploads_expire(), 4);
    assert_eq!(site.uploads_left(), 0);
}

/// Each looked whether there was room before any of them had taken it, and all came in.
#[test]
fn uploads_that_begin_at_once_are_no_more_than_may_be_open() {
    let mut wishes = Wishes::default();
    wishes.registry.uploads_per_user = 3;
    let site = Site::with(wishes);
    site.begin_upload("a/b");
    let begin = || site.ask("POST", "/v2/a/b/blobs/uploads/").send().status;
    let statuses: Vec<u16> = std::thread::scope(|scope| {
        let asking: Vec<_> = (0..24).map(|_| scope.spawn(begin)).collect();
        asking.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(statuses.iter().filter(|status| **status == 202).count(), 2, "{statuses:?}");
    assert_eq!(site.uploads_left(), 3);
}

#[test]
fn what_earlier_processes_left_goes_as_soon_as_it_is_too_much() {
    let site = Site::new();
    for _ in 0..5 {
        site.begin_upload("a/b");
    }
    let mut wishes = Wishes::default();
    wishes.registry.uploads_per_user = 3;
    let site = site.restart_with(wishes);
    assert_eq!(site.uploads_left(), 5);
    site.begin_upload("a/b");
    assert_eq!(site.uploads_left(), 3);
}

#[test]
fn a_blob_is_mounted_from_wherever_the_caller_may_read_and_from_nowhere_else() {
    let site = Site::new();
    let bytes = b"shared layer";
    let digest = site.push_blob("bob/app", bytes);
    let hidden = site.push_blob("secret/app", b"hidden layer");
    let mount = |user: &str, repo: &str, query: &str| {
        site.ask("POST", &format!("/v2/{repo}/blobs/uploads/?{query}")).by(user).send()
    };
    let answer = mount("bob", "bob/new", &format!("mount={digest}&from=bob%2Fapp"));
    assert_eq!(
        (answer.status, answer.header("location").unwrap()),
        (201, format!("/v2/bob/new/blobs/{digest}").as_str())
    );
    assert_eq!(site.ask("GET", &format!("/v2/bob/new/blobs/{digest}")).by("bob").send().body, bytes);
    assert_eq!(
        mount("bob", "bob/third", &format!("mount={digest}")).status,
        201,
        "the source need not be named"
    );
    for query in [format!("mount={hidden}&from=secret/app"), format!("mount={hidden}")] {
        let answer = mount("bob", "bob/new", &query);
        assert_eq!(answer.status, 202, "an upload begins instead");
        assert!(answer.header("location").unwrap().starts_with("/v2/bob/new/blobs/uploads/"));
    }
    assert_eq!(site.ask("HEAD", &format!("/v2/bob/new/blobs/{hidden}")).by("bob").send().status, 404);
    mount("bob", "bob/new", "mount=nonsense").is(400, "DIGEST_INVALID");
    mount("bob", "secret/app", &format!("mount={digest}")).is(403, "DENIED");
}

#[test]
fn what_is_too_large_is_refused_before_it_is_sent() {
    let mut wishes = Wishes::default();
    wishes.registry.blob_bytes_max = 1_000;
    wishes.http.blob_bytes_max = 1_000;
    let site = Site::with(wishes);
    let to = site.begin_upload("a/b");
    let claim = site.ask("PATCH", &to).claiming(300 << 20).header("Expect", "100-continue").bytes();
    let answer = raw(site.address, &claim);
    assert!(!answer.starts_with(b"HTTP/1.1 100"), "no byte of it is asked for");
    crate::harness::Answer::read(&answer, false).0.is(413, "SIZE_INVALID");
    site.ask("PATCH", &to).chunked(&noise(5_000, 1), 500).send().is(413, "SIZE_INVALID");
    assert_eq!(site.ask("PATCH", &to).body(&[0; 500]).send().status, 202);
    site.ask("PATCH", &to).body(&[0; 501]).send().is(413, "SIZE_INVALID");
}

#[test]
fn a_full_disk_refuses_pushes_with_a_sentence_and_nothing_else() {
    let site = Site::new();
    let digest = site.push_image("a/b", "v1", b"layer");
    let mut wishes = Wishes::default();
    wishes.registry.reserve_bytes = Some(u64::MAX);
    let site = site.restart_with(wishes);
    for (method, target) in [("POST", "/v2/a/b/blobs/uploads/"), ("PUT", "/v2/a/b/manifests/v2")] {
        let text = manifest(&sha256(b"{}"), 2, &[], "");
        let answer = site.ask(method, target).body(text.as_bytes()).send();
        answer.is(507, "DENIED");
        assert!(answer.json()["errors"][0]["message"].as_str().unwrap().contains("disk is full"));
    }
    assert_eq!(site.get("/v2/a/b/manifests/v1").status, 200);
    assert_eq!(site.ask("DELETE", &format!("/v2/a/b/manifests/{digest}")).send().status, 202);
}

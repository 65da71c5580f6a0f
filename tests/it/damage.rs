//! Bytes that rot: found before they are served, out of service from then on, healed by a push.

use crate::harness::{Site, Wishes, noise};
use std::os::unix::fs::FileExt;

/// Turns one bit of a file over.
fn flip(path: &std::path::Path, at: u64) {
    let file = std::fs::OpenOptions::new().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 4], at).unwrap();
}

#[test]
fn a_flipped_bit_is_never_served_and_the_next_push_heals_it() {
    for (len, at) in [(10, 3), (65_536, 65_535), (1_000_000, 0), (1_000_000, 400_000), (1_000_000, 999_999)] {
        let site = Site::new();
        let bytes = noise(len, 3);
        let digest = site.push_blob("a/b", &bytes);
        let target = format!("/v2/a/b/blobs/{digest}");
        flip(&site.blob_path(&digest), at);
        let answer = site.get(&target);
        if answer.status == 200 {
            assert!(!answer.whole, "the answer breaks off");
            assert_eq!(answer.body, bytes[..answer.body.len()], "before the first wrong byte");
            assert!(answer.body.len() as u64 <= at);
        } else {
            answer.is(404, "BLOB_UNKNOWN");
        }
        assert_eq!(site.ask("HEAD", &target).send().status, 404, "clients push what is not here");
        site.get(&target).is(404, "BLOB_UNKNOWN");
        assert_eq!(std::fs::read_dir(site.path("quarantine")).unwrap().count(), 1);
        let text = crate::harness::manifest(&digest, len, &[], "");
        site.put_manifest("a/b", "v1", &text).is(400, "MANIFEST_BLOB_UNKNOWN");
        site.push_blob("a/b", &bytes);
        assert_eq!(site.get(&target).body, bytes);
        assert_eq!(std::fs::read_dir(site.path("quarantine")).unwrap().count(), 0, "and takes no more room");
        assert_eq!(site.put_manifest("a/b", "v1", &text).status, 201);
    }
}

#[test]
fn a_range_is_checked_too_and_an_untouched_part_still_comes() {
    let site = Site::new();
    let bytes = noise(300_000, 4);
    let digest = site.push_blob("a/b", &bytes);
    let target = format!("/v2/a/b/blobs/{digest}");
    flip(&site.blob_path(&digest), 70_000);
    let good = site.ask("GET", &target).header("Range", "bytes=200000-200099").send();
    assert_eq!((good.status, good.body.as_slice()), (206, &bytes[200_000..200_100]));
    // The wrong byte is not asked for, but lies in the stretch that one checksum covers.
    site.ask("GET", &target).header("Range", "bytes=65536-65545").send().is(404, "BLOB_UNKNOWN");
    site.ask("GET", &target).header("Range", "bytes=200000-200099").send().is(404, "BLOB_UNKNOWN");
}

#[test]
fn a_file_that_is_cut_missing_or_another_is_not_served() {
    for harm in ["cut", "removed", "emptied", "swapped"] {
        let site = Site::new();
        let (bytes, other) = (noise(100_000, 5), noise(100_000, 6));
        let (digest, swapped) = (site.push_blob("a/b", &bytes), site.push_blob("a/b", &other));
        let path = site.blob_path(&digest);
        match harm {
            "cut" => std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(99_999).unwrap(),
            "removed" => std::fs::remove_file(&path).unwrap(),
            "emptied" => std::fs::write(&path, b"").unwrap(),
            _ => std::fs::rename(site.blob_path(&swapped), &path).unwrap(),
        }
        let target = format!("/v2/a/b/blobs/{digest}");
        site.get(&target).is(404, "BLOB_UNKNOWN");
        assert_eq!(site.ask("HEAD", &target).send().status, 404, "{harm}");
        site.push_blob("a/b", &bytes);
        assert_eq!(site.get(&target).body, bytes, "{harm}");
    }
}

#[test]
fn a_push_heals_damage_that_nobody_has_seen_yet() {
    let site = Site::new();
    let bytes = noise(100_000, 7);
    let digest = site.push_blob("a/b", &bytes);
    flip(&site.blob_path(&digest), 50_000);
    site.push_blob("c/d", &bytes);
    assert_eq!(site.get(&format!("/v2/a/b/blobs/{digest}")).body, bytes);
}

#[test]
fn a_manifest_whose_bytes_are_wrong_is_unknown_until_it_is_pushed_again() {
    let site = Site::new();
    let text = site.image_of("a/b", b"layer");
    let digest = site.put_manifest("a/b", "v1", &text).header("docker-content-digest").unwrap().to_owned();
    let database = rusqlite::Connection::open(site.path("registry.db")).unwrap();
    let wrong = text.replace("layer.v1.tar", "layer.v1.tax");
    assert_eq!(database.execute("UPDATE manifest SET body = ?1", [wrong.as_bytes()]).unwrap(), 1);
    drop(database);
    for method in ["GET", "HEAD"] {
        for reference in ["v1", &digest] {
            let answer = site.ask(method, &format!("/v2/a/b/manifests/{reference}")).send();
            assert_eq!(answer.status, 404, "{method} {reference}");
        }
    }
    assert_eq!(site.put_manifest("a/b", "v1", &text).status, 201);
    assert_eq!(site.get("/v2/a/b/manifests/v1").body, text.as_bytes());
}

#[test]
fn pushing_a_manifest_again_mends_what_its_row_says() {
    let site = Site::new();
    let subject = site.push_image("a/b", "v1", b"layer");
    let config = site.push_blob("a/b", b"{}");
    let more = format!(r#","annotations":{{"k":"v"}},"subject":{{"digest":"{subject}","size":1}}"#);
    let text = crate::harness::manifest(&config, 2, &[], &more);
    let digest = crate::harness::sha256(text.as_bytes());
    assert_eq!(site.put_manifest("a/b", &digest, &text).status, 201);
    let database = rusqlite::Connection::open(site.path("registry.db")).unwrap();
    database
        .execute("UPDATE manifest SET annotations = '{', artifact_type = 'x' WHERE subject IS NOT NULL", [])
        .unwrap();
    drop(database);
    assert_eq!(site.put_manifest("a/b", &digest, &text).status, 201);
    let listed = site.get(&format!("/v2/a/b/referrers/{subject}")).json();
    assert_eq!(listed["manifests"][0]["annotations"]["k"], "v");
}

#[test]
fn files_that_no_push_was_told_of_are_removed_after_a_crash() {
    let site = Site::new();
    let digest = site.push_blob("a/b", b"kept");
    let orphan = site.blob_path(&crate::harness::sha256(b"orphan"));
    std::fs::write(&orphan, b"orphan").unwrap();
    assert_eq!(site.registry.orphans_remove().unwrap(), 1);
    assert!(!orphan.exists());
    assert_eq!(site.get(&format!("/v2/a/b/blobs/{digest}")).body, b"kept");
    assert!(!site.registry.was_unclean());
    let site = site.restart();
    assert!(!site.registry.was_unclean(), "it had stopped by itself");
}

#[test]
fn a_flipped_bit_in_the_database_is_our_error_and_not_an_unknown_manifest() {
    let site = Site::new();
    site.push_image("a/b", "v1", b"layer");
    let config = site.push_blob("c/d", b"{}");
    // Too long for the page of another row.
    let more = format!(r#","annotations":{{"mark":"{}"}}"#, "unmistakable".repeat(2_000));
    let text = crate::harness::manifest(&config, 2, &[], &more);
    assert_eq!(site.put_manifest("c/d", "v2", &text).status, 201);
    let site = site.restart_after(Wishes::default(), |dir| {
        assert!(!dir.join("registry.db-wal").exists(), "a clean stop leaves no log");
        let path = dir.join("registry.db");
        let bytes = std::fs::read(&path).unwrap();
        // In the middle of the manifest, where its pages hold nothing else.
        let marks: Vec<usize> =
            (0..bytes.len()).filter(|at| bytes[*at..].starts_with(b"unmistakable")).collect();
        flip(&path, marks[marks.len() / 2] as u64);
    });
    for method in ["GET", "HEAD"] {
        let answer = site.ask(method, "/v2/c/d/manifests/v2").send();
        // A HEAD needs nothing of the page that is wrong.
        assert_eq!(answer.status, if method == "GET" { 500 } else { 200 }, "{method}");
    }
    assert_eq!(site.get("/v2/a/b/manifests/v1").status, 200, "everything else is served");
    assert_eq!(site.put_manifest("c/d", "v3", &site.image_of("c/d", b"layer")).status, 201);
    let checked = site.registry.check_pages(1, 1_000_000).unwrap();
    assert_eq!((checked.wrong.len(), checked.next), (1, None));
    assert_eq!(site.get("/v2/c/d/manifests/v2").status, 500, "and stays so");
}

//! A backup, the loss of everything, and the way back.

use crate::binary::{complained, outport, said};
use crate::harness::{Site, Wishes, noise, sha256};
use outport::registry::{Backup, Clock, Collect, Mode, Registry};
use std::time::Duration;

fn back_up(site: &Site) -> (Vec<u8>, Backup) {
    let mut bytes = Vec::new();
    let done = site.registry.backup(&mut bytes, |_, _| {}).unwrap();
    (bytes, done)
}

/// Restores into a new directory and serves it.
fn restored(backup: &[u8]) -> (Site, Backup) {
    let dir = tempfile::tempdir().unwrap();
    let done = Registry::restore(dir.path(), backup, |_, _| {}).unwrap();
    (Site::resume(dir, "a new machine"), done)
}

#[test]
fn a_backup_of_a_running_registry_brings_everything_back_after_the_original_is_destroyed() {
    let site = Site::new();
    site.add_user("carol");
    let layers: Vec<Vec<u8>> = (1..5u64).map(|seed| noise(300_000, seed)).collect();
    let digests: Vec<String> = layers
        .iter()
        .enumerate()
        .map(|(n, layer)| site.push_image("carol/app", &format!("v{n}"), layer))
        .collect();
    std::fs::create_dir_all(site.path("tls")).unwrap();
    std::fs::write(site.path("tls/ca.crt"), "the authority").unwrap();
    let (backup, done) = back_up(&site);
    assert_eq!((done.blobs, done.bytes, done.bad), (5, 1_200_002, 0));
    let later = site.push_image("carol/app", "later", b"after the backup");
    drop(site);

    let (site, again) = restored(&backup);
    assert_eq!(again, done);
    for (n, (digest, layer)) in digests.iter().zip(&layers).enumerate() {
        let tag = site.ask("GET", &format!("/v2/carol/app/manifests/v{n}")).by("carol").send();
        assert_eq!(tag.header("docker-content-digest"), Some(digest.as_str()));
        let blob = site.get(&format!("/v2/carol/app/blobs/{}", sha256(layer)));
        assert_eq!(blob.body, *layer);
    }
    assert_eq!(site.get(&format!("/v2/carol/app/manifests/{later}")).status, 404);
    assert_eq!(std::fs::read_to_string(site.path("tls/ca.crt")).unwrap(), "the authority");
    assert_eq!(site.registry.scrub(|_| true).unwrap().bad, 0);
    site.push_image("carol/app", "next", b"and pushes go on");
}

#[test]
fn a_backup_has_no_collection_beside_it_and_leaves_nothing_behind() {
    let site = Site::new();
    site.push_blob("a/b", b"unused");
    site.hands.advance(Duration::from_secs(7_200));
    let mut tried = None;
    let ask = Collect { grace: Duration::from_secs(3_600), dry_run: false };
    site.registry
        .backup(std::io::sink(), |_, _| {
            tried = Some(site.registry.collect(ask, |_| {}).unwrap_err().kind);
        })
        .unwrap();
    assert_eq!(tried, Some(outport::error::Kind::Unavailable));
    assert!(!site.path("backup.tmp").exists());
    assert_eq!(site.registry.collect(ask, |_| {}).unwrap().blobs, 1);
}

#[test]
fn what_is_damaged_is_not_in_a_backup_and_is_wanted_after_the_restore() {
    let site = Site::new();
    let (good, flipped, gone) = (noise(200_000, 1), noise(200_000, 2), noise(200_000, 3));
    for (n, layer) in [&good, &flipped, &gone].into_iter().enumerate() {
        site.push_image("a/b", &format!("v{n}"), layer);
    }
    let mut bytes = flipped.clone();
    bytes[150_000] ^= 1;
    std::fs::write(site.blob_path(&sha256(&flipped)), bytes).unwrap();
    std::fs::remove_file(site.blob_path(&sha256(&gone))).unwrap();
    let (backup, done) = back_up(&site);
    assert_eq!((done.blobs, done.bad), (2, 2));
    let (site, again) = restored(&backup);
    assert_eq!(again.bad, 2);
    let mut wanted: Vec<String> =
        site.registry.wanted(10).unwrap().into_iter().map(|row| row.digest).collect();
    let mut expected = vec![sha256(&flipped), sha256(&gone)];
    wanted.sort();
    expected.sort();
    assert_eq!(wanted, expected);
    assert_eq!(site.get(&format!("/v2/a/b/blobs/{}", sha256(&good))).body, good);
}

#[test]
fn a_backup_that_was_cut_or_changed_makes_no_registry() {
    let site = Site::new();
    site.push_image("a/b", "v1", &noise(100_000, 1));
    let (backup, _) = back_up(&site);
    for len in [0, 1, 511, 512, 1_000, 5_000, backup.len() / 2, backup.len() - 2_000] {
        let dir = tempfile::tempdir().unwrap();
        assert!(Registry::restore(dir.path(), &backup[..len], |_, _| {}).is_err(), "{len} bytes");
        assert!(!dir.path().join("registry.db").exists(), "{len} bytes");
        // What is left is no hindrance.
        let done = Registry::restore(dir.path(), &backup[..], |_, _| {}).unwrap();
        assert_eq!(done.bad, 0);
    }
    let dir = tempfile::tempdir().unwrap();
    assert!(Registry::restore(dir.path(), &noise(100_000, 7)[..], |_, _| {}).is_err());
}

/// A tar of one member.
fn tar_of(name: &str, kind: u8, bytes: &[u8]) -> Vec<u8> {
    let mut block = [0u8; 512];
    block[..name.len()].copy_from_slice(name.as_bytes());
    block[100..108].copy_from_slice(b"0000600\0");
    block[124..136].copy_from_slice(format!("{:011o}\0", bytes.len()).as_bytes());
    block[156] = kind;
    block[257..265].copy_from_slice(b"ustar  \0");
    block[148..156].fill(b' ');
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    let mut tar = block.to_vec();
    tar.extend_from_slice(bytes);
    tar.resize(tar.len().next_multiple_of(512), 0);
    tar
}

#[test]
fn an_archive_writes_nothing_but_where_a_backup_would() {
    let head = tar_of("outport-backup.json", b'0', br#"{"version":1,"created_us":1,"blobs":0,"bytes":0}"#);
    let outside = tempfile::tempdir().unwrap();
    let evil = outside.path().join("evil").to_string_lossy().into_owned();
    for (name, kind) in [
        ("../evil", b'0'),
        (evil.as_str(), b'0'),
        ("tls/../../evil", b'0'),
        ("tls/.hidden", b'0'),
        ("blobs/sha256/../../evil", b'0'),
        ("blobs/sha256/XYZ", b'0'),
        ("lock", b'0'),
        ("tls/link", b'2'),
        ("registry.db", b'1'),
        ("tls/device", b'3'),
        ("tls", b'5'),
    ] {
        let dir = outside.path().join("data");
        let tar = [head.clone(), tar_of(name, kind, b"evil"), vec![0; 1_024]].concat();
        let error = Registry::restore(&dir, &tar[..], |_, _| {}).unwrap_err();
        assert!(
            error.detail().contains("not a backup") || error.detail().contains("damaged"),
            "{name}: {error}"
        );
        assert!(!outside.path().join("evil").exists(), "{name}");
        std::fs::remove_dir_all(&dir).unwrap();
    }
    let newer = tar_of("outport-backup.json", b'0', br#"{"version":9,"created_us":1,"blobs":0,"bytes":0}"#);
    let error = Registry::restore(&outside.path().join("data"), &newer[..], |_, _| {}).unwrap_err();
    assert!(error.detail().contains("newer Outport"), "{error}");
}

#[test]
fn a_restore_replaces_nothing() {
    let site = Site::new();
    let (backup, _) = back_up(&site);
    assert!(Registry::restore(&site.path(""), &backup[..], |_, _| {}).is_err());
    let full = tempfile::tempdir().unwrap();
    std::fs::write(full.path().join("letters.txt"), "private").unwrap();
    assert!(Registry::restore(full.path(), &backup[..], |_, _| {}).is_err());
    assert_eq!(std::fs::read_dir(full.path()).unwrap().count(), 1);
}

#[test]
fn the_command_line_backs_up_and_restores_and_says_so() {
    let site = Site::new();
    site.push_image("bob/app", "v1", b"layer");
    let away = tempfile::tempdir().unwrap();
    let file = away.path().join("backup.tar").to_string_lossy().into_owned();
    let done = outport(&site.path(""), &["backup", &file], "");
    assert!(said(&done).starts_with("Wrote 2 blobs of 7 bytes"), "{done:?}");
    let again = outport(&site.path(""), &["backup", &file], "");
    assert!(complained(&again).contains("is there already"), "{again:?}");
    let data = away.path().join("data");
    let restored = outport(&data, &["restore", &file, "--json"], "");
    assert_eq!(restored.status.code(), Some(0), "{restored:?}");
    let shown = outport(&data, &["image", "show", "bob/app:v1"], "");
    assert!(said(&shown).contains("v1"), "{shown:?}");
    let options = Wishes::default().registry;
    let registry = Registry::open(&data, &Mode::Tool, options, Clock::system()).unwrap();
    assert_eq!(registry.users().unwrap().len(), 2);
}

#[test]
fn a_rebuild_without_the_database_brings_back_every_image_tag_and_blob() {
    let site = Site::new();
    let layers: Vec<Vec<u8>> = (1..6u64).map(|seed| noise(100_000, seed)).collect();
    let digests: Vec<String> = layers
        .iter()
        .enumerate()
        .map(|(n, layer)| site.push_image("team/app", &format!("v{n}"), layer))
        .collect();
    site.registry.upkeep();
    // After the log was made: a tag that moves, one that goes, an image and a repository that go.
    site.push_image("team/app", "v0", &layers[1]);
    site.push_image("other/gone", "v1", b"not any more");
    assert_eq!(site.ask("DELETE", "/v2/repositories/other/gone/").send().status, 202);
    assert_eq!(site.ask("DELETE", "/v2/team/app/manifests/v2").send().status, 202);
    assert_eq!(site.ask("DELETE", &format!("/v2/team/app/manifests/{}", digests[3])).send().status, 202);
    site.push_image("open/app", "v1", b"public");
    site.registry.repo_set_private(&outport::names::RepoName::parse("open/app").unwrap(), false).unwrap();
    let dir = site.crash();
    for file in ["registry.db", "registry.db-wal", "registry.db-shm"] {
        std::fs::write(dir.path().join(file), noise(4_096, 1)).unwrap();
    }
    let mut bytes = layers[4].clone();
    bytes[50_000] ^= 1;
    std::fs::write(dir.path().join("blobs").join(sha256(&layers[4]).replace(':', "/")), bytes).unwrap();

    let done = outport(dir.path(), &["rebuild", "--json"], "");
    assert_eq!(done.status.code(), Some(1), "one is damaged, which is said: {done:?}");
    let report: serde_json::Value = serde_json::from_str(said(&done).lines().next().unwrap()).unwrap();
    let rebuilt = &report["rebuilt"];
    assert_eq!(
        (&rebuilt["repositories"], &rebuilt["images"], &rebuilt["tags"]),
        (&2.into(), &5.into(), &4.into())
    );
    assert_eq!((&rebuilt["damaged"], &rebuilt["missing"]), (&1.into(), &1.into()));
    let password = report["admin_password"].as_str().unwrap().to_owned();

    let site = Site::resume(dir, "this boot");
    let get = |target: &str| site.ask("GET", target).with_password("admin", &password).send();
    assert_eq!(get("/v2/team/app/tags/list").strings("tags"), ["v0", "v1", "v4"]);
    assert_eq!(get("/v2/team/app/manifests/v0").header("docker-content-digest"), Some(digests[1].as_str()));
    assert_eq!(get("/v2/_catalog").strings("repositories"), ["open/app", "team/app"]);
    for (n, expected) in [(0, 200), (1, 200), (2, 200), (3, 404), (4, 200)] {
        assert_eq!(get(&format!("/v2/team/app/manifests/{}", digests[n])).status, expected, "{n}");
    }
    assert_eq!(get(&format!("/v2/team/app/blobs/{}", sha256(&layers[1]))).body, layers[1]);
    assert_eq!(get(&format!("/v2/team/app/blobs/{}", sha256(&layers[4]))).status, 404);
    let wanted = site.registry.wanted(10).unwrap();
    assert_eq!((wanted.len(), wanted[0].images.as_slice()), (1, ["team/app:v4".to_owned()].as_slice()));
    let shown = outport(&site.path(""), &["repo", "show", "open/app", "--json"], "");
    assert!(said(&shown).contains("\"private\":false"), "{shown:?}");
}

#[test]
fn blobs_without_a_database_are_no_new_registry() {
    let site = Site::new();
    site.push_image("team/app", "v1", b"layer");
    let dir = site.close();
    std::fs::remove_file(dir.path().join("registry.db")).unwrap();
    let served = outport(dir.path(), &["serve", "--listen", "127.0.0.1:0", "--insecure-http"], "");
    assert!(complained(&served).contains("outport rebuild"), "{served:?}");
    assert!(!dir.path().join("registry.db").exists());
    assert_eq!(outport(dir.path(), &["rebuild"], "").status.code(), Some(0));
}

#[test]
fn a_rebuild_beside_a_server_or_without_blobs_is_refused() {
    let site = Site::new();
    let beside = outport(&site.path(""), &["rebuild"], "");
    assert!(complained(&beside).contains("stop it first"), "{beside:?}");
    let empty = tempfile::tempdir().unwrap();
    let nothing = outport(empty.path(), &["rebuild"], "");
    assert!(complained(&nothing).contains("no blobs"), "{nothing:?}");
}

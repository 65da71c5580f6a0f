//! Reading the store again: what the disk lost is found, listed, and healed by a push.

use crate::binary::{complained, outport};
use crate::harness::{Site, sha256};
use outport::registry::{Scrubbed, Wanted};
use rusqlite::{Connection, OpenFlags};
use std::time::Duration;

fn scrub(site: &Site) -> Scrubbed {
    site.registry.scrub(|_| true).unwrap()
}

#[test]
fn a_scrub_finds_every_kind_of_damage_and_a_push_heals_it() {
    let site = Site::new();
    let layers: Vec<Vec<u8>> = (0..5u64).map(|n| crate::harness::noise(200_000, n + 1)).collect();
    for (n, layer) in layers.iter().enumerate() {
        site.push_image("a/b", &format!("v{n}"), layer);
    }
    assert_eq!(
        scrub(&site),
        Scrubbed { blobs: 6, manifests: 5, bytes: scrub(&site).bytes, bad: 0, whole: true }
    );
    let path = |n: usize| site.blob_path(&sha256(&layers[n]));
    let flipped: Vec<u8> =
        layers[0].iter().enumerate().map(|(at, b)| if at == 150_000 { b ^ 4 } else { *b }).collect();
    std::fs::write(path(0), flipped).unwrap();
    std::fs::write(path(1), &layers[1][..199_999]).unwrap();
    std::fs::remove_file(path(2)).unwrap();
    std::fs::write(path(3), &layers[4]).unwrap();
    let found = scrub(&site);
    assert_eq!((found.bad, found.whole), (4, true));
    let wanted = site.registry.wanted(10).unwrap();
    let mut expected: Vec<String> = (0..4).map(|n| sha256(&layers[n])).collect();
    expected.sort();
    assert_eq!(wanted.iter().map(|row| row.digest.clone()).collect::<Vec<_>>(), expected);
    for row in &wanted {
        assert_eq!((row.what, row.bytes, row.images.len()), ("blob", 200_000, 1), "{row:?}");
        assert!(row.images[0].starts_with("a/b:v"), "{row:?}");
        assert_eq!(site.ask("HEAD", &format!("/v2/a/b/blobs/{}", row.digest)).send().status, 404);
    }
    assert_eq!(scrub(&site).bad, 0, "found once");
    for layer in &layers[..4] {
        site.push_blob("a/b", layer);
    }
    assert_eq!(site.registry.wanted(10).unwrap(), Vec::<Wanted>::new());
    assert_eq!((scrub(&site).bad, scrub(&site).blobs), (0, 6));
    assert_eq!(std::fs::read_dir(site.path("quarantine")).unwrap().count(), 0);
}

#[test]
fn a_scrub_goes_on_where_it_was_also_after_a_restart() {
    let site = Site::new();
    for n in 0..6 {
        site.push_blob("a/b", format!("blob {n}").as_bytes());
    }
    let mut read = 0;
    let first = site.registry.scrub(|_| {
        read += 1;
        read < 4
    });
    assert_eq!(first.unwrap().blobs, 4);
    let site = site.restart();
    let rest = scrub(&site);
    assert_eq!((rest.blobs, rest.whole), (2, true));
}

#[test]
fn the_scrub_that_goes_on_by_itself_rests_between_its_passes() {
    let site = Site::new();
    site.hands.advance(Duration::from_secs(60));
    site.push_image("a/b", "v1", b"layer");
    let minute = Duration::from_secs(60);
    let turn = || site.registry.scrub_turn(minute).unwrap();
    assert_eq!((turn().blobs, turn().blobs), (2, 0));
    site.hands.advance(Duration::from_secs(31 * 86_400));
    assert_eq!(turn().blobs, 2);
}

#[test]
fn what_was_pushed_just_before_the_power_went_is_read_again_before_anyone_is_told_of_it() {
    let site = Site::new();
    let digest = site.push_blob("a/b", b"written last");
    let dir = site.crash();
    let path = dir.path().join("blobs").join(digest.replace(':', "/"));
    std::fs::write(&path, b"written lost").unwrap();
    let same_boot = Site::resume(dir, "this boot");
    assert_eq!(
        same_boot.ask("HEAD", &format!("/v2/a/b/blobs/{digest}")).send().status,
        200,
        "nothing is suspect"
    );
    let site = Site::resume(same_boot.crash(), "another boot");
    assert_eq!(site.ask("HEAD", &format!("/v2/a/b/blobs/{digest}")).send().status, 404);
    site.push_blob("a/b", b"written last");
    assert_eq!(site.ask("HEAD", &format!("/v2/a/b/blobs/{digest}")).send().status, 200);
}

#[test]
fn damaged_pages_of_the_database_are_found_at_the_command_line_with_a_remedy() {
    let site = Site::new();
    for n in 0..20 {
        site.push_image("a/b", &format!("v{n}"), format!("layer {n}").as_bytes());
    }
    let path = site.path("");
    let (good, checked) = (outport(&path, &["scrub"], ""), outport(&path, &["check"], ""));
    assert_eq!((good.status.code(), checked.status.code()), (Some(0), Some(0)), "{good:?} {checked:?}");
    let dir = site.close();
    let database = dir.path().join("registry.db");
    let mut bytes = std::fs::read(&database).unwrap();
    let last = bytes.len() - 4_096;
    bytes[last + 100] ^= 1;
    std::fs::write(&database, bytes).unwrap();
    for verb in ["scrub", "check"] {
        let bad = outport(dir.path(), &[verb], "");
        assert_eq!(bad.status.code(), Some(1), "{bad:?}");
        assert!(complained(&bad).contains("1 pages of the database are damaged"), "{bad:?}");
        assert!(complained(&bad).contains("outport rebuild"), "{bad:?}");
    }
}

#[test]
fn a_store_that_does_not_open_is_told_of_with_a_remedy_that_fits() {
    let site = Site::new();
    site.push_image("a/b", "v1", b"layer");
    let dir = site.close();
    let database = dir.path().join("registry.db");
    let mut bytes = std::fs::read(&database).unwrap();
    bytes[200] ^= 1;
    std::fs::write(&database, bytes).unwrap();
    let bad = outport(dir.path(), &["check"], "");
    assert_eq!(bad.status.code(), Some(1), "{bad:?}");
    assert!(complained(&bad).contains("the store cannot be opened"), "{bad:?}");
    assert!(complained(&bad).contains("outport rebuild"), "{bad:?}");
    assert!(!complained(&bad).contains("as root"), "{bad:?}");
}

#[test]
fn an_index_whose_page_the_disk_kept_as_it_was_before_is_told_of_by_a_check_and_in_the_next_boot() {
    const PAGE: usize = 4_096;
    let site = Site::new();
    site.push_image("a/b", "v1", b"one");
    let dir = site.close();
    let database = dir.path().join("registry.db");
    let root: u32 = Connection::open_with_flags(&database, OpenFlags::SQLITE_OPEN_READ_ONLY)
        .unwrap()
        .query_row("SELECT rootpage FROM sqlite_schema WHERE name = 'repo_blob_blob'", [], |row| row.get(0))
        .unwrap();
    let before = std::fs::read(&database).unwrap();
    let site = Site::resume(dir, "this boot");
    site.push_image("a/b", "v2", b"two");
    let dir = site.close();
    let database = dir.path().join("registry.db");
    assert_eq!(outport(dir.path(), &["check"], "").status.code(), Some(0));
    let mut after = std::fs::read(&database).unwrap();
    let root = usize::try_from(root).unwrap();
    let page = (root - 1) * PAGE..root * PAGE;
    after[page.clone()].copy_from_slice(&before[page]);
    std::fs::write(&database, after).unwrap();
    let bad = outport(dir.path(), &["check"], "");
    assert_eq!(bad.status.code(), Some(1), "{bad:?}");
    assert!(complained(&bad).contains("contradict each other"), "{bad:?}");
    assert!(complained(&bad).contains("outport rebuild"), "{bad:?}");
    let same_boot = Site::resume(dir, "this boot");
    assert_eq!(same_boot.registry.check_rows_of_boot().unwrap(), Vec::<String>::new());
    let another = Site::resume(same_boot.close(), "another boot");
    let told = another.registry.check_rows_of_boot().unwrap();
    assert!(told.iter().any(|line| line.contains("repo_blob_blob")), "{told:?}");
}

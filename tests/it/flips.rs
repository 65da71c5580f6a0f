//! Rot, at random: bits that flip, files that are cut, emptied, swapped or gone, in a store
//! that is being served. Whole answers are right answers, a scrub finds the rest, and a push
//! heals it. `FLIPS` says how many harms are done, `SEED` which.

use crate::harness::{Answer, Ask, Chance, Site, noise, raw, seed};
use std::collections::BTreeSet;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// One blob a size, around the 64 KiB that one checksum covers.
const SIZES: [usize; 10] = [1, 10, 4_096, 65_535, 65_536, 65_537, 131_072, 200_000, 300_001, 700_000];
/// Harms done between one scrub and the next.
const AT_ONCE: usize = 4;

struct Blob {
    digest: String,
    bytes: Vec<u8>,
}

fn flips() -> usize {
    std::env::var("FLIPS").ok().and_then(|flips| flips.parse().ok()).unwrap_or(120)
}

/// Turns bits of a file over, an odd number of them, so that one at least is wrong.
fn flip(path: &Path, chance: &mut Chance) {
    let file = std::fs::OpenOptions::new().read(true).write(true).open(path).unwrap();
    let bits = file.metadata().unwrap().len() * 8;
    // Mostly one, sometimes a few.
    let wanted = if chance.below(4) == 0 { 1 + chance.below(8) } else { 1 };
    let turned: BTreeSet<u64> = (0..wanted).map(|_| chance.below(bits)).collect();
    for bit in turned {
        let mut byte = [0];
        file.read_exact_at(&mut byte, bit / 8).unwrap();
        file.write_all_at(&[byte[0] ^ 1 << (bit % 8)], bit / 8).unwrap();
    }
}

/// Does some harm to the files of some of these blobs; says to which.
fn harm(site: &Site, blobs: &[&Blob], chance: &mut Chance) -> Vec<String> {
    let at = chance.index(blobs.len());
    let path = site.blob_path(&blobs[at].digest);
    let len = blobs[at].bytes.len() as u64;
    let open = || std::fs::OpenOptions::new().write(true).open(&path).unwrap();
    match chance.below(20) {
        0 => open().set_len(chance.below(len)).unwrap(),
        1 => open().set_len(len + 1 + chance.below(100_000)).unwrap(),
        2 => std::fs::remove_file(&path).unwrap(),
        3 => {
            // A page that reads as zeros, which noise never is.
            let page = chance.below(len.div_ceil(4_096)) * 4_096;
            let zeros = vec![0; usize::try_from((len - page).min(4_096)).unwrap()];
            open().write_all_at(&zeros, page).unwrap();
        }
        4 => {
            let other = (at + 1 + chance.index(blobs.len() - 1)) % blobs.len();
            let (theirs, between) = (site.blob_path(&blobs[other].digest), site.path("between"));
            std::fs::rename(&path, &between).unwrap();
            std::fs::rename(&theirs, &path).unwrap();
            std::fs::rename(&between, &theirs).unwrap();
            return vec![blobs[at].digest.clone(), blobs[other].digest.clone()];
        }
        _ => flip(&path, chance),
    }
    vec![blobs[at].digest.clone()]
}

/// Whether a whole answer says the truth. One that broke off says nothing, even before its
/// head was sent.
fn is_true(ask: Ask, site: &Site, expected: &[u8]) -> bool {
    let bytes = raw(site.address, &ask.bytes());
    if bytes.is_empty() {
        return true;
    }
    let (answer, _) = Answer::read(&bytes, false);
    match answer.status {
        200 | 206 => !answer.whole || answer.body == expected,
        404 => true,
        _ => false,
    }
}

/// Asks for a blob in one of the ways there are.
fn ask(site: &Site, blob: &Blob, chance: &mut Chance) {
    let target = format!("/v2/team/app/blobs/{}", blob.digest);
    match chance.below(4) {
        0 => {
            let answer = site.ask("HEAD", &target).send();
            assert!(matches!(answer.status, 200 | 404), "{answer:?}");
        }
        1 => {
            assert!(is_true(site.ask("GET", &target), site, &blob.bytes), "{}", blob.digest);
        }
        _ => {
            let first = chance.index(blob.bytes.len());
            let last = first + chance.index(blob.bytes.len() - first);
            let ask = site.ask("GET", &target).header("Range", &format!("bytes={first}-{last}"));
            assert!(is_true(ask, site, &blob.bytes[first..=last]), "{} {first}-{last}", blob.digest);
        }
    }
}

#[test]
fn no_rotten_blob_is_served_whole_and_a_scrub_finds_and_a_push_heals_each() {
    let (flips, mut chance) = (flips(), Chance::new(seed(1)));
    let site = Site::new();
    let blobs: Vec<Blob> = SIZES
        .iter()
        .zip(1..)
        .map(|(size, seed)| noise(*size, seed))
        .map(|bytes| Blob { digest: site.push_blob("team/app", &bytes), bytes })
        .collect();
    let mut done = 0;
    while done < flips {
        let mut harmed = BTreeSet::new();
        for _ in 0..AT_ONCE {
            // What is rotten already may by chance be turned right again.
            let whole: Vec<&Blob> = blobs.iter().filter(|blob| !harmed.contains(&blob.digest)).collect();
            harmed.extend(harm(&site, &whole, &mut chance));
            done += 1;
        }
        for _ in 0..AT_ONCE {
            let at = chance.index(blobs.len());
            ask(&site, &blobs[at], &mut chance);
        }
        site.registry.scrub(|_| true).unwrap();
        let wanted: BTreeSet<String> =
            site.registry.wanted(100).unwrap().into_iter().map(|row| row.digest).collect();
        assert_eq!(wanted, harmed);
        for blob in &blobs {
            let target = format!("/v2/team/app/blobs/{}", blob.digest);
            let is_rotten = harmed.contains(&blob.digest);
            assert_eq!(site.ask("HEAD", &target).send().status, if is_rotten { 404 } else { 200 });
            if is_rotten {
                site.push_blob("team/app", &blob.bytes);
                assert_eq!(site.get(&target).body, blob.bytes);
            }
        }
        assert!(site.registry.wanted(1).unwrap().is_empty());
    }
    assert_eq!(std::fs::read_dir(site.path("quarantine")).unwrap().count(), 0);
    eprintln!("{done} harms done, found and healed");
}

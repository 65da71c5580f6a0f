//! Collection beside pushes: what nothing relies on goes, and nothing else.

use crate::harness::{Chance, OCI_INDEX, Site, Wishes, manifest, noise, seed};
use outport::registry::{Collect, Collected, Gone};
use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

const GRACE: Duration = Duration::from_secs(3_600);

fn collect(site: &Site) -> Collected {
    site.registry.collect(Collect { grace: GRACE, dry_run: false }, |_| {}).unwrap()
}

fn rehearse(site: &Site) -> (Collected, Vec<Gone>) {
    let mut gone = Vec::new();
    let ask = Collect { grace: GRACE, dry_run: true };
    let collected = site.registry.collect(ask, |what| gone.push(what.clone())).unwrap();
    (collected, gone)
}

fn keeping(rules: &[&str]) -> Site {
    let mut wishes = Wishes::default();
    wishes.registry.retention = rules.iter().map(|rule| rule.parse().unwrap()).collect();
    Site::with(wishes)
}

fn status(site: &Site, method: &str, target: &str) -> u16 {
    site.ask(method, target).send().status
}

#[test]
fn a_blob_no_manifest_names_goes_after_the_grace_with_its_file_and_not_before() {
    let site = Site::new();
    let digest = site.push_blob("a/b", b"alone");
    site.hands.advance(GRACE - Duration::from_secs(1));
    assert_eq!(collect(&site), Collected::default());
    assert!(site.blob_path(&digest).exists());
    site.hands.advance(Duration::from_secs(1));
    let collected = collect(&site);
    assert_eq!((collected.blobs, collected.bytes), (1, 5));
    assert!(!site.blob_path(&digest).exists());
    assert_eq!(status(&site, "HEAD", &format!("/v2/a/b/blobs/{digest}")), 404);
    assert_eq!(std::fs::read_dir(site.path("trash")).unwrap().count(), 0);
    assert_eq!(collect(&site), Collected::default(), "once");
}

#[test]
fn what_a_manifest_names_stays_and_what_only_a_deleted_one_named_goes() {
    let site = Site::new();
    let kept = site.push_image("a/b", "v1", b"shared layer");
    let manifest_2 = site.image_of("a/b", b"another layer");
    assert_eq!(site.put_manifest("a/b", "v2", &manifest_2).status, 201);
    let gone = crate::harness::sha256(manifest_2.as_bytes());
    site.hands.advance(2 * GRACE);
    assert_eq!(collect(&site), Collected::default());
    assert_eq!(status(&site, "DELETE", &format!("/v2/a/b/manifests/{gone}")), 202);
    // The config is in both images.
    assert_eq!(collect(&site).blobs, 1);
    assert_eq!(status(&site, "GET", &format!("/v2/a/b/manifests/{kept}")), 200);
    assert_eq!(status(&site, "GET", &format!("/v2/a/b/blobs/{}", crate::harness::sha256(b"{}"))), 200);
}

#[test]
fn a_deleted_repository_gives_its_space_back_but_for_what_others_hold() {
    let site = Site::new();
    site.push_image("a/b", "v1", b"in both");
    site.push_image("c/d", "v1", b"in both");
    site.push_image("a/b", "v2", b"in one");
    site.hands.advance(2 * GRACE);
    assert_eq!(status(&site, "DELETE", "/v2/repositories/a/b/"), 202);
    assert_eq!(collect(&site).blobs, 1);
    assert_eq!(status(&site, "GET", &format!("/v2/c/d/blobs/{}", crate::harness::sha256(b"in both"))), 200);
}

#[test]
fn a_blob_a_client_was_told_of_stays_until_its_manifest_can_come() {
    let site = Site::new();
    let manifest = site.image_of("a/b", b"layer");
    site.hands.advance(2 * GRACE);
    for layer in [&b"{}"[..], b"layer"] {
        assert_eq!(status(&site, "HEAD", &format!("/v2/a/b/blobs/{}", crate::harness::sha256(layer))), 200);
    }
    assert_eq!(collect(&site), Collected { leased: 2, ..Collected::default() });
    assert_eq!(site.put_manifest("a/b", "v1", &manifest).status, 201);
    site.hands.advance(2 * GRACE);
    assert_eq!(collect(&site), Collected::default());
    assert_eq!(status(&site, "GET", "/v2/a/b/manifests/v1"), 200);
}

#[test]
fn a_blob_mounted_again_gets_its_time_again() {
    let site = Site::new();
    let digest = site.push_blob("a/b", b"layer");
    site.push_image("c/d", "v1", b"layer");
    site.hands.advance(2 * GRACE);
    assert_eq!(status(&site, "POST", &format!("/v2/e/f/blobs/uploads/?mount={digest}&from=c/d")), 201);
    collect(&site);
    assert_eq!(status(&site, "HEAD", &format!("/v2/a/b/blobs/{digest}")), 404, "it is not needed there");
    assert_eq!(status(&site, "HEAD", &format!("/v2/e/f/blobs/{digest}")), 200);
    site.hands.advance(3 * GRACE);
    collect(&site);
    assert_eq!(status(&site, "HEAD", &format!("/v2/e/f/blobs/{digest}")), 404);
    assert_eq!(status(&site, "GET", &format!("/v2/c/d/blobs/{digest}")), 200);
}

#[test]
fn an_image_pushed_by_digest_and_never_tagged_stays() {
    let site = Site::new();
    let manifest = site.image_of("a/b", b"layer");
    let digest = crate::harness::sha256(manifest.as_bytes());
    assert_eq!(site.put_manifest("a/b", &digest, &manifest).status, 201);
    site.hands.advance(1_000 * GRACE);
    assert_eq!(collect(&site), Collected::default());
}

#[test]
fn a_collection_after_a_short_grace_forgets_nobody_for_the_next_one() {
    let site = Site::new();
    let digest = site.push_image("a/b", "v1", b"layer");
    site.hands.advance(Duration::from_secs(5));
    let at_once = Collect { grace: Duration::ZERO, dry_run: false };
    assert_eq!(site.registry.collect(at_once, |_| {}).unwrap(), Collected::default());
    assert_eq!(status(&site, "DELETE", &format!("/v2/a/b/manifests/{digest}")), 202);
    assert_eq!(collect(&site), Collected::default(), "pushed within the grace");
    site.hands.advance(GRACE);
    assert_eq!(collect(&site).blobs, 2);
}

#[test]
fn a_dry_run_tells_what_would_go_and_changes_nothing() {
    let site = keeping(&["a/*:pr-* older 1d"]);
    let pr = site.push_image("a/b", "pr-1", b"a layer");
    site.push_image("a/b", "v1", b"other");
    site.push_blob("a/b", b"alone");
    site.hands.advance(Duration::from_secs(86_400));
    let (would, gone) = rehearse(&site);
    assert_eq!(would, Collected { tags: 1, images: 1, blobs: 2, bytes: 12, leased: 0 });
    let rule = "a/*:pr-* older 86400s".to_owned();
    assert!(gone.contains(&Gone::Tag { repo: "a/b".into(), tag: "pr-1".into(), rule: rule.clone() }));
    assert!(gone.contains(&Gone::Image { repo: "a/b".into(), digest: pr, rule }));
    assert_eq!(status(&site, "GET", "/v2/a/b/manifests/pr-1"), 200);
    assert_eq!(rehearse(&site).0, would, "nothing was changed");
    assert_eq!(collect(&site), would);
    assert_eq!(status(&site, "GET", "/v2/a/b/manifests/pr-1"), 404);
    assert_eq!(status(&site, "GET", "/v2/a/b/manifests/v1"), 200);
}

#[test]
fn only_the_newest_tags_are_kept_where_a_rule_says_so_by_the_order_of_pushes() {
    let site = keeping(&["ci/* keep 2"]);
    for n in 1..=4 {
        site.push_image("ci/app", &format!("b{n}"), format!("layer {n}").as_bytes());
        site.push_image("team/app", &format!("b{n}"), format!("layer {n}").as_bytes());
        site.hands.advance(GRACE);
    }
    // The oldest is pushed again: now it is the newest.
    site.push_image("ci/app", "b1", b"layer 1");
    site.hands.advance(2 * GRACE);
    assert_eq!(collect(&site).tags, 2);
    assert_eq!(site.get("/v2/ci/app/tags/list").strings("tags"), ["b1", "b4"]);
    assert_eq!(site.get("/v2/team/app/tags/list").strings("tags").len(), 4);
    assert_eq!(
        status(&site, "GET", &format!("/v2/ci/app/blobs/{}", crate::harness::sha256(b"layer 4"))),
        200
    );
}

/// An index of one image, which it returns the digests of: index, then image.
fn push_index(site: &Site, repo: &str, tag: Option<&str>, layer: &[u8]) -> (String, String) {
    let image = site.image_of(repo, layer);
    let digest = crate::harness::sha256(image.as_bytes());
    assert_eq!(site.put_manifest(repo, &digest, &image).status, 201);
    let index = format!(
        r#"{{"schemaVersion":2,"mediaType":"{OCI_INDEX}","manifests":[{{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"{digest}","size":{}}}]}}"#,
        image.len()
    );
    let index_digest = crate::harness::sha256(index.as_bytes());
    let reference = tag.unwrap_or(&index_digest);
    let put = site.ask("PUT", &format!("/v2/{repo}/manifests/{reference}")).header("Content-Type", OCI_INDEX);
    assert_eq!(put.body(index.as_bytes()).send().status, 201);
    (index_digest, digest)
}

#[test]
fn untagged_images_go_where_a_rule_says_so_but_not_the_children_and_referrers_of_tagged_ones() {
    let site = keeping(&["a/* untagged 1d"]);
    let (_, child) = push_index(&site, "a/b", Some("multi"), b"of an index");
    let (config, layer) = (site.push_blob("a/b", b"{}"), site.push_blob("a/b", b"signature"));
    let subject = format!(
        r#","subject":{{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"{child}","size":1}}"#
    );
    let signature = manifest(&config, 2, &[(&layer, 9)], &subject);
    let signed = crate::harness::sha256(signature.as_bytes());
    assert_eq!(site.put_manifest("a/b", &signed, &signature).status, 201);
    let (untagged, its_child) = push_index(&site, "a/b", None, b"of nobody");
    site.hands.advance(Duration::from_secs(86_400));
    // Younger than the rule asks, so its old child stays as well.
    let (young, _) = push_index(&site, "a/b", None, b"of the young");
    let collected = collect(&site);
    assert_eq!((collected.tags, collected.images, collected.blobs), (0, 2, 1));
    for (digest, expected) in
        [(&child, 200), (&signed, 200), (&young, 200), (&untagged, 404), (&its_child, 404)]
    {
        assert_eq!(status(&site, "GET", &format!("/v2/a/b/manifests/{digest}")), expected, "{digest}");
    }
}

#[test]
fn with_a_tag_goes_its_index_and_all_below_it_but_for_what_another_tag_reaches() {
    let site = keeping(&["a/b:old older 1d"]);
    let (_, old) = push_index(&site, "a/b", Some("old"), b"one");
    let (_, both) = push_index(&site, "a/b", Some("older-but-kept"), b"two");
    site.hands.advance(2 * Duration::from_secs(86_400));
    let collected = collect(&site);
    assert_eq!((collected.tags, collected.images, collected.blobs), (1, 2, 1));
    assert_eq!(status(&site, "GET", &format!("/v2/a/b/manifests/{old}")), 404);
    assert_eq!(status(&site, "GET", &format!("/v2/a/b/manifests/{both}")), 200);
}

#[test]
fn a_clock_that_jumps_deletes_nothing() {
    // Service time is what the monotonic clock says since the start, on top of what was
    // written down: restarts cannot bring it forward.
    let mut site = keeping(&["* untagged 1d", "*:* older 1d"]);
    let digest = site.push_image("a/b", "v1", b"layer");
    for _ in 0..5 {
        site = site.restart();
        site.registry.collect(Collect { grace: GRACE, dry_run: false }, |_| {}).unwrap();
    }
    assert_eq!(status(&site, "GET", &format!("/v2/a/b/manifests/{digest}")), 200);
}

#[test]
fn rules_that_do_not_parse_are_refused_with_an_example() {
    for bad in [
        "",
        "a/b",
        "a/b keep",
        "a/b keep x",
        "a/b older 5",
        "a/b older 5w",
        "a/b:x untagged 1d",
        "[a]/* keep 1",
        "a/b keep -1",
        "a b keep 1",
    ] {
        let error = bad.parse::<outport::registry::Rule>().unwrap_err();
        assert!(error.detail().contains("older 14d"), "{bad}: {error}");
    }
    for good in ["nginx keep 3", "* untagged 7d", "ci/*:pr-* older 14d", "a/b:v? keep 0"] {
        assert!(good.parse::<outport::registry::Rule>().is_ok(), "{good}");
    }
}

#[test]
fn no_acknowledged_image_loses_a_blob_and_no_push_is_refused_while_a_collector_runs_all_the_time() {
    stress(4, |rounds, _| rounds >= 20, Duration::ZERO);
}

#[test]
#[ignore = "runs for SECS seconds, 600 unless it says otherwise"]
fn eight_pushers_for_ten_minutes_lose_nothing_to_a_collector_every_50_ms() {
    let secs = std::env::var("SECS").ok().and_then(|secs| secs.parse().ok()).unwrap_or(600);
    stress(8, |_, elapsed| elapsed >= Duration::from_secs(secs), Duration::from_millis(50));
}

/// An image that was acknowledged and not yet asked to be deleted: its repository, its blobs.
type Promised = Mutex<HashMap<String, (String, Vec<String>)>>;

/// Pushers, who also delete, a verifier and a collector at once, until each pusher has done
/// enough.
///
/// Time goes on with every push, so that what was deleted a few dozen pushes ago is collected;
/// but no further than half a grace beyond the beginning of any push that is under way.
fn stress(pushers: u64, enough: impl Fn(u64, Duration) -> bool + Sync, rest: Duration) {
    let seed = seed(1);
    let site = Site::new();
    let promised = Promised::default();
    let now = Mutex::new((Duration::ZERO, vec![Duration::ZERO; usize::try_from(pushers).unwrap()]));
    let (collected, pushed, verified) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
    let (started, done) = (Instant::now(), AtomicBool::new(false));
    let (end, ended) = mpsc::channel::<()>();
    std::thread::scope(|scope| {
        let collecting = scope.spawn(|| {
            let ended = ended;
            while ended.recv_timeout(rest) == Err(RecvTimeoutError::Timeout) {
                collected.fetch_add(collect(&site).blobs, Ordering::SeqCst);
            }
        });
        let verifying = scope.spawn(|| {
            let mut chance = Chance::new(seed);
            while !done.load(Ordering::SeqCst) {
                verified.fetch_add(verify(&site, &promised, &mut chance), Ordering::SeqCst);
            }
        });
        let pushing: Vec<_> = (0..pushers)
            .map(|n| {
                let (site, promised, now, enough, pushed) = (&site, &promised, &now, &enough, &pushed);
                scope.spawn(move || {
                    let mut chance = Chance::new(seed * 1_000 + n);
                    let repo = format!("team/app{}", n % 2);
                    for round in 0.. {
                        {
                            let mut now = now.lock().unwrap();
                            now.1[usize::try_from(n).unwrap()] = now.0;
                            let oldest = *now.1.iter().min().unwrap();
                            if now.0 - oldest < GRACE / 2 {
                                now.0 += GRACE / 20;
                                site.hands.advance(GRACE / 20);
                            }
                        }
                        if enough(round, started.elapsed()) {
                            break;
                        }
                        push_and_delete(site, promised, &repo, n * 1_000_000 + round, &mut chance);
                        pushed.fetch_add(1, Ordering::SeqCst);
                    }
                    // Whoever pushes no more is waited for no more.
                    now.lock().unwrap().1[usize::try_from(n).unwrap()] = Duration::MAX;
                })
            })
            .collect();
        let ended: Vec<_> = pushing.into_iter().map(std::thread::ScopedJoinHandle::join).collect();
        done.store(true, Ordering::SeqCst);
        drop(end);
        assert!(ended.iter().all(Result::is_ok), "a pusher failed");
        assert!(verifying.join().is_ok(), "an acknowledged image was broken");
        assert!(collecting.join().is_ok(), "a collection failed");
    });
    let [pushed, verified, collected] = [pushed, verified, collected].map(AtomicU64::into_inner);
    eprintln!("{pushed} images pushed, {verified} looks at them, {collected} blobs collected");
    assert!(collected > 0 && verified > 0);
}

/// One image of a layer that is new, one that others push and delete as well, or one that
/// another repository may have; and often the end of another image.
fn push_and_delete(site: &Site, promised: &Promised, repo: &str, mark: u64, chance: &mut Chance) {
    let layer = match chance.below(3) {
        0 => noise(2_000, 1_000 + mark),
        _ => noise(2_000, chance.below(16)),
    };
    let digest = crate::harness::sha256(&layer);
    if chance.below(3) == 0 {
        let other = if repo.ends_with('0') { "team/app1" } else { "team/app0" };
        let mount = status(site, "POST", &format!("/v2/{repo}/blobs/uploads/?mount={digest}&from={other}"));
        assert!(matches!(mount, 201 | 202), "{mount}");
    }
    let image = push_as_docker_does(site, repo, &layer, mark);
    let blobs = vec![digest, crate::harness::sha256(b"{}")];
    for blob in &blobs {
        let answer = site.get(&format!("/v2/{repo}/blobs/{blob}"));
        assert_eq!(answer.status, 200, "a blob of an acknowledged image: {answer:?}");
    }
    promised.lock().unwrap().insert(image, (repo.to_owned(), blobs));
    let gone = {
        let mut promised = promised.lock().unwrap();
        // Few stay, so that their layers come and go.
        let too_many = promised.len() > 8;
        let one = promised.keys().nth(chance.index(promised.len())).cloned();
        one.filter(|_| too_many).and_then(|digest| promised.remove_entry(&digest))
    };
    if let Some((digest, (repo, _))) = gone {
        assert_eq!(status(site, "DELETE", &format!("/v2/{repo}/manifests/{digest}")), 202);
    }
}

/// Looks at one acknowledged image, whole; says how many it looked at.
fn verify(site: &Site, promised: &Promised, chance: &mut Chance) -> u64 {
    let picked = {
        let promised = promised.lock().unwrap();
        let at = if promised.is_empty() { 0 } else { chance.index(promised.len()) };
        promised.iter().nth(at).map(|(digest, image)| (digest.clone(), image.clone()))
    };
    let Some((digest, (repo, blobs))) = picked else { return 0 };
    let targets = blobs.iter().map(|blob| format!("blobs/{blob}"));
    for target in targets.chain([format!("manifests/{digest}")]) {
        let answer = site.get(&format!("/v2/{repo}/{target}"));
        let right = answer.status == 200 && target.ends_with(&crate::harness::sha256(&answer.body));
        let is_promised = promised.lock().unwrap().contains_key(&digest);
        assert!(right || !is_promised, "{target} of an acknowledged image: {answer:?}");
    }
    1
}

/// HEAD, upload what is missing, then the manifest: which must be taken at once.
fn push_as_docker_does(site: &Site, repo: &str, layer: &[u8], mark: u64) -> String {
    for blob in [&b"{}"[..], layer] {
        if status(site, "HEAD", &format!("/v2/{repo}/blobs/{}", crate::harness::sha256(blob))) == 404 {
            site.push_blob(repo, blob);
        }
    }
    let layer_digest = crate::harness::sha256(layer);
    let more = format!(r#","annotations":{{"mark":"{mark}"}}"#);
    let manifest = manifest(&crate::harness::sha256(b"{}"), 2, &[(&layer_digest, layer.len())], &more);
    let answer = site.put_manifest(repo, &format!("t{mark}"), &manifest);
    assert_eq!(answer.status, 201, "{answer:?}");
    crate::harness::sha256(manifest.as_bytes())
}

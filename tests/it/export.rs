//! Images on their way out.

use crate::harness::{OCI_INDEX, Site, manifest, noise, sha256};
use crate::import::import;
use outport::bundle::{Document, Inventory, Layout};
use outport::error::{Kind, Result, Thing};
use outport::manifest::Platform;
use outport::names::{Digest, Reference, RepoName};
use outport::registry::{Choose, ImagePattern, Piece, Registry};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::Read;

const PLAIN: Choose = Choose { platforms: Vec::new(), referrers: true };

/// Lays out what is chosen.
fn laid_out(
    registry: &Registry,
    images: &[&str],
    choose: &Choose,
    have: Option<&Inventory>,
) -> Result<Layout> {
    let images: Vec<ImagePattern> = images.iter().map(|image| ImagePattern::parse(image).unwrap()).collect();
    Layout::bundle(registry.choose(&images, choose, &|_| Ok(true))?, have, None, None)
}

/// The bytes of a stream.
fn poured(registry: &Registry, layout: Layout) -> Result<Vec<u8>> {
    let (mut bytes, all) = (Vec::new(), layout.bytes);
    let mut export = registry.export(layout, None);
    while let Some(piece) = registry.export_piece(&mut export, Piece::Small)? {
        bytes.extend_from_slice(&piece);
    }
    assert_eq!(bytes.len() as u64, all, "as long as was said");
    Ok(bytes)
}

fn export(registry: &Registry, images: &[&str]) -> Vec<u8> {
    poured(registry, laid_out(registry, images, &PLAIN, None).unwrap()).unwrap()
}

/// The entries of a tar stream, in order.
fn entries(bytes: &[u8]) -> Vec<(String, Vec<u8>)> {
    let mut archive = tar::Archive::new(bytes);
    let mut all = Vec::new();
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        let path = entry.path().unwrap().to_str().unwrap().to_owned();
        let mut content = Vec::new();
        entry.read_to_end(&mut content).unwrap();
        all.push((path, content));
    }
    all
}

fn json_of(entries: &[(String, Vec<u8>)], path: &str) -> Value {
    let (_, content) = entries.iter().find(|(name, _)| name == path).expect(path);
    serde_json::from_slice(content).unwrap()
}

/// Pushes an image of a platform without a tag; returns its manifest's digest.
fn push_platform(site: &Site, repo: &str, architecture: &str, seed: u64) -> String {
    let config = json!({"os": "linux", "architecture": architecture}).to_string();
    let (layer, config_digest) = (noise(2_000, seed), site.push_blob(repo, config.as_bytes()));
    let layer_digest = site.push_blob(repo, &layer);
    let text = manifest(&config_digest, config.len(), &[(&layer_digest, layer.len())], "");
    let digest = sha256(text.as_bytes());
    assert_eq!(site.put_manifest(repo, &digest, &text).status, 201);
    digest
}

/// An index for amd64 and arm64, with something that is about the second.
fn push_multi(site: &Site, repo: &str, tag: &str) -> (String, Vec<String>, String) {
    let children = vec![push_platform(site, repo, "amd64", 1), push_platform(site, repo, "arm64", 2)];
    let rows: Vec<Value> = children
        .iter()
        .zip(["amd64", "arm64"])
        .map(|(digest, architecture)| {
            json!({"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digest, "size": 400,
                   "platform": {"os": "linux", "architecture": architecture}})
        })
        .collect();
    let index = json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": rows}).to_string();
    let answer = site.ask("PUT", &format!("/v2/{repo}/manifests/{tag}"));
    assert_eq!(answer.header("Content-Type", OCI_INDEX).body(index.as_bytes()).send().status, 201);
    let signature = site.push_blob(repo, b"signature");
    let empty = site.push_blob(repo, b"{}");
    let subject = format!(
        r#","subject":{{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"{}","size":400}},"artifactType":"application/x-signature""#,
        children[1]
    );
    let about = manifest(&empty, 2, &[(&signature, 9)], &subject);
    let about_digest = sha256(about.as_bytes());
    assert_eq!(site.put_manifest(repo, &about_digest, &about).status, 201);
    (sha256(index.as_bytes()), children, about_digest)
}

#[test]
fn a_bundle_begins_with_its_document_and_is_the_same_each_time() {
    let site = Site::new();
    let digest = site.push_image("acme/app", "1.0", &noise(300_000, 1));
    let bytes = export(&site.registry, &["acme/app:1.0"]);
    assert_eq!(bytes, export(&site.registry, &["acme/app:1.0"]));
    let found = entries(&bytes);
    let names: Vec<&str> = found.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names[..4], ["oci-layout", "outport/bundle.json", "index.json", "manifest.json"]);
    assert_eq!(names.len(), 4 + 3);
    let document = Document::read(&found[1].1).unwrap();
    assert_eq!(document.manifests[0].digest.as_str(), digest);
    assert_eq!((document.blobs.len(), document.sent, document.made), (2, None, None));
    for (name, content) in &found[4..] {
        assert_eq!(name.replace("blobs/sha256/", "sha256:"), sha256(content));
    }
    let index = json_of(&found, "index.json");
    assert_eq!(index["manifests"][0]["annotations"]["io.containerd.image.name"], "acme/app:1.0");
    assert_eq!(index["manifests"][0]["annotations"]["org.opencontainers.image.ref.name"], "1.0");
}

#[test]
fn globs_and_digests_choose_and_what_matches_nothing_is_named() {
    let site = Site::new();
    for (repo, tag, seed) in
        [("acme/app", "1.0", 1), ("acme/app", "2.0", 2), ("acme/web", "1", 3), ("nginx", "1", 4)]
    {
        site.push_image(repo, tag, &noise(500, seed));
    }
    let tags = |images: &[&str]| -> Vec<String> {
        let layout = laid_out(&site.registry, images, &PLAIN, None).unwrap();
        layout.document.tags.iter().map(|line| format!("{}:{}", line.repo, line.tag)).collect()
    };
    assert_eq!(tags(&["acme/app:1.*"]), ["acme/app:1.0"]);
    assert_eq!(tags(&["acme/app"]), ["acme/app:1.0", "acme/app:2.0"]);
    assert_eq!(tags(&["acme/*"]), ["acme/app:1.0", "acme/app:2.0", "acme/web:1"]);
    assert_eq!(tags(&["ng*:1", "acme/web"]), ["acme/web:1", "library/nginx:1"]);
    let digest = site.get("/v2/acme/app/manifests/1.0").header("docker-content-digest").unwrap().to_owned();
    let layout = laid_out(&site.registry, &[&format!("acme/app@{digest}")], &PLAIN, None).unwrap();
    assert_eq!((layout.document.tags.len(), layout.document.manifests.len()), (0, 1));
    for nothing in ["acme/none", "acme/app:3", "other/*", "acme/app:9*"] {
        let error = laid_out(&site.registry, &["acme/app", nothing], &PLAIN, None).unwrap_err();
        assert_eq!(error.kind, Kind::NotFound(Thing::Manifest));
        assert!(error.detail().contains(nothing), "{error}");
    }
}

#[test]
fn an_index_comes_whole_with_what_is_about_its_images_and_its_children_first() {
    let site = Site::new();
    let (index, children, about) = push_multi(&site, "acme/app", "1");
    let bytes = export(&site.registry, &["acme/app:1"]);
    let document = Document::read(&entries(&bytes)[1].1).unwrap();
    let digests: Vec<&str> = document.manifests.iter().map(|line| line.digest.as_str()).collect();
    assert_eq!(digests, [&children[0], &children[1], &about, &index]);
    let elsewhere = Site::new();
    import(&elsewhere.registry, &bytes).unwrap();
    for digest in digests {
        let answer = elsewhere.get(&format!("/v2/acme/app/manifests/{digest}"));
        assert_eq!(sha256(&answer.body), digest);
    }
    let listed = elsewhere.get(&format!("/v2/acme/app/referrers/{}", children[1])).json();
    assert_eq!(listed["manifests"][0]["digest"], about.as_str());
    let without = Choose { referrers: false, ..PLAIN };
    let layout = laid_out(&site.registry, &["acme/app:1"], &without, None).unwrap();
    assert_eq!(layout.document.manifests.len(), 3);
}

#[test]
fn tags_of_older_tools_for_signatures_come_with_their_image() {
    let site = Site::new();
    let digest = site.push_image("acme/app", "1", &noise(500, 1));
    let signature = format!("{}.sig", digest.replace(':', "-"));
    site.push_image("acme/app", &signature, &noise(100, 2));
    site.push_image("acme/app", &format!("sha256-{}.sig", "0".repeat(64)), &noise(100, 3));
    let tags = |choose: &Choose, image: &str| -> Vec<String> {
        let layout = laid_out(&site.registry, &[image], choose, None).unwrap();
        layout.document.tags.iter().map(|line| line.tag.to_string()).collect()
    };
    assert_eq!(tags(&PLAIN, "acme/app:1"), ["1".to_owned(), signature]);
    assert_eq!(tags(&Choose { referrers: false, ..PLAIN }, "acme/app"), ["1"]);
}

#[test]
fn one_platform_of_an_index_keeps_the_index_as_it_is() {
    let site = Site::new();
    let (index, children, _) = push_multi(&site, "acme/app", "1");
    let choose = Choose { platforms: vec![Platform::parse("linux/arm64").unwrap()], referrers: false };
    let layout = laid_out(&site.registry, &["acme/app:1"], &choose, None).unwrap();
    let digests: Vec<&str> = layout.document.manifests.iter().map(|line| line.digest.as_str()).collect();
    assert_eq!(digests, [&children[1], &index]);
    assert_eq!(layout.document.blobs.len(), 2);
    let other = Choose { platforms: vec![Platform::parse("linux/s390x").unwrap()], referrers: true };
    for image in ["acme/app:1".to_owned(), "acme/*".to_owned(), format!("acme/app@{}", children[0])] {
        let error = laid_out(&site.registry, &[&image], &other, None).unwrap_err();
        assert!(error.detail().contains("platforms"), "{error}");
    }
}

#[test]
fn a_delta_carries_what_is_missing_and_names_the_rest() {
    let (outside, site) = (Site::new(), Site::new());
    let layers: Vec<Vec<u8>> = (0..6).map(|seed| noise(200_000, seed)).collect();
    let push = |tag: &str, layers: &[&Vec<u8>]| {
        let config = json!({"version": tag}).to_string();
        let config_digest = outside.push_blob("acme/app", config.as_bytes());
        let rows: Vec<(String, usize)> =
            layers.iter().map(|layer| (outside.push_blob("acme/app", layer), layer.len())).collect();
        let rows: Vec<(&str, usize)> = rows.iter().map(|(digest, len)| (digest.as_str(), *len)).collect();
        let text = manifest(&config_digest, config.len(), &rows, "");
        assert_eq!(outside.put_manifest("acme/app", tag, &text).status, 201);
        sha256(text.as_bytes())
    };
    push("1", &layers[..5].iter().collect::<Vec<_>>());
    import(&site.registry, &export(&outside.registry, &["acme/app:1"])).unwrap();
    let second = push("2", &[&layers[0], &layers[1], &layers[2], &layers[3], &layers[5]]);
    let have = Inventory::read(&site.registry.inventory().unwrap().bytes().unwrap()).unwrap();
    let layout = laid_out(&outside.registry, &["acme/app:2"], &PLAIN, Some(&have)).unwrap();
    assert_eq!((layout.document.blobs.len(), layout.document.base.blobs.len()), (2, 4));
    assert!(layout.bytes < 200_000 + 10_000, "{}", layout.bytes);
    let delta = poured(&outside.registry, layout).unwrap();
    assert!(!entries(&delta).iter().any(|(name, _)| name == "manifest.json"));
    let nowhere = Site::new();
    assert_eq!(import(&nowhere.registry, &delta).unwrap_err().kind, Kind::BlobMissing);
    import(&site.registry, &delta).unwrap();
    assert_eq!(sha256(&site.get("/v2/acme/app/manifests/2").body), second);
    let needed = |registry: &Registry| {
        let images = [ImagePattern::parse("acme/app").unwrap()];
        registry.choose(&images, &PLAIN, &|_| Ok(true)).unwrap().inventory().unwrap()
    };
    assert_eq!(needed(&site.registry), needed(&outside.registry));
}

#[test]
fn a_damaged_blob_fails_the_export_by_name_and_is_out_of_service() {
    let site = Site::new();
    let layer = noise(300_000, 1);
    site.push_image("acme/app", "1", &layer);
    let layout = laid_out(&site.registry, &["acme/app:1"], &PLAIN, None).unwrap();
    let digest = sha256(&layer);
    let mut damaged = layer.clone();
    damaged[200_000] ^= 1;
    std::fs::write(site.blob_path(&digest), &damaged).unwrap();
    let error = poured(&site.registry, layout).unwrap_err();
    assert!(error.detail().contains(&digest), "{error}");
    assert_eq!(site.get(&format!("/v2/acme/app/blobs/{digest}")).status, 404);
    let error = laid_out(&site.registry, &["acme/app:1"], &PLAIN, None).unwrap_err();
    assert!(error.detail().contains(&digest), "before the first byte: {error}");
}

#[test]
fn nothing_is_collected_while_a_process_exports() {
    use outport::registry::Collect;
    use std::time::Duration;
    let site = Site::new();
    let digest = site.push_image("acme/app", "1", &noise(500, 1));
    let stays = site.registry.stays().unwrap();
    let layout = laid_out(&site.registry, &["acme/app:1"], &PLAIN, None).unwrap();
    let repo = RepoName::parse("acme/app").unwrap();
    let reference = Reference::Digest(Digest::parse(&digest).unwrap());
    site.hands.advance(Duration::from_secs(1_000_000));
    let ask = Collect { grace: Duration::ZERO, dry_run: false };
    let export = site.registry.export(layout, Some(stays));
    site.registry.manifest_delete(&repo, &reference).unwrap();
    assert_eq!(site.registry.collect(ask, |_| {}).unwrap_err().kind, Kind::Unavailable);
    drop(export);
    assert_eq!(site.registry.collect(ask, |_| {}).unwrap().blobs, 2);
}

#[test]
fn an_export_that_takes_hours_is_whole_although_its_image_is_deleted_and_collections_run() {
    use outport::registry::Collect;
    use std::time::Duration;
    let site = Site::new();
    let first = site.push_blob("acme/app", &noise(300_000, 1));
    let second = site.push_blob("acme/app", &noise(300_001, 2));
    let config = site.push_blob("acme/app", b"{}");
    let text = manifest(&config, 2, &[(&first, 300_000), (&second, 300_001)], "");
    assert_eq!(site.put_manifest("acme/app", "1", &text).status, 201);
    let whole = export(&site.registry, &["acme/app:1"]);

    let mut export =
        site.registry.export(laid_out(&site.registry, &["acme/app:1"], &PLAIN, None).unwrap(), None);
    let mut bytes = Vec::new();
    let collect = || {
        let ask = Collect { grace: Duration::from_secs(3_600), dry_run: false };
        site.registry.collect(ask, |_| {}).unwrap().blobs
    };
    while let Some(piece) = site.registry.export_piece(&mut export, Piece::Small).unwrap() {
        bytes.extend_from_slice(&piece);
        if bytes.len() > 10_000 {
            let repo = RepoName::parse("acme/app").unwrap();
            let reference = Reference::Digest(Digest::parse(&sha256(text.as_bytes())).unwrap());
            // Once: afterwards it is gone already.
            let _ = site.registry.manifest_delete(&repo, &reference);
            site.hands.advance(Duration::from_secs(1_500));
            collect();
        }
    }
    assert!(bytes == whole);
    site.hands.advance(Duration::from_secs(10_000));
    assert!(collect() > 0, "what nobody needs goes once nobody reads it");
}

#[test]
fn a_docker_archive_holds_one_platform_of_each_image_or_says_what_to_do() {
    let site = Site::new();
    push_multi(&site, "acme/app", "1");
    let chosen = |choose: &Choose| {
        let images = [ImagePattern::parse("acme/app:1").unwrap()];
        Layout::docker_archive(site.registry.choose(&images, choose, &|_| Ok(true)).unwrap())
    };
    let error = chosen(&Choose { referrers: false, ..PLAIN }).unwrap_err();
    assert!(error.detail().contains("--platform"), "{error}");
    let one = Choose { platforms: vec![Platform::parse("linux/arm64").unwrap()], referrers: false };
    let found: BTreeMap<String, Vec<u8>> =
        entries(&poured(&site.registry, chosen(&one).unwrap()).unwrap()).into_iter().collect();
    let list: Value = serde_json::from_slice(&found["manifest.json"]).unwrap();
    assert_eq!(list[0]["RepoTags"], json!(["acme/app:1"]));
    assert!(found.contains_key(list[0]["Config"].as_str().unwrap()));
    assert_eq!(found.len(), 3);
}

#[test]
fn over_http_who_may_not_pull_learns_nothing_and_others_get_the_same_bytes() {
    let site = Site::new();
    site.add_user("carol");
    site.push_image("acme/secret", "1", &noise(300_000, 1));
    let answer = site.get("/export?image=acme/secret");
    assert_eq!((answer.status, answer.body), (200, export(&site.registry, &["acme/secret"])));
    assert_eq!(site.ask("GET", "/export?image=acme/secret").by_nobody().send().status, 401);
    let hidden = site.ask("GET", "/export?image=acme/secret").by("carol").send();
    let absent = site.ask("GET", "/export?image=acme/absent").by("carol").send();
    assert_eq!((hidden.status, absent.status), (403, 403));
    assert_eq!(hidden.json()["error"], absent.json()["error"]);
    assert_eq!(site.ask("GET", "/export?image=acme/*").by("carol").send().status, 404);
    assert_eq!(site.ask("GET", "/inventory?image=*").by("carol").send().status, 404);
    assert_eq!(site.get("/export").status, 400);
    assert_eq!(site.get("/export?image=acme/none").status, 404);
    let listed = |answer: crate::harness::Answer| Inventory::read(&answer.body).unwrap().len();
    assert_eq!(listed(site.get("/inventory")), 2);
    assert_eq!(listed(site.ask("GET", "/inventory").by("carol").send()), 0);
}

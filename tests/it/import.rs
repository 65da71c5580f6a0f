//! Archives, taken in.

use crate::archives::{
    Image, Tarball, blob_path, bundle, bundle_by, docker_save, gzip, index, key, layout, zstd,
};
use crate::harness::{OCI_INDEX, OCI_MANIFEST, Site, noise, sha256};
use outport::archive::{self, Naming};
use outport::error::{Kind, Result};
use outport::names::{RepoName, Tag};
use outport::registry::{Allow, Arrived, ImportAsk, Registry};
use serde_json::json;
use std::path::Path;

/// Imports a stream.
pub fn import(registry: &Registry, bytes: &[u8]) -> Result<Arrived> {
    import_as(registry, bytes, Naming::default())
}

pub fn dry_run(registry: &Registry, bytes: &[u8]) -> Result<Arrived> {
    import_by(registry, bytes, ImportAsk { dry_run: true, ..ImportAsk::default() })
}

fn import_as(registry: &Registry, bytes: &[u8], naming: Naming) -> Result<Arrived> {
    import_by(registry, bytes, ImportAsk { naming, ..ImportAsk::default() })
}

fn import_by(registry: &Registry, bytes: &[u8], ask: ImportAsk) -> Result<Arrived> {
    let mut import = registry.import_begin(ask, |_| {})?;
    let archive = archive::read(bytes, &mut import)?;
    import.finish(&archive, "a stream", |_| Ok(()))
}

fn import_path(registry: &Registry, path: &Path) -> Result<Arrived> {
    let mut import = registry.import_begin(ImportAsk::default(), |_| {})?;
    let archive = archive::read_path(path, &mut import)?;
    import.finish(&archive, "a file", |_| Ok(()))
}

fn named(repo: &str, tag: Option<&str>) -> Naming {
    Naming {
        repo: Some(RepoName::parse(repo).unwrap()),
        tag: tag.map(|tag| Tag::parse(tag).unwrap()),
        prefix: None,
    }
}

/// An image with two layers of noise.
pub fn image(seed: u64) -> Image {
    Image::of(&[&noise(70_000, seed), &noise(300, seed + 1)])
}

/// That an image is pulled whole, each byte as it was.
pub fn is_pulled(site: &Site, repo: &str, reference: &str, image: &Image) {
    let answer = site.get(&format!("/v2/{repo}/manifests/{reference}"));
    assert_eq!(answer.status, 200);
    assert_eq!(answer.body, image.manifest.as_bytes());
    for (path, bytes) in &image.blobs()[1..] {
        let digest = path["blobs/".len()..].replace('/', ":");
        let answer = site.get(&format!("/v2/{repo}/blobs/{digest}"));
        assert_eq!((answer.status, answer.body), (200, bytes.clone()));
    }
}

#[test]
fn a_layout_is_imported_whatever_the_order_of_its_entries_and_however_it_is_compressed() {
    let site = Site::new();
    for (at, index_first) in [(0, true), (1, false)] {
        let image = image(at * 10);
        let tar = layout(&[(&image, "registry.example:5000/acme/app:1.0")], index_first).end();
        for bytes in [tar.clone(), gzip(&tar), zstd(&tar), [zstd(&tar[..700]), zstd(&tar[700..])].concat()] {
            let arrived = import(&site.registry, &bytes).unwrap();
            assert_eq!((arrived.images, arrived.tags.len()), (1, 1));
        }
        is_pulled(&site, "acme/app", "1.0", &image);
    }
}

#[test]
fn what_is_here_already_is_not_written_again() {
    let site = Site::new();
    let (first, tar) = (image(1), layout(&[(&image(1), "acme/app:1")], true).end());
    let arrived = import(&site.registry, &tar).unwrap();
    assert_eq!((arrived.brought.blobs_new, arrived.brought.blobs_here), (4, 0));
    let inode = || {
        use std::os::unix::fs::MetadataExt;
        std::fs::metadata(site.blob_path(&sha256(&first.layers[0]))).unwrap().ino()
    };
    let before = inode();
    let arrived = import(&site.registry, &tar).unwrap();
    assert_eq!((arrived.brought.blobs_new, arrived.brought.blobs_here), (1, 3), "but for the manifest");
    assert_eq!(inode(), before);
    assert_eq!(arrived.id, None, "no tag was moved");
}

#[test]
fn what_an_archive_holds_twice_is_written_once() {
    let (site, image) = (Site::new(), image(1));
    let tar = layout(&[(&image, "acme/app:1")], true).file("again/layer.tar", &image.layers[0]).end();
    let arrived = import(&site.registry, &tar).unwrap();
    assert_eq!((arrived.brought.blobs_new, arrived.brought.blobs_here), (4, 1));
    is_pulled(&site, "acme/app", "1", &image);
}

#[test]
fn docker_save_keeps_the_digests_of_its_layers_and_its_config() {
    let site = Site::new();
    let layer = noise(5_000, 3);
    let image = Image::of(&[&layer, &noise(100, 4), &layer]);
    let tar = docker_save(&image, &["docker.io/library/app:1", "app:2", "localhost:5000/acme/app:3"]).end();
    let arrived = import(&site.registry, &tar).unwrap();
    assert_eq!(arrived.tags.len(), 3);
    let digest = arrived.tags[0].digest.as_str().to_owned();
    for (repo, tag) in [("app", "1"), ("library/app", "2"), ("acme/app", "3")] {
        let answer = site.get(&format!("/v2/{repo}/manifests/{tag}"));
        assert_eq!(answer.header("docker-content-digest"), Some(digest.as_str()));
        let manifest = answer.json();
        assert_eq!(manifest["mediaType"], "application/vnd.docker.distribution.manifest.v2+json");
        assert_eq!(manifest["config"]["digest"], sha256(&image.config));
        assert_eq!(manifest["layers"][2]["digest"], sha256(&layer));
        assert_eq!(manifest["layers"][0]["mediaType"], "application/vnd.docker.image.rootfs.diff.tar");
    }
    // Again, and on another machine, it is the same manifest.
    let other = Site::new();
    assert_eq!(import(&other.registry, &gzip(&tar)).unwrap().tags[0].digest.as_str(), digest);
}

#[test]
fn docker_save_from_before_there_were_configs_gets_one() {
    let site = Site::new();
    let layers = [noise(2_000, 5), noise(1_000, 6)];
    let json = |id: &str, parent: &str| {
        json!({
            "id": id, "parent": parent, "created": "2014-01-01T00:00:00Z", "os": "linux", "architecture": "amd64",
            "container_config": {"Cmd": ["/bin/sh", "-c", "true"]}, "config": {"Env": ["A=b"]},
        })
        .to_string()
    };
    let tar = Tarball::default()
        .file("bb/json", json("bb", "aa").as_bytes())
        .file("bb/layer.tar", &layers[1])
        .file("aa/json", json("aa", "").as_bytes())
        .file("aa/layer.tar", &layers[0])
        .file("repositories", br#"{"acme/old":{"1":"bb"}}"#)
        .end();
    import(&site.registry, &tar).unwrap();
    let manifest = site.get("/v2/acme/old/manifests/1").json();
    assert_eq!(manifest["layers"][1]["digest"], sha256(&layers[1]));
    let config = manifest["config"]["digest"].as_str().unwrap();
    let config = site.get(&format!("/v2/acme/old/blobs/{config}")).json();
    assert_eq!(config["rootfs"]["diff_ids"][0], sha256(&layers[0]));
    assert_eq!(config["history"][0]["created_by"], "/bin/sh -c true");
    assert_eq!(config["config"]["Env"][0], "A=b");
    assert!(config.get("parent").is_none());
}

#[test]
fn an_index_comes_with_its_images_and_what_is_about_them() {
    let site = Site::new();
    let (one, two) = (image(20), image(30));
    let absent = sha256(b"of another platform");
    let list = json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [
        {"mediaType": OCI_MANIFEST, "digest": one.digest(), "size": one.manifest.len()},
        {"mediaType": OCI_MANIFEST, "digest": two.digest(), "size": two.manifest.len()},
        {"mediaType": OCI_MANIFEST, "digest": absent, "size": 7},
    ]})
    .to_string();
    let mut signature = Image::of(&[b"a signature"]);
    signature.manifest = signature.manifest.replacen(
        '{',
        &format!(
            r#"{{"subject":{{"mediaType":"{}","digest":"{}","size":{}}},"#,
            OCI_INDEX,
            sha256(list.as_bytes()),
            list.len()
        ),
        1,
    );
    let mut tar = Tarball::default();
    for (path, bytes) in [&one, &two, &signature].into_iter().flat_map(Image::blobs) {
        tar = tar.file(&path, &bytes);
    }
    let mut about = signature.descriptor("");
    about.as_object_mut().unwrap().remove("annotations");
    let listed = index(&[
        about,
        json!({"mediaType": OCI_INDEX, "digest": sha256(list.as_bytes()), "size": list.len(),
            "annotations": {"io.containerd.image.name": "docker.io/acme/many:1",
                "org.opencontainers.image.ref.name": "1"}}),
    ]);
    let tar = tar
        .file(&blob_path(&sha256(list.as_bytes())), list.as_bytes())
        .file("index.json", &listed)
        .file("oci-layout", crate::archives::LAYOUT)
        .end();
    let arrived = import(&site.registry, &tar).unwrap();
    assert_eq!(arrived.absent.len(), 1);
    assert_eq!(site.get("/v2/acme/many/manifests/1").body, list.as_bytes());
    is_pulled(&site, "acme/many", &two.digest(), &two);
    let referrers = site.get(&format!("/v2/acme/many/referrers/{}", sha256(list.as_bytes()))).json();
    assert_eq!(referrers["manifests"][0]["digest"], signature.digest());
}

#[test]
fn an_image_without_a_name_needs_one_and_any_gets_another() {
    let site = Site::new();
    let image = image(40);
    let tar = layout(&[(&image, "1.0")], true).end();
    let error = import(&site.registry, &tar).unwrap_err();
    assert!(error.detail().contains("--as NAME"), "{error}");
    import_as(&site.registry, &tar, named("acme/app", None)).unwrap();
    is_pulled(&site, "acme/app", "1.0", &image);
    import_as(&site.registry, &tar, named("acme/app", Some("2.0"))).unwrap();
    is_pulled(&site, "acme/app", "2.0", &image);
    let tar = layout(&[(&image, "docker.io/nginx:3")], true).end();
    let prefix = Naming { prefix: Some(RepoName::parse("mirror").unwrap()), ..Naming::default() };
    import_as(&site.registry, &tar, prefix).unwrap();
    is_pulled(&site, "mirror/nginx", "3", &image);
}

#[test]
fn a_directory_and_volumes_are_archives_too() {
    let (site, dir) = (Site::new(), tempfile::tempdir().unwrap());
    let (unpacked, cut) = (image(50), image(60));
    tar::Archive::new(&layout(&[(&unpacked, "acme/dir:1")], true).end()[..])
        .unpack(dir.path().join("dir"))
        .unwrap();
    import_path(&site.registry, &dir.path().join("dir")).unwrap();
    is_pulled(&site, "acme/dir", "1", &unpacked);

    let bytes = layout(&[(&cut, "acme/cut:1")], true).end();
    for (at, part) in bytes.chunks(30_000).enumerate() {
        std::fs::write(dir.path().join(format!("b.tar.{:03}", at + 1)), part).unwrap();
    }
    let first = dir.path().join("b.tar.001");
    import_path(&site.registry, &first).unwrap();
    is_pulled(&site, "acme/cut", "1", &cut);
    let (second, third) = (dir.path().join("b.tar.002"), dir.path().join("b.tar.003"));
    std::fs::rename(&second, dir.path().join("elsewhere")).unwrap();
    let error = import_path(&site.registry, &first).unwrap_err();
    assert!(error.detail().contains("b.tar.002 is missing"), "{error}");
    std::fs::rename(dir.path().join("elsewhere"), &second).unwrap();
    std::fs::remove_file(&third).unwrap();
    let error = import_path(&site.registry, &dir.path().join("b.tar")).unwrap_err();
    assert!(
        error.detail().contains("the last volume here is") && error.detail().contains("b.tar.002"),
        "{error}"
    );
    std::fs::write(&third, b"").unwrap();
    std::fs::write(&second, b"torn").unwrap();
    let error = import_path(&site.registry, &first).unwrap_err();
    assert!(error.detail().contains("b.tar.002 has 4 bytes"), "{error}");
}

#[test]
fn a_delta_needs_its_base_and_says_what_is_missing() {
    let site = Site::new();
    let shared = noise(80_000, 70);
    let (old, new) = (Image::of(&[&shared, b"old"]), Image::of(&[&shared, b"new"]));
    let delta = bundle(&new, "acme/app", "1", &[&shared]).end();
    let error = import(&site.registry, &delta).unwrap_err();
    assert_eq!(error.kind, Kind::BlobMissing);
    assert!(error.detail().contains(&sha256(&shared)) && error.detail().contains("80000 bytes"), "{error}");
    assert!(!site.blob_path(&sha256(b"new")).exists(), "nothing was written");
    import(&site.registry, &bundle(&old, "acme/app", "1", &[]).end()).unwrap();
    let arrived = import(&site.registry, &delta).unwrap();
    assert_eq!(arrived.tags[0].before.as_ref().unwrap().as_str(), old.digest());
    is_pulled(&site, "acme/app", "1", &new);
}

#[test]
fn a_rollback_puts_tags_back_and_leaves_those_that_others_moved() {
    let site = Site::new();
    let (old, new) = (image(80), image(90));
    import(&site.registry, &layout(&[(&old, "acme/app:1")], true).end()).unwrap();
    import(
        &site.registry,
        &layout(&[(&new, "acme/app:1"), (&new, "acme/app:2"), (&new, "acme/app:3")], true).end(),
    )
    .unwrap();
    let pushed = site.push_image("acme/app", "2", b"by somebody else");
    let done = site.registry.rollback(None).unwrap();
    assert_eq!((done.back.len(), done.left.len()), (2, 1));
    is_pulled(&site, "acme/app", "1", &old);
    assert_eq!(site.get("/v2/acme/app/manifests/3").status, 404);
    assert_eq!(site.get("/v2/acme/app/manifests/2").header("docker-content-digest"), Some(pushed.as_str()));
    assert_eq!(
        site.registry.rollback(Some(done.id)).unwrap_err().kind,
        Kind::Exists(outport::error::Thing::Tag)
    );
    // The one before is next.
    assert_eq!(site.registry.rollback(None).unwrap().id, done.id - 1);
    assert_eq!(site.get("/v2/acme/app/manifests/1").status, 404);
    assert!(site.registry.rollback(None).is_err());
}

#[test]
fn a_dry_run_says_the_same_and_writes_nothing() {
    let site = Site::new();
    let image = image(100);
    for bytes in [layout(&[(&image, "acme/app:1")], false).end(), docker_save(&image, &["acme/app:1"]).end()]
    {
        let arrived = dry_run(&site.registry, &bytes).unwrap();
        assert_eq!((arrived.images, arrived.tags[0].repo.as_str()), (1, "acme/app"));
        assert_eq!(site.get("/v2/acme/app/manifests/1").status, 404);
        assert!(!site.blob_path(&sha256(&image.layers[0])).exists());
    }
}

#[test]
fn an_import_that_was_cut_off_goes_on_where_it_was() {
    let site = Site::new();
    let image = Image::of(&[&noise(9 << 20, 110), &noise(1 << 20, 111)]);
    let bytes = layout(&[(&image, "acme/app:1")], true).end();
    let error = import(&site.registry, &bytes[..bytes.len() - 600_000]).unwrap_err();
    assert!(error.detail().contains("ends too early"), "{error}");
    assert_eq!(site.get("/v2/acme/app/manifests/1").status, 404);
    let arrived = import(&site.registry, &bytes).unwrap();
    assert!(arrived.brought.bytes_here >= 9 << 20, "the large layer was not written again");
    is_pulled(&site, "acme/app", "1", &image);
    assert_eq!(site.uploads_left(), 0);
}

#[test]
fn who_may_push_imports_over_http_and_only_where_they_may() {
    let site = Site::new();
    let (own, other) = (image(120), image(130));
    let send = |bytes: &[u8]| site.ask("POST", "/import").by("bob").chunked(bytes, 10_000).send();
    let answer = send(&gzip(&layout(&[(&own, "bob/app:1")], false).end()));
    assert_eq!(answer.status, 200, "{answer:?}");
    let said = answer.json();
    assert_eq!((said["tags"][0]["repo"].as_str(), said["images"].as_u64()), (Some("bob/app"), Some(1)));
    is_pulled(&site, "bob/app", "1", &own);

    let both = layout(&[(&other, "bob/app:2"), (&other, "acme/app:1")], true).end();
    assert_eq!(send(&both).status, 403);
    assert_eq!(site.get("/v2/bob/app/manifests/2").status, 404, "none of it");
    let answer = site.ask("POST", "/import?repo=bob/from").by("bob").body(&both).send();
    assert_eq!(answer.status, 200, "{answer:?}");
    is_pulled(&site, "bob/from/acme/app", "1", &other);
    assert_eq!(site.ask("POST", "/import").by_nobody().body(&both).send().status, 401);
    let answer = send(&both[..both.len() / 2]);
    assert_eq!(answer.status, 400);
    assert!(answer.json()["error"].as_str().unwrap().contains("ends too early"));
}

#[test]
fn naming_a_blob_that_one_may_not_read_does_not_open_it() {
    let site = Site::new();
    let secret = noise(4_000, 140);
    site.push_image("acme/secret", "1", &secret);
    let image = Image::of(&[&secret]);
    let mut tar = Tarball::default().file("index.json", &index(&[image.descriptor("bob/app:1")]));
    for (path, bytes) in &image.blobs()[..2] {
        tar = tar.file(path, bytes);
    }
    let answer = site.ask("POST", "/import").by("bob").body(&tar.clone().end()).send();
    assert_eq!(answer.status, 400, "{answer:?}");
    assert!(answer.json()["error"].as_str().unwrap().contains(&sha256(&secret)));
    // Who has its bytes may send them.
    let answer =
        site.ask("POST", "/import").by("bob").body(&tar.file(&image.blobs()[2].0, &secret).end()).send();
    assert_eq!(answer.status, 200, "{answer:?}");
}

#[test]
fn nothing_is_collected_while_an_import_is_at_work_and_what_it_leaves_is_collected_later() {
    use outport::registry::Collect;
    use std::time::Duration;
    let site = Site::new();
    let collect = || site.registry.collect(Collect { grace: Duration::ZERO, dry_run: false }, |_| {});
    let layer = noise(9 << 20, 150);
    let bytes = layout(&[(&Image::of(&[&layer]), "acme/app:1")], true).end();
    let mut stopped = site.registry.import_begin(ImportAsk::default(), |_| {}).unwrap();
    archive::read(&bytes[..], &mut stopped).unwrap();
    assert_eq!(collect().unwrap_err().kind, Kind::Unavailable);
    // It was stopped here; what it had committed is nobody's.
    drop(stopped);
    assert!(site.blob_path(&sha256(&layer)).exists());
    site.hands.advance(Duration::from_secs(10));
    collect().unwrap();
    assert!(!site.blob_path(&sha256(&layer)).exists());
    assert_eq!(site.uploads_left(), 0);
}

#[test]
fn a_site_that_trusts_keys_takes_what_they_signed_each_once_and_in_order() {
    let site = Site::new();
    let (depot, stranger) = (key("depot"), key("depot"));
    let image = image(160);
    let numbered = |key, number| bundle_by(Some((key, number)), &image, "acme/app", "1", &[]).end();
    let allowed = |words: &[&str], bytes: &[u8]| {
        let ask = ImportAsk { allow: Allow::parse(words).unwrap(), ..ImportAsk::default() };
        let mut import = site.registry.import_begin(ask, |_| {})?;
        let archive = archive::read(bytes, &mut import)?;
        import.finish(&archive, "a stream", |_| Ok(()))
    };
    // Nobody is trusted: whoever sends.
    allowed(&[], &numbered(&stranger, 1)).unwrap();
    site.registry.key_trust(&depot.name, depot.public()).unwrap();
    assert_eq!(
        site.registry.key_trust(&stranger.name, stranger.public()).unwrap_err().kind,
        Kind::Exists(outport::error::Thing::Request)
    );

    let arrived = allowed(&[], &numbered(&depot, 5)).unwrap();
    assert_eq!((arrived.sender.name.unwrap().as_str(), arrived.sender.sequence), ("depot", Some(5)));
    let plain = layout(&[(&image, "acme/app:1")], true).end();
    for (bytes, words, refusal) in [
        (numbered(&depot, 5), "replayed", "was taken already"),
        (numbered(&depot, 4), "older", "it is older"),
        (numbered(&stranger, 6), "unsigned", "not trusted here"),
        (bundle(&image, "acme/app", "1", &[]).end(), "unsigned", "not signed"),
        (plain, "unsigned", "not signed"),
    ] {
        let error = allowed(&[], &bytes).unwrap_err();
        assert_eq!(error.kind, Kind::Denied);
        assert!(error.detail().contains(refusal), "{error}");
        allowed(&[words], &bytes).unwrap();
    }
    assert_eq!(site.registry.trusted_keys().unwrap()[0].sequence, 5, "an older one counts for nothing");
    allowed(&[], &numbered(&depot, 6)).unwrap();

    // A document that was changed after it was signed is never taken.
    let mut forged = numbered(&depot, 7);
    let at = forged.windows(12).position(|window| window == b"\"sequence\":7").unwrap();
    forged[at + 11] = b'9';
    let error = allowed(&["unsigned", "older", "replayed"], &forged).unwrap_err();
    assert!(error.detail().contains("signature by depot is wrong"), "{error}");
}

// A list of docker's before the document, and no blobs: nobody looked who had sent it, and it moved
// the tags of a site that takes signed bundles alone.
#[test]
fn a_document_that_comes_late_moves_no_tags_of_a_site_that_trusts_keys() {
    let site = Site::new();
    let (old, new) = (image(170), image(171));
    import(&site.registry, &layout(&[(&old, "acme/app:old"), (&new, "acme/app:1")], true).end()).unwrap();
    let depot = key("depot");
    site.registry.key_trust(&depot.name, depot.public()).unwrap();
    let document = json!({
        "version": 1, "manifests": [], "blobs": [],
        "tags": [{"repo": "acme/app", "tag": "1", "digest": old.digest()}],
        "base": {"blobs": [], "manifests": [{
            "digest": old.digest(), "size": old.manifest.len(), "media_type": OCI_MANIFEST, "repos": ["acme/app"],
        }]},
    });
    let document = document.to_string();
    let index = index(&[]);
    for first in ["manifest.json", "repositories", "index.json", "other"] {
        let bytes = Tarball::default()
            .file(first, b"[]")
            .file("outport/bundle.json", document.as_bytes())
            .file(if first == "index.json" { "oci-layout" } else { "index.json" }, &index)
            .end();
        let error = import(&site.registry, &bytes).unwrap_err();
        let said = error.detail();
        assert!(said.contains("must come before") || said.contains("not signed"), "{first}: {said}");
        assert_eq!(site.get("/v2/acme/app/manifests/1").body, new.manifest.as_bytes(), "{first}");
    }
}

//! Archives that nobody should send: each is refused with a sentence that says why, and what was
//! there before is there after.

use crate::archives::{LAYOUT, Tarball, blob_path, bundle, docker_save, gzip, index, layout, zstd};
use crate::harness::{OCI_INDEX, OCI_MANIFEST, Site, noise, sha256};
use crate::import::{dry_run, image, import, is_pulled};
use outport::error::{Kind, Result};
use outport::registry::{Arrived, Registry};
use serde_json::json;

type Import = fn(&Registry, &[u8]) -> Result<Arrived>;
/// What an archive is called, its bytes, and words of its refusal.
type Bad = (&'static str, Vec<u8>, &'static str);

/// A good layout, then one entry more.
fn with(kind: u8, path: &[u8], link: &[u8], content: &[u8]) -> Vec<u8> {
    layout(&[(&image(7), "acme/app:1")], true).any(path, kind, link, content).end()
}

/// A layout whose `index.json` is this.
fn indexed(text: &[u8]) -> Vec<u8> {
    Tarball::default().file("oci-layout", LAYOUT).file("index.json", text).end()
}

/// A layout of one manifest that is this text.
fn of_manifest(text: &str) -> Vec<u8> {
    let digest = sha256(text.as_bytes());
    let media_type = if text.contains(OCI_INDEX) { OCI_INDEX } else { OCI_MANIFEST };
    let listed = json!({"mediaType": media_type, "digest": digest, "size": text.len(),
        "annotations": {"org.opencontainers.image.ref.name": "acme/app:1"}});
    Tarball::default()
        .file("oci-layout", LAYOUT)
        .file("index.json", &index(&[listed]))
        .file(&blob_path(&digest), text.as_bytes())
        .end()
}

/// A bundle whose document was changed.
fn bundled(change: impl FnOnce(&mut serde_json::Value)) -> Vec<u8> {
    let bytes = bundle(&image(8), "acme/app", "1", &[]).end();
    let mut tar = Tarball::default();
    let mut change = Some(change);
    for entry in tar::Archive::new(&bytes[..]).entries().unwrap() {
        let mut entry = entry.unwrap();
        let path = entry.path().unwrap().to_str().unwrap().to_owned();
        let mut content = Vec::new();
        std::io::Read::read_to_end(&mut entry, &mut content).unwrap();
        if path == "outport/bundle.json" {
            let mut document = serde_json::from_slice(&content).unwrap();
            change.take().unwrap()(&mut document);
            content = document.to_string().into_bytes();
        }
        tar = tar.file(&path, &content);
    }
    tar.end()
}

/// Replaces one blob of a good layout; its path stays.
fn replaced(at: usize, by: &[u8]) -> Vec<u8> {
    let image = image(7);
    let mut tar = Tarball::default().file("oci-layout", LAYOUT);
    tar = tar.file("index.json", &index(&[image.descriptor("acme/app:1")]));
    for (number, (path, bytes)) in image.blobs().iter().enumerate() {
        tar = tar.file(path, if number == at { by } else { bytes });
    }
    tar.end()
}

fn saved(list: &serde_json::Value, files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut tar = Tarball::default();
    for (path, bytes) in files {
        tar = tar.file(path, bytes);
    }
    tar.file("manifest.json", list.to_string().as_bytes()).end()
}

fn tars() -> Vec<Bad> {
    let good = layout(&[(&image(7), "acme/app:1")], true).end();
    let mut all: Vec<Bad> = vec![
        ("nothing", Vec::new(), "empty"),
        ("a short text", b"hello".to_vec(), "ends too early"),
        ("noise", noise(4_096, 1), "no tar archive"),
        ("zeros", vec![0; 10_240], "no images"),
        ("a traversal", with(b'0', b"blobs/../../etc/passwd", b"", b"x"), "leads out"),
        ("a traversal at the start", with(b'0', b"../evil.tar", b"", b"x"), "leads out"),
        ("an absolute path", with(b'0', b"/etc/cron.d/evil", b"", b"x"), "absolute"),
        ("a backslash", with(b'0', b"..\\evil.tar", b"", b"x"), "backslash"),
        ("a control character", with(b'0', b"a\x1b[2Jb.tar", b"", b"x"), "control"),
        ("a name that is no UTF-8", with(b'0', b"\xff\xfe.tar", b"", b"x"), "UTF-8"),
        ("no name", with(b'0', b"", b"", b"x"), "no name"),
        ("a link out", with(b'2', b"layer.tar", b"../../../etc/passwd", b""), "leads out"),
        ("an absolute link", with(b'2', b"layer.tar", b"/etc/passwd", b""), "leads out"),
        ("a hard link out", with(b'1', b"layer.tar", b"../registry.db", b""), "leads out"),
        ("a link to nowhere", with(b'2', b"layer.tar", b"", b""), "leads nowhere"),
        ("a character device", with(b'3', b"dev/null", b"", b""), "no file"),
        ("a block device", with(b'4', b"dev/sda", b"", b""), "no file"),
        ("a pipe", with(b'6', b"pipe", b"", b""), "no file"),
        ("a sparse file", with(b'S', b"hole.tar", b"", b""), "sparse"),
        ("an unknown type", with(b'V', b"label", b"", b""), "no file"),
        ("a deep path", with(b'0', "a/".repeat(40).as_bytes(), b"", b"x"), "deep"),
        ("two of a name", with(b'0', b"index.json", b"", b"{}"), "comes twice"),
        (
            "two of a blob",
            {
                let (path, bytes) = image(7).blobs().swap_remove(2);
                layout(&[(&image(7), "acme/app:1")], true).file(&path, &bytes).end()
            },
            "comes twice",
        ),
        ("a blob by no digest", with(b'0', b"blobs/sha256/xyz", b"", b"x"), "digest"),
        (
            "a blob of an unknown algorithm",
            with(b'0', b"blobs/md5/d41d8cd98f00b204e9800998ecf8427e", b"", b""),
            "digest",
        ),
        ("something after the end", [good.clone(), b"more".repeat(512)].concat(), "goes on after its end"),
        ("no end", good[..good.len() - 1_024].to_vec(), "ends too early"),
        ("cut in a header", good[..700].to_vec(), "ends too early"),
        ("cut in a blob", good[..good.len() - 2_000].to_vec(), "ends too early"),
        (
            "a flipped header",
            {
                let mut bytes = good.clone();
                bytes[1_024 + 3] ^= 1;
                bytes
            },
            "checksum of a header",
        ),
        (
            "a flipped bit of a layer",
            {
                let mut bytes = good.clone();
                let at = bytes.len() - 30_000;
                bytes[at] ^= 4;
                bytes
            },
            "does not have its digest",
        ),
    ];
    let mut liar = layout(&[], true);
    liar.entry(b"blobs/sha256/liar.tar", b'0', b"", b"x", 1 << 40);
    all.push(("a size beyond the end", liar.end(), "digest"));
    let mut liar = Tarball::default().file("oci-layout", LAYOUT);
    liar.entry(b"a.tar", b'0', b"", b"x", 1 << 20);
    all.push(("a file shorter than it claims", liar.end(), "ends too early"));
    let mut header = Tarball::default().file("oci-layout", LAYOUT);
    header.entry(b"huge.tar", b'0', b"", b"", 1 << 50);
    all.push(("a file larger than any disk", header.end(), "at most"));
    all.push((
        "a long name of a gigabyte",
        {
            let mut tar = Tarball::default();
            tar.entry(b"././@LongLink", b'L', b"", b"", 1 << 30);
            tar.end()
        },
        "extended header",
    ));
    all.push((
        "a name of a thousand bytes",
        Tarball::default().any(b"././@LongLink", b'L', b"", &[b'a'; 1_000]).file("short.tar", b"x").end(),
        "1000 bytes",
    ));
    all.push((
        "headers and nothing else",
        {
            let mut tar = Tarball::default();
            for _ in 0..8 {
                tar = tar.pax(&[("comment", "more")]);
            }
            tar.end()
        },
        "too many extended headers",
    ));
    all.push((
        "a pax header that does not parse",
        Tarball::default().any(b"pax", b'x', b"", b"99999999999999999999 path=a\n").file("a.tar", b"x").end(),
        "extended header",
    ));
    all.push((
        "a pax path out",
        Tarball::default().pax(&[("path", "../../evil.tar")]).file("a.tar", b"x").end(),
        "leads out",
    ));
    all.push((
        "a pax size that lies",
        Tarball::default().pax(&[("size", "18446744073709551615")]).file("a.tar", b"x").end(),
        "at most",
    ));
    all.push((
        "a sparse file in pax",
        Tarball::default().pax(&[("GNU.sparse.major", "1")]).file("a.tar", b"x").end(),
        "sparse",
    ));
    all.push((
        "directories without end",
        {
            let mut tar = Tarball::default();
            for number in 0..101_001 {
                tar.entry(format!("d{number}").as_bytes(), b'5', b"", b"", 0);
            }
            tar.end()
        },
        "more than 101000 entries",
    ));
    all.push((
        "links without end",
        {
            let mut tar = Tarball::default();
            for number in 0..10_001 {
                tar.entry(format!("l{number}").as_bytes(), b'2', b"a", b"", 0);
            }
            tar.end()
        },
        "more than 10000",
    ));
    all
}

fn compressed() -> Vec<Bad> {
    let good = layout(&[(&image(7), "acme/app:1")], true).end();
    let bomb = {
        let mut tar = Tarball::default();
        tar.entry(b"bomb.bin", b'0', b"", &vec![0; 100 << 20], 100 << 20);
        tar.end()
    };
    let long = [0x28, 0xb5, 0x2f, 0xfd, 0x00, 0xa8, 0x00, 0x00];
    vec![
        ("a bomb of gzip", gzip(&bomb), "200 times"),
        ("a bomb of zstd", zstd(&bomb), "200 times"),
        ("gzip in gzip", gzip(&gzip(&good)), "no tar archive"),
        ("half of gzip", gzip(&good)[..20_000].to_vec(), "ends too early"),
        (
            "gzip with a wrong checksum",
            {
                let mut bytes = gzip(&good);
                let at = bytes.len() - 6;
                bytes[at] ^= 1;
                bytes
            },
            "damaged",
        ),
        ("half of zstd", zstd(&good)[..20_000].to_vec(), "damaged"),
        ("zstd with a window of gigabytes", long.to_vec(), "window"),
        ("zstd of nothing", vec![0x50, 0x2a, 0x4d, 0x18, 0xff, 0xff, 0xff, 0xff, 0], "ends too early"),
    ]
}

fn contents() -> Vec<Bad> {
    let good = image(7);
    let layer = noise(100, 9);
    let config = json!({"rootfs": {"type": "layers", "diff_ids": [sha256(&layer)]}}).to_string();
    let one = |config: &str, layers: &[&str]| json!([{"Config": config, "RepoTags": ["acme/app:1"], "Layers": layers}]);
    let nested = "[".repeat(100_000);
    let name = |name: &str| layout(&[(&good, name)], true).end();
    vec![
        (
            "a layout without an index",
            Tarball::default().file("oci-layout", LAYOUT).end(),
            "without its index.json",
        ),
        (
            "a layout of the future",
            Tarball::default().file("oci-layout", br#"{"imageLayoutVersion":"2.0"}"#).end(),
            "version of the layout",
        ),
        ("an index that is no JSON", indexed(b"{"), "does not parse"),
        ("an index of no images", indexed(b"{}"), "names no images"),
        ("an index that is nested", indexed(nested.as_bytes()), "does not parse"),
        ("an index of 5 MiB", indexed(&vec![b' '; 5 << 20]), "more than 4194304 bytes"),
        (
            "a digest that is none",
            indexed(br#"{"manifests":[{"digest":"../../etc","size":1}]}"#),
            "digest that is none",
        ),
        (
            "a negative size",
            indexed(format!(r#"{{"manifests":[{{"digest":"{}","size":-1}}]}}"#, good.digest()).as_bytes()),
            "does not parse",
        ),
        ("an image that is not in it", indexed(&index(&[good.descriptor("acme/app:1")])), "not in it"),
        (
            "a size that lies",
            {
                let mut descriptor = good.descriptor("acme/app:1");
                descriptor["size"] = 7.into();
                let mut tar =
                    Tarball::default().file("oci-layout", LAYOUT).file("index.json", &index(&[descriptor]));
                for (path, bytes) in good.blobs() {
                    tar = tar.file(&path, &bytes);
                }
                tar.end()
            },
            "says 7",
        ),
        (
            "a layer's size that lies",
            of_manifest(&good.manifest.replace("\"size\":300}", "\"size\":301}")),
            "rely on",
        ),
        ("a manifest that is no JSON", of_manifest("{"), "does not parse"),
        ("a manifest that is a number", of_manifest("7"), "does not parse"),
        ("a manifest that is empty", of_manifest(""), "does not parse"),
        (
            "a manifest that is two things",
            of_manifest(&good.manifest.replacen('{', r#"{"manifests":[],"#, 1)),
            "no \"manifests\"",
        ),
        ("a manifest that is nested", of_manifest(&format!(r#"{{"a":{nested}"#)), "manifest sha256:"),
        ("a layer that is missing", of_manifest(&good.manifest), "rely on 3 blobs"),
        (
            "an index of images that are not in it",
            of_manifest(&format!(
                r#"{{"schemaVersion":2,"mediaType":"{OCI_INDEX}","manifests":[{{"digest":"{}","size":2}}]}}"#,
                sha256(b"absent")
            )),
            "none of the images",
        ),
        ("a wrong manifest", replaced(0, b"{}"), "does not have its digest"),
        ("a wrong config", replaced(1, b"{}"), "does not have its digest"),
        ("a wrong layer", replaced(2, b"evil"), "does not have its digest"),
        ("an empty layer", replaced(3, b""), "does not have its digest"),
        ("a name in capitals", name("acme/APP:1"), "lower-case"),
        ("a name with dots", name("acme/../../app:1"), "it calls an image"),
        ("a tag that is none", name("acme/app:-x"), "a tag has"),
        ("a name of 300 letters", name(&format!("acme/{}:1", "a".repeat(300))), "255"),
        (
            "one name for two images",
            layout(&[(&good, "acme/app:1"), (&image(8), "acme/app:1")], true).end(),
            "both called",
        ),
        (
            "docker save that is no JSON",
            Tarball::default().file("manifest.json", b"[").end(),
            "does not parse",
        ),
        ("docker save of nothing", Tarball::default().file("manifest.json", b"[]").end(), "names no images"),
        ("docker save without its config", saved(&one("c.json", &[]), &[]), "names c.json"),
        (
            "docker save without its layer",
            saved(&one("c.json", &["a/layer.tar"]), &[("c.json", config.as_bytes())]),
            "names a/layer.tar",
        ),
        (
            "docker save of another layer",
            saved(
                &one("c.json", &["a/layer.tar"]),
                &[("c.json", config.as_bytes()), ("a/layer.tar", b"evil")],
            ),
            "config calls it",
        ),
        (
            "docker save of too few layers",
            saved(&one("c.json", &[]), &[("c.json", config.as_bytes())]),
            "names 1 layers",
        ),
        (
            "docker save of a config that is none",
            saved(&one("c.json", &[]), &[("c.json", b"x")]),
            "does not parse",
        ),
        ("docker save with a path out", saved(&one("../../registry.db", &[]), &[]), "not in it"),
        (
            "links in a circle",
            docker_save(&good, &["acme/app:1"])
                .link("a.tar", "b.tar")
                .link("b.tar", "a.tar")
                .file("x", b"")
                .pipe(|tar| relisted(tar, "a.tar")),
            "comes twice",
        ),
        (
            "links in a circle that are used",
            Tarball::default()
                .link("a.tar", "b.tar")
                .link("b.tar", "a.tar")
                .file("manifest.json", one("a.tar", &[]).to_string().as_bytes())
                .end(),
            "names a.tar",
        ),
        (
            "an image that is its own parent",
            Tarball::default()
                .file("aa/json", br#"{"parent":"aa"}"#)
                .file("repositories", br#"{"acme/app":{"1":"aa"}}"#)
                .end(),
            "its own parent",
        ),
        (
            "a parent that is missing",
            Tarball::default()
                .file("aa/json", br#"{"parent":"bb"}"#)
                .file("repositories", br#"{"acme/app":{"1":"aa"}}"#)
                .end(),
            "bb/json",
        ),
        ("a bundle of the future", bundled(|document| document["version"] = 2.into()), "newer Outport"),
        (
            "a bundle whose document is no JSON",
            Tarball::default().file("outport/bundle.json", b"{").end(),
            "does not parse",
        ),
        (
            "a document that comes last",
            layout(&[(&good, "acme/app:1")], true).file("outport/bundle.json", b"{}").end(),
            "must come before",
        ),
        (
            "a signature of nothing",
            Tarball::default().file("outport/bundle.sig", b"{}").end(),
            "follow the document",
        ),
        (
            "a bundle that names more",
            bundled(|document| {
                document["blobs"]
                    .as_array_mut()
                    .unwrap()
                    .push(json!({"digest": sha256(b"more"), "size": 4, "repos": ["acme/app"]}))
            }),
            "not in it",
        ),
        (
            "a bundle that names less",
            bundled(|document| {
                document["blobs"].as_array_mut().unwrap().pop();
            }),
            "more than its document",
        ),
        ("a bundle with a lying size", bundled(|document| document["blobs"][0]["size"] = 3.into()), "says 3"),
        (
            "a bundle with a tag to nothing",
            bundled(|document| document["tags"][0]["digest"] = sha256(b"x").into()),
            "has no manifest",
        ),
        (
            "a bundle without a base",
            bundled(|document| {
                document["base"]["blobs"] =
                    json!([{"digest": sha256(b"base"), "size": 4, "repos": ["acme/app"]}])
            }),
            "that are not here",
        ),
        (
            "a bundle with a bad name",
            bundled(|document| document["tags"][0]["repo"] = "../x".into()),
            "lower-case",
        ),
    ]
}

/// The same archive with a second list.
fn relisted(tar: Tarball, config: &str) -> Vec<u8> {
    tar.file("manifest.json", json!([{"Config": config, "Layers": []}]).to_string().as_bytes()).end()
}

impl Tarball {
    fn pipe<T>(self, then: impl FnOnce(Tarball) -> T) -> T {
        then(self)
    }
}

#[test]
fn an_archive_that_means_no_good_is_refused_with_a_reason_and_changes_nothing() {
    let site = Site::new();
    let kept = image(1_000);
    import(&site.registry, &layout(&[(&kept, "acme/app:1")], true).end()).unwrap();
    let corpus = [tars(), compressed(), contents()].concat();
    assert!(corpus.len() >= 40, "{} archives", corpus.len());
    let mut wrong = Vec::new();
    for ((what, bytes, words), import) in
        corpus.iter().flat_map(|bad| [(bad, dry_run as Import), (bad, import as Import)])
    {
        match import(&site.registry, bytes) {
            Ok(_) => wrong.push(format!("{what}: was taken")),
            Err(error) => {
                let said = error.detail();
                let ours = matches!(error.kind, Kind::Internal | Kind::Unavailable | Kind::Full);
                if ours || !said.contains(words) {
                    wrong.push(format!("{what}: {error:?}, not \"{words}\""));
                }
                if said.chars().any(char::is_control) {
                    wrong.push(format!("{what}: control characters in {said:?}"));
                }
            }
        }
        assert_eq!(site.uploads_left(), 0, "{what}");
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    is_pulled(&site, "acme/app", "1", &kept);
    assert_eq!(site.get("/v2/acme/app/tags/list").strings("tags"), ["1"]);
    assert_eq!(site.get("/v2/_catalog").strings("repositories"), ["acme/app"]);
    assert_eq!(site.registry.imports().unwrap().len(), 1);
}

#[test]
fn an_archive_cut_or_flipped_anywhere_leaves_the_old_image_and_the_whole_one_then_comes() {
    let (old, new) = (image(1), image(2));
    let before = layout(&[(&old, "acme/app:1")], true).end();
    let whole = layout(&[(&new, "acme/app:1")], false).end();
    let site = Site::new();
    import(&site.registry, &before).unwrap();
    for cut in (0..whole.len() - 1_024).step_by(1_499) {
        assert!(import(&site.registry, &whole[..cut]).is_err(), "cut at {cut}");
        let now = site.get("/v2/acme/app/manifests/1").body;
        assert_eq!(now, old.manifest.as_bytes(), "cut at {cut}");
    }
    for at in (0..whole.len() - 1_024).step_by(2_003) {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x10;
        // A flip of what fills a block, or of a time, is no harm.
        let outcome = import(&site.registry, &bytes);
        let now = site.get("/v2/acme/app/manifests/1").body;
        let expected = if outcome.is_ok() { &new } else { &old };
        assert_eq!(now, expected.manifest.as_bytes(), "flipped at {at}");
        if outcome.is_ok() {
            import(&site.registry, &before).unwrap();
        }
    }
    import(&site.registry, &whole).unwrap();
    is_pulled(&site, "acme/app", "1", &new);
}

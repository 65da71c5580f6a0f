//! Pushing and deleting manifests and tags.

use crate::harness::{OCI_INDEX, OCI_MANIFEST, Site, manifest, sha256, sha512};
use serde_json::json;

#[test]
fn a_manifest_needs_its_blobs_in_its_own_repository() {
    let site = Site::new();
    let text = site.image_of("a/here", b"layer");
    let answer = site.put_manifest("a/elsewhere", "v1", &text);
    answer.is(400, "MANIFEST_BLOB_UNKNOWN");
    assert!(answer.json()["errors"][0]["message"].as_str().unwrap().contains(&sha256(b"layer")));
    site.get("/v2/a/elsewhere/tags/list").is(404, "NAME_UNKNOWN");
    assert_eq!(site.put_manifest("a/here", "v1", &text).status, 201);
}

#[test]
fn a_manifest_pushed_by_digest_must_have_it() {
    let site = Site::new();
    let text = site.image_of("a/b", b"layer");
    let digest = sha256(text.as_bytes());
    site.put_manifest("a/b", &sha256(b"other"), &text).is(400, "DIGEST_INVALID");
    let answer = site.put_manifest("a/b", &digest, &text);
    assert_eq!(
        (answer.status, answer.header("location").unwrap()),
        (201, format!("/v2/a/b/manifests/{digest}").as_str())
    );
    let long = sha512(text.as_bytes());
    assert_eq!(site.put_manifest("a/b", &long, &text).header("docker-content-digest"), Some(long.as_str()));
    assert_eq!(site.get(&format!("/v2/a/b/manifests/{long}")).body, text.as_bytes());
}

#[test]
fn one_push_can_set_many_tags() {
    let site = Site::new();
    let text = site.image_of("a/b", b"layer");
    let digest = sha256(text.as_bytes());
    let tags: Vec<String> = (10..30).map(|n| format!("t{n}")).collect();
    let query: Vec<String> = tags.iter().map(|tag| format!("tag={tag}")).collect();
    let answer = site.put_manifest("a/b", &format!("{digest}?{}", query.join("&")), &text);
    assert_eq!(
        (answer.status, answer.headers_named("oci-tag")),
        (201, tags.iter().map(String::as_str).collect())
    );
    assert_eq!(site.get("/v2/a/b/tags/list").strings("tags"), tags);
    site.put_manifest("a/b", &format!("{digest}?tag=.bad"), &text).is(400, "TAG_INVALID");
    let older = site.put_manifest("a/b", &format!("regclient?digest={digest}"), &text);
    assert_eq!(older.status, 201);
    assert_eq!(site.get("/v2/a/b/manifests/regclient").body, text.as_bytes());
}

#[test]
fn a_tag_moves_and_what_it_left_stays_by_digest() {
    let site = Site::new();
    let old = site.push_image("a/b", "latest", b"old layer");
    let new = site.push_image("a/b", "latest", b"new layer");
    assert_ne!(old, new);
    assert_eq!(site.get("/v2/a/b/manifests/latest").header("docker-content-digest"), Some(new.as_str()));
    assert_eq!(site.get(&format!("/v2/a/b/manifests/{old}")).status, 200);
}

#[test]
fn a_deleted_manifest_takes_its_tags_along_and_a_deleted_tag_nothing() {
    let site = Site::new();
    let digest = site.push_image("a/b", "one", b"layer");
    let text = String::from_utf8(site.get("/v2/a/b/manifests/one").body).unwrap();
    assert_eq!(site.put_manifest("a/b", "two", &text).status, 201);
    assert_eq!(site.ask("DELETE", "/v2/a/b/manifests/one").send().status, 202);
    site.ask("DELETE", "/v2/a/b/manifests/one").send().is(404, "MANIFEST_UNKNOWN");
    assert_eq!(site.get("/v2/a/b/tags/list").strings("tags"), ["two"]);
    assert_eq!(site.get(&format!("/v2/a/b/manifests/{digest}")).status, 200);
    assert_eq!(site.ask("DELETE", &format!("/v2/a/b/manifests/{digest}")).send().status, 202);
    site.get("/v2/a/b/manifests/two").is(404, "MANIFEST_UNKNOWN");
    assert_eq!(site.get("/v2/a/b/tags/list").strings("tags"), [""; 0]);
    site.ask("DELETE", &format!("/v2/a/b/manifests/{digest}")).send().is(404, "MANIFEST_UNKNOWN");
}

#[test]
fn a_blob_that_an_image_needs_cannot_be_deleted() {
    let site = Site::new();
    let digest = site.push_image("a/b", "v1", b"layer");
    let blob = format!("/v2/a/b/blobs/{}", sha256(b"layer"));
    let refused = site.ask("DELETE", &blob).send();
    refused.is(405, "UNSUPPORTED");
    assert!(
        refused.json()["errors"][0]["message"].as_str().unwrap().contains(&digest),
        "it says which image"
    );
    assert_eq!(site.ask("DELETE", &format!("/v2/a/b/manifests/{digest}")).send().status, 202);
    assert_eq!(site.ask("DELETE", &blob).send().status, 202);
    assert_eq!(site.ask("HEAD", &blob).send().status, 404);
    site.ask("DELETE", &blob).send().is(404, "BLOB_UNKNOWN");
}

#[test]
fn an_index_may_come_before_its_images_and_may_nest() {
    let site = Site::new();
    let text = site.image_of("a/b", b"layer");
    let child = json!({"mediaType": OCI_MANIFEST, "digest": sha256(text.as_bytes()), "size": text.len(),
        "platform": {"os": "linux", "architecture": "arm64"}});
    let index = json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [child]}).to_string();
    let put = |tag: &str, body: &str| {
        site.ask("PUT", &format!("/v2/a/b/manifests/{tag}"))
            .header("Content-Type", OCI_INDEX)
            .body(body.as_bytes())
            .send()
    };
    assert_eq!(put("multi", &index).status, 201, "sparse");
    assert_eq!(site.put_manifest("a/b", &sha256(text.as_bytes()), &text).status, 201);
    let outer = json!({"schemaVersion": 2, "manifests": [
        {"mediaType": OCI_INDEX, "digest": sha256(index.as_bytes()), "size": index.len()}]})
    .to_string();
    assert_eq!(put("nested", &outer).status, 201);
    let answer = site.get("/v2/a/b/manifests/nested");
    assert_eq!((answer.body.as_slice(), answer.header("content-type")), (outer.as_bytes(), Some(OCI_INDEX)));
}

#[test]
fn docker_manifests_are_served_under_their_own_type() {
    let site = Site::new();
    let (config, layer) = (site.push_blob("a/b", b"{}"), site.push_blob("a/b", b"layer"));
    let docker = "application/vnd.docker.distribution.manifest.v2+json";
    let text = json!({"schemaVersion": 2, "mediaType": docker,
        "config": {"mediaType": "application/vnd.docker.container.image.v1+json", "size": 2, "digest": config},
        "layers": [{"mediaType": "application/vnd.docker.image.rootfs.diff.tar.gzip", "size": 5, "digest": layer}]});
    let text = serde_json::to_string_pretty(&text).unwrap();
    for kind in [docker, "application/json"] {
        let answer =
            site.ask("PUT", "/v2/a/b/manifests/d").header("Content-Type", kind).body(text.as_bytes()).send();
        assert_eq!(answer.status, 201, "{answer:?}");
    }
    let answer = site.get("/v2/a/b/manifests/d");
    assert_eq!((answer.body.as_slice(), answer.header("content-type")), (text.as_bytes(), Some(docker)));
}

#[test]
fn manifests_that_say_nothing_sensible_are_refused_in_words() {
    let site = Site::new();
    let (config, layer) = (site.push_blob("a/b", b"{}"), site.push_blob("a/b", b"layer"));
    let good = manifest(&config, 2, &[(&layer, 5)], "");
    let deep = format!("{{\"schemaVersion\":2,\"x\":{}{}}}", "[".repeat(100_000), "]".repeat(100_000));
    let both = manifest(&config, 2, &[(&layer, 5)], ",\"manifests\":[]");
    let negative = good.replace("\"size\":5", "\"size\":-5");
    let many = manifest(&config, 2, &vec![(layer.as_str(), 5); 10_000], "");
    for bad in ["", "{}", "[]", "null", "{\"schemaVersion\":1}", "\u{7f}", &deep, &both, &negative, &many] {
        let answer = site.put_manifest("a/b", "bad", bad);
        answer.is(400, "MANIFEST_INVALID");
        assert!(answer.json()["errors"][0]["message"].as_str().unwrap().len() > 10);
    }
    let other = site
        .ask("PUT", "/v2/a/b/manifests/bad")
        .header("Content-Type", OCI_INDEX)
        .body(good.as_bytes())
        .send();
    other.is(400, "MANIFEST_INVALID");
    site.get("/v2/a/b/manifests/bad").is(404, "MANIFEST_UNKNOWN");
    let padded = manifest(
        &config,
        2,
        &[(&layer, 5)],
        &format!(",\"annotations\":{{\"a\":\"{}\"}}", "x".repeat(4_193_000)),
    );
    assert!(padded.len() < 4 << 20);
    assert_eq!(site.put_manifest("a/b", "large", &padded).status, 201);
    let over = manifest(
        &config,
        2,
        &[(&layer, 5)],
        &format!(",\"annotations\":{{\"a\":\"{}\"}}", "x".repeat(4 << 20)),
    );
    site.put_manifest("a/b", "over", &over).is(413, "MANIFEST_INVALID");
}

#[test]
fn a_subject_may_be_missing_and_is_acknowledged() {
    let site = Site::new();
    let config = site.push_blob("a/b", b"{}");
    let subject = sha256(b"not here yet");
    let text = manifest(
        &config,
        2,
        &[],
        &format!(r#","subject":{{"mediaType":"{OCI_MANIFEST}","digest":"{subject}","size":3}}"#),
    );
    let answer = site.put_manifest("a/b", &sha256(text.as_bytes()), &text);
    assert_eq!((answer.status, answer.header("oci-subject")), (201, Some(subject.as_str())));
}

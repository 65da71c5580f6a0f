//! One model: what one dialect makes the others show, and what one deletes is gone from all.

use crate::harness::Site;
use outport::names::RepoName;
use serde_json::{Value, json};

/// Whether each dialect, and the command line's verb, shows a repository to a user.
fn seen(site: &Site, who: &str, name: &str) -> [bool; 5] {
    let (namespace, rest) = name.split_once('/').unwrap();
    let ask = |target: &str| site.ask("GET", target).by(who).send();
    let catalog = ask("/v2/_catalog").strings("repositories");
    let listed = ask(&format!("/v2/repositories/{namespace}/"));
    let listed = listed.status == 200
        && listed.json()["results"].as_array().unwrap().iter().any(|row| row["name"] == rest);
    let found = ask(&format!("/v1/search?q={rest}"));
    let found = found.status == 200
        && found.json()["results"].as_array().unwrap().iter().any(|row| row["name"] == name);
    [
        catalog.iter().any(|repo| repo == name),
        listed,
        found,
        ask(&format!("/v1/repositories/{name}/images")).status == 200,
        site.registry.repo_row(&RepoName::parse(name).unwrap()).unwrap().is_some(),
    ]
}

#[test]
fn what_is_pushed_is_seen_everywhere_under_the_same_digest() {
    let site = Site::new();
    let digest = site.push_image("bob/camera", "v1", b"layer");
    assert_eq!(seen(&site, "bob", "bob/camera"), [true; 5]);
    let hub = site.ask("GET", "/v2/repositories/bob/camera/tags/v1/").by("bob").send();
    assert_eq!(hub.json()["digest"], digest.as_str());
    let v1 = site.ask("GET", "/v1/repositories/bob/camera/images").by("bob").send();
    assert_eq!(v1.json()[0]["checksum"], digest.as_str());
    let tags = site.ask("GET", "/v1/repositories/bob/camera/tags").by("bob").send();
    assert_eq!(tags.json()["v1"], v1.json()[0]["id"]);
}

#[test]
fn a_repository_made_private_by_one_is_hidden_by_all_and_by_all_at_once() {
    let site = Site::new();
    site.add_user("carol");
    site.push_image("bob/camera", "v1", b"layer");
    let privacy = |private: bool| {
        let body = json!({ "is_private": private }).to_string();
        let ask = site.ask("POST", "/v2/repositories/bob/camera/privacy/").by("bob");
        let answer = ask.header("Content-Type", "application/json").body(body.as_bytes()).send();
        assert_eq!(answer.status, 200, "{answer:?}");
    };
    privacy(false);
    assert_eq!(seen(&site, "carol", "bob/camera"), [true; 5]);
    assert_eq!(site.ask("GET", "/v2/bob/camera/tags/list").by("carol").send().status, 200);
    let properties = site.ask("GET", "/v1/repositories/bob/camera/properties").by("carol").send();
    assert_eq!(properties.json()["access"], "public");
    privacy(true);
    assert_eq!(seen(&site, "carol", "bob/camera"), [false, false, false, false, true]);
    assert_eq!(site.ask("GET", "/v2/bob/camera/tags/list").by("carol").send().status, 403);
    assert_eq!(seen(&site, "bob", "bob/camera"), [true; 5]);
}

#[test]
fn a_repository_deleted_by_any_of_them_is_gone_from_all() {
    type Delete = fn(&Site);
    let ways: [(&str, Delete); 4] = [
        ("hub", |site| {
            assert_eq!(site.ask("DELETE", "/v2/repositories/bob/camera/").by("bob").send().status, 202);
        }),
        ("v1", |site| {
            assert_eq!(site.ask("DELETE", "/v1/repositories/bob/camera/").by("bob").send().status, 202);
        }),
        ("command line", |site| {
            site.registry.repo_remove(&RepoName::parse("bob/camera").unwrap()).unwrap();
        }),
        ("hub's other address", |site| {
            let target = "/v2/namespaces/bob/repositories/camera";
            assert_eq!(site.ask("DELETE", target).by("bob").send().status, 202);
        }),
    ];
    for (way, delete) in ways {
        let site = Site::new();
        site.push_image("bob/camera", "v1", b"layer");
        delete(&site);
        assert_eq!(seen(&site, "bob", "bob/camera"), [false; 5], "{way}");
        site.ask("GET", "/v2/bob/camera/manifests/v1").by("bob").send().is(404, "MANIFEST_UNKNOWN");
        site.push_image("bob/camera", "v2", b"another");
        assert_eq!(seen(&site, "bob", "bob/camera"), [true; 5], "{way}: and may come again");
    }
}

#[test]
fn a_tag_deleted_by_one_is_gone_from_all_and_its_image_is_not() {
    let site = Site::new();
    let digest = site.push_image("bob/camera", "v1", b"layer");
    assert_eq!(site.ask("DELETE", "/v2/repositories/bob/camera/tags/v1/").by("bob").send().status, 204);
    assert_eq!(site.ask("GET", "/v2/bob/camera/tags/list").by("bob").send().strings("tags"), [""; 0]);
    let v1: Value = site.ask("GET", "/v1/repositories/bob/camera/images").by("bob").send().json();
    assert_eq!(v1[0]["checksum"], digest.as_str());
    assert_eq!(site.ask("GET", &format!("/v2/bob/camera/manifests/{digest}")).by("bob").send().status, 200);
}

#[test]
fn what_is_announced_or_made_empty_exists_for_all_that_show_empty_repositories() {
    let site = Site::new();
    let announce =
        site.ask("PUT", "/v1/repositories/bob/camera/").by("bob").body(br#"[{"id":"1020903f808f"}]"#).send();
    assert_eq!(announce.status, 200, "{announce:?}");
    let hub = site.ask("GET", "/v2/repositories/bob/camera/").by("bob").send();
    assert_eq!((hub.status, hub.json()["status"].as_i64()), (200, Some(0)), "initialized");
    assert_eq!(site.ask("GET", "/v2/bob/camera/tags/list").by("bob").send().strings("tags"), [""; 0]);
    assert_eq!(site.ask("GET", "/v2/_catalog").by("bob").send().strings("repositories"), [""; 0]);
    site.push_image("bob/camera", "v1", b"layer");
    let hub = site.ask("GET", "/v2/repositories/bob/camera/").by("bob").send();
    assert_eq!(hub.json()["status"].as_i64(), Some(1));
}

//! One model: what one dialect makes the others show, and what one deletes is gone from all.

use crate::binary::{outport, said};
use crate::harness::Site;
use serde_json::{Value, json};

/// What the command line says, run beside the server: an object a line.
fn cli(site: &Site, args: &[&str]) -> Vec<Value> {
    let output = outport(&site.path(""), &[args, &["--json"]].concat(), "");
    assert!(output.status.success(), "{args:?}: {output:?}");
    said(&output).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// A call of ML Space's API in the user's own workspace.
fn mlspace(site: &Site, who: &str, method: &str, target: &str, body: &Value) -> Value {
    let ask = site.ask(method, &format!("/public/v2/docker_registry/v2{target}")).by(who);
    let answer = if method == "GET" { ask.send() } else { ask.json(body).send() };
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()
}

/// Bob's repositories as ML Space lists them to him.
fn cards(site: &Site) -> Vec<Value> {
    mlspace(site, "bob", "GET", "/repositories/", &json!({})).as_array().unwrap().clone()
}

/// Whether each dialect shows a repository to a user, and the command line to all.
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
        cli(site, &["repo", "list"]).iter().any(|row| row["name"] == name),
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
    let ways: [(&str, Delete); 5] = [
        ("hub", |site| {
            assert_eq!(site.ask("DELETE", "/v2/repositories/bob/camera/").by("bob").send().status, 202);
        }),
        ("v1", |site| {
            assert_eq!(site.ask("DELETE", "/v1/repositories/bob/camera/").by("bob").send().status, 202);
        }),
        ("command line", |site| {
            assert_eq!(cli(site, &["repo", "remove", "bob/camera"])[0]["removed"]["tags"], 1);
        }),
        ("ML Space", |site| {
            let id = &cards(site)[0]["id"];
            assert_eq!(
                mlspace(site, "bob", "DELETE", "/repositories/", &json!({"repository_ids": [id]})),
                json!([id])
            );
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
        assert_eq!(cards(&site), Vec::<Value>::new(), "{way}");
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

/// One image under one tag, as everyone shows it: the tag's name, digest and colour.
#[derive(Debug, Clone, PartialEq)]
struct Seen {
    tags: Vec<String>,
    digest: String,
    color: Option<String>,
    starred: bool,
    private: bool,
    description: String,
    labels: Vec<String>,
}

/// Looks at `bob/camera` through all that show a thing, which must agree.
fn look(site: &Site) -> Seen {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let sorted = |mut names: Vec<String>| {
        names.sort();
        names
    };
    let ask = |target: &str| site.ask("GET", target).by("bob").send();
    let tags = ask("/v2/bob/camera/tags/list").strings("tags");
    let hub_tags = ask("/v2/repositories/bob/camera/tags/?page_size=100").json();
    let hub_tags = hub_tags["results"].as_array().unwrap();
    let v1 = ask("/v1/repositories/bob/camera/tags").json();
    let lines = cli(site, &["tag", "list", "bob/camera"]);
    assert_eq!(sorted(hub_tags.iter().map(|tag| text(&tag["name"])).collect()), tags);
    assert_eq!(sorted(v1.as_object().unwrap().keys().cloned().collect()), tags);
    assert_eq!(lines.iter().map(|tag| text(&tag["name"])).collect::<Vec<_>>(), tags);

    let card = cards(site).remove(0);
    let images =
        mlspace(site, "bob", "GET", &format!("/images/?repository_id={}", text(&card["id"])), &json!({}));
    let digest = text(&images[0]["digest"]);
    let shown = cli(site, &["image", "list", "bob/camera"]);
    assert_eq!(shown.iter().map(|image| text(&image["digest"])).collect::<Vec<_>>(), [digest.as_str()]);
    assert_eq!(ask(&format!("/v2/bob/camera/manifests/{digest}")).status, 200);
    let mut color = None;
    for (tag, line) in tags.iter().zip(&lines) {
        assert_eq!(text(&line["digest"]), digest, "{tag}");
        let hub = ask(&format!("/v2/repositories/bob/camera/tags/{tag}/")).json();
        assert_eq!(text(&hub["digest"]), digest, "{tag}");
        let row = images[0]["tags"].as_array().unwrap().iter().find(|row| row["name"] == **tag).unwrap();
        assert_eq!(row["color"], line["color"], "{tag}");
        color = line["color"].as_str().map(str::to_owned);
    }

    let hub = ask("/v2/repositories/bob/camera/").json();
    let properties = ask("/v1/repositories/bob/camera/properties").json();
    let line = cli(site, &["repo", "show", "bob/camera"]).remove(0);
    assert_eq!(hub["is_private"], line["private"]);
    assert_eq!(properties["access"] == "private", line["private"] == true);
    assert_eq!(hub["description"], line["description"]);
    assert_eq!(text(&card["description"]), text(&line["description"]));
    assert_eq!(card["labels"], line["labels"]);
    assert_eq!((&hub["star_count"], &card["favorite"] == true), (&line["stars"], line["stars"] == 1));
    Seen {
        tags,
        digest,
        color,
        starred: card["favorite"] == true,
        private: line["private"] == true,
        description: text(&line["description"]),
        labels: card["labels"].as_array().unwrap().iter().map(text).collect(),
    }
}

#[test]
fn a_change_made_through_any_of_them_is_seen_through_all_the_others() {
    type Step = (&'static str, fn(&Site), fn(&mut Seen));
    fn hub(site: &Site, method: &str, target: &str, body: &Value) {
        let answer =
            site.ask(method, &format!("/v2/repositories/bob/camera/{target}")).by("bob").json(body).send();
        assert!(answer.status < 300, "{method} {target}: {answer:?}");
    }
    fn card(site: &Site) -> String {
        cards(site)[0]["id"].as_str().unwrap().to_owned()
    }
    fn image(site: &Site) -> Value {
        mlspace(site, "bob", "GET", &format!("/images/?repository_id={}", card(site)), &json!({}))[0].clone()
    }
    fn tag_id(site: &Site, name: &str) -> String {
        let image = image(site);
        let tags = image["tags"].as_array().unwrap();
        tags.iter().find(|tag| tag["name"] == name).unwrap()["id"].as_str().unwrap().to_owned()
    }
    let steps: [Step; 16] = [
        (
            "Hub makes it public",
            |site| hub(site, "POST", "privacy/", &json!({"is_private": false})),
            |seen| seen.private = false,
        ),
        (
            "the command line makes it private",
            |site| {
                cli(site, &["repo", "set", "bob/camera", "--private"]);
            },
            |seen| seen.private = true,
        ),
        (
            "Hub describes it",
            |site| hub(site, "PATCH", "", &json!({"description": "of hub"})),
            |seen| seen.description = "of hub".into(),
        ),
        (
            "ML Space describes it",
            |site| {
                mlspace(
                    site,
                    "bob",
                    "PUT",
                    &format!("/repositories/{}", card(site)),
                    &json!({"description": "of ml", "labels": ["edge"]}),
                );
            },
            |seen| (seen.description, seen.labels) = ("of ml".into(), vec!["edge".into()]),
        ),
        (
            "the command line describes it",
            |site| {
                cli(
                    site,
                    &[
                        "repo",
                        "set",
                        "bob/camera",
                        "--description",
                        "of a shell",
                        "--label",
                        "a",
                        "--label",
                        "b",
                    ],
                );
            },
            |seen| (seen.description, seen.labels) = ("of a shell".into(), vec!["a".into(), "b".into()]),
        ),
        (
            "ML Space favours it",
            |site| {
                mlspace(
                    site,
                    "bob",
                    "POST",
                    &format!("/repositories/{}/fav", card(site)),
                    &json!({"favorite": true}),
                );
            },
            |seen| seen.starred = true,
        ),
        (
            "Hub takes its star away",
            |site| hub(site, "DELETE", "stars/", &json!({})),
            |seen| seen.starred = false,
        ),
        ("Hub stars it", |site| hub(site, "POST", "stars/", &json!({})), |seen| seen.starred = true),
        (
            "ML Space paints the tag",
            |site| {
                mlspace(
                    site,
                    "bob",
                    "PUT",
                    &format!("/tags/{}", tag_id(site, "v1")),
                    &json!({"color": "red"}),
                );
            },
            |seen| seen.color = Some("red".into()),
        ),
        (
            "a push keeps the colour",
            |site| {
                site.push_image("bob/camera", "v1", b"layer");
            },
            |_| {},
        ),
        (
            "the command line paints the tag",
            |site| {
                cli(site, &["tag", "set", "bob/camera:v1", "--color", "blue"]);
            },
            |seen| seen.color = Some("blue".into()),
        ),
        (
            "the command line takes the colour away",
            |site| {
                cli(site, &["tag", "set", "bob/camera:v1", "--color", ""]);
            },
            |seen| seen.color = None,
        ),
        (
            "the command line tags it again",
            |site| {
                cli(site, &["tag", "set", "bob/camera:v2", "v1"]);
            },
            |seen| seen.tags = vec!["v1".into(), "v2".into()],
        ),
        (
            "ML Space tags it again",
            |site| {
                mlspace(site, "bob", "POST", "/tags/", &json!({"image_id": image(site)["id"], "name": "v3"}));
            },
            |seen| seen.tags.push("v3".into()),
        ),
        (
            "ML Space deletes a tag",
            |site| {
                mlspace(site, "bob", "DELETE", "/tags/", &json!({"tag_ids": [tag_id(site, "v1")]}));
            },
            |seen| {
                seen.tags.remove(0);
            },
        ),
        (
            "the command line deletes a tag",
            |site| {
                cli(site, &["tag", "remove", "bob/camera:v3"]);
            },
            |seen| {
                seen.tags.pop();
            },
        ),
    ];
    let site = Site::new();
    let digest = site.push_image("bob/camera", "v1", b"layer");
    let mut expected = Seen {
        tags: vec!["v1".into()],
        digest,
        color: None,
        starred: false,
        private: true,
        description: String::new(),
        labels: Vec::new(),
    };
    assert_eq!(look(&site), expected, "at first");
    for (what, step, change) in steps {
        step(&site);
        change(&mut expected);
        assert_eq!(look(&site), expected, "after: {what}");
    }
}

#[test]
fn an_image_deleted_by_any_of_them_is_gone_from_all_with_its_tags() {
    type Delete = fn(&Site, &str);
    let ways: [(&str, Delete); 3] = [
        ("OCI", |site, digest| {
            let target = format!("/v2/bob/camera/manifests/{digest}");
            assert_eq!(site.ask("DELETE", &target).by("bob").send().status, 202);
        }),
        ("ML Space", |site, _| {
            let card = cards(site).remove(0);
            let id = card["recent_image"]["id"].clone();
            mlspace(site, "bob", "DELETE", "/images/", &json!({"image_ids": [id]}));
        }),
        ("command line", |site, digest| {
            cli(site, &["image", "remove", &format!("bob/camera@{digest}")]);
        }),
    ];
    for (way, delete) in ways {
        let site = Site::new();
        let digest = site.push_image("bob/camera", "v1", b"layer");
        delete(&site, &digest);
        let ask = |target: &str| site.ask("GET", target).by("bob").send();
        assert_eq!(ask(&format!("/v2/bob/camera/manifests/{digest}")).status, 404, "{way}");
        assert_eq!(ask("/v2/bob/camera/tags/list").strings("tags"), [""; 0], "{way}");
        assert_eq!(ask("/v2/repositories/bob/camera/tags/").json()["count"], 0, "{way}");
        assert_eq!(ask("/v1/repositories/bob/camera/images").json(), json!([]), "{way}");
        assert_eq!(cli(&site, &["image", "list", "bob/camera"]), Vec::<Value>::new(), "{way}");
        assert_eq!(cards(&site)[0]["images_count"], 0, "{way}");
    }
}

#[test]
fn pulls_are_counted_where_images_are_and_shown_before_and_after_they_are_written_down() {
    let site = Site::new();
    site.push_image("bob/camera", "v1", b"layer");
    let database = || std::fs::metadata(site.path("registry.db-wal")).unwrap().modified().unwrap();
    let before = database();
    for _ in 0..3 {
        assert_eq!(site.ask("GET", "/v2/bob/camera/manifests/v1").by("bob").send().status, 200);
        assert_eq!(site.ask("HEAD", "/v2/bob/camera/manifests/v1").by("bob").send().status, 200);
    }
    let pulls = |site: &Site| {
        site.ask("GET", "/v2/repositories/bob/camera/").by("bob").send().json()["pull_count"].clone()
    };
    assert_eq!(pulls(&site), 3);
    assert_eq!(database(), before, "a pull writes nothing");
    site.push_blob("bob/camera", b"something to write");
    assert_eq!(cli(&site, &["repo", "show", "bob/camera"])[0]["pulls"], 3, "written beside the push");
    assert_eq!(pulls(&site.restart()), 3);
}

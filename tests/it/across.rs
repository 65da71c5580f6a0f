//! One model: what one dialect changes the others show, and the command line too.

use crate::binary::{complained, outport, said};
use crate::harness::{Answer, OCI_MANIFEST, Site, manifest, sha256};
use serde_json::{Map, Value, json};

/// A repository of bob's with two images, `v1` (in blue) and `v2`.
struct Shelf<'a> {
    site: &'a Site,
    name: &'static str,
    /// The images' manifests.
    texts: [String; 2],
}

impl Shelf<'_> {
    fn new<'a>(site: &'a Site, name: &'static str) -> Shelf<'a> {
        let texts = ["arm64", "amd64"].map(|architecture| {
            let config = format!(r#"{{"os":"linux","architecture":"{architecture}"}}"#);
            let repo = format!("bob/{name}");
            let digest = site.push_blob(&repo, config.as_bytes());
            let layer = site.push_blob(&repo, architecture.as_bytes());
            manifest(&digest, config.len(), &[(&layer, architecture.len())], "")
        });
        let shelf = Shelf { site, name, texts };
        shelf.push("v1", 0);
        shelf.push("v2", 1);
        shelf.mlspace("PUT", &format!("tags/{}", shelf.tag_id("v1")), &json!({"color": "blue"}));
        shelf
    }

    fn repo(&self) -> String {
        format!("bob/{}", self.name)
    }

    fn digest(&self, image: usize) -> String {
        sha256(self.texts[image].as_bytes())
    }

    fn push(&self, tag: &str, image: usize) {
        self.send("PUT", &format!("/v2/{}/manifests/{tag}", self.repo()), OCI_MANIFEST, &self.texts[image]);
    }

    fn send(&self, method: &str, target: &str, content_type: &str, body: &str) -> Answer {
        let ask = self.site.ask(method, target).by("bob").header("Content-Type", content_type);
        let answer = ask.body(body.as_bytes()).send();
        assert!((200..300).contains(&answer.status), "{method} {target}: {answer:?}");
        answer
    }

    fn oci(&self, method: &str, rest: &str) {
        self.send(method, &format!("/v2/{}/{rest}", self.repo()), "", "");
    }

    fn hub(&self, method: &str, rest: &str, body: &Value) {
        let target = format!("/v2/repositories/{}/{rest}", self.repo());
        self.send(method, &target, "application/json", &body.to_string());
    }

    fn mlspace(&self, method: &str, rest: &str, body: &Value) -> Value {
        let target = format!("/public/v2/docker_registry/v2/{rest}");
        self.send(method, &target, "application/json", &body.to_string()).json()
    }

    fn repo_id(&self) -> String {
        mlspace_repo(self, "bob").unwrap()["id"].as_str().unwrap().to_owned()
    }

    fn image_id(&self, image: usize) -> String {
        let images = mlspace_images(self, "bob", &self.repo_id());
        let found = images.iter().find(|row| row["digest"] == self.digest(image)).unwrap();
        found["id"].as_str().unwrap().to_owned()
    }

    fn tag_id(&self, tag: &str) -> String {
        let repo = mlspace_repo(self, "bob").unwrap();
        let found = repo["tags"].as_array().unwrap().iter().find(|row| row["name"] == tag).unwrap();
        found["id"].as_str().unwrap().to_owned()
    }

    fn cli(&self, args: &[&str]) {
        let output = outport(&self.site.path(""), args, "");
        assert!(output.status.success(), "{args:?}: {}", complained(&output));
    }

    /// Everything about it, as it is at first.
    fn at_first(&self) -> Value {
        let (first, second) = (self.digest(0), self.digest(1));
        let mut images = [&first, &second];
        images.sort();
        json!({
            "private": true, "description": "", "full_description": "", "labels": [], "stars": 0,
            "starred": false, "pulls": 0, "tags": {"v1": first, "v2": second},
            "colors": {"v1": "blue", "v2": null}, "images": images,
        })
    }
}

// What each shows to a user -----------------------------------------------------------

fn get(shelf: &Shelf, who: &str, target: &str) -> Option<Answer> {
    let answer = shelf.site.ask("GET", target).by(who).send();
    assert!([200, 403, 404].contains(&answer.status), "{target}: {answer:?}");
    (answer.status == 200).then_some(answer)
}

/// A list's rows as an object, by two of their fields.
fn by_name(rows: &[Value], name: &str, value: impl Fn(&Value) -> Value) -> Value {
    let pairs = rows.iter().map(|row| (row[name].as_str().unwrap().to_owned(), value(row)));
    Value::Object(pairs.collect())
}

fn sorted<'a>(digests: impl Iterator<Item = &'a Value>) -> Value {
    let mut digests: Vec<&str> = digests.map(|digest| digest.as_str().unwrap()).collect();
    digests.sort_unstable();
    json!(digests)
}

fn oci(shelf: &Shelf, who: &str) -> Option<Value> {
    let repo = shelf.repo();
    let head = |reference: &str| {
        let answer = shelf.site.ask("HEAD", &format!("/v2/{repo}/manifests/{reference}")).by(who).send();
        answer.header("docker-content-digest").map(str::to_owned)
    };
    let listed = get(shelf, who, &format!("/v2/{repo}/tags/list"));
    let images: Vec<Value> =
        [0, 1].iter().filter_map(|image| head(&shelf.digest(*image))).map(Value::from).collect();
    let catalog = get(shelf, who, "/v2/_catalog").unwrap().strings("repositories");
    assert_eq!(catalog.contains(&repo), !images.is_empty(), "the catalog has what holds an image");
    let tags = listed?.strings("tags").into_iter().map(|tag| {
        let digest = head(&tag).unwrap();
        (tag, digest.into())
    });
    Some(json!({"tags": tags.collect::<Map<_, _>>(), "images": sorted(images.iter())}))
}

fn v1(shelf: &Shelf, who: &str) -> Option<Value> {
    let target = format!("/v1/repositories/{}", shelf.repo());
    let found = get(shelf, who, &format!("/v1/search?q={}", shelf.name)).unwrap().json();
    let found = found["results"].as_array().unwrap().iter().find(|row| row["name"] == shelf.repo()).cloned();
    let images = get(shelf, who, &format!("{target}/images"));
    assert_eq!(found.is_some(), images.is_some(), "what is there is found");
    let (images, found) = (images?.json(), found?);
    // Ids that were announced alone have no checksum.
    let images: Vec<&Value> =
        images.as_array().unwrap().iter().filter(|image| image["checksum"].is_string()).collect();
    let digest = |id: &Value| images.iter().find(|image| image["id"] == *id).unwrap()["checksum"].clone();
    let tags = get(shelf, who, &format!("{target}/tags")).unwrap().json();
    let tags: Map<String, Value> =
        tags.as_object().unwrap().iter().map(|(tag, id)| (tag.clone(), digest(id))).collect();
    let access = get(shelf, who, &format!("{target}/properties")).unwrap().json();
    Some(json!({
        "private": access["access"] == "private",
        "description": found["description"],
        "stars": found["star_count"],
        "tags": tags,
        "images": sorted(images.iter().map(|image| &image["checksum"])),
    }))
}

fn hub(shelf: &Shelf, who: &str) -> Option<Value> {
    let repo = get(shelf, who, &format!("/v2/repositories/{}/", shelf.repo()));
    for (list, name) in [("repositories/bob/?page_size=100", "name"), ("search/repositories/", "repo_name")] {
        let rows = get(shelf, who, &format!("/v2/{list}")).map_or(Value::Null, |list| list.json());
        let rows = rows["results"].as_array().cloned().unwrap_or_default();
        let listed = rows.iter().any(|row| row[name].as_str().unwrap().ends_with(shelf.name));
        assert_eq!(listed, repo.is_some(), "{list}");
    }
    let repo = repo?.json();
    let tags = get(shelf, who, &format!("/v2/repositories/{}/tags/", shelf.repo())).unwrap().json();
    Some(json!({
        "private": repo["is_private"],
        "description": repo["description"],
        "full_description": repo["full_description"],
        "stars": repo["star_count"],
        "starred": repo["has_starred"],
        "pulls": repo["pull_count"],
        "tags": by_name(tags["results"].as_array().unwrap(), "name", |tag| tag["digest"].clone()),
    }))
}

/// ML Space's list of bob's workspace, which others name.
fn mlspace_get(shelf: &Shelf, who: &str, rest: &str) -> Answer {
    let root = "/public/v2/docker_registry/v2";
    let workspace = get(shelf, "bob", &format!("{root}/registries/current")).unwrap().json();
    let ask = shelf.site.ask("GET", &format!("{root}/{rest}")).by(who);
    ask.header("x-workspace-id", workspace["id"].as_str().unwrap()).send()
}

fn mlspace_repo(shelf: &Shelf, who: &str) -> Option<Value> {
    let rows = mlspace_get(shelf, who, "repositories/?page_size=50").json();
    rows.as_array().unwrap().iter().find(|row| row["name"] == shelf.name).cloned()
}

fn mlspace_images(shelf: &Shelf, who: &str, repo_id: &str) -> Vec<Value> {
    mlspace_get(shelf, who, &format!("images/?repository_id={repo_id}")).json().as_array().unwrap().clone()
}

fn mlspace(shelf: &Shelf, who: &str) -> Option<Value> {
    let repo = mlspace_repo(shelf, who)?;
    let images = mlspace_images(shelf, who, repo["id"].as_str().unwrap());
    let digest =
        |tag: &Value| images.iter().find(|image| image["id"] == tag["image_id"]).unwrap()["digest"].clone();
    let tags = repo["tags"].as_array().unwrap();
    Some(json!({
        "description": repo["description"].as_str().unwrap_or_default(),
        "labels": repo["labels"],
        "starred": repo["favorite"],
        "tags": by_name(tags, "name", digest),
        "colors": by_name(tags, "name", |tag| tag["color"].clone()),
        "images": sorted(images.iter().map(|image| &image["digest"])),
    }))
}

/// The command line, which is the administrator's, whoever else asks.
fn cli(shelf: &Shelf, _: &str) -> Option<Value> {
    let repo = shelf.repo();
    let rows = |args: [&str; 3]| -> Option<Vec<Value>> {
        let output = outport(&shelf.site.path(""), &[&args[..], &["--json"]].concat(), "");
        let lines = said(&output);
        output
            .status
            .success()
            .then(|| lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect())
    };
    let mut whole = rows(["repo", "show", &repo])?.pop().unwrap();
    let (tags, images) = (rows(["tag", "list", &repo]).unwrap(), rows(["image", "list", &repo]).unwrap());
    whole["tags"] = by_name(&tags, "name", |tag| tag["digest"].clone());
    whole["colors"] = by_name(&tags, "name", |tag| tag["color"].clone());
    whole["images"] = sorted(images.iter().map(|image| &image["digest"]));
    Some(whole)
}

type View = fn(&Shelf, &str) -> Option<Value>;

/// Each way to look at a repository, and what of it is seen by it.
const VIEWS: [(&str, View, &[&str]); 5] = [
    ("oci", oci, &["tags", "images"]),
    ("v1", v1, &["private", "description", "stars", "tags", "images"]),
    ("hub", hub, &["private", "description", "full_description", "stars", "starred", "pulls", "tags"]),
    ("mlspace", mlspace, &["description", "labels", "starred", "tags", "colors", "images"]),
    (
        "command line",
        cli,
        &["private", "description", "full_description", "labels", "stars", "tags", "colors", "images"],
    ),
];

/// All of them show what is expected, as far as they show it; or that there is nothing.
fn all_show(shelf: &Shelf, expected: Option<&Value>, when: &str) {
    for (view, look, keys) in VIEWS {
        let seen = look(shelf, "bob");
        assert_eq!(seen.is_some(), expected.is_some(), "{view} {when}");
        if let (Some(seen), Some(expected)) = (seen, expected) {
            for key in keys {
                assert_eq!(seen[key], expected[key], "{view}: {key} {when}");
            }
        }
    }
}

// What each can change ----------------------------------------------------------------

type Do = fn(&Shelf);

/// What is done, what is to be seen then, and the ways to do it.
type Change = (&'static str, fn(&Shelf, &mut Value), &'static [(&'static str, Do)]);

const CHANGES: &[Change] = &[
    (
        "a tag has another colour",
        |_, whole| whole["colors"]["v2"] = json!("red"),
        &[
            ("mlspace", |shelf| {
                shelf.mlspace("PUT", &format!("tags/{}", shelf.tag_id("v2")), &json!({"color": "red"}));
            }),
            ("cli", |shelf| shelf.cli(&["tag", "set", &format!("{}:v2", shelf.repo()), "--color", "red"])),
        ],
    ),
    (
        "a tag has no colour",
        |_, whole| whole["colors"]["v1"] = Value::Null,
        &[
            ("mlspace", |shelf| {
                shelf.mlspace("PUT", &format!("tags/{}", shelf.tag_id("v1")), &json!({"color": null}));
            }),
            ("cli", |shelf| shelf.cli(&["tag", "set", &format!("{}:v1", shelf.repo()), "--color", ""])),
        ],
    ),
    (
        "an image has another tag",
        |shelf, whole| {
            whole["tags"]["v3"] = json!(shelf.digest(0));
            whole["colors"]["v3"] = json!("green");
        },
        &[
            ("oci, and mlspace", |shelf| {
                shelf.push("v3", 0);
                shelf.mlspace("PUT", &format!("tags/{}", shelf.tag_id("v3")), &json!({"color": "green"}));
            }),
            ("mlspace", |shelf| {
                let tag = json!({"image_id": shelf.image_id(0), "name": "v3", "color": "green"});
                shelf.mlspace("POST", "tags/", &tag);
            }),
            ("cli", |shelf| {
                shelf.cli(&[
                    "tag",
                    "set",
                    &format!("{}:v3", shelf.repo()),
                    &shelf.digest(0),
                    "--color",
                    "green",
                ]);
            }),
        ],
    ),
    (
        "a tag names another image, and keeps its colour",
        |shelf, whole| whole["tags"]["v1"] = json!(shelf.digest(1)),
        &[
            ("oci", |shelf| shelf.push("v1", 1)),
            ("mlspace", |shelf| {
                shelf.mlspace("POST", "tags/", &json!({"image_id": shelf.image_id(1), "name": "v1"}));
            }),
            ("cli", |shelf| shelf.cli(&["tag", "set", &format!("{}:v1", shelf.repo()), "v2"])),
        ],
    ),
    (
        "somebody likes it",
        |_, whole| (whole["stars"], whole["starred"]) = (json!(1), json!(true)),
        &[
            ("hub", |shelf| shelf.hub("POST", "stars/", &json!({}))),
            ("mlspace", |shelf| {
                shelf.mlspace(
                    "POST",
                    &format!("repositories/{}/fav", shelf.repo_id()),
                    &json!({"favorite": true}),
                );
            }),
        ],
    ),
    (
        "somebody liked it and no longer does",
        |_, _| {},
        &[
            ("hub, and mlspace", |shelf| {
                shelf.hub("POST", "stars/", &json!({}));
                shelf.mlspace(
                    "POST",
                    &format!("repositories/{}/fav", shelf.repo_id()),
                    &json!({"favorite": false}),
                );
            }),
            ("mlspace, and hub", |shelf| {
                shelf.mlspace(
                    "POST",
                    &format!("repositories/{}/fav", shelf.repo_id()),
                    &json!({"favorite": true}),
                );
                shelf.hub("DELETE", "stars/", &json!({}));
            }),
        ],
    ),
    (
        "it is public",
        |_, whole| whole["private"] = json!(false),
        &[
            ("hub's privacy", |shelf| shelf.hub("POST", "privacy/", &json!({"is_private": false}))),
            ("hub", |shelf| shelf.hub("PATCH", "", &json!({"is_private": false}))),
            ("cli", |shelf| shelf.cli(&["repo", "set", &shelf.repo(), "--public"])),
        ],
    ),
    (
        "it has a description",
        |_, whole| whole["description"] = json!("a camera"),
        &[
            ("hub", |shelf| shelf.hub("PATCH", "", &json!({"description": "a camera"}))),
            ("mlspace", |shelf| {
                let change = json!({"description": "a camera"});
                shelf.mlspace("PUT", &format!("repositories/{}", shelf.repo_id()), &change);
            }),
            ("cli", |shelf| shelf.cli(&["repo", "set", &shelf.repo(), "--description", "a camera"])),
        ],
    ),
    (
        "it has a long description",
        |_, whole| whole["full_description"] = json!("a camera\nthat sees"),
        &[
            ("hub", |shelf| shelf.hub("PATCH", "", &json!({"full_description": "a camera\nthat sees"}))),
            ("cli", |shelf| {
                let file = shelf.site.path("about.md");
                std::fs::write(&file, "a camera\nthat sees").unwrap();
                shelf.cli(&["repo", "set", &shelf.repo(), "--full-description", file.to_str().unwrap()]);
            }),
        ],
    ),
    (
        "it has labels",
        |_, whole| whole["labels"] = json!(["edge", "arm"]),
        &[
            ("mlspace", |shelf| {
                let change = json!({"labels": ["edge", "arm"]});
                shelf.mlspace("PUT", &format!("repositories/{}", shelf.repo_id()), &change);
            }),
            ("cli", |shelf| {
                shelf.cli(&["repo", "set", &shelf.repo(), "--label", "edge", "--label", "arm"]);
            }),
        ],
    ),
    (
        "it was pulled from",
        |_, whole| whole["pulls"] = json!(1),
        &[("oci", |shelf| shelf.oci("GET", "manifests/v1"))],
    ),
    (
        "a tag is gone, and its image is not",
        |_, whole| {
            whole["tags"].as_object_mut().unwrap().remove("v1");
            whole["colors"].as_object_mut().unwrap().remove("v1");
        },
        &[
            ("oci", |shelf| shelf.oci("DELETE", "manifests/v1")),
            ("hub", |shelf| shelf.hub("DELETE", "tags/v1/", &json!({}))),
            ("mlspace", |shelf| {
                shelf.mlspace("DELETE", "tags/", &json!({"tag_ids": [shelf.tag_id("v1")]}));
            }),
            ("cli", |shelf| shelf.cli(&["tag", "remove", &format!("{}:v1", shelf.repo())])),
        ],
    ),
    (
        "an image is gone, and its tag with it",
        |shelf, whole| {
            whole["tags"].as_object_mut().unwrap().remove("v1");
            whole["colors"].as_object_mut().unwrap().remove("v1");
            whole["images"] = json!([shelf.digest(1)]);
        },
        &[
            ("oci", |shelf| shelf.oci("DELETE", &format!("manifests/{}", shelf.digest(0)))),
            ("mlspace", |shelf| {
                shelf.mlspace("DELETE", "images/", &json!({"image_ids": [shelf.image_id(0)]}));
            }),
            ("cli", |shelf| {
                shelf.cli(&["image", "remove", &format!("{}@{}", shelf.repo(), shelf.digest(0))])
            }),
        ],
    ),
];

const DELETES: &[(&str, Do)] = &[
    ("hub", |shelf| shelf.hub("DELETE", "", &json!({}))),
    ("hub's other address", |shelf| {
        shelf.send("DELETE", &format!("/v2/namespaces/bob/repositories/{}", shelf.name), "", "");
    }),
    ("v1", |shelf| {
        shelf.send("DELETE", &format!("/v1/repositories/{}/", shelf.repo()), "", "");
    }),
    ("mlspace", |shelf| {
        shelf.mlspace("DELETE", "repositories/", &json!({"repository_ids": [shelf.repo_id()]}));
    }),
    ("cli", |shelf| shelf.cli(&["repo", "remove", &shelf.repo()])),
];

#[test]
fn what_one_of_them_changes_all_the_others_show_at_once() {
    let site = Site::new();
    let other = Shelf::new(&site, "other");
    for (what, then, ways) in CHANGES {
        for (way, change) in *ways {
            let shelf = Shelf::new(&site, "camera");
            let mut whole = shelf.at_first();
            all_show(&shelf, Some(&whole), "at first");
            change(&shelf);
            then(&shelf, &mut whole);
            all_show(&shelf, Some(&whole), &format!("once {what} by {way}"));
            shelf.cli(&["repo", "remove", "bob/camera"]);
        }
    }
    all_show(&other, Some(&other.at_first()), "after all that was done to another");
}

#[test]
fn a_repository_deleted_by_any_of_them_is_gone_from_all_and_one_of_its_name_begins_anew() {
    let site = Site::new();
    for (way, delete) in DELETES {
        let shelf = Shelf::new(&site, "camera");
        shelf.hub("POST", "stars/", &json!({}));
        shelf.cli(&["repo", "set", "bob/camera", "--public", "--label", "old", "--description", "old"]);
        delete(&shelf);
        all_show(&shelf, None, &format!("once it is deleted by {way}"));
        let gone = site.ask("GET", "/v2/bob/camera/manifests/v1").by("bob").send();
        gone.is(404, "MANIFEST_UNKNOWN");
        let shelf = Shelf::new(&site, "camera");
        all_show(&shelf, Some(&shelf.at_first()), &format!("pushed anew after {way}"));
        shelf.cli(&["repo", "remove", "bob/camera"]);
    }
}

#[test]
fn what_is_private_is_hidden_from_strangers_by_all_and_what_is_public_is_shown() {
    let site = Site::new();
    site.add_user("carol");
    let shelf = Shelf::new(&site, "camera");
    let strangers = |look: View| look(&shelf, "carol").is_some();
    let dialects = || VIEWS.iter().filter(|(view, ..)| *view != "command line");
    for (private, way) in [(true, "at first"), (false, "then"), (true, "in the end")] {
        shelf.hub("POST", "privacy/", &json!({"is_private": private}));
        for (view, look, _) in dialects() {
            assert_eq!(strangers(*look), !private, "{view} {way}");
        }
    }
    let (first, _) = (shelf.digest(0), shelf.digest(1));
    let stranger = site.ask("GET", &format!("/v2/bob/camera/manifests/{first}")).by("carol").send();
    assert_eq!(stranger.status, 403);
}

#[test]
fn what_is_announced_or_made_empty_exists_for_all_until_it_is_pushed_to_and_after() {
    let site = Site::new();
    let ways: [(&str, Do); 3] = [
        ("v1", |shelf| {
            let images = r#"[{"id":"1020903f808f"}]"#;
            shelf.send("PUT", &format!("/v1/repositories/{}/", shelf.repo()), "", images);
        }),
        ("hub", |shelf| {
            let body = json!({"namespace": "bob", "name": shelf.name, "is_private": true});
            shelf.send("POST", "/v2/repositories/", "application/json", &body.to_string());
        }),
        ("cli", |shelf| shelf.cli(&["repo", "set", &shelf.repo(), "--private"])),
    ];
    for (way, make) in ways {
        let texts = Shelf::new(&site, "camera").texts;
        let shelf = Shelf { site: &site, name: "camera", texts };
        shelf.cli(&["repo", "remove", "bob/camera"]);
        make(&shelf);
        let mut empty = shelf.at_first();
        (empty["tags"], empty["colors"], empty["images"]) = (json!({}), json!({}), json!([]));
        all_show(&shelf, Some(&empty), &format!("made by {way}"));
        let status = |shelf: &Shelf| {
            get(shelf, "bob", "/v2/repositories/bob/camera/").unwrap().json()["status"].as_i64()
        };
        assert_eq!(status(&shelf), Some(0), "initialized");
        let shelf = Shelf::new(&site, "camera");
        all_show(&shelf, Some(&shelf.at_first()), &format!("made by {way} and pushed to"));
        assert_eq!(status(&shelf), Some(1));
        shelf.cli(&["repo", "remove", "bob/camera"]);
    }
}

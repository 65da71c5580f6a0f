//! Repositories, tags and images at the command line, beside a running server.

use crate::binary::{BINARY, complained, outport, said};
use crate::harness::{OCI_MANIFEST, Site, manifest, sha256};
use outport::names::UserName;
use outport::registry::Collect;
use serde_json::{Value, json};
use std::collections::HashSet;
use std::io::{BufRead, BufReader, Read};
use std::process::{Command, Stdio};
use std::time::Duration;

/// What a verb says to people.
fn told(site: &Site, args: &[&str]) -> String {
    let output = outport(&site.path(""), args, "");
    assert!(output.status.success(), "{args:?}: {}", complained(&output));
    said(&output)
}

/// What it says to scripts: a value a line.
fn lines(site: &Site, args: &[&str]) -> Vec<Value> {
    let text = told(site, &[args, &["--json"]].concat());
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn one(site: &Site, args: &[&str]) -> Value {
    let mut lines = lines(site, args);
    assert_eq!(lines.len(), 1, "{lines:?}");
    lines.remove(0)
}

#[test]
fn a_tag_is_made_moved_coloured_and_removed_and_each_time_it_is_told_what_was_before() {
    let site = Site::new();
    let (first, second) =
        (site.push_image("bob/app", "v1", b"one"), site.push_image("bob/app", "v2", b"another"));
    let made = one(&site, &["tag", "set", "bob/app:stable", "v1"]);
    let expected =
        json!({"repository": "bob/app", "tag": "stable", "digest": first, "before": null, "color": null});
    assert_eq!(made, expected);
    let moved = told(&site, &["tag", "set", "bob/app:stable", &second, "--color", "green"]);
    assert_eq!(moved, format!("bob/app:stable is {second}, in green. It was {first}.\n"));
    let pulled = site.ask("HEAD", "/v2/bob/app/manifests/stable").send();
    assert_eq!(pulled.header("docker-content-digest"), Some(second.as_str()));
    let cleared = one(&site, &["tag", "set", "bob/app:stable", "--color", ""]);
    assert_eq!((&cleared["before"], &cleared["color"]), (&json!(second), &Value::Null));
    let listed = lines(&site, &["tag", "list", "bob/app"]);
    let names: Vec<_> = listed.iter().map(|row| (&row["name"], &row["digest"], &row["pushed_by"])).collect();
    assert_eq!(
        names,
        [
            (&json!("stable"), &json!(second), &Value::Null),
            (&json!("v1"), &json!(first), &json!("admin")),
            (&json!("v2"), &json!(second), &json!("admin")),
        ]
    );
    let rehearsed = told(&site, &["tag", "remove", "bob/app:stable", "--dry-run"]);
    assert_eq!(
        rehearsed,
        format!("Would remove the tag bob/app:stable. The image bob/app@{second} would stay.\n")
    );
    assert_eq!(lines(&site, &["tag", "list", "bob/app"]).len(), 3);
    assert_eq!(one(&site, &["tag", "remove", "bob/app:stable"])["removed"]["digest"], second);
    site.get("/v2/bob/app/manifests/stable").is(404, "MANIFEST_UNKNOWN");
    assert_eq!(site.get(&format!("/v2/bob/app/manifests/{second}")).status, 200);
}

#[test]
fn what_a_removed_user_pushed_stays_and_is_nobodys_whoever_comes_next() {
    let site = Site::new();
    let text = manifest(&site.push_blob("bob/app", b"{}"), 2, &[], "");
    let put = site.ask("PUT", "/v2/bob/app/manifests/v1").by("bob").header("content-type", OCI_MANIFEST);
    assert_eq!(put.body(text.as_bytes()).send().status, 201);
    let pushers = |site: &Site| {
        let (tag, image) = (one(site, &["tag", "list", "bob/app"]), one(site, &["image", "list", "bob/app"]));
        (tag["pushed_by"].clone(), image["pushed_by"].clone())
    };
    assert_eq!(pushers(&site), (json!("bob"), json!("bob")));
    site.registry.user_remove(&UserName::parse("bob").unwrap()).unwrap();
    assert_eq!(pushers(&site), (Value::Null, Value::Null));
    site.add_user("zoe");
    assert_eq!(pushers(&site), (Value::Null, Value::Null));
    assert_eq!(site.get("/v2/bob/app/manifests/v1").status, 200);
}

#[test]
fn an_image_is_shown_with_all_that_it_names_and_all_that_names_it() {
    let site = Site::new();
    let config = br#"{"os":"linux","architecture":"arm64","variant":"v8"}"#;
    let (config_digest, layer) = (site.push_blob("bob/app", config), site.push_blob("bob/app", b"layer"));
    let text = manifest(&config_digest, config.len(), &[(&layer, 5)], "");
    assert_eq!(site.put_manifest("bob/app", "v1", &text).status, 201);
    let image = sha256(text.as_bytes());
    let elsewhere = sha256(b"never pushed");
    let index = site.push_index("bob/app", "all", &[&image, &elsewhere]);
    let subject = format!(
        r#","artifactType":"application/x.signature","subject":{{"mediaType":"{}","digest":"{image}","size":{}}}"#,
        OCI_MANIFEST,
        text.len()
    );
    let signature = manifest(&config_digest, config.len(), &[], &subject);
    let signature_digest = sha256(signature.as_bytes());
    assert_eq!(site.put_manifest("bob/app", &signature_digest, &signature).status, 201);

    let shown = one(&site, &["image", "show", "bob/app:v1"]);
    assert_eq!(shown, one(&site, &["image", "show", &format!("bob/app@{image}")]));
    for (key, expected) in [
        ("repository", json!("bob/app")),
        ("digest", json!(image)),
        ("bytes", json!(text.len())),
        ("content_bytes", json!(config.len() + 5)),
        ("config", json!(config_digest)),
        ("pushed_by", json!("admin")),
        ("live", json!(true)),
        ("tags", json!(["v1"])),
        ("listed_by", json!([index])),
        ("referrers", json!([{"digest": signature_digest, "artifact_type": "application/x.signature"}])),
        // The signature needs the config too.
        ("frees_bytes", json!(5)),
    ] {
        assert_eq!(shown[key], expected, "{key}");
    }
    let blobs: Vec<_> = shown["blobs"].as_array().unwrap().iter().map(|blob| &blob["digest"]).collect();
    assert_eq!(blobs, [&json!(config_digest), &json!(layer)]);
    assert_eq!(shown["platforms"][0]["variant"], "v8");
    let told_of_index = told(&site, &["image", "show", "bob/app:all"]);
    assert!(told_of_index.contains(&format!("lists        {elsewhere} missing")), "{told_of_index}");
    let told_of_image = told(&site, &["image", "show", "bob/app:v1"]);
    assert!(told_of_image.contains("platform     linux/arm64/v8\n"), "{told_of_image}");

    let listed = lines(&site, &["image", "list", "bob/app"]);
    let mut digests: Vec<_> = listed.iter().map(|row| row["digest"].as_str().unwrap()).collect();
    digests.sort_unstable();
    let mut expected = [image.as_str(), &index, &signature_digest];
    expected.sort_unstable();
    assert_eq!(digests, expected);
    let of_index = listed.iter().find(|row| row["digest"] == index.as_str()).unwrap();
    assert_eq!(of_index["content_bytes"], config.len() + 5, "of what is here");

    std::fs::write(site.blob_path(&layer), b"wrong").unwrap();
    assert_eq!(site.get(&format!("/v2/bob/app/blobs/{layer}")).status, 404);
    let damaged = told(&site, &["image", "show", "bob/app:v1"]);
    assert!(damaged.contains(&format!("layer        {layer} 5 bytes missing")), "{damaged}");
}

#[test]
fn what_is_deleted_is_told_first_and_so_many_bytes_come_back() {
    let site = Site::new();
    let layer = [7; 5_000];
    let digest = site.push_image("bob/app", "v1", &layer);
    told(&site, &["tag", "set", "bob/app:latest", "v1"]);
    site.push_index("bob/app", "all", &[&digest]);
    let other = site.push_image("bob/other", "v1", b"small");
    let image = format!("bob/app@{digest}");
    let rehearsed = told(&site, &["image", "remove", &image, "--dry-run"]);
    // Its config is everybody's.
    let expected = format!(
        "Would remove {image} with its 2 tags latest, v1. 1 of the repository's indexes list it, and lack it then. \
         5000 bytes come back with the next collection, by itself or by `outport gc`, once they are 3600 seconds old.\n"
    );
    assert_eq!(rehearsed, expected);
    let collect = || {
        let ask = Collect { grace: Duration::ZERO, dry_run: false };
        site.registry.collect(ask, |_| {}).unwrap().bytes
    };
    assert_eq!((site.get("/v2/bob/app/manifests/latest").status, collect()), (200, 0));
    let removed = one(&site, &["image", "remove", &image]);
    assert_eq!((&removed["removed"]["tags"], &removed["dry_run"]), (&json!(["latest", "v1"]), &json!(false)));
    assert_eq!(site.get("/v2/bob/app/tags/list").strings("tags"), ["all"]);
    assert_eq!(collect(), 5_000);

    let rehearsed = told(&site, &["repo", "remove", "bob/other", "--dry-run"]);
    assert!(rehearsed.starts_with("Would remove bob/other with 1 tags and 1 images. 7 bytes"), "{rehearsed}");
    assert_eq!(site.get(&format!("/v2/bob/other/manifests/{other}")).status, 200);
    assert_eq!(one(&site, &["repo", "remove", "bob/other"])["removed"]["frees_bytes"], 7);
    assert_eq!(collect(), 7);
}

#[test]
fn a_damaged_image_is_shown_as_such_and_can_be_removed() {
    let site = Site::new();
    let digest = site.push_image("bob/app", "v1", b"layer");
    let database = rusqlite::Connection::open(site.path("registry.db")).unwrap();
    database.execute("UPDATE manifest SET body = CAST(replace(body, '2', '3') AS BLOB)", []).unwrap();
    site.get("/v2/bob/app/manifests/v1").is(404, "MANIFEST_UNKNOWN");
    assert!(told(&site, &["tag", "list", "bob/app"]).contains("damaged"));
    assert!(told(&site, &["image", "list", "bob/app"]).contains(" damaged "));
    assert_eq!(one(&site, &["image", "show", "bob/app:v1"])["live"], false);
    told(&site, &["image", "remove", &format!("bob/app@{digest}")]);
    assert_eq!(lines(&site, &["image", "list", "bob/app"]).len(), 0);
}

#[test]
fn a_repository_is_changed_as_far_as_is_said_and_made_if_it_is_new() {
    let site = Site::new();
    let set = |args: &[&str]| one(&site, &[&["repo", "set", "edge/cam"], args].concat());
    let made = set(&["--description", "a camera", "--label", "edge", "--label", "arm"]);
    assert_eq!(
        (&made["name"], &made["private"], &made["pushed"]),
        (&json!("edge/cam"), &json!(true), &json!(false))
    );
    let text = site.path("about.md");
    std::fs::write(&text, "All of it.\u{1b}[2J").unwrap();
    let changed = set(&["--public", "--full-description", text.to_str().unwrap()]);
    assert_eq!(
        (&changed["private"], &changed["description"], &changed["labels"]),
        (&json!(false), &json!("a camera"), &json!(["edge", "arm"]))
    );
    let shown = told(&site, &["repo", "show", "edge/cam"]);
    assert!(shown.ends_with("\n\nAll of it.\u{fffd}[2J\n"), "it commands no terminal: {shown:?}");
    assert_eq!(set(&["--label", "one"])["labels"], json!(["one"]));
    let cleared = set(&["--label", "", "--description", "", "--private"]);
    assert_eq!(
        (&cleared["private"], &cleared["description"], &cleared["labels"]),
        (&json!(true), &json!(""), &json!([]))
    );
    let rows = lines(&site, &["repo", "list"]);
    assert_eq!((rows.len(), &rows[0]["name"], &rows[0]["tags"]), (1, &json!("edge/cam"), &json!(0)));
}

#[test]
fn whoever_pushed_announced_or_made_a_repository_first_made_it() {
    let site = Site::new();
    let blob = site.push_blob("team/source", b"layer");
    type Make = fn(&Site, &str, &str) -> u16;
    let ways: [(&str, Make); 5] = [
        ("bob/blob", |site, repo, blob| {
            let target = format!("/v2/{repo}/blobs/uploads/?digest={blob}");
            site.ask("POST", &target).by("bob").body(b"layer").send().status
        }),
        ("bob/mount", |site, repo, blob| {
            let target = format!("/v2/{repo}/blobs/uploads/?mount={blob}");
            site.ask("POST", &target).by("bob").send().status
        }),
        ("bob/index", |site, repo, _| {
            let index = format!(
                r#"{{"schemaVersion":2,"mediaType":"{}","manifests":[]}}"#,
                crate::harness::OCI_INDEX
            );
            site.ask("PUT", &format!("/v2/{repo}/manifests/v1"))
                .by("bob")
                .body(index.as_bytes())
                .send()
                .status
        }),
        ("bob/announced", |site, repo, _| {
            site.ask("PUT", &format!("/v1/repositories/{repo}/")).by("bob").body(b"[]").send().status
        }),
        ("bob/made", |site, repo, _| {
            let body = json!({"namespace": "bob", "name": repo.split('/').nth(1)});
            site.ask("POST", "/v2/repositories/").by("bob").json(&body).send().status
        }),
    ];
    for (repo, make) in ways {
        assert!([200, 201].contains(&make(&site, repo, &blob)), "{repo}");
        site.push_image(repo, "later", b"by an administrator");
        assert_eq!(one(&site, &["repo", "show", repo])["created_by"], "bob", "{repo}");
    }
    assert_eq!(one(&site, &["repo", "set", "bob/here", "--private"])["created_by"], Value::Null);
}

#[test]
fn lists_of_any_length_come_whole_in_order_and_end_where_their_reader_does() {
    let site = Site::new();
    let text = site.image_of("bob/app", b"layer");
    let names: Vec<String> = (0..2_500).map(|n| format!("t{n:04}")).collect();
    for some in names.chunks(250) {
        let query: Vec<String> = some.iter().map(|name| format!("tag={name}")).collect();
        let target = format!("{}?{}", sha256(text.as_bytes()), query.join("&"));
        assert_eq!(site.put_manifest("bob/app", &target, &text).status, 201);
    }
    let listed = lines(&site, &["tag", "list", "bob/app"]);
    assert!(listed.iter().map(|row| row["name"].as_str().unwrap()).eq(names.iter().map(String::as_str)));
    let image = one(&site, &["image", "list", "bob/app"]);
    assert_eq!((image["tag_count"].as_u64(), image["tags"].as_array().unwrap().len()), (Some(2_500), 100));
    assert!(
        told(&site, &["image", "list", "bob/app"])
            .ends_with("t0000, t0001, t0002, t0003, t0004 and 2495 more\n")
    );

    let database = rusqlite::Connection::open(site.path("registry.db")).unwrap();
    database
        .execute_batch(
            "WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < 2500)
             INSERT INTO manifest (uuid, repo, digest, media_type, bytes, pushed_us, body)
             SELECT 'u' || n, (SELECT id FROM repo), 'sha256:' || printf('%064x', n), 'type', 0, n / 700, x'' FROM n",
        )
        .unwrap();
    // Many were pushed at one time, and pages end among them.
    let images = lines(&site, &["image", "list", "bob/app"]);
    let times: Vec<_> = images.iter().map(|row| row["pushed_us"].as_i64().unwrap()).collect();
    assert!(times.is_sorted_by(|a, b| a >= b));
    let digests: HashSet<_> = images.iter().map(|row| row["digest"].as_str().unwrap()).collect();
    assert_eq!((images.len(), digests.len()), (2_501, 2_501));

    let mut child = Command::new(BINARY)
        .args(["tag", "list", "bob/app", "--json", "--data"])
        .arg(site.path(""))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::with_capacity(1, child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let mut complaint = String::new();
    child.stderr.take().unwrap().read_to_string(&mut complaint).unwrap();
    assert_eq!((child.wait().unwrap().code(), complaint.as_str()), (Some(0), ""));
    assert!(line.contains("t0000"));
}

#[test]
fn what_manifests_claim_of_their_size_is_listed_whatever_it_is() {
    let site = Site::new();
    let config = site.push_blob("bob/app", b"{}");
    let images = ["a", "b"].map(|name| {
        let layer = site.push_blob("bob/app", name.as_bytes());
        let text = manifest(&config, 2, &[(&layer, usize::MAX)], "");
        assert_eq!(site.put_manifest("bob/app", name, &text).status, 201);
        sha256(text.as_bytes())
    });
    site.push_index("bob/app", "all", &[&images[0], &images[1]]);
    assert_eq!(lines(&site, &["image", "list", "bob/app"]).len(), 3);
    assert_eq!(one(&site, &["image", "show", "bob/app:all"])["content_bytes"], 9_000_000_000_000_000_000_u64);
}

#[test]
fn mistakes_are_told_with_what_to_do_and_change_nothing() {
    let site = Site::new();
    let digest = site.push_image("bob/app", "v1", b"layer");
    let image = format!("bob/app@{digest}");
    let absent = format!("bob/app@{}", sha256(b"absent"));
    for (args, code, words) in [
        (&["tag", "list", "bob/none"][..], 1, "no repository bob/none; `outport repo list`"),
        (&["tag", "set", "bob/app:x", "none"], 1, "no such image; `outport image list bob/app`"),
        (&["tag", "set", "bob/app:none", "--color", "red"], 1, "no such tag; `outport tag list bob/app`"),
        (
            &["tag", "set", "bob/app:v1", "--color", "a colour of more than thirty-two letters"],
            1,
            "32 characters",
        ),
        (&["tag", "set", "bob/app:v1"], 2, "<DIGEST|TAG>"),
        (&["tag", "set", "bob/app", "v1"], 1, "REPOSITORY:TAG"),
        (&["tag", "remove", &image], 1, "REPOSITORY:TAG"),
        (&["tag", "remove", "bob/app:none"], 1, "no such tag"),
        (&["image", "remove", "bob/app:v1"], 1, "by its digest"),
        (&["image", "remove", &absent], 1, "no such image"),
        (&["image", "remove", &absent, "--dry-run"], 1, "no such image"),
        (&["image", "show", "bob/app"], 1, "no such image"),
        (&["repo", "set", "bob/app"], 2, "--public"),
        (&["repo", "set", "bob/app", "--public", "--private"], 2, "cannot be used"),
        (&["repo", "set", "Bob", "--public"], 1, "lower-case"),
        (&["repo", "remove", "bob/none", "--dry-run"], 1, "no repository bob/none"),
        (&["revoke", "bob/app", "--from", "bob", "--dry-run"], 1, "nothing was granted"),
        (&["token", "revoke", "7", "--dry-run"], 1, "no token 7"),
        (&["service", "remove", "x", "--dry-run"], 1, "no service client x"),
    ] {
        let output = outport(&site.path(""), args, "");
        let complaint = complained(&output);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {complaint}");
        assert!(complaint.contains(words), "{args:?}: {complaint}");
    }
    let tags = lines(&site, &["tag", "list", "bob/app"]);
    assert_eq!((tags.len(), &tags[0]["color"]), (1, &Value::Null));
    assert_eq!(lines(&site, &["repo", "list"]).len(), 1);
}

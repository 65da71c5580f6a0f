//! ML Space's API: repositories, images and tags by UUID, generated passwords, service clients.

use crate::harness::{Answer, Ask, OCI_INDEX, PASSWORD, Site, manifest, sha256};
use outport::names::{UserName, Uuid};
use outport::registry::{Access, Grantee, Level, Pattern, ServiceMade, UserAdd};
use serde_json::{Value, json};
use std::time::Duration;

const ROOT: &str = "/public/v2/docker_registry";
const NOWHERE: &str = "44b5e14a-3919-11EA-8f8f-3a4ce9d1e497";

fn get(site: &Site, who: &str, target: &str) -> Answer {
    site.ask("GET", &format!("{ROOT}{target}")).by(who).send()
}

fn send(site: &Site, method: &str, target: &str, body: &Value) -> Answer {
    site.ask(method, &format!("{ROOT}{target}")).by("bob").json(body).send()
}

fn good(answer: &Answer) -> Value {
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()
}

fn generate(site: &Site) -> String {
    let answer = get(site, "bob", "/v1/users/generate_password");
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    good(&answer)["password"].as_str().unwrap().to_owned()
}

fn logs_in(site: &Site, password: &str) -> u16 {
    site.ask("GET", "/v2/").with_password("bob", password).send().status
}

#[test]
fn a_new_generated_password_voids_the_one_before_and_looking_ahead_does_not() {
    let site = Site::new();
    let first = generate(&site);
    let target = format!("{ROOT}/v1/users/generate_password");
    let head = site.ask("HEAD", &target).by("bob").send();
    assert_eq!((head.status, head.header("allow")), (405, Some("GET")));
    assert_eq!(logs_in(&site, &first), 200);
    let bearer = site.ask("GET", "/token?scope=repository:bob/x:push").with_password("bob", &first).send();
    let bearer = bearer.json()["token"].as_str().unwrap().to_owned();
    let push = |token: &str| site.ask("POST", "/v2/bob/x/blobs/uploads/").bearer(token).send().status;
    assert_eq!(push(&bearer), 202);
    let second = generate(&site);
    assert_eq!((logs_in(&site, &first), logs_in(&site, &second)), (401, 200));
    assert_eq!(push(&bearer), 401, "and what it was exchanged for");
    let body = json!({"username": "bob", "password": second});
    assert_eq!(site.ask("POST", "/v2/users/login/").by_nobody().json(&body).send().status, 401);
    let again = site.ask("GET", &target).with_password("bob", &second).send();
    assert_eq!((again.status, again.json()["error_code"].as_u64()), (403, Some(403)));
    assert_eq!(site.ask("GET", "/v2/").with_password("admin", &second).send().status, 401);
}

#[test]
fn docker_logs_in_with_an_email_address_and_a_generated_password_and_pushes() {
    let site = Site::new();
    let name = UserName::parse("carol").unwrap();
    let email = Some("carol@site.example");
    site.registry.user_add(&UserAdd { name: &name, password: PASSWORD, admin: false, email }).unwrap();
    let password = good(&get(&site, "carol", "/v1/users/generate_password"));
    let password = password["password"].as_str().unwrap();
    let by_mail = |method: &str, target: &str| {
        site.ask(method, target).with_password("carol@site.example", password).send().status
    };
    assert_eq!(by_mail("GET", "/v2/"), 200);
    assert_eq!(by_mail("POST", "/v2/carol/app/blobs/uploads/"), 202);
    assert_eq!(by_mail("POST", "/v2/bob/app/blobs/uploads/"), 403);
    assert_eq!(by_mail("DELETE", "/v2/carol/app/manifests/v1"), 403, "pushes and pulls, no more");
    let again = good(&get(&site, "carol", "/v1/users/generate_password"));
    assert_ne!(again["password"], password);
    assert_eq!(by_mail("GET", "/v2/"), 401);
}

fn service(site: &Site, user: &str, workspace: Option<&str>) -> ServiceMade {
    site.registry.service_add(&UserName::parse(user).unwrap(), workspace).unwrap()
}

fn service_auth(site: &Site, id: &str, secret: &str) -> Answer {
    let body = json!({"client_id": id, "client_secret": secret});
    site.ask("POST", "/public/v2/service_auth").by_nobody().json(&body).send()
}

fn access_token(site: &Site, made: &ServiceMade) -> String {
    let answer = service_auth(site, &made.row.id, &made.secret);
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    good(&answer)["token"]["access_token"].as_str().unwrap().to_owned()
}

/// The status and the code that an access token gets for the list of repositories.
fn lists(site: &Site, token: &str) -> (u16, Option<u64>) {
    let answer = site.ask("GET", &format!("{ROOT}/v2/repositories/")).bearer(token).send();
    (answer.status, answer.json()["error_code"].as_u64())
}

/// What bob has after a push of `bob/cam:v1`: ids of the repository, the image and the tag.
struct Things {
    repo: String,
    image: String,
    tag: String,
}

fn things(site: &Site) -> Things {
    site.push_image("bob/cam", "v1", b"layer");
    let repo = good(&get(site, "bob", "/v2/repositories/"))[0].clone();
    let id = |value: &Value| value["id"].as_str().unwrap().to_owned();
    Things { repo: id(&repo), image: id(&repo["recent_image"]), tag: id(&repo["tags"][0]) }
}

/// Every call of the document, with ids that are good.
fn calls(things: &Things) -> Vec<(&'static str, String, Value)> {
    let Things { repo, image, tag } = things;
    let none = Value::Null;
    vec![
        ("GET", "/v1/users/generate_password".into(), none.clone()),
        ("GET", "/v2/registries/current".into(), none.clone()),
        ("GET", "/v2/repositories/".into(), none.clone()),
        ("GET", format!("/v2/repositories/{repo}"), none.clone()),
        ("POST", format!("/v2/repositories/{repo}/fav"), json!({"favorite": true})),
        ("PUT", format!("/v2/repositories/{repo}"), json!({"description": "x"})),
        ("GET", format!("/v2/images/?repository_id={repo}"), none.clone()),
        ("GET", format!("/v2/images/{image}"), none.clone()),
        ("GET", format!("/v2/tags/?image_id={image}"), none),
        ("POST", "/v2/tags/".into(), json!({"image_id": image, "name": "v2", "color": "red"})),
        ("PUT", format!("/v2/tags/{tag}"), json!({"color": "blue"})),
        ("DELETE", "/v2/tags/".into(), json!({"tag_ids": [tag]})),
        ("DELETE", "/v2/images/".into(), json!({"image_ids": [image]})),
        ("DELETE", "/v2/repositories/".into(), json!({"repository_ids": [repo]})),
    ]
}

/// Each call, made in this way, answers this.
fn all_answer(site: &Site, things: &Things, how: impl Fn(Ask) -> Ask, status: u16, code: u64) {
    for (method, target, body) in calls(things) {
        let answer = how(site.ask(method, &format!("{ROOT}{target}")).json(&body)).send();
        let said = answer.json()["error_code"].as_u64();
        assert_eq!((answer.status, said), (status, Some(code)), "{method} {target}: {answer:?}");
    }
}

#[test]
fn every_call_checks_who_asks_and_the_headers_that_are_given() {
    let site = Site::new();
    let things = things(&site);
    let made = service(&site, "bob", None);
    let (ours, key) = (&made.row.workspace_id, &made.api_key);
    all_answer(&site, &things, Ask::by_nobody, 401, 19);
    all_answer(&site, &things, |ask| ask.with_password("bob", "outport_wrong"), 401, 1);
    all_answer(&site, &things, |ask| ask.bearer("not.a.token"), 401, 21);
    for id in [NOWHERE, "bob", ""] {
        all_answer(&site, &things, |ask| ask.by("bob").header("x-workspace-id", id), 401, 2);
    }
    for key in ["wrong", "", &made.secret] {
        all_answer(&site, &things, |ask| ask.by("bob").header("x-api-key", key), 401, 10);
    }
    let elsewhere = &service(&site, "admin", None).row.workspace_id;
    let other = |ask: Ask| ask.by("bob").header("x-workspace-id", elsewhere).header("x-api-key", key);
    all_answer(&site, &things, other, 401, 10);
    for (method, target, body) in calls(&things) {
        let ask = site.ask(method, &format!("{ROOT}{target}")).by("bob").json(&body);
        good(&ask.header("x-workspace-id", &ours.to_uppercase()).header("x-api-key", key).send());
    }
}

#[test]
fn a_request_that_names_a_workspace_reaches_nothing_outside_it() {
    let site = Site::new();
    let things = things(&site);
    let other = &service(&site, "admin", None).row.workspace_id;
    let there = |method: &str, target: &str, body: &Value| {
        site.ask(method, &format!("{ROOT}{target}")).header("x-workspace-id", other).json(body).send()
    };
    assert_eq!(good(&there("GET", "/v2/registries/current", &Value::Null))["name"], "admin");
    assert_eq!(good(&there("GET", "/v2/repositories/", &Value::Null)), json!([]));
    let one = format!("/v2/repositories/{}", things.repo);
    assert_eq!(there("GET", &one, &Value::Null).status, 404);
    assert_eq!(there("GET", &format!("/v2/tags/?image_id={}", things.image), &Value::Null).status, 404);
    let body = json!({"repository_ids": [things.repo]});
    assert_eq!(good(&there("DELETE", "/v2/repositories/", &body)), json!([]));
    assert_eq!(good(&get(&site, "admin", &one))["name"], "cam", "an administrator reaches it otherwise");
}

#[test]
fn a_workspace_of_nobodys_in_which_one_may_see_nothing_is_not_found() {
    let site = Site::new();
    site.push_image("secret/cam", "v1", b"layer");
    let made = service(&site, "admin", Some("secret"));
    let current = || {
        let ask = site.ask("GET", &format!("{ROOT}/v2/registries/current")).by("bob");
        ask.header("x-workspace-id", &made.row.workspace_id).send()
    };
    assert_eq!((current().status, current().json()["error_code"].as_u64()), (401, Some(2)));
    let (here, bob) = (Pattern::parse("secret/cam").unwrap(), Grantee::parse("bob").unwrap());
    site.registry.grant(&here, &bob, Level::Read).unwrap();
    assert_eq!(good(&current())["repositories_count"], 1);
}

#[test]
fn what_is_wrong_is_said_as_fastapi_says_it() {
    let site = Site::new();
    let Things { repo, image, tag } = things(&site);
    let bad = get(&site, "bob", "/v2/images/none");
    let expected = json!({"detail": [{"loc": ["path", "image_id"], "msg": "value is not a valid uuid",
        "type": "type_error.uuid"}]});
    assert_eq!((bad.status, bad.json()), (422, expected));
    let (one, fav) = (format!("/v2/repositories/{repo}"), format!("/v2/repositories/{repo}/fav"));
    let many = json!({"tag_ids": vec![NOWHERE; 101]});
    let wish = |name: Value, color: Value| json!({"image_id": image, "name": name, "color": color});
    for (method, target, body, at, kind) in [
        ("GET", "/v2/images/", json!({}), json!(["query", "repository_id"]), "value_error.missing"),
        (
            "GET",
            "/v2/images/?repository_id=x",
            json!({}),
            json!(["query", "repository_id"]),
            "type_error.uuid",
        ),
        ("GET", "/v2/tags", json!({}), json!(["query", "image_id"]), "value_error.missing"),
        ("GET", "/v2/repositories/x", json!({}), json!(["path", "repository_id"]), "type_error.uuid"),
        ("GET", "/v2/repositories/?page=0", json!({}), json!(["query", "page"]), "value_error.number.not_ge"),
        ("GET", "/v2/repositories/?page=-1", json!({}), json!(["query", "page"]), "type_error.integer"),
        (
            "GET",
            "/v2/repositories/?page_size=51",
            json!({}),
            json!(["query", "page_size"]),
            "value_error.number.not_le",
        ),
        ("POST", &fav, json!({}), json!(["body", "favorite"]), "value_error.missing"),
        ("POST", &fav, json!({"favorite": "often"}), json!(["body", "favorite"]), "type_error.bool"),
        ("PUT", &one, json!({"description": 5}), json!(["body", "description"]), "type_error.str"),
        ("PUT", &one, json!({"labels": "edge"}), json!(["body", "labels"]), "type_error.list"),
        ("PUT", &one, json!({"labels": ["a", 5]}), json!(["body", "labels", 1]), "type_error.str"),
        ("PUT", &one, json!({"labels": ["x".repeat(101)]}), json!(["body"]), "value_error"),
        ("POST", "/v2/tags/", json!({}), json!(["body", "image_id"]), "value_error.missing"),
        ("POST", "/v2/tags/", wish(Value::Null, Value::Null), json!(["body", "name"]), "value_error.missing"),
        (
            "POST",
            "/v2/tags/",
            wish("a b".into(), Value::Null),
            json!(["body", "name"]),
            "value_error.str.regex",
        ),
        ("POST", "/v2/tags/", wish("a".into(), 5.into()), json!(["body", "color"]), "type_error.str"),
        (
            "PUT",
            &format!("/v2/tags/{tag}"),
            json!({"color": "x".repeat(33)}),
            json!(["body", "color"]),
            "value_error.any_str.max_length",
        ),
        ("PUT", "/v2/tags/x", json!({"color": "red"}), json!(["path", "tag_id"]), "type_error.uuid"),
        ("DELETE", "/v2/tags/", json!({"tag_ids": "x"}), json!(["body", "tag_ids"]), "type_error.list"),
        ("DELETE", "/v2/tags/", many, json!(["body", "tag_ids"]), "value_error.list.max_items"),
        (
            "DELETE",
            "/v2/images/",
            json!({"image_ids": [image, "x"]}),
            json!(["body", "image_ids", 1]),
            "type_error.uuid",
        ),
        ("DELETE", "/v2/repositories/", json!({}), json!(["body", "repository_ids"]), "value_error.missing"),
    ] {
        let answer = send(&site, method, target, &body);
        let (detail, asked) = (&answer.json()["detail"][0], format!("{method} {target} {body}"));
        assert_eq!((answer.status, &detail["loc"], &detail["type"]), (422, &at, &json!(kind)), "{asked}");
        assert!(detail["msg"].is_string(), "{asked}");
    }
    let broken = site.ask("POST", &format!("{ROOT}/v2/tags/")).header("Content-Type", "application/json");
    assert_eq!(broken.body(b"{").send().json()["detail"][0]["loc"], json!(["body"]));
    assert_eq!(good(&get(&site, "bob", &format!("/v2/images/{image}")))["id"], image.as_str(), "all stays");
}

#[test]
fn what_is_not_there_is_404_and_deletes_pass_it_by() {
    let site = Site::new();
    let nowhere = Things { repo: NOWHERE.into(), image: NOWHERE.into(), tag: NOWHERE.into() };
    for (method, target, body) in calls(&nowhere) {
        let answer = send(&site, method, &target, &body);
        if method == "DELETE" {
            assert_eq!(good(&answer), json!([]), "{target}");
        } else if target.contains(NOWHERE) || body["image_id"] == NOWHERE {
            let what = [("repo", "Repository"), ("image", "Image"), ("tags/", "Tag")];
            let what = what.iter().find(|(word, _)| format!("{target}{body}").contains(word)).unwrap().1;
            assert_eq!((answer.status, answer.json()), (404, json!({"detail": format!("{what} not found")})));
        } else {
            good(&answer);
        }
    }
    for (list, ids) in [("tags", "tag_ids"), ("images", "image_ids"), ("repositories", "repository_ids")] {
        assert_eq!(good(&send(&site, "DELETE", &format!("/v2/{list}"), &json!({ids: []}))), json!([]));
    }
}

#[test]
fn an_id_is_not_the_next_repository_of_that_name() {
    let site = Site::new();
    let old = things(&site);
    let body = json!({"repository_ids": [old.repo, old.repo]});
    assert_eq!(good(&send(&site, "DELETE", "/v2/repositories/", &body)), json!([old.repo]), "once");
    let new = things(&site);
    assert!(new.repo != old.repo && new.image != old.image && new.tag != old.tag);
    let old_repo = Uuid::parse(&old.repo).unwrap();
    assert_eq!(site.registry.repos_delete(vec![old_repo]).unwrap(), []);
    let both = json!({"image_ids": [old.image, new.image]});
    assert_eq!(good(&send(&site, "DELETE", "/v2/images/", &both)), json!([new.image]));
    let gone = send(&site, "PUT", &format!("/v2/tags/{}", new.tag), &json!({"color": "red"}));
    assert_eq!(gone.json(), json!({"detail": "Tag not found"}), "a tag goes with its image");
    assert_eq!(good(&get(&site, "bob", &format!("/v2/repositories/{}", new.repo)))["images_count"], 0);
}

#[test]
fn a_tag_moves_to_another_image_with_its_id_and_its_colour_survives_pushes() {
    let site = Site::new();
    let first = things(&site);
    let paint = json!({"image_id": first.image, "name": "v1", "color": "red"});
    let red = good(&send(&site, "POST", "/v2/tags/", &paint));
    assert_eq!((&red["id"], &red["color"]), (&json!(first.tag), &json!("red")));
    site.hands.advance(Duration::from_secs(5));
    site.push_image("bob/cam", "v1", b"another layer");
    let images = good(&get(&site, "bob", &format!("/v2/images/?repository_id={}", first.repo)));
    assert_eq!(images.as_array().unwrap().len(), 2, "the newest first: {images}");
    let second = images[0]["id"].as_str().unwrap();
    let pushed = &images[0]["tags"][0];
    assert_eq!(
        (&pushed["id"], &pushed["color"], &pushed["image_id"]),
        (&json!(first.tag), &json!("red"), &json!(second))
    );
    assert_ne!(pushed["push_time"], red["push_time"]);
    assert_eq!(images[1]["tags"], json!([]));

    site.hands.advance(Duration::from_secs(5));
    let back = good(&send(&site, "POST", "/v2/tags/", &json!({"image_id": first.image, "name": "v1"})));
    assert_eq!(
        (&back["id"], &back["color"], &back["image_id"]),
        (&json!(first.tag), &json!("red"), &json!(first.image))
    );
    assert_ne!(back["push_time"], pushed["push_time"]);
    let digest = &images[1]["digest"];
    assert_eq!(site.get("/v2/bob/cam/manifests/v1").header("docker-content-digest"), digest.as_str());
    site.hands.advance(Duration::from_secs(5));
    assert_eq!(
        good(&send(&site, "POST", "/v2/tags/", &json!({"image_id": first.image, "name": "v1"}))),
        back
    );
    let longest = json!({"color": "ü".repeat(32)});
    let painted = good(&send(&site, "PUT", &format!("/v2/tags/{}", first.tag), &longest));
    assert_eq!(painted["color"], longest["color"], "characters are counted");
    let bare = good(&send(&site, "PUT", &format!("/v2/tags/{}", first.tag), &json!({"color": null})));
    assert_eq!((&bare["color"], &bare["push_time"]), (&Value::Null, &back["push_time"]));
    assert_eq!(good(&send(&site, "PUT", &format!("/v2/tags/{}", first.tag), &json!({}))), bare);
}

#[test]
fn a_favourite_is_each_users_own_and_needs_no_more_than_reading() {
    let site = Site::new();
    site.add_user("carol");
    let Things { repo, .. } = things(&site);
    let (here, carol) = (Pattern::parse("bob/cam").unwrap(), Grantee::parse("carol").unwrap());
    site.registry.grant(&here, &carol, Level::Read).unwrap();
    let set = |who: &str, favorite: bool| {
        let ask = site.ask("POST", &format!("{ROOT}/v2/repositories/{repo}/fav")).by(who);
        good(&ask.json(&json!({ "favorite": favorite })).send())["favorite"].clone()
    };
    let seen = |who: &str| good(&get(&site, who, &format!("/v2/repositories/{repo}")))["favorite"].clone();
    assert_eq!((set("carol", true), seen("carol"), seen("bob")), (json!(true), json!(true), json!(false)));
    assert_eq!(
        (set("bob", true), set("carol", false), seen("bob")),
        (json!(true), json!(false), json!(true))
    );
    let write = site.ask("PUT", &format!("{ROOT}/v2/repositories/{repo}")).by("carol").json(&json!({}));
    assert_eq!(write.send().json()["error_code"], 403);
}

#[test]
fn labels_and_description_change_together_or_not_at_all() {
    let site = Site::new();
    let Things { repo, .. } = things(&site);
    let one = format!("/v2/repositories/{repo}");
    let fields =
        |repo: Value| (repo["description"].clone(), repo["labels"].clone(), repo["updated_at"].clone());
    let change =
        json!({"description": "camera", "labels": ["edge", "old", "edge"], "labels_to_delete": ["old"]});
    site.hands.advance(Duration::from_secs(5));
    let changed = fields(good(&send(&site, "PUT", &one, &change)));
    assert_eq!((&changed.0, &changed.1), (&json!("camera"), &json!(["edge"])));
    let many: Vec<String> = (0..101).map(|n| format!("label{n}")).collect();
    let refused = send(&site, "PUT", &one, &json!({"description": "lost", "labels": many}));
    assert_eq!(refused.status, 422, "{refused:?}");
    site.hands.advance(Duration::from_secs(5));
    let nothing = json!({"description": "camera", "labels": null, "labels_to_delete": ["none"]});
    for body in [nothing, json!({})] {
        assert_eq!(fields(good(&send(&site, "PUT", &one, &body))), changed, "{body}");
    }
    let cleared = fields(good(&send(&site, "PUT", &one, &json!({"description": null}))));
    assert_eq!((cleared.0, cleared.1), (Value::Null, json!(["edge"])));
    assert_ne!(cleared.2, changed.2);
}

#[test]
fn a_registry_changed_when_the_last_of_its_repositories_did() {
    let site = Site::new();
    site.push_image("bob/zoo", "v1", b"layer");
    site.hands.advance(Duration::from_secs(60));
    site.push_image("bob/app", "v1", b"layer");
    site.hands.advance(Duration::from_secs(60));
    site.push_image("bob/zoo", "v2", b"layer");
    let last = |list: Value| list.as_array().unwrap().iter().map(|repo| repo["updated_at"].to_string()).max();
    let current = |who: &str| good(&get(&site, who, "/v2/registries/current"));
    let expected = last(good(&get(&site, "bob", "/v2/repositories/")));
    assert_eq!(Some(current("bob")["updated_at"].to_string()), expected);
    assert_eq!(current("bob")["repositories_count"], 2);
    let empty = current("admin");
    assert_eq!((&empty["updated_at"], &empty["repositories_count"]), (&empty["created_at"], &json!(0)));
}

/// Lists have no place to say that there are more, so a header does.
#[test]
fn a_list_has_pages_and_says_where_the_next_one_is() {
    let site = Site::new();
    for n in 0..5 {
        site.push_image("bob/cam", &format!("v{n}"), format!("layer {n}").as_bytes());
        site.push_image(&format!("bob/other{n}"), "v1", b"layer");
    }
    let repos = good(&get(&site, "bob", "/v2/repositories/"));
    let (cam, newest) = (repos[0]["id"].as_str().unwrap(), repos[0]["recent_image"]["id"].as_str().unwrap());
    assert_eq!((&repos[0]["images_count"], repos[0]["tags"].as_array().unwrap().len()), (&json!(5), 5));
    for n in 0..4 {
        let wish = json!({"image_id": newest, "name": format!("also{n}")});
        good(&send(&site, "POST", "/v2/tags/", &wish));
    }
    for (target, all) in [
        ("/v2/repositories/?x=1".to_owned(), 6),
        (format!("/v2/images/?repository_id={cam}"), 5),
        (format!("/v2/tags?image_id={newest}"), 5),
    ] {
        let whole = get(&site, "bob", &target);
        assert_eq!((good(&whole).as_array().unwrap().len(), whole.header("link")), (all, None), "{target}");
        let (mut next, mut found) = (Some(format!("{ROOT}{target}&page_size=2")), Vec::new());
        while let Some(target) = next {
            let page = site.ask("GET", &target).by("bob").send();
            found.extend(good(&page).as_array().unwrap().iter().cloned());
            let link = page.header("link").map(|link| link.strip_suffix(">; rel=\"next\"").unwrap());
            next = link.map(|link| link.strip_prefix('<').unwrap().to_owned());
        }
        assert_eq!(json!(found), good(&whole), "{target}");
        assert_eq!(good(&get(&site, "bob", &format!("{target}&page=9999999"))), json!([]));
    }
}

#[test]
fn an_index_is_an_image_of_its_platforms_with_the_sum_of_those_that_are_here() {
    let site = Site::new();
    let config =
        br#"{"architecture":"arm64","os":"linux","author":"me","config":{"Env":["A=1"]},"rootfs":{}}"#;
    let (config_digest, layer) = (site.push_blob("bob/cam", config), site.push_blob("bob/cam", b"layer"));
    let arm = manifest(&config_digest, config.len(), &[(&layer, 5)], "");
    let put = site.put_manifest("bob/cam", &sha256(arm.as_bytes()), &arm);
    let arm_digest = put.header("docker-content-digest").unwrap();
    let index = format!(
        r#"{{"schemaVersion":2,"mediaType":"{OCI_INDEX}","manifests":[
          {{"mediaType":"x","digest":"{arm_digest}","size":{},"platform":{{"os":"linux","architecture":"arm64","variant":"v8"}}}},
          {{"mediaType":"x","digest":"sha256:{}","size":5,"platform":{{"os":"linux","architecture":"amd64"}}}}]}}"#,
        arm.len(),
        "a".repeat(64)
    );
    let images = || {
        let repo = good(&get(&site, "bob", "/v2/repositories/"))[0].clone();
        let list =
            good(&get(&site, "bob", &format!("/v2/images/?repository_id={}", repo["id"].as_str().unwrap())));
        assert_eq!(repo["images_count"], list.as_array().unwrap().len());
        list.as_array().unwrap().clone()
    };
    let bytes = config.len() + 5;
    let alone = &images()[0];
    let facts = json!({"architecture": "arm64", "os": "linux", "author": "me", "config": {"Env": ["A=1"]}});
    assert_eq!((&alone["size"], &alone["extra_attrs"]), (&json!(bytes), &facts));

    let put = site.ask("PUT", "/v2/bob/cam/manifests/all").header("Content-Type", OCI_INDEX);
    assert_eq!(put.body(index.as_bytes()).send().status, 201);
    let listed = images();
    let [all] = &listed[..] else { panic!("what the index names is not listed again: {listed:?}") };
    assert_eq!((&all["size"], &all["tags"][0]["name"]), (&json!(bytes), &json!("all")));
    let missing = format!("sha256:{}", "a".repeat(64));
    assert_eq!(
        all["extra_attrs"],
        json!({"platforms": [
            {"digest": arm_digest, "os": "linux", "architecture": "arm64", "variant": "v8", "size": bytes},
            {"digest": missing, "os": "linux", "architecture": "amd64", "variant": null, "size": 0},
        ]})
    );
    assert_eq!(good(&get(&site, "bob", &format!("/v2/images/{}", all["id"].as_str().unwrap()))), *all);
    let arm_id = alone["id"].as_str().unwrap();
    assert_eq!(good(&get(&site, "bob", &format!("/v2/images/{arm_id}")))["size"], bytes, "it has its id");
    good(&send(&site, "POST", "/v2/tags/", &json!({"image_id": arm_id, "name": "arm"})));
    assert_eq!(images().len(), 2, "with a tag it is listed");
}

#[test]
fn a_tag_is_signed_if_a_signature_lies_beside_its_image_or_refers_to_it() {
    let site = Site::new();
    let signed = |tag: &str| {
        let repo = &good(&get(&site, "bob", "/v2/repositories/"))[0];
        let tags = repo["tags"].as_array().unwrap();
        tags.iter().find(|row| row["name"] == tag).unwrap()["signed"].as_bool().unwrap()
    };
    let cosign = site.push_image("bob/cam", "cosign", b"one");
    assert!(!signed("cosign"));
    site.push_image("bob/cam", &format!("{}.sig", cosign.replace(':', "-")), b"a signature");
    assert!(signed("cosign"));
    let bundle = "application/vnd.dev.sigstore.bundle.v0.3+json";
    let predicate =
        |name: &str| format!(r#","annotations":{{"dev.sigstore.bundle.predicateType":"{name}"}}"#);
    for (n, (kind, more, expected)) in [
        ("application/vnd.cncf.notary.signature", String::new(), true),
        ("application/vnd.dev.cosign.artifact.sig.v1+json", String::new(), true),
        (bundle, String::new(), true),
        (bundle, predicate("https://sigstore.dev/cosign/sign/v1"), true),
        (bundle, predicate("https://slsa.dev/provenance/v1"), false),
        ("application/vnd.dev.cosign.artifact.sbom.v1+json", String::new(), false),
        ("application/spdx+json", String::new(), false),
    ]
    .into_iter()
    .enumerate()
    {
        let layer = format!("image {n}");
        let subject = site.push_image("bob/cam", &format!("v{n}"), layer.as_bytes());
        let config = site.push_blob("bob/cam", b"{}");
        let more = format!(
            r#","artifactType":"{kind}","subject":{{"mediaType":"x","digest":"{subject}","size":9}}{more}"#
        );
        let referrer = manifest(&config, 2, &[], &more);
        let digest = sha256(referrer.as_bytes());
        assert_eq!(site.put_manifest("bob/cam", &digest, &referrer).status, 201);
        assert_eq!(signed(&format!("v{n}")), expected, "{kind} {more}");
    }
}

#[test]
fn a_robot_token_sees_no_more_than_its_scope() {
    let site = Site::new();
    for repo in ["bob/app", "bob/cam"] {
        site.push_image(repo, "v1", b"layer");
    }
    let list = |pattern: &str| {
        let (name, pattern) = (UserName::parse("bob").unwrap(), Pattern::parse(pattern).unwrap());
        let (_, token) = site.registry.token_new(&name, "", Access::Pull, &pattern, None).unwrap();
        let ask = |target: &str| {
            good(&site.ask("GET", &format!("{ROOT}{target}")).with_password("bob", &token).send())
        };
        let names = ask("/v2/repositories/");
        let names: Vec<_> =
            names.as_array().unwrap().iter().map(|repo| repo["name"].as_str().unwrap().to_owned()).collect();
        assert_eq!(ask("/v2/registries/current")["repositories_count"], names.len());
        names
    };
    assert_eq!(list("*"), ["app", "cam"]);
    assert_eq!(list("bob/*"), ["app", "cam"]);
    assert_eq!(list("bob/cam"), ["cam"]);
    assert_eq!(list("bob/none"), [""; 0]);
    assert_eq!(list("other/*"), [""; 0]);
    let scoped = site.ask("GET", "/token?scope=repository:bob/app:pull").by("bob").send().json();
    let scoped = scoped["token"].as_str().unwrap();
    let lists = site.ask("GET", &format!("{ROOT}/v2/repositories/")).bearer(scoped).send();
    assert_eq!((lists.status, lists.json()["error_code"].as_u64()), (403, Some(403)), "it was made for less");
}

#[test]
fn a_service_client_logs_in_and_does_everything_but_make_a_password() {
    let site = Site::new();
    let things = things(&site);
    let made = service(&site, "bob", None);
    let answer = good(&service_auth(&site, &made.row.id, &made.secret));
    let token = answer["token"]["access_token"].as_str().unwrap().to_owned();
    let expected = json!({"token": {"access_token": token, "token_type": "Bearer", "expires_in": 3600},
        "status": "ok", "error_code": 0, "error_message": ""});
    assert_eq!(answer, expected);
    for (method, target, body) in calls(&things) {
        let ask = site.ask(method, &format!("{ROOT}{target}")).bearer(&token).json(&body);
        let headers = ask.header("x-workspace-id", &made.row.workspace_id).header("x-api-key", &made.api_key);
        let answer = headers.send();
        if target.contains("generate_password") {
            assert_eq!((answer.status, answer.json()["error_code"].as_u64()), (403, Some(403)));
        } else {
            assert_eq!(answer.status, 200, "{method} {target}: {answer:?}");
        }
    }
    assert_eq!(get(&site, "bob", &format!("/v2/repositories/{}", things.repo)).status, 404, "bob's hand");
}

#[test]
fn a_login_that_is_wrong_is_refused_as_documented() {
    let site = Site::new();
    let (made, other) = (service(&site, "bob", None), service(&site, "bob", None));
    let wrong = json!({"error_code": 1, "error_message": "invalid user credentials"});
    for (id, secret) in [
        (made.row.id.as_str(), other.secret.as_str()),
        (NOWHERE, &made.secret),
        (&made.row.id, &made.api_key),
        (&made.row.id, ""),
        ("bob", PASSWORD),
    ] {
        let answer = service_auth(&site, id, secret);
        assert_eq!((answer.status, answer.json()), (401, wrong.clone()), "{id}");
    }
    let ask = || site.ask("POST", "/public/v2/service_auth/").by_nobody();
    for (body, at) in [
        (json!({}), "client_id"),
        (json!({"client_id": made.row.id}), "client_secret"),
        (json!({"client_id": 5}), "client_id"),
    ] {
        let answer = ask().json(&body).send();
        assert_eq!((answer.status, &answer.json()["detail"][0]["loc"]), (422, &json!(["body", at])));
    }
    let body = json!({"client_id": made.row.id, "client_secret": made.secret});
    for (header, value, code) in [("x-workspace-id", NOWHERE, 2), ("x-api-key", "wrong", 10)] {
        let answer = ask().json(&body).header(header, value).send();
        assert_eq!((answer.status, answer.json()["error_code"].as_u64()), (401, Some(code)));
    }
    good(
        &ask()
            .json(&body)
            .header("x-workspace-id", &made.row.workspace_id)
            .header("x-api-key", &other.api_key)
            .send(),
    );
    assert_eq!(
        ask().form(&format!("client_id={}&client_secret={}", made.row.id, made.secret)).send().status,
        200
    );
}

#[test]
fn an_access_token_ends_after_an_hour_and_is_good_for_no_other_dialect() {
    let site = Site::new();
    site.push_image("bob/cam", "v1", b"layer");
    let made = service(&site, "bob", None);
    let token = access_token(&site, &made);
    assert_eq!(lists(&site, &token), (200, None));
    for target in
        ["/v2/", "/v2/bob/cam/manifests/v1", "/v2/user/", "/v2/repositories/bob/cam/", "/v1/users", "/token"]
    {
        assert_eq!(site.ask("GET", target).bearer(&token).send().status, 401, "{target}");
        assert_eq!(site.ask("GET", target).jwt(&token).send().status, 401, "{target}");
        for secret in [&made.secret, &made.api_key] {
            assert_eq!(site.ask("GET", target).with_password("bob", secret).send().status, 401, "{target}");
            assert_eq!(site.ask("GET", target).with_password(&made.row.id, secret).send().status, 401);
        }
    }
    let login = json!({"username": "bob", "password": PASSWORD});
    let hub = site.ask("POST", "/v2/users/login/").by_nobody().json(&login).send().json();
    assert_eq!(lists(&site, hub["token"].as_str().unwrap()), (401, Some(21)), "nor is Hub's here");
    site.hands.advance(Duration::from_secs(3_599));
    assert_eq!(lists(&site, &token), (200, None));
    site.hands.advance(Duration::from_secs(1));
    assert_eq!(lists(&site, &token), (401, Some(20)));
    let (head, tail) = token.split_at(token.len() - 4);
    let forged = format!("{head}{}", if tail == "AAAA" { "BBBB" } else { "AAAA" });
    assert_eq!(lists(&site, &forged), (401, Some(21)));
}

#[test]
fn a_service_client_is_confined_to_its_workspace_even_an_administrators() {
    let site = Site::new();
    let outside = things(&site);
    site.push_image("team/app", "v1", b"layer");
    let made = service(&site, "admin", Some("team"));
    let token = access_token(&site, &made);
    let ask = |method: &str, target: &str, body: &Value| {
        site.ask(method, &format!("{ROOT}{target}")).bearer(&token).json(body).send()
    };
    let current = good(&ask("GET", "/v2/registries/current", &Value::Null));
    assert_eq!((&current["name"], &current["id"]), (&json!("team"), &json!(made.row.workspace_id)));
    let list = good(&ask("GET", "/v2/repositories/", &Value::Null));
    assert_eq!((list.as_array().unwrap().len(), &list[0]["name"]), (1, &json!("app")));
    for (method, target, body) in calls(&outside) {
        let answer = ask(method, &target, &body);
        if method == "DELETE" {
            assert_eq!(good(&answer), json!([]), "{target}");
        } else if target.contains(&outside.repo) || !body["image_id"].is_null() {
            assert_eq!(answer.status, 404, "{method} {target}");
        }
    }
    good(&get(&site, "bob", &format!("/v2/images/{}", outside.image)));
    let bobs = &service(&site, "bob", None).row.workspace_id;
    let elsewhere = site.ask("GET", &format!("{ROOT}/v2/repositories/")).bearer(&token);
    assert_eq!(elsewhere.header("x-workspace-id", bobs).send().json()["error_code"], 2);
    assert!(site.registry.service_add(&UserName::parse("bob").unwrap(), Some("nowhere")).is_err());
}

#[test]
fn a_service_client_is_never_more_than_its_user() {
    let site = Site::new();
    site.push_image("team/app", "v1", b"layer");
    let token = access_token(&site, &service(&site, "bob", Some("team")));
    let (team, bob) = (Pattern::parse("team/*").unwrap(), Grantee::parse("bob").unwrap());
    let list = || site.ask("GET", &format!("{ROOT}/v2/repositories/")).bearer(&token).send();
    assert_eq!(good(&list()), json!([]));
    site.registry.grant(&team, &bob, Level::Read).unwrap();
    let repo = good(&list())[0].clone();
    let (id, image) = (&repo["id"], &repo["recent_image"]["id"]);
    let one = format!("{ROOT}/v2/repositories/{}", id.as_str().unwrap());
    let change = || site.ask("PUT", &one).bearer(&token).json(&json!({"labels": ["x"]})).send().status;
    let delete = || {
        let ask = site.ask("DELETE", &format!("{ROOT}/v2/images/")).bearer(&token);
        good(&ask.json(&json!({"image_ids": [image]})).send())
    };
    assert_eq!((change(), delete()), (403, json!([])));
    site.registry.grant(&team, &bob, Level::Write).unwrap();
    assert_eq!((change(), delete()), (200, json!([])));
    site.registry.grant(&team, &bob, Level::Admin).unwrap();
    site.registry.revoke(&team, &bob).unwrap();
    assert_eq!((change(), delete(), good(&list())), (404, json!([]), json!([])), "with the next request");
    site.registry.grant(&team, &bob, Level::Admin).unwrap();
    assert_eq!(delete(), json!([image]));
}

#[test]
fn a_service_client_ends_at_once_with_itself_or_with_its_user() {
    let site = Site::new();
    let (first, second) = (service(&site, "bob", None), service(&site, "bob", None));
    let (one, two) = (access_token(&site, &first), access_token(&site, &second));
    let key = |key: &str| {
        let ask = site.ask("GET", &format!("{ROOT}/v2/repositories/")).by("bob");
        ask.header("x-api-key", key).send().status
    };
    assert_eq!((lists(&site, &one).0, key(&first.api_key)), (200, 200));
    site.registry.service_remove(&first.row.id).unwrap();
    assert_eq!((lists(&site, &one), key(&first.api_key)), ((401, Some(21)), 401));
    assert_eq!(service_auth(&site, &first.row.id, &first.secret).status, 401);
    assert!(site.registry.service_remove(&first.row.id).is_err());
    assert_eq!(lists(&site, &two), (200, None), "the other one stays");

    let bob = UserName::parse("bob").unwrap();
    site.registry.user_set_active(&bob, false).unwrap();
    assert_eq!(lists(&site, &two), (401, Some(21)));
    let shut = service_auth(&site, &second.row.id, &second.secret);
    assert_eq!((shut.status, shut.json()["error_code"].as_u64()), (403, Some(403)));
    assert_eq!(service_auth(&site, &second.row.id, "wrong").status, 401, "only who knows the secret is told");
    site.registry.user_set_active(&bob, true).unwrap();
    assert_eq!(lists(&site, &two), (200, None));
    site.registry.user_remove(&bob).unwrap();
    assert_eq!(lists(&site, &two), (401, Some(21)));
    assert_eq!(service_auth(&site, &second.row.id, &second.secret).status, 401);
    assert!(site.registry.services().unwrap().is_empty());
}

#[test]
fn what_a_user_may_not_read_is_not_there_and_deletes_pass_it_by() {
    let site = Site::new();
    site.add_user("eve");
    site.push_image("bob/cam", "v1", b"layer");
    let repo = good(&get(&site, "bob", "/v2/repositories"))[0].clone();
    let id = repo["id"].as_str().unwrap();
    assert_eq!(get(&site, "eve", &format!("/v2/repositories/{id}")).status, 404);
    assert_eq!(get(&site, "eve", &format!("/v2/images?repository_id={id}")).status, 404);
    let body = json!({"repository_ids": [id]});
    let skipped = site.ask("DELETE", &format!("{ROOT}/v2/repositories/")).by("eve").json(&body).send();
    assert_eq!(good(&skipped), json!([]));
    assert_eq!(get(&site, "bob", &format!("/v2/repositories/{id}/")).status, 200);
}

#[test]
fn what_manifests_claim_of_their_size_breaks_no_list() {
    let site = Site::new();
    let config = site.push_blob("bob/cam", b"{}");
    let images = ["a", "b"].map(|name| {
        let layer = site.push_blob("bob/cam", name.as_bytes());
        let text = manifest(&config, 2, &[(&layer, usize::MAX)], "");
        assert_eq!(site.put_manifest("bob/cam", name, &text).status, 201);
        sha256(text.as_bytes())
    });
    let index = site.push_index("bob/cam", "all", &[&images[0], &images[1]]);
    let id = good(&get(&site, "bob", "/v2/repositories"))[0]["id"].clone();
    let listed = good(&get(&site, "bob", &format!("/v2/images?repository_id={}", id.as_str().unwrap())));
    let listed = listed.as_array().unwrap();
    let found = listed.iter().find(|image| image["digest"] == index.as_str()).unwrap();
    assert_eq!((listed.len(), found["size"].as_u64()), (3, Some(9_000_000_000_000_000_000)));
}

//! ML Space's API: repositories, images and tags by UUID, and the generated password.

use crate::harness::{Answer, PASSWORD, Site, basic};
use serde_json::{Value, json};

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
fn the_fourteen_steps_of_the_guide_work_in_order_after_a_push() {
    let site = Site::new();
    let password = generate(&site);
    assert_eq!(logs_in(&site, &password), 200);
    site.push_image("bob/cam", "v1", b"layer");
    let list = good(&get(&site, "bob", "/v2/repositories/?page=1&page_size=10"));
    assert_eq!(list.as_array().unwrap().len(), 1);
    assert_eq!(good(&get(&site, "bob", "/v2/repositories?page=2")), json!([]));
    let repo = &list[0];
    let id = repo["id"].as_str().unwrap();
    assert_eq!((&repo["name"], &repo["images_count"]), (&json!("cam"), &json!(1)));
    let registry = good(&get(&site, "bob", "/v2/registries/current"));
    assert_eq!((&registry["id"], &registry["repositories_count"]), (&repo["registry_id"], &json!(1)));

    let fav = format!("/v2/repositories/{id}/fav");
    assert_eq!(good(&send(&site, "POST", &fav, &json!({"favorite": true})))["favorite"], true);
    let one = format!("/v2/repositories/{id}");
    assert_eq!(good(&get(&site, "admin", &one))["favorite"], false, "it is the user's own");

    let images = good(&get(&site, "bob", &format!("/v2/images/?repository_id={id}")));
    let image = images[0]["id"].as_str().unwrap();
    let pulled = site.get("/v2/bob/cam/manifests/v1");
    assert_eq!(images[0]["digest"].as_str(), pulled.header("docker-content-digest"));

    let change = json!({"description": "camera", "labels": ["edge", "old"], "labels_to_delete": ["old"]});
    let changed = good(&send(&site, "PUT", &one, &change));
    assert_eq!((&changed["description"], &changed["labels"]), (&json!("camera"), &json!(["edge"])));
    let cleared = good(&send(&site, "PUT", &one, &json!({"description": null})));
    assert_eq!((&cleared["description"], &cleared["labels"]), (&Value::Null, &json!(["edge"])));

    assert_eq!(good(&get(&site, "bob", &format!("/v2/images/{image}"))), images[0]);
    let tags = good(&get(&site, "bob", &format!("/v2/tags/?image_id={image}")));
    assert_eq!((&tags[0]["name"], &tags[0]["color"]), (&json!("v1"), &Value::Null));
    let wish = json!({"image_id": image, "name": "v2", "color": "red"});
    let made = good(&send(&site, "POST", "/v2/tags/", &wish));
    assert_eq!((&made["color"], &made["image_id"]), (&json!("red"), &json!(image)));
    assert_eq!(good(&send(&site, "POST", "/v2/tags", &wish))["id"], made["id"]);
    let tag = made["id"].as_str().unwrap();
    let painted = good(&send(&site, "PUT", &format!("/v2/tags/{tag}"), &json!({"color": "blue"})));
    assert_eq!(painted["color"], "blue");

    let gone = good(&send(&site, "DELETE", "/v2/tags/", &json!({"tag_ids": [tag, tags[0]["id"], NOWHERE]})));
    assert_eq!(gone, json!([tag, tags[0]["id"]]));
    let left = good(&get(&site, "bob", &format!("/v2/images/{image}")));
    assert_eq!(left["tags"], json!([]), "the image stays");
    let digest = left["digest"].as_str().unwrap();
    assert_eq!(good(&send(&site, "DELETE", "/v2/images/", &json!({"image_ids": [image]}))), json!([image]));
    assert_eq!(site.get(&format!("/v2/bob/cam/manifests/{digest}")).status, 404);
    let repos = json!({"repository_ids": [id]});
    assert_eq!(good(&send(&site, "DELETE", "/v2/repositories/", &repos)), json!([id]));
    assert_eq!(get(&site, "bob", &one).json(), json!({"detail": "Repository not found"}));
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
fn what_is_wrong_is_said_as_fastapi_says_it() {
    let site = Site::new();
    let bad = get(&site, "bob", "/v2/images/none");
    let expected = json!({"detail": [{"loc": ["path", "image_id"], "msg": "value is not a valid uuid",
        "type": "type_error.uuid"}]});
    assert_eq!((bad.status, bad.json()), (422, expected));
    for (method, target, body, at) in [
        ("GET", "/v2/images/", json!({}), json!(["query", "repository_id"])),
        ("GET", "/v2/tags", json!({}), json!(["query", "image_id"])),
        ("POST", "/v2/tags/", json!({}), json!(["body", "image_id"])),
        ("POST", "/v2/tags/", json!({"image_id": NOWHERE, "name": "a b"}), json!(["body", "name"])),
        ("DELETE", "/v2/tags/", json!({"tag_ids": "x"}), json!(["body", "tag_ids"])),
    ] {
        let answer = send(&site, method, target, &body);
        assert_eq!((answer.status, &answer.json()["detail"][0]["loc"]), (422, &at), "{method} {target}");
    }
    assert_eq!(get(&site, "bob", &format!("/v2/tags/?image_id={NOWHERE}")).status, 404);
    let nobody = site.ask("GET", &format!("{ROOT}/v2/repositories/")).by_nobody().send();
    assert_eq!((nobody.status, nobody.json()["error_code"].as_u64()), (401, Some(19)));
    let elsewhere = site.ask("GET", &format!("{ROOT}/v2/registries/current"));
    let elsewhere = elsewhere.header("x-workspace-id", NOWHERE).send();
    assert_eq!((elsewhere.status, elsewhere.json()["error_code"].as_u64()), (401, Some(2)));
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
    let header = basic("bob", PASSWORD);
    let there = site.ask("GET", &format!("{ROOT}/v2/repositories/{id}/")).by_nobody();
    assert_eq!(there.header("Authorization", &header).send().status, 200);
}

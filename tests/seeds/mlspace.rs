//! ML Space's guide to its Docker registry's API, steps 1 to 14.
//!
//! The guide prints addresses without host and without their first slash, and one made-up UUID
//! for everything. It tags an image (step 2) before there is one (step 3); of step 4 the list
//! of methods is lost, here they are those of the API's specification.

use crate::harness::{Answer, PASSWORD, Site, basic};
use outport::names::UserName;
use outport::registry::UserAdd;
use serde_json::{Value, json};

const MADE_UP: &str = "3fa85f64-5717-4562-b3fc-2c963f66afa6";
const EMAIL: &str = "ann@example.com";

const TAG: &str = r#"
    {
    "image_id" : "3fa85f64-5717-4562-b3fc-2c963f66afa6" ,
    "name" : "string" ,
    "color" : "string"
    }
"#;

/// A registry with ann, who has an e-mail address, as everybody there.
fn site() -> Site {
    let site = Site::new();
    let name = UserName::parse("ann").unwrap();
    let add = UserAdd { name: &name, password: PASSWORD, admin: false, email: Some(EMAIL) };
    site.registry.user_add(&add).unwrap();
    site
}

/// Whose steps these are.
struct Caller<'a> {
    site: &'a Site,
    headers: Vec<(&'static str, String)>,
}

impl Caller<'_> {
    /// A step, as the guide prints its method and address, and its body.
    fn call(&self, step: &str, body: &str) -> Answer {
        let (method, path) = step.split_once(' ').unwrap();
        let mut ask = self.site.ask(method, &format!("/{path}")).by_nobody();
        for (name, value) in &self.headers {
            ask = ask.header(name, value);
        }
        if !body.is_empty() {
            ask = ask.header("Content-Type", "application/json").body(body.as_bytes());
        }
        ask.send()
    }

    /// A step that succeeds, and what it answers.
    fn take(&self, step: &str, body: &str) -> Value {
        let answer = self.call(step, body);
        assert_eq!(answer.status, 200, "{step}: {answer:?}");
        answer.json()
    }
}

/// The keys of an object, which are those of the specification and no others.
fn has(value: &Value, keys: &[&str]) {
    let mut found: Vec<&str> = value.as_object().unwrap().keys().map(String::as_str).collect();
    found.sort_unstable();
    assert_eq!(found, keys, "{value}");
}

const REGISTRY: [&str; 6] = ["commands", "created_at", "id", "name", "repositories_count", "updated_at"];
const REPOSITORY: [&str; 13] = [
    "commands",
    "created_at",
    "description",
    "favorite",
    "full_name",
    "id",
    "images_count",
    "labels",
    "name",
    "recent_image",
    "registry_id",
    "tags",
    "updated_at",
];
const IMAGE: [&str; 10] = [
    "commands",
    "digest",
    "extra_attrs",
    "full_name",
    "id",
    "pull_time",
    "push_time",
    "repository_id",
    "size",
    "tags",
];
const TAG_KEYS: [&str; 10] = [
    "color",
    "commands",
    "full_name",
    "id",
    "image_id",
    "name",
    "pull_time",
    "push_time",
    "repository_id",
    "signed",
];

fn id(value: &Value) -> &str {
    value["id"].as_str().unwrap_or_else(|| panic!("no id: {value}"))
}

/// Step 1: a password for `docker login`, with an e-mail address.
fn step_1(site: &Site) -> String {
    let person = Caller { site, headers: vec![("Authorization", basic(EMAIL, PASSWORD))] };
    let answer = person.take("GET public/v2/docker_registry/v1/users/generate_password", "");
    has(&answer, &["password"]);
    answer["password"].as_str().unwrap().to_owned()
}

/// Step 3: an image is pushed with that password; its digest.
fn step_3(site: &Site, password: &str) -> String {
    let layer = b"a layer";
    let ask = |method: &str, target: &str| site.ask(method, target).with_password(EMAIL, password);
    for blob in [b"{}".as_slice(), layer] {
        let digest = crate::harness::sha256(blob);
        let answer = ask("POST", &format!("/v2/ann/cam/blobs/uploads/?digest={digest}")).body(blob).send();
        assert_eq!(answer.status, 201, "{answer:?}");
    }
    let layer = (crate::harness::sha256(layer), layer.len());
    let manifest = crate::harness::manifest(&crate::harness::sha256(b"{}"), 2, &[(&layer.0, layer.1)], "");
    let put = ask("PUT", "/v2/ann/cam/manifests/v1").header("Content-Type", crate::harness::OCI_MANIFEST);
    let put = put.body(manifest.as_bytes()).send();
    assert_eq!(put.status, 201, "{put:?}");
    put.header("docker-content-digest").unwrap().to_owned()
}

/// Steps 2 and 4 to 14, in their order.
fn other_steps(caller: &Caller, digest: &str) {
    // 2. As printed, for an image that is not there.
    assert_eq!(caller.call("POST public/v2/docker_registry/v2/tags/", TAG).status, 404);

    // 4. What there is.
    let registry = caller.take("GET public/v2/docker_registry/v2/registries/current", "");
    has(&registry, &REGISTRY);
    assert_eq!(registry["repositories_count"], 1);
    let repos = caller.take("GET public/v2/docker_registry/v2/repositories/", "");
    let repo = &repos[0];
    has(repo, &REPOSITORY);
    assert_eq!((repos.as_array().unwrap().len(), &repo["name"]), (1, &json!("cam")));
    assert_eq!((&repo["registry_id"], &repo["favorite"]), (&registry["id"], &json!(false)));
    let one = format!("public/v2/docker_registry/v2/repositories/{}", id(repo));
    assert_eq!(caller.take(&format!("GET {one}"), ""), *repo);

    // 5. The body is printed as a choice, which is no JSON.
    let fav = format!("POST {one}/fav");
    assert_eq!(caller.call(&fav, r#"{ "favorite" : true / false }"#).status, 422);
    assert_eq!(caller.take(&fav, r#"{ "favorite" : false }"#)["favorite"], false);
    assert_eq!(caller.take(&fav, r#"{ "favorite" : true }"#)["favorite"], true);

    // 6. The images of a repository.
    let of_repo = format!("GET public/v2/docker_registry/v2/images/?repository_id={}", id(repo));
    let images = caller.take(&of_repo, "");
    let image = &images[0];
    has(image, &IMAGE);
    assert_eq!((images.as_array().unwrap().len(), &image["digest"]), (1, &json!(digest)));
    assert_eq!(repo["recent_image"], *image);

    // 7. No body is printed.
    let body = r#"{"description": "camera", "labels": ["edge", "old"], "labels_to_delete": ["old"]}"#;
    let changed = caller.take(&format!("PUT {one}"), body);
    has(&changed, &REPOSITORY);
    assert_eq!((&changed["description"], &changed["labels"]), (&json!("camera"), &json!(["edge"])));

    // 8. The placeholder is garbled, »image_id».
    let by_id = format!("GET public/v2/docker_registry/v2/images/{}", id(image));
    assert_eq!(caller.take(&by_id, ""), *image);
    assert_eq!(caller.call("GET public/v2/docker_registry/v2/images/%C2%BBimage_id%C2%BB", "").status, 422);

    // 9. As printed, with a UUID of the first version, for an image that is not there.
    let printed = "GET public/v2/docker_registry/v2/tags/?image_id=44b5e14a-3919-11ea-8f8f-3a4ce9d1e497";
    assert_eq!(caller.call(printed, "").status, 404);
    let of_image = format!("GET public/v2/docker_registry/v2/tags/?image_id={}", id(image));
    let tags = caller.take(&of_image, "");
    has(&tags[0], &TAG_KEYS);
    assert_eq!((&tags[0]["name"], &tags[0]["color"]), (&json!("v1"), &json!(null)));

    // 10.
    let made = caller.take("POST public/v2/docker_registry/v2/tags/", &TAG.replace(MADE_UP, id(image)));
    has(&made, &TAG_KEYS);
    assert_eq!((&made["name"], &made["color"]), (&json!("string"), &json!("string")));
    assert_eq!((&made["image_id"], &made["repository_id"]), (&image["id"], &repo["id"]));

    // 11.
    let change = format!("PUT public/v2/docker_registry/v2/tags/{}", id(&made));
    let painted = caller.take(&change, &r#"{ "color" : "string" }"#.replace("string", "#ff8800"));
    assert_eq!((&painted["id"], &painted["color"]), (&made["id"], &json!("#ff8800")));

    // 12. The text speaks of an image_id; the body, which is right, of tag_ids.
    let delete = |path: &str, key: &str, which: &str| {
        let step = format!("DELETE public/v2/docker_registry/v2/{path}/");
        let body = |uuid: &str| format!("{{\n\"{key}\" : [\n\"{uuid}\"\n]\n}}");
        assert_eq!(caller.take(&step, &body(MADE_UP)), json!([]), "what is not there is passed by");
        assert_eq!(caller.take(&step, &body(which)), json!([which]));
    };
    delete("tags", "tag_ids", id(&made));
    let wrong = format!(r#"{{"image_id": "{}"}}"#, id(image));
    assert_eq!(caller.call("DELETE public/v2/docker_registry/v2/tags/", &wrong).status, 422);
    assert_eq!(caller.take(&of_image, "")[0]["name"], "v1", "the other tag stays");

    // 13.
    delete("images", "image_ids", id(image));
    assert_eq!(caller.call(&by_id, "").status, 404);
    let gone = caller.site.get(&format!("/v2/ann/cam/manifests/{digest}"));
    gone.is(404, "MANIFEST_UNKNOWN");

    // 14.
    delete("repositories", "repository_ids", id(repo));
    assert_eq!(caller.call(&format!("GET {one}"), "").status, 404);
}

#[test]
fn the_fourteen_steps_work_in_order_with_an_email_address_and_a_password() {
    let site = site();
    let password = step_1(&site);
    let digest = step_3(&site, &password);
    other_steps(&Caller { site: &site, headers: vec![("Authorization", basic(EMAIL, PASSWORD))] }, &digest);
}

/// As the guide's readers do it, with the three headers that the specification asks for. The
/// first step is for people.
#[test]
fn the_fourteen_steps_work_in_order_with_a_service_client() {
    let site = site();
    let made = site.registry.service_add(&UserName::parse("ann").unwrap(), None).unwrap();
    let stranger = Caller { site: &site, headers: Vec::new() };
    let body = json!({"client_id": made.row.id, "client_secret": made.secret}).to_string();
    let login = stranger.take("POST public/v2/service_auth", &body);
    has(&login, &["error_code", "error_message", "status", "token"]);
    assert_eq!((&login["status"], &login["error_code"]), (&json!("ok"), &json!(0)));
    let token = &login["token"];
    has(token, &["access_token", "expires_in", "token_type"]);
    assert_eq!((&token["token_type"], &token["expires_in"]), (&json!("Bearer"), &json!(3600)));
    let service = Caller {
        site: &site,
        headers: vec![
            ("Authorization", format!("Bearer {}", token["access_token"].as_str().unwrap())),
            ("x-api-key", made.api_key),
            ("x-workspace-id", made.row.workspace_id),
        ],
    };
    let refused = service.call("GET public/v2/docker_registry/v1/users/generate_password", "");
    assert_eq!((refused.status, &refused.json()["error_code"]), (403, &json!(403)));
    let password = step_1(&site);
    let digest = step_3(&site, &password);
    other_steps(&service, &digest);
}

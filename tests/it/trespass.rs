//! Ways round a right: through another repository, another token, another name.

use crate::harness::{Answer, OCI_MANIFEST, PASSWORD, Site, basic, manifest, sha256};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use outport::names::{RepoName, Tag, UserName};
use outport::registry::{Access, Pattern};
use serde_json::{Value, json};

/// What an answer says, but for the request's own id and the digest that was asked for.
fn said(answer: &Answer, digest: &str) -> (u16, String) {
    let id = answer.header("x-request-id").unwrap();
    (answer.status, String::from_utf8_lossy(&answer.body).replace(id, "ID").replace(digest, "DIGEST"))
}

#[test]
fn what_may_not_be_read_is_as_good_as_missing_through_every_other_repository() {
    let site = Site::new();
    let image = site.push_image("acme/secret", "v1", b"a secret layer");
    let about = manifest(
        &sha256(b"{}"),
        2,
        &[],
        &format!(r#","subject":{{"mediaType":"{OCI_MANIFEST}","digest":"{image}","size":2}}"#),
    );
    assert_eq!(site.put_manifest("acme/secret", "signature", &about).status, 201);
    site.push_image("bob/app", "v1", b"bob's own layer");
    let nothing = sha256(b"nobody has this");
    for secret in [image, sha256(b"a secret layer")] {
        let by_bob = |method: &str, target: &str, digest: &str| {
            said(&site.ask(method, &target.replace("{}", digest)).by("bob").send(), digest)
        };
        for method in ["GET", "HEAD"] {
            for target in ["/v2/bob/app/blobs/{}", "/v2/bob/app/manifests/{}", "/v2/bob/app/referrers/{}"] {
                let (hidden, missing) = (by_bob(method, target, &secret), by_bob(method, target, &nothing));
                assert_eq!(hidden, missing, "{method} {target}");
            }
        }
        for target in ["/v2/bob/app/blobs/{}", "/v2/bob/app/manifests/{}"] {
            assert_eq!(by_bob("DELETE", target, &secret), by_bob("DELETE", target, &nothing));
        }
        for from in ["", "&from=acme/secret", "&from=acme/absent", "&from=bob/app", "&from=nonsense%20"] {
            let target = format!("/v2/bob/app/blobs/uploads/?mount={secret}{from}");
            assert_eq!(site.ask("POST", &target).by("bob").send().status, 202, "{from}: send it yourself");
        }
        let naming = |digest: &str| {
            let text = manifest(digest, 2, &[], "");
            let put = site.ask("PUT", "/v2/bob/app/manifests/thief").by("bob");
            said(&put.header("Content-Type", OCI_MANIFEST).body(text.as_bytes()).send(), digest)
        };
        assert_eq!(naming(&secret), naming(&nothing));
        assert_eq!(naming(&secret).0, 400);
        assert_eq!(by_bob("HEAD", "/v2/bob/app/blobs/{}", &secret).0, 404, "none of that linked it");
    }
    let tags = site.ask("GET", "/v2/bob/app/tags/list").by("bob").send().strings("tags");
    assert_eq!(tags, ["v1"]);
}

#[test]
fn an_image_is_not_reached_by_its_uuid_through_a_workspace_of_ones_own() {
    let site = Site::new();
    site.push_image("acme/secret", "v1", b"layer");
    site.push_image("bob/app", "v1", b"bob's own layer");
    let row = |repo: &str| {
        site.registry.tag_row(&RepoName::parse(repo).unwrap(), &Tag::parse("v1").unwrap()).unwrap()
    };
    let (secret, own) = (row("acme/secret"), row("bob/app"));
    let bob = site.registry.user_verify("bob", PASSWORD).unwrap().unwrap();
    let workspace = site.registry.workspace_of(&bob).unwrap().unwrap().uuid;
    let ask = |method: &str, target: &str, body: &Value| {
        let ask = site.ask(method, &format!("/public/v2/docker_registry/v2/{target}")).by("bob").json(body);
        ask.header("X-Workspace-Id", &workspace).send()
    };
    let image = &secret.image_uuid;
    assert_eq!(ask("GET", &format!("images/{image}"), &json!({})).status, 404);
    assert_eq!(ask("GET", &format!("tags/?image_id={image}"), &json!({})).status, 404);
    assert_eq!(ask("POST", "tags/", &json!({"image_id": image, "name": "mine"})).status, 404);
    assert_eq!(ask("PUT", &format!("tags/{}", secret.uuid), &json!({"color": "red"})).status, 404);
    let both = json!({"tag_ids": [secret.uuid, own.uuid]});
    assert_eq!(ask("DELETE", "tags/", &both).json(), json!([own.uuid]), "and the rest is done");
    let both = json!({"image_ids": [image, own.image_uuid]});
    assert_eq!(ask("DELETE", "images/", &both).json(), json!([own.image_uuid]));
    assert_eq!(site.get("/v2/acme/secret/manifests/v1").status, 200);
}

/// What a bearer token says that it is for.
fn access_of(token: &str) -> Value {
    let claims = URL_SAFE_NO_PAD.decode(token.split('.').nth(1).unwrap()).unwrap();
    serde_json::from_slice::<Value>(&claims).unwrap()["access"].clone()
}

#[test]
fn a_list_of_scopes_gets_what_may_be_had_and_not_a_word_more() {
    let site = Site::new();
    site.push_image("acme/secret", "v1", b"layer");
    site.push_image("acme/public", "v1", b"layer");
    site.registry.repo_set_private(&RepoName::parse("acme/public").unwrap(), false).unwrap();
    let pattern = Pattern::parse("bob/app").unwrap();
    let name = UserName::parse("bob").unwrap();
    let (_, robot) = site.registry.token_new(&name, "", Access::Push, &pattern, None).unwrap();
    let get = |password: &str, query: &str| {
        let answer =
            site.ask("GET", &format!("/token?service=s{query}")).with_password("bob", password).send();
        assert_eq!(answer.status, 200, "asking is free");
        access_of(answer.json()["token"].as_str().unwrap())
    };
    let repo = |name: &str, actions: &[&str]| json!({"type": "repository", "name": name, "actions": actions});
    let nothing = json!([]);
    for query in [
        "",
        "&scope=",
        "&scope=repository:acme/secret:pull,push,delete,*",
        "&scope=repository:acme/secret:pull&scope=repository:acme/secret:*",
        "&scope=repository(plugin):acme/secret:pull",
        "&scope=repository:acme/public:push",
        "&scope=repository:ACME/public:pull",
        "&scope=repository:acme/public/../secret:pull",
        "&scope=repository:*:pull",
        "&scope=repository:acme/*:pull",
        "&scope=registry:*:*",
        "&scope=user:bob:*",
        "&scope=repository:bob/app:PULL",
        "&scope=repository:bob/app:admin",
    ] {
        assert_eq!(get(PASSWORD, query), nothing, "{query}");
    }
    let mixed = "&scope=repository:acme/secret:pull%20repository:acme/public:*&scope=repository:bob/app:delete,pull,pull";
    let expected = json!([repo("acme/public", &["pull"]), repo("bob/app", &["pull", "delete"])]);
    assert_eq!(get(PASSWORD, mixed), expected);
    assert_eq!(get(&robot, mixed), json!([repo("bob/app", &["pull"])]), "a robot's, its own alone");
    let all = "&scope=repository:bob/app:*%20repository:bob/app2:pull%20registry:catalog:*";
    assert_eq!(get(&robot, all), json!([repo("bob/app", &["pull", "push"])]));
    let many: String = (0..100).map(|n| format!("&scope=repository:bob/r{n}:pull")).collect();
    assert_eq!(get(PASSWORD, &many).as_array().unwrap().len(), 64);
}

#[test]
fn no_token_makes_another_that_would_outlive_it_nor_changes_who_holds_it() {
    let site = Site::new();
    let name = UserName::parse("bob").unwrap();
    let (_, robot) = site.registry.token_new(&name, "", Access::Delete, &Pattern::All, None).unwrap();
    let generated = |password: &str| {
        let target = "/public/v2/docker_registry/v1/users/generate_password";
        site.ask("GET", target).with_password("bob", password).send()
    };
    let second = generated(PASSWORD).json()["password"].as_str().unwrap().to_owned();
    let bearer = site.ask("GET", "/token?scope=repository:bob/app:*").by("bob").send().json();
    let v1 = site.ask("PUT", "/v1/repositories/bob/app/").by("bob").header("X-Docker-Token", "true");
    let v1 = v1.body(b"[]").send().header("x-docker-token").unwrap().to_owned();
    let holders = [
        basic("bob", &robot),
        basic("bob", &second),
        format!("Bearer {}", bearer["token"].as_str().unwrap()),
        format!("Token {v1}"),
    ];
    let count = || site.registry.tokens().unwrap().len();
    let before = count();
    for header in holders {
        let ask = |method: &str, target: &str| {
            site.ask(method, target).by_nobody().header("Authorization", &header)
        };
        let again =
            ask("PUT", "/v1/repositories/bob/app/").header("X-Docker-Token", "true").body(b"[]").send();
        assert_eq!((again.status, again.header("x-docker-token")), (200, None), "{header}");
        let label = json!({"token_label": "mine", "scopes": ["repo:read"]});
        for target in ["/v2/access-tokens", "/v2/api_tokens"] {
            assert!([401, 403].contains(&ask("POST", target).json(&label).send().status), "{header}");
        }
        let password = json!({"password": "another one", "email": "bob@example.org"});
        assert!([401, 403].contains(&ask("PUT", "/v1/users/bob/").json(&password).send().status), "{header}");
        let generate = ask("GET", "/public/v2/docker_registry/v1/users/generate_password");
        assert!([401, 403].contains(&generate.send().status), "{header}");
    }
    assert_eq!(count(), before);
    assert_eq!(site.ask("GET", "/v2/").by("bob").send().status, 200, "the password is the same");
    assert_eq!(site.ask("GET", "/v2/").with_password("bob", &second).send().status, 200);
}

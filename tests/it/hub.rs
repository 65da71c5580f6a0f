//! Docker Hub's API: what its scripts send, and what they read of the answers.

use crate::harness::{Answer, OCI_INDEX, PASSWORD, Site, Wishes, basic, manifest};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use outport::names::UserName;
use outport::registry::{Access, GroupName, Pattern};
use serde_json::{Value, json};

fn user(name: &str) -> UserName {
    UserName::parse(name).unwrap()
}

fn group(name: &str) -> GroupName {
    GroupName::parse(name).unwrap()
}

fn login_as(site: &Site, name: &str, password: &str) -> Answer {
    let body = json!({"username": name, "password": password});
    site.ask("POST", "/v2/users/login/").by_nobody().json(&body).send()
}

fn token(site: &Site, name: &str) -> String {
    let answer = login_as(site, name, PASSWORD);
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()["token"].as_str().unwrap().to_owned()
}

/// An organisation of carol's with a group `ci`, and the group's id.
fn with_acme(site: &Site) -> i64 {
    site.add_user("carol");
    site.registry.org_add(&user("acme"), "Acme", &user("carol")).unwrap();
    site.registry.group_add(&group("acme/ci"), "CI robots").unwrap();
    site.registry.group_info(&group("acme/ci")).unwrap().id
}

fn status(site: &Site, who: &str, method: &str, target: &str) -> u16 {
    site.ask(method, target).by(who).send().status
}

fn results(answer: &Answer, key: &str) -> Vec<String> {
    assert_eq!(answer.status, 200, "{answer:?}");
    let json = answer.json();
    json["results"].as_array().unwrap().iter().map(|row| row[key].as_str().unwrap().to_owned()).collect()
}

#[test]
fn both_schemes_and_basic_say_who_is_asking_and_the_token_is_a_jwt() {
    let site = Site::new();
    let jwt = token(&site, "bob");
    let parts: Vec<&str> = jwt.split('.').collect();
    assert_eq!(parts.len(), 3);
    let claims: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(parts[1]).unwrap()).unwrap();
    assert_eq!(claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap(), 12 * 3_600);
    assert_eq!(claims["username"], "bob");
    assert!(claims["jti"].is_string() && claims["sub"].is_string());
    let plain = basic("bob", PASSWORD);
    for header in [&format!("JWT {jwt}"), &format!("jwt {jwt}"), &format!("Bearer {jwt}"), &plain] {
        let answer = site.ask("GET", "/v2/user/").by_nobody().header("Authorization", header).send();
        assert_eq!((answer.status, &answer.json()["username"]), (200, &json!("bob")), "{header}");
    }
    let body = json!({"identifier": "bob", "secret": PASSWORD});
    let short = site.ask("POST", "/v2/auth/token").by_nobody().json(&body).send();
    let short = short.json()["access_token"].as_str().unwrap().to_owned();
    assert_eq!(site.ask("GET", "/v2/user/").bearer(&short).send().status, 200);
    site.hands.advance(std::time::Duration::from_secs(600));
    assert_eq!(site.ask("GET", "/v2/user/").bearer(&short).send().status, 401);
    assert_eq!(site.ask("GET", "/v2/user/").bearer(&jwt).send().status, 200);
    site.hands.advance(std::time::Duration::from_secs(12 * 3_600));
    assert_eq!(site.ask("GET", "/v2/user/").bearer(&jwt).send().status, 401);
}

#[test]
fn wrong_credentials_are_told_so_in_the_words_scripts_compare() {
    let site = Site::new();
    let wrong = login_as(&site, "bob", "wrong one");
    assert_eq!((wrong.status, wrong.header("www-authenticate")), (401, Some("JWT realm=\"api\"")));
    assert_eq!(wrong.json()["detail"], "Incorrect authentication credentials");
    assert_eq!(login_as(&site, "nobody", "wrong one").json(), wrong.json());
    let nobody = site.ask("GET", "/v2/user/").by_nobody().send();
    assert_eq!(nobody.json()["detail"], "Authentication credentials were not provided.");
    assert_eq!(nobody.json()["message"], nobody.json()["detail"]);
    let empty = site.ask("POST", "/v2/users/login").by_nobody().send();
    let required = json!(["This field is required."]);
    assert_eq!((empty.status, empty.json()), (400, json!({"username": required, "password": required})));
}

#[test]
fn a_token_that_was_tampered_with_or_is_for_another_dialect_is_none() {
    let site = Site::new();
    let jwt = token(&site, "bob");
    let parts: Vec<&str> = jwt.split('.').collect();
    let claims = String::from_utf8(URL_SAFE_NO_PAD.decode(parts[1]).unwrap()).unwrap();
    let forged = URL_SAFE_NO_PAD
        .encode(claims.replace("\"bob\"", "\"admin\"").replace("\"user\":[2,", "\"user\":[1,"));
    let none = URL_SAFE_NO_PAD.encode(r#"{"alg":"none","typ":"JWT"}"#);
    for bad in [
        format!("{}.{forged}.{}", parts[0], parts[2]),
        format!("{none}.{forged}."),
        format!("{}.{}.", parts[0], parts[1]),
        jwt[1..].to_owned(),
        "x".into(),
        "..".into(),
    ] {
        assert_eq!(site.ask("GET", "/v2/user/").jwt(&bad).send().status, 401, "{bad}");
    }
    let registry = site.ask("GET", "/token?scope=registry:catalog:*&service=hub").by("bob").send();
    let registry = registry.json()["token"].as_str().unwrap().to_owned();
    assert_eq!(site.ask("GET", "/v2/_catalog").bearer(&registry).send().status, 200);
    assert_eq!(site.ask("GET", "/v2/user/").bearer(&registry).send().status, 401);
    assert_eq!(site.ask("GET", "/v2/user/").jwt(&registry).send().status, 401);
    site.ask("GET", "/v2/").bearer(&jwt).send().is(401, "UNAUTHORIZED");
    site.ask("GET", "/v2/_catalog").jwt(&jwt).send().is(401, "UNAUTHORIZED");
    site.registry.user_set_password(&user("bob"), "another password").unwrap();
    assert_eq!(site.ask("GET", "/v2/user/").jwt(&jwt).send().status, 401, "it ends with the password");
}

#[test]
fn a_repository_is_made_once_and_by_those_who_may_push_there() {
    let site = Site::new();
    with_acme(&site);
    let create = |who: &str, target: &str, body: Value| site.ask("POST", target).by(who).json(&body).send();
    let first =
        create("bob", "/v2/namespaces/bob/repositories", json!({"name": "app", "registry": "docker.io"}));
    assert_eq!((first.status, &first.json()["is_private"]), (201, &json!(false)));
    let again = create("bob", "/v2/repositories/bob/", json!({"name": "app", "namespace": "ignored"}));
    assert_eq!(again.status, 400);
    assert_eq!(again.json(), json!({"__all__": ["Repository with this Name and Namespace already exists."]}));
    let body = json!({"namespace": "acme", "name": "app", "is_private": true});
    assert_eq!(create("bob", "/v2/repositories/", body.clone()).status, 403);
    assert_eq!(create("bob", "/v2/repositories", json!({"namespace": "nowhere", "name": "app"})).status, 403);
    assert_eq!(create("carol", "/v2/repositories", body).status, 201);
    assert_eq!(site.ask("POST", "/v2/repositories").by_nobody().send().status, 401);
    // What is empty is no image, but it is there.
    assert_eq!(site.get("/v2/_catalog").strings("repositories"), Vec::<String>::new());
    assert_eq!(site.get("/v2/bob/app/tags/list").strings("tags"), Vec::<String>::new());
    site.push_image("bob/app", "v1", b"layer");
    let seen = site.ask("GET", "/v2/repositories/bob/app").by("bob").send().json();
    assert_eq!(
        (&seen["status"], &seen["can_edit"], &seen["affiliation"]),
        (&json!(1), &json!(true), &json!("owner"))
    );
    assert_eq!(seen["permissions"], json!({"read": true, "write": true, "admin": true}));
    let other = site.ask("GET", "/v2/namespaces/bob/repositories/app").by("carol").send().json();
    assert_eq!(other["permissions"], json!({"read": true, "write": false, "admin": false}));
}

#[test]
fn privacy_hides_a_repository_from_others_at_once_and_in_every_dialect() {
    let site = Site::with(Wishes::anonymous());
    site.add_user("carol");
    site.push_image("bob/app", "v1", b"layer");
    let privacy = |private: &str| {
        let form = format!("is_private={private}");
        site.ask("POST", "/v2/repositories/bob/app/privacy").by("bob").form(&form).send()
    };
    let seen = || {
        let nobody = |target: &str| site.ask("GET", target).by_nobody().send();
        let listed = results(&nobody("/v2/repositories/bob/"), "name").len();
        let found = nobody("/v2/search/repositories/?query=APP").json()["count"].as_u64().unwrap();
        (
            nobody("/v2/bob/app/tags/list").status,
            status(&site, "carol", "GET", "/v2/bob/app/tags/list"),
            nobody("/v2/repositories/bob/app/").status,
            status(&site, "carol", "HEAD", "/v2/repositories/bob/app/tags/"),
            listed,
            found,
        )
    };
    assert_eq!(privacy("False").status, 200);
    assert_eq!(seen(), (200, 200, 200, 200, 1, 1));
    assert_eq!(privacy("true").json()["is_private"], true);
    assert_eq!(seen(), (401, 403, 401, 403, 0, 0));
    assert_eq!(results(&site.ask("GET", "/v2/repositories/bob").by("bob").send(), "name"), ["app"]);
    // Missing and hidden look the same.
    assert_eq!(status(&site, "carol", "GET", "/v2/repositories/bob/none/"), 403);
    assert_eq!(status(&site, "bob", "GET", "/v2/repositories/bob/none/"), 404);
    assert_eq!(status(&site, "carol", "POST", "/v2/repositories/bob/app/privacy"), 403);
}

#[test]
fn lists_come_in_pages_whose_addresses_are_whole() {
    let site = Site::new();
    for n in 0..12 {
        let body = json!({"name": format!("app{n:02}"), "is_private": n % 2 == 0});
        assert_eq!(site.ask("POST", "/v2/repositories/bob").by("bob").json(&body).send().status, 201);
    }
    let page = |query: &str| site.ask("GET", &format!("/v2/repositories/bob/{query}")).by("bob").send();
    let first = page("?ordering=name");
    assert_eq!((results(&first, "name").len(), &first.json()["count"]), (10, &json!(12)));
    assert_eq!(first.json()["previous"], Value::Null);
    let next = first.json()["next"].as_str().unwrap().to_owned();
    assert_eq!(next, format!("http://{}/v2/repositories/bob/?ordering=name&page=2", site.address));
    let second = page(next.split_once("bob/").unwrap().1);
    assert_eq!(results(&second, "name"), ["app10", "app11"]);
    assert_eq!(second.json()["next"], Value::Null);
    assert!(second.json()["previous"].as_str().unwrap().ends_with("&page=1"));
    assert_eq!(results(&page("?page_size=1000"), "name").len(), 12);
    assert_eq!(results(&page("?page_size=5&page=3&ordering=-name"), "name"), ["app01", "app00"]);
    assert_eq!(results(&page("?page_size=nonsense"), "name").len(), 10);
    assert_eq!(results(&page("?name=APP0"), "name").len(), 10);
    for bad in ["0", "-1", "3", "x", "", "18446744073709551615", "99999999999999999999"] {
        let answer = page(&format!("?page={bad}"));
        assert_eq!((answer.status, &answer.json()["detail"]), (404, &json!("Invalid page.")), "{bad}");
    }
    // The last page of a walk may be empty, for a filter stops looking where it must.
    let last = page("?name=app11&ordering=name&page=51&after=0.bob/app11");
    assert_eq!((last.status, results(&last, "name").len()), (200, 0));
    assert_eq!(last.json()["next"], Value::Null);
    let public = site.ask("GET", "/v2/namespaces/bob/repositories?page_size=100").send();
    assert_eq!(results(&public, "name").len(), 12, "an administrator reads everything");
    site.add_user("carol");
    let public = site.ask("GET", "/v2/namespaces/bob/repositories?page_size=100").by("carol").send();
    assert_eq!(results(&public, "name").len(), 6);
    assert_eq!(site.ask("GET", "/v2/repositories/bob").by_nobody().send().status, 401);
    assert_eq!(site.get("/v2/repositories/nowhere/").status, 404);
}

#[test]
fn a_namespace_that_is_nobodys_is_no_secret_told() {
    let site = Site::new();
    site.push_image("secret/app", "v1", b"layer");
    assert_eq!(status(&site, "bob", "GET", "/v2/repositories/secret"), 404);
    assert_eq!(results(&site.get("/v2/repositories/secret"), "name"), ["app"]);
}

#[test]
fn tags_show_their_images_and_platforms() {
    let site = Site::new();
    let config = br#"{"architecture":"arm64","os":"linux","variant":"v8","rootfs":{}}"#;
    let (config_digest, layer) = (site.push_blob("bob/app", config), site.push_blob("bob/app", b"layer"));
    let image = manifest(&config_digest, config.len(), &[(&layer, 5)], "");
    let digest =
        site.put_manifest("bob/app", "arm", &image).header("docker-content-digest").unwrap().to_owned();
    let index = format!(
        r#"{{"schemaVersion":2,"mediaType":"{OCI_INDEX}","manifests":[
          {{"mediaType":"x","digest":"{digest}","size":{},"platform":{{"os":"linux","architecture":"arm64"}}}},
          {{"mediaType":"x","digest":"sha256:{}","size":5,"platform":7}}]}}"#,
        image.len(),
        "a".repeat(64)
    );
    let put =
        site.ask("PUT", "/v2/bob/app/manifests/all").header("Content-Type", OCI_INDEX).body(index.as_bytes());
    assert_eq!(put.send().status, 201);

    let arm = site.ask("GET", "/v2/repositories/bob/app/tags/arm").by("bob").send().json();
    assert_eq!((&arm["digest"], &arm["full_size"]), (&json!(digest), &json!(config.len() + 5)));
    assert_eq!((&arm["last_updater_username"], &arm["tag_status"]), (&json!("admin"), &json!("active")));
    let shown =
        |image: &Value| (image["os"].clone(), image["architecture"].clone(), image["variant"].clone());
    assert_eq!(shown(&arm["images"][0]), (json!("linux"), json!("arm64"), json!("v8")));
    let all = site.ask("GET", "/v2/namespaces/bob/repositories/app/tags/all/").by("bob").send().json();
    assert_eq!(all["images"].as_array().unwrap().len(), 2);
    assert_eq!(all["images"][0]["digest"], digest.as_str());
    assert_eq!(all["images"][0]["size"], config.len() + 5);
    assert_eq!(
        shown(&all["images"][1]),
        (json!(""), json!(""), Value::Null),
        "what says nothing shows nothing"
    );
    assert_eq!(all["full_size"], config.len() + 5);

    let list = |query: &str| results(&site.get(&format!("/v2/repositories/bob/app/tags/{query}")), "name");
    assert_eq!(list("?ordering=-name"), ["arm", "all"]);
    assert_eq!(list("?name=AR"), ["arm"]);
    let head = site.ask("HEAD", "/v2/repositories/bob/app/tags/none/").send();
    assert_eq!((head.status, head.body.len()), (404, 0));
    assert_eq!(status(&site, "bob", "DELETE", "/v2/repositories/bob/app/tags/arm/"), 204);
    assert_eq!(status(&site, "bob", "DELETE", "/v2/repositories/bob/app/tags/arm/"), 404);
    assert_eq!(site.get("/v2/bob/app/tags/list").strings("tags"), ["all"]);
}

#[test]
fn a_tag_called_list_is_hubs_and_every_other_registry_address_is_the_registrys() {
    let site = Site::new();
    site.push_image("bob/app", "list", b"layer");
    assert_eq!(site.get("/v2/repositories/bob/app/tags/list").json()["name"], "list");
    for repo in ["users/x", "user/orgs", "search/repositories", "auth/token"] {
        site.push_image(repo, "v1", b"layer");
        assert_eq!(site.get(&format!("/v2/{repo}/manifests/v1")).status, 200, "{repo}");
        assert_eq!(site.get(&format!("/v2/{repo}/tags/list")).strings("tags"), ["v1"]);
    }
    for reserved in ["repositories/a", "namespaces/a", "orgs/a", "orgs"] {
        site.get(&format!("/v2/{reserved}/manifests/v1")).is(400, "NAME_INVALID");
    }
    assert!(site.get("/v2/repositories/a/b/nothing").json()["detail"].is_string());
    let wrong = site.ask("PUT", "/v2/repositories/a/b/tags/list").send();
    assert_eq!((wrong.status, wrong.header("allow")), (405, Some("GET, HEAD, DELETE")));
}

#[test]
fn deeper_repositories_are_named_with_encoded_slashes() {
    let site = Site::new();
    site.push_image("bob/a/b", "v1", b"layer");
    assert_eq!(results(&site.get("/v2/repositories/bob/"), "name"), ["a/b"]);
    assert_eq!(site.get("/v2/repositories/bob/a%2Fb/").json()["name"], "a/b");
    assert_eq!(results(&site.get("/v2/repositories/bob/a%2Fb/tags/"), "name"), ["v1"]);
}

#[test]
fn a_repository_is_described_starred_and_deleted() {
    let site = Site::new();
    site.push_image("bob/app", "v1", b"layer");
    let target = "/v2/repositories/bob/app/";
    let patch = |who: &str, body: Value| site.ask("PATCH", target).by(who).json(&body).send();
    let body = json!({"description": "short", "full_description": "# Long\n", "immutable_tags": false});
    assert_eq!(patch("bob", body).json()["full_description"], "# Long\n");
    let changed = patch("bob", json!({"description": ""})).json();
    assert_eq!((&changed["description"], &changed["full_description"]), (&json!(""), &json!("# Long\n")));
    site.add_user("carol");
    assert_eq!(patch("carol", json!({})).status, 403);

    let stars = "/v2/repositories/bob/app/stars/";
    assert_eq!(status(&site, "carol", "POST", stars), 403, "it is private");
    assert_eq!(status(&site, "bob", "POST", stars), 201);
    assert_eq!(status(&site, "bob", "POST", stars), 201);
    let seen = |who: &str| site.ask("GET", target).by(who).send().json();
    assert_eq!((&seen("bob")["star_count"], &seen("bob")["has_starred"]), (&json!(1), &json!(true)));
    assert_eq!(seen("admin")["has_starred"], false);
    assert_eq!(status(&site, "bob", "DELETE", stars), 204);
    assert_eq!(seen("bob")["star_count"], 0);

    assert_eq!(status(&site, "bob", "DELETE", target), 202);
    assert_eq!(status(&site, "bob", "DELETE", target), 404);
    assert_eq!(status(&site, "bob", "GET", "/v2/bob/app/tags/list"), 404);
}

#[test]
fn grants_of_a_repository_are_listed_changed_and_taken_back() {
    let site = Site::new();
    let id = with_acme(&site);
    site.registry.org_add(&user("other"), "", &user("bob")).unwrap();
    site.registry.group_add(&group("other/ci"), "").unwrap();
    let foreign = site.registry.group_info(&group("other/ci")).unwrap().id;
    site.push_image("acme/app", "v1", b"layer");
    let groups = "/v2/repositories/acme/app/groups/";
    let ask = |method: &str, rest: &str, body: Value| {
        site.ask(method, &format!("{groups}{rest}")).by("carol").json(&body).send()
    };
    let one = format!("{id}/");
    assert_eq!(ask("PATCH", &one, json!({"permission": "read"})).status, 404, "nothing to change");
    assert_eq!(ask("POST", "", json!({"group_id": id, "groupid": id, "permission": "admin"})).status, 200);
    assert_eq!(site.ask("GET", groups).by("carol").send().json()["results"][0]["permission"], "admin");
    let patched = ask("PATCH", &one, json!({"group_id": 0, "group_name": "", "permission": "write"}));
    assert_eq!(patched.json(), json!({"group_id": id, "group_name": "ci", "permission": "write"}));
    assert_eq!(site.ask("GET", &format!("{groups}{id}")).by("carol").send().json(), patched.json());
    for (body, status) in [
        (json!({}), 400),
        (json!({"group_id": id}), 400),
        (json!({"group_id": id, "permission": "owner"}), 400),
        (json!({"group_id": "x", "permission": "read"}), 400),
        (json!({"group_id": 1.5, "permission": "read"}), 400),
        (json!({"group_id": [id], "permission": "read"}), 400),
        (json!({"group_id": null, "permission": "read"}), 400),
        (json!({"group_id": foreign, "permission": "read"}), 400),
        (json!({"group_id": 999, "permission": "read"}), 404),
        (json!([id]), 400),
    ] {
        assert_eq!(ask("POST", "", body.clone()).status, status, "{body}");
    }
    assert_eq!(status(&site, "bob", "GET", groups), 403);
    assert_eq!(status(&site, "carol", "GET", "/v2/repositories/acme/none/groups/"), 404);
    assert_eq!(ask("DELETE", &one, json!({})).status, 204);
    assert_eq!(ask("DELETE", &one, json!({})).status, 404);
    assert_eq!(ask("GET", "nonsense", json!({})).status, 404);
    assert_eq!(site.ask("GET", groups).by("carol").send().json()["count"], 0);
}

#[test]
fn owners_look_after_groups_and_members_see_them() {
    let site = Site::new();
    with_acme(&site);
    site.add_user("dave");
    let ask = |who: &str, method: &str, rest: &str, body: Value| {
        site.ask(method, &format!("/v2/orgs/acme/{rest}")).by(who).json(&body).send()
    };
    let made = ask("carol", "POST", "groups", json!({"name": "Dev_1", "description": "people"}));
    assert_eq!((made.status, &made.json()["member_count"]), (201, &json!(0)));
    assert!(made.json()["id"].is_i64() && made.json()["uuid"].is_string());
    assert_eq!(ask("carol", "POST", "groups/", json!({"name": "Dev_1"})).status, 400);
    assert_eq!(ask("carol", "POST", "groups/", json!({"name": "a b"})).status, 400);
    assert_eq!(ask("bob", "GET", "groups/", json!({})).status, 403, "not a member");
    assert_eq!(ask("dave", "POST", "groups/", json!({"name": "mine"})).status, 403);

    assert_eq!(ask("carol", "POST", "groups/Dev_1/members", json!({"member": "dave"})).status, 200);
    assert_eq!(ask("carol", "POST", "groups/Dev_1/members/", json!({"member": "No one"})).status, 400);
    assert_eq!(ask("carol", "POST", "groups/Dev_1/members/", json!({"member": "nobody"})).status, 404);
    assert_eq!(ask("dave", "POST", "groups/Dev_1/members/", json!({"member": "bob"})).status, 403);
    let of_dave = ask("dave", "GET", "groups/?username=dave", json!({}));
    assert_eq!(results(&of_dave, "name"), ["Dev_1"]);
    assert_eq!(results(&ask("dave", "GET", "groups/?search=OWN", json!({})), "name"), ["owners"]);
    // hub-tool takes a bare list; Terraform, which sends the same, takes pages.
    let members = site.ask("GET", "/v2/orgs/acme/groups/Dev_1/members/").by("dave");
    assert_eq!(members.header("User-Agent", "hub-tool/v0.4.6").send().json()[0]["username"], "dave");
    for target in ["groups/Dev_1/members/", "groups/Dev_1/members"] {
        assert_eq!(results(&ask("dave", "GET", target, json!({})), "username"), ["dave"]);
    }
    assert_eq!(results(&ask("dave", "GET", "groups/Dev_1/members/?page=1", json!({})), "username"), ["dave"]);
    assert_eq!(results(&ask("dave", "GET", "members/", json!({})), "username"), ["carol", "dave"]);
    assert_eq!(results(&site.ask("GET", "/v2/user/orgs/").by("dave").send(), "orgname"), ["acme"]);
    assert_eq!(site.ask("GET", "/v2/orgs/acme/").by("dave").send().json()["full_name"], "Acme");
    assert_eq!(site.get("/v2/orgs/nowhere/groups/").status, 404);
    assert_eq!(site.get("/v2/orgs/bob/groups/").status, 404, "users have no groups");

    let renamed = ask("carol", "PATCH", "groups/Dev_1/", json!({"name": "dev"}));
    assert_eq!((&renamed.json()["name"], &renamed.json()["description"]), (&json!("dev"), &json!("people")));
    assert_eq!(ask("carol", "PUT", "groups/dev", json!({"name": "ci"})).status, 400, "taken");
    assert_eq!(ask("carol", "PUT", "groups/owners", json!({"name": "chiefs"})).status, 409);
    assert_eq!(ask("carol", "GET", "groups/none", json!({})).status, 404);

    assert_eq!(ask("carol", "PUT", "members/dave", json!({"role": "owner"})).status, 200);
    assert_eq!(ask("dave", "PUT", "members/carol", json!({"role": "member"})).status, 200);
    assert_eq!(ask("dave", "PUT", "members/dave", json!({"role": "member"})).status, 409, "the last owner");
    assert_eq!(ask("dave", "PUT", "members/dave", json!({"role": "king"})).status, 400);
    assert_eq!(ask("dave", "DELETE", "members/dave", json!({})).status, 409);
    assert_eq!(ask("dave", "DELETE", "members/bob", json!({})).status, 404);
    assert_eq!(ask("dave", "DELETE", "groups/dev/members/dave", json!({})).status, 204);
    assert_eq!(ask("dave", "DELETE", "groups/dev/members/dave", json!({})).status, 404);
    assert_eq!(ask("dave", "DELETE", "groups/owners", json!({})).status, 409);
    assert_eq!(ask("dave", "DELETE", "groups/dev/", json!({})).status, 204);
}

#[test]
fn an_access_token_is_shown_once_limits_its_bearer_and_can_be_put_to_sleep() {
    let site = Site::new();
    site.push_image("bob/app", "v1", b"layer");
    let jwt = token(&site, "bob");
    let body =
        json!({"token_label": "laptop", "scopes": ["repo:read"], "expires_at": "2030-01-31T12:00:00Z"});
    let made = site.ask("POST", "/v2/access-tokens").jwt(&jwt).json(&body).send();
    assert_eq!(made.status, 201, "{made:?}");
    let (made, uuid) = (made.json(), made.json()["uuid"].as_str().unwrap().to_owned());
    let pat = made["token"].as_str().unwrap();
    assert_eq!(made["expires_at"], "2030-01-31T12:00:00.000000Z");
    let one = format!("/v2/access-tokens/{uuid}");
    let seen = site.ask("GET", &one).jwt(&jwt).send().json();
    assert_eq!((&seen["token"], &seen["token_label"]), (&json!(""), &json!("laptop")));
    assert_eq!(results(&site.ask("GET", "/v2/api_tokens/").jwt(&jwt).send(), "uuid"), [uuid.as_str()]);

    let pull = || site.ask("GET", "/v2/bob/app/manifests/v1").with_password("bob", pat).send().status;
    assert_eq!(pull(), 200);
    let limited = login_as(&site, "bob", pat).json()["token"].as_str().unwrap().to_owned();
    let by_pat = |method: &str, target: &str| {
        site.ask(method, target).jwt(&limited).json(&json!({"name": "new", "token_label": "x"})).send().status
    };
    assert_eq!(by_pat("GET", "/v2/repositories/bob/app/"), 200);
    assert_eq!(by_pat("GET", "/v2/repositories/bob/"), 200);
    assert_eq!(by_pat("POST", "/v2/repositories/bob/"), 403);
    assert_eq!(by_pat("DELETE", "/v2/repositories/bob/app/"), 403);
    assert_eq!(by_pat("POST", "/v2/access-tokens"), 403, "no token makes another");
    assert_eq!(site.ask("GET", &one).by("admin").send().status, 404, "it is bob's");

    let change = |body: Value| site.ask("PATCH", &one).jwt(&jwt).json(&body).send();
    assert_eq!(change(json!({"is_active": false, "token_label": "old"})).json()["is_active"], false);
    assert_eq!(pull(), 401);
    assert_eq!(by_pat("GET", "/v2/repositories/bob/app/"), 401, "what it was exchanged for sleeps too");
    assert_eq!(change(json!({"is_active": true})).json()["token_label"], "old");
    assert_eq!(pull(), 200);
    assert_eq!(change(json!({"is_active": "maybe"})).status, 400);
    for body in [
        json!({}),
        json!({"token_label": "x"}),
        json!({"token_label": "x", "scopes": []}),
        json!({"token_label": "x", "scopes": ["repo:everything"]}),
        json!({"token_label": "x", "scopes": [1]}),
        json!({"token_label": "x", "scopes": 1}),
        json!({"token_label": "a\nb", "scopes": ["repo:read"]}),
        json!({"token_label": "x", "scopes": ["repo:read"], "expires_at": "tomorrow"}),
        json!({"token_label": "x", "scopes": ["repo:read"], "expires_at": "2001-01-01T00:00:00Z"}),
    ] {
        assert_eq!(site.ask("POST", "/v2/access-tokens").jwt(&jwt).json(&body).send().status, 400, "{body}");
    }
    let legacy = site.ask("POST", "/v2/api_tokens").jwt(&jwt).json(&json!({"token_label": "cli"})).send();
    assert_eq!(legacy.json()["scopes"], json!(["repo:admin"]));
    assert_eq!(site.ask("DELETE", &one).jwt(&jwt).send().status, 204);
    assert_eq!(site.ask("DELETE", &one).jwt(&jwt).send().status, 404);
    assert_eq!(site.ask("GET", "/v2/access-tokens/nonsense").jwt(&jwt).send().status, 404);
    assert_eq!(pull(), 401);
}

#[test]
fn a_name_that_comes_twice_in_a_form_is_a_list() {
    let site = Site::new();
    let make = |form: &str| site.ask("POST", "/v2/access-tokens").by("bob").form(form).send();
    let scopes = |answer: &Answer| answer.json()["scopes"].clone();
    for form in [
        "scopes=repo:read&scopes=repo:admin&token_label=x",
        "token_label=x&scopes=repo:admin&scopes=repo:read",
    ] {
        let made = make(form);
        assert_eq!((made.status, scopes(&made)), (201, json!(["repo:admin"])), "{form}");
    }
    let wrong = make("token_label=x&scopes=everything&scopes=repo:read");
    assert_eq!(wrong.status, 400);
    assert!(scopes(&wrong)[0].is_string(), "{wrong:?}");
    let twice = make("token_label=x&token_label=y&scopes=repo:read");
    assert_eq!((twice.status, twice.json()), (400, json!({"token_label": ["Not a valid string."]})));
    let part = |name: &str, value: &str| {
        format!("--b\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n")
    };
    let parts = [part("token_label", "x"), part("scopes", "repo:write"), part("scopes", "repo:read")];
    let body = parts.concat() + "--b--\r\n";
    let made = site.ask("POST", "/v2/access-tokens").by("bob");
    let made = made.header("Content-Type", "multipart/form-data; boundary=b").body(body.as_bytes()).send();
    assert_eq!((made.status, scopes(&made)), (201, json!(["repo:write"])));
}

#[test]
fn a_token_for_one_repository_sees_that_one() {
    let site = Site::new();
    for repo in ["bob/app", "bob/other"] {
        site.push_image(repo, "v1", b"layer");
    }
    let pattern = Pattern::parse("bob/app").unwrap();
    let (_, robot) = site.registry.token_new(&user("bob"), "", Access::Delete, &pattern, None).unwrap();
    let jwt = login_as(&site, "bob", &robot).json()["token"].as_str().unwrap().to_owned();
    let status = |method: &str, target: &str| {
        let by_jwt = site.ask(method, target).jwt(&jwt).send().status;
        assert_eq!(site.ask(method, target).with_password("bob", &robot).send().status, by_jwt, "{target}");
        by_jwt
    };
    assert_eq!(status("GET", "/v2/repositories/bob/app/"), 200);
    assert_eq!(status("GET", "/v2/repositories/bob/app/tags/v1/"), 200);
    for beyond in ["repositories/bob/other/", "repositories/bob/", "search/repositories/", "user/orgs/"] {
        assert_eq!(status("GET", &format!("/v2/{beyond}")), 403, "{beyond}");
    }
    let made = site.ask("POST", "/v2/repositories/bob/").jwt(&jwt).form("name=new").send();
    assert_eq!(made.status, 403);
}

#[test]
fn search_finds_what_its_reader_may_see() {
    let site = Site::new();
    for (name, private) in [("camera", false), ("camper", true), ("other", false)] {
        let body = json!({"name": name, "is_private": private, "description": "An Edge thing"});
        assert_eq!(site.ask("POST", "/v2/repositories/bob").by("bob").json(&body).send().status, 201);
    }
    site.add_user("carol");
    let find = |who: &str, query: &str| {
        let target = format!("/v2/search/repositories/?query={query}");
        results(&site.ask("GET", &target).by(who).send(), "repo_name")
    };
    assert_eq!(find("bob", "CAM"), ["bob/camera", "bob/camper"]);
    assert_eq!(find("carol", "cam"), ["bob/camera"]);
    assert_eq!(find("carol", "edge"), ["bob/camera", "bob/other"]);
    assert_eq!(find("carol", "%25"), Vec::<String>::new(), "nothing in a query is a pattern");
    for none in ["%00%08%00%00%0E13%20%00", "cam%00", &"x".repeat(256)] {
        let target = format!("/v2/search/repositories/?query={none}");
        assert_eq!(site.ask("GET", &target).by("bob").send().status, 400, "{none}");
    }
    assert_eq!(site.ask("GET", "/v2/search/repositories/").by_nobody().send().status, 401);
}

#[test]
fn bad_fields_are_named_each_with_its_sentence() {
    let site = Site::new();
    let create = |body: Value| site.ask("POST", "/v2/repositories/").by("bob").json(&body).send();
    let required = json!(["This field is required."]);
    assert_eq!(create(json!({})).json(), json!({"name": required, "namespace": required}));
    for (field, value) in [
        ("name", json!("A")),
        ("name", json!("a")),
        ("name", json!("Upper")),
        ("name", json!("a/b")),
        ("name", json!("../etc")),
        ("name", json!("")),
        ("name", Value::Null),
        ("name", json!(["app"])),
        ("name", json!("a".repeat(256))),
        ("namespace", json!("Bob")),
        ("namespace", json!("bob/x")),
        ("namespace", json!("repositories")),
        ("description", json!("x".repeat(101))),
        ("description", json!("a\u{0}b")),
        ("description", json!({})),
        ("full_description", json!("x".repeat(25_001))),
        ("is_private", json!("perhaps")),
        ("is_private", json!([])),
        ("is_private", json!(2)),
    ] {
        let mut body = json!({"namespace": "bob", "name": "app"});
        body[field] = value.clone();
        let answer = create(body);
        assert_eq!(answer.status, 400, "{field} {value} {answer:?}");
        let sentence = &answer.json()[field][0];
        assert!(sentence.is_string(), "{field} {value}: {}", answer.json());
    }
    let json_says = |body: &[u8]| {
        let ask = site.ask("POST", "/v2/repositories/").by("bob").header("Content-Type", "application/json");
        ask.body(body).send()
    };
    for broken in [&b"{"[..], b"[1]", b"name=app&namespace=bob", b"{\"name\":}", b"\"x\"", b"\xff"] {
        let answer = json_says(broken);
        assert_eq!(answer.status, 400, "{:?}", String::from_utf8_lossy(broken));
        assert!(answer.json()["detail"].is_string());
    }
    let long = vec![b'x'; 300 << 10];
    assert_eq!(site.ask("POST", "/v2/repositories/").by("bob").body(&long).send().status, 413);
    let missing = site.ask("POST", "/v2/repositories/bob/app/privacy/").by("bob").send();
    assert_eq!(missing.json(), json!({"is_private": required}));
    // As curl -F sends a form.
    let parts = "--x\r\nContent-Disposition: form-data; name=\"name\"\r\n\r\nmulti\r\n--x--\r\n";
    let multi = site.ask("POST", "/v2/repositories/bob").by("bob");
    let multi = multi.header("Content-Type", "multipart/form-data; boundary=x").body(parts.as_bytes()).send();
    assert_eq!((multi.status, &multi.json()["name"]), (201, &json!("multi")));
    // True and false as forms spell them.
    for (at, (word, private)) in
        [("t", true), ("YES", true), ("on", true), ("off", false), ("", false), ("0", false)]
            .into_iter()
            .enumerate()
    {
        let form = format!("namespace=bob&name=r{at}&is_private={word}&unknown=1");
        let made = site.ask("POST", "/v2/repositories").by("bob").form(&form).send();
        assert_eq!(made.json()["is_private"], private, "{word}");
    }
}

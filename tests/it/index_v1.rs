//! Docker's v1 index: announcing, tokens, image lists, users, search.

use crate::harness::{Answer, Ask, PASSWORD, Site, Wishes, sha256};
use outport::names::{RepoName, UserName};
use outport::registry::{Access, Grantee, Level, Pattern, SignUp};
use serde_json::{Value, json};
use std::time::Duration;

const ID: &str = "9e89cc6f0bc3c38722009fe6857087b486531f9a779a0c17e3ed29dae8f12c4f";
const SHORT: &str = "1020903f808f";

fn repo(name: &str) -> RepoName {
    RepoName::parse(name).unwrap()
}

fn put(site: &Site, target: &str, body: &str) -> Ask {
    site.ask("PUT", target).header("X-Docker-Token", "true").body(body.as_bytes())
}

/// Announces a repository, and returns the token that came back.
fn announce(site: &Site, name: &str, who: &str) -> String {
    let body = format!(r#"[{{"id":"{ID}"}}]"#);
    let answer = put(site, &format!("/v1/repositories/{name}/"), &body).by(who).send();
    says(&answer, 200, json!(""));
    answer.header("x-docker-token").unwrap().to_owned()
}

fn with_token(ask: Ask, token: &str) -> Answer {
    ask.by_nobody().header("Authorization", &format!("Token {token}")).send()
}

fn says(answer: &Answer, status: u16, body: impl Into<Value>) {
    assert_eq!((answer.status, answer.json()), (status, body.into()), "{answer:?}");
    assert_eq!(answer.header("content-type"), Some("application/json"));
    assert_eq!(answer.header("vary"), Some("Accept"));
}

fn refuses(answer: &Answer, status: u16) {
    assert_eq!(answer.status, status, "{answer:?}");
    assert!(answer.json()["error"].is_string(), "{answer:?}");
}

fn sign_up(site: &Site, body: &str) -> Answer {
    site.ask("POST", "/v1/users").by_nobody().body(body.as_bytes()).send()
}

fn signing_up(mode: SignUp) -> Site {
    let mut wishes = Wishes::default();
    wishes.registry.sign_up = mode;
    Site::with(wishes)
}

// Repositories and images ---------------------------------------------------------

#[test]
fn announcing_makes_the_repository_and_brings_three_headers() {
    let site = Site::new();
    let body = format!(r#"[{{"id":"{SHORT}"}}]"#);
    for _ in 0..2 {
        let answer = put(&site, "/v1/repositories/bob/app/", &body).by("bob").send();
        says(&answer, 200, json!(""));
        let token = answer.header("x-docker-token").unwrap();
        let signature = token.strip_prefix("signature=").unwrap().split(',').next().unwrap();
        assert!(
            signature.len() == 32 && signature.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit())
        );
        assert!(token.ends_with(",repository=\"bob/app\",access=write"), "{token}");
        assert_eq!(answer.headers_named("www-authenticate"), [format!("Token {token}")]);
        assert_eq!(answer.header("x-docker-endpoints").unwrap(), site.address.to_string());
    }
    let images = site.ask("GET", "/v1/repositories/bob/app/images").by("bob").send();
    says(&images, 200, json!([{"id": SHORT}]));
    assert_eq!(images.header("x-docker-token"), None, "it was not asked for");
    let properties = site.ask("GET", "/v1/repositories/bob/app/properties").by("bob").send();
    says(&properties, 200, json!({"access": "private"}));
    assert!(site.get("/v2/_catalog").strings("repositories").is_empty(), "it holds nothing yet");
    says(&site.get("/v1/repositories/bob/app/tags"), 200, json!({}));
}

#[test]
fn images_are_added_in_their_order_and_keep_their_first_checksum() {
    let site = Site::new();
    announce(&site, "bob/app", "bob");
    let images = "/v1/repositories/bob/app/images";
    let first = format!(r#"[{{"id":"{ID}","checksum":"md5:aa"}},{{"id":"{SHORT}","Tag":"latest"}}]"#);
    let answer = put(&site, images, &first).by("bob").send();
    assert_eq!((answer.status, answer.body.len()), (204, 0));
    let second = format!(r#"[{{"id":"{SHORT}","checksum":"bb"}},{{"id":"{ID}","checksum":"cc"}}]"#);
    assert_eq!(put(&site, images, &second).by("bob").send().status, 204);
    assert_eq!(put(&site, images, "[]").by("bob").send().status, 204);
    let expected = json!([{"id": ID, "checksum": "md5:aa"}, {"id": SHORT, "checksum": "bb"}]);
    says(&site.ask("GET", images).by("bob").send(), 200, expected);
    refuses(&put(&site, "/v1/repositories/bob/none/images", &first).by("bob").send(), 404);
}

#[test]
fn lists_that_do_not_parse_change_nothing() {
    let site = Site::new();
    let put = |body: &str| put(&site, "/v1/repositories/bob/app/", body).by("bob").send();
    for bad in ["", "{", "[{\"id\":", "data", "\"\"\"", "[{\"id\": \"9e89cc6f0bc3\"}'"] {
        says(&put(bad), 400, json!({"error": "Error Decoding JSON"}));
    }
    for bad in ["{}", "\"\"", "5", "null", "[5]", "[null]", "[{}]", "[{\"id\":5}]", "[{\"id\":null}]"] {
        says(&put(bad), 400, json!({"error": "Invalid data"}));
    }
    // A list of an image's fields is no image.
    says(&put(&format!(r#"[["{ID}",null]]"#)), 400, json!({"error": "Invalid data"}));
    let long = format!(r#"[{{"id":"{ID}","checksum":"{}"}}]"#, "x".repeat(257));
    let wrong = format!(r#"[{{"id":"{ID}","checksum":["x"]}}]"#);
    for bad in
        [r#"[{"id":"abc"}]"#, r#"[{"id":"1020903F808F"}]"#, r#"[{"id":"../../../../etc"}]"#, &long, &wrong]
    {
        refuses(&put(bad), 400);
    }
    let many: Vec<_> = (0..1001).map(|n| json!({"id": format!("{n:012x}")})).collect();
    refuses(&put(&json!(many).to_string()), 413);
    let huge = site.ask("PUT", "/v1/repositories/bob/app/").by("bob").claiming(1 << 40).send();
    refuses(&huge, 413);
    refuses(&site.ask("GET", "/v1/repositories/bob/app/images").by("bob").send(), 404);
    says(&put(&json!(many[..1000]).to_string()), 200, json!(""));
}

#[test]
fn a_repository_takes_ten_thousand_announced_images_and_no_more() {
    let site = Site::new();
    let put = |from: u32, to: u32| {
        let many: Vec<_> = (from..to).map(|n| json!({"id": format!("{n:012x}")})).collect();
        put(&site, "/v1/repositories/bob/app/", &json!(many).to_string()).by("bob").send().status
    };
    for batch in 0..10 {
        assert_eq!(put(batch * 1000, (batch + 1) * 1000), 200);
    }
    assert_eq!(put(9_999, 10_001), 413);
    assert_eq!(put(9_000, 10_000), 200, "those are there already");
}

#[test]
fn a_name_without_a_namespace_is_in_library_and_for_administrators() {
    let site = Site::new();
    refuses(&put(&site, "/v1/repositories/foobar/", "[]").by("bob").send(), 403);
    assert!(announce(&site, "foobar", "admin").ends_with(",repository=\"library/foobar\",access=write"));
    for path in ["foobar/images", "library/foobar/images", "library/foobar/images/"] {
        says(&site.get(&format!("/v1/repositories/{path}")), 200, json!([{"id": ID}]));
    }
}

#[test]
fn a_slash_at_the_end_tells_a_repository_from_what_is_asked_of_one() {
    let site = Site::new();
    announce(&site, "bob/images", "bob");
    refuses(&site.get("/v1/repositories/bob/images"), 404);
    says(&site.get("/v1/repositories/bob/images/images"), 200, json!([{"id": ID}]));
    for word in ["images", "auth", "tags", "properties"] {
        refuses(&site.ask("DELETE", &format!("/v1/repositories/bob/{word}")).by("bob").send(), 405);
    }
    says(&site.get("/v1/repositories/bob/images/images"), 200, json!([{"id": ID}]));
    says(&put(&site, "/v1/repositories/bob/plain", "[]").by("bob").send(), 200, json!(""));
    says(&put(&site, "/v1/repositories/plain", "[]").send(), 200, json!(""));
    says(&site.ask("DELETE", "/v1/repositories/bob/images/").by("bob").send(), 202, json!(""));
}

#[test]
fn names_the_registry_cannot_hold_are_refused() {
    let site = Site::new();
    for bad in ["bob/App", "bob/a__-b", "repositories/x", "namespaces/x", "bob/..", "BOB/x", "Upper"] {
        let answer = put(&site, &format!("/v1/repositories/{bad}/"), "[]").send();
        refuses(&answer, 400);
    }
    refuses(&site.get("/v1/repositories/a/b/c/d"), 404);
    refuses(&site.get("/v1/nowhere"), 404);
    refuses(&put(&site, "/v1/repositories//", "[]").send(), 404);
    let answer = site.ask("POST", "/v1/repositories/a/b/images").send();
    refuses(&answer, 405);
    assert_eq!(answer.header("allow"), Some("GET, HEAD, PUT"));
}

#[test]
fn what_was_pushed_otherwise_is_listed_under_the_ids_of_configs() {
    let site = Site::new();
    let digest = site.push_image("team/app", "v1", b"layer");
    let config = sha256(b"{}").strip_prefix("sha256:").unwrap().to_owned();
    let images = site.get("/v1/repositories/team/app/images");
    says(&images, 200, json!([{"id": config, "checksum": digest}]));
    says(&site.get("/v1/repositories/team/app/tags"), 200, json!({"v1": config}));
    says(&site.get("/v1/repositories/team/app/tags/v1"), 200, json!(config));
    says(&site.get("/v1/repositories/team/app/tags/v2"), 404, json!({"error": "Tag not found"}));
    refuses(&site.get("/v1/repositories/team/app/tags/-v"), 400);
    site.push_image("hello", "v1", b"layer");
    says(&site.get("/v1/repositories/hello/tags/v1"), 200, json!(config));
    announce(&site, "team/app", "admin");
    let both = json!([{"id": ID}, {"id": config, "checksum": digest}]);
    says(&site.get("/v1/repositories/team/app/images"), 200, both);
    let known = format!(r#"[{{"id":"{config}","checksum":"own"}}]"#);
    assert_eq!(put(&site, "/v1/repositories/team/app/images", &known).send().status, 204);
    let once = json!([{"id": ID}, {"id": config, "checksum": "own"}]);
    says(&site.get("/v1/repositories/team/app/images"), 200, once);
}

#[test]
fn an_image_whose_manifest_names_no_config_goes_by_its_own_digest() {
    let site = Site::new();
    let index =
        format!(r#"{{"schemaVersion":2,"mediaType":"{}","manifests":[]}}"#, crate::harness::OCI_INDEX);
    let answer = site
        .ask("PUT", "/v2/team/app/manifests/all")
        .header("Content-Type", crate::harness::OCI_INDEX)
        .body(index.as_bytes())
        .send();
    assert_eq!(answer.status, 201, "{answer:?}");
    let digest = sha256(index.as_bytes());
    let id = digest.strip_prefix("sha256:").unwrap();
    says(&site.get("/v1/repositories/team/app/tags"), 200, json!({"all": id}));
    says(&site.get("/v1/repositories/team/app/images"), 200, json!([{"id": id, "checksum": digest}]));
}

// Who may -------------------------------------------------------------------------

#[test]
fn nobody_is_asked_for_a_password_or_a_token_and_others_are_told_nothing() {
    let site = Site::new();
    site.push_image("team/app", "v1", b"layer");
    let nobody = site.ask("GET", "/v1/repositories/team/app/images").by_nobody().send();
    refuses(&nobody, 401);
    assert_eq!(nobody.headers_named("www-authenticate"), ["Basic realm=\"auth required\",Token"]);
    let users = site.ask("GET", "/v1/users/").by_nobody().send();
    assert_eq!(users.headers_named("www-authenticate"), ["Basic realm=\"auth required\""]);
    for rest in ["images", "tags", "tags/v1", "properties"] {
        let by_bob =
            |repo: &str| site.ask("GET", &format!("/v1/repositories/{repo}/{rest}")).by("bob").send();
        let (hidden, missing) = (by_bob("team/app"), by_bob("team/none"));
        says(&hidden, 404, json!({"error": "Repository not found"}));
        assert_eq!((hidden.status, hidden.body), (missing.status, missing.body));
    }
    refuses(&put(&site, "/v1/repositories/team/app/images", "[]").by("bob").send(), 403);
    refuses(&put(&site, "/v1/repositories/team/app/", "[]").by("bob").send(), 403);
    refuses(&site.ask("DELETE", "/v1/repositories/team/app/").by("bob").send(), 403);
    let wrong = site.ask("GET", "/v1/repositories/team/app/images").with_password("bob", "wrong").send();
    refuses(&wrong, 401);
}

#[test]
fn what_is_public_needs_no_credentials_but_bad_ones_are_bad() {
    let site = Site::with(Wishes::anonymous());
    announce(&site, "bob/app", "bob");
    site.registry.repo_set_private(&repo("bob/app"), false).unwrap();
    let images = "/v1/repositories/bob/app/images";
    let answer = site.ask("GET", images).by_nobody().header("X-Docker-Token", "true").send();
    says(&answer, 200, json!([{"id": ID}]));
    let token = answer.header("x-docker-token").unwrap().to_owned();
    assert!(token.ends_with(",repository=\"bob/app\",access=read"), "{token}");
    assert_eq!(with_token(site.ask("GET", images), &token).status, 200);
    says(&with_token(site.ask("PUT", "/v1/repositories/bob/app/auth"), &token), 200, json!("OK"));
    refuses(&with_token(put(&site, images, "[]"), &token), 403);
    refuses(&with_token(site.ask("GET", "/v1/repositories/bob/other/images"), &token), 401);
    refuses(&site.ask("GET", images).with_password("bob", "wrong").send(), 401);
    says(
        &site.ask("GET", "/v1/repositories/bob/app/properties").by_nobody().send(),
        200,
        json!({"access": "public"}),
    );
    site.registry.repo_set_private(&repo("bob/app"), true).unwrap();
    refuses(&with_token(site.ask("GET", images), &token), 401);
}

// Tokens --------------------------------------------------------------------------

#[test]
fn a_token_is_good_for_its_repository_until_it_is_used_up() {
    let site = Site::new();
    let token = announce(&site, "bob/app", "bob");
    let images = "/v1/repositories/bob/app/images";
    let body = format!(r#"[{{"id":"{SHORT}","checksum":"x"}}]"#);
    for spelling in [token.clone(), format!("Token {token}"), format!("{token},{token}")] {
        assert_eq!(with_token(put(&site, images, &body), &spelling).status, 204);
        assert_eq!(with_token(site.ask("GET", images), &spelling).status, 200);
    }
    let asked = with_token(site.ask("GET", images).header("X-Docker-Token", "true"), &token);
    assert_eq!((asked.status, asked.header("x-docker-token")), (200, None), "no token for a token");
    announce(&site, "bob/other", "bob");
    refuses(&with_token(site.ask("GET", "/v1/repositories/bob/other/images"), &token), 403);
    refuses(&with_token(site.ask("PUT", "/v1/repositories/bob/other/auth"), &token), 403);
    refuses(&with_token(site.ask("DELETE", "/v1/repositories/bob/app/"), &token), 403);
    refuses(&with_token(site.ask("GET", "/v1/users"), &token), 401);
    let auth = |token: &str| with_token(site.ask("PUT", "/v1/repositories/bob/app/auth"), token);
    says(&auth(&token), 200, json!("OK"));
    refuses(&auth(&token), 403);
    for bad in ["signature=ABC", "", "signature=", "repository=\"bob/app\",access=write"] {
        refuses(&auth(bad), 403);
    }
    let gone = with_token(site.ask("GET", images), &token);
    refuses(&gone, 401);
    assert_eq!(gone.headers_named("www-authenticate"), ["Token"]);
    refuses(&site.ask("PUT", "/v1/repositories/bob/app/auth").by_nobody().send(), 401);
    refuses(&site.ask("PUT", "/v1/repositories/bob/app/auth").by("bob").send(), 403);
}

#[test]
fn a_token_ends_after_an_hour_and_survives_a_restart() {
    let site = Site::new();
    let token = announce(&site, "bob/app", "bob");
    site.hands.advance(Duration::from_secs(3_500));
    let site = site.restart();
    let images = "/v1/repositories/bob/app/images";
    assert_eq!(with_token(site.ask("GET", images), &token).status, 200);
    site.hands.advance(Duration::from_secs(3_601));
    refuses(&with_token(site.ask("GET", images), &token), 401);
    refuses(&with_token(site.ask("PUT", "/v1/repositories/bob/app/auth"), &token), 403);
}

#[test]
fn a_token_goes_with_the_rights_and_the_password_of_its_user() {
    let site = Site::new();
    site.push_image("team/app", "v1", b"layer");
    let (bob, team) = (Grantee::parse("bob").unwrap(), Pattern::parse("team/app").unwrap());
    site.registry.grant(&team, &bob, Level::Write).unwrap();
    let token = announce(&site, "team/app", "bob");
    let images = "/v1/repositories/team/app/images";
    assert_eq!(with_token(put(&site, images, "[]"), &token).status, 204);
    site.registry.grant(&team, &bob, Level::Read).unwrap();
    refuses(&with_token(put(&site, images, "[]"), &token), 403);
    refuses(&with_token(site.ask("PUT", "/v1/repositories/team/app/auth"), &token), 403);
    assert_eq!(with_token(site.ask("GET", images), &token).status, 200);
    site.registry.user_set_password(&UserName::parse("bob").unwrap(), PASSWORD).unwrap();
    refuses(&with_token(site.ask("GET", images), &token), 401);
    let token = announce(&site, "bob/app", "bob");
    site.registry.user_set_active(&UserName::parse("bob").unwrap(), false).unwrap();
    refuses(&with_token(site.ask("GET", "/v1/repositories/bob/app/images"), &token), 401);
}

#[test]
fn a_user_holds_so_many_tokens_and_the_oldest_go() {
    let site = Site::new();
    let first = announce(&site, "bob/app", "bob");
    site.hands.advance(Duration::from_secs(1));
    let bob = site.registry.users().unwrap().into_iter().find(|row| row.user.name == "bob").unwrap().user;
    for _ in 0..256 {
        site.registry.v1_token_new(Some(&bob), &repo("bob/app"), Access::Pull).unwrap();
    }
    refuses(&with_token(site.ask("GET", "/v1/repositories/bob/app/images"), &first), 401);
}

#[test]
fn robots_work_with_their_token_as_a_password_but_make_no_tokens_and_change_no_users() {
    let site = Site::new();
    let bob = UserName::parse("bob").unwrap();
    let all = Pattern::parse("*").unwrap();
    let (_, robot) = site.registry.token_new(&bob, "ci", Access::Push, &all, None).unwrap();
    let answer = put(&site, "/v1/repositories/bob/app/", "[]").with_password("bob", &robot).send();
    says(&answer, 200, json!(""));
    assert_eq!(answer.header("x-docker-token"), None);
    says(&site.ask("GET", "/v1/users").with_password("bob", &robot).send(), 200, json!("OK"));
    let change = br#"{"password":"stolen"}"#;
    refuses(&site.ask("PUT", "/v1/users/bob/").with_password("bob", &robot).body(change).send(), 403);
    let admin = UserName::parse("admin").unwrap();
    let (_, robot) = site.registry.token_new(&admin, "ci", Access::Push, &all, None).unwrap();
    let new = br#"{"username":"fred","email":"f@example.org","password":"secret"}"#;
    refuses(&site.ask("POST", "/v1/users").with_password("admin", &robot).body(new).send(), 403);
}

// Deleting ------------------------------------------------------------------------

#[test]
fn a_deleted_repository_is_gone_at_once_and_the_deletion_is_confirmed() {
    let site = Site::new();
    site.push_image("bob/app", "v1", b"layer");
    let target = "/v1/repositories/bob/app/";
    let delete =
        || site.ask("DELETE", target).by("bob").header("X-Docker-Token", "true").body(b"\"\"").send();
    let answer = delete();
    says(&answer, 202, json!(""));
    let token = answer.header("x-docker-token").unwrap().to_owned();
    assert!(token.ends_with(",repository=\"bob/app\",access=delete"), "{token}");
    assert_eq!(answer.headers_named("www-authenticate"), [format!("Token {token}")]);
    assert!(answer.header("x-docker-endpoints").is_some());
    refuses(&site.get("/v1/repositories/bob/app/images"), 404);
    site.get("/v2/bob/app/tags/list").is(404, "NAME_UNKNOWN");
    assert!(site.get("/v2/_catalog").strings("repositories").is_empty());
    says(&with_token(site.ask("DELETE", target).body(b"\"\""), &token), 200, json!(""));
    says(&with_token(site.ask("PUT", "/v1/repositories/bob/app/auth"), &token), 200, json!("OK"));
    refuses(&with_token(site.ask("DELETE", target), &token), 401);
    says(&delete(), 200, json!(""));
    refuses(&site.ask("DELETE", "/v1/repositories/bob/none/").by("bob").send(), 404);
    site.hands.advance(Duration::from_secs(3_601));
    refuses(&delete(), 404);
}

#[test]
fn the_token_of_a_deletion_does_not_reach_a_repository_made_since() {
    let site = Site::new();
    announce(&site, "bob/app", "bob");
    let target = "/v1/repositories/bob/app/";
    let answer = site.ask("DELETE", target).by("bob").header("X-Docker-Token", "true").send();
    let token = answer.header("x-docker-token").unwrap().to_owned();
    announce(&site, "bob/app", "bob");
    assert_eq!(with_token(site.ask("DELETE", target), &token).status, 200);
    assert_eq!(site.get("/v1/repositories/bob/app/images").status, 200);
    let plain = site.ask("DELETE", "/v1/repositories/bob/app").by("bob").send();
    says(&plain, 202, json!(""));
    assert_eq!(plain.header("x-docker-token"), None);
}

#[test]
fn a_token_for_what_another_way_deleted_names_nothing() {
    let site = Site::new();
    let token = announce(&site, "bob/app", "bob");
    site.registry.repo_remove(&repo("bob/app")).unwrap();
    let answer = with_token(site.ask("PUT", "/v1/repositories/bob/app/auth"), &token);
    says(&answer, 404, json!({"error": "Repository not found"}));
}

// Users ---------------------------------------------------------------------------

#[test]
fn signing_up_is_closed_to_all_but_administrators_unless_it_is_opened() {
    let site = Site::new();
    let body = r#"{"email":"a@example.org","username":"fred","password":"secret"}"#;
    let answer = sign_up(&site, body);
    refuses(&answer, 401);
    assert_eq!(answer.headers_named("www-authenticate"), ["Basic realm=\"auth required\""]);
    refuses(&site.ask("POST", "/v1/users/").by("bob").body(body.as_bytes()).send(), 403);
    refuses(&site.ask("POST", "/v1/users/").with_password("admin", "no").body(body.as_bytes()).send(), 401);
    refuses(&site.ask("GET", "/v1/users").with_password("fred", "secret").send(), 401);
    says(&site.ask("POST", "/v1/users/").body(body.as_bytes()).send(), 201, json!("User Created"));
    says(&site.ask("GET", "/v1/users").with_password("fred", "secret").send(), 200, json!("OK"));
    says(&site.ask("GET", "/v1/users/").with_password("a@example.org", "secret").send(), 200, json!("OK"));
    refuses(&site.ask("GET", "/v1/users").with_password("fred", "wrong").send(), 401);
}

#[test]
fn who_signs_up_owns_their_namespace_and_takes_nobodys_name() {
    let site = signing_up(SignUp::Open);
    // What old Docker clients send: their whole AuthConfig.
    let body =
        r#"{"username":"fred","password":"secret","auth":"","email":"a@example.org","serveraddress":"x"}"#;
    says(&sign_up(&site, body), 201, json!("User Created"));
    let answer = put(&site, "/v1/repositories/fred/app/", "[]").with_password("fred", "secret").send();
    says(&answer, 200, json!(""));
    site.push_image("team/app", "v1", b"layer");
    let plans = Pattern::parse("plans/*").unwrap();
    site.registry.grant(&plans, &Grantee::parse("bob").unwrap(), Level::Write).unwrap();
    for (name, email) in [
        ("plans", "b@example.org"),
        ("fred", "b@example.org"),
        ("other", "A@example.org"),
        ("admin", "b@example.org"),
        ("team", "b@example.org"),
    ] {
        let answer =
            sign_up(&site, &json!({"username": name, "email": email, "password": "secret"}).to_string());
        assert_eq!(
            (answer.status, answer.body.as_slice()),
            (400, b"\"Username or email already exists\"".as_slice()),
            "{name}"
        );
    }
    // Nothing was left below this one.
    site.add_user("gone");
    site.registry.user_remove(&UserName::parse("gone").unwrap()).unwrap();
    let again = json!({"username": "gone", "email": "b@example.org", "password": "secret"});
    says(&sign_up(&site, &again.to_string()), 201, json!("User Created"));
    let form = sign_up(&site, "username=jane&email=jane%40example.org&password=secret");
    says(&form, 201, json!("User Created"));
}

#[test]
fn strangers_at_one_address_make_a_few_accounts_and_then_wait() {
    let site = signing_up(SignUp::Open);
    let body = |n: u32| {
        let email = format!("{n}@example.org");
        json!({"username": format!("user{n}"), "email": email, "password": "secret"}).to_string()
    };
    for n in 0..11 {
        says(&sign_up(&site, &body(n)), 201, json!("User Created"));
    }
    let answer = sign_up(&site, &body(11));
    refuses(&answer, 429);
    assert_eq!(answer.header("retry-after"), Some("2"));
    says(&site.ask("POST", "/v1/users").body(body(11).as_bytes()).send(), 201, json!("User Created"));
    says(&site.ask("GET", "/v1/users").with_password("user3", "secret").send(), 200, json!("OK"));
    site.hands.advance(Duration::from_secs(2));
    says(&sign_up(&site, &body(12)), 201, json!("User Created"));
}

#[test]
fn sign_ups_that_do_not_fit_are_refused() {
    let site = signing_up(SignUp::Open);
    let ask = |name: &str, email: &str, password: &str| {
        sign_up(&site, &json!({"username": name, "email": email, "password": password}).to_string())
    };
    let long = "a".repeat(31);
    for name in
        ["abc", &long, "Fred", "fr-ed", "fr.ed", "_fred", "fred_", "fr___ed", "library", "namespaces", ""]
    {
        refuses(&ask(name, "a@example.org", "secret"), 400);
    }
    for email in ["", "a", "@", "a@", "a b@c", "a@b@c"] {
        refuses(&ask("fred", email, "secret"), 400);
    }
    for password in ["", "1234", "sec\nret"] {
        refuses(&ask("fred", "a@example.org", password), 400);
    }
    for body in [
        "",
        "{}",
        "[]",
        "nonsense",
        r#"{"email": "sam@dotcloud.com", "password": "toto42", "username": "foobar"'}"#,
        r#"{"username":"fred","password":"secret"}"#,
        r#"{"username":5,"password":"secret","email":"a@b.c"}"#,
        r#"{"username":"fred","password":null,"email":"a@b.c"}"#,
    ] {
        refuses(&sign_up(&site, body), 400);
    }
    refuses(&site.ask("POST", "/v1/users").by_nobody().claiming(1 << 40).send(), 413);
    assert_eq!(site.registry.users().unwrap().len(), 2);
}

#[test]
fn an_account_that_waits_for_approval_is_refused_everywhere_until_it_has_it() {
    let site = signing_up(SignUp::Approve);
    let body = r#"{"email":"a@example.org","username":"fred","password":"secret"}"#;
    says(&sign_up(&site, body), 201, json!("User Created"));
    let ask = |method: &str, target: &str| site.ask(method, target).with_password("fred", "secret").send();
    let not_active = json!({"error": "Account is not Active"});
    says(&ask("GET", "/v1/users"), 403, not_active.clone());
    says(&ask("PUT", "/v1/repositories/fred/app/"), 403, not_active.clone());
    says(&ask("GET", "/v1/repositories/fred/app/images"), 403, not_active.clone());
    says(&ask("PUT", "/v1/users/fred/"), 403, not_active);
    ask("GET", "/v2/").is(403, "DENIED");
    ask("GET", "/token?service=x").is(403, "DENIED");
    refuses(&site.ask("GET", "/v1/users").with_password("fred", "wrong").send(), 401);
    let fred = UserName::parse("fred").unwrap();
    site.registry.user_set_active(&fred, true).unwrap();
    says(&ask("GET", "/v1/users"), 200, json!("OK"));
    let token = ask("GET", "/token?service=x").json()["token"].as_str().unwrap().to_owned();
    assert_eq!(site.ask("GET", "/v2/").bearer(&token).send().status, 200);
    let (_, robot) =
        site.registry.token_new(&fred, "ci", Access::Pull, &Pattern::parse("*").unwrap(), None).unwrap();
    site.registry.user_set_active(&fred, false).unwrap();
    ask("GET", "/v2/").is(403, "DENIED");
    site.ask("GET", "/v2/").bearer(&token).send().is(401, "UNAUTHORIZED");
    site.ask("GET", "/v2/").with_password("fred", &robot).send().is(403, "DENIED");
    let admin = UserName::parse("admin").unwrap();
    assert!(site.registry.user_set_active(&admin, false).is_err(), "the last administrator stays");
}

#[test]
fn a_user_adds_addresses_and_replaces_the_password() {
    let site = signing_up(SignUp::Open);
    let put = |who: &str, password: &str, body: Value| {
        site.ask("PUT", "/v1/users/bob/")
            .with_password(who, password)
            .body(body.to_string().as_bytes())
            .send()
    };
    for email in ["one@example.org", "two@example.org", "one@example.org"] {
        let answer = put("bob", PASSWORD, json!({"email": email}));
        assert_eq!((answer.status, answer.body.len()), (204, 0), "{answer:?}");
    }
    let emails = |site: &Site| site.registry.users().unwrap()[1].emails.clone();
    assert_eq!(emails(&site), ["one@example.org", "two@example.org"]);
    assert_eq!(put("two@example.org", PASSWORD, json!({"password": "another one"})).status, 204);
    refuses(&site.ask("GET", "/v1/users").by("bob").send(), 401);
    says(
        &site.ask("GET", "/v1/users").with_password("one@example.org", "another one").send(),
        200,
        json!("OK"),
    );

    let body = r#"{"username":"fred","password":"secret","email":"fred@example.org"}"#;
    says(&sign_up(&site, body), 201, json!("User Created"));
    let taken = put("bob", "another one", json!({"email": "fred@example.org", "password": "a third"}));
    assert_eq!((taken.status, taken.json()), (400, json!("Username or email already exists")));
    says(&site.ask("GET", "/v1/users").with_password("bob", "another one").send(), 200, json!("OK"));
    for bad in [json!({}), json!({"email": "x"}), json!({"password": "1234"}), json!({"email": 5}), json!([])]
    {
        refuses(&put("bob", "another one", bad), 400);
    }
    refuses(&put("fred", "secret", json!({"password": "stolen"})), 403);
    assert_eq!(put("admin", PASSWORD, json!({"password": "reset it"})).status, 204);
    let by_admin =
        |name: &str| site.ask("PUT", &format!("/v1/users/{name}")).body(b"{\"email\":\"x@y.z\"}").send();
    refuses(&by_admin("nobody-here"), 404);
    refuses(&by_admin("No%20Body"), 404);
    for n in 0..14 {
        let email = json!({"email": format!("more{n}@example.org")});
        assert_eq!(put("admin", PASSWORD, email).status, 204);
    }
    refuses(&put("admin", PASSWORD, json!({"email": "toomany@example.org"})), 400);
}

// The registry's part ----------------------------------------------------------------

#[test]
fn the_ping_says_that_this_is_a_whole_registry() {
    let site = Site::new();
    for path in ["/v1/_ping", "/_ping"] {
        let answer = site.ask("GET", path).by_nobody().send();
        says(&answer, 200, json!({}));
        assert_eq!(answer.header("x-docker-registry-standalone"), Some("true"));
        assert_eq!(answer.header("x-docker-registry-version"), Some("0.9.1"));
    }
}

fn names(answer: &Answer) -> Vec<String> {
    assert_eq!(answer.status, 200, "{answer:?}");
    let json = answer.json();
    json["results"].as_array().unwrap().iter().map(|row| row["name"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_search_finds_what_the_caller_may_read() {
    let site = Site::with(Wishes::anonymous());
    site.push_image("bob/cam", "v1", b"layer");
    site.push_image("team/camera", "v1", b"layer");
    site.push_image("cam", "v1", b"layer");
    let search = |who: Option<&str>, query: &str| {
        let ask = site.ask("GET", &format!("/v1/search?{query}"));
        who.map_or_else(|| site.ask("GET", &format!("/v1/search?{query}")).by_nobody(), |who| ask.by(who))
            .send()
    };
    refuses(&search(None, "q=cam"), 404);
    assert_eq!(names(&search(Some("admin"), "q=CAM")), ["bob/cam", "library/cam", "team/camera"]);
    assert_eq!(names(&search(Some("bob"), "n=25&q=cam")), ["bob/cam"]);
    site.registry.repo_set_private(&repo("cam"), false).unwrap();
    assert_eq!(names(&search(None, "q=cam")), ["library/cam"]);
    assert_eq!(names(&search(Some("bob"), "q=")), ["bob/cam", "library/cam"]);
    let none: [&str; 0] = [];
    assert_eq!(names(&search(None, "q=camera")), none);
    for wild in ["q=%25", "q=_", "q=c_m", "q=%5C"] {
        assert_eq!(names(&search(Some("admin"), wild)), none, "{wild}");
    }
    let row = &search(None, "q=cam").json();
    let expected = json!({
        "query": "cam", "num_results": 1, "num_pages": 1, "page": 1, "page_size": 25,
        "results": [{"name": "library/cam", "description": "", "star_count": 0,
            "is_official": true, "is_automated": false, "is_trusted": false}]
    });
    assert_eq!(*row, expected);
    assert_eq!(search(Some("bob"), "q=bob").json()["results"][0]["is_official"], false);
    refuses(&site.ask("GET", "/v1/search?q=cam").with_password("bob", "wrong").send(), 401);
    refuses(&search(Some("admin"), "q=%00"), 400);
    refuses(&search(Some("admin"), &format!("q={}", "a".repeat(256))), 400);
    let site = site.restart_with(Wishes::default());
    refuses(&site.ask("GET", "/v1/search?q=cam").by_nobody().send(), 401);
}

#[test]
fn searches_come_in_pages_of_up_to_a_hundred() {
    let site = Site::new();
    let admin = site.registry.users().unwrap().remove(0).user;
    for n in 0..120 {
        site.registry.repo_announce(&admin, &repo(&format!("team/app{n:03}")), Vec::new()).unwrap();
    }
    let page = |query: &str| site.get(&format!("/v1/search?q=app&{query}"));
    assert_eq!(names(&page("")).len(), 25);
    let last = page("n=50&page=3");
    assert_eq!(names(&last).first().unwrap(), "team/app100");
    assert_eq!((names(&last).len(), &last.json()["num_pages"]), (20, &json!(3)));
    assert_eq!(last.json()["num_results"], 120);
    assert_eq!(names(&page("n=1000")).len(), 100);
    assert!(names(&page("page=4294967295")).is_empty());
    for bad in ["n=0", "page=0", "n=-1", "page=x", "n=1.5"] {
        refuses(&page(bad), 400);
    }
}

#[test]
fn a_token_for_lists_searches_and_others_do_not() {
    let site = Site::new();
    site.push_image("bob/cam", "v1", b"layer");
    let search = |scope: &str| {
        let token = site.ask("GET", &format!("/token?service=x&scope={scope}")).by("bob").send();
        let token = token.json()["token"].as_str().unwrap().to_owned();
        site.ask("GET", "/v1/search?q=cam").bearer(&token).send()
    };
    // The first is what docker asks for.
    for scope in ["registry:catalog:search", "registry:catalog:*"] {
        assert_eq!(names(&search(scope)), ["bob/cam"]);
    }
    refuses(&search("repository:bob/cam:pull"), 403);
}

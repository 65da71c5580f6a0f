//! The token service, and tokens at work.

use crate::harness::{PASSWORD, Site, Wishes, basic};
use outport::names::{RepoName, UserName};
use std::time::Duration;

fn token(site: &Site, user: &str, query: &str) -> String {
    let answer = site.ask("GET", &format!("/token?service=here&{query}")).by(user).send();
    assert_eq!(answer.status, 200, "{answer:?}");
    let json = answer.json();
    assert_eq!(json["token"], json["access_token"]);
    assert!(json["expires_in"].as_u64().unwrap() >= 60);
    assert!(json["issued_at"].as_str().unwrap().ends_with('Z'));
    json["token"].as_str().unwrap().to_owned()
}

#[test]
fn with_anonymous_pulls_the_challenge_is_one_bearer_and_else_one_basic() {
    let site = Site::new();
    let answer = site.ask("GET", "/v2/").by_nobody().send();
    assert_eq!(answer.headers_named("www-authenticate"), ["Basic realm=\"Outport\""]);
    let site = site.restart_with(Wishes::anonymous());
    let host = site.address;
    let answer = site.ask("GET", "/v2/").by_nobody().send();
    answer.is(401, "UNAUTHORIZED");
    let expected = format!("Bearer realm=\"http://{host}/token\",service=\"{host}\"");
    assert_eq!(answer.headers_named("www-authenticate"), [expected.as_str()]);
    let answer = site.ask("POST", "/v2/a/b/blobs/uploads/").by_nobody().send();
    let expected = format!("{expected},scope=\"repository:a/b:pull,push\"");
    assert_eq!(answer.headers_named("www-authenticate"), [expected.as_str()]);
}

#[test]
fn a_proxy_that_is_trusted_says_where_clients_are() {
    let mut wishes = Wishes::anonymous();
    let ask = |site: &Site| {
        let answer = site
            .ask("GET", "/v2/")
            .by_nobody()
            .header("X-Forwarded-Proto", "https")
            .header("X-Forwarded-Host", "reg.example.org")
            .send();
        answer.header("www-authenticate").unwrap().to_owned()
    };
    let site = Site::with(wishes.clone());
    assert!(ask(&site).contains(&format!("http://{}/token", site.address)));
    wishes.http.trusted_proxies.push("127.0.0.1".parse().unwrap());
    assert!(ask(&site.restart_with(wishes)).contains("\"https://reg.example.org/token\""));
}

#[test]
fn a_token_is_for_what_was_asked_and_may_be_had() {
    let site = Site::new();
    site.push_image("team/app", "v1", b"layer");
    let both = token(
        &site,
        "bob",
        "scope=repository:bob/app:pull&scope=repository:bob/app:push,pull%20repository:team/app:pull,push,delete",
    );
    assert_eq!(site.ask("POST", "/v2/bob/app/blobs/uploads/").bearer(&both).send().status, 202);
    let denied = site.ask("GET", "/v2/team/app/manifests/v1").bearer(&both).send();
    denied.is(401, "UNAUTHORIZED");
    assert!(denied.header("www-authenticate").unwrap().ends_with("error=\"insufficient_scope\""));
    let narrow = token(&site, "admin", "scope=repository:team/app:pull");
    assert_eq!(site.ask("GET", "/v2/team/app/manifests/v1").bearer(&narrow).send().status, 200);
    site.ask("POST", "/v2/team/app/blobs/uploads/").bearer(&narrow).send().is(401, "UNAUTHORIZED");
    site.ask("DELETE", "/v2/team/app/manifests/v1").bearer(&narrow).send().is(401, "UNAUTHORIZED");
    site.ask("GET", "/v2/_catalog").bearer(&narrow).send().is(401, "UNAUTHORIZED");
    let lists = token(&site, "admin", "scope=registry:catalog:*");
    assert_eq!(site.ask("GET", "/v2/_catalog").bearer(&lists).send().strings("repositories"), ["team/app"]);
    let all = token(&site, "admin", "scope=repository:team/app:*");
    assert_eq!(site.ask("DELETE", "/v2/team/app/manifests/v1").bearer(&all).send().status, 202);
    assert_eq!(site.ask("GET", "/v2/").bearer(&token(&site, "bob", "")).send().status, 200);
}

#[test]
fn containerd_and_oauth_clients_post_for_theirs() {
    let site = Site::new();
    site.push_image("team/app", "v1", b"layer");
    let post = |form: &str| {
        site.ask("POST", "/token")
            .by_nobody()
            .header("Content-Type", "application/x-www-form-urlencoded")
            .body(form.as_bytes())
            .send()
    };
    let good = post(
        "grant_type=password&service=s&client_id=c&username=admin&password=correct+horse&scope=repository%3Ateam%2Fapp%3Apull+repository%3Ateam%2Fapp%3Apull%2Cpush",
    );
    assert_eq!(good.status, 200);
    assert_eq!(good.json()["scope"], "repository:team/app:pull,push");
    let bearer = good.json()["access_token"].as_str().unwrap().to_owned();
    assert_eq!(site.ask("GET", "/v2/team/app/manifests/v1").bearer(&bearer).send().status, 200);
    let wrong = post("grant_type=password&username=admin&password=wrong");
    wrong.is(401, "UNAUTHORIZED");
    assert!(
        wrong.header("www-authenticate").unwrap().starts_with("Basic"),
        "a Bearer challenge would send it in a circle"
    );
    let other = post("grant_type=refresh_token&refresh_token=x");
    assert_eq!((other.status, other.json()["error"].as_str()), (400, Some("unsupported_grant_type")));
    assert_eq!(post(&"x".repeat(70_000)).status, 413);
}

#[test]
fn a_token_ends_with_its_time_its_key_and_its_user() {
    let site = Site::new();
    let good = token(&site, "bob", "scope=repository:bob/app:pull,push");
    let ask = |site: &Site, token: &str| site.ask("POST", "/v2/bob/app/blobs/uploads/").bearer(token).send();
    assert_eq!(ask(&site, &good).status, 202);
    let site = site.restart();
    assert_eq!(ask(&site, &good).status, 202, "the key is kept with the data");
    let mut forged = good.clone();
    forged.replace_range(forged.len() - 2.., if forged.ends_with("AA") { "BB" } else { "AA" });
    ask(&site, &forged).is(401, "UNAUTHORIZED");
    let (head, rest) = good.split_once('.').unwrap();
    let none = format!(
        "{}.{rest}",
        base64::Engine::encode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, r#"{"alg":"none"}"#)
    );
    ask(&site, &none).is(401, "UNAUTHORIZED");
    ask(&site, &format!("{head}..")).is(401, "UNAUTHORIZED");
    site.hands.advance(Duration::from_secs(301));
    let expired = ask(&site, &good);
    expired.is(401, "UNAUTHORIZED");
    assert!(expired.header("www-authenticate").unwrap().contains("error=\"invalid_token\""));
    let fresh = token(&site, "bob", "scope=repository:bob/app:pull,push");
    site.registry.user_set_password(&UserName::parse("bob").unwrap(), "another one").unwrap();
    ask(&site, &fresh).is(401, "UNAUTHORIZED");
}

#[test]
fn a_token_fetches_no_other_token() {
    let site = Site::new();
    let narrow = token(&site, "admin", "scope=repository:team/app:pull");
    site.ask("GET", "/token?scope=repository:team/app:pull,push,delete")
        .bearer(&narrow)
        .send()
        .is(401, "UNAUTHORIZED");
    let post = site.ask("POST", "/token").bearer(&narrow).body(b"scope=repository:team/app:push").send();
    post.is(401, "UNAUTHORIZED");
    assert_eq!(post.headers_named("www-authenticate"), ["Basic realm=\"Outport\""], "one challenge");
}

#[test]
fn a_token_mounts_only_from_what_it_covers() {
    let site = Site::new();
    let digest = site.push_blob("bob/other", b"layer");
    let mount = |scopes: &str| {
        let bearer = token(&site, "bob", scopes);
        let target = format!("/v2/bob/app/blobs/uploads/?mount={digest}&from=bob/other");
        site.ask("POST", &target).bearer(&bearer).send().status
    };
    assert_eq!(mount("scope=repository:bob/app:pull,push"), 202);
    assert_eq!(mount("scope=repository:bob/app:pull,push&scope=repository:bob/other:pull"), 201);
}

#[test]
fn nobody_gets_a_token_for_what_is_public_where_that_is_allowed() {
    let site = Site::with(Wishes::anonymous());
    site.push_image("open/app", "v1", b"layer");
    site.push_image("closed/app", "v1", b"layer");
    site.registry.repo_set_private(&RepoName::parse("open/app").unwrap(), false).unwrap();
    let get = |scope: &str| {
        let answer = site.ask("GET", &format!("/token?service=s&scope={scope}")).by_nobody().send();
        assert_eq!(answer.status, 200, "asking for too much is no error");
        answer.json()["token"].as_str().unwrap().to_owned()
    };
    let open = get("repository:open/app:pull,push");
    assert_eq!(site.ask("GET", "/v2/").bearer(&open).send().status, 200);
    assert_eq!(site.ask("GET", "/v2/open/app/manifests/v1").bearer(&open).send().status, 200);
    site.ask("POST", "/v2/open/app/blobs/uploads/").bearer(&open).send().is(401, "UNAUTHORIZED");
    let closed = get("repository:closed/app:pull");
    site.ask("GET", "/v2/closed/app/manifests/v1").bearer(&closed).send().is(401, "UNAUTHORIZED");
    let lists = get("registry:catalog:*");
    assert_eq!(site.ask("GET", "/v2/_catalog").bearer(&lists).send().strings("repositories"), ["open/app"]);
    let wrong =
        site.ask("GET", "/token").by_nobody().header("Authorization", &basic("admin", "wrong")).send();
    wrong.is(401, "UNAUTHORIZED");

    let site = site.restart();
    let mut wishes = Wishes::default();
    wishes.http.anonymous_pull = false;
    let site = site.restart_with(wishes);
    site.ask("GET", "/token?scope=repository:open/app:pull").by_nobody().send().is(401, "UNAUTHORIZED");
    site.ask("GET", "/v2/open/app/manifests/v1").bearer(&open).send().is(401, "UNAUTHORIZED");
    assert_eq!(
        site.ask("GET", "/v2/open/app/manifests/v1").with_password("bob", PASSWORD).send().status,
        200
    );
}

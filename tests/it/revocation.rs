//! What is taken away is gone with the next request, whatever somebody brings.

use crate::harness::{PASSWORD, Site, Wishes, basic};
use outport::names::{RepoName, UserName, Uuid};
use outport::registry::{Access, Grantee, GroupName, Level, OWNERS, Pattern, User};
use serde_json::{Value, json};

/// One of bob's ways into `acme/app`: what it is, where it is shown, and what is sent.
struct Key {
    name: &'static str,
    target: String,
    header: String,
}

const MANIFEST: &str = "/v2/acme/app/manifests/v1";
const HUB: &str = "/v2/repositories/acme/app/";
const V1: &str = "/v1/repositories/acme/app/images";

fn user(name: &str) -> UserName {
    UserName::parse(name).unwrap()
}

fn group(name: &str) -> GroupName {
    GroupName { org: user("acme"), group: name.to_owned() }
}

fn app() -> RepoName {
    RepoName::parse("acme/app").unwrap()
}

fn bob(site: &Site) -> User {
    let rows = site.registry.users().unwrap();
    rows.into_iter().map(|row| row.user).find(|user| user.name == "bob").unwrap()
}

/// An organisation of carol's with a group `ci`, an image, and bob, who may nothing.
fn acme() -> Site {
    let site = Site::new();
    site.add_user("carol");
    site.registry.org_add(&user("acme"), "", &user("carol")).unwrap();
    site.push_image("acme/app", "v1", b"layer");
    site
}

/// Everything of one kind or another that bob can have, fresh.
fn keys(site: &Site) -> Vec<Key> {
    let text = |json: &Value, key: &str| json[key].as_str().unwrap_or_else(|| panic!("{json}")).to_owned();
    let bearer = |password: &str| {
        let ask = site.ask("GET", "/token?scope=repository:acme/app:pull").with_password("bob", password);
        format!("Bearer {}", text(&ask.send().json(), "token"))
    };
    let jwt = |password: &str| {
        let body = json!({"username": "bob", "password": password});
        let answer = site.ask("POST", "/v2/users/login").by_nobody().json(&body).send();
        format!("JWT {}", text(&answer.json(), "token"))
    };
    let (_, robot) = site.registry.token_new(&user("bob"), "", Access::Pull, &Pattern::All, None).unwrap();
    let generated = site.registry.password_generate(&bob(site)).unwrap();
    let v1 = site.registry.v1_token_new(Some(&bob(site)), &app(), Access::Pull).unwrap();
    let service = site.registry.service_add(&user("bob"), Some("acme")).unwrap();
    let body = json!({"client_id": service.row.id, "client_secret": service.secret});
    let answer = site.ask("POST", "/public/v2/service_auth").by_nobody().json(&body).send();
    let service = format!("Bearer {}", text(&answer.json()["token"], "access_token"));
    let uuid = site.registry.repo_seen(None, &app()).unwrap().uuid;
    let by_uuid = format!("/public/v2/docker_registry/v2/repositories/{uuid}");
    let key = |name, target: &str, header| Key { name, target: target.to_owned(), header };
    vec![
        key("password", MANIFEST, basic("bob", PASSWORD)),
        key("bearer token", MANIFEST, bearer(PASSWORD)),
        key("JWT", HUB, jwt(PASSWORD)),
        key("v1 token", V1, format!("Token signature={v1}")),
        key("service client", &by_uuid, service),
        key("robot token", MANIFEST, basic("bob", &robot)),
        key("robot's bearer token", MANIFEST, bearer(&robot)),
        key("robot's JWT", HUB, jwt(&robot)),
        key("generated password", MANIFEST, basic("bob", &generated)),
        key("generated password's bearer token", MANIFEST, bearer(&generated)),
    ]
}

/// Those that still open the door. The others are refused, and nothing else.
fn open(site: &Site, keys: &[Key]) -> Vec<&'static str> {
    let opens = |key: &&Key| {
        let answer = site.ask("GET", &key.target).by_nobody().header("Authorization", &key.header).send();
        assert!([200, 401, 403, 404].contains(&answer.status), "{}: {answer:?}", key.name);
        answer.status == 200
    };
    keys.iter().filter(opens).map(|key| key.name).collect()
}

fn all(keys: &[Key]) -> Vec<&'static str> {
    keys.iter().map(|key| key.name).collect()
}

#[test]
fn a_right_that_is_taken_away_is_gone_whatever_one_brings() {
    let site = acme();
    let registry = &site.registry;
    let (ci, in_app) = (Grantee::Group(group("ci")), Pattern::Repo(app()));
    let bob = Grantee::User(user("bob"));
    let join = || {
        registry.group_add(&group("ci"), "").unwrap();
        registry.group_join(&group("ci"), &user("bob")).unwrap();
        registry.grant(&in_app, &ci, Level::Read).unwrap();
    };
    let own = || registry.group_join(&group(OWNERS), &user("bob")).unwrap();
    let private = |private| registry.repo_set_private(&app(), private).unwrap();
    type Act<'a> = &'a dyn Fn();
    let turns: [(&str, Act, Act); 9] = [
        ("leaves a group", &join, &|| {
            registry.group_leave(&group("ci"), &user("bob")).unwrap();
            registry.group_remove(&group("ci")).unwrap();
        }),
        ("has a group removed", &join, &|| registry.group_remove(&group("ci")).unwrap()),
        ("has a group's grant revoked", &join, &|| {
            registry.revoke(&in_app, &ci).unwrap();
            registry.group_remove(&group("ci")).unwrap();
        }),
        ("has a grant revoked", &|| registry.grant(&in_app, &bob, Level::Admin).unwrap(), &|| {
            registry.revoke(&in_app, &bob).unwrap();
        }),
        ("owns no more", &own, &|| registry.org_demote(&user("acme"), &user("bob")).unwrap()),
        ("leaves the organisation", &own, &|| registry.org_leave(&user("acme"), &user("bob")).unwrap()),
        ("administers no more", &|| registry.user_set_admin(&user("bob"), true).unwrap(), &|| {
            registry.user_set_admin(&user("bob"), false).unwrap();
        }),
        ("meets a private repository", &|| private(false), &|| private(true)),
        ("has the organisation ended", &own, &|| registry.org_remove(&user("acme")).unwrap()),
    ];
    for (sentence, give, take) in turns {
        give();
        let keys = keys(&site);
        assert_eq!(open(&site, &keys), all(&keys), "before bob {sentence}");
        take();
        assert_eq!(open(&site, &keys), [""; 0], "after bob {sentence}");
    }
}

#[test]
fn whoever_is_put_out_or_removed_is_out_with_all_they_have() {
    let site = acme();
    let pattern = Pattern::Repo(app());
    site.registry.grant(&pattern, &Grantee::User(user("bob")), Level::Read).unwrap();
    let keys = keys(&site);
    assert_eq!(open(&site, &keys), all(&keys));
    site.registry.user_set_active(&user("bob"), false).unwrap();
    assert_eq!(open(&site, &keys), [""; 0]);
    site.registry.user_set_active(&user("bob"), true).unwrap();
    let signed =
        ["bearer token", "JWT", "robot's bearer token", "robot's JWT", "generated password's bearer token"];
    let back: Vec<_> = all(&keys).into_iter().filter(|name| !signed.contains(name)).collect();
    assert_eq!(open(&site, &keys), back, "what was signed before stays void");
    site.registry.user_remove(&user("bob")).unwrap();
    assert_eq!(open(&site, &keys), [""; 0]);
    site.add_user("bob");
    site.registry.grant(&pattern, &Grantee::User(user("bob")), Level::Read).unwrap();
    assert_eq!(open(&site, &keys), ["password"], "who has the name now is somebody else");
}

#[test]
fn a_new_password_ends_all_but_robot_tokens_and_service_clients() {
    let site = acme();
    let pattern = Pattern::Repo(app());
    site.registry.grant(&pattern, &Grantee::User(user("bob")), Level::Read).unwrap();
    let changes: [&dyn Fn(); 3] = [
        &|| site.registry.user_set_password(&user("bob"), "another one").unwrap(),
        &|| site.registry.user_update(&user("bob"), None, Some("another one")).unwrap(),
        &|| {
            let hash = bcrypt::hash("another one", 4).unwrap();
            site.registry.users_import(&format!("bob:{hash}")).unwrap();
        },
    ];
    for change in changes {
        site.registry.user_set_password(&user("bob"), PASSWORD).unwrap();
        let keys = keys(&site);
        assert_eq!(open(&site, &keys), all(&keys));
        change();
        // They are listed and taken back one by one; a fleet does not stop with a password.
        assert_eq!(open(&site, &keys), ["service client", "robot token"]);
    }
}

#[test]
fn a_token_that_is_taken_back_takes_along_what_it_was_exchanged_for() {
    let site = acme();
    site.registry.grant(&Pattern::Repo(app()), &Grantee::User(user("bob")), Level::Read).unwrap();
    let newest = || site.registry.tokens().unwrap().into_iter().max_by_key(|row| row.id).unwrap();
    let sleep = || {
        let uuid = Uuid::parse(&newest().uuid).unwrap();
        site.registry.token_change(&bob(&site), &uuid, None, Some(false)).unwrap();
    };
    let revoke = || site.registry.token_revoke(newest().id).unwrap();
    let remove = || {
        for row in site.registry.services().unwrap() {
            site.registry.service_remove(&row.id).unwrap();
        }
    };
    let generate = || drop(site.registry.password_generate(&bob(&site)).unwrap());
    let ends: [(&dyn Fn(), &str); 4] =
        [(&sleep, "robot"), (&revoke, "robot"), (&generate, "generated"), (&remove, "service")];
    for (end, kind) in ends {
        let keys = keys(&site);
        assert_eq!(open(&site, &keys), all(&keys));
        end();
        let left: Vec<_> = all(&keys).into_iter().filter(|name| !name.starts_with(kind)).collect();
        assert_eq!(open(&site, &keys), left, "{kind}");
    }
}

#[test]
fn the_tokens_of_nobody_are_void_while_nobody_may_pull() {
    let site = Site::with(Wishes::anonymous());
    site.push_image("open/app", "v1", b"layer");
    site.registry.repo_set_private(&RepoName::parse("open/app").unwrap(), false).unwrap();
    let scopes = "repository:open/app:pull%20registry:catalog:*";
    let answer = site.ask("GET", &format!("/token?scope={scopes}")).by_nobody().send();
    let token = answer.json()["token"].as_str().unwrap().to_owned();
    let targets =
        ["/v2/", "/v2/_catalog", "/v2/open/app/manifests/v1", "/v1/search", "/v1/repositories/open/app/tags"];
    let statuses = |site: &Site| targets.map(|target| site.ask("GET", target).bearer(&token).send().status);
    assert_eq!(statuses(&site), [200; 5]);
    let site = site.restart_with(Wishes::default());
    assert_eq!(statuses(&site), [401; 5]);
    let site = site.restart_with(Wishes::anonymous());
    assert_eq!(statuses(&site), [200; 5]);
}

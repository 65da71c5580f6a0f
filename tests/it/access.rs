//! Organisations, groups, grants and robot tokens, seen through pushes and pulls.

use crate::harness::Site;
use outport::names::UserName;
use outport::registry::{Access, Grantee, GroupName, Level, Pattern};

fn user(name: &str) -> UserName {
    UserName::parse(name).unwrap()
}

fn group(name: &str) -> GroupName {
    GroupName::parse(name).unwrap()
}

/// What a user gets for pulling, pushing and deleting in a repository that holds `v1`.
fn may(site: &Site, who: &str, repo: &str) -> (bool, bool, bool) {
    let ok = |method: &str, rest: &str| {
        let status = site.ask(method, &format!("/v2/{repo}/{rest}")).by(who).send().status;
        assert!([200, 202, 403, 404].contains(&status), "{status}");
        status != 403
    };
    (ok("GET", "manifests/v1"), ok("POST", "blobs/uploads/"), ok("DELETE", "manifests/none"))
}

const NOTHING: (bool, bool, bool) = (false, false, false);
const READ: (bool, bool, bool) = (true, false, false);
const WRITE: (bool, bool, bool) = (true, true, false);
const ADMIN: (bool, bool, bool) = (true, true, true);

#[test]
fn a_grant_holds_where_it_was_given_and_until_it_is_taken_back() {
    let site = Site::new();
    for repo in ["team/app", "team/other", "else/app"] {
        site.push_image(repo, "v1", b"layer");
    }
    let bob = Grantee::parse("bob").unwrap();
    let everywhere = ["team/app", "team/other", "else/app"];
    for (pattern, level, expected) in [
        ("team/app", Level::Read, [READ, NOTHING, NOTHING]),
        ("team/app", Level::Write, [WRITE, NOTHING, NOTHING]),
        ("team/app", Level::Admin, [ADMIN, NOTHING, NOTHING]),
        ("team/*", Level::Write, [WRITE, WRITE, NOTHING]),
        ("*", Level::Read, [READ, READ, READ]),
    ] {
        let pattern = Pattern::parse(pattern).unwrap();
        site.registry.grant(&pattern, &bob, level).unwrap();
        assert_eq!(everywhere.map(|repo| may(&site, "bob", repo)), expected, "{pattern:?} {level:?}");
        let seen = site.ask("GET", "/v2/_catalog").by("bob").send().strings("repositories");
        let readable = everywhere.iter().zip(expected).filter(|(_, may)| may.0).count();
        assert_eq!(seen.len(), readable, "the catalog says the same: {seen:?}");
        if level == Level::Admin || pattern.text() != "team/app" {
            site.registry.revoke(&pattern, &bob).unwrap();
            assert_eq!(everywhere.map(|repo| may(&site, "bob", repo)), [NOTHING; 3]);
            assert!(site.registry.revoke(&pattern, &bob).is_err());
        }
    }
    for bad in ["", "/*", "Team/*", "a/b/*", "**", "repositories/*"] {
        assert!(Pattern::parse(bad).is_err(), "{bad}");
    }
}

#[test]
fn members_of_a_group_may_what_it_may_until_they_leave() {
    let site = Site::new();
    site.add_user("carol");
    site.push_image("acme/app", "v1", b"layer");
    site.registry.org_add(&user("acme"), "Acme", &user("carol")).unwrap();
    assert_eq!(may(&site, "carol", "acme/app"), ADMIN, "owners own");
    assert_eq!(may(&site, "bob", "acme/app"), NOTHING);
    site.registry.group_add(&group("acme/ci"), "robots").unwrap();
    site.registry.group_join(&group("acme/ci"), &user("bob")).unwrap();
    assert_eq!(may(&site, "bob", "acme/app"), NOTHING, "a member may what is granted");
    let ci = Grantee::parse("@acme/ci").unwrap();
    site.registry.grant(&Pattern::parse("acme/*").unwrap(), &ci, Level::Write).unwrap();
    assert_eq!(may(&site, "bob", "acme/app"), WRITE);
    site.registry.group_leave(&group("acme/ci"), &user("bob")).unwrap();
    assert_eq!(may(&site, "bob", "acme/app"), NOTHING, "with the next request");
    site.registry.group_join(&group("acme/ci"), &user("bob")).unwrap();
    site.registry.group_remove(&group("acme/ci")).unwrap();
    assert_eq!(may(&site, "bob", "acme/app"), NOTHING);
    assert!(
        site.registry.group_leave(&group("acme/owners"), &user("carol")).is_err(),
        "the last owner stays"
    );
    assert!(site.registry.group_remove(&group("acme/owners")).is_err());
    assert!(site.registry.org_add(&user("acme"), "", &user("bob")).is_err(), "it is one already");
    assert!(site.registry.org_add(&user("bob"), "", &user("carol")).is_err(), "it is a user");
    site.registry.org_remove(&user("acme")).unwrap();
    assert_eq!(may(&site, "carol", "acme/app"), NOTHING);
    assert_eq!(may(&site, "admin", "acme/app"), ADMIN, "repositories stay");
}

#[test]
fn a_grant_for_a_repository_ends_with_it() {
    let site = Site::new();
    site.push_image("team/app", "v1", b"layer");
    let (pattern, bob) = (Pattern::parse("team/app").unwrap(), Grantee::parse("bob").unwrap());
    site.registry.grant(&pattern, &bob, Level::Read).unwrap();
    site.registry.repo_remove(&outport::names::RepoName::parse("team/app").unwrap()).unwrap();
    site.push_image("team/app", "v1", b"another owner's");
    assert_eq!(may(&site, "bob", "team/app"), NOTHING);
}

#[test]
fn a_robot_token_may_no_more_than_its_scope_and_its_owner() {
    let site = Site::new();
    for repo in ["bob/app", "bob/other", "team/app"] {
        site.push_image(repo, "v1", b"layer");
    }
    let make = |access, pattern: &str| {
        site.registry
            .token_new(&user("bob"), "robot", access, &Pattern::parse(pattern).unwrap(), None)
            .unwrap()
    };
    let status = |token: &str, method: &str, target: &str| {
        site.ask(method, target).with_password("bob", token).send().status
    };
    let (id, pull) = make(Access::Pull, "bob/app");
    assert_eq!(status(&pull, "GET", "/v2/"), 200);
    assert_eq!(status(&pull, "GET", "/v2/bob/app/manifests/v1"), 200);
    assert_eq!(status(&pull, "GET", "/v2/bob/other/manifests/v1"), 403);
    assert_eq!(status(&pull, "POST", "/v2/bob/app/blobs/uploads/"), 403);
    assert_eq!(status(&pull, "GET", "/v2/_catalog"), 401, "lists show more than its scope");
    let (_, push) = make(Access::Push, "*");
    assert_eq!(status(&push, "POST", "/v2/bob/new/blobs/uploads/"), 202);
    assert_eq!(status(&push, "DELETE", "/v2/bob/app/manifests/none"), 403);
    assert_eq!(status(&push, "GET", "/v2/team/app/manifests/v1"), 403, "its owner may not");
    let blob = crate::harness::sha256(b"layer");
    let (_, narrow) = make(Access::Push, "bob/app");
    assert_eq!(
        status(&narrow, "POST", &format!("/v2/bob/app/blobs/uploads/?mount={blob}")),
        202,
        "no source"
    );
    assert_eq!(
        status(&narrow, "POST", &format!("/v2/bob/app/blobs/uploads/?mount={blob}&from=bob/other")),
        202
    );
    assert_eq!(
        status(&narrow, "POST", &format!("/v2/bob/app/blobs/uploads/?mount={blob}&from=bob/app")),
        201
    );

    let answer = site.ask(
        "GET",
        "/token?scope=repository:bob/app:pull,push%20repository:bob/other:pull%20registry:catalog:*",
    );
    let bearer = answer.with_password("bob", &pull).send().json()["token"].as_str().unwrap().to_owned();
    let by_bearer = |method: &str, target: &str| site.ask(method, target).bearer(&bearer).send().status;
    assert_eq!(by_bearer("GET", "/v2/bob/app/manifests/v1"), 200);
    assert_eq!(by_bearer("GET", "/v2/bob/other/manifests/v1"), 401);
    assert_eq!(by_bearer("POST", "/v2/bob/app/blobs/uploads/"), 401);
    assert_eq!(by_bearer("GET", "/v2/_catalog"), 401);

    assert_eq!(site.ask("GET", "/v2/").with_password("admin", &pull).send().status, 401, "it is bob's");
    site.registry.token_revoke(id).unwrap();
    assert_eq!(status(&pull, "GET", "/v2/"), 401);
    assert_eq!(by_bearer("GET", "/v2/bob/app/manifests/v1"), 401, "what it was exchanged for ends with it");
    assert!(site.registry.token_revoke(id).is_err());
}

#[test]
fn a_robot_token_ends_on_its_day() {
    let site = Site::new();
    let soon = (site.registry.clock().wall_us)() + 60_000_000;
    let pattern = Pattern::parse("*").unwrap();
    let (_, token) = site.registry.token_new(&user("bob"), "", Access::Pull, &pattern, Some(soon)).unwrap();
    let status = || site.ask("GET", "/v2/").with_password("bob", &token).send().status;
    assert_eq!(status(), 200);
    site.hands.advance(std::time::Duration::from_secs(60));
    assert_eq!(status(), 401);
}

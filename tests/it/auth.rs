//! Who gets in, and what each may do.

use crate::harness::{Answer, PASSWORD, Site, Wishes, sha256};
use outport::names::{RepoName, UserName};
use std::time::Duration;

#[test]
fn wrong_credentials_are_refused_in_the_same_words_whoever_they_name() {
    let site = Site::new();
    let mut said = Vec::new();
    for (user, password) in [
        ("admin", "wrong"),
        ("nobody-here", "wrong"),
        ("admin", "x".repeat(2_000).as_str()),
        ("Ädmin", PASSWORD),
    ] {
        let answer = site.ask("GET", "/v2/").with_password(user, password).send();
        answer.is(401, "UNAUTHORIZED");
        assert_eq!(answer.headers_named("www-authenticate"), ["Basic realm=\"Outport\""]);
        said.push(answer.json()["errors"][0]["message"].clone());
    }
    assert!(said.iter().all(|sentence| *sentence == said[0]), "{said:?}");
    for header in ["Basic", "Basic !!!", "Basic YWRtaW4=", "Digest x", "Bearer", "Bearer a.b.c", "nonsense"] {
        site.ask("GET", "/v2/").by_nobody().header("Authorization", header).send().is(401, "UNAUTHORIZED");
    }
    site.ask("GET", "/v2/").with_password("admin", "").send().is(401, "UNAUTHORIZED");
}

#[test]
fn an_empty_name_and_password_is_nobody_and_not_a_wrong_password() {
    let site = Site::with(Wishes::anonymous());
    site.push_image("open/app", "v1", b"layer");
    site.registry.repo_set_private(&RepoName::parse("open/app").unwrap(), false).unwrap();
    let answer =
        site.ask("GET", "/v2/open/app/manifests/v1").by_nobody().header("Authorization", "Basic Og==").send();
    assert_eq!(answer.status, 200);
    site.ask("GET", "/v2/open/app/manifests/v1")
        .with_password("admin", "wrong")
        .send()
        .is(401, "UNAUTHORIZED");
}

#[test]
fn a_user_owns_their_namespace_and_nothing_else() {
    let site = Site::new();
    site.push_image("team/app", "v1", b"layer");
    let bob = |method: &str, target: &str| site.ask(method, target).by("bob").send();
    assert_eq!(bob("POST", "/v2/bob/app/blobs/uploads/").status, 202);
    bob("POST", "/v2/team/app/blobs/uploads/").is(403, "DENIED");
    bob("POST", "/v2/hello/blobs/uploads/").is(403, "DENIED");
    bob("GET", "/v2/team/app/manifests/v1").is(403, "DENIED");
    bob("DELETE", "/v2/team/app/manifests/v1").is(403, "DENIED");
    site.registry.repo_set_private(&RepoName::parse("team/app").unwrap(), false).unwrap();
    assert_eq!(bob("GET", "/v2/team/app/manifests/v1").status, 200);
    bob("DELETE", "/v2/team/app/manifests/v1").is(403, "DENIED");
}

#[test]
fn a_stranger_cannot_tell_a_private_repository_from_a_missing_one() {
    let site = Site::with(Wishes::anonymous());
    site.push_image("team/app", "v1", b"layer");
    let blob = sha256(b"layer");
    let same = |one: Answer, other: Answer| {
        assert_eq!((one.status, one.code()), (other.status, other.code()));
        assert_eq!(one.json()["errors"][0]["message"], other.json()["errors"][0]["message"]);
    };
    for rest in ["tags/list", "manifests/v1", &format!("blobs/{blob}"), &format!("referrers/{blob}")] {
        let by_bob = |repo: &str| site.ask("GET", &format!("/v2/{repo}/{rest}")).by("bob").send();
        same(by_bob("team/app"), by_bob("team/none"));
        let by_nobody = |repo: &str| site.ask("GET", &format!("/v2/{repo}/{rest}")).by_nobody().send();
        same(by_nobody("team/app"), by_nobody("team/none"));
    }
}

#[test]
fn library_is_for_administrators_unless_it_is_opened() {
    let mut wishes = Wishes::default();
    wishes.registry.library_open = true;
    let site = Site::with(wishes);
    assert_eq!(site.ask("POST", "/v2/hello/blobs/uploads/").by("bob").send().status, 202);
    site.ask("DELETE", "/v2/hello/manifests/v1").by("bob").send().is(403, "DENIED");
    site.ask("GET", "/v2/hello/tags/list").by("bob").send().is(404, "NAME_UNKNOWN");
    site.ask("POST", "/v2/team/hello/blobs/uploads/").by("bob").send().is(403, "DENIED");
}

#[test]
fn a_changed_password_and_a_removed_user_are_out_at_once() {
    let site = Site::new();
    let bob = UserName::parse("bob").unwrap();
    assert_eq!(site.ask("GET", "/v2/").by("bob").send().status, 200);
    site.registry.user_set_password(&bob, "another one").unwrap();
    site.ask("GET", "/v2/").by("bob").send().is(401, "UNAUTHORIZED");
    assert_eq!(site.ask("GET", "/v2/").with_password("bob", "another one").send().status, 200);
    site.registry.user_remove(&bob).unwrap();
    site.ask("GET", "/v2/").with_password("bob", "another one").send().is(401, "UNAUTHORIZED");
}

#[test]
fn who_comes_after_a_removed_user_is_somebody_else() {
    // Ids were once given again, and with them what was remembered of the user before.
    let site = Site::new();
    let token = site.ask("GET", "/token?scope=repository:bob/app:pull,push").by("bob").send().json();
    let token = token["token"].as_str().unwrap().to_owned();
    let to = site
        .ask("POST", "/v2/bob/app/blobs/uploads/")
        .by("bob")
        .send()
        .header("location")
        .unwrap()
        .to_owned();
    site.registry.user_remove(&UserName::parse("bob").unwrap()).unwrap();
    site.add_user("zoe");
    site.ask("POST", "/v2/zoe/app/blobs/uploads/").by("bob").send().is(401, "UNAUTHORIZED");
    site.ask("GET", "/v2/").bearer(&token).send().is(401, "UNAUTHORIZED");
    site.ask("PATCH", &to).by("zoe").body(b"x").send().is(403, "DENIED");
    let robot = |name: &str| {
        let pattern = outport::registry::Pattern::parse("*").unwrap();
        let name = UserName::parse(name).unwrap();
        site.registry.token_new(&name, "", outport::registry::Access::Delete, &pattern, None).unwrap().0
    };
    let first = robot("zoe");
    site.registry.token_revoke(first).unwrap();
    assert_ne!(robot("admin"), first);
}

#[test]
fn an_e_mail_address_logs_in_as_well() {
    let site = Site::new();
    let name = UserName::parse("carol").unwrap();
    let add = |email| outport::registry::UserAdd {
        name: &name,
        password: PASSWORD,
        admin: false,
        email: Some(email),
    };
    assert!(site.registry.user_add(&add("not an address")).is_err());
    site.registry.user_add(&add("Carol@example.org")).unwrap();
    assert_eq!(site.ask("GET", "/v2/").by("carol@example.org").send().status, 200);
    assert_eq!(site.ask("POST", "/v2/carol/app/blobs/uploads/").by("carol@example.org").send().status, 202);
}

#[test]
fn guessers_are_slowed_down_and_those_who_are_in_are_not() {
    let site = Site::new();
    assert_eq!(site.get("/v2/").status, 200);
    for _ in 0..11 {
        site.ask("GET", "/v2/").with_password("admin", "a guess").send().is(401, "UNAUTHORIZED");
    }
    let refused = site.ask("GET", "/v2/").with_password("admin", "a guess").send();
    refused.is(429, "TOOMANYREQUESTS");
    assert!(refused.header("retry-after").unwrap().parse::<u64>().unwrap() >= 1);
    assert_eq!(site.get("/v2/").status, 200, "a credential that was checked passes");
    site.hands.advance(Duration::from_secs(60));
    assert_eq!(site.ask("GET", "/v2/").by("bob").send().status, 200, "nobody is locked out for ever");
}

#[test]
fn many_at_once_with_one_password_all_get_in() {
    let site = Site::new();
    std::thread::scope(|scope| {
        let asking: Vec<_> = (0..40).map(|_| scope.spawn(|| site.get("/v2/").status)).collect();
        for thread in asking {
            assert_eq!(thread.join().unwrap(), 200);
        }
    });
}

#[test]
fn the_last_administrator_stays() {
    let site = Site::new();
    let admin = UserName::parse("admin").unwrap();
    assert!(site.registry.user_remove(&admin).is_err());
    assert!(site.registry.user_set_admin(&admin, false).is_err());
    site.registry.user_set_admin(&UserName::parse("bob").unwrap(), true).unwrap();
    site.registry.user_remove(&admin).unwrap();
    assert_eq!(site.ask("POST", "/v2/any/thing/blobs/uploads/").by("bob").send().status, 202);
}

#[test]
fn users_of_an_htpasswd_file_keep_their_passwords() {
    let site = Site::new();
    let hash = |password: &str| bcrypt::hash(password, 4).unwrap().replacen("$2b$", "$2y$", 1);
    let file = format!("# made elsewhere\ndave:{}\n\nbob:{}\n", hash("dave's own"), hash("bob's new one"));
    let imported = site.registry.users_import(&file).unwrap();
    assert_eq!((imported.added, imported.changed), (vec!["dave".to_owned()], vec!["bob".to_owned()]));
    for _ in 0..2 {
        assert_eq!(site.ask("GET", "/v2/").with_password("dave", "dave's own").send().status, 200);
        site.ask("GET", "/v2/").with_password("dave", "bob's new one").send().is(401, "UNAUTHORIZED");
        site.ask("GET", "/v2/").by("bob").send().is(401, "UNAUTHORIZED");
    }
    let site = site.restart();
    let dave = site.ask("GET", "/v2/").with_password("dave", "dave's own").send();
    assert_eq!(dave.status, 200, "its hash was renewed when it was first checked");
    let error = site.registry.users_import("eve:{SHA}xyz").unwrap_err().detail();
    assert!(error.contains("line 1") && error.contains("htpasswd -B"), "{error}");
    assert!(site.registry.users_import(&format!("ok:{}\nEve:{}", hash("x"), hash("y"))).is_err());
    assert_eq!(site.registry.users().unwrap().len(), 3, "all lines or none");
}

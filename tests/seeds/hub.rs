//! The question of 2015 about creating private repositories, and its answers: as Python's
//! `requests` and curl send what they print. Here `(username)` is bob, `(new_repo_name)` is cam,
//! and the organisation is acme, with a group `ci`.

use super::{answers, send};
use crate::harness::{PASSWORD, Site, Wishes, basic};
use outport::names::UserName;
use outport::registry::GroupName;
use serde_json::json;

/// With an organisation of bob's, in whose group `ci` is dave; and the group's id.
fn site() -> (Site, i64) {
    let site = Site::with(Wishes::anonymous());
    let (acme, bob, dave) = (user("acme"), user("bob"), user("dave"));
    let ci = GroupName::parse("acme/ci").unwrap();
    site.add_user("dave");
    site.registry.org_add(&acme, "", &bob).unwrap();
    site.registry.group_add(&ci, "").unwrap();
    site.registry.group_join(&ci, &dave).unwrap();
    let id = site.registry.group_info(&ci).unwrap().id;
    (site, id)
}

fn user(name: &str) -> UserName {
    UserName::parse(name).unwrap()
}

fn status(site: &Site, who: &str, method: &str, target: &str) -> u16 {
    site.ask(method, target).by(who).send().status
}

/// As printed, `data` is a list of a dictionary, which `requests` refuses to send; it was meant
/// to be the JSON. The id is the short one, of 12 digits.
#[test]
fn the_question_creates_a_repository_by_the_v1_index() {
    let (site, _) = site();
    let answer = send(
        &site,
        r#"
            PUT /v1/repositories/(username)/(new_repo_name)/ HTTP/1.1
            Host: index.docker.io
            User-Agent: python-requests/2.28.1
            Accept-Encoding: gzip, deflate
            Accept: application/json
            content-type: application/json
            X-Docker-Token: true
            Authorization: Basic (username:password)

            [{"id": "1020903f808f"}]
        "#,
        &[
            ("Basic (username:password)", &basic("bob", PASSWORD)),
            ("(username)", "bob"),
            ("(new_repo_name)", "cam"),
        ],
    );
    assert_eq!((answer.status, answer.json()), (200, json!("")));
    assert!(answer.header("x-docker-token").unwrap().ends_with("repository=\"bob/cam\",access=write"));
    let images = site.ask("GET", "/v1/repositories/bob/cam/images").by("bob").send();
    assert_eq!(images.json(), json!([{"id": "1020903f808f"}]));
}

/// What Chrome's debug view showed the first answer's author: a JWT.
fn jwt(site: &Site) -> String {
    let answer = site.ask("POST", "/v2/users/login/").by_nobody();
    let answer = answer.json(&json!({"username": "bob", "password": PASSWORD})).send();
    answer.json()["token"].as_str().unwrap().to_owned()
}

#[test]
fn the_first_answers_class_creates_a_private_repository() {
    let (site, _) = site();
    let answer = send(
        &site,
        "
            POST /v2/repositories/ HTTP/1.1
            Host: hub.docker.com
            User-Agent: python-requests/2.28.1
            Accept-Encoding: gzip, deflate
            Accept: */*
            Authorization: JWT (jwt_token)
            Content-Type: application/x-www-form-urlencoded

            description=(summary)&full_description=&is_private=true&name=(reponame)&namespace=(orgname)
        ",
        &[
            ("(jwt_token)", &jwt(&site)),
            ("(summary)", "a+camera"),
            ("(reponame)", "cam"),
            ("(orgname)", "acme"),
        ],
    );
    assert_eq!(answer.status, 201, "{answer:?}");
    let repo = answer.json();
    assert_eq!((&repo["name"], &repo["namespace"]), (&json!("cam"), &json!("acme")));
    assert_eq!((&repo["is_private"], &repo["description"]), (&json!(true), &json!("a camera")));
    assert_eq!((&repo["status"], &repo["last_updated"]), (&json!(0), &json!(null)), "nothing was pushed");
    assert!(repo["id"].is_i64() && repo["date_registered"].as_str().unwrap().ends_with('Z'));
    let nobody = site.ask("GET", "/v2/repositories/acme/cam/").by_nobody().send();
    assert_eq!(nobody.status, 401);
}

/// The class looks the group's id up by its name, and grants it `read` or `write`.
#[test]
fn the_first_answers_class_sets_what_a_group_may() {
    let (site, id) = site();
    let jwt = jwt(&site);
    site.push_image("acme/cam", "v1", b"layer");
    let groups = send(
        &site,
        "
            GET /v2/orgs/(orgname)/groups/?page_size=100 HTTP/1.1
            Host: hub.docker.com
            User-Agent: python-requests/2.28.1
            Accept-Encoding: gzip, deflate
            Accept: */*
            Authorization: JWT (jwt_token)
        ",
        &[("(jwt_token)", &jwt), ("(orgname)", "acme")],
    );
    assert_eq!(groups.status, 200);
    let groups = groups.json();
    let found: Vec<_> =
        groups["results"].as_array().unwrap().iter().map(|it| (&it["name"], &it["id"])).collect();
    assert!(found.contains(&(&json!("ci"), &json!(id))), "{found:?}");

    let grant = |permission: &str| {
        let answer = send(
            &site,
            "
                POST /v2/repositories/(org)/(repo)/groups/ HTTP/1.1
                Host: hub.docker.com
                User-Agent: python-requests/2.28.1
                Accept-Encoding: gzip, deflate
                Accept: */*
                Authorization: JWT (jwt_token)
                Content-Type: application/x-www-form-urlencoded

                group_id=(group_id)&permission=(permission)
            ",
            &[
                ("(jwt_token)", &jwt),
                ("(org)", "acme"),
                ("(repo)", "cam"),
                ("(group_id)", &id.to_string()),
                ("(permission)", permission),
            ],
        );
        let body = json!({"group_id": id, "group_name": "ci", "permission": permission});
        answers(&answer, &format!("HTTP/1.1 200\nContent-Type: application/json\n\n{body}"));
    };
    assert_eq!(status(&site, "dave", "GET", "/v2/acme/cam/manifests/v1"), 403);
    grant("read");
    assert_eq!(status(&site, "dave", "GET", "/v2/acme/cam/manifests/v1"), 200);
    assert_eq!(status(&site, "dave", "POST", "/v2/acme/cam/blobs/uploads/"), 403);
    grant("write");
    assert_eq!(status(&site, "dave", "POST", "/v2/acme/cam/blobs/uploads/"), 202);
    assert_eq!(status(&site, "dave", "DELETE", "/v2/acme/cam/manifests/none"), 403);
}

#[test]
fn the_second_answers_curl_lines_log_in_and_create_a_public_repository() {
    let (site, _) = site();
    let login = send(
        &site,
        r#"
            POST /v2/users/login/ HTTP/1.1
            Host: hub.docker.com
            User-Agent: curl/7.88.1
            Accept: */*
            Content-Type: application/json

            {"username": "${USER}", "password": "${PASS}"}
        "#,
        &[("${USER}", "bob"), ("${PASS}", PASSWORD)],
    );
    assert_eq!((login.status, login.header("cache-control")), (200, Some("no-store")));
    let token = login.json()["token"].as_str().unwrap().to_owned();
    let made = send(
        &site,
        "
            POST /v2/repositories/ HTTP/1.1
            Host: hub.docker.com
            User-Agent: curl/7.88.1
            Accept: */*
            Authorization: JWT ${TOKEN}
            Content-Type: application/x-www-form-urlencoded

            description=test&full_description=full-description&is_private=false&name=test&namespace=${USER}
        ",
        &[("${TOKEN}", &token), ("${USER}", "bob")],
    );
    assert_eq!(made.status, 201);
    let repo = made.json();
    assert_eq!((&repo["namespace"], &repo["name"]), (&json!("bob"), &json!("test")));
    assert_eq!((&repo["full_description"], &repo["is_private"]), (&json!("full-description"), &json!(false)));
    let tags = site.ask("GET", "/v2/bob/test/tags/list").by_nobody().send();
    assert_eq!(tags.status, 200, "it is public at once: {tags:?}");
}

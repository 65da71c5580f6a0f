//! Docker's Index API, chapter 2. The document's `foo/bar` is a repository of the user foo, its
//! `foobar` one of the library.
//!
//! Its credentials, `akmklmasadalkm==`, are nobody's, and its token `123abc` was never given.
//! It prints `X-Docker-Endpoints: registry-1.docker.io [, registry-2.docker.io]`, which is a
//! grammar: here is one registry, the one that was asked.

use super::{answers, parts, send};
use crate::harness::{Answer, PASSWORD, Site, Wishes, basic};
use outport::names::UserName;
use outport::registry::SignUp;
use serde_json::{Value, json};

const CREDENTIALS: &str = "Basic akmklmasadalkm==";

// 2.1 Repository -----------------------------------------------------------------------

const USER_REPO_PUT: &str = r#"
    PUT /v1/repositories/foo/bar/ HTTP/1.1
    Host: index.docker.io
    Accept: application/json
    Content-Type: application/json
    Authorization: Basic akmklmasadalkm==
    X-Docker-Token: true

    [{"id": "9e89cc6f0bc3c38722009fe6857087b486531f9a779a0c17e3ed29dae8f12c4f"}]
"#;

const USER_REPO_DELETE: &str = r#"
    DELETE /v1/repositories/foo/bar/ HTTP/1.1
    Host: index.docker.io
    Accept: application/json
    Content-Type: application/json
    Authorization: Basic akmklmasadalkm==
    X-Docker-Token: true

    ""
"#;

const LIBRARY_REPO_PUT: &str = r#"
    PUT /v1/repositories/foobar/ HTTP/1.1
    Host: index.docker.io
    Accept: application/json
    Content-Type: application/json
    Authorization: Basic akmklmasadalkm==
    X-Docker-Token: true

    [{"id": "9e89cc6f0bc3c38722009fe6857087b486531f9a779a0c17e3ed29dae8f12c4f"}]
"#;

const LIBRARY_REPO_DELETE: &str = r#"
    DELETE /v1/repositories/foobar/ HTTP/1.1
    Host: index.docker.io
    Accept: application/json
    Content-Type: application/json
    Authorization: Basic akmklmasadalkm==
    X-Docker-Token: true

    ""
"#;

const USER_IMAGES_PUT: &str = r#"
    PUT /v1/repositories/foo/bar/images HTTP/1.1
    Host: index.docker.io
    Accept: application/json
    Content-Type: application/json
    Authorization: Basic akmklmasadalkm==

    [{"id": "9e89cc6f0bc3c38722009fe6857087b486531f9a779a0c17e3ed29dae8f12c4f",
    "checksum": "b486531f9a779a0c17e3ed29dae8f12c4f9e89cc6f0bc3c38722009fe6857087"}]
"#;

const USER_IMAGES_GET: &str = "
    GET /v1/repositories/foo/bar/images HTTP/1.1
    Host: index.docker.io
    Accept: application/json
";

const LIBRARY_IMAGES_PUT: &str = r#"
    PUT /v1/repositories/foobar/images HTTP/1.1
    Host: index.docker.io
    Accept: application/json
    Content-Type: application/json
    Authorization: Basic akmklmasadalkm==

    [{"id": "9e89cc6f0bc3c38722009fe6857087b486531f9a779a0c17e3ed29dae8f12c4f",
    "checksum": "b486531f9a779a0c17e3ed29dae8f12c4f9e89cc6f0bc3c38722009fe6857087"}]
"#;

const LIBRARY_IMAGES_GET: &str = "
    GET /v1/repositories/foobar/images HTTP/1.1
    Host: index.docker.io
    Accept: application/json
";

const LIBRARY_AUTH_PUT: &str = r#"
    PUT /v1/repositories/foobar/auth HTTP/1.1
    Host: index.docker.io
    Accept: application/json
    Authorization: Token signature=123abc,repository="library/foobar",access=write
"#;

const USER_AUTH_PUT: &str = r#"
    PUT /v1/repositories/foo/bar/auth HTTP/1.1
    Host: index.docker.io
    Accept: application/json
    Authorization: Token signature=123abc,repository="foo/bar",access=write
"#;

// 2.2 Users ----------------------------------------------------------------------------

const LOGIN: &str = "
    GET /v1/users HTTP/1.1
    Host: index.docker.io
    Accept: application/json
    Authorization: Basic akmklmasadalkm==
";

const REGISTER: &str = r#"
    POST /v1/users HTTP/1.1
    Host: index.docker.io
    Accept: application/json
    Content-Type: application/json

    {"email": "sam@dotcloud.com",
     "password": "toto42",
     "username": "foobar"'}
"#;

const UPDATE: &str = r#"
    PUT /v1/users/fakeuser/ HTTP/1.1
    Host: index.docker.io
    Accept: application/json
    Content-Type: application/json
    Authorization: Basic akmklmasadalkm==

    {"email": "sam@dotcloud.com",
     "password": "toto42"}
"#;

// The examples -------------------------------------------------------------------------

/// With foo and fakeuser, and open to all who sign up: as the document has it.
fn site() -> Site {
    let mut wishes = Wishes::anonymous();
    wishes.registry.private = false;
    wishes.registry.sign_up = SignUp::Open;
    let site = Site::with(wishes);
    site.add_user("foo");
    site.add_user("fakeuser");
    site
}

fn by(site: &Site, user: &str, printed: &str) -> Answer {
    send(site, printed, &[(CREDENTIALS, &basic(user, PASSWORD))])
}

/// For calls that are printed without credentials.
fn as_user(site: &Site, printed: &str) -> Answer {
    let header = format!("Accept: application/json\n    Authorization: {}", basic("foo", PASSWORD));
    send(site, printed, &[("Accept: application/json", &header)])
}

/// The signature that an answer gives, where the document has 123abc.
fn signature(answer: &Answer) -> String {
    let token = answer.header("x-docker-token").unwrap_or_else(|| panic!("no token: {answer:?}"));
    token.strip_prefix("signature=").unwrap().split(',').next().unwrap().to_owned()
}

fn answers_with_token(site: &Site, answer: &Answer, printed: &str) {
    let printed = printed.replace("123abc", &signature(answer));
    answers(answer, &printed.replace("registry-1.docker.io", &site.address.to_string()));
}

#[test]
fn user_repo_put_creates_it_and_gives_a_token() {
    let site = site();
    let printed = r#"
        HTTP/1.1 200
        Vary: Accept
        Content-Type: application/json
        WWW-Authenticate: Token signature=123abc,repository="foo/bar",access=write
        X-Docker-Token: signature=123abc,repository="foo/bar",access=write
        X-Docker-Endpoints: registry-1.docker.io

        ""
    "#;
    for _ in 0..2 {
        answers_with_token(&site, &by(&site, "foo", USER_REPO_PUT), printed);
    }
}

#[test]
fn user_repo_delete_is_accepted_and_then_done() {
    let site = site();
    by(&site, "foo", USER_REPO_PUT);
    let printed = r#"
        HTTP/1.1 202
        Vary: Accept
        Content-Type: application/json
        WWW-Authenticate: Token signature=123abc,repository="foo/bar",access=delete
        X-Docker-Token: signature=123abc,repository="foo/bar",access=delete
        X-Docker-Endpoints: registry-1.docker.io

        ""
    "#;
    answers_with_token(&site, &by(&site, "foo", USER_REPO_DELETE), printed);
    assert_eq!(as_user(&site, USER_IMAGES_GET).status, 404);
    assert_eq!(by(&site, "foo", USER_REPO_DELETE).status, 200, "the other status that is listed");
}

/// The document's X-Docker-Token names foo/bar here, a slip: it is the token of
/// WWW-Authenticate, as everywhere else.
#[test]
fn library_repo_put_and_delete_are_for_administrators_and_name_the_library() {
    let site = site();
    let printed = r#"
        HTTP/1.1 200
        Vary: Accept
        Content-Type: application/json
        WWW-Authenticate: Token signature=123abc,repository="library/foobar",access=write
        X-Docker-Token: signature=123abc,repository="library/foobar",access=write
        X-Docker-Endpoints: registry-1.docker.io

        ""
    "#;
    assert_eq!(by(&site, "foo", LIBRARY_REPO_PUT).status, 403);
    answers_with_token(&site, &by(&site, "admin", LIBRARY_REPO_PUT), printed);
    let printed = printed.replace("200", "202").replace("access=write", "access=delete");
    assert_eq!(by(&site, "foo", LIBRARY_REPO_DELETE).status, 403);
    answers_with_token(&site, &by(&site, "admin", LIBRARY_REPO_DELETE), &printed);
    assert_eq!(by(&site, "admin", LIBRARY_REPO_DELETE).status, 200);
}

/// The document's 204 has a body, `""`, which HTTP forbids: there is none. The second image that
/// its GET lists has an id of letters to z, which no image has; here it has another. It prints
/// no credentials for a GET: the repository is public.
#[test]
fn user_and_library_images_are_put_and_listed() {
    let site = site();
    by(&site, "foo", USER_REPO_PUT);
    by(&site, "admin", LIBRARY_REPO_PUT);
    let second = |user: &str, put: &str, id: &str| {
        let (first_id, second_id) = ("9e89cc6f0bc3c38722009fe6857087b486531f9a779a0c17e3ed29dae8f12c4f", id);
        let first_sum = "b486531f9a779a0c17e3ed29dae8f12c4f9e89cc6f0bc3c38722009fe6857087";
        let second_sum = "34f23f23fc17e3ed29dae8f12c4f9e89cc6f0bsdfgfsdgdsgdsgerwgew";
        let credentials = basic(user, PASSWORD);
        send(&site, put, &[(CREDENTIALS, &credentials), (first_id, second_id), (first_sum, second_sum)])
    };
    for (user, put, get) in
        [("foo", USER_IMAGES_PUT, USER_IMAGES_GET), ("admin", LIBRARY_IMAGES_PUT, LIBRARY_IMAGES_GET)]
    {
        let printed = "
            HTTP/1.1 204
            Vary: Accept
        ";
        answers(&by(&site, user, put), printed);
        answers(&second(user, put, "d2e5e1e38722009fe6857087b486531f9a779a0c1dfdd9f95d9d95d9d95"), printed);
        let as_printed = "ertwetewtwe38722009fe6857087b486531f9a779a0c1dfddgfgsdgdsgds";
        assert_eq!(second(user, put, as_printed).status, 400);
        let printed = r#"
            HTTP/1.1 200
            Vary: Accept
            Content-Type: application/json

            [{"id": "9e89cc6f0bc3c38722009fe6857087b486531f9a779a0c17e3ed29dae8f12c4f",
            "checksum": "b486531f9a779a0c17e3ed29dae8f12c4f9e89cc6f0bc3c38722009fe6857087"},
            {"id": "d2e5e1e38722009fe6857087b486531f9a779a0c1dfdd9f95d9d95d9d95",
            "checksum": "34f23f23fc17e3ed29dae8f12c4f9e89cc6f0bsdfgfsdgdsgdsgerwgew"}]
        "#;
        answers(&send(&site, get, &[]), printed);
    }
}

#[test]
fn library_and_user_auth_put_authorize_a_token_once() {
    let site = site();
    for (user, put, auth) in
        [("admin", LIBRARY_REPO_PUT, LIBRARY_AUTH_PUT), ("foo", USER_REPO_PUT, USER_AUTH_PUT)]
    {
        let token = signature(&by(&site, user, put));
        let printed = r#"
            HTTP/1.1 200
            Vary: Accept
            Content-Type: application/json

            "OK"
        "#;
        answers(&send(&site, auth, &[("123abc", &token)]), printed);
        assert_eq!(send(&site, auth, &[("123abc", &token)]).status, 403, "it is used up");
        assert_eq!(send(&site, auth, &[]).status, 403, "nobody was given 123abc");
        let token = signature(&by(&site, user, put));
        site.registry.repo_remove(&outport::names::RepoName::parse(&repo_of(put)).unwrap()).unwrap();
        assert_eq!(send(&site, auth, &[("123abc", &token)]).status, 404);
    }
}

fn repo_of(printed: &str) -> String {
    let target = parts(printed).0[0].split(' ').nth(1).unwrap();
    target.trim_start_matches("/v1/repositories/").trim_end_matches('/').to_owned()
}

/// The document prints a bare `OK` as application/json, which it is not: it is quoted.
#[test]
fn user_login_says_ok() {
    let printed = r#"
        HTTP/1.1 200 OK
        Vary: Accept
        Content-Type: application/json

        "OK"
    "#;
    answers(&by(&site(), "foo", LOGIN), printed);
}

/// As printed the body is no JSON: there is a stray quote after the username.
#[test]
fn user_register_makes_an_account() {
    let site = site();
    assert_eq!(send(&site, REGISTER, &[]).status, 400);
    let printed = r#"
        HTTP/1.1 201 OK
        Vary: Accept
        Content-Type: application/json

        "User Created"
    "#;
    let fill = [("\"foobar\"'", "\"foobar\"")];
    answers(&send(&site, REGISTER, &fill), printed);
    assert_eq!(send(&site, LOGIN, &[(CREDENTIALS, &basic("foobar", "toto42"))]).status, 200);
    assert_eq!(send(&site, LOGIN, &[(CREDENTIALS, &basic("sam@dotcloud.com", "toto42"))]).status, 200);
    assert_eq!(send(&site, REGISTER, &fill).status, 400, "there is one now");
}

/// The 204's body, `""`, is forbidden here as well.
#[test]
fn update_user_adds_an_address_and_replaces_the_password() {
    let site = site();
    let printed = "
        HTTP/1.1 204
        Vary: Accept
    ";
    answers(&by(&site, "fakeuser", UPDATE), printed);
    assert_eq!(by(&site, "fakeuser", LOGIN).status, 401);
    for login in ["fakeuser", "sam@dotcloud.com"] {
        assert_eq!(send(&site, LOGIN, &[(CREDENTIALS, &basic(login, "toto42"))]).status, 200);
    }
}

// The statuses -------------------------------------------------------------------------

/// What needs credentials, and whose are good for it.
const BY_PASSWORD: [(&str, &str); 8] = [
    ("foo", USER_REPO_PUT),
    ("foo", USER_REPO_DELETE),
    ("admin", LIBRARY_REPO_PUT),
    ("admin", LIBRARY_REPO_DELETE),
    ("foo", USER_IMAGES_PUT),
    ("admin", LIBRARY_IMAGES_PUT),
    ("foo", LOGIN),
    ("fakeuser", UPDATE),
];

#[test]
fn without_good_credentials_each_is_unauthorized() {
    let site = site();
    for (user, printed) in BY_PASSWORD {
        assert_eq!(send(&site, printed, &[]).status, 401, "as printed: {printed}");
        let wrong = send(&site, printed, &[(CREDENTIALS, &basic(user, "wrong one"))]);
        assert_eq!((wrong.status, wrong.json()["error"].is_string()), (401, true), "{printed}");
        let none = format!("Authorization: {CREDENTIALS}");
        assert_eq!(send(&site, printed, &[(&none, "X-Nothing: 0")]).status, 401, "{printed}");
    }
}

#[test]
fn who_is_not_active_is_told_so_by_each() {
    let site = site();
    site.add_user("second");
    site.registry.user_set_admin(&UserName::parse("second").unwrap(), true).unwrap();
    for user in ["foo", "fakeuser", "admin"] {
        site.registry.user_set_active(&UserName::parse(user).unwrap(), false).unwrap();
    }
    for (user, printed) in BY_PASSWORD {
        let answer = by(&site, user, printed);
        assert_eq!((answer.status, answer.json()), (403, json!({"error": "Account is not Active"})));
    }
}

#[test]
fn what_is_no_json_or_misses_a_field_is_a_bad_request() {
    let site = site();
    by(&site, "foo", USER_REPO_PUT);
    by(&site, "admin", LIBRARY_REPO_PUT);
    let bad = |user: &str, printed: &str, body: &str| {
        let (head, _) = parts(printed);
        let text = format!("{}\n\n{body}", head.join("\n"));
        let answer = match printed.contains(CREDENTIALS) {
            true => by(&site, user, &text),
            false => send(&site, &text, &[]),
        };
        let error: Value = answer.json();
        assert_eq!((answer.status, error["error"].is_string()), (400, true), "{text}");
    };
    for (user, printed) in [("", REGISTER)].into_iter().chain(BY_PASSWORD) {
        if printed.trim().starts_with('P') {
            bad(user, printed, "{");
            bad(user, printed, if printed.contains("/v1/users") { "{}" } else { "[{}]" });
        }
    }
    // What comes with a DELETE is ignored, so only a name can be bad.
    bad("foo", &USER_REPO_DELETE.replace("foo/bar/", "foo/Bar/"), "\"\"");
    bad("admin", &LIBRARY_REPO_DELETE.replace("foobar/", "Foobar/"), "\"\"");
}

/// Whoever asks without credentials is told 401 instead, as for what is private.
#[test]
fn what_is_not_there_is_not_found() {
    let site = site();
    for printed in [USER_IMAGES_GET, LIBRARY_IMAGES_GET] {
        assert_eq!(as_user(&site, printed).status, 404, "{printed}");
        assert_eq!(send(&site, printed, &[]).status, 401, "{printed}");
    }
    let nobody = UPDATE.replace("fakeuser", "nobody");
    assert_eq!(by(&site, "admin", &nobody).status, 404);
}

#[test]
fn what_belongs_to_another_is_denied() {
    let site = site();
    by(&site, "foo", USER_REPO_PUT);
    by(&site, "admin", LIBRARY_REPO_PUT);
    for (user, printed) in BY_PASSWORD {
        if user != "fakeuser" && printed != LOGIN {
            assert_eq!(by(&site, "fakeuser", printed).status, 403, "{printed}");
        }
    }
    assert_eq!(by(&site, "foo", UPDATE).status, 403);
}

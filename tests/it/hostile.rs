//! Requests that nobody sends by mistake: each a clear answer in the right shape, none a
//! 5xx, and nothing left behind.

use crate::harness::{Answer, PASSWORD, Site, basic, raw};

/// Sends a head as it stands, and returns the answers that came back before the close.
fn answers(site: &Site, request: &str) -> Vec<Answer> {
    let mut bytes = raw(site.address, request.as_bytes());
    let mut answers = Vec::new();
    while !bytes.is_empty() {
        let (answer, rest) = Answer::read(&bytes, false);
        answers.push(answer);
        bytes = rest;
    }
    answers
}

#[test]
fn a_request_that_can_be_read_two_ways_gets_one_answer_and_the_door() {
    let site = Site::new();
    let auth = basic("admin", PASSWORD);
    let smuggled = "GET /v2/_catalog HTTP/1.1\r\nHost: x\r\n\r\n";
    let get = "GET /v2/ HTTP/1.1\r\n";
    let post = format!("POST /v2/a/b/blobs/uploads/ HTTP/1.1\r\nAuthorization: {auth}\r\n");
    for request in [
        format!(
            "{post}Host: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{smuggled}"
        ),
        format!(
            "{post}Host: x\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n{smuggled}"
        ),
        format!("{post}Host: x\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n{smuggled}"),
        format!("{post}Host: x\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n{smuggled}"),
        format!("{post}Host: x\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n{smuggled}"),
        format!("{post}Host: x\r\nContent-Length: 0\r\nContent-Length: 44\r\n\r\n{smuggled}"),
        format!("{post}Host: x\r\nContent-Length: +0\r\n\r\n{smuggled}"),
        format!("{get}Host: x\r\nHost: y\r\n\r\n"),
        format!("{get}\r\n"),
        format!("{get}Host: x\r\nX-Folded: a\r\n b\r\n\r\n"),
        format!("{get}Host: x\r\nX-Null: a\0b\r\n\r\n"),
        format!("{get}Host: x\r\nX-Return: a\rb\r\n\r\n"),
        format!("{get}Host: x\"y\r\n\r\n"),
        "GET  /v2/ HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(),
        "nonsense\r\n\r\n".to_owned(),
    ] {
        let answers = answers(&site, &request);
        assert_eq!(answers.len(), 1, "{request}");
        assert!((400..=401).contains(&answers[0].status), "{} {request}", answers[0].status);
        assert!(answers[0].code().len() > 5, "{request}");
        assert!(answers[0].whole);
    }
    assert_eq!(site.uploads_left(), 0);
}

#[test]
fn heads_beyond_the_limits_are_refused_in_the_right_shape() {
    let site = Site::new();
    let head = |more: &str| format!("GET /v2/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{more}\r\n");
    let many = |n: usize| head(&(0..n).map(|n| format!("X-{n}: y\r\n")).collect::<String>());
    for request in [
        many(63),
        many(100),
        many(20_000),
        head(&format!("X: {}\r\n", "y".repeat(40_000))),
        head(&format!("X: {}\r\n", "y".repeat(2 << 20))),
    ] {
        let answers = answers(&site, &request);
        assert_eq!((answers.len(), answers[0].status), (1, 431), "{} bytes", request.len());
        assert_eq!(answers[0].code(), "UNSUPPORTED");
    }
    for length in [9_000, 60_000, 100_000] {
        let request = format!(
            "GET /v2/{}/tags/list HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
            "a".repeat(length)
        );
        let answers = answers(&site, &request);
        assert_eq!(answers.len(), 1);
        assert!(matches!(answers[0].status, 414 | 431), "{}", answers[0].status);
        assert!(answers[0].code().len() > 5);
    }
}

#[test]
fn names_that_try_to_leave_their_place_are_names_that_do_not_parse() {
    let site = Site::new();
    let long = "a".repeat(256);
    for name in [
        "..",
        "../..",
        "%2e%2e",
        "a/%2e%2e/b",
        "a%2f..%2fb",
        "a%00b",
        "a//b",
        "A",
        "a/B",
        "ä",
        "%ff",
        "a/",
        "_a",
        "a..b",
        "repositories/x",
        "namespaces/a/b",
        &long,
    ] {
        for rest in ["tags/list", "manifests/latest", "blobs/uploads/"] {
            let method = if rest.ends_with('/') { "POST" } else { "GET" };
            let answer = site.ask(method, &format!("/v2/{name}/{rest}")).send();
            answer.is(400, "NAME_INVALID");
        }
    }
    for digest in [
        "sha256:..%2f..%2fetc",
        "sha256:../../../etc/passwd",
        "md5:d41d8cd98f00b204e9800998ecf8427e",
        "sha256:ABC",
        "x",
    ] {
        let answer = site.get(&format!("/v2/a/b/blobs/{digest}"));
        assert!(matches!(answer.status, 400 | 404), "{digest}: {}", answer.status);
        assert!(answer.code().len() > 5);
    }
    for upload in ["..%2f..%2flock", "%2e%2e", "0", "ZZ", &"0".repeat(32)] {
        site.get(&format!("/v2/a/b/blobs/uploads/{upload}")).is(404, "BLOB_UPLOAD_UNKNOWN");
    }
    for tag in [".a", "a%2fb", "%00", &"t".repeat(129)] {
        site.get(&format!("/v2/a/b/manifests/{tag}")).is(400, "TAG_INVALID");
    }
}

#[test]
fn a_manifest_that_claims_too_much_is_refused_before_it_is_sent() {
    let site = Site::new();
    let request = format!(
        "PUT /v2/a/b/manifests/v1 HTTP/1.1\r\nHost: x\r\nAuthorization: {}\r\nContent-Length: 314572800\r\n\r\n{{",
        basic("admin", PASSWORD)
    );
    let answers = answers(&site, &request);
    assert_eq!(answers.len(), 1);
    answers[0].is(413, "MANIFEST_INVALID");
    assert_eq!(answers[0].header("connection"), Some("close"));
}

#[test]
fn a_stranger_is_refused_before_any_byte_of_a_body_is_asked_for() {
    let site = Site::new();
    let request = "PATCH /v2/a/b/blobs/uploads/00000000000000000000000000000000 HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\nExpect: 100-continue\r\n\r\n";
    let bytes = raw(site.address, request.as_bytes());
    assert!(bytes.starts_with(b"HTTP/1.1 401"), "and not 100 Continue");
}

#[test]
fn chunks_that_do_not_parse_break_the_upload_off_and_keep_what_came() {
    let site = Site::new();
    let to = site.begin_upload("a/b");
    let request = |body: &str| {
        format!(
            "PATCH {to} HTTP/1.1\r\nHost: x\r\nAuthorization: {}\r\nTransfer-Encoding: chunked\r\n\r\n{body}",
            basic("admin", PASSWORD)
        )
    };
    for body in ["fffffffffffffffff\r\nx", "-5\r\nx", "zz\r\nx\r\n0\r\n\r\n"] {
        let answers = answers(&site, &request(body));
        assert!(answers.iter().all(|answer| answer.status < 500), "{body}");
        assert!(answers.len() <= 1, "{body}");
    }
    let answers = answers(&site, &request("5\r\nhello\r\nzz\r\n"));
    assert!(answers.iter().all(|answer| answer.status == 400), "{answers:?}");
    assert_eq!(site.get(&to).header("range"), Some("0-4"));
}

#[test]
fn a_client_that_asks_twice_on_one_connection_is_answered_twice() {
    let site = Site::new();
    let one = format!("GET /v2/ HTTP/1.1\r\nHost: x\r\nAuthorization: {}\r\n", basic("admin", PASSWORD));
    let bytes = raw(site.address, format!("{one}\r\n{one}Connection: close\r\n\r\n").as_bytes());
    let (first, rest) = Answer::read(&bytes, false);
    let (second, rest) = Answer::read(&rest, false);
    assert_eq!((first.status, second.status, rest.len()), (200, 200, 0));
}

//! A company's guide to its registry: the requests that its curl lines and its Python class
//! send. Its images are `public/2048` and `10000460xxxxx/ubuntu`; its screenshots, and the
//! answers on them, are lost, so the answers here are the registry protocol's.

use super::{answers, send};
use crate::harness::{Answer, OCI_MANIFEST, PASSWORD, Site, Wishes, basic};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

const CREDENTIALS: &str = "Basic 认证信息";
const AGENT: &str = "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) \
                     Chrome/70.0.3538.110 Safari/537.36";

/// The two images, and the digest of the second.
fn site() -> (Site, String) {
    let site = Site::new();
    site.push_image("public/2048", "latest", b"2048");
    let digest = site.push_image("10000460xxxxx/ubuntu", "latest", b"ubuntu");
    (site, digest)
}

/// `curl -v -H "Authorization: Basic 认证信息" -X METHOD https://HOST/TARGET`.
fn curl(site: &Site, method: &str, target: &str) -> Answer {
    let printed = "
        METHOD TARGET HTTP/1.1
        Host: docker.yun.ccb.com
        User-Agent: curl/7.88.1
        Accept: */*
        Authorization: Basic 认证信息
    ";
    let credentials = basic("admin", PASSWORD);
    send(site, printed, &[("METHOD", method), ("TARGET", target), (CREDENTIALS, &credentials)])
}

/// `requests.get(url=url, headers=self.headers)`, or `requests.delete`.
fn python(site: &Site, method: &str, target: &str) -> Answer {
    let printed = "
        METHOD TARGET HTTP/1.1
        Host: docker.yun.ccb.com
        User-Agent: Mozilla/5.0
        Accept-Encoding: gzip, deflate
        Accept: */*
        Authorization: Basic 认证信息
    ";
    let credentials = basic("admin", PASSWORD);
    let fill = [("METHOD", method), ("TARGET", target), ("Mozilla/5.0", AGENT), (CREDENTIALS, &credentials)];
    send(site, printed, &fill)
}

#[test]
fn chapter_1_credentials_are_name_and_password_in_base64() {
    let (site, _) = site();
    let encoded = STANDARD.encode(format!("admin:{PASSWORD}"));
    let answer = site.ask("GET", "/v2/").by_nobody().header("Authorization", &format!("Basic {encoded}"));
    assert_eq!(answer.send().status, 200);
    assert_eq!(site.ask("GET", "/v2/").by_nobody().send().status, 401);
}

#[test]
fn chapter_2_lists_the_tags_of_an_image() {
    let (site, _) = site();
    let printed = r#"
        HTTP/1.1 200
        Content-Type: application/json

        {"name": "public/2048", "tags": ["latest"]}
    "#;
    answers(&curl(&site, "GET", "/v2/public/2048/tags/list"), printed);
    answers(&python(&site, "GET", "/v2/public/2048/tags/list"), printed);
}

/// The guide's own answer is an empty list; the registry protocol's, and ours unless it is
/// configured otherwise, is 404.
#[test]
fn chapter_2_lists_no_tags_of_an_image_that_is_not_there() {
    let (site, _) = site();
    curl(&site, "GET", "/v2/public/missing/tags/list").is(404, "NAME_UNKNOWN");
    let mut wishes = Wishes::default();
    wishes.http.empty_tags_for_missing = true;
    let site = site.restart_with(wishes);
    let body = json!({"name": "public/missing", "tags": []});
    let missing = curl(&site, "GET", "/v2/public/missing/tags/list");
    answers(&missing, &format!("HTTP/1.1 200\nContent-Type: application/json\n\n{body}"));
}

#[test]
fn chapter_3_lists_all_images() {
    let (site, _) = site();
    let printed = r#"
        HTTP/1.1 200
        Content-Type: application/json

        {"repositories": ["10000460xxxxx/ubuntu", "public/2048"]}
    "#;
    answers(&curl(&site, "GET", "/v2/_catalog"), printed);
    answers(&python(&site, "GET", "/v2/_catalog"), printed);
}

/// Whoever runs the class reads the digest among the headers that it prints.
#[test]
fn chapter_4_gets_a_manifest_by_tag_or_digest_whatever_is_accepted() {
    let (site, digest) = site();
    for reference in ["latest", &digest] {
        let target = format!("/v2/10000460xxxxx/ubuntu/manifests/{reference}");
        for answer in [python(&site, "GET", &target), curl(&site, "GET", &target)] {
            assert_eq!(answer.status, 200, "{answer:?}");
            assert_eq!(answer.header("content-type"), Some(OCI_MANIFEST));
            assert_eq!(answer.header("docker-content-digest"), Some(digest.as_str()));
            assert_eq!(crate::harness::sha256(&answer.body), digest);
        }
    }
}

/// The guide's curl line misspells its own host, `doceker`; of its class only the address of
/// a deletion is printed, below a `requests.get` that would merely read. It says that the
/// reference can only be a digest: here it may be a tag as well, which goes alone.
#[test]
fn chapter_5_deletes_an_image_by_its_digest() {
    for delete in [curl, python] {
        let (site, digest) = site();
        let target = format!("/v2/10000460xxxxx/ubuntu/manifests/{digest}");
        let answer = delete(&site, "DELETE", &target);
        assert_eq!((answer.status, answer.body.len()), (202, 0), "{answer:?}");
        curl(&site, "GET", &target).is(404, "MANIFEST_UNKNOWN");
        curl(&site, "GET", "/v2/10000460xxxxx/ubuntu/manifests/latest").is(404, "MANIFEST_UNKNOWN");
        assert_eq!(curl(&site, "GET", "/v2/public/2048/manifests/latest").status, 200);
        assert_eq!(delete(&site, "DELETE", "/v2/public/2048/manifests/latest").status, 202);
    }
}

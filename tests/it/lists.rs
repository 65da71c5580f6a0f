//! Tags, catalog, referrers: order, pages, links, and who sees what.

use crate::harness::{Answer, OCI_INDEX, OCI_MANIFEST, Site, Wishes, manifest, sha256};
use outport::names::RepoName;

/// Follows `Link` from page to page, as clients do, and collects a list.
fn walk(site: &Site, first: &str, key: &str) -> (Vec<String>, usize) {
    let (mut target, mut all, mut pages) = (first.to_owned(), Vec::new(), 0);
    loop {
        let answer = site.get(&target);
        assert_eq!(answer.status, 200, "{answer:?}");
        all.extend(answer.strings(key));
        pages += 1;
        match next(&answer) {
            Some(link) => target = link,
            None => return (all, pages),
        }
    }
}

fn next(answer: &Answer) -> Option<String> {
    let link = answer.header("link")?;
    let (target, rest) = link.strip_prefix('<').unwrap().split_once('>').unwrap();
    assert_eq!(rest, "; rel=\"next\"");
    Some(target.to_owned())
}

#[test]
fn tags_come_in_ascii_order_a_page_at_a_time() {
    let site = Site::new();
    let text = site.image_of("a/b", b"layer");
    let mut tags = vec!["Z", "_x", "a", "a.b", "a_b", "b-1", "v1.0", "v1.10", "v1.2", "0"];
    for tag in &tags {
        assert_eq!(site.put_manifest("a/b", tag, &text).status, 201);
    }
    tags.sort_unstable();
    assert_eq!(walk(&site, "/v2/a/b/tags/list", "tags"), (tags.iter().map(ToString::to_string).collect(), 1));
    for n in 1..=11 {
        let (all, pages) = walk(&site, &format!("/v2/a/b/tags/list?n={n}"), "tags");
        assert_eq!(all, tags, "n={n}");
        assert_eq!(pages, tags.len().div_ceil(n));
    }
    assert_eq!(site.get("/v2/a/b/tags/list?last=a.b&n=2").strings("tags"), ["a_b", "b-1"]);
    assert_eq!(site.get("/v2/a/b/tags/list?last=zz").strings("tags"), [""; 0]);
    let none = site.get("/v2/a/b/tags/list?n=0");
    assert_eq!((none.strings("tags").len(), none.header("link")), (0, None));
    assert_eq!(site.get("/v2/a/b/tags/list?n=100000000000000000000000").strings("tags").len(), 10);
}

#[test]
fn a_page_that_cannot_be_is_refused() {
    let site = Site::new();
    site.push_image("a/b", "v1", b"layer");
    for target in ["/v2/a/b/tags/list", "/v2/_catalog"] {
        for n in ["-1", "x", "1.5", "", "%20", "0x10"] {
            site.get(&format!("{target}?n={n}")).is(400, "PAGINATION_NUMBER_INVALID");
        }
        site.get(&format!("{target}?last=%0d%0aLink:%20x")).is(400, "PAGINATION_NUMBER_INVALID");
    }
}

#[test]
fn a_missing_repository_has_no_list_unless_the_configuration_says_so() {
    let site = Site::new();
    site.get("/v2/a/missing/tags/list").is(404, "NAME_UNKNOWN");
    let mut wishes = Wishes::default();
    wishes.http.empty_tags_for_missing = true;
    let site = site.restart_with(wishes);
    let answer = site.get("/v2/a/missing/tags/list");
    assert_eq!((answer.status, answer.json()), (200, serde_json::json!({"name": "a/missing", "tags": []})));
    site.push_image("a/hidden", "v1", b"layer");
    let hidden = site.ask("GET", "/v2/a/hidden/tags/list").by("bob").send();
    assert_eq!((hidden.status, hidden.strings("tags").len()), (200, 0), "as if it were missing");
    site.ask("GET", "/v2/a/hidden/tags/list").by_nobody().send().is(401, "UNAUTHORIZED");
}

#[test]
fn the_catalog_shows_each_what_they_may_read() {
    let site = Site::with(Wishes::anonymous());
    for repo in ["bob/one", "bob/two", "team/private", "team/public", "zoo"] {
        site.push_image(repo, "v1", b"layer");
    }
    site.push_blob("bob/empty", b"no image yet");
    site.registry.repo_set_private(&RepoName::parse("team/public").unwrap(), false).unwrap();
    let (all, _) = walk(&site, "/v2/_catalog?n=2", "repositories");
    assert_eq!(all, ["bob/one", "bob/two", "library/zoo", "team/private", "team/public"]);
    let bob = site.ask("GET", "/v2/_catalog").by("bob").send();
    assert_eq!(bob.strings("repositories"), ["bob/one", "bob/two", "team/public"]);
    let page = site.ask("GET", "/v2/_catalog?n=1&last=bob/one").by("bob").send();
    assert_eq!(page.strings("repositories"), ["bob/two"]);
    assert_eq!(next(&page).unwrap(), "/v2/_catalog?last=bob%2Ftwo&n=1");
}

#[test]
fn referrers_are_listed_filtered_and_paged() {
    let site = Site::new();
    let subject = site.push_image("a/b", "v1", b"layer");
    let config = site.push_blob("a/b", b"{}");
    for n in 0..7 {
        let kind = if n % 2 == 0 { "application/sbom" } else { "application/sig" };
        let text = manifest(
            &config,
            2,
            &[],
            &format!(
                r#","artifactType":"{kind}","annotations":{{"n":"{n}"}},"subject":{{"mediaType":"{OCI_MANIFEST}","digest":"{subject}","size":3}}"#
            ),
        );
        assert_eq!(site.put_manifest("a/b", &sha256(text.as_bytes()), &text).status, 201);
    }
    let all = site.get(&format!("/v2/a/b/referrers/{subject}"));
    assert_eq!((all.status, all.header("content-type")), (200, Some(OCI_INDEX)));
    let all = all.json()["manifests"].as_array().unwrap().clone();
    assert_eq!(all.len(), 7);
    assert!(all.iter().all(|entry| entry["annotations"]["n"].is_string() && entry["size"].is_u64()));
    let sboms = site.get(&format!("/v2/a/b/referrers/{subject}?artifactType=application/sbom"));
    assert_eq!(sboms.header("oci-filters-applied"), Some("artifactType"));
    assert_eq!(sboms.json()["manifests"].as_array().unwrap().len(), 4);
    let mut target = format!("/v2/a/b/referrers/{subject}?artifactType=application%2Fsbom&n=3");
    let mut found = 0;
    loop {
        let page = site.get(&target);
        assert_eq!(page.header("oci-filters-applied"), Some("artifactType"));
        found += page.json()["manifests"].as_array().unwrap().len();
        match next(&page) {
            Some(link) => target = link,
            None => break,
        }
    }
    assert_eq!(found, 4);
    for (repo, digest) in [("a/b", sha256(b"x")), ("a/none", subject.clone())] {
        let none = site.get(&format!("/v2/{repo}/referrers/{digest}"));
        assert_eq!((none.status, none.json()["manifests"].as_array().unwrap().len()), (200, 0), "never 404");
    }
    site.get("/v2/a/b/referrers/latest").is(400, "DIGEST_INVALID");
    assert_eq!(
        site.ask("DELETE", &format!("/v2/a/b/manifests/{}", all[0]["digest"].as_str().unwrap()))
            .send()
            .status,
        202
    );
    assert_eq!(
        site.get(&format!("/v2/a/b/referrers/{subject}")).json()["manifests"].as_array().unwrap().len(),
        6
    );
}

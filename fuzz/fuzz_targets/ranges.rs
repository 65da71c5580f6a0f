//! Range on a pull, and Content-Range on a push: the right bytes, or none.

#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use outport_fuzz::{Site, admin};
use std::sync::LazyLock;

#[derive(Arbitrary, Debug)]
struct Input<'a> {
    range: &'a str,
    condition: Option<&'a str>,
    content_range: &'a str,
    body: &'a [u8],
}

static LAYER: LazyLock<Vec<u8>> = LazyLock::new(|| (0..150_000u32).map(|n| (n % 251) as u8).collect());
static SITE: LazyLock<(Site, String)> = LazyLock::new(|| {
    let site = Site::new(false);
    let digest = site.push_image(&LAYER);
    (site, digest)
});

fuzz_target!(|input: Input| {
    let (site, digest) = &*SITE;
    let auth = admin();
    let range = format!("bytes={}", input.range);
    let mut fields = vec![("Authorization", auth.as_bytes()), ("Range", range.as_bytes())];
    fields.extend(input.condition.map(|etag| ("If-None-Match", etag.as_bytes())));
    let answer = site.ask("GET", &format!("/v2/team/app/blobs/{digest}"), &fields, b"");
    match answer.status {
        200 => assert_eq!(answer.body, *LAYER),
        206 => {
            let said = answer.header("content-range").expect("says which").to_owned();
            let said = said.strip_prefix("bytes ").and_then(|said| said.strip_suffix("/150000"));
            let (first, last) = said.and_then(|said| said.split_once('-')).expect("in its form");
            let first: usize = first.parse().expect("a number");
            let last: usize = last.parse().expect("a number");
            assert_eq!(answer.body, LAYER[first..=last]);
        }
        304 | 400 | 416 => {}
        other => panic!("{other}"),
    }

    let auth = ("Authorization", auth.as_bytes());
    let begun = site.ask("POST", "/v2/team/app/blobs/uploads/", &[auth], b"");
    assert_eq!(begun.status, 202);
    let to = begun.header("location").expect("says where").to_owned();
    let patched =
        site.ask("PATCH", &to, &[auth, ("Content-Range", input.content_range.as_bytes())], input.body);
    let came = if patched.status == 202 { input.body.len() } else { 0 };
    let stat = site.ask("GET", &to, &[auth], b"");
    assert_eq!(stat.status, 204);
    assert_eq!(
        stat.header("range").map(str::to_owned),
        Some(format!("0-{}", came.saturating_sub(1))),
        "{} took {:?}",
        patched.status,
        input.content_range
    );
    assert_eq!(site.ask("DELETE", &to, &[auth], b"").status, 204);
});

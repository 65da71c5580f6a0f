//! Paths and queries: every row of every dialect, asked about whatever there is to ask.

#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use outport::http::{DIALECTS, Route};
use outport_fuzz::{Site, admin};
use std::sync::LazyLock;

#[derive(Arbitrary, Debug)]
struct Input<'a> {
    row: u16,
    /// For the row's `{x}`; those that are used up are what is there.
    params: Vec<&'a str>,
    query: Vec<(Key<'a>, &'a str)>,
    raw: Option<&'a str>,
    who: bool,
}

/// Names that handlers look for, and any.
#[derive(Arbitrary, Debug, Clone, Copy)]
#[rustfmt::skip]
enum Key<'a> {
    N, Last, Page, PageSize, Ordering, Name, Digest, Mount, From, Tag, ArtifactType, Q, Query,
    Scope, Service, Account, Id, Other(&'a str),
}

impl Key<'_> {
    fn name(&self) -> String {
        match self {
            Key::PageSize => "page_size".into(),
            Key::ArtifactType => "artifactType".into(),
            Key::Other(name) => escaped(name),
            key => format!("{key:?}").to_lowercase(),
        }
    }
}

/// As it may be in a request line: of everything else, bytes with a percent sign.
fn escaped(text: &str) -> String {
    text.bytes()
        .map(|b| match b {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' | b'_' | b'-' | b':' | b'/' | b'%' => {
                char::from(b).to_string()
            }
            _ => format!("%{b:02X}"),
        })
        .collect()
}

static SITE: LazyLock<(Site, Vec<&'static Route>)> = LazyLock::new(|| {
    let site = Site::new(true);
    site.push_image(b"layer");
    let routes = DIALECTS.iter().flat_map(|dialect| dialect.routes);
    (site, routes.collect())
});

fuzz_target!(|input: Input| {
    let (site, routes) = &*SITE;
    let route = routes[usize::from(input.row) % routes.len()];
    let mut params = input.params.iter();
    let mut target = String::new();
    for part in route.path.replace("[/]", "/").split('/').skip(1) {
        target.push('/');
        match (part.starts_with('{'), params.next()) {
            (false, _) => target += part,
            (true, Some(text)) => target += &escaped(text),
            (true, None) if part == "{name*}" => target += "team/app",
            (true, None) => target += "v1",
        }
    }
    let pairs: Vec<String> =
        input.query.iter().map(|(key, value)| format!("{}={}", key.name(), escaped(value))).collect();
    let query = input.raw.map(str::to_owned).unwrap_or(pairs.join("&"));
    if !query.is_empty() {
        target = format!("{target}?{query}");
    }
    let auth = admin();
    let fields = [("Authorization", auth.as_bytes())];
    site.ask(route.method, &target, &fields[..usize::from(input.who)], b"");
});

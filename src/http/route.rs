//! The one function every request passes: fit a row, ask who, ask whether they may, run,
//! and if something failed say so in the dialect's own words.

use hyper::body::Incoming;
use hyper::header::{
    ALLOW, AUTHORIZATION, CONNECTION, CONTENT_LENGTH, HOST, HeaderName, HeaderValue, RETRY_AFTER,
    TRANSFER_ENCODING, X_CONTENT_TYPE_OPTIONS,
};
use hyper::http::request::Parts;
use hyper::{Method, Version};
use percent_encoding::percent_decode_str;
use std::borrow::Cow;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Instant;

use super::auth::{self, Caller};
use super::call::Call;
use super::reply::Reply;
use super::{App, Peer, gap, hub, index_v1, mlspace, oci, ops, token};
use crate::error::{Error, Kind, Result, Thing};
use crate::names::RepoName;
use crate::registry::Access;

/// Longest request target, in bytes; and all header fields together, and how many.
const TARGET_BYTES_MAX: usize = 8 << 10;
const HEADER_BYTES_MAX: usize = 32 << 10;
pub const HEADER_FIELDS_MAX: usize = 64;

/// What a caller must be, or be allowed, before a row's handler runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Needs {
    /// Nothing.
    Nobody,
    /// A name, or at least a token.
    Known,
    /// A name, or a token made for lists of repositories.
    Catalog,
    /// A user who may push somewhere: where to, the body says, and is asked then.
    Bring,
    /// Rights in the repository the path names.
    Pull,
    Push,
    Delete,
}

pub type Identified<'a> = Pin<Box<dyn Future<Output = Result<Caller>> + Send + 'a>>;
pub type Answer = Pin<Box<dyn Future<Output = Result<Reply>> + Send>>;

/// One row of a dialect's table.
pub struct Route {
    pub method: &'static str,
    /// `{x}` one segment, `{x*}` one or more, `[/]` at the end an optional slash.
    pub path: &'static str,
    pub needs: Needs,
    pub handler: &'static str,
    pub run: fn(Call) -> Answer,
}

/// Rows of `METHOD "path" Needs handler;`, each handler an `async fn(Call) -> Result<Reply>`.
macro_rules! routes {
    ($($method:ident $path:literal $needs:ident $handler:ident;)*) => {
        &[$($crate::http::route::Route {
            method: stringify!($method),
            path: $path,
            needs: $crate::http::route::Needs::$needs,
            handler: stringify!($handler),
            run: |call| Box::pin($handler(call)),
        }),*]
    };
}
pub(crate) use routes;

/// A way of speaking: its table, who is asking, which repository, and how it says no.
pub struct Dialect {
    pub name: &'static str,
    pub routes: &'static [Route],
    /// Reads the credentials this dialect knows.
    pub identify: for<'a> fn(&'a App, &'a Asked) -> Identified<'a>,
    /// The repository a path names, if it names one. A name that does not parse is that
    /// name's error.
    pub repo: fn(&Params) -> Option<Result<RepoName>>,
    /// Each kind's status and code, for the error matrix; the code is "" where a dialect
    /// has none.
    pub code: fn(Kind) -> (u16, &'static str),
    /// The answer to an error, in this dialect's shape.
    pub refuse: fn(&App, &Asked, &Error) -> Reply,
    /// Headers that every answer of this dialect carries.
    pub headers: &'static [(&'static str, &'static str)],
}

/// All there are, in the order they are asked. Docker Hub's addresses lie among the
/// registry's, and are few and exact: they come first.
pub static DIALECTS: [&Dialect; 7] = [
    &index_v1::DIALECT,
    &hub::DIALECT,
    &mlspace::DIALECT,
    &oci::DIALECT,
    &token::DIALECT,
    &gap::DIALECT,
    &ops::DIALECT,
];

/// A request as it was asked, without its body: what a refusal still needs when the
/// handler has taken everything else.
pub struct Asked {
    pub head: Parts,
    pub peer: Peer,
    /// It came through a proxy whose word counts.
    pub proxied: bool,
    pub request_id: String,
    pub dialect: &'static Dialect,
    /// The row that fits, if one does.
    pub route: Option<&'static Route>,
    pub params: Params,
    /// Where no row fits the method: those that the address answers.
    pub allow: Vec<&'static str>,
}

impl Asked {
    /// The repository the path names. A name that does not parse is that name's error.
    pub fn repo(&self) -> Option<Result<RepoName>> {
        (self.dialect.repo)(&self.params)
    }
}

/// Values of a path's `{x}`, percent-decoded.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Params(Vec<(&'static str, String)>);

impl Params {
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(key, _)| *key == name).map(|(_, value)| value.as_str())
    }
}

/// The repository of a `{name*}` in a path: what most dialects have.
pub fn named_repo(params: &Params) -> Option<Result<RepoName>> {
    params.get("name").map(RepoName::parse)
}

pub enum Fit {
    Found(&'static Dialect, &'static Route, Params),
    /// The address fits, the method does not; these would.
    Method(&'static Dialect, Vec<&'static str>),
    None,
}

/// The first row that fits. HEAD is answered by GET's rows.
pub fn fit(method: &Method, path: &str) -> Fit {
    let wanted = if method == Method::HEAD { "GET" } else { method.as_str() };
    let mut other: Option<(&'static Dialect, Vec<&'static str>)> = None;
    for dialect in DIALECTS {
        for route in dialect.routes {
            let Some(params) = fit_path(route.path, path) else { continue };
            if route.method == wanted {
                return Fit::Found(dialect, route, params);
            }
            // Two dialects may fit; the first refuses, and says what either would answer.
            let (_, allow) = other.get_or_insert((dialect, Vec::new()));
            let more: &[_] = if route.method == "GET" { &["GET", "HEAD"] } else { &[route.method] };
            for method in more {
                if !allow.contains(method) {
                    allow.push(method);
                }
            }
        }
    }
    match other {
        Some((dialect, allow)) => Fit::Method(dialect, allow),
        None => Fit::None,
    }
}

/// Whether a path has a row's shape, and what stands at its `{x}`.
pub fn fit_path(pattern: &'static str, path: &str) -> Option<Params> {
    let (pattern, path) = match pattern.strip_suffix("[/]") {
        Some(pattern) => (pattern, path.strip_suffix('/').unwrap_or(path)),
        None => (pattern, path),
    };
    // Each request meets each row until one fits, and most differ early.
    let mut fixed = pattern.bytes().zip(path.bytes()).take_while(|(want, _)| *want != b'{');
    if fixed.any(|(want, has)| want != has) {
        return None;
    }
    let slashes = |text: &str| text.bytes().filter(|letter| *letter == b'/').count();
    let spare = slashes(path).checked_sub(slashes(pattern))?;
    if spare > 0 && !pattern.contains("*}") {
        return None;
    }
    let fits = |(want, part): (&'static str, &str)| match param(want) {
        // Nothing has no name: `/v2/a/blobs/uploads/` is where uploads begin, and none of them.
        Some(_) => !part.is_empty(),
        None => part == want,
    };
    if !parts(pattern, path, spare).all(fits) {
        return None;
    }
    let value = |(want, part): (&'static str, &str)| {
        let decoded: Vec<_> = part.split('/').map(decode).collect();
        Some((param(want)?, decoded.join("/")))
    };
    Some(Params(parts(pattern, path, spare).filter_map(value).collect()))
}

/// The segments of a pattern, each with what stands in its place. A star takes what the other
/// segments leave, `spare` more than one: there is at most one in a row.
fn parts<'a>(
    pattern: &'static str,
    path: &'a str,
    spare: usize,
) -> impl Iterator<Item = (&'static str, &'a str)> {
    let mut rest = path;
    pattern.split('/').map(move |want| {
        let more = if want.ends_with("*}") { spare } else { 0 };
        let end = rest.match_indices('/').nth(more).map_or(rest.len(), |(at, _)| at);
        let part = &rest[..end];
        rest = rest.get(end + 1..).unwrap_or_default();
        (want, part)
    })
}

/// The name of a `{x}` or `{x*}`; None for a segment that is a word.
fn param(segment: &'static str) -> Option<&'static str> {
    let name = segment.strip_prefix('{')?.strip_suffix('}')?;
    Some(name.trim_end_matches('*'))
}

/// A segment as it was meant. One that smuggles a slash in stays as it is, and parses as nothing.
fn decode(segment: &str) -> Cow<'_, str> {
    match percent_decode_str(segment).decode_utf8_lossy() {
        decoded if decoded.contains('/') => Cow::Borrowed(segment),
        decoded => decoded,
    }
}

/// Answers one request. Never fails: what goes wrong becomes an answer.
pub async fn answer(app: Arc<App>, peer: Peer, head: Parts, body: Incoming) -> Reply {
    let started = Instant::now();
    let (dialect, route, params, allow) = match fit(&head.method, head.uri.path()) {
        Fit::Found(dialect, route, params) => (dialect, Some(route), params, Vec::new()),
        Fit::Method(dialect, allow) => (dialect, None, Params::default(), allow),
        Fit::None => (dialect_of(head.uri.path()), None, Params::default(), Vec::new()),
    };
    let request_id = app.request_id();
    let proxied = app.options().trusted_proxies.contains(&peer.address);
    let peer = app.client(peer, &head);
    let asked = Arc::new(Asked { head, peer, proxied, request_id, dialect, route, params, allow });

    let mut reply = match serve(&app, &asked, body).await {
        Ok(reply) => reply,
        Err(error) => refuse(dialect, &app, &asked, &error),
    };
    let headers = reply.headers_mut();
    for (name, value) in dialect.headers {
        headers.insert(*name, HeaderValue::from_static(value));
    }
    // What somebody pushed is not what its first bytes look like to a browser.
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if let Ok(value) = HeaderValue::from_str(&asked.request_id) {
        headers.insert("x-request-id", value);
    }
    log(&asked, &reply, started);
    reply
}

/// A request's way to its handler. The body is not touched before permission is settled,
/// so a refusal goes out before `100 Continue`.
async fn serve(app: &Arc<App>, asked: &Arc<Asked>, body: Incoming) -> Result<Reply> {
    check_head(&asked.head)?;
    let Some(route) = asked.route else {
        let fits = !asked.allow.is_empty();
        return Err(if fits { Kind::Method } else { Kind::NotFound(Thing::Route) }.into());
    };
    let repo = asked.repo().transpose()?;
    let caller = match route.needs {
        Needs::Nobody => Caller::default(),
        _ => (asked.dialect.identify)(app, asked).await?,
    };
    let access = match route.needs {
        Needs::Nobody => None,
        Needs::Known if caller.is_known() => None,
        Needs::Catalog if caller.may_list() => None,
        Needs::Catalog if caller.is_known() => return Err(Kind::TokenTooNarrow.into()),
        Needs::Bring if caller.may_bring() => None,
        Needs::Bring if caller.user.is_some() => return Err(Kind::Denied.into()),
        Needs::Known | Needs::Catalog | Needs::Bring => return Err(Kind::Unauthorized.into()),
        Needs::Pull => Some(Access::Pull),
        Needs::Push => Some(Access::Push),
        Needs::Delete => Some(Access::Delete),
    };
    if let Some(access) = access {
        // A row that demands a right in a repository and names none lets nobody in.
        auth::permit(app, &caller, access, repo.as_ref().ok_or(Kind::Denied)?)?;
    }
    (route.run)(Call::new(app.clone(), asked.clone(), caller, repo, body)).await
}

fn refuse(dialect: &Dialect, app: &App, asked: &Asked, error: &Error) -> Reply {
    let (id, method, path) = (&asked.request_id, &asked.head.method, asked.head.uri.path());
    if error.kind.is_ours() {
        tracing::error!(id, %method, path, ?error, "failed");
    } else {
        tracing::debug!(id, %method, path, ?error, "refused");
    }
    let mut reply = (dialect.refuse)(app, asked, error);
    let headers = reply.headers_mut();
    if !asked.allow.is_empty()
        && let Ok(value) = HeaderValue::from_str(&asked.allow.join(", "))
    {
        headers.insert(ALLOW, value);
    }
    if let Kind::TooMany { retry_secs } = error.kind {
        headers.insert(RETRY_AFTER, HeaderValue::from(retry_secs));
    }
    // The body that was announced will not be read, or the head is not to be trusted.
    let head = &asked.head.headers;
    let announced =
        head.contains_key(TRANSFER_ENCODING) || head.get(CONTENT_LENGTH).is_some_and(|len| len != "0");
    let dubious = matches!(error.kind, Kind::Invalid(Thing::Request) | Kind::UriTooLong | Kind::HeadTooLarge);
    if announced || dubious {
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    reply
}

/// Whose words an address that nobody serves is refused in.
fn dialect_of(path: &str) -> &'static Dialect {
    let below = |root| path.strip_prefix(root).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    if below("/v1") {
        &index_v1::DIALECT
    } else if below("/v2/repositories") || below("/v2/namespaces") {
        // No repository has a name that begins like this.
        &hub::DIALECT
    } else if below("/public") {
        &mlspace::DIALECT
    } else if below("/v2") {
        &oci::DIALECT
    } else {
        &ops::DIALECT
    }
}

/// Refuses heads that two readers could read two ways (RFC 9112 §3.2, §6.1), and those
/// beyond our limits.
fn check_head(head: &Parts) -> Result<()> {
    let target = head.uri.path_and_query().map_or(0, |target| target.as_str().len());
    if target > TARGET_BYTES_MAX {
        return Err(Kind::UriTooLong.into());
    }
    let fields = &head.headers;
    let bytes: usize = fields.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
    if fields.len() > HEADER_FIELDS_MAX || bytes > HEADER_BYTES_MAX {
        return Err(Kind::HeadTooLarge.into());
    }
    let refuse = |why: &'static str| Err(Kind::Invalid(Thing::Request).because(why));
    let count = |name: HeaderName| fields.get_all(name).iter().count();
    if count(HOST) > 1 || (count(HOST) == 0 && head.version == Version::HTTP_11) {
        return refuse("a request has exactly one Host header");
    }
    if count(TRANSFER_ENCODING) > 0 && count(CONTENT_LENGTH) > 0 {
        return refuse("a request has a Content-Length or a Transfer-Encoding, not both");
    }
    if count(TRANSFER_ENCODING) > 1 || count(CONTENT_LENGTH) > 1 || count(AUTHORIZATION) > 1 {
        return refuse("Transfer-Encoding, Content-Length and Authorization may be sent once each");
    }
    // It is sent back in addresses.
    let host_letter = |b: &u8| b.is_ascii_alphanumeric() || b".:-_[]".contains(b);
    if !fields.get(HOST).is_none_or(|host| host.as_bytes().iter().all(host_letter)) {
        return refuse("the Host header does not parse");
    }
    let encoding = fields.get(TRANSFER_ENCODING).map(HeaderValue::as_bytes);
    if encoding.is_some_and(|encoding| !encoding.eq_ignore_ascii_case(b"chunked")) {
        return refuse("the only Transfer-Encoding taken is chunked");
    }
    Ok(())
}

/// One line a request. What changes something is worth a line in the journal; pulls and
/// strangers at the door are not, for a journal on flash wears it out.
fn log(asked: &Asked, reply: &Reply, started: Instant) {
    /// Longest path shown. No repository's own is longer.
    const PATH_MAX: usize = 400;
    let (method, path) = (&asked.head.method, asked.head.uri.path());
    let path = path.get(..PATH_MAX).unwrap_or(path);
    let status = reply.status().as_u16();
    let (id, peer) = (&asked.request_id, asked.peer.address);
    let ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    let reads = matches!(*method, Method::GET | Method::HEAD);
    if reads || status == 401 {
        tracing::debug!(id, %peer, %method, path, status, ms, "answered");
    } else {
        tracing::info!(id, %peer, %method, path, status, ms, "answered");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(pattern: &'static str, path: &str) -> Option<Vec<String>> {
        fit_path(pattern, path).map(|params| params.0.into_iter().map(|(_, value)| value).collect())
    }

    #[test]
    fn a_star_takes_what_the_other_segments_leave() {
        let tags = "/v2/{name*}/tags/list";
        assert_eq!(values(tags, "/v2/a/tags/list"), Some(vec!["a".into()]));
        assert_eq!(values(tags, "/v2/a/b/c/tags/list"), Some(vec!["a/b/c".into()]));
        assert_eq!(values(tags, "/v2/tags/list"), None);
        assert_eq!(values(tags, "/v2/a/tags/lists"), None);
        let manifest = "/v2/{name*}/manifests/{reference}";
        assert_eq!(
            values(manifest, "/v2/a/manifests/b/manifests/latest"),
            Some(vec!["a/manifests/b".into(), "latest".into()])
        );
    }

    #[test]
    fn segments_are_decoded_after_the_path_is_cut() {
        let manifest = "/v2/{name*}/manifests/{reference}";
        assert_eq!(
            values(manifest, "/v2/a%2f..%2fb/manifests/sha256%3Aab"),
            Some(vec!["a%2f..%2fb".into(), "sha256:ab".into()])
        );
        assert_eq!(values(manifest, "/v2/a/manifests/%ff"), Some(vec!["a".into(), "\u{fffd}".into()]));
    }

    #[test]
    fn no_value_is_empty() {
        assert_eq!(values("/v2/{name*}/blobs/uploads/{upload}", "/v2/a/blobs/uploads/"), None);
        assert_eq!(values("/v2/{name*}/tags/list", "/v2//tags/list"), None);
        assert_eq!(values("/v1/users/{user}[/]", "/v1/users//"), None);
        assert_eq!(values("/v2/{name*}/tags/list", "/v2/a//b/tags/list"), Some(vec!["a//b".into()]));
    }

    #[test]
    fn a_slash_at_the_end_is_optional_only_where_the_row_says_so() {
        assert!(fit_path("/v2[/]", "/v2").is_some());
        assert!(fit_path("/v2[/]", "/v2/").is_some());
        assert!(fit_path("/v2[/]", "/v2//").is_none());
        assert!(fit_path("/v2/_catalog", "/v2/_catalog/").is_none());
        assert_eq!(values("/v2/{name*}/blobs/uploads[/]", "/v2/a/blobs/uploads/"), Some(vec!["a".into()]));
    }

    #[test]
    fn a_wrong_method_is_told_the_right_ones() {
        match fit(&Method::POST, "/v2/a/tags/list") {
            Fit::Method(dialect, allow) => {
                assert_eq!((dialect.name, allow), ("oci", vec!["GET", "HEAD"]));
            }
            _ => panic!("the address is served"),
        }
        assert!(matches!(fit(&Method::GET, "/nowhere"), Fit::None));
    }
}

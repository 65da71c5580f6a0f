//! Other registries, asked as a client by the OCI distribution protocol: Docker Hub, Harbor,
//! another Outport.
//!
//! Nothing that comes from there is believed: manifests and blobs are hashed, lengths and
//! addresses are limited, and secrets go to the server alone that they are for. What fails for a
//! while is tried again ([`retry`]); what breaks goes on where it was ([`download`], [`upload`]).

mod address;
mod challenge;
mod download;
mod helper;
mod login;
mod net;
mod proxy;
mod retry;
mod select;
mod upload;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use hyper::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue, LINK, LOCATION};
use hyper::{Method, StatusCode};
use serde::Deserialize;
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

use crate::error::{Error, Kind, Result, Thing};
use crate::hash::digest_of;
use crate::manifest::{self, MANIFEST_BYTES_MAX, Manifest};
use crate::names::{Algorithm, Digest, Reference, RepoName, Tag};
use address::{Origin, Url};
use challenge::Challenge;
use net::{Answer, Net, Outgoing, Rate};
use retry::{Failed, Patience, Tried, persevere, retry_after};

pub use address::{Endpoint, Host, ImageName};
pub use download::{Blob, Fetch, Wanted};
pub use login::{Login, Logins};
pub use net::Times;
pub use proxy::Proxies;
pub use retry::Waiter;
pub use select::{Select, Selection};
pub use upload::{Begun, Upload};

/// Most redirects of one request. Registries send to an object store, which may send on once.
const REDIRECTS_MAX: usize = 5;
/// Longest answer of a token service, and longest token: 8 KiB is what servers take in a field.
const TOKEN_ANSWER_MAX: usize = 256 << 10;
const TOKEN_MAX: usize = 16 << 10;
/// How long a token is good that does not say (Docker's token document), and how long before
/// its end a new one is fetched.
const TOKEN_TIME: Duration = Duration::from_secs(60);
const TOKEN_SPARE: Duration = Duration::from_secs(10);
/// Longest refusal that is read for its reason, and longest reason that is told.
const REFUSAL_MAX: usize = 16 << 10;
const REASON_MAX: usize = 300;
/// Most pages of a list of referrers or tags, and longest page.
const PAGES_MAX: usize = 200;
const PAGE_BYTES_MAX: usize = MANIFEST_BYTES_MAX;

/// What a client is made of.
pub struct Options {
    /// Authorities to trust instead of the system's, PEM.
    pub ca: Option<PathBuf>,
    pub logins: Logins,
    pub proxies: Proxies,
    /// Bytes a second for what is sent.
    pub rate: Option<u64>,
    pub times: Times,
    pub waiter: Waiter,
}

impl Options {
    /// The system's authorities, no logins, no proxies, no limit, and silent waiting.
    pub fn usual() -> Options {
        Options {
            ca: None,
            logins: Logins::default(),
            proxies: Proxies::default(),
            rate: None,
            times: Times::default(),
            waiter: net::silently(),
        }
    }
}

/// Connections, logins and patience, shared by all repositories that are asked.
pub struct Client {
    net: Arc<Net>,
    logins: Logins,
    rate: Option<Arc<Rate>>,
    waiter: Waiter,
}

/// What a request is for: the scope of its token.
#[derive(Debug, Clone, Copy)]
enum Access<'a> {
    Pull,
    Push,
    /// A push that may take what another repository has.
    Mount(&'a RepoName),
}

/// What opens a repository.
#[derive(Clone, PartialEq, Eq)]
enum Pass {
    Basic,
    Token { token: String, until: Instant },
}

/// One repository of another registry.
pub struct Remote {
    client: Arc<Client>,
    endpoint: Endpoint,
    origin: Origin,
    repo: RepoName,
    login: Option<Login>,
    hasty: bool,
    /// By scope.
    passes: Mutex<HashMap<String, Pass>>,
    /// One of many requests fetches a token, the others wait for it.
    fetching: tokio::sync::Mutex<()>,
}

/// A manifest that was fetched and has its digest.
pub struct Fetched {
    pub digest: Digest,
    pub bytes: Bytes,
    pub manifest: Manifest,
}

impl Client {
    pub fn new(options: Options) -> Result<Arc<Client>> {
        let rate = options.rate.map(|rate| Arc::new(Rate::new(rate)));
        let net = Arc::new(Net::new(options.ca.as_deref(), options.proxies, options.times)?);
        Ok(Arc::new(Client { net, logins: options.logins, rate, waiter: options.waiter }))
    }

    pub fn remote(self: &Arc<Client>, endpoint: &Endpoint, repo: &RepoName) -> Result<Arc<Remote>> {
        self.open(endpoint, repo, false)
    }

    /// A repository that others have as well: what fails there is not tried again.
    pub fn mirror(self: &Arc<Client>, endpoint: &Endpoint, repo: &RepoName) -> Result<Arc<Remote>> {
        self.open(endpoint, repo, true)
    }

    fn open(self: &Arc<Client>, endpoint: &Endpoint, repo: &RepoName, hasty: bool) -> Result<Arc<Remote>> {
        Ok(Arc::new(Remote {
            hasty,
            client: self.clone(),
            origin: endpoint.origin(),
            endpoint: endpoint.clone(),
            repo: repo.clone(),
            login: self.logins.find(&endpoint.host, repo)?,
            passes: Mutex::default(),
            fetching: tokio::sync::Mutex::default(),
        }))
    }
}

impl Remote {
    /// The image that is named, or None if the registry has none.
    pub async fn manifest(&self, reference: &Reference) -> Result<Option<Fetched>> {
        persevere(self.patience(), || self.manifest_once(reference)).await
    }

    async fn manifest_once(&self, reference: &Reference) -> Tried<Option<Fetched>> {
        let mut headers = HeaderMap::new();
        for media_type in manifest::ACCEPTED {
            headers.append(ACCEPT, HeaderValue::from_static(media_type));
        }
        let url = self.url(&format!("manifests/{reference}"));
        let mut answer = self.send(&Method::GET, &url, &headers, Bytes::new(), Access::Pull).await?;
        match answer.status {
            StatusCode::OK => {}
            StatusCode::NOT_FOUND => {
                answer.dismiss().await;
                return Ok(None);
            }
            _ => return Err(self.refused(answer, &format!("the image {reference}")).await),
        }
        let media_type = answer.header(CONTENT_TYPE).map(str::to_owned);
        let bytes = answer.bytes(MANIFEST_BYTES_MAX, "a manifest").await?;
        let algorithm = match reference {
            Reference::Digest(digest) => digest.algorithm(),
            Reference::Tag(_) => Algorithm::Sha256,
        };
        let digest = digest_of(algorithm, &bytes);
        if let Reference::Digest(asked) = reference
            && *asked != digest
        {
            let why = format!("{self} sends a manifest of digest {digest} for {asked}");
            return Err(Failed::Surely(Kind::DigestMismatch.because(why)));
        }
        let manifest = manifest::read(&bytes, media_type.as_deref()).map_err(|error| {
            Failed::Surely(
                error.kind.because(format!("the image {self} {reference} cannot be used: {error}")),
            )
        })?;
        Ok(Some(Fetched { digest, bytes: bytes.into(), manifest }))
    }

    /// Whether there is such a manifest, without fetching it: Docker Hub counts what is fetched.
    pub async fn has_manifest(&self, reference: &Reference) -> Result<bool> {
        let mut headers = HeaderMap::new();
        for media_type in manifest::ACCEPTED {
            headers.append(ACCEPT, HeaderValue::from_static(media_type));
        }
        let url = self.url(&format!("manifests/{reference}"));
        self.has(&url, &headers, "an image").await
    }

    pub async fn has_blob(&self, digest: &Digest) -> Result<bool> {
        self.has(&self.url(&format!("blobs/{digest}")), &HeaderMap::new(), "a blob").await
    }

    async fn has(&self, url: &Url, headers: &HeaderMap, what: &str) -> Result<bool> {
        persevere(self.patience(), || async {
            let answer = self.send(&Method::HEAD, url, headers, Bytes::new(), Access::Pull).await?;
            match answer.status {
                StatusCode::OK => Ok(true),
                StatusCode::NOT_FOUND => Ok(false),
                _ => Err(self.refused(answer, what).await),
            }
        })
        .await
    }

    /// The manifests that are about another: signatures, SBOMs. By the referrers API, or by the
    /// tag that clients keep them under where a registry has none of it (OCI 1.1).
    pub async fn referrers(&self, subject: &Digest) -> Result<Vec<Digest>> {
        let mut url = self.url(&format!("referrers/{subject}"));
        let mut found = Vec::new();
        for _ in 0..PAGES_MAX {
            let page = persevere(self.patience(), || async {
                let mut answer =
                    self.send(&Method::GET, &url, &HeaderMap::new(), Bytes::new(), Access::Pull).await?;
                match answer.status {
                    StatusCode::OK => {
                        let next = next_page(&answer, &url)?;
                        let is_index = answer
                            .header(CONTENT_TYPE)
                            .is_some_and(|said| said.starts_with(manifest::OCI_INDEX));
                        let bytes = answer.bytes(PAGE_BYTES_MAX, "a list of referrers").await?;
                        // Servers that know nothing of this answer all kinds of things with 200.
                        let index =
                            manifest::read(&bytes, Some(manifest::OCI_INDEX)).ok().filter(|_| is_index);
                        Ok(index.map(|index| (index.children, next)))
                    }
                    status if is_passing(status) => Err(self.refused(answer, "the referrers").await),
                    _ => {
                        answer.dismiss().await;
                        Ok(None)
                    }
                }
            })
            .await?;
            match page {
                None => break,
                Some((children, next)) => {
                    found.extend(children);
                    match next {
                        Some(next) => url = next,
                        None => return Ok(found),
                    }
                }
            }
        }
        let tag = Tag::parse(&subject.as_str().replacen(':', "-", 1))?;
        let listed = self.manifest(&Reference::Tag(tag)).await?;
        Ok(listed.map(|listed| listed.manifest.children).unwrap_or_default())
    }

    /// Puts a manifest whose blobs and children are there.
    pub async fn manifest_put(&self, reference: &Reference, media_type: &str, bytes: &Bytes) -> Result<()> {
        let url = self.url(&format!("manifests/{reference}"));
        let mut headers = HeaderMap::new();
        let media_type =
            HeaderValue::from_str(media_type).map_err(|error| Kind::Internal.from_cause(error))?;
        headers.insert(CONTENT_TYPE, media_type);
        persevere(self.patience(), || async {
            let answer = self.send(&Method::PUT, &url, &headers, bytes.clone(), Access::Push).await?;
            match answer.status {
                StatusCode::CREATED | StatusCode::OK | StatusCode::ACCEPTED => {
                    answer.dismiss().await;
                    Ok(())
                }
                _ => Err(self.refused(answer, &format!("the image {reference}")).await),
            }
        })
        .await
    }

    fn patience(&self) -> Patience {
        if self.hasty { Patience::none(&self.client.waiter) } else { Patience::new(&self.client.waiter) }
    }

    pub fn repo(&self) -> &RepoName {
        &self.repo
    }

    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// An address below this repository. Docker Hub alone has names without a slash in `library`.
    fn url(&self, below: &str) -> Url {
        self.origin.at(format!("/v2/{}/{below}", self.path(&self.repo)))
    }

    fn path<'a>(&self, repo: &'a RepoName) -> &'a str {
        if self.endpoint.host.is_hub() { repo.full() } else { repo.asked() }
    }

    /// A request with its login; redirects of reads are followed. Any status is an answer.
    async fn send(
        &self,
        method: &Method,
        url: &Url,
        headers: &HeaderMap,
        body: Bytes,
        access: Access<'_>,
    ) -> Tried<Answer> {
        let scope = self.scope(access);
        let mut pass = self.pass(&scope);
        let mut fresh = false;
        loop {
            let body = || Outgoing::bytes(body.clone(), self.client.rate.clone());
            let answer = self.follow(method, url, headers, body, pass.as_ref()).await?;
            // Where we were sent to, nobody is to know us.
            if answer.status != StatusCode::UNAUTHORIZED || fresh || *answer.origin() != self.origin {
                return Ok(answer);
            }
            let challenges = challenge::of(&answer.headers);
            match self.meet(&challenges, &scope, pass.as_ref()).await? {
                Some(new) => pass = Some(new),
                None => return Ok(answer),
            }
            fresh = true;
            answer.dismiss().await;
        }
    }

    /// The same for a body that can be sent once: with the login that worked before.
    async fn send_once(
        &self,
        method: &Method,
        url: &Url,
        headers: &HeaderMap,
        body: Outgoing,
        access: Access<'_>,
    ) -> Tried<Answer> {
        let mut headers = headers.clone();
        self.authorize(&mut headers, url, self.pass(&self.scope(access)).as_ref())?;
        self.client.net.send(method, url, &headers, body).await
    }

    async fn follow(
        &self,
        method: &Method,
        url: &Url,
        headers: &HeaderMap,
        body: impl Fn() -> Outgoing,
        pass: Option<&Pass>,
    ) -> Tried<Answer> {
        let is_read = matches!(*method, Method::GET | Method::HEAD);
        let mut url = url.clone();
        for _ in 0..=REDIRECTS_MAX {
            let mut headers = headers.clone();
            self.authorize(&mut headers, &url, pass)?;
            let answer = self.client.net.send(method, &url, &headers, body()).await?;
            let location = answer.header(LOCATION).filter(|_| is_read && answer.status.is_redirection());
            let Some(location) = location else { return Ok(answer) };
            url = url.join(location)?;
            answer.dismiss().await;
        }
        let why = format!("{} redirects more than {REDIRECTS_MAX} times", self.origin);
        Err(Failed::Surely(Kind::Unavailable.because(why)))
    }

    /// Secrets go to the registry itself and to nobody it sends us to.
    fn authorize(&self, headers: &mut HeaderMap, url: &Url, pass: Option<&Pass>) -> Result<()> {
        if url.origin != self.origin {
            return Ok(());
        }
        let text = match (pass, &self.login) {
            (Some(Pass::Token { token, .. }), _) => format!("Bearer {token}"),
            (Some(Pass::Basic), Some(Login::Password { user, password })) => basic(user, password),
            _ => return Ok(()),
        };
        headers.insert(AUTHORIZATION, secret(&text)?);
        Ok(())
    }

    fn pass(&self, scope: &str) -> Option<Pass> {
        let passes = self.passes.lock().unwrap_or_else(PoisonError::into_inner);
        // A registry that takes Basic takes it for everything.
        let pass = passes.get(scope).or_else(|| passes.values().find(|pass| **pass == Pass::Basic));
        pass.filter(|pass| !matches!(pass, Pass::Token { until, .. } if *until <= Instant::now())).cloned()
    }

    fn scope(&self, access: Access) -> String {
        let own = self.path(&self.repo);
        match access {
            Access::Pull => format!("repository:{own}:pull"),
            Access::Push => format!("repository:{own}:pull,push"),
            Access::Mount(from) => format!("repository:{own}:pull,push repository:{}:pull", self.path(from)),
        }
    }

    /// Gets what a challenge asks for, other than what was just refused; None if there is nothing.
    async fn meet(
        &self,
        challenges: &[Challenge],
        scope: &str,
        refused: Option<&Pass>,
    ) -> Tried<Option<Pass>> {
        let _turn = self.fetching.lock().await;
        let known = self.pass(scope);
        if known.is_some() && known.as_ref() != refused {
            return Ok(known);
        }
        let bearer = challenges.iter().find_map(|challenge| match challenge {
            Challenge::Bearer { realm, service, scope: asked } => Some((realm, service, asked)),
            Challenge::Basic => None,
        });
        let pass = match bearer {
            Some((realm, service, asked)) => {
                self.token(realm, service.as_deref(), scope, asked.as_deref()).await?
            }
            None => {
                let can = matches!(self.login, Some(Login::Password { .. }))
                    && challenges.contains(&Challenge::Basic);
                if !can || refused == Some(&Pass::Basic) {
                    return Ok(None);
                }
                Pass::Basic
            }
        };
        self.passes.lock().unwrap_or_else(PoisonError::into_inner).insert(scope.to_owned(), pass.clone());
        Ok(Some(pass))
    }

    /// Asks a token service (Docker's token and OAuth2 documents).
    async fn token(
        &self,
        realm: &str,
        service: Option<&str>,
        scope: &str,
        asked: Option<&str>,
    ) -> Tried<Pass> {
        let mut url = Url::parse(realm)?;
        // The registry says where a password is to be sent to, so at least the line must be safe.
        if self.origin.https && !url.origin.https {
            let why = format!(
                "{} asks for logins at {}, by plain HTTP: nothing was sent there",
                self.origin, url.origin
            );
            return Err(Failed::Surely(Kind::Unauthorized.because(why)));
        }
        // What we need, and what else the registry says that it wants.
        let mut scopes: Vec<&str> = scope.split(' ').collect();
        for more in asked.unwrap_or_default().split(' ').filter(|more| !more.is_empty()) {
            if !scopes.contains(&more) {
                scopes.push(more);
            }
        }
        let mut headers = HeaderMap::new();
        let mut form = Vec::new();
        match &self.login {
            Some(Login::Refresh(token)) => {
                let mut fields = form_urlencoded::Serializer::new(String::new());
                fields.append_pair("grant_type", "refresh_token").append_pair("refresh_token", token);
                fields.append_pair("client_id", "outport").append_pair("scope", &scopes.join(" "));
                fields.append_pair("service", service.unwrap_or_default());
                form = fields.finish().into_bytes();
                headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"));
            }
            login => {
                if let Some(service) = service {
                    url = url.with_query("service", service);
                }
                for scope in scopes {
                    url = url.with_query("scope", scope);
                }
                if let Some(Login::Password { user, password }) = login {
                    headers.insert(AUTHORIZATION, secret(&basic(user, password))?);
                }
            }
        }
        let method = if form.is_empty() { Method::GET } else { Method::POST };
        let body = Outgoing::bytes(form.into(), None);
        let mut answer = self.client.net.send(&method, &url, &headers, body).await?;
        if answer.status != StatusCode::OK {
            return Err(self.refused(answer, "a token").await);
        }
        #[derive(Deserialize)]
        struct Body {
            token: Option<String>,
            access_token: Option<String>,
            expires_in: Option<u64>,
        }
        let text = answer.bytes(TOKEN_ANSWER_MAX, "a token").await?;
        let unusable = || {
            Failed::Surely(
                Kind::Unauthorized.because(format!("{} answers with no token that can be used", url.origin)),
            )
        };
        // Not what was wrong with it: a token is a secret.
        let body: Body = serde_json::from_slice(&text).map_err(|_| unusable())?;
        let token = body.token.or(body.access_token).filter(|token| (1..=TOKEN_MAX).contains(&token.len()));
        let time = body.expires_in.map_or(TOKEN_TIME, |secs| Duration::from_secs(secs.min(86_400)));
        let until = Instant::now() + time.max(TOKEN_TIME).saturating_sub(TOKEN_SPARE);
        Ok(Pass::Token { token: token.ok_or_else(unusable)?, until })
    }

    /// What an answer that is none of those hoped for means.
    async fn refused(&self, mut answer: Answer, what: &str) -> Failed {
        let status = answer.status;
        let asked = retry_after(&answer.headers);
        let at = answer.origin().clone();
        let (code, reason) = reason(&answer.bytes(REFUSAL_MAX, "a refusal").await.unwrap_or_default());
        let said = match reason.is_empty() {
            true => format!("{status}"),
            false => format!("{status}: {reason}"),
        };
        let who = self.login.as_ref().map(Login::who);
        let (kind, sentence) = match status {
            StatusCode::UNAUTHORIZED if who.is_none() => (
                Kind::Unauthorized,
                format!(
                    "{at} wants a login for {self}: give --user NAME, or log in with docker or podman ({said})"
                ),
            ),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                let who = who.map_or_else(|| "whoever has no login".to_owned(), |who| format!("{who:?}"));
                (Kind::Denied, format!("{at} refuses {who} {what} of {self} ({said})"))
            }
            StatusCode::NOT_FOUND => (Kind::NotFound(Thing::Blob), format!("{self} has not {what} ({said})")),
            StatusCode::TOO_MANY_REQUESTS => {
                let advice = match (who, self.endpoint.host.is_hub()) {
                    (None, true) => "; Docker Hub allows more to whoever logs in, with --user",
                    _ => "",
                };
                (
                    Kind::TooMany { retry_secs: asked.map_or(0, |wait| wait.as_secs()) },
                    format!("{at} has had too many requests ({said}){advice}"),
                )
            }
            _ if code == "MANIFEST_BLOB_UNKNOWN" => (
                Kind::BlobMissing,
                format!("{self} refuses {what}: something it names is missing there ({said})"),
            ),
            _ => (Kind::Unavailable, format!("{at} does not give or take {what} of {self} ({said})")),
        };
        let error = kind.because(sentence);
        if is_passing(status) { Failed::Passing(error, asked) } else { Failed::Surely(error) }
    }
}

impl std::fmt::Display for Remote {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.endpoint.host, self.repo)
    }
}

/// Statuses that another time may be others.
fn is_passing(status: StatusCode) -> bool {
    matches!(status.as_u16(), 408 | 425 | 429 | 500 | 502 | 503 | 504)
}

fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))
}

fn secret(text: &str) -> Result<HeaderValue> {
    let mut value = HeaderValue::from_str(text)
        .map_err(|_| Kind::Unauthorized.because("a token holds characters that cannot be sent"))?;
    value.set_sensitive(true);
    Ok(value)
}

/// The first error's code and message, as registries or token services shape them; printable.
fn reason(body: &[u8]) -> (String, String) {
    let body: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
    let text = |value: &serde_json::Value| {
        let text = value.as_str().unwrap_or_default();
        text.chars().filter(|c| !c.is_control()).take(REASON_MAX).collect::<String>()
    };
    let first = &body["errors"][0];
    let said =
        [&first["message"], &body["details"], &body["error_description"], &body["message"], &body["error"]];
    let message = said.into_iter().map(text).find(|text| !text.is_empty());
    (text(&first["code"]), message.unwrap_or_default())
}

/// Where a list goes on (`Link: <…>; rel="next"`): never elsewhere.
fn next_page(answer: &Answer, from: &Url) -> Result<Option<Url>> {
    let next = answer.header(LINK).filter(|link| link.contains("rel=\"next\"") || link.contains("rel=next"));
    let target = next.and_then(|link| link.strip_prefix('<')?.split_once('>')).map(|(target, _)| target);
    match target.map(|target| from.join(target)).transpose()? {
        Some(next) if next.origin != from.origin => {
            Err(Kind::Unavailable.because(format!("{} continues its list at another server", from.origin)))
        }
        next => Ok(next),
    }
}

/// Writes an error of the middle of a stream for those who read files.
impl From<Error> for std::io::Error {
    fn from(error: Error) -> std::io::Error {
        std::io::Error::other(error)
    }
}

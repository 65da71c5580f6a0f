//! The OCI distribution API, `/v2/…` (opencontainers/distribution-spec, 1.1 and 1.2-dev).

use hyper::StatusCode;
use hyper::header::{
    ACCEPT_RANGES, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, HeaderName, IF_NONE_MATCH, IF_RANGE,
    LINK, LOCATION, RANGE, WWW_AUTHENTICATE,
};
use serde::Serialize;
use serde_json::json;
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::sync::Arc;

use super::App;
use super::auth;
use super::call::Call;
use super::reply::{self, BlobBody, Body, JSON, Reply};
use super::route::{Asked, Dialect, Needs, Route, named_repo, routes};
use crate::error::{Error, Kind, Result, Thing};
use crate::manifest::{MANIFEST_BYTES_MAX, OCI_INDEX};
use crate::names::{Algorithm, Digest, Reference, RepoName, Tag, UploadId};
use crate::registry::{Access, BlobReader, ManifestPush, PAGE_MAX, Page, Piece, Registry, Upload};

pub static DIALECT: Dialect = Dialect {
    name: "oci",
    routes: ROUTES,
    identify: |app, asked| Box::pin(auth::identify(app, asked)),
    repo: named_repo,
    code,
    refuse: refusal,
    headers: &[("docker-distribution-api-version", "registry/2.0")],
};

#[rustfmt::skip]
const ROUTES: &[Route] = routes! {
    GET    "/v2[/]"                                  Known   version;
    GET    "/v2/_catalog"                            Catalog catalog;
    GET    "/v2/{name*}/tags/list"                   Pull    tags;
    GET    "/v2/{name*}/referrers/{digest}"          Pull    referrers;
    GET    "/v2/{name*}/manifests/{reference}"       Pull    manifest_get;
    PUT    "/v2/{name*}/manifests/{reference}"       Push    manifest_put;
    DELETE "/v2/{name*}/manifests/{reference}"       Delete  manifest_delete;
    POST   "/v2/{name*}/blobs/uploads[/]"            Push    upload_post;
    GET    "/v2/{name*}/blobs/uploads/{upload}"      Push    upload_get;
    PATCH  "/v2/{name*}/blobs/uploads/{upload}"      Push    upload_patch;
    PUT    "/v2/{name*}/blobs/uploads/{upload}"      Push    upload_put;
    DELETE "/v2/{name*}/blobs/uploads/{upload}"      Push    upload_delete;
    GET    "/v2/{name*}/blobs/{digest}"              Pull    blob_get;
    DELETE "/v2/{name*}/blobs/{digest}"              Delete  blob_delete;
};

const CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");
const UPLOAD_UUID: HeaderName = HeaderName::from_static("docker-upload-uuid");
const OCI_SUBJECT: HeaderName = HeaderName::from_static("oci-subject");
const OCI_TAG: HeaderName = HeaderName::from_static("oci-tag");
const OCI_FILTERS_APPLIED: HeaderName = HeaderName::from_static("oci-filters-applied");

// end-1 -----------------------------------------------------------------------

async fn version(_: Call) -> Result<Reply> {
    Ok(reply::json(StatusCode::OK, &json!({})))
}

// Blobs: end-2, end-10 ---------------------------------------------------------

async fn blob_get(call: Call) -> Result<Reply> {
    let (repo, digest) = (call.repo()?.clone(), call.digest()?);
    if call.is_head() || is_cached(&call, &digest) {
        let bytes = if call.app.registry.has_suspects() {
            let (repo, digest) = (repo.clone(), digest.clone());
            call.run(move |registry| registry.blob_stat(&repo, &digest)).await?
        } else {
            call.look(|registry| registry.blob_stat(&repo, &digest))?
        };
        let reply = if is_cached(&call, &digest) {
            reply::empty(StatusCode::NOT_MODIFIED)
        } else {
            let mut reply = reply::empty(StatusCode::OK);
            reply.headers_mut().insert(CONTENT_LENGTH, bytes.into());
            reply
        };
        return Ok(blob_headers(reply, &digest));
    }
    let range = call.header(RANGE).filter(|_| if_range(&call, &digest)).map(str::to_owned);
    let permit = call.app.pull_permit().await?;
    let share = call.app.piece_memory();
    let size = Piece::of(share.is_some());
    // The first piece is read before the answer begins: a bad blob is a clean 404.
    let at_hand = call.look(|registry| match registry.blob_at_hand(&repo, &digest)? {
        Some(blob) => {
            Stretch::new(blob, range.as_deref(), |blob, at, end| Ok(blob.piece_at_hand(at, end, size)))
        }
        None => Ok(None),
    })?;
    let stretch = match at_hand {
        Some(stretch) => stretch,
        None => {
            let named = digest.clone();
            let read = move |registry: &Registry| {
                let blob = registry.blob(&repo, &named)?;
                Stretch::new(blob, range.as_deref(), |blob, at, end| {
                    registry.blob_piece(blob, at, end, size).map(Some)
                })
            };
            call.run(read).await?.ok_or(Kind::NotFound(Thing::Blob))?
        }
    };
    let Stretch { blob, range, first } = stretch;
    let total = blob.bytes();
    let (at, end) = range.unwrap_or((0, total));
    let body = Body::Blob(BlobBody::new(call.app.clone(), blob, (permit, share), first, at, end));
    let mut reply = hyper::Response::new(body);
    reply.headers_mut().insert(CONTENT_LENGTH, (end - at).into());
    if range.is_some() {
        *reply.status_mut() = StatusCode::PARTIAL_CONTENT;
        reply = reply::with(reply, CONTENT_RANGE, format!("bytes {at}-{}/{total}", end - 1));
    }
    Ok(blob_headers(reply, &digest))
}

/// What was asked for of a blob, and how it begins.
struct Stretch {
    blob: BlobReader,
    range: Option<(u64, u64)>,
    first: bytes::Bytes,
}

impl Stretch {
    /// None if the first piece is not at hand.
    fn new(
        blob: BlobReader,
        range: Option<&str>,
        read: impl FnOnce(&BlobReader, u64, u64) -> Result<Option<bytes::Bytes>>,
    ) -> Result<Option<Stretch>> {
        let range = reply::range(range, blob.bytes())?;
        let (at, end) = range.unwrap_or((0, blob.bytes()));
        let first = if at < end { read(&blob, at, end)? } else { Some(bytes::Bytes::new()) };
        Ok(first.map(|first| Stretch { blob, range, first }))
    }
}

fn blob_headers(reply: Reply, digest: &Digest) -> Reply {
    let reply = reply::with(reply, CONTENT_TYPE, "application/octet-stream");
    let reply = reply::with(reply, ACCEPT_RANGES, "bytes");
    content_headers(reply, digest)
}

/// What names content by its digest.
fn content_headers(reply: Reply, digest: &Digest) -> Reply {
    let reply = reply::with(reply, CONTENT_DIGEST, digest.as_str());
    reply::with(reply, ETAG, format!("\"{digest}\""))
}

/// Whether the client says that it has this content.
fn is_cached(call: &Call, digest: &Digest) -> bool {
    call.header(IF_NONE_MATCH).is_some_and(|header| {
        header
            .split(',')
            .map(str::trim)
            .any(|tag| tag == "*" || tag.trim_start_matches("W/").trim_matches('"') == digest.as_str())
    })
}

/// Whether a Range counts: not if it was meant for other content (RFC 9110 §13.1.5).
fn if_range(call: &Call, digest: &Digest) -> bool {
    call.header(IF_RANGE).is_none_or(|tag| tag.trim().trim_matches('"') == digest.as_str())
}

async fn blob_delete(call: Call) -> Result<Reply> {
    let (repo, digest) = (call.repo()?.clone(), call.digest()?);
    let named = digest.clone();
    call.run(move |registry| registry.blob_delete(&repo, &named)).await?;
    Ok(reply::with(reply::empty(StatusCode::ACCEPTED), CONTENT_DIGEST, digest.as_str()))
}

// Uploads: end-4, end-5, end-6, end-11, end-13, end-14 ---------------------------

/// Begins an upload; or mounts; or takes a whole blob at once.
async fn upload_post(mut call: Call) -> Result<Reply> {
    let repo = call.repo()?.clone();
    if let Some(digest) = call.query("mount") {
        let digest = Digest::parse(&digest)?;
        if mount(&call, &repo, &digest).await? {
            return Ok(blob_created(&repo, &digest));
        }
    }
    let digest = call.query("digest").map(|text| Digest::parse(&text)).transpose()?;
    let algorithm = match (&digest, call.query("digest-algorithm")) {
        (Some(digest), _) => digest.algorithm(),
        (None, Some(name)) => Algorithm::parse(&name)?,
        (None, None) => Algorithm::Sha256,
    };
    let announced = call.content_length()?.unwrap_or(0);
    let (user, to, app) = (call.user()?.clone(), repo.clone(), call.app.clone());
    // Nobody knows this upload's name yet: if the client goes, so does it.
    let unnamed = call
        .run(move |registry| {
            let upload = registry.upload_begin(&user, &to, algorithm, announced)?;
            Ok(Unnamed { app, upload: Some(upload) })
        })
        .await?;
    let Some(digest) = digest else {
        let upload = unnamed.name();
        let id = upload.as_ref().map(Upload::id).ok_or(Kind::NotFound(Thing::Upload))?;
        return Ok(upload_headers(reply::empty(StatusCode::ACCEPTED), &repo, id, 0));
    };
    let upload = unnamed.upload.clone().ok_or(Kind::NotFound(Thing::Upload))?;
    call.pour(&upload).await?;
    upload_settle(&call, upload, repo, digest).await
}

/// Links a blob that the caller may read elsewhere. A token reads only what it was made
/// for, so its bearer must say from where.
async fn mount(call: &Call, repo: &RepoName, digest: &Digest) -> Result<bool> {
    let mut only_from = None;
    if call.caller().limit.is_some() || call.caller().scopes.is_some() {
        match call.query("from").map(|from| RepoName::parse(&from)) {
            Some(Ok(from)) if auth::permit(&call.app, call.caller(), Access::Pull, &from).is_ok() => {
                only_from = Some(from);
            }
            _ => return Ok(false),
        }
    }
    let (user, repo, digest) = (call.user()?.clone(), repo.clone(), digest.clone());
    call.run(move |registry| registry.blob_mount(&user, &repo, &digest, only_from)).await
}

/// Ends an upload, if it is still open, when its request ends, however that ends.
struct Unnamed {
    app: Arc<App>,
    upload: Option<Upload>,
}

impl Unnamed {
    /// The client is told its name: from here on it may come back.
    fn name(mut self) -> Option<Upload> {
        self.upload.take()
    }
}

impl Drop for Unnamed {
    fn drop(&mut self) {
        if let Some(upload) = &self.upload {
            self.app.registry.upload_cancel(upload);
        }
    }
}

async fn upload_get(call: Call) -> Result<Reply> {
    let id = UploadId::parse(call.param("upload"))?;
    let (user, repo, named) = (call.user()?.clone(), call.repo()?.clone(), id.clone());
    let bytes = call.run(move |registry| registry.upload_stat(&user, &repo, &named)).await?;
    Ok(upload_headers(reply::empty(StatusCode::NO_CONTENT), call.repo()?, &id, bytes))
}

/// Appends a chunk, or a stream of any length.
async fn upload_patch(mut call: Call) -> Result<Reply> {
    let upload = upload_resume(&call).await?.0;
    let bytes = call.pour(&upload).await?;
    let reply = reply::empty(StatusCode::ACCEPTED);
    Ok(upload_headers(reply, call.repo()?, upload.id(), bytes))
}

/// The last chunk, or the whole blob, or nothing more; and the digest.
async fn upload_put(mut call: Call) -> Result<Reply> {
    let digest = call.query("digest").ok_or_else(|| {
        Kind::Invalid(Thing::Digest).because("finish an upload with ?digest= and the blob's digest")
    })?;
    let digest = Digest::parse(&digest)?;
    let (upload, bytes) = upload_resume(&call).await?;
    if bytes == 0 {
        // Now that the algorithm is known, no byte need be hashed twice.
        let (upload, algorithm) = (upload.clone(), digest.algorithm());
        call.run(move |_| upload.expect(algorithm)).await?;
    }
    call.pour(&upload).await?;
    let repo = call.repo()?.clone();
    upload_settle(&call, upload, repo, digest).await
}

async fn upload_delete(call: Call) -> Result<Reply> {
    let (upload, _) = upload_resume(&call).await?;
    call.run(move |registry| {
        registry.upload_cancel(&upload);
        Ok(())
    })
    .await?;
    Ok(reply::empty(StatusCode::NO_CONTENT))
}

/// Takes up the upload of the path, with the number of bytes it has. A chunk that does not
/// fit its end takes nothing up, and leaves alone whoever holds it.
async fn upload_resume(call: &Call) -> Result<(Upload, u64)> {
    let id = UploadId::parse(call.param("upload"))?;
    let (user, repo) = (call.user()?.clone(), call.repo()?.clone());
    let first = content_range_first(call)?;
    call.run(move |registry| {
        let fits = |bytes| match first {
            Some(first) if first != bytes => Err(Error::from(Kind::OutOfOrder { offset: bytes })),
            _ => Ok(bytes),
        };
        fits(registry.upload_stat(&user, &repo, &id)?)?;
        let upload = registry.upload_resume(&user, &repo, &id)?;
        let bytes = fits(upload.bytes()?)?;
        Ok((upload, bytes))
    })
    .await
}

async fn upload_settle(call: &Call, upload: Upload, repo: RepoName, digest: Digest) -> Result<Reply> {
    let (to, named) = (repo.clone(), digest.clone());
    call.run(move |registry| registry.upload_commit(&upload, &to, &named)).await?;
    Ok(blob_created(&repo, &digest))
}

fn blob_created(repo: &RepoName, digest: &Digest) -> Reply {
    let reply = reply::empty(StatusCode::CREATED);
    let reply = reply::with(reply, LOCATION, format!("/v2/{repo}/blobs/{digest}"));
    reply::with(reply, CONTENT_DIGEST, digest.as_str())
}

/// Where to go on, and from which byte. Clients read an empty upload as `0-0` too.
fn upload_headers(reply: Reply, repo: &RepoName, id: &UploadId, bytes: u64) -> Reply {
    let reply = reply::with(reply, LOCATION, format!("/v2/{repo}/blobs/uploads/{id}"));
    let reply = reply::with(reply, RANGE, format!("0-{}", bytes.saturating_sub(1)));
    reply::with(reply, UPLOAD_UUID, id.as_str())
}

/// Where a chunk says it begins. It must be as long as it says, and say how long it is.
fn content_range_first(call: &Call) -> Result<Option<u64>> {
    let Some(text) = call.header(CONTENT_RANGE) else { return Ok(None) };
    let (first, last) = content_range(text).ok_or_else(|| {
        Kind::Invalid(Thing::Upload)
            .because("the Content-Range of a chunk is its first and last byte: 0-1023")
    })?;
    match call.content_length()? {
        Some(length) if length == last - first + 1 => Ok(Some(first)),
        Some(_) => Err(Kind::LengthMismatch.into()),
        None => Err(Kind::LengthMismatch.because("a chunk with a Content-Range needs a Content-Length")),
    }
}

/// `a-b`; and, since RFC 9110 writes it so, `bytes a-b/*`.
fn content_range(text: &str) -> Option<(u64, u64)> {
    let text = text.trim();
    let text = text.strip_prefix("bytes ").or(text.strip_prefix("bytes=")).unwrap_or(text);
    let (first, last) = text.split('/').next()?.split_once('-')?;
    let number = |text: &str| -> Option<u64> {
        let text = text.trim();
        if text.bytes().all(|b| b.is_ascii_digit()) { text.parse().ok() } else { None }
    };
    let (first, last) = (number(first)?, number(last)?);
    // A last byte of u64::MAX would have a length no u64 holds.
    (first <= last && last < u64::MAX).then_some((first, last))
}

// Manifests: end-3, end-7, end-9 -------------------------------------------------

/// The bytes as pushed, whatever the Accept header says: a digest names one thing.
async fn manifest_get(call: Call) -> Result<Reply> {
    let repo = call.repo()?;
    let reference = Reference::parse(call.param("reference"))?;
    if call.is_head() || call.header(IF_NONE_MATCH).is_some() {
        let row = call.look(|registry| registry.manifest_stat(repo, &reference))?;
        if is_cached(&call, &row.digest) {
            return Ok(content_headers(reply::empty(StatusCode::NOT_MODIFIED), &row.digest));
        }
        if call.is_head() {
            let mut reply = reply::empty(StatusCode::OK);
            reply.headers_mut().insert(CONTENT_LENGTH, row.bytes.into());
            return Ok(content_headers(reply::with(reply, CONTENT_TYPE, &row.media_type), &row.digest));
        }
    }
    let (mut row, mut body) = call.look(|registry| registry.manifest(repo, &reference, LARGE_BYTES))?;
    let mut share = None;
    if body.is_none() {
        // Memory for large ones is shared, and theirs until the client has taken them.
        let bytes = usize::try_from(row.bytes).unwrap_or(usize::MAX);
        share = Some(call.app.body_memory(bytes).await?);
        let digest = Reference::Digest(row.digest.clone());
        (row, body) = call.look(|registry| registry.manifest(repo, &digest, u64::MAX))?;
    }
    let body = body.unwrap_or_default();
    let body = match share {
        None => body.into(),
        Some(share) => bytes::Bytes::from_owner(Held { body, _share: share }),
    };
    let reply = reply::with(reply::bytes(StatusCode::OK, body), CONTENT_TYPE, &row.media_type);
    Ok(content_headers(reply, &row.digest))
}

/// Manifests longer than this share their memory.
const LARGE_BYTES: u64 = 64 << 10;

/// A body that keeps its share of memory until its last byte is sent.
struct Held {
    body: Vec<u8>,
    _share: tokio::sync::OwnedSemaphorePermit,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.body
    }
}

async fn manifest_put(mut call: Call) -> Result<Reply> {
    let repo = call.repo()?.clone();
    let mut reference = Reference::parse(call.param("reference"))?;
    let mut tags = call.query_all("tag").map(|tag| Tag::parse(&tag)).collect::<Result<Vec<_>>>()?;
    // A tag in the path and the digest in the query: what regclient sent before ?tag= was agreed on.
    if let (Reference::Tag(tag), Some(digest)) = (&reference, call.query("digest")) {
        tags.push(tag.clone());
        reference = Reference::Digest(Digest::parse(&digest)?);
    }
    let content_type = call.header(CONTENT_TYPE).map(str::to_owned);
    let user = call.user()?.id;
    let body = call.body(MANIFEST_BYTES_MAX, Thing::Manifest).await?;
    let echoed: Vec<String> = tags.iter().map(Tag::to_string).collect();
    let push = ManifestPush { repo: repo.clone(), user, reference, tags, content_type, body };
    let put = call.run(move |registry| registry.manifest_put(push)).await?;
    let mut reply = reply::empty(StatusCode::CREATED);
    reply = reply::with(reply, LOCATION, format!("/v2/{repo}/manifests/{}", put.digest));
    reply = reply::with(reply, CONTENT_DIGEST, put.digest.as_str());
    if let Some(subject) = put.subject {
        reply = reply::with(reply, OCI_SUBJECT, subject.as_str());
    }
    for tag in echoed {
        reply = reply::with(reply, OCI_TAG, tag);
    }
    Ok(reply)
}

async fn manifest_delete(call: Call) -> Result<Reply> {
    let repo = call.repo()?.clone();
    let reference = Reference::parse(call.param("reference"))?;
    call.run(move |registry| registry.manifest_delete(&repo, &reference)).await?;
    Ok(reply::empty(StatusCode::ACCEPTED))
}

// Lists: end-8, end-12, _catalog ---------------------------------------------------

async fn tags(call: Call) -> Result<Reply> {
    let repo = call.repo()?;
    let (limit, last) = page_of(&call)?;
    if !last.is_empty() {
        Tag::parse(&last).map_err(|_| Kind::Invalid(Thing::Page).because("last is not a tag"))?;
    }
    let page = call.look(|registry| registry.tags(repo, &last, limit))?;
    let body = reply::json(StatusCode::OK, &json!({"name": repo.asked(), "tags": page.names}));
    Ok(next_link(body, &format!("/v2/{repo}/tags/list"), &page, limit))
}

async fn catalog(call: Call) -> Result<Reply> {
    let (limit, last) = page_of(&call)?;
    if !last.is_empty() {
        RepoName::parse(&last)
            .map_err(|_| Kind::Invalid(Thing::Page).because("last is not a repository name"))?;
    }
    let user = call.caller().user.as_ref();
    let page = call.look(|registry| registry.catalog(user, &last, limit))?;
    let body = reply::json(StatusCode::OK, &json!({"repositories": page.names}));
    Ok(next_link(body, "/v2/_catalog", &page, limit))
}

async fn referrers(call: Call) -> Result<Reply> {
    let repo = call.repo()?;
    let digest = call.digest()?;
    let (limit, last) = page_of(&call)?;
    if !last.is_empty() {
        Digest::parse(&last).map_err(|_| Kind::Invalid(Thing::Page).because("last is not a digest"))?;
    }
    let artifact_type = call.query("artifactType").filter(|text| !text.is_empty());
    let page =
        call.look(|registry| registry.referrers(repo, &digest, artifact_type.as_deref(), &last, limit))?;
    let mut manifests = Vec::with_capacity(page.referrers.len());
    for row in &page.referrers {
        // As it was stored: annotations may be large, and are not built up again.
        let annotations = row.annotations.as_deref().map(serde_json::from_str::<&RawValue>).transpose();
        manifests.push(ReferrerEntry {
            media_type: &row.media_type,
            digest: row.digest.as_str(),
            size: row.bytes,
            artifact_type: row.artifact_type.as_deref(),
            annotations: annotations.map_err(|error| Kind::Internal.from_cause(error))?,
        });
    }
    let index = ReferrersIndex { schema_version: 2, media_type: OCI_INDEX, manifests };
    let mut reply = reply::json(StatusCode::OK, &index);
    // Clients compare this type to the letter.
    reply.headers_mut().remove(CONTENT_TYPE);
    reply = reply::with(reply, CONTENT_TYPE, OCI_INDEX);
    if artifact_type.is_some() {
        reply = reply::with(reply, OCI_FILTERS_APPLIED, "artifactType");
    }
    if page.more
        && let Some(row) = page.referrers.last()
    {
        let mut query = form_urlencoded::Serializer::new(String::new());
        query.append_pair("last", row.digest.as_str()).append_pair("n", &limit.to_string());
        if let Some(artifact_type) = &artifact_type {
            query.append_pair("artifactType", artifact_type);
        }
        let link = format!("</v2/{repo}/referrers/{digest}?{}>; rel=\"next\"", query.finish());
        reply = reply::with(reply, LINK, link);
    }
    Ok(reply)
}

/// The index that answers for referrers: descriptors in the image specification's words.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ReferrersIndex<'a> {
    schema_version: u32,
    media_type: &'a str,
    manifests: Vec<ReferrerEntry<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ReferrerEntry<'a> {
    media_type: &'a str,
    digest: &'a str,
    size: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    artifact_type: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    annotations: Option<&'a RawValue>,
}

/// `n` and `last`. No `n` means as much as one page may hold.
fn page_of(call: &Call) -> Result<(u32, Cow<'_, str>)> {
    let limit = match call.query("n") {
        None => PAGE_MAX,
        Some(n) if !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()) => {
            n.parse().unwrap_or(PAGE_MAX).min(PAGE_MAX)
        }
        Some(_) => return Err(Kind::Invalid(Thing::Page).because("n is a number from 0 on")),
    };
    Ok((limit, call.query("last").unwrap_or_default()))
}

/// Says where the next page is, if there is one. A page of none has no next.
fn next_link(reply: Reply, path: &str, page: &Page, limit: u32) -> Reply {
    match page.names.last() {
        Some(last) if page.more => {
            let last: String = form_urlencoded::byte_serialize(last.as_bytes()).collect();
            reply::with(reply, LINK, format!("<{path}?last={last}&n={limit}>; rel=\"next\""))
        }
        _ => reply,
    }
}

// Refusals -------------------------------------------------------------------------

pub const BASIC_CHALLENGE: &str = "Basic realm=\"Outport\"";

/// Each kind's status and code. The codes are the specification's, and distribution's
/// where the specification has none.
#[rustfmt::skip]
pub fn code(kind: Kind) -> (u16, &'static str) {
    match kind {
        Kind::NotFound(Thing::Repo)     => (404, "NAME_UNKNOWN"),
        Kind::NotFound(Thing::Manifest) => (404, "MANIFEST_UNKNOWN"),
        Kind::NotFound(Thing::Tag)      => (404, "MANIFEST_UNKNOWN"),
        Kind::NotFound(Thing::Blob)     => (404, "BLOB_UNKNOWN"),
        Kind::NotFound(Thing::Upload)   => (404, "BLOB_UPLOAD_UNKNOWN"),
        Kind::NotFound(Thing::Digest | Thing::User | Thing::Page | Thing::Request | Thing::Route)
                                        => (404, "UNSUPPORTED"),
        Kind::Invalid(Thing::Repo)      => (400, "NAME_INVALID"),
        Kind::Invalid(Thing::Manifest)  => (400, "MANIFEST_INVALID"),
        Kind::Invalid(Thing::Tag)       => (400, "TAG_INVALID"),
        Kind::Invalid(Thing::Blob | Thing::Upload)
                                        => (400, "BLOB_UPLOAD_INVALID"),
        Kind::Invalid(Thing::Digest)    => (400, "DIGEST_INVALID"),
        Kind::Invalid(Thing::Page)      => (400, "PAGINATION_NUMBER_INVALID"),
        Kind::Invalid(Thing::User | Thing::Request | Thing::Route)
                                        => (400, "UNSUPPORTED"),
        Kind::Exists(_)                 => (409, "DENIED"),
        Kind::DigestMismatch            => (400, "DIGEST_INVALID"),
        Kind::LengthMismatch            => (400, "SIZE_INVALID"),
        Kind::BlobMissing               => (400, "MANIFEST_BLOB_UNKNOWN"),
        Kind::OutOfOrder { .. }         => (416, "RANGE_INVALID"),
        Kind::RangeOutside { .. }       => (416, "RANGE_INVALID"),
        Kind::TooLarge(Thing::Manifest) => (413, "MANIFEST_INVALID"),
        Kind::TooLarge(_)               => (413, "SIZE_INVALID"),
        Kind::UriTooLong                => (414, "UNSUPPORTED"),
        Kind::HeadTooLarge              => (431, "UNSUPPORTED"),
        Kind::Unauthorized              => (401, "UNAUTHORIZED"),
        Kind::TokenInvalid              => (401, "UNAUTHORIZED"),
        Kind::TokenTooNarrow            => (401, "UNAUTHORIZED"),
        Kind::Denied                    => (403, "DENIED"),
        Kind::Inactive                  => (403, "DENIED"),
        Kind::InUse(_)                  => (405, "UNSUPPORTED"),
        Kind::Method                    => (405, "UNSUPPORTED"),
        Kind::Unsupported               => (405, "UNSUPPORTED"),
        Kind::Slow                      => (408, "BLOB_UPLOAD_INVALID"),
        Kind::TooMany { .. }            => (429, "TOOMANYREQUESTS"),
        Kind::Full                      => (507, "DENIED"),
        Kind::Unavailable               => (503, "UNAVAILABLE"),
        Kind::Internal                  => (500, "UNKNOWN"),
    }
}

/// `{"errors":[{"code","message","detail"}]}`, with what the kind asks for in headers.
pub fn refusal(app: &App, asked: &Asked, error: &Error) -> Reply {
    let reply = errors(asked, error);
    match error.kind {
        // A wish of the guide of docker.yun.ccb.com, for what is missing and what is hidden alike.
        Kind::NotFound(Thing::Repo) | Kind::Denied
            if app.options().empty_tags_for_missing
                && asked.route.is_some_and(|route| route.handler == "tags") =>
        {
            reply::json(StatusCode::OK, &json!({"name": asked.params.get("name"), "tags": []}))
        }
        Kind::Unauthorized | Kind::TokenInvalid | Kind::TokenTooNarrow => {
            reply::with(reply, WWW_AUTHENTICATE, challenge(app, asked, error.kind))
        }
        // Where to go on: regclient resumes from exactly these two headers.
        Kind::OutOfOrder { offset } => {
            match (asked.repo(), asked.params.get("upload").map(UploadId::parse)) {
                (Some(Ok(repo)), Some(Ok(id))) => upload_headers(reply, &repo, &id, offset),
                _ => reply,
            }
        }
        Kind::RangeOutside { size } => reply::with(reply, CONTENT_RANGE, format!("bytes */{size}")),
        _ => reply,
    }
}

/// The body alone.
pub fn errors(asked: &Asked, error: &Error) -> Reply {
    let (status, code) = code(error.kind);
    let detail = json!({"request_id": asked.request_id});
    let body = json!({"errors": [{"code": code, "message": error.detail(), "detail": detail}]});
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let reply = reply::json(status, &body);
    debug_assert_eq!(reply.headers()[CONTENT_TYPE], JSON);
    reply
}

/// One challenge, for two at once make docker take the wrong one. Basic unless nobody may
/// pull: docker asks for what is public only with a token. Where a token was sent, a token
/// is what is asked for again.
fn challenge(app: &App, asked: &Asked, kind: Kind) -> String {
    if !app.options().anonymous_pull && kind == Kind::Unauthorized {
        return BASIC_CHALLENGE.to_owned();
    }
    let (scheme, host) = app.origin(asked);
    let mut challenge = format!("Bearer realm=\"{scheme}://{host}/token\",service=\"{host}\"");
    let actions = match asked.route.map(|route| route.needs) {
        Some(Needs::Pull) => "pull",
        Some(Needs::Push) => "pull,push",
        Some(Needs::Delete) => "delete",
        _ => "",
    };
    match asked.repo() {
        Some(Ok(repo)) if !actions.is_empty() => {
            challenge += &format!(",scope=\"repository:{repo}:{actions}\"");
        }
        _ if asked.route.is_some_and(|route| route.needs == Needs::Catalog) => {
            challenge += ",scope=\"registry:catalog:*\"";
        }
        _ => {}
    }
    match kind {
        Kind::TokenInvalid => challenge += ",error=\"invalid_token\"",
        Kind::TokenTooNarrow => challenge += ",error=\"insufficient_scope\"",
        _ => {}
    }
    challenge
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_ranges_are_taken_in_both_spellings_and_nothing_else() {
        assert_eq!(content_range("0-1023"), Some((0, 1023)));
        assert_eq!(content_range("bytes 5-9/*"), Some((5, 9)));
        assert_eq!(content_range(" 5-9 "), Some((5, 9)));
        assert_eq!(content_range("4294967296-5000000000"), Some((4_294_967_296, 5_000_000_000)));
        for bad in ["", "-", "5", "9-5", "a-b", "-5-9", "0-18446744073709551615", "0x1-0x2", "1-2-3"] {
            assert_eq!(content_range(bad), None, "{bad}");
        }
    }
}

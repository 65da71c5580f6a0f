//! ML Space's Docker registry API, below `/public/v2/docker_registry`: repositories, images
//! and tags by UUID, and a generated password for `docker login`.

use hyper::StatusCode;
use hyper::header::{ALLOW, AUTHORIZATION, CACHE_CONTROL, HOST, WWW_AUTHENTICATE};
use serde_json::{Map, Value, json};
use std::fmt;

use super::App;
use super::auth;
use super::call::Call;
use super::reply::{self, Reply};
use super::rfc3339_us;
use super::route::{Asked, Dialect, Route, routes};
use crate::error::{Error, Kind, Result, Thing};
use crate::names::{Reference, RepoName, Tag, Uuid};
use crate::registry::{Access, Image, Order, Piece, Repo, RepoChange, Slice, TagRow, Workspace};

pub static DIALECT: Dialect = Dialect {
    name: "mlspace",
    routes: ROUTES,
    identify: |app, asked| Box::pin(auth::identify(app, asked)),
    repo: |_| None,
    code,
    refuse,
    headers: &[],
};

#[rustfmt::skip]
const ROUTES: &[Route] = routes! {
    GET    "/public/v2/docker_registry/v1/users/generate_password[/]" Known generate_password;
    GET    "/public/v2/docker_registry/v2/registries/current[/]"      Known registry;
    GET    "/public/v2/docker_registry/v2/repositories[/]"            Known repos;
    DELETE "/public/v2/docker_registry/v2/repositories[/]"            Known repos_delete;
    GET    "/public/v2/docker_registry/v2/repositories/{id}[/]"       Known repo;
    PUT    "/public/v2/docker_registry/v2/repositories/{id}[/]"       Known repo_change;
    POST   "/public/v2/docker_registry/v2/repositories/{id}/fav[/]"   Known favorite;
    GET    "/public/v2/docker_registry/v2/images[/]"                  Known images;
    DELETE "/public/v2/docker_registry/v2/images[/]"                  Known images_delete;
    GET    "/public/v2/docker_registry/v2/images/{id}[/]"             Known image;
    GET    "/public/v2/docker_registry/v2/tags[/]"                    Known tags;
    POST   "/public/v2/docker_registry/v2/tags[/]"                    Known tag_create;
    DELETE "/public/v2/docker_registry/v2/tags[/]"                    Known tags_delete;
    PUT    "/public/v2/docker_registry/v2/tags/{id}[/]"               Known tag_change;
};

/// Repositories a page has, unless it asks for fewer.
const PAGE_SIZE: u32 = 100;
/// Longest colour, in bytes.
const COLOR_MAX: usize = 32;

// What is asked ----------------------------------------------------------------------

/// What is wrong with a value, as FastAPI says it; or one of ML Space's own codes.
#[derive(Debug)]
enum Fault {
    Field { at: [&'static str; 2], kind: &'static str },
    Code(u16),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

impl std::error::Error for Fault {}

fn fault(at: [&'static str; 2], message: &'static str, kind: &'static str) -> Error {
    Kind::Invalid(Thing::Request).because(message).with_cause(Fault::Field { at, kind })
}

fn missing(at: [&'static str; 2]) -> Error {
    fault(at, "field required", "value_error.missing")
}

fn uuid(text: &str, at: [&'static str; 2]) -> Result<Uuid> {
    Uuid::parse(text).ok_or_else(|| fault(at, "value is not a valid uuid", "type_error.uuid"))
}

fn uuid_field(fields: &Map<String, Value>, name: &'static str) -> Result<Uuid> {
    let value = fields.get(name).ok_or_else(|| missing(["body", name]))?;
    uuid(value.as_str().unwrap_or_default(), ["body", name])
}

fn uuids(fields: &Map<String, Value>, name: &'static str) -> Result<Vec<Uuid>> {
    let value = fields.get(name).ok_or_else(|| missing(["body", name]))?;
    let list = value.as_array();
    let list = list.ok_or_else(|| fault(["body", name], "value is not a valid list", "type_error.list"))?;
    list.iter().map(|value| uuid(value.as_str().unwrap_or_default(), ["body", name])).collect()
}

/// A text; None if it is null or not there.
fn text(fields: &Map<String, Value>, name: &'static str) -> Result<Option<String>> {
    match fields.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(_) => Err(fault(["body", name], "str type expected", "type_error.str")),
    }
}

fn texts(fields: &Map<String, Value>, name: &'static str) -> Result<Vec<String>> {
    let wrong = || fault(["body", name], "value is not a valid list", "type_error.list");
    match fields.get(name) {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(Value::Array(list)) => {
            list.iter().map(|value| value.as_str().map(str::to_owned).ok_or_else(wrong)).collect()
        }
        Some(_) => Err(wrong()),
    }
}

fn color(fields: &Map<String, Value>) -> Result<Option<String>> {
    let color = text(fields, "color")?;
    match &color {
        Some(color) if color.len() > COLOR_MAX => {
            let message = "ensure this value has at most 32 characters";
            Err(fault(["body", "color"], message, "value_error.any_str.max_length"))
        }
        _ => Ok(color),
    }
}

fn path_id(call: &Call, name: &'static str) -> Result<Uuid> {
    uuid(call.param("id"), ["path", name])
}

fn query_id(call: &Call, name: &'static str) -> Result<Uuid> {
    uuid(&call.query(name).ok_or_else(|| missing(["query", name]))?, ["query", name])
}

/// A number from 1 on.
fn number(call: &Call, name: &'static str, default: u32) -> Result<u32> {
    match call.query(name) {
        None => Ok(default),
        Some(text) => text
            .parse()
            .ok()
            .filter(|number| *number > 0)
            .ok_or_else(|| fault(["query", name], "value is not a valid integer", "type_error.integer")),
    }
}

/// The namespace that `x-workspace-id` names, else the caller's own.
fn workspace(call: &Call) -> Result<Workspace> {
    let user = call.user()?;
    let found = match call.head().headers.get("x-workspace-id") {
        None => call.look(|registry| registry.workspace_of(user))?,
        Some(id) => match Uuid::parse(id.to_str().unwrap_or_default()) {
            Some(id) => call.look(|registry| registry.workspace(&id))?,
            None => None,
        },
    };
    found.ok_or_else(|| Kind::Unauthorized.because("namespace not found").with_cause(Fault::Code(2)))
}

/// Lets the caller go on in a repository. What may not be read is not there.
fn permit(call: &Call, access: Access, repo: &RepoName, thing: Thing) -> Result<()> {
    let may = |access| auth::permit(&call.app, call.caller(), access, repo);
    may(Access::Pull).map_err(|error| match error.kind.is_ours() {
        true => error,
        false => Kind::NotFound(thing).into(),
    })?;
    may(access)
}

fn repo_allowed(call: &Call, id: &Uuid, access: Access) -> Result<RepoName> {
    let name = call.look(|registry| registry.repo_by_uuid(id))?;
    permit(call, access, &name, Thing::Repo)?;
    Ok(name)
}

fn image_allowed(call: &Call, id: &Uuid, access: Access) -> Result<(RepoName, Image)> {
    let image = call.look(|registry| registry.image(id))?;
    let name = RepoName::parse(&image.repo)?;
    permit(call, access, &name, Thing::Manifest)?;
    Ok((name, image))
}

fn tag_allowed(call: &Call, id: &Uuid, access: Access) -> Result<(RepoName, Tag, Image)> {
    let (tag, image) = call.look(|registry| registry.tag_by_uuid(id))?;
    let name = RepoName::parse(&image.repo)?;
    permit(call, access, &name, Thing::Tag)?;
    Ok((name, tag, image))
}

/// None for what is not there, or not for this caller: deletes pass it by.
fn or_skip<T>(outcome: Result<T>) -> Result<Option<T>> {
    match outcome {
        Ok(found) => Ok(Some(found)),
        Err(error) if matches!(error.kind, Kind::NotFound(_) | Kind::Denied | Kind::TokenTooNarrow) => {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

// What is shown ----------------------------------------------------------------------

fn full_name(call: &Call, repo: &str) -> String {
    format!("{}/{repo}", call.header(HOST).unwrap_or_default())
}

fn show_tag(call: &Call, image: &Image, tag: &TagRow) -> Value {
    let full = format!("{}:{}", full_name(call, &image.repo), tag.name);
    json!({
        "id": tag.uuid,
        "name": tag.name,
        "full_name": full,
        "image_id": image.uuid,
        "repository_id": image.repo_uuid,
        "push_time": rfc3339_us(tag.pushed_us),
        "pull_time": null,
        "signed": image.signed,
        "color": tag.color,
        "commands": {"docker_pull": format!("docker pull {full}")},
    })
}

fn show_tags(call: &Call, image: &Image) -> Vec<Value> {
    image.tags.iter().map(|tag| show_tag(call, image, tag)).collect()
}

/// An image, with what its config says as far as that can be read.
async fn show_image(call: &Call, image: &Image) -> Result<Value> {
    let mut attrs = json!({});
    if let Some(digest) = image.config.clone() {
        let name = RepoName::parse(&image.repo)?;
        let read = call.run(move |registry| {
            let blob = registry.blob(&name, &digest)?;
            registry.blob_piece(&blob, 0, blob.bytes(), Piece::Small)
        });
        let config: Value =
            read.await.ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default();
        for key in ["architecture", "author", "config", "created", "os"] {
            if let Some(value) = config.get(key) {
                attrs[key] = value.clone();
            }
        }
    }
    let full = format!("{}@{}", full_name(call, &image.repo), image.digest);
    Ok(json!({
        "id": image.uuid,
        "digest": image.digest.as_str(),
        "full_name": full,
        "repository_id": image.repo_uuid,
        "size": image.content_bytes,
        "push_time": rfc3339_us(image.pushed_us),
        "pull_time": null,
        "extra_attrs": attrs,
        "tags": show_tags(call, image),
        "commands": {"docker_pull": format!("docker pull {full}")},
    }))
}

async fn show_repo(call: &Call, repo: &Repo) -> Result<Value> {
    let name = RepoName::parse(&format!("{}/{}", repo.namespace, repo.name))?;
    let registry_id = call
        .look(|registry| registry.namespace_uuid(name.namespace()))?
        .ok_or(Kind::NotFound(Thing::Repo))?;
    let full = full_name(call, name.full());
    let images = call.run(move |registry| registry.images(&name)).await?;
    let recent = match images.first() {
        None => Value::Null,
        Some(image) => show_image(call, image).await?,
    };
    Ok(json!({
        "id": repo.uuid,
        "name": repo.name,
        "full_name": full,
        "description": Some(&repo.description).filter(|text| !text.is_empty()),
        "labels": repo.labels,
        "created_at": rfc3339_us(repo.created_us),
        "updated_at": rfc3339_us(repo.updated_us),
        "registry_id": registry_id,
        "tags": images.iter().flat_map(|image| show_tags(call, image)).collect::<Vec<_>>(),
        "favorite": repo.starred,
        "recent_image": recent,
        "images_count": images.len(),
        "commands": {"docker_pull": format!("docker pull {full}")},
    }))
}

async fn reply_repo(call: &Call, name: RepoName) -> Result<Reply> {
    let user = call.user()?.clone();
    let repo = call.run(move |registry| registry.repo_seen(Some(&user), &name)).await?;
    Ok(ok(&show_repo(call, &repo).await?))
}

fn ok(body: &Value) -> Reply {
    reply::json(StatusCode::OK, body)
}

// Verbs ------------------------------------------------------------------------------

/// A GET that changes something: whoever merely looks ahead must not rotate it.
async fn generate_password(call: Call) -> Result<Reply> {
    if call.is_head() {
        return Ok(reply::with(reply::empty(StatusCode::METHOD_NOT_ALLOWED), ALLOW, "GET"));
    }
    let user = call.caller().by_password().ok_or(Kind::Denied)?.clone();
    let password = call.run(move |registry| registry.password_generate(&user)).await?;
    Ok(reply::with(ok(&json!({"password": password})), CACHE_CONTROL, "no-store"))
}

/// The repositories of the workspace that the caller may read, and how many there are.
async fn listed(call: &Call, slice: Slice) -> Result<(Workspace, Vec<Repo>, u64)> {
    let (workspace, user) = (workspace(call)?, call.user()?.clone());
    let name = workspace.name.clone();
    let seen = call.run(move |registry| registry.repos_of(Some(&user), &name, "", Order::Name, slice));
    let seen = or_skip(seen.await)?;
    let (rows, count) = seen.map_or((Vec::new(), 0), |seen| (seen.rows, seen.count));
    Ok((workspace, rows, count))
}

async fn registry(call: Call) -> Result<Reply> {
    let (workspace, rows, count) = listed(&call, Slice { skip: 0, take: 1 }).await?;
    // An empty one has not changed since it was made.
    let updated = rows.iter().map(|repo| repo.updated_us).max().unwrap_or(workspace.created_us);
    Ok(ok(&json!({
        "id": workspace.uuid,
        "name": workspace.name,
        "created_at": rfc3339_us(workspace.created_us),
        "updated_at": rfc3339_us(updated),
        "repositories_count": count,
        "commands": {"docker_login": format!("docker login {}", call.header(HOST).unwrap_or_default())},
    })))
}

async fn repos(call: Call) -> Result<Reply> {
    let (page, size) = (number(&call, "page", 1)?, number(&call, "page_size", PAGE_SIZE)?.min(PAGE_SIZE));
    let slice = Slice { skip: u64::from(page - 1) * u64::from(size), take: size };
    let (_, rows, _) = listed(&call, slice).await?;
    let mut list = Vec::new();
    for repo in &rows {
        let name = RepoName::parse(&format!("{}/{}", repo.namespace, repo.name))?;
        // A token may reach less than its user.
        if or_skip(permit(&call, Access::Pull, &name, Thing::Repo))?.is_some() {
            list.push(show_repo(&call, repo).await?);
        }
    }
    Ok(ok(&list.into()))
}

async fn repo(call: Call) -> Result<Reply> {
    let name = repo_allowed(&call, &path_id(&call, "repository_id")?, Access::Pull)?;
    reply_repo(&call, name).await
}

async fn repo_change(mut call: Call) -> Result<Reply> {
    let (id, fields) = (path_id(&call, "repository_id")?, call.fields().await?);
    let description = text(&fields, "description")?;
    let (add, remove) = (texts(&fields, "labels")?, texts(&fields, "labels_to_delete")?);
    let name = repo_allowed(&call, &id, Access::Push)?;
    // An explicit null clears it.
    let description = fields.contains_key("description").then(|| description.unwrap_or_default());
    let (user, to) = (call.user()?.clone(), name.clone());
    call.run(move |registry| {
        let mut labels = registry.repo_seen(Some(&user), &to)?.labels;
        for label in add {
            if !labels.contains(&label) {
                labels.push(label);
            }
        }
        labels.retain(|label| !remove.contains(label));
        let change = RepoChange { description, labels: Some(labels), ..RepoChange::default() };
        registry.repo_change(&user, &to, change)
    })
    .await?;
    reply_repo(&call, name).await
}

async fn favorite(mut call: Call) -> Result<Reply> {
    let (id, fields) = (path_id(&call, "repository_id")?, call.fields().await?);
    let at = ["body", "favorite"];
    let favorite = fields.get("favorite").ok_or_else(|| missing(at))?.as_bool();
    let favorite =
        favorite.ok_or_else(|| fault(at, "value could not be parsed to a boolean", "type_error.bool"))?;
    let name = repo_allowed(&call, &id, Access::Pull)?;
    let (user, to) = (call.user()?.clone(), name.clone());
    call.run(move |registry| match favorite {
        true => registry.star(&user, &to),
        false => registry.unstar(&user, &to),
    })
    .await?;
    reply_repo(&call, name).await
}

async fn repos_delete(mut call: Call) -> Result<Reply> {
    let ids = uuids(&call.fields().await?, "repository_ids")?;
    let mut deleted = Vec::new();
    for id in ids {
        let Some(name) = or_skip(repo_allowed(&call, &id, Access::Delete))? else { continue };
        if or_skip(call.run(move |registry| registry.repo_remove(&name)).await)?.is_some() {
            deleted.push(id.as_str().to_owned());
        }
    }
    Ok(ok(&json!(deleted)))
}

async fn images(call: Call) -> Result<Reply> {
    let name = repo_allowed(&call, &query_id(&call, "repository_id")?, Access::Pull)?;
    let rows = call.run(move |registry| registry.images(&name)).await?;
    let mut list = Vec::new();
    for image in &rows {
        list.push(show_image(&call, image).await?);
    }
    Ok(ok(&list.into()))
}

async fn image(call: Call) -> Result<Reply> {
    let (_, image) = image_allowed(&call, &path_id(&call, "image_id")?, Access::Pull)?;
    Ok(ok(&show_image(&call, &image).await?))
}

async fn images_delete(mut call: Call) -> Result<Reply> {
    let ids = uuids(&call.fields().await?, "image_ids")?;
    let mut deleted = Vec::new();
    for id in ids {
        let Some((name, image)) = or_skip(image_allowed(&call, &id, Access::Delete))? else { continue };
        let digest = Reference::Digest(image.digest);
        if or_skip(call.run(move |registry| registry.manifest_delete(&name, &digest)).await)?.is_some() {
            deleted.push(id.as_str().to_owned());
        }
    }
    Ok(ok(&json!(deleted)))
}

async fn tags(call: Call) -> Result<Reply> {
    let (_, image) = image_allowed(&call, &query_id(&call, "image_id")?, Access::Pull)?;
    Ok(ok(&show_tags(&call, &image).into()))
}

async fn tag_create(mut call: Call) -> Result<Reply> {
    let fields = call.fields().await?;
    let (id, color) = (uuid_field(&fields, "image_id")?, color(&fields)?);
    let at = ["body", "name"];
    let name = text(&fields, "name")?.ok_or_else(|| missing(at))?;
    let tag = Tag::parse(&name)
        .map_err(|_| fault(at, "string does not match the regex of a tag", "value_error.str.regex"))?;
    image_allowed(&call, &id, Access::Push)?;
    let user = call.user()?.clone();
    let image = call.run(move |registry| registry.tag_point(&user, &id, &tag, color)).await?;
    let row = image.tags.iter().find(|row| row.name == name).ok_or(Kind::NotFound(Thing::Tag))?;
    Ok(ok(&show_tag(&call, &image, row)))
}

async fn tag_change(mut call: Call) -> Result<Reply> {
    let (id, fields) = (path_id(&call, "tag_id")?, call.fields().await?);
    let color = color(&fields)?;
    tag_allowed(&call, &id, Access::Push)?;
    if fields.contains_key("color") {
        let id = id.clone();
        call.run(move |registry| registry.tag_set_color(&id, color)).await?;
    }
    let (_, tag, image) = tag_allowed(&call, &id, Access::Push)?;
    let row = image.tags.iter().find(|row| row.name == tag.as_str()).ok_or(Kind::NotFound(Thing::Tag))?;
    Ok(ok(&show_tag(&call, &image, row)))
}

async fn tags_delete(mut call: Call) -> Result<Reply> {
    let ids = uuids(&call.fields().await?, "tag_ids")?;
    let mut deleted = Vec::new();
    for id in ids {
        let Some((name, tag, _)) = or_skip(tag_allowed(&call, &id, Access::Delete))? else { continue };
        let tag = Reference::Tag(tag);
        if or_skip(call.run(move |registry| registry.manifest_delete(&name, &tag)).await)?.is_some() {
            deleted.push(id.as_str().to_owned());
        }
    }
    Ok(ok(&json!(deleted)))
}

// Refusals ---------------------------------------------------------------------------

/// Each kind's status; codes are told by the answer.
#[rustfmt::skip]
fn code(kind: Kind) -> (u16, &'static str) {
    let status = match kind {
        Kind::NotFound(_)          => 404,
        Kind::Invalid(_)           => 422,
        Kind::Exists(_)            => 409,
        Kind::DigestMismatch       => 422,
        Kind::LengthMismatch       => 422,
        Kind::BlobMissing          => 422,
        Kind::OutOfOrder { .. }    => 416,
        Kind::RangeOutside { .. }  => 416,
        Kind::TooLarge(_)          => 413,
        Kind::UriTooLong           => 414,
        Kind::HeadTooLarge         => 431,
        Kind::Unauthorized         => 401,
        Kind::TokenInvalid         => 401,
        Kind::TokenTooNarrow       => 403,
        Kind::Denied               => 403,
        Kind::Inactive             => 403,
        Kind::InUse(_)             => 409,
        Kind::Method               => 405,
        Kind::Unsupported          => 405,
        Kind::Slow                 => 408,
        Kind::TooMany { .. }       => 429,
        Kind::Full                 => 507,
        Kind::Unavailable          => 503,
        Kind::Internal             => 500,
    };
    (status, "")
}

fn refuse(_: &App, asked: &Asked, error: &Error) -> Reply {
    let (number, _) = code(error.kind);
    let status = StatusCode::from_u16(number).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let own = error.cause().and_then(|cause| cause.downcast_ref::<Fault>());
    let detail = error.detail();
    let coded = |code: u16, message: &str| json!({"error_code": code, "error_message": message});
    let body = match (error.kind, own) {
        (_, Some(Fault::Code(code))) => coded(*code, &detail),
        (_, Some(Fault::Field { at, kind })) => json!({"detail": [{"loc": at, "msg": detail, "type": kind}]}),
        (Kind::NotFound(Thing::Repo), _) => json!({"detail": "Repository not found"}),
        (Kind::NotFound(Thing::Manifest), _) => json!({"detail": "Image not found"}),
        (Kind::NotFound(Thing::Tag), _) => json!({"detail": "Tag not found"}),
        (Kind::NotFound(_), _) => json!({"detail": "Not found"}),
        (Kind::TokenInvalid, _) => coded(21, "invalid access_token"),
        (Kind::Unauthorized, _) if !asked.head.headers.contains_key(AUTHORIZATION) => {
            coded(19, "no authorization header, it is required")
        }
        (Kind::Unauthorized, _) => coded(1, "invalid user credentials"),
        _ if number == 422 => json!({"detail": [{"loc": ["body"], "msg": detail, "type": "value_error"}]}),
        _ => coded(number, &detail),
    };
    let reply = reply::json(status, &body);
    match status {
        StatusCode::UNAUTHORIZED => reply::with(reply, WWW_AUTHENTICATE, "Basic realm=\"outport\""),
        _ => reply,
    }
}

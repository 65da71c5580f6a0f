//! ML Space's Docker registry API, below `/public/v2/docker_registry`: repositories, images
//! and tags by UUID, and a generated password for `docker login`; and the logins of service
//! clients.
//!
//! What lists hold beside their own rows is bounded: an image or a repository shows its first
//! hundred tags, and the whole list has pages.

mod fields;
mod session;
mod show;

use hyper::StatusCode;
use hyper::header::{ALLOW, AUTHORIZATION, CACHE_CONTROL, WWW_AUTHENTICATE};
use serde::Serialize;
use serde_json::json;

use super::App;
use super::auth;
use super::call::Call;
use super::reply::{self, Reply};
use super::route::{Asked, Dialect, Route, routes};
use crate::error::{Error, Kind, Result, Thing};
use crate::names::{RepoName, Uuid};
use crate::registry::{Access, Registry, Relabel};
use fields::{Fault, Fields, Paging, path_id, query_id};
use session::{service_auth, workspace};
use show::Shower;

pub static DIALECT: Dialect = Dialect {
    name: "mlspace",
    routes: ROUTES,
    identify: |app, asked| Box::pin(session::identify(app, asked)),
    repo: |_| None,
    code,
    refuse,
    headers: &[],
};

#[rustfmt::skip]
const ROUTES: &[Route] = routes! {
    POST   "/public/v2/service_auth[/]"                               Nobody service_auth;
    GET    "/public/v2/docker_registry/v1/users/generate_password[/]" Known  generate_password;
    GET    "/public/v2/docker_registry/v2/registries/current[/]"      Known  registry;
    GET    "/public/v2/docker_registry/v2/repositories[/]"            Known  repos;
    DELETE "/public/v2/docker_registry/v2/repositories[/]"            Known  repos_delete;
    GET    "/public/v2/docker_registry/v2/repositories/{id}[/]"       Known  repo;
    PUT    "/public/v2/docker_registry/v2/repositories/{id}[/]"       Known  repo_change;
    POST   "/public/v2/docker_registry/v2/repositories/{id}/fav[/]"   Known  favorite;
    GET    "/public/v2/docker_registry/v2/images[/]"                  Known  images;
    DELETE "/public/v2/docker_registry/v2/images[/]"                  Known  images_delete;
    GET    "/public/v2/docker_registry/v2/images/{id}[/]"             Known  image;
    GET    "/public/v2/docker_registry/v2/tags[/]"                    Known  tags;
    POST   "/public/v2/docker_registry/v2/tags[/]"                    Known  tag_create;
    DELETE "/public/v2/docker_registry/v2/tags[/]"                    Known  tags_delete;
    PUT    "/public/v2/docker_registry/v2/tags/{id}[/]"               Known  tag_change;
};

/// Lets the caller go on with a thing in a repository. What may not be read is not there.
fn permit(call: &Call, access: Access, repo: &RepoName, thing: Thing) -> Result<()> {
    let may = |access| auth::permit(&call.app, call.caller(), access, repo);
    may(Access::Pull).map_err(|error| match error.kind.is_ours() {
        true => error,
        false => Kind::NotFound(thing).into(),
    })?;
    may(access)
}

fn permit_repo(call: &Call, access: Access, id: &Uuid) -> Result<()> {
    permit(call, access, &call.look(|registry| registry.repo_by_uuid(id))?, Thing::Repo)
}

fn permit_image(call: &Call, access: Access, id: &Uuid) -> Result<()> {
    permit(call, access, &call.look(|registry| registry.image_repo(id))?, Thing::Manifest)
}

fn permit_tag(call: &Call, access: Access, id: &Uuid) -> Result<()> {
    permit(call, access, &call.look(|registry| registry.tag_repo(id))?, Thing::Tag)
}

/// Lets the caller see lists: no token that was made for other things.
fn permit_lists(call: &Call) -> Result<()> {
    match call.caller().scopes {
        Some(_) if !call.caller().may_list() => Err(Kind::TokenTooNarrow.into()),
        _ => Ok(()),
    }
}

fn ok(shown: &impl Serialize) -> Reply {
    reply::json(StatusCode::OK, shown)
}

/// A GET that changes something: whoever merely looks ahead must not rotate it.
async fn generate_password(call: Call) -> Result<Reply> {
    if call.is_head() {
        return Ok(reply::with(reply::empty(StatusCode::METHOD_NOT_ALLOWED), ALLOW, "GET"));
    }
    let personal =
        || Kind::Denied.because("a password is generated for people alone; use a personal account");
    let user = call.caller().by_password().ok_or_else(personal)?.clone();
    let password = call.run(move |registry| registry.password_generate(&user)).await?;
    Ok(reply::with(ok(&json!({"password": password})), CACHE_CONTROL, "no-store"))
}

async fn registry(call: Call) -> Result<Reply> {
    permit_lists(&call)?;
    let (workspace, user) = (workspace(&call)?, call.user()?.clone());
    let (within, scope) = (workspace.clone(), call.caller().scope().cloned());
    let sums = call.run(move |registry| registry.workspace_sums(&user, &within, scope.as_ref())).await?;
    Ok(ok(&Shower::of(&call).registry(&workspace, sums)))
}

async fn repos(call: Call) -> Result<Reply> {
    permit_lists(&call)?;
    let paging = Paging::of(&call)?;
    let (workspace, user) = (workspace(&call)?, call.user()?.clone());
    let (slice, after, scope) = (paging.slice(), paging.after(), call.caller().scope().cloned());
    let cards = call
        .run(move |registry| registry.repo_cards(&user, &workspace, scope.as_ref(), slice, after))
        .await?;
    let shower = Shower::of(&call);
    Ok(paging.reply(&call, &cards, |card| shower.repo(card)))
}

async fn repo(call: Call) -> Result<Reply> {
    let id = path_id(&call, "repository_id")?;
    permit_repo(&call, Access::Pull, &id)?;
    show_repo(&call, id).await
}

async fn show_repo(call: &Call, id: Uuid) -> Result<Reply> {
    let user = call.user()?.clone();
    let card = call.run(move |registry| registry.repo_card(&user, &id)).await?;
    Ok(ok(&Shower::of(call).repo(&card)))
}

/// Labels that are given are added. A description of null clears it.
async fn repo_change(mut call: Call) -> Result<Reply> {
    let (id, fields) = (path_id(&call, "repository_id")?, Fields::read(&mut call).await?);
    let description = fields.optional_text("description")?;
    let to = Relabel {
        description: fields.has("description").then(|| description.unwrap_or_default()),
        add: fields.texts("labels")?,
        remove: fields.texts("labels_to_delete")?,
    };
    permit_repo(&call, Access::Push, &id)?;
    let changed = id.clone();
    call.run(move |registry| registry.repo_relabel(&changed, to)).await?;
    show_repo(&call, id).await
}

async fn favorite(mut call: Call) -> Result<Reply> {
    let (id, favorite) = (path_id(&call, "repository_id")?, Fields::read(&mut call).await?.flag("favorite")?);
    permit_repo(&call, Access::Pull, &id)?;
    let (user, repo) = (call.user()?.clone(), call.look(|registry| registry.repo_by_uuid(&id))?);
    call.run(move |registry| match favorite {
        true => registry.star(&user, &repo),
        false => registry.unstar(&user, &repo),
    })
    .await?;
    show_repo(&call, id).await
}

async fn repos_delete(call: Call) -> Result<Reply> {
    delete(call, "repository_ids", permit_repo, Registry::repos_delete).await
}

async fn images(call: Call) -> Result<Reply> {
    let (id, paging) = (query_id(&call, "repository_id")?, Paging::of(&call)?);
    permit_repo(&call, Access::Pull, &id)?;
    let (slice, after) = (paging.slice(), paging.after());
    let images = call.run(move |registry| registry.images(&id, slice, after)).await?;
    let shower = Shower::of(&call);
    Ok(paging.reply(&call, &images, |image| shower.image(image)))
}

async fn image(call: Call) -> Result<Reply> {
    let id = path_id(&call, "image_id")?;
    permit_image(&call, Access::Pull, &id)?;
    let image = call.run(move |registry| registry.image(&id)).await?;
    Ok(ok(&Shower::of(&call).image(&image)))
}

async fn images_delete(call: Call) -> Result<Reply> {
    delete(call, "image_ids", permit_image, Registry::images_delete).await
}

async fn tags(call: Call) -> Result<Reply> {
    let (id, paging) = (query_id(&call, "image_id")?, Paging::of(&call)?);
    permit_image(&call, Access::Pull, &id)?;
    let (slice, after) = (paging.slice(), paging.after());
    let tags = call.run(move |registry| registry.image_tags(&id, slice, after)).await?;
    let shower = Shower::of(&call);
    Ok(paging.reply(&call, &tags, |tag| shower.tag(tag)))
}

/// A tag of that name moves to the image.
async fn tag_create(mut call: Call) -> Result<Reply> {
    let fields = Fields::read(&mut call).await?;
    let (id, tag, color) = (fields.uuid("image_id")?, fields.tag()?, fields.color()?);
    permit_image(&call, Access::Push, &id)?;
    let user = call.user()?.clone();
    let tag = call.run(move |registry| registry.tag_point(&user, &id, &tag, color)).await?;
    Ok(ok(&Shower::of(&call).tag(&tag)))
}

/// Changes the colour, which is all that a tag has to change here.
async fn tag_change(mut call: Call) -> Result<Reply> {
    let (id, fields) = (path_id(&call, "tag_id")?, Fields::read(&mut call).await?);
    let color = fields.color()?;
    permit_tag(&call, Access::Push, &id)?;
    let tag = match fields.has("color") {
        true => call.run(move |registry| registry.tag_set_color(&id, color)).await?,
        false => call.look(|registry| registry.tag(&id))?,
    };
    Ok(ok(&Shower::of(&call).tag(&tag)))
}

async fn tags_delete(call: Call) -> Result<Reply> {
    delete(call, "tag_ids", permit_tag, Registry::tags_delete).await
}

/// Deletes what a body names, and answers what is gone. What is not there, or not for this
/// caller, is passed by.
async fn delete(
    mut call: Call,
    name: &str,
    permit: fn(&Call, Access, &Uuid) -> Result<()>,
    verb: fn(&Registry, Vec<Uuid>) -> Result<Vec<Uuid>>,
) -> Result<Reply> {
    let mut allowed = Vec::new();
    for id in Fields::read(&mut call).await?.uuids(name)? {
        match permit(&call, Access::Delete, &id) {
            Ok(()) => allowed.push(id),
            Err(error) if matches!(error.kind, Kind::NotFound(_) | Kind::Denied | Kind::TokenTooNarrow) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(ok(&call.run(move |registry| verb(registry, allowed)).await?))
}

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

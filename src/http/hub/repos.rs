//! Repositories, their tags, stars, and what groups were granted in them.

use hyper::StatusCode;
use serde::Serialize;
use serde_json::{Value, json};

use super::form::Form;
use super::pages::Paging;
use super::session::anyone;
use crate::error::{Kind, Result, Thing};
use crate::http::auth;
use crate::http::call::Call;
use crate::http::reply::{self, Reply};
use crate::http::rfc3339_us;
use crate::manifest::Platform;
use crate::names::{Reference, RepoName, Tag};
use crate::registry::{Access, GroupGrant, Level, PlatformRow, Repo, RepoChange, TagRow};

/// Hub's rules, in characters.
const NAME_MIN: usize = 2;
const NAME_MAX: usize = 255;
const DESCRIPTION_MAX: usize = 100;
const FULL_DESCRIPTION_MAX: usize = 25_000;

/// A repository as lists show it.
#[derive(Serialize)]
struct ShownRepo<'a> {
    id: i64,
    uuid: &'a str,
    user: &'a str,
    hub_user: &'a str,
    namespace: &'a str,
    name: &'a str,
    repository_type: &'static str,
    status: u8,
    status_description: &'static str,
    description: &'a str,
    is_private: bool,
    is_automated: bool,
    is_migrated: bool,
    star_count: u64,
    pull_count: u64,
    collaborator_count: u64,
    date_registered: String,
    last_updated: Option<String>,
    last_modified: String,
    content_types: [&'static str; 1],
    categories: [(); 0],
    storage_size: u64,
    source: (),
}

fn show(repo: &Repo) -> ShownRepo<'_> {
    ShownRepo {
        id: repo.id,
        uuid: &repo.uuid,
        user: &repo.namespace,
        hub_user: &repo.namespace,
        namespace: &repo.namespace,
        name: &repo.name,
        repository_type: "image",
        status: repo.pushed.into(),
        status_description: if repo.pushed { "active" } else { "initialized" },
        description: &repo.description,
        is_private: repo.private,
        is_automated: false,
        is_migrated: false,
        star_count: repo.stars,
        pull_count: repo.pulls,
        collaborator_count: 0,
        date_registered: rfc3339_us(repo.created_us),
        last_updated: repo.pushed_us.map(rfc3339_us),
        last_modified: rfc3339_us(repo.updated_us),
        content_types: ["image"],
        categories: [],
        storage_size: repo.blob_bytes,
        source: (),
    }
}

/// The same with what only its own address shows.
#[derive(Serialize)]
struct ShownWhole<'a> {
    #[serde(flatten)]
    repo: ShownRepo<'a>,
    full_description: &'a str,
    has_starred: bool,
    can_edit: bool,
    affiliation: &'static str,
    permissions: Value,
    media_types: &'a [String],
    immutable_tags_settings: Value,
}

fn show_whole<'a>(call: &Call, repo: &'a Repo) -> Result<ShownWhole<'a>> {
    let name = RepoName::parse(&format!("{}/{}", repo.namespace, repo.name))?;
    let may = |access| auth::permit(&call.app, call.caller(), access, &name).is_ok();
    let (read, write, admin) = (may(Access::Pull), may(Access::Push), may(Access::Delete));
    Ok(ShownWhole {
        repo: show(repo),
        full_description: &repo.full_description,
        has_starred: repo.starred,
        can_edit: admin,
        affiliation: match (admin, write) {
            (true, _) => "owner",
            (_, true) => "collaborator",
            _ => "",
        },
        permissions: json!({"read": read, "write": write, "admin": admin}),
        media_types: &repo.media_types,
        immutable_tags_settings: json!({"enabled": false, "rules": []}),
    })
}

/// Makes an empty repository, in the namespace of the path or of the body.
pub async fn repo_create(mut call: Call) -> Result<Reply> {
    let mut form = Form::read(&mut call).await?;
    let namespace = match call.param("ns") {
        "" => form.required("namespace", NAME_MAX),
        namespace => namespace.to_owned(),
    };
    let name = form.required("name", NAME_MAX);
    let change = RepoChange {
        description: form.text("description", DESCRIPTION_MAX),
        full_description: form.text("full_description", FULL_DESCRIPTION_MAX),
        // Hub's rule, whatever pushes make here.
        private: form.flag("is_private").or(Some(false)),
        labels: None,
    };
    if form.refusal().is_none() {
        let probe = RepoName::parse(&format!("{namespace}/x"));
        match probe {
            Ok(probe) if probe.namespace() == namespace => {}
            _ => form.fault("namespace", "This is not the name of a namespace."),
        }
        if name.len() < NAME_MIN {
            form.fault("name", format!("Ensure this field has at least {NAME_MIN} characters."));
        } else if name.contains('/') {
            form.fault("name", "A name here has one part; push to a longer one to make it.");
        } else if let Err(error) = RepoName::parse(&format!("library/{name}")) {
            form.fault("name", error.detail());
        }
    }
    if let Some(refusal) = form.refusal() {
        return Ok(refusal);
    }
    // As the first push would.
    let repo = RepoName::parse(&format!("{namespace}/{name}"))?;
    auth::permit(&call.app, call.caller(), Access::Push, &repo)?;
    let user = call.user()?.clone();
    let made = call.run(move |registry| registry.repo_create(&user, &repo, change)).await?;
    Ok(reply::json(StatusCode::CREATED, &show_whole(&call, &made)?))
}

pub async fn repos(call: Call) -> Result<Reply> {
    let (caller, paging) = (anyone(&call).await?, Paging::of(&call)?);
    let (namespace, wish) = (call.param("ns").to_owned(), paging.wish(&call));
    let rows = call.run(move |registry| registry.repos_of(caller.user.as_ref(), &namespace, &wish)).await?;
    paging.reply(&call, &rows, show)
}

pub async fn search(call: Call) -> Result<Reply> {
    let (caller, paging) = (anyone(&call).await?, Paging::of(&call)?);
    let (user, slice) = (caller.user, paging.slice());
    let needle = call.query("query").unwrap_or_default().into_owned();
    let rows = call.run(move |registry| registry.repos_found(user.as_ref(), &needle, slice)).await?;
    paging.reply(&call, &rows, |repo| {
        json!({
            "repo_name": format!("{}/{}", repo.namespace, repo.name),
            "short_description": repo.description,
            "star_count": repo.stars,
            "pull_count": repo.pulls,
            "repo_owner": repo.namespace,
            "is_automated": false,
            "is_official": repo.namespace == crate::names::LIBRARY,
        })
    })
}

pub async fn repo(call: Call) -> Result<Reply> {
    let (user, repo) = (call.caller().user.clone(), call.repo()?.clone());
    let row = call.run(move |registry| registry.repo_seen(user.as_ref(), &repo)).await?;
    Ok(reply::json(StatusCode::OK, &show_whole(&call, &row)?))
}

pub async fn repo_change(mut call: Call) -> Result<Reply> {
    let mut form = Form::read(&mut call).await?;
    let change = RepoChange {
        description: form.text("description", DESCRIPTION_MAX),
        full_description: form.text("full_description", FULL_DESCRIPTION_MAX),
        private: form.flag("is_private"),
        labels: None,
    };
    match form.refusal() {
        Some(refusal) => Ok(refusal),
        None => change_to(&call, change).await,
    }
}

pub async fn privacy(mut call: Call) -> Result<Reply> {
    let mut form = Form::read(&mut call).await?;
    let there = form.is_there("is_private");
    let private = if there { form.flag("is_private") } else { None };
    match form.refusal() {
        Some(refusal) => Ok(refusal),
        None => change_to(&call, RepoChange { private, ..RepoChange::default() }).await,
    }
}

async fn change_to(call: &Call, change: RepoChange) -> Result<Reply> {
    let (user, repo) = (call.user()?.clone(), call.repo()?.clone());
    let row = call.run(move |registry| registry.repo_change(&user, &repo, change)).await?;
    Ok(reply::json(StatusCode::OK, &show_whole(call, &row)?))
}

pub async fn repo_delete(call: Call) -> Result<Reply> {
    let repo = call.repo()?.clone();
    call.run(move |registry| registry.repo_remove(&repo)).await?;
    Ok(reply::json(StatusCode::ACCEPTED, &json!({})))
}

// Stars -------------------------------------------------------------------------------

pub async fn star(call: Call) -> Result<Reply> {
    let (user, repo) = (call.user()?.clone(), call.repo()?.clone());
    call.run(move |registry| registry.star(&user, &repo)).await?;
    Ok(reply::json(StatusCode::CREATED, &json!({})))
}

pub async fn unstar(call: Call) -> Result<Reply> {
    let (user, repo) = (call.user()?.clone(), call.repo()?.clone());
    call.run(move |registry| registry.unstar(&user, &repo)).await?;
    Ok(reply::empty(StatusCode::NO_CONTENT))
}

// Tags --------------------------------------------------------------------------------

#[derive(Serialize)]
struct ShownTag<'a> {
    id: i64,
    name: &'a str,
    full_size: u64,
    repository: i64,
    creator: i64,
    last_updater: i64,
    last_updater_username: &'a str,
    last_updated: String,
    image_id: (),
    v2: bool,
    tag_status: &'static str,
    tag_last_pulled: (),
    tag_last_pushed: String,
    media_type: &'a str,
    content_type: &'static str,
    digest: &'a str,
    images: Vec<ShownImage<'a>>,
}

/// What a tag has for one platform.
#[derive(Serialize)]
struct ShownImage<'a> {
    architecture: &'a str,
    features: &'static str,
    variant: Option<&'a str>,
    digest: &'a str,
    os: &'a str,
    os_features: &'static str,
    os_version: Option<&'a str>,
    size: u64,
    status: &'static str,
    last_pulled: (),
    last_pushed: String,
}

fn show_tag(tag: &TagRow) -> ShownTag<'_> {
    let pushed = rfc3339_us(tag.pushed_us);
    let status = if tag.live { "active" } else { "inactive" };
    let pusher = tag.pushed_by.as_ref().map_or(0, |user| user.id);
    fn image<'a>(row: &'a PlatformRow, status: &'static str, pushed: &str) -> ShownImage<'a> {
        let Platform { os, architecture, variant, os_version } = &row.platform;
        ShownImage {
            architecture,
            features: "",
            variant: variant.as_deref(),
            digest: row.digest.as_str(),
            os,
            os_features: "",
            os_version: os_version.as_deref(),
            size: row.content_bytes,
            status,
            last_pulled: (),
            last_pushed: pushed.to_owned(),
        }
    }
    ShownTag {
        id: tag.id,
        name: &tag.name,
        full_size: tag.content_bytes,
        repository: tag.repo,
        creator: pusher,
        last_updater: pusher,
        last_updater_username: tag.pushed_by.as_ref().map_or("", |user| &user.name),
        last_updated: pushed.clone(),
        image_id: (),
        v2: true,
        tag_status: status,
        tag_last_pulled: (),
        tag_last_pushed: pushed.clone(),
        media_type: &tag.media_type,
        content_type: "image",
        digest: tag.digest.as_str(),
        images: tag.platforms.iter().map(|row| image(row, status, &pushed)).collect(),
    }
}

pub async fn tags(call: Call) -> Result<Reply> {
    let (repo, paging) = (call.repo()?.clone(), Paging::of(&call)?);
    let wish = paging.wish(&call);
    let rows = call.run(move |registry| registry.tag_rows(&repo, &wish)).await?;
    paging.reply(&call, &rows, show_tag)
}

pub async fn tag(call: Call) -> Result<Reply> {
    let (repo, tag) = (call.repo()?.clone(), Tag::parse(call.param("tag"))?);
    let row = call.run(move |registry| registry.tag_row(&repo, &tag)).await?;
    Ok(reply::json(StatusCode::OK, &show_tag(&row)))
}

pub async fn tag_delete(call: Call) -> Result<Reply> {
    let (repo, tag) = (call.repo()?.clone(), Tag::parse(call.param("tag"))?);
    call.run(move |registry| registry.manifest_delete(&repo, &Reference::Tag(tag))).await?;
    Ok(reply::empty(StatusCode::NO_CONTENT))
}

// Groups ------------------------------------------------------------------------------

fn show_grant(grant: &GroupGrant) -> Value {
    json!({"group_id": grant.group, "group_name": grant.name, "permission": grant.level.word()})
}

/// The group of the path. An id that is none is one we do not know.
fn group_id(call: &Call) -> Result<i64> {
    Ok(call.param("id").parse().map_err(|_| Kind::NotFound(Thing::User))?)
}

pub async fn grants(call: Call) -> Result<Reply> {
    let (repo, paging) = (call.repo()?.clone(), Paging::of(&call)?);
    let slice = paging.slice();
    let rows = call.run(move |registry| registry.group_grants(&repo, slice)).await?;
    paging.reply(&call, &rows, show_grant)
}

pub async fn grant_create(mut call: Call) -> Result<Reply> {
    let mut form = Form::read(&mut call).await?;
    let there = form.is_there("group_id");
    let group = if there { form.number("group_id") } else { None };
    grant_to(&call, form, group).await
}

/// The id of the path counts: clients send a 0 beside it.
pub async fn grant_change(mut call: Call) -> Result<Reply> {
    let group = group_id(&call)?;
    let form = Form::read(&mut call).await?;
    let repo = call.repo()?;
    call.look(|registry| registry.group_grant(repo, group))?;
    grant_to(&call, form, Some(group)).await
}

async fn grant_to(call: &Call, mut form: Form, group: Option<i64>) -> Result<Reply> {
    let permission = form.required("permission", 16);
    let level = Level::parse(&permission).ok();
    if level.is_none() {
        form.fault("permission", format!("\"{permission}\" is not a valid choice."));
    }
    let (Some(group), Some(level), None) = (group, level, form.refusal()) else {
        return form.refusal().ok_or(Kind::Invalid(Thing::Request).into());
    };
    let repo = call.repo()?.clone();
    match call.run(move |registry| registry.group_grant_set(&repo, group, level)).await {
        Err(error) if error.kind == Kind::Invalid(Thing::User) => {
            form.fault("group_id", error.detail());
            form.refusal().ok_or(error)
        }
        outcome => Ok(reply::json(StatusCode::OK, &show_grant(&outcome?))),
    }
}

pub async fn grant(call: Call) -> Result<Reply> {
    let (repo, group) = (call.repo()?, group_id(&call)?);
    let row = call.look(|registry| registry.group_grant(repo, group))?;
    Ok(reply::json(StatusCode::OK, &show_grant(&row)))
}

pub async fn grant_delete(call: Call) -> Result<Reply> {
    let (repo, group) = (call.repo()?.clone(), group_id(&call)?);
    call.run(move |registry| registry.group_grant_remove(&repo, group)).await?;
    Ok(reply::empty(StatusCode::NO_CONTENT))
}

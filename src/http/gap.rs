//! Across the air gap: archives of images, taken in as they come, and given out.

use hyper::StatusCode;
use hyper::header::{CONTENT_LENGTH, CONTENT_TYPE, WWW_AUTHENTICATE};
use tokio::sync::Semaphore;

use super::App;
use super::auth::{self, Caller, Credential};
use super::call::Call;
use super::oci::BASIC_CHALLENGE;
use super::ops;
use super::reply::{self, Body, ExportBody, Reply};
use super::route::{Asked, Dialect, Identified, Route, routes};
use crate::archive::{self, Naming};
use crate::bundle::{Format, Layout};
use crate::error::{Error, Kind, Result, Thing};
use crate::manifest::Platform;
use crate::names::RepoName;
use crate::registry::{Access, Allow, Choose, ImagePattern, ImportAsk, ImportBy, Piece};

pub static DIALECT: Dialect = Dialect {
    name: "gap",
    routes: ROUTES,
    identify,
    repo: |_| None,
    code: |kind| (ops::status(kind), ""),
    refuse,
    headers: &[],
};

#[rustfmt::skip]
const ROUTES: &[Route] = routes! {
    GET  "/export"    Known export;
    GET  "/inventory" Known inventory;
    POST "/import"    Bring import;
};

/// Takes in the archive that the body is. All of it appears at once, or nothing.
async fn import(mut call: Call) -> Result<Reply> {
    let (name, prefix) = (call.query("as"), call.query("repo"));
    let naming = Naming::parse(name.as_deref(), prefix.as_deref())?;
    let permit = call.app.import_permit()?;
    let allow: Vec<_> = call.query_all("allow").collect();
    let by = ImportBy { user: Some(call.user()?.clone()) };
    let ask = ImportAsk { by, naming, allow: Allow::parse(&allow)?, ..ImportAsk::default() };
    let (app, caller) = (call.app.clone(), call.caller().clone());
    let arrived = call
        .feed(permit, move |registry, body| {
            let mut import = registry.import_begin(ask, |_| {})?;
            let archive = archive::read(body, &mut import)?;
            // Only now is it known where to.
            import.finish(&archive, "POST /import", |repo| auth::permit(&app, &caller, Access::Push, repo))
        })
        .await?;
    Ok(reply::json(StatusCode::OK, &arrived))
}

/// Streams at once, each with its document in memory.
const EXPORTS_MAX: usize = 4;
static EXPORTS: Semaphore = Semaphore::const_new(EXPORTS_MAX);

/// A bundle of the images that the query names. What is named by itself must be readable; of what
/// matches, that which is not is not there. All is found and looked at before the first byte.
async fn export(call: Call) -> Result<Reply> {
    let images = images(&call)?;
    if images.is_empty() {
        return Err(Kind::Invalid(Thing::Request).because(
            "name the images: ?image=REPOSITORY, REPOSITORY:TAG or REPOSITORY@DIGEST, with * and ?",
        ));
    }
    let platforms = call.query_all("platform").map(|text| Platform::parse(&text)).collect::<Result<_>>()?;
    let choose = Choose { platforms, referrers: call.query("referrers").as_deref() != Some("false") };
    let format = match call.query("format").as_deref() {
        None | Some("bundle") => Format::Bundle,
        Some("docker-archive") => Format::DockerArchive,
        Some(_) => {
            return Err(Kind::Invalid(Thing::Request).because("the format is bundle or docker-archive"));
        }
    };
    let permit = EXPORTS.try_acquire().map_err(|_| Kind::TooMany { retry_secs: 30 })?;
    let (app, caller) = (call.app.clone(), call.caller().clone());
    let (export, first) = call
        .run(move |registry| {
            let contents = registry.choose(&images, &choose, &|repo| may_pull(&app, &caller, repo))?;
            let layout = match format {
                Format::Bundle => Layout::bundle(contents, None, None, None)?,
                Format::DockerArchive => Layout::docker_archive(contents)?,
            };
            let mut export = registry.export(layout, None);
            let first = registry.export_piece(&mut export, Piece::Small)?;
            Ok((export, first.unwrap_or_default()))
        })
        .await?;
    let all = export.layout().bytes;
    let mut reply = Reply::new(match call.is_head() {
        true => Body::Full(None),
        false => Body::Export(Box::new(ExportBody::new(call.app.clone(), export, first, permit))),
    });
    reply.headers_mut().insert(CONTENT_LENGTH, all.into());
    Ok(reply::with(reply, CONTENT_TYPE, "application/x-tar"))
}

/// What the caller may read of the site, for somebody who packs a bundle for it.
async fn inventory(call: Call) -> Result<Reply> {
    let named = images(&call)?;
    let permit = EXPORTS.try_acquire().map_err(|_| Kind::TooMany { retry_secs: 30 })?;
    let (app, caller) = (call.app.clone(), call.caller().clone());
    let bytes = call
        .run(move |registry| {
            let everything = caller.user.as_ref().is_some_and(|user| user.admin) && caller.may_list();
            let inventory = match named.is_empty() && everything {
                true => registry.inventory()?,
                false => {
                    let all = [ImagePattern::parse("*")?];
                    let named = if named.is_empty() { &all[..] } else { &named };
                    let choose = Choose { referrers: true, ..Choose::default() };
                    registry.choose(named, &choose, &|repo| may_pull(&app, &caller, repo))?.inventory()?
                }
            };
            inventory.bytes()
        })
        .await?;
    drop(permit);
    Ok(reply::with(reply::bytes(StatusCode::OK, bytes), CONTENT_TYPE, reply::JSON))
}

fn images(call: &Call) -> Result<Vec<ImagePattern>> {
    let mut images = Vec::new();
    for text in call.query_all("image") {
        let image = ImagePattern::parse(&text)?;
        // Missing or hidden, it is refused in the same words.
        if let Some(repo) = image.repo() {
            auth::permit(&call.app, call.caller(), Access::Pull, repo)?;
        }
        images.push(image);
    }
    Ok(images)
}

/// Whether what matches is there for this caller.
fn may_pull(app: &App, caller: &Caller, repo: &RepoName) -> Result<bool> {
    match auth::permit(app, caller, Access::Pull, repo) {
        Ok(()) => Ok(true),
        Err(error) if matches!(error.kind, Kind::Denied | Kind::TokenTooNarrow) => Ok(false),
        Err(error) => Err(error),
    }
}

fn identify<'a>(app: &'a App, asked: &'a Asked) -> Identified<'a> {
    Box::pin(async move {
        let header = asked.head.headers.get(hyper::header::AUTHORIZATION);
        let header = header.map(|value| value.to_str().map_err(|_| Kind::Unauthorized)).transpose()?;
        match auth::credential(header)? {
            Credential::Bearer(_) => {
                Err(Kind::Unauthorized.because("this address takes a name and a password, or a robot token"))
            }
            _ => auth::identify(app, asked).await,
        }
    })
}

fn refuse(app: &App, asked: &Asked, error: &Error) -> Reply {
    let reply = ops::refuse(app, asked, error);
    match reply.status() {
        StatusCode::UNAUTHORIZED => reply::with(reply, WWW_AUTHENTICATE, BASIC_CHALLENGE),
        _ => reply,
    }
}

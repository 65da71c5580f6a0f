//! Across the air gap: archives of images, taken in as they come.

use hyper::StatusCode;
use hyper::header::WWW_AUTHENTICATE;

use super::App;
use super::auth::{self, Credential};
use super::call::Call;
use super::oci::BASIC_CHALLENGE;
use super::ops;
use super::reply::{self, Reply};
use super::route::{Asked, Dialect, Identified, Route, routes};
use crate::archive::{self, Naming};
use crate::error::{Error, Kind, Result};
use crate::registry::{Access, Allow, ImportAsk, ImportBy};

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
    POST "/import" Bring import;
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

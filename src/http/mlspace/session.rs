//! Who asks: service clients log in by id and secret for a JWT; people and robots bring what
//! they bring everywhere. And in which workspace: what two more headers say.

use hyper::StatusCode;
use hyper::header::{AUTHORIZATION, CACHE_CONTROL, HeaderValue};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::fields::{Fields, coded};
use crate::error::{Kind, Result};
use crate::http::auth::{self, Caller, Credential, Limit};
use crate::http::call::Call;
use crate::http::reply::{self, Reply};
use crate::http::route::Asked;
use crate::http::{App, jwt};
use crate::names::Uuid;
use crate::registry::{Service, Workspace};

/// How long an access token is good.
const TOKEN_SECS: i64 = 3_600;

/// Tells these tokens from those of other dialects, which have the same key.
const ISSUER: &str = "outport-mlspace";

#[derive(Serialize, Deserialize)]
struct Claims {
    iss: String,
    /// The service client's id.
    sub: String,
    iat: i64,
    exp: i64,
    jti: String,
}

/// Who sent a request, confined to the workspace that it names.
pub async fn identify(app: &App, asked: &Asked) -> Result<Caller> {
    let header = asked.head.headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    let ours = match auth::credential(header)? {
        Credential::Bearer(token) => jwt::open::<Claims>(&app.token_key, &token),
        Credential::None | Credential::Password { .. } => None,
    };
    let caller = match ours.filter(|claims| claims.iss == ISSUER) {
        Some(claims) => verify(app, &claims)?,
        None => auth::identify(app, asked).await?,
    };
    confine(app, asked, caller)
}

/// The service client of an access token, if the token is in its time, and the client and its
/// user are there now.
fn verify(app: &App, claims: &Claims) -> Result<Caller> {
    if !jwt::is_in_time(app, claims.iat, claims.exp) {
        return Err(coded(Kind::TokenInvalid, 20, "access_token expired"));
    }
    let service = app.registry.service_still(&claims.sub)?.filter(|service| service.user.active);
    Ok(caller(service.ok_or(Kind::TokenInvalid)?))
}

fn caller(service: Service) -> Caller {
    Caller {
        user: Some(service.user),
        scopes: None,
        limit: Some(Limit { scope: service.scope, token: None }),
        within: Some(service.workspace),
    }
}

/// Checks `x-workspace-id` and `x-api-key`, where they are given. A request that names a
/// workspace reaches nothing outside it.
fn confine(app: &App, asked: &Asked, mut caller: Caller) -> Result<Caller> {
    if !caller.is_known() {
        return Ok(caller);
    }
    let headers = &asked.head.headers;
    let no_namespace = || coded(Kind::Unauthorized, 2, "namespace not found");
    if let Some(id) = headers.get("x-workspace-id") {
        let id = uuid_of(id).ok_or_else(no_namespace)?;
        let found = match caller.within.take() {
            // A service client knows of no other.
            Some(own) => Some(own).filter(|own| own.uuid == id.as_str()),
            None => app.registry.workspace(caller.user.as_ref(), &id)?,
        };
        caller.within = Some(found.ok_or_else(no_namespace)?);
    }
    if let Some(key) = headers.get("x-api-key") {
        let fits = match (key.to_str(), workspace_of(app, &caller)?) {
            (Ok(key), Some(workspace)) => app.registry.service_key_fits(&workspace, key)?,
            _ => false,
        };
        if !fits {
            return Err(coded(Kind::Unauthorized, 10, "Invalid api-key for workspace"));
        }
    }
    Ok(caller)
}

fn uuid_of(header: &HeaderValue) -> Option<Uuid> {
    Uuid::parse(header.to_str().ok()?.trim())
}

fn workspace_of(app: &App, caller: &Caller) -> Result<Option<Workspace>> {
    match (&caller.within, &caller.user) {
        (Some(workspace), _) => Ok(Some(workspace.clone())),
        (None, Some(user)) => app.registry.workspace_of(user),
        (None, None) => Ok(None),
    }
}

/// The workspace that a request is about: the one it names, or else a service client's or a
/// user's own.
pub fn workspace(call: &Call) -> Result<Workspace> {
    workspace_of(&call.app, call.caller())?.ok_or_else(|| coded(Kind::Unauthorized, 2, "namespace not found"))
}

/// `{"client_id", "client_secret"}` for an access token.
pub async fn service_auth(mut call: Call) -> Result<Reply> {
    let fields = Fields::read(&mut call).await?;
    let (id, secret) = (fields.text("client_id")?.to_owned(), fields.text("client_secret")?);
    let app = &call.app;
    let wrong = || coded(Kind::Unauthorized, 1, "invalid user credentials");
    let service = app.registry.service_verify(&id, secret)?.ok_or_else(wrong)?;
    if !service.user.active {
        return Err(Kind::Inactive.into());
    }
    confine(app, call.asked(), caller(service))?;
    let now = jwt::now_secs(app);
    let claims = Claims {
        iss: ISSUER.into(),
        sub: id,
        iat: now,
        exp: now + TOKEN_SECS,
        jti: call.asked().request_id.clone(),
    };
    let token = json!({
        "access_token": jwt::sign(&app.token_key, &claims)?,
        "token_type": "Bearer",
        "expires_in": TOKEN_SECS,
    });
    let body = json!({"token": token, "status": "ok", "error_code": 0, "error_message": ""});
    Ok(reply::with(reply::json(StatusCode::OK, &body), CACHE_CONTROL, "no-store"))
}

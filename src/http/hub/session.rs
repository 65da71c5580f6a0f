//! Logging in: a password, or a robot token, for a JWT; and reading it back.

use hyper::StatusCode;
use hyper::header::{AUTHORIZATION, CACHE_CONTROL, WWW_AUTHENTICATE};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::form::Form;
use crate::error::{Error, Kind, Result};
use crate::http::auth::{self, Caller, Credential, Limit};
use crate::http::call::Call;
use crate::http::reply::{self, Reply};
use crate::http::route::Asked;
use crate::http::{App, jwt};
use crate::registry::GENERATED_PREFIX;

/// How long what `users/login` and `auth/token` give is good.
const LOGIN_SECS: i64 = 12 * 3_600;
const TOKEN_SECS: i64 = 600;
/// Longest name and password that are looked at, in characters.
const CREDENTIAL_MAX: usize = 1_024;

/// Tells these tokens from the registry's, which have the same key.
const ISSUER: &str = "outport-hub";
const AUDIENCE: &str = "hub";

#[derive(Serialize, Deserialize)]
struct Claims {
    iss: String,
    aud: String,
    /// The user's UUID.
    sub: String,
    username: String,
    iat: i64,
    exp: i64,
    jti: String,
    /// The user's id and generation.
    user: (i64, i64),
    /// The robot token that was the password.
    #[serde(skip_serializing_if = "Option::is_none")]
    robot: Option<i64>,
}

/// Who sent a request: `JWT` and `Bearer` are one here; Basic is as everywhere, but that a
/// generated password is for the registry alone.
pub async fn identify(app: &App, asked: &Asked) -> Result<Caller> {
    let header = asked.head.headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    if let Some((scheme, token)) = header.and_then(|header| header.trim().split_once(' '))
        && (scheme.eq_ignore_ascii_case("jwt") || scheme.eq_ignore_ascii_case("bearer"))
    {
        return verify(app, token.trim());
    }
    if let Credential::Password { password, .. } = auth::credential(header)? {
        refuse_generated(&password)?;
    }
    auth::identify(app, asked).await
}

fn refuse_generated(password: &str) -> Result<()> {
    match password.starts_with(GENERATED_PREFIX) {
        true => Err(Kind::Unauthorized.because("a generated password is for pulls and pushes alone")),
        false => Ok(()),
    }
}

/// The user of a token, if it is one of this dialect's, in its time, and its user and the
/// robot token behind it are as they were.
fn verify(app: &App, token: &str) -> Result<Caller> {
    let invalid = || Error::from(Kind::TokenInvalid);
    let claims: Claims = jwt::open(&app.token_key, token).ok_or_else(invalid)?;
    let ours = claims.iss == ISSUER && claims.aud == AUDIENCE;
    if !ours || !jwt::is_in_time(app, claims.iat, claims.exp) {
        return Err(invalid());
    }
    let (id, generation) = claims.user;
    let user = app.registry.user_by_id(id)?.filter(|user| user.active && user.generation == generation);
    let user = user.ok_or_else(invalid)?;
    let limit = match claims.robot {
        None => None,
        Some(id) => Some(Limit::still(app, &user, id)?.ok_or_else(invalid)?),
    };
    Ok(Caller { user: Some(user), limit, ..Caller::default() })
}

/// Whoever asks where nobody need be known: nobody only where anonymous pulls are on, and a
/// robot token only if it reads everywhere.
pub async fn anyone(call: &Call) -> Result<Caller> {
    let caller = identify(&call.app, call.asked()).await?;
    if caller.user.is_none() && !call.app.options().anonymous_pull {
        return Err(Kind::Unauthorized.into());
    }
    super::check_reach(caller.scope(), crate::registry::Access::Pull)?;
    Ok(caller)
}

/// `{"username", "password"}` for `{"token"}`.
pub async fn login(call: Call) -> Result<Reply> {
    give(call, ["username", "password"], "token", LOGIN_SECS).await
}

/// `{"identifier", "secret"}` for `{"access_token"}`.
pub async fn token(call: Call) -> Result<Reply> {
    give(call, ["identifier", "secret"], "access_token", TOKEN_SECS).await
}

async fn give(mut call: Call, asks: [&str; 2], gives: &str, secs: i64) -> Result<Reply> {
    let mut form = Form::read(&mut call).await?;
    let [login, password] = asks.map(|name| form.required(name, CREDENTIAL_MAX));
    if let Some(refusal) = form.refusal() {
        return Ok(refusal);
    }
    let app = &call.app;
    let found = match refuse_generated(&password) {
        Ok(()) => auth::check(app, call.asked().peer.address, &login, &password).await,
        Err(error) => Err(error),
    };
    let caller = match found {
        Err(error) if error.kind == Kind::Unauthorized => {
            let detail = "Incorrect authentication credentials";
            let body = json!({"detail": detail, "message": detail});
            let reply = reply::json(StatusCode::UNAUTHORIZED, &body);
            return Ok(reply::with(reply, WWW_AUTHENTICATE, super::CHALLENGE));
        }
        outcome => outcome?,
    };
    let robot = caller.robot()?;
    let user = caller.user.ok_or(Kind::Unauthorized)?;
    let now = jwt::now_secs(app);
    let claims = Claims {
        iss: ISSUER.into(),
        aud: AUDIENCE.into(),
        sub: app.registry.person(&user)?.uuid,
        username: user.name,
        iat: now,
        exp: now + secs,
        jti: call.asked().request_id.clone(),
        user: (user.id, user.generation),
        robot,
    };
    let body = json!({gives: jwt::sign(&app.token_key, &claims)?});
    Ok(reply::with(reply::json(StatusCode::OK, &body), CACHE_CONTROL, "no-store"))
}

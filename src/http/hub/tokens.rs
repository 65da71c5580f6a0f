//! Personal access tokens: robot tokens by the names that Hub gives them.

use hyper::StatusCode;
use hyper::header::CACHE_CONTROL;
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::form::Form;
use super::pages::Paging;
use crate::error::{Kind, Result, Thing};
use crate::http::call::Call;
use crate::http::reply::{self, Reply};
use crate::http::rfc3339_us;
use crate::names::{UserName, Uuid};
use crate::registry::{Access, Pattern, TokenRow, User};

/// Hub's scopes, and what each lets a token do.
const SCOPES: [(&str, Access); 4] = [
    ("repo:public_read", Access::Pull),
    ("repo:read", Access::Pull),
    ("repo:write", Access::Push),
    ("repo:admin", Access::Delete),
];
const LABEL_MAX: usize = 100;

/// Whose tokens: somebody's with a password, for no token shall make another.
fn owner(call: &Call) -> Result<User> {
    match call.caller().limit {
        Some(_) => Err(Kind::Denied.into()),
        None => Ok(call.user()?.clone()),
    }
}

fn uuid(call: &Call) -> Result<Uuid> {
    Ok(Uuid::parse(call.param("uuid")).ok_or(Kind::NotFound(Thing::User))?)
}

fn show(row: &TokenRow) -> Value {
    let scope = match row.scope.access {
        Access::Pull => "repo:read",
        Access::Push => "repo:write",
        Access::Delete => "repo:admin",
    };
    json!({
        "uuid": row.uuid,
        "client_id": "",
        "creator_ip": "",
        "creator_ua": "",
        "created_at": rfc3339_us(row.created_us),
        "last_used": null,
        "generated_by": "manual",
        "is_active": row.active,
        "token": "",
        "token_label": row.label,
        "scopes": [scope],
        // Not Hub's: tokens of the command line may be for some repositories only.
        "pattern": row.scope.pattern,
        "expires_at": row.expires_us.map(rfc3339_us),
    })
}

pub async fn pats(call: Call) -> Result<Reply> {
    let (owner, paging) = (owner(&call)?, Paging::of(&call)?);
    let slice = paging.slice();
    let rows = call.run(move |registry| registry.tokens_of(&owner, slice)).await?;
    paging.reply(&call, &rows, show)
}

/// Makes a token. This answer is the only one that shows it.
pub async fn pat_create(mut call: Call) -> Result<Reply> {
    let owner = UserName::parse(&owner(&call)?.name)?;
    let mut form = Form::read(&mut call).await?;
    let label = form.required("token_label", LABEL_MAX);
    let access = access_of(&call, &mut form);
    let expires_us = expiry_of(&call, &mut form);
    if label.len() > LABEL_MAX || label.chars().any(char::is_control) {
        form.fault("token_label", "Ensure this field has no control characters and at most 100 bytes.");
    }
    let (Some(access), None) = (access, form.refusal()) else {
        return form.refusal().ok_or(Kind::Invalid(Thing::Request).into());
    };
    let (row, token) = call
        .run(move |registry| {
            let (id, token) = registry.token_new(&owner, &label, access, &Pattern::All, expires_us)?;
            Ok((registry.token_row(id)?, token))
        })
        .await?;
    let mut body = show(&row);
    body["token"] = token.into();
    Ok(reply::with(reply::json(StatusCode::CREATED, &body), CACHE_CONTROL, "no-store"))
}

/// The most that the scopes allow. Hub's older address knew none: its tokens may everything.
fn access_of(call: &Call, form: &mut Form) -> Option<Access> {
    let legacy = call.head().uri.path().starts_with("/v2/api_tokens");
    let Some(scopes) = form.texts("scopes") else {
        if legacy {
            return Some(Access::Delete);
        }
        form.is_there("scopes");
        return None;
    };
    let mut most = None;
    for scope in &scopes {
        let Some((_, access)) = SCOPES.iter().find(|(name, _)| name == scope) else {
            let known: Vec<&str> = SCOPES.iter().map(|(name, _)| *name).collect();
            form.fault("scopes", format!("A scope is one of {}.", known.join(", ")));
            return None;
        };
        most = most.max(Some(*access));
    }
    if most.is_none() {
        form.fault("scopes", "This list may not be empty.");
    }
    most
}

/// When a token ends, in microseconds since 1970; None, or a fault, if it does not say.
fn expiry_of(call: &Call, form: &mut Form) -> Option<i64> {
    let text = form.text("expires_at", 64).filter(|text| !text.is_empty())?;
    let end = OffsetDateTime::parse(&text, &Rfc3339).ok();
    let end_us = end.and_then(|end| i64::try_from(end.unix_timestamp_nanos() / 1_000).ok());
    match end_us {
        None => form.fault("expires_at", "A time is written like 2030-01-31T12:00:00Z."),
        Some(us) if us <= (call.app.registry.clock().wall_us)() => {
            form.fault("expires_at", "This time has passed.");
        }
        Some(_) => {}
    }
    end_us
}

pub async fn pat(call: Call) -> Result<Reply> {
    let (owner, uuid) = (owner(&call)?, uuid(&call)?);
    let row = call.look(|registry| registry.token_of(&owner, &uuid))?;
    Ok(reply::json(StatusCode::OK, &show(&row)))
}

pub async fn pat_change(mut call: Call) -> Result<Reply> {
    let (owner, uuid) = (owner(&call)?, uuid(&call)?);
    let mut form = Form::read(&mut call).await?;
    let (label, active) = (form.text("token_label", LABEL_MAX), form.flag("is_active"));
    if let Some(refusal) = form.refusal() {
        return Ok(refusal);
    }
    let row = call.run(move |registry| registry.token_change(&owner, &uuid, label, active)).await?;
    Ok(reply::json(StatusCode::OK, &show(&row)))
}

pub async fn pat_delete(call: Call) -> Result<Reply> {
    let (owner, uuid) = (owner(&call)?, uuid(&call)?);
    call.run(move |registry| registry.token_remove(&owner, &uuid)).await?;
    Ok(reply::empty(StatusCode::NO_CONTENT))
}

//! Docker Hub's API, version 2: `/v2/repositories/…`, `/v2/orgs/…` and their like
//! (docs.docker.com/reference/api/hub), in both spellings that scripts know.
//!
//! A repository of more than two components, `org/a/b`, is named with its slashes
//! percent-encoded: `/v2/repositories/org/a%2Fb/`.

mod form;
mod orgs;
mod pages;
mod repos;
mod session;
mod tokens;

use hyper::StatusCode;
use hyper::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use serde_json::json;
use std::borrow::Cow;

use super::App;
use super::call::Call;
use super::reply::{self, Reply};
use super::route::{Asked, Dialect, Params, Route, routes};
use crate::error::{Error, Kind, Result, Thing};
use crate::names::RepoName;
use crate::registry::Access;
use orgs::{
    group, group_change, group_create, group_delete, group_join, group_leave, group_members, groups, org,
    org_leave, org_members, org_role, orgs, user,
};
use repos::{
    grant, grant_change, grant_create, grant_delete, grants, privacy, repo, repo_change, repo_create,
    repo_delete, repos, search, star, tag, tag_delete, tags, unstar,
};
use session::{login, token};
use tokens::{pat, pat_change, pat_create, pat_delete, pats};

pub static DIALECT: Dialect = Dialect {
    name: "hub",
    routes: ROUTES,
    identify: |app, asked| Box::pin(session::identify(app, asked)),
    repo: repo_of,
    code,
    refuse,
    headers: &[],
};

#[rustfmt::skip]
const ROUTES: &[Route] = routes! {
    POST   "/v2/users/login[/]"                                   Nobody login;
    POST   "/v2/auth/token[/]"                                    Nobody token;
    GET    "/v2/user[/]"                                          Known  user;
    GET    "/v2/user/orgs[/]"                                     Known  orgs;

    GET    "/v2/search/repositories[/]"                           Nobody search;
    POST   "/v2/repositories[/]"                                  Known  repo_create;
    GET    "/v2/repositories/{ns}[/]"                             Nobody repos;
    POST   "/v2/repositories/{ns}[/]"                             Known  repo_create;
    GET    "/v2/repositories/{ns}/{repo}[/]"                      Pull   repo;
    PATCH  "/v2/repositories/{ns}/{repo}[/]"                      Delete repo_change;
    DELETE "/v2/repositories/{ns}/{repo}[/]"                      Delete repo_delete;
    POST   "/v2/repositories/{ns}/{repo}/privacy[/]"              Delete privacy;
    GET    "/v2/repositories/{ns}/{repo}/tags[/]"                 Pull   tags;
    GET    "/v2/repositories/{ns}/{repo}/tags/{tag}[/]"           Pull   tag;
    DELETE "/v2/repositories/{ns}/{repo}/tags/{tag}[/]"           Delete tag_delete;
    POST   "/v2/repositories/{ns}/{repo}/stars[/]"                Pull   star;
    DELETE "/v2/repositories/{ns}/{repo}/stars[/]"                Pull   unstar;
    GET    "/v2/repositories/{ns}/{repo}/groups[/]"               Delete grants;
    POST   "/v2/repositories/{ns}/{repo}/groups[/]"               Delete grant_create;
    GET    "/v2/repositories/{ns}/{repo}/groups/{id}[/]"          Delete grant;
    PATCH  "/v2/repositories/{ns}/{repo}/groups/{id}[/]"          Delete grant_change;
    DELETE "/v2/repositories/{ns}/{repo}/groups/{id}[/]"          Delete grant_delete;

    GET    "/v2/namespaces/{ns}/repositories[/]"                  Nobody repos;
    POST   "/v2/namespaces/{ns}/repositories[/]"                  Known  repo_create;
    GET    "/v2/namespaces/{ns}/repositories/{repo}[/]"           Pull   repo;
    PATCH  "/v2/namespaces/{ns}/repositories/{repo}[/]"           Delete repo_change;
    DELETE "/v2/namespaces/{ns}/repositories/{repo}[/]"           Delete repo_delete;
    GET    "/v2/namespaces/{ns}/repositories/{repo}/tags[/]"      Pull   tags;
    GET    "/v2/namespaces/{ns}/repositories/{repo}/tags/{tag}[/]" Pull  tag;
    DELETE "/v2/namespaces/{ns}/repositories/{repo}/tags/{tag}[/]" Delete tag_delete;

    GET    "/v2/orgs/{org}[/]"                                    Known  org;
    GET    "/v2/orgs/{org}/members[/]"                            Known  org_members;
    PUT    "/v2/orgs/{org}/members/{user}[/]"                     Known  org_role;
    DELETE "/v2/orgs/{org}/members/{user}[/]"                     Known  org_leave;
    GET    "/v2/orgs/{org}/groups[/]"                             Known  groups;
    POST   "/v2/orgs/{org}/groups[/]"                             Known  group_create;
    GET    "/v2/orgs/{org}/groups/{group}[/]"                     Known  group;
    PUT    "/v2/orgs/{org}/groups/{group}[/]"                     Known  group_change;
    PATCH  "/v2/orgs/{org}/groups/{group}[/]"                     Known  group_change;
    DELETE "/v2/orgs/{org}/groups/{group}[/]"                     Known  group_delete;
    GET    "/v2/orgs/{org}/groups/{group}/members[/]"             Known  group_members;
    POST   "/v2/orgs/{org}/groups/{group}/members[/]"             Known  group_join;
    DELETE "/v2/orgs/{org}/groups/{group}/members/{user}[/]"      Known  group_leave;

    GET    "/v2/access-tokens[/]"                                 Known  pats;
    POST   "/v2/access-tokens[/]"                                 Known  pat_create;
    GET    "/v2/access-tokens/{uuid}[/]"                          Known  pat;
    PATCH  "/v2/access-tokens/{uuid}[/]"                          Known  pat_change;
    DELETE "/v2/access-tokens/{uuid}[/]"                          Known  pat_delete;
    GET    "/v2/api_tokens[/]"                                    Known  pats;
    POST   "/v2/api_tokens[/]"                                    Known  pat_create;
    GET    "/v2/api_tokens/{uuid}[/]"                             Known  pat;
    PATCH  "/v2/api_tokens/{uuid}[/]"                             Known  pat_change;
    DELETE "/v2/api_tokens/{uuid}[/]"                             Known  pat_delete;
};

fn repo_of(params: &Params) -> Option<Result<RepoName>> {
    let (namespace, name) = (params.get("ns")?, params.get("repo")?);
    // The one place where an encoded slash is one: Hub's addresses have no room for more parts.
    let name = name.replace("%2F", "/").replace("%2f", "/");
    Some(RepoName::parse(&format!("{namespace}/{name}")))
}

/// Refuses a robot token that does not reach this far everywhere: what is asked here is
/// about more than one repository.
fn check_reach(limit: Option<&crate::registry::TokenScope>, access: Access) -> Result<()> {
    match limit {
        Some(limit) if !limit.is_for_all() || limit.access < access => Err(Kind::Denied.into()),
        _ => Ok(()),
    }
}

/// The same for whoever asks.
fn check_caller(call: &Call, access: Access) -> Result<()> {
    check_reach(call.caller().scope(), access)
}

// Refusals -------------------------------------------------------------------------

const CHALLENGE: &str = "JWT realm=\"api\"";

/// Each kind's status; Hub has no codes.
#[rustfmt::skip]
fn code(kind: Kind) -> (u16, &'static str) {
    let status = match kind {
        Kind::NotFound(_)          => 404,
        Kind::Invalid(_)           => 400,
        // Django calls a duplicate a bad value.
        Kind::Exists(_)            => 400,
        Kind::DigestMismatch       => 400,
        Kind::LengthMismatch       => 400,
        Kind::BlobMissing          => 400,
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

/// `{"detail","message"}`, the same sentence twice, for clients show the one or the other.
fn refuse(_: &App, asked: &Asked, error: &Error) -> Reply {
    let (status, _) = code(error.kind);
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    // The sentences of Django REST framework, where it has some: scripts compare them.
    let detail: Cow<'static, str> = match error.kind {
        Kind::Exists(Thing::Repo) => {
            let all = ["Repository with this Name and Namespace already exists."];
            return reply::json(status, &json!({"__all__": all}));
        }
        Kind::Unauthorized if !asked.head.headers.contains_key(AUTHORIZATION) => {
            "Authentication credentials were not provided.".into()
        }
        Kind::Denied | Kind::TokenTooNarrow => "You do not have permission to perform this action.".into(),
        Kind::NotFound(Thing::Page) => "Invalid page.".into(),
        Kind::NotFound(_) => "Not found.".into(),
        _ => error.detail(),
    };
    let mut body = json!({"detail": detail, "message": detail});
    if error.kind.is_ours() {
        body["request_id"] = asked.request_id.as_str().into();
    }
    let reply = reply::json(status, &body);
    match status {
        StatusCode::UNAUTHORIZED => reply::with(reply, WWW_AUTHENTICATE, CHALLENGE),
        _ => reply,
    }
}

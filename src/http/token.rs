//! The token service: `/token`, by GET and by POST (Docker's token and OAuth2 documents).
//!
//! Tokens are JWTs signed with this directory's own key by HMAC-SHA256, and nothing in a
//! token ever chooses key or algorithm. A token narrows what its user may do; rights are
//! asked again with every request, so what is taken away is gone at once.

use hyper::StatusCode;
use hyper::header::{CACHE_CONTROL, WWW_AUTHENTICATE};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::auth::{self, Caller, Limit};
use super::call::Call;
use super::reply::{self, Reply};
use super::route::{Asked, Dialect, named_repo, routes};
use super::{App, jwt, oci};
use crate::error::{Error, Kind, Result, Thing};
use crate::names::RepoName;
use crate::registry::Access;

pub static DIALECT: Dialect = Dialect {
    name: "token",
    routes: ROUTES,
    identify: |app, asked| Box::pin(auth::identify(app, asked)),
    repo: named_repo,
    code: oci::code,
    refuse,
    headers: &[],
};

const ROUTES: &[super::route::Route] = routes! {
    GET  "/token" Nobody token_get;
    POST "/token" Nobody token_post;
};

/// How long a token is good. A push renews it as it goes.
const TOKEN_SECS: i64 = 300;
/// Most scopes one token is asked for. containerd asks for one per repository it has
/// seen a layer in.
const SCOPES_MAX: usize = 64;
const FORM_BYTES_MAX: usize = 64 << 10;

/// What a token is for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scope {
    #[serde(rename = "type")]
    kind: String,
    name: String,
    actions: Vec<String>,
}

impl Scope {
    /// `type:name:action,action`; names may hold a host and port, so the last colon counts.
    fn parse(text: &str) -> Option<Scope> {
        let (rest, actions) = text.rsplit_once(':')?;
        let (kind, name) = rest.split_once(':')?;
        // repository(plugin) is a repository.
        let kind = kind.split('(').next().unwrap_or_default();
        Some(Scope {
            kind: kind.to_owned(),
            name: name.to_owned(),
            actions: actions.split(',').filter(|a| !a.is_empty()).map(str::to_owned).collect(),
        })
    }

    pub fn of_repo(repo: &RepoName, access: &[Access]) -> Scope {
        let actions = access.iter().map(|access| access.word().to_owned()).collect();
        Scope { kind: "repository".into(), name: repo.full().to_owned(), actions }
    }

    pub fn covers(&self, access: Access, repo: &RepoName) -> bool {
        self.kind == "repository"
            && RepoName::parse(&self.name).is_ok_and(|name| name == *repo)
            && self.actions.iter().any(|action| action == access.word())
    }

    pub fn covers_catalog(&self) -> bool {
        self.kind == "registry" && self.name == "catalog"
    }
}

#[derive(Serialize, Deserialize)]
struct Claims {
    iss: String,
    aud: String,
    sub: String,
    iat: i64,
    nbf: i64,
    exp: i64,
    jti: String,
    access: Vec<Scope>,
    /// The user's id and generation; absent for nobody.
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<(i64, i64)>,
    /// The robot token it was asked for with.
    #[serde(skip_serializing_if = "Option::is_none")]
    robot: Option<i64>,
}

/// Tells these tokens from those of other dialects, which have the same key.
const ISSUER: &str = "outport";

/// The bearer of a token, if it is one of ours, in its time, and its user has not changed.
pub fn verify(app: &App, token: &str) -> Result<Caller> {
    let invalid = || Error::from(Kind::TokenInvalid);
    let claims: Claims = jwt::open(&app.token_key, token).ok_or_else(invalid)?;
    if claims.iss != ISSUER || !jwt::is_in_time(app, claims.iat, claims.exp) {
        return Err(invalid());
    }
    let user = match claims.user {
        // Nobody's is good while nobody may pull.
        None if !app.options().anonymous_pull => return Err(invalid()),
        None => None,
        Some((id, generation)) => {
            let user = app.registry.user_by_id(id)?.filter(|user| user.generation == generation);
            Some(user.ok_or_else(invalid)?)
        }
    };
    let limit = match (claims.robot, &user) {
        (None, _) => None,
        (Some(id), Some(user)) => Some(Limit::still(app, user, id)?.ok_or_else(invalid)?),
        (Some(_), None) => return Err(invalid()),
    };
    Ok(Caller { user, scopes: Some(claims.access), limit, ..Caller::default() })
}

/// GET: Basic or nobody; `service`, any number of `scope`.
async fn token_get(call: Call) -> Result<Reply> {
    let caller = auth::identify(&call.app, call.asked()).await?;
    let scopes: Vec<String> = call.query_all("scope").map(std::borrow::Cow::into_owned).collect();
    let service = call.query("service").unwrap_or_default().into_owned();
    issue(&call, caller, &service, &scopes, false)
}

/// POST: an OAuth2 form with a password. containerd asks this way first.
async fn token_post(mut call: Call) -> Result<Reply> {
    let form = call.body(FORM_BYTES_MAX, Thing::Request).await?;
    let field = |name: &str| {
        let mut pairs = form_urlencoded::parse(&form);
        pairs.find(|(key, _)| key == name).map(|(_, value)| value.into_owned())
    };
    let caller = match field("grant_type").as_deref() {
        Some("password") => {
            let login = field("username").unwrap_or_default();
            let password = field("password").unwrap_or_default();
            let address = call.asked().peer.address;
            auth::check(&call.app, address, &login, &password).await?
        }
        // Some clients POST with Basic; others without anything, for a public pull.
        None => auth::identify(&call.app, call.asked()).await?,
        Some(_) => {
            let body = json!({"error": "unsupported_grant_type", "error_description":
                "this registry grants tokens for passwords; it issues no refresh tokens"});
            return Ok(reply::json(StatusCode::BAD_REQUEST, &body));
        }
    };
    let scopes: Vec<String> = form_urlencoded::parse(&form)
        .filter(|(key, _)| key == "scope")
        .map(|(_, value)| value.into_owned())
        .collect();
    let service = field("service").unwrap_or_default();
    issue(&call, caller, &service, &scopes, true)
}

/// A token for what was asked as far as it may be had; asking for more is no error.
fn issue(call: &Call, caller: Caller, service: &str, scopes: &[String], oauth: bool) -> Result<Reply> {
    let app = &call.app;
    // A token that could fetch another would never end, and would grow.
    if caller.scopes.is_some() {
        return Err(Kind::Unauthorized.because("tokens are issued for passwords, not for tokens"));
    }
    if caller.user.is_none() && !app.options().anonymous_pull {
        return Err(Kind::Unauthorized.into());
    }
    let mut access: Vec<Scope> = Vec::new();
    for text in scopes.iter().flat_map(|scopes| scopes.split_whitespace()).take(SCOPES_MAX) {
        let Some(asked) = Scope::parse(text) else { continue };
        let Some(granted) = grant(app, &caller, asked)? else { continue };
        // One scope asked for twice with different actions is one with both.
        match access.iter_mut().find(|known| known.kind == granted.kind && known.name == granted.name) {
            Some(known) => {
                let more = granted.actions.into_iter().filter(|a| !known.actions.contains(a));
                let more: Vec<String> = more.collect();
                known.actions.extend(more);
            }
            None => access.push(granted),
        }
    }
    let now = jwt::now_secs(app);
    let scope: Vec<String> = access
        .iter()
        .map(|scope| format!("{}:{}:{}", scope.kind, scope.name, scope.actions.join(",")))
        .collect();
    let claims = Claims {
        iss: ISSUER.into(),
        aud: service.chars().take(255).collect(),
        sub: caller.user.as_ref().map(|user| user.name.clone()).unwrap_or_default(),
        iat: now,
        nbf: now,
        exp: now + TOKEN_SECS,
        jti: call.asked().request_id.clone(),
        access,
        robot: caller.robot()?,
        user: caller.user.map(|user| (user.id, user.generation)),
    };
    let token = jwt::sign(&app.token_key, &claims)?;
    let mut body = json!({
        "token": token,
        "access_token": token,
        "expires_in": TOKEN_SECS,
        "issued_at": super::rfc3339(now),
    });
    if oauth {
        body["scope"] = scope.join(" ").into();
    }
    Ok(reply::with(reply::json(StatusCode::OK, &body), CACHE_CONTROL, "no-store"))
}

/// The part of a scope this caller may have; None if that is nothing.
fn grant(app: &App, caller: &Caller, asked: Scope) -> Result<Option<Scope>> {
    let all = asked.actions.iter().any(|action| action == "*");
    let actions: Vec<String> = match asked.kind.as_str() {
        "repository" => {
            let Ok(repo) = RepoName::parse(&asked.name) else { return Ok(None) };
            let mut actions = Vec::new();
            for access in Access::ALL {
                let wanted = all || asked.actions.iter().any(|action| action == access.word());
                if wanted
                    && caller.reaches(access, &repo)
                    && app.registry.may(caller.user.as_ref(), access, &repo)?
                {
                    actions.push(access.word().to_owned());
                }
            }
            actions
        }
        // What the catalog shows is decided when it is asked for.
        "registry" if asked.name == "catalog" && (caller.user.is_none() || caller.may_list()) => {
            vec!["*".to_owned()]
        }
        _ => Vec::new(),
    };
    Ok((!actions.is_empty()).then_some(Scope { actions, ..asked }))
}

/// As the registry refuses, but a token service that were to ask for a token would send
/// clients in a circle: it asks for a password.
fn refuse(_: &App, asked: &Asked, error: &Error) -> Reply {
    let reply = oci::errors(asked, error);
    match error.kind {
        Kind::Unauthorized | Kind::TokenInvalid | Kind::TokenTooNarrow => {
            reply::with(reply, WWW_AUTHENTICATE, oci::BASIC_CHALLENGE)
        }
        _ => reply,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_are_cut_at_their_last_colon() {
        let scope = Scope::parse("repository:localhost:5000/foo:pull,push").expect("parses");
        assert_eq!((scope.name.as_str(), scope.actions.len()), ("localhost:5000/foo", 2));
        assert_eq!(Scope::parse("repository(plugin):a/b:pull").expect("parses").kind, "repository");
        assert_eq!(Scope::parse("registry:catalog:*").expect("parses").actions, ["*"]);
        assert!(Scope::parse("nonsense").is_none());
    }

    #[test]
    fn a_scope_covers_a_repository_by_either_of_its_names() {
        let scope = Scope::parse("repository:nginx:pull").expect("parses");
        let name = |text| RepoName::parse(text).expect("parses");
        assert!(scope.covers(Access::Pull, &name("library/nginx")));
        assert!(!scope.covers(Access::Push, &name("nginx")));
        assert!(!scope.covers(Access::Pull, &name("nginx2")));
    }
}

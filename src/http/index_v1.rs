//! Docker's v1 index, `/v1/…` (the Docker Index API document), and of the v1 registry what
//! can be read without v1 layers: there are none here.
//!
//! A name without a slash is `library/name`, and only two-part names may have a slash at
//! the end where something follows: `/v1/repositories/a/images` lists library/a, and
//! `/v1/repositories/a/images/` is the repository a/images.

use hyper::StatusCode;
use hyper::header::{AUTHORIZATION, HeaderName, WWW_AUTHENTICATE};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Map, Value, json};

use super::App;
use super::auth::{self, Caller};
use super::call::Call;
use super::reply::{self, Reply};
use super::route::{Asked, Dialect, Identified, Needs, Params, Route, routes};
use crate::error::{Error, Kind, Result, Thing};
use crate::manifest::Object;
use crate::names::{LIBRARY, RepoName, Tag, UserName};
use crate::registry::{Access, SignUpAsk, Slice, User, V1Image, v1_word};

pub static DIALECT: Dialect = Dialect {
    name: "v1",
    routes: ROUTES,
    identify,
    repo,
    code: |kind| (status(kind), ""),
    refuse,
    headers: &[("cache-control", "no-store"), ("vary", "Accept")],
};

#[rustfmt::skip]
const ROUTES: &[Route] = routes! {
    GET    "/v1/_ping"                                  Nobody ping;
    GET    "/_ping"                                     Nobody ping;
    GET    "/v1/search"                                 Nobody search;
    GET    "/v1/users[/]"                               Known  login;
    POST   "/v1/users[/]"                               Nobody sign_up;
    PUT    "/v1/users/{user}[/]"                        Known  user_put;
    GET    "/v1/repositories/{ns}/{name}/images[/]"     Pull   images_get;
    PUT    "/v1/repositories/{ns}/{name}/images[/]"     Push   images_put;
    PUT    "/v1/repositories/{ns}/{name}/auth[/]"       Pull   auth_put;
    GET    "/v1/repositories/{ns}/{name}/tags[/]"       Pull   tags;
    GET    "/v1/repositories/{ns}/{name}/properties[/]" Pull   properties;
    GET    "/v1/repositories/{ns}/{name}/tags/{tag}"    Pull   tag;
    GET    "/v1/repositories/{name}/images"             Pull   images_get;
    PUT    "/v1/repositories/{name}/images"             Push   images_put;
    DELETE "/v1/repositories/{name}/images"             Known  unsupported;
    PUT    "/v1/repositories/{name}/auth"               Pull   auth_put;
    DELETE "/v1/repositories/{name}/auth"               Known  unsupported;
    GET    "/v1/repositories/{name}/tags"               Pull   tags;
    PUT    "/v1/repositories/{name}/tags"               Known  unsupported;
    DELETE "/v1/repositories/{name}/tags"               Known  unsupported;
    GET    "/v1/repositories/{name}/properties"         Pull   properties;
    PUT    "/v1/repositories/{name}/properties"         Known  unsupported;
    DELETE "/v1/repositories/{name}/properties"         Known  unsupported;
    GET    "/v1/repositories/{name}/tags/{tag}"         Pull   tag;
    PUT    "/v1/repositories/{ns}/{name}[/]"            Push   repo_put;
    DELETE "/v1/repositories/{ns}/{name}[/]"            Delete repo_delete;
    PUT    "/v1/repositories/{name}[/]"                 Push   repo_put;
    DELETE "/v1/repositories/{name}[/]"                 Delete repo_delete;
};

/// Longest list of images, in bytes; as many of them as are taken at once fit.
const IMAGES_BYTES_MAX: usize = 512 << 10;
/// What comes with a DELETE: `""`, and nobody reads it.
const NOTHING_BYTES_MAX: usize = 4 << 10;
/// Longest and usual page of a search.
const SEARCH_MAX: u32 = 100;
const SEARCH_USUAL: u32 = 25;

const DOCKER_TOKEN: HeaderName = HeaderName::from_static("x-docker-token");
const DOCKER_ENDPOINTS: HeaderName = HeaderName::from_static("x-docker-endpoints");
const REGISTRY_STANDALONE: HeaderName = HeaderName::from_static("x-docker-registry-standalone");
const REGISTRY_VERSION: HeaderName = HeaderName::from_static("x-docker-registry-version");

fn repo(params: &Params) -> Option<Result<RepoName>> {
    let name = params.get("name")?;
    Some(match params.get("ns") {
        Some(namespace) => RepoName::parse(&format!("{namespace}/{name}")),
        None => RepoName::parse(name),
    })
}

// Who is asking -----------------------------------------------------------------

/// As everywhere, or by a token where a repository is named.
fn identify<'a>(app: &'a App, asked: &'a Asked) -> Identified<'a> {
    Box::pin(async move {
        let Some(signature) = signature(asked) else { return auth::identify(app, asked).await };
        let repo = asked.repo().transpose()?.ok_or(Kind::Unauthorized)?;
        let token = app.run(move |registry| registry.v1_token(&signature, Some(&repo))).await?;
        let token = token.ok_or(Kind::TokenInvalid)?;
        let access: &[Access] = match token.access {
            Access::Pull => &[Access::Pull],
            Access::Push => &[Access::Pull, Access::Push],
            Access::Delete => &[Access::Pull, Access::Delete],
        };
        Ok(Caller::narrowed(token.user, &token.repo, access))
    })
}

/// The signature of an `Authorization: Token …`; empty if it has none. None if that is not
/// the scheme.
fn signature(asked: &Asked) -> Option<String> {
    token_signature(asked.head.headers.get(AUTHORIZATION)?.to_str().ok()?)
}

/// Clients send back what they were sent, or that behind one more `Token `, or several of
/// them with commas. Nothing but the signature counts: what it is for, we wrote down.
fn token_signature(header: &str) -> Option<String> {
    let (scheme, rest) = header.trim().split_once(' ').unwrap_or((header.trim(), ""));
    if !scheme.eq_ignore_ascii_case("token") {
        return None;
    }
    let value = rest.split([',', ' ']).find_map(|part| {
        let (key, value) = part.trim().split_once(['=', ':'])?;
        key.trim().eq_ignore_ascii_case("signature").then(|| value.trim().trim_matches('"'))
    });
    Some(value.unwrap_or_default().to_owned())
}

/// An answer with a token, if one was asked for. None is made for the bearer of another:
/// it would outlive it.
async fn with_token(call: &Call, access: Access, reply: Reply) -> Result<Reply> {
    let wanted = call.header(DOCKER_TOKEN).is_some_and(|value| value.trim().eq_ignore_ascii_case("true"));
    let caller = call.caller();
    if !wanted || (caller.is_known() && caller.by_password().is_none()) {
        return Ok(reply);
    }
    let (user, repo) = (caller.by_password().cloned(), call.repo()?.clone());
    let (word, full) = (v1_word(access), repo.full().to_owned());
    let signature = call.run(move |registry| registry.v1_token_new(user.as_ref(), &repo, access)).await?;
    let token = format!("signature={signature},repository=\"{full}\",access={word}");
    let reply = reply::with(reply, WWW_AUTHENTICATE, format!("Token {token}"));
    let reply = reply::with(reply, DOCKER_TOKEN, token);
    // Without a scheme: clients put the one before it by which they came.
    Ok(reply::with(reply, DOCKER_ENDPOINTS, call.app.origin(call.asked()).1))
}

// Repositories ------------------------------------------------------------------

async fn repo_put(mut call: Call) -> Result<Reply> {
    let images = images(&mut call).await?;
    let (user, repo) = (call.user()?.clone(), call.repo()?.clone());
    call.run(move |registry| registry.repo_announce(&user, &repo, images)).await?;
    with_token(&call, Access::Push, said(StatusCode::OK, "")).await
}

/// By password it takes the repository out of every list at once, and gives a token; with
/// that, or by password once more, it is confirmed.
async fn repo_delete(mut call: Call) -> Result<Reply> {
    call.body(NOTHING_BYTES_MAX, Thing::Request).await?;
    if signature(call.asked()).is_some() {
        // It was given when the repository was deleted. One made since is not what it is for.
        return Ok(said(StatusCode::OK, ""));
    }
    let (user, repo) = (call.user()?.clone(), call.repo()?.clone());
    if call.run(move |registry| registry.repo_bury(&user, &repo)).await? {
        with_token(&call, Access::Delete, said(StatusCode::ACCEPTED, "")).await
    } else {
        Ok(said(StatusCode::OK, ""))
    }
}

async fn images_get(call: Call) -> Result<Reply> {
    let repo = call.repo()?.clone();
    let images = call.run(move |registry| registry.v1_images(&repo)).await?;
    with_token(&call, Access::Pull, reply::json(StatusCode::OK, &images)).await
}

async fn images_put(mut call: Call) -> Result<Reply> {
    let images = images(&mut call).await?;
    let repo = call.repo()?.clone();
    call.run(move |registry| registry.v1_images_put(&repo, images)).await?;
    with_token(&call, Access::Push, reply::empty(StatusCode::NO_CONTENT)).await
}

/// The list of images in a body; whatever else an image has is ignored.
async fn images(call: &mut Call) -> Result<Vec<V1Image>> {
    #[derive(Deserialize)]
    struct Announced {
        id: String,
        checksum: Option<String>,
    }
    let body = call.body(IMAGES_BYTES_MAX, Thing::Request).await?;
    let invalid = |why| move |_| Kind::Invalid(Thing::Request).because(why);
    serde_json::from_slice::<IgnoredAny>(&body).map_err(invalid("Error Decoding JSON"))?;
    let images: Vec<Object<Announced>> = serde_json::from_slice(&body).map_err(invalid("Invalid data"))?;
    images.iter().map(|Object(image)| V1Image::parse(&image.id, image.checksum.as_deref())).collect()
}

/// Uses a token up, and says whether it was good.
async fn auth_put(call: Call) -> Result<Reply> {
    let repo = call.repo()?.clone();
    let Some(signature) = signature(call.asked()) else {
        let kind = if call.caller().is_known() { Kind::Denied } else { Kind::Unauthorized };
        return Err(kind.because("send the token that is to be authorized"));
    };
    let app = call.app.clone();
    let caller = call.caller().clone();
    call.run(move |registry| {
        let token = registry.v1_token(&signature, Some(&repo))?.ok_or(Kind::Denied)?;
        // The row asked for what every token may; here it is about what this one may.
        auth::permit(&app, &caller, token.access, &repo)?;
        registry.v1_token_consume(&token, &signature)
    })
    .await?;
    Ok(said(StatusCode::OK, "OK"))
}

/// A map, as clients need it; the document's list is older.
async fn tags(call: Call) -> Result<Reply> {
    let repo = call.repo()?.clone();
    let tags = call.run(move |registry| registry.v1_tags(&repo)).await?;
    let map: Map<String, Value> = tags.into_iter().map(|(tag, image)| (tag, image.into())).collect();
    Ok(reply::json(StatusCode::OK, &map))
}

async fn tag(call: Call) -> Result<Reply> {
    let tag = Tag::parse(call.param("tag"))?;
    let image = call.look(|registry| registry.v1_tag(call.repo()?, &tag))?;
    Ok(said(StatusCode::OK, &image))
}

async fn properties(call: Call) -> Result<Reply> {
    let private = call.look(|registry| registry.repo_is_private(call.repo()?))?;
    Ok(reply::json(StatusCode::OK, &json!({"access": if private { "private" } else { "public" }})))
}

/// What a v1 registry does with the layers and tags it has. Without these rows such an
/// address would be taken for a repository of that name.
async fn unsupported(_: Call) -> Result<Reply> {
    Err(Kind::Unsupported.into())
}

// Users ---------------------------------------------------------------------------

async fn login(call: Call) -> Result<Reply> {
    call.user()?;
    Ok(said(StatusCode::OK, "OK"))
}

/// Whoever asks is identified here: strangers may sign up, and wrong credentials are wrong
/// also where none are needed.
async fn sign_up(mut call: Call) -> Result<Reply> {
    let caller = auth::identify(&call.app, call.asked()).await?;
    if caller.is_known() && caller.by_password().is_none() {
        return Err(Kind::Denied.because("a token makes no users; come with a password, or without"));
    }
    let active = call.look(|registry| registry.may_sign_up(caller.by_password()))?;
    let fields = call.fields().await?;
    let [Some(name), Some(email), Some(password)] =
        [text(&fields, "username")?, text(&fields, "email")?, text(&fields, "password")?]
    else {
        return Err(Kind::Invalid(Thing::User).because("username, email and password are needed"));
    };
    let name = sign_up_name(name)?;
    let ask = SignUpAsk { name, email: email.to_owned(), password: password.to_owned(), active };
    match caller.by_password() {
        Some(user) if user.admin => auth::hashing(&call.app, move |registry| registry.sign_up(ask)).await?,
        _ => {
            let address = call.asked().peer.address;
            auth::sign_up(&call.app, address, move |registry| registry.sign_up(ask)).await?;
        }
    }
    Ok(said(StatusCode::CREATED, "User Created"))
}

/// The index's own rule, and ours: a user's name begins repository names.
fn sign_up_name(text: &str) -> Result<UserName> {
    let fits = (4..=30).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
    match UserName::parse(text) {
        Ok(name) if fits => Ok(name),
        Ok(_) => Err(Kind::Invalid(Thing::User)
            .because("a username has 4 to 30 lower-case letters, digits and single _ between them")),
        Err(error) => Err(error),
    }
}

/// One more e-mail address, another password, or both, for oneself; administrators for anybody.
async fn user_put(mut call: Call) -> Result<Reply> {
    let name = call.param("user").to_owned();
    let may = |user: &User| user.name == name || user.admin;
    if !call.caller().by_password().is_some_and(may) {
        return Err(Kind::Denied.into());
    }
    let name = UserName::parse(&name).map_err(|_| Kind::NotFound(Thing::User))?;
    let fields = call.fields().await?;
    let own = |key| text(&fields, key).map(|text| text.map(str::to_owned));
    let (email, password) = (own("email")?, own("password")?);
    if email.is_none() && password.is_none() {
        return Err(Kind::Invalid(Thing::User).because("an email, a password or both are needed"));
    }
    auth::hashing(&call.app, move |registry| {
        registry.user_update(&name, email.as_deref(), password.as_deref())
    })
    .await?;
    Ok(reply::empty(StatusCode::NO_CONTENT))
}

fn text<'a>(fields: &'a Map<String, Value>, key: &str) -> Result<Option<&'a str>> {
    match fields.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(Kind::Invalid(Thing::User).because(format!("{key} is not a text"))),
    }
}

// Registry ------------------------------------------------------------------------

async fn ping(_: Call) -> Result<Reply> {
    let reply = reply::json(StatusCode::OK, &json!({}));
    // Standalone: clients send their password with every request, and need no token.
    let reply = reply::with(reply, REGISTRY_STANDALONE, "true");
    Ok(reply::with(reply, REGISTRY_VERSION, "0.9.1"))
}

/// What `docker search` and `podman search` ask. Podman asks without credentials, and asks
/// the catalog with them unless the answer is 200: so an empty list is only for those who
/// could have seen something.
async fn search(call: Call) -> Result<Reply> {
    let caller = auth::identify(&call.app, call.asked()).await?;
    let user = match caller.user.clone() {
        Some(_) if !caller.may_list() => return Err(Kind::TokenTooNarrow.into()),
        None if !call.app.options().anonymous_pull => return Err(Kind::Unauthorized.into()),
        user => user,
    };
    let number = |key, usual: u32| match call.query(key).as_deref() {
        None | Some("") => Ok(usual),
        Some(text) => text
            .parse()
            .ok()
            .filter(|number| *number > 0)
            .ok_or(Kind::Invalid(Thing::Page).because(format!("{key} is a number from 1"))),
    };
    let (n, page) = (number("n", SEARCH_USUAL)?.min(SEARCH_MAX), number("page", 1)?);
    let query = call.query("q").unwrap_or_default().into_owned();
    let (text, slice) = (query.clone(), Slice { skip: u64::from(page - 1) * u64::from(n), take: n });
    let found = call.run(move |registry| registry.search(user.as_ref(), &text, slice)).await?;
    let found = found.ok_or(Kind::NotFound(Thing::Repo))?;
    let results: Vec<Value> = found
        .rows
        .into_iter()
        .map(|repo| {
            json!({
                "name": repo.name,
                "description": repo.description,
                "star_count": repo.stars,
                "is_official": repo.name.split_once('/').is_some_and(|(first, _)| first == LIBRARY),
                "is_automated": false,
                "is_trusted": false,
            })
        })
        .collect();
    let body = json!({
        "query": query,
        "num_results": found.count,
        "num_pages": found.count.div_ceil(u64::from(n)),
        "page": page,
        "page_size": n,
        "results": results,
    });
    Ok(reply::json(StatusCode::OK, &body))
}

// Answers ---------------------------------------------------------------------------

/// A JSON text, which is all that most answers are.
fn said(status: StatusCode, text: &str) -> Reply {
    reply::json(status, &text)
}

#[rustfmt::skip]
fn status(kind: Kind) -> u16 {
    match kind {
        Kind::NotFound(_)          => 404,
        Kind::Invalid(_)           => 400,
        Kind::Exists(Thing::User)  => 400,
        Kind::Exists(_)            => 409,
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
    }
}

/// `{"error":"…"}`, in the words old clients look for.
fn refuse(_: &App, asked: &Asked, error: &Error) -> Reply {
    let route = asked.route.map(|route| (route.handler, route.needs));
    let kind = match (error.kind, route) {
        // A token that was used up is refused like one for another repository.
        (Kind::TokenInvalid, Some(("auth_put", _))) => Kind::Denied,
        // Nobody can tell a private repository from a missing one.
        (Kind::Denied, Some((handler, Needs::Pull))) if handler != "auth_put" => Kind::NotFound(Thing::Repo),
        (kind, _) => kind,
    };
    let status = StatusCode::from_u16(status(kind)).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let sentence = match kind {
        // Docker up to 1.9 compares the whole body with this, and then logs in.
        Kind::Exists(Thing::User) => return said(status, "Username or email already exists"),
        Kind::Inactive => "Account is not Active".into(),
        Kind::NotFound(Thing::Repo) => "Repository not found".into(),
        Kind::NotFound(Thing::Tag) => "Tag not found".into(),
        Kind::NotFound(Thing::User) => "User not found".into(),
        _ => error.detail(),
    };
    let mut body = json!({"error": sentence});
    if kind.is_ours() {
        body["request_id"] = asked.request_id.as_str().into();
    }
    let reply = reply::json(status, &body);
    match kind {
        // One header with both: tokens are for repositories only.
        Kind::Unauthorized if asked.params.get("name").is_some() => {
            reply::with(reply, WWW_AUTHENTICATE, "Basic realm=\"auth required\",Token")
        }
        Kind::Unauthorized => reply::with(reply, WWW_AUTHENTICATE, "Basic realm=\"auth required\""),
        Kind::TokenInvalid => reply::with(reply, WWW_AUTHENTICATE, "Token"),
        _ => reply,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_taken_in_every_spelling_that_clients_send_back() {
        for header in [
            "Token signature=ABC,repository=\"foo/bar\",access=write",
            "token Token signature=ABC,repository=\"foo/bar\",access=write",
            "TOKEN repository=foo/bar, access=write, signature=\"ABC\"",
            "Token signature:ABC",
            "Token Token signature=ABC,access=read,Token signature=DEF,access=read",
        ] {
            assert_eq!(token_signature(header).as_deref(), Some("ABC"), "{header}");
        }
        assert_eq!(token_signature("Token").as_deref(), Some(""));
        assert_eq!(token_signature("Token repository=\"foo/bar\"").as_deref(), Some(""));
        assert_eq!(token_signature("Basic YTpi"), None);
        assert_eq!(token_signature("Tokens signature=ABC"), None);
    }

    #[test]
    fn names_follow_the_index_and_the_registry_both() {
        for good in ["abcd", "a_cd", "2048", "a".repeat(30).as_str()] {
            assert!(sign_up_name(good).is_ok(), "{good}");
        }
        for bad in [
            "abc",
            "a".repeat(31).as_str(),
            "Abcd",
            "a-cd",
            "a.cd",
            "_abc",
            "abc_",
            "a___b",
            "library",
            "äbcd",
        ] {
            assert!(sign_up_name(bad).is_err(), "{bad}");
        }
    }
}

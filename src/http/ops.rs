//! Health, for service managers and load balancers; the document that describes everything; and
//! every address nobody serves.

use hyper::StatusCode;
use hyper::header::CONTENT_TYPE;
use serde_json::json;

use super::App;
use super::auth::Caller;
use super::call::Call;
use super::reply::{self, Reply};
use super::route::{Asked, Dialect, routes};
use super::tls::Certificate;
use crate::error::{Error, Kind, Result, Thing};

pub static DIALECT: Dialect = Dialect {
    name: "ops",
    routes: ROUTES,
    identify: |_, _| Box::pin(async { Ok(Caller::default()) }),
    repo: |_| None,
    code: |kind| (status(kind), ""),
    refuse,
    headers: &[],
};

#[rustfmt::skip]
const ROUTES: &[super::route::Route] = routes! {
    GET "/"             Nobody root;
    GET "/livez"        Nobody livez;
    GET "/readyz"       Nobody readyz;
    GET "/healthz"      Nobody readyz;
    GET "/openapi.json" Nobody openapi;
    GET "/ca.crt"       Nobody ca;
};

/// For a person with a browser.
async fn root(_: Call) -> Result<Reply> {
    let text = "Outport, a container registry. Clients find it at /v2/.\n";
    Ok(reply::with(reply::bytes(StatusCode::OK, text), CONTENT_TYPE, "text/plain; charset=utf-8"))
}

/// The process answers.
async fn livez(_: Call) -> Result<Reply> {
    Ok(reply::json(StatusCode::OK, &json!({"status": "ok"})))
}

/// The database answers, the disk is writable and has room. Writes nothing, for it is
/// asked every few seconds for years.
async fn readyz(call: Call) -> Result<Reply> {
    let (reads, writes) = call.run(|registry| Ok((registry.check_reads(), registry.check_writes()))).await?;
    let ready = reads.is_ok() && writes.is_ok();
    let said = |outcome: Result<()>| match outcome {
        Ok(()) => "ok".to_owned(),
        Err(error) => error.detail().into_owned(),
    };
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let word = if ready { "ok" } else { "failing" };
    Ok(reply::json(status, &json!({"status": word, "reads": said(reads), "writes": said(writes)})))
}

async fn openapi(_: Call) -> Result<Reply> {
    Ok(reply::with(reply::bytes(StatusCode::OK, super::openapi::document()), CONTENT_TYPE, reply::JSON))
}

/// Whom to trust: to be compared with the fingerprint that the server's first start said.
async fn ca(call: Call) -> Result<Reply> {
    let Some(path) = call.app.options().ca.clone() else {
        return Err(Kind::NotFound(Thing::Route).because(
            "this registry's certificate is not of its own authority; ask those who run it whom to trust",
        ));
    };
    // Nothing but certificates, whatever stands in the file.
    let authority =
        call.run(move |_| Certificate::read(&path).map_err(|error| Kind::Internal.from_cause(error))).await?;
    let reply = reply::bytes(StatusCode::OK, authority.pem);
    Ok(reply::with(reply, CONTENT_TYPE, "application/x-x509-ca-cert"))
}

/// As JSON: the sentence, and by what it is found in the log.
pub fn refuse(_: &App, asked: &Asked, error: &Error) -> Reply {
    let body = json!({"error": error.detail(), "request_id": asked.request_id});
    let status = StatusCode::from_u16(status(error.kind)).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    reply::json(status, &body)
}

#[rustfmt::skip]
pub fn status(kind: Kind) -> u16 {
    match kind {
        Kind::NotFound(_)          => 404,
        Kind::Invalid(_)           => 400,
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
        Kind::TokenTooNarrow       => 401,
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

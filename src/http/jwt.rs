//! JSON Web Tokens by HMAC-SHA256, and nothing else: the algorithm is ours to say, not the
//! token's. Every kind of token here has an issuer of its own, which its reader checks.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::hmac;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::App;
use crate::error::{Kind, Result};

/// Set into every token, and never read from one.
const HEADER: &str = r#"{"alg":"HS256","typ":"JWT"}"#;
/// Tokens from a little in the future are good too: clocks are set while we run.
const SKEW_SECS: i64 = 60;

pub fn sign(key: &hmac::Key, claims: &impl Serialize) -> Result<String> {
    let claims = serde_json::to_vec(claims).map_err(|error| Kind::Internal.from_cause(error))?;
    let signed = format!("{}.{}", URL_SAFE_NO_PAD.encode(HEADER), URL_SAFE_NO_PAD.encode(claims));
    let tag = hmac::sign(key, signed.as_bytes());
    Ok(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(tag)))
}

/// The claims of a token that was signed with this key; None for anything else.
pub fn open<T: DeserializeOwned>(key: &hmac::Key, token: &str) -> Option<T> {
    let (signed, tag) = token.rsplit_once('.')?;
    let tag = URL_SAFE_NO_PAD.decode(tag).ok()?;
    // Compares in constant time.
    hmac::verify(key, signed.as_bytes(), &tag).ok()?;
    let (_, claims) = signed.split_once('.')?;
    let claims = URL_SAFE_NO_PAD.decode(claims).ok()?;
    serde_json::from_slice(&claims).ok()
}

pub fn now_secs(app: &App) -> i64 {
    (app.registry.clock().wall_us)() / 1_000_000
}

/// Bounded on both sides: after a clock was set, clients fetch a new token and go on.
pub fn is_in_time(app: &App, iat: i64, exp: i64) -> bool {
    let now = now_secs(app);
    now < exp && now >= iat - SKEW_SECS
}

//! Credentials in every dialect: nobody gets in by them, and tokens we signed ourselves with
//! other claims open nothing they should not.

#![no_main]

use arbitrary::Arbitrary;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use libfuzzer_sys::fuzz_target;
use outport_fuzz::{Site, admin};
use ring::hmac;
use std::sync::LazyLock;

#[derive(Arbitrary, Debug)]
enum Credential<'a> {
    Raw(&'a [u8]),
    Basic(&'a str),
    Token {
        scheme: Scheme,
        text: &'a str,
    },
    /// Claims that our own key signed.
    Signed {
        scheme: Scheme,
        head: &'a str,
        claims: &'a [u8],
    },
    /// The same, of the shape that is looked for.
    Claims {
        scheme: Scheme,
        hub: bool,
        sub: &'a str,
        iat: i64,
        exp: i64,
        user: (i64, i64),
        robot: Option<i64>,
        scopes: Vec<(&'a str, &'a str, &'a str)>,
    },
    Cookie(&'a str),
    Api {
        key: &'a str,
        workspace: &'a str,
    },
}

#[derive(Arbitrary, Debug, Clone, Copy)]
enum Scheme {
    Bearer,
    Jwt,
    Token,
}

impl Scheme {
    fn of(self, text: &str) -> Vec<u8> {
        let word = match self {
            Scheme::Bearer => "Bearer",
            Scheme::Jwt => "JWT",
            Scheme::Token => "Token",
        };
        format!("{word} {text}").into_bytes()
    }
}

static SITE: LazyLock<(Site, hmac::Key)> = LazyLock::new(|| {
    let site = Site::new(false);
    site.push_image(b"layer");
    let secret = site.store.registry.secret("token").expect("is there");
    let key = hmac::Key::new(hmac::HMAC_SHA256, &secret);
    (site, key)
});

fn signed(key: &hmac::Key, head: &str, claims: &[u8]) -> String {
    let signed = format!("{}.{}", URL_SAFE_NO_PAD.encode(head), URL_SAFE_NO_PAD.encode(claims));
    let tag = hmac::sign(key, signed.as_bytes());
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(tag))
}

const PATHS: [&str; 8] = [
    "/v2/",
    "/v2/_catalog",
    "/v2/team/app/manifests/v1",
    "/token?service=x&scope=repository:team/app:pull",
    "/v2/user/",
    "/v2/repositories/team/app/",
    "/v1/users/",
    "/v1/repositories/team/app/images",
];

fuzz_target!(|input: (u8, Credential)| {
    let (site, key) = &*SITE;
    let path = PATHS[usize::from(input.0) % PATHS.len()];
    let mut others: Vec<(&str, &[u8])> = Vec::new();
    // Whether the key was ours, so that being let in may be right.
    let (mut ours, mut value) = (false, None);
    match &input.1 {
        Credential::Raw(bytes) => value = Some(bytes.to_vec()),
        Credential::Basic(text) => value = Some(format!("Basic {}", STANDARD.encode(text)).into_bytes()),
        Credential::Token { scheme, text } => value = Some(scheme.of(text)),
        Credential::Signed { scheme, head, claims } => {
            ours = true;
            value = Some(scheme.of(&signed(key, head, claims)));
        }
        Credential::Claims { scheme, hub, sub, iat, exp, user, robot, scopes } => {
            ours = true;
            let access: Vec<_> = scopes
                .iter()
                .map(|(kind, name, action)| serde_json::json!({"type": kind, "name": name, "actions": [action]}))
                .collect();
            let (iss, aud) = if *hub { ("outport-hub", "hub") } else { ("outport", "x") };
            let claims = serde_json::json!({
                "iss": iss, "aud": aud, "sub": sub, "username": "admin", "jti": "x", "iat": iat,
                "nbf": iat, "exp": exp, "user": user, "robot": robot, "access": access,
            });
            value = Some(scheme.of(&signed(key, r#"{"alg":"none"}"#, claims.to_string().as_bytes())));
        }
        Credential::Cookie(text) => others.push(("Cookie", text.as_bytes())),
        Credential::Api { key, workspace } => {
            others.push(("X-Api-Key", key.as_bytes()));
            others.push(("X-Workspace-Id", workspace.as_bytes()));
        }
    }
    others.extend(value.iter().map(|value| ("Authorization", value.as_slice())));
    let status = site.ask("GET", path, &others, b"").status;
    let right = value.as_deref().is_some_and(|value| value.ends_with(&admin().as_bytes()[6..]));
    // `users/` and `token` answer whoever asks; what is public, and what v1 lists, is theirs too.
    if path.starts_with("/v2/") && !ours && !right {
        assert_ne!(status, 200, "{path} let {:?} in", input.1);
    }
});

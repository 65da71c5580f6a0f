//! Bodies of named values, as JSON, forms and multipart, to every address that takes one.

#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use outport::http::{DIALECTS, Route};
use outport_fuzz::{Site, admin};
use std::sync::LazyLock;

#[derive(Arbitrary, Debug)]
enum Content<'a> {
    Json(&'a [u8]),
    Form(&'a [u8]),
    Multipart {
        boundary: &'a str,
        body: &'a [u8],
    },
    /// Parts that are put together well.
    Parts(Vec<(&'a str, &'a str)>),
    Fields(Vec<(Field, Word<'a>)>),
    Other {
        content_type: &'a str,
        body: &'a [u8],
    },
}

#[derive(Arbitrary, Debug)]
enum Word<'a> {
    Text(&'a str),
    Number(i64),
    Flag(bool),
    Null,
    List(Vec<&'a str>),
    Nested(&'a str),
}

/// Names that handlers look for.
#[derive(Arbitrary, Debug, Clone, Copy)]
#[rustfmt::skip]
enum Field {
    Name, Username, Password, Email, Namespace, Description, FullDescription, IsPrivate, Role,
    Permission, GroupId, Member, Label, TokenLabel, Scopes, IsActive, Id, Ids, Color, RegistryId,
    ClientId, ClientSecret, GrantType, Service, Scope, Identifier, Secret,
}

impl Field {
    /// `FullDescription` is `full_description`.
    fn name(self) -> String {
        let word = format!("{self:?}");
        let mut name = String::new();
        for c in word.chars() {
            if c.is_uppercase() && !name.is_empty() {
                name.push('_');
            }
            name.extend(c.to_lowercase());
        }
        name
    }
}

static SITE: LazyLock<(Site, Vec<&'static Route>)> = LazyLock::new(|| {
    let site = Site::new(false);
    site.push_image(b"layer");
    // Whoever ends a server or hashes passwords for each request is left out.
    let routes = DIALECTS.iter().flat_map(|dialect| dialect.routes);
    let routes = routes.filter(|route| matches!(route.method, "POST" | "PUT" | "PATCH"));
    (site, routes.collect())
});

/// A path of this row, about things that are there.
fn path(pattern: &str) -> String {
    let known = [("{name*}", "team/app"), ("{namespace}", "team"), ("{repository}", "app")];
    let path = known.iter().fold(pattern.replace("[/]", "/"), |path, (from, to)| path.replace(from, to));
    let segments = path.split('/').map(|part| if part.starts_with('{') { "v1" } else { part });
    segments.collect::<Vec<_>>().join("/")
}

fuzz_target!(|input: (u8, Content)| {
    let (site, routes) = &*SITE;
    let route = routes[usize::from(input.0) % routes.len()];
    let (content_type, body): (String, Vec<u8>) = match &input.1 {
        Content::Json(body) => ("application/json".into(), body.to_vec()),
        Content::Form(body) => ("application/x-www-form-urlencoded".into(), body.to_vec()),
        Content::Multipart { boundary, body } => {
            (format!("multipart/form-data; boundary={boundary}"), body.to_vec())
        }
        Content::Parts(parts) => {
            let mut body = String::new();
            for (name, value) in parts {
                body += &format!("--b\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n");
            }
            ("multipart/form-data; boundary=b".into(), (body + "--b--\r\n").into_bytes())
        }
        Content::Fields(fields) => {
            let mut object = serde_json::Map::new();
            for (name, word) in fields {
                let value = match word {
                    Word::Text(text) => (*text).into(),
                    Word::Number(number) => (*number).into(),
                    Word::Flag(flag) => (*flag).into(),
                    Word::Null => serde_json::Value::Null,
                    Word::List(items) => items.clone().into(),
                    Word::Nested(text) => serde_json::json!({"name": text}),
                };
                object.insert(name.name(), value);
            }
            ("application/json".into(), serde_json::Value::from(object).to_string().into_bytes())
        }
        Content::Other { content_type, body } => ((*content_type).to_owned(), body.to_vec()),
    };
    let auth = admin();
    let fields = [("Authorization", auth.as_bytes()), ("Content-Type", content_type.as_bytes())];
    site.ask(route.method, &path(route.path), &fields, &body);
});

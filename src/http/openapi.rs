//! What this server tells programs about itself: an OpenAPI 3.1 document, at `/openapi.json`.
//!
//! The file beside this one says of each handler what the tables do not: what it is for, what it
//! takes, what it answers when all is well. The rest comes from the tables: addresses, who may,
//! and how each dialect says no. So everything is written once, and a row cannot be forgotten.
//!
//! The file is the document, but for `dialects`, which become its paths, and a shorter hand:
//!
//! - Where a schema stands, `"string"` is a type of JSON, `"Tag"` a schema of `components`,
//!   `"Tag?"` that or null, `["Tag"]` a list of them. `all` are properties that must be there,
//!   `some` those that may. A `$ref` needs no path.
//! - Where a parameter, a body, an answer or a header stands, a text names one of `components`.
//! - `json` is content of that type.
//! - An operation's `errors` are statuses besides those that its row's needs bring along. `fields`
//!   is what [`Call::fields`](super::call::Call::fields) reads, `page` what a page of
//!   [`hub`](super::hub) holds.
//! - Operations are named by their handlers; one whose handler says something else elsewhere, by
//!   handler and path. A HEAD that is more than its GET without a body is `HEAD` and the handler.

use bytes::Bytes;
use hyper::StatusCode;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::collections::{BTreeSet, HashMap};
use std::sync::OnceLock;

use super::route::{DIALECTS, Dialect, Needs, Route};
use crate::error::{Kind, Thing};

const SOURCE: &str = include_str!("openapi.json");

/// The document. Made when it is first asked for.
pub fn document() -> Bytes {
    static DOCUMENT: OnceLock<Bytes> = OnceLock::new();
    DOCUMENT.get_or_init(|| build().to_string().into()).clone()
}

#[derive(Deserialize)]
struct Source {
    dialects: HashMap<String, Told>,
    #[serde(flatten)]
    document: Map<String, Value>,
}

/// What the file says of a dialect.
#[derive(Deserialize)]
struct Told {
    description: String,
    /// What credentials it takes where a row needs some.
    security: Value,
    /// The bodies of refusals by status; "" is all others.
    refusals: HashMap<String, Value>,
    operations: HashMap<String, Operation>,
}

#[derive(Clone, Default, Deserialize)]
#[serde(default)]
struct Operation {
    parameters: Vec<Value>,
    responses: Map<String, Value>,
    errors: BTreeSet<u16>,
    fields: Option<Value>,
    optional_fields: Option<Value>,
    page: Option<String>,
    #[serde(flatten)]
    rest: Map<String, Value>,
}

/// A row at one of its paths.
struct Row<'a> {
    dialect: &'a Dialect,
    told: &'a Told,
    route: &'a Route,
    path: &'a str,
    id: String,
    said: &'a Operation,
}

fn build() -> Value {
    let Source { dialects, mut document } =
        serde_json::from_str(SOURCE).expect("the file is part of this program, and tests read it");
    let mut components = document.remove("components").unwrap_or_default();
    type WriteOut = fn(&mut Value);
    let sections: [(&str, WriteOut); 5] = [
        ("parameters", parameter),
        ("headers", header),
        ("requestBodies", body),
        ("responses", response),
        ("schemas", schema),
    ];
    for (section, write_out) in sections {
        components[section].as_object_mut().into_iter().flat_map(Map::values_mut).for_each(write_out);
    }

    let (mut paths, mut tags) = (json!({}), Vec::new());
    for dialect in DIALECTS {
        let Some(told) = dialects.get(dialect.name) else { continue };
        tags.push(json!({"name": dialect.name, "description": told.description}));
        let mut turns = HashMap::new();
        for route in dialect.routes {
            let said = |key: &str| told.operations.get(key);
            let own = said(&format!("{} {}", route.handler, route.path)).or(said(route.handler));
            let head = said(&format!("HEAD {}", route.handler));
            for path in paths_of(route.path) {
                let turn = *turns.entry(route.handler).and_modify(|turn| *turn += 1).or_insert(1);
                let id = match turn {
                    1 => format!("{}_{}", dialect.name, route.handler),
                    turn => format!("{}_{}_{turn}", dialect.name, route.handler),
                };
                let described = [(route.method, own, id.clone()), ("HEAD", head, format!("{id}_head"))];
                for (method, said, id) in described {
                    let Some(said) = said else { continue };
                    let row = Row { dialect, told, route, path: &path, id, said };
                    paths[&path][method.to_ascii_lowercase()] = row.operation(&mut components);
                }
            }
        }
    }

    let mut info = document.remove("info").unwrap_or_default();
    let paragraphs = info["description"].as_array().into_iter().flatten().filter_map(Value::as_str);
    info["description"] = paragraphs.collect::<Vec<_>>().join("\n\n").into();
    info["version"] = env!("CARGO_PKG_VERSION").into();
    let parts = [("info", info), ("tags", tags.into()), ("paths", paths), ("components", components)];
    document.extend(parts.map(|(name, part)| (name.to_owned(), part)));
    document.into()
}

/// A row's path as OpenAPI writes it: with the slash that is optional, and, since a parameter
/// holds no slashes there, with a name of one part and one of two.
fn paths_of(path: &str) -> Vec<String> {
    let path = path.replace("[/]", "/");
    match path.contains("{name*}") {
        true => vec![path.replace("{name*}", "{name}"), path.replace("{name*}", "{ns}/{name}")],
        false => vec![path],
    }
}

impl Row<'_> {
    fn operation(&self, components: &mut Value) -> Value {
        let said = self.said.clone();
        let mut operation = said.rest;
        for (fields, required) in [(said.fields, true), (said.optional_fields, false)] {
            let Some(fields) = fields else { continue };
            let media = json!({"schema": fields});
            let content = json!({
                "application/json": media,
                "application/x-www-form-urlencoded": media,
                "multipart/form-data": media,
            });
            operation.insert("requestBody".into(), json!({"required": required, "content": content}));
        }
        if let Some(taken) = operation.get_mut("requestBody") {
            body(taken);
        }

        let mut parameters = self.path_parameters(&components["parameters"]);
        parameters.extend(said.parameters);
        parameters.iter_mut().for_each(parameter);
        if !parameters.is_empty() {
            operation.insert("parameters".into(), parameters.into());
        }

        let mut responses = said.responses;
        if let Some(item) = said.page {
            let page = json!({"$ref": "HubPage", "properties": {"results": {"items": item}}});
            responses.insert("200".into(), json!({"description": "A page of them.", "json": page}));
        }
        responses.values_mut().for_each(response);
        let kinds = kinds_before(self.route, operation.contains_key("requestBody"));
        let statuses = kinds.into_iter().map(|kind| (self.dialect.code)(kind).0).chain(said.errors);
        for status in statuses {
            if responses.contains_key(&status.to_string()) {
                continue;
            }
            let name = format!("{}.{status}", self.dialect.name);
            let shared = &mut components["responses"][&name];
            if shared.is_null() {
                *shared = refusal(self.told, status);
            }
            let mut named = name.into();
            response(&mut named);
            responses.insert(status.to_string(), named);
        }
        operation.insert("responses".into(), responses.into());

        if self.route.needs != Needs::Nobody {
            operation.entry("security").or_insert_with(|| self.told.security.clone());
        }
        operation.insert("operationId".into(), self.id.as_str().into());
        operation.insert("tags".into(), json!([self.dialect.name]));
        operation.insert("x-needs".into(), format!("{:?}", self.route.needs).into());
        operation.into()
    }

    /// Names of what stands for the path's `{x}`: a dialect may have an `x` of its own.
    fn path_parameters(&self, all: &Value) -> Vec<Value> {
        let names = self.path.split('{').skip(1).filter_map(|rest| rest.split('}').next());
        let name = |name: &str| match format!("{}.{name}", self.dialect.name) {
            own if all.get(&own).is_some() => own.into(),
            _ => name.into(),
        };
        names.map(name).collect()
    }
}

/// What may be refused before a handler runs, or while it reads its body.
fn kinds_before(route: &Route, has_body: bool) -> Vec<Kind> {
    let mut kinds = vec![Kind::Invalid(Thing::Request), Kind::UriTooLong, Kind::HeadTooLarge];
    let too_many = Kind::TooMany { retry_secs: 0 };
    if route.needs != Needs::Nobody {
        kinds.extend([Kind::Unauthorized, Kind::TokenInvalid, Kind::Inactive, too_many]);
        kinds.extend([Kind::Unavailable, Kind::Internal]);
    }
    match route.needs {
        Needs::Nobody | Needs::Known => {}
        Needs::Catalog => kinds.push(Kind::TokenTooNarrow),
        Needs::Pull | Needs::Push | Needs::Delete => {
            kinds.extend([Kind::Invalid(Thing::Repo), Kind::TokenTooNarrow, Kind::Denied]);
        }
    }
    if has_body {
        kinds.extend([Kind::TooLarge(Thing::Request), Kind::Slow, too_many]);
    }
    kinds
}

/// How a dialect says no with this status.
fn refusal(told: &Told, status: u16) -> Value {
    let reason = StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason());
    let mut headers = json!({"X-Request-Id": "X-Request-Id"});
    match status {
        401 => headers["WWW-Authenticate"] = "WWW-Authenticate".into(),
        429 => headers["Retry-After"] = "Retry-After".into(),
        _ => {}
    }
    let body = told.refusals.get(&status.to_string()).or(told.refusals.get(""));
    let mut value = json!({"description": reason, "headers": headers, "json": body});
    response(&mut value);
    value
}

// The shorter hand, written out.

fn schema(value: &mut Value) {
    match value {
        Value::String(name) => {
            *value = match name.strip_suffix('?') {
                Some(name) => json!({"anyOf": [name, "null"]}),
                None if name.starts_with(|c: char| c.is_ascii_uppercase()) => json!({"$ref": name}),
                None => json!({"type": name}),
            };
            // One of these may hold another.
            if value.get("type").is_none() {
                schema(value);
            }
        }
        Value::Array(items) => {
            *value = json!({"type": "array", "items": items.first()});
            schema(value);
        }
        Value::Object(fields) => {
            if let Some(Value::String(name)) = fields.get_mut("$ref") {
                *name = format!("#/components/schemas/{name}");
            }
            let (all, some) = (fields.remove("all"), fields.remove("some"));
            if all.is_some() || some.is_some() {
                let mut properties = Map::new();
                if let Some(Value::Object(all)) = all {
                    fields.insert("required".into(), all.keys().cloned().collect());
                    properties.extend(all);
                }
                if let Some(Value::Object(some)) = some {
                    properties.extend(some);
                }
                fields.insert("type".into(), "object".into());
                fields.insert("properties".into(), properties.into());
            }
            for (key, within) in fields {
                match (key.as_str(), within) {
                    ("items" | "additionalProperties" | "not", within) => schema(within),
                    ("anyOf", Value::Array(among)) => among.iter_mut().for_each(schema),
                    ("properties", Value::Object(each)) => each.values_mut().for_each(schema),
                    _ => {}
                }
            }
        }
        _ => {}
    }
}

/// True where a name was all that stood there.
fn is_named(value: &mut Value, section: &str) -> bool {
    let Value::String(name) = value else { return false };
    *value = json!({"$ref": format!("#/components/{section}/{name}")});
    true
}

fn parameter(value: &mut Value) {
    if !is_named(value, "parameters") {
        schema(&mut value["schema"]);
    }
}

fn header(value: &mut Value) {
    if !is_named(value, "headers") {
        schema(&mut value["schema"]);
    }
}

fn body(value: &mut Value) {
    if !is_named(value, "requestBodies") {
        content(value);
    }
}

fn response(value: &mut Value) {
    if is_named(value, "responses") {
        return;
    }
    content(value);
    if let Some(Value::Object(headers)) = value.get_mut("headers") {
        headers.values_mut().for_each(header);
    }
}

fn content(value: &mut Value) {
    let Value::Object(fields) = value else { return };
    if let Some(json) = fields.remove("json") {
        fields.insert("content".into(), json!({"application/json": {"schema": json}}));
    }
    if let Some(Value::Object(types)) = fields.get_mut("content") {
        types.values_mut().filter_map(|media| media.get_mut("schema")).for_each(schema);
    }
}

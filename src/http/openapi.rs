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
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::sync::OnceLock;

use super::reply::JSON;
use super::route::{DIALECTS, Dialect, Needs, Route};
use crate::error::{Kind, Thing};
use crate::memory;

const SOURCE: &str = include_str!("openapi.json");

/// The document. Made when it is first asked for.
pub fn document() -> Bytes {
    static DOCUMENT: OnceLock<Bytes> = OnceLock::new();
    let make = || {
        let text = build();
        memory::give_back();
        text.into()
    };
    DOCUMENT.get_or_init(make).clone()
}

/// A row at one of its paths.
struct Row<'a> {
    dialect: &'a Dialect,
    /// What the file says of the dialect.
    told: &'a Value,
    route: &'a Route,
    path: &'a str,
    id: String,
}

/// Written operation by operation: as values, all of them would take megabytes.
fn build() -> String {
    let mut document: Value =
        serde_json::from_str(SOURCE).expect("the file is part of this program, and tests read it");
    let dialects = document["dialects"].take();
    let mut components = document["components"].take();
    type WriteOut = fn(&mut Value);
    let sections: [(&str, WriteOut); 5] = [
        ("parameters", parameter),
        ("headers", header),
        ("requestBodies", body),
        ("responses", response),
        ("schemas", schema),
    ];
    for (section, write_out) in sections {
        each(&mut components[section], write_out);
    }

    let (mut paths, mut tags) = (BTreeMap::new(), Vec::new());
    for dialect in DIALECTS {
        let told = &dialects[dialect.name];
        tags.push(json!({"name": dialect.name, "description": told["description"]}));
        add_rows(dialect, told, &mut components, &mut paths);
    }

    let info = &mut document["info"];
    let paragraphs: Vec<&str> = list(&info["description"]).iter().filter_map(Value::as_str).collect();
    info["description"] = paragraphs.join("\n\n").into();
    info["version"] = env!("CARGO_PKG_VERSION").into();
    document["tags"] = tags.into();
    document["components"] = components;
    if let Value::Object(parts) = &mut document {
        parts.remove("dialects");
    }
    let mut text = document.to_string();
    // Into its braces.
    text.pop();
    text += ",\"paths\":{";
    let items = paths.iter().map(|(path, item)| format!("{}:{{{item}}}", Value::from(path.as_str())));
    text += &items.collect::<Vec<_>>().join(",");
    text + "}}"
}

/// Adds a dialect's operations to `paths`, which holds what stands between each path's braces,
/// and to `components` what they refer to.
fn add_rows(dialect: &Dialect, told: &Value, components: &mut Value, paths: &mut BTreeMap<String, String>) {
    let mut before = Vec::new();
    for route in dialect.routes {
        let said = |key: &str| told["operations"][key].as_object();
        let own = said(&format!("{} {}", route.handler, route.path)).or_else(|| said(route.handler));
        let head = said(&format!("HEAD {}", route.handler));
        for path in paths_of(route.path) {
            before.push(route.handler);
            let mut id = format!("{}_{}", dialect.name, route.handler);
            match before.iter().filter(|handler| **handler == route.handler).count() {
                1 => {}
                times => id += &format!("_{times}"),
            }
            for (method, said, id) in [(route.method, own, id.clone()), ("HEAD", head, id + "_head")] {
                let Some(said) = said else { continue };
                let row = Row { dialect, told, route, path: &path, id };
                let operation = row.operation(said.clone(), components);
                let item = paths.entry(path.clone()).or_default();
                let comma = if item.is_empty() { "" } else { "," };
                *item += &format!("{comma}\"{}\":{operation}", method.to_ascii_lowercase());
            }
        }
    }
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
    fn operation(&self, mut said: Map<String, Value>, components: &mut Value) -> Value {
        for (key, required) in [("fields", true), ("optional_fields", false)] {
            let Some(fields) = said.remove(key) else { continue };
            let media = json!({"schema": fields});
            let mut taken = json!({"required": required, "content": {}});
            for media_type in [JSON, "application/x-www-form-urlencoded", "multipart/form-data"] {
                taken["content"][media_type].clone_from(&media);
            }
            said.insert("requestBody".into(), taken);
        }
        let has_body = said.get_mut("requestBody").map(body).is_some();
        let page = said.remove("page");
        let errors = said.remove("errors").unwrap_or_default();

        let mut operation = Value::Object(said);
        let mut parameters = self.path_parameters(&components["parameters"]);
        parameters.extend_from_slice(list(&operation["parameters"]));
        parameters.extend_from_slice(list(&self.told["parameters"]));
        parameters.iter_mut().for_each(parameter);
        operation["parameters"] = parameters.into();

        let responses = &mut operation["responses"];
        if let Some(item) = page {
            let page = json!({"$ref": "HubPage", "properties": {"results": {"items": item}}});
            responses["200"] = json!({"description": "A page of them.", "json": page});
        }
        each(responses, response);
        let mut statuses: Vec<String> = list(&errors).iter().map(Value::to_string).collect();
        let kinds = kinds_before(self.route, has_body);
        statuses.extend(kinds.into_iter().map(|kind| (self.dialect.code)(kind).0.to_string()));
        for status in statuses {
            if responses.get(&status).is_some() {
                continue;
            }
            let name = format!("{}.{status}", self.dialect.name);
            let shared = &mut components["responses"][&name];
            if shared.is_null() {
                *shared = refusal(self.told, &status);
            }
            responses[&status] = name.into();
            response(&mut responses[&status]);
        }

        if self.route.needs != Needs::Nobody && operation["security"].is_null() {
            operation["security"].clone_from(&self.told["security"]);
        }
        operation["operationId"] = self.id.as_str().into();
        operation["tags"] = json!([self.dialect.name]);
        operation["x-needs"] = format!("{:?}", self.route.needs).into();
        operation
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
        Needs::Bring => kinds.push(Kind::Denied),
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
fn refusal(told: &Value, status: &str) -> Value {
    let reason = StatusCode::from_bytes(status.as_bytes()).ok().and_then(|status| status.canonical_reason());
    let mut headers = json!({"X-Request-Id": "X-Request-Id"});
    match status {
        "401" => headers["WWW-Authenticate"] = "WWW-Authenticate".into(),
        "429" => headers["Retry-After"] = "Retry-After".into(),
        _ => {}
    }
    // The bodies of refusals by status; "" is all others.
    let bodies = &told["refusals"];
    let body = bodies.get(status).unwrap_or(&bodies[""]);
    let mut value = json!({"description": reason, "headers": headers, "json": body});
    response(&mut value);
    value
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

fn each(value: &mut Value, act: fn(&mut Value)) {
    match value {
        Value::Object(fields) => fields.values_mut().for_each(act),
        Value::Array(items) => items.iter_mut().for_each(act),
        _ => {}
    }
}

// The shorter hand, written out.

fn schema(value: &mut Value) {
    match value {
        Value::String(name) if name.ends_with('?') => {
            name.pop();
            *value = json!({"anyOf": [name, "null"]});
        }
        Value::String(name) => {
            let key = if name.starts_with(|c: char| c.is_ascii_uppercase()) { "$ref" } else { "type" };
            *value = json!({key: name});
        }
        Value::Array(items) => *value = json!({"type": "array", "items": items.first()}),
        _ => {}
    }
    if let Some(Value::String(name)) = value.get_mut("$ref") {
        name.insert_str(0, "#/components/schemas/");
    }
    let Value::Object(fields) = value else { return };
    for (key, required) in [("all", true), ("some", false)] {
        let Some(Value::Object(properties)) = fields.remove(key) else { continue };
        if required {
            fields.insert("required".into(), properties.keys().cloned().collect());
        }
        fields.insert("type".into(), "object".into());
        match fields.get_mut("properties") {
            Some(Value::Object(others)) => others.extend(properties),
            _ => {
                fields.insert("properties".into(), properties.into());
            }
        }
    }
    for (key, within) in fields {
        match key.as_str() {
            "items" | "additionalProperties" | "not" => schema(within),
            "anyOf" | "properties" => each(within, schema),
            _ => {}
        }
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
    if !is_named(value, "responses") {
        content(value);
        value.get_mut("headers").into_iter().for_each(|headers| each(headers, header));
    }
}

fn content(value: &mut Value) {
    let Value::Object(fields) = value else { return };
    if let Some(json) = fields.remove("json") {
        fields.insert("content".into(), json!({JSON: {"schema": json}}));
    }
    let media = |media: &mut Value| media.get_mut("schema").into_iter().for_each(schema);
    fields.get_mut("content").into_iter().for_each(|types| each(types, media));
}

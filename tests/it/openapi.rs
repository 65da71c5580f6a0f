//! The document at /openapi.json: as long as the route tables, and true of every answer that
//! any test here gets.

use crate::harness::{Answer, Site};
use outport::error::Kind;
use outport::http::{DIALECTS, Dialect, Route};
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::OnceLock;

/// What is sent, read once.
fn document() -> &'static Value {
    static DOCUMENT: OnceLock<Value> = OnceLock::new();
    DOCUMENT.get_or_init(|| serde_json::from_slice(&outport::http::openapi_document()).unwrap())
}

fn object(value: &Value) -> &Map<String, Value> {
    value.as_object().unwrap_or_else(|| panic!("no object: {value}"))
}

/// Every operation: method, path, and what is said of it.
fn operations() -> impl Iterator<Item = (&'static str, &'static str, &'static Value)> {
    object(&document()["paths"]).iter().flat_map(|(path, item)| {
        object(item).iter().map(move |(method, operation)| (method.as_str(), path.as_str(), operation))
    })
}

fn rows() -> impl Iterator<Item = (&'static Dialect, &'static Route)> {
    DIALECTS.into_iter().flat_map(|dialect| dialect.routes.iter().map(move |route| (dialect, route)))
}

/// A row's path, as the document has it.
fn paths(path: &str) -> Vec<String> {
    let path = path.replace("[/]", "/");
    let names: &[&str] = if path.contains('*') { &["{name}", "{ns}/{name}"] } else { &[""] };
    names.iter().map(|name| path.replace("{name*}", name)).collect()
}

fn statuses(operation: &Value) -> BTreeSet<u16> {
    object(&operation["responses"]).keys().map(|status| status.parse().unwrap()).collect()
}

/// What a `$ref` beside other things, or alone, leads to; the value itself if it has none.
fn resolve(value: &'static Value) -> &'static Value {
    match value["$ref"].as_str() {
        Some(to) => {
            let pointer = to.strip_prefix('#').unwrap();
            document().pointer(pointer).unwrap_or_else(|| panic!("{to} leads nowhere"))
        }
        None => value,
    }
}

#[test]
fn every_row_is_described_and_every_description_is_of_a_row() {
    let source = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/http/openapi.json");
    let source: Value = serde_json::from_str(&std::fs::read_to_string(source).unwrap()).unwrap();
    for dialect in DIALECTS {
        let described = object(&source["dialects"][dialect.name]["operations"]).keys().map(String::as_str);
        let described: BTreeSet<&str> = described.collect();
        let handlers: BTreeSet<&str> = dialect.routes.iter().map(|route| route.handler).collect();
        let missing: Vec<_> = handlers.difference(&described).collect();
        assert!(missing.is_empty(), "src/http/openapi.json says nothing of {missing:?} of {}", dialect.name);
        let also = dialect.routes.iter().flat_map(|route| {
            [format!("{} {}", route.handler, route.path), format!("HEAD {}", route.handler)]
        });
        let also: BTreeSet<String> = also.collect();
        for name in described {
            let known = handlers.contains(name) || also.contains(name);
            assert!(known, "src/http/openapi.json describes {name} of {}, which is no row", dialect.name);
        }
    }
}

#[test]
fn the_document_has_the_rows_operations_and_no_others() {
    let mut expected = BTreeMap::new();
    for (dialect, route) in rows() {
        for path in paths(route.path) {
            let row = (dialect.name, format!("{:?}", route.needs), route.handler);
            expected.insert((route.method.to_lowercase(), path), row);
        }
    }
    for (method, path, operation) in operations() {
        // HEAD is answered by GET's rows; some say more of it.
        let of = if method == "head" { "get" } else { method };
        let (dialect, needs, handler) = expected
            .get(&(of.to_owned(), path.to_owned()))
            .unwrap_or_else(|| panic!("{method} {path} is no row of any table"));
        assert_eq!(operation["tags"], serde_json::json!([dialect]), "{method} {path}");
        assert_eq!(&operation["x-needs"], needs, "{method} {path}");
        let id = operation["operationId"].as_str().unwrap();
        assert!(id.starts_with(&format!("{dialect}_{handler}")), "{id}");
        assert!(operation["summary"].as_str().is_some_and(|text| !text.is_empty()), "{method} {path}");
    }
    let found: BTreeSet<_> = operations().map(|(method, path, _)| (method.into(), path.into())).collect();
    for row in expected.keys() {
        assert!(found.contains(row), "{row:?} is not in the document");
    }
    let ids: BTreeSet<_> = operations().map(|(_, _, operation)| operation["operationId"].as_str()).collect();
    assert_eq!(ids.len(), operations().count(), "operationIds are unique");
}

#[test]
fn an_operation_lists_what_its_row_may_be_refused_for_and_nothing_its_dialect_never_says() {
    for (method, path, operation) in operations() {
        let name = operation["tags"][0].as_str().unwrap();
        let dialect = DIALECTS.iter().find(|dialect| dialect.name == name).unwrap();
        let (listed, code) = (statuses(operation), |kind| (dialect.code)(kind).0);
        let mut expected = vec![code(Kind::UriTooLong), code(Kind::HeadTooLarge)];
        if operation["x-needs"] != "Nobody" {
            expected
                .extend([Kind::Unauthorized, Kind::Inactive, Kind::Internal, Kind::Unavailable].map(code));
            expected.push(code(Kind::TooMany { retry_secs: 1 }));
            assert!(operation["security"].is_array(), "{method} {path}");
        }
        if ["Pull", "Push", "Delete"].iter().any(|needs| operation["x-needs"] == *needs) {
            expected.extend([Kind::Denied, Kind::TokenTooNarrow].map(code));
        }
        if operation["requestBody"].is_object() {
            expected.push(code(Kind::Slow));
        }
        for status in expected {
            assert!(listed.contains(&status), "{method} {path} may answer {status}");
        }
        let known: BTreeSet<u16> = Kind::all().into_iter().map(code).collect();
        for status in listed.into_iter().filter(|status| *status >= 400) {
            assert!(known.contains(&status), "no error of {name} is a {status}: {method} {path}");
        }
    }
    let oci = DIALECTS.iter().find(|dialect| dialect.name == "oci").unwrap();
    let codes: BTreeSet<&str> = Kind::all().into_iter().map(|kind| (oci.code)(kind).1).collect();
    let errors = &document()["components"]["schemas"]["OciErrors"]["properties"]["errors"];
    let listed = errors["items"]["properties"]["code"]["enum"].as_array().unwrap();
    assert_eq!(listed.iter().filter_map(Value::as_str).collect::<BTreeSet<_>>(), codes);
}

#[test]
fn it_is_openapi_whose_references_lead_somewhere_and_whose_components_are_used() {
    let document = document();
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1."));
    assert_eq!(document["info"]["version"], env!("CARGO_PKG_VERSION"));
    let schemes = object(&document["components"]["securitySchemes"]);
    let mut used = BTreeSet::new();
    walk(document, &mut |value| {
        if value["$ref"].is_string() {
            resolve(value);
            used.insert(value["$ref"].as_str().unwrap());
        }
        if let Some(security) = value["security"].as_array() {
            for scheme in security.iter().flat_map(|needed| object(needed).keys()) {
                assert!(schemes.contains_key(scheme), "{scheme}");
            }
        }
    });
    for (section, parts) in object(&document["components"]) {
        for name in parts.as_object().unwrap().keys().filter(|_| section != "securitySchemes") {
            let to = format!("#/components/{section}/{name}");
            assert!(used.contains(to.as_str()), "nothing refers to {to}");
        }
    }
    for (method, path, operation) in operations() {
        let in_braces = path.split('{').skip(1).map(|rest| rest.split('}').next().unwrap());
        let in_braces: BTreeSet<&str> = in_braces.collect();
        let parameters = operation["parameters"].as_array().into_iter().flatten().map(resolve);
        let mut in_path = BTreeSet::new();
        for parameter in parameters {
            assert!(parameter["schema"].is_object(), "{method} {path}: {parameter}");
            match parameter["in"].as_str().unwrap() {
                "path" => {
                    assert_eq!(parameter["required"], true, "{parameter}");
                    in_path.insert(parameter["name"].as_str().unwrap());
                }
                place => assert!(matches!(place, "query" | "header"), "{parameter}"),
            }
        }
        assert_eq!(in_path, in_braces, "{method} {path}");
        assert!(!statuses(operation).is_empty());
        for response in object(&operation["responses"]).values().map(resolve) {
            assert!(response["description"].is_string(), "{method} {path}");
        }
    }
}

fn walk(value: &'static Value, look: &mut impl FnMut(&'static Value)) {
    look(value);
    match value {
        Value::Object(fields) => fields.values().for_each(|value| walk(value, look)),
        Value::Array(items) => items.iter().for_each(|value| walk(value, look)),
        _ => {}
    }
}

#[test]
fn it_is_served_to_everybody() {
    let site = Site::new();
    let answer = site.ask("GET", "/openapi.json").by_nobody().send();
    assert_eq!((answer.status, answer.header("content-type")), (200, Some("application/json")));
    assert_eq!(&answer.json(), document());
}

// What tests see --------------------------------------------------------------------

/// Panics if the document does not know this answer.
pub fn check(method: &str, target: &str, answer: &Answer) {
    let path = target.split('?').next().unwrap_or_default();
    let of = if method == "HEAD" { "get".to_owned() } else { method.to_lowercase() };
    // Two dialects may have an address; which of them answered is the table's business.
    let fits: Vec<&Value> =
        operations().filter(|(method, at, _)| *method == of && fits(at, path)).map(|(.., it)| it).collect();
    let status = answer.status.to_string();
    let documented: Vec<&'static Value> =
        fits.iter().filter_map(|operation| operation["responses"].get(&status)).map(resolve).collect();
    // Where no operation fits, the answer is no operation's: 404 or 405.
    if fits.is_empty() || (method == "HEAD" && answer.status == 405) {
        return;
    }
    assert!(!documented.is_empty(), "the document does not know {method} {target}: {answer:?}");
    if method == "HEAD" || answer.body.is_empty() || !answer.whole {
        return;
    }
    let content_type =
        answer.header("content-type").unwrap_or_default().split(';').next().unwrap_or_default();
    let faults: Vec<String> = documented
        .iter()
        .map(|response| match response["content"].get(content_type) {
            Some(media) if content_type == "application/json" => {
                let mut faults = Vec::new();
                compare(&media["schema"], &answer.json(), "", &mut faults);
                faults.join(", ")
            }
            Some(_) => String::new(),
            None => format!("{content_type:?} is not the type of it"),
        })
        .collect();
    assert!(faults.iter().any(String::is_empty), "{method} {target} {status}: {faults:?}: {answer:?}");
}

/// Whether an address is one of these: with or without the slash at its end, and with as many
/// parts in its name as it likes.
fn fits(pattern: &str, path: &str) -> bool {
    let trim = |path: &str| path.strip_suffix('/').unwrap_or(path).to_owned();
    let (pattern, path) = match pattern.ends_with('/') {
        true => (trim(pattern), trim(path)),
        false => (pattern.to_owned(), path.to_owned()),
    };
    let (wants, has): (Vec<&str>, Vec<&str>) = (pattern.split('/').collect(), path.split('/').collect());
    let fit = |want: &str, has: &str| want == has || (want.starts_with('{') && !has.is_empty());
    let stretch = has.len().checked_sub(wants.len());
    match (stretch, pattern.contains("/v2/{ns}/{name}/")) {
        (Some(0), _) => wants.iter().zip(&has).all(|(want, has)| fit(want, has)),
        (Some(more), true) => {
            let ends = wants[4..].iter().zip(&has[4 + more..]).all(|(want, has)| fit(want, has));
            has[1] == "v2" && ends
        }
        _ => false,
    }
}

/// Says where a value differs from its schema, as far as the document's schemas go. A property
/// that no schema names is a difference: it was forgotten.
fn compare(schema: &'static Value, value: &Value, at: &str, faults: &mut Vec<String>) {
    let mut layers = vec![schema];
    while let Some(more) = layers.last().filter(|layer| layer["$ref"].is_string()) {
        layers.push(resolve(more));
    }
    let mut fault = |at: &str, why: &str| faults.push(format!("{at} {why}"));
    for layer in &layers {
        if layer.get("const").is_some_and(|constant| constant != value) {
            fault(at, "is not what it always is");
        }
        if layer["enum"].as_array().is_some_and(|among| !among.contains(value)) {
            fault(at, "is none of those listed");
        }
        let kinds = match &layer["type"] {
            Value::Array(kinds) => kinds.iter().collect(),
            Value::Null => Vec::new(),
            kind => vec![kind],
        };
        if !kinds.is_empty() && !kinds.iter().any(|kind| kind.as_str() == Some(kind_of(value))) {
            fault(at, &format!("is {}", kind_of(value)));
        }
        let fits = |schema| {
            let mut faults = Vec::new();
            compare(schema, value, at, &mut faults);
            faults.is_empty()
        };
        if layer["anyOf"].as_array().is_some_and(|among| !among.iter().any(fits)) {
            fault(at, "is nothing that it may be");
        }
        for name in layer["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            if value.is_object() && value.get(name).is_none() {
                fault(at, &format!("has no {name}"));
            }
        }
    }
    let closed = layers.iter().any(|layer| layer["properties"].is_object() || layer["maxProperties"] == 0);
    for (name, value) in value.as_object().into_iter().flatten() {
        let at = format!("{at}.{name}");
        let other = || layers.iter().find_map(|layer| layer.get("additionalProperties"));
        let own = layers.iter().find_map(|layer| layer["properties"].get(name));
        match own.or_else(other) {
            Some(schema) => compare(schema, value, &at, faults),
            None if closed => faults.push(format!("{at} is not described")),
            None => {}
        }
    }
    for value in value.as_array().into_iter().flatten() {
        if let Some(schema) = layers.iter().find_map(|layer| layer.get("items")) {
            compare(schema, value, &format!("{at}[]"), faults);
        }
    }
}

fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

#[test]
fn an_answer_that_is_not_as_described_is_noticed() {
    let differs = |schema: &str, value: Value| {
        let mut faults = Vec::new();
        compare(&document()["components"]["schemas"][schema], &value, "", &mut faults);
        faults.join(", ")
    };
    let image = serde_json::json!({"id": "0123456789ab"});
    assert_eq!(differs("V1Image", image), "");
    assert_eq!(differs("V1Image", serde_json::json!({})), " has no id");
    assert_eq!(differs("V1Image", serde_json::json!({"id": 1})), ".id is integer");
    assert_eq!(differs("V1Image", serde_json::json!({"id": "", "size": 1})), ".size is not described");
    assert_eq!(differs("HubFaults", serde_json::json!({"name": ["is taken"]})), "");
    assert_eq!(differs("HubFaults", serde_json::json!({"name": "is taken"})), ".name is string");
    assert!(differs("HubMember", serde_json::json!({"role": "Guest"})).contains(".role is none of those"));
    assert!(differs("HubMember", serde_json::json!({"role": "Owner"})).contains("has no username"));
}

//! Whole tables as snapshots: who may do what, and how each dialect says no.

use crate::harness::Site;
use outport::http::{DIALECTS, Needs};

/// Compares with a file beside this one. `UPDATE=1 cargo test` writes it anew.
fn golden(name: &str, found: &str) {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/golden").join(name);
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, found).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(found == expected, "{name} differs; if that is meant, UPDATE=1 writes it anew. Found:\n{found}");
}

#[test]
fn every_route_and_what_it_needs_is_as_written_down() {
    golden("routes.txt", &outport::http::route_table());
}

#[test]
fn every_kind_of_error_has_the_status_and_code_written_down() {
    golden("errors.txt", &outport::http::error_matrix());
}

#[test]
fn no_row_that_needs_someone_answers_nobody() {
    let site = Site::new();
    let rows = DIALECTS.iter().flat_map(|dialect| dialect.routes.iter().map(|route| (dialect.name, route)));
    for (dialect, route) in rows {
        let target = route
            .path
            .replace("[/]", "")
            .replace("{name*}", "some/repo")
            .replace("{ns}", "some")
            .replace("{repo}", "repo")
            .replace("{tag}", "latest")
            .replace("{org}", "acme")
            .replace("{group}", "ci")
            .replace("{user}", "bob")
            .replace("{id}", "1")
            .replace("{uuid}", "00000000-0000-4000-8000-000000000000")
            .replace("{name}", "some")
            .replace("{digest}", &format!("sha256:{}", "0".repeat(64)))
            .replace("{upload}", &"0".repeat(32))
            .replace("{reference}", "latest");
        let answer = site.ask(route.method, &target).by_nobody().send();
        if route.needs == Needs::Nobody {
            assert_ne!(answer.status, 403, "{} {target}", route.method);
        } else {
            assert_eq!(answer.status, 401, "{} {target}", route.method);
            if dialect == "oci" {
                answer.is(401, "UNAUTHORIZED");
            }
            assert_eq!(answer.headers_named("www-authenticate").len(), 1, "{} {target}", route.method);
        }
    }
}

#[test]
fn a_wrong_method_is_told_which_ones_there_are() {
    let site = Site::new();
    let answer = site.ask("POST", "/v2/a/b/tags/list").send();
    answer.is(405, "UNSUPPORTED");
    assert_eq!(answer.header("allow"), Some("GET, HEAD"));
    // Where uploads begin is none of them.
    let answer = site.get("/v2/a/b/blobs/uploads/");
    answer.is(405, "UNSUPPORTED");
    assert_eq!(answer.header("allow"), Some("POST"));
    let nowhere = site.get("/nowhere");
    assert_eq!(nowhere.status, 404);
    assert!(nowhere.json()["error"].is_string());
    site.get("/v2/nowhere").is(404, "UNSUPPORTED");
}

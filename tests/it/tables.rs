//! Whole tables as snapshots: who may do what, and how each dialect says no.

use crate::harness::Site;

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

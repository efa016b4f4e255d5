//! The OpenAPI document is a reviewed snapshot: no change of the interface goes unseen.

/// Set to write the snapshot anew, and read the difference before you commit it.
const UPDATE: &str = "COUNTERSIGN_UPDATE_SNAPSHOTS";

#[test]
fn the_document_is_the_one_that_was_reviewed() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/snapshots/openapi.json");
    let mut now = countersign::http::document().to_pretty_json().unwrap();
    now.push('\n');
    if std::env::var_os(UPDATE).is_some() {
        std::fs::write(path, &now).unwrap();
    }
    let reviewed = std::fs::read_to_string(path).unwrap_or_default();
    assert!(
        now == reviewed,
        "the interface differs from tests/snapshots/openapi.json; if that is meant, run the test with {UPDATE}=1 and review the difference"
    );
}

#[test]
fn the_document_is_openapi_3_1() {
    let document = serde_json::to_value(countersign::http::document()).unwrap();
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1"));
}

//! Every example of docs/POLICY.md is loaded.

use countersign_policy::lists::from_file;
use countersign_policy::{SCHEMA, review};

use crate::book::text;

const POLICY: &str = include_str!("../../../docs/POLICY.md");

/// The blocks of one language.
fn blocks(language: &str) -> Vec<&'static str> {
    let fence = format!("```{language}\n");
    let parts = POLICY.split(&fence).skip(1);
    parts
        .map(|part| part.split("```").next().unwrap())
        .collect()
}

#[test]
fn every_policy_in_the_docs_can_be_published_and_warns_of_nothing() {
    let policies = blocks("cedar");
    assert!(policies.len() >= 8, "{}", policies.len());
    for policy in policies {
        let reviewed =
            review(&text(policy)).unwrap_or_else(|problems| panic!("{policy}\n{problems:?}"));
        let warnings: Vec<&String> = reviewed
            .warnings
            .iter()
            // One approval is meant there, and a dearer rule may speak of labels that some host has.
            .filter(|warning| !warning.contains("one approval"))
            .filter(|warning| !warning.starts_with("rule production: labels"))
            .collect();
        assert!(warnings.is_empty(), "{policy}\n{warnings:?}");
    }
}

#[test]
fn every_list_in_the_docs_is_a_policy() {
    assert!(blocks("toml").len() >= 2 && !blocks("json").is_empty());
    for (language, name) in [("toml", "p.toml"), ("json", "p.json")] {
        for list in blocks(language) {
            from_file(name, list).unwrap_or_else(|error| panic!("{list}\n{error}"));
        }
    }
}

#[test]
fn every_attribute_and_annotation_is_in_the_docs() {
    let attributes = SCHEMA.lines().filter_map(|line| {
        let (name, _) = line.trim().split_once(": ")?;
        name.bytes()
            .all(|b| b.is_ascii_lowercase() || b == b'_')
            .then_some(name)
    });
    let attributes: Vec<&str> = attributes.filter(|name| *name != "principal").collect();
    assert!(attributes.len() > 30, "{attributes:?}");
    for name in attributes {
        assert!(POLICY.contains(&format!("`{name}`")), "{name}");
    }
    for name in [
        "id",
        "comment",
        "approvals",
        "from",
        "also_from",
        "expires",
        "max_timeout",
        "max_in_flight",
        "gap",
        "gap_label",
        "max_errors",
        "canary",
        "count_above",
        "reason",
        "rejections",
        "review_within",
    ] {
        assert!(POLICY.contains(&format!("`@{name}")), "{name}");
    }
}

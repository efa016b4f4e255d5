//! What the documents name is there: files of the sources, and tests by their names.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn documents(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            documents(&path, found);
        } else if path.extension().is_some_and(|ending| ending == "md") {
            found.push(path);
        }
    }
}

/// `a/b.rs::c::{d, e}` names a file and what stands in it.
fn names(quoted: &str) -> Option<(String, Vec<&str>)> {
    let (stem, rest) = quoted.split_once(".rs")?;
    let is_path = |c: char| c.is_ascii_alphanumeric() || "/_.-".contains(c);
    if !stem.contains('/') || !stem.chars().all(is_path) {
        return None;
    }
    let rest = rest.strip_prefix("::").unwrap_or_default();
    let list = rest
        .split_once('{')
        .map_or(rest, |(_, list)| list.trim_end_matches('}'));
    let items = list
        .split(',')
        .filter_map(|item| item.trim().rsplit("::").next());
    Some((
        format!("{stem}.rs"),
        items.filter(|item| !item.is_empty()).collect(),
    ))
}

#[test]
fn every_file_and_every_test_that_a_document_names_is_there() {
    let mut all = vec![root().join("README.md")];
    documents(&root().join("docs"), &mut all);
    let mut missing = BTreeSet::new();
    let mut known = 0;
    for document in all {
        let text = fs::read_to_string(&document).unwrap();
        for (file, items) in text.split('`').skip(1).step_by(2).filter_map(names) {
            let place = document.strip_prefix(root()).unwrap().display().to_string();
            let Ok(source) = fs::read_to_string(root().join(&file)) else {
                missing.insert(format!("{place}: {file}"));
                continue;
            };
            for item in items {
                known += 1;
                if !source.contains(item) {
                    missing.insert(format!("{place}: {file}::{item}"));
                }
            }
        }
    }
    assert!(known > 300, "{known} are named");
    assert!(missing.is_empty(), "{missing:#?}");
}

#[test]
fn no_example_ends_a_line_with_two_backslashes() {
    let mut found = vec![root().join("README.md")];
    documents(&root().join("docs"), &mut found);
    for path in found {
        let text = fs::read_to_string(&path).unwrap();
        let wrong = text.lines().find(|line| line.ends_with("\\\\"));
        assert_eq!(
            wrong,
            None,
            "a shell would read a word there: {}",
            path.display()
        );
    }
}

/// Cargo reads the manifests of all members, and looks for what they declare.
#[test]
fn the_image_is_built_from_every_member_of_the_workspace() {
    let ignored = fs::read_to_string(root().join(".dockerignore")).unwrap();
    let admitted: BTreeSet<&str> = ignored
        .lines()
        .filter_map(|it| it.strip_prefix('!'))
        .collect();
    let manifest = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let members = manifest.split_once("members = [").unwrap().1;
    let members = members.split_once(']').unwrap().0;
    let members: Vec<&str> = members.split('"').skip(1).step_by(2).collect();
    assert!(members.len() > 5, "{members:?}");
    let folders = ["src", "migrations", "benches"].into_iter();
    for folder in folders.chain(members.into_iter().filter(|member| *member != ".")) {
        assert!(
            admitted.contains(folder),
            "{folder} is not in .dockerignore"
        );
    }
}

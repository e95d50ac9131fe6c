//! What the documents name is there: chores, files and folders.

#[path = "../../tortie/tests/documents/commands.rs"]
mod commands;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

#[test]
fn every_chore_that_the_documents_name_exists() {
    commands::exist(env!("CARGO_BIN_EXE_xtask"), "cargo xtask", 30);
}

fn workspace() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

/// Every file and folder, by its path from here, but what is built.
fn tree() -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    let mut folders = vec![PathBuf::new()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(workspace().join(&folder)).expect("a folder of the workspace") {
            let entry = entry.expect("a folder of the workspace");
            let path = folder.join(entry.file_name());
            let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
            if is_folder && !["target", ".git", "artifacts"].iter().any(|built| path.ends_with(built)) {
                folders.push(path.clone());
            }
            found.insert(path);
        }
    }
    found
}

/// A word that is the path of one file or folder of ours, and none of a site's or of another project.
fn is_ours(word: &str) -> bool {
    const ROOMS: [&str; 19] = [
        "afxdp",
        "appliance-image",
        "bgp",
        "datastore",
        "docs",
        "fastpath",
        "fuzz",
        "lab",
        "lpm",
        "model",
        "monitoring",
        "packaging",
        "packet",
        "perf",
        "policy",
        "slowpath",
        "tables",
        "tortie",
        "xtask",
    ];
    let is_path = word.bytes().all(|b| b.is_ascii_alphanumeric() || b"/._-".contains(&b));
    let room = word.split('/').next().unwrap_or_default();
    is_path && word.contains('/') && ROOMS.contains(&room)
}

#[test]
fn every_path_that_the_documents_name_exists() {
    let tree = tree();
    let mut missing = Vec::new();
    let mut seen = 0;
    for document in ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "OPERATING.md"] {
        let text = fs::read_to_string(workspace().join(document)).expect(document);
        let mut is_fenced = false;
        for line in text.lines() {
            is_fenced ^= line.starts_with("```");
            let code = line.split('`').skip(1).step_by(2).filter(|_| !is_fenced);
            let links = line.split("](").skip(1).filter_map(|rest| rest.split([')', '#']).next());
            let links = links.filter(|link| !link.is_empty() && !link.contains("://"));
            for word in code.filter(|word| is_ours(word)).chain(links) {
                seen += 1;
                if !tree.contains(Path::new(word.trim_end_matches('/'))) {
                    missing.push(format!("{document}: {word}"));
                }
            }
            // In the map and the walks a file stands by its own name, or with its folder.
            let files =
                line.split('`').skip(1).step_by(2).filter(|word| word.ends_with(".rs") && !is_ours(word));
            for file in files.filter(|_| document == "ARCHITECTURE.md" && !is_fenced) {
                seen += 1;
                if !tree.iter().any(|path| path.ends_with(file)) {
                    missing.push(format!("{document}: {file}"));
                }
            }
        }
    }
    assert!(missing.is_empty(), "{}", missing.join("\n"));
    assert!(seen >= 200, "only {seen} paths were found");
}

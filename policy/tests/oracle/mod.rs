//! The oracles of other projects, read for whoever is held to them.

use std::path::PathBuf;

use serde_json::Value;

/// The rows of a file of oracles; none, with a word, where there are no oracles.
pub fn rows(file: &str) -> Vec<Value> {
    let folder = std::env::var_os("TORTIE_ORACLES").map_or_else(
        || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/oracles")),
        PathBuf::from,
    );
    let path = folder.join(file);
    match std::fs::read_to_string(&path) {
        Ok(text) => {
            text.lines().map(|line| serde_json::from_str(line).expect("one JSON value a line")).collect()
        }
        Err(error) => {
            println!("skipped: {}: {error}; TORTIE_ORACLES names another folder", path.display());
            Vec::new()
        }
    }
}

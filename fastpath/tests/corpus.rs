//! Replays the corpus and the regressions of the fuzz target `walk`, whole and cut short at every byte.

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use support::{Rig, one_fate};

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz").join(name).join("walk")
}

/// Every file of a folder, by name; nothing where the folder is not there.
fn files(name: &str) -> Vec<(String, Vec<u8>)> {
    let Ok(entries) = fs::read_dir(folder(name)) else { return Vec::new() };
    let paths = entries.map(|entry| entry.unwrap()).filter(|entry| entry.file_name() != ".gitkeep");
    paths.map(|entry| (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap())).collect()
}

#[test]
fn every_frame_of_the_corpus_ends_in_one_fate() {
    let mut rig = Rig::new();
    for (name, bytes) in files("corpus").into_iter().chain(files("regressions")) {
        println!("{name}");
        (1..=bytes.len()).for_each(|len| one_fate::run(&mut rig, &bytes[..len]));
    }
    rig.audit();
}

/// After a change to what a seed should be: `cargo test -p fastpath --test corpus -- --ignored`.
#[test]
#[ignore = "writes the corpus"]
fn write_the_corpus() {
    fs::create_dir_all(folder("corpus")).unwrap();
    for (name, bytes) in one_fate::seeds() {
        fs::write(folder("corpus").join(name), bytes).unwrap();
    }
}

#[test]
fn the_corpus_is_what_the_seeds_make() {
    let kept: BTreeSet<(String, Vec<u8>)> = files("corpus").into_iter().collect();
    let made: BTreeSet<(String, Vec<u8>)> = one_fate::seeds().into_iter().collect();
    let differing: Vec<&String> = kept.symmetric_difference(&made).map(|(name, _)| name).collect();
    assert!(differing.is_empty(), "write the corpus anew: {differing:?}");
}

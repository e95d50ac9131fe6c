//! Replays the fuzz target's corpus and regressions, and keeps the corpus rich: it must hold a frame for every kind
//! that parses and for every reason that does not.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use packet::{Kind, Malformed, parse};

#[path = "support/checks.rs"]
mod checks;

/// Every file below `fuzz/FOLDER/packet`; nothing where the folder is not there.
fn files(folder: &str) -> Vec<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz").join(folder).join("packet");
    let Ok(entries) = fs::read_dir(&path) else { return Vec::new() };
    entries
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_file() && !path.ends_with(".gitkeep"))
        .collect()
}

#[test]
fn every_frame_of_the_corpus_keeps_the_promises() {
    for path in files("corpus").into_iter().chain(files("regressions")) {
        let frame = fs::read(&path).unwrap();
        println!("{}", path.display());
        checks::run(&frame);
        (0..frame.len()).for_each(|len| checks::run(&frame[..len]));
    }
}

#[test]
fn the_corpus_has_every_kind_and_every_reason() {
    let paths = files("corpus");
    assert!((30..=60).contains(&paths.len()), "{} frames in fuzz/corpus/packet", paths.len());
    let mut kinds = BTreeSet::new();
    let mut reasons = BTreeSet::new();
    for path in paths {
        match parse(&fs::read(&path).unwrap()) {
            Ok(parsed) => drop(kinds.insert(parsed.kind)),
            Err(reason) => drop(reasons.insert(reason)),
        }
    }
    assert_eq!(kinds, BTreeSet::from([Kind::Ipv4, Kind::Ipv6, Kind::Arp, Kind::Other]));
    assert_eq!(reasons, BTreeSet::from(Malformed::ALL));
}

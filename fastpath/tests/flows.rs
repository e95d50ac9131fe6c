//! Packets of a few flows in any order: replays the corpus and the regressions of the fuzz target `flows`, and sequences that
//! are drawn by lot.

mod support;

use std::cell::RefCell;
use std::fs;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use support::{Rig, flow_sequence};

thread_local! {
    static RIG: RefCell<Rig> = RefCell::new(flow_sequence::rig());
}

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz").join(name).join("flows")
}

#[test]
fn every_sequence_of_the_corpus_ends_as_policy_says() {
    let files = ["corpus", "regressions"].into_iter().flat_map(|name| fs::read_dir(folder(name)));
    let mut replayed = 0;
    for entry in files.flatten().map(Result::unwrap).filter(|entry| entry.file_name() != ".gitkeep") {
        println!("{}", entry.path().display());
        RIG.with_borrow_mut(|rig| flow_sequence::run(rig, &fs::read(entry.path()).unwrap()));
        replayed += 1;
    }
    assert!(replayed >= flow_sequence::seeds().len(), "the corpus is there");
}

proptest! {
    #[test]
    fn no_order_of_packets_gets_past_policy(steps in prop::collection::vec(any::<[u8; flow_sequence::STEP]>(), 0..80)) {
        RIG.with_borrow_mut(|rig| flow_sequence::run(rig, &steps.concat()));
    }
}

/// After a change to what a seed should be: `cargo test -p fastpath --test flows -- --ignored`.
#[test]
#[ignore = "writes the corpus"]
fn write_the_corpus() {
    fs::create_dir_all(folder("corpus")).unwrap();
    for (name, bytes) in flow_sequence::seeds() {
        fs::write(folder("corpus").join(name), bytes).unwrap();
    }
}

//! Replays the fuzzer's corpus, and bytes that nobody chose.

#[path = "support/stream.rs"]
mod stream;

use proptest::prelude::*;

#[test]
fn every_seed_of_the_corpus_is_taken_without_contradiction() {
    for folder in ["corpus/bgp", "regressions/bgp"] {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz").join(folder);
        for seed in std::fs::read_dir(&folder).expect("the folder can be read") {
            let path = seed.expect("the folder can be read").path();
            stream::run(&std::fs::read(&path).expect("a seed can be read"));
        }
    }
}

proptest! {
    #[test]
    fn any_bytes_are_taken_without_contradiction(data in proptest::collection::vec(any::<u8>(), 0..300)) {
        stream::run(&data);
    }

    /// Attributes that are nearly right go deeper than bytes at random.
    #[test]
    fn nearly_right_updates_are_taken_without_contradiction(
        setting in any::<u8>().prop_map(|bits| bits & !1 | 0x20),
        attributes in proptest::collection::vec(
            (prop_oneof![Just(0x40u8), Just(0x80), Just(0xc0), any::<u8>()], 0u8..42,
             proptest::collection::vec(any::<u8>(), 0..14)), 0..6),
        nlri in proptest::collection::vec((0u8..34, any::<[u8; 2]>()), 0..6),
        nexthop in prop_oneof![Just([10, 9, 9, 9]), any::<[u8; 4]>()],
    ) {
        let mut block = vec![0x40, 1, 1, 0, 0x40, 3, 4];
        block.extend(nexthop);
        let path: &[u8] = if setting & 8 == 0 { &[0x40, 2, 6, 2, 1, 0, 0, 0xfd, 0xe9] } else { &[0x40, 2, 4, 2, 1, 0xfd, 0xe9] };
        block.extend(path);
        for (flags, code, value) in attributes {
            block.extend([flags & !0x10, code, value.len() as u8]);
            block.extend(value);
        }
        let mut data = vec![setting, 0, 0];
        data.extend((block.len() as u16).to_be_bytes());
        data.extend(block);
        for (len, octets) in nlri {
            if setting & 4 != 0 {
                data.extend([0, 0, 0, octets[0] % 3]);
            }
            data.push(len);
            data.extend(octets.iter().cycle().take(usize::from(len.div_ceil(8))));
        }
        stream::run(&data);
    }
}

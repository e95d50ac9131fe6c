//! Ten writers at one store, some of which die between any two of their writes: no address is handed out twice, and
//! afterwards the books are mended.

mod ipam_writers;

use datastore::MemoryStore;
use proptest::prelude::*;

use ipam_writers::{Plan, Site, run};

proptest! {
    // Each case is ten threads.
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn no_address_is_handed_out_twice_and_the_books_are_mended(
        seed: u64, strict: bool, conflicts in 0u32..30, deaths in 0u32..12
    ) {
        let store = MemoryStore::default();
        let plan = Plan { seed, writers: 10, steps: 25, conflicts, deaths };
        run(&store, &plan, Site { strict, cooldown: 0 });
    }
}

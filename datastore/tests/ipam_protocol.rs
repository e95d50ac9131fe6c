//! Ten writers at one store, some of which die between any two of their writes: no address is handed out twice, and
//! afterwards the books are mended.

mod ipam_writers;
mod server;
mod way;

use datastore::{DirectoryStore, EtcdStore, MemoryStore, Store};
use proptest::prelude::*;

use ipam_writers::{Plan, Site, run};
use server::Etcd;

const WRITERS: usize = 10;

proptest! {
    // Each case is ten threads.
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn no_address_is_handed_out_twice_and_the_books_are_mended(
        seed: u64, strict: bool, conflicts in 0u32..30, deaths in 0u32..12
    ) {
        let store = MemoryStore::default();
        let plan = Plan { seed, writers: WRITERS, steps: 25, conflicts, deaths };
        run(&[&store], &plan, Site { strict, cooldown: 0 });
    }
}

#[test]
fn the_same_holds_in_a_real_etcd_with_a_connection_each() {
    let Some(etcd) = Etcd::start() else { return };
    let stores: Vec<EtcdStore> =
        (0..WRITERS).map(|_| EtcdStore::open(&etcd.settings()).expect("a connection")).collect();
    let stores: Vec<&dyn Store> = stores.iter().map(|store| store as &dyn Store).collect();
    let plan = Plan { seed: 7, writers: WRITERS, steps: 20, conflicts: 5, deaths: 3 };
    run(&stores, &plan, Site { strict: false, cooldown: 0 });
}

#[test]
fn the_same_holds_in_a_directory() {
    let directory = tempfile::tempdir().expect("a directory");
    let stores: Vec<DirectoryStore> =
        (0..WRITERS).map(|_| DirectoryStore::open(directory.path()).expect("a store")).collect();
    let stores: Vec<&dyn Store> = stores.iter().map(|store| store as &dyn Store).collect();
    let plan = Plan { seed: 11, writers: WRITERS, steps: 10, conflicts: 5, deaths: 3 };
    run(&stores, &plan, Site { strict: true, cooldown: 0 });
}

//! The walk allocates nothing, whatever it does (fastpath's promise), nor does judging by policy (policy's).

use std::sync::Arc;

use perf::acl::{self, Kind};
use perf::data;
use perf::judged::{Judged, PACKETS};
use perf::works::WORKS;

#[test]
fn no_kind_of_work_allocates_once_it_runs() {
    let internet = data::made_up(100);
    for (name, make) in WORKS {
        let (mut router, replay) = make(&internet, 1).expect("a router in memory");
        let mut parts = router.worker(0, &replay).expect("a worker in memory");
        let mut packets = 0;
        const ROUNDS: usize = 100;
        let mut work = || packets += (0..ROUNDS).map(|_| parts.worker.round()).sum::<usize>();
        work();
        let allocations = allocation_counter::measure(|| (0..20).for_each(|_| work()));
        assert_eq!(allocations.count_total, 0, "{name}: {allocations:?}");
        assert!(
            packets >= 21 * ROUNDS,
            "{name}: only {packets} packets were forwarded, less than one a round"
        );
        let books = router.counters.books();
        assert_eq!(books.forwarded, books.received, "{name}: {books:?}");
    }
    judging_allocates_nothing();
    let control = allocation_counter::measure(|| drop(std::hint::black_box(vec![0u8; 64])));
    assert_eq!(control.count_total, 1, "the counter counts");
}

fn judging_allocates_nothing() {
    let rules = acl::rules(Kind::Firewall, 1_000, 1);
    let packets = acl::packets(&rules, PACKETS, 2);
    let mut judged = Judged::new(Arc::new(acl::checks(&rules)), packets).expect("room");
    let allocations = allocation_counter::measure(|| {
        judged.singles();
        judged.batches();
        judged.batches_by_memory();
    });
    assert_eq!(allocations.count_total, 0, "judging: {allocations:?}");
}

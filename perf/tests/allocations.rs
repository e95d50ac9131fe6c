//! The walk allocates nothing, whatever it does (fastpath's promise).

use perf::data;
use perf::works::WORKS;

#[test]
fn no_kind_of_work_allocates_once_it_runs() {
    let internet = data::made_up(100);
    for (name, make) in WORKS {
        let (mut router, replay) = make(&internet, 1).expect("a router in memory");
        let mut parts = router.worker(0, &replay).expect("a worker in memory");
        let mut packets = 0;
        let mut work = || packets += (0..100).map(|_| parts.worker.round()).sum::<usize>();
        work();
        let allocations = allocation_counter::measure(|| (0..20).for_each(|_| work()));
        assert_eq!(allocations.count_total, 0, "{name}: {allocations:?}");
        assert!(packets > 10_000, "{name}: only {packets} packets were forwarded");
        let books = router.counters.books();
        assert_eq!(books.forwarded, books.received, "{name}: {books:?}");
    }
    let control = allocation_counter::measure(|| drop(std::hint::black_box(vec![0u8; 64])));
    assert_eq!(control.count_total, 1, "the counter counts");
}

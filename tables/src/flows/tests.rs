use super::*;
use model::Family;
use packet::protocol;
use proptest::prelude::*;
use std::collections::{BTreeSet, HashMap};
use std::sync::LazyLock;
use std::sync::atomic::AtomicBool;

const NOW: Ticks = Ticks(1000);
const OUTER: u128 = 0xc633_6401;

/// Flow number *n* before translation.
fn original(n: u32) -> FlowKey {
    FlowKey {
        src: 0x0a41_0000 + u128::from(n),
        dst: 0xcb00_7101,
        sport: n as u16,
        dport: 53,
        protocol: protocol::UDP,
        family: Family::V4,
    }
}

/// Its replies, which say as much of it as it says of them: half of one and half of another would show.
fn reply(n: u32) -> FlowKey {
    let of = original(n);
    FlowKey { src: of.dst, dst: OUTER, sport: of.dport, dport: n as u16 ^ 0x5555, ..of }
}

fn timeouts() -> FlowTimeouts {
    FlowTimeouts::default()
}

fn time(now: Ticks) -> FlowTime<'static> {
    static TIMEOUTS: LazyLock<FlowTimeouts> = LazyLock::new(FlowTimeouts::default);
    FlowTime::new(now, &TIMEOUTS)
}

fn add(flows: &Flows, n: u32) -> Result<Flow, NotAdded> {
    flows.add(&original(n), &reply(n), NOW, &timeouts())
}

fn look_up(flows: &Flows, asked: &FlowKey) -> Option<Flow> {
    flows.look_up(asked, NOW, &timeouts())
}

/// Answered, and so established.
fn establish(flows: &Flows, n: u32) {
    let answer = look_up(flows, &reply(n)).expect("just added");
    flows.touch(&answer, 0, &time(NOW));
}

#[test]
fn a_flow_is_found_by_both_keys_and_says_what_its_packets_become() {
    let flows = Flows::new(8);
    add(&flows, 1).unwrap();
    let there = look_up(&flows, &original(1)).unwrap();
    assert_eq!((there.direction, there.translated()), (Direction::Original, reply(1).reversed()));
    let back = look_up(&flows, &reply(1)).unwrap();
    assert_eq!((back.direction, back.translated()), (Direction::Reply, original(1).reversed()));
    assert_eq!(look_up(&flows, &original(2)), None);
}

#[test]
fn a_flow_is_added_once_and_its_replies_are_its_own() {
    let flows = Flows::new(8);
    let first = add(&flows, 1).unwrap();
    assert_eq!(add(&flows, 1), Err(NotAdded::Known(first)));
    let timeouts = timeouts();
    assert_eq!(flows.add(&original(2), &reply(1), NOW, &timeouts), Err(NotAdded::Ambiguous));
    assert_eq!(flows.add(&original(3), &original(3), NOW, &timeouts), Err(NotAdded::Ambiguous));
    assert_eq!(flows.counts().in_use, 1);
}

#[test]
fn a_full_table_lets_go_of_unanswered_flows_and_of_no_others() {
    let flows = Flows::new(64);
    (0..32).for_each(|n| {
        add(&flows, n).unwrap();
        establish(&flows, n);
    });
    for n in 100..10_000 {
        add(&flows, n).expect("an unanswered flow goes");
    }
    assert!((0..32).all(|n| look_up(&flows, &original(n)).is_some() && look_up(&flows, &reply(n)).is_some()));
    assert_eq!(
        flows.counts(),
        FlowCounts { in_use: 64, size: 64, evicted: 9_900 - 32, ports: 0, over_share: 0 }
    );
    (10_000..10_032).for_each(|n| {
        add(&flows, n).unwrap();
        establish(&flows, n);
    });
    assert_eq!(add(&flows, 20_000), Err(NotAdded::Full));
}

#[test]
fn flows_end_after_their_time_whether_aged_or_asked_for() {
    let flows = Flows::new(64);
    let late = Ticks(NOW.0 + timeouts().udp.0 + 1);
    (0..10).for_each(|n| assert!(add(&flows, n).is_ok()));
    let kept = look_up(&flows, &original(3)).unwrap();
    flows.touch(&kept, 0, &time(Ticks(NOW.0 + 100)));
    assert_eq!(flows.look_up(&original(9), late, &timeouts()), None);
    assert_eq!(flows.counts().in_use, 9);
    assert_eq!(flows.age(64, late, &timeouts()), 8);
    assert!(flows.look_up(&original(3), late, &timeouts()).is_some());
}

#[test]
fn a_row_that_went_to_another_flow_ignores_what_is_said_of_the_last() {
    let flows = Flows::new(1);
    let first = add(&flows, 1).unwrap();
    add(&flows, 2).unwrap();
    let second = look_up(&flows, &original(2)).unwrap();
    assert_eq!(first.row, second.row);
    flows.touch(&Flow { direction: Direction::Reply, ..first }, 0, &time(NOW));
    assert_eq!(flows.rows().map(|row| row.state).collect::<Vec<_>>(), ["new"]);
}

fn outer(ports: RangeInclusive<u16>) -> OuterAddress {
    OuterAddress { address: OUTER, ports }
}

#[test]
fn one_port_of_a_workload_has_one_outer_port_wherever_it_sends_to() {
    let flows = Flows::new(64);
    let (outer, timeouts) = (outer(1024..=65_535), timeouts());
    let send = |src: u128, dst: u128| {
        let key = FlowKey { src, dst, sport: 5000, ..original(0) };
        flows.add_outgoing(&key, &outer, NOW, &timeouts).unwrap().other.dport
    };
    let ports: BTreeSet<u16> = (1..10).map(|dst| send(7, dst)).collect();
    assert_eq!(ports, BTreeSet::from([5000]), "kept, as nobody else has it");
    let others: BTreeSet<u16> = (1..10).map(|dst| send(8, dst)).collect();
    assert_eq!(others.len(), 1);
    assert!(others.iter().all(|port| *port != 5000 && port % 2 == 0), "{others:?}");
    assert_eq!(flows.counts().ports, 2);
    assert_eq!(flows.counts().in_use, 18 + 2 + 2);
}

#[test]
fn the_last_flow_of_a_mapping_takes_it_along() {
    let flows = Flows::new(64);
    let (outer, timeouts) = (outer(1024..=65_535), timeouts());
    for dst in 1..4 {
        flows.add_outgoing(&FlowKey { dst, sport: 5000, ..original(0) }, &outer, NOW, &timeouts).unwrap();
    }
    let asked = FlowKey { dst: 2, sport: 5000, ..original(0) };
    let later = Ticks(NOW.0 + timeouts.udp.0);
    flows.touch(&look_up(&flows, &asked).unwrap(), 0, &time(later));
    assert_eq!(flows.age(64, Ticks(later.0 + 1), &timeouts), 2);
    assert_eq!((flows.counts().in_use, flows.counts().ports), (3, 1));
    assert_eq!(flows.age(64, Ticks(later.0 + timeouts.udp.0 + 1), &timeouts), 1);
    assert_eq!((flows.counts().in_use, flows.counts().ports), (0, 0));
}

#[test]
fn a_range_without_a_free_port_is_exhausted_and_says_so() {
    let flows = Flows::new(64);
    let (outer, timeouts) = (outer(2000..=2003), timeouts());
    let send = |n: u32| flows.add_outgoing(&original(n), &outer, NOW, &timeouts);
    let ports: BTreeSet<u16> = (0..4).map(|n| send(n).unwrap().other.dport).collect();
    assert!(ports.into_iter().eq(2000..=2003));
    assert_eq!(send(9), Err(NotAdded::PortsExhausted));
    assert_eq!(flows.counts().in_use, 12, "what was begun in vain is undone");
    // Queries have identifiers of their own.
    let echo = FlowKey { protocol: protocol::ICMP, src: 1, dst: 2, sport: 77, dport: 77, family: Family::V4 };
    let reply = flows.add_outgoing(&echo, &outer, NOW, &timeouts).unwrap().other;
    assert_eq!((reply.src, reply.dst, reply.sport), (2, OUTER, reply.dport));
    assert!(outer.ports.contains(&reply.dport));
}

/// RFC 4787 REQ-9: external source address and port.
#[test]
fn an_outer_port_is_reached_from_inside_under_the_senders_own_and_outlives_its_first_flow() {
    let flows = Flows::new(64);
    let (outer, timeouts) = (outer(1024..=65_535), timeouts());
    let add = |key: &FlowKey, now| flows.add_outgoing(key, &outer, now, &timeouts);
    let receiver = FlowKey { src: 8, sport: 6000, ..original(0) };
    let far = add(&receiver, NOW).unwrap().other.dport;
    let asks = FlowKey { src: 7, sport: 5000, dst: OUTER, dport: far, ..receiver };
    let hairpin = |key: &FlowKey, now| flows.add_hairpin(key, &outer, now, &timeouts);
    let later = Ticks(NOW.0 + timeouts.udp.0);
    let flow = hairpin(&asks, later).unwrap().expect("the port is the receiver's");
    assert_eq!(flow.translated(), FlowKey { src: OUTER, sport: 5000, dst: 8, dport: 6000, ..asks });
    let answer = look_up(&flows, &flow.other).expect("the answer is the same flow's");
    assert_eq!((answer.direction, answer.translated()), (Direction::Reply, asks.reversed()));
    assert_eq!(hairpin(&asks, later), Err(NotAdded::Known(flow)));
    // The receiver's own flow ends; its port stays, as the sender goes on using it.
    assert_eq!(flows.age(64, Ticks(later.0 + 1), &timeouts), 1);
    assert_eq!(flows.counts().ports, 2);
    assert_eq!(flows.age(64, Ticks(later.0 + timeouts.udp.0 + 1), &timeouts), 1);
    assert_eq!((flows.counts().in_use, flows.counts().ports), (0, 0));
}

#[test]
fn only_another_ones_outer_port_makes_a_hairpin() {
    let flows = Flows::new(64);
    let (outer, timeouts) = (outer(1024..=65_535), timeouts());
    let own = FlowKey { src: 8, sport: 6000, ..original(0) };
    flows.add_outgoing(&own, &outer, NOW, &timeouts).unwrap();
    let to = |key: FlowKey| flows.add_hairpin(&key, &outer, NOW, &timeouts);
    let asks = FlowKey { src: 7, dst: OUTER, dport: 6000, ..own };
    assert_eq!(to(FlowKey { dport: 6001, ..asks }), Ok(None), "nobody has it");
    assert_eq!(to(FlowKey { protocol: protocol::TCP, ..asks }), Ok(None), "TCP's ports are others");
    assert_eq!(to(FlowKey { protocol: protocol::ICMP, sport: 6000, ..asks }), Ok(None));
    assert_eq!(to(FlowKey { dst: OUTER + 1, ..asks }), Ok(None));
    assert_eq!(to(FlowKey { src: 8, ..asks }), Err(NotAdded::Ambiguous), "from itself");
    assert_eq!((flows.counts().in_use, flows.counts().ports), (3, 1), "what was begun in vain is undone");
}

/// RFC 6888 REQ-4: so that one sender leaves ports to the others.
#[test]
fn no_address_gets_more_than_its_share_of_each_protocols_ports() {
    let flows = Flows::with_share(256, 10);
    let (outer, timeouts) = (outer(2000..=2063), timeouts());
    let send = |src, sport, protocol, dst| {
        let key = FlowKey { src, sport, protocol, dst, ..original(0) };
        flows.add_outgoing(&key, &outer, NOW, &timeouts)
    };
    for sport in 1..=10 {
        assert!(send(7, sport, protocol::UDP, 99).is_ok());
    }
    assert_eq!(send(7, 11, protocol::UDP, 99), Err(NotAdded::OverShare));
    assert!(send(7, 10, protocol::UDP, 98).is_ok(), "a port that it has leads anywhere");
    assert!(send(7, 11, protocol::TCP, 99).is_ok() && send(8, 11, protocol::UDP, 99).is_ok());
    assert_eq!(flows.counts().over_share, 1);
    // A flow that ends gives its port back, to its sender's share, too.
    let first = |original: &FlowKey, _: &FlowKey| original.sport == 1;
    assert_eq!(flows.end(0..256, first), 1);
    assert!(send(7, 11, protocol::UDP, 99).is_ok());
    assert_eq!(send(7, 12, protocol::UDP, 99), Err(NotAdded::OverShare));
    flows.end(0..256, |_, _| true);
    assert_eq!((flows.counts().in_use, flows.counts().ports), (0, 0));
}

#[test]
fn flows_are_ended_within_rows_and_by_what_is_said_of_them() {
    let flows = Flows::new(64);
    (0..32).for_each(|n| {
        add(&flows, n).unwrap();
        establish(&flows, n);
    });
    let (outer, timeouts) = (outer(1024..=65_535), timeouts());
    flows.add_outgoing(&original(40), &outer, NOW, &timeouts).unwrap();
    assert_eq!(flows.end(0..64, |_, _| false), 0);
    let there = || flows.rows().count();
    let first = flows.end(0..8, |original, _| original.sport < 40);
    assert!(first <= 8 && there() == 33 - first, "a row each");
    let more = flows.end(8..64, |original, _| original.sport < 20);
    assert_eq!(there(), 33 - first - more);
    assert!(flows.rows().all(|row| row.original.sport >= 20));
    let even = flows.rows().filter(|row| row.reply.dport & 1 == 0).count();
    assert_eq!(flows.end(0..64, |_, reply| reply.dport & 1 == 0), even);
    assert!(flows.rows().all(|row| row.reply.dport & 1 == 1));
    let left = there();
    assert_eq!(flows.end(0..usize::MAX, |_, _| true), left);
    assert_eq!((flows.counts().in_use, flows.counts().ports), (0, 0));
}

/// The keys of shared rows are no packet's, not even one's whose ports are 0.
#[test]
fn no_packet_is_taken_for_a_mapping() {
    let flows = Flows::new(64);
    let (outer, timeouts) = (outer(1024..=65_535), timeouts());
    let sent = FlowKey { sport: 6000, ..original(0) };
    flows.add_outgoing(&sent, &outer, NOW, &timeouts).unwrap();
    let alike = FlowKey { dst: OUTER, dport: 0, ..sent };
    assert_eq!(look_up(&flows, &alike), None);
    let flow = flows.add_outgoing(&alike, &outer, NOW, &timeouts).expect("a flow like any other");
    assert_eq!(flow.other.src, OUTER);
}

#[test]
fn protocols_without_ports_are_told_apart_by_their_addresses() {
    let flows = Flows::new(64);
    let (outer, timeouts) = (outer(2000..=2003), timeouts());
    let send = |src: u128, dst: u128| {
        let gre = FlowKey { protocol: 47, src, dst, sport: 0, dport: 0, family: Family::V4 };
        flows.add_outgoing(&gre, &outer, NOW, &timeouts)
    };
    assert!(send(1, 9).is_ok() && send(2, 8).is_ok());
    assert_eq!(send(2, 9), Err(NotAdded::Ambiguous));
}

#[derive(Clone, Debug)]
enum Step {
    Add(u32),
    Answer(u32),
    Ask(u32),
    Age(usize),
    Wait(u32),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let flow = || 0u32..48;
    let step = prop_oneof![
        4 => flow().prop_map(Step::Add),
        2 => flow().prop_map(Step::Answer),
        4 => flow().prop_map(Step::Ask),
        1 => (0usize..64).prop_map(Step::Age),
        1 => (0u32..300).prop_map(Step::Wait),
    ];
    prop::collection::vec(step, 1..400)
}

proptest! {
    /// The table does what a map would, one row for each flow, as long as it isn't full.
    #[test]
    fn the_table_answers_as_a_map_does(steps in steps()) {
        let flows = Flows::new(64);
        let timeouts = timeouts();
        let mut model: HashMap<u32, (u32, bool)> = HashMap::new();
        let mut now = NOW;
        for step in steps {
            let life = timeouts.udp.0;
            let is_over = |entry: Option<&(u32, bool)>, now: Ticks| entry.is_some_and(|(seen, _)| now.0 - seen > life);
            match step {
                Step::Add(n) => {
                    // As the walk does: it asks first.
                    let known = flows.look_up(&original(n), now, &timeouts).is_some();
                    if is_over(model.get(&n), now) { model.remove(&n); }
                    prop_assert_eq!(known, model.contains_key(&n));
                    if !known {
                        prop_assert!(flows.add(&original(n), &reply(n), now, &timeouts).is_ok());
                        model.insert(n, (now.0, false));
                    }
                }
                Step::Answer(n) => {
                    let found = flows.look_up(&reply(n), now, &timeouts);
                    if is_over(model.get(&n), now) { model.remove(&n); }
                    prop_assert_eq!(found.is_some(), model.contains_key(&n));
                    if let Some(found) = found {
                        flows.touch(&found, 0, &FlowTime::new(now, &timeouts));
                        let entry = model.get_mut(&n).unwrap();
                        // Noted once a second, or when the state changes.
                        if !entry.1 || now.0 - entry.0 >= FlowTime::NOTED_EVERY { *entry = (now.0, true); }
                    }
                }
                Step::Ask(n) => {
                    let found = flows.look_up(&original(n), now, &timeouts);
                    if is_over(model.get(&n), now) { model.remove(&n); }
                    prop_assert_eq!(found.map(|found| found.other), model.get(&n).map(|_| reply(n)));
                }
                Step::Age(rows) => drop(flows.age(rows, now, &timeouts)),
                Step::Wait(ticks) => now.0 += ticks,
            }
        }
        let left = flows.counts().in_use - flows.age(64, now, &timeouts);
        model.retain(|_, (seen, _)| now.0 - *seen <= timeouts.udp.0);
        prop_assert_eq!(left, model.len());
        let shown: BTreeSet<u128> = flows.rows().map(|row| row.original.src - 0x0a41_0000).collect();
        prop_assert_eq!(shown, model.keys().map(|n| u128::from(*n)).collect::<BTreeSet<_>>());
    }
}

/// A small linear congruential generator: threads need no more.
fn next(state: &mut u32) -> u32 {
    *state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
    *state >> 8
}

/// Lets another thread end, also where this one fails.
struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Two threads flood a small table, one ages it, and readers look at established flows and at the flood: those are always
/// there, and nobody ever finds half of a flow.
#[test]
fn under_a_flood_from_several_threads_no_entry_is_torn_and_no_established_flow_lost() {
    const KEPT: u32 = 64;
    const FLOOD: u32 = 200_000;
    let flows = Flows::new(256);
    (0..KEPT).for_each(|n| {
        add(&flows, n).unwrap();
        establish(&flows, n);
    });
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let flood = |seed: u32| {
            let (flows, mut state) = (&flows, seed);
            move || {
                for _ in 0..FLOOD {
                    let n = KEPT + next(&mut state) % 4096;
                    match add(flows, n) {
                        Ok(_) | Err(NotAdded::Full | NotAdded::Ambiguous) => {}
                        Err(NotAdded::Known(flow)) => assert_eq!(flow.other, reply(n)),
                        Err(other) => panic!("{other:?}"),
                    }
                }
            }
        };
        let floods = [scope.spawn(flood(1)), scope.spawn(flood(2))];
        let _stop = StopOnDrop(&stop);
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                flows.age(64, NOW, &timeouts());
                let torn = flows.rows().find(|row| {
                    let n = (row.original.src - 0x0a41_0000) as u32;
                    row.original != original(n) || row.reply != reply(n)
                });
                assert_eq!(torn, None);
            }
        });
        let mut state = 3;
        while floods.iter().any(|flood| !flood.is_finished()) {
            let kept = next(&mut state) % KEPT;
            assert_eq!(look_up(&flows, &reply(kept)).map(|flow| flow.other), Some(original(kept)));
            let flooded = KEPT + next(&mut state) % 4096;
            if let Some(flow) = look_up(&flows, &original(flooded)) {
                assert_eq!(flow.other, reply(flooded));
                flows.touch(&flow, 0, &time(NOW));
            }
        }
    });
    assert!((0..KEPT).all(|n| look_up(&flows, &original(n)).is_some()));
    // Nothing leaked: all rows that aren't a flow's are free.
    assert_eq!(flows.rows().count(), flows.counts().in_use);
    let far = Ticks(NOW.0 + 100_000);
    flows.age(256, far, &timeouts());
    assert_eq!(flows.counts().in_use, 0);
}

/// Flows of few senders come and go on several threads, so that mappings are made, joined and removed at once.
#[test]
fn mappings_made_and_removed_by_several_threads_give_every_port_back() {
    // Each thread may be making or removing the one mapping of a sender.
    let flows = Flows::with_share(512, 3);
    let (outer, timeouts) = (outer(3000..=3063), timeouts());
    std::thread::scope(|scope| {
        for seed in 0..3 {
            let (flows, outer, timeouts) = (&flows, &outer, &timeouts);
            scope.spawn(move || {
                let mut state = seed;
                for round in 0..50_000u32 {
                    let sender = next(&mut state) % 8;
                    let dst = u128::from(next(&mut state) % 16 + 1);
                    let key = FlowKey { dst, ..original(sender) };
                    let now = Ticks(NOW.0 + round * 20);
                    if let Some(flow) = flows.look_up(&key, now, timeouts) {
                        assert_eq!((flow.other.src, flow.other.dst), (dst, OUTER));
                        continue;
                    }
                    match flows.add_outgoing(&key, outer, now, timeouts) {
                        Ok(flow) => assert!(outer.ports.contains(&flow.other.dport)),
                        Err(NotAdded::Known(_) | NotAdded::Ambiguous) => {}
                        Err(other) => panic!("{other:?}"),
                    }
                    flows.age(8, now, timeouts);
                }
            });
        }
    });
    // One port for each sender, whoever made its flows.
    let mut ports: HashMap<u128, BTreeSet<u16>> = HashMap::new();
    for row in flows.rows() {
        ports.entry(row.original.src).or_default().insert(row.reply.dport);
    }
    assert!(ports.values().all(|ports| ports.len() == 1), "{ports:?}");
    flows.age(512, Ticks(u32::MAX), &timeouts);
    assert_eq!((flows.counts().in_use, flows.counts().ports), (0, 0));
}

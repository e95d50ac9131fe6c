//! Greedy and modest workloads share an uplink whose ring is drained slowly, or a worker that can't take all that comes.

mod support;

use fastpath::{BATCH, Command, Wire, Worker, handoffs, memory_port};
use model::{PortId, WorkerId};
use support::{Build, FRAMES, Parts, Sizes, UPLINK, fill, limits, mac, port, prefix, worker};
use tables::{Counters, DropReason, Endpoint, Flows, Writer};

/// Workloads on ports of these numbers, which send to another node by an uplink.
struct Bench {
    worker: Worker,
    counters: Counters,
    senders: Vec<(PortId, Wire)>,
    uplink: Wire,
    parts: Parts,
}

/// What became of each workload's frames.
#[derive(Debug)]
struct Outcome {
    /// Seen at the uplink's far end.
    arrived: Vec<u64>,
    /// Not taken by the workload's own wire: the worker was behind.
    refused: Vec<u64>,
}

impl Bench {
    /// The worker asks the ports in this order. The uplink's transmit ring has `slots`.
    fn new(ports: &[u16], slots: usize) -> Bench {
        let mut writer = Writer::new(limits(1));
        fill(&mut writer);
        let ports: Vec<PortId> = ports.iter().copied().map(PortId).collect();
        for id in &ports {
            let mut made = port(support::WORKLOAD);
            (made.id, made.mac) = (*id, mac(*id));
            let addresses = vec![prefix(&format!("10.65.0.{}/32", id.0))];
            made.endpoint = Some(Endpoint { name: format!("default/w{}", id.0), addresses, qos: None });
            writer.put_port(made).unwrap();
        }
        writer.publish();
        let counters = Counters::new(1, 16);
        let sizes = Sizes { wire_slots: slots, ..Sizes::default() };
        let ends = handoffs(1, 16, 2048).remove(0);
        let (mut worker, parts) =
            worker(&mut writer, WorkerId(0), (counters.clone(), Flows::new(64)), ends, &[UPLINK], sizes);
        let add = |id: &PortId| {
            let (queue, wire) = memory_port(128);
            let queue = Box::new(queue);
            let command = Command::AddQueue { port: *id, queue, statistics: Default::default() };
            parts.commands.send(command).unwrap();
            (*id, wire)
        };
        let senders = ports.iter().map(add).collect();
        worker.housekeeping();
        Bench { worker, counters, senders, uplink: parts.wires[0].clone(), parts }
    }

    /// Every round workload *n* offers `offered(n, round)` frames, and the uplink's far end takes `drained`.
    fn run(&mut self, rounds: u64, offered: impl Fn(usize, u64) -> u64, drained: usize) -> Outcome {
        let zeros = vec![0; self.senders.len()];
        let mut outcome = Outcome { arrived: zeros.clone(), refused: zeros };
        for round in 0..rounds {
            for (n, (id, wire)) in self.senders.iter().enumerate() {
                let frame = Build::packet(*id, &format!("10.65.0.{}", id.0), "10.65.1.2").frame();
                let refused = (0..offered(n, round)).filter(|_| !wire.send(&frame)).count();
                outcome.refused[n] += refused as u64;
            }
            self.worker.round();
            for _ in 0..drained {
                let Some(frame) = self.uplink.receive() else { break };
                let sender = self.senders.iter().position(|(id, _)| id.0 == u16::from(frame[29]));
                outcome.arrived[sender.expect("sent by a workload")] += 1;
            }
        }
        outcome
    }

    fn drops(&self, reason: DropReason) -> u64 {
        self.counters.books().drops[reason.index()]
    }

    /// No frame is lost, and the books balance.
    fn audit(mut self) {
        for id in self.senders.iter().map(|(id, _)| *id).chain([UPLINK]) {
            let (done, closed) = crossbeam_channel::bounded(1);
            self.parts.commands.send(Command::RemoveQueue { port: id, done }).unwrap();
            self.worker.housekeeping();
            closed.recv().unwrap();
        }
        assert_eq!(self.worker.frames(), (FRAMES, FRAMES));
        assert!(self.counters.books().balance());
    }
}

/// Within a tenth.
fn is_about(counted: u64, expected: u64) -> bool {
    counted.abs_diff(expected) * 10 <= expected
}

#[test]
fn a_greedy_workload_takes_nothing_from_modest_ones() {
    let mut bench = Bench::new(&[10, 11, 12], 256);
    // 48 frames are offered, 24 leave: eight each would be fair, and two want four.
    let outcome = bench.run(1_000, |n, _| [40, 4, 4][n], 24);
    let [greedy, modest @ ..] = &outcome.arrived[..] else { unreachable!() };
    assert!(modest.iter().all(|arrived| is_about(*arrived, 4_000)), "{outcome:?}");
    assert!(is_about(*greedy, 16_000), "{outcome:?}");
    // Not one of the modest ones' was dropped: what hasn't arrived is in the ring.
    let dropped = |n: usize| bench.counters.port(bench.senders[n].0).dropped_packets;
    assert_eq!((dropped(1), dropped(2)), (0, 0));
    assert_eq!(dropped(0), bench.drops(DropReason::OverFairShare));
    assert_eq!(bench.drops(DropReason::TransmitRingFull), 0);
    bench.audit();
}

#[test]
fn modest_workloads_may_send_in_bursts_and_begin_late() {
    let mut bench = Bench::new(&[10, 11, 12, 13], 512);
    // One sends sixteen frames every tenth round, one a frame every seventh, and one begins when the ring has been full
    // for long.
    let offered = |n: usize, round: u64| match n {
        0 => 32,
        1 if round % 10 == 9 => 16,
        2 if round % 7 == 3 => 1,
        3 if round >= 500 => 2,
        _ => 0,
    };
    bench.run(1_000, offered, 12);
    let dropped = |n: usize| bench.counters.port(bench.senders[n].0).dropped_packets;
    assert_eq!([dropped(1), dropped(2), dropped(3)], [0; 3]);
    assert!(dropped(0) > 10_000, "{}", dropped(0));
    bench.audit();
}

#[test]
fn all_that_want_more_than_their_share_get_the_same() {
    for (offered, drained, expected) in [
        // Ten to one, and the one wants more than its half too.
        (vec![50, 5], 6, vec![3_000, 3_000]),
        (vec![30, 10, 10], 12, vec![4_000, 4_000, 4_000]),
        // What the third doesn't want goes to the other two.
        (vec![30, 10, 2], 12, vec![5_000, 5_000, 2_000]),
        // Fewer slots than workloads.
        (vec![20, 9, 8, 7], 2, vec![500, 500, 500, 500]),
    ] {
        let ports = &[10, 11, 12, 13][..offered.len()];
        let mut bench = Bench::new(ports, 256);
        // The ring fills first.
        bench.run(300, |n, _| offered[n], drained);
        let outcome = bench.run(1_000, |n, _| offered[n], drained);
        assert_eq!(outcome.arrived.iter().sum::<u64>(), 1_000 * drained as u64, "the link is never idle");
        let fair =
            outcome.arrived.iter().zip(&expected).all(|(arrived, expected)| is_about(*arrived, *expected));
        assert!(fair, "{offered:?} into {drained}: {outcome:?}");
        bench.audit();
    }
}

#[test]
fn one_port_alone_may_have_the_whole_link_and_sees_a_full_ring() {
    let mut bench = Bench::new(&[10], 128);
    let outcome = bench.run(1_000, |_, _| 30, 20);
    assert_eq!(outcome.arrived, [20_000]);
    assert!(bench.drops(DropReason::TransmitRingFull) > 9_000);
    assert_eq!(bench.drops(DropReason::OverFairShare), 0);
    bench.audit();
}

#[test]
fn what_was_dealt_is_forgotten_when_the_ring_has_room_again() {
    let mut bench = Bench::new(&[10, 11], 128);
    bench.run(200, |n, _| [30, 3][n], 8);
    let before = bench.drops(DropReason::OverFairShare);
    bench.run(200, |n, _| [3, 3][n], 8);
    assert_eq!(bench.drops(DropReason::OverFairShare), before);
    bench.audit();
}

/// Ports that nobody sends by lie between, so that whoever asks ports in turn asks one more often than the other.
#[test]
fn a_worker_that_is_behind_takes_as_much_from_every_busy_port() {
    let mut bench = Bench::new(&[10, 11, 12, 13, 14, 15], 256);
    // A batch a round; two workloads want more than all of it, and one wants little.
    let offered = |n: usize| [8, 0, 0, 0, 70, 35][n];
    bench.run(100, |n, _| offered(n), BATCH);
    let outcome = bench.run(1_000, |n, _| offered(n), BATCH);
    let taken = outcome.arrived;
    assert!(is_about(taken[0], 8_000) && outcome.refused[0] == 0, "{taken:?}");
    assert!(is_about(taken[4], 28_000) && is_about(taken[5], 28_000), "{taken:?}");
    bench.audit();
}

//! The table of flows under pressure: floods, a full table, limits of connections, and several workers that share it.

mod support;

use std::collections::BTreeSet;
use std::sync::Arc;

use model::{PortId, WorkerId};
use policy::rule::{Action, Checks};
use support::policed::*;
use support::translation::{FLOATING, POD, SERVER};
use support::{HOST, Moved, PORTS, Parts, Rig, Sizes, UPLINK, WORKLOAD, fill, limits, worker};
use tables::{Counters, DropReason, EndpointPolicy, Flows, PuntReason, Ticks, Writer};

#[test]
fn a_flood_of_first_packets_ends_no_established_flow() {
    let mut rig = Rig::sized(Sizes { flows: 64, ..Sizes::default() });
    police(&mut rig, Some(rules(vec![to_port(Action::Allow, TCP, 80)])), Some(deny()));
    let talks: Vec<Talk> = (0..16).map(|n| Talk::new(REMOTE, POD).ports(1000 + n, 80)).collect();
    for talk in &talks {
        passes(&mut rig, UPLINK, &talk.tcp(UPLINK, SYN));
        passes(&mut rig, WORKLOAD, &talk.answer().tcp(WORKLOAD, SYN | ACK));
        passes(&mut rig, UPLINK, &talk.tcp(UPLINK, ACK));
    }
    for n in 0..2_000 {
        let src = format!("10.65.1.{}", 3 + n % 50);
        passes(&mut rig, UPLINK, &Talk::new(&src, POD).ports(10_000 + n, 80).tcp(UPLINK, SYN));
        while rig.wire(WORKLOAD).receive().is_some() {}
    }
    let evicted = rig.flows.counts().evicted;
    assert!(evicted > 1_900, "{evicted}");
    for talk in &talks {
        passes(&mut rig, WORKLOAD, &talk.answer().tcp(WORKLOAD, ACK));
    }
}

#[test]
fn a_table_full_of_established_flows_lets_no_new_one_begin() {
    let mut rig = Rig::sized(Sizes { flows: 4, ..Sizes::default() });
    police(&mut rig, Some(allow()), Some(allow()));
    let talks: Vec<Talk> = (0..4).map(|n| Talk::new(REMOTE, POD).ports(1000 + n, 80)).collect();
    for talk in &talks {
        passes(&mut rig, UPLINK, &talk.udp(UPLINK));
        passes(&mut rig, WORKLOAD, &talk.answer().udp(WORKLOAD));
    }
    let new = Talk::new(REMOTE, POD).ports(2000, 80);
    is_dropped(&mut rig, UPLINK, &new.udp(UPLINK), DropReason::FlowTableFull);
    is_dropped(
        &mut rig,
        HOST,
        &Talk::new(support::translation::OUTER, POD).udp(HOST),
        DropReason::FlowTableFull,
    );
    passes(&mut rig, UPLINK, &talks[0].udp(UPLINK));
    rig.audit();
}

/// Workers that share tables, counters and flows, each with a queue of every port.
struct Crew {
    writer: Writer,
    workers: Vec<(fastpath::Worker, Parts)>,
    counters: Counters,
}

impl Crew {
    fn of(number: usize) -> Crew {
        let mut writer = Writer::new(limits(number));
        fill(&mut writer);
        let (counters, flows) = (Counters::new(number, 16), Flows::new(64));
        let handoffs = fastpath::handoffs(number, 16, 2048).into_iter();
        let workers = (0..).map(WorkerId).zip(handoffs).map(|(id, handoffs)| {
            let shared = (counters.clone(), flows.clone());
            worker(&mut writer, id, shared, handoffs, &PORTS, Sizes::default())
        });
        let workers = workers.collect();
        Crew { writer, workers, counters }
    }

    fn police(&mut self, ingress: Arc<Checks>) {
        let policy =
            EndpointPolicy { ingress: Some(ingress), egress: Some(deny()), ..EndpointPolicy::default() };
        self.writer.put_policy("default/pod", &policy).unwrap();
        self.workers.iter_mut().for_each(|(worker, _)| worker.housekeeping());
        self.writer.publish();
    }

    /// Sends a frame in by one worker's queue, and says what moved when all of them have done their rounds.
    fn send(&mut self, by_worker: usize, port: PortId, frame: &[u8]) -> Moved {
        let before = self.counters.books();
        assert!(self.workers[by_worker].1.wires[port.index()].send(frame), "the wire has room");
        while self.workers.iter_mut().map(|(worker, _)| worker.round()).sum::<usize>() > 0 {}
        for wire in self.workers.iter().flat_map(|(_, parts)| &parts.wires) {
            while wire.receive().is_some() {}
        }
        Moved { before, after: self.counters.books() }
    }
}

/// Replies may come to another worker than their questions, and so may every packet: what one worker knows of flows all know,
/// and what policy cuts all cut.
#[test]
fn eight_workers_answer_as_one() {
    const WORKERS: usize = 8;
    let to_80 = || rules(vec![to_port(Action::Allow, TCP, 80)]);
    let (mut one, mut eight) = (Crew::of(1), Crew::of(WORKERS));
    let police = |one: &mut Crew, eight: &mut Crew, checks: Arc<Checks>| {
        one.police(Arc::clone(&checks));
        eight.police(checks);
    };
    police(&mut one, &mut eight, to_80());
    // Any numbers do, as long as they are the same every time (Numerical Recipes' generator).
    let mut state = 1u32;
    let mut any = |of: u32| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 16) % of
    };
    let (mut passed, mut dropped) = (0, BTreeSet::new());
    for step in 0..3_000 {
        if any(40) == 0 {
            let checks = if any(2) == 0 { deny() } else { to_80() };
            police(&mut one, &mut eight, checks);
            continue;
        }
        let question = Talk::new(REMOTE, POD).ports(4000 + any(6) as u16, 80 + any(4) as u16 / 3);
        let (by, talk) = match any(2) {
            0 => (UPLINK, question),
            _ => (WORKLOAD, question.answer()),
        };
        let frame = match any(12) {
            0 => talk.udp(by),
            1 => talk.ping(by),
            2 => talk.tcp(by, RST),
            3 => talk.tcp(by, FIN | ACK),
            4 | 5 => talk.tcp(by, SYN | ACK),
            6..9 => talk.tcp(by, SYN),
            _ => talk.tcp(by, ACK),
        };
        let (alone, together) =
            (one.send(0, by, &frame), eight.send(any(WORKERS as u32) as usize, by, &frame));
        assert_eq!(
            (together.forwarded(), together.drops(), together.punts()),
            (alone.forwarded(), alone.drops(), alone.punts()),
            "step {step}"
        );
        passed += alone.forwarded();
        dropped.extend(alone.drops().into_iter().map(|(reason, _)| reason));
    }
    assert!(passed > 300, "{passed}");
    assert!(dropped.len() >= 3, "{dropped:?}");
}

#[test]
fn connections_above_an_endpoints_limit_are_refused_until_one_ends() {
    for (is_ingress, reason) in
        [(false, PuntReason::EgressConnections), (true, PuntReason::IngressConnections)]
    {
        let mut rig = Rig::new();
        limit_connections(&mut rig, (!is_ingress).then_some(2), is_ingress.then_some(2));
        let (by, back) = if is_ingress { (UPLINK, WORKLOAD) } else { (WORKLOAD, UPLINK) };
        let talk = |sport| match is_ingress {
            true => Talk::new(REMOTE, POD).ports(sport, 80),
            false => Talk::new(POD, REMOTE).ports(sport, 80),
        };
        passes(&mut rig, by, &talk(1).tcp(by, SYN));
        passes(&mut rig, by, &talk(2).tcp(by, SYN));
        is_refused(&mut rig, by, &talk(3).tcp(by, SYN), reason);
        passes(&mut rig, by, &talk(2).tcp(by, SYN));
        passes(&mut rig, by, &talk(4).udp(by));
        // The other direction has no limit.
        passes(&mut rig, back, &talk(9).answer().tcp(back, SYN));
        let counts = |rig: &Rig| rig.flows.connections_of(WORKLOAD);
        assert_eq!(counts(&rig), if is_ingress { (0, 2) } else { (2, 0) });
        passes(&mut rig, back, &talk(1).answer().tcp(back, RST));
        let later = Ticks(rig.flows.now().0 + 8 * 60);
        rig.flows.age(64, later, &tables::FlowTimeouts::default());
        assert_eq!(counts(&rig), (0, 0), "both are over");
        passes(&mut rig, by, &talk(3).tcp(by, SYN));
        let state = rig.writer.staged().ports.get(WORKLOAD).and_then(|port| port.endpoint.clone()).unwrap();
        let refused = state.qos.unwrap().refused_connections();
        assert_eq!(refused, if is_ingress { (1, 0) } else { (0, 1) });
        rig.audit();
    }
}

#[test]
fn a_connection_to_a_floating_ip_or_under_another_source_counts_once() {
    let mut rig = translating(allow(), allow());
    limit_connections(&mut rig, Some(1), Some(1));
    passes(&mut rig, WORKLOAD, &Talk::new(POD, SERVER).tcp(WORKLOAD, SYN));
    let second = Talk::new(POD, SERVER).ports(2, 80);
    is_refused(&mut rig, WORKLOAD, &second.tcp(WORKLOAD, SYN), PuntReason::EgressConnections);
    passes(&mut rig, UPLINK, &Talk::new(REMOTE, FLOATING).tcp(UPLINK, SYN));
    let second = Talk::new(REMOTE, FLOATING).ports(2, 80);
    is_refused(&mut rig, UPLINK, &second.tcp(UPLINK, SYN), PuntReason::IngressConnections);
    assert_eq!(rig.flows.connections_of(WORKLOAD), (1, 1));
    assert_eq!(rig.flows.rows().count(), 2);
    rig.flows.end(0..64, |_, _| true);
    assert_eq!(rig.flows.connections_of(WORKLOAD), (0, 0));
    rig.audit();
}

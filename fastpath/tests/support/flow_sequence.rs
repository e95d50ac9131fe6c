//! What must hold of packets of a few flows in whatever order they come; the fuzz target and the replay of its corpus share
//! it.
//!
//! A workload that clients reach by TCP at port 80 and that itself reaches nobody; now and then policy closes it, or opens it
//! again.

use std::collections::BTreeSet;
use std::sync::Arc;

use model::PortId;
use packet::protocol;
use policy::rule::{Action, Checks};

use super::policed::{ACK, FIN, RST, SYN, Talk, deny, police, rules, to_port};
use super::translation::{POD, error_frame};
use super::{Rig, UPLINK, WORKLOAD};

/// Where clients are.
const CLIENT: &str = "10.65.1.2";
const OPEN_PORT: u16 = 80;
/// Bytes of one step: which way, which flow, what.
pub const STEP: usize = 3;

/// What a step sends.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Tcp(u8),
    Udp,
    /// An ICMP error about a packet of the flow that goes the other way.
    Error,
}

const KINDS: [Kind; 8] = [
    Kind::Tcp(SYN),
    Kind::Tcp(SYN | ACK),
    Kind::Tcp(ACK),
    Kind::Tcp(FIN | ACK),
    Kind::Tcp(RST),
    Kind::Tcp(0),
    Kind::Udp,
    Kind::Error,
];

/// A rig for [`run`].
pub fn rig() -> Rig {
    let mut rig = Rig::new();
    police(&mut rig, Some(open()), Some(deny()));
    rig
}

fn open() -> Arc<Checks> {
    rules(vec![to_port(Action::Allow, protocol::TCP, OPEN_PORT)])
}

/// Walks the packets that `bytes` stand for and panics where one passes that shouldn't, or is dropped that should pass.
pub fn run(rig: &mut Rig, bytes: &[u8]) {
    rig.flows.end(0..usize::MAX, |_, _| true);
    assert_eq!(rig.flows.counts().in_use, 0, "all rows come back");
    let mut is_open = true;
    // Flows that a client's packet has begun.
    let mut begun: BTreeSet<(u16, u16)> = BTreeSet::new();
    for step in bytes.chunks_exact(STEP).take(100) {
        if step[0] % 8 == 7 {
            is_open = step[2] % 2 == 0;
            police(rig, Some(if is_open { open() } else { deny() }), Some(deny()));
            continue;
        }
        let (inward, kind) = (step[0] % 8 < 4, KINDS[usize::from(step[2] % 8)]);
        let flow = (1000 + u16::from(step[1] % 4), OPEN_PORT + u16::from(step[1] / 4 % 2));
        let question = Talk::new(CLIENT, POD).ports(flow.0, flow.1);
        let (by, talk) = if inward { (UPLINK, question) } else { (WORKLOAD, question.answer()) };
        let passed = send(rig, by, &frame(&talk, by, kind));
        let opens = inward && kind == Kind::Tcp(SYN) && flow.1 == OPEN_PORT && is_open;
        assert!(passed || !opens, "a client's SYN passes at any time: {step:?}");
        if !passed {
            continue;
        }
        assert!(is_open, "policy is closed to all: {step:?}");
        assert!(flow.1 == OPEN_PORT && kind != Kind::Udp, "nobody opened this: {step:?}");
        if inward && matches!(kind, Kind::Tcp(flags) if flags == SYN || flags == ACK) {
            begun.insert(flow);
        }
        assert!(begun.contains(&flow), "it belongs to no flow that a client began: {step:?}");
    }
    if !is_open {
        police(rig, Some(open()), Some(deny()));
    }
}

fn frame(talk: &Talk, by: PortId, kind: Kind) -> Vec<u8> {
    match kind {
        Kind::Tcp(flags) => talk.tcp(by, flags),
        Kind::Udp => talk.udp(by),
        Kind::Error => {
            // From the end that the quoted packet was sent to.
            let quoted = talk.answer().tcp(by, ACK);
            error_frame(by, &talk.src.to_string(), &quoted)
        }
    }
}

/// Did it pass?
fn send(rig: &mut Rig, by: PortId, frame: &[u8]) -> bool {
    let moved = rig.send(by, frame);
    let dropped: u64 = moved.drops().iter().map(|(_, count)| count).sum();
    assert_eq!((moved.forwarded() + dropped, moved.punts()), (1, vec![]), "{moved:?}");
    for port in super::PORTS {
        while rig.wire(port).receive().is_some() {}
    }
    moved.forwarded() == 1
}

/// The seeds of the fuzz target, by name.
pub fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    let step = |inward: bool, flow: u8, kind: u8| [if inward { 0 } else { 4 }, flow, kind];
    let policy = |is_open: bool| [7, 0, u8::from(!is_open)];
    let connection = [step(true, 0, 0), step(false, 0, 1), step(true, 0, 2), step(false, 0, 2)];
    let closing = [step(true, 0, 3), step(false, 0, 3), step(true, 0, 2)];
    let cases: Vec<(&'static str, Vec<[u8; STEP]>)> = vec![
        ("connection", connection.to_vec()),
        ("closed-and-opened-anew", [&connection[..], &closing, &connection].concat()),
        ("reset-and-opened-anew", [&connection[..], &[step(false, 0, 4)], &connection].concat()),
        ("server-calls-back", [&connection[..], &closing, &[step(false, 0, 0)]].concat()),
        ("picked-up-in-the-middle", vec![step(false, 0, 2), step(true, 0, 2), step(false, 0, 2)]),
        ("errors", [&[step(true, 0, 7)][..], &connection, &[step(true, 0, 7), step(false, 0, 7)]].concat()),
        (
            "cut-and-given-back",
            [&connection[..], &[policy(false)], &connection, &[policy(true)], &connection].concat(),
        ),
        ("closed-port", (0..8).flat_map(|kind| [step(true, 4, kind), step(false, 4, kind)]).collect()),
        ("scan", (0..8).flat_map(|kind| (0..4).map(move |flow| step(true, flow, kind))).collect()),
    ];
    cases.into_iter().map(|(name, steps)| (name, steps.concat())).collect()
}

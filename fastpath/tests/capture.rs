//! Copies of frames that pass, as they come in and as they leave, for somebody who wants to look at them.

mod support;

use std::sync::Arc;

use model::PortId;
use packet::protocol::UDP;
use support::policed::Talk;
use support::{Rig, UPLINK, WORKLOAD};
use tables::{Capture, CaptureFilter, Captured, DropReason, Fate, Passage, PuntReason, TraceFilter};

const POD: &str = "10.65.0.2";
const REMOTE: &str = "10.65.1.2";
/// Nobody's: a blackhole.
const LOST: &str = "10.65.0.9";
const MULTICAST: &str = "224.0.0.1";

/// Both ways, whatever it is.
fn everything() -> CaptureFilter {
    CaptureFilter { incoming: true, outgoing: true, ..CaptureFilter::default() }
}

fn start(rig: &Rig, filter: CaptureFilter) -> Arc<Capture> {
    rig.capturing.start(filter, 100, 64, 8)
}

fn copies(capture: &Capture) -> Vec<Captured> {
    std::iter::from_fn(|| capture.take(Captured::clone)).collect()
}

fn ways(copies: &[Captured]) -> Vec<(Option<PortId>, Passage)> {
    copies.iter().map(|copy| (copy.port, copy.passage)).collect()
}

#[test]
fn a_frame_is_copied_as_it_comes_in_with_its_fate_and_as_it_leaves() {
    let mut rig = Rig::new();
    let capture = start(&rig, everything());
    let frame = Talk::new(POD, REMOTE).udp(WORKLOAD);
    let moved = rig.send(WORKLOAD, &frame);
    assert_eq!((moved.received(), moved.forwarded()), (1, 1));
    let left = rig.left_by(UPLINK);
    let copies = copies(&capture);
    assert_eq!(
        ways(&copies),
        [(Some(WORKLOAD), Passage::In(Fate::Forward(UPLINK))), (Some(UPLINK), Passage::Out)]
    );
    assert_ne!(frame, left, "another TTL, other addresses");
    assert_eq!((&copies[0].bytes[..], copies[0].frame_len), (&frame[..frame.len().min(64)], frame.len()));
    assert_eq!(copies[1].bytes, left[..left.len().min(64)]);
    rig.capturing.stop();
    rig.send(WORKLOAD, &frame);
    assert!(capture.take(|_| ()).is_none(), "it is over");
    rig.audit();
}

#[test]
fn only_what_is_asked_for_is_copied() {
    let mut rig = Rig::new();
    let out = CaptureFilter { outgoing: true, leaves_by: Some(WORKLOAD), ..CaptureFilter::default() };
    let capture = start(&rig, out);
    rig.send(WORKLOAD, &Talk::new(POD, REMOTE).udp(WORKLOAD));
    assert!(copies(&capture).is_empty(), "that left by the uplink");
    rig.send(UPLINK, &Talk::new(REMOTE, POD).udp(UPLINK));
    assert_eq!(ways(&copies(&capture)), [(Some(WORKLOAD), Passage::Out)]);

    let packet =
        TraceFilter { port: Some(WORKLOAD), protocol: Some(UDP), dport: Some(81), ..TraceFilter::default() };
    let capture = start(&rig, CaptureFilter { packet, incoming: true, ..CaptureFilter::default() });
    rig.send(WORKLOAD, &Talk::new(POD, REMOTE).ports(1, 80).udp(WORKLOAD));
    rig.send(UPLINK, &Talk::new(REMOTE, POD).ports(1, 81).udp(UPLINK));
    rig.send(WORKLOAD, &Talk::new(POD, REMOTE).ports(1, 81).udp(WORKLOAD));
    assert_eq!(ways(&copies(&capture)), [(Some(WORKLOAD), Passage::In(Fate::Forward(UPLINK)))]);
}

#[test]
fn drops_are_copied_as_they_came_in_and_what_is_not_wanted_gives_its_buffer_back() {
    let mut rig = Rig::new();
    let packet = TraceFilter { dropped: Some(Some(DropReason::Blackhole)), ..TraceFilter::default() };
    let capture = start(&rig, CaptureFilter { packet, incoming: true, ..CaptureFilter::default() });
    for _ in 0..5 {
        for destination in [REMOTE, LOST, MULTICAST] {
            assert!(rig.wire(WORKLOAD).send(&Talk::new(POD, destination).udp(WORKLOAD)));
        }
        rig.run();
        while rig.wire(UPLINK).receive().is_some() {}
    }
    let copies = copies(&capture);
    assert_eq!(ways(&copies), [(Some(WORKLOAD), Passage::In(Fate::Drop(DropReason::Blackhole))); 5]);
    assert_eq!(capture.missed(), 0, "eight buffers have been enough for fifteen frames");
}

#[test]
fn a_frame_without_a_buffer_is_missed_and_goes_its_way() {
    let mut rig = Rig::new();
    let capture = start(&rig, CaptureFilter { incoming: true, ..CaptureFilter::default() });
    for sport in 0..20 {
        assert!(rig.wire(WORKLOAD).send(&Talk::new(POD, REMOTE).ports(sport, 80).udp(WORKLOAD)));
    }
    assert_eq!(rig.run().forwarded(), 20);
    assert_eq!((copies(&capture).len(), capture.missed()), (8, 12));
    rig.audit();
}

#[test]
fn a_capture_has_an_end_and_what_goes_up_says_so() {
    let mut rig = Rig::new();
    let filter = CaptureFilter { incoming: true, ..CaptureFilter::default() };
    let capture = rig.capturing.start(filter, 2, 64, 8);
    for _ in 0..3 {
        rig.send(WORKLOAD, &Talk::new(POD, "203.0.113.9").udp(WORKLOAD));
    }
    assert_eq!(ways(&copies(&capture)), [(Some(WORKLOAD), Passage::In(Fate::Punt(PuntReason::NoRoute))); 2]);
    assert!(capture.is_complete() && rig.capturing.current().is_none());
}

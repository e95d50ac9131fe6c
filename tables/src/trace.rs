//! One packet's way through the walk, stage by stage, and what stands between who wants to see some and the workers.
//!
//! A worker looks at one flag a batch. Where it is set, packets that match the filter are followed, and what each stage has
//! found comes by a bounded queue; what finds it full is counted as missed.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::SystemTime;

use arc_swap::ArcSwapOption;
use crossbeam_queue::ArrayQueue;
use model::{MacAddr, PortId, Prefix, ReversePath, WorkerId};
use packet::{FlowKey, Fragment};
use policy::compile::RuleId;
use policy::judge::Verdict;

use crate::{AdjacencyId, Direction, DropReason, Fate, GroupId, Judged, NextHop, Stage};

/// Answers of policy that are kept of one packet: two ends, enforced and staged, and rules that log.
pub const ANSWERS: usize = 12;

/// What the walk made of one packet. Where a stage did not see it, there is nothing of that stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trace {
    /// Who walked it; `None`: it is made up, and has left nowhere.
    pub worker: Option<WorkerId>,
    /// When.
    pub at: SystemTime,
    /// The port that it came in by; `None`: the slow path's own.
    pub ingress: Option<PortId>,
    /// Bytes of the frame.
    pub frame_len: u16,
    /// Its headers as it came; nothing of what is malformed or no IP packet.
    pub came: Option<Headers>,
    /// What was inside a tunnel that ends here.
    pub inside: Option<Headers>,
    /// How its source was held to the routes.
    pub reverse_path: ReversePath,
    /// What was remembered of its flow.
    pub flow: FlowSeen,
    /// What it was translated to before the route: another destination, or both ends of a known flow.
    pub before_route: Option<FlowKey>,
    /// Where its route leads.
    pub route: Option<RouteTaken>,
    /// The epoch of the policy that it was held to.
    pub policy_epoch: u64,
    /// Was there anything to ask of anybody?
    pub policy_asks: bool,
    /// What each end's policy said, in the order in which it was asked.
    pub answers: [Option<Answer>; ANSWERS],
    /// What its source was translated to after the route.
    pub after_route: Option<FlowKey>,
    /// How it would leave.
    pub left: Option<Left>,
    /// The stage that gave it its fate.
    pub ended: Stage,
    /// How its walk ended.
    pub fate: Fate,
}

impl Trace {
    /// A packet of which nothing is known yet.
    pub fn begun(worker: Option<WorkerId>, ingress: Option<PortId>, frame_len: u16) -> Trace {
        Trace {
            worker,
            at: SystemTime::now(),
            ingress,
            frame_len,
            came: None,
            inside: None,
            reverse_path: ReversePath::Disabled,
            flow: FlowSeen::NotAsked,
            before_route: None,
            route: None,
            policy_epoch: 0,
            policy_asks: false,
            answers: [None; ANSWERS],
            after_route: None,
            left: None,
            ended: Stage::Receive,
            fate: Fate::Undecided,
        }
    }

    /// Keeps an answer, if there is room.
    pub fn answer(&mut self, answer: Answer) {
        if let Some(free) = self.answers.iter_mut().find(|kept| kept.is_none()) {
            *free = Some(answer);
        }
    }
}

/// What is shown of a packet's headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Headers {
    /// Addresses, protocol and ports.
    pub key: FlowKey,
    /// IPv4's TTL, or IPv6's hop limit.
    pub ttl: u8,
    /// Differentiated services code point.
    pub dscp: u8,
    /// Length of the IP packet in bytes.
    pub len: u16,
    /// Flags of TCP; zero for the rest.
    pub tcp_flags: u8,
    /// Type and code of an ICMP message.
    pub icmp: Option<(u8, u8)>,
    /// Whole, first or later fragment.
    pub fragment: Fragment,
}

/// What was remembered of a packet's flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlowSeen {
    /// The walk did not get that far, or nothing is remembered here.
    NotAsked,
    /// Nothing: the packet is a first one, or stands for itself.
    Unknown,
    /// The flow, and which way this packet of it goes.
    Known {
        /// As the flow's first packet, or the other way.
        direction: Direction,
        /// Had policy let it pass in the epoch that holds?
        judged: bool,
        /// Are its packets translated?
        translated: bool,
    },
}

/// Where a route led.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RouteTaken {
    /// What the forwarding table said.
    pub group: GroupId,
    /// How many next hops that has.
    pub members: u16,
    /// Which of them the flow's hash chose, from 1.
    pub member: u16,
    /// That next hop.
    pub adjacency: Option<AdjacencyId>,
    /// The neighbour, where there is one.
    pub neighbor: Option<IpAddr>,
    /// Its row.
    pub hop: NextHop,
}

/// What one end's policy said of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// At this port.
    pub port: PortId,
    /// Towards its endpoint?
    pub is_ingress: bool,
    /// For what the judgement was good.
    pub judged: Judged,
    /// By which rule.
    pub rule: RuleId,
    /// What came of it; `None` of a rule that logs.
    pub verdict: Option<Verdict>,
    /// It wasn't asked of this packet: its flow had been let pass, and this is what says so today.
    pub is_recalled: bool,
}

/// How a packet was written for its next hop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Left {
    /// Where the frame goes.
    pub destination: MacAddr,
    /// Where it comes from.
    pub source: MacAddr,
    /// The outermost headers.
    pub headers: Headers,
    /// Are those a tunnel's?
    pub in_tunnel: bool,
    /// The network identifier of VXLAN.
    pub vni: Option<u32>,
    /// Bytes of the frame.
    pub frame_len: u16,
}

/// Which packets are followed. Absent is any.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TraceFilter {
    /// That come in by this port.
    pub port: Option<PortId>,
    /// From here.
    pub source: Option<Prefix>,
    /// To there.
    pub destination: Option<Prefix>,
    /// Of this protocol.
    pub protocol: Option<u8>,
    /// From this port of the protocol.
    pub sport: Option<u16>,
    /// To this one.
    pub dport: Option<u16>,
    /// Also those that go the other way.
    pub both_ways: bool,
    /// Only what is dropped; for this reason, where one is given.
    pub dropped: Option<Option<DropReason>>,
    /// One in so many of those that match. At least 1.
    pub one_in: u32,
}

impl TraceFilter {
    /// Does it ask for packets with this key, whatever port they came in by?
    pub fn matches(&self, key: &FlowKey) -> bool {
        self.matches_one_way(key) || self.both_ways && self.matches_one_way(&key.reversed())
    }

    fn matches_one_way(&self, key: &FlowKey) -> bool {
        let within = |net: &Option<Prefix>, addr: IpAddr| net.is_none_or(|net| net.contains(addr));
        self.protocol.is_none_or(|protocol| protocol == key.protocol)
            && self.sport.is_none_or(|sport| sport == key.sport)
            && self.dport.is_none_or(|dport| dport == key.dport)
            && within(&self.source, key.source())
            && within(&self.destination, key.destination())
    }

    /// Is a packet wanted whose walk ended so?
    pub fn wants(&self, fate: Fate) -> bool {
        match (self.dropped, fate) {
            (None, _) | (Some(None), Fate::Drop(_)) => true,
            (Some(Some(reason)), Fate::Drop(other)) => reason == other,
            _ => false,
        }
    }
}

struct Shared {
    is_on: AtomicBool,
    filter: ArcSwapOption<TraceFilter>,
    /// Packets that are still wanted.
    left: AtomicU32,
    /// Packets that matched.
    matched: AtomicU32,
    traces: ArrayQueue<Trace>,
    missed: AtomicU64,
}

/// A handle of what is followed, and what was. Cheap to clone.
#[derive(Clone)]
pub struct Tracing(Arc<Shared>);

impl Tracing {
    /// Nothing is followed yet; so many packets that were may wait to be looked at.
    ///
    /// # Panics
    /// Where none may wait.
    pub fn new(waiting: usize) -> Tracing {
        Tracing(Arc::new(Shared {
            is_on: AtomicBool::new(false),
            filter: ArcSwapOption::empty(),
            left: AtomicU32::new(0),
            matched: AtomicU32::new(0),
            traces: ArrayQueue::new(waiting),
            missed: AtomicU64::new(0),
        }))
    }

    /// Bytes, where so many may wait.
    pub fn bytes(waiting: usize) -> usize {
        waiting * (size_of::<Trace>() + size_of::<usize>())
    }

    /// Follows so many packets that the filter asks for, from every worker's next batch on.
    pub fn start(&self, filter: TraceFilter, packets: u32) {
        self.stop();
        while self.0.traces.pop().is_some() {}
        self.0.missed.store(0, Ordering::Relaxed);
        self.0.matched.store(0, Ordering::Relaxed);
        self.0.left.store(packets, Ordering::Relaxed);
        self.0.filter.store(Some(Arc::new(filter)));
        self.0.is_on.store(packets > 0, Ordering::Release);
    }

    /// Follows no more.
    pub fn stop(&self) {
        self.0.is_on.store(false, Ordering::Release);
        self.0.filter.store(None);
    }

    /// Is anything followed? What a worker asks once a batch.
    #[inline]
    pub fn is_on(&self) -> bool {
        self.0.is_on.load(Ordering::Acquire)
    }

    /// Which packets are.
    pub fn filter(&self) -> Option<Arc<TraceFilter>> {
        self.0.filter.load_full()
    }

    /// A packet matches: is it the one in so many that is followed?
    pub fn is_due(&self, one_in: u32) -> bool {
        self.0.matched.fetch_add(1, Ordering::Relaxed).is_multiple_of(one_in.max(1))
    }

    /// A packet that was to be followed could not be.
    pub fn miss(&self) {
        self.0.missed.fetch_add(1, Ordering::Relaxed);
    }

    /// Tells what was found; the last packet that is wanted stops it.
    pub fn tell(&self, trace: &Trace) {
        let one_less = |left: u32| left.checked_sub(1);
        let Ok(left) = self.0.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less) else {
            return;
        };
        if self.0.traces.push(*trace).is_err() {
            self.miss();
        }
        if left == 1 {
            self.0.is_on.store(false, Ordering::Release);
        }
    }

    /// The oldest that waits.
    pub fn next(&self) -> Option<Trace> {
        self.0.traces.pop()
    }

    /// Packets that matched and were due, and that nobody can be told of.
    pub fn missed(&self) -> u64 {
        self.0.missed.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::Family;

    fn key(sport: u16, dport: u16) -> FlowKey {
        FlowKey { src: 0x0a00_0001, dst: 0x0a00_0002, sport, dport, protocol: 6, family: Family::V4 }
    }

    fn trace() -> Trace {
        Trace::begun(Some(WorkerId(0)), Some(PortId(1)), 60)
    }

    #[test]
    fn a_filter_asks_for_what_all_its_parts_ask_for() {
        let filter = TraceFilter {
            source: Some("10.0.0.0/31".parse().unwrap()),
            protocol: Some(6),
            dport: Some(80),
            ..TraceFilter::default()
        };
        assert!(filter.matches(&key(1, 80)));
        assert!(!filter.matches(&key(1, 81)));
        assert!(!filter.matches(&key(80, 1).reversed()), "not the answers");
        let both = TraceFilter { both_ways: true, ..filter };
        assert!(both.matches(&key(1, 80).reversed()));
        assert!(!both.matches(&FlowKey { protocol: 17, ..key(1, 80) }));
    }

    #[test]
    fn only_drops_are_wanted_where_drops_are_asked_for() {
        let dropped = |dropped| TraceFilter { dropped, ..TraceFilter::default() };
        let (ours, other) = (Fate::Drop(DropReason::Blackhole), Fate::Drop(DropReason::NotOurs));
        let forward = Fate::Forward(PortId(1));
        for (filter, wanted) in [
            (dropped(None), [true, true, true]),
            (dropped(Some(None)), [true, true, false]),
            (dropped(Some(Some(DropReason::Blackhole))), [true, false, false]),
        ] {
            assert_eq!([ours, other, forward].map(|fate| filter.wants(fate)), wanted);
        }
    }

    #[test]
    fn as_many_are_followed_as_are_wanted_and_what_finds_no_room_is_counted() {
        let tracing = Tracing::new(2);
        assert!(!tracing.is_on());
        tracing.start(TraceFilter::default(), 3);
        assert!(tracing.is_on() && tracing.filter().is_some());
        for _ in 0..5 {
            tracing.tell(&trace());
        }
        assert!(!tracing.is_on(), "three were wanted");
        assert_eq!((tracing.next().is_some(), tracing.next().is_some(), tracing.next()), (true, true, None));
        assert_eq!(tracing.missed(), 1, "two may wait");
        tracing.start(TraceFilter::default(), 1);
        assert_eq!((tracing.missed(), tracing.next()), (0, None), "nothing of the one before");
        tracing.stop();
        assert!(!tracing.is_on() && tracing.filter().is_none());
    }

    #[test]
    fn one_in_so_many_is_due() {
        let tracing = Tracing::new(1);
        tracing.start(TraceFilter::default(), 9);
        let due = (0..7).filter(|_| tracing.is_due(3)).count();
        assert_eq!(due, 3);
    }
}

//! The event loop's end of segments: what comes up from inside heard and answered, questions sent, groups joined.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Instant;

use model::{PortId, PortKind};
use tables::Inject;
use tracing::warn;

use crate::event_loop::Core;
use crate::offers;
use crate::segments::Segment;
use crate::segments::carrier::{self, Carried};
use crate::segments::groups::{Groups, Membership};
use crate::segments::overlay::{Audience, Overlay, Saying};

/// The segments as they are now.
pub(crate) struct Overlays {
    pub(crate) all: Vec<Overlay>,
    pub(crate) groups: Groups,
}

impl Overlays {
    /// Nothing is learned yet, and no group joined.
    pub(crate) fn new(segments: &[Segment]) -> Overlays {
        Overlays { all: segments.iter().cloned().map(Overlay::new).collect(), groups: Groups::default() }
    }

    /// Which segment a packet belongs to.
    fn position(&self, carried: &Carried<'_>) -> Option<usize> {
        self.all.iter().map(Overlay::segment).position(|segment| {
            (segment.port, segment.vni) == (carried.port, carried.vni)
                && (segment.local == carried.to || segment.group() == Some(carried.to))
        })
    }
}

impl Core {
    /// Takes ARP or neighbour discovery from inside a segment; `frame` is the VXLAN packet as it came.
    pub(crate) fn hear_inside(&mut self, worker: usize, frame: &[u8]) {
        let carried = Carried::open(frame);
        let Some((carried, at)) =
            carried.and_then(|carried| Some((carried, self.overlays.position(&carried)?)))
        else {
            // The walk has seen that it is one of ours, so only a piece of a packet comes here.
            *self.punts_answered.entry("invalid").or_default() += 1;
            return;
        };
        let overlay = &mut self.overlays.all[at];
        let answer = overlay.hear(carried.from, carried.inner, Instant::now());
        self.dirty.offers |= overlay.take_changed();
        let done = if answer.is_some() { "segment_reply" } else { "segment_heard" };
        *self.punts_answered.entry(done).or_default() += 1;
        if let Some(answer) = answer {
            self.say(worker, at, &answer);
        }
    }

    /// Asks for ends whose place isn't known, and forgets those that weren't heard for long. To be called once a second.
    pub(crate) fn ask_inside(&mut self) {
        if self.overlays.groups.has_problems() {
            self.join_groups();
        }
        let now = Instant::now();
        for at in 0..self.overlays.all.len() {
            let overlay = &mut self.overlays.all[at];
            // Before the walk takes packets, answers would be lost.
            let sayings = if self.ready { overlay.tick(now) } else { Vec::new() };
            self.dirty.offers |= overlay.take_changed();
            for saying in sayings {
                self.say(0, at, &saying);
            }
        }
    }

    /// Sends a frame inside a segment: by the routes to an end, and by the uplink to a group.
    fn say(&mut self, worker: usize, at: usize, saying: &Saying) {
        let segment = self.overlays.all[at].segment();
        let to: Vec<IpAddr> = match (saying.to, &segment.learning) {
            (Audience::End(end), _) => vec![end],
            (Audience::Everybody, Some(learning)) => {
                learning.flood.iter().copied().chain(learning.group).collect()
            }
            (Audience::Everybody, None) => Vec::new(),
        };
        let uplink = self.uplink_of(segment);
        let mut packets = Vec::new();
        for to in to {
            let Some(mut packet) = carrier::wrap(segment, to, &saying.frame) else { continue };
            if !to.is_multicast() {
                packets.push((Inject::Walk, packet));
            } else if let Some((port, mac)) = uplink {
                packet[..6].copy_from_slice(&carrier::group_mac(to).0);
                packet[6..12].copy_from_slice(&mac);
                packets.push((Inject::Transmit(port), packet));
            }
        }
        for (how, packet) in packets {
            self.inject(worker, how, &packet);
        }
    }

    /// The uplink that has a segment's own address, and its MAC address.
    fn uplink_of(&self, segment: &Segment) -> Option<(PortId, [u8; 6])> {
        let ifindex = self.membership(segment, segment.local)?.ifindex;
        let port = self.ports.on(ifindex).filter(|port| port.kind == PortKind::Uplink)?;
        Some((port.id, port.mac.0))
    }

    /// The membership of a group on the link that has a segment's own address.
    pub(crate) fn membership(&self, segment: &Segment, group: IpAddr) -> Option<Membership> {
        let mut local = offers::local_addresses(&self.kernel, &self.roles);
        let own = local.find(|address| address.addr.addr == segment.local)?;
        Some(Membership { group, ifindex: own.ifindex })
    }

    /// Joins the groups that segments flood to, on the links that the segments' own addresses are on.
    pub(crate) fn join_groups(&mut self) {
        let segments = self.overlays.all.iter().map(Overlay::segment);
        let wanted: BTreeSet<Membership> =
            segments.filter_map(|segment| self.membership(segment, segment.group()?)).collect();
        let had_problems = self.overlays.groups.has_problems();
        self.overlays.groups.keep(&wanted);
        for membership in wanted.iter().filter(|_| !had_problems) {
            if let Some(problem) = self.overlays.groups.problem(*membership) {
                warn!(group = %membership.group, "the segment's group isn't joined, and is tried again: {problem}");
            }
        }
    }
}

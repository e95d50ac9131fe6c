//! What is told of VXLAN segments.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Instant;

use model::MacAddr;

use crate::event_loop::Core;
use crate::segments::overlay::{Overlay, SegmentCounts};
use crate::segments::{Segment, SegmentEnd};
use crate::status::{EndStatus, FdbEntry, SegmentNumbers, SegmentStatus, SegmentsStatus};

impl Core {
    pub(super) fn segments(&self) -> SegmentsStatus {
        let now = Instant::now();
        let status = |overlay: &Overlay| SegmentStatus {
            problems: self.segment_problems(overlay.segment()),
            ..segment(overlay, now)
        };
        SegmentsStatus { segments: self.overlays.all.iter().map(status).collect() }
    }

    pub(super) fn segment_numbers(&self) -> Vec<SegmentNumbers> {
        let numbers = |overlay: &Overlay| SegmentNumbers {
            name: overlay.segment().name.clone(),
            fdb: [
                ("static", overlay.fdb().written().count()),
                ("flood", flooded(overlay.segment()).count()),
                ("learned", overlay.fdb().learned().count()),
            ]
            .map(|(origin, count)| (origin.to_owned(), count))
            .into(),
            counts: counts(overlay.counts()),
        };
        self.overlays.all.iter().map(numbers).collect()
    }

    fn segment_problems(&self, segment: &Segment) -> Vec<String> {
        let Some(here) = self.membership(segment, segment.local) else {
            return vec![format!(
                "no interface of this node's has the address {}; packets can't come to it",
                segment.local
            )];
        };
        let mut problems = Vec::new();
        if let Some(group) = segment.group() {
            let membership = crate::segments::groups::Membership { group, ..here };
            if let Some(problem) = self.overlays.groups.problem(membership) {
                problems.push(format!("the group {group} isn't joined: {problem}"));
            }
            if self.ports.on(here.ifindex).is_none() {
                problems.push(format!(
                    "{} isn't on an uplink, so the group {group} isn't reached",
                    segment.local
                ));
            }
        }
        problems
    }
}

fn segment(overlay: &Overlay, now: Instant) -> SegmentStatus {
    let segment = overlay.segment();
    let seconds = |then: Instant| now.saturating_duration_since(then).as_secs();
    let entry = |mac: MacAddr, remote: IpAddr, origin: &str| FdbEntry {
        mac: mac.to_string(),
        remote,
        origin: origin.to_owned(),
        age_seconds: None,
    };
    let written = overlay.fdb().written().map(|(mac, remote)| entry(mac, remote, "static"));
    let flooded = flooded(segment).map(|remote| entry(MacAddr::default(), remote, "flood"));
    let learned = overlay.fdb().learned().map(|(mac, learned)| FdbEntry {
        age_seconds: Some(seconds(learned.heard)),
        ..entry(mac, learned.remote, "learned")
    });
    let mut fdb: Vec<FdbEntry> = flooded.chain(written).chain(learned).collect();
    fdb.sort_by(|a, b| (&a.mac, a.remote).cmp(&(&b.mac, b.remote)));
    SegmentStatus {
        name: segment.name.clone(),
        vni: segment.vni,
        port: segment.port,
        local: Some(segment.local),
        mac: segment.mac.to_string(),
        ageing_seconds: segment.learning.as_ref().map(|learning| learning.ageing.as_secs()),
        problems: Vec::new(),
        fdb,
        ends: segment.ends.iter().map(|end| end_status(overlay, end, seconds)).collect(),
        counts: counts(overlay.counts()),
    }
}

fn end_status(overlay: &Overlay, end: &SegmentEnd, seconds: impl Fn(Instant) -> u64) -> EndStatus {
    let neighbor = overlay.neighbor(end.address);
    let station = end.station.or_else(|| overlay.station(end.address));
    let state = match (end.station, station, neighbor) {
        (Some(_), ..) => "static",
        (None, Some(_), Some(neighbor)) if neighbor.unanswered == 0 => "reachable",
        (None, Some(_), _) => "probing",
        (None, None, _) => "asking",
    };
    EndStatus {
        address: end.address,
        mac: station
            .map(|station| station.mac)
            .or(neighbor.and_then(|neighbor| neighbor.mac))
            .map(|mac| mac.to_string()),
        remote: station.map(|station| station.remote),
        state: state.to_owned(),
        heard_seconds: neighbor.and_then(|neighbor| neighbor.heard).map(seconds),
    }
}

/// Where what has no known place goes.
fn flooded(segment: &Segment) -> impl Iterator<Item = IpAddr> {
    let learning = segment.learning.iter();
    learning.flat_map(|learning| learning.flood.iter().copied().chain(learning.group))
}

fn counts(counts: &SegmentCounts) -> BTreeMap<String, u64> {
    let SegmentCounts { learned, moved, aged, full, contradicted, invalid, answered, asked } = *counts;
    [
        ("learned", learned),
        ("moved", moved),
        ("aged", aged),
        ("full", full),
        ("contradicted", contradicted),
        ("invalid", invalid),
        ("answered", answered),
        ("asked", asked),
    ]
    .map(|(name, count)| (name.to_owned(), count))
    .into()
}

//! What Calico's QoS controls of an endpoint come to: meters and limits of connections for both directions, and a DSCP.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use model::{QosControls, QosDirection};

use crate::meter::{Allowance, Meter, MeterTime};
use crate::{DropReason, QosUse};

/// Bits at once, where a bandwidth comes without a burst: Calico's default.
pub const DEFAULT_BURST: u64 = 4 * 1024 * 1024 * 1024;
/// Packets at once, where a packet rate comes without a burst: Calico's default.
pub const DEFAULT_PACKET_BURST: u64 = 5;
/// Packets at the peak rate may come so much sooner, in parts of a second: what the queue of 25 ms would have held that
/// Calico's token bucket filter has. A frame that the filter would have delayed passes; the filter and we drop the same.
const QUEUE: u64 = 40;
/// Bytes in front of an IP packet that Linux counts too.
const ETHERNET: u64 = 14;

/// The QoS controls of one endpoint, in force. Shared by all workers.
#[derive(Debug)]
pub struct Qos {
    controls: QosControls,
    mtu: u16,
    /// Towards the workload.
    pub ingress: Option<Policer>,
    /// From the workload.
    pub egress: Option<Policer>,
    refused_connections: Arc<RefusedConnections>,
}

/// Connections above the limits.
#[derive(Debug, Default)]
struct RefusedConnections {
    ingress: AtomicU64,
    egress: AtomicU64,
}

/// Two of them are equal where they ask for the same, however full their buckets are.
impl PartialEq for Qos {
    fn eq(&self, other: &Qos) -> bool {
        (self.controls, self.mtu) == (other.controls, other.mtu)
    }
}

impl Eq for Qos {}

impl Qos {
    /// The meters that `controls` ask for on a port with this MTU; `None` where they ask for nothing that packets feel.
    ///
    /// What `before` counted goes on, and so do its buckets where there is one of the same kind.
    pub fn new(controls: &QosControls, mtu: u16, before: Option<&Qos>) -> Option<Arc<Qos>> {
        let policer = |asked: &QosDirection, way: Way, before: Option<&Policer>| {
            let meters = Meters::new(asked, mtu, before.map(|policer| &policer.meters));
            meters.map(|meters| Policer {
                meters,
                reasons: way.reasons(),
                drops: before.map(|policer| Arc::clone(&policer.drops)).unwrap_or_default(),
            })
        };
        let before_of = |of: fn(&Qos) -> &Option<Policer>| before.and_then(|before| of(before).as_ref());
        let ingress = policer(&controls.ingress, Way::Ingress, before_of(|qos| &qos.ingress));
        let egress = policer(&controls.egress, Way::Egress, before_of(|qos| &qos.egress));
        let limits_connections =
            [controls.ingress, controls.egress].iter().any(|way| way.max_connections.is_some());
        let felt = ingress.is_some() || egress.is_some() || controls.dscp.is_some() || limits_connections;
        let refused_connections =
            before.map(|before| Arc::clone(&before.refused_connections)).unwrap_or_default();
        felt.then(|| Arc::new(Qos { controls: *controls, mtu, ingress, egress, refused_connections }))
    }

    /// Connections towards the workload that there may be at a time.
    #[inline]
    pub fn ingress_connections(&self) -> Option<u64> {
        self.controls.ingress.max_connections
    }

    /// Connections from the workload that there may be at a time.
    #[inline]
    pub fn egress_connections(&self) -> Option<u64> {
        self.controls.egress.max_connections
    }

    /// Notes that a connection towards the workload was refused.
    pub fn refuse_ingress(&self) {
        self.refused_connections.ingress.fetch_add(1, Ordering::Relaxed);
    }

    /// Notes that a connection from the workload was refused.
    pub fn refuse_egress(&self) {
        self.refused_connections.egress.fetch_add(1, Ordering::Relaxed);
    }

    /// Packets that would have begun a connection above the limit since the endpoint's port was opened: towards the
    /// workload, and from it.
    pub fn refused_connections(&self) -> (u64, u64) {
        let RefusedConnections { ingress, egress } = &*self.refused_connections;
        (ingress.load(Ordering::Relaxed), egress.load(Ordering::Relaxed))
    }

    /// What was asked for.
    pub fn controls(&self) -> &QosControls {
        &self.controls
    }

    /// The DSCP that packets from the workload leave the node with.
    pub fn dscp(&self) -> Option<u8> {
        self.controls.dscp
    }

    /// What a walk has to look at for its sake.
    pub(crate) fn in_use(&self) -> QosUse {
        QosUse {
            ingress: self.ingress.is_some(),
            egress: self.egress.is_some(),
            dscp: self.dscp().is_some(),
            connections: self.ingress_connections().or(self.egress_connections()).is_some(),
        }
    }
}

#[derive(Clone, Copy)]
enum Way {
    Ingress,
    Egress,
}

impl Way {
    fn reasons(self) -> Reasons {
        match self {
            Way::Ingress => Reasons {
                packet_rate: DropReason::IngressPacketRate,
                bandwidth: DropReason::IngressBandwidth,
            },
            Way::Egress => {
                Reasons { packet_rate: DropReason::EgressPacketRate, bandwidth: DropReason::EgressBandwidth }
            }
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Reasons {
    packet_rate: DropReason,
    bandwidth: DropReason,
}

/// One direction's meters.
#[derive(Debug)]
struct Meters {
    packet_rate: Option<Meter>,
    bandwidth: Option<Meter>,
    peak_rate: Option<Meter>,
}

impl Meters {
    fn new(asked: &QosDirection, mtu: u16, before: Option<&Meters>) -> Option<Meters> {
        // A bucket that holds no frame of full size would never pass one.
        let frame = (u64::from(mtu) + ETHERNET) * 8;
        let bits = |rate: u64, burst: u64| Allowance::Bits {
            rate,
            depth: burst.max(frame).saturating_add(rate / QUEUE),
        };
        let packet_rate = asked.packet_rate.map(|rate| Allowance::Packets {
            rate,
            depth: asked.packet_burst.unwrap_or(DEFAULT_PACKET_BURST),
        });
        let bandwidth = asked.bandwidth.map(|rate| bits(rate, asked.burst.unwrap_or(DEFAULT_BURST)));
        // As in a token bucket filter, a peak rate means something beside a bandwidth only.
        let peak_rate = asked.peak_rate.filter(|_| bandwidth.is_some());
        let peak_rate = peak_rate.map(|rate| bits(rate, asked.min_burst.unwrap_or(0).saturating_mul(8)));
        if packet_rate.is_none() && bandwidth.is_none() {
            return None;
        }
        let meter = |allowance: Option<Allowance>, of: fn(&Meters) -> &Option<Meter>| {
            allowance.map(|allowance| match before.and_then(|before| of(before).as_ref()) {
                Some(before) => Meter::following(allowance, before),
                None => Meter::new(allowance),
            })
        };
        Some(Meters {
            packet_rate: meter(packet_rate, |meters| &meters.packet_rate),
            bandwidth: meter(bandwidth, |meters| &meters.bandwidth),
            peak_rate: meter(peak_rate, |meters| &meters.peak_rate),
        })
    }
}

/// Packets dropped by a direction's limits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PolicerDrops {
    /// Above the packet rate.
    pub packet_rate: u64,
    /// Above the bandwidth or its peak rate.
    pub bandwidth: u64,
}

#[derive(Debug, Default)]
struct Drops {
    packet_rate: AtomicU64,
    bandwidth: AtomicU64,
}

/// What limits one direction of an endpoint's traffic, by dropping.
#[derive(Debug)]
pub struct Policer {
    meters: Meters,
    reasons: Reasons,
    drops: Arc<Drops>,
}

impl Policer {
    /// Asks for up to 64 packets of these sizes, in bytes with their Ethernet headers. `refuse` is told the place of each
    /// packet that must be dropped, and why; the others have had their tokens.
    pub fn police(&self, now: MeterTime, sizes: &[u32], mut refuse: impl FnMut(usize, DropReason)) {
        let asked = u64::MAX.checked_shr(64_u32.saturating_sub(sizes.len() as u32)).unwrap_or(0);
        let draw = |meter: &Option<Meter>, asked: u64| match meter {
            Some(meter) => meter.draw(now, sizes, asked),
            None => asked,
        };
        // What the packet rate refuses takes no bandwidth, and what the peak rate refuses gives it back.
        let by_packets = draw(&self.meters.packet_rate, asked);
        let by_bandwidth = draw(&self.meters.bandwidth, by_packets);
        let passed = draw(&self.meters.peak_rate, by_bandwidth);
        if passed == asked {
            return;
        }
        if let Some(bandwidth) = self.meters.bandwidth.as_ref().filter(|_| passed != by_bandwidth) {
            bandwidth.give_back(sizes, by_bandwidth & !passed);
        }
        let refused = [
            (asked & !by_packets, self.reasons.packet_rate, &self.drops.packet_rate),
            (by_packets & !passed, self.reasons.bandwidth, &self.drops.bandwidth),
        ];
        for (mut places, reason, count) in refused {
            if places != 0 {
                count.fetch_add(places.count_ones().into(), Ordering::Relaxed);
            }
            while places != 0 {
                refuse(places.trailing_zeros() as usize, reason);
                places &= places - 1;
            }
        }
    }

    /// What it dropped since the endpoint's port was opened.
    pub fn drops(&self) -> PolicerDrops {
        PolicerDrops {
            packet_rate: self.drops.packet_rate.load(Ordering::Relaxed),
            bandwidth: self.drops.bandwidth.load(Ordering::Relaxed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MTU: u16 = 1500;

    fn egress(egress: QosDirection) -> QosControls {
        QosControls { egress, ..QosControls::default() }
    }

    fn refused(qos: &Qos, nanos: u64, sizes: &[u32]) -> Vec<(usize, DropReason)> {
        let mut refused = Vec::new();
        let now = MeterTime::from_nanos(1_000_000_000 + nanos);
        qos.egress.as_ref().unwrap().police(now, sizes, |place, reason| refused.push((place, reason)));
        refused
    }

    #[test]
    fn nothing_asked_for_is_nothing_to_look_at() {
        assert!(Qos::new(&QosControls::default(), MTU, None).is_none());
        // Without a rate there is nothing that a burst could belong to.
        let bursts = QosDirection { burst: Some(8), packet_burst: Some(8), ..QosDirection::default() };
        assert!(Qos::new(&egress(bursts), MTU, None).is_none());
        let marked = QosControls { dscp: Some(0), ..QosControls::default() };
        let marked = Qos::new(&marked, MTU, None).unwrap();
        assert_eq!(marked.in_use(), QosUse { dscp: true, ..QosUse::default() });
    }

    #[test]
    fn a_limit_of_connections_alone_is_felt_and_its_count_goes_on() {
        let limited = |max| egress(QosDirection { max_connections: Some(max), ..QosDirection::default() });
        let qos = Qos::new(&limited(3), MTU, None).unwrap();
        assert_eq!(qos.in_use(), QosUse { connections: true, ..QosUse::default() });
        assert_eq!((qos.ingress_connections(), qos.egress_connections()), (None, Some(3)));
        qos.refuse_egress();
        let changed = Qos::new(&limited(4), MTU, Some(&qos)).unwrap();
        assert_eq!(changed.refused_connections(), (0, 1));
    }

    #[test]
    fn a_packet_rate_has_calicos_burst_and_its_own_reason() {
        let limited = QosDirection { packet_rate: Some(100), ..QosDirection::default() };
        let qos = Qos::new(&egress(limited), MTU, None).unwrap();
        let reason = DropReason::EgressPacketRate;
        assert_eq!(refused(&qos, 0, &[60; 7]), [(5, reason), (6, reason)]);
        assert_eq!(qos.egress.as_ref().unwrap().drops(), PolicerDrops { packet_rate: 2, bandwidth: 0 });
    }

    #[test]
    fn a_frame_of_full_size_passes_the_smallest_burst() {
        let limited = QosDirection { bandwidth: Some(1_000), burst: Some(1_000), ..QosDirection::default() };
        let qos = Qos::new(&egress(limited), MTU, None).unwrap();
        assert_eq!(refused(&qos, 0, &[1514, 1514]), [(1, DropReason::EgressBandwidth)]);
    }

    #[test]
    fn what_the_peak_rate_refuses_takes_no_bandwidth() {
        let limited = QosDirection {
            bandwidth: Some(8_000),
            burst: Some(8 * 3_000),
            peak_rate: Some(16_000),
            min_burst: Some(1_000),
            ..QosDirection::default()
        };
        let qos = Qos::new(&egress(limited), MTU, None).unwrap();
        // The peak's bucket: a frame of 1,514 bytes, and 50 bytes for 25 ms. The other one: 3,000 bytes, and 25.
        assert_eq!(refused(&qos, 0, &[1_000, 1_000, 500]), [(1, DropReason::EgressBandwidth)]);
        // A second later both have got more than a kilobyte: 2,525 there are, had nothing been given back 1,525.
        assert_eq!(refused(&qos, 1_000_000_000, &[1_500]), []);
        assert_eq!(refused(&qos, 1_500_000_000, &[1_000]), []);
    }

    #[test]
    fn a_change_keeps_counts_and_empty_buckets() {
        let limited = |rate| egress(QosDirection { packet_rate: Some(rate), ..QosDirection::default() });
        let qos = Qos::new(&limited(1), MTU, None).unwrap();
        assert_eq!(refused(&qos, 0, &[60; 6]).len(), 1);
        let changed = Qos::new(&limited(2), MTU, Some(&qos)).unwrap();
        assert_eq!(refused(&changed, 100_000_000, &[60]).len(), 1, "no new burst");
        assert_eq!(refused(&changed, 600_000_000, &[60]).len(), 0);
        assert_eq!(changed.egress.as_ref().unwrap().drops().packet_rate, 2);
        assert_ne!(qos, changed);
    }
}

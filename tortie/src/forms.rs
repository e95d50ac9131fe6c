//! What `tortie show … -o json` prints where the fast path's counters take part. The rest is `slowpath::status`.
//!
//! The field names are an interface: programs read them. Add fields, don't rename them.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use fastpath::QueueStatistics;
use serde::{Deserialize, Serialize};
use slowpath::QueueReport;
use slowpath::status::{PortProblem, PortStatus, QosStatus};
use tables::{Books, DropReason, PortCount, PuntReason, Stage, StageSample};

/// `show drops`: the books of the walk (ARCHITECTURE.md, D6).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct DropsStatus {
    /// Frames taken from receive rings.
    pub(crate) received: u64,
    /// Packets that the slow path made, whether routed by the walk or sent as they were.
    pub(crate) injected: u64,
    /// Frames given to transmit rings.
    pub(crate) forwarded: u64,
    /// Packets that were cut into fragments.
    #[serde(default)]
    pub(crate) fragmented: u64,
    /// Fragments made of them.
    #[serde(default)]
    pub(crate) fragments: u64,
    /// Copies given to the slow path.
    pub(crate) punted: ByReason,
    /// Packets lost.
    pub(crate) dropped: ByReason,
    /// Is received + injected + fragments = forwarded + fragmented + punted + dropped?
    pub(crate) balanced: bool,
}

/// A total and its parts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ByReason {
    /// The sum.
    pub(crate) total: u64,
    /// Every reason there is, those at zero included.
    pub(crate) reasons: BTreeMap<String, u64>,
}

impl DropsStatus {
    pub(crate) fn new(books: &Books) -> DropsStatus {
        let punts = PuntReason::ALL.iter().map(|reason| (reason.as_str(), books.punts[reason.index()]));
        let drops = DropReason::ALL.iter().map(|reason| (reason.as_str(), books.drops[reason.index()]));
        DropsStatus {
            received: books.received,
            injected: books.injected,
            forwarded: books.forwarded,
            fragmented: books.fragmented,
            fragments: books.fragments,
            punted: ByReason::of(punts),
            dropped: ByReason::of(drops),
            balanced: books.balance(),
        }
    }
}

impl ByReason {
    fn of(counts: impl Iterator<Item = (&'static str, u64)>) -> ByReason {
        let reasons: BTreeMap<String, u64> = counts.map(|(name, count)| (name.to_owned(), count)).collect();
        ByReason { total: reasons.values().sum(), reasons }
    }
}

/// `show ports --stages`: where the workers' time goes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct StagesStatus {
    /// Every worker, by number.
    pub(crate) workers: Vec<WorkerStages>,
}

/// What was timed of one worker's batches since it started.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct WorkerStages {
    /// Its number.
    pub(crate) worker: usize,
    /// Batches that were timed: one in 64.
    pub(crate) batches: u64,
    /// Packets in them.
    pub(crate) packets: u64,
    /// Ticks of the processor's time-stamp counter in each stage.
    pub(crate) ticks: BTreeMap<String, u64>,
}

impl StagesStatus {
    pub(crate) fn new(samples: impl IntoIterator<Item = StageSample>) -> StagesStatus {
        let worker = |(worker, sample): (usize, StageSample)| WorkerStages {
            worker,
            batches: sample.batches,
            packets: sample.packets,
            ticks: Stage::ALL
                .iter()
                .map(|stage| (stage.as_str().to_owned(), sample.ticks[stage.index()]))
                .collect(),
        };
        StagesStatus { workers: samples.into_iter().enumerate().map(worker).collect() }
    }
}

impl WorkerStages {
    /// Clocks a packet in one stage.
    pub(crate) fn clocks(&self, stage: &str) -> f64 {
        self.ticks.get(stage).copied().unwrap_or(0) as f64 / self.packets as f64
    }

    /// Clocks a packet in all of them.
    pub(crate) fn total(&self) -> f64 {
        self.ticks.values().sum::<u64>() as f64 / self.packets as f64
    }
}

/// `show ports`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct PortsView {
    /// Every port, by number.
    pub(crate) ports: Vec<PortView>,
    /// Interfaces that should be ports and aren't, with the reason.
    pub(crate) problems: Vec<PortProblem>,
    /// MTU that workloads' interfaces are brought down to, in bytes; absent where they are left alone.
    #[serde(default)]
    pub(crate) workload_mtu: Option<u32>,
    /// Largest IP packet that frames hold, in bytes.
    #[serde(default)]
    pub(crate) receivable: u32,
}

/// One port: what the slow path knows (`slowpath::status::PortStatus`), and what was counted.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the fields are PortStatus's own, and described there")]
pub(crate) struct PortView {
    pub(crate) id: u16,
    pub(crate) name: String,
    pub(crate) kind: String,
    pub(crate) ifindex: u32,
    pub(crate) mac: String,
    pub(crate) mtu: u16,
    pub(crate) up: bool,
    #[serde(default)]
    pub(crate) warnings: Vec<String>,
    pub(crate) endpoint: Option<String>,
    #[serde(default)]
    pub(crate) qos: Option<QosStatus>,
    pub(crate) queues: Vec<QueueView>,
    /// What the walk took from this port.
    pub(crate) received: Traffic,
    /// What the walk gave to this port's transmit rings.
    pub(crate) forwarded: Traffic,
    /// Packets received here that the walk dropped.
    pub(crate) dropped: u64,
}

impl PortView {
    pub(crate) fn new(port: PortStatus, count: &PortCount, queues: Vec<QueueView>) -> PortView {
        PortView {
            id: port.id,
            name: port.name,
            kind: port.kind,
            ifindex: port.ifindex,
            mac: port.mac,
            mtu: port.mtu,
            up: port.up,
            warnings: port.warnings,
            endpoint: port.endpoint,
            qos: port.qos,
            queues,
            received: Traffic { packets: count.received_packets, bytes: count.received_bytes },
            forwarded: Traffic { packets: count.forwarded_packets, bytes: count.forwarded_bytes },
            dropped: count.dropped_packets,
        }
    }
}

/// Packets and bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Traffic {
    /// Packets.
    pub(crate) packets: u64,
    /// Bytes, Ethernet header included, frame check sequence not.
    pub(crate) bytes: u64,
}

/// One queue: what it got, and what the kernel counted.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct QueueView {
    #[serde(flatten)]
    pub(crate) report: QueueReport,
    /// `XDP_STATISTICS`, at most a second old.
    pub(crate) xdp: XdpCounts,
}

/// What was counted of one queue, by the kernel and by whoever puts pieces together. Each is a metric too, by the same
/// name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "`XdpCounts::list` says what each means")]
pub(crate) struct XdpCounts {
    pub(crate) rx_dropped: u64,
    #[serde(default)]
    pub(crate) rx_too_long: u64,
    #[serde(default)]
    pub(crate) rx_no_large_frame: u64,
    pub(crate) rx_ring_full: u64,
    pub(crate) rx_fill_ring_empty: u64,
    pub(crate) rx_invalid: u64,
    pub(crate) tx_invalid: u64,
    pub(crate) tx_ring_empty: u64,
    #[serde(default)]
    pub(crate) rx_busy_polled: u64,
}

impl XdpCounts {
    /// What the worker last read from the kernel.
    pub(crate) fn read(statistics: &QueueStatistics) -> XdpCounts {
        XdpCounts {
            rx_dropped: statistics.rx_dropped.load(Ordering::Relaxed),
            rx_too_long: statistics.rx_too_long.load(Ordering::Relaxed),
            rx_no_large_frame: statistics.rx_no_large_frame.load(Ordering::Relaxed),
            rx_ring_full: statistics.rx_ring_full.load(Ordering::Relaxed),
            rx_fill_ring_empty: statistics.rx_fill_ring_empty.load(Ordering::Relaxed),
            rx_invalid: statistics.rx_invalid.load(Ordering::Relaxed),
            tx_invalid: statistics.tx_invalid.load(Ordering::Relaxed),
            tx_ring_empty: statistics.tx_ring_empty.load(Ordering::Relaxed),
            rx_busy_polled: statistics.rx_busy_polled.load(Ordering::Relaxed),
        }
    }

    /// Name, meaning and count of each.
    pub(crate) fn list(&self) -> [(&'static str, &'static str, u64); 9] {
        [
            ("rx_dropped", "Frames the kernel dropped for reasons other than a full ring.", self.rx_dropped),
            ("rx_too_long", "Frames lost because they were longer than a large frame.", self.rx_too_long),
            (
                "rx_no_large_frame",
                "Frames above a chunk that were lost because no large frame was free.",
                self.rx_no_large_frame,
            ),
            (
                "rx_ring_full",
                "Frames lost because the receive ring was full: the worker was behind.",
                self.rx_ring_full,
            ),
            (
                "rx_fill_ring_empty",
                "Times the kernel found no free frame to receive into.",
                self.rx_fill_ring_empty,
            ),
            ("rx_invalid", "Receive descriptors that the kernel refused.", self.rx_invalid),
            (
                "tx_invalid",
                "Frames that the kernel refused to send, or that are above what the queue can send.",
                self.tx_invalid,
            ),
            ("tx_ring_empty", "Times the kernel found nothing to send.", self.tx_ring_empty),
            (
                "rx_busy_polled",
                "Frames that came when a worker asked the driver, instead of by an interrupt.",
                self.rx_busy_polled,
            ),
        ]
    }

    /// Frames lost before the walk saw them.
    pub(crate) fn lost(&self) -> u64 {
        self.rx_dropped + self.rx_too_long + self.rx_no_large_frame + self.rx_ring_full
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_is_listed_and_the_totals_are_their_sums() {
        let mut books = Books { received: 9, forwarded: 2, ..Books::default() };
        books.punts[PuntReason::Arp.index()] = 3;
        books.drops[DropReason::Blackhole.index()] = 4;
        let status = DropsStatus::new(&books);
        assert_eq!(status.punted.reasons.len(), PuntReason::ALL.len());
        assert_eq!(status.dropped.reasons.len(), DropReason::ALL.len());
        assert_eq!((status.punted.total, status.dropped.total), (3, 4));
        assert!(status.balanced);
        let text = serde_json::to_string(&status).unwrap();
        assert!(text.contains(r#""punted":{"total":3,"reasons":{"arp":3,"#), "{text}");
        assert_eq!(serde_json::from_str::<DropsStatus>(&text).unwrap(), status);
    }
}

//! What the kernel and this room count for one queue.

use crate::abi::StatisticsRaw;

/// The kernel's own counters of one socket (`XDP_STATISTICS`). They only grow, from zero at bind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct XdpStatistics {
    /// Received frames dropped for reasons with no counter of their own, such as being longer than a chunk where packets
    /// in pieces weren't asked for.
    pub rx_dropped: u64,
    /// Fill-ring addresses the kernel refused. Not zero: a bug here.
    pub rx_invalid_descriptors: u64,
    /// TX descriptors the kernel refused. Not zero: a bug here.
    pub tx_invalid_descriptors: u64,
    /// Received frames dropped because the RX ring was full: the worker is too slow.
    pub rx_ring_full: u64,
    /// Times the kernel found no frame to receive into: the fill ring is too small or refilled too late.
    pub rx_fill_ring_empty: u64,
    /// Times the kernel found nothing to send.
    pub tx_ring_empty: u64,
}

impl From<StatisticsRaw> for XdpStatistics {
    fn from(raw: StatisticsRaw) -> Self {
        Self {
            rx_dropped: raw.rx_dropped,
            rx_invalid_descriptors: raw.rx_invalid_descs,
            tx_invalid_descriptors: raw.tx_invalid_descs,
            rx_ring_full: raw.rx_ring_full,
            rx_fill_ring_empty: raw.rx_fill_ring_empty_descs,
            tx_ring_empty: raw.tx_ring_empty_descs,
        }
    }
}

/// What this side of a queue counts. Plain numbers: the queue's owner reads them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueCounters {
    /// Frames handed out by `receive`.
    pub received: u64,
    /// Those of them that came when the worker asked the driver, where the queue is busy polled. A call to send asks it as
    /// well, and what that brings isn't known from what came before it.
    pub busy_polled: u64,
    /// Frames taken by `transmit`.
    pub transmitted: u64,
    /// Frames returned by `reap`, sent or refused by the kernel.
    pub completed: u64,
    /// Packets in pieces that were longer than a large frame, and so were lost.
    pub too_long: u64,
    /// Packets in pieces that found no large frame free, and so were lost.
    pub no_large_frame: u64,
    /// RX descriptors that named no chunk of ours, or reached beyond it. Not zero: a bug in the driver or kernel.
    pub bad_receive_descriptors: u64,
    /// Completions that named no chunk this queue was sending. Not zero: a bug in the driver or kernel.
    pub bad_completions: u64,
    /// Empty frames offered to `transmit`; AF_XDP can't send them, so they went back to the pool.
    pub empty_frames: u64,
    /// Frames above a chunk offered to `transmit` of a queue whose packets don't go in pieces; they went back to the pool.
    pub too_long_to_send: u64,
    /// System calls made to wake the kernel.
    pub wakeups: u64,
}

/// Frames a queue holds, or has lent to the kernel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outstanding {
    /// In the fill ring, the driver and the RX ring.
    pub receive: usize,
    /// In the TX ring, the driver and the completion ring.
    pub transmit: usize,
    /// Held by the queue: frames that can't be sent, until the next `reap`, and the beginning of a packet whose last
    /// piece hasn't come.
    pub aside: usize,
}

impl Outstanding {
    /// All of them.
    pub fn total(self) -> usize {
        self.receive + self.transmit + self.aside
    }
}

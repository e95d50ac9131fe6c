//! Frames that must leave by a queue that another worker owns (ARCHITECTURE.md, D3).
//!
//! They cross as copies through a bounded ring with one producer and one consumer, so that every frame stays with
//! its worker. A NIC with a queue for every worker never comes here.

use model::PortId;
use tables::{RingConsumer, RingProducer, copy_ring};

/// One worker's ends of the rings between it and every other worker.
pub struct Handoffs {
    /// To worker *i*; `None` to itself.
    pub(crate) to: Vec<Option<RingProducer<PortId>>>,
    /// From the other workers.
    pub(crate) from: Vec<RingConsumer<PortId>>,
}

/// Rings of `slots` frames of at most `bytes_max` bytes between every two of `workers` workers: row *i* is for
/// worker *i*.
///
/// # Panics
/// Where `slots` is zero and there are two workers or more.
pub fn handoffs(workers: usize, slots: usize, bytes_max: usize) -> Vec<Handoffs> {
    let mut ends: Vec<Handoffs> = (0..workers)
        .map(|_| Handoffs { to: (0..workers).map(|_| None).collect(), from: Vec::new() })
        .collect();
    for sender in 0..workers {
        for receiver in (0..workers).filter(|receiver| *receiver != sender) {
            let (producer, consumer) = copy_ring(slots, bytes_max);
            ends[sender].to[receiver] = Some(producer);
            ends[receiver].from.push(consumer);
        }
    }
    ends
}

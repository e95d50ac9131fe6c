//! What people and metrics see of the table.

use std::sync::atomic::{Ordering, fence};

use packet::FlowKey;

use super::row::Life;
use super::{Flows, Ticks};

/// A flow for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowRow {
    /// As its first packet showed.
    pub original: FlowKey,
    /// As its replies show.
    pub reply: FlowKey,
    /// `new`, `answered`, `established`, `closed` or `reset`.
    pub state: &'static str,
    /// Seconds since its last packet.
    pub silent: u32,
}

/// Sums for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FlowCounts {
    /// Rows in use: flows, mappings, and a count for each sender and protocol.
    pub in_use: usize,
    /// All rows.
    pub size: usize,
    /// Flows that went before their time to make room.
    pub evicted: u64,
    /// Outer ports in use.
    pub ports: usize,
    /// First packets of flows whose sender had its share of ports.
    pub over_share: u64,
}

impl Flows {
    /// Rows in use, as in [`Self::counts`].
    pub fn in_use(&self) -> usize {
        self.0.free.taken()
    }

    /// Sums for metrics.
    pub fn counts(&self) -> FlowCounts {
        FlowCounts {
            in_use: self.in_use(),
            size: self.0.rows.len(),
            evicted: self.0.evicted.load(Ordering::Relaxed),
            ports: self.0.ports.taken(),
            over_share: self.0.over_share.load(Ordering::Relaxed),
        }
    }

    /// The flows as they are, one row at a time: what changes meanwhile shows or doesn't.
    pub fn rows(&self) -> impl Iterator<Item = FlowRow> {
        let now = self.now();
        self.0.rows.iter().filter_map(move |row| {
            let life = Life(row.near.life.load(Ordering::Acquire));
            if !life.has(Life::LIVE) || life.has(Life::MAPPING) {
                return None;
            }
            let [original, reply] = row.keys(life);
            fence(Ordering::Acquire);
            let same = row.life().generation() == life.generation();
            let silent = now.0.saturating_sub(life.seen()) / Ticks::PER_SECOND;
            same.then_some(FlowRow { original, reply, state: state(life), silent })
        })
    }
}

fn state(life: Life) -> &'static str {
    if life.has(Life::RESET) {
        "reset"
    } else if life.has(Life::FIN_ORIGINAL | Life::FIN_REPLY) {
        "closed"
    } else if life.has(Life::ESTABLISHED) {
        "established"
    } else if life.has(Life::ANSWERED) {
        "answered"
    } else {
        "new"
    }
}

//! The stages of the walk by name, for those who ask where a worker's time goes.

/// A part of a worker's round. The order of the walk is `fastpath/src/walk.rs`'s to know; this is a list of names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Stage {
    /// Rings topped up and emptied, frames taken in.
    Receive,
    /// Headers found and validated.
    Parse,
    /// Frames for this router told from others.
    Admit,
    /// Tunnel packets for this router opened.
    Decapsulate,
    /// Addresses that are never forwarded.
    Martian,
    /// What a workload may send.
    WorkloadSend,
    /// Sources held to the routes.
    ReversePath,
    /// Addresses and ports of flows that are translated.
    Nat,
    /// Destination to next hop.
    Route,
    /// What policy says of the packet's flow.
    Policy,
    /// What a workload may get.
    WorkloadReceive,
    /// TTL, MAC addresses, encapsulation.
    Rewrite,
    /// Frames sorted by fate, counters.
    Exits,
    /// Frames given to transmit rings, and the kernel told.
    Transmit,
}

impl Stage {
    /// Every stage, in order of [`Self::index`].
    pub const ALL: [Stage; 14] = [
        Stage::Receive,
        Stage::Parse,
        Stage::Admit,
        Stage::Decapsulate,
        Stage::Martian,
        Stage::WorkloadSend,
        Stage::ReversePath,
        Stage::Nat,
        Stage::Route,
        Stage::Policy,
        Stage::WorkloadReceive,
        Stage::Rewrite,
        Stage::Exits,
        Stage::Transmit,
    ];

    /// As an index into an array of counters.
    pub const fn index(self) -> usize {
        self as usize
    }

    /// The name in tables, JSON and metric labels.
    pub const fn as_str(self) -> &'static str {
        match self {
            Stage::Receive => "receive",
            Stage::Parse => "parse",
            Stage::Admit => "admit",
            Stage::Decapsulate => "decapsulate",
            Stage::Martian => "martian",
            Stage::WorkloadSend => "workload_send",
            Stage::ReversePath => "reverse_path",
            Stage::Nat => "nat",
            Stage::Route => "route",
            Stage::Policy => "policy",
            Stage::WorkloadReceive => "workload_receive",
            Stage::Rewrite => "rewrite",
            Stage::Exits => "exits",
            Stage::Transmit => "transmit",
        }
    }
}

/// What was measured of a worker's stages: sampled batches only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StageSample {
    /// Batches that were timed.
    pub batches: u64,
    /// Packets in them.
    pub packets: u64,
    /// Ticks of the processor's time-stamp counter spent in each stage, by [`Stage::index`].
    pub ticks: [u64; Stage::ALL.len()],
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_finds_its_stage() {
        for stage in Stage::ALL {
            assert_eq!(Stage::ALL[stage.index()], stage);
        }
    }
}

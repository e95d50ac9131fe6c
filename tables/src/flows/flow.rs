//! A flow that was looked up.

use packet::FlowKey;

use super::row::Life;
use super::{FlowVerdict, TcpPacket, timeouts};

/// Which way a packet goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Direction {
    /// As the flow's first packet.
    Original,
    /// The other way.
    Reply,
}

/// A flow that was looked up. It stays a valid answer however the table changes: a row that has gone to another flow ignores
/// what is said of this one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    pub(super) row: u32,
    pub(super) protocol: u8,
    pub(super) life: Life,
    /// Which way packets with the asked key go.
    pub direction: Direction,
    /// The key of packets that go the other way. Reversed, it is what a packet with the asked key becomes.
    pub other: FlowKey,
    /// What policy has said of it.
    pub verdict: FlowVerdict,
}

impl Flow {
    /// Do packets leave under other addresses or ports than they came with?
    #[inline]
    pub fn is_translated(&self) -> bool {
        !self.life.has(Life::PLAIN)
    }

    /// The packets that both policies of its ends are about, as the first one goes: its source before any translation, its
    /// destination after. `asked`: the key that it was found by.
    pub fn judged_as(&self, asked: &FlowKey) -> FlowKey {
        let (original, reply) = match self.direction {
            Direction::Original => (asked, &self.other),
            Direction::Reply => (&self.other, asked),
        };
        FlowKey { dst: reply.src, dport: reply.sport, ..*original }
    }

    /// The key of its first packet as it came. `asked`: the key that it was found by.
    pub fn original_of(&self, asked: &FlowKey) -> FlowKey {
        match self.direction {
            Direction::Original => *asked,
            Direction::Reply => self.other,
        }
    }

    /// May the flow have such a TCP packet, after what came before?
    #[inline]
    pub fn may_have(&self, packet: TcpPacket) -> bool {
        timeouts::may_follow(self.life.flags(), self.direction, packet)
    }

    /// Has the other side said anything, of TCP to what was asked of it?
    #[inline]
    pub fn is_answered(&self) -> bool {
        self.life.has(Life::ANSWERED)
    }

    /// What a packet with the asked key becomes.
    pub fn translated(&self) -> FlowKey {
        self.other.reversed()
    }
}

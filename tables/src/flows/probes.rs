//! What a batch's packets are looked up by: keys without their ways, and where those belong, in columns.

use packet::{FlowKey, protocol};

use super::index::{Hash, Index};
use super::row::{AllRows, IS_V6, Words, directed, either_way, either_way_v4, key, protocol_of};
use super::{Flows, timeouts};
use crate::Rows;

/// How many rows of plain IPv4 columns are worked on at once.
const CHUNK: usize = 16;

/// Keys hashed once, however often they are looked at. Of a row that nobody has asked about, nothing means anything.
pub struct Probes {
    /// A key's words, without its way: the first, the second, which is the last of an IPv4 key's, and the others.
    heads: [u64; Rows::MOST],
    seconds: [u64; Rows::MOST],
    rest: [[u64; 3]; Rows::MOST],
    /// 1 where the packet's source is the higher end of its key, else 0.
    pub(super) turned: [u64; Rows::MOST],
    hashes: [Hash; Rows::MOST],
    /// The row that each hash points to.
    pub(super) homes: [u32; Rows::MOST],
    /// What a flow has to be for the packet to change nothing.
    pub(super) steady: [u16; Rows::MOST],
}

/// One of them.
#[derive(Clone, Copy)]
pub(super) struct Probe<'a> {
    pub(super) head: u64,
    pub(super) second: u64,
    pub(super) rest: &'a [u64; 3],
    pub(super) turned: u64,
    pub(super) hash: Hash,
    pub(super) home: u32,
}

/// Packets of IPv4 in columns.
#[derive(Clone, Copy)]
pub struct ColumnsV4<'a> {
    /// Addresses.
    pub sources: &'a [u32; Rows::MOST],
    /// Addresses.
    pub destinations: &'a [u32; Rows::MOST],
    /// The source's port in the high half, the destination's in the low one.
    pub ports: &'a [u32; Rows::MOST],
    /// Protocols.
    pub protocols: &'a [u8; Rows::MOST],
}

impl Default for Probes {
    fn default() -> Probes {
        Probes {
            heads: [0; Rows::MOST],
            seconds: [0; Rows::MOST],
            rest: [[0; 3]; Rows::MOST],
            turned: [0; Rows::MOST],
            hashes: [Hash(0); Rows::MOST],
            homes: [0; Rows::MOST],
            steady: [0; Rows::MOST],
        }
    }
}

impl Probes {
    /// The packet's key.
    pub fn key(&self, row: usize) -> FlowKey {
        key(&self.get(row).directed())
    }

    #[inline(always)]
    pub(super) fn get(&self, row: usize) -> Probe<'_> {
        Probe {
            head: self.heads[row],
            second: self.seconds[row],
            rest: &self.rest[row],
            turned: self.turned[row],
            hash: self.hashes[row],
            home: self.homes[row],
        }
    }
}

impl Probe<'_> {
    pub(super) fn words(&self) -> Words {
        let [b, c, d] = if self.head & IS_V6 != 0 { *self.rest } else { [0; 3] };
        [self.head, self.second, b, c, d]
    }

    pub(super) fn directed(&self) -> Words {
        directed(&self.words(), self.turned != 0)
    }

    pub(super) fn protocol(&self) -> u8 {
        protocol_of(self.head)
    }
}

impl Flows {
    /// Asks about a packet; its flow's row is sent for. `tcp_flags`: of TCP only.
    pub fn ask(&self, probes: &mut Probes, row: usize, key: &FlowKey, tcp_flags: u8) {
        let ([head, second, b, c, d], is_turned) = either_way(key);
        (probes.heads[row], probes.seconds[row], probes.rest[row]) = (head, second, [b, c, d]);
        probes.turned[row] = u64::from(is_turned);
        let hash = self.0.index.hash_either_way(&[head, second, b, c, d]);
        (probes.hashes[row], probes.homes[row]) = (hash, self.0.index.home(hash));
        self.ask_laid(probes, row, key.protocol, tcp_flags);
    }

    /// Lays down rows' keys, which [`Flows::ask_laid`] then asks about. Rows beside these are overwritten, so it comes before
    /// all others of a batch.
    #[inline(never)]
    pub fn lay_v4(&self, probes: &mut Probes, rows: Rows, columns: &ColumnsV4<'_>) {
        let index: &Index = &self.0.index;
        let ColumnsV4 { sources, destinations, ports, protocols } = *columns;
        for first in (0..Rows::MOST).step_by(CHUNK) {
            if rows.within(Rows::from(first..first + CHUNK)).is_empty() {
                continue;
            }
            // Without a branch, so that it is done with several rows at a time.
            for row in first..first + CHUNK {
                let (head, second, is_turned) =
                    either_way_v4(sources[row], destinations[row], ports[row], protocols[row]);
                let hash = index.hash_v4(head, second);
                (probes.heads[row], probes.seconds[row]) = (head, second);
                probes.turned[row] = u64::from(is_turned);
                (probes.hashes[row], probes.homes[row]) = (hash, index.home(hash));
            }
        }
    }

    /// [`Flows::ask`] about a row whose key lies there.
    #[inline(always)]
    pub fn ask_laid(&self, probes: &mut Probes, row: usize, protocol: u8, tcp_flags: u8) {
        let rows: &AllRows = &self.0.rows;
        rows.prefetch_near(probes.homes[row]);
        probes.steady[row] = if protocol == protocol::TCP { timeouts::steady(tcp_flags) } else { 0 };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::Family;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_laid_down_in_columns_is_what_is_asked_one_by_one(
            keys in prop::collection::vec((any::<u32>(), any::<u32>(), any::<u32>(), any::<bool>()), Rows::MOST),
            asked: u64,
        ) {
            let flows = Flows::new(1000);
            let column = |of: fn(&(u32, u32, u32, bool)) -> u32| std::array::from_fn(|row| of(&keys[row]));
            let (sources, ports) = (column(|key| key.0), column(|key| key.2));
            // Equal addresses, too: ports then say which end is higher.
            let destinations = column(|key| if key.3 { key.0 } else { key.1 });
            let (mut laid, mut single) = (Probes::default(), Probes::default());
            let protocols = std::array::from_fn(|row| if row % 3 == 0 { protocol::TCP } else { protocol::UDP });
            let columns =
                ColumnsV4 { sources: &sources, destinations: &destinations, ports: &ports, protocols: &protocols };
            flows.lay_v4(&mut laid, Rows(asked), &columns);
            for row in Rows(asked) {
                let protocol = protocols[row];
                flows.ask_laid(&mut laid, row, protocol, row as u8);
                let key = FlowKey {
                    src: sources[row].into(),
                    dst: destinations[row].into(),
                    sport: (ports[row] >> 16) as u16,
                    dport: ports[row] as u16,
                    protocol,
                    family: Family::V4,
                };
                flows.ask(&mut single, row, &key, row as u8);
                prop_assert_eq!(laid.key(row), key);
                prop_assert_eq!(laid.steady[row], single.steady[row]);
                let (laid, single) = (laid.get(row), single.get(row));
                prop_assert_eq!((laid.directed(), laid.hash, laid.home), (single.directed(), single.hash, single.home));
            }
        }
    }
}

//! What a batch's packets are looked up by: keys without their ways, and where those belong, in columns.

use packet::{FlowKey, protocol};

use super::index::{Hash, Index};
use super::row::{AllRows, IS_V6, Words, directed, either_way, end_v4, head_v4, key};
use super::{Flows, timeouts};
use crate::Rows;

/// How many rows of plain IPv4 columns are worked on at once.
const CHUNK: usize = 16;

/// Keys hashed once, however often they are looked at. Of a row that nobody has asked about, nothing means anything.
pub struct Probes {
    /// A key's words, without its way: the first, the second, which is the last of an IPv4 key's, and the others.
    heads: [u64; Rows::MOST],
    tails: [u64; Rows::MOST],
    rest: [[u64; 3]; Rows::MOST],
    /// 1 where the packet's source is the higher end of its key, else 0.
    turned: [u64; Rows::MOST],
    hashes: [Hash; Rows::MOST],
    /// What a flow has to be for the packet to change nothing.
    steady: [u16; Rows::MOST],
}

/// One of them.
#[derive(Clone, Copy)]
pub(super) struct Probe<'a> {
    pub(super) head: u64,
    pub(super) tail: u64,
    pub(super) rest: &'a [u64; 3],
    pub(super) turned: u64,
    pub(super) hash: Hash,
    pub(super) steady: u16,
}

impl Default for Probes {
    fn default() -> Probes {
        Probes {
            heads: [0; Rows::MOST],
            tails: [0; Rows::MOST],
            rest: [[0; 3]; Rows::MOST],
            turned: [0; Rows::MOST],
            hashes: [Hash(0); Rows::MOST],
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
            tail: self.tails[row],
            rest: &self.rest[row],
            turned: self.turned[row],
            hash: self.hashes[row],
            steady: self.steady[row],
        }
    }

    /// Lays down the ends of rows' keys, which [`Flows::ask_laid`] then asks about. The columns are of IPv4 packets: addresses,
    /// and ports, the source's in the high half. Rows beside these are overwritten, so it comes before all others of a batch.
    #[inline(never)]
    pub fn lay_v4(
        &mut self,
        rows: Rows,
        sources: &[u32; Rows::MOST],
        destinations: &[u32; Rows::MOST],
        ports: &[u32; Rows::MOST],
    ) {
        for first in (0..Rows::MOST).step_by(CHUNK) {
            if rows.within(Rows::from(first..first + CHUNK)).is_empty() {
                continue;
            }
            // Without a branch, so that it is done with four rows at a time.
            for row in first..first + CHUNK {
                let source = end_v4(sources[row], ports[row] >> 16);
                let destination = end_v4(destinations[row], ports[row] & 0xffff);
                let is_turned = source > destination;
                self.heads[row] = head_v4(if is_turned { destination } else { source });
                self.tails[row] = if is_turned { source } else { destination };
                self.turned[row] = u64::from(is_turned);
            }
        }
    }
}

impl Probe<'_> {
    pub(super) fn words(&self) -> Words {
        let [b, c, d] = if self.head & IS_V6 != 0 { *self.rest } else { [0; 3] };
        [self.head, self.tail, b, c, d]
    }

    pub(super) fn directed(&self) -> Words {
        directed(&self.words(), self.turned != 0)
    }
}

impl Flows {
    /// Asks about a packet; its flow's row is sent for. `tcp_flags`: of TCP only.
    pub fn ask(&self, probes: &mut Probes, row: usize, key: &FlowKey, tcp_flags: u8) {
        let ([head, tail, b, c, d], is_turned) = either_way(key);
        (probes.heads[row], probes.tails[row], probes.rest[row]) = (head, tail, [b, c, d]);
        probes.turned[row] = u64::from(is_turned);
        let hash = self.0.index.hash_either_way(&[head, tail, b, c, d]);
        self.send_for(probes, row, hash, key.protocol, tcp_flags);
    }

    /// [`Flows::ask`] about a row whose ends [`Probes::lay_v4`] has laid down.
    #[inline(always)]
    pub fn ask_laid(&self, probes: &mut Probes, row: usize, protocol: u8, tcp_flags: u8) {
        let head = probes.heads[row] | u64::from(protocol) << 8;
        probes.heads[row] = head;
        let hash = self.0.index.hash_v4(head, probes.tails[row]);
        self.send_for(probes, row, hash, protocol, tcp_flags);
    }

    #[inline(always)]
    fn send_for(&self, probes: &mut Probes, row: usize, hash: Hash, protocol: u8, tcp_flags: u8) {
        let (rows, index): (&AllRows, &Index) = (&self.0.rows, &self.0.index);
        rows.prefetch_near(index.home(hash));
        probes.hashes[row] = hash;
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
            laid.lay_v4(Rows(asked), &sources, &destinations, &ports);
            for row in Rows(asked) {
                let protocol = if row % 3 == 0 { protocol::TCP } else { protocol::UDP };
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
                let (laid, single) = (laid.get(row), single.get(row));
                prop_assert_eq!((laid.directed(), laid.hash, laid.steady), (single.directed(), single.hash, single.steady));
            }
        }
    }
}

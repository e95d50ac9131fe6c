//! Mappings: all flows from one port of a workload leave from one outer port, wherever they go (RFC 4787 REQ-1 for UDP,
//! RFC 5382 REQ-1 for TCP, RFC 5508 REQ-1 for ICMP queries), and no two share an outer port (RFC 4787 REQ-3).
//!
//! A mapping is a row of the table under two keys that no packet has: one names the workload's port and the outer address, the
//! other the outer port. Its flows count themselves in, those from inside to the outer port, too; the last one to go takes
//! it along and gives the port back.
//!
//! Mappings count themselves in a row of their sender's address and protocol, in the same way: no address gets more than its
//! share of the ports.

use std::sync::atomic::Ordering;

use packet::{FlowKey, protocol};

use super::adding::Refused;
use super::row::{Shared, Words, is_shared, shared};
use super::{Flow, FlowTimeouts, Flows, Hash, Life, NotAdded, OuterAddress, Ticks, key, row_and_side};

/// Workers that begin and end flows of one port at the same moment: so often a mapping is looked for again.
const TRIES: u32 = 4;
/// Users of a shared row that is going.
const GOING: u32 = u32::MAX;

/// How an attempt to be counted in ends.
#[derive(PartialEq, Eq)]
enum Joined {
    In,
    Full,
    Gone,
}

/// A mapping that the caller is counted in.
struct Mapping {
    /// Its row, counted from 1; 0 where the protocol has no ports.
    row: u32,
    port: u16,
}

impl Flows {
    /// Adds the flow of a packet that leaves under another source: the outer address, and the port of the sender's
    /// mapping. Protocols without ports keep nothing but their addresses, one flow to each destination.
    ///
    /// # Errors
    /// See [`NotAdded`].
    pub fn add_outgoing(
        &self,
        original: &FlowKey,
        outer: &OuterAddress,
        now: Ticks,
        timeouts: &FlowTimeouts,
    ) -> Result<Flow, NotAdded> {
        let mapping = match has_mapping(original) {
            true => Some(self.mapping(original, outer, now, timeouts)?),
            false => None,
        };
        let port = mapping.as_ref().map_or(0, |mapping| mapping.port);
        let is_icmp = matches!(original.protocol, protocol::ICMP | protocol::ICMPV6);
        let reply = FlowKey {
            src: original.dst,
            dst: outer.address,
            // A query's identifier is both of its ports.
            sport: if is_icmp { port } else { original.dport },
            dport: port,
            ..*original
        };
        let row = mapping.map_or(0, |mapping| mapping.row);
        self.add_counted(original, &reply, [row, 0], now, timeouts)
    }

    /// Adds the flow of a packet from inside to an outer port, where somebody inside has that port (RFC 4787 REQ-9, RFC 5382
    /// REQ-8): the packet gets there under the sender's own outer port. `None`: nobody has it.
    ///
    /// # Errors
    /// See [`NotAdded`]. A workload's port can't talk to itself: request and answer would look the same.
    pub fn add_hairpin(
        &self,
        original: &FlowKey,
        outer: &OuterAddress,
        now: Ticks,
        timeouts: &FlowTimeouts,
    ) -> Result<Option<Flow>, NotAdded> {
        // A query's identifier is no destination.
        let has_ports = matches!(original.protocol, protocol::TCP | protocol::UDP | protocol::SCTP);
        if !has_ports || original.dst != outer.address || !outer.ports.contains(&original.dport) {
            return Ok(None);
        }
        let asked = outer_port(original, original.dst, original.dport);
        let Some(far) = self.join_mapping(&asked, self.0.index.hash(&asked)) else { return Ok(None) };
        let receiver = key(&self.0.rows.row(far.row - 1).words(0));
        let near = match self.mapping(original, outer, now, timeouts) {
            Ok(near) => near,
            Err(not_added) => {
                self.release_shared(far.row);
                return Err(not_added);
            }
        };
        let reply = FlowKey {
            src: receiver.src,
            sport: receiver.sport,
            dst: outer.address,
            dport: near.port,
            ..*original
        };
        self.add_counted(original, &reply, [near.row, far.row], now, timeouts).map(Some)
    }

    /// Adds a flow that is counted in these mappings already.
    fn add_counted(
        &self,
        original: &FlowKey,
        reply: &FlowKey,
        mappings: [u32; 2],
        now: Ticks,
        timeouts: &FlowTimeouts,
    ) -> Result<Flow, NotAdded> {
        let added = self.add_with(original, reply, mappings, now, timeouts);
        if added.is_err() {
            mappings.into_iter().for_each(|mapping| self.release_shared(mapping));
        }
        added
    }

    /// The mapping of the sender's port, made where there is none.
    fn mapping(
        &self,
        original: &FlowKey,
        outer: &OuterAddress,
        now: Ticks,
        timeouts: &FlowTimeouts,
    ) -> Result<Mapping, NotAdded> {
        let (family, protocol) = (original.family, original.protocol);
        let inner = shared(Shared::Inner, &FlowKey { dst: outer.address, dport: 0, ..*original });
        let hash = self.0.index.hash(&inner);
        for _ in 0..TRIES {
            if let Some(mapping) = self.join_mapping(&inner, hash) {
                return Ok(mapping);
            }
            let sender = self.count_port(original, now, timeouts)?;
            // Begun somewhere in the range that another sender's isn't.
            let start = (hash.0 >> 16) as u16;
            let Some(port) = self.0.ports.take(family, protocol, &outer.ports, original.sport, start) else {
                self.release_shared(sender);
                return Err(NotAdded::PortsExhausted);
            };
            let keys = [inner, outer_port(original, outer.address, port)];
            match self.make_shared(&keys, hash, sender, now, timeouts) {
                Ok(row) => return Ok(Mapping { row, port }),
                Err(not_added) => {
                    self.0.ports.give_back(family, protocol, port);
                    self.release_shared(sender);
                    if not_added == NotAdded::Full {
                        return Err(NotAdded::Full);
                    }
                }
            }
        }
        Err(NotAdded::Ambiguous)
    }

    /// Counts one more port of the sender's address; the row that counts, from 1.
    fn count_port(&self, original: &FlowKey, now: Ticks, timeouts: &FlowTimeouts) -> Result<u32, NotAdded> {
        let sender = FlowKey { sport: 0, dst: 0, dport: 0, ..*original };
        let words = shared(Shared::Sender, &sender);
        let hash = self.0.index.hash(&words);
        for _ in 0..TRIES {
            if let Some((found, life)) = self.0.index.find(&self.0.rows, hash, &words) {
                let (number, _) = row_and_side(found);
                match self.join(number, life, self.0.ports_per_address) {
                    Joined::In => return Ok(number + 1),
                    Joined::Full => {
                        self.0.over_share.fetch_add(1, Ordering::Relaxed);
                        return Err(NotAdded::OverShare);
                    }
                    Joined::Gone => {}
                }
            }
            let keys = [words, shared(Shared::SenderToo, &sender)];
            match self.make_shared(&keys, hash, 0, now, timeouts) {
                Err(NotAdded::Ambiguous) => {}
                made => return made,
            }
        }
        Err(NotAdded::Ambiguous)
    }

    /// A row that the caller is counted in, counted from 1. `hash`: the first key's. `counted_in`: the row that it is counted
    /// in itself, alike.
    fn make_shared(
        &self,
        keys: &[Words; 2],
        hash: Hash,
        counted_in: u32,
        now: Ticks,
        timeouts: &FlowTimeouts,
    ) -> Result<u32, NotAdded> {
        let number = self.take_row(hash, now, timeouts).ok_or(NotAdded::Full)?;
        let row = self.0.rows.row(number);
        row.set_mappings([counted_in, 0]);
        row.far.uses.store(u64::from(row.life().generation()) << 32 | 1, Ordering::Relaxed);
        let hashes = [hash, self.0.index.hash(&keys[1])];
        match self.link(number, keys, hashes, Life::LIVE | Life::MAPPING | Life::FAR, now) {
            Ok(_) => Ok(number + 1),
            Err(Refused::Known(_) | Refused::Ambiguous) => {
                row.set_mappings([0; 2]);
                self.give_row(number);
                Err(NotAdded::Ambiguous)
            }
        }
    }

    /// The mapping with this key, the caller counted in, unless there is none or it is going.
    fn join_mapping(&self, words: &Words, hash: Hash) -> Option<Mapping> {
        let (found, life) = self.0.index.find(&self.0.rows, hash, words)?;
        let (number, _) = row_and_side(found);
        // Counted in, so the row stays what it is.
        let joined = self.join(number, life, GOING - 1) == Joined::In;
        joined.then(|| Mapping { row: number + 1, port: key(&self.0.rows.row(number).words(1)).dport })
    }

    /// Counts the caller in, unless there are so many already, or the row is going or gone.
    fn join(&self, number: u32, life: Life, most: u32) -> Joined {
        let row = self.0.rows.row(number);
        let mut uses = row.far.uses.load(Ordering::Acquire);
        loop {
            if (uses >> 32) as u16 != life.generation() || uses as u32 == GOING {
                return Joined::Gone;
            }
            if uses as u32 >= most {
                return Joined::Full;
            }
            match row.far.uses.compare_exchange_weak(uses, uses + 1, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return Joined::In,
                Err(changed) => uses = changed,
            }
        }
    }

    /// Counts a user out; the last one removes the row. `shared`: the row, counted from 1; 0 is none.
    pub(super) fn release_shared(&self, shared: u32) {
        let Some(number) = shared.checked_sub(1) else { return };
        let row = self.0.rows.row(number);
        let mut uses = row.far.uses.load(Ordering::Acquire);
        loop {
            let left = match uses as u32 {
                1 => uses | u64::from(GOING),
                _ => uses - 1,
            };
            match row.far.uses.compare_exchange_weak(uses, left, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) if left as u32 != GOING => return,
                Ok(_) => break,
                Err(changed) => uses = changed,
            }
        }
        let second = row.words(1);
        let removed = self.remove(number, row.life());
        debug_assert!(removed, "only its last user removes a shared row");
        if is_shared(Shared::Outer, &second) {
            let outer = key(&second);
            self.0.ports.give_back(outer.family, outer.protocol, outer.dport);
        }
    }
}

/// Does a flow with this key leave from a port, or an identifier, of its sender's mapping?
pub(crate) fn has_mapping(original: &FlowKey) -> bool {
    match original.protocol {
        protocol::TCP | protocol::UDP | protocol::SCTP => true,
        // Without an identifier in sight: other messages than queries.
        protocol::ICMP | protocol::ICMPV6 => original.sport != 0 || original.dport != 0,
        _ => false,
    }
}

/// The key of the mapping that has an outer port, of the family and protocol of `like`.
fn outer_port(like: &FlowKey, address: u128, port: u16) -> Words {
    shared(Shared::Outer, &FlowKey { src: 0, sport: 0, dst: address, dport: port, ..*like })
}

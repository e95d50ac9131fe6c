//! Mappings: all flows from one port of a workload leave from one outer port, wherever they go (RFC 4787 REQ-1 for UDP,
//! RFC 5382 REQ-1 for TCP, RFC 5508 REQ-1 for ICMP queries), and no two share an outer port (RFC 4787 REQ-3).
//!
//! A mapping is a row of the table under two keys that no packet has: one names the workload's port and the outer address, the
//! other the outer port. Its flows count themselves in, those from inside to the outer port, too; the last one to go takes
//! it along and gives the port back.

use std::sync::atomic::Ordering;

use packet::{FlowKey, protocol};

use super::row::{Shared, Words, shared};
use super::{Flow, FlowTimeouts, Flows, Life, NotAdded, OuterAddress, Refused, Ticks, key, row_and_side};

/// Workers that begin and end flows of one port at the same moment: so often a mapping is looked for again.
const TRIES: u32 = 4;
/// Users of a mapping that is going.
const GOING: u32 = u32::MAX;

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
        let Some((found, life)) = self.0.index.find(&self.0.rows, &asked) else { return Ok(None) };
        let Some(far) = self.join_mapping(row_and_side(found).0, life) else { return Ok(None) };
        let receiver = key(&self.0.rows[far.row as usize - 1].words(0));
        let near = match self.mapping(original, outer, now, timeouts) {
            Ok(near) => near,
            Err(not_added) => {
                self.release_mapping(far.row);
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
            mappings.into_iter().for_each(|mapping| self.release_mapping(mapping));
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
        let forward = shared(Shared::Inner, &FlowKey { dst: outer.address, dport: 0, ..*original });
        for _ in 0..TRIES {
            if let Some((found, life)) = self.0.index.find(&self.0.rows, &forward)
                && let Some(mapping) = self.join_mapping(row_and_side(found).0, life)
            {
                return Ok(mapping);
            }
            // Begun somewhere in the range that another sender's isn't.
            let start = (self.0.index.bucket(&forward) >> 3) as u16;
            let port = (self.0.ports.take(family, protocol, &outer.ports, original.sport, start))
                .ok_or(NotAdded::PortsExhausted)?;
            match self.make_mapping(&forward, outer, port, now, timeouts) {
                Ok(mapping) => return Ok(mapping),
                Err(not_added) => {
                    self.0.ports.give_back(family, protocol, port);
                    if not_added == NotAdded::Full {
                        return Err(NotAdded::Full);
                    }
                }
            }
        }
        Err(NotAdded::Ambiguous)
    }

    fn make_mapping(
        &self,
        forward: &Words,
        outer: &OuterAddress,
        port: u16,
        now: Ticks,
        timeouts: &FlowTimeouts,
    ) -> Result<Mapping, NotAdded> {
        let number = self.take_row(now, timeouts).ok_or(NotAdded::Full)?;
        let row = &self.0.rows[number as usize];
        let backward = outer_port(&key(forward), outer.address, port);
        let uses = u64::from(row.life().generation()) << 32 | 1;
        row.uses.store(uses, Ordering::Relaxed);
        match self.link(number, &[*forward, backward], Life::LIVE | Life::MAPPING, now) {
            Ok(_) => Ok(Mapping { row: number + 1, port }),
            Err(Refused::Known(_) | Refused::Ambiguous) => {
                self.give_row(number);
                Err(NotAdded::Ambiguous)
            }
        }
    }

    /// Counts the caller in, unless the mapping is going or gone.
    fn join_mapping(&self, number: u32, life: Life) -> Option<Mapping> {
        let row = &self.0.rows[number as usize];
        let mut uses = row.uses.load(Ordering::Acquire);
        loop {
            if (uses >> 32) as u16 != life.generation() || uses as u32 >= GOING - 1 {
                return None;
            }
            match row.uses.compare_exchange_weak(uses, uses + 1, Ordering::AcqRel, Ordering::Acquire) {
                // Counted in, so the row stays what it is.
                Ok(_) => return Some(Mapping { row: number + 1, port: key(&row.words(1)).dport }),
                Err(changed) => uses = changed,
            }
        }
    }

    /// Counts a flow out; the last one removes the mapping. `mapping`: its row, counted from 1; 0 is none.
    pub(super) fn release_mapping(&self, mapping: u32) {
        let Some(number) = mapping.checked_sub(1) else { return };
        let row = &self.0.rows[number as usize];
        let mut uses = row.uses.load(Ordering::Acquire);
        loop {
            let left = match uses as u32 {
                1 => uses | u64::from(GOING),
                _ => uses - 1,
            };
            match row.uses.compare_exchange_weak(uses, left, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) if left as u32 != GOING => return,
                Ok(_) => break,
                Err(changed) => uses = changed,
            }
        }
        let backward = key(&row.words(1));
        let removed = self.remove(number, row.life());
        debug_assert!(removed, "only its last user removes a mapping");
        self.0.ports.give_back(backward.family, backward.protocol, backward.dport);
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

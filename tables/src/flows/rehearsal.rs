//! A table of flows beside the real one, with what concerns one packet: a packet that is made up meets the flow that it would
//! meet, and changes nothing of it.

use std::sync::atomic::Ordering;

use packet::FlowKey;

use super::row::{Shared, shared};
use super::{Beginning, Flows, Life, OuterAddress, Row, Ticks, row_and_side, words};

/// Rows of such a table: the flow, the mapping of its sender's port, and what a packet may begin.
const ROWS: usize = 16;

impl Flows {
    /// A small table with the same time, the same counts of connections and ports, the flows that these keys find, and the
    /// outer port that the keys' senders have at `outer`. How full the real one is it doesn't know.
    #[must_use]
    pub fn rehearsal(&self, keys: &[FlowKey], outer: Option<&OuterAddress>) -> Flows {
        let mut table = Flows::with_share(ROWS, self.0.ports_per_address);
        if let Some(copy) = std::sync::Arc::get_mut(&mut table.0) {
            copy.made = self.0.made;
            copy.ports = self.0.ports.copied();
            copy.connections = self.0.connections.copied();
        }
        for key in keys {
            self.copy(&words(key), &table);
            if let Some(outer) = outer {
                let inner = FlowKey { dst: outer.address, dport: 0, ..*key };
                self.copy(&shared(Shared::Inner, &inner), &table);
            }
        }
        table
    }

    /// Copies the row that is found by some words, if there is one.
    fn copy(&self, asked: &super::Words, to: &Flows) {
        let found = self.0.index.find(&self.0.rows, self.0.index.hash(asked), asked);
        let Some((found, life)) = found else { return };
        let row = self.0.rows.row(row_and_side(found).0);
        let keys = row.both(life);
        if row.life().generation() != life.generation() {
            return;
        }
        let hashes = keys.each_ref().map(|key| to.0.index.hash(key));
        let Some(number) = to.0.free.take(to.0.index.home(hashes[0])) else { return };
        let copy = to.0.rows.row(number);
        copy.write(&Beginning::default(), Life::FAR);
        let (flags, seen) = (life.flags() | Life::FAR, Ticks(life.seen()));
        let linked = match life.has(Life::PLAIN) {
            true => to.link_plain(number, &keys[0], hashes[0], flags, seen),
            false => to.link(number, &keys, hashes, flags, seen),
        };
        match linked {
            Ok(new) => copy_what_is_known(row, life, copy, new),
            // Two keys of one flow.
            Err(_) => to.give_row(number),
        }
    }
}

/// What stands beside a row's keys. Generations differ, and are part of some words.
fn copy_what_is_known(row: Row<'_>, life: Life, copy: Row<'_>, new: Life) {
    let verdict = super::FlowVerdict::of_word(row.near.verdict_word(), life.generation());
    copy.near.verdict.store(verdict.word(new.generation()), Ordering::Relaxed);
    copy.far.icmp.store(row.far.icmp.load(Ordering::Relaxed), Ordering::Relaxed);
    // One user more than there are, so that the mapping stays whatever ends.
    copy.far.uses.store(u64::from(new.generation()) << 32 | 1, Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Between, FlowTime, FlowTimeouts, FlowVerdict};
    use model::{Family, PortId};

    const NOW: Ticks = Ticks(1000);

    fn key(sport: u16) -> FlowKey {
        FlowKey { src: 1, dst: 2, sport, dport: 80, protocol: 17, family: Family::V4 }
    }

    #[test]
    fn a_known_flow_is_known_there_and_what_happens_there_stays_there() {
        let (flows, timeouts) = (Flows::new(64), FlowTimeouts::default());
        let flow = flows.add(&key(1), &key(1).reversed(), NOW, &timeouts).unwrap();
        let verdict = FlowVerdict::allowed(7, Between { egress: Some(PortId(3)), ingress: None });
        flows.begin(&flow, &Beginning { verdict, ..Beginning::default() });
        for asked in [key(1), key(1).reversed()] {
            let there = flows.rehearsal(&[asked], None);
            let found = there.look_up(&asked, NOW, &timeouts).unwrap();
            assert_eq!(found.verdict, verdict);
            assert_eq!(found.direction, flows.look_up(&asked, NOW, &timeouts).unwrap().direction);
            there.judge(&found, FlowVerdict::NONE);
            there.touch(&found, 4, &FlowTime::new(Ticks(5000), &timeouts));
            there.add(&key(2), &key(2).reversed(), NOW, &timeouts).unwrap();
        }
        assert_eq!(flows.look_up(&key(1), NOW, &timeouts).unwrap().verdict, verdict);
        assert_eq!(flows.look_up(&key(2), NOW, &timeouts), None);
        assert_eq!(flows.counts().in_use, 1);
        assert_eq!(flows.rehearsal(&[key(2)], None).look_up(&key(2), NOW, &timeouts), None);
    }

    #[test]
    fn a_senders_port_keeps_its_outer_port_and_others_find_theirs_taken() {
        let (flows, timeouts) = (Flows::new(64), FlowTimeouts::default());
        let outer = OuterAddress { address: 99, ports: 4000..=4001 };
        let real = flows.add_outgoing(&key(4000), &outer, NOW, &timeouts).unwrap();
        let elsewhere = FlowKey { dst: 3, ..key(4000) };
        let there = flows.rehearsal(&[elsewhere], Some(&outer));
        let planned = there.add_outgoing(&elsewhere, &outer, NOW, &timeouts).unwrap();
        assert_eq!(planned.translated().sport, real.translated().sport);
        let other = FlowKey { src: 5, ..key(4000) };
        let there = flows.rehearsal(&[other], Some(&outer));
        let planned = there.add_outgoing(&other, &outer, NOW, &timeouts).unwrap();
        assert_ne!(planned.translated().sport, real.translated().sport);
        assert_eq!(flows.counts().ports, 1);
    }
}

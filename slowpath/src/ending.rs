//! Ends flows whose reason is gone: a rule of translation that has changed, a workload that went away.
//!
//! As Felix does with the kernel's (felix/conntrack, `RemoveConntrackFlows`), but for rules, too: the next packet of such a
//! flow is judged like a first one. After the walk has the new rules and routes, all rows are looked at once, some at each
//! turn of the loop; a change that comes meanwhile begins another round. No packet waits for it.

use std::net::IpAddr;

use ahash::AHashSet;
use packet::FlowKey;
use tables::{Flows, Nat};
use tracing::info;

use crate::calico::Desired;
use crate::event_loop::Core;

/// Rows looked at in one turn: some tenths of a millisecond. The default table takes 16 turns, of a millisecond each.
const ROWS: usize = 16_384;

/// What is to end, and how far that has come.
#[derive(Default)]
pub(crate) struct Endings {
    /// Addresses that were local workloads'.
    gone: AHashSet<IpAddr>,
    /// The row to look at next, and how many are left.
    next: usize,
    left: usize,
    /// No row was looked at since the last change.
    fresh: bool,
    ended: usize,
}

impl Endings {
    /// Rules have changed, or these addresses are gone: all rows are to be looked at, once every worker knows.
    fn begin(&mut self, gone: impl IntoIterator<Item = IpAddr>, flows: &Flows) {
        self.gone.extend(gone);
        self.left = flows.counts().size;
        self.fresh = true;
    }

    /// Looks at some rows.
    fn step(&mut self, flows: &Flows, nat: &Nat) {
        let size = flows.counts().size;
        let count = ROWS.min(self.left).min(size - self.next);
        let gone =
            |key: &FlowKey| self.gone.contains(&key.source()) || self.gone.contains(&key.destination());
        let has_ended = |original: &FlowKey, reply: &FlowKey| {
            let of_gone = !self.gone.is_empty() && (gone(original) || gone(reply));
            of_gone || !nat.upholds(original, reply)
        };
        self.ended += flows.end(self.next..self.next + count, has_ended);
        self.next = (self.next + count) % size;
        self.left -= count;
        if self.left == 0 {
            self.gone.clear();
        }
    }
}

impl Core {
    /// What is translated has changed.
    pub(crate) fn end_untranslated_flows(&mut self) {
        self.endings.begin([], &self.flows);
    }

    /// The resources were others before.
    pub(crate) fn end_flows_of_gone_workloads(&mut self, before: &Desired) {
        let gone: Vec<IpAddr> = gone(before, &self.desired).collect();
        if !gone.is_empty() {
            self.endings.begin(gone, &self.flows);
        }
    }

    /// Goes on ending flows, where there are any to end. The tables must be in line with the change.
    pub(crate) fn end_flows(&mut self) {
        if self.endings.left == 0 {
            return;
        }
        let writer = self.installer.writer();
        if std::mem::take(&mut self.endings.fresh) {
            // A worker with the tables from before could still begin such a flow behind us.
            writer.wait_for_readers();
        }
        self.endings.step(&self.flows, &writer.staged().nat);
        if self.endings.left == 0 && self.endings.ended > 0 {
            let ended = std::mem::take(&mut self.endings.ended);
            info!(ended, "flows ended with the rules or workloads that they came from");
        }
    }
}

/// Addresses whose workload is gone, has lost them, or is at another interface.
fn gone<'a>(before: &'a Desired, after: &'a Desired) -> impl Iterator<Item = IpAddr> + 'a {
    before.endpoints.iter().flat_map(|(name, endpoint)| {
        let now = after.endpoints.get(name).filter(|now| now.interface == endpoint.interface);
        let kept = move |address| now.is_some_and(|now| now.ip_networks.contains(address));
        endpoint.ip_networks.iter().filter(move |address| !kept(*address)).map(|address| address.addr())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::{Family, IpNat, Resource, Update, WorkloadEndpoint};
    use std::sync::Arc;
    use tables::{FlowTimeouts, NatRules, OuterAddress, Ticks};

    const OUTER: &str = "172.18.0.2";

    fn address(text: &str) -> u128 {
        text.parse::<std::net::Ipv4Addr>().map(u32::from).unwrap().into()
    }

    fn key(src: &str, sport: u16, dst: &str, dport: u16) -> FlowKey {
        FlowKey { src: address(src), sport, dst: address(dst), dport, protocol: 17, family: Family::V4 }
    }

    fn rules() -> NatRules {
        let floating =
            IpNat { internal: "10.65.0.3".parse().unwrap(), external: "198.51.100.3".parse().unwrap() };
        NatRules {
            outgoing: vec![(OUTER.parse().unwrap(), 50_000..=59_999, true)],
            sources: vec!["10.65.0.0/16".parse().unwrap(), "10.66.0.0/16".parse().unwrap()],
            exempt: vec!["10.65.0.0/16".parse().unwrap(), "10.66.0.0/16".parse().unwrap()],
            floating: vec![floating],
            ..NatRules::default()
        }
    }

    /// Flows of each kind: out of either pool, a hairpin from the first into the second, to a floating IP, untranslated.
    fn flows() -> Flows {
        let flows = Flows::new(3 * ROWS);
        let outer = OuterAddress { address: address(OUTER), ports: 50_000..=59_999 };
        let (now, timeouts) = (Ticks(0), FlowTimeouts::default());
        for sender in ["10.65.0.2", "10.66.0.2"] {
            flows.add_outgoing(&key(sender, 50_053, "192.0.2.1", 53), &outer, now, &timeouts).unwrap();
        }
        let to_second = flows.rows().find(|flow| flow.original.src == address("10.66.0.2")).unwrap();
        let hairpin = key("10.65.0.2", 5_000, OUTER, to_second.reply.dport);
        assert!(flows.add_hairpin(&hairpin, &outer, now, &timeouts).unwrap().is_some());
        let to_floating = key("192.0.2.9", 1_000, "198.51.100.3", 53);
        let answer = key("10.65.0.3", 53, "192.0.2.9", 1_000);
        flows.add(&to_floating, &answer, now, &timeouts).unwrap();
        let plain = key("10.65.0.2", 7, "10.65.1.2", 7);
        flows.add(&plain, &plain.reversed(), now, &timeouts).unwrap();
        flows
    }

    /// The senders of the flows that are left after a change.
    fn left_after(rules: &NatRules, gone: &[&str]) -> Vec<String> {
        let flows = flows();
        let mut endings = Endings::default();
        endings.begin(gone.iter().map(|text| text.parse().unwrap()), &flows);
        let mut turns = 0;
        while endings.left > 0 {
            endings.step(&flows, &Nat::new(rules));
            turns += 1;
        }
        assert_eq!(turns, 3, "{ROWS} rows a turn");
        let mut left: Vec<String> =
            flows.rows().map(|flow| format!("{} {}", flow.original.source(), flow.original.dport)).collect();
        left.sort();
        left
    }

    #[test]
    fn rules_that_are_as_they_were_end_nothing() {
        assert_eq!(left_after(&rules(), &[]).len(), 5);
    }

    #[test]
    fn a_pool_that_is_no_longer_translated_ends_its_own_flows_and_those_to_its_outer_ports() {
        let sources = vec!["10.65.0.0/16".parse().unwrap()];
        let left = left_after(&NatRules { sources, ..rules() }, &[]);
        assert_eq!(left, ["10.65.0.2 53", "10.65.0.2 7", "192.0.2.9 53"]);
    }

    #[test]
    fn another_outer_address_or_other_ports_end_all_flows_of_the_old_ones() {
        for (address, ports) in [("192.0.2.77", 50_000..=59_999), (OUTER, 60_000..=60_999)] {
            let outgoing = vec![(address.parse().unwrap(), ports, true)];
            let left = left_after(&NatRules { outgoing, ..rules() }, &[]);
            assert_eq!(left, ["10.65.0.2 7", "192.0.2.9 53"]);
        }
        assert_eq!(left_after(&NatRules::default(), &[]), ["10.65.0.2 7"]);
    }

    #[test]
    fn a_destination_that_sees_the_true_source_now_ends_the_flows_to_it() {
        let exempt = vec!["192.0.2.0/24".parse().unwrap()];
        assert_eq!(left_after(&NatRules { exempt, ..rules() }, &[]).len(), 3);
    }

    #[test]
    fn a_floating_ip_that_moves_or_goes_ends_the_flows_to_it() {
        let moved = IpNat { internal: "10.65.0.9".parse().unwrap(), ..rules().floating[0] };
        for floating in [vec![moved], vec![]] {
            let left = left_after(&NatRules { floating, ..rules() }, &[]);
            assert!(left.len() == 4 && !left.contains(&"192.0.2.9 53".to_owned()), "{left:?}");
        }
    }

    #[test]
    fn a_workload_that_is_gone_ends_its_flows_whichever_end_it_was() {
        assert_eq!(left_after(&rules(), &["10.66.0.2"]), ["10.65.0.2 53", "10.65.0.2 7", "192.0.2.9 53"]);
        assert_eq!(left_after(&rules(), &["10.65.0.3"]).len(), 4);
        assert_eq!(left_after(&rules(), &["10.65.0.2"]), ["10.66.0.2 53", "192.0.2.9 53"]);
        assert_eq!(left_after(&rules(), &["10.65.1.2"]).len(), 4, "untranslated ones, too");
    }

    #[test]
    fn a_change_in_the_middle_of_a_round_begins_another() {
        let flows = flows();
        let mut endings = Endings::default();
        endings.begin([], &flows);
        endings.step(&flows, &Nat::new(&rules()));
        endings.begin(["10.65.1.2".parse().unwrap()], &flows);
        (0..3).for_each(|_| endings.step(&flows, &Nat::new(&rules())));
        assert_eq!((endings.left, endings.ended), (0, 1));
        assert!(endings.gone.is_empty());
    }

    #[test]
    fn an_address_is_gone_with_its_workload_or_when_it_moves() {
        let desired = |workloads: &[(&str, &str, &str)]| {
            let mut calico = crate::calico::Calico::new("here");
            for (name, interface, address) in workloads {
                let endpoint = WorkloadEndpoint {
                    name: (*name).to_owned(),
                    node: "here".to_owned(),
                    interface: (*interface).to_owned(),
                    ip_networks: vec![address.parse().unwrap()],
                    ..WorkloadEndpoint::default()
                };
                calico.apply(&Update::Put(Arc::new(Resource::WorkloadEndpoint(endpoint))));
            }
            calico.desired()
        };
        let before = desired(&[("w1", "cali1", "10.65.0.1/32"), ("w2", "cali2", "10.65.0.2/32")]);
        let gone_to = |after: &[_]| {
            let mut gone: Vec<_> =
                gone(&before, &desired(after)).map(|address| address.to_string()).collect();
            gone.sort();
            gone
        };
        assert!(gone_to(&[("w1", "cali1", "10.65.0.1/32"), ("w2", "cali2", "10.65.0.2/32")]).is_empty());
        assert_eq!(gone_to(&[("w2", "cali2", "10.65.0.2/32")]), ["10.65.0.1"]);
        let reused = [("w2", "cali2", "10.65.0.2/32"), ("w3", "cali3", "10.65.0.1/32")];
        assert_eq!(gone_to(&reused), ["10.65.0.1"], "its next owner inherits nothing");
        let moved = [("w1", "cali9", "10.65.0.1/32"), ("w2", "cali2", "10.65.0.3/32")];
        assert_eq!(gone_to(&moved), ["10.65.0.1", "10.65.0.2"]);
    }
}

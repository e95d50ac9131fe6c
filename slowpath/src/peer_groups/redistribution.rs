//! Routes of the box's own that peers are told besides blocks and workloads: its networks, and what its kernel's table holds.
//!
//! Calico's BIRD knows them all (its protocols `direct` and `kernel`), and tells what lies in a pool or a BGPFilter accepts. Here
//! `bgp.redistribute` tells all of a kind, and a pool or a BGPFilter what it names.

use std::collections::BTreeMap;

use model::Prefix;

use crate::calico::Desired;
use crate::interfaces::KernelState;
use crate::offers::{self, Offers, Roles};
use crate::rib::Source;
use crate::sessions::filters;

/// Most routes that are told so, of each sort; each is asked of every route that a peer may be told.
pub(crate) const REDISTRIBUTED: usize = 1024;
/// Interfaces whose networks Calico never announces: those of workloads, and where kube-proxy keeps addresses of services.
const NEVER: [&str; 2] = ["cali*", "kube-ipvs*"];

/// Where routes come from that can be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Redistribute {
    /// Networks that this box has an address in, single addresses among them: a loopback's.
    Connected,
    /// Routes that somebody wrote into the kernel's table (`proto static` or `boot`).
    Static,
    /// Routes that other programs put there.
    Kernel,
}

/// What there is to tell, in order of prefixes: whence, and the interface of a network. A default route is promised by
/// `default_route`, never told in passing.
pub(crate) struct OwnRoutes(BTreeMap<(Prefix, Redistribute), String>);

impl OwnRoutes {
    pub(crate) fn of(kernel: &KernelState, roles: &Roles, offers: &Offers, desired: &Desired) -> OwnRoutes {
        let is_ignored = |name: &str| {
            let ignored = desired.ignored_interfaces.iter().map(String::as_str);
            NEVER.into_iter().chain(ignored).any(|pattern| filters::is_like(name, pattern))
        };
        let mut own = BTreeMap::new();
        for address in offers::local_addresses(kernel, roles) {
            let link = kernel.links.iter().find(|link| link.ifindex == address.ifindex);
            if let Some(link) = link.filter(|link| link.up && !is_ignored(&link.name)) {
                own.insert((address.addr.network(), Redistribute::Connected), link.name.clone());
            }
        }
        for (prefix, source) in offers.keys() {
            let kind = match source {
                Source::Static => Redistribute::Static,
                Source::Kernel => Redistribute::Kernel,
                _ => continue,
            };
            own.insert((*prefix, kind), String::new());
        }
        own.retain(|(prefix, _), _| prefix.len() > 0);
        OwnRoutes(own)
    }

    /// All of these kinds: the first, if they are too many. What is of several is of the first of them.
    pub(crate) fn redistributed(&self, kinds: &[Redistribute]) -> BTreeMap<Prefix, Redistribute> {
        let mut told = BTreeMap::new();
        for (prefix, kind) in self.0.keys().filter(|(_, kind)| kinds.contains(kind)) {
            if told.len() < REDISTRIBUTED {
                told.entry(*prefix).or_insert(*kind);
            }
        }
        told
    }

    /// Of the others those in pools that are exported, and those that a BGPFilter names; within our blocks none is announced.
    /// What another daemon put into the kernel's table gives way to BGP's routes, so it isn't among them.
    pub(crate) fn named(
        &self,
        desired: &Desired,
        redistributed: &BTreeMap<Prefix, Redistribute>,
    ) -> BTreeMap<Prefix, String> {
        let is_named = |prefix: Prefix, interface: &str| {
            let pools = desired.pools.values().filter(|pool| !pool.disable_bgp_export);
            let in_pool = pools.into_iter().any(|pool| pool.cidr.covers(prefix));
            let in_block = || desired.blocks.iter().any(|block| block.covers(prefix));
            (in_pool && !in_block())
                || desired.naming_rules.iter().any(|rule| filters::names(rule, prefix, interface))
        };
        (self.0.iter())
            .filter(|((prefix, kind), _)| {
                *kind != Redistribute::Kernel && !redistributed.contains_key(prefix)
            })
            .filter(|((prefix, _), interface)| is_named(*prefix, interface))
            .map(|((prefix, _), interface)| (*prefix, interface.clone()))
            .take(REDISTRIBUTED)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use model::{
        BgpConfiguration, BgpFilter, BgpFilterCidr, BgpFilterOperator, BgpFilterRule, EncapMode, IfIndex,
        IpPool, MacAddr, Resource, Update,
    };

    use super::*;
    use crate::calico::Calico;
    use crate::interfaces::{Address, Link, Scope};
    use crate::target::Target;

    /// A box with an uplink, a loopback, a port of a workload, and routes of all kinds.
    fn own(desired: &Desired) -> OwnRoutes {
        let mut kernel = KernelState::default();
        for (number, name, up, addresses) in [
            (1, "lo", true, &["127.0.0.1/8", "172.31.20.2/32", "fd31::2/128"][..]),
            (2, "eth0", true, &["10.1.0.1/24", "fe80::1/64"]),
            (3, "eth1", false, &["10.2.0.1/24"]),
            (4, "cali1", true, &["10.3.0.1/24"]),
            (5, "kube-ipvs0", true, &["10.96.0.1/32"]),
            (6, "storage0", true, &["10.4.0.1/24"]),
        ] {
            let ifindex = IfIndex(number);
            kernel.links.push(Link {
                ifindex,
                name: name.to_owned(),
                mac: MacAddr([2, 0, 0, 0, 0, number as u8]),
                mtu: 1500,
                up,
                kind: None,
                peer: None,
                peer_netns: None,
                num_rx_queues: 1,
            });
            let address =
                |text: &&str| Address { ifindex, addr: text.parse().unwrap(), scope: Scope::Global };
            kernel.addresses.extend(addresses.iter().map(address));
        }
        let roles =
            Roles { uplinks: vec!["eth0".to_owned()], workload_prefix: "cali".to_owned(), host: None };
        let mut offers = Offers::new();
        for (prefix, source) in [
            ("10.1.0.0/24", Source::Connected),
            ("10.1.0.255/32", Source::Connected),
            ("10.1.0.1/32", Source::Local),
            ("10.5.0.0/24", Source::Static),
            ("10.6.0.0/24", Source::Kernel),
            ("0.0.0.0/0", Source::Static),
        ] {
            offers.insert((prefix.parse().unwrap(), source), (Target::Blackhole, 0));
        }
        OwnRoutes::of(&kernel, &roles, &offers, desired)
    }

    fn texts<'a>(prefixes: impl IntoIterator<Item = &'a Prefix>) -> Vec<String> {
        prefixes.into_iter().map(ToString::to_string).collect()
    }

    #[test]
    fn only_what_was_asked_for_is_told_and_never_a_default_route() {
        let own = own(&Calico::new("a").desired());
        let told = |kinds: &[Redistribute]| texts(own.redistributed(kinds).keys());
        assert_eq!(told(&[]), [""; 0]);
        assert_eq!(
            told(&[Redistribute::Connected]),
            ["10.1.0.0/24", "10.4.0.0/24", "172.31.20.2/32", "fd31::2/128"],
            "a loopback's address, no broadcast address, nothing of what is down or Calico's"
        );
        assert_eq!(told(&[Redistribute::Static, Redistribute::Kernel]), ["10.5.0.0/24", "10.6.0.0/24"]);
    }

    fn desired(rules: Vec<BgpFilterRule>, ignored: &[&str], pools: &[(&str, bool)]) -> Desired {
        let mut calico = Calico::new("a");
        let mut put = |resource| calico.apply(&Update::Put(Arc::new(resource)));
        put(Resource::BgpFilter(BgpFilter {
            name: "f".to_owned(),
            export_v4: rules,
            ..BgpFilter::default()
        }));
        put(Resource::BgpConfiguration(BgpConfiguration {
            name: "default".to_owned(),
            ignored_interfaces: ignored.iter().map(ToString::to_string).collect(),
            ..BgpConfiguration::default()
        }));
        for (cidr, disable_bgp_export) in pools {
            put(Resource::IpPool(IpPool {
                name: (*cidr).to_owned(),
                cidr: cidr.parse().unwrap(),
                ipip_mode: EncapMode::Never,
                vxlan_mode: EncapMode::Never,
                nat_outgoing: false,
                disabled: false,
                disable_bgp_export: *disable_bgp_export,
            }));
        }
        calico.desired()
    }

    fn accept(cidr: Option<(&str, BgpFilterOperator)>, interface: Option<&str>) -> BgpFilterRule {
        BgpFilterRule {
            accept: true,
            cidr: cidr.map(|(cidr, operator)| BgpFilterCidr {
                cidr: cidr.parse().unwrap(),
                operator,
                lengths: None,
            }),
            from_peers: false,
            interface: interface.map(str::to_owned),
            internal_peer: None,
            community: None,
            as_path_prefix: Vec::new(),
            priority: None,
            operations: Vec::new(),
        }
    }

    fn named(desired: &Desired) -> Vec<String> {
        texts(own(desired).named(desired, &BTreeMap::new()).keys())
    }

    #[test]
    fn a_filter_names_what_it_accepts_by_network_or_interface() {
        use BgpFilterOperator::{Equal, In, NotIn};
        let named = |rule| named(&desired(vec![rule], &[], &[]));
        assert_eq!(named(accept(Some(("172.31.20.0/24", In)), None)), ["172.31.20.2/32"]);
        assert_eq!(named(accept(Some(("172.31.20.0/24", Equal)), None)), [""; 0]);
        assert_eq!(
            named(accept(Some(("10.0.0.0/8", In)), None)),
            ["10.1.0.0/24", "10.4.0.0/24", "10.5.0.0/24"]
        );
        assert_eq!(named(accept(None, Some("lo"))), ["172.31.20.2/32", "fd31::2/128"]);
        assert_eq!(named(accept(Some(("10.0.0.0/8", In)), Some("eth*"))), ["10.1.0.0/24"]);
        for nothing in [
            accept(None, None),
            accept(Some(("10.9.0.0/16", NotIn)), None),
            BgpFilterRule { accept: false, ..accept(Some(("10.0.0.0/8", In)), None) },
            BgpFilterRule { from_peers: true, ..accept(Some(("10.0.0.0/8", In)), None) },
        ] {
            assert_eq!(named(nothing.clone()), [""; 0], "{nothing:?}");
        }
    }

    #[test]
    fn what_lies_in_a_pool_is_told_unless_the_pool_or_its_interface_is_kept_back() {
        assert_eq!(named(&desired(Vec::new(), &[], &[("10.4.0.0/16", false)])), ["10.4.0.0/24"]);
        assert_eq!(named(&desired(Vec::new(), &[], &[("10.4.0.0/16", true)])), [""; 0]);
        assert_eq!(named(&desired(Vec::new(), &["stor*"], &[("10.4.0.0/16", false)])), [""; 0]);
    }

    #[test]
    fn what_is_redistributed_isnt_named_besides() {
        let desired = desired(Vec::new(), &[], &[("10.0.0.0/8", false)]);
        let own = own(&desired);
        let redistributed = own.redistributed(&[Redistribute::Connected]);
        assert_eq!(texts(own.named(&desired, &redistributed).keys()), ["10.5.0.0/24"]);
    }
}

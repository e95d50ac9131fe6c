//! What is translated: Calico's resources and the host's addresses, as rules for the walk.
//!
//! The node's own address is shared with the kernel: the uplinks' programs give the walk what comes to the ports set aside for
//! translated flows, and the kernel is told not to choose those for its own sockets. What belongs to no flow after all
//! goes on to the kernel by the host port.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::ops::RangeInclusive;

use model::{Family, NatOutgoingExclusions, Prefix, WorkloadEndpoint};
use tables::{FlowTimeouts, Nat, NatRules};
use tracing::{info, warn};

use crate::calico::Desired;
use crate::event_loop::Core;
use crate::host_port::KERNEL_SIDE;
use crate::privileges::raised;
use crate::{offers, sysctl};

/// Ports for translated flows on an address that the host has, too: the dynamic ports of RFC 6335, the upper half of those
/// that Linux chooses from.
const BESIDE_THE_HOST: RangeInclusive<u16> = 49_152..=65_535;
/// Ports for translated flows on an address of their own (RFC 4787 REQ-3: not the well-known ones).
const ALONE: RangeInclusive<u16> = 1_024..=65_535;

impl Core {
    /// Brings rules, programs and the kernel's setting into line with resources and addresses.
    pub(crate) fn apply_translation(&mut self) {
        // Which addresses are the host's decides which ports may be used.
        if !self.in_sync || !self.kernel_read {
            return;
        }
        let local: BTreeSet<IpAddr> =
            offers::local_addresses(&self.kernel, &self.roles).map(|address| address.addr.addr).collect();
        let rules = rules(&self.desired, &local);
        if rules == self.translation {
            return;
        }
        // The walk first: what the programs give it before it knows the rules would only go to the host.
        let writer = self.installer.writer();
        writer.set_nat(Nat::new(&rules));
        writer.publish();
        let shared = shared_ports(&rules);
        self.opener.set_translated(&shared);
        if let Err(not_reserved) = self.reserved_ports.reserve(shared.values().next()) {
            warn!("{not_reserved}");
        }
        let answers_from_loopback = rules.metadata.is_some_and(|server| server.addr.is_loopback());
        if let Err(error) = raised(|| sysctl::route_loopback(KERNEL_SIDE, answers_from_loopback)) {
            warn!("instances may not reach their metadata: {error}");
        }
        info!(
            outgoing = ?rules.outgoing, pools = ?rules.sources, floating = rules.floating.len(),
            "what is translated has changed"
        );
        self.translation = rules;
        self.end_untranslated_flows();
        self.tell_local_addresses();
    }
}

/// What the resources ask for.
fn rules(desired: &Desired, local: &BTreeSet<IpAddr>) -> NatRules {
    let felix = &desired.felix;
    let sources: Vec<Prefix> =
        desired.pools.values().filter(|pool| pool.nat_outgoing).map(|pool| pool.cidr).collect();
    let pools: Vec<Prefix> = desired.pools.values().map(|pool| pool.cidr).collect();
    let mut exempt = pools.clone();
    if felix.nat_outgoing_exclusions == NatOutgoingExclusions::IpPoolsAndHostIps {
        exempt.extend(desired.node_addresses.iter().copied().map(Prefix::host));
        // As in Felix (`hosts_ipset_manager.go`), whose set has no others of IPv6.
        exempt.extend(felix.external_nodes.iter().filter(|nodes| nodes.family() == Family::V4));
    }
    let outgoing =
        Family::ALL.into_iter().filter(|family| sources.iter().any(|pool| pool.family() == *family));
    let outgoing = outgoing.filter_map(|family| {
        let own = felix.nat_outgoing_address.map(IpAddr::V4).filter(|_| family == Family::V4);
        let address = own.or_else(|| desired.node_address(family))?;
        let is_hosts = local.contains(&address);
        let ports = felix.nat_port_range.clone();
        let ports = ports.unwrap_or(if is_hosts { BESIDE_THE_HOST } else { ALONE });
        Some((address, without(ports, felix.vxlan_port), is_hosts))
    });
    // OpenStack's are translated in any case (`felix/dataplane/linux/floating_ip_mgr.go`).
    let translated =
        desired.endpoints.values().filter(|endpoint| felix.floating_ips || is_openstack(endpoint));
    let nats = translated.flat_map(|endpoint| endpoint.ip_nats.iter().copied());
    let timeouts = &felix.timeouts;
    NatRules {
        outgoing: outgoing.collect(),
        floating: nats.collect(),
        metadata: felix.metadata(),
        sources,
        exempt,
        pools,
        timeouts: FlowTimeouts {
            creation_grace: timeouts.creation_grace_period.into(),
            tcp_syn_sent: timeouts.tcp_syn_sent.into(),
            tcp_established: timeouts.tcp_established.into(),
            tcp_fins_seen: timeouts.tcp_fins_seen.into(),
            tcp_reset_seen: timeouts.tcp_reset_seen.into(),
            udp: timeouts.udp.into(),
            icmp: timeouts.icmp.into(),
            generic: timeouts.generic.into(),
        },
    }
}

fn is_openstack(endpoint: &WorkloadEndpoint) -> bool {
    endpoint
        .labels
        .get("projectcalico.org/orchestrator")
        .is_some_and(|orchestrator| orchestrator == "openstack")
}

/// The longer part of the range beside a port that tunnels need.
fn without(ports: RangeInclusive<u16>, taken: u16) -> RangeInclusive<u16> {
    let (first, last) = (*ports.start(), *ports.end());
    if !ports.contains(&taken) || first == last {
        return ports;
    }
    if taken - first > last - taken { first..=taken - 1 } else { taken + 1..=last }
}

/// The host's addresses that translated flows share, and their ports there.
fn shared_ports(rules: &NatRules) -> BTreeMap<IpAddr, RangeInclusive<u16>> {
    let shared = rules.outgoing.iter().filter(|(_, _, is_hosts)| *is_hosts);
    shared.map(|(address, ports, _)| (*address, ports.clone())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::calico::Calico;
    use model::{
        EncapMode, FelixConfiguration, InterfaceAddr, IpNat, IpPool, Node, Resource, Setting::Given, Update,
    };
    use std::sync::Arc;

    const HOST: &str = "172.18.0.2";

    fn pool(cidr: &str, nat_outgoing: bool) -> Resource {
        Resource::IpPool(IpPool {
            name: cidr.replace('/', "-"),
            cidr: cidr.parse().unwrap(),
            ipip_mode: EncapMode::Never,
            vxlan_mode: EncapMode::Never,
            nat_outgoing,
            disabled: false,
            disable_bgp_export: false,
        })
    }

    fn node(name: &str, address: &str) -> Resource {
        let ipv4: InterfaceAddr = address.parse().unwrap();
        Resource::Node(Node { name: name.to_owned(), ipv4: Some(ipv4), ..Node::default() })
    }

    fn rules_of(felix: FelixConfiguration, mut resources: Vec<Resource>) -> NatRules {
        resources.push(Resource::FelixConfiguration(FelixConfiguration { name: "default".into(), ..felix }));
        resources.extend([node("here", "172.18.0.2/24"), node("there", "172.18.0.3/24")]);
        let mut calico = Calico::new("here");
        resources.into_iter().for_each(|resource| calico.apply(&Update::Put(Arc::new(resource))));
        rules(&calico.desired(), &BTreeSet::from([HOST.parse().unwrap()]))
    }

    #[test]
    fn pools_that_ask_for_it_are_hidden_behind_the_node_from_all_but_pools() {
        let rules = rules_of(
            FelixConfiguration::default(),
            vec![pool("10.65.0.0/16", true), pool("10.66.0.0/16", false)],
        );
        assert_eq!(rules.outgoing, [(HOST.parse().unwrap(), BESIDE_THE_HOST, true)]);
        assert_eq!(rules.sources, ["10.65.0.0/16".parse().unwrap()]);
        assert_eq!(rules.exempt.len(), 2);
        assert_eq!(shared_ports(&rules).len(), 1);
        let none = rules_of(FelixConfiguration::default(), vec![pool("10.66.0.0/16", false)]);
        assert!(none.outgoing.is_empty() && Nat::new(&none).is_idle());
    }

    #[test]
    fn the_settings_choose_address_ports_and_exclusions() {
        let felix = FelixConfiguration {
            nat_outgoing_address: Given("192.0.2.7".parse().unwrap()),
            nat_outgoing_exclusions: Given(NatOutgoingExclusions::IpPoolsAndHostIps),
            external_nodes: Given(
                ["10.9.0.0/24", "fd00::9/128"].map(|nodes| nodes.parse().unwrap()).to_vec(),
            ),
            ..FelixConfiguration::default()
        };
        let rules = rules_of(felix.clone(), vec![pool("10.65.0.0/16", true)]);
        // An address of its own has all ports but the well-known ones, and but VXLAN's.
        assert_eq!(rules.outgoing, [("192.0.2.7".parse().unwrap(), 4_790..=65_535, false)]);
        assert!(shared_ports(&rules).is_empty());
        assert!(rules.exempt.contains(&"172.18.0.3/32".parse().unwrap()));
        assert!(rules.exempt.contains(&"10.9.0.0/24".parse().unwrap()));
        assert!(!rules.exempt.contains(&"fd00::9/128".parse().unwrap()));
        let felix = FelixConfiguration { nat_port_range: Given(2_000..=3_000), ..felix };
        assert_eq!(rules_of(felix, vec![pool("10.65.0.0/16", true)]).outgoing[0].1, 2_000..=3_000);
    }

    #[test]
    fn floating_ips_are_translated_where_they_are_enabled_and_where_they_are_openstacks() {
        let floating =
            IpNat { internal: "10.65.0.2".parse().unwrap(), external: "192.0.2.9".parse().unwrap() };
        let endpoint = || {
            Resource::WorkloadEndpoint(WorkloadEndpoint {
                name: "w1".to_owned(),
                node: "here".to_owned(),
                interface: "cali1".to_owned(),
                ip_networks: vec!["10.65.0.2/32".parse().unwrap()],
                ip_nats: vec![floating],
                ..WorkloadEndpoint::default()
            })
        };
        let enabled = FelixConfiguration { floating_ips: Given(true), ..FelixConfiguration::default() };
        assert_eq!(rules_of(enabled, vec![endpoint()]).floating, [floating]);
        assert!(rules_of(FelixConfiguration::default(), vec![endpoint()]).floating.is_empty());
        let Resource::WorkloadEndpoint(mut instance) = endpoint() else { unreachable!() };
        instance.labels.insert("projectcalico.org/orchestrator".to_owned(), "openstack".to_owned());
        let instance = Resource::WorkloadEndpoint(instance);
        assert_eq!(rules_of(FelixConfiguration::default(), vec![instance]).floating, [floating]);
    }

    #[test]
    fn metadata_are_served_under_openstack_alone() {
        let of = |prefix: &str| {
            let interface_prefixes = Given(vec![prefix.to_owned()]);
            rules_of(FelixConfiguration { interface_prefixes, ..FelixConfiguration::default() }, Vec::new())
        };
        let rules = of("tap");
        assert_eq!(rules.metadata.map(|server| (server.addr.is_loopback(), server.port)), Some((true, 8775)));
        assert!(!Nat::new(&rules).is_idle() && Nat::new(&of("cali")).is_idle());
    }

    #[test]
    fn a_tunnels_port_is_left_out() {
        assert_eq!(without(4_000..=5_000, 4_789), 4_000..=4_788);
        assert_eq!(without(4_789..=5_000, 4_789), 4_790..=5_000);
        assert_eq!(without(5_000..=6_000, 4_789), 5_000..=6_000);
        assert_eq!(without(4_789..=4_789, 4_789), 4_789..=4_789);
    }
}

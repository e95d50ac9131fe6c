//! The event loop's end of policy: what the resources ask for, worked out for this node and handed to those who keep it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use model::{HostEndpoint, HostInterface, Key, Prefix};
use policy::resolve::{EndpointPolicy, Resolver, host_endpoint_of};
use policy::rule::{AfterTiers, Checks, SetId};
use tables::HostEndpoints;

use crate::calico::Excluded;
use crate::event_loop::Core;
use crate::host_policy::{self, HostEndpointPolicy, HostPolicy, Interface, Mark, Sets, Settings};
use crate::interfaces::KernelState;
use crate::tunneling::traffic;
use crate::workload_policy::host_name;

impl Core {
    /// Works policy out and stages what the walk asks of workloads' packets: before ports are in line with the resources.
    /// Gives whether any endpoint is asked something else, or a set is gone.
    pub(crate) fn apply_workload_policy(&mut self) -> bool {
        let changes = self.resolver.changes();
        let endpoints_changed = !changes.endpoints.is_empty() || !changes.sets.removed.is_empty();
        // The kernel has sets of its own.
        self.dirty.host_policy |= !changes.is_empty();
        let writer = self.installer.writer();
        if self.workload_policy.come(changes, &self.resolver, writer) {
            writer.publish();
        }
        endpoints_changed
    }

    /// Forgets what is asked of workloads that are gone: after ports are in line with the resources.
    pub(crate) fn forget_workload_policy(&mut self) {
        let writer = self.installer.writer();
        if self.workload_policy.go(writer) {
            writer.publish();
        }
        self.forget_policy_counts();
    }

    /// Has nftables keep what the resources ask of this node's host endpoints.
    pub(crate) fn apply_host_policy(&mut self) {
        let desired = &self.desired;
        if desired.host_endpoints.is_empty() {
            self.host_policy.apply(HostPolicy::default());
            self.name_host_endpoints(&[]);
            return;
        }
        let excluded = &desired.felix.interface_exclude;
        let endpoints = endpoints_at(&desired.host_endpoints, &self.kernel, excluded, |name| {
            // One that the resolver doesn't know is closed.
            let known = self.resolver.endpoint(&Key::HostEndpoint(name.to_owned()));
            known.cloned().unwrap_or_else(|| Arc::new(closed()))
        });
        self.name_host_endpoints(&endpoints);
        let desired = &self.desired;
        let nodes = desired.node_addresses.iter().map(|addr| Prefix::host(*addr));
        self.host_policy.apply(HostPolicy {
            sets: sets_of(&endpoints, &self.resolver),
            endpoints,
            settings: Settings::of(&desired.felix, traffic(&desired.tunnels.ends)),
            workloads: desired.endpoints.values().flat_map(|workload| workload.ip_networks.clone()).collect(),
            served: desired.felix.openstack.then(|| self.config.workload_prefix.clone()),
            tunnel_ends: nodes.chain(desired.felix.external_nodes.iter().copied()).collect(),
            marks: desired.host_endpoints.values().filter_map(mark).collect(),
            pools: desired.pools.values().map(|pool| pool.cidr).collect(),
        });
    }
}

impl Core {
    /// Tells the walk which ports are whose, so that what it forwards is held to their policy.
    fn name_host_endpoints(&mut self, endpoints: &[HostEndpointPolicy]) {
        let felix = &self.desired.felix;
        let mut host_endpoints = HostEndpoints::default();
        if !endpoints.is_empty() {
            host_endpoints.failsafe_inbound.clone_from(&felix.failsafe_inbound);
            host_endpoints.failsafe_outbound.clone_from(&felix.failsafe_outbound);
        }
        for endpoint in endpoints {
            let name = host_name(&endpoint.name);
            match &endpoint.interface {
                Interface::Named(interface) => drop(host_endpoints.named.insert(interface.clone(), name)),
                Interface::Every => host_endpoints.every = Some(name),
            }
        }
        let writer = self.installer.writer();
        writer.set_host_endpoints(host_endpoints);
        writer.publish();
    }
}

/// Neither policy nor profile: all is dropped.
fn closed() -> EndpointPolicy {
    let nothing = Checks { tiers: Vec::new(), after: AfterTiers::Profiles(Vec::new()) };
    let nothing = Some(Arc::new(nothing));
    let normal = policy::resolve::Directions { ingress: nothing.clone(), egress: nothing };
    EndpointPolicy { normal, ..EndpointPolicy::default() }
}

/// What the host's packets from an endpoint's addresses leave with; nothing of one that expects no address, as in Felix.
fn mark(endpoint: &HostEndpoint) -> Option<Mark> {
    let dscp = endpoint.dscp?;
    let sources = endpoint.expected_ips.clone();
    (!sources.is_empty()).then_some(Mark { sources, dscp })
}

/// Which endpoint is asked at which interface. An interface that is named and isn't there yet is closed before it comes; one
/// that is excluded is no endpoint, named or not.
fn endpoints_at(
    endpoints: &BTreeMap<String, HostEndpoint>,
    kernel: &KernelState,
    excluded: &Excluded,
    policy_of: impl Fn(&str) -> Arc<EndpointPolicy>,
) -> Vec<HostEndpointPolicy> {
    let mut interfaces: BTreeMap<&str, Vec<IpAddr>> = BTreeMap::new();
    for endpoint in endpoints.values() {
        if let HostInterface::Named(name) = &endpoint.interface {
            interfaces.entry(name).or_default();
        }
    }
    for link in &kernel.links {
        let addresses = kernel.addresses.iter().filter(|address| address.ifindex == link.ifindex);
        interfaces.entry(&link.name).or_default().extend(addresses.map(|address| address.addr.addr));
    }
    interfaces.retain(|interface, _| !excluded.has(interface));
    let mut at = Vec::new();
    let mut is_at = |endpoint: &HostEndpoint, interface: Interface| {
        at.push(HostEndpointPolicy {
            name: endpoint.name.clone(),
            interface,
            policy: policy_of(&endpoint.name),
        });
    };
    for (interface, addresses) in &interfaces {
        match host_endpoint_of(endpoints.values(), interface, addresses) {
            Some(endpoint) if endpoint.interface != HostInterface::All => {
                is_at(endpoint, Interface::Named((*interface).to_owned()));
            }
            _ => {}
        }
    }
    if let Some(endpoint) = endpoints.values().find(|endpoint| endpoint.interface == HostInterface::All) {
        is_at(endpoint, Interface::Every);
    }
    at
}

/// The sets that their rules refer to.
fn sets_of(endpoints: &[HostEndpointPolicy], resolver: &Resolver) -> Sets {
    let wanted: BTreeSet<SetId> =
        endpoints.iter().flat_map(|endpoint| host_policy::sets_of(&endpoint.policy)).collect();
    let sets = resolver.sets().filter(|(id, ..)| wanted.contains(id));
    sets.map(|(id, _, members)| (id, members.collect())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::interfaces::{Address, Link, Scope};
    use model::{IfIndex, MacAddr};

    fn endpoint(name: &str, interface: HostInterface, expected: &[&str]) -> (String, HostEndpoint) {
        let endpoint = HostEndpoint {
            name: name.to_owned(),
            labels: BTreeMap::new(),
            node: "here".to_owned(),
            interface,
            expected_ips: expected.iter().map(|addr| addr.parse().unwrap()).collect(),
            profiles: Vec::new(),
            ports: Vec::new(),
            dscp: None,
        };
        (name.to_owned(), endpoint)
    }

    fn kernel(links: &[(&str, &[&str])]) -> KernelState {
        let mut kernel = KernelState::default();
        for (number, (name, addresses)) in (1..).zip(links) {
            kernel.links.push(Link {
                ifindex: IfIndex(number),
                name: (*name).to_owned(),
                mac: MacAddr([2, 0, 0, 0, 0, 1]),
                mtu: 1500,
                up: true,
                kind: None,
                peer: None,
                peer_netns: None,
                num_rx_queues: 1,
            });
            let address = |addr: &&str| Address {
                ifindex: IfIndex(number),
                addr: addr.parse().unwrap(),
                scope: Scope::Global,
            };
            kernel.addresses.extend(addresses.iter().map(address));
        }
        kernel
    }

    #[test]
    fn an_interface_has_the_endpoint_that_names_it_or_expects_its_address() {
        let named = |name: &str| HostInterface::Named(name.to_owned());
        let endpoints = BTreeMap::from([
            endpoint("all", HostInterface::All, &[]),
            endpoint("by-address", HostInterface::WithExpectedIp, &["192.0.2.1"]),
            endpoint("not-there-yet", named("wg9"), &[]),
            endpoint("uplink", named("eth0"), &[]),
        ]);
        let kernel = kernel(&[
            ("lo", &["127.0.0.1/8"]),
            ("eth0", &["198.51.100.1/24"]),
            ("eth1", &["192.0.2.1/24"]),
            ("eth2", &[]),
        ]);
        let at = |excluded: &[&str]| -> Vec<(String, String)> {
            let excluded = Excluded::new(excluded.iter().map(|text| (*text).to_owned()).collect());
            let at = endpoints_at(&endpoints, &kernel, &excluded, |_| Arc::new(closed()));
            let name = |endpoint: HostEndpointPolicy| match endpoint.interface {
                Interface::Named(interface) => (interface, endpoint.name),
                Interface::Every => ("*".to_owned(), endpoint.name),
            };
            at.into_iter().map(name).collect()
        };
        let expected = [("eth0", "uplink"), ("eth1", "by-address"), ("wg9", "not-there-yet"), ("*", "all")];
        let expected = expected.map(|(interface, name)| (interface.to_owned(), name.to_owned()));
        assert_eq!(at(&[]), expected);
        assert_eq!(at(&["eth1", "/^wg/"]), [expected[0].clone(), expected[3].clone()]);
    }
}

//! The scenarios, in the order in which a newcomer would want them shown.

mod baseline;
mod bfd;
mod bgp_resources;
mod datastore_faults;
mod fair_share;
mod floating_ip;
mod four_fabrics;
mod full_mesh;
mod hitless_restart;
mod host_endpoint;
mod host_routes;
mod hostile_bgp;
mod icmp_errors;
mod internet_table;
mod ipip_linux;
mod ipv4_over_ipv6;
mod jumbo_frames;
pub(crate) mod kill_the_router;
mod link_bandwidth;
mod malformed;
mod nat_outgoing;
mod nat_site;
mod one_etcd;
mod one_node;
mod openstack_dhcp;
mod path_mtu;
mod peer_ranges;
mod policy_load;
mod qos_limits;
mod racks;
mod route_churn;
mod route_reflector;
mod session_guard;
mod tenant_policy;
mod tunnels;
mod two_workers;
mod virtio_zero_copy;
mod vxlan_gateway;
mod vxlan_learning;
mod vxlan_segment;
mod watching;
mod workload_peers;

use crate::demo;
use crate::scenario::Scenario;

/// Every scenario.
pub const ALL: &[Scenario] = &[
    baseline::BASELINE,
    host_routes::HOST_ROUTES,
    full_mesh::FULL_MESH,
    full_mesh::FULL_MESH_BIRD,
    route_reflector::ROUTE_REFLECTOR,
    bgp_resources::BGP_RESOURCES,
    workload_peers::WORKLOAD_PEERS,
    racks::AS_PER_RACK,
    racks::AS_PER_SERVER,
    racks::DOWNWARD_DEFAULT,
    tunnels::IPIP_ALWAYS,
    tunnels::IPIP_CROSS_SUBNET,
    tunnels::VXLAN_ALWAYS,
    tunnels::VXLAN_CROSS_SUBNET,
    icmp_errors::ICMP_ERRORS,
    nat_outgoing::NAT_OUTGOING,
    floating_ip::FLOATING_IP,
    path_mtu::PATH_MTU,
    jumbo_frames::JUMBO_FRAMES,
    host_endpoint::HOST_ENDPOINT,
    tenant_policy::TENANT_POLICY,
    openstack_dhcp::OPENSTACK_DHCP,
    policy_load::POLICY_LOAD,
    kill_the_router::KILL_THE_ROUTER,
    hitless_restart::HITLESS_RESTART,
    one_etcd::ONE_ETCD,
    datastore_faults::DATASTORE_FAULTS,
    four_fabrics::FOUR_FABRICS,
    two_workers::TWO_WORKERS,
    qos_limits::QOS_LIMITS,
    fair_share::FAIR_SHARE,
    internet_table::INTERNET_TABLE,
    route_churn::ROUTE_CHURN,
    session_guard::SESSION_GUARD,
    peer_ranges::PEER_RANGES,
    bfd::BFD,
    ipv4_over_ipv6::IPV4_OVER_IPV6,
    link_bandwidth::LINK_BANDWIDTH,
    malformed::MALFORMED,
    hostile_bgp::HOSTILE_BGP,
    ipip_linux::IPIP_LINUX,
    virtio_zero_copy::VIRTIO_ZERO_COPY,
    vxlan_gateway::VXLAN_GATEWAY,
    vxlan_segment::VXLAN_SEGMENT,
    vxlan_learning::VXLAN_LEARNING,
    watching::LOOKING_GLASS,
    watching::MONITORING,
    demo::DEMO,
];

/// The scenario of this name.
pub fn named(name: &str) -> Option<&'static Scenario> {
    ALL.iter().find(|scenario| scenario.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_scenario_has_a_name_of_its_own() {
        for scenario in ALL {
            assert_eq!(
                ALL.iter().filter(|other| other.name == scenario.name).count(),
                1,
                "{}",
                scenario.name
            );
            assert!(named(scenario.name).is_some());
        }
    }
}

//! The dataplane's settings: this node's own, else those of the nodes it is one of, else the cluster's, else Calico's
//! defaults.

use std::net::Ipv4Addr;
use std::ops::RangeInclusive;
use std::time::Duration;

use model::{
    ClusterRoutes, DenyAction, EndpointToHost, FailsafePort, FelixConfiguration, LogRate,
    NatOutgoingExclusions, Prefix, Protocol, ReversePath, Setting,
};
use tables::{FlowRules, MetadataServer, WorkloadTunnels};

use super::excluded::Excluded;
use crate::log_prefix;

/// FelixConfiguration, merged (defaults: `felix/config/config_params.go`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Felix {
    /// Are workloads OpenStack's instances, which have DHCP and DNS from their host?
    pub openstack: bool,
    /// Who answers OpenStack's instances that ask for their metadata: an IPv4 address and its port. None: nobody.
    pub metadata_server: Option<(Ipv4Addr, u16)>,
    /// IPIP whatever the pools say; `None` leaves it to them.
    pub ipip_enabled: Option<bool>,
    /// MTU inside IPIP; `None` leaves it to the uplinks.
    pub ipip_mtu: Option<u16>,
    /// VXLAN whatever the pools say; `None` leaves it to them.
    pub vxlan_enabled: Option<bool>,
    /// MTU inside VXLAN over IPv4; `None` leaves it to the uplinks.
    pub vxlan_mtu: Option<u16>,
    /// MTU inside VXLAN over IPv6; `None` leaves it to the uplinks.
    pub vxlan_mtu_v6: Option<u16>,
    /// UDP port of VXLAN.
    pub vxlan_port: u16,
    /// Network identifier of VXLAN.
    pub vxlan_vni: u32,
    /// For which pools, besides those of VXLAN, the datastore has the routes to other nodes' workloads.
    pub cluster_routes: ClusterRoutes,
    /// May workloads send IPIP packets of their own?
    pub allow_ipip_from_workloads: bool,
    /// May workloads send VXLAN packets of their own?
    pub allow_vxlan_from_workloads: bool,
    /// Who, besides the nodes, may send tunnel packets here.
    pub external_nodes: Vec<Prefix>,
    /// Are endpoints' `allowSpoofedSourcePrefixes` honoured? Else there are no such endpoints.
    pub workload_source_spoofing: bool,
    /// Are floating IPs translated?
    pub floating_ips: bool,
    /// What outgoing packets are translated to; `None` is the node's address.
    pub nat_outgoing_address: Option<Ipv4Addr>,
    /// Ports that translated TCP and UDP flows may get; `None` is any.
    pub nat_port_range: Option<RangeInclusive<u16>>,
    /// Destinations that outgoing packets reach untranslated.
    pub nat_outgoing_exclusions: NatOutgoingExclusions,
    /// The check of sources on uplinks.
    pub reverse_path: ReversePath,
    /// How long flows are remembered.
    pub timeouts: FlowTimeouts,
    /// What the names of workloads' interfaces begin with.
    pub interface_prefixes: Vec<String>,
    /// Interfaces that are no host endpoints.
    pub interface_exclude: Excluded,
    /// What becomes of packets from a workload to its host.
    pub endpoint_to_host: EndpointToHost,
    /// Ports of the host that policy doesn't close to others.
    pub failsafe_inbound: Vec<FailsafePort>,
    /// Ports of others that policy doesn't close to the host.
    pub failsafe_outbound: Vec<FailsafePort>,
    /// Are packets let through that belong to no flow and can't begin one?
    pub conntrack_invalid_allowed: bool,
    /// What a denied packet's sender gets to know.
    pub deny_action: DenyAction,
    /// What lines of `Log` rules begin with.
    pub log_prefix: String,
    /// How many of them there may be; `None` is any number.
    pub log_rate: Option<LogRate>,
    /// How many of them may come at once.
    pub log_burst: u16,
    /// What this node tells of itself.
    pub reporting: Reporting,
}

/// How this node tells of itself in the datastore.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reporting {
    /// How often it says that it is alive; zero is never.
    pub interval: Duration,
    /// How long that counts.
    pub ttl: Duration,
    /// Does it tell of its endpoints?
    pub endpoints: bool,
    /// The least time between two of its words about them.
    pub endpoint_delay: Duration,
}

impl Reporting {
    fn of(sources: Sources<'_>) -> Reporting {
        let seconds = |field: fn(&model::Reporting) -> Setting<Duration>, default| {
            first(sources, |config| field(&config.reporting)).unwrap_or(Duration::from_secs(default))
        };
        Reporting {
            interval: seconds(|reporting| reporting.interval, 30),
            ttl: seconds(|reporting| reporting.ttl, 90),
            endpoints: first(sources, |config| config.reporting.endpoints).unwrap_or(false),
            endpoint_delay: seconds(|reporting| reporting.endpoint_delay, 1),
        }
    }
}

/// The configurations that hold for this node, those that come before others first.
type Sources<'a> = &'a [&'a FelixConfiguration];

/// What the first resource that says anything of a setting says; nothing where the default holds.
fn first<T>(sources: Sources<'_>, field: impl Fn(&FelixConfiguration) -> Setting<T>) -> Option<T> {
    sources.iter().map(|config| field(config)).fold(Setting::Absent, Setting::or).given()
}

/// The standard ports, by protocol and number.
type Ports = &'static [(Protocol, u16)];

/// ssh, DHCP, and what Calico and Kubernetes themselves need: BGP, etcd, Typha and the API server.
const FAILSAFE_INBOUND: Ports = &[
    (Protocol::TCP, 22),
    (Protocol::UDP, 68),
    (Protocol::TCP, 179),
    (Protocol::TCP, 2379),
    (Protocol::TCP, 2380),
    (Protocol::TCP, 5473),
    (Protocol::TCP, 6443),
    (Protocol::TCP, 6666),
    (Protocol::TCP, 6667),
];
/// DNS, DHCP, and the same.
const FAILSAFE_OUTBOUND: Ports = &[
    (Protocol::UDP, 53),
    (Protocol::UDP, 67),
    (Protocol::TCP, 179),
    (Protocol::TCP, 2379),
    (Protocol::TCP, 2380),
    (Protocol::TCP, 5473),
    (Protocol::TCP, 6443),
    (Protocol::TCP, 6666),
    (Protocol::TCP, 6667),
];

fn failsafe(ports: Ports) -> Vec<FailsafePort> {
    ports
        .iter()
        .map(|(protocol, port)| FailsafePort { protocol: *protocol, port: *port, net: None })
        .collect()
}

/// Where OpenStack's metadata are asked for, unless somebody says otherwise.
const METADATA_ADDR: &str = "127.0.0.1";
const METADATA_PORT: u16 = 8775;

/// How long a flow without packets is remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowTimeouts {
    /// What a new flow gets at least.
    pub creation_grace_period: Duration,
    /// A TCP connection that nobody has answered.
    pub tcp_syn_sent: Duration,
    /// An established TCP connection.
    pub tcp_established: Duration,
    /// A TCP connection that both sides have closed: twice the maximal segment lifetime that Linux takes.
    pub tcp_fins_seen: Duration,
    /// A TCP connection after a reset.
    pub tcp_reset_seen: Duration,
    /// UDP.
    pub udp: Duration,
    /// ICMP queries.
    pub icmp: Duration,
    /// Any other protocol.
    pub generic: Duration,
}

impl Default for FlowTimeouts {
    fn default() -> FlowTimeouts {
        FlowTimeouts {
            creation_grace_period: Duration::from_secs(10),
            tcp_syn_sent: Duration::from_secs(20),
            tcp_established: Duration::from_secs(3600),
            tcp_fins_seen: Duration::from_secs(30),
            tcp_reset_seen: Duration::from_secs(40),
            udp: Duration::from_secs(60),
            icmp: Duration::from_secs(5),
            generic: Duration::from_secs(600),
        }
    }
}

impl Felix {
    /// The first of these that says anything of a setting says what it is, else it is the default.
    pub fn of(sources: &[&FelixConfiguration]) -> Felix {
        let interface_prefixes = first(sources, |config| config.interface_prefixes.clone())
            .unwrap_or_else(|| vec!["cali".to_owned()]);
        let metadata_addr = first(sources, |config| config.metadata_addr.clone());
        Felix {
            // By these Felix knows OpenStack, and by the cluster's type (`OpenstackActive` in `felix/config/config_params.go`).
            openstack: interface_prefixes.iter().any(|prefix| prefix == "tap")
                || metadata_addr.as_deref().is_some_and(|addr| addr != METADATA_ADDR),
            // A name is nobody, too: Felix doesn't look it up (`OpenStackMetadataIP` in `felix/dataplane/driver.go`).
            metadata_server: (metadata_addr.as_deref().unwrap_or(METADATA_ADDR).parse().ok())
                .zip(Some(first(sources, |config| config.metadata_port).unwrap_or(METADATA_PORT))),
            ipip_enabled: first(sources, |config| config.ipip_enabled),
            ipip_mtu: first(sources, |config| config.ipip_mtu),
            vxlan_enabled: first(sources, |config| config.vxlan_enabled),
            vxlan_mtu: first(sources, |config| config.vxlan_mtu),
            vxlan_mtu_v6: first(sources, |config| config.vxlan_mtu_v6),
            vxlan_port: first(sources, |config| config.vxlan_port).unwrap_or(4789),
            vxlan_vni: first(sources, |config| config.vxlan_vni).unwrap_or(4096),
            cluster_routes: first(sources, |config| config.cluster_routes)
                .unwrap_or(ClusterRoutes { ipip: true, no_encap: false }),
            allow_ipip_from_workloads: first(sources, |config| config.allow_ipip_from_workloads)
                .unwrap_or(false),
            allow_vxlan_from_workloads: first(sources, |config| config.allow_vxlan_from_workloads)
                .unwrap_or(false),
            external_nodes: first(sources, |config| config.external_nodes.clone()).unwrap_or_default(),
            workload_source_spoofing: first(sources, |config| config.workload_source_spoofing)
                .unwrap_or(false),
            floating_ips: first(sources, |config| config.floating_ips).unwrap_or(false),
            nat_outgoing_address: first(sources, |config| config.nat_outgoing_address),
            nat_port_range: first(sources, |config| config.nat_port_range.clone()),
            nat_outgoing_exclusions: first(sources, |config| config.nat_outgoing_exclusions)
                .unwrap_or_default(),
            reverse_path: first(sources, |config| config.reverse_path).unwrap_or_default(),
            timeouts: FlowTimeouts::of(sources),
            interface_prefixes,
            interface_exclude: first(sources, |config| config.interface_exclude.clone())
                .map(Excluded::new)
                .unwrap_or_default(),
            endpoint_to_host: first(sources, |config| config.endpoint_to_host).unwrap_or_default(),
            failsafe_inbound: first(sources, |config| config.failsafe_inbound.clone())
                .unwrap_or_else(|| failsafe(FAILSAFE_INBOUND)),
            failsafe_outbound: first(sources, |config| config.failsafe_outbound.clone())
                .unwrap_or_else(|| failsafe(FAILSAFE_OUTBOUND)),
            conntrack_invalid_allowed: first(sources, |config| config.conntrack_invalid_allowed)
                .unwrap_or(false),
            deny_action: first(sources, |config| config.deny_action).unwrap_or_default(),
            log_prefix: first(sources, |config| config.log_prefix.clone())
                .unwrap_or_else(|| log_prefix::DEFAULT.to_owned()),
            log_rate: first(sources, |config| config.log_rate),
            log_burst: first(sources, |config| config.log_burst).unwrap_or(5),
            reporting: Reporting::of(sources),
        }
    }

    /// What flows of workloads are held to besides policy. `Return` leaves it to the host's own rules, which what passes meets
    /// anyway.
    pub fn flow_rules(&self) -> FlowRules {
        FlowRules {
            drops_to_host: self.endpoint_to_host == EndpointToHost::Drop,
            passes_dhcp_and_dns: self.openstack,
            drops_invalid: !self.conntrack_invalid_allowed,
            tells_denied: self.deny_action == DenyAction::Reject,
        }
    }

    /// Who answers instances that ask for their metadata, under OpenStack.
    pub fn metadata(&self) -> Option<MetadataServer> {
        let (addr, port) = self.metadata_server.filter(|_| self.openstack)?;
        Some(MetadataServer { addr, port })
    }

    /// The tunnel packets that workloads may not send.
    pub fn workload_tunnels(&self) -> WorkloadTunnels {
        WorkloadTunnels {
            ipip_refused: !self.allow_ipip_from_workloads,
            refused_vxlan_port: (!self.allow_vxlan_from_workloads).then_some(self.vxlan_port),
        }
    }
}

impl FlowTimeouts {
    fn of(sources: Sources<'_>) -> FlowTimeouts {
        let default = FlowTimeouts::default();
        let given = first(sources, |config| config.conntrack_timeouts).unwrap_or_default();
        FlowTimeouts {
            creation_grace_period: given.creation_grace_period.unwrap_or(default.creation_grace_period),
            tcp_syn_sent: given.tcp_syn_sent.unwrap_or(default.tcp_syn_sent),
            tcp_established: given.tcp_established.unwrap_or(default.tcp_established),
            tcp_fins_seen: given.tcp_fins_seen.unwrap_or(default.tcp_fins_seen),
            tcp_reset_seen: given.tcp_reset_seen.unwrap_or(default.tcp_reset_seen),
            udp: given.udp.unwrap_or(default.udp),
            icmp: given.icmp.unwrap_or(default.icmp),
            generic: given.generic.unwrap_or(default.generic),
        }
    }
}

#[cfg(test)]
mod tests {
    use model::{ConntrackTimeouts, Setting::Given};

    use super::*;

    #[test]
    fn the_nodes_own_setting_comes_before_the_clusters_and_that_before_the_default() {
        let cluster = FelixConfiguration {
            vxlan_port: Given(8472),
            vxlan_vni: Given(1),
            conntrack_timeouts: Given(ConntrackTimeouts {
                udp: Some(Duration::from_secs(7)),
                ..ConntrackTimeouts::default()
            }),
            ..FelixConfiguration::default()
        };
        let node = FelixConfiguration { vxlan_vni: Given(7), ..FelixConfiguration::default() };
        let merged = Felix::of(&[&node, &cluster]);
        assert_eq!((merged.vxlan_port, merged.vxlan_vni), (8472, 7));
        assert_eq!(
            (merged.timeouts.udp, merged.timeouts.icmp),
            (Duration::from_secs(7), Duration::from_secs(5))
        );
        assert_eq!(Felix::of(&[]).vxlan_port, 4789);
    }

    #[test]
    fn a_nodes_setting_that_is_no_good_is_the_default_and_not_the_clusters() {
        let cluster = FelixConfiguration {
            vxlan_port: Given(8472),
            nat_outgoing_address: Given(Ipv4Addr::new(192, 0, 2, 1)),
            ..FelixConfiguration::default()
        };
        let node = FelixConfiguration {
            vxlan_port: Setting::Standard,
            nat_outgoing_address: Setting::Standard,
            ..FelixConfiguration::default()
        };
        let merged = Felix::of(&[&node, &cluster]);
        assert_eq!((merged.vxlan_port, merged.nat_outgoing_address), (4789, None));
        let merged = Felix::of(&[&cluster, &node]);
        assert_eq!(merged.vxlan_port, 8472, "the cluster's hides nothing of the node's");
    }

    /// `BPFConntrackTimeouts` is one parameter of Felix's.
    #[test]
    fn a_nodes_timeouts_hide_all_of_the_clusters() {
        let timeouts =
            |given| FelixConfiguration { conntrack_timeouts: Given(given), ..FelixConfiguration::default() };
        let seconds = |seconds| Some(Duration::from_secs(seconds));
        let cluster = timeouts(ConntrackTimeouts { udp: seconds(7), ..ConntrackTimeouts::default() });
        let node = timeouts(ConntrackTimeouts { icmp: seconds(3), ..ConntrackTimeouts::default() });
        let merged = Felix::of(&[&node, &cluster]).timeouts;
        assert_eq!((Some(merged.udp), Some(merged.icmp)), (seconds(60), seconds(3)));
    }

    #[test]
    fn no_failsafe_ports_are_not_the_standard_ones() {
        let cluster =
            FelixConfiguration { failsafe_inbound: Given(Vec::new()), ..FelixConfiguration::default() };
        let merged = Felix::of(&[&cluster]);
        assert_eq!((merged.failsafe_inbound.len(), merged.failsafe_outbound.len()), (0, 9));
        assert_eq!(Felix::of(&[]).failsafe_inbound[0].port, 22);
    }

    #[test]
    fn the_walk_tells_senders_of_what_is_denied_where_nft_does() {
        let of = |action| FelixConfiguration { deny_action: Given(action), ..FelixConfiguration::default() };
        let tells = |given: &[&FelixConfiguration]| Felix::of(given).flow_rules().tells_denied;
        assert!(!tells(&[]) && !tells(&[&of(DenyAction::Drop)]) && tells(&[&of(DenyAction::Reject)]));
    }

    #[test]
    fn openstack_is_known_by_its_interfaces_and_its_metadata_server() {
        let known = |config: FelixConfiguration| Felix::of(&[&config]).flow_rules().passes_dhcp_and_dns;
        let standard = FelixConfiguration::default;
        let names = |names: &[&str]| Given(names.iter().map(|name| (*name).to_owned()).collect());
        let addr = |addr: &str| Given(addr.to_owned());
        assert!(!known(standard()));
        assert!(known(FelixConfiguration { interface_prefixes: names(&["cali", "tap"]), ..standard() }));
        assert!(!known(FelixConfiguration { interface_prefixes: names(&["tap0"]), ..standard() }));
        assert!(known(FelixConfiguration { metadata_addr: addr("controller"), ..standard() }));
        assert!(known(FelixConfiguration { metadata_addr: addr(""), ..standard() }));
        assert!(!known(FelixConfiguration { metadata_addr: addr("127.0.0.1"), ..standard() }));
    }

    #[test]
    fn instances_ask_the_metadata_server_that_is_given_by_its_address() {
        let metadata = |openstack, addr: Option<&str>, port: Option<u16>| {
            let setting = |addr: &str| Given(addr.to_owned());
            let config = FelixConfiguration {
                metadata_addr: addr.map_or(Setting::Absent, setting),
                metadata_port: port.map_or(Setting::Absent, Given),
                ..FelixConfiguration::default()
            };
            let felix = Felix { openstack, ..Felix::of(&[&config]) };
            felix.metadata().map(|server| (server.addr.to_string(), server.port))
        };
        assert_eq!(metadata(false, None, None), None);
        assert_eq!(metadata(true, None, None), Some(("127.0.0.1".to_owned(), 8775)));
        assert_eq!(metadata(true, Some("192.0.2.7"), Some(80)), Some(("192.0.2.7".to_owned(), 80)));
        for nobody in ["", "controller", "fd00::7"] {
            assert_eq!(metadata(true, Some(nobody), None), None);
        }
    }

    /// `felix_config_params.jsonl`: what each parameter is where nobody gives it.
    #[test]
    fn the_defaults_are_calicos() {
        let Some(rows) = crate::calico::golden::oracle("felix_config_params.jsonl") else { return };
        let felix = Felix::of(&[]);
        let ports = |ports: &[FailsafePort]| {
            let port = |port: &FailsafePort| format!("{}:{}", port.protocol, port.port).to_lowercase();
            ports.iter().map(port).collect::<Vec<_>>().join(",")
        };
        let ours = |name: &str| {
            Some(match name {
                "DefaultEndpointToHostAction" => format!("{:?}", felix.endpoint_to_host).to_uppercase(),
                "DisableConntrackInvalidCheck" => felix.conntrack_invalid_allowed.to_string(),
                "FailsafeInboundHostPorts" => ports(&felix.failsafe_inbound),
                "FailsafeOutboundHostPorts" => ports(&felix.failsafe_outbound),
                "InterfacePrefix" => felix.interface_prefixes.join(","),
                "IptablesFilterDenyAction" | "NftablesFilterDenyAction" => {
                    format!("{:?}", felix.deny_action).to_uppercase()
                }
                "LogActionRateLimit" => felix.log_rate.map_or(String::new(), |rate| format!("{rate:?}")),
                "LogActionRateLimitBurst" => felix.log_burst.to_string(),
                "LogPrefix" => felix.log_prefix.clone(),
                "MetadataAddr" => METADATA_ADDR.to_owned(),
                "MetadataPort" => METADATA_PORT.to_string(),
                "ProgramClusterRoutes" => {
                    let at = ClusterRoutes::MEANINGS.iter().position(|known| *known == felix.cluster_routes);
                    ClusterRoutes::WORDS[at.unwrap()].to_owned()
                }
                "VXLANPort" => felix.vxlan_port.to_string(),
                "VXLANVNI" => felix.vxlan_vni.to_string(),
                "WorkloadSourceSpoofing" => {
                    if felix.workload_source_spoofing { "Any" } else { "Disabled" }.to_owned()
                }
                "FloatingIPs" => if felix.floating_ips { "Enabled" } else { "Disabled" }.to_owned(),
                _ => return None,
            })
        };
        let mut compared = 0;
        for row in rows.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()) {
            let Some(ours) = ours(row["config"].as_str().unwrap()) else { continue };
            assert_eq!(ours, row["default"], "{}", row["config"]);
            compared += 1;
        }
        println!("{compared} rows compared");
        assert!(compared >= 13, "only {compared} rows were compared");
    }
}

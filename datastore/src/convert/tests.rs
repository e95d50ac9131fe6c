//! Resources as operators write them, through `manifest::parse`, so that paths and places are proven too.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::Path;
use std::time::Duration;

use model::{
    AffinityState, AllocationAttributes, AsNumber, BgpCommunity, BgpConfiguration, BgpPeer, BlockAffinity,
    ClusterInformation, ClusterRoutes, EncapMode, IpNat, IpPool, IpamBlock, Node, PeerNodes, PeerTarget,
    PrefixAdvertisement, Protocol, QosControls, QosDirection, Resource, SecretKey, Setting, WorkloadEndpoint,
};

use crate::manifest::{self, Manifest, Reader};

mod felix;
mod policy;

fn parse(text: &str) -> Result<Manifest, Vec<String>> {
    manifest::parse(Path::new("f.yaml"), text, 100, Reader::Writer)
        .map_err(|problems| problems.iter().map(ToString::to_string).collect())
}

fn document(kind: &str, name: &str, spec: &str) -> String {
    format!("apiVersion: projectcalico.org/v3\nkind: {kind}\nmetadata: {{name: {name}}}\nspec: {spec}\n")
}

#[track_caller]
fn resource(text: &str) -> Resource {
    let manifest = parse(text).unwrap();
    assert_eq!(manifest.entries.len(), 1);
    Resource::clone(&manifest.entries[0].resource)
}

/// The problem of a `spec`, without the place and name that all of them share.
#[track_caller]
fn problem(kind: &str, spec: &str) -> String {
    let name = if kind == "BGPConfiguration" { "default" } else { "x" };
    let problems = parse(&document(kind, name, spec)).unwrap_err();
    assert_eq!(problems.len(), 1);
    let (_, rest) = problems[0].split_once(&format!(": {kind}({name}): ")).expect(&problems[0]);
    rest.to_owned()
}

#[test]
fn a_node_is_read_whole() {
    let text = document(
        "Node",
        "rack1-host1, labels: {rack: rack-1}",
        "{bgp: {asNumber: '64086.59904', ipv4Address: 10.0.0.11/24, ipv6Address: 'fd00::11', \
         ipv4IPIPTunnelAddr: 10.1.3.64, routeReflectorClusterID: 1.0.0.1}, ipv4VXLANTunnelAddr: 10.1.3.65, \
         vxlanTunnelMACAddr: '66:01:02:03:04:05', ipv6VXLANTunnelAddr: 'fd01::65', orchRefs: [{nodeName: x}]}",
    );
    let expected = Node {
        name: "rack1-host1".to_owned(),
        labels: BTreeMap::from([("rack".to_owned(), "rack-1".to_owned())]),
        as_number: Some(AsNumber(4_200_000_000)),
        ipv4: Some("10.0.0.11/24".parse().unwrap()),
        ipv6: Some("fd00::11/128".parse().unwrap()),
        route_reflector_cluster_id: Some(Ipv4Addr::new(1, 0, 0, 1)),
        ipip_tunnel_addr: Some(Ipv4Addr::new(10, 1, 3, 64)),
        vxlan_tunnel_addr: Some(Ipv4Addr::new(10, 1, 3, 65)),
        vxlan_tunnel_mac: Some("66:01:02:03:04:05".parse().unwrap()),
        vxlan_tunnel_addr_v6: Some("fd01::65".parse().unwrap()),
        vxlan_tunnel_mac_v6: None,
    };
    assert_eq!(resource(&text), Resource::Node(expected));
}

#[test]
fn a_node_without_spec_is_a_node_without_addresses() {
    for text in [
        "apiVersion: projectcalico.org/v3\nkind: Node\nmetadata: {name: n}\n".to_owned(),
        document("Node", "n", "null"),
        document("Node", "n", "{bgp: {asNumber: 65001, ipv4Address: ''}}"),
    ] {
        let Resource::Node(node) = resource(&text) else { panic!("{text}") };
        assert_eq!((node.ipv4, node.ipv6), (None, None));
    }
}

#[test]
fn a_pool_has_calicos_defaults() {
    let pool = |spec: &str| match resource(&document("IPPool", "p", spec)) {
        Resource::IpPool(pool) => pool,
        other => panic!("{other:?}"),
    };
    let plain = IpPool {
        name: "p".to_owned(),
        cidr: "10.1.0.0/16".parse().unwrap(),
        ipip_mode: EncapMode::Never,
        vxlan_mode: EncapMode::Never,
        nat_outgoing: false,
        disabled: false,
        disable_bgp_export: false,
    };
    assert_eq!(pool("{cidr: 10.1.0.0/16, blockSize: 0, ipipMode: ''}"), plain);
    assert_eq!(
        pool(
            "{cidr: 10.1.0.0/16, ipipMode: CrossSubnet, vxlanMode: Never, natOutgoing: true, disabled: true, \
              disableBGPExport: true, nodeSelector: all(), allowedUses: [Workload, Tunnel]}"
        ),
        IpPool {
            ipip_mode: EncapMode::CrossSubnet,
            nat_outgoing: true,
            disabled: true,
            disable_bgp_export: true,
            ..plain
        }
    );
}

#[test]
fn a_workload_endpoint_lives_in_namespace_default_unless_told_otherwise() {
    let spec = "{node: n1, orchestrator: k8s, interfaceName: cali0ef24ba, mac: ca:fe:1d:52:bb:e9, \
                ipNetworks: [10.1.3.66/32, 'fd00::42', 10.1.3.67], profiles: [kns.default], allowedIps: []}";
    let labels = |namespace: &str| {
        let label = |name: &str, value: &str| (format!("projectcalico.org/{name}"), value.to_owned());
        BTreeMap::from([label("namespace", namespace), label("orchestrator", "k8s")])
    };
    let expected = WorkloadEndpoint {
        namespace: "default".to_owned(),
        name: "w".to_owned(),
        labels: labels("default"),
        profiles: vec!["kns.default".to_owned()],
        node: "n1".to_owned(),
        interface: "cali0ef24ba".to_owned(),
        mac: Some("ca:fe:1d:52:bb:e9".parse().unwrap()),
        ip_networks: ["10.1.3.66/32", "fd00::42/128", "10.1.3.67/32"].map(|p| p.parse().unwrap()).to_vec(),
        ..WorkloadEndpoint::default()
    };
    let text = document("WorkloadEndpoint", "w", spec);
    assert_eq!(resource(&text), Resource::WorkloadEndpoint(expected.clone()));
    let text = text.replace("{name: w}", "{name: w, namespace: shop}");
    let expected = WorkloadEndpoint { namespace: "shop".to_owned(), labels: labels("shop"), ..expected };
    assert_eq!(resource(&text), Resource::WorkloadEndpoint(expected));
}

#[test]
fn what_an_endpoint_may_send_and_is_known_by_elsewhere_is_read_whole() {
    let spec = "{node: n, interfaceName: cali1, ipNetworks: [10.1.3.66/32], \
                ipNATs: [{internalIP: 10.1.3.66, externalIP: 192.0.2.7}], \
                allowSpoofedSourcePrefixes: [10.0.0.1, 192.168.0.0/16], \
                qosControls: {ingressBandwidth: 1000000, ingressBurst: 0, egressPacketRate: 500, egressPacketBurst: 9, \
                egressMaxConnections: 20, egressPeakrate: 2000000, egressMinburst: 3000, dscp: AF21}}";
    let Resource::WorkloadEndpoint(endpoint) = resource(&document("WorkloadEndpoint", "w", spec)) else {
        panic!()
    };
    assert_eq!(
        endpoint.ip_nats,
        [IpNat { internal: "10.1.3.66".parse().unwrap(), external: "192.0.2.7".parse().unwrap() }]
    );
    let sources: Vec<String> = endpoint.allowed_sources.iter().map(ToString::to_string).collect();
    assert_eq!(sources, ["10.0.0.1/32", "192.168.0.0/16"]);
    let expected = QosControls {
        ingress: QosDirection { bandwidth: Some(1_000_000), ..QosDirection::default() },
        egress: QosDirection {
            peak_rate: Some(2_000_000),
            min_burst: Some(3_000),
            packet_rate: Some(500),
            packet_burst: Some(9),
            max_connections: Some(20),
            ..QosDirection::default()
        },
        dscp: Some(18),
    };
    assert_eq!(endpoint.qos, expected);
}

#[test]
fn a_workload_endpoint_without_addresses_is_left_out_with_a_word() {
    let text = document("WorkloadEndpoint", "w", "{node: n, interfaceName: cali1}");
    let manifest = parse(&text).unwrap();
    assert!(manifest.entries.is_empty());
    assert_eq!(
        manifest.ignored[0].to_string(),
        "f.yaml:4:7: WorkloadEndpoint(w): spec.ipNetworks: not used by this version"
    );
}

#[test]
fn what_is_told_with_networks_is_read_by_value_and_by_name() {
    let spec = "{communities: [{name: site, value: '65001:7'}, {name: rack, value: '65001:4200000000:9'}], \
                prefixAdvertisements: [{cidr: 10.65.0.0/16, communities: [site, '65001:8', site, rack]}], \
                serviceClusterIPs: [{cidr: 10.101.0.0/16}], serviceExternalIPs: [{cidr: 'fd80::1'}], \
                serviceLoadBalancerIPs: [{cidr: 90.15.0.0/24}], serviceLoadBalancerAggregation: Disabled, \
                bindMode: NodeIP, ipv4NormalRoutePriority: 5000, programClusterRoutes: Enabled, \
                localWorkloadPeeringIPV4: 10.64.0.1, ignoredInterfaces: ['eth*'], \
                nodeMeshPassword: {secretKeyRef: {name: passwords, key: mesh}}}";
    let large = BgpCommunity::Large(65001, 4_200_000_000, 9);
    let standard = |value| BgpCommunity::Standard(65001, value);
    let config = BgpConfiguration {
        name: "default".to_owned(),
        prefix_advertisements: Some(vec![PrefixAdvertisement {
            cidr: "10.65.0.0/16".parse().unwrap(),
            communities: vec![standard(7), standard(8), large],
        }]),
        service_cluster_ips: vec!["10.101.0.0/16".parse().unwrap()],
        service_external_ips: vec!["fd80::1/128".parse().unwrap()],
        service_load_balancer_ips: vec!["90.15.0.0/24".parse().unwrap()],
        load_balancers_one_by_one: true,
        bind_to_node_address: true,
        normal_route_priority_v4: Some(5000),
        ignored_interfaces: vec!["eth*".to_owned()],
        local_workload_peering_v4: Some([10, 64, 0, 1].into()),
        cluster_routes: Some(ClusterRoutes { ipip: true, no_encap: true }),
        mesh_password: Some(SecretKey { name: "passwords".to_owned(), key: "mesh".to_owned() }),
        ..BgpConfiguration::default()
    };
    assert_eq!(resource(&document("BGPConfiguration", "default", spec)), Resource::BgpConfiguration(config));
}

#[test]
fn both_configurations_say_whose_routes_to_other_nodes_are_in_the_same_words() {
    let words = ["Disabled", "EnabledIPIPOnly", "EnabledNoEncapOnly", "Enabled"];
    let meanings = [(false, false), (true, false), (false, true), (true, true)];
    for (word, (ipip, no_encap)) in words.into_iter().zip(meanings) {
        let spec = format!("{{programClusterRoutes: {word}}}");
        let expected = Some(ClusterRoutes { ipip, no_encap });
        let Resource::FelixConfiguration(felix) = resource(&document("FelixConfiguration", "default", &spec))
        else {
            panic!("it is Felix's")
        };
        let Resource::BgpConfiguration(bgp) = resource(&document("BGPConfiguration", "default", &spec))
        else {
            panic!("it is BGP's")
        };
        assert_eq!((felix.cluster_routes, bgp.cluster_routes), (Setting::from(expected), expected), "{word}");
    }
    let wrong = "{programClusterRoutes: enabled}";
    for kind in ["FelixConfiguration", "BGPConfiguration"] {
        assert!(parse(&document(kind, "default", wrong)).is_err(), "{kind}");
    }
}

#[test]
fn bgp_settings_and_peers_are_read_whole() {
    let spec = "{nodeToNodeMeshEnabled: true, asNumber: 64600, listenPort: 1179, nodeMeshMaxRestartTime: 2m}";
    let config = BgpConfiguration {
        name: "default".to_owned(),
        node_to_node_mesh: Some(true),
        as_number: Some(AsNumber(64600)),
        listen_port: Some(1179),
        mesh_max_restart_time: Some(Duration::from_secs(120)),
        ..BgpConfiguration::default()
    };
    assert_eq!(resource(&document("BGPConfiguration", "default", spec)), Resource::BgpConfiguration(config));

    let peer = BgpPeer {
        name: "tor".to_owned(),
        nodes: PeerNodes::Named("n1".to_owned()),
        target: PeerTarget::Address("[fd00::1]:1790".parse().unwrap()),
        as_number: Some(AsNumber(65001)),
        filters: vec!["f".to_owned()],
        local_as_number: Some(AsNumber(65010)),
        allowed_local_as: 2,
        reachable_by: Some("fd00::fe".parse().unwrap()),
        reverse_peering: false,
        next_hop_keep: true,
        keep_original_next_hop: false,
        next_hop_self: false,
        bind_to_node_address: false,
        max_restart_time: Some(Duration::from_secs(90)),
        keepalive_time: Some(Duration::from_secs(20)),
        ttl_security: Some(2),
        bfd: true,
        password: Some(SecretKey { name: "passwords".to_owned(), key: "tor".to_owned() }),
    };
    let spec = "{node: n1, peerIP: '[fd00::1]:1790', asNumber: '65001', nextHopMode: Keep, sourceAddress: None, \
                maxRestartTime: 90s, keepaliveTime: 20s, nodeSelector: '', filters: [f], localASNumber: 65010, \
                numAllowedLocalASNumbers: 2, reachableBy: 'fd00::fe', reversePeering: Manual, ttlSecurity: 2, failureDetectionMode: BFDIfDirectlyConnected, \
                password: {secretKeyRef: {name: passwords, key: tor}}}";
    assert_eq!(resource(&document("BGPPeer", "tor", spec)), Resource::BgpPeer(peer));

    let spec = "{peerIP: 10.0.0.1, asNumber: 65001, nodeSelector: all()}";
    let Resource::BgpPeer(peer) = resource(&document("BGPPeer", "tor", spec)) else { panic!() };
    assert_eq!((peer.nodes, peer.bind_to_node_address), (PeerNodes::Selected("all()".to_owned()), true));
    assert!(peer.reverse_peering);

    let spec = "{peerSelector: has(rr), asNumber: 0}";
    let Resource::BgpPeer(peer) = resource(&document("BGPPeer", "rr", spec)) else { panic!() };
    let all = (peer.nodes, peer.target, peer.as_number);
    assert_eq!(all, (PeerNodes::All, PeerTarget::Nodes("has(rr)".to_owned()), None));
}

#[test]
fn the_older_field_that_keeps_next_hops_is_told_apart_from_the_mode() {
    for (field, mode, older) in [
        ("keepOriginalNextHop: true", false, true),
        ("keepOriginalNextHop: false", false, false),
        ("nextHopMode: Keep", true, false),
        ("nextHopMode: Auto", false, false),
    ] {
        let spec = format!("{{peerIP: 10.0.0.1, asNumber: 65001, {field}}}");
        let Resource::BgpPeer(peer) = resource(&document("BGPPeer", "tor", &spec)) else { panic!() };
        assert_eq!((peer.next_hop_keep, peer.keep_original_next_hop), (mode, older), "{field}");
    }
}

#[test]
fn block_affinities_come_with_deleted_as_text_or_bool() {
    let block = |rest: &str| {
        parse(&document("BlockAffinity", "n-10-65-0-0-26", &format!("{{cidr: 10.65.0.0/26, node: n{rest}}}")))
    };
    let affinity =
        |state| BlockAffinity { cidr: "10.65.0.0/26".parse().unwrap(), node: "n".to_owned(), state };
    for (rest, state) in [
        ("", AffinityState::Confirmed),
        (", state: ''", AffinityState::Confirmed),
        (", state: confirmed, deleted: 'false'", AffinityState::Confirmed),
        (", state: pending, deleted: false", AffinityState::Pending),
        (", state: pendingDeletion, type: host", AffinityState::PendingDeletion),
    ] {
        let manifest = block(rest).unwrap();
        assert_eq!(*manifest.entries[0].resource, Resource::BlockAffinity(affinity(state)), "{rest}");
    }
    assert!(block(", type: virtual").unwrap().entries.is_empty());
    for rest in [", deleted: 'true'", ", deleted: true"] {
        let text = format!("{{cidr: 10.65.0.0/26, node: n{rest}}}");
        let text = document("BlockAffinity", "n-10-65-0-0-26", &text);
        let read = |reader| manifest::parse(Path::new("f.yaml"), &text, 100, reader);
        assert!(read(Reader::Router).unwrap().entries.is_empty(), "{rest}");
        assert_eq!(read(Reader::Writer).unwrap_err()[0].field.as_deref(), Some("spec.deleted"), "{rest}");
    }
}

/// As `kubectl get ipamblocks -o yaml` shows one.
#[test]
fn blocks_come_with_their_allocations() {
    let block = |rest: &str| {
        let text = format!(
            "apiVersion: crd.projectcalico.org/v1\nkind: IPAMBlock\nmetadata: {{name: 10-65-0-64-30}}\n\
             spec: {{cidr: 10.65.0.64/30, {rest}sequenceNumber: 1760000000000000123, \
             sequenceNumberForAllocation: {{'0': 1760000000000000122}}, strictAffinity: false, \
             allocations: [0, null, 1, null], unallocated: [1, 3], attributes: [\
             {{handle_id: vxlan-tunnel-addr-n, secondary: {{node: n, type: vxlanTunnelAddress}}}}, \
             {{secondary: {{node: m}}, releasedAt: '2026-01-01T00:00:00Z'}}, {{}}]}}\n"
        );
        parse(&text).map(|manifest| manifest.entries.first().map(|entry| entry.resource.as_ref().clone()))
    };
    let owner = |pairs: &[(&str, &str)]| {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    };
    let expected = |node: Option<&str>| {
        Some(Resource::IpamBlock(IpamBlock {
            cidr: "10.65.0.64/30".parse().unwrap(),
            node: node.map(str::to_owned),
            allocations: vec![Some(0), None, Some(1), None],
            attributes: vec![
                AllocationAttributes {
                    handle: Some("vxlan-tunnel-addr-n".to_owned()),
                    owner: owner(&[("node", "n"), ("type", "vxlanTunnelAddress")]),
                    is_released: false,
                },
                AllocationAttributes { handle: None, owner: owner(&[("node", "m")]), is_released: true },
                AllocationAttributes::default(),
            ],
        }))
    };
    assert_eq!(block("affinity: 'host:n', ").unwrap(), expected(Some("n")));
    assert_eq!(block("hostAffinity: n, ").unwrap(), expected(Some("n")));
    for nobodys in ["", "affinity: 'virtual:load-balancer', ", "affinity: null, "] {
        assert_eq!(block(nobodys).unwrap(), expected(None), "{nobodys}");
    }
    assert_eq!(block("affinity: 'host:n', deleted: true, ").unwrap(), None);
}

#[test]
fn other_kinds_have_one_version_only() {
    let text = "apiVersion: crd.projectcalico.org/v1\nkind: Node\nmetadata: {name: n}\n";
    assert!(parse(text).unwrap_err()[0].contains("expected \"projectcalico.org/v3\""));
}

#[test]
fn broken_rules_are_named_by_field_and_reason() {
    for (kind, spec, expected) in [
        (
            "WorkloadEndpoint",
            "{node: n, interfaceName: cali1, ipNetworks: [10.1.3.66/32], ipNATs: [{internalIP: 10.1.3.67, externalIP: \
             192.0.2.7}]}",
            "spec.ipNATs[0].internalIP: 10.1.3.67 is none of the workload's own addresses (spec.ipNetworks)",
        ),
        (
            "WorkloadEndpoint",
            "{node: n, interfaceName: cali1, ipNetworks: [10.1.3.66/32], qosControls: {dscp: AF51}}",
            "spec.qosControls.dscp: \"AF51\" is not a DSCP: expected 0 to 63, or a name such as \"EF\", \"AF21\" or \
             \"CS3\"",
        ),
        (
            "FelixConfiguration",
            "{natPortRange: '9:3'}",
            "spec.natPortRange: \"9:3\" is not a range of ports: expected a number, or \"FIRST:LAST\" from 1 to 65535",
        ),
        (
            "FelixConfiguration",
            "{natOutgoingAddress: 1.2.3.4/32}",
            "spec.natOutgoingAddress: \"1.2.3.4/32\" is not a valid IPv4 address",
        ),
        ("IPPool", "{}", "spec.cidr: is required"),
        ("IPPool", "{cidr: 10.1.0.0/33}", "spec.cidr: \"10.1.0.0/33\" is not a valid address"),
        (
            "IPPool",
            "{cidr: 10.1.0.7/16}",
            "spec.cidr: 10.1.0.7/16 must be strictly masked: write 10.1.0.0/16",
        ),
        ("IPPool", "{cidr: 169.254.5.0/24}", "spec.cidr: overlaps the link-local range 169.254.0.0/16"),
        ("IPPool", "{cidr: 'fe80::/64'}", "spec.cidr: overlaps the link-local range fe80::/10"),
        ("IPPool", "{cidr: 10.1.0.0/27}", "spec.cidr: the pool is smaller than its blocks of /26"),
        (
            "IPPool",
            "{cidr: 10.1.0.0/16, blockSize: 19}",
            "spec.blockSize: 19 is out of range: expected 20 to 32",
        ),
        (
            "IPPool",
            "{cidr: 'fd00::/64', ipipMode: Always}",
            "spec.ipipMode: IPIP is not supported on an IPv6 pool: use vxlanMode, or Never",
        ),
        (
            "IPPool",
            "{cidr: 10.1.0.0/16, ipipMode: Always, vxlanMode: CrossSubnet}",
            "spec.ipipMode: ipipMode and vxlanMode can't both be enabled: set one of them to Never",
        ),
        (
            "IPPool",
            "{cidr: 10.1.0.0/16, vxlanMode: never}",
            "spec.vxlanMode: \"never\" is none of Never, Always, CrossSubnet",
        ),
        (
            "IPPool",
            "{cidr: 10.1.0.0/16, nodeSelector: 'has(rack'}",
            "spec.nodeSelector: not a selector: at character 9: expected a closing ), found the end",
        ),
        (
            "IPPool",
            "{cidr: 10.1.0.0/16, nodeSelector: global()}",
            "spec.nodeSelector: global() can stand in a rule's namespaceSelector only, and only alone",
        ),
        (
            "IPPool",
            "{cidr: 10.1.0.0/16, namespaceSelector: ' global( ) || has(a)'}",
            "spec.namespaceSelector: global() can stand in a rule's namespaceSelector only, and only alone",
        ),
        (
            "IPPool",
            "{cidr: 10.1.0.0/16, assignmentMode: Sometimes}",
            "spec.assignmentMode: \"Sometimes\" is none of Automatic, Manual",
        ),
        (
            "IPPool",
            "{cidr: 10.1.0.0/16, namespaceSelector: 'has(rack'}",
            "spec.namespaceSelector: not a selector: at character 9: expected a closing ), found the end",
        ),
        (
            "IPPool",
            "{cidr: 10.1.0.0/16, allowedUses: [LoadBalancer], nodeSelector: has(rack)}",
            "spec.allowedUses: can't be set together with spec.nodeSelector",
        ),
        (
            "IPPool",
            "{cidr: 10.1.0.0/16, natOutgoing: 'true'}",
            "spec.natOutgoing: expected true or false, found a text",
        ),
        ("WorkloadEndpoint", "{interfaceName: cali1}", "spec.node: is required"),
        ("WorkloadEndpoint", "{node: n, interfaceName: ''}", "spec.interfaceName: is required"),
        (
            "WorkloadEndpoint",
            "{node: n, interfaceName: cali1, ipNetworks: [10.0.0.1/32, 10.0.0.0/24]}",
            "spec.ipNetworks[1]: 10.0.0.0/24 must be a single address: a /32 or a /128",
        ),
        (
            "WorkloadEndpoint",
            "{node: n, interfaceName: cali1, mac: 'ca:fe'}",
            "spec.mac: \"ca:fe\" is not a valid MAC address",
        ),
        ("Node", "{bgp: {}}", "spec.bgp: must not be empty: give it a field, or leave it out"),
        (
            "Node",
            "{bgp: {ipv4Address: 10.0.0.300}}",
            "spec.bgp.ipv4Address: \"10.0.0.300\" is not a valid address",
        ),
        ("Node", "{bgp: {ipv6Address: 10.0.0.3}}", "spec.bgp.ipv6Address: 10.0.0.3 is not an IPv6 address"),
        (
            "Node",
            "{bgp: {ipv4Address: 10.0.0.3, asNumber: 64086.5}}",
            "spec.bgp.asNumber: expected a whole number, found a number that isn't whole, or is too large (put a text in quotes)",
        ),
        (
            "Node",
            "{bgp: {asNumber: 4294967296}}",
            "spec.bgp.asNumber: 4294967296 is out of range: expected 0 to 4294967295",
        ),
        (
            "Node",
            "{bgp: {ipv4Address: 1.2.3.4/32, routeReflectorClusterID: 300.34.3.1}}",
            "spec.bgp.routeReflectorClusterID: \"300.34.3.1\" is not a valid cluster ID in dotted form",
        ),
        ("Node", "[]", "spec: expected a mapping, found a list"),
        ("BGPConfiguration", "{listenPort: 0}", "spec.listenPort: 0 is out of range: expected 1 to 65535"),
        (
            "BGPConfiguration",
            "{nodeToNodeMeshEnabled: false, nodeMeshPassword: {secretKeyRef: {name: a, key: b}}}",
            "spec.nodeMeshPassword: needs spec.nodeToNodeMeshEnabled",
        ),
        (
            "BGPConfiguration",
            "{communities: [{name: a, value: '1:2'}]}",
            "spec.communities: needs spec.prefixAdvertisements",
        ),
        (
            "BGPConfiguration",
            "{prefixAdvertisements: [{cidr: 10.0.0.0/8, communities: [unknown]}]}",
            "spec.prefixAdvertisements[0].communities[0]: \"unknown\": expected a community, aa:nn or aa:nn:mm",
        ),
        (
            "BGPConfiguration",
            "{prefixAdvertisements: [{cidr: 10.0.0.0/8}]}",
            "spec.prefixAdvertisements[0].communities: is required",
        ),
        ("BGPPeer", "{reachableBy: 10.0.0.1}", "spec.reachableBy: needs spec.peerIP"),
        (
            "BGPPeer",
            "{peerIP: '10.0.0.1:', asNumber: 65001}",
            "spec.peerIP: \"10.0.0.1:\" is not a peer's address: expected ip, ip:port or [ipv6]:port",
        ),
        (
            "BGPPeer",
            "{peerSelector: has(rr), asNumber: 65001}",
            "spec.asNumber: can't be set together with spec.peerSelector",
        ),
        (
            "BGPPeer",
            "{peerIP: 10.0.0.1, peerSelector: has(rr)}",
            "spec.peerIP: can't be set together with spec.peerSelector",
        ),
        (
            "BGPPeer",
            "{peerIP: 10.0.0.1, asNumber: 1, reachableBy: 'fd00::1'}",
            "spec.reachableBy: fd00::1 is not an IPv4 address",
        ),
        (
            "BGPPeer",
            "{peerIP: 10.0.0.1, asNumber: 1, nodeSelector: 'has(rack'}",
            "spec.nodeSelector: not a selector: at character 9: expected a closing ), found the end",
        ),
        ("BGPPeer", "{localWorkloadSelector: all()}", "spec.asNumber: is required"),
        (
            "BGPPeer",
            "{peerIP: 10.0.0.1, asNumber: 1, nextHopMode: Self, keepOriginalNextHop: true}",
            "spec.nextHopMode: can't be set together with spec.keepOriginalNextHop",
        ),
        (
            "BGPPeer",
            "{peerIP: 10.0.0.1, asNumber: 1, maxRestartTime: 90}",
            "spec.maxRestartTime: expected a text, found a number (put a text in quotes)",
        ),
        ("BlockAffinity", "{node: n}", "spec.cidr: is required"),
        ("IPAMBlock", "{affinity: 'host:n'}", "spec.cidr: is required"),
        (
            "IPAMBlock",
            "{cidr: 10.65.0.64/30, allocations: [null, 1], attributes: [{}]}",
            "spec.allocations[1]: 1 is out of range: expected 0 to 0",
        ),
        ("BlockAffinity", "{cidr: 10.65.0.0/26}", "spec.node: is required"),
        (
            "BlockAffinity",
            "{cidr: 10.65.0.0/26, node: n, state: claimed}",
            "spec.state: \"claimed\" is none of confirmed, pending, pendingDeletion",
        ),
        (
            "BlockAffinity",
            "{cidr: 10.65.0.0/26, node: n, deleted: 1}",
            "spec.deleted: expected true or false, found a number (put a text in quotes)",
        ),
    ] {
        assert_eq!(problem(kind, spec), expected);
    }
}

#[test]
fn settings_of_one_node_are_no_place_for_the_clusters_settings() {
    assert!(parse(&document("BGPConfiguration", "node.n1", "{listenPort: 1179}")).is_ok());
    let problems = parse(&document("BGPConfiguration", "node.n1", "{asNumber: 1}")).unwrap_err();
    assert!(
        problems[0].ends_with("can be set on the BGPConfiguration named \"default\" only"),
        "{problems:?}"
    );
    let problems = parse(&document("BGPConfiguration", "mine", "{}")).unwrap_err();
    assert!(problems[0].contains("metadata.name: \"mine\""), "{problems:?}");
}

#[test]
fn a_name_is_required_and_must_be_usable() {
    for (metadata, expected) in [
        ("{}", "f.yaml:3:11: Node: metadata.name: is required"),
        ("{name: ''}", "f.yaml:3:18: Node: metadata.name: is required"),
        ("{name: [7]}", "f.yaml:3:18: Node: metadata.name: expected a text, found a list"),
    ] {
        let text = format!("apiVersion: projectcalico.org/v3\nkind: Node\nmetadata: {metadata}\n");
        assert_eq!(parse(&text).unwrap_err(), [expected]);
    }
    let problems = parse(&document("Node", "a/b", "{}")).unwrap_err();
    assert!(problems[0].contains("\"a/b\" can't name a Node"), "{problems:?}");
}

#[test]
fn a_peer_that_nobody_is_has_no_effect() {
    let manifest = parse(&document("BGPPeer", "mine", "{node: n1, ttlSecurity: 1}")).unwrap();
    assert!(manifest.entries.is_empty());
    assert_eq!(manifest.ignored[0].field.as_deref(), Some("spec.peerIP"));
    let problems = parse(&document("BGPPeer", "mine", "{sourceAddress: Any}")).unwrap_err();
    assert!(problems[0].contains("spec.sourceAddress"), "{problems:?}");
}

#[test]
fn of_a_cluster_its_type_is_read_and_whether_it_is_open() {
    let cluster = |name: &str, spec: &str| parse(&document("ClusterInformation", name, spec)).unwrap();
    let read = cluster("default", "{clusterType: 'openstack,bgp', clusterGUID: x, calicoVersion: v3.33.0}");
    let (name, cluster_type) = ("default".to_owned(), "openstack,bgp".to_owned());
    let expected = Resource::ClusterInformation(ClusterInformation { name, cluster_type });
    assert_eq!(*read.entries[0].resource, expected);
    assert!(!read.closes && read.ignored.is_empty());
    let closed = cluster("default", "{datastoreReady: false}");
    assert!(closed.closes && closed.entries.is_empty());
    let other = cluster("other", "{datastoreReady: false, clusterType: openstack}");
    assert!(!other.closes && other.entries.is_empty());
}

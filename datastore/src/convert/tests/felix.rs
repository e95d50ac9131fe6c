//! FelixConfiguration.

use std::net::Ipv4Addr;
use std::time::{Duration, SystemTime};

use model::{
    ConntrackTimeouts, DenyAction, EndpointToHost, FailsafePort, FelixConfiguration, LogRate,
    NatOutgoingExclusions, Protocol, Reporting, ReversePath,
    Setting::{self, Given},
};

use super::*;

#[test]
fn settings_of_the_dataplane_are_read_whole() {
    let spec = "{metadataAddr: None, metadataPort: 80, ipipEnabled: true, ipipMTU: 1440, vxlanEnabled: false, vxlanMTU: 0, vxlanMTUV6: 1430, \
                vxlanPort: 8472, vxlanVNI: 1, programClusterRoutes: EnabledNoEncapOnly, \
                allowIPIPPacketsFromWorkloads: true, externalNodesList: [10.9.0.0/16], \
                workloadSourceSpoofing: Any, floatingIPs: Enabled, natOutgoingAddress: 192.0.2.1, \
                natPortRange: '1024:65535', natOutgoingExclusions: IPPoolsAndHostIPs, bpfEnforceRPF: Strict, \
                bpfConntrackTimeouts: {udpTimeout: 30s, tcpFinsSeen: Auto}, interfacePrefix: 'cali,tap', interfaceExclude: '/^kube/,veth1', \
                defaultEndpointToHostAction: accept, failsafeInboundHostPorts: [{protocol: tcp, port: 22, net: \
                10.0.0.0/8}, {port: 179}], failsafeOutboundHostPorts: [], disableConntrackInvalidCheck: true, \
                iptablesFilterDenyAction: Drop, nftablesFilterDenyAction: REJECT, logPrefix: 'a b%', \
                logActionRateLimit: 100/minute, logActionRateLimitBurst: 7, reportingInterval: 15s, \
                endpointReportingEnabled: true, endpointReportingDelay: 500ms, bpfEnabled: true}";
    let expected = FelixConfiguration {
        name: "default".to_owned(),
        created: None,
        node_selector: None,
        metadata_addr: Given(String::new()),
        metadata_port: Given(80),
        ipip_enabled: Given(true),
        ipip_mtu: Given(1440),
        vxlan_enabled: Given(false),
        vxlan_mtu: Setting::Standard,
        vxlan_mtu_v6: Given(1430),
        vxlan_port: Given(8472),
        vxlan_vni: Given(1),
        cluster_routes: Given(ClusterRoutes { ipip: false, no_encap: true }),
        allow_ipip_from_workloads: Given(true),
        allow_vxlan_from_workloads: Setting::Absent,
        external_nodes: Given(vec!["10.9.0.0/16".parse().unwrap()]),
        workload_source_spoofing: Given(true),
        floating_ips: Given(true),
        nat_outgoing_address: Given(Ipv4Addr::new(192, 0, 2, 1)),
        nat_port_range: Given(1024..=65535),
        nat_outgoing_exclusions: Given(NatOutgoingExclusions::IpPoolsAndHostIps),
        reverse_path: Given(ReversePath::Strict),
        conntrack_timeouts: Given(ConntrackTimeouts {
            udp: Some(Duration::from_secs(30)),
            ..ConntrackTimeouts::default()
        }),
        interface_prefixes: Given(vec!["cali".to_owned(), "tap".to_owned()]),
        interface_exclude: Given(vec!["/^kube/".to_owned(), "veth1".to_owned()]),
        endpoint_to_host: Given(EndpointToHost::Accept),
        failsafe_inbound: Given(vec![
            FailsafePort { protocol: Protocol::TCP, port: 22, net: Some("10.0.0.0/8".parse().unwrap()) },
            FailsafePort { protocol: Protocol::TCP, port: 179, net: None },
        ]),
        failsafe_outbound: Given(Vec::new()),
        conntrack_invalid_allowed: Given(true),
        deny_action: Given(DenyAction::Reject),
        log_prefix: Given("a b%".to_owned()),
        log_rate: Given(LogRate { packets: 100, per: Duration::from_secs(60) }),
        log_burst: Given(7),
        reporting: Reporting {
            interval: Given(Duration::from_secs(15)),
            ttl: Setting::Absent,
            endpoints: Given(true),
            endpoint_delay: Given(Duration::from_millis(500)),
        },
    };
    assert_eq!(configuration("{}", spec).0, expected);
}

/// What becomes of a FelixConfiguration that the router finds, and what is said to have no effect.
fn configuration(annotations: &str, spec: &str) -> (FelixConfiguration, Vec<String>) {
    let name = format!("default, annotations: {annotations}");
    let text = document("FelixConfiguration", &name, spec);
    let manifest = manifest::parse(Path::new("f.yaml"), &text, 100, Reader::Router).unwrap();
    let ignored = manifest.ignored.iter().filter_map(|ignored| ignored.field.clone()).collect();
    match Resource::clone(&manifest.entries[0].resource) {
        Resource::FelixConfiguration(config) => (config, ignored),
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_annotation_hides_the_field_that_it_stands_for() {
    let annotations = "{config.projectcalico.org/VXLANPort: '0x2118', config.projectcalico.org/ipinipmtu: none, \
                       config.projectcalico.org/IpInIpEnabled: 'Yes', config.projectcalico.org/LogPrefix: None, \
                       config.projectcalico.org/FloatingIPs: '', config.projectcalico.org/WorkloadSourceSpoofing: ANY, \
                       config.projectcalico.org/ExternalNodesCIDRList: '10.9.0.0/16, 10.8.0.1/32,', \
                       config.projectcalico.org/FailsafeInboundHostPorts: '22, udp:68,,tcp:[fd00::/64]:179,tcp:10.0.0.0/8:80,[fd01::]:81', \
                       config.projectcalico.org/FailsafeOutboundHostPorts: none, \
                       config.projectcalico.org/BPFConntrackTimeouts: 'UDPTimeout=30s,ICMPTimeout=Auto', \
                       config.projectcalico.org/ReportingTTLSecs: '1.5', \
                       other.example.org/VXLANVNI: '7'}";
    let spec = "{vxlanPort: 4790, vxlanVNI: 5, floatingIPs: Enabled, ipipMTU: 1400}";
    let (config, ignored) = configuration(annotations, spec);
    let failsafe = |protocol, port, net: Option<&str>| FailsafePort {
        protocol,
        port,
        net: net.map(|net| net.parse().unwrap()),
    };
    let expected = FelixConfiguration {
        name: "default".to_owned(),
        vxlan_port: Given(8472),
        vxlan_vni: Given(5),
        ipip_mtu: Setting::Standard,
        ipip_enabled: Given(true),
        log_prefix: Given(String::new()),
        // Nothing at all: the spec is hidden and the parameter isn't set.
        floating_ips: Setting::Absent,
        external_nodes: Given(vec!["10.9.0.0/16".parse().unwrap(), "10.8.0.1/32".parse().unwrap()]),
        failsafe_inbound: Given(vec![
            failsafe(Protocol::TCP, 22, None),
            failsafe(Protocol::UDP, 68, None),
            failsafe(Protocol::TCP, 179, Some("fd00::/64")),
            failsafe(Protocol::TCP, 80, Some("10.0.0.0/8")),
            failsafe(Protocol::TCP, 81, Some("fd01::")),
        ]),
        workload_source_spoofing: Given(true),
        failsafe_outbound: Given(Vec::new()),
        conntrack_timeouts: Given(ConntrackTimeouts {
            udp: Some(Duration::from_secs(30)),
            ..ConntrackTimeouts::default()
        }),
        reporting: Reporting { ttl: Given(Duration::from_millis(1500)), ..Reporting::default() },
        ..FelixConfiguration::default()
    };
    assert_eq!((config, ignored), (expected, Vec::new()));
}

#[test]
fn an_annotation_that_is_no_good_is_the_default_and_is_told() {
    let annotations = "{config.projectcalico.org/VXLANPort: many, config.projectcalico.org/VXLANEnabled: maybe, \
                       config.projectcalico.org/InterfacePrefix: 'cali!', config.projectcalico.org/Wibble: x}";
    let (config, ignored) =
        configuration(annotations, "{vxlanPort: 4790, vxlanEnabled: true, interfacePrefix: tap}");
    let standard = FelixConfiguration {
        name: "default".to_owned(),
        vxlan_port: Setting::Standard,
        vxlan_enabled: Setting::Standard,
        interface_prefixes: Setting::Standard,
        ..FelixConfiguration::default()
    };
    assert_eq!(config, standard);
    for name in ["VXLANPort", "VXLANEnabled", "InterfacePrefix", "Wibble"] {
        assert!(
            ignored.iter().any(|told| told.ends_with(&format!("config.projectcalico.org/{name}"))),
            "{ignored:?}"
        );
    }
    assert_eq!(ignored.len(), 4);
}

#[test]
fn a_setting_that_would_change_packets_under_felix_and_not_here_is_told() {
    let spec = "{wireguardEnabled: true, wireguardEnabledV6: false, ipv6Support: false, ipForwarding: Enabled, \
                iptablesNATOutgoingInterfaceFilter: eth+, routeSource: calicoIPAM, bpfEnabled: true}";
    let (_, told) = configuration("{}", spec);
    assert_eq!(
        told,
        ["spec.wireguardEnabled", "spec.ipv6Support", "spec.iptablesNATOutgoingInterfaceFilter"]
    );
}

#[test]
fn a_configuration_of_another_name_is_for_the_nodes_that_it_selects() {
    let text = document(
        "FelixConfiguration",
        "gpu, creationTimestamp: '1970-01-01T00:00:07Z'",
        "{nodeSelector: has(gpu)}",
    );
    let expected = FelixConfiguration {
        name: "gpu".to_owned(),
        created: Some(SystemTime::UNIX_EPOCH + Duration::from_secs(7)),
        node_selector: Some("has(gpu)".to_owned()),
        ..FelixConfiguration::default()
    };
    assert_eq!(resource(&text), Resource::FelixConfiguration(expected));
    assert!(problem("FelixConfiguration", "{nodeSelector: has(}").starts_with("spec.nodeSelector: "));
    // Whom `default` is for is in its name.
    assert_eq!(configuration("{}", "{nodeSelector: has(gpu)}").1, ["spec.nodeSelector"]);
}

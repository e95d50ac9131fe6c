//! Each kind's own struct, and the structs of those that aren't policies.

use super::metadata::{API_VERSION, BGP_PASSWORD, CONDITION, KIND, METADATA, disabled};
use super::policy::{
    GLOBAL_NETWORK_POLICY, NETWORK_POLICY, PROFILE, STAGED_GLOBAL_NETWORK_POLICY,
    STAGED_KUBERNETES_NETWORK_POLICY, STAGED_NETWORK_POLICY, TIER,
};
use super::{
    INT, INT32, INT64, Int, Member, Presence, Struct, Type, UINT8, UINT16, UINT32, always, choice, duration,
    felix, filled, flag, given, number, text, texts,
};
use crate::ResourceKind;

/// A kind's struct.
macro_rules! whole {
    ($name:literal, $spec:expr) => {{
        static OF: Struct = Struct {
            name: $name,
            members: &[KIND, API_VERSION, METADATA, always("spec", Type::Struct($spec))],
        };
        &OF
    }};
    ($name:literal, $spec:expr, $status:expr) => {{
        static OF: Struct = Struct {
            name: $name,
            members: &[KIND, API_VERSION, METADATA, always("spec", Type::Struct($spec)), $status],
        };
        &OF
    }};
}

/// The struct of a kind's resources.
pub(crate) fn of(kind: ResourceKind) -> &'static Struct {
    match kind {
        ResourceKind::BgpConfiguration => whole!("BGPConfiguration", &BGP_CONFIGURATION),
        ResourceKind::BgpFilter => whole!("BGPFilter", &BGP_FILTER),
        ResourceKind::BgpPeer => whole!("BGPPeer", &BGP_PEER),
        ResourceKind::BlockAffinity => whole!("BlockAffinity", &BLOCK_AFFINITY),
        ResourceKind::CalicoNodeStatus => {
            whole!("CalicoNodeStatus", &NODE_STATUS, always("status", Type::Struct(&NODE_STATUS_STATUS)))
        }
        ResourceKind::ClusterInformation => whole!("ClusterInformation", &CLUSTER_INFORMATION),
        ResourceKind::FelixConfiguration => whole!("FelixConfiguration", &felix::SPEC),
        ResourceKind::GlobalNetworkPolicy => {
            whole!("GlobalNetworkPolicy", &GLOBAL_NETWORK_POLICY, POLICY_STATUS)
        }
        ResourceKind::GlobalNetworkSet => whole!("GlobalNetworkSet", &GLOBAL_NETWORK_SET),
        ResourceKind::HostEndpoint => whole!("HostEndpoint", &HOST_ENDPOINT),
        ResourceKind::IpamConfiguration => whole!("IPAMConfiguration", &IPAM_CONFIGURATION),
        ResourceKind::IpPool => {
            whole!("IPPool", &IP_POOL, given("status", Type::Struct(&IP_POOL_STATUS)))
        }
        ResourceKind::IpReservation => whole!("IPReservation", &IP_RESERVATION),
        ResourceKind::KubeControllersConfiguration => whole!(
            "KubeControllersConfiguration",
            &KUBE_CONTROLLERS,
            always("status", Type::Struct(&KUBE_CONTROLLERS_STATUS))
        ),
        ResourceKind::LiveMigration => whole!("LiveMigration", &LIVE_MIGRATION),
        ResourceKind::NetworkPolicy => whole!("NetworkPolicy", &NETWORK_POLICY, POLICY_STATUS),
        ResourceKind::NetworkSet => whole!("NetworkSet", &NETWORK_SET),
        ResourceKind::Node => whole!("Node", &NODE, always("status", Type::Struct(&NODE_STATE))),
        ResourceKind::Profile => whole!("Profile", &PROFILE),
        ResourceKind::StagedGlobalNetworkPolicy => {
            whole!("StagedGlobalNetworkPolicy", &STAGED_GLOBAL_NETWORK_POLICY, POLICY_STATUS)
        }
        ResourceKind::StagedKubernetesNetworkPolicy => {
            whole!("StagedKubernetesNetworkPolicy", &STAGED_KUBERNETES_NETWORK_POLICY, POLICY_STATUS)
        }
        ResourceKind::StagedNetworkPolicy => {
            whole!("StagedNetworkPolicy", &STAGED_NETWORK_POLICY, POLICY_STATUS)
        }
        ResourceKind::Tier => whole!("Tier", &TIER, TIER_STATUS),
        ResourceKind::WorkloadEndpoint => whole!("WorkloadEndpoint", &WORKLOAD_ENDPOINT),
    }
}

/// What Kubernetes' API server says about a policy.
const POLICY_STATUS: Member = given("status", Type::Struct(&CONDITIONS_OF_POLICY));
static CONDITIONS_OF_POLICY: Struct =
    Struct { name: "PolicyStatus", members: &[structs("conditions", &Type::Struct(&CONDITION))] };

/// And what it says about a tier.
const TIER_STATUS: Member = given("status", Type::Struct(&CONDITIONS_OF_TIER));
static CONDITIONS_OF_TIER: Struct =
    Struct { name: "TierStatus", members: &[structs("conditions", &Type::Struct(&CONDITION))] };

const fn structs(name: &'static str, of: &'static Type) -> Member {
    Member { name, ty: Type::List(of), presence: Presence::Filled }
}

const fn int(name: &'static str, int: Int) -> Member {
    filled(name, Type::Int(int))
}

static BGP_CONFIGURATION: Struct = Struct {
    name: "BGPConfigurationSpec",
    members: &[
        text("logSeverityScreen"),
        choice("nodeToNodeMeshEnabled"),
        given("asNumber", Type::AsNumber),
        structs("serviceLoadBalancerIPs", &Type::Struct(&CIDR_BLOCK)),
        structs("serviceExternalIPs", &Type::Struct(&CIDR_BLOCK)),
        structs("serviceClusterIPs", &Type::Struct(&CIDR_BLOCK)),
        given("serviceLoadBalancerAggregation", Type::Text),
        structs("communities", &Type::Struct(&COMMUNITY)),
        structs("prefixAdvertisements", &Type::Struct(&PREFIX_ADVERTISEMENT)),
        int("listenPort", UINT16),
        given("nodeMeshPassword", Type::Struct(&BGP_PASSWORD)),
        duration("nodeMeshMaxRestartTime"),
        given("bindMode", Type::Text),
        texts("ignoredInterfaces"),
        text("localWorkloadPeeringIPV4"),
        text("localWorkloadPeeringIPV6"),
        number("ipv4NormalRoutePriority"),
        number("ipv6NormalRoutePriority"),
        given("programClusterRoutes", Type::Text),
    ],
};

static CIDR_BLOCK: Struct = Struct { name: "ServiceClusterIPBlock", members: &[text("cidr")] };
static COMMUNITY: Struct = Struct { name: "Community", members: &[text("name"), text("value")] };
static PREFIX_ADVERTISEMENT: Struct =
    Struct { name: "PrefixAdvertisement", members: &[text("cidr"), texts("communities")] };

static BGP_PEER: Struct = Struct {
    name: "BGPPeerSpec",
    members: &[
        text("node"),
        text("nodeSelector"),
        text("peerIP"),
        filled("asNumber", Type::AsNumber),
        given("localASNumber", Type::AsNumber),
        text("peerSelector"),
        flag("keepOriginalNextHop"),
        given("nextHopMode", Type::Text),
        given("password", Type::Struct(&BGP_PASSWORD)),
        text("sourceAddress"),
        duration("maxRestartTime"),
        given("numAllowedLocalASNumbers", Type::Int(INT32)),
        given("ttlSecurity", Type::Int(UINT8)),
        duration("keepaliveTime"),
        texts("filters"),
        text("reachableBy"),
        text("localWorkloadSelector"),
        given("reversePeering", Type::Text),
        // Calico Enterprise's.
        text("failureDetectionMode"),
    ],
};

static BGP_FILTER: Struct = Struct {
    name: "BGPFilterSpec",
    members: &[
        structs("exportV4", &Type::Struct(&BGP_FILTER_RULE)),
        structs("importV4", &Type::Struct(&BGP_FILTER_RULE)),
        structs("exportV6", &Type::Struct(&BGP_FILTER_RULE)),
        structs("importV6", &Type::Struct(&BGP_FILTER_RULE)),
    ],
};

/// The rules of both families have the same fields.
static BGP_FILTER_RULE: Struct = Struct {
    name: "BGPFilterRuleV4",
    members: &[
        text("cidr"),
        given("prefixLength", Type::Struct(&PREFIX_LENGTH)),
        text("source"),
        text("interface"),
        text("matchOperator"),
        text("peerType"),
        given("communities", Type::Struct(&COMMUNITY_MATCH)),
        filled("asPathPrefix", Type::List(&Type::AsNumber)),
        number("priority"),
        always("action", Type::Text),
        structs("operations", &Type::Struct(&OPERATION)),
    ],
};

static PREFIX_LENGTH: Struct = Struct {
    name: "BGPFilterPrefixLengthV4",
    members: &[given("min", Type::Int(INT32)), given("max", Type::Int(INT32))],
};
static COMMUNITY_MATCH: Struct =
    Struct { name: "BGPFilterCommunityMatch", members: &[always("values", super::TEXTS)] };
static OPERATION: Struct = Struct {
    name: "BGPFilterOperation",
    members: &[
        given("addCommunity", Type::Struct(&ADD_COMMUNITY)),
        given("prependASPath", Type::Struct(&PREPEND)),
        given("setPriority", Type::Struct(&SET_PRIORITY)),
    ],
};
static ADD_COMMUNITY: Struct =
    Struct { name: "BGPFilterAddCommunity", members: &[always("value", Type::Text)] };
static PREPEND: Struct =
    Struct { name: "BGPFilterPrependASPath", members: &[always("prefix", Type::List(&Type::AsNumber))] };
static SET_PRIORITY: Struct =
    Struct { name: "BGPFilterSetPriority", members: &[given("value", Type::Int(INT))] };

static BLOCK_AFFINITY: Struct = Struct {
    name: "BlockAffinitySpec",
    members: &[
        always("state", Type::Text),
        always("node", Type::Text),
        text("type"),
        always("cidr", Type::Text),
        flag("deleted"),
    ],
};

static NODE_STATUS: Struct = Struct {
    name: "CalicoNodeStatusSpec",
    members: &[text("node"), texts("classes"), given("updatePeriodSeconds", Type::Int(UINT32))],
};
static NODE_STATUS_STATUS: Struct = Struct {
    name: "CalicoNodeStatusStatus",
    members: &[
        always("lastUpdated", Type::Time),
        always("agent", Type::Struct(&AGENT)),
        always("bgp", Type::Struct(&BGP_STATUS)),
        always("routes", Type::Struct(&ROUTE_STATUS)),
    ],
};
static AGENT: Struct = Struct {
    name: "CalicoNodeAgentStatus",
    members: &[always("birdV4", Type::Struct(&DAEMON)), always("birdV6", Type::Struct(&DAEMON))],
};
static DAEMON: Struct = Struct {
    name: "BGPDaemonStatus",
    members: &[
        text("state"),
        text("version"),
        text("routerID"),
        text("lastBootTime"),
        text("lastReconfigurationTime"),
    ],
};
static BGP_STATUS: Struct = Struct {
    name: "CalicoNodeBGPStatus",
    members: &[
        always("numberEstablishedV4", Type::Int(INT)),
        always("numberNotEstablishedV4", Type::Int(INT)),
        always("numberEstablishedV6", Type::Int(INT)),
        always("numberNotEstablishedV6", Type::Int(INT)),
        structs("peersV4", &Type::Struct(&NODE_PEER)),
        structs("peersV6", &Type::Struct(&NODE_PEER)),
    ],
};
static NODE_PEER: Struct =
    Struct { name: "CalicoNodePeer", members: &[text("peerIP"), text("type"), text("state"), text("since")] };
static ROUTE_STATUS: Struct = Struct {
    name: "CalicoNodeBGPRouteStatus",
    members: &[
        structs("routesV4", &Type::Struct(&NODE_ROUTE)),
        structs("routesV6", &Type::Struct(&NODE_ROUTE)),
    ],
};
static NODE_ROUTE: Struct = Struct {
    name: "CalicoNodeRoute",
    members: &[
        text("type"),
        text("destination"),
        text("gateway"),
        text("interface"),
        always("learnedFrom", Type::Struct(&LEARNED_FROM)),
    ],
};
static LEARNED_FROM: Struct =
    Struct { name: "CalicoNodeRouteLearnedFrom", members: &[text("sourceType"), text("peerIP")] };

static CLUSTER_INFORMATION: Struct = Struct {
    name: "ClusterInformationSpec",
    members: &[
        text("clusterGUID"),
        text("clusterType"),
        text("calicoVersion"),
        choice("datastoreReady"),
        text("variant"),
    ],
};

static GLOBAL_NETWORK_SET: Struct = Struct { name: "GlobalNetworkSetSpec", members: &[texts("nets")] };
static NETWORK_SET: Struct = Struct { name: "NetworkSetSpec", members: &[texts("nets")] };

static HOST_ENDPOINT: Struct = Struct {
    name: "HostEndpointSpec",
    members: &[
        text("node"),
        text("interfaceName"),
        texts("expectedIPs"),
        texts("profiles"),
        structs("ports", &Type::Struct(&ENDPOINT_PORT)),
    ],
};
static ENDPOINT_PORT: Struct = Struct {
    name: "EndpointPort",
    members: &[
        always("name", Type::Text),
        always("protocol", Type::Protocol),
        always("port", Type::Int(UINT16)),
    ],
};

static IPAM_CONFIGURATION: Struct = Struct {
    name: "IPAMConfigurationSpec",
    members: &[
        always("strictAffinity", Type::Bool),
        int("maxBlocksPerHost", INT32),
        always("autoAllocateBlocks", Type::Bool),
        given("kubeVirtVMAddressPersistence", Type::Text),
        given("ipCooldownSeconds", Type::Int(INT32)),
    ],
};

static IP_POOL: Struct = Struct {
    name: "IPPoolSpec",
    members: &[
        always("cidr", Type::Text),
        text("vxlanMode"),
        text("ipipMode"),
        flag("natOutgoing"),
        disabled(),
        flag("disableBGPExport"),
        int("blockSize", INT),
        text("nodeSelector"),
        text("namespaceSelector"),
        texts("allowedUses"),
        given("assignmentMode", Type::Text),
    ],
};
static IP_POOL_STATUS: Struct =
    Struct { name: "IPPoolStatus", members: &[structs("conditions", &Type::Struct(&CONDITION))] };

static IP_RESERVATION: Struct = Struct { name: "IPReservationSpec", members: &[texts("reservedCIDRs")] };

static KUBE_CONTROLLERS: Struct = Struct {
    name: "KubeControllersConfigurationSpec",
    members: &[
        text("logSeverityScreen"),
        text("healthChecks"),
        duration("etcdV3CompactionPeriod"),
        number("prometheusMetricsPort"),
        always("controllers", Type::Struct(&CONTROLLERS)),
        given("debugProfilePort", Type::Int(INT32)),
    ],
};
static KUBE_CONTROLLERS_STATUS: Struct = Struct {
    name: "KubeControllersConfigurationStatus",
    members: &[
        given("runningConfig", Type::Struct(&KUBE_CONTROLLERS)),
        filled("environmentVars", Type::Texts),
    ],
};
static CONTROLLERS: Struct = Struct {
    name: "ControllersConfig",
    members: &[
        given("node", Type::Struct(&NODE_CONTROLLER)),
        given("policy", Type::Struct(&RECONCILER)),
        given("workloadEndpoint", Type::Struct(&RECONCILER)),
        given("serviceAccount", Type::Struct(&RECONCILER)),
        given("namespace", Type::Struct(&RECONCILER)),
        given("loadBalancer", Type::Struct(&LOAD_BALANCER)),
        given("policyMigration", Type::Struct(&MIGRATION)),
    ],
};
static RECONCILER: Struct =
    Struct { name: "PolicyControllerConfig", members: &[duration("reconcilerPeriod")] };
static LOAD_BALANCER: Struct = Struct { name: "LoadBalancerControllerConfig", members: &[text("assignIPs")] };
static MIGRATION: Struct = Struct { name: "MigrationControllerConfig", members: &[text("enabled")] };
static NODE_CONTROLLER: Struct = Struct {
    name: "NodeControllerConfig",
    members: &[
        duration("reconcilerPeriod"),
        text("syncLabels"),
        given("hostEndpoint", Type::Struct(&AUTO_HOST_ENDPOINT)),
        duration("leakGracePeriod"),
    ],
};
static AUTO_HOST_ENDPOINT: Struct = Struct {
    name: "AutoHostEndpointConfig",
    members: &[
        text("autoCreate"),
        text("createDefaultHostEndpoint"),
        structs("templates", &Type::Struct(&TEMPLATE)),
    ],
};
static TEMPLATE: Struct = Struct {
    name: "Template",
    members: &[
        filled("annotations", Type::Texts),
        text("generateName"),
        texts("interfaceCIDRs"),
        text("interfacePattern"),
        filled("labels", Type::Texts),
        text("nodeSelector"),
    ],
};

static LIVE_MIGRATION: Struct = Struct {
    name: "LiveMigrationSpec",
    members: &[
        given("source", Type::Struct(&MIGRATION_SOURCE)),
        given("target", Type::Struct(&MIGRATION_TARGET)),
    ],
};
static MIGRATION_SOURCE: Struct = Struct {
    name: "LiveMigrationSource",
    members: &[
        given("workload", Type::Struct(&WORKLOAD_ID)),
        given("workloadEndpoint", Type::Struct(&WORKLOAD_ENDPOINT_ID)),
    ],
};
static MIGRATION_TARGET: Struct = Struct {
    name: "LiveMigrationTarget",
    members: &[given("selector", Type::Text), given("workloadEndpoint", Type::Struct(&WORKLOAD_ENDPOINT_ID))],
};
static WORKLOAD_ID: Struct = Struct {
    name: "WorkloadIdentifier",
    members: &[text("hostname"), text("orchestratorID"), text("workloadID")],
};
static WORKLOAD_ENDPOINT_ID: Struct = Struct {
    name: "WorkloadEndpointIdentifier",
    members: &[text("hostname"), text("orchestratorID"), text("workloadID"), text("endpointID")],
};

static NODE: Struct = Struct {
    name: "NodeSpec",
    members: &[
        given("bgp", Type::Struct(&NODE_BGP)),
        text("ipv4VXLANTunnelAddr"),
        text("vxlanTunnelMACAddr"),
        text("ipv6VXLANTunnelAddr"),
        text("vxlanTunnelMACAddrV6"),
        structs("orchRefs", &Type::Struct(&ORCH_REF)),
        given("wireguard", Type::Struct(&WIREGUARD)),
        structs("addresses", &Type::Struct(&NODE_ADDRESS)),
        structs("interfaces", &Type::Struct(&NODE_INTERFACE)),
    ],
};
static NODE_BGP: Struct = Struct {
    name: "NodeBGPSpec",
    members: &[
        given("asNumber", Type::AsNumber),
        text("ipv4Address"),
        text("ipv6Address"),
        text("ipv4IPIPTunnelAddr"),
        text("routeReflectorClusterID"),
    ],
};
static ORCH_REF: Struct =
    Struct { name: "OrchRef", members: &[text("nodeName"), always("orchestrator", Type::Text)] };
static WIREGUARD: Struct = Struct {
    name: "NodeWireguardSpec",
    members: &[text("interfaceIPv4Address"), text("interfaceIPv6Address")],
};
static NODE_ADDRESS: Struct =
    Struct { name: "NodeAddress", members: &[always("address", Type::Text), text("type")] };
static NODE_INTERFACE: Struct =
    Struct { name: "NodeInterface", members: &[text("name"), texts("addresses")] };
static NODE_STATE: Struct = Struct {
    name: "NodeStatus",
    members: &[text("wireguardPublicKey"), text("wireguardPublicKeyV6"), texts("podCIDRs")],
};

static WORKLOAD_ENDPOINT: Struct = Struct {
    name: "WorkloadEndpointSpec",
    members: &[
        text("orchestrator"),
        text("workload"),
        text("node"),
        text("containerID"),
        text("pod"),
        text("endpoint"),
        text("serviceAccountName"),
        texts("ipNetworks"),
        structs("ipNATs", &Type::Struct(&IP_NAT)),
        text("ipv4Gateway"),
        text("ipv6Gateway"),
        texts("profiles"),
        text("interfaceName"),
        text("mac"),
        structs("ports", &Type::Struct(&WORKLOAD_PORT)),
        texts("allowSpoofedSourcePrefixes"),
        given("qosControls", Type::Struct(&QOS)),
        // Written by networking-calico, of which Calico's own types know nothing.
        texts("allowedIps"),
    ],
};
static IP_NAT: Struct =
    Struct { name: "IPNAT", members: &[always("internalIP", Type::Text), always("externalIP", Type::Text)] };
static WORKLOAD_PORT: Struct = Struct {
    name: "WorkloadEndpointPort",
    members: &[
        always("name", Type::Text),
        always("protocol", Type::Protocol),
        always("port", Type::Int(UINT16)),
        always("hostPort", Type::Int(UINT16)),
        always("hostIP", Type::Text),
    ],
};
static QOS: Struct = Struct {
    name: "QoSControls",
    members: &[
        int("ingressBandwidth", INT64),
        int("ingressBurst", INT64),
        int("ingressPeakrate", INT64),
        int("ingressMinburst", INT64),
        int("egressBandwidth", INT64),
        int("egressBurst", INT64),
        int("egressPeakrate", INT64),
        int("egressMinburst", INT64),
        int("ingressPacketRate", INT64),
        int("ingressPacketBurst", INT64),
        int("egressPacketRate", INT64),
        int("egressPacketBurst", INT64),
        int("ingressMaxConnections", INT64),
        int("egressMaxConnections", INT64),
        given("dscp", Type::Dscp),
    ],
};

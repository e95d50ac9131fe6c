//! What `get` shows of each kind, and by which names a kind goes (`calicoctl/calicoctl/resourcemgr`).

use datastore::{ApiObject, ResourceKind};
use serde_json::Value;

use super::gotext;

/// Letters that a long list is cut to.
const CUT: usize = 80;

/// A kind on the command line.
pub(super) struct Columns {
    pub(super) kind: ResourceKind,
    /// Its names, in small letters.
    pub(super) aliases: &'static [&'static str],
    pub(super) narrow: &'static [&'static str],
    pub(super) wide: &'static [&'static str],
    cells: &'static [(&'static str, Cell)],
}

/// How a cell is made of a resource.
#[derive(Clone, Copy)]
enum Cell {
    Name,
    Namespace,
    /// A text of the spec.
    Text(&'static str),
    /// A text, or what it means to have none.
    TextOr(&'static str, &'static str),
    /// A truth value, false where it isn't there.
    Flag(&'static str),
    /// A number, 0 where it isn't there.
    Number(&'static str),
    /// A value that may be absent: `<nil>`.
    Pointer(&'static str),
    /// A value that may be absent: `-`.
    OrDash(&'static str),
    /// A list, joined by commas.
    Joined(&'static str),
    /// A list, joined and cut.
    Cut(&'static str),
    /// How long a list is.
    Count(&'static str),
    /// Made by code.
    Of(fn(&ApiObject, &dyn Fn() -> String) -> String),
}

impl Columns {
    /// The kind of this name, in letters of any case.
    pub(super) fn named(name: &str) -> Option<&'static Columns> {
        let name = name.to_lowercase();
        ALL.iter().find(|columns| columns.aliases.contains(&name.as_str()))
    }

    /// What is shown of a kind; nothing for one that isn't shown.
    pub(super) fn of(kind: ResourceKind) -> Option<&'static Columns> {
        ALL.iter().find(|columns| columns.kind == kind)
    }

    /// Has it a column of this name?
    pub(super) fn has(&self, heading: &str) -> bool {
        self.cells.iter().any(|(name, _)| *name == heading)
    }

    /// All its columns.
    pub(super) fn headings(&self) -> impl Iterator<Item = &'static str> {
        self.cells.iter().map(|(name, _)| *name)
    }

    /// A resource's cell. `as_number` gives the cluster's AS number when it is needed.
    pub(super) fn cell(&self, heading: &str, object: &ApiObject, as_number: &dyn Fn() -> String) -> String {
        let Some((_, cell)) = self.cells.iter().find(|(name, _)| *name == heading) else {
            return String::new();
        };
        let or = |field: &str, absent: &str| match object.spec(field) {
            Value::Null => absent.to_owned(),
            value => gotext::print(value),
        };
        match *cell {
            Cell::Name => object.name().to_owned(),
            Cell::Namespace => object.namespace().to_owned(),
            Cell::Text(field) => or(field, ""),
            Cell::TextOr(field, absent) => match object.spec_text(field) {
                "" => absent.to_owned(),
                text => text.to_owned(),
            },
            Cell::Flag(field) => or(field, "false"),
            Cell::Number(field) => or(field, "0"),
            Cell::Pointer(field) => or(field, "<nil>"),
            Cell::OrDash(field) => or(field, "-"),
            Cell::Joined(field) => joined(object.spec(field)),
            Cell::Cut(field) => cut(&joined(object.spec(field)), CUT),
            Cell::Count(field) => object.spec(field).as_array().map_or(0, Vec::len).to_string(),
            Cell::Of(make) => make(object, as_number),
        }
    }
}

/// A list's items or a map's `key=value`s, with commas between.
fn joined(value: &Value) -> String {
    super::template::join(value, ",", 0)
}

/// Cut to so many letters, of which the last three say so.
pub(super) fn cut(text: &str, letters: usize) -> String {
    if text.len() <= letters {
        return text.to_owned();
    }
    let end =
        (0..=letters.saturating_sub(3)).rev().find(|end| text.is_char_boundary(*end)).unwrap_or_default();
    format!("{}...", &text[..end])
}

fn peer_node(peer: &ApiObject, _: &dyn Fn() -> String) -> String {
    match (peer.spec_text("node"), peer.spec_text("nodeSelector")) {
        ("", "") => "(global)".to_owned(),
        ("", selector) => selector.to_owned(),
        (node, _) => node.to_owned(),
    }
}

/// A node's own AS number, or in parentheses the cluster's.
fn node_as(node: &ApiObject, as_number: &dyn Fn() -> String) -> String {
    let bgp = node.spec("bgp");
    match &bgp["asNumber"] {
        _ if bgp.is_null() => String::new(),
        Value::Null => format!("({})", as_number()),
        number => gotext::print(number),
    }
}

fn node_ipv4(node: &ApiObject, _: &dyn Fn() -> String) -> String {
    node.spec("bgp")["ipv4Address"].as_str().unwrap_or_default().to_owned()
}

fn node_ipv6(node: &ApiObject, _: &dyn Fn() -> String) -> String {
    node.spec("bgp")["ipv6Address"].as_str().unwrap_or_default().to_owned()
}

fn workload(endpoint: &ApiObject, _: &dyn Fn() -> String) -> String {
    match endpoint.spec_text("workload") {
        "" => endpoint.spec_text("pod").to_owned(),
        workload => workload.to_owned(),
    }
}

/// `LabelSelector`'s own text in Go.
fn pod_selector(policy: &ApiObject, _: &dyn Fn() -> String) -> String {
    let selector = policy.spec("podSelector");
    let labels = selector["matchLabels"].as_object().into_iter().flatten();
    let labels: String = labels.map(|(name, value)| format!("{name}: {},", gotext::print(value))).collect();
    let expressions = selector["matchExpressions"].as_array().into_iter().flatten();
    let expressions: String = expressions
        .map(|one| {
            let text = |field: &str| one[field].as_str().unwrap_or_default();
            let values = match &one["values"] {
                Value::Null => "[]".to_owned(),
                values => gotext::print(values),
            };
            format!(
                "LabelSelectorRequirement{{Key:{},Operator:{},Values:{values},}},",
                text("key"),
                text("operator")
            )
        })
        .collect();
    format!(
        "&LabelSelector{{MatchLabels:map[string]string{{{labels}}},MatchExpressions:[]LabelSelectorRequirement{{{expressions}}},}}"
    )
}

const POLICY: &[(&str, Cell)] = &[
    ("NAME", Cell::Name),
    ("NAMESPACE", Cell::Namespace),
    ("ORDER", Cell::Pointer("order")),
    ("SELECTOR", Cell::Text("selector")),
    ("TIER", Cell::Text("tier")),
];
const GLOBAL_POLICY: &[(&str, Cell)] = &[
    ("NAME", Cell::Name),
    ("ORDER", Cell::Pointer("order")),
    ("SELECTOR", Cell::Text("selector")),
    ("TIER", Cell::Text("tier")),
];

static ALL: [Columns; 22] = [
    Columns {
        kind: ResourceKind::BgpConfiguration,
        aliases: &["bgpconfiguration", "bgpconfigurations", "bgpconfig", "bgpconfigs"],
        narrow: &["NAME", "LOGSEVERITY", "MESHENABLED", "ASNUMBER"],
        wide: &["NAME", "LOGSEVERITY", "MESHENABLED", "ASNUMBER"],
        cells: &[
            ("NAME", Cell::Name),
            ("LOGSEVERITY", Cell::Text("logSeverityScreen")),
            ("MESHENABLED", Cell::OrDash("nodeToNodeMeshEnabled")),
            ("ASNUMBER", Cell::OrDash("asNumber")),
        ],
    },
    Columns {
        kind: ResourceKind::BgpFilter,
        aliases: &["bgpfilter", "bgpfilters", "bgpf", "bgpfs", "bf", "bfs"],
        narrow: &["NAME", "NUMEXPORTV4", "NUMIMPORTV4", "NUMEXPORTV6", "NUMIMPORTV6"],
        wide: &["NAME", "NUMEXPORTV4", "NUMIMPORTV4", "NUMEXPORTV6", "NUMIMPORTV6"],
        cells: &[
            ("NAME", Cell::Name),
            ("NUMEXPORTV4", Cell::Count("exportV4")),
            ("NUMIMPORTV4", Cell::Count("importV4")),
            ("NUMEXPORTV6", Cell::Count("exportV6")),
            ("NUMIMPORTV6", Cell::Count("importV6")),
        ],
    },
    Columns {
        kind: ResourceKind::BgpPeer,
        aliases: &["bgppeer", "bgppeers", "bgpp", "bgpps", "bp", "bps"],
        narrow: &["NAME", "PEERIP", "NODE", "ASN"],
        wide: &["NAME", "PEERIP", "NODE", "ASN"],
        cells: &[
            ("NAME", Cell::Name),
            ("PEERIP", Cell::Text("peerIP")),
            ("NODE", Cell::Of(peer_node)),
            ("ASN", Cell::Number("asNumber")),
        ],
    },
    Columns {
        kind: ResourceKind::CalicoNodeStatus,
        aliases: &["caliconodestatus", "caliconodestatuses", "nodestatus", "nodestatuses"],
        narrow: &["NAME", "NODE"],
        wide: &["NAME", "NODE", "CLASSES"],
        cells: &[("NAME", Cell::Name), ("NODE", Cell::Text("node")), ("CLASSES", Cell::Joined("classes"))],
    },
    Columns {
        kind: ResourceKind::ClusterInformation,
        aliases: &["clusterinformation", "clusterinformations", "clusterinfo", "clusterinfos"],
        narrow: &["NAME", "CLUSTERGUID", "CLUSTERTYPE", "CALICOVERSION", "DATASTOREREADY"],
        wide: &["NAME", "CLUSTERGUID", "CLUSTERTYPE", "CALICOVERSION", "DATASTOREREADY"],
        cells: &[
            ("NAME", Cell::Name),
            ("CLUSTERGUID", Cell::Text("clusterGUID")),
            ("CLUSTERTYPE", Cell::Text("clusterType")),
            ("CALICOVERSION", Cell::Text("calicoVersion")),
            ("DATASTOREREADY", Cell::Pointer("datastoreReady")),
        ],
    },
    Columns {
        kind: ResourceKind::FelixConfiguration,
        aliases: &["felixconfiguration", "felixconfigurations", "felixconfig", "felixconfigs"],
        narrow: &["NAME"],
        wide: &["NAME"],
        cells: &[("NAME", Cell::Name)],
    },
    Columns {
        kind: ResourceKind::GlobalNetworkPolicy,
        aliases: &["globalnetworkpolicy", "globalnetworkpolicies", "gnp", "gnps"],
        narrow: &["NAME", "TIER"],
        wide: &["NAME", "TIER", "ORDER", "SELECTOR"],
        cells: GLOBAL_POLICY,
    },
    Columns {
        kind: ResourceKind::GlobalNetworkSet,
        aliases: &["globalnetworkset", "globalnetworksets", "gnetsets"],
        narrow: &["NAME"],
        wide: &["NAME", "NETS"],
        cells: &[("NAME", Cell::Name), ("NETS", Cell::Cut("nets"))],
    },
    Columns {
        kind: ResourceKind::HostEndpoint,
        aliases: &["hostendpoint", "hostendpoints", "hep", "heps"],
        narrow: &["NAME", "NODE"],
        wide: &["NAME", "NODE", "INTERFACE", "IPS", "PROFILES"],
        cells: &[
            ("NAME", Cell::Name),
            ("NODE", Cell::Text("node")),
            ("INTERFACE", Cell::Text("interfaceName")),
            ("IPS", Cell::Joined("expectedIPs")),
            ("PROFILES", Cell::Joined("profiles")),
        ],
    },
    Columns {
        kind: ResourceKind::IpamConfiguration,
        aliases: &["ipamconfiguration", "ipamconfigurations", "ipamconfig", "ipamconfigs"],
        narrow: &["NAME", "STRICTAFFINITY", "AUTOALLOCATEBLOCKS"],
        wide: &["NAME", "STRICTAFFINITY", "AUTOALLOCATEBLOCKS", "MAXBLOCKSPERHOST"],
        cells: &[
            ("NAME", Cell::Name),
            ("STRICTAFFINITY", Cell::Flag("strictAffinity")),
            ("AUTOALLOCATEBLOCKS", Cell::Flag("autoAllocateBlocks")),
            ("MAXBLOCKSPERHOST", Cell::Number("maxBlocksPerHost")),
        ],
    },
    Columns {
        kind: ResourceKind::IpPool,
        aliases: &["ippool", "ippools", "ipp", "ipps", "pool", "pools"],
        narrow: &["NAME", "CIDR", "SELECTOR"],
        wide: &[
            "NAME",
            "CIDR",
            "NAT",
            "IPIPMODE",
            "VXLANMODE",
            "DISABLED",
            "DISABLEBGPEXPORT",
            "SELECTOR",
            "ASSIGNMENTMODE",
        ],
        cells: &[
            ("NAME", Cell::Name),
            ("CIDR", Cell::Text("cidr")),
            ("NAT", Cell::Flag("natOutgoing")),
            ("IPIPMODE", Cell::TextOr("ipipMode", "Never")),
            ("VXLANMODE", Cell::TextOr("vxlanMode", "Never")),
            ("DISABLED", Cell::Flag("disabled")),
            ("DISABLEBGPEXPORT", Cell::Flag("disableBGPExport")),
            ("SELECTOR", Cell::Text("nodeSelector")),
            ("ASSIGNMENTMODE", Cell::Pointer("assignmentMode")),
        ],
    },
    Columns {
        kind: ResourceKind::IpReservation,
        aliases: &["ipreservation", "ipreservations", "reservation", "reservations"],
        narrow: &["NAME"],
        wide: &["NAME", "CIDRS"],
        cells: &[("NAME", Cell::Name), ("CIDRS", Cell::Cut("reservedCIDRs"))],
    },
    Columns {
        kind: ResourceKind::KubeControllersConfiguration,
        aliases: &[
            "kubecontrollersconfiguration",
            "kubecontrollersconfigurations",
            "kubecontrollersconfig",
            "kubecontrollersconfigs",
        ],
        narrow: &["NAME"],
        wide: &["NAME"],
        cells: &[("NAME", Cell::Name)],
    },
    Columns {
        kind: ResourceKind::NetworkPolicy,
        aliases: &["networkpolicy", "networkpolicies", "policy", "np", "policies", "pol", "pols"],
        narrow: &["NAME", "TIER"],
        wide: &["NAME", "TIER", "ORDER", "SELECTOR"],
        cells: POLICY,
    },
    Columns {
        kind: ResourceKind::NetworkSet,
        aliases: &["networkset", "networksets", "netsets"],
        narrow: &["NAME"],
        wide: &["NAME", "NETS"],
        cells: &[("NAME", Cell::Name), ("NAMESPACE", Cell::Namespace), ("NETS", Cell::Cut("nets"))],
    },
    Columns {
        kind: ResourceKind::Node,
        aliases: &["node", "nodes", "no", "nos"],
        narrow: &["NAME"],
        wide: &["NAME", "ASN", "IPV4", "IPV6"],
        cells: &[
            ("NAME", Cell::Name),
            ("ASN", Cell::Of(node_as)),
            ("IPV4", Cell::Of(node_ipv4)),
            ("IPV6", Cell::Of(node_ipv6)),
        ],
    },
    Columns {
        kind: ResourceKind::Profile,
        aliases: &["profile", "profiles", "pro", "pros"],
        narrow: &["NAME"],
        wide: &["NAME", "LABELS"],
        cells: &[("NAME", Cell::Name), ("LABELS", Cell::Joined("labelsToApply"))],
    },
    Columns {
        kind: ResourceKind::StagedGlobalNetworkPolicy,
        aliases: &["stagedglobalnetworkpolicy", "stagedglobalnetworkpolicies", "sgnp", "sgnps"],
        narrow: &["NAME", "TIER"],
        wide: &["NAME", "TIER", "ORDER", "SELECTOR"],
        cells: GLOBAL_POLICY,
    },
    Columns {
        kind: ResourceKind::StagedKubernetesNetworkPolicy,
        aliases: &[
            "stagedkubernetesnetworkpolicy",
            "stagedkubernetesnetworkpolicies",
            "stagedkubernetespolicy",
            "sknp",
            "stagedkubernetespolicies",
            "skpol",
            "skpols",
        ],
        narrow: &["NAME"],
        wide: &["NAME", "PODSELECTOR"],
        cells: &[
            ("NAME", Cell::Name),
            ("NAMESPACE", Cell::Namespace),
            ("PODSELECTOR", Cell::Of(pod_selector)),
        ],
    },
    Columns {
        kind: ResourceKind::StagedNetworkPolicy,
        aliases: &[
            "stagednetworkpolicy",
            "stagednetworkpolicies",
            "stagedpolicy",
            "snp",
            "stagedpolicies",
            "spol",
            "spols",
        ],
        narrow: &["NAME", "TIER"],
        wide: &["NAME", "TIER", "ORDER", "SELECTOR"],
        cells: POLICY,
    },
    Columns {
        kind: ResourceKind::Tier,
        aliases: &["tier", "tiers"],
        narrow: &["NAME", "ORDER"],
        wide: &["NAME", "ORDER"],
        cells: &[("NAME", Cell::Name), ("ORDER", Cell::Pointer("order"))],
    },
    Columns {
        kind: ResourceKind::WorkloadEndpoint,
        aliases: &["workloadendpoint", "workloadendpoints", "wep", "weps"],
        narrow: &["WORKLOAD", "NODE", "NETWORKS", "INTERFACE"],
        wide: &["NAME", "WORKLOAD", "NODE", "NETWORKS", "INTERFACE", "PROFILES", "NATS"],
        cells: &[
            ("NAME", Cell::Name),
            ("NAMESPACE", Cell::Namespace),
            ("NODE", Cell::Text("node")),
            ("ORCHESTRATOR", Cell::Text("orchestrator")),
            ("WORKLOAD", Cell::Of(workload)),
            ("NETWORKS", Cell::Joined("ipNetworks")),
            ("NATS", Cell::Joined("ipNATs")),
            ("PROFILES", Cell::Joined("profiles")),
            ("INTERFACE", Cell::Text("interfaceName")),
        ],
    },
];

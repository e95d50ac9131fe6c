//! Policies, their rules, profiles and tiers (`policy_common.go`, `networkpolicy.go` and those beside it).

use super::metadata::LABEL_SELECTOR;
use super::{INT, Member, Struct, Type, always, filled, flag, given, number, text, texts};

const RULES: Type = Type::List(&Type::Struct(&RULE));

const fn rules(name: &'static str) -> Member {
    filled(name, RULES)
}

static RULE: Struct = Struct {
    name: "Rule",
    members: &[
        always("action", Type::Text),
        number("ipVersion"),
        given("protocol", Type::Protocol),
        given("icmp", Type::Struct(&ICMP)),
        given("notProtocol", Type::Protocol),
        given("notICMP", Type::Struct(&ICMP)),
        filled("source", Type::Struct(&ENTITY)),
        filled("destination", Type::Struct(&ENTITY)),
        given("http", Type::Struct(&HTTP)),
        given("metadata", Type::Struct(&RULE_METADATA)),
    ],
};

static ICMP: Struct = Struct { name: "ICMPFields", members: &[number("type"), number("code")] };

static ENTITY: Struct = Struct {
    name: "EntityRule",
    members: &[
        texts("nets"),
        text("selector"),
        text("namespaceSelector"),
        given("services", Type::Struct(&SERVICE)),
        filled("ports", Type::List(&Type::Port)),
        texts("notNets"),
        text("notSelector"),
        filled("notPorts", Type::List(&Type::Port)),
        given("serviceAccounts", Type::Struct(&SERVICE_ACCOUNTS)),
    ],
};

static SERVICE: Struct = Struct { name: "ServiceMatch", members: &[text("name"), text("namespace")] };

static SERVICE_ACCOUNTS: Struct =
    Struct { name: "ServiceAccountMatch", members: &[texts("names"), text("selector")] };

static HTTP: Struct = Struct {
    name: "HTTPMatch",
    members: &[texts("methods"), filled("paths", Type::List(&Type::Struct(&HTTP_PATH)))],
};

static HTTP_PATH: Struct = Struct { name: "HTTPPath", members: &[text("exact"), text("prefix")] };

static RULE_METADATA: Struct =
    Struct { name: "RuleMetadata", members: &[filled("annotations", Type::Texts)] };

pub(super) static NETWORK_POLICY: Struct = Struct {
    name: "NetworkPolicySpec",
    members: &[
        text("tier"),
        given("order", Type::Float),
        rules("ingress"),
        rules("egress"),
        text("selector"),
        texts("types"),
        text("serviceAccountSelector"),
        texts("performanceHints"),
    ],
};

pub(super) static STAGED_NETWORK_POLICY: Struct = Struct {
    name: "StagedNetworkPolicySpec",
    members: &[
        text("stagedAction"),
        text("tier"),
        given("order", Type::Float),
        rules("ingress"),
        rules("egress"),
        text("selector"),
        texts("types"),
        text("serviceAccountSelector"),
        texts("performanceHints"),
    ],
};

pub(super) static GLOBAL_NETWORK_POLICY: Struct = Struct {
    name: "GlobalNetworkPolicySpec",
    members: &[
        text("tier"),
        given("order", Type::Float),
        rules("ingress"),
        rules("egress"),
        text("selector"),
        texts("types"),
        flag("doNotTrack"),
        flag("preDNAT"),
        flag("applyOnForward"),
        text("serviceAccountSelector"),
        text("namespaceSelector"),
        texts("performanceHints"),
    ],
};

pub(super) static STAGED_GLOBAL_NETWORK_POLICY: Struct = Struct {
    name: "StagedGlobalNetworkPolicySpec",
    members: &[
        text("stagedAction"),
        text("tier"),
        given("order", Type::Float),
        rules("ingress"),
        rules("egress"),
        text("selector"),
        texts("types"),
        flag("doNotTrack"),
        flag("preDNAT"),
        flag("applyOnForward"),
        text("serviceAccountSelector"),
        text("namespaceSelector"),
        texts("performanceHints"),
    ],
};

/// That of Kubernetes' `networking.k8s.io/v1`.
pub(super) static STAGED_KUBERNETES_NETWORK_POLICY: Struct = Struct {
    name: "StagedKubernetesNetworkPolicySpec",
    members: &[
        text("stagedAction"),
        always("podSelector", Type::Struct(&LABEL_SELECTOR)),
        filled("ingress", Type::List(&Type::Struct(&KUBERNETES_INGRESS))),
        filled("egress", Type::List(&Type::Struct(&KUBERNETES_EGRESS))),
        texts("policyTypes"),
    ],
};

static KUBERNETES_INGRESS: Struct = Struct {
    name: "NetworkPolicyIngressRule",
    members: &[
        filled("ports", Type::List(&Type::Struct(&KUBERNETES_PORT))),
        filled("from", Type::List(&Type::Struct(&KUBERNETES_PEER))),
    ],
};

static KUBERNETES_EGRESS: Struct = Struct {
    name: "NetworkPolicyEgressRule",
    members: &[
        filled("ports", Type::List(&Type::Struct(&KUBERNETES_PORT))),
        filled("to", Type::List(&Type::Struct(&KUBERNETES_PEER))),
    ],
};

static KUBERNETES_PORT: Struct = Struct {
    name: "NetworkPolicyPort",
    members: &[
        given("protocol", Type::Text),
        given("port", Type::IntOrText),
        given("endPort", Type::Int(INT)),
    ],
};

static KUBERNETES_PEER: Struct = Struct {
    name: "NetworkPolicyPeer",
    members: &[
        given("podSelector", Type::Struct(&LABEL_SELECTOR)),
        given("namespaceSelector", Type::Struct(&LABEL_SELECTOR)),
        given("ipBlock", Type::Struct(&IP_BLOCK)),
    ],
};

static IP_BLOCK: Struct = Struct { name: "IPBlock", members: &[always("cidr", Type::Text), texts("except")] };

pub(super) static PROFILE: Struct = Struct {
    name: "ProfileSpec",
    members: &[rules("ingress"), rules("egress"), filled("labelsToApply", Type::Texts)],
};

pub(super) static TIER: Struct =
    Struct { name: "TierSpec", members: &[given("order", Type::Float), given("defaultAction", Type::Text)] };

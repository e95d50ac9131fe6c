//! Calico's five kinds of policy, which are one noun here.

use std::fmt;

use crate::{Order, PolicyRule};

/// A policy's kind of resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PolicyKind {
    /// Of all namespaces, and of host endpoints.
    GlobalNetworkPolicy,
    /// Of one namespace.
    NetworkPolicy,
    /// A global one that is looked at and never enforced.
    StagedGlobalNetworkPolicy,
    /// A namespace's, never enforced.
    StagedNetworkPolicy,
    /// A namespace's, never enforced, in the words of Kubernetes' NetworkPolicy.
    StagedKubernetesNetworkPolicy,
}

impl PolicyKind {
    /// The kind's name in resources.
    pub fn name(self) -> &'static str {
        match self {
            PolicyKind::GlobalNetworkPolicy => "GlobalNetworkPolicy",
            PolicyKind::NetworkPolicy => "NetworkPolicy",
            PolicyKind::StagedGlobalNetworkPolicy => "StagedGlobalNetworkPolicy",
            PolicyKind::StagedNetworkPolicy => "StagedNetworkPolicy",
            PolicyKind::StagedKubernetesNetworkPolicy => "StagedKubernetesNetworkPolicy",
        }
    }

    /// Does it live in a namespace?
    pub fn is_namespaced(self) -> bool {
        !matches!(self, PolicyKind::GlobalNetworkPolicy | PolicyKind::StagedGlobalNetworkPolicy)
    }

    /// Is it only looked at, and never enforced?
    pub fn is_staged(self) -> bool {
        !matches!(self, PolicyKind::GlobalNetworkPolicy | PolicyKind::NetworkPolicy)
    }
}

impl fmt::Display for PolicyKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// What names a policy: policies of two kinds, or of two namespaces, may share a name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PolicyKey {
    /// Its kind.
    pub kind: PolicyKind,
    /// `metadata.namespace`; `None` for the global kinds.
    pub namespace: Option<String>,
    /// `metadata.name`.
    pub name: String,
}

impl fmt::Display for PolicyKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.namespace {
            Some(namespace) => write!(f, "{}({namespace}/{})", self.kind, self.name),
            None => write!(f, "{}({})", self.kind, self.name),
        }
    }
}

/// What a staged policy would do to the one of its name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum StagedAction {
    /// Take its place.
    #[default]
    Set,
    /// Remove it.
    Delete,
    /// Nothing yet: it is being learnt.
    Learn,
    /// Nothing.
    Ignore,
}

/// A policy of any of the kinds (`api/pkg/apis/projectcalico/v3/globalnetworkpolicy.go`, `networkpolicy.go`,
/// `staged….go`). Its rules are compiled to `policy::rule::Policy`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkPolicy {
    /// What names it.
    pub key: PolicyKey,
    /// `spec.tier`: the name of its [`crate::Tier`].
    pub tier: String,
    /// `spec.order`, among the policies of its tier.
    pub order: Order,
    /// `spec.selector`, as written: the endpoints that it is about, of its namespace where it has one. Empty is all.
    pub selector: String,
    /// `spec.namespaceSelector`, as written and not empty; global kinds only.
    pub namespace_selector: Option<String>,
    /// `spec.serviceAccountSelector`, as written and not empty.
    pub service_account_selector: Option<String>,
    /// `spec.types`, given or worked out from the rules, has `Ingress`: what it is about doesn't get what no rule allows.
    pub applies_to_ingress: bool,
    /// `spec.types` has `Egress`.
    pub applies_to_egress: bool,
    /// `spec.ingress`, in order.
    pub ingress: Vec<PolicyRule>,
    /// `spec.egress`, in order.
    pub egress: Vec<PolicyRule>,
    /// `spec.doNotTrack`: asked before connections are looked at; host endpoints only.
    pub do_not_track: bool,
    /// `spec.preDNAT`: asked before destinations are translated; host endpoints only, ingress only.
    pub pre_dnat: bool,
    /// `spec.applyOnForward`: asked of what a host endpoint forwards, too.
    pub apply_on_forward: bool,
    /// `spec.performanceHints` has `AssumeNeededOnEveryNode`: it is worked out before the first endpoint comes that it is
    /// about.
    pub needed_everywhere: bool,
    /// `spec.stagedAction`; `None` for the kinds that are enforced.
    pub staged_action: Option<StagedAction>,
}

impl NetworkPolicy {
    /// A policy in the default tier, about all endpoints and neither direction, without rules.
    pub fn empty(key: PolicyKey) -> NetworkPolicy {
        NetworkPolicy {
            staged_action: key.kind.is_staged().then(StagedAction::default),
            key,
            tier: crate::Tier::DEFAULT.to_owned(),
            order: Order::LAST,
            selector: String::new(),
            namespace_selector: None,
            service_account_selector: None,
            applies_to_ingress: false,
            applies_to_egress: false,
            ingress: Vec::new(),
            egress: Vec::new(),
            do_not_track: false,
            pre_dnat: false,
            apply_on_forward: false,
            needed_everywhere: false,
        }
    }
}

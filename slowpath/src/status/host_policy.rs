//! `show host-policy`: what nftables keeps of host endpoints' policy.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// `show host-policy`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostPolicyStatus {
    /// Is there a table in force? There is none where this node has no host endpoint.
    pub in_force: bool,
    /// Why the newest policy isn't in force, in nft's own words; what was in force before still is.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub refused: Option<String>,
    /// What of the policy can't be kept, and why.
    pub problems: Vec<String>,
    /// Endpoints, and what they are asked.
    pub endpoints: Vec<HostEndpointStatus>,
    /// What decides about packets, with what it has counted since it last changed.
    pub rules: Vec<HostRuleStatus>,
    /// How many members the sets have that rules refer to, by nft's names of them.
    pub sets: BTreeMap<String, usize>,
}

/// A host endpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostEndpointStatus {
    /// `metadata.name`.
    pub name: String,
    /// Its interface; `*` for every one that no other endpoint is about.
    pub interface: String,
    /// When its policy is asked, such as `normal ingress` or `untracked egress`.
    pub asked: Vec<String>,
}

/// A rule, or what else decides.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostRuleStatus {
    /// `policy`, `profile`, `endpoint` (ends of tiers, no profile) or `before` (failsafe ports, connections).
    pub of: String,
    /// The policy's, profile's or endpoint's name.
    pub name: String,
    /// The endpoint's interface.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub interface: Option<String>,
    /// `untracked`, `pre-dnat`, `forward`, `normal`, or `translated`: normal, of what DNAT has sent elsewhere. A policy of
    /// `normal` is asked for what is forwarded, too, where it says `applyOnForward`.
    pub class: String,
    /// `ingress` or `egress`.
    pub direction: String,
    /// The rule's number in its policy or profile, from 0.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub rule: Option<usize>,
    /// `rule 0`, or what else it is.
    pub what: String,
    /// `allow`, `deny`, `pass` or `log`.
    pub action: String,
    /// Packets; absent where somebody else has changed the table.
    pub packets: Option<u64>,
    /// Bytes, likewise.
    pub bytes: Option<u64>,
}

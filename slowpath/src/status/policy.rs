//! What the rules of workloads' policy have decided.

use serde::{Deserialize, Serialize};

/// `show policy` and `show staged`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyStatus {
    /// Is anything asked of such an endpoint on this node?
    pub known: bool,
    /// Rules in the order in which they are asked, by endpoint and direction.
    pub rules: Vec<PolicyRuleStatus>,
    /// Rules that aren't listed, as there are too many.
    pub left_out: u64,
    /// Endpoints that get and send nothing, as their policy doesn't fit the tables.
    pub closed: Vec<String>,
    /// Packets since the start that were judged and that no sum has, as there were too many rules.
    pub uncounted: u64,
}

/// One rule at one endpoint. A packet of a known flow isn't judged again and so not counted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyRuleStatus {
    /// The workload endpoint: `namespace/name`.
    pub endpoint: String,
    /// `ingress`, towards the workload, or `egress`, from it.
    pub direction: String,
    /// The tier; `profiles` for what is asked after all tiers.
    pub tier: String,
    /// The policy, with its namespace, or the profile; empty for what holds where none decides.
    pub policy: String,
    /// The rule's number in its policy, from 0.
    pub rule: Option<usize>,
    /// `ingress[0]` or `egress[0]`, where the rule stands in its resource; `end of tier` or `no profile`.
    pub what: String,
    /// `allow`, `deny`, `pass` or `log`.
    pub action: String,
    /// The rule as one would say it; absent where no rule decides, or its resource is gone.
    #[serde(default)]
    pub text: Option<String>,
    /// Is it a staged policy's? In `show staged`, where enforced ones are asked beside them.
    #[serde(default)]
    pub staged: bool,
    /// Packets that it decided on.
    pub packets: u64,
    /// Their bytes, with Ethernet headers.
    pub bytes: u64,
    /// Of staged policy: packets that passed and that it would have denied.
    pub would_deny_packets: u64,
    /// Their bytes, with Ethernet headers.
    pub would_deny_bytes: u64,
}

/// Policy's numbers for the metrics.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyNumbers {
    /// At most some thousand.
    pub totals: Vec<PolicyTotal>,
    /// As [`PolicyStatus::uncounted`].
    pub uncounted: u64,
}

/// What of policy's tables is in use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyUse {
    /// Different lists of rules, a direction each.
    pub programs: usize,
    /// Of those: there was no room for what packets would be judged by, so they deny.
    pub denying: usize,
    /// Rules in all lists.
    pub rules: usize,
    /// Members of the sets that rules name.
    pub members: usize,
    /// Bytes of what packets are judged by.
    pub bytes: usize,
}

impl PolicyUse {
    pub(crate) fn new(usage: &policy::compile::Usage) -> PolicyUse {
        let policy::compile::Usage { programs, denying, rules, members, bytes, .. } = *usage;
        PolicyUse { programs, denying, rules, members, bytes }
    }
}

/// What a policy's rules of one action have decided, at all endpoints.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyTotal {
    /// As [`PolicyRuleStatus::tier`].
    pub tier: String,
    /// As [`PolicyRuleStatus::policy`].
    pub policy: String,
    /// As [`PolicyRuleStatus::direction`].
    pub direction: String,
    /// As [`PolicyRuleStatus::action`].
    pub action: String,
    /// Would it be so if staged policies were enforced? Else it is so.
    pub staged: bool,
    /// As [`PolicyRuleStatus::packets`].
    pub packets: u64,
    /// As [`PolicyRuleStatus::bytes`].
    pub bytes: u64,
    /// As [`PolicyRuleStatus::would_deny_packets`].
    pub would_deny_packets: u64,
}

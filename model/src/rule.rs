//! Rules as policies and profiles write them: selectors and names of ports are text still.
//!
//! What they compile to, where selectors have become sets of addresses, is `policy::rule`.

use std::fmt;
use std::ops::RangeInclusive;

use crate::{Family, Prefix, Protocol};

/// What a rule does to a packet that it matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Action {
    /// Allowed, and nothing more is asked.
    Allow,
    /// Dropped.
    Deny,
    /// Nothing more is asked of this tier.
    Pass,
    /// Noted; the next rule is asked.
    Log,
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Action::Allow => "Allow",
            Action::Deny => "Deny",
            Action::Pass => "Pass",
            Action::Log => "Log",
        })
    }
}

/// One entry of a policy's or profile's `ingress` or `egress`: everything that it asks must be so
/// (`api/pkg/apis/projectcalico/v3/policy_common.go`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyRule {
    /// `action`.
    pub action: Action,
    /// `ipVersion`: packets of this family. A protocol that only one family has is not said here again.
    pub family: Option<Family>,
    /// `protocol`.
    pub protocol: Option<Protocol>,
    /// `notProtocol`.
    pub not_protocol: Option<Protocol>,
    /// `icmp`, where it gives a type.
    pub icmp: Option<IcmpMatch>,
    /// `notICMP`, where it gives a type.
    pub not_icmp: Option<IcmpMatch>,
    /// `source`.
    pub source: EntityRule,
    /// `destination`.
    pub destination: EntityRule,
    /// `http`: asks for methods or paths. No router sees those, so such a rule, which can only allow, matches nothing.
    pub http: bool,
}

impl PolicyRule {
    /// A rule that matches every packet.
    pub fn any(action: Action) -> PolicyRule {
        PolicyRule {
            action,
            family: None,
            protocol: None,
            not_protocol: None,
            icmp: None,
            not_icmp: None,
            source: EntityRule::default(),
            destination: EntityRule::default(),
            http: false,
        }
    }
}

/// A type of ICMP message, and one of its codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IcmpMatch {
    /// The type.
    pub icmp_type: u8,
    /// The code; any where absent.
    pub code: Option<u8>,
}

/// What a rule asks of one end of a packet. An empty list, and what is absent, asks nothing; a list asks for any of its
/// members.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EntityRule {
    /// `nets`.
    pub nets: Vec<Prefix>,
    /// `notNets`: none of these.
    pub not_nets: Vec<Prefix>,
    /// `selector`, as written and not empty: endpoints and network sets that it selects.
    pub selector: Option<String>,
    /// `notSelector`, as written and not empty: none of those, which whoever isn't known is not either.
    pub not_selector: Option<String>,
    /// `namespaceSelector`, as written and not empty: in the namespaces that it selects; `global()` is "in none".
    pub namespace_selector: Option<String>,
    /// `serviceAccounts`. One that says nothing is not the same as none: in a namespace's policy, it keeps the rule to
    /// workloads of that namespace.
    pub service_accounts: Option<ServiceAccountMatch>,
    /// `services`: the addresses and ports behind this service.
    pub service: Option<ServiceMatch>,
    /// `ports`.
    pub ports: Vec<PortMatch>,
    /// `notPorts`: none of these.
    pub not_ports: Vec<PortMatch>,
}

/// Which service accounts workloads run as. Both are asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServiceAccountMatch {
    /// `names`: one of these; any where empty.
    pub names: Vec<String>,
    /// `selector`, as written and not empty, of the account's own labels.
    pub selector: Option<String>,
}

/// A Kubernetes service.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceMatch {
    /// `name`.
    pub name: String,
    /// `namespace`; the policy's own where absent.
    pub namespace: Option<String>,
}

/// A port that a rule asks for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PortMatch {
    /// By number.
    Numbers(PortRange),
    /// By name: whichever port the endpoint at that end gives this name, with its protocol.
    Named(String),
}

/// Ports from the first to the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortRange {
    /// The first.
    pub first: u16,
    /// The last, not below the first.
    pub last: u16,
}

impl PortRange {
    /// Is the port one of them?
    pub fn contains(self, port: u16) -> bool {
        (self.first..=self.last).contains(&port)
    }
}

impl From<RangeInclusive<u16>> for PortRange {
    fn from(range: RangeInclusive<u16>) -> PortRange {
        PortRange { first: *range.start(), last: *range.end() }
    }
}

impl fmt::Display for PortRange {
    /// As resources write it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last {
            write!(f, "{}", self.first)
        } else {
            write!(f, "{}:{}", self.first, self.last)
        }
    }
}

impl fmt::Display for PortMatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PortMatch::Numbers(range) => range.fmt(f),
            PortMatch::Named(name) => f.pad(name),
        }
    }
}

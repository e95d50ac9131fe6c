//! Host-endpoint policy, kept by nftables (ARCHITECTURE.md, D10): what ends or begins on this host never enters the walk (D1).
//!
//! ```text
//!  HostPolicy ──render──► Ruleset ──transaction──► nft -f -     (one thread, enforcing.rs)
//!  event loop             sets, chains              table inet tortie-host
//! ```
//!
//! One table of our own, replaced or changed in one transaction: what nft refuses leaves what was in force. It stays in
//! force when the process dies, and a restart replaces it once the datastore is in sync.
//!
//! ```text
//!  hook          priority       asks                    a packet that is allowed
//!  prerouting    raw            untracked, ingress      isn't tracked, and nothing below is asked of it
//!  prerouting    mangle         pre-DNAT                nothing below is asked of it
//!  input         filter         normal, ingress         goes to the host
//!  forward       filter, +1     forward, both ends      goes on
//!  output        raw            untracked, egress       isn't tracked, and nothing below is asked of it
//!  output        filter         normal, egress          leaves
//!  postrouting   mangle         normal, egress          leaves: what DNAT has sent to another interface
//!  postrouting   mangle, +1     nothing: marks          leaves with the DSCP of its source's endpoint
//! ```
//!
//! Packets that the walk forwards meet none of this: policy for them is the walk's. The forward chains are for what the
//! kernel forwards: between interfaces that are no ports, and on uplinks while no router runs. Failing open there (D1)
//! lets through what policy lets through, and no more.
//!
//! The host port `tortie0` is no interface of the host's own. What comes by it from a local workload has been judged in the
//! walk, `defaultEndpointToHostAction` included; anything else (ports that source NAT shares with the host, tunnels)
//! belongs to the endpoint of the interface by which the answer leaves.

mod counters;
#[cfg(test)]
mod differential;
mod enforcing;
#[cfg(test)]
mod kernel_judge;
mod matching;
mod members;
mod render;
mod ruleset;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tracking;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use model::{DenyAction, FailsafePort, LogRate, Prefix};
use policy::resolve::EndpointPolicy;
use policy::rule::SetId;
use policy::sets::Member;

use crate::TunnelTraffic;
use crate::calico::Felix;

pub use enforcing::{Enforcer, remove};
pub use matching::sets_of_policy as sets_of;

/// Our table, of the family `inet`.
pub const TABLE: &str = "tortie-host";

/// Members of sets, by the numbers that rules have for them.
pub type Sets = BTreeMap<SetId, BTreeSet<Member>>;

/// All that host-endpoint policy depends on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostPolicy {
    /// This node's, at most one an interface.
    pub endpoints: Vec<HostEndpointPolicy>,
    /// What rules refer to. A set that isn't here is empty.
    pub sets: Sets,
    /// The dataplane's settings.
    pub settings: Settings,
    /// Addresses of workloads on this node, whose packets the walk judges.
    pub workloads: Vec<Prefix>,
    /// How names of interfaces begin by which the host's own DHCP server serves workloads; what goes on there is no host
    /// endpoint's to judge (`host_dhcp.rs`).
    pub served: Option<String>,
    /// Whose tunnel packets may come and go: nodes, and `externalNodesList`.
    pub tunnel_ends: Vec<Prefix>,
    /// What packets of the host's own leave the cluster with.
    pub marks: Vec<Mark>,
    /// Networks of workloads anywhere: what goes there stays in the cluster.
    pub pools: Vec<Prefix>,
}

/// The DSCP of what the host sends from some of its addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    /// The addresses.
    pub sources: Vec<IpAddr>,
    /// 0 to 63.
    pub dscp: u8,
}

/// A host endpoint at an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostEndpointPolicy {
    /// `metadata.name`.
    pub name: String,
    /// Which interface.
    pub interface: Interface,
    /// What is asked there. Untracked policy isn't for [`Interface::Every`], as in Calico.
    pub policy: Arc<EndpointPolicy>,
}

/// The interface of a host endpoint.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Interface {
    /// The one of this name.
    Named(String),
    /// `*`: all but the loopback that no other endpoint is about.
    Every,
}

/// The dataplane's settings that host endpoints depend on (FelixConfiguration).
///
/// `iptablesFilterAllowAction` isn't among them: in a table of our own, `ACCEPT` leaves the last word to the host's other
/// tables as `RETURN` does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// `failsafeInboundHostPorts`: never closed to others.
    pub failsafe_inbound: Vec<FailsafePort>,
    /// `failsafeOutboundHostPorts`: never closed to the host.
    pub failsafe_outbound: Vec<FailsafePort>,
    /// `disableConntrackInvalidCheck`: are packets let through that belong to no connection and can't begin one?
    pub invalid_allowed: bool,
    /// `nftablesFilterDenyAction`, else `iptablesFilterDenyAction`. What is denied before routing is always dropped.
    pub deny: DenyAction,
    /// `logPrefix`.
    pub log_prefix: String,
    /// `logActionRateLimit`: how often one rule of the action Log may log; `None` is without limit.
    pub log_rate: Option<LogRate>,
    /// `logActionRateLimitBurst`: and how often at once.
    pub log_burst: u16,
    /// Tunnels that end here.
    pub tunnels: TunnelTraffic,
}

impl Settings {
    /// As FelixConfiguration has them, where these tunnels end here.
    pub fn of(felix: &Felix, tunnels: TunnelTraffic) -> Settings {
        Settings {
            failsafe_inbound: felix.failsafe_inbound.clone(),
            failsafe_outbound: felix.failsafe_outbound.clone(),
            invalid_allowed: felix.conntrack_invalid_allowed,
            deny: felix.deny_action,
            log_prefix: felix.log_prefix.clone(),
            log_rate: felix.log_rate,
            log_burst: felix.log_burst,
            tunnels,
        }
    }
}

impl Default for Settings {
    /// Calico's.
    fn default() -> Settings {
        Settings::of(&Felix::of(&[]), TunnelTraffic::default())
    }
}

//! Host-endpoint policy, kept by nftables (DESIGN.md, D10): what ends or begins on this host never enters the walk (D1).
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

use std::collections::{BTreeMap, BTreeSet};

use model::Prefix;
use policy::rule::{AfterTiers, Checks, SetId};
use policy::sets::Member;

pub use enforcing::{Enforcer, remove};

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
    /// Whose tunnel packets may come and go: nodes, and `externalNodesList`.
    pub tunnel_ends: Vec<Prefix>,
}

/// What is asked at one interface, or at every one that no other endpoint is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostEndpointPolicy {
    /// `metadata.name`.
    pub name: String,
    /// Which interface.
    pub interface: Interface,
    /// Before connections are looked at. Not for [`Interface::Every`], as in Calico.
    pub untracked: Directions,
    /// Of what comes in, before destinations are translated.
    pub pre_dnat: Checks,
    /// Of what is forwarded: `applyOnForward`.
    pub forward: Directions,
    /// Of what the host gets and sends.
    pub normal: Directions,
}

/// The interface of a host endpoint.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Interface {
    /// The one of this name.
    Named(String),
    /// `*`: all but the loopback that no other endpoint is about.
    Every,
}

/// Checks of both directions, as the host sees them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Directions {
    /// Of what comes to the host.
    pub ingress: Checks,
    /// Of what leaves it.
    pub egress: Checks,
}

/// No opinion about anything.
pub const NO_CHECKS: Checks = Checks { tiers: Vec::new(), after: AfterTiers::NoMatch };

impl Directions {
    /// No opinion about anything.
    pub const NONE: Directions = Directions { ingress: NO_CHECKS, egress: NO_CHECKS };
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
    /// Not `disableConntrackInvalidCheck`: are packets dropped that belong to no connection and can't begin one?
    pub drop_invalid: bool,
    /// `nftablesFilterDenyAction`, or `iptablesFilterDenyAction`.
    pub deny: DenyAction,
    /// `logPrefix`.
    pub log_prefix: String,
    /// `logActionRateLimit`; `None` is without limit.
    pub log_limit: Option<LogLimit>,
    /// Do tunnels of IPIP end here?
    pub ipip: bool,
    /// UDP ports of the VXLAN tunnels that end here.
    pub vxlan_ports: Vec<u16>,
}

/// A port that policy never closes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FailsafePort {
    /// IANA's number: TCP, UDP or SCTP.
    pub protocol: u8,
    /// The port.
    pub port: u16,
    /// For this network only.
    pub net: Option<Prefix>,
}

/// What becomes of a packet that is denied. What is denied before routing is always dropped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DenyAction {
    /// Dropped.
    #[default]
    Drop,
    /// Dropped, and the sender told.
    Reject,
}

/// How often one rule of the action Log may log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogLimit {
    /// So many, at least 1.
    pub count: u32,
    /// In this time.
    pub per: LogInterval,
    /// `logActionRateLimitBurst`: and so many at once.
    pub burst: u32,
}

/// The time in [`LogLimit`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the words say it")]
pub enum LogInterval {
    Second,
    Minute,
    Hour,
    Day,
}

const TCP: u8 = 6;
const UDP: u8 = 17;

impl FailsafePort {
    const fn any(protocol: u8, port: u16) -> FailsafePort {
        FailsafePort { protocol, port, net: None }
    }
}

impl Default for Settings {
    /// Calico's (`felix/config/config_params.go`): ssh, DHCP, DNS, BGP, etcd, Typha, the Kubernetes API and its older etcd.
    fn default() -> Settings {
        let both = [179, 2379, 2380, 5473, 6443, 6666, 6667].map(|port| FailsafePort::any(TCP, port));
        Settings {
            failsafe_inbound: [FailsafePort::any(TCP, 22), FailsafePort::any(UDP, 68)]
                .into_iter()
                .chain(both)
                .collect(),
            failsafe_outbound: [FailsafePort::any(UDP, 53), FailsafePort::any(UDP, 67)]
                .into_iter()
                .chain(both)
                .collect(),
            drop_invalid: true,
            deny: DenyAction::Drop,
            log_prefix: "calico-packet".to_owned(),
            log_limit: None,
            ipip: false,
            vxlan_ports: Vec::new(),
        }
    }
}

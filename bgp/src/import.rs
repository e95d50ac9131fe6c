//! From what a peer said to what the decision process sees.
//!
//! The first AS of an eBGP route need not be the peer's: RFC 4271 §6.3 lets one check, but route servers do not
//! put theirs in front.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use model::Prefix;

use crate::config::{PeerConfig, PeerKind, SpeakerConfig};
use crate::filter::{Filter, Verdict};
use crate::interner::Interner;
use crate::path::mark;
use crate::rewrite::Rewrite;
use crate::wire::attributes::{Attributes, BLACKHOLE, NO_EXPORT, Scope, code, flag};
use crate::wire::capability::Role;

/// What decides about a peer's routes besides themselves.
#[derive(Clone, Debug)]
pub(crate) struct ImportPolicy<'a> {
    pub(crate) filter: &'a Filter,
    pub(crate) kind: PeerKind,
    /// What we are to the peer.
    pub(crate) role: Option<Role>,
    pub(crate) peer_as: u32,
    /// BLACKHOLE is heeded.
    pub(crate) blackhole: bool,
    /// The bandwidth of the link to the peer, in bytes a second, for routes that tell none.
    pub(crate) link_bandwidth: Option<u64>,
    /// Our AS.
    pub(crate) own_as: u32,
    /// The one that we show this peer, which is what makes a path of its a loop, as BIRD has it: with another AS for each rack
    /// the ToR, whose routes we take, may well be in our own.
    pub(crate) shown_as: u32,
    /// How often it may be in an AS_PATH.
    pub(crate) allowed_own_as: u8,
    pub(crate) router_id: Ipv4Addr,
    /// The clusters that we reflect routes in.
    pub(crate) clusters: Arc<[Ipv4Addr]>,
    pub(crate) own_addresses: [Option<IpAddr>; 4],
}

impl<'a> ImportPolicy<'a> {
    /// That of one peer, with our end of its session.
    pub(crate) fn new(
        speaker: &SpeakerConfig,
        peer: &'a PeerConfig,
        local: Option<IpAddr>,
        clusters: &Arc<[Ipv4Addr]>,
    ) -> ImportPolicy<'a> {
        let shown_as = peer.local_as.unwrap_or(speaker.local_as);
        let kind = PeerKind::between(shown_as, peer.peer_as);
        ImportPolicy {
            filter: peer.import.in_force(peer.policy_required, kind),
            kind,
            role: peer.role,
            peer_as: peer.peer_as.0,
            blackhole: peer.blackhole,
            link_bandwidth: peer.link_bandwidth,
            own_as: speaker.local_as.0,
            shown_as: shown_as.0,
            allowed_own_as: peer.allowed_own_as,
            router_id: speaker.router_id,
            clusters: Arc::clone(clusters),
            own_addresses: [
                local,
                peer.local_address,
                peer.self_next_hops.v4.map(IpAddr::V4),
                peer.self_next_hops.v6.map(IpAddr::V6),
            ],
        }
    }

    /// Marks for what makes all routes with these attributes ineligible.
    pub(crate) fn marks(&self, attributes: &Attributes) -> u16 {
        let mut marks = 0;
        let ours = attributes.as_path().as_numbers().filter(|number| *number == self.shown_as);
        if ours.count() > usize::from(self.allowed_own_as) {
            marks |= mark::AS_LOOP;
        }
        // Our BGP identifier is a cluster of ours, as a reflector without a number for its cluster has it (RFC 4456 §7).
        let is_ours = |cluster| cluster == self.router_id || self.clusters.contains(&cluster);
        if attributes.originator_id() == Some(self.router_id) || attributes.cluster_list().any(is_ours) {
            marks |= mark::REFLECTION_LOOP;
        }
        if self.leaks(attributes) {
            marks |= mark::ROUTE_LEAK;
        }
        let nexthop = attributes.nexthop();
        if nexthop.is_some() && self.own_addresses.contains(&nexthop) {
            marks |= mark::OWN_NEXT_HOP;
        }
        marks
    }

    /// The attributes as the filter leaves them, and a mark where it rejects the route.
    pub(crate) fn filter(
        &self,
        prefix: Prefix,
        received: &Arc<Attributes>,
        interner: &mut Interner,
    ) -> (Arc<Attributes>, u16) {
        match self.filter.verdict(prefix, received, None) {
            Verdict::Reject => (Arc::clone(received), mark::FILTERED),
            Verdict::Accept(rule) => {
                let own_as_only = self.own_as_only(received);
                let from = self.goes_down_from(received);
                let bandwidth = self.link_bandwidth.filter(|_| received.link_bandwidth().is_none());
                if rule.is_none() && !own_as_only && from.is_none() && bandwidth.is_none() {
                    return (Arc::clone(received), 0);
                }
                let (mut rewrite, mut key) = (Rewrite::of(received), Vec::new());
                if let Some(rule) = rule {
                    rewrite.operate(rule);
                }
                if own_as_only {
                    rewrite.add_communities(&[NO_EXPORT], &[]);
                }
                if let Some(bandwidth) = bandwidth {
                    rewrite.add_link_bandwidth(self.own_as, bandwidth);
                }
                if let Some(from) = from {
                    let value = from.to_be_bytes().to_vec();
                    rewrite.set(flag::OPTIONAL_TRANSITIVE, code::ONLY_TO_CUSTOMER, value);
                }
                rewrite.write(received.nexthop(), &mut key);
                (interner.intern_made(&key, received), 0)
            }
        }
    }

    /// Did the route go down to a customer once, and comes up again or across? (RFC 9234 §5, ingress 1 and 2)
    fn leaks(&self, attributes: &Attributes) -> bool {
        match (self.external_role(), attributes.only_to_customer()) {
            (Some(Role::Provider | Role::RouteServer), Some(_)) => true,
            (Some(Role::Peer), Some(from)) => from != self.peer_as,
            _ => false,
        }
    }

    /// The AS from where on the route goes down only, where nobody has noted that yet (RFC 9234 §5, ingress 3).
    fn goes_down_from(&self, attributes: &Attributes) -> Option<u32> {
        let role = self.external_role()?;
        let comes_down = matches!(role, Role::Customer | Role::Peer | Role::RouteServerClient);
        (comes_down && attributes.only_to_customer().is_none()).then_some(self.peer_as)
    }

    fn external_role(&self) -> Option<Role> {
        self.role.filter(|_| self.kind == PeerKind::Ebgp)
    }

    /// A blackhole that we heed is for us to know, and must not leave our AS (RFC 7999 §3.2).
    fn own_as_only(&self, attributes: &Attributes) -> bool {
        self.blackhole && attributes.scope() == Scope::Anywhere && attributes.has_community(BLACKHOLE)
    }
}

/// Can packets be forwarded to such a prefix? Others are "semantically incorrect" and ignored
/// (RFC 4271 §6.3): multicast and loopback.
pub(crate) fn is_forwardable(prefix: Prefix) -> bool {
    // Shorter prefixes that merely cover such addresses are fine.
    match prefix.addr() {
        IpAddr::V4(addr) => {
            let first = addr.octets()[0];
            !(prefix.len() >= 4 && first >> 4 == 0xe || prefix.len() >= 8 && first == 127)
        }
        IpAddr::V6(addr) => {
            !(prefix.len() >= 8 && addr.octets()[0] == 0xff || prefix.len() == 128 && addr.is_loopback())
        }
    }
}

//! From what a peer said to what the decision process sees.
//!
//! The first AS of an eBGP route need not be the peer's: RFC 4271 §6.3 lets one check, but route servers do not
//! put theirs in front.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use model::Prefix;

use crate::filter::{Filter, Verdict};
use crate::interner::Interner;
use crate::loc_rib::mark;
use crate::rewrite::Rewrite;
use crate::wire::attributes::Attributes;

/// What decides about a peer's routes besides themselves.
#[derive(Clone, Debug)]
pub(crate) struct ImportPolicy<'a> {
    pub(crate) filter: &'a Filter,
    /// Our AS numbers: the speaker's, and the one we show this peer.
    pub(crate) own_as: [u32; 2],
    /// How often they may be in an AS_PATH.
    pub(crate) allowed_own_as: u8,
    pub(crate) router_id: Ipv4Addr,
    /// The clusters that we reflect routes in.
    pub(crate) clusters: Arc<[Ipv4Addr]>,
    pub(crate) own_addresses: [Option<IpAddr>; 4],
}

impl ImportPolicy<'_> {
    /// Marks for what makes all routes with these attributes ineligible.
    pub(crate) fn marks(&self, attributes: &Attributes) -> u8 {
        let mut marks = 0;
        let ours = attributes.as_path().as_numbers().filter(|number| self.own_as.contains(number));
        if ours.count() > usize::from(self.allowed_own_as) {
            marks |= mark::AS_LOOP;
        }
        // Our BGP identifier is a cluster of ours, as a reflector without a number for its cluster has it (RFC 4456 §7).
        let is_ours = |cluster| cluster == self.router_id || self.clusters.contains(&cluster);
        if attributes.originator_id() == Some(self.router_id) || attributes.cluster_list().any(is_ours) {
            marks |= mark::REFLECTION_LOOP;
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
    ) -> (Arc<Attributes>, u8) {
        match self.filter.verdict(prefix, received, true) {
            Verdict::Reject => (Arc::clone(received), mark::FILTERED),
            Verdict::Accept(None) => (Arc::clone(received), 0),
            Verdict::Accept(Some(rule)) => {
                let (mut rewrite, mut key) = (Rewrite::of(received), Vec::new());
                rewrite.operate(rule);
                rewrite.write(received.nexthop(), &mut key);
                (interner.intern(&key), 0)
            }
        }
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

//! Looking at a speaker without changing it.

use std::sync::Arc;
use std::time::Instant;

use model::{Family, Prefix};

use crate::config::PeerId;
use crate::decision::{Decision, Rules};
use crate::path::{Slot, mark};
use crate::speaker::{Peer, Speaker};
use crate::status::{FamilyCounters, PathSource, PathStatus, PeerStatus, Standing};
use crate::work::run_decision;

impl Speaker {
    /// Every peer, in no particular order. `now` is for uptimes.
    pub fn peers(&self, now: Instant) -> impl Iterator<Item = PeerStatus> + '_ {
        self.configured().map(move |(slot, peer)| self.peer_status(slot, peer, now))
    }

    /// Peers that are refused for a time, after an error or too many prefixes.
    pub fn resting(&self) -> impl Iterator<Item = PeerId> + '_ {
        let resting = self.configured().filter(|(_, peer)| peer.session.rests_until().is_some());
        resting.map(|(_, peer)| peer.session.config.id)
    }

    /// Prefixes that a peer has been told of, or is being told of.
    fn announced(&self, slot: Slot, peer: &Peer, family: Family) -> usize {
        let Some(member) = &peer.member else { return 0 };
        let Some(group) = self.groups.get(member.group) else { return 0 };
        match family {
            Family::V4 if member.v4.begun => group.told.v4.len(slot),
            Family::V6 if member.v6.begun => group.told.v6.len(slot),
            _ => 0,
        }
    }

    fn peer_status(&self, slot: Slot, peer: &Peer, now: Instant) -> PeerStatus {
        let session = &peer.session;
        let (local_as, kind) = self.relation(&session.config);
        let negotiated = peer.negotiated();
        let family = |family: Family| FamilyCounters {
            negotiated: negotiated.is_some_and(|negotiated| negotiated.uses(family)),
            received: peer.rib_in.cohorts[family as usize].received(),
            stale: peer.rib_in.cohorts[family as usize].stale(),
            announced: self.announced(slot, peer, family),
        };
        let mut errors = peer.errors;
        errors.sessions_lost = session.lost;
        errors.prefixes_refused = peer.rib_in.allowance.dropped;
        PeerStatus {
            id: session.config.id,
            address: session.config.address,
            remote_as: session.config.peer_as,
            local_as,
            kind,
            description: session.config.description.clone(),
            state: session.state(),
            since: session.since(),
            uptime: session.uptime(now),
            last_error: session.last_error().cloned(),
            router_id: negotiated.map(|negotiated| negotiated.router_id),
            hold_time: negotiated.map(|negotiated| negotiated.hold_time),
            resting: session.rests_until().map(|until| until.saturating_duration_since(now)),
            prefix_limit: peer.rib_in.allowance.limit,
            capabilities: negotiated.map(|negotiated| negotiated.capabilities.clone()).unwrap_or_default(),
            v4: family(Family::V4),
            v6: family(Family::V6),
            messages_in: session.messages_in,
            messages_out: session.messages_out,
            errors,
        }
    }

    /// Every path to exactly this prefix, and why each is used or not: first the best, then its equals, then
    /// the others in the order of the steps at which they lost, those that got furthest first.
    pub fn routes(&self, prefix: Prefix) -> Vec<PathStatus> {
        let paths = self.tables.rib.paths(prefix);
        let mut decision = Decision::default();
        run_decision(paths, &self.peers, &self.tables.nexthops, Rules::of(&self.config), &mut decision);
        let source = |slot: Slot| {
            let peer = self.peers.get(slot.0 as usize).and_then(Option::as_ref);
            peer.map_or(PathSource::Local, |peer| PathSource::Peer(peer.session.config.id))
        };
        let mut statuses: Vec<_> = paths
            .iter()
            .zip(&decision.standings)
            .map(|(path, &standing)| PathStatus {
                source: source(path.source),
                path_id: path.path_id,
                attributes: Arc::clone(&path.imported),
                stale: path.has(mark::STALE),
                metric: path
                    .imported
                    .nexthop()
                    .map_or(Some(0), |nexthop| self.tables.nexthops.metric(nexthop)),
                standing,
            })
            .collect();
        statuses.sort_by_key(|status| match status.standing {
            Standing::Best => (0, None),
            Standing::Multipath => (1, None),
            Standing::Lost(step) => (2, Some(std::cmp::Reverse(step))),
            Standing::Ineligible(_) => (3, None),
        });
        statuses
    }

    /// Prefixes of a family that have at least one path.
    pub fn route_count(&self, family: Family) -> usize {
        self.tables.rib.len(family)
    }
}

//! Everything that is known of a BGP session.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Instant;

use bgp::{ErrorCounters, LimitAction, MessageCounters};
use model::Family;

use crate::event_loop::Core;
use crate::status::{BgpFamilyStatus, BgpNeighborStatus, BgpNeighborsStatus, PrefixLimitStatus};

impl Core {
    /// All sessions, or those with peers at an address.
    pub(super) fn bgp_neighbors(&self, address: Option<IpAddr>) -> BgpNeighborsStatus {
        let now = Instant::now();
        let sessions = self.bgp_peers(now);
        let wanted = sessions.iter().filter(|status| address.is_none_or(|address| address == status.address));
        let mut neighbors: Vec<BgpNeighborStatus> =
            wanted.map(|status| self.bgp_neighbor(status, now)).collect();
        neighbors.sort_by(|a, b| a.session.name.cmp(&b.session.name));
        BgpNeighborsStatus { neighbors }
    }

    fn bgp_neighbor(&self, status: &bgp::PeerStatus, now: Instant) -> BgpNeighborStatus {
        let family = |family: Family| {
            let counters = status.family(family);
            let negotiated = counters.negotiated;
            let [received, stale, announced] =
                [counters.received, counters.stale, counters.announced].map(|count| count as u64);
            (name(family).to_owned(), BgpFamilyStatus { negotiated, received, stale, announced })
        };
        BgpNeighborStatus {
            session: self.peer(status, now),
            local_as: status.local_as.0,
            router_id: status.router_id.map(|id| id.to_string()),
            capabilities: status.capabilities.iter().map(ToString::to_string).collect(),
            families: Family::ALL.into_iter().map(family).collect(),
            received_messages: messages(&status.messages_in),
            sent_messages: messages(&status.messages_out),
            errors: errors(&status.errors),
            resting_seconds: status.resting.map(|rest| rest.as_secs()),
        }
    }
}

fn name(family: Family) -> &'static str {
    match family {
        Family::V4 => "ipv4",
        Family::V6 => "ipv6",
    }
}

fn messages(counters: &MessageCounters) -> BTreeMap<String, u64> {
    let MessageCounters { open, update, notification, keepalive, route_refresh } = *counters;
    let named = [
        ("open", open),
        ("update", update),
        ("notification", notification),
        ("keepalive", keepalive),
        ("route_refresh", route_refresh),
    ];
    named.map(|(name, count)| (name.to_owned(), count)).into()
}

fn errors(counters: &ErrorCounters) -> BTreeMap<String, u64> {
    let named = [
        ("treated_as_withdraw", counters.treated_as_withdraw),
        ("attributes_discarded", counters.attributes_discarded),
        ("prefixes_ignored", counters.prefixes_ignored),
        ("not_announceable", counters.not_announceable),
        ("route_leaks", counters.route_leaks),
        ("sessions_lost", counters.sessions_lost),
    ];
    named.map(|(name, count)| (name.to_owned(), count)).into()
}

/// How many paths a peer may hold, and how far it has gone.
pub(super) fn prefix_limit(status: &bgp::PeerStatus) -> PrefixLimitStatus {
    let limit = status.prefix_limit;
    PrefixLimitStatus {
        most: limit.most as u64,
        warns_at: limit.warns_at() as u64,
        action: limit.action.as_str().to_owned(),
        rest_seconds: match limit.action {
            LimitAction::Close { rest } => Some(rest.as_secs()),
            LimitAction::Warn | LimitAction::Drop => None,
        },
        warnings: status.errors.prefix_limit_warnings,
        reached: status.errors.prefix_limit_reached,
        refused: status.errors.prefixes_refused,
        closed: status.errors.prefix_limit,
    }
}

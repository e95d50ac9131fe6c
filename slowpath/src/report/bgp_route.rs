//! What BGP knows of one prefix, and why each path is used or not.

use bgp::{Origin, PathSource, PathStatus, Standing};
use model::Prefix;

use crate::event_loop::Core;
use crate::status::{BgpPathStatus, BgpRouteStatus};

impl Core {
    pub(super) fn bgp_route(&self, prefix: Prefix) -> BgpRouteStatus {
        let paths = self.bgp.ask(move |speaker| speaker.routes(prefix)).unwrap_or_default();
        let name = |peer| self.peer_name(peer);
        BgpRouteStatus {
            prefix: prefix.to_string(),
            paths: paths.iter().map(|path| path_status(path, name)).collect(),
        }
    }
}

fn path_status(path: &PathStatus, name: impl Fn(bgp::PeerId) -> String) -> BgpPathStatus {
    let attributes = &path.attributes;
    let standard =
        attributes.communities().map(|community| format!("{}:{}", community >> 16, community & 0xffff));
    let large = attributes.large_communities().map(|[a, b, c]| format!("{a}:{b}:{c}"));
    let (standing, reason) = match path.standing {
        Standing::Best => ("best", None),
        Standing::Multipath => ("multipath", None),
        Standing::Lost(step) => ("lost", Some(step.to_string())),
        Standing::Ineligible(why) => ("ineligible", Some(why.to_string())),
    };
    BgpPathStatus {
        peer: match path.source {
            PathSource::Local => None,
            PathSource::Peer(peer) => Some(name(peer)),
        },
        path_id: path.path_id,
        nexthop: attributes.nexthop(),
        as_path: attributes.as_path().as_numbers().collect(),
        origin: match attributes.origin() {
            Origin::Igp => "IGP",
            Origin::Egp => "EGP",
            Origin::Incomplete => "incomplete",
        }
        .to_owned(),
        local_pref: attributes.local_pref(),
        med: attributes.med(),
        communities: standard.chain(large).collect(),
        metric: path.metric,
        stale: path.stale,
        standing: standing.to_owned(),
        reason,
    }
}

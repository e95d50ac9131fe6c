//! The whole router at our end: guards and BFD are the sockets' affair, which the speaker has none of.

use std::net::IpAddr;

use anyhow::{Result, ensure};
use model::Prefix;
use serde::Deserialize;

use super::session::{PASSWORD, Session};
use super::{OUR_AS, US};
use crate::Lab;
use crate::netns::Namespace;
use crate::resources::Resources;
use crate::secrets::Secrets;
use crate::tortie::{Settings, ShowRoutes, TortieNode};

/// Tortie, with one peer.
pub(super) struct Router {
    node: TortieNode,
    peer: IpAddr,
}

/// `tortie show bfd`.
#[derive(Deserialize)]
struct ShowBfd {
    bfd_sessions: Vec<BfdSession>,
}

#[derive(Deserialize)]
struct BfdSession {
    state: String,
}

impl Router {
    pub(super) fn raise(lab: &Lab, here: &Namespace, session: Session) -> Result<Router> {
        let (_, peer) = session.ends();
        let resources = Resources::create(lab.directory().join("resources"))?;
        resources.bgp_configuration(false, OUR_AS)?;
        resources.node(here.name(), Some(format!("{US}/24").parse()?), None)?;
        let guard = match session {
            Session::Md5 => "password: {secretKeyRef: {name: bgp, key: daemon}}",
            Session::Gtsm => "ttlSecurity: 1",
            _ => "failureDetectionMode: BFDIfDirectlyConnected",
        };
        resources.write(
            "bgppeer-daemon.yaml",
            &format!(
                "apiVersion: projectcalico.org/v3\nkind: BGPPeer\nmetadata: {{name: daemon}}\n\
                 spec: {{peerIP: \"{peer}\", asNumber: {}, {guard}}}\n",
                session.their_as()
            ),
        )?;
        let secrets = Secrets::create(lab)?;
        secrets.write("daemon", PASSWORD)?;
        let networks: Vec<String> = session.our_routes().iter().map(Prefix::to_string).collect();
        let more = format!(
            "bgp: {{ announce: all, networks: [{}], secrets: {} }}\n\
             bfd: {{ minimum_send_interval: 100, minimum_recv_interval: 100, multiplier: 3 }}\n",
            networks.join(", "),
            secrets.directory().display()
        );
        here.forward()?;
        let settings = Settings { more, ..Settings::default() };
        let node = TortieNode::configure(lab, here, resources.directory(), &settings)?;
        node.start(lab)?;
        Ok(Router { node, peer })
    }

    pub(super) fn is_established(&self) -> Result<bool> {
        self.node.established(1).map(|_| true)
    }

    /// What the daemon's routes in use are for.
    pub(super) fn held(&self) -> Result<Vec<Prefix>> {
        let routes = self.node.show::<ShowRoutes>("routes --source bgp")?.routes;
        let theirs =
            routes.iter().filter(|route| route.nexthops.iter().any(|hop| hop.via == Some(self.peer)));
        Ok(theirs.filter_map(|route| route.prefix.parse().ok()).collect())
    }

    /// Fails unless BFD has heard the daemon, and the daemon us.
    pub(super) fn is_watched(&self) -> Result<bool> {
        let sessions = self.node.show::<ShowBfd>("bfd")?.bfd_sessions;
        let states: Vec<&str> = sessions.iter().map(|session| session.state.as_str()).collect();
        ensure!(states == ["Up"], "BFD's sessions are {states:?}");
        Ok(true)
    }

    /// Has BFD missed the daemon, and the session ended? Either end may have been the first to notice.
    pub(super) fn has_seen_failure(&self) -> bool {
        let said = self.node.said();
        said.contains("detection time expired") && said.contains("BGP session lost")
    }
}

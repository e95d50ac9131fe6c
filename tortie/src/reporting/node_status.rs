//! CalicoNodeStatus: what an operator asks of a node, filled in by the node (`node/pkg/status`).
//!
//! A resource is filled in when it comes, when what it asks for changes, and then at its period. It is written only where
//! something else is to be said than stands there; classes that aren't asked for stay as they are.

use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime};

use datastore::{Key, ResourceKey, ResourceKind, Store, StoreError};
use serde_json::{Map, Value, json};
use slowpath::status::{
    BgpStatus, PeerStatus, ReportedRoute, ReportedRoutes, ReportingStatus, StatusRequest,
};

use super::Failure;
use crate::observer::NoAnswer;
use crate::show;

/// Prefixes of each family at most: a value of etcd's has 1.5 MiB, and a route some 200 bytes.
pub(super) const ROUTES: usize = 2_000;

pub(super) struct NodeStatuses {
    node: String,
    known: BTreeMap<String, Known>,
}

/// A resource that has been seen.
struct Known {
    request: StatusRequest,
    /// When it is filled in next; never where it is wanted once and is there.
    due: Option<Instant>,
}

/// What has to be asked for.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Wanted {
    pub(super) routes: bool,
}

impl NodeStatuses {
    pub(super) fn new(node: &str) -> NodeStatuses {
        NodeStatuses { node: node.to_owned(), known: BTreeMap::new() }
    }

    /// Takes note of what there is, and says whether any of it is to be filled in.
    pub(super) fn is_due(&mut self, status: &ReportingStatus, now: Instant) -> bool {
        self.known.retain(|name, _| status.requests.iter().any(|request| request.name == *name));
        for request in &status.requests {
            match self.known.get_mut(&request.name) {
                Some(known) if known.request == *request => {}
                _ => {
                    let known = Known { request: request.clone(), due: Some(now) };
                    self.known.insert(request.name.clone(), known);
                }
            }
        }
        self.known.values().any(|known| known.is_due(now))
    }

    /// Fills in what is due; `ask` gives sessions and routes.
    ///
    /// # Errors
    /// What can't be asked for or written; it is tried again the next time.
    pub(super) fn tell(
        &mut self,
        store: &dyn Store,
        status: &ReportingStatus,
        now: Instant,
        ask: impl FnOnce(Wanted) -> Result<(BgpStatus, ReportedRoutes), NoAnswer>,
    ) -> Result<(), Failure> {
        if !self.is_due(status, now) {
            return Ok(());
        }
        let due = self.known.values().filter(|known| known.is_due(now));
        let (bgp, routes) = ask(Wanted { routes: due.clone().any(|known| known.request.routes) })?;
        for known in self.known.values_mut().filter(|known| known.is_due(now)) {
            match fill_in(store, &self.node, &known.request, &bgp, &routes) {
                // Who has written meanwhile may ask for something else: the datastore's word about it is on its way.
                Err(StoreError::Conflict(_)) => continue,
                Ok(()) | Err(StoreError::NotFound(_)) => {}
                Err(error) => return Err(error.into()),
            }
            let period = Duration::from_secs(known.request.period_seconds);
            known.due = (!period.is_zero()).then(|| now + period);
        }
        Ok(())
    }
}

impl Known {
    fn is_due(&self, now: Instant) -> bool {
        self.due.is_some_and(|due| due <= now)
    }
}

fn fill_in(
    store: &dyn Store,
    node: &str,
    request: &StatusRequest,
    bgp: &BgpStatus,
    routes: &ReportedRoutes,
) -> Result<(), StoreError> {
    let key = Key::Resource(ResourceKey {
        kind: ResourceKind::CalicoNodeStatus,
        namespace: String::new(),
        name: request.name.clone(),
    });
    let stored = store.get(&key)?;
    let mut value = stored.value;
    if value["spec"]["node"] != *node {
        return Ok(());
    }
    let before = value["status"].as_object().cloned().unwrap_or_default();
    let mut status = before.clone();
    for (class, is_wanted, told) in [
        ("agent", request.agent, agent as fn(&BgpStatus, &ReportedRoutes) -> Value),
        ("bgp", request.bgp, sessions),
        ("routes", request.routes, by_family),
    ] {
        if is_wanted {
            status.insert(class.to_owned(), told(bgp, routes));
        } else {
            status.entry(class).or_insert_with(|| empty(class));
        }
    }
    if status == before {
        return Ok(());
    }
    let now = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
    status.insert("lastUpdated".to_owned(), json!(now));
    if let Some(fields) = value.as_object_mut() {
        fields.insert("status".to_owned(), Value::Object(status));
    }
    store.update(&key, &value, stored.revision).map(drop)
}

/// What nobody asked for, as Calico leaves it.
fn empty(class: &str) -> Value {
    match class {
        "agent" => json!({"birdV4": {}, "birdV6": {}}),
        "bgp" => json!({
            "numberEstablishedV4": 0, "numberNotEstablishedV4": 0,
            "numberEstablishedV6": 0, "numberNotEstablishedV6": 0,
        }),
        _ => json!({}),
    }
}

/// The daemon that speaks BGP: one here, for both families.
fn agent(bgp: &BgpStatus, _: &ReportedRoutes) -> Value {
    // As BIRD writes a time.
    let time = |rfc3339: &str| rfc3339.replace('T', " ").trim_end_matches('Z').to_owned();
    let daemon = match &bgp.router_id {
        Some(router_id) => json!({
            "state": "Ready", "version": format!("v{}+tortie", env!("CARGO_PKG_VERSION")), "routerID": router_id,
            "lastBootTime": time(&bgp.started), "lastReconfigurationTime": time(&bgp.reconfigured),
        }),
        // It can't speak BGP without an identifier.
        None => json!({"state": "NotReady"}),
    };
    json!({"birdV4": daemon, "birdV6": daemon})
}

fn sessions(bgp: &BgpStatus, _: &ReportedRoutes) -> Value {
    let mut status = Map::new();
    for (family, is_v4) in [("V4", true), ("V6", false)] {
        let peers = bgp.peers.iter().filter(|peer| peer.address.is_ipv4() == is_v4);
        let established = peers.clone().filter(|peer| peer.up).count();
        let not_established = peers.clone().count() - established;
        status.insert(format!("numberEstablished{family}"), json!(established));
        status.insert(format!("numberNotEstablished{family}"), json!(not_established));
        let rows: Vec<Value> = peers.map(session).collect();
        if !rows.is_empty() {
            status.insert(format!("peers{family}"), Value::Array(rows));
        }
    }
    Value::Object(status)
}

fn session(peer: &PeerStatus) -> Value {
    let kind = match peer.kind.as_str() {
        "node-to-node mesh" => "NodeMesh",
        "global" => "GlobalPeer",
        _ => "NodePeer",
    };
    json!({"peerIP": peer.address.to_string(), "type": kind, "state": peer.state, "since": show::bgp::since(peer)})
}

fn by_family(_: &BgpStatus, routes: &ReportedRoutes) -> Value {
    let mut status = Map::new();
    for (family, is_v4) in [("routesV4", true), ("routesV6", false)] {
        let routes = routes.reported_routes.iter().filter(|route| route.destination.contains(':') != is_v4);
        let rows: Vec<Value> = routes.map(route).collect();
        if !rows.is_empty() {
            status.insert(family.to_owned(), Value::Array(rows));
        }
    }
    Value::Object(status)
}

fn route(route: &ReportedRoute) -> Value {
    let mut learned_from = json!({"sourceType": route.source_type});
    if let Some(peer) = &route.peer_ip {
        learned_from["peerIP"] = json!(peer);
    }
    json!({
        "type": if route.in_use { "FIB" } else { "RIB" }, "destination": route.destination,
        "gateway": route.gateway, "interface": route.interface, "learnedFrom": learned_from,
    })
}

#[cfg(test)]
mod tests;

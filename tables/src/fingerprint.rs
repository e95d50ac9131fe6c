//! What the tables mean, a number each: whoever was told the same, in whatever order and by whatever detours, has the same.
//!
//! So row numbers, epochs, classes of addresses and counts don't enter; nor do MAC addresses and interface numbers, which the
//! kernel gives.

use std::fmt::{Debug, Write};
use std::hash::{DefaultHasher, Hash, Hasher};

use model::{PortId, Prefix};

use crate::{AdjacencyId, Endpoint, Group, GroupId, State, Writer};

/// One table's meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fingerprint {
    /// Which.
    pub table: &'static str,
    /// How many rows it has.
    pub rows: usize,
    /// Of all rows, whatever their order. Comparable between runs of one build.
    pub hash: u64,
}

impl Fingerprint {
    fn of<T: Hash>(table: &'static str, rows: impl IntoIterator<Item = T>) -> Fingerprint {
        let mut all = Fingerprint { table, rows: 0, hash: 0 };
        for row in rows {
            all.rows += 1;
            all.hash = all.hash.wrapping_add(hash_of(&row));
        }
        all
    }
}

fn hash_of(value: &impl Hash) -> u64 {
    // Its keys are fixed.
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

fn text(value: &impl Debug) -> String {
    format!("{value:?}")
}

impl Writer {
    /// Of all tables as they will be after the next publication. `routes`: those to look at, as the forwarding table can only
    /// be asked; what isn't there isn't counted.
    pub fn fingerprints(&self, routes: impl IntoIterator<Item = Prefix>) -> Vec<Fingerprint> {
        let state = self.staged();
        let installed =
            routes.into_iter().filter_map(|prefix| Some((prefix, way(state, self.fib().get(prefix)?))));
        let ends = state.tunnel_ends.iter().map(text);
        let others = [text(&state.own_addresses), text(&state.workload_tunnels)];
        vec![
            Fingerprint::of("routes", installed),
            Fingerprint::of("ports", state.ports.iter().map(port)),
            Fingerprint::of("policy", self.policy_meanings()),
            Fingerprint::of("tunnels", ends.chain(others)),
            Fingerprint::of("translation", [text(&state.nat)]),
            Fingerprint::of("rules", [text(&(state.flow_rules, state.reverse_path, state.ready))]),
        ]
    }
}

fn name(state: &State, port: PortId) -> &str {
    state.ports.get(port).map_or("none", |port| port.name.as_str())
}

/// Where a group leads, its members in order of their names.
fn way(state: &State, group: GroupId) -> String {
    let Some(group) = state.group(group) else { return "nowhere".to_owned() };
    let kind = match group {
        Group::Forward(_) => "Forward".to_owned(),
        Group::Weighted(..) => "Weighted".to_owned(),
        Group::Local(_) => "Local".to_owned(),
        other => text(other),
    };
    let weight = |place: usize| match group {
        Group::Weighted(_, weights) => weights.get(place).copied().unwrap_or_default(),
        _ => 1,
    };
    let mut members: Vec<String> = group
        .members()
        .iter()
        .enumerate()
        .map(|(place, id)| format!("{} by {}", member(state, *id), weight(place)))
        .collect();
    members.sort_unstable();
    format!("{kind} {members:?}")
}

fn member(state: &State, id: AdjacencyId) -> String {
    let Some(adjacency) = state.adjacency(id) else { return "nobody".to_owned() };
    let is_resolved = adjacency.addresses.is_some();
    let mut text = format!("{} {} {is_resolved}", name(state, adjacency.port), adjacency.neighbor);
    // Writing to a text doesn't fail.
    let _ = write!(text, " {:?} {:?}", adjacency.encapsulation, adjacency.mtu);
    text
}

fn port(port: &crate::Port) -> String {
    let endpoint = port.endpoint.as_ref().map(|endpoint| {
        let Endpoint { name, addresses, qos } = endpoint;
        let mut addresses = addresses.clone();
        addresses.sort_unstable();
        (name.clone(), addresses, qos.as_ref().map(|qos| *qos.controls()))
    });
    format!("{} {:?} {} {} {endpoint:?}", port.name, port.kind, port.mtu, port.up)
}

#[cfg(test)]
mod tests;

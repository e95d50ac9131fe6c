//! Nodes by the names that Kubernetes has for them, wherever a site names one (`calicoctl/commands/datastore/migrate`).

use std::collections::BTreeMap;

use datastore::{ApiObject, Key, ResourceKind};
use serde_json::Value;

/// What handles of a node's own addresses begin with.
const TUNNELS: [&str; 3] = ["ipip-tunnel-addr-", "vxlan-tunnel-addr-", "wireguard-tunnel-addr-"];
/// Felix's settings that the first API wrote in capitals.
const ACTIONS: [&str; 4] = [
    "defaultEndpointToHostAction",
    "iptablesFilterAllowAction",
    "iptablesMangleAllowAction",
    "iptablesFilterDenyAction",
];

/// Kubernetes' names by those in the store; empty where nodes keep theirs.
#[derive(Debug, Default)]
pub(super) struct Nodes(BTreeMap<String, String>);

impl Nodes {
    /// Renames the nodes themselves, and what is named after one. Nodes have to come first.
    ///
    /// # Errors
    /// A node that Kubernetes doesn't know.
    pub(super) fn rename(&mut self, kind: ResourceKind, objects: &mut [ApiObject]) -> Result<(), String> {
        for object in objects {
            match kind {
                ResourceKind::Node => self.node(object)?,
                ResourceKind::FelixConfiguration => {
                    self.named_after(object);
                    ACTIONS.iter().for_each(|field| capitalize(object, field));
                }
                ResourceKind::BgpConfiguration => self.named_after(object),
                _ => {}
            }
        }
        Ok(())
    }

    fn node(&mut self, node: &mut ApiObject) -> Result<(), String> {
        let name = node.name().to_owned();
        let orchestrators = node.spec("orchRefs").as_array().into_iter().flatten();
        let kubernetes = orchestrators.rev().find(|one| one["orchestrator"] == "k8s");
        let Some(known) = kubernetes.and_then(|one| one["nodeName"].as_str()).map(str::to_owned) else {
            return Err(format!(
                "unable to process metadata for export for Node resource: node {name} missing a 'k8s' orchestrator \
                 reference. Unable to export data unless every node has a 'k8s' orchestrator reference"
            ));
        };
        node.set_text("name", &known);
        self.0.insert(name, known);
        Ok(())
    }

    fn named_after(&self, object: &mut ApiObject) {
        if let Some(known) = object.name().strip_prefix("node.").and_then(|node| self.0.get(node)) {
            let name = format!("node.{known}");
            object.set_text("name", &name);
        }
    }

    /// A key and value of IPAM's books.
    pub(super) fn book(&self, key: Key, mut value: Value) -> (Key, Value) {
        let key = match key {
            Key::Affinity { node, block } => {
                Key::Affinity { node: self.0.get(&node).cloned().unwrap_or(node), block }
            }
            Key::Handle(handle) => Key::Handle(self.handle(&handle).unwrap_or(handle)),
            Key::Block(block) => {
                self.block(&mut value);
                Key::Block(block)
            }
            key => key,
        };
        (key, value)
    }

    fn block(&self, block: &mut Value) {
        let host = block["affinity"].as_str().and_then(|affinity| affinity.strip_prefix("host:"));
        if let Some(known) = host.and_then(|host| self.0.get(host)) {
            block["affinity"] = format!("host:{known}").into();
        }
        for row in block["attributes"].as_array_mut().into_iter().flatten() {
            if let Some(known) = row["secondary"]["node"].as_str().and_then(|node| self.0.get(node)) {
                row["secondary"]["node"] = known.as_str().into();
            }
            if let Some(handle) = row["handle_id"].as_str().and_then(|handle| self.handle(handle)) {
                row["handle_id"] = handle.into();
            }
        }
    }

    /// The handle of a node's own address, where the node has another name.
    fn handle(&self, handle: &str) -> Option<String> {
        TUNNELS
            .iter()
            .find_map(|prefix| Some(format!("{prefix}{}", self.0.get(handle.strip_prefix(prefix)?)?)))
    }
}

/// A capital, and small letters behind it.
fn capitalize(felix: &mut ApiObject, field: &str) {
    let text = felix.spec_text(field);
    if let Some(first) = text.get(..1) {
        let text = first.to_ascii_uppercase() + &text[1..].to_ascii_lowercase();
        felix.set_spec(field, text);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn object(kind: ResourceKind, name: &str, spec: Value) -> ApiObject {
        ApiObject::decode(kind, &json!({ "metadata": { "name": name }, "spec": spec })).unwrap()
    }

    #[test]
    fn a_node_goes_by_its_kubernetes_name_everywhere() {
        let mut nodes = Nodes::default();
        let node = json!({ "orchRefs": [{ "orchestrator": "k8s", "nodeName": "worker-1" }] });
        let mut objects = [object(ResourceKind::Node, "host-1", node)];
        nodes.rename(ResourceKind::Node, &mut objects).unwrap();
        assert_eq!(objects[0].name(), "worker-1");

        let felix = json!({ "defaultEndpointToHostAction": "RETURN", "iptablesFilterAllowAction": "accept" });
        let mut objects = [object(ResourceKind::FelixConfiguration, "node.host-1", felix)];
        nodes.rename(ResourceKind::FelixConfiguration, &mut objects).unwrap();
        assert_eq!(objects[0].name(), "node.worker-1");
        assert_eq!(objects[0].spec_text("defaultEndpointToHostAction"), "Return");
        assert_eq!(objects[0].spec_text("iptablesFilterAllowAction"), "Accept");

        let block = "10.0.0.0/26".parse().unwrap();
        let value = json!({
            "affinity": "host:host-1",
            "attributes": [
                { "handle_id": "ipip-tunnel-addr-host-1", "secondary": { "node": "host-1" } },
                { "handle_id": "k8s-pod-network.0", "secondary": { "node": "host-2" } },
            ],
        });
        let (_, value) = nodes.book(Key::Block(block), value);
        assert_eq!(
            value,
            json!({
                "affinity": "host:worker-1",
                "attributes": [
                    { "handle_id": "ipip-tunnel-addr-worker-1", "secondary": { "node": "worker-1" } },
                    { "handle_id": "k8s-pod-network.0", "secondary": { "node": "host-2" } },
                ],
            })
        );
        let affinity = Key::Affinity { node: "host-1".to_owned(), block };
        assert_eq!(nodes.book(affinity, json!({})).0, Key::Affinity { node: "worker-1".to_owned(), block });
        let handle = Key::Handle("vxlan-tunnel-addr-host-1".to_owned());
        assert_eq!(nodes.book(handle, json!({})).0, Key::Handle("vxlan-tunnel-addr-worker-1".to_owned()));
    }

    #[test]
    fn a_node_that_kubernetes_does_not_know_is_an_error() {
        let mut objects = [object(ResourceKind::Node, "host-1", json!({}))];
        let error = Nodes::default().rename(ResourceKind::Node, &mut objects).unwrap_err();
        assert!(error.contains("node host-1 missing a 'k8s' orchestrator reference"), "{error}");
    }
}

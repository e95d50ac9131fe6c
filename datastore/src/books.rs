//! IPAM's books as resources, the way Calico keeps them in Kubernetes (`libcalico-go/lib/backend/k8s/resources`): in etcd
//! the same fields stand without a resource around them.

use serde_json::{Map, Value, json};

use crate::store::Key;

/// The group and version of these resources.
const API_VERSION: &str = "crd.projectcalico.org/v1";
/// Fields that are spelled otherwise: as a value has them, and as a resource does.
const RESPELLED: &[(&str, &str)] = &[
    ("affinity_claim_time", "affinityClaimTime"),
    ("strict_affinity", "strictAffinity"),
    ("auto_allocate_blocks", "autoAllocateBlocks"),
];

/// The resource of a book's value; nothing where the key is no book's, or the value no mapping.
pub(crate) fn resource(key: &Key, value: &Value) -> Option<Value> {
    let mut spec: Map<String, Value> = value
        .as_object()?
        .iter()
        .map(|(name, value)| {
            let respelled = RESPELLED.iter().find(|(written, _)| written == name);
            (respelled.map_or(name.as_str(), |(_, there)| there).to_owned(), value.clone())
        })
        .collect();
    let (kind, name) = match key {
        Key::Block(block) => ("IPAMBlock", plain(&block.to_string())),
        Key::Affinity { node, block } => {
            spec.insert("node".to_owned(), json!(node));
            spec.insert("cidr".to_owned(), json!(block.to_string()));
            spec.insert("type".to_owned(), json!("host"));
            if let Some(deleted) = spec.get_mut("deleted").filter(|deleted| deleted.is_boolean()) {
                *deleted = json!(deleted.to_string());
            }
            ("BlockAffinity", format!("{node}-{}", plain(&block.to_string())))
        }
        Key::Handle(handle) => {
            spec.insert("handleID".to_owned(), json!(handle));
            ("IPAMHandle", handle.to_lowercase())
        }
        Key::IpamConfig => ("IPAMConfig", "default".to_owned()),
        Key::Resource(_) | Key::Status(_) => return None,
    };
    Some(json!({"apiVersion": API_VERSION, "kind": kind, "metadata": {"name": name}, "spec": spec}))
}

/// The key and the value of a book's resource.
pub(crate) fn book(kind: &str, resource: &Value) -> Option<(Key, Value)> {
    let mut spec = resource["spec"].as_object()?.clone();
    let prefix = |spec: &Map<String, Value>| spec.get("cidr")?.as_str()?.parse().ok();
    let key = match kind {
        "IPAMBlock" => Key::Block(prefix(&spec)?),
        "BlockAffinity" => {
            if spec.get("type").and_then(Value::as_str).is_some_and(|kind| kind == "virtual") {
                // The load balancer controller's.
                return None;
            }
            let block = prefix(&spec)?;
            let node = spec.get("node")?.as_str().filter(|node| !node.is_empty())?.to_owned();
            ["node", "cidr", "type"].iter().for_each(|name| drop(spec.shift_remove(*name)));
            if let Some(deleted) = spec.get_mut("deleted").filter(|deleted| deleted.is_string()) {
                *deleted = json!(*deleted == "true");
            }
            Key::Affinity { node, block }
        }
        "IPAMHandle" => Key::Handle(spec.shift_remove("handleID")?.as_str()?.to_owned()),
        "IPAMConfig" => Key::IpamConfig,
        _ => return None,
    };
    let value = spec.into_iter().map(|(name, value)| {
        let respelled = RESPELLED.iter().find(|(_, there)| *there == name);
        (respelled.map_or(name.as_str(), |(written, _)| written).to_owned(), value)
    });
    Some((key, Value::Object(value.collect())))
}

/// A prefix as a name: `10-1-3-64-26` (`names.CIDRToName`).
fn plain(prefix: &str) -> String {
    prefix.replace(['.', ':', '/'], "-")
}

//! What one key of etcd means: its value as the resource that the router reads.
//!
//! The key says which resource it is, whatever the value says of itself, as with Calico's own readers.

use std::path::Path;
use std::sync::Arc;

use model::Resource;
use serde_json::{Map, Value, json};

use super::path;
use crate::convert::API_VERSION;
use crate::event::Ignored;
use crate::invalid::{Invalid, Reason};
use crate::store::{Key, ResourceKey};
use crate::{books, document, manifest};

/// What Calico's writers leave in a policy: its own name, where the key has another one.
const METADATA: &str = "projectcalico.org/metadata";

/// What a key holds.
#[derive(Debug, Default)]
pub(super) struct Entry {
    /// The resource; nothing where it has no effect, or can't be read.
    pub(super) resource: Option<Arc<Resource>>,
    /// What of it has no effect.
    pub(super) ignored: Vec<Ignored>,
    /// Why it can't be read: then it counts as absent, as with Felix. Beside a resource, why some of it does.
    pub(super) problem: Option<Invalid>,
    /// May the datastore be used? Said by one key alone.
    pub(super) is_ready: Option<bool>,
}

/// Reads a value; nothing where the router has no use for its key.
pub(super) fn read(path: &str, bytes: &[u8]) -> Option<Entry> {
    let key = path::parse(path)?;
    let file = Path::new(path);
    let is_empty_affinity = bytes.is_empty() && matches!(key, Key::Affinity { .. });
    let parsed =
        if is_empty_affinity { Ok(Value::Object(Map::new())) } else { serde_json::from_slice(bytes) };
    let value = match parsed {
        Ok(value) => value,
        Err(error) => return Some(Entry::bad(manifest::whole_file(file, Reason::Json(error.to_string())))),
    };
    let (resource, is_ready) = match &key {
        Key::Resource(name) => {
            // One that says nothing of it forbids nothing.
            let is_ready = is_flag(path).then(|| value["spec"]["datastoreReady"] != json!(false));
            (named(name, value), is_ready)
        }
        Key::Block(_) | Key::Affinity { .. } => (books::resource(&key, &value), None),
        Key::Handle(_) | Key::IpamConfig | Key::Status(_) => return None,
    };
    let Some(resource) = resource else {
        let reason = Reason::WrongType { expected: "a mapping", found: "something else" };
        return Some(Entry::bad(manifest::whole_file(file, reason)));
    };
    Some(match manifest::of_tree(file, &document::Value::of_json(&resource)) {
        Ok(manifest) => Entry {
            resource: manifest.entries.into_iter().next().map(|entry| entry.resource),
            ignored: manifest.ignored,
            problem: first(manifest.left_out),
            is_ready,
        },
        Err(problems) => Entry { problem: first(problems), is_ready, ..Entry::default() },
    })
}

/// The first of them, and how many more there are.
fn first(problems: Vec<Invalid>) -> Option<Invalid> {
    let more = problems.len().saturating_sub(1);
    problems.into_iter().next().map(|problem| Invalid { more, ..problem })
}

/// Is it the key that says whether the datastore may be used?
pub(super) fn is_flag(path: &str) -> bool {
    path == "/calico/resources/v3/projectcalico.org/clusterinformations/default"
}

impl Entry {
    fn bad(problem: Invalid) -> Entry {
        Entry { problem: Some(problem), ..Entry::default() }
    }
}

/// The value as a resource of that name.
fn named(key: &ResourceKey, mut value: Value) -> Option<Value> {
    let fields = value.as_object_mut()?;
    fields.insert("apiVersion".to_owned(), json!(API_VERSION));
    fields.insert("kind".to_owned(), json!(key.kind.name()));
    if key.kind.is_tiered() {
        say_directions(fields.entry("spec").or_insert_with(|| json!({})).as_object_mut()?);
    }
    let tier = fields.get("spec").and_then(|spec| spec["tier"].as_str()).unwrap_or_default();
    let in_default_tier = matches!(tier, "" | "default");
    let metadata = fields.entry("metadata").or_insert_with(|| json!({})).as_object_mut()?;
    let name = policy_name(key, in_default_tier, metadata).unwrap_or_else(|| key.name.clone());
    metadata.insert("name".to_owned(), json!(name));
    metadata.insert("namespace".to_owned(), json!(key.namespace));
    Some(value)
}

/// A policy that doesn't say which directions it is about is about both, whatever its rules
/// (`ExtractPolicyMetadata` in `felix/calc/policy_sorter.go`). Calico's client works them out from the rules when it writes.
fn say_directions(spec: &mut Map<String, Value>) {
    let is_said = spec.get("types").is_some_and(|types| !types.is_null() && *types != json!([]));
    if is_said || spec.get("stagedAction") == Some(&json!("Delete")) {
        return;
    }
    let is_pre_dnat = spec.get("preDNAT") == Some(&json!(true));
    let types = if is_pre_dnat { json!(["Ingress"]) } else { json!(["Ingress", "Egress"]) };
    spec.insert("types".to_owned(), types);
}

/// A policy's name where it isn't its key's: the one that its writer noted, or that of the time when names began with
/// their tiers.
fn policy_name(
    key: &ResourceKey,
    in_default_tier: bool,
    metadata: &mut Map<String, Value>,
) -> Option<String> {
    if !key.kind.is_tiered() {
        return None;
    }
    let noted = metadata
        .get_mut("annotations")
        .and_then(Value::as_object_mut)
        .and_then(|all| all.shift_remove(METADATA));
    if let Some(noted) = noted {
        let noted: Value = serde_json::from_str(noted.as_str()?).ok()?;
        return noted["name"].as_str().filter(|name| !name.is_empty()).map(str::to_owned);
    }
    in_default_tier.then(|| key.name.strip_prefix("default.").map(str::to_owned)).flatten()
}

#[cfg(test)]
mod tests {
    use model::Setting;

    use super::*;

    #[test]
    fn a_policy_that_says_nothing_of_directions_is_about_both() {
        let about = |kind: &str, spec: Value| {
            let path = format!("/calico/resources/v3/projectcalico.org/{kind}/default.p");
            let entry = read(&path, json!({"spec": spec}).to_string().as_bytes()).unwrap();
            match Arc::unwrap_or_clone(entry.resource.unwrap()) {
                Resource::NetworkPolicy(policy) => (policy.applies_to_ingress, policy.applies_to_egress),
                other => panic!("{other:?}"),
            }
        };
        let global = |spec| about("globalnetworkpolicies", spec);
        assert_eq!(global(json!({})), (true, true));
        assert_eq!(global(json!({"types": [], "ingress": [{"action": "Allow"}]})), (true, true));
        assert_eq!(global(json!({"types": null, "egress": [{"action": "Allow"}]})), (true, true));
        assert_eq!(global(json!({"types": ["Egress"]})), (false, true));
        assert_eq!(global(json!({"preDNAT": true, "applyOnForward": true})), (true, false));
        assert_eq!(about("stagedglobalnetworkpolicies", json!({"stagedAction": "Delete"})), (false, false));
        assert_eq!(about("stagedglobalnetworkpolicies", json!({})), (true, true));
    }

    #[test]
    fn a_setting_that_is_no_good_takes_no_other_down_unless_felix_would_not_run_with_it() {
        let read = |spec: &Value| {
            let path = "/calico/resources/v3/projectcalico.org/felixconfigurations/default";
            let entry = super::read(path, json!({"spec": spec}).to_string().as_bytes()).unwrap();
            let config = entry.resource.map(|resource| match Arc::unwrap_or_clone(resource) {
                Resource::FelixConfiguration(config) => config,
                other => panic!("{other:?}"),
            });
            (config, entry.problem.map(|problem| (problem.field.unwrap(), problem.more)))
        };
        let timeouts = json!({"udpTimeout": "soon", "icmpTimeout": "7s"});
        let (config, problem) = read(&json!({
            "ipipMTU": 70000, "vxlanEnabled": false, "bpfEnforceRPF": "Sometimes", "bpfConntrackTimeouts": timeouts,
        }));
        let config = config.unwrap();
        assert_eq!(config.vxlan_enabled, Setting::Given(false));
        assert_eq!((config.ipip_mtu, config.reverse_path), (Setting::Standard, Setting::Standard));
        let timeouts = config.conntrack_timeouts.given().unwrap();
        assert_eq!((timeouts.udp, timeouts.icmp), (None, Some(std::time::Duration::from_secs(7))));
        assert_eq!(problem, Some(("spec.ipipMTU".to_owned(), 2)));
        // These Felix ends for, and of what isn't of its type nothing is read.
        for spec in [
            json!({"defaultEndpointToHostAction": "Maybe"}),
            json!({"failsafeInboundHostPorts": [{"protocol": "GRE", "port": 1}]}),
            json!({"vxlanEnabled": "no"}),
        ] {
            let (config, problem) = read(&spec);
            assert!(config.is_none() && problem.is_some(), "{spec}");
        }
    }

    fn policy(path: &str, metadata: &Value, tier: &str) -> String {
        let path = format!("/calico/resources/v3/projectcalico.org/{path}");
        let value = json!({"metadata": metadata, "spec": {"tier": tier, "selector": "all()"}});
        let entry = read(&path, value.to_string().as_bytes()).unwrap();
        assert_eq!(entry.problem, None);
        entry.resource.unwrap().key().to_string()
    }

    #[test]
    fn a_policy_is_named_by_its_note_or_by_its_key_without_the_tier() {
        let note =
            |name: &str| json!({"name": "x", "annotations": {METADATA: json!({"name": name}).to_string()}});
        let (none, web) = (json!({}), "networkpolicies/web/");
        for (key, metadata, tier, expected) in [
            ("globalnetworkpolicies/default.a", &none, "", "GlobalNetworkPolicy(a)"),
            ("globalnetworkpolicies/default.a", &none, "default", "GlobalNetworkPolicy(a)"),
            ("globalnetworkpolicies/security.a", &none, "security", "GlobalNetworkPolicy(security.a)"),
            ("globalnetworkpolicies/default.a", &note("default.a"), "", "GlobalNetworkPolicy(default.a)"),
            (&format!("{web}default.b"), &note("b"), "default", "NetworkPolicy(web/b)"),
            (&format!("{web}ossg.default.b"), &none, "", "NetworkPolicy(web/ossg.default.b)"),
            ("stagedglobalnetworkpolicies/default.a", &none, "", "StagedGlobalNetworkPolicy(a)"),
        ] {
            assert_eq!(policy(key, metadata, tier), expected, "{key} {metadata}");
        }
    }

    #[test]
    fn the_key_says_which_resource_it_is() {
        let path = "/calico/resources/v3/projectcalico.org/ippools/p";
        let value = json!({"kind": "Node", "metadata": {"name": "q"}, "spec": {"cidr": "10.0.0.0/16"}});
        let entry = read(path, value.to_string().as_bytes()).unwrap();
        assert_eq!(entry.resource.unwrap().key().to_string(), "IPPool(p)");
    }

    #[test]
    fn books_and_old_affinities_are_read() {
        let block = json!({"cidr": "10.0.0.0/30", "affinity": "host:n", "allocations": [null, 0, null, null],
            "unallocated": [0, 2, 3], "attributes": [{"handle_id": "h", "secondary": {"node": "m"}}], "deleted": false});
        let key = |path: &str, value: &str| {
            read(path, value.as_bytes()).unwrap().resource.unwrap().key().to_string()
        };
        assert_eq!(
            key("/calico/ipam/v2/assignment/ipv4/block/10.0.0.0-30", &block.to_string()),
            "IPAMBlock(10.0.0.0/30)"
        );
        for value in ["", "{}", r#"{"state":"confirmed"}"#, r#"{"state":"confirmed","deleted":false}"#] {
            let found = key("/calico/ipam/v2/host/n/ipv4/block/10.0.0.0-30", value);
            assert_eq!(found, "BlockAffinity(10.0.0.0/30 of n)");
        }
    }

    #[test]
    fn garbage_is_a_problem_with_a_name() {
        let path = "/calico/resources/v3/projectcalico.org/ippools/p";
        for (value, reason) in [
            ("", "isn't JSON"),
            ("{", "isn't JSON"),
            ("\u{0}", "isn't JSON"),
            ("7", "a mapping"),
            ("[]", "a mapping"),
            (r#"{"metadata":7}"#, "a mapping"),
            (r#"{"spec":{"cidr":"10.0.0.0/99"}}"#, "spec.cidr"),
            (r#"{"spec":{"cidr":["#, "isn't JSON"),
        ] {
            let problem = read(path, value.as_bytes()).unwrap().problem.expect(value).to_string();
            assert!(problem.starts_with(path) && problem.contains(reason), "{value}: {problem}");
        }
        let deep = format!("{}{}", "[".repeat(1_000), "]".repeat(1_000));
        assert!(read(path, deep.as_bytes()).unwrap().problem.is_some());
    }

    #[test]
    fn only_a_plain_no_closes_the_datastore() {
        let path = "/calico/resources/v3/projectcalico.org/clusterinformations/default";
        for (spec, is_ready) in [
            (json!({"datastoreReady": false}), false),
            (json!({"datastoreReady": true}), true),
            (json!({}), true),
        ] {
            let entry = read(path, json!({"spec": spec}).to_string().as_bytes()).unwrap();
            assert_eq!((entry.is_ready, entry.resource), (Some(is_ready), None), "{spec}");
        }
    }
}

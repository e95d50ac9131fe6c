//! Resources as other writers leave them: OpenStack's driver in etcd (`etcd_values.jsonl`), and those that calicoctl's
//! system tests write (`calicoctl_st_resources.jsonl`).

mod oracle;

use std::collections::BTreeMap;
use std::fs;

use serde_json::{Value, json};

/// The row's resource, whether it is valid, and a name for it.
fn resource(row: &Value) -> Option<(Value, bool, String)> {
    if row["fragment"] == "WorkloadEndpoint.spec.qosControls" {
        let spec = json!({"node": "n", "interfaceName": "c", "ipNetworks": ["10.0.0.1/32"], "qosControls": row["value"]});
        let resource = json!({
            "apiVersion": "projectcalico.org/v3", "kind": "WorkloadEndpoint", "metadata": {"name": "w"}, "spec": spec,
        });
        return Some((resource, true, row["source"].to_string()));
    }
    let value = if row["op"] == "resource" { &row["resource"] } else { &row["value"] };
    value.get("kind")?;
    let name = row.get("var").or(row.get("key"))?.to_string();
    Some((value.clone(), row["valid"].as_bool().unwrap_or(true), name))
}

/// Why a row's verdict isn't ours.
fn exception(resource: &Value) -> Option<&'static str> {
    let name = resource["metadata"]["name"].as_str()?;
    match resource["kind"].as_str()? {
        "BGPConfiguration" if name != "default" && !name.starts_with("node.") => Some(
            "a BGPConfiguration of that name is stored by calicoctl and read by nobody, so it is refused",
        ),
        _ => None,
    }
}

#[test]
fn what_other_writers_leave_is_read() {
    let files = ["etcd_values.jsonl", "calicoctl_st_resources.jsonl"];
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("row.json");
    let (mut compared, mut wrong) = (BTreeMap::<String, usize>::new(), Vec::new());
    for row in files.into_iter().filter_map(oracle::rows).flatten() {
        let Some((resource, valid, name)) = resource(&row) else {
            println!("skipped: {}: no resource", row.get("var").or(row.get("key")).unwrap_or(&Value::Null));
            continue;
        };
        fs::write(&file, resource.to_string()).unwrap();
        let result = datastore::check(&file);
        if let Some(why) = exception(&resource) {
            println!("skipped: {name}: {why}");
            assert_ne!(result.is_ok(), valid, "{name} needs no exception");
            continue;
        }
        if result.is_ok() != valid {
            wrong.push(format!("{name}: {resource}: {result:?}"));
        }
        *compared.entry(resource["kind"].to_string()).or_default() += 1;
    }
    println!("rows compared: {compared:?}");
    assert!(wrong.is_empty(), "{} rows are judged otherwise:\n{}", wrong.len(), wrong.join("\n"));
}

//! Calico's own verdicts on resources, valid or not (`validation.jsonl`), for the kinds that the router reads, and
//! its reading of AS numbers (`parsing.jsonl`).

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use datastore::{Invalid, Reason};
use serde_json::{Value, json};

fn oracle(name: &str) -> Option<String> {
    let default = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/oracles");
    let folder = std::env::var_os("TORTIE_ORACLES").map_or_else(default, PathBuf::from);
    fs::read_to_string(folder.join(name)).ok()
}

/// The row as a whole resource, with what a bare `spec` lacks, or nothing where its kind isn't read here.
fn resource(row: &Value) -> Option<Value> {
    let (kind, is_spec) = match row["type"].as_str()?.split_once('.')?.1 {
        "IPPool" => ("IPPool", false),
        "BGPPeer" => ("BGPPeer", false),
        "BGPConfiguration" => ("BGPConfiguration", false),
        "BGPPeerSpec" => ("BGPPeer", true),
        "BGPConfigurationSpec" => ("BGPConfiguration", true),
        "NodeSpec" => ("Node", true),
        "WorkloadEndpointSpec" => ("WorkloadEndpoint", true),
        "BlockAffinitySpec" => ("BlockAffinity", true),
        _ => return None,
    };
    let object = &row["object"];
    let (metadata, mut spec) = if is_spec {
        (json!({"name": "default"}), object.clone())
    } else {
        (object["metadata"].clone(), object["spec"].clone())
    };
    // Calico's struct validator doesn't ask for these; whoever reads the resource does.
    let required: &[(&str, Value)] = match kind {
        "WorkloadEndpoint" => &[("node", json!("n"))],
        "BGPPeer" if spec.get("peerSelector").or(spec.get("reachableBy")).is_none() => {
            &[("peerIP", json!("10.0.0.1"))]
        }
        _ => &[],
    };
    for (field, value) in required {
        spec.as_object_mut()?.entry(*field).or_insert(value.clone());
    }
    Some(json!({"apiVersion": "projectcalico.org/v3", "kind": kind, "metadata": metadata, "spec": spec}))
}

/// Rules of Calico's about fields that the router doesn't read.
fn about_an_unread_field(row: &Value) -> Option<&'static str> {
    let title = row["title"].as_str()?;
    let object = row["object"].to_string();
    [
        ("labels", title.contains("label") && object.contains("labels")),
        ("communities", title.contains("ommunit")),
        ("prefixAdvertisements", title.contains("PrefixAdvertisement")),
        ("serviceClusterIPs", title.contains("clusterIP")),
        ("localWorkloadPeeringIPV4", object.contains("localWorkloadPeeringIPV4")),
        ("wireguard", title.contains("Wireguard")),
        ("ports", object.contains("\"ports\"")),
        ("ipNATs", object.contains("ipNATs")),
        ("containerID", object.contains("containerID")),
    ]
    .into_iter()
    .find_map(|(field, is_it)| is_it.then_some(field))
}

fn not_supported(problems: &[Invalid]) -> Option<&'static str> {
    problems.iter().find_map(|problem| match problem.reason {
        Reason::NotSupported(field) => Some(field),
        _ => None,
    })
}

#[test]
fn resources_are_valid_or_not_as_calico_says() {
    let Some(rows) = oracle("validation.jsonl") else {
        println!("skipped: no validation.jsonl in $TORTIE_ORACLES or ../shared/oracles");
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("row.json");
    let (mut compared, mut skipped) = (0, BTreeMap::<&str, usize>::new());
    for row in rows.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()) {
        let Some(resource) = resource(&row) else { continue };
        fs::write(&file, resource.to_string()).unwrap();
        let result = datastore::check(&file);
        let expected = row["valid"].as_bool().unwrap();
        if let Err(problems) = &result
            && let Some(field) = not_supported(problems)
        {
            *skipped.entry(field).or_default() += 1;
            continue;
        }
        if let (false, Ok(_), Some(field)) = (expected, &result, about_an_unread_field(&row)) {
            *skipped.entry(field).or_default() += 1;
            continue;
        }
        assert_eq!(result.is_ok(), expected, "{}: {resource}: {result:?}", row["title"]);
        compared += 1;
    }
    println!("{compared} rows compared");
    for (field, rows) in &skipped {
        println!("skipped: {rows} rows about {field}, which isn't read or supported");
    }
    assert!(compared > 0, "no row was compared");
}

#[test]
fn as_numbers_are_read_as_calico_reads_them() {
    let Some(rows) = oracle("parsing.jsonl") else {
        println!("skipped: no parsing.jsonl in $TORTIE_ORACLES or ../shared/oracles");
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("row.json");
    let mut compared = 0;
    for row in rows.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()) {
        if row["kind"] != "json_unmarshal" || row["type"] != "asNumber" {
            continue;
        }
        // The row's input is JSON text, kept as it is.
        let input = row["input"].as_str().unwrap();
        let text = format!(
            r#"{{"apiVersion": "projectcalico.org/v3", "kind": "Node", "metadata": {{"name": "n"}}, "spec": {{"bgp": {{"asNumber": {input}}}}}}}"#
        );
        fs::write(&file, text).unwrap();
        let as_number = match datastore::check(&file).as_deref() {
            Ok([model::Resource::Node(node)]) => node.as_number.map(|number| number.0),
            _ => None,
        };
        let expected = row["ok"].as_bool().unwrap().then(|| row["value"].as_u64().unwrap());
        assert_eq!(as_number.map(u64::from), expected, "{input}");
        compared += 1;
    }
    println!("{compared} rows compared");
    assert!(compared > 0, "no row was compared");
}

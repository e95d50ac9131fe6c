//! Calico's own verdicts on resources, valid or not (`validation.jsonl`), for the kinds that the router reads, and on
//! selectors where they stand (`selectors.jsonl`).

mod oracle;

use std::collections::BTreeMap;
use std::fs;

use datastore::Source;
use serde_json::{Value, json};

/// The row as a whole resource, with what a part of one lacks, or nothing where its kind isn't known here.
fn resource(row: &Value) -> Option<Value> {
    let object = row["object"].clone();
    let kind = row["type"].as_str()?.split_once('.')?.1;
    if kind == "NodeStatus" {
        let metadata = json!({"name": "n"});
        return Some(
            json!({"apiVersion": "projectcalico.org/v3", "kind": "Node", "metadata": metadata, "spec": {}, "status": object}),
        );
    }
    let rule = |rule: Value| ("GlobalNetworkPolicy", json!({"ingress": [rule]}));
    let controllers =
        |controllers: Value| ("KubeControllersConfiguration", json!({"controllers": controllers}));
    let (kind, mut spec) = match kind {
        "BGPPeerSpec" => ("BGPPeer", object.clone()),
        "BGPFilterRuleV4" => ("BGPFilter", json!({"importV4": [object]})),
        "BGPFilterRuleV6" => ("BGPFilter", json!({"importV6": [object]})),
        "BGPFilterOperation" => {
            ("BGPFilter", json!({"importV4": [{"action": "Accept", "operations": [object]}]}))
        }
        "BGPConfigurationSpec" => ("BGPConfiguration", object.clone()),
        "NodeSpec" => ("Node", object.clone()),
        "WorkloadEndpointSpec" => ("WorkloadEndpoint", object.clone()),
        "BlockAffinitySpec" => ("BlockAffinity", object.clone()),
        "FelixConfigurationSpec" => ("FelixConfiguration", object.clone()),
        "HostEndpointSpec" => ("HostEndpoint", object.clone()),
        "GlobalNetworkSetSpec" => ("GlobalNetworkSet", object.clone()),
        "NetworkSetSpec" => ("NetworkSet", object.clone()),
        "ProfileSpec" => ("Profile", object.clone()),
        "Rule" => rule(object.clone()),
        "EntityRule" => rule(json!({"action": "Allow", "source": object})),
        "ICMPFields" => rule(json!({"action": "Allow", "protocol": "ICMP", "icmp": object})),
        "Protocol" => rule(json!({"action": "Allow", "protocol": object})),
        "HTTPMatch" => rule(json!({"action": "Allow", "http": object})),
        "ProtoPort" => ("FelixConfiguration", json!({"failsafeInboundHostPorts": [object]})),
        "WorkloadEndpointPort" => ("WorkloadEndpoint", json!({"interfaceName": "eth0", "ports": [object]})),
        "IPNAT" => {
            let spec = json!({"ipNetworks": [object["internalIP"]], "ipNATs": [object]});
            ("WorkloadEndpoint", spec)
        }
        "KubeControllersConfigurationSpec" => ("KubeControllersConfiguration", object.clone()),
        "NodeControllerConfig" => controllers(json!({"node": object})),
        "Template" => controllers(json!({"node": {"hostEndpoint": {"templates": [object]}}})),
        "IPPool"
        | "IPReservation"
        | "KubeControllersConfiguration"
        | "BGPPeer"
        | "BGPFilter"
        | "BGPConfiguration"
        | "FelixConfiguration"
        | "HostEndpoint"
        | "Tier"
        | "NetworkSet"
        | "GlobalNetworkSet"
        | "NetworkPolicy"
        | "GlobalNetworkPolicy"
        | "StagedNetworkPolicy"
        | "StagedGlobalNetworkPolicy"
        | "StagedKubernetesNetworkPolicy" => (kind, object["spec"].clone()),
        _ => return None,
    };
    let metadata = match &object["metadata"] {
        Value::Object(_) if object.get("spec").is_some() || spec.is_null() => object["metadata"].clone(),
        _ => json!({"name": "default"}),
    };
    // Calico's struct validator doesn't ask for these; whoever reads the resource does.
    let required: &[(&str, Value)] = match kind {
        "WorkloadEndpoint" => &[("node", json!("n")), ("interfaceName", json!("eth0"))],
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

#[test]
fn resources_are_valid_or_not_as_calico_says() {
    let Some(rows) = oracle::rows("validation.jsonl") else { return };
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("row.json");
    let mut compared = BTreeMap::<String, usize>::new();
    let mut wrong = Vec::new();
    for row in rows {
        let Some(resource) = resource(&row) else {
            println!("skipped: {}: nobody reads {}", row["id"], row["type"]);
            continue;
        };
        fs::write(&file, resource.to_string()).unwrap();
        // As who writes it, or asks whether it is good.
        let problems = datastore::read(vec![Source::Path(file.clone())]).problems;
        let expected = row["valid"].as_bool().unwrap();
        if problems.is_empty() != expected {
            wrong.push(format!("{} {}: {resource}: {problems:?}", row["id"], row["title"]));
        }
        *compared.entry(row["type"].to_string()).or_default() += 1;
    }
    println!("rows compared: {compared:?}");
    assert!(wrong.is_empty(), "{} rows are judged otherwise:\n{}", wrong.len(), wrong.join("\n"));
    assert!(!compared.is_empty(), "no row was compared");
}

/// Sets what the path of a Go struct names, such as `/Spec/Ingress/0/Source/Selector`.
fn set(object: &mut Value, path: &str, value: &str) {
    let mut at = object;
    for part in path.split('/').filter(|part| !part.is_empty()) {
        at = match part.parse::<usize>() {
            Ok(number) => {
                if at.is_null() {
                    *at = json!([]);
                }
                let items = at.as_array_mut().expect("a list");
                // Rules are the lists in which selectors stand.
                items.resize_with(items.len().max(number + 1), || json!({"action": "Allow"}));
                &mut items[number]
            }
            Err(_) => &mut at[part[..1].to_lowercase() + &part[1..]],
        };
    }
    *at = value.into();
}

#[test]
fn selectors_may_stand_where_calico_says() {
    let Some(rows) = oracle::rows("selectors.jsonl") else { return };
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("row.json");
    let (mut compared, mut wrong) = (0, Vec::new());
    for row in rows.iter().filter(|row| row["kind"] == "field_validation") {
        let mut object = match row["object"].as_str().unwrap() {
            "api.IPPool" => json!({"spec": {"cidr": "10.0.0.0/16"}}),
            _ => json!({}),
        };
        for selector in row["selectors"].as_array().unwrap() {
            set(&mut object, selector["path"].as_str().unwrap(), selector["expr"].as_str().unwrap());
        }
        let row_of_resource = json!({"type": row["object"], "object": object});
        let resource = resource(&row_of_resource).unwrap_or_else(|| panic!("nobody reads {row}"));
        fs::write(&file, resource.to_string()).unwrap();
        let problems = datastore::read(vec![Source::Path(file.clone())]).problems;
        if problems.is_empty() != (row["valid"] == true) {
            wrong.push(format!("{row}: {resource}: {problems:?}"));
        }
        compared += 1;
    }
    println!("{compared} rows compared");
    assert!(wrong.is_empty(), "{} rows are judged otherwise:\n{}", wrong.len(), wrong.join("\n"));
    assert!(compared > 0, "no row was compared");
}

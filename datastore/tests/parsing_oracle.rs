//! How Calico reads numbers that may be names, names endpoints (`parsing.jsonl`), and says what Kubernetes selects in
//! its own language (`selectors.jsonl`).

mod oracle;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use model::{NetworkPolicy, PortMatch, Resource};
use serde_json::{Value, json};

/// A resource of this kind with this spec, as JSON text: the rows' inputs are JSON text, kept as they are.
fn document(kind: &str, metadata: &str, spec: &str) -> String {
    format!(
        r#"{{"apiVersion": "projectcalico.org/v3", "kind": "{kind}", "metadata": {metadata}, "spec": {spec}}}"#
    )
}

fn read(dir: &Path, text: &str) -> Option<Resource> {
    let file = dir.join("row.json");
    fs::write(&file, text).unwrap();
    datastore::check(&file).ok()?.into_iter().next().map(|resource| Resource::clone(&resource))
}

fn policy(dir: &Path, rule: &str) -> Option<NetworkPolicy> {
    let spec = format!(r#"{{"ingress": [{{"action": "Allow", {rule}}}]}}"#);
    match read(dir, &document("GlobalNetworkPolicy", r#"{"name": "p"}"#, &spec))? {
        Resource::NetworkPolicy(policy) => Some(policy),
        _ => None,
    }
}

/// What we read the JSON text as, in the row's words.
fn unmarshalled(dir: &Path, what: &str, input: &str) -> Option<Value> {
    match what {
        "asNumber" => {
            let spec = format!(r#"{{"bgp": {{"asNumber": {input}}}}}"#);
            match read(dir, &document("Node", r#"{"name": "n"}"#, &spec))? {
                Resource::Node(node) => node.as_number.map(|number| json!(number.0)),
                _ => None,
            }
        }
        "port" => {
            let policy = policy(dir, &format!(r#""protocol": "TCP", "source": {{"ports": [{input}]}}"#))?;
            Some(match &policy.ingress[0].source.ports[0] {
                PortMatch::Numbers(range) => json!({"min": range.first, "max": range.last}),
                PortMatch::Named(name) => json!({"name": name}),
            })
        }
        "protocol" => {
            let policy = policy(dir, &format!(r#""protocol": {input}"#))?;
            let protocol = policy.ingress[0].protocol?;
            let text = protocol.to_string();
            Some(if text.parse::<u8>().is_ok() { json!({"num": protocol.0}) } else { json!({"name": text}) })
        }
        "dscp" => {
            let spec = format!(
                r#"{{"node": "n", "interfaceName": "c", "ipNetworks": ["10.0.0.1"], "qosControls": {{"dscp": {input}}}}}"#
            );
            match read(dir, &document("WorkloadEndpoint", r#"{"name": "w"}"#, &spec))? {
                Resource::WorkloadEndpoint(endpoint) => endpoint.qos.dscp.map(|dscp| json!({"num": dscp})),
                _ => None,
            }
        }
        _ => None,
    }
}

/// The number of a code point that has a name (RFC 2474 §4.2.2, RFC 2597 §6, RFC 3246 §2.7, RFC 8622 §1).
fn code_point(name: &str) -> Option<u8> {
    let digits: Vec<u8> = name.bytes().filter(u8::is_ascii_digit).map(|digit| digit - b'0').collect();
    match (name.trim_end_matches(|c: char| c.is_ascii_digit()), digits.as_slice()) {
        ("DF" | "BE", []) => Some(0),
        ("LE", []) => Some(1),
        ("EF", []) => Some(46),
        ("CS", [class]) => Some(8 * class),
        ("AF", [class, drop]) => Some(8 * class + 2 * drop),
        _ => None,
    }
}

/// The name that an endpoint with these parts gets.
fn endpoint_name(dir: &Path, parts: &Value) -> Option<String> {
    let mut spec = json!({"interfaceName": "c", "ipNetworks": ["10.0.0.1"]});
    for (name, value) in parts.as_object().unwrap() {
        let field = if name == "ContainerID" { "containerID".to_owned() } else { name.to_lowercase() };
        spec[field] = value.clone();
    }
    match read(dir, &document("WorkloadEndpoint", "{}", &spec.to_string()))? {
        Resource::WorkloadEndpoint(endpoint) => Some(endpoint.name),
        _ => None,
    }
}

/// Why a row isn't compared.
fn exception(row: &Value) -> Option<&'static str> {
    let kind = row["kind"].as_str().unwrap();
    let value = &row["value"];
    let is_zero = row["type"] != "asNumber" && (value["min"] == 0 || value["num"] == 0);
    let is_no_protocol = row["type"] == "protocol"
        && value["name"].as_str().is_some_and(|name| name.parse::<model::Protocol>().is_err());
    match kind {
        "json_unmarshal" if row["type"] != "dscp" && is_zero || is_no_protocol => {
            Some("what Calico parses and its validator then refuses; here both is one step")
        }
        "json_marshal" | "to_string" => Some("nothing is written here"),
        "wep_name" if row["table"] != "WorkloadEndpoint name construction, fully qualified names" => {
            Some("names are made here, never taken apart or compared by their beginnings")
        }
        "protocol_from_string_v1" => Some("how Calico wrote protocols in version 1"),
        _ => None,
    }
}

#[test]
fn numbers_and_names_are_read_as_calico_reads_them() {
    let Some(rows) = oracle::rows("parsing.jsonl") else { return };
    let dir = tempfile::tempdir().unwrap();
    let (mut compared, mut skipped) =
        (BTreeMap::<String, usize>::new(), BTreeMap::<&str, Vec<String>>::new());
    for row in rows {
        let id = row["id"].as_str().unwrap();
        if let Some(why) = exception(&row) {
            skipped.entry(why).or_default().push(id.to_owned());
            continue;
        }
        let kind = row["kind"].as_str().unwrap();
        match kind {
            "json_unmarshal" => {
                let expected = row["ok"].as_bool().unwrap().then(|| row["value"].clone());
                // A code point's name is read as its number at once.
                let number = expected.as_ref().and_then(|value| code_point(value["name"].as_str()?));
                let expected = number.map(|number| json!({"num": number})).or(expected);
                let ours =
                    unmarshalled(dir.path(), row["type"].as_str().unwrap(), row["input"].as_str().unwrap());
                assert_eq!(ours, expected, "{row}");
            }
            "protocol_supports_ports" => {
                let value = &row["value"];
                let text = value["name"].as_str().map_or_else(|| value["num"].to_string(), str::to_owned);
                let ours = text.parse().is_ok_and(model::Protocol::has_ports);
                assert_eq!(ours, row["result"].as_bool().unwrap(), "{row}");
            }
            "protocol_from_string" => {
                let input = row["input"].as_str().unwrap();
                let output = row["output"].as_str().unwrap();
                // Some of these rows are about code points.
                let Ok(protocol) = input.parse::<model::Protocol>() else {
                    let read = unmarshalled(dir.path(), "dscp", &json!(input).to_string());
                    assert_eq!(read, code_point(output).map(|number| json!({"num": number})), "{row}");
                    *compared.entry("code point".to_owned()).or_default() += 1;
                    continue;
                };
                assert_eq!(protocol.to_string(), output, "{row}");
            }
            "wep_name" => {
                let args = row["args"].as_array().unwrap();
                let expected = args[1].as_str().filter(|name| !name.is_empty()).map(str::to_owned);
                assert_eq!(endpoint_name(dir.path(), &args[0]), expected, "{row}");
            }
            _ => panic!("a kind of row that nobody reads: {row}"),
        }
        *compared.entry(kind.to_owned()).or_default() += 1;
    }
    println!("rows compared: {compared:?}");
    for (why, ids) in &skipped {
        println!("skipped: {}: {why}", ids.join(" "));
    }
    assert!(!compared.is_empty(), "no row was compared");
}

#[test]
fn kubernetes_selectors_are_said_in_calicos_words() {
    let Some(rows) = oracle::rows("selectors.jsonl") else { return };
    let dir = tempfile::tempdir().unwrap();
    let mut compared = 0;
    for row in rows.iter().filter(|row| row["kind"] == "k8s_selector") {
        let name = format!("{}Selector", row["selector_type"].as_str().unwrap());
        let peer = json!({name.as_str(): row["label_selector"]});
        let spec = json!({"podSelector": {}, "ingress": [{"from": [peer]}]}).to_string();
        let text = document("StagedKubernetesNetworkPolicy", r#"{"name": "p"}"#, &spec);
        let Some(Resource::NetworkPolicy(policy)) = read(dir.path(), &text) else { panic!("{row}") };
        let source = &policy.ingress[0].source;
        let ours = if name == "podSelector" { &source.selector } else { &source.namespace_selector };
        assert_eq!(ours.as_deref().unwrap_or_default(), row["calico"], "{row}");
        compared += 1;
    }
    println!("{compared} rows compared");
    assert!(compared > 0, "no row was compared");
}

//! Every kind, there and back: what is created is what is shown, in every form, and what is shown can be applied.

use super::*;

/// A kind: a name it goes by, a resource, and the cells of its wide table.
struct Kind {
    alias: &'static str,
    resource: Value,
    /// How many columns of the wide table the narrow one has.
    narrow: usize,
    wide: &'static [(&'static str, &'static str)],
}

fn kinds() -> Vec<Kind> {
    let rules =
        json!([{ "action": "Deny", "protocol": "TCP", "destination": { "ports": [22, "8000:8080"] } }]);
    let policy = json!({ "order": 7, "selector": "role == 'db' && !has(old)", "ingress": rules, "types": ["Ingress"] });
    let staged = |policy: &Value| {
        let mut staged = policy.clone();
        staged["stagedAction"] = json!("Set");
        staged
    };
    let policy_cells: &[_] =
        &[("NAME", "one"), ("TIER", "default"), ("ORDER", "7"), ("SELECTOR", "role == 'db' && !has(old)")];
    let kind = |alias, kind, spec: Value, wide, narrow: usize| Kind {
        alias,
        resource: resource(kind, "one", spec),
        wide,
        narrow,
    };
    vec![
        kind("bgpfs", "BGPFilter", json!({ "exportV4": [{ "action": "Reject" }] }), FILTER, 5),
        kind(
            "bps",
            "BGPPeer",
            json!({ "peerIP": "10.0.0.9:1179", "asNumber": 65001, "nodeSelector": "has(rack)" }),
            PEER,
            4,
        ),
        kind(
            "nodestatus",
            "CalicoNodeStatus",
            json!({ "node": "n", "classes": ["BGP", "Routes"], "updatePeriodSeconds": 10 }),
            STATUS,
            2,
        ),
        kind(
            "felixconfigs",
            "FelixConfiguration",
            json!({ "ipipMTU": 1400, "reportingTTL": "1m39s" }),
            NAME,
            1,
        ),
        kind("gnps", "GlobalNetworkPolicy", policy.clone(), policy_cells, 2),
        kind("gnetsets", "GlobalNetworkSet", json!({ "nets": ["10.0.0.0/8", "fd00::/8"] }), NETS, 1),
        kind(
            "heps",
            "HostEndpoint",
            json!({ "node": "n", "interfaceName": "eth0", "expectedIPs": ["10.0.0.1"], "profiles": ["p", "q"] }),
            HOST,
            2,
        ),
        kind(
            "pools",
            "IPPool",
            json!({ "cidr": "10.1.0.0/16", "vxlanMode": "CrossSubnet", "natOutgoing": true }),
            POOL,
            3,
        ),
        kind("reservation", "IPReservation", json!({ "reservedCIDRs": ["10.1.0.0/30"] }), RESERVED, 1),
        kind("netsets", "NetworkSet", json!({ "nets": ["10.0.0.0/8", "fd00::/8"] }), NETS, 1),
        kind("nos", "Node", json!({ "bgp": { "ipv4Address": "10.0.0.1/24", "asNumber": "1.10" } }), NODE, 1),
        kind(
            "pros",
            "Profile",
            json!({ "ingress": rules, "labelsToApply": { "b": "2", "a": "1" } }),
            PROFILE,
            1,
        ),
        kind("sgnps", "StagedGlobalNetworkPolicy", staged(&policy), policy_cells, 2),
        kind("spols", "StagedNetworkPolicy", staged(&policy), policy_cells, 2),
        kind("tiers", "Tier", json!({ "order": 12.5, "defaultAction": "Pass" }), TIER, 2),
        kind("pol", "NetworkPolicy", policy.clone(), policy_cells, 2),
    ]
}

const NAME: &[(&str, &str)] = &[("NAME", "one")];
const FILTER: &[(&str, &str)] = &[
    ("NAME", "one"),
    ("NUMEXPORTV4", "1"),
    ("NUMIMPORTV4", "0"),
    ("NUMEXPORTV6", "0"),
    ("NUMIMPORTV6", "0"),
];
const PEER: &[(&str, &str)] =
    &[("NAME", "one"), ("PEERIP", "10.0.0.9:1179"), ("NODE", "has(rack)"), ("ASN", "65001")];
const STATUS: &[(&str, &str)] = &[("NAME", "one"), ("NODE", "n"), ("CLASSES", "BGP,Routes")];
const NETS: &[(&str, &str)] = &[("NAME", "one"), ("NETS", "10.0.0.0/8,fd00::/8")];
const HOST: &[(&str, &str)] =
    &[("NAME", "one"), ("NODE", "n"), ("INTERFACE", "eth0"), ("IPS", "10.0.0.1"), ("PROFILES", "p,q")];
const POOL: &[(&str, &str)] = &[
    ("NAME", "one"),
    ("CIDR", "10.1.0.0/16"),
    ("NAT", "true"),
    ("IPIPMODE", "Never"),
    ("VXLANMODE", "CrossSubnet"),
    ("DISABLED", "false"),
    ("DISABLEBGPEXPORT", "false"),
    ("SELECTOR", "all()"),
    ("ASSIGNMENTMODE", "Automatic"),
];
const RESERVED: &[(&str, &str)] = &[("NAME", "one"), ("CIDRS", "10.1.0.0/30")];
const NODE: &[(&str, &str)] = &[("NAME", "one"), ("ASN", "65546"), ("IPV4", "10.0.0.1/24"), ("IPV6", "")];
const PROFILE: &[(&str, &str)] = &[("NAME", "one"), ("LABELS", "a=1,b=2")];
const TIER: &[(&str, &str)] = &[("NAME", "one"), ("ORDER", "12.5")];

/// The cells under each heading of the line that begins with this name.
fn row<'a>(table: &'a str, name: &str) -> Vec<(&'a str, &'a str)> {
    let headings = table.lines().next().unwrap();
    let line = table.lines().skip(1).find(|line| line.starts_with(name)).unwrap();
    let begins = |at: usize| at == 0 || headings[..at].ends_with(' ');
    let starts: Vec<usize> =
        (0..headings.len()).filter(|at| begins(*at) && !headings[*at..].starts_with(' ')).collect();
    let ends = starts.iter().skip(1).copied().chain([headings.len()]);
    starts
        .iter()
        .zip(ends)
        .map(|(start, end)| (headings[*start..end].trim(), line[*start..end].trim()))
        .collect()
}

/// Where it differs from what was written: what stands there now, and what stood there.
fn lost(written: &Value, shown: &Value) -> Option<String> {
    match (written, shown) {
        (Value::Object(fields), Value::Object(_)) => fields
            .iter()
            .find_map(|(name, value)| lost(value, &shown[name]).map(|rest| format!("{name}: {rest}"))),
        (Value::Array(one), Value::Array(other)) if one.len() == other.len() => {
            one.iter().zip(other).find_map(|(one, other)| lost(one, other))
        }
        _ => (written != shown).then(|| format!("{shown} in place of {written}")),
    }
}

#[test]
fn every_kind_goes_there_and_back() {
    for Kind { alias, resource, narrow, wide } in kinds() {
        let shell = Shell::new();
        let kind = resource["kind"].as_str().unwrap().to_owned();
        assert_eq!(
            shell.good(&["create", "-f", &shell.file(&resource)]),
            format!("Successfully created 1 '{kind}' resource(s)\n")
        );
        let shown = shell.yaml(alias, "one");
        // AS numbers are numbers in whichever way they were written.
        let mut written = resource.clone();
        if kind == "Node" {
            written["spec"]["bgp"]["asNumber"] = json!(65546);
        }
        assert_eq!(lost(&written, &shown), None, "{kind}");
        assert_eq!(row(&shell.good(&["get", alias, "-o", "wide"]), "one"), wide, "{kind}");
        let table = shell.good(&["get", alias]);
        let cells = row(&table, "one");
        assert!(cells.len() == narrow && cells.iter().all(|cell| wide.contains(cell)), "{table}");
        let columns = shell.good(&["get", &kind.to_uppercase(), "one", "-o", "custom-columns=NAME"]);
        assert_eq!(columns, "NAME   \none    \n\n");
        let name =
            shell.good(&["get", alias, "one", "-o", "go-template={{range .}}{{.ObjectMeta.Name}}{{end}}"]);
        assert_eq!(name, "one");
        let yaml = shell.good(&["get", alias, "one", "-o", "yaml"]);
        let applied = shell.good(&["apply", "-f", &shell.text("shown.yaml", &yaml)]);
        assert_eq!(applied, format!("Successfully applied 1 '{kind}' resource(s)\n"));
        let mut again = shell.yaml(alias, "one");
        assert_ne!(again["metadata"]["resourceVersion"], shown["metadata"]["resourceVersion"], "{kind}");
        again["metadata"]["resourceVersion"] = shown["metadata"]["resourceVersion"].clone();
        assert_eq!(again, shown, "{kind}");
        assert_eq!(
            shell.good(&["delete", alias, "one"]),
            format!("Successfully deleted 1 '{kind}' resource(s)\n")
        );
        assert!(shell.bad(&["get", alias, "one"]).starts_with("resource does not exist: "), "{kind}");
    }
}

#[test]
fn tiers_are_listed_in_the_order_in_which_they_are_asked() {
    let shell = Shell::with(&[
        resource("Tier", "late", json!({ "order": 2_000_000 })),
        resource("Tier", "early", json!({ "order": 10 })),
    ]);
    let list = shell.read(&["get", "tiers", "-o", "json"]);
    let names: Vec<_> =
        list["items"].as_array().unwrap().iter().map(|tier| &tier["metadata"]["name"]).collect();
    assert_eq!(names, ["early", "kube-admin", "default", "late", "kube-baseline"]);
}

#[test]
fn a_setting_that_felix_would_not_take_is_refused_by_its_name_in_go() {
    let felix = resource("FelixConfiguration", "default", json!({ "bpfLogLevel": "Loud" }));
    let shell = Shell::new();
    let error = shell.bad(&["create", "-f", &shell.file(&felix)]);
    assert!(error.contains("error with field BPFLogLevel = 'Loud'"), "{error}");
}

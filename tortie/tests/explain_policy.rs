//! `tortie explain policy` as an operator meets it.

use std::process::{Command, Output};

use serde_json::Value;

const MANIFESTS: &str = r#"
apiVersion: projectcalico.org/v3
kind: WorkloadEndpoint
metadata: { name: n1-k8s-db-eth0, namespace: shop, labels: { role: database } }
spec:
  { orchestrator: k8s, node: n1, pod: db, endpoint: eth0, interfaceName: calidb, ipNetworks: [10.65.0.7/32],
    profiles: [kns.shop, ghost], ports: [{ name: pg, protocol: TCP, port: 5432 }] }
---
apiVersion: projectcalico.org/v3
kind: WorkloadEndpoint
metadata: { name: n2-k8s-web-eth0, namespace: shop, labels: { role: frontend } }
spec:
  { orchestrator: k8s, node: n2, pod: web, endpoint: eth0, interfaceName: caliweb, ipNetworks: [10.65.1.2/32],
    profiles: [kns.shop] }
---
apiVersion: projectcalico.org/v3
kind: Profile
metadata: { name: kns.shop }
spec: { egress: [{ action: Deny, destination: { nets: [198.51.100.0/24] } }] }
---
apiVersion: projectcalico.org/v3
kind: Tier
metadata: { name: security }
spec: { order: 100, defaultAction: Pass }
---
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: { name: no-bogons }
spec:
  { tier: security, selector: all(), types: [Ingress], ingress: [{ action: Deny, source: { nets: [192.0.2.0/24] } }] }
---
apiVersion: projectcalico.org/v3
kind: NetworkPolicy
metadata: { name: database, namespace: shop }
spec:
  selector: role == 'database'
  types: [Ingress]
  ingress:
    - action: Log
    - { action: Allow, protocol: TCP, source: { selector: role == 'frontend' }, destination: { ports: [pg] } }
---
apiVersion: projectcalico.org/v3
kind: StagedNetworkPolicy
metadata: { name: database, namespace: shop }
spec: { selector: role == 'database', types: [Ingress], ingress: [{ action: Deny }] }
---
apiVersion: projectcalico.org/v3
kind: HostEndpoint
metadata: { name: n1-uplink, labels: { host: n1 } }
spec: { node: n1, interfaceName: eth0 }
---
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: { name: raw }
spec:
  { selector: host == 'n1', doNotTrack: true, applyOnForward: true, types: [Ingress],
    ingress: [{ action: Allow, protocol: UDP }] }
"#;

/// Asks about a packet of `words`; the exit status, standard output and standard error.
fn explain(words: &str) -> (i32, String, String) {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("all.yaml");
    std::fs::write(&file, MANIFESTS).expect("a file");
    let Output { status, stdout, stderr } = Command::new(env!("CARGO_BIN_EXE_tortie"))
        .args(["explain", "policy", "-f"])
        .arg(&file)
        .args(words.split_whitespace())
        .output()
        .expect("the binary runs");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
    (status.code().expect("an exit status"), text(stdout), text(stderr))
}

/// The verdict and what decided, by JSON.
fn decided(words: &str) -> (i32, String, Value) {
    let (status, out, err) = explain(&format!("{words} -o json"));
    let answer: Value = serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error}: {out}{err}"));
    (status, answer["verdict"].as_str().expect("a verdict").to_owned(), answer["decided_by"].clone())
}

#[test]
fn an_allowed_packet_is_shown_with_the_way_to_its_rule() {
    let (status, out, _) =
        explain("-e calidb -d ingress --proto tcp --src 10.65.1.2 --dst 10.65.0.7 --dport 5432");
    let wanted = "\
shop/n1-k8s-db-eth0, ingress, TCP 10.65.1.2:49152 -> 10.65.0.7:5432: allowed
  by spec.ingress[1] of NetworkPolicy shop/database, tier default: Allow TCP from role == 'frontend' to ports pg

tier security, default Pass
  GlobalNetworkPolicy no-bogons: no rule matches
  its default passes it on
tier default, default Deny
  NetworkPolicy shop/database
    spec.ingress[0] matches: Log
    spec.ingress[1] matches: Allow TCP from role == 'frontend' to ports pg

if staged policies were enforced: denied
  by spec.ingress[0] of StagedNetworkPolicy shop/database, tier default: Deny
";
    assert_eq!((status, out.as_str()), (0, wanted));
}

#[test]
fn whatever_decides_is_named() {
    let packet = "--proto tcp --src 10.65.1.2 --dst 10.65.0.7 --dport";
    let (status, verdict, by) = decided(&format!("-e shop/n1-k8s-db-eth0 -d ingress {packet} 80"));
    assert_eq!(
        (status, verdict.as_str(), &by["by"], &by["tier"]),
        (1, "denied", &"tier-default".into(), &"default".into())
    );

    let (status, _, by) =
        decided("-e calidb -d ingress --proto udp --src 192.0.2.1 --dst 10.65.0.7 --dport 53");
    assert_eq!(
        (status, &by["by"], &by["policy"], &by["rule"]),
        (1, &"rule".into(), &"no-bogons".into(), &0.into())
    );
    assert_eq!(by["field"], "spec.ingress[0]");

    let egress = |dst: &str| format!("-e calidb -d egress --proto icmp --src 10.65.0.7 --dst {dst}");
    let (status, _, by) = decided(&egress("198.51.100.1"));
    assert_eq!((status, &by["by"], &by["profile"]), (1, &"profile-rule".into(), &"kns.shop".into()));
    let (status, _, by) = decided(&egress("203.0.113.1"));
    assert_eq!((status, &by["by"], &by["profile"]), (1, &"missing-profile".into(), &"ghost".into()));

    let (status, _, by) = decided("-e caliweb -d egress --proto icmp --src 10.65.1.2 --dst 203.0.113.1");
    assert_eq!((status, &by["by"]), (1, &"no-profile".into()));
}

#[test]
fn a_host_endpoint_is_asked_untracked_policy_first() {
    let packet = "-e eth0 -d ingress --src 10.0.0.9 --dst 10.0.0.1 --dport 53";
    let (status, _, by) = decided(&format!("{packet} --proto udp"));
    assert_eq!((status, &by["policy"]), (0, &"raw".into()));
    let (status, _, by) = decided(&format!("{packet} --proto tcp"));
    assert_eq!((status, &by["by"]), (1, &"no-profile".into()));
    let (status, _, by) = decided(&format!("{packet} --proto tcp --forwarded"));
    assert_eq!((status, &by["by"]), (0, &"not-asked".into()));
}

#[test]
fn what_makes_no_sense_is_said_with_exit_status_2() {
    for (words, part) in [
        (
            "-e nobody -d ingress --proto icmp --src 10.0.0.1 --dst 10.0.0.2",
            "no endpoint called nobody, but shop/",
        ),
        ("-e calidb -d ingress --proto icmp --src 10.0.0.1 --dst fd00::1", "a packet is of one family"),
        ("-e calidb -d ingress --proto tcp --src 10.0.0.1 --dst 10.0.0.2", "TCP has ports"),
        ("-e calidb -d ingress --proto icmp --src 10.0.0.1 --dst 10.0.0.2 --dport 1", "ICMP has no ports"),
        ("-e calidb -d ingress --proto tcpp --src 10.0.0.1 --dst 10.0.0.2", "is not a protocol"),
        ("-f /nowhere -e calidb -d ingress --proto icmp --src 10.0.0.1 --dst 10.0.0.2", "/nowhere"),
    ] {
        let (status, out, err) = explain(words);
        assert_eq!((status, out.as_str()), (2, ""), "{words}");
        assert!(err.contains(part), "{words}: {err}");
    }
}

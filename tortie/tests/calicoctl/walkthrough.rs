//! A cluster and a tenant network as tutorials of Calico build them, command by command, manifests of its first API included.

use std::path::Path;

use super::{calicoctl, on_a_directory, on_an_etcd};

pub(super) const CLUSTER: &str = "\
- apiVersion: v1
  kind: ipPool
  metadata: {cidr: 10.244.0.0/16}
  spec: {nat-outgoing: true}
- apiVersion: v1
  kind: node
  metadata: {name: master.whale.com}
  spec: {bgp: {ipv4Address: 192.168.0.80/24}}
- apiVersion: v1
  kind: node
  metadata: {name: node1.whale.com}
  spec: {bgp: {ipv4Address: 192.168.0.81/24, asNumber: 64513}}
";

const ENDPOINTS: &str = "\
- apiVersion: v1
  kind: workloadEndpoint
  metadata:
    name: slave1-frontend1
    workload: frontend
    orchestrator: k8s
    node: slave1
    labels: {service: frontend, namespace: default}
  spec:
    interfaceName: cali0ef24b1
    mac: ca:fe:1d:52:bb:e1
    ipNetworks: [172.16.1.1]
- apiVersion: v1
  kind: workloadEndpoint
  metadata:
    name: slave1-frontend2
    workload: frontend
    orchestrator: k8s
    node: slave1
    labels: {service: frontend, namespace: default}
  spec:
    interfaceName: cali0ef24b2
    mac: ca:fe:1d:52:bb:e2
    ipNetworks: [172.16.1.2]
- apiVersion: v1
  kind: workloadEndpoint
  metadata:
    name: slave2-database
    workload: database
    orchestrator: k8s
    node: slave2
    labels: {service: database, namespace: default}
  spec:
    interfaceName: cali0ef24b3
    mac: ca:fe:1d:52:bb:e3
    ipNetworks: [172.16.1.3]
    profiles: [profile-database]
";

const POLICY: &str = "\
- apiVersion: v1
  kind: policy
  metadata: {name: namespace-default}
  spec:
    selector: namespace == 'default'
    ingress:
    - action: deny
    - action: allow
      source: {selector: namespace == 'default'}
    egress:
    - action: allow
- apiVersion: v1
  kind: profile
  metadata: {name: profile-database}
  spec:
    ingress:
    - action: deny
    - action: allow
      protocol: tcp
      source: {selector: namespace == 'default' && service == 'frontend'}
      destination: {ports: [3306]}
    egress:
    - action: allow
";

/// What a command prints that has to succeed.
pub(super) fn good(place: &Path, variables: &[(&str, &str)], line: &str) -> String {
    let words: Vec<&str> = line.split(' ').collect();
    let (status, out, error) = calicoctl(place, variables, &words);
    assert_eq!((status, error.as_str()), (0, ""), "{line}: {out}");
    out
}

fn a_cluster_is_built(place: &Path, variables: &[(&str, &str)]) {
    std::fs::write(place.join("cluster.yaml"), CLUSTER).expect("a file");
    let good = |line: &str| good(place, variables, line);
    assert_eq!(good("create -f cluster.yaml"), "Successfully created 3 resource(s)\n");
    assert_eq!(
        good("get ippool -o wide"),
        "\
NAME            CIDR            NAT    IPIPMODE   VXLANMODE   DISABLED   DISABLEBGPEXPORT   SELECTOR   ASSIGNMENTMODE   \n\
10-244-0-0-16   10.244.0.0/16   true   Never      Never       false      false              all()      Automatic        \n\n"
    );
    assert_eq!(
        good("get node -o wide"),
        "\
NAME               ASN       IPV4              IPV6   \n\
master.whale.com   (64512)   192.168.0.80/24          \n\
node1.whale.com    64513     192.168.0.81/24          \n\n"
    );
    for (setting, usual, new) in [
        ("asNumber", "64512", "64600"),
        ("nodeToNodeMesh", "on", "off"),
        ("logLevel", "info", "debug"),
        ("ipip", "off", "on"),
    ] {
        assert_eq!(good(&format!("config get {setting}")), format!("{usual}\n"));
        good(&format!("config set {setting} {new}"));
        assert_eq!(good(&format!("config get {setting}")), format!("{new}\n"));
    }
    assert!(good("get node master.whale.com -o wide").contains("(64600)"));
    assert!(good("ipam show").contains("| IP Pool  | 10.244.0.0/16 |     65536 | "));
    assert_eq!(good("delete -f cluster.yaml"), "Successfully deleted 3 resource(s)\n");
}

fn a_tenants_network_is_built(place: &Path, variables: &[(&str, &str)]) {
    std::fs::write(place.join("endpoints.yaml"), ENDPOINTS).expect("a file");
    std::fs::write(place.join("policy.yaml"), POLICY).expect("a file");
    let good = |line: &str| good(place, variables, line);
    assert_eq!(good("create -f endpoints.yaml"), "Successfully created 3 'WorkloadEndpoint' resource(s)\n");
    assert_eq!(
        good("get workloadEndpoints -o wide"),
        "\
NAME                                    WORKLOAD   NODE     NETWORKS        INTERFACE     PROFILES           NATS   \n\
slave1-k8s-frontend-slave1--frontend1   frontend   slave1   172.16.1.1/32   cali0ef24b1                             \n\
slave1-k8s-frontend-slave1--frontend2   frontend   slave1   172.16.1.2/32   cali0ef24b2                             \n\
slave2-k8s-database-slave2--database    database   slave2   172.16.1.3/32   cali0ef24b3   profile-database          \n\n"
    );
    assert_eq!(good("create -f policy.yaml"), "Successfully created 2 resource(s)\n");
    let policy = good("get policy -o wide");
    assert_eq!(policy, "NAME   TIER   ORDER   SELECTOR   \n\n");
    let policy = good("get globalnetworkpolicy namespace-default -o yaml");
    let rules = "  ingress:\n  - action: Deny\n  - action: Allow\n    source:\n      selector: namespace == 'default'\n";
    assert!(policy.contains(rules), "{policy}");
    let profile = good("get profile profile-database -o json");
    assert!(profile.contains("\"ports\": [\n            3306\n"), "{profile}");
    assert_eq!(good("replace -f policy.yaml"), "Successfully replaced 2 resource(s)\n");
    assert_eq!(good("delete -f endpoints.yaml"), "Successfully deleted 3 'WorkloadEndpoint' resource(s)\n");
}

#[test]
fn a_cluster_is_built_in_a_directory() {
    on_a_directory(a_cluster_is_built);
}

#[test]
fn a_cluster_is_built_in_an_etcd() {
    on_an_etcd(a_cluster_is_built);
}

#[test]
fn a_tenants_network_is_built_in_a_directory() {
    on_a_directory(a_tenants_network_is_built);
}

#[test]
fn a_tenants_network_is_built_in_an_etcd() {
    on_an_etcd(a_tenants_network_is_built);
}

//! The way out of the first API and towards another datastore: `convert`, the lock, `ipam split`, `datastore migrate`.

use std::path::Path;

use super::walkthrough::{CLUSTER, good};
use super::{calicoctl, on_a_directory, on_an_etcd};

/// Names of the first API that can't be names any more.
const OLD_NAMES: &str = "\
- apiVersion: v1
  kind: profile
  metadata: {name: Front_End}
- apiVersion: v1
  kind: bgpPeer
  metadata: {scope: node, node: node1.whale.com, peerIP: 192.168.0.9}
  spec: {asNumber: 64520}
";

fn what_is_converted_can_be_created(place: &Path, variables: &[(&str, &str)]) {
    std::fs::write(place.join("old.yaml"), CLUSTER.to_owned() + OLD_NAMES).expect("a file");
    let good = |line: &str| good(place, variables, line);
    let converted = good("convert -f old.yaml -o yaml");
    std::fs::write(place.join("new.yaml"), &converted).expect("a file");
    assert_eq!(good("create -f new.yaml"), "Successfully created 5 resource(s)\n");
    assert!(good("get ippool").contains("\n10-244-0-0-16   10.244.0.0/16   "));
    assert!(
        good("get bgppeer")
            .contains("\nnode1.whale.com.192-168-0-9   192.168.0.9   node1.whale.com   64520   ")
    );
    assert!(good("get profile").contains("\nfront-end-"));
    // A node takes the peers that are its own along.
    assert_eq!(good("delete -f old.yaml --skip-not-exists"), "Successfully deleted 5 resource(s)\n");
    assert!(good("convert -f old.yaml -o json").starts_with("{\n  \"kind\": \"List\",\n"));
    let (status, out, error) = calicoctl(place, variables, &["convert", "-f", "new.yaml"]);
    let refusal = "Failed to create resources from file: unknown resource type (IPPool) and/or version";
    assert!(status == 1 && (out + &error).starts_with(refusal));
}

fn a_pool_is_split_under_the_lock(place: &Path, variables: &[(&str, &str)]) {
    std::fs::write(place.join("cluster.yaml"), CLUSTER).expect("a file");
    let good = |line: &str| good(place, variables, line);
    let bad = |line: &str| {
        let words: Vec<&str> = line.split(' ').collect();
        let (status, out, error) = calicoctl(place, variables, &words);
        assert_eq!(status, 1, "{line}: {out}");
        out + &error
    };
    good("create -f cluster.yaml");
    let split = "ipam split --cidr=10.244.0.0/16 4";
    for line in [split, "datastore migrate export"] {
        let refusal = bad(line);
        assert!(
            refusal.contains("datastore is not locked. Run the `calicoctl datastore migrate lock`"),
            "{refusal}"
        );
    }
    good("datastore migrate lock");
    assert!(bad("ipam split --cidr=10.245.0.0/16 4").contains("unable to find IP pool"));
    assert!(bad("ipam split --name=10-244-0-0-16 3").contains("is not a valid power of 2"));
    assert!(bad("ipam split --name=10-244-0-0-16 131072").contains("is not large enough to be split into"));
    good(split);
    let pools = good("get ippool");
    for (number, third) in [(0, 0), (1, 64), (2, 128), (3, 192)] {
        let row = format!("\nsplit-10-244-0-0-16-{number}   10.244.{third}.0/18");
        assert!(pools.contains(&row), "{row:?} is missing: {pools}");
    }
    good("datastore migrate unlock");
}

#[test]
fn what_is_converted_can_be_created_in_a_directory() {
    on_a_directory(what_is_converted_can_be_created);
}

#[test]
fn what_is_converted_can_be_created_in_an_etcd() {
    on_an_etcd(what_is_converted_can_be_created);
}

#[test]
fn a_pool_in_an_etcd_is_split_under_the_lock() {
    on_an_etcd(a_pool_is_split_under_the_lock);
}

#[test]
fn a_pool_in_a_directory_is_split_under_the_lock() {
    on_a_directory(a_pool_is_split_under_the_lock);
}

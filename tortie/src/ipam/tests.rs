//! Commands on a store in memory: what they say, to the letter.

use std::collections::BTreeMap;

use clap::Parser;
use datastore::MemoryStore;
use datastore::ipam::{Assign, AutoAssign, Use};
use model::Family;
use serde_json::{Value, json};

use super::*;

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    args: IpamArgs,
}

struct Site(MemoryStore);

impl Site {
    /// One pool, two nodes, a datastore that isn't locked.
    fn new() -> Site {
        let site = Site(MemoryStore::default());
        site.put(ResourceKind::IpPool, "pool", json!({"spec": {"cidr": "10.65.0.0/16"}}));
        for node in ["node1", "node2"] {
            site.put(ResourceKind::Node, node, json!({}));
        }
        site.put(
            ResourceKind::ClusterInformation,
            "default",
            json!({"spec": {"clusterGUID": "g", "clusterType": "t", "datastoreReady": true}}),
        );
        site
    }

    fn put(&self, kind: ResourceKind, name: &str, mut value: Value) {
        value["metadata"]["name"] = json!(name);
        let key = resource(kind, name);
        match self.0.get(&key) {
            Ok(there) => self.0.update(&key, &value, there.revision).unwrap(),
            Err(_) => self.0.create(&key, &value).unwrap(),
        };
    }

    fn say(&self, line: &str) -> (String, Option<String>) {
        let line = Line::parse_from(["ipam"].into_iter().chain(line.split(' ')));
        let mut out = String::new();
        let failure = line.args.command.run(&self.0, &mut out).err();
        (out, failure.map(|failure| failure.0))
    }

    fn fine(&self, line: &str) -> String {
        let (out, failure) = self.say(line);
        assert_eq!(failure, None, "{out}");
        out
    }

    fn fails(&self, line: &str) -> String {
        self.say(line).1.unwrap()
    }

    fn assign(&self, node: &str, count: usize, handle: &str, owner: &[(&str, &str)]) -> Vec<IpAddr> {
        let request = AutoAssign {
            count,
            family: Family::V4,
            node,
            handle: Some(handle),
            owner: pairs(owner),
            pools: &[],
            namespace: BTreeMap::new(),
            usage: Use::Workload,
            max_blocks: 0,
        };
        Ipam::new(&self.0).auto_assign(&request).unwrap().addresses
    }

    fn assign_one(&self, addr: &str, node: &str, handle: &str, owner: &[(&str, &str)]) {
        let request = Assign {
            addr: addr.parse().unwrap(),
            node,
            handle: Some(handle),
            owner: pairs(owner),
            usage: None,
        };
        Ipam::new(&self.0).assign(&request).unwrap();
    }

    fn lock(&self, locked: bool) {
        let there = cluster_information(&self.0).unwrap();
        let mut value = there.value;
        value["spec"]["datastoreReady"] = json!(!locked);
        self.0.update(&there.key, &value, there.revision).unwrap();
    }
}

fn pairs(owner: &[(&str, &str)]) -> BTreeMap<String, String> {
    owner.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

#[test]
fn pools_and_blocks_are_shown_as_calicoctl_shows_them() {
    let site = Site::new();
    site.assign_one("10.65.79.0", "node1", "h", &[]);
    for place in 1..5 {
        site.assign_one(&format!("10.65.79.{place}"), "node1", "h", &[]);
    }
    site.put(ResourceKind::IpPool, "six", json!({"spec": {"cidr": "fd5f:abcd:64::/48"}}));
    site.put(ResourceKind::IpReservation, "r", json!({"spec": {"reservedCIDRs": ["10.65.79.32/28"]}}));
    assert_eq!(
        site.fine("show --show-blocks"),
        "\
+----------+-------------------+------------+------------+--------------+-------------------+
| GROUPING | CIDR              | IPS TOTAL  | IPS IN USE | IPS RESERVED | IPS FREE          |
+----------+-------------------+------------+------------+--------------+-------------------+
| IP Pool  | 10.65.0.0/16      |      65536 |     5 (0%) |      16 (0%) |      65515 (100%) |
| Block    | 10.65.79.0/26     |         64 |     5 (8%) |     16 (25%) |          43 (67%) |
| IP Pool  | fd5f:abcd:64::/48 | 1.2089e+24 |     0 (0%) |       0 (0%) | 1.2089e+24 (100%) |
+----------+-------------------+------------+------------+--------------+-------------------+
"
    );
    assert!(!site.fine("show").contains("Block"));
    site.0.delete(&resource(ResourceKind::IpPool, "pool"), None).unwrap();
    let orphaned = site.fine("show --show-blocks");
    assert!(orphaned.contains("| Block    | 10.65.79.0/26"), "{orphaned}");
    assert_eq!(orphaned.matches("IP Pool").count(), 1);
}

#[test]
fn an_address_is_shown_with_who_has_it() {
    let site = Site::new();
    assert_eq!(site.fine("show --ip=10.65.0.2"), "10.65.0.2 is not assigned\n");
    site.assign_one("10.65.0.2", "node1", "h", &[("pod", "web-0"), ("namespace", "default")]);
    assert_eq!(
        site.fine("show --ip=10.65.0.2"),
        "IP 10.65.0.2 is in use\nHandle ID: h\nActive Owner Attributes:\n  namespace: default\n  pod: web-0\n"
    );
    site.assign_one("10.65.0.3", "node1", "h", &[]);
    assert_eq!(
        site.fine("show --ip=10.65.0.3"),
        "IP 10.65.0.3 is in use\nHandle ID: h\nNo Active Owner attributes defined\n"
    );
    let (out, failure) = site.say("show --ip=10.240.0.300");
    assert_eq!(out, "Error executing command: invalid IP address specified: 10.240.0.300\n");
    assert_eq!(failure.as_deref(), Some(""));
}

#[test]
fn borrowed_addresses_are_shown_with_both_nodes() {
    let site = Site::new();
    site.assign_one("10.65.0.0", "node1", "a", &[("node", "node1")]);
    site.assign_one("10.65.0.1", "node2", "b", &[("node", "node2"), ("pod", "web-0"), ("namespace", "ns")]);
    site.assign_one("10.65.0.2", "node2", "c", &[("node", "node2"), ("type", "ipipTunnelAddress")]);
    site.assign_one("10.65.0.3", "node1", "d", &[]);
    assert_eq!(
        site.fine("show --show-borrowed"),
        "\
+-----------+----------------+--------------+-------------+-------------------+--------------+
| IP        | BORROWING-NODE | BLOCK        | BLOCK OWNER | TYPE              | ALLOCATED-TO |
+-----------+----------------+--------------+-------------+-------------------+--------------+
| 10.65.0.1 | node2          | 10.65.0.0/26 | node1       | pod               | ns/web-0     |
| 10.65.0.2 | node2          | 10.65.0.0/26 | node1       | ipipTunnelAddress |              |
+-----------+----------------+--------------+-------------+-------------------+--------------+

Note: found 1 IP allocations without an explicit node association. Unable to determine if they are borrowed.
"
    );
}

#[test]
fn settings_are_changed_and_shown() {
    let site = Site::new();
    assert_eq!(
        site.fine("show --show-configuration"),
        "\
+------------------------------+-----------------------------------+
| PROPERTY                     | VALUE                             |
+------------------------------+-----------------------------------+
| StrictAffinity               | false                             |
| AutoAllocateBlocks           | true                              |
| MaxBlocksPerHost             | 0                                 |
| KubeVirtVMAddressPersistence | (*ipam.VMAddressPersistence)(nil) |
| IPCooldownSeconds            | 0                                 |
+------------------------------+-----------------------------------+
"
    );
    assert_eq!(
        site.fine("configure --strictaffinity=true --max-blocks-per-host=4 --ip-cooldown-seconds=30"),
        "Successfully set StrictAffinity to: true\nSuccessfully set MaxBlocksPerHost to: 4\n\
         Successfully set IPCooldownSeconds to: 30\n"
    );
    assert!(site.fine("show --show-configuration").contains("| StrictAffinity               | true "));
    assert_eq!(
        site.fails("configure --strictaffinity=false"),
        "error: MaxBlocksPerHost requires StrictAffinity to be enabled"
    );
    assert_eq!(
        site.fails("configure --strictaffinity=maybe"),
        "invalid value. Use true or false to set strictaffinity"
    );
    assert_eq!(
        site.fails("configure --max-blocks-per-host=x"),
        "invalid value for maxblockhost. Use a valid number"
    );
    assert_eq!(site.fails("configure"), "at least one configuration option must be specified");
}

#[test]
fn an_address_is_released() {
    let site = Site::new();
    site.assign_one("10.65.0.2", "node1", "h", &[]);
    assert_eq!(site.fine("release --ip=10.65.0.2"), "Successfully released IP address 10.65.0.2\n");
    assert_eq!(site.fails("release --ip=10.65.0.2"), "IP address 10.65.0.2 is not assigned");
}

#[test]
fn a_pool_is_split_while_the_datastore_is_locked() {
    let site = Site::new();
    let spec = json!({"cidr": "10.0.1.0/24", "ipipMode": "Always", "vxlanMode": "Never"});
    site.put(ResourceKind::IpPool, "p", json!({"metadata": {"uid": "old"}, "spec": spec}));
    let split = "split --cidr=10.0.1.0/24 4";
    assert_eq!(
        site.fails(split),
        "datastore is not locked. Run the `calicoctl datastore migrate lock` command in order split the IP pools"
    );
    site.lock(true);
    assert_eq!(
        site.fails("split --cidr=10.0.2.0/24 4"),
        "unable to find IP pool  covering the specified CIDR 10.0.2.0/24"
    );
    assert!(
        site.fails("split --name=x 4")
            .starts_with("unable to find IP pool with name x: resource does not exist")
    );
    assert_eq!(
        site.fails("split --name=p 3"),
        "error splitting the CIDR 10.0.1.0/24 into 3 CIDRs: number to split CIDR into is not a valid power of 2: 3"
    );
    assert!(site.fails("split 4").starts_with("no name or CIDR provided."));
    assert_eq!(
        site.fine(split),
        "IP Pool p was successfully split into 4 smaller pools.Created split-p-0 with CIDR 10.0.1.0/26.\n\
         Created split-p-1 with CIDR 10.0.1.64/26.\nCreated split-p-2 with CIDR 10.0.1.128/26.\n\
         Created split-p-3 with CIDR 10.0.1.192/26.\nPlease refer to the documentation for final steps."
    );
    assert!(site.0.get(&resource(ResourceKind::IpPool, "p")).is_err());
    let child = site.0.get(&resource(ResourceKind::IpPool, "split-p-3")).unwrap().value;
    assert_eq!(child["spec"], json!({"cidr": "10.0.1.192/26", "ipipMode": "Always", "vxlanMode": "Never"}));
    assert_ne!(child["metadata"]["uid"], json!("old"));
}

#[test]
fn a_check_finds_what_leaked_and_a_release_cleans_it_up() {
    let site = Site::new();
    let pod = |name: &'static str| [("node", "node1"), ("pod", name), ("namespace", "default")];
    let held = site.assign("node1", 1, "held", &pod("held"))[0];
    let gone = site.assign("node1", 1, "gone", &pod("gone"))[0];
    let tunnel = site.assign("node1", 1, "ipip", &[("node", "node1"), ("type", "ipipTunnelAddress")])[0];
    let odd = site.assign("node1", 1, "odd", &[("node", "node1"), ("type", "somethingNew")])[0];
    site.put(
        ResourceKind::Node,
        "node1",
        json!({"spec": {"bgp": {"ipv4IPIPTunnelAddr": tunnel.to_string()}}}),
    );
    let endpoint = Key::Resource(ResourceKey {
        kind: ResourceKind::WorkloadEndpoint,
        namespace: "default".to_owned(),
        name: "held".to_owned(),
    });
    let networks = [format!("{held}/32"), "192.0.2.7/32".to_owned()];
    let value =
        json!({"metadata": {"name": "held", "namespace": "default"}, "spec": {"ipNetworks": networks}});
    site.0.create(&endpoint, &value).unwrap();
    let leaked = Key::Handle("leaked-handle".to_owned());
    site.0.create(&leaked, &json!({"block": {"10.65.79.0/26": 1}, "deleted": false})).unwrap();

    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("report.json");
    let said = site.fine(&format!("check --show-problem-ips -o {}", file.display()));
    for line in [
        "Found 1 IPAM blocks.",
        "IPAM blocks record 4 allocations.",
        "  10.65.0.0/16\nFound 1 active IP pools.",
        "Found 1 node tunnel IPs.",
        "Found 2 workload IPs.",
        "Workloads and nodes are using 3 IPs.",
        "  node1 has 4 allocations\nNode with most allocations has 4; median is 4",
        &format!("  {odd} allocation has unknown type (somethingNew) Assuming IP is still in use."),
        &format!("  {gone} leaked; attrs Main:gone Extra:namespace=default,node=node1,pod=gone"),
        "Found 1 IPs that are allocated in IPAM but not actually in use.",
        "  192.0.2.7 in use by Workload(default/held) is not in any active IP pool.",
        "Found 1 in-use IPs that are not in active IP pools.",
        "Found 1 handles with no matching IPs (and 4 handles with matches).",
        "Found 0 handles mentioned in blocks with no matching handle resource.",
        "Found 0 invalid IPAMBlocks.",
        "Check complete; found 4 problems.",
    ] {
        assert!(said.contains(&format!("{line}\n")), "{line}\nin:\n{said}");
    }
    let report: Value = serde_json::from_str(&std::fs::read_to_string(&file).unwrap()).unwrap();
    assert_eq!(report["clusterGUID"], json!("g"));
    let of_gone = &report["allocations"][gone.to_string()][0];
    assert_eq!((&of_gone["inUse"], &of_gone["owners"]), (&json!(false), &json!(null)));
    assert_eq!(report["allocations"][held.to_string()][0]["owners"], json!(["Workload(default/held)"]));
    assert_eq!(report["allocations"][odd.to_string()][0]["owners"], json!(["UnknownType(somethingNew)"]));
    assert_eq!(report["leakedHandles"][0]["ID"], json!("leaked-handle"));
    assert_eq!(report["leakedHandles"][0]["UID"], json!(null));

    let release = format!("release --from-report={}", file.display());
    assert!(site.fails(&release).contains("not locked"));
    let cleaned = site.fine(&format!("{release} --force"));
    for line in [
        "WARNING: Data store is not locked. Ignoring due to --force option",
        "Releasing 1 old IPs...\nReleased 1 IPs successfully",
        "Deleting 1 handles...\nKey: '.' = Deleted OK; 'x' = skip, handle missing/changed.\n.",
        "Released 1 handles; 0 skipped; 0 errors.",
        "You may now unlock the data store.",
    ] {
        assert!(cleaned.contains(&format!("{line}\n")), "{line}\nin:\n{cleaned}");
    }
    let again = site.fine(&format!("{release} --force"));
    assert!(again.contains("Released 0 handles; 1 skipped; 0 errors."), "{again}");
    assert!(again.contains("An error occurred while releasing some IPs: "), "{again}");
    assert!(!again.contains("Released 0 IPs"), "{again}");

    site.lock(true);
    assert!(site.fails(&release).starts_with("the provided reports are all stale"));
}

#[test]
fn a_report_of_another_cluster_or_version_releases_nothing() {
    let site = Site::new();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("r.json");
    let release = format!("release --from-report={}", file.display());
    let mut report = json!({"version": VERSION, "clusterGUID": "other", "allocations": {}});
    std::fs::write(&file, report.to_string()).unwrap();
    assert!(site.fails(&release).ends_with("mismatched cluster GUID. Refusing to release"));
    report["clusterGUID"] = json!("g");
    report["version"] = json!("v0");
    std::fs::write(&file, report.to_string()).unwrap();
    assert!(site.fails(&release).contains("was produced using a different version (v0) of calicoctl"));
}

//! What may happen to an etcd, with traffic running: none of it costs a datagram, the router says since when it doesn't know
//! better, and afterwards it knows what a fresh start would.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use datastore::{DirectoryStore, EtcdStore, Key, ResourceKey, ResourceKind, Store as _, transfer};
use model::{Family, Prefix};
use serde_json::json;

use crate::cluster::{CONVERGE, Cluster, ClusterPlan, NodePlan, RouterKind};
use crate::etcd::EtcdServer;
use crate::link::add_address;
use crate::netns::Namespace;
use crate::scenario::{Scenario, Store};
use crate::tortie::{Settings, ShowDatastore, ShowFingerprints, ShowRoutes, TortieNode};
use crate::traffic::{self, Sink, UdpFlows};
use crate::{Lab, books, wait};

/// An etcd killed and restored, partitioned, compacted, stopped, slow, closed, full and replaced by a babbler.
pub(super) const DATASTORE_FAULTS: Scenario = Scenario {
    name: "datastore-faults",
    about: "etcd killed and restored, cut off, compacted, silent, slow, closed, full, babbling: no datagram is lost, and afterwards all is known",
    programs: &["etcd", "etcdctl", "ping", "ss", "ethtool", "tc"],
    tortie: true,
    alone: true,
    store: Store::Etcd,
    run: |lab, _| run(lab),
};

const PLAN: ClusterPlan = ClusterPlan {
    fabric: "fabric",
    as_number: 64512,
    pools: [("10.244.0.0/16", 26), ("fd65:244::/48", 122)],
    nodes: &[
        NodePlan {
            name: "node1",
            router: RouterKind::Tortie,
            addresses: ["192.168.0.81/24", "fd00:c0a8::81/64"],
            blocks: ["10.244.42.64/26", "fd65:244::42:40/122"],
            workloads: 1,
        },
        NodePlan {
            name: "node2",
            router: RouterKind::Tortie,
            addresses: ["192.168.0.82/24", "fd00:c0a8::82/64"],
            blocks: ["10.244.103.64/26", "fd65:244::103:40/122"],
            workloads: 1,
        },
    ],
};
/// The etcd's address on the nodes' subnet.
const STORE: &str = "192.168.0.90";
/// Datagrams a second, to each of two addresses in turn.
const RATE: u32 = 1_000;
/// How long what is lost may take to show.
const ARRIVE: Duration = Duration::from_secs(60);
/// Traffic before and after each fault.
const CALM: Duration = Duration::from_secs(1);
/// Small, so that it is soon full. etcd counts what it has freed, too.
const QUOTA: &str = "--quota-backend-bytes=16777216";
/// What a slow etcd's answers get, in bits a second, and how long they may wait for it.
const SLOW: &str = "rate 64kbit burst 2kb latency 30s";
/// Who may send to workloads, and where a change is seen in a set.
const POLICY: &str = "\
apiVersion: projectcalico.org/v3
kind: GlobalNetworkSet
metadata: {name: friends, labels: {role: friend}}
spec: {nets: [10.244.0.0/16, \"fd65:244::/48\", 192.168.0.0/24, \"fd00:c0a8::/64\"]}
---
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {name: friends}
spec:
  types: [Ingress, Egress]
  ingress: [{action: Allow, source: {selector: role == 'friend'}}]
  egress: [{action: Allow}]
";
/// How many values of a megabyte it takes at most.
const FILLERS: usize = 64;

fn run(lab: &Lab) -> Result<()> {
    let address = STORE.parse()?;
    let datastore = Some(format!("{{ etcd: {{ endpoints: [\"http://{STORE}:2379\"] }} }}"));
    let settings = Settings { datastore, ..Settings::default() };
    let mut cluster = Cluster::raise_with(lab, &PLAN, &settings)?;
    cluster.resources.write("policy.yaml", POLICY)?;
    let namespace = lab.namespace("etcd")?;
    cluster.fabric.attach(&namespace, "eth0")?;
    add_address(&namespace, "eth0", format!("{STORE}/24").parse()?)?;
    let etcd = EtcdServer::start(lab, &namespace, Some(address), &[QUOTA])?;
    let store = EtcdStore::open(&etcd.settings())?;
    transfer::copy(&DirectoryStore::open(cluster.resources.directory())?, &store)?;
    cluster.comes_up()?;
    let port = cluster.fabric.port(&namespace, "eth0");
    let mut faults = Faults { lab, cluster: &cluster, etcd, namespace, port, store, number: 0, sink: None };
    faults.sink = Some(Sink::open(lab, &cluster.nodes[1].workloads[0].namespace)?);
    faults.warm_up()?;
    faults.cut_off()?;
    faults.compacted()?;
    faults.silent()?;
    faults.slow()?;
    faults.closed()?;
    faults.killed_and_restored()?;
    faults.babbling()?;
    faults.garbage()?;
    faults.full()?;
    faults.as_after_a_fresh_start()?;
    cluster.books_balance()
}

struct Faults<'a> {
    lab: &'a Lab,
    cluster: &'a Cluster<'a>,
    etcd: EtcdServer,
    namespace: Namespace,
    /// The switch's port towards etcd.
    port: String,
    /// By a socket that no fault of the network comes between.
    store: EtcdStore,
    /// How many changes were made.
    number: u8,
    sink: Option<Sink>,
}

/// What is sent while something happens.
struct Running {
    flows: UdpFlows,
    before: u64,
}

impl Faults<'_> {
    fn node(&self) -> Result<&TortieNode> {
        self.cluster.nodes[0].tortie()
    }

    fn warm_up(&mut self) -> Result<()> {
        let running = self.send()?;
        wait::pass(CALM)?;
        let sent = running.flows.stop()?;
        self.arrived(sent, running.before)
    }

    fn send(&mut self) -> Result<Running> {
        let to = &self.cluster.nodes[1].workloads[0];
        let from = &self.cluster.nodes[0].workloads[0].namespace;
        let before = self.sink.as_mut().context("a sink")?.counted()?.packets;
        let destinations = [to.address(Family::V4)?, to.address(Family::V6)?];
        let flows = UdpFlows::start(self.lab, from, &destinations, u32::MAX, RATE, 7000)?;
        Ok(Running { flows, before })
    }

    fn arrived(&mut self, sent: u64, before: u64) -> Result<()> {
        let sink = self.sink.as_mut().context("a sink")?;
        let mut arrived = 0;
        let all = self.lab.wait("the last datagrams", ARRIVE, || {
            arrived = sink.counted()?.packets - before;
            Ok((arrived >= sent).then_some(()))
        });
        if all.is_err() {
            let nodes = self.cluster.nodes.iter();
            let lost = nodes.map(|node| books::where_lost(node.tortie()?)).collect::<Result<Vec<_>>>()?;
            let by_destination = sink.counted()?.destinations;
            bail!(
                "{} of {sent} datagrams were lost; arrived since the start {by_destination:?}; {}",
                sent - arrived,
                lost.join("; ")
            );
        }
        Ok(())
    }

    /// Something happens while datagrams are sent, of which none may be lost; then a change comes through to both nodes.
    fn through(&mut self, what: &str, fault: impl FnOnce(&mut Self) -> Result<String>) -> Result<()> {
        self.lab.step(what);
        let mut running = self.send()?;
        wait::pass(CALM)?;
        let seen = fault(self).with_context(|| what.to_owned())?;
        self.is_current()?;
        let block = self.change()?;
        self.is_in_force(block)?;
        running.flows.must_go_on()?;
        let sent = running.flows.stop()?;
        self.arrived(sent, running.before).with_context(|| what.to_owned())?;
        self.lab
            .proved(format!("{what}: {seen}; none of {sent} datagrams lost, and changes are followed again"));
        Ok(())
    }

    /// The first node claims another block in the place of the one before, and another network is a friend: all that is asked
    /// of a store's change.
    fn change(&mut self) -> Result<Prefix> {
        let node = self.cluster.nodes[0].name();
        let key = |number: u8| -> Result<(Key, Prefix)> {
            let block: Prefix = format!("10.244.{number}.0/26").parse()?;
            Ok((Key::Affinity { node: node.to_owned(), block }, block))
        };
        let (before, next) = (key(self.number)?, key(self.number + 1)?);
        self.store.put(&next.0, &json!({"state": "confirmed", "deleted": false}), None)?;
        let friend = format!("10.99.{}.0/24", self.number);
        let set = json!({
            "kind": "GlobalNetworkSet", "apiVersion": "projectcalico.org/v3",
            "metadata": {"name": "guests", "labels": {"role": "friend"}}, "spec": {"nets": [friend]},
        });
        self.store.put(&resource(ResourceKind::GlobalNetworkSet, "guests"), &set, None)?;
        if self.number > 0 {
            // A restored copy may not have it.
            let _ = self.store.delete(&before.0, None);
        }
        self.number += 1;
        Ok(next.1)
    }

    /// The newest block is the first node's and known to the second; the one before is nobody's.
    fn is_in_force(&self, block: Prefix) -> Result<()> {
        let via = self.cluster.nodes[0].address(Family::V4)?;
        for (index, node) in self.cluster.nodes.iter().enumerate() {
            let tortie = node.tortie()?;
            self.lab.wait(&format!("{block} on {}", node.name()), CONVERGE, || {
                let routes = tortie.show::<ShowRoutes>("routes")?.routes;
                let there = routes.iter().find(|route| route.prefix == block.to_string());
                let is_right = there.is_some_and(|route| match index {
                    0 => route.nexthops.iter().all(|hop| hop.kind.as_deref() == Some("blackhole")),
                    _ => route.nexthops.iter().any(|hop| hop.via == Some(via)),
                });
                let others = routes.iter().filter(|route| is_another(&route.prefix, block)).count();
                Ok((is_right && others == 0).then_some(()))
            })?;
        }
        Ok(())
    }

    fn datastore(&self) -> Result<ShowDatastore> {
        self.node()?.show("datastore")
    }

    /// Since when the router can't follow its datastore, and why.
    fn is_stale(&self) -> Result<String> {
        let limit = Duration::from_secs(90);
        let stale = self.lab.wait("the router to notice", limit, || {
            let now = self.datastore()?;
            Ok(now.stale_since.zip(now.stale_reason))
        })?;
        Ok(format!("stale since {} ({})", stale.0, stale.1))
    }

    fn is_current(&self) -> Result<()> {
        for node in &self.cluster.nodes {
            let tortie = node.tortie()?;
            self.lab.wait(&format!("{} to follow etcd", node.name()), CONVERGE, || {
                Ok(tortie.show::<ShowDatastore>("datastore")?.stale_since.is_none().then_some(()))
            })?;
        }
        Ok(())
    }

    fn link(&self, state: &str) -> Result<()> {
        self.cluster.fabric.namespace().ip(&format!("link set {} {state}", self.port)).map(drop)
    }

    fn cut_off(&mut self) -> Result<()> {
        self.through("cut off by the network", |faults| {
            faults.link("down")?;
            let seen = faults.is_stale()?;
            faults.change()?;
            faults.link("up")?;
            Ok(seen)
        })
    }

    fn compacted(&mut self) -> Result<()> {
        self.through("compacted beyond what was seen, while cut off", |faults| {
            faults.link("down")?;
            let seen = faults.is_stale()?;
            for _ in 0..20 {
                faults.change()?;
            }
            let revision = faults.store.put(&junk(0), &json!({}), None)?;
            faults.etcd.ctl(&["compact", &revision.0.to_string()])?;
            faults.link("up")?;
            Ok(seen)
        })
    }

    fn silent(&mut self) -> Result<()> {
        self.through("stopped, with its connections open", |faults| {
            faults.etcd.pause()?;
            let seen = faults.is_stale();
            faults.etcd.go_on()?;
            seen
        })
    }

    /// Answers come drop by drop: a list and a change take their time, and nothing is given up.
    fn slow(&mut self) -> Result<()> {
        self.through("slow, its answers at 8 kB a second", |faults| {
            let qdisc = |verb: &str| format!("qdisc {verb} dev eth0 root tbf {SLOW}");
            faults.namespace.run("tc", &words(&qdisc("add")))?;
            faults.link("down")?;
            faults.is_stale()?;
            faults.change()?;
            faults.link("up")?;
            let began = Instant::now();
            faults.is_current()?;
            let listed = began.elapsed();
            let block = faults.change()?;
            let began = Instant::now();
            faults.is_in_force(block)?;
            let changed = began.elapsed();
            faults.namespace.run("tc", &words("qdisc del dev eth0 root"))?;
            Ok(format!("all of it listed within {listed:.1?}, a change in force within {changed:.1?}"))
        })
    }

    /// By its operator, as for an upgrade: what comes meanwhile waits.
    fn closed(&mut self) -> Result<()> {
        self.through("closed by its operator", |faults| {
            let key = resource(ResourceKind::ClusterInformation, "default");
            let flag = |is_ready: bool| {
                json!({
                    "kind": "ClusterInformation", "apiVersion": "projectcalico.org/v3",
                    "metadata": {"name": "default"}, "spec": {"datastoreReady": is_ready},
                })
            };
            let before = faults.change()?;
            faults.is_in_force(before)?;
            faults.store.put(&key, &flag(false), None)?;
            let seen = faults.is_stale()?;
            ensure!(seen.contains("datastoreReady"), "{seen}");
            faults.change()?;
            wait::pass(CALM)?;
            faults.is_in_force(before).context("what was in force before it was closed")?;
            faults.store.put(&key, &flag(true), None)?;
            Ok(seen)
        })
    }

    fn killed_and_restored(&mut self) -> Result<()> {
        self.through("killed, and restored from an older copy", |faults| {
            let (copy, copied) = (faults.etcd.snapshot("copy")?, faults.number);
            // Both nodes have seen what the copy doesn't have.
            let block = faults.change()?;
            faults.is_in_force(block)?;
            faults.etcd.kill()?;
            let seen = faults.is_stale()?;
            faults.etcd.restore(&copy)?;
            // The copy holds the block of the change before.
            faults.number = copied;
            faults.etcd.run(faults.lab)?;
            Ok(seen)
        })
    }

    fn babbling(&mut self) -> Result<()> {
        self.through("another program in its place that answers with what it was sent", |faults| {
            faults.etcd.kill()?;
            let babbler = traffic::agent(faults.lab, &faults.namespace, "echo", &[&format!("{STORE}:2379")])?;
            let seen = faults.is_stale()?;
            wait::pass(CALM)?;
            drop(babbler);
            faults.etcd.run(faults.lab)?;
            Ok(seen)
        })
    }

    /// Values that are none count as absent, and are named.
    fn garbage(&mut self) -> Result<()> {
        self.through("with garbage under its keys", |faults| {
            let root = "/calico/resources/v3/projectcalico.org";
            let keys =
                [format!("{root}/ippools/garbage"), format!("{root}/workloadendpoints/default/garbage")];
            for (key, value) in keys.iter().zip(["{", "\"text\""]) {
                faults.etcd.ctl(&["put", key, value])?;
            }
            faults.lab.wait("the garbage to be named", CONVERGE, || {
                let invalid = faults.datastore()?.invalid;
                Ok(keys.iter().all(|key| invalid.contains_key(key)).then_some(()))
            })?;
            for key in &keys {
                faults.etcd.ctl(&["del", key])?;
            }
            faults.lab.wait("nothing to be named any more", CONVERGE, || {
                Ok(faults.datastore()?.invalid.is_empty().then_some(()))
            })?;
            Ok("each key was named, and counted as absent".to_owned())
        })
    }

    fn full(&mut self) -> Result<()> {
        self.through("full", |faults| {
            let filler = json!({"filler": "x".repeat(1 << 20)});
            // It may take its time for so much, and be given up meanwhile.
            let refused = faults.lab.wait("etcd to refuse more than it may take", CONVERGE, || {
                let full =
                    (1..FILLERS).find_map(|number| faults.store.put(&junk(number), &filler, None).err());
                let refused = full.context("etcd takes more than it may")?.to_string();
                ensure!(refused.contains("space exceeded"), "etcd refuses for another reason: {refused}");
                Ok(Some(refused))
            })?;
            // Nothing can be written, by nobody; all is read as before.
            faults.is_current().context("of an etcd that is full")?;
            let alarms = faults.etcd.ctl(&["alarm", "list"])?;
            ensure!(alarms.contains("NOSPACE"), "it is full no more: {alarms}");
            for number in 1..FILLERS {
                // Removals are all that it takes.
                let _ = faults.store.delete(&junk(number), None);
            }
            let revision = faults.store.list(&datastore::Under::Handles)?.revision;
            faults.etcd.ctl(&["compact", &revision.0.to_string()])?;
            faults.etcd.ctl(&["defrag"])?;
            faults.etcd.ctl(&["alarm", "disarm"])?;
            Ok(format!("refused writes ({refused}), was followed all the same"))
        })
    }

    /// What the router has after all this is what it has after a fresh start.
    fn as_after_a_fresh_start(&self) -> Result<()> {
        let mut compared = 0;
        for node in &self.cluster.nodes {
            let tortie = node.tortie()?;
            let lived = settled(self.lab, tortie)?;
            tortie.stop()?;
            tortie.start(self.lab)?;
            self.cluster.mesh_is_up(0)?;
            self.lab.wait(&format!("{} to know what it knew", node.name()), CONVERGE, || {
                let fresh = state(tortie)?;
                compared = fresh.len();
                let missing: Vec<&String> = lived.iter().filter(|row| !fresh.contains(row)).collect();
                let new: Vec<&String> = fresh.iter().filter(|row| !lived.contains(row)).collect();
                ensure!(missing.is_empty() && new.is_empty(), "it knew {missing:?}, it knows {new:?}");
                Ok(Some(()))
            })?;
        }
        self.lab.proved(format!("a fresh start of each node comes to the same {compared} routes and tables"));
        Ok(())
    }
}

fn words(command: &str) -> Vec<&str> {
    command.split(' ').collect()
}

fn resource(kind: ResourceKind, name: &str) -> Key {
    Key::Resource(ResourceKey { kind, namespace: String::new(), name: name.to_owned() })
}

/// Something that nobody reads.
fn junk(number: usize) -> Key {
    Key::Handle(format!("junk-{number}"))
}

/// Is it a block of an earlier change?
fn is_another(prefix: &str, block: Prefix) -> bool {
    let changed = |third: &str| third.parse::<u8>().is_ok_and(|third| third < 42);
    prefix != block.to_string()
        && prefix.strip_suffix(".0/26").and_then(|rest| rest.strip_prefix("10.244.")).is_some_and(changed)
}

/// Routes of resources and of BGP with their ways, and what each table of the fast path means.
fn state(tortie: &TortieNode) -> Result<Vec<String>> {
    let routes = tortie.show::<ShowRoutes>("routes")?.routes;
    let lasting = ["block", "workload", "bgp", "static", "connected"];
    let mut state: Vec<String> = routes
        .into_iter()
        .filter(|route| lasting.contains(&route.source.as_str()))
        .map(|route| {
            let ways: Vec<String> = route
                .nexthops
                .iter()
                .map(|hop| format!("{:?} {:?} {:?}", hop.via, hop.port, hop.kind))
                .collect();
            format!("{} {} {}", route.prefix, route.source, ways.join(", "))
        })
        .collect();
    let tables = tortie.show::<ShowFingerprints>("tables --fingerprints")?.fingerprints;
    state.extend(tables.iter().map(|of| format!("table {}: {} rows, {}", of.table, of.rows, of.fingerprint)));
    state.sort();
    Ok(state)
}

/// The state once it stays as it is.
fn settled(lab: &Lab, tortie: &TortieNode) -> Result<Vec<String>> {
    let mut last = state(tortie)?;
    lab.wait("nothing to change any more", CONVERGE, || {
        wait::pass(CALM)?;
        let now = state(tortie)?;
        let is_same = now == last;
        last = now;
        Ok(is_same.then(|| last.clone()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_blocks_that_were_changed_are_others() {
        let block: Prefix = "10.244.7.0/26".parse().unwrap();
        for (prefix, expected) in [
            ("10.244.6.0/26", true),
            ("10.244.7.0/26", false),
            ("10.244.42.64/26", false),
            ("10.244.103.64/26", false),
            ("10.244.6.1/32", false),
            ("fd65:244::42:40/122", false),
        ] {
            assert_eq!(is_another(prefix, block), expected, "{prefix}");
        }
    }
}

//! Several nodes and one etcd: what is applied at one is seen by all, and ten that start at once and want addresses get ten.

use std::collections::BTreeSet;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use datastore::{EtcdStore, ResourceKind, Store as _, Under};
use model::InterfaceAddr;
use serde_json::Value;

use crate::cluster::CONVERGE;
use crate::etcd::EtcdServer;
use crate::link::{Fabric, add_address};
use crate::resources::Resources;
use crate::scenario::{Scenario, Store};
use crate::tortie::{Settings, TortieNode};
use crate::{Lab, command};

/// Ten nodes that write themselves down, and what one of them applies.
pub(super) const ONE_ETCD: Scenario = Scenario {
    name: "one-etcd",
    about: "ten Tortie nodes start at one etcd at once, each gets an address of its own; what one applies all have; they tell of themselves",
    programs: &["etcd", "etcdctl"],
    tortie: true,
    alone: false,
    store: Store::Etcd,
    run: |lab, _| run(lab),
};

const NODES: u8 = 10;
/// Eight blocks of eight addresses for ten nodes: two have to borrow.
const STARTUP: &str = "startup: { ip: autodetect, ip_autodetection_method: interface=eth0, ipv4_pool_cidr: 10.66.0.0/26, \
                       ipv4_pool_ipip: Always, ipv4_pool_block_size: 29 }\n\
                       limits: { routes_v4: 10000, routes_v6: 10000, mirror_routes: 10000, frames: 8192, flows: 4096 }\n";
/// How long a command may take.
const COMMAND: Duration = Duration::from_secs(90);
/// Ten routers on a few cores take their time.
const START: Duration = Duration::from_secs(120);

const POLICY: &str = "
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {name: nobody}
spec: {selector: all(), types: [Ingress], ingress: [{action: Deny}]}
";
const PROFILE_OF_ENDPOINT: &str = "[projectcalico-default-allow]";

struct Site<'a> {
    lab: &'a Lab,
    etcd: EtcdServer,
    store: EtcdStore,
    nodes: Vec<TortieNode>,
}

fn run(lab: &Lab) -> Result<()> {
    let fabric = Fabric::raise(lab, "fabric")?;
    let etcd = EtcdServer::start(lab, &lab.namespace("etcd")?, None, &[])?;
    let resources = Resources::create(lab.directory().join("resources"))?;
    let settings = Settings {
        datastore: Some(format!("{{ etcd: {{ endpoints: [\"{}\"] }} }}", etcd.endpoint())),
        more: STARTUP.to_owned(),
        ..Settings::default()
    };
    let mut nodes = Vec::new();
    for number in 1..=NODES {
        let name = format!("node{number}");
        let namespace = lab.namespace(&name)?;
        namespace.forward()?;
        fabric.attach(&namespace, "eth0")?;
        let address: InterfaceAddr = format!("192.168.7.{number}/24").parse()?;
        add_address(&namespace, "eth0", address)?;
        nodes.push(TortieNode::configure(lab, &namespace, resources.directory(), &settings)?);
    }
    let store = EtcdStore::open(&etcd.settings())?;
    let site = Site { lab, etcd, store, nodes };
    site.start_all_at_once()?;
    site.everybody_has_an_address()?;
    site.what_one_applies_all_have()?;
    site.nodes_tell_of_themselves()
}

impl Site<'_> {
    fn start_all_at_once(&self) -> Result<()> {
        for node in &self.nodes {
            node.spawn(self.lab)?;
        }
        for node in &self.nodes {
            node.answers(self.lab, START)?;
        }
        Ok(())
    }

    fn resources(&self, kind: ResourceKind) -> Result<Vec<Value>> {
        let listed = self.store.list(&Under::Kind { kind, namespace: None })?;
        Ok(listed.stored.into_iter().map(|stored| stored.value).collect())
    }

    /// Each node's resource has a tunnel address, no two the same, and the books say so too.
    fn everybody_has_an_address(&self) -> Result<()> {
        let addresses = self.lab.wait("ten tunnel addresses", CONVERGE, || {
            let nodes = self.resources(ResourceKind::Node)?;
            let addresses: Vec<String> = nodes
                .iter()
                .filter_map(|node| node["spec"]["bgp"]["ipv4IPIPTunnelAddr"].as_str().map(str::to_owned))
                .collect();
            Ok((addresses.len() == usize::from(NODES)).then_some(addresses))
        })?;
        let different: BTreeSet<&String> = addresses.iter().collect();
        ensure!(different.len() == usize::from(NODES), "an address was given twice: {addresses:?}");
        let said = self.tortie(&["ipam", "check"], None)?;
        ensure!(said.contains("Check complete; found 0 problems."), "`tortie ipam check` says: {said}");
        self.lab.proved(format!(
            "{NODES} nodes that started at once have {NODES} different tunnel addresses out of 8 blocks, and `tortie ipam check` finds nothing wrong"
        ));
        Ok(())
    }

    fn what_one_applies_all_have(&self) -> Result<()> {
        let mut manifest = POLICY.to_owned();
        for (number, node) in (1..).zip(&self.nodes) {
            manifest.push_str(&format!(
                "---\napiVersion: projectcalico.org/v3\nkind: WorkloadEndpoint\nmetadata: {{namespace: default}}\n\
                 spec: {{node: {}, orchestrator: cni, containerID: c{number}, endpoint: eth0, interfaceName: cali{number}, \
                 ipNetworks: [10.67.0.{number}/32], profiles: {PROFILE_OF_ENDPOINT}}}\n",
                node.name()
            ));
        }
        let path = self.lab.directory().join("policy.yaml");
        std::fs::write(&path, manifest)?;
        self.tortie(&["apply", "-f", &path.to_string_lossy()], Some(&self.nodes[0]))?;
        let knows = |node: &TortieNode| -> Result<bool> {
            let policy: Value = node.show("policy --all")?;
            Ok(policy.to_string().contains("nobody"))
        };
        for node in &self.nodes {
            let what = format!("{} to have the policy", node.name());
            self.lab.wait(&what, CONVERGE, || Ok(knows(node)?.then_some(())))?;
        }
        self.tortie(&["delete", "globalnetworkpolicy", "nobody"], Some(&self.nodes[NODES as usize - 1]))?;
        for node in &self.nodes {
            let what = format!("{} to have the policy no more", node.name());
            self.lab.wait(&what, CONVERGE, || Ok((!knows(node)?).then_some(())))?;
        }
        self.lab.proved(format!("what `tortie apply` wrote at node1 and `tortie delete` took away at node{NODES} all {NODES} nodes had and lost"));
        Ok(())
    }

    /// Felix's keys, with a lease where it has one, and a CalicoNodeStatus that is filled in.
    fn nodes_tell_of_themselves(&self) -> Result<()> {
        // What calico/node writes down at its start says that nodes don't tell that they are alive.
        let manifest = "apiVersion: projectcalico.org/v3\nkind: CalicoNodeStatus\nmetadata: {name: node1}\n\
                        spec: {node: node1, classes: [Agent, BGP, Routes], updatePeriodSeconds: 2}\n---\n\
                        apiVersion: projectcalico.org/v3\nkind: FelixConfiguration\nmetadata: {name: default}\n\
                        spec: {reportingInterval: 10s, endpointReportingEnabled: true}\n";
        let path = self.lab.directory().join("status.yaml");
        std::fs::write(&path, manifest)?;
        self.tortie(&["apply", "-f", &path.to_string_lossy()], None)?;
        let root = "/calico/felix/v2/no-region/host/node1";
        for key in ["status", "last_reported_status"] {
            let key = format!("{root}/{key}");
            let told = self.lab.wait(&key, CONVERGE, || {
                let got: Value = serde_json::from_str(&self.etcd.ctl(&["get", &key, "-w", "json"])?)?;
                Ok(got["kvs"].get(0).cloned())
            })?;
            let has_lease = told["lease"].as_i64().unwrap_or(0) != 0;
            ensure!(has_lease == (key.ends_with("/status")), "{key} is {told}");
        }
        let status = self.lab.wait("node1 to tell of its sessions", CONVERGE, || {
            let told = self.resources(ResourceKind::CalicoNodeStatus)?.into_iter().next();
            let status = told.map(|told| told["status"].clone()).unwrap_or_default();
            let established = status["bgp"]["numberEstablishedV4"].as_u64();
            Ok((established == Some(u64::from(NODES) - 1)).then_some(status))
        })?;
        ensure!(status["agent"]["birdV4"]["state"] == "Ready", "the agent is {}", status["agent"]);
        let routes = status["routes"]["routesV4"].as_array().context("no routes")?.len();
        ensure!(routes > 0, "no route is told");
        let key = format!("{root}/workload/cni/default%2fc1/endpoint/eth0");
        let endpoint = self.lab.wait(&key, CONVERGE, || {
            let got = self.etcd.ctl(&["get", &key, "--print-value-only"])?;
            Ok((!got.trim().is_empty()).then(|| got.trim().to_owned()))
        })?;
        // Its interface was never made.
        ensure!(endpoint == r#"{"status":"down"}"#, "{key} is {endpoint}");
        self.lab.proved(format!(
            "node1 tells that it is alive, under a lease and for good, how its endpoint fares, and in a CalicoNodeStatus of {} sessions and {routes} routes",
            NODES - 1
        ));
        Ok(())
    }

    /// A command on the etcd, as an operator types it at one of the nodes.
    fn tortie(&self, arguments: &[&str], at: Option<&TortieNode>) -> Result<String> {
        let tortie = &self.lab.tools().tortie;
        let mut command = match at {
            Some(node) => node.namespace().command(tortie),
            None => Command::new(tortie),
        };
        command.env("DATASTORE_TYPE", "etcdv3").env("ETCD_ENDPOINTS", self.etcd.endpoint());
        command::run(command.args(arguments), COMMAND)
    }
}

//! What an operator gets wrong: each is told clearly, and nothing else is disturbed.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use model::Family;

use crate::cluster::{Cluster, ClusterPlan, NodePlan, RouterKind};
use crate::link::{self, Fabric};
use crate::netns::Namespace;
use crate::scenario::{Options, Scenario, Store};
use crate::tortie::{Settings, ShowPorts, TortieNode};
use crate::traffic::Session;
use crate::{Lab, command};

/// A missing interface, too few queues, no root, a broken file: under traffic on the same machine.
pub(super) const MALFORMED: Scenario = Scenario {
    name: "malformed",
    about: "a missing interface, too few queues, no root, broken YAML: clear messages, and traffic goes on",
    programs: &["ping", "ethtool", "setpriv"],
    tortie: true,
    alone: false,
    store: Store::Either,
    run,
};

/// How long a router that cannot run may take to say so.
const REFUSAL: Duration = Duration::from_secs(120);
/// What a person at an ssh session beside a mistake would call a hang.
const DISTURBED: Duration = Duration::from_secs(3);

const PLAN: ClusterPlan = ClusterPlan {
    fabric: "fabric",
    as_number: 64512,
    pools: [("10.65.0.0/16", 26), ("fd65::/48", 122)],
    nodes: &[
        NodePlan {
            name: "node1",
            router: RouterKind::Tortie,
            addresses: ["172.18.0.2/24", "fd18::2/64"],
            blocks: ["10.65.1.0/26", "fd65::1:0/122"],
            workloads: 1,
        },
        NodePlan {
            name: "node2",
            router: RouterKind::Tortie,
            addresses: ["172.18.0.3/24", "fd18::3/64"],
            blocks: ["10.65.2.0/26", "fd65::2:0/122"],
            workloads: 1,
        },
    ],
};

fn run(lab: &Lab, _: &Options) -> Result<()> {
    let mut cluster = Cluster::raise(lab, &PLAN)?;
    cluster.comes_up()?;
    let (from, to) = cluster.distant_workloads()?;
    let mut session = Session::open(lab, &from.namespace, &to.namespace, to.address(Family::V4)?)?;

    missing_interface(lab, &cluster)?;
    session.beats_on(2)?;
    too_few_queues(lab, &cluster)?;
    session.beats_on(2)?;
    no_root(lab, &cluster)?;
    session.beats_on(2)?;
    broken_configuration(lab)?;
    session.beats_on(2)?;
    broken_resource(lab, &cluster, &mut session)?;

    let slowest = session.longest_beat()?;
    ensure!(
        slowest < DISTURBED,
        "traffic beside the mistakes stood still for {:.1} s",
        slowest.as_secs_f64()
    );
    lab.proved(format!(
        "a TCP session between two workloads went on through all of it: {} beats, the slowest took {:.3} s",
        session.beats()?,
        slowest.as_secs_f64()
    ));
    cluster.books_balance()
}

/// A router elsewhere whose configuration names an interface that is not there: told by name, waited for, and a
/// port as soon as it comes.
fn missing_interface(lab: &Lab, cluster: &Cluster<'_>) -> Result<()> {
    const LATE: &str = "eth7";
    let node =
        spare(lab, cluster, "astray", &Settings { uplinks: vec![LATE.to_owned()], ..Settings::default() })?;
    node.start(lab)?;
    let line = lab.wait("the missing interface to be told", REFUSAL, || {
        node.must_run()?;
        Ok(node.said().lines().find(|line| line.contains(LATE)).map(str::to_owned))
    })?;
    ensure!(line.contains("no such interface"), "a missing interface is told as: {line}");
    ensure!(port_is_up(&node, LATE).is_err(), "{LATE} is not there and yet a port");
    lab.proved(format!("a missing interface: {}", message(&line)));
    node.namespace().ip(&format!("link set eth0 down name {LATE}"))?;
    node.namespace().ip(&format!("link set {LATE} up"))?;
    lab.wait(&format!("{LATE} to become a port"), REFUSAL, || port_is_up(&node, LATE).map(Some))?;
    lab.proved(format!("when {LATE} comes it becomes a port, without a restart"));
    node.stop()
}

/// Fails unless a port of this name carries frames.
fn port_is_up(node: &TortieNode, name: &str) -> Result<()> {
    let ports: ShowPorts = node.show("ports")?;
    let port =
        ports.ports.iter().find(|port| port.name == name).with_context(|| format!("no port {name}"))?;
    ensure!(port.up && !port.queues.is_empty(), "port {name} is down");
    Ok(())
}

/// A log line without its time.
fn message(line: &str) -> String {
    let words: Vec<&str> = line.split_whitespace().skip(1).collect();
    words.join(" ").chars().take(240).collect()
}

/// Four workers on an interface with one queue: refused, or told and run with what there is.
fn too_few_queues(lab: &Lab, cluster: &Cluster<'_>) -> Result<()> {
    let name = "narrow";
    let node = spare(lab, cluster, name, &Settings { workers: 4, ..Settings::default() })?;
    let mut process = lab.spawn(&format!("tortie-{name}"), node.run_command())?;
    let said = lab.wait("a word about queues", REFUSAL, || {
        let said = process.said();
        Ok(said.to_lowercase().contains("queue").then_some(said))
    })?;
    let line = said.lines().find(|line| line.to_lowercase().contains("queue")).unwrap_or_default();
    ensure!(
        line.contains("eth0") && line.contains('4'),
        "too few queues are told without the numbers: {line}"
    );
    lab.proved(format!("fewer queues than workers: {}", message(line)));
    process.stop()
}

/// The same router, by a user who may do nothing.
fn no_root(lab: &Lab, cluster: &Cluster<'_>) -> Result<()> {
    const NOBODY: &str = "65534";
    let node = spare(lab, cluster, "humble", &Settings::default())?;
    // Where nobody may read and run it, whatever the permissions of the folder it was built in.
    let copy = lab.directory().join("tortie-for-nobody");
    std::fs::copy(&lab.tools().tortie, &copy).context("cannot copy the router")?;
    let mut command = node.namespace().command("setpriv");
    command.args(["--reuid", NOBODY, "--regid", NOBODY, "--clear-groups", "--inh-caps=-all"]);
    command.arg(&copy).arg("run").arg("-c").arg(node.configuration());
    let said = refuses(&mut command)?;
    let names_the_reason = ["root", "CAP_NET_ADMIN", "privilege"].iter().any(|word| said.contains(word));
    ensure!(names_the_reason, "without root the router says: {said}");
    lab.proved(format!("without root: {}", last_line(&said)));
    Ok(())
}

/// A configuration file with a misspelt key: the file, the line and the key are named.
fn broken_configuration(lab: &Lab) -> Result<()> {
    let file = lab.directory().join("misspelt.yaml");
    std::fs::write(&file, "node: node9\nuplink: [eth0]\n")?;
    let mut command = Command::new(&lab.tools().tortie);
    command.arg("run").arg("-c").arg(&file).arg("--check");
    let said = refuses(&mut command)?;
    ensure!(said.contains("misspelt.yaml") && said.contains("uplink"), "a misspelt key is told as: {said}");
    lab.proved(format!("a misspelt key in the configuration: {}", last_line(&said)));
    Ok(())
}

/// A broken file among the resources of running routers, or a broken value among those in an etcd: named with its line, the
/// last good state in force.
fn broken_resource(lab: &Lab, cluster: &Cluster<'_>, session: &mut Session) -> Result<()> {
    const FILE: &str = "broken.yaml";
    const KEY: &str = "/calico/resources/v3/projectcalico.org/ippools/broken";
    let in_etcd = lab.etcdctl(&["put", KEY, "{\"kind\": \"IPPool\", \"metadata\": [name"])?.is_some();
    let broken = if in_etcd { KEY } else { FILE };
    if !in_etcd {
        let text = "apiVersion: projectcalico.org/v3\nkind: IPPool\nmetadata: [name: x\n";
        cluster.resources.write(FILE, text)?;
    }
    for node in &cluster.nodes {
        let tortie = node.tortie()?;
        let line = lab.wait(&format!("{} to name {broken}", node.name()), REFUSAL, || {
            tortie.must_run()?;
            let said = tortie.said();
            Ok(said.lines().find(|line| line.contains(broken)).map(str::to_owned))
        })?;
        // Any number after the name: `broken.yaml:3`, `broken.yaml, line 3`.
        let after = line.split(broken).nth(1).unwrap_or_default();
        ensure!(after.contains(|letter: char| letter.is_ascii_digit()), "no line number in: {line}");
        if node.name() == cluster.nodes[0].name() {
            lab.proved(format!("a broken resource: {}", message(&line)));
        }
    }
    session.beats_on(10)?;
    cluster.mesh_is_up(0)?;
    cluster.blocks_are_known()?;
    if lab.etcdctl(&["del", KEY])?.is_none() {
        cluster.resources.remove(FILE)?;
    }
    session.beats_on(5)?;
    lab.proved("with the broken resource there, and after its removal, sessions and routes are as before");
    Ok(())
}

/// A namespace with an uplink beside the cluster, and a router for it that is not started.
fn spare(lab: &Lab, cluster: &Cluster<'_>, name: &str, settings: &Settings) -> Result<TortieNode> {
    let namespace: Namespace = lab.namespace(name)?;
    let lonely = Fabric::raise(lab, &format!("{name}-lan"))?;
    lonely.attach(&namespace, "eth0")?;
    link::add_address(&namespace, "eth0", "172.19.0.2/24".parse()?)?;
    TortieNode::configure(lab, &namespace, cluster.resources.directory(), settings)
}

/// Runs a router that must end by itself, with a failure, and returns what it said.
fn refuses(run: &mut Command) -> Result<String> {
    let output = command::output(run, REFUSAL)?;
    let said =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    ensure!(!output.status.success(), "`{}` claims success: {said}", command::typed(run));
    ensure!(!said.contains("panicked"), "the router panicked: {said}");
    Ok(said)
}

fn last_line(said: &str) -> &str {
    said.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default().trim()
}

//! Ten thousand policies and a hundred workloads come, change and go under traffic that policy allows.

use std::cell::Cell;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use model::{Family, MacAddr};

use super::one_node::{OneNode, outside};
use crate::link::{self, End};
use crate::netns::Namespace;
use crate::process::Process;
use crate::scenario::{Options, Scenario, Store};
use crate::tortie::{ShowBgp, ShowPorts, ShowRoutes, TortieNode};
use crate::traffic::{self, Knock, Sink, UdpFlows};
use crate::workload::{HOST_MAC, Workload};
use crate::{Lab, books};

/// Policy at the size of a large cluster, on one node.
pub(super) const POLICY_LOAD: Scenario = Scenario {
    name: "policy-load",
    about: "10,000 policies and 100 workloads come, change and go under traffic; nothing that is allowed is lost",
    programs: &["ping", "ss", "ethtool"],
    tortie: true,
    alone: true,
    store: Store::Either,
    run,
};

/// Services. A workload of the crowd belongs to each, and a policy names one as the source.
const SERVICES: usize = 100;
/// Policies of each service.
const POLICIES: usize = 100;
/// Policies of each service in a file: a file stays below what the datastore takes (4 MiB).
const PER_FILE: usize = 10;
const FILES: usize = POLICIES / PER_FILE;
/// The port that the first policy of a service allows; the next one allows the next.
const FIRST_PORT: u16 = 30_000;
/// Policies of the server's service that are looked at, in the first file and in the last, and so the services of the
/// clients that they allow.
const FIRST: usize = 1;
const LAST: usize = 99;
/// How the crowd's interfaces begin.
const CROWD: &str = "calicrowd";
/// Datagrams a second, in all: far below what one core forwards, and in a second fewer than the ring of a workload's port
/// holds, so that a loss is the router's fault.
const DATAGRAMS: u32 = 1_000;
/// Datagrams to each destination, unless they are stopped before: ten minutes of them.
const COPIES: u32 = 600 * DATAGRAMS / 4;
/// How soon a load, a change and a removal must be in force.
const IN_FORCE: Duration = Duration::from_secs(120);
const ARRIVE: Duration = Duration::from_secs(60);
/// What the router's log says of a workload that it had to close for want of room.
const DOES_NOT_FIT: &str = "doesn't fit the tables";

fn run(lab: &Lab, _: &Options) -> Result<()> {
    let site = OneNode::raise(lab, &["server", "first", "last"])?;
    let far = lab.namespace("crowd")?;
    let node = site.start()?;
    let server = &site.workloads[0];
    let _servers = [FIRST, LAST]
        .into_iter()
        .map(|number| traffic::serve(lab, &server.namespace, port(number)))
        .collect::<Result<Vec<Process>>>()?;
    let sinks = [Sink::open(lab, &server.namespace)?, Sink::open(lab, &site.outside)?];
    let mut load = Load { site: &site, node: &node, sinks, slowest: Cell::default() };
    load.only_datagrams_are_allowed()?;
    let before = load.warm_up()?;
    let mut memory = vec![node.resident_bytes()?];

    let destinations = load.destinations()?;
    let mut flows = UdpFlows::start(lab, &load.client(FIRST).namespace, &destinations, COPIES, DATAGRAMS, 0)?;
    let begin = Instant::now();
    // Twice: what the second time takes more was not given back after the first.
    for _ in 0..2 {
        load.come(&far)?;
        memory.push(node.resident_bytes()?);
        load.deny_and_allow()?;
        load.go(&far)?;
        memory.push(node.resident_bytes()?);
    }
    let said = node.said();
    ensure!(!said.contains(DOES_NOT_FIT), "the tables have no room for the load: {said}");
    flows.must_go_on().context("the datagrams ended before the last change")?;
    let sent = flows.stop()?;
    let seconds = begin.elapsed().as_secs_f64();
    lab.wait("every datagram at its destination", ARRIVE, || {
        let arrived = load.counted()? - before;
        ensure!(arrived == sent, "{arrived} of {sent} datagrams arrived; {}", books::where_lost(&node)?);
        Ok(Some(()))
    })?;
    lab.proved(format!(
        "{sent} datagrams meanwhile, in {seconds:.0} s, to another workload and to the outside by IPv4 and IPv6: none lost"
    ));
    let memory: Vec<String> =
        memory.into_iter().map(|bytes| format!("{:.0} MB", bytes as f64 / 1e6)).collect();
    lab.proved(format!(
        "memory: {} before, {} with the load and {} after it; the second time {} and {}",
        memory[0], memory[1], memory[2], memory[3], memory[4]
    ));
    lab.proved(format!(
        "the slowest answer of `tortie show bgp` meanwhile took {:.2} s",
        load.slowest.get().as_secs_f64()
    ));
    let books = books::settled(lab, &node)?;
    lab.proved(books::line("node", &books));
    Ok(())
}

/// A node whose workloads may get datagrams, and what else its policies allow.
struct Load<'lab> {
    site: &'lab OneNode<'lab>,
    node: &'lab TortieNode,
    sinks: [Sink; 2],
    /// The longest that the slow path took for an answer: asked before each look, so not at every moment.
    slowest: Cell<Duration>,
}

impl Load<'_> {
    fn server(&self) -> &Workload {
        &self.site.workloads[0]
    }

    /// The workload of the service that the server's policy of this number allows: [`FIRST`] or [`LAST`].
    fn client(&self, number: usize) -> &Workload {
        &self.site.workloads[if number == FIRST { 1 } else { 2 }]
    }

    /// One policy, asked before and during the load, that allows the datagrams and nothing else to the server.
    fn only_datagrams_are_allowed(&self) -> Result<()> {
        let text = format!(
            "apiVersion: projectcalico.org/v3\nkind: NetworkPolicy\nmetadata: {{name: datagrams, namespace: default}}\n\
             spec:\n  selector: has(role)\n  types: [Ingress, Egress]\n  \
             ingress: [{{action: Allow, protocol: UDP, source: {{selector: role == 'client'}}, \
             destination: {{ports: [{}]}}}}]\n  egress: [{{action: Allow}}]\n",
            Sink::PORT
        );
        self.site.resources.write("datagrams.yaml", &text)?;
        let labels = [(self.server(), 0, "server")]
            .into_iter()
            .chain([FIRST, LAST].map(|number| (self.client(number), number, "client")));
        for (workload, service, role) in labels {
            let labels = format!("{{service: service-{service}, role: {role}}}");
            self.site.resources.endpoint_policy("node", workload.name(), &labels, "[]")?;
        }
        self.answers(FIRST, Knock::Silent)?;
        self.answers(LAST, Knock::Silent)
    }

    /// The load, from the first file until both its ends are in force and every port carries frames.
    fn come(&self, far: &Namespace) -> Result<()> {
        let resources = &self.site.resources;
        self.site.lab.step(&format!("raising {SERVICES} interfaces"));
        for number in 0..SERVICES {
            let interface = format!("{CROWD}{number}");
            let near = End { mac: Some(HOST_MAC), ..End::new(&self.site.node, &interface) };
            link::veth(End { mac: Some(mac(number)), ..End::new(far, &far_end(number)) }, near)?;
        }
        self.site.lab.step(&format!("loading {} policies and {SERVICES} endpoints", SERVICES * POLICIES));
        let begin = Instant::now();
        let endpoints = endpoints();
        let mut bytes = endpoints.len();
        resources.write("crowd.yaml", &endpoints)?;
        for file in 0..FILES {
            let text = policies(file, "Allow");
            bytes += text.len();
            resources.write(&file_name(file), &text)?;
        }
        self.answers(FIRST, Knock::Open)?;
        self.answers(LAST, Knock::Open)?;
        let in_force = begin.elapsed();
        self.crowd_is(SERVICES)?;
        self.site.lab.proved(format!(
            "{} policies with {} rules and {SERVICES} endpoints ({:.1} MB of YAML): in force after {:.1} s, every port open \
             after {:.1} s",
            SERVICES * POLICIES,
            2 * SERVICES * POLICIES,
            bytes as f64 / 1e6,
            in_force.as_secs_f64(),
            begin.elapsed().as_secs_f64()
        ));
        Ok(())
    }

    /// One policy of them denies what it has allowed, and allows it again.
    fn deny_and_allow(&self) -> Result<()> {
        let mut took = [Duration::ZERO; 2];
        for ((action, knock), took) in
            [("Deny", Knock::Silent), ("Allow", Knock::Open)].into_iter().zip(&mut took)
        {
            let begin = Instant::now();
            self.site.resources.write(&file_name(FIRST / PER_FILE), &policies(FIRST / PER_FILE, action))?;
            self.answers(FIRST, knock)?;
            *took = begin.elapsed();
            self.answers(LAST, Knock::Open)?;
        }
        let [deny, allow] = took.map(|took| took.as_secs_f64());
        self.site.lab.proved(format!(
            "one policy of them that denies port {} is in force after {deny:.1} s, and allows it again after {allow:.1} s; \
             its neighbours' port {} stays open",
            port(FIRST),
            port(LAST)
        ));
        Ok(())
    }

    fn go(&self, far: &Namespace) -> Result<()> {
        let resources = &self.site.resources;
        self.site.lab.step("removing all of them");
        let begin = Instant::now();
        (0..FILES).try_for_each(|file| resources.remove(&file_name(file)))?;
        resources.remove("crowd.yaml")?;
        self.answers(FIRST, Knock::Silent)?;
        self.answers(LAST, Knock::Silent)?;
        let in_force = begin.elapsed();
        (0..SERVICES).try_for_each(|number| far.ip(&format!("link del {}", far_end(number))).map(|_| ()))?;
        self.crowd_is(0)?;
        self.site.lab.proved(format!(
            "all of them removed: what they allowed is denied after {:.1} s, and every port is gone after {:.1} s",
            in_force.as_secs_f64(),
            begin.elapsed().as_secs_f64()
        ));
        Ok(())
    }

    /// Waits for this outcome of connecting to the port of the server's policy of this number, by both families. Silence
    /// takes half a second to hear for each.
    fn answers(&self, number: usize, wanted: Knock) -> Result<()> {
        let client = self.client(number);
        for family in Family::ALL {
            let server = SocketAddr::new(self.server().address(family)?, port(number));
            let what = format!("{} to {server} being {wanted:?}", client.name());
            self.site.lab.wait(&what, IN_FORCE, || {
                self.ask()?;
                Ok((traffic::knock(self.site.lab, &client.namespace, server)? == wanted).then_some(()))
            })?;
        }
        Ok(())
    }

    /// Waits until so many workloads of the crowd have a route and a port that carries frames, and no other is left.
    fn crowd_is(&self, wanted: usize) -> Result<()> {
        self.site.lab.wait(&format!("{wanted} ports of the crowd"), IN_FORCE, || {
            let ports = self.node.show::<ShowPorts>("ports")?.ports;
            let ports: Vec<_> = ports.iter().filter(|port| port.name.starts_with(CROWD)).collect();
            let up = ports.iter().filter(|port| port.up && !port.queues.is_empty()).count();
            ensure!(up == wanted && ports.len() == wanted, "{up} of {} are up so far", ports.len());
            let routes = self.node.show::<ShowRoutes>("routes --source workload --limit 1000")?.routes;
            let of_crowd =
                routes.iter().filter(|route| route.installed && route.prefix.starts_with("10.65.1."));
            let routed = of_crowd.count();
            ensure!(routed == wanted, "{routed} have a route so far");
            Ok(Some(()))
        })
    }

    /// A question that the slow path answers between two things that it does: notes how long it took.
    fn ask(&self) -> Result<()> {
        self.node.must_run()?;
        let begin = Instant::now();
        self.node.show::<ShowBgp>("bgp")?;
        self.slowest.set(self.slowest.get().max(begin.elapsed()));
        Ok(())
    }

    fn destinations(&self) -> Result<Vec<IpAddr>> {
        let both = Family::ALL.map(|family| [self.server().address(family), outside(family)]);
        both.into_iter().flatten().collect()
    }

    /// MAC addresses are asked for by the first packets; these are not counted. Returns what the sinks have.
    fn warm_up(&mut self) -> Result<u64> {
        let (lab, client) = (self.site.lab, self.client(FIRST).namespace.clone());
        for destination in self.destinations()? {
            lab.wait(&format!("the first datagram to {destination}"), ARRIVE, || {
                traffic::udp_to_many(lab, &client, &[destination], 1, DATAGRAMS)?;
                let arrived = |sink: &mut Sink| Ok(sink.counted()?.destinations.contains_key(&destination));
                let arrived: Vec<bool> = self.sinks.iter_mut().map(arrived).collect::<Result<_>>()?;
                Ok(arrived.contains(&true).then_some(()))
            })?;
        }
        // Late datagrams must not be taken for those that are counted.
        self.sinks.iter_mut().map(|sink| Ok(sink.settled(lab)?.packets)).sum()
    }

    fn counted(&mut self) -> Result<u64> {
        self.sinks.iter_mut().map(|sink| Ok(sink.counted()?.packets)).sum()
    }
}

/// What the crowd's end of a link is called.
fn far_end(number: usize) -> String {
    format!("eth{number}")
}

/// The endpoints of the crowd.
fn endpoints() -> String {
    let endpoint = |number| {
        format!(
            "---\napiVersion: projectcalico.org/v3\nkind: WorkloadEndpoint\nmetadata: \
             {{name: node-k8s-crowd{number}-eth0, namespace: default, labels: {{service: service-{number}}}}}\n\
             spec: {{orchestrator: k8s, node: node, pod: crowd{number}, endpoint: eth0, interfaceName: {CROWD}{number}, \
             mac: \"{}\", ipNetworks: [10.65.1.{number}/32, \"fd65::1:{number}/128\"]}}\n",
            mac(number)
        )
    };
    (0..SERVICES).map(endpoint).collect()
}

/// The MAC address of a workload of the crowd.
fn mac(number: usize) -> MacAddr {
    MacAddr([2, 0, 0, 0, 1, number as u8])
}

/// A file's share of the policies of every service; the action of the server's [`FIRST`] one, where it is in this file.
///
/// Policy `number` of a service lets the service that is `number` further reach a port, and a network of its own ask for
/// names.
fn policies(file: usize, action_of_first: &str) -> String {
    let numbers = file * PER_FILE..(file + 1) * PER_FILE;
    let all = (0..SERVICES).flat_map(|service| numbers.clone().map(move |number| (service, number)));
    let text = |(service, number)| {
        let action = if (service, number) == (0, FIRST) { action_of_first } else { "Allow" };
        let source = (service + number) % SERVICES;
        format!(
            "---\napiVersion: projectcalico.org/v3\nkind: NetworkPolicy\nmetadata: \
             {{name: load-{service}-{number}, namespace: default}}\nspec:\n  selector: service == 'service-{service}'\n  \
             ingress:\n  - {{action: {action}, protocol: TCP, source: {{selector: service == 'service-{source}'}}, \
             destination: {{ports: [{}]}}}}\n  \
             - {{action: Allow, protocol: UDP, source: {{nets: [10.{service}.{number}.0/24]}}, destination: {{ports: [53]}}}}\n",
            port(number)
        )
    };
    all.map(text).collect()
}

fn file_name(file: usize) -> String {
    format!("policies-{file}.yaml")
}

/// The port that a service's policy of this number is about.
fn port(number: usize) -> u16 {
    FIRST_PORT + number as u16
}

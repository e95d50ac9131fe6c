//! The host's own interfaces under policy: what is for the host itself, and what the kernel forwards while nobody routes.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;

use crate::cluster::CONVERGE;
use crate::link::{self, Fabric};
use crate::netns::Namespace;
use crate::process::Process;
use crate::resources::Resources;
use crate::scenario::{Options, Scenario, Store};
use crate::tortie::{Settings, TortieNode};
use crate::traffic::{self, Knock, Session};
use crate::workload::Workload;
use crate::{Lab, books, command};

/// Host endpoints, one after the other, over sessions that must live through all of it.
pub(super) const HOST_ENDPOINT: Scenario = Scenario {
    name: "host-endpoint",
    about: "policy of the host's own interfaces: failsafe ports, untracked, pre-DNAT, all interfaces, a dead router",
    programs: &["ping", "ss", "nft", "ethtool"],
    tortie: true,
    alone: false,
    store: Store::Either,
    run,
};

/// The router's uplinks: towards `left` and towards `right`.
const UPLINKS: [(&str, [&str; 2]); 2] =
    [("eth0", ["10.1.0.1/24", "fd01::1/64"]), ("eth1", ["10.2.0.1/24", "fd02::1/64"])];
/// The router, as `left` sees it and as `right` does.
const TO_LEFT: [&str; 2] = ["10.1.0.1", "fd01::1"];
const TO_RIGHT: [&str; 2] = ["10.2.0.1", "fd02::1"];
const LEFT: [&str; 2] = ["10.1.0.2", "fd01::2"];
const WORKLOAD: [&str; 2] = ["10.65.0.1", "fd65::1"];
/// What the router serves.
const PORTS: [u16; 4] = [22, 8080, 8443, 9000];
/// How soon policy must be in force.
const IN_FORCE: Duration = Duration::from_secs(60);

struct Site<'lab> {
    lab: &'lab Lab,
    left: Namespace,
    right: Namespace,
    router: TortieNode,
    resources: Resources,
    _workload: Workload,
    /// Servers on the router, and on `left` the one that is forwarded to.
    _servers: Vec<Process>,
}

/// `tortie show host-policy -o json`, as far as the scenario reads it.
#[derive(Deserialize)]
struct ShowHostPolicy {
    in_force: bool,
    refused: Option<String>,
    endpoints: Vec<Named>,
    rules: Vec<Rule>,
}

#[derive(Deserialize)]
struct Named {
    name: String,
}

#[derive(Deserialize)]
struct Rule {
    name: String,
    what: String,
    packets: Option<u64>,
}

/// `tortie trace -o json`, as far as the scenario reads it.
#[derive(Deserialize)]
struct Traces {
    packets: Vec<Traced>,
}

#[derive(Debug, Deserialize)]
struct Traced {
    made_up: bool,
    fate: String,
    reason: Option<String>,
    leaves_by: Option<String>,
    policy: Vec<TracedPolicy>,
}

#[derive(Debug, Deserialize)]
struct TracedPolicy {
    policy: String,
    what: String,
    text: Option<String>,
}

fn run(lab: &Lab, _: &Options) -> Result<()> {
    let site = raise(lab)?;
    site.router.start(lab)?;
    for address in WORKLOAD {
        traffic::reaches(lab, &site.left, address.parse()?, CONVERGE)?;
    }
    site.knocks("before any host endpoint", &site.left, TO_LEFT, &PORTS, Knock::Open)?;
    let mut transit = Session::open(lab, &site.right, &site.left, LEFT[0].parse()?)?;
    // As an operator's ssh: to a failsafe port.
    let server = SocketAddr::new(TO_LEFT[0].parse()?, 2379);
    let mut ssh = Session::open_at(lab, &site.left, site.router.namespace(), server)?;

    an_endpoint_closes_its_interface(&site)?;
    ssh.beats_on(5)?;
    transit.beats_on(5)?;
    lab.proved("a session to a failsafe port and one across the router live on");
    policy_opens_a_port(&site)?;
    untracked_policy_opens_both_ways(&site)?;
    pre_dnat_policy_comes_before_translation(&site)?;
    the_endpoint_of_all_interfaces(&site)?;
    ssh.beats_on(5)?;
    transit.beats_on(5)?;

    forwarded_policy(&site)?;
    what_the_walk_forwards_is_held_to_it(&site)?;
    transit.beats_on(5)?;
    lab.step("SIGKILL to the router");
    site.router.kill()?;
    ssh.beats_on(5)?;
    transit.beats_on(5)?;
    site.knocks("of a dead router", &site.left, TO_LEFT, &[22], Knock::Open)?;
    site.knocks("of a dead router", &site.left, TO_LEFT, &[9000], Knock::Silent)?;
    site.knocks("forwarded by the kernel", &site.right, LEFT, &[7000], Knock::Open)?;
    site.knocks("forwarded by the kernel against policy", &site.right, LEFT, &[7001], Knock::Silent)?;
    site.router.start(lab)?;
    site.in_force("all")?;
    site.knocks("after the restart", &site.left, TO_LEFT, &[9000], Knock::Silent)?;

    for file in ["left.yaml", "all.yaml"] {
        site.resources.remove(file)?;
    }
    lab.wait("the end of the host endpoints", IN_FORCE, || {
        let shown: ShowHostPolicy = site.router.show("host-policy")?;
        Ok((!shown.in_force).then_some(()))
    })?;
    site.knocks("without host endpoints again", &site.left, TO_LEFT, &PORTS, Knock::Open)?;
    ssh.beats_on(5)?;
    transit.beats_on(5)?;
    let books = books::settled(lab, &site.router)?;
    lab.proved(books::line("router", &books));
    Ok(())
}

fn raise(lab: &Lab) -> Result<Site<'_>> {
    lab.step("raising two networks with the router between them");
    let router = lab.namespace("router")?;
    router.forward()?;
    let fabrics = [Fabric::raise(lab, "lan-left")?, Fabric::raise(lab, "lan-right")?];
    for (fabric, (interface, addresses)) in fabrics.iter().zip(UPLINKS) {
        fabric.attach(&router, interface)?;
        for address in addresses {
            link::add_address(&router, interface, address.parse()?)?;
        }
    }
    let left = fabrics[0].host(lab, "left", &["10.1.0.2/24", "fd01::2/64"])?;
    let right = fabrics[1].host(lab, "right", &["10.2.0.2/24", "fd02::2/64"])?;
    for (namespace, [four, six]) in [(&left, TO_LEFT), (&right, TO_RIGHT)] {
        namespace.ip(&format!("route add default via {four}"))?;
        namespace.ip(&format!("-6 route add default via {six}"))?;
    }
    let resources = Resources::create(lab.directory().join("resources"))?;
    resources.bgp_configuration(false, 64512)?;
    resources.plain_pool("pool-0", "10.65.0.0/16".parse()?, 26)?;
    resources.plain_pool("pool-1", "fd65::/48".parse()?, 122)?;
    let [four, six] = UPLINKS[0].1;
    resources.node("router", Some(four.parse()?), Some(six.parse()?))?;
    let addresses: Vec<IpAddr> = WORKLOAD.iter().map(|text| text.parse()).collect::<Result<_, _>>()?;
    let workload = Workload::raise(lab, &resources, &router, "w1", &addresses)?;
    let mut servers = Vec::new();
    for port in PORTS {
        servers.push(traffic::serve(lab, &router, port)?);
    }
    for port in [7000, 7001] {
        servers.push(traffic::serve(lab, &left, port)?);
    }
    let settings = Settings {
        uplinks: UPLINKS.iter().map(|(interface, _)| (*interface).to_owned()).collect(),
        ..Settings::default()
    };
    let router = TortieNode::configure(lab, &router, resources.directory(), &settings)?;
    Ok(Site { lab, left, right, router, resources, _workload: workload, _servers: servers })
}

/// Nothing allows anything: failsafe ports alone stay open, and only this interface is closed.
fn an_endpoint_closes_its_interface(site: &Site<'_>) -> Result<()> {
    site.resources.write("left.yaml", &host_endpoint("left", "eth0"))?;
    site.in_force("left")?;
    site.knocks("of an endpoint without policy", &site.left, TO_LEFT, &[22], Knock::Open)?;
    site.knocks("of an endpoint without policy", &site.left, TO_LEFT, &[8080, 9000], Knock::Silent)?;
    site.knocks("of an interface without endpoint", &site.right, TO_RIGHT, &PORTS, Knock::Open)?;
    for address in WORKLOAD {
        let address = address.parse()?;
        traffic::answered(&site.left, address, 3)?;
    }
    site.lab.proved("workloads behind the endpoint's interface are reached as before");
    Ok(())
}

/// One port of TCP, of everybody; the rule counts.
fn policy_opens_a_port(site: &Site<'_>) -> Result<()> {
    site.policy(
        "http",
        "  order: 100\n  ingress:\n  - {action: Allow, protocol: TCP, destination: {ports: [8080]}}\n",
    )?;
    site.until("policy opens port 8080", &site.left, TO_LEFT[0], 8080, Knock::Open)?;
    site.knocks("that policy allows", &site.left, TO_LEFT, &[8080], Knock::Open)?;
    site.knocks("that no policy allows", &site.left, TO_LEFT, &[9000], Knock::Silent)?;
    let counted = site.lab.wait("the rule's count", IN_FORCE, || {
        let shown: ShowHostPolicy = site.router.show("host-policy")?;
        let counted = shown.rules.iter().find(|rule| rule.name == "http" && rule.what == "rule 0");
        let counted = counted.and_then(|rule| rule.packets).unwrap_or_default();
        ensure!(counted >= 3, "{counted} packets at the rule that let three connections in");
        Ok(Some(counted))
    })?;
    site.lab.proved(format!("show host-policy: policy http, rule 0 has let in {counted} connections"));
    Ok(())
}

/// Without connections, the answers need a rule of their own.
fn untracked_policy_opens_both_ways(site: &Site<'_>) -> Result<()> {
    let ingress = "  ingress:\n  - {action: Allow, protocol: TCP, destination: {ports: [8443]}}\n";
    let egress = "  egress:\n  - {action: Allow, protocol: TCP, source: {ports: [8443]}}\n";
    let untracked = "  order: 10\n  doNotTrack: true\n  applyOnForward: true\n";
    site.policy("untracked", &format!("{untracked}{ingress}{egress}"))?;
    site.until("untracked policy opens port 8443", &site.left, TO_LEFT[0], 8443, Knock::Open)?;
    site.policy("untracked", &format!("{untracked}{ingress}"))?;
    site.until("its answers are refused", &site.left, TO_LEFT[0], 8443, Knock::Silent)?;
    site.lab.proved("untracked policy lets port 8443 in, and its answers out only where a rule says so");
    site.resources.remove("untracked.yaml")
}

/// The host translates port 8081 to 8080; policy before translation tells them apart, policy after it can't.
fn pre_dnat_policy_comes_before_translation(site: &Site<'_>) -> Result<()> {
    let host = site.router.namespace();
    let rules = [
        "add table inet theirs",
        "add chain inet theirs pre { type nat hook prerouting priority dstnat ; }",
        "add rule inet theirs pre tcp dport 8081 redirect to :8080",
    ];
    for rule in rules {
        host.run("nft", &[rule])?;
    }
    site.until("the host translates port 8081", &site.left, TO_LEFT[0], 8081, Knock::Open)?;
    site.policy(
        "early",
        "  order: 10\n  preDNAT: true\n  applyOnForward: true\n  ingress:\n  \
         - {action: Deny, protocol: TCP, destination: {ports: [8081]}}\n",
    )?;
    site.until("pre-DNAT policy closes port 8081", &site.left, TO_LEFT[0], 8081, Knock::Silent)?;
    site.knocks("that pre-DNAT policy leaves alone", &site.left, TO_LEFT, &[22, 8080], Knock::Open)?;
    site.resources.remove("early.yaml")?;
    site.until("pre-DNAT policy is gone", &site.left, TO_LEFT[0], 8081, Knock::Open)
}

fn the_endpoint_of_all_interfaces(site: &Site<'_>) -> Result<()> {
    site.resources.write("all.yaml", &host_endpoint("all", "\"*\""))?;
    site.in_force("all")?;
    site.knocks("of every other interface", &site.right, TO_RIGHT, &[22, 8080], Knock::Open)?;
    site.knocks("of every other interface", &site.right, TO_RIGHT, &[9000], Knock::Silent)?;
    site.until("the host's own loopback", site.router.namespace(), "127.0.0.1", 9000, Knock::Open)?;
    site.lab.proved("the endpoint of all interfaces leaves the loopback alone");
    Ok(())
}

/// Of what is forwarded: all but port 7001.
fn forwarded_policy(site: &Site<'_>) -> Result<()> {
    site.policy(
        "forwarded",
        "  order: 50\n  applyOnForward: true\n  types: [Ingress, Egress]\n  ingress:\n  \
         - {action: Deny, protocol: TCP, destination: {ports: [7001, 9000]}}\n  - {action: Allow}\n  egress:\n  \
         - {action: Allow}\n",
    )?;
    site.lab.wait("policy for what is forwarded", IN_FORCE, || {
        let shown: ShowHostPolicy = site.router.show("host-policy")?;
        Ok(shown.rules.iter().any(|rule| rule.name == "forwarded").then_some(()))
    })
}

/// By one uplink in and by the other out, past the kernel; and `tortie trace` says which rule it is.
fn what_the_walk_forwards_is_held_to_it(site: &Site<'_>) -> Result<()> {
    site.until("the walk drops what is forwarded to port 7001", &site.right, LEFT[0], 7001, Knock::Silent)?;
    site.knocks("forwarded by the walk", &site.right, LEFT, &[7000], Knock::Open)?;
    site.knocks("forwarded by the walk against policy", &site.right, LEFT, &[7001], Knock::Silent)?;
    let denied = || -> Result<u64> {
        Ok(site.router.show::<crate::tortie::ShowDrops>("drops")?.dropped.of("forward_denied"))
    };
    // Nothing is on its way any more when a second has changed nothing.
    let before = site.lab.wait("the count of what policy on forwarding drops", IN_FORCE, || {
        let before = denied()?;
        crate::wait::pass(Duration::from_secs(1))?;
        ensure!(before >= 3, "the walk has dropped {before} packets by policy on what is forwarded");
        Ok((denied()? == before).then_some(before))
    })?;
    let made_up = "--in eth1 --src 10.2.0.2 --dst 10.1.0.2 --proto tcp --dport";
    let asked = |arguments: String| -> Result<Traced> {
        let said = command::output(&mut site.router.trace_command(&arguments), IN_FORCE)?;
        let text = String::from_utf8_lossy(&said.stdout).into_owned();
        let traces: Traces = serde_json::from_str(&text).with_context(|| format!("{arguments}: {text}"))?;
        traces.packets.into_iter().next().with_context(|| format!("{arguments}: no packet in {text}"))
    };
    let open = asked(format!("{made_up} 7000"))?;
    ensure!(open.fate == "forward" && open.leaves_by.as_deref() == Some("eth0"), "{open:?}");
    let closed = asked(format!("{made_up} 7001"))?;
    ensure!(closed.fate == "drop" && closed.reason.as_deref() == Some("forward_denied"), "{closed:?}");
    let by = closed.policy.last().with_context(|| format!("no rule in {closed:?}"))?;
    ensure!(by.policy == "forwarded" && by.what == "ingress[0]", "{closed:?}");
    ensure!(by.text.as_deref() == Some("Deny TCP to ports 7001, 9000"), "{closed:?}");
    ensure!(denied()? == before, "what is made up is counted nowhere");
    let follow = site.router.trace_command("--live --dropped --dport 7001 --count 1");
    let mut live = site.lab.spawn("trace", follow)?;
    let server = SocketAddr::new(LEFT[0].parse()?, 7001);
    site.lab.wait("a packet that is followed", IN_FORCE, || {
        traffic::knock(site.lab, &site.right, server)?;
        Ok((!live.is_running()).then_some(()))
    })?;
    let text = live.finish(IN_FORCE)?;
    let traces: Traces = serde_json::from_str(&text).with_context(|| text.clone())?;
    let [followed] = &traces.packets[..] else { anyhow::bail!("one packet is to be followed: {text}") };
    ensure!(followed.reason.as_deref() == Some("forward_denied") && !followed.made_up, "{followed:?}");
    let captured = captured_drops(site, server)?;
    site.lab.proved(format!(
        "the walk holds what it forwards to the host endpoint's policy; `tortie trace` names {} {}, of a packet that is made \
         up and of one that passed; `tortie capture` copied the same, as tshark reads it: {captured}",
        by.policy, by.what
    ));
    Ok(())
}

/// Captures a packet that the walk drops; what tshark says of it.
fn captured_drops(site: &Site<'_>, server: SocketAddr) -> Result<String> {
    let file = site.lab.directory().join("denied.pcapng");
    let arguments = format!("--dropped forward_denied --in eth1 --dport 7001 -c 1 -w {}", file.display());
    let mut capture = site.lab.spawn("capture", site.router.capture_command(&arguments))?;
    site.lab.wait("a packet that is captured", IN_FORCE, || {
        traffic::knock(site.lab, &site.right, server)?;
        Ok((!capture.is_running()).then_some(()))
    })?;
    capture.finish(IN_FORCE)?;
    let fields = ["frame.interface_name", "ip.dst", "tcp.dstport", "tcp.flags.syn", "frame.comment"];
    let mut tshark = std::process::Command::new("tshark");
    tshark.arg("-r").arg(&file).args(["-T", "fields"]).args(fields.iter().flat_map(|field| ["-e", field]));
    let said = command::output(&mut tshark, IN_FORCE)?;
    let text = String::from_utf8_lossy(&said.stdout).trim().to_owned();
    let found: Vec<&str> = text.split('\t').collect();
    let comment = "drop: forward_denied. ";
    ensure!(
        matches!(found[..], ["eth1", to, "7001", "1" | "True", why] if to == LEFT[0] && why.starts_with(comment)),
        "tshark reads {text:?}"
    );
    Ok(text.replace('\t', " "))
}

fn host_endpoint(name: &str, interface: &str) -> String {
    format!(
        "apiVersion: projectcalico.org/v3\nkind: HostEndpoint\nmetadata: {{name: {name}, labels: {{role: host}}}}\n\
         spec: {{node: router, interfaceName: {interface}}}\n"
    )
}

impl Site<'_> {
    /// A policy of the host's interfaces, new or in place of the one of its name.
    fn policy(&self, name: &str, spec: &str) -> Result<()> {
        let text = format!(
            "apiVersion: projectcalico.org/v3\nkind: GlobalNetworkPolicy\nmetadata: {{name: {name}}}\nspec:\n  \
             selector: role == 'host'\n{spec}"
        );
        self.resources.write(&format!("{name}.yaml"), &text)
    }

    /// Waits until the endpoint is in the kernel.
    fn in_force(&self, endpoint: &str) -> Result<()> {
        self.lab.wait(&format!("host endpoint {endpoint}"), IN_FORCE, || {
            let shown: ShowHostPolicy = self.router.show("host-policy")?;
            ensure!(shown.refused.is_none(), "nft refused: {:?}", shown.refused);
            Ok(shown.endpoints.iter().any(|known| known.name == endpoint).then_some(()))
        })
    }

    /// Knocks until it sounds as it should. Silence is to be heard twice: once may be a busy machine's.
    fn until(&self, what: &str, from: &Namespace, address: &str, port: u16, expected: Knock) -> Result<()> {
        let server = SocketAddr::new(address.parse()?, port);
        let times = if expected == Knock::Silent { 2 } else { 1 };
        self.lab.wait(what, IN_FORCE, || {
            for _ in 0..times {
                if traffic::knock(self.lab, from, server)? != expected {
                    return Ok(None);
                }
            }
            Ok(Some(()))
        })
    }

    /// Knocks at each port, by both families: once where nobody may answer, and where somebody has to as long as that may take,
    /// as half a second is not much on a busy machine.
    fn knocks(
        &self,
        what: &str,
        from: &Namespace,
        addresses: [&str; 2],
        ports: &[u16],
        expected: Knock,
    ) -> Result<()> {
        for address in addresses {
            for port in ports {
                let server = SocketAddr::new(address.parse()?, *port);
                let limit = if expected == Knock::Silent { Duration::ZERO } else { IN_FORCE };
                self.lab.wait(&format!("port {port} {what}"), limit, || {
                    let knock = traffic::knock(self.lab, from, server)?;
                    ensure!(knock == expected, "{server} is {knock:?} from {}", from.name());
                    Ok(Some(()))
                })?;
            }
        }
        let ports: Vec<String> = ports.iter().map(u16::to_string).collect();
        self.lab.proved(format!(
            "{expected:?} from {}, by IPv4 and IPv6: port {} {what}",
            from.name(),
            ports.join(", ")
        ));
        Ok(())
    }
}

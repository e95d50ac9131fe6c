//! Hooks, what comes before all policy, and which packets are asked by which endpoint.

use std::collections::BTreeMap;
use std::net::IpAddr;

use model::{FailsafePort, Prefix};
use policy::resolve::Directions;
use policy::rule::Checks;

use super::super::ruleset::{About, Line, quotable};
use super::super::{HostEndpointPolicy, HostPolicy, Interface, Mark};
use super::{ACCEPTED, Class, Direction, Renderer, counted, names, says_something};
use crate::host_port::KERNEL_SIDE;

/// Set of the addresses of this node's workloads.
const WORKLOADS: &str = "workloads";
/// Set of those whose tunnel packets may come and go.
const TUNNEL_ENDS: &str = "tunnel-ends";
/// Set of the pools of workloads.
const POOLS: &str = "pools";
/// What keeps IPv6 alive on a link: multicast listeners' messages (RFC 2710, RFC 3810) and neighbour discovery (RFC 4861)
/// without redirects. Connection tracking has no state for them.
const LINK_MESSAGES: &str = "meta l4proto 58 icmpv6 type { 130, 131, 132, 133, 134, 135, 136, 143 }";
/// In names of chains, longer than any interface's name.
const EVERY: &str = "every-other-interface";
/// IFNAMSIZ less the terminating zero.
const INTERFACE_BYTES_MAX: usize = 15;

/// Which chain asks what an interface's packets.
struct Targets {
    /// By interface: `goto CHAIN`, or `accept` where an endpoint has nothing to ask.
    named: BTreeMap<String, String>,
    /// `goto CHAIN`.
    every: Option<String>,
}

/// Renders all of it; what can't be kept, and why.
pub fn all(renderer: &mut Renderer<'_>, policy: &HostPolicy) -> Vec<String> {
    let mut problems = Vec::new();
    marking(renderer, policy);
    let endpoints: Vec<&HostEndpointPolicy> =
        policy.endpoints.iter().filter(|endpoint| can_be_kept(endpoint, &mut problems)).collect();
    if endpoints.is_empty() {
        return problems;
    }
    renderer.add_nets(WORKLOADS, &policy.workloads);
    renderer.add_nets(TUNNEL_ENDS, &policy.tunnel_ends);
    for class in [Class::Untracked, Class::PreDnat, Class::Normal, Class::Forward, Class::Translated] {
        for direction in [Direction::Ingress, Direction::Egress] {
            hook(renderer, policy, &endpoints, class, direction);
        }
    }
    problems
}

/// Writes DSCPs into what leaves the cluster, as Felix does (`cali-egress-dscp`): what goes to a pool, or to the host itself,
/// keeps its own.
fn marking(renderer: &mut Renderer<'_>, policy: &HostPolicy) {
    let mut lines = Vec::new();
    for Mark { sources, dscp } in &policy.marks {
        for (header, digit, is_v4) in [("ip", 4, true), ("ip6", 6, false)] {
            let sources: Vec<String> =
                sources.iter().filter(|addr| addr.is_ipv4() == is_v4).map(IpAddr::to_string).collect();
            if !sources.is_empty() {
                let from = sources.join(", ");
                lines.push(Line::plain(format!(
                    "{header} saddr {{ {from} }} {header} daddr != @{POOLS}{digit} fib daddr type != local \
                     {header} dscp set {dscp}"
                )));
            }
        }
    }
    if !lines.is_empty() {
        renderer.add_nets(POOLS, &policy.pools);
        renderer.add(
            names::chain(&["dscp-marks"]),
            Some("postrouting priority mangle + 1"),
            About::Hook,
            lines,
        );
    }
}

fn can_be_kept(endpoint: &HostEndpointPolicy, problems: &mut Vec<String>) -> bool {
    let HostEndpointPolicy { name, interface, policy } = endpoint;
    match interface {
        Interface::Every => {
            if policy.untracked != Directions::default() {
                problems.push(format!(
                    "HostEndpoint({name}): untracked policy needs the name of an interface; that of * is left out"
                ));
            }
            true
        }
        Interface::Named(interface) => {
            // nft takes `*` for any ending.
            let is_word = !interface.contains(['*', '/', ' ']) && quotable(interface) == *interface;
            let fine = is_word && (1..=INTERFACE_BYTES_MAX).contains(&interface.len());
            if !fine {
                problems.push(format!(
                    "HostEndpoint({name}): {interface:?} can't be the name of an interface; its policy is not kept"
                ));
            }
            fine
        }
    }
}

/// What an endpoint is asked there; `None` where there is nothing of this kind.
fn checks_of(endpoint: &HostEndpointPolicy, class: Class, direction: Direction) -> Option<&Checks> {
    let policy = &endpoint.policy;
    let checks = match (class, direction) {
        (Class::Untracked, _) if endpoint.interface == Interface::Every => &None,
        (Class::Untracked, Direction::Ingress) => &policy.untracked.ingress,
        (Class::Untracked, Direction::Egress) => &policy.untracked.egress,
        (Class::PreDnat, Direction::Ingress) => &policy.pre_dnat,
        (Class::Forward, Direction::Ingress) => &policy.forward.ingress,
        (Class::Forward, Direction::Egress) => &policy.forward.egress,
        (Class::Normal, Direction::Ingress) => &policy.normal.ingress,
        (Class::Normal | Class::Translated, Direction::Egress) => &policy.normal.egress,
        (Class::PreDnat, Direction::Egress) | (Class::Translated, Direction::Ingress) => &None,
    };
    checks.as_deref().filter(|checks| says_something(checks))
}

/// Is there policy that marks what it allows?
fn marks(endpoints: &[&HostEndpointPolicy]) -> bool {
    endpoints.iter().any(|endpoint| {
        [
            (Class::Untracked, Direction::Ingress),
            (Class::Untracked, Direction::Egress),
            (Class::PreDnat, Direction::Ingress),
        ]
        .into_iter()
        .any(|(class, direction)| checks_of(endpoint, class, direction).is_some())
    })
}

/// The chain of one hook with all that it leads to; nothing where no endpoint has anything to ask there.
fn hook(
    renderer: &mut Renderer<'_>,
    policy: &HostPolicy,
    endpoints: &[&HostEndpointPolicy],
    class: Class,
    direction: Direction,
) {
    let targets = targets(renderer, endpoints, class, direction);
    let marks = marks(endpoints);
    let clears = marks && class == Class::Untracked;
    if targets.named.is_empty() && targets.every.is_none() && !clears {
        return;
    }
    let mut lines = Vec::new();
    if clears {
        lines.push(Line::plain(format!("meta mark set meta mark & {:#x}", !ACCEPTED)));
    } else if marks {
        lines.push(Line::plain(format!("meta mark & {ACCEPTED:#x} == {ACCEPTED:#x} accept")));
    }
    match (class, direction) {
        // Which interface it leaves by isn't known before it is translated: asked again after routing.
        (Class::Normal, Direction::Egress) => {
            lines.push(Line::plain("ct status & dnat == dnat accept"));
            lines.extend(
                to_or_from_workloads(direction)
                    .map(|matches| Line::plain(format!("oifname \"{KERNEL_SIDE}\" {matches} accept"))),
            );
        }
        (Class::Translated, _) => {
            lines.push(Line::plain("ct status & dnat == 0 accept"));
            lines.push(Line::plain("fib saddr type != local accept"));
            lines.extend(
                to_or_from_workloads(direction)
                    .map(|matches| Line::plain(format!("oifname \"{KERNEL_SIDE}\" {matches} accept"))),
            );
        }
        (Class::Untracked | Class::PreDnat | Class::Normal, Direction::Ingress) => {
            let chain = host_port(renderer, &targets, class);
            lines.push(Line::plain(format!("iifname \"{KERNEL_SIDE}\" goto {chain}")));
        }
        _ => {}
    }
    let key = match direction {
        Direction::Ingress => "iifname",
        Direction::Egress => "oifname",
    };
    if let Some(prefix) = policy.served.as_ref().filter(|_| class == Class::Normal) {
        lines.push(Line::plain(format!("{key} \"{prefix}*\" accept")));
    }
    lines.extend(targets.lines(key, &format!("{key} != \"lo\" ")));
    renderer.add(
        names::chain(&[class.name(), direction.word()]),
        Some(hook_of(class, direction)),
        About::Hook,
        lines,
    );
}

fn hook_of(class: Class, direction: Direction) -> &'static str {
    match (class, direction) {
        (Class::Untracked, Direction::Ingress) => "prerouting priority raw",
        (Class::Untracked, Direction::Egress) => "output priority raw",
        (Class::PreDnat, _) => "prerouting priority mangle",
        (Class::Normal, Direction::Ingress) => "input priority filter",
        (Class::Normal, Direction::Egress) => "output priority filter",
        (Class::Translated, _) => "postrouting priority mangle",
        // Both ends are asked: what the first accepts still comes to the second.
        (Class::Forward, Direction::Ingress) => "forward priority filter",
        (Class::Forward, Direction::Egress) => "forward priority filter + 1",
    }
}

fn to_or_from_workloads(direction: Direction) -> impl Iterator<Item = String> {
    let field = match direction {
        Direction::Ingress => "saddr",
        Direction::Egress => "daddr",
    };
    [("ip", 4), ("ip6", 6)]
        .into_iter()
        .map(move |(header, digit)| format!("{header} {field} @{WORKLOADS}{digit}"))
}

/// Where packets go that come by the host port: see [`crate::host_policy`].
fn host_port(renderer: &mut Renderer<'_>, targets: &Targets, class: Class) -> String {
    let name = names::chain(&["host-port", class.name()]);
    let mut lines = Vec::new();
    if class == Class::Normal {
        let judged = to_or_from_workloads(Direction::Ingress);
        lines.extend(judged.map(|matches| Line::plain(format!("{matches} accept"))));
    }
    lines.extend(targets.lines("fib saddr oifname", ""));
    renderer.add(name.clone(), None, About::Hook, lines);
    name
}

impl Targets {
    fn lines(&self, key: &str, every_guard: &str) -> Vec<Line> {
        let mut lines = Vec::new();
        if !self.named.is_empty() {
            let map: Vec<String> = self
                .named
                .iter()
                .map(|(interface, verdict)| format!("\"{interface}\" : {verdict}"))
                .collect();
            lines.push(Line::plain(format!("{key} vmap {{ {} }}", map.join(", "))));
        }
        lines.extend(self.every.iter().map(|verdict| Line::plain(format!("{every_guard}{verdict}"))));
        lines
    }
}

fn targets(
    renderer: &mut Renderer<'_>,
    endpoints: &[&HostEndpointPolicy],
    class: Class,
    direction: Direction,
) -> Targets {
    let mut targets = Targets { named: BTreeMap::new(), every: None };
    let asking =
        |endpoint: &&&HostEndpointPolicy| checks_of(endpoint, class, direction).is_some_and(says_something);
    if !endpoints.iter().any(|endpoint| asking(&endpoint)) {
        return targets;
    }
    let before = before(renderer, class, direction);
    for endpoint in endpoints {
        let Some(checks) = checks_of(endpoint, class, direction) else {
            // It has nothing to ask, and still keeps the endpoint of every other interface away.
            if let Interface::Named(interface) = &endpoint.interface {
                targets.named.insert(interface.clone(), "accept".to_owned());
            }
            continue;
        };
        let mut lines = vec![Line::plain(format!("jump {before}"))];
        lines.extend(renderer.checks(checks, class, direction));
        let (shown, word) = match &endpoint.interface {
            Interface::Named(interface) => (interface.as_str(), interface.as_str()),
            Interface::Every => ("*", EVERY),
        };
        let chain = names::chain(&[class.name(), direction.word(), word]);
        let about = About::Endpoint {
            name: endpoint.name.clone(),
            interface: shown.to_owned(),
            class: class.name(),
            direction: direction.name(),
        };
        renderer.add(chain.clone(), None, about, lines);
        match &endpoint.interface {
            Interface::Named(interface) => {
                drop(targets.named.insert(interface.clone(), format!("goto {chain}")))
            }
            Interface::Every => targets.every = Some(format!("goto {chain}")),
        }
    }
    targets
}

/// The chain of what no policy may close, and of what conntrack says; its name. It comes first in every endpoint's.
fn before(renderer: &mut Renderer<'_>, class: Class, direction: Direction) -> String {
    let settings = renderer.settings;
    let mut lines = Vec::new();
    if class != Class::Untracked {
        lines.push(counted("ct state established,related", "accept", "established", "allow"));
    }
    if class != Class::Forward {
        let (own, others) = match direction {
            Direction::Ingress => (&settings.failsafe_inbound, &settings.failsafe_outbound),
            Direction::Egress => (&settings.failsafe_outbound, &settings.failsafe_inbound),
        };
        lines.extend(failsafe(own, "dport", "failsafe", direction));
        if class == Class::Untracked {
            // Without connections, the answers of the other direction's ports need rules of their own.
            lines.extend(failsafe(others, "sport", "answers of failsafe", direction));
        }
        lines.push(counted(LINK_MESSAGES, "accept", "neighbour discovery", "allow"));
        lines.extend(tunnels(renderer, direction));
    }
    if class != Class::Untracked && !settings.invalid_allowed {
        lines.push(counted("ct state invalid", "drop", "invalid", "deny"));
    }
    let name = names::chain(&["before", class.name(), direction.word()]);
    renderer.add(
        name.clone(),
        None,
        About::Before { class: class.name(), direction: direction.name() },
        lines,
    );
    name
}

fn failsafe(ports: &[FailsafePort], side: &str, what: &str, direction: Direction) -> Vec<Line> {
    let address = match direction {
        Direction::Ingress => "saddr",
        Direction::Egress => "daddr",
    };
    let mut by_net: BTreeMap<Option<Prefix>, Vec<FailsafePort>> = BTreeMap::new();
    for port in ports {
        by_net.entry(port.net).or_default().push(*port);
    }
    let line = |(net, mut ports): (Option<Prefix>, Vec<FailsafePort>)| {
        ports.sort_unstable();
        ports.dedup();
        let from = match net {
            None => String::new(),
            Some(net) if net.addr().is_ipv4() => format!("ip {address} {net} "),
            Some(net) => format!("ip6 {address} {net} "),
        };
        let list: Vec<String> =
            ports.iter().map(|port| format!("{} . {}", port.protocol.0, port.port)).collect();
        let matches = format!("{from}meta l4proto . th {side} {{ {} }}", list.join(", "));
        let what = net.map_or_else(|| what.to_owned(), |net| format!("{what} {net}"));
        counted(&matches, "accept", &what, "allow")
    };
    by_net.into_iter().map(line).collect()
}

fn tunnels(renderer: &Renderer<'_>, direction: Direction) -> Vec<Line> {
    let field = match direction {
        Direction::Ingress => "saddr",
        Direction::Egress => "daddr",
    };
    let settings = renderer.settings;
    let mut lines = Vec::new();
    if settings.tunnels.ipip {
        let matches = format!("ip {field} @{TUNNEL_ENDS}4 meta l4proto 4");
        lines.push(counted(&matches, "accept", "tunnels", "allow"));
    }
    if !settings.tunnels.vxlan_ports.is_empty() {
        let ports: Vec<String> = settings.tunnels.vxlan_ports.iter().map(u16::to_string).collect();
        for (header, digit) in [("ip", 4), ("ip6", 6)] {
            let matches =
                format!("{header} {field} @{TUNNEL_ENDS}{digit} udp dport {{ {} }}", ports.join(", "));
            lines.push(counted(&matches, "accept", "tunnels", "allow"));
        }
    }
    lines
}

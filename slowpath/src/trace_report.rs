//! What the walk has found of packets, put into an operator's words: names of ports, endpoints, routes and rules.

use std::fmt::Write as _;
use std::net::IpAddr;

use model::{PortId, PortKind, Protocol, ReversePath};
use packet::{FlowKey, Fragment};
use tables::{
    Answer, Decided, Direction, Fate, FlowSeen, Headers, HopState, Judged, Left, RouteTaken, Stage, State,
    Trace,
};

use crate::event_loop::Core;
use crate::policy_counts::{self, what};
use crate::policy_log;
use crate::status::{TracedHeaders, TracedPacket, TracedPolicy, TracedRoute, TracedStage, TracesStatus};

/// TCP's flags, from the lowest bit.
const TCP_FLAGS: [&str; 8] = ["FIN", "SYN", "RST", "PSH", "ACK", "URG", "ECE", "CWR"];

impl Core {
    /// Puts what was found into words.
    pub(crate) fn traces(&mut self, traces: &[Trace]) -> TracesStatus {
        TracesStatus {
            packets: traces.iter().map(|trace| self.trace(trace)).collect(),
            ..TracesStatus::default()
        }
    }

    fn trace(&mut self, trace: &Trace) -> TracedPacket {
        let state = self.installer.writer().staged().clone();
        let route = trace.route.map(|route| self.traced_route(trace, &route, &state));
        let policy = self.traced_policy(trace, &state);
        let (fate, reason, leaves_by) = match trace.fate {
            Fate::Forward(port) => ("forward", None, Some(port_name(&state, port))),
            Fate::Fragment(port) => ("fragment", None, Some(port_name(&state, port))),
            Fate::Punt(reason) => ("punt", Some(reason.as_str()), None),
            Fate::Drop(reason) => ("drop", Some(reason.as_str()), None),
            Fate::Undecided => ("undecided", None, None),
        };
        let ingress = trace.ingress.and_then(|port| state.ports.get(port));
        TracedPacket {
            made_up: trace.worker.is_none(),
            time: humantime::format_rfc3339_micros(trace.at).to_string(),
            worker: trace.worker.map(|worker| worker.0),
            port: trace.ingress.map(|port| port_name(&state, port)),
            endpoint: ingress.and_then(|port| port.endpoint.as_ref()).map(|endpoint| endpoint.name.clone()),
            frame_bytes: trace.frame_len,
            packet: trace.came.as_ref().map(headers),
            inside: trace.inside.as_ref().map(headers),
            stages: stages(trace, &state, route.as_ref(), &policy),
            route,
            policy,
            fate: fate.to_owned(),
            reason: reason.map(str::to_owned),
            leaves_by,
        }
    }

    fn traced_route(&self, trace: &Trace, route: &RouteTaken, state: &State) -> TracedRoute {
        let came = trace.inside.or(trace.came).map(|headers| headers.key);
        let destination = trace.before_route.or(came).map(|key| key.destination());
        let covering = destination.and_then(|addr| self.rib.covering(addr, |_, _| true));
        let leads_on = route.adjacency.is_some();
        TracedRoute {
            prefix: covering.as_ref().map(|(prefix, _)| prefix.to_string()),
            source: covering.map(|(_, offer)| offer.source.as_str().to_owned()),
            next_hops: route.members,
            next_hop: route.member,
            via: route.neighbor,
            port: leads_on.then(|| port_name(state, route.hop.port)),
        }
    }

    fn traced_policy(&mut self, trace: &Trace, state: &State) -> Vec<TracedPolicy> {
        let mut said = Vec::new();
        for answer in trace.answers.iter().flatten() {
            let Answer { port, is_ingress, judged, rule, is_recalled, .. } = *answer;
            let staged = judged != Judged::Enforced;
            let decided = Decided { rule, port, is_ingress, judged };
            let endpoint = policy_counts::endpoint_of(self.installer.writer(), decided).map(str::to_owned);
            let Some(name) = policy_log::name(self.installer.writer(), rule) else { continue };
            said.push(TracedPolicy {
                endpoint: endpoint.unwrap_or_else(|| port_name(state, port)),
                direction: if is_ingress { "ingress" } else { "egress" }.to_owned(),
                staged,
                text: self.rule_text(&name, is_ingress, staged),
                what: what(&name, is_ingress),
                tier: name.tier,
                policy: name.policy,
                action: name.action,
                recalled: is_recalled,
            });
        }
        said
    }
}

fn port_name(state: &State, port: PortId) -> String {
    state.ports.get(port).map_or_else(|| format!("port {}", port.0), |port| port.name.clone())
}

fn headers(headers: &Headers) -> TracedHeaders {
    let Headers { key, ttl, dscp, len, tcp_flags, icmp, fragment } = headers;
    let has_ports = Protocol(key.protocol).has_ports() && *fragment != Fragment::Later;
    let flags = (0..8).filter(|bit| tcp_flags >> bit & 1 != 0).map(|bit| TCP_FLAGS[bit]);
    TracedHeaders {
        source: key.source(),
        destination: key.destination(),
        protocol: Protocol(key.protocol).to_string(),
        source_port: has_ports.then_some(key.sport),
        destination_port: has_ports.then_some(key.dport),
        icmp_type: icmp.map(|(icmp_type, _)| icmp_type),
        icmp_code: icmp.map(|(_, code)| code),
        tcp_flags: (Protocol(key.protocol) == Protocol::TCP && has_ports)
            .then(|| flags.collect::<Vec<_>>().join(",")),
        ttl: *ttl,
        dscp: *dscp,
        bytes: *len,
        fragment: match fragment {
            Fragment::Whole => None,
            Fragment::First => Some("first".to_owned()),
            Fragment::Later => Some("later".to_owned()),
        },
    }
}

/// `TCP 10.65.0.2:4000 -> 10.65.1.2:80 SYN, ttl 64, 40 bytes`.
fn headers_text(is: &Headers) -> String {
    let TracedHeaders { protocol, ttl, dscp, bytes, tcp_flags, fragment, icmp_type, icmp_code, .. } =
        headers(is);
    let mut text = format!("{protocol} {}", key_text(&is.key, is.fragment));
    tcp_flags.iter().filter(|flags| !flags.is_empty()).for_each(|flags| text.push_str(&format!(" {flags}")));
    if let (Some(icmp_type), Some(code)) = (icmp_type, icmp_code) {
        text.push_str(&format!(" type {icmp_type} code {code}"));
    }
    text.push_str(&format!(", ttl {ttl}, {bytes} bytes"));
    if dscp != 0 {
        text.push_str(&format!(", dscp {dscp}"));
    }
    fragment.iter().for_each(|fragment| text.push_str(&format!(", {fragment} fragment")));
    text
}

fn key_text(key: &FlowKey, fragment: Fragment) -> String {
    let end = |addr: IpAddr, port: u16| {
        if !Protocol(key.protocol).has_ports() || fragment == Fragment::Later {
            return addr.to_string();
        }
        match addr {
            IpAddr::V4(addr) => format!("{addr}:{port}"),
            IpAddr::V6(addr) => format!("[{addr}]:{port}"),
        }
    };
    format!("{} -> {}", end(key.source(), key.sport), end(key.destination(), key.dport))
}

/// What each stage found, in the order of the walk; the last one ends it.
fn stages(
    trace: &Trace,
    state: &State,
    route: Option<&TracedRoute>,
    policy: &[TracedPolicy],
) -> Vec<TracedStage> {
    let mut told = Vec::new();
    let mut tell = |stage: Stage, found: String| {
        told.push(TracedStage { stage: stage.as_str().to_owned(), found });
    };
    let ingress = trace.ingress.and_then(|port| state.ports.get(port));
    let Some(came) = &trace.came else {
        return vec![TracedStage { stage: trace.ended.as_str().to_owned(), found: fate(trace, state) }];
    };
    tell(Stage::Parse, headers_text(came));
    let passed = |stage: Stage| trace.ended > stage;
    if passed(Stage::Admit) {
        let kind =
            ingress.map_or_else(|| "the slow path".to_owned(), |port| format!("{} {}", port.kind, port.name));
        tell(Stage::Admit, format!("for this router, by {kind}"));
    }
    if let Some(inside) = &trace.inside {
        tell(Stage::Decapsulate, format!("a tunnel ends here; inside is {}", headers_text(inside)));
    }
    let seen = trace.inside.as_ref().unwrap_or(came).key;
    if let Some(endpoint) =
        ingress.and_then(|port| port.endpoint.as_ref()).filter(|_| passed(Stage::WorkloadSend))
    {
        tell(Stage::WorkloadSend, format!("{} may send from {}", endpoint.name, seen.source()));
    }
    let is_uplink = ingress.is_some_and(|port| port.kind == PortKind::Uplink);
    if is_uplink && trace.reverse_path != ReversePath::Disabled && passed(Stage::ReversePath) {
        let how = format!("{:?}", trace.reverse_path).to_lowercase();
        tell(Stage::ReversePath, format!("a route leads back to {} ({how})", seen.source()));
    }
    if passed(Stage::ReversePath) {
        tell(Stage::Nat, flow(trace));
    }
    if let Some(becomes) = &trace.before_route {
        tell(Stage::Nat, format!("becomes {}", key_text(becomes, came.fragment)));
    }
    if let (Some(taken), Some(route)) = (&trace.route, route) {
        tell(Stage::Route, route_text(taken, route, state));
    }
    if trace.policy_asks && policy.is_empty() && passed(Stage::Policy) {
        tell(Stage::Policy, "nobody at its ends is asked".to_owned());
    }
    for policy in policy {
        tell(Stage::Policy, policy_text(policy));
    }
    if let Some(becomes) = &trace.after_route {
        tell(Stage::Nat, format!("leaves as {}", key_text(becomes, came.fragment)));
    }
    if let Some(left) = &trace.left {
        tell(Stage::Rewrite, left_text(left));
    }
    tell(trace.ended, fate(trace, state));
    told
}

fn flow(trace: &Trace) -> String {
    match trace.flow {
        FlowSeen::NotAsked | FlowSeen::Unknown => "no flow is known".to_owned(),
        FlowSeen::Known { direction, judged, translated } => {
            let way = match direction {
                Direction::Original => "of a known flow",
                Direction::Reply => "an answer of a known flow",
            };
            let translated = if translated { ", which is translated" } else { "" };
            let judged = match (trace.policy_asks, judged) {
                (false, _) => "",
                (true, true) => "; policy has let it pass",
                (true, false) => "; policy has changed, or has not been asked: it is asked again",
            };
            format!("{way}{translated}{judged}")
        }
    }
}

fn route_text(taken: &RouteTaken, route: &TracedRoute, state: &State) -> String {
    let mut text = match (&route.prefix, &route.source) {
        (Some(prefix), Some(source)) => format!("{prefix} of {source}"),
        _ => "no route".to_owned(),
    };
    if let Some(port) = &route.port {
        let kind = if taken.hop.to_host { " to this host".to_owned() } else { String::new() };
        let _ = write!(text, "{kind} by {port}");
    }
    if let Some(via) = route.via.filter(|_| !taken.hop.to_host) {
        let _ = write!(text, " via {via}");
    }
    if route.next_hops > 1 {
        let _ = write!(text, ", next hop {} of {} by the flow's hash", route.next_hop, route.next_hops);
    }
    let adjacency = taken.adjacency.and_then(|id| state.adjacency(id));
    if let Some(template) = adjacency.and_then(|adjacency| adjacency.encapsulation.as_ref()) {
        text.push_str(if template.is_vxlan() { ", by vxlan" } else { ", by ipip" });
    }
    if taken.hop.state == HopState::Unresolved {
        text.push_str(", whose MAC address isn't known yet");
    }
    text
}

fn policy_text(said: &TracedPolicy) -> String {
    let TracedPolicy { endpoint, direction, staged, tier, policy, what, action, text, recalled } = said;
    let mut line = format!("{direction} of {endpoint}: {action} by tier {tier}");
    if !policy.is_empty() {
        let _ = write!(line, ", policy {policy}");
    }
    let _ = write!(line, ", {what}");
    if let Some(text) = text {
        let _ = write!(line, ": {text}");
    }
    line.push_str(match (staged, recalled) {
        (true, _) => " (if staged policies were enforced)",
        (false, true) => " (not asked of this packet: its flow has been let pass)",
        (false, false) => "",
    });
    line
}

fn left_text(left: &Left) -> String {
    let Left { destination, source, headers, in_tunnel, vni, frame_len } = left;
    let mut text = format!("{source} -> {destination}");
    match (in_tunnel, vni) {
        (true, Some(vni)) => {
            let _ = write!(text, ", in vxlan vni {vni} {}", key_text(&headers.key, headers.fragment));
        }
        (true, None) => {
            let _ = write!(text, ", in ipip {}", key_text(&headers.key, headers.fragment));
        }
        (false, _) => {}
    }
    let _ = write!(text, ", ttl {}, {frame_len} bytes", headers.ttl);
    if headers.dscp != 0 {
        let _ = write!(text, ", dscp {}", headers.dscp);
    }
    text
}

fn fate(trace: &Trace, state: &State) -> String {
    match trace.fate {
        Fate::Forward(port) => format!("forward by {}", port_name(state, port)),
        Fate::Fragment(port) => format!("forward in fragments by {}", port_name(state, port)),
        Fate::Punt(reason) => format!("to the slow path: {reason}: {}", reason.help()),
        Fate::Drop(reason) => format!("drop: {reason}: {}", reason.help()),
        Fate::Undecided => "undecided".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::{Family, IfIndex, MacAddr, WorkerId};
    use tables::{DropReason, Endpoint, Limits, PolicyLimits, Port, Writer};

    fn state() -> State {
        let mut writer = Writer::new(Limits {
            ports: 4,
            adjacencies: 1,
            groups: 1,
            routes_v4: 1,
            routes_v6: 1,
            policy: PolicyLimits::NONE,
            readers: 1,
        });
        let endpoint = Endpoint { name: "shop/web".to_owned(), addresses: Vec::new(), qos: None };
        let port = Port {
            id: PortId(1),
            name: "cali1".to_owned(),
            ifindex: IfIndex(1),
            kind: PortKind::Workload,
            mac: MacAddr([2, 0, 0, 0, 0, 1]),
            mtu: 1500,
            up: true,
            queues: 1,
            endpoint: Some(endpoint),
        };
        writer.put_port(port).unwrap();
        writer.staged().clone()
    }

    fn trace() -> Trace {
        let key = FlowKey {
            src: 0x0a41_0002,
            dst: 0x0a41_0107,
            sport: 4000,
            dport: 443,
            protocol: 6,
            family: Family::V4,
        };
        let came = Headers {
            key,
            ttl: 64,
            dscp: 46,
            len: 40,
            tcp_flags: 0x12,
            icmp: None,
            fragment: Fragment::Whole,
        };
        Trace { came: Some(came), ..Trace::begun(Some(WorkerId(0)), Some(PortId(1)), 60) }
    }

    fn told(trace: &Trace, policy: &[TracedPolicy]) -> Vec<String> {
        let stages = stages(trace, &state(), None, policy);
        stages.into_iter().map(|stage| format!("{}: {}", stage.stage, stage.found)).collect()
    }

    #[test]
    fn what_ends_early_is_told_as_far_as_it_came() {
        let broken = Trace {
            came: None,
            ended: Stage::Parse,
            fate: Fate::Drop(DropReason::Ipv4BadChecksum),
            ..trace()
        };
        assert_eq!(
            told(&broken, &[]),
            ["parse: drop: ipv4_bad_checksum: The IPv4 header checksum is wrong."]
        );
        let spoofed =
            Trace { ended: Stage::WorkloadSend, fate: Fate::Drop(DropReason::SpoofedSource), ..trace() };
        let told = told(&spoofed, &[]);
        assert_eq!(told[0], "parse: TCP 10.65.0.2:4000 -> 10.65.1.7:443 SYN,ACK, ttl 64, 40 bytes, dscp 46");
        assert_eq!(told[1], "admit: for this router, by workload cali1");
        assert!(told[2].starts_with("workload_send: drop: spoofed_source: "), "{told:?}");
        assert_eq!(told.len(), 3);
    }

    #[test]
    fn the_rule_that_decides_stands_in_the_way() {
        let said = TracedPolicy {
            endpoint: "shop/web".to_owned(),
            direction: "egress".to_owned(),
            tier: "default".to_owned(),
            policy: "shop/out".to_owned(),
            what: "egress[1]".to_owned(),
            action: "deny".to_owned(),
            text: Some("Deny TCP to ports 443".to_owned()),
            ..TracedPolicy::default()
        };
        let denied = Trace {
            flow: FlowSeen::Unknown,
            policy_asks: true,
            ended: Stage::Policy,
            fate: Fate::Drop(DropReason::EgressDenied),
            ..trace()
        };
        let told = told(&denied, &[said]);
        assert!(told.contains(&"nat: no flow is known".to_owned()), "{told:?}");
        let rule = "policy: egress of shop/web: deny by tier default, policy shop/out, egress[1]: Deny TCP to ports 443";
        assert_eq!(told[told.len() - 2], rule);
        assert!(told[told.len() - 1].starts_with("policy: drop: egress_denied"), "{told:?}");
    }
}

//! Policies for a router in memory, and packets that they are about.

use std::net::IpAddr;
use std::sync::Arc;

use model::{PortId, QosControls, QosDirection};
use packet::{FlowKey, checksum, ethernet, icmp, ipv4, ipv6, protocol, tcp};
use policy::rule::{Action, AfterTiers, Checks, EndMatch, Policy, PortRange, Rule, Tier, TierDefault};
use tables::{
    DropReason, Endpoint, EndpointPolicy, FlowRules, MetadataServer, NatRules, Port, PuntReason, Qos,
};

use super::{Build, Rig, STRANGER, WORKLOAD, mac, neighbor_mac, prefix};

/// TCP's flags.
pub const SYN: u8 = 0x02;
pub const ACK: u8 = 0x10;
pub const FIN: u8 = 0x01;
pub const RST: u8 = 0x04;

/// TCP.
pub const TCP: u8 = protocol::TCP;

/// A workload on another node.
pub const REMOTE: &str = "10.65.1.2";

/// The address of a second workload, behind what is the stranger's port else.
pub const NEIGHBOR: &str = "10.70.0.1";

/// No policy and no profile.
pub fn deny() -> Arc<Checks> {
    Arc::new(Checks { tiers: vec![], after: AfterTiers::Profiles(vec![]) })
}

/// A profile that allows everything.
pub fn allow() -> Arc<Checks> {
    let profile = Policy { name: "allow".to_owned(), rules: vec![Rule::any(Action::Allow)] };
    Arc::new(Checks { tiers: vec![], after: AfterTiers::Profiles(vec![Arc::new(profile)]) })
}

/// One policy with these rules, and nothing else passes.
pub fn rules(rules: Vec<Rule>) -> Arc<Checks> {
    let policy = Policy { name: "default/only".to_owned(), rules };
    let tier =
        Tier { name: "default".to_owned(), policies: vec![Arc::new(policy)], default: TierDefault::Deny };
    Arc::new(Checks { tiers: vec![tier], after: AfterTiers::Profiles(vec![]) })
}

/// To a port of a protocol.
pub fn to_port(action: Action, protocol: u8, port: u16) -> Rule {
    let ports = vec![PortRange { first: port, last: port }];
    Rule {
        protocol: Some(protocol),
        destination: EndMatch { ports, ..EndMatch::default() },
        ..Rule::any(action)
    }
}

/// From one network to another.
pub fn between(action: Action, from: &str, to: &str) -> Rule {
    let end = |net: &str| EndMatch { nets: vec![prefix(net)], ..EndMatch::default() };
    Rule { source: end(from), destination: end(to), ..Rule::any(action) }
}

/// Gives the workload these policies.
pub fn police(rig: &mut Rig, ingress: Option<Arc<Checks>>, egress: Option<Arc<Checks>>) {
    police_endpoint(rig, "default/pod", ingress, egress);
}

/// Gives an endpoint these policies.
pub fn police_endpoint(
    rig: &mut Rig,
    endpoint: &str,
    ingress: Option<Arc<Checks>>,
    egress: Option<Arc<Checks>>,
) {
    let policy = EndpointPolicy { ingress, egress, ..EndpointPolicy::default() };
    rig.writer.put_policy(endpoint, &policy).unwrap();
    rig.publish();
}

/// Policy on what is forwarded by a host endpoint's port.
pub fn forward(ingress: Option<Arc<Checks>>, egress: Option<Arc<Checks>>) -> EndpointPolicy {
    EndpointPolicy { ingress, egress, ..EndpointPolicy::default() }
}

/// Makes a port a host endpoint's with this policy.
pub fn police_host(rig: &mut Rig, port: PortId, policy: EndpointPolicy) {
    let name = format!("host {port}");
    let mut host_endpoints = rig.writer.staged().policy.host_endpoints().clone();
    host_endpoints.named.insert(super::port(port).name, name.clone());
    rig.writer.put_policy(&name, &policy).unwrap();
    rig.writer.set_host_endpoints(host_endpoints);
    rig.publish();
}

/// Makes all ports that are no host endpoint's one that is of every interface.
pub fn police_every_port(rig: &mut Rig, policy: EndpointPolicy) {
    let mut host_endpoints = rig.writer.staged().policy.host_endpoints().clone();
    host_endpoints.every = Some("host *".to_owned());
    rig.writer.put_policy("host *", &policy).unwrap();
    rig.writer.set_host_endpoints(host_endpoints);
    rig.publish();
}

/// Rules that have no opinion of what they don't match, as untracked and pre-DNAT policy.
pub fn opinion(rules: Vec<Rule>) -> Arc<Checks> {
    let policy = Policy { name: "opinion".to_owned(), rules };
    let tier =
        Tier { name: "default".to_owned(), policies: vec![Arc::new(policy)], default: TierDefault::Pass };
    Arc::new(Checks { tiers: vec![tier], after: AfterTiers::NoMatch })
}

/// A second workload, [`NEIGHBOR`], with these policies.
pub fn neighbor(rig: &mut Rig, ingress: Option<Arc<Checks>>, egress: Option<Arc<Checks>>) {
    let endpoint =
        Endpoint { name: "default/other".to_owned(), addresses: vec![prefix("10.70.0.1/32")], qos: None };
    rig.writer.put_port(Port { endpoint: Some(endpoint), ..super::port(STRANGER) }).unwrap();
    police_endpoint(rig, "default/other", ingress, egress);
}

/// A rig whose workload has these policies.
pub fn policed(ingress: Option<Arc<Checks>>, egress: Option<Arc<Checks>>) -> Rig {
    let mut rig = Rig::new();
    police(&mut rig, ingress, egress);
    rig
}

/// Clients reach port 80; the workload itself reaches nobody.
pub fn server() -> Rig {
    policed(Some(rules(vec![to_port(Action::Allow, TCP, 80)])), Some(deny()))
}

/// The workload reaches everybody; nobody reaches it.
pub fn client() -> Rig {
    policed(Some(deny()), Some(allow()))
}

/// It is forwarded.
#[track_caller]
pub fn passes(rig: &mut Rig, by: PortId, frame: &[u8]) {
    let moved = rig.send(by, frame);
    assert_eq!((moved.forwarded(), moved.drops()), (1, vec![]), "{moved:?}");
}

/// It is dropped, for this reason.
#[track_caller]
pub fn is_dropped(rig: &mut Rig, by: PortId, frame: &[u8], reason: DropReason) {
    let moved = rig.send(by, frame);
    assert_eq!(moved.drops(), [(reason.as_str(), 1)], "{moved:?}");
}

/// It goes up as it came, so that its sender can be told.
#[track_caller]
pub fn is_refused(rig: &mut Rig, by: PortId, frame: &[u8], reason: PuntReason) {
    let moved = rig.send(by, frame);
    assert_eq!((moved.punts(), moved.drops()), (vec![(reason.as_str(), 1)], vec![]));
    let bytes = rig.punts.pop(|_, bytes| bytes.to_vec());
    assert_eq!(bytes.as_deref(), Some(frame));
}

/// How many flows are remembered.
pub fn in_use(rig: &Rig) -> usize {
    rig.flows.counts().in_use
}

/// [`policed`], with the addresses that [`super::translation::rules`] translates.
pub fn translating(ingress: Arc<Checks>, egress: Arc<Checks>) -> Rig {
    let mut rig = policed(Some(ingress), Some(egress));
    rig.writer.set_nat(tables::Nat::new(&super::translation::rules()));
    rig.publish();
    rig
}

/// The node takes nothing from workloads.
pub fn drop_to_host(rig: &mut Rig) {
    rig.writer.set_flow_rules(FlowRules { drops_to_host: true, ..FlowRules::default() });
    rig.publish();
}

/// Senders are told of what policy denies.
pub fn tell_denied(rig: &mut Rig) {
    rig.writer.set_flow_rules(FlowRules { tells_denied: true, ..FlowRules::default() });
    rig.publish();
}

/// [`drop_to_host`], but for what OpenStack's instances have from their host.
pub fn drop_to_host_but_dhcp_and_dns(rig: &mut Rig) {
    let rules = FlowRules { drops_to_host: true, passes_dhcp_and_dns: true, ..FlowRules::default() };
    rig.writer.set_flow_rules(rules);
    rig.publish();
}

/// OpenStack's metadata are served there, at port 8775.
pub fn serve_metadata(rig: &mut Rig, addr: &str) {
    let metadata = Some(MetadataServer { addr: addr.parse().unwrap(), port: 8775 });
    rig.writer.set_nat(tables::Nat::new(&NatRules { metadata, ..NatRules::default() }));
    rig.publish();
}

/// The workload may have so many connections: from it, and to it.
pub fn limit_connections(rig: &mut Rig, egress: Option<u64>, ingress: Option<u64>) {
    let limit = |max_connections| QosDirection { max_connections, ..QosDirection::default() };
    let controls = QosControls { ingress: limit(ingress), egress: limit(egress), dscp: None };
    let mut port = super::port(WORKLOAD);
    port.endpoint.as_mut().unwrap().qos = Qos::new(&controls, 1500, None);
    rig.writer.put_port(port).unwrap();
    rig.publish();
}

/// A packet of one flow, and those that answer it.
#[derive(Clone)]
pub struct Talk {
    pub src: IpAddr,
    pub dst: IpAddr,
    pub sport: u16,
    pub dport: u16,
}

impl Talk {
    pub fn new(src: &str, dst: &str) -> Talk {
        Talk { src: src.parse().unwrap(), dst: dst.parse().unwrap(), sport: 4000, dport: 80 }
    }

    pub fn ports(self, sport: u16, dport: u16) -> Talk {
        Talk { sport, dport, ..self }
    }

    pub fn answer(&self) -> Talk {
        Talk { src: self.dst, dst: self.src, sport: self.dport, dport: self.sport }
    }

    /// UDP.
    pub fn udp(&self, by: PortId) -> Vec<u8> {
        let (src, dst) = (self.src.to_string(), self.dst.to_string());
        Build::packet(by, &src, &dst).sport(self.sport).dport(self.dport).frame()
    }

    /// TCP with these flags.
    pub fn tcp(&self, by: PortId, flags: u8) -> Vec<u8> {
        let Talk { src, dst, sport, dport } = *self;
        let segment = tcp::Repr { sport, dport, seq: 1, ack: 1, flags, window: 100, payload: &[] };
        self.frame(by, protocol::TCP, 20, |bytes| {
            segment.emit(src, dst, bytes).unwrap();
        })
    }

    /// An SCTP packet with an empty chunk of data.
    pub fn sctp(&self, by: PortId) -> Vec<u8> {
        self.sctp_of(by, 0, &[0])
    }

    /// An SCTP packet with this verification tag, of its common header and empty chunks of these kinds.
    pub fn sctp_of(&self, by: PortId, tag: u32, chunks: &[u8]) -> Vec<u8> {
        let (sport, dport) = (self.sport.to_be_bytes(), self.dport.to_be_bytes());
        let chunks: Vec<u8> = chunks.iter().flat_map(|kind| [*kind, 0, 0, 4]).collect();
        let header = [&sport[..], &dport, &tag.to_be_bytes(), &[0; 4]].concat();
        let packet = [header, chunks].concat();
        self.frame(by, protocol::SCTP, packet.len(), |bytes| bytes.copy_from_slice(&packet))
    }

    /// An ICMP or ICMPv6 message of a type, with the source port as its identifier.
    pub fn icmp(&self, by: PortId, icmp_type: u8) -> Vec<u8> {
        let is_v4 = self.src.is_ipv4();
        let protocol = if is_v4 { protocol::ICMP } else { protocol::ICMPV6 };
        let mut frame = self.frame(by, protocol, 16, |bytes| {
            bytes[0] = icmp_type;
            bytes[4..6].copy_from_slice(&self.sport.to_be_bytes());
        });
        if is_v4 {
            let sum = checksum::of(&frame[34..]);
            frame[36..38].copy_from_slice(&sum.to_be_bytes());
        }
        frame
    }

    /// An echo request.
    pub fn ping(&self, by: PortId) -> Vec<u8> {
        self.icmp(by, if self.src.is_ipv4() { icmp::v4::ECHO_REQUEST } else { icmp::v6::ECHO_REQUEST })
    }

    /// The answer to an echo request, which this is in the direction of.
    pub fn pong(&self, by: PortId) -> Vec<u8> {
        self.icmp(by, if self.src.is_ipv4() { icmp::v4::ECHO_REPLY } else { icmp::v6::ECHO_REPLY })
    }

    fn frame(&self, by: PortId, protocol: u8, len: usize, upper: impl FnOnce(&mut [u8])) -> Vec<u8> {
        let mut frame = vec![0; 14];
        let ethertype = if self.src.is_ipv4() { ethernet::IPV4 } else { ethernet::IPV6 };
        ethernet::Repr { dst: mac(by), src: neighbor_mac(by), ethertype }.emit(&mut frame).unwrap();
        let payload_len = len as u16;
        let at = match (self.src, self.dst) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => {
                frame.resize(34 + len, 0);
                let ip = ipv4::Repr { src, dst, protocol, ttl: 64, payload_len, ..ipv4::Repr::default() };
                ip.emit(&mut frame[14..]).unwrap();
                34
            }
            (IpAddr::V6(src), IpAddr::V6(dst)) => {
                frame.resize(54 + len, 0);
                let next_header = protocol;
                let ip =
                    ipv6::Repr { src, dst, next_header, hop_limit: 64, payload_len, ..ipv6::Repr::default() };
                ip.emit(&mut frame[14..]).unwrap();
                54
            }
            _ => panic!("addresses of two families"),
        };
        upper(&mut frame[at..]);
        frame
    }
}

/// An ICMP error about a packet, from `router` to its sender: that it was on its way for too long, of IPv6 that it is too big.
pub fn error_about(by: PortId, router: &str, about: &[u8]) -> Vec<u8> {
    let sender = key(about).source();
    if sender.is_ipv4() {
        return super::translation::error_frame(by, router, about);
    }
    let quote = &about[14..];
    Talk::new(router, &sender.to_string()).frame(by, protocol::ICMPV6, 8 + quote.len(), |bytes| {
        bytes[0] = icmp::v6::PACKET_TOO_BIG;
        bytes[4..8].copy_from_slice(&1280u32.to_be_bytes());
        bytes[8..].copy_from_slice(quote);
    })
}

/// What a frame's packet is.
pub fn key(frame: &[u8]) -> FlowKey {
    FlowKey::new(frame, &packet::parse(frame).expect("a well-formed packet")).expect("an IP packet")
}

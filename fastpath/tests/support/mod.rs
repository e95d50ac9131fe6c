//! A router in memory: one worker, five ports, a handful of routes, and frames to send through it.
//!
//! ```text
//!              uplink 0 ── 172.18.0.2 (route to 10.65.1.0/26)        workload 2 ── 10.65.0.2, fd65::2
//!  narrow (576) uplink 1 ── 172.19.0.2 (route to 10.69.0.0/16)       workload 3 ── no endpoint
//!                                                                     host 4 ── the kernel
//!     tunnels by uplink 0 to 172.18.0.3: IPIP to 10.72.0.0/16 (and, in vain, fd72::/64), VXLAN to 10.73.0.0/16, fd73::/64
//!                         to fd18:3::3: VXLAN to 10.74.0.0/16, fd74::/64
//! ```
#![allow(dead_code, reason = "a module of tests, of which each uses a part")]

pub mod flow_sequence;
pub mod hostile;
pub mod one_fate;
pub mod policed;
pub mod translation;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use afxdp::{FramePool, LargeFrames, Region, RegionConfig};
use crossbeam_channel::Sender;
use fastpath::{Command, Handoffs, Waiting, Wire, Worker, WorkerConfig, WorkerEnds, handoffs, memory_port};
use model::{IfIndex, MacAddr, PortId, PortKind, Prefix, WorkerId};
use packet::checksum::{self, L4Checksum};
use packet::encapsulation::{Template, VXLAN_PORT};
use packet::{ethernet, icmp, ipv4, ipv6, protocol, udp};
use quanta::Clock;
use tables::{
    AddressSet, Adjacency, Books, Capturing, Counters, Endpoint, Flows, Group, Inject, Limits, PolicyLimits,
    PolicyReport, Port, Punt, RingConsumer, RingProducer, Tracing, TunnelEnd, TunnelKind, Writer, copy_ring,
};

pub const UPLINK: PortId = PortId(0);
pub const NARROW: PortId = PortId(1);
pub const WORKLOAD: PortId = PortId(2);
pub const STRANGER: PortId = PortId(3);
pub const HOST: PortId = PortId(4);
pub const PORTS: [PortId; 5] = [UPLINK, NARROW, WORKLOAD, STRANGER, HOST];

/// Where tunnels end here, and whom they come from.
pub const OUR_END: &str = "172.18.0.1";
pub const FAR_END: &str = "172.18.0.3";
/// Likewise over IPv6, where VXLAN alone has an end.
pub const OUR_END_V6: &str = "fd18::1";
pub const FAR_END_V6: &str = "fd18:3::3";
/// Our address inside tunnels.
pub const OUR_TUNNEL: &str = "10.65.0.63";
/// The MAC address of our end of VXLAN.
pub const VTEP: MacAddr = MacAddr([0x66, 0, 0, 0, 2, 1]);
/// The network identifier of VXLAN.
pub const VNI: u32 = 4096;

/// The network identifier of a segment that is learned about, and the group that its ends flood to.
pub const SEGMENT: u32 = 100;
pub const GROUP: &str = "239.1.1.1";
pub const GROUP_V6: &str = "ff05::100";

/// Frames that the rig's worker has.
pub const FRAMES: usize = 1024;

/// Bytes of the longest frame that a large one holds.
pub const LARGE_BYTES: usize = 5 * 2048 - 256;

/// Sizes that a test may want small.
#[derive(Clone, Copy)]
pub struct Sizes {
    pub wire_slots: usize,
    pub punt_slots: usize,
    pub flows: usize,
    pub ports_per_address: u32,
    /// Frames for packets above a chunk, and rings that carry them.
    pub large_frames: u32,
}

impl Default for Sizes {
    fn default() -> Self {
        Sizes { wire_slots: 128, punt_slots: 128, flows: 64, ports_per_address: 1000, large_frames: 0 }
    }
}

/// Our MAC address on a port.
pub fn mac(port: PortId) -> MacAddr {
    MacAddr([2, 0, 0, 0, 0, port.0 as u8])
}

/// The MAC address of the neighbour on a port.
pub fn neighbor_mac(port: PortId) -> MacAddr {
    MacAddr([2, 0, 0, 0, 1, port.0 as u8])
}

pub fn prefix(text: &str) -> Prefix {
    text.parse().unwrap()
}

pub fn limits(readers: usize) -> Limits {
    Limits {
        ports: 16,
        adjacencies: 64,
        groups: 64,
        routes_v4: 1000,
        routes_v6: 1000,
        policy: PolicyLimits { programs: 16, rules: 200, members: 200, bytes: 1 << 20 },
        readers,
    }
}

pub fn port(id: PortId) -> Port {
    let kind = match id {
        UPLINK | NARROW => PortKind::Uplink,
        HOST => PortKind::Host,
        _ => PortKind::Workload,
    };
    let endpoint = (id == WORKLOAD).then(|| Endpoint {
        name: "default/pod".to_owned(),
        addresses: vec![prefix("10.65.0.2/32"), prefix("fd65::2/128")],
        qos: None,
    });
    Port {
        id,
        name: format!("port{}", id.0),
        ifindex: IfIndex(100 + u32::from(id.0)),
        kind,
        mac: mac(id),
        mtu: if id == NARROW { 576 } else { 1500 },
        up: true,
        queues: 1,
        endpoint,
    }
}

/// Ports and routes as the drawing shows them; forwarding open.
pub fn fill(writer: &mut Writer) {
    for id in PORTS {
        writer.put_port(port(id)).unwrap();
    }
    let via = |id: PortId| {
        Adjacency::resolved(id, IpAddr::V4(Ipv4Addr::new(172, 18, 0, 2)), neighbor_mac(id), mac(id))
    };
    let route = |writer: &mut Writer, to: &str, group: Group| {
        let group = writer.insert_group(group).unwrap();
        writer.publish();
        writer.insert_route(prefix(to), group).unwrap();
    };
    for (to, id) in [
        ("10.65.0.2/32", WORKLOAD),
        ("fd65::2/128", WORKLOAD),
        ("10.65.1.0/26", UPLINK),
        ("fd65:1::/64", UPLINK),
        ("10.69.0.0/16", NARROW),
        ("fd69::/64", NARROW),
        ("10.70.0.0/16", STRANGER),
        // A port that the tables don't have.
        ("10.66.0.0/16", PortId(9)),
    ] {
        let adjacency = writer.insert_adjacency(via(id)).unwrap();
        route(writer, to, Group::Forward(vec![adjacency]));
    }
    let (ours, theirs): (Ipv4Addr, Ipv4Addr) = (OUR_END.parse().unwrap(), FAR_END.parse().unwrap());
    let (ours_v6, theirs_v6): (Ipv6Addr, Ipv6Addr) =
        (OUR_END_V6.parse().unwrap(), FAR_END_V6.parse().unwrap());
    let far_mac = MacAddr([2, 0, 0, 0, 2, 3]);
    let tunnels = [
        (Template::ipip(ours, theirs), ["10.72.0.0/16", "fd72::/64"]),
        (Template::vxlan(ours, theirs, VXLAN_PORT, VNI, far_mac, VTEP), ["10.73.0.0/16", "fd73::/64"]),
        (
            Template::vxlan_v6(ours_v6, theirs_v6, VXLAN_PORT, VNI, far_mac, VTEP),
            ["10.74.0.0/16", "fd74::/64"],
        ),
    ];
    for (template, prefixes) in tunnels {
        let adjacency = writer.insert_adjacency(via(UPLINK).encapsulated(template)).unwrap();
        for to in prefixes {
            route(writer, to, Group::Forward(vec![adjacency]));
        }
    }
    let vxlan = TunnelKind::Vxlan { port: VXLAN_PORT, vni: VNI, mac: VTEP };
    let segment = TunnelKind::Vxlan { port: VXLAN_PORT, vni: SEGMENT, mac: VTEP };
    let theirs = Prefix::host(theirs.into());
    writer.set_tunnel_ends(vec![
        TunnelEnd::new(ours.into(), TunnelKind::Ipip, [theirs]),
        TunnelEnd::new(ours.into(), vxlan, [theirs]),
        TunnelEnd::new(ours_v6.into(), vxlan, [prefix("fd18:3::/64")]),
        TunnelEnd::new(ours.into(), segment, [theirs]).resolving(),
        TunnelEnd::new(GROUP.parse().unwrap(), segment, [theirs]).resolving(),
        TunnelEnd::new(ours_v6.into(), segment, [prefix("fd18:3::/64")]).resolving(),
        TunnelEnd::new(GROUP_V6.parse().unwrap(), segment, [prefix("fd18:3::/64")]).resolving(),
    ]);
    writer.set_own_addresses(AddressSet::new(
        [OUR_END, OUR_END_V6, OUR_TUNNEL].map(|own| Prefix::host(own.parse().unwrap())),
    ));
    let host = writer.insert_adjacency(via(HOST)).unwrap();
    route(writer, "172.18.0.1/32", Group::Local(host));
    route(writer, "fd18::1/128", Group::Local(host));
    // Where OpenStack's metadata are served, if they are.
    route(writer, "127.0.0.1/32", Group::Local(host));
    route(writer, "172.18.0.255/32", Group::Broadcast);
    let unresolved = Adjacency::unresolved(UPLINK, IpAddr::V4(Ipv4Addr::new(172, 18, 0, 9)));
    let unresolved = writer.insert_adjacency(unresolved).unwrap();
    route(writer, "10.67.0.0/16", Group::Forward(vec![unresolved]));
    let both: Vec<_> = [UPLINK, NARROW].map(|id| writer.insert_adjacency(via(id)).unwrap()).to_vec();
    route(writer, "10.71.0.0/16", Group::Forward(both));
    route(writer, "10.65.0.0/26", Group::Blackhole);
    route(writer, "10.68.0.0/16", Group::Unreachable);
    for (to, group) in [
        ("10.76.0.0/16", Group::Rejected),
        ("fd76::/64", Group::Rejected),
        ("10.77.0.0/16", Group::Prohibited),
        ("fd77::/64", Group::Prohibited),
    ] {
        route(writer, to, group);
    }
    writer.set_ready(true);
    writer.publish();
}

/// One worker in memory.
pub struct Rig {
    pub writer: Writer,
    pub worker: Worker,
    pub wires: Vec<Wire>,
    pub flows: Flows,
    pub counters: Counters,
    pub report: PolicyReport,
    pub tracing: Tracing,
    pub capturing: Capturing,
    pub punts: RingConsumer<Punt>,
    pub inject: RingProducer<Inject>,
    pub commands: Sender<Command>,
}

impl Rig {
    pub fn new() -> Rig {
        Rig::sized(Sizes::default())
    }

    pub fn sized(sizes: Sizes) -> Rig {
        Rig::made(sizes, 1)
    }

    /// With room for others who read the tables.
    pub fn with_readers(readers: usize) -> Rig {
        Rig::made(Sizes::default(), readers)
    }

    fn made(sizes: Sizes, readers: usize) -> Rig {
        let mut writer = Writer::new(limits(readers));
        fill(&mut writer);
        let handoffs = handoffs(1, 16, 2048).remove(0);
        let flows = Flows::with_share(sizes.flows, sizes.ports_per_address);
        let shared = (Counters::new(1, 16), flows.clone());
        let (worker, parts) = worker(&mut writer, WorkerId(0), shared, handoffs, &PORTS, sizes);
        let Parts { wires, counters, report, tracing, capturing, punts, inject, commands } = parts;
        Rig { writer, worker, wires, flows, counters, report, tracing, capturing, punts, inject, commands }
    }

    /// Shows the worker what is staged.
    pub fn publish(&mut self) {
        // Between batches a worker says that it is through with the tables before.
        self.worker.housekeeping();
        self.writer.publish();
    }

    pub fn wire(&self, port: PortId) -> &Wire {
        &self.wires[port.index()]
    }

    /// Sends one frame in, lets the worker do its rounds, and says what moved.
    pub fn send(&mut self, port: PortId, frame: &[u8]) -> Moved {
        assert!(self.wire(port).send(frame), "the wire has room");
        self.run()
    }

    /// Lets the worker work until nothing is left, and says what moved.
    pub fn run(&mut self) -> Moved {
        let before = self.counters.books();
        while self.worker.round() > 0 {}
        let after = self.counters.books();
        assert!(after.balance(), "the books balance after every walk: {after:?}");
        Moved { before, after }
    }

    /// The one frame that left by a port.
    pub fn left_by(&self, port: PortId) -> Vec<u8> {
        let frame = self.wire(port).receive().unwrap_or_else(|| panic!("no frame left by {port}"));
        assert!(self.wire(port).receive().is_none(), "one frame in, one frame out");
        frame
    }

    /// Every frame is in the pool or in a ring that this worker refills.
    pub fn audit(mut self) {
        for id in PORTS {
            let (done, closed) = crossbeam_channel::bounded(1);
            self.commands.send(Command::RemoveQueue { port: id, done }).unwrap();
            self.worker.housekeeping();
            closed.recv().unwrap();
        }
        let (available, total) = self.worker.frames();
        assert_eq!(available, total, "every frame is back in its pool");
    }
}

/// What a worker shares with a test.
pub struct Parts {
    pub wires: Vec<Wire>,
    pub counters: Counters,
    pub report: PolicyReport,
    pub tracing: Tracing,
    pub capturing: Capturing,
    pub punts: RingConsumer<Punt>,
    pub inject: RingProducer<Inject>,
    pub commands: Sender<Command>,
}

/// A worker that owns queues of these ports.
pub fn worker(
    writer: &mut Writer,
    id: WorkerId,
    (counters, flows): (Counters, Flows),
    handoffs: Handoffs,
    ports: &[PortId],
    sizes: Sizes,
) -> (Worker, Parts) {
    let (report, tracing) = (PolicyReport::new(1 + id.index(), 64, 64), Tracing::new(8));
    let capturing = Capturing::new();
    let (punt, punts) = copy_ring(sizes.punt_slots, if sizes.large_frames > 0 { LARGE_BYTES } else { 2048 });
    let (inject, injected) = copy_ring(64, 2048);
    let (commands, taken) = crossbeam_channel::unbounded();
    let ends = WorkerEnds {
        pool: pool(sizes.large_frames),
        reader: writer.reader().unwrap(),
        flows,
        counters: counters.clone(),
        policy_report: report.clone(),
        tracing: tracing.clone(),
        capturing: capturing.clone(),
        punt,
        inject: injected,
        handoffs,
        commands: taken,
    };
    let config =
        WorkerConfig { id, core: None, waiting: Waiting::default(), idle_wait: Duration::from_millis(1) };
    let mut worker = Worker::new(config, ends);
    // Time stands still but where a test makes it pass: flows are remembered for however long the machine is busy elsewhere.
    worker.set_clock(Clock::mock().0);
    let mut wires = Vec::new();
    for port in ports {
        let (queue, wire) = memory_port(sizes.wire_slots);
        wires.push(wire);
        let command = Command::AddQueue { port: *port, queue: Box::new(queue), statistics: Arc::default() };
        commands.send(command).unwrap();
    }
    worker.housekeeping();
    (worker, Parts { wires, counters, report, tracing, capturing, punts, inject, commands })
}

/// Frames of 2048 bytes, and large ones as for an MTU of 9000.
pub fn pool(large: u32) -> FramePool {
    let large = (large > 0).then_some(LargeFrames { count: large, chunks: 5 });
    let config = RegionConfig { frames: FRAMES as u32, chunk_size: 2048, large, hugepages: false };
    Region::new(config).unwrap().1
}

/// Books before and after.
#[derive(Debug)]
pub struct Moved {
    pub before: Books,
    pub after: Books,
}

impl Moved {
    pub fn received(&self) -> u64 {
        self.after.received - self.before.received
    }

    pub fn injected(&self) -> u64 {
        self.after.injected - self.before.injected
    }

    pub fn forwarded(&self) -> u64 {
        self.after.forwarded - self.before.forwarded
    }

    pub fn punts(&self) -> Vec<(&'static str, u64)> {
        moved(tables::PuntReason::ALL.iter().map(|r| r.as_str()), &self.before.punts, &self.after.punts)
    }

    pub fn drops(&self) -> Vec<(&'static str, u64)> {
        moved(tables::DropReason::ALL.iter().map(|r| r.as_str()), &self.before.drops, &self.after.drops)
    }
}

fn moved(
    names: impl Iterator<Item = &'static str>,
    before: &[u64],
    after: &[u64],
) -> Vec<(&'static str, u64)> {
    let moved = names.zip(before.iter().zip(after)).map(|(name, (before, after))| (name, after - before));
    moved.filter(|(_, count)| *count > 0).collect()
}

/// A frame to build: UDP over IPv4 from the workload to a remote one, unless changed.
#[derive(Clone)]
pub struct Build {
    pub from: PortId,
    pub src: IpAddr,
    pub dst: IpAddr,
    pub ttl: u8,
    pub payload: usize,
    pub dont_fragment: bool,
    pub sport: u16,
    pub dport: u16,
}

impl Build {
    pub fn packet(from: PortId, src: &str, dst: &str) -> Build {
        Build {
            from,
            src: src.parse().unwrap(),
            dst: dst.parse().unwrap(),
            ttl: 64,
            payload: 32,
            dont_fragment: true,
            sport: 1000,
            dport: 53,
        }
    }

    /// From the workload to a workload on another node.
    pub fn outward() -> Build {
        Build::packet(WORKLOAD, "10.65.0.2", "10.65.1.2")
    }

    /// From another node's workload to ours.
    pub fn inward() -> Build {
        Build::packet(UPLINK, "10.65.1.2", "10.65.0.2")
    }

    pub fn to(self, dst: &str) -> Build {
        Build { dst: dst.parse().unwrap(), ..self }
    }

    pub fn source(self, src: &str) -> Build {
        Build { src: src.parse().unwrap(), ..self }
    }

    pub fn ttl(self, ttl: u8) -> Build {
        Build { ttl, ..self }
    }

    pub fn payload(self, payload: usize) -> Build {
        Build { payload, ..self }
    }

    pub fn fragmentable(self) -> Build {
        Build { dont_fragment: false, ..self }
    }

    pub fn sport(self, sport: u16) -> Build {
        Build { sport, ..self }
    }

    pub fn dport(self, dport: u16) -> Build {
        Build { dport, ..self }
    }

    /// The frame inside an IPIP packet.
    pub fn in_ipip(&self, from: &str, to: &str) -> Vec<u8> {
        inside(self.from, &self.frame(), &Template::ipip(from.parse().unwrap(), to.parse().unwrap()))
    }

    /// The frame inside a VXLAN packet, over the family that the addresses are of.
    pub fn in_vxlan(&self, from: &str, to: &str, vni: u32) -> Vec<u8> {
        in_vxlan(&self.frame(), from, to, vni)
    }

    /// The frame, addressed to our MAC address on the port it comes in by.
    pub fn frame(&self) -> Vec<u8> {
        let payload = vec![0x5a; self.payload];
        let udp = udp::Repr { sport: self.sport, dport: self.dport, payload: &payload };
        let ethertype = if self.src.is_ipv4() { ethernet::IPV4 } else { ethernet::IPV6 };
        let mut frame = vec![0; 14];
        let link = ethernet::Repr { dst: mac(self.from), src: neighbor_mac(self.from), ethertype };
        link.emit(&mut frame).unwrap();
        let payload_len = udp.len() as u16;
        match (self.src, self.dst) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => {
                frame.resize(14 + 20 + udp.len(), 0);
                let ip = ipv4::Repr {
                    src,
                    dst,
                    protocol: protocol::UDP,
                    ttl: self.ttl,
                    dont_fragment: self.dont_fragment,
                    payload_len,
                    ..ipv4::Repr::default()
                };
                ip.emit(&mut frame[14..]).unwrap();
                udp.emit(self.src, self.dst, &mut frame[34..]).unwrap();
            }
            (IpAddr::V6(src), IpAddr::V6(dst)) => {
                frame.resize(14 + 40 + udp.len(), 0);
                let ip = ipv6::Repr {
                    src,
                    dst,
                    next_header: protocol::UDP,
                    hop_limit: self.ttl,
                    payload_len,
                    ..ipv6::Repr::default()
                };
                ip.emit(&mut frame[14..]).unwrap();
                udp.emit(self.src, self.dst, &mut frame[54..]).unwrap();
            }
            _ => panic!("one family a packet"),
        }
        frame
    }
}

/// IPv4 header checksum and UDP checksum.
#[track_caller]
pub fn assert_checksums(frame: &[u8]) {
    let parsed = packet::parse(frame).expect("what leaves is well-formed");
    assert_eq!(checksum::verify_l4(frame, &parsed), L4Checksum::Correct);
}

/// A frame that came by the uplink inside VXLAN, for our end's MAC address.
pub fn in_vxlan(frame: &[u8], from: &str, to: &str, vni: u32) -> Vec<u8> {
    let far = neighbor_mac(UPLINK);
    inside(
        UPLINK,
        frame,
        &match (from.parse().unwrap(), to.parse().unwrap()) {
            (IpAddr::V4(from), IpAddr::V4(to)) => Template::vxlan(from, to, VXLAN_PORT, vni, VTEP, far),
            (IpAddr::V6(from), IpAddr::V6(to)) => Template::vxlan_v6(from, to, VXLAN_PORT, vni, VTEP, far),
            _ => panic!("one family a tunnel"),
        },
    )
}

/// A frame that came by the uplink inside IPIP.
pub fn in_ipip(frame: &[u8], from: &str, to: &str) -> Vec<u8> {
    inside(UPLINK, frame, &Template::ipip(from.parse().unwrap(), to.parse().unwrap()))
}

fn inside(port: PortId, inner: &[u8], template: &Template) -> Vec<u8> {
    let mut frame = vec![0; template.overhead().into()];
    frame.extend(inner);
    frame[..6].copy_from_slice(&mac(port).0);
    frame[6..12].copy_from_slice(&neighbor_mac(port).0);
    let ip_len = frame.len() as u16 - 14;
    template.write(&mut frame, ip_len, inner.get(14..).map_or(0, packet::ecn::traffic_class), 50_000);
    frame
}

/// Writes the checksum of an IPv4 header anew.
pub fn mend_ipv4_checksum(frame: &mut [u8]) {
    let end = 14 + usize::from(frame[14] & 0x0f) * 4;
    frame[24..26].fill(0);
    let checksum = packet::checksum::of(&frame[14..end]);
    frame[24..26].copy_from_slice(&checksum.to_be_bytes());
}

/// An IPv4 frame with these options, a multiple of 4 bytes.
pub fn with_options(frame: &[u8], options: &[u8]) -> Vec<u8> {
    let mut frame = frame.to_vec();
    frame.splice(34..34, options.iter().copied());
    frame[14] += (options.len() / 4) as u8;
    let len = (frame.len() - 14) as u16;
    frame[16..18].copy_from_slice(&len.to_be_bytes());
    mend_ipv4_checksum(&mut frame);
    frame
}

/// An IPv6 frame with these extension headers in front of its payload; `first` is the number of the first of them, and the
/// last must name UDP.
pub fn with_extensions(frame: &[u8], first: u8, headers: &[u8]) -> Vec<u8> {
    let mut frame = frame.to_vec();
    frame.splice(54..54, headers.iter().copied());
    frame[20] = first;
    let len = (frame.len() - 54) as u16;
    frame[18..20].copy_from_slice(&len.to_be_bytes());
    frame
}

/// A neighbour solicitation of the workload for its gateway.
pub fn neighbor_solicitation() -> Vec<u8> {
    let src: Ipv6Addr = "fe80::2".parse().unwrap();
    let dst: Ipv6Addr = "ff02::1:ffee:eeee".parse().unwrap();
    let mut frame = vec![0; 14 + 40 + 24];
    let link = ethernet::Repr {
        dst: "33:33:ff:ee:ee:ee".parse().unwrap(),
        src: neighbor_mac(WORKLOAD),
        ethertype: ethernet::IPV6,
    };
    link.emit(&mut frame).unwrap();
    let ip = ipv6::Repr {
        src,
        dst,
        next_header: protocol::ICMPV6,
        hop_limit: 255,
        payload_len: 24,
        ..ipv6::Repr::default()
    };
    ip.emit(&mut frame[14..]).unwrap();
    frame[54] = 135;
    frame
}

/// The workload's DHCP request, as it is sent to these addresses.
pub fn dhcp_request(src: &str, dst: &str) -> Vec<u8> {
    let (sport, dport) = if dst.contains(':') { (546, 547) } else { (68, 67) };
    let mut frame = Build::packet(WORKLOAD, src, dst).sport(sport).dport(dport).payload(240).frame();
    match dst {
        "255.255.255.255" => frame[..6].fill(0xff),
        "ff02::1:2" => frame = to_group(frame),
        _ => {}
    }
    frame
}

/// The same to everybody who listens to a group, as the network carries it.
pub fn to_group(mut frame: Vec<u8>) -> Vec<u8> {
    let parsed = packet::parse(&frame).unwrap();
    let group = match parsed.ipv4_destination(&frame) {
        Some(group) => {
            let [_, b, c, d] = group.octets();
            [1, 0, 0x5e, b & 0x7f, c, d]
        }
        None => {
            let [.., a, b, c, d] = parsed.ipv6_destination(&frame).unwrap().octets();
            [0x33, 0x33, a, b, c, d]
        }
    };
    frame[..6].copy_from_slice(&group);
    frame
}

/// The workload asks who has its gateway.
pub fn arp_request() -> Vec<u8> {
    let mut frame = vec![0; 14 + 28];
    let link =
        ethernet::Repr { dst: MacAddr::BROADCAST, src: neighbor_mac(WORKLOAD), ethertype: ethernet::ARP };
    link.emit(&mut frame).unwrap();
    let gateway = Ipv4Addr::new(169, 254, 1, 1);
    let arp = packet::arp::Repr::request(neighbor_mac(WORKLOAD), Ipv4Addr::new(10, 65, 0, 2), gateway);
    arp.emit(&mut frame[14..]).unwrap();
    frame
}

/// An ICMP echo request of the workload's.
pub fn echo(dst: &str, ttl: u8) -> Vec<u8> {
    let echo = icmp::Echo { reply: false, ident: 7, seq: 1, payload: &[0; 8] };
    let mut frame = vec![0; 14 + 20 + echo.len()];
    let link = ethernet::Repr { dst: mac(WORKLOAD), src: neighbor_mac(WORKLOAD), ethertype: ethernet::IPV4 };
    link.emit(&mut frame).unwrap();
    let ip = ipv4::Repr {
        src: Ipv4Addr::new(10, 65, 0, 2),
        dst: dst.parse().unwrap(),
        protocol: protocol::ICMP,
        ttl,
        payload_len: echo.len() as u16,
        ..ipv4::Repr::default()
    };
    ip.emit(&mut frame[14..]).unwrap();
    echo.emit_v4(&mut frame[34..]).unwrap();
    frame
}

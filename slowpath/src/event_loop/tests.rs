//! The whole slow path in a namespace of the test's own, between two peers that the test plays. No port is opened, and the test
//! looks at the tables as a worker does.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::ops::{Range, RangeInclusive};
use std::path::Path;

use bgp::bfd::BfdConfig;
use bgp::wire::capability::Capability;
use bgp::wire::nlri::AfiSafi;
use bgp::wire::open::Open;
use model::Family;
use tables::{Limits, PolicyLimits, PolicyReport, Reader, Writer, copy_ring};
use tokio::runtime::Builder;

use super::*;
use crate::bfd::BfdSettings;
use crate::peer_groups::BgpSettings;
use crate::session_guard::tests::Noted;
use crate::testing::{Neighborhood, has, in_namespace, ip, uninterrupted};
use crate::{NotDelivered, OpenPort, OpenPortError, QueueReport, TunnelTraffic};

const ROUTER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const FEEDER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
const SINK: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 3);
const PATIENCE: Duration = Duration::from_secs(60);
/// Routes, each a /24 of its own. Of one turn of the loop, some milliseconds' work: who tells of them too early is seen.
const MANY: u32 = 40_000;
/// How many of them an UPDATE withdraws, and how many it announces.
const TOGETHER: usize = 400;

/// Opens nothing.
struct NoPorts;

impl PortOpener for NoPorts {
    fn open(&mut self, _: &OpenPort) -> Result<Vec<QueueReport>, OpenPortError> {
        Ok(Vec::new())
    }
    fn forwarding_opens(&mut self) {}
    fn forwarding_closes(&mut self) {}
    fn close(&mut self, _: PortId) {}
    fn set_local(&mut self, _: &BTreeSet<IpAddr>) {}
    fn set_tunnels(&mut self, _: &TunnelTraffic) {}
    fn set_translated(&mut self, _: &BTreeMap<IpAddr, RangeInclusive<u16>>) {}
    fn deliver(&mut self, _: PortId, _: &[u8]) -> Result<(), NotDelivered> {
        Ok(())
    }
}

fn config(directory: &Path) -> Config {
    let resources = directory.join("resources");
    std::fs::create_dir(&resources).unwrap();
    let mut text = format!(
        "apiVersion: projectcalico.org/v3\nkind: BGPConfiguration\nmetadata: {{ name: default }}\n\
         spec: {{ nodeToNodeMeshEnabled: false }}\n---\n\
         apiVersion: projectcalico.org/v3\nkind: Node\nmetadata: {{ name: node1 }}\n\
         spec: {{ bgp: {{ ipv4Address: {ROUTER}/24, asNumber: 64512 }} }}\n"
    );
    for (name, address, number) in [("feeder", FEEDER, 65001), ("sink", SINK, 65002)] {
        text += &format!(
            "---\napiVersion: projectcalico.org/v3\nkind: BGPPeer\nmetadata: {{ name: {name} }}\n\
             spec: {{ peerIP: \"{address}\", asNumber: {number} }}\n"
        );
    }
    std::fs::write(resources.join("all.yaml"), text).unwrap();
    Config {
        node: "node1".to_owned(),
        datastore: DatastoreSettings::Directory(resources),
        secrets: directory.join("secrets"),
        bfd: BfdSettings { pace: BfdConfig::default(), multihop: false, mesh: false },
        uplinks: vec!["up0".to_owned()],
        workload_prefix: "cali".to_owned(),
        lower_workload_mtu: false,
        mtu_file: directory.join("mtu"),
        reserved_ports: directory.join("reserved-ports"),
        former_settings: directory.join("former-settings"),
        receivable: 1500,
        segments: Vec::new(),
        bgp: BgpSettings { announce_all: true, ..BgpSettings::default() },
        mirror_routes: 16,
        neighbors: 64,
        prefixes_per_peer: 100_000,
        stop_within: Duration::from_secs(1),
    }
}

fn ends(writer: Writer) -> Ends {
    Ends {
        writer,
        punts: vec![copy_ring(4, 2048).1],
        injects: vec![copy_ring(4, 2048).0],
        flows: Flows::new(64),
        policy_report: PolicyReport::new(1, 64, 4),
        ports: Box::new(NoPorts),
        session_sockets: Arc::new(Noted::default()),
        come_first: || Ok(()),
    }
}

fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let len = (19 + body.len()) as u16;
    [&[0xff; 16][..], &len.to_be_bytes(), &[kind], body].concat()
}

/// Neighbouring /24s, by their numbers.
fn prefixes(numbers: &[u32]) -> Vec<u8> {
    let prefix = |number: &u32| {
        let [a, b, c, _] = address(*number).to_be_bytes();
        [24, a, b, c]
    };
    numbers.iter().flat_map(prefix).collect()
}

fn address(number: u32) -> u32 {
    (11 << 24) + (number << 8)
}

/// UPDATEs that withdraw these and announce those, by way of a neighbour of the router's.
fn updates(withdrawn: Range<u32>, announced: Range<u32>, gateway: u8) -> Vec<u8> {
    let attributes = [0x40, 1, 1, 0, 0x40, 2, 6, 2, 1, 0, 0, 0xfd, 0xe9, 0x40, 3, 4, 192, 0, 2, gateway];
    let [withdrawn, announced] = [withdrawn, announced].map(|numbers| numbers.collect::<Vec<u32>>());
    let [mut withdrawn, mut announced] = [&withdrawn, &announced].map(|numbers| numbers.chunks(TOGETHER));
    let update = || {
        let (withdrawn, announced) = (withdrawn.next(), announced.next());
        let attributes = announced.map(|_| &attributes[..]).unwrap_or_default();
        withdrawn.or(announced)?;
        let withdrawn = prefixes(withdrawn.unwrap_or_default());
        let counted = |field: &[u8]| [&(field.len() as u16).to_be_bytes()[..], field].concat();
        let announced = prefixes(announced.unwrap_or_default());
        Some(message(2, &[counted(&withdrawn), counted(attributes), announced].concat()))
    };
    std::iter::from_fn(update).flatten().collect()
}

/// One end of a session.
struct Peer {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Peer {
    /// Brings a session up.
    fn join(own: Ipv4Addr, own_as: u32) -> Peer {
        let deadline = Instant::now() + PATIENCE;
        let stream = loop {
            let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
            socket.bind(&std::net::SocketAddr::from((own, 0)).into()).unwrap();
            match socket.connect(&std::net::SocketAddr::from((ROUTER, 179)).into()) {
                Ok(()) => break TcpStream::from(socket),
                Err(error) => assert!(Instant::now() < deadline, "{error}"),
            }
            std::thread::sleep(Duration::from_millis(20));
        };
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut open = Vec::new();
        let capabilities =
            vec![Capability::MultiProtocol(AfiSafi::unicast(Family::V4)), Capability::FourOctetAs(own_as)];
        Open { my_as: own_as as u16, hold_time: 240, router_id: own, capabilities }.emit(&mut open);
        let mut peer = Peer { stream, buffer: Vec::new() };
        peer.stream.write_all(&[open, message(4, &[])].concat()).unwrap();
        // OPEN and KEEPALIVE.
        let mut heard = Vec::new();
        while !heard.contains(&4) {
            peer.read(|kind, _| heard.push(kind));
        }
        peer
    }

    /// Waits for something, then gives every whole message.
    fn read(&mut self, mut tell: impl FnMut(u8, &[u8])) {
        let mut bytes = [0; 65_536];
        let got = uninterrupted(|| self.stream.read(&mut bytes)).unwrap();
        assert!(got > 0, "the router has closed the connection");
        self.buffer.extend(&bytes[..got]);
        let mut at = 0;
        while let Some(header) = self.buffer.get(at..at + 19) {
            let len = usize::from(u16::from_be_bytes([header[16], header[17]]));
            let Some(message) = self.buffer.get(at..at + len) else { break };
            tell(message[18], &message[19..]);
            at += len;
        }
        self.buffer.drain(..at);
    }
}

/// What an UPDATE withdraws and announces, by number.
fn said(update: &[u8]) -> [Vec<u32>; 2] {
    let numbers = |field: &[u8]| {
        let prefixes = field.as_chunks().0.iter();
        prefixes.map(|[_, a, b, c]| u32::from_be_bytes([0, a - 11, *b, *c])).collect()
    };
    let (withdrawn, rest) = update[2..].split_at(usize::from(u16::from_be_bytes([update[0], update[1]])));
    let attributes = usize::from(u16::from_be_bytes([rest[0], rest[1]]));
    [numbers(withdrawn), numbers(&rest[2 + attributes..])]
}

/// The last octet of the gateway that packets to a prefix go by.
fn gateway(reader: &mut Reader, number: u32) -> Option<u8> {
    let tables = reader.snapshot();
    let group = tables.fib.lookup_v4(address(number))?;
    let group = tables.state.group(group).expect("a route's group is there");
    let adjacency = tables.state.adjacency(*group.members().first()?).expect("and so is its adjacency");
    match adjacency.neighbor {
        IpAddr::V4(neighbor) => Some(neighbor.octets()[3]),
        IpAddr::V6(_) => None,
    }
}

/// Reads until what is known is enough. Each route must be in the tables when it is told of.
fn follow(
    sink: &mut Peer,
    reader: &mut Reader,
    known: &mut BTreeSet<u32>,
    is_enough: impl Fn(&BTreeSet<u32>) -> bool,
) {
    while !is_enough(known) {
        // Nobody is to wait for it while it waits.
        reader.go_offline();
        sink.read(|kind, body| {
            assert!(matches!(kind, 2 | 4), "the router says {body:?}");
            if kind == 4 {
                return;
            }
            let [withdrawn, announced] = said(body);
            // The last of them first: what comes too early is not there yet.
            let missing = announced.iter().rev().find(|number| gateway(reader, **number).is_none());
            assert_eq!(missing, None, "it was announced and is not in the tables");
            for number in withdrawn {
                known.remove(&number);
            }
            known.extend(announced);
        });
    }
    reader.go_offline();
}

/// Waits until the tables are as they should be.
#[track_caller]
fn wait(mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "the tables don't become so");
    }
}

#[test]
fn routes_are_in_the_tables_when_peers_are_told_and_out_of_them_soon_after() {
    if !has("nft") {
        return;
    }
    in_namespace(|| {
        let far = Neighborhood::behind("up0", "far0");
        ip(&format!("addr add {ROUTER}/24 dev up0"));
        for own in [FEEDER, SINK] {
            far.ip(&format!("addr add {own}/24 dev far0"));
        }
        let directory = tempfile::tempdir().unwrap();
        let limits = Limits {
            ports: 16,
            adjacencies: 64,
            groups: 64,
            // The second half has no room but that of the first.
            routes_v4: MANY as usize + 16,
            routes_v6: 64,
            policy: PolicyLimits::NONE,
            readers: 1,
        };
        let mut writer = Writer::new(limits);
        let mut reader = writer.reader().unwrap();
        reader.go_offline();
        let (config, stop) = (config(directory.path()), Arc::new(AtomicBool::new(false)));
        let stopped = Arc::clone(&stop);
        let router = std::thread::spawn(move || {
            let (_requests, to_answer) = mpsc::channel(1);
            let slowpath = Slowpath::new(config, ends(writer), to_answer, stopped);
            Builder::new_current_thread().enable_all().build().unwrap().block_on(slowpath.run())
        });
        far.inside(|| {
            let (mut feeder, mut sink) = (Peer::join(FEEDER, 65001), Peer::join(SINK, 65002));
            let mut known = BTreeSet::new();
            feeder.stream.write_all(&updates(0..0, 0..MANY, 8)).unwrap();
            follow(&mut sink, &mut reader, &mut known, |known| known.len() == MANY as usize);
            // Others take the place of the first quarter at once; then the second quarter goes and comes back another way.
            let others = MANY..MANY + MANY / 4;
            let second = MANY / 4..MANY / 2;
            let turns = [
                updates(0..MANY / 4, others.clone(), 9),
                updates(second.clone(), 0..0, 0),
                updates(0..0, second, 9),
            ];
            feeder.stream.write_all(&turns.concat()).unwrap();
            let all: BTreeSet<u32> = (MANY / 4..others.end).collect();
            follow(&mut sink, &mut reader, &mut known, |known| *known == all);
            let expected = [None, Some(9), Some(8), Some(9)];
            wait(|| [0, MANY / 4, MANY / 2, MANY].map(|number| gateway(&mut reader, number)) == expected);
            feeder.stream.write_all(&updates(0..others.end, 0..0, 0)).unwrap();
            follow(&mut sink, &mut reader, &mut known, BTreeSet::is_empty);
            wait(|| (0..others.end).all(|number| gateway(&mut reader, number).is_none()));
            reader.go_offline();
        });
        stop.store(true, Ordering::Relaxed);
        router.join().unwrap().unwrap();
    });
}

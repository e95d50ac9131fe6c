//! What belongs to no connection, held to the kernel: the walk and nftables are to drop the same of TCP, so random sequences of
//! packets are asked of the table of flows and of connection tracking.
//!
//! Packets leave by a raw socket with headers of our own, whichever way they go; what is invalid, `sendto` refuses.

use std::net::SocketAddr;

use model::Family;
use packet::{FlowKey, protocol, tcp};
use proptest::prelude::*;
use proptest::sample::select;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use tables::{Beginning, Direction, FlowTime, FlowTimeouts, Flows, TcpPacket, Ticks};

use crate::nft;
use crate::testing::{has, in_namespace, ip};

/// IPPROTO_RAW: the sender makes the IP header.
const OWN_HEADER: i32 = 255;
const CLIENT: [u8; 4] = [10, 1, 0, 2];
const SERVER: [u8; 4] = [10, 2, 0, 2];
const URG: u8 = 0x20;
const SYN_ACK: u8 = tcp::SYN | tcp::ACK;
const FIN_ACK: u8 = tcp::FIN | tcp::ACK;
const RST_ACK: u8 = tcp::RST | tcp::ACK;

/// One packet: does it go the way of answers, and its flags.
type Step = (bool, u8);

fn step() -> impl Strategy<Value = Step> {
    let usual = select(vec![tcp::SYN, SYN_ACK, tcp::ACK, tcp::ACK | tcp::PSH, FIN_ACK, tcp::RST, RST_ACK]);
    let any_flags = any::<u8>().prop_map(|flags| flags & (0x1f | URG));
    (any::<bool>(), prop_oneof![6 => usual, 1 => any_flags])
}

/// Beginnings that lead somewhere, and whatever follows.
fn sequence() -> impl Strategy<Value = Vec<Step>> {
    let open = vec![(false, tcp::SYN), (true, SYN_ACK), (false, tcp::ACK)];
    let closed = [&open[..], &[(false, FIN_ACK), (true, FIN_ACK), (false, tcp::ACK)]].concat();
    let beginnings = vec![vec![], open[..1].to_vec(), open[..2].to_vec(), open.clone(), closed];
    (select(beginnings), prop::collection::vec(step(), 1..6))
        .prop_map(|(beginning, rest)| [beginning, rest].concat())
}

/// What the table of flows says of a packet, as the walk asks it.
fn ours(flows: &Flows, key: &FlowKey, flags: u8) -> bool {
    let (now, timeouts) = (Ticks(9), FlowTimeouts::default());
    let packet = TcpPacket::of(flags);
    if let Some(flow) = flows.look_up(key, now, &timeouts) {
        let may = flow.may_have(packet);
        if may {
            flows.touch(&flow, flags, &FlowTime::new(now, &timeouts));
        }
        if packet == TcpPacket::Reset && !flow.is_answered() {
            flows.forget(&flow);
        }
        return may;
    }
    if packet.may_begin() {
        let flow = flows.add(key, &key.reversed(), now, &timeouts).expect("there is room");
        flows.begin(&flow, &Beginning { is_syn: packet == TcpPacket::Syn, ..Beginning::default() });
    }
    packet.may_begin()
}

struct Kernel(Socket);

impl Kernel {
    fn new() -> Kernel {
        ip("link add void0 type veth peer name void1");
        ip("link set void0 arp off up");
        ip("link set void1 arp off up");
        ip("addr add 198.51.100.1/32 dev void0");
        ip("route add default dev void0");
        nft::apply(
            "table ip judge { chain out { type filter hook output priority 0; ct state invalid drop; }; }",
        )
        .expect("nft takes the rule");
        // Sequence numbers are nobody's here.
        std::fs::write("/proc/sys/net/netfilter/nf_conntrack_tcp_be_liberal", "1")
            .expect("a namespace's own setting");
        let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(OWN_HEADER)));
        Kernel(socket.expect("the right to send as anybody"))
    }

    fn says(&self, port: u16, (is_answer, flags): Step) -> bool {
        let (src, dst) = if is_answer { (SERVER, CLIENT) } else { (CLIENT, SERVER) };
        let (sport, dport) = if is_answer { (80, port) } else { (port, 80) };
        let mut bytes = vec![0x45, 0, 0, 40, 0, 1, 0, 0, 64, protocol::TCP, 0, 0];
        bytes.extend([src, dst].concat());
        bytes.extend([sport.to_be_bytes(), dport.to_be_bytes()].concat());
        bytes.extend([0, 0, 0, 1, 0, 0, 0, 1, 5 << 4, flags, 4, 0, 0, 0, 0, 0]);
        match self.0.send_to(&bytes, &SockAddr::from(SocketAddr::from((dst, 0)))) {
            Ok(_) => true,
            Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => false,
            Err(error) => panic!("a packet can't be sent: {error}"),
        }
    }
}

/// A sequence ends with a reset, and where a server asks the client after either has sent its last: Linux then guesses which
/// connection is meant, and begins another one.
#[test]
fn the_walk_and_the_kernel_call_the_same_packets_invalid() {
    if !has("nft") {
        return;
    }
    in_namespace(|| {
        let kernel = Kernel::new();
        let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &[7; 32]);
        let mut runner = TestRunner::new_with_rng(Config::default(), rng);
        let (mut valid, mut invalid) = (0, 0);
        for number in 0..2_000u16 {
            let port = 1_024 + number;
            let steps = sequence().new_tree(&mut runner).expect("a sequence").current();
            let flows = Flows::new(4);
            let address = |octets: [u8; 4]| u128::from(u32::from_be_bytes(octets));
            let asks = FlowKey {
                src: address(CLIENT),
                dst: address(SERVER),
                sport: port,
                dport: 80,
                protocol: protocol::TCP,
                family: Family::V4,
            };
            for (at, step) in steps.iter().enumerate() {
                let (is_answer, flags) = *step;
                let key = if is_answer { asks.reversed() } else { asks };
                let asks_back = flows.look_up(&key, Ticks(9), &FlowTimeouts::default()).is_some_and(|flow| {
                    flow.direction == Direction::Reply && TcpPacket::of(flags) == TcpPacket::Syn
                });
                let is_closing = steps[..at].iter().any(|(_, flags)| TcpPacket::of(*flags) == TcpPacket::Fin);
                if asks_back && is_closing {
                    break;
                }
                let is_valid = ours(&flows, &key, flags);
                assert_eq!(is_valid, kernel.says(port, *step), "packet {at} of {steps:x?}");
                *(if is_valid { &mut valid } else { &mut invalid }) += 1;
                if is_valid && TcpPacket::of(flags) == TcpPacket::Reset {
                    break;
                }
            }
        }
        println!("{valid} valid, {invalid} invalid");
        assert!(valid > 1_000 && invalid > 1_000);
    });
}

//! The kernel as a judge: checks rendered for nftables, real packets sent through them, and what became of each.
//!
//! One table holds many programs, and a packet's mark says which it is asked by. Packets leave by raw sockets with headers
//! of our own: what a program drops, `sendto` refuses; what it marks as accepted, a later chain remembers.
//!
//! Whatever judges packets elsewhere is held to this as to the slow judge. Needs the right to make a network namespace;
//! call it in one.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io;
use std::net::{IpAddr, SocketAddr};

use policy::judge::{Packet, Verdict};
use policy::rule::Checks;
use serde_json::Value;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use super::render::{Class, Direction, Renderer};
use super::ruleset::{About, Line, Ruleset};
use super::{Sets, Settings, counters};
use crate::nft;
use crate::status::HostPolicyStatus;
use crate::testing::{ip, run};

const TABLE: &str = "judge";
/// Packets are numbered by the low half of the mark; the renderer has bits of the high half.
const PACKETS_A_ROUND: usize = 0xffff;
/// IPPROTO_RAW: the sender makes the IP header.
const OWN_HEADER: i32 = 255;

/// Checks, and the packets that they are asked about.
pub(crate) struct Program<'a> {
    pub(crate) checks: &'a Checks,
    pub(crate) packets: &'a [Packet],
}

/// The ways out of a namespace that takes packets to anywhere, and loses them.
pub(crate) struct KernelJudge {
    v4: Socket,
    v6: Socket,
}

impl KernelJudge {
    /// Gives the namespace of this thread a way out.
    pub(crate) fn new() -> io::Result<KernelJudge> {
        // Without ARP nobody need answer.
        ip("link add void0 type veth peer name void1");
        ip("link set void0 arp off up");
        ip("link set void1 arp off up");
        ip("addr add 198.51.100.1/32 dev void0");
        ip("addr add 2001:db8:ffff::1/128 dev void0 nodad");
        ip("route add default dev void0");
        ip("-6 route add default dev void0");
        let raw = |domain| Socket::new(domain, Type::RAW, Some(Protocol::from(OWN_HEADER)));
        Ok(KernelJudge { v4: raw(Domain::IPV4)?, v6: raw(Domain::IPV6)? })
    }

    /// What the kernel says of every packet of every program, as policy of this class, and what its rules have counted.
    pub(crate) fn verdicts(
        &self,
        programs: &[Program<'_>],
        sets: &Sets,
        class: Class,
    ) -> (Vec<Vec<Verdict>>, HostPolicyStatus) {
        let packets: usize = programs.iter().map(|program| program.packets.len()).sum();
        assert!(packets <= PACKETS_A_ROUND, "{packets} packets are too many for one round");
        let ruleset = ruleset(programs, sets, class);
        nft::apply(&script(&ruleset)).expect("nft takes the programs");
        let mut number = 0;
        let mut refused: Vec<Vec<bool>> = Vec::new();
        for program in programs {
            let send = |packet: &Packet| {
                number += 1;
                self.send(packet, number)
            };
            refused.push(program.packets.iter().map(send).collect());
        }
        let accepted = accepted();
        let mut number = 0;
        let verdict = |refused: bool| {
            number += 1;
            match (refused, accepted.contains(&number)) {
                (true, false) => Verdict::Deny,
                (false, true) => Verdict::Allow,
                (false, false) => Verdict::NoMatch,
                (true, true) => panic!("packet {number} was both accepted and refused"),
            }
        };
        let mut verdict = verdict;
        let verdicts =
            refused.into_iter().map(|packets| packets.into_iter().map(&mut verdict).collect()).collect();
        (verdicts, counters::status(&ruleset, &counters::read(TABLE).expect("nft's counters")))
    }

    /// Sends a packet; was it refused?
    fn send(&self, packet: &Packet, number: u32) -> bool {
        let socket = if packet.source.is_ipv4() { &self.v4 } else { &self.v6 };
        socket.set_mark(number).expect("the right to mark packets");
        let destination = SockAddr::from(SocketAddr::new(packet.destination, 0));
        match socket.send_to(&bytes(packet), &destination) {
            Ok(_) => false,
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => true,
            Err(error) => panic!("{packet:?} can't be sent: {error}"),
        }
    }
}

/// Programs, by ranges of marks.
fn ruleset(programs: &[Program<'_>], sets: &Sets, class: Class) -> Ruleset {
    let settings = Settings::default();
    let mut renderer = Renderer::new(&settings);
    let (mut map, mut first) = (Vec::new(), 1);
    for (number, program) in programs.iter().enumerate().filter(|(_, program)| !program.packets.is_empty()) {
        let lines = renderer.checks(program.checks, class, Direction::Egress);
        renderer.add(format!("program-{number}"), None, About::Hook, lines);
        let last = first + program.packets.len() - 1;
        map.push(format!("{first:#x}-{last:#x} : goto program-{number}"));
        first = last + 1;
    }
    let dispatch = Line::plain(format!("meta mark vmap {{ {} }}", map.join(", ")));
    renderer.add("dispatch-out", Some("output priority raw"), About::Hook, vec![dispatch]);
    renderer.finish(sets)
}

/// The table: programs, then what remembers the packets that were accepted.
fn script(ruleset: &Ruleset) -> String {
    let mut script = ruleset.replacement(TABLE);
    let commands = [
        "add set inet judge accepted { type mark ; flags dynamic ; size 65535 ; }",
        "add chain inet judge remember-out { type filter hook output priority filter ; }",
        "add rule inet judge remember-out meta mark & 0x10000 == 0 accept",
        "add rule inet judge remember-out meta mark set meta mark & 0xffff add @accepted { meta mark }",
    ];
    for command in commands {
        let _ = writeln!(script, "{command}");
    }
    script
}

/// Numbers of the packets that were accepted.
fn accepted() -> BTreeSet<u32> {
    let list: Value = serde_json::from_str(&run("nft", "-j list set inet judge accepted")).expect("JSON");
    let set = list["nftables"].as_array().expect("a list").iter().find_map(|object| object.get("set"));
    let elements = set.expect("the set")["elem"].as_array().cloned().unwrap_or_default();
    elements.iter().map(|mark| mark.as_u64().expect("a number") as u32).collect()
}

/// The packet as it goes over the wire. Checksums beyond IP's are left out: netfilter doesn't look at them.
fn bytes(packet: &Packet) -> Vec<u8> {
    let payload = payload(packet);
    let mut bytes = Vec::new();
    match (packet.source, packet.destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let length = (20 + payload.len()) as u16;
            bytes.extend([0x45, 0]);
            bytes.extend(length.to_be_bytes());
            // Identification, flags and offset; the kernel fills in the checksum.
            bytes.extend([0, 1, 0, 0, 64, packet.protocol, 0, 0]);
            bytes.extend(source.octets());
            bytes.extend(destination.octets());
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            bytes.extend([0x60, 0, 0, 0]);
            bytes.extend((payload.len() as u16).to_be_bytes());
            bytes.extend([packet.protocol, 64]);
            bytes.extend(source.octets());
            bytes.extend(destination.octets());
        }
        _ => panic!("{packet:?} is of two families"),
    }
    bytes.extend(payload);
    bytes
}

fn payload(packet: &Packet) -> Vec<u8> {
    match (packet.ports, packet.icmp) {
        (Some((source, destination)), _) => {
            let mut header = vec![0; if packet.protocol == 6 { 20 } else { 12 }];
            header[..2].copy_from_slice(&source.to_be_bytes());
            header[2..4].copy_from_slice(&destination.to_be_bytes());
            if packet.protocol == 6 {
                // A header of 20 bytes, SYN.
                header[12..14].copy_from_slice(&[5 << 4, 2]);
            }
            header
        }
        (None, Some((kind, code))) => vec![kind, code, 0, 0, 0, 1, 0, 1],
        // Nothing where a rule could find ports by mistake, and something where it could.
        (None, None) if packet.protocol.is_multiple_of(2) => Vec::new(),
        (None, None) => vec![0, 80, 0, 80, 0, 0, 0, 0],
    }
}

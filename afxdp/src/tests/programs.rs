//! Every branch of the XDP programs, run by the kernel on crafted frames (`BPF_PROG_TEST_RUN`).
//!
//! The programs are loaded with a fallback of their own, so that "would be redirected" shows: no socket is bound, and
//! the fallback says drop where the kernel would have got a pass.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd, AsRawFd};

use crate::abi::{self, BpfTestRun};
use crate::bpf::redirect::Action;
use crate::program::{LOCAL_ADDRESSES_MAX, Program, ProgramError, ProgramKind, TUNNELS_MAX, TunnelKind};
use crate::syscall;

const OURS: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const OTHER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 7);
const OURS6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
const OTHER6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2);
const VXLAN: TunnelKind = TunnelKind::Vxlan { port: 4789 };
/// What flannel and Linux's own default use (IANA gave it to another protocol).
const VXLAN_OF_LINUX: TunnelKind = TunnelKind::Vxlan { port: 8472 };

const TAKEN: u32 = Action::Drop as u32;
const PASSED: u32 = Action::Pass as u32;

/// A program in whose answers "taken" and "passed" differ, with the node's addresses; `None` without privilege.
fn program(kind: ProgramKind) -> Option<Program> {
    match Program::load_with(kind, 4, Action::Drop) {
        Ok(program) => {
            if kind != ProgramKind::Workload {
                program.add_local(IpAddr::V4(OURS), None).unwrap();
                program.add_local(IpAddr::V6(OURS6), None).unwrap();
            }
            Some(program)
        }
        Err(ProgramError::NotPermitted { doing }) => {
            println!("skipped: not permitted to {doing}");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

fn run(program: &Program, frame: &[u8]) -> u32 {
    let mut attr = BpfTestRun {
        prog_fd: program.as_fd().as_raw_fd() as u32,
        data_size_in: frame.len() as u32,
        data_in: frame.as_ptr().expose_provenance() as u64,
        repeat: 1,
        ..BpfTestRun::default()
    };
    // SAFETY: `data_in` is valid for reads of `data_size_in` bytes; no output is asked for.
    unsafe { syscall::bpf(abi::BPF_PROG_TEST_RUN, &mut attr) }.unwrap();
    attr.retval
}

fn ethernet(ethertype: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x02, 0, 0, 0, 0, 1, 0x02, 0, 0, 0, 0, 2];
    frame.extend_from_slice(&ethertype.to_be_bytes());
    frame.extend_from_slice(payload);
    frame
}

/// An IPv4 packet with `options` words of options and the fragment field as given.
fn ipv4(destination: Ipv4Addr, protocol: u8, fragment: u16, options: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0u8; 20 + 4 * usize::from(options)];
    packet[0] = 0x45 + options;
    packet[6..8].copy_from_slice(&fragment.to_be_bytes());
    packet[8] = 64;
    packet[9] = protocol;
    packet[12..16].copy_from_slice(&[203, 0, 113, 9]);
    packet[16..20].copy_from_slice(&destination.octets());
    packet.extend_from_slice(payload);
    ethernet(0x0800, &packet)
}

fn ipv6(destination: Ipv6Addr, next_header: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0u8; 40];
    packet[0] = 0x60;
    packet[6] = next_header;
    packet[7] = 64;
    packet[24..40].copy_from_slice(&destination.octets());
    packet.extend_from_slice(payload);
    ethernet(0x86dd, &packet)
}

fn udp(port: u16) -> [u8; 8] {
    let mut header = [0; 8];
    header[2..4].copy_from_slice(&port.to_be_bytes());
    header
}

fn check(kind: ProgramKind, cases: &[(&str, Vec<u8>, u32)]) {
    check_tunnels(kind, &[], cases);
}

fn check_tunnels(kind: ProgramKind, tunnels: &[TunnelKind], cases: &[(&str, Vec<u8>, u32)]) {
    let Some(program) = program(kind) else { return };
    for tunnel in tunnels {
        program.add_tunnel(*tunnel).unwrap();
    }
    for (name, frame, expected) in cases {
        assert_eq!(run(&program, frame), *expected, "{name}");
    }
}

#[test]
fn the_uplink_leaves_all_that_is_not_ip_to_the_kernel() {
    let mut tagged = vec![0, 10];
    tagged.extend_from_slice(&ipv4(OTHER, 6, 0, 0, &[0; 20])[12..]);
    check(
        ProgramKind::Uplink,
        &[
            ("ARP", ethernet(0x0806, &[0; 28]), PASSED),
            ("LLDP", ethernet(0x88cc, &[0; 46]), PASSED),
            ("LACP", ethernet(0x8809, &[0; 46]), PASSED),
            ("VLAN tag", ethernet(0x8100, &tagged), PASSED),
            ("service VLAN tag", ethernet(0x88a8, &tagged), PASSED),
            ("IPv4 cut short", ethernet(0x0800, &[0x45; 19]), PASSED),
            ("IPv6 cut short", ethernet(0x86dd, &[0x60; 39]), PASSED),
        ],
    );
}

#[test]
fn the_uplink_takes_transit_and_leaves_what_is_for_the_node() {
    check(
        ProgramKind::Uplink,
        &[
            ("transit TCP", ipv4(OTHER, 6, 0, 0, &[0; 20]), TAKEN),
            ("transit IPIP", ipv4(OTHER, 4, 0, 0, &[0; 20]), TAKEN),
            ("transit fragment", ipv4(OTHER, 17, 100, 0, &[0; 20]), TAKEN),
            ("TCP to the node", ipv4(OURS, 6, 0, 0, &[0; 20]), PASSED),
            ("IPIP to the node, not ended here", ipv4(OURS, 4, 0, 0, &[0; 20]), PASSED),
            ("VXLAN to the node, not ended here", ipv4(OURS, 17, 0, 0, &udp(4789)), PASSED),
            ("multicast", ipv4(Ipv4Addr::new(224, 0, 0, 5), 89, 0, 0, &[0; 20]), PASSED),
            ("last multicast", ipv4(Ipv4Addr::new(239, 255, 255, 255), 17, 0, 0, &[0; 20]), PASSED),
            ("below multicast", ipv4(Ipv4Addr::new(223, 255, 255, 255), 17, 0, 0, &[0; 20]), TAKEN),
            ("broadcast", ipv4(Ipv4Addr::BROADCAST, 17, 0, 0, &udp(67)), PASSED),
            ("transit IPv6", ipv6(OTHER6, 6, &[0; 20]), TAKEN),
            ("IPv6 to the node", ipv6(OURS6, 6, &[0; 20]), PASSED),
            ("neighbour solicitation", ipv6("ff02::1:ff00:1".parse().unwrap(), 58, &[0; 24]), PASSED),
            ("link-local", ipv6("fe80::1".parse().unwrap(), 58, &[0; 24]), PASSED),
            ("last link-local", ipv6("febf::1".parse().unwrap(), 58, &[0; 24]), PASSED),
            ("beyond link-local", ipv6("fec0::1".parse().unwrap(), 58, &[0; 24]), TAKEN),
            ("unique local", ipv6("fd00::1".parse().unwrap(), 58, &[0; 24]), TAKEN),
        ],
    );
}

#[test]
fn the_uplink_takes_only_the_tunnels_that_end_here() {
    let more_fragments = 0x2000;
    check_tunnels(
        ProgramKind::Uplink,
        &[TunnelKind::Ipip, VXLAN, VXLAN_OF_LINUX],
        &[
            ("IPIP to the node", ipv4(OURS, 4, 0, 0, &[0; 20]), TAKEN),
            ("VXLAN to the node", ipv4(OURS, 17, 0, 0, &udp(4789)), TAKEN),
            ("VXLAN to the other port", ipv4(OURS, 17, 0, 0, &udp(8472)), TAKEN),
            ("the other port over IPv6", ipv6(OURS6, 17, &udp(8472)), TAKEN),
            ("IPv4 in IPv6", ipv6(OURS6, 4, &udp(4789)), PASSED),
            ("VXLAN behind options", ipv4(OURS, 17, 0, 10, &udp(4789)), TAKEN),
            ("first fragment of VXLAN", ipv4(OURS, 17, more_fragments, 0, &udp(4789)), TAKEN),
            ("later fragment that looks like VXLAN", ipv4(OURS, 17, 185, 0, &udp(4789)), PASSED),
            ("another port", ipv4(OURS, 17, 0, 0, &udp(53)), PASSED),
            ("UDP header cut short", ipv4(OURS, 17, 0, 0, &udp(4789)[..7]), PASSED),
            ("TCP to the node", ipv4(OURS, 6, 0, 0, &udp(4789)), PASSED),
            ("VXLAN over IPv6", ipv6(OURS6, 17, &udp(4789)), TAKEN),
            ("another port over IPv6", ipv6(OURS6, 17, &udp(53)), PASSED),
            ("UDP header over IPv6 cut short", ipv6(OURS6, 17, &udp(4789)[..7]), PASSED),
            ("TCP over IPv6", ipv6(OURS6, 6, &udp(4789)), PASSED),
            ("transit", ipv4(OTHER, 17, 0, 0, &udp(53)), TAKEN),
        ],
    );
    let Some(program) = program(ProgramKind::Uplink) else { return };
    program.add_tunnel(VXLAN).unwrap();
    let mut liar = ipv4(OURS, 17, 0, 0, &udp(4789));
    liar[14] = 0x44; // a header length of 16
    assert_eq!(run(&program, &liar), PASSED, "a header shorter than a header");
}

/// VXLAN to a group that this node has joined; all else that is sent to many stays with the kernel.
#[test]
fn the_uplink_takes_the_tunnels_that_end_at_a_group() {
    let Some(program) = program(ProgramKind::Uplink) else { return };
    let (group, group6) = (Ipv4Addr::new(239, 1, 1, 1), "ff05::100".parse::<Ipv6Addr>().unwrap());
    let (beside, beside6) = (Ipv4Addr::new(239, 1, 1, 2), "ff05::101".parse::<Ipv6Addr>().unwrap());
    program.add_tunnel(VXLAN).unwrap();
    assert_eq!(run(&program, &ipv4(group, 17, 0, 0, &udp(4789))), PASSED, "not joined");
    assert_eq!(run(&program, &ipv6(group6, 17, &udp(4789))), PASSED, "not joined");
    for address in [IpAddr::V4(group), IpAddr::V6(group6)] {
        program.add_local(address, None).unwrap();
    }
    let cases: &[(&str, Vec<u8>, u32)] = &[
        ("VXLAN to the group", ipv4(group, 17, 0, 0, &udp(4789)), TAKEN),
        ("VXLAN behind options", ipv4(group, 17, 0, 1, &udp(4789)), TAKEN),
        ("another port of the group", ipv4(group, 17, 0, 0, &udp(5353)), PASSED),
        ("IGMP to the group", ipv4(group, 2, 0, 1, &[0; 8]), PASSED),
        ("another group", ipv4(beside, 17, 0, 0, &udp(4789)), PASSED),
        ("broadcast", ipv4(Ipv4Addr::BROADCAST, 17, 0, 0, &udp(4789)), PASSED),
        ("VXLAN to the group over IPv6", ipv6(group6, 17, &udp(4789)), TAKEN),
        ("another port of it", ipv6(group6, 17, &udp(5353)), PASSED),
        ("MLD to the group", ipv6(group6, 0, &[58, 0, 5, 2, 0, 0, 0, 0]), PASSED),
        ("another group over IPv6", ipv6(beside6, 17, &udp(4789)), PASSED),
        ("the node's own address still", ipv4(OURS, 17, 0, 0, &udp(4789)), TAKEN),
        ("transit still", ipv4(OTHER, 17, 0, 0, &udp(4789)), TAKEN),
    ];
    for (name, frame, expected) in cases {
        assert_eq!(run(&program, frame), *expected, "{name}");
    }
}

#[test]
fn the_uplink_takes_what_may_be_a_translated_flows() {
    let Some(program) = program(ProgramKind::Uplink) else { return };
    for address in [IpAddr::V4(OURS), IpAddr::V6(OURS6)] {
        program.add_local(address, Some(&(50_000..=50_999))).unwrap();
    }
    program.add_tunnel(VXLAN).unwrap();
    let cases: &[(&str, Vec<u8>, u32)] = &[
        ("below the range", ipv4(OURS, 6, 0, 0, &udp(49_999)), PASSED),
        ("first of the range", ipv4(OURS, 6, 0, 0, &udp(50_000)), TAKEN),
        ("last of the range", ipv4(OURS, 17, 0, 0, &udp(50_999)), TAKEN),
        ("above the range", ipv4(OURS, 17, 0, 0, &udp(51_000)), PASSED),
        ("SCTP", ipv4(OURS, 132, 0, 0, &udp(50_500)), TAKEN),
        ("behind options", ipv4(OURS, 6, 0, 10, &udp(50_500)), TAKEN),
        ("ssh", ipv4(OURS, 6, 0, 0, &udp(22)), PASSED),
        ("a tunnel's port", ipv4(OURS, 17, 0, 0, &udp(4789)), TAKEN),
        ("GRE", ipv4(OURS, 47, 0, 0, &udp(50_500)), PASSED),
        ("ports cut off", ipv4(OURS, 6, 0, 0, &udp(50_500)[..3]), PASSED),
        ("later fragment", ipv4(OURS, 17, 100, 0, &[0; 8]), TAKEN),
        ("first fragment", ipv4(OURS, 17, 0x2000, 0, &udp(53)), TAKEN),
        ("echo request", ipv4(OURS, 1, 0, 0, &[8, 0, 0, 0]), PASSED),
        ("echo reply", ipv4(OURS, 1, 0, 0, &[0, 0, 0, 0]), TAKEN),
        ("time exceeded", ipv4(OURS, 1, 0, 0, &[11, 0, 0, 0]), TAKEN),
        ("in the range over IPv6", ipv6(OURS6, 6, &udp(50_500)), TAKEN),
        ("outside over IPv6", ipv6(OURS6, 6, &udp(179)), PASSED),
        ("fragment over IPv6", ipv6(OURS6, 44, &[0; 8]), TAKEN),
        ("echo request over IPv6", ipv6(OURS6, 58, &[128, 0, 0, 0]), PASSED),
        ("packet too big over IPv6", ipv6(OURS6, 58, &[2, 0, 0, 0]), TAKEN),
        ("neighbour solicitation to the address itself", ipv6(OURS6, 58, &[135, 0, 0, 0]), PASSED),
        ("neighbour advertisement", ipv6(OURS6, 58, &[136, 0, 0, 0]), PASSED),
        ("cut short over IPv6", ipv6(OURS6, 6, &udp(50_500)[..3]), PASSED),
    ];
    for (name, frame, expected) in cases {
        assert_eq!(run(&program, frame), *expected, "{name}");
    }
    program.add_local(IpAddr::V4(OURS), None).unwrap();
    assert_eq!(run(&program, &cases[1].1), PASSED, "nothing is translated any more");
}

#[test]
fn the_workload_program_takes_everything() {
    check(
        ProgramKind::Workload,
        &[
            ("ARP", ethernet(0x0806, &[0; 28]), TAKEN),
            ("IPv4", ipv4(OURS, 6, 0, 0, &[0; 20]), TAKEN),
            ("neighbour solicitation", ipv6("ff02::1:ff00:1".parse().unwrap(), 58, &[0; 24]), TAKEN),
            ("a bare header", ethernet(0x1234, &[]), TAKEN),
        ],
    );
}

#[test]
fn local_addresses_come_and_go() {
    let Some(program) = program(ProgramKind::Uplink) else { return };
    let (frame, frame6) = (ipv4(OTHER, 6, 0, 0, &[0; 20]), ipv6(OTHER6, 6, &[0; 20]));
    for (address, frame) in [(IpAddr::V4(OTHER), &frame), (IpAddr::V6(OTHER6), &frame6)] {
        assert_eq!(run(&program, frame), TAKEN);
        program.add_local(address, None).unwrap();
        program.add_local(address, None).unwrap();
        assert_eq!(run(&program, frame), PASSED);
        assert!(program.remove_local(address).unwrap());
        assert!(!program.remove_local(address).unwrap());
        assert_eq!(run(&program, frame), TAKEN);
    }
}

#[test]
fn tunnels_come_and_go_each_by_itself() {
    let Some(program) = program(ProgramKind::Uplink) else { return };
    let packets = [
        (TunnelKind::Ipip, ipv4(OURS, 4, 0, 0, &[0; 20])),
        (VXLAN, ipv4(OURS, 17, 0, 0, &udp(4789))),
        (VXLAN_OF_LINUX, ipv6(OURS6, 17, &udp(8472))),
    ];
    let taken = || packets.each_ref().map(|(_, frame)| run(&program, frame) == TAKEN);
    assert_eq!(taken(), [false; 3]);
    for (index, (tunnel, _)) in packets.iter().enumerate() {
        program.add_tunnel(*tunnel).unwrap();
        program.add_tunnel(*tunnel).unwrap();
        assert_eq!(taken(), std::array::from_fn(|other| other == index), "{tunnel:?} alone");
        assert!(program.remove_tunnel(*tunnel).unwrap());
        assert!(!program.remove_tunnel(*tunnel).unwrap());
        assert_eq!(taken(), [false; 3], "{tunnel:?} gone");
    }
}

#[test]
fn a_full_set_of_tunnels_is_an_error_that_says_so() {
    let Some(program) = program(ProgramKind::Uplink) else { return };
    for port in 1..=TUNNELS_MAX as u16 {
        program.add_tunnel(TunnelKind::Vxlan { port }).unwrap();
    }
    let error = program.add_tunnel(TunnelKind::Ipip).unwrap_err();
    assert!(matches!(error, ProgramError::TunnelsFull { tunnel: TunnelKind::Ipip }), "{error}");
}

#[test]
fn a_full_set_of_local_addresses_is_an_error_that_says_so() {
    let Some(program) = program(ProgramKind::Uplink) else { return };
    let full = (0..2 * LOCAL_ADDRESSES_MAX).find_map(|n| {
        let address = IpAddr::V4(Ipv4Addr::from(0x0a00_0000 + n));
        program.add_local(address, None).err().map(|error| (n, error))
    });
    let (n, error) = full.expect("the map is bounded");
    assert!(matches!(error, ProgramError::LocalAddressesFull { .. }), "{error}");
    assert_eq!(n + 1, LOCAL_ADDRESSES_MAX, "one address was there before");
}

#[test]
fn a_workload_program_knows_no_addresses_no_tunnels_and_no_queue_beyond_its_own() {
    let Some(program) = program(ProgramKind::Workload) else { return };
    assert!(matches!(program.add_local(IpAddr::V4(OURS), None), Err(ProgramError::TakesEverything)));
    assert!(matches!(program.add_tunnel(VXLAN), Err(ProgramError::TakesEverything)));
    assert!(matches!(program.remove_socket(4), Err(ProgramError::NoSuchQueue { queue: 4, max_queues: 4 })));
}

#[test]
fn where_no_socket_is_bound_an_uplink_passes_and_a_workload_drops() {
    let frame = ipv4(OTHER, 6, 0, 0, &[0; 20]);
    for (kind, expected) in [(ProgramKind::Uplink, Action::Pass), (ProgramKind::Workload, Action::Drop)] {
        match Program::load(kind, 1) {
            Ok(program) => assert_eq!(run(&program, &frame), expected as u32),
            Err(ProgramError::NotPermitted { doing }) => println!("skipped: not permitted to {doing}"),
            Err(error) => panic!("{error}"),
        }
    }
}

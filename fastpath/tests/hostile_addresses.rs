//! Packets from and to addresses that no router forwards: each ends in the one fate that names it.

mod support;

use model::PortId;
use support::{Build, Rig, STRANGER, UPLINK, WORKLOAD, dhcp_request};
use tables::FlowRules;

/// The fate of a packet, by name.
fn fate(from: PortId, source: &str, destination: &str) -> String {
    let mut rig = Rig::new();
    let moved = rig.send(from, &Build::packet(from, source, destination).frame());
    let ends = moved.punts().into_iter().chain(moved.drops());
    let mut names: Vec<&str> = ends.flat_map(|(name, count)| vec![name; count as usize]).collect();
    names.extend(vec!["forwarded"; moved.forwarded() as usize]);
    rig.audit();
    assert_eq!(names.len(), 1, "one packet, one fate: {names:?}");
    names[0].to_owned()
}

#[test]
fn destinations() {
    for (destination, expected) in [
        ("0.0.0.0", "martian_destination"),
        ("0.1.2.3", "martian_destination"),
        ("127.0.0.1", "martian_destination"),
        ("127.255.255.255", "martian_destination"),
        ("169.254.169.254", "link_local"),
        // The broadcast of a network that this router is in, and that of one it isn't in, which nobody here can know.
        ("172.18.0.255", "directed_broadcast"),
        ("10.65.1.255", "no_route"),
        ("224.0.0.1", "multicast"),
        ("224.0.0.251", "multicast"),
        ("239.255.255.255", "multicast"),
        ("240.0.0.1", "martian_destination"),
        ("255.255.255.254", "martian_destination"),
        ("255.255.255.255", "broadcast"),
        ("10.65.1.2", "forwarded"),
    ] {
        assert_eq!(fate(UPLINK, "10.69.0.1", destination), expected, "{destination}");
        assert_eq!(fate(WORKLOAD, "10.65.0.2", destination), expected, "{destination}");
    }
}

#[test]
fn sources_from_an_uplink() {
    for (source, expected) in [
        ("0.0.0.0", "martian_source"),
        ("0.1.2.3", "martian_source"),
        ("127.0.0.1", "martian_source"),
        ("169.254.1.1", "link_local"),
        ("224.0.0.1", "martian_source"),
        ("239.1.1.1", "martian_source"),
        ("240.0.0.1", "martian_source"),
        ("255.255.255.255", "martian_source"),
        ("192.0.2.1", "forwarded"),
    ] {
        assert_eq!(fate(UPLINK, source, "10.65.0.2"), expected, "{source}");
    }
}

#[test]
fn ipv6_destinations() {
    for (destination, expected) in [
        ("::", "martian_destination"),
        ("::1", "martian_destination"),
        ("::ffff:10.65.1.2", "martian_destination"),
        ("fe80::1", "link_local"),
        ("febf::1", "link_local"),
        ("ff01::1", "multicast"),
        ("ff02::1", "multicast"),
        ("ff0e::1", "multicast"),
        // Site-local addresses are ordinary ones since RFC 3879, and unique local ones always were.
        ("fec0::1", "no_route"),
        ("fd65:1::2", "forwarded"),
        ("64:ff9b::10.65.1.2", "no_route"),
    ] {
        assert_eq!(fate(UPLINK, "fd69::1", destination), expected, "{destination}");
        assert_eq!(fate(WORKLOAD, "fd65::2", destination), expected, "{destination}");
    }
}

#[test]
fn ipv6_sources_from_an_uplink() {
    for (source, expected) in [
        ("::", "martian_source"),
        ("::1", "martian_source"),
        ("::ffff:10.65.1.2", "martian_source"),
        // The sender is told that its address doesn't reach that far (RFC 4443 §3.1, code 2).
        ("fe80::1", "beyond_scope"),
        ("ff02::1", "martian_source"),
        ("fec0::1", "forwarded"),
        ("fd69::1", "forwarded"),
        ("2001:db8::1", "forwarded"),
    ] {
        assert_eq!(fate(UPLINK, source, "fd65::2"), expected, "{source}");
    }
}

/// A workload's own addresses are all that it may send from; what is wrong with an address wherever it comes from is
/// named first.
#[test]
fn sources_from_a_workload() {
    for (source, destination, expected) in [
        ("10.65.0.3", "10.65.1.2", "spoofed_source"),
        ("172.18.0.1", "10.65.1.2", "spoofed_source"),
        ("127.0.0.1", "10.65.1.2", "martian_source"),
        ("fd65::3", "fd65:1::2", "spoofed_source"),
        // Neighbour discovery aside, which is punted, nothing from a link-local address goes further than the link.
        ("fe80::2", "fd65:1::2", "beyond_scope"),
        ("fe80::2", "fe80::ecee:eeff:feee:eeee", "link_local"),
        ("::", "fd65:1::2", "martian_source"),
    ] {
        assert_eq!(fate(WORKLOAD, source, destination), expected, "{source} to {destination}");
    }
}

/// A workload that asks for an address by DHCP: 0.0.0.0:68 to 255.255.255.255:67, in a broadcast frame. There is no
/// relay, and only under OpenStack a server here; that it is no spoofing is what the fate says.
#[test]
fn a_dhcp_request_of_a_workload_is_a_broadcast_and_no_spoofing() {
    for to in [[0xff; 6], support::mac(WORKLOAD).0] {
        let mut rig = Rig::new();
        let mut frame = Build::packet(WORKLOAD, "0.0.0.0", "255.255.255.255").frame();
        frame[..6].copy_from_slice(&to);
        frame[34..38].copy_from_slice(&[0, 68, 0, 67]);
        let moved = rig.send(WORKLOAD, &frame);
        assert_eq!(moved.drops(), [("broadcast", 1)]);
    }
}

/// Under OpenStack it goes up, so that the host's kernel gets it; nothing else to many does, and nothing under an address that
/// isn't the workload's.
#[test]
fn an_instances_dhcp_request_goes_up_and_nothing_else_to_many_does() {
    let mut rig = Rig::new();
    rig.writer.set_flow_rules(FlowRules { passes_dhcp_and_dns: true, ..FlowRules::default() });
    rig.publish();
    let other = |from, src: &str, dst: &str, sport, dport| {
        let mut frame = Build::packet(from, src, dst).sport(sport).dport(dport).frame();
        match dst {
            "255.255.255.255" => frame[..6].fill(0xff),
            _ => frame = support::to_group(frame),
        }
        frame
    };
    let (all, all_v6) = ("255.255.255.255", "ff02::1:2");
    let mut fragment = dhcp_request("0.0.0.0", all);
    fragment[20] = 0x20;
    support::mend_ipv4_checksum(&mut fragment);
    for (what, port, frame, expected) in [
        ("no address yet", WORKLOAD, dhcp_request("0.0.0.0", all), "dhcp"),
        ("rebinds", WORKLOAD, dhcp_request("10.65.0.2", all), "dhcp"),
        ("DHCPv6", WORKLOAD, dhcp_request("fe80::2", all_v6), "dhcp"),
        ("DHCPv6 from an own address", WORKLOAD, dhcp_request("fd65::2", all_v6), "dhcp"),
        ("spoofed", WORKLOAD, dhcp_request("10.65.0.3", all), "broadcast"),
        ("spoofed by IPv6", WORKLOAD, dhcp_request("fd65::3", all_v6), "multicast"),
        ("a server's", WORKLOAD, other(WORKLOAD, "10.65.0.2", all, 67, 68), "broadcast"),
        ("a server's by IPv6", WORKLOAD, other(WORKLOAD, "fe80::2", all_v6, 547, 546), "multicast"),
        ("the other family's ports", WORKLOAD, other(WORKLOAD, "0.0.0.0", all, 546, 547), "broadcast"),
        ("DNS", WORKLOAD, other(WORKLOAD, "10.65.0.2", all, 68, 53), "broadcast"),
        ("mDNS", WORKLOAD, other(WORKLOAD, "10.65.0.2", "224.0.0.251", 68, 67), "multicast"),
        ("another group", WORKLOAD, other(WORKLOAD, "fe80::2", "ff05::1:3", 546, 547), "multicast"),
        ("a fragment", WORKLOAD, fragment, "broadcast"),
        ("the network's", UPLINK, other(UPLINK, "0.0.0.0", all, 68, 67), "broadcast"),
        ("nobody's", STRANGER, other(STRANGER, "0.0.0.0", all, 68, 67), "unknown_endpoint"),
    ] {
        let moved = rig.send(port, &frame);
        let fates: Vec<_> = [moved.punts(), moved.drops()].concat();
        assert_eq!(fates, [(expected, 1)], "{what}");
        let up = rig.punts.pop(|punt, bytes| (punt.port, bytes.to_vec()));
        assert_eq!(up, (expected == "dhcp").then_some((Some(port), frame)), "{what}");
    }
    rig.audit();
}

#[test]
fn a_workload_may_send_from_further_prefixes_where_its_endpoint_has_them() {
    let mut rig = Rig::new();
    let mut port = support::port(WORKLOAD);
    let endpoint = port.endpoint.as_mut().unwrap();
    endpoint.addresses.extend(["192.0.2.0/24", "2001:db8::/64"].map(support::prefix));
    rig.writer.put_port(port).unwrap();
    rig.writer.publish();
    for (source, to, forwarded) in [
        ("192.0.2.7", "10.65.1.2", 1),
        ("192.0.3.7", "10.65.1.2", 0),
        ("2001:db8::7", "fd65:1::2", 1),
        ("2001:db8:1::7", "fd65:1::2", 0),
        ("10.65.0.2", "10.65.1.2", 1),
    ] {
        let moved = rig.send(WORKLOAD, &Build::packet(WORKLOAD, source, to).frame());
        assert_eq!(moved.forwarded(), forwarded, "{source}");
    }
}

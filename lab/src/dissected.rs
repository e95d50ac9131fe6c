//! What tshark makes of a capture: the headers of each frame, outside and inside tunnels.

use std::net::IpAddr;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use model::MacAddr;

use crate::capture::Captured;
use crate::command;
use crate::traffic::DATAGRAMS_PORT;

/// How long tshark may take to read a capture of some tens of megabytes.
const READING: Duration = Duration::from_secs(180);

/// The fields asked for, in order.
const FIELDS: [&str; 9] = [
    "frame.protocols",
    "eth.src",
    "eth.dst",
    "ip.src",
    "ip.dst",
    "ipv6.src",
    "ipv6.dst",
    "udp.dstport",
    "vxlan.vni",
];

/// A frame that tshark finds malformed, or a checksum in it that is wrong, wherever in it that is.
///
/// tshark also calls a TCP checksum of 0xffff bad, where 0 is meant: Linux writes it so for every protocol
/// (`skb_checksum_help` in net/core/dev.c, `CSUM_MANGLED_0`), in one segment of 65,536, and every receiver takes it.
const WRONG: &str = "_ws.malformed || ip.checksum.status == \"Bad\" \
                     || (tcp.checksum.status == \"Bad\" && !tcp.checksum.ffff) || udp.checksum.status == \"Bad\" || icmp.checksum.status == \"Bad\" \
                     || icmpv6.checksum.status == \"Bad\"";

/// How a frame is wrapped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wrapping {
    /// Not at all.
    Plain,
    /// In IPv4 (protocol 4).
    Ipip(Outer),
    /// In UDP.
    Vxlan {
        /// The outer IP header.
        outer: Outer,
        /// The UDP destination port.
        port: u16,
        /// The network identifier.
        vni: u32,
        /// Source and destination MAC address inside.
        macs: (MacAddr, MacAddr),
    },
}

/// The addresses of an outer IP header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outer {
    /// From.
    pub source: IpAddr,
    /// To.
    pub destination: IpAddr,
}

/// An IP packet on a wire.
#[derive(Clone, Debug)]
pub struct Frame {
    /// How it is wrapped.
    pub wrapping: Wrapping,
    /// The source of what is inside, or of the packet itself.
    pub source: IpAddr,
    /// The destination of what is inside, or of the packet itself.
    pub destination: IpAddr,
}

/// An ARP message inside VXLAN.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arp {
    /// The outer IP header.
    pub outer: Outer,
    /// The network identifier.
    pub vni: u32,
    /// Does it ask, rather than answer?
    pub is_request: bool,
    /// The address that it is from.
    pub sender: IpAddr,
    /// The address that it asks for, or that it answers to.
    pub target: IpAddr,
}

/// The IP packets of a capture whose outermost header is IPv4, every one of which tshark finds well-formed and right in all
/// its checksums. ARP inside VXLAN is not among them: see [`arp_in_vxlan`].
///
/// # Errors
/// One is not, or tshark cannot read the capture.
pub fn frames(captured: &Captured) -> Result<Vec<Frame>> {
    dissect(captured, "ip")
}

/// Those whose outermost header is IPv6: see [`frames`].
///
/// # Errors
/// As [`frames`].
pub fn frames_v6(captured: &Captured) -> Result<Vec<Frame>> {
    dissect(captured, "ipv6")
}

/// How many frames a capture holds, every one of which tshark finds well-formed and right in all its checksums.
///
/// # Errors
/// As [`frames`].
pub fn well_formed(captured: &Captured) -> Result<usize> {
    nothing_is_wrong(captured)?;
    Ok(tshark(captured, &["-T", "fields", "-e", "frame.number"])?.lines().count())
}

/// The frames in which any header names one of these addresses, those that an ICMP error quotes included, as tshark prints
/// them.
///
/// # Errors
/// tshark cannot read the capture.
pub fn naming(captured: &Captured, addresses: &[IpAddr]) -> Result<Vec<String>> {
    let filter = |address: &IpAddr| {
        let field = if address.is_ipv6() { "ipv6.addr" } else { "ip.addr" };
        format!("{field} == {address}")
    };
    let filter = addresses.iter().map(filter).collect::<Vec<_>>().join(" || ");
    Ok(tshark(captured, &["-Y", &filter])?.lines().map(str::to_owned).collect())
}

/// When each UDP datagram to a port was captured, and where it went: the time since 1970, by one clock in all namespaces.
///
/// # Errors
/// tshark cannot read the capture.
pub fn datagrams(captured: &Captured, port: u16) -> Result<Vec<(Duration, IpAddr)>> {
    let filter = format!("udp.dstport == {port}");
    let fields = ["frame.time_epoch", "ip.dst", "ipv6.dst"].iter().flat_map(|field| ["-e", field]);
    let arguments: Vec<&str> = ["-Y", &filter, "-T", "fields"].into_iter().chain(fields).collect();
    let text = tshark(captured, &arguments)?;
    text.lines().map(|line| datagram(line).with_context(|| format!("tshark said: {line}"))).collect()
}

/// A time, then an IPv4 or an IPv6 address.
fn datagram(line: &str) -> Option<(Duration, IpAddr)> {
    let mut columns = line.split('\t');
    let time = Duration::try_from_secs_f64(columns.next()?.parse().ok()?).ok()?;
    Some((time, columns.find(|column| !column.is_empty())?.parse().ok()?))
}

/// The ARP messages inside VXLAN of a capture.
///
/// # Errors
/// As [`frames`].
pub fn arp_in_vxlan(captured: &Captured) -> Result<Vec<Arp>> {
    nothing_is_wrong(captured)?;
    let fields = [FIELDS.as_slice(), &["arp.opcode", "arp.src.proto_ipv4", "arp.dst.proto_ipv4"]].concat();
    let text = fields_of(captured, "vxlan && arp", &fields)?;
    text.lines().map(|line| arp(line).with_context(|| format!("tshark said: {line}"))).collect()
}

fn dissect(captured: &Captured, outermost: &str) -> Result<Vec<Frame>> {
    nothing_is_wrong(captured)?;
    let text = fields_of(captured, "(ip || ipv6) && !(vxlan && arp)", &FIELDS)?;
    let is_asked_for = |line: &&str| network_layers(line).next() == Some(outermost);
    let lines = text.lines().filter(is_asked_for);
    lines.map(|line| frame(line).with_context(|| format!("tshark said: {line}"))).collect()
}

fn nothing_is_wrong(captured: &Captured) -> Result<()> {
    let wrong = tshark(captured, &["-Y", WRONG])?;
    let count = wrong.lines().count();
    ensure!(
        count == 0,
        "tshark finds {count} frames wrong, the first: {}",
        wrong.lines().next().unwrap_or("")
    );
    Ok(())
}

fn fields_of(captured: &Captured, filter: &str, fields: &[&str]) -> Result<String> {
    let mut arguments = vec!["-Y", filter, "-T", "fields", "-E", "occurrence=a", "-E", "aggregator=,"];
    arguments.extend(fields.iter().flat_map(|field| ["-e", field]));
    tshark(captured, &arguments)
}

/// The families of a line's IP headers, outermost first.
fn network_layers(line: &str) -> impl Iterator<Item = &str> {
    let protocols = line.split('\t').next().unwrap_or("");
    protocols.split(':').filter(|protocol| matches!(*protocol, "ip" | "ipv6"))
}

/// What tshark prints of a capture, having looked at every checksum.
pub(crate) fn tshark(captured: &Captured, arguments: &[&str]) -> Result<String> {
    let mut tshark = Command::new("tshark");
    tshark.args(["-n", "-r"]).arg(captured.file());
    // tshark knows port 4789 by itself; 8472 is Linux's and flannel's.
    tshark.args(["-d", "udp.port==8472,vxlan"]);
    // What TCP and our datagrams carry is made up, and now and then looks like a protocol that tshark then finds malformed.
    tshark.args(["-d", "tcp.port==1-65535,data", "-d", &format!("udp.port=={DATAGRAMS_PORT},data")]);
    for protocol in ["ip", "tcp", "udp"] {
        tshark.args(["-o", &format!("{protocol}.check_checksum:TRUE")]);
    }
    command::run(tshark.args(arguments), READING)
}

/// A line of [`FIELDS`], in which a header that occurs twice has two values.
fn frame(line: &str) -> Option<Frame> {
    let line = Line::read(line)?;
    let outermost = *line.headers.first()?;
    let wrapping = if line.protocols.starts_with("eth:ethertype:ip:ip") {
        Wrapping::Ipip(outermost)
    } else if line.is_vxlan() {
        Wrapping::Vxlan {
            outer: outermost,
            port: line.port?,
            vni: line.vni?,
            macs: line.macs.get(1).copied()?,
        }
    } else {
        Wrapping::Plain
    };
    let inner = line.headers.get(usize::from(wrapping != Wrapping::Plain))?;
    Some(Frame { wrapping, source: inner.source, destination: inner.destination })
}

/// A line of [`FIELDS`] and ARP's.
fn arp(line: &str) -> Option<Arp> {
    let words = Line::read(line)?;
    let mut rest = line.split('\t').skip(FIELDS.len());
    Some(Arp {
        outer: *words.headers.first()?,
        vni: words.vni?,
        is_request: rest.next()? == "1",
        sender: rest.next()?.parse().ok()?,
        target: rest.next()?.parse().ok()?,
    })
}

/// What a line says, in order of the headers.
struct Line<'a> {
    protocols: &'a str,
    /// Source and destination of each Ethernet header.
    macs: Vec<(MacAddr, MacAddr)>,
    /// The addresses of each IP header, whichever family it is of.
    headers: Vec<Outer>,
    /// The outermost UDP header's destination port.
    port: Option<u16>,
    vni: Option<u32>,
}

impl<'a> Line<'a> {
    fn read(line: &'a str) -> Option<Line<'a>> {
        let mut columns = line.split('\t');
        let protocols = columns.next()?;
        let mut values = || columns.next().unwrap_or("").split(',').filter(|value| !value.is_empty());
        let macs = values().zip(values()).map(|(from, to)| Some((from.parse().ok()?, to.parse().ok()?)));
        let macs = macs.collect::<Option<_>>()?;
        let (mut v4, mut v6) = (values().zip(values()), values().zip(values()));
        let header = |family| {
            let (source, destination) = if family == "ip" { v4.next()? } else { v6.next()? };
            Some(Outer { source: source.parse().ok()?, destination: destination.parse().ok()? })
        };
        let headers = network_layers(line).map(header).collect::<Option<_>>()?;
        let (port, vni) = (values().next(), values().next());
        Some(Line {
            protocols,
            macs,
            headers,
            port: port.and_then(|port| port.parse().ok()),
            vni: vni.and_then(|vni| vni.parse().ok()),
        })
    }

    fn is_vxlan(&self) -> bool {
        let begins = |outer: &str| self.protocols.starts_with(&format!("eth:ethertype:{outer}:udp:vxlan:"));
        begins("ip") || begins("ipv6")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MACS: (&str, &str) = ("02:00:00:00:00:01", "02:00:00:00:00:02");

    fn addr(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn a_packet_in_ipip_is_told_from_one_that_an_icmp_error_quotes() {
        let (a, b) = MACS;
        let line = format!(
            "eth:ethertype:ip:ip:tcp\t{a}\t{b}\t172.16.6.47,192.168.1.1\t172.16.6.249,192.168.2.1\t\t\t\t"
        );
        let wrapped = frame(&line).expect("a frame");
        let outer = Outer { source: addr("172.16.6.47"), destination: addr("172.16.6.249") };
        assert_eq!(wrapped.wrapping, Wrapping::Ipip(outer));
        assert_eq!((wrapped.source, wrapped.destination), (addr("192.168.1.1"), addr("192.168.2.1")));
        let line = format!(
            "eth:ethertype:ip:icmp:ip:udp\t{a}\t{b}\t172.16.6.47,192.168.1.1\t192.168.1.1,192.168.2.1\t\t\t53\t"
        );
        let error = frame(&line).expect("a frame");
        assert_eq!((error.wrapping, error.source), (Wrapping::Plain, addr("172.16.6.47")));
    }

    #[test]
    fn a_datagram_has_a_time_and_the_destination_of_its_family() {
        let read = |line| datagram(line).map(|(time, to)| (time.as_micros(), to.to_string()));
        let at = 1_795_257_753_669_389;
        assert_eq!(read("1795257753.669389000\t10.66.0.7\t"), Some((at, "10.66.0.7".to_owned())));
        assert_eq!(read("1795257753.669389000\t\tfd66::7"), Some((at, "fd66::7".to_owned())));
        assert_eq!(read("1795257753.669389000\t\t"), None);
    }

    #[test]
    fn a_frame_in_vxlan_has_mac_addresses_of_its_own() {
        let line = "eth:ethertype:ip:udp:vxlan:eth:ethertype:ip:udp:data\t02:00:00:00:00:01,66:00:00:00:00:01\t\
                    02:00:00:00:00:02,66:00:00:00:00:02\t172.16.6.47,192.168.1.1\t172.16.6.249,192.168.2.1\t\t\t\
                    4789,5201\t4096";
        let Wrapping::Vxlan { port, vni, macs, .. } = frame(line).expect("a frame").wrapping else {
            panic!("not VXLAN");
        };
        assert_eq!((port, vni, macs.1), (4789, 4096, MacAddr([0x66, 0, 0, 0, 0, 2])));
    }

    #[test]
    fn headers_of_two_families_are_told_apart() {
        let line = "eth:ethertype:ipv6:udp:vxlan:eth:ethertype:ip:icmp:data\t02:00:00:00:00:01,66:00:00:00:00:01\t\
                    02:00:00:00:00:02,66:00:00:00:00:02\t192.168.1.1\t192.168.2.1\tfd18::2\tfd18::4\t8472\t2";
        let read = frame(line).expect("a frame");
        let Wrapping::Vxlan { outer, port, vni, .. } = read.wrapping else { panic!("not VXLAN") };
        assert_eq!((outer.source, outer.destination, port, vni), (addr("fd18::2"), addr("fd18::4"), 8472, 2));
        assert_eq!((read.source, read.destination), (addr("192.168.1.1"), addr("192.168.2.1")));
    }

    #[test]
    fn arp_in_vxlan_is_read_with_its_outer_header() {
        let line = "eth:ethertype:ip:udp:vxlan:eth:ethertype:arp\t02:00:00:00:00:01,66:00:00:00:00:01\t\
                    02:00:00:00:00:02,ff:ff:ff:ff:ff:ff\t10.57.4.20\t239.1.1.1\t\t\t4789\t100\t1\t192.168.10.1\t192.168.11.1";
        let outer = Outer { source: addr("10.57.4.20"), destination: addr("239.1.1.1") };
        let (sender, target) = (addr("192.168.10.1"), addr("192.168.11.1"));
        assert_eq!(arp(line), Some(Arp { outer, vni: 100, is_request: true, sender, target }));
    }
}

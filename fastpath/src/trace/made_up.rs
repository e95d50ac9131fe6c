//! Packets that an operator makes up, to see what would become of them.

use std::error::Error;
use std::fmt;
use std::net::IpAddr;

use model::{Family, MacAddr, PortId};
use packet::encapsulation::Template;
use packet::{checksum, ecn, ethernet, icmp, ipv4, ipv6, protocol, tcp, udp};
use tables::{State, TunnelEnd, TunnelKind};

/// The sender's MAC address, where nobody cares: of the locally administered ones.
const SOMEBODY: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);
/// The longest payload: a packet of 16 bits of length has room for any headers beside it.
const LONGEST: u16 = 9_000;

/// A packet as one describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MadeUp {
    /// The port that it comes in by.
    pub ingress: PortId,
    /// Where it comes from.
    pub source: IpAddr,
    /// Where it goes to, of the same family.
    pub destination: IpAddr,
    /// IANA's number.
    pub protocol: u8,
    /// Source and destination port, of TCP, UDP and SCTP.
    pub ports: (u16, u16),
    /// Flags of TCP.
    pub tcp_flags: u8,
    /// Type, code and identifier of an ICMP message.
    pub icmp: (u8, u8, u16),
    /// TTL or hop limit.
    pub ttl: u8,
    /// Differentiated services code point.
    pub dscp: u8,
    /// May routers not cut it? IPv6 packets never may be.
    pub dont_fragment: bool,
    /// Bytes behind the upper-layer header.
    pub payload: u16,
    /// The tunnel that it comes in, if it does.
    pub outer: Option<Outer>,
}

/// The outer headers of a packet in a tunnel that ends here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outer {
    /// Where the tunnel begins.
    pub source: IpAddr,
    /// Where it ends; where it isn't said, the first end of that kind here.
    pub destination: Option<IpAddr>,
    /// VXLAN, and its network identifier where it is said; else IPIP.
    pub vxlan: Option<Option<u32>>,
}

/// Why a packet can't be made up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unfit {
    /// Its addresses are of two families.
    TwoFamilies,
    /// There is no port with that number.
    NoSuchPort,
    /// No tunnel of that kind and family ends here.
    NoSuchTunnel,
    /// No frame has room for it.
    TooLong,
}

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Unfit::TwoFamilies => "a packet is of one family, and these addresses are of two",
            Unfit::NoSuchPort => "there is no such port",
            Unfit::NoSuchTunnel => "no tunnel of that kind and family ends here",
            Unfit::TooLong => "no frame has room for it",
        })
    }
}

impl Error for Unfit {}

impl MadeUp {
    /// The frame as it would come in.
    pub(super) fn frame(&self, state: &State) -> Result<Vec<u8>, Unfit> {
        let port = state.ports.get(self.ingress).ok_or(Unfit::NoSuchPort)?;
        let packet = self.packet()?;
        let Some(outer) = &self.outer else {
            return Ok(link(self.link_destination(port.mac), self.source, &packet));
        };
        let (local, kind) = outer.end(&state.tunnel_ends)?;
        let far = SOMEBODY;
        let (template, inner) = match (outer.source, local, kind) {
            (IpAddr::V4(from), IpAddr::V4(to), TunnelKind::Ipip) if self.source.is_ipv4() => {
                (Template::ipip(from, to), packet)
            }
            (IpAddr::V4(from), IpAddr::V4(to), TunnelKind::Vxlan { port, vni, mac }) => {
                let vni = outer.vni().unwrap_or(vni);
                (Template::vxlan(from, to, port, vni, mac, far), link(mac, self.source, &packet))
            }
            (IpAddr::V6(from), IpAddr::V6(to), TunnelKind::Vxlan { port, vni, mac }) => {
                let vni = outer.vni().unwrap_or(vni);
                (Template::vxlan_v6(from, to, port, vni, mac, far), link(mac, self.source, &packet))
            }
            _ => return Err(Unfit::NoSuchTunnel),
        };
        Ok(in_tunnel(port.mac, &template, kind, &inner))
    }

    /// Where its frame goes on the link: to this router, unless many are meant (RFC 1112 §6.4, RFC 2464 §7).
    fn link_destination(&self, router: MacAddr) -> MacAddr {
        match self.destination {
            IpAddr::V4(to) if to.is_broadcast() => MacAddr::BROADCAST,
            IpAddr::V4(to) if to.is_multicast() => {
                let [_, b, c, d] = to.octets();
                MacAddr([0x01, 0x00, 0x5e, b & 0x7f, c, d])
            }
            IpAddr::V6(to) if to.is_multicast() => {
                let [.., a, b, c, d] = to.octets();
                MacAddr([0x33, 0x33, a, b, c, d])
            }
            _ => router,
        }
    }

    /// The IP packet.
    fn packet(&self) -> Result<Vec<u8>, Unfit> {
        let upper = self.upper()?;
        let payload_len = u16::try_from(upper.len()).map_err(|_| Unfit::TooLong)?;
        let mut packet;
        match (self.source, self.destination) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => {
                packet = vec![0; ipv4::HEADER_LEN + upper.len()];
                let header = ipv4::Repr {
                    src,
                    dst,
                    protocol: self.protocol,
                    ttl: self.ttl,
                    tos: self.dscp << 2,
                    dont_fragment: self.dont_fragment,
                    payload_len,
                    ..ipv4::Repr::default()
                };
                header.emit(&mut packet).map_err(|_| Unfit::TooLong)?;
            }
            (IpAddr::V6(src), IpAddr::V6(dst)) => {
                packet = vec![0; ipv6::HEADER_LEN + upper.len()];
                let header = ipv6::Repr {
                    src,
                    dst,
                    next_header: self.protocol,
                    hop_limit: self.ttl,
                    traffic_class: self.dscp << 2,
                    payload_len,
                    ..ipv6::Repr::default()
                };
                header.emit(&mut packet).map_err(|_| Unfit::TooLong)?;
            }
            _ => return Err(Unfit::TwoFamilies),
        }
        let start = packet.len() - upper.len();
        packet[start..].copy_from_slice(&upper);
        Ok(packet)
    }

    /// The upper-layer header and payload.
    fn upper(&self) -> Result<Vec<u8>, Unfit> {
        if Family::of(self.source) != Family::of(self.destination) {
            return Err(Unfit::TwoFamilies);
        }
        if self.payload > LONGEST {
            return Err(Unfit::TooLong);
        }
        let payload = vec![0; usize::from(self.payload)];
        let (sport, dport) = self.ports;
        let mut upper = vec![0; 64 + payload.len()];
        let (from, to) = (self.source, self.destination);
        let len = match self.protocol {
            protocol::TCP => {
                let flags = self.tcp_flags;
                let segment =
                    tcp::Repr { sport, dport, seq: 1, ack: 0, flags, window: 65_535, payload: &payload };
                segment.emit(from, to, &mut upper).map_err(|_| Unfit::TooLong)?
            }
            protocol::UDP => {
                let datagram = udp::Repr { sport, dport, payload: &payload };
                datagram.emit(from, to, &mut upper).map_err(|_| Unfit::TooLong)?
            }
            protocol::SCTP => {
                upper[..2].copy_from_slice(&sport.to_be_bytes());
                upper[2..4].copy_from_slice(&dport.to_be_bytes());
                12 + payload.len()
            }
            protocol::ICMP | protocol::ICMPV6 => {
                self.message(&mut upper);
                icmp::HEADER_LEN + payload.len()
            }
            _ => payload.len(),
        };
        upper.truncate(len);
        if matches!(self.protocol, protocol::ICMP | protocol::ICMPV6) {
            let pseudo = match self.protocol {
                protocol::ICMPV6 => checksum::pseudo_header(from, to, self.protocol, upper.len()),
                _ => None,
            };
            let sum = pseudo.unwrap_or_default().add_bytes(&upper).checksum();
            upper[2..4].copy_from_slice(&sum.to_be_bytes());
        }
        Ok(upper)
    }

    fn message(&self, upper: &mut [u8]) {
        let (icmp_type, code, ident) = self.icmp;
        [upper[0], upper[1]] = [icmp_type, code];
        upper[4..6].copy_from_slice(&ident.to_be_bytes());
    }
}

impl Outer {
    fn vni(&self) -> Option<u32> {
        self.vxlan.flatten()
    }

    /// The tunnel's end here: address and kind.
    fn end(&self, ends: &[TunnelEnd]) -> Result<(IpAddr, TunnelKind), Unfit> {
        let family = Family::of(self.source);
        let fits = |end: &&TunnelEnd| {
            let is_of_kind = match (self.vxlan, end.kind) {
                (None, TunnelKind::Ipip) => true,
                // Of an identifier that no end has, any will do: that is what the packet is to show.
                (Some(asked), TunnelKind::Vxlan { vni, .. }) => {
                    asked.is_none_or(|asked| asked == vni) || !has_vni(ends, asked)
                }
                _ => false,
            };
            is_of_kind
                && Family::of(end.local) == family
                && !end.local.is_multicast()
                && self.destination.is_none_or(|to| to == end.local)
        };
        ends.iter().find(fits).map(|end| (end.local, end.kind)).ok_or(Unfit::NoSuchTunnel)
    }
}

fn has_vni(ends: &[TunnelEnd], asked: Option<u32>) -> bool {
    ends.iter().any(|end| matches!(end.kind, TunnelKind::Vxlan { vni, .. } if Some(vni) == asked))
}

/// An IP packet in an Ethernet frame.
fn link(to: MacAddr, source: IpAddr, packet: &[u8]) -> Vec<u8> {
    let ethertype = if source.is_ipv4() { ethernet::IPV4 } else { ethernet::IPV6 };
    let mut frame = Vec::with_capacity(ethernet::HEADER_LEN + packet.len());
    frame.extend(to.0);
    frame.extend(SOMEBODY.0);
    frame.extend(ethertype.to_be_bytes());
    frame.extend(packet);
    frame
}

/// What a tunnel carries, with its outer headers. A template counts an inner Ethernet header as there already, which IPIP
/// hasn't.
fn in_tunnel(to: MacAddr, template: &Template, kind: TunnelKind, inner: &[u8]) -> Vec<u8> {
    let mut frame = vec![0; usize::from(template.overhead())];
    if kind == TunnelKind::Ipip {
        frame.extend([0; ethernet::HEADER_LEN]);
    }
    frame.extend(inner);
    frame[..6].copy_from_slice(&to.0);
    frame[6..12].copy_from_slice(&SOMEBODY.0);
    let tos = inner.get(if kind == TunnelKind::Ipip { 0 } else { ethernet::HEADER_LEN }..);
    let ip_len = (frame.len() - ethernet::HEADER_LEN) as u16;
    template.write(&mut frame, ip_len, tos.map_or(0, ecn::traffic_class), 50_000);
    frame
}

//! A TCP reset to whoever asked for a connection above a limit: Calico rejects those with one (`--reject-with tcp-reset`).

use std::net::IpAddr;

use packet::{Kind, ethernet, ipv4, ipv6, protocol, tcp};

/// TCP's flags.
const SYN: u8 = 0x02;
const FIN: u8 = 0x01;
const RST: u8 = 0x04;
const ACK: u8 = 0x10;

/// The reset that a segment of no connection gets (RFC 9293 §3.5.2, group 1); `None` of what is none, and of a reset. Its
/// Ethernet addresses are the walk's to write.
pub(super) fn build(cause: &[u8]) -> Option<Vec<u8>> {
    let parsed = packet::parse(cause).ok()?;
    let segment = tcp::Packet::new_checked(parsed.l4_packet(cause)).ok()?;
    let flags = segment.flags();
    if parsed.protocol != protocol::TCP || parsed.is_fragment() || flags & RST != 0 {
        return None;
    }
    let took = segment.payload().len() as u32 + u32::from(flags & SYN != 0) + u32::from(flags & FIN != 0);
    let (seq, ack, flags) = match flags & ACK != 0 {
        true => (segment.ack(), 0, RST),
        false => (0, segment.seq().wrapping_add(took), RST | ACK),
    };
    let (sport, dport) = (segment.dport(), segment.sport());
    let reset = tcp::Repr { sport, dport, seq, ack, flags, window: 0, payload: &[] };
    let payload_len = tcp::HEADER_LEN as u16;
    let mut frame = vec![0; ethernet::HEADER_LEN];
    frame[12..14].copy_from_slice(&parsed.ethertype.to_be_bytes());
    let (src, dst): (IpAddr, IpAddr) = match parsed.kind {
        Kind::Ipv4 => {
            let (src, dst) = (parsed.ipv4_destination(cause)?, parsed.ipv4_source(cause)?);
            frame.resize(ethernet::HEADER_LEN + ipv4::HEADER_LEN + tcp::HEADER_LEN, 0);
            let header = ipv4::Repr {
                src,
                dst,
                protocol: protocol::TCP,
                ttl: 64,
                dont_fragment: true,
                payload_len,
                ..ipv4::Repr::default()
            };
            header.emit(&mut frame[ethernet::HEADER_LEN..]).ok()?;
            (src.into(), dst.into())
        }
        Kind::Ipv6 => {
            let (src, dst) = (parsed.ipv6_destination(cause)?, parsed.ipv6_source(cause)?);
            frame.resize(ethernet::HEADER_LEN + ipv6::HEADER_LEN + tcp::HEADER_LEN, 0);
            let next_header = protocol::TCP;
            let header =
                ipv6::Repr { src, dst, next_header, hop_limit: 64, payload_len, ..ipv6::Repr::default() };
            header.emit(&mut frame[ethernet::HEADER_LEN..]).ok()?;
            (src.into(), dst.into())
        }
        Kind::Arp | Kind::Other => return None,
    };
    let at = frame.len() - tcp::HEADER_LEN;
    reset.emit(src, dst, &mut frame[at..]).ok()?;
    Some(frame)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use packet::checksum::{L4Checksum, verify_l4};

    /// A segment of TCP.
    pub(in crate::punt) fn segment(flags: u8, payload: &[u8], v6: bool) -> Vec<u8> {
        let repr = tcp::Repr { sport: 4000, dport: 80, seq: 100, ack: 700, flags, window: 9, payload };
        let len = tcp::HEADER_LEN + payload.len();
        let mut frame = vec![0; 14];
        let (src, dst): (IpAddr, IpAddr) = match v6 {
            false => ("10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap()),
            true => ("fd00::1".parse().unwrap(), "fd00::2".parse().unwrap()),
        };
        let (ethertype, header) = if v6 { (ethernet::IPV6, 40) } else { (ethernet::IPV4, 20) };
        frame[12..14].copy_from_slice(&ethertype.to_be_bytes());
        frame.resize(14 + header + len, 0);
        let (protocol, payload_len) = (protocol::TCP, len as u16);
        match (src, dst) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => {
                let ip = ipv4::Repr { src, dst, protocol, ttl: 9, payload_len, ..ipv4::Repr::default() };
                ip.emit(&mut frame[14..]).unwrap();
            }
            (IpAddr::V6(src), IpAddr::V6(dst)) => {
                let (next_header, hop_limit) = (protocol, 9);
                let ip =
                    ipv6::Repr { src, dst, next_header, hop_limit, payload_len, ..ipv6::Repr::default() };
                ip.emit(&mut frame[14..]).unwrap();
            }
            _ => unreachable!("one family"),
        }
        repr.emit(src, dst, &mut frame[14 + header..]).unwrap();
        frame
    }

    #[test]
    fn a_segment_of_no_connection_is_reset_as_the_rfc_says() {
        for v6 in [false, true] {
            for (flags, payload, seq, ack, answer) in [
                (SYN, &b""[..], 0, 101, RST | ACK),
                (SYN, b"early", 0, 106, RST | ACK),
                (SYN | ACK, b"", 700, 0, RST),
                (ACK, b"data", 700, 0, RST),
            ] {
                let reset = build(&segment(flags, payload, v6)).unwrap();
                let parsed = packet::parse(&reset).unwrap();
                assert_eq!(verify_l4(&reset, &parsed), L4Checksum::Correct);
                let tcp = tcp::Packet::new_checked(parsed.l4_packet(&reset)).unwrap();
                assert_eq!((tcp.sport(), tcp.dport(), tcp.flags()), (80, 4000, answer));
                assert_eq!((tcp.seq(), tcp.ack()), (seq, ack));
                let back = packet::FlowKey::new(&reset, &parsed).unwrap();
                let cause = segment(flags, payload, v6);
                let there = packet::FlowKey::new(&cause, &packet::parse(&cause).unwrap()).unwrap();
                assert_eq!(back, there.reversed());
            }
        }
    }

    #[test]
    fn a_reset_and_what_is_no_segment_get_none() {
        assert_eq!(build(&segment(RST, b"", false)), None);
        let mut datagram = segment(SYN, b"", true);
        datagram[20] = protocol::UDP;
        assert_eq!(build(&datagram), None);
        assert_eq!(build(&[0; 60]), None);
    }
}

//! The ICMP errors that a router sends, for both families alike.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{HEADER_LEN, may_answer, v4, v6};
use crate::{NoSpace, Parsed, checksum, ipv4, ipv6, protocol, room_for};

/// An ICMPv4 error is at most this long, IP header included (RFC 1812 §4.3.2.3).
const ERROR_V4_LEN_MAX: usize = 576;
/// Internetwork control precedence, which errors should have (RFC 1812 §4.3.2.5).
const INTERNETWORK_CONTROL: u8 = 0xc0;
const TTL: u8 = 64;

/// What is wrong with a packet that a router can't deliver.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Problem {
    /// Its TTL or hop limit ran out here: 11/0, ICMPv6 3/0.
    TtlExceeded,
    /// No route leads to its destination: 3/0 (RFC 1812 §5.2.7.1), ICMPv6 1/0.
    NoRoute,
    /// A route of the kind `unreachable` covers its destination: 3/1, as Linux has it, and ICMPv6 1/6, "reject route"
    /// (RFC 4443 §3.1).
    Rejected,
    /// The destination, or the next hop to it, does not answer: 3/1, ICMPv6 1/3.
    HostUnreachable,
    /// Nobody listens at the port: 3/3, ICMPv6 1/4.
    PortUnreachable,
    /// Policy forbids it: 3/13 (RFC 1812 §5.2.7.1), ICMPv6 1/1.
    Prohibited,
    /// It is larger than the next hop's MTU in bytes, and must not be fragmented: 3/4 (RFC 1191), ICMPv6 2/0.
    TooBig {
        /// What fits. ICMPv4 has 16 bits for it; a larger one is written as 65 535.
        mtu: u32,
    },
    /// It would leave the zone of its source address, a link-local one: ICMPv6 1/2 (RFC 4443 §3.1). IPv4 has no such
    /// message.
    BeyondScope,
    /// Its header or an option is wrong at this byte, counted from the packet's first: 12/0 (RFC 1812 §4.3.3.5), ICMPv6
    /// 4/0.
    Parameter {
        /// Where. ICMPv4 has 8 bits for it, which reach over its longest header.
        pointer: u8,
    },
}

impl Problem {
    /// Every [`Self::as_str`].
    pub const NAMES: [&'static str; 9] = [
        "ttl_exceeded",
        "no_route",
        "rejected",
        "host_unreachable",
        "port_unreachable",
        "prohibited",
        "too_big",
        "beyond_scope",
        "parameter_problem",
    ];

    /// The name in tables, JSON and metric labels.
    pub const fn as_str(self) -> &'static str {
        match self {
            Problem::TtlExceeded => "ttl_exceeded",
            Problem::NoRoute => "no_route",
            Problem::Rejected => "rejected",
            Problem::HostUnreachable => "host_unreachable",
            Problem::PortUnreachable => "port_unreachable",
            Problem::Prohibited => "prohibited",
            Problem::TooBig { .. } => "too_big",
            Problem::BeyondScope => "beyond_scope",
            Problem::Parameter { .. } => "parameter_problem",
        }
    }

    /// Type, code and the four bytes after the checksum, in ICMPv4.
    fn fields_v4(self) -> Option<(u8, u8, u32)> {
        Some(match self {
            Problem::TtlExceeded => (v4::TIME_EXCEEDED, 0, 0),
            Problem::NoRoute => (v4::UNREACHABLE, 0, 0),
            Problem::Rejected | Problem::HostUnreachable => (v4::UNREACHABLE, 1, 0),
            Problem::PortUnreachable => (v4::UNREACHABLE, 3, 0),
            Problem::TooBig { mtu } => (v4::UNREACHABLE, 4, mtu.min(u16::MAX.into())),
            Problem::Prohibited => (v4::UNREACHABLE, 13, 0),
            Problem::Parameter { pointer } => (v4::PARAMETER_PROBLEM, 0, u32::from(pointer) << 24),
            Problem::BeyondScope => return None,
        })
    }

    /// Type, code and the four bytes after the checksum, in ICMPv6.
    fn fields_v6(self) -> (u8, u8, u32) {
        match self {
            Problem::NoRoute => (v6::UNREACHABLE, 0, 0),
            Problem::Prohibited => (v6::UNREACHABLE, 1, 0),
            Problem::BeyondScope => (v6::UNREACHABLE, 2, 0),
            Problem::HostUnreachable => (v6::UNREACHABLE, 3, 0),
            Problem::PortUnreachable => (v6::UNREACHABLE, 4, 0),
            Problem::Rejected => (v6::UNREACHABLE, 6, 0),
            Problem::TooBig { mtu } => (v6::PACKET_TOO_BIG, 0, mtu),
            Problem::TtlExceeded => (v6::TIME_EXCEEDED, 0, 0),
            Problem::Parameter { pointer } => (v6::PARAMETER_PROBLEM, 0, pointer.into()),
        }
    }
}

/// Why no error was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotBuilt {
    /// See [`may_answer`].
    #[error("no ICMP error may be sent about this packet (RFC 1812 section 4.3.2.7, RFC 4443 section 2.4)")]
    Forbidden,
    /// The family has no message for this problem.
    #[error("ICMP of this family has no message for this problem")]
    NoMessage,
    /// An IPv6 packet can't be answered from an IPv4 address, nor the other way round.
    #[error("the answer's source address is of another family than the packet: give one of the packet's own")]
    OtherFamily,
    /// The buffer is too small.
    #[error(transparent)]
    NoSpace(#[from] NoSpace),
}

/// Writes the IP packet that tells the sender of `frame` what is wrong with it, from our address `source`, to the
/// front of `buffer`; returns its length. The Ethernet header in front of it is the caller's to write.
///
/// It quotes the packet as it was received: for IPv4 as much as 576 bytes hold (RFC 1812 §4.3.2.3), for IPv6 as much
/// as 1280 hold (RFC 4443 §2.4 (c)). How often errors are sent is the caller's to limit (RFC 1812 §4.3.2.8).
///
/// # Errors
/// [`NotBuilt`], and nothing is written.
pub fn build_error(
    problem: Problem,
    source: IpAddr,
    frame: &[u8],
    parsed: &Parsed,
    buffer: &mut [u8],
) -> Result<usize, NotBuilt> {
    if !may_answer(frame, parsed) {
        return Err(NotBuilt::Forbidden);
    }
    let quoted = parsed.l3_packet(frame);
    match (source, parsed.ipv4_source(frame), parsed.ipv6_source(frame)) {
        (IpAddr::V4(source), Some(sender), _) => build_v4(problem, source, sender, quoted, buffer),
        (IpAddr::V6(source), _, Some(sender)) => build_v6(problem, source, sender, quoted, buffer),
        _ => Err(NotBuilt::OtherFamily),
    }
}

fn build_v4(
    problem: Problem,
    src: Ipv4Addr,
    dst: Ipv4Addr,
    quoted: &[u8],
    buffer: &mut [u8],
) -> Result<usize, NotBuilt> {
    let fields = problem.fields_v4().ok_or(NotBuilt::NoMessage)?;
    let quoted = front(quoted, ERROR_V4_LEN_MAX - ipv4::HEADER_LEN - HEADER_LEN);
    let message_len = HEADER_LEN + quoted.len();
    let packet = room_for(buffer, ipv4::HEADER_LEN + message_len)?;
    let header = ipv4::Repr {
        src,
        dst,
        protocol: protocol::ICMP,
        ttl: TTL,
        tos: INTERNETWORK_CONTROL,
        dont_fragment: true, // With it the identification may be any value (RFC 6864 §4.1).
        payload_len: message_len as u16,
        ..ipv4::Repr::default()
    };
    header.emit(packet)?;
    let message = &mut packet[ipv4::HEADER_LEN..];
    write_message(fields, quoted, checksum::Sum::new(), message);
    Ok(packet.len())
}

fn build_v6(
    problem: Problem,
    src: Ipv6Addr,
    dst: Ipv6Addr,
    quoted: &[u8],
    buffer: &mut [u8],
) -> Result<usize, NotBuilt> {
    let quoted = front(quoted, ipv6::MTU_MIN - ipv6::HEADER_LEN - HEADER_LEN);
    let message_len = HEADER_LEN + quoted.len();
    let packet = room_for(buffer, ipv6::HEADER_LEN + message_len)?;
    let header = ipv6::Repr {
        src,
        dst,
        next_header: protocol::ICMPV6,
        hop_limit: TTL,
        payload_len: message_len as u16,
        ..ipv6::Repr::default()
    };
    header.emit(packet)?;
    let pseudo = checksum::pseudo_header_v6(src, dst, protocol::ICMPV6, message_len as u32);
    write_message(problem.fields_v6(), quoted, pseudo, &mut packet[ipv6::HEADER_LEN..]);
    Ok(packet.len())
}

/// Fills `message`, which is exactly as long as the ICMP header and the quoted bytes.
fn write_message(
    (kind, code, rest): (u8, u8, u32),
    quoted: &[u8],
    pseudo: checksum::Sum,
    message: &mut [u8],
) {
    message[..4].copy_from_slice(&[kind, code, 0, 0]);
    message[4..HEADER_LEN].copy_from_slice(&rest.to_be_bytes());
    message[HEADER_LEN..].copy_from_slice(quoted);
    let checksum = pseudo.add_bytes(message).checksum();
    message[2..4].copy_from_slice(&checksum.to_be_bytes());
}

fn front(bytes: &[u8], len_max: usize) -> &[u8] {
    &bytes[..bytes.len().min(len_max)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parsed::samples;
    use crate::{Kind, checksum::L4Checksum, icmp, parse};

    const OUR_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 65, 0, 254));
    const OUR_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 0xfe));
    const PROBLEMS: [Problem; 8] = [
        Problem::TtlExceeded,
        Problem::NoRoute,
        Problem::HostUnreachable,
        Problem::PortUnreachable,
        Problem::Prohibited,
        Problem::TooBig { mtu: 1400 },
        Problem::Rejected,
        Problem::Parameter { pointer: 21 },
    ];

    /// Builds the answer, puts an Ethernet header before it and reads it back.
    fn answer(problem: Problem, frame: &[u8]) -> (Vec<u8>, Parsed) {
        let parsed = parse(frame).unwrap();
        let source = if parsed.kind == Kind::Ipv4 { OUR_V4 } else { OUR_V6 };
        let mut buffer = vec![0; 14 + 1280];
        buffer[..14].copy_from_slice(&frame[..14]);
        buffer[12..14].copy_from_slice(&parsed.ethertype.to_be_bytes());
        let len = build_error(problem, source, frame, &parsed, &mut buffer[14..]).unwrap();
        buffer.truncate(14 + len);
        let parsed = parse(&buffer).unwrap();
        (buffer, parsed)
    }

    #[test]
    fn every_problem_is_told_in_both_families_with_a_good_checksum() {
        let expected_v4 = [(11, 0), (3, 0), (3, 1), (3, 3), (3, 13), (3, 4), (3, 1), (12, 0)];
        let expected_v6 = [(3, 0), (1, 0), (1, 3), (1, 4), (1, 1), (2, 0), (1, 6), (4, 0)];
        for (frame, expected) in [(samples::udp_v4(100), expected_v4), (samples::udp_v6(100), expected_v6)] {
            for (problem, type_and_code) in PROBLEMS.into_iter().zip(expected) {
                let (answer, parsed) = answer(problem, &frame);
                let message = icmp::Packet::new_checked(parsed.l4_packet(&answer)).unwrap();
                assert_eq!((message.kind(), message.code()), type_and_code);
                assert!(Problem::NAMES.contains(&problem.as_str()));
                assert_eq!(checksum::verify_l4(&answer, &parsed), L4Checksum::Correct);
                assert_eq!(message.payload(), &frame[14..]);
            }
        }
    }

    #[test]
    fn too_big_tells_the_mtu() {
        let (v4, parsed) = answer(Problem::TooBig { mtu: 1400 }, &samples::udp_v4(100));
        assert_eq!(icmp::Packet::new_checked(parsed.l4_packet(&v4)).unwrap().next_hop_mtu(), 1400);
        let (v6, parsed) = answer(Problem::TooBig { mtu: 70_000 }, &samples::udp_v6(100));
        assert_eq!(icmp::Packet::new_checked(parsed.l4_packet(&v6)).unwrap().mtu(), 70_000);
        let (v4, parsed) = answer(Problem::TooBig { mtu: 70_000 }, &samples::udp_v4(100));
        assert_eq!(icmp::Packet::new_checked(parsed.l4_packet(&v4)).unwrap().next_hop_mtu(), 65_535);
    }

    #[test]
    fn a_parameter_problem_points_at_the_byte() {
        let pointed = |frame: &[u8]| {
            let (answer, parsed) = answer(Problem::Parameter { pointer: 21 }, frame);
            parsed.l4_packet(&answer)[4..8].to_vec()
        };
        assert_eq!(pointed(&samples::udp_v4(100)), [21, 0, 0, 0]);
        assert_eq!(pointed(&samples::udp_v6(100)), [0, 0, 0, 21]);
    }

    #[test]
    fn ipv4_has_no_word_for_a_source_beyond_its_zone() {
        let frame = samples::udp_v6(10);
        let (message, parsed) = answer(Problem::BeyondScope, &frame);
        assert_eq!(parsed.l4_packet(&message)[..2], [1, 2]);
        let frame = samples::udp_v4(10);
        let built = build_error(Problem::BeyondScope, OUR_V4, &frame, &parse(&frame).unwrap(), &mut [0; 600]);
        assert_eq!(built, Err(NotBuilt::NoMessage));
    }

    #[test]
    fn the_quote_fills_576_bytes_or_1280_and_no_more() {
        assert_eq!(answer(Problem::NoRoute, &samples::udp_v4(1400)).1.l3_len, 576);
        assert_eq!(answer(Problem::NoRoute, &samples::udp_v6(1400)).1.l3_len, 1280);
    }

    #[test]
    fn ethernet_padding_is_not_quoted() {
        let mut frame = samples::udp_v4(0);
        let len = frame.len();
        frame.resize(60, 0xaa);
        assert_eq!(usize::from(answer(Problem::NoRoute, &frame).1.l3_len), 28 + len - 14);
    }

    #[test]
    fn a_small_buffer_and_an_address_of_the_other_family_are_refused() {
        let frame = samples::udp_v4(10);
        let parsed = parse(&frame).unwrap();
        let short = build_error(Problem::NoRoute, OUR_V4, &frame, &parsed, &mut [0; 65]);
        assert_eq!(short, Err(NoSpace { needed: 66, available: 65 }.into()));
        let other = build_error(Problem::NoRoute, OUR_V6, &frame, &parsed, &mut [0; 100]);
        assert_eq!(other, Err(NotBuilt::OtherFamily));
    }

    #[test]
    fn errors_are_not_answered_with_errors() {
        for frame in [samples::udp_v4(10), samples::udp_v6(10)] {
            for problem in PROBLEMS {
                let (error, parsed) = answer(problem, &frame);
                assert!(!may_answer(&error, &parsed));
            }
        }
    }

    #[test]
    fn echoes_are_answered_with_errors() {
        for frame in [samples::echo_v4(), samples::echo_v6()] {
            assert!(may_answer(&frame, &parse(&frame).unwrap()));
        }
    }

    /// Changes one thing in an answerable frame, which then must not be answered.
    #[track_caller]
    fn check_silent(mut frame: Vec<u8>, change: impl FnOnce(&mut [u8])) {
        assert!(may_answer(&frame, &parse(&frame).unwrap()), "the frame is answerable before the change");
        change(&mut frame);
        samples::mend_ipv4_checksum(&mut frame);
        let parsed = parse(&frame).unwrap();
        assert!(!may_answer(&frame, &parsed));
        let source = if parsed.kind == Kind::Ipv4 { OUR_V4 } else { OUR_V6 };
        let built = build_error(Problem::NoRoute, source, &frame, &parsed, &mut [0; 1280]);
        assert_eq!(built, Err(NotBuilt::Forbidden));
    }

    #[test]
    fn packets_to_many_are_not_answered() {
        check_silent(samples::udp_v4(10), |frame| frame[..6].fill(0xff));
        check_silent(samples::udp_v4(10), |frame| frame[0] |= 1);
        check_silent(samples::udp_v4(10), |frame| frame[30..34].copy_from_slice(&[224, 0, 0, 5]));
        check_silent(samples::udp_v4(10), |frame| frame[30..34].fill(255));
        check_silent(samples::udp_v6(10), |frame| frame[38] = 0xff);
        check_silent(samples::udp_v6(10), |frame| frame[0] |= 1);
    }

    #[test]
    fn packets_from_nobody_in_particular_are_not_answered() {
        for source in [[0, 0, 0, 0], [0, 1, 2, 3], [127, 0, 0, 1], [224, 0, 0, 1], [240, 0, 0, 1], [255; 4]] {
            check_silent(samples::udp_v4(10), |frame| frame[26..30].copy_from_slice(&source));
        }
        for source in [Ipv6Addr::UNSPECIFIED, Ipv6Addr::LOCALHOST, Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1)]
        {
            check_silent(samples::udp_v6(10), |frame| frame[22..38].copy_from_slice(&source.octets()));
        }
    }

    #[test]
    fn later_fragments_are_not_answered() {
        check_silent(samples::udp_v4(10), |frame| frame[21] = 1);
    }

    #[test]
    fn redirects_are_not_answered() {
        check_silent(samples::echo_v4(), |frame| frame[34] = v4::REDIRECT);
        check_silent(samples::echo_v6(), |frame| frame[54] = v6::REDIRECT);
    }
}

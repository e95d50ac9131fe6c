//! Explicit congestion notification where a tunnel ends (RFC 6040 §4.2).
//!
//! The way in is [`crate::encapsulation`]'s: the outer field is a copy of the inner one. On the way out a mark that
//! routers made outside is carried in; the rest of the byte, DSCP, stays what it was inside (RFC 2983's pipe model, as
//! Linux does).

use crate::checksum;

/// The field, in the second byte of an IPv4 header or an IPv6 traffic class.
pub const MASK: u8 = 0b11;
/// The transport doesn't know ECN.
const NOT_ECT: u8 = 0b00;
/// The transport knows ECN, and calls it by the second code point (RFC 3168 §5, RFC 8311).
const ECT_1: u8 = 0b01;
/// Likewise, by the first.
const ECT_0: u8 = 0b10;
/// Congestion experienced.
const CE: u8 = 0b11;

/// What an inner packet's field becomes; `None` where the packet must be dropped: it met congestion outside, and its
/// transport couldn't be told (RFC 6040 figure 4).
#[inline]
pub const fn decapsulated(inner: u8, outer: u8) -> Option<u8> {
    match (inner & MASK, outer & MASK) {
        (NOT_ECT, CE) => None,
        (NOT_ECT, _) => Some(NOT_ECT),
        (_, CE) => Some(CE),
        (ECT_0, ECT_1) => Some(ECT_1),
        (inner, _) => Some(inner),
    }
}

/// The second byte of an IPv4 header, or the traffic class of an IPv6 one; 0 where there is no such header.
#[inline]
pub fn traffic_class(header: &[u8]) -> u8 {
    match header.first_chunk() {
        Some([0x40..0x50, tos]) => *tos,
        Some([first @ 0x60..0x70, second]) => first << 4 | second >> 4,
        _ => 0,
    }
}

/// Writes the field of the IP packet in an Ethernet frame and mends an IPv4 header's checksum. `l3`: where the packet
/// begins. A frame without an IP header there is left as it is.
#[inline]
pub fn set(frame: &mut [u8], l3: usize, ecn: u8) {
    let Some(header) = frame.get_mut(l3..) else { return };
    match header.first_chunk_mut::<12>() {
        Some(header) if header[0] >> 4 == 4 => {
            let old = u16::from_be_bytes([header[0], header[1]]);
            header[1] = header[1] & !MASK | ecn & MASK;
            let new = u16::from_be_bytes([header[0], header[1]]);
            let sum = checksum::update(u16::from_be_bytes([header[10], header[11]]), old, new);
            header[10..12].copy_from_slice(&sum.to_be_bytes());
        }
        // The traffic class lies across the first two bytes; its last two bits are these.
        Some(header) if header[0] >> 4 == 6 => header[1] = header[1] & !(MASK << 4) | (ecn & MASK) << 4,
        _ => {}
    }
}

/// The inner packet of a frame that a tunnel has just given up, marked as its way outside asks. `false`: drop it.
///
/// `outer`: the outer header's traffic class. `l3`: where the inner packet begins.
#[inline]
pub fn carry_in(frame: &mut [u8], l3: usize, outer: u8) -> bool {
    // Nearly every packet: nothing was marked, and not a byte of the inner packet need be read.
    if outer & MASK == NOT_ECT {
        return true;
    }
    let inner = frame.get(l3..).map_or(0, traffic_class) & MASK;
    match decapsulated(inner, outer) {
        Some(ecn) if ecn == inner => true,
        Some(ecn) => {
            set(frame, l3, ecn);
            true
        }
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ethernet, ipv4, ipv6};
    use proptest::prelude::*;

    /// RFC 6040 figure 4, as printed: a row for each inner field, a column for each outer one.
    #[test]
    fn the_table_of_rfc_6040_is_kept() {
        let columns = [NOT_ECT, ECT_0, ECT_1, CE];
        let rows = [
            (NOT_ECT, [Some(NOT_ECT), Some(NOT_ECT), Some(NOT_ECT), None]),
            (ECT_0, [Some(ECT_0), Some(ECT_0), Some(ECT_1), Some(CE)]),
            (ECT_1, [Some(ECT_1), Some(ECT_1), Some(ECT_1), Some(CE)]),
            (CE, [Some(CE), Some(CE), Some(CE), Some(CE)]),
        ];
        for (inner, row) in rows {
            for (outer, expected) in columns.into_iter().zip(row) {
                assert_eq!(decapsulated(inner, outer), expected, "{inner:02b} inside {outer:02b}");
                assert_eq!(decapsulated(inner | 0xb8, outer | 0x28), expected, "DSCP doesn't count");
            }
        }
    }

    proptest! {
        #[test]
        fn a_marked_packet_is_valid_and_differs_in_that_field_alone(v6: bool, class: u8, outer: u8, label in 0u32..1 << 20) {
            let mut frame = vec![0; ethernet::HEADER_LEN + 60];
            let l3 = ethernet::HEADER_LEN;
            let packet = &mut frame[l3..];
            if v6 {
                let repr = ipv6::Repr { traffic_class: class, flow_label: label, payload_len: 8, ..ipv6::Repr::default() };
                repr.emit(packet).unwrap();
            } else {
                let repr = ipv4::Repr { tos: class, ident: label as u16, payload_len: 8, ..ipv4::Repr::default() };
                repr.emit(packet).unwrap();
            }
            let before = frame.clone();
            prop_assert_eq!(carry_in(&mut frame, l3, outer), decapsulated(class, outer).is_some());
            let expected = class & !MASK | decapsulated(class, outer).unwrap_or(class & MASK);
            prop_assert_eq!(traffic_class(&frame[l3..]), expected);
            let same = if v6 {
                let repr = ipv6::Repr::parse(&ipv6::Packet::new_checked(&frame[l3..]).unwrap());
                repr == ipv6::Repr { traffic_class: expected, ..ipv6::Repr::parse(&ipv6::Packet::new_checked(&before[l3..]).unwrap()) }
            } else {
                let repr = ipv4::Repr::parse(&ipv4::Packet::new_checked(&frame[l3..]).unwrap());
                repr == ipv4::Repr { tos: expected, ..ipv4::Repr::parse(&ipv4::Packet::new_checked(&before[l3..]).unwrap()) }
            };
            prop_assert!(same, "a checked view takes it, checksum included");
        }

        #[test]
        fn any_bytes_are_survived(mut frame in prop::collection::vec(any::<u8>(), 0..40), l3 in 0usize..50, outer: u8) {
            carry_in(&mut frame, l3, outer);
        }
    }
}

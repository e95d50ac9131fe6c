//! The internet checksum: the ones' complement of the ones' complement sum of 16-bit words.
//!
//! Read RFC 1071 for the sum, RFC 1624 for changing it in place. Two facts do the work: the sum does not care
//! about byte order (RFC 1071 §2 (B)), so words are added as the processor reads them and swapped once at the end;
//! and adding a wider word, then folding the carries back in, is the same as adding its 16-bit halves.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::{Kind, Parsed, protocol};

/// A sum under way. Pieces may be added in any order; each but the last must have an even length.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sum(u64);

impl Sum {
    /// Nothing added yet.
    pub const fn new() -> Sum {
        Sum(0)
    }

    /// Adds bytes; an odd last byte counts as if a zero followed it.
    #[must_use]
    pub fn add_bytes(self, bytes: &[u8]) -> Sum {
        let mut sum = self.0;
        let (words, rest) = bytes.as_chunks::<8>();
        for word in words {
            let word = u64::from_ne_bytes(*word);
            // Two additions of 32 bits can't overflow 64 before 2^31 words, and the compiler makes vectors of them.
            sum += (word & 0xffff_ffff) + (word >> 32);
        }
        let (pairs, odd) = rest.as_chunks::<2>();
        for pair in pairs {
            sum += u64::from(u16::from_ne_bytes(*pair));
        }
        if let [byte] = odd {
            sum += u64::from(u16::from_ne_bytes([*byte, 0]));
        }
        // Keeps later additions far from overflow.
        Sum((sum & 0xffff_ffff) + (sum >> 32))
    }

    /// Adds one 16-bit word, given as a number.
    #[must_use]
    pub fn add_u16(self, word: u16) -> Sum {
        Sum(self.0 + u64::from(word.to_be()))
    }

    /// The 16-bit ones' complement sum. Zero only where nothing but zeros was added.
    #[inline]
    pub fn fold(self) -> u16 {
        let sum = (self.0 & 0xffff_ffff) + (self.0 >> 32);
        let sum = (sum & 0xffff) + (sum >> 16 & 0xffff) + (sum >> 32);
        // Three halves that sum up to at most 0x1_fffe and a bit: two more carries at most.
        let sum = (sum & 0xffff) + (sum >> 16);
        let sum = (sum & 0xffff) + (sum >> 16);
        u16::from_be(sum as u16)
    }

    /// What goes in the checksum field, where the field counted as zero in the sum.
    pub fn checksum(self) -> u16 {
        !self.fold()
    }

    /// Where the field was part of the sum: is it right?
    pub fn is_correct(self) -> bool {
        self.fold() == 0xffff
    }
}

/// The checksum of `bytes`, whose checksum field must be zero (RFC 1071 §1).
pub fn of(bytes: &[u8]) -> u16 {
    Sum::new().add_bytes(bytes).checksum()
}

/// [`is_correct`] for an IPv4 header without options: the one that nearly every packet has.
#[inline(always)]
pub fn is_correct_header(header: &[u8; 20]) -> bool {
    let (words, _) = header.as_chunks::<4>();
    // 2^16 is 1 modulo 0xffff, so the words may as well have 32 bits; five of them can't overflow 64. A right sum is all
    // ones, which is 0 modulo 0xffff, as nothing else is but a header of zeros: that has no version 4.
    let sum = words.iter().fold(0, |sum, word| sum + u64::from(u32::from_ne_bytes(*word)));
    sum % 0xffff == 0 && header[0] != 0
}

/// Do these bytes, their checksum field included, sum up right?
pub fn is_correct(bytes: &[u8]) -> bool {
    Sum::new().add_bytes(bytes).is_correct()
}

/// The checksum after one 16-bit word under it changed from `old` to `new`: RFC 1624 equation 3.
///
/// Equation 3 rather than 2 of RFC 1141, which turns a sum of zero into 0xffff where a recomputation gives 0.
/// For UDP use [`update_udp`], where the two mean different things.
pub const fn update(checksum: u16, old: u16, new: u16) -> u16 {
    let sum = !checksum as u32 + !old as u32 + new as u32;
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    !(sum as u16)
}

/// [`update`] for a UDP checksum: 0 means "none" and stays so, and a result of 0 is written 0xffff (RFC 768).
pub const fn update_udp(checksum: u16, old: u16, new: u16) -> u16 {
    match checksum {
        0 => 0,
        _ => match update(checksum, old, new) {
            0 => 0xffff,
            updated => updated,
        },
    }
}

/// The pseudo-header of IPv4 (RFC 9293 §3.1, RFC 768). `len`: bytes of the upper-layer packet.
pub fn pseudo_header_v4(src: Ipv4Addr, dst: Ipv4Addr, protocol: u8, len: u16) -> Sum {
    Sum::new().add_bytes(&src.octets()).add_bytes(&dst.octets()).add_u16(protocol.into()).add_u16(len)
}

/// The pseudo-header of IPv6 (RFC 8200 §8.1). `dst`: the final destination; `len`: bytes of the upper-layer packet.
pub fn pseudo_header_v6(src: Ipv6Addr, dst: Ipv6Addr, protocol: u8, len: u32) -> Sum {
    let sum = Sum::new().add_bytes(&src.octets()).add_bytes(&dst.octets());
    sum.add_u16((len >> 16) as u16).add_u16(len as u16).add_u16(protocol.into())
}

/// The pseudo-header of either family; `None` where the addresses are of two.
pub fn pseudo_header(src: IpAddr, dst: IpAddr, protocol: u8, len: usize) -> Option<Sum> {
    match (src, dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => Some(pseudo_header_v4(src, dst, protocol, len as u16)),
        (IpAddr::V6(src), IpAddr::V6(dst)) => Some(pseudo_header_v6(src, dst, protocol, len as u32)),
        _ => None,
    }
}

/// What can be said about the checksum of a TCP, UDP or ICMP packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum L4Checksum {
    /// It is right.
    Correct,
    /// It is wrong.
    Wrong,
    /// There is none, or it can't be told: another protocol, a fragment, or UDP over IPv4 without one.
    Absent,
}

/// Checks the upper-layer checksum of a parsed frame, over the bytes that the IP header covers.
///
/// A packet with an IPv6 routing header still on its way is told [`L4Checksum::Wrong`]: its pseudo-header names an
/// address that only the routing header holds (RFC 8200 §8.1). No router drops by this answer; tests read it.
pub fn verify_l4(frame: &[u8], parsed: &Parsed) -> L4Checksum {
    let Some((at, l4, pseudo)) = l4_parts(frame, parsed) else { return L4Checksum::Absent };
    let absent = parsed.kind == Kind::Ipv4 && parsed.protocol == protocol::UDP;
    if absent && l4.get(at..at + 2) == Some(&[0, 0]) {
        return L4Checksum::Absent;
    }
    if pseudo.add_bytes(l4).is_correct() { L4Checksum::Correct } else { L4Checksum::Wrong }
}

/// Computes and writes the upper-layer checksum of a parsed frame; false, and no change, where there is none to write
/// (another protocol, or a fragment).
pub fn fill_l4(frame: &mut [u8], parsed: &Parsed) -> bool {
    let Some((at, l4, pseudo)) = l4_parts(frame, parsed) else { return false };
    let (before, after) = (&l4[..at], &l4[at + 2..]);
    let checksum = match pseudo.add_bytes(before).add_bytes(after).checksum() {
        0 if parsed.protocol == protocol::UDP => 0xffff,
        checksum => checksum,
    };
    let at = usize::from(parsed.l4) + at;
    frame[at..at + 2].copy_from_slice(&checksum.to_be_bytes());
    true
}

/// Where the checksum lies in the upper-layer packet, that packet, and the sum of what precedes it.
fn l4_parts<'a>(frame: &'a [u8], parsed: &Parsed) -> Option<(usize, &'a [u8], Sum)> {
    if parsed.l4 == 0 || parsed.is_fragment() {
        return None;
    }
    let l4 = frame.get(usize::from(parsed.l4)..parsed.l3_end())?;
    let (at, has_pseudo_header) = match (parsed.kind, parsed.protocol) {
        (Kind::Ipv4, protocol::ICMP) => (2, false),
        (Kind::Ipv6, protocol::ICMPV6) => (2, true),
        (_, protocol::UDP) => (6, true),
        (_, protocol::TCP) => (16, true),
        _ => return None,
    };
    if l4.len() < at + 2 {
        return None;
    }
    let pseudo = match (has_pseudo_header, parsed.kind) {
        (false, _) => Sum::new(),
        (true, Kind::Ipv4) => pseudo_header_v4(
            parsed.ipv4_source(frame)?,
            parsed.ipv4_destination(frame)?,
            parsed.protocol,
            l4.len() as u16,
        ),
        (true, _) => pseudo_header_v6(
            parsed.ipv6_source(frame)?,
            parsed.ipv6_destination(frame)?,
            parsed.protocol,
            l4.len() as u32,
        ),
    };
    Some((at, l4, pseudo))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// RFC 1071 §4.1, word by word: slow and plain.
    fn naive_sum(bytes: &[u8]) -> u16 {
        let mut sum = 0u32;
        for pair in bytes.chunks(2) {
            sum += u32::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)]));
            sum = (sum & 0xffff) + (sum >> 16);
        }
        sum as u16
    }

    #[test]
    fn the_example_of_rfc_1071_section_3_sums_as_printed() {
        let bytes = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        assert_eq!(Sum::new().add_bytes(&bytes).fold(), 0xddf2);
        assert_eq!(of(&bytes), 0x220d);
    }

    #[test]
    fn the_example_of_rfc_1624_section_4_updates_as_printed() {
        assert_eq!(update(0xdd2f, 0x5555, 0x3285), 0x0000);
    }

    #[test]
    fn a_udp_checksum_never_turns_into_none_nor_comes_from_none() {
        assert_eq!(update_udp(0xdd2f, 0x5555, 0x3285), 0xffff);
        assert_eq!(update_udp(0, 0x5555, 0x3285), 0);
    }

    #[test]
    fn nothing_but_zeros_sums_to_zero() {
        assert_eq!(of(&[]), 0xffff);
        assert_eq!(of(&[0; 20]), 0xffff);
    }

    #[test]
    fn long_buffers_of_ones_do_not_overflow() {
        let ones = vec![0xff; 1 << 20];
        assert_eq!(Sum::new().add_bytes(&ones).add_bytes(&ones).fold(), 0xffff);
    }

    proptest! {
        #[test]
        fn the_fast_sum_equals_the_plain_one(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            prop_assert_eq!(Sum::new().add_bytes(&bytes).fold(), naive_sum(&bytes));
        }

        #[test]
        fn pieces_sum_to_the_whole(bytes in proptest::collection::vec(any::<u8>(), 0..200), cut in 0usize..100) {
            let (front, back) = bytes.split_at((cut * 2).min(bytes.len()));
            prop_assert_eq!(Sum::new().add_bytes(front).add_bytes(back).fold(), naive_sum(&bytes));
        }

        #[test]
        fn an_incremental_update_equals_a_recomputation(
            mut bytes in proptest::collection::vec(any::<u8>(), 2..60),
            word in any::<proptest::sample::Index>(),
            new: u16,
        ) {
            bytes.push(1); // A sum of nothing but zeros has no opposite sign; no header is that.
            bytes.push(0);
            let at = word.index(bytes.len() / 2) * 2;
            let before = of(&bytes);
            let old = u16::from_be_bytes([bytes[at], bytes[at + 1]]);
            bytes[at..at + 2].copy_from_slice(&new.to_be_bytes());
            prop_assume!(bytes.iter().any(|byte| *byte != 0));
            prop_assert_eq!(update(before, old, new), of(&bytes));
        }
    }
}

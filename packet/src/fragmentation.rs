//! Cutting an IPv4 packet into fragments (RFC 791 §3.2, RFC 1812 §5.2.7).
//!
//! A fragment may be cut again: its offset and its "more fragments" flag carry over. The pieces come in order, keep the
//! identification, and the later ones carry those options that RFC 791 says are copied.

use crate::ipv4::{self, DONT_FRAGMENT, FRAGMENT_OFFSET, MORE_FRAGMENTS};
use crate::ipv4_options::Copied;
use crate::{checksum, u16_at};

/// Offsets count in units of this many bytes.
const UNIT: usize = 8;

/// The pieces of one packet, written one after the other by [`Fragments::write_next`].
#[derive(Clone, Debug)]
pub struct Fragments<'a> {
    header: &'a [u8],
    /// What is still to be sent.
    payload: &'a [u8],
    /// Where `payload` begins in the datagram, in units of 8 bytes.
    offset: u16,
    /// Does more follow behind this packet? It was a fragment itself.
    more: bool,
    copied: Copied,
    mtu: usize,
    is_first: bool,
}

impl<'a> Fragments<'a> {
    /// How to cut `packet`, an IPv4 packet without padding, for a next hop of this MTU.
    ///
    /// `None` where it can't be cut: it is malformed, must not be fragmented, would end beyond the largest datagram, or the
    /// MTU holds no header and eight bytes.
    pub fn new(packet: &'a [u8], mtu: u16) -> Option<Fragments<'a>> {
        let view = ipv4::Packet::new_checked(packet).ok()?;
        let mtu = usize::from(mtu);
        if view.dont_fragment() || mtu < view.header_len() + UNIT {
            return None;
        }
        let units = view.payload().len().div_ceil(UNIT);
        if usize::from(view.fragment_offset()) + units > usize::from(FRAGMENT_OFFSET) + 1 {
            return None;
        }
        Some(Fragments {
            header: packet.get(..view.header_len())?,
            payload: view.payload(),
            offset: view.fragment_offset(),
            more: view.more_fragments(),
            copied: Copied::of(view.options()),
            mtu,
            is_first: true,
        })
    }

    /// Bytes of the next piece's header. The first one carries all options.
    fn header_len(&self) -> usize {
        if self.is_first { self.header.len() } else { ipv4::HEADER_LEN + self.copied.bytes().len() }
    }

    /// Bytes of payload that a piece with such a header holds, of the payload that is left.
    fn piece_len(&self, header_len: usize, left: usize) -> usize {
        let room = self.mtu - header_len;
        if left <= room { left } else { room / UNIT * UNIT }
    }

    /// How many pieces are still to come.
    pub fn count(&self) -> usize {
        if self.payload.is_empty() {
            return 0;
        }
        let left = self.payload.len() - self.piece_len(self.header_len(), self.payload.len());
        let later = ipv4::HEADER_LEN + self.copied.bytes().len();
        let room = self.mtu - later;
        // The last one may be longer than a whole number of units.
        let last = usize::from(left > 0);
        1 + left.saturating_sub(room).div_ceil(room / UNIT * UNIT) + last
    }

    /// Forgets the pieces still to come.
    pub fn stop(&mut self) {
        self.payload = &[];
    }

    /// Writes the next piece to the front of `buffer`; returns its length, at most the MTU. `None` after the last one, and
    /// where the buffer is too short.
    pub fn write_next(&mut self, buffer: &mut [u8]) -> Option<usize> {
        if self.payload.is_empty() {
            return None;
        }
        let header_len = self.header_len();
        let (piece, left) = self.payload.split_at(self.piece_len(header_len, self.payload.len()));
        let packet = buffer.get_mut(..header_len + piece.len())?;
        let (header, payload) = packet.split_at_mut(header_len);
        payload.copy_from_slice(piece);
        if self.is_first {
            header.copy_from_slice(self.header);
        } else {
            let (fixed, options) = header.split_at_mut(ipv4::HEADER_LEN);
            fixed.copy_from_slice(self.header.get(..ipv4::HEADER_LEN)?);
            options.copy_from_slice(self.copied.bytes());
        }
        let more = if left.is_empty() && !self.more { 0 } else { MORE_FRAGMENTS };
        // The reserved bit and "don't fragment", which is off, stay as they are.
        let flags = u16_at(self.header, 6) & !(MORE_FRAGMENTS | DONT_FRAGMENT | FRAGMENT_OFFSET);
        header[0] = 0x40 | (header_len / 4) as u8;
        header[2..4].copy_from_slice(&((header_len + piece.len()) as u16).to_be_bytes());
        header[6..8].copy_from_slice(&(flags | more | self.offset).to_be_bytes());
        header[10..12].fill(0);
        let sum = checksum::of(header);
        header[10..12].copy_from_slice(&sum.to_be_bytes());
        let written = header_len + piece.len();
        self.offset += (piece.len() / UNIT) as u16;
        self.payload = left;
        self.is_first = false;
        Some(written)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ipv4_options::LOOSE_SOURCE_ROUTE;
    use proptest::prelude::*;

    /// A packet of UDP's protocol number whose payload counts up, with these options and this flags and offset field.
    fn packet(options: &[u8], payload_len: usize, flags_and_offset: u16) -> Vec<u8> {
        let header_len = ipv4::HEADER_LEN + options.len();
        let mut bytes = vec![0; header_len];
        let repr = ipv4::Repr {
            src: [10, 0, 0, 1].into(),
            dst: [10, 0, 0, 2].into(),
            protocol: 17,
            ident: 0xbeef,
            tos: 0x2e,
            ..ipv4::Repr::default()
        };
        repr.emit(&mut bytes).unwrap();
        bytes[ipv4::HEADER_LEN..].copy_from_slice(options);
        bytes[0] = 0x40 | (header_len / 4) as u8;
        bytes[2..4].copy_from_slice(&((header_len + payload_len) as u16).to_be_bytes());
        bytes[6..8].copy_from_slice(&flags_and_offset.to_be_bytes());
        bytes[10..12].fill(0);
        let sum = checksum::of(&bytes);
        bytes[10..12].copy_from_slice(&sum.to_be_bytes());
        bytes.extend((0..payload_len).map(|at| at as u8));
        bytes
    }

    fn cut(packet: &[u8], mtu: u16) -> Vec<Vec<u8>> {
        let mut fragments = Fragments::new(packet, mtu).expect("it can be cut");
        let count = fragments.count();
        let mut pieces = Vec::new();
        let mut buffer = [0; 65_535];
        while let Some(len) = fragments.write_next(&mut buffer) {
            pieces.push(buffer[..len].to_vec());
        }
        assert_eq!(pieces.len(), count, "as many as were told");
        pieces
    }

    /// Offset in bytes, "more fragments", payload.
    fn fields(piece: &[u8]) -> (usize, bool, &[u8]) {
        let view = ipv4::Packet::new_checked(piece).expect("a good header");
        (usize::from(view.fragment_offset()) * UNIT, view.more_fragments(), view.payload())
    }

    #[test]
    fn a_packet_of_1500_bytes_goes_over_1400_in_two_pieces() {
        let whole = packet(&[], 1480, 0);
        let pieces = cut(&whole, 1400);
        let shape: Vec<_> =
            pieces.iter().map(|piece| (piece.len(), fields(piece).0, fields(piece).1)).collect();
        assert_eq!(shape, [(1396, 0, true), (20 + 104, 1376, false)]);
        for piece in &pieces {
            assert_eq!((&piece[4..6], piece[1], &piece[8..10]), (&[0xbe, 0xef][..], 0x2e, &whole[8..10]));
        }
    }

    #[test]
    fn a_later_fragment_is_cut_again_and_keeps_its_place() {
        let middle = packet(&[], 1376, MORE_FRAGMENTS | 172);
        let shape: Vec<_> =
            cut(&middle, 576).iter().map(|piece| (fields(piece).0, fields(piece).1)).collect();
        assert_eq!(
            shape,
            [(1376, true), (1376 + 552, true), (1376 + 1104, true)],
            "more follows behind the last"
        );
        let last = packet(&[], 1001, 172);
        let ends: Vec<_> = cut(&last, 576).iter().map(|piece| fields(piece).1).collect();
        assert_eq!(ends, [true, false]);
    }

    #[test]
    fn options_without_the_copied_bit_stay_with_the_first_piece() {
        let record_route = [7, 7, 4, 0, 0, 0, 0, 0];
        let copied = [LOOSE_SOURCE_ROUTE, 7, 4, 10, 0, 0, 1, 0];
        let pieces = cut(&packet(&[&copied[..7], &record_route[..7], &[0, 0]].concat(), 600, 0), 300);
        let lens: Vec<usize> =
            pieces.iter().map(|piece| ipv4::Packet::new_checked(piece).unwrap().header_len()).collect();
        assert_eq!(lens, [36, 28, 28]);
        assert_eq!(pieces[1][20..28], copied);
    }

    #[test]
    fn what_cannot_be_cut_is_refused() {
        assert!(Fragments::new(&packet(&[], 1480, DONT_FRAGMENT), 1400).is_none(), "it must not be");
        assert!(Fragments::new(&packet(&[], 1480, 0), 27).is_none(), "nothing fits");
        assert!(Fragments::new(&packet(&[], 1480, 0), 28).is_some());
        assert!(Fragments::new(&packet(&[], 1480, 8191), 1400).is_none(), "it ends beyond 65 535");
        assert!(Fragments::new(&packet(&[], 1480, 0)[..100], 1400).is_none(), "it is malformed");
    }

    proptest! {
        #[test]
        fn the_pieces_fit_follow_each_other_and_hold_the_whole_payload(
            options in 0usize..=10, payload_len in 1usize..3000, mtu in 68u16..2000, offset in 0u16..1000, more: bool
        ) {
            let options = [148, 4, 0, 0].repeat(options);
            let flags = if more { MORE_FRAGMENTS } else { 0 };
            let whole = packet(&options, payload_len, flags | offset);
            let pieces = cut(&whole, mtu);
            let mut expected = usize::from(offset) * UNIT;
            let mut payload = Vec::new();
            for (index, piece) in pieces.iter().enumerate() {
                let is_last = index + 1 == pieces.len();
                let (at, more_follow, part) = fields(piece);
                prop_assert!(piece.len() <= usize::from(mtu));
                prop_assert_eq!((at, more_follow), (expected, more || !is_last));
                prop_assert!(is_last || part.len().is_multiple_of(UNIT));
                expected += part.len();
                payload.extend_from_slice(part);
            }
            prop_assert_eq!(&payload[..], &whole[20 + options.len()..]);
        }
    }
}

//! What stages ask of plain frames' headers, read once and kept in columns.
//!
//! Frames begin at multiples of 2 KiB, so the first-level cache, which tells lines apart by the lowest twelve bits of their
//! address, has room for the headers of a dozen or two of a batch's frames at once: a stage that went to the frames would fetch
//! most of them again. Columns lie together, and what is asked of all rows alike is asked of eight at a time.

use model::{Family, MacAddr};
use packet::{FlowKey, Layout, Parsed, PlainHead, ethernet};
use tables::Rows;

use crate::BATCH;

/// No frame's destination MAC address, which has six octets.
const NOBODY: u64 = u64::MAX;

/// Rows of a batch in columns. Of a row that is in neither set, the addresses mean nothing.
pub(crate) struct Heads {
    /// Rows with [`Layout::PlainV4`] and with [`Layout::PlainV6`].
    pub(crate) plain_v4: Rows,
    pub(crate) plain_v6: Rows,
    /// The first six octets of plain frames, the first one lowest; of others, [`NOBODY`].
    pub(crate) to: [u64; BATCH],
    /// Of plain IPv4 frames, in this processor's byte order.
    pub(crate) sources: [u32; BATCH],
    pub(crate) destinations: [u32; BATCH],
    /// The four octets behind their IP header: the ports, where there are any, the source's first.
    pub(crate) ports: [u32; BATCH],
    /// Of plain IPv6 frames.
    pub(crate) sources_v6: [u128; BATCH],
    pub(crate) destinations_v6: [u128; BATCH],
}

impl Heads {
    pub(crate) fn new() -> Heads {
        Heads {
            plain_v4: Rows::NONE,
            plain_v6: Rows::NONE,
            to: [NOBODY; BATCH],
            sources: [0; BATCH],
            destinations: [0; BATCH],
            ports: [0; BATCH],
            sources_v6: [0; BATCH],
            destinations_v6: [0; BATCH],
        }
    }

    /// Forgets which rows are plain.
    #[inline(always)]
    pub(crate) fn clear(&mut self) {
        (self.plain_v4, self.plain_v6) = (Rows::NONE, Rows::NONE);
    }

    /// Reads a plain frame's head into its row.
    #[inline(always)]
    pub(crate) fn read(&mut self, row: usize, head: PlainHead<'_>) {
        const L3: usize = ethernet::HEADER_LEN;
        match head {
            PlainHead::V4(head) => {
                self.plain_v4.insert(row);
                self.to[row] = first_six(head);
                self.sources[row] = u32::from_be_bytes(octets(&head[L3 + 12..]));
                self.destinations[row] = u32::from_be_bytes(octets(&head[L3 + 16..]));
                self.ports[row] = u32::from_be_bytes(octets(&head[Layout::PLAIN_V4_LEN..]));
            }
            PlainHead::V6(head) => {
                self.plain_v6.insert(row);
                self.to[row] = first_six(head);
                (self.sources_v6[row], self.destinations_v6[row]) = addresses_v6(head);
            }
        }
    }

    /// A row's frame isn't plain, nor was it.
    #[inline(always)]
    pub(crate) fn skip(&mut self, row: usize) {
        self.to[row] = NOBODY;
    }

    /// Reads a row's frame anew: it has changed.
    pub(crate) fn read_again(&mut self, row: usize, frame: &[u8], parsed: &Parsed) {
        let head = match parsed.layout {
            Layout::PlainV4 => frame.first_chunk().map(PlainHead::V4),
            Layout::PlainV6 => frame.first_chunk().map(PlainHead::V6),
            Layout::Other => None,
        };
        self.replace(row, head);
    }

    /// A row's frame has got these addresses and ports.
    #[inline]
    pub(crate) fn translate(&mut self, row: usize, frame: &[u8], parsed: &Parsed, to: &FlowKey) {
        if !self.plain_v4.contains(row) {
            return self.read_again(row, frame, parsed);
        }
        (self.sources[row], self.destinations[row]) = (to.src as u32, to.dst as u32);
        self.ports[row] = u32::from(to.sport) << 16 | u32::from(to.dport);
    }

    /// Another frame, plain or not, in a row that was read.
    #[inline(always)]
    pub(crate) fn replace(&mut self, row: usize, head: Option<PlainHead<'_>>) {
        let this = Rows::only(row);
        (self.plain_v4, self.plain_v6) = (self.plain_v4.without(this), self.plain_v6.without(this));
        match head {
            Some(head) => self.read(row, head),
            None => self.skip(row),
        }
    }

    /// The flow of a plain IPv4 frame with ports.
    #[inline(always)]
    pub(crate) fn flow_v4(&self, row: usize, protocol: u8) -> FlowKey {
        FlowKey {
            src: self.sources[row].into(),
            dst: self.destinations[row].into(),
            sport: (self.ports[row] >> 16) as u16,
            dport: self.ports[row] as u16,
            protocol,
            family: Family::V4,
        }
    }

    /// Are all of a batch's rows plain IPv4 frames?
    #[inline]
    pub(crate) fn are_all_plain_v4(&self, len: usize) -> bool {
        self.plain_v4 == Rows::first(len)
    }

    /// Are they plain IPv6 frames?
    #[inline]
    pub(crate) fn are_all_plain_v6(&self, len: usize) -> bool {
        self.plain_v6 == Rows::first(len)
    }
}

/// A MAC address as [`Heads::to`] has it: a number compares in one instruction.
#[inline(always)]
pub(crate) fn word(MacAddr([a, b, c, d, e, f]): MacAddr) -> u64 {
    u64::from_le_bytes([a, b, c, d, e, f, 0, 0])
}

/// The first six octets, which are loaded with the next two.
#[inline(always)]
pub(crate) fn first_six(head: &[u8]) -> u64 {
    u64::from_le_bytes(octets(head)) & 0xffff_ffff_ffff
}

/// Source and destination of a plain IPv6 frame.
#[inline(always)]
pub(crate) fn addresses_v6(head: &[u8; Layout::PLAIN_V6_LEN + 4]) -> (u128, u128) {
    const L3: usize = ethernet::HEADER_LEN;
    (u128::from_be_bytes(octets(&head[L3 + 8..])), u128::from_be_bytes(octets(&head[L3 + 24..])))
}

/// The first octets of at least as many.
#[inline(always)]
fn octets<const N: usize>(bytes: &[u8]) -> [u8; N] {
    bytes.first_chunk().copied().unwrap_or([0; N])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_hold_what_stands_in_the_headers() {
        let bytes: Vec<u8> = (0..64).collect();
        let mut heads = Heads::new();
        heads.read(3, PlainHead::V4(bytes.first_chunk().unwrap()));
        heads.read(5, PlainHead::V6(bytes.first_chunk().unwrap()));
        assert_eq!((heads.plain_v4, heads.plain_v6), (Rows::only(3), Rows::only(5)));
        let first_six = word(MacAddr([0, 1, 2, 3, 4, 5]));
        assert_eq!([heads.to[3], heads.to[4], heads.to[5]], [first_six, NOBODY, first_six]);
        assert_eq!((heads.sources[3], heads.destinations[3]), (0x1a1b_1c1d, 0x1e1f_2021));
        let flow = heads.flow_v4(3, 17);
        assert_eq!((flow.src, flow.dst, flow.sport, flow.dport), (0x1a1b_1c1d, 0x1e1f_2021, 0x2223, 0x2425));
        assert_eq!(heads.sources_v6[5].to_be_bytes(), bytes[22..38]);
        assert_eq!(heads.destinations_v6[5].to_be_bytes(), bytes[38..54]);
    }

    #[test]
    fn a_row_that_changes_its_family_is_of_one_only() {
        let bytes = [7; 64];
        let mut heads = Heads::new();
        heads.read(0, PlainHead::V4(bytes.first_chunk().unwrap()));
        assert!(heads.are_all_plain_v4(1) && !heads.are_all_plain_v4(2));
        let parsed = Parsed { layout: Layout::PlainV6, ..Parsed::UNTAGGED };
        heads.read_again(0, &bytes, &parsed);
        assert!(heads.are_all_plain_v6(1) && heads.plain_v4.is_empty());
        heads.read_again(0, &bytes, &Parsed::UNTAGGED);
        assert!(heads.plain_v4.is_empty() && heads.plain_v6.is_empty());
        assert_eq!(heads.to[0], NOBODY);
    }
}

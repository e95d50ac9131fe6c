//! Eight frames' headers at once: what `packet::parse_plain_into` and `Heads::read` make of plain IPv4, in the processor's
//! own words.
//!
//! The middle of every header is loaded as it stands, four numbers of 32 bits at a time, and eight headers' first numbers
//! are put side by side in one register, then their second ones, and so on: columns, for two instructions a number. What is
//! asked of a header is asked of eight then. All of this room's unsafe code is here: one call.
//!
//! **Why it pays.** With a full internet table, one frame after the other took 71 instructions and 10 clocks a packet, where
//! everything together took 286 and 37; this takes 37 and 6 (Zen 5, `perf walk` in turn, `perf instructions`).

use std::arch::x86_64::{
    __m256i, _mm256_add_epi32, _mm256_and_si256, _mm256_andnot_si256, _mm256_castsi256_ps,
    _mm256_cmpeq_epi32, _mm256_cmpgt_epi32, _mm256_movemask_ps, _mm256_or_si256, _mm256_set1_epi32,
    _mm256_setzero_si256, _mm256_shuffle_epi8, _mm256_srli_epi32, _mm256_unpackhi_epi32,
    _mm256_unpackhi_epi64, _mm256_unpacklo_epi32, _mm256_unpacklo_epi64, _mm256_xor_si256,
};

use afxdp::Frame;
use bytemuck::{must_cast, must_cast_mut};
use packet::{Layout, Parsed, ethernet, protocol};
use tables::Rows;

use crate::heads::{Heads, first_six};

/// Frames that are read together.
pub(super) const EIGHT: usize = 8;

/// The first bytes of a plain IPv4 frame: its Ethernet and IP headers, and its ports, where it has any.
type Head = [u8; Layout::PLAIN_V4_LEN + 4];

/// Reads those of eight frames that have [`Layout::PlainV4`] into their rows, from `first` on, and says which; in the
/// others' rows nothing is left that means anything.
#[inline(always)]
pub(super) fn plain_v4(
    frames: &[Frame; EIGHT],
    first: usize,
    heads: &mut Heads,
    parsed: &mut [Parsed; EIGHT],
) -> Rows {
    // SAFETY: this file is compiled where all that is compiled may use AVX2, and `tortie` looks for it at its start.
    #[expect(unsafe_code, reason = "only its extension makes the function unsafe to call")]
    unsafe {
        read(frames, first, heads, parsed)
    }
}

#[inline]
#[target_feature(enable = "avx2")]
fn read(frames: &[Frame; EIGHT], first: usize, heads: &mut Heads, parsed: &mut [Parsed; EIGHT]) -> Rows {
    let rows = first..first + EIGHT;
    let Some(to) = heads.to.get_mut(rows.clone()).and_then(|to| to.first_chunk_mut()) else {
        return Rows::NONE;
    };
    // Bytes 6 to 22 of each header, of which the first four are nobody's business here, and 22 to 38.
    let mut lengths = [0; EIGHT];
    let Some((a, e)) = pair::<0>(frames, &mut lengths, to, parsed) else { return Rows::NONE };
    let Some((b, f)) = pair::<1>(frames, &mut lengths, to, parsed) else { return Rows::NONE };
    let Some((c, g)) = pair::<2>(frames, &mut lengths, to, parsed) else { return Rows::NONE };
    let Some((d, h)) = pair::<3>(frames, &mut lengths, to, parsed) else { return Rows::NONE };
    let [_, link, length, fragment] = columns(a, b, c, d);
    let [hops, source, destination, ports] = columns(e, f, g, h);

    // As the bytes stand in memory, the last one highest: the ethertype behind an address's end; version and header length;
    // flags and offset, of which only "don't fragment" may be set.
    let ethertype = _mm256_xor_si256(_mm256_srli_epi32::<16>(link), all(ethernet::IPV4.to_be().into()));
    let version = _mm256_xor_si256(_mm256_and_si256(length, all(0xff)), all(0x45));
    let in_parts = _mm256_and_si256(fragment, all(0xffbf_0000));
    let other = _mm256_or_si256(_mm256_or_si256(ethertype, version), in_parts);
    let is_whole = _mm256_cmpeq_epi32(other, _mm256_setzero_si256());

    let protocols = _mm256_and_si256(_mm256_srli_epi32::<8>(hops), all(0xff));
    let is = |protocol: u8| _mm256_cmpeq_epi32(protocols, all(protocol.into()));
    let has_40 = _mm256_or_si256(is(protocol::TCP), is(protocol::IPIP));
    let has_28 = _mm256_or_si256(is(protocol::UDP), is(protocol::ICMP));
    let is_known = _mm256_or_si256(has_40, has_28);
    let least = _mm256_add_epi32(all(28), _mm256_and_si256(has_40, all(12)));
    let total = _mm256_shuffle_epi8(length, each([3, 2, NOTHING, NOTHING]));
    let room = _mm256_add_epi32(must_cast(lengths), all(0u32.wrapping_sub(ethernet::HEADER_LEN as u32)));
    let misfits = _mm256_or_si256(_mm256_cmpgt_epi32(least, total), _mm256_cmpgt_epi32(total, room));

    // A right sum is all ones (RFC 1071). Ten numbers of 16 bits: what one fold leaves above 16 bits is less than ten, so
    // no sum becomes right by a second one. A header of zeros has no version 4.
    let halves = |word| _mm256_add_epi32(_mm256_and_si256(word, all(0xffff)), _mm256_srli_epi32::<16>(word));
    let sum = [length, fragment, hops, source, destination]
        .into_iter()
        .fold(_mm256_setzero_si256(), |sum, word| _mm256_add_epi32(sum, halves(word)));
    let is_right = _mm256_cmpeq_epi32(halves(sum), all(0xffff));

    let is_plain = _mm256_and_si256(_mm256_and_si256(is_whole, is_known), is_right);
    let is_plain = _mm256_movemask_ps(_mm256_castsi256_ps(_mm256_andnot_si256(misfits, is_plain)));
    let plain = Rows(is_plain as u8 as u64);
    if plain.is_empty() {
        return plain;
    }

    let big_endian = each([3, 2, 1, 0]);
    for (column, words) in
        [(&mut heads.sources, source), (&mut heads.destinations, destination), (&mut heads.ports, ports)]
    {
        if let Some(column) =
            column.get_mut(rows.clone()).and_then(|column| column.first_chunk_mut::<EIGHT>())
        {
            *must_cast_mut(column) =
                must_cast::<__m256i, [u32; EIGHT]>(_mm256_shuffle_epi8(words, big_endian));
        }
    }
    plain
}

/// Bytes 6 to 22 and 22 to 38 of a frame and of the fourth one behind it, which lie in the upper halves. Writes what needs no
/// comparison: their lengths, and what there is to know of them if they are plain. `None` where one is too short for that.
#[inline]
#[target_feature(enable = "avx2")]
fn pair<const LOW: usize>(
    frames: &[Frame; EIGHT],
    lengths: &mut [u32; EIGHT],
    to: &mut [u64; EIGHT],
    parsed: &mut [Parsed; EIGHT],
) -> Option<(__m256i, __m256i)> {
    let mut halves = [[[0; 16]; 2]; 2];
    for (half, number) in [LOW, LOW + 4].into_iter().enumerate() {
        let bytes = frames[number].bytes();
        let head: &Head = bytes.first_chunk()?;
        lengths[number] = bytes.len() as u32;
        to[number] = first_six(head);
        parsed[number].set_plain_v4(head);
        let (_, from_6) = head.split_first_chunk::<6>()?;
        let (link, rest) = from_6.split_first_chunk()?;
        (halves[0][half], halves[1][half]) = (*link, *rest.first_chunk()?);
    }
    Some((must_cast(halves[0]), must_cast(halves[1])))
}

/// Four numbers of eight headers, the same number of all of them together, in their order. Each has four numbers of two headers:
/// number 0 and 4, 1 and 5, 2 and 6, 3 and 7.
#[inline]
#[target_feature(enable = "avx2")]
fn columns(a: __m256i, b: __m256i, c: __m256i, d: __m256i) -> [__m256i; 4] {
    let (low, high) = (_mm256_unpacklo_epi32(a, b), _mm256_unpackhi_epi32(a, b));
    let (low_2, high_2) = (_mm256_unpacklo_epi32(c, d), _mm256_unpackhi_epi32(c, d));
    [
        _mm256_unpacklo_epi64(low, low_2),
        _mm256_unpackhi_epi64(low, low_2),
        _mm256_unpacklo_epi64(high, high_2),
        _mm256_unpackhi_epi64(high, high_2),
    ]
}

/// The same number eight times.
#[inline]
#[target_feature(enable = "avx2")]
fn all(number: u32) -> __m256i {
    _mm256_set1_epi32(number as i32)
}

/// A byte of zeros.
const NOTHING: u8 = 0x80;

/// Which bytes of each number are its first to fourth, lowest first.
#[inline]
#[target_feature(enable = "avx2")]
fn each(bytes: [u8; 4]) -> __m256i {
    let mut order = [NOTHING; 32];
    for (place, order) in order.iter_mut().enumerate() {
        let byte = bytes[place % 4];
        // The instruction looks at the lowest four bits, for each half of the register by itself.
        *order = if byte == NOTHING { NOTHING } else { byte + (place as u8 & 12) };
    }
    must_cast(order)
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use afxdp::{FramePool, Region, RegionConfig};
    use packet::{PlainHead, checksum};
    use proptest::array::uniform8;
    use proptest::prelude::*;
    use proptest::sample::select;
    use proptest::test_runner::TestRunner;

    use super::*;

    const L3: usize = ethernet::HEADER_LEN;

    /// What a frame is made of: its length, the ethertype, the header's first octet, the total length, flags and offset,
    /// TTL, protocol, and what is added to the right checksum.
    type Made = (usize, u16, u8, u16, u16, u8, u8, u16);

    /// Frames that are plain, and frames that are nearly so.
    fn made() -> impl Strategy<Value = Made> {
        let length = prop_oneof![3 => Just(64), 1 => 36..90usize];
        let ethertype = prop_oneof![8 => Just(0x0800), 1 => select(vec![0x86dd, 0x0008, 0x0801, 0x8100])];
        let first = prop_oneof![8 => Just(0x45), 1 => select(vec![0x44, 0x46, 0x55, 0x65])];
        let total = prop_oneof![3 => Just(50), 3 => 18..80u16, 1 => any::<u16>()];
        let fragment = prop_oneof![4 => select(vec![0, 0x4000]), 1 => (0..16u32).prop_map(|bit| 1 << bit)];
        let protocol = prop_oneof![6 => select(vec![1, 4, 6, 17]), 1 => any::<u8>()];
        let off = prop_oneof![8 => Just(0), 1 => select(vec![1, 0x100, 0xffff, 0x8000])];
        (length, ethertype, first, total, fragment, any::<u8>(), protocol, off)
    }

    fn frame(pool: &mut FramePool, made: Made, addresses: [u8; 12], id: u16) -> Frame {
        let (length, ethertype, first, total, fragment, ttl, protocol, off) = made;
        let mut bytes: Vec<u8> = (0..length as u8).collect();
        let mut put = |at: usize, field: &[u8]| {
            if let Some(place) = bytes.get_mut(at..at + field.len()) {
                place.copy_from_slice(field);
            }
        };
        put(12, &ethertype.to_be_bytes());
        put(L3, &[first, 0]);
        put(L3 + 2, &total.to_be_bytes());
        put(L3 + 4, &id.to_be_bytes());
        put(L3 + 6, &fragment.to_be_bytes());
        put(L3 + 8, &[ttl, protocol, 0, 0]);
        put(L3 + 12, &addresses);
        if let Some(header) = bytes.get(L3..Layout::PLAIN_V4_LEN) {
            let right = checksum::Sum::new().add_bytes(header).checksum();
            bytes[L3 + 10..L3 + 12].copy_from_slice(&right.wrapping_add(off).to_be_bytes());
        }
        let mut frame = pool.take().unwrap();
        frame.copy_from(&bytes).unwrap();
        frame
    }

    #[test]
    fn eight_at_once_are_read_as_one_after_the_other() {
        let config = RegionConfig { frames: 8, chunk_size: 2048, large: None, hugepages: false };
        let pool = RefCell::new(Region::new(config).unwrap().1);
        let eight = uniform8((made(), any::<[u8; 12]>(), any::<u16>()));
        let checked = TestRunner::default().run(&eight, |eight| {
            let pool = &mut *pool.borrow_mut();
            let mut frames = eight.map(|(made, addresses, id)| frame(pool, made, addresses, id));
            let outcome = check(&frames);
            frames.iter_mut().for_each(Frame::reset);
            frames.into_iter().for_each(|frame| pool.put(frame));
            outcome
        });
        checked.unwrap();
    }

    fn check(frames: &[Frame; EIGHT]) -> Result<(), TestCaseError> {
        const FIRST: usize = 16;
        let (mut heads, mut parsed) = (Heads::new(), [Parsed::UNTAGGED; EIGHT]);
        let plain = plain_v4(frames, FIRST, &mut heads, &mut parsed);
        // One that is shorter than its ports leaves all eight to the others.
        let are_whole = frames.iter().all(|frame| frame.len() >= Layout::PLAIN_V4_LEN + 4);
        for (number, frame) in frames.iter().enumerate() {
            let (row, mut expected, mut one) = (FIRST + number, Parsed::UNTAGGED, Heads::new());
            let head = packet::parse_plain_into(frame.bytes(), &mut expected);
            let Some(head @ PlainHead::V4(_)) = head.filter(|_| are_whole) else {
                prop_assert!(!plain.contains(number), "{number}");
                continue;
            };
            prop_assert!(plain.contains(number), "{number}");
            one.read(row, head);
            prop_assert_eq!(parsed[number], expected);
            let columns = |heads: &Heads| {
                [heads.sources[row], heads.destinations[row], heads.ports[row]].map(u64::from)
            };
            prop_assert_eq!((heads.to[row], columns(&heads)), (one.to[row], columns(&one)));
        }
        Ok(())
    }
}

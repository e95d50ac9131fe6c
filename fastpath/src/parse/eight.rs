//! Eight frames' headers at once: what `packet::parse_plain_into` and `Heads::read` make of plain IPv4 and IPv6, in the
//! processor's own words.
//!
//! The middle of every header is loaded as it stands, four numbers of 32 bits at a time, and eight headers' first numbers
//! are put side by side in one register, then their second ones, and so on: columns, for two instructions a number. What is
//! asked of a header is asked of eight then. Eight frames are taken to be of the first one's family; what isn't is left to
//! those who read one by one. All of this room's unsafe code is here: one call.
//!
//! **Why it pays.** With a full internet table, one frame after the other took 71 instructions and 10 clocks a packet, where
//! everything together took 286 and 37; this takes 37 and 6 (Zen 5, `perf walk` in turn, `perf instructions`). Of IPv6, reading
//! took 13 clocks, and takes 6.

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

use crate::BATCH;
use crate::heads::{Heads, addresses_v6, first_six};

/// Frames that are read together.
pub(super) const EIGHT: usize = 8;

/// The first bytes of a plain frame: its Ethernet and IP headers, and its ports, where it has any.
type HeadV4 = [u8; Layout::PLAIN_V4_LEN + 4];
type HeadV6 = [u8; Layout::PLAIN_V6_LEN + 4];

/// Reads those of eight frames that are plain, and of the first one's family, into the rows of the so manieth eight, and says
/// which; in the others' rows nothing is left that means anything.
#[inline(always)]
pub(super) fn plain(
    frames: &[Frame; EIGHT],
    number: usize,
    heads: &mut Heads,
    parsed: &mut [Parsed; EIGHT],
) -> Rows {
    const V6: [u8; 2] = ethernet::IPV6.to_be_bytes();
    let is_v6 = frames[0].bytes().get(12..14) == Some(&V6);
    // SAFETY: this file is compiled where all that is compiled may use AVX2, and `tortie` looks for it at its start.
    #[expect(unsafe_code, reason = "only its extension makes the function unsafe to call")]
    unsafe {
        read(is_v6, frames, number, heads, parsed)
    }
}

#[inline]
#[target_feature(enable = "avx2")]
fn read(
    is_v6: bool,
    frames: &[Frame; EIGHT],
    number: usize,
    heads: &mut Heads,
    parsed: &mut [Parsed; EIGHT],
) -> Rows {
    let plain = match is_v6 {
        false => read_v4(frames, number, heads, parsed).map(|plain| (&mut heads.plain_v4, plain)),
        true => read_v6(frames, number, heads, parsed).map(|plain| (&mut heads.plain_v6, plain)),
    };
    let Some((family, plain)) = plain else { return Rows::NONE };
    let plain = Rows(u64::from(plain) << (number * EIGHT));
    *family = family.with(plain);
    plain
}

/// One bit for each frame that is plain; `None` where one is too short to look.
#[inline]
#[target_feature(enable = "avx2")]
fn read_v4(
    frames: &[Frame; EIGHT],
    number: usize,
    heads: &mut Heads,
    parsed: &mut [Parsed; EIGHT],
) -> Option<u8> {
    let to = eight(&mut heads.to, number)?;
    // Bytes 6 to 22 of each header, of which the first four are nobody's business here, and 22 to 38.
    let mut lengths = [0; EIGHT];
    let (a, e) = pair_v4::<0>(frames, &mut lengths, to, parsed)?;
    let (b, f) = pair_v4::<1>(frames, &mut lengths, to, parsed)?;
    let (c, g) = pair_v4::<2>(frames, &mut lengths, to, parsed)?;
    let (d, h) = pair_v4::<3>(frames, &mut lengths, to, parsed)?;
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
    let plain = bits(_mm256_andnot_si256(misfits, is_plain));
    if plain == 0 {
        return Some(plain);
    }

    let big_endian = each([3, 2, 1, 0]);
    for (column, words) in
        [(&mut heads.sources, source), (&mut heads.destinations, destination), (&mut heads.ports, ports)]
    {
        *must_cast_mut(eight(column, number)?) =
            must_cast::<__m256i, [u32; EIGHT]>(_mm256_shuffle_epi8(words, big_endian));
    }
    Some(plain)
}

/// As [`read_v4`], apart from it: the loop over eights has registers for one of them.
#[inline(never)]
#[target_feature(enable = "avx2")]
fn read_v6(
    frames: &[Frame; EIGHT],
    number: usize,
    heads: &mut Heads,
    parsed: &mut [Parsed; EIGHT],
) -> Option<u8> {
    let mut lengths = [0; EIGHT];
    let mut links = [[0; 16]; EIGHT];
    let to = eight(&mut heads.to, number)?;
    let sources = eight(&mut heads.sources_v6, number)?;
    let destinations = eight(&mut heads.destinations_v6, number)?;
    for (place, frame) in frames.iter().enumerate() {
        let bytes = frame.bytes();
        let head: &HeadV6 = bytes.first_chunk()?;
        lengths[place] = bytes.len() as u32;
        to[place] = first_six(head);
        (sources[place], destinations[place]) = addresses_v6(head);
        parsed[place].set_plain_v6(head);
        // The fourth one behind a frame lies in the upper half.
        links[place % 4 * 2 + place / 4] = *head.split_first_chunk::<6>()?.1.first_chunk()?;
    }
    // Bytes 6 to 22 of each header.
    let [a, b, c, d] = must_cast::<_, [__m256i; 4]>(links);
    let [_, link, version, length] = columns(a, b, c, d);

    let ethertype = _mm256_xor_si256(_mm256_srli_epi32::<16>(link), all(ethernet::IPV6.to_be().into()));
    let version = _mm256_xor_si256(_mm256_and_si256(version, all(0xf0)), all(0x60));
    let is_v6 = _mm256_cmpeq_epi32(_mm256_or_si256(ethertype, version), _mm256_setzero_si256());

    // Behind the payload's length, which the header isn't part of: protocol and hop limit.
    let protocols = _mm256_and_si256(_mm256_srli_epi32::<16>(length), all(0xff));
    let is = |protocol: u8| _mm256_cmpeq_epi32(protocols, all(protocol.into()));
    let has_20 = is(protocol::TCP);
    let is_known = _mm256_or_si256(has_20, is(protocol::UDP));
    let least = _mm256_add_epi32(all(8), _mm256_and_si256(has_20, all(12)));
    let payload = _mm256_shuffle_epi8(length, each([1, 0, NOTHING, NOTHING]));
    let room = _mm256_add_epi32(must_cast(lengths), all(0u32.wrapping_sub(Layout::PLAIN_V6_LEN as u32)));
    let misfits = _mm256_or_si256(_mm256_cmpgt_epi32(least, payload), _mm256_cmpgt_epi32(payload, room));
    Some(bits(_mm256_andnot_si256(misfits, _mm256_and_si256(is_v6, is_known))))
}

/// The rows of the so manieth eight in a column.
#[inline(always)]
fn eight<T>(column: &mut [T; BATCH], number: usize) -> Option<&mut [T; EIGHT]> {
    column.as_chunks_mut().0.get_mut(number)
}

/// One bit for each number that is all ones, where the others are zero.
#[inline]
#[target_feature(enable = "avx2")]
fn bits(numbers: __m256i) -> u8 {
    _mm256_movemask_ps(_mm256_castsi256_ps(numbers)) as u8
}

/// Bytes 6 to 22 and 22 to 38 of a frame and of the fourth one behind it, which lie in the upper halves. Writes what needs no
/// comparison: their lengths, and what there is to know of them if they are plain. `None` where one is too short for that.
#[inline]
#[target_feature(enable = "avx2")]
fn pair_v4<const LOW: usize>(
    frames: &[Frame; EIGHT],
    lengths: &mut [u32; EIGHT],
    to: &mut [u64; EIGHT],
    parsed: &mut [Parsed; EIGHT],
) -> Option<(__m256i, __m256i)> {
    let mut halves = [[[0; 16]; 2]; 2];
    for (half, number) in [LOW, LOW + 4].into_iter().enumerate() {
        let bytes = frames[number].bytes();
        let head: &HeadV4 = bytes.first_chunk()?;
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

    /// What a frame is made of.
    #[derive(Clone, Debug)]
    struct Made {
        is_v6: bool,
        length: usize,
        ethertype: u16,
        /// The header's first octet.
        first: u8,
        /// The total length, or the payload's.
        total: u16,
        protocol: u8,
        ttl: u8,
        /// IPv4's flags and offset, and what is added to the right checksum.
        fragment: u16,
        off: u16,
    }

    prop_compose! {
        /// Frames that are plain, and frames that are nearly so.
        fn made_v4()(
            length in prop_oneof![3 => Just(64), 1 => 36..90usize],
            ethertype in prop_oneof![8 => Just(0x0800), 1 => select(vec![0x86dd, 0x0008, 0x0801, 0x8100])],
            first in prop_oneof![8 => Just(0x45), 1 => select(vec![0x44, 0x46, 0x55, 0x65])],
            total in prop_oneof![3 => Just(50), 3 => 18..80u16, 1 => any::<u16>()],
            protocol in prop_oneof![6 => select(vec![1, 4, 6, 17]), 1 => any::<u8>()],
            ttl: u8,
            fragment in prop_oneof![4 => select(vec![0, 0x4000]), 1 => (0..16u32).prop_map(|bit| 1 << bit)],
            off in prop_oneof![8 => Just(0), 1 => select(vec![1, 0x100, 0xffff, 0x8000])],
        ) -> Made {
            Made { is_v6: false, length, ethertype, first, total, protocol, ttl, fragment, off }
        }
    }

    prop_compose! {
        fn made_v6()(
            length in prop_oneof![3 => Just(90), 1 => 55..110usize],
            ethertype in prop_oneof![8 => Just(0x86dd), 1 => select(vec![0x0800, 0xdd86, 0x86de, 0x8100])],
            first in prop_oneof![8 => 0x60..0x70u8, 1 => select(vec![0x45, 0x50, 0x70, 0xe0])],
            total in prop_oneof![3 => Just(36), 3 => 0..60u16, 1 => any::<u16>()],
            protocol in prop_oneof![6 => select(vec![6, 17]), 1 => any::<u8>()],
            ttl: u8,
        ) -> Made {
            Made { is_v6: true, length, ethertype, first, total, protocol, ttl, fragment: 0, off: 0 }
        }
    }

    /// `random`: the addresses, and what nobody looks at.
    fn frame(pool: &mut FramePool, made: &Made, random: [u8; 32]) -> Frame {
        let mut bytes: Vec<u8> = (0..made.length as u8).collect();
        let mut put = |at: usize, field: &[u8]| {
            if let Some(place) = bytes.get_mut(at..at + field.len()) {
                place.copy_from_slice(field);
            }
        };
        put(12, &made.ethertype.to_be_bytes());
        put(L3, &[made.first, 0]);
        if made.is_v6 {
            put(L3 + 1, &random[..3]);
            put(L3 + 4, &made.total.to_be_bytes());
            put(L3 + 6, &[made.protocol, made.ttl]);
            put(L3 + 8, &random);
        } else {
            put(L3 + 2, &made.total.to_be_bytes());
            put(L3 + 4, &random[8..10]);
            put(L3 + 6, &made.fragment.to_be_bytes());
            put(L3 + 8, &[made.ttl, made.protocol, 0, 0]);
            put(L3 + 12, &random[..8]);
            if let Some(header) = bytes.get(L3..Layout::PLAIN_V4_LEN) {
                let right = checksum::Sum::new().add_bytes(header).checksum();
                bytes[L3 + 10..L3 + 12].copy_from_slice(&right.wrapping_add(made.off).to_be_bytes());
            }
        }
        let mut frame = pool.take().unwrap();
        frame.copy_from(&bytes).unwrap();
        frame
    }

    fn alike(made: impl Strategy<Value = Made>) {
        let config = RegionConfig { frames: 8, chunk_size: 2048, large: None, hugepages: false };
        let pool = RefCell::new(Region::new(config).unwrap().1);
        let eight = uniform8((made, any::<[u8; 32]>()));
        let checked = TestRunner::default().run(&eight, |eight| {
            let pool = &mut *pool.borrow_mut();
            let mut frames = eight.map(|(made, random)| frame(pool, &made, random));
            let outcome = check(&frames);
            frames.iter_mut().for_each(Frame::reset);
            frames.into_iter().for_each(|frame| pool.put(frame));
            outcome
        });
        checked.unwrap();
    }

    #[test]
    fn eight_ipv4_frames_are_read_as_one_after_the_other() {
        alike(made_v4());
    }

    #[test]
    fn eight_ipv6_frames_are_read_as_one_after_the_other() {
        alike(made_v6());
    }

    #[test]
    fn eight_frames_of_both_families_are_read_as_one_after_the_other() {
        alike(prop_oneof![made_v4(), made_v6()]);
    }

    /// Eight are read as the first one's family has it, and only where all are long enough for their ports to be there.
    fn check(frames: &[Frame; EIGHT]) -> Result<(), TestCaseError> {
        const NUMBER: usize = 2;
        let (mut heads, mut parsed) = (Heads::new(), [Parsed::UNTAGGED; EIGHT]);
        let plain = super::plain(frames, NUMBER, &mut heads, &mut parsed);
        let are_v6 = frames[0].bytes()[12..14] == [0x86, 0xdd];
        let least = if are_v6 { Layout::PLAIN_V6_LEN } else { Layout::PLAIN_V4_LEN } + 4;
        let are_whole = frames.iter().all(|frame| frame.len() >= least);
        let [mine, others] = match are_v6 {
            false => [heads.plain_v4, heads.plain_v6],
            true => [heads.plain_v6, heads.plain_v4],
        };
        prop_assert_eq!((mine, others), (plain, Rows::NONE));
        for (number, frame) in frames.iter().enumerate() {
            let (row, mut expected, mut one) = (NUMBER * EIGHT + number, Parsed::UNTAGGED, Heads::new());
            let head = packet::parse_plain_into(frame.bytes(), &mut expected);
            let head = head.filter(|head| are_whole && matches!(head, PlainHead::V6(_)) == are_v6);
            prop_assert_eq!(plain.contains(row), head.is_some(), "{}", number);
            let Some(head) = head else { continue };
            one.read(row, head);
            prop_assert_eq!(parsed[number], expected);
            prop_assert_eq!(heads.to[row], one.to[row]);
            let columns = |heads: &Heads| match are_v6 {
                false => [heads.sources[row], heads.destinations[row], heads.ports[row]].map(u128::from),
                true => [heads.sources_v6[row], heads.destinations_v6[row], 0],
            };
            prop_assert_eq!(columns(&heads), columns(&one));
        }
        Ok(())
    }
}

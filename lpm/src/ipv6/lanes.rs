//! The descent for sixteen addresses in a register: what `descent.rs` does, where the processor has AVX-512.
//!
//! Both give the same words, and tests hold each of them to the oracle. Written in the processor's own words, since what
//! it is to do here is decided by them: an address's word, its byte and its mask stay in registers from the root to 48 bits
//! down, and what is loaded comes into a register by [`Cells::gather`]. Four groups of sixteen take turns, so that one
//! group's loads are under way while another computes.

use std::arch::x86_64::{
    __m512i, __mmask16, _mm512_add_epi32, _mm512_cmplt_epi32_mask, _mm512_madd_epi16, _mm512_movepi32_mask,
    _mm512_or_si512, _mm512_permutex2var_epi32, _mm512_popcnt_epi32, _mm512_set1_epi32, _mm512_setzero_si512,
    _mm512_shuffle_i64x2, _mm512_slli_epi32, _mm512_sllv_epi32, _mm512_srli_epi32, _mm512_sub_epi32,
    _mm512_testn_epi32_mask,
};
use std::sync::atomic::AtomicU32;

use bytemuck::{must_cast, must_cast_ref};

use super::descent::{self, BATCH, descend_rest};
use super::layout::{COMMON_BITS, GROUP, HEADER, LINE, PAGE_BITS, ROOT_BITS, ROOT_SLOTS, SPECIAL, STRIDE};
use crate::processor::Cells;

/// Addresses in a register.
const LANES: usize = 16;
const GROUPS: usize = BATCH / LANES;
const ALL: __mmask16 = __mmask16::MAX;

/// As [`descent::descend`].
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vpopcntdq")]
pub(crate) fn descend(words: &[AtomicU32], keys: &[u128; BATCH], at: &mut [u32; BATCH]) -> u64 {
    let Some(cells) = Cells::new(words) else { return descent::descend(words, keys, at) };
    let mut groups = [Group { at: _mm512_setzero_si512(), bytes: _mm512_setzero_si512() }; GROUPS];
    for (group, keys) in groups.iter_mut().zip(must_cast_ref::<_, [[[u128; 4]; 4]; GROUPS]>(keys)) {
        *group = Group::begin(cells, keys);
    }
    for _ in 0..(COMMON_BITS - PAGE_BITS) / STRIDE {
        let mut headers = [(_mm512_setzero_si512(), _mm512_setzero_si512()); GROUPS];
        let mut any = 0;
        for (header, group) in headers.iter_mut().zip(&mut groups) {
            any |= group.at_nodes();
            *header = group.header(cells);
        }
        if any == 0 {
            break;
        }
        for (header, group) in headers.into_iter().zip(&mut groups) {
            group.step(cells, header);
        }
    }
    let mut go_on = 0;
    for (number, (at, group)) in at.as_chunks_mut::<LANES>().0.iter_mut().zip(groups).enumerate() {
        *at = must_cast(group.at);
        // `BRANCH` is the highest bit.
        go_on |= u64::from(_mm512_movepi32_mask(group.at)) << (number * LANES);
    }
    descend_rest(words, keys, go_on, at)
}

/// Sixteen addresses on their way down.
#[derive(Clone, Copy)]
struct Group {
    /// The words that they have come to.
    at: __m512i,
    /// Their next three bytes, from the highest on.
    bytes: __m512i,
}

impl Group {
    /// Takes addresses to their words in the root or its pages.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vpopcntdq")]
    fn begin(cells: Cells<'_>, keys: &[[u128; 4]; 4]) -> Group {
        // Of eight addresses, the first four bytes each, then the next four. x86-64 has the last bytes of a number first.
        let heads = must_cast([3u32, 7, 11, 15, 19, 23, 27, 31, 2, 6, 10, 14, 18, 22, 26, 30]);
        let [low, next, more, high] = keys.map(must_cast);
        let (low, high) =
            (_mm512_permutex2var_epi32(low, heads, next), _mm512_permutex2var_epi32(more, heads, high));
        let (first, second) = (
            _mm512_shuffle_i64x2::<0b01_00_01_00>(low, high),
            _mm512_shuffle_i64x2::<0b11_10_11_10>(low, high),
        );
        let bytes = _mm512_or_si512(
            _mm512_slli_epi32::<{ PAGE_BITS as u32 }>(first),
            _mm512_srli_epi32::<{ 32 - PAGE_BITS as u32 }>(second),
        );
        let page_cells =
            _mm512_add_epi32(all(ROOT_SLOTS as u32), _mm512_srli_epi32::<{ 32 - PAGE_BITS as u32 }>(first));
        // Most addresses have a page. Where there is none its cells are zero, as they are where it has no route.
        let mut group = Group { at: cells.gather(ALL, page_cells, _mm512_setzero_si512()), bytes };
        let none = _mm512_testn_epi32_mask(group.at, group.at);
        if none != 0 {
            let root_cells = _mm512_srli_epi32::<{ 32 - ROOT_BITS as u32 }>(first);
            group.at = cells.gather(none, root_cells, group.at);
            // The page may have been begun between the two loads, and then it has what the root had.
            group.at = cells.gather(none & group.at_nodes(), page_cells, group.at);
        }
        group
    }

    /// The lanes that have come to nodes.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vpopcntdq")]
    fn at_nodes(&self) -> __mmask16 {
        // `BRANCH` is the sign, so the words of nodes are below all others.
        _mm512_cmplt_epi32_mask(self.at, all(SPECIAL))
    }

    /// The first cells of the nodes' lines.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vpopcntdq")]
    fn lines(&self) -> __m512i {
        _mm512_slli_epi32::<{ LINE.trailing_zeros() }>(self.at)
    }

    /// Takes the next byte: the word of its group in the node's header, and the how manieth it is there.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vpopcntdq")]
    fn header(&mut self, cells: Cells<'_>) -> (__m512i, __m512i) {
        let byte = _mm512_srli_epi32::<{ 32 - STRIDE as u32 }>(self.bytes);
        self.bytes = _mm512_slli_epi32::<{ STRIDE as u32 }>(self.bytes);
        // As `layout::group_of`.
        let group = _mm512_srli_epi32::<12>(_mm512_madd_epi16(byte, all(171)));
        let within = _mm512_sub_epi32(byte, _mm512_madd_epi16(group, all(GROUP)));
        let header =
            cells.gather(self.at_nodes(), _mm512_add_epi32(self.lines(), group), _mm512_setzero_si512());
        (header, within)
    }

    /// Takes all that have come to nodes down one level.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vpopcntdq")]
    fn step(&mut self, cells: Cells<'_>, (header, within): (__m512i, __m512i)) {
        // As `layout::run_index`.
        let begun = _mm512_sllv_epi32(header, _mm512_sub_epi32(all(31), within));
        let before = _mm512_add_epi32(_mm512_srli_epi32::<GROUP>(header), all(HEADER as u32 - 1));
        let run = _mm512_add_epi32(before, _mm512_popcnt_epi32(begun));
        self.at = cells.gather(self.at_nodes(), _mm512_add_epi32(self.lines(), run), self.at);
    }
}

/// A number in every lane.
#[inline]
#[target_feature(enable = "avx512f")]
fn all(number: u32) -> __m512i {
    _mm512_set1_epi32(number.cast_signed())
}

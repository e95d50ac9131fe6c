//! Slots and leaves for eight addresses in a register: what `read` does, where the processor has AVX2.

use std::arch::x86_64::{
    __m256i, _mm256_add_epi32, _mm256_and_si256, _mm256_cmpeq_epi32, _mm256_or_si256, _mm256_set1_epi32,
    _mm256_slli_epi32, _mm256_srli_epi32, _mm256_srlv_epi32, _mm256_sub_epi32,
};
use std::cell::Cell;
use std::sync::atomic::{AtomicU8, AtomicU32};

use bytemuck::{must_cast, must_cast_mut, must_cast_ref};

use super::{BATCH, ELSEWHERE, LARGE, ROOT_BITS, START, UNIT};
use crate::processor::eights;

/// As [`super::read`].
#[inline]
#[target_feature(enable = "avx2")]
pub(crate) fn read(
    root: &[AtomicU32; 1 << ROOT_BITS],
    leaves: &[AtomicU8],
    keys: &[u32; BATCH],
    slots: &mut [u32; BATCH],
    out: &mut [u32; BATCH],
    meanwhile: impl FnOnce(),
) -> u32 {
    let keys: &[[u32; 8]; 8] = must_cast_ref(keys);
    let slots: &mut [[u32; 8]; 8] = must_cast_mut(slots);
    let out: &mut [[u32; 8]; 8] = must_cast_mut(out);
    let slots = Cell::from_mut(slots).as_array_of_cells();
    let mut full = all(0);
    let number = |eight: usize| {
        let slot = eights::words(root, &keys[eight]);
        slots[eight].set(must_cast(slot));
        leaf_index(slot, must_cast(keys[eight]))
    };
    eights::bytes(leaves, number, meanwhile, |eight, codes| {
        let are_full = _mm256_cmpeq_epi32(codes, all(ELSEWHERE.into()));
        full = _mm256_or_si256(full, _mm256_and_si256(are_full, must_cast(slots[eight].get())));
        out[eight] = must_cast(_mm256_sub_epi32(codes, all(1)));
    });
    let full: [u32; 8] = must_cast(full);
    full.into_iter().fold(0, std::ops::BitOr::bitor)
}

/// As [`super::leaf_index`] of what is below the root.
#[inline]
#[target_feature(enable = "avx2")]
fn leaf_index(slots: __m256i, keys: __m256i) -> __m256i {
    let chosen = _mm256_and_si256(keys, all((1 << (32 - ROOT_BITS)) - 1));
    let chosen = _mm256_srlv_epi32(chosen, _mm256_and_si256(slots, all(LARGE - 1)));
    let first =
        _mm256_slli_epi32::<{ UNIT.trailing_zeros() as i32 }>(_mm256_srli_epi32::<{ START as i32 }>(slots));
    _mm256_add_epi32(first, chosen)
}

/// A number in every lane.
#[inline]
#[target_feature(enable = "avx2")]
fn all(number: u32) -> __m256i {
    _mm256_set1_epi32(number.cast_signed())
}

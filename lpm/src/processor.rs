//! What processors do that safe Rust has no words for: bringing memory near before it is read, and reading for eight or
//! sixteen addresses into a register. All of this room's unsafe code is here.
//!
//! **Why it pays.** A load that isn't there yet holds up what comes after it as soon as a core's window of some two hundred
//! instructions is full; a prefetch holds up nothing. So a batch asks for all that it is going to read, and reads it then.
//!
//! A look-up of IPv6 counts bits of what it has loaded before it knows what to load next. Loops that load one address at a
//! time must pass what they load through the stack to loops that compute in vectors, and a vector can't be read from the
//! stack before all the small stores that make it up have left the core. [`Cells::gather`] loads into a vector. On Zen 4,
//! with an internet table, in turn with the portable descent on a busy machine:
//!
//! | 90th percentile of short runs, M/s | portable | with this |
//! | --- | --- | --- |
//! | from the table / zipf | 80 / 114 | 141 / 163 |
//! | from the table / zipf, with 20,000 pods | 58 / 72 | 72 / 89 |
//! | 128 addresses, nothing missed | 170 | 269 |
//!
//! A gather takes a clock of Zen 5 an address and more: 16 for sixteen where the first-level cache has all, 19 where the
//! second has, and so IPv6's seven are most of what it takes. Loads into lanes took 13 and 16 by themselves, their numbers
//! moved out of a vector register (19 and 22 through the stack), and among the rest were 1.02 times as fast zipf, 0.99 from
//! the table, with addresses in the cache, and 0.91 and 0.85 with addresses out of memory.
//!
//! The same gather makes IPv4 no faster, which computes little between its two loads. Loads that put one number each into
//! a vector's lane, which are in AVX2 too, are fewer operations than loads and stores, and no vector waits for stores. With
//! an internet table, in turn, each with a table of its own, on Zen 5 and a busy machine:
//!
//! | median, M/s | portable | [`eights`] |
//! | --- | --- | --- |
//! | uniform / from the table / zipf | 1078 / 890 / 1064 | 1309 / 1000 / 1282 |

use std::sync::atomic::{AtomicU8, AtomicU32};

/// Asks for the cache line in which `slice[at]` lies, or would lie: nothing is read, so an index beyond the end is no error.
#[inline(always)]
pub fn prefetch<T>(slice: &[T], at: usize) {
    let place = slice.as_ptr().wrapping_add(at);
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a hint. The processor reads or writes nothing that the program could see and raises no fault, whatever the
    // address (Intel SDM volume 2B, AMD64 APM volume 3, PREFETCHh); SSE is part of x86-64.
    #[expect(unsafe_code, reason = "the intrinsic takes a raw pointer, and any will do")]
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(place.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = place;
}

/// Says that this processor has AVX-512, as far as it is used here: only [`Avx512::detect`] makes one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Avx512(());

impl Avx512 {
    /// The extensions that [`Cells`] and what uses them are compiled for: F, BW, DQ and VPOPCNTDQ (Ice Lake, Zen 4).
    pub(crate) fn detect() -> Option<Avx512> {
        #[cfg(target_arch = "x86_64")]
        if is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vpopcntdq")
        {
            return Some(Avx512(()));
        }
        None
    }

    /// `ipv6::lanes::descend`, which is compiled for what this says is there.
    #[cfg(target_arch = "x86_64")]
    #[inline]
    pub(crate) fn descend(self, words: &[AtomicU32], keys: &[u128; 64], at: &mut [u32; 64]) -> u64 {
        // SAFETY: the processor has all that the function is compiled for, or there were no `self`.
        #[expect(unsafe_code, reason = "only its extensions make the function unsafe to call")]
        unsafe {
            crate::ipv6::lanes::descend(words, keys, at)
        }
    }

    #[cfg(not(target_arch = "x86_64"))]
    pub(crate) fn descend(self, _: &[AtomicU32], _: &[u128; 64], _: &mut [u32; 64]) -> u64 {
        unreachable!("no such processor has AVX-512")
    }
}

/// Says that this processor has AVX2: only [`Avx2::detect`] makes one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Avx2(());

impl Avx2 {
    pub(crate) fn detect() -> Option<Avx2> {
        #[cfg(target_arch = "x86_64")]
        if is_x86_feature_detected!("avx2") {
            return Some(Avx2(()));
        }
        None
    }

    /// `ipv4::lanes::read`, which is compiled for what this says is there.
    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    pub(crate) fn read(
        self,
        root: &[AtomicU32; 1 << 16],
        leaves: &[AtomicU8],
        keys: &[u32; 64],
        slots: &mut [u32; 64],
        out: &mut [u32; 64],
        meanwhile: impl FnOnce(),
    ) -> u32 {
        // SAFETY: the processor has all that the function is compiled for, or there were no `self`.
        #[expect(unsafe_code, reason = "only its extensions make the function unsafe to call")]
        unsafe {
            crate::ipv4::lanes::read(root, leaves, keys, slots, out, meanwhile)
        }
    }

    #[cfg(not(target_arch = "x86_64"))]
    pub(crate) fn read(
        self,
        _: &[AtomicU32; 1 << 16],
        _: &[AtomicU8],
        _: &[u32; 64],
        _: &mut [u32; 64],
        _: &mut [u32; 64],
        _: impl FnOnce(),
    ) -> u32 {
        unreachable!("no such processor has AVX2")
    }
}

/// Loads for eight addresses, each into its lane.
#[cfg(target_arch = "x86_64")]
pub(crate) mod eights {
    use std::arch::asm;
    use std::arch::x86_64::{
        __m128i, __m256i, _mm256_cvtepu8_epi32, _mm256_min_epu32, _mm256_set_m128i, _mm256_set1_epi32,
    };
    use std::sync::atomic::{AtomicU8, AtomicU32};

    use bytemuck::{must_cast, must_cast_ref};

    /// What stands in the cells whose numbers are the first sixteen bits of these keys. What is read after this was not
    /// read before it, as with Acquire.
    #[inline]
    #[target_feature(enable = "avx2")]
    pub(crate) fn words(cells: &[AtomicU32; 1 << 16], keys: &[u32; 8]) -> __m256i {
        let [low, high]: &[[u32; 4]; 2] = must_cast_ref(keys);
        let low = four_words(cells, low);
        _mm256_set_m128i(four_words(cells, high), low)
    }

    /// Asks for the numbers of eight times eight cells, then for `between`, and tells what stands in the cells; in the last
    /// one for a number beyond it. Nothing is told of no cells. Ordered as [`words`].
    ///
    /// All numbers are in memory before the first load by them: to take them out of a register one by one costs more.
    #[inline]
    #[target_feature(enable = "avx2")]
    pub(crate) fn bytes(
        cells: &[AtomicU8],
        mut numbers: impl FnMut(usize) -> __m256i,
        between: impl FnOnce(),
        mut tell: impl FnMut(usize, __m256i),
    ) {
        let Some(last) = cells.len().checked_sub(1) else { return };
        let last = _mm256_set1_epi32(u32::try_from(last).unwrap_or(u32::MAX).cast_signed());
        let mut within = [Eight([0; 8]); 8];
        for (eight, within) in within.iter_mut().enumerate() {
            within.0 = must_cast(_mm256_min_epu32(numbers(eight), last));
        }
        between();
        for (eight, within) in within.iter().enumerate() {
            // SAFETY: none is beyond `last`, which is no larger than the number of the last cell.
            #[expect(unsafe_code, reason = "it trusts the numbers")]
            let found = unsafe { eight_bytes(cells, &within.0) };
            tell(eight, _mm256_cvtepu8_epi32(found));
        }
    }

    /// Of one register, where no load crosses a cache line's border.
    #[derive(Clone, Copy)]
    #[repr(align(32))]
    struct Eight([u32; 8]);

    /// [`words`] for half as many.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn four_words(cells: &[AtomicU32; 1 << 16], keys: &[u32; 4]) -> __m128i {
        let found;
        // SAFETY: a key's first sixteen bits are below 2^16, so each load is of the four bytes of one of the cells, or, of the
        // keys, of two of theirs; little-endian, the first bits are the last bytes. A writer may be storing in the cells:
        // they are atomics, and the loads are the instructions', not Rust's, to which a race would be undefined. The
        // processor loads four aligned bytes at once and loads nothing earlier that comes later (as in `Cells::gather`), and
        // the compiler moves no access to memory across `asm!` without `nomem`, which together is Acquire. Writes `found`
        // and `number`; no flags, no stack.
        #[expect(unsafe_code, reason = "no other load goes into a vector's lane")]
        unsafe {
            asm!(
                "movzx {number:e}, word ptr [{keys} + 2]",
                "vmovd {found}, dword ptr [{cells} + 4 * {number}]",
                "movzx {number:e}, word ptr [{keys} + 6]",
                "vpinsrd {found}, {found}, dword ptr [{cells} + 4 * {number}], 1",
                "movzx {number:e}, word ptr [{keys} + 10]",
                "vpinsrd {found}, {found}, dword ptr [{cells} + 4 * {number}], 2",
                "movzx {number:e}, word ptr [{keys} + 14]",
                "vpinsrd {found}, {found}, dword ptr [{cells} + 4 * {number}], 3",
                found = out(xmm_reg) found,
                number = out(reg) _,
                cells = in(reg) cells.as_ptr(),
                keys = in(reg) keys.as_ptr(),
                options(nostack, preserves_flags),
            );
        }
        found
    }

    /// What stands in the cells of these numbers.
    ///
    /// # Safety
    /// Each number is of one of the cells.
    #[inline]
    #[target_feature(enable = "avx2")]
    #[expect(unsafe_code, reason = "it trusts the numbers, and no other load goes into a vector's lane")]
    unsafe fn eight_bytes(cells: &[AtomicU8], numbers: &[u32; 8]) -> __m128i {
        let found;
        // SAFETY: the caller's numbers are of cells, so each load is of one of their bytes, or of one of the eight numbers. For
        // the rest, as in `four_words`.
        unsafe {
            asm!(
                "vpxor {found}, {found}, {found}",
                "mov {number:e}, dword ptr [{numbers} + 0]",
                "vpinsrb {found}, {found}, byte ptr [{cells} + {number}], 0",
                "mov {number:e}, dword ptr [{numbers} + 4]",
                "vpinsrb {found}, {found}, byte ptr [{cells} + {number}], 1",
                "mov {number:e}, dword ptr [{numbers} + 8]",
                "vpinsrb {found}, {found}, byte ptr [{cells} + {number}], 2",
                "mov {number:e}, dword ptr [{numbers} + 12]",
                "vpinsrb {found}, {found}, byte ptr [{cells} + {number}], 3",
                "mov {number:e}, dword ptr [{numbers} + 16]",
                "vpinsrb {found}, {found}, byte ptr [{cells} + {number}], 4",
                "mov {number:e}, dword ptr [{numbers} + 20]",
                "vpinsrb {found}, {found}, byte ptr [{cells} + {number}], 5",
                "mov {number:e}, dword ptr [{numbers} + 24]",
                "vpinsrb {found}, {found}, byte ptr [{cells} + {number}], 6",
                "mov {number:e}, dword ptr [{numbers} + 28]",
                "vpinsrb {found}, {found}, byte ptr [{cells} + {number}], 7",
                found = out(xmm_reg) found,
                number = out(reg) _,
                cells = in(reg) cells.as_ptr(),
                numbers = in(reg) numbers.as_ptr(),
                options(nostack, preserves_flags),
            );
        }
        found
    }
}

#[cfg(target_arch = "x86_64")]
pub(crate) use cells::Cells;

#[cfg(target_arch = "x86_64")]
mod cells {
    use std::arch::asm;
    use std::arch::x86_64::{__m512i, __mmask16, _mm512_min_epu32, _mm512_set1_epi32};
    use std::sync::atomic::AtomicU32;

    /// An array that is read for sixteen addresses at once.
    #[derive(Clone, Copy)]
    pub(crate) struct Cells<'a> {
        cells: &'a [AtomicU32],
        /// The number of the last one, 16 times. Not negative as a signed number: that is what the instruction takes.
        last: __m512i,
    }

    impl<'a> Cells<'a> {
        /// `None` for an array of no cells, or of more than 2^31.
        #[inline]
        #[target_feature(enable = "avx512f")]
        pub(crate) fn new(cells: &'a [AtomicU32]) -> Option<Cells<'a>> {
            let last = i32::try_from(cells.len().checked_sub(1)?).ok()?;
            Some(Cells { cells, last: _mm512_set1_epi32(last) })
        }

        /// What stands in the cells of these numbers, in the last cell for a number beyond it; in lanes that `lanes` leaves
        /// out, what `others` has there. What is read after this was not read before it, as with Acquire.
        #[inline]
        #[target_feature(enable = "avx512f")]
        pub(crate) fn gather(self, lanes: __mmask16, numbers: __m512i, others: __m512i) -> __m512i {
            let within = _mm512_min_epu32(numbers, self.last);
            let mut found = others;
            // SAFETY: `within` is at most `last` in every lane, so each load is of the four bytes of one of the cells, which
            // are borrowed for as long as `self` is. A writer may be storing there: the cells are atomics, and the loads are
            // the instruction's, not Rust's, to which a race would be undefined. The processor loads four aligned bytes at
            // once (AMD64 APM volume 2, section 7.3.2, and Intel SDM volume 3A, section 10.1.1), so a lane has what was stored
            // whole, as by a Relaxed load; neither loads before earlier loads what comes after them, and the compiler moves
            // no access to memory across `asm!` without `nomem`, which together is Acquire. Writes `found`, and `lanes`,
            // which it clears; no flags, no stack.
            #[expect(unsafe_code, reason = "the intrinsic would be a race")]
            unsafe {
                asm!(
                    "vpgatherdd {found} {{{lanes}}}, [{cells} + 4 * {within}]",
                    found = inout(zmm_reg) found,
                    lanes = inout(kreg) lanes => _,
                    cells = in(reg) self.cells.as_ptr(),
                    within = in(zmm_reg) within,
                    options(nostack, preserves_flags),
                );
            }
            found
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_index_may_be_asked_for() {
        let empty: [u64; 0] = [];
        for at in [0, 1, usize::MAX / 8, usize::MAX] {
            prefetch(&[1u64, 2, 3], at);
            prefetch(&empty, at);
        }
    }

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn sixteen_are_gathered_and_none_from_beyond_the_end() {
        #[target_feature(enable = "avx512f")]
        fn gather(cells: &[AtomicU32], lanes: u16, numbers: [u32; 16]) -> Option<[u32; 16]> {
            let others = bytemuck::must_cast([7u32; 16]);
            Cells::new(cells)
                .map(|cells| bytemuck::must_cast(cells.gather(lanes, bytemuck::must_cast(numbers), others)))
        }
        if Avx512::detect().is_none() {
            println!("skipped: no AVX-512 here");
            return;
        }
        let cells: Vec<AtomicU32> = (100..200).map(AtomicU32::new).collect();
        let numbers = [0, 1, 50, 99, 100, 1 << 31, u32::MAX, 3, 0, 1, 50, 99, 100, 1 << 31, u32::MAX, 3];
        // SAFETY: the processor has it, as was asked.
        #[expect(unsafe_code, reason = "only its extension makes the function unsafe to call")]
        let (found, none) = unsafe { (gather(&cells, 0x00ff, numbers), gather(&[], 0xffff, numbers)) };
        assert_eq!(found.unwrap(), [100, 101, 150, 199, 199, 199, 199, 103, 7, 7, 7, 7, 7, 7, 7, 7]);
        assert_eq!(none, None);
    }

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn each_lane_has_its_word_or_byte_and_none_is_from_beyond_the_end() {
        #[target_feature(enable = "avx2")]
        fn words(cells: &[AtomicU32; 1 << 16], keys: &[u32; 8]) -> [u32; 8] {
            bytemuck::must_cast(eights::words(cells, keys))
        }
        #[target_feature(enable = "avx2")]
        fn bytes(cells: &[AtomicU8], numbers: &[[u32; 8]; 8]) -> Vec<[u32; 8]> {
            let mut found = Vec::new();
            let number = |eight: usize| bytemuck::must_cast(numbers[eight]);
            eights::bytes(cells, number, || {}, |_, told| found.push(bytemuck::must_cast(told)));
            found
        }
        if Avx2::detect().is_none() {
            println!("skipped: no AVX2 here");
            return;
        }
        let cells: Vec<AtomicU32> = (0..1 << 16).map(|number: u32| AtomicU32::new(!number)).collect();
        let keys = [0, 0xffff, 0x1_0000, 0x7fff_ffff, 0x8000_0000, 0xffff_0000, u32::MAX, 0x0a41_1234];
        let small: Vec<AtomicU8> = (100..200).map(AtomicU8::new).collect();
        let numbers: [[u32; 8]; 8] =
            std::array::from_fn(|eight| [eight as u32, 8, 98, 99, 100, 1 << 31, u32::MAX, 11 * eight as u32]);
        // SAFETY: the processor has it, as was asked.
        #[expect(unsafe_code, reason = "only its extension makes the functions unsafe to call")]
        let (found, told, none) = unsafe {
            (words(cells.first_chunk().unwrap(), &keys), bytes(&small, &numbers), bytes(&[], &numbers))
        };
        assert_eq!(found, keys.map(|key| !(key >> 16)));
        for (numbers, told) in numbers.iter().zip(&told) {
            assert_eq!(*told, numbers.map(|number| 100 + number.min(99)));
        }
        assert_eq!((told.len(), none.len()), (8, 0));
    }
}

//! What batches compare many at a time: with what every processor has, or with AVX-512. All of this room's unsafe code is
//! here.
//!
//! **Why it pays.** Judging is computing: a packet among 10,000 rules took 560 instructions, more than four a clock, hardly
//! any of them waiting. A line of sixteen starts of intervals, a block of eight rules and eight words of bits are one comparison
//! each in registers of 512 bits, whose answer is a mask, and up to 64 starts are searched in registers for sixteen addresses
//! at once. With it, and with blocks' names read last, lists of 10,000 rules went from 31.1 to 40.1 (acl) and from 25.4 to 36.3
//! (fw) M/s by memory, on a busy Zen 5, in turn in one run.

use bytemuck::must_cast;

use super::compiled::{Compiled, Scratch};
use super::memo::Memory;
use super::packet::Packet;
use super::{Judgement, ProgramId};

/// Numbers in a line.
pub(super) const LINE: usize = 16;
/// Lines of a root at most.
const ROOT: usize = 4;
/// Words that are looked at together.
pub(super) const TOGETHER: usize = 8;

/// Numbers in order, in a cache line; behind the last one, the largest number.
#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
pub(super) struct Line([u32; LINE]);

impl Line {
    /// Of so many numbers at most.
    pub(super) fn new(numbers: &[u32]) -> Line {
        let mut line = Line([u32::MAX; LINE]);
        line.0[..numbers.len()].copy_from_slice(numbers);
        line
    }
}

/// A few lines that follow each other; their first number is 0.
#[derive(Clone, Copy, Debug)]
pub(super) struct Root {
    lines: [Line; ROOT],
    /// How many of them have numbers.
    filled: usize,
}

impl Root {
    /// Numbers in a root at most.
    pub(super) const NUMBERS: usize = ROOT * LINE;

    /// Of numbers in order.
    pub(super) fn new(numbers: &[u32]) -> Root {
        let mut lines = [Line::new(&[]); ROOT];
        let filled = numbers.chunks(LINE);
        lines.iter_mut().zip(filled.clone()).for_each(|(line, some)| *line = Line::new(some));
        Root { lines, filled: filled.len() }
    }

    /// Which of its numbers is the last that is at most this one.
    #[inline(always)]
    pub(super) fn last_up_to(&self, processor: impl Processor, number: u32) -> u32 {
        let lines = self.lines.iter().take(self.filled);
        lines.map(|line| processor.count_up_to(line, number)).sum::<u32>().wrapping_sub(1)
    }
}

/// Spans of eight lanes, four to a lane: their first numbers, or how many more.
pub(super) type Spans = [u16; 32];

/// What a processor compares with. Each gives the same answers.
pub(super) trait Processor: Copy {
    /// How many of a line's numbers are at most this one.
    fn count_up_to(self, line: &Line, number: u32) -> u32;

    /// For each of these, which of a root's numbers is the last that is at most that.
    fn last_up_to(self, root: &Root, numbers: &[u32; LINE]) -> [u32; LINE];

    /// A bit for each lane, the first one lowest: do all of its spans hold the numbers that are asked?
    fn within(self, first: &Spans, more: &Spans, asked: u64) -> u8;

    /// A bit for each word that isn't zero, the first one lowest.
    fn filled(self, words: &[u64; TOGETHER]) -> u8;
}

/// Any processor.
#[derive(Clone, Copy, Debug)]
pub(super) struct Any;

impl Processor for Any {
    #[inline(always)]
    fn count_up_to(self, line: &Line, number: u32) -> u32 {
        line.0.iter().map(|one| u32::from(*one <= number)).sum()
    }

    #[inline(always)]
    fn last_up_to(self, root: &Root, numbers: &[u32; LINE]) -> [u32; LINE] {
        numbers.map(|number| root.last_up_to(self, number))
    }

    #[inline(always)]
    fn within(self, first: &Spans, more: &Spans, asked: u64) -> u8 {
        let asked: [u16; 32] = must_cast([asked; 8]);
        let mut misses = [0; 32];
        for ((miss, asked), (first, more)) in misses.iter_mut().zip(&asked).zip(first.iter().zip(more)) {
            *miss = asked.wrapping_sub(*first).saturating_sub(*more);
        }
        !self.filled(&must_cast(misses))
    }

    #[inline(always)]
    fn filled(self, words: &[u64; TOGETHER]) -> u8 {
        (0..).zip(words).fold(0, |bits, (at, word)| bits | u8::from(*word != 0) << at)
    }
}

/// Says that this processor has AVX-512, as far as it is used here: only [`Avx512::detect`] makes one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Avx512(());

impl Avx512 {
    /// The extensions that are used here, F and BW, of processors that have VPOPCNTDQ as well (Ice Lake, Zen 4): those before
    /// slow down for registers of 512 bits.
    pub(super) fn detect() -> Option<Avx512> {
        #[cfg(target_arch = "x86_64")]
        if is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512vpopcntdq")
        {
            return Some(Avx512(()));
        }
        None
    }

    /// [`Compiled::judge_all`], compiled for what this says is there.
    #[cfg(target_arch = "x86_64")]
    #[inline]
    pub(super) fn judge_all(
        self,
        compiled: &Compiled,
        scratch: &mut Scratch,
        memory: impl Memory,
        asked: &[(ProgramId, Packet)],
        out: &mut [Judgement],
    ) {
        // SAFETY: the processor has all that the function is compiled for, or there were no `self`.
        #[expect(unsafe_code, reason = "only its extensions make the function unsafe to call")]
        unsafe {
            avx512::judge_all(compiled, self, scratch, memory, asked, out);
        }
    }

    #[cfg(not(target_arch = "x86_64"))]
    pub(super) fn judge_all(
        self,
        _: &Compiled,
        _: &mut Scratch,
        _: impl Memory,
        _: &[(ProgramId, Packet)],
        _: &mut [Judgement],
    ) {
        unreachable!("no such processor has AVX-512")
    }
}

#[cfg(target_arch = "x86_64")]
impl Processor for Avx512 {
    #[inline(always)]
    fn count_up_to(self, line: &Line, number: u32) -> u32 {
        // SAFETY: as of `judge_all`.
        #[expect(unsafe_code, reason = "only its extensions make the function unsafe to call")]
        unsafe {
            avx512::count_up_to(line, number)
        }
    }

    #[inline(always)]
    fn last_up_to(self, root: &Root, numbers: &[u32; LINE]) -> [u32; LINE] {
        // SAFETY: as of `judge_all`.
        #[expect(unsafe_code, reason = "only its extensions make the function unsafe to call")]
        unsafe {
            avx512::last_up_to(root, numbers)
        }
    }

    #[inline(always)]
    fn within(self, first: &Spans, more: &Spans, asked: u64) -> u8 {
        // SAFETY: as of `judge_all`.
        #[expect(unsafe_code, reason = "only its extensions make the function unsafe to call")]
        unsafe {
            avx512::within(first, more, asked)
        }
    }

    #[inline(always)]
    fn filled(self, words: &[u64; TOGETHER]) -> u8 {
        // SAFETY: as of `judge_all`.
        #[expect(unsafe_code, reason = "only its extensions make the function unsafe to call")]
        unsafe {
            avx512::filled(words)
        }
    }
}

/// What is compiled for AVX-512.
#[cfg(target_arch = "x86_64")]
mod avx512 {
    use std::arch::x86_64::{
        __m512i, _mm512_add_epi32, _mm512_cmple_epu32_mask, _mm512_mask_add_epi32, _mm512_mask_blend_epi32,
        _mm512_permutex2var_epi32, _mm512_set1_epi32, _mm512_set1_epi64, _mm512_sub_epi16, _mm512_subs_epu16,
        _mm512_test_epi64_mask, _mm512_testn_epi64_mask,
    };

    use super::{
        Avx512, Compiled, Judgement, LINE, Line, Memory, Packet, ProgramId, Root, Scratch, Spans, TOGETHER,
        must_cast,
    };

    #[target_feature(enable = "avx512f,avx512bw")]
    pub(super) fn judge_all(
        compiled: &Compiled,
        avx512: Avx512,
        scratch: &mut Scratch,
        memory: impl Memory,
        asked: &[(ProgramId, Packet)],
        out: &mut [Judgement],
    ) {
        compiled.judge_all(avx512, scratch, memory, asked, out);
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    pub(super) fn count_up_to(line: &Line, number: u32) -> u32 {
        _mm512_cmple_epu32_mask(must_cast(line.0), all(number)).count_ones()
    }

    /// Halves what is left with each step.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    pub(super) fn last_up_to(root: &Root, numbers: &[u32; LINE]) -> [u32; LINE] {
        let numbers = must_cast(*numbers);
        let [a, b, c, d]: [__m512i; 4] = root.lines.map(|line| must_cast(line.0));
        let half = 2 * LINE as u32;
        let is_high = _mm512_cmple_epu32_mask(all(root.lines[2].0[0]), numbers);
        let mut at = all(0);
        for step in [16, 8, 4, 2, 1] {
            let next = _mm512_add_epi32(at, all(step));
            let (low, high) = (_mm512_permutex2var_epi32(a, next, b), _mm512_permutex2var_epi32(c, next, d));
            let number = _mm512_mask_blend_epi32(is_high, low, high);
            at = _mm512_mask_add_epi32(at, _mm512_cmple_epu32_mask(number, numbers), at, all(step));
        }
        must_cast(_mm512_mask_add_epi32(at, is_high, at, all(half)))
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    pub(super) fn within(first: &Spans, more: &Spans, asked: u64) -> u8 {
        let asked = _mm512_set1_epi64(asked.cast_signed());
        let misses = _mm512_subs_epu16(_mm512_sub_epi16(asked, must_cast(*first)), must_cast(*more));
        _mm512_testn_epi64_mask(misses, misses)
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    pub(super) fn filled(words: &[u64; TOGETHER]) -> u8 {
        _mm512_test_epi64_mask(must_cast(*words), must_cast(*words))
    }

    /// A number in every lane.
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn all(number: u32) -> __m512i {
        _mm512_set1_epi32(number.cast_signed())
    }
}

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Few enough numbers that they meet.
    fn near() -> impl Strategy<Value = u32> {
        prop_oneof![0u32..200, Just(u32::MAX), Just(u32::MAX - 1), Just(1 << 31), any::<u32>()]
    }

    fn port() -> impl Strategy<Value = u16> {
        prop::sample::select(vec![0, 1, 2, 80, 81, 0x7fff, 0x8000, 0xfffe, 0xffff])
    }

    proptest! {
        #[test]
        fn avx512_answers_as_any_processor_does(
            starts in prop::collection::btree_set(near(), 0..Root::NUMBERS), numbers in prop::array::uniform16(near()),
            first in prop::array::uniform32(port()), more in prop::array::uniform32(port()),
            asked in prop::array::uniform4(port()), words in prop::array::uniform8(prop_oneof![Just(0), any::<u64>()]),
        ) {
            let Some(avx512) = Avx512::detect() else {
                println!("skipped: no AVX-512 here");
                return Ok(());
            };
            let starts: Vec<u32> = [0].into_iter().chain(starts.into_iter().filter(|start| *start > 0)).collect();
            let root = Root::new(&starts);
            let last = numbers.map(|number| starts.partition_point(|start| *start <= number) as u32 - 1);
            // The largest number fills lines up, too.
            let is_sure = |at: usize| numbers[at] != u32::MAX;
            for found in [Any.last_up_to(&root, &numbers), avx512.last_up_to(&root, &numbers)] {
                let differs = (0..LINE).find(|at| is_sure(*at) && found[*at] != last[*at]);
                prop_assert_eq!(differs, None, "{:?} {:?}", found, last);
            }
            let line = Line::new(&starts[..starts.len().min(LINE)]);
            for number in numbers {
                prop_assert_eq!(avx512.count_up_to(&line, number), Any.count_up_to(&line, number));
            }
            let asked = must_cast(asked);
            prop_assert_eq!(avx512.within(&first, &more, asked), Any.within(&first, &more, asked));
            // Some lane holds what is asked.
            let wide = [u16::MAX; 32];
            prop_assert_eq!(avx512.within(&[0; 32], &wide, asked), 0xff);
            prop_assert_eq!(avx512.filled(&words), Any.filled(&words));
        }
    }
}

//! What is compared many at a time: by what every processor has, and by AVX-512 where there is one with it. All of this
//! room's unsafe code is here.
//!
//! A step of a batch is written once, for any [`Processor`], and compiled twice: a step that compares calls for itself
//! compiled for AVX-512, in which all that it calls is written in line.

use std::hint::black_box;

use super::blocks::Rank;
use super::by_address::{Found, NarrowRules, Way};
use super::classes::ClassId;
use super::intervals::Intervals;
use super::packet::Packet;
use super::program::Program;
use super::{Judgement, ProgramId};

/// Starts of intervals of addresses that are compared at once.
pub(super) const ADDRESSES: usize = 16;
/// Starts of intervals of ports that are compared at once.
pub(super) const PORTS: usize = 32;
/// Four spans of numbers for each of four rules, next to each other.
pub(super) type Spans = [u16; 16];

/// What a processor compares with.
pub(super) trait Processor: Copy {
    /// How many of these are at most a number.
    fn count_up_to(self, starts: &[u32; ADDRESSES], number: u32) -> u32;

    /// How many of these are below a number.
    fn count_below(self, starts: &[u16; PORTS], number: u16) -> u32;

    /// A bit for each rule, the first one lowest, all of whose spans hold the numbers asked: spans begin at `first` and go on
    /// for `more`, but the last of a rule's four has no more than its first number, whatever `more` has in its place.
    fn within(self, first: &Spans, more: &Spans, asked: u64) -> u8;

    /// What is least of all that `more` has in the place of the last span of rules that [`Self::within`] would name, of three
    /// times four rules; the largest number where there is none.
    fn least(self, rules: [(&Spans, &Spans, u64); 3]) -> u16;
}

/// What every processor has.
#[derive(Clone, Copy, Debug)]
pub(super) struct Any;

impl Processor for Any {
    #[inline(always)]
    fn count_up_to(self, starts: &[u32; ADDRESSES], number: u32) -> u32 {
        // LLVM counts bits at once, unless it sees that an address is made of their number: then it adds them one by one.
        black_box(starts.iter().map(|start| u32::from(*start <= number)).sum())
    }

    #[inline(always)]
    fn count_below(self, starts: &[u16; PORTS], number: u16) -> u32 {
        starts.iter().map(|start| u16::from(*start < number)).sum::<u16>().into()
    }

    #[inline(always)]
    fn within(self, first: &Spans, more: &Spans, asked: u64) -> u8 {
        let misses = misses(first, more, asked);
        misses.iter().enumerate().fold(0, |bits, (at, miss)| bits | u8::from(*miss == 0) << at)
    }

    #[inline(always)]
    fn least(self, rules: [(&Spans, &Spans, u64); 3]) -> u16 {
        let mut least = [u16::MAX; 4];
        for (first, more, asked) in rules {
            let found = more.as_chunks::<4>().0.iter().zip(misses(first, more, asked));
            for (least, ([.., last], miss)) in least.iter_mut().zip(found) {
                // Without a branch: whether one matches, no branch predictor can learn.
                *least = (*least).min(last | u16::from(miss == 0).wrapping_sub(1));
            }
        }
        let [a, b, c, d] = least;
        a.min(b).min(c.min(d))
    }
}

/// For each of four rules nothing but zeros where all of its spans hold the numbers asked.
#[inline(always)]
fn misses(first: &Spans, more: &Spans, asked: u64) -> [u64; 4] {
    let asked: Spans = bytemuck::must_cast([asked; 4]);
    let lasts: Spans = bytemuck::must_cast([LAST; 4]);
    let mut misses = [0u16; 16];
    for ((miss, asked), ((first, more), last)) in
        misses.iter_mut().zip(&asked).zip(first.iter().zip(more).zip(&lasts))
    {
        *miss = asked.wrapping_sub(*first).saturating_sub(*more & !last);
    }
    bytemuck::must_cast(misses)
}

/// The last of a rule's four numbers.
const LAST: [u16; 4] = [0, 0, 0, u16::MAX];

/// Says that this processor has AVX-512, as far as it is used here: only [`Avx512::detect`] makes one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Avx512(());

impl Avx512 {
    /// The extensions that this is compiled for, F, BW and VL, of processors that have VPOPCNTDQ as well (Ice Lake, Zen 4):
    /// those before slow down for registers of 512 bits.
    pub(super) fn detect() -> Option<Avx512> {
        #[cfg(target_arch = "x86_64")]
        if is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx512vpopcntdq")
        {
            return Some(Avx512(()));
        }
        None
    }
}

#[cfg(target_arch = "x86_64")]
mod wide {
    use std::arch::x86_64::{
        __m256i, __m512i, __mmask16, _mm_extract_epi16, _mm_min_epu64, _mm_unpackhi_epi64,
        _mm256_castsi256_si128, _mm256_extracti128_si256, _mm256_mask_min_epu64, _mm256_mask_subs_epu16,
        _mm256_set1_epi64x, _mm256_sub_epi16, _mm256_testn_epi64_mask, _mm512_cmple_epu32_mask,
        _mm512_cmplt_epu16_mask, _mm512_set1_epi16, _mm512_set1_epi32,
    };

    use bytemuck::must_cast;

    use super::{
        ADDRESSES, Avx512, ClassId, Found, Intervals, Judgement, NarrowRules, PORTS, Packet, Processor,
        Program, ProgramId, Rank, Spans, Way,
    };

    /// Of each rule's four numbers, those of spans.
    const SPANS: __mmask16 = 0x7777;

    /// Steps of a batch, compiled for what this says is there.
    impl Avx512 {
        /// [`Intervals::classes`].
        pub(in super::super) fn classes(self, intervals: &Intervals, addrs: &[u32], out: &mut [ClassId]) {
            #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
            fn classes(processor: Avx512, intervals: &Intervals, addrs: &[u32], out: &mut [ClassId]) {
                intervals.classes_by(processor, addrs, out);
            }
            // SAFETY: the processor has all that the function is compiled for, or there were no `self`.
            #[expect(unsafe_code, reason = "only its extensions make the function unsafe to call")]
            unsafe {
                classes(self, intervals, addrs, out);
            }
        }

        /// [`Program::lead_by`].
        pub(in super::super) fn lead(
            self,
            program: &Program,
            narrow: &NarrowRules,
            run: &[(ProgramId, Packet)],
            classes: &[[ClassId; 2]],
            ways: &mut [Way],
        ) {
            #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
            fn lead(
                processor: Avx512,
                program: &Program,
                narrow: &NarrowRules,
                run: &[(ProgramId, Packet)],
                classes: &[[ClassId; 2]],
                ways: &mut [Way],
            ) {
                program.lead_by(processor, narrow, run, classes, ways);
            }
            // SAFETY: the processor has all that the function is compiled for, or there were no `self`.
            #[expect(unsafe_code, reason = "only its extensions make the function unsafe to call")]
            unsafe {
                lead(self, program, narrow, run, classes, ways);
            }
        }

        /// [`NarrowRules::decide_by`].
        pub(in super::super) fn decide(
            self,
            narrow: &NarrowRules,
            id: ProgramId,
            ways: &[Way],
            out: &mut [Judgement],
            found: &mut Found,
        ) {
            #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
            fn decide(
                processor: Avx512,
                narrow: &NarrowRules,
                id: ProgramId,
                ways: &[Way],
                out: &mut [Judgement],
                found: &mut Found,
            ) {
                narrow.decide_by(processor, id, ways, out, found);
            }
            // SAFETY: the processor has all that the function is compiled for, or there were no `self`.
            #[expect(unsafe_code, reason = "only its extensions make the function unsafe to call")]
            unsafe {
                decide(self, narrow, id, ways, out, found);
            }
        }

        /// [`Program::first_by`].
        #[inline]
        pub(in super::super) fn first(
            self,
            program: &Program,
            narrow: &NarrowRules,
            packet: &Packet,
            classes: [ClassId; 2],
        ) -> (Way, Rank) {
            #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
            fn first(
                processor: Avx512,
                program: &Program,
                narrow: &NarrowRules,
                packet: &Packet,
                classes: [ClassId; 2],
            ) -> (Way, Rank) {
                program.first_by(processor, narrow, packet, classes)
            }
            // SAFETY: the processor has all that the function is compiled for, or there were no `self`.
            #[expect(unsafe_code, reason = "only its extensions make the function unsafe to call")]
            unsafe {
                first(self, program, narrow, packet, classes)
            }
        }
    }

    impl Processor for Avx512 {
        #[inline(always)]
        fn count_up_to(self, starts: &[u32; ADDRESSES], number: u32) -> u32 {
            #[inline]
            #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
            fn count_up_to(starts: &[u32; ADDRESSES], number: u32) -> u32 {
                let starts: __m512i = must_cast(*starts);
                _mm512_cmple_epu32_mask(starts, _mm512_set1_epi32(number.cast_signed())).count_ones()
            }
            // SAFETY: the processor has all that the function is compiled for, or there were no `self`.
            #[expect(unsafe_code, reason = "only its extensions make the function unsafe to call")]
            unsafe {
                count_up_to(starts, number)
            }
        }

        #[inline(always)]
        fn count_below(self, starts: &[u16; PORTS], number: u16) -> u32 {
            #[inline]
            #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
            fn count_below(starts: &[u16; PORTS], number: u16) -> u32 {
                let starts: __m512i = must_cast(*starts);
                _mm512_cmplt_epu16_mask(starts, _mm512_set1_epi16(number.cast_signed())).count_ones()
            }
            // SAFETY: the processor has all that the function is compiled for, or there were no `self`.
            #[expect(unsafe_code, reason = "only its extensions make the function unsafe to call")]
            unsafe {
                count_below(starts, number)
            }
        }

        #[inline(always)]
        fn within(self, first: &Spans, more: &Spans, asked: u64) -> u8 {
            #[inline]
            #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
            fn within(first: &Spans, more: &Spans, asked: u64) -> u8 {
                let (first, more): (__m256i, __m256i) = (must_cast(*first), must_cast(*more));
                let misses = _mm256_sub_epi16(_mm256_set1_epi64x(asked.cast_signed()), first);
                let misses = _mm256_mask_subs_epu16(misses, SPANS, misses, more);
                _mm256_testn_epi64_mask(misses, misses)
            }
            // SAFETY: the processor has all that the function is compiled for, or there were no `self`.
            #[expect(unsafe_code, reason = "only its extensions make the function unsafe to call")]
            unsafe {
                within(first, more, asked)
            }
        }

        #[inline(always)]
        fn least(self, rules: [(&Spans, &Spans, u64); 3]) -> u16 {
            #[inline]
            #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
            fn least_of(least: __m256i, (first, more, asked): (&Spans, &Spans, u64)) -> __m256i {
                let (first, more): (__m256i, __m256i) = (must_cast(*first), must_cast(*more));
                let misses = _mm256_sub_epi16(_mm256_set1_epi64x(asked.cast_signed()), first);
                let misses = _mm256_mask_subs_epu16(misses, SPANS, misses, more);
                // The number that counts is the highest of four, so what the others are makes no difference.
                _mm256_mask_min_epu64(least, _mm256_testn_epi64_mask(misses, misses), least, more)
            }

            #[inline]
            #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
            fn least(rules: [(&Spans, &Spans, u64); 3]) -> u16 {
                // One by one: an array that is gone through lies on the stack.
                let [a, b, c] = rules;
                let least = least_of(least_of(least_of(_mm256_set1_epi64x(-1), a), b), c);
                let (low, high) = (_mm256_castsi256_si128(least), _mm256_extracti128_si256::<1>(least));
                let two = _mm_min_epu64(low, high);
                let one = _mm_min_epu64(two, _mm_unpackhi_epi64(two, two));
                _mm_extract_epi16::<3>(one) as u16
            }
            // SAFETY: the processor has all that the function is compiled for, or there were no `self`.
            #[expect(unsafe_code, reason = "only its extensions make the function unsafe to call")]
            unsafe {
                least(rules)
            }
        }
    }
}

#[cfg(not(target_arch = "x86_64"))]
impl Avx512 {
    pub(super) fn classes(self, intervals: &Intervals, addrs: &[u32], classes: &mut [ClassId]) {
        intervals.classes_by(Any, addrs, classes);
    }

    pub(super) fn lead(
        self,
        program: &Program,
        narrow: &NarrowRules,
        run: &[(ProgramId, Packet)],
        classes: &[[ClassId; 2]],
        ways: &mut [Way],
    ) {
        program.lead_by(Any, narrow, run, classes, ways);
    }

    pub(super) fn decide(
        self,
        narrow: &NarrowRules,
        id: ProgramId,
        ways: &[Way],
        out: &mut [Judgement],
        found: &mut Found,
    ) {
        narrow.decide_by(Any, id, ways, out, found);
    }

    pub(super) fn first(
        self,
        program: &Program,
        narrow: &NarrowRules,
        packet: &Packet,
        classes: [ClassId; 2],
    ) -> (Way, Rank) {
        program.first_by(Any, narrow, packet, classes)
    }
}

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Few enough numbers that they meet.
    fn near() -> impl Strategy<Value = u16> {
        prop::sample::select(vec![0, 1, 2, 80, 81, 0x7fff, 0x8000, 0xfffe, 0xffff])
    }

    proptest! {
        #[test]
        fn avx512_answers_as_any_processor_does(
            starts in prop::array::uniform16(near().prop_map(|one| u32::from(one) << 16 | u32::from(one))), number in near(),
            ports in prop::array::uniform32(near()), asked in prop::array::uniform4(near()),
            first in prop::array::uniform16(near()), more in prop::array::uniform16(near()),
        ) {
            let Some(avx512) = Avx512::detect() else {
                println!("skipped: no AVX-512 here");
                return Ok(());
            };
            let addr = u32::from(number) << 16 | u32::from(number);
            prop_assert_eq!(avx512.count_up_to(&starts, addr), Any.count_up_to(&starts, addr));
            prop_assert_eq!(avx512.count_below(&ports, number), Any.count_below(&ports, number));
            let asked: u64 = bytemuck::must_cast(asked);
            let wide: Spans = [u16::MAX, u16::MAX, u16::MAX, 7].repeat(4).try_into().expect("sixteen");
            let begin: Spans = bytemuck::must_cast([asked & 0xffff << 48; 4]);
            for (first, more) in [(&first, &more), (&begin, &wide)] {
                prop_assert_eq!(avx512.within(first, more, asked), Any.within(first, more, asked));
                let rules = [(first, more, asked), (&begin, more, asked), (first, &wide, asked)];
                prop_assert_eq!(avx512.least(rules), Any.least(rules));
            }
            prop_assert_eq!(Any.within(&begin, &wide, asked), 0xf);
            prop_assert_eq!(Any.least([(&begin, &wide, asked); 3]), 7);
        }
    }
}

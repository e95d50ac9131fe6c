//! Classes of IPv4 addresses where there are few prefixes: a search among the places where the class changes.
//!
//! A look-up table of prefixes (`lpm`) reads some six cache lines of some megabytes for an address whose prefix is longer
//! than /24, and takes any number of prefixes and of changes. Policy seldom names more than some thousands, and those are
//! searched in memory that stays near: sixteen starts of intervals to a cache line, lines of every sixteenth start above
//! them, and at the top up to 64 starts that AVX-512 holds in registers (`processor.rs`) (a B+-tree without pointers, as in PlanB, NSDI 2026, which searches IPv6 prefixes so). Made anew whenever a prefix's
//! class changes, which readers see in the next publication.

use super::classes::{ClassId, NOTHING};
use super::processor::{Any, LINE, Line, Processor, Root};

/// Prefixes up to which intervals are made: by measurement 5 ns for each of them, with every publication that changes any.
pub(super) const PREFIXES_MAX: usize = 8_192;
/// Addresses that are searched together.
const TOGETHER: usize = 32;

/// The readers' side.
#[derive(Debug)]
pub(super) struct Intervals {
    root: Root,
    /// From that below the root to that of all starts.
    levels: Vec<Box<[Line]>>,
    /// The class of each interval.
    classes: Box<[u16]>,
}

impl Intervals {
    /// Of intervals in order, by their start and class. The first one starts at 0.
    pub(super) fn new(intervals: &[(u32, ClassId)]) -> Intervals {
        let mut starts: Vec<u32> = intervals.iter().map(|(start, _)| *start).collect();
        let mut levels = Vec::new();
        while starts.len() > Root::NUMBERS {
            levels.push(starts.chunks(LINE).map(Line::new).collect());
            starts = starts.into_iter().step_by(LINE).collect();
        }
        levels.reverse();
        Intervals {
            root: Root::new(&starts),
            levels,
            classes: intervals.iter().map(|(_, class)| *class as u16).collect(),
        }
    }

    /// The most bytes that so many prefixes take, in two publications: each prefix has two borders.
    pub(super) fn bytes_for(prefixes: usize) -> usize {
        let starts = 2 * prefixes + 1;
        2 * starts * (size_of::<u32>() + size_of::<u32>() / 8 + size_of::<u16>())
    }

    /// The class of an address.
    #[inline(always)]
    pub(super) fn class(&self, addr: u32) -> ClassId {
        let mut at = self.root.last_up_to(Any, addr);
        for level in &self.levels {
            at = step(Any, level, at, addr);
        }
        self.class_at(at)
    }

    /// The classes of many: `classes[i]` for `addrs[i]`. Level by level, so that one address's wait for memory is another's work.
    #[inline(always)]
    pub(super) fn classes(&self, processor: impl Processor, addrs: &[u32], classes: &mut [ClassId]) {
        for (addrs, classes) in addrs.chunks(TOGETHER).zip(classes.chunks_mut(TOGETHER)) {
            for (addrs, at) in addrs.chunks(LINE).zip(classes.chunks_mut(LINE)) {
                match (addrs.first_chunk(), at.first_chunk_mut()) {
                    (Some(addrs), Some(at)) => *at = processor.last_up_to(&self.root, addrs),
                    _ => at
                        .iter_mut()
                        .zip(addrs)
                        .for_each(|(at, addr)| *at = self.root.last_up_to(processor, *addr)),
                }
            }
            for level in &self.levels {
                for (at, addr) in classes.iter_mut().zip(addrs) {
                    *at = step(processor, level, *at, *addr);
                }
            }
            for at in classes {
                *at = self.class_at(*at);
            }
        }
    }

    #[inline(always)]
    fn class_at(&self, at: u32) -> ClassId {
        // Beyond the last one is only the last address of all, which is no less than what fills lines up.
        self.classes.get(at as usize).or(self.classes.last()).map_or(NOTHING, |class| ClassId::from(*class))
    }
}

/// In the level below, the line that holds an address's interval; in the last one, the interval's number.
#[inline(always)]
fn step(processor: impl Processor, level: &[Line], at: u32, addr: u32) -> u32 {
    match level.get(at as usize) {
        Some(line) => LINE as u32 * at + processor.count_up_to(line, addr).wrapping_sub(1),
        None => u32::MAX,
    }
}

#[cfg(test)]
mod tests {
    use super::super::processor::Avx512;
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn an_address_has_the_class_that_began_last(
            starts in prop::collection::btree_set(prop_oneof![any::<u32>(), 0u32..600, Just(u32::MAX)], 0..600),
            others in prop::collection::vec(any::<u32>(), 0..40),
        ) {
            let starts: Vec<(u32, ClassId)> =
                (0..).zip(starts.iter().copied().filter(|start| *start > 0)).map(|(class, start)| (start, class)).collect();
            let intervals = [&[(0, 60_000)], &*starts].concat();
            let around = starts.iter().flat_map(|(start, _)| [start - 1, *start, start.saturating_add(1)]);
            let addrs: Vec<u32> = around.chain(others).chain([0, u32::MAX]).collect();
            let expected: Vec<ClassId> = (addrs.iter())
                .map(|addr| intervals[intervals.partition_point(|(start, _)| start <= addr) - 1].1)
                .collect();
            let searched = Intervals::new(&intervals);
            let one_by_one: Vec<ClassId> = addrs.iter().map(|addr| searched.class(*addr)).collect();
            prop_assert_eq!(&one_by_one, &expected);
            let mut classes = vec![7; addrs.len()];
            searched.classes(Any, &addrs, &mut classes);
            prop_assert_eq!(&classes, &expected);
            if let Some(avx512) = Avx512::detect() {
                classes.fill(7);
                searched.classes(avx512, &addrs, &mut classes);
                prop_assert_eq!(&classes, &expected);
            }
        }
    }
}

//! Classes of IPv4 addresses where there are few prefixes: a search among the places where the class changes.
//!
//! A look-up table of prefixes (`lpm`) reads some six cache lines of some megabytes for an address whose prefix is longer
//! than /24, and takes any number of prefixes and of changes. Policy seldom names more than some thousands, and those are
//! searched in memory that stays near: a table by an address's first bits leads to a cache line of the starts of sixteen
//! intervals, which are compared at once. Where more than that lie in one group of addresses, another table goes by the next
//! bits. Made anew whenever a prefix's class changes, which readers see in the next publication.

use super::classes::{ClassId, NOTHING};
use super::processor::{ADDRESSES, Any, Avx512, Processor};

/// Prefixes up to which intervals are made: by measurement 5 ns for each of them, with every publication that changes any.
pub(super) const PREFIXES_MAX: usize = 8_192;
/// Bits of an address that the first table goes by.
const ROOT_BITS: u32 = 12;
/// Bits that each further table goes by. Behind two of them are groups of sixteen addresses, in which no more than that lie.
const BITS: u32 = 8;
/// In a table's entry: the rest is the number of a further table.
const FURTHER: u16 = 1 << 15;

const _: () = assert!(2 * PREFIXES_MAX < FURTHER as usize, "each prefix has two borders");
const _: () = assert!(1 << (u32::BITS - ROOT_BITS - 2 * BITS) <= ADDRESSES);

/// The readers' side.
#[derive(Debug)]
pub(super) struct Intervals {
    /// For each group of addresses the number of a line in which all its intervals are, or of a table in `tables`.
    root: Box<[u16; 1 << ROOT_BITS]>,
    tables: Vec<[u16; 1 << BITS]>,
    lines: Vec<Line>,
}

/// Sixteen intervals next to each other; one may be in several lines.
#[derive(Debug)]
#[repr(align(128))]
struct Line {
    /// Where each begins; behind the last one of all, the largest number.
    starts: [u32; ADDRESSES],
    /// The class of each, by how many have begun; behind the last one of all, its own.
    classes: [u16; 2 * ADDRESSES],
}

const _: () = assert!(size_of::<Line>() == 128, "two cache lines");

/// Lines in the making.
#[derive(Default)]
struct Lines {
    lines: Vec<Line>,
    /// Which of all intervals the last line begins with.
    last: usize,
}

impl Intervals {
    /// Of intervals in order, by their start and class. The first one starts at 0.
    pub(super) fn new(intervals: &[(u32, ClassId)]) -> Intervals {
        let (mut tables, mut lines) = (Vec::new(), Lines::default());
        let root = Box::new(table(intervals, 0, u32::BITS - ROOT_BITS, &mut tables, &mut lines));
        Intervals { root, tables, lines: lines.lines }
    }

    /// The most bytes that so many prefixes take, in two publications: each prefix has two borders, two lines have more than
    /// sixteen of them, and so has a further table, under at most one other.
    pub(super) fn bytes_for(prefixes: usize) -> usize {
        let starts = 2 * prefixes + 1 + ADDRESSES;
        let lines = 2 * (starts / ADDRESSES) + 2;
        let tables = (1 << ROOT_BITS) + 2 * (starts / ADDRESSES) * (1 << BITS);
        2 * (lines * size_of::<Line>() + tables * size_of::<u16>())
    }

    /// The class of an address.
    #[inline(always)]
    pub(super) fn class(&self, addr: u32) -> ClassId {
        self.class_by(Any, addr)
    }

    /// The classes of many: `classes[i]` for `addrs[i]`.
    #[inline(always)]
    pub(super) fn classes(&self, avx512: Option<Avx512>, addrs: &[u32], classes: &mut [ClassId]) {
        match avx512 {
            Some(avx512) => avx512.classes(self, addrs, classes),
            None => self.classes_by(Any, addrs, classes),
        }
    }

    /// [`Self::classes`].
    #[inline(always)]
    pub(super) fn classes_by(&self, processor: impl Processor, addrs: &[u32], classes: &mut [ClassId]) {
        for (class, addr) in classes.iter_mut().zip(addrs) {
            *class = self.class_by(processor, *addr);
        }
    }

    #[inline(always)]
    fn class_by(&self, processor: impl Processor, addr: u32) -> ClassId {
        let mut line = self.root[(addr >> (u32::BITS - ROOT_BITS)) as usize];
        let mut rest = u32::BITS - ROOT_BITS;
        while line & FURTHER != 0 {
            rest -= BITS;
            let table = self.tables.get(usize::from(line & !FURTHER));
            line = table.map_or(0, |table| table[(addr >> rest) as usize % (1 << BITS)]);
        }
        let Some(Line { starts, classes }) = self.lines.get(usize::from(line)) else { return NOTHING };
        let class = classes.get(processor.count_up_to(starts, addr) as usize);
        class.map_or(NOTHING, |class| ClassId::from(*class))
    }
}

impl Lines {
    /// A line with these intervals, so many from the first one on: the last, or another behind it.
    fn holding(&mut self, intervals: &[(u32, ClassId)], first: usize, count: usize) -> u16 {
        if self.lines.is_empty() || first + count > self.last + ADDRESSES {
            let here = &intervals[first..intervals.len().min(first + ADDRESSES)];
            let mut line = Line {
                starts: [u32::MAX; ADDRESSES],
                classes: [here[here.len() - 1].1 as u16; 2 * ADDRESSES],
            };
            for ((start, class), (from, to)) in
                here.iter().zip(line.starts.iter_mut().zip(&mut line.classes[1..]))
            {
                (*from, *to) = (*start, *class as u16);
            }
            self.lines.push(line);
            self.last = first;
        }
        (self.lines.len() - 1) as u16
    }
}

/// The table of groups of `1 << rest` addresses each, from this one on; further tables and lines go behind the others.
fn table<const N: usize>(
    intervals: &[(u32, ClassId)],
    from: u32,
    rest: u32,
    tables: &mut Vec<[u16; 1 << BITS]>,
    lines: &mut Lines,
) -> [u16; N] {
    let last_up_to = |addr: u32| intervals.partition_point(|(start, _)| *start <= addr) - 1;
    let mut next = last_up_to(from);
    let mut entries = [0; N];
    for (group, entry) in (0..).zip(&mut entries) {
        let group = from + (group << rest);
        // The interval of its first address, and that of its last one.
        let starts_here = intervals.get(next + 1).is_some_and(|(start, _)| *start == group);
        let first = if starts_here { next + 1 } else { next };
        let begins_in = |(start, _): &&(u32, ClassId)| start - group.min(*start) < 1 << rest;
        let count = intervals[first..].iter().take_while(begins_in).count();
        next = first + count - 1;
        *entry = if count <= ADDRESSES {
            lines.holding(intervals, first, count)
        } else {
            let further = table(intervals, group, rest - BITS, tables, lines);
            tables.push(further);
            FURTHER | (tables.len() - 1) as u16
        };
    }
    entries
}

#[cfg(test)]
mod tests {
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
            searched.classes(Avx512::detect(), &addrs, &mut classes);
            prop_assert_eq!(&classes, &expected);
            classes.fill(7);
            searched.classes(None, &addrs, &mut classes);
            prop_assert_eq!(&classes, &expected);
        }
    }
}

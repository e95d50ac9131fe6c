//! How leaves, nodes and skips are written in words.

use crate::{Key, Value};

/// Bits of an address that one node takes.
pub(super) const STRIDE: u8 = 6;
/// Entries of a node.
pub(super) const ENTRIES: usize = 1 << STRIDE;
/// A root slot with this bit holds a node's index in its lower half, one without it a leaf.
pub(super) const BRANCH: u64 = 1 << 63;

/// The answer for some addresses, and the route it comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Leaf {
    /// The value plus one; 0 where no route leads.
    pub(super) code: u32,
    /// Length of the route's prefix; 0 where there is none, as if that were a default route to nowhere.
    pub(super) len: u8,
}

impl Leaf {
    pub(crate) const NO_ROUTE: Leaf = Leaf { code: 0, len: 0 };

    /// The leaf of a route of this length; `value` is below `Value::MAX`.
    pub(crate) fn route(value: Value, len: u8) -> Leaf {
        Leaf { code: value + 1, len }
    }

    pub(super) fn value(self) -> Option<Value> {
        Leaf::value_of(self.code)
    }

    #[inline(always)]
    pub(super) fn value_of(code: u32) -> Option<Value> {
        code.checked_sub(1)
    }

    pub(super) fn pack(self) -> u64 {
        u64::from(self.len) << 32 | u64::from(self.code)
    }

    pub(super) fn unpack(word: u64) -> Leaf {
        Leaf { code: word as u32, len: (word >> 32) as u8 }
    }
}

/// A node as stored: its words. A skip is stored as one without children and leaves, whose block of two slots begins at
/// `child_base`: path and rest in the first, the node at its end in the second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Record {
    /// A bit for each entry that is a node.
    pub(super) children: u64,
    /// A bit for each entry at which a run of leaves begins.
    pub(super) leaf_runs: u64,
    /// Where its leaves begin.
    pub(super) leaf_base: u32,
    /// Where its children begin.
    pub(super) child_base: u32,
}

impl Record {
    pub(super) fn from_words([children, leaf_runs, bases]: [u64; 3]) -> Record {
        Record { children, leaf_runs, leaf_base: bases as u32, child_base: (bases >> 32) as u32 }
    }

    pub(super) fn to_words(self) -> [u64; 3] {
        [self.children, self.leaf_runs, u64::from(self.child_base) << 32 | u64::from(self.leaf_base)]
    }

    pub(super) fn is_skip(self) -> bool {
        self.children == 0 && self.leaf_runs == 0
    }

    /// Is this entry a node? Then which of the children.
    pub(super) fn child_at(self, entry: usize) -> Option<u32> {
        let below = (1 << entry) - 1;
        (self.children >> entry & 1 != 0).then(|| self.child_base + (self.children & below).count_ones())
    }

    /// The leaf of an entry that is no node.
    pub(super) fn leaf_at(self, entry: usize) -> u32 {
        self.leaf_base + (self.leaf_runs & u64::MAX >> (ENTRIES - 1 - entry)).count_ones() - 1
    }
}

/// A way without forks: addresses that begin with the first `end` bits of `path` go on at `child`, the others of the
/// entry it stands in are answered by `beside`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Skip<K> {
    pub(super) path: K,
    pub(super) end: u8,
    pub(super) beside: Leaf,
    pub(super) child: Record,
}

/// The third word of a skip's first slot.
pub(super) fn pack_skip(beside: Leaf, end: u8) -> u64 {
    u64::from(end) << 40 | beside.pack()
}

/// What [`pack_skip`] packed.
#[inline(always)]
pub(super) fn unpack_skip(word: u64) -> (Leaf, u8) {
    (Leaf::unpack(word), (word >> 40) as u8)
}

/// A node or a skip on its way to be stored.
#[derive(Clone, Copy, Debug)]
pub(super) enum Branch<K> {
    /// Its children and leaves, or its block, are in the arenas already.
    Stored(Record),
    /// A skip that has no block yet.
    Skip(Skip<K>),
}

/// What stands in a root slot or in one of a node's 64 places.
#[derive(Clone, Copy, Debug)]
pub(super) enum Entry<K> {
    Leaf(Leaf),
    Branch(Branch<K>),
}

/// The 64 entries of a node at some depth, summed up as they would be stored.
pub(super) struct Shape {
    pub(super) children: u64,
    pub(super) leaf_runs: u64,
}

impl Shape {
    /// `depth`: bits of an address before the entries' own six.
    pub(super) fn of<K: Key>(entries: &[Entry<K>; ENTRIES], depth: u8) -> Shape {
        let mut shape = Shape { children: 0, leaf_runs: 0 };
        let mut last = None;
        for (at, entry) in entries.iter().enumerate() {
            match entry {
                Entry::Branch(_) => shape.children |= 1 << at,
                Entry::Leaf(leaf) => {
                    let route = route_of(*leaf, at, depth);
                    if last != Some(route) {
                        shape.leaf_runs |= 1 << at;
                    }
                    last = Some(route);
                }
            }
        }
        shape
    }
}

/// Two leaves of one node come from one route exactly where this is equal: the route's length, and which of the node's
/// parts of that length it covers.
fn route_of(leaf: Leaf, at: usize, depth: u8) -> (u8, usize) {
    let own_bits = leaf.len.saturating_sub(depth);
    (leaf.len, at >> (STRIDE - own_bits))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_of_equal_values_of_two_routes_stay_apart() {
        let left = Entry::<u32>::Leaf(Leaf::route(7, 19));
        let mut entries = [left; ENTRIES];
        let shape = Shape::of(&entries, 18);
        assert_eq!(shape.leaf_runs, 1 | 1 << 32, "two /19 of one value");
        entries[5] = Entry::Branch(Branch::Stored(Record::default()));
        let shape = Shape::of(&entries, 18);
        assert_eq!((shape.children, shape.leaf_runs), (1 << 5, 1 | 1 << 32), "a run goes on behind a node");
    }

    #[test]
    fn words_hold_what_was_packed() {
        let leaf = Leaf::route(u32::MAX - 1, 128);
        assert_eq!(Leaf::unpack(leaf.pack()), leaf);
        assert_eq!(unpack_skip(pack_skip(leaf, 126)), (leaf, 126));
        let record = Record { children: 5, leaf_runs: 1 << 63, leaf_base: 7, child_base: u32::MAX };
        assert_eq!(Record::from_words(record.to_words()), record);
        assert_eq!(leaf.pack() & BRANCH, 0);
    }
}

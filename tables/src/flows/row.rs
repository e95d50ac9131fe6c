//! One row of the flow table: two keys, a life, links of the two chains that it is in, and what policy said. 128 bytes.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use model::Family;
use packet::FlowKey;

use super::verdict::{Beginning, Between, counted_of, counted_word, icmp_word};

/// A [`FlowKey`] as it lies in a row and is hashed.
pub(super) type Words = [u64; 5];

pub(super) fn words(key: &FlowKey) -> Words {
    let rest = u64::from(key.sport) << 48
        | u64::from(key.dport) << 32
        | u64::from(key.protocol) << 8
        | u64::from(key.family == Family::V6);
    [(key.src >> 64) as u64, key.src as u64, (key.dst >> 64) as u64, key.dst as u64, rest]
}

/// What a row stands for that no packet's key finds: a bit of its own in the last word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shared {
    /// A mapping, by the workload's port.
    Inner = 1,
    /// A mapping, by its outer port.
    Outer = 2,
    /// How many ports a sender's address has.
    Sender = 3,
    /// The same: a row has two keys.
    SenderToo = 4,
}

/// The words of a key that no packet has.
pub(super) fn shared(kind: Shared, key: &FlowKey) -> Words {
    let mut words = words(key);
    words[4] |= (kind as u64) << 16;
    words
}

/// Is it such a key?
pub(super) fn is_shared(kind: Shared, words: &Words) -> bool {
    words[4] >> 16 & 7 == kind as u64
}

pub(super) fn key(words: &Words) -> FlowKey {
    let [src_high, src_low, dst_high, dst_low, rest] = *words;
    FlowKey {
        src: u128::from(src_high) << 64 | u128::from(src_low),
        dst: u128::from(dst_high) << 64 | u128::from(dst_low),
        sport: (rest >> 48) as u16,
        dport: (rest >> 32) as u16,
        protocol: (rest >> 8) as u8,
        family: if rest & 1 == 0 { Family::V4 } else { Family::V6 },
    }
}

/// What changes while a row is in use, in one word, so that a change is one compare-and-swap: flags in the low 16 bits, then
/// the tick of the last packet, then how often the row was taken. The last keeps a late change from hitting the row's next
/// flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Life(pub(super) u64);

impl Life {
    /// In use: linked, and found by look-ups.
    pub(super) const LIVE: u16 = 1;
    /// A packet came the other way.
    pub(super) const ANSWERED: u16 = 1 << 1;
    /// Both sides take part: never evicted for a new flow.
    pub(super) const ESTABLISHED: u16 = 1 << 2;
    /// The opener has sent its last byte (TCP).
    pub(super) const FIN_ORIGINAL: u16 = 1 << 3;
    /// The other side has.
    pub(super) const FIN_REPLY: u16 = 1 << 4;
    /// A reset was the last packet.
    pub(super) const RESET: u16 = 1 << 5;
    /// No flow but what flows share: a mapping of a workload's port, or the count of them (`mappings.rs`).
    pub(super) const MAPPING: u16 = 1 << 6;
    /// Nothing is translated: one key is the other one turned round.
    pub(super) const PLAIN: u16 = 1 << 7;

    pub(super) fn flags(self) -> u16 {
        self.0 as u16
    }

    pub(super) fn has(self, flags: u16) -> bool {
        self.flags() & flags == flags
    }

    pub(super) fn seen(self) -> u32 {
        (self.0 >> 16) as u32
    }

    pub(super) fn generation(self) -> u16 {
        (self.0 >> 48) as u16
    }

    pub(super) fn with(self, flags: u16, seen: u32) -> Life {
        Life(u64::from(self.generation()) << 48 | u64::from(seen) << 16 | u64::from(flags))
    }

    /// The life of the row's next flow, before it begins.
    pub(super) fn next(self) -> Life {
        Life(u64::from(self.generation().wrapping_add(1)) << 48)
    }
}

/// See the file's head. Keys are written only while the row is linked nowhere.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(super) struct Row {
    /// As the flow's first packet showed, and as replies do.
    keys: [[AtomicU64; 5]; 2],
    pub(super) life: AtomicU64,
    /// The link after this one in the chain of each key.
    pub(super) next: [AtomicU32; 2],
    /// The rows that it is counted in, from 1; 0 is none. A flow: its sender's mapping, and the one that it was sent to. A
    /// mapping: its sender's count.
    pub(super) mappings: [AtomicU32; 2],
    /// Of what flows share: its generation in the high half, how many are counted in it in the low one.
    pub(super) uses: AtomicU64,
    /// What policy has said of the flow, and of whom (`verdict.rs`).
    pub(super) verdict: AtomicU64,
    /// Type and code of its first packet, of ICMP.
    pub(super) icmp: AtomicU32,
    /// The ports whose connections it is counted among.
    pub(super) counted: AtomicU32,
}

const _: () = assert!(size_of::<Row>() == Row::BYTES);

impl Row {
    pub(super) const BYTES: usize = 128;

    pub(super) fn life(&self) -> Life {
        Life(self.life.load(Ordering::Relaxed))
    }

    /// Takes over a change where nobody was faster.
    pub(super) fn change(&self, from: Life, to: Life) -> Result<(), Life> {
        self.life.compare_exchange(from.0, to.0, Ordering::AcqRel, Ordering::Relaxed).map(drop).map_err(Life)
    }

    /// A word of each of its two cache lines.
    #[inline]
    pub(super) fn near(&self) -> u64 {
        self.keys[0][0].load(Ordering::Relaxed).wrapping_add(self.life.load(Ordering::Relaxed))
    }

    pub(super) fn words(&self, side: usize) -> Words {
        std::array::from_fn(|word| self.keys[side][word].load(Ordering::Relaxed))
    }

    pub(super) fn set_mappings(&self, mappings: [u32; 2]) {
        for (mapping, value) in self.mappings.iter().zip(mappings) {
            mapping.store(value, Ordering::Relaxed);
        }
    }

    /// Forgets what was remembered of the last flow's first packet.
    pub(super) fn clear(&self) {
        self.verdict.store(0, Ordering::Relaxed);
        self.icmp.store(0, Ordering::Relaxed);
        self.counted.store(0, Ordering::Relaxed);
    }

    /// Remembers the first packet of this generation's flow; `false`: another flow is counted here by now.
    pub(super) fn begin(&self, generation: u16, beginning: &Beginning) -> bool {
        self.verdict.store(beginning.verdict.word(generation), Ordering::Relaxed);
        self.icmp.store(icmp_word(beginning.icmp), Ordering::Relaxed);
        let counted = counted_word(beginning.counted);
        counted == 0 || self.counted.compare_exchange(0, counted, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }

    /// Is the flow counted among these connections still? Then it isn't any more.
    pub(super) fn uncount(&self, counted: Between) -> bool {
        let word = counted_word(counted);
        word != 0 && self.counted.compare_exchange(word, 0, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }

    pub(super) fn take_counted(&self) -> Between {
        counted_of(self.counted.swap(0, Ordering::Relaxed))
    }

    pub(super) fn take_mappings(&self) -> [u32; 2] {
        self.mappings.each_ref().map(|mapping| mapping.swap(0, Ordering::Relaxed))
    }

    #[inline]
    pub(super) fn has_words(&self, side: usize, words: &Words) -> bool {
        // The last word first: ports and protocol tell most flows of one pair of hosts apart.
        (0..5).rev().all(|word| self.keys[side][word].load(Ordering::Relaxed) == words[word])
    }

    pub(super) fn set_words(&self, side: usize, words: &Words) {
        for (word, value) in self.keys[side].iter().zip(words) {
            word.store(*value, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_key_comes_back_from_its_words(src: u128, dst: u128, sport: u16, dport: u16, protocol: u8, v6: bool) {
            let family = if v6 { Family::V6 } else { Family::V4 };
            let flow = FlowKey { src, dst, sport, dport, protocol, family };
            prop_assert_eq!(key(&words(&flow)), flow);
        }

        #[test]
        fn a_life_keeps_its_parts_apart(word: u64, flags: u16, seen: u32) {
            let life = Life(word).with(flags, seen);
            prop_assert_eq!((life.flags(), life.seen(), life.generation()), (flags, seen, Life(word).generation()));
        }
    }
}

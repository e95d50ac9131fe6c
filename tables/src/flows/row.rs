//! One row of the flow table: two keys, a life, links of the two chains that it is in, and what policy said. Two cache lines in
//! two arrays: one that the packets of a flow need which nobody translates, and one with the rest. Lines of one kind lie side by
//! side, so that caches have room for twice as many of those that are needed.

use std::ops::Range;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

use lpm::prefetch;
use model::Family;
use packet::FlowKey;

use super::index::Hash;
use super::probes::Probe;
use super::verdict::{Beginning, Between, counted_of, counted_word, icmp_word};

/// A [`FlowKey`] as it lies in a row and is hashed: the same words whichever way its packets go, but for two marks in the first
/// one, which say which way that is.
///
/// ```text
///  63        48 47         32 31    16 15       8 7    0
///  lower port    higher port    zeros   protocol   marks      one word, of either family
///  lower address              higher address                  IPv4: one word, then zeros; IPv6: four
/// ```
///
/// An end is lower than another one by its address, then by its port.
pub(super) type Words = [u64; 5];

/// Marks: an IPv6 key; a key that means one way only; the packet's source is the higher end.
pub(super) const IS_V6: u64 = 1;
const DIRECTED: u64 = 1 << 1;
const TURNED: u64 = 1 << 2;
/// Where kinds of shared rows stand among the marks.
const SHARED: u32 = 3;
const PROTOCOL: u32 = 8;

/// The words of a key, and which way its packets go.
#[inline(always)]
pub(super) fn words(key: &FlowKey) -> Words {
    let (words, turned) = either_way(key);
    directed(&words, turned)
}

/// The words of a key without its way, and is its source the higher end?
#[inline(always)]
pub(super) fn either_way(key: &FlowKey) -> (Words, bool) {
    let FlowKey { src, dst, sport, dport, protocol, family } = *key;
    let ports = u32::from(sport) << 16 | u32::from(dport);
    match family {
        Family::V4 => {
            let (head, addresses, turned) = either_way_v4(src as u32, dst as u32, ports, protocol);
            ([head, addresses, 0, 0, 0], turned)
        }
        Family::V6 => {
            let turned = (src, sport) > (dst, dport);
            let [a, b, c, d] =
                [src.min(dst) >> 64, src.min(dst), src.max(dst) >> 64, src.max(dst)].map(|part| part as u64);
            ([head(ports, turned, protocol) | IS_V6, a, b, c, d], turned)
        }
    }
}

/// [`either_way`] of IPv4: both words. `ports`: the source's in the high half. Without a branch: who is higher can't be foreseen,
/// and the processor does several at once.
#[inline(always)]
pub(super) fn either_way_v4(source: u32, destination: u32, ports: u32, protocol: u8) -> (u64, u64, bool) {
    let turned = (source > destination) | ((source == destination) & (ports > ports.rotate_left(u16::BITS)));
    let (low, high) = (source.min(destination), source.max(destination));
    (head(ports, turned, protocol), u64::from(low) << 32 | u64::from(high), turned)
}

/// The first word of a key, but for its marks. `ports`: the source's in the high half.
#[inline(always)]
fn head(ports: u32, turned: bool, protocol: u8) -> u64 {
    let ports = if turned { ports.rotate_left(u16::BITS) } else { ports };
    u64::from(ports) << 32 | u64::from(protocol) << PROTOCOL
}

/// Words without a way, given one.
#[inline(always)]
pub(super) fn directed(words: &Words, turned: bool) -> Words {
    let [head, a, b, c, d] = *words;
    [head | way(turned.into()), a, b, c, d]
}

/// Words without their way.
#[inline(always)]
pub(super) fn undirected(words: &Words) -> Words {
    let [head, a, b, c, d] = *words;
    [head & !(DIRECTED | TURNED), a, b, c, d]
}

/// Are both ends of a key the same, so that its answers show the same key?
pub(super) fn is_own_answer(words: &Words) -> bool {
    let [head, a, b, c, d] = *words;
    let same_address = match is_v6(words) {
        false => a >> 32 == a & 0xffff_ffff,
        true => (a, b) == (c, d),
    };
    same_address && head >> 48 == head >> 32 & 0xffff
}

/// Do they say that the source is the higher end?
#[inline(always)]
pub(super) fn is_turned(words: &Words) -> bool {
    words[0] & TURNED != 0
}

/// Are they of an IPv6 key?
#[inline(always)]
pub(super) fn is_v6(words: &Words) -> bool {
    words[0] & IS_V6 != 0
}

/// The protocol in a key's first word.
pub(super) fn protocol_of(head: u64) -> u8 {
    (head >> PROTOCOL) as u8
}

/// What a row stands for that no packet's key finds: bits of their own among the marks.
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
    words[0] |= (kind as u64) << SHARED;
    words
}

/// Is it such a key?
pub(super) fn is_shared(kind: Shared, words: &Words) -> bool {
    words[0] >> SHARED & 7 == kind as u64
}

/// The key of such words, turned round.
pub(super) fn key_reversed(words: &Words) -> FlowKey {
    let [head, a, b, c, d] = *words;
    key(&[head ^ TURNED, a, b, c, d])
}

/// The key of such words.
#[inline]
pub(super) fn key(words: &Words) -> FlowKey {
    let [head, a, b, c, d] = *words;
    let address = |high: u64, low: u64| u128::from(high) << 64 | u128::from(low);
    let (src, dst, family) = match is_v6(words) {
        false => ((a >> 32).into(), (a as u32).into(), Family::V4),
        true => (address(a, b), address(c, d), Family::V6),
    };
    let (sport, dport) = ((head >> 48) as u16, (head >> 32) as u16);
    let key = FlowKey { src, dst, sport, dport, protocol: protocol_of(head), family };
    if is_turned(words) { key.reversed() } else { key }
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
    /// No row has this.
    pub(super) const NEVER: u16 = 1 << 15;
    /// Nothing is translated: one key is the other one turned round.
    pub(super) const PLAIN: u16 = 1 << 7;
    /// Of a plain flow: the source of its first packet is the higher end of its key.
    pub(super) const TURNED: u16 = 1 << 8;
    /// Its second cache line may say something.
    pub(super) const FAR: u16 = 1 << 9;
    /// It began with a SYN (TCP), rather than in the middle of a connection.
    pub(super) const ASKED: u16 = 1 << 10;
    /// The other side sent one, too, before any answer: both open at once (TCP).
    pub(super) const BOTH_ASKED: u16 = 1 << 11;
    /// What stays as it is as long as the row is one flow's.
    pub(super) const FIXED: u16 = Life::LIVE | Life::MAPPING | Life::PLAIN | Life::TURNED | Life::FAR;

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

/// The cache line that every packet of a flow needs. Keys are written only while the row is linked nowhere.
#[derive(Debug, Default)]
#[repr(C, align(64))]
pub(super) struct Near {
    /// The key that the flow's first packet showed; of a plain flow, without its way.
    original: [AtomicU64; 5],
    pub(super) life: AtomicU64,
    /// What policy has said of the flow, and of whom (`verdict.rs`).
    pub(super) verdict: AtomicU64,
    /// The link after this one in the chain of each key. A plain flow is in one chain, and has its hash in the other's place.
    pub(super) next: [AtomicU32; 2],
}

/// The rest of a row.
#[derive(Debug, Default)]
#[repr(C, align(64))]
pub(super) struct Far {
    /// The key that replies show. Of a plain flow it means nothing.
    reply: [AtomicU64; 5],
    /// The rows that it is counted in, from 1; 0 is none. A flow: its sender's mapping, and the one that it was sent to. A
    /// mapping: its sender's count.
    mappings: [AtomicU32; 2],
    /// Of what flows share: its generation in the high half, how many are counted in it in the low one.
    pub(super) uses: AtomicU64,
    /// Type and code of its first packet, of ICMP.
    pub(super) icmp: AtomicU32,
    /// The ports whose connections it is counted among.
    counted: AtomicU32,
}

const _: () = assert!(size_of::<Near>() == 64 && size_of::<Far>() == 64, "a cache line each");

/// All rows.
pub(super) struct AllRows {
    near: Box<[Near]>,
    far: Box<[Far]>,
}

impl AllRows {
    pub(super) const BYTES_PER_ROW: usize = size_of::<Near>() + size_of::<Far>();

    pub(super) fn new(rows: usize) -> AllRows {
        AllRows {
            near: (0..rows).map(|_| Near::default()).collect(),
            far: (0..rows).map(|_| Far::default()).collect(),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.near.len()
    }

    /// # Panics
    /// Where there is no such row.
    pub(super) fn row(&self, number: u32) -> Row<'_> {
        Row { near: &self.near[number as usize], far: &self.far[number as usize] }
    }

    #[inline(always)]
    pub(super) fn get(&self, number: u32) -> Option<Row<'_>> {
        Some(Row { near: self.near.get(number as usize)?, far: self.far.get(number as usize)? })
    }

    #[inline(always)]
    pub(super) fn near(&self, number: u32) -> Option<&Near> {
        self.near.get(number as usize)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = Row<'_>> {
        self.near.iter().zip(&self.far).map(|(near, far)| Row { near, far })
    }

    /// Asks for the line that every packet of a flow needs.
    #[inline(always)]
    pub(super) fn prefetch_near(&self, number: u32) {
        prefetch(&self.near, number as usize);
    }

    #[inline(always)]
    pub(super) fn prefetch_far(&self, number: u32) {
        prefetch(&self.far, number as usize);
    }

    /// The addresses at which they lie.
    pub(super) fn places(&self) -> [Range<usize>; 2] {
        let (near, far) = (self.near.as_ptr_range(), self.far.as_ptr_range());
        [near.start.addr()..near.end.addr(), far.start.addr()..far.end.addr()]
    }
}

/// See the file's head.
#[derive(Clone, Copy, Debug)]
pub(super) struct Row<'a> {
    pub(super) near: &'a Near,
    pub(super) far: &'a Far,
}

impl Far {
    /// Forgets what it was to say of a flow that didn't begin.
    pub(super) fn forget(&self) {
        self.counted.store(0, Ordering::Relaxed);
    }
}

impl Near {
    #[inline(always)]
    pub(super) fn life(&self) -> Life {
        Life(self.life.load(Ordering::Relaxed))
    }

    /// What policy has said of the flow, as it lies here.
    #[inline(always)]
    pub(super) fn verdict_word(&self) -> u64 {
        self.verdict.load(Ordering::Relaxed)
    }

    /// Is the row in use, and its life this one since it was read? Keys and verdict are then what was read between. Keys are
    /// written after a row's generation moved on.
    #[inline(always)]
    pub(super) fn is_still(&self, life: Life) -> bool {
        fence(Ordering::Acquire);
        life.has(Life::LIVE) && self.life() == life
    }

    /// How the first key's words and a packet's, which have no way, differ: nothing of a plain flow with this key; of a flow
    /// that is translated and has it, [`way`]. `None`: it is another key.
    #[inline(always)]
    pub(super) fn unlike(&self, probe: &Probe<'_>) -> Option<u64> {
        let load = |word: usize| self.original[word].load(Ordering::Relaxed);
        let same = |word: usize| load(word + 2) == probe.rest[word];
        let alike = load(1) == probe.second && (probe.head & IS_V6 == 0 || same(0) && same(1) && same(2));
        alike.then(|| load(0) ^ probe.head)
    }
}

/// What is there, which isn't any more. Nothing is mostly there, and a swap costs as much as a dozen loads.
fn take(word: &AtomicU32) -> u32 {
    if word.load(Ordering::Acquire) == 0 { 0 } else { word.swap(0, Ordering::AcqRel) }
}

/// What [`directed`] adds to the first word. `turned`: 0 or 1.
#[inline(always)]
pub(super) fn way(turned: u64) -> u64 {
    DIRECTED | (turned * TURNED)
}

impl Row<'_> {
    pub(super) fn life(&self) -> Life {
        self.near.life()
    }

    /// Takes over a change where nobody was faster.
    pub(super) fn change(&self, from: Life, to: Life) -> Result<(), Life> {
        let life = &self.near.life;
        life.compare_exchange(from.0, to.0, Ordering::AcqRel, Ordering::Relaxed).map(drop).map_err(Life)
    }

    fn side(&self, side: usize) -> &[AtomicU64; 5] {
        if side == 0 { &self.near.original } else { &self.far.reply }
    }

    /// A key as it lies here. Of a plain flow: the first one.
    pub(super) fn words(&self, side: usize) -> Words {
        // One by one, here and below: as a loop over arrays, it isn't always made into a few loads.
        let [a, b, c, d, e] = self.side(side);
        let load = |word: &AtomicU64| word.load(Ordering::Relaxed);
        [load(a), load(b), load(c), load(d), load(e)]
    }

    /// The words of both keys, with their ways. `life`: the row's.
    pub(super) fn both(&self, life: Life) -> [Words; 2] {
        let first = self.words(0);
        match life.has(Life::PLAIN) {
            true => [life.has(Life::TURNED), !life.has(Life::TURNED)].map(|turned| directed(&first, turned)),
            false => [first, self.words(1)],
        }
    }

    /// The key of a flow's first packet, and that of its replies.
    pub(super) fn keys(&self, life: Life) -> [FlowKey; 2] {
        self.both(life).each_ref().map(key)
    }

    pub(super) fn protocol(&self) -> u8 {
        protocol_of(self.near.original[0].load(Ordering::Relaxed))
    }

    /// A plain flow's hash.
    pub(super) fn hash(&self) -> Hash {
        Hash(self.near.next[1].load(Ordering::Relaxed))
    }

    pub(super) fn set_hash(&self, hash: Hash) {
        self.near.next[1].store(hash.0, Ordering::Relaxed);
    }

    pub(super) fn set_mappings(&self, mappings: [u32; 2]) {
        for (mapping, value) in self.far.mappings.iter().zip(mappings) {
            mapping.store(value, Ordering::Relaxed);
        }
    }

    /// Writes down what a new flow begins with. Nothing is counted in a row that has no flow; the ICMP message is asked for by
    /// flows of ICMP alone.
    pub(super) fn write(&self, beginning: &Beginning, flags: u16) {
        self.near.verdict.store(beginning.verdict.word(self.life().generation()), Ordering::Relaxed);
        if flags & Life::FAR != 0 {
            self.far.icmp.store(icmp_word(beginning.icmp), Ordering::Relaxed);
            self.far.counted.store(counted_word(beginning.counted), Ordering::Relaxed);
        }
    }

    /// Remembers the first packet of this generation's flow; `false`: another flow is counted here by now.
    pub(super) fn begin(&self, generation: u16, beginning: &Beginning) -> bool {
        self.near.verdict.store(beginning.verdict.word(generation), Ordering::Relaxed);
        self.far.icmp.store(icmp_word(beginning.icmp), Ordering::Relaxed);
        let word = counted_word(beginning.counted);
        let counted = &self.far.counted;
        word == 0 || counted.compare_exchange(0, word, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }

    /// Is the flow counted among these connections still? Then it isn't any more.
    pub(super) fn uncount(&self, counted: Between) -> bool {
        let (here, word) = (&self.far.counted, counted_word(counted));
        word != 0 && here.compare_exchange(word, 0, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }

    pub(super) fn take_counted(&self) -> Between {
        counted_of(take(&self.far.counted))
    }

    pub(super) fn take_mappings(&self) -> [u32; 2] {
        let [one, other] = &self.far.mappings;
        [take(one), take(other)]
    }

    /// Do packets with this key, which says which way they go, belong here by the key of that side?
    #[inline(always)]
    pub(super) fn has_words(&self, side: usize, asked: &Words) -> bool {
        let same = |word: usize| self.side(side)[word].load(Ordering::Relaxed) == asked[word];
        let head = self.side(side)[0].load(Ordering::Relaxed);
        (head == asked[0] || head == undirected(asked)[0])
            && same(1)
            && (!is_v6(asked) || same(2) && same(3) && same(4))
    }

    pub(super) fn set_words(&self, side: usize, words: &Words) {
        let ([a, b, c, d, e], words) = (self.side(side), *words);
        let store = |word: &AtomicU64, value| word.store(value, Ordering::Relaxed);
        store(a, words[0]);
        store(b, words[1]);
        store(c, words[2]);
        store(d, words[3]);
        store(e, words[4]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_key_comes_back_from_its_words_which_but_for_their_way_are_those_of_its_answers(
            src: u128, dst: u128, sport: u16, dport: u16, protocol: u8, v6: bool,
        ) {
            let (family, mask) = if v6 { (Family::V6, u128::MAX) } else { (Family::V4, u128::from(u32::MAX)) };
            let flow = FlowKey { src: src & mask, dst: dst & mask, sport, dport, protocol, family };
            let there = words(&flow);
            prop_assert_eq!((key(&there), key_reversed(&there)), (flow, flow.reversed()));
            prop_assert_eq!(undirected(&there), undirected(&words(&flow.reversed())));
            prop_assert_eq!(directed(&undirected(&there), is_turned(&there)), there);
            prop_assert_eq!(there[0] ^ undirected(&there)[0], way(is_turned(&there).into()));
        }

        #[test]
        fn a_life_keeps_its_parts_apart(word: u64, flags: u16, seen: u32) {
            let life = Life(word).with(flags, seen);
            prop_assert_eq!((life.flags(), life.seen(), life.generation()), (flags, seen, Life(word).generation()));
        }
    }
}

//! Flows begin: a row is taken and linked, unless one of its keys is there already.

use std::sync::atomic::{Ordering, fence};

use packet::{FlowKey, protocol};

use super::index::{Hash, Held, Link, find_in, link};
use super::row::{AllRows, Life, Words, directed, is_own_answer, is_turned, key, undirected, words};
use super::{
    Beginning, Between, Direction, Flow, FlowTime, FlowTimeouts, FlowVerdict, Flows, NotAdded, Probes, Table,
    Ticks,
};

/// Rows looked at for one to evict: a bound for the work of one packet.
const EVICTION_SCAN: u32 = 64;

impl Flows {
    /// Adds a flow whose replies show the key `reply`.
    ///
    /// # Errors
    /// See [`NotAdded`]; the table is as it was, but for flows evicted.
    pub fn add(
        &self,
        original: &FlowKey,
        reply: &FlowKey,
        now: Ticks,
        timeouts: &FlowTimeouts,
    ) -> Result<Flow, NotAdded> {
        self.add_with(original, reply, [0; 2], now, timeouts)
    }

    /// Adds the flow of a packet that has been asked about, which nobody translates, and what is known of it by that packet:
    /// [`Flows::add`] and [`Flows::begin`].
    ///
    /// # Errors
    /// As [`Flows::add`].
    pub fn add_asked(
        &self,
        probes: &Probes,
        row: usize,
        beginning: &Beginning,
        time: &FlowTime<'_>,
    ) -> Result<(), NotAdded> {
        let probe = probes.get(row);
        let is_icmp = matches!(probe.protocol(), protocol::ICMP | protocol::ICMPV6);
        let far = if is_icmp || beginning.counted != Between::default() { Life::FAR } else { 0 };
        self.add_plain(&probe.directed(), probe.hash, far, beginning, time.now, time.timeouts).map(drop)
    }

    /// Adds a flow that nobody translates. `asked`: the key of its first packet.
    fn add_plain(
        &self,
        asked: &Words,
        hash: Hash,
        far: u16,
        beginning: &Beginning,
        now: Ticks,
        timeouts: &FlowTimeouts,
    ) -> Result<(u32, Life), NotAdded> {
        let number = self.take_row(hash, now, timeouts).ok_or(NotAdded::Full)?;
        let turned = if is_turned(asked) { Life::TURNED } else { 0 };
        let by_syn = if beginning.is_syn { Life::ASKED } else { 0 };
        let flags = Life::LIVE | Life::PLAIN | turned | by_syn | far;
        self.0.rows.row(number).write(beginning, flags);
        let life = self.link_plain(number, asked, hash, flags, now);
        let life = life.map_err(|refused| self.refuse(number, refused, &key(asked)))?;
        Ok((number, life))
    }

    pub(super) fn add_with(
        &self,
        original: &FlowKey,
        reply: &FlowKey,
        mappings: [u32; 2],
        now: Ticks,
        timeouts: &FlowTimeouts,
    ) -> Result<Flow, NotAdded> {
        let (nothing, keys) = (Beginning::default(), [words(original), words(reply)]);
        if mappings == [0; 2] && undirected(&keys[0]) == undirected(&keys[1]) && keys[0] != keys[1] {
            let hash = self.0.index.hash(&keys[0]);
            let (row, life) = self.add_plain(&keys[0], hash, Life::FAR, &nothing, now, timeouts)?;
            return Ok(Flow {
                row,
                protocol: original.protocol,
                life,
                direction: Direction::Original,
                other: *reply,
                verdict: FlowVerdict::NONE,
            });
        }
        let hashes = keys.each_ref().map(|key| self.0.index.hash(key));
        let number = self.take_row(hashes[0], now, timeouts).ok_or(NotAdded::Full)?;
        let (row, flags) = (self.0.rows.row(number), Life::LIVE | Life::FAR);
        row.set_mappings(mappings);
        row.write(&nothing, flags);
        let life = self.link(number, &keys, hashes, flags, now);
        let life = life.map_err(|refused| {
            row.set_mappings([0; 2]);
            self.refuse(number, refused, original)
        })?;
        Ok(Flow {
            row: number,
            protocol: original.protocol,
            life,
            direction: Direction::Original,
            other: *reply,
            verdict: FlowVerdict::NONE,
        })
    }

    /// Gives a row back that could not be linked, and says why that was.
    #[cold]
    fn refuse(&self, number: u32, refused: Refused, original: &FlowKey) -> NotAdded {
        self.0.rows.row(number).far.forget();
        self.give_row(number);
        match refused {
            Refused::Known(found) => {
                self.reread(found, original).map_or(NotAdded::Ambiguous, NotAdded::Known)
            }
            Refused::Ambiguous => NotAdded::Ambiguous,
        }
    }

    /// Puts a row that nobody else knows into the chain of a plain flow's keys, unless either is there already. `asked`: the
    /// key that its first packet showed.
    pub(super) fn link_plain(
        &self,
        number: u32,
        asked: &Words,
        hash: Hash,
        flags: u16,
        now: Ticks,
    ) -> Result<Life, Refused> {
        let Table { rows, index, .. } = &*self.0;
        let words = undirected(asked);
        let keys = [directed(&words, is_turned(asked)), directed(&words, !is_turned(asked))];
        if is_own_answer(&words) {
            return Err(Refused::Ambiguous);
        }
        let row = rows.row(number);
        // A look-up that still walks over this row and sees the new keys sees the version of the chain it left, too.
        fence(Ordering::Release);
        row.set_words(0, &words);
        let held = index.hold(hash);
        if let Some(refused) = refused(rows, [held.head(); 2], &keys) {
            index.release(held, held.head());
            return Err(refused);
        }
        let life = row.life().with(flags, now.0);
        row.near.next[0].store(held.head(), Ordering::Relaxed);
        row.set_hash(hash);
        // Whoever finds the row without its chain sees the keys of this life.
        row.near.life.store(life.0, Ordering::Release);
        index.release(held, link(number, 0));
        Ok(life)
    }

    /// Puts a row that nobody else knows into the chains of both keys, unless either key is there already. `hashes`: the
    /// keys'.
    pub(super) fn link(
        &self,
        number: u32,
        keys: &[Words; 2],
        hashes: [Hash; 2],
        flags: u16,
        now: Ticks,
    ) -> Result<Life, Refused> {
        if keys[0] == keys[1] {
            return Err(Refused::Ambiguous);
        }
        let Table { rows, index, .. } = &*self.0;
        let row = rows.row(number);
        // As in `link_plain`.
        fence(Ordering::Release);
        (0..2).for_each(|side| row.set_words(side, &keys[side]));
        let buckets = hashes.map(|hash| index.bucket(hash));
        let [low, high] = if buckets[0] <= buckets[1] { hashes } else { [hashes[1], hashes[0]] };
        let low = index.hold(low);
        let high = (buckets[0] != buckets[1]).then(|| index.hold(high));
        let held = |side: usize| if low.bucket == buckets[side] { low } else { high.unwrap_or(low) };
        let release = |heads: [Link; 2]| {
            let head_of = |held: Held| heads[usize::from(held.bucket != buckets[0])];
            index.release(low, head_of(low));
            if let Some(high) = high {
                index.release(high, head_of(high));
            }
        };
        let heads = [held(0).head(), held(1).head()];
        if let Some(refused) = refused(rows, heads, keys) {
            release(heads);
            return Err(refused);
        }
        let life = row.life().with(flags, now.0);
        let (first, second) = (link(number, 0), link(number, 1));
        row.near.next[0].store(heads[0], Ordering::Relaxed);
        // In one chain, the second link comes in front of the first.
        row.near.next[1].store(if high.is_none() { first } else { heads[1] }, Ordering::Relaxed);
        row.near.life.store(life.0, Ordering::Release);
        release(if high.is_none() { [second; 2] } else { [first, second] });
        Ok(life)
    }

    /// A row for the caller alone: the one where a key with this hash is looked for first if it is free, else another free
    /// one, else that of a flow that may go.
    pub(super) fn take_row(&self, hash: Hash, now: Ticks, timeouts: &FlowTimeouts) -> Option<u32> {
        let home = self.0.index.home(hash);
        if let Some(number) = self.0.free.take(home) {
            return Some(number);
        }
        let rows = &self.0.rows;
        for _ in 0..EVICTION_SCAN {
            let number = (self.0.eviction_hand.fetch_add(1, Ordering::Relaxed) % rows.len()) as u32;
            let row = rows.row(number);
            let life = row.life();
            if !life.has(Life::LIVE) || life.has(Life::MAPPING) {
                continue;
            }
            let is_over = timeouts.is_over(row.protocol(), life, now);
            if (is_over || !life.has(Life::ESTABLISHED)) && self.empty(number, life) {
                if !is_over {
                    self.0.evicted.fetch_add(1, Ordering::Relaxed);
                }
                return Some(number);
            }
        }
        None
    }

    /// Gives back a row that is linked nowhere.
    pub(super) fn give_row(&self, number: u32) {
        let row = self.0.rows.row(number);
        row.near.life.store(row.life().next().0, Ordering::Release);
        self.0.free.give_back(number);
    }
}

/// Is one of these keys in its chain already? `heads`: of their chains, which nobody else changes.
fn refused(rows: &AllRows, heads: [Link; 2], keys: &[Words; 2]) -> Option<Refused> {
    let known = |side: usize| find_in(rows, heads[side], &keys[side], u32::MAX).unwrap_or(None);
    if heads == [0; 2] {
        return None;
    }
    let first = known(0).map(|(link, life, _)| Refused::Known((link, life)));
    first.or_else(|| known(1).map(|_| Refused::Ambiguous))
}

/// Why a row was not linked.
pub(super) enum Refused {
    Known((Link, Life)),
    Ambiguous,
}

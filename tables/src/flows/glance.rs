//! Looking up a batch: most of its packets belong to flows that nobody translates, change nothing, and so need little.
//!
//! ```text
//!  keys ─► hashed, and the row that each points to asked for ─► one look at each: a plain flow, a translated one, or
//!          else: buckets asked for ─► rows asked for ─► a look at the chain: one of both, or none
//! ```
//!
//! What is far away is asked for before anything is read, so that a core waits for as many cache lines at once as it can. Nothing
//! that is shared is written.

use std::sync::atomic::{Ordering, fence};

use packet::FlowKey;

use super::index::{row_and_side, way_of};
use super::probes::{Probe, Probes};
use super::row::{Life, Row, key_reversed, way};
use super::timeouts::{self, FlowTime};
use super::{Direction, Flow, FlowVerdict, Flows, Table};
use crate::Rows;

/// A batch's flows as a walk keeps them from stage to stage: without keys, in columns. Of a row whose packet belongs to none,
/// nothing means anything.
pub struct Glimpses {
    /// Rows of the table, and what their lives were.
    numbers: [u32; Rows::MOST],
    lives: [u64; Rows::MOST],
    /// 0 where the packet goes as the flow's first one, else 1.
    sides: [u64; Rows::MOST],
    /// What policy has said: [`FlowVerdict::word`] without the mark of the flow that it was said of.
    said: [u64; Rows::MOST],
}

impl Default for Glimpses {
    fn default() -> Glimpses {
        Glimpses {
            numbers: [0; Rows::MOST],
            lives: [0; Rows::MOST],
            sides: [0; Rows::MOST],
            said: [0; Rows::MOST],
        }
    }
}

impl Glimpses {
    /// A row's flow, as it was looked up by `asked`. Nobody translates it.
    pub fn of_plain(&self, row: usize, asked: &FlowKey) -> Flow {
        self.of_translated(row, asked, asked)
    }

    /// A row's flow, as it was looked up by `asked`, and its packets become this.
    pub fn of_translated(&self, row: usize, asked: &FlowKey, becomes: &FlowKey) -> Flow {
        Flow {
            row: self.numbers[row],
            protocol: asked.protocol,
            life: self.life(row),
            direction: if self.sides[row] == 0 { Direction::Original } else { Direction::Reply },
            other: becomes.reversed(),
            verdict: FlowVerdict::of_unmarked(self.said[row]),
        }
    }

    /// The rows of which policy has said this: one verdict that lets packets pass that go as a flow's first one, one for the
    /// others.
    #[inline]
    pub fn said(&self, [as_first, as_answers]: &[FlowVerdict; 2]) -> Rows {
        let (as_first, as_answers) = (as_first.unmarked(), as_answers.unmarked());
        // To the end and without a branch, here and below, for the processor does several rows at once.
        let is_said = |row: usize| self.said[row] == if self.sides[row] == 0 { as_first } else { as_answers };
        Rows((0..Rows::MOST).fold(0, |rows, row| rows | u64::from(is_said(row)) << row))
    }

    fn life(&self, row: usize) -> Life {
        Life(self.lives[row])
    }

    fn put(&mut self, row: usize, (number, side): (u32, usize), life: Life, verdict: u64) {
        self.numbers[row] = number;
        self.lives[row] = life.0;
        self.sides[row] = side as u64;
        self.said[row] = FlowVerdict::without_mark(verdict, life.generation());
    }

    /// Learns of these rows from lives and verdicts, as they lie in the table, what else there is to know of plain flows. Says
    /// which of them stir. Others stay as they are.
    fn learn(&mut self, asked: Rows, probes: &Probes, time: &FlowTime<'_>) -> Rows {
        let mut stirring = 0;
        for row in 0..Rows::MOST {
            let is_asked = asked.contains(row);
            let life = Life(self.lives[row]);
            let side = way_of(life, probes.turned[row]);
            let stirs = !timeouts::is_steady(life, side, probes.steady[row]) | !time.is_recent(life);
            self.sides[row] = if is_asked { side } else { self.sides[row] };
            let unmarked = FlowVerdict::without_mark(self.said[row], life.generation());
            self.said[row] = if is_asked { unmarked } else { self.said[row] };
            stirring |= u64::from(stirs) << row;
        }
        Rows(stirring).within(asked)
    }

    /// May a row's packet change something of its flow, or be one that it may not have?
    fn stirs(&self, row: usize, probes: &Probes, time: &FlowTime<'_>) -> bool {
        !timeouts::is_steady(self.life(row), self.sides[row], probes.steady[row])
            || !time.is_recent(self.life(row))
    }
}

/// What was found of a batch's rows. Of those of no kind here, [`Flows::look_up_asked`] tells.
#[derive(Clone, Copy, Debug, Default)]
pub struct Glanced {
    /// Rows of plain flows, which have been written down.
    pub plain: Rows,
    /// Rows of translated flows, which have been written down: [`Flows::becomes`] tells the rest.
    pub translated: Rows,
    /// Those of both kinds whose packet may change something, or may be one that the flow may not have.
    pub stirring: Rows,
    /// Rows of no flow.
    pub nothing: Rows,
}

impl Flows {
    /// What a row's packet becomes, which belongs to a flow that is translated; `None`: it has changed since.
    #[inline]
    pub fn becomes(&self, found: &Glimpses, row: usize) -> Option<FlowKey> {
        let seen = found.life(row);
        let other = 1 - found.sides[row] as usize;
        let row = self.0.rows.get(found.numbers[row])?;
        let other = row.words(other);
        fence(Ordering::Acquire);
        let life = row.life();
        let is_same = life.generation() == seen.generation() && life.has(Life::LIVE);
        is_same.then(|| key_reversed(&other))
    }

    /// Looks up a batch's rows.
    #[inline(never)]
    pub fn glance(&self, probes: &Probes, asked: Rows, time: &FlowTime<'_>, found: &mut Glimpses) -> Glanced {
        let mut others = Rows::NONE;
        for row in asked {
            match self.at_home(&probes.get(row), |_| 0) {
                Some((life, verdict)) => {
                    found.numbers[row] = probes.homes[row];
                    (found.lives[row], found.said[row]) = (life.0, verdict);
                }
                None => others.insert(row),
            }
        }
        let plain = asked.without(others);
        let stirring = found.learn(plain, probes, time);
        let mut glanced = Glanced { plain, stirring, ..Glanced::default() };
        if !others.is_empty() {
            self.glance_further(probes, others, time, found, &mut glanced);
        }
        let stirring = glanced.stirring.into_iter();
        let over: Rows = stirring.filter(|row| time.may_be_over(found.life(*row))).collect();
        let Glanced { plain, translated, stirring, nothing } = glanced;
        let without = |rows: Rows| rows.without(over);
        Glanced {
            plain: without(plain),
            translated: without(translated),
            stirring: without(stirring),
            nothing,
        }
    }

    /// Life and verdict of the flow where most flows are, if its first key's words differ from the packet's by `unlike`; `None`
    /// says nothing.
    #[inline(always)]
    fn at_home<'a>(&self, probe: &Probe<'a>, unlike: impl FnOnce(&Probe<'a>) -> u64) -> Option<(Life, u64)> {
        let near = self.0.rows.near(probe.home)?;
        let life = Life(near.life.load(Ordering::Acquire));
        let verdict = near.verdict_word();
        let is_it = near.unlike(probe) == Some(unlike(probe)) && near.is_still(life);
        is_it.then_some((life, verdict))
    }

    /// Looks for translated flows, and at chains: of flows that found another's row where theirs should be, of translated ones by
    /// the key that replies show, and of none.
    #[inline(never)]
    fn glance_further(
        &self,
        probes: &Probes,
        asked: Rows,
        time: &FlowTime<'_>,
        found: &mut Glimpses,
        glanced: &mut Glanced,
    ) {
        let Table { rows, index, .. } = &*self.0;
        let mut elsewhere = Rows::NONE;
        for row in asked {
            let probe = probes.get(row);
            // What replies show of a translated flow is another key, which points elsewhere.
            match self.at_home(&probe, |probe| way(probe.turned)) {
                Some((life, verdict)) => {
                    rows.prefetch_far(probe.home);
                    found.put(row, (probe.home, 0), life, verdict);
                    glanced.translated.insert(row);
                }
                None => {
                    index.prefetch(probe.hash);
                    elsewhere.insert(row);
                }
            }
        }
        for row in elsewhere {
            let first = index.first(probes.get(row).hash);
            rows.prefetch_near(first);
            rows.prefetch_far(first);
        }
        for row in elsewhere {
            let probe = probes.get(row);
            let read = |_, _, row: Row<'_>| row.near.verdict_word();
            let Some((link, life, verdict)) = index.find_and_read(rows, probe.hash, &probe.directed(), read)
            else {
                glanced.nothing.insert(row);
                continue;
            };
            found.put(row, row_and_side(link), life, verdict);
            match life.has(Life::PLAIN) {
                true => glanced.plain.insert(row),
                false => glanced.translated.insert(row),
            }
        }
        for row in asked.without(glanced.nothing) {
            if found.stirs(row, probes, time) {
                glanced.stirring.insert(row);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{FlowTimeouts, Ticks};
    use model::Family;
    use packet::protocol;
    use proptest::prelude::*;

    /// Some keys of both families, protocols and directions, so that they meet.
    fn keys() -> impl Strategy<Value = FlowKey> {
        let protocols = prop::sample::select(vec![protocol::TCP, protocol::UDP]);
        (0u128..3, 0u128..3, 0u16..3, any::<bool>(), protocols).prop_map(|(src, dst, dport, v6, protocol)| {
            let family = if v6 { Family::V6 } else { Family::V4 };
            FlowKey { src, dst, sport: 1, dport, protocol, family }
        })
    }

    proptest! {
        /// A glance knows less than a look-up, and nothing else.
        #[test]
        fn a_glance_agrees_with_looking_up(
            flows_there in prop::collection::vec((keys(), any::<bool>(), 0u32..200, any::<u8>()), 0..24),
            asked in prop::collection::vec((keys(), any::<u8>()), 1..=64),
            later in 0u32..600,
        ) {
            let (flows, timeouts) = (Flows::new(32), FlowTimeouts::default());
            for (key, is_translated, at, tcp_flags) in &flows_there {
                let reply = if *is_translated { FlowKey { dport: 77, ..key.reversed() } } else { key.reversed() };
                let now = Ticks(*at);
                if let Ok(flow) = flows.add(key, &reply, now, &timeouts) {
                    let tcp_flags = if key.protocol == protocol::TCP { *tcp_flags } else { 0 };
                    flows.touch(&flow, tcp_flags, &FlowTime::new(now, &timeouts));
                    if let Some(answer) = flows.look_up(&reply, now, &timeouts) {
                        flows.touch(&answer, tcp_flags, &FlowTime::new(now, &timeouts));
                    }
                }
            }
            let time = FlowTime::new(Ticks(later), &timeouts);
            let mut probes = Probes::default();
            for (row, (key, tcp_flags)) in asked.iter().enumerate() {
                flows.ask(&mut probes, row, key, *tcp_flags);
            }
            let mut found = Glimpses::default();
            let rows: Rows = (0..asked.len()).filter(|row| row % 5 != 3).collect();
            let glanced = flows.glance(&probes, rows, &time, &mut found);
            prop_assert!(glanced.plain.with(glanced.nothing).with(glanced.translated).without(rows).is_empty());
            prop_assert!(glanced.stirring.without(glanced.plain).without(glanced.translated).is_empty());
            // What is asked later changes nothing of what was found before.
            flows.glance(&probes, Rows::first(asked.len()).without(rows), &time, &mut found);
            for row in rows {
                let (key, tcp_flags) = &asked[row];
                let expected = flows.look_up(key, time.now, &timeouts);
                if glanced.plain.contains(row) {
                    let flow = found.of_plain(row, key);
                    prop_assert_eq!(Some(flow), expected);
                    prop_assert!(!flow.is_translated());
                    let tcp_flags = if key.protocol == protocol::TCP { *tcp_flags } else { 0 };
                    let flags = timeouts::after(flow.life.flags(), key.protocol, flow.direction, tcp_flags);
                    let changes = flags != flow.life.flags() || !time.is_recent(flow.life);
                    prop_assert!(!changes || glanced.stirring.contains(row), "what changes a flow stirs");
                } else if glanced.translated.contains(row) {
                    let becomes = flows.becomes(&found, row);
                    let flow = becomes.map(|becomes| found.of_translated(row, key, &becomes));
                    prop_assert!(flow.is_none_or(|flow| Some(flow) == expected && flow.is_translated()));
                    prop_assert!(flow.is_some() || expected.is_none_or(|flow| time.may_be_over(flow.life)));
                } else if glanced.nothing.contains(row) {
                    prop_assert_eq!(expected, None);
                } else {
                    let is_unclear = |flow: Flow| flow.is_translated() || time.may_be_over(flow.life);
                    prop_assert!(expected.is_none_or(is_unclear), "plain flows are found while they are surely alive");
                }
            }
        }
    }

    #[test]
    fn what_policy_said_is_compared_by_direction_and_generation() {
        let (flows, timeouts) = (Flows::new(1), FlowTimeouts::default());
        let key = FlowKey { src: 1, dst: 2, sport: 3, dport: 4, protocol: protocol::UDP, family: Family::V4 };
        let time = FlowTime::new(Ticks(9), &timeouts);
        let verdicts = [1, 2].map(|epoch| FlowVerdict::allowed(epoch, crate::Between::default()));
        let glance = |key: &FlowKey| {
            let mut found = Glimpses::default();
            let mut probes = Probes::default();
            flows.ask(&mut probes, 0, key, 0);
            let glanced = flows.glance(&probes, Rows(1), &time, &mut found);
            assert!(glanced.plain.contains(0));
            found
        };
        let flow = flows.add(&key, &key.reversed(), time.now, &timeouts).unwrap();
        flows.judge(&flow, verdicts[0]);
        let is_said = |key: &FlowKey| glance(key).said(&verdicts).contains(0);
        assert!(is_said(&key) && !is_said(&key.reversed()));
        // The row's next flow.
        let next = FlowKey { sport: 5, ..key };
        flows.add(&next, &next.reversed(), time.now, &timeouts).unwrap();
        flows.judge(&flow, verdicts[0]);
        assert!(!is_said(&next), "said of the last one");
    }

    fn numbered(n: u32) -> FlowKey {
        FlowKey { src: n.into(), dst: 7, sport: 1, dport: 53, protocol: protocol::UDP, family: Family::V4 }
    }

    #[test]
    fn a_flow_lies_where_its_hash_points_to_if_that_row_was_free() {
        let (flows, timeouts) = (Flows::new(1000), FlowTimeouts::default());
        let mut taken = std::collections::BTreeSet::new();
        for n in 0..1000 {
            let key = if n % 2 == 0 { numbered(n) } else { numbered(n).reversed() };
            let mut probes = Probes::default();
            flows.ask(&mut probes, 0, &key, 0);
            let home = flows.0.index.home(probes.get(0).hash);
            let flow = flows.add(&key, &key.reversed(), Ticks(9), &timeouts).unwrap();
            assert!(flow.row == home || taken.contains(&home));
            taken.insert(flow.row);
        }
        assert_eq!(taken.len(), 1000);
    }

    /// Two threads push plain flows out of a small table, and readers glance at them: what is found of a flow was said of it, and
    /// an established one is always found.
    #[test]
    fn under_a_flood_a_glance_finds_what_was_said_of_its_own_flow() {
        const KEPT: u32 = 16;
        let (flows, timeouts) = (Flows::new(64), FlowTimeouts::default());
        let time = FlowTime::new(Ticks(9), &timeouts);
        let verdict = |n: u32| FlowVerdict::allowed(n.into(), crate::Between::default());
        let add = |n: u32| {
            let beginning = crate::Beginning { verdict: verdict(n), ..Default::default() };
            let mut probes = Probes::default();
            flows.ask(&mut probes, 0, &numbered(n), 0);
            flows.add_asked(&probes, 0, &beginning, &time)
        };
        for n in 0..KEPT {
            add(n).unwrap();
            let answer = flows.look_up(&numbered(n).reversed(), time.now, &timeouts).unwrap();
            flows.touch(&answer, 0, &time);
        }
        std::thread::scope(|scope| {
            let flood = |first: u32| {
                let add = &add;
                move || {
                    (0..200_000u32).filter(|n| add(KEPT + (first + n.wrapping_mul(7)) % 128).is_ok()).count()
                }
            };
            let floods = [scope.spawn(flood(0)), scope.spawn(flood(64))];
            let (mut probes, mut found) = (Probes::default(), Glimpses::default());
            let mut first = 0;
            while floods.iter().any(|flood| !flood.is_finished()) {
                // The kept ones in the first rows, some of the flood in the others; now one way, now the other.
                first = (first + 5) % 80;
                let number = |row: u32| if row < KEPT { row } else { first + row };
                for row in 0..64 {
                    let key = numbered(number(row));
                    let key = if (first + row) % 2 == 0 { key } else { key.reversed() };
                    flows.ask(&mut probes, row as usize, &key, 0);
                }
                let glanced = flows.glance(&probes, Rows::first(64), &time, &mut found);
                assert!(Rows::first(KEPT as usize).without(glanced.plain).is_empty(), "established");
                for row in glanced.plain {
                    let said = verdict(number(row as u32));
                    assert!(found.said(&[said, said]).contains(row), "row {row}");
                }
            }
        });
    }
}

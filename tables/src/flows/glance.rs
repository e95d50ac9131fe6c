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

use super::index::{Link, link, row_and_side, way_of};
use super::probes::{Probe, Probes};
use super::row::{Life, Row, key_reversed, way};
use super::timeouts::{self, FlowTime};
use super::{Direction, Flow, FlowVerdict, Flows, Table};
use crate::Rows;

/// A flow as a walk keeps it from stage to stage: without keys.
#[derive(Clone, Copy, Debug)]
pub struct Glimpse {
    life: Life,
    /// As it lies in the row.
    verdict: u64,
    link: Link,
}

impl Glimpse {
    /// What stands in rows of a batch whose packets belong to none.
    pub const NONE: Glimpse = Glimpse { life: Life(0), verdict: 0, link: 0 };

    /// The flow, as it was looked up by `asked`. Nobody translates it.
    pub fn of_plain(&self, asked: &FlowKey) -> Flow {
        self.of_translated(asked, asked)
    }

    /// The flow, as it was looked up by `asked`, and its packets become this.
    pub fn of_translated(&self, asked: &FlowKey, becomes: &FlowKey) -> Flow {
        let (row, _) = row_and_side(self.link);
        Flow {
            row,
            protocol: asked.protocol,
            life: self.life,
            direction: direction(self.link),
            other: becomes.reversed(),
            verdict: FlowVerdict::of_word(self.verdict, self.life.generation()),
        }
    }

    /// May a packet change something of it, or be one that it may not have? `steady`: as for [`timeouts::is_steady`].
    #[inline(always)]
    fn stirs(&self, steady: u16, time: &FlowTime<'_>) -> bool {
        let (_, side) = row_and_side(self.link);
        !timeouts::is_steady(self.life, side, steady) || !time.is_recent(self.life)
    }

    /// Has policy said this of it? One verdict that lets packets pass that go as its first one, one for the others.
    #[inline(always)]
    pub fn has(&self, verdicts: &[FlowVerdict; 2]) -> bool {
        let (_, side) = row_and_side(self.link);
        self.verdict == verdicts[side].word(self.life.generation())
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

#[inline(always)]
fn direction(link: Link) -> Direction {
    if link & 1 == 0 { Direction::Original } else { Direction::Reply }
}

impl Flows {
    /// What packets become that belong to this flow, which is translated; `None`: it has changed since.
    #[inline]
    pub fn becomes(&self, seen: &Glimpse) -> Option<FlowKey> {
        let (number, side) = row_and_side(seen.link);
        let row = self.0.rows.get(number)?;
        let other = row.words(1 - side);
        fence(Ordering::Acquire);
        let life = row.life();
        let is_same = life.generation() == seen.life.generation() && life.has(Life::LIVE);
        is_same.then(|| key_reversed(&other))
    }

    /// Looks up a batch's rows.
    #[inline(never)]
    pub fn glance(
        &self,
        probes: &Probes,
        asked: Rows,
        time: &FlowTime<'_>,
        found: &mut [Glimpse; Rows::MOST],
    ) -> Glanced {
        let (mut others, mut stirring) = (Rows::NONE, Rows::NONE);
        for row in asked {
            let probe = probes.get(row);
            match self.plain_at_home(&probe) {
                Some(seen) => {
                    found[row] = seen;
                    if seen.stirs(probe.steady, time) {
                        stirring.insert(row);
                    }
                }
                None => others.insert(row),
            }
        }
        let mut glanced = Glanced { plain: asked.without(others), stirring, ..Glanced::default() };
        if !others.is_empty() {
            self.glance_further(probes, others, time, found, &mut glanced);
        }
        let stirring = glanced.stirring.into_iter();
        let over: Rows = stirring.filter(|row| time.may_be_over(found[*row].life)).collect();
        let Glanced { plain, translated, stirring, nothing } = glanced;
        let without = |rows: Rows| rows.without(over);
        Glanced {
            plain: without(plain),
            translated: without(translated),
            stirring: without(stirring),
            nothing,
        }
    }

    /// The flow where most flows are, unless it is translated; `None` says nothing.
    #[inline(always)]
    fn plain_at_home(&self, probe: &Probe<'_>) -> Option<Glimpse> {
        let Table { rows, index, .. } = &*self.0;
        let home = index.home(probe.hash);
        let near = rows.near(home)?;
        let life = Life(near.life.load(Ordering::Acquire));
        let verdict = near.verdict_word();
        if near.unlike(probe) != Some(0) || !near.is_still(life) {
            return None;
        }
        Some(Glimpse { life, verdict, link: link(home, way_of(life, probe.turned)) })
    }

    /// The same of a flow that is translated. What replies show is another key, which points elsewhere.
    #[inline(always)]
    fn translated_at_home(&self, probe: &Probe<'_>) -> Option<Glimpse> {
        let Table { rows, index, .. } = &*self.0;
        let home = index.home(probe.hash);
        let near = rows.near(home)?;
        let life = Life(near.life.load(Ordering::Acquire));
        let verdict = near.verdict_word();
        if near.unlike(probe) != Some(way(probe.turned)) || !near.is_still(life) {
            return None;
        }
        rows.prefetch_far(home);
        Some(Glimpse { life, verdict, link: link(home, 0) })
    }

    /// Looks for translated flows, and at chains: of flows that found another's row where theirs should be, of translated ones by
    /// the key that replies show, and of none.
    #[inline(never)]
    fn glance_further(
        &self,
        probes: &Probes,
        asked: Rows,
        time: &FlowTime<'_>,
        found: &mut [Glimpse; Rows::MOST],
        glanced: &mut Glanced,
    ) {
        let Table { rows, index, .. } = &*self.0;
        let mut elsewhere = Rows::NONE;
        for row in asked {
            let probe = probes.get(row);
            match self.translated_at_home(&probe) {
                Some(seen) => {
                    found[row] = seen;
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
            found[row] = Glimpse { life, verdict, link };
            match life.has(Life::PLAIN) {
                true => glanced.plain.insert(row),
                false => glanced.translated.insert(row),
            }
        }
        for row in asked.without(glanced.nothing) {
            if found[row].stirs(probes.get(row).steady, time) {
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
            let mut found = [Glimpse::NONE; Rows::MOST];
            let rows: Rows = (0..asked.len()).filter(|row| row % 5 != 3).collect();
            let glanced = flows.glance(&probes, rows, &time, &mut found);
            prop_assert!(glanced.plain.with(glanced.nothing).with(glanced.translated).without(rows).is_empty());
            prop_assert!(glanced.stirring.without(glanced.plain).without(glanced.translated).is_empty());
            for row in rows {
                let (key, tcp_flags) = &asked[row];
                let expected = flows.look_up(key, time.now, &timeouts);
                if glanced.plain.contains(row) {
                    let flow = found[row].of_plain(key);
                    prop_assert_eq!(Some(flow), expected);
                    prop_assert!(!flow.is_translated());
                    let tcp_flags = if key.protocol == protocol::TCP { *tcp_flags } else { 0 };
                    let flags = timeouts::after(flow.life.flags(), key.protocol, flow.direction, tcp_flags);
                    let changes = flags != flow.life.flags() || !time.is_recent(flow.life);
                    prop_assert!(!changes || glanced.stirring.contains(row), "what changes a flow stirs");
                } else if glanced.translated.contains(row) {
                    let becomes = flows.becomes(&found[row]);
                    let flow = becomes.map(|becomes| found[row].of_translated(key, &becomes));
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
            let mut found = [Glimpse::NONE; Rows::MOST];
            let mut probes = Probes::default();
            flows.ask(&mut probes, 0, key, 0);
            let glanced = flows.glance(&probes, Rows(1), &time, &mut found);
            assert!(glanced.plain.contains(0));
            found[0]
        };
        let flow = flows.add(&key, &key.reversed(), time.now, &timeouts).unwrap();
        flows.judge(&flow, verdicts[0]);
        assert!(glance(&key).has(&verdicts) && !glance(&key.reversed()).has(&verdicts));
        // The row's next flow.
        let next = FlowKey { sport: 5, ..key };
        flows.add(&next, &next.reversed(), time.now, &timeouts).unwrap();
        flows.judge(&flow, verdicts[0]);
        assert!(!glance(&next).has(&verdicts), "said of the last one");
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
        let verdict = |n: u32| FlowVerdict::allowed(n.into(), crate::Between::default());
        let add = |n: u32| {
            let beginning = crate::Beginning { verdict: verdict(n), ..Default::default() };
            flows.add_plain(&numbered(n), &beginning, Ticks(9), &timeouts)
        };
        let time = FlowTime::new(Ticks(9), &timeouts);
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
            let (mut probes, mut found) = (Probes::default(), [Glimpse::NONE; Rows::MOST]);
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
                    assert!(found[row].has(&[said, said]), "row {row}");
                }
            }
        });
    }
}

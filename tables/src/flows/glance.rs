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
use super::row::{Life, Row, way};
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
        let (row, _) = row_and_side(self.link);
        Flow {
            row,
            protocol: asked.protocol,
            life: self.life,
            direction: direction(self.link),
            other: asked.reversed(),
            verdict: FlowVerdict::of_word(self.verdict, self.life.generation()),
        }
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
    /// Rows of translated flows, which have been written down: [`Flows::look_again`] tells.
    pub translated: Rows,
    /// Those among the plain ones whose packet may change something, or may be one that the flow may not have.
    pub stirring: Rows,
    /// Rows of no flow.
    pub nothing: Rows,
}

impl Glanced {
    /// Sorts a row whose flow was seen.
    #[inline(always)]
    fn sort(&mut self, row: usize, steady: u16, seen: &Glimpse, time: &FlowTime<'_>) {
        if !seen.life.has(Life::PLAIN) {
            self.translated.insert(row);
            return;
        }
        self.plain.insert(row);
        if !timeouts::is_steady(seen.life, direction(seen.link), steady) || !time.is_recent(seen.life) {
            self.stirring.insert(row);
        }
    }
}

#[inline(always)]
fn direction(link: Link) -> Direction {
    if link & 1 == 0 { Direction::Original } else { Direction::Reply }
}

impl Flows {
    /// A flow that is translated, as far as a glance has seen it; `None`: it has changed since.
    #[inline]
    pub fn look_again(&self, seen: &Glimpse, asked: &FlowKey, time: &FlowTime<'_>) -> Option<Flow> {
        let flow = self.reread((seen.link, seen.life), asked)?;
        (!time.may_be_over(seen.life)).then_some(flow)
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
        let mut glanced = Glanced::default();
        let mut others = Rows::NONE;
        for row in asked {
            let probe = probes.get(row);
            match self.at_home(&probe) {
                Some(seen) => {
                    found[row] = seen;
                    glanced.sort(row, probe.steady, &seen, time);
                }
                None => others.insert(row),
            }
        }
        if !others.is_empty() {
            self.in_chains(probes, others, time, found, &mut glanced);
        }
        let stirring = glanced.stirring.into_iter();
        let over: Rows = stirring.filter(|row| time.may_be_over(found[*row].life)).collect();
        glanced.plain = glanced.plain.without(over);
        glanced.stirring = glanced.stirring.without(over);
        glanced
    }

    /// The flow where most flows are; `None` says nothing.
    #[inline(always)]
    fn at_home(&self, probe: &Probe<'_>) -> Option<Glimpse> {
        let Table { rows, index, .. } = &*self.0;
        let home = index.home(probe.hash);
        let near = rows.near(home)?;
        let life = Life(near.life.load(Ordering::Acquire));
        let unlike = near.unlike(probe)?;
        let verdict = near.verdict_word();
        // Keys are written after a row's generation moved on: the same life means that these were the keys.
        fence(Ordering::Acquire);
        if !life.has(Life::LIVE) || near.life() != life {
            return None;
        }
        let side = match unlike {
            0 => way_of(life, probe.turned),
            _ if unlike == way(probe.turned) => {
                rows.prefetch_far(home);
                0
            }
            _ => return None,
        };
        Some(Glimpse { life, verdict, link: link(home, side) })
    }

    /// Looks at chains: of flows that found another's row where theirs should be, of translated ones by the key that replies
    /// show, and of none.
    #[inline(never)]
    fn in_chains(
        &self,
        probes: &Probes,
        asked: Rows,
        time: &FlowTime<'_>,
        found: &mut [Glimpse; Rows::MOST],
        glanced: &mut Glanced,
    ) {
        let Table { rows, index, .. } = &*self.0;
        asked.into_iter().for_each(|row| index.prefetch(probes.get(row).hash));
        for row in asked {
            let first = index.first(probes.get(row).hash);
            rows.prefetch_near(first);
            rows.prefetch_far(first);
        }
        for row in asked {
            let probe = probes.get(row);
            let read = |_, _, row: Row<'_>| row.near.verdict_word();
            match index.find_and_read(rows, probe.hash, &probe.directed(), read) {
                Some((link, life, verdict)) => {
                    found[row] = Glimpse { life, verdict, link };
                    glanced.sort(row, probe.steady, &found[row], time);
                }
                None => glanced.nothing.insert(row),
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
            prop_assert!(glanced.stirring.without(glanced.plain).is_empty());
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
                    let again = flows.look_again(&found[row], key, &time);
                    prop_assert!(again.is_none_or(|flow| Some(flow) == expected && flow.is_translated()));
                    prop_assert!(again.is_some() || expected.is_none_or(|flow| time.may_be_over(flow.life)));
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
}

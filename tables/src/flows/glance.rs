//! Looking up a batch: most of its packets belong to flows that nobody translates, change nothing, and so need little.
//!
//! ```text
//!  keys ─► buckets, read together ─► rows, read together ─► one look at each chain: plain flow, translated one, none, or else
//! ```
//!
//! What is far away is read in loops of few instructions, so that a core waits for as many cache lines at once as it can. Nothing
//! that is shared is written.

use packet::{FlowKey, protocol};

use super::index::{Link, row_and_side};
use super::row::{Life, Row, Words, key, words};
use super::timeouts::{self, FlowTime};
use super::{Direction, Flow, FlowVerdict, Flows, Table};
use crate::Rows;

/// A packet to be looked up: its key hashed once, however often it is looked at.
#[derive(Clone, Copy, Debug)]
pub struct Probe {
    pub(super) words: Words,
    pub(super) bucket: u32,
    /// What a flow has to be for the packet to change nothing.
    steady: u16,
}

impl Probe {
    /// What stands in rows of a batch that nobody has asked for.
    pub const NONE: Probe = Probe { words: [0; 5], bucket: 0, steady: 0 };

    /// The packet's key.
    pub fn key(&self) -> FlowKey {
        key(&self.words)
    }
}

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

/// What was found of a batch's rows. Of those of no kind here, [`Flows::look_up_probe`] tells.
#[derive(Clone, Copy, Debug, Default)]
pub struct Glanced {
    /// Rows of plain flows, which have been written down.
    pub plain: Rows,
    /// Rows of translated flows, which have been written down: [`Flows::look_again`] tells.
    pub translated: Rows,
    /// Those among them whose packet may change something, or may be one that the flow may not have.
    pub stirring: Rows,
    /// Rows of no flow.
    pub nothing: Rows,
}

fn direction(link: Link) -> Direction {
    if link & 1 == 0 { Direction::Original } else { Direction::Reply }
}

impl Flows {
    /// What looking a packet up takes. `tcp_flags`: of TCP only.
    #[inline(always)]
    pub fn probe(&self, key: &FlowKey, tcp_flags: u8) -> Probe {
        let words = words(key);
        let steady = if key.protocol == protocol::TCP { timeouts::steady(tcp_flags) } else { 0 };
        Probe { words, bucket: self.0.index.bucket(&words) as u32, steady }
    }

    /// Brings near what looking these rows up will read: a look-up alone waits for its bucket, and then for its row.
    #[inline]
    fn bring_near(&self, probes: &[Probe; Rows::MOST], asked: Rows) {
        let Table { rows, index, .. } = &*self.0;
        let mut heads: [Link; Rows::MOST] = [0; Rows::MOST];
        for row in asked {
            heads[row] = index.head(probes[row].bucket as usize);
        }
        let at = |row: usize| rows.get(row_and_side(heads[row]).0 as usize);
        let mut translated = Rows::NONE;
        for row in asked {
            if at(row).is_some_and(|flow| !flow.life().has(Life::PLAIN)) {
                translated.insert(row);
            }
        }
        // The sum means nothing, but has to be made, so the rows have to be read.
        let far = |row| at(row).map_or(0, Row::far);
        std::hint::black_box(translated.into_iter().map(far).fold(0, u64::wrapping_add));
    }

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
        probes: &[Probe; Rows::MOST],
        asked: Rows,
        time: &FlowTime<'_>,
        found: &mut [Glimpse; Rows::MOST],
    ) -> Glanced {
        let Table { rows, index, .. } = &*self.0;
        let (mut plain, mut translated) = (Rows::NONE, Rows::NONE);
        let (mut stirring, mut nothing) = (Rows::NONE, Rows::NONE);
        let mut keep = |row: usize, (link, life, verdict): (Link, Life, u64)| {
            found[row] = Glimpse { life, verdict, link };
            if !life.has(Life::PLAIN) {
                translated.insert(row);
                return;
            }
            plain.insert(row);
            if !timeouts::is_steady(life, direction(link), probes[row].steady) || !time.is_recent(life) {
                stirring.insert(row);
            }
        };
        self.bring_near(probes, asked);
        let mut others = Rows::NONE;
        for row in asked {
            match index.first(rows, probes[row].bucket as usize, &probes[row].words, Row::verdict_word) {
                Some(seen) => keep(row, seen),
                None => others.insert(row),
            }
        }
        // Further down their chains, or of no flow.
        for row in others {
            let read = |_, _, row: &Row| row.verdict_word();
            match index.find_and_read(rows, probes[row].bucket as usize, &probes[row].words, read) {
                Some(seen) => keep(row, seen),
                None => nothing.insert(row),
            }
        }
        let over: Rows = stirring.into_iter().filter(|row| time.may_be_over(found[*row].life)).collect();
        Glanced { plain: plain.without(over), translated, stirring: stirring.without(over), nothing }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{FlowTimeouts, Ticks};
    use model::Family;
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
            let mut probes = [Probe::NONE; Rows::MOST];
            for (probe, (key, tcp_flags)) in probes.iter_mut().zip(&asked) {
                *probe = flows.probe(key, *tcp_flags);
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
            let glanced = flows.glance(&[flows.probe(key, 0); Rows::MOST], Rows(1), &time, &mut found);
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

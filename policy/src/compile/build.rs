//! Making programs of checks, and keeping them true as classes come.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ahash::RandomState;

use super::address_rows::{AddressRows, Making};
use super::addresses::Addresses;
use super::arrange::Arrangement;
use super::atoms::AtomId;
use super::blocks::Blocks;
use super::by_address::NarrowRules;
use super::classes::ClassId;
use super::conditions::{Part, groups};
use super::narrow::Narrow;
use super::port_rows::{PortRows, ROWS_END};
use super::program::{End, Program, named};
use super::rows::{PLAIN_MAX, Words};
use crate::judge::Step;
use crate::rule::Checks;

/// What the next program is numbered, in whatever compiler. 0 is none's.
static SERIAL: AtomicU64 = AtomicU64::new(1);

/// New classes by the atoms that they list.
pub(super) type Fresh = HashMap<AtomId, Vec<ClassId>, RandomState>;

/// What the writer remembers of a program besides what readers see.
pub(super) struct Built {
    pub(super) program: Arc<Program>,
    source: Option<AddressRows>,
    destination: Option<AddressRows>,
}

impl Built {
    /// Compiles; `None` where it would take more than can be numbered.
    pub(super) fn new(checks: &Checks, steps: &[Step], addresses: &Addresses) -> Option<Built> {
        let mut groups = groups(checks, steps, addresses)?;
        let narrow = Narrow::of(&mut groups, addresses);
        let has_narrow = !narrow.is_empty();
        let Narrow { ends: [from, to], pairs, grid, names } = narrow;
        let arrangement = Arrangement::new(groups, &addresses.atoms);
        let width = arrangement.words();
        let mut making = Making { words: Words::of_any(width), ..Making::default() };
        if has_narrow {
            making.blocks = Blocks::of_none();
        }
        let parts = arrangement.bits().map(|(bit, part)| (bit, &part.upper, &part.source_port));
        let ports = PortRows::new(parts, width, &mut making.words);
        let sources = arrangement.bits().map(|(bit, part)| (bit, &part.source));
        let mut source = AddressRows::new(sources, from, has_narrow, width, &mut making);
        let destinations = arrangement.bits().map(|(bit, part)| (bit, &part.destination));
        let mut destination = AddressRows::new(destinations, to, has_narrow, width, &mut making);
        let mut end = |rows: &mut Option<AddressRows>| -> Option<Option<End>> {
            let Some(rows) = rows else { return Some(None) };
            let map = rows.lead_all(&addresses.classes, &mut making)?;
            Some(Some(End { map, base: rows.base_at(), asks_bits: rows.asks_bits }))
        };
        let (from, to) = (end(&mut source)?, end(&mut destination)?);
        let name = |part: &Option<Part>| part.as_ref().map_or(u32::MAX, |part| named(part.step, part.action));
        let program = Program {
            serial: SERIAL.fetch_add(1, Ordering::Relaxed),
            named: arrangement.parts.iter().map(name).collect(),
            words: making.words.new.into(),
            lists: width > PLAIN_MAX
                && [&source, &destination].into_iter().flatten().any(|rows| rows.asks_bits),
            narrow: has_narrow
                .then(|| NarrowRules::new(names, making.blocks.fitted(), pairs, grid, &arrangement.stages)),
            stages: arrangement.stages.into(),
            asks_source_port: ports.asks_source,
            ports: ports.tables,
            source: from,
            destination: to,
        };
        (program.words.len() < ROWS_END).then(|| Built { program: Arc::new(program), source, destination })
    }

    /// Leads new classes to their rows. Readers see it in the next publication: nothing leads to those classes yet. `None`
    /// where the program has to be made anew.
    pub(super) fn take_up(&mut self, fresh: &[ClassId], by_atom: &Fresh) -> Option<()> {
        if self.is_worn() {
            return None;
        }
        let mut making = Making {
            words: Words::behind(self.program.words.len()),
            blocks_before: self.program.narrow.as_ref().map_or(0, |narrow| narrow.blocks.len()),
            blocks: Blocks::default(),
        };
        let mut lead = |rows: &mut Option<AddressRows>, end: &Option<End>| -> Option<Option<End>> {
            let Some((rows, end)) = rows.as_mut().zip(end.as_ref()) else { return Some(None) };
            let longer = rows.lead_fresh(fresh, by_atom, &end.map, &mut making)?;
            Some(longer.map(|map| End { map, ..*end }))
        };
        let source = lead(&mut self.source, &self.program.source)?;
        let destination = lead(&mut self.destination, &self.program.destination)?;
        let has_more = !making.words.new.is_empty() || !making.blocks.is_empty();
        if source.is_none() && destination.is_none() && !has_more {
            return Some(());
        }
        let program = Arc::make_mut(&mut self.program);
        program.source = source.or(program.source.take());
        program.destination = destination.or(program.destination.take());
        program.words = [&*program.words, &making.words.new].concat().into();
        if let Some(narrow) = &mut program.narrow {
            narrow.blocks.append(&making.blocks);
        }
        Some(())
    }

    /// Is it to be made anew, or would it grow without end?
    fn is_worn(&self) -> bool {
        let rows = [&self.source, &self.destination];
        rows.into_iter().flatten().any(AddressRows::is_worn) || self.program.words.len() >= ROWS_END
    }

    /// Bytes that it takes, the writer's included.
    pub(super) fn bytes(&self) -> usize {
        let rows = [&self.source, &self.destination];
        self.program.bytes() + rows.into_iter().flatten().map(AddressRows::bytes).sum::<usize>()
    }
}

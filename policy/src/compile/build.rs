//! Making programs of checks, and keeping them true as classes come.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ahash::RandomState;

use super::address_rows::{AddressRows, ClassRows};
use super::addresses::Addresses;
use super::arrange::Arrangement;
use super::asks::Asks;
use super::atoms::AtomId;
use super::classes::ClassId;
use super::conditions::groups;
use super::port_rows::{PortRows, ROWS_END};
use super::program::{Program, named};
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
        let arrangement = Arrangement::new(groups(checks, steps, addresses)?, &addresses.atoms);
        let width = arrangement.words();
        let mut words = Words::default();
        let parts = arrangement.bits().map(|(bit, part)| (bit, &part.upper, &part.source_port));
        let ports = PortRows::new(parts, width, &mut words);
        let sources = arrangement.bits().map(|(bit, part)| (bit, &part.source));
        let mut source = AddressRows::new(sources, width, &mut words);
        let destinations = arrangement.bits().map(|(bit, part)| (bit, &part.destination));
        let mut destination = AddressRows::new(destinations, width, &mut words);
        let mut lead = |rows: &mut Option<AddressRows>| {
            rows.as_mut().map(|rows| rows.lead_all(&addresses.classes, &mut words))
        };
        let (source_map, destination_map) = (lead(&mut source), lead(&mut destination));
        let base = |rows: &Option<AddressRows>| rows.as_ref().map_or(0, AddressRows::base_at);
        let name = |part: &Option<super::conditions::Part>| {
            part.as_ref().map_or(u32::MAX, |part| named(part.step, part.action))
        };
        let lists = width > PLAIN_MAX;
        let program = Program {
            serial: SERIAL.fetch_add(1, Ordering::Relaxed),
            named: arrangement.parts.iter().map(name).collect(),
            stages: arrangement.stages.into(),
            words: words.new.into(),
            lists,
            asks: if lists { Asks::new(&arrangement.parts) } else { Asks::default() },
            bases: [base(&source), base(&destination)],
            asks_source_port: ports.asks_source,
            ports: ports.tables,
            source: source_map,
            destination: destination_map,
        };
        (program.words.len() < ROWS_END).then(|| Built { program: Arc::new(program), source, destination })
    }

    /// Leads new classes to their rows. Readers see it in the next publication: nothing leads to those classes yet.
    pub(super) fn take_up(&mut self, fresh: &[ClassId], by_atom: &Fresh) {
        let mut words = Words::behind(self.program.words.len());
        let mut lead = |rows: &mut Option<AddressRows>, map: &Option<ClassRows>| {
            rows.as_mut()
                .zip(map.as_ref())
                .map(|(rows, map)| rows.lead_fresh(fresh, by_atom, map, &mut words))
        };
        let source = lead(&mut self.source, &self.program.source).flatten();
        let destination = lead(&mut self.destination, &self.program.destination).flatten();
        if source.is_none() && destination.is_none() && words.new.is_empty() {
            return;
        }
        let program = Arc::make_mut(&mut self.program);
        program.source = source.or(program.source.take());
        program.destination = destination.or(program.destination.take());
        program.words = [&*program.words, &words.new].concat().into();
    }

    /// Is it to be made anew, or would it grow without end?
    pub(super) fn is_worn(&self) -> bool {
        let rows = [&self.source, &self.destination];
        rows.into_iter().flatten().any(AddressRows::is_worn) || self.program.words.len() >= ROWS_END
    }

    /// Bytes that it takes, the writer's included.
    pub(super) fn bytes(&self) -> usize {
        let rows = [&self.source, &self.destination];
        self.program.bytes() + rows.into_iter().flatten().map(AddressRows::bytes).sum::<usize>()
    }
}

//! The writer: what is staged, and how it becomes a publication.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use ahash::RandomState;

use super::addresses::{Addresses, Classified};
use super::build::{Built, Fresh};
use super::compiled::Compiled;
use super::conditions::{rules, steps};
use super::processor::Avx512;
use super::program::Program;
use super::{Full, Limits, ProgramId, RuleId, Usage};
use crate::judge::Step;
use crate::rule::{Checks, SetId};
use crate::sets::Member;

/// One program of the writer's.
struct Entry {
    checks: Arc<Checks>,
    steps: Box<[Step]>,
    uses: usize,
    /// Sets whose ports its rules name.
    named_ports: Box<[SetId]>,
    /// `None` until the next publication, and where it found no room.
    built: Option<Built>,
}

/// The writer's side.
pub struct Compiler {
    limits: Limits,
    addresses: Addresses,
    programs: Vec<Option<Entry>>,
    /// Numbers of programs that are gone, those first that have been so for longest.
    free: VecDeque<u16>,
    by_checks: HashMap<Arc<Checks>, ProgramId, RandomState>,
    /// By where the checks lie: to find those given again without reading them.
    by_place: HashMap<usize, ProgramId, RandomState>,
    /// Steps of all programs.
    rules: usize,
    /// Bytes of all programs, as of the last publication.
    bytes: usize,
}

impl Compiler {
    /// Without sets and programs.
    pub fn new(limits: Limits) -> Compiler {
        Compiler {
            limits,
            addresses: Addresses::new(limits.members),
            programs: Vec::new(),
            free: VecDeque::new(),
            by_checks: HashMap::default(),
            by_place: HashMap::default(),
            rules: 0,
            bytes: 0,
        }
    }

    /// Stages a whole set: what it had before is forgotten.
    ///
    /// # Errors
    /// [`Full::Members`], and nothing is changed.
    pub fn put_set(&mut self, id: SetId, members: impl IntoIterator<Item = Member>) -> Result<(), Full> {
        let room = self.addresses.put_set(id, members.into_iter().collect());
        if room { Ok(()) } else { Err(Full::Members { limit: self.limits.members }) }
    }

    /// Stages a change of a set: first `removed`, then `added`. What is added twice is in it once. A set that isn't known
    /// begins empty.
    ///
    /// # Errors
    /// [`Full::Members`], and nothing is changed.
    pub fn update_set(&mut self, id: SetId, removed: &[Member], added: &[Member]) -> Result<(), Full> {
        let room = self.addresses.update_set(id, removed, added);
        if room { Ok(()) } else { Err(Full::Members { limit: self.limits.members }) }
    }

    /// Stages the removal of a set. For rules that still name it, it is empty.
    pub fn remove_set(&mut self, id: SetId) {
        self.addresses.remove_set(id);
    }

    /// Stages a use of a program for these checks; [`Self::release`] ends it. Sets that the checks name may come later, in
    /// the same publication.
    ///
    /// # Errors
    /// [`Full`], and nothing is changed.
    pub fn program(&mut self, checks: &Arc<Checks>) -> Result<ProgramId, Full> {
        let known = self.by_place.get(&place(checks)).or_else(|| self.by_checks.get(checks)).copied();
        if let Some((id, entry)) = known.and_then(|id| Some((id, self.entry(id)?))) {
            entry.uses += 1;
            return Ok(id);
        }
        let steps = steps(checks);
        if self.rules + steps.len() > self.limits.rules || steps.len() > RuleId::STEPS_MAX {
            return Err(Full::Rules { limit: self.limits.rules });
        }
        let free = self.free.front().copied().unwrap_or(self.programs.len() as u16);
        if self.by_checks.len() >= self.limits.programs.min(Limits::PROGRAMS_MAX) {
            return Err(Full::Programs { limit: self.limits.programs });
        }
        self.name(checks)?;
        self.free.pop_front();
        self.rules += steps.len();
        let id = ProgramId(free);
        let ends = rules(checks).flat_map(|rule| [&rule.source, &rule.destination]);
        let named_ports = ends.flat_map(|end| end.named_ports.iter().chain(&end.not_named_ports)).copied();
        let entry = Entry {
            checks: Arc::clone(checks),
            steps: steps.into(),
            uses: 1,
            named_ports: named_ports.collect(),
            built: None,
        };
        self.by_checks.insert(Arc::clone(checks), id);
        self.by_place.insert(place(checks), id);
        let slot = usize::from(free);
        if slot == self.programs.len() {
            self.programs.push(None);
        }
        self.programs[slot] = Some(entry);
        Ok(id)
    }

    /// Stages the end of a use. A program without uses is gone with the next publication.
    pub fn release(&mut self, id: ProgramId) {
        let Some(entry) = self.entry(id) else { return };
        entry.uses -= 1;
        if entry.uses > 0 {
            return;
        }
        if let Some(entry) = self.programs[usize::from(id.0)].take() {
            self.rules -= entry.steps.len();
            self.by_checks.remove(&entry.checks);
            self.by_place.remove(&place(&entry.checks));
            self.free.push_back(id.0);
            self.forget(&entry.checks);
        }
    }

    /// What a program asks: the same number for the same rules of sets with the same members, whatever the sets' own numbers.
    pub fn meaning(&self, id: ProgramId) -> u64 {
        // Their keys are fixed.
        let hash = |value: &dyn std::fmt::Debug| {
            let mut hasher = DefaultHasher::new();
            format!("{value:?}").hash(&mut hasher);
            hasher.finish()
        };
        let entry = self.programs.get(usize::from(id.0)).and_then(Option::as_ref);
        let Some(Entry { checks, .. }) = entry else { return 0 };
        let members: BTreeMap<SetId, u64> =
            checks.sets().map(|set| (set, hash(&self.addresses.members(set)))).collect();
        // Numbered in the order in which rules name them; which set that is, its members say.
        let mut numbers = BTreeMap::new();
        let renamed = checks.renamed(&mut |set| {
            let next = SetId(numbers.len() as u32);
            let meaning = members.get(&set).copied().unwrap_or_default();
            numbers.entry(meaning).or_insert((next, meaning)).0
        });
        let mut sets: Vec<_> = numbers.into_values().collect();
        sets.sort_unstable();
        hash(&(renamed, sets))
    }

    /// What a rule's number stands for: the checks it is in, and where.
    pub fn step(&self, rule: RuleId) -> Option<(&Arc<Checks>, Step)> {
        let entry = self.programs.get(usize::from(rule.program().0))?.as_ref()?;
        Some((&entry.checks, *entry.steps.get(rule.step())?))
    }

    /// All that is staged, to be judged by.
    ///
    /// Call it when no reader holds what was published before the last publication: its memory is used again.
    pub fn publish(&mut self) -> Compiled {
        self.settle();
        let Classified { fresh, ports_changed } = self.addresses.classify();
        let mut by_atom = Fresh::default();
        for class in &fresh {
            for atom in self.addresses.classes.atoms(*class) {
                by_atom.entry(*atom).or_default().push(*class);
            }
        }
        self.bytes = 0;
        for entry in self.programs.iter_mut().flatten() {
            let renamed = entry.named_ports.iter().any(|set| ports_changed.contains(set));
            let kept =
                entry.built.as_mut().filter(|_| !renamed).and_then(|built| built.take_up(&fresh, &by_atom));
            if kept.is_none() {
                entry.built = Built::new(&entry.checks, &entry.steps, &self.addresses);
            }
            self.bytes += entry.built.as_ref().map_or(0, Built::bytes);
            if self.bytes > self.limits.bytes {
                // Fail closed: a program that isn't there denies.
                self.bytes -= entry.built.take().map_or(0, |built| built.bytes());
            }
        }
        let programs = self.programs.iter().map(|entry| {
            let built = entry.as_ref()?.built.as_ref()?;
            Some(Arc::clone(&built.program))
        });
        let programs: Arc<[Option<Arc<Program>>]> = programs.collect();
        let asks_for_addresses = programs.iter().flatten().any(|program| program.asks_for_addresses());
        Compiled {
            programs,
            addresses: self.addresses.lookup(),
            asks_for_addresses,
            avx512: Avx512::detect(),
        }
    }

    /// Does now what the next publication would have to do first. Call it when no reader holds what was published before
    /// the last publication.
    pub fn settle(&mut self) {
        self.addresses.settle();
    }

    /// What is in use.
    pub fn usage(&self) -> Usage {
        let entries = || self.programs.iter().flatten();
        Usage {
            programs: entries().count(),
            denying: entries().filter(|entry| entry.built.is_none()).count(),
            by_address: entries()
                .filter_map(|entry| entry.built.as_ref())
                .filter(|built| built.program.narrow.is_some())
                .count(),
            rules: self.rules,
            members: self.addresses.len(),
            classes: self.addresses.classes.len(),
            unknown: self.addresses.classes.unknown(),
            bytes: self.bytes,
        }
    }

    fn entry(&mut self, id: ProgramId) -> Option<&mut Entry> {
        self.programs.get_mut(usize::from(id.0))?.as_mut()
    }

    /// Takes up what the checks name.
    fn name(&mut self, checks: &Checks) -> Result<(), Full> {
        let mut new: Vec<_> = nets(checks).filter(|net| !self.addresses.knows_net(*net)).collect();
        new.sort_unstable();
        new.dedup();
        if !self.addresses.has_room(new.len()) {
            return Err(Full::Members { limit: self.limits.members });
        }
        nets(checks).for_each(|net| self.addresses.name_net(net));
        sets(checks).for_each(|set| self.addresses.name_set(set));
        Ok(())
    }

    fn forget(&mut self, checks: &Checks) {
        nets(checks).for_each(|net| self.addresses.forget_net(net));
        sets(checks).for_each(|set| self.addresses.forget_set(set));
    }
}

fn place(checks: &Arc<Checks>) -> usize {
    Arc::as_ptr(checks).addr()
}

fn nets(checks: &Checks) -> impl Iterator<Item = model::Prefix> {
    let ends = rules(checks).flat_map(|rule| [&rule.source, &rule.destination]);
    ends.flat_map(|end| end.nets.iter().chain(&end.not_nets)).copied()
}

fn sets(checks: &Checks) -> impl Iterator<Item = SetId> {
    let ends = rules(checks).flat_map(|rule| [&rule.source, &rule.destination]);
    ends.flat_map(|end| end.sets.iter().chain(&end.not_sets)).copied()
}

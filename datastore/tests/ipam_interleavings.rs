//! Two writers, one of which is stopped at each of its steps in turn while the other goes on for so many of its own, and
//! then goes on too or is dead: whatever comes in between, no address is had twice, and in the end nothing is left.
//!
//! These are all interleavings with at most two switches, which is where mistakes of such protocols show.

mod ipam_site;
mod way;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Condvar, Mutex, PoisonError};
use std::thread;

use datastore::ipam::{Assign, Ipam, IpamError};
use datastore::{Key, StoreError};

use ipam_site::{FULL, Site};
use way::{Gate, Way, died};

/// Who may take a step.
#[derive(Debug)]
struct Turns {
    /// Who goes on, and for how many steps.
    left: Vec<(usize, usize)>,
    ended: [bool; 2],
    steps: [usize; 2],
}

struct Stage {
    turns: Mutex<Turns>,
    changed: Condvar,
}

impl Stage {
    fn new(schedule: Vec<(usize, usize)>) -> Stage {
        let turns = Turns { left: schedule, ended: [false; 2], steps: [0; 2] };
        Stage { turns: Mutex::new(turns), changed: Condvar::new() }
    }

    /// Waits for the writer's next step.
    fn step(&self, writer: usize) {
        let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            match turns.left.first().copied() {
                // Whoever is left goes on by itself.
                None => break,
                Some((who, steps)) if steps == 0 || turns.ended[who] => {
                    turns.left.remove(0);
                }
                Some((who, steps)) if who == writer => {
                    turns.left[0].1 = steps - 1;
                    break;
                }
                Some(_) => {
                    self.changed.notify_all();
                    turns = self.changed.wait(turns).unwrap_or_else(PoisonError::into_inner);
                }
            }
        }
        turns.steps[writer] += 1;
        self.changed.notify_all();
    }

    fn end(&self, writer: usize) {
        self.turns.lock().unwrap_or_else(PoisonError::into_inner).ended[writer] = true;
        self.changed.notify_all();
    }

    fn steps(&self, writer: usize) -> usize {
        self.turns.lock().unwrap_or_else(PoisonError::into_inner).steps[writer]
    }
}

/// A writer, each of whose requests is a step.
struct Staged<'a> {
    stage: &'a Stage,
    writer: usize,
    /// It takes no more steps than this.
    dies_after: Option<usize>,
}

impl Gate for Staged<'_> {
    fn read<T>(&self, read: impl FnOnce() -> Result<T, StoreError>) -> Result<T, StoreError> {
        if self.dies_after.is_some_and(|last| self.stage.steps(self.writer) >= last) {
            return Err(died());
        }
        self.stage.step(self.writer);
        read()
    }

    fn write<T>(&self, _: &Key, write: impl FnOnce() -> Result<T, StoreError>) -> Result<T, StoreError> {
        self.read(write)
    }
}

/// What a writer does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Act {
    Take(usize),
    TakeTheThird,
    GiveBack,
    GiveUp { empty: bool },
}

const ACTS: [Act; 6] = [
    Act::Take(1),
    Act::Take(5),
    Act::TakeTheThird,
    Act::GiveBack,
    Act::GiveUp { empty: false },
    Act::GiveUp { empty: true },
];

/// A writer: of which node, for which handle.
type Who = (&'static str, &'static str);

impl Act {
    /// The addresses that it got.
    fn run(self, site: &Site, ipam: &Ipam<'_>, (node, handle): Who) -> Result<Vec<IpAddr>, IpamError> {
        match self {
            Act::Take(count) => site.assign(ipam, node, handle, count),
            Act::TakeTheThird => {
                let addr = "10.0.0.2".parse().expect("an address");
                let assign = Assign { addr, node, handle: Some(handle), owner: BTreeMap::new(), usage: None };
                ipam.assign(&assign).map(|()| vec![addr])
            }
            Act::GiveBack => ipam.release_by_handle(handle).map(|()| Vec::new()),
            Act::GiveUp { empty } => ipam.release_host_affinities(node, empty).map(|()| Vec::new()),
        }
    }
}

/// What there is before.
#[derive(Clone, Copy, Debug)]
enum Before {
    Nothing,
    /// Both have some.
    Some,
    /// An empty block of the first node's, old enough to be taken from it.
    Stranded,
}

fn site(before: Before) -> Site {
    let site = Site::new();
    match before {
        Before::Nothing => {}
        Before::Some => {
            site.assign(&site.ipam(), "node1", "one", 2).expect("there is room");
            site.assign(&site.ipam(), "node2", "two", 2).expect("there is room");
        }
        Before::Stranded => {
            site.assign(&site.ipam(), "node1", "before", FULL).expect("there is room");
            site.release("before");
            site.wait(120);
        }
    }
    site
}

/// Both writers by this schedule; gives how many steps each took, and what it got, where it lived to hear of it.
fn play(
    site: &Site,
    acts: [Act; 2],
    who: [Who; 2],
    schedule: Vec<(usize, usize)>,
    dies_after: Option<usize>,
) -> [(usize, Result<Vec<IpAddr>, IpamError>); 2] {
    let stage = Stage::new(schedule);
    let stage = &stage;
    let play = |writer: usize| {
        let dies_after = dies_after.filter(|_| writer == 0);
        let staged = Way { store: &site.store, gate: Staged { stage, writer, dies_after } };
        let outcome = acts[writer].run(site, &site.by(&staged), who[writer]);
        stage.end(writer);
        (stage.steps(writer), outcome)
    };
    thread::scope(|scope| {
        let first = scope.spawn(move || play(0));
        let second = play(1);
        [first.join().expect("a writer doesn't panic"), second]
    })
}

const ON: usize = usize::MAX;

fn check(before: Before, who: [Who; 2]) -> usize {
    let mut plays = 0;
    for acts in ACTS.iter().flat_map(|one| ACTS.map(|two| [*one, two])) {
        let alone = |schedule| play(&site(before), acts, who, schedule, None);
        let most = [alone(vec![(0, ON)])[0].0, alone(vec![(1, ON)])[1].0];
        for (first, second) in (0..most[0]).flat_map(|first| (1..=most[1]).map(move |second| (first, second)))
        {
            let schedule = vec![(0, first), (1, second), (0, ON)];
            // The last step of the first writer may be its last one of all.
            for dies_after in if second == most[1] { vec![None, Some(first)] } else { vec![None] } {
                let what =
                    format!("{before:?}, {acts:?} by {who:?}, {schedule:?}, dies after {dies_after:?}");
                let site = site(before);
                let outcomes = play(&site, acts, who, schedule.clone(), dies_after);
                holds(&site, &outcomes, who, &what);
                plays += 1;
            }
        }
    }
    plays
}

fn holds(site: &Site, outcomes: &[(usize, Result<Vec<IpAddr>, IpamError>); 2], who: [Who; 2], what: &str) {
    site.is_sound(what);
    let assigned = site.assigned();
    for ((_, outcome), (_, handle)) in outcomes.iter().zip(who) {
        for addr in outcome.iter().flatten() {
            // Whoever else gives back by the same handle gives this back, too.
            let holder = assigned.get(addr).map(String::as_str);
            assert_eq!(holder, Some(handle), "{what}: {addr} was handed out");
        }
        if let Err(error) = outcome {
            let is_expected = error.is_not_found()
                || matches!(
                    error,
                    IpamError::AlreadyAssigned(_) | IpamError::Store(StoreError::Unavailable(_))
                );
            assert!(is_expected, "{what}: {error}");
        }
    }
    site.wait(120);
    let got = site.assign(&site.ipam(), "node2", "rest", FULL).expect("what is left is there for others");
    assert_eq!(got.len(), FULL - assigned.len(), "{what}: the rest, beside {assigned:?}");
    site.ends_well(what);
}

const OTHERS: [Who; 2] = [("node1", "one"), ("node2", "two")];
/// Two processes of one node.
const SAME: [Who; 2] = [("node1", "one"), ("node1", "two")];

#[test]
fn two_nodes_at_an_empty_pool() {
    println!("interleavings: {}", check(Before::Nothing, OTHERS));
}

#[test]
fn two_processes_of_a_node_at_an_empty_pool() {
    println!("interleavings: {}", check(Before::Nothing, SAME));
}

#[test]
fn two_nodes_that_have_blocks() {
    println!("interleavings: {}", check(Before::Some, OTHERS));
}

#[test]
fn two_processes_of_a_node_that_has_a_block() {
    println!("interleavings: {}", check(Before::Some, SAME));
}

#[test]
fn two_nodes_where_one_has_left_blocks_empty() {
    println!("interleavings: {}", check(Before::Stranded, OTHERS));
}

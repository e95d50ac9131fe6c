//! Thousands of speakers in virtual time: do they agree, without loops, and what does it cost?
//!
//! The speakers are the router's own (`bgp`), with forwarding tables that hold what they told. What is simulated is the world
//! around them: links with a delay, processes that die, time.

mod judge;
mod network;
mod topology;

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use crate::process::Identity;
use crate::table::Table;
use judge::{Judge, Seen, Way};
use network::Passed;
pub use topology::Shape;
use topology::Topology;

/// Time that a network gets to settle in, in virtual seconds: two attempts to connect and an exchange of routes.
const SETTLE: Duration = Duration::from_secs(60);
/// From a process's death to its next start.
const AWAY: Duration = Duration::from_secs(5);
/// How often packets are sent while something happens.
const STEP: Duration = Duration::from_millis(20);
/// Packets each time.
const PACKETS: usize = 50;
/// Packets once all has settled.
const ALL_PACKETS: usize = 20_000;
/// One in so many workers is restarted at once.
const RESTARTED: usize = 3;
/// One in so many links with a way round is cut at once.
const CUT: usize = 20;
/// How long packets may be lost after links are cut, in virtual time: until both ends have noticed and told the others.
const WINDOW: Duration = Duration::from_millis(100);

/// What happened in one part of a simulation.
#[derive(Clone, Debug)]
pub struct Phase {
    /// What was done.
    pub name: &'static str,
    /// From the beginning of the part to the last change of a forwarding table, in virtual time.
    pub converged: Duration,
    /// From the beginning to the last packet lost; nothing where none was.
    pub trouble: Option<Duration>,
    /// Packets that came by a node again.
    pub looped: u64,
    /// Packets lost.
    pub lost: u64,
    /// Packets followed.
    pub walked: u64,
    /// BGP messages, their octets, and changes of tables.
    pub passed: Passed,
    /// Of this machine.
    pub took: Duration,
}

/// What came of a simulation.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Part by part.
    pub phases: Vec<Phase>,
    /// Routers.
    pub nodes: usize,
    /// Pairs of them with a session.
    pub sessions: usize,
    /// Routes in a worker's table in the end.
    pub routes: usize,
    /// What the process grew by, in bytes.
    pub grown: u64,
}

/// Lets `nodes` workers find each other, restarts a third of them, and cuts links where there is a way round.
///
/// # Errors
/// A packet that loops, one that is lost longer than it may be, a table that isn't what it must be.
pub fn run(shape: Shape, nodes: usize, seed: u64, mut tell: impl FnMut(&str)) -> Result<Outcome> {
    let before = Identity::own()?.resident_bytes()?;
    let topology = Topology::new(shape, nodes, seed);
    let mut simulation = Simulation {
        judge: Judge::new(topology::destinations(&topology), seed),
        topology,
        phases: Vec::new(),
    };
    tell("starting all");
    simulation.phase("start all", SETTLE, None, |topology| topology.start())?;
    simulation.tables_are_whole()?;

    let restarted = topology::some(&simulation.topology.workers, RESTARTED, seed);
    tell(&format!("restarting {} of {nodes}", restarted.len()));
    simulation.phase("kill a third", AWAY, Some(Duration::ZERO), |topology| {
        restarted.iter().for_each(|&node| topology.network.kill(node));
    })?;
    simulation.phase("start them again", SETTLE, Some(Duration::ZERO), |topology| {
        restarted.iter().for_each(|&node| topology.restart(node));
    })?;
    simulation.tables_are_whole()?;

    let cut = topology::some(&simulation.topology.spare_links, CUT, seed);
    if !cut.is_empty() {
        tell(&format!("cutting {} links", cut.len()));
        simulation.phase("cut links", SETTLE / 4, Some(WINDOW), |topology| {
            cut.iter().for_each(|&(one, other)| topology.network.set_link(one, other, false));
        })?;
        simulation.phase("mend them", SETTLE, Some(WINDOW), |topology| {
            cut.iter().for_each(|&(one, other)| topology.network.set_link(one, other, true));
        })?;
        simulation.tables_are_whole()?;
    }
    let grown = Identity::own()?.resident_bytes()?.saturating_sub(before);
    let Simulation { topology, phases, .. } = simulation;
    Ok(Outcome {
        phases,
        nodes: topology.network.nodes.len(),
        sessions: topology.sessions(),
        routes: topology.routes,
        grown,
    })
}

struct Simulation {
    topology: Topology,
    judge: Judge,
    phases: Vec<Phase>,
}

impl Simulation {
    /// Does something and lets time pass; packets may be lost for `window`, where there is one.
    fn phase(
        &mut self,
        name: &'static str,
        time: Duration,
        window: Option<Duration>,
        act: impl FnOnce(&mut Topology),
    ) -> Result<()> {
        let took = Instant::now();
        let network = &self.topology.network;
        let (begin, before) = (network.elapsed(), network.passed);
        act(&mut self.topology);
        let (mut seen, mut changes, mut converged) = (Seen::default(), before.changes, begin);
        let judge = &mut self.judge;
        self.topology.network.run(begin + time, STEP, |network| {
            if network.passed.changes != changes {
                (changes, converged) = (network.passed.changes, network.elapsed());
            }
            // Before they have found each other, nothing is known to be lost; a loop is one at any time.
            judge.look(network, PACKETS, &mut seen);
        });
        let after = self.topology.network.passed;
        let phase = Phase {
            name,
            converged: converged - begin,
            trouble: seen.last_trouble.map(|last| last - begin),
            looped: seen.looped,
            lost: seen.lost,
            walked: seen.walked,
            passed: Passed {
                messages: after.messages - before.messages,
                octets: after.octets - before.octets,
                changes: after.changes - before.changes,
            },
            took: took.elapsed(),
        };
        ensure!(phase.looped == 0, "{name}: {} of {} packets looped", phase.looped, phase.walked);
        if let (Some(window), Some(trouble)) = (window, phase.trouble) {
            ensure!(
                trouble <= window,
                "{name}: packets were lost for {trouble:?}, {} of {}; at most {window:?} is expected",
                phase.lost,
                phase.walked
            );
        }
        self.phases.push(phase);
        Ok(())
    }

    /// Every worker reaches every other, and holds as many routes as it should; an unknown destination goes nowhere.
    fn tables_are_whole(&mut self) -> Result<()> {
        let network = &self.topology.network;
        for &worker in &self.topology.workers {
            let node = &network.nodes[worker];
            let (has, wants) = (node.fib.len(), self.topology.routes);
            ensure!(has == wants, "{} holds {has} routes instead of {wants}", node.name);
        }
        let mut seen = Seen::default();
        self.judge.look(network, ALL_PACKETS, &mut seen);
        ensure!(
            seen.lost + seen.looped == 0,
            "of {} packets, {} were lost and {} looped",
            seen.walked,
            seen.lost,
            seen.looped
        );
        let unknown = "203.0.113.1".parse()?;
        let way = judge::walk(network, self.topology.workers[0], unknown, 1);
        ensure!(matches!(way, Way::Lost(_)), "a packet to nowhere: {way:?}");
        Ok(())
    }
}

impl Outcome {
    /// The outcome as a table for people.
    pub fn render(&self) -> String {
        let mut table = Table::new(&[
            "PART",
            "CONVERGED AFTER",
            "LOST FOR",
            "LOST",
            "LOOPED",
            "OF PACKETS",
            "MESSAGES",
            "OCTETS",
            "TABLE CHANGES",
            "TOOK",
        ]);
        for phase in &self.phases {
            let seconds = |time: Duration| format!("{:.2} s", time.as_secs_f64());
            table.row([
                phase.name.to_owned(),
                seconds(phase.converged),
                phase.trouble.map_or_else(|| "-".to_owned(), seconds),
                phase.lost.to_string(),
                phase.looped.to_string(),
                phase.walked.to_string(),
                phase.passed.messages.to_string(),
                phase.passed.octets.to_string(),
                phase.passed.changes.to_string(),
                seconds(phase.took),
            ]);
        }
        format!(
            "{}{} routers, {} sessions, {} routes in each worker's table, {:.0} MB\n",
            table.render(),
            self.nodes,
            self.sessions,
            self.routes,
            self.grown as f64 / 1e6
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holds(shape: Shape, nodes: usize) -> Outcome {
        run(shape, nodes, 1, |_| {}).unwrap_or_else(|error| panic!("{shape:?}: {error:#}"))
    }

    #[test]
    fn a_mesh_finds_itself_and_outlives_the_restart_of_a_third() {
        assert_eq!(holds(Shape::Mesh, 20).sessions, 190);
    }

    #[test]
    fn nodes_behind_reflectors_find_each_other() {
        assert_eq!(holds(Shape::Reflectors, 30).sessions, 4 * 30 + 6);
    }

    #[test]
    fn racks_need_one_route_a_node_and_get_round_cut_links() {
        assert_eq!(holds(Shape::Racks, 100).routes, 1);
    }

    #[test]
    fn the_same_seed_gives_the_same_history() {
        let history = |seed| {
            let outcome = run(Shape::Reflectors, 12, seed, |_| {}).expect("it holds");
            outcome.phases.iter().map(|phase| (phase.passed, phase.converged)).collect::<Vec<_>>()
        };
        assert_eq!(history(1), history(1));
        assert_ne!(history(1), history(2));
    }
}

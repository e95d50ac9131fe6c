//! The interop matrix: our BGP room before the daemons of others, route by route.
//!
//! # What it is for
//!
//! A protocol is what others make of it. Each daemon runs in a namespace of its own, from a small Debian of its own
//! (`roots.rs`), so that the machine's packages and services stay as they are; ours is in the namespace beside it: the
//! BGP room alone (`interop-speaker`), each of whose features can be asked for, or the whole router (`router.rs`).
//! Several *sessions* are held with each (`session.rs`). What each shows is a column of the table that [`run`] prints.
//!
//! # What it promises
//!
//! A cell says yes only where what was sent is there on the other side, and nothing of it is missing; with MD5 and GTSM
//! our kernel drops what isn't signed or has come too far, and with BFD silence has ended the session. What a daemon can't
//! do says `-`, with the reason in `daemons.rs`, which the record repeats; what ought to be and isn't fails the run.

pub mod daemons;
pub mod plan;
pub mod record;
mod roots;
mod router;
pub mod session;

use std::io::{BufRead, BufReader, Write};
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use model::Prefix;

use crate::link::{End, add_address, veth};
use crate::netns::Namespace;
use crate::process::Process;
use crate::progress::Progress;
use crate::{Lab, Tools, wait};
use daemons::{DAEMONS, Daemon, Told};
use plan::{FeederPlan, SpeakerPlan, SpeakerState};
use router::Router;
use session::Session;

/// How long a session may take to come up and settle: daemons try again after ten seconds or more.
const SETTLE: Duration = Duration::from_secs(30);
/// Our AS between ASes: it doesn't fit two octets.
const OUR_AS: u32 = 4_200_000_001;
/// Our end of the link.
const US: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
/// A prefix that two feeders announce.
const TWICE: &str = "10.66.9.0/24";
/// A prefix that a feeder within the AS announces.
const REFLECTED: &str = "10.66.100.0/24";
/// Large communities that make attributes of 7200 octets.
const MANY: u32 = 600;

/// What a cell of the table says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cell {
    /// Shown.
    Yes,
    /// The daemon isn't held to it, and why.
    NotHeld(String),
    /// It ought to be, and isn't.
    Failed(String),
}

/// Columns of the table, in order.
pub const COLUMNS: [&str; 11] = [
    "IPv4, AS4",
    "refresh",
    "extended",
    "add-path",
    "restart",
    "IPv6",
    "v4 over v6",
    "reflection",
    "MD5",
    "GTSM",
    "BFD",
];

/// One daemon's line.
#[derive(Clone, Debug)]
pub struct Line {
    /// Who.
    pub daemon: String,
    /// A cell for each of [`COLUMNS`]; or why there are none.
    pub cells: Result<Vec<Cell>, String>,
}

/// Holds sessions with the daemons whose names contain one of `names` (all, where there is none), and prints a table.
///
/// # Errors
/// The lab can't be raised, or a signal came. What a daemon does is no error: it stands in its line.
pub fn run(tools: &Tools, speaker: &Path, target: &Path, names: &[String]) -> Result<Vec<Line>> {
    let ours = Programs { tools, speaker };
    let mut lines = Vec::new();
    for daemon in DAEMONS.iter().filter(|daemon| {
        names.is_empty() || names.iter().any(|name| daemon.name.to_lowercase().contains(&name.to_lowercase()))
    }) {
        let line = match roots::of(daemon.suite, target) {
            Ok(root) => {
                let version = root.version(daemon.package);
                let name = format!("{} {}", daemon.name, version.as_deref().unwrap_or("?"));
                Line { cells: hold(daemon, ours, &root, &name), daemon: name }
            }
            Err(why) => Line { daemon: daemon.name.to_owned(), cells: Err(format!("skipped: {why:#}")) },
        };
        println!("{}", row(&line));
        lines.push(line);
        if wait::interrupted() {
            break;
        }
    }
    Ok(lines)
}

/// What may be at our end.
#[derive(Clone, Copy)]
struct Programs<'a> {
    tools: &'a Tools,
    speaker: &'a Path,
}

/// The table's head.
pub fn head() -> String {
    let columns: Vec<String> = COLUMNS.iter().map(|column| format!("{column:^11}")).collect();
    format!("| {:30} | {} |\n|{}|", "daemon", columns.join(" | "), vec!["---"; COLUMNS.len() + 1].join("|"))
}

/// A line of the table.
pub fn row(line: &Line) -> String {
    match &line.cells {
        Err(why) => format!("| {:30} | {why} |", line.daemon),
        Ok(cells) => {
            let text = |cell: &Cell| match cell {
                Cell::Yes => format!("{:^11}", "yes"),
                Cell::NotHeld(_) => format!("{:^11}", "-"),
                Cell::Failed(_) => format!("{:^11}", "NO"),
            };
            format!("| {:30} | {} |", line.daemon, cells.iter().map(text).collect::<Vec<_>>().join(" | "))
        }
    }
}

fn hold(
    daemon: &'static Daemon,
    ours: Programs<'_>,
    root: &roots::Root,
    name: &str,
) -> Result<Vec<Cell>, String> {
    let not_held = |column: &&str| {
        let known = daemon.cannot.iter().find(|(cannot, _)| cannot == column);
        Cell::NotHeld(known.map_or("its session didn't come to it", |(_, why)| *why).to_owned())
    };
    let mut cells: Vec<Cell> = COLUMNS.iter().map(not_held).collect();
    let mut note = |column: &str, outcome: Result<()>| {
        let at = COLUMNS.iter().position(|known| *known == column);
        if let Some(cell) = at.and_then(|at| cells.get_mut(at)) {
            *cell = outcome.map_or_else(|error| Cell::Failed(format!("{error:#}")), |()| Cell::Yes);
            if let Cell::Failed(why) = cell {
                println!("  {name}: {column}: {why}");
            }
        }
    };
    let held = |session: &Session| !session.is_guarded() || daemon.can(session.column());
    for session in Session::ALL.into_iter().filter(held) {
        let outcome = Bench::raise(daemon, ours, root, session).and_then(|mut bench| {
            let outcome = bench.check(&mut note);
            if outcome.is_err() {
                bench.lab.progress().line(&bench.daemon_said());
            }
            outcome
        });
        // The column by which the whole session stands or falls.
        if let Err(error) = outcome {
            note(session.column(), Err(error));
        }
    }
    Ok(cells)
}

/// What is at our end.
enum Ours {
    Speaker { _process: Process, socket: PathBuf },
    Router(Router),
}

/// A daemon, what is at our end, and the link between them.
struct Bench<'a> {
    daemon: &'static Daemon,
    session: Session,
    root: &'a roots::Root,
    there: Namespace,
    process: Process,
    _beside: Vec<Process>,
    ours: Ours,
    lab: Lab,
}

impl<'a> Bench<'a> {
    fn raise(
        daemon: &'static Daemon,
        ours: Programs<'_>,
        root: &'a roots::Root,
        session: Session,
    ) -> Result<Bench<'a>> {
        let lab = Lab::raise(ours.tools, Progress::new(Some(daemon.name)))?;
        let (here, there) = (lab.namespace("here")?, lab.namespace("there")?);
        veth(End::new(&here, "eth0"), End::new(&there, "eth0"))?;
        for (namespace, last) in [(&here, 1), (&there, 2)] {
            add_address(namespace, "eth0", format!("10.77.0.{last}/24").parse()?)?;
            add_address(namespace, "eth0", format!("fd77::{last}/64").parse()?)?;
        }
        // Whether the links' own addresses can be used at once is not what is tried here.
        let ours = match session.is_guarded() {
            true => Ours::Router(Router::raise(&lab, &here, session)?),
            false => speaker(&lab, &here, ours.speaker, &speaker_plan(daemon, session))?,
        };
        let beside = (daemon.beside)(session).iter().enumerate();
        let beside = beside.map(|(number, words)| {
            lab.spawn(&format!("beside{number}"), root.command(&there, lab.directory(), words))
        });
        let beside = beside.collect::<Result<_>>()?;
        let process = start(daemon, session, root, &lab, &there)?;
        Ok(Bench { daemon, session, root, there, process, _beside: beside, ours, lab })
    }

    fn ask(&self, question: &str) -> Result<SpeakerState> {
        let Ours::Speaker { socket, .. } = &self.ours else { bail!("the router isn't asked so") };
        let mut stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        writeln!(stream, "{question}")?;
        let mut answer = String::new();
        BufReader::new(stream).read_line(&mut answer)?;
        Ok(serde_json::from_str(&answer)?)
    }

    fn is_established(&self) -> Result<bool> {
        match &self.ours {
            Ours::Speaker { .. } => Ok(self.ask("state")?.established),
            Ours::Router(router) => router.is_established(),
        }
    }

    /// To where routes are in use at our end.
    fn held(&self) -> Result<Vec<Prefix>> {
        match &self.ours {
            Ours::Speaker { .. } => {
                Ok(self.ask("state")?.routes.into_iter().map(|route| route.prefix).collect())
            }
            Ours::Router(router) => router.held(),
        }
    }

    /// What the daemon says that it has.
    fn told(&self) -> Result<Told> {
        (self.daemon.told)(&|words| self.root.run(&self.there, self.lab.directory(), words))
    }

    fn daemon_said(&self) -> String {
        let said = self.process.said();
        let lines: Vec<&str> = said.lines().collect();
        lines[lines.len().saturating_sub(15)..].join("\n")
    }

    fn settle(&self, what: &str, look: impl Fn() -> Result<bool>) -> Result<()> {
        self.lab.wait(what, SETTLE, || look().map(|found| found.then_some(())))
    }

    fn check(&mut self, note: &mut impl FnMut(&str, Result<()>)) -> Result<()> {
        let theirs = self.session.their_routes();
        self.settle("the session", || self.is_established())?;
        match self.session {
            Session::External => {
                note("IPv4, AS4", self.both_ways(&theirs, &self.session.our_routes()));
                if self.daemon.can("refresh") {
                    note("refresh", self.refresh());
                }
                if self.daemon.can("extended") {
                    note(
                        "extended",
                        self.settle("a long message's route", || Ok(self.told()?.knows("10.66.1.0/24"))),
                    );
                }
                if self.daemon.can("add-path") {
                    note("add-path", self.settle("both paths", || Ok(self.told()?.paths(TWICE) >= 2)));
                }
                if self.daemon.can("restart") {
                    let restart = self.restart(&theirs);
                    note("restart", restart);
                }
            }
            Session::OverIpv6 => {
                let six = |prefixes: Vec<Prefix>| {
                    prefixes.into_iter().filter(|prefix| prefix.addr().is_ipv6()).collect::<Vec<_>>()
                };
                note("IPv6", self.both_ways(&six(theirs.clone()), &six(self.session.our_routes())));
                if self.daemon.can("v4 over v6") {
                    note(
                        "v4 over v6",
                        self.both_ways(&theirs, &self.session.our_routes())
                            .and_then(|()| self.through_ipv6()),
                    );
                }
            }
            Session::Internal => {
                let reflected = [REFLECTED.parse()?];
                let both = self.both_ways(&theirs, &reflected);
                note(
                    "reflection",
                    both.and_then(|()| {
                        self.settle("the daemon's routes at a client's neighbour", || {
                            Ok(self.ask("state")?.feeders_hold
                                == [theirs.len() + self.session.our_routes().len()])
                        })
                    }),
                );
            }
            Session::Md5 | Session::Gtsm => {
                note(self.session.column(), self.both_ways(&theirs, &self.session.our_routes()));
            }
            Session::Bfd => {
                let both = self.both_ways(&theirs, &self.session.our_routes());
                note("BFD", both.and_then(|()| self.silence()));
            }
        }
        Ok(())
    }

    /// All of theirs is here, and nothing else of theirs; all of ours is there.
    fn both_ways(&self, theirs: &[Prefix], ours: &[Prefix]) -> Result<()> {
        self.settle("the daemon's routes", || {
            let held = self.held()?;
            let missing: Vec<&Prefix> = theirs.iter().filter(|prefix| !held.contains(prefix)).collect();
            ensure!(missing.is_empty(), "{missing:?} of the daemon's are not here");
            Ok(true)
        })?;
        self.settle("our routes", || {
            let told = self.told()?;
            let missing: Vec<&Prefix> =
                ours.iter().filter(|prefix| !told.knows(&prefix.to_string())).collect();
            ensure!(missing.is_empty(), "{missing:?} of ours are not there");
            Ok(true)
        })
    }

    /// Every IPv4 route of theirs leads to their IPv6 address.
    fn through_ipv6(&self) -> Result<()> {
        let held = self.ask("state")?.routes;
        let wrong = held
            .iter()
            .find(|route| route.prefix.addr().is_ipv4() && !route.nexthops.iter().all(IpAddr::is_ipv6));
        ensure!(wrong.is_none(), "{wrong:?}");
        Ok(())
    }

    /// BFD's packets alone are lost: the session ends, though TCP still passes.
    fn silence(&self) -> Result<()> {
        let Ours::Router(router) = &self.ours else { bail!("the speaker has no BFD") };
        self.settle("BFD", || router.is_watched())?;
        let drop =
            |hook| format!("chain {hook} {{ type filter hook {hook} priority 0; udp dport 3784 drop; }};");
        let table = format!("table inet silence {{ {} {} }}", drop("input"), drop("output"));
        self.there.run("nft", &[&table])?;
        self.settle("the end of the session", || Ok(router.has_seen_failure()))
    }

    /// Asked, the daemon announces its routes again.
    fn refresh(&self) -> Result<()> {
        let before = self.ask("refresh")?.updates_in;
        self.settle("routes again", || Ok(self.ask("state")?.updates_in > before))
    }

    /// The daemon is killed: its routes stay, stale; it comes back, and they are fresh.
    fn restart(&mut self, theirs: &[Prefix]) -> Result<()> {
        // Some also say what they heard from us: that is stale as well.
        self.process.kill()?;
        self.settle("stale routes", || {
            let state = self.ask("state")?;
            ensure!(!state.established && state.stale >= theirs.len(), "{} stale", state.stale);
            Ok(true)
        })?;
        self.process = start(self.daemon, self.session, self.root, &self.lab, &self.there)?;
        self.settle("fresh routes", || {
            let state = self.ask("state")?;
            let held = theirs.iter().all(|prefix| state.routes.iter().any(|route| route.prefix == *prefix));
            ensure!(held, "routes were lost");
            Ok(state.established && state.stale == 0)
        })
    }
}

/// Our speaker.
fn speaker(lab: &Lab, here: &Namespace, program: &Path, plan: &SpeakerPlan) -> Result<Ours> {
    let socket = lab.directory().join("speaker.socket");
    let file = lab.directory().join("speaker.json");
    std::fs::write(&file, serde_json::to_string_pretty(plan)?)?;
    let mut command = here.command(program);
    command.arg(&file).arg(&socket);
    Ok(Ours::Speaker { _process: lab.spawn("speaker", command)?, socket })
}

fn start(
    daemon: &'static Daemon,
    session: Session,
    root: &roots::Root,
    lab: &Lab,
    there: &Namespace,
) -> Result<Process> {
    let config = (daemon.config)(session);
    std::fs::write(lab.directory().join("daemon.conf"), config)?;
    let process = lab.spawn("daemon", root.command(there, lab.directory(), (daemon.start)(session)))?;
    // Some are given their routes by command, and only once they run.
    for words in (daemon.after)(session) {
        lab.wait("the daemon", SETTLE, || root.run(there, lab.directory(), &words).map(Some))
            .with_context(|| words.join(" "))?;
    }
    Ok(process)
}

fn speaker_plan(daemon: &Daemon, session: Session) -> SpeakerPlan {
    let prefix = |text: &str| text.parse::<Prefix>().ok();
    let feeder = |last, as_number, route| FeederPlan {
        router_id: Ipv4Addr::new(10, 77, 0, last),
        as_number,
        routes: prefix(route).into_iter().collect(),
    };
    let (listen, peer) = session.ends();
    let as_number = if session == Session::Internal { session.their_as() } else { OUR_AS };
    SpeakerPlan {
        router_id: US,
        as_number,
        listen,
        peer,
        peer_as: session.their_as(),
        families: if session == Session::OverIpv6 { vec![true, false] } else { vec![false] },
        routes: session.our_routes(),
        large_communities: if session == Session::External && daemon.can("extended") { MANY } else { 0 },
        v4_over_v6: session == Session::OverIpv6 && daemon.can("v4 over v6"),
        all_paths: session == Session::External,
        reflects: session == Session::Internal,
        feeders: match session {
            Session::External => vec![feeder(101, 65201, TWICE), feeder(102, 65202, TWICE)],
            Session::Internal => vec![feeder(101, as_number, REFLECTED)],
            _ => Vec::new(),
        },
    }
}

//! `cargo xtask lab`: scenarios by name.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Result, bail};
use lab::scenario::{self, Options, Scenario};
use lab::{scenarios, sweep, wait};

use crate::tally::Tally;
use crate::{install, lanes, tools};

/// Scenarios that run side by side: each has several routers, which share the cores.
const LANES: usize = 2;

/// What one may ask of `cargo xtask lab`.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The scenarios to run; all of them when none is named.
    names: Vec<String>,
    /// List the scenarios, which store each runs with (either, etcd, none), and what each shows.
    #[arg(long)]
    list: bool,
    /// Leave the lab of the scenario running and tell how to look around; takes one name.
    #[arg(long)]
    keep: bool,
    /// Remove every lab that was kept, or left by a killed run.
    #[arg(long)]
    clean: bool,
    /// Where routers read their resources
    #[arg(long, value_enum, default_value = "directory")]
    store: Store,
    /// Announce the whole internet table, not a tenth of it; watch by BFD every 10 ms, not every 100.
    #[arg(long)]
    full: bool,
    /// Test this binary rather than the one built from these sources.
    #[arg(long, value_name = "PATH")]
    tortie: Option<PathBuf>,
}

/// Where routers read their resources.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Store {
    Directory,
    Etcd,
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    if arguments.list {
        for scenario in scenarios::ALL {
            println!("{:18} {:6} {}", scenario.name, scenario.store.word(), scenario.about);
        }
        return Ok(ExitCode::SUCCESS);
    }
    if arguments.clean {
        let removed = sweep::sweep()?;
        println!("{} labs removed", removed.len());
        return Ok(ExitCode::SUCCESS);
    }
    let chosen = choose(&arguments.names)?;
    if arguments.keep && chosen.len() != 1 {
        bail!("--keep takes the name of one scenario; `cargo xtask lab --list` shows them");
    }
    install::install_for_scenarios(&chosen)?;
    let etcd = arguments.store == Store::Etcd;
    let options = Options { keep: arguments.keep, full: arguments.full, etcd, beside_others: false };
    let mut tally = Tally::default();
    run_all(&chosen, &options, arguments.tortie.as_deref(), &mut tally)?;
    Ok(tally.close())
}

/// Runs these scenarios and counts how they end: first those that may run side by side, then each that measures alone.
pub(crate) fn run_all(
    chosen: &[&'static Scenario],
    options: &Options,
    tortie: Option<&Path>,
    tally: &mut Tally,
) -> Result<()> {
    wait::catch_signals()?;
    let tools = if chosen.iter().any(|scenario| scenario.tortie) {
        tools::build(tortie)?
    } else {
        tools::build_agent()?
    };
    let (alone, beside): (Vec<_>, Vec<_>) = chosen.iter().copied().partition(|scenario| scenario.alone);
    let run = |scenarios: &[&Scenario], lanes: usize| {
        let options = Options { beside_others: lanes > 1, ..*options };
        lanes::each(lanes, scenarios, |scenario| {
            (!wait::interrupted()).then(|| {
                println!();
                scenario::run(scenario, &tools, &options)
            })
        })
    };
    let ended = run(&beside, LANES.min(beside.len())).into_iter().chain(run(&alone, 1));
    for ended in ended.flatten() {
        let store = if options.etcd { " --store etcd" } else { "" };
        tally.outcome(&format!("{}{store}", ended.name), &ended.outcome);
    }
    if wait::interrupted() {
        bail!("interrupted");
    }
    Ok(())
}

fn choose(names: &[String]) -> Result<Vec<&'static Scenario>> {
    if names.is_empty() {
        return Ok(scenarios::ALL.iter().collect());
    }
    let known = || scenarios::ALL.iter().map(|scenario| scenario.name).collect::<Vec<_>>().join(", ");
    let mut chosen = Vec::new();
    for name in names {
        match scenarios::named(name) {
            Some(scenario) => chosen.push(scenario),
            None => bail!("there is no scenario {name:?}; there are {}", known()),
        }
    }
    Ok(chosen)
}

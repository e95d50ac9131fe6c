//! `cargo xtask bench`: how fast it is, alone or beside its peers.

use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, Result, bail, ensure};

use crate::install::{self, Installed};
use crate::tools;

/// What is measured without peers: minutes, no root.
const ALONE: [Bench; 9] = [
    Bench { name: "lookup", about: "look-ups a second, both families, the full internet table" },
    Bench { name: "classify", about: "new flows judged by policy, and what its compiling takes" },
    Bench { name: "updates", about: "table changes a second, and what readers notice of them" },
    Bench { name: "walk", about: "the whole walk in memory, and clocks a packet in each stage" },
    Bench { name: "workers", about: "two and three workers beside one" },
    Bench {
        name: "cores",
        about: "how long a cache line takes between each two cores, which tells how steady the machine is",
    },
    Bench { name: "loss", about: "what is lost at half the maximal rate while the table changes" },
    Bench { name: "table-load", about: "a whole internet table through the BGP speaker alone" },
    Bench { name: "next-hop-loss", about: "a next hop that goes away behind 100,000 routes" },
];
/// What is measured beside peers: minutes each; huge pages and namespaces need root.
const BESIDE: [Bench; 5] = [
    Bench { name: "lookup", about: "look-ups beside DPDK's rte_fib and rte_fib6" },
    Bench { name: "classify", about: "new flows judged by policy beside DPDK's rte_acl" },
    Bench { name: "walk", about: "forwarding in memory beside DPDK's l3fwd, and VPP where one is named" },
    Bench { name: "veth", about: "AF_XDP between veths beside DPDK's testpmd and l3fwd, and Linux" },
    Bench {
        name: "table-load",
        about: "a whole internet table through BGP beside BIRD, FRR, GoBGP and OpenBGPD",
    },
];

struct Bench {
    name: &'static str,
    about: &'static str,
}

/// What one may ask of `cargo xtask bench`.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// What to measure; everything where nothing is named.
    what: Vec<String>,
    /// Measure beside peers. Installs the Debian packages it lacks, and says which; builds l3fwd from Debian's source.
    #[arg(long)]
    peers: bool,
    /// List what can be measured.
    #[arg(long)]
    list: bool,
    /// Rounds, of which the median counts; each benchmark has a number of its own where none is given.
    #[arg(long)]
    rounds: Option<usize>,
    /// Write the results into perf/records/.
    #[arg(long)]
    record: bool,
    /// An installed vpp to compare with; Debian has no package of it.
    #[arg(long, value_name = "PATH", requires = "peers")]
    vpp: Option<PathBuf>,
    /// Compare with rte_lpm too, which takes a minute to load the full table each time.
    #[arg(long, requires = "peers")]
    rte_lpm: bool,
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let all: &[Bench] = if arguments.peers { &BESIDE } else { &ALONE };
    if arguments.list {
        all.iter().for_each(|bench| println!("{:14} {}", bench.name, bench.about));
        return Ok(ExitCode::SUCCESS);
    }
    let chosen = choose(all, &arguments.what)?;
    if arguments.peers && install::install_for_peers()? == Installed::NotAll {
        println!("What lacks its packages is skipped.");
    }
    println!("building perf (release)");
    run_cargo(&["build"], &[])?;
    let mut failed = Vec::new();
    for bench in chosen {
        println!("\n{}: {}", bench.name, bench.about);
        if let Err(error) = one(bench.name, arguments) {
            println!("{}: {error:#}", bench.name);
            failed.push(bench.name);
        }
    }
    if failed.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    println!("\nnot measured: {}", failed.join(", "));
    Ok(ExitCode::FAILURE)
}

/// Those that are named, or all.
fn choose(all: &'static [Bench], names: &[String]) -> Result<Vec<&'static Bench>> {
    if names.is_empty() {
        return Ok(all.iter().collect());
    }
    let known = || all.iter().map(|bench| bench.name).collect::<Vec<_>>().join(", ");
    let find = |name: &String| all.iter().find(|bench| bench.name == name);
    let missing =
        |name: &String| format!("there is no benchmark {name:?} of this kind; there are {}", known());
    names.iter().map(|name| find(name).with_context(|| missing(name))).collect()
}

fn one(name: &'static str, arguments: &Arguments) -> Result<()> {
    let mut words = vec![name.to_owned()];
    match (arguments.peers, name) {
        (true, "veth") => match l3fwd() {
            Ok(path) => words.extend(["--l3fwd".to_owned(), path]),
            Err(error) => println!("skipped: l3fwd between veths: {error:#}"),
        },
        (true, "table-load") => {
            let status = tools::cargo().args(["build", "--release", "--package", "tortie"]).status();
            ensure!(status.context("cannot start cargo")?.success(), "the router could not be built");
            words.push("--daemons".to_owned());
        }
        (true, _) => {
            words.insert(0, "peers".to_owned());
            if let Some(vpp) = &arguments.vpp {
                words.extend(["--vpp".to_owned(), vpp.display().to_string()]);
            }
            words.extend(arguments.rte_lpm.then(|| "--rte-lpm".to_owned()));
        }
        (false, _) => (),
    }
    if let Some(rounds) = arguments.rounds {
        words.extend(["--rounds".to_owned(), rounds.to_string()]);
    }
    words.extend(arguments.record.then(|| "--record".to_owned()));
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    run_cargo(&["run", "--quiet"], &words)
}

/// Where perf built l3fwd: the last line that it prints.
fn l3fwd() -> Result<String> {
    let mut cargo = perf(&["run", "--quiet"], &["peers", "--build-l3fwd"]);
    let output = cargo.stderr(Stdio::inherit()).output().context("cannot start cargo")?;
    let text = String::from_utf8_lossy(&output.stdout);
    match text.lines().last() {
        Some(path) if output.status.success() => Ok(path.to_owned()),
        _ => bail!("it could not be built"),
    }
}

fn run_cargo(how: &[&str], words: &[&str]) -> Result<()> {
    let status = perf(how, words).stdin(Stdio::null()).status().context("cannot start cargo")?;
    if !status.success() {
        bail!("see its words above ({status})");
    }
    Ok(())
}

fn perf(how: &[&str], words: &[&str]) -> Command {
    let mut cargo = tools::cargo();
    cargo.args(how).args(["--release", "--package", "perf"]);
    if !words.is_empty() {
        cargo.arg("--").args(words);
    }
    cargo
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_there_is_refused_and_what_is_named_is_chosen() {
        let chosen = choose(&ALONE, &["walk".to_owned()]).expect("it is there");
        assert_eq!(chosen.iter().map(|bench| bench.name).collect::<Vec<_>>(), ["walk"]);
        assert_eq!(choose(&BESIDE, &[]).expect("all").len(), BESIDE.len());
        let refused = choose(&ALONE, &["veth".to_owned()]).err().expect("not without peers").to_string();
        assert!(refused.contains("lookup, classify, updates, walk,"), "{refused}");
    }
}

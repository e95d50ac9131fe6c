//! `perf peers`: DPDK and VPP on the work of `perf lookup` and `perf walk`, on the same core, in interleaved rounds.
//!
//! What each peer is given and why is told in `perf/peers/README.md`.

mod acl;
mod compare;
mod conversation;
mod dpdk;
mod exchange;
mod fib;
mod floor;
mod forwarder;
mod l3fwd;
mod memory;
mod pcap;
mod quiet;
mod vpp;

use std::path::PathBuf;

use anyhow::{Result, ensure};
use perf::record::Record;
use perf::{data, measure};

use compare::Comparison;

/// What one may ask of `perf peers`.
#[derive(clap::Args)]
pub struct Arguments {
    /// What to compare; everything where nothing is named.
    #[arg(value_enum)]
    what: Vec<What>,
    /// Rounds; the median counts.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// The core that everything is measured on, one after another; the last one where none is named.
    #[arg(long)]
    core: Option<usize>,
    /// Leave huge pages alone: DPDK on 4 KiB pages only.
    #[arg(long)]
    no_huge: bool,
    /// Compare with rte_lpm too, which takes a minute or two to load the full table.
    #[arg(long)]
    rte_lpm: bool,
    /// An l3fwd that is built already, with tables large enough.
    #[arg(long, value_name = "PATH")]
    l3fwd: Option<PathBuf>,
    /// An installed vpp to compare with.
    #[arg(long, value_name = "PATH")]
    vpp: Option<PathBuf>,
    /// Only build l3fwd, and print where it is.
    #[arg(long)]
    build_l3fwd: bool,
    /// Write the result into perf/records/.
    #[arg(long)]
    record: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum What {
    /// Look-ups alone, beside rte_fib and rte_fib6.
    Lookup,
    /// New flows judged by lists of rules, beside rte_acl.
    Classify,
    /// Forwarding in memory, beside l3fwd over net_pcap, and VPP's packet generator where a vpp is named.
    Walk,
}

/// Compares, prints a table, and records it where asked to.
pub fn run(arguments: &Arguments) -> Result<()> {
    dpdk::sweep()?;
    if arguments.build_l3fwd {
        println!("{}", l3fwd::build()?.display());
        return Ok(());
    }
    measure::pin(Some(arguments.core()?));
    let asked = |what| arguments.what.is_empty() || arguments.what.contains(&what);
    let internet = data::internet()?;
    println!("{} IPv4 and {} IPv6 prefixes, {}", internet.v4.len(), internet.v6.len(), internet.source);
    let versions = dpdk::versions();
    println!(
        "{}",
        versions.iter().map(|(what, version)| format!("{what} {version}")).collect::<Vec<_>>().join(", ")
    );
    let mut comparisons = Vec::new();
    if asked(What::Lookup) {
        comparisons.extend(fib::compare(&internet, arguments)?);
    }
    if asked(What::Classify) {
        comparisons.extend(acl::compare(arguments)?);
    }
    if asked(What::Walk) {
        comparisons.extend(memory::compare(&internet, arguments)?);
    }
    compare::print(&comparisons);
    if arguments.record {
        // One file each, so that one doesn't replace the other.
        let name = match arguments.what.as_slice() {
            [What::Lookup] => "peers-lookup",
            [What::Classify] => "peers-classify",
            [What::Walk] => "peers-walk",
            _ => "peers",
        };
        println!("written to {}", Record::new(name, Results { versions, comparisons }).write()?.display());
    }
    Ok(())
}

impl Arguments {
    /// The core that everything is measured on.
    fn core(&self) -> Result<usize> {
        let last = dpdk::cores()? - 1;
        let core = self.core.unwrap_or(last);
        ensure!(core <= last, "there is no core {core}");
        Ok(core)
    }
}

/// As recorded.
#[derive(serde::Serialize)]
struct Results {
    versions: Vec<(&'static str, String)>,
    comparisons: Vec<Comparison>,
}

//! `cargo xtask bench` calls this; one subcommand a measurement.

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

mod classify;
mod cores;
mod instructions;
mod lookup;
mod loss;
mod next_hop_loss;
mod peers;
mod sessions;
mod site;
mod table_load;
mod updates;
mod veth;
mod walk;
mod workers;

/// Measure Tortie on this machine.
#[derive(Parser)]
#[command(name = "perf", disable_help_subcommand = true)]
struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Look-ups alone: every address mix, both families, full table.
    Lookup(lookup::Arguments),
    /// New flows judged by policy: lists of rules, sets, and what compiling takes.
    Classify(classify::Arguments),
    /// DPDK and VPP on the same look-ups and packets, in interleaved rounds; builds what it compares with.
    Peers(peers::Arguments),
    /// AF_XDP between veths beside DPDK and Linux; needs root and 4 cores.
    Veth(veth::Arguments),
    /// Table changes a second, and what readers notice of them.
    Updates(updates::Arguments),
    /// The walk in memory: clocks a packet, stage by stage, for every kind of work.
    Walk(walk::Arguments),
    /// Two and three workers beside one.
    Workers(workers::Arguments),
    /// How long a cache line takes between each two cores of this machine, and whether that stays so.
    Cores(cores::Arguments),
    /// Half the maximal rate while the table changes: what is lost.
    Loss(loss::Arguments),
    /// A next hop lost behind 100,000 routes.
    NextHopLoss(next_hop_loss::Arguments),
    /// A whole internet table through BGP: in from one peer, out to another, beside other daemons.
    TableLoad(table_load::Arguments),
    /// A thousand BGP sessions with a short hold time, kept while a whole table comes in; needs root.
    Sessions(sessions::Arguments),
    /// A site of 100,000 endpoints from either store: loaded, then followed while it changes; needs root.
    Site(site::Arguments),
    /// Instructions a packet, counted by callgrind and held against the record.
    Instructions(instructions::Arguments),
    /// Forward packets of one kind of work: what `perf instructions` runs under valgrind.
    #[command(hide = true)]
    Count(instructions::CountArguments),
}

fn main() -> Result<ExitCode> {
    match Arguments::parse().what {
        What::Lookup(arguments) => lookup::run(&arguments),
        What::Classify(arguments) => classify::run(&arguments),
        What::Peers(arguments) => peers::run(&arguments),
        What::Veth(arguments) => veth::run(&arguments),
        What::Updates(arguments) => updates::run(&arguments),
        What::Walk(arguments) => walk::run(&arguments),
        What::Workers(arguments) => workers::run(&arguments),
        What::Cores(arguments) => cores::run(&arguments),
        What::Loss(arguments) => loss::run(&arguments),
        What::NextHopLoss(arguments) => next_hop_loss::run(&arguments),
        What::TableLoad(arguments) => table_load::run(&arguments),
        What::Sessions(arguments) => sessions::run(&arguments),
        What::Site(arguments) => site::run(&arguments),
        What::Instructions(arguments) => instructions::run(&arguments),
        What::Count(arguments) => instructions::count(&arguments),
    }?;
    Ok(ExitCode::SUCCESS)
}

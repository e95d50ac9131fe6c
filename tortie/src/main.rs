//! # tortie: the router and its operator's commands
//!
//! **What this room is for.** It makes both ends of what the two halves share and starts them; and it is what an
//! operator types. It is the only room that names both `fastpath` and `slowpath`.
//!
//! **How things pass through it.** `main.rs` reads the command line → [`config`] → [`run`] makes [`limits`]' tables,
//! starts workers and slow path, and waits. [`ports`] opens AF_XDP for the slow path. Everybody who asks how things
//! are ([`control`] for `tortie show`, [`http`] for Prometheus and the [`looking_glass`], [`bird`] for calicoctl) asks the
//! [`observer`]. What works on a datastore, without the router, is in [`ctl`].
//!
//! **What it promises.** A configuration that is accepted can't be wrong in itself; every error names what, where
//! and what to do; memory is known at the start; a question never holds up a packet or a session. Exit status: 0 yes,
//! 1 no or failed, 2 wrong usage or no answer. [`ctl`]'s commands have calicoctl's.
//!
//! **What it never does.** It knows no protocol, no route and no packet.

mod bird;
mod capture;
mod captures;
mod check;
mod cleanup;
mod completion;
mod config;
mod control;
mod cores;
mod ctl;
mod explain;
mod first_boot;
mod flow_hash;
mod forms;
mod frame_size;
mod http;
mod interfaces;
mod ipam;
mod limits;
mod log;
mod looking_glass;
mod metrics;
mod observer;
mod open_ports;
mod output;
mod ports;
mod privileges;
mod processor;
mod reporting;
mod run;
mod session_sockets;
mod show;
mod signals;
mod startup;
mod supervisor;
mod table_use;
mod top;
mod trace;
mod traces;
mod tuning;
mod turns;
mod validate;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, CommandFactory, Parser, Subcommand};

use config::Config;

/// It can't be done.
const FAILED: u8 = 1;
/// It can't be asked.
const TROUBLE: u8 = 2;

const EXAMPLE: &str = "\
Example of a tortie.yaml:
  node: node1                                       # this node's name in the datastore
  datastore: { directory: /etc/tortie/resources }   # Calico resources, one or more a file
  uplinks: [eth0]                                   # interfaces towards other nodes and routers

All else has defaults:
  workloads: { prefix: cali, mtu: auto }            # their interfaces' names begin with this; auto lowers their MTU to the
                                                    # tunnels', leave leaves it
  workers: 1                                        # cores of the fast path
  cores: [2]                                        # pins worker i to the i-th of these
  queues: 1                                         # receive queues of each uplink, one a worker
  segments: []                                      # VXLAN overlays besides Calico's: see OPERATING.md
  mode: auto                                        # auto, zero-copy or copy
  waiting: adaptive                                 # an idle worker: adaptive, busy, busy-poll, interrupt
  control_socket: /run/tortie/tortie.sock           # where `tortie show` asks
  bird_sockets: /var/run/calico                     # where `calicoctl node status` asks; off by default
  metrics: { listen: \"127.0.0.1:9191\" }             # Prometheus; off by default
  looking_glass: { listen: \"127.0.0.1:9192\" }       # a page for people; off by default
  log: { format: text, level: info }                # text or json; RUST_LOG overrides the level
  ecmp: { symmetric: false }                        # true: both directions of a flow choose alike; also seed: 7
  tuning: { rings: 1024 }                           # queues, interrupts and cores brought together; off by default
  startup: { ip: autodetect }                       # do what calico/node does at its start; off by default
  limits: { routes_v4: 2200000, frames: 131072 }    # sizes of tables; see --check for all and their memory

Examples:
  tortie run -c /etc/tortie/tortie.yaml --check
  tortie run -c /etc/tortie/tortie.yaml";

const SHOW_EXAMPLES: &str = "\
Examples:
  tortie show bgp
  tortie show routes --source bgp --limit 20
  tortie show route 10.65.0.7 -o json
  tortie show drops --all --socket /run/tortie/tortie.sock";

/// A userspace virtual router over AF_XDP that speaks Calico.
#[derive(Debug, Parser)]
#[command(name = "tortie", version, arg_required_else_help = true, disable_help_subcommand = true)]
struct CommandLine {
    #[command(flatten)]
    global: ctl::GlobalArgs,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the router
    #[command(after_help = EXAMPLE)]
    Run {
        #[command(flatten)]
        file: ConfigFile,
        /// Only say whether a start would succeed: opens nothing, changes nothing
        #[arg(long)]
        check: bool,
    },
    /// Ask the running router
    #[command(after_help = SHOW_EXAMPLES)]
    Show(show::ShowArgs),
    /// See a packet's way through the running router, stage by stage: one that is made up, or ones that pass
    #[command(after_help = trace::EXAMPLES)]
    Trace(Box<trace::TraceArgs>),
    /// What passes the running router now: rates of ports, and why packets are dropped
    #[command(after_help = top::EXAMPLES)]
    Top(top::TopArgs),
    /// Copy frames that pass the running router into a file for tcpdump and Wireshark, with what became of each
    #[command(after_help = capture::EXAMPLES)]
    Capture(Box<capture::CaptureArgs>),
    /// Ask what needs no running router
    Explain(explain::ExplainArgs),
    /// Are these resources good, and are they likely to be meant? Needs no running router
    #[command(after_help = validate::EXAMPLES)]
    Validate(validate::ValidateArgs),
    /// Remove what a router that has ended leaves on purpose: XDP programs, mirrored routes, the nftables tables
    Cleanup {
        #[command(flatten)]
        file: ConfigFile,
    },
    #[command(flatten)]
    Ctl(ctl::Command),
    /// Print completions for a shell: source <(tortie completion bash)
    Completion(completion::CompletionArgs),
    /// Write a manual page for every command
    #[command(hide = true)]
    Man(completion::ManArgs),
    /// Set an appliance up from a config drive
    #[command(hide = true)]
    FirstBoot(first_boot::FirstBootArgs),
}

#[derive(Debug, Args)]
struct ConfigFile {
    /// This box's configuration
    #[arg(short, long = "config", value_name = "FILE", default_value = config::CONFIGURATION)]
    config: PathBuf,
}

fn main() -> ExitCode {
    if let Err(lacks) = processor::check() {
        eprintln!("tortie: {lacks}");
        return ExitCode::from(FAILED);
    }
    if ctl::is_calicoctl() {
        return ctl::calicoctl().unwrap_or_else(|error| {
            eprintln!("{error:#}");
            ExitCode::from(FAILED)
        });
    }
    let CommandLine { global, command } = CommandLine::parse_from(words());
    let (outcome, status) = match command {
        Command::Run { file, check: true } => (check(&file), FAILED),
        Command::Run { file, check: false } => (run(&file), FAILED),
        Command::Show(args) => (show::run(&args), TROUBLE),
        Command::Trace(args) => (trace::run(&args), TROUBLE),
        Command::Top(args) => (top::run(&args), TROUBLE),
        Command::Capture(args) => (capture::run(&args), TROUBLE),
        Command::Explain(args) => (explain::run(&args), TROUBLE),
        Command::Validate(args) => (validate::run(&args), TROUBLE),
        Command::Cleanup { file } => (cleanup(&file), FAILED),
        Command::Ctl(command) => (command.run(&global), FAILED),
        Command::Completion(args) => (completion::completion(&args, CommandLine::command()), FAILED),
        Command::Man(args) => (completion::man(&args, CommandLine::command()), FAILED),
        Command::FirstBoot(args) => (first_boot::run(&args), FAILED),
    };
    outcome.unwrap_or_else(|error| {
        eprintln!("tortie: {error:#}");
        ExitCode::from(status)
    })
}

/// The command line. calicoctl knows a node by the first word after a process's name: `-felix` there says nothing to us.
fn words() -> impl Iterator<Item = OsString> {
    std::env::args_os()
        .enumerate()
        .filter(|(place, word)| *place != 1 || word != "-felix")
        .map(|(_, word)| word)
}

fn run(file: &ConfigFile) -> anyhow::Result<ExitCode> {
    let config = Config::read(&file.config)?;
    log::start(config.log)?;
    run::run(&config)?;
    Ok(ExitCode::SUCCESS)
}

fn check(file: &ConfigFile) -> anyhow::Result<ExitCode> {
    let report = check::run(&file.config);
    output::print(&report.to_string())?;
    Ok(if report.good() { ExitCode::SUCCESS } else { ExitCode::from(FAILED) })
}

fn cleanup(file: &ConfigFile) -> anyhow::Result<ExitCode> {
    let config = Config::read(&file.config)?;
    for line in cleanup::run(&config)? {
        output::print(&format!("{line}\n"))?;
    }
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        CommandLine::command().debug_assert();
    }
}

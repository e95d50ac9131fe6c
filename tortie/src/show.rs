//! `tortie show`: asks the running router and prints tables for people, or JSON for programs.
//!
//! One file per noun. A table shows what an operator looks for first; `-o json` shows everything.

mod bfd;
pub(crate) mod bgp;
mod bgp_dump;
mod bgp_neighbor;
mod bgp_route;
mod bmp;
mod datastore;
mod drops;
pub(crate) mod flows;
mod host_policy;
mod icmp;
mod limits;
mod neighbors;
mod policy;
mod ports;
mod route;
mod routes;
mod segments;
mod stages;
pub(crate) mod table;
mod tables;

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Subcommand};
use model::Prefix;
use serde::Serialize;
use serde::de::DeserializeOwned;
use slowpath::status::{
    BfdStatus, BgpNeighborsStatus, BgpRouteStatus, BgpStatus, DatastoreStatus, FingerprintsStatus,
    HostPolicyStatus, IcmpStatus, NeighborsStatus, PolicyStatus, RouteStatus, RoutesStatus, SegmentsStatus,
    StationsStatus,
};

use crate::config::CONTROL_SOCKET;
use crate::control::{self, AskError, Question};
use crate::forms::{DropsStatus, PortsView, StagesStatus};
use crate::output::{self, Form};
use crate::table_use::TablesStatus;
use flows::FlowsStatus;

/// What `tortie show` was asked for.
#[derive(Debug, Args)]
pub(crate) struct ShowArgs {
    #[command(subcommand)]
    noun: Noun,

    /// A table for people, or JSON for programs
    #[arg(short, long, global = true, value_enum, default_value = "table")]
    output: Form,

    /// The control socket of the router to ask: `control_socket` of its tortie.yaml
    #[arg(long, global = true, value_name = "PATH", default_value = CONTROL_SOCKET)]
    socket: PathBuf,
}

#[derive(Debug, Subcommand)]
enum Noun {
    /// BGP sessions: who, since when, how many prefixes; or every path to PREFIX, and why each is used or not
    #[command(args_conflicts_with_subcommands = true)]
    Bgp {
        #[command(subcommand)]
        more: Option<BgpNoun>,
        /// A network; exit status 1 where BGP has no path to it
        #[arg(value_name = "PREFIX")]
        prefix: Option<Prefix>,
        /// Instead, write the whole table to FILE, or to standard output for `-`, in MRT's form (RFC 6396 TABLE_DUMP_V2):
        /// every path of every peer, before policy
        #[arg(long, value_name = "FILE", conflicts_with = "prefix")]
        mrt: Option<PathBuf>,
    },
    /// The routes in force, and where each leads
    Routes {
        /// How many to list; all are counted
        #[arg(long, default_value_t = 1000, value_name = "N")]
        limit: usize,
        /// Only routes of this source
        #[arg(long, value_name = "SOURCE", value_parser = SOURCES)]
        source: Option<String>,
    },
    /// The route that a packet to ADDR takes; exit status 1 where there is none
    Route {
        /// An IPv4 or IPv6 address
        #[arg(value_name = "ADDR")]
        address: IpAddr,
    },
    /// Neighbours, their MAC addresses and who needs them
    Neighbors,
    /// Ports: what each queue really got, and what passed
    Ports {
        /// Instead, where the workers' time goes: clocks a packet in each stage of the walk
        #[arg(long)]
        stages: bool,
        /// Instead, what limits endpoints have, and what each limit has dropped
        #[arg(long, conflicts_with = "stages")]
        limits: bool,
    },
    /// Flows that the walk remembers, and what they are translated to
    Flows {
        /// Only flows from or to this address, before or after translation
        #[arg(value_name = "ADDR")]
        address: Option<IpAddr>,
        /// How many to list; all are counted
        #[arg(long, default_value_t = 1000, value_name = "N")]
        limit: usize,
    },
    /// Whether the datastore can be followed, since when not, and how long changes take
    Datastore,
    /// How full each table is, and what a full one has refused
    Tables {
        /// What each means rather, in a number: where two routers were told the same, they have the same
        #[arg(long)]
        fingerprints: bool,
    },
    /// What became of every packet: the walk's books, by reason
    Drops {
        /// Also reasons that never occurred
        #[arg(long)]
        all: bool,
    },
    /// Peers watched by BFD: their states, and how soon silence is noticed
    Bfd,
    /// Monitoring stations that are told what BGP peers announce (BMP), and how far each is behind
    Bmp,
    /// ICMP errors that senders were told, by what they say, and what stayed unanswered
    Icmp,
    /// Host endpoints' policy as nftables keeps it, and what each of its rules has decided
    HostPolicy {
        /// Also rules that no packet has come to
        #[arg(long)]
        all: bool,
    },
    /// What each rule of workloads' policy has decided; exit status 1 where nothing is asked of ENDPOINT
    Policy {
        /// Only at this endpoint: NAMESPACE/NAME, or its name
        #[arg(value_name = "ENDPOINT")]
        endpoint: Option<String>,
        /// Also rules that have decided nothing
        #[arg(long)]
        all: bool,
    },
    /// What staged policies would have denied
    Staged,
    /// VXLAN segments: who is behind which tunnel, written down, learned or flooded to
    Segments {
        /// Instead, what has happened in each since the start
        #[arg(long)]
        counts: bool,
    },
}

/// More of BGP.
#[derive(Debug, Subcommand)]
enum BgpNoun {
    /// Everything about a session: what was agreed on, limits, messages, errors
    Neighbor {
        /// Its address; exit status 1 where there is no session with it
        #[arg(value_name = "ADDR")]
        address: Option<IpAddr>,
    },
}

/// `slowpath::status::RouteStatus::source`.
const SOURCES: [&str; 13] = [
    "local",
    "neighbor",
    "connected",
    "elevated",
    "workload",
    "block",
    "static",
    "reachable-by",
    "vxlan",
    "ipam",
    "bgp",
    "kernel",
    "preserved",
];

/// The answer was "no": there is no such thing.
const NO: u8 = 1;

/// Asks and prints. Exit status 0, or 1 where the answer is "no".
///
/// # Errors
/// The router doesn't answer.
pub(crate) fn run(args: &ShowArgs) -> anyhow::Result<ExitCode> {
    let ShowArgs { noun, output, socket } = args;
    match noun {
        Noun::Bgp { more: Some(BgpNoun::Neighbor { address }), .. } => {
            let known = |status: &BgpNeighborsStatus| address.is_none() || !status.neighbors.is_empty();
            print(socket, *output, &Question::BgpNeighbors { address: *address }, bgp_neighbor::text, known)
        }
        Noun::Bgp { mrt: Some(file), .. } => bgp_dump::write(socket, file),
        Noun::Bgp { prefix: None, .. } => {
            print(socket, *output, &Question::Bgp, bgp::table, |_: &BgpStatus| true)
        }
        Noun::Bgp { prefix: Some(prefix), .. } => {
            let question = Question::BgpRoute { prefix: prefix.to_string() };
            let known = |route: &BgpRouteStatus| !route.paths.is_empty();
            print(socket, *output, &question, bgp_route::table, known)
        }
        Noun::Routes { limit, source } => {
            let question = Question::Routes { limit: *limit, source: source.clone() };
            print(socket, *output, &question, routes::table, |_: &RoutesStatus| true)
        }
        Noun::Route { address } => {
            let question = Question::Route { address: *address };
            print(socket, *output, &question, route::table, |route: &RouteStatus| route.prefix.is_some())
        }
        Noun::Neighbors => {
            print(socket, *output, &Question::Neighbors, neighbors::table, |_: &NeighborsStatus| true)
        }
        Noun::Ports { stages: true, .. } => {
            print(socket, *output, &Question::Stages, stages::table, |_: &StagesStatus| true)
        }
        Noun::Ports { limits: true, .. } => {
            print(socket, *output, &Question::Ports, limits::table, |_: &PortsView| true)
        }
        Noun::Flows { address, limit } => {
            let question = Question::Flows { address: *address, limit: *limit };
            print(socket, *output, &question, flows::table, |_: &FlowsStatus| true)
        }
        Noun::Bfd => print(socket, *output, &Question::Bfd, bfd::table, |_: &BfdStatus| true),
        Noun::Bmp => print(socket, *output, &Question::Bmp, bmp::table, |_: &StationsStatus| true),
        Noun::Icmp => print(socket, *output, &Question::Icmp, icmp::table, |_: &IcmpStatus| true),
        Noun::HostPolicy { all } => {
            let table = |status: &HostPolicyStatus| host_policy::table(status, *all);
            print(socket, *output, &Question::HostPolicy, table, |_: &HostPolicyStatus| true)
        }
        Noun::Policy { endpoint, all } => {
            let question = Question::Policy { endpoint: endpoint.clone(), all: *all };
            let known = |status: &PolicyStatus| status.known || endpoint.is_none();
            print(socket, *output, &question, policy::table, known)
        }
        Noun::Staged => print(socket, *output, &Question::Staged, policy::staged, |_: &PolicyStatus| true),
        Noun::Segments { counts } => {
            let table = |status: &SegmentsStatus| match counts {
                true => segments::counts(status),
                false => segments::table(status),
            };
            print(socket, *output, &Question::Segments, table, |_: &SegmentsStatus| true)
        }
        Noun::Datastore => {
            print(socket, *output, &Question::Datastore, datastore::table, |_: &DatastoreStatus| true)
        }
        Noun::Tables { fingerprints: true } => {
            let yes = |_: &FingerprintsStatus| true;
            print(socket, *output, &Question::Fingerprints, tables::fingerprints, yes)
        }
        Noun::Tables { .. } => {
            print(socket, *output, &Question::Tables, tables::table, |_: &TablesStatus| true)
        }
        Noun::Ports { .. } => print(socket, *output, &Question::Ports, ports::table, |_: &PortsView| true),
        Noun::Drops { all } => {
            let table = |drops: &DropsStatus| drops::table(drops, *all);
            print(socket, *output, &Question::Drops, table, |_: &DropsStatus| true)
        }
    }
}

fn print<T: DeserializeOwned + Serialize>(
    socket: &Path,
    output: Form,
    question: &Question,
    table: impl Fn(&T) -> String,
    yes: impl Fn(&T) -> bool,
) -> anyhow::Result<ExitCode> {
    let answer: T = control::ask(socket, question)?;
    let text = match output {
        Form::Table => table(&answer),
        Form::Json => json(socket, &answer)?,
    };
    output::print(&text)?;
    Ok(if yes(&answer) { ExitCode::SUCCESS } else { ExitCode::from(NO) })
}

fn json<T: Serialize>(socket: &Path, answer: &T) -> Result<String, AskError> {
    let mut text = serde_json::to_string_pretty(answer)
        .map_err(|source| AskError::Form { path: socket.display().to_string(), source })?;
    text.push('\n');
    Ok(text)
}

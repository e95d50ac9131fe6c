//! `tortie ipam`: what `calicoctl ipam` does, to the letter (`calicoctl/calicoctl/commands/ipam`).

mod check;
mod configure;
mod go_number;
mod release;
mod report;
mod show;
mod split;

use std::fmt;
use std::net::IpAddr;
use std::path::Path;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use datastore::ipam::{Ipam, IpamError};
use datastore::settings::SettingsError;
use datastore::{Key, ResourceKey, ResourceKind, Store, StoreError, Stored};

use crate::ctl::{self, GlobalArgs, StoreArgs};
use crate::output;

pub(crate) const EXAMPLES: &str = "\
Examples:
  tortie ipam show --show-blocks
  tortie ipam show --ip=10.65.79.2
  tortie ipam check --show-problem-ips -o report.json
  tortie ipam release --from-report=report.json
  tortie ipam configure --strictaffinity=true
  tortie ipam split --cidr=172.16.0.0/12 2";

/// The version that reports are of, as releases of addresses ask for it again.
const VERSION: &str = env!("CARGO_PKG_VERSION");

#[derive(Clone, Debug, Args)]
pub(crate) struct IpamArgs {
    #[command(subcommand)]
    command: IpamCommand,
}

#[derive(Clone, Debug, Subcommand)]
enum IpamCommand {
    /// How full pools and blocks are, or who has one address
    Show {
        #[command(flatten)]
        store: StoreArgs,
        #[command(flatten)]
        what: show::ShowArgs,
    },
    /// Check the books: addresses against nodes and workloads, handles against blocks
    Check {
        #[command(flatten)]
        store: StoreArgs,
        #[command(flatten)]
        what: check::CheckArgs,
    },
    /// Release an address, or all that reports call leaked
    Release {
        #[command(flatten)]
        store: StoreArgs,
        #[command(flatten)]
        what: release::ReleaseArgs,
    },
    /// Split a pool into smaller ones; the datastore has to be locked
    Split {
        #[command(flatten)]
        store: StoreArgs,
        #[command(flatten)]
        what: split::SplitArgs,
    },
    /// Change how addresses are assigned
    Configure {
        #[command(flatten)]
        store: StoreArgs,
        #[command(flatten)]
        what: configure::ConfigureArgs,
    },
}

/// Why a command failed, in calicoctl's words; empty where it has said so already.
#[derive(Debug)]
struct Failure(String);

impl Failure {
    fn new(text: impl Into<String>) -> Failure {
        Failure(text.into())
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<IpamError> for Failure {
    fn from(error: IpamError) -> Failure {
        Failure(error.to_string())
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Failure {
        Failure(error.to_string())
    }
}

/// Runs a command; what it says goes to standard output, why it fails to standard error.
///
/// # Errors
/// Standard output can't be written.
pub(crate) fn run(args: &IpamArgs, global: &GlobalArgs) -> anyhow::Result<ExitCode> {
    let store = match open(args.command.config()) {
        Ok(store) => store,
        Err(error) => {
            output::print(&format!("Failed to create Calico API client: {error}\n"))?;
            return Ok(ExitCode::FAILURE);
        }
    };
    if let Some(error) = ctl::version_mismatch(&*store, global.allow_version_mismatch) {
        eprintln!("{error}");
        return Ok(ExitCode::FAILURE);
    }
    let mut out = String::new();
    let outcome = args.command.run(&*store, &mut out);
    output::print(&out)?;
    match outcome {
        Ok(()) => Ok(ExitCode::SUCCESS),
        Err(failure) => {
            if !failure.0.is_empty() {
                eprintln!("{failure}");
            }
            Ok(ExitCode::FAILURE)
        }
    }
}

fn open(config: &Path) -> Result<Box<dyn Store>, SettingsError> {
    datastore::settings::open(config)
}

impl IpamCommand {
    fn config(&self) -> &Path {
        match self {
            IpamCommand::Show { store, .. }
            | IpamCommand::Check { store, .. }
            | IpamCommand::Release { store, .. }
            | IpamCommand::Split { store, .. }
            | IpamCommand::Configure { store, .. } => &store.config,
        }
    }

    /// What it says is added to `out`, that of a failure's beginning too.
    fn run(&self, store: &dyn Store, out: &mut String) -> Result<(), Failure> {
        let ipam = Ipam::new(store);
        match self {
            IpamCommand::Show { what, .. } => show::run(&ipam, what, out),
            IpamCommand::Check { what, .. } => check::run(store, &ipam, what, out),
            IpamCommand::Release { what, .. } => release::run(store, &ipam, what, out),
            IpamCommand::Split { what, .. } => split::run(store, what, out),
            IpamCommand::Configure { what, .. } => configure::run(&ipam, what, out),
        }
    }
}

/// An address as calicoctl takes it: it complains on standard output.
fn address(given: &str, out: &mut String) -> Result<IpAddr, Failure> {
    let addr = given.parse::<IpAddr>().map(|addr| match addr {
        // Go takes ::ffff:10.0.0.1 for 10.0.0.1.
        IpAddr::V6(six) => six.to_ipv4_mapped().map_or(addr, IpAddr::V4),
        IpAddr::V4(_) => addr,
    });
    addr.map_err(|_| {
        out.push_str(&format!("Error executing command: invalid IP address specified: {given}\n"));
        Failure::new("")
    })
}

/// The cluster's own resource.
fn cluster_information(store: &dyn Store) -> Result<Stored, StoreError> {
    store.get(&resource(ResourceKind::ClusterInformation, "default"))
}

/// Do nodes leave the datastore alone (`calicoctl datastore migrate lock`)?
fn is_locked(cluster: &Stored) -> bool {
    cluster.value["spec"]["datastoreReady"].as_bool() == Some(false)
}

fn resource(kind: ResourceKind, name: &str) -> Key {
    Key::Resource(ResourceKey { kind, namespace: String::new(), name: name.to_owned() })
}

#[cfg(test)]
mod tests;

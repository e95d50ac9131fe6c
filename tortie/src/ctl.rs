//! The commands of calicoctl, on the datastore that it would work on: resources by verb, the cluster's settings, the datastore
//! as a whole, this node. What they print and refuse is calicoctl's to the letter, so that its users' scripts go on working; so are
//! their exit statuses, 0 and 1.
//!
//! A link of the binary that is called `calicoctl` has these commands alone at heart: see [`is_calicoctl`].

mod columns;
mod command;
mod config;
mod convert;
mod copy;
mod execute;
mod files;
mod get;
mod gojson;
mod gotext;
mod label;
mod migrate;
mod node;
mod optimize;
mod patch;
mod print;
mod strategic;
mod template;
mod version;
mod write;
mod yaml;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use datastore::Store;
use datastore::settings::CALICOCTL_CONFIG;

use crate::output;

pub(crate) use command::{Command, calicoctl};
use config::ConfigArgs;
use convert::ConvertArgs;
use get::GetArgs;
use label::LabelArgs;
use migrate::DatastoreArgs;
use node::NodeArgs;
use patch::PatchArgs;
use version::VersionArgs;
use write::{CreateArgs, DeleteArgs, WriteArgs};

pub(crate) use version::mismatch as version_mismatch;

use config::run as config;
use convert::run as convert;
use get::run as get;
use label::run as label;
use migrate::run as datastore;
use node::run as node;
use optimize::run as optimize;
use patch::run as patch;
use version::run as version;
use write::{apply, create, delete, replace, validate};

/// Flags that all of calicoctl's commands take, before or after the command.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct GlobalArgs {
    /// Work on a cluster of another version, too
    #[arg(long, global = true, hide = true)]
    pub(crate) allow_version_mismatch: bool,

    /// Taken for calicoctl's sake: commands say what they do without it
    #[arg(long, global = true, value_name = "LEVEL", default_value = "panic", hide = true)]
    pub(crate) log_level: String,

    /// Taken for calicoctl's sake: only its Kubernetes datastore has contexts
    #[arg(long, global = true, value_name = "CONTEXT", hide = true)]
    pub(crate) context: Option<String>,
}

impl GlobalArgs {
    /// Why no command may run with these.
    fn objection(&self) -> Option<String> {
        const LEVELS: [&str; 8] = ["panic", "fatal", "error", "warn", "warning", "info", "debug", "trace"];
        let level = &self.log_level;
        let known = LEVELS.iter().any(|known| known.eq_ignore_ascii_case(level));
        (!known).then(|| {
            format!("unknown log level: {level}, expected one of: panic, fatal, error, warn, info, debug")
        })
    }
}

/// Which datastore a command works on.
#[derive(Clone, Debug, Args)]
pub(crate) struct StoreArgs {
    /// Connection settings in YAML or JSON, as calicoctl has them; without the usual file, its environment variables count
    #[arg(short, long, value_name = "CONFIG", default_value = CALICOCTL_CONFIG)]
    pub(crate) config: PathBuf,
}

/// Which namespace a command works in.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct NamespaceArgs {
    /// Namespace of the resource; those that have one are in `default` otherwise
    #[arg(short, long, value_name = "NS")]
    pub(crate) namespace: Option<String>,
}

/// What a command has to say.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Said {
    /// On standard output.
    pub(crate) out: String,
    /// Why it failed, on standard error.
    pub(crate) error: Option<String>,
}

impl Said {
    fn fine(out: impl Into<String>) -> Said {
        Said { out: out.into(), error: None }
    }

    fn failed(error: impl Into<String>) -> Said {
        Said { out: String::new(), error: Some(error.into()) }
    }

    /// Prints it.
    fn finish(self) -> anyhow::Result<ExitCode> {
        output::print(&self.out)?;
        let Some(error) = self.error else { return Ok(ExitCode::SUCCESS) };
        eprintln!("{}", massaged(&error));
        Ok(ExitCode::FAILURE)
    }
}

/// Errors of decoding lead with how they came about, which says nothing to an operator.
fn massaged(error: &str) -> String {
    let error = error.strip_prefix("error unmarshaling JSON: while decoding JSON: json: ").unwrap_or(error);
    let unknown = error.split_once("unknown field \"").and_then(|(_, rest)| rest.split_once('"'));
    match unknown {
        Some((field, _)) => {
            format!("field in document is not recognized or is in the wrong location: {field}")
        }
        None => error.to_owned(),
    }
}

/// Is the binary called as calicoctl?
pub(crate) fn is_calicoctl() -> bool {
    let name = std::env::args_os().next();
    name.is_some_and(|name| {
        Path::new(&name).file_name().is_some_and(|name| name.to_string_lossy().starts_with("calicoctl"))
    })
}

/// Does something with the store, or says that there is none.
fn with_store(
    args: &StoreArgs,
    global: &GlobalArgs,
    run: impl FnOnce(&dyn Store) -> Said,
) -> anyhow::Result<ExitCode> {
    let store = match datastore::settings::open(&args.config) {
        Ok(store) => store,
        Err(error) => {
            output::print(&format!("Failed to create Calico API client: {error}\n"))?;
            return Ok(ExitCode::FAILURE);
        }
    };
    let said = match version::mismatch(&*store, global.allow_version_mismatch) {
        Some(error) => Said::failed(error),
        None => run(&*store),
    };
    said.finish()
}

#[cfg(test)]
mod tests;

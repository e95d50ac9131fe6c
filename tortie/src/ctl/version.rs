//! `version`, and whether this program and a cluster are for each other.

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use datastore::{ApiObject, Client, ClientError, ResourceKind, Store};

use super::{GlobalArgs, StoreArgs};
use crate::output;

/// The version of Calico's API that this speaks: any 3.x may be in the cluster.
const API: &str = "3";
/// The commit that this was built from, where the builder says so.
const COMMIT: &str = match option_env!("TORTIE_GIT_COMMIT") {
    Some(commit) => commit,
    None => "unknown",
};

/// What `version` takes.
#[derive(Clone, Debug, Args)]
pub(crate) struct VersionArgs {
    #[command(flatten)]
    store: StoreArgs,
    /// Only that of this program
    #[arg(long)]
    client: bool,
    /// Ask the cluster again and again, so often (1s, 10m, 2h)
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    poll: Option<Duration>,
}

/// `version`.
///
/// # Errors
/// Standard output can't be written.
pub(crate) fn run(args: &VersionArgs, _: &GlobalArgs) -> anyhow::Result<ExitCode> {
    output::print(&format!(
        "Client Version:    v{}\nGit commit:        {COMMIT}\n",
        env!("CARGO_PKG_VERSION")
    ))?;
    if args.client {
        return Ok(ExitCode::SUCCESS);
    }
    let store = match datastore::settings::open(&args.store.config) {
        Ok(store) => store,
        Err(error) => {
            eprintln!("{error}");
            return Ok(ExitCode::FAILURE);
        }
    };
    let mut shown = Vec::new();
    loop {
        let failed = match cluster(&*store) {
            Ok(lines) => {
                for line in lines.iter().filter(|line| !shown.contains(*line)) {
                    output::print(line)?;
                }
                shown = lines;
                false
            }
            Err(error) => {
                eprintln!("Unable to retrieve Cluster Version or Type: {error}");
                shown.clear();
                true
            }
        };
        match args.poll.filter(|poll| !poll.is_zero()) {
            Some(poll) => std::thread::sleep(poll),
            None => return Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }),
        }
    }
}

/// The cluster's version and type, a line each.
pub(super) fn cluster(store: &dyn Store) -> Result<Vec<String>, ClientError> {
    let cluster = Client::new(store).get(ResourceKind::ClusterInformation, "", "default")?;
    let known = |field: &str| match cluster.spec_text(field) {
        "" => "unknown".to_owned(),
        text => text.to_owned(),
    };
    Ok(vec![
        format!("Cluster Version:   {}\n", known("calicoVersion")),
        format!("Cluster Type:      {}\n", known("clusterType")),
    ])
}

/// Why a command shouldn't touch this cluster, unless it is told to.
pub(crate) fn mismatch(store: &dyn Store, allowed: bool) -> Option<String> {
    if allowed {
        return None;
    }
    let cluster: ApiObject = match Client::new(store).get(ResourceKind::ClusterInformation, "", "default") {
        Ok(cluster) => cluster,
        Err(ClientError::NotFound(_)) => return None,
        Err(error) => {
            return Some(format!(
                "unable to get Cluster Information to verify version mismatch: {error}\nUse --allow-version-mismatch to \
                 override.\n"
            ));
        }
    };
    let version = cluster.spec_text("calicoVersion");
    let major = version.trim_start_matches('v').split('.').next().unwrap_or_default();
    if version.is_empty() || major == API || !major.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    Some(format!(
        "version mismatch.\nClient Version:   v{} for Calico v{API}\nCluster Version:  {version}\nUse \
         --allow-version-mismatch to override.\n",
        env!("CARGO_PKG_VERSION")
    ))
}

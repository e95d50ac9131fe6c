//! `ipam release`: one address, or what reports of `ipam check` call leaked.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use clap::Args;
use datastore::ipam::{Ipam, Release};
use datastore::{Key, Store, StoreError, Stored};

use super::report::{HandleInfo, Report};
use super::{Failure, VERSION, address, cluster_information, is_locked};

#[derive(Clone, Debug, Default, Args)]
pub(super) struct ReleaseArgs {
    /// IP address to release
    #[arg(long, value_name = "IP")]
    pub(super) ip: Option<String>,
    /// Release all leaked addresses from the report; of several reports, those that all of them call leaked
    #[arg(long, value_name = "REPORT")]
    pub(super) from_report: Vec<PathBuf>,
    /// Force release of leaked addresses
    #[arg(long)]
    pub(super) force: bool,
}

pub(super) fn run(
    store: &dyn Store,
    ipam: &Ipam<'_>,
    args: &ReleaseArgs,
    out: &mut String,
) -> Result<(), Failure> {
    if !args.from_report.is_empty() {
        from_reports(store, ipam, args, out)?;
        out.push_str("You may now unlock the data store.\n");
        return Ok(());
    }
    let Some(given) = args.ip.as_deref().filter(|given| !given.is_empty()) else { return Ok(()) };
    let addr = address(given, out)?;
    let released =
        ipam.release(&[Release::of(addr)]).map_err(|error| Failure::new(format!("error: {error}")))?;
    if !released.unassigned.is_empty() {
        return Err(Failure::new(format!("IP address {addr} is not assigned")));
    }
    out.push_str(&format!("Successfully released IP address {addr}\n"));
    Ok(())
}

fn from_reports(
    store: &dyn Store,
    ipam: &Ipam<'_>,
    args: &ReleaseArgs,
    out: &mut String,
) -> Result<(), Failure> {
    let cluster = cluster_information(store)?;
    let mut reports = Vec::new();
    for file in &args.from_report {
        reports.push(read(file, &cluster, args.force, out)?);
    }
    let revision = cluster.revision.0.to_string();
    if !reports.iter().any(|report| report.cluster_information_revision == revision) {
        return Err(Failure::new(
            "the provided reports are all stale - at least one should be up-to-date. Please generate a new report while \
             the data store is locked and try again",
        ));
    }
    if !is_locked(&cluster) {
        if !args.force {
            return Err(Failure::new(
                "data store is not locked. Either lock the data store, or re-run with --force",
            ));
        }
        out.push_str("WARNING: Data store is not locked. Ignoring due to --force option\n");
    }
    let (addresses, handles) = common(&reports);
    if addresses.is_empty() {
        out.push_str("Report didn't contain any leaked IPs to clean up.\n");
    } else {
        release_addresses(ipam, addresses, out);
    }
    if handles.is_empty() {
        out.push_str("Report didn't contain any handles to clean up.\n");
    } else {
        delete_handles(store, &handles, out);
    }
    Ok(())
}

fn read(file: &Path, cluster: &Stored, force: bool, out: &mut String) -> Result<Report, Failure> {
    let text = std::fs::read_to_string(file)
        .map_err(|error| Failure::new(format!("open {}: {error}", file.display())))?;
    let report: Report =
        serde_json::from_str(&text).map_err(|error| Failure::new(format!("{}: {error}", file.display())))?;
    let name = file.display();
    if cluster.value["spec"]["clusterGUID"].as_str().unwrap_or_default() != report.cluster_guid {
        return Err(Failure::new(format!(
            "cluster does not match the provided report ({name}): mismatched cluster GUID. Refusing to release"
        )));
    }
    if report.version != VERSION {
        if !force {
            return Err(Failure::new(format!(
                "the provided report ({name}) was produced using a different version ({}) of calicoctl. Refusing to \
                 release",
                report.version
            )));
        }
        out.push_str(
            "WARNING: Report was produced using a different version of calicoctl. Ignoring due to --force option\n",
        );
    }
    Ok(report)
}

/// What every report calls leaked: addresses as the last one knows them, handles that no report saw change.
fn common(reports: &[Report]) -> (BTreeMap<IpAddr, Release>, BTreeMap<String, HandleInfo>) {
    let mut addresses: Option<BTreeMap<IpAddr, Release>> = None;
    let mut handles: Option<BTreeMap<String, HandleInfo>> = None;
    for report in reports {
        let leaked = report.allocations.values().flatten();
        let leaked = leaked.filter(|allocation| !allocation.in_use && !allocation.cooling_down);
        let leaked = leaked.filter_map(|allocation| {
            let addr = allocation.ip.parse().ok()?;
            let handle = Some(allocation.handle.clone()).filter(|handle| !handle.is_empty());
            Some((addr, Release { addr, handle, sequence_number: allocation.sequence_number }))
        });
        let before = addresses.take();
        addresses = Some(
            leaked.filter(|(addr, _)| before.as_ref().is_none_or(|all| all.contains_key(addr))).collect(),
        );
        let before = handles.take();
        let unchanged = |handle: &&HandleInfo| {
            before
                .as_ref()
                .is_none_or(|all| all.get(&handle.id).is_some_and(|other| other.revision == handle.revision))
        };
        let kept = report.leaked_handles.iter().filter(unchanged);
        handles = Some(kept.map(|handle| (handle.id.clone(), handle.clone())).collect());
    }
    (addresses.unwrap_or_default(), handles.unwrap_or_default())
}

fn release_addresses(ipam: &Ipam<'_>, addresses: BTreeMap<IpAddr, Release>, out: &mut String) {
    let asked: Vec<Release> = addresses.into_values().collect();
    out.push_str(&format!("Releasing {} old IPs...\n", asked.len()));
    match ipam.release(&asked) {
        Ok(released) => {
            let gone = released.unassigned.len();
            out.push_str(&format!("Released {} IPs successfully\n", asked.len() - gone));
            if gone > 0 {
                out.push_str(&format!(
                    "{gone} addresses marked as leaked in the report had already been cleaned up.\n"
                ));
            }
        }
        Err(error) => out.push_str(&format!(
            "An error occurred while releasing some IPs: {error}.  Problems are often caused by an out-of-date IPAM \
             report.  Try regenerating the IPAM report and retry.\n"
        )),
    }
}

fn delete_handles(store: &dyn Store, handles: &BTreeMap<String, HandleInfo>, out: &mut String) {
    out.push_str(&format!("Deleting {} handles...\n", handles.len()));
    out.push_str("Key: '.' = Deleted OK; 'x' = skip, handle missing/changed.\n");
    let (mut released, mut skipped, mut errors) = (0, 0, 0);
    for (id, handle) in handles {
        match delete_handle(store, handle) {
            Ok(()) => {
                released += 1;
                out.push('.');
            }
            Err(StoreError::NotFound(_) | StoreError::Conflict(_)) => {
                skipped += 1;
                out.push('x');
            }
            Err(error) => {
                errors += 1;
                out.push_str(&format!("\nDeleting handle {id} failed: {error}.\n"));
            }
        }
    }
    out.push_str(&format!("\nReleased {released} handles; {skipped} skipped; {errors} errors.\n"));
}

fn delete_handle(store: &dyn Store, handle: &HandleInfo) -> Result<(), StoreError> {
    let key = Key::Handle(handle.id.clone());
    let stored = store.get(&key)?;
    if stored.revision.0.to_string() != handle.revision || handle.uid.is_some() {
        return Err(StoreError::Conflict(key));
    }
    store.delete(&key, Some(stored.revision)).map(drop)
}

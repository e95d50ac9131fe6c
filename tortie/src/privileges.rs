//! What a start needs of the kernel's capabilities, and what is given up after it (ARCHITECTURE.md, D13).
//!
//! At once and for good: all that nothing here ever needs ([`give_up_the_rest`]). Then the threads, each with its own:
//!
//! | thread | has |
//! | --- | --- |
//! | main: control socket, metrics, looking glass | nothing, from when the slow path is started |
//! | BGP, BFD, datastore, what the node tells of itself | nothing, from birth |
//! | workers | CAP_NET_RAW: a queue is closed once a raw socket shows that the kernel is done with its frames |
//! | mirror, host endpoints' policy | CAP_NET_ADMIN |
//! | slow path: punted packets, links and routes | what is kept, laid aside but for the length of a call into the kernel |
//!
//! `tests/run.rs` holds a running router to this table.

use std::fmt;

use anyhow::Context;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{
    clear_ambient_capability_set, configure_capability_in_ambient_set, remove_capability_from_bounding_set,
    set_no_new_privs,
};
use slowpath::privileges::{self, CapabilitySet, NET_ADMIN, NOTHING};

/// A capability, or several of which one is enough, and what it is for.
struct Need {
    any_of: &'static [CapabilitySet],
    purpose: &'static str,
}

const NEEDS: &[Need] = &[
    Need { any_of: &[NET_ADMIN], purpose: "links, routes and attaching XDP programs" },
    Need { any_of: &[CapabilitySet::BPF, CapabilitySet::SYS_ADMIN], purpose: "loading XDP programs" },
    Need { any_of: &[CapabilitySet::NET_RAW], purpose: "AF_XDP sockets" },
    Need { any_of: &[CapabilitySet::IPC_LOCK], purpose: "memory that the NIC writes into" },
];

/// What else the slow path may keep: BGP's port 179, and workloads' network namespaces, to find and to enter them.
const ALSO_OF_USE: CapabilitySet =
    CapabilitySet::NET_BIND_SERVICE.union(CapabilitySet::SYS_ADMIN).union(CapabilitySet::SYS_PTRACE);

/// Capabilities are missing.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("this process lacks {}; run tortie as root, or give its unit AmbientCapabilities= with these", List(.0))]
pub(crate) struct Missing(Vec<String>);

struct List<'a>(&'a [String]);

impl fmt::Display for List<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join(", "))
    }
}

/// Has this process what a start needs?
///
/// # Errors
/// What is missing.
pub(crate) fn check() -> Result<(), Missing> {
    check_set(privileges::permitted())
}

fn check_set(capabilities: CapabilitySet) -> Result<(), Missing> {
    let missing: Vec<String> = NEEDS
        .iter()
        .filter(|need| !need.any_of.iter().any(|one| capabilities.contains(*one)))
        .map(|need| {
            let names: Vec<String> = need.any_of.iter().map(|one| names(*one)).collect();
            format!("{} ({})", names.join(" or "), need.purpose)
        })
        .collect();
    if missing.is_empty() { Ok(()) } else { Err(Missing(missing)) }
}

/// As capabilities(7) names them.
fn names(set: CapabilitySet) -> String {
    let names: Vec<String> = set.iter_names().map(|(name, _)| format!("CAP_{name}")).collect();
    names.join(" ")
}

/// All that anything here needs once it runs.
fn kept() -> CapabilitySet {
    NEEDS.iter().flat_map(|need| need.any_of).fold(ALSO_OF_USE, |kept, one| kept.union(*one))
}

/// Lets threads of this process come before others by the lowest real-time priority, without a capability for it: BFD's does.
/// Where neither CAP_SYS_RESOURCE nor the unit (`LimitRTPRIO=`) permits that, they come as all do.
pub(crate) fn permit_coming_first() {
    let Rlimit { current, maximum } = getrlimit(Resource::Rtprio);
    let least = Some(1);
    // `None` is no limit.
    if current < least && current.is_some() {
        let maximum = if maximum.is_some() { maximum.max(least) } else { maximum };
        let _ = setrlimit(Resource::Rtprio, Rlimit { current: least, maximum });
    }
}

/// Gives up, for good and for programs that are started (nft), what nothing here needs. Before there are other threads, which
/// would keep theirs.
///
/// # Errors
/// The kernel refuses: a seccomp filter that forbids prctl or capset.
pub(crate) fn give_up_the_rest() -> anyhow::Result<()> {
    let (before, kept) = (privileges::permitted(), kept());
    let refused = "can't give up capabilities; does a seccomp filter forbid prctl or capset?";
    // Or root would have it all again in a program that it starts.
    set_no_new_privs(true).context(refused)?;
    if before.contains(CapabilitySet::SETPCAP) {
        // Those that this kernel doesn't know it refuses, and has not.
        for capability in CapabilitySet::all().difference(kept).iter() {
            let _ = remove_capability_from_bounding_set(capability);
        }
    }
    privileges::keep(kept).context(refused)?;
    hand_on(before.intersection(NET_ADMIN)).context(refused)?;
    let after = privileges::permitted();
    tracing::info!(
        kept = names(after),
        "privileges: {} given up for good; of those that are kept, what hears the outside world has none in effect",
        before.difference(after).iter_names().count()
    );
    Ok(())
}

/// What nft has where the router isn't root's.
fn hand_on(handed: CapabilitySet) -> std::io::Result<()> {
    clear_ambient_capability_set()?;
    privileges::inherit(handed)?;
    for capability in handed.iter() {
        configure_capability_in_ambient_set(capability, true)?;
    }
    Ok(())
}

/// The calling thread, and those that it starts from now on, go without any.
///
/// # Errors
/// As for [`give_up_the_rest`].
pub(crate) fn give_up_all() -> anyhow::Result<()> {
    privileges::keep(NOTHING).context("can't give up capabilities")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_lacks_nothing() {
        assert_eq!(check_set(CapabilitySet::all()), Ok(()));
    }

    #[test]
    fn sys_admin_stands_in_for_bpf_on_older_kernels() {
        let others = NET_ADMIN | CapabilitySet::NET_RAW | CapabilitySet::IPC_LOCK;
        assert_eq!(check_set(others | CapabilitySet::SYS_ADMIN), Ok(()));
        assert_eq!(check_set(others | CapabilitySet::BPF), Ok(()));
    }

    #[test]
    fn what_is_missing_is_named_with_its_purpose_and_what_to_do() {
        let message = check_set(NET_ADMIN | CapabilitySet::BPF).unwrap_err().to_string();
        assert_eq!(
            message,
            "this process lacks CAP_NET_RAW (AF_XDP sockets), CAP_IPC_LOCK (memory that the NIC writes into); \
             run tortie as root, or give its unit AmbientCapabilities= with these"
        );
    }

    #[test]
    fn the_unit_gives_what_is_kept_and_no_more() {
        let unit = include_str!("../../packaging/debian/tortie.service");
        let mut given: Vec<&str> = unit
            .lines()
            .filter_map(|line| line.strip_prefix("CapabilityBoundingSet="))
            .flat_map(str::split_whitespace)
            .collect();
        given.sort_unstable();
        let kept = names(kept());
        let mut kept: Vec<&str> = kept.split_whitespace().collect();
        kept.sort_unstable();
        assert_eq!(given, kept);
    }
}

//! The workload's end of its veth pair, which lives in a network namespace of its own.
//!
//! The kernel there leaves checksums to an offload that a veth doesn't have, and no flag tells the walk which frames
//! carry a partial one; so the offload is switched off at the source when a port is attached (ARCHITECTURE.md, D8). Its MTU is
//! lowered to what the path's tunnels leave (`workload_mtu.rs`).

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use model::IfIndex;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::nsid::{NsidAttribute, NsidMessage};
use nix::sched::{CloneFlags, setns};

use crate::ethtool::{self, EthtoolError};
use crate::interfaces::{self, Link};
use crate::netlink::{Netlink, NetlinkError};
use crate::privileges::raised;

/// Where namespaces with a name are mounted: by `ip netns` and CNI runtimes, and by Docker.
const NAMED_NAMESPACES: [&str; 2] = ["/run/netns", "/run/docker/netns"];

/// Why the workload's end is left as it was.
#[derive(Debug, thiserror::Error)]
pub enum WorkloadSideError {
    /// It isn't one end of a veth pair.
    #[error("{interface} is no veth, so it has no end at the workload's side to change")]
    NotVeth {
        /// The interface.
        interface: String,
    },
    /// No namespace that we can see holds the other end.
    #[error(
        "no network namespace under /run/netns or /proc holds the other end of {interface}; is /proc the host's?"
    )]
    NotFound {
        /// The interface.
        interface: String,
    },
    /// The namespace can't be entered.
    #[error("could not enter the network namespace of the other end of {interface}: {source}")]
    Enter {
        /// The interface.
        interface: String,
        /// The kernel's reason.
        source: io::Error,
    },
    /// The kernel can't be asked.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    /// The offload stays on.
    #[error(transparent)]
    Ethtool(#[from] EthtoolError),
}

/// Switches off transmit checksum offload of the other end of `link`, a workload's veth, wherever that end is.
///
/// # Errors
/// See [`WorkloadSideError`]; TCP and UDP from that workload would then reach their destination with bad checksums.
pub fn disable_transmit_checksum(netlink: &mut Netlink, link: &Link) -> Result<(), WorkloadSideError> {
    at_other_end(netlink, link, |_, end| Ok(ethtool::disable_transmit_checksum(&end.name)?))
}

/// Brings the MTU of both ends of `link`, a workload's veth, down to `mtu` bytes where it is larger; the workload's own end
/// first, so that it doesn't send what ours no longer takes.
///
/// # Errors
/// See [`WorkloadSideError`]; the workload would then learn the path's MTU by ICMP, packet by packet.
pub fn lower_mtu(netlink: &mut Netlink, link: &Link, mtu: u32) -> Result<(), WorkloadSideError> {
    at_other_end(netlink, link, |netlink, end| Ok(interfaces::lower_mtu(netlink, end, mtu)?))?;
    Ok(interfaces::lower_mtu(netlink, link, mtu)?)
}

/// Does something at the other end of a veth, in the network namespace that it is in.
fn at_other_end(
    netlink: &mut Netlink,
    link: &Link,
    act: impl Fn(&mut Netlink, &Link) -> Result<(), WorkloadSideError> + Send + Copy,
) -> Result<(), WorkloadSideError> {
    let peer = match (link.peer, link.kind.as_deref()) {
        (Some(peer), Some("veth")) => peer,
        _ => return Err(WorkloadSideError::NotVeth { interface: link.name.clone() }),
    };
    let Some(id) = link.peer_netns else { return act_here(netlink, link, peer, act) };
    // Others' namespaces are found and entered with what nothing else needs.
    raised(|| {
        for namespace in namespaces() {
            // A namespace without an id of ours holds none of our peers.
            if matches!(namespace_id(netlink, &namespace), Ok(Some(found)) if found == id) {
                return act_there(&namespace, link, peer, act);
            }
        }
        Err(WorkloadSideError::NotFound { interface: link.name.clone() })
    })
}

fn act_here(
    netlink: &mut Netlink,
    link: &Link,
    peer: IfIndex,
    act: impl Fn(&mut Netlink, &Link) -> Result<(), WorkloadSideError>,
) -> Result<(), WorkloadSideError> {
    let links = interfaces::links(netlink)?;
    match links.iter().find(|other| other.ifindex == peer) {
        Some(other) => act(netlink, other),
        None => Err(WorkloadSideError::NotFound { interface: link.name.clone() }),
    }
}

/// A thread of its own enters the namespace and ends there, so that the caller's never leaves its own.
fn act_there(
    namespace: &File,
    link: &Link,
    peer: IfIndex,
    act: impl Fn(&mut Netlink, &Link) -> Result<(), WorkloadSideError> + Send,
) -> Result<(), WorkloadSideError> {
    let enter_error = |source| WorkloadSideError::Enter { interface: link.name.clone(), source };
    std::thread::scope(|scope| {
        let visit = std::thread::Builder::new().name("workload-side".into()).spawn_scoped(scope, || {
            setns(namespace, CloneFlags::CLONE_NEWNET).map_err(|errno| enter_error(errno.into()))?;
            act_here(&mut Netlink::open()?, link, peer, act)
        });
        let visited = visit.map_err(enter_error)?.join();
        visited.unwrap_or_else(|_| Err(enter_error(io::Error::other("the visiting thread panicked"))))
    })
}

/// The id by which our namespace knows another (`ip netns list-id`), if it does.
fn namespace_id(netlink: &mut Netlink, namespace: &File) -> Result<Option<i32>, NetlinkError> {
    let mut message = NsidMessage::default();
    message.attributes.push(NsidAttribute::Fd(namespace.as_raw_fd() as u32));
    netlink.query("learn a namespace's id", RouteNetlinkMessage::GetNsId(message), 0, |answer| match answer {
        RouteNetlinkMessage::NewNsId(found) => {
            found.attributes.iter().find_map(|attribute| match attribute {
                NsidAttribute::Id(id) => Some(*id),
                _ => None,
            })
        }
        _ => None,
    })
}

/// Every network namespace that we can see, once: those with a name first, then those of processes.
fn namespaces() -> impl Iterator<Item = File> {
    let entries =
        |directory: &str| fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path());
    let named = NAMED_NAMESPACES.into_iter().flat_map(entries);
    let processes = entries("/proc").filter(|path| is_process(path)).map(|path| path.join("ns/net"));
    let mut seen = BTreeSet::new();
    named.chain(processes).filter_map(move |path| {
        let file = File::open(path).ok()?;
        let metadata = file.metadata().ok()?;
        seen.insert((metadata.dev(), metadata.ino())).then_some(file)
    })
}

fn is_process(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.as_encoded_bytes().iter().all(u8::is_ascii_digit))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Neighborhood, has, in_namespace, ip, run};

    fn link(name: &str) -> Link {
        let links = interfaces::links(&mut Netlink::open().unwrap()).unwrap();
        links.into_iter().find(|link| link.name == name).unwrap()
    }

    #[test]
    fn the_offload_goes_off_in_the_workloads_own_namespace() {
        if !has("ethtool") {
            return;
        }
        in_namespace(|| {
            let mut netlink = Netlink::open().unwrap();
            let workload = Neighborhood::behind("cali1", "eth0");
            let _another = Neighborhood::behind("cali2", "eth0");
            let is_on = || workload.output("ethtool -k eth0").contains("tx-checksumming: on");
            assert!(is_on());
            disable_transmit_checksum(&mut netlink, &link("cali1")).unwrap();
            assert!(!is_on());
            assert!(
                run("ethtool", "-k cali1").contains("tx-checksumming: on"),
                "the host's end is left alone"
            );
            assert!(ip("link show").contains("cali1"), "and this thread is where it was");
        });
    }

    #[test]
    fn an_end_in_our_own_namespace_is_found_too() {
        if !has("ethtool") {
            return;
        }
        in_namespace(|| {
            ip("link add cali1 type veth peer name eth1");
            disable_transmit_checksum(&mut Netlink::open().unwrap(), &link("cali1")).unwrap();
            assert!(run("ethtool", "-k eth1").contains("tx-checksumming: off"));
        });
    }

    #[test]
    fn the_mtu_comes_down_at_both_ends_and_never_goes_up() {
        in_namespace(|| {
            let mut netlink = Netlink::open().unwrap();
            let workload = Neighborhood::behind("cali1", "eth0");
            let mtus = || [ip("link show cali1"), workload.output("ip link show eth0")];
            lower_mtu(&mut netlink, &link("cali1"), 1450).unwrap();
            assert!(mtus().iter().all(|shown| shown.contains(" mtu 1450 ")), "{:?}", mtus());
            lower_mtu(&mut netlink, &link("cali1"), 1500).unwrap();
            assert!(mtus().iter().all(|shown| shown.contains(" mtu 1450 ")), "{:?}", mtus());
        });
    }

    #[test]
    fn what_is_no_veth_is_named() {
        in_namespace(|| {
            let error = disable_transmit_checksum(&mut Netlink::open().unwrap(), &link("lo")).unwrap_err();
            assert!(error.to_string().starts_with("lo is no veth"), "{error}");
        });
    }
}

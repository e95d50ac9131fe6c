//! Multicast groups that segments flood to, joined by the kernel: it speaks IGMP and MLD, and has the NIC let the group's
//! frames in. The frames themselves go to the walk.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;

use model::IfIndex;
use socket2::{Domain, InterfaceIndexOrAddress, Protocol, Socket, Type};

/// A group on a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Membership {
    pub(crate) group: IpAddr,
    pub(crate) ifindex: IfIndex,
}

/// The memberships of this process: a socket each, which holds it for as long as it is open. It is bound to no port, so
/// nothing is delivered to it.
#[derive(Debug, Default)]
pub(crate) struct Groups {
    joined: BTreeMap<Membership, Socket>,
    problems: BTreeMap<Membership, String>,
}

impl Groups {
    /// Joins what is wanted and isn't joined, and leaves what isn't wanted any more. What the kernel refuses is a problem,
    /// and is tried again with the next call.
    pub(crate) fn keep(&mut self, wanted: &BTreeSet<Membership>) {
        self.joined.retain(|membership, _| wanted.contains(membership));
        self.problems.clear();
        for membership in wanted {
            if self.joined.contains_key(membership) {
                continue;
            }
            match join(*membership) {
                Ok(socket) => drop(self.joined.insert(*membership, socket)),
                Err(error) => drop(self.problems.insert(*membership, error.to_string())),
            }
        }
    }

    /// Why a membership is none.
    pub(crate) fn problem(&self, membership: Membership) -> Option<&str> {
        self.problems.get(&membership).map(String::as_str)
    }

    /// Did the kernel refuse anything?
    pub(crate) fn has_problems(&self) -> bool {
        !self.problems.is_empty()
    }
}

fn join(Membership { group, ifindex }: Membership) -> io::Result<Socket> {
    let domain = if group.is_ipv4() { Domain::IPV4 } else { Domain::IPV6 };
    let socket = Socket::new(domain, Type::DGRAM.cloexec(), Some(Protocol::UDP))?;
    match group {
        IpAddr::V4(group) => {
            socket.join_multicast_v4_n(&group, &InterfaceIndexOrAddress::Index(ifindex.0))?;
        }
        IpAddr::V6(group) => socket.join_multicast_v6(&group, ifindex.0)?,
    }
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    const LOOPBACK: IfIndex = IfIndex(1);

    /// As the kernel shows them (`/proc/net/igmp`, in host order, and `/proc/net/igmp6`).
    fn is_joined(group: IpAddr) -> bool {
        match group {
            IpAddr::V4(group) => {
                let mark = format!("{:08X}", u32::from_ne_bytes(group.octets()));
                fs::read_to_string("/proc/self/net/igmp").unwrap().contains(&mark)
            }
            IpAddr::V6(group) => {
                let mark: String = group.octets().iter().map(|octet| format!("{octet:02x}")).collect();
                fs::read_to_string("/proc/self/net/igmp6").unwrap().contains(&mark)
            }
        }
    }

    #[test]
    fn a_group_is_joined_while_it_is_wanted() {
        for group in ["239.77.66.55", "ff05::7766:55"] {
            let group: IpAddr = group.parse().unwrap();
            let membership = Membership { group, ifindex: LOOPBACK };
            let mut groups = Groups::default();
            groups.keep(&BTreeSet::from([membership]));
            if let Some(problem) = groups.problem(membership) {
                println!("skipped: this kernel joins no group on the loopback interface: {problem}");
                continue;
            }
            assert!(is_joined(group));
            groups.keep(&BTreeSet::from([membership]));
            assert!(is_joined(group));
            groups.keep(&BTreeSet::new());
            assert!(!is_joined(group));
        }
    }

    #[test]
    fn a_group_on_no_link_is_a_problem_that_says_why() {
        let membership = Membership { group: [239, 1, 1, 1].into(), ifindex: IfIndex(0x7fff_0000) };
        let mut groups = Groups::default();
        groups.keep(&BTreeSet::from([membership]));
        assert!(groups.has_problems() && groups.problem(membership).is_some_and(|why| !why.is_empty()));
        groups.keep(&BTreeSet::new());
        assert!(!groups.has_problems());
    }
}

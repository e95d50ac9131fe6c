//! Sets as nft holds them: one for each family, and addresses apart from addresses with ports.

use std::collections::{BTreeMap, BTreeSet};

use model::{Family, Prefix};
use policy::sets::Member;

use super::ruleset::Set;

/// The addresses of one family.
pub fn nets<'a>(members: impl Iterator<Item = &'a Member>, family: Family) -> Set {
    let nets = members.filter_map(|member| match member {
        Member::Net(net) => Some(*net),
        Member::Port { .. } => None,
    });
    Set {
        definition: match family {
            Family::V4 => "type ipv4_addr ; flags interval ;",
            Family::V6 => "type ipv6_addr ; flags interval ;",
        },
        elements: widest(nets, family).iter().map(Prefix::to_string).collect(),
    }
}

/// The addresses of one family with their ports.
pub fn ports<'a>(members: impl Iterator<Item = &'a Member>, family: Family) -> Set {
    let mut by_port: BTreeMap<(u8, u16), Vec<Prefix>> = BTreeMap::new();
    for member in members {
        if let Member::Port { net, protocol, port } = member {
            by_port.entry((*protocol, *port)).or_default().push(*net);
        }
    }
    let elements: BTreeSet<String> = (by_port.into_iter())
        .flat_map(|((protocol, port), nets)| {
            let nets = widest(nets.into_iter(), family);
            nets.into_iter().map(move |net| format!("{net} . {protocol} . {port}"))
        })
        .collect();
    Set {
        definition: match family {
            Family::V4 => "type ipv4_addr . inet_proto . inet_service ; flags interval ;",
            Family::V6 => "type ipv6_addr . inet_proto . inet_service ; flags interval ;",
        },
        elements,
    }
}

/// The networks of a family without those that lie within another: the kernel refuses intervals that overlap.
pub fn widest(nets: impl Iterator<Item = Prefix>, family: Family) -> Vec<Prefix> {
    let mut nets: Vec<Prefix> = nets.filter(|net| net.family() == family).collect();
    // A network sorts before what lies within it.
    nets.sort_unstable();
    let mut kept: Vec<Prefix> = Vec::with_capacity(nets.len());
    for net in nets {
        if !kept.last().is_some_and(|last| last.covers(net)) {
            kept.push(net);
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(texts: &[&str]) -> Vec<Prefix> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn networks_within_others_are_left_out() {
        let all = parsed(&[
            "10.0.0.0/8",
            "10.1.0.0/16",
            "9.0.0.0/8",
            "10.255.255.255/32",
            "11.0.0.0/32",
            "fd00::/8",
        ]);
        let widest = |family| widest(all.iter().copied(), family);
        assert_eq!(widest(Family::V4), parsed(&["9.0.0.0/8", "10.0.0.0/8", "11.0.0.0/32"]));
        assert_eq!(widest(Family::V6), parsed(&["fd00::/8"]));
    }

    #[test]
    fn a_port_is_no_address_and_an_address_no_port() {
        let net = "10.0.0.1/32".parse().unwrap();
        let members = [Member::Net(net), Member::Port { net, protocol: 6, port: 80 }];
        let texts = |set: Set| set.elements.into_iter().collect::<Vec<_>>();
        assert_eq!(texts(nets(members.iter(), Family::V4)), ["10.0.0.1/32"]);
        assert_eq!(texts(ports(members.iter(), Family::V4)), ["10.0.0.1/32 . 6 . 80"]);
        assert!(texts(nets(members.iter(), Family::V6)).is_empty());
    }
}

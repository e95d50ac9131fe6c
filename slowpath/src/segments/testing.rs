//! A segment for tests: the two hosts by hand of the scenarios.

use std::net::IpAddr;
use std::time::Duration;

use model::MacAddr;

use super::{Learning, Segment, SegmentEnd};

pub(crate) const OWN_MAC: MacAddr = MacAddr([0x5a, 0, 0, 0, 0, 7]);
pub(crate) const AGEING: Duration = Duration::from_secs(300);

/// An end that is asked for, and what it routes to.
pub(crate) fn sought(address: &str, network: &str) -> SegmentEnd {
    let address: IpAddr = address.parse().unwrap();
    SegmentEnd { address, station: None, networks: vec![network.parse().unwrap()] }
}

/// host1's end: VXLAN 100, everything flooded to host2, whose own network is behind 192.168.11.1.
pub(crate) fn segment() -> Segment {
    Segment {
        name: "site".to_owned(),
        vni: 100,
        port: 4789,
        local: [10, 57, 4, 20].into(),
        mac: OWN_MAC,
        addresses: vec!["192.168.10.1".parse().unwrap(), "fd10::1".parse().unwrap()],
        direct_routing: false,
        learning: Some(Learning {
            flood: vec![[10, 57, 4, 21].into()],
            group: None,
            members: Vec::new(),
            ageing: AGEING,
            limit: 4,
        }),
        ends: vec![sought("192.168.11.1", "192.168.11.0/24"), sought("fd11::1", "fd11::/64")],
    }
}

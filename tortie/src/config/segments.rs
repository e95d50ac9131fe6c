//! `segments`: VXLAN overlays that this node joins besides Calico's.
//!
//! ```yaml
//! segments:
//! - name: site
//!   vni: 1
//!   port: 8472
//!   local: 192.168.1.2
//!   mac: "5a:00:00:00:00:07"
//!   addresses: [10.244.7.0]
//!   direct_routing: true
//!   ends:
//!   - { remote: 192.168.1.3, address: 10.244.1.0, mac: "5a:00:00:00:00:01", networks: [10.244.1.0/24] }
//! - name: by-hand
//!   vni: 100
//!   port: 4789
//!   local: 10.57.4.20
//!   mac: "5a:00:00:00:00:07"
//!   addresses: [192.168.10.1]
//!   flood: [10.57.4.21]          # or `group: 239.1.1.1`, or both
//!   members: [10.57.4.0/24]      # with a group: everybody, unless given
//!   ageing: 300
//!   ends:
//!   - { address: 192.168.11.1, networks: [192.168.11.0/24] }
//! ```

use std::net::IpAddr;
use std::time::Duration;

use model::{Family, MacAddr, Prefix};
use slowpath::{Learning, Segment, SegmentEnd, Station};

use super::error::Reason;
use super::field::{Fault, Field, optional, required};
use super::file::{EndFields, File, Section, SegmentFields};
use crate::limits;

/// What flannel takes where its network configuration names no `VNI`, and the port that Linux gives it.
const VNI: usize = 1;
const PORT: usize = 8472;
/// What Linux takes for a `vxlan` device's `ageing`, in seconds.
const AGEING: usize = 300;

/// All segments, no two of which packets can't be told apart.
pub(super) fn segments(file: &File) -> Result<Vec<Segment>, Fault> {
    let Some(fields) = &file.segments else { return Ok(Vec::new()) };
    let mut segments: Vec<Segment> = Vec::new();
    for (index, Section(fields)) in fields.iter().enumerate() {
        let path = format!("segments[{index}]");
        if index >= limits::SEGMENTS {
            return Err(Fault::of(&path, Reason::TooMany { max: limits::SEGMENTS }));
        }
        let segment = segment(&path, fields)?;
        let group = |segment: &Segment| segment.learning.as_ref().and_then(|learning| learning.group);
        for at in [Some(segment.local), group(&segment)].into_iter().flatten() {
            let is_same = |other: &Segment| {
                (other.port, other.vni) == (segment.port, segment.vni)
                    && (other.local == at || group(other) == Some(at))
            };
            if segments.iter().any(is_same) {
                let given = format!("vni {} at {at} port {}", segment.vni, segment.port);
                return Err(Fault::of(&path, Reason::Twice { given }));
            }
        }
        segments.push(segment);
    }
    Ok(segments)
}

fn segment(path: &str, fields: &SegmentFields) -> Result<Segment, Fault> {
    let name = required(path, "name", &fields.name, "name: site")?.text()?.to_owned();
    let vni = optional(path, "vni", &fields.vni).map_or(Ok(VNI), |field| field.number((0, 0xff_ffff)))?;
    let port = optional(path, "port", &fields.port).map_or(Ok(PORT), |field| field.number((1, 0xffff)))?;
    let local = address(&required(path, "local", &fields.local, "local: 192.168.1.2")?)?;
    let direct_routing =
        optional(path, "direct_routing", &fields.direct_routing).map_or(Ok(false), |field| field.truth())?;
    let mut addresses = Vec::new();
    if let Some(field) = optional(path, "addresses", &fields.addresses) {
        for item in field.items()? {
            addresses.push(address(&item)?);
        }
    }
    let learning = learning(path, fields, local)?;
    let mut ends = Vec::new();
    for (index, Section(fields)) in fields.ends.iter().flatten().enumerate() {
        let path = format!("{path}.ends[{index}]");
        if index >= limits::SEGMENT_ENDS {
            return Err(Fault::of(&path, Reason::TooMany { max: limits::SEGMENT_ENDS }));
        }
        let end = end(&path, fields, Family::of(local), learning.is_some())?;
        let family = Family::of(end.address);
        if end.station.is_none() && !addresses.iter().any(|own| Family::of(*own) == family) {
            return Err(Fault::of(&path, Reason::NothingToAskFrom { family }));
        }
        ends.push(end);
    }
    Ok(Segment {
        name,
        // Both are within their range.
        vni: vni as u32,
        port: port as u16,
        local,
        mac: mac(&required(path, "mac", &fields.mac, "mac: \"5a:00:00:00:00:07\"")?)?,
        addresses,
        direct_routing,
        learning,
        ends,
    })
}

/// How ends are found whose place isn't written down; `None` where all are.
fn learning(path: &str, fields: &SegmentFields, local: IpAddr) -> Result<Option<Learning>, Fault> {
    let family = Family::of(local);
    let group_field = optional(path, "group", &fields.group);
    let flood_field = optional(path, "flood", &fields.flood);
    let members_field = optional(path, "members", &fields.members);
    let ageing_field = optional(path, "ageing", &fields.ageing);
    if group_field.is_none() && flood_field.is_none() {
        let pointless = members_field.or(ageing_field);
        return pointless.map_or(Ok(None), |field| Err(field.fault(Reason::NobodyAsked)));
    }
    let group = match group_field {
        Some(field) => Some(group_address(&field, family)?),
        None => None,
    };
    let mut flood = Vec::new();
    for item in list(flood_field)? {
        let remote = outer_address(&item, family)?;
        if remote.is_multicast() || remote.is_unspecified() || remote == local {
            let reason = Reason::NoSuch {
                given: remote.to_string(),
                expected: "other end's address",
                example: "192.168.1.3",
            };
            return Err(item.fault(reason));
        }
        flood.push(remote);
    }
    let mut members = Vec::new();
    for item in list(members_field)? {
        let network: Prefix = item.parse("network", "192.168.1.0/24")?;
        if network.family() != family {
            return Err(item.fault(Reason::OtherFamily { given: network.to_string(), family }));
        }
        members.push(network);
    }
    // Nobody can tell who is in a group, so like Linux it is everybody who can send to it.
    if members.is_empty() && group.is_some() {
        members.push(everybody(family));
    }
    let ageing = ageing_field.map_or(Ok(AGEING), |field| field.number(limits::SEGMENT_AGEING))?;
    let ageing = Duration::from_secs(ageing as u64);
    Ok(Some(Learning { flood, group, members, ageing, limit: limits::SEGMENT_STATIONS }))
}

fn group_address(field: &Field<'_>, family: Family) -> Result<IpAddr, Fault> {
    let group = outer_address(field, family)?;
    if group.is_multicast() {
        return Ok(group);
    }
    let (expected, example) = ("multicast group", "239.1.1.1");
    Err(field.fault(Reason::NoSuch { given: group.to_string(), expected, example }))
}

fn everybody(family: Family) -> Prefix {
    match family {
        Family::V4 => Prefix::new(std::net::Ipv4Addr::UNSPECIFIED.into(), 0),
        Family::V6 => Prefix::new(std::net::Ipv6Addr::UNSPECIFIED.into(), 0),
    }
    .expect("no bits fit any family")
}

/// The items of a list, which has none where it isn't there.
fn list(field: Option<Field<'_>>) -> Result<Vec<Field<'_>>, Fault> {
    let items = field.map_or(Ok(Vec::new()), |field| field.items())?;
    match items.get(limits::SEGMENT_FLOOD) {
        Some(item) => Err(item.fault(Reason::TooMany { max: limits::SEGMENT_FLOOD })),
        None => Ok(items),
    }
}

fn end(path: &str, fields: &EndFields, outside: Family, is_asked: bool) -> Result<SegmentEnd, Fault> {
    let remote_field = optional(path, "remote", &fields.remote);
    let mac_field = optional(path, "mac", &fields.mac);
    let station = match (&remote_field, &mac_field) {
        (None, None) if is_asked => None,
        _ => Some(Station {
            remote: outer_address(
                &required(path, "remote", &fields.remote, "remote: 192.168.1.3")?,
                outside,
            )?,
            mac: mac(&required(path, "mac", &fields.mac, "mac: \"5a:00:00:00:00:01\"")?)?,
        }),
    };
    let mut networks = Vec::new();
    if let Some(field) = optional(path, "networks", &fields.networks) {
        for item in field.items()? {
            networks.push(item.parse::<Prefix>("network", "10.244.1.0/24")?);
        }
    }
    Ok(SegmentEnd {
        address: address(&required(path, "address", &fields.address, "address: 10.244.1.0")?)?,
        station,
        networks,
    })
}

/// An address of the family that the segment's ends have outside.
fn outer_address(field: &Field<'_>, family: Family) -> Result<IpAddr, Fault> {
    let outer = address(field)?;
    if Family::of(outer) != family {
        return Err(field.fault(Reason::OtherFamily { given: outer.to_string(), family }));
    }
    Ok(outer)
}

fn address(field: &Field<'_>) -> Result<IpAddr, Fault> {
    field.parse("address", "192.168.1.2")
}

/// One station's address: the inner header of a tunnel names no group.
fn mac(field: &Field<'_>) -> Result<MacAddr, Fault> {
    let mac: MacAddr = field.parse("MAC address", "\"5a:00:00:00:00:01\"")?;
    if mac.is_multicast() || mac.is_zero() {
        return Err(field.fault(Reason::NotOneStation { given: mac }));
    }
    Ok(mac)
}

#[cfg(test)]
mod tests {
    use super::super::tests::{GOOD, parse};

    const SEGMENT: &str = "segments:\n- name: site\n  local: 192.168.1.2\n  mac: \"5a:00:00:00:00:07\"\n";

    fn with(rest: &str) -> Result<Vec<super::Segment>, String> {
        parse(&format!("{GOOD}{SEGMENT}{rest}")).map(|config| config.segments)
    }

    fn refused(rest: &str) -> String {
        with(rest).unwrap_err()
    }

    #[test]
    fn flannels_numbers_are_the_defaults() {
        let [segment] = &with("").unwrap()[..] else { panic!("one segment") };
        assert_eq!((segment.vni, segment.port, segment.direct_routing), (1, 8472, false));
        assert!(segment.ends.is_empty() && segment.addresses.is_empty());
    }

    #[test]
    fn every_field_is_read() {
        let text = "  vni: 100\n  port: 4789\n  addresses: [192.168.10.1, fd10::1]\n  direct_routing: true\n  ends:\n  \
                    - { remote: 192.168.1.3, address: 10.244.1.0, mac: \"5a:00:00:00:00:01\", networks: [10.244.1.0/24] }\n";
        let [segment] = &with(text).unwrap()[..] else { panic!("one segment") };
        assert_eq!((segment.vni, segment.port, segment.direct_routing), (100, 4789, true));
        assert_eq!((segment.addresses.len(), segment.name.as_str()), (2, "site"));
        let [end] = &segment.ends[..] else { panic!("one end") };
        let station = end.station.unwrap();
        assert_eq!(
            format!("{} {} {}", station.remote, end.address, station.mac),
            "192.168.1.3 10.244.1.0 5a:00:00:00:00:01"
        );
        assert_eq!(end.networks, ["10.244.1.0/24".parse().unwrap()]);
        assert_eq!(segment.learning, None);
    }

    #[test]
    fn ends_without_a_place_are_asked_for() {
        let ends = "  addresses: [192.168.10.1]\n  ends:\n  - { address: 192.168.11.1, networks: [192.168.11.0/24] }\n";
        let [segment] = &with(&format!("  flood: [192.168.1.3]\n{ends}")).unwrap()[..] else { panic!("one") };
        let learning = segment.learning.as_ref().unwrap();
        assert_eq!((segment.ends[0].station, learning.group), (None, None));
        assert_eq!(learning.flood, ["192.168.1.3".parse::<std::net::IpAddr>().unwrap()]);
        assert_eq!((learning.members.len(), learning.ageing.as_secs()), (0, 300));
        let [segment] = &with(&format!("  group: 239.1.1.1\n  ageing: 60\n{ends}")).unwrap()[..] else {
            panic!("one")
        };
        let learning = segment.learning.as_ref().unwrap();
        assert_eq!(learning.group, Some("239.1.1.1".parse().unwrap()));
        assert_eq!(learning.members, ["0.0.0.0/0".parse().unwrap()], "as Linux: who can send to it is in it");
        assert_eq!(learning.ageing.as_secs(), 60);
        let members = format!("  group: 239.1.1.1\n  members: [192.168.1.0/24]\n{ends}");
        let learning = with(&members).unwrap()[0].learning.clone().unwrap();
        assert_eq!(learning.members, ["192.168.1.0/24".parse().unwrap()]);
    }

    #[test]
    fn what_is_wrong_is_named_with_its_place() {
        let end = |rest: &str| format!("  ends:\n  - {{ {rest} }}\n");
        let cases = [
            (
                "  vni: 16777216\n".to_owned(),
                "t.yaml:8:8: segments[0].vni: is 16777216; use a number from 0 to 16777215",
            ),
            ("  port: 0\n".to_owned(), "segments[0].port: is 0; use a number from 1 to 65535"),
            ("  direct_routing: maybe\n".to_owned(), "segments[0].direct_routing: must be true or false"),
            (
                "  addresses: [10.0.0.1/24]\n".to_owned(),
                "segments[0].addresses[0]: `10.0.0.1/24` is no address",
            ),
            ("  colour: red\n".to_owned(), "unknown field"),
            (
                end("address: 10.0.0.1"),
                "segments[0].ends[0].remote: is missing; write for example `remote: 192.168.1.3`",
            ),
            (end("address: 10.0.0.1, mac: \"5a:00:00:00:00:01\""), "segments[0].ends[0].remote: is missing"),
            (
                format!("  flood: [192.168.1.3]\n{}", end("address: 10.0.0.1, remote: 192.168.1.3")),
                "segments[0].ends[0].mac: is missing",
            ),
            (
                format!("  flood: [192.168.1.3]\n{}", end("address: 10.0.0.1")),
                "segments[0].ends[0]: is asked for, and the segment has no IPv4 address to ask from",
            ),
            ("  flood: [239.1.1.1]\n".to_owned(), "segments[0].flood[0]: `239.1.1.1` is no other end's address"),
            ("  flood: [192.168.1.2]\n".to_owned(), "segments[0].flood[0]: `192.168.1.2` is no other end's address"),
            ("  flood: [\"fd00::3\"]\n".to_owned(), "segments[0].flood[0]: fd00::3 is no IPv4 address"),
            ("  group: 192.168.1.3\n".to_owned(), "segments[0].group: `192.168.1.3` is no multicast group"),
            ("  group: \"ff05::1\"\n".to_owned(), "segments[0].group: ff05::1 is no IPv4 address"),
            ("  ageing: 300\n".to_owned(), "segments[0].ageing: means something only where ends are asked for"),
            ("  members: [10.0.0.0/8]\n".to_owned(), "segments[0].members: means something only where"),
            (
                "  group: 239.1.1.1\n  members: [\"fd00::/8\"]\n".to_owned(),
                "segments[0].members[0]: fd00::/8 is no IPv4 address",
            ),
            ("  group: 239.1.1.1\n  ageing: 1\n".to_owned(), "segments[0].ageing: is 1; use a number from 4 to"),
            (
                "  group: 239.1.1.1\n- name: again\n  group: 239.1.1.1\n  local: 192.168.1.9\n  mac: \"5a:00:00:00:00:08\"\n"
                    .to_owned(),
                "segments[1]: `vni 1 at 239.1.1.1 port 8472` stands here twice",
            ),
            (
                end("remote: fd00::3"),
                "segments[0].ends[0].remote: fd00::3 is no IPv4 address, and the segment's own is one",
            ),
            (
                end("remote: 192.168.1.3, address: 10.0.0.1, mac: \"01:00:5e:00:00:01\""),
                "segments[0].ends[0].mac: 01:00:5e:00:00:01 names no single station",
            ),
            (
                end("remote: 192.168.1.3, address: 10.0.0.1, mac: \"5a:00:00:00:00:01\", networks: [here]"),
                "segments[0].ends[0].networks[0]: `here` is no network; write for example 10.244.1.0/24",
            ),
            (
                "- name: again\n  local: 192.168.1.2\n  mac: \"5a:00:00:00:00:08\"\n".to_owned(),
                "segments[1]: `vni 1 at 192.168.1.2 port 8472` stands here twice",
            ),
        ];
        for (text, expected) in cases {
            let error = refused(&text);
            assert!(error.contains(expected), "{text}gave: {error}");
        }
    }
}

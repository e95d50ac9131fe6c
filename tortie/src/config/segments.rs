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
//! ```

use std::net::IpAddr;

use model::{Family, MacAddr, Prefix};
use slowpath::{Segment, SegmentEnd};

use super::error::Reason;
use super::field::{Fault, Field};
use super::file::{EndFields, Entry, File, Section, SegmentFields};
use crate::limits;

/// What flannel takes where its network configuration names no `VNI`, and the port that Linux gives it.
const VNI: usize = 1;
const PORT: usize = 8472;

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
        let mark = |segment: &Segment| (segment.local, segment.port, segment.vni);
        if segments.iter().any(|other| mark(other) == mark(&segment)) {
            let given = format!("vni {} at {} port {}", segment.vni, segment.local, segment.port);
            return Err(Fault::of(&path, Reason::Twice { given }));
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
    let mut ends = Vec::new();
    for (index, Section(fields)) in fields.ends.iter().flatten().enumerate() {
        let path = format!("{path}.ends[{index}]");
        if index >= limits::SEGMENT_ENDS {
            return Err(Fault::of(&path, Reason::TooMany { max: limits::SEGMENT_ENDS }));
        }
        ends.push(end(&path, fields, Family::of(local))?);
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
        ends,
    })
}

fn end(path: &str, fields: &EndFields, outside: Family) -> Result<SegmentEnd, Fault> {
    let remote_field = required(path, "remote", &fields.remote, "remote: 192.168.1.3")?;
    let remote = address(&remote_field)?;
    if Family::of(remote) != outside {
        return Err(remote_field.fault(Reason::OtherFamily { given: remote.to_string(), family: outside }));
    }
    let mut networks = Vec::new();
    if let Some(field) = optional(path, "networks", &fields.networks) {
        for item in field.items()? {
            networks.push(item.parse::<Prefix>("network", "10.244.1.0/24")?);
        }
    }
    Ok(SegmentEnd {
        remote,
        address: address(&required(path, "address", &fields.address, "address: 10.244.1.0")?)?,
        mac: mac(&required(path, "mac", &fields.mac, "mac: \"5a:00:00:00:00:01\"")?)?,
        networks,
    })
}

fn optional<'a>(path: &str, name: &str, entry: &'a Option<Entry>) -> Option<Field<'a>> {
    Field::new(&format!("{path}.{name}"), entry.as_ref()?)
}

fn required<'a>(
    path: &str,
    name: &str,
    entry: &'a Option<Entry>,
    example: &'static str,
) -> Result<Field<'a>, Fault> {
    optional(path, name, entry).ok_or_else(|| Fault::missing(&format!("{path}.{name}"), example))
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
        assert_eq!(
            format!("{} {} {}", end.remote, end.address, end.mac),
            "192.168.1.3 10.244.1.0 5a:00:00:00:00:01"
        );
        assert_eq!(end.networks, ["10.244.1.0/24".parse().unwrap()]);
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

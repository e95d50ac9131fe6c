//! `bgp`: BGP beyond Calico's resources, as a ToR wants it.
//!
//! ```yaml
//! bgp:
//!   router_id: 192.0.2.1           # or `hash`: of the node's name; left out, the node's IPv4 address
//!   announce: all                  # `calico`: only what lies in pools, blocks and services
//!   networks: [203.0.113.0/24]
//!   redistribute: [connected, static, kernel]
//!   aggregates:
//!   - { prefix: 10.65.0.0/16, summary_only: true }
//!   peers:
//!   - range: 10.1.0.0/24
//!     accept: [64512, "65000-65099"]  # or `any`; left out, nobody comes without a BGPPeer
//!     limit: 48
//!     default_route: only          # or `always`
//!     next_hop: self               # or `keep`
//!     prefix_limit: { most: 1000 } # and more, which `peer_options.rs` reads
//! ```

use std::net::Ipv4Addr;
use std::ops::RangeInclusive;

use model::{AsNumber, Prefix};
use slowpath::calico::{NextHop, RouterId};
use slowpath::{Accept, Aggregate, BgpSettings, DefaultRoute, PeerGroup, Redistribute};

use super::error::Reason;
use super::field::{Fault, Field, optional, required};
use super::file::{AggregateFields, File, PeerGroupFields, Scalar, Section};
use super::{peer_options, stations};
use crate::limits::{self, Limits};

const REDISTRIBUTE: [(&str, Redistribute); 3] = [
    ("connected", Redistribute::Connected),
    ("static", Redistribute::Static),
    ("kernel", Redistribute::Kernel),
];
/// As FRR's `bgp listen limit` has it.
const ACCEPT: usize = 100;

pub(super) fn settings(file: &File, limits: &Limits) -> Result<BgpSettings, Fault> {
    let Some(Section(fields)) = &file.bgp else { return Ok(BgpSettings::default()) };
    let announce = optional("bgp", "announce", &fields.announce);
    let networks = optional("bgp", "networks", &fields.networks);
    let mut settings = BgpSettings {
        router_id: optional("bgp", "router_id", &fields.router_id)
            .map_or(Ok(RouterId::NodeAddress), |field| router_id(&field))?,
        announce_all: announce
            .map_or(Ok(false), |field| field.one_of(&[("calico", false), ("all", true)]))?,
        networks: match networks {
            Some(field) => field.items()?.iter().map(network).collect::<Result<_, _>>()?,
            None => Vec::new(),
        },
        redistribute: match optional("bgp", "redistribute", &fields.redistribute) {
            Some(field) => {
                field.items()?.iter().map(|item| item.one_of(&REDISTRIBUTE)).collect::<Result<_, _>>()?
            }
            None => Vec::new(),
        },
        stations: stations::stations(fields)?,
        ..BgpSettings::default()
    };
    for (index, Section(fields)) in fields.aggregates.iter().flatten().enumerate() {
        let path = bounded("bgp.aggregates", index, limits::BGP_AGGREGATES)?;
        settings.aggregates.push(aggregate(&path, fields)?);
    }
    for (index, Section(fields)) in fields.peers.iter().flatten().enumerate() {
        let path = bounded("bgp.peers", index, limits::BGP_PEER_GROUPS)?;
        settings.groups.push(group(&path, fields, limits)?);
    }
    none_locked_out(&settings.groups)?;
    Ok(settings)
}

/// The kernel asks for the password of the longest range with one, and can't be told to ask for none (`tcp_md5_do_lookup`,
/// net/ipv4/tcp_ipv4.c): whoever is to be taken in without one must not be in a wider range with one.
fn none_locked_out(groups: &[PeerGroup]) -> Result<(), Fault> {
    // The first range that an address is in is its.
    let is_used = |at: usize| !groups[..at].iter().any(|earlier| earlier.range.covers(groups[at].range));
    let takes_in = |group: &PeerGroup| group.accept.is_some() && group.options.password.is_none();
    for (at, group) in groups.iter().enumerate().filter(|(at, group)| takes_in(group) && is_used(*at)) {
        let asks = |(wider, other): &(usize, &PeerGroup)| {
            other.options.password.is_some() && other.range.covers(group.range) && is_used(*wider)
        };
        if let Some((wider, other)) = groups.iter().enumerate().find(asks) {
            let (wider, which) = (other.range.to_string(), format!("bgp.peers[{wider}]"));
            return Err(Fault::of(&format!("bgp.peers[{at}].range"), Reason::LockedOut { wider, which }));
        }
    }
    Ok(())
}

/// An identifier that other speakers take (RFC 6286 §2.1): not 0.0.0.0.
fn router_id(field: &Field<'_>) -> Result<RouterId, Fault> {
    if field.text().is_ok_and(|text| text == "hash") {
        return Ok(RouterId::HashOfName);
    }
    let expected = "BGP identifier";
    let address: Ipv4Addr = field.parse(expected, "192.0.2.1, or hash")?;
    match address.is_unspecified() {
        false => Ok(RouterId::Is(address)),
        true => {
            let (given, allowed) = (address.to_string(), "an address other than 0.0.0.0, or hash".to_owned());
            Err(field.fault(Reason::NotOneOf { given, allowed }))
        }
    }
}

fn bounded(list: &str, index: usize, max: usize) -> Result<String, Fault> {
    let path = format!("{list}[{index}]");
    if index < max { Ok(path) } else { Err(Fault::of(&path, Reason::TooMany { max })) }
}

fn aggregate(path: &str, fields: &AggregateFields) -> Result<Aggregate, Fault> {
    let summary_only = optional(path, "summary_only", &fields.summary_only);
    Ok(Aggregate {
        prefix: network(&required(path, "prefix", &fields.prefix, "prefix: 10.65.0.0/16")?)?,
        summary_only: summary_only.map_or(Ok(false), |field| field.truth())?,
    })
}

fn group(path: &str, fields: &PeerGroupFields, limits: &Limits) -> Result<PeerGroup, Fault> {
    let defaults = [("always", DefaultRoute::Always), ("only", DefaultRoute::Only)];
    let hops = [("self", NextHop::OwnAddress), ("keep", NextHop::Keep)];
    let default_route = optional(path, "default_route", &fields.default_route);
    let next_hop = optional(path, "next_hop", &fields.next_hop);
    let range = network(&required(path, "range", &fields.range, "range: 10.1.0.0/24")?)?;
    Ok(PeerGroup {
        range,
        accept: accept(path, fields)?,
        default_route: default_route.map_or(Ok(DefaultRoute::AsAny), |field| field.one_of(&defaults))?,
        next_hop: next_hop.map(|field| field.one_of(&hops)).transpose()?,
        options: peer_options::options(path, range.family(), fields, limits)?,
    })
}

fn accept(path: &str, fields: &PeerGroupFields) -> Result<Option<Accept>, Fault> {
    let limit = optional(path, "limit", &fields.limit);
    let Some(field) = optional(path, "accept", &fields.accept) else {
        return limit.map_or(Ok(None), |field| Err(field.fault(Reason::NobodyAccepted)));
    };
    let limit = limit.map_or(Ok(ACCEPT), |field| field.number((1, limits::BGP_NEIGHBOURS)))?;
    let as_numbers = match field.scalar() {
        Scalar::List(_) => field.items()?.iter().map(as_numbers).collect::<Result<_, _>>()?,
        Scalar::Text(text) if text == "any" => Vec::new(),
        _ => vec![as_numbers(&field)?],
    };
    Ok(Some(Accept { as_numbers, limit }))
}

/// `65000`, `64086.59904`, or from one to another: `65000-65099`.
fn as_numbers(field: &Field<'_>) -> Result<RangeInclusive<u32>, Fault> {
    if let Scalar::Int(_) = field.scalar() {
        let number = field.number((1, u32::MAX as usize))? as u32;
        return Ok(number..=number);
    }
    let text = field.text()?;
    let bad = || {
        let (expected, example) = ("AS number or range of them", "65000 or \"65000-65099\"");
        field.fault(Reason::NoSuch { given: text.to_owned(), expected, example })
    };
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let number = |text: &str| text.trim().parse::<AsNumber>().map_err(|_| bad());
    let (first, last) = (number(first)?.0, number(last)?.0);
    if first == 0 || first > last { Err(bad()) } else { Ok(first..=last) }
}

fn network(field: &Field<'_>) -> Result<Prefix, Fault> {
    field.parse("network", "10.1.0.0/24")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tests::{GOOD, parse};

    fn settings_of(text: &str) -> Result<BgpSettings, String> {
        parse(&format!("{GOOD}{text}")).map(|config| config.bgp)
    }

    #[test]
    fn the_identifier_is_an_address_or_a_hash() {
        let router_id = |text: &str| settings_of(text).map(|settings| settings.router_id);
        assert_eq!(router_id(""), Ok(RouterId::NodeAddress));
        assert_eq!(router_id("bgp: { router_id: hash }\n"), Ok(RouterId::HashOfName));
        assert_eq!(router_id("bgp: { router_id: 192.0.2.1 }\n"), Ok(RouterId::Is([192, 0, 2, 1].into())));
        for wrong in ["0.0.0.0", "'fd00::1'", "'5'"] {
            let error = router_id(&format!("bgp: {{ router_id: {wrong} }}\n")).unwrap_err();
            assert!(error.contains("bgp.router_id") && error.contains("hash"), "{error}");
        }
    }

    #[test]
    fn a_tors_settings_are_read() {
        let settings = settings_of(
            "bgp:\n  announce: all\n  networks: [203.0.113.0/24]\n  redistribute: [static, connected]\n  aggregates:\n\
             \x20 - { prefix: 10.65.0.0/16, summary_only: true }\n  peers:\n\
             \x20 - { range: 10.1.0.0/24, accept: [64512, \"65000-65099\", \"1.0\"], limit: 48, default_route: only, next_hop: self }\n\
             \x20 - { range: 'fd00::/64', accept: any }\n  - { range: 10.2.0.1/32, default_route: always }\n",
        )
        .unwrap();
        assert!(settings.announce_all);
        assert_eq!(settings.redistribute, [Redistribute::Static, Redistribute::Connected]);
        assert_eq!(settings.networks, ["203.0.113.0/24".parse().unwrap()]);
        let aggregate = Aggregate { prefix: "10.65.0.0/16".parse().unwrap(), summary_only: true };
        assert_eq!(settings.aggregates, [aggregate]);
        let [rack, any, core] = settings.groups.as_slice() else { panic!("{:?}", settings.groups) };
        let accept = Accept { as_numbers: vec![64512..=64512, 65000..=65099, 65536..=65536], limit: 48 };
        assert_eq!(rack.accept, Some(accept));
        assert_eq!((rack.default_route, rack.next_hop), (DefaultRoute::Only, Some(NextHop::OwnAddress)));
        assert_eq!(any.accept, Some(Accept { as_numbers: Vec::new(), limit: 100 }));
        assert_eq!((&core.accept, core.default_route), (&None, DefaultRoute::Always));
        assert_eq!(settings_of("").unwrap(), BgpSettings::default());
    }

    #[test]
    fn a_range_that_a_wider_ones_password_locks_out_is_refused() {
        let [open, asking] = ["accept: any", "accept: any, password: leaves/key"];
        let check = |ranges: &[(&str, &str)]| {
            let ranges: Vec<String> =
                ranges.iter().map(|(range, what)| format!("{{ range: {range}, {what} }}")).collect();
            settings_of(&format!("bgp: {{ secrets: /s, peers: [{}] }}\n", ranges.join(", ")))
        };
        let error = check(&[("10.1.0.0/24", open), ("10.0.0.0/8", asking)]).unwrap_err();
        for part in ["bgp.peers[0].range", "bgp.peers[1]", "10.0.0.0/8", "`password`", "`accept`"] {
            assert!(error.contains(part), "{part}: {error}");
        }
        for legal in [
            // Who is in both is in the first.
            [("10.0.0.0/8", asking), ("10.1.0.0/24", open)],
            [("10.0.0.0/8", open), ("10.1.0.0/24", asking)],
            // Another password is asked for in its place.
            [("10.1.0.0/24", asking), ("10.0.0.0/8", asking)],
            // We connect to those that are named.
            [("10.1.0.0/24", "default_route: always"), ("10.0.0.0/8", asking)],
            [("10.1.0.0/24", open), ("10.2.0.0/24", asking)],
        ] {
            assert!(check(&legal).is_ok(), "{legal:?}: {:?}", check(&legal));
        }
        // Nobody is in the wider one that asks.
        assert!(check(&[("10.1.0.0/24", open), ("10.0.0.0/7", open), ("10.0.0.0/8", asking)]).is_ok());
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        for (text, expected) in [
            ("bgp: { peers: [{ accept: any }] }", "bgp.peers[0].range"),
            ("bgp: { peers: [{ range: 10.1.0.0/24, limit: 3 }] }", "accept"),
            ("bgp: { peers: [{ range: 10.1.0.0/24, accept: [\"7-3\"] }] }", "7-3"),
            ("bgp: { announce: everything }", "everything"),
            ("bgp: { redistribute: [ospf] }", "ospf"),
            ("bgp: { aggregates: [{ summary_only: true }] }", "bgp.aggregates[0].prefix"),
        ] {
            let error = settings_of(text).unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}

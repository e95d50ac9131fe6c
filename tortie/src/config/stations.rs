//! `bgp.bmp`: monitoring stations (RFC 7854).
//!
//! ```yaml
//! bgp:
//!   bmp:
//!   - station: 192.0.2.9:11019
//!     routes: [pre-policy, post-policy, loc-rib]   # pre-policy unless given
//!     statistics: 60                               # seconds; 0 is never
//!     buffer: 64                                   # MiB
//! ```

use std::net::SocketAddr;
use std::time::Duration;

use slowpath::StationSettings;

use super::error::Reason;
use super::field::{Fault, optional, required};
use super::file::{BgpFields, Section, StationFields};
use crate::limits;

/// As collectors mostly have it.
const STATISTICS: u64 = 60;
/// Holds a table of a million routes, told three times, for as long as a station needs to take a breath.
const BUFFER_MIB: usize = 64;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Routes {
    PrePolicy,
    PostPolicy,
    LocRib,
}

const ROUTES: [(&str, Routes); 3] =
    [("pre-policy", Routes::PrePolicy), ("post-policy", Routes::PostPolicy), ("loc-rib", Routes::LocRib)];

pub(super) fn stations(fields: &BgpFields) -> Result<Vec<StationSettings>, Fault> {
    let mut stations: Vec<StationSettings> = Vec::new();
    for (index, Section(fields)) in fields.bmp.iter().flatten().enumerate() {
        let path = format!("bgp.bmp[{index}]");
        if index >= limits::BMP_STATIONS {
            return Err(Fault::of(&path, Reason::TooMany { max: limits::BMP_STATIONS }));
        }
        let station = station(&path, fields)?;
        if stations.iter().any(|other| other.address == station.address) {
            return Err(Fault::of(&path, Reason::Twice { given: station.address.to_string() }));
        }
        stations.push(station);
    }
    Ok(stations)
}

fn station(path: &str, fields: &StationFields) -> Result<StationSettings, Fault> {
    let address = required(path, "station", &fields.station, "station: \"192.0.2.9:11019\"")?;
    let address: SocketAddr =
        address.parse("address with a port", "\"192.0.2.9:11019\" or \"[2001:db8::9]:11019\"")?;
    let mut routes = vec![Routes::PrePolicy];
    if let Some(field) = optional(path, "routes", &fields.routes) {
        routes = field.items()?.iter().map(|item| item.one_of(&ROUTES)).collect::<Result<_, _>>()?;
    }
    let number =
        |name: &str, entry, range| optional(path, name, entry).map(|field| field.number(range)).transpose();
    let statistics = number("statistics", &fields.statistics, (0, 86_400))?;
    let buffer = number("buffer", &fields.buffer, limits::BMP_BUFFER_MIB)?;
    Ok(StationSettings {
        address,
        pre_policy: routes.contains(&Routes::PrePolicy),
        post_policy: routes.contains(&Routes::PostPolicy),
        loc_rib: routes.contains(&Routes::LocRib),
        statistics: Duration::from_secs(statistics.map_or(STATISTICS, |seconds| seconds as u64)),
        buffer: buffer.unwrap_or(BUFFER_MIB) << 20,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tests::{GOOD, parse};

    fn stations_of(text: &str) -> Result<Vec<StationSettings>, String> {
        parse(&format!("{GOOD}bgp:\n  bmp:\n{text}")).map(|config| config.bgp.stations)
    }

    #[test]
    fn stations_are_read_with_what_they_are_told() {
        let stations = stations_of(
            "  - { station: \"192.0.2.9:11019\" }\n\
             \x20 - { station: \"[2001:db8::9]:5000\", routes: [loc-rib, post-policy], statistics: 0, buffer: 8 }\n",
        )
        .unwrap();
        let [first, second] = stations.as_slice() else { panic!("{stations:?}") };
        assert_eq!((first.pre_policy, first.post_policy, first.loc_rib), (true, false, false));
        assert_eq!((first.statistics, first.buffer), (Duration::from_secs(60), 64 << 20));
        assert_eq!((second.pre_policy, second.post_policy, second.loc_rib), (false, true, true));
        assert_eq!((second.statistics, second.buffer), (Duration::ZERO, 8 << 20));
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        for (text, expected) in [
            ("  - { routes: [loc-rib] }\n", "bgp.bmp[0].station: is missing"),
            ("  - { station: 192.0.2.9 }\n", "address with a port"),
            ("  - { station: \"192.0.2.9:1\", routes: [all] }\n", "all"),
            ("  - { station: \"192.0.2.9:1\", buffer: 0 }\n", "buffer"),
            ("  - { station: \"192.0.2.9:1\" }\n  - { station: \"192.0.2.9:1\" }\n", "twice"),
        ] {
            let error = stations_of(text).unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}

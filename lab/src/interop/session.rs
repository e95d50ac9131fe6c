//! The sessions that are held with each daemon, and what passes over them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use model::Prefix;

use super::OUR_AS;

/// Their routes of IPv4, and ours.
pub(super) const THEIRS_V4: [&str; 5] =
    ["10.88.0.0/24", "10.88.1.0/24", "10.88.2.128/25", "10.88.64.0/18", "10.88.255.1/32"];
const OURS_V4: [&str; 5] =
    ["10.66.0.0/24", "10.66.1.0/24", "10.66.2.128/25", "10.66.64.0/18", "10.66.255.1/32"];
/// Their routes of IPv6, and ours.
pub(super) const THEIRS_V6: [&str; 3] = ["fd88:0:1::/48", "fd88:0:2:8000::/49", "fd88::1/128"];
const OURS_V6: [&str; 3] = ["fd66:0:1::/48", "fd66:0:2:8000::/49", "fd66::1/128"];
/// What both ends sign with, where they do.
pub(super) const PASSWORD: &str = "cheese";

/// One of the sessions that are held with each daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Session {
    /// Between two ASes of four octets, over IPv4, of IPv4.
    External,
    /// The same over IPv6, of both families.
    OverIpv6,
    /// Within an AS: the daemon is our client.
    Internal,
    /// As the first, signed with a password (RFC 2385).
    Md5,
    /// As the first, each end dropping what has come over a router (RFC 5082).
    Gtsm,
    /// As the first, watched by BFD (RFC 5880).
    Bfd,
}

impl Session {
    /// All.
    pub const ALL: [Session; 6] =
        [Session::External, Session::OverIpv6, Session::Internal, Session::Md5, Session::Gtsm, Session::Bfd];

    /// The column that fails where the session doesn't come up.
    pub fn column(self) -> &'static str {
        match self {
            Session::External => "IPv4, AS4",
            Session::OverIpv6 => "IPv6",
            Session::Internal => "reflection",
            Session::Md5 => "MD5",
            Session::Gtsm => "GTSM",
            Session::Bfd => "BFD",
        }
    }

    /// Is it about what guards or watches a session, which takes the whole router at our end?
    pub fn is_guarded(self) -> bool {
        matches!(self, Session::Md5 | Session::Gtsm | Session::Bfd)
    }

    /// Our end and theirs.
    pub fn ends(self) -> (IpAddr, IpAddr) {
        match self {
            Session::OverIpv6 => {
                let end = |last| IpAddr::V6(Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, last));
                (end(1), end(2))
            }
            _ => (Ipv4Addr::new(10, 77, 0, 1).into(), Ipv4Addr::new(10, 77, 0, 2).into()),
        }
    }

    /// The daemon's AS.
    pub fn their_as(self) -> u32 {
        if self == Session::Internal { 65100 } else { 4_200_000_002 }
    }

    /// Ours.
    pub fn our_as(self) -> u32 {
        if self == Session::Internal { self.their_as() } else { OUR_AS }
    }

    /// What the daemon announces.
    pub fn their_routes(self) -> Vec<Prefix> {
        self.of_families(&THEIRS_V4, &THEIRS_V6)
    }

    /// What we announce ourselves.
    pub fn our_routes(self) -> Vec<Prefix> {
        self.of_families(&OURS_V4, &OURS_V6)
    }

    fn of_families(self, v4: &[&str], v6: &[&str]) -> Vec<Prefix> {
        let six = if self == Session::OverIpv6 { v6 } else { &[] };
        v4.iter().chain(six).filter_map(|text| text.parse().ok()).collect()
    }
}

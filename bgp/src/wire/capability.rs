//! Capabilities, announced in OPEN (RFC 5492).

use std::fmt;

use super::Reader;
use super::nlri::AfiSafi;

/// Capability codes (IANA "Capability Codes").
pub mod code {
    /// Multiprotocol extensions (RFC 4760 §8).
    pub const MULTIPROTOCOL: u8 = 1;
    /// Route refresh (RFC 2918 §2).
    pub const ROUTE_REFRESH: u8 = 2;
    /// Outbound route filtering (RFC 5291 §5).
    pub const ORF: u8 = 3;
    /// IPv4 routes with IPv6 next hops (RFC 8950 §4).
    pub const EXTENDED_NEXT_HOP: u8 = 5;
    /// Messages of up to 65535 octets (RFC 8654 §3).
    pub const EXTENDED_MESSAGE: u8 = 6;
    /// Role (RFC 9234 §4.1).
    pub const ROLE: u8 = 9;
    /// Graceful restart (RFC 4724 §3).
    pub const GRACEFUL_RESTART: u8 = 64;
    /// Four-octet AS numbers (RFC 6793 §3).
    pub const FOUR_OCTET_AS: u8 = 65;
    /// Several paths for one prefix (RFC 7911 §4).
    pub const ADD_PATH: u8 = 69;
    /// Route refresh with its begin and end marked (RFC 7313 §3.1).
    pub const ENHANCED_REFRESH: u8 = 70;
    /// Long-lived graceful restart (RFC 9494 §3.1).
    pub const LONG_LIVED: u8 = 71;
}

/// One capability.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Capability {
    /// Routes of a family.
    MultiProtocol(AfiSafi),
    /// ROUTE-REFRESH messages.
    RouteRefresh,
    /// AS numbers of four octets; this is the speaker's own.
    FourOctetAs(u32),
    /// Graceful restart.
    GracefulRestart(GracefulRestart),
    /// Several paths for one prefix.
    AddPath(Vec<(AfiSafi, AddPathMode)>),
    /// Routes of these families may have next hops of the other address family.
    ExtendedNextHop(Vec<NextHopEncoding>),
    /// Messages of up to 65535 octets.
    ExtendedMessage,
    /// What we are to the peer, and it to us.
    Role(Role),
    /// Begin and end of a route refresh are marked.
    EnhancedRefresh,
    /// Routes may be kept long after their time.
    LongLived(Vec<LongLived>),
    /// Anything else, well-formed as far as we know.
    Other {
        /// Capability code.
        code: u8,
        /// Its value.
        value: Vec<u8>,
    },
}

/// The graceful restart capability (RFC 4724 §3).
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct GracefulRestart {
    /// R: the sender has restarted; do not wait for its End-of-RIB.
    pub restarted: bool,
    /// N: a session that ends by NOTIFICATION is kept like one that is lost (RFC 8538 §2).
    pub notification: bool,
    /// Seconds until its session is back, 0..=4095.
    pub restart_time: u16,
    /// Families, each with F: has forwarding state been preserved?
    pub families: Vec<(AfiSafi, bool)>,
}

/// One family of the long-lived graceful restart capability (RFC 9494 §3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LongLived {
    /// Which.
    pub family: AfiSafi,
    /// F: has forwarding state been preserved?
    pub preserved: bool,
    /// Seconds for which its routes may be kept, 0..2^24.
    pub stale_time: u32,
}

/// One entry of the extended next hop capability (RFC 8950 §4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NextHopEncoding {
    /// AFI and SAFI of the routes.
    pub family: (u16, u16),
    /// AFI of their next hops.
    pub next_hop_afi: u16,
}

impl NextHopEncoding {
    /// IPv4 unicast routes with IPv6 next hops.
    pub const V4_OVER_V6: NextHopEncoding = NextHopEncoding { family: (1, 1), next_hop_afi: 2 };
}

/// What a speaker is to its peer in another AS (RFC 9234 §4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Role {
    /// It sells transit to the peer.
    Provider = 0,
    /// It is a route server, the peer its client.
    RouteServer = 1,
    /// It is the client of a route server.
    RouteServerClient = 2,
    /// It buys transit from the peer.
    Customer = 3,
    /// Both exchange their own and their customers' routes.
    Peer = 4,
}

impl Role {
    /// All, in the order of their numbers.
    pub const ALL: [Role; 5] =
        [Role::Provider, Role::RouteServer, Role::RouteServerClient, Role::Customer, Role::Peer];

    /// The only role that the other side can have (RFC 9234 §4.2, Table 2).
    pub fn counterpart(self) -> Role {
        match self {
            Role::Provider => Role::Customer,
            Role::Customer => Role::Provider,
            Role::RouteServer => Role::RouteServerClient,
            Role::RouteServerClient => Role::RouteServer,
            Role::Peer => Role::Peer,
        }
    }
}

/// What a speaker can do with several paths (RFC 7911 §4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddPathMode {
    /// Can receive them.
    pub receive: bool,
    /// Can send them.
    pub send: bool,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Role::Provider => "provider",
            Role::RouteServer => "route-server",
            Role::RouteServerClient => "route-server-client",
            Role::Customer => "customer",
            Role::Peer => "peer",
        })
    }
}

impl fmt::Display for Capability {
    /// For people, families as AFI/SAFI.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Capability::MultiProtocol(family) => write!(f, "multiprotocol {family}"),
            Capability::RouteRefresh => f.write_str("route refresh"),
            Capability::FourOctetAs(number) => write!(f, "four-octet AS {number}"),
            Capability::GracefulRestart(restart) => {
                write!(f, "graceful restart, {} s", restart.restart_time)?;
                let said =
                    [(restart.restarted, "restarted"), (restart.notification, "through NOTIFICATIONs")];
                said.iter().filter(|(said, _)| *said).try_for_each(|(_, what)| write!(f, ", {what}"))?;
                restart.families.iter().try_for_each(|(family, preserved)| {
                    write!(f, ", {family}{}", if *preserved { " with forwarding state" } else { "" })
                })
            }
            Capability::AddPath(families) => {
                f.write_str("several paths")?;
                families.iter().try_for_each(|(family, mode)| {
                    let way = match (mode.receive, mode.send) {
                        (true, true) => "both ways",
                        (true, false) => "received",
                        (false, true) => "sent",
                        (false, false) => "in no way",
                    };
                    write!(f, ", {family} {way}")
                })
            }
            Capability::ExtendedNextHop(encodings) => {
                f.write_str("extended next hops")?;
                encodings.iter().try_for_each(|NextHopEncoding { family: (afi, safi), next_hop_afi }| {
                    write!(f, ", {afi}/{safi} over {next_hop_afi}")
                })
            }
            Capability::ExtendedMessage => f.write_str("extended messages"),
            Capability::Role(role) => write!(f, "role {role}"),
            Capability::EnhancedRefresh => f.write_str("enhanced route refresh"),
            Capability::LongLived(families) => {
                f.write_str("long-lived graceful restart")?;
                families
                    .iter()
                    .try_for_each(|entry| write!(f, ", {} for {} s", entry.family, entry.stale_time))
            }
            Capability::Other { code, value } => write!(f, "number {code}, {} octets", value.len()),
        }
    }
}

impl Capability {
    /// Reads every capability of one optional parameter's value.
    ///
    /// # Errors
    /// `None` where a length is wrong, for the whole or for a capability we know.
    pub fn parse_all(value: &[u8]) -> Option<Vec<Capability>> {
        let mut value = Reader(value);
        let mut capabilities = Vec::new();
        while !value.is_empty() {
            let (code, len) = (value.u8()?, value.u8()?);
            // A graceful restart capability given twice: the last counts (RFC 4724 §3); `Open` sees to that.
            capabilities.push(Capability::parse(code, value.take(usize::from(len))?)?);
        }
        Some(capabilities)
    }

    fn parse(code: u8, value: &[u8]) -> Option<Capability> {
        let mut reader = Reader(value);
        let capability = match code {
            code::MULTIPROTOCOL => {
                let (afi, _reserved, safi) = (reader.u16()?, reader.u8()?, reader.u8()?);
                Capability::MultiProtocol(AfiSafi { afi, safi })
            }
            // RFC 2918 gives length 0; a value brings no meaning and does no harm.
            code::ROUTE_REFRESH => return Some(Capability::RouteRefresh),
            code::FOUR_OCTET_AS => Capability::FourOctetAs(reader.u32()?),
            code::GRACEFUL_RESTART => Capability::GracefulRestart(parse_graceful_restart(&mut reader)?),
            code::ADD_PATH => Capability::AddPath(parse_add_path(&mut reader)?),
            code::EXTENDED_NEXT_HOP => Capability::ExtendedNextHop(parse_next_hops(&mut reader)?),
            // Both have length 0; a value brings no meaning and does no harm.
            code::EXTENDED_MESSAGE => return Some(Capability::ExtendedMessage),
            code::ENHANCED_REFRESH => return Some(Capability::EnhancedRefresh),
            code::LONG_LIVED => Capability::LongLived(parse_long_lived(&mut reader)?),
            code::ORF => return orf_is_well_formed(reader).then(|| Capability::other(code, value)),
            code::ROLE => {
                let number = usize::from(reader.u8()?);
                match Role::ALL.get(number) {
                    Some(role) => Capability::Role(*role),
                    // One that is not assigned yet matches none of ours.
                    None => return (value.len() == 1).then(|| Capability::other(code, value)),
                }
            }
            _ => return Some(Capability::other(code, value)),
        };
        reader.is_empty().then_some(capability)
    }

    fn other(code: u8, value: &[u8]) -> Capability {
        Capability::Other { code, value: value.to_vec() }
    }

    /// Appends code, length and value.
    pub fn emit(&self, out: &mut Vec<u8>) {
        let start = out.len();
        match self {
            Capability::MultiProtocol(family) => {
                out.extend([code::MULTIPROTOCOL, 0]);
                out.extend(family.afi.to_be_bytes());
                out.extend([0, family.safi]);
            }
            Capability::RouteRefresh => out.extend([code::ROUTE_REFRESH, 0]),
            Capability::FourOctetAs(number) => {
                out.extend([code::FOUR_OCTET_AS, 0]);
                out.extend(number.to_be_bytes());
            }
            Capability::GracefulRestart(restart) => {
                out.extend([code::GRACEFUL_RESTART, 0]);
                let flags = u16::from(restart.restarted) << 15 | u16::from(restart.notification) << 14;
                out.extend((flags | restart.restart_time & 0x0fff).to_be_bytes());
                for &(family, preserved) in &restart.families {
                    out.extend(family.afi.to_be_bytes());
                    out.extend([family.safi, u8::from(preserved) << 7]);
                }
            }
            Capability::AddPath(families) => {
                out.extend([code::ADD_PATH, 0]);
                for &(family, mode) in families {
                    out.extend(family.afi.to_be_bytes());
                    out.extend([family.safi, u8::from(mode.receive) | u8::from(mode.send) << 1]);
                }
            }
            Capability::ExtendedNextHop(encodings) => {
                out.extend([code::EXTENDED_NEXT_HOP, 0]);
                for encoding in encodings {
                    let (afi, safi) = encoding.family;
                    out.extend([afi, safi, encoding.next_hop_afi].into_iter().flat_map(u16::to_be_bytes));
                }
            }
            Capability::ExtendedMessage => out.extend([code::EXTENDED_MESSAGE, 0]),
            Capability::Role(role) => out.extend([code::ROLE, 0, *role as u8]),
            Capability::EnhancedRefresh => out.extend([code::ENHANCED_REFRESH, 0]),
            Capability::LongLived(families) => {
                out.extend([code::LONG_LIVED, 0]);
                for &LongLived { family, preserved, stale_time } in families {
                    out.extend(family.afi.to_be_bytes());
                    out.extend([family.safi, u8::from(preserved) << 7]);
                    out.extend(&stale_time.min(MAX_STALE_TIME).to_be_bytes()[1..]);
                }
            }
            Capability::Other { code, value } => {
                out.extend([*code, 0]);
                out.extend(value);
            }
        }
        out[start + 1] = (out.len() - start - 2) as u8;
    }
}

fn parse_graceful_restart(reader: &mut Reader<'_>) -> Option<GracefulRestart> {
    let flags_and_time = reader.u16()?;
    let mut families = Vec::new();
    while !reader.is_empty() {
        let (afi, safi, flags) = (reader.u16()?, reader.u8()?, reader.u8()?);
        families.push((AfiSafi { afi, safi }, flags & 0x80 != 0));
    }
    Some(GracefulRestart {
        restarted: flags_and_time & 0x8000 != 0,
        notification: flags_and_time & 0x4000 != 0,
        restart_time: flags_and_time & 0x0fff,
        families,
    })
}

fn parse_add_path(reader: &mut Reader<'_>) -> Option<Vec<(AfiSafi, AddPathMode)>> {
    let mut families = Vec::new();
    while !reader.is_empty() {
        let (afi, safi, mode) = (reader.u16()?, reader.u8()?, reader.u8()?);
        // Other values are to be ignored (RFC 7911 §4).
        if (1..=3).contains(&mode) {
            let mode = AddPathMode { receive: mode & 1 != 0, send: mode & 2 != 0 };
            families.push((AfiSafi { afi, safi }, mode));
        }
    }
    Some(families)
}

/// The largest time that the long-lived capability can say, in seconds.
pub const MAX_STALE_TIME: u32 = (1 << 24) - 1;

fn parse_next_hops(reader: &mut Reader<'_>) -> Option<Vec<NextHopEncoding>> {
    let mut encodings = Vec::new();
    while !reader.is_empty() {
        let family = (reader.u16()?, reader.u16()?);
        encodings.push(NextHopEncoding { family, next_hop_afi: reader.u16()? });
    }
    Some(encodings)
}

fn parse_long_lived(reader: &mut Reader<'_>) -> Option<Vec<LongLived>> {
    let mut families = Vec::new();
    while !reader.is_empty() {
        let (afi, safi, flags) = (reader.u16()?, reader.u8()?, reader.u8()?);
        let [high, middle, low] = reader.array()?;
        families.push(LongLived {
            family: AfiSafi { afi, safi },
            preserved: flags & 0x80 != 0,
            stale_time: u32::from_be_bytes([0, high, middle, low]),
        });
    }
    Some(families)
}

/// At least one entry of AFI, reserved octet, SAFI, and a counted list of type and direction (RFC 5291 §5).
/// What follows the first is not looked at, as we filter for nobody.
fn orf_is_well_formed(mut reader: Reader<'_>) -> bool {
    let mut entry = || {
        reader.take(4)?;
        let count = reader.u8()?;
        reader.take(2 * usize::from(count))
    };
    entry().is_some()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn any_afi_safi() -> impl Strategy<Value = AfiSafi> {
        (any::<u16>(), any::<u8>()).prop_map(|(afi, safi)| AfiSafi { afi, safi })
    }

    fn any_capability() -> impl Strategy<Value = Capability> {
        let mode = (1u8..=3).prop_map(|mode| AddPathMode { receive: mode & 1 != 0, send: mode & 2 != 0 });
        prop_oneof![
            any_afi_safi().prop_map(Capability::MultiProtocol),
            Just(Capability::RouteRefresh),
            any::<u32>().prop_map(Capability::FourOctetAs),
            (
                any::<(bool, bool)>(),
                0u16..4096,
                proptest::collection::vec((any_afi_safi(), any::<bool>()), 0..9)
            )
                .prop_map(|((restarted, notification), restart_time, families)| {
                    let restart = GracefulRestart { restarted, notification, restart_time, families };
                    Capability::GracefulRestart(restart)
                }),
            proptest::collection::vec((any_afi_safi(), mode), 0..9).prop_map(Capability::AddPath),
            proptest::collection::vec(any::<[u16; 3]>(), 0..9).prop_map(|entries| {
                let encoding = |[afi, safi, next_hop_afi]: [u16; 3]| NextHopEncoding {
                    family: (afi, safi),
                    next_hop_afi,
                };
                Capability::ExtendedNextHop(entries.into_iter().map(encoding).collect())
            }),
            Just(Capability::ExtendedMessage),
            Just(Capability::EnhancedRefresh),
            (0usize..5).prop_map(|at| Capability::Role(Role::ALL[at])),
            proptest::collection::vec((any_afi_safi(), any::<bool>(), 0..=MAX_STALE_TIME), 0..9).prop_map(
                |families| {
                    let family =
                        |(family, preserved, stale_time)| LongLived { family, preserved, stale_time };
                    Capability::LongLived(families.into_iter().map(family).collect())
                }
            ),
            (72u8.., proptest::collection::vec(any::<u8>(), 0..32))
                .prop_map(|(code, value)| Capability::Other { code, value }),
        ]
    }

    proptest! {
        #[test]
        fn capabilities_come_back_from_their_own_bytes(
            capabilities in proptest::collection::vec(any_capability(), 0..8),
        ) {
            let mut bytes = Vec::new();
            capabilities.iter().for_each(|capability| capability.emit(&mut bytes));
            prop_assert_eq!(Capability::parse_all(&bytes), Some(capabilities));
        }

        #[test]
        fn any_bytes_are_read_without_panic(bytes: Vec<u8>) {
            let _ = Capability::parse_all(&bytes);
        }
    }
}

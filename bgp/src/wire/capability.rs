//! Capabilities, announced in OPEN (RFC 5492).

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
    /// Role (RFC 9234 §4.1).
    pub const ROLE: u8 = 9;
    /// Graceful restart (RFC 4724 §3).
    pub const GRACEFUL_RESTART: u8 = 64;
    /// Four-octet AS numbers (RFC 6793 §3).
    pub const FOUR_OCTET_AS: u8 = 65;
    /// Several paths for one prefix (RFC 7911 §4).
    pub const ADD_PATH: u8 = 69;
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
    /// Seconds until its session is back, 0..=4095.
    pub restart_time: u16,
    /// Families, each with F: has forwarding state been preserved?
    pub families: Vec<(AfiSafi, bool)>,
}

/// What a speaker can do with several paths (RFC 7911 §4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddPathMode {
    /// Can receive them.
    pub receive: bool,
    /// Can send them.
    pub send: bool,
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
            code::ORF => return orf_is_well_formed(reader).then(|| Capability::other(code, value)),
            code::ROLE if value.len() != 1 => return None,
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
                let flags = u16::from(restart.restarted) << 15;
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
            (any::<bool>(), 0u16..4096, proptest::collection::vec((any_afi_safi(), any::<bool>()), 0..9))
                .prop_map(|(restarted, restart_time, families)| {
                    Capability::GracefulRestart(GracefulRestart { restarted, restart_time, families })
                }),
            proptest::collection::vec((any_afi_safi(), mode), 0..9).prop_map(Capability::AddPath),
            (70u8.., proptest::collection::vec(any::<u8>(), 0..32))
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

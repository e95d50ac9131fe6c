//! Stage 5: addresses that no router forwards from or to.
//!
//! RFC 1812 §5.3.7 (IPv4), RFC 3927 §7 (169.254/16), RFC 4291 §2.5.2–2.5.6 and §2.7 (IPv6), RFC 6890.

use std::net::{Ipv4Addr, Ipv6Addr};

use model::{PortId, PortKind};
use packet::{FlowKey, Kind, Layout, Parsed, ethernet};
use tables::{DropReason, Fate, PuntReason, State};

use crate::Batch;

/// Drops packets from and to addresses that must not be forwarded, but for those of OpenStack's metadata.
#[inline(never)]
pub(crate) fn addresses(batch: &mut Batch, state: &State) {
    let Batch { frames, runs, fates, parsed, heads, .. } = batch;
    let len = frames.len();
    if heads.are_all_plain_v4(len) && !is_any_suspect(&heads.sources[..len], &heads.destinations[..len]) {
        return;
    }
    if heads.are_all_plain_v6(len)
        && !is_any_suspect_v6(&heads.sources_v6[..len], &heads.destinations_v6[..len])
    {
        return;
    }
    for (row, ((frame, fate), parsed)) in frames.iter().zip(fates).zip(parsed).enumerate() {
        if *fate != Fate::Undecided {
            continue;
        }
        let is_suspect = match parsed.layout {
            Layout::PlainV4 => is_suspect_v4(frame.bytes()),
            Layout::PlainV6 => is_suspect_v6(frame.bytes()),
            Layout::Other => true,
        };
        if !is_suspect {
            continue;
        }
        let reason = match parsed.kind {
            Kind::Ipv4 => judge_v4(frame.bytes(), parsed),
            Kind::Ipv6 => judge_v6(frame.bytes(), parsed),
            Kind::Arp | Kind::Other => Some(DropReason::UnknownEthertype),
        };
        if let Some(reason) = reason {
            let ingress = || runs.iter().find(|run| run.rows().contains(&row)).and_then(|run| run.ingress);
            if state.nat.metadata.is_some()
                && is_about_metadata(frame.bytes(), parsed, reason, ingress(), state)
            {
                continue;
            }
            *fate = if is_beyond_scope(frame.bytes(), parsed) {
                Fate::Punt(PuntReason::BeyondScope)
            } else {
                Fate::Drop(reason)
            };
        }
    }
}

/// Does an instance ask for OpenStack's metadata, or does the host answer from its loopback? Either is translated next
/// (`nat.rs`), or dropped there.
#[cold]
fn is_about_metadata(
    frame: &[u8],
    parsed: &Parsed,
    reason: DropReason,
    ingress: Option<PortId>,
    state: &State,
) -> bool {
    let Some(key) = FlowKey::new(frame, parsed) else { return false };
    match (ingress.and_then(|ingress| state.ports.get(ingress)).map(|port| port.kind), reason) {
        (Some(PortKind::Workload), DropReason::LinkLocal) => state.nat.metadata_for(&key).is_some(),
        (Some(PortKind::Host), DropReason::MartianSource) => state.nat.is_from_metadata(&key),
        _ => false,
    }
}

fn judge_v4(frame: &[u8], parsed: &Parsed) -> Option<DropReason> {
    let (source, destination) = parsed.ipv4_source(frame).zip(parsed.ipv4_destination(frame))?;
    check_v4(source, destination)
}

#[inline]
fn judge_v6(frame: &[u8], parsed: &Parsed) -> Option<DropReason> {
    let (source, destination) = parsed.ipv6_source(frame).zip(parsed.ipv6_destination(frame))?;
    check_v6(source, destination)
}

/// Does any of these need a closer look? As [`is_suspect_v4`], for many at once, and by two octets where one says little: the
/// rest of 169/8 are ordinary addresses, and with a full table there is one in every fifth batch.
fn is_any_suspect(sources: &[u32], destinations: &[u32]) -> bool {
    const LINK_LOCAL: u32 = 169 << 8 | 254;
    let is_suspect = |addr: u32| {
        let first = addr >> 24;
        // 0, which becomes the largest number, and all from 224 on.
        (first.wrapping_sub(1) >= 223) | (first == 127) | (addr >> 16 == LINK_LOCAL)
    };
    // Folded to the end, for the processor compares many at once.
    let any = |any, (source, destination): (&u32, &u32)| any | is_suspect(*source) | is_suspect(*destination);
    sources.iter().zip(destinations).fold(false, any)
}

/// As [`is_suspect_v6`], for many at once.
fn is_any_suspect_v6(sources: &[u128], destinations: &[u128]) -> bool {
    let distance = |addr: u128| ((addr >> 112) as u16).wrapping_sub(1);
    // 0 becomes the largest number. Folded to the end, as above.
    let most = |most: u16, (source, destination): (&u128, &u128)| {
        most.max(distance(*source)).max(distance(*destination))
    };
    sources.iter().zip(destinations).fold(0, most) >= 0xfe80 - 1
}

/// First octets under which [`check_v4`] finds something to refuse.
const SUSPECT_FIRST_OCTETS: [bool; 256] = {
    let mut suspect = [false; 256];
    let mut octet = 0;
    while octet < 256 {
        suspect[octet] = octet == 0 || octet == 127 || octet == 169 || octet >= 224;
        octet += 1;
    }
    suspect
};

/// Does either address of a plain packet need a closer look?
#[inline(always)]
fn is_suspect_v4(frame: &[u8]) -> bool {
    const SOURCE: usize = ethernet::HEADER_LEN + 12;
    const DESTINATION: usize = ethernet::HEADER_LEN + 16;
    frame.first_chunk::<{ Layout::PLAIN_V4_LEN }>().is_none_or(|head| {
        SUSPECT_FIRST_OCTETS[usize::from(head[SOURCE])] | SUSPECT_FIRST_OCTETS[usize::from(head[DESTINATION])]
    })
}

/// As [`is_suspect_v4`]: is either address outside what begins with 0001 to fe7f?
#[inline(always)]
fn is_suspect_v6(frame: &[u8]) -> bool {
    const SOURCE: usize = ethernet::HEADER_LEN + 8;
    const DESTINATION: usize = ethernet::HEADER_LEN + 24;
    frame.first_chunk::<{ Layout::PLAIN_V6_LEN }>().is_none_or(|head| {
        let first = |at: usize| u16::from_be_bytes([head[at], head[at + 1]]);
        [first(SOURCE), first(DESTINATION)].into_iter().any(|first| !(1..0xfe80).contains(&first))
    })
}

fn check_v4(source: Ipv4Addr, destination: Ipv4Addr) -> Option<DropReason> {
    if destination.is_broadcast() {
        return Some(DropReason::Broadcast);
    }
    if destination.is_multicast() {
        return Some(DropReason::Multicast);
    }
    if is_martian_v4(source) || source.is_multicast() {
        return Some(DropReason::MartianSource);
    }
    if is_martian_v4(destination) {
        return Some(DropReason::MartianDestination);
    }
    (source.is_link_local() || destination.is_link_local()).then_some(DropReason::LinkLocal)
}

/// "This network", loopback and the reserved class E, limited broadcast included.
fn is_martian_v4(addr: Ipv4Addr) -> bool {
    matches!(addr.octets(), [0 | 127 | 240..=255, ..])
}

fn check_v6(source: Ipv6Addr, destination: Ipv6Addr) -> Option<DropReason> {
    if destination.is_multicast() {
        return Some(DropReason::Multicast);
    }
    if is_martian_v6(source) || source.is_multicast() {
        return Some(DropReason::MartianSource);
    }
    if is_martian_v6(destination) {
        return Some(DropReason::MartianDestination);
    }
    let is_link_local = source.is_unicast_link_local() || destination.is_unicast_link_local();
    is_link_local.then_some(DropReason::LinkLocal)
}

/// Would an IPv6 packet leave the link that its source address is of? Such a sender is told (RFC 4443 §3.1, code 2); one
/// that writes to its own link reaches no router by that.
#[cold]
fn is_beyond_scope(frame: &[u8], parsed: &Parsed) -> bool {
    let addresses = parsed.ipv6_source(frame).zip(parsed.ipv6_destination(frame));
    addresses.is_some_and(|(source, destination)| {
        let goes_on = !destination.is_multicast() && !destination.is_unicast_link_local();
        source.is_unicast_link_local() && goes_on && !is_martian_v6(destination)
    })
}

/// Unspecified, loopback, and IPv4-mapped, which stands for an IPv4 address inside a host and never on a wire
/// (RFC 6890 §2.2.3).
fn is_martian_v6(addr: Ipv6Addr) -> bool {
    addr.is_unspecified() || addr.is_loopback() || addr.to_ipv4_mapped().is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v4(source: &str, destination: &str) -> Option<DropReason> {
        check_v4(source.parse().unwrap(), destination.parse().unwrap())
    }

    fn v6(source: &str, destination: &str) -> Option<DropReason> {
        check_v6(source.parse().unwrap(), destination.parse().unwrap())
    }

    #[test]
    fn every_first_octet_that_holds_a_refused_address_is_suspect() {
        let fine = Ipv4Addr::new(10, 65, 0, 2);
        for octet in 0..=255 {
            let inside = [
                Ipv4Addr::new(octet, 0, 0, 1),
                Ipv4Addr::new(octet, 254, 1, 1),
                Ipv4Addr::new(octet, 255, 255, 255),
            ];
            let refused = |addr| check_v4(addr, fine).is_some() || check_v4(fine, addr).is_some();
            let is_suspect = inside.into_iter().any(refused);
            assert_eq!(SUSPECT_FIRST_OCTETS[usize::from(octet)], is_suspect, "{octet}");
            let (these, those) = ([u32::from(fine), inside[1].into()], [u32::from(fine); 2]);
            assert_eq!(is_any_suspect(&these, &those), is_suspect, "{octet}");
            assert_eq!(is_any_suspect(&those, &these), is_suspect, "{octet}");
        }
    }

    #[test]
    fn every_refused_ipv6_address_is_suspect() {
        let frame = |source: &str, destination: &str| {
            let mut frame = vec![0; Layout::PLAIN_V6_LEN];
            for (at, text) in [(22, source), (38, destination)] {
                frame[at..at + 16].copy_from_slice(&text.parse::<Ipv6Addr>().unwrap().octets());
            }
            frame
        };
        let fine = "fd65::2";
        for refused in ["::", "::1", "fe80::1", "febf::1", "ff02::16"] {
            let is_suspect = |source: &str, destination: &str| {
                let number = |text: &str| u128::from(text.parse::<Ipv6Addr>().unwrap());
                let is_suspect = is_suspect_v6(&frame(source, destination));
                let these = [number(fine), number(source), number(fine)];
                let those = [number(fine), number(destination), number(fine)];
                assert_eq!(is_any_suspect_v6(&these, &those), is_suspect, "{source} {destination}");
                is_suspect
            };
            assert!(is_suspect(refused, fine) && is_suspect(fine, refused), "{refused}");
            assert!(!is_suspect(fine, "2001:db8::1") && !is_suspect("fe7f::1", fine), "{fine}");
        }
    }

    #[test]
    fn ordinary_addresses_pass() {
        assert_eq!(v4("10.65.0.2", "10.65.1.2"), None);
        assert_eq!(v6("fd65::2", "2001:db8::1"), None);
    }

    #[test]
    fn martians_are_told_apart() {
        for source in ["0.0.0.0", "127.0.0.1", "224.0.0.1", "240.0.0.1", "255.255.255.255"] {
            assert_eq!(v4(source, "10.65.1.2"), Some(DropReason::MartianSource), "{source}");
        }
        for destination in ["0.1.2.3", "127.0.0.1", "240.0.0.1"] {
            assert_eq!(v4("10.65.0.2", destination), Some(DropReason::MartianDestination), "{destination}");
        }
        for source in ["::", "::1", "::ffff:10.65.0.2", "ff02::1"] {
            assert_eq!(v6(source, "fd65::2"), Some(DropReason::MartianSource), "{source}");
        }
        for destination in ["::", "::1", "::ffff:10.65.0.2"] {
            assert_eq!(v6("fd65::2", destination), Some(DropReason::MartianDestination), "{destination}");
        }
    }

    #[test]
    fn what_stays_on_a_link_or_goes_to_many_is_told_apart_from_martians() {
        for (source, destination) in [("169.254.1.1", "10.65.1.2"), ("10.65.0.2", "169.254.1.1")] {
            assert_eq!(v4(source, destination), Some(DropReason::LinkLocal));
        }
        for (source, destination) in [("fe80::1", "fd65::2"), ("fd65::2", "fe80::1"), ("fe80::1", "fe80::2")]
        {
            assert_eq!(v6(source, destination), Some(DropReason::LinkLocal));
        }
        assert_eq!(v4("10.65.0.2", "224.0.0.251"), Some(DropReason::Multicast));
        assert_eq!(v4("0.0.0.0", "255.255.255.255"), Some(DropReason::Broadcast), "a DHCP request");
        assert_eq!(v6("fd65::2", "ff02::16"), Some(DropReason::Multicast));
    }
}

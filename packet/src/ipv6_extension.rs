//! The walk over IPv6 extension headers (RFC 8200 §4), which a policy router needs to find the ports.

use crate::{Fragment, Malformed, protocol, u16_at};

/// At most this many extension headers; RFC 8504 §5.3 lets a node limit them, and no honest packet has more.
pub const EXTENSIONS_MAX: usize = 8;

/// Where a chain of extension headers ends, and what it says of fragments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chain {
    /// Protocol of what follows the chain. In a later fragment: what the fragment header names.
    pub protocol: u8,
    /// Bytes from the start of the payload to what follows the chain.
    pub len: usize,
    /// Whole, first fragment or a later one.
    pub fragment: Fragment,
}

/// Walks the chain that begins `payload`, whose first header is of type `next_header`.
///
/// Stops at the upper layer, at ESP (the rest is encrypted) and at a later fragment's fragment header.
///
/// # Errors
/// [`Malformed::Ipv6BadExtension`]: truncated, hop-by-hop options anywhere but first, or more than [`EXTENSIONS_MAX`].
#[inline]
pub fn walk(next_header: u8, payload: &[u8]) -> Result<Chain, Malformed> {
    let mut chain = Chain { protocol: next_header, len: 0, fragment: Fragment::Whole };
    if !is_extension(next_header) {
        return Ok(chain);
    }
    for position in 0..=EXTENSIONS_MAX {
        if !is_extension(chain.protocol) || chain.fragment == Fragment::Later {
            return Ok(chain);
        }
        let misplaced = chain.protocol == protocol::HOP_BY_HOP && position > 0;
        if misplaced || position == EXTENSIONS_MAX {
            break;
        }
        let header = &payload[chain.len..];
        let &[next, len, ..] = header else { break };
        if chain.protocol == protocol::FRAGMENT {
            chain.fragment = fragment(header);
        }
        chain.len += header_len(chain.protocol, len);
        chain.protocol = next;
        if chain.len > payload.len() {
            break;
        }
    }
    Err(Malformed::Ipv6BadExtension)
}

/// Does the sender choose the way: is there a routing header of type 0 (RFC 5095) with segments left? `next_header` and
/// `payload` as for [`walk`]; a chain that it refuses has none.
pub fn is_source_routed(next_header: u8, payload: &[u8]) -> bool {
    let (mut kind, mut rest) = (next_header, payload);
    for _ in 0..EXTENSIONS_MAX {
        let &[next, len, routing_type, segments_left, ..] = rest else { return false };
        if !is_extension(kind) || kind == protocol::FRAGMENT && fragment(rest) == Fragment::Later {
            return false;
        }
        if kind == protocol::ROUTING && routing_type == 0 && segments_left > 0 {
            return true;
        }
        rest = rest.get(header_len(kind, len)..).unwrap_or(&[]);
        kind = next;
    }
    false
}

const fn is_extension(number: u8) -> bool {
    matches!(
        number,
        protocol::HOP_BY_HOP
            | protocol::ROUTING
            | protocol::FRAGMENT
            | protocol::AUTHENTICATION
            | protocol::DESTINATION_OPTIONS
            | protocol::MOBILITY
    )
}

/// Bytes of a header of this type whose length field is `len`.
fn header_len(number: u8, len: u8) -> usize {
    match number {
        protocol::FRAGMENT => 8,
        // In units of 4 bytes, without the first two (RFC 4302 §2.2).
        protocol::AUTHENTICATION => (usize::from(len) + 2) * 4,
        // In units of 8 bytes, without the first one.
        _ => (usize::from(len) + 1) * 8,
    }
}

/// What a fragment header says. "Atomic" fragments, first and last at once, count as whole (RFC 6946).
fn fragment(header: &[u8]) -> Fragment {
    let field = u16_at(header, 2);
    match (field >> 3, field & 1) {
        (0, 0) => Fragment::Whole,
        (0, _) => Fragment::First,
        _ => Fragment::Later,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Headers of 8 bytes each, of the given types, before UDP.
    fn chain(types: &[u8]) -> (u8, Vec<u8>) {
        let mut bytes = Vec::new();
        for (index, _) in types.iter().enumerate() {
            let next = types.get(index + 1).copied().unwrap_or(protocol::UDP);
            bytes.extend([next, 0, 0, 0, 0, 0, 0, 0]);
        }
        (types.first().copied().unwrap_or(protocol::UDP), bytes)
    }

    #[track_caller]
    fn check(types: &[u8], expected: Result<Chain, Malformed>) {
        let (first, bytes) = chain(types);
        assert_eq!(walk(first, &bytes), expected);
    }

    fn whole(protocol: u8, len: usize) -> Result<Chain, Malformed> {
        Ok(Chain { protocol, len, fragment: Fragment::Whole })
    }

    #[test]
    fn the_upper_layer_is_found_behind_any_order_of_headers() {
        check(&[], whole(protocol::UDP, 0));
        check(&[protocol::HOP_BY_HOP, protocol::ROUTING], whole(protocol::UDP, 16));
        check(
            &[protocol::DESTINATION_OPTIONS, protocol::ROUTING, protocol::MOBILITY],
            whole(protocol::UDP, 24),
        );
    }

    #[test]
    fn hop_by_hop_options_come_first_or_not_at_all() {
        check(&[protocol::DESTINATION_OPTIONS, protocol::HOP_BY_HOP], Err(Malformed::Ipv6BadExtension));
    }

    #[test]
    fn one_header_too_many_is_refused() {
        check(&[protocol::DESTINATION_OPTIONS; EXTENSIONS_MAX], whole(protocol::UDP, 8 * EXTENSIONS_MAX));
        check(&[protocol::DESTINATION_OPTIONS; EXTENSIONS_MAX + 1], Err(Malformed::Ipv6BadExtension));
    }

    #[test]
    fn a_header_that_runs_past_the_payload_is_refused() {
        let (first, bytes) = chain(&[protocol::HOP_BY_HOP, protocol::ROUTING]);
        for len in 0..16 {
            assert_eq!(walk(first, &bytes[..len]), Err(Malformed::Ipv6BadExtension));
        }
        let mut long = bytes;
        long[9] = 200;
        assert_eq!(walk(first, &long), Err(Malformed::Ipv6BadExtension));
    }

    #[test]
    fn an_authentication_header_counts_in_fours() {
        let bytes = [[protocol::TCP, 4, 0, 0, 0, 0, 0, 0], [0; 8], [0; 8]].concat();
        assert_eq!(walk(protocol::AUTHENTICATION, &bytes), whole(protocol::TCP, 24));
    }

    #[test]
    fn only_a_routing_header_of_type_0_with_segments_left_is_a_source_route() {
        let routed = |at: usize, routing_type: u8, segments_left: u8| {
            let (first, mut bytes) = chain(&[protocol::HOP_BY_HOP, protocol::ROUTING]);
            (bytes[at + 2], bytes[at + 3]) = (routing_type, segments_left);
            is_source_routed(first, &bytes)
        };
        assert!(routed(8, 0, 1));
        assert!(!routed(8, 0, 0), "nothing is left of it (RFC 5095 section 3)");
        assert!(!routed(8, 4, 1), "segment routing is another type");
        assert!(!routed(0, 0, 1), "hop-by-hop options are no routing header");
        assert!(!is_source_routed(protocol::UDP, &[0, 0, 0, 1]));
        assert!(!is_source_routed(protocol::ROUTING, &[protocol::UDP, 0, 0]), "cut short");
    }

    #[test]
    fn fragments_are_told_apart() {
        let fragment = |offset: u16, more: u16| {
            let [a, b] = (offset << 3 | more).to_be_bytes();
            walk(
                protocol::FRAGMENT,
                &[protocol::DESTINATION_OPTIONS, 0, a, b, 0, 0, 0, 7, protocol::UDP, 0, 0, 0, 0, 0, 0, 0],
            )
        };
        assert_eq!(fragment(0, 0).unwrap().fragment, Fragment::Whole);
        assert_eq!(fragment(0, 1), Ok(Chain { protocol: protocol::UDP, len: 16, fragment: Fragment::First }));
        let later = Chain { protocol: protocol::DESTINATION_OPTIONS, len: 8, fragment: Fragment::Later };
        assert_eq!(fragment(1, 0), Ok(later));
    }
}

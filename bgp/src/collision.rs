//! Which of two connections with one peer stays (RFC 4271 §6.8).

use std::net::Ipv4Addr;

use crate::input::Direction;

/// One side of a collision: AS number and BGP identifier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Side {
    pub(crate) router_id: Ipv4Addr,
    pub(crate) as_number: u32,
}

/// The connection opened by the side with the higher identifier stays; identifiers may be equal in different
/// ASes, then the higher AS number decides (RFC 6286 §2.3).
pub(crate) fn stays(local: Side, remote: Side) -> Direction {
    let rank = |side: Side| (u32::from(side.router_id), side.as_number);
    if rank(local) < rank(remote) { Direction::Inbound } else { Direction::Outbound }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn side(id: u32, as_number: u32) -> Side {
        Side { router_id: id.into(), as_number }
    }

    #[test]
    fn the_side_with_the_higher_identifier_keeps_its_connection() {
        assert_eq!(stays(side(1, 9), side(2, 1)), Direction::Inbound);
        assert_eq!(stays(side(2, 1), side(1, 9)), Direction::Outbound);
    }

    #[test]
    fn equal_identifiers_are_decided_by_as_number() {
        assert_eq!(stays(side(7, 1), side(7, 2)), Direction::Inbound);
        assert_eq!(stays(side(7, 2), side(7, 1)), Direction::Outbound);
    }

    #[test]
    fn both_sides_agree_on_the_connection_that_stays() {
        for (a, b) in [(side(1, 1), side(2, 1)), (side(3, 1), side(3, 2))] {
            // What is inbound for one is outbound for the other.
            assert_ne!(stays(a, b), stays(b, a));
        }
    }
}

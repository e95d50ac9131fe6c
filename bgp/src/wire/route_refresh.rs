//! ROUTE-REFRESH messages (RFC 2918 §3).

use super::nlri::AfiSafi;
use super::{MessageType, Reader, emit_message};

/// A request to announce one family's routes again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RouteRefresh {
    /// Which family.
    pub family: AfiSafi,
    /// 0 is the request; 1 and 2 mark begin and end of enhanced refresh (RFC 7313), which we do not offer.
    pub subtype: u8,
}

impl RouteRefresh {
    /// Reads a message's body; `None` where it is not four octets, which the header check excludes.
    pub fn parse(body: &[u8]) -> Option<RouteRefresh> {
        let mut body = Reader(body);
        let (afi, subtype, safi) = (body.u16()?, body.u8()?, body.u8()?);
        Some(RouteRefresh { family: AfiSafi { afi, safi }, subtype })
    }

    /// Appends the whole message.
    pub fn emit(&self, out: &mut Vec<u8>) {
        emit_message(out, MessageType::RouteRefresh, |out| {
            out.extend(self.family.afi.to_be_bytes());
            out.extend([self.subtype, self.family.safi]);
        });
    }
}

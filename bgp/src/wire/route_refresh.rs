//! ROUTE-REFRESH messages (RFC 2918 §3, RFC 7313 §3.2).

use super::nlri::AfiSafi;
use super::{MessageType, Reader, emit_message};

/// Announce everything again (RFC 2918).
pub const REQUEST: u8 = 0;
/// Everything follows (BoRR, RFC 7313 §3.2).
pub const BEGIN: u8 = 1;
/// That was everything (EoRR, RFC 7313 §3.2).
pub const END: u8 = 2;

/// A request to announce one family's routes again, or a mark around such announcements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RouteRefresh {
    /// Which family.
    pub family: AfiSafi,
    /// [`REQUEST`], [`BEGIN`] or [`END`]; others are to be ignored (RFC 7313 §5).
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

//! NOTIFICATION messages (RFC 4271 §4.5, §6).

use std::fmt;

use super::MessageType;

/// Why a session ends, as it stands on the wire.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notification {
    /// Error code.
    pub code: u8,
    /// Error subcode; 0 is unspecific.
    pub subcode: u8,
    /// What RFC 4271 §6 attaches to this error.
    pub data: Vec<u8>,
}

/// Message Header Error.
pub const HEADER_ERROR: u8 = 1;
/// OPEN Message Error.
pub const OPEN_ERROR: u8 = 2;
/// UPDATE Message Error.
pub const UPDATE_ERROR: u8 = 3;
/// Hold Timer Expired.
pub const HOLD_TIMER_EXPIRED: u8 = 4;
/// Finite State Machine Error.
pub const FSM_ERROR: u8 = 5;
/// Cease (RFC 4486).
pub const CEASE: u8 = 6;
/// ROUTE-REFRESH Message Error (RFC 7313).
pub const ROUTE_REFRESH_ERROR: u8 = 7;

/// The subcodes of Cease (RFC 4486, RFC 8538).
pub mod cease {
    /// Maximum Number of Prefixes Reached.
    pub const MAX_PREFIXES: u8 = 1;
    /// Administrative Shutdown.
    pub const SHUTDOWN: u8 = 2;
    /// Peer De-configured.
    pub const DECONFIGURED: u8 = 3;
    /// Administrative Reset.
    pub const RESET: u8 = 4;
    /// Connection Rejected.
    pub const REJECTED: u8 = 5;
    /// Other Configuration Change.
    pub const RECONFIGURED: u8 = 6;
    /// Connection Collision Resolution.
    pub const COLLISION: u8 = 7;
}

impl Notification {
    /// Without data.
    pub fn new(code: u8, subcode: u8) -> Notification {
        Notification { code, subcode, data: Vec::new() }
    }

    /// With data.
    pub fn with_data(code: u8, subcode: u8, data: &[u8]) -> Notification {
        Notification { code, subcode, data: data.to_vec() }
    }

    /// Reads a message's body; `None` where even the two codes are missing, which the header check excludes.
    pub fn parse(body: &[u8]) -> Option<Notification> {
        let (&[code, subcode], data) = body.split_first_chunk()?;
        Some(Notification { code, subcode, data: data.to_vec() })
    }

    /// Appends the whole message; data beyond the largest message is cut.
    pub fn emit(&self, out: &mut Vec<u8>) {
        let room = super::MAX_MESSAGE_LEN - super::HEADER_LEN - 2;
        super::emit_message(out, MessageType::Notification, |out| {
            out.extend([self.code, self.subcode]);
            out.extend(&self.data[..self.data.len().min(room)]);
        });
    }
}

impl fmt::Display for Notification {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NOTIFICATION {}/{} ({})", self.code, self.subcode, name(self.code, self.subcode))
    }
}

/// The name IANA's registries give an error.
fn name(code: u8, subcode: u8) -> &'static str {
    match (code, subcode) {
        (HEADER_ERROR, 1) => "Connection Not Synchronized",
        (HEADER_ERROR, 2) => "Bad Message Length",
        (HEADER_ERROR, 3) => "Bad Message Type",
        (HEADER_ERROR, _) => "Message Header Error",
        (OPEN_ERROR, 1) => "Unsupported Version Number",
        (OPEN_ERROR, 2) => "Bad Peer AS",
        (OPEN_ERROR, 3) => "Bad BGP Identifier",
        (OPEN_ERROR, 4) => "Unsupported Optional Parameter",
        (OPEN_ERROR, 6) => "Unacceptable Hold Time",
        (OPEN_ERROR, 7) => "Unsupported Capability",
        (OPEN_ERROR, 11) => "Role Mismatch",
        (OPEN_ERROR, _) => "OPEN Message Error",
        (UPDATE_ERROR, 1) => "Malformed Attribute List",
        (UPDATE_ERROR, 2) => "Unrecognized Well-known Attribute",
        (UPDATE_ERROR, 3) => "Missing Well-known Attribute",
        (UPDATE_ERROR, 4) => "Attribute Flags Error",
        (UPDATE_ERROR, 5) => "Attribute Length Error",
        (UPDATE_ERROR, 6) => "Invalid ORIGIN Attribute",
        (UPDATE_ERROR, 8) => "Invalid NEXT_HOP Attribute",
        (UPDATE_ERROR, 9) => "Optional Attribute Error",
        (UPDATE_ERROR, 10) => "Invalid Network Field",
        (UPDATE_ERROR, 11) => "Malformed AS_PATH",
        (UPDATE_ERROR, _) => "UPDATE Message Error",
        (HOLD_TIMER_EXPIRED, _) => "Hold Timer Expired",
        (FSM_ERROR, 1) => "Unexpected Message in OpenSent",
        (FSM_ERROR, 2) => "Unexpected Message in OpenConfirm",
        (FSM_ERROR, 3) => "Unexpected Message in Established",
        (FSM_ERROR, _) => "Finite State Machine Error",
        (CEASE, cease::MAX_PREFIXES) => "Maximum Number of Prefixes Reached",
        (CEASE, cease::SHUTDOWN) => "Administrative Shutdown",
        (CEASE, cease::DECONFIGURED) => "Peer De-configured",
        (CEASE, cease::RESET) => "Administrative Reset",
        (CEASE, cease::REJECTED) => "Connection Rejected",
        (CEASE, cease::RECONFIGURED) => "Other Configuration Change",
        (CEASE, cease::COLLISION) => "Connection Collision Resolution",
        (CEASE, 8) => "Out of Resources",
        (CEASE, 9) => "Hard Reset",
        (CEASE, 10) => "BFD Down",
        (CEASE, _) => "Cease",
        (ROUTE_REFRESH_ERROR, _) => "ROUTE-REFRESH Message Error",
        _ => "unknown",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_notification_comes_back_from_its_own_bytes() {
        let notification = Notification::with_data(OPEN_ERROR, 1, &[0, 4]);
        let mut bytes = Vec::new();
        notification.emit(&mut bytes);
        assert_eq!(Notification::parse(&bytes[19..]), Some(notification));
        assert_eq!(bytes.len(), 23);
    }

    #[test]
    fn data_beyond_the_largest_message_is_cut() {
        let mut bytes = Vec::new();
        Notification::with_data(UPDATE_ERROR, 1, &[0; 5000]).emit(&mut bytes);
        assert_eq!(bytes.len(), 4096);
    }
}

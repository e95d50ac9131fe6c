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

/// The subcode of OPEN Message Error for roles that don't fit (RFC 9234 §4.2).
pub const ROLE_MISMATCH: u8 = 11;

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
    /// Out of Resources.
    pub const OUT_OF_RESOURCES: u8 = 8;
    /// Hard Reset (RFC 8538 §3).
    pub const HARD_RESET: u8 = 9;
    /// BFD Down (RFC 9384).
    pub const BFD_DOWN: u8 = 10;
}

/// Longest text that goes with a shutdown or reset, in octets (RFC 9003 §2).
const TEXT_MAX: usize = 255;

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

    /// Administrative Shutdown or Reset with a text for the people on the other side (RFC 9003 §2). A text that is
    /// too long is cut at a character.
    pub fn with_text(subcode: u8, text: &str) -> Notification {
        let text = &text[..text.floor_char_boundary(TEXT_MAX)];
        let mut data = vec![text.len() as u8];
        data.extend(text.as_bytes());
        Notification { code: CEASE, subcode, data }
    }

    /// The text that goes with an administrative shutdown or reset, if there is one and it is UTF-8. Control
    /// characters are left out: what a peer sends must not move a terminal's cursor (RFC 9003 §5).
    pub fn text(&self) -> Option<String> {
        if !matches!((self.code, self.subcode), (CEASE, cease::SHUTDOWN | cease::RESET)) {
            return None;
        }
        let (&len, text) = self.data.split_first()?;
        let text = std::str::from_utf8(text.get(..usize::from(len))?).ok()?;
        let text: String = text.chars().filter(|letter| !letter.is_control()).collect();
        (!text.is_empty()).then_some(text)
    }

    /// The same as Hard Reset: the peer is not to keep our routes (RFC 8538 §3.1). The real codes are its data.
    pub fn into_hard_reset(self) -> Notification {
        let data = [&[self.code, self.subcode], &self.data[..]].concat();
        Notification { code: CEASE, subcode: cease::HARD_RESET, data }
    }

    /// Is it Hard Reset?
    pub fn is_hard_reset(&self) -> bool {
        (self.code, self.subcode) == (CEASE, cease::HARD_RESET)
    }

    /// What a Hard Reset carries; `None` for any other.
    pub fn inside(&self) -> Option<Notification> {
        Notification::parse(&self.data).filter(|_| self.is_hard_reset())
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
        write!(f, "NOTIFICATION {}/{} ({})", self.code, self.subcode, name(self.code, self.subcode))?;
        if let Some(inside) = self.inside() {
            write!(f, " for {}/{} ({})", inside.code, inside.subcode, name(inside.code, inside.subcode))?;
        }
        let text = self.text().or_else(|| self.inside()?.text());
        text.map_or(Ok(()), |text| write!(f, ": {text:?}"))
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
        (OPEN_ERROR, ROLE_MISMATCH) => "Role Mismatch",
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
        (CEASE, cease::OUT_OF_RESOURCES) => "Out of Resources",
        (CEASE, 9) => "Hard Reset",
        (CEASE, cease::BFD_DOWN) => "BFD Down",
        (CEASE, _) => "Cease",
        (ROUTE_REFRESH_ERROR, 1) => "Invalid Message Length",
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
    fn a_shutdown_says_why_in_words() {
        let sent = Notification::with_text(cease::SHUTDOWN, "[TICKET-1] kernel upgrade, back at 18:00");
        assert_eq!(sent.data[0], 40);
        assert_eq!(
            sent.to_string(),
            r#"NOTIFICATION 6/2 (Administrative Shutdown): "[TICKET-1] kernel upgrade, back at 18:00""#
        );
        let hard = sent.clone().into_hard_reset();
        assert!(
            hard.to_string().starts_with("NOTIFICATION 6/9 (Hard Reset) for 6/2 (Administrative Shutdown): ")
        );
        assert_eq!(hard.inside(), Some(sent));
        // Texts of several octets a letter are cut between letters.
        let long = Notification::with_text(cease::RESET, &"é".repeat(200));
        assert_eq!((long.data.len(), long.text().map(|text| text.chars().count())), (255, Some(127)));
    }

    #[test]
    fn a_text_that_is_none_is_left_out() {
        let text = |data: &[u8]| Notification::with_data(CEASE, cease::SHUTDOWN, data).text();
        assert_eq!(text(&[]), None);
        assert_eq!(text(&[9, b'x']), None, "cut short");
        assert_eq!(text(&[2, 0xff, 0xfe]), None, "not UTF-8");
        assert_eq!(text(b"\x04a\x1b[2"), Some("a[2".to_owned()), "an escape sequence");
        assert_eq!(Notification::with_data(CEASE, cease::DECONFIGURED, b"\x01x").text(), None);
    }

    #[test]
    fn data_beyond_the_largest_message_is_cut() {
        let mut bytes = Vec::new();
        Notification::with_data(UPDATE_ERROR, 1, &[0; 5000]).emit(&mut bytes);
        assert_eq!(bytes.len(), 4096);
    }
}

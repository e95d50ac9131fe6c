//! Bytes on the wire: messages in and out (RFC 4271 §4).
//!
//! A [`Framer`] cuts the stream into messages; one file each knows a message's body. Parsers borrow from the
//! bytes and never panic; what they refuse is a ready [`Notification`](notification::Notification).

pub mod attributes;
pub mod capability;
pub mod nlri;
pub mod notification;
pub mod open;
pub mod route_refresh;
pub mod treatment;
pub mod update;

use notification::{HEADER_ERROR, Notification};

/// Marker, length and type.
pub const HEADER_LEN: usize = 19;
/// The largest message; extended messages (RFC 8654) are not offered.
pub const MAX_MESSAGE_LEN: usize = 4096;

/// What a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MessageType {
    /// Starts a session.
    Open = 1,
    /// Announces and withdraws routes.
    Update = 2,
    /// Ends a session.
    Notification = 3,
    /// Keeps a session.
    Keepalive = 4,
    /// Asks for all routes again (RFC 2918).
    RouteRefresh = 5,
}

impl MessageType {
    /// All, in the order of their codes.
    pub const ALL: [MessageType; 5] = [
        MessageType::Open,
        MessageType::Update,
        MessageType::Notification,
        MessageType::Keepalive,
        MessageType::RouteRefresh,
    ];

    fn from_code(code: u8) -> Option<MessageType> {
        MessageType::ALL.get(usize::from(code).checked_sub(1)?).copied()
    }

    /// Lengths that a whole message of this type can have.
    fn lengths(self) -> std::ops::RangeInclusive<usize> {
        match self {
            MessageType::Open => 29..=MAX_MESSAGE_LEN,
            MessageType::Update => 23..=MAX_MESSAGE_LEN,
            MessageType::Notification => 21..=MAX_MESSAGE_LEN,
            MessageType::Keepalive => HEADER_LEN..=HEADER_LEN,
            MessageType::RouteRefresh => 23..=23,
        }
    }
}

/// Checks a header; gives the type and the whole message's length (RFC 4271 §6.1).
fn parse_header(header: &[u8; HEADER_LEN]) -> Result<(MessageType, usize), Notification> {
    if header[..16] != [0xff; 16] {
        return Err(Notification::new(HEADER_ERROR, 1));
    }
    let length = [header[16], header[17]];
    let len = usize::from(u16::from_be_bytes(length));
    let bad_length = || Notification::with_data(HEADER_ERROR, 2, &length);
    if !(HEADER_LEN..=MAX_MESSAGE_LEN).contains(&len) {
        return Err(bad_length());
    }
    let kind = MessageType::from_code(header[18])
        .ok_or_else(|| Notification::with_data(HEADER_ERROR, 3, &header[18..]))?;
    if kind.lengths().contains(&len) { Ok((kind, len)) } else { Err(bad_length()) }
}

/// Cuts a stream of bytes into messages, holding back at most one incomplete message.
#[derive(Debug, Default)]
pub struct Framer {
    /// An incomplete message, or one that was given out last.
    held: Vec<u8>,
    /// `held` was given out.
    spent: bool,
}

impl Framer {
    /// The next whole message of what was held back and `rest`, which is advanced past it: its type and body.
    ///
    /// # Errors
    /// The NOTIFICATION that RFC 4271 §6.1 asks for; the stream is of no use afterwards.
    pub fn next<'a, 'b: 'a>(
        &'a mut self,
        rest: &mut &'b [u8],
    ) -> Result<Option<(MessageType, &'a [u8])>, Notification> {
        if self.spent {
            self.held.clear();
            self.spent = false;
        }
        if self.held.is_empty()
            && let Some(header) = rest.first_chunk()
        {
            let (kind, len) = parse_header(header)?;
            if let Some((message, after)) = rest.split_at_checked(len) {
                *rest = after;
                return Ok(Some((kind, &message[HEADER_LEN..])));
            }
        }
        self.hold(rest, HEADER_LEN);
        let Some(header) = self.held.first_chunk() else { return Ok(None) };
        let (kind, len) = parse_header(header)?;
        self.hold(rest, len);
        if self.held.len() < len {
            return Ok(None);
        }
        self.spent = true;
        Ok(Some((kind, &self.held[HEADER_LEN..])))
    }

    /// Moves bytes from `rest` until `len` are held.
    fn hold(&mut self, rest: &mut &[u8], len: usize) {
        let missing = len.saturating_sub(self.held.len()).min(rest.len());
        let (taken, after) = rest.split_at(missing);
        self.held.extend_from_slice(taken);
        *rest = after;
    }
}

/// Appends a message: its header, and the body that `body` appends.
pub(crate) fn emit_message(out: &mut Vec<u8>, kind: MessageType, body: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend([0xff; 16]);
    out.extend([0, 0, kind as u8]);
    body(out);
    let len = (out.len() - start) as u16;
    out[start + 16..start + 18].copy_from_slice(&len.to_be_bytes());
}

/// Appends a KEEPALIVE.
pub(crate) fn emit_keepalive(out: &mut Vec<u8>) {
    emit_message(out, MessageType::Keepalive, |_| {});
}

/// Reads big-endian fields off the front of a slice; `None` once it is too short.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reader<'a>(pub(crate) &'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*taken)
    }

    pub(crate) fn u8(&mut self) -> Option<u8> {
        self.array::<1>().map(|[octet]| octet)
    }

    pub(crate) fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_be_bytes)
    }

    pub(crate) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keepalive() -> Vec<u8> {
        let mut bytes = Vec::new();
        emit_keepalive(&mut bytes);
        bytes
    }

    #[test]
    fn a_stream_cut_anywhere_gives_the_same_messages() {
        let mut stream = keepalive();
        Notification::with_data(6, 2, b"bye").emit(&mut stream);
        stream.extend(keepalive());
        for size in 1..=stream.len() {
            let (mut framer, mut seen) = (Framer::default(), Vec::new());
            for mut piece in stream.chunks(size) {
                while let Some((kind, body)) = framer.next(&mut piece).expect("a valid stream") {
                    seen.push((kind, body.to_vec()));
                }
            }
            assert_eq!(seen.len(), 3, "pieces of {size}");
            assert_eq!(seen[1], (MessageType::Notification, b"\x06\x02bye".to_vec()));
        }
    }

    #[test]
    fn a_bad_header_is_answered_before_its_body_has_come() {
        for (at, octet, expected) in [
            (0, 0, Notification::new(1, 1)),
            (16, 0x20, Notification::with_data(1, 2, &[0x20, 19])),
            (17, 20, Notification::with_data(1, 2, &[0, 20])),
            (18, 9, Notification::with_data(1, 3, &[9])),
        ] {
            let mut bytes = keepalive();
            bytes[at] = octet;
            assert_eq!(Framer::default().next(&mut &bytes[..]), Err(expected));
        }
    }
}

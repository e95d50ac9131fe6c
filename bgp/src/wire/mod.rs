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
/// The largest message.
pub const MAX_MESSAGE_LEN: usize = 4096;
/// The largest message where both sides take extended ones (RFC 8654 §4): all but OPEN and KEEPALIVE.
pub const MAX_EXTENDED_LEN: usize = 65535;

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

    /// Lengths that a whole message of this type can have, where `max` is that of the longest of all.
    fn lengths(self, max: usize) -> std::ops::RangeInclusive<usize> {
        match self {
            MessageType::Open => 29..=MAX_MESSAGE_LEN,
            MessageType::Update => 23..=max,
            MessageType::Notification => 21..=max,
            MessageType::Keepalive => HEADER_LEN..=HEADER_LEN,
            // A length that is wrong is an error of its own where refreshes are enhanced (RFC 7313 §5).
            MessageType::RouteRefresh => 22..=max,
        }
    }
}

/// Checks a header; gives the type and the whole message's length (RFC 4271 §6.1).
fn parse_header(header: &[u8; HEADER_LEN], max: usize) -> Result<(MessageType, usize), Notification> {
    if header[..16] != [0xff; 16] {
        return Err(Notification::new(HEADER_ERROR, 1));
    }
    let length = [header[16], header[17]];
    let len = usize::from(u16::from_be_bytes(length));
    let bad_length = || Notification::with_data(HEADER_ERROR, 2, &length);
    if !(HEADER_LEN..=max).contains(&len) {
        return Err(bad_length());
    }
    let kind = MessageType::from_code(header[18])
        .ok_or_else(|| Notification::with_data(HEADER_ERROR, 3, &header[18..]))?;
    if kind.lengths(max).contains(&len) { Ok((kind, len)) } else { Err(bad_length()) }
}

/// Cuts a stream of bytes into messages, holding back at most one incomplete message.
#[derive(Debug, Default)]
pub struct Framer {
    /// An incomplete message, or one that was given out last.
    held: Vec<u8>,
    /// `held` was given out.
    spent: bool,
    /// Messages may be extended.
    extended: bool,
}

impl Framer {
    /// Takes extended messages from now on (RFC 8654).
    pub fn extend(&mut self) {
        self.extended = true;
    }

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
        let max = if self.extended { MAX_EXTENDED_LEN } else { MAX_MESSAGE_LEN };
        if self.held.is_empty()
            && let Some(header) = rest.first_chunk()
        {
            let (kind, len) = parse_header(header, max)?;
            if let Some((message, after)) = rest.split_at_checked(len) {
                *rest = after;
                return Ok(Some((kind, &message[HEADER_LEN..])));
            }
        }
        self.hold(rest, HEADER_LEN);
        let Some(header) = self.held.first_chunk() else { return Ok(None) };
        let (kind, len) = parse_header(header, max)?;
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
    out.extend_from_slice(&[0xff; 16]);
    out.extend_from_slice(&[0, 0, kind as u8]);
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
    fn long_messages_are_for_those_who_agreed_on_them() {
        let mut long = Vec::new();
        emit_message(&mut long, MessageType::Update, |out| out.resize(out.len() + 50_000, 0));
        let bad_length = Notification::with_data(1, 2, &(HEADER_LEN as u16 + 50_000).to_be_bytes());
        assert_eq!(Framer::default().next(&mut &long[..]), Err(bad_length));
        let mut framer = Framer::default();
        framer.extend();
        let (kind, body) = framer.next(&mut &long[..]).expect("fine").expect("whole");
        assert_eq!((kind, body.len()), (MessageType::Update, 50_000));
        // OPEN stays short (RFC 8654 §4).
        long[18] = MessageType::Open as u8;
        assert!(framer.next(&mut &long[..]).is_err());
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

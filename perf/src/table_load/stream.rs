//! What a receiver must understand of a stream of BGP messages to count routes. On purpose not the router's own reader.

/// What a message says of one prefix, or of the session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Said {
    /// OPEN.
    Open,
    /// KEEPALIVE.
    Keepalive,
    /// NOTIFICATION, with code and subcode.
    Notification(u8, u8),
    /// An IPv4 route.
    Announced {
        /// Address and length.
        prefix: (u32, u8),
        /// The first AS of its path.
        first_as: u32,
        /// The last one.
        origin: u32,
    },
    /// An IPv4 route's end.
    Withdrawn((u32, u8)),
}

/// Bytes of a header.
const HEADER: usize = 19;

/// Takes the whole messages off a buffer and tells what they say; AS numbers have four octets. What isn't well-formed is
/// passed over: a receiver that counts misses it.
pub fn read(buffer: &mut Vec<u8>, mut tell: impl FnMut(Said)) {
    let mut at = 0;
    while let Some(header) = buffer.get(at..at + HEADER) {
        let length = usize::from(u16::from_be_bytes([header[16], header[17]])).max(HEADER);
        let Some(body) = buffer.get(at + HEADER..at + length) else { break };
        match header[18] {
            1 => tell(Said::Open),
            2 => drop(update(body, &mut tell)),
            3 => tell(Said::Notification(
                body.first().copied().unwrap_or_default(),
                body.get(1).copied().unwrap_or_default(),
            )),
            4 => tell(Said::Keepalive),
            _ => {}
        }
        at += length;
    }
    buffer.drain(..at);
}

fn update(body: &[u8], tell: &mut impl FnMut(Said)) -> Option<()> {
    let (withdrawn, rest) = counted(body)?;
    prefixes(withdrawn, |prefix| tell(Said::Withdrawn(prefix)));
    let (attributes, announced) = counted(rest)?;
    if announced.is_empty() {
        return Some(());
    }
    let (first_as, origin) = ends_of_path(attributes)?;
    prefixes(announced, |prefix| tell(Said::Announced { prefix, first_as, origin }));
    Some(())
}

fn counted(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk()?;
    rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))
}

fn prefixes(mut field: &[u8], mut tell: impl FnMut((u32, u8))) {
    while let Some((&len, rest)) = field.split_first() {
        let Some((octets, rest)) = rest.split_at_checked(usize::from(len.div_ceil(8))) else { return };
        let mut addr = [0; 4];
        let Some(into) = addr.get_mut(..octets.len()) else { return };
        into.copy_from_slice(octets);
        tell((u32::from_be_bytes(addr), len));
        field = rest;
    }
}

/// The first and the last AS of an AS_PATH of one sequence.
fn ends_of_path(mut attributes: &[u8]) -> Option<(u32, u32)> {
    loop {
        let (&[flags, code], rest) = attributes.split_first_chunk()?;
        let (length, rest) = if flags & 0x10 == 0 {
            let (length, rest) = rest.split_first()?;
            (usize::from(*length), rest)
        } else {
            let (length, rest) = rest.split_first_chunk()?;
            (usize::from(u16::from_be_bytes(*length)), rest)
        };
        let (value, rest) = rest.split_at_checked(length)?;
        if code == 2 {
            let number = |octets: &[u8; 4]| u32::from_be_bytes(*octets);
            return Some((number(value.get(2..)?.first_chunk()?), number(value.last_chunk()?)));
        }
        attributes = rest;
    }
}

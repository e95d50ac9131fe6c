//! SCTP (RFC 9260), as far as a router looks into it.

use crate::{u16_at, u32_at};

/// Ports, verification tag, checksum: 12 bytes.
pub const HEADER_LEN: usize = 12;

/// Asks for an association.
pub const INIT: u8 = 1;
/// Grants one.
pub const INIT_ACK: u8 = 2;
/// Breaks it off.
pub const ABORT: u8 = 6;
/// Something is wrong with what came.
pub const ERROR: u8 = 9;
/// The state that the peer granted it with, sent back.
pub const COOKIE_ECHO: u8 = 10;
/// The association stands.
pub const COOKIE_ACK: u8 = 11;
/// The association is over.
pub const SHUTDOWN_COMPLETE: u8 = 14;

/// Where a chunk says what it is, and how long: 4 bytes.
const CHUNK_HEADER_LEN: usize = 4;

/// A chunk, as its header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// [`INIT`] and others.
    pub kind: u8,
    /// Bytes with its header, without padding. Nothing says that they are all there.
    pub len: u16,
}

/// The verification tag; 0 where the header is cut off.
pub fn verification_tag(packet: &[u8]) -> u32 {
    packet.first_chunk::<HEADER_LEN>().map_or(0, |header| u32_at(header, 4))
}

/// The chunks of a packet, as far as their headers are there. One that is shorter than its header is the last.
pub fn chunks(packet: &[u8]) -> impl Iterator<Item = Chunk> {
    let mut rest = packet.get(HEADER_LEN..).unwrap_or(&[]);
    std::iter::from_fn(move || {
        let header: &[u8; CHUNK_HEADER_LEN] = rest.first_chunk()?;
        let chunk = Chunk { kind: header[0], len: u16_at(header, 2) };
        let is_sound = usize::from(chunk.len) >= CHUNK_HEADER_LEN;
        rest = rest.get(usize::from(chunk.len).next_multiple_of(4)..).filter(|_| is_sound).unwrap_or(&[]);
        Some(chunk)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_follow_each_other_at_multiples_of_four() {
        let mut packet = vec![0; HEADER_LEN];
        packet[4..8].copy_from_slice(&7u32.to_be_bytes());
        // COOKIE_ECHO of five bytes with padding, then one that says more than is there.
        packet.extend([COOKIE_ECHO, 0, 0, 5, 9, 0, 0, 0, 0, 3, 0, 200]);
        let kinds = |packet: &[u8]| chunks(packet).map(|chunk| (chunk.kind, chunk.len)).collect::<Vec<_>>();
        assert_eq!((verification_tag(&packet), kinds(&packet)), (7, vec![(COOKIE_ECHO, 5), (0, 200)]));
        for len in 0..packet.len() {
            assert!(chunks(&packet[..len]).count() <= 2);
        }
        // A chunk without length doesn't go on for ever.
        packet[HEADER_LEN + 3] = 0;
        assert_eq!(kinds(&packet), [(COOKIE_ECHO, 0)]);
        assert_eq!((verification_tag(&[]), kinds(&[])), (0, vec![]));
    }
}

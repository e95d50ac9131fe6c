//! UDP (RFC 768).

use std::net::IpAddr;

use crate::{Malformed, NoSpace, checksum, protocol, room_for, u16_at};

/// Ports, length, checksum: 8 bytes.
pub const HEADER_LEN: usize = 8;

/// A checked view of a UDP datagram.
#[derive(Clone, Copy, Debug)]
pub struct Packet<'a> {
    header: &'a [u8; HEADER_LEN],
    payload: &'a [u8],
}

impl<'a> Packet<'a> {
    /// Bytes beyond the length field are left out.
    ///
    /// # Errors
    /// [`Malformed::L4Truncated`] where the header, or the length it states, does not fit.
    pub fn new_checked(bytes: &'a [u8]) -> Result<Packet<'a>, Malformed> {
        let header: &[u8; HEADER_LEN] = bytes.first_chunk().ok_or(Malformed::L4Truncated)?;
        let payload = bytes.get(HEADER_LEN..u16_at(header, 4).into()).ok_or(Malformed::L4Truncated)?;
        Ok(Packet { header, payload })
    }

    /// Source port.
    pub fn sport(&self) -> u16 {
        u16_at(self.header, 0)
    }

    /// Destination port.
    pub fn dport(&self) -> u16 {
        u16_at(self.header, 2)
    }

    /// Checksum as received; 0 means none.
    pub fn checksum(&self) -> u16 {
        u16_at(self.header, 6)
    }

    /// All after the header, up to the length field.
    pub fn payload(&self) -> &'a [u8] {
        self.payload
    }
}

/// A UDP datagram as values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Repr<'a> {
    /// Source port.
    pub sport: u16,
    /// Destination port.
    pub dport: u16,
    /// At most 65 527 bytes.
    pub payload: &'a [u8],
}

impl<'a> Repr<'a> {
    /// The values of a checked datagram.
    pub fn parse(packet: &Packet<'a>) -> Repr<'a> {
        Repr { sport: packet.sport(), dport: packet.dport(), payload: packet.payload() }
    }

    /// Bytes that [`Repr::emit`] writes.
    pub fn len(&self) -> usize {
        HEADER_LEN + self.payload.len()
    }

    /// Never: a datagram has a header.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// Writes header, checksum and payload to the front of `buffer`; returns their length.
    /// The addresses go into the pseudo-header; where their families differ the checksum is left out (0).
    ///
    /// # Errors
    /// [`NoSpace`] where the buffer is too small or the datagram exceeds 65 535 bytes; nothing is written.
    pub fn emit(&self, src: IpAddr, dst: IpAddr, buffer: &mut [u8]) -> Result<usize, NoSpace> {
        let len = self.len();
        let Ok(len16) = u16::try_from(len) else {
            return Err(NoSpace { needed: len, available: u16::MAX.into() });
        };
        let datagram = room_for(buffer, len)?;
        datagram[..2].copy_from_slice(&self.sport.to_be_bytes());
        datagram[2..4].copy_from_slice(&self.dport.to_be_bytes());
        datagram[4..6].copy_from_slice(&len16.to_be_bytes());
        datagram[6..8].fill(0);
        datagram[HEADER_LEN..].copy_from_slice(self.payload);
        if let Some(pseudo) = checksum::pseudo_header(src, dst, protocol::UDP, len) {
            let checksum = match pseudo.add_bytes(datagram).checksum() {
                0 => 0xffff,
                checksum => checksum,
            };
            datagram[6..8].copy_from_slice(&checksum.to_be_bytes());
        }
        Ok(len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_length_that_does_not_fit_is_refused() {
        let header = |len: u8| [0, 53, 0, 53, 0, len, 0, 0, 1, 2];
        assert_eq!(Packet::new_checked(&header(10)).unwrap().payload(), [1, 2]);
        assert_eq!(Packet::new_checked(&header(9)).unwrap().payload(), [1]);
        assert_eq!(Packet::new_checked(&header(11)).unwrap_err(), Malformed::L4Truncated);
        assert_eq!(Packet::new_checked(&header(7)).unwrap_err(), Malformed::L4Truncated);
        assert_eq!(Packet::new_checked(&header(10)[..7]).unwrap_err(), Malformed::L4Truncated);
    }

    proptest! {
        #[test]
        fn datagrams_emit_and_parse_back(
            sport: u16, dport: u16, payload in proptest::collection::vec(any::<u8>(), 0..40), v6: bool,
            ips: [[u8; 16]; 2],
        ) {
            let ip = |octets: [u8; 16]| if v6 { IpAddr::from(octets) } else { [octets[0], 2, 3, 4].into() };
            let (src, dst) = (ip(ips[0]), ip(ips[1]));
            let repr = Repr { sport, dport, payload: &payload };
            let mut bytes = [0; 48];
            let len = repr.emit(src, dst, &mut bytes).unwrap();
            let packet = Packet::new_checked(&bytes).unwrap();
            prop_assert_eq!(Repr::parse(&packet), repr);
            prop_assert_ne!(packet.checksum(), 0);
            let pseudo = checksum::pseudo_header(src, dst, protocol::UDP, len).unwrap();
            prop_assert!(pseudo.add_bytes(&bytes[..len]).is_correct());
        }
    }
}

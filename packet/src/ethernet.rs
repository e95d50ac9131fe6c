//! Ethernet II (IEEE 802.3 clause 3). The frame check sequence is the NIC's business and never seen here.

use model::MacAddr;

use crate::{Malformed, NoSpace, octets, room, u16_at};

/// Destination, source and ethertype: 14 bytes.
pub const HEADER_LEN: usize = 14;

/// Ethertype of IPv4.
pub const IPV4: u16 = 0x0800;
/// Ethertype of ARP.
pub const ARP: u16 = 0x0806;
/// Ethertype of a customer VLAN tag (IEEE 802.1Q).
pub const VLAN: u16 = 0x8100;
/// Ethertype of IPv6.
pub const IPV6: u16 = 0x86dd;
/// Ethertype of slow protocols, LACP among them (IEEE 802.3 annex 57A).
pub const SLOW: u16 = 0x8809;
/// Ethertype of a service VLAN tag (IEEE 802.1ad).
pub const QINQ: u16 = 0x88a8;
/// Ethertype of LLDP (IEEE 802.1AB).
pub const LLDP: u16 = 0x88cc;

/// A checked view of an Ethernet header and what follows it.
#[derive(Clone, Copy, Debug)]
pub struct Packet<'a> {
    header: &'a [u8; HEADER_LEN],
    payload: &'a [u8],
}

impl<'a> Packet<'a> {
    /// # Errors
    /// [`Malformed::TooShort`] below 14 bytes.
    pub fn new_checked(frame: &'a [u8]) -> Result<Packet<'a>, Malformed> {
        let (header, payload) = frame.split_first_chunk().ok_or(Malformed::TooShort)?;
        Ok(Packet { header, payload })
    }

    /// Who the frame is for.
    pub fn dst(&self) -> MacAddr {
        MacAddr(octets(self.header, 0))
    }

    /// Who sent it.
    pub fn src(&self) -> MacAddr {
        MacAddr(octets(self.header, 6))
    }

    /// What follows. Below 0x0600 it is a length (IEEE 802.3) and the frame carries LLC.
    pub fn ethertype(&self) -> u16 {
        u16_at(self.header, 12)
    }

    /// All after the header, VLAN tags and padding included.
    pub fn payload(&self) -> &'a [u8] {
        self.payload
    }
}

/// An Ethernet header as values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Repr {
    /// Who the frame is for.
    pub dst: MacAddr,
    /// Who sends it.
    pub src: MacAddr,
    /// What follows.
    pub ethertype: u16,
}

impl Repr {
    /// The values of a checked header.
    pub fn parse(packet: &Packet<'_>) -> Repr {
        Repr { dst: packet.dst(), src: packet.src(), ethertype: packet.ethertype() }
    }

    /// Writes the header to the front of `buffer`; returns its length, 14.
    ///
    /// # Errors
    /// [`NoSpace`], and nothing is written.
    pub fn emit(&self, buffer: &mut [u8]) -> Result<usize, NoSpace> {
        let header: &mut [u8; HEADER_LEN] = room(buffer)?;
        header[..6].copy_from_slice(&self.dst.0);
        header[6..12].copy_from_slice(&self.src.0);
        header[12..].copy_from_slice(&self.ethertype.to_be_bytes());
        Ok(HEADER_LEN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn thirteen_bytes_are_too_short() {
        assert_eq!(Packet::new_checked(&[0; 13]).unwrap_err(), Malformed::TooShort);
        assert!(Packet::new_checked(&[0; 14]).unwrap().payload().is_empty());
    }

    proptest! {
        #[test]
        fn headers_emit_and_parse_back(dst: [u8; 6], src: [u8; 6], ethertype: u16, rest in 0usize..4) {
            let repr = Repr { dst: MacAddr(dst), src: MacAddr(src), ethertype };
            let mut buffer = vec![0; HEADER_LEN + rest];
            prop_assert_eq!(repr.emit(&mut buffer), Ok(HEADER_LEN));
            let packet = Packet::new_checked(&buffer).unwrap();
            prop_assert_eq!(Repr::parse(&packet), repr);
            prop_assert_eq!(packet.payload().len(), rest);
        }
    }
}

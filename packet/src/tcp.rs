//! TCP (RFC 9293), as far as a router looks into it.

use std::net::IpAddr;

use crate::{Malformed, NoSpace, checksum, protocol, room_for, u16_at, u32_at};

/// The header without options: 20 bytes.
pub const HEADER_LEN: usize = 20;

/// The connection is over.
pub const FIN: u8 = 0x01;
/// The connection begins.
pub const SYN: u8 = 0x02;
/// The connection is refused or broken.
pub const RST: u8 = 0x04;
/// Deliver at once.
pub const PSH: u8 = 0x08;
/// The acknowledgement number counts.
pub const ACK: u8 = 0x10;

/// A checked view of a TCP segment.
#[derive(Clone, Copy, Debug)]
pub struct Packet<'a> {
    header: &'a [u8; HEADER_LEN],
    options: &'a [u8],
    payload: &'a [u8],
}

impl<'a> Packet<'a> {
    /// # Errors
    /// [`Malformed::L4Truncated`] where the header, or the length that its data offset states, does not fit.
    pub fn new_checked(bytes: &'a [u8]) -> Result<Packet<'a>, Malformed> {
        let header: &[u8; HEADER_LEN] = bytes.first_chunk().ok_or(Malformed::L4Truncated)?;
        let header_len = usize::from(header[12] >> 4) * 4;
        let options = bytes.get(HEADER_LEN..header_len).ok_or(Malformed::L4Truncated)?;
        Ok(Packet { header, options, payload: &bytes[header_len..] })
    }

    /// Source port.
    pub fn sport(&self) -> u16 {
        u16_at(self.header, 0)
    }

    /// Destination port.
    pub fn dport(&self) -> u16 {
        u16_at(self.header, 2)
    }

    /// Sequence number.
    pub fn seq(&self) -> u32 {
        u32_at(self.header, 4)
    }

    /// Acknowledgement number.
    pub fn ack(&self) -> u32 {
        u32_at(self.header, 8)
    }

    /// [`FIN`], [`SYN`], [`RST`], [`PSH`], [`ACK`] and above them URG, ECE, CWR.
    pub fn flags(&self) -> u8 {
        self.header[13]
    }

    /// Receive window, unscaled.
    pub fn window(&self) -> u16 {
        u16_at(self.header, 14)
    }

    /// The options, 0..=40 bytes, not looked into.
    pub fn options(&self) -> &'a [u8] {
        self.options
    }

    /// All after the header.
    pub fn payload(&self) -> &'a [u8] {
        self.payload
    }
}

/// A TCP segment without options, as values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Repr<'a> {
    /// Source port.
    pub sport: u16,
    /// Destination port.
    pub dport: u16,
    /// Sequence number.
    pub seq: u32,
    /// Acknowledgement number.
    pub ack: u32,
    /// Any of [`FIN`], [`SYN`], [`RST`], [`PSH`], [`ACK`].
    pub flags: u8,
    /// Receive window, unscaled.
    pub window: u16,
    /// What follows the header.
    pub payload: &'a [u8],
}

impl<'a> Repr<'a> {
    /// The values of a checked segment. Options are not among them.
    pub fn parse(packet: &Packet<'a>) -> Repr<'a> {
        Repr {
            sport: packet.sport(),
            dport: packet.dport(),
            seq: packet.seq(),
            ack: packet.ack(),
            flags: packet.flags(),
            window: packet.window(),
            payload: packet.payload(),
        }
    }

    /// Writes header, checksum and payload to the front of `buffer`; returns their length.
    /// The addresses go into the pseudo-header and must be of one family, else the checksum is left 0.
    ///
    /// # Errors
    /// [`NoSpace`], and nothing is written.
    pub fn emit(&self, src: IpAddr, dst: IpAddr, buffer: &mut [u8]) -> Result<usize, NoSpace> {
        let len = HEADER_LEN + self.payload.len();
        let segment = room_for(buffer, len)?;
        segment[..2].copy_from_slice(&self.sport.to_be_bytes());
        segment[2..4].copy_from_slice(&self.dport.to_be_bytes());
        segment[4..8].copy_from_slice(&self.seq.to_be_bytes());
        segment[8..12].copy_from_slice(&self.ack.to_be_bytes());
        segment[12] = (HEADER_LEN as u8 / 4) << 4;
        segment[13] = self.flags;
        segment[14..16].copy_from_slice(&self.window.to_be_bytes());
        segment[16..20].fill(0);
        segment[HEADER_LEN..].copy_from_slice(self.payload);
        if let Some(pseudo) = checksum::pseudo_header(src, dst, protocol::TCP, len) {
            let checksum = pseudo.add_bytes(segment).checksum();
            segment[16..18].copy_from_slice(&checksum.to_be_bytes());
        }
        Ok(len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_data_offset_that_does_not_fit_is_refused() {
        let segment = |words: u8| {
            let mut bytes = [0; 24];
            bytes[12] = words << 4;
            bytes
        };
        assert_eq!(Packet::new_checked(&segment(5)).unwrap().payload().len(), 4);
        assert_eq!(Packet::new_checked(&segment(6)).unwrap().options().len(), 4);
        assert_eq!(Packet::new_checked(&segment(7)).unwrap_err(), Malformed::L4Truncated);
        assert_eq!(Packet::new_checked(&segment(4)).unwrap_err(), Malformed::L4Truncated);
        assert_eq!(Packet::new_checked(&segment(5)[..19]).unwrap_err(), Malformed::L4Truncated);
    }

    proptest! {
        #[test]
        fn segments_emit_and_parse_back(
            ports: [u16; 2], numbers: [u32; 2], flags: u8, window: u16,
            payload in proptest::collection::vec(any::<u8>(), 0..40), ips: [[u8; 16]; 2],
        ) {
            let repr = Repr { sport: ports[0], dport: ports[1], seq: numbers[0], ack: numbers[1], flags, window,
                payload: &payload };
            let mut bytes = [0; 60];
            let len = repr.emit(ips[0].into(), ips[1].into(), &mut bytes).unwrap();
            prop_assert_eq!(Repr::parse(&Packet::new_checked(&bytes[..len]).unwrap()), repr);
            let pseudo = checksum::pseudo_header(ips[0].into(), ips[1].into(), protocol::TCP, len).unwrap();
            prop_assert!(pseudo.add_bytes(&bytes[..len]).is_correct());
        }
    }
}

//! ARP for IPv4 over Ethernet. Read RFC 826 first: it is short, and its order of steps is the one to follow.

use std::net::Ipv4Addr;

use model::MacAddr;

use crate::{Malformed, NoSpace, ethernet, octets, room, u16_at};

/// An ARP message about Ethernet and IPv4: 28 bytes.
pub const LEN: usize = 28;

/// Hardware type Ethernet, protocol type IPv4, their address lengths 6 and 4.
const ETHERNET_IPV4: [u8; 6] = [0, 1, (ethernet::IPV4 >> 8) as u8, ethernet::IPV4 as u8, 6, 4];

/// What an ARP message wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Who has the target address?
    Request,
    /// The sender has the sender address.
    Reply,
    /// Neither: some other number, which no router answers.
    Other(u16),
}

impl From<u16> for Operation {
    fn from(number: u16) -> Operation {
        match number {
            1 => Operation::Request,
            2 => Operation::Reply,
            other => Operation::Other(other),
        }
    }
}

impl From<Operation> for u16 {
    fn from(operation: Operation) -> u16 {
        match operation {
            Operation::Request => 1,
            Operation::Reply => 2,
            Operation::Other(number) => number,
        }
    }
}

/// A checked view of an ARP message.
#[derive(Clone, Copy, Debug)]
pub struct Packet<'a> {
    message: &'a [u8; LEN],
}

impl<'a> Packet<'a> {
    /// Bytes after the message are Ethernet padding and ignored.
    ///
    /// # Errors
    /// [`Malformed::ArpMalformed`] below 28 bytes, or where it is not about Ethernet and IPv4.
    pub fn new_checked(bytes: &'a [u8]) -> Result<Packet<'a>, Malformed> {
        let message: &[u8; LEN] = bytes.first_chunk().ok_or(Malformed::ArpMalformed)?;
        if !message.starts_with(&ETHERNET_IPV4) {
            return Err(Malformed::ArpMalformed);
        }
        Ok(Packet { message })
    }

    /// Request, reply or something else.
    pub fn operation(&self) -> Operation {
        u16_at(self.message, 6).into()
    }

    /// The sender's MAC.
    pub fn sender_mac(&self) -> MacAddr {
        MacAddr(octets(self.message, 8))
    }

    /// The sender's address; 0.0.0.0 in a probe (RFC 5227).
    pub fn sender_ip(&self) -> Ipv4Addr {
        octets::<4>(self.message, 14).into()
    }

    /// The target's MAC; meaningless in a request.
    pub fn target_mac(&self) -> MacAddr {
        MacAddr(octets(self.message, 18))
    }

    /// The target's address.
    pub fn target_ip(&self) -> Ipv4Addr {
        octets::<4>(self.message, 24).into()
    }
}

/// An ARP message as values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Repr {
    /// Request, reply or something else.
    pub operation: Operation,
    /// The sender's MAC.
    pub sender_mac: MacAddr,
    /// The sender's address; 0.0.0.0 in a probe.
    pub sender_ip: Ipv4Addr,
    /// The target's MAC; zero in a request.
    pub target_mac: MacAddr,
    /// The target's address.
    pub target_ip: Ipv4Addr,
}

impl Repr {
    /// The values of a checked message.
    pub fn parse(packet: &Packet<'_>) -> Repr {
        Repr {
            operation: packet.operation(),
            sender_mac: packet.sender_mac(),
            sender_ip: packet.sender_ip(),
            target_mac: packet.target_mac(),
            target_ip: packet.target_ip(),
        }
    }

    /// "`sender_ip` asks who has `target_ip`." Send it to the broadcast MAC.
    pub fn request(sender_mac: MacAddr, sender_ip: Ipv4Addr, target_ip: Ipv4Addr) -> Repr {
        Repr {
            operation: Operation::Request,
            sender_mac,
            sender_ip,
            target_mac: MacAddr::default(),
            target_ip,
        }
    }

    /// "The address you asked for is at `mac`": the answer to this request, by its owner or by a proxy for it.
    pub fn reply_with(&self, mac: MacAddr) -> Repr {
        Repr {
            operation: Operation::Reply,
            sender_mac: mac,
            sender_ip: self.target_ip,
            target_mac: self.sender_mac,
            target_ip: self.sender_ip,
        }
    }

    /// Writes the message to the front of `buffer`; returns its length, 28.
    ///
    /// # Errors
    /// [`NoSpace`], and nothing is written.
    pub fn emit(&self, buffer: &mut [u8]) -> Result<usize, NoSpace> {
        let message: &mut [u8; LEN] = room(buffer)?;
        message[..6].copy_from_slice(&ETHERNET_IPV4);
        message[6..8].copy_from_slice(&u16::from(self.operation).to_be_bytes());
        message[8..14].copy_from_slice(&self.sender_mac.0);
        message[14..18].copy_from_slice(&self.sender_ip.octets());
        message[18..24].copy_from_slice(&self.target_mac.0);
        message[24..].copy_from_slice(&self.target_ip.octets());
        Ok(LEN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ASKER: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);
    const PROXY: MacAddr = MacAddr([0xee; 6]);

    #[test]
    fn a_proxy_answers_with_its_own_mac() {
        let request = Repr::request(ASKER, Ipv4Addr::new(10, 65, 0, 7), Ipv4Addr::new(169, 254, 1, 1));
        let reply = request.reply_with(PROXY);
        assert_eq!(reply.operation, Operation::Reply);
        assert_eq!((reply.sender_mac, reply.sender_ip), (PROXY, Ipv4Addr::new(169, 254, 1, 1)));
        assert_eq!((reply.target_mac, reply.target_ip), (ASKER, Ipv4Addr::new(10, 65, 0, 7)));
    }

    #[test]
    fn other_networks_than_ethernet_and_ipv4_are_refused() {
        let mut message = [0; LEN];
        Repr::request(ASKER, Ipv4Addr::LOCALHOST, Ipv4Addr::LOCALHOST).emit(&mut message).unwrap();
        assert!(Packet::new_checked(&message).is_ok());
        for at in 0..6 {
            let mut other = message;
            other[at] ^= 4;
            assert_eq!(Packet::new_checked(&other).unwrap_err(), Malformed::ArpMalformed);
        }
        for len in 0..LEN {
            assert_eq!(Packet::new_checked(&message[..len]).unwrap_err(), Malformed::ArpMalformed);
        }
    }

    proptest! {
        #[test]
        fn messages_emit_and_parse_back(number: u16, macs: [[u8; 6]; 2], ips: [[u8; 4]; 2]) {
            let repr = Repr {
                operation: number.into(),
                sender_mac: MacAddr(macs[0]),
                sender_ip: ips[0].into(),
                target_mac: MacAddr(macs[1]),
                target_ip: ips[1].into(),
            };
            let mut message = [0; LEN];
            prop_assert_eq!(repr.emit(&mut message), Ok(LEN));
            prop_assert_eq!(Repr::parse(&Packet::new_checked(&message).unwrap()), repr);
        }
    }
}

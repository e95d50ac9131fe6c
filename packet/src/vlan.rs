//! VLAN tags: IEEE 802.1Q and, one further out, 802.1ad.

use crate::{Malformed, NoSpace, ethernet, room, u16_at};

/// Tag control information and the next ethertype: 4 bytes.
pub const TAG_LEN: usize = 4;

/// Does this ethertype announce a VLAN tag?
pub const fn is_tag(ethertype: u16) -> bool {
    matches!(ethertype, ethernet::VLAN | ethernet::QINQ)
}

/// A checked view of one tag (what follows its ethertype 0x8100 or 0x88a8) and what the tag wraps.
#[derive(Clone, Copy, Debug)]
pub struct Packet<'a> {
    tag: &'a [u8; TAG_LEN],
    payload: &'a [u8],
}

impl<'a> Packet<'a> {
    /// # Errors
    /// [`Malformed::VlanTruncated`] below 4 bytes.
    pub fn new_checked(bytes: &'a [u8]) -> Result<Packet<'a>, Malformed> {
        let (tag, payload) = bytes.split_first_chunk().ok_or(Malformed::VlanTruncated)?;
        Ok(Packet { tag, payload })
    }

    fn control(&self) -> u16 {
        u16_at(self.tag, 0)
    }

    /// VLAN identifier, 0..=4095. 0 means a priority tag: the frame belongs to no VLAN (802.1Q §9.6).
    pub fn vid(&self) -> u16 {
        self.control() & 0x0fff
    }

    /// Priority code point, 0..=7.
    pub fn priority(&self) -> u8 {
        (self.control() >> 13) as u8
    }

    /// Drop eligible indicator.
    pub fn drop_eligible(&self) -> bool {
        self.control() & 0x1000 != 0
    }

    /// What follows the tag.
    pub fn ethertype(&self) -> u16 {
        u16_at(self.tag, 2)
    }

    /// All after the tag.
    pub fn payload(&self) -> &'a [u8] {
        self.payload
    }
}

/// A VLAN tag as values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Repr {
    /// VLAN identifier; the lowest 12 bits count.
    pub vid: u16,
    /// Priority code point; the lowest 3 bits count.
    pub priority: u8,
    /// Drop eligible indicator.
    pub drop_eligible: bool,
    /// What follows the tag.
    pub ethertype: u16,
}

impl Repr {
    /// The values of a checked tag.
    pub fn parse(packet: &Packet<'_>) -> Repr {
        Repr {
            vid: packet.vid(),
            priority: packet.priority(),
            drop_eligible: packet.drop_eligible(),
            ethertype: packet.ethertype(),
        }
    }

    /// Writes the tag to the front of `buffer`; returns its length, 4.
    ///
    /// # Errors
    /// [`NoSpace`], and nothing is written.
    pub fn emit(&self, buffer: &mut [u8]) -> Result<usize, NoSpace> {
        let tag: &mut [u8; TAG_LEN] = room(buffer)?;
        let control =
            u16::from(self.priority & 7) << 13 | u16::from(self.drop_eligible) << 12 | self.vid & 0x0fff;
        tag[..2].copy_from_slice(&control.to_be_bytes());
        tag[2..].copy_from_slice(&self.ethertype.to_be_bytes());
        Ok(TAG_LEN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn three_bytes_are_a_truncated_tag() {
        assert_eq!(Packet::new_checked(&[0; 3]).unwrap_err(), Malformed::VlanTruncated);
    }

    proptest! {
        #[test]
        fn tags_emit_and_parse_back(vid in 0u16..4096, priority in 0u8..8, drop_eligible: bool, ethertype: u16) {
            let repr = Repr { vid, priority, drop_eligible, ethertype };
            let mut buffer = [0; TAG_LEN];
            prop_assert_eq!(repr.emit(&mut buffer), Ok(TAG_LEN));
            prop_assert_eq!(Repr::parse(&Packet::new_checked(&buffer).unwrap()), repr);
        }
    }
}

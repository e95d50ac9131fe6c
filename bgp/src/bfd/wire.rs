//! The BFD Control packet (RFC 5880 §4.1).

use std::fmt;
use std::num::NonZeroU32;
use std::time::Duration;

/// The one version there is.
const VERSION: u8 = 1;
/// Bytes of a packet without authentication.
pub const CONTROL_LEN: usize = 24;

/// A session's state, as it stands on the wire.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum State {
    /// Held down by an operator.
    AdminDown = 0,
    /// Nothing is heard, or the other end doesn't hear us.
    #[default]
    Down = 1,
    /// The other end is heard and doesn't hear us yet.
    Init = 2,
    /// Both ends hear each other.
    Up = 3,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            State::AdminDown => "AdminDown",
            State::Down => "Down",
            State::Init => "Init",
            State::Up => "Up",
        })
    }
}

/// Why a session was last taken down; numbers that nobody has named yet are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Diagnostic(pub u8);

impl Diagnostic {
    /// No Diagnostic.
    pub const NONE: Diagnostic = Diagnostic(0);
    /// Control Detection Time Expired.
    pub const DETECTION_TIME_EXPIRED: Diagnostic = Diagnostic(1);
    /// Neighbor Signaled Session Down.
    pub const NEIGHBOR_DOWN: Diagnostic = Diagnostic(3);
    /// Path Down.
    pub const PATH_DOWN: Diagnostic = Diagnostic(5);
    /// Administratively Down.
    pub const ADMIN_DOWN: Diagnostic = Diagnostic(7);
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            0 => "no diagnostic",
            1 => "detection time expired",
            2 => "echo function failed",
            3 => "neighbor signaled session down",
            4 => "forwarding plane reset",
            5 => "path down",
            6 => "concatenated path down",
            7 => "administratively down",
            8 => "reverse concatenated path down",
            _ => return write!(f, "diagnostic {}", self.0),
        })
    }
}

/// A packet that is whole and without authentication.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Control {
    /// Why the sender's session was last taken down.
    pub diagnostic: Diagnostic,
    /// The sender's state.
    pub state: State,
    /// The sender wants an answer with `final_`.
    pub poll: bool,
    /// The answer to a poll.
    pub final_: bool,
    /// The sender's BFD outlives its control plane.
    pub control_plane_independent: bool,
    /// The sender wants no periodic packets while both ends are up.
    pub demand: bool,
    /// Packets that may be lost in a row; at least 1.
    pub detect_mult: u8,
    /// The sender's number for the session.
    pub my_discriminator: NonZeroU32,
    /// The receiver's number for it, or 0 where the sender doesn't know it.
    pub your_discriminator: u32,
    /// Least interval at which the sender would like to send, in microseconds.
    pub desired_min_tx: u32,
    /// Least interval at which it can receive; 0 is never.
    pub required_min_rx: u32,
    /// Likewise of echo packets; 0 is none.
    pub required_min_echo_rx: u32,
}

/// Why a packet is none of ours (RFC 5880 §6.8.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Refused {
    /// Shorter than a packet, or than it says it is.
    Length,
    /// Not version 1.
    Version,
    /// A detection multiplier of zero.
    DetectMult,
    /// The multipoint bit, which has no meaning yet.
    Multipoint,
    /// The sender's own discriminator is zero.
    MyDiscriminator,
    /// Ours is missing where the sender must know it.
    YourDiscriminator,
    /// Authentication, of which none is configured here.
    Authentication,
    /// A TTL that tells of more hops than there may be (RFC 5881 §5).
    Ttl,
    /// No session of ours.
    NoSession,
}

impl Refused {
    /// All there are, for counters.
    pub const ALL: [Refused; 9] = [
        Refused::Length,
        Refused::Version,
        Refused::DetectMult,
        Refused::Multipoint,
        Refused::MyDiscriminator,
        Refused::YourDiscriminator,
        Refused::Authentication,
        Refused::Ttl,
        Refused::NoSession,
    ];

    /// Its name in metrics and JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Refused::Length => "length",
            Refused::Version => "version",
            Refused::DetectMult => "detect_mult",
            Refused::Multipoint => "multipoint",
            Refused::MyDiscriminator => "my_discriminator",
            Refused::YourDiscriminator => "your_discriminator",
            Refused::Authentication => "authentication",
            Refused::Ttl => "ttl",
            Refused::NoSession => "no_session",
        }
    }
}

impl Control {
    /// Reads a UDP payload, in the order of RFC 5880 §6.8.6.
    ///
    /// # Errors
    /// Why it has to be discarded, whichever session it is for.
    pub fn parse(bytes: &[u8]) -> Result<Control, Refused> {
        let Some(fixed) = bytes.first_chunk::<CONTROL_LEN>() else { return Err(Refused::Length) };
        let flags = fixed[1];
        if fixed[0] >> 5 != VERSION {
            return Err(Refused::Version);
        }
        let authenticated = flags & 0x04 != 0;
        let least = if authenticated { CONTROL_LEN + 2 } else { CONTROL_LEN };
        if usize::from(fixed[3]) < least || usize::from(fixed[3]) > bytes.len() {
            return Err(Refused::Length);
        }
        if fixed[2] == 0 {
            return Err(Refused::DetectMult);
        }
        if flags & 0x01 != 0 {
            return Err(Refused::Multipoint);
        }
        let word = |at: usize| u32::from_be_bytes([fixed[at], fixed[at + 1], fixed[at + 2], fixed[at + 3]]);
        let my_discriminator = NonZeroU32::new(word(4)).ok_or(Refused::MyDiscriminator)?;
        let state = match flags >> 6 {
            0 => State::AdminDown,
            1 => State::Down,
            2 => State::Init,
            _ => State::Up,
        };
        let your_discriminator = word(8);
        if your_discriminator == 0 && !matches!(state, State::Down | State::AdminDown) {
            return Err(Refused::YourDiscriminator);
        }
        if authenticated {
            return Err(Refused::Authentication);
        }
        Ok(Control {
            diagnostic: Diagnostic(fixed[0] & 0x1f),
            state,
            poll: flags & 0x20 != 0,
            final_: flags & 0x10 != 0,
            control_plane_independent: flags & 0x08 != 0,
            demand: flags & 0x02 != 0,
            detect_mult: fixed[2],
            my_discriminator,
            your_discriminator,
            desired_min_tx: word(12),
            required_min_rx: word(16),
            required_min_echo_rx: word(20),
        })
    }

    /// The bytes of it.
    pub fn emit(&self) -> [u8; CONTROL_LEN] {
        let mut bytes = [0; CONTROL_LEN];
        bytes[0] = VERSION << 5 | self.diagnostic.0 & 0x1f;
        let flag = |set: bool, bit: u8| if set { bit } else { 0 };
        bytes[1] = (self.state as u8) << 6
            | flag(self.poll, 0x20)
            | flag(self.final_, 0x10)
            | flag(self.control_plane_independent, 0x08)
            | flag(self.demand, 0x02);
        bytes[2] = self.detect_mult;
        bytes[3] = CONTROL_LEN as u8;
        let words = [
            self.my_discriminator.get(),
            self.your_discriminator,
            self.desired_min_tx,
            self.required_min_rx,
            self.required_min_echo_rx,
        ];
        for (at, word) in bytes[4..].chunks_exact_mut(4).zip(words) {
            at.copy_from_slice(&word.to_be_bytes());
        }
        bytes
    }
}

/// An interval in a packet's unit; longer ones than it can say are cut.
pub(crate) fn microseconds(interval: Duration) -> u32 {
    u32::try_from(interval.as_micros()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// As Debian's BIRD 2.0.12 sends it on a session that is up.
    const UP: [u8; CONTROL_LEN] = [
        0x20, 0xc0, 5, 24, 0x12, 0x34, 0x56, 0x78, 0x9a, 0xbc, 0xde, 0xf0, 0, 1, 0x86, 0xa0, 0, 0, 0x27,
        0x10, 0, 0, 0, 0,
    ];

    fn refused(change: impl Fn(&mut Vec<u8>)) -> Option<Refused> {
        let mut bytes = UP.to_vec();
        change(&mut bytes);
        Control::parse(&bytes).err()
    }

    #[test]
    fn a_packet_is_read_field_by_field() {
        let packet = Control::parse(&UP).unwrap();
        assert_eq!((packet.state, packet.diagnostic, packet.detect_mult), (State::Up, Diagnostic::NONE, 5));
        assert_eq!((packet.my_discriminator.get(), packet.your_discriminator), (0x1234_5678, 0x9abc_def0));
        assert_eq!((packet.desired_min_tx, packet.required_min_rx), (100_000, 10_000));
        assert_eq!(packet.emit(), UP);
    }

    #[test]
    fn what_rfc_5880_wants_discarded_is() {
        assert_eq!(refused(|_| ()), None);
        assert_eq!(refused(|bytes| bytes.truncate(23)), Some(Refused::Length));
        assert_eq!(refused(|bytes| bytes[0] = 0), Some(Refused::Version));
        assert_eq!(refused(|bytes| bytes[0] = 2 << 5), Some(Refused::Version));
        assert_eq!(refused(|bytes| bytes[3] = 23), Some(Refused::Length));
        assert_eq!(refused(|bytes| bytes[3] = 25), Some(Refused::Length), "more than there is");
        assert_eq!(refused(|bytes| bytes.push(0)), None, "what is behind its length is none of it");
        assert_eq!(refused(|bytes| bytes[2] = 0), Some(Refused::DetectMult));
        assert_eq!(refused(|bytes| bytes[1] |= 1), Some(Refused::Multipoint));
        assert_eq!(refused(|bytes| bytes[4..8].fill(0)), Some(Refused::MyDiscriminator));
        assert_eq!(refused(|bytes| bytes[8..12].fill(0)), Some(Refused::YourDiscriminator));
        assert_eq!(
            refused(|bytes| {
                bytes[8..12].fill(0);
                bytes[1] = 0x40;
            }),
            None,
            "while it is down the sender may not know our discriminator"
        );
        assert_eq!(
            refused(|bytes| bytes[1] |= 4),
            Some(Refused::Length),
            "no room for what it says is there"
        );
        let with_password = |bytes: &mut Vec<u8>| {
            bytes[1] |= 4;
            bytes[3] = 28;
            bytes.extend([1, 4, 7, b'x']);
        };
        assert_eq!(refused(with_password), Some(Refused::Authentication));
    }

    proptest! {
        #[test]
        fn whatever_comes_is_refused_or_says_the_same_again(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            if let Ok(packet) = Control::parse(&bytes) {
                prop_assert_eq!(Control::parse(&packet.emit()), Ok(packet));
            }
        }

        #[test]
        fn every_packet_is_read_back_as_it_was(
            diagnostic in 0u8..32, state in 0u8..4, flags in any::<[bool; 4]>(), detect_mult in 1u8..,
            mine in 1u32.., yours in 1u32.., intervals in any::<[u32; 3]>(),
        ) {
            let packet = Control {
                diagnostic: Diagnostic(diagnostic),
                state: [State::AdminDown, State::Down, State::Init, State::Up][usize::from(state)],
                poll: flags[0],
                final_: flags[1],
                control_plane_independent: flags[2],
                demand: flags[3],
                detect_mult,
                my_discriminator: NonZeroU32::new(mine).unwrap(),
                your_discriminator: yours,
                desired_min_tx: intervals[0],
                required_min_rx: intervals[1],
                required_min_echo_rx: intervals[2],
            };
            prop_assert_eq!(Control::parse(&packet.emit()), Ok(packet));
        }
    }
}

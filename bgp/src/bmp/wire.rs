//! BMP's messages (RFC 7854 §4, RFC 9069 §4), both ways.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use crate::wire::Reader;

/// The protocol's version.
const VERSION: u8 = 3;
/// Version, length, type.
pub const HEADER_LEN: usize = 6;
/// Longer messages are refused: an UPDATE has at most 65535 octets, and a Peer Up two OPENs.
pub const MAX_LEN: usize = 1 << 18;

mod kind {
    pub(super) const ROUTE_MONITORING: u8 = 0;
    pub(super) const STATISTICS: u8 = 1;
    pub(super) const PEER_DOWN: u8 = 2;
    pub(super) const PEER_UP: u8 = 3;
    pub(super) const INITIATION: u8 = 4;
    pub(super) const TERMINATION: u8 = 5;
}

/// Which routes of a peer a message is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum View {
    /// As it announced them.
    PrePolicy,
    /// As our import filter left them.
    PostPolicy,
    /// Those chosen, of whatever peer (RFC 9069); the peer is ourselves.
    LocRib,
}

/// The peer that a message is about (RFC 7854 §4.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerHeader {
    /// Which of its routes.
    pub view: View,
    /// Its address; none where the view is [`View::LocRib`].
    pub address: Option<IpAddr>,
    /// Its AS.
    pub as_number: u32,
    /// Its BGP identifier.
    pub router_id: Ipv4Addr,
    /// When it was so, since 1970.
    pub time: Duration,
}

/// Peer types (RFC 7854 §4.2, RFC 9069 §4.1).
const GLOBAL_INSTANCE: u8 = 0;
const LOC_RIB_INSTANCE: u8 = 3;
/// Peer flags: the address is of IPv6; routes are as policy left them.
const FLAG_V6: u8 = 0x80;
const FLAG_POST_POLICY: u8 = 0x40;

impl PeerHeader {
    fn emit(&self, out: &mut Vec<u8>) {
        let (kind, policy) = match self.view {
            View::PrePolicy => (GLOBAL_INSTANCE, 0),
            View::PostPolicy => (GLOBAL_INSTANCE, FLAG_POST_POLICY),
            View::LocRib => (LOC_RIB_INSTANCE, 0),
        };
        let family = if self.address.is_some_and(|address| address.is_ipv6()) { FLAG_V6 } else { 0 };
        out.extend([kind, policy | family]);
        out.extend([0; 8]);
        emit_address(out, self.address);
        out.extend(self.as_number.to_be_bytes());
        out.extend(self.router_id.octets());
        out.extend((self.time.as_secs() as u32).to_be_bytes());
        out.extend(self.time.subsec_micros().to_be_bytes());
    }

    fn take(body: &mut Reader<'_>) -> Option<PeerHeader> {
        let (kind, flags) = (body.u8()?, body.u8()?);
        body.take(8)?;
        let octets: [u8; 16] = body.array()?;
        let (view, address) = match kind {
            GLOBAL_INSTANCE if flags & FLAG_POST_POLICY == 0 => {
                (View::PrePolicy, Some(address(octets, flags)))
            }
            GLOBAL_INSTANCE => (View::PostPolicy, Some(address(octets, flags))),
            LOC_RIB_INSTANCE => (View::LocRib, None),
            _ => return None,
        };
        let (as_number, router_id) = (body.u32()?, Ipv4Addr::from(body.u32()?));
        let seconds = Duration::from_secs(body.u32()?.into());
        // More than a second of them is nonsense, and no reason to lose the message.
        let time = seconds + Duration::from_micros(body.u32()?.min(999_999).into());
        Some(PeerHeader { view, address, as_number, router_id, time })
    }
}

/// IPv4 addresses stand in the last four of sixteen octets.
fn emit_address(out: &mut Vec<u8>, address: Option<IpAddr>) {
    match address {
        None => out.extend([0; 16]),
        Some(IpAddr::V4(address)) => {
            out.extend([0; 12]);
            out.extend(address.octets());
        }
        Some(IpAddr::V6(address)) => out.extend(address.octets()),
    }
}

fn address(octets: [u8; 16], flags: u8) -> IpAddr {
    let [.., a, b, c, d] = octets;
    if flags & FLAG_V6 == 0 { Ipv4Addr::new(a, b, c, d).into() } else { Ipv6Addr::from(octets).into() }
}

/// Why a session ended (RFC 7854 §4.9).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Down<'a> {
    /// We closed it with this NOTIFICATION, header included.
    LocalNotification(&'a [u8]),
    /// We closed it without one, for this event of the FSM (RFC 4271 §8.1); 0 where it is none.
    LocalEvent(u16),
    /// The peer closed it with this NOTIFICATION, header included.
    RemoteNotification(&'a [u8]),
    /// It was gone without a word.
    RemoteLost,
    /// The peer is no longer configured, or no longer monitored.
    Deconfigured,
    /// The view of [`View::LocRib`] ends (RFC 9069 §5.3).
    LocRibEnds,
}

/// A number that is told of a peer (RFC 7854 §4.8).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Statistic {
    /// Type 7: routes in the Adj-RIBs-In.
    AdjRibInRoutes(u64),
    /// Type 8: routes in the Loc-RIB.
    LocRibRoutes(u64),
    /// Type 9: routes of one family in the Adj-RIB-In: AFI, SAFI, count.
    AdjRibInOf(u16, u8, u64),
    /// Type 10: likewise of the Loc-RIB.
    LocRibOf(u16, u8, u64),
    /// Type 11: UPDATEs treated as withdrawals.
    TreatedAsWithdraw(u32),
    /// Anything else, by its type.
    Other(u16),
}

/// One message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message<'a> {
    /// Routes: one UPDATE, header included.
    RouteMonitoring(PeerHeader, &'a [u8]),
    /// Counts.
    Statistics(PeerHeader, Vec<Statistic>),
    /// A session has ended.
    PeerDown(PeerHeader, Down<'a>),
    /// A session stands.
    PeerUp {
        /// With whom.
        peer: PeerHeader,
        /// Our address; none for [`View::LocRib`].
        local: Option<IpAddr>,
        /// Our port, and the peer's; 0 is not known.
        ports: (u16, u16),
        /// The OPENs sent and received, headers included.
        opens: [&'a [u8]; 2],
        /// The name of the table, for [`View::LocRib`].
        table: Option<&'a str>,
    },
    /// Who we are.
    Initiation {
        /// `sysDescr`.
        description: &'a str,
        /// `sysName`.
        name: &'a str,
    },
    /// The end: why, as RFC 7854 §4.5 numbers it.
    Termination(u16),
}

/// The reason of a [`Message::Termination`] that an administrator asked for.
pub const ADMINISTRATIVELY_CLOSED: u16 = 0;

/// Types of information (RFC 7854 §4.4, §4.5; RFC 9069 §4.5).
const SYS_DESCR: u16 = 1;
const SYS_NAME: u16 = 2;
const TERMINATION_REASON: u16 = 1;
const TABLE_NAME: u16 = 3;

impl<'a> Message<'a> {
    /// Appends the message.
    pub fn emit(&self, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend([VERSION, 0, 0, 0, 0, self.kind()]);
        match self {
            Message::RouteMonitoring(peer, update) => {
                peer.emit(out);
                out.extend_from_slice(update);
            }
            Message::Statistics(peer, statistics) => {
                peer.emit(out);
                out.extend((statistics.len() as u32).to_be_bytes());
                statistics.iter().for_each(|statistic| statistic.emit(out));
            }
            Message::PeerDown(peer, down) => {
                peer.emit(out);
                match down {
                    Down::LocalNotification(notification) => {
                        out.push(1);
                        out.extend_from_slice(notification);
                    }
                    Down::LocalEvent(event) => {
                        out.push(2);
                        out.extend(event.to_be_bytes());
                    }
                    Down::RemoteNotification(notification) => {
                        out.push(3);
                        out.extend_from_slice(notification);
                    }
                    Down::RemoteLost => out.push(4),
                    Down::Deconfigured => out.push(5),
                    Down::LocRibEnds => out.push(6),
                }
            }
            Message::PeerUp { peer, local, ports, opens, table } => {
                peer.emit(out);
                emit_address(out, *local);
                out.extend([ports.0, ports.1].map(u16::to_be_bytes).concat());
                opens.iter().for_each(|open| out.extend_from_slice(open));
                if let Some(table) = table {
                    emit_information(out, TABLE_NAME, table.as_bytes());
                }
            }
            Message::Initiation { description, name } => {
                emit_information(out, SYS_DESCR, description.as_bytes());
                emit_information(out, SYS_NAME, name.as_bytes());
            }
            Message::Termination(reason) => emit_information(out, TERMINATION_REASON, &reason.to_be_bytes()),
        }
        let len = (out.len() - start) as u32;
        out[start + 1..start + 5].copy_from_slice(&len.to_be_bytes());
    }

    fn kind(&self) -> u8 {
        match self {
            Message::RouteMonitoring(..) => kind::ROUTE_MONITORING,
            Message::Statistics(..) => kind::STATISTICS,
            Message::PeerDown(..) => kind::PEER_DOWN,
            Message::PeerUp { .. } => kind::PEER_UP,
            Message::Initiation { .. } => kind::INITIATION,
            Message::Termination(_) => kind::TERMINATION,
        }
    }

    /// The first message of a stream, and what follows it; `Ok(None)` where not all of it is there yet.
    ///
    /// # Errors
    /// What is malformed, or of a kind that we never send.
    pub fn take(bytes: &'a [u8]) -> Result<Option<(Message<'a>, &'a [u8])>, BmpError> {
        let Some((header, _)) = bytes.split_first_chunk::<HEADER_LEN>() else { return Ok(None) };
        let [version, a, b, c, d, kind] = *header;
        let len = u32::from_be_bytes([a, b, c, d]) as usize;
        if version != VERSION {
            return Err(BmpError::Version(version));
        }
        if !(HEADER_LEN..=MAX_LEN).contains(&len) {
            return Err(BmpError::Length(len));
        }
        let Some((message, rest)) = bytes.split_at_checked(len) else { return Ok(None) };
        let body = Reader(&message[HEADER_LEN..]);
        let parsed = Message::parse(kind, body).ok_or(BmpError::Malformed(kind))?;
        Ok(Some((parsed, rest)))
    }

    fn parse(kind: u8, mut body: Reader<'a>) -> Option<Message<'a>> {
        match kind {
            kind::INITIATION => {
                let (mut description, mut name) = ("", "");
                while !body.is_empty() {
                    match take_information(&mut body)? {
                        (SYS_DESCR, value) => description = std::str::from_utf8(value).ok()?,
                        (SYS_NAME, value) => name = std::str::from_utf8(value).ok()?,
                        _ => {}
                    }
                }
                Some(Message::Initiation { description, name })
            }
            kind::TERMINATION => {
                let mut reason = None;
                while !body.is_empty() {
                    if let (TERMINATION_REASON, value) = take_information(&mut body)? {
                        reason = Some(u16::from_be_bytes(*value.first_chunk()?));
                    }
                }
                reason.map(Message::Termination)
            }
            kind::ROUTE_MONITORING => {
                Some(Message::RouteMonitoring(PeerHeader::take(&mut body)?, take_message(&mut body, 2)?))
                    .filter(|_| body.is_empty())
            }
            kind::STATISTICS => {
                let peer = PeerHeader::take(&mut body)?;
                let count = body.u32()?;
                let mut statistics = Vec::new();
                for _ in 0..count {
                    statistics.push(Statistic::take(&mut body)?);
                }
                Some(Message::Statistics(peer, statistics))
            }
            kind::PEER_DOWN => {
                let peer = PeerHeader::take(&mut body)?;
                let down = match body.u8()? {
                    1 => Down::LocalNotification(take_message(&mut body, 3)?),
                    2 => Down::LocalEvent(body.u16()?),
                    3 => Down::RemoteNotification(take_message(&mut body, 3)?),
                    4 => Down::RemoteLost,
                    5 => Down::Deconfigured,
                    6 => Down::LocRibEnds,
                    _ => return None,
                };
                Some(Message::PeerDown(peer, down))
            }
            kind::PEER_UP => {
                let peer = PeerHeader::take(&mut body)?;
                let octets: [u8; 16] = body.array()?;
                let flags = if peer.address.is_some_and(|address| address.is_ipv6()) { FLAG_V6 } else { 0 };
                let local = peer.address.map(|_| address(octets, flags));
                let ports = (body.u16()?, body.u16()?);
                let opens = [take_message(&mut body, 1)?, take_message(&mut body, 1)?];
                let mut table = None;
                while !body.is_empty() {
                    if let (TABLE_NAME, value) = take_information(&mut body)? {
                        table = Some(std::str::from_utf8(value).ok()?);
                    }
                }
                Some(Message::PeerUp { peer, local, ports, opens, table })
            }
            _ => None,
        }
    }
}

/// Why bytes are no message of BMP that we know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BmpError {
    /// Another version.
    #[error("BMP version {0}, and only 3 is known")]
    Version(u8),
    /// No length that a message can have.
    #[error("a length of {0}")]
    Length(usize),
    /// A content that doesn't suit its type, or an unknown type.
    #[error("a malformed message of type {0}")]
    Malformed(u8),
}

impl Statistic {
    fn emit(&self, out: &mut Vec<u8>) {
        let mut put = |kind: u16, value: &[u8]| emit_information(out, kind, value);
        let of =
            |afi: u16, safi: u8, count: u64| [&afi.to_be_bytes()[..], &[safi], &count.to_be_bytes()].concat();
        match *self {
            Statistic::AdjRibInRoutes(count) => put(7, &count.to_be_bytes()),
            Statistic::LocRibRoutes(count) => put(8, &count.to_be_bytes()),
            Statistic::AdjRibInOf(afi, safi, count) => put(9, &of(afi, safi, count)),
            Statistic::LocRibOf(afi, safi, count) => put(10, &of(afi, safi, count)),
            Statistic::TreatedAsWithdraw(count) => put(11, &count.to_be_bytes()),
            Statistic::Other(kind) => put(kind, &[]),
        }
    }

    fn take(body: &mut Reader<'_>) -> Option<Statistic> {
        let (kind, value) = take_information(body)?;
        let mut value = Reader(value);
        let count = |value: &mut Reader<'_>| value.array().map(u64::from_be_bytes);
        Some(match kind {
            7 => Statistic::AdjRibInRoutes(count(&mut value)?),
            8 => Statistic::LocRibRoutes(count(&mut value)?),
            9 => Statistic::AdjRibInOf(value.u16()?, value.u8()?, count(&mut value)?),
            10 => Statistic::LocRibOf(value.u16()?, value.u8()?, count(&mut value)?),
            11 => Statistic::TreatedAsWithdraw(value.u32()?),
            other => Statistic::Other(other),
        })
    }
}

/// Type, length, value; what is longer than a length can say is cut.
fn emit_information(out: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let value = &value[..value.len().min(usize::from(u16::MAX))];
    out.extend(kind.to_be_bytes());
    out.extend((value.len() as u16).to_be_bytes());
    out.extend_from_slice(value);
}

fn take_information<'a>(body: &mut Reader<'a>) -> Option<(u16, &'a [u8])> {
    let (kind, len) = (body.u16()?, body.u16()?);
    Some((kind, body.take(usize::from(len))?))
}

/// A BGP message of this type, header included.
fn take_message<'a>(body: &mut Reader<'a>, kind: u8) -> Option<&'a [u8]> {
    let header = body.0.first_chunk::<{ crate::wire::HEADER_LEN }>()?;
    let len = usize::from(u16::from_be_bytes([header[16], header[17]]));
    (len >= header.len() && header[18] == kind).then(|| body.take(len))?
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bgp(kind: u8, body: &[u8]) -> Vec<u8> {
        let mut message = vec![0xff; 16];
        message.extend(((19 + body.len()) as u16).to_be_bytes());
        message.push(kind);
        message.extend(body);
        message
    }

    fn peer() -> impl Strategy<Value = PeerHeader> {
        let view = prop_oneof![Just(View::PrePolicy), Just(View::PostPolicy), Just(View::LocRib)];
        let fields = (view, any::<IpAddr>(), any::<u32>(), any::<u32>(), any::<u32>(), 0..1_000_000_u32);
        fields.prop_map(|(view, address, as_number, router_id, seconds, micros)| PeerHeader {
            view,
            address: (view != View::LocRib).then_some(address),
            as_number,
            router_id: router_id.into(),
            time: Duration::new(seconds.into(), micros * 1000),
        })
    }

    proptest! {
        /// Every kind of message comes back from its own bytes, in a stream that is cut anywhere.
        #[test]
        fn what_is_sent_can_be_read(
            peer in peer(),
            payload in prop::collection::vec(any::<u8>(), 0..300),
            number: u64,
            name in "[a-z]{0,20}",
        ) {
            let (update, notification, open) = (bgp(2, &payload), bgp(3, &payload), bgp(1, &payload));
            let local_rib = peer.view == View::LocRib;
            let count = number as u32;
            let messages = [
                Message::Initiation { description: "a router", name: &name },
                Message::PeerUp {
                    peer,
                    local: peer.address,
                    ports: (179, number as u16),
                    opens: [&open, &open],
                    table: local_rib.then_some(&name),
                },
                Message::RouteMonitoring(peer, &update),
                Message::Statistics(peer, vec![
                    Statistic::AdjRibInRoutes(number),
                    Statistic::LocRibRoutes(number),
                    Statistic::AdjRibInOf(1, 1, number),
                    Statistic::LocRibOf(2, 1, number),
                    Statistic::TreatedAsWithdraw(count),
                ]),
                Message::PeerDown(peer, Down::LocalNotification(&notification)),
                Message::PeerDown(peer, Down::LocalEvent(17)),
                Message::PeerDown(peer, Down::RemoteNotification(&notification)),
                Message::PeerDown(peer, Down::RemoteLost),
                Message::PeerDown(peer, Down::Deconfigured),
                Message::PeerDown(peer, Down::LocRibEnds),
                Message::Termination(ADMINISTRATIVELY_CLOSED),
            ];
            let mut stream = Vec::new();
            messages.iter().for_each(|message| message.emit(&mut stream));
            let mut rest = &stream[..];
            for message in &messages {
                let taken = Message::take(rest).unwrap().expect("all of it is there");
                prop_assert_eq!(&taken.0, message);
                let len = rest.len() - taken.1.len();
                for cut in [0, 3, len / 2, len - 1] {
                    prop_assert_eq!(Message::take(&rest[..cut]), Ok(None), "cut at {}", cut);
                }
                rest = taken.1;
            }
            prop_assert!(rest.is_empty());
        }

        /// Whatever comes, nothing panics, and what is taken is no longer than what came.
        #[test]
        fn any_bytes_are_messages_or_errors(
            mut bytes in prop::collection::vec(any::<u8>(), 0..200),
            kind in 0_u8..8,
            len in 0_u32..220,
        ) {
            if let Some(header) = bytes.first_chunk_mut::<HEADER_LEN>() {
                let [a, b, c, d] = len.to_be_bytes();
                *header = [VERSION, a, b, c, d, kind];
            }
            if let Ok(Some((_, rest))) = Message::take(&bytes) {
                prop_assert_eq!(bytes.len() - rest.len(), len as usize);
            }
        }
    }

    #[test]
    fn what_is_no_bmp_is_named() {
        assert_eq!(Message::take(&[2, 0, 0, 0, 6, 4]), Err(BmpError::Version(2)));
        assert_eq!(Message::take(&[3, 0, 0, 0, 5, 4]), Err(BmpError::Length(5)));
        assert_eq!(Message::take(&[3, 0xff, 0, 0, 0, 4]), Err(BmpError::Length(0xff00_0000)));
        assert_eq!(Message::take(&[3, 0, 0, 0, 6, 9]), Err(BmpError::Malformed(9)));
        assert_eq!(42, {
            let (address, view) = (None, View::LocRib);
            let mut out = Vec::new();
            let router_id = Ipv4Addr::UNSPECIFIED;
            PeerHeader { view, address, as_number: 0, router_id, time: Duration::ZERO }.emit(&mut out);
            out.len()
        });
    }
}

//! How a flow's state follows its packets, and how long each state lasts.

use std::time::Duration;

use packet::protocol;

use super::Direction;
use super::row::Life;

/// Time in eighths of a second since the table was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticks(pub u32);

impl Ticks {
    /// Ticks in a second.
    pub const PER_SECOND: u32 = 8;
}

impl From<Duration> for Ticks {
    /// Rounded up, so that a short time is never none.
    fn from(time: Duration) -> Ticks {
        let millis = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let eighths = millis.saturating_mul(Ticks::PER_SECOND.into()).div_ceil(1000);
        Ticks(u32::try_from(eighths).unwrap_or(u32::MAX))
    }
}

/// How long a flow without packets is remembered. The defaults are Calico's (`bpfConntrackTimeouts`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowTimeouts {
    /// What a flow that nobody answered gets at least.
    pub creation_grace: Ticks,
    /// A TCP connection whose handshake isn't over.
    pub tcp_syn_sent: Ticks,
    /// An established TCP connection.
    pub tcp_established: Ticks,
    /// A TCP connection that both sides have closed.
    pub tcp_fins_seen: Ticks,
    /// A TCP connection after a reset.
    pub tcp_reset_seen: Ticks,
    /// UDP.
    pub udp: Ticks,
    /// ICMP queries.
    pub icmp: Ticks,
    /// Any other protocol.
    pub generic: Ticks,
}

impl Default for FlowTimeouts {
    fn default() -> FlowTimeouts {
        let seconds = |seconds| Ticks(seconds * Ticks::PER_SECOND);
        FlowTimeouts {
            creation_grace: seconds(10),
            tcp_syn_sent: seconds(20),
            tcp_established: seconds(3600),
            tcp_fins_seen: seconds(30),
            tcp_reset_seen: seconds(40),
            udp: seconds(60),
            icmp: seconds(5),
            generic: seconds(600),
        }
    }
}

impl FlowTimeouts {
    /// How long a flow of this protocol in this state is remembered.
    fn of(&self, protocol: u8, life: Life) -> Ticks {
        let closed = Life::FIN_ORIGINAL | Life::FIN_REPLY;
        let time = match protocol {
            protocol::TCP if life.has(Life::RESET) => self.tcp_reset_seen,
            protocol::TCP if life.has(closed) => self.tcp_fins_seen,
            protocol::TCP if life.has(Life::ESTABLISHED) => self.tcp_established,
            protocol::TCP => self.tcp_syn_sent,
            protocol::UDP => self.udp,
            protocol::ICMP | protocol::ICMPV6 => self.icmp,
            _ => self.generic,
        };
        if life.has(Life::ANSWERED) { time } else { time.max(self.creation_grace) }
    }

    /// The shortest of them: a flow that was seen since then isn't over, whatever it is.
    fn shortest(&self) -> Ticks {
        let FlowTimeouts {
            creation_grace: _,
            tcp_syn_sent,
            tcp_established,
            tcp_fins_seen,
            tcp_reset_seen,
            udp,
            icmp,
            generic,
        } = *self;
        let tcp = tcp_syn_sent.min(tcp_established).min(tcp_fins_seen).min(tcp_reset_seen);
        tcp.min(udp).min(icmp).min(generic)
    }

    /// Has it been silent for too long? Mappings end with their last flow, not by time.
    pub(super) fn is_over(&self, protocol: u8, life: Life, now: Ticks) -> bool {
        !life.has(Life::MAPPING) && now.0.saturating_sub(life.seen()) > self.of(protocol, life).0
    }
}

/// The time of a batch, and how long flows are remembered.
#[derive(Clone, Copy, Debug)]
pub struct FlowTime<'a> {
    /// The time.
    pub now: Ticks,
    /// How long flows are remembered.
    pub timeouts: &'a FlowTimeouts,
    /// No flow is over of which a packet was noted since.
    alive: u32,
    /// Another packet need not be noted of a flow of which one was since.
    recent: u32,
}

impl FlowTime<'_> {
    /// A row's last packet is noted once in so many ticks, not each time: most packets only read.
    pub(super) const NOTED_EVERY: u32 = Ticks::PER_SECOND;

    /// This time.
    pub fn new(now: Ticks, timeouts: &FlowTimeouts) -> FlowTime<'_> {
        let alive = now.0.saturating_sub(timeouts.shortest().0);
        let recent = now.0.saturating_add(1).saturating_sub(FlowTime::NOTED_EVERY).max(alive);
        FlowTime { now, timeouts, alive, recent }
    }

    /// Is [`FlowTimeouts::is_over`] worth asking?
    #[inline(always)]
    pub(super) fn may_be_over(&self, life: Life) -> bool {
        life.seen() < self.alive
    }

    /// Has a packet been noted so lately that another one need not be, and that the flow can't be over?
    #[inline(always)]
    pub(super) fn is_recent(&self, life: Life) -> bool {
        life.seen() >= self.recent
    }
}

/// Flags of TCP (RFC 9293 §3.1).
mod tcp {
    pub(super) const FIN: u8 = 0x01;
    pub(super) const SYN: u8 = 0x02;
    pub(super) const RST: u8 = 0x04;
    pub(super) const ACK: u8 = 0x10;
    pub(super) const URG: u8 = 0x20;
}

/// May this packet begin a flow? A reset ends connections only. A TCP packet from the middle of a connection may: the
/// connection may be older than this process.
pub fn begins_flow(protocol: u8, tcp_flags: u8) -> bool {
    protocol != protocol::TCP || tcp_flags & tcp::RST == 0
}

/// What a TCP packet is, by its flags, as in Linux's connection tracking (`tcp_valid_flags` and `get_conntrack_index` in
/// `net/netfilter/nf_conntrack_proto_tcp.c`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TcpPacket {
    /// Ends the connection at once.
    Reset,
    /// Asks for a connection.
    Syn,
    /// Grants one.
    SynAck,
    /// The sender's last.
    Fin,
    /// Any other of a connection.
    Ack,
    /// No packet of any connection, such as one with both SYN and FIN, or with neither of these, RST and ACK: a scan.
    Nothing,
}

impl TcpPacket {
    /// By the flags in its header.
    #[inline]
    pub fn of(flags: u8) -> TcpPacket {
        const SYN_ACK: u8 = tcp::SYN | tcp::ACK;
        const RST_ACK: u8 = tcp::RST | tcp::ACK;
        const FIN_ACK: u8 = tcp::FIN | tcp::ACK;
        // Those of congestion, and PSH, go with anything; URG with what may have data.
        let urgent = flags & tcp::URG;
        match flags & (tcp::FIN | tcp::SYN | tcp::RST | tcp::ACK) {
            tcp::RST | RST_ACK if urgent == 0 => TcpPacket::Reset,
            SYN_ACK if urgent == 0 => TcpPacket::SynAck,
            tcp::SYN => TcpPacket::Syn,
            FIN_ACK => TcpPacket::Fin,
            tcp::ACK => TcpPacket::Ack,
            _ => TcpPacket::Nothing,
        }
    }

    /// May it be the first that is seen of a connection? One from the middle may, as for Linux by default
    /// (`nf_conntrack_tcp_loose`), which Calico leaves alone: the connection may be older than this process.
    pub fn may_begin(self) -> bool {
        matches!(self, TcpPacket::Syn | TcpPacket::Ack)
    }
}

/// May a flow in this state have such a packet? What Linux's table calls invalid (`tcp_conntracks`), whatever the sequence
/// numbers, which nobody keeps here: no packet of a connection, one of an open connection before a SYN was answered, and a
/// client's SYN-ACK or a server's SYN but while both ask at once.
#[inline(always)]
pub(super) fn may_follow(flags: u16, direction: Direction, packet: TcpPacket) -> bool {
    const OPENED: u16 = Life::ESTABLISHED | Life::FIN_ORIGINAL | Life::FIN_REPLY | Life::RESET;
    let is_asked = flags & (Life::ASKED | OPENED) == Life::ASKED;
    let is_answered = flags & Life::ANSWERED != 0;
    match (direction, packet) {
        (_, TcpPacket::Nothing) => false,
        (Direction::Original, TcpPacket::SynAck) => {
            is_asked && (is_answered || flags & Life::BOTH_ASKED != 0)
        }
        (Direction::Original, TcpPacket::Fin | TcpPacket::Ack) | (Direction::Reply, TcpPacket::Fin) => {
            !is_asked || is_answered
        }
        (Direction::Reply, TcpPacket::Syn) => is_asked && !is_answered,
        _ => true,
    }
}

/// The flags of a flow after one more packet. `tcp_flags`: zero for other protocols.
#[inline(always)]
pub(super) fn after(flags: u16, protocol: u8, direction: Direction, tcp_flags: u8) -> u16 {
    if protocol != protocol::TCP {
        return match direction {
            Direction::Original => flags,
            Direction::Reply => flags | Life::ANSWERED | Life::ESTABLISHED,
        };
    }
    let original = direction == Direction::Original;
    let closed = flags & Life::FIN_ORIGINAL != 0 && flags & Life::FIN_REPLY != 0;
    let opens = tcp_flags & (tcp::SYN | tcp::ACK) == tcp::SYN;
    // The same ports again, for a new connection (RFC 9293 §3.6.1).
    if opens && original && (closed || flags & Life::RESET != 0) {
        return flags & Life::FIXED | Life::LIVE | Life::ASKED;
    }
    if tcp_flags & tcp::RST != 0 {
        return flags | Life::RESET;
    }
    // Whoever goes on after a reset didn't believe it, and knows better (RFC 7857 §2.2).
    let mut flags = flags & !Life::RESET;
    if flags & (Life::ASKED | Life::ANSWERED) == Life::ASKED {
        // A SYN is answered by a SYN-ACK, or by a SYN and that by a SYN-ACK (RFC 9293 §3.5). Who sends a bare ACK has another
        // connection in mind.
        const SYN_ACK: u8 = tcp::SYN | tcp::ACK;
        flags |= match (original, tcp_flags & SYN_ACK) {
            (false, SYN_ACK) => Life::ANSWERED,
            (false, tcp::SYN) => Life::BOTH_ASKED,
            (true, SYN_ACK) if flags & Life::BOTH_ASKED != 0 => Life::ANSWERED,
            _ => 0,
        };
    } else if !original {
        flags |= Life::ANSWERED;
    } else if flags & Life::ANSWERED != 0 && tcp_flags & tcp::SYN == 0 {
        flags |= Life::ESTABLISHED;
    }
    if tcp_flags & tcp::FIN != 0 {
        flags |= if original { Life::FIN_ORIGINAL } else { Life::FIN_REPLY };
    }
    flags
}

/// What both sides' taking part is noted by.
const TAKEN_PART: u16 = Life::ANSWERED | Life::ESTABLISHED;

/// The flags that a flow needs for a TCP packet to be valid and change nothing, as most do: packets in the middle of
/// an established connection. For others, one that no flow has.
#[inline(always)]
pub(super) fn steady(tcp_flags: u8) -> u16 {
    match tcp_flags & (tcp::FIN | tcp::SYN | tcp::RST | tcp::ACK) {
        tcp::ACK => TAKEN_PART,
        _ => Life::NEVER,
    }
}

/// Does a packet that asks for these flags ([`steady`]; none by other protocols than TCP) change nothing? `side`: 0 of those
/// that go as the flow's first one, 1 of others.
#[inline(always)]
pub(super) fn is_steady(life: Life, side: u64, asked: u16) -> bool {
    // Of the whole word, so that several are done at once.
    let asked = u64::from(asked) | (side * u64::from(TAKEN_PART));
    life.0 & (asked | u64::from(Life::RESET)) == asked
}

#[cfg(test)]
mod tests {
    use super::*;
    use Direction::{Original, Reply};

    const SYN_ACK: u8 = tcp::SYN | tcp::ACK;

    fn tcp_flow(packets: &[(Direction, u8)]) -> Life {
        let begins =
            if TcpPacket::of(packets[0].1) == TcpPacket::Syn { Life::LIVE | Life::ASKED } else { Life::LIVE };
        let flags = packets.iter().fold(begins, |flags, (way, tcp)| after(flags, protocol::TCP, *way, *tcp));
        Life(0).with(flags, 0)
    }

    fn lasts(packets: &[(Direction, u8)]) -> u32 {
        FlowTimeouts::default().of(protocol::TCP, tcp_flow(packets)).0 / Ticks::PER_SECOND
    }

    #[test]
    fn what_is_taken_for_steady_changes_nothing_and_is_valid() {
        for (flags, tcp_flags) in (0..256u16).flat_map(|flags| (0..=255u8).map(move |tcp| (flags, tcp))) {
            let life = Life(0).with(flags | Life::LIVE, 0);
            for direction in [Original, Reply] {
                if is_steady(life, direction as u64, steady(tcp_flags)) {
                    assert_eq!(after(life.flags(), protocol::TCP, direction, tcp_flags), life.flags());
                    assert!(may_follow(life.flags(), direction, TcpPacket::of(tcp_flags)));
                }
                if is_steady(life, direction as u64, 0) {
                    assert_eq!(after(life.flags(), protocol::UDP, direction, 0), life.flags());
                }
            }
        }
        let established = Life(0).with(Life::LIVE | TAKEN_PART, 0);
        assert!(is_steady(established, 1, steady(tcp::ACK)) && is_steady(established, 0, 0));
        assert!(!is_steady(established, 0, steady(tcp::ACK | tcp::FIN)));
    }

    #[test]
    fn a_connection_lasts_as_long_as_its_state_says() {
        let open = [(Original, tcp::SYN), (Reply, SYN_ACK), (Original, tcp::ACK)];
        assert_eq!(lasts(&open[..1]), 20);
        // Half open is not established: the server answers whoever asks.
        assert_eq!(lasts(&open[..2]), 20);
        assert_eq!(lasts(&open), 3600);
        let fin = tcp::FIN | tcp::ACK;
        let closing = [&open[..], &[(Original, fin)]].concat();
        assert_eq!(lasts(&closing), 3600, "half closed, the other side may still send");
        let closed = [&closing[..], &[(Reply, fin), (Original, tcp::ACK)]].concat();
        assert_eq!(lasts(&closed), 30);
        let reset = [&open[..], &[(Reply, tcp::RST)]].concat();
        assert_eq!(lasts(&reset), 40);
        assert_eq!(lasts(&[&reset[..], &[(Original, tcp::ACK)]].concat()), 3600);
        assert_eq!(lasts(&[&closed[..], &[(Original, tcp::SYN)]].concat()), 20, "opened anew");
    }

    /// The columns "none" of Linux's table, and those of its rows that need no sequence number.
    #[test]
    fn packets_of_no_connection_are_told_from_others_as_linux_does() {
        let none = [(tcp::SYN, true), (SYN_ACK, false), (tcp::FIN | tcp::ACK, false), (tcp::ACK, true)];
        let more = [(tcp::RST, false), (tcp::RST | tcp::ACK, false), (0, false), (0x08, false)];
        for (flags, may) in none.into_iter().chain(more) {
            assert_eq!(TcpPacket::of(flags).may_begin(), may, "{flags:#x}");
        }
        let open = [(Original, tcp::SYN), (Reply, SYN_ACK), (Original, tcp::ACK)];
        let both = [(Original, tcp::SYN), (Reply, tcp::SYN), (Original, SYN_ACK)];
        let reset = [open[0], open[1], open[2], (Original, tcp::RST)];
        let again = [open[0], (Reply, tcp::RST | tcp::ACK), open[0]];
        // Which of SYN, SYN-ACK, FIN and ACK the two sides may send, in the states that Linux tells apart and we do.
        let unanswered = [[true, false, false, false], [true, true, false, true]];
        let both_ask = [[true, true, false, false], [true, true, false, true]];
        let answered = [[true; 4], [false, true, true, true]];
        let under_way = [[true, false, true, true], [false, true, true, true]];
        check("SYN_SENT", &open[..1], unanswered);
        check(
            "SYN_SENT, and the other side has another connection",
            &[open[0], (Reply, tcp::ACK)],
            unanswered,
        );
        check("SYN_SENT2", &both[..2], both_ask);
        check("SYN_RECV", &open[..2], answered);
        check("SYN_RECV, both", &both, answered);
        check("ESTABLISHED", &open, under_way);
        check("ESTABLISHED, from the middle", &[(Original, tcp::ACK)], under_way);
        check("CLOSE", &reset, under_way);
        check("SYN_SENT once more", &again, unanswered);
    }

    fn check(state: &str, packets: &[(Direction, u8)], may: [[bool; 4]; 2]) {
        let flags = tcp_flow(packets).flags();
        for (way, may) in [Original, Reply].into_iter().zip(may) {
            let packets = [TcpPacket::Syn, TcpPacket::SynAck, TcpPacket::Fin, TcpPacket::Ack];
            assert_eq!(packets.map(|packet| may_follow(flags, way, packet)), may, "{state}, {way:?}");
            assert!(may_follow(flags, way, TcpPacket::Reset) && !may_follow(flags, way, TcpPacket::Nothing));
        }
    }

    /// `tcp_valid_flags`: these and no others, with ECE, CWR and PSH or without.
    #[test]
    fn flags_that_no_packet_has_are_no_packets() {
        let fin_ack = tcp::FIN | tcp::ACK;
        let urgent = [tcp::SYN, fin_ack, tcp::ACK].map(|flags| flags | tcp::URG);
        let plain = [tcp::SYN, SYN_ACK, tcp::RST, tcp::RST | tcp::ACK, fin_ack, tcp::ACK];
        let valid = |flags: u8| plain.iter().chain(&urgent).any(|valid| *valid == flags & !0xc8);
        for flags in 0..=u8::MAX {
            assert_eq!(TcpPacket::of(flags) != TcpPacket::Nothing, valid(flags), "{flags:#x}");
        }
    }

    #[test]
    fn other_protocols_are_established_by_an_answer_and_live_through_the_grace_period() {
        let timeouts = FlowTimeouts::default();
        let asked = Life(0).with(Life::LIVE, 0);
        let answered = Life(0).with(after(Life::LIVE, protocol::ICMP, Reply, 0), 0);
        assert!(answered.has(Life::ESTABLISHED));
        assert_eq!(timeouts.of(protocol::ICMP, asked), timeouts.creation_grace);
        assert_eq!(timeouts.of(protocol::ICMP, answered), timeouts.icmp);
        assert!(!timeouts.is_over(protocol::ICMP, answered, timeouts.icmp));
        assert!(timeouts.is_over(protocol::ICMP, answered, Ticks(timeouts.icmp.0 + 1)));
    }

    #[test]
    fn a_short_time_is_never_none() {
        assert_eq!(Ticks::from(Duration::from_millis(1)), Ticks(1));
        assert_eq!(Ticks::from(Duration::from_secs(5)), Ticks(40));
        assert_eq!(Ticks::from(Duration::MAX), Ticks(u32::MAX));
    }
}

//! The size of every table, ring and queue, and the memory that they come to (ARCHITECTURE.md, D14).
//!
//! All sizes of the program stand in this file: those that an operator may change are fields of [`Limits`], the
//! others are constants. What a row costs is stated beside it, so that memory is known before the first packet.

use std::time::Duration;

use tables::PolicyReport;

use crate::frame_size::FrameSize;

/// Sizes that `limits:` in `tortie.yaml` may change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limits {
    /// IPv4 routes of the fast path.
    pub(crate) routes_v4: usize,
    /// IPv6 routes of the fast path.
    pub(crate) routes_v6: usize,
    /// Ports: uplinks, workloads and the host.
    pub(crate) ports: usize,
    /// Neighbours that frames can be addressed to.
    pub(crate) adjacencies: usize,
    /// Distinct sets of next hops.
    pub(crate) groups: usize,
    /// Frames of each worker.
    pub(crate) frames: usize,
    /// Frames of several chunks beside them, where packets are to be carried that a chunk doesn't hold.
    pub(crate) large_frames: usize,
    /// Bytes of the largest IP packet that is carried; absent where the interfaces that there are at start say.
    pub(crate) mtu: Option<usize>,
    /// Neighbours that the slow path remembers.
    pub(crate) neighbors: usize,
    /// Routes that the kernel's mirror may hold. The kernel's own memory for them is not in the arithmetic.
    pub(crate) mirror_routes: usize,
    /// Prefixes taken from one BGP peer.
    pub(crate) prefixes_per_peer: usize,
    /// Rows of the flow table: a translated flow takes one, a workload's port and address one each.
    pub(crate) flows: usize,
    /// Outer ports of one address, for each protocol.
    pub(crate) nat_ports_per_address: usize,
    /// Different lists of rules that endpoints have, a direction each.
    pub(crate) policy_programs: usize,
    /// Rules in those lists.
    pub(crate) policy_rules: usize,
    /// Addresses, networks and ports in the sets that rules name, and networks in the rules themselves.
    pub(crate) policy_members: usize,
    /// Bytes of those lists as packets are judged by them.
    pub(crate) policy_bytes: usize,
}

impl Default for Limits {
    /// A full internet table (about 1.05 million IPv4 and 240 thousand IPv6 prefixes) twice over, and once in the
    /// kernel's mirror: what the kernel lacks is lost when Tortie is gone (ARCHITECTURE.md, D1).
    fn default() -> Limits {
        Limits {
            routes_v4: 2_200_000,
            routes_v6: 500_000,
            ports: 512,
            adjacencies: 16_384,
            groups: 8_192,
            frames: 131_072,
            large_frames: 4_096,
            mtu: None,
            neighbors: 16_384,
            mirror_routes: 1_500_000,
            prefixes_per_peer: 1_500_000,
            flows: 262_144,
            // Half of those that the node's own address has to give.
            nat_ports_per_address: 8_192,
            policy_programs: 1_024,
            policy_rules: 262_144,
            policy_members: 1_048_576,
            policy_bytes: 256 * 1024 * 1024,
        }
    }
}

impl Limits {
    /// Those of policy.
    pub(crate) fn policy(&self) -> tables::PolicyLimits {
        tables::PolicyLimits {
            programs: self.policy_programs,
            rules: self.policy_rules,
            members: self.policy_members,
            bytes: self.policy_bytes,
        }
    }

    /// What a limit may be set to. The upper ends keep a slip of the finger from asking for terabytes.
    pub(crate) const ROUTES: (usize, usize) = (1, 16_000_000);
    /// A port number has 16 bits and the highest is kept free.
    pub(crate) const PORTS: (usize, usize) = (2, 65_534);
    /// See [`Self::ROUTES`].
    pub(crate) const ROWS: (usize, usize) = (16, 1_000_000);
    /// Routes name their group by 16 bits (`lpm/src/ipv4/codes.rs`), and a few of those numbers mean something else.
    pub(crate) const GROUPS: (usize, usize) = (16, 65_000);
    /// 128 bytes each, and 16 for finding them.
    pub(crate) const FLOWS: (usize, usize) = (1_024, 64_000_000);
    /// A port has 16 bits; the largest is no limit.
    pub(crate) const NAT_PORTS: (usize, usize) = (1, 65_536);
    /// A rule is named by 32 bits, of which its list has 12.
    pub(crate) const POLICY_PROGRAMS: (usize, usize) = (2, tables::PolicyLimits::PROGRAMS_MAX);
    /// A list of ten thousand rules takes a few megabytes.
    pub(crate) const POLICY_BYTES: (usize, usize) = (1 << 20, 1 << 36);
    /// Of the fewest an uplink, the host and two workloads still have rings of some use (`ports/rings.rs`).
    pub(crate) const FRAMES: (usize, usize) = (2_048, 4_194_304);
    /// Below the smallest, not even two batches are held. Only packets under way take one: a batch, and what waits in
    /// transmit rings, where each takes a slot for each of its chunks.
    pub(crate) const LARGE_FRAMES: (usize, usize) = (128, 262_144);
    /// From IPv6's smallest (RFC 8200 §5) to what fifteen chunks hold: a frame's length has 16 bits.
    pub(crate) const MTU: (usize, usize) = (1_280, 15 * UMEM_PAGE as usize - 256 - 14);
}

/// VXLAN segments besides Calico's. With the ports of all of them and Calico's an uplink's program must have room.
pub(crate) const SEGMENTS: usize = 16;
const _: () = assert!(SEGMENTS + 2 <= afxdp::TUNNELS_MAX as usize);
/// Groups of BGP peers, and aggregates; each is asked of every peer, or of every route.
pub(crate) const BGP_PEER_GROUPS: usize = 256;
/// See [`BGP_PEER_GROUPS`].
pub(crate) const BGP_AGGREGATES: usize = 64;
/// Neighbours that one group may take in: as many peers as the speaker has.
pub(crate) const BGP_NEIGHBOURS: usize = 4_096;
/// Monitoring stations. While there is one, BGP remembers what was told: about 100 bytes a path.
pub(crate) const BMP_STATIONS: usize = 8;
/// What may wait for one of them, in MiB: at least what tells of all neighbours at once.
pub(crate) const BMP_BUFFER_MIB: (usize, usize) = (4, 4_096);
/// Other ends of a segment. A file as large as a configuration may be holds fewer.
pub(crate) const SEGMENT_ENDS: usize = 1_024;
/// Addresses that a segment's questions are copied to, and networks that may send to it.
pub(crate) const SEGMENT_FLOOD: usize = 128;
/// Stations that are learned in a segment.
pub(crate) const SEGMENT_STATIONS: usize = 1_024;
/// Seconds after which a station is forgotten that isn't heard again.
pub(crate) const SEGMENT_AGEING: (usize, usize) = (4, 86_400);
/// Milliseconds between BFD's packets.
pub(crate) const BFD_INTERVAL: (usize, usize) = (1, 60_000);
/// Workers: a queue index of the NIC each.
pub(crate) const WORKERS: (usize, usize) = (1, 64);
/// Descriptors in the transmit and completion rings of an uplink's queue.
pub(crate) const UPLINK_RING: u32 = 2_048;
/// Descriptors in its fill and receive rings: twice what a NIC's own ring usually holds, so that it never starves. Fewer in the
/// fill ring where a worker has few frames (`ports/rings.rs`).
pub(crate) const UPLINK_FILL_RING: u32 = 4_096;
/// Descriptors in the fill ring of a workload's or the host's queue: so many frames each takes for good, where there are
/// enough. Of a TCP stream between workloads at 2.7 Gbit/s, 512 lost one frame in 600, 1,024 one in 12,000 (veth, one worker,
/// 4 cores).
pub(crate) const VETH_FILL_RING: u32 = 1_024;
/// Descriptors in the other rings of such a queue, which take no frames by themselves. The fill ring is topped up before
/// received frames are taken, so the receive ring must hold more than one fill.
pub(crate) const VETH_RING: u32 = 2_048;
/// Bytes of the largest chunk that the kernel takes (`frame_size.rs`).
pub(crate) const UMEM_PAGE: u32 = 4_096;
/// Packets in the punt ring and in the inject ring of each worker.
pub(crate) const PUNT_SLOTS: usize = 1_024;
/// See [`PUNT_SLOTS`].
pub(crate) const INJECT_SLOTS: usize = 1_024;
/// Bytes of a packet in the inject ring, at most: more than any that the slow path makes. What the walk copies, punted and
/// handed over, may have all that fits into a frame.
pub(crate) const INJECT_BYTES: usize = 2_048;
/// Packets in each ring from one worker to another.
pub(crate) const HANDOFF_SLOTS: usize = 2_048;
/// Commands that wait for one worker: a port opened or closed is one.
pub(crate) const COMMANDS: usize = 64;
/// Rules that each worker counts for; what finds no row is counted as such.
pub(crate) const POLICY_RULES_COUNTED: usize = 16_384;
/// Packets that policy denied, or is to log, and that the slow path hasn't heard of yet.
pub(crate) const POLICY_EVENTS: usize = 4_096;
/// Packets that were followed and that nobody has asked for yet.
pub(crate) const FOLLOWED_WAITING: usize = 512;
/// Packets that are followed for one who asks, at most.
pub(crate) const FOLLOWED_PACKETS: u32 = 10_000;
/// Packets in one answer.
pub(crate) const FOLLOWED_AT_ONCE: usize = 128;
/// How long packets are followed for one who asks, at most, in seconds.
pub(crate) const FOLLOWED_SECONDS: u64 = 3_600;
/// Copies of frames that nobody has asked for yet.
pub(crate) const CAPTURED_WAITING: usize = 1_024;
/// Bytes of a captured frame, at most: a jumbo frame in a tunnel.
pub(crate) const CAPTURED_BYTES: usize = 9_728;
/// Base64 digits of captured frames in one answer, about.
pub(crate) const CAPTURED_BYTES_AT_ONCE: usize = 1 << 20;
/// How long frames are captured for one who asks, at most, in seconds.
pub(crate) const CAPTURED_SECONDS: u64 = 3_600;
/// Frames for packets that are made up: one, and what a queue of memory takes.
pub(crate) const REHEARSAL_FRAMES: u32 = 64;
/// Questions that wait for the slow path.
pub(crate) const QUESTIONS: usize = 64;
/// Connections to the control socket, to the metrics and to the looking glass, at a time.
pub(crate) const CONNECTIONS: usize = 16;
/// Bytes of one question on the control socket.
pub(crate) const QUESTION_BYTES: u64 = 4_096;
/// Bytes of one answer: room for a million routes.
pub(crate) const ANSWER_BYTES: u64 = 512 * 1024 * 1024;
/// Routes in one answer.
pub(crate) const ROUTES_SHOWN: usize = 1_000_000;

/// Requests that the looking glass answers a second: some twenty pages that are looked at.
pub(crate) const GLASS_REQUESTS_A_SECOND: u32 = 50;
/// And at once.
pub(crate) const GLASS_REQUESTS_AT_ONCE: u32 = 100;
/// Rows in one answer of the looking glass.
pub(crate) const GLASS_ROWS: usize = 1_000;
/// Sources whose flows are counted apart, for those that have most.
pub(crate) const FLOW_SOURCES_COUNTED: usize = 65_536;
/// How many of them are shown.
pub(crate) const FLOW_SOURCES_SHOWN: usize = 10;

/// How long a worker with nothing to do sleeps before it looks again: an injected packet may wait this long.
pub(crate) const IDLE_WAIT: Duration = Duration::from_millis(1);
/// How uplinks are polled where workers do that. A call of theirs looks once and waits for nothing, whatever time it may
/// take; and as many packets as the walk takes at once fill its batch.
pub(crate) const BUSY_POLL: afxdp::BusyPoll = afxdp::BusyPoll { usecs: 20, budget: fastpath::BATCH as u32 };
/// How long the slow path may take for an answer.
pub(crate) const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// How long a connection may be silent.
pub(crate) const CONNECTION_IDLE: Duration = Duration::from_secs(30);
/// How long a clean stop waits for its last messages to leave.
pub(crate) const STOP_WITHIN: Duration = Duration::from_secs(3);
/// How long a worker may take to give up a queue.
pub(crate) const REMOVE_WITHIN: Duration = Duration::from_secs(2);

/// One line of the memory arithmetic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MemoryLine {
    /// What for.
    pub(crate) what: &'static str,
    /// How many.
    pub(crate) rows: usize,
    /// Bytes of each.
    pub(crate) row_bytes: usize,
}

impl MemoryLine {
    fn bytes(&self) -> usize {
        self.rows * self.row_bytes
    }
}

/// The memory that a configuration comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Memory {
    /// Taken at start-up, and never more of it.
    pub(crate) fixed: Vec<MemoryLine>,
    /// Taken as tables and rings fill; the sum is their upper end.
    pub(crate) growing: Vec<MemoryLine>,
}

impl Memory {
    /// The arithmetic for these limits, this many workers, and frames of this size.
    pub(crate) fn of(limits: &Limits, workers: usize, size: FrameSize) -> Memory {
        let line = |what, rows, row_bytes| MemoryLine { what, rows, row_bytes };
        let ports_counted = workers * limits.ports;
        let large_frames = if size.large_chunks > 1 { workers * limits.large_frames } else { 0 };
        let frame_bytes = size.bytes() as usize;
        // `lpm` reserves all that a table may ever need when it is made: address space, which becomes memory page by page as
        // routes come. Only the table itself knows how much that is, so one is made, and forgotten untouched.
        let v4 = lpm::Limits::for_routes(limits.routes_v4 as u32);
        let v6 = lpm::Limits::for_routes(limits.routes_v6 as u32);
        Memory {
            fixed: vec![
                line("frames", workers * limits.frames, size.chunk_bytes as usize),
                line("large frames", large_frames, frame_bytes),
                line("free lists of frames", workers * limits.frames + large_frames, 16),
                line("counters of ports", ports_counted, 40),
                line("flow table", 1, tables::Flows::bytes(limits.flows)),
                line("packets followed", 1, tables::Tracing::bytes(FOLLOWED_WAITING)),
                line("frames of made-up packets", REHEARSAL_FRAMES as usize, size.chunk_bytes as usize),
                line(
                    "report of policy",
                    1,
                    PolicyReport::bytes(workers, POLICY_RULES_COUNTED, POLICY_EVENTS),
                ),
            ],
            growing: vec![
                line("look-up tables, IPv4", 1, lpm::Table::<u32>::new(v4).bytes()),
                line("look-up tables, IPv6", 1, lpm::Table::<u128>::new(v6).bytes()),
                line("IPv4 routes of BGP and the RIB, about", limits.routes_v4, ROUTE_V4_BYTES),
                line("IPv6 routes of BGP and the RIB, about", limits.routes_v6, ROUTE_V6_BYTES),
                line("punt rings", workers * PUNT_SLOTS, frame_bytes + 96),
                line("inject rings", workers * INJECT_SLOTS, INJECT_BYTES + 96),
                line("rings between workers", workers * (workers - 1) * HANDOFF_SLOTS, frame_bytes + 96),
                line(
                    "copies of frames, during a capture",
                    1,
                    tables::Capturing::bytes(CAPTURED_BYTES, CAPTURED_WAITING),
                ),
                line("policy: sets, programs and rules", 1, tables::PolicyLimits::bytes(&limits.policy())),
                line("limits of endpoints, one a port", limits.ports, 2_048),
                line("adjacencies", limits.adjacencies, 64),
                line("groups", limits.groups, 96),
                line("buckets of groups of several next hops", limits.groups, BUCKETS_BYTES),
                line("neighbours", limits.neighbors, 128),
                line("stations learned in segments", SEGMENTS * SEGMENT_STATIONS, 96),
                line("mirrored routes", limits.mirror_routes, 5),
            ],
        }
    }

    /// Bytes that are taken at start-up.
    pub(crate) fn fixed_bytes(&self) -> usize {
        self.fixed.iter().map(MemoryLine::bytes).sum()
    }

    /// Bytes that the tables may come to when full.
    pub(crate) fn growing_bytes(&self) -> usize {
        self.growing.iter().map(MemoryLine::bytes).sum()
    }

    /// One line for the log.
    pub(crate) fn summary(&self) -> String {
        format!(
            "memory: {} MiB fixed at start-up, at most {} MiB more when every table is full",
            mebibytes(self.fixed_bytes()),
            mebibytes(self.growing_bytes())
        )
    }

    /// The arithmetic, a line each.
    pub(crate) fn lines(&self) -> Vec<String> {
        let text = |kind: &str, line: &MemoryLine| {
            format!(
                "memory: {:>9} {} × {} bytes = {} MiB {kind}",
                line.rows,
                line.what,
                line.row_bytes,
                mebibytes(line.bytes())
            )
        };
        let fixed = self.fixed.iter().map(|line| text("at start-up", line));
        let growing = self.growing.iter().map(|line| text("when full", line));
        fixed.chain(growing).collect()
    }
}

/// A route as one peer announced it, as BGP chose it, as the RIB holds it, and as the fast path's writer remembers it.
const ROUTE_V4_BYTES: usize = 256;
/// 128 buckets, enough for four next hops: owner and server as the writer remembers them, and the server in the state
/// that workers have and in the one that they get next, 4 bytes each. Groups of one next hop have no buckets; those of
/// unlike weights have up to 2,048, and are few.
const BUCKETS_BYTES: usize = 128 * 4 * 4;

/// See [`ROUTE_V4_BYTES`]; prefixes and next hops are four times as long.
const ROUTE_V6_BYTES: usize = 384;

/// Rounded up, so that no sum looks smaller than it is.
fn mebibytes(bytes: usize) -> usize {
    bytes.div_ceil(1024 * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_counted_for_every_worker() {
        let limits = Limits { frames: 8192, ..Limits::default() };
        let memory = |workers, mtu| Memory::of(&limits, workers, FrameSize::for_mtu(mtu));
        let fixed = |workers, mtu| memory(workers, mtu).fixed_bytes();
        let [one, two] = [1, 2].map(|workers| fixed(workers, 1500));
        assert!(two - one >= 8192 * 2048, "{one} {two}");
        let [one, two, three] = [1, 2, 3].map(|workers| memory(workers, 1500).growing_bytes());
        assert!(
            three - two > two - one,
            "every further worker has more rings to others: {one} {two} {three}"
        );
        let one = fixed(1, 1500);
        let jumbo = fixed(1, 9000);
        assert!(
            jumbo - one >= 8192 * 2048 + 4096 * 3 * 4096,
            "larger chunks, and large frames: {one} {jumbo}"
        );
    }

    #[test]
    fn the_arithmetic_is_not_below_what_the_tables_say_of_themselves() {
        let limits = Limits { routes_v4: 5_000, routes_v6: 3_000, ..Limits::default() };
        let writer = tables::Writer::new(tables::Limits {
            ports: limits.ports,
            adjacencies: limits.adjacencies,
            groups: limits.groups,
            routes_v4: limits.routes_v4,
            routes_v6: limits.routes_v6,
            policy: tables::PolicyLimits::NONE,
            readers: 1,
        });
        let memory = Memory::of(&limits, 1, FrameSize::for_mtu(1500));
        let sum = |lines: &[MemoryLine], part: &str| -> usize {
            lines.iter().filter(|line| line.what.contains(part)).map(MemoryLine::bytes).sum()
        };
        let told = sum(&memory.growing, "look-up") + sum(&memory.growing, "RIB");
        assert!(writer.fib().bytes() <= told, "{} bytes, and {told} are told", writer.fib().bytes());
    }

    #[test]
    fn the_summary_names_both_sums() {
        let memory = Memory {
            fixed: vec![MemoryLine { what: "frames", rows: 1024, row_bytes: 2048 }],
            growing: vec![MemoryLine { what: "routes", rows: 1, row_bytes: 1 }],
        };
        assert_eq!(
            memory.summary(),
            "memory: 2 MiB fixed at start-up, at most 1 MiB more when every table is full"
        );
        assert_eq!(memory.lines()[0], "memory:      1024 frames × 2048 bytes = 2 MiB at start-up");
    }

    #[test]
    fn the_defaults_hold_an_internet_table_twice() {
        let limits = Limits::default();
        assert!(limits.routes_v4 >= 2 * 1_050_000 && limits.routes_v6 >= 2 * 240_000);
        assert!(limits.prefixes_per_peer >= 1_050_000 + 240_000);
        assert!(limits.mirror_routes >= 1_050_000 + 240_000, "the kernel can't go on without us");
    }
}

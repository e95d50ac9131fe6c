//! Packets that were followed through the walk.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// `tortie trace`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TracesStatus {
    /// In the order in which they were walked, of each worker.
    pub packets: Vec<TracedPacket>,
    /// Packets that matched and were due, and that nobody could follow or keep.
    pub missed: u64,
    /// May more come?
    pub running: bool,
    /// Names the packets that are being followed.
    pub id: u64,
}

/// One packet's way.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TracedPacket {
    /// Was it made up? Then it has left nowhere, is counted nowhere and has begun nothing.
    pub made_up: bool,
    /// When it was walked, RFC 3339.
    pub time: String,
    /// The worker that walked it; absent of one that is made up.
    pub worker: Option<u16>,
    /// The port that it came in by.
    pub port: Option<String>,
    /// The workload endpoint there.
    pub endpoint: Option<String>,
    /// Bytes of its frame.
    pub frame_bytes: u16,
    /// Its headers; absent of what is malformed or no IP packet.
    pub packet: Option<TracedHeaders>,
    /// What was inside a tunnel that ends here.
    pub inside: Option<TracedHeaders>,
    /// What each stage found, for people.
    pub stages: Vec<TracedStage>,
    /// Where its route led.
    pub route: Option<TracedRoute>,
    /// What policy said, or would say of the flow that it belongs to.
    pub policy: Vec<TracedPolicy>,
    /// `forward`, `fragment`, `punt` or `drop`.
    pub fate: String,
    /// Why it was dropped, or handed to the slow path: as `tortie show drops` names it.
    pub reason: Option<String>,
    /// The port that it left by.
    pub leaves_by: Option<String>,
}

/// What one stage of the walk found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TracedStage {
    /// The stage, as `tortie show ports --stages` names it.
    pub stage: String,
    /// In words; they may change.
    pub found: String,
}

/// Headers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TracedHeaders {
    /// Source address.
    pub source: IpAddr,
    /// Destination address.
    pub destination: IpAddr,
    /// By name, or number.
    pub protocol: String,
    /// Source port, of protocols that have some.
    pub source_port: Option<u16>,
    /// Destination port.
    pub destination_port: Option<u16>,
    /// Type of an ICMP message.
    pub icmp_type: Option<u8>,
    /// Code of an ICMP message.
    pub icmp_code: Option<u8>,
    /// TCP's flags, such as `SYN,ACK`.
    pub tcp_flags: Option<String>,
    /// TTL or hop limit.
    pub ttl: u8,
    /// Differentiated services code point.
    pub dscp: u8,
    /// Bytes of the IP packet.
    pub bytes: u16,
    /// `first` or `later`, of a fragment.
    pub fragment: Option<String>,
}

/// A route and the next hop that the flow's hash chose.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TracedRoute {
    /// Of the RIB; absent where nothing covers the destination.
    pub prefix: Option<String>,
    /// Its source, as in `show routes`.
    pub source: Option<String>,
    /// How many next hops it has.
    pub next_hops: u16,
    /// Which of them was chosen, from 1; 0 where there was none.
    pub next_hop: u16,
    /// The neighbour, or the far end of a tunnel.
    pub via: Option<IpAddr>,
    /// The port.
    pub port: Option<String>,
}

/// One end's policy.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TracedPolicy {
    /// The endpoint.
    pub endpoint: String,
    /// `ingress`, towards the endpoint, or `egress`, from it.
    pub direction: String,
    /// Would it be so if staged policies were enforced? Else it is so.
    pub staged: bool,
    /// As in `show policy`.
    pub tier: String,
    /// As in `show policy`.
    pub policy: String,
    /// As in `show policy`: `ingress[1]`, `end of tier`, `no profile`.
    pub what: String,
    /// `allow`, `deny`, `pass` or `log`.
    pub action: String,
    /// The rule as one would say it; absent where no rule decided.
    pub text: Option<String>,
    /// It wasn't asked of this packet: its flow had been let pass, by this rule if it was asked now.
    pub recalled: bool,
}

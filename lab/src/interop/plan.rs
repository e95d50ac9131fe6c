//! What the interop matrix tells its speaker, and what the speaker answers.

use std::net::{IpAddr, Ipv4Addr};

use model::Prefix;
use serde::{Deserialize, Serialize};

/// What a speaker is to be.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SpeakerPlan {
    /// Its BGP identifier, and its IPv4 address on the link.
    pub router_id: Ipv4Addr,
    /// Its AS.
    pub as_number: u32,
    /// Its end of the session.
    pub listen: IpAddr,
    /// The daemon's end.
    pub peer: IpAddr,
    /// The daemon's AS.
    pub peer_as: u32,
    /// Families of the session: is each IPv6?
    pub families: Vec<bool>,
    /// Its own routes.
    #[serde(with = "as_text")]
    pub routes: Vec<Prefix>,
    /// How many large communities each carries: many need a long message.
    pub large_communities: u32,
    /// IPv4 routes may have IPv6 next hops (RFC 8950).
    pub v4_over_v6: bool,
    /// All paths are told (RFC 7911).
    pub all_paths: bool,
    /// The daemon is its client (RFC 4456).
    pub reflects: bool,
    /// Who else has routes.
    pub feeders: Vec<FeederPlan>,
}

/// Another speaker, behind the one under test.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct FeederPlan {
    /// Its BGP identifier, and the next hop of its routes.
    pub router_id: Ipv4Addr,
    /// Its AS.
    pub as_number: u32,
    /// Its routes.
    #[serde(with = "as_text")]
    pub routes: Vec<Prefix>,
}

/// How a speaker stands.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct SpeakerState {
    /// Is the session with the daemon Established?
    pub established: bool,
    /// Why it was lost, or could not be.
    pub last_error: Option<String>,
    /// What the daemon's OPEN says, for people.
    pub capabilities: Vec<String>,
    /// UPDATEs from the daemon.
    pub updates_in: u64,
    /// ROUTE-REFRESHes from the daemon.
    pub refreshes_in: u64,
    /// The daemon's paths that are kept from before its restart.
    pub stale: usize,
    /// Routes in use.
    pub routes: Vec<Held>,
    /// IPv4 routes that each feeder was told.
    pub feeders_hold: Vec<usize>,
}

/// A route in use.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Held {
    /// To where.
    #[serde(with = "one_as_text")]
    pub prefix: Prefix,
    /// Through whom.
    pub nexthops: Vec<IpAddr>,
}

mod one_as_text {
    use model::Prefix;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(prefix: &Prefix, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(prefix)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Prefix, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(|_| D::Error::custom("a prefix"))
    }
}

mod as_text {
    use model::Prefix;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(prefixes: &[Prefix], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(prefixes.iter().map(ToString::to_string))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Prefix>, D::Error> {
        let texts = Vec::<String>::deserialize(deserializer)?;
        texts.iter().map(|text| text.parse().map_err(|_| D::Error::custom("a prefix"))).collect()
    }
}

//! The form of `show bfd`.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// `show bfd`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BfdStatus {
    /// Every session, by the other end's address.
    pub bfd_sessions: Vec<BfdSessionStatus>,
    /// Packets that were refused, by reason; all there are, those at zero included.
    pub refused: BTreeMap<String, u64>,
    /// Why BFD's ports can't be had.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub problem: Option<String>,
    /// Why BFD's thread comes no sooner than others: on a busy machine it may miss intervals below 50 ms. Absent where it does.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub ordinary: Option<String>,
}

/// One session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BfdSessionStatus {
    /// The other end.
    pub address: IpAddr,
    /// Our end.
    pub local: IpAddr,
    /// The link between them; absent where there are several hops.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub interface: Option<String>,
    /// `AdminDown`, `Down`, `Init` or `Up`.
    pub state: String,
    /// Seconds in the state.
    pub since_seconds: u64,
    /// Why it was last down.
    pub diagnostic: String,
    /// The other end's state and diagnostic, where it is heard.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub remote: Option<(String, String)>,
    /// Our discriminator.
    pub local_discriminator: u32,
    /// The other end's; 0 until it is heard.
    pub remote_discriminator: u32,
    /// How often we send, in microseconds, before jitter; absent where the other end wants nothing.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub transmit_interval_us: Option<u64>,
    /// After which silence the other end counts as lost, in microseconds; absent until it is heard.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub detection_time_us: Option<u64>,
    /// How often it came up.
    pub ups: u64,
    /// Packets taken.
    pub received: u64,
    /// Packets sent.
    pub sent: u64,
}

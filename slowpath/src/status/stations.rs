//! The form behind `tortie show bmp`.

use serde::{Deserialize, Serialize};

/// `show bmp`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StationsStatus {
    /// Monitoring stations, in the order of `tortie.yaml`.
    pub stations: Vec<StationStatus>,
}

/// One station.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StationStatus {
    /// Address and port.
    pub address: String,
    /// Connected?
    pub up: bool,
    /// For so long.
    pub since_seconds: u64,
    /// How often it was connected to.
    pub connected_count: u64,
    /// How often it was cut off, as it took less than happened.
    pub cut_off_count: u64,
    /// Bytes sent, in all.
    pub sent_bytes: u64,
    /// Bytes that wait.
    pub queued_bytes: u64,
    /// Bytes that may.
    pub buffer_bytes: u64,
    /// Why it isn't connected.
    pub problem: Option<String>,
}

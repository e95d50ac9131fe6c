//! BMP (RFC 7854): telling monitoring stations what peers announce, and what becomes of it.
//!
//! A station is told who the peers are and then routes: as peers announced them (pre-policy), as the import filter left them
//! (post-policy), and the best of each prefix (RFC 9069, Loc-RIB). It is told states, not messages: UPDATEs are made anew
//! from the tables, so that a station that comes late or is slow gets the same as one that was there from the start, and
//! what came and went in between is left out (RFC 7854 §5 allows it).
//!
//! [`wire`] is the form of the messages, both ways. `monitor.rs` knows what stations have been told and brings them up to date.
//! A station is announced by [`Input::StationJoined`](crate::Input::StationJoined) and is told by
//! [`Output::ToStation`](crate::Output::ToStation) from then on.

pub(crate) mod monitor;
pub mod wire;

/// A station's number, chosen by the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StationId(pub u32);

/// What a station is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StationConfig {
    /// Its number.
    pub id: StationId,
    /// Routes as peers announced them.
    pub pre_policy: bool,
    /// Routes as the import filters left them, without those that take no part in the decision process.
    pub post_policy: bool,
    /// The best route to each prefix, our own included.
    pub loc_rib: bool,
    /// Who we are: `sysName` and `sysDescr` of RFC 1213.
    pub system_name: String,
    /// See [`Self::system_name`].
    pub system_description: String,
}

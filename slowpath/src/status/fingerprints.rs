//! What the fast path's tables mean, a number each.

use serde::{Deserialize, Serialize};

/// `show tables --fingerprints`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FingerprintsStatus {
    /// A table each.
    pub fingerprints: Vec<FingerprintStatus>,
}

/// One table's.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FingerprintStatus {
    /// `routes`, `ports`, `policy`, `tunnels`, `translation` or `rules`.
    pub table: String,
    /// How many rows it has.
    pub rows: usize,
    /// In hexadecimal: the same where the table means the same. Comparable between routers and runs of one build.
    pub fingerprint: String,
}

//! The size of every table and ring, fixed at start-up (ARCHITECTURE.md, D14).

/// How many rows each table has. `tortie/src/limits.rs` chooses them and does the memory arithmetic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Ports, at most 65,535.
    pub ports: usize,
    /// Neighbours that frames can be addressed to.
    pub adjacencies: usize,
    /// Distinct sets of next hops.
    pub groups: usize,
    /// IPv4 routes.
    pub routes_v4: usize,
    /// IPv6 routes.
    pub routes_v6: usize,
    /// Policy: programs, their rules, members of sets.
    pub policy: crate::PolicyLimits,
    /// Readers: one a worker.
    pub readers: usize,
}

/// A table has no free row; nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the table of {table} is full at {limit}: raise limits.{table} in the configuration")]
pub struct TableFull {
    /// Which table, by its name in [`Limits`].
    pub table: &'static str,
    /// How many rows it has.
    pub limit: usize,
}

//! Who assigns and releases.

use std::fmt;
use std::time::SystemTime;

use super::error::IpamError;
use super::reservations::Reservations;
use crate::{ResourceKind, Store, Under};

/// How often a write is tried that others keep overtaking (`datastoreRetries` in `libcalico-go/lib/ipam/ipam.go`).
pub const RETRIES: usize = 100;

/// IPAM on one store.
pub struct Ipam<'a> {
    pub(super) store: &'a dyn Store,
    clock: Box<dyn Fn() -> SystemTime + Send + Sync + 'a>,
}

impl fmt::Debug for Ipam<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ipam").finish_non_exhaustive()
    }
}

impl<'a> Ipam<'a> {
    /// By the system's clock.
    pub fn new(store: &'a dyn Store) -> Ipam<'a> {
        Ipam::with_clock(store, SystemTime::now)
    }

    /// By another clock.
    pub fn with_clock(store: &'a dyn Store, clock: impl Fn() -> SystemTime + Send + Sync + 'a) -> Ipam<'a> {
        Ipam { store, clock: Box::new(clock) }
    }

    pub(super) fn now(&self) -> SystemTime {
        (self.clock)()
    }

    /// Does something until nobody else has written in between.
    pub(super) fn retry<T>(&self, mut attempt: impl FnMut() -> Result<T, IpamError>) -> Result<T, IpamError> {
        for _ in 0..RETRIES {
            match attempt() {
                Err(error) if error.is_overtaken() => {}
                outcome => return outcome,
            }
        }
        Err(IpamError::TooManyConflicts)
    }

    /// What IPReservations keep from being assigned.
    ///
    /// # Errors
    /// The store can't be asked.
    pub fn reservations(&self) -> Result<Reservations, IpamError> {
        let under = Under::Kind { kind: ResourceKind::IpReservation, namespace: None };
        let listed = self.store.list(&under)?;
        Ok(Reservations::of(listed.stored.iter().map(|stored| &stored.value)))
    }
}

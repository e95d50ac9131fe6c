//! Who may ask the kernel for what. Capabilities are a thread's own on Linux (capabilities(7)), and a thread is born with
//! its parent's.
//!
//! What hears the outside world goes without them. Threads are born with what they need for ever ([`born_with`]): most with
//! nothing, workers with [`NET_RAW`], the mirror and host-endpoint policy with [`NET_ADMIN`]. The event loop, which takes up punted
//! packets and changes links and routes, lays its own aside ([`lay_aside`]) and takes them up for the length of one call into the
//! kernel ([`raised`]).
//!
//! This keeps a parser that is led astray from changing the host by way of the kernel. It is no wall against foreign machine
//! code, which would reach the memory of every thread: against that stands that the parsers are safe Rust.

use std::io;

pub use rustix::thread::CapabilitySet;
use rustix::thread::{CapabilitySets, capabilities, set_capabilities};

/// None at all.
pub const NOTHING: CapabilitySet = CapabilitySet::empty();
/// What closes an AF_XDP queue: raw sockets, to find out when the kernel is done with its frames.
pub const NET_RAW: CapabilitySet = CapabilitySet::NET_RAW;
/// Links, routes, neighbours, sysctls, nftables.
pub const NET_ADMIN: CapabilitySet = CapabilitySet::NET_ADMIN;

/// What the calling thread may take up, whether it has or not.
pub fn permitted() -> CapabilitySet {
    capabilities(None).map_or(NOTHING, |sets| sets.permitted)
}

/// The calling thread keeps these of its capabilities and gives up the others for good, and so do threads and programs that it
/// starts.
///
/// # Errors
/// What the kernel says; giving up what one has is always allowed.
pub fn keep(kept: CapabilitySet) -> io::Result<()> {
    let now = capabilities(None)?;
    let sets = CapabilitySets {
        effective: now.permitted & kept,
        permitted: now.permitted & kept,
        // Ambient ones go with these.
        inheritable: now.inheritable & kept,
    };
    Ok(set_capabilities(None, sets)?)
}

/// Programs that the calling thread starts, and those of threads that it starts, may be given these.
///
/// # Errors
/// They aren't permitted.
pub fn inherit(inheritable: CapabilitySet) -> io::Result<()> {
    let now = capabilities(None)?;
    Ok(set_capabilities(None, CapabilitySets { inheritable, ..now })?)
}

/// The calling thread no longer acts with what it is permitted, but inside [`raised`].
///
/// # Errors
/// As for [`keep`].
pub fn lay_aside() -> io::Result<()> {
    let now = capabilities(None)?;
    Ok(set_capabilities(None, CapabilitySets { effective: NOTHING, ..now })?)
}

/// Calls into the kernel with all that the calling thread is permitted; threads that are born meanwhile have it, too.
pub fn raised<T>(act: impl FnOnce() -> T) -> T {
    match capabilities(None) {
        Ok(before) if before.effective != before.permitted => {
            // Neither can be refused: no set grows beyond what is permitted. If one were, the act would fail with its own error.
            let _ = set_capabilities(None, CapabilitySets { effective: before.permitted, ..before });
            let outcome = act();
            let _ = set_capabilities(None, before);
            outcome
        }
        _ => act(),
    }
}

/// Does something on a passing thread that [`keep`]s these alone: the threads that it starts never have others.
///
/// # Errors
/// The system has no thread left, or the work panicked.
pub fn born_with<T: Send>(kept: CapabilitySet, work: impl FnOnce() -> T + Send) -> io::Result<T> {
    std::thread::scope(|scope| {
        let passing = std::thread::Builder::new().name("birth".to_owned());
        let thread = passing.spawn_scoped(scope, || keep(kept).map(|()| work()))?;
        thread.join().unwrap_or_else(|_| Err(io::Error::other("what starts a thread failed")))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the calling thread may do right now.
    fn effective() -> CapabilitySet {
        capabilities(None).unwrap().effective
    }

    /// On a thread of its own, so that the test's keeps what it has.
    fn apart(test: impl FnOnce() + Send) {
        std::thread::scope(|scope| scope.spawn(test).join().unwrap());
    }

    #[test]
    fn what_is_laid_aside_is_there_for_one_call() {
        apart(|| {
            let all = permitted();
            if all.is_empty() {
                println!("skipped: needs capabilities");
                return;
            }
            lay_aside().unwrap();
            assert_eq!((effective(), permitted()), (NOTHING, all));
            raised(|| {
                raised(|| assert_eq!(effective(), all));
                assert_eq!(effective(), all, "the inner call leaves the outer one what it had");
                std::thread::scope(|scope| scope.spawn(|| assert_eq!(effective(), all)).join().unwrap());
            });
            assert_eq!(effective(), NOTHING);
        });
    }

    #[test]
    fn what_is_born_without_stays_without_and_its_parent_keeps_its_own() {
        let before = capabilities(None).unwrap();
        let born = born_with(NOTHING, || {
            std::thread::spawn(|| {
                raised(|| (effective(), permitted(), capabilities(None).unwrap().inheritable))
            })
        });
        assert_eq!(born.unwrap().join().unwrap(), (NOTHING, NOTHING, NOTHING));
        assert_eq!(capabilities(None).unwrap(), before);
    }

    #[test]
    fn what_is_kept_is_all_that_can_be_raised() {
        if !permitted().contains(NET_ADMIN) {
            println!("skipped: needs CAP_NET_ADMIN");
            return;
        }
        let kept = born_with(NET_ADMIN, || raised(|| (effective(), permitted())));
        assert_eq!(kept.unwrap(), (NET_ADMIN, NET_ADMIN));
    }
}

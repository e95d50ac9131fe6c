//! What guards a peer's TCP connections. The speaker never uses it: whoever opens sockets does, and a session begins anew
//! where it changes.

use std::fmt;
use std::sync::Arc;

/// A TCP MD5 key (RFC 2385). It is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Password(Arc<[u8]>);

impl Password {
    /// Most bytes of a key that Linux takes (`TCP_MD5SIG_MAXKEYLEN`).
    pub const MAX: usize = 80;

    /// These bytes; `None` where they are none or more than [`Self::MAX`].
    pub fn new(bytes: &[u8]) -> Option<Password> {
        (1..=Password::MAX).contains(&bytes.len()).then(|| Password(bytes.into()))
    }

    /// The key itself.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(…)")
    }
}

/// How a peer's connections are guarded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Guard {
    /// Segments carry an MD5 signature made with this (RFC 2385).
    pub password: Option<Password>,
    /// Segments that come from further than these hops are dropped, and ours start with a TTL of 255 (RFC 5082); at least 1.
    pub ttl_security: Option<u8>,
}

impl Guard {
    /// The least TTL of segments from the peer: a neighbour's arrive with 255.
    pub fn min_ttl(&self) -> Option<u8> {
        self.ttl_security.map(|hops| u8::MAX - hops.saturating_sub(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_never_printed_and_never_longer_than_the_kernel_takes() {
        let guard = Guard { password: Password::new(b"hunter2"), ttl_security: None };
        assert!(!format!("{guard:?}").contains("hunter2"));
        assert_eq!(Password::new(b""), None);
        assert!(Password::new(&[b'a'; 80]).is_some());
        assert_eq!(Password::new(&[b'a'; 81]), None);
    }

    #[test]
    fn a_hop_more_is_a_ttl_less() {
        let min_ttl = |hops| Guard { password: None, ttl_security: Some(hops) }.min_ttl();
        assert_eq!((min_ttl(1), min_ttl(2), min_ttl(255)), (Some(255), Some(254), Some(1)));
        assert_eq!(Guard::default().min_ttl(), None);
    }
}

//! Where prefixes lie in the table that finds them.

use std::net::IpAddr;

use ahash::RandomState;
use model::Prefix;

/// How many bits neighbours may have of their own: see [`hash`].
pub(super) const NEIGHBORS: u8 = 6;

/// Where a prefix lies, by its upper bits, and which of those it is that have these in common: at most 126. Neighbours, which
/// mostly come and go together, lie side by side, so that what finds one brings the others near. In the seven upper bits,
/// which tell apart what lies side by side, none is another's.
pub(super) fn hash(hasher: &RandomState, prefix: Prefix) -> u64 {
    let len = prefix.len();
    let above = len.saturating_sub(1) / NEIGHBORS * NEIGHBORS;
    let (around, below) = match prefix.addr() {
        IpAddr::V4(addr) => {
            let addr = u64::from(addr.to_bits());
            (hasher.hash_one((addr >> (32 - above)) << 8 | u64::from(above)), addr >> (32 - len))
        }
        IpAddr::V6(addr) => {
            let addr = addr.to_bits();
            let bits = |len: u8| addr.checked_shr(u32::from(128 - len)).unwrap_or(0);
            (hasher.hash_one((bits(above), above)), bits(len) as u64)
        }
    };
    let neighbor = 1 << (len - above) | below & ((1 << (len - above)) - 1);
    around.wrapping_add(neighbor) ^ neighbor << 57
}

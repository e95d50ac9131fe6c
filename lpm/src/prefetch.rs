//! Bringing memory near before it is read: the one thing of this room that safe Rust has no words for.
//!
//! A load that isn't there yet holds up what comes after it as soon as a core's window of some two hundred instructions is
//! full; a prefetch holds up nothing. So a batch asks for all that it is going to read, and reads it then.

/// Asks for the cache line in which `slice[at]` lies, or would lie: nothing is read, so an index beyond the end is no error.
#[inline(always)]
pub fn prefetch<T>(slice: &[T], at: usize) {
    let place = slice.as_ptr().wrapping_add(at);
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a hint. The processor reads or writes nothing that the program could see and raises no fault, whatever the
    // address (Intel SDM volume 2B, AMD64 APM volume 3, PREFETCHh); SSE is part of x86-64.
    #[expect(unsafe_code, reason = "the intrinsic takes a raw pointer, and any will do")]
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(place.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = place;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_index_may_be_asked_for() {
        let empty: [u64; 0] = [];
        for at in [0, 1, usize::MAX / 8, usize::MAX] {
            prefetch(&[1u64, 2, 3], at);
            prefetch(&empty, at);
        }
    }
}

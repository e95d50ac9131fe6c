//! How the C library's allocator deals with what is large.
//!
//! It is here because this is the room of unsafe code; it has nothing else to do with AF_XDP.

/// Bytes from which on an allocation is a mapping of its own.
#[cfg(target_env = "gnu")]
const LARGE: libc::c_int = 1 << 20;
/// Free bytes at the end of a heap that are kept for what comes next.
#[cfg(target_env = "gnu")]
const KEPT: libc::c_int = 4 << 20;

/// From here on an allocation of a mebibyte or more is a mapping of its own: it grows without being copied, and when it is freed its
/// memory is the system's again.
///
/// The GNU C library does so by itself from 128 KiB on, but only until the first such allocation is freed: from then on what is as
/// large comes from the heap, up to 32 MiB, where an array that doubles as a table loads leaves gaps of its former sizes. Those
/// came to 50 MB of a router with a table of 900,000 routes. Other C libraries have no such heap.
pub fn map_large_allocations() {
    #[cfg(target_env = "gnu")]
    for (what, bytes) in [(libc::M_MMAP_THRESHOLD, LARGE), (libc::M_TRIM_THRESHOLD, KEPT)] {
        // SAFETY: it takes two numbers and no pointer, and may be called at any time by any thread (mallopt(3)).
        let taken = unsafe { libc::mallopt(what, bytes) };
        debug_assert_eq!(taken, 1, "the allocator takes option {what}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether this process has a mapping that begins within the page before this address: an allocation of its own.
    fn has_a_mapping_of_its_own(bytes: &[u8]) -> bool {
        let at = bytes.as_ptr() as usize;
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        let begins = |line: &str| usize::from_str_radix(line.split('-').next()?, 16).ok();
        // Neighbouring mappings may be told as one, so what is asked is that the heap isn't where it lies.
        let holds = |line: &&str| {
            let end = line.split(['-', ' ']).nth(1).and_then(|end| usize::from_str_radix(end, 16).ok());
            begins(line).is_some_and(|begin| begin <= at) && end.is_some_and(|end| at < end)
        };
        maps.lines().find(holds).is_some_and(|line| !line.contains("[heap]"))
    }

    #[test]
    fn what_is_large_is_a_mapping_even_after_something_larger_was_freed() {
        map_large_allocations();
        drop(std::hint::black_box(vec![1u8; 16 << 20]));
        assert!(has_a_mapping_of_its_own(&std::hint::black_box(vec![1u8; 2 << 20])));
    }
}

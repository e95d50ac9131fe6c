//! Mappings: the memory of a region (which stays) and of a ring (which goes with its socket).

use std::io;
use std::ops::Range;
use std::os::fd::BorrowedFd;
use std::ptr::NonNull;

use crate::syscall;

/// Bytes of a huge page; the only size tried.
const HUGE_PAGE: usize = 2 << 20;
/// Bytes of an ordinary page, as AF_XDP counts them (`xdp_umem_reg` wants page alignment).
const SMALL_PAGE: usize = 4096;
/// Addresses kept free on either side of a region. A worker's frames are those at its edge, and a processor that has seen it go
/// through them asks for what would come next: where that was another worker's stack, the other did half its work.
const APART: usize = HUGE_PAGE;

/// Which pages hold a region.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pages {
    /// 2 MiB pages: fewer TLB misses on our side; the kernel pins 4 KiB pages either way.
    Huge,
    /// 4 KiB pages.
    Small,
}

impl std::fmt::Display for Pages {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Huge => "2 MiB pages",
            Self::Small => "4 KiB pages",
        })
    }
}

/// Maps a region's memory for the rest of the process's life. With `huge`, 2 MiB pages are tried first.
///
/// Returns the start, the length rounded up to whole pages, and which pages they are.
pub(crate) fn map_for_ever(len: usize, huge: bool) -> io::Result<(NonNull<u8>, Pages)> {
    if huge && let Ok(start) = syscall::map_anonymous(len.next_multiple_of(HUGE_PAGE), APART, true) {
        return Ok((start, Pages::Huge));
    }
    let bytes = len.next_multiple_of(SMALL_PAGE);
    let start = syscall::map_anonymous(bytes, APART, false)?;
    // Transparent ones may be had without being set aside. How many there are nobody need know.
    prefer_huge_pages(start.addr().get()..start.addr().get() + bytes);
    Ok((start, Pages::Small))
}

/// Asks for 2 MiB pages where a table lies: where its look-ups go, nobody foresees, and so few small pages are known to a core
/// that each look-up waits for its page, too. What is asked for is a matter of speed only, so nobody is told what became of it;
/// memory between the first and the last huge page's border is all that can have them. `memory`: addresses.
///
/// Linux before 6.1 gathers small pages in its own time, later ones at once.
pub fn prefer_huge_pages(memory: Range<usize>) {
    let (start, end) = (memory.start.next_multiple_of(HUGE_PAGE), memory.end / HUGE_PAGE * HUGE_PAGE);
    if start < end && syscall::advise(start..end, libc::MADV_HUGEPAGE).is_ok() {
        // Pages that are there already, as many as there is room for.
        let _ = syscall::advise(start..end, libc::MADV_COLLAPSE);
    }
}

/// One ring of one socket, mapped. Unmapped when dropped.
///
/// A ring's mapping keeps its socket open in the kernel, so dropping it is part of closing a socket.
#[derive(Debug)]
pub(crate) struct RingMapping {
    start: NonNull<u8>,
    len: usize,
}

impl RingMapping {
    pub(crate) fn new(socket: BorrowedFd<'_>, len: usize, offset: u64) -> io::Result<Self> {
        Ok(Self { start: syscall::map_ring(socket, len, offset)?, len })
    }

    pub(crate) fn start(&self) -> NonNull<u8> {
        self.start
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }
}

impl Drop for RingMapping {
    fn drop(&mut self) {
        // SAFETY: `start` and `len` are those of the mapping this value alone owns; the ring that points into it
        // owns this value and can't be used after it.
        unsafe { syscall::unmap(self.start, self.len) }
    }
}

// SAFETY: a mapping belongs to the process, not to a thread, and this value is its only owner.
unsafe impl Send for RingMapping {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_lies_next_to_a_region() {
        let (start, _) = map_for_ever(3 * SMALL_PAGE, false).unwrap();
        let region = start.addr().get()..start.addr().get() + 3 * SMALL_PAGE;
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        // proc_pid_maps(5): a range of addresses and what may be done there.
        let nothing = maps.lines().filter_map(|line| {
            let (range, rest) = line.split_once(' ')?;
            let (from, to) = range.split_once('-')?;
            let [from, to] = [from, to].map(|address| usize::from_str_radix(address, 16).unwrap());
            rest.starts_with("---p").then_some(from..to)
        });
        let nothing: Vec<_> = nothing.collect();
        assert!(nothing.iter().any(|range| range.end == region.start && range.len() >= APART), "{maps}");
        assert!(nothing.iter().any(|range| range.start == region.end && range.len() >= APART), "{maps}");
    }

    #[test]
    fn what_lies_in_memory_stays_whatever_pages_it_gets() {
        let memory: Vec<u64> = (0..4 * HUGE_PAGE as u64 / 8).collect();
        let start = memory.as_ptr().addr();
        for (first, last) in [(0, size_of_val(&*memory)), (100, HUGE_PAGE + 7), (8, 8), (64, 0)] {
            prefer_huge_pages(start + first..start + last);
        }
        assert!(memory.iter().zip(0..).all(|(word, number)| *word == number));
        // Memory that nobody has.
        prefer_huge_pages(HUGE_PAGE..3 * HUGE_PAGE);
    }
}

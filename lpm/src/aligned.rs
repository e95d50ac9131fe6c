//! Arrays that begin where a huge page may: whoever asks the kernel for huge pages gets them from the first word on.

use bytemuck::Zeroable;
use bytemuck::allocation::zeroed_slice_box;
use std::ops::{Deref, Range};

/// Bytes of a huge page.
const HUGE_PAGE: usize = 2 << 20;

/// Cells in memory that begins at a huge page's border, wherever the allocator gave it, and has the last page for itself.
pub(crate) struct Aligned<T> {
    memory: Box<[T]>,
    start: usize,
    len: usize,
}

impl<T: Zeroable> Aligned<T> {
    /// Asked for as zeroed memory and not written: the kernel gives a page when it is first touched, not before.
    pub(crate) fn zeroed(len: usize) -> Aligned<T> {
        let page = HUGE_PAGE / size_of::<T>();
        let memory: Box<[T]> = zeroed_slice_box(len.next_multiple_of(page) + page);
        // Where the allocator's block begins is its own affair; it may also decline to say, and then it is as it is.
        let start = memory.as_ptr().align_offset(HUGE_PAGE).min(page);
        Aligned { memory, start, len }
    }

    /// The addresses of its pages.
    pub(crate) fn place(&self) -> Range<usize> {
        let place = self.memory[self.start..].as_ptr_range();
        place.start.addr()..place.end.addr()
    }

    /// Bytes that are reserved.
    pub(crate) fn bytes(&self) -> usize {
        size_of_val(&*self.memory)
    }
}

impl<T> Deref for Aligned<T> {
    type Target = [T];

    #[inline(always)]
    fn deref(&self) -> &[T] {
        &self.memory[self.start..][..self.len]
    }
}

/// The addresses at which an array lies.
pub(crate) fn place_of<T>(array: &[T]) -> Range<usize> {
    let place = array.as_ptr_range();
    place.start.addr()..place.end.addr()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU32;

    use super::*;

    #[test]
    fn it_is_as_long_as_asked_for_and_begins_at_a_huge_page() {
        for len in [1, 1000, 1 << 19, (1 << 19) + 1] {
            let words = Aligned::<AtomicU32>::zeroed(len);
            assert_eq!(words.len(), len);
            assert_eq!(words.as_ptr().addr() % HUGE_PAGE, 0);
            assert_eq!(words.place().start, words.as_ptr().addr());
            assert!(words.place().len() >= len.next_multiple_of(1 << 19) * 4, "the last page is whole");
            assert!(words.bytes() >= words.place().len());
        }
    }
}

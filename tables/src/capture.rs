//! Copies of frames that pass, for somebody who wants to look at them, and what stands between them and the workers.
//!
//! A worker looks at one flag a batch. Where it is set, frames that the filter asks for are copied into buffers that were
//! made when the capture began; what finds none left is counted as missed, and goes its way all the same.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::SystemTime;

use arc_swap::ArcSwapOption;
use crossbeam_queue::ArrayQueue;
use model::PortId;

use crate::{Fate, TraceFilter};

/// Which frames are copied.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CaptureFilter {
    /// What every one of them must be; its port is the one that a frame comes in by.
    pub packet: TraceFilter,
    /// Those that come in, as they come in.
    pub incoming: bool,
    /// Those that leave, as they leave.
    pub outgoing: bool,
    /// Of those that leave, only by this port.
    pub leaves_by: Option<PortId>,
}

/// Which way a frame went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Passage {
    /// In, and how its walk ended.
    In(Fate),
    /// Out: it was given to its port's transmit ring.
    Out,
}

/// A copy of a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Captured {
    /// When.
    pub at: SystemTime,
    /// By which port; `None`: the slow path's own packet, on its way to the walk.
    pub port: Option<PortId>,
    /// Which way.
    pub passage: Passage,
    /// Bytes of the frame.
    pub frame_len: usize,
    /// The first of them.
    pub bytes: Vec<u8>,
}

/// One capture, from its start to its end.
pub struct Capture {
    filter: CaptureFilter,
    empty: ArrayQueue<Vec<u8>>,
    filled: ArrayQueue<Captured>,
    /// Frames that are still wanted.
    left: AtomicU32,
    missed: AtomicU64,
}

impl Capture {
    /// Of so many frames at most, of each so many bytes at most, so many of which may wait.
    fn new(filter: CaptureFilter, frames: u32, bytes_max: usize, waiting: usize) -> Capture {
        let empty = ArrayQueue::new(waiting);
        while empty.push(Vec::with_capacity(bytes_max)).is_ok() {}
        let filled = ArrayQueue::new(waiting);
        Capture { filter, empty, filled, left: AtomicU32::new(frames), missed: AtomicU64::new(0) }
    }

    /// Which frames it is of.
    pub fn filter(&self) -> &CaptureFilter {
        &self.filter
    }

    /// A buffer with the frame's first bytes; `None` where there is none free, and the frame is missed.
    pub fn copy(&self, frame: &[u8]) -> Option<Vec<u8>> {
        let Some(mut bytes) = self.empty.pop() else {
            self.missed.fetch_add(1, Ordering::Relaxed);
            return None;
        };
        let len = frame.len().min(bytes.capacity());
        bytes.extend_from_slice(&frame[..len]);
        Some(bytes)
    }

    /// Takes a buffer of [`Self::copy`] back.
    pub fn give_back(&self, mut bytes: Vec<u8>) {
        bytes.clear();
        // There are as many places as buffers.
        let _ = self.empty.push(bytes);
    }

    /// Keeps a copy for who asked, in a buffer of [`Self::copy`]; unless it has all it wanted.
    pub fn put(&self, captured: Captured) {
        let one_less = |left: u32| left.checked_sub(1);
        let wanted = self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less).is_ok();
        let refused = if wanted { self.filled.push(captured).err() } else { Some(captured) };
        if let Some(captured) = refused {
            self.give_back(captured.bytes);
        }
    }

    /// Hands the oldest copy to `read`; `None` where none waits.
    pub fn take<R>(&self, read: impl FnOnce(&Captured) -> R) -> Option<R> {
        let captured = self.filled.pop()?;
        let said = read(&captured);
        self.give_back(captured.bytes);
        Some(said)
    }

    /// Has it all it wanted?
    pub fn is_complete(&self) -> bool {
        self.left.load(Ordering::Relaxed) == 0
    }

    /// Frames that the filter asks for, and that there was no buffer for.
    pub fn missed(&self) -> u64 {
        self.missed.load(Ordering::Relaxed)
    }
}

struct Shared {
    is_on: AtomicBool,
    capture: ArcSwapOption<Capture>,
}

/// A handle of what is being captured: one thing at a time, or nothing. Cheap to clone.
#[derive(Clone)]
pub struct Capturing(Arc<Shared>);

impl Capturing {
    /// Nothing is captured yet.
    #[allow(clippy::new_without_default, reason = "a second one of these is a mistake, not a default")]
    pub fn new() -> Capturing {
        Capturing(Arc::new(Shared { is_on: AtomicBool::new(false), capture: ArcSwapOption::empty() }))
    }

    /// Bytes that a capture takes while it lasts.
    pub fn bytes(bytes_max: usize, waiting: usize) -> usize {
        waiting * (bytes_max + size_of::<Vec<u8>>() + size_of::<Captured>())
    }

    /// Captures from every worker's next batch on, and nothing else any more: at most `frames`, of each at most `bytes_max`
    /// bytes, of which `waiting` may wait to be looked at.
    ///
    /// # Panics
    /// Where none may wait.
    pub fn start(
        &self,
        filter: CaptureFilter,
        frames: u32,
        bytes_max: usize,
        waiting: usize,
    ) -> Arc<Capture> {
        let capture = Arc::new(Capture::new(filter, frames, bytes_max, waiting));
        self.0.capture.store(Some(Arc::clone(&capture)));
        self.0.is_on.store(true, Ordering::Release);
        capture
    }

    /// Captures nothing any more.
    pub fn stop(&self) {
        self.0.is_on.store(false, Ordering::Release);
        self.0.capture.store(None);
    }

    /// What is being captured. What a worker asks once a batch: mostly a flag and nothing more.
    #[inline]
    pub fn current(&self) -> Option<Arc<Capture>> {
        if self.0.is_on.load(Ordering::Acquire) { self.wanting() } else { None }
    }

    #[cold]
    fn wanting(&self) -> Option<Arc<Capture>> {
        self.0.capture.load_full().filter(|capture| !capture.is_complete())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn captured(bytes: Vec<u8>) -> Captured {
        let frame_len = bytes.len();
        Captured { at: SystemTime::UNIX_EPOCH, port: None, passage: Passage::Out, frame_len, bytes }
    }

    #[test]
    fn buffers_go_round_and_what_finds_none_is_missed() {
        let capture = Capturing::new().start(CaptureFilter::default(), 9, 4, 2);
        let first = capture.copy(b"longer than four").unwrap();
        assert_eq!(first, b"long");
        let second = capture.copy(b"two").unwrap();
        assert_eq!((capture.copy(b"three"), capture.missed()), (None, 1));
        capture.give_back(second);
        capture.put(captured(first));
        assert_eq!(capture.take(|captured| captured.bytes.clone()), Some(b"long".to_vec()));
        assert_eq!(capture.take(|_| ()), None);
        assert_eq!(capture.copy(b"a").zip(capture.copy(b"b")), Some((b"a".to_vec(), b"b".to_vec())));
    }

    #[test]
    fn a_capture_is_over_when_it_has_what_it_wanted_or_another_begins() {
        let capturing = Capturing::new();
        assert!(capturing.current().is_none());
        let first = capturing.start(CaptureFilter::default(), 1, 4, 2);
        assert!(capturing.current().is_some());
        for _ in 0..2 {
            first.put(captured(first.copy(b"one").unwrap()));
        }
        assert!(first.is_complete() && capturing.current().is_none());
        assert_eq!((first.take(|_| ()), first.take(|_| ())), (Some(()), None), "one was wanted");
        capturing.start(CaptureFilter::default(), 1, 4, 2);
        assert!(capturing.current().is_some_and(|capture| !Arc::ptr_eq(&capture, &first)));
        capturing.stop();
        assert!(capturing.current().is_none());
    }
}

//! AF_XDP: memory for frames, the rings of a NIC queue, and the XDP program that feeds them.
//!
//! **What this room is for.** Frames come from a NIC's receive queue into our memory and leave through its transmit
//! queue, past the kernel's stack but not past the kernel: the NIC stays an ordinary interface, and what the XDP
//! program doesn't take goes where it always went.
//!
//! **How things pass through it.** A [`Region`] is memory cut into chunks; its [`FramePool`] hands each out as a
//! [`Frame`]. A [`UmemSet`] binds [`Queue`]s to it. A worker's turn is `refill`, `receive`, its own work, `transmit`,
//! `wake`, `reap`; frames move by value all the way.
//!
//! ```text
//!   FramePool -refill-> Queue ~~kernel~~> Queue -receive-> Vec<Frame> -transmit-> Queue ~~> Queue -reap-> FramePool
//! ```
//! A packet above a chunk comes in pieces, which `receive` puts together in a frame of neighbouring chunks ([`LargeFrames`])
//! and `transmit` sends from there: whoever holds a frame holds all of a packet.
//!
//! A [`Program`] decides which frames reach a queue, and what happens to them when there is no socket: an uplink's go
//! to the kernel, a workload's are dropped. It stays attached when the process dies.
//!
//! **What it promises.** No safe call can make two owners of a chunk, reach beyond it, or use memory after it is
//! gone: a region is never unmapped, a `Frame` can't be copied, and what the kernel returns is believed only if this
//! very queue had lent it. Every frame is accounted for: `pool.lent()` equals what queues and callers hold.
//! [`Queue`]'s daily calls don't allocate (`receive` and `reap` into vectors with room) and make no system call but
//! `wake`'s. What was asked for and what was really got are different types.
//!
//! **What it never does.** Parse a packet, know a route, touch an XDP program that isn't ours, or unmap a frame.
//! Encapsulation is [`Frame::grow_front`]: the room in front of a received frame ([`HEADROOM`] bytes) makes it free.
//!
//! ```
//! use afxdp::{Region, RegionConfig};
//!
//! let (_region, mut pool) = Region::new(RegionConfig { frames: 16, chunk_size: 2048, large: None, hugepages: false })?;
//! let mut frame = pool.take().expect("sixteen frames are free");
//! frame.copy_from(b"inner")?;
//! frame.grow_front(6)?; // no copy: the frame begins earlier
//! frame.bytes_mut()[..6].copy_from_slice(b"outer ");
//! assert_eq!(frame.bytes(), b"outer inner");
//! pool.put(frame);
//! assert_eq!(pool.lent(), 0);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! A worker that sends every frame back where it came from:
//!
//! ```no_run
//! use std::os::fd::AsFd;
//! use std::time::Duration;
//!
//! use afxdp::{AttachRequest, Program, ProgramKind, Steering, QueueConfig, Region, RegionConfig, UmemSet};
//!
//! let ifindex = afxdp::interface_index("veth0")?;
//! let (region, mut pool) = Region::new(RegionConfig { frames: 8192, chunk_size: 2048, large: None, hugepages: true })?;
//! let program = Program::load(ProgramKind::Workload, 1)?;
//! println!("{}", program.attach(ifindex, AttachRequest::Auto)?);
//! let (mut queue, report) = UmemSet::new(region).bind(QueueConfig::new(ifindex, 0))?;
//! println!("{report}");
//! program.set_socket(0, &queue)?;
//!
//! let mut batch = Vec::with_capacity(64);
//! loop {
//!     queue.refill(&mut pool);
//!     queue.receive(&mut pool, &mut batch, 64);
//!     queue.transmit(&mut batch);
//!     batch.drain(..).for_each(|frame| pool.put(frame)); // the ring was full: counted as a drop elsewhere
//!     queue.wake()?;
//!     if queue.reap(&mut pool) == 0 {
//!         afxdp::wait(&[queue.as_fd()], Duration::from_millis(10))?;
//!     }
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Needs Linux 5.14 (to prove that a closed queue's frames are free) and CAP_NET_ADMIN, CAP_NET_RAW, CAP_BPF, and
//! CAP_IPC_LOCK or a memory-lock limit above the region's size. Memory alone ([`Region`]) needs none of it.
// Each block names its invariant.
#![allow(unsafe_code, reason = "the one room of it: mappings, rings shared with the kernel, system calls")]

// Memory.
mod frame;
mod lending;
mod mmap;
mod pool;
mod region;

// A queue: four rings of a socket, from bind to release.
mod assembly;
mod queue;
mod release;
mod ring;
mod socket;
mod statistics;
mod umem;
mod virtio;

// The XDP program and the interface it is attached to.
mod attach;
mod bpf;
mod delivery;
mod features;
mod hardware;
mod map;
mod program;

// What is asked, what was got, and whom to blame.
mod holder;
mod report;

// What BGP's TCP sockets and BFD's thread need of the kernel, and no safe crate has.
mod precedence;
mod session_guard;

// What the program needs of the C library's allocator, and no safe crate has.
mod heap;

// The kernel's side of the wall.
mod abi;
mod netlink;
mod syscall;

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

pub use attach::{Attach, AttachError, AttachReport, AttachRequest, Attached, attached, detach};
pub use delivery::Delivery;
pub use features::{DeviceFeatures, interface_index, set_tx_checksum, tx_checksum};
pub use frame::{Frame, HEADROOM, NoRoom};
pub use hardware::{NicQueues, NicRings};
pub use heap::map_large_allocations;
pub use mmap::{Pages, prefer_huge_pages};
pub use pool::FramePool;
pub use precedence::come_first;
pub use program::{
    LOCAL_ADDRESSES_MAX, Program, ProgramError, ProgramKind, Steering, TUNNELS_MAX, TunnelKind,
};
pub use queue::{Queue, Sleeper, wait};
pub use region::{LargeFrames, Region, RegionConfig, RegionError};
pub use release::{Closed, Closing};
pub use report::{
    Attempt, BindError, BindReport, BusyPoll, BusyPollOutcome, Holder, Mode, ModeRequest, QueueConfig,
};
pub use session_guard::{TCP_KEY_MAX, keep_syns, set_min_ttl, set_tcp_md5_key, take_syn_ttl};
pub use socket::{RingSizes, Step};
pub use statistics::{Outstanding, QueueCounters, XdpStatistics};
pub use umem::UmemSet;

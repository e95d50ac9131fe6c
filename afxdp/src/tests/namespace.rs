//! A network namespace of one's own, and a plain packet socket in it.
//!
//! The namespace has no name and belongs to the test's thread: the kernel removes it, and every interface in it, when
//! the thread ends, however it ends.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::thread::{CpuSet, sched_getcpu, sched_setaffinity};

use crate::{FramePool, LargeFrames, Queue, QueueConfig, Region, RegionConfig, syscall};

/// Longer than any machine is busy with something else; nothing waits this long when it works.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

/// Runs a test in a new network namespace, or prints why it can't.
pub(super) fn in_namespace(test: impl FnOnce() + Send + 'static) {
    let thread = std::thread::spawn(move || {
        // SAFETY: unshare() with a plain flag; it changes only this thread's view of the network.
        if unsafe { libc::unshare(libc::CLONE_NEWNET) } != 0 {
            println!("skipped: no network namespace to be had ({})", io::Error::last_os_error());
            return;
        }
        // No router solicitations and the like among the frames that are counted.
        let _ = std::fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1");
        test();
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

/// Makes the calling thread, and only it, nobody in particular. There is no way back: the last act of a test.
pub(super) fn drop_privileges() {
    const NOBODY: libc::uid_t = 65534;
    // SAFETY: plain integers. The raw call changes this thread alone, as credentials do in Linux; libc's own wrapper
    // would change all threads.
    let done = unsafe { libc::syscall(libc::SYS_setresuid, NOBODY, NOBODY, NOBODY) };
    assert_eq!(done, 0, "{}", io::Error::last_os_error());
}

/// Runs `ip` in the thread's namespace.
pub(super) fn ip(arguments: &str) {
    let status =
        Command::new("ip").args(arguments.split_whitespace()).status().expect("iproute2 is installed");
    assert!(status.success(), "ip {arguments}");
}

/// Keeps the calling thread on the core that it is on. For tests of order where the kernel's stack receives at the far end:
/// it has a backlog for each core, so what is sent from one core may overtake what was sent from another.
pub(super) fn stay_on_one_core() {
    let mut one = CpuSet::new();
    one.set(sched_getcpu());
    sched_setaffinity(None, &one).unwrap();
}

/// What to ask of a queue, with as much patience as everything else here has: a queue that is busy, and frames that the kernel
/// doesn't give back, are told of after that.
pub(super) fn queue(ifindex: u32, queue: u32) -> QueueConfig {
    QueueConfig { bind_retry: PATIENCE, ..QueueConfig::new(ifindex, queue) }
}

/// A veth pair, both ends up; returns their indices.
pub(super) fn veth(one: &str, other: &str, queues: u32) -> (u32, u32) {
    let queues = format!("numrxqueues {queues} numtxqueues {queues}");
    ip(&format!("link add dev {one} {queues} type veth peer name {other} {queues}"));
    ip(&format!("link set dev {one} up"));
    ip(&format!("link set dev {other} up"));
    (crate::interface_index(one).unwrap(), crate::interface_index(other).unwrap())
}

/// A region of 2048-byte chunks.
pub(super) fn region(frames: u32) -> (Region, FramePool) {
    Region::new(RegionConfig { frames, chunk_size: 2048, large: None, hugepages: false }).unwrap()
}

/// A region of 4096-byte chunks whose large frames have three of them: as for an MTU of 9000.
pub(super) fn large_region(frames: u32, count: u32) -> (Region, FramePool) {
    let large = Some(LargeFrames { count, chunks: 3 });
    Region::new(RegionConfig { frames, chunk_size: 4096, large, hugepages: false }).unwrap()
}

/// Ethernet frame number `n` with `len` bytes: a locally administered source, an unassigned EtherType, a pattern.
pub(super) fn numbered(n: u32, len: usize) -> Vec<u8> {
    let mut bytes: Vec<u8> = (0..len).map(|at| (at as u32).wrapping_mul(7).wrapping_add(n) as u8).collect();
    bytes[..14].copy_from_slice(&[0x02, 0, 0, 0, 0, 2, 0x02, 0, 0, 0, 0, 1, 0x88, 0xb5]);
    bytes[14..18].copy_from_slice(&n.to_be_bytes());
    bytes
}

/// Tries again until it gives something, or a lot of time has passed.
pub(super) fn eventually<T>(mut attempt: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(value) = attempt() {
            return Some(value);
        }
        if Instant::now() > deadline {
            return None;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Receives until `count` frames have come, and gives copies of their bytes; the frames go back to the pool.
pub(super) fn collect(queue: &mut Queue, pool: &mut FramePool, count: usize) -> Vec<Vec<u8>> {
    let mut copies = Vec::new();
    let mut frames = Vec::new();
    eventually(|| {
        queue.refill(pool);
        queue.wake().unwrap();
        queue.receive(pool, &mut frames, 64);
        for frame in frames.drain(..) {
            copies.push(frame.bytes().to_vec());
            pool.put(frame);
        }
        (copies.len() >= count).then_some(())
    });
    copies
}

/// An AF_PACKET socket on one interface: the far end of a wire, as the kernel's stack would use it.
pub(super) struct Wire {
    fd: OwnedFd,
}

impl Wire {
    pub(super) fn new(ifindex: u32) -> Self {
        let every_protocol = (libc::ETH_P_ALL as u16).to_be();
        let fd = syscall::socket(libc::AF_PACKET, libc::SOCK_RAW, i32::from(every_protocol)).unwrap();
        // SAFETY: an all-zero sockaddr_ll is valid.
        let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_protocol = every_protocol;
        address.sll_ifindex = ifindex as i32;
        // SAFETY: `address` is a whole sockaddr_ll.
        let bound = unsafe {
            libc::bind(
                fd.as_raw_fd(),
                std::ptr::from_ref(&address).cast(),
                size_of::<libc::sockaddr_ll>() as libc::socklen_t,
            )
        };
        assert_eq!(bound, 0, "{}", io::Error::last_os_error());
        syscall::set_option(fd.as_fd(), libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, &(8u32 << 20)).unwrap();
        Self { fd }
    }

    pub(super) fn send(&self, frame: &[u8]) {
        syscall::send(self.fd.as_fd(), frame).unwrap();
    }

    /// The next frame of those this test sends (the EtherType of [`numbered`], or the outer bytes put before it), if
    /// one is there.
    pub(super) fn try_receive(&self) -> Option<Vec<u8>> {
        let mut buffer = vec![0; 16 << 10];
        let len = syscall::receive(self.fd.as_fd(), &mut buffer, libc::MSG_DONTWAIT).ok()?;
        buffer.truncate(len);
        Some(buffer)
    }

    pub(super) fn receive(&self) -> Option<Vec<u8>> {
        eventually(|| self.try_receive())
    }
}

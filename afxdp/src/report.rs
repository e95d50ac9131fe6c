//! What was asked of a queue, what it really got, and why it can't be had.

use std::fmt;
use std::io;
use std::time::Duration;

use crate::mmap::Pages;
use crate::socket::{RingSizes, Step};

/// How frames pass between the NIC and the region.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mode {
    /// The NIC reads and writes the region itself.
    ZeroCopy,
    /// The kernel copies.
    Copy,
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ZeroCopy => "zero-copy",
            Self::Copy => "copy",
        })
    }
}

/// Which mode to bind in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ModeRequest {
    /// Zero copy if the driver can, else copy; the report tells.
    Auto,
    /// Zero copy, or fail.
    ZeroCopy,
    /// Copy, even where the driver could do better.
    Copy,
}

impl ModeRequest {
    /// The mode to try, and another if that can't be had.
    pub(crate) fn modes(self) -> (Mode, Option<Mode>) {
        match self {
            Self::Auto => (Mode::ZeroCopy, Some(Mode::Copy)),
            Self::ZeroCopy => (Mode::ZeroCopy, None),
            Self::Copy => (Mode::Copy, None),
        }
    }
}

/// Preferred busy polling: the worker's own system calls drive the NIC's queue, instead of interrupts.
///
/// Works only with `napi_defer_hard_irqs` and `gro_flush_timeout` set on the interface, and not with every driver: the kernel
/// must know which NAPI a queue has (`netif_queue_set_napi`, on recent ones), and veth doesn't say. Where it doesn't work,
/// interrupts go on, deferred as set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BusyPoll {
    /// How long one system call may poll, in microseconds (`SO_BUSY_POLL`).
    pub usecs: u32,
    /// Packets one poll may take (`SO_BUSY_POLL_BUDGET`); more than 8 needs CAP_NET_ADMIN.
    pub budget: u32,
}

/// What is asked of one queue.
#[derive(Clone, Copy, Debug)]
pub struct QueueConfig {
    /// The interface, in the network namespace of the thread that binds.
    pub ifindex: u32,
    /// The queue, from 0.
    pub queue: u32,
    /// Zero copy or copy.
    pub mode: ModeRequest,
    /// Descriptors in each ring: powers of two up to 2^20.
    pub rings: RingSizes,
    /// Let the kernel sleep until kicked (`XDP_USE_NEED_WAKEUP`). Always, unless measuring.
    pub need_wakeup: bool,
    /// Frames one system call may send in copy mode (`XDP_MAX_TX_SKB_BUDGET`): 32 to `rings.tx`. Kernels before 6.18
    /// don't have it; the report tells.
    pub tx_budget: Option<u32>,
    /// Busy polling; the report tells whether the kernel agreed.
    pub busy_poll: Option<BusyPoll>,
    /// How long to try again while the queue is busy, as it is for a moment after another process closed it or died.
    pub bind_retry: Duration,
}

impl QueueConfig {
    /// A queue as workers use it: any mode, rings of 2048 with a fill ring of 4096, wake-ups on need, and two seconds
    /// for a crashed predecessor to be cleared away.
    pub fn new(ifindex: u32, queue: u32) -> Self {
        Self {
            ifindex,
            queue,
            mode: ModeRequest::Auto,
            rings: RingSizes { rx: 2048, tx: 2048, fill: 4096, completion: 2048 },
            need_wakeup: true,
            tx_budget: Some(256),
            busy_poll: None,
            bind_retry: Duration::from_secs(2),
        }
    }

    pub(crate) fn check(&self) -> Result<(), BindError> {
        let rings = [
            ("rx", self.rings.rx),
            ("tx", self.rings.tx),
            ("fill", self.rings.fill),
            ("completion", self.rings.completion),
        ];
        for (ring, size) in rings {
            if !size.is_power_of_two() || size > 1 << 20 {
                return Err(BindError::RingSize { ring, size });
            }
        }
        Ok(())
    }
}

/// What became of busy polling.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BusyPollOutcome {
    /// Not asked for.
    Off,
    /// As asked.
    On,
    /// The kernel refused, with this errno; interrupts drive the queue.
    Refused(i32),
    /// Left off, for with this driver what is sent would wait for ever; interrupts drive the queue.
    Unsuited,
}

/// One try that failed on the way to the mode a queue got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// The mode tried.
    pub mode: Mode,
    /// Whether packets above a chunk were asked for.
    pub in_pieces: bool,
    /// Whether it was to share an existing registration of the region.
    pub shared: bool,
    /// What failed.
    pub step: Step,
    /// What the kernel said.
    pub errno: i32,
}

/// What a queue really got.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BindReport {
    /// The interface's name, or `#index` if it has none here.
    pub interface: String,
    /// Its index.
    pub ifindex: u32,
    /// The queue.
    pub queue: u32,
    /// The mode the kernel says it is in.
    pub mode: Mode,
    /// Whether packets above a chunk come, in pieces that the queue puts together.
    pub in_pieces: bool,
    /// Bytes of the longest frame that can be received.
    pub receivable: u32,
    /// Whether the kernel sleeps until kicked.
    pub need_wakeup: bool,
    /// Whether it shares a registration of the region with an earlier queue. `false`: this one registered it (again).
    pub shared: bool,
    /// Frames one system call may send in copy mode, if that is the mode and the kernel let it be set.
    pub tx_budget: Option<u32>,
    /// What became of busy polling.
    pub busy_poll: BusyPollOutcome,
    /// The pages the region is made of.
    pub pages: Pages,
    /// Tries that failed before, in order.
    pub attempts: Vec<Attempt>,
    /// What to do about them, where it is known.
    pub advice: Option<&'static str>,
    /// How long the queue was busy before it could be had.
    pub waited: Duration,
}

impl fmt::Display for BindReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} queue {}: {} mode, ", self.interface, self.queue, self.mode)?;
        f.write_str(if self.shared { "shared registration, " } else { "own registration, " })?;
        write!(f, "{}, wake-up {}", self.pages, if self.need_wakeup { "on need" } else { "always" })?;
        write!(f, ", frames of up to {} bytes", self.receivable)?;
        f.write_str(if self.in_pieces { " in pieces" } else { "" })?;
        match (self.mode, self.tx_budget) {
            (Mode::Copy, Some(budget)) => write!(f, ", up to {budget} frames a send")?,
            (Mode::Copy, None) => f.write_str(", 32 frames a send")?,
            // The driver takes what its own ring holds.
            (Mode::ZeroCopy, _) => {}
        }
        match self.busy_poll {
            BusyPollOutcome::Off => {}
            BusyPollOutcome::On => f.write_str(", busy polling")?,
            BusyPollOutcome::Refused(errno) => {
                write!(f, ", busy polling refused ({})", io::Error::from_raw_os_error(errno))?;
            }
            BusyPollOutcome::Unsuited => f.write_str(", busy polling left off, the driver wouldn't send")?,
        }
        if !self.waited.is_zero() {
            write!(f, ", after waiting {} ms for the queue", self.waited.as_millis())?;
        }
        for (number, attempt) in self.attempts.iter().enumerate() {
            // Shared first, then alone: the same answer twice is told once.
            let again = |earlier: &Attempt| Attempt { shared: attempt.shared, ..*earlier } == *attempt;
            if !self.attempts[..number].iter().any(again) {
                let reason = io::Error::from_raw_os_error(attempt.errno);
                let in_pieces = if attempt.in_pieces { " in pieces" } else { "" };
                write!(f, "; {}{in_pieces} failed {}: {reason}", attempt.mode, attempt.step)?;
            }
        }
        if let Some(advice) = self.advice {
            write!(f, "; {advice}")?;
        }
        Ok(())
    }
}

/// Who seems to hold a queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// Process id.
    pub pid: u32,
    /// Its name, from /proc.
    pub name: String,
}

fn named(holder: &Option<Holder>) -> String {
    match holder {
        Some(holder) => format!("held by {} (pid {})", holder.name, holder.pid),
        None => "held by another process, or not yet released by one that ended".into(),
    }
}

/// Why a queue can't be had.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Ring sizes are powers of two.
    #[error("the {ring} ring can't have {size} slots: a power of two up to 1048576 is needed")]
    RingSize {
        /// Which ring.
        ring: &'static str,
        /// The size asked for.
        size: u32,
    },
    /// This set of registrations already has the queue.
    #[error("queue {queue} of {interface} is already bound here; one queue takes one socket")]
    AlreadyBound {
        /// The interface's name, or `#index` if it has none here.
        interface: String,
        /// The queue.
        queue: u32,
    },
    /// Too many queues were dropped without being closed.
    #[error("the region has no queue numbers left: queues were dropped without close()")]
    TooManyQueues,
    /// The kernel has no AF_XDP, or one older than Linux 5.4.
    #[error("{step}: this kernel lacks AF_XDP (CONFIG_XDP_SOCKETS) or is older than Linux 5.4")]
    NoAfXdp {
        /// What failed.
        step: Step,
    },
    /// Missing privilege.
    #[error(
        "{step}: not permitted; run as root or with CAP_NET_RAW, CAP_NET_ADMIN, CAP_BPF and CAP_IPC_LOCK"
    )]
    NotPermitted {
        /// What failed.
        step: Step,
    },
    /// RLIMIT_MEMLOCK.
    #[error(
        "{step}: locking {bytes} bytes exceeds RLIMIT_MEMLOCK; raise it (ulimit -l) or give CAP_IPC_LOCK"
    )]
    MemoryLock {
        /// What failed.
        step: Step,
        /// Bytes of the region.
        bytes: u64,
    },
    /// Another socket has the queue.
    #[error("queue {queue} of {interface} is busy after {} ms: {}", waited.as_millis(), named(holder))]
    Busy {
        /// The interface's name, or `#index` if it has none here.
        interface: String,
        /// The queue.
        queue: u32,
        /// How long it was tried.
        waited: Duration,
        /// Who holds it, if that can be seen.
        holder: Option<Holder>,
    },
    /// The driver, or the registration to share, can't do the mode.
    #[error("{interface} (driver {}) can't do {mode} mode; ask for copy mode or \"auto\"", driver.as_deref().unwrap_or("unknown"))]
    Unsupported {
        /// The interface's name, or `#index` if it has none here.
        interface: String,
        /// Its driver.
        driver: Option<String>,
        /// The mode asked for.
        mode: Mode,
    },
    /// The interface has fewer queues.
    #[error(
        "{interface} has {queues} receive queue(s), queue {queue} was asked for; queues count from 0 (ethtool -L sets how many)"
    )]
    NoSuchQueue {
        /// The interface's name, or `#index` if it has none here.
        interface: String,
        /// The queue asked for.
        queue: u32,
        /// How many it has.
        queues: u32,
    },
    /// No such interface here.
    #[error("there is no interface {ifindex} in this network namespace")]
    NoInterface {
        /// The index asked for.
        ifindex: u32,
    },
    /// The interface is down.
    #[error("{interface} is down; bring it up first (ip link set ... up)")]
    InterfaceDown {
        /// The interface's name, or `#index` if it has none here.
        interface: String,
    },
    /// Anything else.
    #[error("queue {queue} of {interface}: {step}: {source}{}", advice.map(|advice| format!("; {advice}")).unwrap_or_default())]
    Other {
        /// The interface's name, or `#index` if it has none here.
        interface: String,
        /// The queue.
        queue: u32,
        /// What failed.
        step: Step,
        /// What the kernel said.
        source: io::Error,
        /// What to do about it, where it is known.
        advice: Option<&'static str>,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attempt(shared: bool, errno: i32) -> Attempt {
        Attempt { mode: Mode::ZeroCopy, in_pieces: false, shared, step: Step::Bind, errno }
    }

    fn report(mode: Mode, attempts: Vec<Attempt>) -> String {
        let report = BindReport {
            interface: "eth0".into(),
            ifindex: 2,
            queue: 0,
            mode,
            in_pieces: false,
            receivable: 1792,
            need_wakeup: true,
            shared: false,
            tx_budget: None,
            busy_poll: BusyPollOutcome::Off,
            pages: Pages::Small,
            attempts,
            advice: None,
            waited: Duration::ZERO,
        };
        report.to_string()
    }

    #[test]
    fn a_refusal_with_and_without_sharing_is_told_once() {
        let same = report(Mode::Copy, vec![attempt(true, libc::EINVAL), attempt(false, libc::EINVAL)]);
        assert_eq!(same.matches("zero-copy failed").count(), 1, "{same}");
        let other = report(Mode::Copy, vec![attempt(true, libc::EINVAL), attempt(false, libc::EOPNOTSUPP)]);
        assert_eq!(other.matches("zero-copy failed").count(), 2, "{other}");
    }

    #[test]
    fn how_many_frames_a_send_takes_is_told_of_copy_mode_only() {
        assert!(report(Mode::Copy, Vec::new()).contains("32 frames a send"));
        assert!(!report(Mode::ZeroCopy, Vec::new()).contains("a send"));
    }
}

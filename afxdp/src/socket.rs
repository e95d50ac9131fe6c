//! One AF_XDP socket from creation to bind, step by step, and its rings.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use crate::abi::{self, Descriptor, MmapOffsets, Plain, RingOffset, SockaddrXdp, StatisticsRaw, UmemReg};
use crate::mmap::RingMapping;
use crate::region::Region;
use crate::ring::{Consumer, Producer, Ring};
use crate::syscall;

/// What a bind was doing when it failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Step {
    /// socket(AF_XDP)
    #[error("opening an AF_XDP socket")]
    Open,
    /// XDP_UMEM_REG
    #[error("registering the frames' memory")]
    Register,
    /// XDP_*_RING
    #[error("making the rings")]
    Rings,
    /// mmap of a ring
    #[error("mapping the rings")]
    Map,
    /// bind(2)
    #[error("binding the socket")]
    Bind,
}

/// A failed step and what the kernel said.
#[derive(Debug)]
pub(crate) struct Failed {
    pub(crate) step: Step,
    pub(crate) source: io::Error,
}

impl Failed {
    pub(crate) fn at(step: Step) -> impl Fn(io::Error) -> Self {
        move |source| Self { step, source }
    }

    pub(crate) fn errno(&self) -> i32 {
        self.source.raw_os_error().unwrap_or(0)
    }
}

/// Descriptors in each ring; powers of two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RingSizes {
    /// Received frames waiting for us.
    pub rx: u32,
    /// Frames waiting to be sent.
    pub tx: u32,
    /// Frames waiting to be received into. At least twice the NIC's own RX ring keeps it from starving.
    pub fill: u32,
    /// Sent frames waiting for us. At least `tx`, or sending stalls.
    pub completion: u32,
}

/// The four rings, mapped.
#[derive(Debug)]
pub(crate) struct Rings {
    pub(crate) rx: Consumer<Descriptor>,
    pub(crate) tx: Producer<Descriptor>,
    pub(crate) fill: Producer<u64>,
    pub(crate) completion: Consumer<u64>,
}

/// An AF_XDP socket.
#[derive(Debug)]
pub(crate) struct Socket {
    fd: OwnedFd,
}

impl Socket {
    pub(crate) fn open() -> Result<Self, Failed> {
        let fd = syscall::socket(libc::AF_XDP, libc::SOCK_RAW, 0).map_err(Failed::at(Step::Open))?;
        Ok(Self { fd })
    }

    /// A descriptor that is no AF_XDP socket, for queues whose rings are in plain memory.
    #[cfg(test)]
    pub(crate) fn stand_in() -> Self {
        Self { fd: std::fs::File::open("/dev/null").expect("/dev/null can be opened").into() }
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Registers the region with this socket. The kernel pins the pages for as long as any socket uses them.
    pub(crate) fn register(&self, region: &Region) -> Result<(), Failed> {
        let registration = UmemReg {
            addr: region.address(),
            len: region.len(),
            chunk_size: region.chunk_size(),
            ..UmemReg::default()
        };
        self.set(abi::XDP_UMEM_REG, &registration).map_err(Failed::at(Step::Register))
    }

    /// Makes the four rings and maps them. The kernel wants this before bind.
    pub(crate) fn make_rings(&self, sizes: RingSizes) -> Result<Rings, Failed> {
        for (option, size) in [
            (abi::XDP_UMEM_FILL_RING, sizes.fill),
            (abi::XDP_UMEM_COMPLETION_RING, sizes.completion),
            (abi::XDP_RX_RING, sizes.rx),
            (abi::XDP_TX_RING, sizes.tx),
        ] {
            self.set(option, &size).map_err(Failed::at(Step::Rings))?;
        }
        let (offsets, filled) =
            syscall::get_option::<MmapOffsets>(self.fd(), abi::SOL_XDP, abi::XDP_MMAP_OFFSETS)
                .map_err(Failed::at(Step::Map))?;
        if filled != size_of::<MmapOffsets>() {
            // Before Linux 5.4 the offsets have no flags word.
            return Err(Failed { step: Step::Map, source: io::Error::from_raw_os_error(libc::ENOSYS) });
        }
        Ok(Rings {
            rx: Consumer::new(self.map(abi::XDP_PGOFF_RX_RING, offsets.rx, sizes.rx)?),
            tx: Producer::new(self.map(abi::XDP_PGOFF_TX_RING, offsets.tx, sizes.tx)?),
            fill: Producer::new(self.map(abi::XDP_UMEM_PGOFF_FILL_RING, offsets.fill, sizes.fill)?),
            completion: Consumer::new(self.map(
                abi::XDP_UMEM_PGOFF_COMPLETION_RING,
                offsets.completion,
                sizes.completion,
            )?),
        })
    }

    fn map<T: Plain>(&self, page_offset: u64, offset: RingOffset, size: u32) -> Result<Ring<T>, Failed> {
        let failed = Failed::at(Step::Map);
        let len = offset.desc as usize + size as usize * size_of::<T>();
        let mapping = RingMapping::new(self.fd(), len, page_offset).map_err(&failed)?;
        Ring::in_mapping(mapping, offset, size)
            .ok_or_else(|| failed(io::Error::from_raw_os_error(libc::ENOSYS)))
    }

    /// Binds to a queue. With `shared`, uses that socket's registration, and its flags.
    pub(crate) fn bind(
        &self,
        ifindex: u32,
        queue: u32,
        flags: u16,
        shared: Option<&Socket>,
    ) -> Result<(), Failed> {
        let address = SockaddrXdp {
            family: libc::AF_XDP as u16,
            flags: if shared.is_some() { abi::XDP_SHARED_UMEM } else { flags },
            ifindex,
            queue_id: queue,
            // A descriptor is never negative.
            shared_umem_fd: shared.map_or(0, |socket| socket.fd.as_raw_fd() as u32),
        };
        syscall::bind_xdp(self.fd(), &address).map_err(Failed::at(Step::Bind))
    }

    /// Whether the driver took the socket without copying (`XDP_OPTIONS`).
    pub(crate) fn is_zero_copy(&self) -> io::Result<bool> {
        let (flags, _) = syscall::get_option::<u32>(self.fd(), abi::SOL_XDP, abi::XDP_OPTIONS)?;
        Ok(flags & abi::XDP_OPTIONS_ZEROCOPY != 0)
    }

    /// A number for the network namespace the socket lives in; `None` before Linux 5.14.
    pub(crate) fn namespace(&self) -> Option<u64> {
        syscall::get_option::<u64>(self.fd(), libc::SOL_SOCKET, abi::SO_NETNS_COOKIE)
            .ok()
            .map(|(cookie, _)| cookie)
    }

    pub(crate) fn statistics(&self) -> io::Result<StatisticsRaw> {
        Ok(syscall::get_option(self.fd(), abi::SOL_XDP, abi::XDP_STATISTICS)?.0)
    }

    pub(crate) fn set<T: Plain>(&self, option: i32, value: &T) -> io::Result<()> {
        syscall::set_option(self.fd(), abi::SOL_XDP, option, value)
    }

    pub(crate) fn set_busy_poll(&self, usecs: u32, budget: u32) -> io::Result<()> {
        let set = |option, value: u32| syscall::set_option(self.fd(), libc::SOL_SOCKET, option, &value);
        set(abi::SO_PREFER_BUSY_POLL, 1)?;
        set(abi::SO_BUSY_POLL, usecs)?;
        set(abi::SO_BUSY_POLL_BUDGET, budget)
    }
}

//! Every system call of this room, each as a small safe function (or an unsafe one that says what it asks).
//!
//! Failures are [`io::Error`]; the callers know what was being tried and turn them into typed errors.

use std::ffi::CString;
use std::io;
use std::ops::Range;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr::NonNull;
use std::time::Duration;

use crate::abi::{Plain, SockaddrXdp};

fn check(result: i32) -> io::Result<i32> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

fn check_size(result: isize) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}

/// The calling thread comes before all that are scheduled by the clock (`SCHED_FIFO`, sched(7)), at this priority of 1 to 99;
/// threads and programs that it starts do not.
pub(crate) fn schedule_first(priority: i32) -> io::Result<()> {
    let parameters = libc::sched_param { sched_priority: priority };
    let policy = libc::SCHED_FIFO | libc::SCHED_RESET_ON_FORK;
    // By its number: musl's function of this name only says that it isn't there.
    // SAFETY: the kernel reads the parameters, which outlive the call; 0 is the calling thread.
    let result = unsafe { libc::syscall(libc::SYS_sched_setscheduler, 0, policy, &raw const parameters) };
    check_size(result as isize).map(drop)
}

/// Maps `len` bytes of zeroed private memory, present at once, in 2 MiB pages when `huge`, with addresses of `apart` bytes and
/// more in front of and behind it where nothing lies. Both are multiples of the page; it begins at a multiple of `apart`.
///
/// The region is not inherited by forked children: a child has no business in frames the kernel writes to.
///
/// Addresses stay taken after a failure, and cost no memory: whether the kernel had already made room in their midst isn't
/// told, and another thread may have got it.
pub(crate) fn map_anonymous(len: usize, apart: usize, huge: bool) -> io::Result<NonNull<u8>> {
    let mut flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    let reserved = len + 3 * apart;
    // SAFETY: a new anonymous mapping at an address of the kernel's choice touches no existing memory.
    let around = unsafe {
        libc::mmap(std::ptr::null_mut(), reserved, libc::PROT_NONE, flags | libc::MAP_NORESERVE, -1, 0)
    };
    let inside = (mapped(around)?.addr().get() + apart).next_multiple_of(apart);
    flags |= libc::MAP_POPULATE | libc::MAP_FIXED;
    if huge {
        flags |= libc::MAP_HUGETLB | libc::MAP_HUGE_2MB;
    }
    // SAFETY: it begins less than `2 * apart` behind the start of what was mapped just above, so all of it lies there, where
    // nothing is yet.
    let address = unsafe {
        libc::mmap(around.with_addr(inside), len, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0)
    };
    let start = mapped(address)?;
    // SAFETY: the range was mapped just above; MADV_DONTFORK changes nothing for this process.
    // A failure costs only the copy in children, so it is let go.
    unsafe { libc::madvise(address, len, libc::MADV_DONTFORK) };
    Ok(start)
}

/// Tells the kernel how pages are to be held. `advice` must be one that leaves what lies in them as it is.
pub(crate) fn advise(pages: Range<usize>, advice: libc::c_int) -> io::Result<()> {
    if !matches!(advice, libc::MADV_HUGEPAGE | libc::MADV_COLLAPSE) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // SAFETY: how large the pages are that memory lies in changes nothing for who reads or writes it, whosoever it is; where
    // there is no memory, the call fails.
    check(unsafe { libc::madvise(pages.start as *mut libc::c_void, pages.len(), advice) }).map(drop)
}

/// Maps `len` bytes of a socket's ring, which the kernel reads and writes too.
pub(crate) fn map_ring(socket: BorrowedFd<'_>, len: usize, offset: u64) -> io::Result<NonNull<u8>> {
    let offset = libc::off_t::try_from(offset).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    // SAFETY: a new mapping at an address of the kernel's choice touches no existing memory.
    let address = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            len,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_SHARED | libc::MAP_POPULATE,
            socket.as_raw_fd(),
            offset,
        )
    };
    mapped(address)
}

fn mapped(address: *mut libc::c_void) -> io::Result<NonNull<u8>> {
    if address == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    NonNull::new(address.cast()).ok_or_else(|| io::Error::from(io::ErrorKind::AddrNotAvailable))
}

/// Unmaps what [`map_ring`] mapped.
///
/// # Safety
/// `start` and `len` are exactly those of one live mapping, and nothing refers into it any more.
pub(crate) unsafe fn unmap(start: NonNull<u8>, len: usize) {
    // SAFETY: promised by the caller. munmap of a whole live mapping can't fail.
    unsafe { libc::munmap(start.as_ptr().cast(), len) };
}

/// Opens a close-on-exec socket.
pub(crate) fn socket(domain: i32, kind: i32, protocol: i32) -> io::Result<OwnedFd> {
    // SAFETY: socket() takes plain integers.
    let fd = check(unsafe { libc::socket(domain, kind | libc::SOCK_CLOEXEC, protocol) })?;
    // SAFETY: the kernel just gave us this descriptor; nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// setsockopt with a plain value.
pub(crate) fn set_option<T: Plain>(fd: BorrowedFd<'_>, level: i32, name: i32, value: &T) -> io::Result<()> {
    // SAFETY: `value` is valid for reads of its own size, and `Plain` has no uninitialised bytes.
    check(unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            level,
            name,
            std::ptr::from_ref(value).cast(),
            size_of::<T>() as libc::socklen_t,
        )
    })?;
    Ok(())
}

/// getsockopt of a plain value; the second result is how many bytes the kernel filled.
pub(crate) fn get_option<T: Plain>(fd: BorrowedFd<'_>, level: i32, name: i32) -> io::Result<(T, usize)> {
    let mut value = T::default();
    let mut len = size_of::<T>() as libc::socklen_t;
    // SAFETY: `value` is valid for writes of `len` bytes, and any bytes make a valid `Plain`.
    check(unsafe {
        libc::getsockopt(fd.as_raw_fd(), level, name, std::ptr::from_mut(&mut value).cast(), &mut len)
    })?;
    Ok((value, len as usize))
}

/// Binds an AF_XDP socket.
pub(crate) fn bind_xdp(fd: BorrowedFd<'_>, address: &SockaddrXdp) -> io::Result<()> {
    // SAFETY: `address` is a whole sockaddr_xdp.
    check(unsafe {
        libc::bind(
            fd.as_raw_fd(),
            std::ptr::from_ref(address).cast(),
            size_of::<SockaddrXdp>() as libc::socklen_t,
        )
    })?;
    Ok(())
}

/// Asks the kernel to look at the TX ring.
pub(crate) fn kick_transmit(fd: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: no buffer and no address are passed.
    let sent =
        unsafe { libc::sendto(fd.as_raw_fd(), std::ptr::null(), 0, libc::MSG_DONTWAIT, std::ptr::null(), 0) };
    check_size(sent).map(drop)
}

/// Asks the kernel to look at the fill ring (Linux 5.11 and later), and the driver for packets where the socket is busy
/// polled.
pub(crate) fn kick_receive(fd: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: no buffer and no address are passed.
    let received = unsafe {
        libc::recvfrom(
            fd.as_raw_fd(),
            std::ptr::null_mut(),
            0,
            libc::MSG_DONTWAIT,
            std::ptr::null_mut(),
            std::ptr::null_mut(),
        )
    };
    check_size(received).map(drop)
}

/// poll(2). Returns how many descriptors have something to say; a signal counts as nobody.
pub(crate) fn poll(fds: &mut [libc::pollfd], timeout: Duration) -> io::Result<usize> {
    let mut timeout_ms = timeout.as_millis();
    if timeout_ms == 0 && !timeout.is_zero() {
        timeout_ms = 1;
    }
    let timeout_ms = i32::try_from(timeout_ms).unwrap_or(i32::MAX);
    // SAFETY: `fds` is valid for reads and writes of its length.
    match check(unsafe { libc::poll(fds.as_mut_ptr(), fds.len() as libc::nfds_t, timeout_ms) }) {
        Ok(ready) => Ok(usize::try_from(ready).unwrap_or(0)),
        Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(0),
        Err(error) => Err(error),
    }
}

/// bpf(2). The result is a descriptor for the commands that make one, else 0.
///
/// # Safety
/// Every address inside `attr` is valid for what `command` does with it.
pub(crate) unsafe fn bpf<T: Plain>(command: u32, attr: &mut T) -> io::Result<i32> {
    // SAFETY: `attr` is valid for its own size; the addresses in it are the caller's promise.
    let result = unsafe {
        libc::syscall(libc::SYS_bpf, i64::from(command), std::ptr::from_mut(attr), size_of::<T>() as u64)
    };
    match i32::try_from(result) {
        Ok(result) if result >= 0 => Ok(result),
        _ => Err(io::Error::last_os_error()),
    }
}

/// bpf(2) for the commands whose result is a new descriptor.
///
/// # Safety
/// As [`bpf`], and `command` is one that returns a descriptor.
pub(crate) unsafe fn bpf_open<T: Plain>(command: u32, attr: &mut T) -> io::Result<OwnedFd> {
    // SAFETY: promised by the caller.
    let fd = unsafe { bpf(command, attr) }?;
    // SAFETY: the kernel just gave us this descriptor; nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// An ethtool request on the interface called `name` in this thread's network namespace.
pub(crate) fn ethtool<T: Plain>(name: &str, request: &mut T) -> io::Result<()> {
    let socket = socket(libc::AF_INET, libc::SOCK_DGRAM, 0)?;
    // SAFETY: an all-zero ifreq is a valid ifreq.
    let mut ifreq: libc::ifreq = unsafe { std::mem::zeroed() };
    if name.is_empty() || name.len() >= ifreq.ifr_name.len() {
        return Err(io::Error::from_raw_os_error(libc::ENODEV));
    }
    for (to, from) in ifreq.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    ifreq.ifr_ifru.ifru_data = std::ptr::from_mut(request).cast();
    // SAFETY: `ifreq` points at `request`, whose first word is the command and whose layout is that command's.
    check(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCETHTOOL as _, &mut ifreq) })?;
    Ok(())
}

/// The index of an interface in this thread's network namespace.
pub(crate) fn interface_index(name: &str) -> io::Result<u32> {
    let name = CString::new(name).map_err(|_| io::Error::from_raw_os_error(libc::ENODEV))?;
    // SAFETY: `name` ends in NUL.
    match unsafe { libc::if_nametoindex(name.as_ptr()) } {
        0 => Err(io::Error::last_os_error()),
        index => Ok(index),
    }
}

/// The name of an interface in this thread's network namespace.
pub(crate) fn interface_name(ifindex: u32) -> Option<String> {
    let mut name = [0u8; libc::IF_NAMESIZE];
    // SAFETY: the buffer has the IF_NAMESIZE bytes the call may write.
    let found = unsafe { libc::if_indextoname(ifindex, name.as_mut_ptr().cast()) };
    if found.is_null() {
        return None;
    }
    let end = name.iter().position(|byte| *byte == 0).unwrap_or(name.len());
    Some(String::from_utf8_lossy(&name[..end]).into_owned())
}

/// Binds a netlink socket to an address of the kernel's choice.
pub(crate) fn bind_netlink(fd: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: an all-zero sockaddr_nl is valid: "any address".
    let mut address: libc::sockaddr_nl = unsafe { std::mem::zeroed() };
    address.nl_family = libc::AF_NETLINK as libc::sa_family_t;
    // SAFETY: `address` is a whole sockaddr_nl.
    check(unsafe {
        libc::bind(
            fd.as_raw_fd(),
            std::ptr::from_ref(&address).cast(),
            size_of::<libc::sockaddr_nl>() as libc::socklen_t,
        )
    })?;
    Ok(())
}

/// Sends a whole message to the socket's default destination (for netlink: the kernel).
pub(crate) fn send(fd: BorrowedFd<'_>, message: &[u8]) -> io::Result<()> {
    // SAFETY: `message` is valid for reads of its length.
    let sent = check_size(unsafe { libc::send(fd.as_raw_fd(), message.as_ptr().cast(), message.len(), 0) })?;
    if sent == message.len() { Ok(()) } else { Err(io::Error::from(io::ErrorKind::WriteZero)) }
}

/// Receives one message.
pub(crate) fn receive(fd: BorrowedFd<'_>, buffer: &mut [u8], flags: i32) -> io::Result<usize> {
    // SAFETY: `buffer` is valid for writes of its length.
    check_size(unsafe { libc::recv(fd.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len(), flags) })
}

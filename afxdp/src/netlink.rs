//! As much netlink as this room needs: build a message, send it, walk the attributes of the answers.
//!
//! Message layout: Documentation/userspace-api/netlink/intro.rst, include/uapi/linux/netlink.h.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use crate::abi;
use crate::syscall;

const HEADER: usize = 16;
const NLA_F_NESTED: u16 = 1 << 15;
const NLA_TYPE_MASK: u16 = 0x3fff;
const NLMSGERR_ATTR_MSG: u16 = 1;
const NETLINK_CAP_ACK: i32 = 10;
const NETLINK_EXT_ACK: i32 = 11;
/// A dump's parts and any single answer fit; the kernel sizes parts by the reader's buffer, up to 32 KiB.
const BUFFER: usize = 32 << 10;

/// A refusal, with the kernel's own words where it gave any.
#[derive(Debug)]
pub(crate) struct Refused {
    pub(crate) source: io::Error,
    pub(crate) kernel_says: Option<String>,
}

impl From<io::Error> for Refused {
    fn from(source: io::Error) -> Self {
        Self { source, kernel_says: None }
    }
}

/// A request under construction.
pub(crate) struct Request {
    bytes: Vec<u8>,
}

impl Request {
    pub(crate) fn new(kind: u16, flags: u16) -> Self {
        let mut bytes = vec![0; HEADER];
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        bytes[6..8].copy_from_slice(&(flags | libc::NLM_F_REQUEST as u16).to_ne_bytes());
        Self { bytes }
    }

    /// The family's fixed part after the header.
    pub(crate) fn fixed(mut self, bytes: &[u8]) -> Self {
        self.bytes.extend_from_slice(bytes);
        self.pad();
        self
    }

    pub(crate) fn attribute(mut self, kind: u16, value: &[u8]) -> Self {
        // Values here are a few bytes; the length can't overflow.
        self.bytes.extend_from_slice(&((4 + value.len()) as u16).to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(value);
        self.pad();
        self
    }

    pub(crate) fn nested(mut self, kind: u16, build: impl FnOnce(Self) -> Self) -> Self {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 2]);
        self.bytes.extend_from_slice(&(kind | NLA_F_NESTED).to_ne_bytes());
        let mut this = build(self);
        let len = (this.bytes.len() - start) as u16;
        this.bytes[start..start + 2].copy_from_slice(&len.to_ne_bytes());
        this
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

/// A netlink socket in the network namespace of the thread that opened it.
pub(crate) struct Netlink {
    fd: OwnedFd,
}

impl Netlink {
    pub(crate) fn open(protocol: i32) -> io::Result<Self> {
        let fd = syscall::socket(libc::AF_NETLINK, libc::SOCK_RAW, protocol)?;
        // Better messages where the kernel can; an old one answers without.
        let _ = syscall::set_option(fd.as_fd(), libc::SOL_NETLINK, NETLINK_EXT_ACK, &1u32);
        let _ = syscall::set_option(fd.as_fd(), libc::SOL_NETLINK, NETLINK_CAP_ACK, &1u32);
        syscall::bind_netlink(fd.as_fd())?;
        Ok(Self { fd })
    }

    /// Sends a request and gives each answer's payload (what follows its header) to `each`, to the last one.
    pub(crate) fn ask(&self, mut request: Request, mut each: impl FnMut(&[u8])) -> Result<(), Refused> {
        let flags = u16::from_ne_bytes([request.bytes[6], request.bytes[7]]);
        let is_dump = flags & libc::NLM_F_DUMP as u16 == libc::NLM_F_DUMP as u16;
        let wants_ack = flags & libc::NLM_F_ACK as u16 != 0;
        let len = request.bytes.len() as u32;
        request.bytes[0..4].copy_from_slice(&len.to_ne_bytes());
        syscall::send(self.fd.as_fd(), &request.bytes)?;
        let mut buffer = vec![0; BUFFER];
        loop {
            let received = syscall::receive(self.fd.as_fd(), &mut buffer, 0)?;
            for (kind, payload) in Messages(&buffer[..received]) {
                match i32::from(kind) {
                    libc::NLMSG_ERROR => return acknowledged(payload),
                    libc::NLMSG_DONE => return Ok(()),
                    _ => each(payload),
                }
            }
            if !is_dump && !wants_ack {
                return Ok(());
            }
        }
    }
}

/// Reads an NLMSG_ERROR: errno, the request's header, then attributes.
fn acknowledged(payload: &[u8]) -> Result<(), Refused> {
    let code = payload.first_chunk::<4>().map_or(-libc::EPROTO, |bytes| i32::from_ne_bytes(*bytes));
    if code == 0 {
        return Ok(());
    }
    let kernel_says = attributes(payload.get(4 + HEADER..).unwrap_or_default())
        .find(|(kind, _)| *kind == NLMSGERR_ATTR_MSG)
        .map(|(_, text)| String::from_utf8_lossy(text).trim_end_matches('\0').to_owned());
    Err(Refused { source: io::Error::from_raw_os_error(-code), kernel_says })
}

/// The messages of one datagram: kind and payload.
struct Messages<'a>(&'a [u8]);

impl<'a> Iterator for Messages<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let len = u32::from_ne_bytes(*self.0.first_chunk()?) as usize;
        let message = self.0.get(..len).filter(|message| message.len() >= HEADER)?;
        self.0 = self.0.get(len.next_multiple_of(4)..).unwrap_or_default();
        Some((u16::from_ne_bytes([message[4], message[5]]), &message[HEADER..]))
    }
}

/// The attributes in `bytes`: kind (without its flag bits) and value.
pub(crate) fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let header = *bytes.first_chunk::<4>()?;
        let len = usize::from(u16::from_ne_bytes([header[0], header[1]]));
        let value = bytes.get(4..len)?;
        bytes = bytes.get(len.next_multiple_of(4)..).unwrap_or_default();
        Some((u16::from_ne_bytes([header[2], header[3]]) & NLA_TYPE_MASK, value))
    })
}

/// A `u32` attribute's value; 0 if it isn't one.
pub(crate) fn as_u32(value: &[u8]) -> u32 {
    value.first_chunk().map_or(0, |bytes| u32::from_ne_bytes(*bytes))
}

/// A `u64` attribute's value, which short kernels may give as a `u32`.
pub(crate) fn as_u64(value: &[u8]) -> u64 {
    value.first_chunk().map_or_else(|| u64::from(as_u32(value)), |bytes| u64::from_ne_bytes(*bytes))
}

/// `struct ifinfomsg` for one interface.
pub(crate) fn ifinfomsg(ifindex: u32) -> [u8; 16] {
    let mut message = [0; 16];
    message[4..8].copy_from_slice(&ifindex.to_ne_bytes());
    message
}

/// RTM_GETLINK of one interface; `each` gets its attributes.
pub(crate) fn get_link(ifindex: u32, mut each: impl FnMut(u16, &[u8])) -> Result<(), Refused> {
    let request = Request::new(libc::RTM_GETLINK, 0).fixed(&ifinfomsg(ifindex));
    Netlink::open(libc::NETLINK_ROUTE)?.ask(request, |payload| {
        for (kind, value) in attributes(payload.get(16..).unwrap_or_default()) {
            each(kind, value);
        }
    })
}

/// RTM_SETLINK of one interface's IFLA_XDP: which program, how, and in whose place.
pub(crate) fn set_xdp(
    ifindex: u32,
    program: Option<i32>,
    flags: u32,
    expected: Option<i32>,
) -> Result<(), Refused> {
    let request = Request::new(libc::RTM_SETLINK, libc::NLM_F_ACK as u16).fixed(&ifinfomsg(ifindex)).nested(
        abi::IFLA_XDP,
        |mut nest| {
            nest = nest
                .attribute(abi::IFLA_XDP_FD, &program.unwrap_or(-1).to_ne_bytes())
                .attribute(abi::IFLA_XDP_FLAGS, &flags.to_ne_bytes());
            match expected {
                Some(fd) => nest.attribute(abi::IFLA_XDP_EXPECTED_FD, &fd.to_ne_bytes()),
                None => nest,
            }
        },
    );
    Netlink::open(libc::NETLINK_ROUTE)?.ask(request, |_| {})
}

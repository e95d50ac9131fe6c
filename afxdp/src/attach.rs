//! Which XDP program an interface runs: ours, by rtnetlink, so that it outlives the process (D1).
//!
//! A program attached this way stays when the process dies; its sockets leave the map, and from then on the
//! program's fallback decides. A later process replaces it in one step.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use crate::abi;
use crate::bpf::load;
use crate::features;
use crate::netlink::{self, Refused};

/// Names of our programs begin with this; others are never touched.
pub(crate) const NAME_PREFIX: &str = "tortie_";

/// Who runs the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attach {
    /// The driver, before a packet buffer exists.
    Native,
    /// The kernel's generic code, after: slower, with any driver.
    Generic,
}

impl Attach {
    fn flag(self) -> u32 {
        match self {
            Self::Native => abi::XDP_FLAGS_DRV_MODE,
            Self::Generic => abi::XDP_FLAGS_SKB_MODE,
        }
    }
}

impl fmt::Display for Attach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Native => "native",
            Self::Generic => "generic",
        })
    }
}

/// Who is asked to run the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttachRequest {
    /// The driver if it can, else the generic code; the report tells.
    Auto,
    /// The driver, or fail.
    Native,
    /// The generic code.
    Generic,
}

/// A program an interface runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attached {
    /// Its id, as bpftool shows it.
    pub id: u32,
    /// Its name.
    pub name: String,
    /// Who runs it.
    pub attach: Attach,
}

impl Attached {
    /// Whether it is one of ours, of this process or an earlier one.
    pub fn is_ours(&self) -> bool {
        self.name.starts_with(NAME_PREFIX)
    }
}

/// How attaching went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttachReport {
    /// Who runs the program.
    pub attach: Attach,
    /// The program of ours it took the place of.
    pub replaced: Option<Attached>,
    /// Why the driver doesn't run it, if it was asked first.
    pub native_refused: Option<String>,
}

impl fmt::Display for AttachReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} XDP", self.attach)?;
        if let Some(old) = &self.replaced {
            write!(f, ", in place of {} (program {})", old.name, old.id)?;
        }
        if let Some(reason) = &self.native_refused {
            write!(f, "; native refused: {reason}")?;
        }
        Ok(())
    }
}

/// Why a program can't be attached or detached.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// Somebody else's program is there.
    #[error("{interface} runs the XDP program \"{}\" (id {}, {}), which isn't ours; detach it first if it may go (ip link set dev ... xdp off)", program.name, program.id, program.attach)]
    Foreign {
        /// The interface's name, or `#index` if it has none here.
        interface: String,
        /// The program.
        program: Attached,
    },
    /// No such interface here.
    #[error("there is no interface {ifindex} in this network namespace")]
    NoInterface {
        /// The index asked for.
        ifindex: u32,
    },
    /// Missing privilege.
    #[error(
        "{interface}: not permitted to attach an XDP program; run as root or with CAP_NET_ADMIN and CAP_BPF"
    )]
    NotPermitted {
        /// The interface's name, or `#index` if it has none here.
        interface: String,
    },
    /// Refused, for instance because the MTU is too large for the driver to run XDP programs.
    #[error("{interface} refused {attach} XDP: {source}{}", kernel_says.as_deref().map(|text| format!(" ({text})")).unwrap_or_default())]
    Refused {
        /// The interface's name, or `#index` if it has none here.
        interface: String,
        /// What was tried.
        attach: Attach,
        /// What the kernel said.
        source: io::Error,
        /// The kernel's or driver's own words.
        kernel_says: Option<String>,
    },
    /// The interface can't be asked.
    #[error("can't ask {interface} which XDP program it runs: {source}")]
    Query {
        /// The interface's name, or `#index` if it has none here.
        interface: String,
        /// What the kernel said.
        source: io::Error,
    },
}

/// The programs an interface of this thread's network namespace runs: none, one, or (rarely) one of each kind.
pub fn attached(ifindex: u32) -> Result<Vec<Attached>, AttachError> {
    let mut ids = Vec::new();
    netlink::get_link(ifindex, |kind, value| {
        if kind == abi::IFLA_XDP {
            ids = program_ids(value);
        }
    })
    .map_err(|refused| query(ifindex, refused.source))?;
    ids.into_iter()
        .map(|(id, attach)| {
            let name = load::open_by_id(id)
                .and_then(|program| load::describe(program.as_fd()))
                .map_err(|source| query(ifindex, source))?
                .1;
            Ok(Attached { id, name, attach })
        })
        .collect()
}

fn query(ifindex: u32, source: io::Error) -> AttachError {
    match source.raw_os_error() {
        Some(libc::ENODEV) => AttachError::NoInterface { ifindex },
        Some(libc::EPERM | libc::EACCES) => AttachError::NotPermitted { interface: features::label(ifindex) },
        _ => AttachError::Query { interface: features::label(ifindex), source },
    }
}

/// IFLA_XDP's inside: with one program only PROG_ID may be told, and ATTACHED says by whom (1 driver, 2 generic).
fn program_ids(nest: &[u8]) -> Vec<(u32, Attach)> {
    let (mut by_kind, mut id, mut mode) = (Vec::new(), 0, 0);
    for (kind, value) in netlink::attributes(nest) {
        match kind {
            abi::IFLA_XDP_DRV_PROG_ID => by_kind.push((netlink::as_u32(value), Attach::Native)),
            abi::IFLA_XDP_SKB_PROG_ID => by_kind.push((netlink::as_u32(value), Attach::Generic)),
            abi::IFLA_XDP_PROG_ID => id = netlink::as_u32(value),
            abi::IFLA_XDP_ATTACHED => mode = value.first().copied().unwrap_or(0),
            _ => {}
        }
    }
    if by_kind.is_empty() && id != 0 {
        by_kind.push((id, if mode == 2 { Attach::Generic } else { Attach::Native }));
    }
    by_kind
}

/// Attaches a loaded program, replacing one of ours.
pub(crate) fn attach(
    program: BorrowedFd<'_>,
    ifindex: u32,
    request: AttachRequest,
) -> Result<AttachReport, AttachError> {
    let present = ours_only(ifindex)?;
    let (attach, native_refused) = match request {
        AttachRequest::Native => (place(program, ifindex, Attach::Native, &present)?, None),
        AttachRequest::Generic => (place(program, ifindex, Attach::Generic, &present)?, None),
        AttachRequest::Auto => match place(program, ifindex, Attach::Native, &present) {
            Ok(attach) => (attach, None),
            Err(AttachError::Refused { source, kernel_says, .. }) => {
                let reason = kernel_says.unwrap_or_else(|| source.to_string());
                // What was there may be gone already, taken out to make place for the other kind.
                let present = ours_only(ifindex)?;
                (place(program, ifindex, Attach::Generic, &present)?, Some(reason))
            }
            Err(other) => return Err(other),
        },
    };
    Ok(AttachReport { attach, replaced: present.into_iter().next(), native_refused })
}

/// The programs present, all of them ours; else an error naming the first that isn't.
fn ours_only(ifindex: u32) -> Result<Vec<Attached>, AttachError> {
    let present = attached(ifindex)?;
    match present.iter().find(|program| !program.is_ours()) {
        Some(program) => {
            Err(AttachError::Foreign { interface: features::label(ifindex), program: program.clone() })
        }
        None => Ok(present),
    }
}

/// Puts the program in: in one step in the place of one of the same kind; after detaching one of the other kind, as
/// the kernel runs no two at once.
fn place(
    program: BorrowedFd<'_>,
    ifindex: u32,
    attach: Attach,
    present: &[Attached],
) -> Result<Attach, AttachError> {
    let mut expected = None;
    for old in present {
        let fd = load::open_by_id(old.id).map_err(|source| query(ifindex, source))?;
        if old.attach == attach {
            expected = Some(fd);
        } else {
            take_out(ifindex, old)?;
        }
    }
    let flags = attach.flag()
        | if expected.is_some() { abi::XDP_FLAGS_REPLACE } else { abi::XDP_FLAGS_UPDATE_IF_NOEXIST };
    let expected = expected.as_ref().map(AsRawFd::as_raw_fd);
    netlink::set_xdp(ifindex, Some(program.as_raw_fd()), flags, expected)
        .map_err(|refused| explain(ifindex, attach, refused))?;
    Ok(attach)
}

fn take_out(ifindex: u32, program: &Attached) -> Result<(), AttachError> {
    netlink::set_xdp(ifindex, None, program.attach.flag(), None)
        .map_err(|refused| explain(ifindex, program.attach, refused))
}

fn explain(ifindex: u32, attach: Attach, refused: Refused) -> AttachError {
    match refused.source.raw_os_error() {
        Some(libc::ENODEV) => AttachError::NoInterface { ifindex },
        Some(libc::EPERM | libc::EACCES) => AttachError::NotPermitted { interface: features::label(ifindex) },
        _ => AttachError::Refused {
            interface: features::label(ifindex),
            attach,
            source: refused.source,
            kernel_says: refused.kernel_says,
        },
    }
}

/// Detaches our programs from an interface; returns what was there. A foreign program is left alone and is an error.
pub fn detach(ifindex: u32) -> Result<Vec<Attached>, AttachError> {
    let present = ours_only(ifindex)?;
    for program in &present {
        take_out(ifindex, program)?;
    }
    Ok(present)
}

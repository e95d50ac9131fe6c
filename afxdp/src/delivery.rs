//! Frames handed to the kernel as if an interface had just received them. Read the kernel's Documentation/bpf/bpf_prog_run.rst
//! first: a test run of an XDP program on "live frames" puts what the program passes into the stack, on any interface.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use crate::abi::{self, BpfTestRun, XdpMd};
use crate::bpf::{load, redirect};
use crate::program::{ProgramError, assemble, refused};
use crate::syscall;

/// A program that passes all it is run on.
#[derive(Debug)]
pub struct Delivery {
    program: OwnedFd,
}

impl Delivery {
    /// Loads the program.
    ///
    /// # Errors
    /// Missing privilege, or a kernel that refuses it.
    pub fn new() -> Result<Delivery, ProgramError> {
        let code = redirect::pass().map_err(assemble)?;
        let program =
            load::program("tortie_deliver", &code).map_err(|failed| refused(failed.source, failed.log))?;
        Ok(Delivery { program })
    }

    /// Has the interface receive a frame, whole checksums and all. No XDP program of its driver sees it; a generic one would.
    ///
    /// # Errors
    /// The interface is gone (`ENODEV`), or the frame too short or too long: 3,000 bytes always fit. A kernel before 5.18
    /// refuses any.
    pub fn receive(&self, ifindex: u32, frame: &[u8]) -> io::Result<()> {
        let context = XdpMd { data_end: frame.len() as u32, ingress_ifindex: ifindex, ..XdpMd::default() };
        let mut attr = BpfTestRun {
            prog_fd: self.program.as_raw_fd() as u32,
            data_size_in: frame.len() as u32,
            data_in: frame.as_ptr().expose_provenance() as u64,
            repeat: 1,
            ctx_size_in: size_of::<XdpMd>() as u32,
            ctx_in: std::ptr::from_ref(&context).expose_provenance() as u64,
            flags: abi::BPF_F_TEST_XDP_LIVE_FRAMES,
            batch_size: 1,
            ..BpfTestRun::default()
        };
        // SAFETY: `data_in` and `ctx_in` are valid for reads of their sizes, and the kernel copies both; no output is asked for.
        unsafe { syscall::bpf(abi::BPF_PROG_TEST_RUN, &mut attr) }.map(drop)
    }
}

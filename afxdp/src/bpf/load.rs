//! Handing bytecode to the kernel, and asking it about programs.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use crate::abi::{self, BPF_OBJ_NAME_LEN, BpfGetFdById, BpfObjInfo, BpfProgInfo, BpfProgLoad};
use crate::syscall;

/// Neither function the programs call is reserved to GPL programs, so they carry the project's own licence.
const LICENSE: &[u8] = b"Apache-2.0\0";
const LOG_SIZE: usize = 64 << 10;

/// Why the kernel didn't take a program.
#[derive(Debug)]
pub(crate) struct LoadFailed {
    pub(crate) source: io::Error,
    /// The verifier's last lines; empty if it wasn't reached.
    pub(crate) log: String,
}

/// Loads an XDP program. On failure once more with the verifier's log, to tell why.
///
/// It is loaded as one that takes packets in pieces: ours read headers only, which are in the first piece, and drivers refuse
/// others where the MTU is above a page. A kernel before 5.18 doesn't know the flag.
pub(crate) fn program(name: &str, code: &[u64]) -> Result<OwnedFd, LoadFailed> {
    let whole_packets_only = |_| load(name, code, 0, &mut []);
    load(name, code, abi::BPF_F_XDP_HAS_FRAGS, &mut []).or_else(whole_packets_only).or_else(|source| {
        let mut log = vec![0; LOG_SIZE];
        load(name, code, 0, &mut log).map_err(|_| LoadFailed { source, log: tail(&log) })
    })
}

fn load(name: &str, code: &[u64], flags: u32, log: &mut [u8]) -> io::Result<OwnedFd> {
    let mut attr = BpfProgLoad {
        prog_type: abi::BPF_PROG_TYPE_XDP,
        insn_cnt: code.len() as u32,
        insns: code.as_ptr().expose_provenance() as u64,
        license: LICENSE.as_ptr().expose_provenance() as u64,
        log_level: u32::from(!log.is_empty()),
        log_size: log.len() as u32,
        log_buf: if log.is_empty() { 0 } else { log.as_mut_ptr().expose_provenance() as u64 },
        prog_flags: flags,
        prog_name: object_name(name),
        ..BpfProgLoad::default()
    };
    // SAFETY: `insns` and `license` point at live values of the lengths given, the log at a buffer of its size.
    unsafe { syscall::bpf_open(abi::BPF_PROG_LOAD, &mut attr) }
}

/// A name as the kernel keeps it: cut to what fits, NUL-terminated.
pub(crate) fn object_name(name: &str) -> [u8; BPF_OBJ_NAME_LEN] {
    let mut bytes = [0; BPF_OBJ_NAME_LEN];
    for (to, from) in bytes[..BPF_OBJ_NAME_LEN - 1].iter_mut().zip(name.bytes()) {
        *to = from;
    }
    bytes
}

/// The last lines of a verifier's log, where the reason stands.
fn tail(log: &[u8]) -> String {
    let end = log.iter().position(|byte| *byte == 0).unwrap_or(log.len());
    let text = String::from_utf8_lossy(&log[..end]);
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(6)..].join("\n")
}

/// Opens a loaded program by its id.
pub(crate) fn open_by_id(id: u32) -> io::Result<OwnedFd> {
    let mut attr = BpfGetFdById { id, ..BpfGetFdById::default() };
    // SAFETY: the attribute holds no address, and the command returns a new descriptor.
    unsafe { syscall::bpf_open(abi::BPF_PROG_GET_FD_BY_ID, &mut attr) }
}

/// A loaded program's id and name.
pub(crate) fn describe(program: BorrowedFd<'_>) -> io::Result<(u32, String)> {
    let mut info = BpfProgInfo::default();
    let mut attr = BpfObjInfo {
        bpf_fd: program.as_raw_fd() as u32,
        info_len: size_of::<BpfProgInfo>() as u32,
        info: std::ptr::from_mut(&mut info).expose_provenance() as u64,
    };
    // SAFETY: `info` is valid for writes of `info_len` bytes, and any bytes make a valid BpfProgInfo.
    unsafe { syscall::bpf(abi::BPF_OBJ_GET_INFO_BY_FD, &mut attr) }?;
    let end = info.name.iter().position(|byte| *byte == 0).unwrap_or(info.name.len());
    Ok((info.id, String::from_utf8_lossy(&info.name[..end]).into_owned()))
}

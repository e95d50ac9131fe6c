//! Which process holds a queue, for an error message that saves a search.

use std::fs;

use crate::netlink::{self, Netlink, Request};
use crate::report::Holder;

// include/uapi/linux/xdp_diag.h and sock_diag.h
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const XDP_SHOW_INFO: u32 = 1;
const XDP_DIAG_INFO: u16 = 1;

/// The process with a socket bound to the queue, if the kernel has AF_XDP diagnostics and /proc can be read.
pub(crate) fn of_queue(ifindex: u32, queue: u32) -> Option<Holder> {
    let inode = socket_inode(ifindex, queue)?;
    let wanted = format!("socket:[{inode}]");
    for process in fs::read_dir("/proc").ok()?.flatten() {
        let Some(pid) = process.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        let Ok(descriptors) = fs::read_dir(process.path().join("fd")) else { continue };
        for descriptor in descriptors.flatten() {
            if fs::read_link(descriptor.path()).is_ok_and(|target| target.to_str() == Some(&wanted)) {
                let name = fs::read_to_string(process.path().join("comm")).unwrap_or_default();
                return Some(Holder { pid, name: name.trim_end().to_owned() });
            }
        }
    }
    None
}

fn socket_inode(ifindex: u32, queue: u32) -> Option<u32> {
    // struct xdp_diag_req: family, protocol, pad, inode, show, cookie.
    let mut body = [0u8; 20];
    body[0] = libc::AF_XDP as u8;
    body[8..12].copy_from_slice(&XDP_SHOW_INFO.to_ne_bytes());
    let request = Request::new(SOCK_DIAG_BY_FAMILY, libc::NLM_F_DUMP as u16).fixed(&body);
    let mut found = None;
    Netlink::open(libc::NETLINK_SOCK_DIAG)
        .ok()?
        .ask(request, |payload| {
            // struct xdp_diag_msg: family, type, pad, inode, cookie: 16 bytes.
            let Some((head, rest)) = payload.split_at_checked(16) else { return };
            for (kind, value) in netlink::attributes(rest) {
                // struct xdp_diag_info: ifindex, queue.
                if kind == XDP_DIAG_INFO
                    && value.len() >= 8
                    && (netlink::as_u32(value), netlink::as_u32(&value[4..])) == (ifindex, queue)
                {
                    found = Some(netlink::as_u32(&head[4..]));
                }
            }
        })
        .ok()?;
    found
}

//! Options of BGP's sockets for the slow path, which has no unsafe code to set them with.

use std::io;
use std::os::fd::BorrowedFd;

use model::{Family, Prefix};
use slowpath::SocketOptions;

/// The kernel's own options, by way of `afxdp`.
pub(crate) struct SessionSockets;

impl SocketOptions for SessionSockets {
    fn set_tcp_key(&self, socket: BorrowedFd<'_>, peers: Prefix, key: &[u8]) -> io::Result<()> {
        afxdp::set_tcp_md5_key(socket, peers.addr(), peers.len(), key)
    }

    fn set_min_ttl(&self, socket: BorrowedFd<'_>, family: Family, ttl: u8) -> io::Result<()> {
        afxdp::set_min_ttl(socket, family == Family::V6, ttl)
    }

    fn keep_syns(&self, listener: BorrowedFd<'_>) -> io::Result<()> {
        afxdp::keep_syns(listener)
    }

    fn take_syn_ttl(&self, accepted: BorrowedFd<'_>) -> io::Result<Option<u8>> {
        afxdp::take_syn_ttl(accepted)
    }
}

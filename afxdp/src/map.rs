//! The maps a program asks: which socket serves a queue, which addresses are the node's own, which tunnels end here.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use crate::abi::{self, BpfMapCreate, BpfMapElem, Plain};
use crate::bpf::load::object_name;
use crate::syscall;

/// A BPF map with keys of `K` and values of `V`.
#[derive(Debug)]
pub(crate) struct Map<K, V> {
    fd: OwnedFd,
    _types: std::marker::PhantomData<fn(K, V)>,
}

/// An IPv6 address in network order.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Key16(pub(crate) [u8; 16]);
// SAFETY: sixteen bytes.
unsafe impl Plain for Key16 {}

impl<K: Plain, V: Plain> Map<K, V> {
    fn create(name: &str, map_type: u32, max_entries: u32) -> io::Result<Self> {
        let mut attr = BpfMapCreate {
            map_type,
            key_size: size_of::<K>() as u32,
            value_size: size_of::<V>() as u32,
            max_entries,
            map_name: object_name(name),
            ..BpfMapCreate::default()
        };
        // SAFETY: the attribute holds no address, and the command returns a new descriptor.
        let fd = unsafe { syscall::bpf_open(abi::BPF_MAP_CREATE, &mut attr) }?;
        Ok(Self { fd, _types: std::marker::PhantomData })
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Inserts or replaces.
    pub(crate) fn insert(&self, key: &K, value: &V) -> io::Result<()> {
        let mut attr = BpfMapElem {
            map_fd: self.fd.as_raw_fd() as u32,
            key: std::ptr::from_ref(key).expose_provenance() as u64,
            value: std::ptr::from_ref(value).expose_provenance() as u64,
            flags: abi::BPF_ANY,
            ..BpfMapElem::default()
        };
        // SAFETY: the kernel reads key_size and value_size bytes, which are those of `K` and `V` (`create`).
        unsafe { syscall::bpf(abi::BPF_MAP_UPDATE_ELEM, &mut attr) }.map(drop)
    }

    /// Removes; `false` if the key wasn't there.
    pub(crate) fn remove(&self, key: &K) -> io::Result<bool> {
        let mut attr = BpfMapElem {
            map_fd: self.fd.as_raw_fd() as u32,
            key: std::ptr::from_ref(key).expose_provenance() as u64,
            ..BpfMapElem::default()
        };
        // SAFETY: the kernel reads key_size bytes, which are those of `K` (`create`).
        match unsafe { syscall::bpf(abi::BPF_MAP_DELETE_ELEM, &mut attr) } {
            Ok(_) => Ok(true),
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// Receive queue -> socket. The kernel takes a socket out by itself when it is closed.
pub(crate) fn sockets(max_queues: u32) -> io::Result<Map<u32, u32>> {
    Map::create("tortie_sockets", abi::BPF_MAP_TYPE_XSKMAP, max_queues)
}

/// The set of the node's IPv4 addresses, in network order.
pub(crate) fn local_ipv4(max_entries: u32) -> io::Result<Map<u32, u32>> {
    Map::create("tortie_local4", abi::BPF_MAP_TYPE_HASH, max_entries)
}

/// The set of the node's IPv6 addresses.
pub(crate) fn local_ipv6(max_entries: u32) -> io::Result<Map<Key16, u32>> {
    Map::create("tortie_local6", abi::BPF_MAP_TYPE_HASH, max_entries)
}

/// The set of the tunnels that end here, by [`tunnel_key`](crate::bpf::redirect::tunnel_key).
pub(crate) fn tunnels(max_entries: u32) -> io::Result<Map<u32, u32>> {
    Map::create("tortie_tunnels", abi::BPF_MAP_TYPE_HASH, max_entries)
}

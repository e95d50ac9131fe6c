//! The kernel's structures and numbers, as bytes cross the boundary.
//!
//! Each item names the kernel header it mirrors (tree: Linux 6.18). Nothing here decides anything.
//! The structures are written out rather than taken from `libc`, so that their layout, which soundness rests on,
//! can be read (and is tested) in this room.

/// Marks a type that may cross the kernel boundary as bytes.
///
/// # Safety
/// The type is `repr(C)`, has no padding and no pointer, and every bit pattern is a valid value.
pub(crate) unsafe trait Plain: Copy + Default {}

// SAFETY: any four, or eight, bytes are a valid integer.
unsafe impl Plain for u32 {}
// SAFETY: as above.
unsafe impl Plain for u64 {}
// SAFETY: as above.
unsafe impl Plain for i32 {}

// --- include/uapi/linux/if_xdp.h ---

/// `SOL_XDP`, include/linux/socket.h.
pub(crate) const SOL_XDP: i32 = 283;

pub(crate) const XDP_SHARED_UMEM: u16 = 1 << 0;
pub(crate) const XDP_COPY: u16 = 1 << 1;
pub(crate) const XDP_ZEROCOPY: u16 = 1 << 2;
pub(crate) const XDP_USE_NEED_WAKEUP: u16 = 1 << 3;
/// Packets above a chunk in several descriptors. Linux 6.6 and later.
pub(crate) const XDP_USE_SG: u16 = 1 << 4;

/// In a descriptor's options: the next one goes on with the same packet.
pub(crate) const XDP_PKT_CONTD: u32 = 1 << 0;

pub(crate) const XDP_MMAP_OFFSETS: i32 = 1;
pub(crate) const XDP_RX_RING: i32 = 2;
pub(crate) const XDP_TX_RING: i32 = 3;
pub(crate) const XDP_UMEM_REG: i32 = 4;
pub(crate) const XDP_UMEM_FILL_RING: i32 = 5;
pub(crate) const XDP_UMEM_COMPLETION_RING: i32 = 6;
pub(crate) const XDP_STATISTICS: i32 = 7;
pub(crate) const XDP_OPTIONS: i32 = 8;
/// Descriptors one `sendto` may send in copy mode; 32 unless raised. Linux 6.18 and later.
pub(crate) const XDP_MAX_TX_SKB_BUDGET: i32 = 9;

pub(crate) const XDP_OPTIONS_ZEROCOPY: u32 = 1;
pub(crate) const XDP_RING_NEED_WAKEUP: u32 = 1;

pub(crate) const XDP_PGOFF_RX_RING: u64 = 0;
pub(crate) const XDP_PGOFF_TX_RING: u64 = 0x8000_0000;
pub(crate) const XDP_UMEM_PGOFF_FILL_RING: u64 = 0x1_0000_0000;
pub(crate) const XDP_UMEM_PGOFF_COMPLETION_RING: u64 = 0x1_8000_0000;

/// Bytes the kernel leaves free before a received frame: `XDP_PACKET_HEADROOM`, include/uapi/linux/bpf.h.
pub(crate) const XDP_PACKET_HEADROOM: u16 = 256;

/// `struct sockaddr_xdp`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct SockaddrXdp {
    pub(crate) family: u16,
    pub(crate) flags: u16,
    pub(crate) ifindex: u32,
    pub(crate) queue_id: u32,
    pub(crate) shared_umem_fd: u32,
}

/// `struct xdp_umem_reg`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct UmemReg {
    pub(crate) addr: u64,
    pub(crate) len: u64,
    pub(crate) chunk_size: u32,
    pub(crate) headroom: u32,
    pub(crate) flags: u32,
    pub(crate) tx_metadata_len: u32,
}
// SAFETY: repr(C) integers without padding (8+8+4+4+4+4).
unsafe impl Plain for UmemReg {}

/// `struct xdp_ring_offset`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct RingOffset {
    pub(crate) producer: u64,
    pub(crate) consumer: u64,
    pub(crate) desc: u64,
    pub(crate) flags: u64,
}

/// `struct xdp_mmap_offsets`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct MmapOffsets {
    pub(crate) rx: RingOffset,
    pub(crate) tx: RingOffset,
    pub(crate) fill: RingOffset,
    pub(crate) completion: RingOffset,
}
// SAFETY: sixteen u64.
unsafe impl Plain for MmapOffsets {}

/// `struct xdp_desc`: one frame in an RX or TX ring. In a fill or completion ring only the address stands.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Descriptor {
    pub(crate) addr: u64,
    pub(crate) len: u32,
    pub(crate) options: u32,
}
// SAFETY: repr(C) integers without padding (8+4+4).
unsafe impl Plain for Descriptor {}

/// `struct xdp_statistics`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct StatisticsRaw {
    pub(crate) rx_dropped: u64,
    pub(crate) rx_invalid_descs: u64,
    pub(crate) tx_invalid_descs: u64,
    pub(crate) rx_ring_full: u64,
    pub(crate) rx_fill_ring_empty_descs: u64,
    pub(crate) tx_ring_empty_descs: u64,
}
// SAFETY: six u64.
unsafe impl Plain for StatisticsRaw {}

// --- include/uapi/asm-generic/socket.h ---

pub(crate) const SO_BUSY_POLL: i32 = 46;
pub(crate) const SO_PREFER_BUSY_POLL: i32 = 69;
pub(crate) const SO_BUSY_POLL_BUDGET: i32 = 70;
pub(crate) const SO_NETNS_COOKIE: i32 = 71;

// --- include/uapi/linux/bpf.h ---

pub(crate) const BPF_MAP_CREATE: u32 = 0;
pub(crate) const BPF_MAP_UPDATE_ELEM: u32 = 2;
pub(crate) const BPF_MAP_DELETE_ELEM: u32 = 3;
pub(crate) const BPF_PROG_LOAD: u32 = 5;
pub(crate) const BPF_PROG_TEST_RUN: u32 = 10;
pub(crate) const BPF_PROG_GET_FD_BY_ID: u32 = 13;
pub(crate) const BPF_OBJ_GET_INFO_BY_FD: u32 = 15;

pub(crate) const BPF_MAP_TYPE_HASH: u32 = 1;
pub(crate) const BPF_MAP_TYPE_XSKMAP: u32 = 17;
pub(crate) const BPF_PROG_TYPE_XDP: u32 = 6;
pub(crate) const BPF_ANY: u64 = 0;
/// A test run's frames are real ones: what the program passes goes to the kernel's stack. Linux 5.18 and later.
pub(crate) const BPF_F_TEST_XDP_LIVE_FRAMES: u32 = 1 << 1;
/// The program can do with a packet in several pieces. Linux 5.18 and later.
pub(crate) const BPF_F_XDP_HAS_FRAGS: u32 = 1 << 5;

/// `BPF_OBJ_NAME_LEN`, the final NUL included.
pub(crate) const BPF_OBJ_NAME_LEN: usize = 16;

/// `union bpf_attr` for `BPF_MAP_CREATE`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(crate) struct BpfMapCreate {
    pub(crate) map_type: u32,
    pub(crate) key_size: u32,
    pub(crate) value_size: u32,
    pub(crate) max_entries: u32,
    pub(crate) map_flags: u32,
    pub(crate) inner_map_fd: u32,
    pub(crate) numa_node: u32,
    pub(crate) map_name: [u8; BPF_OBJ_NAME_LEN],
}
// SAFETY: repr(C) u32 and bytes without padding (7*4 + 16).
unsafe impl Plain for BpfMapCreate {}

/// `union bpf_attr` for `BPF_MAP_*_ELEM`. `key` and `value` are addresses.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(crate) struct BpfMapElem {
    pub(crate) map_fd: u32,
    pub(crate) pad: u32,
    pub(crate) key: u64,
    pub(crate) value: u64,
    pub(crate) flags: u64,
}
// SAFETY: repr(C) integers, the hole after map_fd is the named field `pad`.
unsafe impl Plain for BpfMapElem {}

/// `union bpf_attr` for `BPF_PROG_LOAD`, as far as `expected_attach_type`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(crate) struct BpfProgLoad {
    pub(crate) prog_type: u32,
    pub(crate) insn_cnt: u32,
    pub(crate) insns: u64,
    pub(crate) license: u64,
    pub(crate) log_level: u32,
    pub(crate) log_size: u32,
    pub(crate) log_buf: u64,
    pub(crate) kern_version: u32,
    pub(crate) prog_flags: u32,
    pub(crate) prog_name: [u8; BPF_OBJ_NAME_LEN],
    pub(crate) prog_ifindex: u32,
    pub(crate) expected_attach_type: u32,
}
// SAFETY: repr(C) without padding (4+4+8+8+4+4+8+4+4+16+4+4).
unsafe impl Plain for BpfProgLoad {}

/// `union bpf_attr` for `BPF_PROG_GET_FD_BY_ID`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(crate) struct BpfGetFdById {
    pub(crate) id: u32,
    pub(crate) next_id: u32,
    pub(crate) open_flags: u32,
}
// SAFETY: three u32.
unsafe impl Plain for BpfGetFdById {}

/// `union bpf_attr` for `BPF_OBJ_GET_INFO_BY_FD`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(crate) struct BpfObjInfo {
    pub(crate) bpf_fd: u32,
    pub(crate) info_len: u32,
    pub(crate) info: u64,
}
// SAFETY: repr(C) without padding (4+4+8).
unsafe impl Plain for BpfObjInfo {}

/// The beginning of `struct bpf_prog_info`: as much as a name takes. The kernel fills the part it is given.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(crate) struct BpfProgInfo {
    pub(crate) prog_type: u32,
    pub(crate) id: u32,
    pub(crate) tag: [u8; 8],
    pub(crate) jited_prog_len: u32,
    pub(crate) xlated_prog_len: u32,
    pub(crate) jited_prog_insns: u64,
    pub(crate) xlated_prog_insns: u64,
    pub(crate) load_time: u64,
    pub(crate) created_by_uid: u32,
    pub(crate) nr_map_ids: u32,
    pub(crate) map_ids: u64,
    pub(crate) name: [u8; BPF_OBJ_NAME_LEN],
}
// SAFETY: repr(C) without padding (4+4+8+4+4+8+8+8+4+4+8+16).
unsafe impl Plain for BpfProgInfo {}

/// `union bpf_attr` for `BPF_PROG_TEST_RUN`, as far as `batch_size`, padded to eight bytes. Kernels that know less of it take
/// it where the rest is zero.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(crate) struct BpfTestRun {
    pub(crate) prog_fd: u32,
    pub(crate) retval: u32,
    pub(crate) data_size_in: u32,
    pub(crate) data_size_out: u32,
    pub(crate) data_in: u64,
    pub(crate) data_out: u64,
    pub(crate) repeat: u32,
    pub(crate) duration: u32,
    pub(crate) ctx_size_in: u32,
    pub(crate) ctx_size_out: u32,
    pub(crate) ctx_in: u64,
    pub(crate) ctx_out: u64,
    pub(crate) flags: u32,
    pub(crate) cpu: u32,
    pub(crate) batch_size: u32,
    pub(crate) pad: u32,
}
// SAFETY: repr(C) without padding (4*4+8+8+4*4+8+8+4*4).
unsafe impl Plain for BpfTestRun {}

/// `struct xdp_md`, a test run's context: the frame from `data` to `data_end`, and the interface that it comes in by.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(crate) struct XdpMd {
    pub(crate) data: u32,
    pub(crate) data_end: u32,
    pub(crate) data_meta: u32,
    pub(crate) ingress_ifindex: u32,
    pub(crate) rx_queue_index: u32,
    pub(crate) egress_ifindex: u32,
}

// --- include/uapi/linux/if_link.h ---

pub(crate) const IFLA_MTU: u16 = 4;
pub(crate) const IFLA_XDP: u16 = 43;
pub(crate) const IFLA_XDP_FD: u16 = 1;
pub(crate) const IFLA_XDP_ATTACHED: u16 = 2;
pub(crate) const IFLA_XDP_FLAGS: u16 = 3;
pub(crate) const IFLA_XDP_PROG_ID: u16 = 4;
pub(crate) const IFLA_XDP_DRV_PROG_ID: u16 = 5;
pub(crate) const IFLA_XDP_SKB_PROG_ID: u16 = 6;
pub(crate) const IFLA_XDP_EXPECTED_FD: u16 = 8;
pub(crate) const IFLA_NUM_RX_QUEUES: u16 = 32;

pub(crate) const XDP_FLAGS_UPDATE_IF_NOEXIST: u32 = 1 << 0;
pub(crate) const XDP_FLAGS_SKB_MODE: u32 = 1 << 1;
pub(crate) const XDP_FLAGS_DRV_MODE: u32 = 1 << 2;
pub(crate) const XDP_FLAGS_REPLACE: u32 = 1 << 4;

// --- include/uapi/linux/netdev.h ---

pub(crate) const NETDEV_CMD_DEV_GET: u8 = 1;
pub(crate) const NETDEV_A_DEV_IFINDEX: u16 = 1;
pub(crate) const NETDEV_A_DEV_XDP_FEATURES: u16 = 3;
pub(crate) const NETDEV_A_DEV_XDP_ZC_MAX_SEGS: u16 = 4;
pub(crate) const NETDEV_XDP_ACT_BASIC: u64 = 1;
pub(crate) const NETDEV_XDP_ACT_XSK_ZEROCOPY: u64 = 8;

// --- include/uapi/linux/ethtool.h ---

pub(crate) const ETHTOOL_GDRVINFO: u32 = 0x03;
pub(crate) const ETHTOOL_GTXCSUM: u32 = 0x16;
pub(crate) const ETHTOOL_STXCSUM: u32 = 0x17;
pub(crate) const ETHTOOL_GRINGPARAM: u32 = 0x10;
pub(crate) const ETHTOOL_SRINGPARAM: u32 = 0x11;
pub(crate) const ETHTOOL_SRXFHINDIR: u32 = 0x39;
pub(crate) const ETHTOOL_GCHANNELS: u32 = 0x3c;
pub(crate) const ETHTOOL_SCHANNELS: u32 = 0x3d;

/// `struct ethtool_value`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(crate) struct EthtoolValue {
    pub(crate) cmd: u32,
    pub(crate) data: u32,
}
// SAFETY: two u32.
unsafe impl Plain for EthtoolValue {}

/// `struct ethtool_channels`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(crate) struct EthtoolChannels {
    pub(crate) cmd: u32,
    pub(crate) max_rx: u32,
    pub(crate) max_tx: u32,
    pub(crate) max_other: u32,
    pub(crate) max_combined: u32,
    pub(crate) rx_count: u32,
    pub(crate) tx_count: u32,
    pub(crate) other_count: u32,
    pub(crate) combined_count: u32,
}
// SAFETY: nine u32.
unsafe impl Plain for EthtoolChannels {}

/// `struct ethtool_ringparam`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(crate) struct EthtoolRings {
    pub(crate) cmd: u32,
    pub(crate) rx_max: u32,
    pub(crate) rx_mini_max: u32,
    pub(crate) rx_jumbo_max: u32,
    pub(crate) tx_max: u32,
    pub(crate) rx: u32,
    pub(crate) rx_mini: u32,
    pub(crate) rx_jumbo: u32,
    pub(crate) tx: u32,
}
// SAFETY: nine u32.
unsafe impl Plain for EthtoolRings {}

/// `struct ethtool_drvinfo`.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct EthtoolDriver {
    pub(crate) cmd: u32,
    pub(crate) driver: [u8; 32],
    pub(crate) rest: [u8; 160],
}
impl Default for EthtoolDriver {
    fn default() -> Self {
        Self { cmd: ETHTOOL_GDRVINFO, driver: [0; 32], rest: [0; 160] }
    }
}
// SAFETY: repr(C) u32 and bytes without padding; 196 bytes, as version[32], fw_version[32], bus_info[32],
// erom_version[32], reserved2[12] and five u32 make the 160 of `rest`.
unsafe impl Plain for EthtoolDriver {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layouts_have_the_sizes_of_the_kernel_headers() {
        assert_eq!(size_of::<SockaddrXdp>(), 16);
        assert_eq!(size_of::<UmemReg>(), 32);
        assert_eq!(size_of::<MmapOffsets>(), 128);
        assert_eq!(size_of::<Descriptor>(), 16);
        assert_eq!(size_of::<StatisticsRaw>(), 48);
        assert_eq!(size_of::<BpfMapCreate>(), 44);
        assert_eq!(size_of::<BpfMapElem>(), 32);
        assert_eq!(size_of::<BpfProgLoad>(), 72);
        assert_eq!(size_of::<BpfProgInfo>(), 80);
        assert_eq!((size_of::<BpfTestRun>(), size_of::<XdpMd>()), (80, 24));
        assert_eq!(size_of::<EthtoolDriver>(), 196);
        assert_eq!(size_of::<EthtoolChannels>(), 36);
        assert_eq!(size_of::<EthtoolRings>(), 36);
    }
}

//! What an interface can do, as far as the kernel tells; and the one setting of a workload's end (D8).

use std::io;

use crate::abi::{self, EthtoolChannels, EthtoolDriver, EthtoolValue};
use crate::netlink::{self, Netlink, Request};
use crate::syscall;

/// What is known of an interface. Best effort: what the kernel doesn't tell is `None`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceFeatures {
    /// Its name.
    pub name: String,
    /// Its MTU in bytes.
    pub mtu: u32,
    /// Its driver.
    pub driver: Option<String>,
    /// Receive queues in use: queue numbers go from 0 to one less.
    pub receive_queues: u32,
    /// Whether its driver runs XDP programs itself (native mode). Linux 6.3 and later tell.
    pub native_xdp: Option<bool>,
    /// Whether its driver does AF_XDP without copying. Linux 6.3 and later tell.
    pub zero_copy: Option<bool>,
    /// Pieces a zero-copy frame may have; 1 where frames are whole. Linux 6.6 and later tell.
    pub zero_copy_segments: Option<u32>,
}

impl DeviceFeatures {
    /// Asks about an interface of this thread's network namespace. Fails only if there is none.
    pub fn of(ifindex: u32) -> io::Result<Self> {
        let name =
            syscall::interface_name(ifindex).ok_or_else(|| io::Error::from_raw_os_error(libc::ENODEV))?;
        let advertised = advertised(ifindex).ok();
        let has = |bit| advertised.map(|(features, _)| features & bit != 0);
        Ok(Self {
            mtu: mtu(ifindex)?,
            driver: driver(&name),
            receive_queues: receive_queues(&name, ifindex),
            native_xdp: has(abi::NETDEV_XDP_ACT_BASIC),
            zero_copy: has(abi::NETDEV_XDP_ACT_XSK_ZEROCOPY),
            zero_copy_segments: advertised.and_then(|(_, segments)| segments),
            name,
        })
    }
}

/// The MTU of an interface of this thread's network namespace, in bytes.
pub(crate) fn mtu(ifindex: u32) -> io::Result<u32> {
    let mut mtu = None;
    netlink::get_link(ifindex, |kind, value| {
        if kind == abi::IFLA_MTU {
            mtu = Some(netlink::as_u32(value));
        }
    })
    .map_err(|refused| refused.source)?;
    mtu.ok_or_else(|| io::Error::from_raw_os_error(libc::ENODEV))
}

fn driver(name: &str) -> Option<String> {
    let mut request = EthtoolDriver::default();
    syscall::ethtool(name, &mut request).ok()?;
    let text = request.driver.split(|byte| *byte == 0).next()?;
    Some(String::from_utf8_lossy(text).into_owned())
}

/// Queues in use from ethtool, else queues allocated from rtnetlink, else one.
fn receive_queues(name: &str, ifindex: u32) -> u32 {
    let mut channels = EthtoolChannels { cmd: abi::ETHTOOL_GCHANNELS, ..EthtoolChannels::default() };
    if syscall::ethtool(name, &mut channels).is_ok() && channels.combined_count + channels.rx_count > 0 {
        return channels.combined_count + channels.rx_count;
    }
    let mut queues = 1;
    let _ = netlink::get_link(ifindex, |kind, value| {
        if kind == abi::IFLA_NUM_RX_QUEUES {
            queues = netlink::as_u32(value);
        }
    });
    queues
}

const CTRL_CMD_GETFAMILY: u8 = 3;
const CTRL_ATTR_FAMILY_ID: u16 = 1;
const CTRL_ATTR_FAMILY_NAME: u16 = 2;

/// The device's xdp-features and zero-copy segments, from generic netlink's "netdev" family
/// (Documentation/netlink/specs/netdev.yaml).
fn advertised(ifindex: u32) -> Result<(u64, Option<u32>), netlink::Refused> {
    let netlink = Netlink::open(libc::NETLINK_GENERIC)?;
    let mut family = None;
    let request = Request::new(libc::GENL_ID_CTRL as u16, 0)
        .fixed(&[CTRL_CMD_GETFAMILY, 1, 0, 0])
        .attribute(CTRL_ATTR_FAMILY_NAME, b"netdev\0");
    netlink.ask(request, |payload| {
        for (kind, value) in netlink::attributes(payload.get(4..).unwrap_or_default()) {
            if kind == CTRL_ATTR_FAMILY_ID {
                family = value.first_chunk().map(|bytes| u16::from_ne_bytes(*bytes));
            }
        }
    })?;
    let unknown = || io::Error::from_raw_os_error(libc::EOPNOTSUPP);
    let request = Request::new(family.ok_or_else(unknown)?, 0)
        .fixed(&[abi::NETDEV_CMD_DEV_GET, 1, 0, 0])
        .attribute(abi::NETDEV_A_DEV_IFINDEX, &ifindex.to_ne_bytes());
    let (mut features, mut segments) = (None, None);
    netlink.ask(request, |payload| {
        for (kind, value) in netlink::attributes(payload.get(4..).unwrap_or_default()) {
            match kind {
                abi::NETDEV_A_DEV_XDP_FEATURES => features = Some(netlink::as_u64(value)),
                abi::NETDEV_A_DEV_XDP_ZC_MAX_SEGS => segments = Some(netlink::as_u32(value)),
                _ => {}
            }
        }
    })?;
    Ok((features.ok_or_else(unknown)?, segments))
}

/// What to call an interface in a message: its name, or `#index` if it has none in this thread's namespace.
pub(crate) fn label(ifindex: u32) -> String {
    syscall::interface_name(ifindex).unwrap_or_else(|| format!("#{ifindex}"))
}

/// The index of the interface called `name` in this thread's network namespace.
pub fn interface_index(name: &str) -> io::Result<u32> {
    syscall::interface_index(name)
}

/// Switches transmit checksum offload of an interface of this thread's network namespace (`ethtool -K NAME tx`).
///
/// Frames from a local veth may carry only a pseudo-header checksum, and nothing in AF_XDP tells; so it is switched
/// off on the workload's end.
pub fn set_tx_checksum(name: &str, on: bool) -> io::Result<()> {
    let mut request = EthtoolValue { cmd: abi::ETHTOOL_STXCSUM, data: u32::from(on) };
    syscall::ethtool(name, &mut request)
}

/// Whether transmit checksum offload is on.
pub fn tx_checksum(name: &str) -> io::Result<bool> {
    let mut request = EthtoolValue { cmd: abi::ETHTOOL_GTXCSUM, data: 0 };
    syscall::ethtool(name, &mut request)?;
    Ok(request.data != 0)
}

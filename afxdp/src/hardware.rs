//! How many queues an interface has and how long its own rings are, and changing that (ethtool's -l, -L, -g, -G, -X).

use std::io;

use crate::abi::{self, EthtoolChannels, EthtoolRings, EthtoolValue};
use crate::syscall;

/// Queues of an interface. Most drivers have combined ones, veth and some others have receive and transmit queues apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NicQueues {
    /// Receive queues in use.
    pub now: u32,
    /// Receive queues that there may be.
    pub max: u32,
}

impl NicQueues {
    /// Of an interface of this thread's network namespace; an error where its driver can't tell.
    pub fn of(name: &str) -> io::Result<NicQueues> {
        let channels = channels(name)?;
        Ok(NicQueues {
            now: channels.combined_count + channels.rx_count,
            max: channels.max_combined.max(channels.max_rx),
        })
    }

    /// Gives the interface this many receive queues, and as many to transmit. Many drivers take the link down for it.
    pub fn set(name: &str, queues: u32) -> io::Result<()> {
        let mut wanted = channels(name)?;
        wanted.cmd = abi::ETHTOOL_SCHANNELS;
        if wanted.max_combined > 0 {
            (wanted.combined_count, wanted.rx_count, wanted.tx_count) = (queues, 0, 0);
        } else {
            (wanted.rx_count, wanted.tx_count) = (queues, queues.min(wanted.max_tx));
        }
        syscall::ethtool(name, &mut wanted)
    }

    /// Has the interface spread flows evenly over all of its queues, as its driver does by default.
    pub fn spread(name: &str) -> io::Result<()> {
        // `struct ethtool_rxfh_indir` of size 0: back to the default.
        syscall::ethtool(name, &mut EthtoolValue { cmd: abi::ETHTOOL_SRXFHINDIR, data: 0 })
    }
}

fn channels(name: &str) -> io::Result<EthtoolChannels> {
    let mut channels = EthtoolChannels { cmd: abi::ETHTOOL_GCHANNELS, ..EthtoolChannels::default() };
    syscall::ethtool(name, &mut channels)?;
    Ok(channels)
}

/// Slots in the rings between an interface and its driver; AF_XDP's own come on top.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NicRings {
    /// Of each receive queue.
    pub rx: u32,
    /// Of each transmit queue.
    pub tx: u32,
    /// The most of each.
    pub rx_max: u32,
    /// The most of each.
    pub tx_max: u32,
}

impl NicRings {
    /// Of an interface of this thread's network namespace; an error where its driver can't tell.
    pub fn of(name: &str) -> io::Result<NicRings> {
        let EthtoolRings { rx, tx, rx_max, tx_max, .. } = rings(name)?;
        Ok(NicRings { rx, tx, rx_max, tx_max })
    }

    /// Gives each ring this many slots. Many drivers take the link down for it.
    pub fn set(name: &str, rx: u32, tx: u32) -> io::Result<()> {
        let mut wanted = EthtoolRings { cmd: abi::ETHTOOL_SRINGPARAM, rx, tx, ..rings(name)? };
        syscall::ethtool(name, &mut wanted)
    }
}

fn rings(name: &str) -> io::Result<EthtoolRings> {
    let mut rings = EthtoolRings { cmd: abi::ETHTOOL_GRINGPARAM, ..EthtoolRings::default() };
    syscall::ethtool(name, &mut rings)?;
    Ok(rings)
}

//! The one interface feature we change: transmit checksum offload, by ethtool's netlink family.
//!
//! Written out here because neither ioctl nor a crate does it without unsafe code or a program to run. The messages
//! are those of `Documentation/networking/ethtool-netlink.rst`, FEATURES_SET.

use std::io;

use netlink_packet_core::{NLM_F_ACK, NLM_F_REQUEST};
use netlink_sys::{Socket, protocols::NETLINK_GENERIC};

use crate::privileges::raised;

/// `GENL_ID_CTRL` and its `CTRL_CMD_GETFAMILY`, `CTRL_ATTR_FAMILY_ID`, `CTRL_ATTR_FAMILY_NAME` (`linux/genetlink.h`).
const CONTROLLER: u16 = 0x10;
const GET_FAMILY: u8 = 3;
const FAMILY_ID: u16 = 1;
const FAMILY_NAME: u16 = 2;
/// `ETHTOOL_MSG_FEATURES_SET` and its attributes (`linux/ethtool_netlink.h`).
const FEATURES_SET: u8 = 12;
const FEATURES_HEADER: u16 = 1;
const FEATURES_WANTED: u16 = 3;
const HEADER_DEV_NAME: u16 = 2;
const BITSET_BITS: u16 = 3;
const BITSET_BITS_BIT: u16 = 1;
const BITSET_BIT_NAME: u16 = 2;
const NESTED: u16 = 0x8000;

const NLMSG_ERROR: u16 = 2;
const HEADER_BYTES: usize = 16;
const GENERIC_HEADER_BYTES: usize = 4;

/// What `ethtool -K … tx off` switches off; a bit that is named without a value is wanted off.
const CHECKSUM_FEATURES: [&str; 4] =
    ["tx-checksum-ipv4", "tx-checksum-ip-generic", "tx-checksum-ipv6", "tx-checksum-sctp"];

/// Why the offload is still on.
#[derive(Debug, thiserror::Error)]
#[error("could not switch off transmit checksum offload of {interface}: {source}")]
pub struct EthtoolError {
    /// The interface.
    pub interface: String,
    /// The kernel's reason.
    #[source]
    pub source: io::Error,
}

/// Switches off transmit checksum offload, and with it segmentation offload: every packet then leaves the kernel
/// through this interface whole and with complete checksums (ARCHITECTURE.md, D8).
///
/// Acts in the network namespace of the calling thread.
///
/// # Errors
/// Where the interface is gone, or the kernel was built without ethtool's netlink family (before Linux 5.10).
pub fn disable_transmit_checksum(interface: &str) -> Result<(), EthtoolError> {
    raised(|| set_features(interface))
        .map_err(|source| EthtoolError { interface: interface.to_owned(), source })
}

fn set_features(interface: &str) -> io::Result<()> {
    let mut socket = Socket::new(NETLINK_GENERIC)?;
    socket.bind_auto()?;
    let family = ethtool_family(&socket)?;
    let header = attribute(FEATURES_HEADER | NESTED, &attribute(HEADER_DEV_NAME, &c_string(interface)));
    let bits: Vec<u8> = CHECKSUM_FEATURES
        .iter()
        .flat_map(|name| attribute(BITSET_BITS_BIT | NESTED, &attribute(BITSET_BIT_NAME, &c_string(name))))
        .collect();
    let wanted = attribute(FEATURES_WANTED | NESTED, &attribute(BITSET_BITS | NESTED, &bits));
    ask(&socket, family, FEATURES_SET, &[header, wanted].concat()).map(|_| ())
}

fn ethtool_family(socket: &Socket) -> io::Result<u16> {
    let answer = ask(socket, CONTROLLER, GET_FAMILY, &attribute(FAMILY_NAME, &c_string("ethtool")))?;
    let attributes = answer.get(GENERIC_HEADER_BYTES..).unwrap_or_default();
    find(attributes, FAMILY_ID).and_then(|value| Some(u16::from_ne_bytes(*value.first_chunk()?))).ok_or_else(
        || io::Error::new(io::ErrorKind::InvalidData, "the kernel named no id for its family ethtool"),
    )
}

/// Sends one request and reads to its acknowledgement; yields the last answer's body before that.
fn ask(socket: &Socket, family: u16, command: u8, attributes: &[u8]) -> io::Result<Vec<u8>> {
    let mut request = Vec::new();
    let length = HEADER_BYTES + GENERIC_HEADER_BYTES + attributes.len();
    request.extend((length as u32).to_ne_bytes());
    request.extend(family.to_ne_bytes());
    request.extend((NLM_F_REQUEST | NLM_F_ACK).to_ne_bytes());
    request.extend([0; 8]);
    request.extend([command, 1, 0, 0]);
    request.extend(attributes);
    socket.send(&request, 0)?;
    let mut body = Vec::new();
    loop {
        let (datagram, _) = socket.recv_from_full()?;
        let mut rest = datagram.as_slice();
        while let Some((kind, message)) = next_message(&mut rest) {
            if kind != NLMSG_ERROR {
                body = message.to_vec();
                continue;
            }
            let code = message.first_chunk().map_or(0, |code| i32::from_ne_bytes(*code));
            return if code == 0 { Ok(body) } else { Err(io::Error::from_raw_os_error(-code)) };
        }
    }
}

/// Splits off one message: its type and body.
fn next_message<'a>(rest: &mut &'a [u8]) -> Option<(u16, &'a [u8])> {
    let length = u32::from_ne_bytes(*rest.first_chunk()?) as usize;
    let kind = u16::from_ne_bytes(*rest.get(4..)?.first_chunk()?);
    let body = rest.get(HEADER_BYTES..length)?;
    *rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    Some((kind, body))
}

fn find(mut attributes: &[u8], wanted: u16) -> Option<&[u8]> {
    loop {
        let length = usize::from(u16::from_ne_bytes(*attributes.first_chunk()?));
        let kind = u16::from_ne_bytes(*attributes.get(2..)?.first_chunk()?);
        let value = attributes.get(4..length)?;
        if kind == wanted {
            return Some(value);
        }
        attributes = attributes.get(length.next_multiple_of(4)..)?;
    }
}

fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = 4 + value.len();
    let mut bytes = Vec::with_capacity(length.next_multiple_of(4));
    bytes.extend((length as u16).to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(length.next_multiple_of(4), 0);
    bytes
}

fn c_string(text: &str) -> Vec<u8> {
    [text.as_bytes(), &[0]].concat()
}

//! Asking the kernel: requests and dumps over one rtnetlink socket.
//!
//! The kernel works on a request inside `sendmsg` and its answer is ready when that returns, so a request is a
//! plain call of some microseconds and needs no task of its own. A dump of a very long table takes longer: the
//! only one long enough to matter, our own route table, is made by the mirror's thread.

use std::io;

use netlink_packet_core::{
    DecodeError, NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkBuffer, NetlinkMessage,
    NetlinkPayload,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::{Socket, protocols::NETLINK_ROUTE};
use nix::sys::socket::{setsockopt, sockopt};

use crate::privileges::raised;

/// Bytes for one datagram of the kernel's: it fills dumps up to 32 KiB (`netlink_dump` in `net/netlink/af_netlink.c`).
pub(crate) const DATAGRAM_BYTES_MAX: usize = 64 * 1024;
/// How often a dump is begun again when the table changed under it.
const DUMP_ATTEMPTS_MAX: u32 = 8;

/// Why the kernel could not be asked, or what it answered.
#[derive(Debug, thiserror::Error)]
pub enum NetlinkError {
    /// The socket could not be made.
    #[error("could not open a netlink socket: {0}")]
    Open(#[source] io::Error),
    /// The socket failed while sending or receiving.
    #[error("netlink socket failed while asking to {what}: {source}")]
    Socket {
        /// What was asked, as a verb.
        what: &'static str,
        /// The kernel's reason.
        source: io::Error,
    },
    /// The kernel refused.
    #[error("the kernel refused to {what}: {source}{}", hint(.source))]
    Refused {
        /// What was asked, as a verb.
        what: &'static str,
        /// The kernel's reason.
        source: io::Error,
    },
    /// A datagram that isn't netlink.
    #[error("unreadable netlink answer while asking to {what}: {source}")]
    Malformed {
        /// What was asked, as a verb.
        what: &'static str,
        /// What is wrong with it.
        source: DecodeError,
    },
    /// The table changed during every attempt to read it.
    #[error(
        "could not {what}: the table changed during each of {DUMP_ATTEMPTS_MAX} attempts; try again later"
    )]
    Interrupted {
        /// What was asked, as a verb.
        what: &'static str,
    },
}

impl NetlinkError {
    /// The error number where the kernel refused, for callers to whom some refusals are no failure.
    pub fn errno(&self) -> Option<i32> {
        match self {
            NetlinkError::Refused { source, .. } => source.raw_os_error(),
            _ => None,
        }
    }
}

fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::PermissionDenied => "; run as root or with CAP_NET_ADMIN",
        _ => "",
    }
}

/// An rtnetlink socket for requests, answered in order.
#[derive(Debug)]
pub struct Netlink {
    socket: Socket,
    sequence: u32,
    datagram: Vec<u8>,
}

impl Netlink {
    /// A socket in the network namespace of the calling thread.
    ///
    /// # Errors
    /// Where the kernel grants no socket.
    pub fn open() -> Result<Netlink, NetlinkError> {
        let mut socket = Socket::new(NETLINK_ROUTE).map_err(NetlinkError::Open)?;
        socket.bind_auto().map_err(NetlinkError::Open)?;
        // Lets a dump ask for one table and have the kernel do the choosing; since Linux 4.20.
        socket.set_netlink_get_strict_chk(true).map_err(NetlinkError::Open)?;
        // Without it an error repeats the whole request.
        socket.set_cap_ack(true).map_err(NetlinkError::Open)?;
        Ok(Netlink { socket, sequence: 0, datagram: Vec::with_capacity(DATAGRAM_BYTES_MAX) })
    }

    /// Asks for a change and waits for the kernel's yes or no. `flags` are added to `NLM_F_REQUEST | NLM_F_ACK`.
    ///
    /// # Errors
    /// [`NetlinkError::Refused`] with the kernel's reason, or a failing socket.
    pub fn request(
        &mut self,
        what: &'static str,
        message: RouteNetlinkMessage,
        flags: u16,
    ) -> Result<(), NetlinkError> {
        self.query(what, message, flags, |_| None::<()>).map(|_| ())
    }

    /// Asks for one thing, and keeps what `keep` makes of the answer.
    ///
    /// # Errors
    /// As [`Netlink::request`].
    pub fn query<T>(
        &mut self,
        what: &'static str,
        message: RouteNetlinkMessage,
        flags: u16,
        mut keep: impl FnMut(RouteNetlinkMessage) -> Option<T>,
    ) -> Result<Option<T>, NetlinkError> {
        self.send(what, message, NLM_F_REQUEST | NLM_F_ACK | flags)?;
        let mut kept = None;
        loop {
            self.receive(what)?;
            for answer in messages(&self.datagram) {
                let answer = answer.map_err(|source| NetlinkError::Malformed { what, source })?;
                if answer.header.sequence_number != self.sequence {
                    continue;
                }
                match answer.payload {
                    NetlinkPayload::InnerMessage(inner) => kept = keep(inner).or(kept),
                    NetlinkPayload::Error(error) if error.code.is_none() => return Ok(kept),
                    NetlinkPayload::Error(error) => {
                        return Err(NetlinkError::Refused { what, source: error.to_io() });
                    }
                    _ => {}
                }
            }
        }
    }

    /// Reads a whole table, keeping what `keep` makes of each row. A row that can't be parsed is skipped and logged.
    ///
    /// # Errors
    /// [`NetlinkError::Refused`] with the kernel's reason, [`NetlinkError::Interrupted`], or a failing socket.
    pub fn dump<T>(
        &mut self,
        what: &'static str,
        message: RouteNetlinkMessage,
        mut keep: impl FnMut(RouteNetlinkMessage) -> Option<T>,
    ) -> Result<Vec<T>, NetlinkError> {
        for _ in 0..DUMP_ATTEMPTS_MAX {
            self.send(what, message.clone(), NLM_F_REQUEST | NLM_F_DUMP)?;
            if let Some(rows) = self.receive_dump(what, &mut keep)? {
                return Ok(rows);
            }
        }
        Err(NetlinkError::Interrupted { what })
    }

    /// One attempt at a dump; `None` where the table changed meanwhile (`NLM_F_DUMP_INTR`).
    fn receive_dump<T>(
        &mut self,
        what: &'static str,
        keep: &mut impl FnMut(RouteNetlinkMessage) -> Option<T>,
    ) -> Result<Option<Vec<T>>, NetlinkError> {
        let mut rows = Vec::new();
        let mut consistent = true;
        loop {
            self.receive(what)?;
            for answer in messages(&self.datagram) {
                let answer = match answer {
                    Ok(answer) => answer,
                    Err(reason) => {
                        tracing::debug!(what, %reason, "skipped a row that could not be parsed");
                        continue;
                    }
                };
                if answer.header.sequence_number != self.sequence {
                    continue;
                }
                consistent &= answer.header.flags & NLM_F_DUMP_INTR == 0;
                match answer.payload {
                    NetlinkPayload::InnerMessage(row) => rows.extend(keep(row)),
                    NetlinkPayload::Done(done) if done.code < 0 => {
                        return Err(NetlinkError::Refused {
                            what,
                            source: io::Error::from_raw_os_error(-done.code),
                        });
                    }
                    NetlinkPayload::Done(_) => return Ok(consistent.then_some(rows)),
                    NetlinkPayload::Error(error) => {
                        return Err(NetlinkError::Refused { what, source: error.to_io() });
                    }
                    _ => {}
                }
            }
        }
    }

    fn send(
        &mut self,
        what: &'static str,
        message: RouteNetlinkMessage,
        flags: u16,
    ) -> Result<(), NetlinkError> {
        self.sequence = self.sequence.wrapping_add(1);
        let request = serialize(message, flags, self.sequence);
        let socket_error = |source| NetlinkError::Socket { what, source };
        // The kernel asks who sends, not only who opened the socket.
        raised(|| self.socket.send(&request, 0)).map_err(socket_error)?;
        Ok(())
    }

    fn receive(&mut self, what: &'static str) -> Result<(), NetlinkError> {
        receive(&self.socket, &mut self.datagram).map_err(|source| NetlinkError::Socket { what, source })
    }
}

/// Reads one datagram into `datagram`, whose capacity must be [`DATAGRAM_BYTES_MAX`].
pub(crate) fn receive(socket: &Socket, datagram: &mut Vec<u8>) -> io::Result<()> {
    loop {
        datagram.clear();
        match socket.recv(datagram, 0) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            result => return result.map(|_| ()),
        }
    }
}

/// A message with its header, ready to send.
pub(crate) fn serialize(message: RouteNetlinkMessage, flags: u16, sequence: u32) -> Vec<u8> {
    let mut request = NetlinkMessage::from(message);
    request.header.flags = flags;
    request.header.sequence_number = sequence;
    request.finalize();
    let mut bytes = vec![0; request.buffer_len()];
    request.serialize(&mut bytes);
    bytes
}

/// Splits a datagram into its messages; a malformed one is an error in its place, and the rest still follow.
pub(crate) fn messages(
    datagram: &[u8],
) -> impl Iterator<Item = Result<NetlinkMessage<RouteNetlinkMessage>, DecodeError>> {
    let mut rest = datagram;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let length = match NetlinkBuffer::new_checked(&rest) {
            Ok(buffer) => buffer.length() as usize,
            Err(reason) => {
                rest = &[];
                return Some(Err(reason));
            }
        };
        let (message, _) = rest.split_at(length);
        // Messages begin at multiples of four (NLMSG_ALIGN).
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(NetlinkMessage::deserialize(message))
    })
}

/// Asks for a receive buffer beyond `net.core.rmem_max`; without CAP_NET_ADMIN the limit stands and is logged.
pub(crate) fn enlarge_receive_buffer(socket: &Socket, bytes: usize) {
    if let Err(error) = setsockopt(socket, sockopt::RcvBufForce, &bytes) {
        tracing::warn!(%error, bytes, "netlink receive buffer stays at the system's limit; bursts may need resyncs");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use netlink_packet_route::link::LinkMessage;
    use proptest::prelude::*;

    #[test]
    fn a_dump_lists_the_loopback_interface() {
        let mut netlink = Netlink::open().unwrap();
        let rows = netlink
            .dump("list links", RouteNetlinkMessage::GetLink(LinkMessage::default()), |row| match row {
                RouteNetlinkMessage::NewLink(link) => Some(link.header.index),
                _ => None,
            })
            .unwrap();
        assert!(rows.contains(&1), "{rows:?}");
    }

    #[test]
    fn a_refusal_carries_the_kernels_reason() {
        let mut netlink = Netlink::open().unwrap();
        let mut message = LinkMessage::default();
        message.header.index = u32::MAX / 2;
        let error = netlink.request("remove a link", RouteNetlinkMessage::DelLink(message), 0).unwrap_err();
        assert!(error.errno().is_some(), "{error}");
        assert!(error.to_string().starts_with("the kernel refused to remove a link: "), "{error}");
    }

    proptest! {
        #[test]
        fn any_datagram_is_split_without_panic(datagram in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = messages(&datagram).count();
        }

        #[test]
        fn a_datagram_of_well_formed_lengths_is_split_without_panic(
            bodies in prop::collection::vec((16u16..110, prop::collection::vec(any::<u8>(), 0..80)), 0..4)
        ) {
            let mut datagram = Vec::new();
            for (kind, body) in &bodies {
                datagram.extend((16 + body.len() as u32).to_ne_bytes());
                datagram.extend(kind.to_ne_bytes());
                datagram.extend([0; 10]);
                datagram.extend(body);
                datagram.resize(datagram.len().next_multiple_of(4), 0);
            }
            prop_assert_eq!(messages(&datagram).count(), bodies.len());
        }
    }
}

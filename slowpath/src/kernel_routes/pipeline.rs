//! Route changes by the batch.
//!
//! One `sendmsg` carries many requests and the kernel works through them in order. Only the last asks for an answer;
//! of the others the kernel reports failures alone (`netlink_rcv_skb` in `net/netlink/af_netlink.c`).

use std::io;

use model::Prefix;
use netlink_packet_core::{NLM_F_ACK, NLM_F_CREATE, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::route::RouteMessage;
use netlink_sys::{Socket, protocols::NETLINK_ROUTE};

use super::mirror::MirrorTarget;
use super::route_message::{installing, naming};
use crate::netlink::{self, DATAGRAM_BYTES_MAX, NetlinkError};

/// Requests in one `sendmsg`. More buys nothing measurable, and every one of them may fail and want room in the
/// receive buffer for it.
pub(super) const BATCH_CHANGES: usize = 256;
/// Room for a failure of every request of a batch, at under 1 KiB each with the kernel's bookkeeping.
const RECEIVE_BUFFER_BYTES: usize = 1024 * 1024;

/// What to do with one prefix of our table.
#[derive(Clone, Copy, Debug)]
pub(super) enum Change<'a> {
    /// Make it this, whatever it was.
    Install(&'a MirrorTarget),
    /// Take it away.
    Remove,
}

/// A socket on which changes go out in batches.
#[derive(Debug)]
pub(super) struct Pipeline {
    socket: Socket,
    sequence: u32,
    datagram: Vec<u8>,
}

impl Pipeline {
    pub(super) fn open() -> Result<Pipeline, NetlinkError> {
        let mut socket = Socket::new(NETLINK_ROUTE).map_err(NetlinkError::Open)?;
        socket.bind_auto().map_err(NetlinkError::Open)?;
        socket.set_cap_ack(true).map_err(NetlinkError::Open)?;
        netlink::enlarge_receive_buffer(&socket, RECEIVE_BUFFER_BYTES);
        Ok(Pipeline { socket, sequence: 0, datagram: Vec::with_capacity(DATAGRAM_BYTES_MAX) })
    }

    /// Makes the changes in order; yields for each the kernel's error number, or `None` where it was made.
    ///
    /// After an error of the socket itself nobody knows which were made: dump the table.
    pub(super) fn apply<'a>(
        &mut self,
        changes: impl ExactSizeIterator<Item = (Prefix, Change<'a>)>,
    ) -> io::Result<Vec<Option<i32>>> {
        let count = changes.len();
        if count == 0 {
            return Ok(Vec::new());
        }
        let first = self.sequence.wrapping_add(1);
        let mut requests = Vec::with_capacity(count * 64);
        for (index, (prefix, change)) in changes.enumerate() {
            self.sequence = self.sequence.wrapping_add(1);
            let answer = if index + 1 == count { NLM_F_ACK } else { 0 };
            requests.extend(request(prefix, change, answer, self.sequence));
        }
        self.socket.send(&requests, 0)?;
        self.receive_outcomes(first, count)
    }

    fn receive_outcomes(&mut self, first: u32, count: usize) -> io::Result<Vec<Option<i32>>> {
        let mut outcomes = vec![None; count];
        loop {
            netlink::receive(&self.socket, &mut self.datagram)?;
            for answer in netlink::messages(&self.datagram) {
                let answer = answer.map_err(|reason| io::Error::new(io::ErrorKind::InvalidData, reason))?;
                let index = answer.header.sequence_number.wrapping_sub(first) as usize;
                let NetlinkPayload::Error(error) = answer.payload else { continue };
                let Some(outcome) = outcomes.get_mut(index) else { continue };
                *outcome = error.code.map(|code| code.get().abs());
                if index + 1 == count {
                    return Ok(outcomes);
                }
            }
        }
    }
}

fn request(prefix: Prefix, change: Change<'_>, answer: u16, sequence: u32) -> Vec<u8> {
    match change {
        Change::Install(target) => {
            let message = RouteNetlinkMessage::NewRoute(installing(prefix, target));
            netlink::serialize(message, NLM_F_REQUEST | NLM_F_CREATE | NLM_F_REPLACE | answer, sequence)
        }
        Change::Remove => {
            let message: RouteMessage = naming(prefix);
            netlink::serialize(RouteNetlinkMessage::DelRoute(message), NLM_F_REQUEST | answer, sequence)
        }
    }
}

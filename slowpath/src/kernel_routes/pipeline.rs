//! Route changes by the batch.
//!
//! One `sendmsg` carries many requests and the kernel works through them in order. Only the last asks for an answer;
//! of the others the kernel reports failures alone (`netlink_rcv_skb` in `net/netlink/af_netlink.c`).

use std::io;
use std::net::IpAddr;
use std::sync::Arc;

use model::{Family, Prefix};
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
    Install(&'a Arc<MirrorTarget>),
    /// Take it away.
    Remove,
}

/// A socket on which changes go out in batches.
#[derive(Debug)]
pub(super) struct Pipeline {
    socket: Socket,
    sequence: u32,
    datagram: Vec<u8>,
    /// The request that was made last.
    form: Option<Form>,
}

/// A request as it is sent: others that differ from it in the prefix alone are copies of it.
#[derive(Debug)]
struct Form {
    family: Family,
    target: Option<Arc<MirrorTarget>>,
    bytes: Vec<u8>,
}

/// Where in a request its flags, its number, and its prefix are (`nlmsghdr`, `rtmsg`, then `RTA_DST`, which comes first).
const FLAGS_AT: usize = 6;
const SEQUENCE_AT: usize = 8;
const PREFIX_LENGTH_AT: usize = 16 + 1;
const ADDRESS_AT: usize = 16 + 12 + 4;

impl Form {
    fn is_of(&self, family: Family, change: Change<'_>) -> bool {
        let is_same = match (&self.target, change) {
            (Some(target), Change::Install(other)) => Arc::ptr_eq(target, other),
            (None, Change::Remove) => true,
            _ => false,
        };
        is_same && self.family == family
    }

    fn new(prefix: Prefix, change: Change<'_>) -> Form {
        let (target, bytes) = match change {
            Change::Install(target) => (Some(Arc::clone(target)), request(prefix, change)),
            Change::Remove => (None, request(prefix, change)),
        };
        Form { family: prefix.family(), target, bytes }
    }

    /// Appends the request for a prefix.
    fn fill_in(&self, prefix: Prefix, more_flags: u16, sequence: u32, requests: &mut Vec<u8>) {
        let from = requests.len();
        requests.extend_from_slice(&self.bytes);
        let request = &mut requests[from..];
        let mut put = |at: usize, bytes: &[u8]| request[at..at + bytes.len()].copy_from_slice(bytes);
        let flags = u16::from_ne_bytes([self.bytes[FLAGS_AT], self.bytes[FLAGS_AT + 1]]) | more_flags;
        put(FLAGS_AT, &flags.to_ne_bytes());
        put(SEQUENCE_AT, &sequence.to_ne_bytes());
        put(PREFIX_LENGTH_AT, &[prefix.len()]);
        match prefix.addr() {
            IpAddr::V4(addr) => put(ADDRESS_AT, &addr.octets()),
            IpAddr::V6(addr) => put(ADDRESS_AT, &addr.octets()),
        }
    }
}

impl Pipeline {
    pub(super) fn open() -> Result<Pipeline, NetlinkError> {
        let mut socket = Socket::new(NETLINK_ROUTE).map_err(NetlinkError::Open)?;
        socket.bind_auto().map_err(NetlinkError::Open)?;
        socket.set_cap_ack(true).map_err(NetlinkError::Open)?;
        netlink::enlarge_receive_buffer(&socket, RECEIVE_BUFFER_BYTES);
        let datagram = Vec::with_capacity(DATAGRAM_BYTES_MAX);
        Ok(Pipeline { socket, sequence: 0, datagram, form: None })
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
            let form = match self.form.take().filter(|form| form.is_of(prefix.family(), change)) {
                Some(form) => form,
                None => Form::new(prefix, change),
            };
            form.fill_in(prefix, answer, self.sequence, &mut requests);
            self.form = Some(form);
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

/// The request as a message of its own, without a number.
fn request(prefix: Prefix, change: Change<'_>) -> Vec<u8> {
    match change {
        Change::Install(target) => {
            let message = RouteNetlinkMessage::NewRoute(installing(prefix, target));
            netlink::serialize(message, NLM_F_REQUEST | NLM_F_CREATE | NLM_F_REPLACE, 0)
        }
        Change::Remove => {
            let message: RouteMessage = naming(prefix);
            netlink::serialize(RouteNetlinkMessage::DelRoute(message), NLM_F_REQUEST, 0)
        }
    }
}

#[cfg(test)]
mod tests {
    use model::IfIndex;
    use proptest::prelude::*;

    use super::*;
    use crate::kernel_routes::mirror::MirrorHop;

    proptest! {
        #[test]
        fn a_form_that_is_filled_in_is_the_request_itself(
            [one, other] in [any::<u32>(), any::<u32>()],
            len in 0u8..=32,
            is_v6: bool,
            installs: bool,
        ) {
            let prefix = |bits: u32| match is_v6 {
                true => Prefix::new(IpAddr::V6((u128::from(bits) << 96).into()), len),
                false => Prefix::new(IpAddr::V4(bits.into()), len),
            };
            let (one, other) = (prefix(one).unwrap(), prefix(other).unwrap());
            let gateway = IpAddr::from([0xfe80, 0, 0, 0, 0, 0, 0, 1]);
            let nexthops = [MirrorHop { gateway, ifindex: IfIndex(7), weight: 1 }];
            let target = Arc::new(MirrorTarget::Nexthops(nexthops.into()));
            let change = if installs { Change::Install(&target) } else { Change::Remove };
            let mut filled_in = Vec::new();
            Form::new(one, change).fill_in(other, 0, 0, &mut filled_in);
            prop_assert_eq!(filled_in, request(other, change));
        }
    }
}

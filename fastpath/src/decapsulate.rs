//! Stage 4: packets of tunnels that end here are opened, and the walk goes on with what is inside.

use std::net::Ipv4Addr;

use afxdp::Frame;
use model::PortKind;
use packet::encapsulation::{VXLAN_HEADER_LEN, vni};
use packet::{Fragment, Kind, Parsed, ethernet, protocol, udp};
use tables::{DropReason, Fate, State, TunnelEnd, TunnelKind};

use crate::{Batch, parse};

/// Opens tunnel packets that came by an uplink. A workload's stay closed: it could send under any address inside.
pub(crate) fn tunnels(batch: &mut Batch, state: &State) {
    if state.tunnel_ends.is_empty() {
        return;
    }
    let Batch { frames, runs, fates, parsed, opened, .. } = batch;
    for run in runs {
        let port = run.ingress.and_then(|ingress| state.ports.get(ingress));
        if port.is_none_or(|port| port.kind != PortKind::Uplink) {
            continue;
        }
        let rows = run.rows();
        let (fates, parsed) = (&mut fates[rows.clone()], &mut parsed[rows.clone()]);
        for (((row, frame), fate), parsed) in rows.clone().zip(&mut frames[rows]).zip(fates).zip(parsed) {
            if *fate != Fate::Undecided {
                continue;
            }
            let Some(end) = end_of(frame.bytes(), parsed, &state.tunnel_ends) else { continue };
            match open(frame, parsed, end) {
                Ok(()) => *opened |= 1 << row,
                Err(reason) => *fate = Fate::Drop(reason),
            }
        }
    }
}

/// The tunnel end that a packet is addressed to. Fragments are nobody's: they go on as what they are.
#[inline]
fn end_of<'a>(frame: &[u8], parsed: &Parsed, ends: &'a [TunnelEnd]) -> Option<&'a TunnelEnd> {
    if parsed.kind != Kind::Ipv4
        || !matches!(parsed.protocol, protocol::IPIP | protocol::UDP)
        || parsed.fragment != Fragment::Whole
    {
        return None;
    }
    let destination = parsed.ipv4_destination(frame)?;
    ends.iter().find(|end| {
        end.local == destination
            && match end.kind {
                TunnelKind::Ipip => parsed.protocol == protocol::IPIP,
                TunnelKind::Vxlan { port, .. } => {
                    parsed.protocol == protocol::UDP && udp_destination(frame, parsed) == Some(port)
                }
            }
    })
}

fn udp_destination(frame: &[u8], parsed: &Parsed) -> Option<u16> {
    let at = usize::from(parsed.l4) + 2;
    frame.get(at..at + 2).map(|port| u16::from_be_bytes([port[0], port[1]]))
}

/// Takes the outer headers off and parses what was inside.
fn open(frame: &mut Frame, parsed: &mut Parsed, end: &TunnelEnd) -> Result<(), DropReason> {
    let source = parsed.ipv4_source(frame.bytes()).unwrap_or(Ipv4Addr::UNSPECIFIED);
    if !end.knows(source) {
        return Err(DropReason::UnknownTunnelSource);
    }
    // Ethernet padding of the outer frame is not part of what is inside.
    frame.set_len(parsed.l3_end()).map_err(|_| DropReason::TunnelMalformed)?;
    let l4 = usize::from(parsed.l4);
    match end.kind {
        TunnelKind::Ipip => {
            // The inner packet has no Ethernet header: the last bytes of the outer one become it.
            let front = l4.checked_sub(ethernet::HEADER_LEN).ok_or(DropReason::TunnelMalformed)?;
            frame.trim_front(front).map_err(|_| DropReason::TunnelMalformed)?;
            let ethertype = frame.bytes_mut().get_mut(12..14).ok_or(DropReason::TunnelMalformed)?;
            ethertype.copy_from_slice(&ethernet::IPV4.to_be_bytes());
        }
        TunnelKind::Vxlan { vni: expected, .. } => {
            let header = l4 + udp::HEADER_LEN;
            if frame.bytes().get(header..).and_then(vni) != Some(expected) {
                return Err(DropReason::TunnelMalformed);
            }
            frame.trim_front(header + VXLAN_HEADER_LEN).map_err(|_| DropReason::TunnelMalformed)?;
        }
    }
    // As in `parse.rs`.
    if let Some(headers) = packet::parse_plain(frame.bytes()) {
        *parsed = headers;
        return Ok(());
    }
    *parsed = packet::parse(frame.bytes()).map_err(parse::reason)?;
    if !parsed.is_ip() || parsed.vlan.is_some() {
        return Err(DropReason::TunnelMalformed);
    }
    Ok(())
}

//! BGPPeer (`api/pkg/apis/projectcalico/v3/bgppeer.go`).

use model::{BgpPeer, PeerNodes, Resource};

use super::{Identity, Outcome, refuse_unsupported};
use crate::fields::{Fault, Object};
use crate::invalid::Reason;
use crate::validate;

/// Each changes whom we speak to, as whom, or what we accept: a session without it is not the one asked for.
const UNSUPPORTED: &[(&str, &str)] = &[
    ("peerSelector", "spec.peerSelector"),
    ("localWorkloadSelector", "spec.localWorkloadSelector"),
    ("filters", "spec.filters"),
    ("password", "spec.password"),
    ("localASNumber", "spec.localASNumber"),
    ("numAllowedLocalASNumbers", "spec.numAllowedLocalASNumbers"),
    ("ttlSecurity", "spec.ttlSecurity"),
    ("reachableBy", "spec.reachableBy"),
];

#[derive(Clone, Copy, PartialEq, Eq)]
enum NextHopMode {
    Auto,
    Own,
    Keep,
}

pub(super) fn convert(identity: &Identity<'_>, spec: &Object<'_>) -> Result<Outcome, Fault> {
    check_exclusive(spec)?;
    refuse_unsupported(spec, UNSUPPORTED)?;
    let keep_original_next_hop = spec.flag("keepOriginalNextHop")?.unwrap_or(false);
    let next_hop_mode = next_hop_mode(spec, keep_original_next_hop)?;
    let (peer_ip, _) = spec.required_text("peerIP")?;
    let peer = BgpPeer {
        name: identity.name.clone(),
        nodes: nodes(spec)?,
        peer: validate::peer_ip(&peer_ip)?,
        as_number: validate::as_number(&spec.required("asNumber")?)?,
        next_hop_keep: next_hop_mode == NextHopMode::Keep,
        keep_original_next_hop,
        next_hop_self: next_hop_mode == NextHopMode::Own,
        bind_to_node_address: match spec.text("sourceAddress")? {
            Some((field, _)) => field.one_of(&["UseNodeIP", "None"], &[true, false])?,
            None => true,
        },
        max_restart_time: spec.field("maxRestartTime").map(|field| validate::duration(&field)).transpose()?,
        keepalive_time: spec.field("keepaliveTime").map(|field| validate::duration(&field)).transpose()?,
    };
    Ok(Outcome::of(Resource::BgpPeer(peer)))
}

/// Which fields never stand together, whether supported or not.
fn check_exclusive(spec: &Object<'_>) -> Result<(), Fault> {
    for (first, second, second_path) in [
        ("node", "nodeSelector", "spec.nodeSelector"),
        ("peerIP", "peerSelector", "spec.peerSelector"),
        ("peerIP", "localWorkloadSelector", "spec.localWorkloadSelector"),
        ("peerSelector", "localWorkloadSelector", "spec.localWorkloadSelector"),
    ] {
        if let Some((field, _)) = spec.text(first)?
            && spec.text(second)?.is_some()
        {
            return Err(field.fault(Reason::Exclusive(second_path)));
        }
    }
    Ok(())
}

fn nodes(spec: &Object<'_>) -> Result<PeerNodes, Fault> {
    if let Some((selector, text)) = spec.text("nodeSelector")?
        && text.trim() != "all()"
    {
        return Err(selector.fault(Reason::NotSupported("spec.nodeSelector other than all()")));
    }
    match spec.text("node")? {
        Some((field, _)) => Ok(PeerNodes::Named(validate::name(&field)?)),
        None => Ok(PeerNodes::All),
    }
}

/// `nextHopMode`, which took the place of `keepOriginalNextHop`: they never stand together.
fn next_hop_mode(spec: &Object<'_>, keep_original_next_hop: bool) -> Result<NextHopMode, Fault> {
    let Some((field, _)) = spec.text("nextHopMode")? else { return Ok(NextHopMode::Auto) };
    if keep_original_next_hop {
        return Err(field.fault(Reason::Exclusive("spec.keepOriginalNextHop")));
    }
    field.one_of(&["Auto", "Self", "Keep"], &[NextHopMode::Auto, NextHopMode::Own, NextHopMode::Keep])
}

//! BGPPeer (`api/pkg/apis/projectcalico/v3/bgppeer.go`).

use std::net::IpAddr;

use model::{AsNumber, BgpPeer, Family, PeerNodes, PeerTarget, Resource, SecretKey};

use super::{Identity, Outcome};
use crate::fields::{Fault, Object};
use crate::invalid::Reason;
use crate::validate;

/// A selector for peers that no node is.
const NOBODY: &str = "!all()";

#[derive(Clone, Copy, PartialEq, Eq)]
enum NextHopMode {
    Auto,
    Own,
    Keep,
}

pub(super) fn convert(identity: &Identity<'_>, spec: &Object<'_>) -> Result<Outcome, Fault> {
    check_exclusive(spec)?;
    let keep_original_next_hop = spec.flag("keepOriginalNextHop")?.unwrap_or(false);
    let next_hop_mode = next_hop_mode(spec, keep_original_next_hop)?;
    let target = target(spec)?;
    let peer = BgpPeer {
        name: identity.name.clone(),
        nodes: nodes(spec)?,
        as_number: as_number(spec, target.as_ref())?,
        filters: match spec.field("filters") {
            Some(field) => field.items()?.map(|item| validate::name(&item)).collect::<Result<_, _>>()?,
            None => Vec::new(),
        },
        local_as_number: spec.field("localASNumber").map(|field| validate::as_number(&field)).transpose()?,
        allowed_local_as: match spec.field("numAllowedLocalASNumbers") {
            Some(field) => field.number(0, u8::MAX.into())?,
            None => 0,
        },
        reachable_by: reachable_by(spec, target.as_ref())?,
        reverse_peering: match spec.text("reversePeering")? {
            Some((field, _)) => field.one_of(&["Auto", "Manual"], &[true, false])?,
            None => true,
        },
        target: target.clone().unwrap_or_else(|| PeerTarget::Nodes(NOBODY.to_owned())),
        next_hop_keep: next_hop_mode == NextHopMode::Keep,
        keep_original_next_hop,
        next_hop_self: next_hop_mode == NextHopMode::Own,
        bind_to_node_address: match spec.text("sourceAddress")? {
            Some((field, _)) => field.one_of(&["UseNodeIP", "None"], &[true, false])?,
            None => true,
        },
        max_restart_time: spec.field("maxRestartTime").map(|field| validate::duration(&field)).transpose()?,
        keepalive_time: spec.field("keepaliveTime").map(|field| validate::duration(&field)).transpose()?,
        ttl_security: match spec.field("ttlSecurity") {
            Some(field) => Some(field.number(0, u8::MAX.into())?).filter(|hops| *hops > 0),
            None => None,
        },
        bfd: match spec.text("failureDetectionMode")? {
            Some((field, _)) => field.one_of(&["None", "BFDIfDirectlyConnected"], &[false, true])?,
            None => false,
        },
        password: secret_key(spec, "password")?,
    };
    match target {
        Some(_) => Ok(Outcome::of(Resource::BgpPeer(peer))),
        None => Ok(Outcome::nothing_because_of("spec.peerIP".to_owned(), spec.position())),
    }
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
    if let Some(selector) = validate::plain_selector(spec, "nodeSelector")? {
        return Ok(PeerNodes::Selected(selector));
    }
    match spec.text("node")? {
        Some((field, _)) => Ok(PeerNodes::Named(validate::name(&field)?)),
        None => Ok(PeerNodes::All),
    }
}

/// Nothing where no field says with whom: such a peer is legal in Calico, and there are no sessions with it.
fn target(spec: &Object<'_>) -> Result<Option<PeerTarget>, Fault> {
    if let Some(selector) = validate::plain_selector(spec, "peerSelector")? {
        return Ok(Some(PeerTarget::Nodes(selector)));
    }
    if let Some(selector) = validate::plain_selector(spec, "localWorkloadSelector")? {
        // Workloads are in no resource's AS, so it has to be given; 0 is none given.
        let field = spec.required("asNumber")?;
        if validate::as_number(&field)? == AsNumber(0) {
            return Err(field.fault(Reason::Missing));
        }
        return Ok(Some(PeerTarget::LocalWorkloads(selector)));
    }
    let Some((peer_ip, _)) = spec.text("peerIP")? else { return Ok(None) };
    Ok(Some(PeerTarget::Address(validate::peer_ip(&peer_ip)?)))
}

/// Nodes have AS numbers of their own, so none need be given for them, nor may be for those that a selector finds. 0, Go's
/// zero value, is none given.
fn as_number(spec: &Object<'_>, target: Option<&PeerTarget>) -> Result<Option<AsNumber>, Fault> {
    let Some(field) = spec.field("asNumber") else { return Ok(None) };
    let number = Some(validate::as_number(&field)?).filter(|number| *number != AsNumber(0));
    match (number, target) {
        (Some(_), Some(PeerTarget::Nodes(_))) => Err(field.fault(Reason::Exclusive("spec.peerSelector"))),
        (number, _) => Ok(number),
    }
}

/// A gateway of the peer's own family.
fn reachable_by(spec: &Object<'_>, target: Option<&PeerTarget>) -> Result<Option<IpAddr>, Fault> {
    let Some((field, _)) = spec.text("reachableBy")? else { return Ok(None) };
    let gateway = validate::peer_address(&field)?;
    match target {
        Some(PeerTarget::Address(peer)) if peer.is_ipv4() != gateway.is_ipv4() => {
            Err(field
                .fault(Reason::WrongFamily { given: gateway.to_string(), expected: Family::of(peer.ip()) }))
        }
        Some(PeerTarget::Address(_)) => Ok(Some(gateway)),
        None => Err(field.fault(Reason::Needs("spec.peerIP"))),
        Some(PeerTarget::Nodes(_)) => Err(field.fault(Reason::Exclusive("spec.peerSelector"))),
        Some(PeerTarget::LocalWorkloads(_)) => {
            Err(field.fault(Reason::Exclusive("spec.localWorkloadSelector")))
        }
    }
}

/// `secretKeyRef`: the name of a Secret, and which of its entries.
pub(super) fn secret_key(spec: &Object<'_>, name: &str) -> Result<Option<SecretKey>, Fault> {
    let password = spec.object(name)?;
    if password.field("secretKeyRef").is_none() {
        return Ok(None);
    }
    let reference = password.object("secretKeyRef")?;
    let text = |name| Ok(reference.text(name)?.map(|(_, text)| text.to_owned()).unwrap_or_default());
    Ok(Some(SecretKey { name: text("name")?, key: text("key")? }))
}

/// `nextHopMode`, which took the place of `keepOriginalNextHop`: they never stand together.
fn next_hop_mode(spec: &Object<'_>, keep_original_next_hop: bool) -> Result<NextHopMode, Fault> {
    let Some((field, _)) = spec.text("nextHopMode")? else { return Ok(NextHopMode::Auto) };
    if keep_original_next_hop {
        return Err(field.fault(Reason::Exclusive("spec.keepOriginalNextHop")));
    }
    field.one_of(&["Auto", "Self", "Keep"], &[NextHopMode::Auto, NextHopMode::Own, NextHopMode::Keep])
}

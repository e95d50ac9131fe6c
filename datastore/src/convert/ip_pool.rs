//! IPPool (`api/pkg/apis/projectcalico/v3/ippool.go`).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use model::{EncapMode, Family, IpPool, Prefix, Resource};

use super::{Identity, Outcome};
use crate::fields::{Fault, Object};
use crate::invalid::Reason;
use crate::validate;

const ENCAP_WORDS: &[&str] = &["Never", "Always", "CrossSubnet"];
const ENCAP_MODES: &[EncapMode] = &[EncapMode::Never, EncapMode::Always, EncapMode::CrossSubnet];
const ALLOWED_USES: &[&str] = &["Workload", "Tunnel", "LoadBalancer"];

pub(super) fn convert(identity: &Identity<'_>, spec: &Object<'_>) -> Result<Outcome, Fault> {
    let pool = IpPool {
        name: identity.name.clone(),
        cidr: cidr(spec)?,
        ipip_mode: encap_mode(spec, "ipipMode")?,
        vxlan_mode: encap_mode(spec, "vxlanMode")?,
        nat_outgoing: spec.flag("natOutgoing")?.unwrap_or(false),
        disabled: spec.flag("disabled")?.unwrap_or(false),
        disable_bgp_export: spec.flag("disableBGPExport")?.unwrap_or(false),
    };
    check_encapsulation(spec, &pool)?;
    check_block_size(spec, &pool)?;
    check_allowed_uses(spec, &pool)?;
    // Which namespaces a pool is for matters to who hands out its addresses.
    validate::selector(spec, "namespaceSelector")?;
    Ok(Outcome::of(Resource::IpPool(pool)))
}

fn cidr(spec: &Object<'_>) -> Result<Prefix, Fault> {
    let (field, _) = spec.required_text("cidr")?;
    let cidr = validate::masked_prefix(&field)?;
    let link_local = link_local(cidr.family());
    if link_local.covers(cidr) || cidr.covers(link_local) {
        return Err(field.fault(Reason::LinkLocal(link_local)));
    }
    Ok(cidr)
}

/// RFC 3927 §2.1 and RFC 4291 §2.5.6.
fn link_local(family: Family) -> Prefix {
    let (addr, len) = match family {
        Family::V4 => (IpAddr::V4(Ipv4Addr::new(169, 254, 0, 0)), 16),
        Family::V6 => (IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0)), 10),
    };
    Prefix::new(addr, len).unwrap_or(Prefix::host(addr))
}

fn encap_mode(spec: &Object<'_>, name: &str) -> Result<EncapMode, Fault> {
    match spec.text(name)? {
        Some((field, _)) => field.one_of(ENCAP_WORDS, ENCAP_MODES),
        None => Ok(EncapMode::Never),
    }
}

fn check_encapsulation(spec: &Object<'_>, pool: &IpPool) -> Result<(), Fault> {
    if pool.ipip_mode == EncapMode::Never {
        return Ok(());
    }
    let ipip = spec.required("ipipMode")?;
    if pool.cidr.family() == Family::V6 {
        return Err(ipip.fault(Reason::IpipOnV6));
    }
    if pool.vxlan_mode != EncapMode::Never {
        return Err(ipip.fault(Reason::BothEncapsulations));
    }
    Ok(())
}

/// Blocks are what IPAM hands to nodes; only an enabled pool hands out any.
fn check_block_size(spec: &Object<'_>, pool: &IpPool) -> Result<(), Fault> {
    let (min, max, default) = match pool.cidr.family() {
        Family::V4 => (20, 32, 26),
        Family::V6 => (116, 128, 122),
    };
    let block_size = match spec.field("blockSize") {
        // Go's writers leave a zero for "not given".
        Some(field) if field.number::<u8>(0, max)? == 0 => default,
        Some(field) => field.number(min, max)?,
        None => default,
    };
    if !pool.disabled && pool.cidr.len() > block_size {
        return Err(spec.required("cidr")?.fault(Reason::PoolSmallerThanBlock { block_size }));
    }
    Ok(())
}

/// A pool for load balancers' addresses is for nothing else and for all nodes, and no workload's packets go there.
fn check_allowed_uses(spec: &Object<'_>, pool: &IpPool) -> Result<(), Fault> {
    let nodes = validate::selector(spec, "nodeSelector")?;
    let Some(uses) = spec.field("allowedUses") else { return Ok(()) };
    let mut given = Vec::new();
    for item in uses.items()? {
        given.push(item.one_of(ALLOWED_USES, ALLOWED_USES)?);
    }
    if given.contains(&"LoadBalancer") {
        if given.len() > 1 {
            return Err(uses.fault(Reason::Exclusive("LoadBalancer")));
        }
        if pool.disable_bgp_export {
            return Err(uses.fault(Reason::Exclusive("spec.disableBGPExport")));
        }
        if (pool.ipip_mode, pool.vxlan_mode) != (EncapMode::Never, EncapMode::Never) {
            return Err(uses.fault(Reason::Exclusive("spec.ipipMode or spec.vxlanMode")));
        }
        if nodes.is_some_and(|nodes| nodes != "all()") {
            return Err(uses.fault(Reason::Exclusive("spec.nodeSelector")));
        }
    }
    if given.contains(&"Tunnel") && spec.text("namespaceSelector")?.is_some() {
        return Err(uses.fault(Reason::Exclusive("spec.namespaceSelector")));
    }
    Ok(())
}

//! The addresses of the node's ends of tunnels, of pools that are encapsulated (`node/pkg/allocateip`).

use std::collections::BTreeMap;
use std::net::IpAddr;

use anyhow::{Context, bail};
use datastore::ipam::{Assign, AutoAssign, Ipam, IpamError, Pool, Release, Use};
use datastore::{ResourceKind, Store, StoreError};
use model::{EncapMode, Family, Prefix};
use serde_json::{Value, json};

use super::resources::{Resource, Resources};

/// A kind of tunnel: what its address is called in IPAM and in the node's resource.
struct Tunnel {
    handle: &'static str,
    attribute: &'static str,
    /// The path in `spec`.
    field: &'static [&'static str],
    family: Family,
    /// Does a pool ask for it?
    asked_by: fn(&Pool) -> bool,
}

const TUNNELS: [Tunnel; 3] = [
    Tunnel {
        handle: "ipip-tunnel-addr-",
        attribute: "ipipTunnelAddress",
        field: &["bgp", "ipv4IPIPTunnelAddr"],
        family: Family::V4,
        asked_by: |pool| pool.ipip != EncapMode::Never,
    },
    Tunnel {
        handle: "vxlan-tunnel-addr-",
        attribute: "vxlanTunnelAddress",
        field: &["ipv4VXLANTunnelAddr"],
        family: Family::V4,
        asked_by: |pool| pool.vxlan != EncapMode::Never,
    },
    Tunnel {
        handle: "vxlan-v6-tunnel-addr-",
        attribute: "vxlanV6TunnelAddress",
        field: &["ipv6VXLANTunnelAddr"],
        family: Family::V6,
        asked_by: |pool| pool.vxlan != EncapMode::Never,
    },
];

/// Gives each kind of tunnel an address where a pool asks for it, and takes it back where none does.
///
/// # Errors
/// The node isn't there, no address is left, or the store.
pub(super) fn reconcile(store: &dyn Store, name: &str) -> anyhow::Result<()> {
    let resources = Resources::new(store);
    let ipam = Ipam::new(store);
    let mut node = resources.get_or_new(ResourceKind::Node, name)?;
    if node.revision.is_none() {
        bail!("failed to fetch node resource '{name}'");
    }
    let labels = labels(&node.value);
    let pools = ipam.pools()?;
    let before = node.value.clone();
    let mut assigned = Vec::new();
    for tunnel in &TUNNELS {
        let networks = asking(&pools, tunnel, &labels);
        let handle = format!("{}{name}", tunnel.handle);
        let outcome = if networks.is_empty() {
            release(&ipam, &mut node, tunnel, &handle).map(|()| false)
        } else {
            ensure(&ipam, &mut node, name, tunnel, &handle, &networks)
        };
        match outcome {
            Ok(true) => assigned.push(handle),
            Ok(false) => {}
            Err(error) => {
                give_back(&ipam, &assigned);
                return Err(error).with_context(|| format!("{handle}: no address"));
            }
        }
    }
    if node.value == before {
        return Ok(());
    }
    // Where this fails, nobody knows whether it was written after all: what was assigned stays, and the next pass keeps it or
    // gives it back by its handle.
    resources.write(&node)?;
    for tunnel in &TUNNELS {
        tracing::info!(node = name, address = node.text(tunnel.field), "{}", tunnel.attribute);
    }
    Ok(())
}

fn give_back(ipam: &Ipam<'_>, handles: &[String]) {
    for handle in handles {
        if let Err(error) = ipam.release_by_handle(handle) {
            tracing::warn!(handle, "a tunnel's address stays assigned: {error}");
        }
    }
}

fn labels(node: &Value) -> BTreeMap<String, String> {
    let labels = node["metadata"]["labels"].as_object().into_iter().flatten();
    labels.filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned()))).collect()
}

/// The networks of pools that ask this node for such a tunnel.
fn asking(pools: &[Pool], tunnel: &Tunnel, labels: &BTreeMap<String, String>) -> Vec<Prefix> {
    let asks = |pool: &&Pool| {
        pool.enabled
            && pool.cidr.family() == tunnel.family
            && pool.uses.contains(&Use::Tunnel)
            && (tunnel.asked_by)(pool)
            // A selector that can't be read selects nobody.
            && pool.selects_node(labels).unwrap_or(false)
    };
    pools.iter().filter(asks).map(|pool| pool.cidr).collect()
}

/// What is to be done about the address that the node's resource names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Keep,
    /// A new one; the old is another's.
    Assign,
    /// A new one, and whatever the handle has goes back first.
    Replace,
    /// The same one anew: it is from before tunnels' addresses had handles.
    Mark,
}

fn step(
    ipam: &Ipam<'_>,
    node: &str,
    tunnel: &Tunnel,
    addr: Option<IpAddr>,
    networks: &[Prefix],
) -> anyhow::Result<Step> {
    // Whatever the handle has besides, nobody knows of it any more.
    let Some(addr) = addr else { return Ok(Step::Replace) };
    match ipam.assignment(addr) {
        Ok(held) => {
            let of = |name: &str| held.owner.get(name).map(String::as_str);
            let is_ours = of("type") == Some(tunnel.attribute) && of("node") == Some(node);
            let fits = networks.iter().any(|network| network.contains(addr));
            Ok(match (is_ours, fits) {
                (true, true) => Step::Keep,
                (true, false) => Step::Replace,
                (false, _) if held.owner.is_empty() && held.handle.is_none() => Step::Mark,
                (false, _) => Step::Assign,
            })
        }
        Err(error) if error.is_not_found() => Ok(Step::Replace),
        Err(IpamError::CoolingDown(_)) => Ok(Step::Replace),
        Err(error) => Err(error).with_context(|| format!("failed to get assignment attributes for '{addr}'")),
    }
}

/// Sees to it that the node has an address for its end of a tunnel. Is it a new one?
fn ensure(
    ipam: &Ipam<'_>,
    node: &mut Resource,
    name: &str,
    tunnel: &Tunnel,
    handle: &str,
    networks: &[Prefix],
) -> anyhow::Result<bool> {
    let stored = node.text(tunnel.field).to_owned();
    let addr: Option<IpAddr> = match stored.as_str() {
        "" => None,
        text => Some(text.parse().with_context(|| format!("failed to parse the address '{text}'"))?),
    };
    let owner = BTreeMap::from([
        ("node".to_owned(), name.to_owned()),
        ("type".to_owned(), tunnel.attribute.to_owned()),
    ]);
    let mut step = step(ipam, name, tunnel, addr, networks)?;
    if let (Step::Mark, Some(addr)) = (step, addr) {
        ipam.release(&[Release::of(addr)])?;
        let again = Assign { addr, node: name, handle: Some(handle), owner: owner.clone(), usage: None };
        match ipam.assign(&again) {
            Ok(()) => return Ok(false),
            Err(IpamError::AlreadyAssigned(_)) => step = Step::Assign,
            Err(error) => return Err(error.into()),
        }
    }
    match step {
        Step::Keep | Step::Mark => return Ok(false),
        Step::Assign => {}
        Step::Replace => release_handle(ipam, handle)?,
    }
    let request = AutoAssign {
        count: 1,
        family: tunnel.family,
        node: name,
        handle: Some(handle),
        owner,
        pools: networks,
        namespace: BTreeMap::new(),
        usage: Use::Tunnel,
        max_blocks: 0,
    };
    let assigned = ipam.auto_assign(&request)?;
    let Some(addr) = assigned.addresses.first() else {
        bail!(assigned.shortfall.unwrap_or_default());
    };
    set(&mut node.value, tunnel, Some(*addr));
    Ok(true)
}

/// Takes the address of a tunnel that no pool asks for off the node, and gives it back.
fn release(ipam: &Ipam<'_>, node: &mut Resource, tunnel: &Tunnel, handle: &str) -> anyhow::Result<()> {
    let addr = node.text(tunnel.field).parse::<IpAddr>().ok();
    set(&mut node.value, tunnel, None);
    match ipam.release_by_handle(handle) {
        Ok(()) => return Ok(()),
        Err(error) if error.is_not_found() => {}
        Err(error) => return Err(error.into()),
    }
    // There is no handle: the address may be from before there were any, or its handle was lost.
    let Some(addr) = addr else { return Ok(()) };
    match ipam.assignment(addr) {
        Ok(held)
            if held.handle.as_deref() == Some(handle) || (held.handle.is_none() && held.owner.is_empty()) =>
        {
            ipam.release(&[Release { handle: held.handle, ..Release::of(addr) }])?;
            Ok(())
        }
        Ok(held) => {
            tracing::warn!(%addr, ?held, "the tunnel's address is another's by now");
            Ok(())
        }
        Err(IpamError::CoolingDown(_)) => Ok(()),
        Err(error) if error.is_not_found() => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn release_handle(ipam: &Ipam<'_>, handle: &str) -> anyhow::Result<()> {
    match ipam.release_by_handle(handle) {
        Ok(()) | Err(IpamError::Store(StoreError::NotFound(_))) => Ok(()),
        Err(error) => Err(error).context("failed to release old addresses"),
    }
}

/// Names the address in the node's resource, or leaves the field out. A BGP section isn't to be empty.
fn set(node: &mut Value, tunnel: &Tunnel, addr: Option<IpAddr>) {
    let Some((field, sections)) = tunnel.field.split_last() else { return };
    if let Some(addr) = addr {
        let section = sections.iter().fold(&mut node["spec"], |value, name| &mut value[*name]);
        section[*field] = json!(addr.to_string());
        return;
    }
    let section = sections.iter().try_fold(&mut node["spec"], |value, name| value.get_mut(*name));
    if let Some(fields) = section.and_then(Value::as_object_mut) {
        fields.remove(*field);
    }
    if node["spec"]["bgp"].as_object().is_some_and(serde_json::Map::is_empty)
        && let Some(spec) = node["spec"].as_object_mut()
    {
        spec.remove("bgp");
    }
}

//! The node's own resource: its addresses, AS number and what Kubernetes calls it.

use std::net::IpAddr;

use anyhow::{Context, bail};
use datastore::ResourceKind;
use model::{Family, InterfaceAddr};
use serde_json::{Value, json};
use slowpath::HostInterface;

use super::Variables;
use super::detect::{DetectError, Method, addresses_by_interface, detect, on_host};
use super::resources::{Resource, Resources};

/// What is asked of the host.
pub(super) struct Host<'a> {
    pub(super) interfaces: &'a [HostInterface],
    pub(super) source_towards: &'a dyn Fn(&str, Family) -> Option<IpAddr>,
}

/// The variables and the field of one family.
struct Names {
    family: Family,
    variable: &'static str,
    method: &'static str,
    field: &'static str,
}

const NAMES: [Names; 2] = [
    Names { family: Family::V4, variable: "IP", method: "IP_AUTODETECTION_METHOD", field: "ipv4Address" },
    Names { family: Family::V6, variable: "IP6", method: "IP6_AUTODETECTION_METHOD", field: "ipv6Address" },
];

/// Makes the node's resource, or completes it.
///
/// # Errors
/// No address is found or given, another node has it, or the AS number is none.
pub(super) fn configure(
    resources: &Resources<'_>,
    name: &str,
    variables: &Variables,
    host: &Host<'_>,
) -> anyhow::Result<()> {
    let mut node = resources.get_or_new(ResourceKind::Node, name)?;
    let before = node.value.clone();
    // Where Calico only does policy, nodes have no addresses.
    if variables.get("CALICO_NETWORKING_BACKEND") != "none" {
        if let Err(error) = set_addresses(&mut node, variables, host) {
            forget(resources, node, &before, variables)?;
            return Err(error);
        }
        let changed = NAMES.iter().any(|names| {
            node.text(&["bgp", names.field])
                != before["spec"]["bgp"][names.field].as_str().unwrap_or_default()
        });
        if changed && !variables.is_true("DISABLE_NODE_IP_CHECK") {
            let others = resources.list(ResourceKind::Node)?;
            if let Some((family, other)) = conflict(&node, name, &others) {
                forget(resources, node, &before, variables)?;
                bail!(
                    "{family} address conflict: node '{other}' has it already; is this node's name its own?"
                );
            }
        }
        let given = variables.get("AS");
        if !given.is_empty() {
            node.value["spec"]["bgp"]["asNumber"] = json!(as_number(&given)?);
        }
    }
    let reference = variables.get("CALICO_K8S_NODE_REF");
    if !reference.is_empty() {
        node.value["spec"]["orchRefs"] = json!([{ "nodeName": reference, "orchestrator": "k8s" }]);
    }
    if node.revision.is_some() && node.value == before {
        return Ok(());
    }
    resources.write(&node)?;
    let of = |field| node.text(&["bgp", field]);
    tracing::info!(
        node = name,
        ipv4 = of("ipv4Address"),
        ipv6 = of("ipv6Address"),
        "the node's resource is written"
    );
    Ok(())
}

fn set_addresses(node: &mut Resource, variables: &Variables, host: &Host<'_>) -> anyhow::Result<()> {
    for names in &NAMES {
        let stored = node.text(&["bgp", names.field]).to_owned();
        let given = variables.get(names.variable);
        // IPv6 is looked for only where somebody asks.
        let wanted =
            given == "autodetect" || (given.is_empty() && stored.is_empty() && names.family == Family::V4);
        let address = if wanted {
            let method = variables.get(names.method);
            let found = Method::parse(&method)
                .and_then(|method| detect(&method, names.family, host.interfaces, host.source_towards));
            match found {
                Ok(address) => address.to_string(),
                // A word that nobody knows is a mistake, whatever was found before.
                Err(why @ DetectError::Method(_)) => bail!(why),
                Err(why) if stored.is_empty() => bail!(
                    "failed to autodetect an {} address: {why}; choose another method by {} or name one by {}",
                    names.family,
                    names.method,
                    names.variable
                ),
                Err(why) => {
                    tracing::warn!(
                        address = stored,
                        "no {} address found: {why}; the old one stays",
                        names.family
                    );
                    stored
                }
            }
        } else if given == "none" || given.is_empty() {
            stored
        } else {
            given_address(names, &given, host)?.to_string()
        };
        if address.is_empty() {
            continue;
        }
        let is_here = address
            .parse::<InterfaceAddr>()
            .is_ok_and(|address| on_host(host.interfaces, address.addr).is_some());
        if !is_here {
            tracing::warn!(
                "unable to confirm that {} address {address} is assigned to this host",
                names.family
            );
        }
        node.value["spec"]["bgp"][names.field] = json!(address);
    }
    if NAMES.iter().all(|names| node.text(&["bgp", names.field]).is_empty()) {
        bail!("no IPv4 or IPv6 addresses configured or detected, required for Calico networking");
    }
    set_interfaces(node, variables, host);
    Ok(())
}

/// The host's interfaces and their addresses, of the families that the operator says something about: what
/// `spec.interfaces` tells of the node.
fn set_interfaces(node: &mut Resource, variables: &Variables, host: &Host<'_>) {
    let said = |names: &&Names| !matches!(variables.get(names.variable).as_str(), "" | "none");
    let families: Vec<Family> = NAMES.iter().filter(said).map(|names| names.family).collect();
    let Some(spec) = node.value["spec"].as_object_mut() else { return };
    if families.is_empty() {
        spec.remove("interfaces");
        return;
    }
    let interfaces = addresses_by_interface(host.interfaces, &families);
    let row = |(name, addresses): (&str, Vec<IpAddr>)| match addresses.as_slice() {
        [] => json!({ "name": name }),
        addresses => json!({ "name": name, "addresses": addresses }),
    };
    spec.insert("interfaces".to_owned(), interfaces.into_iter().map(row).collect());
}

/// An address that the operator names; without a length it gets that of the host's interface.
fn given_address(names: &Names, given: &str, host: &Host<'_>) -> anyhow::Result<InterfaceAddr> {
    let address: Option<InterfaceAddr> =
        given.parse().ok().filter(|address: &InterfaceAddr| Family::of(address.addr) == names.family);
    let address = address.with_context(|| {
        format!("environment does not contain a valid {} address: {}={given}", names.family, names.variable)
    })?;
    let network = (!given.contains('/')).then(|| on_host(host.interfaces, address.addr)).flatten();
    Ok(network.unwrap_or(address))
}

/// Takes addresses off the stored node that were found and aren't its own any more, so that another may have them.
fn forget(
    resources: &Resources<'_>,
    node: Resource,
    before: &Value,
    variables: &Variables,
) -> anyhow::Result<()> {
    if node.revision.is_none() {
        return Ok(());
    }
    let mut stale = Resource { value: before.clone(), ..node };
    for names in &NAMES {
        if variables.get(names.variable) == "autodetect"
            && let Some(bgp) = stale.value["spec"]["bgp"].as_object_mut()
        {
            bgp.remove(names.field);
        }
    }
    // A node's BGP section isn't to be empty.
    if stale.value["spec"]["bgp"].as_object().is_some_and(serde_json::Map::is_empty)
        && let Some(spec) = stale.value["spec"].as_object_mut()
    {
        spec.remove("bgp");
    }
    if stale.value == *before { Ok(()) } else { resources.write(&stale) }
}

/// Another node with an address of this one.
fn conflict(node: &Resource, name: &str, others: &[Value]) -> Option<(Family, String)> {
    let address = |text: &str| text.parse::<InterfaceAddr>().ok().map(|address| address.addr);
    for names in &NAMES {
        let Some(ours) = address(node.text(&["bgp", names.field])) else { continue };
        for other in others {
            let other_name = other["metadata"]["name"].as_str().unwrap_or_default();
            let theirs = other["spec"]["bgp"][names.field].as_str().and_then(address);
            if other_name != name && theirs == Some(ours) {
                return Some((names.family, other_name.to_owned()));
            }
        }
    }
    None
}

/// An AS number, plain or in two parts (RFC 5396).
fn as_number(text: &str) -> anyhow::Result<u32> {
    let parsed = match text.split_once('.') {
        Some((high, low)) => high
            .parse::<u16>()
            .ok()
            .zip(low.parse::<u16>().ok())
            .map(|(high, low)| u32::from(high) << 16 | u32::from(low)),
        None => text.parse().ok(),
    };
    parsed.with_context(|| format!("the AS number specified in the environment (AS={text}) is not valid"))
}

//! What has no effect here, held to Calico's rules all the same: a site's manifests are refused where calicoctl refuses
//! them (`kubecontrollersconfig.go`, `ipreservation.go`, `ipamconfig.go` of `api/pkg/apis/projectcalico/v3`).
//!
//! Who writes a resource, or asks whether it is good, is held to them. Who follows a datastore isn't: there a field that
//! nobody reads does no harm, and as with Felix it must not take the others down with it.

mod felix;

use std::net::IpAddr;

use model::{Family, InterfaceAddr, ParseAddrError};
use regex::Regex;

use crate::fields::{Fault, Field, Object};
use crate::invalid::Reason;
use crate::metadata::{self, Naming};
use crate::validate;

pub(super) const ON_OFF: &[&str] = &["Enabled", "Disabled"];
const SEVERITIES: &[&str] = &["None", "Debug", "Info", "Warning", "Error", "Fatal", "Panic"];
/// Longest time for which an address rests, in seconds.
const COOLDOWN_MAX: i64 = 1200;
/// Most blocks that a node may claim.
const BLOCKS_MAX: i64 = 1_000_000;

/// The first rule of Calico's that such a field of a resource breaks.
pub(crate) fn check(kind: &str, resource: &Object<'_>) -> Result<(), Fault> {
    let spec = &resource.object("spec")?;
    match kind {
        "FelixConfiguration" => felix::check(spec),
        "Node" => node(spec, &resource.object("status")?),
        "IPPool" => pool(spec),
        "IPReservation" => networks(spec, "reservedCIDRs"),
        "IPAMConfiguration" => {
            spec.field("maxBlocksPerHost").map(|field| field.number::<i64>(0, BLOCKS_MAX)).transpose()?;
            spec.field("ipCooldownSeconds").map(|field| field.number::<i64>(0, COOLDOWN_MAX)).transpose()?;
            word(spec, "kubeVirtVMAddressPersistence", ON_OFF)
        }
        "KubeControllersConfiguration" => kube_controllers(spec),
        _ => Ok(()),
    }
}

/// Whom IPAM may give addresses of a pool, and when.
fn pool(spec: &Object<'_>) -> Result<(), Fault> {
    word(spec, "assignmentMode", &["Automatic", "Manual"])?;
    for name in ["nodeSelector", "namespaceSelector"] {
        validate::plain_selector(spec, name)?;
    }
    Ok(())
}

/// WireGuard's addresses and keys.
fn node(spec: &Object<'_>, status: &Object<'_>) -> Result<(), Fault> {
    let wireguard = spec.object("wireguard")?;
    for (name, expected) in [("interfaceIPv4Address", Family::V4), ("interfaceIPv6Address", Family::V6)] {
        let Some((field, text)) = wireguard.text(name)? else { continue };
        let given = text.to_owned();
        let bad = |_| field.fault(ParseAddrError { expected: "IP address", given: given.clone() });
        if Family::of(text.parse::<IpAddr>().map_err(bad)?) != expected {
            return Err(field.fault(Reason::WrongFamily { given, expected }));
        }
    }
    let is_letter = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/');
    let is_key = |letters: &str| letters.len() == 43 && letters.bytes().all(is_letter);
    for name in ["wireguardPublicKey", "wireguardPublicKeyV6"] {
        if let Some((field, text)) = status.text(name)?
            && !text.strip_suffix('=').is_some_and(is_key)
        {
            return Err(field.fault(Reason::BadForm { expected: "a WireGuard key", given: text.to_owned() }));
        }
    }
    Ok(())
}

/// One of these words, where the field is given.
pub(super) fn word(of: &Object<'_>, name: &str, words: &'static [&'static str]) -> Result<(), Fault> {
    match of.text(name)? {
        Some((field, given)) if !words.contains(&given) => {
            Err(field.fault(Reason::NotOneOf { allowed: words, given: given.to_owned() }))
        }
        _ => Ok(()),
    }
}

/// The items of a list, which may be absent.
pub(super) fn items<'a>(
    of: &Object<'a>,
    name: &str,
) -> Result<impl Iterator<Item = Field<'a>> + use<'a>, Fault> {
    Ok(of.field(name).map(|list| list.items()).transpose()?.into_iter().flatten())
}

fn port(of: &Object<'_>, name: &str) -> Result<(), Fault> {
    of.field(name).map(|field| field.number::<i64>(0, u16::MAX.into())).transpose().map(drop)
}

/// Networks that may have host bits, and addresses.
fn networks(of: &Object<'_>, name: &str) -> Result<(), Fault> {
    for item in items(of, name)? {
        item.parse::<InterfaceAddr>()?;
    }
    Ok(())
}

fn kube_controllers(spec: &Object<'_>) -> Result<(), Fault> {
    word(spec, "logSeverityScreen", SEVERITIES)?;
    word(spec, "healthChecks", ON_OFF)?;
    port(spec, "prometheusMetricsPort")?;
    port(spec, "debugProfilePort")?;
    let controllers = spec.object("controllers")?;
    word(&controllers.object("loadBalancer")?, "assignIPs", &["AllServices", "RequestedServicesOnly"])?;
    word(&controllers.object("policyMigration")?, "enabled", ON_OFF)?;
    let node = controllers.object("node")?;
    word(&node, "syncLabels", ON_OFF)?;
    let endpoints = node.object("hostEndpoint")?;
    word(&endpoints, "autoCreate", ON_OFF)?;
    word(&endpoints, "createDefaultHostEndpoint", ON_OFF)?;
    for item in items(&endpoints, "templates")? {
        template(&item.object()?)?;
    }
    Ok(())
}

/// What host endpoints are made after.
fn template(template: &Object<'_>) -> Result<(), Fault> {
    if let Some((field, _)) = template.text("generateName")? {
        Naming::Subdomain.check("HostEndpoint", &field)?;
    }
    networks(template, "interfaceCIDRs")?;
    if let Some((field, given)) = template.text("interfacePattern")?
        && Regex::new(given).is_err()
    {
        let expected = "a regular expression";
        return Err(field.fault(Reason::BadForm { expected, given: given.to_owned() }));
    }
    metadata::labels(&template.object("labels")?)?;
    metadata::annotations(template)?;
    validate::selector(template, "nodeSelector").map(drop)
}

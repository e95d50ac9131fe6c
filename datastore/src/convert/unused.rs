//! Kinds that have no effect here, held to Calico's rules all the same: a site's manifests are refused where calicoctl
//! refuses them (`kubecontrollersconfig.go`, `ipreservation.go`, `ipamconfig.go` of `api/pkg/apis/projectcalico/v3`).

use model::InterfaceAddr;
use regex::Regex;

use crate::fields::{Fault, Object};
use crate::invalid::Reason;
use crate::metadata::{self, Naming};
use crate::validate;

const ON_OFF: &[&str] = &["Enabled", "Disabled"];
const SEVERITIES: &[&str] = &["None", "Debug", "Info", "Warning", "Error", "Fatal", "Panic"];
/// Longest time for which an address rests, in seconds.
const COOLDOWN_MAX: i64 = 1200;

/// The first rule of Calico's that the `spec` of such a kind breaks.
pub(crate) fn check(kind: &str, spec: &Object<'_>) -> Result<(), Fault> {
    match kind {
        "IPReservation" => networks(spec, "reservedCIDRs"),
        "IPAMConfiguration" => {
            spec.field("maxBlocksPerHost").map(|field| field.number::<i64>(0, i64::MAX)).transpose()?;
            spec.field("ipCooldownSeconds").map(|field| field.number::<i64>(0, COOLDOWN_MAX)).transpose()?;
            Ok(())
        }
        "KubeControllersConfiguration" => kube_controllers(spec),
        _ => Ok(()),
    }
}

fn word(of: &Object<'_>, name: &str, words: &'static [&'static str]) -> Result<(), Fault> {
    match of.text(name)? {
        Some((field, given)) if !words.contains(&given) => {
            Err(field.fault(Reason::NotOneOf { allowed: words, given: given.to_owned() }))
        }
        _ => Ok(()),
    }
}

/// Networks that may have host bits, and addresses.
fn networks(of: &Object<'_>, name: &str) -> Result<(), Fault> {
    for item in of.field(name).map(|list| list.items()).transpose()?.into_iter().flatten() {
        item.parse::<InterfaceAddr>()?;
    }
    Ok(())
}

fn kube_controllers(spec: &Object<'_>) -> Result<(), Fault> {
    word(spec, "logSeverityScreen", SEVERITIES)?;
    word(spec, "healthChecks", ON_OFF)?;
    let controllers = spec.object("controllers")?;
    word(&controllers.object("loadBalancer")?, "assignIPs", &["AllServices", "RequestedServicesOnly"])?;
    word(&controllers.object("policyMigration")?, "enabled", ON_OFF)?;
    let node = controllers.object("node")?;
    word(&node, "syncLabels", ON_OFF)?;
    let endpoints = node.object("hostEndpoint")?;
    word(&endpoints, "autoCreate", ON_OFF)?;
    word(&endpoints, "createDefaultHostEndpoint", ON_OFF)?;
    for item in endpoints.field("templates").map(|list| list.items()).transpose()?.into_iter().flatten() {
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

//! BGPConfiguration (`api/pkg/apis/projectcalico/v3/bgpconfig.go`).

use model::{BgpConfiguration, Resource};

use super::{Identity, Outcome, refuse_unsupported};
use crate::fields::{Fault, Field, Object};
use crate::invalid::Reason;
use crate::validate;

/// Asking for these and getting nothing is worth a line in the log.
const UNUSED: &[&str] = &[
    "bindMode",
    "communities",
    "ignoredInterfaces",
    "ipv4NormalRoutePriority",
    "ipv6NormalRoutePriority",
    "localWorkloadPeeringIPV4",
    "localWorkloadPeeringIPV6",
    "prefixAdvertisements",
    "serviceClusterIPs",
    "serviceExternalIPs",
    "serviceLoadBalancerIPs",
];
/// Without it, every session of the mesh would fail without a word.
const UNSUPPORTED: &[(&str, &str)] = &[("nodeMeshPassword", "spec.nodeMeshPassword")];
/// The mesh and the AS are the cluster's, not one node's.
const DEFAULT_ONLY: &[&str] = &["nodeToNodeMeshEnabled", "asNumber", "nodeMeshMaxRestartTime"];

pub(super) fn convert(identity: &Identity<'_>, spec: &Object<'_>) -> Result<Outcome, Fault> {
    check_name(identity)?;
    refuse_unsupported(spec, UNSUPPORTED)?;
    if identity.name != "default"
        && let Some(field) = DEFAULT_ONLY.iter().find_map(|name| spec.field(name))
    {
        return Err(field.fault(Reason::DefaultOnly));
    }
    let config = BgpConfiguration {
        name: identity.name.clone(),
        node_to_node_mesh: spec.flag("nodeToNodeMeshEnabled")?,
        as_number: spec.field("asNumber").map(|field| validate::as_number(&field)).transpose()?,
        listen_port: spec.field("listenPort").map(|field| validate::port(&field)).transpose()?,
        mesh_max_restart_time: spec
            .field("nodeMeshMaxRestartTime")
            .map(|field| validate::duration(&field))
            .transpose()?,
    };
    let mut outcome = Outcome::of(Resource::BgpConfiguration(config));
    for field in UNUSED.iter().filter_map(|name| spec.field(name)).filter(|field| !says_nothing(field)) {
        outcome.unused.push((field.path().to_owned(), field.position()));
    }
    Ok(outcome)
}

/// `bindMode: None` is the default in words.
fn says_nothing(field: &Field<'_>) -> bool {
    field.is_empty() || field.text() == Ok("None")
}

fn check_name(identity: &Identity<'_>) -> Result<(), Fault> {
    let per_node = identity.name.strip_prefix("node.").is_some_and(|node| !node.is_empty());
    if identity.name == "default" || per_node {
        return Ok(());
    }
    Err(identity.name_field.fault(Reason::BadBgpConfigurationName(identity.name.clone())))
}

//! NetworkSet and GlobalNetworkSet (`api/pkg/apis/projectcalico/v3/networkset.go`, `globalnetworkset.go`).

use model::{NetworkSet, Prefix, Resource};

use super::workload_endpoint::NAMESPACE_LABEL;
use super::{Identity, Outcome};
use crate::fields::{Fault, Object};
use crate::invalid::Reason;
use crate::metadata::Naming;

/// Converts a set of a namespace, or a global one.
pub(super) fn convert(
    namespace: Option<&String>,
    identity: &Identity<'_>,
    spec: &Object<'_>,
) -> Result<Outcome, Fault> {
    let kind = if namespace.is_some() { "NetworkSet" } else { "GlobalNetworkSet" };
    Naming::Subdomain.check(kind, &identity.name_field)?;
    let mut labels = identity.labels.clone();
    if labels.contains_key(NAMESPACE_LABEL) {
        return Err(identity.name_field.fault(Reason::ReservedLabel(NAMESPACE_LABEL)));
    }
    if let Some(namespace) = namespace {
        labels.insert(NAMESPACE_LABEL.to_owned(), namespace.clone());
    }
    let nets = match spec.field("nets") {
        Some(nets) => nets.items()?.map(|net| net.parse()).collect::<Result<Vec<Prefix>, Fault>>()?,
        None => Vec::new(),
    };
    let name = identity.name.clone();
    Ok(Outcome::of(Resource::NetworkSet(NetworkSet { namespace: namespace.cloned(), name, labels, nets })))
}

//! WorkloadEndpoint (`libcalico-go/lib/apis/internalapi/workloadendpoint.go`).

use model::{Resource, WorkloadEndpoint};

use super::{Identity, Outcome};
use crate::fields::{Fault, Object};
use crate::validate;

pub(super) fn convert(identity: &Identity<'_>, spec: &Object<'_>) -> Result<Outcome, Fault> {
    let (node, _) = spec.required_text("node")?;
    let (interface, _) = spec.required_text("interfaceName")?;
    let mut ip_networks = Vec::new();
    if let Some(networks) = spec.field("ipNetworks") {
        for item in networks.items()? {
            ip_networks.push(validate::single_address(&item)?);
        }
    }
    let endpoint = WorkloadEndpoint {
        namespace: identity.namespace.clone(),
        name: identity.name.clone(),
        node: validate::name(&node)?,
        interface: validate::interface_name(&interface)?,
        mac: spec.text("mac")?.map(|(field, _)| field.parse()).transpose()?,
        ip_networks,
    };
    if endpoint.ip_networks.is_empty() {
        // Calico leaves such an endpoint out of its dataplane altogether.
        return Ok(Outcome::nothing_because_of("spec.ipNetworks".to_owned(), spec.position()));
    }
    Ok(Outcome::of(Resource::WorkloadEndpoint(endpoint)))
}

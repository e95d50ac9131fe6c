//! The name that Calico makes of a WorkloadEndpoint's fields (`libcalico-go/lib/names/workloadendpoint.go`).
//!
//! Four parts joined by `-`; a `-` inside a part is doubled, so that the parts can be told apart again.

use crate::fields::{Fault, Object};
use crate::invalid::Reason;

/// Makes the name of `spec`'s fields.
pub(crate) fn name(spec: &Object<'_>) -> Result<String, Fault> {
    let text = |name| Ok::<_, Fault>(spec.text(name)?.map_or("", |(_, text)| text));
    let orchestrator = text("orchestrator")?;
    let (third, value) = match orchestrator {
        "k8s" => ("spec.pod", text("pod")?),
        "cni" => ("spec.containerID", text("containerID")?),
        "libnetwork" => ("spec.orchestrator", orchestrator),
        _ => ("spec.workload", text("workload")?),
    };
    let parts = [
        ("spec.node", text("node")?),
        ("spec.orchestrator", orchestrator),
        (third, value),
        ("spec.endpoint", text("endpoint")?),
    ];
    for (field, part) in parts {
        if part.is_empty() || part.starts_with('-') || part.ends_with('-') {
            return Err(spec.fault(Reason::NoName(field)));
        }
    }
    Ok(parts.map(|(_, part)| part.replace('-', "--")).join("-"))
}

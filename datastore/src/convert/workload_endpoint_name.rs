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
    let bad = parts.into_iter().find(|(_, part)| !is_part(part)).map_or("", |(field, _)| field);
    join(parts.map(|(_, part)| part)).ok_or_else(|| spec.fault(Reason::NoName(bad)))
}

/// Joins the parts, none of which may be empty, or begin or end with `-`.
pub(crate) fn join(parts: [&str; 4]) -> Option<String> {
    parts.into_iter().all(is_part).then(|| parts.map(|part| part.replace('-', "--")).join("-"))
}

fn is_part(part: &str) -> bool {
    !part.is_empty() && !part.starts_with('-') && !part.ends_with('-')
}

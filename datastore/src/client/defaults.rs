//! What Calico's client fills in before it stores a resource.

use serde_json::{Value, json};

use super::{ApiObject, ClientError, DEFAULT_ALLOW, ErroredField, TIER_LABEL};
use crate::ResourceKind;
use crate::convert::join_endpoint_name;

/// Order of a tier that gives none (`api/pkg/apis/projectcalico/v3/tier.go`).
const TIER_ORDER: u64 = 1_000_000;

/// The tier that a policy names.
pub(super) fn tier_of(policy: &ApiObject) -> &str {
    match policy.spec_text("tier") {
        "" => "default",
        tier => tier,
    }
}

/// The profile that allows everything.
pub(super) fn default_allow() -> ApiObject {
    let mut profile = ApiObject::named(ResourceKind::Profile, "", DEFAULT_ALLOW);
    for direction in ["ingress", "egress"] {
        profile.set_spec(direction, json!([{ "action": "Allow" }]));
    }
    profile.set_text("resourceVersion", "1");
    profile
}

/// Types follow from the rules that there are, and a tier of its own is told by a label.
pub(super) fn policy(policy: &mut ApiObject, tier: &str) {
    let has = |direction: &str| policy.spec(direction).as_array().is_some_and(|rules| !rules.is_empty());
    let types = match (has("ingress"), has("egress")) {
        (_, false) => json!(["Ingress"]),
        (false, true) => json!(["Egress"]),
        (true, true) => json!(["Ingress", "Egress"]),
    };
    if policy.spec_text("stagedAction") == "Delete" {
        policy.set_spec("types", Value::Null);
    } else {
        policy.default_spec("types", types);
    }
    if tier != "default" {
        policy.set_label(TIER_LABEL, tier);
    }
}

pub(super) fn tier(tier: &mut ApiObject) {
    tier.default_spec("order", TIER_ORDER);
    tier.default_spec("defaultAction", "Deny");
}

/// Those that have defaults in the resource itself (`clientv3/felixconfig.go`).
pub(super) fn felix(felix: &mut ApiObject) {
    felix.default_spec("floatingIPs", "Disabled");
    felix.default_spec("bpfConnectTimeLoadBalancing", "TCP");
    felix.default_spec("bpfHostNetworkedNATWithoutCTLB", "Enabled");
    if let Some(enabled) = felix.spec("bpfConnectTimeLoadBalancingEnabled").as_bool() {
        felix.set_spec("bpfHostNetworkedNATWithoutCTLB", "Disabled");
        felix.set_spec("bpfConnectTimeLoadBalancing", if enabled { "Enabled" } else { "Disabled" });
    }
}

/// The name follows from the fields, and two labels do.
pub(super) fn workload_endpoint(endpoint: &mut ApiObject) -> Result<(), ClientError> {
    let part = |name: &str| endpoint.spec_text(name).to_owned();
    let orchestrator = part("orchestrator");
    let (third, workload) = match orchestrator.as_str() {
        "k8s" => ("Pod", part("pod")),
        "cni" => ("ContainerID", part("containerID")),
        "libnetwork" => ("Orchestrator", orchestrator.clone()),
        _ => ("Workload", part("workload")),
    };
    let parts = [
        ("Node", part("node")),
        ("Orchestrator", orchestrator.clone()),
        (third, workload),
        ("Endpoint", part("endpoint")),
    ];
    let Some(expected) = join_endpoint_name(parts.each_ref().map(|(_, part)| part.as_str())) else {
        let (field, value) =
            parts.iter().find(|(_, part)| join_endpoint_name([part; 4]).is_none()).unwrap_or(&parts[0]);
        let reason = "a WorkloadEndpoint's name is made of it: it can't be empty, or begin or end with '-'";
        return Err(ErroredField::new(field, value.as_str(), reason).into());
    };
    match endpoint.name() {
        "" => endpoint.set_text("name", &expected),
        name if name == expected => {}
        name => {
            let reason = format!(
                "the WorkloadEndpoint name does not match the primary identifiers assigned in the Spec: expected name \
                 {expected}"
            );
            return Err(ErroredField::new("Name", name, reason).into());
        }
    }
    let namespace = endpoint.namespace().to_owned();
    endpoint.set_label("projectcalico.org/namespace", &namespace);
    endpoint.set_label("projectcalico.org/orchestrator", &orchestrator);
    Ok(())
}

/// Fields that one resource of the kind alone may have, and a kind that has one alone.
pub(super) fn check_default_only(object: &ApiObject) -> Result<(), ClientError> {
    if object.name() == "default" {
        return Ok(());
    }
    if object.kind() == ResourceKind::IpamConfiguration {
        let reason = "Cannot create an IPAMConfiguration resource with a name other than \"default\"";
        return Err(ClientError::Other(reason.to_owned()));
    }
    if object.kind() != ResourceKind::BgpConfiguration {
        return Ok(());
    }
    let fields = [
        ("nodeToNodeMeshEnabled", "NodeToNodeMeshEnabled", "nodeToNodeMeshEnabled"),
        ("asNumber", "ASNumber", "ASNumber"),
        ("serviceLoadBalancerIPs", "ServiceLoadBalancerIPs", "ServiceLoadBalancerIPs"),
        ("serviceExternalIPs", "ServiceExternalIPs", "ServiceExternalIPs"),
        ("serviceClusterIPs", "ServiceClusterIPs", "ServiceClusterIPs"),
    ];
    let given = fields.iter().filter(|(field, _, _)| !object.spec(field).is_null());
    let errors: Vec<ErroredField> = given
        .map(|(_, name, word)| {
            let reason = format!("Cannot set {word} on a non default BGP Configuration.");
            ErroredField::bare(&format!("BGPConfiguration.Spec.{name}"), reason)
        })
        .collect();
    if errors.is_empty() { Ok(()) } else { Err(ClientError::Invalid(errors)) }
}

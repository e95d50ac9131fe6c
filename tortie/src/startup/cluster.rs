//! What every cluster has: its own resource, its tiers, its default settings (`clientv3.EnsureInitialized`,
//! `ensureDefaultConfig`).

use anyhow::Context;
use datastore::ResourceKind;
use serde_json::{Value, json};

use super::resources::Resources;

/// Makes what is missing, and completes what was made by somebody else.
///
/// # Errors
/// The store can't be asked or written.
pub(super) fn configure(resources: &Resources<'_>, node: &str, cluster_type: &str) -> anyhow::Result<()> {
    resources.client().ensure_initialized().context("can't make what every cluster has")?;
    name_type(resources, cluster_type)?;
    let felix = ResourceKind::FelixConfiguration;
    complete(
        resources,
        felix,
        "default",
        &[("logSeverityScreen", json!("Info")), ("reportingInterval", json!("0s"))],
    )?;
    // As Calico has it wherever nodes aren't Kubernetes': workloads may reach their host.
    complete(resources, felix, &format!("node.{node}"), &[("defaultEndpointToHostAction", json!("Return"))])?;
    resources.make(ResourceKind::BgpConfiguration, "default", json!({}))?;
    Ok(())
}

/// Adds what this cluster is, to what others have said.
fn name_type(resources: &Resources<'_>, cluster_type: &str) -> anyhow::Result<()> {
    let mut cluster = resources.get_or_new(ResourceKind::ClusterInformation, "default")?;
    let before = cluster.text(&["clusterType"]).to_owned();
    let mut types: Vec<&str> = before.split(',').filter(|word| !word.is_empty()).collect();
    for word in cluster_type.split(',').filter(|word| !word.is_empty()) {
        if !types.contains(&word) {
            types.push(word);
        }
    }
    let types = types.join(",");
    if types == before {
        return Ok(());
    }
    cluster.value["spec"]["clusterType"] = json!(types);
    resources.write(&cluster)
}

/// Sets fields that nobody has set.
fn complete(
    resources: &Resources<'_>,
    kind: ResourceKind,
    name: &str,
    fields: &[(&str, Value)],
) -> anyhow::Result<()> {
    let mut resource = resources.get_or_new(kind, name)?;
    let before = resource.value.clone();
    for (field, value) in fields {
        if resource.value["spec"][*field].is_null() {
            resource.value["spec"][*field] = value.clone();
        }
    }
    if resource.revision.is_some() && resource.value == before { Ok(()) } else { resources.write(&resource) }
}

//! Kubernetes' own NetworkPolicy as Calico's, which is what calicoctl's `convert` makes of one
//! (`libcalico-go/lib/backend/k8s/conversion/conversion.go`).

use model::{EntityRule, NetworkPolicy, PolicyRule, PortMatch, Prefix, Resource};
use serde_json::{Map, Value as Json, json};

use crate::ResourceKind;
use crate::client::ApiObject;
use crate::convert::API_VERSION;
use crate::document::{Content, Value};
use crate::manifest;

/// The version that Kubernetes has it in.
pub(crate) const NETWORKING: &str = "networking.k8s.io/v1";

/// The policy in Calico's words.
///
/// # Errors
/// What of it can't be said in them.
pub(crate) fn policy(document: &Value) -> Result<ApiObject, String> {
    let json = document.to_json();
    let given = |name: &str| json["metadata"][name].as_str().unwrap_or_default();
    let failed = |why: String| {
        format!("failed to convert k8s resource: policy: {}: error with rule {why}", given("name"))
    };
    let policy = match manifest::single(&staged(document)) {
        Ok(Some(Resource::NetworkPolicy(policy))) => policy,
        Ok(_) => return Err(failed("nothing can be made of it".to_owned())),
        Err((path, reason)) => return Err(failed(format!("{path}: {reason}"))),
    };
    let mut object = ApiObject::named(ResourceKind::NetworkPolicy, given("namespace"), given("name"));
    *object.value_mut() = json!({ "metadata": object.value()["metadata"], "spec": spec(&policy) });
    ApiObject::decode(ResourceKind::NetworkPolicy, object.value())
}

/// The same policy as one that Calico keeps beside its own: those say the same in the same words.
fn staged(document: &Value) -> Value {
    let text = |text: &str| Value { content: Content::Text(text.to_owned()), position: document.position };
    let Content::Map(entries) = &document.content else { return document.clone() };
    let renamed = entries.iter().map(|(name, value)| match name.as_str() {
        "apiVersion" => (name.clone(), text(API_VERSION)),
        "kind" => (name.clone(), text(ResourceKind::StagedKubernetesNetworkPolicy.name())),
        _ => (name.clone(), value.clone()),
    });
    Value { content: Content::Map(renamed.collect()), position: document.position }
}

fn spec(policy: &NetworkPolicy) -> Json {
    let types = [("Ingress", policy.applies_to_ingress), ("Egress", policy.applies_to_egress)];
    let types: Vec<&str> = types.into_iter().filter(|(_, applies)| *applies).map(|(word, _)| word).collect();
    let rules = |rules: &[PolicyRule]| rules.iter().map(rule).collect::<Vec<_>>();
    json!({
        "order": policy.order.get(),
        "selector": policy.selector,
        "ingress": rules(&policy.ingress),
        "egress": rules(&policy.egress),
        "types": types,
    })
}

fn rule(rule: &PolicyRule) -> Json {
    let mut fields = Map::new();
    fields.insert("action".to_owned(), "Allow".into());
    if let Some(protocol) = rule.protocol {
        fields.insert("protocol".to_owned(), protocol.to_string().into());
    }
    fields.insert("source".to_owned(), entity(&rule.source));
    fields.insert("destination".to_owned(), entity(&rule.destination));
    Json::Object(fields)
}

fn entity(end: &EntityRule) -> Json {
    let nets = |nets: &[Prefix]| nets.iter().map(Prefix::to_string).collect::<Vec<_>>();
    json!({
        "nets": nets(&end.nets),
        "notNets": nets(&end.not_nets),
        "selector": end.selector,
        "namespaceSelector": end.namespace_selector,
        "ports": end.ports.iter().map(port).collect::<Vec<_>>(),
    })
}

/// One port is a number, a range or a name a text.
fn port(port: &PortMatch) -> Json {
    match port {
        PortMatch::Numbers(range) if range.first == range.last => range.first.into(),
        port => port.to_string().into(),
    }
}

//! Manifests → resources as the client takes them: YAML or JSON, several documents, lists, and Calico's first API.

use serde_json::Value as Json;

use crate::client::{ApiObject, TIER_LABEL};
use crate::convert::{API_VERSION, is_version_of};
use crate::document::{self, Value};
use crate::schema::DecodeError;
use crate::{ResourceKind, kubernetes, v1};

/// The tier of policies that name none.
const DEFAULT_TIER: &str = "default";

/// Documents that one file may hold.
const DOCUMENTS_MAX: usize = 100_000;

/// Why a text holds no resources, in the words of calicoctl.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// It isn't YAML.
    #[error("error converting YAML to JSON: yaml: {0}")]
    Yaml(String),
    /// It has no kind.
    #[error("Object 'Kind' is missing in '{0}'")]
    NoKind(String),
    /// A kind or version that Calico doesn't have.
    #[error("unknown resource type ({kind}) and/or version ({version})")]
    UnknownKind {
        /// The kind.
        kind: String,
        /// The version.
        version: String,
    },
    /// A field that the kind doesn't have, or of another type.
    #[error("error unmarshaling JSON: while decoding JSON: {0}")]
    Field(String),
}

impl From<DecodeError> for ReadError {
    fn from(error: DecodeError) -> Self {
        ReadError::Field(error.to_string())
    }
}

/// Reads all resources of a text, in their order.
///
/// # Errors
/// The first thing that makes the text unusable; then nothing of it counts.
pub fn read_objects(text: &str) -> Result<Vec<ApiObject>, ReadError> {
    let mut objects = Vec::new();
    documents(text)?.iter().try_for_each(|document| read(document, None, &mut objects))?;
    Ok(objects)
}

fn documents(text: &str) -> Result<Vec<Value>, ReadError> {
    document::parse(text, DOCUMENTS_MAX).map_err(|(position, reason)| {
        let place = position.map_or_else(String::new, |position| format!("line {}: ", position.line));
        ReadError::Yaml(format!("{place}{reason}"))
    })
}

/// Why a text can't be converted, in the words of calicoctl.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConvertError {
    /// It holds none of the resources that there is a conversion for.
    #[error("Failed to create resources from file: {0}")]
    Read(#[from] ReadError),
    /// One of them can't be brought into the present form.
    #[error("Failed to convert resource: {0}")]
    Resource(String),
}

/// Reads resources of Calico's first API, and network policies of Kubernetes', as what they are now.
///
/// # Errors
/// The first thing that has no conversion; then nothing of the text counts.
pub fn convert_objects(text: &str) -> Result<Vec<ApiObject>, ConvertError> {
    let mut objects = Vec::new();
    documents(text)?.iter().try_for_each(|document| convert(document, &mut objects))?;
    Ok(objects)
}

fn convert(document: &Value, objects: &mut Vec<ApiObject>) -> Result<(), ConvertError> {
    if let document::Content::List(items) = &document.content {
        return items.iter().try_for_each(|item| convert(item, objects));
    }
    if let Some(v1::Upgraded { document, objection }) = v1::upgraded(document) {
        return match objection {
            Some(objection) => Err(ConvertError::Resource(objection)),
            None => {
                let mut present = Vec::new();
                read(&document, None, &mut present)?;
                objects.extend(present.into_iter().map(in_default_tier));
                Ok(())
            }
        };
    }
    let json = document.to_json();
    let text = |name: &str| json[name].as_str().unwrap_or_default().to_owned();
    match (text("kind").as_str(), text("apiVersion").as_str()) {
        ("NetworkPolicy", kubernetes::NETWORKING) => {
            let mut policy = kubernetes::policy(document).map_err(ConvertError::Resource)?;
            policy.set_spec("tier", DEFAULT_TIER);
            objects.push(policy.canonical());
            Ok(())
        }
        ("List", "v1") => {
            let items = list_items(document)?;
            items.iter().try_for_each(|item| convert(item, objects))
        }
        (kind, version) => {
            Err(ReadError::UnknownKind { kind: kind.to_owned(), version: version.to_owned() }.into())
        }
    }
}

/// Brings a policy of the first API, which had no tiers, into the tier that it is in now: as it would be listed.
fn in_default_tier(mut object: ApiObject) -> ApiObject {
    if object.kind() == ResourceKind::GlobalNetworkPolicy {
        object.set_text("name", &format!("{DEFAULT_TIER}.{}", object.name()));
        object.set_label(TIER_LABEL, DEFAULT_TIER);
        object.set_spec("tier", DEFAULT_TIER);
    }
    object.canonical()
}

/// Reads one document, or one of a list that holds resources of a kind alone.
fn read(document: &Value, of: Option<ResourceKind>, objects: &mut Vec<ApiObject>) -> Result<(), ReadError> {
    if let document::Content::List(items) = &document.content {
        return items.iter().try_for_each(|item| read(item, None, objects));
    }
    if let Some(upgraded) = v1::upgraded(document) {
        return read(&upgraded.document, None, objects);
    }
    let json = document.to_json();
    let text = |name: &str| json[name].as_str().unwrap_or_default();
    let (kind, version) = (text("kind"), text("apiVersion"));
    if let (Some(kind), "") = (of, kind) {
        objects.push(ApiObject::decoded(kind, &json)?);
        return Ok(());
    }
    if kind.is_empty() {
        return Err(ReadError::NoKind(json.to_string()));
    }
    let unknown = || ReadError::UnknownKind { kind: kind.to_owned(), version: version.to_owned() };
    let list_of = kind.strip_suffix("List");
    if list_of == Some("") && matches!(version, "v1" | API_VERSION) {
        return items(document, None, objects);
    }
    if !is_version_of(version, kind) {
        return Err(unknown());
    }
    if let Some(kind) = ResourceKind::named(kind) {
        objects.push(ApiObject::decoded(kind, &json)?);
        return Ok(());
    }
    match list_of.and_then(ResourceKind::named) {
        Some(kind) => items(document, Some(kind), objects),
        None => Err(unknown()),
    }
}

fn items(document: &Value, of: Option<ResourceKind>, objects: &mut Vec<ApiObject>) -> Result<(), ReadError> {
    list_items(document)?.iter().try_for_each(|value| read(value, of, objects))
}

fn list_items(document: &Value) -> Result<&[Value], ReadError> {
    let document::Content::Map(entries) = &document.content else { return Ok(&[]) };
    let Some((_, list)) = entries.iter().find(|(name, _)| name == "items") else { return Ok(&[]) };
    match &list.content {
        document::Content::List(values) => Ok(values),
        document::Content::Null => Ok(&[]),
        _ => Err(ReadError::Field(Json::from("items is not a list").to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(text: &str) -> Result<Vec<String>, String> {
        let objects = read_objects(text).map_err(|error| error.to_string())?;
        Ok(objects.iter().map(ApiObject::identifier).collect())
    }

    #[test]
    fn documents_lists_and_lists_of_documents_are_read() {
        let tier = |name: &str| {
            format!("{{apiVersion: projectcalico.org/v3, kind: Tier, metadata: {{name: {name}}}}}")
        };
        for text in [
            format!("---\n{}\n---\n---\n{}\n", tier("a"), tier("b")),
            format!("[{}, {}]", tier("a"), tier("b")),
            "apiVersion: projectcalico.org/v3\nkind: TierList\nitems: [{metadata: {name: a}}, {metadata: {name: b}}]"
                .to_owned(),
            format!("{{apiVersion: v1, kind: List, items: [{}, {}]}}", tier("a"), tier("b")),
        ] {
            assert_eq!(names(&text), Ok(vec!["Tier(a)".to_owned(), "Tier(b)".to_owned()]), "{text}");
        }
        assert_eq!(names(""), Ok(vec![]));
    }

    #[test]
    fn manifests_of_the_first_api_become_present_ones() {
        let text = "apiVersion: v1\nkind: ipPool\nmetadata: {cidr: 10.1.0.0/16}\nspec: {nat-outgoing: true}";
        assert_eq!(names(text), Ok(vec!["IPPool(10-1-0-0-16)".to_owned()]));
    }

    #[test]
    fn numbers_and_truth_values_are_texts_where_texts_are_wanted() {
        let text =
            "{apiVersion: projectcalico.org/v3, kind: Node, metadata: {name: 7, labels: {rack: 7, rr: yes}}}";
        let objects = read_objects(text).unwrap();
        assert_eq!(objects[0].value()["metadata"]["name"], "7");
        assert_eq!(objects[0].value()["metadata"]["labels"], serde_json::json!({"rack": "7", "rr": "true"}));
    }

    #[test]
    fn unknown_kinds_and_fields_are_refused() {
        assert_eq!(
            names("{apiVersion: v7, kind: BGPPeer, metadata: {name: x}}").unwrap_err(),
            "unknown resource type (BGPPeer) and/or version (v7)"
        );
        let text =
            "{apiVersion: projectcalico.org/v3, kind: BGPPeer, metadata: {name: x}, spec: {asNumber: -1}}";
        assert!(names(text).unwrap_err().starts_with("error unmarshaling JSON: while decoding JSON: "));
        assert!(names("a: [").is_err());
    }
}

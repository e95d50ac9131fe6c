//! A resource as a tree in Calico's own form, and what all kinds have in common.

use serde_json::{Map, Value};

use crate::convert::{API_VERSION, DEFAULT_NAMESPACE};
use crate::schema::{self, DecodeError};
use crate::{Key, ResourceKey, ResourceKind, Revision};

/// A resource of Calico's API: its fields in Go's order, none that Calico doesn't know.
#[derive(Clone, Debug, PartialEq)]
pub struct ApiObject {
    kind: ResourceKind,
    value: Value,
}

impl ApiObject {
    /// One that has a name alone.
    pub fn named(kind: ResourceKind, namespace: &str, name: &str) -> ApiObject {
        let mut object = ApiObject { kind, value: Value::Object(Map::new()) };
        object.set_text("name", name);
        object.set_text("namespace", namespace);
        object.canonical()
    }

    /// Holds a tree to the kind's fields.
    ///
    /// # Errors
    /// What Go's decoder would say to it.
    pub fn decode(kind: ResourceKind, value: &Value) -> Result<ApiObject, String> {
        ApiObject::decoded(kind, value).map_err(|error| error.to_string())
    }

    pub(crate) fn decoded(kind: ResourceKind, value: &Value) -> Result<ApiObject, DecodeError> {
        let value = schema::decode(schema::of(kind), value)?;
        Ok(ApiObject { kind, value }.with_type())
    }

    /// With what was changed brought into Go's order.
    pub fn canonical(self) -> ApiObject {
        // What the client itself has put there is of the right type.
        match schema::decode(schema::of(self.kind), &self.value) {
            Ok(value) => ApiObject { kind: self.kind, value }.with_type(),
            Err(_) => self,
        }
    }

    fn with_type(mut self) -> ApiObject {
        let Value::Object(map) = &mut self.value else { return self };
        let mut whole = Map::new();
        whole.insert("kind".to_owned(), self.kind.name().into());
        whole.insert("apiVersion".to_owned(), API_VERSION.into());
        whole.extend(
            std::mem::take(map).into_iter().filter(|(name, _)| name != "kind" && name != "apiVersion"),
        );
        *map = whole;
        self
    }

    /// Its kind.
    pub fn kind(&self) -> ResourceKind {
        self.kind
    }

    /// The whole of it, as it is printed.
    pub fn value(&self) -> &Value {
        &self.value
    }

    /// The whole of it, to be changed. What Calico doesn't know is lost with the next write.
    pub fn value_mut(&mut self) -> &mut Value {
        &mut self.value
    }

    /// Its name; empty where it has none.
    pub fn name(&self) -> &str {
        self.metadata("name")
    }

    /// Its namespace; empty where it has none.
    pub fn namespace(&self) -> &str {
        self.metadata("namespace")
    }

    /// The write that it was read from; empty where it wasn't read.
    pub fn resource_version(&self) -> &str {
        self.metadata("resourceVersion")
    }

    /// A text of its metadata; empty where it isn't there.
    pub fn metadata(&self, field: &str) -> &str {
        self.value["metadata"][field].as_str().unwrap_or_default()
    }

    /// Sets a text of its metadata; an empty one removes it.
    pub fn set_text(&mut self, field: &str, text: &str) {
        let metadata = child(&mut self.value, "metadata");
        if text.is_empty() {
            metadata.remove(field);
        } else {
            metadata.insert(field.to_owned(), text.into());
        }
    }

    /// One of its labels.
    pub fn label(&self, name: &str) -> Option<&str> {
        self.value["metadata"]["labels"][name].as_str()
    }

    /// Gives it a label.
    pub fn set_label(&mut self, name: &str, text: &str) {
        let labels =
            child(&mut self.value, "metadata").entry("labels").or_insert_with(|| Value::Object(Map::new()));
        if let Value::Object(labels) = labels {
            labels.insert(name.to_owned(), text.into());
            labels.sort_keys();
        }
    }

    /// Takes a label from it; was it there?
    pub fn remove_label(&mut self, name: &str) -> bool {
        let labels = self.value["metadata"]["labels"].as_object_mut();
        labels.is_some_and(|labels| labels.remove(name).is_some())
    }

    /// A field of its spec.
    pub fn spec(&self, field: &str) -> &Value {
        &self.value["spec"][field]
    }

    /// A text of its spec; empty where it isn't there.
    pub fn spec_text(&self, field: &str) -> &str {
        self.spec(field).as_str().unwrap_or_default()
    }

    /// Sets a field of its spec.
    pub fn set_spec(&mut self, field: &str, value: impl Into<Value>) {
        child(&mut self.value, "spec").insert(field.to_owned(), value.into());
    }

    /// Sets a field of its spec that has no value yet.
    pub(super) fn default_spec(&mut self, field: &str, value: impl Into<Value>) {
        let empty = match self.spec(field) {
            Value::Null => true,
            Value::String(text) => text.is_empty(),
            Value::Array(items) => items.is_empty(),
            _ => false,
        };
        if empty {
            self.set_spec(field, value);
        }
    }

    /// What stands for it in errors: `IPPool(pool1)`, `NetworkPolicy(default/web)`.
    pub fn identifier(&self) -> String {
        self.resource_key().to_string()
    }

    fn resource_key(&self) -> ResourceKey {
        ResourceKey { kind: self.kind, namespace: self.namespace().to_owned(), name: self.name().to_owned() }
    }

    /// What it is stored under.
    pub fn key(&self) -> Key {
        Key::Resource(self.resource_key())
    }

    /// Puts it into the namespace that resources are in which name none.
    pub fn default_namespace(&mut self) {
        if self.kind.is_namespaced() && self.namespace().is_empty() {
            self.set_text("namespace", DEFAULT_NAMESPACE);
        }
    }

    /// The write that its resource version names.
    pub(super) fn revision(&self) -> Option<Revision> {
        self.resource_version().parse().ok().map(Revision)
    }
}

/// A mapping in a mapping, made where it isn't there.
fn child<'a>(value: &'a mut Value, name: &str) -> &'a mut Map<String, Value> {
    if !value.is_object() {
        *value = Value::Object(Map::new());
    }
    let child = &mut value[name];
    if !child.is_object() {
        *child = Value::Object(Map::new());
    }
    match child {
        Value::Object(map) => map,
        // It has just been made one.
        _ => unreachable!("a mapping"),
    }
}

//! Resources as a node reads, makes and completes them.

use anyhow::Context;
use datastore::{
    ApiObject, Client, ClientError, Key, ResourceKey, ResourceKind, Revision, Store, StoreError, Under,
};
use serde_json::{Value, json};

/// Resources of a store that live in no namespace.
pub(super) struct Resources<'a>(&'a dyn Store);

/// A resource as it is, or as it will be: without a revision it isn't stored yet.
#[derive(Clone, Debug)]
pub(super) struct Resource {
    pub(super) kind: ResourceKind,
    pub(super) value: Value,
    pub(super) revision: Option<Revision>,
}

impl Resource {
    /// A field of `spec`, as a text.
    pub(super) fn text(&self, path: &[&str]) -> &str {
        let field = path.iter().fold(&self.value["spec"], |value, name| &value[*name]);
        field.as_str().unwrap_or_default()
    }
}

pub(super) fn key(kind: ResourceKind, name: &str) -> Key {
    Key::Resource(ResourceKey { kind, namespace: String::new(), name: name.to_owned() })
}

impl<'a> Resources<'a> {
    pub(super) fn new(store: &'a dyn Store) -> Resources<'a> {
        Resources(store)
    }

    /// The resource of a name; a new one where there is none.
    pub(super) fn get_or_new(&self, kind: ResourceKind, name: &str) -> Result<Resource, StoreError> {
        match self.0.get(&key(kind, name)) {
            Ok(stored) => Ok(Resource { kind, value: stored.value, revision: Some(stored.revision) }),
            Err(StoreError::NotFound(_)) => Ok(Resource { kind, value: blank(kind, name), revision: None }),
            Err(error) => Err(error),
        }
    }

    /// All of a kind.
    pub(super) fn list(&self, kind: ResourceKind) -> Result<Vec<Value>, StoreError> {
        let listed = self.0.list(&Under::Kind { kind, namespace: None })?;
        Ok(listed.stored.into_iter().map(|stored| stored.value).collect())
    }

    /// Writes a resource that was read, or is new.
    ///
    /// What was read is written back as it was but for what has changed, fields that nobody here knows too.
    ///
    /// # Errors
    /// Somebody else has written it meanwhile, a new one breaks a rule, or the store.
    pub(super) fn write(&self, resource: &Resource) -> anyhow::Result<()> {
        let name = resource.value["metadata"]["name"].as_str().unwrap_or_default();
        let key = key(resource.kind, name);
        let written = match resource.revision {
            Some(revision) => {
                self.0.update(&key, &resource.value, revision).map(drop).map_err(anyhow::Error::from)
            }
            None => self.create(resource.kind, &resource.value).map_err(anyhow::Error::from),
        };
        written.with_context(|| format!("can't write {key}"))
    }

    /// Makes a resource, unless it is there. Was it missing?
    ///
    /// # Errors
    /// It breaks a rule, or the store can't be asked.
    pub(super) fn make(&self, kind: ResourceKind, name: &str, spec: Value) -> anyhow::Result<bool> {
        let mut value = blank(kind, name);
        value["spec"] = spec;
        match self.create(kind, &value) {
            Ok(()) => Ok(true),
            Err(ClientError::AlreadyExists(_)) => Ok(false),
            Err(error) => Err(error).with_context(|| format!("can't make {kind}({name})")),
        }
    }

    fn create(&self, kind: ResourceKind, value: &Value) -> Result<(), ClientError> {
        let object = ApiObject::decode(kind, value).map_err(ClientError::Other)?;
        self.client().create(&object).map(drop)
    }

    /// Calico's own way to these resources.
    pub(super) fn client(&self) -> Client<'a> {
        Client::new(self.0)
    }
}

fn blank(kind: ResourceKind, name: &str) -> Value {
    json!({
        "kind": kind.name(), "apiVersion": "projectcalico.org/v3", "metadata": { "name": name }, "spec": {}
    })
}

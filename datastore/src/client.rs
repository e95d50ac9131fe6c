//! Reading and writing resources as Calico's own client does it (`libcalico-go/lib/clientv3`): defaults are filled in, rules
//! are held to, and what is stored is what Calico would have stored.
//!
//! A write names the revision that it replaces. Who has none reads first; see [`Client::replace`].

mod check;
mod defaults;
mod error;
mod initialize;
mod node;
mod object;
mod policy_name;
mod pool;
mod wording;

use std::fs::File;
use std::io::Read;

use crate::{Key, ResourceKey, ResourceKind, Store, Stored, Under};

pub use check::check;
pub use error::{ClientError, ErroredField};
pub use object::ApiObject;

/// The profile that every datastore has without storing it.
pub const DEFAULT_ALLOW: &str = "projectcalico-default-allow";
/// What policies of Kubernetes are called that its controllers have copied.
const KUBERNETES_POLICIES: &str = "knp.default.";
/// The label that names a policy's tier.
pub(crate) const TIER_LABEL: &str = "projectcalico.org/tier";
/// How often a replacement is tried that others get in the way of.
const REPLACE_TRIES: usize = 5;

/// Resources of one kind, as they were at one moment.
#[derive(Clone, Debug, PartialEq)]
pub struct ObjectList {
    /// The kind.
    pub kind: ResourceKind,
    /// The resources.
    pub items: Vec<ApiObject>,
    /// The store's last write before.
    pub resource_version: String,
}

/// A client of a store.
#[derive(Clone, Copy)]
pub struct Client<'a> {
    store: &'a dyn Store,
}

impl<'a> Client<'a> {
    /// A client of this store.
    pub fn new(store: &'a dyn Store) -> Client<'a> {
        Client { store }
    }

    /// The store.
    pub fn store(&self) -> &'a dyn Store {
        self.store
    }

    /// The resource of a name.
    ///
    /// # Errors
    /// That it isn't there, or that the store can't be asked.
    pub fn get(&self, kind: ResourceKind, namespace: &str, name: &str) -> Result<ApiObject, ClientError> {
        if kind == ResourceKind::Profile && name == DEFAULT_ALLOW {
            return Ok(defaults::default_allow());
        }
        let key = ResourceKey { kind, namespace: namespace.to_owned(), name: name.to_owned() };
        let object = loaded(kind, &self.store.get(&Key::Resource(key.clone()))?)?;
        if object.name() == name { Ok(object) } else { Err(ClientError::NotFound(key.to_string())) }
    }

    /// All resources of a kind, or those of one namespace.
    ///
    /// # Errors
    /// That the store can't be asked.
    pub fn list(&self, kind: ResourceKind, namespace: Option<&str>) -> Result<ObjectList, ClientError> {
        let under = Under::Kind { kind, namespace: namespace.map(str::to_owned) };
        let listed = self.store.list(&under)?;
        // What nobody can read is treated as absent, as by Calico.
        let mut items: Vec<ApiObject> =
            listed.stored.iter().filter_map(|stored| loaded(kind, stored).ok()).collect();
        match kind {
            ResourceKind::Profile => items.insert(0, defaults::default_allow()),
            ResourceKind::Tier => items.iter_mut().for_each(defaults::tier),
            _ => {}
        }
        Ok(ObjectList { kind, items, resource_version: listed.revision.0.to_string() })
    }

    /// Writes a resource that isn't there yet; gives it as it is stored.
    ///
    /// # Errors
    /// A rule that it breaks, that it is there already, or that the store can't be asked.
    pub fn create(&self, object: &ApiObject) -> Result<ApiObject, ClientError> {
        let object = self.prepared(object, None)?;
        if object.name().is_empty() {
            let hint = if object.metadata("generateName").is_empty() {
                ""
            } else {
                " (GenerateName is not supported)"
            };
            let reason = format!("field must be set for a Create request{hint}");
            return Err(ErroredField::new("Metadata.Name", "", reason).into());
        }
        if !object.resource_version().is_empty() {
            let given = object.resource_version();
            let reason = "field must not be set for a Create request";
            return Err(ErroredField::new("Metadata.ResourceVersion", given, reason).into());
        }
        if object.kind() == ResourceKind::Node {
            self.ensure_initialized()?;
        }
        self.create_as_is(object)
    }

    /// Writes a new resource without asking what it says, as `UnsafeCreate` of Calico's client does.
    ///
    /// # Errors
    /// That it is there already, or that the store can't be asked.
    pub fn create_as_is(&self, mut object: ApiObject) -> Result<ApiObject, ClientError> {
        if object.metadata("creationTimestamp").is_empty() {
            object.set_text(
                "creationTimestamp",
                &humantime::format_rfc3339_seconds(std::time::SystemTime::now()).to_string(),
            );
        }
        if object.metadata("uid").is_empty() {
            object.set_text("uid", &uuid()?);
        }
        let revision = self.store.create(&object.key(), &stored_value(&object))?;
        Ok(as_read(object, revision))
    }

    /// Writes a resource in place of the one that its resource version names; gives it as it is stored.
    ///
    /// # Errors
    /// A rule that it breaks, that it isn't there, that it has been written since, or that the store can't be asked.
    pub fn update(&self, object: &ApiObject) -> Result<ApiObject, ClientError> {
        let old = match object.kind() {
            ResourceKind::IpPool => Some(self.get(object.kind(), "", object.name())?),
            _ => None,
        };
        let object = self.prepared(object, old.as_ref())?;
        for (field, name) in [
            ("resourceVersion", "Metadata.ResourceVersion"),
            ("creationTimestamp", "Metadata.CreationTimestamp"),
            ("uid", "Metadata.UID"),
        ] {
            if object.metadata(field).is_empty() {
                return Err(ErroredField::new(name, "", "field must be set for an Update request").into());
            }
        }
        self.update_as_is(object)
    }

    /// Writes a resource anew without asking what it says.
    pub(crate) fn update_as_is(&self, object: ApiObject) -> Result<ApiObject, ClientError> {
        // A version that isn't a number names no write.
        let revision = object.revision().ok_or_else(|| ClientError::Conflict(object.identifier()))?;
        let revision = self.store.update(&object.key(), &stored_value(&object), revision)?;
        Ok(as_read(object, revision))
    }

    /// As calicoctl updates: of the stored metadata only labels and annotations change, and a resource version is held to where
    /// there is one; otherwise the resource is read first, and again where others get in the way.
    ///
    /// # Errors
    /// As [`Client::update`].
    pub fn replace(&self, object: &ApiObject) -> Result<ApiObject, ClientError> {
        refuse_cluster_information(object.kind(), "apply or replace", || {
            self.get(object.kind(), object.namespace(), object.name()).map(drop)
        })?;
        let mut last = ClientError::Conflict(object.identifier());
        for _ in 0..REPLACE_TRIES {
            let stored = self.get(object.kind(), object.namespace(), object.name())?;
            let asked = object.resource_version();
            if !asked.is_empty() && asked != stored.resource_version() {
                return Err(ClientError::Conflict(object.identifier()));
            }
            refuse_kubernetes_policy(object, "apply or replace")?;
            match self.update(&with_metadata_of(object, &stored)) {
                Err(error @ ClientError::Conflict(_)) if asked.is_empty() => last = error,
                result => return result,
            }
        }
        Err(ClientError::Other(format!("failed to update the resource: {last}")))
    }

    /// As calicoctl creates: of the metadata given, only names, labels and annotations count.
    ///
    /// # Errors
    /// As [`Client::create`].
    pub fn create_new(&self, object: &ApiObject) -> Result<ApiObject, ClientError> {
        refuse_cluster_information(object.kind(), "create or apply", || Ok(()))?;
        refuse_kubernetes_policy(object, "create or apply")?;
        let mut new = object.clone();
        let metadata = &object.value()["metadata"];
        let kept = ["name", "namespace", "resourceVersion", "labels", "annotations"];
        let kept = kept.iter().filter(|field| !metadata[**field].is_null());
        new.value_mut()["metadata"] =
            kept.map(|field| ((*field).to_owned(), metadata[*field].clone())).collect();
        self.create(&new)
    }

    /// Creates, or replaces what is there.
    ///
    /// # Errors
    /// As [`Client::create`] and [`Client::replace`].
    pub fn apply(&self, object: &ApiObject) -> Result<ApiObject, ClientError> {
        if object.kind() == ResourceKind::ClusterInformation {
            return Err(ClientError::NotSupported {
                operation: "apply".to_owned(),
                identifier: object.kind().to_string(),
                reason: "resource is readonly".to_owned(),
            });
        }
        let mut new = object.clone();
        new.set_text("resourceVersion", "");
        match self.create_new(&new) {
            Err(ClientError::AlreadyExists(_) | ClientError::NotSupported { .. }) => self.replace(object),
            result => result,
        }
    }

    /// Removes a resource, or only the one that the resource version names; gives what was removed.
    ///
    /// # Errors
    /// That it isn't there, that it has been written since, that it can't be removed, or that the store can't be asked.
    pub fn delete(&self, object: &ApiObject) -> Result<ApiObject, ClientError> {
        refuse_cluster_information(object.kind(), "delete", || Ok(()))?;
        refuse_kubernetes_policy(object, "delete")?;
        let not_supported = |reason: String| ClientError::NotSupported {
            operation: "Delete".to_owned(),
            identifier: object.name().to_owned(),
            reason,
        };
        match object.kind() {
            ResourceKind::Tier => self.refuse_used_tier(object.name())?,
            ResourceKind::Profile if object.name() == DEFAULT_ALLOW => {
                return Err(not_supported(format!(
                    "The profile \"{DEFAULT_ALLOW}\" is a default provided by Calico and cannot be deleted"
                )));
            }
            ResourceKind::IpPool => return self.delete_pool(object),
            ResourceKind::Node => self.remove_belongings_of_node(object.name())?,
            _ => {}
        }
        self.delete_as_is(object)
    }

    fn delete_as_is(&self, object: &ApiObject) -> Result<ApiObject, ClientError> {
        let revision = match object.resource_version() {
            "" => None,
            _ => Some(object.revision().ok_or_else(|| ClientError::Conflict(object.identifier()))?),
        };
        loaded(object.kind(), &self.store.delete(&object.key(), revision)?)
    }

    fn refuse_used_tier(&self, name: &str) -> Result<(), ClientError> {
        let refusal = |operation: &str, reason: String| ClientError::NotSupported {
            operation: operation.to_owned(),
            identifier: name.to_owned(),
            reason,
        };
        if initialize::is_standard_tier(name) {
            return Err(refusal("Delete", format!("Cannot delete {name} tier")));
        }
        for kind in [ResourceKind::NetworkPolicy, ResourceKind::GlobalNetworkPolicy] {
            if self.list(kind, None)?.items.iter().any(|policy| policy.spec_text("tier") == name) {
                return Err(refusal("delete", "Cannot delete a non-empty tier".to_owned()));
            }
        }
        Ok(())
    }

    /// The resource with its defaults, held to the rules. `old` is what it replaces, where that matters.
    fn prepared(&self, object: &ApiObject, old: Option<&ApiObject>) -> Result<ApiObject, ClientError> {
        let mut object = object.clone();
        let creates = object.resource_version().is_empty();
        if object.kind().is_namespaced() && object.namespace().is_empty() {
            let reason = "namespace is not specified on namespaced resource";
            return Err(ErroredField::bare("Metadata.Namespace", reason).into());
        }
        match object.kind() {
            ResourceKind::NetworkPolicy
            | ResourceKind::GlobalNetworkPolicy
            | ResourceKind::StagedNetworkPolicy
            | ResourceKind::StagedGlobalNetworkPolicy => {
                let tier = defaults::tier_of(&object).to_owned();
                if creates {
                    self.get(ResourceKind::Tier, "", &tier)?;
                }
                defaults::policy(&mut object, &tier);
            }
            ResourceKind::IpPool => self.prepare_pool(&mut object, old)?,
            ResourceKind::Tier => defaults::tier(&mut object),
            ResourceKind::FelixConfiguration => defaults::felix(&mut object),
            ResourceKind::WorkloadEndpoint => defaults::workload_endpoint(&mut object)?,
            ResourceKind::Profile if object.name() == DEFAULT_ALLOW => {
                return Err(match creates {
                    true => ClientError::AlreadyExists(DEFAULT_ALLOW.to_owned()),
                    false => ClientError::NotSupported {
                        operation: "Update".to_owned(),
                        identifier: DEFAULT_ALLOW.to_owned(),
                        reason: format!(
                            "The profile \"{DEFAULT_ALLOW}\" is a default provided by Calico and cannot be updated"
                        ),
                    },
                });
            }
            _ => {}
        }
        let object = object.canonical();
        check(&object)?;
        defaults::check_default_only(&object)?;
        if object.kind() == ResourceKind::IpPool && creates {
            self.refuse_blocks_of_other_size(&object)?;
        }
        Ok(object)
    }
}

/// What the object says, under the metadata of what is stored.
fn with_metadata_of(object: &ApiObject, stored: &ApiObject) -> ApiObject {
    let mut new = object.clone();
    let mut metadata = stored.value()["metadata"].clone();
    if let Some(metadata) = metadata.as_object_mut() {
        for field in ["labels", "annotations"] {
            match &object.value()["metadata"][field] {
                serde_json::Value::Null => drop(metadata.remove(field)),
                given => drop(metadata.insert(field.to_owned(), given.clone())),
            }
        }
    }
    new.value_mut()["metadata"] = metadata;
    new.canonical()
}

/// Nodes alone write it.
fn refuse_cluster_information(
    kind: ResourceKind,
    operation: &str,
    first: impl FnOnce() -> Result<(), ClientError>,
) -> Result<(), ClientError> {
    if kind != ResourceKind::ClusterInformation {
        return Ok(());
    }
    first()?;
    Err(ClientError::NotSupported {
        operation: operation.to_owned(),
        identifier: kind.to_string(),
        reason: String::new(),
    })
}

fn refuse_kubernetes_policy(object: &ApiObject, operation: &str) -> Result<(), ClientError> {
    if object.kind() != ResourceKind::NetworkPolicy || !object.name().starts_with(KUBERNETES_POLICIES) {
        return Ok(());
    }
    Err(ClientError::NotSupported {
        operation: operation.to_owned(),
        identifier: object.identifier(),
        reason: "kubernetes network policies must be managed through the kubernetes API".to_owned(),
    })
}

/// What stands in a store, as a resource with its defaults.
fn loaded(kind: ResourceKind, stored: &Stored) -> Result<ApiObject, ClientError> {
    let object = ApiObject::decode(kind, &stored.value)
        .map_err(|reason| ClientError::Other(format!("{}: {reason}", stored.key)))?;
    Ok(as_read(object, stored.revision))
}

/// A resource as it is read back after a write.
fn as_read(mut object: ApiObject, revision: crate::Revision) -> ApiObject {
    object.set_text("resourceVersion", &revision.0.to_string());
    policy_name::restore(&mut object);
    match object.kind() {
        ResourceKind::IpPool => pool::defaults(&mut object),
        kind if kind.is_tiered() => {
            if object.label(TIER_LABEL).is_none() {
                object.set_label(TIER_LABEL, "default");
            }
            let tier = policy_name::tier_in(object.name()).to_owned();
            object.default_spec("tier", tier);
        }
        _ => {}
    }
    object.canonical()
}

/// A resource as it is stored.
fn stored_value(object: &ApiObject) -> serde_json::Value {
    let mut object = object.clone();
    object.set_text("resourceVersion", "");
    object.set_text("selfLink", "");
    policy_name::note(&mut object);
    object.canonical().value().clone()
}

/// A random UUID (RFC 9562 §5.4).
fn uuid() -> Result<String, ClientError> {
    let mut bytes = random()?;
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex = hex(&bytes);
    Ok(format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]))
}

fn random() -> Result<[u8; 16], ClientError> {
    let mut bytes = [0; 16];
    let read = File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut bytes));
    read.map(|()| bytes).map_err(|error| ClientError::Other(format!("no random numbers: {error}")))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests;

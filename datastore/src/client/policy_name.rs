//! Policies' names. Before 3.30 a policy of the default tier was stored as `default.NAME` and shown as `NAME`; since then
//! the name is stored as given, and an annotation says which it is (`libcalico-go/lib/names`, `backend/etcdv3`).

use serde_json::json;

use super::{ApiObject, Client, ClientError};
use crate::{Key, ResourceKind, Under};

/// The annotation that says a policy's name.
const ANNOTATION: &str = "projectcalico.org/metadata";
/// Beginnings of names that aren't a tier's.
const GENERATED: [(&str, &str); 4] = [
    ("knp.default.", "default"),
    ("kcnp.kube-admin.", "kube-admin"),
    ("kcnp.kube-baseline.", "kube-baseline"),
    ("ossg.", "default"),
];

/// The tier that a policy belongs to by its name.
pub(super) fn tier_in(name: &str) -> &str {
    let generated = GENERATED.iter().find(|(prefix, _)| name.starts_with(prefix));
    match (generated, name.split_once('.')) {
        (Some((_, tier)), _) => tier,
        (None, Some((tier, _))) => tier,
        (None, None) => "default",
    }
}

/// Notes the name before the policy is stored.
pub(super) fn note(object: &mut ApiObject) {
    if object.kind().is_tiered() {
        let name = json!({ "name": object.name() }).to_string();
        object.value_mut()["metadata"]["annotations"][ANNOTATION] = name.into();
    }
}

/// Gives a policy that was read the name that it goes by.
pub(super) fn restore(object: &mut ApiObject) {
    if !object.kind().is_tiered() {
        return;
    }
    let annotations = object.value_mut()["metadata"]["annotations"].as_object_mut();
    let noted = annotations.and_then(|annotations| annotations.remove(ANNOTATION));
    let noted = noted.as_ref().and_then(|noted| noted.as_str());
    let noted = noted.and_then(|noted| serde_json::from_str::<serde_json::Value>(noted).ok());
    let name = match noted.as_ref().and_then(|noted| noted["name"].as_str()) {
        Some(name) => name.to_owned(),
        None if matches!(object.spec_text("tier"), "" | "default") => {
            object.name().strip_prefix("default.").unwrap_or(object.name()).to_owned()
        }
        None => return,
    };
    object.set_text("name", &name);
}

impl Client<'_> {
    /// Stores the policies of a kind under the names that they go by; gives how many weren't.
    ///
    /// # Errors
    /// That one couldn't be read, written or removed. What has been moved until then stays so, and nothing is lost: the
    /// new name is written before the old one goes.
    pub fn migrate_policy_names(&self, kind: ResourceKind) -> Result<usize, ClientError> {
        let mut moved = 0;
        for stored in self.store().list(&Under::Kind { kind, namespace: None })?.stored {
            let Key::Resource(key) = &stored.key else { continue };
            let Ok(object) = super::loaded(kind, &stored) else { continue };
            if object.name() == key.name || object.name().starts_with("knp.default.") {
                continue;
            }
            let mut new = object.clone();
            new.set_text("resourceVersion", "");
            match self.create_as_is(new) {
                Ok(_) | Err(ClientError::AlreadyExists(_)) => {}
                Err(error) => return Err(error),
            }
            self.store().delete(&stored.key, Some(stored.revision))?;
            moved += 1;
        }
        Ok(moved)
    }
}

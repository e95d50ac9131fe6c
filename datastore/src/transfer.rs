//! A site's move from one store to another, whichever they are.

use model::Family;

use crate::ResourceKind;
use crate::store::{Key, Store, StoreError, Stored, Under};

/// Why a site wasn't moved.
#[derive(Debug, thiserror::Error)]
pub enum TransferError {
    /// The other store has something in it already.
    #[error("the store to write to isn't empty: it holds {0}")]
    NotEmpty(Key),
    /// One of the stores.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Everything in a store but what nodes tell of themselves, which they tell again: resources first, those that others
/// lean on before them, then IPAM's books.
///
/// # Errors
/// The store can't be asked.
pub fn everything(store: &dyn Store) -> Result<Vec<Stored>, StoreError> {
    let mut stored = Vec::new();
    for under in groups() {
        stored.extend(store.list(&under)?.stored);
    }
    match store.get(&Key::IpamConfig) {
        Ok(config) => stored.push(config),
        Err(StoreError::NotFound(_)) => {}
        Err(error) => return Err(error),
    }
    Ok(stored)
}

/// Writes everything of one store into another, which has to be empty, and gives how many values that were. What changes
/// meanwhile may be missed: nobody should write.
///
/// # Errors
/// Nothing has been written where the other store isn't empty; some may have been where a store fails.
pub fn copy(from: &dyn Store, to: &dyn Store) -> Result<usize, TransferError> {
    if let Some(there) = everything(to)?.into_iter().next() {
        return Err(TransferError::NotEmpty(there.key));
    }
    let all = everything(from)?;
    for stored in &all {
        to.create(&stored.key, &stored.value)?;
    }
    Ok(all.len())
}

fn groups() -> impl Iterator<Item = Under> {
    // Policies and endpoints come after the tiers and profiles that they name; affinities are IPAM's, below.
    let late = |kind: &ResourceKind| {
        let name = kind.name();
        name.ends_with("Policy") || name.ends_with("Endpoint")
    };
    let kinds = ResourceKind::ALL.into_iter().filter(|kind| *kind != ResourceKind::BlockAffinity);
    let (last, first): (Vec<_>, Vec<_>) = kinds.partition(late);
    let kinds = first.into_iter().chain(last).map(|kind| Under::Kind { kind, namespace: None });
    let affinities = Family::ALL.map(|family| Under::Affinities { node: None, family });
    let blocks = Family::ALL.map(Under::Blocks);
    kinds.chain(affinities).chain(blocks).chain([Under::Handles])
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{DirectoryStore, MemoryStore, ResourceKey};

    fn site() -> MemoryStore {
        let store = MemoryStore::default();
        for kind in ResourceKind::ALL.into_iter().filter(|kind| *kind != ResourceKind::BlockAffinity) {
            let mut metadata = json!({"name": "x"});
            let mut namespace = String::new();
            if kind.is_namespaced() {
                namespace = "web".to_owned();
                metadata["namespace"] = json!("web");
            }
            let value =
                json!({"apiVersion": "projectcalico.org/v3", "kind": kind.name(), "metadata": metadata});
            let key = Key::Resource(ResourceKey { kind, namespace, name: "x".into() });
            store.create(&key, &value).unwrap();
        }
        let block = "10.0.0.0/26".parse().unwrap();
        let state = json!({"state": "confirmed", "deleted": false});
        store.create(&Key::Affinity { node: "n1".into(), block }, &state).unwrap();
        store.create(&Key::Block(block), &json!({"cidr": "10.0.0.0/26", "affinity": "host:n1"})).unwrap();
        store.create(&Key::Handle("h".into()), &json!({"block": {"10.0.0.0/26": 1}})).unwrap();
        store.create(&Key::IpamConfig, &json!({"strict_affinity": true})).unwrap();
        store
    }

    fn values(store: &dyn Store) -> Vec<(Key, serde_json::Value)> {
        everything(store).unwrap().into_iter().map(|stored| (stored.key, stored.value)).collect()
    }

    #[test]
    fn a_site_goes_into_a_directory_and_comes_back() {
        let (site, back) = (site(), MemoryStore::default());
        let dir = tempfile::tempdir().unwrap();
        let directory = DirectoryStore::open(dir.path()).unwrap();
        let count = copy(&site, &directory).unwrap();
        assert_eq!(count, ResourceKind::ALL.len() - 1 + 4);
        assert_eq!(copy(&directory, &back).unwrap(), count);
        assert_eq!(values(&back), values(&site));
    }

    #[test]
    fn a_store_with_something_in_it_is_left_alone() {
        let (from, to) = (site(), MemoryStore::default());
        to.create(&Key::IpamConfig, &json!({})).unwrap();
        let error = copy(&from, &to).unwrap_err();
        assert_eq!(error.to_string(), "the store to write to isn't empty: it holds IPAMConfig");
        assert_eq!(values(&to).len(), 1);
    }
}

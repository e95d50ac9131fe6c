//! A store in memory: what the others promise, at its shortest. Tests of those who write run on it.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::Value;

use super::{Key, Listed, Revision, Store, StoreError, Stored, Under};

/// An empty store is `MemoryStore::default()`.
#[derive(Debug, Default)]
pub struct MemoryStore(Mutex<Contents>);

#[derive(Debug, Default)]
struct Contents {
    values: BTreeMap<Key, (Value, Revision)>,
    last: i64,
}

impl Contents {
    fn write(&mut self, key: &Key, value: &Value) -> Revision {
        self.last += 1;
        self.values.insert(key.clone(), (value.clone(), Revision(self.last)));
        Revision(self.last)
    }

    fn read(&self, key: &Key) -> Result<Stored, StoreError> {
        let (value, revision) = self.values.get(key).ok_or_else(|| StoreError::NotFound(key.clone()))?;
        Ok(Stored { key: key.clone(), value: value.clone(), revision: *revision })
    }

    fn read_at(&self, key: &Key, revision: Revision) -> Result<Stored, StoreError> {
        let stored = self.read(key)?;
        if stored.revision == revision { Ok(stored) } else { Err(StoreError::Conflict(key.clone())) }
    }
}

impl MemoryStore {
    fn contents(&self) -> MutexGuard<'_, Contents> {
        // No method leaves them half-written, so a panic elsewhere takes nothing from them.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store for MemoryStore {
    fn get(&self, key: &Key) -> Result<Stored, StoreError> {
        self.contents().read(key)
    }

    fn list(&self, under: &Under) -> Result<Listed, StoreError> {
        let contents = self.contents();
        let stored =
            contents.values.iter().filter(|(key, _)| under.holds(key)).map(|(key, (value, revision))| {
                Stored { key: key.clone(), value: value.clone(), revision: *revision }
            });
        Ok(Listed { stored: stored.collect(), revision: Revision(contents.last) })
    }

    fn create(&self, key: &Key, value: &Value) -> Result<Revision, StoreError> {
        let mut contents = self.contents();
        if contents.values.contains_key(key) {
            return Err(StoreError::AlreadyExists(key.clone()));
        }
        Ok(contents.write(key, value))
    }

    fn update(&self, key: &Key, value: &Value, revision: Revision) -> Result<Revision, StoreError> {
        let mut contents = self.contents();
        contents.read_at(key, revision)?;
        Ok(contents.write(key, value))
    }

    fn delete(&self, key: &Key, revision: Option<Revision>) -> Result<Stored, StoreError> {
        let mut contents = self.contents();
        let stored = match revision {
            Some(revision) => contents.read_at(key, revision)?,
            None => contents.read(key)?,
        };
        contents.values.remove(key);
        contents.last += 1;
        Ok(stored)
    }

    /// Lifetimes never end here.
    fn put(&self, key: &Key, value: &Value, _: Option<Duration>) -> Result<Revision, StoreError> {
        Ok(self.contents().write(key, value))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{ResourceKey, ResourceKind};

    fn pool(name: &str) -> Key {
        Key::Resource(ResourceKey { kind: ResourceKind::IpPool, namespace: String::new(), name: name.into() })
    }

    #[test]
    fn a_write_names_the_value_that_it_replaces() {
        let store = MemoryStore::default();
        let first = store.create(&pool("a"), &json!(1)).unwrap();
        assert_eq!(store.create(&pool("a"), &json!(2)), Err(StoreError::AlreadyExists(pool("a"))));
        let second = store.update(&pool("a"), &json!(3), first).unwrap();
        assert_eq!(store.update(&pool("a"), &json!(4), first), Err(StoreError::Conflict(pool("a"))));
        assert_eq!(store.delete(&pool("a"), Some(first)), Err(StoreError::Conflict(pool("a"))));
        assert_eq!(store.delete(&pool("a"), Some(second)).unwrap().value, json!(3));
        assert_eq!(store.get(&pool("a")), Err(StoreError::NotFound(pool("a"))));
    }

    #[test]
    fn a_list_holds_its_own_keys_in_their_order() {
        let store = MemoryStore::default();
        for name in ["b", "a"] {
            store.create(&pool(name), &json!(name)).unwrap();
        }
        store.create(&Key::Handle("h".into()), &json!({})).unwrap();
        let pools = store.list(&Under::Kind { kind: ResourceKind::IpPool, namespace: None }).unwrap();
        let keys: Vec<Key> = pools.stored.into_iter().map(|stored| stored.key).collect();
        assert_eq!(keys, [pool("a"), pool("b")]);
    }
}

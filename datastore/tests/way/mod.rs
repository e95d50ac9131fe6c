//! A way to a store, with somebody on it who decides what passes.

use std::time::Duration;

use datastore::{Key, Listed, Revision, Store, StoreError, Stored, Under};
use serde_json::Value;

/// Who decides.
pub trait Gate: Send + Sync {
    /// What becomes of a question.
    fn read<T>(&self, read: impl FnOnce() -> Result<T, StoreError>) -> Result<T, StoreError>;

    /// What becomes of a write at this key.
    fn write<T>(&self, key: &Key, write: impl FnOnce() -> Result<T, StoreError>) -> Result<T, StoreError>;
}

/// What somebody hears whose way has ended.
pub fn died() -> StoreError {
    StoreError::Unavailable("the writer has died".to_owned())
}

pub struct Way<'a, G> {
    pub store: &'a dyn Store,
    pub gate: G,
}

impl<G: Gate> Store for Way<'_, G> {
    fn get(&self, key: &Key) -> Result<Stored, StoreError> {
        self.gate.read(|| self.store.get(key))
    }

    fn list(&self, under: &Under) -> Result<Listed, StoreError> {
        self.gate.read(|| self.store.list(under))
    }

    fn create(&self, key: &Key, value: &Value) -> Result<Revision, StoreError> {
        self.gate.write(key, || self.store.create(key, value))
    }

    fn update(&self, key: &Key, value: &Value, revision: Revision) -> Result<Revision, StoreError> {
        self.gate.write(key, || self.store.update(key, value, revision))
    }

    fn delete(&self, key: &Key, revision: Option<Revision>) -> Result<Stored, StoreError> {
        self.gate.write(key, || self.store.delete(key, revision))
    }

    fn put(&self, key: &Key, value: &Value, lifetime: Option<Duration>) -> Result<Revision, StoreError> {
        self.gate.write(key, || self.store.put(key, value, lifetime))
    }
}

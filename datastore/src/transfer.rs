//! A site's move from one store to another, whichever they are.
//!
//! What others lean on is written first, and whether the site may be used last of all: until then the copy says that it
//! isn't ready. A move that was interrupted goes on where it was: what is there already, and the same, counts as moved.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use model::Family;
use serde_json::{Value, json};

use crate::ResourceKind;
use crate::store::{Key, ResourceKey, Store, StoreError, Stored, Under};

/// Values that are on their way at once.
const WRITERS: usize = 8;

/// Why a site wasn't moved.
#[derive(Debug, thiserror::Error)]
pub enum TransferError {
    /// The other store has something else in it already.
    #[error("the store to write to isn't empty: it holds {0}")]
    NotEmpty(Key),
    /// One of the stores.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What is to become of what the other store has in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Existing {
    /// Nothing is written where any of it isn't to be moved there too, as it is.
    Refuse,
    /// What is different is overwritten, and what isn't to be moved is removed.
    Replace,
}

/// What a move came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moved {
    /// Values written.
    pub written: usize,
    /// Values that were there already.
    pub unchanged: usize,
    /// Values removed.
    pub removed: usize,
}

/// Everything in a store but what nodes tell of themselves, which they tell again: resources first, those that others
/// lean on before them, then IPAM's books.
///
/// # Errors
/// The store can't be asked.
pub fn everything(store: &dyn Store) -> Result<Vec<Stored>, StoreError> {
    Ok(groups_of(store)?.into_iter().flatten().collect())
}

/// The same in groups, each of which leans on those before it alone.
fn groups_of(store: &dyn Store) -> Result<Vec<Vec<Stored>>, StoreError> {
    let mut groups = Vec::new();
    for under in order() {
        groups.push(store.list(&under)?.stored);
    }
    match store.get(&Key::IpamConfig) {
        Ok(config) => groups.push(vec![config]),
        Err(StoreError::NotFound(_)) => {}
        Err(error) => return Err(error),
    }
    Ok(groups)
}

/// Writes everything of one store into another, which has to be empty, and gives how many values that were. What changes
/// meanwhile may be missed: nobody should write.
///
/// # Errors
/// Nothing has been written where the other store isn't empty; some may have been where a store fails.
pub fn copy(from: &dyn Store, to: &dyn Store) -> Result<usize, TransferError> {
    let moved = transfer(from, to, Existing::Refuse, |_, _| {})?;
    Ok(moved.written + moved.unchanged)
}

/// Writes everything of one store into another. `told` hears how many values have been dealt with, and of how many. What
/// changes meanwhile may be missed: nobody should write.
///
/// # Errors
/// Nothing has been written where the other store holds what it may not; some may have been where a store fails, and the
/// other store then says that it isn't ready.
pub fn transfer(
    from: &dyn Store,
    to: &dyn Store,
    existing: Existing,
    told: impl FnMut(usize, usize) + Send,
) -> Result<Moved, TransferError> {
    let groups = groups_of(from)?;
    let wanted: BTreeMap<&Key, &Value> =
        groups.iter().flatten().map(|stored| (&stored.key, &stored.value)).collect();
    let there = everything(to)?;
    let lock = lock();
    let is_right = |stored: &Stored| {
        wanted.get(&stored.key).is_some_and(|value| **value == stored.value) || is_lock(stored)
    };
    let wrong: Vec<&Stored> = there.iter().filter(|stored| !is_right(stored)).collect();
    if let (Existing::Refuse, Some(wrong)) = (existing, wrong.first()) {
        return Err(TransferError::NotEmpty(wrong.key.clone()));
    }
    let there: BTreeMap<&Key, &Value> = there.iter().map(|stored| (&stored.key, &stored.value)).collect();
    let moves = wanted.iter().filter(|(key, value)| there.get(*key) != Some(*value)).count();
    if moves == 0 && wrong.is_empty() {
        return Ok(Moved { unchanged: wanted.len(), ..Moved::default() });
    }
    // Nobody is to act on half a site.
    to.put(&lock.0, &lock.1, None)?;
    let mut moved = Moved::default();
    for stored in wrong.iter().rev().filter(|stored| !wanted.contains_key(&stored.key)) {
        match to.delete(&stored.key, None) {
            Ok(_) | Err(StoreError::NotFound(_)) => moved.removed += 1,
            Err(error) => return Err(error.into()),
        }
    }
    let progress = Progress { done: AtomicUsize::new(0), total: wanted.len(), told: Mutex::new(told) };
    let (mut last, mut written) = (None, 0);
    for group in &groups {
        let (flag, rest): (Vec<&Stored>, Vec<&Stored>) =
            group.iter().partition(|stored| stored.key == lock.0);
        last = last.or(flag.into_iter().next());
        written += write(to, &rest, &there, &progress)?;
    }
    match last {
        Some(stored) => drop(to.put(&stored.key, &stored.value, None)?),
        None => drop(to.delete(&lock.0, None)?),
    }
    written += usize::from(last.is_some());
    progress.one_more();
    Ok(Moved { written, unchanged: wanted.len() - written, ..moved })
}

struct Progress<T> {
    done: AtomicUsize,
    total: usize,
    told: Mutex<T>,
}

impl<T: FnMut(usize, usize)> Progress<T> {
    fn one_more(&self) {
        let done = self.done.fetch_add(1, Ordering::Relaxed) + 1;
        self.told.lock().unwrap_or_else(PoisonError::into_inner)(done.min(self.total), self.total);
    }
}

/// Writes what isn't there as it should be; gives how many that were. Several at a time, in no order.
fn write<T: FnMut(usize, usize) + Send>(
    to: &dyn Store,
    values: &[&Stored],
    there: &BTreeMap<&Key, &Value>,
    progress: &Progress<T>,
) -> Result<usize, StoreError> {
    let failed = AtomicBool::new(false);
    let one = |stored: &Stored| -> Result<usize, StoreError> {
        let is_there = there.get(&stored.key) == Some(&&stored.value);
        if !is_there {
            to.put(&stored.key, &stored.value, None)?;
        }
        progress.one_more();
        Ok(usize::from(!is_there))
    };
    let some = |values: &[&Stored]| -> Result<usize, StoreError> {
        let mut written = 0;
        for stored in values {
            // Somebody else's failure is the whole's.
            if failed.load(Ordering::Relaxed) {
                return Ok(written);
            }
            written += one(stored).inspect_err(|_| failed.store(true, Ordering::Relaxed))?;
        }
        Ok(written)
    };
    let share = values.len().div_ceil(WRITERS).max(1);
    thread::scope(|scope| {
        let writers: Vec<_> = values.chunks(share).map(|values| scope.spawn(move || some(values))).collect();
        let join = |writer: thread::ScopedJoinHandle<'_, _>| match writer.join() {
            Ok(written) => written,
            Err(panic) => std::panic::resume_unwind(panic),
        };
        // All of them, whatever becomes of the first.
        let written: Vec<Result<usize, StoreError>> = writers.into_iter().map(join).collect();
        written.into_iter().sum()
    })
}

/// The resource that says whether a site may be used, saying that it may not.
fn lock() -> (Key, Value) {
    let key = ResourceKey {
        kind: ResourceKind::ClusterInformation,
        namespace: String::new(),
        name: "default".to_owned(),
    };
    let value = json!({
        "kind": "ClusterInformation", "apiVersion": "projectcalico.org/v3",
        "metadata": {"name": "default"}, "spec": {"datastoreReady": false},
    });
    (Key::Resource(key), value)
}

/// Was it left by a move that was interrupted?
fn is_lock(stored: &Stored) -> bool {
    (&stored.key, &stored.value) == (&lock().0, &lock().1)
}

fn order() -> impl Iterator<Item = Under> {
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
    fn an_interrupted_move_goes_on_and_is_not_ready_until_its_end() {
        /// Fails with the write of this number.
        struct Failing(MemoryStore, AtomicUsize);
        impl Store for Failing {
            fn get(&self, key: &Key) -> Result<Stored, StoreError> {
                self.0.get(key)
            }
            fn list(&self, under: &Under) -> Result<crate::store::Listed, StoreError> {
                self.0.list(under)
            }
            fn create(&self, key: &Key, value: &Value) -> Result<crate::store::Revision, StoreError> {
                self.0.create(key, value)
            }
            fn update(
                &self,
                key: &Key,
                value: &Value,
                revision: crate::store::Revision,
            ) -> Result<crate::store::Revision, StoreError> {
                self.0.update(key, value, revision)
            }
            fn delete(
                &self,
                key: &Key,
                revision: Option<crate::store::Revision>,
            ) -> Result<Stored, StoreError> {
                self.0.delete(key, revision)
            }
            fn put(
                &self,
                key: &Key,
                value: &Value,
                lifetime: Option<std::time::Duration>,
            ) -> Result<crate::store::Revision, StoreError> {
                if self.1.fetch_sub(1, Ordering::Relaxed) == 0 {
                    return Err(StoreError::Unavailable("gone".to_owned()));
                }
                self.0.put(key, value, lifetime)
            }
        }
        let site = site();
        let total = everything(&site).unwrap().len();
        let to = Failing(MemoryStore::default(), AtomicUsize::new(9));
        let error = transfer(&site, &to, Existing::Refuse, |_, _| {}).unwrap_err();
        assert_eq!(error.to_string(), "gone");
        assert_eq!(to.0.get(&lock().0).unwrap().value, lock().1);
        to.1.store(usize::MAX, Ordering::Relaxed);
        let mut last = (0, 0);
        let moved = transfer(&site, &to, Existing::Refuse, |done, of| last = (done, of)).unwrap();
        assert_eq!((moved.written + moved.unchanged, last), (total, (total, total)));
        assert!(moved.unchanged > 0, "{moved:?}");
        assert_eq!(values(&to.0), values(&site));
        let again = transfer(&site, &to, Existing::Refuse, |_, _| {}).unwrap();
        assert_eq!(again, Moved { unchanged: total, ..Moved::default() });
    }

    #[test]
    fn what_is_to_be_replaced_becomes_the_same() {
        let (site, to) = (site(), MemoryStore::default());
        to.create(&Key::Handle("old".into()), &json!({})).unwrap();
        to.create(&Key::IpamConfig, &json!({"strict_affinity": false})).unwrap();
        let moved = transfer(&site, &to, Existing::Replace, |_, _| {}).unwrap();
        assert_eq!((moved.removed, moved.unchanged), (1, 0));
        assert_eq!(values(&to), values(&site));
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

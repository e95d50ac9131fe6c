//! etcd v3 with Calico's own keys, values and transactions (`libcalico-go/lib/backend/etcdv3`), so that calicoctl, the CNI
//! plugin and we can write the same store at the same time.

mod client;
mod course;
mod discovery;
mod entry;
mod follow;
mod message;
mod path;
mod reactor;
mod state;

pub use self::follow::{Etcd, EtcdConfig};

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use self::client::{Client, Failure};
use self::message::{
    Compare, DeleteRangeRequest, Expected, Header, KeyValue, PutRequest, RangeRequest, Request, RequestOp,
    Response, Target, TxnRequest, TxnResponse,
};
use self::reactor::Reactor;
use crate::settings::EtcdSettings;
use crate::store::{Key, Listed, Revision, Store, StoreError, Stored, Under};

/// A list is begun anew where etcd has thrown away the revision that it was begun at, but not for ever.
const LIST_ATTEMPTS: u32 = 3;

/// An etcd. A thread of its own does the talking, so that calls may come from any other.
pub struct EtcdStore {
    client: Arc<Client>,
    reactor: Reactor,
}

impl EtcdStore {
    /// Reads certificates and addresses. The first call connects.
    ///
    /// # Errors
    /// What is wrong with them, or that no thread can be had.
    pub fn open(settings: &EtcdSettings) -> Result<EtcdStore, StoreError> {
        let client = Client::new(settings).map_err(StoreError::Unavailable)?;
        let reactor = Reactor::start("etcd").map_err(|error| StoreError::Unavailable(error.to_string()))?;
        Ok(EtcdStore { client: Arc::new(client), reactor })
    }

    fn transaction(&self, transaction: TxnRequest) -> Result<TxnResponse, StoreError> {
        let client = Arc::clone(&self.client);
        self.reactor.run(async move { Ok(client.transaction(transaction).await?) })
    }

    /// Writes where a condition holds; where it doesn't, tells what is there.
    fn write_if(
        &self,
        condition: Compare,
        key: &Key,
        value: &Value,
    ) -> Result<Result<Revision, Vec<KeyValue>>, StoreError> {
        let path = path_of(key)?;
        let put = PutRequest { key: path.clone(), value: value.to_string().into_bytes(), lease: 0 };
        let transaction = TxnRequest {
            compare: vec![condition],
            success: vec![op(Request::Put(put))],
            failure: vec![op(Request::Range(exactly(path)))],
        };
        let answer = self.transaction(transaction)?;
        let revision = client::known(answer.header)?.revision;
        Ok(if answer.succeeded { Ok(Revision(revision)) } else { Err(ranged(answer)) })
    }
}

impl Store for EtcdStore {
    fn get(&self, key: &Key) -> Result<Stored, StoreError> {
        let (client, path) = (Arc::clone(&self.client), path_of(key)?);
        let answer = self.reactor.run(async move { Ok(client.range(exactly(path)).await?) })?;
        let found: KeyValue =
            answer.kvs.into_iter().next().ok_or_else(|| StoreError::NotFound(key.clone()))?;
        stored(key.clone(), &found)
    }

    /// Values that aren't JSON are left out, as Calico's clients leave them out.
    fn list(&self, under: &Under) -> Result<Listed, StoreError> {
        let prefix = path::under(under).map_err(StoreError::Unavailable)?;
        let client = Arc::clone(&self.client);
        let (found, revision) = self.reactor.run(async move { Ok(all(&client, &prefix).await?) })?;
        let mut listed = Listed { stored: Vec::with_capacity(found.len()), revision: Revision(revision) };
        for found in found {
            let path = String::from_utf8_lossy(&found.key);
            let Some(key) = path::parse(&path).filter(|key| under.holds(key)) else { continue };
            match stored(key, &found) {
                Ok(stored) => listed.stored.push(stored),
                Err(error) => {
                    tracing::warn!(key = %path, %error, "what is stored under this key is left out")
                }
            }
        }
        Ok(listed)
    }

    fn create(&self, key: &Key, value: &Value) -> Result<Revision, StoreError> {
        let condition = Compare {
            target: Target::Version.into(),
            key: path_of(key)?,
            expected: Some(Expected::Version(0)),
        };
        self.write_if(condition, key, value)?.map_err(|_| StoreError::AlreadyExists(key.clone()))
    }

    fn update(&self, key: &Key, value: &Value, revision: Revision) -> Result<Revision, StoreError> {
        let condition = at(path_of(key)?, revision);
        self.write_if(condition, key, value)?.map_err(|found| {
            if found.is_empty() {
                StoreError::NotFound(key.clone())
            } else {
                StoreError::Conflict(key.clone())
            }
        })
    }

    fn delete(&self, key: &Key, revision: Option<Revision>) -> Result<Stored, StoreError> {
        let path = path_of(key)?;
        let delete = DeleteRangeRequest { key: path.clone(), range_end: Vec::new(), prev_kv: true };
        let transaction = TxnRequest {
            compare: revision.map(|revision| at(path.clone(), revision)).into_iter().collect(),
            success: vec![op(Request::DeleteRange(delete))],
            failure: vec![op(Request::Range(exactly(path)))],
        };
        let answer = self.transaction(transaction)?;
        let missing = || StoreError::NotFound(key.clone());
        if !answer.succeeded {
            return Err(if ranged(answer).is_empty() {
                missing()
            } else {
                StoreError::Conflict(key.clone())
            });
        }
        let deleted = answer.responses.into_iter().find_map(|response| match response.response? {
            Response::DeleteRange(deleted) => deleted.prev_kvs.into_iter().next(),
            _ => None,
        });
        // It is gone whatever it was: a value that can't be read is no reason to say otherwise.
        let deleted = deleted.ok_or_else(missing)?;
        let value = serde_json::from_slice(&deleted.value).unwrap_or(Value::Null);
        Ok(Stored { key: key.clone(), value, revision: Revision(deleted.mod_revision) })
    }

    fn put(&self, key: &Key, value: &Value, lifetime: Option<Duration>) -> Result<Revision, StoreError> {
        let (client, key, value) = (Arc::clone(&self.client), path_of(key)?, value.to_string().into_bytes());
        self.reactor.run(async move {
            let lease = match lifetime {
                Some(lifetime) => client.grant(lifetime).await?.id,
                None => 0,
            };
            let answer = client.put(PutRequest { key, value, lease }).await?;
            Ok(Revision(client::known(answer.header)?.revision))
        })
    }
}

/// Everything under a prefix as it was at one revision, and that revision.
async fn all(client: &Client, prefix: &str) -> Result<(Vec<KeyValue>, i64), Failure> {
    let mut attempts = 1;
    loop {
        match listed_at(client, prefix, 0).await {
            Err(failure) if failure.is_compacted() && attempts < LIST_ATTEMPTS => attempts += 1,
            result => return result.map(|(found, header)| (found, header.revision)),
        }
    }
}

/// Everything under a prefix as it was at a revision, or is now where that is 0. Also what the first answer said of the
/// store, which then is the revision that all of it is from.
async fn listed_at(
    client: &Client,
    prefix: &str,
    mut revision: i64,
) -> Result<(Vec<KeyValue>, Header), Failure> {
    let mut next = prefix.as_bytes().to_vec();
    let (mut found, mut first) = (Vec::new(), None);
    loop {
        let limit = client.page();
        let request = RangeRequest { key: next.clone(), range_end: path::end_of(prefix), limit, revision };
        let answer = match client.range(request).await {
            Err(failure) if failure.is_too_large() && limit > 1 => {
                client.ask_for_less();
                continue;
            }
            Err(failure) if failure.is_too_slow() => {
                // The next attempt gets through a narrow way piece by piece.
                client.ask_for_less();
                return Err(failure);
            }
            answer => answer?,
        };
        let header = client::known(answer.header)?;
        if revision == 0 {
            revision = header.revision;
        }
        let first = *first.get_or_insert(header);
        found.extend(answer.kvs);
        match found.last() {
            Some(last) if answer.more => {
                next.clone_from(&last.key);
                // The first key behind it.
                next.push(0);
            }
            _ => {
                client.ask_for_more();
                return Ok((found, first));
            }
        }
    }
}

impl From<Failure> for StoreError {
    fn from(failure: Failure) -> StoreError {
        StoreError::Unavailable(failure.to_string())
    }
}

fn path_of(key: &Key) -> Result<Vec<u8>, StoreError> {
    let unusable = |reason| StoreError::Unusable { key: key.clone(), reason };
    path::of(key).map(String::into_bytes).map_err(unusable)
}

fn stored(key: Key, found: &KeyValue) -> Result<Stored, StoreError> {
    // Affinities from before they had states.
    if found.value.is_empty() && matches!(key, Key::Affinity { .. }) {
        let value = Value::Object(serde_json::Map::new());
        return Ok(Stored { key, value, revision: Revision(found.mod_revision) });
    }
    match serde_json::from_slice(&found.value) {
        Ok(value) => Ok(Stored { key, value, revision: Revision(found.mod_revision) }),
        Err(error) => Err(StoreError::Unusable { key, reason: format!("it isn't JSON: {error}") }),
    }
}

fn exactly(key: Vec<u8>) -> RangeRequest {
    RangeRequest { key, ..RangeRequest::default() }
}

fn at(key: Vec<u8>, revision: Revision) -> Compare {
    Compare { target: Target::Mod.into(), key, expected: Some(Expected::ModRevision(revision.0)) }
}

fn op(request: Request) -> RequestOp {
    RequestOp { request: Some(request) }
}

fn ranged(answer: TxnResponse) -> Vec<KeyValue> {
    let range = |response: Response| match response {
        Response::Range(range) => Some(range.kvs),
        _ => None,
    };
    answer.responses.into_iter().find_map(|response| range(response.response?)).unwrap_or_default()
}

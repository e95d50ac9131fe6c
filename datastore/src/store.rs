//! A datastore that is read and written by key, each write by compare-and-swap: what commands and IPAM need of
//! one, whichever it is. Following changes is another matter: see `Directory`.
//!
//! Values are JSON as Calico stores them, without `metadata.resourceVersion`: that is the [`Revision`] of a
//! [`Stored`]. A store checks no value; who writes has checked it.

mod directory;
mod memory;

use std::fmt;
use std::time::Duration;

use model::{Family, Prefix};
use serde_json::Value;

use crate::ResourceKind;

pub use directory::DirectoryStore;
pub use memory::MemoryStore;

/// What a value is stored under (`libcalico-go/lib/backend/model`).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Key {
    /// A resource of Calico's API, v3.
    Resource(ResourceKey),
    /// A block of IPAM's.
    Block(Prefix),
    /// That a node claims a block.
    Affinity {
        /// The node.
        node: String,
        /// The block.
        block: Prefix,
    },
    /// What IPAM gave to one owner.
    Handle(String),
    /// IPAM's own settings.
    IpamConfig,
    /// What a node tells of itself, as Felix does.
    Status(StatusKey),
}

/// Which of a node's reports (`statusreports.go`, `workloadendpointstatus.go`, `hostendpointstatus.go`). Those of
/// OpenStack's regions are not among them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum StatusKey {
    /// That the node is alive; it has to be written again before its lifetime ends.
    Active {
        /// The node.
        node: String,
    },
    /// The last one of those; it stays.
    Last {
        /// The node.
        node: String,
    },
    /// How a workload's endpoint fares.
    Workload {
        /// The node.
        node: String,
        /// Such as `k8s`.
        orchestrator: String,
        /// The workload.
        workload: String,
        /// Its endpoint.
        endpoint: String,
    },
    /// How a host's endpoint fares.
    Host {
        /// The node.
        node: String,
        /// The endpoint.
        endpoint: String,
    },
}

impl StatusKey {
    /// Whose report it is.
    pub fn node(&self) -> &str {
        match self {
            StatusKey::Active { node }
            | StatusKey::Last { node }
            | StatusKey::Workload { node, .. }
            | StatusKey::Host { node, .. } => node,
        }
    }
}

/// What names a resource.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ResourceKey {
    /// Its kind.
    pub kind: ResourceKind,
    /// Its namespace; empty where the kind has none.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Key::Resource(key) => key.fmt(f),
            Key::Block(block) => write!(f, "IPAMBlock({block})"),
            Key::Affinity { node, block } => write!(f, "BlockAffinity({node}, {block})"),
            Key::Handle(handle) => write!(f, "IPAMHandle({handle})"),
            Key::IpamConfig => f.write_str("IPAMConfig"),
            Key::Status(key) => key.fmt(f),
        }
    }
}

/// As Calico's own errors name a report.
impl fmt::Display for StatusKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StatusKey::Active { node } | StatusKey::Last { node } => {
                write!(f, "StatusReport(hostname={node})")
            }
            StatusKey::Workload { node, orchestrator, workload, endpoint } => write!(
                f,
                "WorkloadEndpointStatus(hostname={node}, orchestrator={orchestrator}, workload={workload}, name={endpoint})"
            ),
            StatusKey::Host { node, endpoint } => {
                write!(f, "HostEndpointStatus(hostname={node}, name={endpoint})")
            }
        }
    }
}

/// As Calico's own errors name a resource: `IPPool(pool1)`, `NetworkPolicy(default/web)`.
impl fmt::Display for ResourceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ResourceKey { kind, namespace, name } = self;
        if namespace.is_empty() {
            write!(f, "{kind}({name})")
        } else {
            write!(f, "{kind}({namespace}/{name})")
        }
    }
}

/// Some of the keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Under {
    /// The resources of a kind.
    Kind {
        /// The kind.
        kind: ResourceKind,
        /// In this namespace alone.
        namespace: Option<String>,
    },
    /// The blocks of a family.
    Blocks(Family),
    /// The affinities of a family's blocks.
    Affinities {
        /// Of this node alone.
        node: Option<String>,
        /// The family.
        family: Family,
    },
    /// All handles.
    Handles,
    /// A node's reports of its workloads' endpoints.
    WorkloadStatuses {
        /// The node.
        node: String,
    },
    /// A node's reports of its own endpoints.
    HostStatuses {
        /// The node.
        node: String,
    },
}

impl Under {
    /// Is this one of them?
    pub fn holds(&self, key: &Key) -> bool {
        match (self, key) {
            (Under::Kind { kind, namespace }, Key::Resource(key)) => {
                key.kind == *kind && namespace.as_ref().is_none_or(|namespace| *namespace == key.namespace)
            }
            (Under::Blocks(family), Key::Block(block)) => block.family() == *family,
            (Under::Affinities { node, family }, Key::Affinity { node: of, block }) => {
                block.family() == *family && node.as_ref().is_none_or(|node| node == of)
            }
            (Under::Handles, Key::Handle(_)) => true,
            (Under::WorkloadStatuses { node }, Key::Status(key @ StatusKey::Workload { .. }))
            | (Under::HostStatuses { node }, Key::Status(key @ StatusKey::Host { .. })) => key.node() == node,
            _ => false,
        }
    }
}

/// Which write a value comes from: etcd's ModRevision, or a file's. Greater is later, in one store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision(pub i64);

/// A value, and where it stands.
#[derive(Clone, Debug, PartialEq)]
pub struct Stored {
    /// Its key.
    pub key: Key,
    /// The value.
    pub value: Value,
    /// The write it comes from.
    pub revision: Revision,
}

/// Values as they were at one moment.
#[derive(Clone, Debug, PartialEq)]
pub struct Listed {
    /// In the order of their keys.
    pub stored: Vec<Stored>,
    /// The store's last write before they were read.
    pub revision: Revision,
}

/// Why a store didn't do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// There is no such value.
    #[error("resource does not exist: {0}")]
    NotFound(Key),
    /// It was to be created, and is there.
    #[error("resource already exists: {0}")]
    AlreadyExists(Key),
    /// Somebody else has written it since it was read.
    #[error("update conflict: {0}")]
    Conflict(Key),
    /// The store can't be asked.
    #[error("{0}")]
    Unavailable(String),
    /// What stands under a key can't be read, or can't be written.
    #[error("{key}: {reason}")]
    Unusable {
        /// The key.
        key: Key,
        /// Why.
        reason: String,
    },
}

/// A store. Calls block; each is whole or not at all.
pub trait Store: Send + Sync {
    /// The value of a key.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], or that the store can't be asked.
    fn get(&self, key: &Key) -> Result<Stored, StoreError>;

    /// All values of some keys; none is no error.
    ///
    /// # Errors
    /// That the store can't be asked.
    fn list(&self, under: &Under) -> Result<Listed, StoreError>;

    /// Writes a value that isn't there yet.
    ///
    /// # Errors
    /// [`StoreError::AlreadyExists`], or that the store can't be asked.
    fn create(&self, key: &Key, value: &Value) -> Result<Revision, StoreError>;

    /// Writes a value in place of the one that `revision` names.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], [`StoreError::Conflict`], or that the store can't be asked.
    fn update(&self, key: &Key, value: &Value, revision: Revision) -> Result<Revision, StoreError>;

    /// Removes a value, or only the one that `revision` names; gives what was removed.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], [`StoreError::Conflict`], or that the store can't be asked.
    fn delete(&self, key: &Key, revision: Option<Revision>) -> Result<Stored, StoreError>;

    /// Writes a value over whatever there is. With a lifetime (whole seconds) it goes away by itself when that is over,
    /// where the store can do so.
    ///
    /// # Errors
    /// That the store can't be asked.
    fn put(&self, key: &Key, value: &Value, lifetime: Option<Duration>) -> Result<Revision, StoreError>;
}

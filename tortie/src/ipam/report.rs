//! What `ipam check` writes for programs, and `ipam release` reads.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The books at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Report {
    pub(super) version: String,
    #[serde(rename = "clusterGUID")]
    pub(super) cluster_guid: String,
    pub(super) datastore_locked: bool,
    pub(super) cluster_information_revision: String,
    pub(super) cluster_type: String,
    /// By address, as a text.
    pub(super) allocations: BTreeMap<String, Vec<Allocation>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) leaked_handles: Vec<HandleInfo>,
}

/// An address that isn't free.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Allocation {
    pub(super) ip: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) handle: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) sequence_number: Option<u64>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) pod: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) namespace: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) node: String,
    #[serde(rename = "type", skip_serializing_if = "String::is_empty")]
    pub(super) kind: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) creation_timestamp: String,
    pub(super) in_use: bool,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(super) borrowed: bool,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(super) cooling_down: bool,
    /// Who uses it; `null` where nobody does.
    pub(super) owners: Option<Vec<String>>,
}

/// A handle that nobody's address names.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct HandleInfo {
    #[serde(rename = "ID")]
    pub(super) id: String,
    /// Kubernetes' alone.
    #[serde(rename = "UID")]
    pub(super) uid: Option<String>,
    #[serde(rename = "Revision")]
    pub(super) revision: String,
}

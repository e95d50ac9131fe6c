//! Calico's NetworkSet and GlobalNetworkSet resources, which are one noun here.

use std::collections::BTreeMap;

use crate::Prefix;

/// Networks with labels, for rules to select (`api/pkg/apis/projectcalico/v3/networkset.go`, `globalnetworkset.go`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NetworkSet {
    /// `metadata.namespace`; `None` for a GlobalNetworkSet.
    pub namespace: Option<String>,
    /// `metadata.name`.
    pub name: String,
    /// `metadata.labels`, and in a namespace `projectcalico.org/namespace`.
    pub labels: BTreeMap<String, String>,
    /// `spec.nets`.
    pub nets: Vec<Prefix>,
}

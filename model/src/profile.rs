//! Calico's Profile resource.

use std::collections::BTreeMap;

use crate::PolicyRule;

/// Rules and labels that endpoints share by naming it (`api/pkg/apis/projectcalico/v3/profile.go`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Profile {
    /// `metadata.name`.
    pub name: String,
    /// `spec.labelsToApply`: what its endpoints have where they don't say otherwise themselves.
    pub labels_to_apply: BTreeMap<String, String>,
    /// `spec.ingress`, in order.
    pub ingress: Vec<PolicyRule>,
    /// `spec.egress`, in order.
    pub egress: Vec<PolicyRule>,
}

impl Profile {
    /// The name of the profile that always exists and allows everything both ways.
    pub const DEFAULT_ALLOW: &'static str = "projectcalico-default-allow";
}

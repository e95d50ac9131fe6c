//! Calico's Tier resource.

use crate::Order;

/// What becomes of a packet that no policy of a tier decides.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TierDefault {
    /// Dropped.
    #[default]
    Deny,
    /// The next tier is asked.
    Pass,
}

/// A group of policies that is asked as one (`api/pkg/apis/projectcalico/v3/tier.go`). `policy::rule::Tier` is what one
/// endpoint has of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tier {
    /// `metadata.name`.
    pub name: String,
    /// `spec.order`, among the tiers.
    pub order: Order,
    /// `spec.defaultAction`.
    pub default_action: TierDefault,
}

impl Tier {
    /// The name of the tier of policies that name none.
    pub const DEFAULT: &'static str = "default";
}

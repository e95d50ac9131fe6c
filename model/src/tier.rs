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

    /// The tiers that always exist, whether somebody wrote them down or not (`api/pkg/apis/projectcalico/v3/tier.go`).
    pub fn standard() -> [Tier; 3] {
        let tier = |name: &str, order, default_action| {
            let order = Order::new(order).unwrap_or(Order::LAST);
            Tier { name: name.to_owned(), order, default_action }
        };
        [
            tier("kube-admin", 1e3, TierDefault::Pass),
            tier(Tier::DEFAULT, 1e6, TierDefault::Deny),
            tier("kube-baseline", 1e7, TierDefault::Pass),
        ]
    }
}

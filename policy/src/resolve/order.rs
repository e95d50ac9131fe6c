//! The order in which tiers and their policies are asked (`felix/calc/policy_sorter.go`).

use std::cmp::Ordering;

use model::{Order, PolicyKey};

/// A policy's place: by tier, then by order, then by name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    pub(crate) tier: TierPlace,
    order: Order,
    tie: String,
}

impl Place {
    pub(crate) fn new(tier: TierPlace, order: Order, key: &PolicyKey) -> Place {
        let namespace = key.namespace.as_deref().unwrap_or_default();
        // As Felix breaks ties: by this very text.
        Place { tier, order, tie: format!("{}/{namespace}/{}", key.name, key.kind) }
    }
}

/// A tier's place: those that are there before those that policies merely name, then by order, then by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TierPlace {
    pub(crate) name: String,
    /// `None` where there is no such tier.
    pub(crate) order: Option<Order>,
}

impl Ord for TierPlace {
    fn cmp(&self, other: &TierPlace) -> Ordering {
        let key = |place: &TierPlace| (place.order.is_none(), place.order);
        key(self).cmp(&key(other)).then_with(|| self.name.cmp(&other.name))
    }
}

impl PartialOrd for TierPlace {
    fn partial_cmp(&self, other: &TierPlace) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::PolicyKind;

    #[test]
    fn tiers_that_are_not_there_come_last_and_ties_go_by_name() {
        let tier = |name: &str, order| TierPlace { name: name.to_owned(), order };
        let at = |order| Some(Order::new(order).unwrap());
        let mut tiers = [
            tier("ghost", None),
            tier("b", Some(Order::LAST)),
            tier("c", at(2.0)),
            tier("a", at(10.0)),
            tier("a2", at(2.0)),
        ];
        tiers.sort();
        assert_eq!(tiers.map(|tier| tier.name), ["a2", "c", "a", "b", "ghost"]);
    }

    #[test]
    fn policies_go_by_order_then_by_name_namespace_and_kind() {
        let place = |name: &str, namespace: Option<&str>, kind, order| {
            let key = PolicyKey { kind, namespace: namespace.map(str::to_owned), name: name.to_owned() };
            let tier = TierPlace { name: "default".to_owned(), order: Some(Order::LAST) };
            Place::new(tier, order, &key)
        };
        let (global, namespaced) = (PolicyKind::GlobalNetworkPolicy, PolicyKind::NetworkPolicy);
        let early = place("z", None, global, Order::new(1.0).unwrap());
        let late = place("a", None, global, Order::LAST);
        let later = place("a", Some("ns"), namespaced, Order::LAST);
        assert!(early < late && late < later);
    }
}

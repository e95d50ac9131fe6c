//! Workload endpoints that ask to send under addresses of others (`allowSpoofedSourcePrefixes`). Where FelixConfiguration doesn't
//! say `workloadSourceSpoofing: Any`, there are none of them, here or on other nodes: neither their addresses nor their labels
//! count, and their interfaces are of nobody, as in Felix (`validateWorkloadEndpoint` in `felix/calc/validation_filter.go`).

use std::collections::BTreeMap;
use std::sync::Arc;

use model::{Key, Resource, Update};

use crate::calico::Warning;

/// All such endpoints, and whether they count.
#[derive(Debug, Default)]
pub(crate) struct Spoofing {
    asking: BTreeMap<Key, Arc<Resource>>,
    is_allowed: bool,
}

impl Spoofing {
    /// What a change is to everybody else: one that puts an endpoint there which doesn't count removes it.
    pub(crate) fn filter(&mut self, update: Update) -> Update {
        match &update {
            Update::Put(resource) => {
                let Resource::WorkloadEndpoint(endpoint) = &**resource else { return update };
                let key = resource.key();
                if endpoint.allowed_sources.is_empty() {
                    self.asking.remove(&key);
                    return update;
                }
                self.asking.insert(key.clone(), Arc::clone(resource));
                if self.is_allowed { update } else { Update::Remove(key) }
            }
            Update::Remove(key) => {
                self.asking.remove(key);
                update
            }
            Update::InSync => update,
        }
    }

    /// They count, or not, from now on: what changes by that.
    pub(crate) fn allow(&mut self, is_allowed: bool) -> Vec<Update> {
        if std::mem::replace(&mut self.is_allowed, is_allowed) == is_allowed {
            return Vec::new();
        }
        let change = |(key, resource): (&Key, &Arc<Resource>)| match is_allowed {
            true => Update::Put(Arc::clone(resource)),
            false => Update::Remove(key.clone()),
        };
        self.asking.iter().map(change).collect()
    }

    /// The endpoints of this node that don't count.
    pub(crate) fn warnings(&self, node: &str) -> impl Iterator<Item = Warning> {
        let refused = self.asking.values().filter(|_| !self.is_allowed);
        refused.filter_map(move |resource| match &**resource {
            Resource::WorkloadEndpoint(endpoint) if endpoint.node == node => {
                let endpoint = (endpoint.namespace.clone(), endpoint.name.clone());
                Some(Warning::SpoofingRefused { endpoint })
            }
            _ => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use model::WorkloadEndpoint;

    use super::*;

    fn put(name: &str, allowed_sources: &[&str]) -> Update {
        let endpoint = WorkloadEndpoint {
            namespace: "default".to_owned(),
            name: name.to_owned(),
            node: "here".to_owned(),
            allowed_sources: allowed_sources.iter().map(|prefix| prefix.parse().unwrap()).collect(),
            ..WorkloadEndpoint::default()
        };
        Update::Put(Arc::new(Resource::WorkloadEndpoint(endpoint)))
    }

    fn key(name: &str) -> Key {
        Key::WorkloadEndpoint("default".to_owned(), name.to_owned())
    }

    #[test]
    fn an_endpoint_that_asks_to_spoof_is_there_where_that_is_allowed() {
        let mut spoofing = Spoofing::default();
        let (plain, asks) = (put("plain", &[]), put("asks", &["192.0.2.0/24"]));
        assert_eq!(spoofing.filter(plain.clone()), plain);
        assert_eq!(spoofing.filter(asks.clone()), Update::Remove(key("asks")));
        assert_eq!(spoofing.allow(false), []);
        assert_eq!((spoofing.warnings("here").count(), spoofing.warnings("elsewhere").count()), (1, 0));
        assert_eq!(spoofing.allow(true), vec![asks.clone()]);
        assert_eq!((spoofing.allow(true), spoofing.warnings("here").count()), (vec![], 0));
        assert_eq!(spoofing.filter(asks.clone()), asks);
        assert_eq!(spoofing.allow(false), [Update::Remove(key("asks"))]);
    }

    #[test]
    fn one_that_asks_no_more_or_is_gone_is_not_brought_back() {
        let mut spoofing = Spoofing::default();
        let asks = |name| put(name, &["2001:db8::/64"]);
        for name in ["changes", "goes"] {
            spoofing.filter(asks(name));
        }
        let changed = put("changes", &[]);
        assert_eq!(spoofing.filter(changed.clone()), changed);
        assert_eq!(spoofing.filter(Update::Remove(key("goes"))), Update::Remove(key("goes")));
        assert_eq!(spoofing.allow(true), []);
        assert_eq!(spoofing.filter(asks("changes")), asks("changes"));
    }
}

//! Who there is for selectors to select.

use std::collections::BTreeMap;

use model::{Profile, Resource};

use crate::{Labels, Selector};

/// Endpoints and network sets with the labels that they have, their profiles' included.
pub(super) struct People<'a> {
    endpoints: Vec<Person<'a>>,
    sets: Vec<Person<'a>>,
    /// Are all profiles given that endpoints name, so that it is known what endpoints inherit?
    complete: bool,
}

struct Person<'a> {
    own: &'a BTreeMap<String, String>,
    /// Those of its profiles, in order: the first that gives a label is heard.
    inherited: Vec<&'a BTreeMap<String, String>>,
    /// Do rules know any address of it?
    has_address: bool,
}

impl Labels for Person<'_> {
    fn value(&self, name: &str) -> Option<&str> {
        let mut sources = std::iter::once(self.own).chain(self.inherited.iter().copied());
        sources.find_map(|labels| labels.get(name)).map(String::as_str)
    }
}

impl<'a> People<'a> {
    pub(super) fn of(resources: &[&'a Resource]) -> People<'a> {
        let profiles: BTreeMap<&str, &'a Profile> = resources
            .iter()
            .filter_map(|resource| match resource {
                Resource::Profile(profile) => Some((profile.name.as_str(), profile)),
                _ => None,
            })
            .collect();
        let labels = |names: &[String]| -> Vec<&'a BTreeMap<String, String>> {
            let known = names.iter().filter_map(|name| profiles.get(name.as_str()));
            known.map(|profile| &profile.labels_to_apply).collect()
        };
        let mut people = People { endpoints: Vec::new(), sets: Vec::new(), complete: true };
        let given = |names: &[String]| {
            names.iter().all(|name| name == Profile::DEFAULT_ALLOW || profiles.contains_key(name.as_str()))
        };
        for resource in resources {
            match resource {
                Resource::WorkloadEndpoint(endpoint) => {
                    people.complete &= given(&endpoint.profiles);
                    people.endpoints.push(Person {
                        own: &endpoint.labels,
                        inherited: labels(&endpoint.profiles),
                        has_address: true,
                    });
                }
                Resource::HostEndpoint(endpoint) => {
                    people.complete &= given(&endpoint.profiles);
                    people.endpoints.push(Person {
                        own: &endpoint.labels,
                        inherited: labels(&endpoint.profiles),
                        has_address: !endpoint.expected_ips.is_empty(),
                    });
                }
                Resource::NetworkSet(set) => people.sets.push(Person {
                    own: &set.labels,
                    inherited: match &set.namespace {
                        Some(namespace) => labels(&[format!("kns.{namespace}")]),
                        None => Vec::new(),
                    },
                    has_address: true,
                }),
                _ => {}
            }
        }
        people
    }

    /// Is there an endpoint, and none that the selector selects? `inherited` says that it asks for labels of namespaces
    /// or service accounts.
    pub(super) fn selects_no_endpoint(&self, selector: &Selector, inherited: bool) -> bool {
        self.can_tell(inherited) && !self.endpoints.iter().any(|one| selector.matches(one))
    }

    /// The same of all whose addresses rules know.
    pub(super) fn selects_nobody(&self, selector: &Selector, inherited: bool) -> bool {
        let mut endpoints = self.endpoints.iter().filter(|endpoint| endpoint.has_address);
        self.can_tell(inherited)
            && !endpoints.any(|one| selector.matches(one))
            && !self.sets.iter().any(|one| selector.matches(one))
    }

    fn can_tell(&self, inherited: bool) -> bool {
        !self.endpoints.is_empty() && (self.complete || !inherited)
    }
}

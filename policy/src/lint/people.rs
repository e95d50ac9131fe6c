//! Who there is for selectors to select.

use std::collections::BTreeMap;

use model::{Profile, Resource};

use crate::{Labels, Selector};

/// Endpoints and network sets with the labels that they have, their profiles' included.
pub(super) struct People<'a> {
    endpoints: Vec<Person<'a>>,
    sets: Vec<Person<'a>>,
}

struct Person<'a> {
    namespace: Option<&'a str>,
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
        let mut people = People { endpoints: Vec::new(), sets: Vec::new() };
        for resource in resources {
            match resource {
                Resource::WorkloadEndpoint(endpoint) => people.endpoints.push(Person {
                    namespace: Some(&endpoint.namespace),
                    own: &endpoint.labels,
                    inherited: labels(&endpoint.profiles),
                    has_address: true,
                }),
                Resource::HostEndpoint(endpoint) => people.endpoints.push(Person {
                    namespace: None,
                    own: &endpoint.labels,
                    inherited: labels(&endpoint.profiles),
                    has_address: !endpoint.expected_ips.is_empty(),
                }),
                Resource::NetworkSet(set) => people.sets.push(Person {
                    namespace: set.namespace.as_deref(),
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

    /// Is there an endpoint, and none that the selector selects, in the namespace where one is given?
    pub(super) fn selects_no_endpoint(&self, selector: &str, namespace: Option<&str>) -> bool {
        self.none(selector, namespace, self.endpoints.iter())
    }

    /// The same of all whose addresses rules know.
    pub(super) fn selects_nobody(&self, selector: &str, namespace: Option<&str>) -> bool {
        let endpoints = self.endpoints.iter().filter(|endpoint| endpoint.has_address);
        self.none(selector, namespace, endpoints.chain(&self.sets))
    }

    fn none<'b>(
        &self,
        selector: &str,
        namespace: Option<&str>,
        mut whom: impl Iterator<Item = &'b Person<'b>>,
    ) -> bool {
        let Ok(selector) = selector.parse::<Selector>() else { return false };
        let selected = |one: &Person<'_>| {
            namespace.is_none_or(|namespace| one.namespace == Some(namespace)) && selector.matches(one)
        };
        !self.endpoints.is_empty() && !whom.any(selected)
    }
}

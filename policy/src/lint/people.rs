//! Who there is for selectors to select.

use std::collections::{BTreeMap, BTreeSet};

use model::{Profile, Resource};

use crate::resolve::compose::{OF_NAMESPACE, OF_SERVICE_ACCOUNT};
use crate::similar::nearest;
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

    /// Is it known whom a selector selects?
    pub(super) fn can_tell(&self, inherited: bool) -> bool {
        !self.endpoints.is_empty() && (self.complete || !inherited)
    }

    /// Every endpoint's labels.
    pub(super) fn endpoints(&self) -> impl Iterator<Item = &(impl Labels + use<'a>)> {
        self.endpoints.iter()
    }

    /// The first thing that a selector demands and that no endpoint has: the label, and what to say of it.
    pub(super) fn lack_of_endpoints(&self, selector: &Selector) -> Option<(String, String)> {
        lack(selector, &known(self.endpoints.iter()))
    }

    /// The same of all whose addresses rules know.
    pub(super) fn lack(&self, selector: &Selector) -> Option<(String, String)> {
        let endpoints = self.endpoints.iter().filter(|endpoint| endpoint.has_address);
        lack(selector, &known(endpoints.chain(&self.sets)))
    }
}

/// Which values each label has.
type Known<'a> = BTreeMap<&'a str, BTreeSet<&'a str>>;

fn known<'a>(people: impl Iterator<Item = &'a Person<'a>>) -> Known<'a> {
    let mut known = Known::new();
    for person in people {
        for (name, value) in std::iter::once(person.own).chain(person.inherited.iter().copied()).flatten() {
            known.entry(name).or_default().insert(value);
        }
    }
    known
}

fn lack(selector: &Selector, known: &Known<'_>) -> Option<(String, String)> {
    /// Values that are told.
    const TOLD: usize = 4;
    selector.restrictions().into_iter().find_map(|(label, demanded)| {
        let word = word(label);
        let Some(values) = known.get(label) else {
            if !demanded.must_be_present {
                return None;
            }
            let meant = nearest(label, known.keys().copied())
                .map_or(String::new(), |meant| format!(": is {:?} meant?", bare(meant)));
            return Some((label.to_owned(), format!("nobody {word}{meant}")));
        };
        let wanted = demanded.must_have_one_of?;
        if wanted.iter().any(|value| values.contains(value)) {
            return None;
        }
        let meant = wanted.iter().find_map(|value| nearest(value, values.iter().copied()));
        let told = match meant {
            Some(meant) => format!("is {meant:?} meant?"),
            None => {
                let told: Vec<String> = values.iter().take(TOLD).map(|value| format!("{value:?}")).collect();
                let more = if values.len() > TOLD { ", and more" } else { "" };
                format!("there is {}{more}", told.join(", "))
            }
        };
        let wanted: Vec<String> = wanted.iter().map(|value| format!("{value:?}")).collect();
        Some((label.to_owned(), format!("nobody {word} that is {}; {told}", wanted.join(" or "))))
    })
}

/// Who has a label, in an operator's words.
fn word(label: &str) -> String {
    if let Some(name) = label.strip_prefix(OF_NAMESPACE) {
        format!("is in a namespace with a label {name:?}")
    } else if let Some(name) = label.strip_prefix(OF_SERVICE_ACCOUNT) {
        format!("runs as a service account with a label {name:?}")
    } else {
        format!("has a label {label:?}")
    }
}

/// A label's own name, wherever it is inherited from.
fn bare(label: &str) -> &str {
    label.strip_prefix(OF_NAMESPACE).or(label.strip_prefix(OF_SERVICE_ACCOUNT)).unwrap_or(label)
}

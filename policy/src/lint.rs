//! What is legal and surely not meant: rules that nothing reaches, selectors that select nobody, tiers, profiles and
//! ports that don't exist.
//!
//! Only what the resources given say for themselves is found. Where no endpoints are given, nothing is said of whom
//! selectors select.

mod cover;
mod people;
mod reach;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use model::{
    EndpointPort, EntityRule, NetworkPolicy, PolicyRule, PortMatch, Profile, Protocol, Resource, Tier,
};

use crate::resolve::compose::{self, Composed, OF_NAMESPACE, OF_SERVICE_ACCOUNT};
use people::People;

/// Something that is likely not meant.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    /// Which of the resources, counted from 0.
    pub resource: usize,
    /// The field's path, such as `spec.ingress[1].source.selector`.
    pub field: String,
    /// What of it, and what to do.
    pub text: String,
}

/// Looks at resources that belong together; the findings come in their order.
pub fn lint(resources: &[&Resource]) -> Vec<Finding> {
    let mut lint = Lint { people: People::of(resources), findings: Vec::new(), resource: 0 };
    let reach = reach::Reach::of(resources, &lint.people);
    let profiles = profile_names(resources);
    let ports = port_names(resources);
    for (number, resource) in resources.iter().enumerate() {
        lint.resource = number;
        match resource {
            Resource::NetworkPolicy(policy) => {
                lint.policy(policy, &ports);
                for (field, text) in reach.findings(number, policy) {
                    lint.find(field, text);
                }
            }
            Resource::Profile(profile) => {
                lint.rules("spec.ingress", &profile.ingress, None, &ports);
                lint.rules("spec.egress", &profile.egress, None, &ports);
            }
            Resource::WorkloadEndpoint(endpoint) => lint.profiles(&endpoint.profiles, &profiles),
            Resource::HostEndpoint(endpoint) => lint.profiles(&endpoint.profiles, &profiles),
            _ => {}
        }
    }
    lint.findings
}

/// Names and protocols of all endpoints' ports; nothing where no endpoints are given.
type Ports<'a> = Option<BTreeSet<(&'a str, Protocol)>>;

struct Lint<'a> {
    people: People<'a>,
    findings: Vec<Finding>,
    /// The one that is looked at.
    resource: usize,
}

impl Lint<'_> {
    fn find(&mut self, field: impl Into<String>, text: String) {
        self.findings.push(Finding { resource: self.resource, field: field.into(), text });
    }

    fn policy(&mut self, policy: &NetworkPolicy, ports: &Ports<'_>) {
        let namespace = policy.key.namespace.as_deref();
        let inherited = policy.namespace_selector.is_some() || policy.service_account_selector.is_some();
        if let Ok(whom) = compose::of_policy(policy)
            && self.people.selects_no_endpoint(&whom.selector, inherited)
        {
            let (field, why) = match self.people.lack_of_endpoints(&whom.selector) {
                Some((label, why)) if label.starts_with(OF_NAMESPACE) => {
                    ("spec.namespaceSelector", format!(" ({why})"))
                }
                Some((label, why)) if label.starts_with(OF_SERVICE_ACCOUNT) => {
                    ("spec.serviceAccountSelector", format!(" ({why})"))
                }
                Some((_, why)) => ("spec.selector", format!(" ({why})")),
                None => ("spec.selector", String::new()),
            };
            let text =
                format!("{} given here has these labels: the policy does nothing{why}", nobody(namespace));
            self.find(field, text);
        }
        self.rules("spec.ingress", &policy.ingress, namespace, ports);
        self.rules("spec.egress", &policy.egress, namespace, ports);
    }

    fn rules(&mut self, path: &str, rules: &[PolicyRule], namespace: Option<&str>, ports: &Ports<'_>) {
        for (number, rule) in rules.iter().enumerate() {
            let path_of = |number| format!("{path}[{number}]");
            let earlier = rules.iter().take(number).position(|earlier| cover::covers(earlier, rule));
            if let Some(earlier) = earlier {
                let text = format!(
                    "never asked: {} ({}) matches all that it matches; put this one before it, or take one of \
                     them out",
                    path_of(earlier),
                    rules[earlier].action,
                );
                self.find(path_of(number), text);
            }
            for (name, end) in [("source", &rule.source), ("destination", &rule.destination)] {
                let path = format!("{}.{name}", path_of(number));
                self.selector(&path, end, namespace);
                self.ports(&path, end, rule.protocol, ports);
            }
        }
    }

    fn selector(&mut self, path: &str, end: &EntityRule, namespace: Option<&str>) {
        let fields = [
            ("selector", end.selector.is_some()),
            ("namespaceSelector", end.namespace_selector.is_some()),
            ("serviceAccounts", end.service_accounts.is_some()),
        ];
        let Some((field, _)) = fields.into_iter().find(|(_, asks)| *asks) else { return };
        let inherited = end.namespace_selector.is_some() || end.service_accounts.is_some();
        if let Ok(Composed { selector: Some(whom), .. }) = compose::of_end(end, namespace)
            && self.people.selects_nobody(&whom, inherited)
        {
            let lack = self.people.lack(&whom);
            let whom = nobody(namespace.filter(|_| end.namespace_selector.is_none()));
            let (field, why) = match lack {
                Some((label, why)) if label.starts_with(OF_NAMESPACE) && end.namespace_selector.is_some() => {
                    ("namespaceSelector", format!(" ({why})"))
                }
                Some((label, why)) if label.starts_with(OF_SERVICE_ACCOUNT) => {
                    ("serviceAccounts", format!(" ({why})"))
                }
                Some((_, why)) => (field, format!(" ({why})")),
                None => (field, String::new()),
            };
            let text =
                format!("{whom} or network set given here has these labels: the rule matches nothing{why}");
            self.find(format!("{path}.{field}"), text);
        }
    }

    fn ports(&mut self, path: &str, end: &EntityRule, protocol: Option<Protocol>, ports: &Ports<'_>) {
        let Some(known) = ports else { return };
        for (list, matches) in [("ports", &end.ports), ("notPorts", &end.not_ports)] {
            for (number, port) in matches.iter().enumerate() {
                let PortMatch::Named(name) = port else { continue };
                let has = |(known, of): &(&str, Protocol)| {
                    known == name && protocol.is_none_or(|protocol| protocol == *of)
                };
                if !known.iter().any(has) {
                    let protocol = protocol.map_or(String::new(), |protocol| format!(" of {protocol}"));
                    let text = format!(
                        "no endpoint given here has a port{protocol} named {name:?}: give one of them that port, or \
                         ask for a number"
                    );
                    self.find(format!("{path}.{list}[{number}]"), text);
                }
            }
        }
    }

    fn profiles(&mut self, named: &[String], known: &BTreeSet<&str>) {
        for (number, name) in named.iter().enumerate() {
            if !known.contains(name.as_str()) {
                let text = format!(
                    "there is no Profile {name:?} given here: what it would allow is dropped; write it down, or take \
                     it out"
                );
                self.find(format!("spec.profiles[{number}]"), text);
            }
        }
    }
}

fn nobody(namespace: Option<&str>) -> String {
    namespace.map_or_else(
        || "no endpoint".to_owned(),
        |namespace| format!("no endpoint of namespace {namespace:?}"),
    )
}

fn profile_names<'a>(resources: &[&'a Resource]) -> BTreeSet<&'a str> {
    let names = resources.iter().filter_map(|resource| match resource {
        Resource::Profile(profile) => Some(profile.name.as_str()),
        _ => None,
    });
    names.chain([Profile::DEFAULT_ALLOW]).collect()
}

fn port_names<'a>(resources: &[&'a Resource]) -> Ports<'a> {
    let ports: Vec<&'a [EndpointPort]> = resources
        .iter()
        .filter_map(|resource| match resource {
            Resource::WorkloadEndpoint(endpoint) => Some(endpoint.ports.as_slice()),
            Resource::HostEndpoint(endpoint) => Some(endpoint.ports.as_slice()),
            _ => None,
        })
        .collect();
    let names = || ports.iter().copied().flatten().map(|port| (port.name.as_str(), port.protocol)).collect();
    (!ports.is_empty()).then(names)
}

/// The tiers given, and those that always exist.
fn tiers(resources: &[&Resource]) -> Vec<Tier> {
    let given: Vec<Tier> = resources
        .iter()
        .filter_map(|resource| match resource {
            Resource::Tier(tier) => Some(tier.clone()),
            _ => None,
        })
        .collect();
    let standard = Tier::standard().into_iter().filter(|tier| !given.iter().any(|one| one.name == tier.name));
    let mut tiers: Vec<Tier> = standard.chain(given.iter().cloned()).collect();
    tiers.sort_by(|a, b| (a.order, &a.name).cmp(&(b.order, &b.name)));
    tiers
}

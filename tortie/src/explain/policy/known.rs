//! The resources given, and the endpoint meant.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::bail;
use model::{HostEndpoint, HostInterface, Key, PolicyKey, PolicyRule, Resource, WorkloadEndpoint};

/// How many endpoints an error names.
const NAMED: usize = 10;

/// All resources of the files.
pub(super) struct Known {
    resources: BTreeMap<Key, Arc<Resource>>,
}

/// An endpoint among them.
#[derive(Clone, Copy)]
pub(super) enum Endpoint<'a> {
    Workload(&'a WorkloadEndpoint),
    Host(&'a HostEndpoint),
}

impl Known {
    /// # Errors
    /// A file can't be read, isn't valid, or two of them say what one resource is.
    pub(super) fn read(files: &[PathBuf]) -> anyhow::Result<Known> {
        let mut resources = BTreeMap::new();
        for file in files {
            let read = datastore::check(file).map_err(|problems| {
                let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
                anyhow::anyhow!("{}", lines.join("\n"))
            })?;
            for resource in read {
                let key = resource.key();
                if resources.insert(key.clone(), Arc::new(resource)).is_some() {
                    bail!("{}: {key} stands in another of the files as well", file.display());
                }
            }
        }
        Ok(Known { resources })
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &Arc<Resource>> {
        self.resources.values()
    }

    pub(super) fn has(&self, key: &Key) -> bool {
        self.resources.contains_key(key)
    }

    /// The endpoint that is called so.
    ///
    /// # Errors
    /// None or several are.
    pub(super) fn endpoint(&self, called: &str) -> anyhow::Result<Endpoint<'_>> {
        let all: Vec<Endpoint<'_>> = self.resources.values().filter_map(|it| Endpoint::of(it)).collect();
        // A whole name is meant before a mere interface.
        let exact = all.iter().find(|endpoint| endpoint.name() == called);
        let meant: Vec<&Endpoint<'_>> = match exact {
            Some(endpoint) => vec![endpoint],
            None => all.iter().filter(|endpoint| endpoint.is_called(called)).collect(),
        };
        match meant.as_slice() {
            [endpoint] => Ok(**endpoint),
            [] if all.is_empty() => {
                bail!("the files have no endpoint: add a WorkloadEndpoint or HostEndpoint called {called}")
            }
            [] => bail!(
                "the files have no endpoint called {called}, but {}",
                names(&all.iter().collect::<Vec<_>>())
            ),
            several => bail!("several endpoints are called {called}: {}", names(several)),
        }
    }

    /// The rules of a policy's direction; none where it isn't there.
    pub(super) fn rules(&self, key: &PolicyKey, egress: bool) -> &[PolicyRule] {
        match self.resources.get(&Key::NetworkPolicy(key.clone())).map(|it| &**it) {
            Some(Resource::NetworkPolicy(policy)) if egress => &policy.egress,
            Some(Resource::NetworkPolicy(policy)) => &policy.ingress,
            _ => &[],
        }
    }

    /// The rules of a profile's direction; none where it isn't there.
    pub(super) fn profile_rules(&self, name: &str, egress: bool) -> Option<&[PolicyRule]> {
        match self.resources.get(&Key::Profile(name.to_owned())).map(|it| &**it) {
            Some(Resource::Profile(profile)) if egress => Some(&profile.egress),
            Some(Resource::Profile(profile)) => Some(&profile.ingress),
            _ => None,
        }
    }
}

impl<'a> Endpoint<'a> {
    fn of(resource: &'a Resource) -> Option<Endpoint<'a>> {
        match resource {
            Resource::WorkloadEndpoint(endpoint) => Some(Endpoint::Workload(endpoint)),
            Resource::HostEndpoint(endpoint) => Some(Endpoint::Host(endpoint)),
            _ => None,
        }
    }

    /// As it is written: with the namespace where it has one.
    pub(super) fn name(&self) -> String {
        match self {
            Endpoint::Workload(endpoint) => format!("{}/{}", endpoint.namespace, endpoint.name),
            Endpoint::Host(endpoint) => endpoint.name.clone(),
        }
    }

    pub(super) fn kind(&self) -> &'static str {
        match self {
            Endpoint::Workload(_) => "WorkloadEndpoint",
            Endpoint::Host(_) => "HostEndpoint",
        }
    }

    pub(super) fn node(&self) -> &'a str {
        match self {
            Endpoint::Workload(endpoint) => &endpoint.node,
            Endpoint::Host(endpoint) => &endpoint.node,
        }
    }

    pub(super) fn key(&self) -> Key {
        match self {
            Endpoint::Workload(endpoint) => {
                Key::WorkloadEndpoint(endpoint.namespace.clone(), endpoint.name.clone())
            }
            Endpoint::Host(endpoint) => Key::HostEndpoint(endpoint.name.clone()),
        }
    }

    fn is_called(&self, called: &str) -> bool {
        match self {
            Endpoint::Workload(endpoint) => endpoint.name == called || endpoint.interface == called,
            Endpoint::Host(endpoint) => endpoint.interface == HostInterface::Named(called.to_owned()),
        }
    }
}

fn names(endpoints: &[&Endpoint<'_>]) -> String {
    let mut names = endpoints.iter().take(NAMED).map(|it| it.name()).collect::<Vec<_>>().join(", ");
    if endpoints.len() > NAMED {
        let _ = write!(names, " and {} more", endpoints.len() - NAMED);
    }
    names
}

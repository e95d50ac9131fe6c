//! Where Calico keeps what in etcd (`libcalico-go/lib/backend/model`).
//!
//! Names of resources are written as they are, and their readers take `%2f` and `%25` for `/` and `%`; in nodes' reports
//! names are written that way too.

use std::net::IpAddr;

use model::{Family, Prefix};

use crate::ResourceKind;
use crate::store::{Key, ResourceKey, StatusKey, Under};

const RESOURCES: &str = "/calico/resources/v3/projectcalico.org/";
const BLOCKS: &str = "/calico/ipam/v2/assignment/";
const HOSTS: &str = "/calico/ipam/v2/host/";
const HANDLES: &str = "/calico/ipam/v2/handle/";
const CONFIG: &str = "/calico/ipam/v2/config";
/// Reports of nodes that are in no region of OpenStack's.
const REPORTS: &str = "/calico/felix/v2/no-region/host/";
const HOST_REPORTS: &str = "/calico/felix/v1/host/";

/// The etcd key of a key.
///
/// # Errors
/// The part that would be taken for another key.
pub(crate) fn of(key: &Key) -> Result<String, String> {
    Ok(match key {
        Key::Resource(ResourceKey { kind, namespace, name }) => {
            let plural = kind.plural();
            if kind.is_namespaced() {
                format!("{RESOURCES}{plural}/{}/{}", whole("namespace", namespace)?, whole("name", name)?)
            } else {
                format!("{RESOURCES}{plural}/{}", whole("name", name)?)
            }
        }
        Key::Block(block) => format!("{BLOCKS}{}/block/{}", version(block.family()), dashed(*block)),
        Key::Affinity { node, block } => {
            format!("{HOSTS}{}/{}/block/{}", whole("node", node)?, version(block.family()), dashed(*block))
        }
        Key::Handle(handle) => format!("{HANDLES}{}", whole("handle", handle)?),
        Key::IpamConfig => CONFIG.to_owned(),
        Key::Status(StatusKey::Active { node }) => format!("{REPORTS}{}/status", whole("node", node)?),
        Key::Status(StatusKey::Last { node }) => {
            format!("{REPORTS}{}/last_reported_status", whole("node", node)?)
        }
        Key::Status(StatusKey::Workload { node, orchestrator, workload, endpoint }) => format!(
            "{REPORTS}{}/workload/{}/{}/endpoint/{}",
            whole("node", node)?,
            escaped("orchestrator", orchestrator)?,
            escaped("workload", workload)?,
            escaped("endpoint", endpoint)?
        ),
        Key::Status(StatusKey::Host { node, endpoint }) => {
            format!("{HOST_REPORTS}{}/endpoint/{}", whole("node", node)?, escaped("endpoint", endpoint)?)
        }
    })
}

/// The etcd key that all of some keys begin with; it ends in `/`, so that `/a` doesn't stand for `/ab`.
///
/// # Errors
/// As [`of`].
pub(crate) fn under(under: &Under) -> Result<String, String> {
    Ok(match under {
        Under::Kind { kind, namespace } => match namespace {
            Some(namespace) if kind.is_namespaced() => {
                format!("{RESOURCES}{}/{}/", kind.plural(), whole("namespace", namespace)?)
            }
            _ => format!("{RESOURCES}{}/", kind.plural()),
        },
        Under::Blocks(family) => format!("{BLOCKS}{}/block/", version(*family)),
        Under::Affinities { node: Some(node), family } => {
            format!("{HOSTS}{}/{}/block/", whole("node", node)?, version(*family))
        }
        Under::Affinities { node: None, .. } => HOSTS.to_owned(),
        Under::Handles => HANDLES.to_owned(),
        Under::WorkloadStatuses { node } => format!("{REPORTS}{}/workload/", whole("node", node)?),
        Under::HostStatuses { node } => format!("{HOST_REPORTS}{}/endpoint/", whole("node", node)?),
    })
}

/// The first key behind all that begin with a prefix, as etcd wants the end of a range.
pub(crate) fn end_of(prefix: &str) -> Vec<u8> {
    let mut end = prefix.as_bytes().to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            return end;
        }
    }
    // All keys.
    vec![0]
}

/// The key of an etcd key; nothing where it is somebody else's, or of no use here.
pub(crate) fn parse(path: &str) -> Option<Key> {
    if let Some(rest) = path.strip_prefix(RESOURCES) {
        return resource(rest).map(Key::Resource);
    }
    if let Some(rest) = path.strip_prefix(BLOCKS) {
        let (family, block) = rest.split_once("/block/")?;
        return undashed(family, block).map(Key::Block);
    }
    if let Some(rest) = path.strip_prefix(HOSTS) {
        let (node, rest) = rest.split_once('/')?;
        let (family, block) = rest.split_once("/block/")?;
        let block = undashed(family, block)?;
        return (!node.is_empty()).then(|| Key::Affinity { node: node.to_owned(), block });
    }
    if let Some(handle) = path.strip_prefix(HANDLES) {
        return is_segment(handle).then(|| Key::Handle(handle.to_owned()));
    }
    if path == CONFIG {
        return Some(Key::IpamConfig);
    }
    status(path).map(Key::Status)
}

fn resource(rest: &str) -> Option<ResourceKey> {
    let (plural, rest) = rest.split_once('/')?;
    let kind = ResourceKind::of_plural(plural)?;
    let (namespace, name) = if kind.is_namespaced() { rest.split_once('/')? } else { ("", rest) };
    let names_it = is_segment(name) && (is_segment(namespace) || !kind.is_namespaced());
    names_it.then(|| ResourceKey { kind, namespace: unescaped(namespace), name: unescaped(name) })
}

fn status(path: &str) -> Option<StatusKey> {
    if let Some(rest) = path.strip_prefix(HOST_REPORTS) {
        let (node, endpoint) = rest.split_once("/endpoint/")?;
        let is_one = is_segment(node) && is_segment(endpoint);
        return is_one.then(|| StatusKey::Host { node: node.to_owned(), endpoint: unescaped(endpoint) });
    }
    let rest = path.strip_prefix(REPORTS)?;
    let segments: Vec<&str> = rest.split('/').collect();
    if segments.iter().any(|segment| segment.is_empty()) {
        return None;
    }
    match segments.as_slice() {
        [node, "status"] => Some(StatusKey::Active { node: (*node).to_owned() }),
        [node, "last_reported_status"] => Some(StatusKey::Last { node: (*node).to_owned() }),
        [node, "workload", orchestrator, workload, "endpoint", endpoint] => Some(StatusKey::Workload {
            node: (*node).to_owned(),
            orchestrator: unescaped(orchestrator),
            workload: unescaped(workload),
            endpoint: unescaped(endpoint),
        }),
        _ => None,
    }
}

fn is_segment(text: &str) -> bool {
    !text.is_empty() && !text.contains('/')
}

fn whole<'a>(part: &str, text: &'a str) -> Result<&'a str, String> {
    if is_segment(text) { Ok(text) } else { Err(format!("the {part} {text:?} is empty or has a / in it")) }
}

fn escaped(part: &str, text: &str) -> Result<String, String> {
    if text.is_empty() {
        return Err(format!("the {part} is empty"));
    }
    Ok(text.replace('%', "%25").replace('/', "%2f"))
}

fn unescaped(text: &str) -> String {
    text.replace("%2f", "/").replace("%25", "%")
}

fn version(family: Family) -> &'static str {
    match family {
        Family::V4 => "ipv4",
        Family::V6 => "ipv6",
    }
}

/// A prefix as one part of a path: `10.0.0.0-26`.
fn dashed(block: Prefix) -> String {
    format!("{}-{}", block.addr(), block.len())
}

fn undashed(family: &str, text: &str) -> Option<Prefix> {
    let (addr, len) = text.split_once('-')?;
    let block = Prefix::new(addr.parse::<IpAddr>().ok()?, len.parse().ok()?)?;
    (version(block.family()) == family).then_some(block)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn family() -> impl Strategy<Value = Family> {
        prop_oneof![Just(Family::V4), Just(Family::V6)]
    }

    fn block() -> impl Strategy<Value = Prefix> {
        prop_oneof![
            (any::<[u8; 4]>(), 0u8..=32).prop_map(|(addr, len)| Prefix::new(addr.into(), len).unwrap()),
            (any::<[u8; 16]>(), 0u8..=128).prop_map(|(addr, len)| Prefix::new(addr.into(), len).unwrap()),
        ]
    }

    /// Any text that Calico would take for one part of a path, and not for an escape.
    fn name() -> &'static str {
        "[^/%]{1,20}"
    }

    fn status() -> impl Strategy<Value = StatusKey> {
        let anything = || ".{1,12}";
        prop_oneof![
            name().prop_map(|node| StatusKey::Active { node }),
            name().prop_map(|node| StatusKey::Last { node }),
            (name(), anything(), anything(), anything()).prop_map(
                |(node, orchestrator, workload, endpoint)| {
                    StatusKey::Workload { node, orchestrator, workload, endpoint }
                }
            ),
            (name(), anything()).prop_map(|(node, endpoint)| StatusKey::Host { node, endpoint }),
        ]
    }

    fn key() -> impl Strategy<Value = Key> {
        let kind = prop::sample::select(ResourceKind::ALL.to_vec());
        prop_oneof![
            (kind, name(), name()).prop_map(|(kind, namespace, name)| {
                let namespace = if kind.is_namespaced() { namespace } else { String::new() };
                Key::Resource(ResourceKey { kind, namespace, name })
            }),
            block().prop_map(Key::Block),
            (name(), block()).prop_map(|(node, block)| Key::Affinity { node, block }),
            name().prop_map(Key::Handle),
            Just(Key::IpamConfig),
            status().prop_map(Key::Status),
        ]
    }

    fn group() -> impl Strategy<Value = Under> {
        let kind = prop::sample::select(ResourceKind::ALL.to_vec());
        prop_oneof![
            (kind, prop::option::of(name())).prop_map(|(kind, namespace)| {
                let namespace = namespace.filter(|_| kind.is_namespaced());
                Under::Kind { kind, namespace }
            }),
            family().prop_map(Under::Blocks),
            (prop::option::of(name()), family())
                .prop_map(|(node, family)| Under::Affinities { node, family }),
            Just(Under::Handles),
            name().prop_map(|node| Under::WorkloadStatuses { node }),
            name().prop_map(|node| Under::HostStatuses { node }),
        ]
    }

    proptest! {
        #[test]
        fn a_key_is_found_again_by_its_path(key in key()) {
            let path = of(&key).unwrap();
            prop_assert!(path.starts_with("/calico/"));
            // `%` alone is written as it is and read as it is; only `%2f` and `%25` are not.
            prop_assert_eq!(parse(&path), Some(key));
        }

        #[test]
        fn a_group_holds_a_key_only_where_their_paths_say_so(under in group(), key in key()) {
            if under.holds(&key) {
                prop_assert!(of(&key).unwrap().starts_with(&super::under(&under).unwrap()));
            }
        }

        #[test]
        fn no_text_makes_it_panic(path in "(/calico/(resources/v3/projectcalico.org|ipam/v2|felix/v2))?[/a-z0-9.%-]{0,40}") {
            if let Some(key) = parse(&path)
                && !path.contains('%')
                && let Ok(again) = of(&key) {
                // Addresses have several spellings.
                prop_assert_eq!(parse(&again), Some(key));
            }
        }

        #[test]
        fn a_range_ends_behind_its_prefix(prefix in "[a-z/]{1,10}", rest in ".{0,5}", other in "[a-z/]{1,10}") {
            let end = end_of(&prefix);
            let inside = format!("{prefix}{rest}");
            prop_assert!(inside.as_bytes() < end.as_slice());
            if other.as_bytes() >= end.as_slice() || other < prefix {
                prop_assert!(!other.starts_with(&prefix));
            }
        }
    }

    #[test]
    fn paths_are_calicos_own() {
        let resource = |kind, namespace: &str, name: &str| {
            Key::Resource(ResourceKey { kind, namespace: namespace.into(), name: name.into() })
        };
        let node = || "rack1-host1".to_owned();
        for (key, path) in [
            (
                resource(ResourceKind::IpPool, "", "pool1"),
                "/calico/resources/v3/projectcalico.org/ippools/pool1",
            ),
            (
                resource(ResourceKind::WorkloadEndpoint, "default", "rack1--host1-k8s-web--0-eth0"),
                "/calico/resources/v3/projectcalico.org/workloadendpoints/default/rack1--host1-k8s-web--0-eth0",
            ),
            (
                Key::Block("192.168.10.0/26".parse().unwrap()),
                "/calico/ipam/v2/assignment/ipv4/block/192.168.10.0-26",
            ),
            (
                Key::Block("fd00:1::/122".parse().unwrap()),
                "/calico/ipam/v2/assignment/ipv6/block/fd00:1::-122",
            ),
            (
                Key::Affinity { node: node(), block: "10.1.3.64/26".parse().unwrap() },
                "/calico/ipam/v2/host/rack1-host1/ipv4/block/10.1.3.64-26",
            ),
            (Key::Handle("k8s-pod-network.1".to_owned()), "/calico/ipam/v2/handle/k8s-pod-network.1"),
            (Key::IpamConfig, "/calico/ipam/v2/config"),
            (
                Key::Status(StatusKey::Active { node: node() }),
                "/calico/felix/v2/no-region/host/rack1-host1/status",
            ),
            (
                Key::Status(StatusKey::Workload {
                    node: node(),
                    orchestrator: "k8s".to_owned(),
                    workload: "default/web%0".to_owned(),
                    endpoint: "eth0".to_owned(),
                }),
                "/calico/felix/v2/no-region/host/rack1-host1/workload/k8s/default%2fweb%250/endpoint/eth0",
            ),
            (
                Key::Status(StatusKey::Host { node: node(), endpoint: "eth0".to_owned() }),
                "/calico/felix/v1/host/rack1-host1/endpoint/eth0",
            ),
        ] {
            assert_eq!(of(&key).as_deref(), Ok(path));
            assert_eq!(parse(path), Some(key));
        }
    }

    #[test]
    fn a_name_that_would_reach_into_other_keys_is_refused() {
        for name in ["", "a/b"] {
            assert!(of(&Key::Handle(name.to_owned())).is_err(), "{name:?}");
        }
    }

    #[test]
    fn keys_of_others_are_nobodys() {
        for path in [
            "/calico/dhcp/v2/no-region/subnet/x",
            "/calico/ipam/v2/host/n",
            "/calico/ipam/v2/virtual/lb/ipv4/block/10.0.0.0-26",
            "/calico/ipam/v2/assignment/ipv6/block/10.0.0.0-26",
            "/calico/ipam/v2/assignment/ipv4/block/10.0.0.0",
            "/calico/resources/v3/projectcalico.org/ippools/",
            "/calico/resources/v3/projectcalico.org/ippools/a/b",
            "/calico/resources/v3/projectcalico.org/workloadendpoints/a",
            "/calico/resources/v3/projectcalico.org/sprockets/a",
            "/calico/felix/v2/region-r/host/n/status",
            "/registry/pods",
        ] {
            assert_eq!(parse(path), None, "{path}");
        }
        let slashed = parse("/calico/resources/v3/projectcalico.org/ippools/a%2fb%25").unwrap();
        assert_eq!(slashed.to_string(), "IPPool(a/b%)");
    }
}

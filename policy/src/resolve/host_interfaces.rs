//! Which host endpoint an interface is (`felix/dataplane/linux/endpoint_mgr.go`).

use std::net::IpAddr;

use model::{HostEndpoint, HostInterface};

/// The host endpoint that an interface with this name and these addresses is, among those of its node: one that names
/// it or expects one of its addresses, the first by name; otherwise the first that is about all interfaces.
///
/// One that names another interface is never chosen for its addresses.
pub fn host_endpoint_of<'a>(
    endpoints: impl IntoIterator<Item = &'a HostEndpoint>,
    interface: &str,
    addrs: &[IpAddr],
) -> Option<&'a HostEndpoint> {
    let is_for_all = |endpoint: &HostEndpoint| endpoint.interface == HostInterface::All;
    let fits = |endpoint: &&HostEndpoint| match &endpoint.interface {
        HostInterface::All => true,
        HostInterface::Named(name) => name == interface,
        HostInterface::WithExpectedIp => endpoint.expected_ips.iter().any(|addr| addrs.contains(addr)),
    };
    endpoints.into_iter().filter(fits).min_by_key(|endpoint| (is_for_all(endpoint), &endpoint.name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn endpoint(name: &str, interface: HostInterface, expected: &[&str]) -> HostEndpoint {
        HostEndpoint {
            name: name.to_owned(),
            labels: BTreeMap::new(),
            node: "n".to_owned(),
            interface,
            expected_ips: expected.iter().map(|addr| addr.parse().unwrap()).collect(),
            profiles: Vec::new(),
            ports: Vec::new(),
            dscp: None,
        }
    }

    fn named(name: &str) -> HostInterface {
        HostInterface::Named(name.to_owned())
    }

    fn chosen(endpoints: &[HostEndpoint], interface: &str, addrs: &[&str]) -> Option<String> {
        let addrs: Vec<IpAddr> = addrs.iter().map(|addr| addr.parse().unwrap()).collect();
        host_endpoint_of(endpoints, interface, &addrs).map(|endpoint| endpoint.name.clone())
    }

    #[test]
    fn the_first_by_name_wins_whether_it_names_the_interface_or_an_address() {
        let all = [
            endpoint("c", named("eth0"), &[]),
            endpoint("b", HostInterface::WithExpectedIp, &["192.0.2.1"]),
            endpoint("a", named("eth1"), &["192.0.2.1"]),
        ];
        assert_eq!(chosen(&all, "eth0", &["192.0.2.1"]).as_deref(), Some("b"));
        assert_eq!(chosen(&all, "eth0", &["192.0.2.2"]).as_deref(), Some("c"));
        assert_eq!(chosen(&all, "eth1", &[]).as_deref(), Some("a"));
        assert_eq!(chosen(&all, "eth2", &["192.0.2.3"]), None);
    }

    #[test]
    fn one_for_all_interfaces_is_for_those_that_no_other_is_about() {
        let all = [
            endpoint("a", HostInterface::All, &[]),
            endpoint("b", HostInterface::All, &[]),
            endpoint("z", named("eth0"), &[]),
        ];
        assert_eq!(chosen(&all, "eth0", &[]).as_deref(), Some("z"));
        assert_eq!(chosen(&all, "eth1", &[]).as_deref(), Some("a"));
    }
}

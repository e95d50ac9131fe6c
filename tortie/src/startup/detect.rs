//! Which of the host's addresses is the node's (`node/pkg/lifecycle/startup/autodetection`).

use std::net::IpAddr;

use model::{Family, InterfaceAddr, Prefix};
use regex::Regex;
use slowpath::HostInterface;

/// Interfaces that lead to workloads or into tunnels, as Calico knows them; the last are our own.
const NOT_THE_HOSTS: [&str; 18] = [
    "^docker.*",
    "^cbr.*",
    "^dummy.*",
    "^podman.*",
    "^virbr.*",
    "^lxcbr.*",
    "^veth.*",
    "^lo",
    "^cali.*",
    "^tunl.*",
    "^flannel.*",
    "^kube-ipvs.*",
    "^cni.*",
    r"^vxlan\.calico.*",
    r"^vxlan-v6\.calico.*",
    r"^wireguard\.cali.*",
    r"^wg-v6\.cali.*",
    "^tortie.*",
];

/// How the node's address is found.
#[derive(Clone, Debug)]
pub(super) enum Method {
    /// The first on an interface that isn't known to be for something else, nor is one of these.
    FirstFound(Vec<String>),
    /// The first on an interface of such a name.
    Interface(Vec<String>),
    /// The first in one of these networks.
    Networks(Vec<Prefix>),
    /// The one that the host sends from towards this destination.
    CanReach(String),
}

/// Why a method finds nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum DetectError {
    #[error("Invalid IP autodetection method: {0}")]
    Method(String),
    #[error("Cannot use method 'kubernetes-internal-ip' when not running on a Kubernetes cluster")]
    Kubernetes,
    #[error("Invalid CIDR \"{cidr}\" for IP autodetection method: {method}")]
    Cidr { cidr: String, method: String },
    #[error("Invalid interface regex \"{0}\"")]
    Name(String),
    #[error("no valid host interfaces found")]
    NoInterfaces,
    #[error("no valid {0} addresses found on the host interfaces")]
    NoAddress(Family),
    #[error("no {family} address detected by connecting to {destination}")]
    NoWay { destination: String, family: Family },
    #[error("autodetected address does not match any addresses found on local interfaces: {0}")]
    NotLocal(IpAddr),
}

impl Method {
    /// Reads a method; an empty text is `first-found`.
    pub(super) fn parse(text: &str) -> Result<Method, DetectError> {
        let list = |text: &str| text.split(',').map(|item| item.trim().to_owned()).collect::<Vec<String>>();
        if text.is_empty() || text == "first-found" {
            return Ok(Method::FirstFound(Vec::new()));
        }
        if let Some(names) = text.strip_prefix("interface=") {
            return Ok(Method::Interface(list(names)));
        }
        if let Some(names) = text.strip_prefix("skip-interface=") {
            return Ok(Method::FirstFound(list(names)));
        }
        if let Some(networks) = text.strip_prefix("cidr=") {
            let network = |cidr: String| match cidr.parse() {
                Ok(network) if cidr.contains('/') => Ok(network),
                _ => Err(DetectError::Cidr { cidr, method: text.to_owned() }),
            };
            return list(networks).into_iter().map(network).collect::<Result<_, _>>().map(Method::Networks);
        }
        if let Some(destination) = text.strip_prefix("can-reach=") {
            return Ok(Method::CanReach(destination.to_owned()));
        }
        if text.starts_with("kubernetes-internal-ip") {
            return Err(DetectError::Kubernetes);
        }
        Err(DetectError::Method(text.to_owned()))
    }
}

/// The node's address of a family. `source_towards` says what the host would send from.
pub(super) fn detect(
    method: &Method,
    family: Family,
    interfaces: &[HostInterface],
    source_towards: &dyn Fn(&str, Family) -> Option<IpAddr>,
) -> Result<InterfaceAddr, DetectError> {
    let known = NOT_THE_HOSTS.iter().map(|name| (*name).to_owned());
    match method {
        Method::FirstFound(skipped) => {
            let excluded: Vec<String> = known.chain(skipped.iter().cloned()).collect();
            first(interfaces, family, &[], &excluded, &[])
        }
        Method::Interface(names) => first(interfaces, family, names, &[], &[]),
        Method::Networks(networks) => first(interfaces, family, &[], &[], networks),
        Method::CanReach(destination) => {
            let source = source_towards(destination, family)
                .ok_or_else(|| DetectError::NoWay { destination: destination.clone(), family })?;
            on_host(interfaces, source).ok_or(DetectError::NotLocal(source))
        }
    }
}

/// An address of the host, with its network.
pub(super) fn on_host(interfaces: &[HostInterface], addr: IpAddr) -> Option<InterfaceAddr> {
    let mut all = interfaces.iter().rev().flat_map(|interface| &interface.addresses);
    all.find(|address| address.addr == addr).copied()
}

/// The host's own interfaces by name, and their addresses of some families.
pub(super) fn addresses_by_interface<'a>(
    interfaces: &'a [HostInterface],
    families: &[Family],
) -> Vec<(&'a str, Vec<IpAddr>)> {
    // These are regular expressions that can be read.
    let known = any_of(&NOT_THE_HOSTS.map(str::to_owned)).unwrap_or_default();
    let own = interfaces.iter().filter(|interface| !known.iter().any(|name| name.is_match(&interface.name)));
    let mut all: Vec<(&str, Vec<IpAddr>)> = own
        .map(|interface| {
            let addresses = interface.addresses.iter().map(|address| address.addr);
            let of_family = addresses.filter(|addr| families.contains(&Family::of(*addr)));
            (interface.name.as_str(), of_family.collect())
        })
        .collect();
    all.sort_unstable();
    all
}

/// The first address that is good everywhere, of the youngest interface first, as Calico has always looked.
fn first(
    interfaces: &[HostInterface],
    family: Family,
    included: &[String],
    excluded: &[String],
    networks: &[Prefix],
) -> Result<InterfaceAddr, DetectError> {
    let (included, excluded) = (any_of(included)?, any_of(excluded)?);
    let matches = |regexes: &[Regex], name: &str| regexes.iter().any(|regex| regex.is_match(name));
    let mut candidates = interfaces.iter().rev().filter(|interface| {
        (included.is_empty() || matches(&included, &interface.name)) && !matches(&excluded, &interface.name)
    });
    let mut there = candidates.by_ref().peekable();
    if there.peek().is_none() {
        return Err(DetectError::NoInterfaces);
    }
    let good = |address: &&InterfaceAddr| {
        Family::of(address.addr) == family
            && is_global_unicast(address.addr)
            && (networks.is_empty() || networks.iter().any(|network| network.contains(address.addr)))
    };
    there.flat_map(|interface| &interface.addresses).find(good).copied().ok_or(DetectError::NoAddress(family))
}

/// Regular expressions of names, which match anywhere in one unless they say otherwise.
fn any_of(names: &[String]) -> Result<Vec<Regex>, DetectError> {
    names.iter().map(|name| Regex::new(name).map_err(|_| DetectError::Name(name.clone()))).collect()
}

/// Go's `IsGlobalUnicast`: neither unspecified, loopback, multicast, link-local nor broadcast.
fn is_global_unicast(addr: IpAddr) -> bool {
    let common = !addr.is_unspecified() && !addr.is_loopback() && !addr.is_multicast();
    common
        && match addr {
            IpAddr::V4(addr) => !addr.is_link_local() && !addr.is_broadcast(),
            IpAddr::V6(addr) => !addr.is_unicast_link_local(),
        }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host() -> Vec<HostInterface> {
        [
            ("lo", &["127.0.0.1/8", "::1/128"][..]),
            ("eth0", &["169.254.7.7/16", "10.0.0.11/24", "2001:db8::11/64", "fe80::1/64"]),
            ("eth1", &["192.0.2.11/24", "192.0.2.12/24"]),
            ("docker0", &["172.17.0.1/16"]),
            ("tortie0", &["10.65.0.1/32"]),
            ("caliabc", &[]),
        ]
        .into_iter()
        .map(|(name, addresses)| HostInterface {
            name: name.to_owned(),
            addresses: addresses.iter().map(|addr| addr.parse().unwrap()).collect(),
        })
        .collect()
    }

    fn found(method: &str, family: Family) -> Result<String, String> {
        let source = |destination: &str, _: Family| match destination {
            "198.51.100.1" => Some("10.0.0.11".parse().unwrap()),
            "elsewhere" => Some("203.0.113.9".parse().unwrap()),
            _ => None,
        };
        let address = Method::parse(method).and_then(|method| detect(&method, family, &host(), &source));
        address.map(|address| address.to_string()).map_err(|error| error.to_string())
    }

    #[test]
    fn each_method_finds_what_calicos_finds() {
        for (method, address) in [
            ("", "192.0.2.11/24"),
            ("first-found", "192.0.2.11/24"),
            ("skip-interface=eth1", "10.0.0.11/24"),
            ("skip-interface=eth1,foo", "10.0.0.11/24"),
            ("interface=eth0", "10.0.0.11/24"),
            ("interface=^wlan , eth.*", "192.0.2.11/24"),
            ("interface=docker.*", "172.17.0.1/16"),
            ("cidr=10.0.0.0/8", "10.65.0.1/32"),
            ("cidr=10.0.0.0/24,172.16.0.0/12", "172.17.0.1/16"),
            ("can-reach=198.51.100.1", "10.0.0.11/24"),
        ] {
            assert_eq!(found(method, Family::V4).as_deref(), Ok(address), "{method}");
        }
        assert_eq!(found("first-found", Family::V6).as_deref(), Ok("2001:db8::11/64"));
    }

    #[test]
    fn what_finds_nothing_says_why() {
        for (method, why) in [
            ("last-found", "Invalid IP autodetection method: last-found"),
            (
                "kubernetes-internal-ip",
                "Cannot use method 'kubernetes-internal-ip' when not running on a Kubernetes cluster",
            ),
            ("cidr=10.0.0.1", "Invalid CIDR \"10.0.0.1\" for IP autodetection method: cidr=10.0.0.1"),
            ("interface=wlan0", "no valid host interfaces found"),
            ("interface=cali", "no valid IPv4 addresses found on the host interfaces"),
            ("interface=(", "Invalid interface regex \"(\""),
            ("can-reach=nowhere", "no IPv4 address detected by connecting to nowhere"),
            (
                "can-reach=elsewhere",
                "autodetected address does not match any addresses found on local interfaces: 203.0.113.9",
            ),
        ] {
            assert_eq!(found(method, Family::V4), Err(why.to_owned()), "{method}");
        }
    }
}

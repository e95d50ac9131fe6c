//! Names of the first API in the form that names have now (`libcalico-go/lib/upgrade/converters/names.go`).

use std::net::IpAddr;

use model::Prefix;
use sha1::{Digest, Sha1};

/// Hexadecimal digits that tell apart two names which only the old form told apart.
const QUALIFIER: usize = 8;

/// A node's name: the form alone, since its routers go by it.
pub(super) fn of_node(name: &str) -> String {
    normal(name)
}

/// Any other name; one that isn't in the form gets a qualifier behind it.
pub(super) fn of(name: &str) -> String {
    qualified(name, normal(name))
}

/// A policy's, in which a dot would set off its tier.
pub(super) fn without_dots(name: &str) -> String {
    qualified(name, normal(name).replace('.', "-"))
}

/// A profile's: Kubernetes' namespaces had another prefix.
pub(super) fn of_profile(name: &str) -> String {
    match name.strip_prefix("k8s_ns.") {
        Some(namespace) => of(&format!("kns.{namespace}")),
        None => of(name),
    }
}

/// What is named after an address: IPv6 with all its digits.
pub(super) fn of_address(addr: IpAddr) -> String {
    match addr {
        IpAddr::V4(four) => four.to_string().replace('.', "-"),
        IpAddr::V6(six) => six.segments().map(|part| format!("{part:04x}")).join("-"),
    }
}

/// What is named after a network.
pub(super) fn of_network(network: &Prefix) -> String {
    network.to_string().replace(['.', ':', '/'], "-")
}

/// Small letters, digits, `-` and `.`: a slash becomes a dot, other letters become a dash, and where dots and dashes meet, or at
/// an end, one dot or nothing remains.
fn normal(name: &str) -> String {
    let lower = name.to_lowercase().replace('/', ".");
    let legal = |c: char| matches!(c, '-' | '.' | 'a'..='z' | '0'..='9');
    let mut dashed = String::with_capacity(lower.len());
    let mut was_legal = true;
    for c in lower.chars() {
        if legal(c) {
            dashed.push(c);
        } else if was_legal {
            dashed.push('-');
        }
        was_legal = legal(c);
    }
    let mut normal = String::with_capacity(dashed.len());
    let mut rest = dashed.trim_matches(['.', '-']);
    while let Some(start) = rest.find(['.', '-']) {
        let (before, joint) = rest.split_at(start);
        let end = joint.find(|c| c != '.' && c != '-').unwrap_or(joint.len());
        let (joint, after) = joint.split_at(end);
        normal.push_str(before);
        normal.push_str(if joint.contains('.') { "." } else { joint });
        rest = after;
    }
    normal + rest
}

fn qualified(old: &str, new: String) -> String {
    if old == new {
        return new;
    }
    let hash: String = Sha1::digest(old).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{new}-{}", &hash[..QUALIFIER])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_into_the_present_form() {
        for (old, new) in [
            ("node-1", "node-1"),
            ("a---b", "a---b"),
            ("Rack/Host_7", "rack.host-7"),
            ("a$!$b", "a-b"),
            ("a..b.-.c-.d.-e", "a.b.c.d.e"),
            ("-.a.b-c.-", "a.b-c"),
            ("_a_", "a"),
            ("", ""),
        ] {
            assert_eq!(of_node(old), new, "{old}");
        }
    }

    #[test]
    fn a_name_that_changes_is_told_apart_from_those_that_become_the_same() {
        assert_eq!(of("web-1"), "web-1");
        assert_eq!(of("RAWR"), "rawr-03d81e1d");
        assert_eq!(without_dots("MaKe.-.MaKe"), "make-make-1b6971c8");
        assert_eq!(of_profile("k8s_ns.shop"), "kns.shop");
    }

    #[test]
    fn addresses_and_networks_are_names_without_colons() {
        let address = |text: &str| of_address(text.parse().unwrap());
        assert_eq!(address("192.0.2.1"), "192-0-2-1");
        assert_eq!(address("2001:db8::1"), "2001-0db8-0000-0000-0000-0000-0000-0001");
        assert_eq!(of_network(&"2001::/120".parse().unwrap()), "2001---120");
        assert_eq!(of_network(&"10.244.0.0/16".parse().unwrap()), "10-244-0-0-16");
    }
}

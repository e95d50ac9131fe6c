//! Workload ports closed to the kernel's own forwarding (ARCHITECTURE.md, D1), by nftables.
//!
//! The guard stays in force when the process dies: transit then goes through the kernel, but nothing reaches a
//! workload or leaves one without its policy. It also stands in where an XDP program is missing.
//! Where the host's own DHCP server serves workloads, what it and the kernel need for that is let in (`host_dhcp.rs`).

use crate::host_port::{FAR_SIDE, KERNEL_SIDE};
use crate::nft::{self, NftError};

/// Our table; nothing else of the host's rules is touched.
const TABLE: &str = "inet tortie";
/// IFNAMSIZ less the terminating zero, less the `*`.
const PREFIX_BYTES_MAX: usize = 14;

/// What [`crate::host_dhcp`] has the kernel receive: DHCP requests of both families; router and neighbour solicitations, and
/// neighbour advertisements.
const FOR_HOST_DHCP: [&str; 3] = [
    "meta nfproto ipv4 udp sport 68 udp dport 67",
    "meta nfproto ipv6 udp sport 546 udp dport 547",
    "icmpv6 type { 133, 135, 136 }",
];

/// Why the guard isn't in force.
#[derive(Debug, thiserror::Error)]
pub enum GuardError {
    /// `nft` can't be run, or said no.
    #[error("the kernel can't be kept from workload ports by the table {TABLE}: {0}")]
    Nft(#[from] NftError),
    /// A prefix that can't begin an interface's name.
    #[error(
        "{prefix:?} can't be the beginning of an interface's name: 1 to 14 letters, digits, '_', '-' or '.'"
    )]
    Prefix {
        /// The prefix.
        prefix: String,
    },
}

/// Puts the guard in force for interfaces whose names begin with one of `prefixes` (Calico's `interfacePrefix`),
/// replacing an earlier one in the same transaction. `serves_dhcp`: the host's own DHCP server serves them.
///
/// # Errors
/// See [`GuardError`]; what was in force before stays so.
pub fn install(prefixes: &[&str], serves_dhcp: bool) -> Result<(), GuardError> {
    Ok(nft::apply(&ruleset(prefixes, serves_dhcp)?)?)
}

/// Takes the guard away; none there is no error.
///
/// # Errors
/// See [`GuardError`].
pub fn remove() -> Result<(), GuardError> {
    Ok(nft::apply(&deletion())?)
}

/// Declaring the table first makes deleting it valid where there is none.
fn deletion() -> String {
    format!("table {TABLE} {{}}\ndelete table {TABLE}\n")
}

fn ruleset(prefixes: &[&str], serves_dhcp: bool) -> Result<String, GuardError> {
    let mut forward = String::new();
    let mut input = String::new();
    for prefix in prefixes {
        if !is_valid_prefix(prefix) {
            return Err(GuardError::Prefix { prefix: (*prefix).to_owned() });
        }
        forward.push_str(&format!(
            "    iifname \"{prefix}*\" counter drop\n    oifname \"{prefix}*\" counter drop\n"
        ));
        for asked in FOR_HOST_DHCP.iter().filter(|_| serves_dhcp) {
            input.push_str(&format!("    iifname \"{prefix}*\" {asked} counter accept\n"));
        }
        input.push_str(&format!("    iifname \"{prefix}*\" counter drop\n"));
    }
    // What leaves the far side towards the kernel's stack did so because nobody took it: it would go in circles.
    let far_side = format!("    iifname \"{FAR_SIDE}\" counter drop\n");
    Ok(format!(
        "{}table {TABLE} {{\n  \
         comment \"Workload ports belong to tortie; {KERNEL_SIDE} is the host's way to them.\"\n  \
         chain forward {{\n    type filter hook forward priority filter - 10; policy accept;\n{forward}{far_side}  }}\n  \
         chain input {{\n    type filter hook input priority filter - 10; policy accept;\n{input}{far_side}  }}\n}}\n",
        deletion()
    ))
}

fn is_valid_prefix(prefix: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
    (1..=PREFIX_BYTES_MAX).contains(&prefix.len()) && prefix.bytes().all(allowed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sysctl;
    use crate::testing::{Neighborhood, has, in_namespace, ip, run};

    #[test]
    fn a_prefix_that_would_escape_its_quotes_is_refused() {
        for prefix in ["", "cali\"", "cali*", "cali tap", "a-very-long-name", "x\ny", "cali;"] {
            assert!(matches!(install(&[prefix], false), Err(GuardError::Prefix { .. })), "{prefix:?}");
        }
    }

    #[test]
    fn every_prefix_is_closed_both_ways() {
        let rules = ruleset(&["cali", "tap"], false).unwrap();
        for rule in ["iifname \"cali*\"", "oifname \"cali*\"", "iifname \"tap*\"", "oifname \"tap*\""] {
            assert!(rules.contains(rule), "{rule} in\n{rules}");
        }
        assert!(!rules.contains("oifname \"tortie0\"") && !rules.contains("iifname \"tortie0\""));
    }

    /// A router between the namespaces behind `cali1` and `up0`.
    fn router() -> (Neighborhood, Neighborhood) {
        let workload = Neighborhood::behind("cali1", "eth0");
        let outside = Neighborhood::behind("up0", "eth0");
        ip("addr add 10.65.0.1/24 dev cali1");
        ip("addr add 192.0.2.1/24 dev up0");
        workload.ip("addr add 10.65.0.2/24 dev eth0");
        workload.ip("route add default via 10.65.0.1");
        outside.ip("addr add 192.0.2.2/24 dev eth0");
        outside.ip("route add default via 192.0.2.1");
        sysctl::enable_forwarding([]).unwrap();
        (workload, outside)
    }

    #[test]
    fn nothing_is_forwarded_to_or_from_workloads_and_none_reaches_the_host() {
        if !has("nft") || !has("ping") {
            return;
        }
        in_namespace(|| {
            let (workload, outside) = router();
            let out = || workload.succeeds("ping -c 1 -W 1 192.0.2.2");
            let back = || outside.succeeds("ping -c 1 -W 1 10.65.0.2");
            let host = || workload.succeeds("ping -c 1 -W 1 10.65.0.1");
            let uplink = || outside.succeeds("ping -c 1 -W 1 192.0.2.1");
            assert!(out() && back() && host() && uplink(), "everything passes before");
            install(&["cali"], false).unwrap();
            install(&["cali"], false).unwrap();
            assert_eq!((out(), back(), host(), uplink()), (false, false, false, true));
            assert_eq!(run("nft", "list tables").matches("inet tortie").count(), 1);
            remove().unwrap();
            remove().unwrap();
            assert!(out() && back() && host(), "everything passes again");
        });
    }
}

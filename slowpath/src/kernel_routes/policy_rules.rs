//! The `ip rule`s that bring our table into the kernel's lookups.
//!
//! ```text
//! 0:      from all lookup local
//! 32000:  from all lookup main suppress_prefixlength 0     everything of main but its default route
//! 32001:  from all lookup 116                              ours
//! 32766:  from all lookup main                             main's default route
//! ```
//!
//! Main's specific routes come first, so that nothing we learn by BGP can take the host's own networks away from
//! its administrator; ours come before main's default, or they would never be asked.

use model::Family;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::route::RouteHeader;
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleMessage};

use super::{ENOENT, MIRROR_PROTOCOL, MIRROR_TABLE, address_family};
use crate::netlink::{Netlink, NetlinkError};

/// Priority of `lookup main suppress_prefixlength 0`.
const MAIN_PRIORITY: u32 = 32_000;
/// Priority of `lookup 116`.
const MIRROR_PRIORITY: u32 = 32_001;
/// Errno: the very same rule is there already.
const EEXIST: i32 = 17;

/// Puts our rules in place, for both families; those already there stay.
///
/// # Errors
/// Where the kernel refuses.
pub fn install_rules(netlink: &mut Netlink) -> Result<(), NetlinkError> {
    for rule in rules() {
        let flags = NLM_F_CREATE | NLM_F_EXCL;
        match netlink.request("add a routing rule", RouteNetlinkMessage::NewRule(rule), flags) {
            Err(error) if error.errno() == Some(EEXIST) => {}
            result => result?,
        }
    }
    Ok(())
}

/// Takes our rules away; those already gone are no error.
///
/// # Errors
/// Where the kernel refuses.
pub fn remove_rules(netlink: &mut Netlink) -> Result<(), NetlinkError> {
    for rule in rules() {
        match netlink.request("remove a routing rule", RouteNetlinkMessage::DelRule(rule), 0) {
            Err(error) if error.errno() == Some(ENOENT) => {}
            result => result?,
        }
    }
    Ok(())
}

fn rules() -> impl Iterator<Item = RuleMessage> {
    Family::ALL.into_iter().flat_map(|family| {
        let mut main = rule(family, RouteHeader::RT_TABLE_MAIN, MAIN_PRIORITY);
        main.attributes.push(RuleAttribute::SuppressPrefixLen(0));
        [main, rule(family, MIRROR_TABLE, MIRROR_PRIORITY)]
    })
}

fn rule(family: Family, table: u8, priority: u32) -> RuleMessage {
    let mut message = RuleMessage::default();
    message.header.family = address_family(family);
    message.header.action = RuleAction::ToTable;
    message.header.table = table;
    message.attributes.push(RuleAttribute::Priority(priority));
    message.attributes.push(RuleAttribute::Protocol(MIRROR_PROTOCOL.into()));
    message
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{in_namespace, ip};

    fn shown(family: &str) -> Vec<String> {
        let rules = ip(&format!("{family} rule show"));
        rules.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
    }

    #[test]
    fn rules_are_there_once_however_often_they_are_installed() {
        in_namespace(|| {
            let mut netlink = Netlink::open().unwrap();
            for _ in 0..3 {
                install_rules(&mut netlink).unwrap();
            }
            for family in ["-4", "-6"] {
                let ours: Vec<String> =
                    shown(family).into_iter().filter(|rule| rule.starts_with("3200")).collect();
                let expected = [
                    "32000: from all lookup main suppress_prefixlength 0 proto 116",
                    "32001: from all lookup 116 proto 116",
                ];
                assert_eq!(ours, expected);
            }
            let before: Vec<String> =
                shown("-4").into_iter().filter(|rule| !rule.starts_with("3200")).collect();
            remove_rules(&mut netlink).unwrap();
            remove_rules(&mut netlink).unwrap();
            assert_eq!(shown("-4"), before);
        });
    }

    #[test]
    fn ours_come_after_mains_routes_and_before_its_default() {
        in_namespace(|| {
            install_rules(&mut Netlink::open().unwrap()).unwrap();
            ip("link add up0 type veth peer name up1");
            ip("link set up0 up");
            ip("link set up1 up");
            ip("addr add 192.0.2.1/24 dev up0");
            ip("route add default via 192.0.2.254");
            ip("route add 10.0.0.0/8 via 192.0.2.10");
            ip("route add 10.65.0.0/16 via 192.0.2.20 table 116 proto 116");
            ip("route add 172.16.0.0/12 via 192.0.2.30 table 116 proto 116");
            let via = |destination: &str| ip(&format!("route get {destination}"));
            assert!(via("10.65.0.2").contains("via 192.0.2.10 "), "main's own route prevails");
            assert!(via("172.16.6.1").contains("via 192.0.2.30 "), "ours prevails over main's default");
            assert!(via("8.8.8.8").contains("via 192.0.2.254 "), "and main's default serves the rest");
        });
    }
}

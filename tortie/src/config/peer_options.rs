//! The options of a range's peers: `bgp.peers[]` beyond who they are and what they are told.

use std::time::Duration;

use bgp::{LimitAction, PrefixLimit, Role, SendPaths};
use model::{Family, SecretKey};
use slowpath::PeerOptions;

use super::error::Reason;
use super::field::{Fault, optional, required};
use super::file::{Entry, PeerGroupFields, PrefixLimitFields, Scalar, Section};
use crate::limits::Limits;

/// Most that the OPEN can say of a restart time (RFC 4724 §3), in seconds.
const RESTART_TIME: usize = 4095;
/// Likewise of a long-lived stale time (RFC 9494 §3.1).
const LONG_LIVED_TIME: usize = (1 << 24) - 1;
/// Longest rest of a peer that went beyond its limit, in seconds: a day.
const REST: usize = 86_400;
/// Most paths a prefix that a peer can be limited to.
const SEND_PATHS: usize = 64;

const ROLES: [(&str, Role); 5] = [
    ("provider", Role::Provider),
    ("route-server", Role::RouteServer),
    ("route-server-client", Role::RouteServerClient),
    ("customer", Role::Customer),
    ("peer", Role::Peer),
];
/// The fastest link, in Mbit/s: ten of 1 Tbit/s.
const LINK_BANDWIDTH: usize = 10_000_000;
const BYTES_OF_A_MEGABIT: u64 = 1_000_000 / 8;
const FAMILIES: [(&str, Family); 2] = [("ipv4", Family::V4), ("ipv6", Family::V6)];
/// What is taken, and what is sent.
const ADD_PATHS: [(&str, (bool, bool)); 4] =
    [("both", (true, true)), ("receive", (true, false)), ("send", (false, true)), ("none", (false, false))];

/// `family` is that of the range.
pub(super) fn options(
    path: &str,
    family: Family,
    fields: &PeerGroupFields,
    limits: &Limits,
) -> Result<PeerOptions, Fault> {
    let truth = |name: &str, entry: &Option<Entry>| {
        optional(path, name, entry).map(|field| field.truth()).transpose()
    };
    let seconds = |name: &str, entry: &Option<Entry>, most: usize| {
        let number = optional(path, name, entry).map(|field| field.number((0, most))).transpose()?;
        Ok(number.map(|seconds| Duration::from_secs(seconds as u64)))
    };
    let role = optional(path, "role", &fields.role).map(|field| field.one_of(&ROLES)).transpose()?;
    let strict_role = truth("strict_role", &fields.strict_role)?.unwrap_or(false);
    if let (true, None, Some(field)) = (strict_role, role, optional(path, "strict_role", &fields.strict_role))
    {
        return Err(field.fault(Reason::OnlyWith { other: "role" }));
    }
    let families = families(path, fields)?;
    let (receive_paths, send_paths) = several_paths(path, fields)?;
    let ttl_security = optional(path, "ttl_security", &fields.ttl_security);
    Ok(PeerOptions {
        prefix_limit: match &fields.prefix_limit {
            Some(Section(fields)) => Some(prefix_limit(path, fields, limits)?),
            None => None,
        },
        v4_over_v6: ipv4_over_ipv6(path, family, &families, fields)?,
        families,
        receive_paths,
        send_paths,
        restart_time: seconds("restart_time", &fields.restart_time, RESTART_TIME)?,
        long_lived_time: seconds("long_lived_time", &fields.long_lived_time, LONG_LIVED_TIME)?,
        survive_notification: truth("survive_notification", &fields.survive_notification)?.unwrap_or(false),
        extended_messages: truth("extended_messages", &fields.extended_messages)?,
        role,
        strict_role,
        policy_required: truth("require_policy", &fields.require_policy)?.unwrap_or(false),
        blackhole: truth("blackhole", &fields.blackhole)?.unwrap_or(false),
        link_bandwidth: optional(path, "link_bandwidth", &fields.link_bandwidth)
            .map(|field| field.number((1, LINK_BANDWIDTH)))
            .transpose()?
            .map(|megabits| megabits as u64 * BYTES_OF_A_MEGABIT),
        bfd: truth("bfd", &fields.bfd)?,
        hold_time: hold_time(path, fields)?,
        keepalive_time: match optional(path, "keepalive_time", &fields.keepalive_time) {
            Some(field) => Some(Duration::from_secs(field.number((1, 21_845))? as u64)),
            None => None,
        },
        ttl_security: ttl_security.map(|field| field.number((1, 255))).transpose()?.map(|hops| hops as u8),
        password: password(path, fields)?,
    })
}

/// A file below the directory of secrets, as a Secret and a key in it.
fn password(path: &str, fields: &PeerGroupFields) -> Result<Option<SecretKey>, Fault> {
    let Some(field) = optional(path, "password", &fields.password) else { return Ok(None) };
    let given = field.text()?;
    match given.split_once('/').filter(|(name, key)| !name.is_empty() && !key.is_empty()) {
        Some((name, key)) => Ok(Some(SecretKey { name: name.to_owned(), key: key.to_owned() })),
        None => Err(field.fault(Reason::NoSuch {
            given: given.to_owned(),
            expected: "a file below bgp.secrets",
            example: "leaves/password",
        })),
    }
}

/// None, or what RFC 4271 §4.2 has room for.
fn hold_time(path: &str, fields: &PeerGroupFields) -> Result<Option<Duration>, Fault> {
    let Some(field) = optional(path, "hold_time", &fields.hold_time) else { return Ok(None) };
    match field.number((0, 65_535))? {
        given @ 1..=2 => Err(field.fault(Reason::HoldTime { given })),
        seconds => Ok(Some(Duration::from_secs(seconds as u64))),
    }
}

fn families(path: &str, fields: &PeerGroupFields) -> Result<Vec<Family>, Fault> {
    let Some(field) = optional(path, "families", &fields.families) else { return Ok(Vec::new()) };
    let mut families = Vec::new();
    for item in field.items()? {
        let family = item.one_of(&FAMILIES)?;
        if families.contains(&family) {
            return Err(item.fault(Reason::Twice { given: item.text()?.to_owned() }));
        }
        families.push(family);
    }
    if families.is_empty() {
        let allowed = "ipv4, ipv6, or both".to_owned();
        return Err(field.fault(Reason::NotOneOf { given: "[]".to_owned(), allowed }));
    }
    families.sort_by_key(|family| *family as usize);
    Ok(families)
}

fn ipv4_over_ipv6(
    path: &str,
    family: Family,
    families: &[Family],
    fields: &PeerGroupFields,
) -> Result<bool, Fault> {
    let Some(field) = optional(path, "ipv4_over_ipv6", &fields.ipv4_over_ipv6) else { return Ok(false) };
    let wanted = field.truth()?;
    if wanted && family == Family::V4 {
        return Err(field.fault(Reason::OnlyWith { other: "a range of IPv6" }));
    }
    if wanted && !families.is_empty() && !families.contains(&Family::V4) {
        return Err(field.fault(Reason::OnlyWith { other: "ipv4 in families" }));
    }
    Ok(wanted)
}

fn several_paths(path: &str, fields: &PeerGroupFields) -> Result<(Option<bool>, Option<SendPaths>), Fault> {
    let add_paths = optional(path, "add_paths", &fields.add_paths);
    let add_paths = add_paths.map(|field| field.one_of(&ADD_PATHS)).transpose()?;
    let (receive, send) = (add_paths.map(|(receive, _)| receive), add_paths.is_none_or(|(_, send)| send));
    let Some(field) = optional(path, "send_paths", &fields.send_paths) else {
        return Ok((receive, (!send).then_some(SendPaths::Best)));
    };
    if !send {
        return Err(field.fault(Reason::OnlyWith { other: "add_paths: both` or `add_paths: send" }));
    }
    let paths = match field.scalar() {
        Scalar::Int(_) => SendPaths::UpTo(field.number((2, SEND_PATHS))?),
        _ => field.one_of(&[("all", SendPaths::All)])?,
    };
    Ok((receive, Some(paths)))
}

fn prefix_limit(path: &str, fields: &PrefixLimitFields, limits: &Limits) -> Result<PrefixLimit, Fault> {
    let path = format!("{path}.prefix_limit");
    let most = required(&path, "most", &fields.most, "most: 1000")?.number((1, limits.prefixes_per_peer))?;
    let warn = optional(&path, "warn", &fields.warn).map(|field| field.number((1, 100))).transpose()?;
    let rest = optional(&path, "rest", &fields.rest);
    let close = LimitAction::Close {
        rest: match &rest {
            Some(field) => Duration::from_secs(field.number((1, REST))? as u64),
            None => PrefixLimit::REST,
        },
    };
    let actions = [("warn", LimitAction::Warn), ("drop", LimitAction::Drop), ("close", close)];
    let action =
        optional(&path, "action", &fields.action).map_or(Ok(close), |field| field.one_of(&actions))?;
    if let (Some(field), LimitAction::Warn | LimitAction::Drop) = (rest, action) {
        return Err(field.fault(Reason::OnlyWith { other: "action: close" }));
    }
    Ok(PrefixLimit {
        most,
        warn_percent: warn.map_or(PrefixLimit::WARN_PERCENT, |percent| percent as u8),
        action,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tests::{GOOD, parse};

    /// A range's options, written after its address.
    fn options_of(text: &str) -> Result<PeerOptions, String> {
        let config = parse(&format!("{GOOD}bgp: {{ peers: [{{ {text} }}] }}\n"))?;
        Ok(config.bgp.groups[0].options.clone())
    }

    #[test]
    fn every_option_reaches_the_peers() {
        let options = options_of(
            "range: 'fd00::/64', prefix_limit: { most: 1000, warn: 80, action: close, rest: 60 }, \
             families: [ipv6, ipv4], add_paths: both, send_paths: 4, restart_time: 0, long_lived_time: 3600, \
             survive_notification: true, extended_messages: false, role: provider, strict_role: true, \
             require_policy: true, blackhole: true, link_bandwidth: 1000, ipv4_over_ipv6: true, bfd: true, hold_time: 9, \
             keepalive_time: 3, ttl_security: 1, password: leaves/key",
        )
        .unwrap();
        let seconds = Duration::from_secs;
        let close = LimitAction::Close { rest: seconds(60) };
        assert_eq!(
            options,
            PeerOptions {
                prefix_limit: Some(PrefixLimit { most: 1000, warn_percent: 80, action: close }),
                families: vec![Family::V4, Family::V6],
                receive_paths: Some(true),
                send_paths: Some(SendPaths::UpTo(4)),
                restart_time: Some(seconds(0)),
                long_lived_time: Some(seconds(3600)),
                survive_notification: true,
                extended_messages: Some(false),
                role: Some(Role::Provider),
                strict_role: true,
                policy_required: true,
                blackhole: true,
                link_bandwidth: Some(125_000_000),
                v4_over_v6: true,
                bfd: Some(true),
                hold_time: Some(seconds(9)),
                keepalive_time: Some(seconds(3)),
                ttl_security: Some(1),
                password: Some(SecretKey { name: "leaves".to_owned(), key: "key".to_owned() }),
            }
        );
        assert_eq!(options_of("range: 10.0.0.0/8").unwrap(), PeerOptions::default());
        let limit = options_of("range: 10.0.0.0/8, prefix_limit: { most: 5 }").unwrap().prefix_limit;
        assert_eq!(limit, Some(PrefixLimit::closing(5)));
        let paths = |text| {
            let options = options_of(&format!("range: 10.0.0.0/8, {text}")).unwrap();
            (options.receive_paths, options.send_paths)
        };
        assert_eq!(paths("add_paths: none"), (Some(false), Some(SendPaths::Best)));
        assert_eq!(paths("add_paths: receive"), (Some(true), Some(SendPaths::Best)));
        assert_eq!(paths("add_paths: send"), (Some(false), None));
        assert_eq!(paths("send_paths: all"), (None, Some(SendPaths::All)));
    }

    #[test]
    fn what_contradicts_itself_is_refused_with_its_place() {
        for (text, expected) in [
            ("prefix_limit: { warn: 80 }", "prefix_limit.most: is missing"),
            ("prefix_limit: { most: 0 }", "prefix_limit.most"),
            ("prefix_limit: { most: 9, warn: 101 }", "prefix_limit.warn"),
            (
                "prefix_limit: { most: 9, action: drop, rest: 9 }",
                "prefix_limit.rest: means something only with `action: close`",
            ),
            ("prefix_limit: { most: 9, action: shut }", "shut"),
            ("prefix_limit: 9", "prefix_limit"),
            ("strict_role: true", "strict_role: means something only with `role`"),
            ("role: friend", "friend"),
            ("families: []", "families"),
            ("families: [ipv4, ipv4]", "twice"),
            ("families: [ipv5]", "ipv5"),
            ("ipv4_over_ipv6: true", "a range of IPv6"),
            ("add_paths: none, send_paths: all", "send_paths"),
            ("send_paths: 1", "send_paths"),
            ("hold_time: 2", "hold_time: is 2"),
            ("restart_time: 4096", "restart_time"),
            ("ttl_security: 0", "ttl_security"),
            ("password: secret", "a file below bgp.secrets"),
            ("bfd: maybe", "bfd"),
            ("link_bandwidth: 0", "link_bandwidth"),
        ] {
            let error = options_of(&format!("range: 10.0.0.0/8, {text}")).unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        }
        let error = options_of("range: 'fd00::/64', families: [ipv6], ipv4_over_ipv6: true").unwrap_err();
        assert!(error.contains("ipv4 in families"), "{error}");
    }
}

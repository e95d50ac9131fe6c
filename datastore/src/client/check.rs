//! Calico's rules for fields (`libcalico-go/lib/validator/v3`), as the manifests' reader holds them already, told in the
//! client's terms: the field's name in Go, its value and the rule.

use serde_json::Value;

use super::{ApiObject, ClientError, ErroredField, wording};
use crate::document;
use crate::invalid::Reason;
use crate::manifest;

/// Is it a resource that Calico would take?
///
/// # Errors
/// The first field that breaks a rule.
pub fn check(object: &ApiObject) -> Result<(), ClientError> {
    let Some((path, reason)) = manifest::fault(&document::Value::of_json(object.value())) else {
        return Ok(());
    };
    // That the name is there, the client asks itself where it matters.
    if is_ours(&reason) || path == "metadata.name" && reason == Reason::Missing {
        return Ok(());
    }
    if let Some(fields) = wording::of(&path, &reason) {
        return Err(ClientError::Invalid(fields));
    }
    let value = lookup(object.value(), &path).cloned();
    Err(match reason {
        reason if is_bad_port(&path, &reason) => ErroredField {
            name: "Port".to_owned(),
            value: Some(bad_bound(value.unwrap_or_default())),
            reason: "port range invalid, port number must be between 1 and 65535".to_owned(),
        },
        Reason::Needs("a type") => ErroredField {
            name: go_name(&path),
            value,
            reason: "ICMP code specified without an ICMP type".to_owned(),
        },
        reason => ErroredField { name: go_name(&path), value, reason: reason.to_string() },
    }
    .into())
}

/// Is it a port of a rule that no port can be?
fn is_bad_port(path: &str, reason: &Reason) -> bool {
    let in_list = path.ends_with(']') && path.to_ascii_lowercase().contains("ports[");
    in_list && matches!(reason, Reason::BadPort(_) | Reason::OutOfRange { .. })
}

/// Rules of this router, or of Calico's that the client holds in its own place.
fn is_ours(reason: &Reason) -> bool {
    matches!(reason, Reason::BadBgpConfigurationName(_) | Reason::DefaultOnly)
}

/// The number that is none of a port's: the whole, or one end of a range.
fn bad_bound(value: Value) -> Value {
    let Value::String(text) = &value else { return value };
    let bad = |end: &&str| end.parse::<u16>().map_or(true, |port| port == 0);
    text.split(':').find(bad).map_or(value.clone(), |end| end.into())
}

/// What stands at a path such as `spec.ingress[0].action`.
fn lookup<'a>(value: &'a Value, path: &str) -> Option<&'a Value> {
    path.split('.').try_fold(value, |value, part| {
        let (name, rest) = part.split_once('[').unwrap_or((part, ""));
        let mut value = if name.is_empty() { value } else { value.get(name)? };
        for index in rest.split('[').filter(|index| !index.is_empty()) {
            value = value.get(index.trim_end_matches(']').parse::<usize>().ok()?)?;
        }
        Some(value)
    })
}

/// Words that Go's names have in capitals, at their beginning.
const INITIALS: [(&str, &str); 16] = [
    ("asn", "ASN"),
    ("as", "AS"),
    ("aws", "AWS"),
    ("bgp", "BGP"),
    ("bpf", "BPF"),
    ("cidr", "CIDR"),
    ("http", "HTTP"),
    ("icmp", "ICMP"),
    ("ipip", "IPIP"),
    ("ipv", "IPv"),
    ("ip", "IP"),
    ("mac", "MAC"),
    ("mtu", "MTU"),
    ("nat", "NAT"),
    ("ttl", "TTL"),
    ("vxlan", "VXLAN"),
];

/// The Go name of a path's last field.
fn go_name(path: &str) -> String {
    let last = path.rsplit('.').next().unwrap_or_default();
    let name = last.split('[').next().unwrap_or_default();
    for (word, initials) in INITIALS {
        if let Some(rest) = name.strip_prefix(word)
            && rest.chars().next().is_none_or(|c| c.is_ascii_uppercase() || c.is_ascii_digit())
        {
            return format!("{initials}{rest}");
        }
    }
    let mut letters = name.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_named_as_in_go() {
        for (path, name) in [
            ("spec.peerIP", "PeerIP"),
            ("spec.asNumber", "ASNumber"),
            ("spec.cidr", "CIDR"),
            ("spec.ipNetworks[1]", "IPNetworks"),
            ("spec.bgp.ipv4Address", "IPv4Address"),
            ("spec.ingress[0].icmp.type", "Type"),
            ("spec.assignmentMode", "AssignmentMode"),
            ("metadata.name", "Name"),
        ] {
            assert_eq!(go_name(path), name);
        }
    }
}

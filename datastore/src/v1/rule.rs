//! Rules of policies and profiles (`libcalico-go/lib/upgrade/converters/rule.go`).

use model::{Prefix, Protocol};

use super::tree::{Entries, find_mut, list_mut, map_mut, remove, rename, respell_each, respell_field};
use crate::document::{Content, Value};

const ACTIONS: [&str; 4] = ["Allow", "Deny", "Log", "Pass"];

/// Brings both directions' rules into the present form.
pub(super) fn convert(spec: &mut Entries) {
    for direction in ["ingress", "egress"] {
        list_mut(spec, direction).into_iter().flatten().filter_map(map_mut).for_each(rule);
    }
}

fn rule(rule: &mut Entries) {
    for (then, now) in [("!protocol", "notProtocol"), ("!icmp", "notICMP")] {
        rename(rule, then, now);
    }
    respell_field(rule, "action", |action| {
        let now = ACTIONS.iter().find(|now| now.eq_ignore_ascii_case(action));
        match action {
            "" => Some("Allow".to_owned()),
            "next-tier" => Some("Pass".to_owned()),
            _ => now.map(|now| (*now).to_owned()),
        }
    });
    for name in ["protocol", "notProtocol"] {
        respell_field(rule, name, protocol);
    }
    for end in ["source", "destination"] {
        if let Some(end) = find_mut(rule, end).and_then(map_mut) {
            entity(end);
        }
    }
}

fn entity(end: &mut Entries) {
    for (then, now) in [
        ("!net", "notNet"),
        ("!nets", "notNets"),
        ("!tag", "notTag"),
        ("!selector", "notSelector"),
        ("!ports", "notPorts"),
    ] {
        rename(end, then, now);
    }
    for (one, many) in [("net", "nets"), ("notNet", "notNets")] {
        if let Some(net) = remove(end, one) {
            push(end, many, net);
        }
        respell_each(end, many, network);
    }
    for (tag, selector) in [("tag", "selector"), ("notTag", "notSelector")] {
        respell_field(end, selector, self::selector);
        if let Some(Value { content: Content::Text(tag), position }) = remove(end, tag) {
            let asked = match remove(end, selector) {
                Some(Value { content: Content::Text(also), .. }) if !also.is_empty() => {
                    format!("({also}) && {tag} == ''")
                }
                _ => format!("{tag} == ''"),
            };
            end.push((selector.to_owned(), Value { content: Content::Text(asked), position }));
        }
    }
}

/// A selector: the label of Kubernetes' namespaces has another name.
pub(super) fn selector(text: &str) -> Option<String> {
    Some(text.replace("calico/k8s_ns", "projectcalico.org/namespace"))
}

/// A network as it is written now: with a length, and without bits beyond it.
pub(super) fn network(text: &str) -> Option<String> {
    text.parse::<Prefix>().ok().map(|prefix| prefix.to_string())
}

/// Protocols had small letters.
pub(super) fn protocol(text: &str) -> Option<String> {
    text.parse::<Protocol>().ok().map(|protocol| protocol.to_string())
}

/// Adds a value to a list, which may not be there yet.
fn push(entries: &mut Entries, name: &str, value: Value) {
    match find_mut(entries, name) {
        Some(Value { content: Content::List(values), .. }) => values.push(value),
        Some(_) => {}
        None => {
            let position = value.position;
            entries.push((name.to_owned(), Value { content: Content::List(vec![value]), position }));
        }
    }
}

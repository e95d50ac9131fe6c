//! `optimize`: policies whose rules look for the endpoint that they are at become policies that select it
//! (`calicoctl/calicoctl/commands/optimize.go`, `libcalico-go/lib/optimize`).
//!
//! As in calicoctl, endpoints that no such rule looks for are then selected by no part, and no longer denied what no rule
//! allows. Unlike there, what has no rules at all stays: it denies, too.

use std::collections::BTreeSet;
use std::process::ExitCode;

use datastore::{ApiObject, ResourceKind};
use policy::Selector;
use serde_json::{Value, json};

use super::Said;
use super::execute::{Asked, Handled, Verb, execute};
use super::files::FileArgs;
use super::print::Printer;

/// Longest name of a resource.
const NAME_MAX: usize = 253;
/// What policies have whose rules are about others' traffic, too: there a rule's selectors aren't the policy's.
const ON_THE_WAY: [&str; 3] = ["applyOnForward", "preDNAT", "doNotTrack"];

/// `optimize`, as calicoctl has it.
///
/// # Errors
/// Standard output can't be written.
pub(crate) fn run(files: &FileArgs) -> anyhow::Result<ExitCode> {
    optimized(files).finish()
}

pub(super) fn optimized(files: &FileArgs) -> Said {
    let asked = Asked { files: Some(files), ..Asked::default() };
    let results = execute(&asked, &Verb::Validate, None);
    if let Some(error) = results.error {
        let words =
            if results.file_invalid { "failed to execute command" } else { "failed to optimize resources" };
        return Said::failed(format!("{words}: {error}"));
    }
    if results.asked == 0 {
        return Said::fine("No resources specified\n");
    }
    let parts = results.handled.into_iter().flat_map(|handled| match handled {
        Handled::One(object) if object.kind() == ResourceKind::GlobalNetworkPolicy => {
            split(object).into_iter().map(Handled::One).collect()
        }
        other => vec![other],
    });
    let out = Printer::yaml(&parts.collect::<Vec<_>>());
    Said { out, error: (!results.errors.is_empty()).then(|| results.errors.join("\n")) }
}

/// A direction of traffic, and what its rules call the endpoint that they are at.
struct Side {
    kind: &'static str,
    rules: &'static str,
    here: &'static str,
    suffix: &'static str,
}

const SIDES: [Side; 2] = [
    Side { kind: "Ingress", rules: "ingress", here: "destination", suffix: "i" },
    Side { kind: "Egress", rules: "egress", here: "source", suffix: "e" },
];

/// The selectors of namespaces and endpoints that a rule asks this side for.
fn asks<'a>(rule: &'a Value, side: &Side) -> (&'a str, &'a str) {
    let text = |field: &str| rule[side.here][field].as_str().unwrap_or_default();
    (text("namespaceSelector"), text("selector"))
}

fn no_longer_asks(rule: &mut Value, side: &Side) {
    if let Some(here) = rule[side.here].as_object_mut() {
        here.shift_remove("namespaceSelector");
        here.shift_remove("selector");
    }
}

fn rules(policy: &ApiObject, side: &Side) -> Vec<Value> {
    policy.spec(side.rules).as_array().cloned().unwrap_or_default()
}

/// A policy, or the parts that it falls into.
fn split(mut policy: ApiObject) -> Vec<ApiObject> {
    in_one_form(&mut policy);
    let parts = if ON_THE_WAY.iter().any(|field| policy.spec(field) == true) {
        None
    } else {
        without_repetition(&mut policy);
        parts(&policy)
    };
    parts.unwrap_or_else(|| vec![policy]).into_iter().map(slim).collect()
}

/// A selector in its one form. One that isn't there means something else than one of all, except a policy's own.
fn normal(selector: &str) -> String {
    if selector.trim().is_empty() {
        return String::new();
    }
    selector.parse::<Selector>().map_or_else(|_| selector.to_owned(), |selector| selector.to_string())
}

fn or_all(selector: &str) -> &str {
    if selector.is_empty() { "all()" } else { selector }
}

fn both(one: &str, other: &str) -> String {
    match (one, other) {
        ("" | "all()", _) => other.to_owned(),
        (_, "" | "all()") => one.to_owned(),
        _ if one == other => one.to_owned(),
        _ => normal(&format!("({one}) && ({other})")),
    }
}

fn in_one_form(policy: &mut ApiObject) {
    for field in ["namespaceSelector", "serviceAccountSelector"] {
        policy.set_spec(field, normal(policy.spec_text(field)));
    }
    policy.set_spec("selector", or_all(&normal(policy.spec_text("selector"))));
    for side in &SIDES {
        let mut rules = rules(policy, side);
        for rule in &mut rules {
            for entity in ["source", "destination"] {
                for field in ["selector", "notSelector", "namespaceSelector", "serviceAccounts/selector"] {
                    if let Some(Value::String(text)) = rule.pointer_mut(&format!("/{entity}/{field}")) {
                        *text = normal(text);
                    }
                }
            }
        }
        policy.set_spec(side.rules, rules);
    }
}

/// Rules needn't ask for what the policy selects.
fn without_repetition(policy: &mut ApiObject) {
    let selected =
        (policy.spec_text("namespaceSelector").to_owned(), policy.spec_text("selector").to_owned());
    for side in &SIDES {
        let mut rules = rules(policy, side);
        for rule in &mut rules {
            let (namespaces, endpoints) = asks(rule, side);
            if (namespaces, or_all(endpoints)) == (selected.0.as_str(), selected.1.as_str()) {
                no_longer_asks(rule, side);
            }
        }
        policy.set_spec(side.rules, rules);
    }
}

/// The policy once for each endpoint that its rules ask for; `None` where they ask for none, or its name is too long for it.
fn parts(policy: &ApiObject) -> Option<Vec<ApiObject>> {
    let asking = |side: &Side| rules(policy, side).iter().any(|rule| asks(rule, side) != ("", ""));
    if !SIDES.iter().any(asking) {
        return None;
    }
    let mut parts = Vec::new();
    for side in &SIDES {
        let rules = in_groups(&rules(policy, side), side);
        let types = policy.spec("types").as_array().map(Vec::as_slice).unwrap_or_default();
        let has_side = if types.is_empty() { !rules.is_empty() } else { types.contains(&side.kind.into()) };
        if !has_side {
            continue;
        }
        let groups: Vec<_> = rules.chunk_by(|one, next| asks(one, side) == asks(next, side)).collect();
        if let [] | [_] = groups.as_slice() {
            parts.push(part(policy, side, side.suffix.to_owned(), rules)?);
            continue;
        }
        let width = (groups.len() - 1).to_string().len();
        for (number, group) in groups.into_iter().enumerate() {
            let mut rules = group.to_vec();
            rules.iter_mut().for_each(|rule| no_longer_asks(rule, side));
            let mut part = part(policy, side, format!("{}-{number:0width$}", side.suffix), rules)?;
            let (namespaces, endpoints) = asks(&group[0], side);
            part.set_spec("selector", both(policy.spec_text("selector"), endpoints));
            part.set_spec("namespaceSelector", both(policy.spec_text("namespaceSelector"), namespaces));
            parts.push(part);
        }
    }
    Some(parts)
}

fn part(policy: &ApiObject, side: &Side, suffix: String, rules: Vec<Value>) -> Option<ApiObject> {
    let name = format!("{}-{suffix}", policy.name());
    if name.len() > NAME_MAX {
        return None;
    }
    let mut part = policy.clone();
    part.set_text("name", &name);
    ["uid", "resourceVersion", "creationTimestamp"].iter().for_each(|field| part.set_text(field, ""));
    SIDES.iter().for_each(|side| part.set_spec(side.rules, Value::Null));
    part.set_spec(side.rules, rules);
    part.set_spec("types", json!([side.kind]));
    Some(part)
}

/// Rules of one action in a row may change their places: those that ask for the same come together.
fn in_groups(rules: &[Value], side: &Side) -> Vec<Value> {
    let mut sorted = Vec::with_capacity(rules.len());
    for row in rules.chunk_by(|one, next| one["action"] == next["action"]) {
        let mut groups: Vec<Vec<&Value>> = Vec::new();
        for rule in row {
            match groups.iter_mut().find(|group| asks(group[0], side) == asks(rule, side)) {
                Some(group) => group.push(rule),
                None => groups.push(vec![rule]),
            }
        }
        sorted.extend(groups.into_iter().flatten().cloned());
    }
    sorted
}

/// Without what goes without saying, and without rules that can't be reached.
fn slim(mut policy: ApiObject) -> ApiObject {
    if policy.spec_text("selector") == "all()" {
        policy.set_spec("selector", "");
    }
    let mut policy = policy.canonical();
    for side in &SIDES {
        policy.set_spec(side.rules, reachable(rules(&policy, side)));
    }
    policy.canonical()
}

fn reachable(rules: Vec<Value>) -> Vec<Value> {
    let mut seen = BTreeSet::new();
    let mut kept = Vec::new();
    for rule in rules {
        let mut what = rule.clone();
        if let Some(what) = what.as_object_mut() {
            what.shift_remove("metadata");
        }
        if !seen.insert(what.to_string()) {
            continue;
        }
        kept.push(rule);
        if ["Allow", "Deny", "Pass"].iter().any(|action| what == json!({ "action": action })) {
            break;
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(name: &str, spec: Value) -> ApiObject {
        let value = json!({ "metadata": { "name": name, "uid": "u" }, "spec": spec });
        ApiObject::decode(ResourceKind::GlobalNetworkPolicy, &value).unwrap()
    }

    /// Names and specs of what a policy becomes.
    fn parts_of(spec: Value) -> Vec<(String, Value)> {
        let parts = split(policy("p", spec)).into_iter();
        parts.map(|part| (part.name().to_owned(), part.value()["spec"].clone())).collect()
    }

    #[test]
    fn rules_that_ask_for_their_own_endpoint_become_policies_that_select_it() {
        let parts = parts_of(json!({
            "selector": "env=='prod'",
            "types": ["Ingress", "Egress"],
            "ingress": [
                { "action": "Allow", "destination": { "selector": "app == 'b'", "ports": [80] } },
                { "action": "Allow", "destination": { "selector": "app=='a'" } },
                { "action": "Allow", "destination": { "selector": "app == \"b\"", "ports": [81] } },
                { "action": "Deny", "destination": { "selector": "env == 'prod'" } },
            ],
        }));
        let of = |selector: &str, rules: Value| json!({ "ingress": rules, "selector": selector, "types": ["Ingress"] });
        let rule = |port: u16| json!({ "action": "Allow", "destination": { "ports": [port] } });
        assert_eq!(
            parts,
            [
                ("p-i-0".to_owned(), of(r#"(env == "prod" && app == "b")"#, json!([rule(80), rule(81)]))),
                ("p-i-1".to_owned(), of(r#"(env == "prod" && app == "a")"#, json!([{ "action": "Allow" }]))),
                ("p-i-2".to_owned(), of(r#"env == "prod""#, json!([{ "action": "Deny" }]))),
                ("p-e".to_owned(), json!({ "selector": r#"env == "prod""#, "types": ["Egress"] })),
            ]
        );
    }

    #[test]
    fn a_policy_whose_rules_ask_for_others_alone_stays_one() {
        let spec = json!({
            "selector": "all()",
            "types": ["Egress"],
            "egress": [
                { "action": "Allow", "source": { "selector": "all()" }, "destination": { "selector": "has(a)" } },
                { "action": "Allow", "destination": { "selector": "has( a )" }, "metadata": { "annotations": { "x": "y" } } },
                { "action": "Pass", "source": { "namespaceSelector": " " } },
                { "action": "Log" },
            ],
        });
        let rules =
            json!([{ "action": "Allow", "destination": { "selector": "has(a)" } }, { "action": "Pass" }]);
        assert_eq!(parts_of(spec), [("p".to_owned(), json!({ "egress": rules, "types": ["Egress"] }))]);
        assert_eq!(
            parts_of(json!({ "types": ["Ingress"] })),
            [("p".to_owned(), json!({ "types": ["Ingress"] }))]
        );
    }

    #[test]
    fn what_cannot_be_split_stays_whole() {
        let rules = json!([
            { "action": "Allow", "destination": { "selector": "has(a)" } },
            { "action": "Allow", "destination": { "selector": "has(b)" } },
        ]);
        let forwarded = json!({ "applyOnForward": true, "ingress": rules });
        assert_eq!(split(policy("p", forwarded))[0].name(), "p");
        let long = "a".repeat(NAME_MAX - 1);
        let whole = split(policy(&long, json!({ "ingress": rules })));
        assert_eq!((whole.len(), whole[0].name()), (1, long.as_str()));
        assert_eq!(whole[0].spec("ingress"), &rules);
    }
}

//! Manifests of Calico's first API (`apiVersion: v1`), brought into the present form, as calicoctl once converted them
//! (`libcalico-go/lib/upgrade/converters`).
//!
//! Trees become trees, so that every value keeps its place and is held to the present rules. Only what was written
//! otherwise is changed; what is malformed stays as it is, for those rules to refuse.

use model::{Prefix, Protocol};

use crate::convert::{API_VERSION, join_endpoint_name};
use crate::document::{Content, Value};

/// Fields by name, in order.
type Entries = Vec<(String, Value)>;

/// The document in the present form; `None` where it is in that form already, or in none that is known.
pub(crate) fn upgraded(document: &Value) -> Option<Value> {
    let fields = map(document)?;
    if text(fields, "apiVersion") != Some("v1") {
        return None;
    }
    let empty = Vec::new();
    let metadata = find(fields, "metadata").and_then(map).unwrap_or(&empty);
    let spec = find(fields, "spec").and_then(map).unwrap_or(&empty);
    let upgrade = Upgrade { document, metadata, spec };
    let (kind, metadata, spec) = match text(fields, "kind")? {
        "node" => ("Node", metadata.clone(), spec.clone()),
        "ipPool" => upgrade.pool(),
        "bgpPeer" => upgrade.peer(),
        "policy" => upgrade.policy(),
        "profile" => upgrade.profile(),
        "hostEndpoint" => upgrade.host_endpoint(),
        "workloadEndpoint" => upgrade.workload_endpoint(),
        _ => return None,
    };
    let whole = vec![
        ("apiVersion".to_owned(), upgrade.text(API_VERSION)),
        ("kind".to_owned(), upgrade.text(kind)),
        ("metadata".to_owned(), upgrade.map(metadata)),
        ("spec".to_owned(), upgrade.map(spec)),
    ];
    Some(upgrade.map(whole))
}

/// One document; what is made anew stands where it stands.
struct Upgrade<'a> {
    document: &'a Value,
    metadata: &'a Entries,
    spec: &'a Entries,
}

impl Upgrade<'_> {
    fn value(&self, content: Content) -> Value {
        Value { content, position: self.document.position }
    }

    fn text(&self, text: &str) -> Value {
        self.value(Content::Text(text.to_owned()))
    }

    fn map(&self, entries: Entries) -> Value {
        self.value(Content::Map(entries))
    }

    /// Moves what stood in `metadata` into `spec`.
    fn spec_with(&self, names: &[&str]) -> Entries {
        let moved = self.metadata.iter().filter(|(name, _)| names.contains(&name.as_str()));
        self.spec.iter().chain(moved).cloned().collect()
    }

    /// `metadata` under a name that resources may have now, with those fields that it still has.
    fn named(&self, name: &str) -> Entries {
        let kept =
            self.metadata.iter().filter(|(field, _)| matches!(field.as_str(), "labels" | "annotations"));
        let mut metadata: Entries = kept.cloned().collect();
        if !name.is_empty() {
            metadata.push(("name".to_owned(), self.text(&present_name(name))));
        }
        metadata
    }

    fn name(&self) -> &str {
        text(self.metadata, "name").unwrap_or_default()
    }

    fn pool(&self) -> (&'static str, Entries, Entries) {
        let mut spec = self.spec_with(&["cidr"]);
        let ipip = remove(&mut spec, "ipip").unwrap_or_else(|| self.map(Vec::new()));
        let ipip = map(&ipip).cloned().unwrap_or_default();
        let enabled = find(&ipip, "enabled").is_some_and(|value| value.content == Content::Bool(true));
        let mode = match text(&ipip, "mode") {
            _ if !enabled => "Never",
            None | Some("always" | "") => "Always",
            Some("cross-subnet") => "CrossSubnet",
            Some(other) => other,
        };
        spec.push(("ipipMode".to_owned(), self.text(mode)));
        rename(&mut spec, "nat-outgoing", "natOutgoing");
        ("IPPool", self.named(text(self.metadata, "cidr").unwrap_or_default()), spec)
    }

    fn peer(&self) -> (&'static str, Entries, Entries) {
        let spec = self.spec_with(&["node", "peerIP"]);
        let name = match (text(self.metadata, "node"), text(self.metadata, "peerIP")) {
            (Some(node), Some(peer)) => format!("{node}.{peer}"),
            (None, Some(peer)) => format!("global.{peer}"),
            _ => String::new(),
        };
        ("BGPPeer", self.named(&name), spec)
    }

    fn policy(&self) -> (&'static str, Entries, Entries) {
        let mut spec = self.spec.clone();
        rules(&mut spec);
        if let Some(Value { content: Content::List(types), .. }) = find_mut(&mut spec, "types") {
            types.iter_mut().for_each(capitalize);
        }
        ("GlobalNetworkPolicy", self.named(self.name()), spec)
    }

    /// Tags have become labels without values.
    fn profile(&self) -> (&'static str, Entries, Entries) {
        let mut spec = self.spec.clone();
        rules(&mut spec);
        let mut metadata = self.named(self.name());
        let labels = remove(&mut metadata, "labels");
        let mut labels = labels.as_ref().and_then(map).cloned().unwrap_or_default();
        for tag in find(self.metadata, "tags").and_then(list).into_iter().flatten() {
            if let Content::Text(tag) = &tag.content
                && find(&labels, tag).is_none()
            {
                labels.push((tag.clone(), self.text("")));
            }
        }
        spec.push(("labelsToApply".to_owned(), self.map(labels)));
        ("Profile", metadata, spec)
    }

    fn host_endpoint(&self) -> (&'static str, Entries, Entries) {
        let mut spec = self.spec_with(&["node"]);
        ports(&mut spec);
        ("HostEndpoint", self.named(self.name()), spec)
    }

    /// What was the name is that of the endpoint alone, of which a workload may have several.
    fn workload_endpoint(&self) -> (&'static str, Entries, Entries) {
        let mut spec = self.spec_with(&["node", "orchestrator"]);
        ports(&mut spec);
        mask_each(&mut spec, "ipNetworks");
        let part = |name| text(self.metadata, name).unwrap_or_default();
        // Kubernetes' workloads were called after their namespace, too.
        let k8s = part("orchestrator") == "k8s";
        let (namespace, workload) =
            part("workload").split_once('.').filter(|_| k8s).unwrap_or(("", part("workload")));
        // Each orchestrator's word for what it runs.
        let word = match part("orchestrator") {
            "k8s" => "pod",
            "cni" => "containerID",
            _ => "workload",
        };
        spec.push((word.to_owned(), self.text(workload)));
        spec.push(("endpoint".to_owned(), self.text(self.name())));
        let name = join_endpoint_name([part("node"), part("orchestrator"), workload, self.name()]);
        let kept = self.metadata.iter().filter(|(field, _)| field == "labels");
        let mut metadata: Entries = kept.cloned().collect();
        metadata.push(("name".to_owned(), self.text(name.as_deref().unwrap_or(self.name()))));
        if !namespace.is_empty() {
            metadata.push(("namespace".to_owned(), self.text(namespace)));
        }
        ("WorkloadEndpoint", metadata, spec)
    }
}

/// In small letters, with a `-` for everything that a name can't have now.
fn present_name(name: &str) -> String {
    let legal = |c: char| if c.is_ascii_alphanumeric() || c == '.' { c.to_ascii_lowercase() } else { '-' };
    name.chars().map(legal).collect()
}

fn rules(spec: &mut Entries) {
    for direction in ["ingress", "egress"] {
        if let Some(Value { content: Content::List(rules), .. }) = find_mut(spec, direction) {
            rules.iter_mut().filter_map(map_mut).for_each(rule);
        }
    }
}

fn rule(rule: &mut Entries) {
    for (then, now) in [("!protocol", "notProtocol"), ("!icmp", "notICMP")] {
        rename(rule, then, now);
    }
    if let Some(action) = find_mut(rule, "action") {
        if action.content == Content::Text("next-tier".to_owned()) {
            action.content = Content::Text("pass".to_owned());
        }
        capitalize(action);
    }
    for name in ["protocol", "notProtocol"] {
        if let Some(protocol) = find_mut(rule, name) {
            respell(protocol);
        }
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
        mask_each(end, many);
    }
    for (tag, selector, joint) in [("tag", "selector", "&&"), ("notTag", "notSelector", "||")] {
        if let Some(Value { content: Content::Text(tag), position }) = remove(end, tag) {
            let asked = match remove(end, selector) {
                Some(Value { content: Content::Text(also), .. }) if !also.is_empty() => {
                    format!("({also}) {joint} has({tag})")
                }
                _ => format!("has({tag})"),
            };
            end.push((selector.to_owned(), Value { content: Content::Text(asked), position }));
        }
    }
}

fn mask_each(of: &mut Entries, name: &str) {
    if let Some(Value { content: Content::List(nets), .. }) = find_mut(of, name) {
        nets.iter_mut().for_each(mask);
    }
}

/// A network as it is written now: with a length, and without bits beyond it.
fn mask(net: &mut Value) {
    if let Content::Text(text) = &mut net.content
        && let Ok(prefix) = text.parse::<Prefix>()
    {
        *text = prefix.to_string();
    }
}

fn ports(spec: &mut Entries) {
    let Some(Value { content: Content::List(ports), .. }) = find_mut(spec, "ports") else { return };
    for port in ports.iter_mut().filter_map(map_mut) {
        if let Some(protocol) = find_mut(port, "protocol") {
            respell(protocol);
        }
    }
}

/// Protocols had small letters.
fn respell(value: &mut Value) {
    if let Content::Text(text) = &mut value.content
        && let Ok(protocol) = text.parse::<Protocol>()
    {
        *text = protocol.to_string();
    }
}

/// So had actions and types.
fn capitalize(value: &mut Value) {
    if let Content::Text(text) = &mut value.content
        && let Some(first) = text.get(..1)
    {
        *text = first.to_ascii_uppercase() + &text[1..];
    }
}

fn map(value: &Value) -> Option<&Entries> {
    if let Content::Map(entries) = &value.content { Some(entries) } else { None }
}

fn map_mut(value: &mut Value) -> Option<&mut Entries> {
    if let Content::Map(entries) = &mut value.content { Some(entries) } else { None }
}

fn list(value: &Value) -> Option<&Vec<Value>> {
    if let Content::List(values) = &value.content { Some(values) } else { None }
}

fn find<'a>(entries: &'a Entries, name: &str) -> Option<&'a Value> {
    entries.iter().find_map(|(field, value)| (field == name).then_some(value))
}

fn find_mut<'a>(entries: &'a mut Entries, name: &str) -> Option<&'a mut Value> {
    entries.iter_mut().find_map(|(field, value)| (field == name).then_some(value))
}

fn text<'a>(entries: &'a Entries, name: &str) -> Option<&'a str> {
    match &find(entries, name)?.content {
        Content::Text(text) => Some(text),
        _ => None,
    }
}

fn remove(entries: &mut Entries, name: &str) -> Option<Value> {
    let place = entries.iter().position(|(field, _)| field == name)?;
    Some(entries.remove(place).1)
}

fn rename(entries: &mut Entries, then: &str, now: &str) {
    if let Some(value) = remove(entries, then) {
        entries.push((now.to_owned(), value));
    }
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

#[cfg(test)]
mod tests;

//! Manifests of Calico's first API (`apiVersion: v1`), brought into the present form, as calicoctl once converted them
//! (`libcalico-go/lib/upgrade/converters`).
//!
//! Trees become trees, so that every value keeps its place and is held to the present rules. Only what was written
//! otherwise is changed; what is malformed stays as it is, for those rules to refuse. What calicoctl's own converter wouldn't
//! take, and can be understood nevertheless, is an objection: `convert` heeds it, who writes resources doesn't.

mod name;
mod rule;
mod tree;

use std::net::IpAddr;

use model::{InterfaceAddr, Prefix};

use crate::convert::{API_VERSION, DEFAULT_NAMESPACE, join_endpoint_name};
use crate::document::{Content, Value};
use tree::{
    Entries, find, is_set, list, list_mut, map, map_mut, remove, rename, respell_each, respell_field, text,
};

/// A document in the present form.
pub(crate) struct Upgraded {
    /// The document.
    pub(crate) document: Value,
    /// Why calicoctl's converter would refuse it.
    pub(crate) objection: Option<String>,
}

/// The document in the present form; `None` where it is in that form already, or in none that is known.
pub(crate) fn upgraded(document: &Value) -> Option<Upgraded> {
    let fields = map(document)?;
    if text(fields, "apiVersion") != Some("v1") {
        return None;
    }
    let empty = Vec::new();
    let metadata = find(fields, "metadata").and_then(map).unwrap_or(&empty);
    let spec = find(fields, "spec").and_then(map).unwrap_or(&empty);
    let mut upgrade = Upgrade { document, metadata, spec: spec.clone(), objection: None };
    let (kind, metadata) = match text(fields, "kind")? {
        "node" => ("Node", upgrade.node()),
        "ipPool" => ("IPPool", upgrade.pool()),
        "bgpPeer" => ("BGPPeer", upgrade.peer()),
        "policy" => ("GlobalNetworkPolicy", upgrade.policy()),
        "profile" => ("Profile", upgrade.profile()),
        "hostEndpoint" => ("HostEndpoint", upgrade.host_endpoint()),
        "workloadEndpoint" => ("WorkloadEndpoint", upgrade.workload_endpoint()),
        _ => return None,
    };
    let spec = std::mem::take(&mut upgrade.spec);
    let whole = vec![
        ("apiVersion".to_owned(), upgrade.text(API_VERSION)),
        ("kind".to_owned(), upgrade.text(kind)),
        ("metadata".to_owned(), upgrade.map(metadata)),
        ("spec".to_owned(), upgrade.map(spec)),
    ];
    Some(Upgraded { document: upgrade.map(whole), objection: upgrade.objection })
}

/// One document; what is made anew stands where it stands. Each kind's method changes the spec and gives the metadata.
struct Upgrade<'a> {
    document: &'a Value,
    /// As it was.
    metadata: &'a Entries,
    /// As it is going to be.
    spec: Entries,
    objection: Option<String>,
}

impl<'a> Upgrade<'a> {
    fn value(&self, content: Content) -> Value {
        Value { content, position: self.document.position }
    }

    fn text(&self, text: &str) -> Value {
        self.value(Content::Text(text.to_owned()))
    }

    fn map(&self, entries: Entries) -> Value {
        self.value(Content::Map(entries))
    }

    fn object(&mut self, objection: impl Into<String>) {
        self.objection.get_or_insert(objection.into());
    }

    /// A text of the metadata as it was; empty where it isn't there.
    fn part(&self, name: &str) -> &'a str {
        text(self.metadata, name).unwrap_or_default()
    }

    /// Sets a field of the spec.
    fn set(&mut self, name: &str, value: Value) {
        remove(&mut self.spec, name);
        self.spec.push((name.to_owned(), value));
    }

    fn set_text(&mut self, name: &str, text: &str) {
        if !text.is_empty() {
            let value = self.text(text);
            self.set(name, value);
        }
    }

    /// Moves what stood in `metadata` into `spec`, each in its new spelling.
    fn move_to_spec(&mut self, name: &str, spell: impl FnOnce(&str) -> Option<String>) {
        if let Some(value) = find(self.metadata, name) {
            let mut value = value.clone();
            tree::respell(&mut value, spell);
            self.set(name, value);
        }
    }

    /// Metadata of this name, with those fields that are kept.
    fn named(&self, name: &str, kept: &[&str]) -> Entries {
        let kept = self.metadata.iter().filter(|(field, _)| kept.contains(&field.as_str()));
        let mut metadata: Entries = kept.cloned().collect();
        if !name.is_empty() {
            metadata.push(("name".to_owned(), self.text(name)));
        }
        metadata
    }

    fn node(&mut self) -> Entries {
        let bgp = tree::find_mut(&mut self.spec, "bgp").and_then(map_mut);
        let without_address = bgp.is_some_and(|bgp| {
            let fields = ["ipv4Address", "ipv6Address"];
            fields.iter().for_each(|field| respell_field(bgp, field, interface_address));
            fields.iter().all(|field| find(bgp, field).is_none())
        });
        if without_address {
            self.object("Invalid NodeBGPSpec, missing address");
        }
        self.named(&name::of_node(self.part("name")), &["labels", "annotations"])
    }

    fn pool(&mut self) -> Entries {
        let ipip = remove(&mut self.spec, "ipip");
        let ipip = ipip.as_ref().and_then(map).cloned().unwrap_or_default();
        let mode = match text(&ipip, "mode").unwrap_or_default().to_ascii_lowercase().as_str() {
            _ if !is_set(&ipip, "enabled") => "Never",
            "cross-subnet" => "CrossSubnet",
            _ => "Always",
        };
        rename(&mut self.spec, "nat-outgoing", "natOutgoing");
        self.move_to_spec("cidr", rule::network);
        let network = self.part("cidr").parse::<Prefix>();
        for (field, word) in [
            ("ipipMode", mode),
            ("vxlanMode", "Never"),
            ("nodeSelector", "all()"),
            ("assignmentMode", "Automatic"),
        ] {
            self.set_text(field, word);
        }
        let uses = ["Workload", "Tunnel"].map(|word| self.text(word)).to_vec();
        self.set("allowedUses", self.value(Content::List(uses)));
        let Ok(network) = network else { return self.named(&name::of(self.part("cidr")), &[]) };
        let block_size = if network.addr().is_ipv4() { 26 } else { 122 };
        self.set("blockSize", self.value(Content::Int(block_size)));
        self.named(&name::of_network(&network), &[])
    }

    fn peer(&mut self) -> Entries {
        let (node, scope) = (name::of_node(self.part("node")), self.part("scope"));
        match (scope, node.as_str()) {
            ("global", "") => {}
            ("node", node) if !node.is_empty() => {}
            ("global", _) => self.object("With Global scope having a Node is invalid"),
            ("node", _) => self.object("With Node scope a Node must be defined"),
            _ => self.object("insufficient identifiers, missing 'scope'"),
        }
        self.move_to_spec("node", |_| Some(node.clone()));
        self.move_to_spec("peerIP", |text| Some(text.parse::<IpAddr>().ok()?.to_string()));
        let peer = match self.part("peerIP").parse() {
            Ok(addr) => name::of_address(addr),
            Err(_) => name::of(self.part("peerIP")),
        };
        let name = if node.is_empty() { peer } else { format!("{node}.{peer}") };
        self.named(&name, &[])
    }

    fn policy(&mut self) -> Entries {
        rule::convert(&mut self.spec);
        respell_field(&mut self.spec, "selector", rule::selector);
        let has = |direction: &str| {
            find(&self.spec, direction).and_then(list).is_some_and(|rules| !rules.is_empty())
        };
        let by_rules: &[&str] = match (has("ingress"), has("egress")) {
            (_, false) => &["Ingress"],
            (false, true) => &["Egress"],
            (true, true) => &["Ingress", "Egress"],
        };
        match list_mut(&mut self.spec, "types") {
            Some(types) if !types.is_empty() => respell_each(&mut self.spec, "types", policy_type),
            _ => {
                let types = by_rules.iter().map(|word| self.text(word)).collect();
                self.set("types", self.value(Content::List(types)));
            }
        }
        if is_set(&self.spec, "doNotTrack") || is_set(&self.spec, "preDNAT") {
            self.set("applyOnForward", self.value(Content::Bool(true)));
        }
        self.named(&name::without_dots(self.part("name")), &["annotations"])
    }

    /// Tags have become labels without values.
    fn profile(&mut self) -> Entries {
        rule::convert(&mut self.spec);
        let name = name::of_profile(self.part("name"));
        let mut labels = find(self.metadata, "labels").and_then(map).cloned().unwrap_or_default();
        for tag in find(self.metadata, "tags").and_then(list).into_iter().flatten() {
            let Content::Text(tag) = &tag.content else { continue };
            if let Some(value) = text(&labels, tag) {
                let value = value.to_owned();
                self.object(format!(
                    "Tag: '{tag}' and Label '{tag} == {value}' have the same value for Profile: {name}. Change the Label key \
                     before proceeding"
                ));
            } else {
                labels.push((tag.clone(), self.text("")));
            }
        }
        self.set("labelsToApply", self.map(labels));
        self.named(&name, &[])
    }

    fn host_endpoint(&mut self) -> Entries {
        let node = name::of_node(self.part("node"));
        self.move_to_spec("node", |_| Some(node.clone()));
        self.endpoint();
        by_family(&mut self.spec, "expectedIPs", |ip| text_of(ip)?.parse().ok());
        let name = if node.is_empty() {
            self.part("name").to_owned()
        } else {
            format!("{node}.{}", self.part("name"))
        };
        self.named(&name::of(&name), &["labels"])
    }

    /// What was the name is that of the endpoint alone, of which a workload may have several.
    fn workload_endpoint(&mut self) -> Entries {
        let orchestrator = name::of(self.part("orchestrator"));
        let (node, endpoint) = (name::of_node(self.part("node")), name::of(self.part("name")));
        let workload = self.part("workload");
        let mut namespace = DEFAULT_NAMESPACE;
        // Each orchestrator's word for what it runs.
        let (word, workload) = match orchestrator.as_str() {
            "k8s" => match workload.split_once('.') {
                Some((of_pod, pod)) => {
                    namespace = of_pod;
                    ("pod", pod.to_owned())
                }
                None => {
                    self.object(format!(
                        "malformed k8s workload ID '{workload}': workload was not added through the Calico CNI plugin and \
                         cannot be converted"
                    ));
                    ("pod", workload.to_owned())
                }
            },
            "cni" => ("containerID", workload.to_owned()),
            "libnetwork" => ("workload", orchestrator.clone()),
            _ => ("workload", name::of(workload)),
        };
        if word == "pod" {
            self.set_text("containerID", self.part("activeInstanceID"));
        }
        let parts =
            [("node", &node), ("orchestrator", &orchestrator), (word, &workload), ("endpoint", &endpoint)];
        for (field, part) in parts {
            self.set_text(field, part);
            if let Some(reason) = no_part(part) {
                self.object(format!("error with field {field} = '{part}' ({reason})"));
            }
        }
        self.endpoint();
        respell_each(&mut self.spec, "ipNetworks", rule::network);
        by_family(&mut self.spec, "ipNetworks", |network| {
            text_of(network)?.parse::<Prefix>().ok().map(|network| network.addr())
        });
        by_family(&mut self.spec, "ipNATs", |nat| text(map(nat)?, "internalIP")?.parse().ok());
        let name = join_endpoint_name(parts.map(|(_, part)| part.as_str()));
        let mut metadata = self.named(name.as_deref().unwrap_or(&endpoint), &["labels"]);
        if let Some(labels) = tree::find_mut(&mut metadata, "labels").and_then(map_mut) {
            rename(labels, "calico/k8s_ns", "projectcalico.org/namespace");
        }
        metadata.push(("namespace".to_owned(), self.text(namespace)));
        metadata
    }

    /// What endpoints of both kinds have.
    fn endpoint(&mut self) {
        respell_each(&mut self.spec, "profiles", |profile| Some(name::of_profile(profile)));
        for port in list_mut(&mut self.spec, "ports").into_iter().flatten().filter_map(map_mut) {
            respell_field(port, "protocol", rule::protocol);
        }
    }
}

/// An address with the length of its network, which it may have left out.
fn interface_address(text: &str) -> Option<String> {
    let addr = text.parse::<InterfaceAddr>().ok()?;
    (!text.contains('/')).then(|| addr.to_string())
}

/// Types had small letters.
fn policy_type(text: &str) -> Option<String> {
    let types = ["Ingress", "Egress"];
    types.iter().find(|now| now.eq_ignore_ascii_case(text)).map(|now| (*now).to_owned())
}

/// Why it can't be a part of an endpoint's name (`libcalico-go/lib/names/workloadendpoint.go`).
fn no_part(part: &str) -> Option<&'static str> {
    if part.is_empty() {
        Some("field should be assigned")
    } else if part.starts_with('-') {
        Some("field must not begin with a '-'")
    } else if part.ends_with('-') {
        Some("field must not end with a '-'")
    } else {
        None
    }
}

fn text_of(value: &Value) -> Option<&str> {
    if let Content::Text(text) = &value.content { Some(text) } else { None }
}

/// IPv4 stood before IPv6 in the first API's store; what is no address stays among the first.
fn by_family(spec: &mut Entries, field: &str, addr: impl Fn(&Value) -> Option<IpAddr>) {
    if let Some(values) = list_mut(spec, field) {
        values.sort_by_key(|value| addr(value).is_some_and(|addr| addr.is_ipv6()));
    }
}

#[cfg(test)]
mod tests;

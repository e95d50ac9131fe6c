//! The rows of `polprog.jsonl`: what Calico's own tests expect of compiled policy, read for whoever judges.

#![allow(dead_code, reason = "each test uses a part")]

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use model::{InterfaceAddr, Prefix};
use policy::judge::{Packet, Sets, Verdict};
use policy::rule::{
    Action, AfterTiers, Checks, EndMatch, IcmpMatch, Policy, PortRange, Rule, SetId, Tier, TierDefault,
};
use policy::sets::Member;
use serde_json::Value;

/// The rows; none, with a word, where there are no oracles.
pub fn rows() -> Vec<Value> {
    let folder = std::env::var_os("TORTIE_ORACLES").map_or_else(
        || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/oracles")),
        PathBuf::from,
    );
    let Ok(text) = std::fs::read_to_string(folder.join("polprog.jsonl")) else {
        println!("skipped: no polprog.jsonl in $TORTIE_ORACLES or ../shared/oracles");
        return Vec::new();
    };
    text.lines().map(|line| serde_json::from_str(line).expect("one JSON value a line")).collect()
}

/// The sets of one row, numbered in the order of their names.
pub struct RowSets {
    names: Vec<String>,
    /// By number.
    pub members: BTreeMap<SetId, BTreeSet<Member>>,
}

impl RowSets {
    pub fn of(row: &Value) -> RowSets {
        let (mut names, mut members) = (Vec::new(), BTreeMap::new());
        for (number, (name, set)) in (0..).zip(row["ip_sets"].as_object().expect("a mapping")) {
            names.push(name.clone());
            let set = set.as_array().expect("a list").iter().map(RowSets::member).collect();
            members.insert(SetId(number), set);
        }
        RowSets { names, members }
    }

    fn member(member: &Value) -> Member {
        let text = member.as_str().expect("a text");
        let Some((addr, port)) = text.split_once(',') else { return Member::Net(net(text)) };
        let (protocol, port) = port.split_once(':').expect("protocol:port");
        let (protocol, port) = (protocol_number(protocol), port.parse().expect("a port"));
        Member::Port { net: net(addr), protocol, port }
    }

    fn id(&self, name: &Value) -> SetId {
        let name = name.as_str().expect("a text");
        SetId(self.names.iter().position(|known| known == name).expect("a set of the row") as u32)
    }
}

impl Sets for RowSets {
    fn contains(&self, set: SetId, addr: IpAddr) -> bool {
        self.members[&set].iter().any(|member| matches!(member, Member::Net(net) if net.contains(addr)))
    }

    fn contains_port(&self, set: SetId, addr: IpAddr, protocol: u8, port: u16) -> bool {
        self.members[&set].iter().any(|member| match member {
            Member::Port { net, protocol: at, port: number } => {
                net.contains(addr) && (*at, *number) == (protocol, port)
            }
            Member::Net(_) => false,
        })
    }
}

/// A network, which may have bits set beyond its length.
fn net(text: &str) -> Prefix {
    text.parse::<InterfaceAddr>().unwrap_or_else(|error| panic!("{text}: {error}")).network()
}

fn protocol_number(name: &str) -> u8 {
    match name {
        "tcp" => 6,
        "udp" => 17,
        "icmp" => 1,
        "sctp" => 132,
        number => number.parse().unwrap_or_else(|_| panic!("protocol {number}")),
    }
}

fn list<T>(of: &Value, field: &str, read: impl Fn(&Value) -> T) -> Vec<T> {
    of[field].as_array().map(|items| items.iter().map(read).collect()).unwrap_or_default()
}

fn end(rule: &Value, sets: &RowSets, side: &str) -> EndMatch {
    let nets = |field: String| list(rule, &field, |net_text| net(net_text.as_str().expect("a text")));
    let ids = |field: String| list(rule, &field, |name| sets.id(name));
    let ports = |field: String| {
        list(rule, &field, |pair| {
            let port = |at: usize| pair[at].as_u64().expect("a port") as u16;
            PortRange { first: port(0), last: port(1) }
        })
    };
    EndMatch {
        nets: nets(format!("{side}_nets")),
        not_nets: nets(format!("not_{side}_nets")),
        sets: ids(format!("{side}_ip_sets")),
        not_sets: ids(format!("not_{side}_ip_sets")),
        ports: ports(format!("{side}_ports")),
        named_ports: ids(format!("{side}_named_port_sets")),
        not_ports: ports(format!("not_{side}_ports")),
        not_named_ports: ids(format!("not_{side}_named_port_sets")),
    }
}

fn rule(rule: &Value, sets: &RowSets) -> Rule {
    let protocol = |field: &str| match &rule[field] {
        Value::String(name) => Some(protocol_number(name)),
        number => number.as_u64().map(|number| number as u8),
    };
    let icmp = |field: &str| {
        let icmp = rule.get(field)?;
        let number = |name: &str| icmp[name].as_u64().map(|number| number as u8);
        Some(IcmpMatch { icmp_type: number("type").expect("a type"), code: number("code") })
    };
    Rule {
        action: match rule["action"].as_str() {
            Some("allow") => Action::Allow,
            Some("deny") => Action::Deny,
            Some("pass") => Action::Pass,
            Some("log") => Action::Log,
            other => panic!("action {other:?}"),
        },
        family: None,
        protocol: protocol("protocol"),
        not_protocol: protocol("not_protocol"),
        icmp: icmp("icmp"),
        not_icmp: icmp("not_icmp"),
        source: end(rule, sets, "src"),
        destination: end(rule, sets, "dst"),
    }
}

fn name(of: &Value) -> String {
    of["name"].as_str().expect("a name").to_owned()
}

/// Policies, or profiles.
fn policies(of: &Value, field: &str, sets: &RowSets) -> Vec<Arc<Policy>> {
    list(of, field, |policy| {
        let rules = list(policy, "rules", |one| rule(one, sets));
        Arc::new(Policy { name: name(policy), rules })
    })
}

fn tiers(of: &Value, field: &str, sets: &RowSets) -> Vec<Tier> {
    list(of, field, |tier| Tier {
        name: name(tier),
        policies: policies(tier, "policies", sets),
        default: if tier["end_action"] == "pass" { TierDefault::Pass } else { TierDefault::Deny },
    })
}

fn packet(row: &Value) -> Packet {
    let addr = |field: &str| row[field].as_str().expect("an address").parse().expect("an address");
    let number = |field: &str| row[field].as_u64();
    Packet {
        protocol: number("proto").expect("a protocol") as u8,
        source: addr("src"),
        destination: addr("dst"),
        ports: number("sport").zip(number("dport")).map(|(sport, dport)| (sport as u16, dport as u16)),
        icmp: number("icmp_type").zip(number("icmp_code")).map(|(kind, code)| (kind as u8, code as u8)),
    }
}

/// The packet as it was before its destination was translated.
fn before_nat(row: &Value) -> Packet {
    let translated = packet(row);
    let Some(destination) = row["pre_nat_dst"].as_str() else { return translated };
    let port = row["pre_nat_dport"].as_u64().expect("a port") as u16;
    let ports = translated.ports.map(|(sport, _)| (sport, port));
    Packet { destination: destination.parse().expect("an address"), ports, ..translated }
}

/// What a row's policy says of one of its packets, where `ask` judges by checks: by the order of `felix/bpf/polprog`: pre-DNAT policy of the host first,
/// then that for what is forwarded or that for what the host itself sends and gets, then the workload's.
pub fn verdict(
    row: &Value,
    packet_row: &Value,
    sets: &RowSets,
    mut ask: impl FnMut(&Checks, &Packet) -> Verdict,
) -> Verdict {
    let (policy, row) = (&row["policy"], packet_row);
    let flag = |of: &Value, field: &str| of[field].as_bool().unwrap_or(false);
    let tiers_of = |field: &str| tiers(policy, field, sets);
    let profiles_of = |field: &str| AfterTiers::Profiles(policies(policy, field, sets));
    let mut by = |tiers: Vec<Tier>, after: AfterTiers, packet: &Packet| ask(&Checks { tiers, after }, packet);
    if flag(policy, "for_xdp") {
        return by(tiers_of("host_normal_tiers"), AfterTiers::NoMatch, &packet(row));
    }
    let early = by(tiers_of("host_pre_dnat_tiers"), AfterTiers::NoMatch, &before_nat(row));
    if early == Verdict::Deny {
        return early;
    }
    let hosts_own = flag(row, "to_host") || flag(row, "from_host");
    let is_host = flag(policy, "for_host_interface");
    if early == Verdict::NoMatch {
        let forwarded = tiers_of("host_forward_tiers");
        if !hosts_own && !forwarded.is_empty() {
            let host = by(forwarded, AfterTiers::Profiles(Vec::new()), &packet(row));
            if host == Verdict::Deny {
                return host;
            }
        }
        // What the host itself sends and gets is asked of profiles, too: without either, it is denied.
        if hosts_own && !flag(policy, "suppress_normal_host_policy") {
            let host = by(tiers_of("host_normal_tiers"), profiles_of("host_profiles"), &packet(row));
            if host == Verdict::Deny {
                return host;
            }
        }
    }
    if is_host {
        return Verdict::Allow;
    }
    by(tiers_of("tiers"), profiles_of("profiles"), &packet(row))
}

/// What a packet of a row ought to come to.
pub fn expected(packet_row: &Value) -> Verdict {
    match packet_row["expect"].as_str() {
        Some("allow") => Verdict::Allow,
        Some("deny") => Verdict::Deny,
        Some("no_match") => Verdict::NoMatch,
        other => panic!("{other:?}"),
    }
}

//! The slow judge held to what Calico's own tests expect of compiled policy (`polprog.jsonl`).

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use model::{Family, InterfaceAddr, Prefix};
use policy::judge::{Packet, Sets, Verdict, judge};
use policy::rule::{
    Action, AfterTiers, Checks, EndMatch, IcmpMatch, Policy, PortRange, Rule, SetId, Tier, TierDefault,
};
use serde_json::Value;

/// An address, with protocol and port in the set of a named port.
type Member = (Prefix, Option<(u8, u16)>);

/// The sets of one row, numbered in the order of their names: addresses, with protocol and port in some.
struct RowSets {
    names: Vec<String>,
    members: Vec<Vec<Member>>,
}

impl RowSets {
    fn of(row: &Value) -> RowSets {
        let (mut names, mut members) = (Vec::new(), Vec::new());
        for (name, set) in row["ip_sets"].as_object().expect("a mapping") {
            names.push(name.clone());
            members.push(set.as_array().expect("a list").iter().map(RowSets::member).collect());
        }
        RowSets { names, members }
    }

    fn member(member: &Value) -> Member {
        let text = member.as_str().expect("a text");
        let Some((addr, port)) = text.split_once(',') else { return (net(text), None) };
        let (protocol, port) = port.split_once(':').expect("protocol:port");
        (net(addr), Some((protocol_number(protocol), port.parse().expect("a port"))))
    }

    fn id(&self, name: &Value) -> SetId {
        let name = name.as_str().expect("a text");
        SetId(self.names.iter().position(|known| known == name).expect("a set of the row") as u32)
    }
}

impl Sets for RowSets {
    fn contains(&self, set: SetId, addr: IpAddr) -> bool {
        self.members[set.0 as usize].iter().any(|(prefix, _)| prefix.contains(addr))
    }

    fn contains_port(&self, set: SetId, addr: IpAddr, protocol: u8, port: u16) -> bool {
        let members = &self.members[set.0 as usize];
        members.iter().any(|(prefix, at)| prefix.contains(addr) && *at == Some((protocol, port)))
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

fn tiers(of: &Value, field: &str, sets: &RowSets) -> Vec<Tier> {
    let name = |of: &Value| of["name"].as_str().expect("a name").to_owned();
    list(of, field, |tier| Tier {
        name: name(tier),
        policies: list(tier, "policies", |policy| {
            let rules = list(policy, "rules", |one| rule(one, sets));
            Arc::new(Policy { name: name(policy), rules })
        }),
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

/// What a row's policy says of one of its packets, by the order of `felix/bpf/polprog`: pre-DNAT policy of the host first,
/// then that for what is forwarded or that for what the host itself sends and gets, then the workload's.
fn verdict(policy: &Value, row: &Value, sets: &RowSets) -> Verdict {
    let flag = |of: &Value, field: &str| of[field].as_bool().unwrap_or(false);
    let tiers_of = |field: &str| tiers(policy, field, sets);
    let by = |tiers: Vec<Tier>, after: AfterTiers, packet: &Packet| {
        judge(&Checks { tiers, after }, packet, sets).verdict
    };
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
        let normal = tiers_of("host_normal_tiers");
        if hosts_own && !normal.is_empty() && !flag(policy, "suppress_normal_host_policy") {
            let host = by(normal, AfterTiers::Profiles(Vec::new()), &packet(row));
            if host == Verdict::Deny {
                return host;
            }
        }
    }
    if is_host {
        return Verdict::Allow;
    }
    by(tiers_of("tiers"), AfterTiers::Profiles(Vec::new()), &packet(row))
}

#[test]
fn packets_end_as_calicos_tests_have_it() {
    let folder = std::env::var_os("TORTIE_ORACLES").map_or_else(
        || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/oracles")),
        PathBuf::from,
    );
    let Ok(text) = std::fs::read_to_string(folder.join("polprog.jsonl")) else {
        println!("skipped: no polprog.jsonl in $TORTIE_ORACLES or ../shared/oracles");
        return;
    };
    let mut held: BTreeMap<String, usize> = BTreeMap::new();
    let mut skipped = 0;
    for line in text.lines() {
        let row: Value = serde_json::from_str(line).expect("one JSON value a line");
        let sets = RowSets::of(&row);
        for one in row["packets"].as_array().expect("a list") {
            if one["family_mismatch"] == true {
                // A program of one family fed with packets of the other: not a question that our judge can be asked.
                skipped += 1;
                continue;
            }
            let expected = match one["expect"].as_str() {
                Some("allow") => Verdict::Allow,
                Some("deny") => Verdict::Deny,
                Some("no_match") => Verdict::NoMatch,
                other => panic!("{other:?}"),
            };
            assert_eq!(verdict(&row["policy"], one, &sets), expected, "{} {}: {one}", row["id"], row["name"]);
            *held.entry(row["suite"].as_str().expect("a suite").to_owned()).or_default() += 1;
        }
    }
    println!("held: {held:?}; {skipped} of another family skipped");
}

#[test]
fn a_family_in_a_rule_leaves_the_other_family_alone() {
    let only_v6 = Rule { family: Some(Family::V6), ..Rule::any(Action::Allow) };
    let packet = Packet {
        protocol: 6,
        source: "10.0.0.1".parse().unwrap(),
        destination: "10.0.0.2".parse().unwrap(),
        ports: Some((1, 2)),
        icmp: None,
    };
    let sets = RowSets { names: Vec::new(), members: Vec::new() };
    assert!(!policy::judge::matches(&only_v6, &packet, &sets));
}

#[test]
fn a_rule_that_never_matches_matches_neither_family() {
    let sets = RowSets { names: Vec::new(), members: Vec::new() };
    for (source, destination) in [("10.0.0.1", "10.0.0.2"), ("fd00::1", "fd00::2")] {
        let packet = Packet {
            protocol: 6,
            source: source.parse().unwrap(),
            destination: destination.parse().unwrap(),
            ports: Some((1, 2)),
            icmp: None,
        };
        assert!(policy::judge::matches(&Rule::any(Action::Allow), &packet, &sets));
        assert!(!policy::judge::matches(&Rule::never(Action::Allow), &packet, &sets));
    }
}

use std::collections::BTreeMap;
use std::sync::Arc;

use ::policy::rule::{Action, AfterTiers, Checks, EndMatch, Policy, Rule, SetId};
use ::policy::sets::Member;
use model::{IfIndex, MacAddr, PortKind};

use super::*;
use crate::{Adjacency, EndpointPolicy, Limits, PolicyLimits, Port};

fn writer() -> Writer {
    let policy = PolicyLimits { programs: 8, rules: 40, members: 40, bytes: 1 << 20 };
    Writer::new(Limits {
        ports: 8,
        adjacencies: 8,
        groups: 8,
        routes_v4: 100,
        routes_v6: 100,
        policy,
        readers: 1,
    })
}

fn put_port(writer: &mut Writer, id: u16, name: &str) {
    let port = Port {
        id: PortId(id),
        name: name.to_owned(),
        ifindex: IfIndex(u32::from(id)),
        kind: PortKind::Uplink,
        mac: MacAddr([2, 0, 0, 0, 0, id as u8]),
        mtu: 1500,
        up: true,
        queues: 1,
        endpoint: None,
    };
    writer.put_port(port).unwrap();
}

fn prefixes() -> Vec<Prefix> {
    (0..4).map(|net| format!("10.{net}.0.0/16").parse().unwrap()).collect()
}

fn prints(writer: &Writer) -> BTreeMap<&'static str, (usize, u64)> {
    let all = writer.fingerprints(prefixes()).into_iter();
    all.map(|print| (print.table, (print.rows, print.hash))).collect()
}

/// What is allowed at `web`: from one set, and not from another.
fn rules(allowed: u32, denied: u32) -> EndpointPolicy {
    let source =
        EndMatch { sets: vec![SetId(allowed)], not_sets: vec![SetId(denied)], ..EndMatch::default() };
    let rules = vec![Rule { source, ..Rule::any(Action::Allow) }];
    let profile = Arc::new(Policy { name: "p".to_owned(), rules });
    let checks = Checks { tiers: Vec::new(), after: AfterTiers::Profiles(vec![profile]) };
    EndpointPolicy { ingress: Some(Arc::new(checks)), ..EndpointPolicy::default() }
}

fn member(last: u8) -> Member {
    Member::Net(format!("10.9.0.{last}/32").parse().unwrap())
}

/// Two uplinks, a neighbour behind each, routes by both, and policy.
fn straight() -> Writer {
    let mut writer = writer();
    put_port(&mut writer, 1, "eth0");
    put_port(&mut writer, 2, "eth1");
    let first = Adjacency::unresolved(PortId(1), "192.0.2.1".parse().unwrap());
    let second = Adjacency::unresolved(PortId(2), "192.0.2.2".parse().unwrap());
    let (first, second) = (writer.insert_adjacency(first).unwrap(), writer.insert_adjacency(second).unwrap());
    let both = writer.insert_group(Group::Weighted(vec![first, second], vec![1, 3])).unwrap();
    writer.publish();
    writer.insert_route(prefixes()[0], both).unwrap();
    writer.put_set(SetId(1), [member(1), member(2)]).unwrap();
    writer.put_set(SetId(2), [member(3)]).unwrap();
    writer.put_policy("web", &rules(1, 2)).unwrap();
    writer
}

#[test]
fn detours_leave_no_trace() {
    let mut writer = writer();
    // Everything in another place, after something else.
    put_port(&mut writer, 5, "eth1");
    put_port(&mut writer, 3, "gone");
    let second = Adjacency::unresolved(PortId(5), "192.0.2.2".parse().unwrap());
    let second = writer.insert_adjacency(second).unwrap();
    let alone = writer.insert_group(Group::Forward(vec![second])).unwrap();
    writer.publish();
    writer.insert_route(prefixes()[0], alone).unwrap();
    writer.insert_route(prefixes()[3], alone).unwrap();
    writer.put_set(SetId(7), [member(3), member(9)]).unwrap();
    writer.put_policy("web", &rules(7, 7)).unwrap();
    writer.put_policy("gone", &rules(7, 7)).unwrap();
    writer.publish();

    put_port(&mut writer, 4, "eth0");
    let first = Adjacency::unresolved(PortId(4), "192.0.2.1".parse().unwrap());
    let first = writer.insert_adjacency(first).unwrap();
    let both = writer.insert_group(Group::Weighted(vec![second, first], vec![3, 1])).unwrap();
    writer.put_set(SetId(4), [member(2), member(1)]).unwrap();
    writer.put_policy("web", &rules(4, 7)).unwrap();
    writer.update_set(SetId(7), &[member(9)], &[]).unwrap();
    assert_ne!(prints(&writer), prints(&straight()));
    writer.publish();
    writer.insert_route(prefixes()[0], both).unwrap();
    writer.remove_route(prefixes()[3]);
    writer.remove_group(alone);
    writer.remove_port(PortId(3));
    writer.remove_policy("gone");
    writer.publish();
    assert_eq!(prints(&writer), prints(&straight()));
}

#[test]
fn every_table_tells_a_difference() {
    type Change = fn(&mut Writer);
    let changes: [(&str, Change); 8] = [
        ("routes", |writer| assert!(writer.remove_route(prefixes()[0]).is_some())),
        ("routes", |writer| {
            let here = Adjacency::unresolved(PortId(1), "192.0.2.9".parse().unwrap());
            writer.replace_adjacency(AdjacencyId(0), here);
        }),
        ("ports", |writer| put_port(writer, 6, "eth6")),
        ("policy", |writer| writer.remove_policy("web")),
        ("policy", |writer| writer.update_set(SetId(1), &[member(2)], &[]).unwrap()),
        ("tunnels", |writer| {
            let tunnels = crate::WorkloadTunnels { ipip_refused: false, ..Default::default() };
            writer.set_workload_tunnels(tunnels);
        }),
        ("translation", |writer| {
            let rules = crate::NatRules { sources: prefixes(), ..Default::default() };
            writer.set_nat(crate::Nat::new(&rules));
        }),
        ("rules", |writer| writer.set_ready(true)),
    ];
    let before = prints(&straight());
    for (table, change) in changes {
        let mut writer = straight();
        change(&mut writer);
        let after = prints(&writer);
        let different: Vec<&str> =
            before.keys().copied().filter(|table| before[table] != after[table]).collect();
        assert_eq!(different, [table]);
    }
}

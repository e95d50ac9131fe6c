//! Sums from workers' rows to what is shown, as rules and endpoints come and go.

use std::sync::Arc;

use model::{Family, IfIndex, MacAddr, PortId, PortKind};
use policy::compile::{Packet, RuleId, Upper};
use policy::rule::{Action, Policy, Rule, Tier, TierDefault};
use tables::{Endpoint, EndpointPolicy, Limits, PolicyLimits, Port};

use super::*;

/// A policy that logs, allows TCP and leaves the rest to the tier's end, which denies.
fn checks(policy: &str) -> Arc<Checks> {
    let tcp = Rule { protocol: Some(6), ..Rule::any(Action::Allow) };
    let policies =
        vec![Arc::new(Policy { name: policy.to_owned(), rules: vec![Rule::any(Action::Log), tcp] })];
    let tiers = vec![Tier { name: "default".to_owned(), policies, default: TierDefault::Deny }];
    Arc::new(Checks { tiers, after: AfterTiers::Profiles(vec![]) })
}

struct Bench {
    writer: Writer,
    report: PolicyReport,
    counts: PolicyCounts,
}

impl Bench {
    /// Two endpoints, which share the rules of one policy; `ns/a` has a staged one, too.
    fn new(policy: &str) -> Bench {
        let limits = PolicyLimits { programs: 4, rules: 40, members: 8, bytes: 1 << 20 };
        let mut writer = Writer::new(Limits {
            ports: 8,
            adjacencies: 4,
            groups: 4,
            routes_v4: 10,
            routes_v6: 10,
            policy: limits,
            readers: 1,
        });
        for (id, name) in [(1, "ns/a"), (2, "ns/b")] {
            let endpoint = Endpoint { name: name.to_owned(), addresses: vec![], qos: None };
            writer
                .put_port(Port {
                    id: PortId(id),
                    name: format!("cali{id}"),
                    ifindex: IfIndex(u32::from(id)),
                    kind: PortKind::Workload,
                    mac: MacAddr::default(),
                    mtu: 1500,
                    up: true,
                    queues: 1,
                    endpoint: Some(endpoint),
                })
                .unwrap();
        }
        let report = PolicyReport::new(2, 64, 4);
        let mut bench = Bench { writer, counts: PolicyCounts::new(report.clone()), report };
        bench.police(policy);
        bench
    }

    fn police(&mut self, policy: &str) {
        for name in ["ns/a", "ns/b"] {
            let ingress = Some(checks(policy));
            let staged_ingress = (name == "ns/a").then(|| checks("staged"));
            let asked = EndpointPolicy { ingress, staged_ingress, ..EndpointPolicy::default() };
            self.writer.put_policy(name, &asked).unwrap();
        }
        self.writer.publish();
    }

    /// The rule that decides on a packet of this protocol at a port.
    fn rule(&self, port: PortId, protocol: u8, judged: Judged) -> RuleId {
        let policy = &self.writer.staged().policy;
        let of = policy.of(port);
        let program = if judged == Judged::Enforced { of.ingress } else { of.staged_ingress };
        let packet = Packet {
            source: 0x0a00_0001,
            destination: 0x0a00_0002,
            family: Family::V4,
            protocol,
            upper: Upper::Ports { source: 1, destination: 80 },
        };
        policy.judge(program.unwrap(), &packet).rule
    }

    fn count(&self, worker: usize, port: u16, protocol: u8, judged: Judged, bytes: usize) {
        let port = PortId(port);
        let rule = self.rule(port, protocol, judged);
        self.report.count(worker, Decided { rule, port, is_ingress: true, judged }, bytes);
    }

    fn sum_up(&mut self) {
        self.counts.sum_up(&self.writer);
    }

    /// What is shown: endpoint, policy, what, packets, bytes and what would have been denied.
    fn shown(&self, policy: &str, is_staged: bool, all: bool) -> Vec<(String, String, u64, u64, u64)> {
        let checks = checks(policy);
        let asked = ["ns/a", "ns/b"].map(|name| Asked {
            endpoint: name.to_owned(),
            is_ingress: true,
            is_staged,
            checks: &checks,
        });
        let rows = self.counts.rows(asked.into_iter(), all).rules.into_iter();
        rows.map(|row| (row.endpoint, row.what, row.packets, row.bytes, row.would_deny_packets)).collect()
    }
}

const TCP: u8 = 6;
const UDP: u8 = 17;

fn row(endpoint: &str, what: &str, packets: u64, bytes: u64, denied: u64) -> (String, String, u64, u64, u64) {
    (endpoint.to_owned(), what.to_owned(), packets, bytes, denied)
}

#[test]
fn endpoints_that_share_rules_have_sums_of_their_own() {
    let mut bench = Bench::new("web");
    bench.count(0, 1, TCP, Judged::Enforced, 100);
    bench.count(1, 1, TCP, Judged::Enforced, 60);
    bench.count(0, 2, TCP, Judged::Enforced, 40);
    bench.count(0, 2, UDP, Judged::Enforced, 50);
    bench.sum_up();
    bench.sum_up();
    let expected = [
        row("ns/a", "ingress[1]", 2, 160, 0),
        row("ns/b", "ingress[1]", 1, 40, 0),
        row("ns/b", "end of tier", 1, 50, 0),
    ];
    assert_eq!(bench.shown("web", false, false), expected);
    let all: Vec<_> = bench.shown("web", false, true).into_iter().map(|row| row.1).collect();
    assert_eq!(all[..4], ["ingress[0]", "ingress[1]", "end of tier", "no profile"]);
    assert_eq!(all.len(), 8);
    let totals = bench.counts.numbers().totals;
    let totals: Vec<_> =
        totals.iter().map(|t| (t.policy.as_str(), t.action.as_str(), t.packets, t.bytes)).collect();
    assert_eq!(totals, [("", "deny", 1, 50), ("web", "allow", 3, 200)]);
}

#[test]
fn staged_policy_is_summed_apart_with_what_it_would_have_denied() {
    let mut bench = Bench::new("web");
    bench.count(0, 1, TCP, Judged::Staged, 100);
    bench.count(0, 1, UDP, Judged::Staged, 10);
    bench.count(0, 1, UDP, Judged::WouldBeDenied, 20);
    bench.sum_up();
    let expected = [row("ns/a", "ingress[1]", 1, 100, 0), row("ns/a", "end of tier", 2, 30, 1)];
    assert_eq!(bench.shown("staged", true, false), expected);
    assert_eq!(bench.shown("web", false, false), []);
    let totals = bench.counts.numbers().totals;
    assert!(totals.iter().all(|total| total.staged));
    assert_eq!(totals.iter().map(|total| total.would_deny_packets).sum::<u64>(), 1);
}

#[test]
fn sums_are_kept_by_name_though_numbers_change_hands() {
    let mut bench = Bench::new("first");
    bench.count(0, 1, TCP, Judged::Enforced, 100);
    let rows = |bench: &Bench| bench.report.counts().count();
    bench.sum_up();
    // Numbers of what is gone are given again, the longest free first.
    for policy in ["second", "third", "fourth", "fifth"] {
        bench.police(policy);
        bench.sum_up();
        assert_eq!(rows(&bench), 0, "what isn't asked has no row");
        assert_eq!(bench.shown(policy, false, false), []);
        bench.count(0, 1, TCP, Judged::Enforced, 1);
        bench.sum_up();
        assert_eq!(bench.shown(policy, false, false), [row("ns/a", "ingress[1]", 1, 1, 0)]);
    }
    assert_eq!(bench.shown("first", false, false), [row("ns/a", "ingress[1]", 1, 100, 0)]);
}

#[test]
fn sums_go_with_their_endpoint_and_their_policy() {
    let mut bench = Bench::new("web");
    bench.count(0, 1, TCP, Judged::Enforced, 100);
    bench.count(0, 2, TCP, Judged::Enforced, 100);
    bench.sum_up();
    let (web, other) = (checks("web"), checks("other"));
    let asked = |endpoint: &str, checks| Asked {
        endpoint: endpoint.to_owned(),
        is_ingress: true,
        is_staged: false,
        checks,
    };
    bench.counts.keep([asked("ns/b", &*web)].into_iter());
    assert_eq!(bench.shown("web", false, false), [row("ns/b", "ingress[1]", 1, 100, 0)]);
    assert_eq!(bench.counts.numbers().totals.len(), 1);
    bench.counts.keep([asked("ns/b", &*other)].into_iter());
    assert_eq!(bench.counts.numbers().totals, []);
    assert_eq!(bench.shown("web", false, false), []);
}

#[test]
fn totals_have_a_limit_and_what_is_beyond_is_counted() {
    let mut bench = Bench::new("web");
    let decided = Decided { rule: RuleId(0), port: PortId(1), is_ingress: true, judged: Judged::Enforced };
    let name = |number: usize| RuleName {
        tier: "default".to_owned(),
        policy: format!("p{number}"),
        rule: Some(0),
        action: "allow".to_owned(),
    };
    let new = RuleCount { packets: 1, bytes: 60 };
    let taken =
        (0..TOTALS + 3).filter(|number| bench.counts.add("ns/a", decided, name(*number), new)).count();
    assert_eq!(taken, TOTALS);
    assert!(bench.counts.add("ns/a", decided, name(0), new), "those that there are go on");
    assert_eq!(bench.counts.numbers().totals.len(), TOTALS);
}

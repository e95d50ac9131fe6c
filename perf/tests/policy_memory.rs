//! Policy that comes and goes gives its memory back: what policies, sets and labels took, the next ones take again.

use std::sync::Arc;

use model::{
    Action, EntityRule, Key, NetworkPolicy, NetworkSet, Order, PolicyKey, PolicyKind, PolicyRule, PortMatch,
    PortRange, Prefix, Protocol, Resource, Update, WorkloadEndpoint,
};
use policy::compile::Usage;
use policy::resolve::{Changes, Resolver, SetDelta};
use tables::{EndpointPolicy, Limits, PolicyLimits, Writer};

const POLICIES: u32 = 10_000;
const ENDPOINTS: u32 = 100;
const NETWORK_SETS: u32 = 200;
/// Turns after which everything has its size, and turns that are looked at.
const WARM: u32 = 3;
const TURNS: u32 = 3;

struct Site {
    resolver: Resolver,
    writer: Writer,
}

impl Site {
    fn new() -> Site {
        let limits = Limits {
            ports: 4,
            adjacencies: 4,
            groups: 4,
            routes_v4: 16,
            routes_v6: 16,
            policy: PolicyLimits { programs: 512, rules: 1 << 20, members: 1 << 18, bytes: 1 << 30 },
            readers: 1,
        };
        let mut resolver = Resolver::new("here");
        resolver.apply(&Update::InSync);
        Site { resolver, writer: Writer::new(limits) }
    }

    /// As the slow path does it: what comes before what goes.
    fn tell(&mut self, updates: impl Iterator<Item = Update>) {
        updates.for_each(|update| self.resolver.apply(&update));
        let Changes { sets, endpoints } = self.resolver.changes();
        for id in sets.added.keys() {
            self.writer.put_set(*id, []).unwrap();
        }
        for (id, SetDelta { added, removed }) in &sets.members {
            self.writer.update_set(*id, removed, added).unwrap();
        }
        for (key, policy) in endpoints {
            match policy {
                Some(policy) => {
                    let (ingress, egress) = (policy.normal.ingress.clone(), policy.normal.egress.clone());
                    let asked = EndpointPolicy { ingress, egress, ..EndpointPolicy::default() };
                    self.writer.put_policy(&key.to_string(), &asked).unwrap();
                }
                None => self.writer.remove_policy(&key.to_string()),
            }
        }
        self.writer.publish();
        sets.removed.iter().for_each(|id| self.writer.remove_set(*id));
        self.writer.publish();
    }
}

/// What there is in one turn: nothing of it is named or numbered as in another.
fn generation(turn: u32) -> Vec<Resource> {
    let app = |number: u32| format!("app-{turn}-{}", number % ENDPOINTS);
    let net = |number: u32| {
        let addr = 0x0a00_0000 + (turn * 7_919 + number) % (1 << 24);
        Prefix::host(addr.to_be_bytes().into())
    };
    let endpoints = (0..ENDPOINTS).map(|number| {
        Resource::WorkloadEndpoint(WorkloadEndpoint {
            namespace: "default".to_owned(),
            name: format!("pod-{turn}-{number}"),
            labels: [("app".to_owned(), app(number)), (format!("only-{turn}"), String::new())].into(),
            node: "here".to_owned(),
            ip_networks: vec![net(number)],
            ..WorkloadEndpoint::default()
        })
    });
    let sets = (0..NETWORK_SETS).map(|number| {
        Resource::NetworkSet(NetworkSet {
            namespace: None,
            name: format!("set-{turn}-{number}"),
            labels: [("set".to_owned(), format!("{turn}-{}", number % 50))].into(),
            nets: (0..20).map(|at| net(10_000 + number * 20 + at)).collect(),
        })
    });
    let policies = (0..POLICIES).map(|number| {
        let kind = PolicyKind::GlobalNetworkPolicy;
        let key = PolicyKey { kind, namespace: None, name: format!("policy-{turn}-{number}") };
        let port = (turn * 100 + number) as u16 | 1;
        let from = |selector: String, nets| PolicyRule {
            protocol: Some(Protocol::TCP),
            source: EntityRule { selector: Some(selector), nets, ..EntityRule::default() },
            destination: EntityRule {
                ports: vec![PortMatch::Numbers(PortRange { first: port, last: port })],
                ..EntityRule::default()
            },
            ..PolicyRule::any(Action::Allow)
        };
        Resource::NetworkPolicy(NetworkPolicy {
            selector: format!("app == '{}'", app(number)),
            order: Order::new(f64::from(number % 1_000)).unwrap(),
            applies_to_ingress: true,
            ingress: vec![
                from(format!("app == '{}'", app(number + 1)), Vec::new()),
                from(format!("set == '{turn}-{}'", number % 50), vec![net(50_000 + number)]),
            ],
            ..NetworkPolicy::empty(key)
        })
    });
    endpoints.chain(sets).chain(policies).collect()
}

/// The next turn takes the place of the last one: does the memory in use grow? In bytes.
fn turn(site: &mut Site, number: u32) -> i64 {
    let measured = allocation_counter::measure(|| {
        let gone: Vec<Key> = generation(number - 1).iter().map(Resource::key).collect();
        let come = generation(number).into_iter().map(|resource| Update::Put(Arc::new(resource)));
        site.tell(come);
        site.tell(gone.into_iter().map(Update::Remove));
    });
    measured.bytes_current
}

#[test]
fn ten_thousand_policies_that_go_leave_their_memory_to_those_that_come() {
    let mut site = Site::new();
    let first = generation(0).into_iter().map(|resource| Update::Put(Arc::new(resource)));
    let whole = allocation_counter::measure(|| site.tell(first)).bytes_current;
    for number in 1..=WARM {
        turn(&mut site, number);
    }
    let usage = site.writer.policy_usage();
    let grown: Vec<i64> = (WARM + 1..=WARM + TURNS).map(|number| turn(&mut site, number)).collect();
    println!("one turn's policy takes {whole} bytes; it grew by {grown:?}; in the tables: {usage:?}");
    let after = site.writer.policy_usage();
    let of_use = |usage: Usage| (usage.programs, usage.rules, usage.members, usage.classes);
    assert_eq!(of_use(after), of_use(usage), "as many of everything");
    assert!(after.bytes < usage.bytes * 11 / 10, "{after:?} after {usage:?}");
    assert!(grown.iter().sum::<i64>() < 1 << 20, "{grown:?} of {whole}");
    // And with all of it gone, next to nothing is held on to.
    let last: Vec<Key> = generation(WARM + TURNS).iter().map(Resource::key).collect();
    site.tell(last.into_iter().map(Update::Remove));
    let empty = site.writer.policy_usage();
    assert_eq!((empty.programs, empty.rules, empty.members, empty.classes, empty.bytes), (0, 0, 0, 0, 0));
}

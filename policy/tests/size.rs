//! How long resolving takes at the sizes that it is built for. Prints; asserts no times.
//!
//! `cargo test --release -p policy --test size -- --ignored --nocapture`

use std::sync::Arc;
use std::time::Instant;

use model::{
    Action, EntityRule, Key, NetworkPolicy, Order, PolicyKey, PolicyKind, PolicyRule, Prefix, Resource,
    Update, WorkloadEndpoint,
};
use policy::resolve::Resolver;

const POLICIES: u32 = 10_000;
const LOCAL: u32 = 100;
const REMOTE: u32 = 10_000;
const APPS: u32 = 100;

fn put(resource: Resource) -> Update {
    Update::Put(Arc::new(resource))
}

fn endpoint(number: u32, app: u32) -> Update {
    let local = number < LOCAL;
    let label = |name: &str, value: String| (name.to_owned(), value);
    put(Resource::WorkloadEndpoint(WorkloadEndpoint {
        namespace: "default".to_owned(),
        name: format!("pod-{number}"),
        labels: [
            label("app", format!("app-{app}")),
            label("pod", format!("pod-{number}")),
            label("projectcalico.org/namespace", "default".to_owned()),
        ]
        .into(),
        node: if local { "here" } else { "there" }.to_owned(),
        ip_networks: vec![Prefix::host((0x0a00_0000 + number).to_be_bytes().into())],
        profiles: vec!["kns.default".to_owned()],
        ..WorkloadEndpoint::default()
    }))
}

/// A policy about one app, or about all, that lets two other apps in.
fn policy(number: u32, about: &str, first: u32) -> Update {
    let key = PolicyKey {
        kind: PolicyKind::GlobalNetworkPolicy,
        namespace: None,
        name: format!("policy-{number}"),
    };
    let from = |app: u32| PolicyRule {
        source: EntityRule {
            selector: Some(format!("app == 'app-{}'", app % APPS)),
            ..EntityRule::default()
        },
        ..PolicyRule::any(Action::Allow)
    };
    put(Resource::NetworkPolicy(NetworkPolicy {
        selector: about.to_owned(),
        order: Order::new(f64::from(number % 1_000)).unwrap(),
        applies_to_ingress: true,
        ingress: vec![from(first), from(first + 1), PolicyRule::any(Action::Log)],
        ..NetworkPolicy::empty(key)
    }))
}

/// The time that applying and telling takes, in milliseconds, and the endpoints that it changed.
fn timed(resolver: &mut Resolver, updates: &[Update]) -> (f64, usize) {
    let start = Instant::now();
    updates.iter().for_each(|update| resolver.apply(update));
    let changes = resolver.changes();
    (start.elapsed().as_secs_f64() * 1e3, changes.endpoints.len())
}

#[test]
#[ignore = "prints figures; takes seconds"]
fn ten_thousand_policies_and_a_hundred_endpoints() {
    for (what, about) in [("each about all endpoints", None), ("each about one app of a hundred", Some(()))] {
        let about =
            |number: u32| about.map_or("all()".to_owned(), |()| format!("app == 'app-{}'", number % APPS));
        let mut updates: Vec<Update> =
            (0..LOCAL + REMOTE).map(|number| endpoint(number, number % APPS)).collect();
        updates.extend((0..POLICIES).map(|number| policy(number, &about(number), number)));
        updates.push(Update::InSync);
        let mut resolver = Resolver::new("here");
        let (cold, endpoints) = timed(&mut resolver, &updates);
        println!("{POLICIES} policies, {what}; {LOCAL} endpoints here, {REMOTE} elsewhere: {cold:.1} ms");
        assert_eq!(endpoints, LOCAL as usize);
        let number = POLICIES / 2;
        let removed = PolicyKey {
            kind: PolicyKind::GlobalNetworkPolicy,
            namespace: None,
            name: format!("policy-{}", number + 1),
        };
        for (what, update) in [
            ("another rule", policy(number, &about(number), number + 7)),
            ("a new policy", policy(POLICIES, &about(POLICIES), 3)),
            ("a policy gone", Update::Remove(Key::NetworkPolicy(removed))),
            ("another label of an endpoint here", endpoint(5, 6)),
            ("another label of an endpoint elsewhere", endpoint(LOCAL + 5, 77)),
            ("a new endpoint elsewhere", endpoint(LOCAL + REMOTE, 5)),
        ] {
            let (time, endpoints) = timed(&mut resolver, &[update]);
            println!("  {what}: {time:.2} ms, {endpoints} endpoints changed");
        }
    }
}

//! What the resolver does once: whom it shares with, what it keeps, what it leaves out.

use super::*;

fn workload(name: &str, node: &str) -> Update {
    let endpoint =
        WorkloadEndpoint { name: name.to_owned(), node: node.to_owned(), ..WorkloadEndpoint::default() };
    Update::Put(Arc::new(Resource::WorkloadEndpoint(endpoint)))
}

fn policy(name: &str, edit: impl FnOnce(&mut NetworkPolicy)) -> Update {
    let key =
        PolicyKey { kind: model::PolicyKind::GlobalNetworkPolicy, namespace: None, name: name.to_owned() };
    let mut policy = NetworkPolicy { applies_to_ingress: true, ..NetworkPolicy::empty(key) };
    edit(&mut policy);
    Update::Put(Arc::new(Resource::NetworkPolicy(policy)))
}

fn resolver(updates: &[Update]) -> Resolver {
    let mut resolver = Resolver::new("here");
    updates.iter().for_each(|update| resolver.apply(update));
    resolver.apply(&Update::InSync);
    resolver
}

#[test]
fn endpoints_with_the_same_policies_and_profiles_share_what_they_are_asked() {
    let mut resolver = resolver(&[
        workload("a", "here"),
        workload("b", "here"),
        workload("elsewhere", "there"),
        policy("p", |_| {}),
    ]);
    let changes = resolver.changes();
    let told: Vec<_> = changes.endpoints.values().flatten().collect();
    assert_eq!(told.len(), 2);
    assert!(Arc::ptr_eq(told[0], told[1]));
    // A policy that begins to apply to both takes them to another group together.
    resolver.apply(&policy("q", |_| {}));
    let told: Vec<_> = resolver.changes().endpoints.into_values().flatten().collect();
    assert_eq!(told.len(), 2);
    assert!(Arc::ptr_eq(&told[0], &told[1]));
}

#[test]
fn what_a_change_leaves_as_it_was_stays_the_same_in_memory() {
    let mut resolver = resolver(&[workload("a", "here"), policy("p", |_| {}), policy("q", |_| {})]);
    let of = |changes: Changes| changes.endpoints.into_values().flatten().next();
    let before = of(resolver.changes()).unwrap();
    resolver.apply(&policy("p", |policy| policy.ingress = vec![PolicyRule::any(Action::Log)]));
    let after = of(resolver.changes()).unwrap();
    let [old, new] = [&before, &after].map(|policy| policy.normal.ingress.as_ref().unwrap());
    assert!(!Arc::ptr_eq(old, new));
    assert!(!Arc::ptr_eq(&old.tiers[0].policies[0], &new.tiers[0].policies[0]));
    assert!(Arc::ptr_eq(&old.tiers[0].policies[1], &new.tiers[0].policies[1]));
    let [old, new] = [&before, &after].map(|policy| policy.normal.egress.as_ref().unwrap());
    assert!(Arc::ptr_eq(old, new));
    // The same again is no change.
    resolver.apply(&policy("p", |policy| policy.ingress = vec![PolicyRule::any(Action::Log)]));
    assert!(resolver.changes().is_empty());
}

#[test]
fn who_comes_into_a_known_group_is_asked_by_its_policies_as_they_are_now() {
    let labelled = |name: &str, labelled: bool| {
        let labels = labelled.then(|| ("x".to_owned(), String::new())).into_iter().collect();
        let name = name.to_owned();
        let node = "here".to_owned();
        let endpoint = WorkloadEndpoint { name, node, labels, ..WorkloadEndpoint::default() };
        Update::Put(Arc::new(Resource::WorkloadEndpoint(endpoint)))
    };
    let about_x = |rules: Vec<PolicyRule>| {
        policy("p", |policy| (policy.selector, policy.ingress) = ("has(x)".to_owned(), rules))
    };
    let mut resolver = resolver(&[labelled("b", false), labelled("a", true), about_x(Vec::new())]);
    resolver.changes();
    resolver.apply(&about_x(vec![PolicyRule::any(Action::Allow)]));
    resolver.apply(&labelled("a", false));
    resolver.apply(&labelled("b", true));
    let changes = resolver.changes();
    let b = changes.endpoints[&Key::WorkloadEndpoint(String::new(), "b".to_owned())].as_ref().unwrap();
    assert_eq!(b.normal.ingress.as_ref().unwrap().tiers[0].policies[0].rules.len(), 1);
}

#[test]
fn a_selector_that_cannot_be_read_leaves_its_policy_out_and_is_told_of() {
    let mut resolver = resolver(&[workload("a", "here"), policy("p", |_| {})]);
    let asked = |changes: Changes| {
        let policy = changes.endpoints.into_values().flatten().next();
        policy.map(|policy| policy.normal.ingress.as_ref().unwrap().tiers.len())
    };
    assert_eq!(asked(resolver.changes()), Some(1));
    resolver.apply(&policy("p", |policy| policy.selector = "a =".to_owned()));
    assert_eq!(asked(resolver.changes()), Some(0));
    assert!(matches!(resolver.problems().values().next(), Some(Problem::LeftOut(_))));
    resolver.apply(&policy("p", |policy| policy.namespace_selector = Some("a =".to_owned())));
    assert!(matches!(resolver.problems().values().next(), Some(Problem::PartIgnored(_))));
    resolver.apply(&policy("p", |_| {}));
    assert!(resolver.problems().is_empty());
    assert_eq!(asked(resolver.changes()), Some(1));
}

#[test]
fn nobody_can_write_the_profile_that_always_exists() {
    let endpoint = WorkloadEndpoint {
        node: "here".to_owned(),
        profiles: vec![Profile::DEFAULT_ALLOW.to_owned()],
        ..WorkloadEndpoint::default()
    };
    let mut resolver = resolver(&[Update::Put(Arc::new(Resource::WorkloadEndpoint(endpoint)))]);
    let allows = resolver.changes();
    assert_eq!(allows.endpoints.len(), 1);
    let denying = Profile { name: Profile::DEFAULT_ALLOW.to_owned(), ..Profile::default() };
    resolver.apply(&Update::Put(Arc::new(Resource::Profile(denying))));
    resolver.apply(&Update::Remove(Key::Profile(Profile::DEFAULT_ALLOW.to_owned())));
    assert!(resolver.changes().is_empty());
}

#[test]
fn a_host_endpoint_has_a_list_for_each_class_of_policy() {
    let endpoint = HostEndpoint {
        name: "eth0".to_owned(),
        labels: BTreeMap::new(),
        node: "here".to_owned(),
        interface: model::HostInterface::Named("eth0".to_owned()),
        expected_ips: Vec::new(),
        profiles: Vec::new(),
        ports: Vec::new(),
        dscp: None,
    };
    let mut resolver = resolver(&[
        Update::Put(Arc::new(Resource::HostEndpoint(endpoint))),
        workload("a", "here"),
        policy("untracked", |it| (it.do_not_track, it.apply_on_forward) = (true, true)),
        policy("early", |it| (it.pre_dnat, it.apply_on_forward) = (true, true)),
        policy("forward", |it| it.apply_on_forward = true),
        policy("normal", |_| {}),
    ]);
    let changes = resolver.changes();
    let names = |checks: &Option<Arc<crate::rule::Checks>>| -> Vec<String> {
        let tiers = checks.iter().flat_map(|checks| &checks.tiers);
        tiers.flat_map(|tier| &tier.policies).map(|policy| policy.name.clone()).collect()
    };
    let host = changes.endpoints[&Key::HostEndpoint("eth0".to_owned())].as_ref().unwrap();
    assert_eq!(names(&host.untracked.ingress), ["untracked"]);
    assert_eq!(names(&host.pre_dnat), ["early"]);
    assert_eq!(names(&host.forward.ingress), ["forward"]);
    assert_eq!(names(&host.normal.ingress), ["forward", "normal"]);
    assert!(host.untracked.egress.is_none() && host.forward.egress.is_none() && host.normal.egress.is_some());
    let no_opinion = host.untracked.ingress.as_ref().unwrap();
    assert_eq!(no_opinion.after, crate::rule::AfterTiers::NoMatch);
    assert_eq!(no_opinion.tiers[0].default, crate::rule::TierDefault::Pass);
    // A workload isn't asked by what is for hosts alone.
    let key = Key::WorkloadEndpoint(String::new(), "a".to_owned());
    let workload = changes.endpoints[&key].as_ref().unwrap();
    assert_eq!(names(&workload.normal.ingress), ["forward", "normal"]);
    assert_eq!(workload.untracked, Directions::default());
}

#[test]
fn a_policy_that_is_needed_everywhere_has_its_sets_before_its_first_endpoint_comes() {
    let from_b = |policy: &mut NetworkPolicy| {
        let mut rule = PolicyRule::any(Action::Allow);
        rule.source.selector = Some("app == 'b'".to_owned());
        policy.ingress = vec![rule];
    };
    let needed = |policy: &mut NetworkPolicy| {
        from_b(policy);
        policy.needed_everywhere = true;
    };
    let mut resolver = resolver(&[policy("p", needed), policy("q", from_b)]);
    assert_eq!(resolver.changes().sets.added.len(), 1);
    let names: Vec<&str> = resolver.in_force().map(|key| key.name.as_str()).collect();
    assert_eq!(names, ["p"]);
    // The endpoint finds the set.
    resolver.apply(&workload("a", "here"));
    let changes = resolver.changes();
    assert!(changes.sets.added.is_empty() && changes.endpoints.len() == 1);
    assert_eq!(resolver.in_force().count(), 2);
    // Without the hint, it goes with the endpoint.
    resolver.apply(&policy("p", from_b));
    resolver.apply(&Update::Remove(Key::WorkloadEndpoint(String::new(), "a".to_owned())));
    assert_eq!(resolver.changes().sets.removed.len(), 1);
    assert_eq!(resolver.in_force().count(), 0);
}

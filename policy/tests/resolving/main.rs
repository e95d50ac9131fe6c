//! The resolver held to two oracles: itself, told everything at once, and a slow reading of the resources that knows
//! neither sets nor indexes.

#[path = "../support/cases.rs"]
mod cases;
#[path = "../dataplane/mod.rs"]
mod dataplane;
mod draw;
mod slow;

use std::collections::BTreeMap;
use std::sync::Arc;

use cases::cases;
use dataplane::Dataplane;
use draw::Draw;
use model::{Key, Resource, Update};
use policy::judge::{Step, judge};
use policy::resolve::{EndpointPolicy, Resolver};
use policy::rule::{AfterTiers, Checks, SetId};
use proptest::prelude::*;
use slow::Slow;

/// The node whose endpoints are asked for.
const NODE: &str = "here";

type State = BTreeMap<Key, Arc<Resource>>;

/// Updates, some of which take back what another gave.
fn updates(numbers: &[u8]) -> Vec<Update> {
    let mut draw = Draw(numbers.iter());
    let mut updates = Vec::new();
    while draw.0.len() > 0 {
        let resource = draw.resource();
        updates.push(if draw.one_in(5) {
            Update::Remove(resource.key())
        } else {
            Update::Put(Arc::new(resource))
        });
    }
    updates
}

fn state(updates: &[Update]) -> State {
    let mut state = State::new();
    for update in updates {
        match update {
            Update::Put(resource) => drop(state.insert(resource.key(), resource.clone())),
            Update::Remove(key) => drop(state.remove(key)),
            Update::InSync => {}
        }
    }
    state
}

/// A resolver that was told everything at once.
fn at_once(state: &State) -> (Resolver, Dataplane) {
    let (mut resolver, mut dataplane) = (Resolver::new(NODE), Dataplane::default());
    state.values().for_each(|resource| resolver.apply(&Update::Put(resource.clone())));
    resolver.apply(&Update::InSync);
    dataplane.apply(resolver.changes());
    (resolver, dataplane)
}

/// What is asked of endpoints, with sets called by their place in order instead of by number.
fn endpoints(dataplane: &Dataplane) -> BTreeMap<Key, String> {
    let by_spec: BTreeMap<_, _> = dataplane.specs.iter().map(|(id, spec)| (spec, *id)).collect();
    let places: BTreeMap<SetId, SetId> =
        (0..).zip(by_spec.values()).map(|(place, id)| (*id, SetId(place))).collect();
    let placed = |checks: &mut Option<Arc<Checks>>| {
        let Some(checks) = checks else { return };
        let checks = Arc::make_mut(checks);
        let profiles = match &mut checks.after {
            AfterTiers::Profiles(profiles) => profiles.as_mut_slice(),
            AfterTiers::NoMatch => &mut [],
        };
        for policy in checks.tiers.iter_mut().flat_map(|tier| &mut tier.policies).chain(profiles) {
            for rule in &mut Arc::make_mut(policy).rules {
                for end in [&mut rule.source, &mut rule.destination] {
                    for list in
                        [&mut end.sets, &mut end.not_sets, &mut end.named_ports, &mut end.not_named_ports]
                    {
                        list.iter_mut().for_each(|set| *set = places[set]);
                    }
                }
            }
        }
    };
    let written = |policy: &EndpointPolicy| {
        let mut policy = policy.clone();
        let EndpointPolicy { normal, staged, untracked, pre_dnat, forward } = &mut policy;
        for both in [normal, staged, untracked, forward] {
            placed(&mut both.ingress);
            placed(&mut both.egress);
        }
        placed(pre_dnat);
        format!("{policy:?}")
    };
    dataplane.endpoints.iter().map(|(key, policy)| (key.clone(), written(policy))).collect()
}

proptest! {
    #![proptest_config(cases(1024))]

    #[test]
    fn whatever_came_in_whatever_order_and_batches_the_last_state_alone_counts(
        numbers in prop::collection::vec(any::<u8>(), 0..600),
        told in prop::collection::vec(any::<bool>(), 60),
    ) {
        let updates = updates(&numbers);
        let (mut resolver, mut dataplane) = (Resolver::new(NODE), Dataplane::default());
        let in_sync = updates.len() / 4;
        for (number, update) in updates.iter().enumerate() {
            if number == in_sync {
                resolver.apply(&Update::InSync);
            }
            resolver.apply(update);
            if told[number % told.len()] {
                dataplane.apply(resolver.changes());
            }
        }
        resolver.apply(&Update::InSync);
        dataplane.apply(resolver.changes());
        let (_, wanted) = at_once(&state(&updates));
        prop_assert_eq!(dataplane.sets(), wanted.sets());
        prop_assert_eq!(endpoints(&dataplane), endpoints(&wanted));
        prop_assert!(resolver.changes().is_empty());

        // And all of it taken back leaves nothing.
        state(&updates).keys().for_each(|key| resolver.apply(&Update::Remove(key.clone())));
        dataplane.apply(resolver.changes());
        prop_assert!(dataplane.endpoints.is_empty() && dataplane.specs.is_empty());
    }

    #[test]
    fn every_packet_ends_as_a_slow_reading_of_the_resources_has_it(
        numbers in prop::collection::vec(any::<u8>(), 100..600),
        packets in prop::collection::vec(prop::collection::vec(any::<u8>(), 6), 24),
    ) {
        let state = state(&updates(&numbers));
        let (resolver, dataplane) = at_once(&state);
        let slow = Slow::new(&state);
        for numbers in &packets {
            let packet = Draw(numbers.iter()).packet();
            for (key, policy) in &dataplane.endpoints {
                let staged = if policy.staged.ingress.is_some() { &policy.staged } else { &policy.normal };
                for (egress, staged, checks) in [
                    (false, false, &policy.normal.ingress),
                    (true, false, &policy.normal.egress),
                    (false, true, &staged.ingress),
                    (true, true, &staged.egress),
                ] {
                    let checks = checks.as_ref().expect("it is always asked");
                    let judged = judge(checks, &packet, resolver.members());
                    let expected = slow.verdict(key, egress, &packet, staged);
                    prop_assert_eq!(judged.verdict, expected, "{} {:?} egress {} {:?}", key, packet, egress, judged.steps);
                }
            }
        }
    }

    #[test]
    fn what_is_said_never_to_be_asked_decides_nothing(
        // So many that policies come before each other, and someone to ask them.
        numbers in prop::collection::vec(any::<u8>(), 1_000..2_500),
        packets in prop::collection::vec(prop::collection::vec(any::<u8>(), 6), 24),
    ) {
        let state = state(&updates(&numbers));
        let (resolver, dataplane) = at_once(&state);
        let resources: Vec<&Resource> = state.values().map(|resource| &**resource).collect();
        let never = policy::lint::lint(&resources).into_iter().filter_map(|finding| {
            let direction = finding.text.strip_prefix("never asked about ")?.split(':').next()?.to_owned();
            let Resource::NetworkPolicy(policy) = resources[finding.resource] else { return None };
            let name = match &policy.key.namespace {
                Some(namespace) => format!("{namespace}/{}", policy.key.name),
                None => policy.key.name.clone(),
            };
            Some((policy.tier.clone(), name, direction))
        });
        let never: Vec<_> = never.collect();
        for numbers in &packets {
            let packet = Draw(numbers.iter()).packet();
            for policy in dataplane.endpoints.values() {
                for (direction, checks) in [("ingress", &policy.normal.ingress), ("egress", &policy.normal.egress)] {
                    let checks = checks.as_ref().expect("it is always asked");
                    for step in judge(checks, &packet, resolver.members()).steps {
                        let Step::Rule { tier, policy, .. } = step else { continue };
                        let tier = &checks.tiers[tier];
                        let name = &tier.policies[policy].name;
                        let is_hidden = |(of, hidden, about): &(String, String, String)| {
                            *of == tier.name && hidden == name && about == direction
                        };
                        prop_assert!(!never.iter().any(is_hidden), "{} {} {:?}", name, direction, packet);
                    }
                }
            }
        }
    }
}

//! A cluster's policy, made up and the same in every run: pods with labels, sets of those that selectors select, policies
//! that allow from sets to ports.

use std::net::IpAddr;
use std::sync::Arc;

use model::Prefix;
use policy::rule::{Action, AfterTiers, Checks, EndMatch, Policy, PortRange, Rule, SetId, Tier, TierDefault};
use policy::sets::Member;

use crate::keys::{self, Numbers};

/// Pods, and how many different combinations of labels they have between them.
pub const PODS: u32 = 10_000;
const COMBINATIONS: usize = 300;
/// Sets, and how many of them a pod is in.
pub const SETS: u32 = 400;
const SETS_OF_POD: usize = 21;
/// Rules of a policy.
pub const RULES: usize = 3;

/// Sets with their members, and which sets each combination of labels is in.
pub struct Cluster {
    /// By number.
    pub sets: Vec<Vec<Member>>,
    combinations: Vec<Vec<u32>>,
}

impl Cluster {
    /// The cluster.
    pub fn new() -> Cluster {
        let mut numbers = Numbers::new(3);
        let combinations: Vec<Vec<u32>> = (0..COMBINATIONS)
            .map(|_| (0..SETS_OF_POD).map(|_| numbers.below(SETS as usize) as u32).collect())
            .collect();
        let mut sets = vec![Vec::new(); SETS as usize];
        for pod in 0..PODS {
            for set in &combinations[numbers.below(COMBINATIONS)] {
                sets[*set as usize].push(Cluster::pod(pod));
            }
        }
        Cluster { sets, combinations }
    }

    /// A pod as a member of a set.
    pub fn pod(number: u32) -> Member {
        let addr = IpAddr::V4((0x0a41_0000 + number).into());
        Member::Net(Prefix::host(addr))
    }

    /// The sets of one combination of labels, and those of another one that no pod has yet.
    pub fn labels(&self) -> (Vec<SetId>, Vec<SetId>) {
        let known = self.combinations[0].iter().map(|set| SetId(*set)).collect();
        (known, (0..SETS).step_by(37).map(SetId).collect())
    }

    /// Policy number *n*: from some sets to some ports.
    pub fn policy(number: usize) -> Arc<Policy> {
        let mut numbers = Numbers::new(number as u64 + 100);
        let mut rule = |_| {
            let first = [80, 443, 5432, 6379, 8080, 9090][numbers.below(6)];
            let set = |numbers: &mut Numbers| SetId(numbers.below(SETS as usize) as u32);
            let sets = (0..=numbers.below(2)).map(|_| set(&mut numbers)).collect();
            let not_sets = if numbers.below(8) == 0 { vec![set(&mut numbers)] } else { Vec::new() };
            Rule {
                protocol: Some(if numbers.below(5) == 0 { 17 } else { 6 }),
                source: EndMatch { sets, not_sets, ..EndMatch::default() },
                destination: EndMatch {
                    ports: vec![PortRange { first, last: first + numbers.below(3) as u16 }],
                    ..EndMatch::default()
                },
                ..Rule::any(if numbers.below(6) == 0 { Action::Deny } else { Action::Allow })
            }
        };
        let rules = (0..RULES).map(&mut rule).collect();
        Arc::new(Policy { name: format!("ns/policy-{number}"), rules })
    }

    /// Checks of these policies.
    pub fn checks(policies: impl IntoIterator<Item = usize>) -> Arc<Checks> {
        let policies = policies.into_iter().map(Cluster::policy).collect();
        let tiers = vec![Tier { name: "default".to_owned(), policies, default: TierDefault::Deny }];
        Arc::new(Checks { tiers, after: AfterTiers::Profiles(Vec::new()) })
    }
}

impl Default for Cluster {
    fn default() -> Cluster {
        Cluster::new()
    }
}

/// `count` different networks of IPv4, /20 to /32, half of them within others or near them.
pub fn networks(count: usize) -> Vec<Member> {
    let mut numbers = Numbers::new(5);
    let mut all: Vec<Member> = Vec::with_capacity(count);
    while all.len() < count {
        let some = count - all.len();
        all.extend((0..some).map(|_| {
            let len = 20 + numbers.below(13) as u8;
            let addr: u32 = keys::any(&mut numbers);
            Member::Net(Prefix::new(IpAddr::V4((addr & 0x7fff_ffff).into()), len).expect("a length of IPv4"))
        }));
        all.sort_unstable();
        all.dedup();
    }
    all
}

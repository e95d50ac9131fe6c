//! What policy has decided, by rule: at each endpoint for `show policy` and `show staged`, and in all for the metrics.
//!
//! Workers count by numbers, which are given to other rules and ports once theirs are gone. So sums are kept by names, and
//! brought up to date before rules or ports change. They go with their endpoints and policies.

use std::collections::{BTreeMap, BTreeSet};

use policy::judge::Step;
use policy::rule::{AfterTiers, Checks};
use tables::{Decided, Judged, PolicyReport, RuleCount, TUNNELS, Writer};

use crate::event_loop::Core;
use crate::policy_log::{self, RuleName};
use crate::status::{PolicyNumbers, PolicyRuleStatus, PolicyStatus, PolicyTotal};
use crate::workload_policy::Asked;

/// Rules of endpoints whose sums are kept.
const SUMS: usize = 65_536;
/// Totals that are kept, and so series of each metric.
const TOTALS: usize = 4_096;
/// Rules that one answer lists; the others are counted.
const ROWS: usize = 10_000;

/// A direction of an endpoint. Staged policy's sums are apart.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Side {
    endpoint: String,
    is_ingress: bool,
    is_staged: bool,
}

/// What a rule has decided on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Sum {
    all: RuleCount,
    /// Of these, what passed and staged policy would have denied.
    would_deny: RuleCount,
}

/// What the metrics tell apart.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Total {
    tier: String,
    policy: String,
    is_ingress: bool,
    action: String,
    is_staged: bool,
}

/// The sums.
pub(crate) struct PolicyCounts {
    report: PolicyReport,
    /// What each of the workers' rows said when it was read last.
    read: Vec<RuleCount>,
    sides: BTreeMap<Side, BTreeMap<RuleName, Sum>>,
    totals: BTreeMap<Total, Sum>,
    /// Packets that are in no sum or no total, as there were too many.
    left_out: u64,
}

impl PolicyCounts {
    pub(crate) fn new(report: PolicyReport) -> PolicyCounts {
        let read = vec![RuleCount::default(); report.rows()];
        PolicyCounts { report, read, sides: BTreeMap::new(), totals: BTreeMap::new(), left_out: 0 }
    }

    /// Reads the workers' rows and adds what is new. Rows of what isn't asked any more become free.
    fn sum_up(&mut self, writer: &Writer) {
        let report = self.report.clone();
        for (row, decided, count) in report.counts() {
            let before = std::mem::replace(&mut self.read[row], count);
            if !is_asked(writer, decided) {
                report.forget(row, decided);
                continue;
            }
            if count == before {
                continue;
            }
            let new = RuleCount {
                packets: count.packets.saturating_sub(before.packets),
                bytes: count.bytes.saturating_sub(before.bytes),
            };
            let endpoint = endpoint_of(writer, decided);
            let (Some(endpoint), Some(name)) = (endpoint, policy_log::name(writer, decided.rule)) else {
                continue;
            };
            if !self.add(endpoint, decided, name, new) {
                self.left_out += new.packets;
            }
        }
    }

    /// `false` where there was no room for the sum or the total.
    fn add(&mut self, endpoint: &str, decided: Decided, name: RuleName, new: RuleCount) -> bool {
        let (is_ingress, is_staged) = (decided.is_ingress, decided.judged != Judged::Enforced);
        let total = Total {
            tier: name.tier.clone(),
            policy: name.policy.clone(),
            is_ingress,
            action: name.action.clone(),
            is_staged,
        };
        let side = Side { endpoint: endpoint.to_owned(), is_ingress, is_staged };
        let known = self.sides.get(&side).is_some_and(|sums| sums.contains_key(&name));
        let summed = known || self.sides.values().map(BTreeMap::len).sum::<usize>() < SUMS;
        if summed {
            self.sides.entry(side).or_default().entry(name).or_default().add(decided.judged, new);
        }
        let totalled = self.totals.contains_key(&total) || self.totals.len() < TOTALS;
        if totalled {
            self.totals.entry(total).or_default().add(decided.judged, new);
        }
        summed && totalled
    }

    /// Forgets the sums of endpoints and policies, and the totals of policies, that aren't there any more.
    fn keep<'a>(&mut self, asked: impl Iterator<Item = Asked<'a>>) {
        let (mut endpoints, mut policies) = (BTreeSet::new(), BTreeSet::new());
        for Asked { endpoint, checks, .. } in asked {
            endpoints.insert(endpoint);
            for tier in &checks.tiers {
                policies
                    .extend(tier.policies.iter().map(|policy| (tier.name.as_str(), policy.name.as_str())));
                policies.insert((&tier.name, ""));
            }
            if let AfterTiers::Profiles(profiles) = &checks.after {
                policies.extend(profiles.iter().map(|profile| (policy_log::PROFILES, profile.name.as_str())));
            }
        }
        policies.insert((policy_log::PROFILES, ""));
        self.sides.retain(|side, sums| {
            sums.retain(|name, _| policies.contains(&(&name.tier, &name.policy)));
            endpoints.contains(&side.endpoint) && !sums.is_empty()
        });
        self.totals.retain(|total, _| policies.contains(&(&total.tier, &total.policy)));
    }

    /// What was decided by each rule of `asked`, in the order in which they are asked; of rules that decided nothing only
    /// with `all`.
    fn rows<'a>(&self, asked: impl Iterator<Item = Asked<'a>>, all: bool) -> PolicyStatus {
        let mut status = PolicyStatus { uncounted: self.uncounted(), ..PolicyStatus::default() };
        for Asked { endpoint, is_ingress, is_staged, checks } in asked {
            let side = Side { endpoint, is_ingress, is_staged };
            let sums = self.sides.get(&side);
            if sums.is_none() && !all {
                continue;
            }
            for name in steps(checks).filter_map(|step| policy_log::name_of(checks, step)) {
                let sum = sums.and_then(|sums| sums.get(&name)).copied();
                if sum.is_none() && !all {
                    continue;
                }
                if status.rules.len() >= ROWS {
                    status.left_out += 1;
                    continue;
                }
                status.rules.push(row(&side, name, sum.unwrap_or_default()));
            }
        }
        status
    }

    fn uncounted(&self) -> u64 {
        self.left_out + self.report.uncounted()
    }

    fn numbers(&self) -> PolicyNumbers {
        let total = |(total, sum): (&Total, &Sum)| PolicyTotal {
            tier: total.tier.clone(),
            policy: total.policy.clone(),
            direction: direction(total.is_ingress),
            action: total.action.clone(),
            staged: total.is_staged,
            packets: sum.all.packets,
            bytes: sum.all.bytes,
            would_deny_packets: sum.would_deny.packets,
        };
        PolicyNumbers { totals: self.totals.iter().map(total).collect(), uncounted: self.uncounted() }
    }
}

impl Sum {
    fn add(&mut self, judged: Judged, new: RuleCount) {
        let Sum { all, would_deny } = self;
        for sum in [Some(all), (judged == Judged::WouldBeDenied).then_some(would_deny)].into_iter().flatten()
        {
            sum.packets += new.packets;
            sum.bytes += new.bytes;
        }
    }
}

impl Core {
    /// Brings the sums up to date. Call it before rules or ports change, as the numbers then mean others.
    pub(crate) fn sum_up_policy(&mut self) {
        let writer = self.installer.writer();
        self.policy_counts.sum_up(writer);
    }

    /// Forgets what is counted of workloads and policies that are gone.
    pub(crate) fn forget_policy_counts(&mut self) {
        self.policy_counts.keep(self.workload_policy.asked());
    }

    /// What the rules of workloads' policy have decided. `endpoint`: its name, with or without its namespace.
    pub(crate) fn policy_status(&self, endpoint: Option<&str>, all: bool) -> PolicyStatus {
        let is_meant = |name: &str| {
            endpoint.is_none_or(|endpoint| {
                name == endpoint || name.split_once('/').is_some_and(|(_, name)| name == endpoint)
            })
        };
        let asked = || self.workload_policy.asked().filter(|asked| is_meant(&asked.endpoint));
        let mut status = self.policy_counts.rows(asked().filter(|asked| !asked.is_staged), all);
        status.closed = self.workload_policy.closed().filter(|name| is_meant(name)).collect();
        status.known = asked().next().is_some();
        self.put_into_words(&mut status, false);
        status
    }

    /// Puts rules into words, and says whose they are.
    fn put_into_words(&self, status: &mut PolicyStatus, is_staged: bool) {
        for row in &mut status.rules {
            let PolicyRuleStatus { tier, policy, rule, direction, .. } = &*row;
            let name =
                RuleName { tier: tier.clone(), policy: policy.clone(), rule: *rule, action: String::new() };
            let (text, staged) = (
                self.rule_text(&name, direction == "ingress", is_staged),
                is_staged
                    && self
                        .resolver
                        .policy(tier, policy, true)
                        .is_some_and(|policy| policy.key.kind.is_staged()),
            );
            (row.text, row.staged) = (text, staged);
        }
    }

    /// What the rules of staged policy have decided, and what they would have denied.
    pub(crate) fn staged_status(&self) -> PolicyStatus {
        let asked = || self.workload_policy.asked().filter(|asked| asked.is_staged);
        let mut status = self.policy_counts.rows(asked(), false);
        status.known = asked().next().is_some();
        self.put_into_words(&mut status, true);
        status
    }

    /// A rule as its resource has it. `is_staged`: of those that would be asked if staged policies were enforced.
    pub(crate) fn rule_text(&self, name: &RuleName, is_ingress: bool, is_staged: bool) -> Option<String> {
        let (ingress, egress) = if name.tier == policy_log::PROFILES {
            let profile = self.resolver.profile(&name.policy)?;
            (&profile.ingress, &profile.egress)
        } else {
            let policy = self.resolver.policy(&name.tier, &name.policy, is_staged)?;
            (&policy.ingress, &policy.egress)
        };
        let rules = if is_ingress { ingress } else { egress };
        rules.get(name.rule?).map(policy::rule_text)
    }

    pub(crate) fn policy_numbers(&self) -> PolicyNumbers {
        self.policy_counts.numbers()
    }
}

/// Whose rule it is: the workload's behind the port, or that of the host endpoint that the port is.
pub(crate) fn endpoint_of(writer: &Writer, decided: Decided) -> Option<&str> {
    if decided.port == TUNNELS {
        return writer.staged().policy.host_endpoints().every.as_deref();
    }
    let port = writer.staged().ports.get(decided.port)?;
    match is_host_endpoints(writer, decided) {
        true => writer.staged().policy.host_endpoints().at(port),
        false => port.endpoint.as_ref().map(|endpoint| endpoint.name.as_str()),
    }
}

/// Is it a rule that a host endpoint's port is asked?
fn is_host_endpoints(writer: &Writer, decided: Decided) -> bool {
    let of = writer.staged().policy.of_host(decided.port);
    let asked =
        if decided.is_ingress { [of.ingress, of.pre_dnat, of.untracked] } else { [of.egress, None, None] };
    decided.judged == Judged::Enforced && asked.contains(&Some(decided.rule.program()))
}

/// Is the rule one of those that the port is asked now?
fn is_asked(writer: &Writer, decided: Decided) -> bool {
    if is_host_endpoints(writer, decided) {
        return true;
    }
    let of = writer.staged().policy.of(decided.port);
    let program = match (decided.judged, decided.is_ingress) {
        (Judged::Enforced, true) => of.ingress,
        (Judged::Enforced, false) => of.egress,
        (Judged::Staged | Judged::WouldBeDenied, true) => of.staged_ingress,
        (Judged::Staged | Judged::WouldBeDenied, false) => of.staged_egress,
    };
    program == Some(decided.rule.program())
}

/// All that may decide, in the order in which it is asked.
fn steps(checks: &Checks) -> impl Iterator<Item = Step> {
    let tiers = checks.tiers.iter().enumerate().flat_map(|(number, tier)| {
        let rules = tier.policies.iter().enumerate().flat_map(move |(policy, asked)| {
            let step = move |(rule, is): (usize, &policy::rule::Rule)| Step::Rule {
                tier: number,
                policy,
                rule,
                action: is.action,
            };
            asked.rules.iter().enumerate().map(step)
        });
        let end =
            (!tier.policies.is_empty()).then_some(Step::TierDefault { tier: number, default: tier.default });
        rules.chain(end)
    });
    let (profiles, end) = match &checks.after {
        AfterTiers::Profiles(profiles) => (profiles.as_slice(), Step::NoProfile),
        AfterTiers::NoMatch => (&[][..], Step::NoMatch),
    };
    let profiles = profiles.iter().enumerate().flat_map(|(profile, asked)| {
        let step = move |(rule, is): (usize, &policy::rule::Rule)| Step::Profile {
            profile,
            rule,
            action: is.action,
        };
        asked.rules.iter().enumerate().map(step)
    });
    tiers.chain(profiles).chain([end])
}

fn row(side: &Side, name: RuleName, sum: Sum) -> PolicyRuleStatus {
    let direction = direction(side.is_ingress);
    let what = what(&name, side.is_ingress);
    PolicyRuleStatus {
        endpoint: side.endpoint.clone(),
        direction,
        tier: name.tier,
        policy: name.policy,
        rule: name.rule,
        what,
        action: name.action,
        text: None,
        staged: false,
        packets: sum.all.packets,
        bytes: sum.all.bytes,
        would_deny_packets: sum.would_deny.packets,
        would_deny_bytes: sum.would_deny.bytes,
    }
}

/// Where a rule stands in its resource, or what decided in place of one.
pub(crate) fn what(name: &RuleName, is_ingress: bool) -> String {
    match name.rule {
        Some(rule) => format!("{}[{rule}]", direction(is_ingress)),
        None if name.tier == policy_log::PROFILES => "no profile".to_owned(),
        None => "end of tier".to_owned(),
    }
}

fn direction(is_ingress: bool) -> String {
    if is_ingress { "ingress" } else { "egress" }.to_owned()
}

#[cfg(test)]
mod tests;

//! Tells an operator what policy does: a line for each packet that met a rule with action Log, or that was denied, and sums by
//! rule.
//!
//! Lines are limited, as a flood would fill a disk: to what FelixConfiguration says of rules that log (`logActionRateLimit`),
//! else to some a second. What comes above the limit is counted, and told with the next line. The workers' queue has a size,
//! too; what it lost is told alike. Sums are kept by the names of tier, policy and rule, as the
//! numbers that workers count by are given to other rules once theirs are gone.

use std::collections::{BTreeMap, HashMap};
use std::time::Instant;

use policy::compile::{RuleId, Upper};
use policy::judge::Step;
use policy::rule::{AfterTiers, Checks};
use tables::{PolicyAct, PolicyEvent, PolicyReport, RuleCount, Writer};
use tracing::{debug, info, warn};

use crate::calico::Felix;
use crate::event_loop::Core;

/// Lines a second, and lines at once, where nothing is said.
const LINES: (f64, f64) = (10.0, 100.0);
/// Events taken in a turn.
const EVENTS: usize = 512;
/// Rules whose sums are kept: those of all policies that a node may have at a time, and of some that it had.
const SUMS: usize = 65_536;

/// A rule as an operator knows it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct RuleName {
    /// The tier; `profiles` for those that are asked after all tiers.
    pub(crate) tier: String,
    /// The policy or profile; empty for what holds where none decides.
    pub(crate) policy: String,
    /// The rule's number in the policy, from 0, or `default`.
    pub(crate) rule: String,
    /// `allow`, `deny`, `pass` or `log`.
    pub(crate) action: String,
}

/// What is known of policy's doings.
pub(crate) struct PolicyLog {
    report: PolicyReport,
    /// What each worker's rows said when they were read last, summed.
    read: HashMap<RuleId, RuleCount>,
    sums: BTreeMap<RuleName, RuleCount>,
    lines: Lines,
    prefix: String,
    lost: u64,
}

/// A bucket of lines.
struct Lines {
    /// A second.
    rate: f64,
    most: f64,
    left: f64,
    since: Instant,
    suppressed: u64,
}

impl Lines {
    fn new((rate, most): (f64, f64), since: Instant) -> Lines {
        Lines { rate, most, left: most, since, suppressed: 0 }
    }

    /// May one more be written now? Then so many were not since the last one.
    fn take(&mut self, now: Instant) -> Option<u64> {
        let earned = now.saturating_duration_since(self.since).as_secs_f64() * self.rate;
        (self.left, self.since) = ((self.left + earned).min(self.most), now);
        if self.left < 1.0 {
            self.suppressed += 1;
            return None;
        }
        self.left -= 1.0;
        Some(std::mem::take(&mut self.suppressed))
    }
}

impl PolicyLog {
    pub(crate) fn new(report: PolicyReport) -> PolicyLog {
        let lines = Lines::new(LINES, Instant::now());
        PolicyLog {
            report,
            read: HashMap::new(),
            sums: BTreeMap::new(),
            lines,
            prefix: String::new(),
            lost: 0,
        }
    }

    /// Takes over what FelixConfiguration says of lines.
    pub(crate) fn obey(&mut self, felix: &Felix) {
        let asked = felix.log_rate.map(|rate| {
            let a_second = f64::from(rate.packets) / rate.per.as_secs_f64().max(1.0);
            (a_second, f64::from(felix.log_burst).max(1.0))
        });
        (self.lines.rate, self.lines.most) = asked.unwrap_or(LINES);
        self.prefix.clone_from(&felix.log_prefix);
    }

    /// Reads the workers' counts and adds what is new to the sums.
    fn sum_up(&mut self, writer: &Writer) {
        let mut now: HashMap<RuleId, RuleCount> = HashMap::new();
        for (rule, count) in self.report.counts() {
            let sum = now.entry(rule).or_default();
            (sum.packets, sum.bytes) = (sum.packets + count.packets, sum.bytes + count.bytes);
        }
        for (rule, count) in &now {
            let before = self.read.get(rule).copied().unwrap_or_default();
            if *count == before {
                continue;
            }
            let Some(name) = name(writer, *rule) else { continue };
            if self.sums.len() >= SUMS && !self.sums.contains_key(&name) {
                continue;
            }
            let sum = self.sums.entry(name).or_default();
            sum.packets += count.packets.saturating_sub(before.packets);
            sum.bytes += count.bytes.saturating_sub(before.bytes);
        }
        self.read = now;
    }

    fn tell(&mut self, event: &PolicyEvent, port: &str, writer: &Writer, now: Instant) {
        let Some(suppressed) = self.lines.take(now) else { return };
        let lost = self.report.lost() - std::mem::replace(&mut self.lost, self.report.lost());
        if suppressed + lost > 0 {
            warn!(suppressed, lost, "more packets met policy's rules than are told of");
        }
        let RuleName { tier, policy, rule, action } = name(writer, event.rule).unwrap_or_else(gone);
        let direction = if event.is_ingress { "ingress" } else { "egress" };
        let packet = described(event);
        match event.act {
            PolicyAct::Logged => {
                info!(port, direction, tier, policy, rule, packet, "{}: a rule logs", self.prefix);
            }
            PolicyAct::Denied => {
                debug!(port, direction, tier, policy, rule, action, packet, "policy denies");
            }
            PolicyAct::WouldBeDenied => {
                debug!(port, direction, tier, policy, rule, action, packet, "staged policy would deny");
            }
        }
    }
}

impl Core {
    /// Tells of what policy has done since the last time.
    pub(crate) fn tell_of_policy(&mut self) {
        let now = Instant::now();
        for _ in 0..EVENTS {
            let Some(event) = self.policy_log.report.next_event() else { break };
            let writer = self.installer.writer();
            let ports = std::sync::Arc::clone(&writer.staged().ports);
            let port = ports.get(event.port).map_or("", |port| &port.name);
            self.policy_log.tell(&event, port, writer, now);
        }
    }

    /// Brings the sums by rule up to date. Call it before rules change, as the numbers then mean others.
    pub(crate) fn sum_up_policy(&mut self) {
        let writer = self.installer.writer();
        self.policy_log.sum_up(writer);
    }
}

/// What an event's rule was, where it isn't there any more.
fn gone() -> RuleName {
    let [tier, policy, rule, action] = ["", "", "", ""].map(str::to_owned);
    RuleName { tier, policy, rule, action }
}

/// The rule with this number.
fn name(writer: &Writer, rule: RuleId) -> Option<RuleName> {
    let (checks, step) = writer.step(rule)?;
    name_of(checks, step)
}

fn name_of(checks: &Checks, step: Step) -> Option<RuleName> {
    let lower = |value: &dyn std::fmt::Debug| format!("{value:?}").to_lowercase();
    let (tier, policy, rule, action) = match step {
        Step::Rule { tier, policy, rule, action } => {
            let tier = checks.tiers.get(tier)?;
            (tier.name.as_str(), tier.policies.get(policy)?.name.as_str(), rule.to_string(), lower(&action))
        }
        Step::TierDefault { tier, default } => {
            (checks.tiers.get(tier)?.name.as_str(), "", "default".to_owned(), lower(&default))
        }
        Step::Profile { profile, rule, action } => {
            let AfterTiers::Profiles(profiles) = &checks.after else { return None };
            ("profiles", profiles.get(profile)?.name.as_str(), rule.to_string(), lower(&action))
        }
        Step::NoProfile => ("profiles", "", "default".to_owned(), "deny".to_owned()),
        Step::NoMatch => ("", "", "default".to_owned(), "none".to_owned()),
    };
    let [tier, policy] = [tier, policy].map(str::to_owned);
    Some(RuleName { tier, policy, rule, action })
}

/// Addresses, protocol and ports, as people write them.
fn described(event: &PolicyEvent) -> String {
    let asked = policy::judge::Packet::from(&event.packet);
    let upper = match event.packet.upper {
        Upper::Nothing => String::new(),
        Upper::Ports { source, destination } => format!(" ports {source} -> {destination}"),
        Upper::Icmp { icmp_type, code } => format!(" type {icmp_type} code {code}"),
    };
    format!("{} -> {} protocol {}{upper}", asked.source, asked.destination, asked.protocol)
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::{Family, IfIndex, MacAddr, PortId, PortKind};
    use policy::compile::Packet;
    use policy::rule::{Action, Policy, Rule, Tier, TierDefault};
    use std::sync::Arc;
    use std::time::Duration;
    use tables::{Endpoint, EndpointPolicy, Limits, PolicyLimits, Port, PortPolicy};

    fn checks(policy: &str) -> Arc<Checks> {
        let rules = vec![Rule::any(Action::Log), Rule::any(Action::Deny)];
        let policies = vec![Arc::new(Policy { name: policy.to_owned(), rules })];
        let tiers = vec![Tier { name: "default".to_owned(), policies, default: TierDefault::Deny }];
        Arc::new(Checks { tiers, after: AfterTiers::Profiles(vec![]) })
    }

    fn writer(policy: &str) -> Writer {
        let policy_limits = PolicyLimits { programs: 4, rules: 20, members: 8, bytes: 1 << 20 };
        let mut writer = Writer::new(Limits {
            ports: 8,
            adjacencies: 4,
            groups: 4,
            routes_v4: 10,
            routes_v6: 10,
            policy: policy_limits,
            readers: 1,
        });
        let endpoint = Endpoint { name: "ns/a".to_owned(), addresses: vec![], qos: None };
        writer
            .put_port(Port {
                id: PortId(1),
                name: "cali1".to_owned(),
                ifindex: IfIndex(2),
                kind: PortKind::Workload,
                mac: MacAddr::default(),
                mtu: 1500,
                up: true,
                queues: 1,
                endpoint: Some(endpoint),
            })
            .unwrap();
        let policy = EndpointPolicy { ingress: Some(checks(policy)), ..EndpointPolicy::default() };
        writer.put_policy("ns/a", &policy).unwrap();
        writer.publish();
        writer
    }

    fn packet() -> Packet {
        Packet {
            source: 0x0a00_0001,
            destination: 0x0a00_0002,
            family: Family::V4,
            protocol: 6,
            upper: Upper::Ports { source: 1, destination: 80 },
        }
    }

    /// The rule that decides, by its number.
    fn decides(writer: &Writer) -> RuleId {
        let policy = &writer.staged().policy;
        let PortPolicy { ingress: Some(program), .. } = policy.of(PortId(1)) else { panic!("a policy") };
        policy.judge(program, &packet()).rule
    }

    #[test]
    fn sums_are_kept_by_name_though_numbers_change_hands() {
        let report = PolicyReport::new(2, 16, 4);
        let mut log = PolicyLog::new(report.clone());
        let first = writer("a");
        report.count(0, decides(&first), 100);
        report.count(1, decides(&first), 60);
        log.sum_up(&first);
        let second = writer("b");
        assert_eq!(decides(&first), decides(&second), "the same number");
        report.count(0, decides(&second), 1);
        log.sum_up(&second);
        log.sum_up(&second);
        let sums: Vec<_> =
            log.sums.iter().map(|(name, sum)| (name.policy.as_str(), sum.packets, sum.bytes)).collect();
        assert_eq!(sums, [("a", 2, 160), ("b", 1, 1)]);
        let name = log.sums.keys().next().unwrap();
        assert_eq!((name.tier.as_str(), name.rule.as_str(), name.action.as_str()), ("default", "1", "deny"));
    }

    #[test]
    fn lines_above_the_limit_are_counted_and_come_back_with_time() {
        let start = Instant::now();
        let mut lines = Lines::new((2.0, 5.0), start);
        let written = (0..12).filter(|_| lines.take(start).is_some()).count();
        assert_eq!((written, lines.suppressed), (5, 7));
        assert_eq!(lines.take(start + Duration::from_secs(1)), Some(7));
        assert_eq!(lines.take(start + Duration::from_secs(1)), Some(0));
    }

    #[test]
    fn a_packet_is_described_as_people_write_it() {
        let event = PolicyEvent {
            act: PolicyAct::Logged,
            rule: RuleId(0),
            port: PortId(1),
            is_ingress: true,
            packet: packet(),
        };
        assert_eq!(described(&event), "10.0.0.1 -> 10.0.0.2 protocol 6 ports 1 -> 80");
        let none = name_of(&checks("a"), Step::NoProfile).unwrap();
        assert_eq!((none.tier.as_str(), none.rule.as_str()), ("profiles", "default"));
    }
}

//! Tells an operator what policy does: a line for each packet that met a rule with action Log, or that was denied.
//!
//! Lines are limited, as a flood would fill a disk: to what FelixConfiguration says of rules that log (`logActionRateLimit`),
//! else to some a second. What comes above the limit is counted, and told with the next line. The workers' queue has a size,
//! too; what it lost is told alike.

use std::time::Instant;

use policy::compile::{RuleId, Upper};
use policy::judge::Step;
use policy::rule::{AfterTiers, Checks};
use tables::{PolicyAct, PolicyEvent, PolicyReport, Writer};
use tracing::{debug, info, warn};

use crate::calico::Felix;
use crate::event_loop::Core;
use crate::log_prefix::log_prefix;

/// Lines a second, and lines at once, where nothing is said.
const LINES: (f64, f64) = (10.0, 100.0);
/// Events taken in a turn.
const EVENTS: usize = 512;

/// The tier that profiles are told under.
pub(crate) const PROFILES: &str = "profiles";

/// A rule as an operator knows it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct RuleName {
    /// The tier; `profiles` for those that are asked after all tiers.
    pub(crate) tier: String,
    /// The policy or profile; empty for what holds where none decides.
    pub(crate) policy: String,
    /// The rule's number in the policy, from 0; absent of what holds where no rule decides.
    pub(crate) rule: Option<usize>,
    /// `allow`, `deny`, `pass` or `log`.
    pub(crate) action: String,
}

/// What is known of policy's doings.
pub(crate) struct PolicyLog {
    report: PolicyReport,
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
        PolicyLog { report, lines, prefix: String::new(), lost: 0 }
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

    fn tell(&mut self, event: &PolicyEvent, port: &str, writer: &Writer, now: Instant) {
        let Some(suppressed) = self.lines.take(now) else { return };
        let lost = self.report.lost() - std::mem::replace(&mut self.lost, self.report.lost());
        if suppressed + lost > 0 {
            warn!(suppressed, lost, "more packets met policy's rules than are told of");
        }
        let RuleName { tier, policy, rule, action } = name(writer, event.rule).unwrap_or_else(gone);
        let rule = rule.map_or_else(|| "default".to_owned(), |rule| rule.to_string());
        let direction = if event.is_ingress { "ingress" } else { "egress" };
        let packet = described(event);
        match event.act {
            PolicyAct::Logged => {
                let of_policy = Some(tier.as_str()).filter(|tier| *tier != PROFILES);
                let prefix = log_prefix(&self.prefix, of_policy, &policy);
                info!(port, direction, tier, policy, rule, packet, "{prefix}: a rule logs");
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
}

/// What an event's rule was, where it isn't there any more.
fn gone() -> RuleName {
    let [tier, policy, action] = ["", "", ""].map(str::to_owned);
    RuleName { tier, policy, rule: None, action }
}

/// The rule with this number.
pub(crate) fn name(writer: &Writer, rule: RuleId) -> Option<RuleName> {
    let (checks, step) = writer.step(rule)?;
    name_of(checks, step)
}

pub(crate) fn name_of(checks: &Checks, step: Step) -> Option<RuleName> {
    let lower = |value: &dyn std::fmt::Debug| format!("{value:?}").to_lowercase();
    let (tier, policy, rule, action) = match step {
        Step::Rule { tier, policy, rule, action } => {
            let tier = checks.tiers.get(tier)?;
            (tier.name.as_str(), tier.policies.get(policy)?.name.as_str(), Some(rule), lower(&action))
        }
        Step::TierDefault { tier, default } => {
            (checks.tiers.get(tier)?.name.as_str(), "", None, lower(&default))
        }
        Step::Profile { profile, rule, action } => {
            let AfterTiers::Profiles(profiles) = &checks.after else { return None };
            (PROFILES, profiles.get(profile)?.name.as_str(), Some(rule), lower(&action))
        }
        Step::NoProfile => (PROFILES, "", None, "deny".to_owned()),
        Step::NoMatch => ("", "", None, "none".to_owned()),
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
    use model::{Family, PortId};
    use policy::compile::Packet;
    use policy::rule::{Action, Policy, Rule, Tier, TierDefault};
    use std::sync::Arc;
    use std::time::Duration;

    fn checks(policy: &str) -> Arc<Checks> {
        let rules = vec![Rule::any(Action::Log), Rule::any(Action::Deny)];
        let policies = vec![Arc::new(Policy { name: policy.to_owned(), rules })];
        let tiers = vec![Tier { name: "default".to_owned(), policies, default: TierDefault::Deny }];
        Arc::new(Checks { tiers, after: AfterTiers::Profiles(vec![]) })
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
        assert_eq!((none.tier.as_str(), none.rule), ("profiles", None));
    }
}

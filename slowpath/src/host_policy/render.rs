//! From policy to chains: pure, and the same for the same policy.

mod dispatch;
mod names;

use std::collections::{BTreeMap, BTreeSet};

use model::{DenyAction, Family, Prefix};
use policy::rule::{Action, AfterTiers, Checks, Policy, Rule, SetId, Tier, TierDefault};
use policy::sets::Member;

use super::members;
use super::ruleset::{About, Chain, Counts, Line, Ruleset, Set, quotable};
use super::{HostPolicy, Sets, Settings, matching};
use crate::log_prefix::log_prefix;

/// Bit of the packet's mark: policy before connections or translation has allowed it, so nothing more is asked. Felix's
/// default mask has it too (`nftablesMarkMask`, 0xffff0000).
const ACCEPTED: u32 = 0x10000;
/// Bit of the packet's mark: the tier at hand has passed it on.
const PASSED: u32 = 0x20000;

/// A table, and what it leaves out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rendering {
    /// What nft gets.
    pub ruleset: Ruleset,
    /// What of the policy can't be kept, and why.
    pub problems: Vec<String>,
}

/// When something is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// Before connections are looked at.
    Untracked,
    /// Before destinations are translated.
    PreDnat,
    /// Of what is forwarded.
    Forward,
    /// Of what the host gets and sends.
    Normal,
    /// The same, of what translation has sent elsewhere: on the way out, where nothing can be rejected any more.
    Translated,
}

/// Which way a packet goes, as the host sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Direction {
    /// To the host.
    Ingress,
    /// From it.
    Egress,
}

impl Class {
    fn name(self) -> &'static str {
        match self {
            Class::Untracked => "untracked",
            Class::PreDnat => "pre-dnat",
            Class::Forward => "forward",
            Class::Normal => "normal",
            Class::Translated => "translated",
        }
    }

    fn allow(self) -> String {
        match self {
            Class::Untracked => format!("notrack meta mark set meta mark | {ACCEPTED:#x} accept"),
            Class::PreDnat => format!("meta mark set meta mark | {ACCEPTED:#x} accept"),
            Class::Forward | Class::Normal | Class::Translated => "accept".to_owned(),
        }
    }

    fn deny(self, settings: &Settings) -> &'static str {
        match (self, settings.deny) {
            (Class::Forward | Class::Normal, DenyAction::Reject) => "reject",
            _ => "drop",
        }
    }

    /// The class whose policies' chains do for this one, too.
    fn of_chains(self, settings: &Settings) -> Class {
        match (self, settings.deny) {
            (Class::Forward, _) | (Class::Translated, DenyAction::Drop) => Class::Normal,
            (class, _) => class,
        }
    }
}

impl Direction {
    fn name(self) -> &'static str {
        match self {
            Direction::Ingress => "ingress",
            Direction::Egress => "egress",
        }
    }

    /// Short, for names of chains.
    fn word(self) -> &'static str {
        match self {
            Direction::Ingress => "in",
            Direction::Egress => "out",
        }
    }
}

/// The whole table; without endpoints there is nothing in it.
pub fn render(policy: &HostPolicy) -> Rendering {
    let mut renderer = Renderer::new(&policy.settings);
    let problems = dispatch::all(&mut renderer, policy);
    Rendering { ruleset: renderer.finish(&policy.sets), problems }
}

/// Has it an opinion about any packet?
fn says_something(checks: &Checks) -> bool {
    checks.after != AfterTiers::NoMatch || checks.tiers.iter().any(|tier| !tier.policies.is_empty())
}

/// Chains as they grow.
pub struct Renderer<'a> {
    settings: &'a Settings,
    chains: BTreeMap<String, Chain>,
    sets: BTreeMap<String, Set>,
    nets: BTreeSet<SetId>,
    ports: BTreeSet<SetId>,
}

impl<'a> Renderer<'a> {
    /// Nothing yet.
    pub fn new(settings: &'a Settings) -> Renderer<'a> {
        Renderer {
            settings,
            chains: BTreeMap::new(),
            sets: BTreeMap::new(),
            nets: BTreeSet::new(),
            ports: BTreeSet::new(),
        }
    }

    /// The chains, and the sets that they refer to.
    pub fn finish(mut self, sets: &Sets) -> Ruleset {
        for family in [Family::V4, Family::V6] {
            let members = |id: &SetId| sets.get(id).into_iter().flatten();
            for id in &self.nets {
                self.sets.insert(matching::nets_name(*id, family), members::nets(members(id), family));
            }
            for id in &self.ports {
                self.sets.insert(matching::ports_name(*id, family), members::ports(members(id), family));
            }
        }
        Ruleset { sets: self.sets, chains: self.chains }
    }

    /// Adds a set that isn't a rule's: `NAME4` and `NAME6`.
    fn add_nets(&mut self, name: &str, nets: &[Prefix]) {
        for family in [Family::V4, Family::V6] {
            let members: Vec<Member> = nets.iter().copied().map(Member::Net).collect();
            self.sets
                .insert(format!("{name}{}", matching::digit(family)), members::nets(members.iter(), family));
        }
    }

    /// Adds a chain, whose name is taken by no other.
    pub fn add(
        &mut self,
        name: impl Into<String>,
        hook: Option<&'static str>,
        about: About,
        lines: Vec<Line>,
    ) {
        self.chains.insert(name.into(), Chain { hook, about, lines });
    }

    /// What checks ask, as the lines of a chain. What they have no opinion about falls off its end.
    pub fn checks(&mut self, checks: &Checks, class: Class, direction: Direction) -> Vec<Line> {
        let deny = class.deny(self.settings);
        let mut lines = Vec::new();
        for tier in checks.tiers.iter().filter(|tier| !tier.policies.is_empty()) {
            self.tier(tier, class, direction, &mut lines);
        }
        if let AfterTiers::Profiles(profiles) = &checks.after {
            for profile in profiles.iter().filter(|profile| !profile.rules.is_empty()) {
                let chain = self.rules(profile, None, class, direction);
                lines.push(Line::plain(format!("jump {chain}")));
            }
            lines.push(counted("", deny, "no profile", "deny"));
        }
        lines
    }

    fn tier(&mut self, tier: &Tier, class: Class, direction: Direction, lines: &mut Vec<Line>) {
        let passes = |policy: &Policy| policy.rules.iter().any(|rule| rule.action == Action::Pass);
        let clear = Line::plain(format!("meta mark set meta mark & {:#x}", !PASSED));
        let any_passes = tier.policies.iter().any(|policy| passes(policy));
        if any_passes {
            lines.push(clear.clone());
        }
        let mut unless_passed = String::new();
        for policy in tier.policies.iter().filter(|policy| !policy.rules.is_empty()) {
            let chain = self.rules(policy, Some(&tier.name), class, direction);
            lines.push(Line::plain(format!("{unless_passed}jump {chain}")));
            if passes(policy) {
                unless_passed = format!("meta mark & {PASSED:#x} == 0 ");
            }
        }
        if tier.default == TierDefault::Deny {
            let what = format!("end of tier {}", tier.name);
            lines.push(counted(&unless_passed, class.deny(self.settings), &what, "deny"));
        }
        if any_passes {
            lines.push(clear);
        }
    }

    /// The chain of a policy, or of a profile where there is no tier; endpoints share it. Its name.
    fn rules(&mut self, policy: &Policy, tier: Option<&str>, class: Class, direction: Direction) -> String {
        let class = class.of_chains(self.settings);
        let name = policy.name.clone();
        let (kind, about) = match tier {
            Some(_) => ("policy", About::Policy { name, class: class.name(), direction: direction.name() }),
            None => ("profile", About::Profile { name, direction: direction.name() }),
        };
        let mut lines = Vec::new();
        for (number, rule) in policy.rules.iter().enumerate() {
            let (nets, ports) = matching::sets_of(rule);
            self.nets.extend(nets);
            self.ports.extend(ports);
            self.rule(number, rule, &policy.name, tier, class, &mut lines);
        }
        let chain = Chain { hook: None, about, lines };
        let class_word = if class == Class::Normal { "" } else { class.name() };
        let wanted = names::chain(&[kind, class_word, direction.word(), &policy.name]);
        // Policies of two kinds may share a name; each then has a chain of its own.
        let mut free = wanted.clone();
        let mut number = 1;
        while self.chains.get(&free).is_some_and(|other| *other != chain) {
            number += 1;
            free = format!("{wanted}-{number}");
        }
        self.chains.insert(free.clone(), chain);
        free
    }

    fn rule(
        &self,
        number: usize,
        rule: &Rule,
        policy: &str,
        tier: Option<&str>,
        class: Class,
        lines: &mut Vec<Line>,
    ) {
        let deny = class.deny(self.settings);
        let (action, verdict) = match rule.action {
            Action::Allow => ("allow", class.allow()),
            Action::Deny => ("deny", deny.to_owned()),
            Action::Pass if tier.is_none() => ("deny", deny.to_owned()),
            Action::Pass => ("pass", format!("meta mark set meta mark | {PASSED:#x} return")),
            Action::Log => ("log", self.log(policy, tier)),
        };
        for matches in matching::matches(rule) {
            let space = if matches.is_empty() { "" } else { " " };
            let text = format!("{matches}{space}counter {verdict}");
            lines.push(Line { text, counts: Some(Counts::Rule { number, action }) });
        }
    }

    /// A colon follows the prefix.
    fn log(&self, policy: &str, tier: Option<&str>) -> String {
        let prefix = log_prefix(&self.settings.log_prefix, tier, policy);
        let mut prefix = quotable(&prefix);
        prefix.truncate(LOG_PREFIX_BYTES_MAX);
        let limit = self.settings.log_rate.map(|rate| {
            let per = match rate.per.as_secs() {
                0..60 => "second",
                60..3600 => "minute",
                3600..86_400 => "hour",
                _ => "day",
            };
            format!(
                "limit rate {}/{per} burst {} packets ",
                rate.packets.max(1),
                self.settings.log_burst.max(1)
            )
        });
        format!("{}log prefix \"{prefix}: \" level info", limit.unwrap_or_default())
    }
}

/// Longest prefix of a message in bytes, without the colon and the blank (`NF_LOG_PREFIXLEN` 128, with a zero).
const LOG_PREFIX_BYTES_MAX: usize = 125;

/// A line with a counter that isn't a rule's.
fn counted(matches: &str, verdict: &str, what: &str, action: &'static str) -> Line {
    let matches = matches.trim();
    let space = if matches.is_empty() { "" } else { " " };
    Line {
        text: format!("{matches}{space}counter {verdict}"),
        counts: Some(Counts::Other { what: what.to_owned(), action }),
    }
}

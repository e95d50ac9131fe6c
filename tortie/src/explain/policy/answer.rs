//! The answer: stage by stage, tier by tier, what was asked and what decided.

use anyhow::Context as _;
use model::{Key, PolicyKey, PolicyKind, Profile, Protocol, TierDefault, Update};
use policy::judge::{self, Packet, Step, Verdict};
use policy::resolve::{EndpointPolicy, Resolver};
use policy::rule::{Action, AfterTiers, Checks};
use serde::Serialize;

use super::Direction;
use super::known::{Endpoint, Known};

/// What becomes of a packet, for people and programs.
#[derive(Debug, Serialize)]
pub(super) struct Answer {
    /// `namespace/name`, or the name of a host endpoint.
    pub(super) endpoint: String,
    /// Its kind of resource.
    pub(super) kind: &'static str,
    /// The node that it is on.
    pub(super) node: String,
    /// `ingress` or `egress`.
    pub(super) direction: &'static str,
    pub(super) packet: PacketForm,
    /// `allowed` or `denied`.
    pub(super) verdict: &'static str,
    pub(super) decided_by: Decision,
    /// What was asked, in order.
    pub(super) stages: Vec<Stage>,
    /// What it would be if staged policies were enforced, where they would change what is asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) staged: Option<Staged>,
    /// What the answer rests on that may not be so.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) notes: Vec<String>,
}

#[derive(Debug, Serialize)]
pub(super) struct PacketForm {
    pub(super) protocol: String,
    pub(super) source: String,
    pub(super) destination: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) source_port: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) destination_port: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) icmp_type: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) icmp_code: Option<u8>,
}

/// What decided.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "by", rename_all = "kebab-case")]
pub(super) enum Decision {
    /// A rule of a policy.
    Rule {
        tier: String,
        kind: &'static str,
        policy: String,
        direction: &'static str,
        #[serde(flatten)]
        rule: RuleForm,
    },
    /// No rule of a tier's policies.
    TierDefault { tier: String, action: &'static str },
    /// A rule of a profile.
    ProfileRule {
        profile: String,
        direction: &'static str,
        #[serde(flatten)]
        rule: RuleForm,
    },
    /// A profile that the files don't have.
    MissingProfile { profile: String },
    /// No rule of any profile.
    NoProfile,
    /// No policy is about what the host forwards.
    NotAsked,
}

/// A rule that matched.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct RuleForm {
    /// Counted from 0.
    pub(super) rule: usize,
    /// Where it stands in the resource.
    pub(super) field: String,
    pub(super) action: String,
    /// What it says, in short.
    pub(super) text: String,
}

/// Tiers, and what is asked after them: a workload has one stage, a host endpoint up to three.
#[derive(Debug, Serialize)]
pub(super) struct Stage {
    /// `normal`, `untracked`, `pre-dnat` or `forward`.
    pub(super) stage: &'static str,
    /// `allowed`, `denied`, or `no opinion` of one that leaves it to the next.
    pub(super) verdict: &'static str,
    pub(super) tiers: Vec<TierForm>,
    pub(super) profiles: Vec<PolicyForm>,
}

#[derive(Debug, Serialize)]
pub(super) struct TierForm {
    pub(super) tier: String,
    /// Its default action.
    pub(super) default: &'static str,
    /// As far as they were asked.
    pub(super) policies: Vec<PolicyForm>,
    /// Whether the default had to be asked for.
    pub(super) by_default: bool,
}

/// A policy or profile that was asked.
#[derive(Debug, Serialize)]
pub(super) struct PolicyForm {
    pub(super) kind: &'static str,
    pub(super) name: String,
    /// The rules that matched, in order.
    pub(super) matched: Vec<RuleForm>,
}

#[derive(Debug, Serialize)]
pub(super) struct Staged {
    pub(super) verdict: &'static str,
    pub(super) decided_by: Decision,
}

impl Answer {
    pub(super) fn is_allowed(&self) -> bool {
        self.verdict == word(Verdict::Allow)
    }
}

/// # Errors
/// The endpoint comes to nothing: no resource that was read can make it so.
pub(super) fn answer(
    known: &Known,
    endpoint: Endpoint<'_>,
    direction: Direction,
    forwarded: bool,
    packet: &Packet,
) -> anyhow::Result<Answer> {
    let mut resolver = Resolver::new(endpoint.node());
    known.all().for_each(|resource| resolver.apply(&Update::Put(resource.clone())));
    resolver.apply(&Update::InSync);
    resolver.changes();
    let policy = resolver.endpoint(&endpoint.key()).context("the endpoint isn't one of its own node")?;
    let asking = Asking { known, resolver: &resolver, direction, packet };

    let mut stages = Vec::new();
    let (mut verdict, mut decided_by) = (Verdict::Allow, Decision::NotAsked);
    for (stage, checks) in stages_of(policy, endpoint, direction, forwarded) {
        let (form, decision) = asking.stage(stage, checks);
        let said = asking.verdict(checks);
        stages.push(form);
        if said != Verdict::NoMatch {
            (verdict, decided_by) = (said, decision);
            break;
        }
    }
    let staged = match direction {
        Direction::Ingress => &policy.staged.ingress,
        Direction::Egress => &policy.staged.egress,
    };
    let staged = staged.as_ref().filter(|_| !forwarded).map(|checks| Staged {
        verdict: word(asking.verdict(checks)),
        decided_by: asking.stage("staged", checks).1,
    });
    Ok(Answer {
        endpoint: endpoint.name(),
        kind: endpoint.kind(),
        node: endpoint.node().to_owned(),
        direction: direction.name(),
        packet: PacketForm::of(packet),
        verdict: word(verdict),
        decided_by,
        stages,
        staged,
        notes: notes(&resolver, endpoint, direction, packet),
    })
}

/// What is asked, in order: what a host endpoint has before conntrack and before translation comes first.
fn stages_of<'a>(
    policy: &'a EndpointPolicy,
    endpoint: Endpoint<'_>,
    direction: Direction,
    forwarded: bool,
) -> Vec<(&'static str, &'a Checks)> {
    let of = |both: &'a policy::resolve::Directions| match direction {
        Direction::Ingress => both.ingress.as_deref(),
        Direction::Egress => both.egress.as_deref(),
    };
    let last = match endpoint {
        Endpoint::Host(_) if forwarded => ("forward", of(&policy.forward)),
        _ => ("normal", of(&policy.normal)),
    };
    let pre_dnat = policy.pre_dnat.as_deref().filter(|_| direction == Direction::Ingress);
    let all = [("untracked", of(&policy.untracked)), ("pre-dnat", pre_dnat), last];
    all.into_iter().filter_map(|(stage, checks)| Some((stage, checks?))).collect()
}

struct Asking<'a> {
    known: &'a Known,
    resolver: &'a Resolver,
    direction: Direction,
    packet: &'a Packet,
}

impl Asking<'_> {
    fn verdict(&self, checks: &Checks) -> Verdict {
        judge::judge(checks, self.packet, self.resolver.members()).verdict
    }

    /// What one stage asked, and what decided there.
    fn stage(&self, stage: &'static str, checks: &Checks) -> (Stage, Decision) {
        let judgement = judge::judge(checks, self.packet, self.resolver.members());
        let mut form =
            Stage { stage, verdict: word(judgement.verdict), tiers: Vec::new(), profiles: Vec::new() };
        let mut decision = Decision::NoProfile;
        // Every tier, policy and profile before the step that decided was asked, too.
        for step in &judgement.steps {
            match *step {
                Step::Rule { tier, policy, rule, action } => {
                    self.ask_tiers(&mut form, checks, tier, Some(policy));
                    let asked = &checks.tiers[tier];
                    let name = &asked.policies[policy].name;
                    let rule = self.rule(name, stage == "staged", rule, action);
                    let seen = form.tiers.last_mut().and_then(|tier| tier.policies.last_mut());
                    let kind = seen.as_ref().map_or("", |policy| policy.kind);
                    seen.into_iter().for_each(|policy| policy.matched.push(rule.clone()));
                    decision = Decision::Rule {
                        tier: asked.name.clone(),
                        kind,
                        policy: name.clone(),
                        direction: self.direction.name(),
                        rule,
                    };
                }
                Step::TierDefault { tier, default } => {
                    self.ask_tiers(&mut form, checks, tier, None);
                    form.tiers.iter_mut().last().into_iter().for_each(|tier| tier.by_default = true);
                    let action = default_name(default);
                    decision = Decision::TierDefault { tier: checks.tiers[tier].name.clone(), action };
                }
                Step::Profile { profile, rule, action } => {
                    self.ask_profiles(&mut form, checks, profile);
                    let Some(seen) = form.profiles.last_mut() else { continue };
                    let name = seen.name.clone();
                    decision = match self.profile_rule(&name, rule, action) {
                        Some(rule) => {
                            seen.matched.push(rule.clone());
                            Decision::ProfileRule { profile: name, direction: self.direction.name(), rule }
                        }
                        None => Decision::MissingProfile { profile: name },
                    };
                }
                Step::NoProfile => {
                    if let AfterTiers::Profiles(profiles) = &checks.after {
                        self.ask_profiles(&mut form, checks, profiles.len().wrapping_sub(1));
                    }
                    decision = Decision::NoProfile;
                }
                Step::NoMatch => {}
            }
        }
        (form, decision)
    }

    /// Puts down all tiers up to this one, and its policies up to this one, or all.
    fn ask_tiers(&self, form: &mut Stage, checks: &Checks, tier: usize, policy: Option<usize>) {
        while form.tiers.len() <= tier {
            let asked = &checks.tiers[form.tiers.len()];
            form.tiers.push(TierForm {
                tier: asked.name.clone(),
                default: default_name(asked.default),
                policies: Vec::new(),
                by_default: false,
            });
        }
        let asked = &checks.tiers[tier].policies;
        let end = policy.map_or(asked.len(), |policy| policy + 1);
        let seen = &mut form.tiers[tier].policies;
        for policy in &asked[seen.len().min(end)..end] {
            let kind = self.key(&policy.name, form.stage == "staged").kind.name();
            seen.push(PolicyForm { kind, name: policy.name.clone(), matched: Vec::new() });
        }
    }

    fn ask_profiles(&self, form: &mut Stage, checks: &Checks, last: usize) {
        let AfterTiers::Profiles(profiles) = &checks.after else { return };
        for profile in profiles.iter().take(last.wrapping_add(1)).skip(form.profiles.len()) {
            form.profiles.push(PolicyForm {
                kind: "Profile",
                name: profile.name.clone(),
                matched: Vec::new(),
            });
        }
    }

    /// The policy that is called so in checks; a staged one takes the place of the enforced one of its name.
    fn key(&self, name: &str, staged: bool) -> PolicyKey {
        let (namespace, name) = match name.split_once('/') {
            Some((namespace, name)) => (Some(namespace.to_owned()), name),
            None => (None, name),
        };
        let kinds: &[PolicyKind] = match (&namespace, staged) {
            (None, false) => &[PolicyKind::GlobalNetworkPolicy],
            (None, true) => &[PolicyKind::StagedGlobalNetworkPolicy, PolicyKind::GlobalNetworkPolicy],
            (Some(_), false) => &[PolicyKind::NetworkPolicy],
            (Some(_), true) => &[
                PolicyKind::StagedNetworkPolicy,
                PolicyKind::StagedKubernetesNetworkPolicy,
                PolicyKind::NetworkPolicy,
            ],
        };
        let keys = kinds.iter().map(|kind| PolicyKey {
            kind: *kind,
            namespace: namespace.clone(),
            name: name.to_owned(),
        });
        let mut keys: Vec<PolicyKey> = keys.collect();
        let known = keys.iter().position(|key| self.known.has(&Key::NetworkPolicy(key.clone())));
        keys.swap_remove(known.unwrap_or(0))
    }

    fn rule(&self, policy: &str, staged: bool, rule: usize, action: Action) -> RuleForm {
        let rules = self.known.rules(&self.key(policy, staged), self.direction == Direction::Egress);
        self.form(rules.get(rule).map(policy::rule_text), rule, action)
    }

    /// `None` of a profile that isn't there and denies for that.
    fn profile_rule(&self, profile: &str, rule: usize, action: Action) -> Option<RuleForm> {
        let rules = self.known.profile_rules(profile, self.direction == Direction::Egress);
        match rules {
            Some(rules) => Some(self.form(rules.get(rule).map(policy::rule_text), rule, action)),
            None if profile == Profile::DEFAULT_ALLOW => Some(self.form(None, rule, action)),
            None => None,
        }
    }

    fn form(&self, text: Option<String>, rule: usize, action: Action) -> RuleForm {
        RuleForm {
            rule,
            field: format!("spec.{}[{rule}]", self.direction.name()),
            action: action.to_string(),
            text: text.unwrap_or_else(|| action.to_string()),
        }
    }
}

impl PacketForm {
    fn of(packet: &Packet) -> PacketForm {
        PacketForm {
            protocol: Protocol(packet.protocol).to_string(),
            source: packet.source.to_string(),
            destination: packet.destination.to_string(),
            source_port: packet.ports.map(|(source, _)| source),
            destination_port: packet.ports.map(|(_, destination)| destination),
            icmp_type: packet.icmp.map(|(kind, _)| kind),
            icmp_code: packet.icmp.map(|(_, code)| code),
        }
    }
}

/// What is to be known beside the answer.
fn notes(resolver: &Resolver, endpoint: Endpoint<'_>, direction: Direction, packet: &Packet) -> Vec<String> {
    let mut notes = Vec::new();
    let (own, addr) = match direction {
        Direction::Ingress => ("--dst", packet.destination),
        Direction::Egress => ("--src", packet.source),
    };
    match endpoint {
        Endpoint::Workload(workload) if !workload.ip_networks.iter().any(|net| net.contains(addr)) => {
            notes.push(format!("{own} {addr} is none of the endpoint's own addresses"));
        }
        Endpoint::Workload(_) => {}
        Endpoint::Host(_) => {
            notes.push("failsafe ports, which pass host endpoints' policy by, aren't asked".to_owned())
        }
    }
    let problems = resolver.problems().iter();
    notes.extend(problems.map(|(key, problem)| format!("{key}: {problem}")));
    notes
}

fn word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Allow => "allowed",
        Verdict::Deny => "denied",
        Verdict::NoMatch => "no opinion",
    }
}

fn default_name(default: TierDefault) -> &'static str {
    match default {
        TierDefault::Deny => "Deny",
        TierDefault::Pass => "Pass",
    }
}

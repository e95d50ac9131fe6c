//! The answer for people.

use std::fmt::Write as _;

use super::answer::{Answer, Decision, PacketForm, PolicyForm, RuleForm};

/// The verdict first, then the way to it.
pub(super) fn table(answer: &Answer) -> String {
    let Answer { endpoint, direction, packet, verdict, decided_by, stages, staged, notes, .. } = answer;
    let mut out = String::new();
    // Writing to a String can't fail.
    let _ = writeln!(out, "{endpoint}, {direction}, {}: {verdict}", packet_text(packet));
    let _ = writeln!(out, "  {}", decision(decided_by));
    for stage in stages {
        let _ = writeln!(out);
        if stages.len() > 1 || stage.stage != "normal" {
            let _ = writeln!(out, "{} policy: {}", stage.stage, stage.verdict);
        }
        for tier in &stage.tiers {
            let _ = writeln!(out, "tier {}, default {}", tier.tier, tier.default);
            policies(&mut out, &tier.policies);
            if tier.by_default {
                let does = if tier.default == "Pass" { "passes it on" } else { "denies it" };
                let _ = writeln!(out, "  its default {does}");
            }
        }
        if !stage.profiles.is_empty() {
            let _ = writeln!(out, "profiles");
            policies(&mut out, &stage.profiles);
        }
    }
    if let Some(staged) = staged {
        let _ = writeln!(out, "\nif staged policies were enforced: {}", staged.verdict);
        let _ = writeln!(out, "  {}", decision(&staged.decided_by));
    }
    for note in notes {
        let _ = writeln!(out, "\nnote: {note}");
    }
    out
}

fn policies(out: &mut String, policies: &[PolicyForm]) {
    for policy in policies {
        let none = if policy.matched.is_empty() { ": no rule matches" } else { "" };
        let _ = writeln!(out, "  {} {}{none}", policy.kind, policy.name);
        for rule in &policy.matched {
            let _ = writeln!(out, "    {}", rule_line(rule));
        }
    }
}

fn rule_line(rule: &RuleForm) -> String {
    format!("{} matches: {}", rule.field, rule.text)
}

fn decision(decision: &Decision) -> String {
    match decision {
        Decision::Rule { tier, kind, policy, rule, .. } => {
            format!("by {} of {kind} {policy}, tier {tier}: {}", rule.field, rule.text)
        }
        Decision::TierDefault { tier, .. } => {
            format!("by the default of tier {tier}, as none of its rules decides")
        }
        Decision::ProfileRule { profile, rule, .. } => {
            format!("by {} of Profile {profile}: {}", rule.field, rule.text)
        }
        Decision::MissingProfile { profile } => format!("by Profile {profile}, which isn't there"),
        Decision::NoProfile => "as no policy and no profile allows it".to_owned(),
        Decision::NotAsked => "as no policy is about what the host forwards".to_owned(),
    }
}

fn packet_text(packet: &PacketForm) -> String {
    let PacketForm { protocol, source, destination, .. } = packet;
    let at = |addr: &str, port: Option<u16>| match port {
        Some(port) if addr.contains(':') => format!("[{addr}]:{port}"),
        Some(port) => format!("{addr}:{port}"),
        None => addr.to_owned(),
    };
    let icmp = match (packet.icmp_type, packet.icmp_code) {
        (Some(kind), Some(code)) => format!(" type {kind}, code {code},"),
        _ => String::new(),
    };
    let (from, to) = (at(source, packet.source_port), at(destination, packet.destination_port));
    format!("{protocol}{icmp} {from} -> {to}")
}

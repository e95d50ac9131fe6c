//! A rule in one line, as one would say it.

use model::{EntityRule, IcmpMatch, PolicyRule, PortMatch, Prefix};

/// Networks and ports that are written out; of more, their number is.
const WRITTEN: usize = 4;

/// `Allow TCP from role == 'frontend' to ports 80, 443`.
pub fn rule_text(rule: &PolicyRule) -> String {
    let mut words = vec![rule.action.to_string()];
    words.extend(rule.family.map(|family| family.to_string()));
    words.extend(rule.protocol.map(|protocol| protocol.to_string()));
    words.extend(rule.not_protocol.map(|protocol| format!("not {protocol}")));
    words.extend(rule.icmp.map(|icmp| format!("type {}", icmp_text(icmp))));
    words.extend(rule.not_icmp.map(|icmp| format!("not type {}", icmp_text(icmp))));
    words.extend(end("from", &rule.source));
    words.extend(end("to", &rule.destination));
    if rule.http {
        words.push("(of HTTP: never matches)".to_owned());
    }
    words.join(" ")
}

fn icmp_text(icmp: IcmpMatch) -> String {
    match icmp.code {
        Some(code) => format!("{}, code {code}", icmp.icmp_type),
        None => icmp.icmp_type.to_string(),
    }
}

/// What is asked of one end; nothing where nothing is.
fn end(preposition: &str, end: &EntityRule) -> Option<String> {
    let mut parts = Vec::new();
    let nets = |nets: &[Prefix]| list(nets.iter().map(ToString::to_string), nets.len());
    let ports = |ports: &[PortMatch]| list(ports.iter().map(ToString::to_string), ports.len());
    parts.extend(end.selector.clone());
    parts.extend(end.not_selector.as_ref().map(|selector| format!("not ({selector})")));
    parts.extend(end.namespace_selector.as_ref().map(|selector| format!("namespaces {selector}")));
    if let Some(accounts) = &end.service_accounts {
        let names =
            (!accounts.names.is_empty()).then(|| list(accounts.names.iter().cloned(), accounts.names.len()));
        let asked = names.into_iter().chain(accounts.selector.clone()).collect::<Vec<_>>();
        parts.push(format!("service accounts {}", asked.join(" with ")));
    }
    parts.extend(end.service.as_ref().map(|service| {
        let namespace = service.namespace.iter().map(|namespace| format!("{namespace}/")).collect::<String>();
        format!("service {namespace}{} (never matches)", service.name)
    }));
    parts.extend((!end.nets.is_empty()).then(|| nets(&end.nets)));
    parts.extend((!end.not_nets.is_empty()).then(|| format!("not {}", nets(&end.not_nets))));
    parts.extend((!end.ports.is_empty()).then(|| format!("ports {}", ports(&end.ports))));
    parts.extend((!end.not_ports.is_empty()).then(|| format!("not ports {}", ports(&end.not_ports))));
    (!parts.is_empty()).then(|| format!("{preposition} {}", parts.join(", ")))
}

fn list(texts: impl Iterator<Item = String>, count: usize) -> String {
    let mut written: Vec<String> = texts.take(WRITTEN).collect();
    if count > WRITTEN {
        written.push(format!("{} more", count - WRITTEN));
    }
    written.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::{Action, Protocol, ServiceAccountMatch};

    #[test]
    fn a_rule_is_said_in_one_line() {
        let mut rule = PolicyRule::any(Action::Allow);
        assert_eq!(rule_text(&rule), "Allow");
        rule.protocol = Some(Protocol::TCP);
        rule.source.selector = Some("role == 'frontend'".to_owned());
        rule.source.not_nets = vec!["10.0.0.0/8".parse().unwrap()];
        rule.destination.ports =
            vec![PortMatch::Numbers((80..=90).into()), PortMatch::Named("http".to_owned())];
        assert_eq!(
            rule_text(&rule),
            "Allow TCP from role == 'frontend', not 10.0.0.0/8 to ports 80:90, http"
        );
    }

    #[test]
    fn long_lists_are_counted() {
        let mut rule = PolicyRule::any(Action::Deny);
        rule.source.nets = (0..7).map(|n| format!("10.{n}.0.0/16").parse().unwrap()).collect();
        rule.icmp = Some(IcmpMatch { icmp_type: 3, code: Some(4) });
        let wanted = "Deny type 3, code 4 from 10.0.0.0/16, 10.1.0.0/16, 10.2.0.0/16, 10.3.0.0/16, 3 more";
        assert_eq!(rule_text(&rule), wanted);
    }

    #[test]
    fn service_accounts_and_what_never_matches_are_said() {
        let mut rule = PolicyRule::any(Action::Allow);
        rule.source.service_accounts =
            Some(ServiceAccountMatch { names: vec!["sa".to_owned()], selector: Some("has(a)".to_owned()) });
        rule.http = true;
        assert_eq!(rule_text(&rule), "Allow from service accounts sa with has(a) (of HTTP: never matches)");
    }
}

//! `tortie show host-policy`: what nftables keeps of host endpoints' policy, and what each rule has decided.

use slowpath::status::{HostPolicyStatus, HostRuleStatus};

use super::table::{self, Table};

/// Endpoints and what they are asked, then what decides; of rules that never matched only with `all`.
pub(super) fn table(status: &HostPolicyStatus, all: bool) -> String {
    let mut text = String::new();
    if let Some(refused) = &status.refused {
        text.push_str(&format!("NOT IN FORCE, an older policy is: {refused}\n\n"));
    }
    for problem in &status.problems {
        text.push_str(&format!("{problem}\n"));
    }
    if !status.problems.is_empty() {
        text.push('\n');
    }
    if status.endpoints.is_empty() {
        text.push_str("no host endpoint of this node's is in force\n");
        return text;
    }
    let mut endpoints = Table::new(&["ENDPOINT", "INTERFACE", "ASKED"]);
    for endpoint in &status.endpoints {
        endpoints.row(vec![endpoint.name.clone(), endpoint.interface.clone(), endpoint.asked.join(", ")]);
    }
    let mut rules = Table::new(&["OF", "NAME", "CLASS", "DIRECTION", "WHAT", "ACTION", "PACKETS", "BYTES"]);
    let shown = |rule: &&HostRuleStatus| all || rule.packets != Some(0);
    for rule in status.rules.iter().filter(shown) {
        let name = rule.interface.as_ref().map(|interface| format!("{} ({interface})", rule.name));
        rules.row(vec![
            rule.of.clone(),
            table::or_dash(Some(&name.unwrap_or_else(|| rule.name.clone()))),
            rule.class.clone(),
            rule.direction.clone(),
            rule.what.clone(),
            rule.action.clone(),
            rule.packets.map_or_else(|| "?".to_owned(), |packets| packets.to_string()),
            rule.bytes.map_or_else(|| "?".to_owned(), table::bytes),
        ]);
    }
    text.push_str(&endpoints.columns());
    text.push('\n');
    if rules.is_empty() {
        text.push_str("no packet has come to any of its rules yet; --all lists them\n");
    } else {
        text.push_str(&rules.columns());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use slowpath::status::HostEndpointStatus;

    fn rule(of: &str, name: &str, what: &str, action: &str, packets: u64) -> HostRuleStatus {
        HostRuleStatus {
            of: of.to_owned(),
            name: name.to_owned(),
            interface: (of == "endpoint").then(|| "eth0".to_owned()),
            class: "normal".to_owned(),
            direction: "ingress".to_owned(),
            rule: (of == "policy").then_some(0),
            what: what.to_owned(),
            action: action.to_owned(),
            packets: Some(packets),
            bytes: Some(packets * 60),
        }
    }

    #[test]
    fn each_rule_that_matched_has_a_row() {
        let status = HostPolicyStatus {
            in_force: true,
            endpoints: vec![HostEndpointStatus {
                name: "node1-eth0".to_owned(),
                interface: "eth0".to_owned(),
                asked: vec!["normal ingress".to_owned(), "normal egress".to_owned()],
            }],
            rules: vec![
                rule("before", "", "failsafe", "allow", 7),
                rule("policy", "allow-http", "rule 0", "allow", 2),
                rule("policy", "allow-http", "rule 1", "allow", 0),
                rule("endpoint", "node1-eth0", "end of tier default", "deny", 3),
            ],
            ..HostPolicyStatus::default()
        };
        assert_eq!(
            table(&status, false),
            "\
ENDPOINT     INTERFACE   ASKED
node1-eth0   eth0        normal ingress, normal egress

OF         NAME                CLASS    DIRECTION   WHAT                  ACTION   PACKETS   BYTES
before     -                   normal   ingress     failsafe              allow    7         420 B
policy     allow-http          normal   ingress     rule 0                allow    2         120 B
endpoint   node1-eth0 (eth0)   normal   ingress     end of tier default   deny     3         180 B
"
        );
        assert!(table(&status, true).contains("rule 1"));
    }

    #[test]
    fn what_is_not_in_force_is_said_first() {
        let refused = Some("nft isn't installed; install the package nftables".to_owned());
        let text = table(&HostPolicyStatus { refused, ..HostPolicyStatus::default() }, false);
        assert!(text.starts_with("NOT IN FORCE") && text.contains("nftables"), "{text}");
    }
}

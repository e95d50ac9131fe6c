//! `tortie show policy` and `tortie show staged`: what each rule of workloads' policy has decided, and what staged policy
//! would have denied.

use slowpath::status::{PolicyRuleStatus, PolicyStatus};

use super::table::{self, Table};

/// Rules that hold.
pub(super) fn table(status: &PolicyStatus) -> String {
    let mut text = String::new();
    for endpoint in &status.closed {
        text.push_str(&format!(
            "{endpoint} IS CLOSED: its policy doesn't fit the tables; the log says why\n"
        ));
    }
    if !status.known {
        text.push_str("nothing is asked of such a workload endpoint on this node: there is none, or it is allowed everything\n");
        return text;
    }
    let mut rules = Table::new(&[
        "ENDPOINT",
        "DIRECTION",
        "TIER",
        "POLICY",
        "RULE",
        "ACTION",
        "PACKETS",
        "BYTES",
        "TEXT",
    ]);
    for rule in &status.rules {
        let mut cells = named(rule);
        cells.extend([rule.packets.to_string(), table::bytes(rule.bytes), words(rule)]);
        rules.row(cells);
    }
    match rules.is_empty() {
        true => text.push_str("no rule has decided on a packet yet; --all lists them\n"),
        false => text.push_str(&rules.columns()),
    }
    text + &missing(status)
}

/// Rules that would hold.
pub(super) fn staged(status: &PolicyStatus) -> String {
    if !status.known {
        return "no staged policy would change what a workload on this node is asked\n".to_owned();
    }
    let mut rules = Table::new(&[
        "ENDPOINT",
        "DIRECTION",
        "TIER",
        "POLICY",
        "RULE",
        "ACTION",
        "PACKETS",
        "WOULD DENY",
        "BYTES",
        "STAGED",
        "TEXT",
    ]);
    for rule in &status.rules {
        let mut cells = named(rule);
        let denied = (rule.would_deny_packets.to_string(), table::bytes(rule.would_deny_bytes));
        let staged = if rule.staged { "yes" } else { "-" }.to_owned();
        cells.extend([rule.packets.to_string(), denied.0, denied.1, staged, words(rule)]);
        rules.row(cells);
    }
    let text = match rules.is_empty() {
        true => "staged policy has decided on no packet yet\n".to_owned(),
        false => rules.columns(),
    };
    text + &missing(status)
}

/// The rule in one line; what stands in place of one says all that there is to say.
fn words(rule: &PolicyRuleStatus) -> String {
    rule.text.clone().unwrap_or_default()
}

fn named(rule: &PolicyRuleStatus) -> Vec<String> {
    vec![
        rule.endpoint.clone(),
        rule.direction.clone(),
        table::or_dash(Some(&rule.tier)),
        table::or_dash(Some(&rule.policy)),
        rule.what.clone(),
        rule.action.clone(),
    ]
}

/// What the table doesn't have.
fn missing(status: &PolicyStatus) -> String {
    let mut text = String::new();
    if status.left_out > 0 {
        text.push_str(&format!("\n{} more rules; name an endpoint\n", status.left_out));
    }
    if status.uncounted > 0 {
        text.push_str(&format!(
            "\n{} packets aren't counted by rule: there were too many rules\n",
            status.uncounted
        ));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(policy: &str, what: &str, action: &str, packets: u64, would_deny: u64) -> PolicyRuleStatus {
        PolicyRuleStatus {
            endpoint: "shop/web-0".to_owned(),
            direction: "ingress".to_owned(),
            tier: "default".to_owned(),
            policy: policy.to_owned(),
            rule: (!policy.is_empty()).then_some(1),
            what: what.to_owned(),
            action: action.to_owned(),
            text: (!policy.is_empty()).then(|| "Allow TCP to ports 80".to_owned()),
            staged: !policy.is_empty(),
            packets,
            bytes: packets * 60,
            would_deny_packets: would_deny,
            would_deny_bytes: would_deny * 60,
        }
    }

    fn status() -> PolicyStatus {
        let rules =
            vec![rule("shop/web", "ingress[1]", "allow", 7, 0), rule("", "end of tier", "deny", 3, 2)];
        PolicyStatus { known: true, rules, ..PolicyStatus::default() }
    }

    #[test]
    fn each_rule_that_decided_has_a_row() {
        assert_eq!(
            table(&status()),
            "\
ENDPOINT     DIRECTION   TIER      POLICY     RULE          ACTION   PACKETS   BYTES   TEXT
shop/web-0   ingress     default   shop/web   ingress[1]    allow    7         420 B   Allow TCP to ports 80
shop/web-0   ingress     default   -          end of tier   deny     3         180 B
"
        );
    }

    #[test]
    fn staged_rules_say_what_they_would_have_denied() {
        assert_eq!(
            staged(&status()),
            "\
ENDPOINT     DIRECTION   TIER      POLICY     RULE          ACTION   PACKETS   WOULD DENY   BYTES   STAGED   TEXT
shop/web-0   ingress     default   shop/web   ingress[1]    allow    7         0            0 B     yes      Allow TCP to ports 80
shop/web-0   ingress     default   -          end of tier   deny     3         2            120 B   -
"
        );
    }

    #[test]
    fn what_the_table_lacks_is_said() {
        let closed = vec!["shop/db-0".to_owned()];
        let text = table(&PolicyStatus { left_out: 5, uncounted: 9, closed, ..status() });
        assert!(text.starts_with("shop/db-0 IS CLOSED"), "{text}");
        assert!(text.contains("5 more rules") && text.contains("9 packets aren't counted"), "{text}");
        assert!(table(&PolicyStatus::default()).starts_with("nothing is asked"));
        assert!(staged(&PolicyStatus::default()).starts_with("no staged policy"));
        let known = PolicyStatus { known: true, ..PolicyStatus::default() };
        assert!(table(&known).contains("--all"), "{}", table(&known));
    }
}

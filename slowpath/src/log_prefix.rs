//! What a line of a `Log` rule begins with: `logPrefix` of FelixConfiguration, in which words stand for the policy
//! (`felix/rules/policy.go`).

/// Where nothing is said, or that it be none.
pub(crate) const DEFAULT: &str = "calico-packet";

/// In `format`, `%t` stands for the tier, `%k` for the kind, `%p` for the policy with its namespace and `%n` for it without;
/// any other `%` is itself. `tier` is absent of a profile's rule.
pub(crate) fn log_prefix(format: &str, tier: Option<&str>, policy: &str) -> String {
    let (kind, name) = match (tier, policy.split_once('/')) {
        (None, _) => ("pro", policy),
        (Some(_), Some((_, name))) => ("np", name),
        (Some(_), None) => ("gnp", policy),
    };
    let mut parts = if format.is_empty() { DEFAULT } else { format }.split('%');
    let mut prefix = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let value = match part.chars().next() {
            Some('t') => tier.unwrap_or_default(),
            Some('k') => kind,
            Some('p') => policy,
            Some('n') => name,
            _ => {
                prefix.push('%');
                prefix.push_str(part);
                continue;
            }
        };
        prefix.push_str(value);
        prefix.push_str(&part[1..]);
    }
    prefix
}

#[cfg(test)]
mod tests {
    use super::log_prefix;

    #[test]
    fn words_stand_for_the_policy_and_a_percent_sign_else_for_itself() {
        for (format, tier, policy, prefix) in [
            ("edge", Some("default"), "web", "edge"),
            ("", Some("default"), "web", "calico-packet"),
            ("%t/%k/%n:%p", Some("site"), "web", "site/gnp/web:web"),
            ("%t/%k/%n:%p", Some("site"), "shop/web", "site/np/web:shop/web"),
            ("%t/%k/%n:%p", None, "kns.shop", "/pro/kns.shop:kns.shop"),
            ("x%%t%", Some("site"), "web", "x%site%"),
            ("%x% t", Some("site"), "web", "%x% t"),
            ("%n", Some("site"), "%t", "%t"),
        ] {
            assert_eq!(log_prefix(format, tier, policy), prefix, "{format} of {policy}");
        }
    }
}

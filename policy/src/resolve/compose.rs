//! Which endpoints a policy is about, and which ones an end of a rule means: what resources say in several fields, as one
//! selector (`libcalico-go/lib/backend/syncersv1/updateprocessors/{rules,selectors,*policyprocessor}.go`).
//!
//! A namespace's labels reach its endpoints as `pcns.…`, a service account's as `pcsa.…`. In a selector of namespaces,
//! `all()` is "in one at all" and `global()` is "in none".
//! A selector of namespaces or service accounts that can't be read is left out, as Calico does; what names it is then
//! about more than was meant, and [`Composed::left_out`] says so.

use model::{EntityRule, NetworkPolicy};

use crate::selector::{Selector, SelectorError};

/// The label of what lives in a namespace.
const NAMESPACE: &str = "projectcalico.org/namespace";
/// The label of what runs as a service account.
const SERVICE_ACCOUNT: &str = "projectcalico.org/serviceaccount";
/// Before labels of a namespace.
pub(crate) const OF_NAMESPACE: &str = "pcns.";
/// Before labels of a service account.
pub(crate) const OF_SERVICE_ACCOUNT: &str = "pcsa.";

/// A composed selector, and what was left out of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Composed<T> {
    /// The selector.
    pub selector: T,
    /// Why parts of it couldn't be read.
    pub left_out: Vec<SelectorError>,
}

/// Whom a policy is about.
///
/// # Errors
/// Its own selector can't be read.
pub fn of_policy(policy: &NetworkPolicy) -> Result<Composed<Selector>, SelectorError> {
    let mut parts = Parts { whole: parsed(&policy.selector)?, left_out: Vec::new() };
    if let Some(namespace) = &policy.key.namespace {
        parts.and(Selector::equal(NAMESPACE, namespace));
        parts.and_prefixed(policy.service_account_selector.as_deref(), OF_SERVICE_ACCOUNT);
    } else {
        let fields = [
            (&policy.namespace_selector, OF_NAMESPACE, NAMESPACE),
            (&policy.service_account_selector, OF_SERVICE_ACCOUNT, SERVICE_ACCOUNT),
        ];
        for (field, prefix, label) in fields {
            if field.is_some() {
                parts.and_prefixed(field.as_deref(), prefix);
                // Calico does so to all that was composed until here, the policy's own selector with it.
                let all = Selector::has(label);
                parts.whole = parts.whole.map(|whole| whole.with_meanings(&all, &Selector::global()));
            }
        }
    }
    Ok(Composed { selector: parts.whole.unwrap_or_else(Selector::all), left_out: parts.left_out })
}

/// Whom one end of a rule means by what it selects, `notSelector` left aside; `None` where it selects nobody in
/// particular. `namespace` is that of the rule's policy.
///
/// # Errors
/// Its own selector can't be read.
pub fn of_end(
    end: &EntityRule,
    namespace: Option<&str>,
) -> Result<Composed<Option<Selector>>, SelectorError> {
    let mut namespaces = Parts::default();
    match &end.namespace_selector {
        Some(text) => {
            namespaces.and_prefixed(Some(text), OF_NAMESPACE);
            let in_one = Selector::has(NAMESPACE);
            namespaces.whole = namespaces.whole.map(|whole| whole.with_meanings(&in_one, &in_one.negated()));
        }
        None => namespaces.whole = namespace.map(|namespace| Selector::equal(NAMESPACE, namespace)),
    }
    let mut whom = Parts::default();
    if let Some(accounts) = &end.service_accounts {
        whom.and_prefixed(accounts.selector.as_deref(), OF_SERVICE_ACCOUNT);
        if !accounts.names.is_empty() {
            whom.and(Selector::one_of(SERVICE_ACCOUNT, &accounts.names));
        }
    }
    if let Some(selector) = parsed(end.selector.as_deref().unwrap_or_default())? {
        whom.and(selector);
    }
    let selects = whom.whole.is_some() || end.not_selector.is_some() || end.namespace_selector.is_some();
    let selector = match (namespaces.whole.filter(|_| selects), whom.whole) {
        (Some(namespaces), Some(whom)) => Some(namespaces.and(&whom)),
        (namespaces, whom) => namespaces.or(whom),
    };
    Ok(Composed { selector, left_out: namespaces.left_out.into_iter().chain(whom.left_out).collect() })
}

/// A selector in the making.
#[derive(Default)]
struct Parts {
    whole: Option<Selector>,
    left_out: Vec<SelectorError>,
}

impl Parts {
    fn and(&mut self, more: Selector) {
        self.whole = Some(match &self.whole {
            Some(whole) => whole.and(&more),
            None => more,
        });
    }

    fn and_prefixed(&mut self, text: Option<&str>, prefix: &str) {
        match text.map(str::parse::<Selector>) {
            None => {}
            Some(Ok(selector)) => self.and(selector.with_prefix(prefix)),
            Some(Err(error)) => self.left_out.push(error),
        }
    }
}

/// `None` where nothing is written.
fn parsed(text: &str) -> Result<Option<Selector>, SelectorError> {
    if text.is_empty() { Ok(None) } else { text.parse().map(Some) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::{PolicyKey, PolicyKind, ServiceAccountMatch};

    fn end(edit: impl FnOnce(&mut EntityRule), namespace: Option<&str>) -> Option<String> {
        let mut end = EntityRule::default();
        edit(&mut end);
        of_end(&end, namespace).unwrap().selector.map(|selector| selector.to_string())
    }

    fn some(text: &str) -> Option<String> {
        Some(text.to_owned())
    }

    #[test]
    fn of_namespaces_all_means_in_one_and_global_means_in_none() {
        let of = |text: &str| end(|end| end.namespace_selector = some(text), Some("ns"));
        assert_eq!(of("all()"), some("has(projectcalico.org/namespace)"));
        assert_eq!(of("global()"), some("!has(projectcalico.org/namespace)"));
        assert_eq!(of("a == 'b'"), some("pcns.a == \"b\""));
    }

    #[test]
    fn a_rule_of_a_namespace_means_its_own_as_soon_as_it_selects_anything() {
        let own = "projectcalico.org/namespace == \"ns\"";
        assert_eq!(end(|_| {}, Some("ns")), None);
        assert_eq!(end(|end| end.nets = vec![model::Prefix::DEFAULT_V4], Some("ns")), None);
        assert_eq!(end(|end| end.not_selector = some("a == 'b'"), Some("ns")), some(own));
        assert_eq!(end(|end| end.selector = some("has(a)"), Some("ns")), some(&format!("({own} && has(a))")));
        assert_eq!(end(|end| end.not_selector = some("a == 'b'"), None), None);
    }

    #[test]
    fn a_global_policy_about_service_accounts_is_about_those_who_have_one() {
        let key = PolicyKey { kind: PolicyKind::GlobalNetworkPolicy, namespace: None, name: "p".to_owned() };
        let policy =
            NetworkPolicy { service_account_selector: some("all()"), ..NetworkPolicy::empty(key.clone()) };
        assert_eq!(of_policy(&policy).unwrap().selector, Selector::has("projectcalico.org/serviceaccount"));
        let key = PolicyKey { kind: PolicyKind::NetworkPolicy, namespace: some("ns"), ..key };
        let policy = NetworkPolicy { service_account_selector: some("all()"), ..NetworkPolicy::empty(key) };
        let composed = of_policy(&policy).unwrap().selector.to_string();
        assert_eq!(composed, "(projectcalico.org/namespace == \"ns\" && all())");
    }

    #[test]
    fn what_cannot_be_read_of_namespaces_and_accounts_is_left_out_and_said() {
        let bad = EntityRule {
            namespace_selector: some("a ="),
            service_accounts: Some(ServiceAccountMatch { names: Vec::new(), selector: some("b =") }),
            selector: some("has(c)"),
            ..EntityRule::default()
        };
        let composed = of_end(&bad, Some("ns")).unwrap();
        assert_eq!(composed.selector, Some(Selector::has("c")));
        assert_eq!(composed.left_out.len(), 2);
        assert!(of_end(&EntityRule { selector: some("c ="), ..EntityRule::default() }, None).is_err());
    }
}

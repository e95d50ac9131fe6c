//! GlobalNetworkPolicy, NetworkPolicy and what is staged of both (`api/pkg/apis/projectcalico/v3/`).

use model::{NetworkPolicy, PolicyKey, PolicyKind, Resource, StagedAction};

use super::rule::{self, Place};
use super::tier::order;
use super::{Identity, Outcome};
use crate::document::Content;
use crate::fields::{Fault, Object};
use crate::invalid::Reason;
use crate::metadata::{self, Naming};
use crate::validate;

const HINTS: &[&str] = &["AssumeNeededOnEveryNode"];

pub(super) fn convert(
    kind: PolicyKind,
    identity: &Identity<'_>,
    spec: &Object<'_>,
) -> Result<Outcome, Fault> {
    let naming = if kind.is_namespaced() { Naming::Policy } else { Naming::GlobalPolicy };
    naming.check(kind.name(), &identity.name_field)?;
    let mut policy = NetworkPolicy::empty(key(kind, identity));
    if let Some((field, _)) = spec.text("tier")? {
        Naming::Subdomain.check("Tier", &field)?;
        policy.tier = validate::name(&field)?;
    }
    policy.staged_action = staged_action(kind, spec)?;
    if policy.staged_action == Some(StagedAction::Delete) {
        check_says_nothing(spec, &["stagedAction", "tier"])?;
        return Ok(Outcome::of(Resource::NetworkPolicy(policy)));
    }
    policy.order = order(spec)?;
    policy.selector = validate::plain_selector(spec, "selector")?.unwrap_or_default();
    policy.service_account_selector = validate::plain_selector(spec, "serviceAccountSelector")?;
    policy.needed_everywhere = needed_everywhere(spec)?;
    if !kind.is_namespaced() {
        policy.namespace_selector = validate::plain_selector(spec, "namespaceSelector")?;
        policy.do_not_track = spec.flag("doNotTrack")?.unwrap_or(false);
        policy.pre_dnat = spec.flag("preDNAT")?.unwrap_or(false);
        policy.apply_on_forward = spec.flag("applyOnForward")?.unwrap_or(false);
    }
    let mut unused = Vec::new();
    let openstack = metadata::is_openstack_policy(&identity.name);
    let place = |ingress| Place::policy(ingress, kind.is_namespaced(), openstack);
    policy.ingress = rule::list(spec, "ingress", place(true), &mut unused)?;
    policy.egress = rule::list(spec, "egress", place(false), &mut unused)?;
    types(spec, "types", &mut policy)?;
    check_stage(spec, &policy)?;
    Ok(Outcome { unused, ..Outcome::of(Resource::NetworkPolicy(policy)) })
}

/// The name as it is written: since tiers are no longer part of names, `default.web` and `web` are two policies.
pub(super) fn key(kind: PolicyKind, identity: &Identity<'_>) -> PolicyKey {
    let namespace = kind.is_namespaced().then(|| identity.namespace.clone());
    PolicyKey { kind, namespace, name: identity.name.clone() }
}

/// What a staged policy would do; `Set` where it doesn't say, nothing for one that is enforced.
pub(super) fn staged_action(kind: PolicyKind, spec: &Object<'_>) -> Result<Option<StagedAction>, Fault> {
    if !kind.is_staged() {
        return Ok(None);
    }
    let Some((field, _)) = spec.text("stagedAction")? else { return Ok(Some(StagedAction::Set)) };
    let meanings = [StagedAction::Set, StagedAction::Delete, StagedAction::Learn, StagedAction::Ignore];
    field.one_of(&["Set", "Delete", "Learn", "Ignore"], &meanings).map(Some)
}

/// A deletion has nothing to say besides these fields.
pub(super) fn check_says_nothing(spec: &Object<'_>, besides: &[&str]) -> Result<(), Fault> {
    for (name, field) in spec.fields() {
        let says = !field.is_empty() && field.value().content != Content::Bool(false);
        if says && !besides.iter().any(|known| known.eq_ignore_ascii_case(name)) {
            return Err(field.fault(Reason::OutOfPlace("a staged policy whose stagedAction is Delete")));
        }
    }
    Ok(())
}

/// Which directions a policy is about: those given, else those that it has rules for, else ingress.
fn types(spec: &Object<'_>, name: &str, policy: &mut NetworkPolicy) -> Result<(), Fault> {
    let given = spec.field(name).filter(|field| !field.is_empty());
    let Some(list) = given else {
        policy.applies_to_egress = !policy.egress.is_empty();
        policy.applies_to_ingress = !policy.ingress.is_empty() || policy.egress.is_empty();
        return Ok(());
    };
    for item in list.items()? {
        let ingress = item.one_of(&["Ingress", "Egress"], &[true, false])?;
        let applies = if ingress { &mut policy.applies_to_ingress } else { &mut policy.applies_to_egress };
        if *applies {
            return Err(item.fault(Reason::Twice(item.text()?.to_owned())));
        }
        *applies = true;
    }
    Ok(())
}

/// Is it hinted so? There is one hint, and it stands once.
fn needed_everywhere(spec: &Object<'_>) -> Result<bool, Fault> {
    let Some(hints) = spec.field("performanceHints") else { return Ok(false) };
    let mut given = false;
    for item in hints.items()? {
        let hint = item.one_of(HINTS, HINTS)?;
        if given {
            return Err(item.fault(Reason::Twice(hint.to_owned())));
        }
        given = true;
    }
    Ok(given)
}

/// What is asked before connections are looked at, or before translation, can't be all that others can.
fn check_stage(spec: &Object<'_>, policy: &NetworkPolicy) -> Result<(), Fault> {
    let early = if policy.pre_dnat { "preDNAT" } else { "doNotTrack" };
    if policy.do_not_track && policy.pre_dnat {
        return Err(spec.required("preDNAT")?.fault(Reason::Exclusive("spec.doNotTrack")));
    }
    if (policy.do_not_track || policy.pre_dnat) && !policy.apply_on_forward {
        return Err(spec.required(early)?.fault(Reason::Needs("spec.applyOnForward: true")));
    }
    if policy.pre_dnat && (policy.applies_to_egress || !policy.egress.is_empty()) {
        let field = spec.field("egress").filter(|field| !field.is_empty()).or(spec.field("types"));
        let reason = Reason::OutOfPlace("a policy with preDNAT: it is about ingress alone");
        return Err(field.map_or(spec.required("preDNAT")?, |field| field).fault(reason));
    }
    Ok(())
}

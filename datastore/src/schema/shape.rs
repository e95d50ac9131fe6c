//! A tree that keeps its places, held to a struct: fields that it doesn't have, and values of another type. A field that
//! is misspelt says nothing of what it was meant to say: a rule without its `selector` is about everybody.

use policy::similar::nearest;

use super::{Struct, Type, scalar};
use crate::fields::{Fault, Field, Object};
use crate::invalid::Reason;

/// The first field, in the order in which they stand, that a struct or one within it doesn't have.
///
/// # Errors
/// The field, and the one that was likely meant. What isn't of its type is left to whoever reads it.
pub(crate) fn check_names(of: &'static Struct, object: &Object<'_>) -> Result<(), Fault> {
    each(of, object, &mut |_, _| Ok(()))
}

/// Besides, the first field that isn't of its type: for fields that nobody else looks at. Types with a notation of their own
/// are left to whoever reads them.
///
/// # Errors
/// The field, and what was expected.
pub(crate) fn check(of: &'static Struct, object: &Object<'_>) -> Result<(), Fault> {
    each(of, object, &mut |ty, field| match ty {
        Type::Text | Type::Time => field.text().map(drop),
        Type::Bool => field.flag().map(drop),
        Type::Int(int) => field.number::<i64>(int.min, int.max).map(drop),
        Type::Float => field.decimal().map(drop),
        Type::Duration => {
            let text = field.text()?;
            let is_good = scalar::nanoseconds(text).is_some();
            if is_good { Ok(()) } else { Err(field.fault(Reason::BadDuration(text.to_owned()))) }
        }
        Type::Struct(_) | Type::Texts => field.object().map(drop),
        Type::List(_) => field.items().map(drop),
        Type::AsNumber | Type::Port | Type::Protocol | Type::Dscp | Type::IntOrText | Type::Any => Ok(()),
    })
}

/// Asks `look` of every field of a struct and of those within it, each before its own.
fn each(
    of: &'static Struct,
    object: &Object<'_>,
    look: &mut impl FnMut(Type, &Field<'_>) -> Result<(), Fault>,
) -> Result<(), Fault> {
    for (name, field) in object.fields() {
        let Some(member) = of.members.iter().find(|member| member.name.eq_ignore_ascii_case(name)) else {
            let meant = nearest(name, of.members.iter().map(|member| member.name));
            return Err(field.fault(Reason::UnknownField { given: name.to_owned(), meant }));
        };
        within(member.ty, &field, look)?;
    }
    Ok(())
}

fn within(
    ty: Type,
    field: &Field<'_>,
    look: &mut impl FnMut(Type, &Field<'_>) -> Result<(), Fault>,
) -> Result<(), Fault> {
    look(ty, field)?;
    match ty {
        Type::Struct(of) => field.object().map_or(Ok(()), |object| each(of, &object, look)),
        Type::List(ty) => {
            field.items().map_or(Ok(()), |mut items| items.try_for_each(|item| within(*ty, &item, look)))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::ResourceKind;
    use crate::document::Value;
    use crate::schema::of;

    fn unknown(kind: ResourceKind, spec: serde_json::Value) -> Option<(String, Option<&'static str>)> {
        let tree = Value::of_json(&json!({"metadata": {"name": "x"}, "spec": spec}));
        let fault = check_names(of(kind), &Object::top(&tree).unwrap()).err()?;
        let Reason::UnknownField { meant, .. } = fault.reason else { panic!("{:?}", fault.reason) };
        Some((fault.path, meant))
    }

    #[test]
    fn a_misspelt_field_is_found_wherever_it_stands() {
        let policy = ResourceKind::NetworkPolicy;
        for (spec, path, meant) in [
            (json!({"selecter": "all()"}), "spec.selecter", Some("selector")),
            (json!({"ingres": []}), "spec.ingres", Some("ingress")),
            (json!({"preDNAT": true}), "spec.preDNAT", None),
            (
                json!({"ingress": [{"action": "Allow"}, {"action": "Allow", "souce": {}}]}),
                "spec.ingress[1].souce",
                Some("source"),
            ),
            (
                json!({"egress": [{"action": "Allow", "destination": {"port": [80]}}]}),
                "spec.egress[0].destination.port",
                Some("ports"),
            ),
            (
                json!({"egress": [{"action": "Allow", "destination": {"serviceAccounts": {"nmaes": []}}}]}),
                "spec.egress[0].destination.serviceAccounts.nmaes",
                Some("names"),
            ),
        ] {
            assert_eq!(unknown(policy, spec), Some((path.to_owned(), meant)));
        }
    }

    #[test]
    fn names_are_told_apart_as_gos_decoder_does() {
        assert_eq!(unknown(ResourceKind::Tier, json!({"Order": 1, "DEFAULTACTION": "Pass"})), None);
        // What is no struct at all is for its reader to refuse.
        assert_eq!(unknown(ResourceKind::NetworkPolicy, json!({"ingress": "all", "types": {"a": 1}})), None);
        // Labels have no names that are known.
        assert_eq!(unknown(ResourceKind::Profile, json!({"labelsToApply": {"selecter": "x"}})), None);
    }

    #[test]
    fn what_is_not_of_its_type_is_found_where_nobody_reads_it() {
        let wrong = |kind, spec: serde_json::Value| {
            let tree = Value::of_json(&json!({"spec": spec}));
            check(of(kind), &Object::top(&tree).unwrap()).err().map(|fault| fault.path)
        };
        for (kind, spec, path) in [
            (ResourceKind::FelixConfiguration, json!({"bpfEnabled": "yes"}), "spec.bpfEnabled"),
            (ResourceKind::FelixConfiguration, json!({"wireguardMTU": 1.5}), "spec.wireguardMTU"),
            (
                ResourceKind::FelixConfiguration,
                json!({"iptablesRefreshInterval": "soon"}),
                "spec.iptablesRefreshInterval",
            ),
            (ResourceKind::NetworkSet, json!({"nets": "10.0.0.0/8"}), "spec.nets"),
            (ResourceKind::NetworkSet, json!({"nets": [10]}), "spec.nets[0]"),
            (
                ResourceKind::KubeControllersConfiguration,
                json!({"controllers": {"policy": {"reconcilerPeriod": 5}}}),
                "spec.controllers.policy.reconcilerPeriod",
            ),
        ] {
            assert_eq!(wrong(kind, spec).as_deref(), Some(path));
        }
        let good =
            json!({"controllers": {"node": {"hostEndpoint": {"templates": [{"labels": {"a": "b"}}]}}}});
        assert_eq!(wrong(ResourceKind::KubeControllersConfiguration, good), None);
    }
}

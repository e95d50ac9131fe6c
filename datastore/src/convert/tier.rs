//! Tier (`api/pkg/apis/projectcalico/v3/tier.go`).

use model::{Order, Resource, Tier, TierDefault};

use super::{Identity, Outcome};
use crate::fields::{Fault, Object};
use crate::invalid::Reason;
use crate::metadata::Naming;

pub(super) fn convert(identity: &Identity<'_>, spec: &Object<'_>) -> Result<Outcome, Fault> {
    Naming::Label.check("Tier", &identity.name_field)?;
    let tier = Tier {
        name: identity.name.clone(),
        order: order(spec)?,
        default_action: match spec.text("defaultAction")? {
            Some((field, _)) => field.one_of(&["Deny", "Pass"], &[TierDefault::Deny, TierDefault::Pass])?,
            None => TierDefault::default(),
        },
    };
    check_standard(identity, spec, &tier)?;
    Ok(Outcome::of(Resource::Tier(tier)))
}

/// `spec.order` of a tier or policy.
pub(super) fn order(spec: &Object<'_>) -> Result<Order, Fault> {
    let Some(field) = spec.field("order") else { return Ok(Order::LAST) };
    Ok(Order::new(field.decimal()?).unwrap_or(Order::LAST))
}

/// A tier that always exists can be written down, but not otherwise.
fn check_standard(identity: &Identity<'_>, spec: &Object<'_>, tier: &Tier) -> Result<(), Fault> {
    let Some(standard) = Tier::standard().into_iter().find(|standard| standard.name == tier.name) else {
        return Ok(());
    };
    if *tier == standard {
        return Ok(());
    }
    let expected = format!("order {} and defaultAction {:?}", standard.order, standard.default_action);
    let reason = Reason::StandardTier { tier: standard.name, expected };
    let field = spec.field(if tier.order == standard.order { "defaultAction" } else { "order" });
    Err(field.unwrap_or(identity.name_field.clone()).fault(reason))
}

//! BlockAffinity (`libcalico-go/lib/apis/internalapi/blockaffinity.go`).

use model::{AffinityState, BlockAffinity, Resource};

use super::{Identity, Outcome};
use crate::document::Content;
use crate::fields::{Fault, Object};
use crate::validate;

const STATES: &[&str] = &["confirmed", "pending", "pendingDeletion"];
const MEANINGS: &[AffinityState] =
    &[AffinityState::Confirmed, AffinityState::Pending, AffinityState::PendingDeletion];
const TYPES: &[&str] = &["host", "virtual"];

pub(super) fn convert(_: &Identity<'_>, spec: &Object<'_>) -> Result<Outcome, Fault> {
    let (cidr, _) = spec.required_text("cidr")?;
    let (node, _) = spec.required_text("node")?;
    let block = BlockAffinity {
        cidr: validate::masked_prefix(&cidr)?,
        node: validate::name(&node)?,
        state: match spec.text("state")? {
            Some((field, _)) => field.one_of(STATES, MEANINGS)?,
            None => AffinityState::default(),
        },
    };
    if deleted(spec)? {
        return Ok(Outcome::default());
    }
    if let Some((field, _)) = spec.text("type")?
        && field.one_of(TYPES, TYPES)? == "virtual"
    {
        // The load balancer controller's blocks belong to no node.
        return Ok(Outcome::nothing_because_of(field.path().to_owned(), field.position()));
    }
    Ok(Outcome::of(Resource::BlockAffinity(block)))
}

/// A bool, or in quotes as Kubernetes' form of the resource has it.
pub(super) fn deleted(spec: &Object<'_>) -> Result<bool, Fault> {
    let Some(field) = spec.field("deleted") else { return Ok(false) };
    match field.value().content {
        Content::Text(_) => field.one_of(&["true", "false", ""], &[true, false, false]),
        _ => field.flag(),
    }
}

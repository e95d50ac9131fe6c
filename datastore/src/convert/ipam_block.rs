//! IPAMBlock (`libcalico-go/lib/apis/crd.projectcalico.org/v1/ipam_block.go`; in etcd the same fields without the resource
//! around them).

use std::collections::BTreeMap;

use model::{AllocationAttributes, IpamBlock, Resource};

use super::{Identity, Outcome};
use crate::document::Content;
use crate::fields::{Fault, Field, Object};
use crate::validate;

/// How an affinity begins that is a node's. The other kind is `virtual:`, the load balancer controller's.
const HOST: &str = "host:";

pub(super) fn convert(_: &Identity<'_>, spec: &Object<'_>) -> Result<Outcome, Fault> {
    let (cidr, _) = spec.required_text("cidr")?;
    let attributes: Vec<AllocationAttributes> = match spec.field("attributes") {
        Some(field) => field.items()?.map(|item| attributes(&item.object()?)).collect::<Result<_, _>>()?,
        None => Vec::new(),
    };
    let allocations = match spec.field("allocations") {
        Some(field) => field.items()?.map(|item| row(&item, attributes.len())).collect::<Result<_, _>>()?,
        None => Vec::new(),
    };
    let affinity = spec.text("affinity")?.map(|(_, text)| text);
    let node = match affinity {
        Some(affinity) => affinity.strip_prefix(HOST),
        // Blocks from before affinities had a kind.
        None => spec.text("hostAffinity")?.map(|(_, text)| text),
    };
    let block = IpamBlock {
        cidr: validate::masked_prefix(&cidr)?,
        node: node.map(str::to_owned),
        allocations,
        attributes,
    };
    if spec.flag("deleted")? == Some(true) {
        return Ok(Outcome::default());
    }
    Ok(Outcome::of(Resource::IpamBlock(block)))
}

/// The row of attributes that an address has, unless it is free.
fn row(item: &Field<'_>, rows: usize) -> Result<Option<usize>, Fault> {
    if item.value().content == Content::Null {
        return Ok(None);
    }
    // A row more than a mapping of this size could have doesn't exist.
    let last = i64::try_from(rows).unwrap_or(i64::MAX) - 1;
    item.number(0, last).map(Some)
}

fn attributes(item: &Object<'_>) -> Result<AllocationAttributes, Fault> {
    let mut owner = BTreeMap::new();
    for (name, value) in item.object("secondary")?.fields() {
        owner.insert(name.to_owned(), value.text()?.to_owned());
    }
    Ok(AllocationAttributes {
        handle: item.text("handle_id")?.map(|(_, handle)| handle.to_owned()),
        owner,
        is_released: item.text("releasedAt")?.is_some(),
    })
}

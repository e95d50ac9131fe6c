//! BGPFilter (`api/pkg/apis/projectcalico/v3/bgpfilter.go`).

use model::{
    AsNumber, BgpCommunity, BgpFilter, BgpFilterCidr, BgpFilterOperation, BgpFilterOperator, BgpFilterRule,
    Family, Resource,
};

use super::{Identity, Outcome};
use crate::fields::{Fault, Field, Object};
use crate::invalid::Reason;
use crate::validate;

/// Operations in one rule at most, and AS numbers in one of them.
const LIST_MAX: usize = 10;
/// LOCAL_PREF stands for a kernel metric below this.
const PRIORITY_MAX: i64 = 2_147_483_646;

pub(super) fn convert(identity: &Identity<'_>, spec: &Object<'_>) -> Result<Outcome, Fault> {
    let rules = |name, family| -> Result<Vec<BgpFilterRule>, Fault> {
        let Some(field) = spec.field(name) else { return Ok(Vec::new()) };
        field.items()?.map(|item| rule(&item.object()?, family)).collect()
    };
    Ok(Outcome::of(Resource::BgpFilter(BgpFilter {
        name: identity.name.clone(),
        import_v4: rules("importV4", Family::V4)?,
        import_v6: rules("importV6", Family::V6)?,
        export_v4: rules("exportV4", Family::V4)?,
        export_v6: rules("exportV6", Family::V6)?,
    })))
}

fn rule(of: &Object<'_>, family: Family) -> Result<BgpFilterRule, Fault> {
    let accept = of.required("action")?.one_of(&["Accept", "Reject"], &[true, false])?;
    let operations = operations(of)?;
    if let Some(field) = of.field("operations").filter(|_| !accept && !operations.is_empty()) {
        return Err(field.fault(Reason::Needs("action: Accept")));
    }
    let communities = of.object("communities")?;
    Ok(BgpFilterRule {
        accept,
        cidr: cidr(of, family)?,
        from_peers: match of.text("source")? {
            Some((field, _)) => field.one_of(&["RemotePeers"], &[true])?,
            None => false,
        },
        interface: of.text("interface")?.map(|(field, text)| interface(&field, text)).transpose()?,
        internal_peer: match of.text("peerType")? {
            Some((field, _)) => Some(field.one_of(&["iBGP", "eBGP"], &[true, false])?),
            None => None,
        },
        community: communities.field("values").map(|field| only_community(&field)).transpose()?,
        as_path_prefix: of
            .field("asPathPrefix")
            .map(|field| as_numbers(&field))
            .transpose()?
            .unwrap_or_default(),
        priority: of.field("priority").map(|field| field.number(1, PRIORITY_MAX)).transpose()?,
        operations,
    })
}

fn cidr(of: &Object<'_>, family: Family) -> Result<Option<BgpFilterCidr>, Fault> {
    use BgpFilterOperator::{Equal, In, NotEqual, NotIn};
    let lengths = of.object("prefixLength")?;
    let Some((field, text)) = of.text("cidr")? else {
        return match of.text("matchOperator")?.map(|(field, _)| field).or(of.field("prefixLength")) {
            Some(field) => Err(field.fault(Reason::Needs("cidr"))),
            None => Ok(None),
        };
    };
    let cidr: model::Prefix = field.parse()?;
    if cidr.family() != family {
        return Err(field.fault(Reason::WrongFamily { given: text.to_owned(), expected: family }));
    }
    let length = |name, default: u8| match lengths.field(name) {
        Some(field) => field.number(0, family.bits().into()),
        None => Ok(default),
    };
    let lengths = match of.field("prefixLength") {
        Some(_) => Some((length("min", cidr.len())?.max(cidr.len()), length("max", family.bits())?)),
        None => None,
    };
    let operator = of.required("matchOperator")?;
    let operator = operator.one_of(&["In", "NotIn", "Equal", "NotEqual"], &[In, NotIn, Equal, NotEqual])?;
    Ok(Some(BgpFilterCidr { cidr, operator, lengths }))
}

/// A name of at most 15 characters, in which `*` stands for any.
pub(super) fn interface(field: &Field<'_>, text: &str) -> Result<String, Fault> {
    const LEN_MAX: usize = 15;
    let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-' | b'*');
    if text.len() > LEN_MAX || !text.bytes().all(legal) {
        return Err(field.fault(Reason::BadInterface(text.to_owned())));
    }
    Ok(text.to_owned())
}

fn only_community(field: &Field<'_>) -> Result<BgpCommunity, Fault> {
    let mut values = field.items()?;
    match (values.next(), values.next()) {
        (Some(value), None) => community(&value),
        _ => Err(field.fault(Reason::BadForm {
            expected: "one community",
            given: format!("{} of them", field.items()?.count()),
        })),
    }
}

/// `aa:nn` or `aa:nn:mm`.
pub(super) fn community(field: &Field<'_>) -> Result<BgpCommunity, Fault> {
    let text = field.text()?;
    let bad = || {
        field.fault(Reason::BadForm { expected: "a community, aa:nn or aa:nn:mm", given: text.to_owned() })
    };
    let parts: Vec<&str> = text.split(':').collect();
    let short = |part: &str| validate::digits(part).ok_or_else(bad);
    let long = |part: &str| validate::digits(part).ok_or_else(bad);
    match parts[..] {
        [number, value] => Ok(BgpCommunity::Standard(short(number)?, short(value)?)),
        [number, first, second] => Ok(BgpCommunity::Large(long(number)?, long(first)?, long(second)?)),
        _ => Err(bad()),
    }
}

fn as_numbers(field: &Field<'_>) -> Result<Vec<AsNumber>, Fault> {
    validate::at_most(field, field.items()?.count(), LIST_MAX, "AS numbers")?;
    field.items()?.map(|item| validate::as_number(&item)).collect()
}

fn operations(of: &Object<'_>) -> Result<Vec<BgpFilterOperation>, Fault> {
    let Some(field) = of.field("operations") else { return Ok(Vec::new()) };
    validate::at_most(&field, field.items()?.count(), LIST_MAX, "operations")?;
    field.items()?.map(|item| operation(&item)).collect()
}

/// One of three.
fn operation(field: &Field<'_>) -> Result<BgpFilterOperation, Fault> {
    let of = field.object()?;
    let mut found = Vec::new();
    if of.field("addCommunity").is_some() {
        let value = of.object("addCommunity")?.required("value")?;
        found.push(BgpFilterOperation::AddCommunity(community(&value)?));
    }
    if of.field("prependASPath").is_some() {
        let prefix = of.object("prependASPath")?.required("prefix")?;
        let numbers = as_numbers(&prefix)?;
        if numbers.is_empty() {
            return Err(prefix.fault(Reason::BadForm { expected: "AS numbers", given: "none".to_owned() }));
        }
        found.push(BgpFilterOperation::PrependAsPath(numbers));
    }
    if of.field("setPriority").is_some() {
        let value = of.object("setPriority")?.required("value")?;
        found.push(BgpFilterOperation::SetPriority(value.number(1, PRIORITY_MAX)?));
    }
    match (found.pop(), found.is_empty()) {
        (Some(operation), true) => Ok(operation),
        _ => Err(field.fault(Reason::BadForm {
            expected: "one of addCommunity, prependASPath and setPriority",
            given: "none or several".to_owned(),
        })),
    }
}

//! What all resources say of themselves: names, labels and annotations, held to `validateObjectMeta`
//! (`libcalico-go/lib/validator/v3/validator.go`).

use std::collections::BTreeMap;
use std::time::SystemTime;

use crate::fields::{Fault, Field, Object};
use crate::invalid::Reason;

/// Longest name of a label without its domain, longest value, and longest part of a domain (RFC 1123 §2.1).
const LABEL_MAX: usize = 63;
/// Longest name of a resource, and longest domain of a label's name.
const DOMAIN_MAX: usize = 253;
/// Names and values of all annotations together.
const ANNOTATIONS_MAX: usize = 256 << 10;

/// `metadata.labels`, or labels of another field.
pub(crate) fn labels(of: &Object<'_>) -> Result<BTreeMap<String, String>, Fault> {
    let mut labels = BTreeMap::new();
    for (name, field) in of.fields() {
        if !is_qualified_name(name) {
            return Err(field.fault(Reason::BadLabelName(name.to_owned())));
        }
        check_label_value(&field)?;
        labels.insert(name.to_owned(), field.text()?.to_owned());
    }
    Ok(labels)
}

/// A label's name that stands in a field.
pub(crate) fn check_label_name(field: &Field<'_>) -> Result<(), Fault> {
    let name = field.text()?;
    if is_qualified_name(name) { Ok(()) } else { Err(field.fault(Reason::BadLabelName(name.to_owned()))) }
}

/// A label's value, which may be empty.
pub(crate) fn check_label_value(field: &Field<'_>) -> Result<(), Fault> {
    let value = field.text()?;
    if value.is_empty() || is_label_value(value) {
        Ok(())
    } else {
        Err(field.fault(Reason::BadLabelValue(value.to_owned())))
    }
}

/// `creationTimestamp` of `metadata`, where it is there and a time.
pub(crate) fn created(metadata: &Object<'_>) -> Option<SystemTime> {
    let (_, text) = metadata.text("creationTimestamp").ok()??;
    humantime::parse_rfc3339_weak(text).ok()
}

/// `annotations` of `metadata`.
pub(crate) fn annotations<'a>(metadata: &Object<'a>) -> Result<Object<'a>, Fault> {
    let annotations = metadata.object("annotations")?;
    let mut size = 0;
    for (name, field) in annotations.fields() {
        if !is_qualified_name(&name.to_ascii_lowercase()) {
            return Err(field.fault(Reason::BadLabelName(name.to_owned())));
        }
        size += name.len() + field.text()?.len();
        if size > ANNOTATIONS_MAX {
            let reason = Reason::TooLong { given: size, max: ANNOTATIONS_MAX, unit: "bytes of annotations" };
            return Err(field.fault(reason));
        }
    }
    Ok(annotations)
}

/// Which names a kind's resources may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Naming {
    /// Parts of a-z, 0-9 and `-`, joined by dots.
    Subdomain,
    /// One such part.
    Label,
    /// One such part, or two.
    GlobalPolicy,
    /// One such part, or two, or any number behind `knp.default.` or `ossg.default.`.
    Policy,
}

impl Naming {
    fn expected(self) -> &'static str {
        match self {
            Naming::Subdomain => "a-z, 0-9, '-' and '.', a letter or digit at both ends of each part",
            Naming::Label => "at most 63 of a-z, 0-9 and '-', a letter or digit at both ends",
            Naming::GlobalPolicy | Naming::Policy => {
                "a-z, 0-9 and '-', a letter or digit at both ends, behind the name of its tier and a '.' or alone"
            }
        }
    }

    /// Holds a resource's name to it.
    pub(crate) fn check(self, kind: &'static str, name: &Field<'_>) -> Result<(), Fault> {
        let text = name.text()?;
        let good = match self {
            Naming::Subdomain => text.len() <= DOMAIN_MAX && text.split('.').all(is_name_part),
            Naming::Label => text.len() <= LABEL_MAX && is_name_part(text),
            Naming::GlobalPolicy => is_policy_name(text),
            Naming::Policy => {
                let rest = text.strip_prefix("knp.default.");
                is_policy_name(text)
                    || rest.is_some_and(|rest| rest.split('.').all(is_name_part))
                    || is_openstack_policy(text)
            }
        };
        let reason = || Reason::BadKindName { kind, expected: self.expected(), given: text.to_owned() };
        if good { Ok(()) } else { Err(name.fault(reason())) }
    }
}

/// Is it a policy that OpenStack's driver made of a security group? Calico's own client never made it, so its name keeps
/// the case of the group's, and what that client would refuse stands in its rules.
pub(crate) fn is_openstack_policy(name: &str) -> bool {
    name.strip_prefix("ossg.default.").is_some_and(|group| !group.is_empty())
}

fn is_policy_name(name: &str) -> bool {
    let (tier, rest) = name.split_once('.').unwrap_or((name, "x"));
    is_name_part(tier) && is_name_part(rest)
}

/// A part of a resource's name, of any length.
fn is_name_part(part: &str) -> bool {
    let edge = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    is_between(part, edge, |b| edge(b) || b == b'-')
}

/// Kubernetes' name of a label: `name` or `domain/name`.
fn is_qualified_name(text: &str) -> bool {
    match text.split_once('/') {
        Some((domain, name)) => {
            domain.len() <= DOMAIN_MAX && domain.split('.').all(is_name_part) && is_label_value(name)
        }
        None => is_label_value(text),
    }
}

fn is_label_value(text: &str) -> bool {
    let edge = |b: u8| b.is_ascii_alphanumeric();
    text.len() <= LABEL_MAX && is_between(text, edge, |b| edge(b) || matches!(b, b'-' | b'_' | b'.'))
}

/// Not empty, with such bytes at both ends and such inside.
fn is_between(text: &str, edge: impl Fn(u8) -> bool, inside: impl Fn(u8) -> bool) -> bool {
    match text.as_bytes() {
        [] => false,
        [one] => edge(*one),
        [first, middle @ .., last] => edge(*first) && edge(*last) && middle.iter().all(|b| inside(*b)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_policies_have_one_part_or_two() {
        for name in ["web", "default.web", "a-b.c-0"] {
            assert!(is_policy_name(name), "{name}");
        }
        for name in ["", ".", "a.", ".a", "a.b.c", "-a", "a-", "Web", "a.-b", "t~s"] {
            assert!(!is_policy_name(name), "{name}");
        }
    }

    #[test]
    fn labels_are_named_as_kubernetes_does() {
        let long = "x".repeat(63);
        for name in ["app", "Project.Calico.org", "projectcalico.org/My-label_1.x", "a/b", &long] {
            assert!(is_qualified_name(name), "{name}");
        }
        let longer = "x".repeat(64);
        for name in ["", ".a", "a.", "a$", "/a", "a/", "a/b/c", "Calico.org/a", "a b", &longer] {
            assert!(!is_qualified_name(name), "{name}");
        }
    }
}

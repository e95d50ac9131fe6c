//! What Calico's client says of names, labels and annotations that can't be: Kubernetes' own words
//! (`k8s.io/apimachinery/pkg/util/validation`), and those of `validateObjectMeta`.

use super::ErroredField;
use crate::invalid::Reason;

/// Longest name of a resource, and longest domain of a label.
const NAME_MAX: usize = 253;
/// Longest label.
const LABEL_MAX: usize = 63;
/// Calico's expression for names.
const NAME: &str = "[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*";
const QUALIFIED: &str = "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an \
                         alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is \
                         '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";
const SUBDOMAIN: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and \
                         must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation \
                         is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
const VALUE: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must \
                     start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used \
                     for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";

/// The fields that it finds wrong; `None` where the fault is another one.
pub(super) fn of(path: &str, reason: &Reason) -> Option<Vec<ErroredField>> {
    let (field, value, reasons) = match (path, reason) {
        ("metadata.name", Reason::BadName(name) | Reason::BadKindName { given: name, .. }) => {
            ("Metadata.Name", name, of_name(name))
        }
        (path, Reason::BadLabelName(name)) if path.starts_with("metadata.labels") => {
            ("Metadata.Labels (label)", name, of_label(name))
        }
        (path, Reason::BadLabelName(name)) if path.starts_with("metadata.annotations") => {
            ("Metadata.Annotations (key)", name, of_label(&name.to_ascii_lowercase()))
        }
        (path, Reason::BadLabelValue(value)) if path.starts_with("metadata.labels") => {
            ("Metadata.Labels (value)", value, of_value(value))
        }
        _ => return None,
    };
    Some(reasons.into_iter().map(|reason| ErroredField::new(field, value.as_str(), reason)).collect())
}

fn of_name(name: &str) -> Vec<String> {
    let mut reasons = Vec::new();
    if name.len() > NAME_MAX {
        reasons.push(format!("name is too long by {} bytes", name.len() - NAME_MAX));
    }
    if !name.split('.').all(is_name_part) {
        reasons.push(format!(
            "name must consist of lower case alphanumeric characters, '-' or '.' (regex: {NAME})"
        ));
    }
    if reasons.is_empty() {
        // Only names of policies and tiers are held to more.
        reasons.push("name is not supported for this kind".to_owned());
    }
    reasons
}

fn of_label(name: &str) -> Vec<String> {
    let mut reasons = Vec::new();
    let name = match name.split('/').collect::<Vec<_>>().as_slice() {
        [name] => *name,
        [domain, name] => {
            if domain.is_empty() {
                reasons.push("prefix part must be non-empty".to_owned());
            } else if domain.len() > NAME_MAX {
                reasons.push(format!("prefix part must be no more than {NAME_MAX} characters"));
            }
            if !domain.is_empty() && !domain.split('.').all(is_name_part) {
                reasons.push(format!("prefix part {SUBDOMAIN}"));
            }
            *name
        }
        _ => {
            let form = "with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')";
            return vec![format!("a qualified name {QUALIFIED} {form}")];
        }
    };
    if name.is_empty() {
        reasons.push("name part must be non-empty".to_owned());
    } else if name.len() > LABEL_MAX {
        reasons.push(format!("name part must be no more than {LABEL_MAX} characters"));
    }
    if !is_word(name) {
        reasons.push(format!("name part {QUALIFIED}"));
    }
    reasons
}

fn of_value(value: &str) -> Vec<String> {
    let mut reasons = Vec::new();
    if value.len() > LABEL_MAX {
        reasons.push(format!("must be no more than {LABEL_MAX} characters"));
    }
    if !value.is_empty() && !is_word(value) {
        reasons.push(VALUE.to_owned());
    }
    reasons
}

fn is_name_part(part: &str) -> bool {
    let edge = |b: Option<&u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    let inside = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    edge(part.as_bytes().first()) && edge(part.as_bytes().last()) && part.bytes().all(inside)
}

fn is_word(word: &str) -> bool {
    let edge = |b: Option<&u8>| b.is_some_and(u8::is_ascii_alphanumeric);
    let inside = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    edge(word.as_bytes().first()) && edge(word.as_bytes().last()) && word.bytes().all(inside)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(path: &str, reason: &Reason) -> String {
        of(path, reason).unwrap().iter().map(|field| format!("{field}; ")).collect()
    }

    #[test]
    fn names_and_labels_are_refused_in_calicos_words() {
        let long = "a".repeat(264);
        let too_long = said("metadata.name", &Reason::BadName(long.clone()));
        assert_eq!(too_long, format!("Metadata.Name = '{long}' (name is too long by 11 bytes); "));
        let label = |name: &str| said("metadata.labels.x", &Reason::BadLabelName(name.to_owned()));
        assert!(label("a/b/c").contains("(a qualified name must consist of alphanumeric characters, "));
        let long = "b".repeat(64);
        let expected =
            format!("Metadata.Labels (label) = 'a/{long}' (name part must be no more than 63 characters); ");
        assert_eq!(label(&format!("a/{long}")), expected);
        assert!(
            label("Domain/x")
                .starts_with("Metadata.Labels (label) = 'Domain/x' (prefix part a lowercase RFC 1123")
        );
        let value = said("metadata.labels.x", &Reason::BadLabelValue("a b".to_owned()));
        assert!(
            value.starts_with("Metadata.Labels (value) = 'a b' (a valid label must be an empty string or ")
        );
        assert_eq!(of("spec.cidr", &Reason::Missing), None);
    }
}

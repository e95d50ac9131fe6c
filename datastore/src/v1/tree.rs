//! Reading and changing a document's mappings.

use crate::document::{Content, Value};

/// Fields by name, in order.
pub(super) type Entries = Vec<(String, Value)>;

pub(super) fn map(value: &Value) -> Option<&Entries> {
    if let Content::Map(entries) = &value.content { Some(entries) } else { None }
}

pub(super) fn map_mut(value: &mut Value) -> Option<&mut Entries> {
    if let Content::Map(entries) = &mut value.content { Some(entries) } else { None }
}

pub(super) fn list(value: &Value) -> Option<&Vec<Value>> {
    if let Content::List(values) = &value.content { Some(values) } else { None }
}

pub(super) fn find<'a>(entries: &'a Entries, name: &str) -> Option<&'a Value> {
    entries.iter().find_map(|(field, value)| (field == name).then_some(value))
}

pub(super) fn find_mut<'a>(entries: &'a mut Entries, name: &str) -> Option<&'a mut Value> {
    entries.iter_mut().find_map(|(field, value)| (field == name).then_some(value))
}

/// A list's values, to be changed; none where it isn't there.
pub(super) fn list_mut<'a>(entries: &'a mut Entries, name: &str) -> Option<&'a mut Vec<Value>> {
    match find_mut(entries, name) {
        Some(Value { content: Content::List(values), .. }) => Some(values),
        _ => None,
    }
}

pub(super) fn text<'a>(entries: &'a Entries, name: &str) -> Option<&'a str> {
    match &find(entries, name)?.content {
        Content::Text(text) => Some(text),
        _ => None,
    }
}

/// Is it there, and true?
pub(super) fn is_set(entries: &Entries, name: &str) -> bool {
    find(entries, name).is_some_and(|value| value.content == Content::Bool(true))
}

pub(super) fn remove(entries: &mut Entries, name: &str) -> Option<Value> {
    let place = entries.iter().position(|(field, _)| field == name)?;
    Some(entries.remove(place).1)
}

pub(super) fn rename(entries: &mut Entries, then: &str, now: &str) {
    if let Some(value) = remove(entries, then) {
        entries.push((now.to_owned(), value));
    }
}

/// Changes a text in place; anything else stays.
pub(super) fn respell(value: &mut Value, spell: impl FnOnce(&str) -> Option<String>) {
    if let Content::Text(text) = &mut value.content
        && let Some(new) = spell(text)
    {
        *text = new;
    }
}

/// Changes a field's text.
pub(super) fn respell_field(entries: &mut Entries, name: &str, spell: impl FnOnce(&str) -> Option<String>) {
    if let Some(value) = find_mut(entries, name) {
        respell(value, spell);
    }
}

/// Changes each text of a list.
pub(super) fn respell_each(entries: &mut Entries, name: &str, spell: impl Fn(&str) -> Option<String>) {
    for value in list_mut(entries, name).into_iter().flatten() {
        respell(value, &spell);
    }
}

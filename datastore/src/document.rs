//! YAML text → trees of values that know where they stand.

use std::fmt;
use std::marker::PhantomData;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::options::NonFiniteFloatPolicy;
use serde_saphyr::{Error, Options, Spanned};

use crate::invalid::{Position, Reason};
use crate::schema;

/// A value and its place.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Value {
    pub(crate) content: Content,
    pub(crate) position: Option<Position>,
}

/// What YAML and JSON have in common.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Content {
    Null,
    Bool(bool),
    Int(i64),
    /// A number that isn't whole, or too large for the other form.
    Fraction(f64),
    Text(String),
    List(Vec<Value>),
    Map(Vec<(String, Value)>),
}

impl Content {
    /// The type, as an error message names it.
    pub(crate) fn type_name(&self) -> &'static str {
        match self {
            Content::Null => "nothing",
            Content::Bool(_) => "true or false (put a text in quotes)",
            Content::Int(_) => "a number (put a text in quotes)",
            Content::Fraction(_) => "a number that isn't whole, or is too large (put a text in quotes)",
            Content::Text(_) => "a text",
            Content::List(_) => "a list",
            Content::Map(_) => "a mapping",
        }
    }
}

/// Depth of a tree. The deepest of Calico's resources has about ten levels.
const MAX_DEPTH: usize = 32;
/// Values that even the smallest file may have.
const MIN_NODES: usize = 10_000;
/// Events of all aliases together: hand-written anchors fit, an alias bomb doesn't.
const MAX_REPLAYED_EVENTS: usize = 10_000;

/// Reads all documents of a file; empty ones are left out.
///
/// # Errors
/// The first place where the text isn't YAML, or where it exceeds a budget.
pub(crate) fn parse(text: &str, max_documents: usize) -> Result<Vec<Value>, (Option<Position>, Reason)> {
    let options = options(text.len(), max_documents);
    let documents = serde_saphyr::from_multiple_with_options(text, options).map_err(|error| {
        let error = error.without_snippet();
        let position = error.location().and_then(position_of);
        (position, Reason::Yaml(message(error)))
    })?;
    Ok(spelled(documents, text, max_documents))
}

/// Documents whose scalars have the form that their fields have.
fn spelled(mut documents: Vec<Value>, text: &str, max_documents: usize) -> Vec<Value> {
    if schema::spell(&mut documents, None) {
        let mut yaml_1_1 = options(text.len(), max_documents);
        yaml_1_1.strict_booleans = false;
        let older: Result<Vec<Unplaced>, _> = serde_saphyr::from_multiple_with_options(text, yaml_1_1);
        let older: Vec<Value> = older.unwrap_or_default().into_iter().map(Value::from).collect();
        schema::spell(&mut documents, Some(&older));
    }
    documents
}

/// As [`parse`], but only what stands outermost has a place. It takes about half the time.
pub(crate) fn parse_without_places(text: &str, max_documents: usize) -> Option<Vec<Value>> {
    let options = options(text.len(), max_documents);
    let documents: Vec<Spanned<Unplaced>> = serde_saphyr::from_multiple_with_options(text, options).ok()?;
    let value = |document: Spanned<Unplaced>| Value {
        position: position_of(document.referenced),
        ..Value::from(document.value)
    };
    Some(spelled(documents.into_iter().map(value).collect(), text, max_documents))
}

fn options(bytes: usize, max_documents: usize) -> Options {
    serde_saphyr::options! {
        with_snippet: false,
        emit_comments: false,
        // The field itself refuses what it doesn't take, with its path.
        non_finite_float_policy: NonFiniteFloatPolicy::PassThrough,
        // A node named `n` or `on` is not a truth value: `yes` is one where one is wanted (`schema::spell`).
        strict_booleans: true,
        alias_limits: serde_saphyr::alias_limits! {
            max_total_replayed_events: MAX_REPLAYED_EVENTS,
            max_replay_stack_depth: 8,
        },
        budget: serde_saphyr::budget! {
            max_depth: MAX_DEPTH,
            flow_nesting_limit: MAX_DEPTH,
            max_documents: max_documents,
            // A value in the tree takes 48 bytes and more, so a file of nothing but `[0,0,0,` would take two dozen
            // times its own size. Real resources have at least some four bytes of text a value.
            max_nodes: bytes / 4 + MIN_NODES,
            max_events: bytes + MIN_NODES,
            max_total_scalar_bytes: 2 * bytes + MIN_NODES,
        },
    }
}

/// The parser's words without the place, which is told apart, and without advice meant for programmers.
fn message(error: &serde_saphyr::Error) -> String {
    match error {
        Error::DuplicateMappingKey { key: Some(key), .. } => format!("the key {key:?} stands twice"),
        Error::DuplicateMappingKey { key: None, .. } => "a key stands twice".to_owned(),
        Error::Budget { breach, .. } => format!("too large or too deeply nested ({breach:?})"),
        Error::AliasReplayLimitExceeded { .. } | Error::AliasReplayStackDepthExceeded { .. } => {
            "its aliases repeat too much".to_owned()
        }
        _ => {
            let text = error.to_string();
            let first_line = text.lines().next().unwrap_or_default();
            let end = first_line.find(" at line ").unwrap_or(first_line.len());
            first_line[..end].to_owned()
        }
    }
}

fn position_of(location: serde_saphyr::Location) -> Option<Position> {
    // Files are far smaller than what would saturate these.
    let narrow = |number| u32::try_from(number).unwrap_or(u32::MAX);
    (location.line() > 0)
        .then(|| Position { line: narrow(location.line()), column: narrow(location.column()) })
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = Spanned::<Content>::deserialize(deserializer)?;
        Ok(Value { content: spanned.value, position: position_of(spanned.referenced) })
    }
}

impl<'de> Deserialize<'de> for Content {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ContentVisitor::<Value>(PhantomData))
    }
}

/// A value whose place nobody asks for.
struct Unplaced(Content);

impl<'de> Deserialize<'de> for Unplaced {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ContentVisitor::<Unplaced>(PhantomData)).map(Unplaced)
    }
}

impl From<Unplaced> for Value {
    fn from(Unplaced(content): Unplaced) -> Value {
        Value { content, position: None }
    }
}

/// Takes what is in lists and mappings as `V`.
struct ContentVisitor<V>(PhantomData<V>);

impl<'de, V: Deserialize<'de> + Into<Value>> Visitor<'de> for ContentVisitor<V> {
    type Value = Content;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a YAML value")
    }

    fn visit_unit<E>(self) -> Result<Content, E> {
        Ok(Content::Null)
    }

    fn visit_none<E>(self) -> Result<Content, E> {
        Ok(Content::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Content, D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Content, E> {
        Ok(Content::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Content, E> {
        Ok(Content::Int(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Content, E> {
        Ok(i64::try_from(value).map_or(Content::Fraction(value as f64), Content::Int))
    }

    fn visit_i128<E>(self, value: i128) -> Result<Content, E> {
        Ok(i64::try_from(value).map_or(Content::Fraction(value as f64), Content::Int))
    }

    fn visit_u128<E>(self, value: u128) -> Result<Content, E> {
        Ok(i64::try_from(value).map_or(Content::Fraction(value as f64), Content::Int))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Content, E> {
        Ok(Content::Fraction(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Content, E> {
        Ok(Content::Text(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Content, E> {
        Ok(Content::Text(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Content, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = list.next_element::<V>()? {
            values.push(value.into());
        }
        Ok(Content::List(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Content, A::Error> {
        let mut entries = Vec::new();
        while let Some((key, value)) = map.next_entry::<String, V>()? {
            entries.push((key, value.into()));
        }
        Ok(Content::Map(entries))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn without_places(value: &Value) -> Value {
        let content = match &value.content {
            Content::List(items) => Content::List(items.iter().map(without_places).collect()),
            Content::Map(entries) => Content::Map(
                entries.iter().map(|(key, value)| (key.clone(), without_places(value))).collect(),
            ),
            other => other.clone(),
        };
        Value { content, position: None }
    }

    /// Both ways say the same, but for places; outermost places are the same, too.
    fn check(text: &str) {
        let (placed, plain) = (parse(text, 100).ok(), parse_without_places(text, 100));
        let outermost = |all: &Option<Vec<Value>>| {
            all.as_ref().map(|all| all.iter().map(|value| value.position).collect::<Vec<_>>())
        };
        assert_eq!(outermost(&placed), outermost(&plain), "{text:?}");
        let bare =
            |all: Option<Vec<Value>>| all.map(|all| all.iter().map(without_places).collect::<Vec<_>>());
        let (placed, plain) = (bare(placed), bare(plain));
        // What isn't a number isn't equal to itself.
        assert_eq!(format!("{placed:?}"), format!("{plain:?}"), "{text:?}");
    }

    #[test]
    fn a_text_says_the_same_with_places_and_without() {
        for text in [
            "",
            "---\n---\n",
            "a: 1\nb: [x, 2.5, yes, ~, null, .nan]\nc: {d: 'e', f: \"g\"}\n",
            "- a\n-\n  - b: c\n",
            "a: &x [1, 2]\nb: *x\nc: &y\nd: *y\n",
            "a: 1\na: 2\n",
            "a: [1\n",
            "a: !!str 1\nb: !!int '2'\nc: !mine {d: e}\nf: !!binary aGk=\n",
            "a: |\n  text\n  more\nb: >-\n  folded\n  text\n",
            "? [a]\n: b\n",
            "1: a\ntrue: b\n~: c\n",
            "<<: {a: 1}\nb: 2\n",
            "x: 18446744073709551615\ny: 0x1f\nz: 1e400\n",
            "# nothing\n--- # one\na: b # c\n...\n---\n- d\n",
            "a: *nobody\n",
        ] {
            check(text);
        }
    }

    proptest! {
        #[test]
        fn no_text_is_read_otherwise_without_places(text in "[a-c:\\-\\[\\]{}&*!~'\",# \n0-9|>?.]{0,40}") {
            check(&text);
        }
    }
}

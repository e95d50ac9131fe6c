//! YAML text → trees of values that know where they stand.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::options::NonFiniteFloatPolicy;
use serde_saphyr::{Error, Options, Spanned};

use crate::invalid::{Position, Reason};

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
    serde_saphyr::from_multiple_with_options(text, options(text.len(), max_documents)).map_err(|error| {
        let error = error.without_snippet();
        let position = error.location().and_then(position_of);
        (position, Reason::Yaml(message(error)))
    })
}

fn options(bytes: usize, max_documents: usize) -> Options {
    serde_saphyr::options! {
        with_snippet: false,
        emit_comments: false,
        // The field itself refuses what it doesn't take, with its path.
        non_finite_float_policy: NonFiniteFloatPolicy::PassThrough,
        // A node named `n` or `on` is not a truth value, and `yes` where one is wanted gets a clear answer.
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
        deserializer.deserialize_any(ContentVisitor)
    }
}

struct ContentVisitor;

impl<'de> Visitor<'de> for ContentVisitor {
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
        Content::deserialize(deserializer)
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
        while let Some(value) = list.next_element()? {
            values.push(value);
        }
        Ok(Content::List(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Content, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = map.next_entry()? {
            entries.push(entry);
        }
        Ok(Content::Map(entries))
    }
}

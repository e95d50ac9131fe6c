//! Reading typed fields out of a tree, with the path and place of each for its error.

use std::str::FromStr;

use crate::document::{Content, Value};
use crate::invalid::{Position, Reason};

/// What is wrong with one field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) path: String,
    pub(crate) position: Option<Position>,
    pub(crate) reason: Reason,
}

/// A field that is there and not null.
#[derive(Clone, Debug)]
pub(crate) struct Field<'a> {
    path: String,
    value: &'a Value,
}

/// A mapping whose fields are asked for by name; those never asked for are thereby ignored.
#[derive(Clone, Debug)]
pub(crate) struct Object<'a> {
    path: String,
    entries: &'a [(String, Value)],
    position: Option<Position>,
}

impl<'a> Object<'a> {
    /// The mapping at the top of a document, whose fields' paths begin with their own names.
    pub(crate) fn top(value: &'a Value) -> Result<Object<'a>, Fault> {
        Field { path: String::new(), value }.object()
    }

    /// The field of this name, unless absent or null. One whose name differs in case only is taken where there is no
    /// other, as Go's decoder does it.
    pub(crate) fn field(&self, name: &str) -> Option<Field<'a>> {
        let exact = self.entries.iter().find(|(key, _)| key == name);
        let similar = || self.entries.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
        let (key, value) = exact.or_else(similar)?;
        if value.content == Content::Null {
            return None;
        }
        Some(Field { path: join(&self.path, key), value })
    }

    /// All fields that aren't null, where the names are the operator's own.
    pub(crate) fn fields(&self) -> impl Iterator<Item = (&'a str, Field<'a>)> {
        let entries = self.entries.iter().filter(|(_, value)| value.content != Content::Null);
        entries.map(|(name, value)| (name.as_str(), Field { path: join(&self.path, name), value }))
    }

    /// A field that must be there.
    pub(crate) fn required(&self, name: &str) -> Result<Field<'a>, Fault> {
        self.field(name).ok_or_else(|| Fault {
            path: join(&self.path, name),
            position: self.position,
            reason: Reason::Missing,
        })
    }

    /// The mapping of this name; one without entries where absent.
    pub(crate) fn object(&self, name: &str) -> Result<Object<'a>, Fault> {
        match self.field(name) {
            Some(field) => field.object(),
            None => Ok(Object { path: join(&self.path, name), entries: &[], position: self.position }),
        }
    }

    /// A text, where there is one that isn't empty: Calico's writers leave out and empty out alike.
    pub(crate) fn text(&self, name: &str) -> Result<Option<(Field<'a>, &'a str)>, Fault> {
        let Some(field) = self.field(name) else { return Ok(None) };
        let text = field.text()?;
        Ok((!text.is_empty()).then_some((field, text)))
    }

    /// A text that must be there and not empty.
    pub(crate) fn required_text(&self, name: &str) -> Result<(Field<'a>, &'a str), Fault> {
        let field = self.required(name)?;
        let text = field.text()?;
        if text.is_empty() { Err(field.fault(Reason::Missing)) } else { Ok((field, text)) }
    }

    /// `true` or `false`, where there is one.
    pub(crate) fn flag(&self, name: &str) -> Result<Option<bool>, Fault> {
        self.field(name).map(|field| field.flag()).transpose()
    }

    /// What is wrong with the mapping as a whole.
    pub(crate) fn fault(&self, reason: impl Into<Reason>) -> Fault {
        Fault { path: self.path.clone(), position: self.position, reason: reason.into() }
    }

    /// Where the mapping begins.
    pub(crate) fn position(&self) -> Option<Position> {
        self.position
    }
}

impl<'a> Field<'a> {
    pub(crate) fn fault(&self, reason: impl Into<Reason>) -> Fault {
        Fault { path: self.path.clone(), position: self.value.position, reason: reason.into() }
    }

    fn wrong_type(&self, expected: &'static str) -> Fault {
        self.fault(Reason::WrongType { expected, found: self.value.content.type_name() })
    }

    pub(crate) fn path(&self) -> &str {
        &self.path
    }

    pub(crate) fn position(&self) -> Option<Position> {
        self.value.position
    }

    pub(crate) fn value(&self) -> &'a Value {
        self.value
    }

    pub(crate) fn text(&self) -> Result<&'a str, Fault> {
        match &self.value.content {
            Content::Text(text) => Ok(text),
            _ => Err(self.wrong_type("a text")),
        }
    }

    pub(crate) fn flag(&self) -> Result<bool, Fault> {
        match self.value.content {
            Content::Bool(flag) => Ok(flag),
            _ => Err(self.wrong_type("true or false")),
        }
    }

    /// A whole number from `min` to `max`.
    pub(crate) fn number<T: TryFrom<i64>>(&self, min: i64, max: i64) -> Result<T, Fault> {
        let Content::Int(given) = self.value.content else { return Err(self.wrong_type("a whole number")) };
        T::try_from(given)
            .ok()
            .filter(|_| (min..=max).contains(&given))
            .ok_or_else(|| self.fault(Reason::OutOfRange { given, min, max }))
    }

    /// A number, whole or not.
    pub(crate) fn decimal(&self) -> Result<f64, Fault> {
        match self.value.content {
            Content::Int(given) => Ok(given as f64),
            Content::Fraction(given) if !given.is_nan() => Ok(given),
            _ => Err(self.wrong_type("a number")),
        }
    }

    /// A text in a type's own notation.
    pub(crate) fn parse<T>(&self) -> Result<T, Fault>
    where
        T: FromStr,
        Reason: From<T::Err>,
    {
        self.text()?.parse().map_err(|error: T::Err| self.fault(error))
    }

    /// One of a few words, each with its meaning.
    pub(crate) fn one_of<T: Copy>(&self, words: &'static [&'static str], meanings: &[T]) -> Result<T, Fault> {
        let given = self.text()?;
        words
            .iter()
            .zip(meanings)
            .find_map(|(word, meaning)| (*word == given).then_some(*meaning))
            .ok_or_else(|| self.fault(Reason::NotOneOf { allowed: words, given: given.to_owned() }))
    }

    pub(crate) fn object(&self) -> Result<Object<'a>, Fault> {
        match &self.value.content {
            Content::Map(entries) => {
                Ok(Object { path: self.path.clone(), entries, position: self.value.position })
            }
            _ => Err(self.wrong_type("a mapping")),
        }
    }

    pub(crate) fn items(&self) -> Result<impl Iterator<Item = Field<'a>> + use<'a>, Fault> {
        let Content::List(values) = &self.value.content else { return Err(self.wrong_type("a list")) };
        let path = self.path.clone();
        Ok(values.iter().enumerate().map(move |(i, value)| Field { path: format!("{path}[{i}]"), value }))
    }

    /// Does it say nothing: an empty text, list or mapping?
    pub(crate) fn is_empty(&self) -> bool {
        match &self.value.content {
            Content::Null => true,
            Content::Text(text) => text.is_empty(),
            Content::List(values) => values.is_empty(),
            Content::Map(entries) => entries.is_empty(),
            Content::Bool(_) | Content::Int(_) | Content::Fraction(_) => false,
        }
    }
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

//! Reading one field, with its path and place for the error.

use std::path::Path;
use std::str::FromStr;

use super::error::{ConfigError, Reason, place};
use super::file::{Entry, Scalar};

/// What is wrong with one field of a file whose name isn't known here.
#[derive(Debug)]
pub(super) struct Fault {
    path: String,
    position: Option<(u32, u32)>,
    reason: Reason,
}

impl Fault {
    pub(super) fn missing(path: &str, example: &'static str) -> Fault {
        Fault { path: path.to_owned(), position: None, reason: Reason::Missing { example } }
    }

    /// What is wrong with a whole section.
    pub(super) fn of(path: &str, reason: Reason) -> Fault {
        Fault { path: path.to_owned(), position: None, reason }
    }

    pub(super) fn within(self, file: &Path) -> ConfigError {
        ConfigError {
            file: file.to_owned(),
            position: self.position,
            field: Some(self.path),
            reason: self.reason,
        }
    }
}

/// A field that is there and not null.
#[derive(Debug)]
pub(super) struct Field<'a> {
    path: String,
    entry: &'a Entry,
}

/// A field of a section or of a list's item, if it is there.
pub(super) fn optional<'a>(path: &str, name: &str, entry: &'a Option<Entry>) -> Option<Field<'a>> {
    Field::new(&format!("{path}.{name}"), entry.as_ref()?)
}

/// A field of a section or of a list's item that must be there.
pub(super) fn required<'a>(
    path: &str,
    name: &str,
    entry: &'a Option<Entry>,
    example: &'static str,
) -> Result<Field<'a>, Fault> {
    optional(path, name, entry).ok_or_else(|| Fault::missing(&format!("{path}.{name}"), example))
}

impl<'a> Field<'a> {
    /// The field, unless it is empty.
    pub(super) fn new(path: &str, entry: &'a Entry) -> Option<Field<'a>> {
        (entry.value != Scalar::Null).then(|| Field { path: path.to_owned(), entry })
    }

    pub(super) fn fault(&self, reason: Reason) -> Fault {
        Fault { path: self.path.clone(), position: place(self.entry.referenced), reason }
    }

    fn wrong_type(&self, expected: &'static str, hint: &'static str) -> Fault {
        self.fault(Reason::WrongType { expected, found: self.entry.value.type_name(), hint })
    }

    /// The value, of whatever type.
    pub(super) fn scalar(&self) -> &'a Scalar {
        &self.entry.value
    }

    /// A text that isn't empty.
    pub(super) fn text(&self) -> Result<&'a str, Fault> {
        match &self.entry.value {
            Scalar::Text(text) if text.is_empty() => Err(self.wrong_type("a text", " without letters")),
            Scalar::Text(text) => Ok(text),
            Scalar::Bool(_) | Scalar::Int(_) | Scalar::Fraction => {
                Err(self.wrong_type("a text", "; put it in quotes"))
            }
            Scalar::Null | Scalar::List(_) | Scalar::Mapping => Err(self.wrong_type("a text", "")),
        }
    }

    /// `true` or `false`.
    pub(super) fn truth(&self) -> Result<bool, Fault> {
        match self.entry.value {
            Scalar::Bool(truth) => Ok(truth),
            _ => Err(self.wrong_type("true or false", "")),
        }
    }

    /// A text that is an address or the like. `expected`: what it should be, `example`: how that is written.
    pub(super) fn parse<T: FromStr>(
        &self,
        expected: &'static str,
        example: &'static str,
    ) -> Result<T, Fault> {
        let given = self.text()?;
        given.parse().map_err(|_| self.fault(Reason::NoSuch { given: given.to_owned(), expected, example }))
    }

    /// A whole number within the range, both ends included.
    pub(super) fn number(&self, (min, max): (usize, usize)) -> Result<usize, Fault> {
        let Scalar::Int(given) = self.entry.value else { return Err(self.wrong_type("a whole number", "")) };
        usize::try_from(given)
            .ok()
            .filter(|number| (min..=max).contains(number))
            .ok_or_else(|| self.fault(Reason::OutOfRange { given: given.to_string(), min, max }))
    }

    /// One of a few words, each with its meaning.
    pub(super) fn one_of<T: Copy>(&self, words: &[(&str, T)]) -> Result<T, Fault> {
        let given = self.text()?;
        let found = words.iter().find_map(|(word, meaning)| (*word == given).then_some(*meaning));
        found.ok_or_else(|| {
            let allowed = words.iter().map(|(word, _)| *word).collect::<Vec<_>>().join(", ");
            self.fault(Reason::NotOneOf { given: given.to_owned(), allowed })
        })
    }

    /// A name that the kernel takes for an interface (`dev_valid_name` in net/core/dev.c).
    pub(super) fn interface_name(&self) -> Result<&'a str, Fault> {
        let name = self.text()?;
        let forbidden = |c: char| c == '/' || c == ':' || c.is_whitespace();
        if name.len() > 15 || name == "." || name == ".." || name.contains(forbidden) {
            return Err(self.fault(Reason::InterfaceName { given: name.to_owned() }));
        }
        Ok(name)
    }

    /// The items of a list.
    pub(super) fn items(&self) -> Result<Vec<Field<'a>>, Fault> {
        let Scalar::List(entries) = &self.entry.value else {
            return Err(self.wrong_type("a list", "; put it in [ ]"));
        };
        let item = |(index, entry)| Field { path: format!("{}[{index}]", self.path), entry };
        Ok(entries.iter().enumerate().map(item).collect())
    }
}

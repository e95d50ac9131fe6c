//! What the client refuses and fails at, in the words of `libcalico-go/lib/errors`: operators and their scripts know them.

use std::fmt;

use serde_json::Value;

use crate::StoreError;

/// Why a resource wasn't written, read or removed.
#[derive(Clone, Debug, PartialEq)]
pub enum ClientError {
    /// There is no such resource.
    NotFound(String),
    /// It is there already.
    AlreadyExists(String),
    /// Somebody else has written it meanwhile.
    Conflict(String),
    /// Fields that break a rule.
    Invalid(Vec<ErroredField>),
    /// What can't be done with this resource.
    NotSupported {
        /// `create or apply`, `delete`.
        operation: String,
        /// The resource, or its kind.
        identifier: String,
        /// Why not; may be empty.
        reason: String,
    },
    /// Any other failure, of the store for the most part.
    Other(String),
}

/// A field that breaks a rule.
#[derive(Clone, Debug, PartialEq)]
pub struct ErroredField {
    /// Its name in Go.
    pub name: String,
    /// What stands there; nothing where the field as a whole is meant.
    pub value: Option<Value>,
    /// The rule.
    pub reason: String,
}

impl ErroredField {
    pub(super) fn new(name: &str, value: impl Into<Value>, reason: impl Into<String>) -> ErroredField {
        ErroredField { name: name.to_owned(), value: Some(value.into()), reason: reason.into() }
    }

    /// One without a value.
    pub(super) fn bare(name: &str, reason: impl Into<String>) -> ErroredField {
        ErroredField { name: name.to_owned(), value: None, reason: reason.into() }
    }
}

impl From<ErroredField> for ClientError {
    fn from(field: ErroredField) -> Self {
        ClientError::Invalid(vec![field])
    }
}

impl From<StoreError> for ClientError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::NotFound(key) => ClientError::NotFound(key.to_string()),
            StoreError::AlreadyExists(key) => ClientError::AlreadyExists(key.to_string()),
            StoreError::Conflict(key) => ClientError::Conflict(key.to_string()),
            other => ClientError::Other(other.to_string()),
        }
    }
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ClientError::NotFound(what) => write!(f, "resource does not exist: {what} with error: <nil>"),
            ClientError::AlreadyExists(what) => write!(f, "resource already exists: {what}"),
            ClientError::Conflict(what) => write!(f, "update conflict: {what}"),
            ClientError::Invalid(fields) => match fields.as_slice() {
                [] => f.write_str("unknown validation error"),
                [field] => write!(f, "error with field {field}"),
                fields => {
                    f.write_str("error with the following fields:\n")?;
                    fields.iter().try_for_each(|field| writeln!(f, "-  {field}"))
                }
            },
            ClientError::NotSupported { operation, identifier, reason } => {
                write!(f, "operation {operation} is not supported on {identifier}")?;
                if reason.is_empty() { Ok(()) } else { write!(f, ": {reason}") }
            }
            ClientError::Other(text) => f.write_str(text),
        }
    }
}

impl std::error::Error for ClientError {}

impl fmt::Display for ErroredField {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        match &self.value {
            None => {}
            Some(Value::String(text)) => write!(f, " = '{text}'")?,
            Some(Value::Array(items)) => {
                let items: Vec<String> = items
                    .iter()
                    .map(|item| item.as_str().map_or_else(|| item.to_string(), str::to_owned))
                    .collect();
                write!(f, " = '[{}]'", items.join(" "))?;
            }
            Some(value) => write!(f, " = '{value}'")?,
        }
        if self.reason.is_empty() { Ok(()) } else { write!(f, " ({})", self.reason) }
    }
}

//! What can be wrong with `tortie.yaml`, each with what to do about it.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use model::{Family, MacAddr};

/// One thing that is wrong: file, line, field, reason and what to do.
#[derive(Debug)]
pub(crate) struct ConfigError {
    /// The file.
    pub(crate) file: PathBuf,
    /// Line and column, counted from 1; absent where the whole file is meant.
    pub(crate) position: Option<(u32, u32)>,
    /// The field's path, such as `limits.ports`.
    pub(crate) field: Option<String>,
    /// What is wrong, and what to do.
    pub(crate) reason: Reason,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if let Some((line, column)) = self.position {
            write!(f, ":{line}:{column}")?;
        }
        if let Some(field) = &self.field {
            write!(f, ": {field}")?;
        }
        write!(f, ": {}", self.reason)
    }
}

impl std::error::Error for ConfigError {}

impl ConfigError {
    /// An error of the YAML reader or of the file's structure.
    pub(super) fn yaml(file: &Path, error: &serde_saphyr::Error) -> ConfigError {
        let error = error.without_snippet();
        ConfigError {
            file: file.to_owned(),
            position: error.location().and_then(place),
            field: None,
            reason: Reason::Yaml(message(&error.to_string())),
        }
    }
}

/// Line and column; `None` where the reader doesn't know. A file has at most 64 KiB, so they are small.
pub(super) fn place(location: serde_saphyr::Location) -> Option<(u32, u32)> {
    let (line, column) = (u32::try_from(location.line()).ok()?, u32::try_from(location.column()).ok()?);
    (line > 0).then_some((line, column))
}

/// The reader's message without the place, which is told apart.
fn message(text: &str) -> String {
    let first_line = text.lines().next().unwrap_or_default();
    let end = first_line.find(" at line ").unwrap_or(first_line.len());
    first_line[..end].to_owned()
}

/// What is wrong, and what to do.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "each message says what its variant means")]
pub(crate) enum Reason {
    #[error("can't be read: {0}; name the configuration file with -c FILE")]
    Unreadable(io::Error),
    #[error("has {bytes} bytes, and a configuration has at most {max}; is it the right file?")]
    TooLarge { bytes: u64, max: u64 },
    #[error("{0}; see `tortie run --help` for an example")]
    Yaml(String),
    #[error("is missing; write for example `{example}`")]
    Missing { example: &'static str },
    #[error("must be {expected}, and is {found}{hint}")]
    WrongType { expected: &'static str, found: &'static str, hint: &'static str },
    #[error("is {given}; use a number from {min} to {max}")]
    OutOfRange { given: String, min: usize, max: usize },
    #[error("is `{given}`; use one of {allowed}")]
    NotOneOf { given: String, allowed: String },
    #[error(
        "`{given}` names no node; use lower-case letters, digits, `-` and `.`, as in `metadata.name` of its Node resource"
    )]
    NodeName { given: String },
    #[error(
        "`{given}` can't be an interface's name; use 1 to 15 letters, digits or signs other than `/` and blanks"
    )]
    InterfaceName { given: String },
    #[error("`{given}` stands here twice; remove one")]
    Twice { given: String },
    #[error(
        "`{name}` begins with `{prefix}`, which marks workload interfaces; set workloads.prefix to another one, or remove the uplink"
    )]
    UplinkIsWorkload { name: String, prefix: String },
    #[error("names {cores} cores for {workers} workers; name one core a worker, or leave `cores` out")]
    CoresAndWorkers { cores: usize, workers: usize },
    #[error("has {bytes} bytes, and a socket's path has at most {max}; use a shorter one")]
    SocketPath { bytes: usize, max: usize },
    #[error("`{given}` is no address with a port; write for example \"127.0.0.1:9191\" or \"[::1]:9191\"")]
    Listen { given: String },
    #[error(
        "`{given}` is every address of this host, those that workloads and strangers reach among them; write one address, or \
         add `interface`, or say `everywhere: true`"
    )]
    Everywhere { given: String },
    #[error("`{given}` is no {expected}; write for example {example}")]
    NoSuch { given: String, expected: &'static str, example: &'static str },
    #[error(
        "{given} is no {family} address, and the segment's own is one; both ends have addresses of one family"
    )]
    OtherFamily { given: String, family: Family },
    #[error("{given} names no single station; write the MAC address of the other end's interface")]
    NotOneStation { given: MacAddr },
    #[error("means something only where ends are asked for; add `flood` or `group`, or leave it out")]
    NobodyAsked,
    #[error("means something only with `{other}`; add that, or leave this out")]
    OnlyWith { other: &'static str },
    #[error("is {given}; use 0 for none, or 3 to 65535 seconds (RFC 4271)")]
    HoldTime { given: usize },
    #[error("means something only where neighbours are taken in; add `accept`, or leave it out")]
    NobodyAccepted,
    #[error(
        "lies in {wider}, and the kernel asks everybody there for the password of {which}: nobody could connect without one; give \
         this range a `password` too, or leave its `accept` out"
    )]
    LockedOut { wider: String, which: String },
    #[error("is asked for, and the segment has no {family} address to ask from; add one to `addresses`")]
    NothingToAskFrom { family: Family },
    #[error("is one datastore and `directory` another; name one of them")]
    TwoDatastores,
    #[error("the members are named by endpoints already: leave out one of the two")]
    TwoWaysToMembers,
    #[error("is one too many: at most {max} are taken; remove some")]
    TooMany { max: usize },
}

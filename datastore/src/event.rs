//! What a datastore tells its listener.

use std::fmt;
use std::path::PathBuf;

use crate::{Invalid, Position};

/// Why nothing is told of a datastore that may not be used.
pub(crate) const CLOSED: &str =
    "the datastore is closed: ClusterInformation(default) has datastoreReady: false";

/// One event of a datastore that is followed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A change of the resources, or the in-sync mark.
    Update(model::Update),
    /// A file (or the directory itself) can't be used as it stands; what it last held stays in force. In etcd it is a key,
    /// and counts as absent, as with Calico's own readers.
    ///
    /// Replaces the file's earlier `Invalid`, if any. It is the first of the file's problems and counts the rest.
    Invalid(Invalid),
    /// A file that was invalid is good again, or gone.
    Mended {
        /// The file, or the directory.
        file: PathBuf,
    },
    /// The datastore can't be followed, or is closed by its own `datastoreReady`. What was told last stays in force; it may
    /// be out of date from now on. Told again where the reason is another.
    Stale {
        /// Why.
        reason: String,
    },
    /// The datastore is followed again, and everything that has changed meanwhile has been told.
    Current,
    /// Something valid that this version makes no use of. Told once for as long as it stays.
    Ignored(Ignored),
}

/// A resource, or a field of one, that has no effect here: Calico's that isn't read, or a field that its kind doesn't have.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ignored {
    /// Where it was found.
    pub file: PathBuf,
    /// Line and column of the resource or field.
    pub position: Option<Position>,
    /// Kind and name, such as `NetworkPolicy(default/web)`.
    pub resource: String,
    /// The field's path where only a field is without effect.
    pub field: Option<String>,
}

impl fmt::Display for Ignored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if let Some(position) = self.position {
            write!(f, ":{position}")?;
        }
        write!(f, ": {}", self.resource)?;
        if let Some(field) = &self.field {
            write!(f, ": {field}")?;
        }
        f.write_str(": not used by this version")
    }
}

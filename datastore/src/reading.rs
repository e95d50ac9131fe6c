//! Reading resources once, to see whether they are good.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use model::Resource;

use crate::desired::{Desired, Files, Limits};
use crate::directory::DirectoryConfig;
use crate::event::Ignored;
use crate::invalid::{Invalid, Position, Reason};
use crate::manifest::{self, Reader};
use crate::scan;

/// Where resources stand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A file, or all files of a directory that count.
    Path(PathBuf),
    /// Text from elsewhere, such as standard input.
    Text {
        /// What to call it in messages.
        name: PathBuf,
        /// The text.
        bytes: Vec<u8>,
    },
}

/// A good resource, and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The resource.
    pub resource: Arc<Resource>,
    /// Its file.
    pub file: PathBuf,
    /// Its line and column.
    pub position: Option<Position>,
}

/// What sources hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reading {
    /// The resources of good files.
    pub resources: Vec<Found>,
    /// What of them has no effect here.
    pub ignored: Vec<Ignored>,
    /// Every problem of every file, and every second resource of one name.
    pub problems: Vec<Invalid>,
}

/// Reads all sources together, with the usual limits.
pub fn read(sources: Vec<Source>) -> Reading {
    let limits = Limits { reader: Reader::Writer, ..DirectoryConfig::at(PathBuf::new()).limits() };
    let mut files = Files::new(limits);
    let mut paths = Vec::new();
    let mut unavailable = Vec::new();
    let mut texts = Vec::new();
    for source in sources {
        match source {
            Source::Path(path) => match files_of(&path) {
                Ok(found) => paths.extend(found),
                Err(reason) => unavailable.push(manifest::whole_file(&path, reason)),
            },
            Source::Text { name, bytes } => texts.push((name, bytes)),
        }
    }
    files.load(&paths);
    texts.into_iter().for_each(|(name, bytes)| files.add(&name, bytes));
    let Desired { ignored, problems, .. } = files.desired(Path::new("all"));
    let found = |(file, entry): (&Path, &manifest::Entry)| Found {
        resource: Arc::clone(&entry.resource),
        file: file.to_owned(),
        position: entry.position,
    };
    Reading {
        resources: files.entries().map(found).collect(),
        ignored,
        problems: unavailable.into_iter().chain(problems.into_values().flatten()).collect(),
    }
}

fn files_of(path: &Path) -> Result<Vec<PathBuf>, Reason> {
    match std::fs::metadata(path) {
        Ok(metadata) if metadata.is_dir() => {
            scan::list(path).map_err(|error| Reason::DirectoryUnavailable(error.kind()))
        }
        Ok(_) => Ok(vec![path.to_owned()]),
        Err(error) => Err(Reason::Unreadable(error.kind())),
    }
}

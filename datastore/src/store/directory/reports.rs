//! What nodes tell of themselves, in a directory: files in a folder of their own, `.status`, which nobody watches.
//!
//! They aren't held to revisions, as only the node itself writes them, and don't outlive a power cut for certain, as they are
//! told again. One that has a lifetime is there until that is over.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Stamp, file_name, unavailable};
use crate::scan;
use crate::store::{Key, Revision, StatusKey, StoreError, Stored, Under};

const FOLDER: &str = ".status";
/// Largest report, in bytes.
const BYTES_MAX: u64 = 1 << 16;

#[derive(Serialize, Deserialize)]
struct Report {
    key: Told,
    value: Value,
    /// Milliseconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    until: Option<u64>,
}

/// A [`StatusKey`], written down.
#[derive(Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "snake_case")]
enum Told {
    Active { node: String },
    Last { node: String },
    Workload { node: String, orchestrator: String, workload: String, endpoint: String },
    Host { node: String, endpoint: String },
}

pub(super) fn get(directory: &Path, key: &StatusKey) -> Result<Stored, StoreError> {
    let missing = || StoreError::NotFound(Key::Status(key.clone()));
    read(&path(directory, key)).filter(|stored| stored.key == Key::Status(key.clone())).ok_or_else(missing)
}

pub(super) fn list(directory: &Path, under: &Under) -> Vec<Stored> {
    let Ok(entries) = fs::read_dir(directory.join(FOLDER)) else { return Vec::new() };
    let reports = entries.flatten().filter(|entry| scan::counts(&entry.path()));
    let mut stored: Vec<Stored> = reports.filter_map(|entry| read(&entry.path())).collect();
    stored.retain(|stored| under.holds(&stored.key));
    stored.sort_by(|a, b| a.key.cmp(&b.key));
    stored
}

pub(super) fn put(
    directory: &Path,
    key: &StatusKey,
    value: &Value,
    lifetime: Option<Duration>,
) -> Result<Revision, StoreError> {
    let path = path(directory, key);
    let until = lifetime.map(|lifetime| u64::try_from((now() + lifetime).as_millis()).unwrap_or(u64::MAX));
    let report = Report { key: told(key), value: value.clone(), until };
    let write = || -> io::Result<Stamp> {
        fs::create_dir_all(directory.join(FOLDER))?;
        let aside = path.with_extension("new");
        fs::write(&aside, serde_json::to_string(&report)?)?;
        fs::rename(&aside, &path)?;
        Ok(Stamp::of(&fs::metadata(&path)?))
    };
    write().map(|stamp| Revision(stamp.modified)).map_err(|error| unavailable(&path, &error))
}

pub(super) fn delete(directory: &Path, key: &StatusKey) -> Result<Stored, StoreError> {
    let stored = get(directory, key)?;
    let path = path(directory, key);
    fs::remove_file(&path).map_err(|error| unavailable(&path, &error))?;
    Ok(stored)
}

/// Nothing where it isn't there any more, or is no report.
fn read(path: &Path) -> Option<Stored> {
    let scan::Contents::Bytes(bytes) = scan::read(path, BYTES_MAX) else { return None };
    let revision = Revision(Stamp::at(path)?.modified);
    let Report { key, value, until } = serde_json::from_slice(&bytes).ok()?;
    let is_over = until.is_some_and(|until| u128::from(until) <= now().as_millis());
    (!is_over).then(|| Stored { key: Key::Status(key.into()), value, revision })
}

fn path(directory: &Path, key: &StatusKey) -> PathBuf {
    let kind = match key {
        StatusKey::Active { .. } => "active",
        StatusKey::Last { .. } => "last",
        StatusKey::Workload { .. } => "workload",
        StatusKey::Host { .. } => "host",
    };
    let name = file_name(&Key::Status(key.clone()));
    directory.join(FOLDER).join(format!("{kind}_{name}")).with_extension("json")
}

fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

fn told(key: &StatusKey) -> Told {
    match key.clone() {
        StatusKey::Active { node } => Told::Active { node },
        StatusKey::Last { node } => Told::Last { node },
        StatusKey::Workload { node, orchestrator, workload, endpoint } => {
            Told::Workload { node, orchestrator, workload, endpoint }
        }
        StatusKey::Host { node, endpoint } => Told::Host { node, endpoint },
    }
}

impl From<Told> for StatusKey {
    fn from(told: Told) -> StatusKey {
        match told {
            Told::Active { node } => StatusKey::Active { node },
            Told::Last { node } => StatusKey::Last { node },
            Told::Workload { node, orchestrator, workload, endpoint } => {
                StatusKey::Workload { node, orchestrator, workload, endpoint }
            }
            Told::Host { node, endpoint } => StatusKey::Host { node, endpoint },
        }
    }
}

//! A directory of resources, written: the one that `Directory` watches.
//!
//! ```text
//!  create ─► KIND_NAMESPACE_NAME.yaml, a file of its own
//!  update ─► the file that holds the resource, whoever wrote it; its other documents keep their text
//! ```
//!
//! Writers hold a lock, so that two commands don't interleave. A file is replaced as a whole, so that nobody reads half
//! of one. A resource's revision is the time at which its file was written, in nanoseconds, made to rise with every
//! write; resources in one file share it.

mod file;

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::Value;

use self::file::File;
use super::{Key, Listed, ResourceKey, Revision, Store, StoreError, Stored, Under};
use crate::ResourceKind;
use crate::books;
use crate::directory::DirectoryConfig;
use crate::scan::{self, Contents};

/// Held by whoever writes.
const LOCK: &str = ".lock";
/// The last revision that was given.
const LAST: &str = ".revision";
/// Longest name of a file (`NAME_MAX`), without what is added while it is written.
const NAME_MAX: usize = 240;

/// A directory of resources.
#[derive(Debug)]
pub struct DirectoryStore {
    path: PathBuf,
    max_file_bytes: u64,
    /// What was read, by file, for as long as the file is the same.
    known: Mutex<BTreeMap<PathBuf, Known>>,
}

#[derive(Debug)]
struct Known {
    stamp: Stamp,
    file: File,
}

/// Which state of a file it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    bytes: u64,
    modified: i64,
    changed: i64,
}

type Files = BTreeMap<PathBuf, Known>;

impl DirectoryStore {
    /// Opens a directory, which is made where it is missing.
    ///
    /// # Errors
    /// It can't be made.
    pub fn open(path: impl Into<PathBuf>) -> Result<DirectoryStore, StoreError> {
        let path = path.into();
        fs::create_dir_all(&path).map_err(|error| unavailable(&path, &error))?;
        let max_file_bytes = DirectoryConfig::at(&path).max_file_bytes;
        Ok(DirectoryStore { path, max_file_bytes, known: Mutex::default() })
    }

    /// The files as they are now. A file that can't be read is left out, with a word about it.
    fn files(&self) -> Result<MutexGuard<'_, Files>, StoreError> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let paths = scan::list(&self.path).map_err(|error| unavailable(&self.path, &error))?;
        let mut before = std::mem::take(&mut *known);
        for path in paths {
            let Ok(metadata) = fs::metadata(&path) else { continue };
            let stamp = Stamp::of(&metadata);
            let file = match before.remove(&path) {
                Some(known) if known.stamp == stamp => known.file,
                _ => match self.read(&path) {
                    Ok(file) => file,
                    Err(reason) => {
                        tracing::warn!(file = %path.display(), reason, "a file of the datastore is left out");
                        continue;
                    }
                },
            };
            known.insert(path, Known { stamp, file });
        }
        Ok(known)
    }

    fn read(&self, path: &Path) -> Result<File, String> {
        match scan::read(path, self.max_file_bytes) {
            Contents::Bytes(bytes) => {
                let text = String::from_utf8(bytes).map_err(|error| error.to_string())?;
                File::parse(path, &text)
            }
            Contents::Bad(reason) => Err(reason.to_string()),
            Contents::Absent => Err("it is no regular file".to_owned()),
        }
    }

    /// Nobody else writes while this is held.
    fn lock(&self) -> Result<fs::File, StoreError> {
        let path = self.path.join(LOCK);
        let open = OpenOptions::new().create(true).append(true).open(&path);
        let lock = open.map_err(|error| unavailable(&path, &error))?;
        lock.lock().map_err(|error| unavailable(&path, &error))?;
        Ok(lock)
    }

    fn last(&self, files: &Files) -> i64 {
        let written = fs::read_to_string(self.path.join(LAST)).ok();
        let written = written.and_then(|text| text.trim().parse().ok()).unwrap_or(0);
        files.values().map(|known| known.stamp.modified).fold(written, i64::max)
    }

    /// A revision above all others, written down: it outlives the file that it is given to.
    fn next(&self, files: &Files) -> Result<i64, StoreError> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let now = i64::try_from(now.as_nanos()).unwrap_or(i64::MAX);
        let next = now.max(self.last(files).saturating_add(1));
        self.replace(&self.path.join(LAST), &next.to_string(), next)?;
        Ok(next)
    }

    /// Puts a text in a file's place, whole or not at all.
    fn replace(&self, path: &Path, text: &str, revision: i64) -> Result<(), StoreError> {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        // No name that counts, and one that only who holds the lock uses.
        let aside = self.path.join(format!(".{name}.new"));
        let write = || -> io::Result<()> {
            let mut file = fs::File::create(&aside)?;
            if let Ok(metadata) = fs::metadata(path) {
                file.set_permissions(metadata.permissions())?;
            }
            file.write_all(text.as_bytes())?;
            file.set_modified(UNIX_EPOCH + Duration::from_nanos(revision.unsigned_abs()))?;
            file.sync_all()?;
            // A link is how mounted configuration is made; what it leads to is what is written.
            let target = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
            fs::rename(&aside, target)?;
            fs::File::open(&self.path)?.sync_all()
        };
        write().map_err(|error| {
            let _ = fs::remove_file(&aside);
            unavailable(path, &error)
        })
    }

    /// Writes, replaces or removes what a key stands for, in its file. Gives the revision of the write.
    fn write(&self, files: &mut Files, key: &Key, value: Option<&Value>) -> Result<Revision, StoreError> {
        let unusable = |reason: String| StoreError::Unusable { key: key.clone(), reason };
        let resource = value.map(|value| resource(key, value)).transpose().map_err(unusable)?;
        let holder = files.iter().find(|(_, known)| known.file.entries().any(|(known, _)| known == key));
        let (path, text) = match (holder.map(|(path, _)| path.clone()), &resource) {
            (Some(path), resource) => {
                // Read anew: taking a file apart uses it up, and it is written once.
                let file = self.read(&path).map_err(unusable)?;
                let Some(text) = file.replace(key, resource.as_ref()) else {
                    return Err(StoreError::Conflict(key.clone()));
                };
                (path, text.map_err(unusable)?)
            }
            (None, Some(resource)) => {
                let path = self.path.join(file_name(key));
                if path.exists() {
                    // Somebody's file of that name, with something else in it, or nothing that can be read.
                    return Err(unusable(format!("{} holds something else", path.display())));
                }
                (path, file::written(resource, false).map_err(unusable)?)
            }
            (None, None) => return Err(StoreError::NotFound(key.clone())),
        };
        if text.len() as u64 > self.max_file_bytes {
            return Err(unusable(format!(
                "{} would be larger than {} bytes",
                path.display(),
                self.max_file_bytes
            )));
        }
        let file = File::parse(&path, &text).map_err(unusable)?;
        if let Some(value) = value
            && !file.entries().any(|(known, written)| known == key && written == value)
        {
            return Err(unusable("a file wouldn't give it back as it is".to_owned()));
        }
        let revision = self.next(files)?;
        if text.is_empty() {
            fs::remove_file(&path).map_err(|error| unavailable(&path, &error))?;
            files.remove(&path);
            return Ok(Revision(revision));
        }
        self.replace(&path, &text, revision)?;
        let metadata = fs::metadata(&path).map_err(|error| unavailable(&path, &error))?;
        files.insert(path, Known { stamp: Stamp::of(&metadata), file });
        Ok(Revision(revision))
    }
}

impl Store for DirectoryStore {
    fn get(&self, key: &Key) -> Result<Stored, StoreError> {
        find(&*self.files()?, key)
    }

    fn list(&self, under: &Under) -> Result<Listed, StoreError> {
        let files = self.files()?;
        let mut stored = BTreeMap::new();
        // Of two with one key, the one in the file whose name comes first is in force.
        for known in files.values() {
            let revision = Revision(known.stamp.modified);
            for (key, value) in known.file.entries().flat_map(views).filter(|(key, _)| under.holds(key)) {
                stored.entry(key.clone()).or_insert(Stored { key, value, revision });
            }
        }
        Ok(Listed { stored: stored.into_values().collect(), revision: Revision(self.last(&files)) })
    }

    fn create(&self, key: &Key, value: &Value) -> Result<Revision, StoreError> {
        let _lock = self.lock()?;
        let mut files = self.files()?;
        match find(&files, key) {
            Ok(_) => Err(StoreError::AlreadyExists(key.clone())),
            Err(_) => self.write(&mut files, key, Some(value)),
        }
    }

    fn update(&self, key: &Key, value: &Value, revision: Revision) -> Result<Revision, StoreError> {
        let _lock = self.lock()?;
        let mut files = self.files()?;
        if find(&files, key)?.revision != revision {
            return Err(StoreError::Conflict(key.clone()));
        }
        self.write(&mut files, key, Some(value))
    }

    fn delete(&self, key: &Key, revision: Option<Revision>) -> Result<Stored, StoreError> {
        let _lock = self.lock()?;
        let mut files = self.files()?;
        let stored = find(&files, key)?;
        if revision.is_some_and(|revision| revision != stored.revision) {
            return Err(StoreError::Conflict(key.clone()));
        }
        self.write(&mut files, key, None)?;
        Ok(stored)
    }

    /// Lifetimes never end here.
    fn put(&self, key: &Key, value: &Value, _: Option<Duration>) -> Result<Revision, StoreError> {
        let _lock = self.lock()?;
        self.write(&mut *self.files()?, key, Some(value))
    }
}

impl Stamp {
    fn of(metadata: &fs::Metadata) -> Stamp {
        let nanoseconds =
            |seconds: i64, rest: i64| seconds.saturating_mul(1_000_000_000).saturating_add(rest);
        Stamp {
            inode: metadata.ino(),
            bytes: metadata.len(),
            modified: nanoseconds(metadata.mtime(), metadata.mtime_nsec()),
            changed: nanoseconds(metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

fn find(files: &Files, key: &Key) -> Result<Stored, StoreError> {
    for known in files.values() {
        if let Some((_, value)) = known.file.entries().flat_map(views).find(|(known, _)| known == key) {
            let revision = Revision(known.stamp.modified);
            return Ok(Stored { key: key.clone(), value, revision });
        }
    }
    Err(StoreError::NotFound(key.clone()))
}

/// What a resource may be asked for as: an affinity is also a resource of that kind, to be read.
fn views((key, value): &(Key, Value)) -> impl Iterator<Item = (Key, Value)> {
    let resource = match key {
        Key::Affinity { .. } => books::resource(key, value),
        _ => None,
    };
    let name =
        resource.as_ref().and_then(|resource| resource["metadata"]["name"].as_str()).map(str::to_owned);
    let also = name.zip(resource).map(|(name, resource)| {
        let kind = ResourceKind::BlockAffinity;
        (Key::Resource(ResourceKey { kind, namespace: String::new(), name }), resource)
    });
    std::iter::once((key.clone(), value.clone())).chain(also)
}

/// What is written for a value.
fn resource(key: &Key, value: &Value) -> Result<Value, String> {
    match key {
        Key::Resource(ResourceKey { kind: ResourceKind::BlockAffinity, .. }) => {
            Err("block affinities are IPAM's to write".to_owned())
        }
        Key::Resource(_) => Ok(value.clone()),
        Key::Status(_) => Err("a directory keeps no reports of nodes".to_owned()),
        _ => books::resource(key, value).ok_or_else(|| "it is no mapping".to_owned()),
    }
}

/// The file of a resource that nobody has written yet. `_` stands in no name of Calico's, so no two keys share one.
fn file_name(key: &Key) -> String {
    let (kind, names) = match key {
        Key::Resource(ResourceKey { kind, namespace, name }) if kind.is_namespaced() => {
            (kind.name(), vec![namespace.clone(), name.clone()])
        }
        Key::Resource(ResourceKey { kind, name, .. }) => (kind.name(), vec![name.clone()]),
        Key::Block(block) => ("IPAMBlock", vec![block.to_string().replace('/', "-")]),
        Key::Affinity { node, block } => {
            ("BlockAffinity", vec![node.clone(), block.to_string().replace('/', "-")])
        }
        Key::Handle(handle) => ("IPAMHandle", vec![handle.clone()]),
        Key::IpamConfig => ("IPAMConfig", vec!["default".to_owned()]),
        Key::Status(status) => ("status", vec![status.to_string()]),
    };
    let mut name = kind.to_lowercase();
    for part in names {
        name.push('_');
        for letter in part.chars() {
            if letter.is_ascii_alphanumeric() || "-.:".contains(letter) {
                name.push(letter);
            } else {
                name.push_str(&format!("%{:x}", u32::from(letter)));
            }
        }
    }
    if name.len() > NAME_MAX {
        let mut hasher = DefaultHasher::new();
        key.hash(&mut hasher);
        name.truncate(NAME_MAX - 17);
        name.push_str(&format!("_{:016x}", hasher.finish()));
    }
    name.push_str(".yaml");
    name
}

fn unavailable(path: &Path, error: &io::Error) -> StoreError {
    StoreError::Unavailable(format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests;

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
mod reports;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::{self, OpenOptions};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::Value;

use self::file::File;
use super::{Key, Listed, ResourceKey, Revision, Store, StoreError, Stored, Under};
use crate::ResourceKind;
use crate::books;
use crate::directory::DirectoryConfig;
use crate::scan::{self, ASIDE, Contents, LAST, LOCK, Stamp};

/// Longest name of a file (`NAME_MAX`), without what is added while it is written.
const NAME_MAX: usize = 240;

/// A directory of resources.
#[derive(Debug)]
pub struct DirectoryStore {
    path: PathBuf,
    max_file_bytes: u64,
    held: Mutex<Held>,
}

/// What was read, for as long as the files are the same.
#[derive(Debug, Default)]
struct Held {
    files: Files,
    /// Which files hold a key: of several, the one whose name comes first is in force.
    places: HashMap<Key, BTreeSet<PathBuf>>,
    /// The last look at all files.
    look: Option<Look>,
}

#[derive(Debug)]
struct Known {
    stamp: Stamp,
    /// A later change has another stamp.
    is_settled: bool,
    file: File,
}

/// A look at all files.
#[derive(Debug)]
struct Look {
    at: Instant,
    took: Duration,
    /// The directory as it was then, or when we wrote last: it changes where a file comes, goes or takes another's place.
    /// Nothing where it may change without having another stamp.
    directory: Option<Stamp>,
    /// The file of the last revision, likewise: whoever writes as we do replaces it first.
    last_write: Option<Stamp>,
    /// The greatest revision seen.
    last: i64,
}

/// All files are looked at again where the last look is so many times older than it took. What is edited in place goes
/// unnoticed for so long, unless it is asked for; what is written by renaming doesn't.
const LOOK_AGAIN: u32 = 20;
/// Changes of a directory this far apart have different times on any kernel: its clock ticks every 10 ms at the latest.
const TICKS: Duration = Duration::from_millis(20);

type Files = BTreeMap<PathBuf, Known>;

impl Held {
    fn put(&mut self, path: PathBuf, known: Known) {
        self.remove(&path);
        for key in known.file.entries().flat_map(|(key, value)| keys(key, value)) {
            self.places.entry(key).or_default().insert(path.clone());
        }
        if let Some(look) = &mut self.look {
            look.last = look.last.max(known.stamp.modified);
        }
        self.files.insert(path, known);
    }

    fn remove(&mut self, path: &Path) {
        let Some(known) = self.files.remove(path) else { return };
        for key in known.file.entries().flat_map(|(key, value)| keys(key, value)) {
            if let Some(places) = self.places.get_mut(&key) {
                places.remove(path);
                if places.is_empty() {
                    self.places.remove(&key);
                }
            }
        }
    }

    /// The file in force for a key, as it was when it was read.
    fn place(&self, key: &Key) -> Option<(&Path, &Known)> {
        let path = self.places.get(key)?.first()?;
        Some((path, self.files.get(path)?))
    }

    fn find(&self, key: &Key) -> Result<Stored, StoreError> {
        let missing = || StoreError::NotFound(key.clone());
        let (_, known) = self.place(key).ok_or_else(missing)?;
        let found = known.file.entries().flat_map(views).find(|(known, _)| known == key);
        let (_, value) = found.ok_or_else(missing)?;
        Ok(Stored { key: key.clone(), value, revision: Revision(known.stamp.modified) })
    }
}

/// Is what is written to outlive a power cut?
#[derive(Clone, Copy, PartialEq, Eq)]
enum Lasting {
    Yes,
    No,
}

impl DirectoryStore {
    /// Opens a directory, which is made where it is missing.
    ///
    /// # Errors
    /// It can't be made.
    pub fn open(path: impl Into<PathBuf>) -> Result<DirectoryStore, StoreError> {
        let path = path.into();
        fs::create_dir_all(&path).map_err(|error| unavailable(&path, &error))?;
        let max_file_bytes = DirectoryConfig::at(&path).max_file_bytes;
        Ok(DirectoryStore { path, max_file_bytes, held: Mutex::default() })
    }

    /// The files as they are now. A file that can't be read is left out, with a word about it.
    fn files(&self) -> Result<MutexGuard<'_, Held>, StoreError> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        self.look(&mut held)?;
        Ok(held)
    }

    /// The files, of which that of this key is as it is now.
    fn files_for(&self, key: &Key) -> Result<MutexGuard<'_, Held>, StoreError> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let directory = Stamp::at(&self.path);
        let is_recent = held.look.as_ref().is_some_and(|look| {
            look.directory == directory
                && look.last_write == self.last_write()
                && look.at.elapsed() < look.took.saturating_mul(LOOK_AGAIN)
        });
        let is_same =
            |(path, known): (&Path, &Known)| known.is_settled && Stamp::at(path) == Some(known.stamp);
        let is_same = held.place(key).is_none_or(is_same);
        if !is_recent || !is_same {
            self.look(&mut held)?;
        }
        Ok(held)
    }

    fn look(&self, held: &mut Held) -> Result<(), StoreError> {
        let at = Instant::now();
        let directory = Stamp::at(&self.path).filter(|stamp| stamp.is_older_than(TICKS));
        let last_write = self.last_write();
        let paths = scan::list(&self.path).map_err(|error| unavailable(&self.path, &error))?;
        let present: BTreeSet<&PathBuf> = paths.iter().collect();
        let gone: Vec<PathBuf> = held.files.keys().filter(|path| !present.contains(path)).cloned().collect();
        gone.iter().for_each(|path| held.remove(path));
        for path in paths {
            let Some(stamp) = Stamp::at(&path) else {
                held.remove(&path);
                continue;
            };
            if held.files.get(&path).is_some_and(|known| known.is_settled && known.stamp == stamp) {
                continue;
            }
            let is_settled = stamp.is_settled_or_set();
            match self.read(&path) {
                Ok(file) => held.put(path, Known { stamp, is_settled, file }),
                Err(reason) => {
                    tracing::warn!(file = %path.display(), reason, "a file of the datastore is left out");
                    held.remove(&path);
                }
            }
        }
        let last = held.files.values().map(|known| known.stamp.modified).max().unwrap_or(0);
        held.look = Some(Look { at, took: at.elapsed(), directory, last_write, last });
        Ok(())
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

    fn last_write(&self) -> Option<Stamp> {
        Stamp::at(&self.path.join(LAST))
    }

    fn last(&self, held: &Held) -> i64 {
        let written = fs::read_to_string(self.path.join(LAST)).ok();
        let written = written.and_then(|text| text.trim().parse().ok()).unwrap_or(0);
        held.look.as_ref().map_or(written, |look| look.last.max(written))
    }

    /// A revision above all others, written down: it outlives the file that it is given to.
    fn next(&self, held: &Held) -> Result<i64, StoreError> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let now = i64::try_from(now.as_nanos()).unwrap_or(i64::MAX);
        let next = now.max(self.last(held).saturating_add(1));
        // Not made to outlive a power cut: the clock goes on, and files say when they were written.
        self.replace(&self.path.join(LAST), &next.to_string(), next, Lasting::No)?;
        Ok(next)
    }

    /// Puts a text in a file's place, whole or not at all.
    fn replace(&self, path: &Path, text: &str, revision: i64, lasting: Lasting) -> Result<(), StoreError> {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        // No name that counts, and one that only who holds the lock uses.
        let aside = self.path.join(format!(".{name}{ASIDE}"));
        let write = || -> io::Result<()> {
            let mut file = fs::File::create(&aside)?;
            if let Ok(metadata) = fs::metadata(path) {
                file.set_permissions(metadata.permissions())?;
            }
            file.write_all(text.as_bytes())?;
            file.set_modified(UNIX_EPOCH + Duration::from_nanos(revision.unsigned_abs()))?;
            if lasting == Lasting::Yes {
                file.sync_all()?;
            }
            // A link is how mounted configuration is made; what it leads to is what is written.
            let target = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
            fs::rename(&aside, target)?;
            if lasting == Lasting::Yes { fs::File::open(&self.path)?.sync_all() } else { Ok(()) }
        };
        write().map_err(|error| {
            let _ = fs::remove_file(&aside);
            unavailable(path, &error)
        })
    }

    /// Writes, replaces or removes what a key stands for, in its file. Gives the revision of the write.
    fn write(&self, held: &mut Held, key: &Key, value: Option<&Value>) -> Result<Revision, StoreError> {
        let unusable = |reason: String| StoreError::Unusable { key: key.clone(), reason };
        let resource = value.map(|value| resource(key, value)).transpose().map_err(unusable)?;
        let holder = held.place(key).map(|(path, _)| path.to_owned());
        let (path, text) = match (holder, &resource) {
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
        let revision = self.next(held)?;
        if text.is_empty() {
            fs::remove_file(&path).map_err(|error| unavailable(&path, &error))?;
            held.remove(&path);
        } else {
            self.replace(&path, &text, revision, Lasting::Yes)?;
            let metadata = fs::metadata(&path).map_err(|error| unavailable(&path, &error))?;
            // Its time is its revision, which nothing else has.
            held.put(path, Known { stamp: Stamp::of(&metadata), is_settled: true, file });
        }
        if let Some(look) = &mut held.look {
            // What changed the directory was us, as far as anybody who takes the lock is concerned.
            look.directory = Stamp::at(&self.path);
            look.last_write = self.last_write();
            look.last = look.last.max(revision);
        }
        Ok(Revision(revision))
    }
}

impl Store for DirectoryStore {
    fn get(&self, key: &Key) -> Result<Stored, StoreError> {
        if let Key::Status(status) = key {
            return reports::get(&self.path, status);
        }
        self.files_for(key)?.find(key)
    }

    fn list(&self, under: &Under) -> Result<Listed, StoreError> {
        if matches!(under, Under::WorkloadStatuses { .. } | Under::HostStatuses { .. }) {
            let stored = reports::list(&self.path, under);
            let last = stored.iter().map(|stored| stored.revision.0).fold(0, i64::max);
            return Ok(Listed { stored, revision: Revision(last) });
        }
        let files = self.files()?;
        let mut stored = BTreeMap::new();
        // Of two with one key, the one in the file whose name comes first is in force.
        for known in files.files.values() {
            let revision = Revision(known.stamp.modified);
            for (key, value) in known.file.entries().flat_map(views).filter(|(key, _)| under.holds(key)) {
                stored.entry(key.clone()).or_insert(Stored { key, value, revision });
            }
        }
        Ok(Listed { stored: stored.into_values().collect(), revision: Revision(self.last(&files)) })
    }

    fn create(&self, key: &Key, value: &Value) -> Result<Revision, StoreError> {
        let _lock = self.lock()?;
        let mut files = self.files_for(key)?;
        match files.find(key) {
            Ok(_) => Err(StoreError::AlreadyExists(key.clone())),
            Err(_) => self.write(&mut files, key, Some(value)),
        }
    }

    fn update(&self, key: &Key, value: &Value, revision: Revision) -> Result<Revision, StoreError> {
        let _lock = self.lock()?;
        let mut files = self.files_for(key)?;
        if files.find(key)?.revision != revision {
            return Err(StoreError::Conflict(key.clone()));
        }
        self.write(&mut files, key, Some(value))
    }

    fn delete(&self, key: &Key, revision: Option<Revision>) -> Result<Stored, StoreError> {
        if let Key::Status(status) = key {
            return reports::delete(&self.path, status);
        }
        let _lock = self.lock()?;
        let mut files = self.files_for(key)?;
        let stored = files.find(key)?;
        if revision.is_some_and(|revision| revision != stored.revision) {
            return Err(StoreError::Conflict(key.clone()));
        }
        self.write(&mut files, key, None)?;
        Ok(stored)
    }

    /// Lifetimes end for reports of nodes alone.
    fn put(&self, key: &Key, value: &Value, lifetime: Option<Duration>) -> Result<Revision, StoreError> {
        if let Key::Status(status) = key {
            return reports::put(&self.path, status, value, lifetime);
        }
        let _lock = self.lock()?;
        self.write(&mut *self.files_for(key)?, key, Some(value))
    }
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

/// The keys of those.
fn keys(key: &Key, value: &Value) -> impl Iterator<Item = Key> {
    let name = match key {
        Key::Affinity { .. } => books::resource(key, value)
            .and_then(|resource| resource["metadata"]["name"].as_str().map(str::to_owned)),
        _ => None,
    };
    let kind = ResourceKind::BlockAffinity;
    let also = name.map(|name| Key::Resource(ResourceKey { kind, namespace: String::new(), name }));
    std::iter::once(key.clone()).chain(also)
}

/// What is written for a value.
fn resource(key: &Key, value: &Value) -> Result<Value, String> {
    match key {
        Key::Resource(ResourceKey { kind: ResourceKind::BlockAffinity, .. }) => {
            Err("block affinities are IPAM's to write".to_owned())
        }
        Key::Resource(_) => Ok(value.clone()),
        Key::Status(_) => Err("reports of nodes are put, whatever was there".to_owned()),
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

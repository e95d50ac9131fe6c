//! All files together: the set of resources that they ask for, and the difference from what was announced.

use std::collections::btree_map::Entry as Slot;
use std::collections::hash_map::RandomState;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use model::{Key, Resource};

use crate::event::Ignored;
use crate::invalid::{Invalid, Position, Reason};
use crate::manifest::{self, Entry, Manifest, Reader};
use crate::scan::{self, Contents, Seen, Stamp};

/// Files that are read before what they say is taken: their trees take memory meanwhile.
const PORTION: usize = 4096;
/// Files that are worth a thread of their own.
const WORTH_A_THREAD: usize = 64;

/// The limits of what is read, and for whom.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) max_file_bytes: u64,
    pub(crate) max_resources: usize,
    /// Who reads.
    pub(crate) reader: Reader,
}

/// What each file says, last good contents first of all.
#[derive(Debug)]
pub(crate) struct Files {
    limits: Limits,
    hasher: RandomState,
    files: BTreeMap<Name, Known>,
    /// More files than may be; those past the limit, in the order of their names, are left out.
    too_many: bool,
    /// Who gives each resource. The file whose name comes first is obeyed.
    givers: BTreeMap<Key, Givers>,
    touched: Touched,
    /// How many of the files say that the datastore may not be used.
    closing: usize,
    /// What was said last was about everything, as a limit was exceeded.
    said_all: bool,
}

/// A file's path. As a text: paths are compared part by part, which takes a third of a load's time, and files of one directory
/// have the same order either way.
pub(crate) type Name = OsString;

/// The files that give a resource, in the order of their names: nearly always one.
#[derive(Debug, Default)]
struct Givers(Vec<(Name, Entry)>);

impl Givers {
    fn place(&self, file: &OsStr) -> Result<usize, usize> {
        self.0.binary_search_by(|(name, _)| name.as_os_str().cmp(file))
    }

    fn insert(&mut self, file: &OsStr, entry: Entry) {
        match self.place(file) {
            Ok(place) => self.0[place].1 = entry,
            Err(place) => self.0.insert(place, (file.to_owned(), entry)),
        }
    }

    fn remove(&mut self, file: &OsStr) {
        if let Ok(place) = self.place(file) {
            self.0.remove(place);
        }
    }

    fn first(&self) -> Option<&(Name, Entry)> {
        self.0.first()
    }

    fn names(&self) -> impl Iterator<Item = &Name> {
        self.0.iter().map(|(name, _)| name)
    }
}

/// What may say something else than when it was asked last.
#[derive(Debug, Default)]
struct Touched {
    files: BTreeSet<Name>,
    resources: BTreeSet<Key>,
}

#[derive(Debug)]
struct Known {
    seen: Seen,
    /// Which state of the file that was; nothing where another one could have the same.
    stamp: Option<Stamp>,
    /// The last good contents, empty where there never were any.
    manifest: Manifest,
    /// Why the present contents are not in force.
    problems: Vec<Invalid>,
}

/// What became of reading a file.
enum Reading {
    Absent,
    Same(Option<Stamp>),
    Other { seen: Seen, stamp: Option<Stamp>, manifest: Result<Manifest, Vec<Invalid>> },
}

/// The resources in force, by dependency and then by key.
pub(crate) type Set = BTreeMap<(Rank, Key), Arc<Resource>>;

/// What all files together ask for.
#[derive(Debug, Default)]
pub(crate) struct Desired {
    pub(crate) set: Set,
    pub(crate) ignored: Vec<Ignored>,
    /// Every problem, by file.
    pub(crate) problems: BTreeMap<Name, Vec<Invalid>>,
}

/// What some of it is now.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    /// Nothing for those that are gone.
    pub(crate) resources: Vec<(Key, Option<Arc<Resource>>)>,
    /// Files, what of them is ignored, and every problem of theirs.
    pub(crate) files: BTreeMap<Name, (Vec<Ignored>, Vec<Invalid>)>,
}

/// What has to be looked at of what files say.
#[derive(Debug)]
pub(crate) enum Said {
    All(Desired),
    Some(Changes),
}

impl Files {
    pub(crate) fn new(limits: Limits) -> Files {
        Files {
            limits,
            hasher: RandomState::new(),
            files: BTreeMap::new(),
            too_many: false,
            givers: BTreeMap::new(),
            touched: Touched::default(),
            closing: 0,
            said_all: false,
        }
    }

    /// Do the files hold anything else than what was read last?
    pub(crate) fn differ(&self, paths: &[PathBuf]) -> bool {
        let mut present = 0;
        for path in self.within_limit(paths) {
            let known = self.files.get(path.as_os_str());
            let is_same = match known.and_then(|known| known.stamp) {
                Some(stamp) if Stamp::at(path) == Some(stamp) => true,
                _ => {
                    let contents = scan::read(path, self.limits.max_file_bytes);
                    let Some(seen) = Seen::of(&contents, &self.hasher) else { continue };
                    known.is_some_and(|known| known.seen == seen)
                }
            };
            present += 1;
            if !is_same {
                return true;
            }
        }
        present != self.files.len()
    }

    fn within_limit<'a>(&self, paths: &'a [PathBuf]) -> &'a [PathBuf] {
        &paths[..paths.len().min(self.limits.max_resources)]
    }

    /// Reads the files anew, which are all that there are; those that are as before are not parsed again.
    pub(crate) fn load(&mut self, paths: &[PathBuf]) {
        self.too_many = paths.len() > self.limits.max_resources;
        let paths = self.within_limit(paths);
        let present: BTreeSet<&OsStr> = paths.iter().map(|path| path.as_os_str()).collect();
        let gone: Vec<Name> =
            self.files.keys().filter(|path| !present.contains(path.as_os_str())).cloned().collect();
        gone.iter().for_each(|path| self.forget(Path::new(path)));
        let suspects: Vec<&PathBuf> = paths.iter().filter(|path| !self.is_as_stamped(path)).collect();
        for some in suspects.chunks(PORTION) {
            for (path, reading) in self.read(some) {
                self.put(path, reading);
            }
        }
    }

    /// Reads some of the files anew. False: there are too many for that to do, and all have to be.
    pub(crate) fn reload(&mut self, paths: &BTreeSet<PathBuf>) -> bool {
        if self.too_many || self.files.len() + paths.len() > self.limits.max_resources {
            return false;
        }
        let paths: Vec<&PathBuf> = paths.iter().collect();
        for some in paths.chunks(PORTION) {
            for (path, reading) in self.read(some) {
                self.put(path, reading);
            }
        }
        true
    }

    fn is_as_stamped(&self, path: &Path) -> bool {
        let stamp = self.files.get(path.as_os_str()).and_then(|known| known.stamp);
        stamp.is_some_and(|stamp| Stamp::at(path) == Some(stamp))
    }

    /// Reads and parses, on all cores where it is worth it.
    fn read<'a>(&self, paths: &[&'a PathBuf]) -> Vec<(&'a PathBuf, Reading)> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let share = paths.len().div_ceil(cores).max(WORTH_A_THREAD);
        let read = |paths: &[&'a PathBuf]| -> Vec<_> {
            paths.iter().map(|path| (*path, self.read_one(path))).collect()
        };
        if paths.len() <= share {
            return read(paths);
        }
        std::thread::scope(|scope| {
            let shares: Vec<_> = paths.chunks(share).map(|some| scope.spawn(move || read(some))).collect();
            let join = |thread: std::thread::ScopedJoinHandle<'_, _>| match thread.join() {
                Ok(readings) => readings,
                Err(panic) => std::panic::resume_unwind(panic),
            };
            shares.into_iter().flat_map(join).collect()
        })
    }

    fn read_one(&self, path: &Path) -> Reading {
        // Before it is read: a change in between makes it another one.
        let stamp = Stamp::at(path).filter(Stamp::is_settled);
        let contents = scan::read(path, self.limits.max_file_bytes);
        let Some(seen) = Seen::of(&contents, &self.hasher) else { return Reading::Absent };
        match self.files.get(path.as_os_str()) {
            Some(known) if known.seen == seen => Reading::Same(stamp),
            _ => Reading::Other { seen, stamp, manifest: self.manifest(path, contents) },
        }
    }

    fn put(&mut self, path: &Path, reading: Reading) {
        let (seen, stamp, manifest) = match reading {
            Reading::Absent => return self.forget(path),
            Reading::Same(stamp) => {
                if let Some(known) = self.files.get_mut(path.as_os_str()) {
                    known.stamp = stamp;
                }
                return;
            }
            Reading::Other { seen, stamp, manifest } => (seen, stamp, manifest),
        };
        let name = path.as_os_str();
        self.touched.files.insert(name.to_owned());
        match manifest {
            Ok(manifest) => {
                self.take_back(path);
                self.closing += usize::from(manifest.closes);
                for entry in &manifest.entries {
                    let key = entry.resource.key();
                    self.givers.entry(key.clone()).or_default().insert(name, entry.clone());
                    self.touched.resources.insert(key);
                }
                self.files.insert(name.to_owned(), Known { seen, stamp, manifest, problems: Vec::new() });
            }
            Err(problems) => {
                let last_good = self.files.remove(name).map(|known| known.manifest).unwrap_or_default();
                self.files.insert(name.to_owned(), Known { seen, stamp, manifest: last_good, problems });
            }
        }
    }

    fn forget(&mut self, path: &Path) {
        self.take_back(path);
        if self.files.remove(path.as_os_str()).is_some() {
            self.touched.files.insert(path.as_os_str().to_owned());
        }
    }

    /// A file gives nothing any more.
    fn take_back(&mut self, path: &Path) {
        let Some(known) = self.files.get(path.as_os_str()) else { return };
        self.closing -= usize::from(known.manifest.closes);
        for key in known.manifest.entries.iter().map(|entry| entry.resource.key()) {
            if let Some(givers) = self.givers.get_mut(&key) {
                givers.remove(path.as_os_str());
                if givers.first().is_none() {
                    self.givers.remove(&key);
                }
            }
            self.touched.resources.insert(key);
        }
    }

    /// Does any of them say that the datastore may not be used?
    pub(crate) fn are_closed(&self) -> bool {
        self.closing > 0
    }

    /// What may be other than when this was asked last, and what it is now.
    pub(crate) fn said(&mut self, directory: &Path) -> Said {
        let touched = std::mem::take(&mut self.touched);
        let is_too_much = self.too_many || self.givers.len() > self.limits.max_resources;
        if std::mem::replace(&mut self.said_all, is_too_much) || is_too_much {
            return Said::All(self.desired(directory));
        }
        let Touched { mut files, resources } = touched;
        let mut changes = Changes::default();
        for key in resources {
            let givers = self.givers.get(&key);
            // Who was one of two may be the only one now.
            files.extend(givers.into_iter().flat_map(Givers::names).cloned());
            let resource = givers.and_then(Givers::first).map(|(_, entry)| &entry.resource);
            changes.resources.push((key, resource.cloned()));
        }
        for file in files {
            let (ignored, problems) = match self.files.get(&file) {
                Some(known) => (known.manifest.ignored.clone(), self.problems(Path::new(&file), known)),
                None => Default::default(),
            };
            changes.files.insert(file, (ignored, problems));
        }
        Said::Some(changes)
    }

    /// Why a file's present contents aren't in force, and which of its resources others give.
    fn problems(&self, file: &Path, known: &Known) -> Vec<Invalid> {
        let mut problems = known.problems.clone();
        for entry in &known.manifest.entries {
            let key = entry.resource.key();
            if let Some((first, obeyed)) = self.givers.get(&key).and_then(Givers::first)
                && first != file.as_os_str()
            {
                problems.push(manifest::duplicate(file, entry, &key, Path::new(first), obeyed.position));
            }
        }
        problems
    }

    /// Takes contents that stand in no file, under a name for messages.
    pub(crate) fn add(&mut self, name: &Path, bytes: Vec<u8>) {
        let contents = scan::within(bytes, self.limits.max_file_bytes);
        let Some(seen) = Seen::of(&contents, &self.hasher) else { return };
        let manifest = self.manifest(name, contents);
        self.put(name, Reading::Other { seen, stamp: None, manifest });
    }

    /// What the files say, each with its file.
    pub(crate) fn entries(&self) -> impl Iterator<Item = (&Path, &Entry)> {
        let files = self.files.iter();
        files.flat_map(|(path, known)| known.manifest.entries.iter().map(|entry| (Path::new(path), entry)))
    }

    fn manifest(&self, path: &Path, contents: Contents) -> Result<Manifest, Vec<Invalid>> {
        let bytes = match contents {
            Contents::Bytes(bytes) => bytes,
            Contents::Bad(reason) => return Err(vec![manifest::whole_file(path, reason)]),
            Contents::Absent => Vec::new(),
        };
        let text = std::str::from_utf8(&bytes).map_err(|error| {
            let position = Some(position_after(&bytes[..error.valid_up_to()]));
            vec![Invalid { position, ..manifest::whole_file(path, Reason::NotText) }]
        })?;
        manifest::parse(path, text, self.limits.max_resources, self.limits.reader)
    }

    /// Merges the files. Of two resources with one key, the one in the file whose name comes first stays.
    pub(crate) fn desired(&self, directory: &Path) -> Desired {
        let mut desired = Desired::default();
        if self.too_many {
            let reason = Reason::TooManyFiles { max: self.limits.max_resources };
            desired.problem(manifest::whole_file(directory, reason));
        }
        let mut owners: BTreeMap<Key, (&Path, Option<Position>)> = BTreeMap::new();
        for (path, known) in &self.files {
            let path = Path::new(path);
            known.problems.iter().for_each(|problem| desired.problem(problem.clone()));
            desired.ignored.extend(known.manifest.ignored.iter().cloned());
            for entry in &known.manifest.entries {
                let key = entry.resource.key();
                let slot = match owners.entry(key.clone()) {
                    Slot::Occupied(owner) => {
                        let (first_file, first) = *owner.get();
                        desired.problem(manifest::duplicate(path, entry, &key, first_file, first));
                        continue;
                    }
                    Slot::Vacant(slot) => slot,
                };
                if desired.set.len() == self.limits.max_resources {
                    desired.problem(too_many(path, entry, &key, self.limits.max_resources));
                    break;
                }
                slot.insert((path, entry.position));
                desired.set.insert((Rank::of(&key), key), Arc::clone(&entry.resource));
            }
        }
        desired
    }
}

impl Desired {
    fn problem(&mut self, problem: Invalid) {
        self.problems.entry(problem.file.clone().into_os_string()).or_default().push(problem);
    }
}

/// Where the byte behind these stands.
fn position_after(bytes: &[u8]) -> Position {
    let line_start = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |newline| newline + 1);
    let number = |count: usize| u32::try_from(count + 1).unwrap_or(u32::MAX);
    Position {
        line: number(bytes.iter().filter(|byte| **byte == b'\n').count()),
        column: number(String::from_utf8_lossy(&bytes[line_start..]).chars().count()),
    }
}

fn too_many(file: &Path, entry: &Entry, key: &Key, max: usize) -> Invalid {
    Invalid {
        position: entry.position,
        resource: Some(key.to_string()),
        ..manifest::whole_file(file, Reason::TooManyResources { max })
    }
}

/// Which resources a resource leans on: those of a lower rank are put first and removed last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Rank {
    ClusterInformation,
    FelixConfiguration,
    BgpConfiguration,
    Node,
    IpPool,
    BlockAffinity,
    BgpFilter,
    IpamBlock,
    BgpPeer,
    Tier,
    NetworkSet,
    Profile,
    NetworkPolicy,
    WorkloadEndpoint,
    HostEndpoint,
    NodeStatus,
}

impl Rank {
    pub(crate) fn of(key: &Key) -> Rank {
        match key {
            Key::ClusterInformation(_) => Rank::ClusterInformation,
            Key::FelixConfiguration(_) => Rank::FelixConfiguration,
            Key::BgpConfiguration(_) => Rank::BgpConfiguration,
            Key::Node(_) => Rank::Node,
            Key::IpPool(_) => Rank::IpPool,
            Key::BlockAffinity(..) => Rank::BlockAffinity,
            Key::BgpFilter(_) => Rank::BgpFilter,
            Key::IpamBlock(_) => Rank::IpamBlock,
            Key::BgpPeer(_) => Rank::BgpPeer,
            Key::Tier(_) => Rank::Tier,
            Key::NetworkSet(..) => Rank::NetworkSet,
            Key::Profile(_) => Rank::Profile,
            Key::NetworkPolicy(_) => Rank::NetworkPolicy,
            Key::WorkloadEndpoint(..) => Rank::WorkloadEndpoint,
            Key::HostEndpoint(_) => Rank::HostEndpoint,
            Key::NodeStatus(_) => Rank::NodeStatus,
        }
    }
}

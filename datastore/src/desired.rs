//! All files together: the set of resources that they ask for, and the difference from what was announced.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry as Slot;
use std::collections::hash_map::RandomState;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use model::{Key, Resource, Update};

use crate::event::Ignored;
use crate::invalid::{Invalid, Position, Reason};
use crate::manifest::{self, Entry, Manifest};
use crate::scan::{self, Contents, Seen};

/// The limits of what is read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) max_file_bytes: u64,
    pub(crate) max_resources: usize,
}

/// What each file says, last good contents first of all.
#[derive(Debug)]
pub(crate) struct Files {
    limits: Limits,
    hasher: RandomState,
    files: BTreeMap<PathBuf, Known>,
    /// More files than may be; those past the limit, in the order of their names, are left out.
    too_many: bool,
}

#[derive(Debug)]
struct Known {
    seen: Seen,
    /// The last good contents, empty where there never were any.
    manifest: Manifest,
    /// Why the present contents are not in force.
    problems: Vec<Invalid>,
}

/// The resources in force, by dependency and then by key.
pub(crate) type Set = BTreeMap<(Rank, Key), Arc<Resource>>;

/// What all files together ask for.
#[derive(Debug, Default)]
pub(crate) struct Desired {
    pub(crate) set: Set,
    pub(crate) ignored: Vec<Ignored>,
    /// Every problem, by file.
    pub(crate) problems: BTreeMap<PathBuf, Vec<Invalid>>,
}

impl Files {
    pub(crate) fn new(limits: Limits) -> Files {
        Files { limits, hasher: RandomState::new(), files: BTreeMap::new(), too_many: false }
    }

    /// Do the files hold anything else than what was read last?
    pub(crate) fn differ(&self, paths: &[PathBuf]) -> bool {
        let mut present = 0;
        for path in self.within_limit(paths) {
            let contents = scan::read(path, self.limits.max_file_bytes);
            let Some(seen) = Seen::of(&contents, &self.hasher) else { continue };
            present += 1;
            if self.files.get(path).is_none_or(|known| known.seen != seen) {
                return true;
            }
        }
        present != self.files.len()
    }

    fn within_limit<'a>(&self, paths: &'a [PathBuf]) -> &'a [PathBuf] {
        &paths[..paths.len().min(self.limits.max_resources)]
    }

    /// Reads the files anew; those whose contents are as before are not parsed again.
    pub(crate) fn load(&mut self, paths: &[PathBuf]) {
        self.too_many = paths.len() > self.limits.max_resources;
        let mut before = std::mem::take(&mut self.files);
        for path in self.within_limit(paths) {
            let contents = scan::read(path, self.limits.max_file_bytes);
            let Some(seen) = Seen::of(&contents, &self.hasher) else { continue };
            let known = match before.remove(path) {
                Some(known) if known.seen == seen => known,
                earlier => {
                    let last_good = earlier.map(|known| known.manifest).unwrap_or_default();
                    self.parse(path, contents, seen, last_good)
                }
            };
            self.files.insert(path.clone(), known);
        }
    }

    /// Takes contents that stand in no file, under a name for messages.
    pub(crate) fn add(&mut self, name: &Path, bytes: Vec<u8>) {
        let contents = scan::within(bytes, self.limits.max_file_bytes);
        let Some(seen) = Seen::of(&contents, &self.hasher) else { return };
        let known = self.parse(name, contents, seen, Manifest::default());
        self.files.insert(name.to_owned(), known);
    }

    /// What the files say, each with its file.
    pub(crate) fn entries(&self) -> impl Iterator<Item = (&Path, &Entry)> {
        let files = self.files.iter();
        files.flat_map(|(path, known)| known.manifest.entries.iter().map(|entry| (path.as_path(), entry)))
    }

    fn parse(&self, path: &Path, contents: Contents, seen: Seen, last_good: Manifest) -> Known {
        match self.manifest(path, contents) {
            Ok(manifest) => Known { seen, manifest, problems: Vec::new() },
            Err(problems) => Known { seen, manifest: last_good, problems },
        }
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
        manifest::parse(path, text, self.limits.max_resources)
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
        self.problems.entry(problem.file.clone()).or_default().push(problem);
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

/// The changes that lead from one set to another: puts, what others lean on first; then removals, the other way
/// round. Putting first lets a renamed resource take over from its older self without a gap.
pub(crate) fn difference(before: &Set, after: &Set) -> Vec<Update> {
    let puts = after.iter().filter(|(key, resource)| before.get(key) != Some(resource));
    let removals = before.keys().rev().filter(|key| !after.contains_key(key));
    let put = |(_, resource): (_, &Arc<Resource>)| Update::Put(Arc::clone(resource));
    puts.map(put).chain(removals.map(|(_, key)| Update::Remove(key.clone()))).collect()
}

/// Which resources a resource leans on: those of a lower rank are put first and removed last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Rank {
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
}

impl Rank {
    pub(crate) fn of(key: &Key) -> Rank {
        match key {
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
        }
    }
}

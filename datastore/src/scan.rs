//! Which files of a directory count, and their bytes, each within its limit.

use std::fs::{self, File};
use std::hash::BuildHasher;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::invalid::Reason;

/// Whether a file of this name holds resources: `*.yaml`, `*.yml` or `*.json`, and none of the files that
/// editors and tools leave beside them (`.web.yaml.swp`, `#web.yaml#`, `web.yaml~`).
pub(crate) fn counts(path: &Path) -> bool {
    let Some(name) = path.file_name().and_then(|name| name.to_str()) else { return false };
    let extension = path.extension().and_then(|extension| extension.to_str());
    !name.starts_with(['.', '#']) && matches!(extension, Some("yaml" | "yml" | "json"))
}

/// Is it a file that only writers of ours use?
pub(crate) fn is_writers_own(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    name == LOCK || name == LAST || name.starts_with('.') && name.ends_with(ASIDE)
}

/// Held by whoever writes.
pub(crate) const LOCK: &str = ".lock";
/// The last revision that was given.
pub(crate) const LAST: &str = ".revision";
/// What the name of a file ends with that is to take another's place; it begins with a dot.
pub(crate) const ASIDE: &str = ".new";

/// The files that count, in the order of their names.
///
/// # Errors
/// Where the directory is missing or can't be listed.
pub(crate) fn list(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if counts(&path) {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// What reading a file came to.
#[derive(Clone, Debug)]
pub(crate) enum Contents {
    /// Its bytes, at most the limit.
    Bytes(Vec<u8>),
    /// Not a regular file, or no file any more.
    Absent,
    /// There, but not to be had.
    Bad(Reason),
}

/// Reads a file of at most `max_bytes`. Symbolic links are followed, as mounted configuration consists of them.
pub(crate) fn read(path: &Path, max_bytes: u64) -> Contents {
    match try_read(path, max_bytes) {
        Ok(contents) => contents,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Contents::Absent,
        Err(error) => Contents::Bad(Reason::Unreadable(error.kind())),
    }
}

/// Bytes from elsewhere, held to the same limit.
pub(crate) fn within(bytes: Vec<u8>, max_bytes: u64) -> Contents {
    let given = bytes.len() as u64;
    if given > max_bytes {
        Contents::Bad(Reason::FileTooLarge { bytes: given, max: max_bytes })
    } else {
        Contents::Bytes(bytes)
    }
}

fn try_read(path: &Path, max_bytes: u64) -> io::Result<Contents> {
    // Asked before opening: to open a FIFO would wait for its writer.
    if !fs::metadata(path)?.is_file() {
        return Ok(Contents::Absent);
    }
    let file = File::open(path)?;
    let bytes = file.metadata()?.len();
    if bytes > max_bytes {
        return Ok(Contents::Bad(Reason::FileTooLarge { bytes, max: max_bytes }));
    }
    let mut contents = Vec::new();
    // It may have grown since; one byte beyond the limit is enough to know.
    file.take(max_bytes.saturating_add(1)).read_to_end(&mut contents)?;
    Ok(within(contents, max_bytes))
}

/// Which state of a file it is, without a look into it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    inode: u64,
    bytes: u64,
    /// When its contents were written: nanoseconds since 1970.
    pub(crate) modified: i64,
    changed: i64,
}

/// Two changes within the grain of a file system's clock look like one.
const GRAIN: Duration = Duration::from_secs(1);

impl Stamp {
    pub(crate) fn of(metadata: &fs::Metadata) -> Stamp {
        let nanoseconds =
            |seconds: i64, rest: i64| seconds.saturating_mul(1_000_000_000).saturating_add(rest);
        Stamp {
            inode: metadata.ino(),
            bytes: metadata.len(),
            modified: nanoseconds(metadata.mtime(), metadata.mtime_nsec()),
            changed: nanoseconds(metadata.ctime(), metadata.ctime_nsec()),
        }
    }

    /// The state of a file now; nothing where there is none.
    pub(crate) fn at(path: &Path) -> Option<Stamp> {
        fs::metadata(path).ok().map(|metadata| Stamp::of(&metadata))
    }

    /// Is it so old that every later change has another stamp?
    pub(crate) fn is_settled(&self) -> bool {
        self.is_older_than(GRAIN)
    }

    /// The same of a file whose writers may have set its time themselves: a later change sets both times to one, and these
    /// aren't.
    pub(crate) fn is_settled_or_set(&self) -> bool {
        self.modified != self.changed || self.is_settled()
    }

    /// Has it been like this for so long?
    pub(crate) fn is_older_than(&self, age: Duration) -> bool {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let changed = Duration::from_nanos(u64::try_from(self.changed).unwrap_or(0));
        changed + age < now
    }
}

/// What a file held when it was last read: enough to tell whether it changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    /// Length and hash of its bytes.
    Bytes(usize, u64),
    /// Why they weren't to be had.
    Bad(Reason),
}

impl Seen {
    /// `None` for a file that isn't there.
    pub(crate) fn of(contents: &Contents, hasher: &impl BuildHasher) -> Option<Seen> {
        match contents {
            Contents::Bytes(bytes) => Some(Seen::Bytes(bytes.len(), hasher.hash_one(bytes))),
            Contents::Bad(reason) => Some(Seen::Bad(reason.clone())),
            Contents::Absent => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn editors_leftovers_and_other_files_do_not_count() {
        for name in ["a.yaml", "a.yml", "a.json", "a.b.yaml"] {
            assert!(counts(Path::new(name)), "{name}");
        }
        for name in [
            ".a.yaml",
            ".a.yaml.swp",
            "#a.yaml#",
            "#a.yaml",
            "a.yaml~",
            "a.yaml.bak",
            "a.txt",
            "yaml",
            ".yaml",
        ] {
            assert!(!counts(Path::new(name)), "{name}");
        }
    }
}

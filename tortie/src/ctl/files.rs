//! `-f`: a file, a directory, or standard input.

use std::io::Read;
use std::path::{Path, PathBuf};

use clap::Args;
use datastore::{ApiObject, ReadError, read_objects};

/// The most that a file may hold, in bytes: more than etcd takes in one value a hundred times over.
const MAX_BYTES: u64 = 256 << 20;
/// Levels of directories.
const MAX_DEPTH: usize = 32;

/// Where resources come from.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct FileArgs {
    /// A file in YAML or JSON, a directory of them, or - for standard input
    #[arg(short = 'f', long = "filename", value_name = "FILENAME")]
    pub(super) filename: Option<PathBuf>,

    /// Directories within the directory, too
    #[arg(short = 'R', long)]
    pub(super) recursive: bool,

    /// Files without resources are no error
    #[arg(long)]
    pub(super) skip_empty: bool,
}

/// Why no resources came of it.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum FileError {
    /// A file can't be read.
    Unreadable(String),
    /// A file holds something else.
    Invalid(String),
    /// There is nothing in it.
    Empty(String),
}

/// All resources, in their order.
///
/// # Errors
/// The first file that is no good; then nothing of the others counts.
pub(super) fn read(args: &FileArgs, filename: &Path) -> Result<Vec<ApiObject>, FileError> {
    read_as(args, filename, read_objects)
}

/// The same, of texts in another form.
pub(super) fn read_as<E: Into<FileError>>(
    args: &FileArgs,
    filename: &Path,
    read: impl Fn(&str) -> Result<Vec<ApiObject>, E>,
) -> Result<Vec<ApiObject>, FileError> {
    let mut objects = Vec::new();
    for path in paths(filename, args.recursive)? {
        let found = read(&text(&path)?).map_err(Into::into)?;
        if found.is_empty() && !args.skip_empty {
            return Err(FileError::Empty(format!("no resources specified in file {}", path.display())));
        }
        objects.extend(found);
    }
    if objects.is_empty() && !args.skip_empty {
        return Err(FileError::Empty(format!("no resources specified in directory {}", filename.display())));
    }
    Ok(objects)
}

impl From<ReadError> for FileError {
    fn from(error: ReadError) -> Self {
        FileError::Invalid(error.to_string())
    }
}

fn text(path: &Path) -> Result<String, FileError> {
    let mut bytes = Vec::new();
    if path == Path::new("-") {
        std::io::stdin().take(MAX_BYTES).read_to_end(&mut bytes).map_err(|error| unreadable(path, &error))?;
    } else {
        let file = std::fs::File::open(path).map_err(|error| unreadable(path, &error))?;
        file.take(MAX_BYTES).read_to_end(&mut bytes).map_err(|error| unreadable(path, &error))?;
    }
    String::from_utf8(bytes).map_err(|_| FileError::Invalid(format!("{}: not UTF-8", path.display())))
}

/// As Go words it.
fn unreadable(path: &Path, error: &std::io::Error) -> FileError {
    let reason = match error.kind() {
        std::io::ErrorKind::NotFound => "no such file or directory".to_owned(),
        std::io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        _ => error.to_string(),
    };
    FileError::Unreadable(format!("open {}: {reason}", path.display()))
}

/// The file itself, or a directory's manifests by name.
fn paths(path: &Path, recursive: bool) -> Result<Vec<PathBuf>, FileError> {
    if path == Path::new("-") || !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut found = Vec::new();
    collect(path, recursive, MAX_DEPTH, &mut found)?;
    Ok(found)
}

fn collect(
    directory: &Path,
    recursive: bool,
    depth: usize,
    found: &mut Vec<PathBuf>,
) -> Result<(), FileError> {
    let entries = std::fs::read_dir(directory).map_err(|error| unreadable(directory, &error))?;
    let mut paths: Vec<PathBuf> = entries.filter_map(Result::ok).map(|entry| entry.path()).collect();
    paths.sort();
    for path in paths {
        let is_manifest =
            path.extension().is_some_and(|end| ["yaml", "yml", "json"].iter().any(|known| end == *known));
        if path.is_dir() {
            if recursive && depth > 0 {
                collect(&path, recursive, depth - 1, found)?;
            }
        } else if is_manifest {
            found.push(path);
        }
    }
    Ok(())
}

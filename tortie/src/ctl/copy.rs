//! `datastore copy`: a whole site from one datastore into another, as it is.

use std::io::IsTerminal;
use std::path::PathBuf;

use clap::Args;
use datastore::transfer::{self, Existing, Moved, TransferError};
use datastore::{DirectoryStore, Store};
use indicatif::{ProgressBar, ProgressStyle};

use super::{Said, StoreArgs};

/// What `datastore copy` takes.
#[derive(Clone, Debug, Args)]
pub(super) struct CopyArgs {
    #[command(flatten)]
    pub(super) store: StoreArgs,
    #[command(flatten)]
    to: Target,
    /// Make the other datastore the same, whatever it holds
    #[arg(long)]
    replace: bool,
}

#[derive(Clone, Debug, Args)]
#[group(required = true, multiple = false)]
struct Target {
    /// Connection settings of the datastore to write to, as calicoctl has them
    #[arg(long, value_name = "CONFIG")]
    to: Option<PathBuf>,
    /// A directory to write to; made where it is missing
    #[arg(long, value_name = "DIRECTORY")]
    to_directory: Option<PathBuf>,
}

/// Copies, with a bar on a terminal.
pub(super) fn run(from: &dyn Store, args: &CopyArgs) -> Said {
    match copy(from, args) {
        Ok(moved) => Said::fine(report(&moved)),
        Err(error) => Said::failed(error),
    }
}

fn copy(from: &dyn Store, args: &CopyArgs) -> Result<Moved, String> {
    let to: Box<dyn Store> = match (&args.to.to, &args.to.to_directory) {
        (Some(config), _) => datastore::settings::open(config).map_err(|error| error.to_string())?,
        (None, Some(directory)) => {
            Box::new(DirectoryStore::open(directory).map_err(|error| error.to_string())?)
        }
        (None, None) => return Err("name a datastore by --to, or a directory by --to-directory".to_owned()),
    };
    let existing = if args.replace { Existing::Replace } else { Existing::Refuse };
    let bar = std::io::stderr().is_terminal().then(bar);
    let moved = transfer::transfer(from, &*to, existing, |done, total| {
        if let Some(bar) = &bar {
            bar.set_length(total as u64);
            bar.set_position(done as u64);
        }
    });
    if let Some(bar) = &bar {
        bar.finish_and_clear();
    }
    moved.map_err(|error| match error {
        TransferError::NotEmpty(_) => format!("{error}; --replace makes it the same as the other"),
        TransferError::Store(_) => format!("{error}; the same command again goes on where this one ended"),
    })
}

fn bar() -> ProgressBar {
    let bar = ProgressBar::new(0);
    if let Ok(style) = ProgressStyle::with_template("{bar:40} {pos} of {len} ({eta} left)") {
        bar.set_style(style);
    }
    bar
}

fn report(moved: &Moved) -> String {
    let Moved { written, unchanged, removed } = moved;
    let mut text = format!("Copied {written} value(s)");
    if *unchanged > 0 {
        text.push_str(&format!(", {unchanged} were there already"));
    }
    if *removed > 0 {
        text.push_str(&format!(", {removed} that didn't belong there removed"));
    }
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;
    use datastore::{Key, MemoryStore, StoreError};
    use serde_json::json;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: CopyArgs,
    }

    fn args(words: &[&str]) -> CopyArgs {
        Line::parse_from(["copy"].iter().chain(words)).args
    }

    #[test]
    fn a_copy_is_told_in_numbers_and_refused_where_something_else_is() {
        let site = MemoryStore::default();
        site.create(&Key::Handle("h".into()), &json!({"block": {"10.0.0.0/26": 1}})).unwrap();
        site.create(&Key::IpamConfig, &json!({"strict_affinity": true})).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("site");
        let words = ["--to-directory", path.to_str().unwrap()];
        assert_eq!(run(&site, &args(&words)).out, "Copied 2 value(s)\n");
        assert_eq!(run(&site, &args(&words)).out, "Copied 0 value(s), 2 were there already\n");
        site.delete(&Key::Handle("h".into()), None).unwrap();
        let refused = run(&site, &args(&words)).error.unwrap();
        assert_eq!(
            refused,
            "the store to write to isn't empty: it holds IPAMHandle(h); --replace makes it the same as the other"
        );
        let said = run(&site, &args(&[words[0], words[1], "--replace"]));
        assert_eq!(said.out, "Copied 0 value(s), 1 were there already, 1 that didn't belong there removed\n");
        let store = DirectoryStore::open(&path).unwrap();
        assert!(matches!(store.get(&Key::Handle("h".into())), Err(StoreError::NotFound(_))));
    }

    #[test]
    fn one_place_to_write_to_is_named() {
        assert!(Line::try_parse_from(["copy"]).is_err());
        assert!(Line::try_parse_from(["copy", "--to", "a", "--to-directory", "b"]).is_err());
    }
}

//! A result with all that it takes to doubt it: commit, machine, versions.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use serde::Serialize;

/// One file of `perf/records/`.
#[derive(Serialize)]
pub struct Record<T> {
    /// What was measured: the file's name.
    pub name: String,
    /// The day, as `date` tells it.
    pub date: String,
    /// The commit, with `+` where the work tree differed from it.
    pub commit: String,
    /// The machine.
    pub machine: BTreeMap<&'static str, String>,
    /// What came out.
    pub results: T,
}

impl<T: Serialize> Record<T> {
    /// A record of this machine and this tree.
    pub fn new(name: &str, results: T) -> Record<T> {
        let dirty = !output("git", &["status", "--porcelain", "--untracked-files=no"]).is_empty();
        let commit = output("git", &["rev-parse", "--short=12", "HEAD"]);
        Record {
            name: name.to_owned(),
            date: output("date", &["+%Y-%m-%d"]),
            commit: if dirty { commit + "+" } else { commit },
            machine: machine(),
            results,
        }
    }

    /// Writes `perf/records/DATE-NAME.json`; says where.
    ///
    /// # Errors
    /// Where the file can't be written.
    pub fn write(&self) -> Result<PathBuf> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("records");
        let path = folder.join(format!("{}-{}.json", self.date, self.name));
        fs::create_dir_all(&folder)?;
        let text = serde_json::to_string_pretty(self)? + "\n";
        fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
        Ok(path)
    }
}

/// What a figure depends on that isn't in the tree.
fn machine() -> BTreeMap<&'static str, String> {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let field = |name: &str| {
        let line = cpuinfo.lines().find(|line| line.starts_with(name));
        line.and_then(|line| line.split(": ").nth(1)).unwrap_or("unknown").to_owned()
    };
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    BTreeMap::from([
        ("cpu", format!("{} family {} model {}", field("model name"), field("cpu family"), field("model\t"))),
        ("cores", cpuinfo.lines().filter(|line| line.starts_with("processor")).count().to_string()),
        ("tsc_mhz", field("cpu MHz")),
        ("kernel", fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned()),
        ("load", load.split(' ').next().unwrap_or_default().to_owned()),
        ("rustc", output("rustc", &["--version"])),
    ])
}

/// A command's output, empty where it can't be had.
fn output(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).current_dir(env!("CARGO_MANIFEST_DIR")).output();
    output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default()
}

//! `tortie first-boot`: what the appliance takes from a config drive in the layout of cloud-init's NoCloud.
//!
//! ```text
//!   meta-data       instance-id, local-hostname
//!   user-data       #cloud-config: hostname, ssh_authorized_keys, write_files below /etc/tortie
//!   network-config  version 2: ethernets                                                         network.rs
//!         │
//!         ▼ read and checked whole, then written below a root; the instance-id last
//!   etc/hostname  etc/ssh/keys/authorized_keys  etc/tortie/…  etc/systemd/network/10-…  etc/resolv.conf
//! ```
//!
//! cloud-init itself would bring Python, some sixty megabytes, for three files. What is asked for here and isn't done is
//! named, so that nobody looks for it in vain.

mod network;

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Component, Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};

use crate::output;
use network::Network;

/// Largest file that is taken from a drive, in bytes; also the most that one of `write_files` may hold.
const MAX_BYTES: u64 = 1 << 20;
/// Where files may be written: what else the root has belongs to the image.
const WRITABLE: &str = "/etc/tortie";
/// Which configuration was taken last.
const INSTANCE: &str = "etc/instance-id";

/// A config drive, and where to.
#[derive(Debug, Args)]
pub(crate) struct FirstBootArgs {
    /// The drive's files: meta-data, user-data, network-config
    drive: PathBuf,
    /// Below which folder to write
    #[arg(long, default_value = "/")]
    root: PathBuf,
}

/// A file to be written.
#[derive(Debug, PartialEq, Eq)]
struct File {
    /// Relative to the root.
    path: PathBuf,
    mode: u32,
    content: Vec<u8>,
}

/// All that a drive says, checked.
#[derive(Debug)]
struct Plan {
    instance: String,
    files: Vec<File>,
    /// What was asked for and isn't done.
    ignored: Vec<String>,
}

/// Takes a drive's configuration, and prints what came of it.
///
/// # Errors
/// As [`take`].
pub(crate) fn run(args: &FirstBootArgs) -> Result<ExitCode> {
    output::print(&take(args)?)?;
    Ok(ExitCode::SUCCESS)
}

/// Takes a drive's configuration, unless it is the one that was taken last; what was done, in lines.
///
/// # Errors
/// The drive can't be read, says what can't be meant, or a file can't be written. Nothing is written then, but for the
/// last case.
fn take(args: &FirstBootArgs) -> Result<String> {
    let plan = Plan::read(&args.drive).with_context(|| format!("config drive {}", args.drive.display()))?;
    let taken = fs::read_to_string(args.root.join(INSTANCE)).unwrap_or_default();
    if taken.trim() == plan.instance {
        return Ok(format!("instance {} is set up already\n", plan.instance));
    }
    plan.write(&args.root)?;
    let mut lines = String::new();
    for file in &plan.files {
        lines.push_str(&format!("wrote /{}\n", file.path.display()));
    }
    for ignored in &plan.ignored {
        lines.push_str(&format!("ignored: {ignored}\n"));
    }
    Ok(lines + &format!("instance {} is set up\n", plan.instance))
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct MetaData {
    #[serde(rename = "instance-id")]
    instance_id: Option<String>,
    #[serde(rename = "local-hostname")]
    local_hostname: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct UserData {
    hostname: Option<String>,
    ssh_authorized_keys: Vec<String>,
    write_files: Vec<WriteFile>,
    #[serde(flatten)]
    others: BTreeMap<String, IgnoredAny>,
}

#[derive(Debug, Deserialize)]
struct WriteFile {
    path: String,
    #[serde(default)]
    content: String,
    /// Octal, as a text.
    permissions: Option<String>,
    #[serde(flatten)]
    others: BTreeMap<String, IgnoredAny>,
}

impl Plan {
    fn read(drive: &Path) -> Result<Plan> {
        let meta: MetaData = yaml(drive, "meta-data")?.context("there is no meta-data")?;
        let instance = meta.instance_id.context("meta-data has no instance-id")?;
        ensure!(
            !instance.is_empty() && instance.len() <= 256 && !instance.contains(char::is_control),
            "instance-id: want a line of at most 256 bytes"
        );
        let mut plan = Plan { instance, files: Vec::new(), ignored: Vec::new() };
        let user = plan.user_data(drive)?;
        if let Some(name) = user.hostname.or(meta.local_hostname) {
            plan.file("etc/hostname", format!("{}\n", hostname(&name)?));
        }
        if !user.ssh_authorized_keys.is_empty() {
            plan.file("etc/ssh/keys/authorized_keys", keys(&user.ssh_authorized_keys)?);
        }
        for file in user.write_files {
            let others = file.others.keys().map(|key| format!("{} of {}", key, file.path));
            plan.ignored.extend(others);
            plan.files.push(written(file)?);
        }
        if let Some(network) = yaml::<Network>(drive, "network-config")? {
            let files = network.files().context("network-config")?;
            plan.files.extend(files.into_iter().map(|(path, text)| File::new(path, text)));
            plan.ignored.extend(network.ignored());
        }
        Ok(plan)
    }

    fn user_data(&mut self, drive: &Path) -> Result<UserData> {
        let Some(text) = text(drive, "user-data")? else { return Ok(UserData::default()) };
        if text.trim().is_empty() {
            return Ok(UserData::default());
        }
        if text.lines().next().map(str::trim_end) != Some("#cloud-config") {
            bail!("user-data doesn't begin with #cloud-config: scripts and archives are not read here");
        }
        let user: UserData = parse(&text, "user-data")?;
        self.ignored.extend(user.others.keys().map(|key| format!("{key} of user-data")));
        Ok(user)
    }

    fn file(&mut self, path: &str, content: String) {
        self.files.push(File::new(PathBuf::from(path), content));
    }

    /// Writes everything, and the instance-id when all of it is there: a power cut before that begins anew.
    fn write(&self, root: &Path) -> Result<()> {
        // What an earlier configuration said of interfaces that this one doesn't name.
        network::remove_earlier(root)?;
        for file in &self.files {
            file.write(root)?;
        }
        File::new(PathBuf::from(INSTANCE), format!("{}\n", self.instance)).write(root)
    }
}

impl File {
    fn new(path: PathBuf, content: String) -> File {
        File { path, mode: 0o644, content: content.into_bytes() }
    }

    /// In one step, and on the disk before the next.
    fn write(&self, root: &Path) -> Result<()> {
        let path = root.join(&self.path);
        let folder = path.parent().context("a file without a folder")?;
        fs::create_dir_all(folder).with_context(|| format!("can't make {}", folder.display()))?;
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let hidden = folder.join(format!(".{name}.new"));
        let write = || -> std::io::Result<()> {
            let mut file = fs::OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(true)
                .mode(self.mode)
                .open(&hidden)?;
            file.write_all(&self.content)?;
            file.set_permissions(fs::Permissions::from_mode(self.mode))?;
            file.sync_all()?;
            fs::rename(&hidden, &path)?;
            fs::File::open(folder)?.sync_all()
        };
        write().with_context(|| format!("can't write {}", path.display()))
    }
}

/// A file of the drive, if it is there.
fn text(drive: &Path, name: &str) -> Result<Option<String>> {
    let file = match fs::File::open(drive.join(name)) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(|| format!("can't read {name}")),
    };
    let mut text = String::new();
    file.take(MAX_BYTES + 1).read_to_string(&mut text).with_context(|| format!("can't read {name}"))?;
    ensure!(text.len() as u64 <= MAX_BYTES, "{name} has more than {MAX_BYTES} bytes");
    Ok(Some(text))
}

fn yaml<T: DeserializeOwned>(drive: &Path, name: &str) -> Result<Option<T>> {
    let text = text(drive, name)?.filter(|text| !text.trim().is_empty());
    text.map(|text| parse(&text, name)).transpose()
}

fn parse<T: DeserializeOwned>(text: &str, name: &str) -> Result<T> {
    serde_saphyr::from_str(text).map_err(|error| anyhow::anyhow!("{name}: {error}"))
}

/// RFC 1123 section 2.1, and Linux's 64 bytes.
fn hostname(name: &str) -> Result<&str> {
    let is_label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.chars().all(|char| char.is_ascii_alphanumeric() || char == '-')
    };
    ensure!(name.len() <= 64 && name.split('.').all(is_label), "{name:?} is no host name");
    Ok(name)
}

fn keys(keys: &[String]) -> Result<String> {
    let line = |key: &String| {
        let key = key.trim();
        ensure!(
            !key.contains(char::is_control) && key.split(' ').count() >= 2,
            "ssh_authorized_keys: {key:?} is no public key"
        );
        Ok(format!("{key}\n"))
    };
    keys.iter().map(line).collect()
}

fn written(file: WriteFile) -> Result<File> {
    let path = Path::new(&file.path);
    let goes_back = path.components().any(|component| component == Component::ParentDir);
    let below = path.strip_prefix(WRITABLE).ok().filter(|below| !goes_back && below.file_name().is_some());
    let Some(below) = below else {
        bail!(
            "write_files: {:?} is not below {WRITABLE}: what else there is belongs to the image",
            file.path
        );
    };
    let mode = match &file.permissions {
        None => 0o644,
        Some(text) => u32::from_str_radix(text.trim_start_matches("0o"), 8)
            .ok()
            .filter(|mode| *mode <= 0o777)
            .with_context(|| {
                format!("write_files: {}: permissions {text:?} are no octal number", file.path)
            })?,
    };
    if file.others.contains_key("encoding") {
        bail!("write_files: {}: only plain text is read, no `encoding`", file.path);
    }
    Ok(File { path: Path::new("etc/tortie").join(below), mode, content: file.content.into_bytes() })
}

#[cfg(test)]
mod tests;

//! A Debian kernel: fetched once as packages, unpacked, never installed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::scenario::CannotRun;
use crate::{Lab, command};

/// Where the kernel comes from. Zero-copy on virtio-net is whole since Linux 6.13; Debian 13's own kernel is 6.12.
const SUITE: &str = "trixie-backports";
/// The smallest of Debian's kernels: only drivers that virtual machines have.
const PACKAGE: &str = "linux-image-cloud-amd64";
/// Where packages come from if apt doesn't know of a mirror.
const MIRROR: &str = "http://deb.debian.org/debian/";
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// Fetching is 51 MB, and 3 MB of lists of packages.
const FETCH: Duration = Duration::from_secs(300);

/// An unpacked kernel.
pub(super) struct Kernel {
    /// Its release, as `uname -r` prints it.
    pub(super) release: String,
    /// The image that boots.
    pub(super) image: PathBuf,
    /// The folder of its modules.
    pub(super) modules: PathBuf,
}

/// Held while a kernel is looked for: labs side by side fetch it once.
static LOOKING: Mutex<()> = Mutex::new(());

/// The kernel kept in `target/vm`, or a newly fetched one. Remove that folder to fetch a newer one.
pub(super) fn get(lab: &Lab) -> Result<Kernel> {
    let _alone = LOOKING.lock().unwrap_or_else(PoisonError::into_inner);
    let folder = folder(lab)?;
    if let Some(kernel) = kept(&folder)? {
        return Ok(kernel);
    }
    let lacking = |error: anyhow::Error| CannotRun(format!("no kernel for a virtual machine: {error:#}"));
    fetch(lab, &folder).map_err(lacking)?;
    kept(&folder)?.context("the kernel's packages have no kernel")
}

/// `target/vm`: beside what this build made.
fn folder(lab: &Lab) -> Result<PathBuf> {
    let target = lab.tools().agent.parent().and_then(Path::parent);
    Ok(target.context("the lab's agent stands in no build folder")?.join("vm"))
}

/// The kernel unpacked in a folder `linux-RELEASE`; the last by name if there are several.
fn kept(folder: &Path) -> Result<Option<Kernel>> {
    let Ok(entries) = fs::read_dir(folder) else { return Ok(None) };
    let mut found: Vec<String> =
        entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect();
    found.sort();
    let Some(name) = found.iter().rev().find(|name| name.starts_with("linux-")) else { return Ok(None) };
    let (root, release) = (folder.join(name), name.trim_start_matches("linux-").to_owned());
    // Debian 13's backports keep the image beside the modules, earlier kernels in /boot.
    let merged = root.join("usr/lib/modules").join(&release);
    let modules = if merged.exists() { merged } else { root.join("lib/modules").join(&release) };
    let beside = modules.join("vmlinuz");
    let image = if beside.exists() { beside } else { root.join("boot").join(format!("vmlinuz-{release}")) };
    ensure!(image.exists(), "{} has no kernel in it: remove it", root.display());
    Ok(Some(Kernel { release, image, modules }))
}

fn fetch(lab: &Lab, folder: &Path) -> Result<()> {
    lab.step(&format!("fetching a kernel: {PACKAGE} of {SUITE}, 54 MB, once"));
    // Lists and packages of our own: what this machine's apt knows and does is left as it is.
    let work = folder.join(format!("fetch-{}", std::process::id()));
    fs::create_dir_all(work.join("lists/partial"))?;
    fs::create_dir_all(work.join("cache/archives/partial"))?;
    let source = format!("deb [signed-by={KEYRING}] {} {SUITE} main\n", mirror());
    fs::write(work.join("sources.list"), source)?;
    let fetched = unpack(&work, folder);
    fs::remove_dir_all(&work)?;
    fetched
}

/// Asks for the package's list, then for the packages that the kernel's one depends on, and unpacks them.
fn unpack(work: &Path, folder: &Path) -> Result<()> {
    run(apt("apt-get", work).args(["update", "-q"]))?;
    let images = depends(work, PACKAGE)?;
    let image = images.iter().find(|name| name.starts_with("linux-image-"));
    let image = image.with_context(|| format!("{PACKAGE} depends on no kernel"))?;
    let release = image.trim_start_matches("linux-image-");
    let mut packages = vec![image.clone()];
    let parts = [format!("linux-binary-{release}"), format!("linux-modules-{release}")];
    packages.extend(depends(work, image)?.into_iter().filter(|name| parts.contains(name)));
    run(apt("apt-get", work).arg("download").args(&packages).current_dir(work))?;
    let root = work.join("root");
    for entry in fs::read_dir(work)?.flatten() {
        if entry.path().extension().is_some_and(|end| end == "deb") {
            run(Command::new("dpkg-deb").arg("--extract").arg(entry.path()).arg(&root))?;
        }
    }
    let kept = folder.join(format!("linux-{release}"));
    // Another lab may have been faster; its copy is as good.
    if !kept.exists() {
        fs::rename(&root, &kept).with_context(|| format!("cannot make {}", kept.display()))?;
    }
    Ok(())
}

/// The packages that one depends on.
fn depends(work: &Path, package: &str) -> Result<Vec<String>> {
    let text = run(apt("apt-cache", work).args(["depends", package]))?;
    let lines = text.lines().filter_map(|line| line.trim().strip_prefix("Depends: "));
    Ok(lines.map(|name| name.trim().to_owned()).collect())
}

/// apt with the folder's lists and nothing else.
fn apt(program: &str, work: &Path) -> Command {
    let mut command = Command::new(program);
    let at = |name: &str, path: &str| format!("Dir::{name}={}", work.join(path).display());
    for option in [
        at("State::lists", "lists"),
        at("Cache", "cache"),
        at("Etc::sourcelist", "sources.list"),
        "Dir::Etc::sourceparts=/dev/null".to_owned(),
        // The folder is root's, and apt's own user needn't read it.
        "APT::Sandbox::User=root".to_owned(),
        "Acquire::Languages=none".to_owned(),
        // Without its lists nothing can be fetched; by default an update that got none succeeds.
        "APT::Update::Error-Mode=any".to_owned(),
    ] {
        command.args(["-o", &option]);
    }
    command
}

/// The mirror that this machine's apt uses for Debian, or the general one.
fn mirror() -> String {
    let mut targets = Command::new("apt-get");
    targets.args(["indextargets", "--format", "$(REPO_URI)", "Created-By: Packages"]);
    let text = run(&mut targets).unwrap_or_default();
    text.lines().find(|line| line.ends_with("/debian/")).unwrap_or(MIRROR).to_owned()
}

fn run(command: &mut Command) -> Result<String> {
    command::run(command, FETCH)
}

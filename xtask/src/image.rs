//! `cargo xtask image`: the appliance, from Debian's packages and this tree.
//!
//! ```text
//!   recipe.rs   what stands in appliance-image/
//!   base.rs     Debian's packages, unpacked once          target/appliance/base-…
//!   driver.rs   virtio_net, made anew with our patch      target/appliance/virtio_net-…
//!   tree.rs     the same with Tortie and our own files    target/appliance/tree
//!   slot.rs     that as a squashfs with its hash behind   target/appliance/tortie-appliance.upgrade
//!   loader.rs   GRUB, for BIOS and for UEFI
//!   disk.rs     partitions around all of it               target/appliance/tortie-appliance.{raw,qcow2}
//! ```

mod base;
mod disk;
mod driver;
mod loader;
mod recipe;
mod slot;
mod tree;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use lab::command;
use lab::progress::Progress;

use crate::{install, tools};
use recipe::Recipe;

/// How long one tool may take.
const LIMIT: Duration = Duration::from_secs(900);

/// What one may ask of `cargo xtask image`.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Fetch Debian's packages anew, though they are kept from an earlier time
    #[arg(long)]
    fresh: bool,
    /// Make everything but the packages' fetch a second time, and say whether it comes out the same
    #[arg(long)]
    twice: bool,
    /// Put this binary into the image rather than the one built from these sources
    #[arg(long, value_name = "PATH")]
    tortie: Option<PathBuf>,
}

/// An appliance as it was made.
pub(crate) struct Image {
    /// The disk, for a hypervisor.
    pub(crate) qcow2: PathBuf,
    /// The same without compression and tables.
    pub(crate) raw: PathBuf,
    /// What `appliance upgrade` takes.
    pub(crate) upgrade: PathBuf,
    /// The files of the root, from which other upgrades can be made.
    pub(crate) tree: PathBuf,
    /// What it calls itself.
    pub(crate) version: String,
}

/// Where everything is made, and what is the same for all of it.
struct Workshop<'a> {
    recipe: Recipe,
    folder: PathBuf,
    tortie: &'a Path,
    /// The only time that occurs in the image: that of the tree's last commit, in seconds since 1970.
    epoch: String,
    version: String,
    progress: &'a Progress,
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let tortie = match &arguments.tortie {
        Some(tortie) => tortie.canonicalize().with_context(|| format!("no {}", tortie.display()))?,
        None => tools::build_tortie()?,
    };
    let begin = Instant::now();
    let progress = Progress::new(None);
    let image = make(&tortie, arguments.fresh, &progress)?;
    if arguments.twice {
        is_made_again_alike(&image, &tortie, &progress)?;
    }
    progress.line(&format!("made in {:.0} s, version {}:", begin.elapsed().as_secs_f64(), image.version));
    for file in [&image.qcow2, &image.raw, &image.upgrade] {
        progress.line(&format!("  {:6.1} MB  {}", on_disk(file)? / 1e6, file.display()));
    }
    progress.line("`cargo xtask boot` boots it; OPERATING.md says how to install it");
    Ok(ExitCode::SUCCESS)
}

/// Makes the image with this router in it. Packages are fetched once; `fresh` fetches them again.
///
/// # Errors
/// No root, a tool is missing or fails, or Debian's mirror can't be reached.
pub(crate) fn make(tortie: &Path, fresh: bool, progress: &Progress) -> Result<Image> {
    if !rustix::process::geteuid().is_root() {
        bail!("making the image needs root: owners and device nodes are part of it");
    }
    if install::install_for_image()? == install::Installed::NotAll {
        bail!("the image can't be made without these packages");
    }
    let workshop = Workshop::open(tortie, progress)?;
    let base = base::get(&workshop, fresh)?;
    let driver = driver::get(&workshop, &base)?;
    let tree = tree::make(&workshop, &base, &driver)?;
    let upgrade = workshop.folder.join("tortie-appliance.upgrade");
    progress.step("packing the root");
    slot::pack(&tree, &upgrade, &workshop.epoch, &workshop.version)?;
    progress.step("putting the disk together");
    let raw = workshop.folder.join("tortie-appliance.raw");
    disk::make(&workshop, &upgrade, &raw)?;
    let qcow2 = workshop.folder.join("tortie-appliance.qcow2");
    let mut convert = Command::new("qemu-img");
    convert.args(["convert", "-c", "-f", "raw", "-O", "qcow2"]).arg(&raw).arg(&qcow2);
    command::run(&mut convert, LIMIT)?;
    Ok(Image { qcow2, raw, upgrade, tree, version: workshop.version })
}

/// The image that [`make`] made last.
///
/// # Errors
/// There is none, or not all of it.
pub(crate) fn kept() -> Result<Image> {
    let folder = target()?.join("appliance");
    let file = |name: &str| folder.join(format!("tortie-appliance.{name}"));
    let image = Image {
        qcow2: file("qcow2"),
        raw: file("raw"),
        upgrade: file("upgrade"),
        tree: folder.join("tree"),
        version: slot::version(&file("upgrade"))
            .context("no image was made yet: `cargo xtask image` makes one")?,
    };
    ensure!(image.qcow2.exists() && image.tree.exists(), "the image in {} isn't whole", folder.display());
    Ok(image)
}

/// An upgrade like the image's, with another version's name, from its files with some changed.
///
/// # Errors
/// The files can't be copied, `change` fails, or they can't be packed.
pub(crate) fn variant(
    image: &Image,
    version: &str,
    change: impl FnOnce(&Path) -> Result<()>,
) -> Result<PathBuf> {
    let folder = image.tree.parent().context("the image's files stand in no folder")?;
    let (tree, upgrade) = (folder.join(format!("tree-{version}")), folder.join(format!("{version}.upgrade")));
    clear(&tree)?;
    command::run(Command::new("cp").arg("-al").arg(&image.tree).arg(&tree), LIMIT)?;
    change(&tree)?;
    slot::pack(&tree, &upgrade, &epoch()?, version)?;
    clear(&tree)?;
    Ok(upgrade)
}

impl<'a> Workshop<'a> {
    fn open(tortie: &'a Path, progress: &'a Progress) -> Result<Workshop<'a>> {
        let folder = target()?.join("appliance");
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let recipe = Recipe::read(&tools::workspace().join("appliance-image"))?;
        let epoch = epoch()?;
        let commit = git(&["describe", "--always", "--dirty", "--exclude=*"])?;
        let version = format!("{}-{commit}", env!("CARGO_PKG_VERSION"));
        Ok(Workshop { recipe, folder, tortie, epoch, version, progress })
    }
}

/// Cargo's build folder, in which this program stands as `debug/xtask`.
fn target() -> Result<PathBuf> {
    let own = std::env::current_exe().context("no path of our own")?;
    Ok(own.parent().and_then(Path::parent).context("xtask stands in no build folder")?.to_owned())
}

fn epoch() -> Result<String> {
    git(&["log", "-1", "--format=%ct"])
}

fn git(arguments: &[&str]) -> Result<String> {
    let mut git = Command::new("git");
    git.args(arguments).current_dir(tools::workspace());
    Ok(command::run(&mut git, LIMIT)?.trim().to_owned())
}

/// Removes a folder that may not be there.
fn clear(folder: &Path) -> Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", folder.display()))
        }
        _ => Ok(()),
    }
}

/// The SHA-256 of a file, in hexadecimal.
fn hash(file: &Path) -> Result<String> {
    let text = command::run(Command::new("sha256sum").arg(file), LIMIT)?;
    Ok(text.split_whitespace().next().context("sha256sum said nothing")?.to_owned())
}

/// What a file takes of a disk, in bytes: the raw image is mostly holes.
fn on_disk(file: &Path) -> Result<f64> {
    use std::os::unix::fs::MetadataExt;
    let metadata = fs::metadata(file).with_context(|| format!("no {}", file.display()))?;
    Ok(metadata.blocks() as f64 * 512.0)
}

/// From the same packages and the same tree come the same bits.
fn is_made_again_alike(image: &Image, tortie: &Path, progress: &Progress) -> Result<()> {
    let hashes = || [&image.upgrade, &image.raw, &image.qcow2].map(|file| hash(file));
    let [upgrade, raw, qcow2] = hashes();
    let first = [upgrade?, raw?, qcow2?];
    progress.step("making it a second time");
    make(tortie, false, progress)?;
    let [upgrade, raw, qcow2] = hashes();
    for (name, (first, second)) in
        ["upgrade", "raw", "qcow2"].into_iter().zip(first.into_iter().zip([upgrade?, raw?, qcow2?]))
    {
        ensure!(first == second, "the {name} comes out otherwise a second time: {first}, then {second}");
        progress.line(&format!("made twice alike: {name}, SHA-256 {first}"));
    }
    Ok(())
}

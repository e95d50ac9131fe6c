//! The root's files: Debian's, ours over them, and Tortie.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use lab::command;

use super::{LIMIT, Workshop, clear};
use crate::deb;

/// Units of ours that start by themselves.
const UNITS: [(&str, &str); 9] = [
    ("sysinit.target", "appliance-first-boot.service"),
    ("multi-user.target", "appliance-grow.service"),
    ("multi-user.target", "appliance-health.service"),
    ("sysinit.target", "nftables.service"),
    ("ssh.service", "appliance-ssh-keys.service"),
    ("multi-user.target", "ssh.service"),
    ("multi-user.target", "systemd-networkd.service"),
    ("sysinit.target", "systemd-timesyncd.service"),
    ("getty.target", "serial-getty@ttyS0.service"),
];

/// Units of Debian's that an appliance doesn't need: upkeep of a package database that never changes, of LVM's snapshots, and
/// terminals beyond the first.
const IDLE: [&str; 6] = [
    "dpkg-db-backup.timer",
    "e2scrub_all.timer",
    "e2scrub_reap.service",
    "fstrim.timer",
    "getty-static.service",
    "systemd-networkd-wait-online.service",
];

/// What differs from one installation to the next, or would be the same secret in all images.
const FORGOTTEN: [&str; 12] = [
    "etc/hostname",
    "etc/machine-id",
    "etc/resolv.conf",
    "etc/ssh/ssh_host_ecdsa_key",
    "etc/ssh/ssh_host_ecdsa_key.pub",
    "etc/ssh/ssh_host_ed25519_key",
    "etc/ssh/ssh_host_ed25519_key.pub",
    "etc/ssh/ssh_host_rsa_key",
    "etc/ssh/ssh_host_rsa_key.pub",
    "var/lib/systemd/random-seed",
    "var/cache/ldconfig/aux-cache",
    "var/lib/dbus/machine-id",
];

/// Makes the folder of the root's files, with this network driver in place of Debian's.
pub(super) fn make(workshop: &Workshop<'_>, base: &Path, driver: &Path) -> Result<PathBuf> {
    workshop.progress.step("laying our own files over Debian's");
    let tree = workshop.folder.join("tree");
    clear(&tree)?;
    command::run(Command::new("cp").arg("-a").arg(base).arg(&tree), LIMIT)?;
    lay_over(&workshop.recipe.root, &tree)?;
    let modules: String = workshop.recipe.modules.iter().map(|module| format!("{module}\n")).collect();
    fs::write(tree.join("etc/initramfs-tools/modules"), modules)?;
    tortie(workshop, &tree)?;
    for (target, unit) in UNITS {
        start(&tree, target, unit)?;
    }
    for unit in IDLE {
        mask(&tree, unit)?;
    }
    fs::create_dir_all(tree.join("state"))?;
    // No password is ever right; `!` would also close the way by key.
    in_tree(&tree, "usermod --password '*' --shell /bin/bash root", workshop)?;
    workshop.progress.step("making the initramfs");
    kernel(workshop, &tree, driver)?;
    forget(&tree)?;
    Ok(tree)
}

/// Puts the router into the tree: the package that nodes get, too.
fn tortie(workshop: &Workshop<'_>, tree: &Path) -> Result<()> {
    let package = deb::make(workshop.tortie, None, &workshop.folder)?;
    fs::copy(&package, tree.join("tortie.deb"))
        .with_context(|| format!("cannot copy {}", package.display()))?;
    in_tree(tree, "dpkg --install /tortie.deb", workshop)?;
    fs::remove_file(tree.join("tortie.deb"))?;
    Ok(())
}

/// Copies our files, owned by root; those that anybody may run stay so.
fn lay_over(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from).with_context(|| format!("cannot read {}", from.display()))? {
        let entry = entry?;
        let (path, copy) = (entry.path(), to.join(entry.file_name()));
        if entry.file_type()?.is_dir() {
            lay_over(&path, &copy)?;
            continue;
        }
        let runs = entry.metadata()?.permissions().mode() & 0o100 != 0;
        fs::write(&copy, fs::read(&path)?).with_context(|| format!("cannot write {}", copy.display()))?;
        fs::set_permissions(&copy, fs::Permissions::from_mode(if runs { 0o755 } else { 0o644 }))?;
    }
    Ok(())
}

/// What `systemctl enable` would do.
fn start(tree: &Path, target: &str, unit: &str) -> Result<()> {
    let wants = tree.join(format!("etc/systemd/system/{target}.wants"));
    fs::create_dir_all(&wants)?;
    let file = if unit.contains('@') { "serial-getty@.service" } else { unit };
    let place = ["etc/systemd/system", "usr/lib/systemd/system"]
        .into_iter()
        .find(|folder| tree.join(folder).join(file).exists())
        .with_context(|| format!("there is no {unit}"))?;
    let link = wants.join(unit);
    if link.is_symlink() {
        fs::remove_file(&link)?;
    }
    std::os::unix::fs::symlink(format!("/{place}/{file}"), link)?;
    Ok(())
}

/// What `systemctl mask` would do.
fn mask(tree: &Path, unit: &str) -> Result<()> {
    let link = tree.join("etc/systemd/system").join(unit);
    if link.symlink_metadata().is_ok() {
        fs::remove_file(&link)?;
    }
    std::os::unix::fs::symlink("/dev/null", link)?;
    Ok(())
}

/// The release of the one kernel in a tree, as `uname -r` prints it.
pub(super) fn release(tree: &Path) -> Result<String> {
    let mut releases: Vec<String> = fs::read_dir(tree.join("usr/lib/modules"))?
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect();
    ensure!(releases.len() == 1, "there should be one kernel, and there are {releases:?}");
    Ok(releases.remove(0))
}

/// One kernel and its initramfs, under names that GRUB knows, and the driver where it goes before the kernel's own.
fn kernel(workshop: &Workshop<'_>, tree: &Path, driver: &Path) -> Result<()> {
    let (release, boot) = (release(tree)?, tree.join("boot"));
    let updates = tree.join("usr/lib/modules").join(&release).join("updates");
    fs::create_dir_all(&updates)?;
    fs::copy(driver, updates.join("virtio_net.ko"))
        .with_context(|| format!("cannot copy {}", driver.display()))?;
    in_tree(tree, &format!("depmod {release}"), workshop)?;
    in_tree(tree, &format!("update-initramfs -u -k {release}"), workshop)?;
    fs::rename(boot.join(format!("vmlinuz-{release}")), boot.join("vmlinuz"))?;
    fs::rename(boot.join(format!("initrd.img-{release}")), boot.join("initrd.img"))?;
    Ok(())
}

/// Runs a line of shell with the tree as its root, in a mount namespace of its own.
pub(super) fn in_tree(tree: &Path, line: &str, workshop: &Workshop<'_>) -> Result<()> {
    let script = format!(
        "mount -t proc proc \"$0/proc\" && exec chroot \"$0\" /usr/bin/env -i PATH=/usr/sbin:/usr/bin \
                 SOURCE_DATE_EPOCH={} sh -c \"$1\"",
        workshop.epoch
    );
    let mut unshare = Command::new("unshare");
    unshare.args(["--mount", "--propagation", "private", "--pid", "--fork", "sh", "-ec"]);
    unshare.arg(script).arg(tree).arg(line);
    command::run(&mut unshare, LIMIT).map(|_| ())
}

fn forget(tree: &Path) -> Result<()> {
    for file in FORGOTTEN {
        let path = tree.join(file);
        if path.symlink_metadata().is_ok() {
            fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))?;
        }
    }
    // An empty file is one that is to be made; the initramfs lays the lasting one over it.
    fs::write(tree.join("etc/machine-id"), "")?;
    // As new as everything else: what depends on /usr, such as the linker's cache, needn't be made at each start
    // (systemd.unit(5), ConditionNeedsUpdate).
    for folder in ["etc", "var"] {
        fs::write(tree.join(folder).join(".updated"), "")?;
    }
    for folder in ["var/log", "var/cache/apt", "var/lib/apt/lists", "run", "tmp", "dev"] {
        let path = tree.join(folder);
        super::clear(&path)?;
        fs::create_dir(&path)?;
    }
    fs::set_permissions(tree.join("tmp"), fs::Permissions::from_mode(0o1777))?;
    fs::create_dir(tree.join("var/log/journal"))?;
    Ok(())
}

//! What runs in a virtual machine: busybox, programs of this machine with the libraries they load, and modules.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use super::Plan;
use super::kernel::Kernel;
use crate::{Lab, command};

const INIT: &str = include_str!("init.sh");

/// The NIC's driver and what it depends on; before Linux 7 also the bus that virtual devices are on. What a kernel has
/// built in has no file, and is passed over.
const DRIVERS: [&str; 8] = [
    "virtio",
    "virtio_ring",
    "virtio_pci_modern_dev",
    "virtio_pci_legacy_dev",
    "virtio_pci",
    "failover",
    "net_failover",
    "virtio_net",
];

const LIMIT: Duration = Duration::from_secs(60);

/// Makes the archive that the kernel unpacks as its first file system.
///
/// It isn't compressed: unpacking would be the emulated processor's work.
pub(super) fn build(lab: &Lab, plan: &Plan<'_>, kernel: &Kernel) -> Result<PathBuf> {
    let root = lab.directory().join(format!("{}-root", plan.name));
    for folder in ["bin", "dev", "etc", "modules", "proc", "root", "run", "sys", "tmp", "usr/bin", "var"] {
        fs::create_dir_all(root.join(folder))?;
    }
    std::os::unix::fs::symlink("/run", root.join("var/run"))?;
    program(&root, Path::new("busybox"), "bin")?;
    program(&root, Path::new("dash"), "usr/bin")?;
    for path in plan.programs {
        program(&root, path, "usr/bin")?;
    }
    modules(&root, kernel, plan.modules)?;
    fs::write(root.join("init"), INIT)?;
    fs::set_permissions(root.join("init"), fs::Permissions::from_mode(0o755))?;
    let archive = lab.directory().join(format!("{}.cpio", plan.name));
    let mut pack = Command::new("sh");
    pack.args(["-c", "find . | busybox cpio -o -H newc > \"$0\""]).arg(&archive).current_dir(&root);
    command::run(&mut pack, LIMIT)?;
    fs::remove_dir_all(&root)?;
    Ok(archive)
}

/// Copies a program to a folder of the file system, and its libraries to where it looks for them.
fn program(root: &Path, program: &Path, folder: &str) -> Result<()> {
    let path = find(program).with_context(|| format!("{} is not installed", program.display()))?;
    let name = path.file_name().context("a program without a name")?;
    fs::copy(&path, root.join(folder).join(name))
        .with_context(|| format!("cannot copy {}", path.display()))?;
    // A static program has no libraries, and ldd fails.
    let loaded = command::output(Command::new("ldd").arg(&path), LIMIT)?;
    for library in libraries(&String::from_utf8_lossy(&loaded.stdout)) {
        let library = Path::new(&library);
        let copy = root.join(library.strip_prefix("/").unwrap_or(library));
        if let Some(folder) = copy.parent().filter(|_| !copy.exists()) {
            fs::create_dir_all(folder)?;
            fs::copy(library, &copy).with_context(|| format!("cannot copy {}", library.display()))?;
        }
    }
    Ok(())
}

/// Where a shell of root would find a program.
fn find(program: &Path) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = ["/usr/sbin", "/usr/bin", "/sbin", "/bin"].map(PathBuf::from);
    // A whole path stays itself when joined to a folder.
    std::env::split_paths(&path).chain(folders).map(|folder| folder.join(program)).find(|path| path.is_file())
}

/// The files in ldd's answer: `libc.so.6 => /lib/libc.so.6 (0x7f…)`, and the loader without an arrow.
fn libraries(text: &str) -> BTreeSet<String> {
    let words = text.split_whitespace().filter(|word| word.starts_with('/'));
    words.map(str::to_owned).collect()
}

/// Unpacks the modules and writes the order in which they are loaded.
fn modules(root: &Path, kernel: &Kernel, more: &[&str]) -> Result<()> {
    let mut files = Vec::new();
    list(&kernel.modules, &mut files)?;
    let mut order = String::new();
    for module in DRIVERS.iter().chain(more) {
        let packed = files.iter().find(|path| is_module(path, module));
        let Some(path) = packed else { continue };
        let unpacked = root.join("modules").join(format!("{module}.ko"));
        if path.extension().is_some_and(|end| end == "xz") {
            let mut unpack = Command::new("sh");
            unpack.args(["-c", "busybox xzcat \"$0\" > \"$1\""]).arg(path).arg(&unpacked);
            command::run(&mut unpack, LIMIT)?;
        } else {
            fs::copy(path, &unpacked)?;
        }
        order.push_str(module);
        order.push('\n');
    }
    fs::write(root.join("modules/order"), order)?;
    Ok(())
}

fn is_module(path: &Path, module: &str) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name.strip_prefix(module).is_some_and(|end| end == ".ko" || end == ".ko.xz")
}

/// All files below a folder.
fn list(folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            list(&entry.path(), files)?;
        } else {
            files.push(entry.path());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_and_the_loader_are_found_in_ldds_answer() {
        let text = "\tlinux-vdso.so.1 (0x00007ffd)\n\
            \tlibcap.so.2 => /lib/x86_64-linux-gnu/libcap.so.2 (0x00007f1d)\n\
            \t/lib64/ld-linux-x86-64.so.2 (0x00007f1e)\n";
        let found: Vec<String> = libraries(text).into_iter().collect();
        assert_eq!(found, ["/lib/x86_64-linux-gnu/libcap.so.2", "/lib64/ld-linux-x86-64.so.2"]);
        assert!(libraries("\tstatically linked\n").is_empty());
    }

    #[test]
    fn a_module_is_told_from_those_whose_names_begin_alike() {
        let path = Path::new("/modules/kernel/net/ipv4/ipip.ko.xz");
        assert!(is_module(path, "ipip"));
        assert!(!is_module(path, "ip") && !is_module(path, "ipi"));
        assert!(is_module(Path::new("ipip.ko"), "ipip"));
    }
}

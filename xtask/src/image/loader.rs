//! GRUB, for BIOS and for UEFI, without `grub-install`: that one wants a disk to be there.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use lab::command;

use super::disk::{CORE, SECTOR, SLOT_A, SLOT_B};
use super::{LIMIT, Workshop};

/// Where Debian's packages put GRUB's parts.
const PARTS: &str = "/usr/lib/grub";
/// The folder of `grub.cfg`, on the boot partition of the disk that GRUB was started from.
const PREFIX: &str = "(,gpt2)/grub";
/// What `grub.cfg` uses.
const MODULES: [&str; 22] = [
    "part_gpt",
    "fat",
    "squash4",
    "gzio",
    "linux",
    "normal",
    "configfile",
    "search",
    "loadenv",
    "regexp",
    "test",
    "echo",
    "sleep",
    "serial",
    "terminal",
    "minicmd",
    "reboot",
    "halt",
    "ls",
    "cat",
    "boot",
    "all_video",
];
const HEADING: &str = "# GRUB Environment Block\n";
/// GRUB takes an environment block of any size; `grub-editenv` makes them so, in bytes.
const ENVIRONMENT: usize = 1024;

/// The sector that a BIOS loads, up to the table of partitions, told where the core is.
pub(super) fn boot_code() -> Result<Vec<u8>> {
    /// Where the table of partitions begins (and before it the disk's signature).
    const CODE: usize = 440;
    /// GRUB_BOOT_MACHINE_KERNEL_SECTOR of `include/grub/i386/pc/boot.h`.
    const KERNEL_SECTOR: usize = 0x5c;
    let path = Path::new(PARTS).join("i386-pc/boot.img");
    let mut code = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
    ensure!(code.len() == SECTOR as usize, "{} is no sector", path.display());
    code[KERNEL_SECTOR..KERNEL_SECTOR + 8].copy_from_slice(&CORE.sector().to_le_bytes());
    code.truncate(CODE);
    Ok(code)
}

/// The core for a BIOS: its first sector is told where the rest is.
pub(super) fn core(folder: &Path, file: &Path) -> Result<()> {
    /// `struct grub_pc_bios_boot_blocklist` stands at the first sector's end: sector, count, segment; the latter two are
    /// right already (`grub-mkimage`).
    const BLOCKS: usize = 512 - 12;
    let mut modules = MODULES.to_vec();
    modules.push("biosdisk");
    make_image("i386-pc", &modules, folder, file)?;
    let mut core = fs::read(file)?;
    ensure!(core.len() > SECTOR as usize, "grub-mkimage made no core");
    core[BLOCKS..BLOCKS + 8].copy_from_slice(&(CORE.sector() + 1).to_le_bytes());
    fs::write(file, core)?;
    Ok(())
}

fn make_image(format: &str, modules: &[&str], folder: &Path, file: &Path) -> Result<()> {
    // Before `normal` there is nothing that could be configured.
    let early = folder.join("grub-early.cfg");
    fs::write(&early, "")?;
    let mut mkimage = Command::new("grub-mkimage");
    mkimage.args(["-O", format, "-p", PREFIX, "-c"]).arg(&early).arg("-o").arg(file).args(modules);
    command::run(&mut mkimage, LIMIT).map(|_| ())
}

/// The partition of GRUB's files, as an image of a FAT.
pub(super) fn boot_partition(workshop: &Workshop<'_>, bytes: u64, file: &Path) -> Result<()> {
    let folder = workshop.folder.join("boot");
    super::clear(&folder)?;
    for name in ["EFI/BOOT", "grub"] {
        fs::create_dir_all(folder.join(name))?;
    }
    make_image("x86_64-efi", &MODULES, &workshop.folder, &folder.join("EFI/BOOT/BOOTX64.EFI"))?;
    let configuration = workshop
        .recipe
        .grub
        .replace("@OPTIONS@", &workshop.recipe.options.join(" "))
        .replace("@SLOT_A@", SLOT_A.uuid)
        .replace("@SLOT_B@", SLOT_B.uuid);
    fs::write(folder.join("grub/grub.cfg"), configuration)?;
    fs::write(folder.join("grub/grubenv"), environment())?;
    if file.exists() {
        fs::remove_file(file)?;
    }
    fs::File::create(file)?.set_len(bytes)?;
    let mut format = Command::new("mkfs.vfat");
    format.args(["--invariant", "-F", "16", "-n", "BOOT"]).arg(file);
    command::run(&mut format, LIMIT)?;
    // Sorted, and with one time for all.
    for (place, name) in [
        (None, "EFI"),
        (None, "EFI/BOOT"),
        (None, "grub"),
        (Some("EFI/BOOT/"), "EFI/BOOT/BOOTX64.EFI"),
        (Some("grub/"), "grub/grub.cfg"),
        (Some("grub/"), "grub/grubenv"),
    ] {
        let mut tool = match place {
            None => Command::new("mmd"),
            Some(_) => Command::new("mcopy"),
        };
        tool.arg("-i").arg(file).env("SOURCE_DATE_EPOCH", &workshop.epoch).env("TZ", "UTC");
        match place {
            None => tool.arg(format!("::{name}")),
            Some(place) => tool.arg(folder.join(name)).arg(format!("::{place}")),
        };
        command::run(&mut tool, LIMIT)?;
    }
    Ok(())
}

/// What GRUB remembers from one start to the next: slot a is good, none is on trial.
fn environment() -> Vec<u8> {
    let mut block = format!("{HEADING}slot=a\ntry=\n").into_bytes();
    block.resize(ENVIRONMENT, b'#');
    block
}

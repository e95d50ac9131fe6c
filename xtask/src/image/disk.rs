//! The disk: partitions side by side in a file, without loop devices.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use lab::command;

use super::{LIMIT, Workshop, loader};

const MIB: u64 = 1 << 20;
pub(super) const SECTOR: u64 = 512;
/// The most that a slot's squashfs and its line may take.
pub(super) const SLOT_BYTES: u64 = 256 * MIB;

/// A partition. Its places and numbers are the same in every image, so that the same tree gives the same bits.
pub(super) struct Partition {
    name: &'static str,
    /// Where it begins and how long it is, in MiB.
    begin: u64,
    size: u64,
    kind: &'static str,
    pub(super) uuid: &'static str,
}

const DISK: &str = "7a0c1e00-7047-4000-8000-746f72746965";
/// Read by GRUB's first part, where the firmware is a BIOS.
pub(super) const CORE: Partition = Partition {
    name: "bios",
    begin: 1,
    size: 1,
    kind: "21686148-6449-6E6F-744E-656564454649",
    uuid: "7a0c1e01-7047-4000-8000-746f72746965",
};
/// GRUB's files; the system partition of UEFI.
const BOOT: Partition = Partition {
    name: "boot",
    begin: 2,
    size: 30,
    kind: "C12A7328-F81F-11D2-BA4B-00A0C93EC93B",
    uuid: "7a0c1e02-7047-4000-8000-746f72746965",
};
pub(super) const SLOT_A: Partition = Partition {
    name: "slot-a",
    begin: 32,
    size: SLOT_BYTES / MIB,
    kind: LINUX,
    uuid: "7a0c1e03-7047-4000-8000-746f72746965",
};
pub(super) const SLOT_B: Partition = Partition {
    name: "slot-b",
    begin: SLOT_A.begin + SLOT_A.size,
    size: SLOT_BYTES / MIB,
    kind: LINUX,
    uuid: "7a0c1e04-7047-4000-8000-746f72746965",
};
/// The last one, so that it can grow.
const STATE: Partition = Partition {
    name: "state",
    begin: SLOT_B.begin + SLOT_B.size,
    size: 256,
    kind: LINUX,
    uuid: "7a0c1e05-7047-4000-8000-746f72746965",
};
const LINUX: &str = "0FC63DAF-8483-4772-8E79-3D69D8477DE4";
const PARTITIONS: [&Partition; 5] = [&CORE, &BOOT, &SLOT_A, &SLOT_B, &STATE];

impl Partition {
    /// Where it begins, in sectors.
    pub(super) fn sector(&self) -> u64 {
        self.begin * MIB / SECTOR
    }

    fn write(&self, disk: &File, content: &Path) -> Result<()> {
        let mut content = File::open(content).with_context(|| format!("no {}", content.display()))?;
        let length = content.metadata()?.len();
        ensure!(length <= self.size * MIB, "{} bytes do not fit into {}", length, self.name);
        let mut buffer = vec![0; MIB as usize];
        let mut place = self.begin * MIB;
        loop {
            let count = content.read(&mut buffer)?;
            let piece = &buffer[..count];
            if count == 0 {
                return Ok(());
            }
            // What is empty stays a hole.
            if piece.iter().any(|byte| *byte != 0) {
                disk.write_all_at(piece, place)?;
            }
            place += count as u64;
        }
    }
}

/// Puts the disk together.
pub(super) fn make(workshop: &Workshop<'_>, slot: &Path, raw: &Path) -> Result<()> {
    let (core, boot, state) = (
        workshop.folder.join("core.img"),
        workshop.folder.join("boot.img"),
        workshop.folder.join("state.img"),
    );
    loader::core(&workshop.folder, &core)?;
    loader::boot_partition(workshop, BOOT.size * MIB, &boot)?;
    empty_state(workshop, &state)?;
    let disk = File::create(raw).with_context(|| format!("cannot write {}", raw.display()))?;
    // Behind the last partition stands the second copy of the table.
    disk.set_len((STATE.begin + STATE.size + 1) * MIB)?;
    table(raw)?;
    for (partition, content) in
        [(&CORE, &core), (&BOOT, &boot), (&SLOT_A, &slot.to_owned()), (&STATE, &state)]
    {
        partition.write(&disk, content)?;
    }
    disk.write_all_at(&loader::boot_code()?, 0)?;
    disk.sync_all()?;
    Ok(())
}

fn table(raw: &Path) -> Result<()> {
    let mut script = format!("label: gpt\nlabel-id: {DISK}\n");
    for partition in PARTITIONS {
        let Partition { name, size, kind, uuid, .. } = partition;
        script.push_str(&format!(
            "start={}, size={}, type={kind}, uuid={uuid}, name=\"{name}\"\n",
            partition.sector(),
            size * MIB / SECTOR
        ));
    }
    let mut sfdisk = Command::new("sfdisk");
    sfdisk.args(["--quiet", "--no-reread", "--no-tell-kernel"]).arg(raw);
    let mut child = sfdisk.stdin(Stdio::piped()).spawn().context("cannot start sfdisk")?;
    child.stdin.take().context("sfdisk takes no input")?.write_all(script.as_bytes())?;
    ensure!(child.wait()?.success(), "sfdisk refused the partitions");
    Ok(())
}

/// An ext4 with nothing in it: the first start fills it.
fn empty_state(workshop: &Workshop<'_>, file: &Path) -> Result<()> {
    if file.exists() {
        fs::remove_file(file)?;
    }
    let mut mke2fs = Command::new("mke2fs");
    mke2fs.args(["-q", "-t", "ext4", "-L", "state", "-m", "0", "-U", STATE.uuid]);
    mke2fs.args(["-E", &format!("hash_seed={},lazy_itable_init=0,lazy_journal_init=0", STATE.uuid)]);
    mke2fs.arg(file).arg(format!("{}M", STATE.size));
    mke2fs.env("E2FSPROGS_FAKE_TIME", &workshop.epoch).env("SOURCE_DATE_EPOCH", &workshop.epoch);
    command::run(&mut mke2fs, LIMIT).map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_stand_side_by_side_and_none_has_anothers_number() {
        for pair in PARTITIONS.windows(2) {
            assert_eq!(pair[0].begin + pair[0].size, pair[1].begin, "{} and {}", pair[0].name, pair[1].name);
        }
        let uuids: std::collections::BTreeSet<_> =
            PARTITIONS.iter().map(|partition| partition.uuid).collect();
        assert_eq!(uuids.len(), PARTITIONS.len());
    }
}

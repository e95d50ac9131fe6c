//! A slot: the root as a squashfs, and behind it a line that says what it is and what its hash must be.

use std::fs;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use lab::command;

use super::{LIMIT, disk, hash};

/// The line's size, and what mksquashfs fills up to, in bytes.
const BLOCK: usize = 4096;

/// Packs a folder. `appliance upgrade` takes what comes of it, and a slot of the disk holds it.
///
/// By gzip: GRUB reads the kernel out of it, and knows no zstd there.
pub(super) fn pack(tree: &Path, file: &Path, epoch: &str, version: &str) -> Result<()> {
    if file.exists() {
        fs::remove_file(file)?;
    }
    let mut squash = Command::new("mksquashfs");
    squash.arg(tree).arg(file).args(["-comp", "gzip", "-noappend", "-quiet", "-no-progress"]);
    squash.args(["-all-time", epoch, "-mkfs-time", epoch]).env_remove("SOURCE_DATE_EPOCH");
    command::run(&mut squash, LIMIT)?;
    let length = fs::metadata(file)?.len();
    ensure!(length % BLOCK as u64 == 0, "mksquashfs filled {} up to no whole block", file.display());
    let line = line(version, &hash(file)?)?;
    fs::OpenOptions::new().append(true).open(file)?.write_all(&line)?;
    let room = disk::SLOT_BYTES;
    ensure!(length + BLOCK as u64 <= room, "the root takes {length} bytes, and a slot has {room}");
    Ok(())
}

/// What a packed root calls itself.
pub(super) fn version(file: &Path) -> Result<String> {
    let mut packed = fs::File::open(file).with_context(|| format!("no {}", file.display()))?;
    packed.seek(SeekFrom::End(-(BLOCK as i64)))?;
    let mut block = Vec::new();
    packed.read_to_end(&mut block)?;
    named(&block).with_context(|| format!("{} says no version", file.display()))
}

fn named(block: &[u8]) -> Option<String> {
    let words = std::str::from_utf8(block).ok()?.lines().next()?.strip_prefix("tortie-appliance ")?;
    let version = words.split(' ').find_map(|word| word.strip_prefix("version="))?;
    Some(version.to_owned())
}

/// What stands behind the squashfs.
fn line(version: &str, hash: &str) -> Result<Vec<u8>> {
    ensure!(
        !version.contains(|char: char| char.is_whitespace() || char.is_control()),
        "{version:?} is no version"
    );
    let mut line = format!("tortie-appliance version={version} sha256={hash}\n").into_bytes();
    ensure!(line.len() <= BLOCK, "a version that is too long");
    line.resize(BLOCK, 0);
    Ok(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_behind_a_slot_is_a_block_of_its_own() {
        let line = line("1.0-abc", "00ff").expect("a line");
        assert_eq!(line.len(), BLOCK);
        assert!(line.starts_with(b"tortie-appliance version=1.0-abc sha256=00ff\n\0"));
        assert_eq!(named(&line).as_deref(), Some("1.0-abc"));
        assert_eq!(named(b"squashfs"), None);
        assert!(super::line("1 0", "00ff").is_err());
    }
}

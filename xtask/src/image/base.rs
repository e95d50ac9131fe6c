//! Debian's packages, unpacked and configured by mmdebstrap, kept until their list changes.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use lab::command;

use super::{LIMIT, Workshop, clear, hash};

const SUITE: &str = "trixie";
const SOURCES: [&str; 4] = [
    "deb http://deb.debian.org/debian trixie main",
    "deb http://deb.debian.org/debian trixie-updates main",
    "deb http://deb.debian.org/debian-security trixie-security main",
    "deb http://deb.debian.org/debian trixie-backports main",
];
/// What nobody reads on an appliance; licences stay.
const LEFT_OUT: [&str; 5] = [
    "path-exclude=/usr/share/doc/*",
    "path-include=/usr/share/doc/*/copyright",
    "path-exclude=/usr/share/man/*",
    "path-exclude=/usr/share/locale/*",
    "path-exclude=/usr/share/info/*",
];

/// The folder with Debian's packages.
pub(super) fn get(workshop: &Workshop<'_>, fresh: bool) -> Result<PathBuf> {
    let list = workshop.folder.join("packages");
    fs::write(&list, workshop.recipe.packages.join("\n"))?;
    let base = workshop.folder.join(format!("base-{:.12}", hash(&list)?));
    if base.exists() && !fresh {
        return Ok(base);
    }
    workshop.progress.step(&format!("fetching and unpacking Debian {SUITE}, 2 minutes, once"));
    let new = workshop.folder.join("base.new");
    unpack(workshop, &workshop.recipe.packages, &new)?;
    clear(&base)?;
    fs::rename(&new, &base)?;
    Ok(base)
}

/// Unpacks packages, as apt takes them, with all that they depend on, into a folder that is emptied before.
pub(super) fn unpack(workshop: &Workshop<'_>, packages: &[String], folder: &Path) -> Result<()> {
    clear(folder)?;
    let mut bootstrap = Command::new("mmdebstrap");
    bootstrap.args(["--mode=root", "--variant=essential", "--format=directory", "--quiet"]);
    for option in [
        "APT::Install-Recommends \"false\"",
        "APT::Default-Release \"trixie\"",
        "Acquire::Languages \"none\"",
    ] {
        bootstrap.arg(format!("--aptopt={option}"));
    }
    for option in LEFT_OUT {
        bootstrap.arg(format!("--dpkgopt={option}"));
    }
    bootstrap.arg(format!("--include={}", packages.join(",")));
    // The initramfs that comes with the kernel is made again with our own files: it needn't hold every driver.
    bootstrap.arg(
        "--setup-hook=mkdir -p \"$1/etc/initramfs-tools/conf.d\" && \
         echo MODULES=list > \"$1/etc/initramfs-tools/conf.d/appliance\"",
    );
    bootstrap.env("SOURCE_DATE_EPOCH", &workshop.epoch);
    bootstrap.arg(SUITE).arg(folder).args(SOURCES);
    command::run(&mut bootstrap, LIMIT).map(|_| ()).context("Debian's packages can't be had")
}

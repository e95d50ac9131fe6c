//! A small Debian in a folder: made once from Debian's mirror, and read from then on.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::command;

/// How long making one may take.
const MAKE: Duration = Duration::from_secs(1800);
/// Where packages come from.
const MIRROR: &str = "http://deb.debian.org/debian";

/// Makes the Debian of a suite with some packages in `folder`, unless it is there already.
///
/// # Errors
/// The suite can't be reached, or a package can't be installed.
pub fn tree(folder: &Path, suite: &str, packages: &[&str]) -> Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    println!("making a Debian {suite} in {}", folder.display());
    // Under another name until it is whole.
    let unfinished = folder.with_extension("new");
    let _ = std::fs::remove_dir_all(&unfinished);
    std::fs::create_dir_all(&unfinished)?;
    let mut debootstrap = Command::new("debootstrap");
    debootstrap.args(["--variant=minbase", suite]).arg(&unfinished).arg(MIRROR);
    command::run(&mut debootstrap, MAKE)
        .context("is debootstrap installed, and Debian's mirror in reach?")?;
    // Nothing is to start while it is installed (invoke-rc.d(8)).
    let policy = unfinished.join("usr/sbin/policy-rc.d");
    std::fs::write(&policy, "#!/bin/sh\nexit 101\n")?;
    command::run(Command::new("chmod").arg("755").arg(&policy), command::SETTING)?;
    let mut install = Command::new("chroot");
    install.arg(&unfinished).args([
        "env",
        "DEBIAN_FRONTEND=noninteractive",
        "apt-get",
        "install",
        "-y",
        "-q",
    ]);
    install.arg("--no-install-recommends").args(packages);
    command::run(&mut install, MAKE)?;
    std::fs::remove_file(&policy)?;
    std::fs::rename(&unfinished, folder)?;
    Ok(())
}

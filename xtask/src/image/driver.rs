//! virtio_net, made anew from Debian's source with `appliance-image/virtio_net.patch`, kept for as long as kernel and patch
//! stay the same.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use lab::command;

use super::tree::{in_tree, release};
use super::{LIMIT, Workshop, base, clear, hash};

/// The patched module for the kernel of a base.
pub(super) fn get(workshop: &Workshop<'_>, base: &Path) -> Result<PathBuf> {
    let (release, patch) = (release(base)?, &workshop.recipe.patch);
    let version = version(base, &release)?;
    let kept = workshop.folder.join(format!("virtio_net-{version}-{:.12}.ko", hash(patch)?));
    if kept.exists() {
        return Ok(kept);
    }
    workshop.progress.step("making virtio_net anew from the kernel's source, 3 minutes, once");
    let bench = workshop.folder.join("driver");
    base::unpack(workshop, &packages(&release, &version)?, &bench)
        .context("Debian no longer has this kernel's source? --fresh fetches a newer kernel")?;
    fs::copy(patch, bench.join("virtio_net.patch"))
        .with_context(|| format!("cannot copy {}", patch.display()))?;
    in_tree(&bench, &steps(&release)?, workshop)?;
    fs::copy(bench.join("driver/virtio_net.ko"), &kept)?;
    clear(&bench)?;
    Ok(kept)
}

/// The version of the kernel's package.
fn version(base: &Path, release: &str) -> Result<String> {
    let mut query = Command::new("dpkg-query");
    query.arg("--admindir").arg(base.join("var/lib/dpkg"));
    query.args(["--show", "--showformat=${Version}"]).arg(format!("linux-image-{release}"));
    command::run(&mut query, LIMIT).context("whose kernel is it?")
}

/// What builds a module for this kernel; the compiler comes with the headers.
fn packages(release: &str, version: &str) -> Result<Vec<String>> {
    let series = series(release)?;
    let named = [format!("linux-headers-{release}={version}"), format!("linux-source-{series}={version}")];
    Ok(named.into_iter().chain(["binutils", "make", "patch", "xz-utils"].map(str::to_owned)).collect())
}

/// From the source's archive to a stripped module.
fn steps(release: &str) -> Result<String> {
    let (source, file) = (format!("linux-source-{}", series(release)?), "drivers/net/virtio_net.c");
    Ok(format!(
        "mkdir /driver && cd /driver && \
         tar --extract --file /usr/src/{source}.tar.xz --strip-components 3 {source}/{file} && \
         patch --quiet --fuzz=0 virtio_net.c /virtio_net.patch && \
         echo 'obj-m := virtio_net.o' > Makefile && \
         make --silent --directory /usr/src/linux-headers-{release} M=/driver modules && \
         strip --strip-debug virtio_net.ko"
    ))
}

/// `7.3` of `7.3.4+deb13-cloud-amd64`.
fn series(release: &str) -> Result<String> {
    let mut numbers = release.split(['.', '+', '-']);
    let two = numbers.next().zip(numbers.next()).filter(|(major, minor)| {
        [major, minor].iter().all(|text| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()))
    });
    let (major, minor) = two.with_context(|| format!("{release:?} is no kernel's release"))?;
    Ok(format!("{major}.{minor}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernels_source_is_named_after_the_first_two_numbers_of_its_release() {
        assert_eq!(series("7.3.4+deb13-cloud-amd64").expect("a release"), "7.3");
        assert_eq!(series("6.12-amd64").expect("a release"), "6.12");
        assert!(series("amd64").is_err());
    }
}

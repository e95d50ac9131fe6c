//! What stands in `appliance-image/`: lists of words with comments, and files for the root.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// The recipe, read.
pub(super) struct Recipe {
    /// Packages, as apt takes them.
    pub(super) packages: Vec<String>,
    /// Modules of the initramfs.
    pub(super) modules: Vec<String>,
    /// The kernel's command line.
    pub(super) options: Vec<String>,
    /// GRUB's configuration, with `@…@` in it.
    pub(super) grub: String,
    /// What is changed of the kernel's virtio_net.
    pub(super) patch: PathBuf,
    /// Files that are laid over Debian's.
    pub(super) root: PathBuf,
}

impl Recipe {
    pub(super) fn read(folder: &Path) -> Result<Recipe> {
        let read = |name: &str| {
            let path = folder.join(name);
            fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
        };
        Ok(Recipe {
            packages: words(&read("packages")?),
            modules: words(&read("modules")?),
            options: words(&read("kernel-options")?),
            grub: read("grub.cfg")?,
            patch: folder.join("virtio_net.patch"),
            root: folder.join("root"),
        })
    }
}

/// What a list says without its comments.
fn words(text: &str) -> Vec<String> {
    let said = text.lines().filter_map(|line| line.split('#').next());
    said.flat_map(str::split_whitespace).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_empty_lines_are_no_words() {
        assert_eq!(words("# all\n\na  # one\nb c\n"), ["a", "b", "c"]);
    }
}

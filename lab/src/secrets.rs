//! The directory of passwords that Tortie has in place of Kubernetes' Secrets.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::Lab;

/// Its one Secret's name.
const NAME: &str = "bgp";

/// The passwords of one Secret, `bgp`.
pub struct Secrets(PathBuf);

impl Secrets {
    /// A directory in the lab's own.
    ///
    /// # Errors
    /// It can't be made.
    pub fn create(lab: &Lab) -> Result<Secrets> {
        let secrets = Secrets(lab.directory().join("secrets"));
        fs::create_dir_all(secrets.0.join(NAME))?;
        Ok(secrets)
    }

    /// What `bgp.secrets` is to name.
    pub fn directory(&self) -> &Path {
        &self.0
    }

    /// The password `bgp/KEY` is this from now on.
    ///
    /// # Errors
    /// It can't be written.
    pub fn write(&self, key: &str, password: &str) -> Result<()> {
        Ok(fs::write(self.0.join(NAME).join(key), format!("{password}\n"))?)
    }

    /// There is no password `bgp/KEY` any more.
    ///
    /// # Errors
    /// There was none.
    pub fn remove(&self, key: &str) -> Result<()> {
        Ok(fs::remove_file(self.0.join(NAME).join(key))?)
    }
}

//! IPAM's own settings (`/calico/ipam/v2/config`; `libcalico-go/lib/backend/model/ipam_config.go`).

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::allocator::Ipam;
use super::error::IpamError;
use crate::{Key, StoreError};

/// How addresses are assigned, for all nodes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct IpamConfig {
    /// Addresses of a block go to its own node alone: none are borrowed.
    #[serde(rename = "strict_affinity", skip_serializing_if = "is_false")]
    pub strict_affinity: bool,
    /// Nodes claim blocks as they need them.
    #[serde(rename = "auto_allocate_blocks", skip_serializing_if = "is_false")]
    pub auto_allocate_blocks: bool,
    /// Blocks that a node may have of each family; 0 is [`DEFAULT_BLOCKS`].
    #[serde(rename = "maxBlocksPerHost", skip_serializing_if = "is_zero")]
    pub max_blocks_per_host: u32,
    /// Do virtual machines keep their addresses? `Enabled` or `Disabled`; ours to keep, not to use.
    #[serde(rename = "kubeVirtVMAddressPersistence", skip_serializing_if = "Option::is_none")]
    pub kubevirt_vm_address_persistence: Option<String>,
    /// Seconds before an address that was given back is assigned again, at most 1200.
    #[serde(rename = "ipCooldownSeconds", skip_serializing_if = "is_zero")]
    pub ip_cooldown_seconds: u32,
}

/// Blocks that a node may have of each family where nobody said.
pub(super) const DEFAULT_BLOCKS: usize = 20;

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde asks with a reference")]
fn is_false(flag: &bool) -> bool {
    !flag
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde asks with a reference")]
fn is_zero(number: &u32) -> bool {
    *number == 0
}

impl Default for IpamConfig {
    /// What is in force in a stored value where a field is missing: Go leaves out what is false.
    fn default() -> IpamConfig {
        IpamConfig {
            strict_affinity: false,
            auto_allocate_blocks: false,
            max_blocks_per_host: 0,
            kubevirt_vm_address_persistence: None,
            ip_cooldown_seconds: 0,
        }
    }
}

impl IpamConfig {
    /// What is in force where nothing is stored.
    pub fn initial() -> IpamConfig {
        IpamConfig { auto_allocate_blocks: true, ..IpamConfig::default() }
    }

    /// How long an address that was given back isn't assigned.
    pub fn cooldown(&self) -> Duration {
        Duration::from_secs(u64::from(self.ip_cooldown_seconds))
    }

    fn check(&self) -> Result<(), IpamError> {
        if !self.strict_affinity && !self.auto_allocate_blocks {
            return Err(IpamError::Config(
                "Cannot disable 'StrictAffinity' and 'AutoAllocateBlocks' at the same time",
            ));
        }
        if self.max_blocks_per_host > 0 && !self.strict_affinity {
            return Err(IpamError::Config("MaxBlocksPerHost requires StrictAffinity to be enabled"));
        }
        if self.ip_cooldown_seconds > 1200 {
            return Err(IpamError::Config("IPCooldownSeconds must be at most 1200"));
        }
        Ok(())
    }
}

impl Ipam<'_> {
    /// The settings in force.
    ///
    /// # Errors
    /// The store can't be asked, or what stands there is no settings.
    pub fn config(&self) -> Result<IpamConfig, IpamError> {
        match self.read(&Key::IpamConfig) {
            Ok(stored) => Ok(stored.value),
            Err(IpamError::Store(StoreError::NotFound(_))) => Ok(IpamConfig::initial()),
            Err(error) => Err(error),
        }
    }

    /// Writes the settings, unless they are in force already.
    ///
    /// # Errors
    /// They contradict each other, or the store can't be written.
    pub fn set_config(&self, config: &IpamConfig) -> Result<(), IpamError> {
        if self.config()? == *config {
            return Ok(());
        }
        config.check()?;
        let value = serde_json::to_value(config).unwrap_or_default();
        self.retry(|| {
            match self.store.get(&Key::IpamConfig) {
                Ok(stored) => self.store.update(&Key::IpamConfig, &value, stored.revision)?,
                Err(StoreError::NotFound(key)) => self.store.create(&key, &value)?,
                Err(error) => return Err(error.into()),
            };
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{MemoryStore, Store};

    #[test]
    fn settings_are_stored_as_calico_stores_them() {
        let store = MemoryStore::default();
        let ipam = Ipam::new(&store);
        assert_eq!(ipam.config().unwrap(), IpamConfig::initial());
        let config = IpamConfig { strict_affinity: true, max_blocks_per_host: 4, ..IpamConfig::initial() };
        ipam.set_config(&config).unwrap();
        assert_eq!(
            store.get(&Key::IpamConfig).unwrap().value.to_string(),
            r#"{"strict_affinity":true,"auto_allocate_blocks":true,"maxBlocksPerHost":4}"#
        );
        assert_eq!(ipam.config().unwrap(), config);
    }

    #[test]
    fn settings_that_contradict_each_other_are_refused() {
        let store = MemoryStore::default();
        let ipam = Ipam::new(&store);
        let refused = |config: IpamConfig| ipam.set_config(&config).unwrap_err().to_string();
        let blocks = IpamConfig { max_blocks_per_host: 1, ..IpamConfig::initial() };
        assert_eq!(refused(blocks), "MaxBlocksPerHost requires StrictAffinity to be enabled");
        assert_eq!(
            refused(IpamConfig::default()),
            "Cannot disable 'StrictAffinity' and 'AutoAllocateBlocks' at the same time"
        );
    }
}

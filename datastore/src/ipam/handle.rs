//! How many addresses one owner has in which blocks (`libcalico-go/lib/ipam/ipam_handle.go`): an index, so that they are
//! released without looking at every block.

use std::collections::BTreeMap;

use model::Prefix;
use serde::{Deserialize, Serialize};

/// The index of one handle. It counts at least what there is, and more after a writer died.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Handle {
    /// Addresses by block.
    #[serde(default)]
    block: Option<BTreeMap<String, i64>>,
    /// Kubernetes' way of removing.
    #[serde(default)]
    deleted: bool,
}

impl Handle {
    /// The blocks where it has addresses, with how many. A key that is no network is left out.
    pub fn blocks(&self) -> impl Iterator<Item = (Prefix, i64)> {
        let blocks = self.block.iter().flatten();
        blocks.filter_map(|(block, count)| Some((block.parse().ok()?, *count)))
    }

    /// Does it count nothing?
    pub fn is_empty(&self) -> bool {
        self.block.as_ref().is_none_or(BTreeMap::is_empty)
    }

    /// `count` addresses more.
    pub(super) fn add(&mut self, block: Prefix, count: usize) {
        *self.block.get_or_insert_default().entry(block.to_string()).or_default() += count as i64;
    }

    /// `count` addresses less. Does it still count some there? `false` where it never counted that many: whoever gave them
    /// back had no right to them, or another has told already.
    pub(super) fn subtract(&mut self, block: Prefix, count: usize) -> bool {
        let blocks = self.block.get_or_insert_default();
        let name = block.to_string();
        match blocks.get_mut(&name) {
            Some(counted) if *counted > count as i64 => {
                *counted -= count as i64;
                true
            }
            Some(counted) if *counted == count as i64 => {
                blocks.remove(&name);
                true
            }
            _ => false,
        }
    }

    /// Nothing there any more, whatever was counted.
    pub(super) fn forget(&mut self, block: Prefix) {
        if let Some(blocks) = &mut self.block {
            blocks.remove(&block.to_string());
        }
    }

    /// As it is stored.
    pub fn to_value(&self) -> serde_json::Value {
        serde_json::to_value(self).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn handles_are_stored_as_calico_stores_them() {
        let mut handle = Handle::default();
        handle.add("10.1.3.64/26".parse().unwrap(), 1);
        assert_eq!(handle.to_value().to_string(), r#"{"block":{"10.1.3.64/26":1},"deleted":false}"#);
    }

    #[test]
    fn what_was_not_counted_is_not_subtracted() {
        let block: Prefix = "10.1.3.64/26".parse().unwrap();
        let mut handle = Handle::default();
        assert!(!handle.subtract(block, 1));
        handle.add(block, 2);
        assert!(!handle.subtract(block, 3));
        assert!(handle.subtract(block, 1));
        assert!(!handle.is_empty());
        assert!(handle.subtract(block, 1));
        assert!(handle.is_empty());
    }
}

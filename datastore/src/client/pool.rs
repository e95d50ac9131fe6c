//! IP pools: their defaults, their rules, and what has to go before one goes (`clientv3/ippool.go`).

use model::{Family, Prefix};
use serde_json::json;

use super::{ApiObject, Client, ClientError, ErroredField};
use crate::{ResourceKind, Under};

/// Sizes of blocks that IPAM can handle, and the usual one.
fn block_sizes(family: Family) -> (&'static str, i64, i64, i64) {
    match family {
        Family::V4 => ("IPv4", 20, 32, 26),
        Family::V6 => ("IPv6", 116, 128, 122),
    }
}

/// What a pool has that doesn't say so.
pub(super) fn defaults(pool: &mut ApiObject) {
    pool.default_spec("nodeSelector", "all()");
    pool.default_spec("allowedUses", json!(["Workload", "Tunnel"]));
    pool.default_spec("assignmentMode", "Automatic");
    pool.default_spec("ipipMode", "Never");
    pool.default_spec("vxlanMode", "Never");
    if let Some(cidr) = cidr(pool) {
        let (_, _, _, usual) = block_sizes(cidr.family());
        pool.default_spec("blockSize", usual);
    }
}

fn cidr(pool: &ApiObject) -> Option<Prefix> {
    pool.spec_text("cidr").split_once('/')?;
    pool.spec_text("cidr").parse().ok()
}

impl Client<'_> {
    pub(super) fn prepare_pool(
        &self,
        pool: &mut ApiObject,
        old: Option<&ApiObject>,
    ) -> Result<(), ClientError> {
        let given = pool.spec_text("cidr").to_owned();
        if given.is_empty() {
            return Err(ErroredField::bare("IPPool.Spec.CIDR", "IPPool CIDR must be specified").into());
        }
        let Some(network) = cidr(pool) else {
            let reason = "IPPool CIDR must be a valid subnet";
            return Err(ErroredField::new("IPPool.Spec.CIDR", given, reason).into());
        };
        pool.set_spec("cidr", network.to_string());
        defaults(pool);
        let mut errors = Vec::new();
        let about_cidr = |reason: String| ErroredField::new("IPPool.Spec.CIDR", network.to_string(), reason);
        if let Some(old) = old {
            refuse_lost_use(pool, old)?;
            if cidr(old) != Some(network) {
                errors.push(about_cidr("IPPool CIDR cannot be modified".to_owned()));
            }
        }
        errors.extend(block_size_errors(pool, old, network));
        if old.is_none() {
            errors.extend(self.overlaps(pool, network)?.into_iter().map(about_cidr));
        }
        let (ipip, vxlan) = (pool.spec_text("ipipMode"), pool.spec_text("vxlanMode"));
        if ipip != "Never" && vxlan != "Never" {
            let reason = "Cannot enable both VXLAN and IPIP on the same IPPool";
            errors.push(ErroredField::new("IPPool.Spec.VXLANMode", vxlan, reason));
        }
        if ipip != "Never" && network.family() == Family::V6 {
            let reason = "IPIP is not supported on an IPv6 IP pool";
            errors.push(ErroredField::new("IPPool.Spec.IPIPMode", ipip, reason));
        }
        let written = given.split_once('/').and_then(|(addr, _)| addr.parse().ok());
        if written.is_some_and(|addr: std::net::IpAddr| addr != network.addr()) {
            errors.push(about_cidr("IPPool CIDR is not strictly masked".to_owned()));
        }
        let (name, link_local) = match network.family() {
            Family::V4 => ("IPv4", "169.254.0.0/16"),
            Family::V6 => ("IPv6", "fe80::/10"),
        };
        if link_local.parse().is_ok_and(|range: Prefix| range.covers(network) || network.covers(range)) {
            errors
                .push(about_cidr(format!("IPPool CIDR overlaps with {name} Link Local range {link_local}")));
        }
        if errors.is_empty() { Ok(()) } else { Err(ClientError::Invalid(errors)) }
    }

    /// Why the pool can't be beside those that there are.
    fn overlaps(&self, pool: &ApiObject, network: Prefix) -> Result<Vec<String>, ClientError> {
        let pools = self.list(ResourceKind::IpPool, None)?;
        let others = pools.items.iter().filter(|other| other.name() != pool.name());
        let overlaps = |other: &&ApiObject| {
            cidr(other).is_some_and(|other| other.covers(network) || network.covers(other))
        };
        let reason = |other: &ApiObject| {
            let (name, other_name, other_cidr) = (pool.name(), other.name(), other.spec_text("cidr"));
            format!("IPPool({name}) CIDR overlaps with IPPool({other_name}) CIDR {other_cidr}")
        };
        Ok(others.filter(overlaps).map(reason).collect())
    }

    /// Addresses may be given out in the pool's network already, from an earlier pool.
    pub(super) fn refuse_blocks_of_other_size(&self, pool: &ApiObject) -> Result<(), ClientError> {
        let Some(network) = cidr(pool) else { return Ok(()) };
        let size = pool.spec("blockSize").as_i64().unwrap_or_default();
        let listed = self.store.list(&Under::Blocks(network.family()))?;
        let conflicts = listed.stored.iter().any(|stored| match stored.key {
            crate::Key::Block(block) => {
                i64::from(block.len()) != size && (block.covers(network) || network.covers(block))
            }
            _ => false,
        });
        if !conflicts {
            return Ok(());
        }
        let reason = "IPPool blocksSize conflicts with existing allocations that use a different blockSize";
        Err(ErroredField::new("IPPool.Spec.BlockSize", size, reason).into())
    }

    /// The pool is disabled first, so that nobody takes an address of it meanwhile; then its blocks lose their nodes.
    pub(super) fn delete_pool(&self, asked: &ApiObject) -> Result<ApiObject, ClientError> {
        let mut pool = self.get(ResourceKind::IpPool, "", asked.name())?;
        let mut last = asked.clone();
        if pool.spec("disabled").as_bool() != Some(true) {
            pool.set_spec("disabled", true);
            if !asked.resource_version().is_empty() {
                pool.set_text("resourceVersion", asked.resource_version());
            }
            self.update(&pool.clone().canonical())?;
            last.set_text("resourceVersion", "");
        }
        if let Some(network) = cidr(&pool) {
            self.release_affinities(network)?;
        }
        self.delete_as_is(&last)
    }

    /// Takes from every node the blocks that it has in a network; an empty block goes.
    fn release_affinities(&self, network: Prefix) -> Result<(), ClientError> {
        let affinities = self.store.list(&Under::Affinities { node: None, family: network.family() })?;
        for affinity in affinities.stored {
            let crate::Key::Affinity { block, .. } = affinity.key else { continue };
            if !network.covers(block) {
                continue;
            }
            self.release_block(block)?;
            match self.store.delete(&affinity.key, None) {
                Ok(_) | Err(crate::StoreError::NotFound(_)) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn release_block(&self, block: Prefix) -> Result<(), ClientError> {
        let key = crate::Key::Block(block);
        let stored = match self.store.get(&key) {
            Ok(stored) => stored,
            Err(crate::StoreError::NotFound(_)) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let in_use =
            stored.value["allocations"].as_array().is_some_and(|all| all.iter().any(|one| !one.is_null()));
        if !in_use {
            self.store.delete(&key, Some(stored.revision))?;
            return Ok(());
        }
        let mut value = stored.value;
        if let Some(block) = value.as_object_mut() {
            block.remove("affinity");
            let next =
                block.get("sequenceNumber").and_then(serde_json::Value::as_u64).unwrap_or_default() + 1;
            block.insert("sequenceNumber".to_owned(), next.into());
        }
        self.store.update(&key, &value, stored.revision)?;
        Ok(())
    }
}

fn block_size_errors(pool: &ApiObject, old: Option<&ApiObject>, network: Prefix) -> Vec<ErroredField> {
    let size = pool.spec("blockSize").as_i64().unwrap_or_default();
    let (family, min, max, _) = block_sizes(network.family());
    let mut errors = Vec::new();
    let mut about_size =
        |reason: String| errors.push(ErroredField::new("IPPool.Spec.BlockSize", size, reason));
    if old.is_some_and(|old| old.spec("blockSize").as_i64() != Some(size)) {
        about_size("IPPool BlockSize cannot be modified".to_owned());
    }
    if !(min..=max).contains(&size) {
        about_size(format!("{family} block size must be between {min} and {max}"));
    }
    if pool.spec("disabled").as_bool() != Some(true) && i64::from(network.len()) > size {
        let reason = "IP pool size is too small for use with Calico IPAM. It must be equal to or greater than the block size.";
        errors.push(ErroredField::new("IPPool.Spec.CIDR", network.to_string(), reason));
    }
    errors
}

/// Addresses of a load balancer's pool can't become those of workloads.
fn refuse_lost_use(pool: &ApiObject, old: &ApiObject) -> Result<(), ClientError> {
    let uses = |pool: &ApiObject, of: fn(&str) -> bool| {
        pool.spec("allowedUses").as_array().is_some_and(|uses| uses.iter().filter_map(|u| u.as_str()).any(of))
    };
    if !uses(old, |one| one == "LoadBalancer") || !uses(pool, |one| one != "LoadBalancer") {
        return Ok(());
    }
    let reason = "IPPool allowed use cannot be changed from LoadBalacer to Workload or Tunnel";
    Err(ErroredField::new("IPPool.Spec.AllowedUses", pool.spec("allowedUses").clone(), reason).into())
}

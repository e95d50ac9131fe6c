//! Pools as IPAM sees them, and which of them a request may draw from (`libcalico-go/lib/ipam/pool_qualification.go`).

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use model::{EncapMode, Family, Prefix};
use policy::Selector;
use serde_json::Value;

use super::allocator::Ipam;
use super::error::IpamError;
use crate::{ResourceKind, Under};

/// What an address is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// A workload's.
    Workload,
    /// A node's, for its own end of a tunnel.
    Tunnel,
    /// A service's, outside.
    LoadBalancer,
}

impl Use {
    fn named(name: &str) -> Option<Use> {
        [Use::Workload, Use::Tunnel, Use::LoadBalancer].into_iter().find(|usage| usage.to_string() == name)
    }
}

impl fmt::Display for Use {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Use::Workload => "Workload",
            Use::Tunnel => "Tunnel",
            Use::LoadBalancer => "LoadBalancer",
        })
    }
}

/// An IPPool with its defaults in place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pool {
    /// Its name.
    pub name: String,
    /// Its addresses.
    pub cidr: Prefix,
    /// Length of its blocks.
    pub block_size: u8,
    /// Whether addresses are assigned from it: not where it is disabled, being removed, or found not fit for it.
    pub enabled: bool,
    /// Is it there for whoever doesn't name it?
    pub automatic: bool,
    /// What its addresses are for.
    pub uses: Vec<Use>,
    /// Whose nodes may have addresses of it; empty is everybody's.
    pub node_selector: String,
    /// Whose namespaces may.
    pub namespace_selector: String,
    /// When packets to its addresses are encapsulated in IP.
    pub ipip: EncapMode,
    /// When they are in VXLAN.
    pub vxlan: EncapMode,
}

impl Default for Pool {
    fn default() -> Pool {
        Pool {
            name: String::new(),
            cidr: Prefix::DEFAULT_V4,
            block_size: 26,
            enabled: true,
            automatic: true,
            uses: vec![Use::Workload, Use::Tunnel],
            node_selector: String::new(),
            namespace_selector: String::new(),
            ipip: EncapMode::Never,
            vxlan: EncapMode::Never,
        }
    }
}

impl Pool {
    /// A stored IPPool; `None` where its network can't be read.
    pub fn of_value(value: &Value) -> Option<Pool> {
        let spec = &value["spec"];
        let text = |field: &str| spec[field].as_str().unwrap_or_default().to_owned();
        let cidr: Prefix = spec["cidr"].as_str()?.parse().ok()?;
        let (default, bits) = match cidr.family() {
            Family::V4 => (26, 32),
            Family::V6 => (122, 128),
        };
        let block_size = match spec["blockSize"].as_u64() {
            None | Some(0) => default,
            Some(size) => u8::try_from(size).ok().filter(|size| *size <= bits)?,
        };
        let uses: Vec<Use> = match spec["allowedUses"].as_array() {
            Some(uses) if !uses.is_empty() => {
                uses.iter().filter_map(|usage| Use::named(usage.as_str()?)).collect()
            }
            _ => vec![Use::Workload, Use::Tunnel],
        };
        let mode = |field: &str| match spec[field].as_str() {
            Some("Always") => EncapMode::Always,
            Some("CrossSubnet") => EncapMode::CrossSubnet,
            _ => EncapMode::Never,
        };
        let conditions = value["status"]["conditions"].as_array().into_iter().flatten();
        let unfit = conditions.into_iter().any(|condition| {
            condition["type"].as_str() == Some("Allocatable") && condition["status"].as_str() == Some("False")
        });
        let removed = value["metadata"]["deletionTimestamp"].is_string();
        Some(Pool {
            name: value["metadata"]["name"].as_str().unwrap_or_default().to_owned(),
            cidr,
            block_size,
            enabled: !spec["disabled"].as_bool().unwrap_or(false) && !removed && !unfit,
            automatic: matches!(spec["assignmentMode"].as_str(), None | Some("" | "Automatic")),
            uses,
            node_selector: text("nodeSelector"),
            namespace_selector: text("namespaceSelector"),
            ipip: mode("ipipMode"),
            vxlan: mode("vxlanMode"),
        })
    }

    /// The block that an address of it is in.
    pub(super) fn block_of(&self, addr: IpAddr) -> Option<Prefix> {
        Prefix::new(addr, self.block_size.max(self.cidr.len()))
    }

    /// Does its node selector select a node of these labels?
    ///
    /// # Errors
    /// The selector can't be read.
    pub fn selects_node(&self, labels: &BTreeMap<String, String>) -> Result<bool, IpamError> {
        self.selects(&self.node_selector, labels)
    }

    fn selects(&self, selector: &str, labels: &BTreeMap<String, String>) -> Result<bool, IpamError> {
        selects(selector, labels).map_err(|reason| IpamError::Selector { pool: self.name.clone(), reason })
    }
}

/// Does a selector select these labels? An empty one selects everything.
///
/// # Errors
/// Why it can't be read.
pub fn selects(selector: &str, labels: &BTreeMap<String, String>) -> Result<bool, String> {
    if selector.is_empty() {
        return Ok(true);
    }
    let selector: Selector = selector.parse().map_err(|error: policy::SelectorError| error.to_string())?;
    Ok(selector.matches(labels))
}

/// What a request asks of pools.
#[derive(Clone, Copy, Debug)]
pub(super) struct PoolRequest<'a> {
    /// Pools that it names; empty leaves the choice to selectors.
    pub(super) named: &'a [Prefix],
    pub(super) node: &'a str,
    pub(super) labels: &'a BTreeMap<String, String>,
    pub(super) namespace: &'a BTreeMap<String, String>,
    pub(super) usage: Use,
}

/// The pools of a request.
#[derive(Clone, Debug)]
pub(super) struct Qualified {
    /// Addresses come from these.
    pub(super) pools: Vec<Pool>,
    /// These are the node's all the same, for another use; their blocks are kept.
    pub(super) selecting: Vec<Pool>,
}

/// Chooses among enabled pools of one family. Pools that are named need not select the node.
pub(super) fn qualify(enabled: &[Pool], request: PoolRequest<'_>) -> Result<Qualified, IpamError> {
    if enabled.is_empty() {
        return Err(IpamError::NoQualifiedPool);
    }
    let mut selecting = Vec::new();
    if request.named.is_empty() {
        for pool in enabled {
            let selected = pool.automatic
                && pool.selects_node(request.labels)?
                && pool.selects(&pool.namespace_selector, request.namespace)?;
            if selected {
                selecting.push(pool.clone());
            }
        }
    } else {
        for named in request.named {
            let pool = enabled.iter().find(|pool| pool.cidr == *named);
            selecting.push(pool.ok_or(IpamError::PoolNotEnabled(*named))?.clone());
        }
    }
    if selecting.is_empty() {
        return Err(IpamError::NoPoolsForNode(request.node.to_owned()));
    }
    let pools: Vec<Pool> =
        selecting.iter().filter(|pool| pool.uses.contains(&request.usage)).cloned().collect();
    if pools.is_empty() {
        return Err(IpamError::NoPoolsForUse(request.usage));
    }
    Ok(Qualified { pools, selecting })
}

/// The first pool that has an address.
pub(super) fn containing(pools: &[Pool], addr: IpAddr) -> Option<&Pool> {
    pools.iter().find(|pool| pool.cidr.contains(addr))
}

impl Ipam<'_> {
    /// All pools, by name. One whose network can't be read is left out.
    ///
    /// # Errors
    /// The store can't be asked.
    pub fn pools(&self) -> Result<Vec<Pool>, IpamError> {
        let listed = self.store.list(&Under::Kind { kind: ResourceKind::IpPool, namespace: None })?;
        Ok(listed.stored.iter().filter_map(|stored| Pool::of_value(&stored.value)).collect())
    }

    /// The pools of a family that addresses are assigned from, by name.
    pub(super) fn enabled_pools(&self, family: Family) -> Result<Vec<Pool>, IpamError> {
        let pools = self.pools()?.into_iter();
        Ok(pools.filter(|pool| pool.enabled && pool.cidr.family() == family).collect())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pool(name: &str, spec: Value) -> Pool {
        Pool::of_value(&json!({"metadata": {"name": name}, "spec": spec})).unwrap()
    }

    fn names(pools: &[Pool]) -> Vec<&str> {
        pools.iter().map(|pool| pool.name.as_str()).collect()
    }

    fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn fields_that_are_absent_have_calicos_defaults() {
        let four = pool("a", json!({"cidr": "10.0.0.0/16"}));
        assert_eq!((four.block_size, four.enabled, four.automatic), (26, true, true));
        assert_eq!(four.uses, [Use::Workload, Use::Tunnel]);
        assert_eq!(pool("b", json!({"cidr": "fd00::/64"})).block_size, 122);
        let removed = json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}, "spec": {"cidr": "10.0.0.0/8"}});
        assert!(!Pool::of_value(&removed).unwrap().enabled);
        assert_eq!(Pool::of_value(&json!({"spec": {"cidr": "x"}})), None);
    }

    #[test]
    fn a_pool_is_chosen_by_node_namespace_mode_and_use() {
        let pools = [
            pool("all", json!({"cidr": "10.0.0.0/16"})),
            pool("manual", json!({"cidr": "10.1.0.0/16", "assignmentMode": "Manual"})),
            pool("rack1", json!({"cidr": "10.2.0.0/16", "nodeSelector": "rack == '1'"})),
            pool("tenant", json!({"cidr": "10.3.0.0/16", "namespaceSelector": "tenant == 'a'"})),
            pool("tunnel", json!({"cidr": "10.4.0.0/16", "allowedUses": ["Tunnel"]})),
        ];
        let (rack1, tenant, none) = (labels(&[("rack", "1")]), labels(&[("tenant", "a")]), labels(&[]));
        let request =
            |labels, namespace, usage| PoolRequest { named: &[], node: "n", labels, namespace, usage };
        let chosen = |labels, namespace, usage| qualify(&pools, request(labels, namespace, usage)).unwrap();
        assert_eq!(names(&chosen(&none, &none, Use::Workload).pools), ["all"]);
        assert_eq!(names(&chosen(&rack1, &none, Use::Workload).pools), ["all", "rack1"]);
        assert_eq!(names(&chosen(&none, &tenant, Use::Workload).pools), ["all", "tenant"]);
        assert_eq!(names(&chosen(&none, &none, Use::Tunnel).pools), ["all", "tunnel"]);
        assert_eq!(names(&chosen(&none, &none, Use::Workload).selecting), ["all", "tunnel"]);

        let named = ["10.1.0.0/16".parse().unwrap()];
        let by_name = PoolRequest { named: &named, ..request(&none, &none, Use::Workload) };
        assert_eq!(names(&qualify(&pools, by_name).unwrap().pools), ["manual"]);
        let unknown = ["10.9.0.0/16".parse().unwrap()];
        let error = qualify(&pools, PoolRequest { named: &unknown, ..by_name }).unwrap_err();
        assert_eq!(error.to_string(), "the given pool (10.9.0.0/16) does not exist, or is not enabled");
        let error = qualify(&pools, request(&none, &none, Use::LoadBalancer)).unwrap_err();
        assert_eq!(
            error.to_string(),
            "cannot find a qualified ippool, no pools match the required use (LoadBalancer)"
        );
        let error = qualify(&pools[2..3], request(&none, &none, Use::Workload)).unwrap_err();
        assert_eq!(error.to_string(), "no configured Calico pools for node n");
    }
}

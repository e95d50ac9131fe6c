//! `startup`: what calico/node is told by environment variables, by fields. A variable that is set goes before its field.

use std::collections::BTreeMap;

use super::field::{Fault, Field};
use super::file::{File, Scalar, Section};
use super::{Reason, file};

/// Fields, and the variables that they stand for.
const FIELDS: &[(&str, &str)] = &[
    ("ip", "IP"),
    ("ip6", "IP6"),
    ("ip_autodetection_method", "IP_AUTODETECTION_METHOD"),
    ("ip6_autodetection_method", "IP6_AUTODETECTION_METHOD"),
    ("disable_node_ip_check", "DISABLE_NODE_IP_CHECK"),
    ("as", "AS"),
    ("k8s_node_ref", "CALICO_K8S_NODE_REF"),
    ("cluster_type", "CLUSTER_TYPE"),
    ("wait_for_datastore", "WAIT_FOR_DATASTORE"),
    ("no_default_pools", "NO_DEFAULT_POOLS"),
    ("ipv4_pool_cidr", "CALICO_IPV4POOL_CIDR"),
    ("ipv4_pool_ipip", "CALICO_IPV4POOL_IPIP"),
    ("ipv4_pool_vxlan", "CALICO_IPV4POOL_VXLAN"),
    ("ipv4_pool_block_size", "CALICO_IPV4POOL_BLOCK_SIZE"),
    ("ipv4_pool_nat_outgoing", "CALICO_IPV4POOL_NAT_OUTGOING"),
    ("ipv4_pool_node_selector", "CALICO_IPV4POOL_NODE_SELECTOR"),
    ("ipv4_pool_disable_bgp_export", "CALICO_IPV4POOL_DISABLE_BGP_EXPORT"),
    ("ipv6_pool_cidr", "CALICO_IPV6POOL_CIDR"),
    ("ipv6_pool_vxlan", "CALICO_IPV6POOL_VXLAN"),
    ("ipv6_pool_block_size", "CALICO_IPV6POOL_BLOCK_SIZE"),
    ("ipv6_pool_nat_outgoing", "CALICO_IPV6POOL_NAT_OUTGOING"),
    ("ipv6_pool_node_selector", "CALICO_IPV6POOL_NODE_SELECTOR"),
    ("ipv6_pool_disable_bgp_export", "CALICO_IPV6POOL_DISABLE_BGP_EXPORT"),
];

/// What the file says, by variable.
pub(super) fn startup(file: &File) -> Result<Option<BTreeMap<&'static str, String>>, Fault> {
    let Some(Section(file::StartupFields(given))) = &file.startup else { return Ok(None) };
    let mut variables = BTreeMap::new();
    for (name, entry) in given {
        let path = format!("startup.{name}");
        let Some((_, variable)) = FIELDS.iter().find(|(known, _)| known == name) else {
            let allowed = FIELDS.iter().map(|(known, _)| *known).collect::<Vec<_>>().join(", ");
            return Err(Fault::of("startup", Reason::NotOneOf { given: name.clone(), allowed }));
        };
        let Some(field) = Field::new(&path, entry) else { continue };
        let text = match &entry.value {
            Scalar::Bool(truth) => truth.to_string(),
            Scalar::Int(number) => number.to_string(),
            _ => field.text()?.to_owned(),
        };
        variables.insert(*variable, text);
    }
    Ok(Some(variables))
}

//! `ipam split`: a pool becomes several smaller ones. Blocks and addresses stay as they are.

use clap::Args;
use datastore::ipam::nth;
use datastore::{ApiObject, Client, ResourceKind, Store, Stored, Under};
use model::Prefix;
use serde_json::{Value, json};

use super::{Failure, cluster_information, is_locked, resource};

/// The longest name of a resource.
const NAME_BYTES: usize = 253;

#[derive(Clone, Debug, Default, Args)]
pub(super) struct SplitArgs {
    /// Number of smaller pools, a power of two
    #[arg(value_name = "NUMBER")]
    pub(super) number: String,
    /// CIDR of the IP pool to split
    #[arg(long, value_name = "CIDR", default_value = "")]
    pub(super) cidr: String,
    /// Name of the IP pool to split
    #[arg(long, value_name = "POOL_NAME", default_value = "")]
    pub(super) name: String,
}

pub(super) fn run(store: &dyn Store, args: &SplitArgs, out: &mut String) -> Result<(), Failure> {
    let SplitArgs { number, cidr, name } = args;
    let parts: i64 = number.parse().map_err(|error| {
        Failure::new(format!(
            "error reading number to split IP pools into. {number} is not a valid number: {error}"
        ))
    })?;
    if cidr.is_empty() && name.is_empty() {
        return Err(Failure::new(
            "no name or CIDR provided. Provide a name or CIDR to denote the IP pool to split",
        ));
    }
    let cluster = cluster_information(store);
    let cluster = cluster
        .map_err(|error| Failure::new(format!("error while checking if datastore was locked: {error}")))?;
    if !is_locked(&cluster) {
        return Err(Failure::new(
            "datastore is not locked. Run the `calicoctl datastore migrate lock` command in order split the IP pools",
        ));
    }
    let old = find(store, cidr, name)?;
    let old_name = old.value["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    let network = old.value["spec"]["cidr"].as_str().unwrap_or_default().to_owned();
    let networks = split(&network, parts).map_err(|why| {
        Failure::new(format!("error splitting the CIDR {network} into {parts} CIDRs: {why}"))
    })?;

    // Nothing is assigned of it from here on.
    let mut disabled = old.value.clone();
    disabled["spec"]["disabled"] = json!(true);
    let old_key = resource(ResourceKind::IpPool, &old_name);
    store
        .update(&old_key, &disabled, old.revision)
        .map_err(|_| Failure::new(format!("error disabling IP pool {cidr}")))?;
    let client = Client::new(store);
    let mut made = Vec::new();
    for (number, network) in networks.iter().enumerate() {
        let name = child_name(&old_name, number);
        let pool = child(&old.value, &name, *network).map_err(Failure::new)?;
        // The old pool is still there, and overlaps.
        client.create_as_is(pool).map_err(|error| {
            Failure::new(format!("error using unsafe create to make split pool with cidr {network}: {error}"))
        })?;
        made.push(format!("Created {name} with CIDR {network}.\n"));
    }
    store.delete(&old_key, None).map_err(|error| {
        Failure::new(format!("error removing the IP pool that was split {old_name}: {error}"))
    })?;
    out.push_str(&format!("IP Pool {old_name} was successfully split into {parts} smaller pools."));
    out.push_str(&made.concat());
    out.push_str("Please refer to the documentation for final steps.");
    Ok(())
}

fn find(store: &dyn Store, cidr: &str, name: &str) -> Result<Stored, Failure> {
    if !name.is_empty() {
        let pool = store.get(&resource(ResourceKind::IpPool, name));
        return pool
            .map_err(|error| Failure::new(format!("unable to find IP pool with name {name}: {error}")));
    }
    let pools = store.list(&Under::Kind { kind: ResourceKind::IpPool, namespace: None });
    let pools = pools
        .map_err(|_| Failure::new(format!("unable to list IP pools to find the pool specified by {cidr}")))?;
    let mut pools = pools.stored.into_iter();
    pools
        .find(|pool| pool.value["spec"]["cidr"].as_str() == Some(cidr))
        .ok_or_else(|| Failure::new(format!("unable to find IP pool  covering the specified CIDR {cidr}")))
}

fn split(network: &str, parts: i64) -> Result<Vec<Prefix>, String> {
    let parts = u32::try_from(parts)
        .ok()
        .filter(|parts| *parts > 1 && parts.is_power_of_two())
        .ok_or_else(|| format!("number to split CIDR into is not a valid power of 2: {parts}"))?;
    let old: Prefix =
        network.parse().map_err(|_| format!("error reading CIDR {network} before attempting to split it"))?;
    // At most 31.
    let len = old.len() + parts.trailing_zeros() as u8;
    let bits = old.family().bits();
    if len > bits {
        return Err(format!("the CIDR {network} is not large enough to be split into {parts} parts"));
    }
    let shift = u32::from(bits - len);
    Ok((0..u128::from(parts)).filter_map(|part| Prefix::new(nth(old, part << shift), len)).collect())
}

fn child_name(old: &str, number: usize) -> String {
    let room = NAME_BYTES - format!("split--{number}").len();
    // Names are of ASCII letters; anything else in a store is cut where it may be.
    let end = (0..=room.min(old.len())).rev().find(|end| old.is_char_boundary(*end)).unwrap_or(0);
    format!("split-{}-{number}", &old[..end])
}

/// The old pool with another name and network, to be born.
fn child(old: &Value, name: &str, network: Prefix) -> Result<ApiObject, String> {
    let mut pool = old.clone();
    let mut metadata = serde_json::Map::new();
    metadata.insert("name".to_owned(), json!(name));
    for field in ["labels", "annotations"] {
        if !old["metadata"][field].is_null() {
            metadata.insert(field.to_owned(), old["metadata"][field].clone());
        }
    }
    pool["metadata"] = Value::Object(metadata);
    pool["spec"]["cidr"] = json!(network.to_string());
    if let Some(spec) = pool["spec"].as_object_mut() {
        spec.remove("disabled");
    }
    ApiObject::decode(ResourceKind::IpPool, &pool)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_is_split_into_equal_parts() {
        let parts = |network: &str, parts: i64| {
            split(network, parts).map(|parts| parts.iter().map(Prefix::to_string).collect::<Vec<_>>())
        };
        assert_eq!(
            parts("10.0.1.0/24", 4).unwrap(),
            ["10.0.1.0/26", "10.0.1.64/26", "10.0.1.128/26", "10.0.1.192/26"]
        );
        assert_eq!(parts("fd00::/64", 2).unwrap(), ["fd00::/65", "fd00::8000:0:0:0/65"]);
        for number in [-2, 0, 1, 3] {
            let error = parts("10.0.1.0/24", number).unwrap_err();
            assert_eq!(error, format!("number to split CIDR into is not a valid power of 2: {number}"));
        }
        assert_eq!(
            parts("10.0.1.0/24", 512).unwrap_err(),
            "the CIDR 10.0.1.0/24 is not large enough to be split into 512 parts"
        );
    }

    #[test]
    fn names_of_children_stay_within_what_a_name_may_have() {
        assert_eq!(child_name("pool", 3), "split-pool-3");
        assert!(child_name(&"a".repeat(253), 15).len() <= NAME_BYTES);
    }
}

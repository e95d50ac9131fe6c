//! Pools for a cluster that has none.

use std::fs::File;
use std::io::Read;
use std::net::{IpAddr, Ipv6Addr};

use anyhow::{Context, bail};
use datastore::ResourceKind;
use datastore::ipam::selects;
use model::{Family, Prefix};
use serde_json::{Value, json};
use slowpath::HostInterface;

use super::Variables;
use super::resources::Resources;

/// Taken for IPv4 where no address of the host lies in it; else the first such of 172.16.0.0/16 to 172.31.0.0/16.
const PREFERRED: &str = "192.168.0.0/16";

/// A default pool, and what its variables begin with.
struct Default {
    family: Family,
    name: &'static str,
    variables: &'static str,
    block_size: u8,
    block_sizes: std::ops::RangeInclusive<u8>,
    nat_outgoing: bool,
}

const DEFAULTS: [Default; 2] = [
    Default {
        family: Family::V4,
        name: "default-ipv4-ippool",
        variables: "CALICO_IPV4POOL_",
        block_size: 26,
        block_sizes: 20..=32,
        nat_outgoing: true,
    },
    Default {
        family: Family::V6,
        name: "default-ipv6-ippool",
        variables: "CALICO_IPV6POOL_",
        block_size: 122,
        block_sizes: 116..=128,
        nat_outgoing: false,
    },
];

/// Makes a pool of each family that has none, unless that is ruled out.
///
/// # Errors
/// A variable makes no sense, or the store can't be asked.
pub(super) fn configure(
    resources: &Resources<'_>,
    variables: &Variables,
    interfaces: &[HostInterface],
    ipv6: bool,
) -> anyhow::Result<()> {
    let cidr = |default: &Default| variables.get(&format!("{}CIDR", default.variables));
    if variables.is_true("NO_DEFAULT_POOLS") {
        if DEFAULTS.iter().any(|default| !cidr(default).is_empty()) {
            bail!(
                "Invalid configuration with NO_DEFAULT_POOLS defined and CALICO_IPV4POOL_CIDR or CALICO_IPV6POOL_CIDR \
                 defined."
            );
        }
        return Ok(());
    }
    let pools = resources.list(ResourceKind::IpPool)?;
    let families: Vec<Family> = pools.iter().filter_map(|pool| Some(prefix(pool)?.family())).collect();
    for default in &DEFAULTS {
        let given = cidr(default);
        if given == "none" {
            continue;
        }
        // Variables are looked at even where they aren't needed: a mistake shows at the first start.
        let spec = spec(default, &given, variables, interfaces)?;
        if families.contains(&default.family) || (default.family == Family::V6 && !ipv6) {
            continue;
        }
        if resources.make(ResourceKind::IpPool, default.name, spec.clone())? {
            tracing::info!(pool = default.name, spec = %spec, "made a default pool");
        }
    }
    Ok(())
}

fn prefix(pool: &Value) -> Option<Prefix> {
    pool["spec"]["cidr"].as_str()?.parse().ok()
}

/// A default pool's fields, in Calico's order.
fn spec(
    default: &Default,
    given: &str,
    variables: &Variables,
    interfaces: &[HostInterface],
) -> anyhow::Result<Value> {
    let name = |suffix: &str| format!("{}{suffix}", default.variables);
    let get = |suffix: &str| variables.get(&name(suffix));
    let mut block_size = default.block_size;
    let given_size = get("BLOCK_SIZE");
    if !given_size.is_empty() {
        block_size =
            given_size.parse().ok().filter(|size| default.block_sizes.contains(size)).with_context(|| {
                format!("{}={given_size} is no block size; use {:?}", name("BLOCK_SIZE"), default.block_sizes)
            })?;
    }
    let selector = get("NODE_SELECTOR");
    selects(&selector, &std::collections::BTreeMap::new())
        .map_err(|why| anyhow::anyhow!("{}='{selector}': {why}", name("NODE_SELECTOR")))?;
    let ipip = match default.family {
        Family::V4 => mode(&name("IPIP"), &get("IPIP"))?,
        Family::V6 => "Never",
    };
    let vxlan = mode(&name("VXLAN"), &get("VXLAN"))?;
    let cidr: Prefix = match (given, default.family) {
        ("", Family::V4) => free_network(interfaces),
        ("", Family::V6) => unique_local()?,
        _ => given
            .parse()
            .ok()
            .filter(|cidr: &Prefix| given.contains('/') && cidr.family() == default.family)
            .with_context(|| format!("Invalid CIDR specified in {} '{given}'", name("CIDR")))?,
    };
    if cidr.len() > block_size {
        bail!("{} '{cidr}' is smaller than its blocks of /{block_size}", name("CIDR"));
    }
    let mut spec = json!({ "cidr": cidr.to_string(), "vxlanMode": vxlan, "ipipMode": ipip });
    if flag(variables, &name("NAT_OUTGOING"), default.nat_outgoing) {
        spec["natOutgoing"] = json!(true);
    }
    spec["blockSize"] = json!(block_size);
    spec["nodeSelector"] = json!(if selector.is_empty() { "all()" } else { &selector });
    if flag(variables, &name("DISABLE_BGP_EXPORT"), false) {
        spec["disableBGPExport"] = json!(true);
    }
    spec["allowedUses"] = json!(["Workload", "Tunnel"]);
    spec["assignmentMode"] = json!("Automatic");
    Ok(spec)
}

fn mode(name: &str, given: &str) -> anyhow::Result<&'static str> {
    match given.to_ascii_lowercase().as_str() {
        "" | "off" | "never" => Ok("Never"),
        "crosssubnet" | "cross-subnet" => Ok("CrossSubnet"),
        "always" => Ok("Always"),
        _ => bail!("Unrecognized mode specified in {name} '{given}'; use Always, CrossSubnet or Never"),
    }
}

/// Whatever is set and isn't one of Calico's words for no is yes.
fn flag(variables: &Variables, name: &str, default: bool) -> bool {
    variables.lookup(name).map_or(default, |given| {
        !["false", "0", "no", "n", "f"].contains(&given.to_ascii_lowercase().as_str())
    })
}

fn free_network(interfaces: &[HostInterface]) -> Prefix {
    let networks = [PREFERRED.to_owned()].into_iter().chain((16..=31).map(|n| format!("172.{n}.0.0/16")));
    let mut networks = networks.filter_map(|network| network.parse::<Prefix>().ok());
    let addresses = || interfaces.iter().flat_map(|interface| &interface.addresses);
    let preferred = networks.clone().next().unwrap_or(Prefix::DEFAULT_V4);
    let is_free = |network: &Prefix| !addresses().any(|address| network.contains(address.addr));
    networks.find(is_free).unwrap_or(preferred)
}

/// A random /48 of unique local addresses (RFC 4193 §3.2).
fn unique_local() -> anyhow::Result<Prefix> {
    let mut bytes = [0; 16];
    bytes[0] = 0xfd;
    File::open("/dev/urandom")
        .and_then(|mut file| file.read_exact(&mut bytes[1..6]))
        .context("can't draw a random number")?;
    Prefix::new(IpAddr::V6(Ipv6Addr::from(bytes)), 48).context("a /48 is a prefix")
}

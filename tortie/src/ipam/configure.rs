//! `ipam configure`.

use clap::Args;
use datastore::ipam::Ipam;

use super::Failure;

#[derive(Clone, Debug, Default, Args)]
pub(super) struct ConfigureArgs {
    /// Set StrictAffinity to true/false. When StrictAffinity is true, borrowing IP addresses is not allowed
    #[arg(long, value_name = "true/false")]
    pub(super) strictaffinity: Option<String>,
    /// Set the maximum number of blocks that can be affine to a host
    #[arg(long, value_name = "number")]
    pub(super) max_blocks_per_host: Option<String>,
    /// Control whether KubeVirt VMs retain persistent IP addresses (Enabled|Disabled)
    #[arg(long, value_name = "Enabled|Disabled")]
    pub(super) kubevirt_ip_persistence: Option<String>,
    /// Set the minimum time between release and re-allocation of an IP address
    #[arg(long, value_name = "number", allow_negative_numbers = true)]
    pub(super) ip_cooldown_seconds: Option<i64>,
}

pub(super) fn run(ipam: &Ipam<'_>, args: &ConfigureArgs, out: &mut String) -> Result<(), Failure> {
    let given = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    let strict = given(&args.strictaffinity).map(|text| truth(&text)).transpose()?;
    let max_blocks = given(&args.max_blocks_per_host)
        .map(|text| text.parse::<u32>().map_err(|_| "invalid value for maxblockhost. Use a valid number"))
        .transpose()
        .map_err(Failure::new)?;
    let persistence = given(&args.kubevirt_ip_persistence);
    if persistence.as_ref().is_some_and(|word| word != "Enabled" && word != "Disabled") {
        return Err(Failure::new("invalid value for --kubevirt-ip-persistence. Use Enabled or Disabled"));
    }
    // calicoctl's default for "not given" is -1.
    let cooldown = args.ip_cooldown_seconds.filter(|seconds| *seconds >= 0);
    if strict.is_none() && max_blocks.is_none() && persistence.is_none() && cooldown.is_none() {
        return Err(Failure::new("at least one configuration option must be specified"));
    }
    let failed = |error| Failure::new(format!("error: {error}"));
    let mut config = ipam.config().map_err(failed)?;
    if let Some(strict) = strict {
        config.strict_affinity = strict;
    }
    if let Some(max_blocks) = max_blocks {
        config.max_blocks_per_host = max_blocks;
    }
    if let Some(word) = &persistence {
        config.kubevirt_vm_address_persistence = Some(word.clone());
    }
    if let Some(seconds) = cooldown {
        config.ip_cooldown_seconds = u32::try_from(seconds).unwrap_or(u32::MAX);
    }
    ipam.set_config(&config).map_err(failed)?;
    let mut said = |name: &str, value: Option<String>| {
        if let Some(value) = value {
            out.push_str(&format!("Successfully set {name} to: {value}\n"));
        }
    };
    said("StrictAffinity", strict.map(|strict| strict.to_string()));
    said("MaxBlocksPerHost", max_blocks.map(|blocks| blocks.to_string()));
    said("KubeVirtVMAddressPersistence", persistence);
    said("IPCooldownSeconds", cooldown.map(|seconds| seconds.to_string()));
    Ok(())
}

/// `strconv.ParseBool`.
fn truth(text: &str) -> Result<bool, Failure> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err(Failure::new("invalid value. Use true or false to set strictaffinity")),
    }
}

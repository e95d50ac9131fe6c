//! `ipam show`.

use std::collections::BTreeMap;
use std::net::IpAddr;

use clap::Args;
use datastore::ipam::{Block, Ipam, IpamError, PoolUsage};
use model::Family;

use super::go_number::{five_digits, part};
use super::{Failure, address};
use crate::show::table::Table;

#[derive(Clone, Debug, Args)]
pub(super) struct ShowArgs {
    /// Report whether this specific IP address is in use
    #[arg(long, value_name = "IP")]
    pub(super) ip: Option<String>,
    /// Show detailed information for IP blocks as well as pools
    #[arg(long)]
    pub(super) show_blocks: bool,
    /// Show detailed information for "borrowed" IP addresses
    #[arg(long)]
    pub(super) show_borrowed: bool,
    /// Show current Calico IPAM configuration
    #[arg(long)]
    pub(super) show_configuration: bool,
}

pub(super) fn run(ipam: &Ipam<'_>, args: &ShowArgs, out: &mut String) -> Result<(), Failure> {
    match args {
        ShowArgs { ip: Some(ip), .. } if !ip.is_empty() => one(ipam, address(ip, out)?, out),
        ShowArgs { show_blocks: true, .. } => usage(ipam, true, out),
        ShowArgs { show_borrowed: true, .. } => borrowed(ipam, out),
        ShowArgs { show_configuration: true, .. } => configuration(ipam, out),
        _ => usage(ipam, false, out),
    }
}

fn one(ipam: &Ipam<'_>, addr: IpAddr, out: &mut String) -> Result<(), Failure> {
    let holder = match ipam.assignment(addr) {
        Ok(holder) => holder,
        Err(error) if error.is_not_found() => {
            out.push_str(&format!("{addr} is not assigned\n"));
            return Ok(());
        }
        Err(error) => return Err(error.into()),
    };
    out.push_str(&format!("IP {addr} is in use\n"));
    out.push_str(&format!("Handle ID: {}\n", holder.handle().unwrap_or("<none>")));
    if holder.owner.is_empty() {
        out.push_str("No Active Owner attributes defined\n");
    }
    for (title, attributes) in
        [("Active Owner Attributes", &holder.owner), ("Alternate Owner Attributes", &holder.alternate)]
    {
        if !attributes.is_empty() {
            out.push_str(&format!("{title}:\n"));
        }
        for (name, value) in attributes {
            out.push_str(&format!("  {name}: {value}\n"));
        }
    }
    Ok(())
}

fn usage(ipam: &Ipam<'_>, blocks: bool, out: &mut String) -> Result<(), Failure> {
    let headings = ["GROUPING", "CIDR", "IPS TOTAL", "IPS IN USE", "IPS RESERVED", "IPS FREE"];
    let mut table = Table::new(&headings).right(2..headings.len());
    let mut row = |kind: &str, cidr: String, [total, in_use, reserved, free]: [u128; 4]| {
        let total_text = five_digits(total as f64);
        let parts = [in_use, reserved, free].map(|count| part(count, total));
        table.row([kind.to_owned(), cidr, total_text].into_iter().chain(parts).collect());
    };
    for PoolUsage { cidr, capacity, in_use, reserved, free, blocks: of_pool } in ipam.utilization()? {
        if let Some(cidr) = cidr {
            row("IP Pool", cidr.to_string(), [capacity, in_use, reserved, free]);
        }
        for block in of_pool.iter().filter(|_| blocks) {
            row("Block", block.cidr.to_string(), [block.capacity, block.in_use, block.reserved, block.free]);
        }
    }
    out.push_str(&table.boxes());
    Ok(())
}

fn borrowed(ipam: &Ipam<'_>, out: &mut String) -> Result<(), Failure> {
    let mut table = Table::new(&["IP", "BORROWING-NODE", "BLOCK", "BLOCK OWNER", "TYPE", "ALLOCATED-TO"]);
    let mut unclassified = 0;
    for block in all_blocks(ipam)? {
        // calicoctl splits at the colon; what has none, or more, it takes as it begins.
        let affinity = block.affinity().unwrap_or_default();
        let parts: Vec<&str> = affinity.split(':').collect();
        let owner = if parts.len() == 2 { parts[1] } else { parts[0] };
        for (addr, _, row) in block.allocations() {
            let attributes = row.map(|row| &row.owner);
            let Some(node) = attributes.and_then(|attributes| attributes.get("node")) else {
                unclassified += 1;
                continue;
            };
            if node == owner {
                continue;
            }
            let (kind, to) = allocated_to(attributes);
            table.row(vec![
                addr.to_string(),
                node.clone(),
                block.cidr().to_string(),
                owner.to_owned(),
                kind,
                to,
            ]);
        }
    }
    out.push_str(&table.boxes());
    if unclassified > 0 {
        out.push_str(&format!(
            "\nNote: found {unclassified} IP allocations without an explicit node association. Unable to determine if \
             they are borrowed.\n"
        ));
    }
    Ok(())
}

/// What kind of owner an address has, and which.
fn allocated_to(attributes: Option<&BTreeMap<String, String>>) -> (String, String) {
    let attribute = |name: &str| attributes.and_then(|attributes| attributes.get(name));
    let namespace = attribute("namespace").map_or("", String::as_str);
    if let Some(name) = attribute("vmi-name") {
        ("vmi".to_owned(), format!("{namespace}/{name}"))
    } else if let Some(name) = attribute("pod") {
        ("pod".to_owned(), format!("{namespace}/{name}"))
    } else {
        (attribute("type").cloned().unwrap_or_default(), String::new())
    }
}

/// Blocks of both families.
pub(super) fn all_blocks(ipam: &Ipam<'_>) -> Result<Vec<Block>, IpamError> {
    let mut blocks = Vec::new();
    for family in Family::ALL {
        blocks.extend(ipam.blocks(family)?);
    }
    Ok(blocks)
}

fn configuration(ipam: &Ipam<'_>, out: &mut String) -> Result<(), Failure> {
    let config = ipam.config().map_err(|error| Failure::new(format!("error: {error}")))?;
    let persistence = match &config.kubevirt_vm_address_persistence {
        // Go would tell where in its memory the word lies.
        Some(word) => format!("{word:?}"),
        None => "(*ipam.VMAddressPersistence)(nil)".to_owned(),
    };
    let mut table = Table::new(&["PROPERTY", "VALUE"]);
    for (name, value) in [
        ("StrictAffinity", config.strict_affinity.to_string()),
        ("AutoAllocateBlocks", config.auto_allocate_blocks.to_string()),
        ("MaxBlocksPerHost", config.max_blocks_per_host.to_string()),
        ("KubeVirtVMAddressPersistence", persistence),
        ("IPCooldownSeconds", config.ip_cooldown_seconds.to_string()),
    ] {
        table.row(vec![name.to_owned(), value]);
    }
    out.push_str(&table.boxes());
    Ok(())
}

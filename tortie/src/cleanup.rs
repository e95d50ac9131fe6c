//! `tortie cleanup`: removes what a router leaves on purpose when it ends (ARCHITECTURE.md, D1).

use crate::config::Config;
use crate::run::refuse_beside_a_router;
use crate::{interfaces, privileges, tuning};

/// Removes XDP programs, mirrored routes and rules, the nftables tables and `tortie0`, gives reserved ports and the kernel's former settings back, and says what it did.
///
/// From then on nothing of Tortie's decides about a packet: what a workload sends follows the kernel's own routes.
///
/// # Errors
/// A router still runs, privileges are missing, or something can't be removed; everything else is removed nevertheless.
pub(crate) fn run(config: &Config) -> anyhow::Result<Vec<String>> {
    privileges::check()?;
    refuse_beside_a_router(config)?;
    let (mut done, failed) = detach_programs(config)?;
    let routes =
        slowpath::cleanup(&config.workload_prefix, &config.reserved_ports(), &config.former_settings())?;
    done.push(format!("removed {routes} mirrored routes and their rules, the nftables tables and tortie0"));
    done.extend(tuning::undo(config));
    match failed {
        Some(error) => Err(error.into()),
        None => Ok(done),
    }
}

/// Detaches our programs from uplinks and workload ports; the first failure doesn't stop the others.
fn detach_programs(config: &Config) -> anyhow::Result<(Vec<String>, Option<afxdp::AttachError>)> {
    let mut done = Vec::new();
    let mut failed = None;
    for name in interfaces::names()? {
        if !config.uplinks.contains(&name) && !name.starts_with(&config.workload_prefix) {
            continue;
        }
        let Ok(index) = afxdp::interface_index(&name) else { continue };
        match afxdp::detach(index) {
            Ok(programs) => {
                let detached = |program: afxdp::Attached| {
                    format!(
                        "detached {} (program {}, {}) from {name}",
                        program.name, program.id, program.attach
                    )
                };
                done.extend(programs.into_iter().map(detached));
            }
            // Somebody else's program is none of our business, and a lost interface needs nothing.
            Err(afxdp::AttachError::Foreign { .. } | afxdp::AttachError::NoInterface { .. }) => {}
            Err(error) => failed = failed.or(Some(error)),
        }
    }
    Ok((done, failed))
}

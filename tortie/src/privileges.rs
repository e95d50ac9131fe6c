//! What a start needs of the kernel's capabilities (DESIGN.md, D13).

use std::fmt;

/// A capability, or several of which one is enough, and what it is for.
struct Need {
    /// Numbers of `include/uapi/linux/capability.h` with their names.
    any_of: &'static [(u32, &'static str)],
    purpose: &'static str,
}

const NEEDS: &[Need] = &[
    Need { any_of: &[(12, "CAP_NET_ADMIN")], purpose: "links, routes and attaching XDP programs" },
    Need { any_of: &[(39, "CAP_BPF"), (21, "CAP_SYS_ADMIN")], purpose: "loading XDP programs" },
    Need { any_of: &[(13, "CAP_NET_RAW")], purpose: "AF_XDP sockets" },
    Need { any_of: &[(14, "CAP_IPC_LOCK")], purpose: "memory that the NIC writes into" },
];

/// Capabilities are missing.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("this process lacks {}; run tortie as root, or give its unit AmbientCapabilities= with these", List(.0))]
pub(crate) struct Missing(Vec<String>);

struct List<'a>(&'a [String]);

impl fmt::Display for List<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join(", "))
    }
}

/// Has this process what a start needs?
///
/// # Errors
/// What is missing. Where the kernel doesn't tell (no /proc), nothing is held against the start.
pub(crate) fn check() -> Result<(), Missing> {
    match std::fs::read_to_string("/proc/self/status").ok().as_deref().and_then(effective) {
        Some(capabilities) => check_set(capabilities),
        None => Ok(()),
    }
}

/// The line `CapEff` of proc_pid_status(5).
fn effective(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(line.trim(), 16).ok()
}

fn check_set(capabilities: u64) -> Result<(), Missing> {
    let has = |number: u32| capabilities & (1 << number) != 0;
    let missing: Vec<String> = NEEDS
        .iter()
        .filter(|need| !need.any_of.iter().any(|(number, _)| has(*number)))
        .map(|need| {
            let names: Vec<&str> = need.any_of.iter().map(|(_, name)| *name).collect();
            format!("{} ({})", names.join(" or "), need.purpose)
        })
        .collect();
    if missing.is_empty() { Ok(()) } else { Err(Missing(missing)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_of_proc_is_read() {
        assert_eq!(effective("Name:\tx\nCapEff:\t000001ffffffffff\nCapBnd:\t0\n"), Some(0x1ff_ffff_ffff));
        assert_eq!(effective("Name:\tx\n"), None);
    }

    #[test]
    fn root_lacks_nothing() {
        assert_eq!(check_set(u64::MAX), Ok(()));
    }

    #[test]
    fn sys_admin_stands_in_for_bpf_on_older_kernels() {
        assert_eq!(check_set(1 << 12 | 1 << 13 | 1 << 14 | 1 << 21), Ok(()));
        assert_eq!(check_set(1 << 12 | 1 << 13 | 1 << 14 | 1 << 39), Ok(()));
    }

    #[test]
    fn what_is_missing_is_named_with_its_purpose_and_what_to_do() {
        let message = check_set(1 << 12 | 1 << 39).unwrap_err().to_string();
        assert_eq!(
            message,
            "this process lacks CAP_NET_RAW (AF_XDP sockets), CAP_IPC_LOCK (memory that the NIC writes into); \
             run tortie as root, or give its unit AmbientCapabilities= with these"
        );
    }
}

//! Kernel settings under `/proc/sys/net`, and what each is for.
//!
//! They belong to the network namespace of the calling thread and outlive the process on purpose: the kernel is to
//! go on forwarding transit traffic after us, and workload ports are to stay shut.

use std::borrow::Cow;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::privileges::raised;

/// A setting that could not be read or written.
#[derive(Debug, thiserror::Error)]
#[error("could not set {} to {value}: {source}{}", path.display(), hint(source))]
pub struct SysctlError {
    /// The file.
    pub path: PathBuf,
    /// What it should have said.
    pub value: Cow<'static, str>,
    /// The kernel's reason.
    #[source]
    pub source: io::Error,
}

fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::PermissionDenied => "; run as root",
        io::ErrorKind::ReadOnlyFilesystem => "; /proc/sys is read-only here, as in an unprivileged container",
        io::ErrorKind::NotFound => "; the interface is gone, or the kernel lacks the protocol",
        _ => "",
    }
}

/// What [`enable_forwarding`] changes.
pub fn forwarding_settings<'a>(uplinks: impl IntoIterator<Item = &'a str>) -> Vec<PathBuf> {
    let accept_ra = uplinks.into_iter().map(|uplink| conf("ipv6", uplink, "accept_ra"));
    ["/proc/sys/net/ipv4/ip_forward".into(), conf("ipv6", "all", "forwarding")]
        .into_iter()
        .chain(accept_ra)
        .collect()
}

/// Makes the kernel a router, so that it forwards what falls back to it (ARCHITECTURE.md, D1).
///
/// A kernel that forwards IPv6 stops believing router advertisements, and forgets the default route it has from
/// them, unless `accept_ra` is 2; so uplinks that believe them are set to 2 first.
///
/// # Errors
/// The first setting that can't be made.
pub fn enable_forwarding<'a>(uplinks: impl IntoIterator<Item = &'a str>) -> Result<(), SysctlError> {
    for uplink in uplinks {
        let accept_ra = conf("ipv6", uplink, "accept_ra");
        if read(&accept_ra).is_some_and(|value| value == "1") {
            write(accept_ra, "2")?;
        }
    }
    write("/proc/sys/net/ipv4/ip_forward".into(), "1")?;
    if !has_ipv6() {
        return Ok(());
    }
    write(conf("ipv6", "all", "forwarding"), "1")
}

/// Bytes that a socket may take for its options: the key of a BGP peer with a password takes 136 of the listening one's. 128 KiB
/// since Linux 6.8, 20 KiB before, which is 960 and 150 peers.
pub const OPTION_MEMORY: &str = "/proc/sys/net/core/optmem_max";
/// Keys of more peers than the speaker takes.
const OPTION_MEMORY_MAX: u64 = 4 * 1024 * 1024;

/// Doubles [`OPTION_MEMORY`]; says whether there was room to.
///
/// # Errors
/// The setting can't be made: also where the kernel has it in the first network namespace alone, and this is another.
pub fn double_option_memory() -> Result<bool, SysctlError> {
    let path = PathBuf::from(OPTION_MEMORY);
    let now = read(&path).and_then(|value| value.parse::<u64>().ok()).unwrap_or(OPTION_MEMORY_MAX / 2);
    if now >= OPTION_MEMORY_MAX {
        return Ok(false);
    }
    write(path, (2 * now).to_string()).map(|()| true)
}

/// Settings of `tortie0`, where the kernel meets the walk.
///
/// # Errors
/// The first setting that can't be made.
pub fn prepare_host_port(name: &str) -> Result<(), SysctlError> {
    // Loose: a workload's packet may arrive here although its route, a remote pool's, leads elsewhere. The effective
    // value is the larger of this and `all`'s, so 2 prevails over a strict 1 there; 0 would not.
    write(conf("ipv4", name, "rp_filter"), "2")?;
    // What the walk tells the host about its own packets comes from the host's own address: "fragmentation needed", above all.
    write(conf("ipv4", name, "accept_local"), "1")?;
    // The kernel never answers ARP here: the far end knows our MAC.
    write(conf("ipv4", name, "arp_ignore"), "8")?;
    // A workload sent to its neighbour through the host stays with its gateway.
    write(conf("ipv4", name, "send_redirects"), "0")?;
    if !has_ipv6() {
        return Ok(());
    }
    // Nobody advertises here, and nobody else could have our link-local address.
    write(conf("ipv6", name, "accept_ra"), "0")?;
    write(conf("ipv6", name, "accept_dad"), "0")
}

/// May what comes in by this link be for the host's loopback, and be answered from there? The walk lets through what it has made
/// of packets to OpenStack's metadata, and nothing else.
///
/// # Errors
/// It can't be set.
pub fn route_loopback(name: &str, may: bool) -> Result<(), SysctlError> {
    write(conf("ipv4", name, "route_localnet"), if may { "1" } else { "0" })
}

/// Settings of `tortie1`, whose frames are the walk's: the kernel's own stack is not to touch them, above all not
/// after we die, when what enters `tortie0` comes out here and would be routed back in a circle.
///
/// # Errors
/// The first setting that can't be made.
pub fn silence_far_side(name: &str) -> Result<(), SysctlError> {
    write(conf("ipv4", name, "forwarding"), "0")?;
    silence(name)
}

/// Settings of a workload port: every frame is the walk's, so the kernel answers nothing and says nothing there.
///
/// XDP takes the frames before the kernel sees any, so these only matter while no program is attached, and for what
/// the kernel sends unasked.
///
/// # Errors
/// The first setting that can't be made.
pub fn silence_workload_port(name: &str) -> Result<(), SysctlError> {
    // Calico sets 1 for its gateway 169.254.1.1; here the slow path answers (ARCHITECTURE.md, D9).
    write(conf("ipv4", name, "proxy_arp"), "0")?;
    silence(name)
}

/// Settings of a workload port beside which the host's own DHCP server works: the kernel receives requests there, and
/// neighbour discovery with its answers. Undone by [`silence_workload_port`], but for what does no harm.
///
/// # Errors
/// The first setting that can't be made.
pub fn open_workload_port(name: &str) -> Result<(), SysctlError> {
    // Loose, as on the host port: routes to the workload lead there and not here.
    write(conf("ipv4", name, "rp_filter"), "2")?;
    if !has_ipv6() {
        return Ok(());
    }
    // The workload is no router of ours.
    write(conf("ipv6", name, "accept_ra"), "0")?;
    // With its link-local address, which DHCPv6 speaks from.
    write(conf("ipv6", name, "disable_ipv6"), "0")
}

/// Undoes on every interface whose name begins with `prefix` what [`silence_workload_port`] did, as Calico's own agent
/// would find it. For a clean uninstall.
///
/// # Errors
/// The first setting that can't be made.
pub fn release_workload_ports(prefix: &str) -> Result<(), SysctlError> {
    for name in interfaces_with(prefix) {
        write(conf("ipv4", &name, "proxy_arp"), "1")?;
        write(conf("ipv4", &name, "arp_ignore"), "0")?;
        if has_ipv6() {
            write(conf("ipv6", &name, "disable_ipv6"), "0")?;
        }
    }
    Ok(())
}

fn interfaces_with(prefix: &str) -> impl Iterator<Item = String> {
    let entries = fs::read_dir("/proc/sys/net/ipv4/conf").into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(move |name| name.starts_with(prefix))
}

fn silence(name: &str) -> Result<(), SysctlError> {
    // Answer no ARP request at all, whatever addresses the host has.
    write(conf("ipv4", name, "arp_ignore"), "8")?;
    if !has_ipv6() {
        return Ok(());
    }
    // No link-local address, hence no neighbour discovery, no router solicitations and no multicast reports.
    write(conf("ipv6", name, "disable_ipv6"), "1")
}

fn has_ipv6() -> bool {
    Path::new("/proc/sys/net/ipv6").exists()
}

fn conf(family: &str, interface: &str, setting: &str) -> PathBuf {
    // Pushed one by one: an interface's name may hold a dot, never a slash.
    ["/proc/sys/net", family, "conf", interface, setting].iter().collect()
}

pub(crate) fn read(path: &Path) -> Option<String> {
    Some(fs::read_to_string(path).ok()?.trim().to_owned())
}

pub(crate) fn write(path: PathBuf, value: impl Into<Cow<'static, str>>) -> Result<(), SysctlError> {
    let value = value.into();
    raised(|| fs::write(&path, &*value)).map_err(|source| SysctlError { path, value, source })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{in_namespace, ip};

    #[test]
    fn an_uplink_that_believes_router_advertisements_goes_on_believing_them() {
        in_namespace(|| {
            ip("link add up0 type veth peer name up1");
            fs::write(conf("ipv6", "up0", "accept_ra"), "1").unwrap();
            fs::write(conf("ipv6", "up1", "accept_ra"), "0").unwrap();
            enable_forwarding(["up0", "up1"]).unwrap();
            let shown = |interface| read(&conf("ipv6", interface, "accept_ra")).unwrap();
            assert_eq!((shown("up0"), shown("up1")), ("2".into(), "0".into()));
            assert_eq!(read(Path::new("/proc/sys/net/ipv4/ip_forward")).unwrap(), "1");
            assert_eq!(read(&conf("ipv6", "all", "forwarding")).unwrap(), "1");
        });
    }

    #[test]
    fn a_silent_port_answers_no_arp_and_has_no_ipv6() {
        in_namespace(|| {
            ip("link add cali1 type veth peer name eth1");
            ip("link set cali1 up");
            silence_workload_port("cali1").unwrap();
            assert_eq!(read(&conf("ipv4", "cali1", "arp_ignore")).unwrap(), "8");
            assert_eq!(ip("-6 addr show dev cali1"), "");
            release_workload_ports("cali").unwrap();
            assert_eq!(read(&conf("ipv4", "cali1", "arp_ignore")).unwrap(), "0");
            assert_eq!(read(&conf("ipv6", "cali1", "disable_ipv6")).unwrap(), "0");
        });
    }

    #[test]
    fn option_memory_doubles_up_to_its_limit() {
        in_namespace(|| {
            if !Path::new(OPTION_MEMORY).exists() {
                return println!("skipped: namespaces have no option memory of their own before Linux 6.8");
            }
            fs::write(OPTION_MEMORY, (OPTION_MEMORY_MAX / 2).to_string()).unwrap();
            assert!(double_option_memory().unwrap());
            assert_eq!(read(Path::new(OPTION_MEMORY)), Some(OPTION_MEMORY_MAX.to_string()));
            assert!(!double_option_memory().unwrap());
        });
    }

    #[test]
    fn an_error_names_the_file_and_the_reason() {
        let error = silence_workload_port("cali-none").unwrap_err();
        let expected =
            "could not set /proc/sys/net/ipv4/conf/cali-none/proxy_arp to 0: No such file or directory";
        assert!(error.to_string().starts_with(expected), "{error}");
    }
}

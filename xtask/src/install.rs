//! The Debian packages that the lab, the fuzz targets and the benchmarks need, and their installation.

use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use lab::scenario::Scenario;

/// A package, a program of it (or a file, by its whole path) that shows whether it is there, and what it is for.
struct Package {
    name: &'static str,
    program: &'static str,
    reason: &'static str,
}

const PACKAGES: &[Package] = &[
    Package { name: "iproute2", program: "ip", reason: "makes the namespaces, links and routes of a lab" },
    Package { name: "iputils-ping", program: "ping", reason: "shows that workloads reach each other" },
    Package {
        name: "ethtool",
        program: "ethtool",
        reason: "switches transmit checksum offload off on workloads",
    },
    Package {
        name: "nftables",
        program: "nft",
        reason: "closes the kernel's way to workloads when Tortie dies",
    },
    Package { name: "iperf3", program: "iperf3", reason: "measures throughput" },
    Package {
        name: "tcpdump",
        program: "tcpdump",
        reason: "captures what passes, to check MACs and checksums",
    },
    Package { name: "tshark", program: "tshark", reason: "dissects captures, inside tunnels too" },
    Package { name: "traceroute", program: "traceroute", reason: "shows the routers on a way" },
    Package { name: "g++", program: "g++", reason: "builds libFuzzer, which the fuzz targets run in" },
    Package { name: "dnsmasq-base", program: "dnsmasq", reason: "is the DHCP server on an OpenStack host" },
    Package { name: "isc-dhcp-client", program: "dhclient", reason: "is an instance's DHCP client" },
    Package { name: "bird2", program: "bird", reason: "is the other BGP speaker of the interop scenarios" },
    Package { name: "etcd-server", program: "etcd", reason: "is the other datastore" },
    Package { name: "etcd-client", program: "etcdctl", reason: "looks at it from outside" },
    Package { name: "bgpdump", program: "bgpdump", reason: "is another reader of tables in files" },
    Package { name: "openssl", program: "openssl", reason: "makes the certificates of a test" },
    Package { name: "valgrind", program: "valgrind", reason: "counts the walk's instructions" },
];

/// What scenarios with a virtual machine need besides: 100 MB or more with all that they depend on, so only where one is asked
/// for.
const PACKAGES_FOR_MACHINES: &[Package] = &[
    Package {
        name: "qemu-system-x86",
        program: "qemu-system-x86_64",
        reason: "emulates a machine with another kernel than this one",
    },
    Package { name: "busybox-static", program: "busybox", reason: "is most of what runs in it" },
];

/// Likewise, for those who watch a router.
const PACKAGES_FOR_WATCHING: &[Package] = &[
    Package { name: "chromium", program: "chromium", reason: "looks through the looking glass" },
    Package {
        name: "prometheus",
        program: "prometheus",
        reason: "scrapes a router and evaluates the alert rules",
    },
];

/// Likewise, for those with other routers beside BIRD.
const PACKAGES_FOR_ROUTERS: &[Package] =
    &[Package { name: "frr", program: "vtysh", reason: "is another BGP speaker, with tables of its own" }];

/// What `cargo xtask interop` needs besides: it has the daemons of other Debian suites in trees of their own.
const PACKAGES_FOR_INTEROP: &[Package] = &[Package {
    name: "debootstrap",
    program: "debootstrap",
    reason: "makes a Debian tree for others' daemons",
}];

/// What `cargo xtask deb` needs besides.
const PACKAGES_FOR_PACKAGES: &[Package] = &[
    Package {
        name: "dpkg-dev",
        program: "dpkg-shlibdeps",
        reason: "knows which libraries the package needs",
    },
    Package {
        name: "binutils",
        program: "strip",
        reason: "takes from the binary what only a debugger reads",
    },
];

/// What `cargo xtask image` needs; of GRUB only the parts, which touch no boot loader of this machine.
const PACKAGES_FOR_IMAGE: &[Package] = &[
    Package { name: "mmdebstrap", program: "mmdebstrap", reason: "unpacks Debian's packages" },
    Package { name: "squashfs-tools", program: "mksquashfs", reason: "packs the root" },
    Package { name: "fdisk", program: "sfdisk", reason: "writes the table of partitions" },
    Package { name: "e2fsprogs", program: "mke2fs", reason: "makes the state partition" },
    Package { name: "dosfstools", program: "mkfs.vfat", reason: "makes the boot partition" },
    Package { name: "mtools", program: "mcopy", reason: "fills it without mounting it" },
    Package { name: "grub-common", program: "grub-mkimage", reason: "makes GRUB's core" },
    Package { name: "grub-pc-bin", program: "/usr/lib/grub/i386-pc/boot.img", reason: "is GRUB for a BIOS" },
    Package {
        name: "grub-efi-amd64-bin",
        program: "/usr/lib/grub/x86_64-efi/linux.mod",
        reason: "is GRUB for UEFI",
    },
    Package { name: "qemu-utils", program: "qemu-img", reason: "writes qcow2" },
];

/// What `cargo xtask boot` needs besides.
const PACKAGES_FOR_BOOT: &[Package] = &[
    Package { name: "openssh-client", program: "ssh", reason: "manages the appliance, as an operator does" },
    Package { name: "ovmf", program: "/usr/share/ovmf/OVMF.fd", reason: "is a UEFI firmware" },
];

/// What `cargo xtask bench --peers` needs besides; nothing else does.
const PACKAGES_FOR_PEERS: &[Package] = &[
    Package { name: "gcc", program: "gcc", reason: "builds what asks DPDK for look-ups, and l3fwd" },
    Package { name: "pkg-config", program: "pkg-config", reason: "knows how DPDK is linked" },
    Package {
        name: "dpkg-dev",
        program: "dpkg-source",
        reason: "unpacks the source of l3fwd, which no package ships",
    },
    Package {
        name: "dpdk-dev",
        program: "dpdk-testpmd",
        reason: "is a peer, and shows what its devices cost alone",
    },
    Package {
        name: "libdpdk-dev",
        program: "/usr/include/dpdk/rte_fib.h",
        reason: "holds rte_fib, l3fwd's libraries and net_pcap",
    },
];

/// How it went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Installed {
    /// Everything is there.
    All,
    /// Something is missing and cannot be installed by this user.
    NotAll,
}

/// Installs what is missing, telling what and why. Without root or apt-get it says so and installs nothing.
pub(crate) fn install() -> Result<Installed> {
    install_all(PACKAGES.iter())
}

/// As [`install`], with what these scenarios need besides.
pub(crate) fn install_for_scenarios(chosen: &[&'static Scenario]) -> Result<Installed> {
    let needed =
        |package: &&Package| chosen.iter().any(|scenario| scenario.programs.contains(&package.program));
    let for_some = PACKAGES_FOR_MACHINES.iter().chain(PACKAGES_FOR_WATCHING).chain(PACKAGES_FOR_ROUTERS);
    install_all(PACKAGES.iter().chain(for_some.filter(needed)))
}

/// As [`install`], with what the peers of the benchmarks need.
pub(crate) fn install_for_peers() -> Result<Installed> {
    install_all(PACKAGES.iter().chain(PACKAGES_FOR_PEERS))
}

/// What the Debian package is made with, and nothing else.
pub(crate) fn install_for_packages() -> Result<Installed> {
    install_all(PACKAGES_FOR_PACKAGES.iter())
}

/// As [`install`], with what making a package and a Debian to install it on needs.
pub(crate) fn install_for_package_test() -> Result<Installed> {
    install_all(PACKAGES.iter().chain(PACKAGES_FOR_PACKAGES).chain(PACKAGES_FOR_INTEROP))
}

/// As [`install`], with what the interop matrix needs.
pub(crate) fn install_for_interop() -> Result<Installed> {
    install_all(PACKAGES.iter().chain(PACKAGES_FOR_INTEROP))
}

/// Installs what makes the appliance.
pub(crate) fn install_for_image() -> Result<Installed> {
    install_all(PACKAGES_FOR_PACKAGES.iter().chain(PACKAGES_FOR_IMAGE))
}

/// As [`install`], with what boots the appliance.
pub(crate) fn install_for_boot() -> Result<Installed> {
    install_all(PACKAGES.iter().chain(PACKAGES_FOR_MACHINES).chain(PACKAGES_FOR_BOOT))
}

fn install_all(packages: impl Iterator<Item = &'static Package>) -> Result<Installed> {
    let missing: Vec<&Package> =
        packages.filter(|package| !lab::scenario::installed(package.program)).collect();
    if missing.is_empty() {
        return Ok(Installed::All);
    }
    println!("Debian packages missing here:");
    for package in &missing {
        println!("  {:14} {}", package.name, package.reason);
    }
    let names: Vec<&str> = missing.iter().map(|package| package.name).collect();
    let by_hand = format!("apt-get install --no-install-recommends {}", names.join(" "));
    if !rustix::process::geteuid().is_root() {
        println!("Installing them needs root: run `sudo {by_hand}`.");
        return Ok(Installed::NotAll);
    }
    if !lab::scenario::installed("apt-get") {
        println!("There is no apt-get here: install them by this system's own means.");
        return Ok(Installed::NotAll);
    }
    println!("Installing them: apt-get update, then {by_hand}");
    apt_get(&["update", "-q"])?;
    let mut install = vec!["install", "-y", "-q", "--no-install-recommends"];
    install.extend(&names);
    apt_get(&install)?;
    for (package, service) in SERVICES {
        if names.contains(package) {
            switch_off(service);
        }
    }
    Ok(Installed::All)
}

/// apt-get without questions, waiting for its lock rather than failing.
fn apt_get(arguments: &[&str]) -> Result<()> {
    let mut command = Command::new("apt-get");
    command.args(["-o", "DPkg::Lock::Timeout=300"]).args(arguments).stdin(Stdio::null());
    command.env("DEBIAN_FRONTEND", "noninteractive");
    // invoke-rc.d starts no service in the single-user runlevel: BIRD must not begin to speak for this machine.
    command.env("RUNLEVEL", "1");
    let status = command.status().context("cannot start apt-get")?;
    if !status.success() {
        bail!("`apt-get {}` failed ({status}): see its words above", arguments.join(" "));
    }
    Ok(())
}

/// Under systemd these packages enable services; the labs run the programs themselves, so they are switched off again.
const SERVICES: &[(&str, &str)] =
    &[("bird2", "bird.service"), ("frr", "frr.service"), ("prometheus", "prometheus.service")];

/// Only called where we installed the package.
fn switch_off(service: &str) {
    if std::path::Path::new("/run/systemd/system").exists() {
        let status = Command::new("systemctl").args(["disable", "--now", service]).status();
        if !status.is_ok_and(|status| status.success()) {
            println!("The service {service} could not be switched off: `systemctl disable --now {service}`.");
        }
    }
}

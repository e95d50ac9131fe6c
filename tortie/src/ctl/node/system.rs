//! `node checksystem`, for what this router needs of a machine where Felix would need iptables.

use std::path::Path;

use super::Said;
use crate::processor;

/// The first kernel whose AF_XDP, BPF links and nftables do all that is asked of them.
const LEAST_KERNEL: (u32, u32) = (5, 10);

/// What the kernel must have: its name as a module, where it can be one, and in the kernel's configuration.
const NEEDED: [(&str, &str); 8] = [
    ("bpf_syscall", "CONFIG_BPF_SYSCALL"),
    ("xdp_sockets", "CONFIG_XDP_SOCKETS"),
    ("nf_tables", "CONFIG_NF_TABLES"),
    ("nf_conntrack", "CONFIG_NF_CONNTRACK"),
    ("veth", "CONFIG_VETH"),
    ("ipip", "CONFIG_NET_IPIP"),
    ("vxlan", "CONFIG_VXLAN"),
    ("tcp_md5sig", "CONFIG_TCP_MD5SIG"),
];

/// Those that are never modules: only the configuration tells.
const BUILT_IN: [&str; 3] = ["bpf_syscall", "xdp_sockets", "tcp_md5sig"];

/// What a machine says of itself.
struct System {
    release: String,
    config: String,
    modules: String,
}

/// `node checksystem`.
pub(super) fn check(kernel_config: Option<&Path>) -> Said {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let release = read("/proc/sys/kernel/osrelease").trim().to_owned();
    let usual = [
        "/usr/src/linux/.config".to_owned(),
        format!("/boot/config-{release}"),
        format!("/usr/src/linux-{release}/.config"),
        format!("/usr/src/linux-headers-{release}/.config"),
        format!("/lib/modules/{release}/build/.config"),
    ];
    let config = match kernel_config {
        Some(path) => std::fs::read_to_string(path).unwrap_or_default(),
        None => usual.iter().find_map(|path| std::fs::read_to_string(path).ok()).unwrap_or_default(),
    };
    let lists =
        ["modules.dep", "modules.builtin"].map(|list| read(&format!("/lib/modules/{release}/{list}")));
    let modules = format!("{}{}{}", lists[0], lists[1], read("/proc/modules"));
    said(&System { release, config, modules })
}

fn line(what: &str, good: bool) -> String {
    format!("\t\t{what:<20}\t\t\t\t\t{}\n", if good { "OK" } else { "FAIL" })
}

fn said(system: &System) -> Said {
    let mut fine = true;
    let mut out = "Checking processor...\n".to_owned();
    let lacks = processor::check().err();
    fine &= lacks.is_none();
    out.push_str(&line(std::env::consts::ARCH, lacks.is_none()));
    out.push_str("Checking kernel version...\n");
    let recent = version(&system.release).is_some_and(|version| version >= LEAST_KERNEL);
    fine &= recent;
    out.push_str(&line(&system.release, recent));
    if !recent {
        let (major, minor) = LEAST_KERNEL;
        out.push_str(&format!(
            "Minimum kernel version to run Tortie is {major}.{minor}. Detected kernel version: {}\n",
            system.release
        ));
    }
    out.push_str("Checking kernel modules...\n");
    for (module, option) in NEEDED {
        if BUILT_IN.contains(&module) && system.config.is_empty() {
            out.push_str(&format!(
                "WARNING: Unable to tell {module} without the kernel's configuration; give it by -f\n"
            ));
            continue;
        }
        let found = system.has(module, option);
        if !found {
            out.push_str(&format!(
                "WARNING: Unable to detect the {module} module as Loaded/Builtin module or in the kernel's configuration\n"
            ));
        }
        fine &= found;
        out.push_str(&line(module, found));
    }
    if fine {
        out.push_str("System meets minimum system requirements to run Calico!\n");
        return Said::fine(out);
    }
    let error = "system doesn't meet one or more minimum systems requirements to run Calico";
    Said { out, error: Some(error.to_owned()) }
}

impl System {
    fn has(&self, module: &str, option: &str) -> bool {
        let file = format!("/{module}.ko");
        let loaded = format!("{module} ");
        let set = [format!("{option}=y"), format!("{option}=m")];
        self.modules.lines().any(|line| line.contains(&file) || line.starts_with(&loaded))
            || self.config.lines().any(|line| set.iter().any(|set| line == set))
    }
}

fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn system(release: &str, left_out: &str) -> System {
        let set = NEEDED.map(|(_, option)| format!("{option}=m\n"));
        let config: String = set.into_iter().filter(|line| !line.starts_with(left_out)).collect();
        System { release: release.to_owned(), config, modules: String::new() }
    }

    #[test]
    fn a_machine_with_everything_meets_the_requirements() {
        let said = said(&system("6.1.0-18-amd64", "none"));
        if processor::check().is_ok() {
            assert_eq!(said.error, None);
        }
        assert!(said.out.contains("\t\tvxlan               \t\t\t\t\tOK\n"), "{}", said.out);
    }

    #[test]
    fn what_is_missing_is_named() {
        let said = said(&system("5.4.0", "CONFIG_VXLAN"));
        assert!(said.out.contains("\t\t5.4.0               \t\t\t\t\tFAIL\n"), "{}", said.out);
        assert!(said.out.contains("Unable to detect the vxlan module"), "{}", said.out);
        assert!(said.error.is_some());
    }

    #[test]
    fn modules_are_found_in_the_kernels_own_lists() {
        let system = System {
            release: String::new(),
            config: String::new(),
            modules: "kernel/drivers/net/vxlan/vxlan.ko.zst: x\nveth 1234 0 - Live\n".to_owned(),
        };
        assert!(system.has("vxlan", "CONFIG_VXLAN"));
        assert!(system.has("veth", "CONFIG_VETH"));
        assert!(!system.has("ipip", "CONFIG_NET_IPIP"));
    }
}

//! What sysfs and /proc tell of cores, interfaces and interrupts. Best effort: what isn't told isn't there.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use crate::cores;

/// A machine by its sysfs and /proc, which a test makes in a folder.
#[derive(Clone, Debug)]
pub(crate) struct Machine {
    root: PathBuf,
}

/// An interrupt of a queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Interrupt {
    /// Its number.
    pub(crate) irq: u32,
    /// The queue that its name ends with.
    pub(crate) queue: usize,
    /// As /proc/interrupts calls it.
    pub(crate) name: String,
}

impl Machine {
    pub(crate) fn at(root: &Path) -> Machine {
        Machine { root: root.to_owned() }
    }

    /// A path of the machine's, absolute, within its root.
    pub(crate) fn path(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }

    pub(crate) fn read(&self, path: &str) -> Option<String> {
        Some(fs::read_to_string(self.path(path)).ok()?.trim().to_owned())
    }

    /// Cores that nothing else is scheduled on.
    pub(crate) fn isolated(&self) -> Vec<usize> {
        self.cores("/sys/devices/system/cpu/isolated")
    }

    /// Cores without the scheduler's tick while one task runs.
    pub(crate) fn tickless(&self) -> Vec<usize> {
        self.cores("/sys/devices/system/cpu/nohz_full")
    }

    /// Cores that leave RCU's callbacks to others: told by the kernel's command line only.
    pub(crate) fn without_callbacks(&self) -> Vec<usize> {
        let line = self.read("/proc/cmdline").unwrap_or_default();
        let mut words = line.split_whitespace().filter_map(|word| word.strip_prefix("rcu_nocbs="));
        words.next().map(cores::parse).unwrap_or_default()
    }

    pub(crate) fn online(&self) -> Vec<usize> {
        self.cores("/sys/devices/system/cpu/online")
    }

    fn cores(&self, path: &str) -> Vec<usize> {
        cores::parse(&self.read(path).unwrap_or_default())
    }

    /// The memory node next to an interface; none where there is only one, or it isn't hardware.
    pub(crate) fn node_of_interface(&self, interface: &str) -> Option<usize> {
        self.read(&format!("/sys/class/net/{interface}/device/numa_node"))?.parse().ok()
    }

    /// The memory node next to a core.
    pub(crate) fn node_of_core(&self, core: usize) -> Option<usize> {
        let entries = fs::read_dir(self.path(&format!("/sys/devices/system/cpu/cpu{core}"))).ok()?;
        let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
        names.filter_map(|name| name.strip_prefix("node")?.parse().ok()).next()
    }

    /// Cores that share a core's execution units.
    pub(crate) fn siblings(&self, core: usize) -> Vec<usize> {
        let mut all = self.cores(&format!("/sys/devices/system/cpu/cpu{core}/topology/thread_siblings_list"));
        all.retain(|other| *other != core);
        all
    }

    /// Is there a hypervisor below?
    pub(crate) fn is_virtual(&self) -> bool {
        self.read("/proc/cpuinfo")
            .unwrap_or_default()
            .lines()
            .any(|line| line.starts_with("flags") && line.split_whitespace().any(|flag| flag == "hypervisor"))
    }

    /// Interrupts of an interface's queues, by number. Its own are those of its PCI device (of the one below, for
    /// virtio), or those that are called after it.
    pub(crate) fn interrupts(&self, interface: &str) -> Vec<Interrupt> {
        let table = self.read("/proc/interrupts").unwrap_or_default();
        let device = format!("/sys/class/net/{interface}/device");
        let own: Vec<u32> = [format!("{device}/msi_irqs"), format!("{device}/../msi_irqs")]
            .iter()
            .filter_map(|folder| fs::read_dir(self.path(folder)).ok())
            .flat_map(|entries| {
                entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            })
            .collect();
        // A PCI device below may carry several virtio ones: their names tell them apart.
        let virtio = fs::canonicalize(self.path(&device))
            .ok()
            .and_then(|path| path.file_name()?.to_str().map(str::to_owned))
            .filter(|name| name.starts_with("virtio"));
        let belongs = |interrupt: &Interrupt| match &virtio {
            Some(virtio) => interrupt.name.starts_with(&format!("{virtio}-")),
            None => {
                own.contains(&interrupt.irq) || interrupt.name.split(['-', '@']).any(|word| word == interface)
            }
        };
        let all = table.lines().filter_map(interrupt);
        let by_number: BTreeMap<u32, Interrupt> = all.filter(belongs).map(|one| (one.irq, one)).collect();
        by_number.into_values().collect()
    }
}

/// A line of /proc/interrupts, if it is of a queue: `25:  0  7  PCI-MSIX-0000:00:03.0  1-edge  virtio1-input.0`.
fn interrupt(line: &str) -> Option<Interrupt> {
    const OTHERS: [&str; 6] = ["async", "config", "misc", "fdir", "ctrl", "mgmnt"];
    let (irq, rest) = line.trim_start().split_once(':')?;
    let name = rest.split_whitespace().last()?;
    // Mellanox: mlx5_comp3@pci:0000:00:03.0.
    let words = name.split('@').next()?;
    let digits = words.bytes().rev().take_while(u8::is_ascii_digit).count();
    let (kind, queue) = words.split_at(words.len() - digits);
    if OTHERS.iter().any(|other| kind.contains(other)) {
        return None;
    }
    Some(Interrupt { irq: irq.parse().ok()?, queue: queue.parse().ok()?, name: name.to_owned() })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A machine in a folder: files with their text.
    pub(crate) fn machine(files: &[(&str, &str)]) -> (tempfile::TempDir, Machine) {
        let folder = tempfile::tempdir().unwrap();
        let machine = Machine::at(folder.path());
        for (path, text) in files {
            let path = machine.path(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        (folder, machine)
    }

    const INTERRUPTS: &str = "            CPU0       CPU1
  24:          0          0  PCI-MSIX-0000:00:03.0   0-edge      virtio1-config
  25:         14          0  PCI-MSIX-0000:00:03.0   1-edge      virtio1-input.0
  26:          1          0  PCI-MSIX-0000:00:03.0   2-edge      virtio1-output.0
  27:          0          3  PCI-MSIX-0000:00:04.0   1-edge      virtio10-input.0
  40:          0          3  PCI-MSIX-0000:03:00.0   1-edge      i40e-enp3s0f0-TxRx-3
  50:          0          3  PCI-MSIX-0000:04:00.0   1-edge      mlx5_comp7@pci:0000:04:00.0
  51:          0          3  PCI-MSIX-0000:04:00.0   1-edge      mlx5_async0@pci:0000:04:00.0
 NMI:          0          0   Non-maskable interrupts
";

    #[test]
    fn interrupts_of_queues_are_found_by_driver_and_by_name() {
        let (_folder, machine) = machine(&[
            ("/proc/interrupts", INTERRUPTS),
            ("/sys/devices/pci/virtio1/net/eth0/mtu", "1500"),
            ("/sys/devices/mlx/msi_irqs/50", ""),
            ("/sys/devices/mlx/msi_irqs/51", ""),
        ]);
        for (name, device) in [("eth0", "pci/virtio1"), ("enp4s0", "mlx")] {
            fs::create_dir_all(machine.path(&format!("/sys/class/net/{name}"))).unwrap();
            let link = machine.path(&format!("/sys/class/net/{name}/device"));
            std::os::unix::fs::symlink(machine.path(&format!("/sys/devices/{device}")), link).unwrap();
        }
        let found = |interface| {
            let interrupts = machine.interrupts(interface).into_iter();
            interrupts.map(|one| (one.irq, one.queue)).collect::<Vec<_>>()
        };
        assert_eq!(found("eth0"), [(25, 0), (26, 0)]);
        assert_eq!(found("enp3s0f0"), [(40, 3)]);
        assert_eq!(found("enp4s0"), [(50, 7)]);
        assert_eq!(found("veth0"), []);
    }

    #[test]
    fn cores_and_nodes_are_read_and_nothing_is_no_error() {
        let (_folder, full) = machine(&[
            ("/sys/devices/system/cpu/isolated", "2-3\n"),
            ("/proc/cmdline", "quiet isolcpus=2-3 rcu_nocbs=3 nohz_full=2-3"),
            ("/sys/devices/system/cpu/cpu2/node1/cpulist", "2"),
            ("/sys/class/net/eth0/device/numa_node", "1\n"),
            ("/sys/class/net/eth1/device/numa_node", "-1\n"),
        ]);
        assert_eq!((full.isolated(), full.without_callbacks()), (vec![2, 3], vec![3]));
        assert_eq!((full.node_of_core(2), full.node_of_interface("eth0")), (Some(1), Some(1)));
        assert_eq!(full.node_of_interface("eth1"), None);
        let (_folder, empty) = machine(&[]);
        assert_eq!(
            (empty.isolated(), empty.node_of_core(0), empty.interrupts("eth0")),
            (vec![], None, vec![])
        );
    }
}

//! What only the kernel's command line, the hypervisor or the firmware can change.

use afxdp::NicQueues;

use super::machine::Machine;

/// Of the cores that workers are pinned to.
pub(crate) fn of_cores(pinned: &[usize], uplinks: &[String], machine: &Machine) -> Vec<String> {
    let mut advice = Vec::new();
    let words = [
        ("isolcpus=", machine.isolated(), "other work is scheduled on them"),
        ("nohz_full=", machine.tickless(), "the scheduler's tick interrupts them"),
        ("rcu_nocbs=", machine.without_callbacks(), "they run the kernel's deferred work"),
    ];
    for (word, has, otherwise) in words {
        let missing: Vec<String> =
            pinned.iter().filter(|core| !has.contains(core)).map(ToString::to_string).collect();
        if !missing.is_empty() {
            let list = missing.join(",");
            advice.push(format!(
                "cores {list} of workers lack {word}{list} on the kernel's command line: {otherwise}"
            ));
        }
    }
    for core in pinned {
        let busy: Vec<usize> =
            machine.siblings(*core).into_iter().filter(|one| pinned.contains(one)).collect();
        if busy.iter().any(|other| other > core) {
            advice.push(format!(
                "cores {core} and {} are two threads of one core: two workers share it",
                busy[0]
            ));
        }
        let node = machine.node_of_core(*core);
        for uplink in uplinks {
            if let (Some(there), Some(here)) = (machine.node_of_interface(uplink), node)
                && there != here
            {
                advice.push(format!(
                    "{uplink} is next to memory node {there}, and core {core} of a worker to node {here}"
                ));
            }
        }
    }
    advice
}

/// An uplink as its driver tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Uplink {
    pub(crate) name: String,
    pub(crate) driver: Option<String>,
    pub(crate) queues: Option<NicQueues>,
    pub(crate) zero_copy: Option<bool>,
}

/// Of an uplink that `workers` would like a queue each of.
pub(crate) fn of_uplink(uplink: &Uplink, workers: u32, machine: &Machine) -> Vec<String> {
    let mut advice = Vec::new();
    let Uplink { name, driver, queues, zero_copy } = uplink;
    let virtio = driver.as_deref() == Some("virtio_net");
    if let Some(queues) = queues.filter(|queues| queues.max < workers) {
        let how = if virtio {
            format!(
                ": QEMU's `virtio-net-pci,mq=on,vectors={}` with `queues={workers}` at its netdev, libvirt's \
                 `<driver name='vhost' queues='{workers}'/>`",
                2 * workers + 2
            )
        } else {
            String::new()
        };
        advice.push(format!(
            "{name} has {} queues at most for {workers} workers; give it more{how}",
            queues.max
        ));
    }
    if virtio {
        let wanted = workers + machine.online().len() as u32;
        if queues.is_some_and(|queues| queues.max >= workers && queues.max < wanted) {
            advice.push(format!(
                "{name}: with {wanted} queues, one more for each core, XDP sends without a lock"
            ));
        }
        if *zero_copy == Some(false) {
            advice.push(format!(
                "{name} copies: zero-copy needs Linux 6.13 or later, and `iommu_platform=on` (libvirt: `<driver iommu='on'/>`)"
            ));
        }
    }
    advice
}

/// Of the machine as a whole.
pub(crate) fn of_machine(machine: &Machine) -> Vec<String> {
    let mut advice = Vec::new();
    if machine.is_virtual() {
        advice.push(
            "this is a virtual machine: pin the virtual cores of workers to cores of their own (libvirt: `<vcpupin>`), \
             without overcommitment"
                .to_owned(),
        );
    }
    let clock = machine.read("/sys/devices/system/clocksource/clocksource0/current_clocksource");
    if let Some(clock) =
        clock.filter(|clock| !["tsc", "kvm-clock", "arch_sys_counter"].contains(&clock.as_str()))
    {
        advice.push(format!("the clock is {clock}, which is slow to read; an invariant TSC would be `tsc`"));
    }
    if machine.isolated().is_empty() {
        advice.push(
            "no core is set aside: workers run best on cores of their own, isolcpus=, nohz_full= and rcu_nocbs= on the \
             kernel's command line"
                .to_owned(),
        );
    }
    advice
}

#[cfg(test)]
mod tests {
    use super::super::machine::tests::machine;
    use super::*;

    #[test]
    fn words_that_the_command_line_lacks_are_named_with_the_cores() {
        let (_folder, machine) =
            machine(&[("/sys/devices/system/cpu/isolated", "2-3"), ("/proc/cmdline", "rcu_nocbs=2")]);
        let advice = of_cores(&[2, 3], &[], &machine);
        assert_eq!(advice.len(), 2, "{advice:?}");
        assert!(advice[0].contains("nohz_full=2,3"), "{advice:?}");
        assert!(advice[1].contains("rcu_nocbs=3"), "{advice:?}");
    }

    #[test]
    fn a_worker_far_from_its_uplink_and_two_on_one_core_are_told_of() {
        let path = |core: u8| format!("/sys/devices/system/cpu/cpu{core}/topology/thread_siblings_list");
        let (_folder, machine) = machine(&[
            (&path(0), "0,4"),
            (&path(4), "0,4"),
            ("/sys/devices/system/cpu/cpu0/node0/cpulist", ""),
            ("/sys/devices/system/cpu/cpu4/node1/cpulist", ""),
            ("/sys/class/net/eth0/device/numa_node", "0"),
            ("/sys/devices/system/cpu/isolated", "0-4"),
            ("/sys/devices/system/cpu/nohz_full", "0-4"),
            ("/proc/cmdline", "rcu_nocbs=0-4"),
        ]);
        assert_eq!(
            of_cores(&[0, 4], &["eth0".to_owned()], &machine),
            [
                "cores 0 and 4 are two threads of one core: two workers share it",
                "eth0 is next to memory node 0, and core 4 of a worker to node 1",
            ]
        );
    }

    #[test]
    fn a_virtio_interface_with_too_few_queues_says_what_the_hypervisor_should_give() {
        let (_folder, machine) = machine(&[("/sys/devices/system/cpu/online", "0-3")]);
        let uplink = |max, zero_copy| Uplink {
            name: "eth0".to_owned(),
            driver: Some("virtio_net".to_owned()),
            queues: Some(NicQueues { now: 1, max }),
            zero_copy: Some(zero_copy),
        };
        let advice = of_uplink(&uplink(1, false), 2, &machine);
        assert!(advice[0].contains("mq=on,vectors=6") && advice[0].contains("queues='2'"), "{advice:?}");
        assert!(advice[1].contains("iommu_platform=on"), "{advice:?}");
        assert_eq!(of_uplink(&uplink(6, true), 2, &machine), [] as [String; 0]);
        assert!(of_uplink(&uplink(4, true), 2, &machine)[0].contains("without a lock"));
    }
}

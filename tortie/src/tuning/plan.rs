//! What should be otherwise, and why: pure but for reading the machine.

use afxdp::{NicQueues, NicRings};

use super::machine::Machine;
use super::{Change, Tuning};

/// A change, or why there is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Step {
    pub(super) change: Option<Change>,
    pub(super) why: String,
}

impl Step {
    fn none(why: String) -> Step {
        Step { change: None, why }
    }

    fn setting(machine: &Machine, path: &str, value: &str, why: String) -> Step {
        Step { change: Some(Change::Setting { path: machine.path(path), value: value.to_owned() }), why }
    }
}

/// Queues and rings of an uplink, of which `wanted` queues belong to workers.
pub(super) fn queues(
    tuning: &Tuning,
    interface: &str,
    wanted: u32,
    queues: Option<NicQueues>,
    rings: Option<NicRings>,
) -> Vec<Step> {
    let mut steps = Vec::new();
    match queues.filter(|_| tuning.queues) {
        Some(queues) if queues.max >= wanted => steps.push(Step {
            change: Some(Change::Queues { interface: interface.to_owned(), count: wanted }),
            why: "one for each worker, as what arrives on a queue without one stays with the kernel"
                .to_owned(),
        }),
        Some(queues) => steps.push(Step {
            change: Some(Change::Queues { interface: interface.to_owned(), count: queues.max }),
            why: format!("all that it has; {wanted} workers would want one each"),
        }),
        None if tuning.queues => {
            steps.push(Step::none(format!("{interface} doesn't tell how many queues it has")))
        }
        None => {}
    }
    if let Some(slots) = tuning.rings {
        steps.push(match rings {
            Some(rings) => Step {
                change: Some(Change::Rings {
                    interface: interface.to_owned(),
                    rx: slots.min(rings.rx_max),
                    tx: slots.min(rings.tx_max),
                }),
                why: format!("tuning.rings is {slots}; the most are {} and {}", rings.rx_max, rings.tx_max),
            },
            None => Step::none(format!("{interface} has no rings of its own to size")),
        });
    }
    steps
}

/// Interrupts of an uplink, and their pace.
pub(super) fn interrupts(
    tuning: &Tuning,
    interface: &str,
    cores: &[Option<usize>],
    machine: &Machine,
) -> Vec<Step> {
    let mut steps = if tuning.interrupts { affinity(interface, cores, machine) } else { Vec::new() };
    for (file, value) in
        [("napi_defer_hard_irqs", tuning.defer_hard_irqs), ("gro_flush_timeout", tuning.gro_flush_timeout)]
    {
        if let Some(value) = value {
            let path = format!("/sys/class/net/{interface}/{file}");
            let why = "a queue is looked at again before its interrupt is switched on".to_owned();
            steps.push(Step::setting(machine, &path, &value.to_string(), why));
        }
    }
    steps
}

/// The cores of workers.
pub(super) fn cores(
    tuning: &Tuning,
    uplinks: &[String],
    cores: &[Option<usize>],
    machine: &Machine,
) -> Vec<Step> {
    let mut steps = Vec::new();
    let pinned: Vec<usize> = cores.iter().flatten().copied().collect();
    if tuning.governor {
        for core in &pinned {
            let path = format!("/sys/devices/system/cpu/cpu{core}/cpufreq/scaling_governor");
            steps.push(if machine.path(&path).exists() {
                Step::setting(machine, &path, "performance", format!("core {core} has a worker"))
            } else {
                Step::none(format!(
                    "core {core} has no governor: its speed is the hypervisor's or the firmware's"
                ))
            });
        }
    }
    steps.extend(super::advice::of_cores(&pinned, uplinks, machine).into_iter().map(Step::none));
    steps
}

/// A queue's interrupt goes to the core of the worker that owns it: the packet is then in that core's cache.
fn affinity(interface: &str, cores: &[Option<usize>], machine: &Machine) -> Vec<Step> {
    if cores.iter().all(Option::is_none) {
        return vec![Step::none(format!(
            "interrupts of {interface} stay as they are: workers aren't pinned"
        ))];
    }
    let interrupts = machine.interrupts(interface);
    if interrupts.is_empty() {
        return vec![Step::none(format!(
            "{interface} has no interrupts of its own, as software interfaces have none"
        ))];
    }
    let of_workers = interrupts.iter().filter_map(|interrupt| {
        let core = cores.get(interrupt.queue).copied().flatten()?;
        let path = format!("/proc/irq/{}/smp_affinity_list", interrupt.irq);
        let why = format!(
            "{} is of queue {}, which worker {} owns",
            interrupt.name, interrupt.queue, interrupt.queue
        );
        Some(Step::setting(machine, &path, &core.to_string(), why))
    });
    of_workers.collect()
}

#[cfg(test)]
mod tests {
    use super::super::machine::tests::machine;
    use super::*;

    const AUTO: Tuning = Tuning {
        queues: true,
        interrupts: true,
        governor: true,
        rings: None,
        defer_hard_irqs: None,
        gro_flush_timeout: None,
    };
    const KEEP: Tuning = Tuning { queues: false, interrupts: false, governor: false, ..AUTO };

    fn shown(steps: &[Step]) -> Vec<String> {
        let shown = |step: &Step| step.change.as_ref().map_or(step.why.clone(), Change::written);
        steps.iter().map(shown).collect()
    }

    #[test]
    fn an_uplink_gets_a_queue_for_each_worker_or_all_that_it_has() {
        let nic = |max| Some(NicQueues { now: 8, max });
        assert_eq!(shown(&queues(&AUTO, "eth0", 2, nic(16), None)), ["queues eth0 2"]);
        assert_eq!(shown(&queues(&AUTO, "eth0", 4, nic(1), None)), ["queues eth0 1"]);
        assert_eq!(
            shown(&queues(&AUTO, "eth0", 4, None, None)),
            ["eth0 doesn't tell how many queues it has"]
        );
        assert!(queues(&KEEP, "eth0", 4, nic(16), None).is_empty());
    }

    #[test]
    fn rings_are_no_longer_than_the_interface_allows() {
        let tuning = Tuning { rings: Some(1024), ..KEEP };
        let rings = Some(NicRings { rx: 256, tx: 256, rx_max: 512, tx_max: 4096 });
        assert_eq!(shown(&queues(&tuning, "eth0", 1, None, rings)), ["rings eth0 512,1024"]);
    }

    #[test]
    fn the_interrupt_of_a_queue_follows_its_worker_and_its_core_runs_at_full_speed() {
        let table = "\
  40:  0  PCI-MSIX-0000:03:00.0   0-edge      eth0-TxRx-0
  41:  0  PCI-MSIX-0000:03:00.0   1-edge      eth0-TxRx-1
  42:  0  PCI-MSIX-0000:03:00.0   2-edge      eth0-TxRx-2
";
        let governor = "/sys/devices/system/cpu/cpu2/cpufreq/scaling_governor";
        let (folder, machine) = machine(&[("/proc/interrupts", table), (governor, "powersave")]);
        let pinned = [Some(2), Some(3)];
        let root = folder.path().display();
        assert_eq!(
            shown(&interrupts(&AUTO, "eth0", &pinned, &machine)),
            [
                format!("setting {root}/proc/irq/40/smp_affinity_list 2"),
                format!("setting {root}/proc/irq/41/smp_affinity_list 3"),
            ]
        );
        let steps = shown(&cores(&AUTO, &["eth0".to_owned()], &pinned, &machine));
        assert_eq!(steps[0], format!("setting {root}{governor} performance"));
        assert!(steps[1].starts_with("core 3 has no governor"), "{steps:?}");
    }

    #[test]
    fn workers_that_are_not_pinned_have_no_core_to_send_interrupts_to() {
        let (_folder, machine) = machine(&[]);
        let steps = shown(&interrupts(&AUTO, "eth0", &[None], &machine));
        assert_eq!(steps, ["interrupts of eth0 stay as they are: workers aren't pinned"]);
    }

    #[test]
    fn the_pace_of_interrupts_is_set_where_it_is_given() {
        let (folder, machine) = machine(&[]);
        let tuning = Tuning { defer_hard_irqs: Some(2), gro_flush_timeout: Some(200_000), ..KEEP };
        let root = folder.path().display();
        assert_eq!(
            shown(&interrupts(&tuning, "eth0", &[None], &machine)),
            [
                format!("setting {root}/sys/class/net/eth0/napi_defer_hard_irqs 2"),
                format!("setting {root}/sys/class/net/eth0/gro_flush_timeout 200000"),
            ]
        );
    }
}

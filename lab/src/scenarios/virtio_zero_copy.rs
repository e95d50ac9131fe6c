//! AF_XDP without copying, on the one driver that any machine can have: virtio-net, in a virtual machine.

use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use model::MacAddr;
use serde::de::DeserializeOwned;

use crate::netns::Namespace;
use crate::scenario::{Options, Scenario, Store};
use crate::tortie::{Queue, ShowDrops, ShowPorts};
use crate::vm::{Nic, Plan, Vm};
use crate::{Lab, books, link, traffic};

/// Tortie in a virtual machine.
pub(super) const VIRTIO_ZERO_COPY: Scenario = Scenario {
    name: "virtio-zero-copy",
    about: "Tortie in a virtual machine: zero-copy on virtio-net, beside copies, through a stop, a kill and lost NICs",
    programs: &["qemu-system-x86_64", "busybox", "ping", "nft", "ethtool"],
    tortie: true,
    alone: false,
    store: Store::Unused("the router in the virtual machine reads a directory of its own"),
    run,
};

/// How long Tortie and its ports may take inside.
const PORTS: Duration = Duration::from_secs(180);
/// Queues of the NICs that do zero-copy, and workers.
const QUEUES: u32 = 2;
/// How often a NIC is taken out and put back: the frames of so many fill rings are more than a worker has.
const DEPARTURES: u32 = 8;
const TRANSFER: u64 = 10_000_000;
/// What one side sends the other through after the departures. Without frames it would take minutes.
const AFTERWARDS: u64 = 5_000_000;

const CONFIGURATION: &str = "\
node: node
datastore: { directory: /etc/tortie/resources }
uplinks: [eth0, eth1, eth2]
workers: 2
queues: 2
limits: { frames: 24576, routes_v4: 10000, routes_v6: 10000, mirror_routes: 10000, prefixes_per_peer: 10000 }
";

/// With it, workers poll the drivers; all else that is tuned stays as it is.
const BUSY_POLL: &str = "\
waiting: busy-poll
tuning: { queues: keep, interrupts: keep, governor: keep }
";
/// What comes in by the polled NIC.
const POLLED: u64 = 2_000_000;

const RESOURCES: &str = "\
apiVersion: projectcalico.org/v3
kind: Node
metadata: { name: node }
spec: { bgp: { ipv4Address: 10.1.0.1/24 } }
---
apiVersion: projectcalico.org/v3
kind: IPPool
metadata: { name: pool }
spec: { cidr: 10.65.0.0/16, blockSize: 26, ipipMode: Never, vxlanMode: Never }
---
apiVersion: projectcalico.org/v3
kind: BlockAffinity
metadata: { name: node-10-65-0-0-26 }
spec: { state: confirmed, node: node, cidr: 10.65.0.0/26 }
---
apiVersion: projectcalico.org/v3
kind: WorkloadEndpoint
metadata: { name: node-k8s-pod-eth0, namespace: default }
spec: { orchestrator: k8s, node: node, pod: pod, endpoint: eth0, interfaceName: calipod, ipNetworks: [10.65.0.1/32],
        profiles: [projectcalico-default-allow] }
";

/// A workload inside: what a CNI plugin would make.
const WORKLOAD: &str = "\
ip netns add pod
ip link add calipod address ee:ee:ee:ee:ee:ee type veth peer name eth0 netns pod
ip link set calipod up
ip -n pod link set eth0 up
ip netns exec pod ethtool -K eth0 tx off > /dev/null
ip -n pod address add 10.65.0.1/32 dev eth0
ip -n pod route add 169.254.1.1 dev eth0 scope link
ip -n pod route add default via 169.254.1.1 dev eth0
";

const WORKLOAD_ADDRESS: &str = "10.65.0.1";
/// The address of the host behind each NIC.
const HOSTS: [&str; 3] = ["10.1.0.2", "10.2.0.2", "10.3.0.2"];

fn run(lab: &Lab, _: &Options) -> Result<()> {
    let site = Site::raise(lab)?;
    site.start()?;
    site.reported("bound")?;
    site.mapped_memory_is_asked_for()?;
    site.reaches_everybody("Tortie")?;
    site.transfers()?;
    site.workload()?;
    site.books("after the transfers")?;
    site.end("TERM", "stopped")?;
    site.end("KILL", "killed")?;
    site.departures()?;
    site.books("after the departures")?;
    site.busy_polling()?;
    site.books("after busy polling")
}

struct Site<'lab> {
    lab: &'lab Lab,
    vm: Vm,
    /// Behind `eth0`, `eth1` and `eth2`.
    hosts: [Namespace; 3],
}

impl Site<'_> {
    fn raise(lab: &Lab) -> Result<Site<'_>> {
        let hosts = [lab.namespace("left")?, lab.namespace("right")?, lab.namespace("third")?];
        let nic = |host, last, queues, access_platform| Nic {
            outside: host,
            mac: MacAddr([2, 0, 0, 0, 0, last]),
            queues,
            access_platform,
        };
        let tools = lab.tools();
        let programs = [&tools.tortie, &tools.agent].map(|path| path.as_path());
        let system = ["ip", "ping", "nft", "ethtool"].map(Path::new);
        let plan = Plan {
            name: "node",
            memory: 1024,
            processors: 2,
            nics: &[
                nic(&hosts[0], 1, QUEUES, true),
                nic(&hosts[1], 2, QUEUES, true),
                nic(&hosts[2], 3, 1, false),
            ],
            programs: &[&programs[..], &system[..]].concat(),
            modules: &["veth", "nf_tables"],
        };
        let site = Site { vm: Vm::boot(lab, &plan)?, lab, hosts };
        for (index, host) in site.hosts.iter().enumerate() {
            let subnet = index + 1;
            link::transmit_checksums_by_software(host, "eth0")?;
            link::add_address(host, "eth0", format!("10.{subnet}.0.2/24").parse()?)?;
            host.ip(&format!("route add default via 10.{subnet}.0.1"))?;
            site.give_address(index)?;
        }
        site.inside("sysctl -q -w net.ipv4.ip_forward=1")?;
        site.inside(WORKLOAD)?;
        site.vm.write(lab, "/etc/tortie/tortie.yaml", CONFIGURATION)?;
        site.vm.write(lab, "/etc/tortie/resources/all.yaml", RESOURCES)?;
        Ok(site)
    }

    fn inside(&self, script: &str) -> Result<String> {
        self.vm.run(self.lab, script)
    }

    /// Sets a NIC up, with its address.
    fn give_address(&self, index: usize) -> Result<()> {
        self.inside(&format!(
            "ip link set eth{index} up && ip address replace 10.{}.0.1/24 dev eth{index}",
            index + 1
        ))
        .map(|_| ())
    }

    /// Starts Tortie and waits for all of its ports.
    fn start(&self) -> Result<()> {
        self.vm.spawn(self.lab, "tortie", "tortie run -c /etc/tortie/tortie.yaml")?;
        self.ports_are_open()
    }

    fn ports_are_open(&self) -> Result<()> {
        self.lab.wait("Tortie's ports", PORTS, || {
            let ports = self.show::<ShowPorts>("ports")?.ports;
            let open = |name: &str| ports.iter().any(|port| port.name == name && port.up);
            Ok(["eth0", "eth1", "eth2", "calipod"].iter().all(|name| open(name)).then_some(()))
        })
    }

    fn show<Answer: DeserializeOwned>(&self, what: &str) -> Result<Answer> {
        Ok(serde_json::from_str(&self.inside(&format!("tortie show {what} -o json"))?)?)
    }

    /// What each queue got, as Tortie and the kernel say it.
    fn reported(&self, when: &str) -> Result<()> {
        let ports = self.show::<ShowPorts>("ports")?.ports;
        for (name, mode, queues) in
            [("eth0", "zero-copy", 2), ("eth1", "zero-copy", 2), ("eth2", "copy", 1), ("calipod", "copy", 1)]
        {
            let port = ports.iter().find(|port| port.name == name);
            let got: Vec<(&str, &str)> =
                port.into_iter().flat_map(|port| &port.queues).map(|q| (&*q.mode, &*q.attach)).collect();
            ensure!(got == vec![(mode, "native"); queues], "{when}: the queues of {name} are {got:?}");
        }
        self.lab.proved(format!(
            "{when}: two queues each of eth0 and eth1 in zero-copy mode, eth2 and the workload's veth in copy mode"
        ));
        Ok(())
    }

    /// A NIC whose driver refuses zero-copy is used by copies, and the report says why.
    fn mapped_memory_is_asked_for(&self) -> Result<()> {
        let ports = self.show::<ShowPorts>("ports")?.ports;
        let notes = ports.iter().find(|port| port.name == "eth2").and_then(|port| port.queues.first());
        let notes = notes.map(|queue| queue.notes.as_str()).unwrap_or_default();
        ensure!(
            notes.contains("zero-copy failed") && notes.contains("VIRTIO_F_ACCESS_PLATFORM"),
            "the report of eth2 doesn't say why it copies: {notes}"
        );
        self.lab.proved(format!("the report of eth2, without VIRTIO_F_ACCESS_PLATFORM: \"{notes}\""));
        Ok(())
    }

    /// From the first host to the two others.
    fn reaches_everybody(&self, through: &str) -> Result<()> {
        for address in &HOSTS[1..] {
            let address: IpAddr = address.parse()?;
            traffic::reaches(self.lab, &self.hosts[0], address, PORTS)?;
            let ping = traffic::answered(&self.hosts[0], address, 10)?;
            ensure!(ping.ttl == Some(63), "replies of {address} have TTL {:?}", ping.ttl);
        }
        self.lab
            .proved(format!("{through} forwards: 10 of 10 pings from left to right and to third, TTL 63"));
        Ok(())
    }

    /// From a zero-copy NIC to another, to one that copies, and back.
    fn transfers(&self) -> Result<()> {
        let before = self.show::<ShowDrops>("drops")?.forwarded;
        for (from, to) in [(0, 1), (0, 2), (2, 1)] {
            let (from, to, address) = (&self.hosts[from], &self.hosts[to], HOSTS[to].parse()?);
            let transfer = traffic::transfer(self.lab, from, to, address, TRANSFER)?;
            self.lab.proved(format!(
                "TCP from {} to {}: {} MB with one SHA-256 on both ends, in {:.1} s",
                from.name(),
                to.name(),
                transfer.bytes / 1_000_000,
                transfer.seconds
            ));
        }
        let forwarded = self.show::<ShowDrops>("drops")?.forwarded - before;
        let least = 3 * TRANSFER / 1500;
        ensure!(forwarded > least, "Tortie forwarded {forwarded} frames: the kernel did it, or nobody");
        Ok(())
    }

    /// Between a zero-copy NIC and a veth, through one memory.
    fn workload(&self) -> Result<()> {
        let address: IpAddr = WORKLOAD_ADDRESS.parse()?;
        let left = &self.hosts[0];
        traffic::reaches(self.lab, left, address, PORTS)?;
        traffic::answered(left, address, 10)?;
        // See `traffic::answered`.
        let said = self.inside("ip netns exec pod ping -n -c 10 -i 0.1 -w 30 10.2.0.2")?;
        ensure!(traffic::lost(&said, 10) == 0, "pings from the workload were lost: {said}");
        self.lab.proved(
            "between eth0, eth1 and a workload inside: 10 of 10 pings each, zero-copy to copy and back",
        );
        Ok(())
    }

    fn books(&self, when: &str) -> Result<()> {
        let books = self.lab.wait("Tortie's books", PORTS, || {
            let books = self.show::<ShowDrops>("drops")?;
            books::check(&books).map(|()| Some(books))
        })?;
        self.lab.proved(books::line(when, &books));
        Ok(())
    }

    /// Ends Tortie, lets the kernel forward, and starts it again: every queue is had again in its mode.
    fn end(&self, signal: &str, how: &str) -> Result<()> {
        self.stop(signal)?;
        self.reaches_everybody(&format!("{how}: the kernel"))?;
        self.start()?;
        self.reported(&format!("started again after it was {how}"))?;
        self.reaches_everybody("Tortie")
    }

    fn stop(&self, signal: &str) -> Result<()> {
        self.inside(&format!(
            "kill -{signal} $(cat /run/tortie.pid) && while kill -0 $(cat /run/tortie.pid) 2>/dev/null; do sleep 0.05; done"
        ))
        .map(|_| ())
    }

    /// Workers have the driver bring packets, where it can: what comes by eth2, which copies, comes by their own calls, and
    /// zero-copy NICs, whose driver would never send, are left to their interrupts.
    fn busy_polling(&self) -> Result<()> {
        self.stop("TERM")?;
        let configuration = format!("{CONFIGURATION}{BUSY_POLL}");
        self.vm.write(self.lab, "/etc/tortie/tortie.yaml", &configuration)?;
        self.start()?;
        self.reaches_everybody("busy polling: Tortie")?;
        let queue = |name: &str| -> Result<Queue> {
            let ports = self.show::<ShowPorts>("ports")?.ports;
            let port = ports.into_iter().find(|port| port.name == name);
            port.and_then(|port| port.queues.into_iter().next())
                .with_context(|| format!("{name} has no queue"))
        };
        for (name, expected) in [("eth0", "busy polling left off"), ("eth2", "busy polling; ")] {
            let notes = queue(name)?.notes;
            ensure!(notes.contains(expected), "the report of {name} doesn't say \"{expected}\": {notes}");
        }
        let before = (self.interrupts(2)?, queue("eth2")?.xdp.rx_busy_polled);
        let (left, third) = (&self.hosts[0], &self.hosts[2]);
        let transfer = traffic::transfer(self.lab, third, left, HOSTS[0].parse()?, POLLED)?;
        // Read from the queues once a second.
        let asked = self.lab.wait("counts of busy polling", PORTS, || {
            let asked = queue("eth2")?.xdp.rx_busy_polled - before.1;
            Ok((asked > 0).then_some(asked))
        })?;
        let (interrupts, frames) = (self.interrupts(2)? - before.0, POLLED / 1500);
        ensure!(interrupts < frames / 10, "eth2 interrupted {interrupts} times for {frames} frames");
        ensure!(queue("eth0")?.xdp.rx_busy_polled == 0, "frames of eth0 were busy polled");
        self.lab.proved(format!(
            "busy polling: {} MB from third to left in {:.1} s with {interrupts} interrupts of eth2; workers asked for \
             {asked} frames and were given the others as they sent; eth0's zero-copy queues are left to interrupts",
            POLLED / 1_000_000,
            transfer.seconds,
        ));
        Ok(())
    }

    /// How often a NIC of one queue has interrupted to say that frames came.
    fn interrupts(&self, index: usize) -> Result<u64> {
        let device = format!("$(basename $(readlink /sys/class/net/eth{index}/device))");
        let line = self.inside(&format!("grep {device}-input.0 /proc/interrupts"))?;
        Ok(line.split_ascii_whitespace().skip(1).map_while(|count| count.parse::<u64>().ok()).sum())
    }

    /// A NIC that leaves while its queues are open takes no frames with it.
    fn departures(&self) -> Result<()> {
        self.lab.step(&format!("eth1 leaves and comes back {DEPARTURES} times"));
        let device = self.inside("basename $(readlink /sys/class/net/eth1/device)")?;
        let device = device.trim();
        for _ in 0..DEPARTURES {
            self.inside(&format!("echo {device} > /sys/bus/virtio/drivers/virtio_net/unbind"))?;
            self.lab.wait("the port's end", PORTS, || {
                let ports = self.show::<ShowPorts>("ports")?.ports;
                Ok((!ports.iter().any(|port| port.name == "eth1")).then_some(()))
            })?;
            self.inside(&format!("echo {device} > /sys/bus/virtio/drivers/virtio_net/bind"))?;
            self.give_address(1)?;
            self.ports_are_open()?;
        }
        self.reported(&format!("after eth1 left and came back {DEPARTURES} times"))?;
        self.reaches_everybody("Tortie")?;
        let starved = |ports: ShowPorts| -> u64 {
            ports.ports.iter().flat_map(|port| &port.queues).map(|queue| queue.xdp.rx_fill_ring_empty).sum()
        };
        let before = starved(self.show("ports")?);
        let (left, right) = (&self.hosts[0], &self.hosts[1]);
        let transfer = traffic::transfer(self.lab, left, right, HOSTS[1].parse()?, AFTERWARDS)?;
        let after = starved(self.show("ports")?);
        ensure!(after == before, "the kernel found no free frame {} times", after - before);
        self.lab.proved(format!(
            "and no frame was lost with it: {} MB in {:.1} s, the kernel never without a free frame",
            AFTERWARDS / 1_000_000,
            transfer.seconds
        ));
        Ok(())
    }
}

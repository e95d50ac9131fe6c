//! IPIP with the Linux kernel at the other end: its `ipip` device, in a virtual machine, set up as Calico sets it up.

use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use model::MacAddr;

use crate::capture::{Capture, Captured};
use crate::link::{self, Fabric};
use crate::resources::Resources;
use crate::scenario::{Options, Scenario, Store};
use crate::tortie::{Settings, TortieNode};
use crate::traffic::{self, DATAGRAMS_PORT, Transfer};
use crate::vm::{Nic, Plan, Vm};
use crate::workload::Workload;
use crate::{Lab, books, dissected};

/// Tortie and Linux, a tunnel between them.
pub(super) const IPIP_LINUX: Scenario = Scenario {
    name: "ipip-linux",
    about: "IPIP between Tortie and the Linux kernel's own ipip device, in a virtual machine: ping, TCP, UDP",
    programs: &["qemu-system-x86_64", "busybox", "bird", "ping", "tcpdump", "tshark", "ethtool"],
    tortie: true,
    alone: false,
    store: Store::Either,
    run,
};

const AS_NUMBER: u32 = 64512;
/// Node, its block, its tunnel's address and its workload.
const TORTIE: [&str; 4] = ["172.18.0.2/24", "10.65.0.0/26", "10.65.0.1", "10.65.0.2"];
const LINUX: [&str; 4] = ["172.18.0.3/24", "10.65.1.0/26", "10.65.1.1", "10.65.1.2"];

/// How long the session and its routes may take.
const CONVERGE: Duration = Duration::from_secs(90);
const TRANSFER: u64 = 5_000_000;
const TRANSFER_LIMIT: Duration = Duration::from_secs(180);
const DATAGRAMS: u32 = 400;
const PORT: u16 = 9100;

/// The virtual machine as a Calico node: workload, tunnel, and a route to the other node's block as Calico's BIRD
/// writes it. Its NIC completes no checksum, as what it sends is to be whole when it is captured.
const NODE: &str = "\
ip link set eth0 up
ethtool -K eth0 tx off > /dev/null
ip address add 172.18.0.3/24 dev eth0
sysctl -q -w net.ipv4.ip_forward=1
# Linux answers ARP by proxy for what it has a route to.
ip route add default via 172.18.0.2 dev eth0
ip link set tunl0 up mtu 1480
ip address add 10.65.1.1/32 dev tunl0
ip route add 10.65.0.0/26 via 172.18.0.2 dev tunl0 onlink
ip netns add pod
ip link add calipod address ee:ee:ee:ee:ee:ee type veth peer name eth0 netns pod
ip link set calipod up mtu 1480
sysctl -q -w net.ipv4.conf.calipod.proxy_arp=1 net.ipv4.neigh.calipod.proxy_delay=0
ip route add 10.65.1.2/32 dev calipod scope link
ip -n pod link set lo up
ip -n pod link set eth0 up mtu 1480
ip -n pod address add 10.65.1.2/32 dev eth0
ip -n pod route add 169.254.1.1 dev eth0 scope link
ip -n pod route add default via 169.254.1.1 dev eth0
";

const BIRD: &str = "\
router id 172.18.0.3;
protocol device {}
protocol static { ipv4; route 10.65.1.0/26 blackhole; }
protocol bgp tortie {
  local 172.18.0.3 as 64512;
  neighbor 172.18.0.2 as 64512;
  direct;
  graceful restart;
  ipv4 { import all; export all; };
}
";

fn run(lab: &Lab, _: &Options) -> Result<()> {
    let site = Site::raise(lab)?;
    site.converge()?;
    let capture = Capture::start(lab, site.fabric.namespace(), WIRE, "ip and not tcp port 179")?;
    site.pings()?;
    site.transfers()?;
    site.datagrams()?;
    let captured = capture.stop()?;
    tunnelled(lab, &captured)?;
    let books = books::settled(lab, &site.node)?;
    lab.proved(books::line("tortie", &books));
    Ok(())
}

/// The machine's NIC, as the fabric sees it: the wire between the nodes.
const WIRE: &str = "eth0";

struct Site<'lab> {
    lab: &'lab Lab,
    fabric: Fabric,
    node: TortieNode,
    workload: Workload,
    linux: Vm,
}

impl Site<'_> {
    fn raise(lab: &Lab) -> Result<Site<'_>> {
        let fabric = Fabric::raise(lab, "fabric")?;
        let linux = boot(lab, &fabric)?;
        fabric.namespace().ip(&format!("link set {WIRE} master {}", Fabric::BRIDGE))?;
        linux.run(lab, NODE)?;

        let node = lab.namespace("tortie")?;
        node.forward()?;
        fabric.attach(&node, "eth0")?;
        link::add_address(&node, "eth0", TORTIE[0].parse()?)?;
        let resources = resources(lab)?;
        let workload = Workload::raise(lab, &resources, &node, "w1", &[TORTIE[3].parse()?])?;
        let node = TortieNode::configure(lab, &node, resources.directory(), &Settings::default())?;
        Ok(Site { lab, fabric, node, workload, linux })
    }

    /// Starts both routers and waits for the session, and for the first reply.
    fn converge(&self) -> Result<()> {
        self.linux.write(self.lab, "/etc/bird.conf", BIRD)?;
        self.linux.spawn(self.lab, "bird", "bird -f -c /etc/bird.conf -s /run/bird.ctl")?;
        self.node.start(self.lab)?;
        self.lab.wait("the session with BIRD", CONVERGE, || self.node.established(1).map(Some))?;
        traffic::reaches(self.lab, &self.workload.namespace, LINUX[3].parse()?, CONVERGE)?;
        Ok(())
    }

    fn in_pod(&self, command: &str) -> Result<String> {
        self.linux.run_within(self.lab, &format!("ip netns exec pod {command}"), TRANSFER_LIMIT)
    }

    /// Starts a server in the pod and waits until it listens.
    fn serve(&self, name: &str, command: &str, port: u16) -> Result<()> {
        self.linux.spawn(self.lab, name, &format!("ip netns exec pod {command}"))?;
        let listens = format!("netstat -ltn | grep -q :{port}");
        self.lab.wait(&format!("{name} in the pod"), CONVERGE, || self.in_pod(&listens).map(Some))?;
        Ok(())
    }

    /// From either workload, and from the Linux host itself under its tunnel's address.
    fn pings(&self) -> Result<()> {
        let (from, to): (_, IpAddr) = (&self.workload.namespace, LINUX[3].parse()?);
        let ping = traffic::answered(from, to, 10)?;
        ensure!(ping.ttl == Some(62), "replies through two routers arrive with TTL {:?}", ping.ttl);
        // See `traffic::answered`.
        let (patient, target) = ("-n -c 5 -i 0.2 -w 30", TORTIE[3]);
        let in_pod = self.in_pod(&format!("ping {patient} -M do -s 1452 {target}"))?;
        let on_host = self.linux.run_within(self.lab, &format!("ping {patient} {target}"), TRANSFER_LIMIT)?;
        for said in [in_pod, on_host] {
            ensure!(traffic::lost(&said, 5) == 0, "pings from Linux were lost: {said}");
        }
        self.lab.proved(
            "ping: 10 of 10 from Tortie's workload with TTL 62; 5 of 5 of the tunnel's full 1480 bytes from Linux's; \
             5 of 5 from the Linux host",
        );
        Ok(())
    }

    /// TCP both ways, compared by hash.
    fn transfers(&self) -> Result<()> {
        let (bytes, near) = (TRANSFER.to_string(), &self.workload.namespace);
        self.lab.step("TCP to Linux and back");
        let target = format!("{}:{PORT}", LINUX[3]);
        self.serve("receiver", &format!("lab-agent receive {target}"), PORT)?;
        let mut sender = traffic::agent(self.lab, near, "send", &[&target, "--bytes", &bytes])?;
        let sent: Transfer = serde_json::from_str(&sender.finish(TRANSFER_LIMIT)?)?;
        let received = self.lab.wait("the receiver's report", CONVERGE, || {
            Ok(Some(serde_json::from_str::<Transfer>(&self.linux.run(self.lab, "cat /run/receiver.log")?)?))
        })?;
        self.same("TCP to Linux", &sent, &received)?;

        let target = format!("{}:{PORT}", TORTIE[3]);
        let mut receiver = traffic::agent(self.lab, near, "receive", &[&target])?;
        self.lab.wait("a receiver", CONVERGE, || {
            Ok(near.run("ss", &["-Hltn"])?.contains(&format!(":{PORT}")).then_some(()))
        })?;
        let sent = self.in_pod(&format!("lab-agent send {target} --bytes {bytes}"))?;
        let received: Transfer = serde_json::from_str(&receiver.finish(TRANSFER_LIMIT)?)?;
        self.same("TCP from Linux", &serde_json::from_str(&sent)?, &received)
    }

    fn same(&self, way: &str, sent: &Transfer, received: &Transfer) -> Result<()> {
        ensure!(
            (sent.bytes, &sent.sha256) == (received.bytes, &received.sha256),
            "{way}: {sent:?} was sent and {received:?} received"
        );
        let kilobytes = received.bytes / 1_000;
        self.lab.proved(format!(
            "{way}: {kilobytes} kB with one SHA-256 on both ends, in {:.1} s",
            received.seconds
        ));
        Ok(())
    }

    /// UDP both ways, compared by hash: none is lost.
    fn datagrams(&self) -> Result<()> {
        let (count, near) = (DATAGRAMS.to_string(), &self.workload.namespace);
        self.lab.step("UDP to Linux and back");
        let target = format!("{}:{DATAGRAMS_PORT}", LINUX[3]);
        let receive = format!("lab-agent receive-datagrams {target} --count {count}");
        self.linux.spawn(self.lab, "datagrams", &format!("ip netns exec pod {receive}"))?;
        let bound = format!("netstat -lun | grep -q :{DATAGRAMS_PORT}");
        self.lab.wait("the receiver's socket in the pod", CONVERGE, || self.in_pod(&bound).map(Some))?;
        let mut sender = traffic::agent(
            self.lab,
            near,
            "send-datagrams",
            &[&target, "--count", &count, "--size", "1200"],
        )?;
        let sent: Transfer = serde_json::from_str(&sender.finish(TRANSFER_LIMIT)?)?;
        let received = self.lab.wait("the receiver's report", CONVERGE, || {
            Ok(Some(serde_json::from_str::<Transfer>(&self.linux.run(self.lab, "cat /run/datagrams.log")?)?))
        })?;
        self.same("UDP to Linux", &sent, &received)?;

        let target = format!("{}:{DATAGRAMS_PORT}", TORTIE[3]);
        let mut receiver =
            traffic::agent(self.lab, near, "receive-datagrams", &[&target, "--count", &count])?;
        self.lab.wait("the receiver's socket", CONVERGE, || {
            Ok(near.run("ss", &["-Hlun"])?.contains(&format!(":{DATAGRAMS_PORT}")).then_some(()))
        })?;
        let sent = self.in_pod(&format!("lab-agent send-datagrams {target} --count {count} --size 1200"))?;
        let received: Transfer = serde_json::from_str(&receiver.finish(TRANSFER_LIMIT)?)?;
        self.same("UDP from Linux", &serde_json::from_str(&sent)?, &received)
    }
}

fn boot(lab: &Lab, fabric: &Fabric) -> Result<Vm> {
    let nic = Nic {
        outside: fabric.namespace(),
        mac: MacAddr([2, 0, 0, 0, 0, 1]),
        queues: 1,
        access_platform: false,
    };
    let agent = lab.tools().agent.as_path();
    let system = ["ip", "ping", "bird", "ethtool"].map(Path::new);
    Vm::boot(
        lab,
        &Plan {
            name: "linux",
            memory: 512,
            processors: 2,
            nics: &[nic],
            programs: &[&[agent], &system[..]].concat(),
            modules: &["tunnel4", "ip_tunnel", "ipip", "veth"],
        },
    )
}

/// Both nodes, a pool that asks for IPIP between all of them, and Tortie's block.
fn resources(lab: &Lab) -> Result<Resources> {
    let resources = Resources::create(lab.directory().join("resources"))?;
    resources.bgp_configuration(true, AS_NUMBER)?;
    let manifest = |kind: &str, name: &str, spec: &str| {
        let text = format!(
            "apiVersion: projectcalico.org/v3\nkind: {kind}\nmetadata: {{ name: {name} }}\nspec: {{ {spec} }}\n"
        );
        resources.write(&format!("{}-{name}.yaml", kind.to_lowercase()), &text)
    };
    manifest("IPPool", "pool", "cidr: 10.65.0.0/16, blockSize: 26, ipipMode: Always, vxlanMode: Never")?;
    for (name, [address, _, tunnel, _]) in [("tortie", TORTIE), ("linux", LINUX)] {
        manifest("Node", name, &format!("bgp: {{ ipv4Address: {address}, ipv4IPIPTunnelAddr: {tunnel} }}"))?;
    }
    resources.block("tortie", TORTIE[1].parse()?)?;
    Ok(resources)
}

/// Every packet of a workload was in an IPv4 header of 20 bytes and protocol 4 between the two nodes (RFC 2003), and
/// nothing is malformed and no checksum wrong, outside or inside.
fn tunnelled(lab: &Lab, captured: &Captured) -> Result<()> {
    lab.step("dissecting what was captured");
    dissected::frames(captured)?;
    let fields = ["ip.src", "ip.dst", "ip.hdr_len", "ip.proto"];
    let mut arguments = vec!["-T", "fields", "-E", "occurrence=f"];
    arguments.extend(fields.iter().flat_map(|field| ["-e", field]));
    let text = dissected::tshark(captured, &arguments)?;
    let node = |cidr: &str| cidr.split('/').next().unwrap_or_default().to_owned();
    let (tortie, linux) = (node(TORTIE[0]), node(LINUX[0]));
    let mut counts = [0; 2];
    for line in text.lines() {
        let columns: Vec<&str> = line.split('\t').collect();
        let way = [[&tortie, &linux], [&linux, &tortie]]
            .iter()
            .position(|[from, to]| columns == [from, to, "20", "4"]);
        let way = way.with_context(|| format!("not in a tunnel between the nodes: {line}"))?;
        if let Some(count) = counts.get_mut(way) {
            *count += 1;
        }
    }
    let least = TRANSFER / 1480;
    ensure!(counts.iter().all(|count| *count > least), "only {counts:?} frames were captured");
    lab.proved(format!(
        "{} frames from Tortie and {} from Linux: all in an outer header of 20 bytes and protocol 4, none malformed, \
         every checksum right outside and inside ({} not captured)",
        counts[0], counts[1], captured.missed
    ));
    Ok(())
}

//! What is around the appliance, and what its config drive says.

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use model::{InterfaceAddr, MacAddr};

use super::Files;
use super::machine::{Machine, Nic, Wire};
use crate::bird::{Bird, PlainRouter, Session};
use crate::link::{self, Fabric};
use crate::netns::Namespace;
use crate::resources::{Endpoint, Resources};
use crate::tortie::{Settings, TortieNode};
use crate::workload::Workload;
use crate::{Lab, command};

/// The appliance's name, as a host and as a Calico node.
pub(super) const NAME: &str = "gateway1";
const AS_NUMBER: u32 = 64512;
const LEFT_AS: u32 = 64601;
/// The management network: the appliance, and whoever manages it.
const MANAGEMENT: [&str; 2] = ["192.0.2.10", "192.0.2.1"];
/// Pairs of queues of each data port, and workers.
pub(super) const QUEUES: usize = 2;
/// Each worker's core, as [`CONFIGURATION`] has them: otherwise than the driver would have it.
pub(super) const CORES: [usize; QUEUES] = [1, 0];
/// The data ports' addresses, and those at the other ends.
const LEFT: [&str; 4] = ["10.1.0.1", "10.1.0.2", "fd10:1::1", "fd10:1::2"];
const RIGHT: [&str; 4] = ["10.2.0.1", "10.2.0.2", "fd10:2::1", "fd10:2::2"];
/// Behind left, announced by BIRD.
pub(super) const BEHIND_LEFT: [(&str, &str); 2] =
    [("10.101.0.0/24", "10.101.0.1"), ("fd10:101::/64", "fd10:101::1")];
/// Where a workload inside the appliance is.
pub(super) const INSIDE: [&str; 2] = ["10.65.0.2", "10.66.0.2"];
const INSIDE_INTERFACE: &str = "caliinside";

/// How packets to a pool travel between the appliance and right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    Plain,
    PlainV6,
    Ipip,
    Vxlan,
}

/// A pool: its name and way, its network and the size of its blocks, right's block of it and far's address in that.
pub(super) struct Pool {
    pub(super) name: &'static str,
    pub(super) way: Way,
    cidr: &'static str,
    block_size: u8,
    pub(super) block: &'static str,
    pub(super) far: &'static str,
}

pub(super) const POOLS: [Pool; 4] = [
    Pool {
        name: "IPv4",
        way: Way::Plain,
        cidr: "10.67.0.0/16",
        block_size: 26,
        block: "10.67.1.0/26",
        far: "10.67.1.2",
    },
    Pool {
        name: "IPv6",
        way: Way::PlainV6,
        cidr: "fd67::/48",
        block_size: 122,
        block: "fd67:0:0:1::/122",
        far: "fd67:0:0:1::2",
    },
    Pool {
        name: "IPIP",
        way: Way::Ipip,
        cidr: "10.65.0.0/16",
        block_size: 26,
        block: "10.65.1.0/26",
        far: "10.65.1.2",
    },
    Pool {
        name: "VXLAN",
        way: Way::Vxlan,
        cidr: "10.66.0.0/16",
        block_size: 26,
        block: "10.66.1.0/26",
        far: "10.66.1.2",
    },
];

const CONFIGURATION: &str = "\
node: gateway1
datastore: { directory: /etc/tortie/resources }
uplinks: [data0, data1]
workers: 2
cores: [1, 0]
queues: 2
tuning: {}
limits: { frames: 24576, routes_v4: 10000, routes_v6: 10000, mirror_routes: 10000, prefixes_per_peer: 10000 }
";

/// What a CNI plugin would do inside.
const WORKLOAD: &str = "\
ip netns add inside
ip link add caliinside address ee:ee:ee:ee:ee:ee type veth peer name eth0 netns inside
ip link set caliinside up
ip -n inside link set eth0 address 02:00:00:00:00:05 up
ip netns exec inside ethtool -K eth0 tx off > /dev/null
ip -n inside address add 10.65.0.2/32 dev eth0
ip -n inside address add 10.66.0.2/32 dev eth0
ip -n inside route add 169.254.1.1 dev eth0 scope link
ip -n inside route add default via 169.254.1.1 dev eth0
";

/// All of it.
pub(super) struct Site<'lab> {
    pub(super) lab: &'lab Lab,
    pub(super) machine: Machine<'lab>,
    pub(super) left: Namespace,
    pub(super) wire_right: Fabric,
    pub(super) right: TortieNode,
    pub(super) far: Workload,
    pub(super) bird: Bird,
}

impl<'lab> Site<'lab> {
    /// Raises everything and powers the appliance on.
    pub(super) fn raise(lab: &'lab Lab, files: &Files) -> Result<Site<'lab>> {
        lab.step("raising what is around the appliance");
        let ops = lab.namespace("ops")?;
        let (wire_left, wire_right) = (Fabric::raise(lab, "wire-left")?, Fabric::raise(lab, "wire-right")?);
        let left = left(lab, &wire_left)?;
        let right = right(lab, &wire_right)?;
        let resources = resources(lab)?;
        let addresses: Vec<IpAddr> = POOLS.iter().map(|pool| pool.far.parse()).collect::<Result<_, _>>()?;
        let far = Workload::raise(lab, &resources, &right, "far", &addresses)?;
        let key = lab.directory().join("key");
        let mut keygen = Command::new("ssh-keygen");
        keygen.args(["-q", "-t", "ed25519", "-N", "", "-C", "operator", "-f"]).arg(&key);
        command::run(&mut keygen, command::SETTING)?;
        let drive = drive(lab, &resources, &fs::read_to_string(key.with_extension("pub"))?)?;
        let nic = |last, queues, wire| Nic { mac: MacAddr([0x52, 0x54, 0, 0, 0, last]), queues, wire };
        let queues = u32::try_from(QUEUES)?;
        let nics = [
            nic(1, 1, Wire::Namespace(&ops)),
            nic(2, queues, Wire::Fabric(&wire_left)),
            nic(3, queues, Wire::Fabric(&wire_right)),
        ];
        let machine = Machine::power_on(lab, files, &drive, &nics, (&ops, MANAGEMENT[0], &key))?;
        link::add_address(&ops, "eth0", format!("{}/24", MANAGEMENT[1]).parse()?)?;
        let right = TortieNode::configure(lab, &right, resources.directory(), &Settings::default())?;
        right.start(lab)?;
        let bird = Bird::start(lab, &left, &left_router()?.render())?;
        Ok(Site { lab, machine, left, wire_right, right, far, bird })
    }

    /// A workload inside the appliance, unless it is there.
    pub(super) fn workload_inside(&self) -> Result<()> {
        let script = format!("ip netns list | grep -q inside || {{ set -e; {WORKLOAD} }}");
        self.machine.run(&script).map(|_| ())
    }
}

/// A plain router: what it learns goes into its kernel.
fn left(lab: &Lab, wire: &Fabric) -> Result<Namespace> {
    let [_, v4, _, v6] = LEFT;
    let left = wire.host(lab, "left", &[&format!("{v4}/24"), &format!("{v6}/64")])?;
    for (network, address) in BEHIND_LEFT {
        let len = network.rsplit('/').next().unwrap_or_default();
        link::add_address(&left, "lo", format!("{address}/{len}").parse()?)?;
    }
    left.forward()?;
    Ok(left)
}

/// A Calico node's host: what it doesn't know goes to the appliance.
fn right(lab: &Lab, wire: &Fabric) -> Result<Namespace> {
    let [gateway, v4, gateway_v6, v6] = RIGHT;
    let right = wire.host(lab, "right", &[&format!("{v4}/24"), &format!("{v6}/64")])?;
    right.forward()?;
    right.ip(&format!("route add default via {gateway}"))?;
    right.ip(&format!("-6 route add default via {gateway_v6}"))?;
    Ok(right)
}

fn address(text: &str, len: u8) -> Result<InterfaceAddr> {
    Ok(InterfaceAddr { addr: text.parse()?, len })
}

/// What both nodes read.
fn resources(lab: &Lab) -> Result<Resources> {
    let resources = Resources::create(lab.directory().join("resources"))?;
    resources.bgp_configuration(true, AS_NUMBER)?;
    let own = |[v4, v6]: [&str; 2]| Ok::<_, anyhow::Error>([address(v4, 24)?, address(v6, 64)?]);
    let tunnel = |v4: &str, v6: &str| Ok::<[IpAddr; 2], anyhow::Error>([v4.parse()?, v6.parse()?]);
    resources.tunnel_node(NAME, own([RIGHT[0], RIGHT[2]])?, tunnel("10.65.0.0", "fd67::f")?)?;
    resources.tunnel_node("right", own([RIGHT[1], RIGHT[3]])?, tunnel("10.65.1.0", "fd67:0:0:1::f")?)?;
    for pool in &POOLS {
        let (ipip, vxlan) = match pool.way {
            Way::Ipip => ("Always", "Never"),
            Way::Vxlan => ("Never", "Always"),
            Way::Plain | Way::PlainV6 => ("Never", "Never"),
        };
        let name = format!("pool-{}", pool.name.to_lowercase());
        resources.pool(&name, pool.cidr.parse()?, pool.block_size, ipip, vxlan)?;
        resources.block("right", pool.block.parse()?)?;
    }
    for block in ["10.65.0.0/26", "10.66.0.0/26"] {
        resources.block(NAME, block.parse()?)?;
    }
    let addresses: Vec<IpAddr> = INSIDE.iter().map(|text| text.parse()).collect::<Result<_, _>>()?;
    resources.workload_endpoint(&Endpoint {
        name: "inside",
        node: NAME,
        interface: INSIDE_INTERFACE,
        mac: MacAddr([2, 0, 0, 0, 0, 5]),
        addresses: &addresses,
    })?;
    // On the link to left, and not from the node's own address, which is on the other one.
    for (name, peer) in [("left-v4", LEFT[1]), ("left-v6", LEFT[3])] {
        let spec =
            format!("  node: {NAME}\n  peerIP: \"{peer}\"\n  asNumber: {LEFT_AS}\n  sourceAddress: None\n");
        resources.bgp_peer_of(name, &spec)?;
    }
    Ok(resources)
}

fn left_router() -> Result<PlainRouter> {
    let sessions = [(LEFT[0], LEFT[1]), (LEFT[2], LEFT[3])].map(|(neighbor, source)| {
        Ok(Session::direct((source.parse()?, LEFT_AS), (neighbor.parse()?, AS_NUMBER), "filter own"))
    });
    Ok(PlainRouter {
        router_id: LEFT[1].parse()?,
        routes: BEHIND_LEFT.iter().map(|(network, _)| format!("{network} blackhole")).collect(),
        kernel: true,
        sessions: sessions.into_iter().collect::<Result<_>>()?,
    })
}

/// A config drive: a small FAT called CIDATA, as cloud-init's NoCloud has it.
fn drive(lab: &Lab, resources: &Resources, key: &str) -> Result<PathBuf> {
    let folder = lab.directory().join("drive");
    fs::create_dir_all(&folder)?;
    fs::write(folder.join("meta-data"), format!("instance-id: {NAME}-1\nlocal-hostname: {NAME}\n"))?;
    fs::write(folder.join("network-config"), network_config())?;
    let mut user = format!("#cloud-config\nssh_authorized_keys:\n  - {}\nwrite_files:\n", key.trim());
    user.push_str(&file("tortie.yaml", CONFIGURATION));
    let mut manifests: Vec<PathBuf> =
        fs::read_dir(resources.directory())?.flatten().map(|entry| entry.path()).collect();
    manifests.sort();
    for manifest in manifests {
        let name = manifest.file_name().context("a file without a name")?.to_string_lossy().into_owned();
        user.push_str(&file(&format!("resources/{name}"), &fs::read_to_string(&manifest)?));
    }
    fs::write(folder.join("user-data"), user)?;
    let drive = lab.directory().join("drive.img");
    pack(&folder, &drive)?;
    Ok(drive)
}

fn file(name: &str, text: &str) -> String {
    let lines: String = text.lines().map(|line| format!("      {line}\n")).collect();
    format!("  - path: /etc/tortie/{name}\n    content: |\n{lines}")
}

fn network_config() -> String {
    let port = |name: &str, last: u8, addresses: &str| {
        format!(
            "  {name}:\n    match: {{ macaddress: \"52:54:00:00:00:{last:02x}\" }}\n    set-name: {name}\n    \
             addresses: [{addresses}]\n"
        )
    };
    let data = |[v4, _, v6, _]: [&str; 4]| format!("{v4}/24, \"{v6}/64\"");
    format!(
        "version: 2\nethernets:\n{}{}{}",
        port("mgmt0", 1, &format!("{}/24", MANAGEMENT[0])),
        port("data0", 2, &data(LEFT)),
        port("data1", 3, &data(RIGHT))
    )
}

fn pack(folder: &Path, drive: &Path) -> Result<()> {
    let mut format = Command::new("mkfs.vfat");
    format.args(["-n", "CIDATA", "-C"]).arg(drive).arg("1440");
    command::run(&mut format, command::SETTING)?;
    for name in ["meta-data", "user-data", "network-config"] {
        let mut copy = Command::new("mcopy");
        copy.arg("-i").arg(drive).arg(folder.join(name)).arg("::");
        command::run(&mut copy, command::SETTING)?;
    }
    Ok(())
}

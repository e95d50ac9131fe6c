//! Two gateways before a cluster of VXLAN: they speak eBGP outside and VXLAN inside, and no node speaks BGP.
//!
//! ```text
//!  client 198.51.100.10 ── core (BIRD, the kernel) ──┬── gw1 (Tortie) ──┬── node-a (Tortie) ── pod-a
//!                            AS 65000                └── gw2 (Tortie) ──┴── node-b (Linux)  ── pod-b
//!                                           plain, BGP        AS 64512     VXLAN in, plain out
//! ```
//!
//! What goes to a pod is in VXLAN from the gateway on, as nobody in the rack knows a route to pods; what a pod sends outside is
//! no pool's, and leaves plainly by the node's default route, as under Calico.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use model::{Family, InterfaceAddr, Prefix};

use crate::bird::{Bird, PlainRouter, Session};
use crate::capture::Capture;
use crate::cluster::{CONVERGE, nth};
use crate::dissected::{self, Outer, Wrapping};
use crate::link::{self, Fabric};
use crate::netns::Namespace;
use crate::resources::Resources;
use crate::scenario::{Options, Scenario, Store};
use crate::tortie::{Settings, TortieNode};
use crate::vtep::Vtep;
use crate::workload::Workload;
use crate::{Lab, books, traffic};

/// The role of a ToR or a gateway in VXLAN.
pub(super) const VXLAN_GATEWAY: Scenario = Scenario {
    name: "vxlan-gateway",
    about: "two gateways announce a VXLAN cluster's blocks to BIRD by eBGP and encapsulate to its nodes, Tortie and Linux; one is drained",
    programs: &["bird", "birdc", "ping", "tcpdump", "tshark", "ethtool", "bridge"],
    tortie: true,
    alone: false,
    store: Store::Either,
    run,
};

const POOLS: [(&str, u8); 2] = [("10.244.0.0/16", 26), ("fd65:244::/48", 122)];
const OUTSIDE: [&str; 2] = ["198.51.100.0/24", "2001:db8:51::/64"];
const CLIENT: [&str; 2] = ["198.51.100.10", "2001:db8:51::a"];
const CLUSTER_AS: u32 = 64512;
const CORE_AS: u32 = 65000;
/// The core's host number in its own network.
const CORE: u8 = 254;
/// The first reply may wait for neighbours.
const FIRST_REPLY: Duration = Duration::from_secs(60);
/// Larger than one segment, and than what fits into the tunnel.
const BYTES: u64 = 1_000_000;
/// A block that comes and goes while all runs.
const LATER: &str = "10.244.99.0/26";

/// Its name, and its number in the rack, in the core, and in its block.
struct Member(&'static str, u8);

const GATEWAYS: [Member; 2] = [Member("gw1", 1), Member("gw2", 2)];
const NODE: Member = Member("node-a", 11);
const LINUX: Member = Member("node-b", 12);

impl Member {
    fn in_rack(&self, family: Family) -> InterfaceAddr {
        address(1, self.1, family)
    }

    fn in_core(&self, family: Family) -> InterfaceAddr {
        address(0, self.1, family)
    }

    /// An address of its own, on its loopback, which a BGPFilter lets out.
    fn loopback(&self) -> String {
        format!("172.31.20.{}/32", self.1)
    }

    fn block(&self, family: Family) -> Result<Prefix> {
        let text = match family {
            Family::V4 => format!("10.244.{}.0/26", self.1),
            Family::V6 => format!("fd65:244:0:{}::/122", self.1),
        };
        text.parse().with_context(|| text.clone())
    }

    /// Its end of VXLAN, which is the first address of its block.
    fn vtep(&self) -> Result<Vtep> {
        let block = self.block(Family::V4)?;
        Ok(Vtep { node: self.0, outside: self.in_rack(Family::V4).addr, inside: block.addr(), block })
    }

    /// Its pod's addresses.
    fn pod(&self) -> Result<[IpAddr; 2]> {
        Ok([nth(self.block(Family::V4)?, 5), nth(self.block(Family::V6)?, 5)])
    }
}

/// Network 0 is the core's, 1 the rack's.
fn address(network: u8, host: u8, family: Family) -> InterfaceAddr {
    match family {
        Family::V4 => InterfaceAddr { addr: [10, network, 0, host].into(), len: 24 },
        Family::V6 => InterfaceAddr {
            addr: [0xfd00, u16::from(network), 0, 0, 0, 0, 0, u16::from(host)].into(),
            len: 64,
        },
    }
}

struct Site<'lab> {
    lab: &'lab Lab,
    rack: Fabric,
    core_net: Fabric,
    resources: Resources,
    gateways: Vec<TortieNode>,
    node: TortieNode,
    linux: Namespace,
    pods: [Workload; 2],
    core: Bird,
    client: Namespace,
}

fn run(lab: &Lab, _: &Options) -> Result<()> {
    let site = Site::raise(lab)?;
    site.the_core_knows_the_blocks_by_both_gateways()?;
    let used = site.pods_and_client_reach_each_other(None)?;
    site.blocks_come_and_go()?;
    site.a_gateway_is_drained(used)?;
    site.a_pool_is_kept_back()?;
    for tortie in site.gateways.iter().chain([&site.node]) {
        tortie.must_run()?;
        lab.proved(books::line(tortie.name(), &books::settled(lab, tortie)?));
    }
    Ok(())
}

impl<'lab> Site<'lab> {
    fn raise(lab: &'lab Lab) -> Result<Site<'lab>> {
        lab.step("raising a rack of VXLAN, two gateways and a core");
        let [rack, core_net, outside] =
            [Fabric::raise(lab, "rack")?, Fabric::raise(lab, "core-net")?, Fabric::raise(lab, "outside")?];
        let resources = Resources::create(lab.directory().join("resources"))?;
        resources.bgp_configuration(false, CLUSTER_AS)?;
        for (index, (pool, block_size)) in POOLS.iter().enumerate() {
            resources.pool(&format!("pool-{index}"), pool.parse()?, *block_size, "Never", "Always")?;
        }
        for member in GATEWAYS.iter().chain([&NODE, &LINUX]) {
            write_node(&resources, member)?;
        }
        for (family, of) in Family::ALL.into_iter().zip(["v4", "v6"]) {
            let core = address(0, CORE, family).addr;
            let spec = format!(
                "  nodeSelector: role == 'gateway'\n  peerIP: \"{core}\"\n  asNumber: {CORE_AS}\n  sourceAddress: None\n  \
                 filters: [loopbacks]\n"
            );
            resources.bgp_peer_of(&format!("core-{of}"), &spec)?;
        }

        resources.write(
            "bgpfilter-loopbacks.yaml",
            "apiVersion: projectcalico.org/v3\nkind: BGPFilter\nmetadata: {name: loopbacks}\n\
             spec: {exportV4: [{action: Accept, matchOperator: In, cidr: 172.31.20.0/24}]}\n",
        )?;
        let mut gateways = Vec::new();
        for member in &GATEWAYS {
            let namespace = join(lab, &rack, member)?;
            namespace.ip(&format!("address add {} dev lo", member.loopback()))?;
            core_net.attach(&namespace, "eth1")?;
            link::transmit_checksums_by_software(&namespace, "eth1")?;
            for family in Family::ALL {
                link::add_address(&namespace, "eth1", member.in_core(family))?;
            }
            let uplinks = ["eth0", "eth1"].map(str::to_owned).to_vec();
            let settings = Settings { uplinks, ..Settings::default() };
            gateways.push(TortieNode::configure(lab, &namespace, resources.directory(), &settings)?);
        }
        let (node, linux) = (join(lab, &rack, &NODE)?, join(lab, &rack, &LINUX)?);
        for namespace in [&node, &linux] {
            leave_by(namespace, &GATEWAYS[0])?;
        }
        let pod_a = Workload::raise(lab, &resources, &node, "pod-a", &NODE.pod()?)?;
        // Linux's end is IPv4's alone.
        let pod_b = Workload::raise(lab, &resources, &linux, "pod-b", &LINUX.pod()?[..1])?;
        pod_b.plug_into_kernel(&linux)?;
        let others = [GATEWAYS[0].vtep()?, GATEWAYS[1].vtep()?, NODE.vtep()?];
        LINUX.vtep()?.raise_on_linux(&linux, "eth0", &others)?;
        let node = TortieNode::configure(lab, &node, resources.directory(), &Settings::default())?;

        let client = outside.host(lab, "client", &[])?;
        let core = raise_core(lab, &core_net, &outside, &client)?;
        for tortie in gateways.iter().chain([&node]) {
            tortie.start(lab)?;
        }
        let pods = [pod_a, pod_b];
        Ok(Site { lab, rack, core_net, resources, gateways, node, linux, pods, core, client })
    }

    /// Each block by each gateway, which alone stands in the path.
    fn the_core_knows_the_blocks_by_both_gateways(&self) -> Result<()> {
        for gateway in &self.gateways {
            self.lab.wait(&format!("the sessions of {}", gateway.name()), CONVERGE, || {
                gateway.established(2).map(Some)
            })?;
        }
        for member in [&NODE, &LINUX] {
            for family in Family::ALL {
                let block = member.block(family)?;
                self.lab.wait(&format!("{block} in the core by both gateways"), CONVERGE, || {
                    let told = self.core.ask(&format!("show route {block} all"))?;
                    for gateway in &GATEWAYS {
                        let via = format!("via {} ", gateway.in_core(family).addr);
                        ensure!(told.contains(&via), "no {via}in: {told}");
                    }
                    let paths = told.matches("BGP.as_path:").count();
                    let ours = told.matches(&format!("BGP.as_path: {CLUSTER_AS}\n")).count();
                    ensure!(paths == GATEWAYS.len() && ours == paths, "other paths: {told}");
                    Ok(Some(()))
                })?;
            }
        }
        for gateway in &GATEWAYS {
            let (loopback, via) = (gateway.loopback(), format!("via {} ", gateway.in_core(Family::V4).addr));
            self.lab.wait(&format!("{loopback} in the core"), CONVERGE, || {
                let told = self.core.ask(&format!("show route {loopback}"))?;
                Ok((told.contains(&via) && told.matches("via ").count() == 1).then_some(()))
            })?;
        }
        let told = self.core.ask("show route where source = RTS_BGP")?;
        ensure!(!told.contains("10.1.0.0/24"), "nobody asked for the rack's network: {told}");
        self.lab.proved(
            "the core has each gateway's loopback from it alone, as a BGPFilter names it, and not the rack's network",
        );
        self.lab.proved(
            "the core has every node's blocks from both gateways, which are the next hops, by IPv4 and IPv6",
        );
        Ok(())
    }

    /// By ping and TCP both ways, with everything in the rack and in the core captured: to pods in VXLAN between a gateway and
    /// the node, back plainly. Returns which gateway carried what went to pods, by IPv4.
    fn pods_and_client_reach_each_other(&self, expected: Option<usize>) -> Result<usize> {
        let in_rack = Capture::start(
            self.lab,
            self.rack.namespace(),
            Fabric::BRIDGE,
            "udp port 4789 or net 198.51.100.0/24",
        )?;
        let in_core = Capture::start(self.lab, self.core_net.namespace(), Fabric::BRIDGE, "udp port 4789")?;
        let client: IpAddr = CLIENT[0].parse()?;
        for pod in &self.pods {
            for (family, client) in Family::ALL.into_iter().zip(CLIENT) {
                let (Ok(address), client) = (pod.address(family), client.parse()?) else { continue };
                traffic::reaches(self.lab, &self.client, address, FIRST_REPLY)?;
                traffic::answered(&self.client, address, 3)?;
                traffic::answered(&pod.namespace, client, 3)?;
                traffic::transfer(self.lab, &self.client, &pod.namespace, address, BYTES)?;
                traffic::transfer(self.lab, &pod.namespace, &self.client, client, BYTES)?;
            }
        }
        let (in_rack, in_core) = (in_rack.stop()?, in_core.stop()?);
        let vteps = [GATEWAYS[0].vtep()?, GATEWAYS[1].vtep()?, NODE.vtep()?, LINUX.vtep()?];
        let (mut inwards, mut outwards) = ([0; GATEWAYS.len()], 0);
        for frame in dissected::frames(&in_rack)? {
            if frame.source != client {
                // What a pod sends outside, or what a gateway or node says of a packet that it can't pass on.
                ensure!(frame.wrapping == Wrapping::Plain, "it should be plain: {frame:?}");
                outwards += 1;
                continue;
            }
            let node = vteps[GATEWAYS.len()..].iter().find(|vtep| vtep.block.contains(frame.destination));
            let node = node.with_context(|| format!("{} is nobody's", frame.destination))?;
            let Wrapping::Vxlan { outer, port: 4789, vni: 4096, macs } = &frame.wrapping else {
                anyhow::bail!("it should be in VXLAN 4096 to port 4789: {frame:?}");
            };
            let from = vteps[..GATEWAYS.len()].iter().position(|vtep| {
                *outer == Outer { source: vtep.outside, destination: node.outside }
                    && *macs == (vtep.mac(), node.mac())
            });
            inwards
                [from.with_context(|| format!("not between a gateway and {}: {frame:?}", node.node))?] += 1;
        }
        ensure!(in_core.lines()?.is_empty(), "there is VXLAN in the core");
        let used = usize::from(inwards[1] > inwards[0]);
        ensure!(inwards[used] > 1000 && inwards[1 - used] == 0 && outwards > 1000, "{inwards:?}, {outwards}");
        ensure!(expected.is_none_or(|expected| expected == used), "they went by {}", GATEWAYS[used].0);
        self.lab.proved(format!(
            "client and pods on Tortie and on Linux reach each other, with 1 MB of TCP each way: {} frames to pods, all in VXLAN \
             from {} to the pod's node; {outwards} back, all plain; tshark finds nothing wrong in any",
            inwards[used], GATEWAYS[used].0
        ));
        Ok(used)
    }

    /// A block that a node gets, and gives back, while all runs.
    fn blocks_come_and_go(&self) -> Result<()> {
        let block: Prefix = LATER.parse()?;
        let gateways_told = || -> Result<usize> {
            let told = self.core.ask(&format!("show route {block}"))?;
            let is_told =
                |gateway: &&Member| told.contains(&format!("via {} ", gateway.in_core(Family::V4).addr));
            Ok(GATEWAYS.iter().filter(is_told).count())
        };
        self.resources.block(NODE.0, block)?;
        self.lab.wait("a block that is new in the core", CONVERGE, || {
            Ok((gateways_told()? == GATEWAYS.len()).then_some(()))
        })?;
        self.resources.remove("blockaffinity-node-a-10-244-99-0-26.yaml")?;
        self.lab.wait("a block that is gone to go from the core", CONVERGE, || {
            Ok((gateways_told().unwrap_or_default() == 0).then_some(()))
        })?;
        self.lab.proved(format!(
            "{block} comes to a node and goes again: both gateways announce it and take it back"
        ));
        Ok(())
    }

    /// The core and the nodes are told to leave the gateway that they use: the other one takes over, and the first comes back.
    fn a_gateway_is_drained(&self, used: usize) -> Result<()> {
        let sessions = Family::ALL.map(|family| {
            format!("Global_{}", GATEWAYS[used].in_core(family).addr.to_string().replace(['.', ':'], "_"))
        });
        for session in &sessions {
            self.core.ask(&format!("disable {session}"))?;
        }
        for namespace in [self.node.namespace(), &self.linux] {
            leave_by(namespace, &GATEWAYS[1 - used])?;
        }
        // BIRD answers before it has told its kernel.
        for (family, of) in Family::ALL.into_iter().zip(["-4", "-6"]) {
            let via = format!("via {} ", GATEWAYS[used].in_core(family).addr);
            self.lab.wait("the core to leave the gateway", CONVERGE, || {
                Ok((!self.core.namespace().ip(&format!("{of} route show"))?.contains(&via)).then_some(()))
            })?;
        }
        self.pods_and_client_reach_each_other(Some(1 - used))?;
        for session in &sessions {
            self.core.ask(&format!("enable {session}"))?;
        }
        self.lab.wait("the gateway to be back", CONVERGE, || self.gateways[used].established(2).map(Some))?;
        self.lab.proved(format!("{} was drained, and is back", GATEWAYS[used].0));
        Ok(())
    }

    /// `disableBGPExport`: the core forgets the pool's blocks, and nodes still reach each other's.
    fn a_pool_is_kept_back(&self) -> Result<()> {
        let (pool, block_size) = POOLS[0];
        self.resources.write(
            "ippool-pool-0.yaml",
            &format!(
                "apiVersion: projectcalico.org/v3\nkind: IPPool\nmetadata: {{name: pool-0}}\nspec: {{cidr: {pool}, \
                 blockSize: {block_size}, ipipMode: Never, vxlanMode: Always, natOutgoing: false, nodeSelector: all(), \
                 disableBGPExport: true}}\n"
            ),
        )?;
        self.lab.wait("the pool to go from the core", CONVERGE, || {
            let told = self.core.ask("show route where source = RTS_BGP")?;
            ensure!(!told.contains("10.244."), "the core has {told}");
            let block = NODE.block(Family::V6)?;
            ensure!(told.contains(&block.to_string()), "and no {block}: {told}");
            Ok(Some(()))
        })?;
        let [pod_a, pod_b] = &self.pods;
        let address = pod_b.address(Family::V4)?;
        traffic::reaches(self.lab, &pod_a.namespace, address, FIRST_REPLY)?;
        traffic::answered(&pod_a.namespace, address, 3)?;
        self.lab.proved(
            "a pool with disableBGPExport goes from the core, the other one stays, and pods reach each other",
        );
        Ok(())
    }
}

/// A node's way out: what its pods send outside goes there.
fn leave_by(namespace: &Namespace, gateway: &Member) -> Result<()> {
    Family::ALL.into_iter().try_for_each(|family| {
        let of = if family == Family::V6 { "-6 " } else { "" };
        let via = gateway.in_rack(family).addr;
        namespace.ip(&format!("{of}route replace default via {via} dev eth0")).map(drop)
    })
}

/// A namespace in the rack.
fn join(lab: &Lab, rack: &Fabric, member: &Member) -> Result<Namespace> {
    let namespace = lab.namespace(member.0)?;
    namespace.forward()?;
    rack.attach(&namespace, "eth0")?;
    link::transmit_checksums_by_software(&namespace, "eth0")?;
    for family in Family::ALL {
        link::add_address(&namespace, "eth0", member.in_rack(family))?;
    }
    Ok(namespace)
}

fn write_node(resources: &Resources, member: &Member) -> Result<()> {
    let role = if GATEWAYS.iter().any(|gateway| gateway.0 == member.0) { "gateway" } else { "node" };
    let spec = format!(
        "  bgp:\n    ipv4Address: {}\n    ipv6Address: \"{}\"\n  ipv4VXLANTunnelAddr: {}\n  ipv6VXLANTunnelAddr: \"{}\"\n",
        member.in_rack(Family::V4),
        member.in_rack(Family::V6),
        member.block(Family::V4)?.addr(),
        member.block(Family::V6)?.addr()
    );
    resources.labelled_node(member.0, &format!("{{role: {role}}}"), &spec)?;
    Family::ALL.into_iter().try_for_each(|family| resources.block(member.0, member.block(family)?))
}

/// A router that knows no VXLAN, between the gateways and the client.
fn raise_core(lab: &Lab, core_net: &Fabric, outside: &Fabric, client: &Namespace) -> Result<Bird> {
    let namespace = lab.namespace("core")?;
    namespace.forward()?;
    core_net.attach(&namespace, "eth0")?;
    outside.attach(&namespace, "eth1")?;
    let mut sessions = Vec::new();
    for (index, family) in Family::ALL.into_iter().enumerate() {
        let own = address(0, CORE, family);
        link::add_address(&namespace, "eth0", own)?;
        let network: Prefix = OUTSIDE[index].parse()?;
        let gateway = nth(network, 1);
        link::add_address(&namespace, "eth1", InterfaceAddr { addr: gateway, len: network.len() })?;
        link::add_address(
            client,
            "eth0",
            InterfaceAddr { addr: CLIENT[index].parse()?, len: network.len() },
        )?;
        let of = if family == Family::V6 { "-6 " } else { "" };
        client.ip(&format!("{of}route add default via {gateway} dev eth0"))?;
        for member in &GATEWAYS {
            let (own, other) = ((own.addr, CORE_AS), (member.in_core(family).addr, CLUSTER_AS));
            sessions.push(Session::direct(own, other, &format!("where net = {network}")));
        }
    }
    let router =
        PlainRouter { router_id: [10, 0, 0, CORE].into(), routes: Vec::new(), kernel: true, sessions };
    Bird::start(lab, &namespace, &router.render())
}

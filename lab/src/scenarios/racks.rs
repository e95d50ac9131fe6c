//! Racks with a ToR each, ToRs in a mesh over a core: an AS per rack, an AS per server, and a default route alone downwards.
//!
//! ```text
//!   node-a  node-b        node-c
//!       rack1               rack2
//!         tor1              tor2          tor1 is Tortie, tor2 is BIRD with the kernel
//!             ─── core ───                downward-default has a router in the core, too
//! ```

use std::net::{IpAddr, Ipv4Addr};

use anyhow::{Context, Result, ensure};
use model::{Family, InterfaceAddr, Prefix};

use crate::bird::{Bird, PlainRouter, Session};
use crate::cluster::{CONVERGE, nth};
use crate::link::{self, Fabric};
use crate::netns::Namespace;
use crate::resources::Resources;
use crate::scenario::{Options, Scenario, Store};
use crate::tortie::{Settings, ShowRoute, ShowRoutes, TortieNode};
use crate::workload::Workload;
use crate::{Lab, books, traffic};

const PROGRAMS: &[&str] = &["bird", "birdc", "ping", "ethtool"];

/// RFC 4271 inside racks, eBGP between them.
pub(super) const AS_PER_RACK: Scenario = Scenario {
    name: "as-per-rack",
    about: "iBGP from nodes to their ToR, which reflects, eBGP between the ToRs, one of them BIRD",
    programs: PROGRAMS,
    tortie: true,
    alone: false,
    store: Store::Either,
    run: |lab, _: &Options| run(lab, Design::AsPerRack),
};

/// RFC 7938.
pub(super) const AS_PER_SERVER: Scenario = Scenario {
    name: "as-per-server",
    about: "an AS for each node and each ToR, of four octets; the ToR takes its rack in without naming it",
    programs: PROGRAMS,
    tortie: true,
    alone: false,
    store: Store::Either,
    run: |lab, _: &Options| run(lab, Design::AsPerServer),
};

/// The same with as few routes as can be.
pub(super) const DOWNWARD_DEFAULT: Scenario = Scenario {
    name: "downward-default",
    about: "only a default route comes down: nodes keep their own routes and one more, what nobody has dies at the core",
    programs: PROGRAMS,
    tortie: true,
    alone: false,
    store: Store::Either,
    run: |lab, _: &Options| run(lab, Design::DownwardDefault),
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Design {
    AsPerRack,
    AsPerServer,
    DownwardDefault,
}

/// Nodes by name, rack and host number.
const NODES: [(&str, u8, u8); 3] = [("node-a", 1, 1), ("node-b", 1, 2), ("node-c", 2, 1)];
const RACKS: [u8; 2] = [1, 2];
/// The core is a network like the racks', in which ToRs have their racks' numbers.
const CORE: u8 = 0;
const TOR: u8 = 254;
const CORE_ROUTER: u8 = 253;
const POOLS: [(&str, u8); 2] = [("10.244.0.0/16", 26), ("fd65:244::/48", 122)];
/// Addresses of the pools that nobody has.
const NOBODY: [&str; 2] = ["10.244.250.1", "fd65:244:0:250::1"];
const CORE_AS: u32 = 4_200_002_000;
/// Requests to nobody.
const TO_NOBODY: u32 = 3;

impl Design {
    fn as_of_tor(self, rack: u8) -> u32 {
        match self {
            Design::AsPerRack => 65100 + u32::from(rack),
            Design::AsPerServer | Design::DownwardDefault => 4_200_001_000 + u32::from(rack),
        }
    }

    fn as_of_node(self, rack: u8, host: u8) -> u32 {
        match self {
            Design::AsPerRack => self.as_of_tor(rack),
            Design::AsPerServer | Design::DownwardDefault => {
                4_200_000_000 + u32::from(rack) * 100 + u32::from(host)
            }
        }
    }

    /// What tor1 is told besides its resources.
    fn tor_settings(self) -> String {
        let downwards = match self {
            Design::AsPerRack => return String::new(),
            Design::AsPerServer => "",
            Design::DownwardDefault => ", default_route: only",
        };
        let accept = "accept: [\"4200000100-4200000199\"], limit: 2";
        format!(
            "bgp:\n  peers:\n  - {{ range: 10.1.0.0/24, {accept}{downwards} }}\n  \
             - {{ range: \"fd00:1::/64\", {accept}{downwards} }}\n"
        )
    }
}

fn address(network: u8, host: u8, family: Family) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::new(10, network, 0, host).into(),
        Family::V6 => IpAddr::V6([0xfd00, u16::from(network), 0, 0, 0, 0, 0, u16::from(host)].into()),
    }
}

fn cidr(network: u8, host: u8, family: Family) -> InterfaceAddr {
    let len = if family == Family::V6 { 64 } else { 24 };
    InterfaceAddr { addr: address(network, host, family), len }
}

fn block(rack: u8, host: u8, family: Family) -> Result<Prefix> {
    let text = match family {
        Family::V4 => format!("10.244.{}.0/26", rack * 10 + host),
        Family::V6 => format!("fd65:244:0:{rack}{host}::/122"),
    };
    text.parse().with_context(|| text.clone())
}

struct Site<'lab> {
    lab: &'lab Lab,
    design: Design,
    fabrics: Vec<Fabric>,
    resources: Resources,
    nodes: Vec<TortieNode>,
    workloads: Vec<Workload>,
    tor: TortieNode,
    birds: Vec<Bird>,
}

fn run(lab: &Lab, design: Design) -> Result<()> {
    let mut site = Site::raise(lab, design)?;
    site.tor.start(lab)?;
    for node in &site.nodes {
        node.start(lab)?;
    }
    site.start_birds()?;
    site.sessions_stand()?;
    match design {
        Design::AsPerRack => site.blocks_are_known()?,
        Design::AsPerServer => {
            site.blocks_are_known()?;
            site.paths_name_every_as()?;
        }
        Design::DownwardDefault => {
            site.the_core_knows_every_block()?;
            site.nodes_have_one_route_more()?;
        }
    }
    site.everybody_reaches_everybody()?;
    if design == Design::DownwardDefault {
        site.unknown_destinations_die_at_the_core()?;
    }
    for tortie in site.nodes.iter().chain([&site.tor]) {
        tortie.must_run()?;
        lab.proved(books::line(tortie.name(), &books::settled(lab, tortie)?));
    }
    Ok(())
}

impl<'lab> Site<'lab> {
    fn raise(lab: &'lab Lab, design: Design) -> Result<Site<'lab>> {
        lab.step("raising two racks");
        let fabrics = ["core", "rack1", "rack2"].map(|name| Fabric::raise(lab, name));
        let fabrics = fabrics.into_iter().collect::<Result<Vec<_>>>()?;
        let resources = Resources::create(lab.directory().join("resources"))?;
        resources.bgp_configuration(false, design.as_of_tor(1))?;
        for (index, (pool, block_size)) in POOLS.iter().enumerate() {
            resources.plain_pool(&format!("pool-{index}"), pool.parse()?, *block_size)?;
        }
        let (mut nodes, mut workloads) = (Vec::new(), Vec::new());
        for (name, rack, host) in NODES {
            let namespace = lab.namespace(name)?;
            namespace.forward()?;
            attach(&fabrics, &namespace, "eth0", rack, host)?;
            write_node(&resources, name, [rack, host], design.as_of_node(rack, host), "")?;
            let mut addresses = Vec::new();
            for family in Family::ALL {
                if design == Design::AsPerRack {
                    // Next hops in the core are the ToR's to find.
                    let tor = address(rack, TOR, family);
                    namespace.ip(&format!("route add default via {tor} dev eth0"))?;
                }
                let block = block(rack, host, family)?;
                resources.block(name, block)?;
                addresses.push(nth(block, 1));
            }
            workloads.push(Workload::raise(lab, &resources, &namespace, &format!("{name}-w"), &addresses)?);
            nodes.push(TortieNode::configure(lab, &namespace, resources.directory(), &Settings::default())?);
        }
        let tor = lab.namespace("tor1")?;
        tor.forward()?;
        attach(&fabrics, &tor, "eth0", 1, TOR)?;
        attach(&fabrics, &tor, "eth1", CORE, 1)?;
        let reflects =
            if design == Design::AsPerRack { "    routeReflectorClusterID: 1.0.0.1\n" } else { "" };
        write_node(&resources, "tor1", [1, TOR], design.as_of_tor(1), reflects)?;
        let settings = Settings {
            uplinks: vec!["eth0".to_owned(), "eth1".to_owned()],
            more: design.tor_settings(),
            ..Settings::default()
        };
        let tor = TortieNode::configure(lab, &tor, resources.directory(), &settings)?;
        let site = Site { lab, design, fabrics, resources, nodes, workloads, tor, birds: Vec::new() };
        site.write_peers()?;
        Ok(site)
    }

    /// Nodes with their ToR; tor1 with tor2, or with the core.
    fn write_peers(&self) -> Result<()> {
        for family in Family::ALL {
            let of = if family == Family::V4 { "v4" } else { "v6" };
            for rack in RACKS {
                // Where the ToR takes in who comes, it needs nothing written down.
                let reverse = if self.design == Design::AsPerRack { "Auto" } else { "Manual" };
                let spec = format!(
                    "  nodeSelector: \"rack == '{rack}' && role == 'node'\"\n  peerIP: \"{}\"\n  asNumber: {}\n  reversePeering: {reverse}\n",
                    address(rack, TOR, family),
                    self.design.as_of_tor(rack)
                );
                self.resources.bgp_peer_of(&format!("rack{rack}-{of}"), &spec)?;
            }
            let (up, number) = match self.design {
                Design::DownwardDefault => (CORE_ROUTER, CORE_AS),
                Design::AsPerRack | Design::AsPerServer => (2, self.design.as_of_tor(2)),
            };
            // The address in the core isn't the node's own one, so TCP takes its source from the route.
            let spec = format!(
                "  node: tor1\n  peerIP: \"{}\"\n  asNumber: {number}\n  sourceAddress: None\n  nextHopMode: Self\n",
                address(CORE, up, family)
            );
            self.resources.bgp_peer_of(&format!("core-{of}"), &spec)?;
        }
        Ok(())
    }

    fn start_birds(&mut self) -> Result<()> {
        let design = self.design;
        let session = |network, own, own_as, other, other_as, family, export: &str| {
            Session::direct(
                (address(network, own, family), own_as),
                (address(network, other, family), other_as),
                export,
            )
        };
        let all_to_the_core = design == Design::DownwardDefault;
        let tor_as = design.as_of_tor(2);
        let (mut tor, mut core) = (Vec::new(), Vec::new());
        for family in Family::ALL {
            let default = if family == Family::V4 { "0.0.0.0/0" } else { "::/0" };
            let down = if all_to_the_core { format!("where net = {default}") } else { "all".to_owned() };
            for (_, rack, host) in NODES.into_iter().filter(|(_, rack, _)| *rack == 2) {
                tor.push(session(rack, TOR, tor_as, host, design.as_of_node(rack, host), family, &down));
            }
            let up = if all_to_the_core { (CORE_ROUTER, CORE_AS) } else { (1, design.as_of_tor(1)) };
            let pools = POOLS.map(|(pool, _)| pool)[usize::from(family == Family::V6)];
            tor.push(session(CORE, 2, tor_as, up.0, up.1, family, &format!("where net ~ {pools}")));
            for rack in RACKS {
                let number = design.as_of_tor(rack);
                core.push(session(CORE, CORE_ROUTER, CORE_AS, rack, number, family, "filter own"));
            }
        }
        let namespace = self.router("tor2", &[(2, TOR), (CORE, 2)])?;
        self.start_bird(&namespace, [10, 2, 0, 254], Vec::new(), tor)?;
        if all_to_the_core {
            let namespace = self.router("core-router", &[(CORE, CORE_ROUTER)])?;
            let routes = ["0.0.0.0/0 unreachable", "::/0 unreachable"].map(str::to_owned).to_vec();
            self.start_bird(&namespace, [10, 0, 0, 253], routes, core)?;
        }
        Ok(())
    }

    fn router(&self, name: &str, places: &[(u8, u8)]) -> Result<Namespace> {
        let namespace = self.lab.namespace(name)?;
        namespace.forward()?;
        for (index, (network, host)) in places.iter().enumerate() {
            attach(&self.fabrics, &namespace, &format!("eth{index}"), *network, *host)?;
        }
        Ok(namespace)
    }

    fn start_bird(
        &mut self,
        namespace: &Namespace,
        router_id: [u8; 4],
        routes: Vec<String>,
        sessions: Vec<Session>,
    ) -> Result<()> {
        let router = PlainRouter { router_id: router_id.into(), routes, kernel: true, sessions };
        self.birds.push(Bird::start(self.lab, namespace, &router.render())?);
        Ok(())
    }

    fn sessions_stand(&self) -> Result<()> {
        for node in &self.nodes {
            let what = format!("the sessions of {}", node.name());
            self.lab.wait(&what, CONVERGE, || node.established(2).map(Some))?;
        }
        let peers = self.lab.wait("the sessions of tor1", CONVERGE, || self.tor.established(6).map(Some))?;
        for bird in &self.birds {
            let what = format!("the sessions of {}", bird.namespace().name());
            self.lab.wait(&what, CONVERGE, || bird.established(4).map(Some))?;
        }
        let dynamic = peers.iter().filter(|peer| peer.kind == "dynamic").count();
        let expected = if self.design == Design::AsPerRack { 0 } else { 4 };
        ensure!(dynamic == expected, "tor1 has taken in {dynamic} neighbours, not {expected}: {peers:?}");
        self.lab.proved(format!(
            "every session stands; of tor1's {} {dynamic} are with neighbours that it took in by their AS",
            peers.len()
        ));
        Ok(())
    }

    /// Every node has the others' blocks from BGP.
    fn blocks_are_known(&self) -> Result<()> {
        for (node, (name, ..)) in self.nodes.iter().zip(NODES) {
            for (other, rack, host) in NODES.into_iter().filter(|(other, ..)| *other != name) {
                for family in Family::ALL {
                    let block = block(rack, host, family)?;
                    self.lab.wait(&format!("{other}'s {block} on {name}"), CONVERGE, || {
                        let route: ShowRoute = node.show(&format!("route {}", nth(block, 1)))?;
                        let is_it = route.prefix == Some(block.to_string())
                            && route.source.as_deref() == Some("bgp")
                            && route.nexthops.iter().any(|hop| hop.mac.is_some());
                        Ok(is_it.then_some(()))
                    })?;
                }
            }
        }
        self.lab.proved("every node has every other node's blocks from BGP, resolved");
        Ok(())
    }

    /// In BIRD, which is the third AS on the way from node-a.
    fn paths_name_every_as(&self) -> Result<()> {
        let (tor2, path) = (&self.birds[0], [self.design.as_of_tor(1), self.design.as_of_node(1, 1)]);
        let wanted = format!("BGP.as_path: {} {}", path[0], path[1]);
        for family in Family::ALL {
            let block = block(1, 1, family)?;
            let told = tor2.ask(&format!("show route {block} all"))?;
            ensure!(told.lines().any(|line| line.trim() == wanted), "not {wanted}: {told}");
        }
        self.lab.proved(format!("tor2 has node-a's blocks with the path {} {}", path[0], path[1]));
        Ok(())
    }

    fn the_core_knows_every_block(&self) -> Result<()> {
        let core = &self.birds[1];
        for (name, rack, host) in NODES {
            for family in Family::ALL {
                let (block, tor) = (block(rack, host, family)?, address(CORE, rack, family));
                self.lab.wait(&format!("{name}'s {block} in the core"), CONVERGE, || {
                    let told = core.ask(&format!("show route {block}"))?;
                    Ok(told.contains(&format!("via {tor}")).then_some(()))
                })?;
            }
        }
        self.lab.proved("the core knows every node's blocks, each by its ToR");
        Ok(())
    }

    /// A node's table: its own routes, and a default route from its ToR.
    fn nodes_have_one_route_more(&self) -> Result<()> {
        for (node, (name, rack, _)) in self.nodes.iter().zip(NODES) {
            for family in Family::ALL {
                let tor = address(rack, TOR, family);
                self.lab.wait(&format!("{name}'s default route"), CONVERGE, || {
                    let routes: ShowRoutes = node.show("routes --source bgp")?;
                    let of_family = |prefix: &str| prefix.contains(':') == (family == Family::V6);
                    let routes: Vec<_> =
                        routes.routes.iter().filter(|route| of_family(&route.prefix)).collect();
                    let [route] = routes.as_slice() else {
                        ensure!(routes.is_empty(), "{name} has {} routes from BGP: {routes:?}", routes.len());
                        return Ok(None);
                    };
                    let leads_up = route.nexthops.iter().all(|hop| hop.via == Some(tor));
                    ensure!(route.prefix.ends_with("/0") && leads_up, "{name} has {route:?}");
                    Ok(Some(()))
                })?;
            }
        }
        self.lab
            .proved("every node has its own routes and one more of each family: a default route by its ToR");
        Ok(())
    }

    fn everybody_reaches_everybody(&self) -> Result<()> {
        let mut pairs = 0;
        for from in &self.workloads {
            for to in self.workloads.iter().filter(|to| to.name() != from.name()) {
                for family in Family::ALL {
                    let address = to.address(family)?;
                    traffic::reaches(self.lab, &from.namespace, address, CONVERGE)?;
                    traffic::answered(&from.namespace, address, 3)?;
                    pairs += 1;
                }
            }
        }
        self.lab.proved(format!("{pairs} ways between workloads, within and between racks: no ping lost"));
        Ok(())
    }

    /// The core says so itself; on the way there nobody stopped the packets.
    fn unknown_destinations_die_at_the_core(&self) -> Result<()> {
        for (family, nobody) in Family::ALL.into_iter().zip(NOBODY) {
            let mut ping = self.workloads[0].namespace.command("ping");
            // Until the first error.
            ping.args(["-n", "-c", &TO_NOBODY.to_string(), "-i", "0.3", "-w", "15", nobody]);
            let output = crate::command::output(&mut ping, std::time::Duration::from_secs(30))?;
            let said = String::from_utf8_lossy(&output.stdout);
            let core = address(CORE, CORE_ROUTER, family);
            ensure!(
                said.contains(&format!("From {core}")) && said.contains(" 0 received"),
                "{nobody} is nobody's, and ping says: {said}"
            );
        }
        self.lab.proved("a packet to an address that nobody has travels to the core, which says unreachable");
        Ok(())
    }
}

fn attach(fabrics: &[Fabric], namespace: &Namespace, interface: &str, network: u8, host: u8) -> Result<()> {
    fabrics[usize::from(network)].attach(namespace, interface)?;
    link::transmit_checksums_by_software(namespace, interface)?;
    for family in Family::ALL {
        link::add_address(namespace, interface, cidr(network, host, family))?;
    }
    Ok(())
}

fn write_node(
    resources: &Resources,
    name: &str,
    [rack, host]: [u8; 2],
    as_number: u32,
    more: &str,
) -> Result<()> {
    let role = if host == TOR { "tor" } else { "node" };
    let [v4, v6] = Family::ALL.map(|family| cidr(rack, host, family));
    let spec =
        format!("  bgp:\n    asNumber: {as_number}\n    ipv4Address: {v4}\n    ipv6Address: {v6}\n{more}");
    resources.labelled_node(name, &format!("{{rack: \"{rack}\", role: {role}}}"), &spec)
}

//! A workload that is a router: it speaks BGP with its node, at an address that every node has for that, and what is behind it
//! is reached from outside.
//!
//! ```text
//!  router   10.65.0.1, BIRD AS 65200, 10.70.0.0/24 behind it ──┐
//!  stranger 10.65.0.2, BIRD likewise, but not selected       ──┴─ node (Tortie) AS 64512 ── tor (BIRD) AS 65001
//!                        both connect to 10.64.0.1, AS 64999
//! ```

use std::net::IpAddr;

use anyhow::{Context, Result, ensure};
use model::{Family, Prefix};

use super::bgp_resources::{TIMERS, Table, preamble, read_bird, route};
use crate::bird::Bird;
use crate::cluster::CONVERGE;
use crate::link::{Fabric, add_address};
use crate::netns::Namespace;
use crate::resources::Resources;
use crate::scenario::{Options, Scenario, Store};
use crate::tortie::{Settings, ShowBgp, TortieNode};
use crate::workload::Workload;
use crate::{Lab, books, traffic};

/// `localWorkloadSelector`.
pub(super) const WORKLOAD_PEERS: Scenario = Scenario {
    name: "workload-peers",
    about: "a BIRD in a workload peers with its node at localWorkloadPeeringIPV4/V6; what is behind it is reached from the ToR",
    programs: &["bird", "birdc", "ping", "ethtool"],
    tortie: true,
    alone: false,
    store: Store::Either,
    run,
};

const NODE: [&str; 2] = ["10.9.0.1", "fd09::1"];
const NODE_AS: u32 = 64512;
const TOR: [&str; 2] = ["10.9.0.2", "fd09::2"];
const TOR_AS: u32 = 65001;
/// What the ToR announces.
const OF_TOR: [&str; 2] = ["10.88.0.0/24", "fd88::/64"];
const BLOCKS: [&str; 2] = ["10.65.0.0/26", "fd65::/122"];
/// Where workloads find their node's speaker, and which AS it is to them.
const PEERING: [&str; 2] = ["10.64.0.1", "fd64::1"];
const TO_WORKLOADS_AS: u32 = 64999;
const WORKLOADS_AS: u32 = 65200;
const ROUTER: [&str; 2] = ["10.65.0.1", "fd65::1"];
const STRANGER: [&str; 2] = ["10.65.0.2", "fd65::2"];
/// What is behind a workload, and an address there.
const BEHIND: [(&str, &str); 2] = [("10.70.0.0/24", "10.70.0.1"), ("fd70::/64", "fd70::1")];
const ALLOW: &str = "[projectcalico-default-allow]";

fn run(lab: &Lab, _: &Options) -> Result<()> {
    let site = Site::raise(lab)?;
    site.the_selected_one_has_its_sessions("router", &site.router, ROUTER)?;
    for (number, (prefix, address)) in BEHIND.into_iter().enumerate() {
        let address: IpAddr = address.parse()?;
        traffic::reaches(lab, site.tor.namespace(), address, CONVERGE)?;
        traffic::answered(site.tor.namespace(), address, 3)?;
        // By the kernel's mirror, as all that the node itself sends.
        traffic::reaches(lab, site.node.namespace(), address, CONVERGE)?;
        lab.proved(format!(
            "the ToR has {prefix} by way of {}, and {address} answers it, and the node itself",
            NODE[number]
        ));
    }
    site.another_one_is_selected()?;
    site.without_leave_to_spoof_they_are_nobody()?;
    site.node.must_run()?;
    lab.proved(books::line("node", &books::settled(lab, &site.node)?));
    Ok(())
}

struct Site<'lab> {
    lab: &'lab Lab,
    node: TortieNode,
    resources: Resources,
    tor: Bird,
    router: Bird,
    stranger: Bird,
    _workloads: [Workload; 2],
}

impl<'lab> Site<'lab> {
    fn raise(lab: &'lab Lab) -> Result<Site<'lab>> {
        lab.step("raising a node with routers among its workloads, and a ToR");
        let fabric = Fabric::raise(lab, "fabric")?;
        let host = |name: &str, [four, six]: [&str; 2]| -> Result<Namespace> {
            let namespace = fabric.host(lab, name, &[&format!("{four}/24"), &format!("{six}/64")])?;
            namespace.forward()?;
            Ok(namespace)
        };
        let (near, far) = (host("node", NODE)?, host("tor", TOR)?);
        let resources = resources(lab)?;
        let workload = |name: &str, addresses: [&str; 2], labels: &str| -> Result<Workload> {
            let addresses = [addresses[0].parse()?, addresses[1].parse()?];
            let workload = Workload::raise(lab, &resources, &near, name, &addresses)?;
            for (_, address) in BEHIND {
                let address = Prefix::host(address.parse()?).to_string();
                add_address(&workload.namespace, "lo", address.parse()?)?;
            }
            select(&resources, name, labels)?;
            // What is behind it answers under addresses that aren't its own.
            let file = workload.endpoint_file();
            let text = crate::wait::read(&resources.directory().join(&file))?;
            let behind = BEHIND.map(|(prefix, _)| format!("\"{prefix}\"")).join(", ");
            resources.write(&file, &format!("{text}  allowSpoofedSourcePrefixes: [{behind}]\n"))?;
            Ok(workload)
        };
        let workloads =
            [workload("router", ROUTER, "{role: router}")?, workload("stranger", STRANGER, "{}")?];
        let bird = |workload: &Workload, own: [&str; 2]| {
            let static_only = "where source = RTS_STATIC";
            let ends = (own, WORKLOADS_AS, PEERING, TO_WORKLOADS_AS);
            Bird::start(
                lab,
                &workload.namespace,
                &configuration(ends, BEHIND.map(|(prefix, _)| prefix), static_only),
            )
        };
        let (router, stranger) = (bird(&workloads[0], ROUTER)?, bird(&workloads[1], STRANGER)?);
        let kernel = ["ipv4", "ipv6"].map(|channel| {
            format!("protocol kernel {{ {channel} {{ import none; export where source = RTS_BGP; }}; }}\n")
        });
        let tor = configuration((TOR, TOR_AS, NODE, NODE_AS), OF_TOR, "where source = RTS_STATIC")
            + &kernel.concat();
        let tor = Bird::start(lab, &far, &tor)?;
        let node = TortieNode::configure(lab, &near, resources.directory(), &Settings::default())?;
        node.start(lab)?;
        Ok(Site { lab, node, resources, tor, router, stranger, _workloads: workloads })
    }

    /// Both families' sessions with it stand, the other one has none; tables are those that they should be, there and at the ToR.
    fn the_selected_one_has_its_sessions(&self, name: &str, bird: &Bird, own: [&str; 2]) -> Result<()> {
        let others = [ROUTER, STRANGER].into_iter().flatten().filter(|address| !own.contains(address));
        let others: Vec<IpAddr> = others.map(str::parse).collect::<Result<_, _>>()?;
        self.lab.wait(&format!("the sessions with {name}"), CONVERGE, || {
            bird.established(2)?;
            let peers = self.node.show::<ShowBgp>("bgp")?.peers;
            for address in own {
                let address: IpAddr = address.parse()?;
                let peer = peers.iter().find(|peer| peer.address == address);
                let peer = peer.with_context(|| format!("no session with {address}"))?;
                ensure!(peer.up && peer.asn == WORKLOADS_AS, "{peer:?}");
            }
            let uninvited = peers.iter().find(|peer| others.contains(&peer.address));
            ensure!(uninvited.is_none(), "nobody selected {uninvited:?}");
            Ok(Some(()))
        })?;
        let mut at_workload = Table::new();
        let mut at_tor = Table::new();
        for number in 0..Family::ALL.len() {
            let (peering, node) = (PEERING[number], NODE[number]);
            at_workload.extend([
                route(BLOCKS[number], &format!("{TO_WORKLOADS_AS}"), peering, &[]),
                route(OF_TOR[number], &format!("{TO_WORKLOADS_AS} {TOR_AS}"), peering, &[]),
            ]);
            at_tor.extend([
                route(BLOCKS[number], &format!("{NODE_AS}"), node, &[]),
                route(BEHIND[number].0, &format!("{NODE_AS} {WORKLOADS_AS}"), node, &["64512:70"]),
            ]);
        }
        for (what, bird, wanted) in [(name, bird, &at_workload), ("the ToR", &self.tor, &at_tor)] {
            self.lab.wait(&format!("{what}'s table"), CONVERGE, || {
                let mut has = Table::new();
                for protocol in ["tortie4", "tortie6"] {
                    has.extend(read_bird(&bird.ask(&format!("show route all protocol {protocol}"))?, false));
                }
                ensure!(has == *wanted, "it has {has:?}, not {wanted:?}");
                Ok(Some(()))
            })?;
        }
        self.lab.proved(format!(
            "{name} has both sessions at {} and {}, with AS {TO_WORKLOADS_AS}, the blocks and what the ToR told; the ToR has what is \
             behind {name}; the other workload has no session",
            PEERING[0], PEERING[1]
        ));
        Ok(())
    }

    /// The labels say who it is.
    fn another_one_is_selected(&self) -> Result<()> {
        self.lab.step("selecting the other workload");
        select(&self.resources, "router", "{}")?;
        select(&self.resources, "stranger", "{role: router}")?;
        self.lab.wait("the end of the first one's sessions", CONVERGE, || {
            let text = self.router.ask("show protocols")?;
            ensure!(!text.contains("Established"), "{text}");
            Ok(Some(()))
        })?;
        self.the_selected_one_has_its_sessions("stranger", &self.stranger, STRANGER)
    }

    /// As with Felix, the endpoints that ask for more sources than their own addresses are there no more.
    fn without_leave_to_spoof_they_are_nobody(&self) -> Result<()> {
        self.lab.step("no leave to send under addresses of others");
        let own: IpAddr = STRANGER[0].parse()?;
        traffic::reaches(self.lab, self.node.namespace(), own, CONVERGE)?;
        self.resources.felix("workloadSourceSpoofing: Disabled")?;
        self.lab.wait("the end of the other one's sessions, and of its address", CONVERGE, || {
            // The workload isn't told: its interface is nobody's.
            let peers = self.node.show::<ShowBgp>("bgp")?.peers;
            ensure!(
                !peers.iter().any(|peer| STRANGER.contains(&peer.address.to_string().as_str())),
                "{peers:?}"
            );
            ensure!(traffic::answered(self.node.namespace(), own, 1).is_err(), "{own} still answers");
            Ok(Some(()))
        })?;
        self.resources.felix("workloadSourceSpoofing: Any")?;
        self.the_selected_one_has_its_sessions("stranger", &self.stranger, STRANGER)?;
        self.lab.proved("without workloadSourceSpoofing: Any, workloads that ask for it have neither sessions nor addresses");
        Ok(())
    }
}

/// Gives a workload these labels.
fn select(resources: &Resources, workload: &str, labels: &str) -> Result<()> {
    resources.endpoint_policy("node", workload, labels, ALLOW)
}

fn resources(lab: &Lab) -> Result<Resources> {
    let resources = Resources::create(lab.directory().join("resources"))?;
    resources.felix("workloadSourceSpoofing: Any")?;
    resources.write(
        "bgpconfiguration-default.yaml",
        &format!(
            "apiVersion: projectcalico.org/v3\nkind: BGPConfiguration\nmetadata: {{name: default}}\n\
             spec: {{nodeToNodeMeshEnabled: false, asNumber: {NODE_AS}, localWorkloadPeeringIPV4: {}, \
             localWorkloadPeeringIPV6: \"{}\"}}\n",
            PEERING[0], PEERING[1]
        ),
    )?;
    resources.plain_pool("pool-0", "10.65.0.0/16".parse()?, 26)?;
    resources.plain_pool("pool-1", "fd65::/48".parse()?, 122)?;
    let [four, six] = NODE;
    resources.node("node", Some(format!("{four}/24").parse()?), Some(format!("{six}/64").parse()?))?;
    for block in BLOCKS {
        resources.block("node", block.parse()?)?;
    }
    // Of what a workload tells, its own networks alone; everybody is told what the others are.
    let text = format!(
        "apiVersion: projectcalico.org/v3\nkind: BGPFilter\nmetadata: {{name: of-workloads}}\nspec:\n  \
         importV4:\n  - {{action: Accept, cidr: {}, matchOperator: Equal, operations: [{{addCommunity: {{value: \"64512:70\"}}}}]}}\n  \
         - {{action: Reject}}\n  \
         importV6:\n  - {{action: Accept, cidr: \"{}\", matchOperator: Equal, operations: [{{addCommunity: {{value: \"64512:70\"}}}}]}}\n  \
         - {{action: Reject}}\n",
        BEHIND[0].0, BEHIND[1].0
    );
    resources.write("bgpfilter-of-workloads.yaml", &text)?;
    resources.write(
        "bgpfilter-others.yaml",
        "apiVersion: projectcalico.org/v3\nkind: BGPFilter\nmetadata: {name: others}\nspec:\n  \
         exportV4: [{action: Accept, source: RemotePeers}]\n  exportV6: [{action: Accept, source: RemotePeers}]\n",
    )?;
    let spec = format!(
        "  localWorkloadSelector: \"role == 'router'\"\n  asNumber: {WORKLOADS_AS}\n  localASNumber: {TO_WORKLOADS_AS}\n  \
         filters: [of-workloads, others]\n"
    );
    resources.bgp_peer_of("workloads", &spec)?;
    for (number, tor) in TOR.iter().enumerate() {
        let spec = format!("  peerIP: \"{tor}\"\n  asNumber: {TOR_AS}\n  filters: [others]\n");
        resources.bgp_peer_of(&format!("tor-{number}"), &spec)?;
    }
    Ok(resources)
}

/// A BIRD with a session by each family: its own end, and the other one; what it announces, and to whom.
fn configuration(
    (own, own_as, other, other_as): ([&str; 2], u32, [&str; 2], u32),
    networks: [&str; 2],
    export: &str,
) -> String {
    let mut text = preamble(own[0]) + "protocol direct { ipv4; ipv6; }\n";
    for (number, channel) in ["ipv4", "ipv6"].into_iter().enumerate() {
        let version = channel.trim_start_matches("ipv");
        text.push_str(&format!(
            "protocol static static{version} {{ {channel}; route {} blackhole; }}\n\
             protocol bgp tortie{version} {{ local {} as {own_as}; neighbor {} as {other_as}; multihop; {TIMERS} \
             {channel} {{ import all; export {export}; }}; }}\n",
            networks[number], own[number], other[number]
        ));
    }
    text
}

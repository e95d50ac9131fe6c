//! What BGPConfiguration, BGPPeer and BGPFilter say of BGP, as the routers around a node have it in their own tables.
//!
//! ```text
//!                        ┌── leaf    BIRD 10.9.0.2  AS 65001   what it tells goes through an import filter
//!  node (Tortie)         ├── spine   FRR  10.9.0.3  AS 65002   as AS 64777, original next hops, an export filter
//!  10.9.0.1 AS 64512 ────┼── inner   BIRD 10.9.0.4  AS 64512   iBGP, next hop self, the same filter
//!  block 10.65.0.0/26    └── beyond  BIRD 10.9.0.5             at its loopback 172.20.0.9, by way of 10.9.0.5
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use anyhow::{Context, Result, ensure};
use model::Prefix;
use serde_json::Value;

use crate::Lab;
use crate::bird::Bird;
use crate::cluster::CONVERGE;
use crate::frr::{self, Frr};
use crate::link::{Fabric, add_address};
use crate::netns::Namespace;
use crate::resources::Resources;
use crate::scenario::{Options, Scenario, Store};
use crate::tortie::{Settings, ShowBgp, ShowRoute, ShowRoutes, TortieNode};

/// Calico's model of BGP, before BIRD and FRR.
pub(super) const BGP_RESOURCES: Scenario = Scenario {
    name: "bgp-resources",
    about: "communities, services, BGPFilters, AS numbers, next hops and ways to peers as resources have them, read at BIRD and FRR",
    programs: &["bird", "birdc", frr::PROGRAM, "ethtool"],
    tortie: true,
    alone: false,
    store: Store::Either,
    run,
};

const NODE: [&str; 2] = ["10.9.0.1", "fd09::1"];
const NODE_AS: u32 = 64512;
const LEAF: [&str; 2] = ["10.9.0.2", "fd09::2"];
const LEAF_AS: u32 = 65001;
const SPINE: [&str; 2] = ["10.9.0.3", "fd09::3"];
const SPINE_AS: u32 = 65002;
/// As whom the node speaks to the spine.
const TO_SPINE_AS: u32 = 64777;
const INNER: &str = "10.9.0.4";
const BEYOND_GATEWAY: &str = "10.9.0.5";
const BEYOND: &str = "172.20.0.9";
const BEYOND_AS: u32 = 65003;
/// How long the leaf shall keep routes, in seconds.
const RESTART_TIME: u32 = 77;
/// An address of the node's own that only a filter lets out, by its interface.
const LOOPBACK: &str = "172.31.0.1/32";
/// What another daemon has in the node's kernel, which it tells its peers: one that nobody else tells, and one that the leaf
/// tells, too.
const BY_ANOTHER_DAEMON: [&str; 2] = ["172.22.0.0/24", "172.16.0.0/24"];
/// What Calico makes of a kernel metric in LOCAL_PREF, and the metric of routes in no hurry.
const LOCAL_PREF_BASE: u32 = 2_147_483_647;
const NORMAL: u32 = LOCAL_PREF_BASE - 1024;

/// `serviceExternalIPs` is taken away later, and `STD` is another one then.
const CONFIGURATION: &str = "\
apiVersion: projectcalico.org/v3
kind: BGPConfiguration
metadata: {name: default}
spec:
  nodeToNodeMeshEnabled: false
  asNumber: 64512
  serviceClusterIPs: [{cidr: 10.96.0.0/16}, {cidr: \"fd96::/108\"}]
  serviceExternalIPs: [{cidr: 203.0.113.0/24}]
  serviceLoadBalancerIPs: [{cidr: 198.51.100.0/24}, {cidr: 192.0.2.7/32}]
  communities: [{name: std, value: \"STD\"}, {name: large, value: \"64512:100:200\"}]
  prefixAdvertisements:
  - {cidr: 10.65.0.0/16, communities: [std, \"65100:300\", \"64512:300:400\"]}
  - {cidr: 10.65.0.0/24, communities: [large]}
  - {cidr: 10.96.0.0/16, communities: [std]}
  - {cidr: \"fd65::/48\", communities: [\"65100:6\", large]}
";

/// What is taken from the leaf, and how it is changed.
const FROM_LEAF: &str = "
  importV4:
  - {action: Reject, communities: {values: [\"65001:1\"]}}
  - {action: Accept, communities: {values: [\"65001:2:2\"]}, operations: [{setPriority: {value: 512}}]}
  - {action: Accept, asPathPrefix: [65001, 65077], operations: [{addCommunity: {value: \"64512:77\"}}]}
  - {action: Reject, cidr: 172.16.0.0/16, matchOperator: In, prefixLength: {min: 25}}
  - {action: Accept, cidr: 172.17.0.0/16, matchOperator: Equal,
     operations: [{prependASPath: {prefix: [65099, 65098]}}, {addCommunity: {value: \"64512:1:17\"}}]}
  - {action: Reject, cidr: 172.17.0.0/16, matchOperator: In}
  - {action: Reject, cidr: 172.19.0.0/24, matchOperator: NotEqual, communities: {values: [\"65001:3\"]}}
  - {action: Reject, peerType: iBGP}
  - {action: Reject, cidr: 172.16.0.0/12, matchOperator: NotIn}
  importV6:
  - {action: Reject, cidr: \"2001:db8:2::/48\", matchOperator: Equal}
";

/// What spine and inner are told, and how it is changed.
const TO_OTHERS: &str = "
  exportV4:
  - {action: Accept, cidr: 10.65.0.0/26, matchOperator: Equal, peerType: eBGP,
     operations: [{addCommunity: {value: \"64512:1:2\"}}, {prependASPath: {prefix: [64600, 64601]}}]}
  - {action: Accept, cidr: 10.65.0.0/26, matchOperator: Equal, peerType: iBGP, operations: [{setPriority: {value: 100}}]}
  - {action: Reject, cidr: 203.0.113.0/24, matchOperator: Equal, peerType: eBGP}
  - {action: Reject, cidr: 10.96.0.0/16, matchOperator: In, peerType: iBGP}
  - {action: Accept, source: RemotePeers, priority: 512, operations: [{addCommunity: {value: \"64512:512\"}}]}
  - {action: Accept, source: RemotePeers, cidr: 172.16.0.0/12, matchOperator: In, prefixLength: {max: 24}}
  - {action: Accept, interface: lo}
  exportV6:
  - {action: Accept, source: RemotePeers, cidr: \"2001:db8::/32\", matchOperator: In}
";

/// What the leaf announces, and what goes with it in BIRD's words.
const LEAF_ROUTES: [(&str, &str); 14] = [
    ("172.16.0.0/24", ""),
    ("172.16.1.0/24", "bgp_community.add((65001,1));"),
    ("172.16.2.0/24", "bgp_large_community.add((65001,2,2));"),
    ("172.16.3.0/24", "bgp_path.prepend(65077);"),
    ("172.16.4.0/25", ""),
    ("172.17.0.0/16", ""),
    ("172.17.1.0/24", ""),
    ("172.18.0.0/24", "bgp_path.prepend(64512);"),
    ("172.18.1.0/24", "bgp_path.prepend(64512); bgp_path.prepend(64512);"),
    ("172.19.0.0/24", "bgp_community.add((65001,3));"),
    ("172.19.1.0/24", "bgp_community.add((65001,3));"),
    ("192.0.2.0/24", ""),
    ("2001:db8:1::/48", ""),
    ("2001:db8:2::/48", ""),
];
/// What is left of it behind the filter.
const TAKEN: [&str; 7] = [
    "172.16.0.0/24",
    "172.16.2.0/24",
    "172.16.3.0/24",
    "172.17.0.0/16",
    "172.18.0.0/24",
    "172.19.0.0/24",
    "2001:db8:1::/48",
];

/// What a daemon has of one route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Told {
    path: String,
    next_hop: String,
    /// Of a peer in the node's own AS.
    local_pref: Option<u32>,
    /// Of both kinds, as Calico writes them.
    communities: BTreeSet<String>,
}

pub(super) type Table = BTreeMap<String, Told>;

/// A route of a table as it should be.
pub(super) fn route(prefix: &str, path: &str, next_hop: &str, communities: &[&str]) -> (String, Told) {
    let communities = communities.iter().map(ToString::to_string).collect();
    (
        prefix.to_owned(),
        Told { path: path.to_owned(), next_hop: next_hop.to_owned(), local_pref: None, communities },
    )
}

fn run(lab: &Lab, _: &Options) -> Result<()> {
    let site = Site::raise(lab)?;
    site.sessions_stand()?;
    site.the_node_takes_what_its_filter_lets_in()?;
    site.each_daemon_has(&Said { std: "65100:100", externals: true, spine_next_hop: LEAF })?;
    lab.proved(
        "leaf (BIRD): blocks and services' networks with the communities of every network that they lie in, named and literal, \
         standard and large; no single address of a load balancer, nothing of other peers",
    );
    lab.proved(
        "spine (FRR): filtered by prefix, length, source, kind of peer, priority and interface; communities added, paths \
         prepended, AS 64777 in front of them, next hops kept",
    );
    lab.proved(
        "inner (BIRD, iBGP): LOCAL_PREF from priorities, next hop self, and what the filter keeps from iBGP peers isn't there",
    );
    lab.proved(format!(
        "{} of another daemon in the node's kernel is told to all, and {}, which the leaf tells, too, is told as the leaf's",
        BY_ANOTHER_DAEMON[0], BY_ANOTHER_DAEMON[1]
    ));
    site.ways_and_timers()?;
    site.changes_are_followed()
}

struct Site<'lab> {
    lab: &'lab Lab,
    node: TortieNode,
    resources: Resources,
    leaf: Bird,
    spine: Frr,
    inner: Bird,
    beyond: Bird,
}

/// What of the node's resources changes.
struct Said {
    /// The value of the community `std`.
    std: &'static str,
    /// Are services' external addresses announced?
    externals: bool,
    /// Whose address the spine has as the next hop of what the leaf told.
    spine_next_hop: [&'static str; 2],
}

impl<'lab> Site<'lab> {
    fn raise(lab: &'lab Lab) -> Result<Site<'lab>> {
        lab.step("raising a node between BIRD and FRR");
        let fabric = Fabric::raise(lab, "fabric")?;
        let host = |name: &str, addresses: &[&str]| -> Result<Namespace> {
            let cidr = |address: &&str| format!("{address}/{}", if address.contains(':') { 64 } else { 24 });
            let addresses: Vec<String> = addresses.iter().map(cidr).collect();
            fabric.host(lab, name, &addresses.iter().map(String::as_str).collect::<Vec<_>>())
        };
        let near = host("node", &NODE)?;
        near.forward()?;
        add_address(&near, "lo", LOOPBACK.parse()?)?;
        let beyond = host("beyond", &[BEYOND_GATEWAY])?;
        for prefix in BY_ANOTHER_DAEMON {
            // As some other routing daemon would.
            near.ip(&format!("route add {prefix} via {BEYOND_GATEWAY} proto ospf"))?;
        }
        add_address(&beyond, "lo", format!("{BEYOND}/32").parse()?)?;
        let resources = resources(lab)?;
        let settings =
            Settings { more: "bgp: { redistribute: [kernel] }\n".to_owned(), ..Settings::default() };
        let node = TortieNode::configure(lab, &near, resources.directory(), &settings)?;
        let site = Site {
            leaf: Bird::start(lab, &host("leaf", &LEAF)?, &leaf())?,
            spine: Frr::start(lab, &host("spine", &SPINE)?, &spine())?,
            inner: Bird::start(lab, &host("inner", &[INNER])?, &inner())?,
            beyond: Bird::start(lab, &beyond, &plain_bird(BEYOND, BEYOND_AS, "multihop"))?,
            lab,
            node,
            resources,
        };
        site.node.start(lab)?;
        Ok(site)
    }

    fn sessions_stand(&self) -> Result<()> {
        self.lab.wait("every session, at both ends", CONVERGE, || {
            self.leaf.established(2)?;
            self.inner.established(1)?;
            self.beyond.established(1)?;
            self.node.established(6).map(Some)
        })?;
        Ok(())
    }

    /// At the node itself: the leaf's routes that its filter lets in.
    fn the_node_takes_what_its_filter_lets_in(&self) -> Result<()> {
        let wanted: BTreeSet<&str> = TAKEN.into();
        self.lab.wait("what the filter lets in", CONVERGE, || {
            let routes = self.node.show::<ShowRoutes>("routes")?.routes;
            let is_leafs = |prefix: &&str| LEAF_ROUTES.iter().any(|(announced, _)| announced == prefix);
            let there: BTreeSet<&str> =
                routes.iter().map(|route| route.prefix.as_str()).filter(is_leafs).collect();
            ensure!(there == wanted, "there are {there:?}");
            Ok(Some(()))
        })?;
        self.lab.proved(format!(
            "of the leaf's {} routes the node takes {}: by community, large community, AS path, length, prefix and what it isn't in; \
             its own AS in the path once, as numAllowedLocalASNumbers has it, and not twice",
            LEAF_ROUTES.len(),
            TAKEN.len()
        ));
        Ok(())
    }

    /// Exactly what it should have, in its own table.
    fn each_daemon_has(&self, said: &Said) -> Result<()> {
        for (name, wanted, has) in [
            (
                "leaf",
                at_leaf(said),
                &(|| self.bird_has(&self.leaf, &["tortie4", "tortie6"], false)) as Has<'_>,
            ),
            ("spine", at_spine(said), &|| self.spine_has()),
            ("inner", at_inner(said), &|| self.bird_has(&self.inner, &["tortie4"], true)),
            ("beyond", at_beyond(said), &|| self.bird_has(&self.beyond, &["tortie4"], false)),
        ] {
            let wanted: Table = wanted.into_iter().collect();
            self.lab.wait(&format!("{name}'s table"), CONVERGE, || {
                let has = has()?;
                for (prefix, wanted) in &wanted {
                    ensure!(
                        has.get(prefix) == Some(wanted),
                        "{prefix} is {:?}, not {wanted:?}",
                        has.get(prefix)
                    );
                }
                let more: Vec<&String> = has.keys().filter(|prefix| !wanted.contains_key(*prefix)).collect();
                ensure!(more.is_empty(), "{more:?} are there, too");
                Ok(Some(()))
            })?;
        }
        Ok(())
    }

    fn bird_has(&self, bird: &Bird, protocols: &[&str], internal: bool) -> Result<Table> {
        let mut table = Table::new();
        for protocol in protocols {
            table.extend(read_bird(&bird.ask(&format!("show route all protocol {protocol}"))?, internal));
        }
        Ok(table)
    }

    fn spine_has(&self) -> Result<Table> {
        let mut table = Table::new();
        for family in ["ipv4", "ipv6"] {
            let all = self.spine.ask(&format!("show bgp {family} unicast"))?;
            for prefix in all["routes"].as_object().into_iter().flat_map(serde_json::Map::keys) {
                let told = self.spine.ask(&format!("show bgp {family} unicast {prefix}"))?;
                table.insert(prefix.clone(), read_frr(&told).with_context(|| format!("FRR said: {told}"))?);
            }
        }
        Ok(table)
    }

    /// `reachableBy` and `maxRestartTime`.
    fn ways_and_timers(&self) -> Result<()> {
        let gateway: IpAddr = BEYOND_GATEWAY.parse()?;
        let way: ShowRoute = self.node.show(&format!("route {BEYOND}"))?;
        ensure!(way.nexthops.iter().any(|hop| hop.via == Some(gateway)), "the way to {BEYOND} is {way:?}");
        let kernel = self.node.namespace().ip(&format!("route get {BEYOND}"))?;
        ensure!(kernel.contains(&format!("via {BEYOND_GATEWAY}")), "the kernel's way to {BEYOND}: {kernel}");
        let session = self.leaf.ask("show protocols all tortie4")?;
        let theirs = session.split("Neighbor capabilities").nth(1).unwrap_or_default();
        ensure!(theirs.contains(&format!("Restart time: {RESTART_TIME}")), "the leaf was told: {session}");
        self.lab.proved(format!(
            "the session with {BEYOND} stands by way of {BEYOND_GATEWAY}, which reachableBy names; the leaf is told a restart time \
             of {RESTART_TIME} s"
        ));
        Ok(())
    }

    /// No session ends for it.
    fn changes_are_followed(&self) -> Result<()> {
        self.lab.step("changing communities, services and next hops");
        let comings = || -> Result<Vec<u64>> {
            let peers = self.node.show::<ShowBgp>("bgp")?.peers;
            Ok(peers.iter().map(|peer| peer.established_count).collect())
        };
        let before = comings()?;
        let text = CONFIGURATION.replace("  serviceExternalIPs: [{cidr: 203.0.113.0/24}]\n", "");
        self.resources.write("bgpconfiguration-default.yaml", &text.replace("STD", "65100:101"))?;
        write_spine(&self.resources, "Self")?;
        self.each_daemon_has(&Said { std: "65100:101", externals: false, spine_next_hop: NODE })?;
        let after = comings()?;
        ensure!(after == before, "sessions came up {before:?} times, and now {after:?}");
        self.lab.proved(
            "another value of a community, services that are announced no more and another nextHopMode reach every daemon's table, \
             and no session ends for it",
        );
        self.node.must_run()
    }
}

/// Reads a daemon's table.
type Has<'a> = &'a dyn Fn() -> Result<Table>;

/// What a peer without filters is told.
fn at_beyond(said: &Said) -> Vec<(String, Told)> {
    let (path, next_hop) = ("64512", NODE[0]);
    let block = [said.std, "65100:300", "64512:300:400", "64512:100:200"];
    let mut all = vec![
        route("10.65.0.0/26", path, next_hop, &block),
        route("10.96.0.0/16", path, next_hop, &[said.std]),
        route("198.51.100.0/24", path, next_hop, &[]),
        route(BY_ANOTHER_DAEMON[0], path, next_hop, &[]),
    ];
    if said.externals {
        all.push(route("203.0.113.0/24", path, next_hop, &[]));
    }
    all
}

fn at_leaf(said: &Said) -> Vec<(String, Told)> {
    let six = [
        route("fd65::/122", "64512", NODE[1], &["65100:6", "64512:100:200"]),
        route("fd96::/108", "64512", NODE[1], &[]),
    ];
    at_beyond(said).into_iter().chain(six).collect()
}

fn at_spine(said: &Said) -> Vec<(String, Told)> {
    let [four, six] = said.spine_next_hop;
    let leafs = |prefix, path: &str, communities: &[&str]| route(prefix, path, four, communities);
    vec![
        route("10.65.0.0/26", "64777 64600 64601", NODE[0], &["64512:1:2"]),
        route("10.96.0.0/16", "64777", NODE[0], &[said.std]),
        route("198.51.100.0/24", "64777", NODE[0], &[]),
        route(LOOPBACK, "64777", NODE[0], &[]),
        route(BY_ANOTHER_DAEMON[0], "64777", NODE[0], &[]),
        leafs("172.16.0.0/24", "64777 65001", &[]),
        leafs("172.16.2.0/24", "64777 65001", &["65001:2:2", "64512:512"]),
        leafs("172.16.3.0/24", "64777 65001 65077", &["64512:77"]),
        leafs("172.17.0.0/16", "64777 65099 65098 65001", &["64512:1:17"]),
        leafs("172.18.0.0/24", "64777 65001 64512", &[]),
        leafs("172.19.0.0/24", "64777 65001", &["65001:3"]),
        route("fd65::/122", "64777", NODE[1], &["65100:6", "64512:100:200"]),
        route("fd96::/108", "64777", NODE[1], &[]),
        route("2001:db8:1::/48", "64777 65001", six, &[]),
    ]
}

fn at_inner(said: &Said) -> Vec<(String, Told)> {
    let told = |prefix, path, local_pref, communities: &[&str]| {
        let (prefix, told) = route(prefix, path, NODE[0], communities);
        (prefix, Told { local_pref: Some(local_pref), ..told })
    };
    let mut all = vec![
        told("10.65.0.0/26", "", LOCAL_PREF_BASE - 100, &[]),
        told("198.51.100.0/24", "", NORMAL, &[]),
        told(LOOPBACK, "", NORMAL, &[]),
        told(BY_ANOTHER_DAEMON[0], "", NORMAL, &[]),
        told("172.16.0.0/24", "65001", 100, &[]),
        told("172.16.2.0/24", "65001", LOCAL_PREF_BASE - 512, &["65001:2:2", "64512:512"]),
        told("172.16.3.0/24", "65001 65077", 100, &["64512:77"]),
        told("172.17.0.0/16", "65099 65098 65001", 100, &["64512:1:17"]),
        told("172.18.0.0/24", "65001 64512", 100, &[]),
        told("172.19.0.0/24", "65001", 100, &["65001:3"]),
    ];
    if said.externals {
        all.push(told("203.0.113.0/24", "", NORMAL, &[]));
    }
    all
}

fn resources(lab: &Lab) -> Result<Resources> {
    let resources = Resources::create(lab.directory().join("resources"))?;
    resources.write("bgpconfiguration-default.yaml", &CONFIGURATION.replace("STD", "65100:100"))?;
    resources.plain_pool("pool-0", "10.65.0.0/16".parse()?, 26)?;
    resources.plain_pool("pool-1", "fd65::/48".parse()?, 122)?;
    let [four, six] = NODE;
    resources.node("node", Some(format!("{four}/24").parse()?), Some(format!("{six}/64").parse()?))?;
    for block in ["10.65.0.0/26", "fd65::/122"] {
        resources.block("node", block.parse::<Prefix>()?)?;
    }
    for (name, rules) in [("from-leaf", FROM_LEAF), ("to-others", TO_OTHERS)] {
        let text = format!(
            "apiVersion: projectcalico.org/v3\nkind: BGPFilter\nmetadata: {{name: {name}}}\nspec:{rules}"
        );
        resources.write(&format!("bgpfilter-{name}.yaml"), &text)?;
    }
    for (number, leaf) in LEAF.iter().enumerate() {
        let spec = format!(
            "  peerIP: \"{leaf}\"\n  asNumber: {LEAF_AS}\n  numAllowedLocalASNumbers: 1\n  maxRestartTime: {RESTART_TIME}s\n  \
             filters: [from-leaf]\n"
        );
        resources.bgp_peer_of(&format!("leaf-{number}"), &spec)?;
    }
    write_spine(&resources, "Keep")?;
    let spec =
        format!("  peerIP: {INNER}\n  asNumber: {NODE_AS}\n  nextHopMode: Self\n  filters: [to-others]\n");
    resources.bgp_peer_of("inner", &spec)?;
    let spec = format!("  peerIP: {BEYOND}\n  asNumber: {BEYOND_AS}\n  reachableBy: {BEYOND_GATEWAY}\n");
    resources.bgp_peer_of("beyond", &spec)?;
    Ok(resources)
}

fn write_spine(resources: &Resources, next_hop_mode: &str) -> Result<()> {
    SPINE.iter().enumerate().try_for_each(|(number, spine)| {
        let spec = format!(
            "  peerIP: \"{spine}\"\n  asNumber: {SPINE_AS}\n  localASNumber: {TO_SPINE_AS}\n  nextHopMode: {next_hop_mode}\n  \
             filters: [to-others]\n"
        );
        resources.bgp_peer_of(&format!("spine-{number}"), &spec)
    })
}

/// What a BIRD begins with.
pub(super) fn preamble(router_id: &str) -> String {
    format!("log stderr all;\nrouter id {router_id};\nprotocol device {{ scan time 2; }}\n")
}

/// How soon BIRD tries again.
pub(super) const TIMERS: &str =
    "connect delay time 1; connect retry time 3; error wait time 1,3; graceful restart;";

/// A BIRD that takes everything and tells nothing.
fn plain_bird(own: &str, own_as: u32, how: &str) -> String {
    preamble(own)
        + &format!(
            "protocol bgp tortie4 {{ local {own} as {own_as}; neighbor {} as {NODE_AS}; {how}; {TIMERS} allow local as 2; \
             ipv4 {{ import all; export none; }}; }}\n",
            NODE[0]
        )
}

fn inner() -> String {
    plain_bird(INNER, NODE_AS, "direct")
}

fn leaf() -> String {
    let mut text = preamble(LEAF[0]);
    for (number, (channel, bits)) in [("ipv4", '.'), ("ipv6", ':')].into_iter().enumerate() {
        let of_family = || LEAF_ROUTES.iter().filter(|(prefix, _)| prefix.contains(bits));
        let routes: String =
            of_family().map(|(prefix, _)| format!("  route {prefix} blackhole;\n")).collect();
        let changes: String = of_family()
            .filter(|(_, changes)| !changes.is_empty())
            .map(|(prefix, changes)| format!("  if net = {prefix} then {{ {changes} }}\n"))
            .collect();
        let version = channel.trim_start_matches("ipv");
        text.push_str(&format!(
            "protocol static static{version} {{ {channel};\n{routes}}}\n\
             filter told{version} {{\n  if source != RTS_STATIC then reject;\n{changes}  accept;\n}}\n\
             protocol bgp tortie{version} {{ local {} as {LEAF_AS}; neighbor {} as {NODE_AS}; direct; {TIMERS} \
             {channel} {{ import all; export filter told{version}; }}; }}\n",
            LEAF[number], NODE[number]
        ));
    }
    text
}

fn spine() -> String {
    let [four, six] = NODE;
    let neighbor = |address: &str| {
        format!(
            " neighbor {address} remote-as {TO_SPINE_AS}\n neighbor {address} timers connect 1\n \
             neighbor {address} disable-connected-check\n"
        )
    };
    // One path of each prefix: with several (RFC 7911), another daemon's would be there beside the leaf's, as from BIRD.
    let family = |name: &str, address: &str| {
        format!(
            " address-family {name} unicast\n  neighbor {address} activate\n  neighbor {address} disable-addpath-rx\n \
             exit-address-family\n"
        )
    };
    format!(
        "router bgp {SPINE_AS}\n bgp router-id {}\n no bgp default ipv4-unicast\n no bgp ebgp-requires-policy\n{}{}{}{}exit\n",
        SPINE[0],
        neighbor(four),
        neighbor(six),
        family("ipv4", four),
        family("ipv6", six)
    )
}

/// Reads `show route all` of BIRD 2: a route begins at the margin, and what is known of it is indented.
pub(super) fn read_bird(text: &str, internal: bool) -> Table {
    let mut table = Table::new();
    let mut prefix = None;
    for line in text.lines() {
        if let Some(first) = line.split(' ').next().filter(|first| first.contains('/')) {
            let told = Told {
                path: String::new(),
                next_hop: String::new(),
                local_pref: None,
                communities: BTreeSet::new(),
            };
            table.insert(first.to_owned(), told);
            prefix = Some(first.to_owned());
        }
        let Some(told) = prefix.as_ref().and_then(|prefix| table.get_mut(prefix)) else { continue };
        let Some((name, value)) = line.trim().strip_prefix("BGP.").and_then(|line| line.split_once(':'))
        else {
            continue;
        };
        let value = value.trim();
        match name {
            "as_path" => told.path = value.to_owned(),
            // By IPv6 a link-local address may stand behind it.
            "next_hop" => told.next_hop = value.split(' ').next().unwrap_or_default().to_owned(),
            "local_pref" if internal => told.local_pref = value.parse().ok(),
            "community" | "large_community" => {
                let all = value.split(')').map(|one| one.trim_start_matches([' ', '(']));
                let all = all.filter(|one| !one.is_empty());
                told.communities.extend(all.map(|one| one.replace(", ", ":").replace(',', ":")));
            }
            _ => {}
        }
    }
    table
}

/// Reads `show bgp FAMILY unicast PREFIX json` of FRR.
fn read_frr(told: &Value) -> Option<Told> {
    let [path] = told["paths"].as_array()?.as_slice() else { return None };
    let words = |of: &Value| of["string"].as_str().unwrap_or_default().to_owned();
    let both = [words(&path["community"]), words(&path["largeCommunity"])].join(" ");
    let global = |hop: &&Value| hop["scope"] != "link-local";
    Some(Told {
        path: words(&path["aspath"]),
        next_hop: path["nexthops"].as_array()?.iter().find(global)?["ip"].as_str()?.to_owned(),
        local_pref: None,
        communities: both.split_whitespace().map(str::to_owned).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn birds_words_are_read() {
        let text = "BIRD 2.0.12 ready.\nTable master4:\n\
            10.65.0.0/26         unicast [tortie4 10:00:00.000] * (100) [AS64601i]\n\tvia 10.9.0.1 on eth0\n\tType: BGP univ\n\
            \tBGP.origin: IGP\n\tBGP.as_path: 64512 64601\n\tBGP.next_hop: 10.9.0.1\n\tBGP.local_pref: 100\n\
            \tBGP.community: (65100,100) (65100,300)\n\tBGP.large_community: (64512, 100, 200) (64512, 300, 400)\n\
            10.96.0.0/16         unicast [tortie4 10:00:00.000] * (100) [i]\n\tBGP.as_path: \n\tBGP.next_hop: fd09::1 fe80::1\n";
        let both = ["65100:100", "65100:300", "64512:100:200", "64512:300:400"];
        let expected = [
            route("10.65.0.0/26", "64512 64601", "10.9.0.1", &both),
            route("10.96.0.0/16", "", "fd09::1", &[]),
        ];
        assert_eq!(read_bird(text, false), expected.into());
        assert_eq!(read_bird(text, true)["10.65.0.0/26"].local_pref, Some(100));
    }

    #[test]
    fn frrs_words_are_read() {
        let told = serde_json::json!({"prefix": "fd65::/122", "paths": [{
            "aspath": {"string": "64777 65001"}, "community": {"string": "65100:6"}, "largeCommunity": {"string": "64512:100:200"},
            "nexthops": [{"ip": "fe80::1", "scope": "link-local"}, {"ip": "fd09::1", "scope": "global"}],
        }]});
        let (_, expected) = route("", "64777 65001", "fd09::1", &["65100:6", "64512:100:200"]);
        assert_eq!(read_frr(&told), Some(expected));
    }
}

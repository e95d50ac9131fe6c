//! Two ways whose links are told to be unlike (the link bandwidth extended community), with Debian's BIRD 2 at the end of each:
//! traffic is spread as they are. A monitoring station looks on by BMP (RFC 7854), read by tshark.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::bird::Bird;
use crate::capture::Capture;
use crate::cluster::CONVERGE;
use crate::link::Fabric;
use crate::netns::Namespace;
use crate::resources::Resources;
use crate::scenario::{Options, Scenario, Store};
use crate::tortie::{Settings, TortieNode};
use crate::traffic::{self, Sink, UdpFlows};
use crate::workload::Workload;
use crate::{Lab, dissected, wait};

pub(super) const LINK_BANDWIDTH: Scenario = Scenario {
    name: "link-bandwidth",
    about: "two next hops with a link of three times the other's bandwidth get flows as 3 to 1; a station watches by BMP",
    programs: &["bird", "birdc", "ethtool", "tcpdump", "tshark"],
    tortie: true,
    alone: false,
    store: Store::Either,
    run,
};

const AS: u32 = 64512;
const ROUTER: &str = "10.9.0.1/24";
/// The last octet of each way's address, its bandwidth in bytes a second, and the flows that it is due.
const WAYS: [(u8, f32, f64); 2] = [(2, 3e8, 0.75), (3, 1e8, 0.25)];
const WORKLOAD: &str = "10.65.0.1";
const BLOCK: &str = "10.65.0.0/26";
const BEHIND: &str = "10.66.0.0/16";
/// A flow each: half a thousandth of chance is left for shares that are further off than [`OFF_MAX`].
const FLOWS: u16 = 1000;
const OFF_MAX: f64 = 0.05;
const PER_SECOND: u32 = 4000;
/// The same flows each time.
const SOURCE_PORT: u16 = 40_000;
const STATION: &str = "10.9.0.9";
const BMP_PORT: u16 = 11019;

fn run(lab: &Lab, _: &Options) -> Result<()> {
    lab.step("raising a router, two ways and a monitoring station");
    let fabric = Fabric::raise(lab, "fabric")?;
    let near = fabric.host(lab, "near", &[ROUTER])?;
    near.forward()?;
    let station = fabric.host(lab, "station", &[&format!("{STATION}/24")])?;
    let capture = Capture::start(lab, &station, "eth0", &format!("tcp port {BMP_PORT}"))?;
    let listening = traffic::agent(lab, &station, "receive", &[&format!("0.0.0.0:{BMP_PORT}")])?;
    let resources = resources(lab)?;
    let workload = Workload::raise(lab, &resources, &near, "w1", &[WORKLOAD.parse()?])?;
    // Not the Loc-RIB: tshark 4.0 takes the table's name in its Peer Up (RFC 9069 §4.4) for one more BGP message.
    let more = format!(
        "bgp: {{ bmp: [{{ station: \"{STATION}:{BMP_PORT}\", routes: [pre-policy, post-policy], statistics: 1 }}] }}\n"
    );
    let router =
        TortieNode::configure(lab, &near, resources.directory(), &Settings { more, ..Settings::default() })?;
    router.start(lab)?;
    let mut ways: Vec<(Bird, Sink)> = WAYS
        .iter()
        .map(|(last, bandwidth, _)| way(lab, &fabric, *last, *bandwidth))
        .collect::<Result<_>>()?;

    let shown = lab.wait("both ways", CONVERGE, || {
        router.established(WAYS.len())?;
        let route: serde_json::Value = router.show("route 10.66.0.1")?;
        let shares: Option<BTreeMap<String, f64>> = route["nexthops"]
            .as_array()
            .map(|hops| {
                hops.iter().filter_map(|hop| Some((hop["via"].as_str()?.to_owned(), hop["share"].as_f64()?)))
            })
            .map(Iterator::collect);
        Ok(shares.filter(|shares| shares.len() == WAYS.len()))
    })?;
    for (last, _, due) in WAYS {
        let share = shown.get(&format!("10.9.0.{last}")).context("a share")?;
        ensure!((share - due).abs() < 0.01, "10.9.0.{last} has {share} rather than {due}");
    }
    the_kernel_shares_alike(lab, &near)?;
    flows_are_shared(lab, &workload, &mut ways)?;
    the_station_was_told(lab, capture)?;
    drop(listening);
    router.must_run()
}

/// Every flow arrives, as many by each way as its link is due.
fn flows_are_shared(lab: &Lab, workload: &Workload, ways: &mut [(Bird, Sink)]) -> Result<()> {
    lab.step("sending by a thousand flows");
    let destinations: Vec<IpAddr> =
        (0..FLOWS).map(|flow| IpAddr::from([10, 66, (flow >> 8) as u8, flow as u8])).collect();
    let mut settled =
        || ways.iter_mut().map(|(_, sink)| Ok(sink.settled(lab)?.packets)).collect::<Result<Vec<u64>>>();
    let mut before = settled()?;
    let counts = lab.wait("every flow to arrive", CONVERGE, || {
        UdpFlows::start(lab, &workload.namespace, &destinations, 1, PER_SECOND, SOURCE_PORT)?.finish()?;
        // Each flow is a datagram. Of those before neighbours were known some may be missing.
        let now = settled()?;
        let counts: Vec<u64> = now.iter().zip(&before).map(|(now, before)| now - before).collect();
        before = now;
        ensure!(counts.iter().sum::<u64>() == u64::from(FLOWS), "of {FLOWS} flows {counts:?} arrived");
        Ok(Some(counts))
    })?;
    for ((last, bandwidth, due), count) in WAYS.iter().zip(&counts) {
        let share = *count as f64 / f64::from(FLOWS);
        ensure!((share - due).abs() <= OFF_MAX, "10.9.0.{last} got {share} of the flows rather than {due}");
        lab.proved(format!(
            "10.9.0.{last}, a link of {:.1} Gbit/s: {count} of {FLOWS} flows, due are {:.0}",
            bandwidth * 8e-9,
            due * f64::from(FLOWS)
        ));
    }
    Ok(())
}

/// The mirror has the weights, too.
fn the_kernel_shares_alike(lab: &Lab, near: &Namespace) -> Result<()> {
    let route = lab.wait("the kernel's mirror", CONVERGE, || {
        let route = near.ip(&format!("-o route show table 116 {BEHIND}"))?;
        Ok(WAYS.iter().all(|(last, ..)| route.contains(&format!("via 10.9.0.{last} "))).then_some(route))
    })?;
    for (last, weight) in [(2, 3), (3, 1)] {
        let hop = route.split("nexthop").find(|hop| hop.contains(&format!("via 10.9.0.{last} ")));
        let hop = hop.context("a next hop")?;
        ensure!(
            hop.contains(&format!("weight {weight}")),
            "10.9.0.{last} has not the weight {weight}: {route}"
        );
    }
    lab.proved("the kernel's mirror has the weights 3 and 1");
    Ok(())
}

/// Tshark reads what the station was sent: who it is from, both peers, and their route.
fn the_station_was_told(lab: &Lab, capture: Capture) -> Result<()> {
    lab.step("reading what the station was told");
    // Statistics come each second.
    wait::pass(Duration::from_secs(2))?;
    let captured = capture.stop()?;
    let decode = format!("tcp.port=={BMP_PORT},bmp");
    let read = |filter: &str, field: &str| -> Result<Vec<String>> {
        let text = dissected::tshark(
            &captured,
            &["-d", &decode, "-Y", filter, "-T", "fields", "-E", "occurrence=a", "-e", field],
        )?;
        Ok(text.split([',', '\n']).filter(|word| !word.is_empty()).map(str::to_owned).collect())
    };
    let wrong = read("_ws.malformed", "frame.number")?;
    ensure!(wrong.is_empty(), "tshark finds frames {wrong:?} malformed");
    let mut kinds: BTreeMap<String, usize> = BTreeMap::new();
    for kind in read("bmp", "bmp.type")? {
        *kinds.entry(kind).or_default() += 1;
    }
    // Route Monitoring, Statistics Report, Peer Up, Initiation (RFC 7854 §4.1).
    for (kind, least) in [("0", 2), ("1", 1), ("3", WAYS.len()), ("4", 1)] {
        let count = kinds.get(kind).copied().unwrap_or_default();
        ensure!(count >= least, "{count} messages of type {kind}: {kinds:?}");
    }
    let peers = read("bmp.type == 3", "bmp.peer.ip.addr")?;
    for (last, ..) in WAYS {
        ensure!(peers.contains(&format!("10.9.0.{last}")), "the peers up are {peers:?}");
    }
    let prefixes = read("bmp.type == 0", "bgp.nlri_prefix")?;
    ensure!(prefixes.iter().any(|prefix| prefix == "10.66.0.0"), "the routes are {prefixes:?}");
    lab.proved(format!(
        "the station was sent by BMP, as tshark reads it: {} initiation, {} peers up, {} routes, {} statistics",
        kinds["4"], kinds["3"], kinds["0"], kinds["1"]
    ));
    Ok(())
}

/// A BIRD that tells the bandwidth of its link, and what is behind it.
fn way(lab: &Lab, fabric: &Fabric, last: u8, bandwidth: f32) -> Result<(Bird, Sink)> {
    let namespace = fabric.host(lab, &format!("way{last}"), &[&format!("10.9.0.{last}/24")])?;
    namespace.ip(&format!("route add {BLOCK} via 10.9.0.1"))?;
    let sink = Sink::open(lab, &namespace)?;
    let mut text = String::new();
    // Type 0x40, subtype 0x04, an AS of two octets, IEEE's floating-point (draft-ietf-idr-link-bandwidth).
    let community = format!("(generic, {:#x}, {:#x})", 0x4004_0000 | AS, bandwidth.to_bits());
    writeln!(
        text,
        "log stderr all;\nrouter id 10.9.0.{last};\nprotocol device {{ scan time 2; }}\n\
         protocol static {{ ipv4; route {BEHIND} blackhole; }}\n\
         filter told {{ if source != RTS_STATIC then reject; bgp_ext_community.add({community}); accept; }}\n\
         protocol bgp tortie {{ local 10.9.0.{last} as {AS}; neighbor 10.9.0.1 as {AS}; direct; \
         connect delay time 1; connect retry time 3; error wait time 1,3; \
         ipv4 {{ import all; export filter told; next hop self; }}; }}"
    )?;
    Ok((Bird::start(lab, &namespace, &text)?, sink))
}

fn resources(lab: &Lab) -> Result<Resources> {
    let resources = Resources::create(lab.directory().join("resources"))?;
    resources.bgp_configuration(false, AS)?;
    resources.plain_pool("pool-0", "10.65.0.0/16".parse()?, 26)?;
    resources.node("near", Some(ROUTER.parse()?), None)?;
    resources.block("near", BLOCK.parse()?)?;
    for (last, ..) in WAYS {
        resources.write(
            &format!("bgppeer-{last}.yaml"),
            &format!(
                "apiVersion: projectcalico.org/v3\nkind: BGPPeer\nmetadata: {{name: way-{last}}}\n\
                 spec: {{peerIP: 10.9.0.{last}, asNumber: {AS}}}\n"
            ),
        )?;
    }
    Ok(resources)
}

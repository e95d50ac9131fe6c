//! Workloads reach the outside under their node's address, and nobody there learns theirs.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Result, ensure};
use model::Family;

use super::nat_site::{ShowFlows, Site, trace, udp_answers};
use crate::capture::Capture;
use crate::cluster::CONVERGE;
use crate::scenario::{Options, Scenario, Store};
use crate::traffic::{Sink, UdpFlows};
use crate::workload::INTERFACE;
use crate::{Lab, books, dissected, traffic};

/// TCP, UDP, ping and traceroute through the translation, beside sessions of the host's own.
pub(super) const NAT_OUTGOING: Scenario = Scenario {
    name: "nat-outgoing",
    about: "workloads reach a server outside under their node's address; the host's own sessions go on beside them",
    programs: &["ping", "tcpdump", "tshark", "traceroute", "iperf3", "ethtool"],
    tortie: true,
    alone: false,
    store: Store::Either,
    run,
};

const BYTES: u64 = 5_000_000;
/// Ports enough for so many pings at a time.
const FEW: usize = 4;
/// Within what flows end without being silent for long: UDP is remembered for a minute.
const ENDS: Duration = Duration::from_secs(30);

fn run(lab: &Lab, _: &Options) -> Result<()> {
    let site = Site::raise(lab, "")?;
    site.start()?;
    let host = site.node.namespace();
    let mut sessions = [
        traffic::Session::open(lab, &site.server, host, site.node_address(Family::V4)?)?,
        traffic::Session::open(lab, host, &site.server, site.server(Family::V4)?)?,
    ];
    for family in Family::ALL {
        outside_sees_the_node(&site, family)?;
        workloads_see_each_other(&site, family)?;
    }
    for (session, way) in sessions.iter_mut().zip(["to", "from"]) {
        session.beats_on(5)?;
        lab.proved(format!(
            "a session {way} the host went on meanwhile: {} beats, none took longer than {} ms",
            session.beats()?,
            session.longest_beat()?.as_millis()
        ));
    }
    flows_are_shown(&site)?;
    few_ports_are_soon_exhausted(&site)?;
    for family in Family::ALL {
        workloads_meet_by_outer_ports(&site, family)?;
    }
    site.felix("")?;
    for session in &mut sessions {
        session.beats_on(3)?;
    }
    flows_end_with_what_they_came_from(&site)?;
    let books = books::settled(lab, &site.node)?;
    lab.proved(books::line("node", &books));
    Ok(())
}

fn outside_sees_the_node(site: &Site<'_>, family: Family) -> Result<()> {
    let (lab, server, node) = (site.lab, site.server(family)?, site.node_address(family)?);
    let seen = Capture::start(lab, &site.server, "eth0", "not arp and not ether multicast")?;
    for workload in &site.workloads {
        traffic::answered(&workload.namespace, server, 5)?;
    }
    let [one, two] = [&site.workloads[0].namespace, &site.workloads[1].namespace];
    traffic::transfer(lab, one, &site.server, server, BYTES)?;
    udp_answers(lab, two, &site.server, server)?;
    for how in [&[][..], &["-I"], &["-T", "-p", "9"]] {
        let hops = trace(one, server, how)?;
        ensure!(hops.len() == 2 && hops[1] == server, "traceroute {how:?} names {hops:?}");
    }
    let captured = seen.stop()?;
    let frames = dissected::well_formed(&captured)?;
    let hidden: Vec<IpAddr> =
        site.workloads.iter().map(|workload| workload.address(family)).collect::<Result<_>>()?;
    let leaks = dissected::naming(&captured, &hidden)?;
    ensure!(leaks.is_empty(), "the server saw a workload's own address: {}", leaks[0]);
    ensure!(!dissected::naming(&captured, &[node])?.is_empty(), "the server never saw {node}");
    lab.proved(format!(
        "{family:?}: ping, {} MB over TCP, UDP both ways, traceroute by UDP, ICMP and TCP: the server saw {frames} packets \
         from and to {node}, none that names a workload's address even in a quote, and tshark finds nothing wrong",
        BYTES / 1_000_000
    ));
    Ok(())
}

fn workloads_see_each_other(site: &Site<'_>, family: Family) -> Result<()> {
    let [one, two] = [&site.workloads[0], &site.workloads[1]];
    let (from, to) = (one.address(family)?, two.address(family)?);
    let seen =
        Capture::start(site.lab, &two.namespace, INTERFACE, &format!("src host {from} and dst host {to}"))?;
    traffic::answered(&one.namespace, to, 3)?;
    ensure!(dissected::well_formed(&seen.stop()?)? >= 3, "{to} did not see {from} itself");
    site.lab.proved(format!("{family:?}: {to} sees {from} itself"));
    Ok(())
}

fn flows_are_shown(site: &Site<'_>) -> Result<()> {
    let (lab, server, from) = (site.lab, site.server(Family::V4)?, &site.workloads[0].namespace);
    // One that lives, and one that is remembered for a minute.
    let _session = traffic::Session::open_at(lab, from, &site.server, SocketAddr::new(server, 2223))?;
    traffic::udp_to_many(lab, from, &[server], 1, 100)?;
    let (shown, protocols) = lab.wait("flows of both protocols", ENDS, || {
        let shown: ShowFlows = site.node.show(&format!("flows {server}"))?;
        let protocols: BTreeSet<String> = shown.flows.iter().map(|flow| flow.protocol.clone()).collect();
        ensure!(protocols.contains("tcp") && protocols.contains("udp"), "`show flows`: {protocols:?}");
        Ok(Some((shown, protocols)))
    })?;
    let node: IpAddr = site.node_address(Family::V4)?;
    let wrong = shown
        .flows
        .iter()
        .find(|flow| flow.translated.source != node || flow.translated.source_port < 49_152);
    ensure!(wrong.is_none(), "not translated as it should be: {wrong:?}");
    let first = shown.flows.first().map(|flow| flow.original.source);
    lab.proved(format!(
        "`show flows`: {} flows of {protocols:?}, the first from {first:?}, {} outer ports",
        shown.flows.len(),
        shown.ports
    ));
    Ok(())
}

fn few_ports_are_soon_exhausted(site: &Site<'_>) -> Result<()> {
    site.felix(&format!("natPortRange: '60000:{}'", 60_000 + FEW - 1))?;
    let (lab, server) = (site.lab, site.server(Family::V4)?);
    let from = &site.workloads[0].namespace;
    // Each ping has an identifier of its own, remembered for some seconds.
    lab.wait("the last port", CONVERGE, || {
        traffic::ping(from, server, 1)?;
        Ok((site.dropped("nat_ports_exhausted")? > 0).then_some(()))
    })?;
    lab.proved(format!("with {FEW} ports, pings are soon dropped for nat_ports_exhausted"));
    site.felix("")?;
    traffic::reaches(lab, from, server, CONVERGE)?;
    lab.proved("with the range as it was, they pass again");
    Ok(())
}

/// RFC 4787 REQ-9: one sends to the port of the other's that the server sees, where nobody listens, and is told so.
fn workloads_meet_by_outer_ports(site: &Site<'_>, family: Family) -> Result<()> {
    // A range around the one port that the lab's datagrams go to: by IPv6 they come from the next port.
    site.felix(&format!("natPortRange: '{}:{}'", Sink::PORT, Sink::PORT + 99))?;
    let source_port = Sink::PORT - u16::from(family == Family::V6);
    let [one, two] = [&site.workloads[0], &site.workloads[1]];
    let (lab, node, to) = (site.lab, site.node_address(family)?, two.address(family)?);
    let meeting = format!("src host {node} and dst host {to} and udp dst port {}", Sink::PORT);
    let told = format!("src host {node} and (icmp or icmp6)");
    let datagrams = lab.wait("the outer port", CONVERGE, || {
        let opened = UdpFlows::start(lab, &two.namespace, &[site.server(family)?], 1, 100, source_port)?;
        opened.finish()?;
        let met = Capture::start(lab, &two.namespace, INTERFACE, &meeting)?;
        let answered = Capture::start(lab, &one.namespace, INTERFACE, &told)?;
        let sent = traffic::udp_to_many(lab, &one.namespace, &[node], 20, 100)?;
        let (met, answered) =
            (dissected::well_formed(&met.stop()?)?, dissected::well_formed(&answered.stop()?)?);
        ensure!(met as u64 == sent && answered > 0, "{met} of {sent} arrived, {answered} errors came back");
        Ok(Some(met))
    })?;
    lab.proved(format!(
        "{family:?}: a workload that sends to port {} of {node}, which is another workload's, reaches it: {datagrams} \
         datagrams from {node}, and the answers came back, nothing wrong in any",
        Sink::PORT
    ));
    Ok(())
}

fn flows_end_with_what_they_came_from(site: &Site<'_>) -> Result<()> {
    let lab = site.lab;
    let [one, two] = [&site.workloads[0], &site.workloads[1]];
    let server = site.server(Family::V4)?;
    let flows_of = |address: IpAddr| -> Result<usize> {
        let shown: ShowFlows = site.node.show(&format!("flows {address}"))?;
        Ok(shown.flows.len())
    };
    for workload in [one, two] {
        traffic::udp_to_many(lab, &workload.namespace, &[server], 1, 100)?;
    }
    let [first, second] = lab.wait("flows of both workloads", ENDS, || {
        let flows = [flows_of(one.address(Family::V4)?)?, flows_of(two.address(Family::V4)?)?];
        ensure!(!flows.contains(&0), "{flows:?} are shown");
        Ok(Some(flows))
    })?;
    site.resources.remove(&two.endpoint_file())?;
    let gone =
        |what: &str, address: IpAddr| lab.wait(what, ENDS, || Ok((flows_of(address)? == 0).then_some(())));
    gone("the removed workload's flows to end", two.address(Family::V4)?)?;
    ensure!(flows_of(one.address(Family::V4)?)? > 0, "the other workload's flows have ended, too");
    site.pools(false)?;
    gone("the flows of a pool that is translated no more to end", server)?;
    lab.proved(format!(
        "{second} flows of a workload went with it, and {first} of the other one when its pool's natOutgoing was taken away"
    ));
    Ok(())
}

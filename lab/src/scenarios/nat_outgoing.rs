//! Workloads reach the outside under their node's address, and nobody there learns theirs.

use std::collections::BTreeSet;
use std::net::IpAddr;

use anyhow::{Result, ensure};
use model::Family;

use super::nat_site::{ShowFlows, Site, trace, udp_answers};
use crate::capture::Capture;
use crate::scenario::{Options, Scenario};
use crate::workload::INTERFACE;
use crate::{Lab, books, traffic};

/// TCP, UDP, ping and traceroute through the translation, beside sessions of the host's own.
pub(super) const NAT_OUTGOING: Scenario = Scenario {
    name: "nat-outgoing",
    about: "workloads reach a server outside under their node's address; the host's own sessions go on beside them",
    programs: &["ping", "tcpdump", "traceroute", "iperf3", "ethtool"],
    tortie: true,
    alone: false,
    run,
};

const BYTES: u64 = 5_000_000;
/// Ports enough for so many pings at a time.
const FEW: usize = 4;

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
    for session in &mut sessions {
        session.beats_on(3)?;
    }
    let books = books::settled(lab, &site.node)?;
    lab.proved(books::line("node", &books));
    Ok(())
}

fn outside_sees_the_node(site: &Site<'_>, family: Family) -> Result<()> {
    let (lab, server, node) = (site.lab, site.server(family)?, site.node_address(family)?);
    let seen = Capture::start(lab, &site.server, "eth0", "not arp and not ether multicast")?;
    for workload in &site.workloads {
        let ping = traffic::ping(&workload.namespace, server, 5)?;
        traffic::all_answered(&workload.namespace, server, ping)?;
    }
    let [one, two] = [&site.workloads[0].namespace, &site.workloads[1].namespace];
    traffic::transfer(lab, one, &site.server, server, BYTES)?;
    udp_answers(lab, two, &site.server, server)?;
    for how in [&[][..], &["-I"], &["-T", "-p", "9"]] {
        let hops = trace(one, server, how)?;
        ensure!(hops.len() == 2 && hops[1] == server, "traceroute {how:?} names {hops:?}");
    }
    let captured = seen.stop()?;
    let frames = captured.checksums_are_right()?;
    let lines = captured.lines()?;
    let hidden: Vec<String> = site
        .workloads
        .iter()
        .map(|workload| workload.address(family).map(|a| a.to_string()))
        .collect::<Result<_>>()?;
    let leak = lines.iter().find(|line| {
        line.split(|c: char| c.is_whitespace() || c == ',').any(|word| {
            let word = word.trim_end_matches(':');
            hidden
                .iter()
                .any(|addr| word == addr || family == Family::V4 && word.starts_with(&format!("{addr}.")))
        })
    });
    ensure!(leak.is_none(), "the server saw a workload's own address: {}", leak.map_or("", |line| line));
    let node = node.to_string();
    ensure!(lines.iter().any(|line| line.contains(&node)), "the server never saw {node}");
    lab.proved(format!(
        "{family:?}: ping, {} MB over TCP, UDP both ways, traceroute by UDP, ICMP and TCP: the server saw {frames} packets \
         from and to {node}, none with a workload's address, no checksum wrong",
        BYTES / 1_000_000
    ));
    Ok(())
}

fn workloads_see_each_other(site: &Site<'_>, family: Family) -> Result<()> {
    let [one, two] = [&site.workloads[0], &site.workloads[1]];
    let (from, to) = (one.address(family)?, two.address(family)?);
    let seen =
        Capture::start(site.lab, &two.namespace, INTERFACE, &format!("src host {from} and dst host {to}"))?;
    let ping = traffic::ping(&one.namespace, to, 3)?;
    traffic::all_answered(&one.namespace, to, ping)?;
    ensure!(seen.stop()?.lines()?.len() >= 3, "{to} did not see {from} itself");
    site.lab.proved(format!("{family:?}: {to} sees {from} itself"));
    Ok(())
}

fn flows_are_shown(site: &Site<'_>) -> Result<()> {
    let shown: ShowFlows = site.node.show(&format!("flows {}", site.server(Family::V4)?))?;
    let protocols: BTreeSet<&str> = shown.flows.iter().map(|flow| flow.protocol.as_str()).collect();
    ensure!(protocols.contains("tcp") && protocols.contains("udp"), "`show flows`: {protocols:?}");
    let node: IpAddr = site.node_address(Family::V4)?;
    let wrong = shown
        .flows
        .iter()
        .find(|flow| flow.translated.source != node || flow.translated.source_port < 49_152);
    ensure!(wrong.is_none(), "not translated as it should be: {wrong:?}");
    let first = shown.flows.first().map(|flow| flow.original.source);
    site.lab.proved(format!(
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
    lab.wait("the last port", crate::cluster::CONVERGE, || {
        traffic::ping(from, server, 1)?;
        Ok((site.dropped("nat_ports_exhausted")? > 0).then_some(()))
    })?;
    lab.proved(format!("with {FEW} ports, pings are soon dropped for nat_ports_exhausted"));
    site.felix("")?;
    traffic::reaches(lab, from, server, crate::cluster::CONVERGE)?;
    lab.proved("with the range as it was, they pass again");
    Ok(())
}

//! A restart as an upgrade makes it: what of transit, of the router's own traffic and of workloads' gets lost, and for
//! how long.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::kill_the_router::{BEHIND_LEFT, Site, UPLINKS, WORKLOAD, raise};
use crate::cluster::CONVERGE;
use crate::outage::{EVERY, Outage, Stream};
use crate::scenario::{Options, Scenario, Store};
use crate::{Lab, books, traffic, wait};

/// The router ends in good order and another one takes its place.
pub(super) const HITLESS_RESTART: Scenario = Scenario {
    name: "hitless-restart",
    about: "stop and start under traffic: what transit, the node and workloads lose, and for how long",
    programs: &["bird", "birdc", "ping", "ethtool", "nft"],
    tortie: true,
    alone: true,
    store: Store::Either,
    run,
};

/// Restarts in a row.
const RESTARTS: usize = 3;
/// What one may lose of a stream that the kernel carries meanwhile.
const CHANGE_OF_HANDS: Duration = Duration::from_millis(50);
/// Traffic before, between and after.
const QUIET: Duration = Duration::from_secs(2);

fn run(lab: &Lab, _: &Options) -> Result<()> {
    let site = raise(lab)?;
    site.comes_up()?;
    for restart in 1..=RESTARTS {
        lab.step(&format!("restart {restart} of {RESTARTS}"));
        let streams = streams(lab, &site)?;
        wait::pass(QUIET)?;
        let began = Instant::now();
        site.router.stop()?;
        let stopped = began.elapsed();
        site.bird_keeps_the_blocks("while no router runs")?;
        site.router.start(lab)?;
        for address in WORKLOAD {
            traffic::reaches(lab, &site.left, address.parse()?, CONVERGE)?;
        }
        let open = began.elapsed();
        site.is_established()?;
        site.bird_keeps_the_blocks("after the restart")?;
        lab.proved(format!(
            "restart {restart}: stopped within {} ms, workloads reached again {} ms after the stop began, BGP Established after {} ms",
            stopped.as_millis(),
            open.as_millis(),
            began.elapsed().as_millis()
        ));
        wait::pass(QUIET)?;
        let outages = streams.into_iter().map(Stream::finish).collect::<Result<Vec<_>>>()?;
        for outage in &outages {
            lab.proved(outage.line());
        }
        outages.iter().try_for_each(judge)?;
    }
    let books = books::settled(lab, &site.router)?;
    lab.proved(books::line("router", &books));
    Ok(())
}

/// Transit and the node's own by both families; the workload's, who has nobody but the router.
fn streams(lab: &Lab, site: &Site<'_>) -> Result<Vec<Stream>> {
    let own = |index: usize| UPLINKS[1].1[index].split('/').next().unwrap_or_default().parse::<IpAddr>();
    Ok(vec![
        Stream::start(lab, "transit IPv4", &site.right, BEHIND_LEFT[0].1.parse()?)?,
        Stream::start(lab, "transit IPv6", &site.right, BEHIND_LEFT[1].1.parse()?)?,
        Stream::start(lab, "node IPv4", &site.right, own(0)?)?,
        Stream::start(lab, "node IPv6", &site.right, own(1)?)?,
        Stream::start(lab, "workload IPv4", &site.left, WORKLOAD[0].parse()?)?,
        Stream::start(lab, "workload IPv6", &site.left, WORKLOAD[1].parse()?)?,
    ])
}

/// A workload has nobody but the router; transit and the node's own the kernel carries. Frames wait in queues when their owner
/// changes, and both owners see to them, however long they wait for a core.
fn judge(outage: &Outage) -> Result<()> {
    ensure!(
        outage.name.starts_with("workload") || outage.longest <= CHANGE_OF_HANDS + EVERY,
        "{}: the kernel should have carried it",
        outage.line()
    );
    Ok(())
}

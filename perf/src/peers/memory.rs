//! Forwarding in memory beside l3fwd and VPP: the same frames to the same addresses by the same routes.
//!
//! Tortie's packets come from the replay port of `perf walk`, l3fwd's from net_pcap, which copies them from a ring of
//! packets in memory; VPP's from its packet generator. None of them has a wire.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use fastpath::Worker;
use lpm::{Key, Limits, Table, Value};
use perf::data::{Internet, Prefixes};
use perf::huge_pages::HugePages;
use perf::keys::{self, Numbers, ZIPF_FLOWS};
use perf::measure::{self, Readings};
use perf::replay_port::Replay;
use perf::router::{Address, Encapsulate, NEXT_HOPS, Parts, Router};
use perf::works;
use tempfile::TempDir;

use super::compare::{Comparison, Rounds};
use super::dpdk::{self, Pages};
use super::forwarder::{Files, Forwarder, Kind};
use super::quiet::Watched;
use super::{Arguments, l3fwd, pcap, vpp};

/// Packets before they begin anew: as many as net_pcap can keep in l3fwd's pool, and as many for everybody else.
const PACKETS: usize = ZIPF_FLOWS;
const ROUND: Duration = Duration::from_millis(300);

/// One kind of work, its goals beside l3fwd and VPP, and whether rte_lpm has few routes to load for it.
struct Work {
    name: &'static str,
    table: Routes,
    order: Order,
    over_l3fwd: Option<f64>,
    over_vpp: Option<f64>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Routes {
    One,
    V4,
    V6,
}

#[derive(Clone, Copy)]
enum Order {
    Zipf,
    Cyclic,
}

const WORKS: [Work; 5] = [
    Work {
        name: "IPv4, one route, cyclic",
        table: Routes::One,
        order: Order::Cyclic,
        over_l3fwd: None,
        over_vpp: Some(1.3),
    },
    Work {
        name: "IPv4, full table, zipf",
        table: Routes::V4,
        order: Order::Zipf,
        over_l3fwd: Some(1.5),
        over_vpp: Some(3.0),
    },
    Work {
        name: "IPv4, full table, cyclic",
        table: Routes::V4,
        order: Order::Cyclic,
        over_l3fwd: None,
        over_vpp: None,
    },
    Work {
        name: "IPv6, full table, zipf",
        table: Routes::V6,
        order: Order::Zipf,
        over_l3fwd: None,
        over_vpp: Some(3.0),
    },
    Work {
        name: "IPv6, full table, cyclic",
        table: Routes::V6,
        order: Order::Cyclic,
        over_l3fwd: None,
        over_vpp: None,
    },
];

/// Compares every kind of work.
pub(super) fn compare(internet: &Internet, arguments: &Arguments) -> Result<Vec<Comparison>> {
    println!("\nforwarding in memory");
    let l3fwd = arguments.l3fwd.clone().map_or_else(l3fwd::build, Ok);
    let l3fwd = l3fwd.inspect_err(|error| println!("skipped: l3fwd and testpmd: {error:#}")).ok();
    if arguments.vpp.is_none() {
        println!("skipped: VPP: Debian has no package of it; name an installed one with --vpp");
    }
    let huge = if arguments.no_huge || l3fwd.is_none() {
        None
    } else {
        let pages = HugePages::reserve(Forwarder::MEBIBYTES);
        pages.inspect_err(|error| println!("skipped: huge pages: {error:#}")).ok()
    };
    let mut all = Vec::new();
    for (number, work) in WORKS.iter().enumerate() {
        let mut bench = match work.table {
            Routes::One => Bench::new(&vec![(0u32, 0)], work, arguments)?,
            Routes::V4 => Bench::new(&internet.v4, work, arguments)?,
            Routes::V6 => Bench::new(&internet.v6, work, arguments)?,
        };
        if let Some(l3fwd) = &l3fwd {
            let small = Pages::Small(Forwarder::MEBIBYTES);
            let pages = huge.as_ref().map_or(small, Pages::Huge);
            if number == 0 {
                all.extend(bench.dpdk(&Kind::Testpmd { mode: "rxonly" }, pages, l3fwd));
                all.extend(bench.dpdk(&Kind::Testpmd { mode: "io" }, pages, l3fwd));
            }
            all.extend(bench.dpdk(&Kind::L3fwd { lookup: "fib", ports: 1 }, pages, l3fwd));
            all.extend(bench.dpdk(&Kind::L3fwd { lookup: "fib", ports: NEXT_HOPS as usize }, pages, l3fwd));
            if work.table == Routes::One || arguments.rte_lpm && work.table == Routes::V4 {
                all.extend(bench.dpdk(&Kind::L3fwd { lookup: "lpm", ports: 1 }, pages, l3fwd));
            }
            if huge.is_some() && work.over_l3fwd.is_some() {
                all.extend(bench.dpdk(&Kind::L3fwd { lookup: "fib", ports: 1 }, small, l3fwd));
            }
        }
        if let Some(vpp) = &arguments.vpp {
            all.extend(bench.vpp(vpp));
        }
    }
    Ok(all)
}

/// Everything for one kind of work: ours ready to go, and the files for the others.
struct Bench<'a> {
    work: &'a Work,
    rounds: usize,
    core: usize,
    router: Router,
    parts: Parts,
    folder: TempDir,
    packets: PathBuf,
    prefixes: Vec<(IpAddr, u8)>,
    /// How many of the packets go to each next hop.
    packets_to: Vec<usize>,
}

impl Bench<'_> {
    fn new<'a, K: Key + Address>(
        prefixes: &Prefixes<K>,
        work: &'a Work,
        arguments: &Arguments,
    ) -> Result<Bench<'a>> {
        let keys = works::destinations(prefixes);
        let flows = works::flows(&keys);
        let order: Vec<u32> = match work.order {
            Order::Zipf => keys::zipf(ZIPF_FLOWS, PACKETS, &mut Numbers::new(3)),
            Order::Cyclic => (0..PACKETS as u32).collect(),
        };
        let packets_to = packets_to(prefixes, order.iter().map(|flow| keys[*flow as usize]))?;
        let sequence: Vec<Vec<u8>> = order.into_iter().map(|flow| flows[flow as usize].clone()).collect();
        let folder = dpdk::scratch()?;
        let packets = folder.path().join("packets.pcap");
        pcap::write(&packets, &sequence)?;
        let mut router = Router::new(prefixes.len(), 1, Encapsulate::Plain)?;
        router.add(prefixes)?;
        let parts = router.worker(0, &Arc::new(Replay::new(&sequence)))?;
        let prefixes = prefixes.iter().map(|(addr, len)| (addr.ip(), *len)).collect();
        Ok(Bench {
            work,
            rounds: arguments.rounds,
            core: arguments.core()?,
            router,
            parts,
            folder,
            packets,
            prefixes,
            packets_to,
        })
    }

    /// Our own round: millions of packets a second, every one of them forwarded.
    fn ours(&mut self) -> Result<f64> {
        let (worker, counters) = (&mut self.parts.worker, &self.router.counters);
        let before = counters.books();
        let rate = measure::rate(ROUND, || forward(worker));
        let after = counters.books();
        let (received, forwarded) = (after.received - before.received, after.forwarded - before.forwarded);
        ensure!(received == forwarded, "{}: of {received} packets we forwarded {forwarded}", self.work.name);
        Ok(rate)
    }

    /// Interleaved rounds of ours and a DPDK program; nothing where it can't be had.
    fn dpdk(&mut self, kind: &Kind, pages: Pages<'_>, l3fwd: &Path) -> Option<Comparison> {
        let floor = matches!(kind, Kind::Testpmd { .. });
        let ports = if let Kind::L3fwd { ports, .. } = kind { *ports } else { 1 };
        let compared = self.routes(ports).and_then(|routes| {
            let shares = self.shares(ports);
            let files = Files {
                packets: &self.packets,
                routes: [&routes[0], &routes[1]],
                shares: &shares,
                l3fwd,
                core: self.core,
            };
            let mut forwarder = Forwarder::start(kind, pages, &files)?;
            self.rounds(!floor, forwarder.process(), || forwarder.round())
        });
        let name = kind.name(pages);
        self.told(pages.rival(), name, self.work.over_l3fwd.filter(|_| !floor), floor, compared)
    }

    /// Interleaved rounds of ours and VPP.
    fn vpp(&mut self, vpp: &Path) -> Option<Comparison> {
        let started = vpp::Vpp::start(vpp, self.core, self.folder.path(), &self.packets, &self.prefixes);
        let mut clocks = Readings::default();
        let compared = started.and_then(|mut vpp| {
            self.rounds(true, vpp.process(), || {
                let runtime = vpp.round()?;
                clocks.0.push(runtime.clocks_a_packet);
                Ok(runtime.mpps)
            })
        });
        let name = match clocks.0.as_slice() {
            [] => "vpp packet generator".to_owned(),
            _ => format!("vpp packet generator, {clocks} clocks a packet without it"),
        };
        self.told("VPP", name, self.work.over_vpp, false, compared)
    }

    /// Interleaved rounds; `process` is theirs.
    fn rounds(
        &mut self,
        with_ours: bool,
        process: u32,
        mut theirs: impl FnMut() -> Result<f64>,
    ) -> Result<Rounds> {
        let (mut our_rates, mut their_rates, mut disturbed) = (Readings::default(), Readings::default(), 0);
        for _ in 0..self.rounds {
            if with_ours {
                let reading = Watched::us().read(|| self.ours())?;
                our_rates.0.push(reading.value);
                disturbed += usize::from(reading.disturbed);
            }
            let reading = Watched::process(process).read(&mut theirs)?;
            their_rates.0.push(reading.value);
            disturbed += usize::from(reading.disturbed);
        }
        Ok(Rounds { ours: Some(our_rates).filter(|_| with_ours), theirs: their_rates, disturbed })
    }

    fn told(
        &self,
        rival: &'static str,
        peer: String,
        goal: Option<f64>,
        floor: bool,
        compared: Result<Rounds>,
    ) -> Option<Comparison> {
        match compared {
            Ok(Rounds { ours, theirs, disturbed }) => {
                let work = self.work.name;
                let comparison =
                    Comparison { work, unit: "Mpps", rival, peer, ours, theirs, goal, disturbed, floor };
                comparison.tell();
                Some(comparison)
            }
            Err(error) => {
                println!("skipped: {}, {peer}: {error:#}", self.work.name);
                None
            }
        }
    }

    /// Which share of the packets each of so many ports has to send.
    fn shares(&self, ports: usize) -> Vec<f64> {
        let mut shares = vec![0.0; ports];
        for (next_hop, packets) in self.packets_to.iter().enumerate() {
            shares[next_hop % ports] += *packets as f64 / PACKETS as f64;
        }
        shares
    }

    /// l3fwd's files of routes. What Tortie sends to a next hop, l3fwd sends to a port: 16 next hops become that many
    /// ports, or all of them one port. rte_lpm knows no /0, so one such route becomes two halves.
    fn routes(&self, ports: usize) -> Result<[PathBuf; 2]> {
        let paths = ["routes4", "routes6"].map(|name| self.folder.path().join(name));
        let mut files = Vec::new();
        for path in &paths {
            files.push(BufWriter::new(File::create(path).context("l3fwd's routes")?));
        }
        // l3fwd wants a route of each family.
        let mut routes: Vec<(IpAddr, u8, usize)> =
            vec![(IpAddr::from([0; 4]), 1, 0), (IpAddr::from([0x2000, 0, 0, 0, 0, 0, 0, 0]), 3, 0)];
        if self.prefixes.iter().all(|(_, len)| *len == 0) {
            routes.push((IpAddr::from([128, 0, 0, 0]), 1, 0));
        } else {
            let first = self.prefixes[0].0;
            routes.retain(|(addr, ..)| addr.is_ipv4() != first.is_ipv4());
            routes.extend(
                (self.prefixes.iter().enumerate())
                    .map(|(number, (addr, len))| (*addr, *len, next_hop(number) % ports)),
            );
        }
        for (addr, len, port) in routes {
            writeln!(files[usize::from(addr.is_ipv6())], "R{addr}/{len} {port}")?;
        }
        for file in &mut files {
            file.flush()?;
        }
        Ok(paths)
    }
}

/// The next hop of a prefix, as [`Router::add`] spreads them.
pub(super) fn next_hop(number: usize) -> usize {
    number * 7 % NEXT_HOPS as usize
}

/// How many of these addresses each next hop gets.
fn packets_to<K: Key>(prefixes: &Prefixes<K>, addresses: impl Iterator<Item = K>) -> Result<Vec<usize>> {
    let mut table = Table::new(Limits::for_routes(prefixes.len() as u32));
    for (number, &(addr, len)) in prefixes.iter().enumerate() {
        table.insert(addr, len, next_hop(number) as Value).context("the limits are the table's")?;
        // No reader looks yet.
        table.retire(1, 1);
    }
    let lookup = table.reader();
    let mut packets = vec![0; NEXT_HOPS as usize];
    for address in addresses {
        let next_hop = lookup.lookup(address).context("packets go to addresses of the table")?;
        packets[next_hop as usize] += 1;
    }
    Ok(packets)
}

fn forward(worker: &mut Worker) -> usize {
    (0..64).map(|_| worker.round()).sum()
}

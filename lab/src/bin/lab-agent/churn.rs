//! A BGP peer whose routes move from one next hop to the other and back, so many a second; and a scraper of metrics.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use lab::bgp_message;
use serde_json::json;

use crate::{hostile, millis, tell};

/// Prefixes in one UPDATE: as many as fit 4096 octets (RFC 4271 §4) with attributes.
const IN_ONE: usize = 900;
/// Where the prefixes begin, each a /24.
const FIRST: Ipv4Addr = Ipv4Addr::new(20, 0, 0, 0);
/// The prefix that stays with the second next hop.
const STEADY: Ipv4Addr = Ipv4Addr::new(19, 0, 0, 0);

/// How long the router may take until it listens.
const CONNECT: Duration = Duration::from_secs(10);

/// What is to be announced and moved.
pub(crate) struct Plan<'a> {
    /// Our AS number.
    pub(crate) as_number: u16,
    /// The next hops that routes move between; all begin with the first.
    pub(crate) nexthops: [Ipv4Addr; 2],
    /// How many routes.
    pub(crate) routes: usize,
    /// How many of them move a second.
    pub(crate) per_second: u32,
    /// For how long.
    pub(crate) time: Duration,
    /// Moving begins when this file is there.
    pub(crate) go: &'a Path,
}

/// Announces, waits for the go, moves routes, tells how many, and stays until it is ended.
pub(crate) fn churn(router: SocketAddr, source: SocketAddr, plan: &Plan<'_>) -> Result<()> {
    let mut stream = session(router, source)?;
    let std::net::IpAddr::V4(router_id) = source.ip() else { anyhow::bail!("{source} is not IPv4") };
    stream.write_all(&bgp_message::open(4, plan.as_number, router_id))?;
    stream.write_all(&bgp_message::keepalive())?;
    drain(&stream)?;
    let attributes =
        plan.nexthops.map(|nexthop| bgp_message::valid_attributes(plan.as_number, nexthop).concat());
    let prefixes: Vec<Ipv4Addr> =
        (0..plan.routes as u32).map(|number| Ipv4Addr::from(u32::from(FIRST) + number * 256)).collect();
    stream.write_all(&bgp_message::update(&[], &attributes[1], &[STEADY]))?;
    for some in prefixes.chunks(IN_ONE) {
        stream.write_all(&bgp_message::update(&[], &attributes[0], some))?;
    }
    tell(&json!({ "announced": prefixes.len() + 1 }))?;
    while !plan.go.exists() {
        thread::sleep(Duration::from_millis(10));
    }
    let begin = Instant::now();
    let mut moved = 0u64;
    let mut pass = 0;
    'moving: loop {
        pass += 1;
        for some in prefixes.chunks(IN_ONE) {
            if begin.elapsed() >= plan.time {
                break 'moving;
            }
            stream.write_all(&bgp_message::update(&[], &attributes[pass % 2], some))?;
            moved += some.len() as u64;
            let due = Duration::from_secs_f64(moved as f64 / f64::from(plan.per_second));
            thread::sleep(due.saturating_sub(begin.elapsed()));
        }
    }
    tell(&json!({ "moved": moved, "seconds": begin.elapsed().as_secs_f64() }))?;
    loop {
        thread::sleep(Duration::from_secs(1));
    }
}

/// Connects as soon as the router listens to this peer.
fn session(router: SocketAddr, source: SocketAddr) -> Result<TcpStream> {
    let deadline = Instant::now() + CONNECT;
    loop {
        match hostile::connect(router, source) {
            Err(_) if Instant::now() < deadline => thread::sleep(Duration::from_millis(100)),
            connected => return connected,
        }
    }
}

/// Reads what the router sends and forgets it, or its window would fill up.
fn drain(stream: &TcpStream) -> Result<()> {
    let mut stream = stream.try_clone()?;
    thread::spawn(move || {
        let mut octets = [0; 4096];
        while stream.read(&mut octets).is_ok_and(|length| length > 0) {}
    });
    Ok(())
}

/// Asks for the page of metrics at every interval, and tells at the end how often it came.
pub(crate) fn scrape(address: SocketAddr, every: Duration, time: Duration) -> Result<()> {
    let begin = Instant::now();
    let (mut times, mut bytes) = (Vec::new(), 0);
    while begin.elapsed() < time {
        let asked = Instant::now();
        let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(5))
            .context("no connection for a scrape")?;
        write!(stream, "GET /metrics HTTP/1.1\r\nHost: lab\r\nConnection: close\r\n\r\n")?;
        let mut page = String::new();
        stream.read_to_string(&mut page)?;
        ensure!(page.starts_with("HTTP/1.1 200"), "the scrape was answered by {:?}", page.lines().next());
        bytes = page.len();
        times.push(asked.elapsed());
        thread::sleep(every.saturating_sub(asked.elapsed()));
    }
    times.sort_unstable();
    let (middle, slowest) = (times.get(times.len() / 2), times.last());
    let [middle, slowest] = [middle, slowest].map(|time| time.copied().unwrap_or_default());
    tell(&json!({
        "scrapes": times.len(),
        "median_us": u64::try_from(middle.as_micros()).unwrap_or(u64::MAX),
        "slowest_ms": millis(slowest),
        "bytes": bytes,
    }))
}

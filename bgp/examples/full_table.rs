//! How long a full internet table takes, and what it weighs.
//!
//! Feeds the prefixes of `../shared/data` (or `$TORTIE_DATA`), five to an UPDATE with attributes of their own, to
//! one speaker that announces them to other peers (one, or as many as the argument says), and prints seconds and octets for each prefix.
//!
//! ```text
//! cargo run --release -p bgp --example full_table [PEERS]
//! ```

use std::error::Error;
use std::io::{BufRead, BufReader};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Instant;

use bgp::wire::capability::Capability;
use bgp::wire::nlri::{AfiSafi, Nlri, emit};
use bgp::wire::open::Open;
use bgp::{ConnectionId, Direction, Input, Output, PeerConfig, PeerId, Speaker, SpeakerConfig};
use model::{AsNumber, Family, Prefix};

/// Prefixes in one UPDATE.
const GROUP: usize = 5;

fn main() -> Result<(), Box<dyn Error>> {
    let prefixes = read_table()?;
    let feed = feed(&prefixes);
    println!("{} prefixes, {} octets of UPDATEs", prefixes.len(), feed.len());
    let listeners = std::env::args().nth(1).map_or(Ok(1), |number| number.parse())?;
    run(&prefixes, &feed, listeners);
    Ok(())
}

fn run(prefixes: &[Prefix], feed: &[u8], listeners: u32) {
    let before = resident();
    let mut now = Instant::now();
    let mut config = SpeakerConfig::new(Ipv4Addr::new(10, 0, 0, 1), AsNumber(65000));
    config.seed = 42;
    let mut speaker = Speaker::new(config);
    let mut out = Vec::new();
    for peer in 0..=listeners {
        establish(&mut speaker, peer, now, &mut out);
    }
    let (mut changes, mut sent) = (0, 0);
    let began = Instant::now();
    let mut longest = std::time::Duration::ZERO;
    let mut pieces = feed.chunks(65_536);
    loop {
        now = Instant::now();
        let input = match pieces.next() {
            Some(bytes) => Input::Received { connection: ConnectionId(0), bytes },
            None if speaker.next_deadline().is_some_and(|deadline| deadline <= now) => Input::Tick,
            None => break,
        };
        speaker.handle(input, now, &mut out);
        longest = longest.max(now.elapsed());
        let mut watched = Vec::new();
        for output in out.drain(..) {
            match output {
                Output::RouteChanged { .. } => changes += 1,
                Output::Send { bytes, .. } => sent += bytes.len(),
                Output::WatchNexthop(nexthop) => watched.push(nexthop),
                _ => {}
            }
        }
        for nexthop in watched {
            speaker.handle(Input::NexthopChanged { nexthop, metric: Some(1) }, now, &mut out);
        }
    }
    let seconds = began.elapsed().as_secs_f64();
    let held = Family::ALL.map(|family| speaker.route_count(family));
    let octets = resident().saturating_sub(before);
    println!(
        "{listeners} listeners: {seconds:.2} s, {:.2} µs and {:.0} octets a prefix; holds {held:?}, {changes} routes \
         changed, {sent} octets sent, longest call {:.1} ms",
        seconds * 1e6 / prefixes.len() as f64,
        octets as f64 / prefixes.len() as f64,
        longest.as_secs_f64() * 1e3,
    );
}

fn establish(speaker: &mut Speaker, peer: u32, now: Instant, out: &mut Vec<Output>) {
    let address = Ipv4Addr::new(10, 0, 1, peer as u8 + 1);
    let as_number = 65001 + peer;
    let mut config = PeerConfig::new(PeerId(peer), address.into(), AsNumber(as_number));
    config.families = Family::ALL.to_vec();
    config.self_next_hops.v6 = "2001:db8::1".parse().ok();
    (config.passive, config.policy_required) = (true, false);
    speaker.handle(Input::PutPeer(config), now, out);
    let connection = ConnectionId(peer.into());
    let local = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 0, 1, 254)), 179);
    let opened =
        Input::ConnectionOpened { peer: PeerId(peer), connection, direction: Direction::Inbound, local };
    speaker.handle(opened, now, out);
    let mut capabilities: Vec<_> =
        Family::ALL.into_iter().map(|family| Capability::MultiProtocol(AfiSafi::unicast(family))).collect();
    capabilities.push(Capability::FourOctetAs(as_number));
    let mut bytes = Vec::new();
    Open { my_as: as_number as u16, hold_time: 90, router_id: address, capabilities }.emit(&mut bytes);
    bytes.extend([0xff; 16]);
    bytes.extend([0, 19, 4]);
    speaker.handle(Input::Received { connection, bytes: &bytes }, now, out);
}

/// UPDATEs of five prefixes, each with an AS_PATH and communities of its own.
fn feed(prefixes: &[Prefix]) -> Vec<u8> {
    let mut feed = Vec::new();
    for family in Family::ALL {
        let of_family: Vec<_> = prefixes.iter().copied().filter(|prefix| prefix.family() == family).collect();
        for (number, group) in of_family.chunks(GROUP).enumerate() {
            let mut nlri = Vec::new();
            group.iter().for_each(|&prefix| emit(&mut nlri, Nlri { path_id: 0, prefix }, false));
            feed.extend(update(family, number as u32, &nlri));
        }
    }
    feed
}

fn update(family: Family, number: u32, nlri: &[u8]) -> Vec<u8> {
    let hops = 2 + number % 4;
    let mut attributes = vec![0x40, 1, 1, 0, 0x40, 2, 2 + 4 * hops as u8, 2, hops as u8];
    attributes.extend(65001u32.to_be_bytes());
    (1..hops).for_each(|hop| {
        attributes.extend((1000 + (number.wrapping_mul(2654435761) >> 8) % 60000 + hop).to_be_bytes())
    });
    if family == Family::V4 {
        attributes.extend([0x40, 3, 4, 10, 0, 1, 1]);
    }
    let communities = (number % 5) as u8;
    if communities > 0 {
        attributes.extend([0xc0, 8, 4 * communities]);
        (0..u32::from(communities))
            .for_each(|at| attributes.extend((0xfde9_0000 + number % 700 + at).to_be_bytes()));
    }
    let mut classic = nlri;
    if family == Family::V6 {
        attributes.extend([0x90, 14]);
        attributes.extend((21 + nlri.len() as u16).to_be_bytes());
        attributes.extend([0, 2, 1, 16]);
        attributes.extend("2001:db8::2".parse().map_or([0; 16], |addr: std::net::Ipv6Addr| addr.octets()));
        attributes.push(0);
        attributes.extend(nlri);
        classic = &[];
    }
    let mut message = vec![0xff; 16];
    message.extend((23 + attributes.len() as u16 + classic.len() as u16).to_be_bytes());
    message.extend([2, 0, 0]);
    message.extend((attributes.len() as u16).to_be_bytes());
    message.extend(attributes);
    message.extend(classic);
    message
}

fn read_table() -> Result<Vec<Prefix>, Box<dyn Error>> {
    let folder = std::env::var_os("TORTIE_DATA")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared/data"), PathBuf::from);
    let file = folder.join("internet-prefixes.txt.gz");
    let Ok(file) = std::fs::File::open(&file) else {
        println!("{} is not there: a made-up table takes its place", file.display());
        return Ok((0..900_000u32)
            .filter_map(|at| Prefix::new(IpAddr::V4((at << 8 | 0x0100_0000).into()), 24))
            .collect());
    };
    let lines = BufReader::new(flate2::read::GzDecoder::new(file)).lines();
    lines.map(|line| Ok(line?.trim().parse()?)).collect()
}

/// Resident memory of this process in octets; 0 where the system does not say.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes = line.and_then(|line| line.split_whitespace().next()?.parse::<usize>().ok());
    kilobytes.unwrap_or(0) * 1024
}

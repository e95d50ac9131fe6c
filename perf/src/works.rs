//! Kinds of work for the walk: what packets come, what routes there are, what is done.

use std::sync::Arc;

use anyhow::{Context, Result};
use lpm::Key;
use model::{QosControls, QosDirection, ReversePath};

use crate::data::{Internet, Prefixes};
use crate::keys::{self, Mix, Numbers, ZIPF_FLOWS};
use crate::packets::{self, SMALL};
use crate::replay_port::Replay;
use crate::router::{Address, Encapsulate, Router};

/// Packets before the first comes again.
pub const PACKETS: usize = 1 << 16;

/// Makes a router for so many workers to do one kind of work, and what they receive.
pub type Make = fn(&Internet, usize) -> Result<(Router, Arc<Replay>)>;

/// Every kind of work: 64 bytes, 65,536 flows.
pub const WORKS: [(&str, Make); 20] = [
    ("ipv4 one route", |_, workers| plain(&vec![(0u32, 0)], workers, Order::Cyclic, Encapsulate::Plain)),
    ("ipv4 full table zipf", |internet, workers| {
        plain(&internet.v4, workers, Order::Zipf, Encapsulate::Plain)
    }),
    // Each is a batch of its own, as under light traffic: what a batch costs whatever it holds.
    ("ipv4 one at a time zipf", |internet, workers| {
        let (router, replay) = plain(&internet.v4, workers, Order::Zipf, Encapsulate::Plain)?;
        let replay = Arc::into_inner(replay).context("nobody receives it yet")?;
        Ok((router, Arc::new(replay.at_once(1))))
    }),
    ("ipv4 full table cyclic", |internet, workers| {
        plain(&internet.v4, workers, Order::Cyclic, Encapsulate::Plain)
    }),
    ("ipv6 full table zipf", |internet, workers| {
        plain(&internet.v6, workers, Order::Zipf, Encapsulate::Plain)
    }),
    ("ipv6 full table cyclic", |internet, workers| {
        plain(&internet.v6, workers, Order::Cyclic, Encapsulate::Plain)
    }),
    ("ipip encapsulation zipf", |internet, workers| {
        plain(&internet.v4, workers, Order::Zipf, Encapsulate::Ipip)
    }),
    ("vxlan encapsulation zipf", |internet, workers| {
        plain(&internet.v4, workers, Order::Zipf, Encapsulate::Vxlan)
    }),
    ("vxlan over ipv6 encapsulation zipf", |internet, workers| {
        plain(&internet.v4, workers, Order::Zipf, Encapsulate::VxlanV6)
    }),
    ("ipip decapsulation zipf", |internet, workers| tunnelled(&internet.v4, workers, Encapsulate::Ipip)),
    ("vxlan decapsulation zipf", |internet, workers| tunnelled(&internet.v4, workers, Encapsulate::Vxlan)),
    ("vxlan over ipv6 decapsulation zipf", |internet, workers| {
        tunnelled(&internet.v4, workers, Encapsulate::VxlanV6)
    }),
    ("ipv4 four next hops zipf", |internet, workers| {
        let (mut router, replay) = plain(&internet.v4, workers, Order::Zipf, Encapsulate::Plain)?;
        router.widen(4);
        Ok((router, replay))
    }),
    ("ipv4 loose sources zipf", |internet, workers| loose(&internet.v4, workers)),
    ("ipv6 loose sources zipf", |internet, workers| loose(&internet.v6, workers)),
    ("ipv4 from a workload zipf", |internet, workers| {
        from_workload(&internet.v4, workers, &QosControls::default())
    }),
    ("ipv4 limited workload zipf", |internet, workers| {
        // More than any core sends: every packet is counted and none refused.
        let egress = QosDirection {
            bandwidth: Some(1_000_000_000_000),
            packet_rate: Some(1 << 40),
            packet_burst: Some(1 << 20),
            ..QosDirection::default()
        };
        from_workload(&internet.v4, workers, &QosControls { egress, ..QosControls::default() })
    }),
    ("ipv4 translated source zipf", |internet, workers| {
        let (mut router, replay) = from_workload(&internet.v4, workers, &QosControls::default())?;
        router.translate();
        Ok((router, replay))
    }),
    // Every packet's flow is known.
    ("ipv4 policy established zipf", |internet, workers| {
        let (mut router, replay) = from_workload(&internet.v4, workers, &QosControls::default())?;
        router.police(1 << 18)?;
        Ok((router, replay))
    }),
    // No packet's is: the table holds fewer flows than there are, and an unanswered one makes room for the next.
    ("ipv4 policy-new cyclic", |internet, workers| {
        let (mut router, replay) = plain(&internet.v4, workers, Order::Cyclic, Encapsulate::Plain)?;
        router.behind_a_workload(&QosControls::default())?;
        router.police(1 << 12)?;
        Ok((router, replay))
    }),
];

#[derive(Clone, Copy)]
enum Order {
    Zipf,
    Cyclic,
}

impl Order {
    /// The packets in this order.
    fn arrange(self, flows: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
        match self {
            Order::Zipf => {
                let drawn = keys::zipf(flows.len(), PACKETS, &mut Numbers::new(3));
                drawn.into_iter().map(|flow| flows[flow as usize].clone()).collect()
            }
            Order::Cyclic => flows,
        }
    }
}

fn plain<K: Key + Address>(
    prefixes: &Prefixes<K>,
    workers: usize,
    order: Order,
    encapsulate: Encapsulate,
) -> Result<(Router, Arc<Replay>)> {
    let packets = order.arrange(flows(&destinations(prefixes)));
    let mut router = Router::new(prefixes.len(), workers, encapsulate)?;
    router.add(prefixes)?;
    Ok((router, Arc::new(Replay::new(&packets))))
}

/// An address for each of [`ZIPF_FLOWS`] flows, routed and fit to be forwarded to.
pub fn destinations<K: Key + Address>(prefixes: &Prefixes<K>) -> Vec<K> {
    let mut keys = keys::draw(Mix::Table, prefixes, 4 * ZIPF_FLOWS);
    keys.retain(|key| packets::is_routable(key.ip()));
    keys.truncate(ZIPF_FLOWS);
    keys
}

/// A packet to each of these addresses, each a flow of its own.
pub fn flows<K: Address + Copy>(destinations: &[K]) -> Vec<Vec<u8>> {
    let packet = |(flow, key): (u16, &K)| packets::udp(key.ip(), flow, SMALL);
    (0..=u16::MAX).zip(destinations).map(packet).collect()
}

/// Packets whose sources, spread over the table as well, are held to it.
fn loose<K: Key + Address>(prefixes: &Prefixes<K>, workers: usize) -> Result<(Router, Arc<Replay>)> {
    let addrs = destinations(prefixes);
    let sources = addrs.iter().rev().map(|key| key.ip());
    let pairs = (0..=u16::MAX).zip(addrs.iter().zip(sources));
    let flows = pairs.map(|(flow, (to, from))| packets::udp_from(from, to.ip(), flow, SMALL));
    let packets = Order::Zipf.arrange(flows.collect());
    let mut router = Router::new(prefixes.len(), workers, Encapsulate::Plain)?;
    router.writer.set_reverse_path(ReversePath::Loose);
    router.writer.publish();
    router.add(prefixes)?;
    Ok((router, Arc::new(Replay::new(&packets))))
}

/// Packets of a workload, which may send so much.
fn from_workload(
    prefixes: &Prefixes<u32>,
    workers: usize,
    controls: &QosControls,
) -> Result<(Router, Arc<Replay>)> {
    let (mut router, replay) = plain(prefixes, workers, Order::Zipf, Encapsulate::Plain)?;
    router.behind_a_workload(controls)?;
    Ok((router, replay))
}

/// Packets that come in a tunnel and leave without one.
fn tunnelled(
    prefixes: &Prefixes<u32>,
    workers: usize,
    encapsulate: Encapsulate,
) -> Result<(Router, Arc<Replay>)> {
    let packets = Order::Zipf.arrange(flows(&destinations(prefixes)));
    let packets: Vec<Vec<u8>> =
        packets.into_iter().map(|inner| packets::tunnelled(&inner, encapsulate)).collect();
    let mut router = Router::new(prefixes.len(), workers, Encapsulate::Plain)?;
    router.open_tunnels(encapsulate);
    router.add(prefixes)?;
    Ok((router, Arc::new(Replay::new(&packets))))
}

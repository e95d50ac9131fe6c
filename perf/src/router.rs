//! A router in memory: tables full of routes, workers with a port to receive by and one to send by.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use afxdp::{Region, RegionConfig};
use anyhow::{Context, Result};
use crossbeam_channel::Sender;
use fastpath::{Command, PortQueue, Waiting, Worker, WorkerConfig, WorkerEnds, handoffs};
use lpm::Key;
use model::{IfIndex, MacAddr, PortId, PortKind, Prefix, QosControls, WorkerId};
use packet::encapsulation::{Template, VXLAN_PORT};
use policy::rule::{Action, AfterTiers, Checks, EndMatch, Policy, Rule, Tier, TierDefault};
use tables::{
    AddressSet, Adjacency, Capturing, Counters, Endpoint, EndpointPolicy, Flows, Group, GroupId, Limits, Nat,
    NatRules, PolicyLimits, PolicyReport, Port, Qos, Tracing, TunnelEnd, TunnelKind, Writer, copy_ring,
};

use crate::data::Prefixes;
use crate::packets;
use crate::replay_port::{Replay, ReplayPort};

/// Where packets come in.
pub const INGRESS: PortId = PortId(0);
/// Where they leave.
pub const EGRESS: PortId = PortId(1);
/// Next hops that routes are spread over.
pub const NEXT_HOPS: u32 = 16;
/// The router's own address, where tunnels begin and end.
pub const LOCAL: Ipv4Addr = Ipv4Addr::new(172, 18, 0, 1);
/// The address of tunnel packets that are to be opened.
pub const REMOTE: Ipv4Addr = Ipv4Addr::new(172, 18, 1, 1);
/// Both, where the tunnel is over IPv6.
pub const LOCAL_V6: Ipv6Addr = Ipv6Addr::new(0xfd18, 0, 0, 0, 0, 0, 0, 1);
/// Our address inside tunnels.
const TUNNEL_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 65, 0, 1);
/// See [`LOCAL_V6`].
pub const REMOTE_V6: Ipv6Addr = Ipv6Addr::new(0xfd18, 0, 0, 1, 0, 0, 0, 1);
/// The network identifier of VXLAN tunnels.
pub const VNI: u32 = 4096;
/// Frames that a port keeps to receive into.
const SLOTS: usize = 512;
const PORTS: usize = 2;
/// Rules in front of the one that decides.
const RULES: u16 = 20;

/// What is done to packets besides forwarding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encapsulate {
    /// Nothing.
    Plain,
    /// They leave in IPIP.
    Ipip,
    /// They leave in VXLAN.
    Vxlan,
    /// They leave in VXLAN over IPv6.
    VxlanV6,
}

/// Tables with routes, and workers to use them.
pub struct Router {
    /// The tables.
    pub writer: Writer,
    /// What the workers count.
    pub counters: Counters,
    /// The groups that routes lead to.
    pub groups: Vec<GroupId>,
    flows: Flows,
    workers: usize,
}

/// A worker, and what must be kept for it to go on.
pub struct Parts {
    /// The worker.
    pub worker: Worker,
    _others: Others,
}

/// The other ends of a worker's rings and channels.
struct Others {
    _commands: Sender<Command>,
    _copies: Box<dyn std::any::Any + Send>,
}

/// A worker that has yet to start. The router starts each on the thread that runs it, so that what it writes at every batch
/// lies on that thread's stack, and not next to another worker's.
pub struct Unstarted {
    config: WorkerConfig,
    ends: WorkerEnds,
    others: Others,
}

impl Unstarted {
    /// Starts it here, with its ports.
    pub fn start(self) -> Parts {
        let mut worker = Worker::new(self.config, self.ends);
        worker.housekeeping();
        Parts { worker, _others: self.others }
    }
}

impl Router {
    /// Empty tables for this many routes of both families together and workers, and [`NEXT_HOPS`] next hops.
    ///
    /// # Errors
    /// Where the tables are too small, which they aren't.
    pub fn new(routes: usize, workers: usize, encapsulate: Encapsulate) -> Result<Router> {
        let limits = Limits {
            ports: PORTS,
            adjacencies: 4096,
            groups: 4096,
            routes_v4: routes + 16,
            routes_v6: routes + 16,
            policy: PolicyLimits { programs: 4, rules: 64, members: 0, bytes: 1 << 20 },
            readers: workers,
        };
        let mut writer = Writer::new(limits);
        // As the router does.
        writer.fib().places().into_iter().for_each(afxdp::prefer_huge_pages);
        for id in [INGRESS, EGRESS] {
            writer.put_port(uplink(id, workers))?;
        }
        let mut groups = Vec::new();
        for number in 0..NEXT_HOPS {
            let neighbor = Ipv4Addr::from(u32::from(LOCAL) + 256 + 1 + number);
            let destination = MacAddr([2, 0, 0, 1, 0, number as u8]);
            let plain = Adjacency::resolved(EGRESS, IpAddr::V4(neighbor), destination, packets::ROUTER);
            let adjacency = match encapsulate {
                Encapsulate::Plain => plain,
                Encapsulate::Ipip => plain.encapsulated(Template::ipip(LOCAL, neighbor)),
                Encapsulate::Vxlan => {
                    let (to, from) = (destination, packets::ROUTER);
                    plain.encapsulated(Template::vxlan(LOCAL, neighbor, VXLAN_PORT, VNI, to, from))
                }
                Encapsulate::VxlanV6 => {
                    let (to, from) = (destination, packets::ROUTER);
                    let neighbor = neighbor.to_ipv6_mapped();
                    plain.encapsulated(Template::vxlan_v6(LOCAL_V6, neighbor, VXLAN_PORT, VNI, to, from))
                }
            };
            let adjacency = writer.insert_adjacency(adjacency)?;
            groups.push(writer.insert_group(Group::Forward(vec![adjacency]))?);
        }
        writer.set_ready(true);
        writer.publish();
        let flows = Flows::new(1024);
        Ok(Router { writer, counters: Counters::new(workers, PORTS), groups, flows, workers })
    }

    /// Makes the port that packets come by a workload's, which owns their source and has these controls.
    ///
    /// # Errors
    /// Where the tables are too small.
    pub fn behind_a_workload(&mut self, controls: &QosControls) -> Result<()> {
        let port = uplink(INGRESS, self.workers);
        let endpoint = Endpoint {
            name: "default/workload".to_owned(),
            addresses: vec![Prefix::host(packets::SOURCE.into())],
            qos: Qos::new(controls, port.mtu, None),
        };
        self.writer.put_port(Port { kind: PortKind::Workload, endpoint: Some(endpoint), ..port })?;
        self.writer.publish();
        Ok(())
    }

    /// Has workloads' packets leave under another source. Workers made from now on share a table of flows that holds as
    /// many as there are packets.
    pub fn translate(&mut self) {
        let rules = NatRules {
            outgoing: vec![(LOCAL.into(), 1024..=u16::MAX, false)],
            sources: vec![Prefix::host(packets::SOURCE.into())],
            ..NatRules::default()
        };
        self.flows = flows_of(1 << 18);
        self.writer.set_nat(Nat::new(&rules));
        self.writer.publish();
    }

    /// Holds the workload's packets to an egress policy of so many rules, of which the last one lets them pass. Workers made
    /// from now on share a table of so many flows.
    ///
    /// # Errors
    /// Where the tables are too small.
    pub fn police(&mut self, flows: usize) -> Result<()> {
        let to = |action, port| Rule {
            protocol: Some(packet::protocol::UDP),
            destination: EndMatch { ports: vec![(port..=port).into()], ..EndMatch::default() },
            ..Rule::any(action)
        };
        // No packet is for these ports.
        let mut rules: Vec<Rule> = (1..=RULES).map(|port| to(Action::Deny, 100 + port)).collect();
        rules.push(Rule::any(Action::Allow));
        let policies = vec![Arc::new(Policy { name: "default/bench".to_owned(), rules })];
        let tiers = vec![Tier { name: "default".to_owned(), policies, default: TierDefault::Deny }];
        let egress = Some(Arc::new(Checks { tiers, after: AfterTiers::Profiles(Vec::new()) }));
        self.flows = flows_of(flows);
        self.writer
            .put_policy("default/workload", &EndpointPolicy { egress, ..EndpointPolicy::default() })?;
        self.writer.publish();
        Ok(())
    }

    /// Opens packets that come by a tunnel of this kind from [`REMOTE`].
    pub fn open_tunnels(&mut self, encapsulate: Encapsulate) {
        let vxlan = TunnelKind::Vxlan { port: VXLAN_PORT, vni: VNI, mac: packets::ROUTER };
        let end = |kind, local: IpAddr, remote| vec![TunnelEnd::new(local, kind, [Prefix::host(remote)])];
        self.writer.set_tunnel_ends(match encapsulate {
            Encapsulate::Plain => vec![],
            Encapsulate::Ipip => end(TunnelKind::Ipip, LOCAL.into(), REMOTE.into()),
            Encapsulate::Vxlan => end(vxlan, LOCAL.into(), REMOTE.into()),
            Encapsulate::VxlanV6 => end(vxlan, LOCAL_V6.into(), REMOTE_V6.into()),
        });
        // As a node has them: its own of each family, and one in the tunnels' networks.
        let own = [LOCAL.into(), LOCAL_V6.into(), TUNNEL_ADDRESS.into()].map(Prefix::host);
        self.writer.set_own_addresses(AddressSet::new(own));
        self.writer.publish();
    }

    /// Gives each group so many of the next hops, at most [`NEXT_HOPS`].
    pub fn widen(&mut self, members: usize) {
        let staged = self.writer.staged();
        let single = self.groups.iter().filter_map(|group| staged.group(*group));
        let hops: Vec<_> = single.flat_map(Group::members).copied().collect();
        for (number, group) in self.groups.iter().enumerate() {
            let members = hops.iter().cycle().skip(number).take(members).copied().collect();
            self.writer.replace_group(*group, Group::Forward(members));
        }
        self.writer.publish();
    }

    /// Adds routes, spread over the next hops.
    ///
    /// # Errors
    /// Where the tables are too small.
    pub fn add<K: Key + Address>(&mut self, prefixes: &Prefixes<K>) -> Result<()> {
        for (number, (addr, len)) in prefixes.iter().enumerate() {
            let prefix = Prefix::new(addr.ip(), *len).context("a prefix of a table is one")?;
            self.writer.insert_route(prefix, self.groups[number * 7 % self.groups.len()])?;
            if number % 1024 == 0 {
                self.writer.reclaim();
            }
        }
        self.writer.reclaim();
        Ok(())
    }

    /// Worker `number`, which receives `replay`.
    ///
    /// # Errors
    /// Where there is no memory for frames.
    pub fn worker(&mut self, number: usize, replay: &Arc<Replay>) -> Result<Parts> {
        Ok(self.unstarted(number, replay)?.start())
    }

    /// [`Router::worker`], for another thread to start.
    ///
    /// # Errors
    /// Where there is no memory for frames.
    pub fn unstarted(&mut self, number: usize, replay: &Arc<Replay>) -> Result<Unstarted> {
        self.unstarted_with(number, Box::new(ReplayPort::new(Arc::clone(replay), SLOTS, number * 7919)))
    }

    /// Worker `number`, which receives by a queue of the caller's.
    ///
    /// # Errors
    /// Where there is no memory for frames.
    pub fn worker_with(&mut self, number: usize, ingress: Box<dyn PortQueue>) -> Result<Parts> {
        Ok(self.unstarted_with(number, ingress)?.start())
    }

    fn unstarted_with(&mut self, number: usize, ingress: Box<dyn PortQueue>) -> Result<Unstarted> {
        let (punt, punts) = copy_ring(64, 2048);
        let (injected, inject) = copy_ring(64, 2048);
        let (commands, taken) = crossbeam_channel::unbounded();
        let config =
            RegionConfig { frames: 2 * SLOTS as u32 + 1024, chunk_size: 2048, large: None, hugepages: false };
        let ends = WorkerEnds {
            pool: Region::new(config)?.1,
            reader: self.writer.reader().context("a reader for every worker")?,
            flows: self.flows.clone(),
            counters: self.counters.clone(),
            policy_report: PolicyReport::new(self.workers, 1024, 64),
            tracing: Tracing::new(1),
            capturing: Capturing::new(),
            punt,
            inject,
            handoffs: handoffs(self.workers, 16, 2048).remove(number),
            commands: taken,
        };
        let id = WorkerId(number as u16);
        let config =
            WorkerConfig { id, core: None, waiting: Waiting::default(), idle_wait: Duration::from_millis(1) };
        let egress: Box<dyn PortQueue> = Box::new(ReplayPort::sink());
        for (port, queue) in [(INGRESS, ingress), (EGRESS, egress)] {
            let command = Command::AddQueue { port, queue, statistics: Arc::default() };
            commands.send(command).ok().context("the worker's queue of commands is open")?;
        }
        let others = Others { _commands: commands, _copies: Box::new((punts, injected)) };
        Ok(Unstarted { config, ends, others })
    }
}

/// A table of flows as the router has it.
fn flows_of(rows: usize) -> Flows {
    let flows = Flows::new(rows);
    flows.places().into_iter().for_each(afxdp::prefer_huge_pages);
    flows
}

fn uplink(id: PortId, workers: usize) -> Port {
    Port {
        id,
        name: format!("port{id}"),
        ifindex: IfIndex(100 + u32::from(id.0)),
        kind: PortKind::Uplink,
        mac: packets::ROUTER,
        mtu: 1500,
        up: true,
        queues: workers as u16,
        endpoint: None,
    }
}

/// A key that is an address.
pub trait Address {
    /// The address.
    fn ip(self) -> IpAddr;
}

impl Address for u32 {
    fn ip(self) -> IpAddr {
        IpAddr::V4(self.into())
    }
}

impl Address for u128 {
    fn ip(self) -> IpAddr {
        IpAddr::V6(self.into())
    }
}

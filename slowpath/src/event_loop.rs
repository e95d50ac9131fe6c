//! The one owner of all state: takes events in turn and keeps the tables true.
//!
//! A turn: one event, then what else is already waiting (as much as [`TURN`] allows), then [`Core::settle`], which
//! brings ports, offers, sessions, RIB, tables, mirror and neighbours into line, in that order, as far as something
//! made it necessary.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use ahash::AHashSet;
use bgp::{Direction, Input, Output, PeerState, Speaker};
use datastore::{Directory, DirectoryConfig};
use model::{Family, IfIndex, MacAddr, PortId, PortKind, Prefix, Update};
use tables::{Inject, Punt, PuntReason, RingConsumer, RingProducer};
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval, sleep_until, timeout};
use tracing::{debug, error, info, warn};

use crate::calico::{Calico, Desired};
use crate::config::{Config, Ends, Request, Slowpath};
use crate::error::Error;
use crate::event::Event;
use crate::host_port::HostPort;
use crate::install::{Installer, Surroundings};
use crate::interfaces::{self, KernelEvent, KernelState, Monitor};
use crate::kernel_routes::{self, mirror::Mirror, policy_rules};
use crate::mirroring::Mirroring;
use crate::neighbors;
use crate::neighbors::managed::ManagedNeighbors;
use crate::neighbors::table::{NeighborOrigin, NeighborTable, Wanted};
use crate::netlink::Netlink;
use crate::offers::{self, Offers, Roles};
use crate::peers::Peers;
use crate::port_table::PortTable;
use crate::punt::{Answer, Answerer, OurAddresses};
use crate::resolve::{self, NeighborAddr};
use crate::rib::{Rib, Source};
use crate::sessions::{self, Sessions};
use crate::target::{Gateway, Target};
use crate::{PortOpener, forwarding_guard, sysctl};

/// Events that may wait; a BGP peer is held back by TCP when they are this many.
const EVENTS: usize = 512;
/// Events taken before the tables are brought into line.
const TURN: usize = 256;
/// How often punted packets are looked for.
const PUNTS_EVERY: Duration = Duration::from_millis(1);
/// How often what failed is tried again.
const RETRY_EVERY: Duration = Duration::from_secs(1);
/// How long changes of the kernel may gather before they are read.
const KERNEL_SETTLES: Duration = Duration::from_millis(20);
/// How long routes of the run before are kept where BGP doesn't say that it is complete.
const PRESERVE_AT_MOST: Duration = Duration::from_secs(150);

/// What has changed and isn't acted on yet.
#[derive(Default)]
struct Dirty {
    /// Links, addresses or routes of the kernel, since when.
    kernel: Option<Instant>,
    /// Calico's resources.
    resources: bool,
    /// Anything that offers are made of.
    offers: bool,
    /// Anything that groups and adjacencies are made of.
    rows: bool,
}

/// All state of the slow path.
pub(crate) struct Core {
    pub(crate) config: Config,
    roles: Roles,
    netlink: Netlink,
    pub(crate) kernel: KernelState,
    opener: Box<dyn PortOpener>,
    pub(crate) ports: PortTable,
    pub(crate) neighbors: NeighborTable,
    /// Next hops on uplinks that the kernel keeps fresh for us.
    managed: ManagedNeighbors,
    calico: Calico,
    pub(crate) desired: Desired,
    pub(crate) in_sync: bool,
    pub(crate) ready: bool,
    pub(crate) invalid: BTreeMap<PathBuf, String>,
    offers: Offers,
    pub(crate) rib: Rib,
    pub(crate) installer: Installer,
    pub(crate) mirroring: Mirroring,
    /// Prefixes that the run before left and BGP hasn't spoken of yet.
    preserved: AHashSet<Prefix>,
    preserve_until: Option<Instant>,
    pub(crate) sessions: Sessions,
    pub(crate) speaker: Option<Speaker>,
    speaker_identity: Option<(std::net::Ipv4Addr, model::AsNumber)>,
    nexthops: BTreeMap<IpAddr, Option<u32>>,
    outputs: Vec<Output>,
    peers: Peers,
    pub(crate) established: BTreeMap<bgp::PeerId, u64>,
    listen_problem: Option<String>,
    answerer: Answerer,
    pub(crate) punts_answered: BTreeMap<&'static str, u64>,
    punts: Vec<RingConsumer<Punt>>,
    injects: Vec<RingProducer<Inject>>,
    dirty: Dirty,
    pub(crate) warned: Vec<String>,
    pub(crate) host: HostPort,
}

impl Slowpath {
    /// The slow path with its settings and its ends of what is shared; [`Self::run`] starts it.
    pub fn new(
        config: Config,
        ends: Ends,
        requests: mpsc::Receiver<Request>,
        stop: Arc<AtomicBool>,
    ) -> Slowpath {
        Slowpath { config, ends, requests, stop }
    }

    /// Runs until `stop` is set, then ends the sessions so that peers keep our routes (RFC 4724).
    /// Ports, mirrored routes and the forwarding guard stay in force (D1).
    ///
    /// # Errors
    /// What makes running on unsafe: the kernel refuses what forwarding needs, or can't be listened to any more.
    pub async fn run(self) -> Result<(), Error> {
        let Slowpath { config, ends, mut requests, stop } = self;
        let (events, mut queue) = mpsc::channel(EVENTS);
        // Subscribed before anything is read, so that no change is missed.
        let mut monitor = Monitor::open()?;
        let mut core = Core::new(config, ends, events.clone())?;
        let from_kernel = events.clone();
        let watching = tokio::spawn(async move {
            loop {
                let event = match monitor.next().await {
                    Ok(event) => Event::Kernel(event),
                    Err(error) => Event::KernelLost(error.to_string()),
                };
                let last = matches!(event, Event::KernelLost(_));
                if from_kernel.send(event).await.is_err() || last {
                    return;
                }
            }
        });
        let directory = DirectoryConfig::at(core.config.datastore.clone());
        let _directory = Directory::open(directory, move |event| {
            // A queue that is gone means that the slow path has ended.
            let _ = events.blocking_send(Event::Datastore(event));
        })?;

        let mut punts = interval(PUNTS_EVERY);
        punts.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut retry = interval(RETRY_EVERY);
        retry.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while !stop.load(Ordering::Relaxed) {
            let deadline = core.next_deadline();
            tokio::select! {
                Some(event) = queue.recv() => {
                    core.handle(event)?;
                    for _ in 1..TURN {
                        let Ok(event) = queue.try_recv() else { break };
                        core.handle(event)?;
                    }
                }
                _ = sleep_until(deadline.into()) => core.tick(),
                _ = punts.tick() => core.answer_punts(),
                _ = retry.tick() => core.retry(),
                Some(request) = requests.recv() => {
                    // A questioner that went away doesn't need the answer.
                    let _ = request.reply.send(core.answer(&request.query));
                }
            }
            core.settle()?;
        }
        core.shut_down().await;
        watching.abort();
        Ok(())
    }
}

impl Core {
    fn new(config: Config, ends: Ends, events: mpsc::Sender<Event>) -> Result<Core, Error> {
        let mut netlink = Netlink::open()?;
        sysctl::enable_forwarding(config.uplinks.iter().map(String::as_str))?;
        forwarding_guard::install(&[&config.workload_prefix])?;
        policy_rules::install_rules(&mut netlink)?;
        let links = interfaces::links(&mut netlink)?;
        let uplink_mtu = links
            .iter()
            .filter(|link| config.uplinks.contains(&link.name))
            .map(|link| link.mtu)
            .max()
            .unwrap_or(1500);
        let host = HostPort::create(&mut netlink, uplink_mtu, ends.injects.len() as u32)?;
        let roles = Roles {
            uplinks: config.uplinks.clone(),
            workload_prefix: config.workload_prefix.clone(),
            host: Some((host.kernel_side, host.far_side)),
        };
        let left_behind = kernel_routes::mirrored_routes(&mut netlink)?;
        let mirror = Mirror::start(config.mirror_routes)?;
        let calico = Calico::new(&config.node);
        let desired = calico.desired();
        let limits = *ends.writer.limits();
        let mut core = Core {
            ports: PortTable::new(limits.ports, ends.injects.len() as u16),
            neighbors: NeighborTable::new(config.neighbors),
            managed: ManagedNeighbors::new(),
            installer: Installer::new(ends.writer),
            mirroring: Mirroring::new(mirror, host.clone()),
            peers: Peers::new(events),
            punts: ends.punts,
            injects: ends.injects,
            opener: ends.ports,
            kernel: KernelState::default(),
            in_sync: false,
            ready: false,
            invalid: BTreeMap::new(),
            offers: Offers::new(),
            rib: Rib::default(),
            preserved: AHashSet::new(),
            preserve_until: None,
            sessions: Sessions::default(),
            speaker: None,
            speaker_identity: None,
            nexthops: BTreeMap::new(),
            outputs: Vec::new(),
            established: BTreeMap::new(),
            listen_problem: None,
            answerer: Answerer::new(),
            punts_answered: BTreeMap::new(),
            dirty: Dirty { kernel: Some(Instant::now()), resources: true, offers: true, rows: true },
            warned: Vec::new(),
            config,
            roles,
            netlink,
            calico,
            desired,
            host,
        };
        core.preserve(&left_behind);
        Ok(core)
    }

    /// Takes the routes that the run before left in the mirror for ours, until BGP has spoken: the peers keep sending
    /// to us over a graceful restart, so we keep forwarding.
    fn preserve(&mut self, left_behind: &[kernel_routes::KernelRoute]) {
        for route in left_behind {
            let gateways = route.nexthops.iter().filter(|hop| hop.ifindex != self.host.kernel_side);
            let gateways = gateways
                .filter_map(|hop| hop.gateway.map(|addr| Gateway { addr, ifindex: Some(hop.ifindex) }))
                .collect();
            if let Some(target) = Target::via(gateways) {
                self.rib.insert(route.prefix, Source::Preserved, &target, 0);
                self.preserved.insert(route.prefix);
            }
        }
        if !self.preserved.is_empty() {
            info!(routes = self.preserved.len(), "restarting: forwarding by the routes of the run before");
            self.preserve_until = Some(Instant::now() + PRESERVE_AT_MOST);
        }
    }

    fn stop_preserving(&mut self) {
        self.preserve_until = None;
        for prefix in std::mem::take(&mut self.preserved) {
            self.rib.remove(prefix, Source::Preserved);
        }
        self.mirroring.mirror().first_sync_done();
    }

    /// When something is due without an event.
    fn next_deadline(&self) -> Instant {
        let far = Instant::now() + Duration::from_secs(3600);
        let speaker = self.speaker.as_ref().and_then(Speaker::next_deadline);
        let kernel = self.dirty.kernel.map(|since| since + KERNEL_SETTLES);
        [speaker, kernel, self.preserve_until].into_iter().flatten().min().unwrap_or(far)
    }

    fn tick(&mut self) {
        let now = Instant::now();
        if self.preserve_until.is_some_and(|until| until <= now) {
            self.stop_preserving();
        }
        self.tell(Input::Tick);
    }

    fn handle(&mut self, event: Event) -> Result<(), Error> {
        match event {
            Event::Kernel(event) => self.kernel_changed(event),
            Event::KernelLost(reason) => return Err(Error::KernelLost(reason)),
            Event::Datastore(event) => self.datastore_changed(event),
            Event::Accepted { stream, remote } => match self.sessions.at_address(remote.ip()) {
                Some(peer) => self.adopt(peer, stream, Direction::Inbound),
                None => debug!(%remote, "refused a BGP connection: no peer has this address"),
            },
            Event::Connected { peer, stream } => self.adopt(peer, stream, Direction::Outbound),
            Event::ConnectFailed { peer, error } => {
                debug!(peer = self.peer_name(peer), %error, "could not connect");
                self.tell(Input::ConnectFailed { peer });
            }
            Event::Received { connection, bytes } => self.tell(Input::Received { connection, bytes: &bytes }),
            Event::Closed { connection, error } => {
                if let Some(error) = error {
                    debug!(?connection, %error, "BGP connection broke");
                }
                self.peers.close(connection);
                self.tell(Input::ConnectionClosed { connection });
            }
            Event::Drained { connection } => {
                if self.peers.drained(connection) {
                    self.tell(Input::Congested { connection, congested: false });
                }
            }
        }
        Ok(())
    }

    fn kernel_changed(&mut self, event: KernelEvent) {
        let now = Instant::now();
        match event {
            KernelEvent::NeighborChanged(fact) => {
                let before = self.neighbors.mac(fact.ifindex, fact.addr);
                if let Err(full) = self.neighbors.observe(&fact, now) {
                    debug!(addr = %fact.addr, "{full}");
                }
                self.neighbor_settled(fact.ifindex, fact.addr, before);
            }
            KernelEvent::NeighborRemoved { ifindex, addr } => {
                let before = self.neighbors.mac(ifindex, addr);
                self.neighbors.remove(ifindex, addr);
                self.managed.forget(ifindex, addr);
                self.dirty.rows = true;
                self.neighbor_settled(ifindex, addr, before);
            }
            KernelEvent::LinkRemoved(ifindex) => {
                self.neighbors.remove_interface(ifindex);
                self.dirty.kernel.get_or_insert(now);
            }
            KernelEvent::LinkChanged(_) => {
                // The kernel drops routes through a link that goes down and brings none back.
                self.mirroring.mirror().resync();
                self.dirty.kernel.get_or_insert(now);
            }
            KernelEvent::AddressAdded(_)
            | KernelEvent::AddressRemoved(_)
            | KernelEvent::RouteChanged(_)
            | KernelEvent::RouteRemoved(_)
            | KernelEvent::Overrun => {
                self.dirty.kernel.get_or_insert(now);
            }
        }
    }

    fn neighbor_settled(&mut self, ifindex: IfIndex, addr: IpAddr, before: Option<MacAddr>) {
        if self.neighbors.mac(ifindex, addr) != before {
            self.dirty.offers = true;
            self.dirty.rows = true;
        }
    }

    fn datastore_changed(&mut self, event: datastore::Event) {
        match event {
            datastore::Event::Update(Update::InSync) => {
                info!("the datastore is in sync");
                self.in_sync = true;
                self.dirty.resources = true;
            }
            datastore::Event::Update(update) => {
                self.calico.apply(&update);
                self.dirty.resources = true;
            }
            datastore::Event::Invalid(invalid) => {
                error!("{invalid}; the last good state stays in force");
                self.invalid.insert(invalid.file.clone(), invalid.to_string());
            }
            datastore::Event::Mended { file } => {
                info!(file = %file.display(), "the file is good again");
                self.invalid.remove(&file);
            }
            datastore::Event::Ignored(ignored) => info!("{ignored}"),
        }
    }

    fn adopt(&mut self, peer: bgp::PeerId, stream: tokio::net::TcpStream, direction: Direction) {
        match self.peers.adopt(stream) {
            Ok((connection, local)) => {
                self.tell(Input::ConnectionOpened { peer, connection, direction, local });
            }
            Err(error) => {
                debug!(peer = self.peer_name(peer), %error, "the connection was gone at once");
                if direction == Direction::Outbound {
                    self.tell(Input::ConnectFailed { peer });
                }
            }
        }
    }

    /// Gives the speaker an input and does what it asks for.
    fn tell(&mut self, input: Input<'_>) {
        let Some(speaker) = &mut self.speaker else { return };
        let mut outputs = std::mem::take(&mut self.outputs);
        speaker.handle(input, Instant::now(), &mut outputs);
        // Carrying an output out may give the speaker another input, whose outputs come after these.
        for output in outputs.drain(..) {
            self.carry_out(output);
        }
        if self.outputs.is_empty() {
            self.outputs = outputs;
        }
    }

    fn carry_out(&mut self, output: Output) {
        match output {
            Output::Connect { peer, remote, local } => self.peers.connect(peer, remote, local),
            Output::Send { connection, bytes } => {
                if self.peers.send(connection, bytes) {
                    self.tell(Input::Congested { connection, congested: true });
                }
            }
            Output::Close { connection } => self.peers.close(connection),
            Output::WatchNexthop(nexthop) => {
                let metric = resolve::metric(&self.rib, nexthop);
                self.nexthops.insert(nexthop, metric);
                self.tell(Input::NexthopChanged { nexthop, metric });
            }
            Output::UnwatchNexthop(nexthop) => drop(self.nexthops.remove(&nexthop)),
            Output::RouteChanged { prefix, paths } => {
                let gateways =
                    paths.iter().map(|path| Gateway { addr: path.nexthop, ifindex: None }).collect();
                match Target::via(gateways) {
                    Some(target) => self.rib.insert(prefix, Source::Bgp, &target, 0),
                    None => self.rib.remove(prefix, Source::Bgp),
                }
            }
            Output::PeerStateChanged { peer, from, to, reason } => {
                let name = self.peer_name(peer);
                if to == PeerState::Established {
                    *self.established.entry(peer).or_default() += 1;
                    info!(peer = name, "BGP session established");
                } else if from == PeerState::Established {
                    warn!(peer = name, state = %to, "BGP session lost: {reason}");
                } else {
                    debug!(peer = name, %from, %to, "BGP: {reason}");
                }
            }
            Output::RestartComplete => {
                info!("restart complete: BGP has spoken");
                self.stop_preserving();
            }
        }
    }

    fn peer_name(&self, peer: bgp::PeerId) -> String {
        self.sessions.desired(peer).map_or_else(|| format!("{peer:?}"), |peer| peer.name.to_string())
    }

    /// Brings everything into line with what has changed.
    fn settle(&mut self) -> Result<(), Error> {
        if self.dirty.kernel.is_some_and(|since| since.elapsed() >= KERNEL_SETTLES) {
            self.read_kernel()?;
        }
        if std::mem::take(&mut self.dirty.resources) && self.in_sync {
            self.apply_resources();
        }
        if std::mem::take(&mut self.dirty.offers) {
            self.apply_offers();
        }
        if self.rib.has_changed() {
            let changed = self.rib.take_changed();
            for prefix in &changed {
                let node = self.desired.node.as_ref();
                let address = |family| {
                    let addr = match family {
                        Family::V4 => node.and_then(|node| node.ipv4),
                        Family::V6 => node.and_then(|node| node.ipv6),
                    };
                    addr.map(|addr| addr.addr)
                };
                self.mirroring.update(&self.rib, *prefix, address);
            }
            let around = Around { ports: &self.ports, neighbors: &self.neighbors, host: &self.host };
            self.installer.routes(&self.rib, changed, &around);
            self.dirty.rows = true;
        }
        if std::mem::take(&mut self.dirty.rows) {
            let around = Around { ports: &self.ports, neighbors: &self.neighbors, host: &self.host };
            self.installer.rows(&self.rib, &around);
            self.ask_for_neighbors();
        }
        self.open_forwarding();
        Ok(())
    }

    fn read_kernel(&mut self) -> Result<(), Error> {
        self.dirty.kernel = None;
        self.kernel = interfaces::dump(&mut self.netlink)?;
        let now = Instant::now();
        for fact in &self.kernel.neighbors {
            // A full table is counted by itself and shown.
            let _ = self.neighbors.observe(fact, now);
        }
        let local =
            offers::local_addresses(&self.kernel, &self.roles).map(|address| address.addr.addr).collect();
        self.opener.set_local(&local);
        self.reconcile_ports();
        self.dirty.offers = true;
        self.dirty.rows = true;
        Ok(())
    }

    fn reconcile_ports(&mut self) {
        if !self.in_sync {
            return;
        }
        let writer = self.installer.writer();
        let opener = self.opener.as_mut();
        if self.ports.reconcile(&self.kernel, &self.desired, &self.roles, opener, &mut self.netlink, writer) {
            self.installer.writer().publish();
            self.dirty.rows = true;
            self.dirty.offers = true;
        }
    }

    fn apply_resources(&mut self) {
        self.desired = self.calico.desired();
        let warnings: Vec<String> = self.desired.warnings.iter().map(ToString::to_string).collect();
        for warning in warnings.iter().filter(|warning| !self.warned.contains(warning)) {
            warn!("{warning}");
        }
        self.warned = warnings;
        self.learn_endpoint_macs();
        self.reconcile_ports();
        self.dirty.offers = true;
        self.dirty.rows = true;
        self.apply_sessions();
    }

    fn learn_endpoint_macs(&mut self) {
        let now = Instant::now();
        for endpoint in self.desired.endpoints.values() {
            let link = self.kernel.links.iter().find(|link| link.name == endpoint.interface);
            let (Some(link), Some(mac)) = (link, endpoint.mac) else { continue };
            for address in &endpoint.ip_networks {
                // A full table is counted by itself and shown.
                let _ =
                    self.neighbors.learn(link.ifindex, address.addr(), mac, NeighborOrigin::Endpoint, now);
            }
        }
    }

    fn apply_sessions(&mut self) {
        let identity = sessions::identity(&self.desired);
        if identity != self.speaker_identity {
            self.replace_speaker();
            self.speaker_identity = identity;
        }
        if self.speaker.is_none() {
            return;
        }
        match self.peers.listen(self.desired.listen_port) {
            Ok(()) => self.listen_problem = None,
            Err(error) => {
                let problem = error.to_string();
                if self.listen_problem.as_ref() != Some(&problem) {
                    error!("{problem}");
                }
                self.listen_problem = Some(problem);
            }
        }
        for input in self.sessions.changes(&self.desired) {
            self.tell(input);
        }
    }

    /// The node's identifier or AS is new: the sessions of the old one end.
    fn replace_speaker(&mut self) {
        self.tell(Input::Shutdown { graceful: false });
        let bgp: Vec<Prefix> = self
            .rib
            .iter()
            .filter(|(prefix, _)| self.rib.offers(*prefix).any(|offer| offer.source == Source::Bgp))
            .map(|(prefix, _)| prefix)
            .collect();
        for prefix in bgp {
            self.rib.remove(prefix, Source::Bgp);
        }
        self.nexthops.clear();
        self.sessions.forget();
        let restarting = self.preserve_until.is_some();
        let config = sessions::speaker_config(&self.desired, restarting, self.config.prefixes_per_peer);
        self.speaker = config.map(Speaker::new);
    }

    fn apply_offers(&mut self) {
        let after = offers::offers(&self.kernel, &self.desired, &self.neighbors, &self.roles);
        offers::apply(&mut self.rib, &self.offers, &after);
        self.offers = after;
        let watched: Vec<(IpAddr, Option<u32>)> =
            self.nexthops.iter().map(|(addr, metric)| (*addr, *metric)).collect();
        for (nexthop, before) in watched {
            let metric = resolve::metric(&self.rib, nexthop);
            if metric != before {
                self.nexthops.insert(nexthop, metric);
                self.tell(Input::NexthopChanged { nexthop, metric });
            }
        }
    }

    fn open_forwarding(&mut self) {
        if !self.ready && self.in_sync && self.dirty.kernel.is_none() {
            self.ready = true;
            let writer = self.installer.writer();
            writer.set_ready(true);
            writer.publish();
            info!("forwarding is open");
            if self.preserve_until.is_none() {
                self.mirroring.mirror().first_sync_done();
            }
        }
    }

    /// Has the kernel keep gateways fresh, and asks for every neighbour that a route needs and nobody knows.
    fn ask_for_neighbors(&mut self) {
        // The kernel sees none of the traffic that would confirm a next hop, so it is told to keep probing itself.
        let gateways =
            self.installer.gateways(&self.rib).map(|neighbor| (neighbor.ifindex, neighbor.addr)).collect();
        if let Err(error) = self.managed.keep(&mut self.netlink, &gateways) {
            debug!(%error, "the kernel doesn't keep a neighbour; it is asked again");
        }
        let unknown: Vec<NeighborAddr> = self
            .installer
            .needed_neighbors()
            .map(|(neighbor, _)| neighbor)
            .filter(|neighbor| self.neighbors.mac(neighbor.ifindex, neighbor.addr).is_none())
            .collect();
        for neighbor in unknown {
            self.ask_for(neighbor);
        }
    }

    fn ask_for(&mut self, neighbor: NeighborAddr) {
        let NeighborAddr { ifindex, addr } = neighbor;
        if self.neighbors.want(ifindex, addr, Instant::now()) != Wanted::Ask {
            return;
        }
        let Some(port) = self.ports.on(ifindex) else { return };
        if port.kind == PortKind::Workload {
            let (id, mac) = (port.id, port.mac);
            let question = match addr {
                IpAddr::V4(addr) => neighbors::arp::request(mac, crate::host_port::GATEWAY_V4, addr),
                IpAddr::V6(addr) => neighbors::nd::solicitation(mac, crate::host_port::GATEWAY_V6, addr),
            };
            self.inject(0, Inject::Transmit(id), &question);
        } else if let Err(error) = neighbors::resolve(&mut self.netlink, ifindex, addr) {
            debug!(%addr, %error, "the kernel doesn't resolve the neighbour");
        }
    }

    /// Tries again what failed: ports that could not be opened, a BGP port that was taken, neighbours.
    fn retry(&mut self) {
        if !self.ports.problems().is_empty() {
            self.dirty.kernel.get_or_insert_with(Instant::now);
        }
        if self.listen_problem.is_some() {
            self.apply_sessions();
        }
        self.ask_for_neighbors();
    }

    /// Answers what the workers have sent up.
    fn answer_punts(&mut self) {
        let mut punts = std::mem::take(&mut self.punts);
        for (worker, ring) in punts.iter_mut().enumerate() {
            // Bounded, so that a flood of punts doesn't keep the loop from BGP.
            for _ in 0..TURN {
                let more = ring.pop(|punt, frame| self.answer_punt(worker, &punt, frame));
                if more.is_none() {
                    break;
                }
            }
        }
        self.punts = punts;
    }

    fn answer_punt(&mut self, worker: usize, punt: &Punt, frame: &[u8]) {
        let failed = punt.reason == PuntReason::Unresolved && self.resolution_failed(punt, frame);
        let port = punt.port.and_then(|id| self.ports.get(id)).cloned();
        let ours = Ours { kernel: &self.kernel, ports: &self.ports, desired: &self.desired };
        let outcome = self.answerer.answer(punt, frame, port.as_ref(), failed, &ours, Instant::now());
        if let (Some((addr, mac)), Some(port)) = (outcome.learned, &port) {
            let before = self.neighbors.mac(port.ifindex, addr);
            // A full table is counted by itself and shown.
            let _ = self.neighbors.learn(port.ifindex, addr, mac, NeighborOrigin::Workload, Instant::now());
            self.neighbor_settled(port.ifindex, addr, before);
        }
        let done = match outcome.answer {
            Answer::Walk(bytes) => {
                self.inject(worker, Inject::Walk, &bytes);
                "icmp_error"
            }
            Answer::Transmit(port, bytes) => {
                self.inject(worker, Inject::Transmit(port), &bytes);
                "neighbor_reply"
            }
            Answer::Nothing(silence) => silence.as_str(),
        };
        *self.punts_answered.entry(done).or_default() += 1;
    }

    /// Asks for the neighbour that a packet waits for; `true` where it has been asked for in vain.
    fn resolution_failed(&mut self, punt: &Punt, frame: &[u8]) -> bool {
        let neighbor = punt.adjacency.and_then(|id| self.installer.neighbor_of(id)).or_else(|| {
            // The route leads to the link itself: the destination is the neighbour.
            let parsed = packet::parse(frame).ok()?;
            let v4 = parsed.ipv4_destination(frame).map(IpAddr::V4);
            let addr = v4.or_else(|| parsed.ipv6_destination(frame).map(IpAddr::V6))?;
            let (_, offer) = self.rib.covering(addr, |_, _| true)?;
            match self.rib.targets().get(offer.target)? {
                Target::Attached(ifindex) => Some(NeighborAddr { ifindex: *ifindex, addr }),
                _ => None,
            }
        });
        let Some(neighbor) = neighbor else { return false };
        self.ask_for(neighbor);
        self.neighbors.times_asked(neighbor.ifindex, neighbor.addr) > 3
    }

    fn inject(&mut self, worker: usize, how: Inject, bytes: &[u8]) {
        let pushed = self.injects.get_mut(worker).map(|ring| ring.push(how, bytes));
        if !matches!(pushed, Some(Ok(()))) {
            *self.punts_answered.entry("inject_ring_full").or_default() += 1;
        }
    }

    async fn shut_down(&mut self) {
        info!("closing BGP sessions so that peers keep our routes");
        self.tell(Input::Shutdown { graceful: true });
        if timeout(self.config.stop_within, self.peers.flush()).await.is_err() {
            warn!("some BGP connections did not take their last messages in time");
        }
        // What the kernel is to fall back on has to be complete. Nothing else is left to be done, so it may block.
        if !self.mirroring.mirror().wait_until_idle(self.config.stop_within) {
            warn!("the kernel's mirror did not get all routes in time");
        }
    }
}

/// What the installer must know, borrowed from the state.
struct Around<'a> {
    ports: &'a PortTable,
    neighbors: &'a NeighborTable,
    host: &'a HostPort,
}

impl Surroundings for Around<'_> {
    fn port(&self, ifindex: IfIndex) -> Option<(PortId, MacAddr)> {
        self.ports.mac(ifindex)
    }

    fn host_port(&self) -> Option<(PortId, MacAddr, MacAddr)> {
        self.ports.on(self.host.far_side).map(|port| (port.id, self.host.far_mac, self.host.kernel_mac))
    }

    fn mac(&self, neighbor: NeighborAddr) -> Option<MacAddr> {
        self.neighbors.mac(neighbor.ifindex, neighbor.addr)
    }
}

/// Our addresses, as answers to punted packets need them.
struct Ours<'a> {
    kernel: &'a KernelState,
    ports: &'a PortTable,
    desired: &'a Desired,
}

impl OurAddresses for Ours<'_> {
    fn of_port(&self, port: PortId, family: Family) -> Option<IpAddr> {
        let ifindex = self.ports.get(port)?.ifindex;
        let of_family = self
            .kernel
            .addresses
            .iter()
            .filter(|address| address.ifindex == ifindex && Family::of(address.addr.addr) == family);
        of_family.min_by_key(|address| address.scope).map(|address| address.addr.addr)
    }

    fn of_node(&self, family: Family) -> Option<IpAddr> {
        let node = self.desired.node.as_ref()?;
        let addr = match family {
            Family::V4 => node.ipv4,
            Family::V6 => node.ipv6,
        };
        addr.map(|addr| addr.addr)
    }
}

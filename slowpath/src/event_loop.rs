//! The one owner of all state: takes events in turn and keeps the tables true.
//!
//! A turn: one event, then what else is already waiting (as much as [`TURN`] allows), then [`Core::settle`], which
//! brings ports, offers, sessions, RIB, tables, mirror and neighbours into line, in that order, as far as something
//! made it necessary. `observing.rs` is the same state's end of the kernel, `speaking.rs` that of BGP, `answering.rs`
//! that of punted packets, `flooding.rs` that of segments, `report.rs` that of questions; `preserving.rs` is what outlives a restart.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use ahash::AHashSet;
use bgp::{Direction, Input};
use datastore::DatastoreSettings;
use model::{IfIndex, MacAddr, PortId, Prefix, Update};
use policy::resolve::Resolver;
use tables::{Flows, Inject, NatRules, Punt, RingConsumer, RingProducer};
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval, sleep_until, timeout};
use tracing::{debug, error, info, warn};

use crate::bfd::BfdThread;
use crate::bgp_routes::BgpRoutes;
use crate::bgp_thread::{BgpThread, mark_time};
use crate::calico::{Calico, Desired};
use crate::config::{Config, Ends, Request, Slowpath};
use crate::ending::Endings;
use crate::error::Error;
use crate::event::Event;
use crate::failure_detection::Watch;
use crate::flooding::Overlays;
use crate::former_settings::FormerSettings;
use crate::freshness::Freshness;
use crate::host_port::HostPort;
use crate::install::{Installer, Surroundings};
use crate::interfaces::{self, KernelState, Monitor};
use crate::kernel_routes::{self, mirror::Mirror, policy_rules};
use crate::mirroring::Mirroring;
use crate::mtu_file::MtuFile;
use crate::neighbors::managed::ManagedNeighbors;
use crate::neighbors::table::NeighborTable;
use crate::netlink::Netlink;
use crate::offers::{self, Offers, Roles};
use crate::peer_groups::{self, Aggregates, Introductions, Neighbours, OwnRoutes};
use crate::peers::Peers;
use crate::policy_counts::PolicyCounts;
use crate::policy_log::PolicyLog;
use crate::port_table::PortTable;
use crate::ports::Raised;
use crate::privileges::{NOTHING, born_with, lay_aside, raised};
use crate::punt::Answerer;
use crate::reserved_ports::ReservedPorts;
use crate::resolve::{self, NeighborAddr};
use crate::rib::{Place, Rib};
use crate::sessions::Sessions;
use crate::spoofing::Spoofing;
use crate::stations::Stations;
use crate::table_dumps::TableDumps;
use crate::workload_mtu::WorkloadMtus;
use crate::workload_policy::WorkloadPolicy;
use crate::{NotDelivered, PortOpener, forwarding_guard, host_policy, segments, sysctl};

/// Events that may wait.
const EVENTS: usize = 128;
/// Events taken before the tables are brought into line: of a table that loads, some 100,000 routes. What waits to be sent on
/// leaves after that, so more of them would only fill queues.
const TURN: usize = 32;
/// Likewise, how long that may go on: peers who send a table must not keep the news of a lost link waiting, nor keepalives.
const TURN_AT_MOST: Duration = Duration::from_millis(20);
/// Routes of BGP's that are gone and are taken out of the tables between two turns: some tenths of a millisecond's work, and
/// a part of that where BGP has said more meanwhile.
const GONE_AT_ONCE: usize = 2048;
const GONE_MEANWHILE: usize = GONE_AT_ONCE / 8;
/// What of the kernel's news may wait; beyond that its socket keeps them.
const KERNEL_EVENTS: usize = 64;
/// How often punted packets are looked for.
const PUNTS_EVERY: Duration = Duration::from_millis(1);
/// How often what failed is tried again.
const RETRY_EVERY: Duration = Duration::from_secs(1);
/// How long changes of the kernel may gather before they are read.
const KERNEL_SETTLES: Duration = Duration::from_millis(20);

/// What has changed and isn't acted on yet.
#[derive(Default)]
pub(crate) struct Dirty {
    /// Links, addresses or routes of the kernel, since when.
    pub(crate) kernel: Option<Instant>,
    /// Calico's resources.
    pub(crate) resources: bool,
    /// Resources that policy is made of.
    pub(crate) policy: bool,
    /// Anything that host endpoints' policy is made of.
    pub(crate) host_policy: bool,
    /// Anything that offers are made of.
    pub(crate) offers: bool,
    /// Anything that groups and adjacencies are made of.
    pub(crate) rows: bool,
    /// A neighbour that BFD is to watch has been taken in.
    pub(crate) watch: bool,
    /// A way is lost: groups go on without it before anything else is worked out.
    pub(crate) way_lost: bool,
}

/// All state of the slow path.
pub(crate) struct Core {
    pub(crate) config: Config,
    pub(crate) roles: Roles,
    pub(crate) netlink: Netlink,
    pub(crate) kernel: KernelState,
    /// Has the kernel been read? Until then an empty `kernel` says nothing: an uplink is not missing.
    pub(crate) kernel_read: bool,
    pub(crate) opener: Box<dyn PortOpener>,
    /// Why the kernel didn't receive the last frame that it couldn't.
    pub(crate) not_delivered: Option<NotDelivered>,
    pub(crate) ports: PortTable,
    pub(crate) workload_mtus: WorkloadMtus,
    pub(crate) mtu_file: MtuFile,
    pub(crate) neighbors: NeighborTable,
    /// Next hops on uplinks that the kernel keeps fresh for us.
    pub(crate) managed: ManagedNeighbors,
    calico: Calico,
    /// What the resources ask of this node's endpoints.
    pub(crate) resolver: Resolver,
    spoofing: Spoofing,
    pub(crate) workload_policy: WorkloadPolicy,
    pub(crate) desired: Desired,
    pub(crate) in_sync: bool,
    pub(crate) ready: bool,
    pub(crate) invalid: BTreeMap<PathBuf, String>,
    pub(crate) freshness: Freshness,
    /// When the router began to run, and when what its sessions should be last changed.
    pub(crate) started: SystemTime,
    pub(crate) reconfigured: SystemTime,
    offers: Offers,
    pub(crate) rib: Rib,
    pub(crate) bgp_routes: BgpRoutes,
    pub(crate) introductions: Introductions,
    pub(crate) neighbours: Neighbours,
    pub(crate) aggregates: Aggregates,
    pub(crate) installer: Installer,
    pub(crate) mirroring: Mirroring,
    /// Prefixes that the run before left and BGP hasn't spoken of yet.
    pub(crate) preserved: AHashSet<Prefix>,
    pub(crate) preserve_until: Option<Instant>,
    pub(crate) sessions: Sessions,
    pub(crate) bgp: BgpThread,
    pub(crate) speaker_identity: Option<(std::net::Ipv4Addr, model::AsNumber)>,
    pub(crate) nexthops: BTreeMap<IpAddr, Option<u32>>,
    pub(crate) peers: Peers,
    pub(crate) stations: Stations,
    pub(crate) table_dumps: TableDumps,
    pub(crate) watch: Watch,
    pub(crate) established: BTreeMap<bgp::PeerId, u64>,
    /// Why the latest attempt to connect failed.
    pub(crate) connect_problems: BTreeMap<bgp::PeerId, String>,
    pub(crate) listen_problem: Option<String>,
    pub(crate) answerer: Answerer,
    pub(crate) punts_answered: BTreeMap<&'static str, u64>,
    pub(crate) punts: Vec<RingConsumer<Punt>>,
    pub(crate) injects: Vec<RingProducer<Inject>>,
    pub(crate) dirty: Dirty,
    pub(crate) warned: Vec<String>,
    pub(crate) host: HostPort,
    /// What the walk translates.
    pub(crate) translation: NatRules,
    pub(crate) reserved_ports: ReservedPorts,
    /// What the walk remembers of flows.
    pub(crate) flows: Flows,
    pub(crate) endings: Endings,
    /// Policy of what never enters the walk.
    pub(crate) host_policy: host_policy::Enforcer,
    pub(crate) overlays: Overlays,
    pub(crate) policy_counts: PolicyCounts,
    pub(crate) policy_log: PolicyLog,
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
        let marking = tokio::spawn(mark_time(core.bgp.heard().clone()));
        // A queue of its own: it comes before what peers say.
        let (from_kernel, mut kernel) = mpsc::channel(KERNEL_EVENTS);
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
        let _following = born_with(NOTHING, || {
            core.config.datastore.follow(move |event| {
                // A queue that is gone means that the slow path has ended.
                let _ = events.blocking_send(Event::Datastore { event, at: Instant::now() });
            })
        })
        .map_err(Error::Privileges)??;
        lay_aside().map_err(Error::Privileges)?;

        let mut punts = interval(PUNTS_EVERY);
        punts.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut retry = interval(RETRY_EVERY);
        retry.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while !stop.load(Ordering::Relaxed) {
            // Whoever reads and writes sockets gets a turn for each of ours.
            tokio::task::yield_now().await;
            // Before anything that may be in the queue: traffic is being lost.
            core.heed_bfd();
            while let Ok(event) = kernel.try_recv() {
                core.handle(event)?;
            }
            if core.dirty.way_lost {
                core.settle()?;
            }
            let deadline = core.next_deadline();
            tokio::select! {
                Some(event) = queue.recv() => {
                    let began = Instant::now();
                    core.handle(event)?;
                    for _ in 1..TURN {
                        if core.watch.thread.has_news_now() || began.elapsed() >= TURN_AT_MOST {
                            break;
                        }
                        let Ok(event) = queue.try_recv() else { break };
                        core.handle(event)?;
                    }
                }
                said = core.bgp.said() => {
                    let began = Instant::now();
                    core.heed(said.ok_or(Error::BgpEnded)?);
                    for _ in 1..TURN {
                        if core.watch.thread.has_news_now() || began.elapsed() >= TURN_AT_MOST {
                            break;
                        }
                        let Some(said) = core.bgp.said_already() else { break };
                        core.heed(said);
                    }
                }
                Some(event) = kernel.recv() => core.handle(event)?,
                () = core.watch.thread.has_news() => core.heed_bfd(),
                // Heard by `settle`.
                () = core.mirroring.mirror().has_news() => {}
                _ = sleep_until(deadline.into()) => core.tick(),
                _ = punts.tick() => {
                    core.answer_punts();
                    core.tell_of_policy();
                }
                _ = retry.tick() => core.retry(),
                Some(request) = requests.recv() => core.answer(request),
                () = std::future::ready(()), if core.rib.gone() > 0 => {}
            }
            core.settle()?;
        }
        core.shut_down().await;
        core.opener.forwarding_closes();
        watching.abort();
        marking.abort();
        Ok(())
    }
}

impl Core {
    fn new(config: Config, ends: Ends, events: mpsc::Sender<Event>) -> Result<Core, Error> {
        let mut netlink = Netlink::open()?;
        let uplinks = config.uplinks.iter().map(String::as_str);
        let former = FormerSettings::recorded_at(config.former_settings.clone());
        former.note(&sysctl::forwarding_settings(uplinks));
        sysctl::enable_forwarding(config.uplinks.iter().map(String::as_str))?;
        forwarding_guard::install(&[&config.workload_prefix], false)?;
        policy_rules::install_rules(&mut netlink)?;
        let links = interfaces::links(&mut netlink)?;
        let uplink_mtu = links
            .iter()
            .filter(|link| config.uplinks.contains(&link.name))
            .map(|link| link.mtu)
            .max()
            .unwrap_or(1500)
            // What the host sends must fit a frame; larger packets it cuts itself, or tells the program.
            .min(config.receivable);
        let host = HostPort::create(&mut netlink, uplink_mtu, ends.injects.len() as u32)?;
        let roles = Roles {
            uplinks: config.uplinks.clone(),
            workload_prefix: config.workload_prefix.clone(),
            host: Some((host.kernel_side, host.far_side)),
        };
        let left_behind = kernel_routes::mirrored_routes(&mut netlink)?;
        let mirror = Mirror::start(config.mirror_routes)?;
        let calico = Calico::new(&config.node).with_router_id(config.bgp.router_id);
        let resolver = Resolver::new(&config.node);
        let desired = calico.desired();
        let limits = *ends.writer.limits();
        let bgp = born_with(NOTHING, BgpThread::start).and_then(|thread| thread).map_err(Error::BgpThread)?;
        let mut core = Core {
            workload_mtus: WorkloadMtus::default(),
            mtu_file: MtuFile::at(config.mtu_file.clone()),
            reserved_ports: ReservedPorts::recorded_at(config.reserved_ports.clone()),
            ports: PortTable::new(limits.ports, ends.injects.len() as u16),
            neighbors: NeighborTable::new(config.neighbors),
            managed: ManagedNeighbors::new(),
            installer: Installer::new(ends.writer),
            mirroring: Mirroring::new(mirror, host.clone()),
            introductions: Introductions::new(events.clone()),
            neighbours: Neighbours::default(),
            aggregates: Aggregates::default(),
            watch: Watch::new(
                born_with(NOTHING, || BfdThread::start(ends.come_first))
                    .and_then(|thread| thread)
                    .map_err(Error::BfdThread)?,
            ),
            stations: Stations::start(&config.bgp.stations, &events),
            peers: Peers::new(events, bgp.heard().clone(), ends.session_sockets, former),
            punts: ends.punts,
            injects: ends.injects,
            opener: Box::new(Raised(ends.ports)),
            not_delivered: None,
            kernel: KernelState::default(),
            kernel_read: false,
            in_sync: false,
            ready: false,
            invalid: BTreeMap::new(),
            freshness: Freshness::began(Instant::now()),
            started: SystemTime::now(),
            reconfigured: SystemTime::now(),
            offers: Offers::new(),
            rib: Rib::default(),
            bgp_routes: BgpRoutes::default(),
            preserved: AHashSet::new(),
            preserve_until: None,
            sessions: Sessions::with_secrets(config.secrets.clone()).with_ranges(config.bgp.passwords()),
            bgp,
            speaker_identity: None,
            nexthops: BTreeMap::new(),
            table_dumps: TableDumps::default(),
            established: BTreeMap::new(),
            connect_problems: BTreeMap::new(),
            listen_problem: None,
            answerer: Answerer::new(),
            punts_answered: BTreeMap::new(),
            dirty: Dirty {
                kernel: Some(Instant::now()),
                resources: true,
                policy: true,
                host_policy: true,
                offers: true,
                rows: true,
                watch: false,
                way_lost: false,
            },
            warned: Vec::new(),
            overlays: Overlays::new(&config.segments),
            config,
            roles,
            netlink,
            calico,
            resolver,
            spoofing: Spoofing::default(),
            workload_policy: WorkloadPolicy::default(),
            desired,
            host,
            translation: NatRules::default(),
            flows: ends.flows,
            endings: Endings::default(),
            host_policy: host_policy::Enforcer::start().map_err(Error::HostPolicyThread)?,
            policy_counts: PolicyCounts::new(ends.policy_report.clone()),
            policy_log: PolicyLog::new(ends.policy_report),
        };
        core.preserve(&left_behind);
        Ok(core)
    }

    /// What this node is asked to tell of itself.
    pub(crate) fn status_requests(&self) -> impl Iterator<Item = &model::NodeStatusRequest> {
        self.calico.status_requests()
    }

    /// When something is due without an event.
    fn next_deadline(&self) -> Instant {
        let far = Instant::now() + Duration::from_secs(3600);
        let kernel = self.dirty.kernel.map(|since| since + KERNEL_SETTLES);
        [kernel, self.preserve_until].into_iter().flatten().min().unwrap_or(far)
    }

    fn tick(&mut self) {
        let now = Instant::now();
        if self.preserve_until.is_some_and(|until| until <= now) {
            self.stop_preserving();
        }
    }

    fn handle(&mut self, event: Event) -> Result<(), Error> {
        match event {
            Event::Kernel(event) => self.kernel_changed(event),
            Event::KernelLost(reason) => return Err(Error::KernelLost(reason)),
            Event::Datastore { event, at } => self.datastore_changed(event, at),
            Event::Accepted { stream, remote } => self.accepted(stream, remote),
            Event::Introduced { stream, remote, as_number } => self.introduced(stream, remote, as_number),
            Event::Connected { attempt, stream } => match self.peers.conclude(attempt) {
                Some(peer) => {
                    self.connect_problems.remove(&peer);
                    self.adopt(peer, stream, Direction::Outbound);
                }
                None => debug!(?attempt, "dropped a connection that the speaker has given up"),
            },
            Event::ConnectFailed { attempt, error } => {
                if let Some(peer) = self.peers.conclude(attempt) {
                    debug!(peer = self.peer_name(peer), %error, "could not connect");
                    self.note_connect_problem(peer, &error);
                    self.tell(Input::ConnectFailed { peer });
                }
            }
            Event::Station { id, event, problem } => self.station_changed(id, event, problem),
            Event::Drained { connection } => {
                if self.peers.drained(connection) {
                    self.tell(Input::Congested { connection, congested: false });
                }
            }
        }
        Ok(())
    }

    fn datastore_changed(&mut self, event: datastore::Event, at: Instant) {
        match event {
            datastore::Event::Update(Update::InSync) => {
                self.resolver.apply(&Update::InSync);
                info!("the datastore is in sync");
                self.in_sync = true;
                self.freshness.in_sync();
                self.dirty.resources = true;
            }
            datastore::Event::Update(update) => {
                self.freshness.changed(at);
                let update = self.spoofing.filter(update);
                self.take_resource(&update);
            }
            datastore::Event::Invalid(invalid) => {
                match self.config.datastore {
                    DatastoreSettings::Directory(_) => {
                        error!("{invalid}; the last good state stays in force")
                    }
                    DatastoreSettings::Etcd(_) => error!("{invalid}; it counts as absent"),
                }
                self.invalid.insert(invalid.file.clone(), invalid.to_string());
            }
            datastore::Event::Mended { file } => {
                info!(file = %file.display(), "the file is good again");
                self.invalid.remove(&file);
            }
            datastore::Event::Ignored(ignored) => info!("{ignored}"),
            datastore::Event::Stale { reason } => {
                if self.freshness.lost(reason.clone(), at) {
                    warn!(reason, "the datastore can't be followed; the last state stays in force");
                }
            }
            datastore::Event::Current => {
                let stale = self.freshness.found(at);
                info!(seconds = stale.as_secs(), "the datastore is followed again");
            }
        }
    }

    fn take_resource(&mut self, update: &Update) {
        self.dirty.resources |= self.calico.concerns(update);
        self.dirty.policy = true;
        self.calico.apply(update);
        self.resolver.apply(update);
    }

    /// Brings everything into line with what has changed.
    fn settle(&mut self) -> Result<(), Error> {
        if self.dirty.kernel.is_some_and(|since| since.elapsed() >= KERNEL_SETTLES) {
            self.sum_up_policy();
            self.read_kernel()?;
        }
        if self.in_sync && (self.dirty.resources || self.dirty.policy) {
            self.sum_up_policy();
            if self.dirty.resources {
                for update in self.spoofing.allow(self.calico.allows_spoofing()) {
                    self.take_resource(&update);
                }
            }
            self.dirty.policy = false;
            let mut endpoints_changed = self.apply_workload_policy();
            if std::mem::take(&mut self.dirty.resources) {
                self.apply_resources();
                self.dirty.host_policy = true;
                endpoints_changed = true;
            }
            if endpoints_changed {
                self.forget_workload_policy();
            }
        }
        if self.in_sync && self.kernel_read && std::mem::take(&mut self.dirty.host_policy) {
            self.apply_host_policy();
        }
        if std::mem::take(&mut self.dirty.offers) {
            self.apply_translation();
            self.tell_own_addresses();
            self.apply_offers();
        }
        self.install_routes();
        if std::mem::take(&mut self.dirty.rows) {
            self.rewrite_rows();
            self.ask_for_neighbors();
        }
        if std::mem::take(&mut self.dirty.watch) {
            self.watch_peers();
        }
        self.open_forwarding();
        self.mirroring.go_on(&mut self.rib, |family| self.desired.node_address(family));
        self.end_flows();
        if self.in_sync {
            self.freshness.in_force(Instant::now());
        }
        Ok(())
    }

    /// Brings tables and mirror into line with the winners that have changed, all of them: peers are told next. Before that, takes
    /// out some of what has gone, which nobody waits for: at least as many as come in, so that these find room, and so that it
    /// comes to its end whatever else there is to do.
    fn install_routes(&mut self) {
        let changed = self.rib.take_changed();
        let portion = if self.bgp.has_said() { GONE_MEANWHILE } else { GONE_AT_ONCE };
        self.remove_gone(portion.max(changed.len()));
        if changed.is_empty() {
            return;
        }
        self.install(&changed);
        self.rib.changes_told(changed);
        // A table that loads is of routes that gateways aren't reached by: the rows of a thousand groups stay what they are.
        self.dirty.rows |= self.rib.take_ways_changed();
    }

    fn remove_gone(&mut self, most: usize) {
        if self.rib.gone() > 0 {
            let gone = self.rib.take_gone(most);
            self.install(&gone);
            self.rib.gone_told(&gone);
        }
    }

    fn install(&mut self, places: &[Place]) {
        self.mirroring.update(&mut self.rib, places, |family| self.desired.node_address(family));
        let around = Around {
            ports: &self.ports,
            neighbors: &self.neighbors,
            host: &self.host,
            lost: &self.watch.lost,
        };
        let winners = places.iter().map(|place| self.rib.at(*place));
        self.dirty.rows |= self.installer.routes(&self.rib, winners, &around);
    }

    /// Brings groups and adjacencies into line with ports, neighbours and the RIB; how many groups have other members now.
    pub(crate) fn rewrite_rows(&mut self) -> usize {
        let around = Around {
            ports: &self.ports,
            neighbors: &self.neighbors,
            host: &self.host,
            lost: &self.watch.lost,
        };
        self.installer.rows(&self.rib, &around)
    }

    fn apply_resources(&mut self) {
        let mut desired = self.calico.desired();
        desired.warnings.extend(self.spoofing.warnings(&self.config.node));
        segments::join(&self.config.segments, &mut desired);
        peer_groups::join(&self.config.bgp, &self.neighbours, &self.aggregates, &mut desired);
        // The kernel's affair, not that of resources.
        desired.redistributed = std::mem::take(&mut self.desired.redistributed);
        desired.own_routes = std::mem::take(&mut self.desired.own_routes);
        let before = std::mem::replace(&mut self.desired, desired);
        let warnings: Vec<String> = self.desired.warnings.iter().map(ToString::to_string).collect();
        for warning in warnings.iter().filter(|warning| !self.warned.contains(warning)) {
            warn!("{warning}");
        }
        self.warned = warnings;
        if before.peers != self.desired.peers || before.export != self.desired.export {
            self.reconfigured = SystemTime::now();
        }
        self.installer.writer().set_workload_tunnels(self.desired.felix.workload_tunnels());
        self.reconcile_tunnel_addresses();
        self.apply_tunnels(&before.tunnels);
        if before.services != self.desired.services {
            self.bgp_routes.offer_all(&mut self.rib, &self.desired);
        }
        self.end_flows_of_gone_workloads(&before);
        self.learn_endpoint_macs();
        let felix = &self.desired.felix;
        self.policy_log.obey(felix);
        let writer = self.installer.writer();
        writer.set_reverse_path(felix.reverse_path);
        writer.set_flow_rules(felix.flow_rules());
        if felix.openstack != before.felix.openstack {
            self.guard_workload_ports();
        }
        self.reconcile_ports();
        self.dirty.offers = true;
        self.dirty.rows = true;
        self.apply_sessions();
    }

    /// Installs the guard as it is to be now.
    fn guard_workload_ports(&self) {
        let serves_dhcp = self.desired.felix.openstack;
        let install = || forwarding_guard::install(&[&self.config.workload_prefix], serves_dhcp);
        if let Err(error) = raised(install) {
            error!("the host's DHCP server may not hear workloads: {error}");
        }
    }

    fn apply_offers(&mut self) {
        let mut after = offers::offers(&self.kernel, &self.desired, &self.neighbors, &self.roles);
        segments::offer(&self.overlays.all, self.desired.node.as_ref(), &mut after);
        offers::apply(&mut self.rib, &self.offers, &after);
        self.offers = after;
        let own = OwnRoutes::of(&self.kernel, &self.roles, &self.offers, &self.desired);
        let redistributed = own.redistributed(&self.config.bgp.redistribute);
        let named = own.named(&self.desired, &redistributed);
        if self.desired.redistributed != redistributed || self.desired.own_routes != named {
            (self.desired.redistributed, self.desired.own_routes) = (redistributed, named);
            self.apply_sessions();
        }
        if std::mem::take(&mut self.dirty.way_lost) {
            self.move_traffic();
        }
        let watched: Vec<(IpAddr, Option<u32>)> =
            self.nexthops.iter().map(|(addr, metric)| (*addr, *metric)).collect();
        for (nexthop, before) in watched {
            let metric = resolve::metric(&self.rib, nexthop);
            if metric != before {
                self.nexthops.insert(nexthop, metric);
                self.tell(Input::NexthopChanged { nexthop, metric });
            }
        }
        let nexthops = self.nexthops.keys().copied().chain(offers::plain_nexthops(&self.offers));
        self.mirroring.follow(&mut self.rib, nexthops, |family| self.desired.node_address(family));
    }

    fn open_forwarding(&mut self) {
        if !self.ready && self.in_sync && self.kernel_read && self.dirty.kernel.is_none() {
            self.ready = true;
            let writer = self.installer.writer();
            writer.set_ready(true);
            writer.publish();
            self.opener.forwarding_opens();
            info!("forwarding is open");
            if self.preserve_until.is_none() {
                self.mirroring.mirror_mut().first_sync_done();
            }
        }
    }

    /// Tries again what failed: ports that could not be opened, a BGP port that was taken, neighbours.
    fn retry(&mut self) {
        if !self.ports.problems().is_empty() {
            self.dirty.kernel.get_or_insert_with(Instant::now);
        }
        if self.sessions.secrets_changed() || self.listen_problem.is_some() {
            self.apply_sessions();
        }
        let resting = self.resting_addresses();
        if self.neighbours.forget_the_gone(Instant::now(), |address| resting.contains(&address)) {
            self.dirty.resources = true;
        }
        self.mirroring.mirror_mut().retry();
        self.ask_for_neighbors();
        self.ask_inside();
        self.sum_up_policy();
        self.tell_statistics();
    }

    async fn shut_down(&mut self) {
        // Peers must not take the silence for a failure.
        self.watch.thread.stop();
        info!("closing BGP sessions so that peers keep our routes");
        self.tell(Input::Shutdown { graceful: true });
        let said = self.bgp.catch_up();
        self.heed(said);
        self.remove_gone(usize::MAX);
        self.install_routes();
        if timeout(self.config.stop_within, self.peers.flush()).await.is_err() {
            warn!("some BGP connections did not take their last messages in time");
        }
        self.stations.flush().await;
        // What the kernel is to fall back on has to be complete. Nothing else is left to be done, so it may block.
        let node = |family| self.desired.node_address(family);
        if !self.mirroring.finish(&mut self.rib, node, self.config.stop_within) {
            warn!("the kernel's mirror did not get all routes in time");
        }
    }
}

/// What the installer must know, borrowed from the state.
struct Around<'a> {
    lost: &'a BTreeSet<NeighborAddr>,
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

    fn is_lost(&self, neighbor: NeighborAddr) -> bool {
        self.lost.contains(&neighbor)
    }
}

#[cfg(test)]
mod tests;

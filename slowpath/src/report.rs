//! Answers to what `tortie show` and the metrics ask: the state, put into the forms of `status.rs`.

mod bfd;
mod bgp_neighbor;
mod bgp_route;
mod reporting;
mod segments;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant, SystemTime};

use model::{Family, Prefix};
use packet::icmp::Problem;

use crate::calico::{DesiredPeer, PeerKind};
use crate::config::Request;
use crate::event_loop::Core;
use crate::port_table::PortRow;
use crate::punt::Silence;
use crate::resolve::{Hop, NeighborAddr, Resolution, resolve};
use crate::rib::{self, Offer, Source};
use crate::status::PolicyUse;
use crate::status::{
    Answer, BgpRouteStatus, BgpStatus, DatastoreStatus, FingerprintStatus, FingerprintsStatus, IcmpStatus,
    NeighborStatus, NeighborsStatus, NexthopStatus, OfferStatus, PeerStatus, PerFamily, PortProblem,
    PortStatus, PortsStatus, PrefixLimitStatus, QosStatus, Query, RouteStatus, RoutesStatus, Summary,
    TunnelStatus,
};
use crate::target::Gateway;
use crate::workload_mtu;

/// How long a peer may take to its OPEN before it is worth a word.
const SILENCE: Duration = Duration::from_secs(5);

impl Core {
    /// Answers one question, or has it answered by who knows.
    pub(crate) fn answer(&mut self, request: Request) {
        if matches!(request.query, Query::Policy { .. } | Query::Staged | Query::Summary) {
            self.sum_up_policy();
        }
        let answer = match &request.query {
            Query::Bgp => Answer::Bgp(self.bgp()),
            Query::BgpNeighbors { address } => Answer::BgpNeighbors(self.bgp_neighbors(*address)),
            Query::BgpRoute { prefix } => Answer::BgpRoute(match prefix.parse() {
                Ok(prefix) => self.bgp_route(prefix),
                Err(_) => BgpRouteStatus { prefix: prefix.clone(), paths: Vec::new() },
            }),
            Query::Routes { limit, source } => Answer::Routes(self.routes(*limit, source.as_deref())),
            Query::Route { address } => Answer::Route(self.route(*address)),
            Query::Neighbors => Answer::Neighbors(self.neighbors()),
            Query::Ports => Answer::Ports(self.port_status()),
            Query::Bfd => Answer::Bfd(self.bfd()),
            Query::BgpDump { id } => Answer::BgpDump(self.dump_bgp(*id)),
            Query::Stations => Answer::Stations(self.stations.status(Instant::now())),
            Query::Icmp => Answer::Icmp(self.icmp()),
            Query::HostPolicy => return self.host_policy.ask(request.reply),
            Query::Policy { endpoint, all } => Answer::Policy(self.policy_status(endpoint.as_deref(), *all)),
            Query::Staged => Answer::Policy(self.staged_status()),
            Query::Segments => Answer::Segments(self.segments()),
            Query::Traces { traces } => Answer::Traces(self.traces(traces)),
            Query::Datastore => Answer::Datastore(self.datastore()),
            Query::Reporting => Answer::Reporting(self.reporting()),
            Query::ReportedRoutes { limit } => Answer::ReportedRoutes(self.reported_routes(*limit)),
            Query::Fingerprints => Answer::Fingerprints(self.fingerprints()),
            Query::Summary => Answer::Summary(Box::new(self.summary())),
        };
        // A questioner that went away doesn't need the answer.
        let _ = request.reply.send(answer);
    }

    fn fingerprints(&self) -> FingerprintsStatus {
        let routes = self.rib.iter().map(|(prefix, _)| prefix);
        let status = |print: tables::Fingerprint| FingerprintStatus {
            table: print.table.to_owned(),
            rows: print.rows,
            fingerprint: format!("{:016x}", print.hash),
        };
        let all = self.installer.tables().fingerprints(routes);
        FingerprintsStatus { fingerprints: all.into_iter().map(status).collect() }
    }

    fn bgp(&self) -> BgpStatus {
        let now = Instant::now();
        let mut peers: Vec<PeerStatus> =
            self.bgp_peers(now).iter().map(|status| self.peer(status, now)).collect();
        peers.extend(self.sessions.held_back().values().map(|(peer, problem)| held_back(peer, problem)));
        peers.sort_by(|a, b| a.name.cmp(&b.name));
        BgpStatus {
            local_as: self.desired.as_number.0,
            router_id: self.desired.router_id.map(|id| id.to_string()),
            started: humantime::format_rfc3339_seconds(self.started).to_string(),
            reconfigured: humantime::format_rfc3339_seconds(self.reconfigured).to_string(),
            orders_full: self.bgp.orders_full(),
            peers,
        }
    }

    fn bgp_peers(&self, now: Instant) -> Vec<bgp::PeerStatus> {
        self.bgp.ask(move |speaker| speaker.peers(now).collect()).unwrap_or_default()
    }

    fn peer(&self, status: &bgp::PeerStatus, now: Instant) -> PeerStatus {
        let desired = self.sessions.desired(status.id);
        let age = now.saturating_duration_since(status.since);
        let up = status.state == bgp::PeerState::Established;
        let failed = status.last_error == Some(bgp::Reason::ConnectFailed);
        let problem = self.connect_problems.get(&status.id).filter(|_| failed);
        let last_error = status.last_error.as_ref().map(|reason| match problem {
            Some(problem) => format!("{reason}: {problem}"),
            None => reason.to_string(),
        });
        // A peer that connects from too far off gets this far: only then is it known who it is, and how far it may be. Its OPEN
        // may be there by then, and nothing comes after it.
        let awaited = match status.state {
            bgp::PeerState::OpenSent => Some("OPEN"),
            bgp::PeerState::OpenConfirm => Some("KEEPALIVE"),
            _ => None,
        };
        let awaited = awaited.filter(|_| age >= SILENCE).zip(self.peers.hint(status.id));
        let silent = awaited.map(|(message, hint)| format!("no {message} from the peer: {hint}"));
        let last_error = silent.or(last_error);
        let family = |family| status.family(family);
        PeerStatus {
            name: desired.map_or_else(|| status.description.clone(), |peer| peer.name.to_string()),
            address: status.address,
            asn: status.remote_as.0,
            kind: kind(desired.map_or(PeerKind::Node, |peer| peer.kind)).to_owned(),
            state: status.state.to_string(),
            up,
            since: humantime::format_rfc3339_seconds(SystemTime::now() - age).to_string(),
            since_seconds: age.as_secs(),
            info: if up { String::new() } else { last_error.clone().unwrap_or_default() },
            received: PerFamily {
                ipv4: family(Family::V4).received as u64,
                ipv6: family(Family::V6).received as u64,
            },
            announced: PerFamily {
                ipv4: family(Family::V4).announced as u64,
                ipv6: family(Family::V6).announced as u64,
            },
            hold_time_seconds: status.hold_time.map(|time| time.as_secs()),
            messages_received: total(&status.messages_in),
            messages_sent: total(&status.messages_out),
            established_count: self.established.get(&status.id).copied().unwrap_or_default(),
            last_error,
            prefix_limit: bgp_neighbor::prefix_limit(status),
        }
    }

    fn routes(&self, limit: usize, source: Option<&str>) -> RoutesStatus {
        if limit == 0 {
            let of = |name: &str| source.is_none_or(|source| source == name);
            let counts = self.counts();
            let total = counts.iter().filter(|(name, _)| of(name)).map(|(_, count)| count).sum();
            return RoutesStatus { routes: Vec::new(), total, counts };
        }
        let of = |offer: &Offer| source.is_none_or(|source| offer.source.as_str() == source);
        let (winners, total) = rib::first_of(self.rib.iter().filter(|(_, offer)| of(offer)), limit);
        RoutesStatus {
            routes: winners.into_iter().map(|(prefix, offer)| self.route_status(prefix, offer)).collect(),
            total,
            counts: self.counts(),
        }
    }

    fn counts(&self) -> BTreeMap<String, usize> {
        Source::ALL.iter().map(|source| (source.as_str().to_owned(), self.rib.count(*source))).collect()
    }

    fn route(&self, address: IpAddr) -> RouteStatus {
        let found = self.rib.covering(address, |_, _| true);
        let mut status = match found {
            Some((prefix, offer)) => {
                // The winner is the first.
                let others =
                    self.rib.offers(prefix).skip(1).map(|other| self.other_offer(offer, other)).collect();
                RouteStatus { others, ..self.route_status(prefix, offer) }
            }
            None => RouteStatus { fate: "no_route".to_owned(), ..RouteStatus::default() },
        };
        status.address = Some(address);
        status
    }

    /// What another source offers, and why the winner comes before it.
    fn other_offer(&self, winner: Offer, other: Offer) -> OfferStatus {
        let target = self.rib.targets().get(other.target);
        let (source, preferred) = (other.source.as_str(), winner.source.as_str());
        OfferStatus {
            source: source.to_owned(),
            preference: other.source.preference(),
            via: target
                .into_iter()
                .flat_map(|target| target.gateways())
                .map(|gateway| gateway.addr)
                .collect(),
            reason: format!(
                "{preferred} has preference {}, {source} {}",
                winner.source.preference(),
                other.source.preference()
            ),
        }
    }

    fn route_status(&self, prefix: Prefix, offer: Offer) -> RouteStatus {
        let target = self.rib.targets().get(offer.target);
        let resolution = target.map_or(Resolution::Unreachable, |target| resolve(&self.rib, target));
        let nowhere = |kind: &str| NexthopStatus { kind: Some(kind.to_owned()), ..NexthopStatus::default() };
        let nexthops = match &resolution {
            Resolution::Blackhole => vec![nowhere("blackhole")],
            Resolution::Broadcast => vec![nowhere("broadcast")],
            Resolution::Rejected => vec![nowhere("rejected")],
            Resolution::Prohibited => vec![nowhere("prohibited")],
            Resolution::Local => vec![nowhere("local")],
            Resolution::Attached(ifindex) => vec![NexthopStatus {
                port: self.link_name(*ifindex),
                kind: Some("attached".to_owned()),
                ..NexthopStatus::default()
            }],
            Resolution::Unreachable => {
                let unreachable = |gateway: &Gateway| NexthopStatus {
                    via: Some(gateway.addr),
                    kind: Some("unreachable".to_owned()),
                    tunnel: gateway.tunnel.as_ref().map(TunnelStatus::of),
                    ..NexthopStatus::default()
                };
                target.into_iter().flat_map(|target| target.gateways()).map(unreachable).collect()
            }
            Resolution::Neighbors(hops) => {
                let weighted = hops.values().any(|weight| *weight > 1);
                let all: u64 = hops.values().map(|weight| u64::from(*weight)).sum();
                let share = |weight: u32| weighted.then(|| u64::from(weight) as f64 / all as f64);
                hops.iter().map(|(hop, weight)| self.nexthop(hop, share(*weight))).collect()
            }
        };
        let fate = match &resolution {
            Resolution::Blackhole => "blackhole",
            Resolution::Broadcast => "broadcast",
            Resolution::Rejected => "rejected",
            Resolution::Prohibited => "prohibited",
            Resolution::Local => "local",
            Resolution::Attached(_) => "attached",
            Resolution::Unreachable => "no_route",
            Resolution::Neighbors(_) if nexthops.iter().all(|nexthop| nexthop.mac.is_none()) => "unresolved",
            Resolution::Neighbors(_) => "forward",
        };
        RouteStatus {
            address: None,
            prefix: Some(prefix.to_string()),
            source: Some(offer.source.as_str().to_owned()),
            preference: Some(offer.source.preference()),
            fate: fate.to_owned(),
            nexthops,
            installed: self.installer.is_installed(prefix),
            others: Vec::new(),
        }
    }

    fn nexthop(&self, hop: &Hop, share: Option<f64>) -> NexthopStatus {
        let neighbor = hop.neighbor;
        NexthopStatus {
            via: Some(neighbor.addr),
            port: self.link_name(neighbor.ifindex),
            mac: self.neighbors.mac(neighbor.ifindex, neighbor.addr).map(|mac| mac.to_string()),
            kind: None,
            share,
            tunnel: hop.tunnel.as_ref().map(TunnelStatus::of),
        }
    }

    fn link_name(&self, ifindex: model::IfIndex) -> Option<String> {
        self.kernel.links.iter().find(|link| link.ifindex == ifindex).map(|link| link.name.clone())
    }

    fn neighbors(&self) -> NeighborsStatus {
        let mut uses: BTreeMap<NeighborAddr, (usize, Vec<TunnelStatus>)> = BTreeMap::new();
        for (hop, used_by) in self.installer.needed_hops() {
            let uses = uses.entry(hop.neighbor).or_default();
            uses.0 += used_by;
            uses.1.extend(hop.tunnel.as_ref().map(TunnelStatus::of));
        }
        let status =
            |(ifindex, addr, entry): (model::IfIndex, IpAddr, &crate::neighbors::table::NeighborEntry)| {
                let (used_by, tunnels) =
                    uses.get(&NeighborAddr { ifindex, addr }).cloned().unwrap_or_default();
                NeighborStatus {
                    address: addr,
                    mac: entry.mac.map(|mac| mac.to_string()),
                    port: self.link_name(ifindex).unwrap_or_else(|| format!("#{}", ifindex.0)),
                    state: entry.state.to_string(),
                    used_by,
                    tunnels,
                }
            };
        let mut neighbors: Vec<NeighborStatus> = self.neighbors.iter().map(status).collect();
        neighbors.sort_by(|a, b| (&a.port, a.address).cmp(&(&b.port, b.address)));
        NeighborsStatus { neighbors }
    }

    fn port_status(&self) -> PortsStatus {
        let ports = self.ports.iter().map(|row| PortStatus {
            id: row.port.id.0,
            name: row.port.name.clone(),
            kind: row.port.kind.to_string(),
            ifindex: row.port.ifindex.0,
            mac: row.port.mac.to_string(),
            mtu: row.port.mtu,
            up: row.port.up,
            warnings: self.port_warnings(row),
            endpoint: row.port.endpoint.as_ref().map(|endpoint| endpoint.name.clone()),
            qos: self.qos_of(&row.port),
            queues: row.queues.clone(),
        });
        let problem = |(name, problem): (&String, &String)| PortProblem {
            name: name.clone(),
            problem: problem.clone(),
        };
        let mut ports: Vec<PortStatus> = ports.collect();
        ports.sort_by_key(|port| port.id);
        PortsStatus {
            ports,
            problems: self.ports.problems().iter().map(problem).collect(),
            workload_mtu: self.workload_mtus.wanted,
            receivable: self.config.receivable,
        }
    }

    fn port_warnings(&self, row: &PortRow) -> Vec<String> {
        let too_large = workload_mtu::unreceivable(row, self.config.receivable);
        too_large.into_iter().chain(self.workload_mtus.problem(row.port.ifindex).map(str::to_owned)).collect()
    }

    fn icmp(&self) -> IcmpStatus {
        let silent = Silence::ALL.iter().map(|silence| silence.as_str());
        let count = |name| self.punts_answered.get(name).copied().unwrap_or_default();
        IcmpStatus {
            errors: self.icmp_errors(),
            silent: silent.map(|name| (name.to_owned(), count(name))).collect(),
        }
    }

    fn icmp_errors(&self) -> BTreeMap<String, PerFamily> {
        let sent = self.answerer.sent();
        let count = |family, name| sent.get(&(family, name)).copied().unwrap_or_default();
        let both = |name| PerFamily { ipv4: count(Family::V4, name), ipv6: count(Family::V6, name) };
        Problem::NAMES.iter().map(|name| ((*name).to_owned(), both(*name))).collect()
    }

    fn qos_of(&self, port: &tables::Port) -> Option<QosStatus> {
        let qos = port.endpoint.as_ref()?.qos.as_deref()?;
        Some(QosStatus::new(qos, self.flows.connections_of(port.id)))
    }

    fn datastore(&self) -> DatastoreStatus {
        DatastoreStatus { invalid: self.invalid_files(), ..self.freshness.status(&self.config.datastore) }
    }

    fn invalid_files(&self) -> BTreeMap<String, String> {
        self.invalid.iter().map(|(file, message)| (file.display().to_string(), message.clone())).collect()
    }

    fn summary(&self) -> Summary {
        let tables = self.installer.tables();
        let (adjacencies, groups) = tables.taken();
        Summary {
            in_sync: self.in_sync,
            ready: self.ready,
            routes: self.counts(),
            fib_routes: PerFamily {
                ipv4: tables.fib().len(Family::V4) as u64,
                ipv6: tables.fib().len(Family::V6) as u64,
            },
            fib_bytes: tables.fib().bytes(),
            adjacencies,
            groups,
            refused_routes: self.installer.refused(),
            neighbors: self.neighbors.len(),
            refused_neighbors: self.neighbors.refused(),
            mirrored_routes: self.mirroring.mirror().status().installed,
            datastore: self.freshness.status(&self.config.datastore),
            invalid_files: self.invalid_files(),
            punts_answered: self
                .punts_answered
                .iter()
                .map(|(done, count)| ((*done).to_owned(), *count))
                .collect(),
            icmp_errors: self.icmp_errors(),
            warnings: self.warned.iter().cloned().chain(self.mirroring.mirror().warning()).collect(),
            qos: self
                .ports
                .iter()
                .filter_map(|row| Some((row.port.name.clone(), self.qos_of(&row.port)?)))
                .collect(),
            segments: self.segment_numbers(),
            policy: self.policy_numbers(),
            policy_use: PolicyUse::new(&tables.policy_usage()),
            bfd: self.bfd(),
            stations: self.stations.status(Instant::now()),
            bgp: self.bgp(),
        }
    }
}

/// As calicoctl names them.
fn kind(kind: PeerKind) -> &'static str {
    match kind {
        PeerKind::Mesh => "node-to-node mesh",
        PeerKind::Global => "global",
        PeerKind::Node => "node specific",
        PeerKind::LocalWorkload => "local workload",
        PeerKind::Dynamic => "dynamic",
    }
}

/// A session that isn't begun, for want of what would make it safe.
fn held_back(peer: &DesiredPeer, problem: &str) -> PeerStatus {
    PeerStatus {
        name: peer.name.to_string(),
        address: peer.address,
        asn: peer.as_number.0,
        kind: kind(peer.kind).to_owned(),
        state: bgp::PeerState::Idle.to_string(),
        up: false,
        since: humantime::format_rfc3339_seconds(SystemTime::now()).to_string(),
        since_seconds: 0,
        info: problem.to_owned(),
        received: PerFamily::default(),
        announced: PerFamily::default(),
        hold_time_seconds: None,
        messages_received: 0,
        messages_sent: 0,
        established_count: 0,
        last_error: Some(problem.to_owned()),
        prefix_limit: PrefixLimitStatus::default(),
    }
}

fn total(messages: &bgp::MessageCounters) -> u64 {
    messages.open + messages.update + messages.notification + messages.keepalive + messages.route_refresh
}

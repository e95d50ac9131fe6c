//! What monitoring stations are told of peers and tables; `bmp/monitor.rs` knows what they have been told.

use std::time::{Duration, Instant};

use model::Family;

use crate::bmp::StationConfig;
use crate::bmp::monitor::{Monitored, Shown};
use crate::bmp::wire::Statistic;
use crate::cohorts::Freshness;
use crate::input::Direction;
use crate::loc_rib::Rib;
use crate::output::{Output, Reason};
use crate::path::{Path, Slot};
use crate::speaker::{Peer, Speaker};
use crate::wire::nlri::AfiSafi;

impl Speaker {
    pub(super) fn station_joined(
        &mut self,
        config: StationConfig,
        time: Duration,
        now: Instant,
        out: &mut Vec<Output>,
    ) {
        let peers = self.peers.iter().enumerate();
        let peers = peers.filter_map(|(at, peer)| Some((Slot(at as u32), monitored(peer.as_ref()?)?)));
        let Rib { v4, v6 } = &self.tables.rib;
        self.monitor.join(config, (now, time), peers, [v4.end(), v6.end()], out);
    }

    pub(super) fn peer_up(&mut self, slot: Slot, now: Instant, out: &mut Vec<Output>) {
        let peer = self.peers.get(slot.0 as usize).and_then(Option::as_ref);
        if let Some(session) = peer.filter(|_| self.monitor.is_on()).and_then(monitored) {
            self.monitor.peer_up(slot, session, now, out);
        }
    }

    pub(super) fn peer_down(&mut self, slot: Slot, reason: &Reason, now: Instant, out: &mut Vec<Output>) {
        if self.monitor.is_on() {
            self.monitor.peer_down(slot, reason, now, out);
        }
    }

    pub(super) fn tell_stations(&mut self, now: Instant, out: &mut Vec<Output>) {
        if self.monitor.is_on() || self.monitor.has_work() {
            let rib = &self.tables.rib;
            let is_said = |family, path: &Path| is_said(&self.peers, family, path);
            let at = |family, index| {
                let (prefix, paths) = rib.at(family, index)?;
                Some(Shown { index, prefix, paths })
            };
            self.monitor.work(at, is_said, now, out);
        }
    }

    pub(super) fn tell_statistics(&mut self, now: Instant, out: &mut Vec<Output>) {
        let peers = &self.peers;
        let of = |slot: Slot| {
            let Some(peer) = peers.get(slot.0 as usize).and_then(Option::as_ref) else { return Vec::new() };
            let [v4, v6] = &peer.rib_in.cohorts;
            let received = [v4.received() as u64, v6.received() as u64];
            let treated = u32::try_from(peer.errors.treated_as_withdraw).unwrap_or(u32::MAX);
            let mut statistics = vec![Statistic::AdjRibInRoutes(received.iter().sum())];
            for family in Family::ALL {
                let AfiSafi { afi, safi } = AfiSafi::unicast(family);
                statistics.push(Statistic::AdjRibInOf(afi, safi, received[family as usize]));
            }
            statistics.push(Statistic::TreatedAsWithdraw(treated));
            statistics
        };
        let counts = Family::ALL.map(|family| self.tables.rib.len(family) as u64);
        let mut loc_rib = vec![Statistic::LocRibRoutes(counts.iter().sum())];
        for family in Family::ALL {
            let AfiSafi { afi, safi } = AfiSafi::unicast(family);
            loc_rib.push(Statistic::LocRibOf(afi, safi, counts[family as usize]));
        }
        self.monitor.statistics(of, loc_rib, now, out);
    }
}

/// Has the path's peer announced it in its latest session?
pub(crate) fn is_said(peers: &[Option<Peer>], family: Family, path: &Path) -> bool {
    let peer = peers.get(path.source.0 as usize).and_then(Option::as_ref);
    peer.is_some_and(|peer| peer.rib_in.cohorts[family as usize].freshness(path.cohort) == Freshness::Fresh)
}

/// A session as stations are told of it, if it stands.
fn monitored(peer: &Peer) -> Option<Monitored> {
    let established = peer.session.established()?;
    let (config, link) = (&peer.session.config, &established.link);
    let remote_port = match link.direction {
        Direction::Outbound => config.port,
        // The caller doesn't say from which port it came.
        Direction::Inbound => 0,
    };
    Some(Monitored {
        address: config.address,
        as_number: config.peer_as.0,
        router_id: established.negotiated.router_id,
        local: link.local,
        ports: (link.local_port, remote_port),
        opens: link.opens.clone(),
        families: Family::ALL.map(|family| established.negotiated.uses(family)),
        add_path: established.negotiated.update.add_path,
    })
}

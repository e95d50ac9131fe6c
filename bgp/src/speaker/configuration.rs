//! Peers that are configured, configured otherwise, and no longer.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Instant;

use crate::adj_rib_in::AdjRibIn;
use crate::cohorts::Cohorts;
use crate::config::{PeerConfig, PeerId};
use crate::graceful_restart::{Heard, Helper};
use crate::output::{Output, Reason};
use crate::path::Slot;
use crate::prefix_limit::Allowance;
use crate::session::{Event, Session, Step};
use crate::speaker::{Peer, Speaker};
use crate::status::ErrorCounters;
use crate::wire::notification::{CEASE, Notification, cease};

impl Speaker {
    pub(super) fn put_peer(&mut self, config: PeerConfig, now: Instant, out: &mut Vec<Output>) {
        let Some(&slot) = self.slots.get(&config.id) else { return self.add_peer(config, now, out) };
        let Some(peer) = self.peers.get_mut(slot.0 as usize).and_then(Option::as_mut) else { return };
        let was_client = peer.session.config.reflector_client;
        self.clusters_changed |= change_clients(&mut self.clients, was_client, config.reflector_client);
        if config.keeps_session_of(&peer.session.config) {
            let old = std::mem::replace(&mut peer.session.config, config);
            self.config_changed(slot, &old);
            self.limit_changed(slot, &old, now, out);
        } else {
            peer.rib_in.allowance.set(config.prefix_limit);
            self.peer_down(slot, &Reason::Sent(Notification::new(CEASE, cease::RECONFIGURED)), now, out);
            let event = self.with_session(slot, now, out, |session, step| session.restart(config, step));
            // What is kept of it while it is away was said under the other configuration, too.
            let event = event.unwrap_or(Event::Down { graceful: false });
            self.session_event(slot, Some(event), now, out);
        }
    }

    fn add_peer(&mut self, config: PeerConfig, now: Instant, out: &mut Vec<Output>) {
        if self.slots.len() >= self.config.limits.max_peers {
            self.peers_refused += 1;
            return;
        }
        let slot = self.vacant.pop_first().unwrap_or(Slot(self.peers.len() as u32));
        let id = config.id;
        self.clusters_changed |= change_clients(&mut self.clients, None, config.reflector_client);
        let (_, kind) = self.relation(&config);
        let allowance = Allowance::new(config.prefix_limit, self.config.limits.max_prefixes_per_peer);
        let mut step = Step {
            now,
            heard: now,
            out,
            identity: self.identity(&config, false),
            jitter: &mut self.jitter,
            open_hold_time: self.config.timers.open_hold_time,
            error_forget: self.config.timers.error_forget,
        };
        let peer = Peer {
            session: Session::new(config, &mut step),
            rib_in: AdjRibIn::new(slot, kind, allowance),
            member: None,
            helper: Helper::default(),
            heard: Heard::default(),
            errors: ErrorCounters::default(),
            congested: false,
            is_removed: false,
        };
        match self.peers.get_mut(slot.0 as usize) {
            Some(vacant) => *vacant = Some(peer),
            None => self.peers.push(Some(peer)),
        }
        self.slots.insert(id, slot);
        self.agenda.touch(slot);
    }

    /// Notes which clusters we reflect in now; where they are others than before, every route is judged anew, as it may
    /// have been through one of them.
    pub(super) fn gather_clusters(&mut self) {
        if !std::mem::take(&mut self.clusters_changed) || self.clients.keys().eq(self.clusters.iter()) {
            return;
        }
        self.clusters = self.clients.keys().copied().collect();
        for (slot, peer) in (0..).map(Slot).zip(&mut self.peers) {
            if let Some(peer) = peer {
                peer.rib_in.cohorts.iter_mut().for_each(Cohorts::judge_again);
                self.agenda.touch(slot);
            }
        }
    }

    /// What the peer does not notice has changed: routes may now be judged or announced otherwise.
    fn config_changed(&mut self, slot: Slot, old: &PeerConfig) {
        self.agenda.touch(slot);
        let Some(peer) = self.peers.get_mut(slot.0 as usize).and_then(Option::as_mut) else { return };
        let new = &peer.session.config;
        let own_addresses_changed = new.self_next_hops != old.self_next_hops;
        let policy_changed = new.policy_required != old.policy_required;
        if new.import != old.import
            || policy_changed
            || (new.blackhole, new.link_bandwidth) != (old.blackhole, old.link_bandwidth)
            || own_addresses_changed
        {
            peer.rib_in.cohorts.iter_mut().for_each(Cohorts::judge_again);
        }
        self.change_group(slot);
    }

    /// Another limit: who rests for the old one need not, and what was dropped for it is asked for again.
    fn limit_changed(&mut self, slot: Slot, old: &PeerConfig, now: Instant, out: &mut Vec<Output>) {
        let Some(peer) = self.peers.get_mut(slot.0 as usize).and_then(Option::as_mut) else { return };
        let (id, limit) = (peer.session.config.id, peer.session.config.prefix_limit);
        if limit == old.prefix_limit {
            return;
        }
        if !peer.rib_in.allowance.set(limit).is_empty() {
            self.request_refresh(id, out);
        }
        self.with_session(slot, now, out, |session, step| {
            session.end_rest(step);
            None::<()>
        });
    }

    pub(super) fn remove_peer(&mut self, peer: PeerId, now: Instant, out: &mut Vec<Output>) {
        let Some(slot) = self.slots.remove(&peer) else { return };
        let notification = Notification::new(CEASE, cease::DECONFIGURED);
        self.peer_down(slot, &Reason::Sent(notification.clone()), now, out);
        self.with_session(slot, now, out, |session, step| session.stop(Some(&notification), step));
        if let Some(mut peer) = self.take_peer(slot) {
            self.leave_group(slot, &mut peer);
            let was_client = peer.session.config.reflector_client;
            self.clusters_changed |= change_clients(&mut self.clients, was_client, None);
            peer.rib_in.cohorts.iter_mut().for_each(Cohorts::clear);
            (peer.helper, peer.is_removed) = (Helper::default(), true);
            self.peers[slot.0 as usize] = Some(peer);
            self.vacate(slot);
        }
    }

    /// A peer that was removed keeps its slot for as long as it has paths, which are known by that.
    pub(crate) fn vacate(&mut self, slot: Slot) {
        let Some(place) = self.peers.get_mut(slot.0 as usize) else { return };
        if place.take_if(|peer| peer.is_removed && peer.rib_in.is_empty()).is_some() {
            self.agenda.touch(slot);
            self.vacant.insert(slot);
        }
    }
}

/// A peer was a client in one cluster and is in another; says whether any of them is new or without clients now.
fn change_clients(
    clients: &mut BTreeMap<Ipv4Addr, usize>,
    was: Option<Ipv4Addr>,
    is: Option<Ipv4Addr>,
) -> bool {
    let mut changed = false;
    if let Some(cluster) = is {
        let count = clients.entry(cluster).or_default();
        *count += 1;
        changed |= *count == 1;
    }
    if let Some(cluster) = was
        && let Some(count) = clients.get_mut(&cluster)
    {
        *count -= 1;
        if *count == 0 {
            clients.remove(&cluster);
            changed = true;
        }
    }
    changed
}

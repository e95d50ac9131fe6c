//! A peer's bytes on their way into the tables.

use std::time::Instant;

use crate::config::ConnectionId;
use crate::import::ImportPolicy;
use crate::output::Output;
use crate::path::Slot;
use crate::prefix_limit::{Reached, TooMany};
use crate::session::Received;
use crate::speaker::{Peer, Speaker, out_of_resources};
use crate::update_group::Request;
use crate::wire::nlri::AfiSafi;
use crate::wire::notification::{CEASE, Notification, cease};
use crate::wire::route_refresh::{self, RouteRefresh};
use crate::wire::update::Update;
use crate::wire::{MAX_MESSAGE_LEN, MessageType};

impl Speaker {
    pub(super) fn received(
        &mut self,
        connection: ConnectionId,
        bytes: &[u8],
        now: Instant,
        out: &mut Vec<Output>,
    ) {
        let Some(&slot) = self.connections.get(&connection) else { return };
        let framer = self.with_session(slot, now, out, |session, _| session.take_framer(connection));
        let Some(mut framer) = framer else { return };
        let mut rest = bytes;
        loop {
            let message = match framer.next(&mut rest) {
                Ok(Some(message)) => message,
                Ok(None) => break,
                Err(notification) => {
                    self.fail(slot, connection, notification, now, out);
                    break;
                }
            };
            let (kind, _) = message;
            self.message(slot, connection, message, now, out);
            if !self.has_connection(slot, connection) {
                break;
            }
            if kind == MessageType::Open && self.takes_extended(slot, connection) {
                framer.extend();
            }
        }
        self.with_session(slot, now, out, |session, _| {
            session.return_framer(connection, framer);
            None::<()>
        });
    }

    /// Have both sides of a connection offered extended messages?
    fn takes_extended(&self, slot: Slot, connection: ConnectionId) -> bool {
        let peer = self.peers.get(slot.0 as usize).and_then(Option::as_ref);
        let negotiated = peer.and_then(|peer| peer.session.negotiated_on(connection));
        negotiated.is_some_and(|negotiated| negotiated.max_message_len > MAX_MESSAGE_LEN)
    }

    fn has_connection(&self, slot: Slot, connection: ConnectionId) -> bool {
        let peer = self.peers.get(slot.0 as usize).and_then(Option::as_ref);
        peer.is_some_and(|peer| peer.session.connections().any(|id| id == connection))
    }

    fn message(
        &mut self,
        slot: Slot,
        connection: ConnectionId,
        (kind, body): (MessageType, &[u8]),
        now: Instant,
        out: &mut Vec<Output>,
    ) {
        let received = self.with_session(slot, now, out, |session, step| {
            Some(session.message(connection, kind, body, step))
        });
        match received {
            None | Some(Received::Nothing) => {}
            Some(Received::Event(event)) => self.session_event(slot, Some(event), now, out),
            Some(Received::Update) => {
                if let Err(notification) = self.update(slot, body, out) {
                    self.fail(slot, connection, notification, now, out);
                }
            }
            Some(Received::RouteRefresh) => {
                if let Err(notification) = self.route_refresh(slot, body) {
                    self.fail(slot, connection, notification, now, out);
                }
            }
        }
    }

    pub(super) fn fail(
        &mut self,
        slot: Slot,
        connection: ConnectionId,
        notification: Notification,
        now: Instant,
        out: &mut Vec<Output>,
    ) {
        let event =
            self.with_session(slot, now, out, |session, step| session.fail(connection, notification, step));
        self.session_event(slot, event, now, out);
    }

    fn update(&mut self, slot: Slot, body: &[u8], out: &mut Vec<Output>) -> Result<(), Notification> {
        let Some(mut peer) = self.take_peer(slot) else { return Ok(()) };
        let outcome = self.update_of(&mut peer, body, out);
        self.peers[slot.0 as usize] = Some(peer);
        outcome
    }

    fn update_of(&mut self, peer: &mut Peer, body: &[u8], out: &mut Vec<Output>) -> Result<(), Notification> {
        let Some(negotiated) = peer.negotiated() else { return Ok(()) };
        let update = Update::parse(body, &negotiated.update)?;
        if let Some(family) = update.end_of_rib {
            peer.heard.end_of_rib[family as usize] = true;
            peer.helper.end_of_rib(family, &mut peer.rib_in);
            return Ok(());
        }
        let local = peer.rib_in.local;
        let policy = ImportPolicy::new(&self.config, &peer.session.config, local, &self.clusters);
        let outcome = peer.rib_in.apply(&update, &policy, &mut self.tables, &mut peer.errors, out);
        for (family, reached) in peer.rib_in.allowance.take_news() {
            match reached {
                Reached::Warning => peer.errors.prefix_limit_warnings += 1,
                Reached::Limit => peer.errors.prefix_limit_reached += 1,
            }
            let limit = peer.rib_in.allowance.limit;
            out.push(Output::PrefixLimit { peer: peer.session.config.id, family, reached, limit });
        }
        outcome.map_err(|too_many| {
            peer.errors.prefix_limit += 1;
            match too_many {
                TooMany::Paths { family, most } => {
                    let AfiSafi { afi, safi } = AfiSafi::unicast(family);
                    let most = u32::try_from(most).unwrap_or(u32::MAX);
                    let data = [&afi.to_be_bytes()[..], &[safi], &most.to_be_bytes()].concat();
                    Notification { code: CEASE, subcode: cease::MAX_PREFIXES, data }
                }
                TooMany::Attributes => out_of_resources(),
            }
        })
    }

    fn route_refresh(&mut self, slot: Slot, body: &[u8]) -> Result<(), Notification> {
        self.agenda.touch(slot);
        let Some(refresh) = RouteRefresh::parse(body) else { return Ok(()) };
        let Some(peer) = self.peers.get_mut(slot.0 as usize).and_then(Option::as_mut) else { return Ok(()) };
        // A family that was not negotiated is ignored (RFC 2918 §4).
        let Some(negotiated) = peer.negotiated() else { return Ok(()) };
        let family = refresh.family.family().filter(|&family| negotiated.uses(family));
        let Some(family) = family else { return Ok(()) };
        let is_enhanced = negotiated.enhanced_refresh;
        let cohorts = &mut peer.rib_in.cohorts[family as usize];
        match refresh.subtype {
            route_refresh::REQUEST => {
                if let Some(member) = &mut peer.member {
                    member.request(family, Request { force: true, end_of_rib: false });
                }
            }
            // One that begins again and again and never ends.
            route_refresh::BEGIN if is_enhanced => {
                cohorts.begin_refresh().map_err(|_| out_of_resources())?;
            }
            route_refresh::END if is_enhanced => cohorts.finish_refresh(),
            // RFC 7313 §5.
            _ => {}
        }
        Ok(())
    }
}

//! A session's messages: the handshake up to Established, and what keeps the session afterwards.

use std::time::Instant;

use super::{Established, Event, Received, Session, Step, count, send_keepalive};
use crate::collision::{Side, stays};
use crate::config::ConnectionId;
use crate::connection::{Negotiated, Opening, Phase};
use crate::output::{Output, Reason};
use crate::wire::notification::{CEASE, FSM_ERROR, HEADER_ERROR, Notification, ROUTE_REFRESH_ERROR, cease};
use crate::wire::open::Open;
use crate::wire::{MessageType, emit_message, route_refresh};

/// A ROUTE-REFRESH that is not four octets long (RFC 7313 §5, else RFC 4271 §6.1).
fn bad_refresh_length(body: &[u8], enhanced: bool) -> Notification {
    let mut message = Vec::new();
    emit_message(&mut message, MessageType::RouteRefresh, |out| out.extend(body));
    match body.get(2) {
        Some(&(route_refresh::BEGIN | route_refresh::END)) if enhanced => {
            Notification::with_data(ROUTE_REFRESH_ERROR, 1, &message)
        }
        _ => Notification::with_data(HEADER_ERROR, 2, &message[16..18]),
    }
}

impl Session {
    /// A message came.
    pub(crate) fn message(
        &mut self,
        id: ConnectionId,
        kind: MessageType,
        body: &[u8],
        step: &mut Step<'_>,
    ) -> Received {
        count(&mut self.messages_in, kind, 1);
        if kind == MessageType::Notification {
            let notification = Notification::parse(body).unwrap_or_else(|| Notification::new(0, 0));
            return self
                .lose(id, Reason::Received(notification), step)
                .map_or(Received::Nothing, Received::Event);
        }
        let is_established = self.established.as_ref().is_some_and(|established| established.link.id == id);
        let event = if is_established {
            match kind {
                MessageType::Keepalive | MessageType::Update => self.hold(step.now),
                _ => {}
            }
            match kind {
                MessageType::Update => return Received::Update,
                MessageType::RouteRefresh if body.len() == 4 => return Received::RouteRefresh,
                MessageType::RouteRefresh => {
                    let enhanced = self.established.as_ref().is_some_and(|it| it.negotiated.enhanced_refresh);
                    self.fail(id, bad_refresh_length(body, enhanced), step)
                }
                MessageType::Keepalive => None,
                _ => self.fail(id, Notification::new(FSM_ERROR, 3), step),
            }
        } else {
            self.handshake(id, kind, body, step)
        };
        event.map_or(Received::Nothing, Received::Event)
    }

    /// The peer lives: start the hold timer again.
    fn hold(&mut self, now: Instant) {
        if let Some(Established { link, negotiated, .. }) = &mut self.established {
            link.hold_deadline = Some(now + negotiated.hold_time).filter(|_| !negotiated.hold_time.is_zero());
        }
    }

    fn handshake(
        &mut self,
        id: ConnectionId,
        kind: MessageType,
        body: &[u8],
        step: &mut Step<'_>,
    ) -> Option<Event> {
        let opening = self.opening.iter().flatten().find(|opening| opening.link.id == id)?;
        match (&opening.phase, kind) {
            (Phase::OpenSent, MessageType::Open) => {
                match Open::parse(body).and_then(|open| Negotiated::new(open, &self.config, &step.identity)) {
                    Ok(negotiated) => self.open_received(id, body, negotiated, step),
                    Err(notification) => self.fail(id, notification, step),
                }
            }
            (Phase::OpenSent, _) => self.fail(id, Notification::new(FSM_ERROR, 1), step),
            (Phase::OpenConfirm(_), MessageType::Keepalive) => {
                self.establish(id, step);
                Some(Event::Up)
            }
            (Phase::OpenConfirm(_), _) => self.fail(id, Notification::new(FSM_ERROR, 2), step),
        }
    }

    fn open_received(
        &mut self,
        id: ConnectionId,
        body: &[u8],
        negotiated: Negotiated,
        step: &mut Step<'_>,
    ) -> Option<Event> {
        let mut event = None;
        if let Some(established) = &self.established {
            let beside = self
                .opening
                .iter()
                .flatten()
                .any(|opening| opening.link.id == id && opening.beside_established);
            if !beside {
                // §6.8: the established connection stays.
                return self.fail(id, Notification::new(CEASE, cease::COLLISION), step);
            }
            let old = established.link.id;
            self.drop_link(old, step);
            step.out.push(Output::Close { connection: old });
            self.last_error = Some(Reason::PeerRestarted);
            event = Some(Event::Restarted);
        }
        let remote = Side { router_id: negotiated.router_id, as_number: self.config.peer_as.0 };
        let local = Side { router_id: step.identity.router_id, as_number: step.identity.local_as.0 };
        let rival = self
            .opening
            .iter()
            .flatten()
            .find(|opening| opening.link.id != id && matches!(opening.phase, Phase::OpenConfirm(_)));
        if let Some(rival) = rival {
            let loser = if rival.link.direction == stays(local, remote) { id } else { rival.link.id };
            self.fail(loser, Notification::new(CEASE, cease::COLLISION), step);
            if loser == id {
                return event;
            }
        }
        let Some(opening) = self.opening.iter_mut().flatten().find(|opening| opening.link.id == id) else {
            return event;
        };
        emit_message(&mut opening.link.opens[1], MessageType::Open, |out| out.extend(body));
        let hold_time = negotiated.hold_time;
        opening.link.hold_deadline = Some(step.now + hold_time).filter(|_| !hold_time.is_zero());
        send_keepalive(&mut opening.link, negotiated.keepalive_time, &mut self.messages_out, step);
        opening.phase = Phase::OpenConfirm(Box::new(negotiated));
        let reason = if event.is_some() { Reason::PeerRestarted } else { Reason::OpenReceived };
        self.settle(reason, step);
        event
    }

    fn establish(&mut self, id: ConnectionId, step: &mut Step<'_>) {
        let is_it = |opening: &mut Opening| opening.link.id == id;
        let Some(opening) = self.opening.iter_mut().find_map(|opening| opening.take_if(is_it)) else {
            return;
        };
        let Phase::OpenConfirm(negotiated) = opening.phase else { return };
        // Whatever else is opening has lost (§6.8).
        for at in 0..self.opening.len() {
            if let Some(other) = self.opening[at].take() {
                self.close_with(&other.link, Notification::new(CEASE, cease::COLLISION), step);
            }
        }
        self.established = Some(Established { link: opening.link, negotiated: *negotiated, since: step.now });
        self.hold(step.now);
        self.connect_at = None;
        self.was_established = true;
        self.settle(Reason::Confirmed, step);
    }
}

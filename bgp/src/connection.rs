//! One TCP connection with a peer: its place in the handshake, its timers, its bytes.

use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use model::{AsNumber, Family};

use crate::config::{ConnectionId, PeerConfig, PeerKind, SendPaths};
use crate::input::Direction;
use crate::wire::capability::{
    AddPathMode, Capability, GracefulRestart, LongLived, MAX_STALE_TIME, NextHopEncoding, code,
};
use crate::wire::nlri::AfiSafi;
use crate::wire::notification::{Notification, OPEN_ERROR, ROLE_MISMATCH};
use crate::wire::open::{AS_TRANS, Open};
use crate::wire::update::UpdateContext;
use crate::wire::{Framer, MAX_EXTENDED_LEN, MAX_MESSAGE_LEN};

/// What an OPEN of ours says besides the peer's configuration.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Identity {
    pub(crate) router_id: Ipv4Addr,
    pub(crate) local_as: AsNumber,
    /// The R bit (RFC 4724 §3).
    pub(crate) restarted: bool,
    /// The F bit.
    pub(crate) forwarding_preserved: bool,
}

impl Identity {
    /// Our OPEN for a peer.
    pub(crate) fn open(&self, config: &PeerConfig) -> Open {
        let families = || config.families.iter().map(|&family| AfiSafi::unicast(family));
        let local_as = self.local_as.0;
        let mut capabilities: Vec<_> = families().map(Capability::MultiProtocol).collect();
        capabilities.push(Capability::RouteRefresh);
        capabilities.push(Capability::FourOctetAs(local_as));
        // Without a restart time of its own the list is empty: we only help (RFC 4724 §3).
        let restart_time = config.restart_time.as_secs().min(4095) as u16;
        let kept: Vec<_> = families().map(|family| (family, self.forwarding_preserved)).collect();
        capabilities.push(Capability::GracefulRestart(GracefulRestart {
            restarted: self.restarted,
            notification: config.survive_notification,
            restart_time,
            families: if restart_time == 0 { Vec::new() } else { kept },
        }));
        let long_lived_time = config.long_lived_time.as_secs().min(MAX_STALE_TIME.into()) as u32;
        let long_lived =
            |family| LongLived { family, preserved: self.forwarding_preserved, stale_time: long_lived_time };
        // An empty list says that we know what LLGR_STALE means (RFC 9494 §4.3).
        let offered = families().filter(|_| long_lived_time != 0).map(long_lived).collect();
        capabilities.push(Capability::LongLived(offered));
        let mode = AddPathMode { receive: config.add_path, send: config.send_paths != SendPaths::Best };
        if mode.receive || mode.send {
            capabilities.push(Capability::AddPath(families().map(|family| (family, mode)).collect()));
        }
        capabilities.push(Capability::EnhancedRefresh);
        if config.extended_messages {
            capabilities.push(Capability::ExtendedMessage);
        }
        if config.v4_over_v6 {
            capabilities.push(Capability::ExtendedNextHop(vec![NextHopEncoding::V4_OVER_V6]));
        }
        // Only between ASes (RFC 9234 §4).
        let external = config.peer_as != self.local_as;
        capabilities.extend(config.role.filter(|_| external).map(Capability::Role));
        Open {
            my_as: u16::try_from(local_as).unwrap_or(AS_TRANS),
            hold_time: offered_hold_time(config).as_secs() as u16,
            router_id: self.router_id,
            capabilities,
        }
    }
}

/// The configured hold time as the wire can carry it: whole seconds, none or at least three.
fn offered_hold_time(config: &PeerConfig) -> Duration {
    match config.hold_time.as_secs() {
        0 => Duration::ZERO,
        seconds => Duration::from_secs(seconds.clamp(3, u64::from(u16::MAX))),
    }
}

/// What both OPENs together came to.
#[derive(Clone, Debug)]
pub(crate) struct Negotiated {
    pub(crate) router_id: Ipv4Addr,
    /// Zero is none.
    pub(crate) hold_time: Duration,
    /// Zero is never.
    pub(crate) keepalive_time: Duration,
    pub(crate) update: UpdateContext,
    /// Prefixes we send carry path identifiers (RFC 7911), by [`Family`].
    pub(crate) send_several: [bool; 2],
    /// The longest message that either side sends.
    pub(crate) max_message_len: usize,
    pub(crate) route_refresh: bool,
    /// Begin and end of a refresh are marked (RFC 7313).
    pub(crate) enhanced_refresh: bool,
    /// What the peer's long-lived graceful restart says of its families; `None` if it knows nothing of it.
    pub(crate) long_lived: Option<Vec<LongLived>>,
    pub(crate) graceful_restart: Option<GracefulRestart>,
    /// Both keep routes also where a session ends by NOTIFICATION, unless that is a Hard Reset (RFC 8538 §2).
    pub(crate) survives_notification: bool,
    pub(crate) capabilities: Vec<Capability>,
}

impl Negotiated {
    /// Holds the peer's OPEN against what we expect and offered (RFC 4271 §6.2).
    pub(crate) fn new(
        open: Open,
        config: &PeerConfig,
        identity: &Identity,
    ) -> Result<Negotiated, Notification> {
        let remote_as = open.as_number();
        // AS 0 is nobody, in either field (RFC 7607 §2).
        if open.my_as == 0 || remote_as == 0 || remote_as != config.peer_as.0 {
            return Err(Notification::new(OPEN_ERROR, 2));
        }
        let kind = if config.peer_as == identity.local_as { PeerKind::Ibgp } else { PeerKind::Ebgp };
        // Identifiers are unique within an AS (RFC 6286 §2.1).
        if kind == PeerKind::Ibgp && open.router_id == identity.router_id {
            return Err(Notification::with_data(OPEN_ERROR, 3, &open.router_id.octets()));
        }
        if kind == PeerKind::Ebgp {
            roles_suit(&open, config)?;
        }
        let families = common_families(&open, config)?;
        let hold_time = offered_hold_time(config).min(Duration::from_secs(open.hold_time.into()));
        let third = hold_time / 3;
        let keepalive_time =
            config.keepalive_time.map_or(third, |time| time.min(third).max(Duration::from_secs(1)));
        let update = UpdateContext {
            kind,
            four_octet_as: open.four_octet_as().is_some(),
            families,
            add_path: Family::ALL.map(|family| config.add_path && several_paths(&open, family).send),
            v4_over_v6: config.v4_over_v6 && takes_v4_over_v6(&open),
        };
        let has = |wanted: Capability| open.capabilities.contains(&wanted);
        let extended = config.extended_messages && has(Capability::ExtendedMessage);
        let graceful_restart = open.capabilities.iter().rev().find_map(|capability| match capability {
            Capability::GracefulRestart(restart) => Some(restart.clone()),
            _ => None,
        });
        Ok(Negotiated {
            router_id: open.router_id,
            hold_time,
            keepalive_time: if hold_time.is_zero() { Duration::ZERO } else { keepalive_time },
            update,
            send_several: Family::ALL
                .map(|family| config.send_paths != SendPaths::Best && several_paths(&open, family).receive),
            max_message_len: if extended { MAX_EXTENDED_LEN } else { MAX_MESSAGE_LEN },
            route_refresh: has(Capability::RouteRefresh),
            enhanced_refresh: has(Capability::EnhancedRefresh),
            long_lived: open.capabilities.iter().rev().find_map(|capability| match capability {
                Capability::LongLived(families) => Some(families.clone()),
                _ => None,
            }),
            survives_notification: config.survive_notification
                && graceful_restart.as_ref().is_some_and(|restart| restart.notification),
            graceful_restart,
            capabilities: open.capabilities,
        })
    }

    pub(crate) fn uses(&self, family: Family) -> bool {
        self.update.families[family as usize]
    }

    /// Does the peer ask us to keep its routes of this family long after its restart time?
    pub(crate) fn lives_long(&self, family: Family) -> Option<LongLived> {
        let wanted = AfiSafi::unicast(family);
        let found = self.long_lived.iter().flatten().find(|entry| entry.family == wanted);
        found.copied().filter(|_| self.uses(family))
    }

    /// Does the peer ask us to keep its routes of this family while it restarts? `Some(F bit)` if so.
    pub(crate) fn restarts(&self, family: Family) -> Option<bool> {
        let restart = self.graceful_restart.as_ref()?;
        let wanted = AfiSafi::unicast(family);
        let found = restart.families.iter().find(|(family, _)| *family == wanted);
        found.filter(|_| self.uses(family)).map(|&(_, preserved)| preserved)
    }
}

/// Families that both sides have; a peer without the capability has IPv4 (RFC 4760 §8).
fn common_families(open: &Open, config: &PeerConfig) -> Result<[bool; 2], Notification> {
    let is_mp = |capability: &&Capability| matches!(capability, Capability::MultiProtocol(_));
    let none_given = !open.capabilities.iter().any(|capability| is_mp(&capability));
    let families = Family::ALL.map(|family| {
        let offered = config.families.contains(&family);
        let wanted = Capability::MultiProtocol(AfiSafi::unicast(family));
        offered && (open.capabilities.contains(&wanted) || none_given && family == Family::V4)
    });
    if families.contains(&true) {
        return Ok(families);
    }
    // The data lists the capabilities that we miss (RFC 5492 §5).
    let mut data = Vec::new();
    for &family in &config.families {
        Capability::MultiProtocol(AfiSafi::unicast(family)).emit(&mut data);
    }
    Err(Notification { code: OPEN_ERROR, subcode: 7, data })
}

/// What the peer can do with several paths in a family.
fn several_paths(open: &Open, family: Family) -> AddPathMode {
    let modes = open.capabilities.iter().filter_map(|capability| match capability {
        Capability::AddPath(families) => Some(families),
        _ => None,
    });
    let mut modes = modes.flatten().filter(|(of, _)| *of == AfiSafi::unicast(family));
    modes.next().map_or(AddPathMode { receive: false, send: false }, |&(_, mode)| mode)
}

fn takes_v4_over_v6(open: &Open) -> bool {
    open.capabilities.iter().any(|capability| {
        matches!(capability, Capability::ExtendedNextHop(encodings)
            if encodings.contains(&NextHopEncoding::V4_OVER_V6))
    })
}

/// Roles fit together, or one side names none (RFC 9234 §4.2).
fn roles_suit(open: &Open, config: &PeerConfig) -> Result<(), Notification> {
    let Some(ours) = config.role else { return Ok(()) };
    let mut named = open.capabilities.iter().filter_map(|capability| match capability {
        Capability::Role(role) => Some(Some(*role)),
        Capability::Other { code: code::ROLE, .. } => Some(None),
        _ => None,
    });
    let suits = match named.next() {
        // Given more than once, all must be the same.
        Some(theirs) => theirs == Some(ours.counterpart()) && named.all(|again| again == theirs),
        None => !config.strict_role,
    };
    if suits { Ok(()) } else { Err(Notification::new(OPEN_ERROR, ROLE_MISMATCH)) }
}

/// How far the handshake is.
#[derive(Debug)]
pub(crate) enum Phase {
    OpenSent,
    OpenConfirm(Box<Negotiated>),
}

/// A connection whose handshake is under way.
#[derive(Debug)]
pub(crate) struct Opening {
    pub(crate) link: Link,
    pub(crate) phase: Phase,
    /// The session stood already when this connection came.
    pub(crate) beside_established: bool,
}

/// A connection's number, bytes and timers.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) id: ConnectionId,
    pub(crate) direction: Direction,
    pub(crate) local: IpAddr,
    pub(crate) local_port: u16,
    /// As sent and as received, headers included.
    pub(crate) opens: [Vec<u8>; 2],
    pub(crate) framer: Framer,
    pub(crate) hold_deadline: Option<Instant>,
    /// When to look at it again, which has passed while the peer may have spoken and not been heard yet.
    pub(crate) hold_check: Option<Instant>,
    pub(crate) keepalive_deadline: Option<Instant>,
}

/// Between two looks at a peer that may have spoken.
const LOOK_AGAIN: Duration = Duration::from_millis(200);

impl Link {
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        let hold = self.hold_deadline.map(|deadline| self.hold_check.map_or(deadline, |at| at.max(deadline)));
        [hold, self.keepalive_deadline].into_iter().flatten().min()
    }

    /// Has the peer been silent for its hold time? Not where it may have spoken since what was `heard` last came.
    pub(crate) fn is_silent(&mut self, now: Instant, heard: Instant) -> bool {
        let Some(deadline) = self.hold_deadline.filter(|deadline| *deadline <= now) else { return false };
        self.hold_check = (deadline > heard).then(|| now + LOOK_AGAIN);
        self.hold_check.is_none()
    }
}

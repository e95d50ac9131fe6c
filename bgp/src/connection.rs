//! One TCP connection with a peer: its place in the handshake, its timers, its bytes.

use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use model::{AsNumber, Family};

use crate::config::{ConnectionId, PeerConfig, PeerKind};
use crate::input::Direction;
use crate::wire::Framer;
use crate::wire::capability::{AddPathMode, Capability, GracefulRestart};
use crate::wire::nlri::AfiSafi;
use crate::wire::notification::{Notification, OPEN_ERROR};
use crate::wire::open::{AS_TRANS, Open};
use crate::wire::update::UpdateContext;

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
        if config.add_path {
            let receive = AddPathMode { receive: true, send: false };
            capabilities.push(Capability::AddPath(families().map(|family| (family, receive)).collect()));
        }
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
    pub(crate) route_refresh: bool,
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
        let families = common_families(&open, config)?;
        let hold_time = offered_hold_time(config).min(Duration::from_secs(open.hold_time.into()));
        let third = hold_time / 3;
        let keepalive_time =
            config.keepalive_time.map_or(third, |time| time.min(third).max(Duration::from_secs(1)));
        let update = UpdateContext {
            kind,
            four_octet_as: open.four_octet_as().is_some(),
            families,
            add_path: Family::ALL.map(|family| config.add_path && sends_several_paths(&open, family)),
        };
        let graceful_restart = open.capabilities.iter().rev().find_map(|capability| match capability {
            Capability::GracefulRestart(restart) => Some(restart.clone()),
            _ => None,
        });
        Ok(Negotiated {
            router_id: open.router_id,
            hold_time,
            keepalive_time: if hold_time.is_zero() { Duration::ZERO } else { keepalive_time },
            update,
            route_refresh: open.capabilities.contains(&Capability::RouteRefresh),
            survives_notification: config.survive_notification
                && graceful_restart.as_ref().is_some_and(|restart| restart.notification),
            graceful_restart,
            capabilities: open.capabilities,
        })
    }

    pub(crate) fn uses(&self, family: Family) -> bool {
        self.update.families[family as usize]
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

fn sends_several_paths(open: &Open, family: Family) -> bool {
    open.capabilities.iter().any(|capability| match capability {
        Capability::AddPath(families) => {
            families.iter().any(|&(of, mode)| of == AfiSafi::unicast(family) && mode.send)
        }
        _ => false,
    })
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
    pub(crate) framer: Framer,
    pub(crate) hold_deadline: Option<Instant>,
    pub(crate) keepalive_deadline: Option<Instant>,
}

impl Link {
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        [self.hold_deadline, self.keepalive_deadline].into_iter().flatten().min()
    }
}

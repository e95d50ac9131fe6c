//! Graceful restart (RFC 4724): keeping a restarting peer's routes, and restarting ourselves.

use std::time::{Duration, Instant};

use model::Family;

use crate::adj_rib_in::{AdjRibIn, Tables};
use crate::connection::Negotiated;
use crate::output::Output;

/// The helper's side of one peer.
#[derive(Debug, Default)]
pub(crate) struct Helper {
    /// When stale routes go: first the restart time, then, once the peer is back, the wait for End-of-RIB.
    deadline: Option<Instant>,
    /// What the session that stood last negotiated: families the peer wants kept, and for how long.
    keeps: [bool; 2],
    restart_time: Duration,
}

impl Helper {
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// The session stands (again): stale routes wait for End-of-RIB, except in families whose forwarding state
    /// the peer did not preserve (§4.2).
    pub(crate) fn session_up(
        &mut self,
        negotiated: &Negotiated,
        stale_after_return: Duration,
        now: Instant,
        rib_in: &mut AdjRibIn,
        tables: &mut Tables,
        out: &mut Vec<Output>,
    ) {
        for family in Family::ALL {
            let preserved = negotiated.restarts(family);
            self.keeps[family as usize] = preserved.is_some();
            if preserved != Some(true) {
                rib_in.sweep_stale(family, tables, out);
            }
        }
        let restart_time = negotiated.graceful_restart.as_ref().map_or(0, |restart| restart.restart_time);
        self.restart_time = Duration::from_secs(restart_time.into());
        self.deadline = (rib_in.stale != [0; 2]).then(|| now + stale_after_return);
    }

    /// The session is gone. Without a NOTIFICATION the peer's routes stay for its restart time.
    pub(crate) fn session_down(
        &mut self,
        graceful: bool,
        now: Instant,
        rib_in: &mut AdjRibIn,
        tables: &mut Tables,
        out: &mut Vec<Output>,
    ) {
        for family in Family::ALL {
            if graceful && self.keeps[family as usize] && !self.restart_time.is_zero() {
                rib_in.mark_stale(family, tables, out);
            } else {
                rib_in.clear(family, tables, out);
            }
        }
        self.deadline = (rib_in.stale != [0; 2]).then(|| now + self.restart_time);
    }

    /// The peer has announced all it has: what is still stale is gone.
    pub(crate) fn end_of_rib(
        &mut self,
        family: Family,
        rib_in: &mut AdjRibIn,
        tables: &mut Tables,
        out: &mut Vec<Output>,
    ) {
        rib_in.sweep_stale(family, tables, out);
        if rib_in.stale == [0; 2] {
            self.deadline = None;
        }
    }

    /// Sweeps once the deadline has passed.
    pub(crate) fn tick(
        &mut self,
        now: Instant,
        rib_in: &mut AdjRibIn,
        tables: &mut Tables,
        out: &mut Vec<Output>,
    ) {
        if self.deadline.is_some_and(|deadline| deadline <= now) {
            self.deadline = None;
            Family::ALL.into_iter().for_each(|family| rib_in.sweep_stale(family, tables, out));
        }
    }
}

/// What a restarting speaker has heard from one peer.
#[derive(Debug, Default)]
pub(crate) struct Heard {
    /// End-of-RIB in this session, by [`Family`].
    pub(crate) end_of_rib: [bool; 2],
    /// An attempt to connect has failed since we started: the peer is down, nobody waits for it.
    pub(crate) is_down: bool,
}

impl Heard {
    /// Need we not wait for this peer (any longer)? `negotiated` is that of its session, if it stands.
    pub(crate) fn enough(&self, negotiated: Option<&Negotiated>) -> bool {
        let Some(negotiated) = negotiated else { return self.is_down };
        // Two that restart at once would wait for each other for ever: the R bit says not to (§4.1).
        negotiated.graceful_restart.as_ref().is_none_or(|restart| restart.restarted)
            || Family::ALL
                .into_iter()
                .all(|family| self.end_of_rib[family as usize] || negotiated.restarts(family).is_none())
    }
}

/// Our own restart, from the start of the process until we have heard enough.
#[derive(Debug)]
pub(crate) struct Restart {
    /// Selection_Deferral_Timer (§4.1), running from the first input.
    pub(crate) deadline: Option<Instant>,
}

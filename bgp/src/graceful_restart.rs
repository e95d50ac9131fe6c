//! Graceful restart (RFC 4724), also long-lived (RFC 9494): keeping a restarting peer's routes, and restarting
//! ourselves.

use std::time::{Duration, Instant};

use model::Family;

use crate::adj_rib_in::AdjRibIn;
use crate::config::Timers;
use crate::connection::Negotiated;

/// What becomes of a family's routes while its peer is away.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Phase {
    /// Nothing is stale.
    #[default]
    Fresh,
    /// They wait for the peer to come back.
    Restarting { until: Instant },
    /// They are a last resort (RFC 9494), also when the peer is back and has not announced everything yet.
    LongLived { until: Instant },
    /// The peer is back; they wait for End-of-RIB.
    Returned { until: Instant },
}

impl Phase {
    fn until(self) -> Option<Instant> {
        match self {
            Phase::Fresh => None,
            Phase::Restarting { until } | Phase::LongLived { until } | Phase::Returned { until } => {
                Some(until)
            }
        }
    }
}

/// What the session that stood last negotiated for a family, and how it stands.
#[derive(Clone, Copy, Debug, Default)]
struct Kept {
    /// How long the peer's routes are kept while it restarts; zero is not at all.
    restart_time: Duration,
    /// How long they are a last resort after that; zero is not at all.
    long_lived_time: Duration,
    phase: Phase,
}

/// The helper's side of one peer, by [`Family`].
#[derive(Debug, Default)]
pub(crate) struct Helper([Kept; 2]);

impl Helper {
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.0.iter().filter_map(|kept| kept.phase.until()).min()
    }

    /// The session stands (again): stale routes wait for End-of-RIB, except in families whose forwarding state
    /// the peer did not preserve (§4.2).
    pub(crate) fn session_up(
        &mut self,
        negotiated: &Negotiated,
        timers: &Timers,
        now: Instant,
        rib_in: &mut AdjRibIn,
    ) {
        for family in Family::ALL {
            let cohorts = &mut rib_in.cohorts[family as usize];
            let kept = &mut self.0[family as usize];
            let (restarts, lives_long) = (negotiated.restarts(family), negotiated.lives_long(family));
            let preserved = match kept.phase {
                // RFC 9494 §4.2 has an F bit of its own.
                Phase::LongLived { .. } => lives_long.map(|entry| entry.preserved),
                _ => restarts,
            };
            if preserved != Some(true) {
                cohorts.sweep_stale();
            }
            kept.phase = match kept.phase {
                _ if cohorts.stale() == 0 => Phase::Fresh,
                // "The timer continues to run."
                Phase::LongLived { until } => Phase::LongLived { until },
                _ => Phase::Returned { until: now + timers.stale_after_return },
            };
            let restart = negotiated.graceful_restart.as_ref().filter(|_| restarts.is_some());
            let seconds = |seconds: u32| Duration::from_secs(seconds.into());
            kept.restart_time = seconds(restart.map_or(0, |restart| restart.restart_time.into()));
            kept.long_lived_time =
                seconds(lives_long.map_or(0, |entry| entry.stale_time)).min(timers.long_lived_max);
        }
    }

    /// The session is gone. Unless it was said that they are to go, the peer's routes stay for its restart time.
    pub(crate) fn session_down(&mut self, graceful: bool, now: Instant, rib_in: &mut AdjRibIn) {
        for family in Family::ALL {
            let (kept, cohorts) = (&mut self.0[family as usize], &mut rib_in.cohorts[family as usize]);
            let is_kept = !kept.restart_time.is_zero() || !kept.long_lived_time.is_zero();
            if !graceful || !is_kept {
                cohorts.clear();
                kept.phase = Phase::Fresh;
                continue;
            }
            cohorts.mark_stale();
            kept.phase = match cohorts.stale() {
                0 => Phase::Fresh,
                // Already due where there is no restart time: the long-lived phase begins at once (RFC 9494 §4.2).
                _ => Phase::Restarting { until: now + kept.restart_time },
            };
        }
        self.tick(now, rib_in);
    }

    /// The peer has announced all it has: what is still stale is gone.
    pub(crate) fn end_of_rib(&mut self, family: Family, rib_in: &mut AdjRibIn) {
        rib_in.cohorts[family as usize].sweep_stale();
        self.0[family as usize].phase = Phase::Fresh;
    }

    /// What is over is over: stale routes go, or become a last resort.
    pub(crate) fn tick(&mut self, now: Instant, rib_in: &mut AdjRibIn) {
        for family in Family::ALL {
            let kept = &mut self.0[family as usize];
            if kept.phase.until().is_none_or(|until| until > now) {
                continue;
            }
            kept.phase = match kept.phase {
                Phase::Restarting { .. } if !kept.long_lived_time.is_zero() => {
                    rib_in.cohorts[family as usize].live_long();
                    Phase::LongLived { until: now + kept.long_lived_time }
                }
                _ => {
                    rib_in.cohorts[family as usize].sweep_stale();
                    Phase::Fresh
                }
            };
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

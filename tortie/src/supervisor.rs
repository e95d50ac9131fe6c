//! What systemd is told (sd_notify(3)): that the router forwards, what it is at, and that it is alive.
//!
//! Alive means that work gets done: the main thread's timers run, the slow path answers a question between two of its
//! turns, and every worker has come round since the last look. Where one of them hangs, systemd isn't told, and ends
//! the process after `WatchdogSec=`: what is in the kernel then decides (ARCHITECTURE.md, D1), and a new one starts.

use std::convert::Infallible;
use std::time::{Duration, Instant};

use sd_notify::NotifyState;
use slowpath::status::Summary;

use crate::observer::{NoAnswer, Observer};

/// How often a router that isn't ready yet is looked at.
const UNTIL_READY: Duration = Duration::from_millis(100);
/// How often one that nobody wants to hear from is.
const UNWATCHED: Duration = Duration::from_secs(5);
/// A router without its datastore is called ready after this long, and says so: systemd must not end one that forwards
/// by what it knows (ARCHITECTURE.md, D11), nor hold up the boot.
const READY_WITHIN: Duration = Duration::from_secs(30);

/// Tells systemd until the future is dropped. Where nobody listens (no `NOTIFY_SOCKET`), waits for ever.
pub(crate) async fn keep_told(observer: &Observer) -> Infallible {
    if std::env::var_os("NOTIFY_SOCKET").is_none() {
        return std::future::pending().await;
    }
    // Several looks within what systemd waits for: one late answer is no death.
    let pause = sd_notify::watchdog_enabled().map_or(UNWATCHED, |limit| limit / 6);
    let (mut tale, started) = (Tale::default(), Instant::now());
    loop {
        let summary = observer.summary().await;
        tell(&tale.next(&summary, &observer.rounds(), started.elapsed() >= READY_WITHIN));
        tokio::time::sleep(if tale.ready { pause } else { UNTIL_READY.min(pause) }).await;
    }
}

/// Tells systemd that the end was asked for.
pub(crate) fn stopping() {
    tell(&[NotifyState::Stopping]);
}

fn tell(states: &[NotifyState]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!(%error, "systemd can't be told how things are");
    }
}

/// What has been told.
#[derive(Default)]
struct Tale {
    ready: bool,
    status: String,
    rounds: Vec<u64>,
}

impl Tale {
    /// What is to be told now. `late`: it is time to be called ready, whatever is missing.
    fn next(
        &mut self,
        summary: &Result<Summary, NoAnswer>,
        rounds: &[u64],
        late: bool,
    ) -> Vec<NotifyState<'_>> {
        let mut states = Vec::new();
        // Before that the looks are too close together for a worker that has to share its core.
        let judged = self.ready;
        if !self.ready && (late || summary.as_ref().is_ok_and(|summary| summary.ready)) {
            self.ready = true;
            states.push(NotifyState::Ready);
        }
        let stuck = rounds.iter().zip(&self.rounds).position(|(now, before)| judged && now == before);
        let status = match (summary, stuck) {
            (_, Some(worker)) => format!("worker {worker} makes no progress"),
            (Err(error), None) => error.to_string(),
            (Ok(summary), None) => sentence(summary),
        };
        self.rounds = rounds.to_vec();
        if summary.is_ok() && stuck.is_none() {
            states.push(NotifyState::Watchdog);
        }
        if status != self.status {
            self.status = status;
            states.push(NotifyState::Status(&self.status));
        }
        states
    }
}

/// What `systemctl status` shows.
fn sentence(summary: &Summary) -> String {
    if !summary.in_sync {
        return "waiting for the datastore".to_owned();
    }
    if !summary.ready {
        return "reading the kernel's routes; forwarding isn't open yet".to_owned();
    }
    let routes = summary.fib_routes.ipv4 + summary.fib_routes.ipv6;
    match summary.warnings.len() {
        0 => format!("forwarding by {routes} routes"),
        count => format!("forwarding by {routes} routes; {count} warnings in `tortie show`"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(states: &[NotifyState<'_>]) -> String {
        states.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
    }

    fn forwarding() -> Result<Summary, NoAnswer> {
        Ok(Summary { in_sync: true, ready: true, ..Summary::default() })
    }

    #[test]
    fn ready_is_said_once_and_when_forwarding_is_open() {
        let mut tale = Tale::default();
        let said = words(&tale.next(&Ok(Summary::default()), &[1], false));
        assert_eq!(said, "WATCHDOG=1 STATUS=waiting for the datastore");
        let said = words(&tale.next(&forwarding(), &[2], false));
        assert_eq!(said, "READY=1 WATCHDOG=1 STATUS=forwarding by 0 routes");
        assert_eq!(words(&tale.next(&forwarding(), &[3], false)), "WATCHDOG=1");
    }

    #[test]
    fn a_lost_datastore_delays_ready_and_does_not_prevent_it() {
        let mut tale = Tale::default();
        let said = words(&tale.next(&Ok(Summary::default()), &[1], true));
        assert_eq!(said, "READY=1 WATCHDOG=1 STATUS=waiting for the datastore");
    }

    #[test]
    fn a_worker_that_hangs_or_a_slow_path_that_is_silent_is_not_alive() {
        let mut tale = Tale::default();
        let _ = tale.next(&forwarding(), &[1, 1], false);
        assert_eq!(words(&tale.next(&forwarding(), &[2, 1], false)), "STATUS=worker 1 makes no progress");
        let late = Err(NoAnswer::Late(Duration::from_secs(10)));
        let said = words(&tale.next(&late, &[3, 2], false));
        assert!(said.starts_with("STATUS=the slow path did not answer"), "{said}");
        assert!(!said.contains("WATCHDOG"), "{said}");
        assert!(words(&tale.next(&forwarding(), &[4, 3], false)).starts_with("WATCHDOG=1"));
    }
}

//! What `show bfd` and the metrics are told.

use std::time::Instant;

use bgp::bfd::Refused;
use model::IfIndex;

use crate::event_loop::Core;
use crate::status::{BfdSessionStatus, BfdStatus};

impl Core {
    pub(super) fn bfd(&self) -> BfdStatus {
        let report = self.watch.thread.report();
        let old = report.at.map(|at| Instant::now().saturating_duration_since(at)).unwrap_or_default();
        let session = |status: &bgp::bfd::BfdStatus| BfdSessionStatus {
            address: status.path.remote,
            local: status.path.local,
            interface: status
                .path
                .link
                .map(|link| self.link_name(IfIndex(link)).unwrap_or_else(|| format!("#{link}"))),
            state: status.state.to_string(),
            since_seconds: (status.age + old).as_secs(),
            diagnostic: status.diagnostic.to_string(),
            remote: status.remote.map(|(state, diagnostic)| (state.to_string(), diagnostic.to_string())),
            local_discriminator: status.discriminators.0,
            remote_discriminator: status.discriminators.1,
            transmit_interval_us: status.transmit_interval.map(|interval| interval.as_micros() as u64),
            detection_time_us: status.detection_time.map(|time| time.as_micros() as u64),
            ups: status.ups,
            received: status.received,
            sent: status.sent,
        };
        let refused = |reason: &Refused| {
            (reason.as_str().to_owned(), report.refused.get(reason).copied().unwrap_or_default())
        };
        BfdStatus {
            bfd_sessions: report.sessions.iter().map(session).collect(),
            refused: Refused::ALL.iter().map(refused).collect(),
            problem: report.problem,
            ordinary: self.watch.thread.ordinary(),
        }
    }
}

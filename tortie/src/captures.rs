//! The router's end of `tortie capture`: copies of frames that pass, for one who asks at a time.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use model::PortId;
use serde::{Deserialize, Serialize};
use tables::{Capture, CaptureFilter, Captured, Capturing, Fate, Passage};

use crate::limits;
use crate::traces::{FilterQuestion, Traces, Untraceable};
use crate::turns::Turns;

/// Which frames are to be copied.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct CaptureQuestion {
    /// What every one of them must be; its port is the one that a frame comes in by.
    pub(crate) packet: FilterQuestion,
    /// Those that come in.
    pub(crate) incoming: bool,
    /// Those that leave.
    pub(crate) outgoing: bool,
    /// Of those that leave, only by this port.
    pub(crate) leaves_by: Option<String>,
    /// Bytes of each, at most.
    pub(crate) bytes: usize,
}

/// Copies of frames, as an answer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct CapturesStatus {
    /// By which the rest is asked for.
    pub(crate) id: u64,
    /// May there be more?
    pub(crate) running: bool,
    /// Frames that were asked for and couldn't be copied: who asks was too slow.
    pub(crate) missed: u64,
    pub(crate) frames: Vec<CapturedFrame>,
}

/// A copy of a frame.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct CapturedFrame {
    /// Nanoseconds since 1970.
    pub(crate) at_ns: u64,
    /// By which port; absent: the slow path's own.
    pub(crate) port: Option<String>,
    /// Did it leave by it? Else it came in.
    pub(crate) left: bool,
    /// `forward`, `fragment`, `punt` or `drop`, of what came in.
    pub(crate) fate: Option<String>,
    /// Why, of what is punted or dropped.
    pub(crate) reason: Option<String>,
    /// The port that it leaves by.
    pub(crate) leaves_by: Option<String>,
    /// Bytes of the frame.
    pub(crate) frame_bytes: usize,
    /// The first of them, in Base64 (RFC 4648 §4).
    pub(crate) bytes: String,
}

/// What `tortie capture` asks. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Captures(Arc<Inner>);

struct Inner {
    capturing: Capturing,
    session: Mutex<Session>,
}

#[derive(Default)]
struct Session {
    turns: Turns,
    capture: Option<Arc<Capture>>,
}

impl Captures {
    pub(crate) fn new(capturing: Capturing) -> Captures {
        Captures(Arc::new(Inner { capturing, session: Mutex::default() }))
    }

    /// Begins to copy frames that pass; the number by which they are asked for. `traces` knows the ports.
    pub(crate) fn start(
        &self,
        asked: &CaptureQuestion,
        traces: &Traces,
        frames: u32,
        seconds: u64,
    ) -> Result<u64, Untraceable> {
        let leaves_by = asked.leaves_by.as_ref().map(|name| traces.port(name)).transpose()?;
        let CaptureQuestion { incoming, outgoing, bytes, .. } = *asked;
        let filter = CaptureFilter { packet: traces.filter(&asked.packet)?, incoming, outgoing, leaves_by };
        let lasts = Duration::from_secs(seconds.clamp(1, limits::CAPTURED_SECONDS));
        let mut session = self.session();
        let id = session.turns.begin(Instant::now(), lasts).map_err(Untraceable::Busy)?;
        let bytes = bytes.clamp(1, limits::CAPTURED_BYTES);
        session.capture = Some(self.0.capturing.start(filter, frames, bytes, limits::CAPTURED_WAITING));
        Ok(id)
    }

    /// What has been copied since this was asked last.
    pub(crate) fn found(&self, id: u64, traces: &Traces) -> Result<CapturesStatus, Untraceable> {
        let (goes_on, capture) = {
            let mut session = self.session();
            let goes_on = session.turns.ask(id, Instant::now()).ok_or(Untraceable::Over)?;
            (goes_on, session.capture.clone().ok_or(Untraceable::Over)?)
        };
        // Asked before what waits is taken: what comes after that is asked for once more.
        let is_on = goes_on && !capture.is_complete();
        let names = traces.port_names();
        let mut status = CapturesStatus { id, ..CapturesStatus::default() };
        let mut bytes = 0;
        while bytes < limits::CAPTURED_BYTES_AT_ONCE
            && let Some(frame) = capture.take(|captured| frame(captured, &names))
        {
            bytes += frame.bytes.len();
            status.frames.push(frame);
        }
        status.running = is_on || bytes >= limits::CAPTURED_BYTES_AT_ONCE;
        status.missed = capture.missed();
        Ok(status)
    }

    /// Copies these no more, and forgets what waits.
    pub(crate) fn end(&self, id: u64) {
        let mut session = self.session();
        if session.turns.end(id) {
            self.0.capturing.stop();
            session.capture = None;
        }
    }

    fn session(&self) -> MutexGuard<'_, Session> {
        self.0.session.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn frame(captured: &Captured, names: &[(PortId, String)]) -> CapturedFrame {
    let name = |id: PortId| {
        let found = names.iter().find(|(port, _)| *port == id);
        found.map_or_else(|| id.to_string(), |(_, name)| name.clone())
    };
    let (left, fate, reason, leaves_by) = match captured.passage {
        Passage::Out => (true, None, None, None),
        Passage::In(Fate::Forward(port)) => (false, Some("forward"), None, Some(port)),
        Passage::In(Fate::Fragment(port)) => (false, Some("fragment"), None, Some(port)),
        Passage::In(Fate::Punt(reason)) => (false, Some("punt"), Some(reason.as_str()), None),
        Passage::In(Fate::Drop(reason)) => (false, Some("drop"), Some(reason.as_str()), None),
        Passage::In(Fate::Undecided) => (false, None, None, None),
    };
    let since = captured.at.duration_since(UNIX_EPOCH).unwrap_or_default();
    CapturedFrame {
        // Until the year 2554.
        at_ns: since.as_nanos() as u64,
        port: captured.port.map(name),
        left,
        fate: fate.map(str::to_owned),
        reason: reason.map(str::to_owned),
        leaves_by: leaves_by.map(name),
        frame_bytes: captured.frame_len,
        bytes: BASE64.encode(&captured.bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn captured(passage: Passage) -> Captured {
        Captured {
            at: UNIX_EPOCH + Duration::from_nanos(1_500_000_001),
            port: Some(PortId(1)),
            passage,
            frame_len: 1514,
            bytes: vec![0x0a, 0xff],
        }
    }

    #[test]
    fn a_copy_is_told_in_an_operators_words() {
        let names = [(PortId(1), "cali1".to_owned()), (PortId(2), "eth0".to_owned())];
        let told = frame(&captured(Passage::In(Fate::Forward(PortId(2)))), &names);
        assert_eq!((told.at_ns, &*told.bytes, told.frame_bytes), (1_500_000_001, "Cv8=", 1514));
        assert_eq!((told.port.as_deref(), told.leaves_by.as_deref()), (Some("cali1"), Some("eth0")));
        assert_eq!((told.left, told.fate.as_deref()), (false, Some("forward")));
        let told = frame(&captured(Passage::In(Fate::Drop(tables::DropReason::Blackhole))), &names);
        assert_eq!((told.fate.as_deref(), told.reason.as_deref()), (Some("drop"), Some("blackhole")));
        let told = frame(&captured(Passage::Out), &[]);
        assert!(told.left && told.fate.is_none() && told.port == Some(PortId(1).to_string()));
    }
}

//! The signals that end the router.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// SIGTERM (systemd) and SIGINT (Ctrl-C), from the moment this is made.
pub(crate) struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// Call it within a tokio runtime.
    ///
    /// # Errors
    /// The kernel refuses a handler.
    pub(crate) fn listen() -> io::Result<Signals> {
        Ok(Signals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// The next one's name.
    pub(crate) async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

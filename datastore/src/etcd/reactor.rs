//! A thread that does asynchronous work for callers that wait.

use std::future::Future;
use std::io;
use std::sync::mpsc::sync_channel;
use std::thread::JoinHandle;

use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

use crate::store::StoreError;

/// The thread; dropping this ends it.
pub(crate) struct Reactor {
    handle: Handle,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Reactor {
    /// # Errors
    /// The system has no thread or no file descriptor left.
    pub(crate) fn start(name: &str) -> io::Result<Reactor> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(move || {
            // Sent or dropped: either is the end.
            let _ = runtime.block_on(stopped);
        })?;
        Ok(Reactor { handle, stop: Some(stop), thread: Some(thread) })
    }

    /// Waits for work to be done. To be called from any thread but this one, also where another runtime is at work.
    ///
    /// # Errors
    /// The work's own, or that the thread has ended.
    pub(crate) fn run<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, StoreError>> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (done, wait) = sync_channel(1);
        self.handle.spawn(async move {
            // Nobody waits any more: nobody asks.
            let _ = done.send(work.await);
        });
        let ended = || StoreError::Unavailable("the thread that talks to etcd has ended".to_owned());
        wait.recv().unwrap_or_else(|_| Err(ended()))
    }
}

impl Drop for Reactor {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // One that panicked has said so.
            let _ = thread.join();
        }
    }
}

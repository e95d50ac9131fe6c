//! The router's end of BIRD's control sockets.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::{SOCKETS, answer, greeting};
use crate::control::{ListenError, Listener};
use crate::limits;
use crate::observer::Observer;

/// What says where they are.
const SETTING: &str = "bird_sockets";

/// The sockets of both families. Their files go when this is dropped.
pub(crate) struct Servers {
    v4: Listener,
    v6: Listener,
}

impl Servers {
    /// Opens both sockets in `directory`; those that a dead process left are replaced. Call it within a tokio runtime.
    ///
    /// # Errors
    /// A live BIRD answers there, or a file can't be made.
    pub(crate) fn listen(directory: &Path) -> Result<Servers, ListenError> {
        let [v4, v6] = SOCKETS.map(|name| PathBuf::from(directory).join(name));
        Ok(Servers { v4: Listener::open(&v4, SETTING)?, v6: Listener::open(&v6, SETTING)? })
    }

    /// Answers until the future is dropped.
    pub(crate) async fn serve(&self, observer: &Observer) {
        tokio::join!(serve(&self.v4, observer, true), serve(&self.v6, observer, false));
    }
}

async fn serve(listener: &Listener, observer: &Observer, is_v4: bool) {
    let places = Arc::new(Semaphore::new(limits::CONNECTIONS));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let stream = listener.next().await;
        let observer = observer.clone();
        tokio::spawn(async move {
            if let Err(error) = converse(stream, &observer, is_v4).await {
                tracing::debug!(%error, "a questioner on BIRD's control socket went away");
            }
            drop(place);
        });
    }
}

/// Greets and answers commands until the questioner leaves or falls silent.
async fn converse(stream: UnixStream, observer: &Observer, is_v4: bool) -> io::Result<()> {
    let (reader, mut writer) = stream.into_split();
    timeout(limits::CONNECTION_IDLE, writer.write_all(greeting().as_bytes())).await??;
    let mut bounded = BufReader::new(reader.take(limits::QUESTION_BYTES));
    loop {
        let mut line = String::new();
        if timeout(limits::CONNECTION_IDLE, bounded.read_line(&mut line)).await?? == 0 {
            return Ok(());
        }
        let text = match observer.bgp().await {
            Ok(bgp) => answer(&line, &bgp, is_v4),
            Err(error) => format!("8000 {error}\n"),
        };
        timeout(limits::CONNECTION_IDLE, writer.write_all(text.as_bytes())).await??;
    }
}

//! The router's end of the control socket.

use std::io;
use std::path::Path;
use std::sync::Arc;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::listener::{ListenError, Listener};
use super::{Line, Question, Reply};
use crate::limits;
use crate::observer::Observer;

/// An open control socket. Its file goes when this is dropped.
pub(crate) struct Server {
    listener: Listener,
}

impl Server {
    /// Opens the socket; one that a dead process left is replaced. Call it within a tokio runtime.
    ///
    /// # Errors
    /// A live router answers there, or the file can't be made.
    pub(crate) fn listen(path: &Path) -> Result<Server, ListenError> {
        Ok(Server { listener: Listener::open(path, "control_socket")? })
    }

    /// Answers until the future is dropped.
    pub(crate) async fn serve(&self, observer: &Observer) {
        let places = Arc::new(Semaphore::new(limits::CONNECTIONS));
        loop {
            // More questioners than places wait in the kernel's queue of connections.
            let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
            let stream = self.listener.next().await;
            let observer = observer.clone();
            tokio::spawn(async move {
                if let Err(error) = converse(stream, &observer).await {
                    tracing::debug!(%error, "a questioner on the control socket went away");
                }
                drop(place);
            });
        }
    }
}

/// Reads one question and writes its answer.
async fn converse(stream: UnixStream, observer: &Observer) -> io::Result<()> {
    let (reader, mut writer) = stream.into_split();
    let mut line = Vec::new();
    let mut bounded = BufReader::new(reader.take(limits::QUESTION_BYTES));
    timeout(limits::CONNECTION_IDLE, bounded.read_until(b'\n', &mut line)).await??;
    if line.is_empty() {
        return Ok(());
    }
    let mut answer = answer(&line, observer).await;
    answer.push(b'\n');
    timeout(limits::CONNECTION_IDLE, writer.write_all(&answer)).await?
}

async fn answer(line: &[u8], observer: &Observer) -> Vec<u8> {
    let reply = match question(line) {
        Ok(question) => match observer.answer(question).await {
            Ok(reply) => Line::Ok(reply),
            Err(error) => Line::Error(error.to_string()),
        },
        Err(reason) => Line::Error(reason),
    };
    encode(&reply)
}

fn question(line: &[u8]) -> Result<Question, String> {
    if line.last() != Some(&b'\n') && line.len() as u64 >= limits::QUESTION_BYTES {
        return Err(format!("a question has at most {} bytes", limits::QUESTION_BYTES));
    }
    serde_json::from_slice(line)
        .map_err(|error| format!("not a question: {error}; ask for example {{\"show\":\"bgp\"}}"))
}

fn encode(reply: &Line<Reply>) -> Vec<u8> {
    // The forms are maps with text keys and numbers: nothing in them can fail to become JSON.
    serde_json::to_vec(reply).unwrap_or_else(|error| format!("{{\"error\":\"{error}\"}}").into_bytes())
}

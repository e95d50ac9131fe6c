//! The router's end of the control socket.

use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixStream as BlockingStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::{Line, Question, Reply};
use crate::limits;
use crate::observer::Observer;

/// Owner and group may ask, nobody else.
const MODE: u32 = 0o660;

/// Why the control socket can't be opened.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "each message says what its variant means")]
pub(crate) enum ListenError {
    #[error(
        "another router answers at {path}: two can't serve one control socket; stop it, or set another control_socket"
    )]
    Alive { path: String },
    #[error("{path} is there and is no socket; remove it, or set another control_socket")]
    NotASocket { path: String },
    #[error(
        "can't open the control socket {path}: {source}; does its directory exist, and may this user write to it?"
    )]
    Io { path: String, source: io::Error },
}

/// An open control socket. Its file goes when this is dropped.
pub(crate) struct Server {
    listener: UnixListener,
    path: PathBuf,
}

impl Server {
    /// Opens the socket; one that a dead process left is replaced. Call it within a tokio runtime.
    ///
    /// # Errors
    /// A live router answers there, or the file can't be made.
    pub(crate) fn listen(path: &Path) -> Result<Server, ListenError> {
        let shown = || path.display().to_string();
        let failed = |source| ListenError::Io { path: shown(), source };
        match std::fs::symlink_metadata(path) {
            Ok(file) if !file.file_type().is_socket() => {
                return Err(ListenError::NotASocket { path: shown() });
            }
            Ok(_) if BlockingStream::connect(path).is_ok() => {
                return Err(ListenError::Alive { path: shown() });
            }
            Ok(_) => std::fs::remove_file(path).map_err(failed)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                if let Some(directory) = path.parent() {
                    std::fs::create_dir_all(directory).map_err(failed)?;
                }
            }
            Err(error) => return Err(failed(error)),
        }
        let listener = UnixListener::bind(path).map_err(failed)?;
        let server = Server { listener, path: path.to_owned() };
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(MODE)).map_err(failed)?;
        Ok(server)
    }

    /// Answers until the future is dropped.
    pub(crate) async fn serve(&self, observer: &Observer) {
        let places = Arc::new(Semaphore::new(limits::CONNECTIONS));
        loop {
            // More questioners than places wait in the kernel's queue of connections.
            let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
            match self.listener.accept().await {
                Ok((stream, _)) => {
                    let observer = observer.clone();
                    tokio::spawn(async move {
                        if let Err(error) = converse(stream, &observer).await {
                            tracing::debug!(%error, "a questioner on the control socket went away");
                        }
                        drop(place);
                    });
                }
                Err(error) => {
                    // Out of file descriptors, most likely: it passes.
                    tracing::warn!(%error, "the control socket can't take a connection; trying again in a second");
                    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
                }
            }
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Another router would replace what is left anyway.
        let _ = std::fs::remove_file(&self.path);
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

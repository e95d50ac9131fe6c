//! The operator's end of the control socket.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

use serde::de::DeserializeOwned;

use super::{Line, Question};
use crate::limits;

/// Why a question to the router got no answer.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "each message says what its variant means")]
pub(crate) enum AskError {
    #[error(
        "is tortie running? No control socket at {path}; start it with `tortie run`, or name its socket with --socket"
    )]
    NotThere { path: String },
    #[error(
        "is tortie running? Nobody answers at {path}; start it with `tortie run`, or name its socket with --socket"
    )]
    NobodyThere { path: String },
    #[error("may not ask at {path}: permission denied; ask as root or as a member of the socket's group")]
    NotAllowed { path: String },
    #[error("asking at {path} failed: {source}")]
    Io { path: String, source: io::Error },
    #[error("the router at {path} ended before it answered; its log says why")]
    Ended { path: String },
    #[error("the answer of the router at {path} can't be understood ({source}); is it of another version?")]
    Form { path: String, source: serde_json::Error },
    #[error("the router says: {0}")]
    Refused(String),
}

/// Asks the router that listens at `socket` and waits for its answer.
///
/// # Errors
/// No router, no permission, no answer in time, or the router's own words.
pub(crate) fn ask<T: DeserializeOwned>(socket: &Path, question: &Question) -> Result<T, AskError> {
    let path = || socket.display().to_string();
    let failed = |source: io::Error| AskError::Io { path: path(), source };
    let mut stream = UnixStream::connect(socket).map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => AskError::NotThere { path: path() },
        io::ErrorKind::ConnectionRefused => AskError::NobodyThere { path: path() },
        io::ErrorKind::PermissionDenied => AskError::NotAllowed { path: path() },
        _ => failed(source),
    })?;
    // The router gives up earlier, and says so.
    let patience = Some(limits::ANSWER_WITHIN + limits::CONNECTION_IDLE);
    stream.set_read_timeout(patience).map_err(failed)?;
    stream.set_write_timeout(patience).map_err(failed)?;
    let mut line = serde_json::to_vec(question).map_err(|source| AskError::Form { path: path(), source })?;
    line.push(b'\n');
    stream.write_all(&line).map_err(failed)?;
    let mut answer = Vec::new();
    BufReader::new(stream.take(limits::ANSWER_BYTES)).read_until(b'\n', &mut answer).map_err(failed)?;
    if answer.is_empty() {
        return Err(AskError::Ended { path: path() });
    }
    match serde_json::from_slice(&answer).map_err(|source| AskError::Form { path: path(), source })? {
        Line::Ok(value) => Ok(value),
        Line::Error(reason) => Err(AskError::Refused(reason)),
    }
}

//! A Unix socket that a router answers at.

use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixStream as BlockingStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::net::{UnixListener, UnixStream};

/// Owner and group may ask, nobody else.
const MODE: u32 = 0o660;

/// Why a socket can't be opened. Each names the setting that says where it is.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "each message says what its variant means")]
pub(crate) enum ListenError {
    #[error(
        "another router answers at {path}: two can't serve one control socket; stop it, or set another {setting}"
    )]
    Alive { path: String, setting: &'static str },
    #[error("{path} is there and is no socket; remove it, or set another {setting}")]
    NotASocket { path: String, setting: &'static str },
    #[error(
        "can't open the control socket {path}: {source}; does its directory exist, and may this user write to it?"
    )]
    Io { path: String, source: io::Error },
}

/// An open socket. Its file goes when this is dropped.
pub(crate) struct Listener {
    listener: UnixListener,
    path: PathBuf,
}

impl Listener {
    /// Opens the socket; one that a dead process left is replaced. Call it within a tokio runtime.
    ///
    /// # Errors
    /// Somebody answers there, or the file can't be made.
    pub(crate) fn open(path: &Path, setting: &'static str) -> Result<Listener, ListenError> {
        let shown = || path.display().to_string();
        let failed = |source| ListenError::Io { path: shown(), source };
        match std::fs::symlink_metadata(path) {
            Ok(file) if !file.file_type().is_socket() => {
                return Err(ListenError::NotASocket { path: shown(), setting });
            }
            Ok(_) if BlockingStream::connect(path).is_ok() => {
                return Err(ListenError::Alive { path: shown(), setting });
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
        let listener = Listener { listener, path: path.to_owned() };
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(MODE)).map_err(failed)?;
        Ok(listener)
    }

    /// The next questioner.
    pub(crate) async fn next(&self) -> UnixStream {
        loop {
            match self.listener.accept().await {
                Ok((stream, _)) => return stream,
                Err(error) => {
                    // Out of file descriptors, most likely: it passes.
                    tracing::warn!(%error, "a control socket can't take a connection; trying again in a second");
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            }
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        // Another router would replace what is left anyway.
        let _ = std::fs::remove_file(&self.path);
    }
}

//! Certificates of the HTTP endpoints. Files that change are read again with the next connection; files that can't be used
//! leave those in force that could, and the log says why.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{NoServerSessionStorage, VerifierBuilderError, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConfig};
use tokio_rustls::TlsAcceptor;

use crate::config::TlsFiles;

/// Bytes of one file, at most: a hundred times what a chain of certificates has.
const FILE_BYTES: u64 = 1024 * 1024;

/// Why certificates can't be used.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "each message says what its variant means")]
pub(crate) enum TlsError {
    #[error("{path} can't be read: {source}")]
    Read { path: PathBuf, source: io::Error },
    #[error("{path} has no certificate in PEM form ({source})")]
    NoCertificate { path: PathBuf, source: pem::Error },
    #[error("{path} has no private key in PEM form ({source}); PKCS#8, PKCS#1 and SEC1 are understood")]
    NoKey { path: PathBuf, source: pem::Error },
    #[error("{path} has a certificate that isn't one: {source}")]
    Authority { path: PathBuf, source: rustls::Error },
    #[error("no authority for clients' certificates can be made of {path}: {source}")]
    Verifier { path: PathBuf, source: VerifierBuilderError },
    #[error("{cert} and {key} don't go together: {source}")]
    Identity { cert: PathBuf, key: PathBuf, source: rustls::Error },
}

/// What shows that a file has changed: time, size, and the file's number, which a rename or another link gives.
type Stamp = [Option<(i64, i64, u64, u64)>; 3];

/// The certificates in force.
pub(super) struct Tls {
    files: TlsFiles,
    current: Mutex<Current>,
}

struct Current {
    /// Of the files that were looked at last, whether or not they could be used.
    stamp: Stamp,
    config: Arc<ServerConfig>,
}

impl Tls {
    /// Reads the files for the first time.
    pub(super) fn read(files: TlsFiles) -> Result<Tls, TlsError> {
        let current = Current { stamp: stamp(&files), config: config(&files)? };
        Ok(Tls { current: Mutex::new(current), files })
    }

    /// What the next connection is to be met with.
    pub(super) fn acceptor(&self) -> TlsAcceptor {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        let stamp = stamp(&self.files);
        if stamp != current.stamp {
            current.stamp = stamp;
            let cert = self.files.cert.display();
            match config(&self.files) {
                Ok(config) => {
                    current.config = config;
                    tracing::info!(%cert, "certificates have changed and are in force");
                }
                Err(error) => {
                    tracing::warn!(%error, "certificates have changed and can't be used: those before stay in force");
                }
            }
        }
        TlsAcceptor::from(Arc::clone(&current.config))
    }
}

fn stamp(files: &TlsFiles) -> Stamp {
    let of = |path: &Path| {
        let metadata = fs::metadata(path).ok()?;
        Some((metadata.mtime(), metadata.mtime_nsec(), metadata.size(), metadata.ino()))
    };
    [of(&files.cert), of(&files.key), files.client_ca.as_deref().and_then(of)]
}

fn config(files: &TlsFiles) -> Result<Arc<ServerConfig>, TlsError> {
    let chain = certificates(&files.cert)?;
    let key = PrivateKeyDer::from_pem_slice(&bytes(&files.key)?)
        .map_err(|source| TlsError::NoKey { path: files.key.clone(), source })?;
    // Named, so that it doesn't depend on which others are compiled in.
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let identity = |source| TlsError::Identity { cert: files.cert.clone(), key: files.key.clone(), source };
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(identity)?;
    let builder = match &files.client_ca {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let verifier =
                WebPkiClientVerifier::builder_with_provider(Arc::new(authorities(path)?), provider)
                    .build()
                    .map_err(|source| TlsError::Verifier { path: path.clone(), source })?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let mut config = builder.with_single_cert(chain, key).map_err(identity)?;
    // Whoever resumes a session isn't asked for a certificate again: an authority that is taken away must hold at once.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

fn authorities(path: &Path) -> Result<RootCertStore, TlsError> {
    let mut authorities = RootCertStore::empty();
    for certificate in certificates(path)? {
        let wrong = |source| TlsError::Authority { path: path.to_owned(), source };
        authorities.add(certificate).map_err(wrong)?;
    }
    Ok(authorities)
}

/// At least one.
fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let bytes = bytes(path)?;
    let wrong = |source| TlsError::NoCertificate { path: path.to_owned(), source };
    let found = CertificateDer::pem_slice_iter(&bytes).collect::<Result<Vec<_>, _>>().map_err(wrong)?;
    if found.is_empty() { Err(wrong(pem::Error::NoItemsFound)) } else { Ok(found) }
}

fn bytes(path: &Path) -> Result<Vec<u8>, TlsError> {
    let wrong = |source| TlsError::Read { path: path.to_owned(), source };
    let mut bytes = Vec::new();
    File::open(path).and_then(|file| file.take(FILE_BYTES).read_to_end(&mut bytes)).map_err(wrong)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests;

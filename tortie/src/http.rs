//! The HTTP endpoints: `/metrics` for Prometheus, the looking glass for people, and on both `/healthz` and `/readyz` for
//! whoever supervises the router.
//!
//! All of them read and none changes anything. What one request may cost is bounded: one request a connection, so many
//! connections at a time, a head of so many bytes, and an end to waiting.

mod health;
pub(crate) mod reply;
mod tls;

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use hyper::body::Incoming;
use hyper::header::{ALLOW, HeaderValue, RETRY_AFTER};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::config::Endpoint;
use crate::limits;
use crate::looking_glass::LookingGlass;
use crate::metrics::{self, Sample, Sheet};
use crate::observer::Observer;
use reply::{Reply, text};
use tls::Tls;
pub(crate) use tls::TlsError;

/// Bytes that a request's head is read into, at most.
const HEAD_BYTES: usize = 16 * 1024;
/// Connections that wait in the kernel for a place.
const BACKLOG: u32 = 128;

/// The endpoint can't be opened.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "each message says what its variant means")]
pub(crate) enum ListenError {
    #[error(
        "can't serve {section} at {address}: {source}; set another {section}.listen, or stop what listens there"
    )]
    Address { section: &'static str, address: SocketAddr, source: io::Error },
    #[error(
        "can't serve {section} at the interface {interface} alone: {source}; is {section}.interface right?"
    )]
    Interface { section: &'static str, interface: String, source: io::Error },
    #[error("can't serve {section}: {source}")]
    Tls { section: &'static str, source: TlsError },
}

/// What an endpoint serves.
#[derive(Clone)]
pub(crate) enum Site {
    /// Numbers for Prometheus.
    Metrics(Sheet),
    /// The page for people.
    LookingGlass(Arc<LookingGlass>),
}

/// An open endpoint.
pub(crate) struct Server {
    section: &'static str,
    listener: TcpListener,
    tls: Option<Tls>,
    site: Site,
}

impl Server {
    /// Opens the endpoint.
    ///
    /// # Errors
    /// The address is taken, or isn't this host's; there is no such interface; a certificate can't be used.
    pub(crate) async fn listen(endpoint: &Endpoint, site: Site) -> Result<Server, ListenError> {
        let section = endpoint.section;
        let tls = endpoint.tls.clone().map(Tls::read).transpose();
        let tls = tls.map_err(|source| ListenError::Tls { section, source })?;
        let address = endpoint.listen;
        let failed = |source| ListenError::Address { section, address, source };
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() };
        let socket = socket.map_err(failed)?;
        if let Some(interface) = &endpoint.interface {
            let nowhere = |source| ListenError::Interface { section, interface: interface.clone(), source };
            socket.bind_device(Some(interface.as_bytes())).map_err(nowhere)?;
        }
        // What a process before this one has left half-closed doesn't hold the address.
        socket.set_reuseaddr(true).map_err(failed)?;
        socket.bind(address).map_err(failed)?;
        let listener = socket.listen(BACKLOG).map_err(failed)?;
        if let Some(warning) = endpoint.warning() {
            tracing::warn!("{warning}");
        }
        Ok(Server { section, listener, tls, site })
    }

    /// Where it listens.
    #[cfg(test)]
    pub(crate) fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Answers until the future is dropped.
    pub(crate) async fn serve(&self, observer: &Observer) {
        let places = Arc::new(Semaphore::new(limits::CONNECTIONS));
        loop {
            // More clients than places wait in the kernel's queue of connections.
            let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
            match self.listener.accept().await {
                Ok((stream, _)) => {
                    let (observer, site) = (observer.clone(), self.site.clone());
                    let tls = self.tls.as_ref().map(Tls::acceptor);
                    tokio::spawn(async move {
                        match tls {
                            None => connection(stream, observer, site, false).await,
                            Some(tls) => match timeout(limits::CONNECTION_IDLE, tls.accept(stream)).await {
                                Ok(Ok(stream)) => connection(stream, observer, site, true).await,
                                Ok(Err(error)) => tracing::debug!(%error, "an HTTPS client was refused"),
                                Err(_) => tracing::debug!("an HTTPS client was too slow"),
                            },
                        }
                        drop(place);
                    });
                }
                Err(error) => {
                    // Out of file descriptors, most likely: it passes.
                    let section = self.section;
                    tracing::warn!(%error, "{section} can't take a connection; trying again in a second");
                    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
                }
            }
        }
    }
}

/// One request a connection, and not for ever.
async fn connection<S>(stream: S, observer: Observer, site: Site, is_private: bool)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(move |request: Request<Incoming>| {
        let (observer, site) = (observer.clone(), site.clone());
        async move { Ok::<_, Infallible>(respond(&request, is_private, &site, &observer).await) }
    });
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits::CONNECTION_IDLE)
        .keep_alive(false)
        .max_buf_size(HEAD_BYTES)
        .serve_connection(TokioIo::new(stream), service);
    let patience = limits::CONNECTION_IDLE + limits::ANSWER_WITHIN;
    match timeout(patience, serving).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "an HTTP client went away"),
        Err(_) => tracing::debug!("an HTTP client was too slow"),
    }
}

/// Answers one request. `is_private`: it came by TLS.
async fn respond<B>(request: &Request<B>, is_private: bool, site: &Site, observer: &Observer) -> Reply {
    let path = request.uri().path();
    let is_there = match site {
        _ if ["/healthz", "/readyz"].contains(&path) => true,
        Site::Metrics(_) => path == "/metrics",
        Site::LookingGlass(_) => LookingGlass::has(path),
    };
    if !is_there {
        let there = match site {
            Site::Metrics(_) => "not found: there are /metrics, /healthz and /readyz\n",
            Site::LookingGlass(_) => {
                "not found: there are /, /api/show/…, /api/trace, /healthz and /readyz\n"
            }
        };
        return text(StatusCode::NOT_FOUND, there);
    }
    if request.method() != Method::GET && request.method() != Method::HEAD {
        let mut reply = text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n");
        reply.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return reply;
    }
    match (path, site) {
        ("/healthz", _) => health::live(observer),
        ("/readyz", _) => health::ready(request.headers(), observer).await,
        (_, Site::Metrics(sheet)) => page(observer, sheet).await,
        (_, Site::LookingGlass(glass)) => match glass.admits(request, is_private) {
            Ok(()) => glass.respond(request.uri(), observer).await,
            Err(refused) => {
                let status = refused.status();
                let mut reply = text(status, format!("{refused}\n"));
                if status == StatusCode::TOO_MANY_REQUESTS {
                    reply.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
                }
                reply
            }
        },
    }
}

async fn page(observer: &Observer, sheet: &Sheet) -> Reply {
    let drops = observer.drops().await;
    let (ports, stages) = (observer.counted_ports(), observer.stages());
    let flows = observer.flow_counts();
    let summary = observer.summary().await.ok();
    let tables = summary.as_ref().map(|summary| observer.tables(summary)).unwrap_or_default();
    let sample = Sample { ports, drops, stages, flows, tables, summary };
    reply::of(StatusCode::OK, metrics::CONTENT_TYPE, sheet.write(|empty| metrics::render(&sample, empty)))
}

#[cfg(test)]
pub(crate) mod tests;

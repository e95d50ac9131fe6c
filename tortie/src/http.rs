//! The HTTP endpoint: `/metrics` for Prometheus, `/healthz` and `/readyz` for whoever supervises the router.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CONTENT_TYPE};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use crate::limits;
use crate::metrics::{self, Sample};
use crate::observer::Observer;

/// Bytes that a request's head is read into, at most.
const HEAD_BYTES: usize = 16 * 1024;
const TEXT: &str = "text/plain; charset=utf-8";

/// The endpoint can't be opened.
#[derive(Debug, thiserror::Error)]
#[error("can't serve metrics at {address}: {source}; set another metrics.listen, or stop what listens there")]
pub(crate) struct ListenError {
    address: SocketAddr,
    source: io::Error,
}

/// An open endpoint.
pub(crate) struct Server {
    listener: TcpListener,
}

impl Server {
    /// Opens the endpoint.
    ///
    /// # Errors
    /// The address is taken, or isn't this host's.
    pub(crate) async fn listen(address: SocketAddr) -> Result<Server, ListenError> {
        let listener = TcpListener::bind(address).await.map_err(|source| ListenError { address, source })?;
        Ok(Server { listener })
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
                    let observer = observer.clone();
                    tokio::spawn(async move {
                        connection(stream, observer).await;
                        drop(place);
                    });
                }
                Err(error) => {
                    // Out of file descriptors, most likely: it passes.
                    tracing::warn!(%error, "the metrics endpoint can't take a connection; trying again in a second");
                    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
                }
            }
        }
    }
}

/// One request a connection, and not for ever.
async fn connection(stream: TcpStream, observer: Observer) {
    let service = service_fn(move |request: Request<Incoming>| {
        let observer = observer.clone();
        async move { Ok::<_, Infallible>(respond(request.method(), request.uri().path(), &observer).await) }
    });
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits::CONNECTION_IDLE)
        .keep_alive(false)
        .max_buf_size(HEAD_BYTES)
        .serve_connection(TokioIo::new(stream), service);
    let patience = limits::CONNECTION_IDLE + limits::ANSWER_WITHIN;
    match tokio::time::timeout(patience, serving).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "an HTTP client went away"),
        Err(_) => tracing::debug!("an HTTP client was too slow"),
    }
}

async fn respond(method: &Method, path: &str, observer: &Observer) -> Response<Full<Bytes>> {
    if !["/metrics", "/healthz", "/readyz"].contains(&path) {
        return text(StatusCode::NOT_FOUND, "not found: there are /metrics, /healthz and /readyz\n");
    }
    if method != Method::GET && method != Method::HEAD {
        let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n");
        response.headers_mut().insert(ALLOW, hyper::header::HeaderValue::from_static("GET, HEAD"));
        return response;
    }
    match path {
        "/metrics" => page(observer).await,
        "/healthz" if observer.slow_path_ended() => {
            text(StatusCode::SERVICE_UNAVAILABLE, "the slow path has ended\n")
        }
        "/healthz" => text(StatusCode::OK, "ok\n"),
        _ => readiness(observer).await,
    }
}

async fn page(observer: &Observer) -> Response<Full<Bytes>> {
    let drops = observer.drops().await;
    let (ports, stages) = (observer.counted_ports(), observer.stages());
    let flows = observer.flow_counts();
    let summary = observer.summary().await.ok();
    let tables = summary.as_ref().map(|summary| observer.tables(summary)).unwrap_or_default();
    let sample = Sample { ports, drops, stages, flows, tables, summary };
    match metrics::render(&sample) {
        Ok(page) => response(StatusCode::OK, metrics::CONTENT_TYPE, page),
        Err(error) => {
            tracing::error!(%error, "the metrics can't be written; this is a bug, please report it");
            text(StatusCode::INTERNAL_SERVER_ERROR, "the metrics can't be written; see the log\n")
        }
    }
}

async fn readiness(observer: &Observer) -> Response<Full<Bytes>> {
    let unready = |why: String| text(StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {why}\n"));
    match observer.summary().await {
        Ok(summary) if summary.ready => text(StatusCode::OK, "ready\n"),
        Ok(summary) if !summary.in_sync => unready("the datastore isn't in sync yet".to_owned()),
        Ok(_) => unready("forwarding isn't open yet".to_owned()),
        Err(error) => unready(error.to_string()),
    }
}

fn text(status: StatusCode, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    response(status, TEXT, body)
}

fn response(status: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static(kind));
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::exposition;
    use crate::open_ports::OpenPorts;
    use slowpath::status::{Answer, Summary};
    use tables::Counters;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::sync::mpsc;

    /// Serves on a free port of loopback, with a slow path in this state, and says what a client got.
    async fn exchange(request: &str, summary: Option<Summary>) -> String {
        let (questions, mut requests) = mpsc::channel::<slowpath::Request>(4);
        if let Some(summary) = summary {
            tokio::spawn(async move {
                while let Some(request) = requests.recv().await {
                    let _ = request.reply.send(Answer::Summary(Box::new(summary.clone())));
                }
            });
        }
        let observer = Observer::new(
            questions,
            Counters::new(1, 1),
            OpenPorts::default(),
            tables::Flows::new(16),
            tables::Capturing::new(),
        );
        let server = Server::listen("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let address = server.address().unwrap();
        let client = async {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(request.as_bytes()).await.unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.unwrap();
            answer
        };
        tokio::select! {
            () = server.serve(&observer) => unreachable!("it serves until dropped"),
            answer = client => answer,
        }
    }

    fn get(path: &str) -> String {
        format!("GET {path} HTTP/1.1\r\nHost: t\r\n\r\n")
    }

    fn ready() -> Option<Summary> {
        Some(Summary { in_sync: true, ready: true, ..Summary::default() })
    }

    #[tokio::test]
    async fn metrics_are_a_page_that_prometheus_reads() {
        let answer = exchange(&get("/metrics"), ready()).await;
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
        assert!(head.contains("content-type: text/plain; version=0.0.4"), "{head}");
        assert!(exposition::read(body).unwrap().contains_key("tortie_ready"));
    }

    #[tokio::test]
    async fn readiness_waits_for_the_datastore() {
        let answer = exchange(&get("/readyz"), Some(Summary::default())).await;
        assert!(
            answer.starts_with("HTTP/1.1 503 ") && answer.contains("datastore isn't in sync"),
            "{answer}"
        );
        assert!(exchange(&get("/readyz"), ready()).await.starts_with("HTTP/1.1 200 "));
    }

    #[tokio::test]
    async fn health_is_that_the_slow_path_has_not_ended() {
        assert!(exchange(&get("/healthz"), ready()).await.starts_with("HTTP/1.1 200 "));
        let (questions, requests) = mpsc::channel(1);
        drop(requests);
        let observer = Observer::new(
            questions,
            Counters::new(1, 1),
            OpenPorts::default(),
            tables::Flows::new(16),
            tables::Capturing::new(),
        );
        let response = respond(&Method::GET, "/healthz", &observer).await;
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    }

    #[tokio::test]
    async fn other_paths_and_methods_are_refused() {
        let answer = exchange(&get("/etc/passwd"), ready()).await;
        assert!(answer.starts_with("HTTP/1.1 404 "), "{answer}");
        let answer =
            exchange("POST /metrics HTTP/1.1\r\nHost: t\r\nContent-Length: 0\r\n\r\n", ready()).await;
        assert!(answer.starts_with("HTTP/1.1 405 ") && answer.contains("allow: GET, HEAD"), "{answer}");
    }

    #[tokio::test]
    async fn an_endless_head_is_cut_off() {
        let endless = format!("GET / HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(64 * 1024));
        let answer = exchange(&endless, ready()).await;
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 431 "), "{answer}");
    }

    #[tokio::test]
    async fn an_address_that_is_taken_is_named() {
        let first = Server::listen("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let address = first.address().unwrap();
        let message = Server::listen(address).await.map(drop).unwrap_err().to_string();
        assert!(message.contains(&address.to_string()) && message.contains("metrics.listen"), "{message}");
    }
}

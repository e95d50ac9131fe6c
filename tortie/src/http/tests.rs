//! The endpoints as a client sees them.

use super::*;
use crate::metrics::exposition;
use crate::open_ports::OpenPorts;
use slowpath::status::{Answer, Summary};
use tables::Counters;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

/// An endpoint on a free port of loopback.
pub(crate) fn endpoint() -> Endpoint {
    Endpoint { section: "metrics", listen: "127.0.0.1:0".parse().unwrap(), interface: None, tls: None }
}

/// Serves metrics, with a slow path in this state, and says what a client got.
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
    let server = Server::listen(&endpoint(), Site::Metrics(Sheet::default())).await.unwrap();
    said_by(&server, &observer, request).await
}

/// What a client of this server got.
pub(crate) async fn said_by(server: &Server, observer: &Observer, request: &str) -> String {
    let address = server.address().unwrap();
    let client = async {
        let mut stream = TcpStream::connect(address).await.unwrap();
        // The server may answer and close before all is written; then the answer is what matters.
        let _ = stream.write_all(request.as_bytes()).await;
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        String::from_utf8(answer).unwrap()
    };
    tokio::select! {
        () = server.serve(observer) => unreachable!("it serves until dropped"),
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
    assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("datastore isn't in sync"), "{answer}");
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
    let request = Request::get("/healthz").body(()).unwrap();
    let response = respond(&request, false, &Site::Metrics(Sheet::default()), &observer).await;
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
}

#[tokio::test]
async fn other_paths_and_methods_are_refused() {
    let answer = exchange(&get("/etc/passwd"), ready()).await;
    assert!(answer.starts_with("HTTP/1.1 404 "), "{answer}");
    let answer = exchange("POST /metrics HTTP/1.1\r\nHost: t\r\nContent-Length: 0\r\n\r\n", ready()).await;
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
    let first = Server::listen(&endpoint(), Site::Metrics(Sheet::default())).await.unwrap();
    let address = first.address().unwrap();
    let again = Endpoint { listen: address, ..endpoint() };
    let message =
        Server::listen(&again, Site::Metrics(Sheet::default())).await.map(drop).unwrap_err().to_string();
    assert!(message.contains(&address.to_string()) && message.contains("metrics.listen"), "{message}");
}

#[tokio::test]
async fn an_interface_that_is_not_there_is_named() {
    let endpoint = Endpoint { interface: Some("nowhere0".to_owned()), ..endpoint() };
    let message =
        Server::listen(&endpoint, Site::Metrics(Sheet::default())).await.map(drop).unwrap_err().to_string();
    assert!(message.contains("nowhere0") && message.contains("metrics.interface"), "{message}");
}

#[tokio::test]
async fn readiness_is_told_to_programs_as_json() {
    let request = "GET /readyz HTTP/1.1\r\nHost: t\r\nAccept: application/json\r\n\r\n";
    let answer = exchange(request, Some(Summary { in_sync: true, ..Summary::default() })).await;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 503 ") && head.contains("application/json"), "{head}");
    assert_eq!(
        body,
        r#"{"ready":false,"waits_for":[{"what":"forwarding","why":"forwarding isn't open yet"}],"warnings":[]}"#
    );
}

//! What a browser gets, and what it is kept from.

use std::sync::Arc;

use afxdp::{Region, RegionConfig};
use fastpath::Rehearsal;
use slowpath::status::{Answer, BgpStatus, Query, Summary, TracedPacket, TracesStatus};
use tables::{Counters, Flows, Tracing, Writer};
use tokio::sync::mpsc;

use super::*;
use crate::http::tests::{endpoint, said_by};
use crate::http::{Server, Site};
use crate::open_ports::OpenPorts;
use crate::traces::Traces;

/// Names from outside, as bad as they come.
const HOSTILE: &str = "</script><img src=x onerror=alert(1)>";

/// A router with one port, and a slow path that answers as a real one would.
fn observer() -> (Observer, Writer) {
    let (questions, mut requests) = mpsc::channel::<slowpath::Request>(4);
    tokio::spawn(async move {
        while let Some(request) = requests.recv().await {
            let answer = match request.query {
                Query::Traces { traces } => {
                    let packet = TracedPacket { fate: "drop".to_owned(), ..TracedPacket::default() };
                    Answer::Traces(TracesStatus {
                        packets: vec![packet; traces.len()],
                        ..TracesStatus::default()
                    })
                }
                Query::Summary => Answer::Summary(Box::new(Summary {
                    in_sync: true,
                    ready: true,
                    warnings: vec![HOSTILE.to_owned()],
                    ..Summary::default()
                })),
                _ => Answer::Bgp(BgpStatus { router_id: Some(HOSTILE.to_owned()), ..BgpStatus::default() }),
            };
            let _ = request.reply.send(answer);
        }
    });
    let limits = tables::Limits {
        ports: 4,
        adjacencies: 4,
        groups: 4,
        routes_v4: 16,
        routes_v6: 16,
        policy: tables::PolicyLimits::NONE,
        readers: 1,
    };
    let mut writer = Writer::new(limits);
    let config = RegionConfig { frames: 16, chunk_size: 2048, large: None, hugepages: false };
    let pool = Region::new(config).unwrap().1;
    let rehearsal = Rehearsal::new(writer.reader().unwrap(), pool, Flows::new(16), 4);
    let observer = Observer::new(
        questions,
        Counters::new(1, 4),
        OpenPorts::default(),
        Flows::new(16),
        tables::Capturing::new(),
    );
    (observer.with_traces(Traces::new(rehearsal, Tracing::new(4))), writer)
}

async fn exchange(requests: &[&str]) -> Vec<String> {
    let (observer, _writer) = observer();
    let glass = Arc::new(LookingGlass::new("node1".to_owned()));
    let server = Server::listen(&endpoint(), Site::LookingGlass(glass)).await.unwrap();
    let mut answers = Vec::new();
    for request in requests {
        answers.push(said_by(&server, &observer, request).await);
    }
    answers
}

async fn get(path: &str) -> (String, String) {
    let request = format!("GET {path} HTTP/1.1\r\nHost: 127.0.0.1:9192\r\n\r\n");
    let answer = exchange(&[&request]).await.remove(0);
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.to_owned(), body.to_owned())
}

#[tokio::test]
async fn the_page_is_one_answer_and_runs_nothing_but_its_own_script() {
    let (head, body) = get("/").await;
    assert!(head.starts_with("HTTP/1.1 200 ") && head.contains("content-type: text/html"), "{head}");
    let policy = head.lines().find_map(|line| line.strip_prefix("content-security-policy: ")).unwrap();
    for part in ["default-src 'none'", "script-src 'sha256-", "frame-ancestors 'none'", "base-uri 'none'"] {
        assert!(policy.contains(part), "{policy}");
    }
    assert!(!policy.contains("unsafe"), "{policy}");
    for header in
        ["x-content-type-options: nosniff", "cache-control: no-store", "referrer-policy: no-referrer"]
    {
        assert!(head.contains(header), "{head}");
    }
    assert_eq!(body.matches("<script").count(), 1);
    for outside in ["src=", "<link rel=\"stylesheet", "@import", "url("] {
        assert!(!body.contains(outside), "the page needs {outside} from elsewhere");
    }
    // An address of an XML namespace isn't asked for anything.
    for address in body.match_indices("http").map(|(at, _)| &body[at..]) {
        assert!(address.starts_with("http://www.w3.org/2000/svg"), "{address:.60}");
    }
}

/// Whatever stands in an answer is written as text.
#[test]
fn the_script_makes_no_markup_of_text() {
    for word in [
        "innerHTML",
        "outerHTML",
        "insertAdjacentHTML",
        "document.write",
        "eval(",
        "Function(",
        "DOMParser",
        "srcdoc",
        "javascript:",
    ] {
        assert!(!page::SCRIPT.contains(word), "{word}");
    }
    for word in ["method:", "localStorage", "cookie"] {
        assert!(!page::SCRIPT.contains(word), "{word}");
    }
    assert!(!page::SCRIPT.contains("</script"), "it would end the script");
    assert!(!page::STYLE.contains("</style"));
}

#[tokio::test]
async fn answers_are_those_of_tortie_show_and_are_no_markup() {
    let (head, body) = get("/api/show/bgp").await;
    assert!(head.starts_with("HTTP/1.1 200 ") && head.contains("content-type: application/json"), "{head}");
    let bgp: BgpStatus = serde_json::from_str(&body).unwrap();
    assert_eq!(bgp.router_id.as_deref(), Some(HOSTILE));
    assert!(
        head.contains("default-src 'none'"),
        "and even if a browser took it for a page, nothing would run"
    );
    let (_, about) = get("/api/about").await;
    let about: serde_json::Value = serde_json::from_str(&about).unwrap();
    assert_eq!(about["node"], "node1");
    assert_eq!(about["drops"].as_object().unwrap().len(), DropReason::ALL.len());
}

#[tokio::test]
async fn a_packet_that_cannot_be_made_up_is_answered_in_words() {
    let (head, body) = get("/api/trace?src=10.0.0.1&dst=10.0.0.2&proto=udp&dport=53").await;
    assert!(
        head.starts_with("HTTP/1.1 400 ") && body.contains("no workload here has the address"),
        "{head} {body}"
    );
    let (head, body) = get("/api/trace?src=10.0.0.1&dst=10.0.0.2&proto=udp").await;
    assert!(head.starts_with("HTTP/1.1 400 ") && body.contains("--dport"), "{head} {body}");
}

#[tokio::test]
async fn nothing_can_be_changed() {
    let answers = exchange(&[
        "POST /api/show/ports HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n",
        "DELETE / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "GET /api/show/follow?count=1 HTTP/1.1\r\nHost: localhost\r\n\r\n",
    ])
    .await;
    let statuses: Vec<&str> = answers.iter().map(|answer| &answer[9..12]).collect();
    assert_eq!(statuses, ["405", "405", "404", "404"]);
}

/// DNS rebinding: a name of a stranger's that leads to our address.
#[test]
fn only_names_that_no_stranger_has_are_answered_to() {
    let glass = LookingGlass::new("node1".to_owned());
    for ours in
        ["127.0.0.1:9192", "[::1]:9192", "192.0.2.1", "localhost:8080", "LOCALHOST", "node1", "Node1:9192"]
    {
        assert_eq!(glass.is_called(ours), Ok(()), "{ours}");
    }
    for others in
        ["", "evil.example", "evil.example:9192", "127.0.0.1.evil.example", "[evil]", "localhost.evil:1"]
    {
        assert!(glass.is_called(others).is_err(), "{others}");
    }
    let request = Request::get("/").header(HOST, "evil.example").body(()).unwrap();
    assert!(glass.admits(&request, false).is_err());
    assert_eq!(glass.admits(&request, true), Ok(()), "by TLS the certificate decides");
}

#[test]
fn whoever_asks_too_fast_is_told_to_wait() {
    let glass = LookingGlass::new("node1".to_owned());
    let request = Request::get("/").header(HOST, "localhost").body(()).unwrap();
    let refused = (0..1000).find_map(|_| glass.admits(&request, false).err());
    assert_eq!(refused, Some(Refused::TooMany));
    assert_eq!(Refused::TooMany.status(), StatusCode::TOO_MANY_REQUESTS);
}

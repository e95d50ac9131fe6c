//! Both ends over a socket in a directory of the test's own.

use super::*;
use crate::observer::Observer;
use crate::open_ports::OpenPorts;
use slowpath::status::{Answer, PeerStatus, PerFamily, PrefixLimitStatus, Query};
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use tables::Counters;
use tokio::sync::mpsc;

/// A slow path that knows one peer and one route.
async fn slow_path(mut requests: mpsc::Receiver<slowpath::Request>) {
    while let Some(request) = requests.recv().await {
        let answer = match request.query {
            Query::Bgp => {
                Answer::Bgp(BgpStatus { local_as: 64512, peers: vec![peer()], ..BgpStatus::default() })
            }
            Query::Routes { limit, source } => Answer::Routes(RoutesStatus {
                routes: Vec::new(),
                total: limit,
                counts: source.into_iter().map(|source| (source, 1)).collect(),
            }),
            Query::Route { address } => Answer::Route(RouteStatus {
                address: Some(address),
                fate: "no_route".to_owned(),
                ..RouteStatus::default()
            }),
            _ => Answer::Neighbors(NeighborsStatus::default()),
        };
        let _ = request.reply.send(answer);
    }
}

fn peer() -> PeerStatus {
    PeerStatus {
        name: "Mesh_10_0_0_2".to_owned(),
        address: "10.0.0.2".parse().unwrap(),
        asn: 64512,
        kind: "node-to-node mesh".to_owned(),
        state: "Established".to_owned(),
        up: true,
        since: "2026-11-21T01:02:03Z".to_owned(),
        since_seconds: 1,
        info: String::new(),
        received: PerFamily { ipv4: 1, ipv6: 0 },
        announced: PerFamily::default(),
        hold_time_seconds: Some(90),
        messages_received: 3,
        messages_sent: 4,
        established_count: 1,
        last_error: None,
        prefix_limit: PrefixLimitStatus::default(),
    }
}

/// Runs `asking` on a thread of its own beside a served socket.
fn with_server<T: Send + 'static>(asking: impl FnOnce(PathBuf) -> T + Send + 'static) -> T {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("run/tortie.sock");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (questions, requests) = mpsc::channel(4);
        tokio::spawn(slow_path(requests));
        let observer = Observer::new(
            questions,
            Counters::new(1, 4),
            OpenPorts::default(),
            tables::Flows::new(16),
            tables::Capturing::new(),
        );
        let server = Server::listen(&path).unwrap();
        let asked = tokio::task::spawn_blocking({
            let path = path.clone();
            move || asking(path)
        });
        tokio::select! {
            () = server.serve(&observer) => unreachable!("it serves until dropped"),
            answer = asked => answer.unwrap(),
        }
    })
}

#[test]
fn a_question_is_answered_in_its_own_form() {
    let bgp: BgpStatus = with_server(|path| ask(&path, &Question::Bgp).unwrap());
    assert_eq!((bgp.local_as, bgp.peers[0].name.as_str()), (64512, "Mesh_10_0_0_2"));
    let question = Question::Routes { limit: 7, source: Some("bgp".to_owned()) };
    let routes: RoutesStatus = with_server(move |path| ask(&path, &question).unwrap());
    assert_eq!((routes.total, routes.counts["bgp"]), (7, 1));
    let address = "192.0.2.1".parse().unwrap();
    let route: RouteStatus = with_server(move |path| ask(&path, &Question::Route { address }).unwrap());
    assert_eq!((route.address, route.fate.as_str()), (Some(address), "no_route"));
    let drops: DropsStatus = with_server(|path| ask(&path, &Question::Drops).unwrap());
    assert!(drops.balanced);
}

#[test]
fn questions_survive_a_round_trip() {
    for question in [
        Question::Bgp,
        Question::Routes { limit: 3, source: None },
        Question::Route { address: "2001:db8::1".parse().unwrap() },
        Question::Neighbors,
        Question::Ports,
        Question::Drops,
        Question::Bfd,
        Question::Icmp,
        Question::HostPolicy,
        Question::Policy { endpoint: Some("ns/a".to_owned()), all: true },
        Question::Staged,
        Question::Segments,
        Question::Datastore,
    ] {
        let text = serde_json::to_string(&question).unwrap();
        assert_eq!(serde_json::from_str::<Question>(&text).unwrap(), question, "{text}");
    }
    assert_eq!(serde_json::to_string(&Question::Bgp).unwrap(), r#"{"show":"bgp"}"#);
}

fn say(path: &Path, text: &[u8]) -> String {
    let mut stream = UnixStream::connect(path).unwrap();
    // The server may answer and close before all is written; then the answer is what matters.
    let _ = stream.write_all(text);
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer);
    answer
}

#[test]
fn what_is_no_question_is_answered_with_an_example() {
    let answer = with_server(|path| say(&path, b"hello\n"));
    assert!(answer.contains("error") && answer.contains(r#"{\"show\":\"bgp\"}"#), "{answer}");
    let answer = with_server(|path| say(&path, b"{\"show\":\"secrets\"}\n"));
    assert!(answer.contains("unknown variant `secrets`"), "{answer}");
}

#[test]
fn a_question_without_end_is_cut_off() {
    let answer = with_server(|path| say(&path, &[b' '; 4096]));
    assert!(answer.contains("at most 4096 bytes"), "{answer}");
}

#[test]
fn only_owner_and_group_may_ask() {
    let mode = with_server(|path| std::fs::metadata(path).unwrap().permissions().mode());
    assert_eq!(mode & 0o777, 0o660);
}

#[test]
fn a_socket_of_a_dead_process_is_replaced_and_removed_at_the_end() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("tortie.sock");
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    assert!(path.exists(), "a closed listener leaves its file");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let _entered = runtime.enter();
    let server = Server::listen(&path).unwrap();
    drop(server);
    assert!(!path.exists());
}

#[test]
fn a_live_router_is_left_alone_and_named() {
    let message = with_server(|path| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let _entered = runtime.enter();
        let message = Server::listen(&path).map(drop).unwrap_err().to_string();
        assert!(ask::<BgpStatus>(&path, &Question::Bgp).is_ok(), "the live one still answers");
        (path, message)
    });
    assert!(message.1.contains("another router answers at"), "{}", message.1);
    assert!(message.1.contains(message.0.to_str().unwrap()), "{}", message.1);
}

#[test]
fn a_file_that_is_no_socket_is_not_removed() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("notes.txt");
    std::fs::write(&path, "keep me").unwrap();
    let message = Server::listen(&path).map(drop).unwrap_err().to_string();
    assert!(message.contains("is no socket"), "{message}");
    assert!(path.exists());
}

#[test]
fn a_router_that_is_not_there_is_asked_for() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("tortie.sock");
    let message = ask::<BgpStatus>(&path, &Question::Bgp).unwrap_err().to_string();
    assert!(message.starts_with("is tortie running? No control socket at "), "{message}");
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let message = ask::<BgpStatus>(&path, &Question::Bgp).unwrap_err().to_string();
    assert!(message.starts_with("is tortie running? Nobody answers at "), "{message}");
}

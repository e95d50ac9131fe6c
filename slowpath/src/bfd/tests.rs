//! Two threads of BFD watch each other over a real link.

use std::net::{IpAddr, UdpSocket};

use super::*;
use crate::testing::{Neighborhood, in_namespace, ip};

const PACE: BfdConfig = BfdConfig {
    detect_mult: 3,
    desired_min_tx: Duration::from_millis(50),
    required_min_rx: Duration::from_millis(50),
    idle_tx: Duration::from_secs(1),
};

/// The number of an interface of this thread's namespace.
fn index(name: &str) -> u32 {
    let shown = ip(&format!("-o link show {name}"));
    shown.split(':').next().and_then(|number| number.trim().parse().ok()).unwrap()
}

/// It comes no sooner than others.
fn as_all() -> io::Result<()> {
    Ok(())
}

fn path(remote: &str, local: &str, link: Option<u32>) -> BfdPath {
    BfdPath { remote: remote.parse().unwrap(), local: local.parse().unwrap(), link }
}

fn watch(thread: &mut BfdThread, paths: &[BfdPath]) {
    thread.watch(paths.iter().map(|path| (*path, PACE)).collect());
}

/// Looks until it is so.
#[track_caller]
fn until(thread: &BfdThread, what: &str, is_so: impl Fn(&BfdReport) -> bool) {
    let patience = Instant::now() + Duration::from_secs(20);
    while !is_so(&thread.report()) {
        assert!(Instant::now() < patience, "{what}: {:?}", thread.report());
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn all_up(report: &BfdReport, sessions: usize) -> bool {
    report.sessions.iter().filter(|session| session.state == State::Up).count() == sessions
}

fn state(report: &BfdReport, remote: &str) -> Option<State> {
    let remote: IpAddr = remote.parse().unwrap();
    report.sessions.iter().find(|session| session.path.remote == remote).map(|session| session.state)
}

#[test]
fn neighbors_watch_each_other_and_a_failure_is_told_from_a_farewell() {
    in_namespace(|| {
        let far = Neighborhood::behind("near0", "far0");
        for (family, near, there) in [
            ("-4", "10.0.0.1/24", "10.0.0.2/24"),
            ("-4", "10.0.0.11/24", "10.0.0.12/24"),
            ("-6", "fd09::1/64", "fd09::2/64"),
        ] {
            ip(&format!("{family} addr add {near} dev near0{}", if family == "-6" { " nodad" } else { "" }));
            far.ip(&format!(
                "{family} addr add {there} dev far0{}",
                if family == "-6" { " nodad" } else { "" }
            ));
        }
        let link = index("near0");
        let far_link = far.output("cat /sys/class/net/far0/ifindex").trim().parse().unwrap();
        let mut near = BfdThread::start(as_all).unwrap();
        let mut there = far.inside(|| BfdThread::start(as_all).unwrap());
        watch(
            &mut near,
            &[
                path("10.0.0.2", "10.0.0.1", Some(link)),
                path("10.0.0.12", "10.0.0.11", None),
                path("fd09::2", "fd09::1", Some(link)),
            ],
        );
        let theirs = [
            path("10.0.0.1", "10.0.0.2", Some(far_link)),
            path("10.0.0.11", "10.0.0.12", None),
            path("fd09::1", "fd09::2", Some(far_link)),
        ];
        watch(&mut there, &theirs);
        until(&near, "all are up", |report| all_up(report, 3));
        assert!(near.take_news().values().all(|news| news.state == State::Up && !news.failed));

        // From another hop, as its TTL tells: no neighbour's.
        far.inside(|| {
            let stranger = UdpSocket::bind("10.0.0.2:50000").unwrap();
            stranger.set_ttl(254).unwrap();
            stranger.send_to(&[0x20; 24], "10.0.0.1:3784").unwrap();
        });
        until(&near, "it is refused", |report| report.refused.get(&Refused::Ttl) == Some(&1));
        assert!(all_up(&near.report(), 3));

        // One says farewell: down, and no failure.
        watch(&mut there, &theirs[..2]);
        until(&near, "it has gone", |report| state(report, "fd09::2") == Some(State::Down));
        let news = near.take_news();
        assert!(news.values().all(|news| !news.failed), "{news:?}");

        // The rest goes silent.
        far.ip("link set far0 down");
        until(&near, "it is lost", |report| all_up(report, 0));
        let news = near.take_news();
        let failed: Vec<_> =
            news.iter().filter(|(_, news)| news.failed).map(|(path, _)| path.remote).collect();
        assert_eq!(failed, ["10.0.0.2".parse::<IpAddr>().unwrap(), "10.0.0.12".parse().unwrap()]);
        let why = news[&path("10.0.0.2", "10.0.0.1", Some(link))].diagnostic;
        assert_eq!(why, Diagnostic::DETECTION_TIME_EXPIRED);
        near.stop();
        there.stop();
    });
}

#[test]
fn ports_are_had_while_they_are_needed_and_a_link_that_is_down_needs_no_silence() {
    in_namespace(|| {
        let taken = UdpSocket::bind("0.0.0.0:3784").unwrap();
        let _far = Neighborhood::behind("near0", "far0");
        ip("addr add 10.0.0.1/24 dev near0");
        let mut thread = BfdThread::start(as_all).unwrap();
        watch(&mut thread, &[path("10.0.0.2", "10.0.0.1", Some(index("near0")))]);
        until(&thread, "the port is missed", |report| report.problem.is_some());
        drop(taken);
        until(&thread, "the port is there", |report| report.problem.is_none());
        assert!(UdpSocket::bind("0.0.0.0:3784").is_err());
        watch(&mut thread, &[]);
        until(&thread, "nobody is watched", |report| report.sessions.is_empty());
        until(&thread, "the port is free", |_| UdpSocket::bind("0.0.0.0:3784").is_ok());
    });
}

#[test]
fn a_thread_that_is_late_hears_what_came_before_it_judges_silence() {
    in_namespace(|| {
        let far = Neighborhood::behind("near0", "far0");
        for last in [1, 11] {
            ip(&format!("addr add 10.0.0.{last}/24 dev near0"));
            far.ip(&format!("addr add 10.0.0.{}/24 dev far0", last + 1));
        }
        // The one that is late sends nothing meanwhile: the other end is patient.
        let watch = |thread: &mut BfdThread, detect_mult, paths: &[BfdPath]| {
            let pace = BfdConfig { detect_mult, ..PACE };
            thread.watch(paths.iter().map(|path| (*path, pace)).collect());
        };
        let (mut near, mut there) =
            (BfdThread::start(as_all).unwrap(), far.inside(|| BfdThread::start(as_all).unwrap()));
        let theirs = [path("10.0.0.1", "10.0.0.2", None), path("10.0.0.11", "10.0.0.12", None)];
        let ours = [path("10.0.0.2", "10.0.0.1", None), path("10.0.0.12", "10.0.0.11", None)];
        watch(&mut near, 255, &ours);
        watch(&mut there, 20, &theirs);
        until(&near, "both are up", |report| all_up(report, 2));
        until(&there, "both are up", |report| all_up(report, 2));
        near.take_news();

        // It can't tell of the one that says farewell, and so stands still while the other one goes on sending.
        let shared = Arc::clone(&near.shared);
        let held = lock(&shared.news);
        watch(&mut there, 20, &theirs[..1]);
        let sent = |report: &BfdReport| report.sessions.first().map_or(0, |session| session.sent);
        let before = sent(&there.report());
        until(&there, "the silence would last for the detection time", |report| sent(report) > before + 40);
        drop(held);
        until(&near, "it goes on", |report| state(report, "10.0.0.12") == Some(State::Down));
        until(&near, "it has judged", |report| report.sessions.iter().any(|session| session.received > 40));
        assert!(all_up(&near.report(), 1), "{:?}", near.report());
        assert!(near.take_news().values().all(|news| !news.failed));
        near.stop();
        there.stop();
    });
}

#[test]
fn the_kernel_tells_when_a_packet_came() {
    in_namespace(|| {
        ip("link set lo up");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut receivers = Receivers::open().unwrap();
            let sender = UdpSocket::bind("127.0.0.1:50000").unwrap();
            // The clocks run a little apart.
            let little = Duration::from_millis(1);
            let patience = Instant::now() + Duration::from_secs(20);
            // The kernel begins with it a moment after it is asked to.
            loop {
                let sent = Instant::now();
                sender.send_to(&[0x20; 24], "127.0.0.1:3784").unwrap();
                Receivers::readable(Some(&receivers)).await;
                let came = Instant::now();
                // It is looked at late.
                while came.elapsed() < Duration::from_millis(20) {
                    std::thread::yield_now();
                }
                let mut times = Vec::new();
                assert!(!receivers.receive(|datagram| times.push(datagram.at)));
                let [at] = times[..] else { panic!("{times:?}") };
                assert!(sent <= at + little, "{sent:?} {at:?}");
                if at <= came + little {
                    break;
                }
                assert!(Instant::now() < patience, "{sent:?} {at:?} {came:?}");
            }
        });
    });
}

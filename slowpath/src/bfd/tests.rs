//! Two threads of BFD watch each other over a real link.

use std::cell::Cell;
use std::net::{IpAddr, UdpSocket};

use super::*;
use crate::testing::{Neighborhood, in_namespace, ip};

/// How long anything may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);
const BEAT: Duration = Duration::from_millis(50);
/// Beats after which silence is a failure, where nothing is to fail: 12.75 s, so that no machine stands still for as long.
const SURELY: u8 = 255;
/// And where something is to.
const SOON: u8 = 3;

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

/// Watches these ways; the other end is to take so many beats of silence for a failure.
fn watch(thread: &mut BfdThread, detect_mult: u8, paths: &[BfdPath]) {
    let pace = BfdConfig {
        detect_mult,
        desired_min_tx: BEAT,
        required_min_rx: BEAT,
        idle_tx: Duration::from_secs(1),
    };
    thread.watch(paths.iter().map(|path| (*path, pace)).collect());
}

/// Looks until it is so.
#[track_caller]
fn until(thread: &BfdThread, what: &str, is_so: impl Fn(&BfdReport) -> bool) {
    let end = Instant::now() + PATIENCE;
    while !is_so(&thread.report()) {
        assert!(Instant::now() < end, "{what}: {:?}", thread.report());
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn all_up(report: &BfdReport, sessions: usize) -> bool {
    report.sessions.iter().filter(|session| session.state == State::Up).count() == sessions
}

fn session<'a>(report: &'a BfdReport, remote: &str) -> Option<&'a BfdStatus> {
    let remote: IpAddr = remote.parse().unwrap();
    report.sessions.iter().find(|session| session.path.remote == remote)
}

fn state(report: &BfdReport, remote: &str) -> Option<State> {
    session(report, remote).map(|session| session.state)
}

/// Have those that are up heard after how many beats of silence the other end counts as lost?
fn all_heard(report: &BfdReport, detect_mult: u8) -> bool {
    let mut up = report.sessions.iter().filter(|session| session.state == State::Up);
    up.all(|session| session.detection_time == Some(BEAT * u32::from(detect_mult)))
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
            SURELY,
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
        watch(&mut there, SURELY, &theirs);
        until(&near, "all are up", |report| all_up(report, 3));
        until(&there, "all are up", |report| all_up(report, 3));
        assert!(near.take_news().values().all(|news| news.state == State::Up && !news.failed));

        // From another hop, as its TTL tells: no neighbour's.
        far.inside(|| {
            let stranger = UdpSocket::bind("10.0.0.2:0").unwrap();
            stranger.set_ttl(254).unwrap();
            stranger.send_to(&[0x20; 24], "10.0.0.1:3784").unwrap();
        });
        until(&near, "it is refused", |report| report.refused.get(&Refused::Ttl) == Some(&1));
        assert!(all_up(&near.report(), 3));

        // One says farewell: down, and no failure.
        watch(&mut there, SURELY, &theirs[..2]);
        until(&near, "it has gone", |report| state(report, "fd09::2") == Some(State::Down));
        let news = near.take_news();
        assert!(news.values().all(|news| !news.failed), "{news:?}");

        // The rest goes silent. Whoever is late beforehand fails then, and comes up to fail again.
        watch(&mut there, SOON, &theirs[..2]);
        until(&near, "they are given up soon", |report| all_up(report, 2) && all_heard(report, SOON));
        far.ip("link set far0 down");
        let lost = |session: &BfdStatus| session.state == State::Down;
        until(&near, "they are lost", |report| report.sessions.iter().all(lost));
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
        watch(&mut thread, SOON, &[path("10.0.0.2", "10.0.0.1", Some(index("near0")))]);
        until(&thread, "the port is missed", |report| report.problem.is_some());
        drop(taken);
        until(&thread, "the port is there", |report| report.problem.is_none());
        assert!(UdpSocket::bind("0.0.0.0:3784").is_err());
        watch(&mut thread, SOON, &[]);
        until(&thread, "nobody is watched", |report| report.sessions.is_empty());
        until(&thread, "the port is free", |_| UdpSocket::bind("0.0.0.0:3784").is_ok());
    });
}

/// Whether a thread has stood still: its report is renewed every half second as long as it runs.
struct Steady {
    shared: Arc<Shared>,
    last: Cell<Option<Instant>>,
    is_steady: Cell<bool>,
}

impl Steady {
    fn since_now(thread: &BfdThread) -> Steady {
        let last = Cell::new(thread.report().at);
        Steady { shared: Arc::clone(&thread.shared), last, is_steady: Cell::new(true) }
    }

    /// To be asked all the time: of who doesn't ask for a while, a thread that has gone on seems to have stood still.
    fn goes_on(&self) -> bool {
        let at = lock(&self.shared.report).at;
        let between = self.last.replace(at).zip(at).map(|(last, at)| at - last);
        let is_long = |time: Option<Duration>| time.is_none_or(|time| time > RENEW_EVERY * 3 / 2);
        let is_late = is_long(between) || is_long(at.map(|at| at.elapsed()));
        self.is_steady.set(self.is_steady.get() && !is_late);
        self.is_steady.get()
    }
}

#[test]
fn a_thread_that_is_late_hears_what_came_before_it_judges_silence() {
    /// Beats of silence that are a failure: a second. The one that is late is so for longer.
    const SECOND: u8 = 20;
    in_namespace(|| {
        let far = Neighborhood::behind("near0", "far0");
        for last in [1, 11] {
            ip(&format!("addr add 10.0.0.{last}/24 dev near0"));
            far.ip(&format!("addr add 10.0.0.{}/24 dev far0", last + 1));
        }
        let (mut near, mut there) =
            (BfdThread::start(as_all).unwrap(), far.inside(|| BfdThread::start(as_all).unwrap()));
        let theirs = [path("10.0.0.1", "10.0.0.2", None), path("10.0.0.11", "10.0.0.12", None)];
        let ours = [path("10.0.0.2", "10.0.0.1", None), path("10.0.0.12", "10.0.0.11", None)];
        // The one that is late sends nothing meanwhile: the other end is patient.
        watch(&mut near, SURELY, &ours);
        let sent = |report: &BfdReport| session(report, "10.0.0.1").map_or(0, |session| session.sent);
        let received = |report: &BfdReport| session(report, "10.0.0.2").map_or(0, |session| session.received);
        let end = Instant::now() + PATIENCE;
        loop {
            let asked = Instant::now();
            watch(&mut there, SURELY, &theirs);
            // What was reported before is no answer.
            let is_new = |report: &BfdReport| report.at > Some(asked);
            until(&there, "both are up", |report| is_new(report) && all_up(report, 2));
            until(&near, "both are up", |report| {
                is_new(report) && all_up(report, 2) && all_heard(report, SURELY)
            });
            let steady = Steady::since_now(&there);
            watch(&mut there, SECOND, &theirs);
            until(&near, "a second is enough", |report| !steady.goes_on() || all_heard(report, SECOND));
            near.take_news();
            let heard = received(&near.report());

            // It can't tell of the one that says farewell, and so stands still while the other one goes on sending.
            let shared = Arc::clone(&near.shared);
            let held = lock(&shared.news);
            watch(&mut there, SECOND, &theirs[..1]);
            let before = sent(&there.report());
            let lasts = "the silence would last for the detection time";
            until(&there, lasts, |report| !steady.goes_on() || sent(report) > before + 30);
            drop(held);
            let is_down = |report: &BfdReport| state(report, "10.0.0.12") == Some(State::Down);
            until(&near, "it goes on", |report| !steady.goes_on() || is_down(report));
            until(&near, "it has judged", |report| !steady.goes_on() || received(report) > heard + 30);
            let (is_up, news) = (all_up(&near.report(), 1), near.take_news());
            // Where the other end itself stood still, its silence was a failure, and nothing is learned.
            if steady.goes_on() {
                assert!(is_up && news.values().all(|news| !news.failed), "{news:?}");
                break;
            }
            if Instant::now() > end {
                println!("skipped: this machine stands still for most of a second again and again");
                break;
            }
        }
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
            let end = Instant::now() + PATIENCE;
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
                assert!(Instant::now() < end, "{sent:?} {at:?} {came:?}");
            }
        });
    });
}

#[test]
fn however_late_the_thread_is_it_watches_what_was_wanted_last() {
    static GATE: Mutex<()> = Mutex::new(());
    in_namespace(|| {
        let closed = lock(&GATE);
        let mut thread = BfdThread::start(|| {
            drop(lock(&GATE));
            Ok(())
        })
        .unwrap();
        for last in 2..=200 {
            watch(&mut thread, SURELY, &[path(&format!("127.0.0.{last}"), "127.0.0.1", None)]);
        }
        drop(closed);
        until(&thread, "the last is watched", |report| session(report, "127.0.0.200").is_some());
        assert_eq!(thread.report().sessions.len(), 1);
    });
}

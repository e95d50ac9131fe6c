//! TCP to monitoring stations (BMP, RFC 7854): who is connected, and what waits to be sent.
//!
//! We connect; a station says nothing. Each has a task that connects, writes what is queued, and connects anew when the
//! connection is lost. The speaker is told of a station while it is connected, and tells it everything from the start each
//! time. A queue that is [half full](Stations::send) holds back the table's dump; one that is full, because the station takes less than
//! happens, is cut off with its connection, and counted: the station gets everything anew rather than something old.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime};

use bgp::Input;
use bgp::bmp::{StationConfig, StationId};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinHandle};
use tokio::time::{sleep, timeout};
use tracing::{info, warn};

use crate::event::Event;
use crate::event_loop::Core;
use crate::status::{StationStatus, StationsStatus};

/// How long an attempt to connect may take.
const CONNECT_WITHIN: Duration = Duration::from_secs(10);
/// From one attempt to the next: doubled with each up to the second (RFC 7854 §3.2 asks for some back-off).
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// How long the last messages may take at a clean end.
const CLOSE_WITHIN: Duration = Duration::from_secs(2);

/// A monitoring station of `tortie.yaml`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StationSettings {
    /// Where it listens.
    pub address: SocketAddr,
    /// It is told routes as peers announced them,
    pub pre_policy: bool,
    /// as import filters left them,
    pub post_policy: bool,
    /// and the best ones.
    pub loc_rib: bool,
    /// Between two reports of counts; zero is none.
    pub statistics: Duration,
    /// Bytes that may wait for it.
    pub buffer: usize,
}

/// What a station's task has to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StationEvent {
    /// Connected: it knows nothing yet.
    Connected,
    /// Its queue has room again.
    Drained,
    /// The connection is gone.
    Lost,
}

/// Numbers that a station's task and the event loop share.
#[derive(Debug, Default)]
struct Shared {
    queued: AtomicUsize,
    sent: AtomicU64,
}

struct Station {
    settings: StationSettings,
    shared: Arc<Shared>,
    /// While connected.
    queue: Option<mpsc::UnboundedSender<Vec<u8>>>,
    congested: bool,
    connected: u64,
    cut_off: u64,
    since: Instant,
    problem: Option<String>,
    task: JoinHandle<()>,
    /// To the task: the next connection's queue.
    queues: mpsc::Sender<mpsc::UnboundedReceiver<Vec<u8>>>,
    reported: Instant,
}

/// All stations.
#[derive(Default)]
pub struct Stations {
    stations: BTreeMap<StationId, Station>,
    abort: Vec<AbortHandle>,
}

impl Stations {
    /// Begins to connect; what happens is sent to `events`.
    pub fn start(settings: &[StationSettings], events: &mpsc::Sender<Event>) -> Stations {
        let mut stations = Stations::default();
        for (id, settings) in (1..).map(StationId).zip(settings) {
            let shared = Arc::new(Shared::default());
            let (queues, next_queue) = mpsc::channel(1);
            let task =
                tokio::spawn(serve(id, settings.clone(), Arc::clone(&shared), next_queue, events.clone()));
            stations.abort.push(task.abort_handle());
            let now = Instant::now();
            let station = Station {
                settings: settings.clone(),
                shared,
                queue: None,
                congested: false,
                connected: 0,
                cut_off: 0,
                since: now,
                problem: None,
                task,
                queues,
                reported: now,
            };
            stations.stations.insert(id, station);
        }
        stations
    }

    /// A station is connected: it has an empty queue from now on.
    fn connected(&mut self, id: StationId, now: Instant) {
        let Some(station) = self.stations.get_mut(&id) else { return };
        let (queue, waiting) = mpsc::unbounded_channel();
        station.shared.queued.store(0, Ordering::Relaxed);
        // The task waits for it; one that has ended doesn't, and nothing is lost.
        let _ = station.queues.try_send(waiting);
        (station.queue, station.congested) = (Some(queue), false);
        station.connected += 1;
        (station.since, station.reported) = (now, now);
        station.problem = None;
    }

    /// A station is no longer connected; `false` where that is known.
    fn lost(&mut self, id: StationId, problem: &str, now: Instant) -> bool {
        let Some(station) = self.stations.get_mut(&id) else { return false };
        station.since = now;
        station.problem.get_or_insert_with(|| problem.to_owned());
        station.queue.take().is_some()
    }

    /// Queues bytes, and says what that makes of the station.
    fn send(&mut self, id: StationId, bytes: Vec<u8>, now: Instant) -> Queued {
        let Some(station) = self.stations.get_mut(&id) else { return Queued::Unknown };
        let Some(queue) = &station.queue else { return Queued::Unknown };
        let len = bytes.len();
        let queued = station.shared.queued.fetch_add(len, Ordering::Relaxed) + len;
        if queued > station.settings.buffer {
            // Without its queue the task closes the connection and connects anew.
            (station.queue, station.since) = (None, now);
            station.cut_off += 1;
            let buffer = station.settings.buffer;
            station.problem = Some(format!("cut off: more than {buffer} bytes waited for it"));
            return Queued::CutOff;
        }
        // A task that has ended told so; its event is on the way.
        let _ = queue.send(bytes);
        let became = queued > station.settings.buffer / 2 && !station.congested;
        station.congested |= became;
        if became { Queued::Congested } else { Queued::Taken }
    }

    /// The queue has room again; `false` where it wasn't full.
    fn drained(&mut self, id: StationId) -> bool {
        self.stations.get_mut(&id).is_some_and(|station| std::mem::take(&mut station.congested))
    }

    /// Is somebody's report of counts due?
    fn statistics_due(&mut self, now: Instant) -> bool {
        let mut due = false;
        for station in self.stations.values_mut().filter(|station| station.queue.is_some()) {
            let interval = station.settings.statistics;
            if !interval.is_zero() && now.saturating_duration_since(station.reported) >= interval {
                station.reported = now;
                due = true;
            }
        }
        due
    }

    /// What was told is no more: connections end, once what is queued has been sent, and are made anew.
    pub(crate) fn begin_anew(&mut self) {
        for station in self.stations.values_mut() {
            if station.queue.take().is_some() {
                station.since = Instant::now();
                station.problem = Some("closed, to begin anew".to_owned());
            }
        }
    }

    fn is_connected(&self, id: StationId) -> bool {
        self.stations.get(&id).is_some_and(|station| station.queue.is_some())
    }

    /// Those that are connected.
    fn all_connected(&self) -> Vec<StationId> {
        self.stations.keys().copied().filter(|id| self.is_connected(*id)).collect()
    }

    fn config(&self, id: StationId, name: &str) -> Option<StationConfig> {
        let settings = &self.stations.get(&id)?.settings;
        Some(StationConfig {
            id,
            pre_policy: settings.pre_policy,
            post_policy: settings.post_policy,
            loc_rib: settings.loc_rib,
            system_name: name.to_owned(),
            system_description: concat!("Tortie ", env!("CARGO_PKG_VERSION")).to_owned(),
        })
    }

    /// Everything about everyone.
    pub fn status(&self, now: Instant) -> StationsStatus {
        let status = |station: &Station| StationStatus {
            address: station.settings.address.to_string(),
            up: station.queue.is_some(),
            since_seconds: now.saturating_duration_since(station.since).as_secs(),
            connected_count: station.connected,
            cut_off_count: station.cut_off,
            sent_bytes: station.shared.sent.load(Ordering::Relaxed),
            queued_bytes: match station.queue {
                Some(_) => station.shared.queued.load(Ordering::Relaxed) as u64,
                None => 0,
            },
            buffer_bytes: station.settings.buffer as u64,
            problem: station.problem.clone().filter(|_| station.queue.is_none()),
        };
        StationsStatus { stations: self.stations.values().map(status).collect() }
    }

    /// Waits until what is queued has been sent, as far as a station takes it in time.
    pub async fn flush(&mut self) {
        for (_, station) in std::mem::take(&mut self.stations) {
            let was_connected = station.queue.is_some();
            drop((station.queue, station.queues));
            if was_connected {
                // Cut off by the drop of `self` at the latest.
                let _ = timeout(CLOSE_WITHIN, station.task).await;
            }
        }
    }
}

impl Drop for Stations {
    fn drop(&mut self) {
        self.abort.iter().for_each(AbortHandle::abort);
    }
}

/// What became of bytes for a station.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Queued {
    Taken,
    /// Taken, and the queue is half full.
    Congested,
    /// The queue is full: the connection ends.
    CutOff,
    /// There is no such station now.
    Unknown,
}

impl Core {
    /// Something has happened to a station.
    pub(crate) fn station_changed(&mut self, id: StationId, event: StationEvent, problem: Option<String>) {
        let now = Instant::now();
        match event {
            StationEvent::Connected => {
                self.stations.connected(id, now);
                info!(station = id.0, "monitoring station connected");
                self.introduce_station(id);
            }
            StationEvent::Drained => {
                if self.stations.drained(id) {
                    self.tell(Input::StationCongested { station: id, congested: false });
                }
            }
            StationEvent::Lost => {
                let problem = problem.unwrap_or_else(|| "the connection was closed".to_owned());
                if self.stations.lost(id, &problem, now) {
                    warn!(station = id.0, problem, "monitoring station lost");
                    self.tell(Input::StationLeft(id));
                }
            }
        }
    }

    fn introduce_station(&mut self, id: StationId) {
        if let Some(config) = self.stations.config(id, &self.config.node) {
            let time = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
            self.tell(Input::StationJoined { config, time });
        }
    }

    /// There is a speaker now: who is connected already is told of by it.
    pub(crate) fn introduce_stations(&mut self) {
        for id in self.stations.all_connected() {
            self.introduce_station(id);
        }
    }

    pub(crate) fn tell_station(&mut self, id: StationId, bytes: Vec<u8>) {
        match self.stations.send(id, bytes, Instant::now()) {
            Queued::Taken | Queued::Unknown => {}
            Queued::Congested => self.tell(Input::StationCongested { station: id, congested: true }),
            Queued::CutOff => {
                warn!(
                    station = id.0,
                    "a monitoring station is too slow: it is cut off and told everything anew"
                );
                self.tell(Input::StationLeft(id));
            }
        }
    }

    /// Tells counts where they are due.
    pub(crate) fn tell_statistics(&mut self) {
        if self.stations.statistics_due(Instant::now()) {
            self.tell(Input::TellStatistics);
        }
    }
}

/// Connects, writes, and connects anew, until nobody wants it any more.
async fn serve(
    id: StationId,
    settings: StationSettings,
    shared: Arc<Shared>,
    mut queues: mpsc::Receiver<mpsc::UnboundedReceiver<Vec<u8>>>,
    events: mpsc::Sender<Event>,
) {
    let mut wait = RETRY.0;
    loop {
        let connected = timeout(CONNECT_WITHIN, TcpStream::connect(settings.address)).await;
        let problem = match connected {
            Ok(Ok(stream)) => {
                let event = Event::Station { id, event: StationEvent::Connected, problem: None };
                if events.send(event).await.is_err() {
                    return;
                }
                let Some(waiting) = queues.recv().await else { return };
                let began = Instant::now();
                let problem = write(id, stream, waiting, &settings, &shared, &events).await;
                if began.elapsed() >= RETRY.1 {
                    wait = RETRY.0;
                }
                problem
            }
            Ok(Err(error)) => error.to_string(),
            Err(_) => "no answer".to_owned(),
        };
        let event = Event::Station { id, event: StationEvent::Lost, problem: Some(problem) };
        // The router ends where nobody takes news or has queues to give.
        if events.send(event).await.is_err() || queues.is_closed() {
            return;
        }
        sleep(wait).await;
        wait = (wait * 2).min(RETRY.1);
    }
}

/// Writes what is queued until the queue or the connection ends; why.
async fn write(
    id: StationId,
    stream: TcpStream,
    mut waiting: mpsc::UnboundedReceiver<Vec<u8>>,
    settings: &StationSettings,
    shared: &Shared,
    events: &mpsc::Sender<Event>,
) -> String {
    let (mut read, mut write) = stream.into_split();
    let low = settings.buffer / 4;
    let mut ignored = [0; 512];
    loop {
        let bytes = tokio::select! {
            bytes = waiting.recv() => bytes,
            // A station has nothing to say (RFC 7854 §3.2); its end is an end.
            said = read.read(&mut ignored) => match said {
                Ok(0) => return "the station closed the connection".to_owned(),
                Ok(_) => continue,
                Err(error) => return error.to_string(),
            },
        };
        let Some(bytes) = bytes else {
            let _ = write.shutdown().await;
            return "closed".to_owned();
        };
        // Without its queue the station is cut off or the router ends: what is left has little time.
        let written = if waiting.is_closed() {
            timeout(CLOSE_WITHIN, write.write_all(&bytes))
                .await
                .unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()))
        } else {
            tokio::select! {
                written = write.write_all(&bytes) => written,
                () = closed(&waiting) => return "cut off".to_owned(),
            }
        };
        if let Err(error) = written {
            return error.to_string();
        }
        shared.sent.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        let before = shared.queued.fetch_sub(bytes.len(), Ordering::Relaxed);
        let crossed = before >= low && before - bytes.len() < low;
        if crossed {
            let event = Event::Station { id, event: StationEvent::Drained, problem: None };
            if events.send(event).await.is_err() {
                return "the router ends".to_owned();
            }
        }
    }
}

/// The queue has no other end any more.
async fn closed(waiting: &mpsc::UnboundedReceiver<Vec<u8>>) {
    while !waiting.is_closed() {
        sleep(Duration::from_millis(100)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    fn settings(address: SocketAddr, buffer: usize) -> StationSettings {
        StationSettings {
            address,
            pre_policy: true,
            post_policy: false,
            loc_rib: false,
            statistics: Duration::from_secs(60),
            buffer,
        }
    }

    fn on_loopback<T>(test: impl AsyncFnOnce() -> T) -> T {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test())
    }

    async fn next(events: &mut mpsc::Receiver<Event>) -> StationEvent {
        match timeout(Duration::from_secs(60), events.recv()).await.expect("in time") {
            Some(Event::Station { event, .. }) => event,
            other => panic!("{other:?}"),
        }
    }

    const ID: StationId = StationId(1);

    #[test]
    fn what_is_sent_arrives_and_the_last_of_it_before_the_end() {
        on_loopback(async || {
            let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let (sender, mut events) = mpsc::channel(16);
            let mut stations = Stations::start(&[settings(server.local_addr().unwrap(), 1 << 20)], &sender);
            let now = Instant::now();
            assert_eq!(stations.send(ID, vec![1], now), Queued::Unknown, "nobody is there yet");
            assert_eq!(next(&mut events).await, StationEvent::Connected);
            stations.connected(ID, now);
            let (mut far, _) = server.accept().await.unwrap();
            assert_eq!(stations.send(ID, b"hello ".to_vec(), now), Queued::Taken);
            assert_eq!(stations.send(ID, b"world".to_vec(), now), Queued::Taken);
            stations.flush().await;
            let mut all = Vec::new();
            far.read_to_end(&mut all).await.unwrap();
            assert_eq!(all, b"hello world");
        });
    }

    #[test]
    fn a_station_that_takes_nothing_is_held_back_then_cut_off_and_connected_to_again() {
        on_loopback(async || {
            let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let (sender, mut events) = mpsc::channel(16);
            let buffer = 64 << 20;
            let mut stations = Stations::start(&[settings(server.local_addr().unwrap(), buffer)], &sender);
            assert_eq!(next(&mut events).await, StationEvent::Connected);
            let now = Instant::now();
            stations.connected(ID, now);
            let (far, _) = server.accept().await.unwrap();
            let mut seen = Vec::new();
            let mut given = 0;
            loop {
                let queued = stations.send(ID, vec![0; 1 << 20], now);
                given += 1 << 20;
                assert!(given <= 2 * buffer, "it is bounded");
                if queued != Queued::Taken {
                    seen.push(queued);
                }
                if queued == Queued::CutOff {
                    break;
                }
            }
            assert_eq!(seen, [Queued::Congested, Queued::CutOff]);
            let status = stations.status(now).stations.remove(0);
            assert_eq!((status.up, status.cut_off_count, status.queued_bytes), (false, 1, 0));
            assert!(status.problem.unwrap().contains("cut off"));
            assert_eq!(next(&mut events).await, StationEvent::Lost);
            assert!(!stations.lost(ID, "closed", now), "that is known");
            drop(far);
            assert_eq!(next(&mut events).await, StationEvent::Connected, "it gets another chance");
        });
    }

    #[test]
    fn a_station_that_goes_is_noticed_though_nothing_is_sent() {
        on_loopback(async || {
            let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let (sender, mut events) = mpsc::channel(16);
            let mut stations = Stations::start(&[settings(server.local_addr().unwrap(), 1 << 20)], &sender);
            assert_eq!(next(&mut events).await, StationEvent::Connected);
            let now = Instant::now();
            stations.connected(ID, now);
            assert!(!stations.statistics_due(now) && stations.statistics_due(now + Duration::from_secs(60)));
            drop(server.accept().await.unwrap());
            assert_eq!(next(&mut events).await, StationEvent::Lost);
            assert!(
                stations.lost(ID, "gone", now) && !stations.statistics_due(now + Duration::from_secs(600))
            );
        });
    }
}

//! Whoever wants to know something about the running router asks here: the control socket and the metrics.

use slowpath::status::{
    Answer, BfdStatus, BgpStatus, DatastoreStatus, HostPolicyStatus, IcmpStatus, NeighborsStatus,
    PolicyStatus, PortsStatus, Query, ReportedRoutes, ReportingStatus, RouteStatus, RoutesStatus,
    SegmentsStatus, Summary, TracesStatus,
};
use std::time::Duration;
use tables::{Capturing, Counters, FlowCounts, Flows};
use tokio::sync::{mpsc, oneshot};

use crate::captures::{CaptureQuestion, Captures, CapturesStatus};
use crate::control::{Question, Reply};
use crate::forms::{DropsStatus, PortView, PortsView, QueueView, StagesStatus, XdpCounts};
use crate::limits::{self, Limits};
use crate::open_ports::{OpenPorts, since};
use crate::show::flows::FlowsStatus;
use crate::table_use::TablesStatus;
use crate::traces::{FilterQuestion, Traces, Untraceable};

/// A batch takes microseconds; after this many looks the books are reported as they are.
const LOOKS_AT_BOOKS: u32 = 20;
const BETWEEN_LOOKS: Duration = Duration::from_millis(1);
/// How long what was captured may still be asked for when its time is over.
const CAPTURE_LEFT: Duration = Duration::from_secs(2);

/// Why a question got no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NoAnswer {
    /// The slow path has ended.
    #[error("the slow path has ended; tortie is stopping, or its log says why it failed")]
    Ended,
    /// It is busy.
    #[error("the slow path did not answer within {} s; it is busy, try again", .0.as_secs())]
    Late(Duration),
    /// It answered something else.
    #[error("the slow path answered another question; this is a bug, please report it")]
    Mismatch,
    /// There is nothing to show.
    #[error(transparent)]
    Untraceable(#[from] Untraceable),
}

/// Reads everything, changes nothing. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Observer {
    questions: mpsc::Sender<slowpath::Request>,
    counters: Counters,
    ports: OpenPorts,
    flows: Flows,
    traces: Option<Traces>,
    captures: Captures,
    limits: Limits,
}

impl Observer {
    pub(crate) fn new(
        questions: mpsc::Sender<slowpath::Request>,
        counters: Counters,
        ports: OpenPorts,
        flows: Flows,
        capturing: Capturing,
    ) -> Observer {
        let captures = Captures::new(capturing);
        Observer { questions, counters, ports, flows, traces: None, captures, limits: Limits::default() }
    }

    /// The same, where tables have these sizes.
    #[must_use]
    pub(crate) fn with_limits(self, limits: Limits) -> Observer {
        Observer { limits, ..self }
    }

    /// The same, who can show packets' ways.
    #[must_use]
    pub(crate) fn with_traces(self, traces: Traces) -> Observer {
        Observer { traces: Some(traces), ..self }
    }

    /// Answers a question of the control socket.
    pub(crate) async fn answer(&self, question: Question) -> Result<Reply, NoAnswer> {
        Ok(match question {
            Question::Bgp => Reply::Bgp(self.bgp().await?),
            Question::BgpNeighbors { address } => match self.ask(Query::BgpNeighbors { address }).await? {
                Answer::BgpNeighbors(neighbors) => Reply::BgpNeighbors(neighbors),
                _ => return Err(NoAnswer::Mismatch),
            },
            Question::BgpDump { id } => match self.ask(Query::BgpDump { id }).await? {
                Answer::BgpDump(dump) => Reply::BgpDump(dump),
                _ => return Err(NoAnswer::Mismatch),
            },
            Question::BgpRoute { prefix } => match self.ask(Query::BgpRoute { prefix }).await? {
                Answer::BgpRoute(route) => Reply::BgpRoute(route),
                _ => return Err(NoAnswer::Mismatch),
            },
            Question::Routes { limit, source } => {
                let limit = limit.min(limits::ROUTES_SHOWN);
                Reply::Routes(self.routes(limit, source).await?)
            }
            Question::Route { address } => Reply::Route(self.route(address).await?),
            Question::Neighbors => Reply::Neighbors(self.neighbors().await?),
            Question::Ports => Reply::Ports(self.ports().await?),
            Question::Stages => Reply::Stages(self.stages()),
            Question::Flows { address, limit } => {
                let limit = limit.min(limits::ROUTES_SHOWN);
                Reply::Flows(FlowsStatus::new(self.flows.rows(), self.flow_counts(), address, limit))
            }
            Question::Tables => Reply::Tables(self.tables(&self.summary().await?)),
            Question::Fingerprints => match self.ask(Query::Fingerprints).await? {
                Answer::Fingerprints(fingerprints) => Reply::Fingerprints(fingerprints),
                _ => return Err(NoAnswer::Mismatch),
            },
            Question::Drops => Reply::Drops(self.drops().await),
            Question::Bfd => Reply::Bfd(self.bfd().await?),
            Question::Bmp => match self.ask(Query::Stations).await? {
                Answer::Stations(stations) => Reply::Bmp(stations),
                _ => return Err(NoAnswer::Mismatch),
            },
            Question::Icmp => Reply::Icmp(self.icmp().await?),
            Question::HostPolicy => Reply::HostPolicy(self.host_policy().await?),
            Question::Policy { endpoint, all } => {
                Reply::Policy(self.policy(Query::Policy { endpoint, all }).await?)
            }
            Question::Staged => Reply::Policy(self.policy(Query::Staged).await?),
            Question::Segments => Reply::Segments(self.segments().await?),
            Question::Trace { packet } => {
                let trace = self.traces()?.walk(&packet)?;
                Reply::Traces(self.in_words(vec![trace]).await?)
            }
            Question::Follow { filter, count, seconds } => {
                Reply::Traces(self.follow(&filter, count, seconds)?)
            }
            Question::Followed { id } => {
                let (traces, running, missed) = self.traces()?.found(id)?;
                let words = self.in_words(traces).await?;
                Reply::Traces(TracesStatus { running, missed, id, ..words })
            }
            Question::EndFollowing { id } => {
                self.traces()?.end(id);
                Reply::Traces(TracesStatus { id, ..TracesStatus::default() })
            }
            Question::Capture { filter, count, seconds } => {
                Reply::Captures(self.capture(&filter, count, seconds)?)
            }
            Question::Captured { id } => Reply::Captures(self.captures.found(id, self.traces()?)?),
            Question::EndCapture { id } => {
                self.captures.end(id);
                Reply::Captures(CapturesStatus { id, ..CapturesStatus::default() })
            }
            Question::Datastore => Reply::Datastore(self.datastore().await?),
        })
    }

    /// The walk's books.
    ///
    /// A worker stores a batch's sums one after the other, so a look may fall between two of them. Books that don't
    /// balance are therefore looked at again; only a packet that is really lost keeps them unbalanced.
    pub(crate) async fn drops(&self) -> DropsStatus {
        let mut books = self.counters.books();
        for _ in 0..LOOKS_AT_BOOKS {
            if books.balance() {
                break;
            }
            tokio::time::sleep(BETWEEN_LOOKS).await;
            books = self.counters.books();
        }
        DropsStatus::new(&books)
    }

    /// Where the workers' time goes. Asks nobody.
    pub(crate) fn stages(&self) -> StagesStatus {
        let workers = 0..self.counters.workers();
        StagesStatus::new(workers.map(|worker| self.counters.worker(worker).stages()))
    }

    /// Sums of the flow table. Asks nobody.
    pub(crate) fn flow_counts(&self) -> FlowCounts {
        self.flows.counts()
    }

    /// Every open port's name, counts since it was opened, and queues. Asks nobody.
    pub(crate) fn counted_ports(&self) -> Vec<CountedPort> {
        let counted = |(id, opened): (model::PortId, crate::open_ports::OpenedPort)| CountedPort {
            id: id.0,
            name: opened.name,
            count: since(&self.counters.port(id), &opened.counted_before),
            queues: opened.queues.iter().map(|(queue, counts)| (*queue, XdpCounts::read(counts))).collect(),
        };
        self.ports.list().into_iter().map(counted).collect()
    }

    /// Numbers for the metrics.
    pub(crate) async fn summary(&self) -> Result<Summary, NoAnswer> {
        match self.ask(Query::Summary).await? {
            Answer::Summary(summary) => Ok(*summary),
            _ => Err(NoAnswer::Mismatch),
        }
    }

    /// How full the tables are.
    pub(crate) fn tables(&self, summary: &Summary) -> TablesStatus {
        TablesStatus::new(&self.limits, summary, &self.flow_counts(), self.ports.list().len())
    }

    /// How often each worker has come round, by worker.
    pub(crate) fn rounds(&self) -> Vec<u64> {
        (0..self.counters.workers()).map(|worker| self.counters.worker(worker).rounds()).collect()
    }

    /// Has the slow path ended? Waits for nothing.
    pub(crate) fn slow_path_ended(&self) -> bool {
        self.questions.is_closed()
    }

    pub(crate) async fn bgp(&self) -> Result<BgpStatus, NoAnswer> {
        match self.ask(Query::Bgp).await? {
            Answer::Bgp(bgp) => Ok(bgp),
            _ => Err(NoAnswer::Mismatch),
        }
    }

    pub(crate) async fn reporting(&self) -> Result<ReportingStatus, NoAnswer> {
        match self.ask(Query::Reporting).await? {
            Answer::Reporting(reporting) => Ok(reporting),
            _ => Err(NoAnswer::Mismatch),
        }
    }

    pub(crate) async fn reported_routes(&self, limit: usize) -> Result<ReportedRoutes, NoAnswer> {
        match self.ask(Query::ReportedRoutes { limit }).await? {
            Answer::ReportedRoutes(routes) => Ok(routes),
            _ => Err(NoAnswer::Mismatch),
        }
    }

    async fn routes(&self, limit: usize, source: Option<String>) -> Result<RoutesStatus, NoAnswer> {
        match self.ask(Query::Routes { limit, source }).await? {
            Answer::Routes(routes) => Ok(routes),
            _ => Err(NoAnswer::Mismatch),
        }
    }

    async fn route(&self, address: std::net::IpAddr) -> Result<RouteStatus, NoAnswer> {
        match self.ask(Query::Route { address }).await? {
            Answer::Route(route) => Ok(route),
            _ => Err(NoAnswer::Mismatch),
        }
    }

    async fn neighbors(&self) -> Result<NeighborsStatus, NoAnswer> {
        match self.ask(Query::Neighbors).await? {
            Answer::Neighbors(neighbors) => Ok(neighbors),
            _ => Err(NoAnswer::Mismatch),
        }
    }

    async fn segments(&self) -> Result<SegmentsStatus, NoAnswer> {
        match self.ask(Query::Segments).await? {
            Answer::Segments(segments) => Ok(segments),
            _ => Err(NoAnswer::Mismatch),
        }
    }

    async fn bfd(&self) -> Result<BfdStatus, NoAnswer> {
        match self.ask(Query::Bfd).await? {
            Answer::Bfd(bfd) => Ok(bfd),
            _ => Err(NoAnswer::Mismatch),
        }
    }

    fn traces(&self) -> Result<&Traces, NoAnswer> {
        self.traces.as_ref().ok_or(NoAnswer::Ended)
    }

    /// Begins to follow packets, and sees to it that it ends even if nobody asks for them any more.
    fn follow(&self, filter: &FilterQuestion, count: u32, seconds: u64) -> Result<TracesStatus, NoAnswer> {
        let traces = self.traces()?.clone();
        let id = traces.follow(filter, count, seconds)?;
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_secs(seconds.clamp(1, limits::FOLLOWED_SECONDS))).await;
            traces.end(id);
        });
        Ok(TracesStatus { id, running: true, ..TracesStatus::default() })
    }

    /// Begins to copy frames, and sees to it that it ends even if nobody asks for them any more.
    fn capture(&self, asked: &CaptureQuestion, count: u32, seconds: u64) -> Result<CapturesStatus, NoAnswer> {
        let captures = self.captures.clone();
        let id = captures.start(asked, self.traces()?, count, seconds)?;
        tokio::spawn(async move {
            tokio::time::sleep(
                Duration::from_secs(seconds.clamp(1, limits::CAPTURED_SECONDS)) + CAPTURE_LEFT,
            )
            .await;
            captures.end(id);
        });
        Ok(CapturesStatus { id, running: true, ..CapturesStatus::default() })
    }

    /// What the walk has found, in the slow path's words.
    async fn in_words(&self, traces: Vec<tables::Trace>) -> Result<TracesStatus, NoAnswer> {
        if traces.is_empty() {
            return Ok(TracesStatus::default());
        }
        match self.ask(Query::Traces { traces }).await? {
            Answer::Traces(traces) => Ok(traces),
            _ => Err(NoAnswer::Mismatch),
        }
    }

    async fn datastore(&self) -> Result<DatastoreStatus, NoAnswer> {
        match self.ask(Query::Datastore).await? {
            Answer::Datastore(datastore) => Ok(datastore),
            _ => Err(NoAnswer::Mismatch),
        }
    }

    async fn icmp(&self) -> Result<IcmpStatus, NoAnswer> {
        match self.ask(Query::Icmp).await? {
            Answer::Icmp(icmp) => Ok(icmp),
            _ => Err(NoAnswer::Mismatch),
        }
    }

    async fn host_policy(&self) -> Result<HostPolicyStatus, NoAnswer> {
        match self.ask(Query::HostPolicy).await? {
            Answer::HostPolicy(policy) => Ok(policy),
            _ => Err(NoAnswer::Mismatch),
        }
    }

    async fn policy(&self, query: Query) -> Result<PolicyStatus, NoAnswer> {
        match self.ask(query).await? {
            Answer::Policy(policy) => Ok(policy),
            _ => Err(NoAnswer::Mismatch),
        }
    }

    async fn ports(&self) -> Result<PortsView, NoAnswer> {
        let Answer::Ports(PortsStatus { ports, problems, workload_mtu, receivable }) =
            self.ask(Query::Ports).await?
        else {
            return Err(NoAnswer::Mismatch);
        };
        let counted = self.counted_ports();
        let view = |mut port: slowpath::status::PortStatus| {
            let counts = counted.iter().find(|counted| counted.id == port.id && counted.name == port.name);
            let queues = std::mem::take(&mut port.queues)
                .into_iter()
                .map(|report| QueueView {
                    xdp: counts.map_or_else(XdpCounts::default, |c| c.xdp(report.queue)),
                    report,
                })
                .collect();
            PortView::new(port, &counts.map(|counted| counted.count).unwrap_or_default(), queues)
        };
        Ok(PortsView { ports: ports.into_iter().map(view).collect(), problems, workload_mtu, receivable })
    }

    async fn ask(&self, query: Query) -> Result<Answer, NoAnswer> {
        let (reply, answer) = oneshot::channel();
        let request = slowpath::Request { query, reply };
        let exchange = async {
            self.questions.send(request).await.map_err(|_| NoAnswer::Ended)?;
            answer.await.map_err(|_| NoAnswer::Ended)
        };
        let late = |_| NoAnswer::Late(limits::ANSWER_WITHIN);
        tokio::time::timeout(limits::ANSWER_WITHIN, exchange).await.map_err(late)?
    }
}

/// One open port, counted.
#[derive(Clone, Debug)]
pub(crate) struct CountedPort {
    /// Its number.
    pub(crate) id: u16,
    /// The interface's name.
    pub(crate) name: String,
    /// Since it was opened.
    pub(crate) count: tables::PortCount,
    /// Each queue's number and the kernel's counts.
    pub(crate) queues: Vec<(u32, XdpCounts)>,
}

impl CountedPort {
    fn xdp(&self, queue: u32) -> XdpCounts {
        self.queues.iter().find(|(number, _)| *number == queue).map(|(_, counts)| *counts).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::open_ports::OpenedPort;
    use model::PortId;
    use std::sync::Arc;
    use std::sync::atomic::Ordering;
    use tables::{Books, PortCount};

    fn observer() -> (Observer, mpsc::Receiver<slowpath::Request>) {
        let (questions, requests) = mpsc::channel(4);
        (
            Observer::new(
                questions,
                Counters::new(1, 4),
                OpenPorts::default(),
                Flows::new(16),
                Capturing::new(),
            ),
            requests,
        )
    }

    fn port_status(name: &str) -> slowpath::status::PortStatus {
        slowpath::status::PortStatus {
            id: 1,
            name: name.to_owned(),
            kind: "uplink".to_owned(),
            ifindex: 7,
            mac: "02:00:00:00:00:01".to_owned(),
            mtu: 1500,
            up: true,
            warnings: Vec::new(),
            endpoint: None,
            qos: None,
            queues: vec![slowpath::QueueReport {
                queue: 0,
                worker: 0,
                mode: "copy".to_owned(),
                attach: "native".to_owned(),
                receivable: 1778,
                notes: String::new(),
            }],
        }
    }

    #[tokio::test]
    async fn ports_are_shown_with_what_was_counted_since_they_were_opened() {
        let (observer, mut requests) = observer();
        let count = PortCount { received_packets: 5, received_bytes: 500, ..PortCount::default() };
        observer.counters.worker(0).add_received(PortId(1), 5, 500);
        let statistics = Arc::new(fastpath::QueueStatistics::default());
        statistics.rx_ring_full.store(3, Ordering::Relaxed);
        let queues = vec![(0, statistics)];
        observer
            .ports
            .insert(PortId(1), OpenedPort { name: "eth0".to_owned(), counted_before: count, queues });
        observer.counters.worker(0).add_received(PortId(1), 5, 500);
        observer.counters.worker(0).add_dropped(PortId(1), 2);
        tokio::spawn(async move {
            let request = requests.recv().await.unwrap();
            assert_eq!(request.query, Query::Ports);
            let status = PortsStatus { ports: vec![port_status("eth0")], ..PortsStatus::default() };
            let _ = request.reply.send(Answer::Ports(status));
        });
        let Ok(Reply::Ports(view)) = observer.answer(Question::Ports).await else {
            panic!("ports are answered")
        };
        let port = &view.ports[0];
        assert_eq!((port.received.packets, port.received.bytes, port.dropped), (5, 500, 2));
        assert_eq!(port.queues[0].xdp.rx_ring_full, 3);
        let text = serde_json::to_string(&view).unwrap();
        assert!(text.contains(r#""received":{"packets":5,"bytes":500}"#), "{text}");
        assert!(text.contains(r#""mode":"copy""#) && text.contains(r#""xdp":{"rx_dropped":0"#), "{text}");
    }

    #[tokio::test(start_paused = true)]
    async fn books_that_are_caught_between_two_sums_are_looked_at_again() {
        let (observer, _requests) = observer();
        observer.counters.worker(0).add(&Books { received: 1, ..Books::default() });
        let counters = observer.counters.clone();
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(3)).await;
            counters.worker(0).add(&Books { forwarded: 1, ..Books::default() });
        });
        assert!(observer.drops().await.balanced);
    }

    #[tokio::test]
    async fn a_packet_that_is_really_lost_shows() {
        let (observer, _requests) = observer();
        observer.counters.worker(0).add(&Books { received: 1, ..Books::default() });
        assert!(!observer.drops().await.balanced);
    }

    #[tokio::test]
    async fn a_slow_path_that_has_ended_is_named() {
        let (observer, requests) = observer();
        drop(requests);
        assert_eq!(observer.summary().await.unwrap_err(), NoAnswer::Ended);
        assert!(observer.slow_path_ended());
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_path_that_does_not_answer_is_not_waited_for_for_ever() {
        let (observer, _requests) = observer();
        assert_eq!(observer.summary().await.unwrap_err(), NoAnswer::Late(limits::ANSWER_WITHIN));
    }
}

//! BGP's thread: the speaker, and the bytes that peers send it.
//!
//! ```text
//!   readers of connections ── bytes ──► thread "bgp" ── what it says ──► event loop: RIB, tables ── bytes ──► writers
//!                                            ▲                                 │
//!                                            └──────── told, and asked ────────┘
//! ```
//! Two threads, so that what BGP makes of one part of a table and what becomes of another part in RIB and tables go on side by
//! side; and the parser of what the world sends has no capability at all.
//!
//! The event loop carries out everything that the speaker says, in the order in which it is said: an announcement leaves after
//! the routes that were said before it are in the fast path's tables. A withdrawal waits for nothing: routes that are gone are
//! taken out of the tables after peers have been told, who send fewer packets from then on.
//!
//! The loop may wait for the thread ([`BgpThread::ask`], [`BgpThread::catch_up`], and whenever [`ORDERS`] wait), never the other
//! way round: where nobody takes what is said, the thread keeps it and hears no more bytes, which TCP tells the peers; but it
//! heeds the loop. So neither can hold up the other for good.

use std::cell::Cell;
use std::io;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bgp::{BestPath, ConnectionId, Input, Output, Speaker, SpeakerConfig};
use model::Prefix;
use tokio::runtime::Builder;
use tokio::sync::mpsc;
use tokio::task::yield_now;
use tokio::time::sleep_until;

use crate::bgp_routes::{Nexthops, nexthops};

/// Reads of connections that may wait, each of at most 64 KiB: some ten milliseconds' work. TCP holds back whoever sends more.
const HEARD: usize = 16;
/// Batches of what is said that may wait for the event loop: one that it carries out, one that is ready then.
const SAID: usize = 4;
/// Orders that may wait. A loop that has more of them, as where thousands of neighbours are new at once, waits for its turn.
const ORDERS: usize = 1024;
/// Portions of work that are done one after the other before something more is heard: as many as one read gives to do, where
/// peers are few enough. So the loop has its part early, and nobody who has something to say waits for long.
const PORTIONS: usize = 8;
/// Beyond so many things said that nobody takes, no more bytes are heard. What one read may add comes on top: 16,000 routes.
const UNSAID: usize = 16 * 1024;

/// One thing that the speaker says, or that is heard of connections.
#[derive(Debug)]
pub enum Said {
    /// The routes to a prefix are now others.
    Route {
        /// To where.
        prefix: Prefix,
        /// Which: see [`Speech::lead`].
        lead: LeadNumber,
    },
    /// The other end closed a connection, or it broke. The speaker knows.
    Closed {
        /// Which.
        connection: ConnectionId,
        /// Why, where it wasn't an orderly end.
        error: Option<io::Error>,
    },
    /// Everything else.
    Output(Box<Output>),
}

// A million of them go from one core to another when a table comes or goes.
const _: () = assert!(size_of::<Said>() == 24);

impl Said {
    /// Whose route has changed, where it is that.
    pub fn prefix(&self) -> Option<Prefix> {
        match self {
            Said::Route { prefix, .. } => Some(*prefix),
            Said::Closed { .. } | Said::Output(_) => None,
        }
    }
}

/// Where the routes to a prefix lead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lead {
    /// By these next hops, at least one.
    pub nexthops: Nexthops,
    /// The best path's degree of preference.
    pub local_pref: u32,
    /// Packets there are to be dropped.
    pub discard: bool,
}

/// The place of a [`Lead`] in its speech, or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeadNumber(u32);

/// What is said in one go, in order.
#[derive(Debug, Default)]
pub struct Speech {
    said: Vec<Said>,
    /// Where routes lead; those one after the other that lead the same way share it.
    leads: Vec<Lead>,
}

impl Speech {
    /// Where a route leads; `None` where it is withdrawn.
    pub fn lead(&self, number: LeadNumber) -> Option<&Lead> {
        self.leads.get(number.0 as usize)
    }

    /// All of it, which [`Self::lead`] is asked about.
    pub fn take(&mut self) -> Vec<Said> {
        std::mem::take(&mut self.said)
    }

    /// Puts an output of the speaker's in. Lists of paths end here, where they were made: memory that one thread takes and
    /// another gives back is slow.
    fn push(&mut self, output: Output) {
        let said = match output {
            Output::RouteChanged { prefix, paths } => Said::Route { prefix, lead: self.number(&paths) },
            output => Said::Output(Box::new(output)),
        };
        self.said.push(said);
    }

    fn number(&mut self, paths: &[BestPath]) -> LeadNumber {
        let Some(best) = paths.first() else { return LeadNumber(u32::MAX) };
        let lead = Lead { nexthops: nexthops(paths), local_pref: best.local_pref, discard: best.discard };
        if self.leads.last() != Some(&lead) {
            self.leads.push(lead);
        }
        LeadNumber(self.leads.len() as u32 - 1)
    }

    /// Says the rest after it.
    fn append(&mut self, rest: Speech) {
        let before = self.leads.len() as u32;
        self.leads.extend(rest.leads);
        self.said.extend(rest.said.into_iter().map(|said| match said {
            Said::Route { prefix, lead: LeadNumber(number) } => {
                Said::Route { prefix, lead: LeadNumber(number.saturating_add(before)) }
            }
            other => other,
        }));
    }

    fn len(&self) -> usize {
        self.said.len()
    }

    fn is_empty(&self) -> bool {
        self.said.is_empty()
    }
}

/// What a connection's reader has for the speaker.
#[derive(Debug)]
pub enum Heard {
    /// Bytes, in order, none missing.
    Bytes {
        /// Whose.
        connection: ConnectionId,
        /// What.
        bytes: Vec<u8>,
    },
    /// The other end closed the connection, or it broke.
    End {
        /// Which.
        connection: ConnectionId,
        /// Why, where it wasn't an orderly end.
        error: Option<io::Error>,
    },
    /// Everything before this was read by then; see [`mark_time`].
    Until(Instant),
}

/// How often it is said how far readers are: often enough for the shortest hold time, which is 3 s.
const MARK_EVERY: Duration = Duration::from_millis(100);

/// Goes on telling how far readers are, which run where this does: what stands in the queue, or hasn't been read as nobody's
/// turn has come, is no peer's silence.
pub async fn mark_time(heard: mpsc::Sender<Heard>) {
    let mut before = Instant::now();
    loop {
        tokio::time::sleep(MARK_EVERY).await;
        let now = Instant::now();
        // Whoever had something to read before the last mark has had its turn by now; since then perhaps not.
        if heard.send(Heard::Until(before)).await.is_err() {
            return;
        }
        before = now;
    }
}

/// A question, and what takes the answer away.
type Question = Box<dyn FnOnce(&Speaker) + Send>;

enum Order {
    /// Another speaker takes the place of the one before, or none.
    Begin(Option<Box<SpeakerConfig>>),
    Tell(Box<Input<'static>>),
    Ask(Question),
    /// Hand out what nobody has taken yet.
    CatchUp(std::sync::mpsc::SyncSender<Speech>),
    /// Say that everything before this has been heeded.
    Heeded(std::sync::mpsc::SyncSender<()>),
}

/// The event loop's end.
pub struct BgpThread {
    /// Its last place is for [`Order::Heeded`].
    orders: mpsc::Sender<Order>,
    /// How often there was no other place left.
    orders_full: Cell<u64>,
    said: mpsc::Receiver<Speech>,
    /// Lists that are empty again: while a table loads, memory of theirs would be taken and given back all the time.
    empty: mpsc::Sender<Speech>,
    heard: mpsc::Sender<Heard>,
    has_speaker: bool,
    thread: Option<JoinHandle<()>>,
}

impl BgpThread {
    /// Starts the thread, without a speaker.
    ///
    /// # Errors
    /// Where there can be no thread, or no timers for it.
    pub fn start() -> io::Result<BgpThread> {
        let runtime = Builder::new_current_thread().enable_time().build()?;
        let (orders, to_obey) = mpsc::channel(ORDERS);
        let (say, said) = mpsc::channel(SAID);
        let (empty, spare) = mpsc::channel(SAID);
        let (heard, to_hear) = mpsc::channel(HEARD);
        let talk = Talk {
            speaker: None,
            orders: to_obey,
            heard: to_hear,
            say,
            spare,
            outputs: Vec::new(),
            unsaid: Speech::default(),
            is_quiet: false,
            portions: 0,
        };
        let thread = std::thread::Builder::new()
            .name("bgp".to_owned())
            .spawn(move || runtime.block_on(talk.go_on()))?;
        let orders_full = Cell::new(0);
        Ok(BgpThread { orders, orders_full, said, empty, heard, has_speaker: false, thread: Some(thread) })
    }

    /// Where to send what is read of connections.
    pub fn heard(&self) -> &mpsc::Sender<Heard> {
        &self.heard
    }

    /// Another speaker takes the place of the one before, or none. What that one has said is still [`Self::said`].
    pub fn begin(&mut self, config: Option<SpeakerConfig>) {
        self.has_speaker = config.is_some();
        self.order(Order::Begin(config.map(Box::new)));
    }

    /// Is there a speaker?
    pub fn has_speaker(&self) -> bool {
        self.has_speaker
    }

    /// Gives the speaker an input; what it says to it comes later.
    pub fn tell(&self, input: Input<'static>) {
        if self.has_speaker {
            self.order(Order::Tell(Box::new(input)));
        }
    }

    /// Asks the speaker, who has heeded everything that it was told before, and waits for the answer: at most for what the
    /// thread is about right now, some milliseconds. `None` where there is no speaker.
    pub fn ask<T: Send + 'static>(&self, question: impl FnOnce(&Speaker) -> T + Send + 'static) -> Option<T> {
        if !self.has_speaker {
            return None;
        }
        let (answer, answered) = std::sync::mpsc::sync_channel(1);
        self.order(Order::Ask(Box::new(move |speaker| {
            // Whoever asks is waiting.
            let _ = answer.send(question(speaker));
        })));
        answered.recv().ok()
    }

    /// What the speaker has said next; `None` where the thread is gone, which is no state to go on in.
    pub async fn said(&mut self) -> Option<Speech> {
        self.said.recv().await
    }

    /// The same, where there is any already.
    pub fn said_already(&mut self) -> Option<Speech> {
        self.said.try_recv().ok()
    }

    /// Is there any already?
    pub fn has_said(&self) -> bool {
        !self.said.is_empty()
    }

    /// All that the speaker has to say to what it was told before, and hasn't been taken yet; in order where it has nothing to
    /// say by itself meanwhile, as after [`Input::Shutdown`].
    pub fn catch_up(&mut self) -> Speech {
        let (answer, answered) = std::sync::mpsc::sync_channel(1);
        self.order(Order::CatchUp(answer));
        let unsaid = answered.recv().unwrap_or_default();
        let mut all = Speech::default();
        while let Some(speech) = self.said_already() {
            all.append(speech);
        }
        all.append(unsaid);
        all
    }

    /// What was said has been carried out: its lists may be used again.
    pub fn give_back(&self, mut said: Vec<Said>, speech: Speech) {
        let mut leads = speech.leads;
        said.clear();
        leads.clear();
        if said.capacity().max(leads.capacity()) <= 2 * UNSAID {
            // There are enough of them where there is no room.
            let _ = self.empty.try_send(Speech { said, leads });
        }
    }

    /// How often the loop has waited as there was no room for another order.
    pub fn orders_full(&self) -> u64 {
        self.orders_full.get()
    }

    /// Queues an order. Where there is no room for it, waits until all before it are heeded, as a question does.
    fn order(&self, order: Order) {
        // A thread that is gone is found out by whoever waits for what it says.
        if self.orders.capacity() < 2 {
            self.orders_full.set(self.orders_full.get() + 1);
            let (answer, answered) = std::sync::mpsc::sync_channel(1);
            let _ = self.orders.try_send(Order::Heeded(answer));
            let _ = answered.recv();
        }
        // Nobody else gives orders, so the place is still free.
        let _ = self.orders.try_send(order);
    }
}

impl Drop for BgpThread {
    fn drop(&mut self) {
        self.orders = mpsc::channel(1).0;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The thread's own state.
struct Talk {
    speaker: Option<Speaker>,
    orders: mpsc::Receiver<Order>,
    heard: mpsc::Receiver<Heard>,
    say: mpsc::Sender<Speech>,
    spare: mpsc::Receiver<Speech>,
    outputs: Vec<Output>,
    /// Nobody has taken it yet.
    unsaid: Speech,
    /// No route has changed since the last mark.
    is_quiet: bool,
    /// Portions of work done since something was heard.
    portions: usize,
}

impl Talk {
    /// Until the other end of the orders is gone.
    async fn go_on(mut self) {
        let say = self.say.clone();
        loop {
            let far = Instant::now() + Duration::from_secs(3600);
            let deadline = self.speaker.as_ref().and_then(Speaker::next_deadline).unwrap_or(far);
            let hears = self.unsaid.len() < UNSAID;
            let has_work = self.speaker.as_ref().is_some_and(Speaker::has_work);
            let works_on = has_work && self.portions < PORTIONS;
            tokio::select! {
                biased;
                order = self.orders.recv() => match order {
                    Some(order) => self.obey(order),
                    None => return,
                },
                Ok(permit) = say.reserve(), if !self.unsaid.is_empty() => {
                    permit.send(self.take_unsaid());
                }
                () = turn(has_work, deadline), if hears => {
                    self.portions += 1;
                    self.give(Input::Tick);
                }
                Some(heard) = self.heard.recv(), if hears && !works_on => {
                    self.portions = 0;
                    self.hear(heard);
                }
            }
            if !self.unsaid.is_empty()
                && let Ok(permit) = say.try_reserve()
            {
                permit.send(self.take_unsaid());
            }
        }
    }

    fn take_unsaid(&mut self) -> Speech {
        let spare = self.spare.try_recv().unwrap_or_default();
        std::mem::replace(&mut self.unsaid, spare)
    }

    fn obey(&mut self, order: Order) {
        match order {
            Order::Begin(config) => self.speaker = config.map(|config| Speaker::new(*config)),
            Order::Tell(input) => self.give(*input),
            Order::Ask(question) => {
                if let Some(speaker) = &self.speaker {
                    question(speaker);
                }
            }
            Order::CatchUp(answer) => {
                // Whoever asks is waiting.
                let _ = answer.send(self.take_unsaid());
            }
            Order::Heeded(answer) => {
                // Likewise.
                let _ = answer.send(());
            }
        }
    }

    fn hear(&mut self, heard: Heard) {
        // Of a connection that is new, the speaker was told before anything was read.
        while let Ok(order) = self.orders.try_recv() {
            self.obey(order);
        }
        match heard {
            Heard::Bytes { connection, bytes } => self.give(Input::Received { connection, bytes: &bytes }),
            Heard::Until(at) => {
                let was_quiet = std::mem::replace(&mut self.is_quiet, true);
                if let Some(speaker) = &mut self.speaker {
                    speaker.heard_until(at);
                    if was_quiet && self.unsaid.is_empty() {
                        speaker.rest();
                    }
                }
            }
            Heard::End { connection, error } => {
                self.unsaid.said.push(Said::Closed { connection, error });
                self.give(Input::ConnectionClosed { connection });
            }
        }
    }

    fn give(&mut self, input: Input<'_>) {
        let Some(speaker) = &mut self.speaker else { return };
        speaker.handle(input, Instant::now(), &mut self.outputs);
        let before = self.unsaid.len();
        self.outputs.drain(..).for_each(|output| self.unsaid.push(output));
        // Of many peers some keepalive always comes: that is quiet, too.
        self.is_quiet &= self.unsaid.said[before..].iter().all(|said| said.prefix().is_none());
    }
}

/// Comes with the deadline, or at once where work is left: timers count in milliseconds, and a table is hundreds of portions.
async fn turn(has_work: bool, deadline: Instant) {
    if has_work {
        yield_now().await;
    } else {
        sleep_until(deadline.into()).await;
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use bgp::{PeerConfig, PeerId};
    use model::AsNumber;

    fn thread() -> BgpThread {
        let mut thread = BgpThread::start().unwrap();
        thread.begin(Some(SpeakerConfig::new([10, 0, 0, 1].into(), AsNumber(65000))));
        thread
    }

    fn peer() -> Input<'static> {
        Input::PutPeer(PeerConfig::new(PeerId(1), [10, 0, 0, 2].into(), AsNumber(65001)))
    }

    /// Keeps the thread busy until it is told to go on.
    fn hold(thread: &BgpThread) -> std::sync::mpsc::SyncSender<()> {
        let (begin, begun) = std::sync::mpsc::sync_channel(0);
        let (go_on, may_go_on) = std::sync::mpsc::sync_channel::<()>(0);
        thread.order(Order::Ask(Box::new(move |_| {
            begin.send(()).unwrap();
            may_go_on.recv().unwrap();
        })));
        begun.recv().unwrap();
        go_on
    }

    #[test]
    fn whoever_catches_up_has_what_was_said_to_all_that_was_told() {
        let mut thread = thread();
        thread.tell(peer());
        let said = thread.catch_up().take();
        let started = |said: &Said| matches!(said, Said::Output(output) if matches!(**output, Output::PeerStateChanged { .. }));
        assert_eq!(said.iter().filter(|said| started(said)).count(), 1, "{said:?}");
    }

    #[test]
    fn routes_lead_where_they_did_when_speeches_are_put_together() {
        let path = |last: u8| BestPath {
            nexthop: [10, 0, 0, last].into(),
            peer: PeerId(1),
            kind: bgp::PeerKind::Ebgp,
            local_pref: 100,
            med: None,
            bandwidth: None,
            discard: false,
        };
        let mut speech = Speech::default();
        for lasts in [&[1, 1, 0, 2][..], &[], &[1, 0, 2, 2]] {
            let mut next = Speech::default();
            for last in lasts {
                let paths = [*last].into_iter().filter(|last| *last > 0).map(path).collect::<Vec<_>>().into();
                next.push(Output::RouteChanged { prefix: Prefix::DEFAULT_V4, paths });
            }
            assert!(next.leads.len() <= 2, "neighbours share them");
            speech.append(next);
        }
        let said = speech.take();
        let lead = |said: Said| match said {
            Said::Route { lead, .. } => speech.lead(lead).map(|lead| lead.nexthops.clone()),
            other => panic!("{other:?}"),
        };
        let led: Vec<Option<Nexthops>> = said.into_iter().map(lead).collect();
        let expected = [1, 1, 0, 2, 1, 0, 2, 2].map(|last| (last > 0).then(|| nexthops(&[path(last)])));
        assert_eq!(led, expected);
    }

    #[test]
    fn a_question_comes_after_what_was_told_before_it() {
        let mut thread = thread();
        thread.tell(peer());
        let now = Instant::now();
        assert_eq!(thread.ask(move |speaker| speaker.peers(now).count()), Some(1));
        // Another speaker knows nothing of the former one's peers.
        thread.begin(Some(SpeakerConfig::new([10, 0, 0, 3].into(), AsNumber(65000))));
        assert_eq!(thread.ask(move |speaker| speaker.peers(now).count()), Some(0));
        thread.begin(None);
        thread.tell(peer());
        assert_eq!(thread.ask(move |speaker| speaker.peers(now).count()), None, "there is nobody to ask");
    }

    #[test]
    fn orders_beyond_the_queue_wait_for_their_turn_and_none_is_lost() {
        // All that the speaker takes, so that one that is lost is missed.
        const MANY: u32 = 4 * ORDERS as u32;
        let thread = thread();
        // Nobody takes what is said: the thread heeds the loop all the same.
        for number in 0..MANY {
            let (id, address) = (PeerId(number + 1), std::net::Ipv4Addr::from(0x0a01_0000 + number));
            thread.tell(Input::PutPeer(PeerConfig::new(id, address.into(), AsNumber(65001))));
        }
        let now = Instant::now();
        let peers = thread.ask(move |speaker| speaker.peers(now).count());
        assert_eq!(peers, Some(MANY as usize));
    }

    #[test]
    fn a_loop_that_finds_no_room_waits_until_all_before_is_heeded_and_counts_it() {
        let thread = thread();
        let go_on = hold(&thread);
        let heeded = Arc::new(AtomicUsize::new(0));
        let count = || {
            let heeded = Arc::clone(&heeded);
            Order::Ask(Box::new(move |_| {
                heeded.fetch_add(1, Ordering::Relaxed);
            }))
        };
        for _ in 0..ORDERS - 1 {
            thread.order(count());
        }
        assert_eq!((heeded.load(Ordering::Relaxed), thread.orders_full()), (0, 0), "the thread is busy");
        let orders = thread.orders.clone();
        let letting_go = std::thread::spawn(move || {
            // The mark has taken the last place: whoever gives orders waits.
            while orders.capacity() > 0 {
                std::thread::yield_now();
            }
            go_on.send(()).unwrap();
        });
        thread.order(count());
        assert_eq!(thread.orders_full(), 1);
        assert!(heeded.load(Ordering::Relaxed) >= ORDERS - 1, "those before it");
        letting_go.join().unwrap();
    }

    fn message(kind: u8, body: &[u8]) -> Vec<u8> {
        let len = (19 + body.len()) as u16;
        [&[0xff; 16][..], &len.to_be_bytes(), &[kind], body].concat()
    }

    /// An UPDATE with these /32s, by way of the peer.
    fn update(addresses: std::ops::Range<u32>) -> Vec<u8> {
        let path = [0x40, 2, 6, 2, 1, 0, 0, 0xfd, 0xe9];
        let attributes = [&[0x40, 1, 1, 0][..], &path, &[0x40, 3, 4, 10, 0, 0, 2]].concat();
        let mut body = [&[0; 2][..], &(attributes.len() as u16).to_be_bytes(), &attributes].concat();
        for address in addresses {
            body.push(32);
            body.extend(address.to_be_bytes());
        }
        message(2, &body)
    }

    #[test]
    fn work_that_is_left_comes_before_more_is_heard_but_not_all_of_it() {
        // At least so many prefixes are decided in one go.
        const PORTION: usize = 64;
        const MANY: usize = PORTION * 4 * PORTIONS;
        let mut thread = thread();
        let mut config = SpeakerConfig::new([10, 0, 0, 1].into(), AsNumber(65000));
        config.limits.work_per_call = PORTION;
        thread.begin(Some(config));
        let mut peer = PeerConfig::new(PeerId(1), [10, 0, 0, 2].into(), AsNumber(65001));
        (peer.passive, peer.policy_required) = (true, false);
        thread.tell(Input::PutPeer(peer));
        let connection = ConnectionId(1);
        let (direction, local) = (bgp::Direction::Inbound, ([10, 0, 0, 1], 179).into());
        thread.tell(Input::ConnectionOpened { peer: PeerId(1), connection, direction, local });
        let heard = thread.heard().clone();
        let hear = |bytes| heard.blocking_send(Heard::Bytes { connection, bytes }).unwrap();
        let capabilities = [2, 12, 1, 4, 0, 1, 0, 1, 65, 4, 0, 0, 0xfd, 0xe9];
        let open =
            [&[4, 0xfd, 0xe9, 0, 0, 10, 0, 0, 2, capabilities.len() as u8][..], &capabilities].concat();
        hear([message(1, &open), message(4, &[]), update(0x0b00_0000..0x0b00_0001)].concat());
        let mut said = Vec::new();
        let watches =
            |said: &Said| matches!(said, Said::Output(output) if matches!(**output, Output::WatchNexthop(_)));
        while !said.iter().any(watches) {
            said.extend(thread.said.blocking_recv().unwrap().take());
        }
        thread.tell(Input::NexthopChanged { nexthop: [10, 0, 0, 2].into(), metric: Some(0) });
        let updates =
            (0..MANY as u32).step_by(512).map(|at| update(0x0a00_0000 + at..0x0a00_0000 + at + 512));
        // Both are there before either is heard.
        let go_on = hold(&thread);
        hear(updates.collect::<Vec<_>>().concat());
        heard.blocking_send(Heard::End { connection: ConnectionId(2), error: None }).unwrap();
        go_on.send(()).unwrap();
        let is_of_table =
            |said: &Said| said.prefix().is_some_and(|prefix| prefix.addr() < IpAddr::from([11, 0, 0, 0]));
        let (mut routes, mut before_the_end) = (0, None);
        while routes < MANY {
            for said in thread.said.blocking_recv().unwrap().take() {
                routes += usize::from(is_of_table(&said));
                if matches!(said, Said::Closed { .. }) {
                    before_the_end = Some(routes);
                }
            }
        }
        let before_the_end = before_the_end.expect("it was heard before all was done");
        assert!(
            (PORTIONS * PORTION..MANY).contains(&before_the_end),
            "{before_the_end} of {MANY} came before it"
        );
    }

    #[test]
    fn work_that_is_left_waits_for_no_timer() {
        // A runtime that has none.
        let runtime = Builder::new_current_thread().build().unwrap();
        runtime.block_on(turn(true, Instant::now()));
    }

    #[test]
    fn bytes_wait_while_nobody_takes_what_is_said_and_questions_do_not() {
        const MANY: u64 = 3 * UNSAID as u64;
        let mut thread = thread();
        let heard = thread.heard().clone();
        let reading = std::thread::spawn({
            let heard = heard.clone();
            move || {
                for connection in (0..MANY).map(ConnectionId) {
                    heard.blocking_send(Heard::End { connection, error: None }).unwrap();
                }
            }
        });
        while heard.capacity() > 0 || thread.said.len() < SAID {
            std::thread::yield_now();
        }
        assert!(!reading.is_finished(), "the queues are bounded");
        assert!(thread.ask(|_| ()).is_some());
        let mut closed = Vec::new();
        while closed.len() < MANY as usize {
            let Some(mut speech) = thread.said.blocking_recv() else { panic!("the thread goes on") };
            closed.extend(speech.take().into_iter().filter_map(|said| match said {
                Said::Closed { connection, .. } => Some(connection.0),
                _ => None,
            }));
        }
        assert_eq!(closed, (0..MANY).collect::<Vec<_>>());
        reading.join().unwrap();
    }
}

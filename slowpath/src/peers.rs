//! TCP around the BGP speaker: the only code of BGP that touches a socket.
//!
//! Each connection has two tasks. One reads, and sends [`Heard`] to BGP's thread; that queue is bounded, so a peer
//! that sends faster than the speaker works is held back by TCP. The other writes what the speaker sends; when its
//! queue grows beyond [`QUEUE_HIGH`] the speaker is told to pause its announcements to that peer.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bgp::{ConnectionId, Direction, Password, PeerConfig, PeerId};
use model::{Family, Prefix};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::AsyncWriteExt;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinHandle};
use tokio::time::timeout;

use crate::bgp_thread::Heard;
use crate::event::Event;
use crate::former_settings::FormerSettings;
use crate::privileges::raised;
use crate::session_guard::{SessionGuards, SocketOptions, send_furthest};

/// Bytes read at once.
const READ_BYTES: usize = 64 * 1024;
/// Bytes waiting to be written beyond which a peer counts as congested.
const QUEUE_HIGH: usize = 4 * 1024 * 1024;
/// Bytes waiting below which it no longer does.
const QUEUE_LOW: usize = 1024 * 1024;
/// How long an attempt to connect may take before the speaker tries again.
const CONNECT_WITHIN: Duration = Duration::from_secs(10);
/// How long a closed connection may take to send its last messages.
const CLOSE_WITHIN: Duration = Duration::from_secs(5);

/// Why the BGP port can't be opened.
#[derive(Debug, thiserror::Error)]
#[error("can't listen for BGP on {address}: {error}; is another BGP speaker running here?")]
pub struct ListenError {
    /// Where.
    pub address: SocketAddr,
    /// What the kernel said.
    pub error: io::Error,
}

struct Connection {
    queue: mpsc::UnboundedSender<Vec<u8>>,
    queued: Arc<AtomicUsize>,
    congested: bool,
    /// Nobody reads it yet.
    unread: Option<OwnedReadHalf>,
    reader: Option<AbortHandle>,
    writer: JoinHandle<()>,
}

/// One attempt to connect; never given to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AttemptId(u64);

/// An attempt under way.
struct Attempt {
    id: AttemptId,
    remote: SocketAddr,
    local: Option<IpAddr>,
    task: AbortHandle,
}

/// A listening socket, and the task that accepts on it.
struct Listening {
    listener: Arc<TcpListener>,
    task: AbortHandle,
}

/// All TCP connections of the speaker, and its listening sockets.
pub struct Peers {
    events: mpsc::Sender<Event>,
    heard: mpsc::Sender<Heard>,
    /// At most one a peer: the last that the speaker asked for.
    attempts: HashMap<PeerId, Attempt>,
    next_attempt: u64,
    connections: HashMap<ConnectionId, Connection>,
    next_connection: u64,
    listening: Option<(Vec<SocketAddr>, Vec<Listening>)>,
    guards: SessionGuards,
    closing: Vec<JoinHandle<()>>,
}

impl Peers {
    /// No connections yet; what is read of them is sent to `heard`, everything else that happens to `events`. Settings of the
    /// kernel that are to be changed are noted in `former`.
    pub fn new(
        events: mpsc::Sender<Event>,
        heard: mpsc::Sender<Heard>,
        options: Arc<dyn SocketOptions>,
        former: FormerSettings,
    ) -> Peers {
        Peers {
            events,
            heard,
            attempts: HashMap::new(),
            next_attempt: 0,
            connections: HashMap::new(),
            next_connection: 0,
            listening: None,
            guards: SessionGuards::new(options, former),
            closing: Vec::new(),
        }
    }

    /// Listens on these addresses, in place of those before. No-op for the same ones. IPv6's may be missing: a host without
    /// IPv6 has no such socket to give.
    ///
    /// # Errors
    /// Where an address of IPv4 can't be had, or none at all.
    pub fn listen(&mut self, addresses: &[SocketAddr]) -> Result<(), ListenError> {
        if self.listening.as_ref().is_some_and(|(listening, _)| listening == addresses) {
            return Ok(());
        }
        if let Some((_, listening)) = self.listening.take() {
            listening.iter().for_each(|listening| listening.task.abort());
        }
        let mut listeners = Vec::new();
        for address in addresses {
            match listener(*address) {
                Ok(listener) => listeners.push(Arc::new(listener)),
                Err(_) if address.is_ipv6() && addresses.len() > 1 => {}
                Err(error) => return Err(ListenError { address: *address, error }),
            }
        }
        // Before anybody is let in.
        self.guards.listen_anew(listeners.iter().map(|listener| &**listener));
        let accepting = listeners.into_iter().map(|listener| self.accept_on(listener)).collect();
        self.listening = Some((addresses.to_vec(), accepting));
        Ok(())
    }

    fn accept_on(&self, listener: Arc<TcpListener>) -> Listening {
        let accepting = Arc::clone(&listener);
        let events = self.events.clone();
        let task = tokio::spawn(async move {
            loop {
                match accepting.accept().await {
                    Ok((stream, remote)) => {
                        if events.send(Event::Accepted { stream, remote }).await.is_err() {
                            return;
                        }
                    }
                    // Out of descriptors, or the peer gave up at once: neither ends the listening.
                    Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
                }
            }
        });
        Listening { listener, task: task.abort_handle() }
    }

    /// Whoever connects from these ranges must have their passwords from now on.
    pub fn guard_ranges(&mut self, passwords: BTreeMap<Prefix, Password>) {
        let listening =
            self.listening.as_ref().map(|(_, listening)| listening.as_slice()).unwrap_or_default();
        self.guards.put_ranges(passwords, listening.iter().map(|listening| &*listening.listener));
    }

    /// The peer's connections are guarded so from now on; those that stand stay as they are.
    pub fn guard(&mut self, config: &PeerConfig) {
        let listening =
            self.listening.as_ref().map(|(_, listening)| listening.as_slice()).unwrap_or_default();
        let listeners = listening.iter().map(|listening| &*listening.listener);
        self.guards.put(config.id, config.address, &config.guard, listeners);
    }

    /// The peer is none any more.
    pub fn forget(&mut self, peer: PeerId) {
        self.give_up(peer);
        let listening =
            self.listening.as_ref().map(|(_, listening)| listening.as_slice()).unwrap_or_default();
        self.guards.remove(peer, listening.iter().map(|listening| &*listening.listener));
    }

    /// Has somebody who has connected come from within these hops? Asked once of a connection, before it is read.
    pub fn has_come_from_near(&self, stream: &TcpStream, ttl_security: Option<u8>) -> bool {
        self.guards.has_come_from_near(stream, ttl_security)
    }

    /// What may keep a peer from answering, besides that it isn't there.
    pub fn hint(&self, peer: PeerId) -> Option<&'static str> {
        self.guards.hint(peer)
    }

    /// Connects in the background and tells how it went. A former attempt for the peer is given up.
    pub fn connect(&mut self, peer: PeerId, remote: SocketAddr, local: Option<IpAddr>) {
        self.give_up(peer);
        let id = AttemptId(self.next_attempt);
        self.next_attempt += 1;
        let events = self.events.clone();
        let socket = connecting(remote, local).and_then(|socket| {
            self.guards.guard_connecting(peer, &socket)?;
            Ok(socket)
        });
        let task = tokio::spawn(async move {
            let outcome = match socket {
                Ok(socket) => timeout(CONNECT_WITHIN, socket.connect(remote)).await,
                Err(error) => Ok(Err(error)),
            };
            let outcome = outcome.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
            let event = match outcome {
                Ok(stream) => Event::Connected { attempt: id, stream },
                Err(error) => Event::ConnectFailed { attempt: id, error },
            };
            // The loop ended: nobody waits for the answer.
            let _ = events.send(event).await;
        });
        self.attempts.insert(peer, Attempt { id, remote, local, task: task.abort_handle() });
    }

    /// The peer now is at `remote` and to be reached from `local`: an attempt elsewhere is given up.
    pub fn retarget(&mut self, peer: PeerId, remote: SocketAddr, local: Option<IpAddr>) {
        if self.attempts.get(&peer).is_some_and(|attempt| (attempt.remote, attempt.local) != (remote, local))
        {
            self.give_up(peer);
        }
    }

    /// Gives up the attempt for a peer, if there is one. Its outcome may be on the way: see [`Self::conclude`].
    pub fn give_up(&mut self, peer: PeerId) {
        if let Some(attempt) = self.attempts.remove(&peer) {
            attempt.task.abort();
        }
    }

    /// Gives up every attempt.
    pub fn give_up_all(&mut self) {
        self.attempts.drain().for_each(|(_, attempt)| attempt.task.abort());
    }

    /// Whose attempt has come to its end; `None` where it was given up, and its outcome is nobody's.
    pub fn conclude(&mut self, attempt: AttemptId) -> Option<PeerId> {
        let peer = self.attempts.iter().find(|(_, open)| open.id == attempt).map(|(peer, _)| *peer)?;
        self.attempts.remove(&peer);
        Some(peer)
    }

    /// Takes a peer's connection over: it can be sent to from now on, and be [read](Self::read).
    ///
    /// # Errors
    /// Where the connection is already gone, or can't be guarded as it should.
    pub fn adopt(
        &mut self,
        peer: PeerId,
        stream: TcpStream,
        direction: Direction,
    ) -> io::Result<(ConnectionId, SocketAddr)> {
        if direction == Direction::Inbound {
            self.guards.guard_accepted(peer, &stream)?;
        }
        stream.set_nodelay(true)?;
        let local = stream.local_addr()?;
        let connection = ConnectionId(self.next_connection);
        self.next_connection += 1;
        let (read, write) = stream.into_split();
        let (queue, waiting) = mpsc::unbounded_channel();
        let queued = Arc::new(AtomicUsize::new(0));
        let writing = write_all(connection, write, waiting, Arc::clone(&queued), self.events.clone());
        let writer = tokio::spawn(writing);
        let (unread, reader) = (Some(read), None);
        let open = Connection { queue, queued, congested: false, unread, reader, writer };
        self.connections.insert(connection, open);
        Ok((connection, local))
    }

    /// Begins to read a connection: the speaker knows whose it is.
    pub fn read(&mut self, connection: ConnectionId) {
        let Some(open) = self.connections.get_mut(&connection) else { return };
        if let Some(read) = open.unread.take() {
            let reading = read_all(connection, read, self.heard.clone());
            open.reader = Some(tokio::spawn(reading).abort_handle());
        }
    }

    /// Queues bytes; `true` where the connection has just become congested.
    pub fn send(&mut self, connection: ConnectionId, bytes: Vec<u8>) -> bool {
        let Some(open) = self.connections.get_mut(&connection) else { return false };
        let queued = open.queued.fetch_add(bytes.len(), Ordering::Relaxed) + bytes.len();
        // A writer that ended has told so; its event is on the way.
        let _ = open.queue.send(bytes);
        let became = queued > QUEUE_HIGH && !open.congested;
        open.congested |= became;
        became
    }

    /// A connection's queue has room again; `false` where it is unknown or wasn't congested.
    pub fn drained(&mut self, connection: ConnectionId) -> bool {
        self.connections.get_mut(&connection).is_some_and(|open| std::mem::take(&mut open.congested))
    }

    /// Closes a connection once everything sent is written.
    pub fn close(&mut self, connection: ConnectionId) {
        if let Some(open) = self.connections.remove(&connection) {
            open.reader.iter().for_each(AbortHandle::abort);
            // The writer ends when its queue does.
            self.closing.retain(|task| !task.is_finished());
            self.closing.push(open.writer);
        }
    }

    /// Waits until every closed connection has sent its last messages.
    pub async fn flush(&mut self) {
        for task in self.closing.drain(..) {
            // Cut off by its own time limit at the latest.
            let _ = task.await;
        }
    }
}

impl Drop for Peers {
    fn drop(&mut self) {
        if let Some((_, listening)) = &self.listening {
            listening.iter().for_each(|listening| listening.task.abort());
        }
        self.connections.values().flat_map(|open| &open.reader).for_each(AbortHandle::abort);
        self.attempts.values().for_each(|attempt| attempt.task.abort());
    }
}

fn listener(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    // A port below 1024.
    raised(|| socket.bind(&address.into()))?;
    // A peer that asks for it wants even our answer to its SYN to come from near.
    send_furthest(&socket, Family::of(address.ip()))?;
    socket.listen(1024)?;
    TcpListener::from_std(socket.into())
}

/// A socket that is to connect there.
fn connecting(remote: SocketAddr, local: Option<IpAddr>) -> io::Result<TcpSocket> {
    let socket = if remote.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    if let Some(local) = local {
        socket.bind(SocketAddr::new(local, 0))?;
    }
    Ok(socket)
}

async fn read_all(connection: ConnectionId, read: OwnedReadHalf, heard: mpsc::Sender<Heard>) {
    let error = loop {
        match read_some(&read).await {
            Ok(bytes) if bytes.is_empty() => break None,
            Ok(bytes) => {
                if heard.send(Heard::Bytes { connection, bytes }).await.is_err() {
                    return;
                }
            }
            Err(error) => break Some(error),
        }
    };
    // The thread ended: nobody waits for the news.
    let _ = heard.send(Heard::End { connection, error }).await;
}

/// What there is to read, as soon as there is something; nothing at the end. Memory is taken no earlier: of a thousand peers most
/// are silent.
async fn read_some(read: &OwnedReadHalf) -> io::Result<Vec<u8>> {
    loop {
        read.readable().await?;
        let mut bytes = Vec::with_capacity(READ_BYTES);
        match read.try_read_buf(&mut bytes) {
            Ok(_) => {
                bytes.shrink_to_fit();
                return Ok(bytes);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
}

async fn write_all(
    connection: ConnectionId,
    mut write: OwnedWriteHalf,
    mut waiting: mpsc::UnboundedReceiver<Vec<u8>>,
    queued: Arc<AtomicUsize>,
    events: mpsc::Sender<Event>,
) {
    while let Some(bytes) = waiting.recv().await {
        // While the connection is open there is no limit: the hold timer ends a peer that takes nothing.
        let written = if waiting.is_closed() {
            timeout(CLOSE_WITHIN, write.write_all(&bytes))
                .await
                .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
        } else {
            write.write_all(&bytes).await
        };
        let before = queued.fetch_sub(bytes.len(), Ordering::Relaxed);
        if written.is_err() {
            // The reader sees the same end and tells of it.
            return;
        }
        let crossed = before >= QUEUE_LOW && before - bytes.len() < QUEUE_LOW;
        if crossed && events.send(Event::Drained { connection }).await.is_err() {
            return;
        }
    }
    let _ = write.shutdown().await;
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;

    use super::*;
    use crate::session_guard::tests::{Noted, nowhere};

    /// With two peers on loopback, of which nothing is heard.
    fn peers(events: mpsc::Sender<Event>) -> Peers {
        peers_heard(events, mpsc::channel(1).0)
    }

    fn peers_heard(events: mpsc::Sender<Event>, heard: mpsc::Sender<Heard>) -> Peers {
        let mut peers = Peers::new(events, heard, Arc::new(Noted::default()), nowhere());
        for id in [PeerId(1), PeerId(2)] {
            peers.guard(&PeerConfig::new(id, [127, 0, 0, 1].into(), model::AsNumber(65001)));
        }
        peers
    }

    fn on_loopback<T>(test: impl AsyncFnOnce() -> T) -> T {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test())
    }

    async fn next<T>(queue: &mut mpsc::Receiver<T>) -> T {
        timeout(Duration::from_secs(60), queue.recv()).await.expect("in time").expect("the queue is open")
    }

    #[test]
    fn bytes_cross_a_connection_and_the_last_ones_before_its_end() {
        on_loopback(async || {
            let (sender, mut events) = mpsc::channel(16);
            let (heard, mut to_hear) = mpsc::channel(16);
            let mut peers = peers_heard(sender, heard);
            let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
            peers.connect(PeerId(1), server.local_addr().unwrap(), None);
            let Event::Connected { stream, .. } = next(&mut events).await else { panic!("connects") };
            let (connection, _) = peers.adopt(PeerId(1), stream, Direction::Outbound).unwrap();
            let (mut far, _) = server.accept().await.unwrap();
            far.write_all(b"hello").await.unwrap();
            peers.read(connection);
            let Heard::Bytes { bytes, .. } = next(&mut to_hear).await else { panic!("receives") };
            assert_eq!(bytes, b"hello");
            peers.send(connection, b"good".to_vec());
            peers.send(connection, b"bye".to_vec());
            peers.close(connection);
            peers.flush().await;
            let mut all = Vec::new();
            far.read_to_end(&mut all).await.unwrap();
            assert_eq!(all, b"goodbye");
        });
    }

    #[test]
    fn all_that_is_sent_is_heard_in_order_and_then_the_end() {
        on_loopback(async || {
            let (sender, mut events) = mpsc::channel(16);
            let (heard, mut to_hear) = mpsc::channel(1);
            let mut peers = peers_heard(sender, heard);
            let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
            peers.connect(PeerId(1), server.local_addr().unwrap(), None);
            let Event::Connected { stream, .. } = next(&mut events).await else { panic!("connects") };
            let (connection, _) = peers.adopt(PeerId(1), stream, Direction::Outbound).unwrap();
            peers.read(connection);
            let (mut far, _) = server.accept().await.unwrap();
            // More than one read's.
            let sent: Vec<u8> = (0..5 * READ_BYTES).map(|at| (at / 3) as u8).collect();
            let to_send = sent.clone();
            let sending = tokio::spawn(async move {
                far.write_all(&to_send).await.unwrap();
            });
            let mut all = Vec::new();
            loop {
                match next(&mut to_hear).await {
                    Heard::Bytes { bytes, .. } => {
                        assert!((1..=READ_BYTES).contains(&bytes.len()));
                        assert_eq!(bytes.capacity(), bytes.len(), "no more memory than there are bytes");
                        all.extend(bytes);
                    }
                    Heard::End { error, .. } => break assert!(error.is_none(), "{error:?}"),
                    other => panic!("{other:?}"),
                }
            }
            assert!(all == sent);
            sending.await.unwrap();
        });
    }

    #[test]
    fn a_refused_connection_is_told() {
        on_loopback(async || {
            let (sender, mut events) = mpsc::channel(16);
            let mut peers = peers(sender);
            // Nobody listens there, nor can anybody else.
            let silent = TcpSocket::new_v4().unwrap();
            silent.bind("127.0.0.1:0".parse().unwrap()).unwrap();
            peers.connect(PeerId(1), silent.local_addr().unwrap(), None);
            let Event::ConnectFailed { attempt, .. } = next(&mut events).await else { panic!("fails") };
            assert_eq!(peers.conclude(attempt), Some(PeerId(1)));
            assert_eq!(peers.conclude(attempt), None, "an attempt ends once");
        });
    }

    #[test]
    fn what_comes_of_an_attempt_that_was_given_up_is_nobodys() {
        on_loopback(async || {
            let (sender, mut events) = mpsc::channel(16);
            let mut peers = peers(sender);
            let (before, after) = (
                TcpListener::bind("127.0.0.1:0").await.unwrap(),
                TcpListener::bind("127.0.0.1:0").await.unwrap(),
            );
            let (before, after) = (before.local_addr().unwrap(), after.local_addr().unwrap());
            // Its outcome is in the queue already when the peer moves.
            peers.connect(PeerId(1), before, None);
            let (Event::Connected { attempt: old, .. } | Event::ConnectFailed { attempt: old, .. }) =
                next(&mut events).await
            else {
                panic!("the attempt ends")
            };
            peers.retarget(PeerId(1), after, None);
            assert_eq!(peers.conclude(old), None, "the peer is elsewhere now");

            peers.connect(PeerId(1), after, None);
            let (Event::Connected { attempt: new, .. } | Event::ConnectFailed { attempt: new, .. }) =
                next(&mut events).await
            else {
                panic!("the attempt ends")
            };
            peers.retarget(PeerId(1), after, None);
            assert_eq!(peers.conclude(old), None, "a late outcome is not the new attempt's");
            assert_eq!(peers.conclude(new), Some(PeerId(1)), "the peer is where it was");
        });
    }

    #[test]
    fn an_attempt_asked_for_again_takes_the_former_ones_place() {
        on_loopback(async || {
            let (sender, mut events) = mpsc::channel(16);
            let mut peers = peers(sender);
            let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let remote = server.local_addr().unwrap();
            peers.connect(PeerId(1), remote, None);
            peers.connect(PeerId(1), remote, None);
            peers.connect(PeerId(2), remote, None);
            let mut concluded = Vec::new();
            for _ in 0..2 {
                let Event::Connected { attempt, .. } = next(&mut events).await else { panic!("connects") };
                concluded.extend(peers.conclude(attempt));
            }
            concluded.sort();
            assert_eq!(concluded, [PeerId(1), PeerId(2)]);
            peers.connect(PeerId(1), remote, None);
            peers.give_up_all();
            assert!(peers.attempts.is_empty());
        });
    }

    #[test]
    fn a_peer_that_takes_nothing_is_congested_until_it_does() {
        on_loopback(async || {
            let (sender, mut events) = mpsc::channel(16);
            let mut peers = peers(sender);
            let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let stream = TcpStream::connect(server.local_addr().unwrap()).await.unwrap();
            let (connection, _) = peers.adopt(PeerId(1), stream, Direction::Outbound).unwrap();
            let (mut far, _) = server.accept().await.unwrap();
            let chunk = vec![0; 256 * 1024];
            let mut sent = 0;
            while !peers.send(connection, chunk.clone()) {
                sent += chunk.len();
                assert!(sent <= 2 * QUEUE_HIGH, "the queue is unbounded");
            }
            sent += chunk.len();
            let reading = tokio::spawn(async move {
                let mut left = sent;
                let mut buffer = vec![0; 256 * 1024];
                while left > 0 {
                    left -= far.read(&mut buffer).await.unwrap();
                }
            });
            assert!(matches!(next(&mut events).await, Event::Drained { .. }));
            assert!(peers.drained(connection));
            reading.await.unwrap();
        });
    }
}

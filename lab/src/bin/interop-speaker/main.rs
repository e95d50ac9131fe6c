//! Tortie's BGP room with sockets and nothing else: what the interop matrix sets before the BGP daemons of others.
//!
//! The room's own features can be tried here one by one, also those that no resource of Calico's asks for. A *feeder*
//! is a second speaker in the same process: it has routes of its own, so that there is something to reflect, and more
//! than one path to a prefix. One thread owns all speakers; others only read sockets and tell it.

mod wiring;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use bgp::{ConnectionId, Direction, Input};
use clap::Parser;
use lab::interop::plan::SpeakerPlan;

use wiring::{PEER, Wiring};

/// How long connecting, or a peer that takes nothing, may hold the loop up.
const PATIENCE: Duration = Duration::from_secs(5);
/// The loop looks around at least so often.
const ROUND: Duration = Duration::from_millis(200);

/// One BGP speaker for the interop matrix.
#[derive(Parser)]
struct Arguments {
    /// What it is to be, as JSON (`lab::interop::plan::SpeakerPlan`).
    plan: PathBuf,
    /// Where it answers questions, a line each.
    socket: PathBuf,
}

/// What the reading threads tell.
enum Event {
    Accepted(TcpStream),
    Connected(TcpStream),
    ConnectFailed,
    Bytes(ConnectionId, Vec<u8>),
    Closed(ConnectionId),
    Asked(String, UnixStream),
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let plan: SpeakerPlan = serde_json::from_str(&std::fs::read_to_string(&arguments.plan)?)?;
    let (events, queue) = channel();
    listen(plan.listen, events.clone())?;
    answer(&arguments.socket, events.clone())?;
    run(&plan, &events, &queue)
}

fn run(plan: &SpeakerPlan, events: &Sender<Event>, queue: &Receiver<Event>) -> Result<()> {
    let mut wiring = Wiring::new(plan, Instant::now());
    loop {
        let now = Instant::now();
        let due = wiring.next_deadline().map_or(ROUND, |deadline| deadline.saturating_duration_since(now));
        let event = match queue.recv_timeout(due.min(ROUND)) {
            Ok(event) => Some(event),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => return Ok(()),
        };
        let now = Instant::now();
        match event {
            None => wiring.give(Input::Tick, now),
            Some(Event::Accepted(stream)) => adopt(&mut wiring, stream, Direction::Inbound, events, now)?,
            Some(Event::Connected(stream)) => adopt(&mut wiring, stream, Direction::Outbound, events, now)?,
            Some(Event::ConnectFailed) => wiring.give(Input::ConnectFailed { peer: PEER }, now),
            Some(Event::Bytes(connection, bytes)) => {
                wiring.give(Input::Received { connection, bytes: &bytes }, now);
            }
            Some(Event::Closed(connection)) => {
                if wiring.sockets.remove(&connection).is_some() {
                    wiring.give(Input::ConnectionClosed { connection }, now);
                }
            }
            Some(Event::Asked(question, mut stream)) => {
                if question.trim() == "refresh" {
                    wiring.give(Input::RequestRefresh { peer: PEER }, now);
                }
                // Who asked may be gone.
                let _ = writeln!(stream, "{}", serde_json::to_string(&wiring.state(now))?);
            }
        }
        if let Some((remote, local)) = wiring.connect.take() {
            connect(remote, local, events.clone());
        }
    }
}

fn adopt(
    wiring: &mut Wiring,
    stream: TcpStream,
    direction: Direction,
    events: &Sender<Event>,
    now: Instant,
) -> Result<()> {
    stream.set_nodelay(true)?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let local = stream.local_addr()?;
    let connection = wiring.adopt(stream.try_clone()?);
    let events = events.clone();
    thread::spawn(move || read(connection, stream, &events));
    wiring.give(Input::ConnectionOpened { peer: PEER, connection, direction, local }, now);
    Ok(())
}

fn read(connection: ConnectionId, mut stream: TcpStream, events: &Sender<Event>) {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let event = match stream.read(&mut buffer) {
            Ok(len @ 1..) => Event::Bytes(connection, buffer[..len].to_vec()),
            _ => Event::Closed(connection),
        };
        let last = matches!(event, Event::Closed(_));
        if events.send(event).is_err() || last {
            return;
        }
    }
}

fn listen(address: IpAddr, events: Sender<Event>) -> Result<()> {
    let address = SocketAddr::new(address, 179);
    let listener = TcpListener::bind(address).with_context(|| format!("cannot listen on {address}"))?;
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            if events.send(Event::Accepted(stream)).is_err() {
                return;
            }
        }
    });
    Ok(())
}

fn connect(remote: SocketAddr, local: Option<IpAddr>, events: Sender<Event>) {
    thread::spawn(move || {
        let connect = || -> std::io::Result<TcpStream> {
            let socket =
                socket2::Socket::new(socket2::Domain::for_address(remote), socket2::Type::STREAM, None)?;
            let any =
                if remote.is_ipv4() { IpAddr::V4(Ipv4Addr::UNSPECIFIED) } else { IpAddr::from([0; 16]) };
            socket.bind(&SocketAddr::new(local.unwrap_or(any), 0).into())?;
            socket.connect_timeout(&remote.into(), PATIENCE)?;
            Ok(socket.into())
        };
        // The loop has ended where nobody listens.
        let _ = events.send(connect().map_or(Event::ConnectFailed, Event::Connected));
    });
}

fn answer(socket: &std::path::Path, events: Sender<Event>) -> Result<()> {
    let listener = UnixListener::bind(socket)?;
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let mut question = String::new();
            if BufReader::new(&stream).read_line(&mut question).is_ok()
                && events.send(Event::Asked(question, stream)).is_err()
            {
                return;
            }
        }
    });
    Ok(())
}

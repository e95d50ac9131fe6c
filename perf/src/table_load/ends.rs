//! Both ends of a measurement in one process: a sender with a table, and a receiver that counts what the router under test
//! passes on. Asked by lines on standard input; answers are lines of JSON.

use std::io::{self, BufRead, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use lab::bgp_message::keepalive;
use lab::process::Identity;
use serde::{Deserialize, Serialize};
use socket2::{Domain, Protocol, Socket, Type};

use super::feed::Feed;
use super::stream::{Said, read};
use super::{FEEDER_AS, ROUTER, ROUTER_AS, SINK, SINK_AS, feeds, hello, table};

/// How long a session may take to come up, once the router listens.
const SESSION: Duration = Duration::from_secs(30);
/// The hold time that both ends ask for, in seconds: what BIRD and Calico have.
const HOLD: u16 = 240;
/// How often both ends say that they live.
const KEEPALIVES: Duration = Duration::from_secs(1);
/// No news for so long: what is missing doesn't come.
const SILENCE: Duration = Duration::from_secs(20);

/// What one may ask of the ends; the measurement starts them itself.
#[derive(clap::Args)]
pub struct Arguments {
    /// Every how manieth prefix of the table.
    #[arg(long, default_value_t = 1)]
    one_in: usize,
    /// How many send it.
    #[arg(long, default_value_t = 1)]
    feeders: u8,
}

/// What came of one request.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Passed {
    /// From the first byte sent to the last route counted.
    pub seconds: f64,
    /// Routes that were to come.
    pub routes: usize,
    /// Routes that never came.
    pub missing: usize,
    /// What came and shouldn't have, or with another path.
    pub wrong: usize,
    /// UPDATEs sent.
    pub updates: usize,
    /// The share of that time in which the ends had their core: near 1, they measure themselves.
    pub busy: f64,
}

/// Brings both sessions up, then does what standard input says: `load`, `withdraw`.
pub fn run(arguments: &Arguments) -> Result<()> {
    let (table, _) = table(arguments.one_in)?;
    let feeds = feeds(&table, arguments.feeders);
    let mut senders = Vec::new();
    for (address, feed) in &feeds {
        let sender = session(*address, FEEDER_AS)?;
        // What a sender hears matters to nobody, but must be taken.
        let mut heard = sender.try_clone()?;
        heard.set_read_timeout(None)?;
        thread::spawn(move || io::copy(&mut heard, &mut io::sink()));
        senders.push((Arc::new(Mutex::new(sender)), feed));
    }
    let mut receiver = session(SINK, SINK_AS)?;
    let told = Arc::new(Mutex::new(receiver.try_clone()?));
    keep_alive(senders.iter().map(|(sender, _)| sender).chain([&told]).cloned().collect());
    let origins: Vec<u32> = feeds.iter().flat_map(|(_, feed)| feed.origins.iter().copied()).collect();
    let updates = feeds.iter().map(|(_, feed)| feed.updates).sum();
    let mut counting = Counting { routes: Routes::new(&table, &origins), wrong: 0 };
    println!("ready");
    for line in io::stdin().lock().lines() {
        let passed = match line?.as_str() {
            "load" => counting.pass(&senders, |feed| &feed.announcement, &mut receiver, true, updates)?,
            "withdraw" => counting.pass(&senders, |feed| &feed.withdrawal, &mut receiver, false, updates)?,
            other => bail!("nobody knows how to {other:?}"),
        };
        println!("{}", serde_json::to_string(&passed)?);
    }
    Ok(())
}

/// Sends keepalives for as long as the process lives, but in the midst of a stream, which says as much.
fn keep_alive(connections: Vec<Arc<Mutex<TcpStream>>>) {
    thread::spawn(move || {
        loop {
            thread::sleep(KEEPALIVES);
            for connection in &connections {
                if let Ok(mut connection) = connection.try_lock() {
                    // A connection that broke is seen by whoever reads it.
                    let _ = connection.write_all(&keepalive());
                }
            }
        }
    });
}

/// Opens a connection from `own` and brings a session up, once the router takes it.
fn session(own: Ipv4Addr, own_as: u32) -> Result<TcpStream> {
    let deadline = Instant::now() + SESSION;
    loop {
        match try_session(own, own_as) {
            Err(_) if Instant::now() < deadline => thread::sleep(Duration::from_millis(100)),
            outcome => return outcome.with_context(|| format!("no session from {own}")),
        }
    }
}

fn try_session(own: Ipv4Addr, own_as: u32) -> Result<TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
    socket.bind(&SocketAddr::from((own, 0)).into())?;
    socket.connect_timeout(&SocketAddr::from((ROUTER, 179)).into(), Duration::from_secs(1))?;
    let mut stream = TcpStream::from(socket);
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    stream.write_all(&hello(own, own_as, HOLD))?;
    let (mut buffer, mut opened, mut confirmed) = (Vec::new(), false, false);
    let mut refused = None;
    while !(opened && confirmed) {
        take(&mut stream, &mut buffer)?;
        read(&mut buffer, |said| match said {
            Said::Open => opened = true,
            Said::Keepalive => confirmed = true,
            Said::Notification(code, subcode) => refused = Some((code, subcode)),
            _ => {}
        });
        ensure!(refused.is_none(), "the router refuses: {refused:?}");
    }
    Ok(stream)
}

/// Appends what there is.
fn take(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Result<()> {
    let before = buffer.len();
    buffer.resize(before + (256 << 10), 0);
    let got = stream.read(&mut buffer[before..]);
    buffer.truncate(before + got.as_ref().copied().unwrap_or(0));
    ensure!(got? > 0, "the router closed the connection");
    Ok(())
}

/// A route that is to come, or to go.
struct Route {
    prefix: (u32, u8),
    /// The AS that its path ends in.
    origin: u32,
    is_there: bool,
}

/// All of them, found by the 24 bits that most of them have: the ends have one core, and what a look-up costs there is taken
/// for the daemon's.
struct Routes {
    /// In the order of prefixes.
    routes: Vec<Route>,
    /// By 24 bits: the first route that begins with them; the end, where none does.
    first: Vec<u32>,
}

impl Routes {
    fn new(table: &[(u32, u8)], origins: &[u32]) -> Routes {
        let route = |(prefix, origin): (&(u32, u8), &u32)| Route {
            prefix: *prefix,
            origin: *origin,
            is_there: false,
        };
        let mut routes: Vec<Route> = table.iter().zip(origins).map(route).collect();
        routes.sort_unstable_by_key(|route| route.prefix);
        let mut first = vec![routes.len() as u32; 1 << 24];
        for (at, route) in routes.iter().enumerate().rev() {
            first[(route.prefix.0 >> 8) as usize] = at as u32;
        }
        Routes { routes, first }
    }

    fn get(&mut self, prefix: (u32, u8)) -> Option<&mut Route> {
        let first = self.first[(prefix.0 >> 8) as usize] as usize;
        self.routes[first..]
            .iter_mut()
            .take_while(|route| route.prefix <= prefix)
            .find(|route| route.prefix == prefix)
    }
}

struct Counting {
    routes: Routes,
    wrong: usize,
}

impl Counting {
    /// Sends a stream each and counts until every prefix is there, or none is.
    fn pass(
        &mut self,
        senders: &[(Arc<Mutex<TcpStream>>, &Feed)],
        stream: impl Fn(&Feed) -> &[u8],
        receiver: &mut TcpStream,
        present: bool,
        updates: usize,
    ) -> Result<Passed> {
        receiver.set_read_timeout(Some(SILENCE))?;
        self.wrong = 0;
        let mut left = self.routes.routes.iter().filter(|route| route.is_there != present).count();
        let (began, had_core) = (Instant::now(), processor_time()?);
        let mut last = began;
        thread::scope(|scope| {
            let mut sending = Vec::new();
            for (sender, feed) in senders {
                let stream = stream(feed);
                sending.push(
                    scope.spawn(move || {
                        sender.lock().unwrap_or_else(PoisonError::into_inner).write_all(stream)
                    }),
                );
            }
            let mut buffer = Vec::new();
            while left > 0 {
                if take(receiver, &mut buffer).is_err() {
                    break;
                }
                let before = left;
                read(&mut buffer, |said| left = left.saturating_add_signed(-self.note(said, present)));
                if left < before {
                    last = Instant::now();
                }
            }
            for sending in sending {
                let sent = sending.join().map_err(|_| anyhow::anyhow!("a sender panicked"))?;
                sent.context("sending the table")?;
            }
            Ok::<(), anyhow::Error>(())
        })?;
        let seconds = (last - began).as_secs_f64();
        let busy = (processor_time()? - had_core).as_secs_f64() / seconds;
        let routes = self.routes.routes.len();
        Ok(Passed { seconds, routes, missing: left, wrong: self.wrong, updates, busy })
    }

    /// Notes what was said: 1 where it is news of the kind that is waited for, -1 where it undoes such news, or else 0.
    fn note(&mut self, said: Said, present: bool) -> isize {
        let (prefix, path) = match said {
            Said::Announced { prefix, first_as, origin } => (prefix, Some((first_as, origin))),
            Said::Withdrawn(prefix) => (prefix, None),
            _ => return 0,
        };
        let Some(route) = self.routes.get(prefix) else {
            self.wrong += 1;
            return 0;
        };
        if path.is_some_and(|path| path != (ROUTER_AS, route.origin)) {
            self.wrong += 1;
            return 0;
        }
        let is_there = path.is_some();
        match std::mem::replace(&mut route.is_there, is_there) == is_there {
            true => 0,
            false if is_there == present => 1,
            false => -1,
        }
    }
}

/// What this process has had of processors until now.
fn processor_time() -> Result<Duration> {
    Identity::own()?.processor_time()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn news_that_is_undone_is_waited_for_again() {
        let prefix = (0x0a00_0000, 8);
        let mut counting = Counting { routes: Routes::new(&[prefix], &[65_000]), wrong: 0 };
        counting.routes.routes[0].is_there = true;
        let announced = |origin| Said::Announced { prefix, first_as: ROUTER_AS, origin };
        let said =
            [Said::Withdrawn(prefix), announced(65_000), Said::Withdrawn(prefix), Said::Withdrawn(prefix)];
        assert_eq!(said.map(|said| counting.note(said, false)), [1, -1, 1, 0]);
        assert_eq!((counting.note(announced(7), true), counting.wrong), (0, 1), "another path");
        assert_eq!(counting.note(announced(65_000), true), 1);
    }

    #[test]
    fn routes_are_found_among_those_with_the_same_24_bits() {
        let table =
            [(0x0a00_0080, 25), (0x0a00_0000, 8), (0x0a00_0000, 24), (0x0a00_0100, 24), (0x0a00_0000, 25)];
        let origins = [1, 2, 3, 4, 5];
        let mut routes = Routes::new(&table, &origins);
        for (prefix, origin) in table.iter().zip(origins) {
            assert_eq!(routes.get(*prefix).map(|route| route.origin), Some(origin));
        }
        for unknown in [(0x0a00_0000, 16), (0x0a00_0000, 26), (0x0b00_0000, 8), (0x0a00_0101, 32)] {
            assert!(routes.get(unknown).is_none());
        }
    }
}

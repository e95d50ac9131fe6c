//! Both ends of a measurement in one process: a sender with a table, and a receiver that counts what the router under test
//! passes on. Asked by lines on standard input; answers are lines of JSON.

use std::collections::HashMap;
use std::io::{self, BufRead, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};
use socket2::{Domain, Protocol, Socket, Type};

use super::feed::Feed;
use super::stream::{Said, read};
use super::{FEEDER_AS, ROUTER, ROUTER_AS, SINK, SINK_AS, feeds, hello, table};

/// How long a session may take to come up, once the router listens.
const SESSION: Duration = Duration::from_secs(30);
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
        senders.push((sender, feed));
    }
    let mut receiver = session(SINK, SINK_AS)?;
    let origins: Vec<u32> = feeds.iter().flat_map(|(_, feed)| feed.origins.iter().copied()).collect();
    let updates = feeds.iter().map(|(_, feed)| feed.updates).sum();
    let index = table.iter().enumerate().map(|(at, prefix)| (*prefix, at)).collect();
    let mut counting = Counting { index, origins: &origins, has: vec![false; table.len()], wrong: 0 };
    println!("ready");
    for line in io::stdin().lock().lines() {
        let passed = match line?.as_str() {
            "load" => counting.pass(&mut senders, |feed| &feed.announcement, &mut receiver, true, updates)?,
            "withdraw" => {
                counting.pass(&mut senders, |feed| &feed.withdrawal, &mut receiver, false, updates)?
            }
            other => bail!("nobody knows how to {other:?}"),
        };
        println!("{}", serde_json::to_string(&passed)?);
    }
    Ok(())
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
    stream.write_all(&hello(own, own_as))?;
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

struct Counting<'a> {
    index: HashMap<(u32, u8), usize, ahash::RandomState>,
    origins: &'a [u32],
    has: Vec<bool>,
    wrong: usize,
}

impl Counting<'_> {
    /// Sends a stream each and counts until every prefix is there, or none is.
    fn pass(
        &mut self,
        senders: &mut [(TcpStream, &Feed)],
        stream: impl Fn(&Feed) -> &[u8],
        receiver: &mut TcpStream,
        present: bool,
        updates: usize,
    ) -> Result<Passed> {
        receiver.set_read_timeout(Some(SILENCE))?;
        self.wrong = 0;
        let began = Instant::now();
        let mut last = began;
        let mut left = self.has.iter().filter(|has| **has != present).count();
        thread::scope(|scope| {
            let mut sending = Vec::new();
            for (sender, feed) in senders {
                let stream = stream(feed);
                sending.push(scope.spawn(move || sender.write_all(stream)));
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
        Ok(Passed { seconds, routes: self.has.len(), missing: left, wrong: self.wrong, updates })
    }

    /// Notes what was said: 1 where it is news of the kind that is waited for, -1 where it undoes such news, or else 0.
    fn note(&mut self, said: Said, present: bool) -> isize {
        let (prefix, is_there) = match said {
            Said::Announced { prefix, first_as, origin } => {
                let at = self.index.get(&prefix);
                if first_as != ROUTER_AS || at.is_none_or(|at| self.origins[*at] != origin) {
                    self.wrong += 1;
                    return 0;
                }
                (prefix, true)
            }
            Said::Withdrawn(prefix) => (prefix, false),
            _ => return 0,
        };
        let Some(at) = self.index.get(&prefix) else {
            self.wrong += 1;
            return 0;
        };
        match std::mem::replace(&mut self.has[*at], is_there) == is_there {
            true => 0,
            false if is_there == present => 1,
            false => -1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn news_that_is_undone_is_waited_for_again() {
        let prefix = (0x0a00_0000, 8);
        let origins = [65_000];
        let index = [(prefix, 0)].into_iter().collect();
        let mut counting = Counting { index, origins: &origins, has: vec![true], wrong: 0 };
        let announced = |origin| Said::Announced { prefix, first_as: ROUTER_AS, origin };
        let said =
            [Said::Withdrawn(prefix), announced(65_000), Said::Withdrawn(prefix), Said::Withdrawn(prefix)];
        assert_eq!(said.map(|said| counting.note(said, false)), [1, -1, 1, 0]);
        assert_eq!((counting.note(announced(7), true), counting.wrong), (0, 1), "another path");
        assert_eq!(counting.note(announced(65_000), true), 1);
    }
}

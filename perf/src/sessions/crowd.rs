//! Everybody but the router, in one process: speakers that keep alive and note when the router does, and one that sends a table.
//!
//! Asked by lines on standard input; answers are lines of JSON.

use std::io::{self, BufRead, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::mpsc::{Receiver, TryRecvError, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use lab::bgp_message::{attribute, code, flag, keepalive, kind, message};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::time::Timespec;
use socket2::{Domain, Protocol, Socket, Type};

use super::{FEEDER, FEEDER_AS, Lateness, ROUTER};
use crate::table_load::feed::{Feed, feed};
use crate::table_load::stream::{Said, read};
use crate::table_load::{hello, table};

/// How long a session may take to come up.
const SESSION: Duration = Duration::from_secs(180);
/// So many connect between two looks at the others.
const AT_ONCE: usize = 8;
/// The first speaker's AS; the others' follow.
const FIRST_AS: u32 = 4_200_000_000;

/// What one may ask of the crowd; the measurement starts it itself.
#[derive(clap::Args)]
pub struct Arguments {
    /// How many sessions.
    #[arg(long)]
    sessions: u16,
    /// Hold time in seconds.
    #[arg(long)]
    hold: u16,
    /// Every how manieth prefix of the table.
    #[arg(long)]
    one_in: usize,
}

/// One speaker.
struct Speaker {
    number: u16,
    stream: TcpStream,
    /// The session stands: the router has confirmed it.
    stands: bool,
    heard: Vec<u8>,
    /// When the router last said anything.
    last: Instant,
    /// When we did.
    said: Instant,
    lost: bool,
}

/// Brings all sessions up, keeps them, and does what standard input says: `up`, `lateness`, `load`, `withdraw`.
pub fn run(arguments: &Arguments) -> Result<()> {
    let (table, _) = table(arguments.one_in)?;
    let feed = feed(&table, FEEDER_AS, FEEDER, 1);
    let began = Instant::now();
    let hold = Duration::from_secs(arguments.hold.into());
    let (questions, asked) = channel();
    thread::spawn(move || {
        for line in io::stdin().lock().lines().map_while(Result::ok) {
            if questions.send(line).is_err() {
                return;
            }
        }
    });
    let mut crowd = Crowd {
        speakers: Vec::new(),
        interval: hold / 3,
        gaps: Vec::new(),
        lost: 0,
        up: false,
        outside: (0..arguments.sessions).collect(),
    };
    crowd.greet(arguments.hold)?;
    let up = began.elapsed().as_secs_f64();
    crowd.keep(&asked, &feed, table.len(), up)
}

/// A connection from an address of its own, over which it has introduced itself.
fn speaker(number: u16, hold: u16) -> Result<Speaker> {
    let mut stream = connect(address(number))?;
    stream.write_all(&hello(address(number), FIRST_AS + u32::from(number), hold))?;
    stream.set_nonblocking(true)?;
    let now = Instant::now();
    Ok(Speaker { number, stream, stands: false, heard: Vec::new(), last: now, said: now, lost: false })
}

fn address(number: u16) -> Ipv4Addr {
    let [high, low] = (number + 1).to_be_bytes();
    Ipv4Addr::from([10, 10, high, low])
}

fn connect(own: Ipv4Addr) -> Result<TcpStream> {
    let deadline = Instant::now() + SESSION;
    loop {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
        socket.bind(&SocketAddr::from((own, 0)).into())?;
        match socket.connect_timeout(&SocketAddr::from((ROUTER, 179)).into(), Duration::from_secs(5)) {
            Ok(()) => {
                socket.set_tcp_nodelay(true)?;
                return Ok(socket.into());
            }
            Err(_) if Instant::now() < deadline => thread::sleep(Duration::from_millis(50)),
            Err(error) => bail!("can't connect from {own}: {error}"),
        }
    }
}

struct Crowd {
    speakers: Vec<Speaker>,
    /// A third of the hold time.
    interval: Duration,
    /// Between what the router said and what it said next, since the last question.
    gaps: Vec<Duration>,
    lost: usize,
    /// All sessions have stood: from now on one that ends is lost.
    up: bool,
    /// Who has no session yet, or was turned away: only so many may introduce themselves at once.
    outside: Vec<u16>,
}

impl Crowd {
    /// Until every session stands.
    fn greet(&mut self, hold: u16) -> Result<()> {
        let deadline = Instant::now() + SESSION;
        while !self.speakers.iter().all(|speaker| speaker.stands) || !self.outside.is_empty() {
            self.listen()?;
            self.speak();
            for number in self.outside.drain(self.outside.len().saturating_sub(AT_ONCE)..) {
                self.speakers.push(speaker(number, hold).with_context(|| format!("speaker {number}"))?);
            }
            let standing = self.speakers.iter().filter(|speaker| speaker.stands).count();
            ensure!(Instant::now() < deadline, "only {standing} sessions stand");
        }
        self.gaps.clear();
        self.up = true;
        Ok(())
    }

    /// Keeps all alive and answers questions until there are no more.
    fn keep(&mut self, asked: &Receiver<String>, feed: &Feed, prefixes: usize, up: f64) -> Result<()> {
        let mut feeder: Option<TcpStream> = None;
        loop {
            self.listen()?;
            self.speak();
            let answer = match asked.try_recv() {
                Err(TryRecvError::Empty) => continue,
                Err(TryRecvError::Disconnected) => return Ok(()),
                Ok(question) => match question.as_str() {
                    "up" => serde_json::to_string(&up)?,
                    "lateness" => serde_json::to_string(&self.lateness())?,
                    "load" => {
                        let stream = feeding()?;
                        send(&stream, feed.announcement.clone())?;
                        feeder = Some(stream);
                        serde_json::to_string(&prefixes)?
                    }
                    "withdraw" => {
                        send(feeder.as_ref().context("nothing is loaded")?, feed.withdrawal.clone())?;
                        serde_json::to_string(&prefixes)?
                    }
                    other => bail!("nobody knows how to {other:?}"),
                },
            };
            println!("{answer}");
        }
    }

    /// Takes what has come, and notes when.
    fn listen(&mut self) -> Result<()> {
        let mut sockets: Vec<PollFd<'_>> =
            self.speakers.iter().map(|speaker| PollFd::new(&speaker.stream, PollFlags::IN)).collect();
        poll(&mut sockets, Some(&Timespec { tv_sec: 0, tv_nsec: 5_000_000 }))?;
        let ready: Vec<bool> = sockets.iter().map(|socket| !socket.revents().is_empty()).collect();
        let now = Instant::now();
        for (speaker, _) in self.speakers.iter_mut().zip(ready).filter(|(_, ready)| *ready) {
            if speaker.lost {
                continue;
            }
            let open = receive(speaker).unwrap_or(false);
            let (mut said, mut confirmed, mut ended, mut why) = (false, false, !open, None);
            read(&mut speaker.heard, |what| match what {
                Said::Notification(code, subcode) => (ended, why) = (true, Some((code, subcode))),
                Said::Keepalive => (said, confirmed) = (true, true),
                _ => said = true,
            });
            if said {
                self.gaps.push(now - speaker.last);
                speaker.last = now;
            }
            if confirmed && !std::mem::replace(&mut speaker.stands, true) {
                speaker.stream.write_all(&route(speaker.number))?;
            }
            if ended {
                speaker.lost = true;
                if speaker.stands {
                    eprintln!("the session of {} ended: {why:?}", address(speaker.number));
                }
                match self.up {
                    true => self.lost += 1,
                    false => self.outside.push(speaker.number),
                }
            }
        }
        self.speakers.retain(|speaker| !speaker.lost);
        Ok(())
    }

    /// Sends the keepalives that are due.
    fn speak(&mut self) {
        for speaker in &mut self.speakers {
            if speaker.said.elapsed() >= self.interval * 9 / 10 {
                // A connection that broke is seen when it is read.
                let _ = speaker.stream.write_all(&keepalive());
                speaker.said = Instant::now();
            }
        }
    }

    fn lateness(&mut self) -> Lateness {
        let now = Instant::now();
        // Who is silent still counts as late by now.
        let silent =
            self.speakers.iter().map(|speaker| now - speaker.last).filter(|gap| *gap > self.interval);
        let mut gaps: Vec<Duration> = self.gaps.drain(..).chain(silent).collect();
        gaps.sort();
        let late = |of: usize| {
            let at = (gaps.len() * of / 100).min(gaps.len().saturating_sub(1));
            gaps.get(at).map_or(0.0, |gap| gap.saturating_sub(self.interval).as_secs_f64() * 1e3)
        };
        Lateness {
            keepalives: gaps.len(),
            p50_ms: late(50),
            p99_ms: late(99),
            max_ms: late(100),
            longest_gap_ms: gaps.last().map_or(0.0, |gap| gap.as_secs_f64() * 1e3),
            lost: std::mem::take(&mut self.lost),
        }
    }
}

/// Appends what there is; `false` at the end.
fn receive(speaker: &mut Speaker) -> Result<bool> {
    let mut bytes = [0; 16 << 10];
    match speaker.stream.read(&mut bytes) {
        Ok(got) => {
            speaker.heard.extend_from_slice(&bytes[..got]);
            Ok(got > 0)
        }
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(true),
        Err(error) => Err(error.into()),
    }
}

/// An UPDATE with one network of the speaker's own.
fn route(number: u16) -> Vec<u8> {
    let own = address(number);
    let mut segment = vec![2, 1];
    segment.extend((FIRST_AS + u32::from(number)).to_be_bytes());
    let attributes = [
        attribute(flag::TRANSITIVE, code::ORIGIN, &[0]),
        attribute(flag::TRANSITIVE, code::AS_PATH, &segment),
        attribute(flag::TRANSITIVE, code::NEXT_HOP, &own.octets()),
    ]
    .concat();
    let [_, _, high, low] = own.octets();
    let mut body = vec![0, 0];
    body.extend((attributes.len() as u16).to_be_bytes());
    body.extend(attributes);
    // 100.64.0.0/10 is in nobody's table.
    body.extend([32, 100, 64, high, low]);
    message(kind::UPDATE, &body)
}

/// The session that the table comes by: without a hold time, so that nothing but the table takes its way.
fn feeding() -> Result<TcpStream> {
    let mut stream = connect(FEEDER)?;
    stream.write_all(&hello(FEEDER, FEEDER_AS, 0))?;
    let mut heard = stream.try_clone()?;
    thread::spawn(move || io::copy(&mut heard, &mut io::sink()));
    Ok(stream)
}

/// Sends while the others are kept alive.
fn send(stream: &TcpStream, bytes: Vec<u8>) -> Result<()> {
    let mut stream = stream.try_clone()?;
    thread::spawn(move || {
        if let Err(error) = stream.write_all(&bytes) {
            eprintln!("sending the table: {error}");
        }
    });
    Ok(())
}

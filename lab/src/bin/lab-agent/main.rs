//! The traffic of the lab that no common tool makes: a session that must stay alive, a transfer with its hash,
//! UDP to a thousand destinations, BGP peers that misbehave or never rest. It reports in JSON, so that scenarios need no
//! interpreter on the machine.

mod churn;
mod hostile;

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use clap::{Parser, Subcommand};
use lab::numbers::Numbers;
use nix::sys::socket::{setsockopt, sockopt::RcvBufForce};
use serde_json::json;
use sha2::{Digest, Sha256};

/// How much a transfer writes or reads at once, in bytes.
const CHUNK: usize = 64 * 1024;
/// How long a beat may stay unanswered before it is told as missing.
const BEAT_LIMIT: Duration = Duration::from_secs(2);
/// How often a sink writes its report anew.
const REPORT_EVERY: Duration = Duration::from_millis(200);
/// Datagrams that a sender sends at once, where it was kept from its core while they were due. More than that would be a burst
/// that nobody asked for, and longer than the rings of a veth: its loss would be the test's own.
const MADE_UP_FOR: u32 = 256;
/// How long a sender keeps trying to connect, and a receiver waits for the next datagram.
const PATIENCE: Duration = Duration::from_secs(60);

/// Traffic for the scenarios of Tortie's lab.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Send back whatever comes, on any number of TCP connections.
    Echo {
        /// Where to listen, such as 0.0.0.0:2222.
        listen: SocketAddr,
    },
    /// Keep one TCP connection to an echo server alive: a beat at every interval, a JSON line for each.
    Heartbeat {
        /// The echo server.
        server: SocketAddr,
        /// Between two beats, in milliseconds.
        #[arg(long, default_value_t = 100)]
        interval_ms: u64,
    },
    /// Try to connect and tell what came of it: `open`, `refused`, or `silent` where nothing came back.
    Knock {
        /// The server.
        server: SocketAddr,
        /// How long something may take to come back, in milliseconds.
        #[arg(long)]
        within_ms: u64,
    },
    /// Take one TCP connection, read it to its end and tell the bytes and their SHA-256.
    Receive {
        /// Where to listen.
        listen: SocketAddr,
    },
    /// Send this many bytes, which nobody could guess from the ones before, and tell their SHA-256.
    Send {
        /// The receiver.
        receiver: SocketAddr,
        /// How many bytes.
        #[arg(long)]
        bytes: u64,
        /// What the bytes are made from.
        #[arg(long, default_value_t = 1)]
        seed: u64,
    },
    /// Take this many UDP datagrams, in order, and tell their bytes and SHA-256.
    ReceiveDatagrams {
        /// Where to listen.
        listen: SocketAddr,
        /// How many.
        #[arg(long)]
        count: u32,
    },
    /// Send this many UDP datagrams, one every five milliseconds, and tell their SHA-256.
    SendDatagrams {
        /// The receiver.
        receiver: SocketAddr,
        /// How many.
        #[arg(long)]
        count: u32,
        /// Bytes of each.
        #[arg(long)]
        size: usize,
    },
    /// Count UDP datagrams of `udp-send` by the destination written in them.
    UdpSink {
        /// Where to listen, such as [::]:9000.
        listen: SocketAddr,
        /// The file to report to, rewritten while datagrams come.
        #[arg(long)]
        report: PathBuf,
    },
    /// Send UDP datagrams to every destination in a file, an address per line.
    UdpSend {
        /// The file.
        #[arg(long)]
        destinations: PathBuf,
        /// The port at every destination.
        #[arg(long)]
        port: u16,
        /// How many to each.
        #[arg(long, default_value_t = 1)]
        copies: u32,
        /// How many a second, in all.
        #[arg(long, default_value_t = 5000)]
        per_second: u32,
        /// The port to send from, and by IPv6 the next one: the same flows each time. Any, where it is 0.
        #[arg(long, default_value_t = 0)]
        source_port: u16,
        /// Stop before the next copies once this file exists.
        #[arg(long)]
        until: Option<PathBuf>,
    },
    /// Connect to a BGP speaker, send it what the file of orders says, and tell what it answers.
    BgpHostile {
        /// The speaker, such as 10.9.0.1:179.
        #[arg(long)]
        connect: SocketAddr,
        /// The address to come from.
        #[arg(long)]
        source: IpAddr,
        /// The file of orders, a line each: `send HEX`, or `close`. It is followed while it grows.
        #[arg(long, required_unless_present = "knocks")]
        orders: Option<PathBuf>,
        /// Instead: connect this many times and close at once.
        #[arg(long, conflicts_with = "orders")]
        knocks: Option<u32>,
    },
    /// Announce routes over BGP and, once told to, move them between two next hops, so many a second.
    BgpChurn {
        /// The speaker, such as 10.9.0.1:179.
        #[arg(long)]
        connect: SocketAddr,
        /// The address to come from.
        #[arg(long)]
        source: IpAddr,
        /// Our AS number.
        #[arg(long)]
        as_number: u16,
        /// Both next hops; all routes begin with the first, but one that stays with the second.
        #[arg(long, value_delimiter = ',')]
        nexthops: Vec<Ipv4Addr>,
        /// How many routes.
        #[arg(long)]
        routes: usize,
        /// How many of them move a second.
        #[arg(long)]
        per_second: u32,
        /// For how long.
        #[arg(long)]
        seconds: u64,
        /// Moving begins when this file is there.
        #[arg(long)]
        go: PathBuf,
    },
    /// Ask for a page of metrics at every interval, and tell how often it came.
    Scrape {
        /// The endpoint, such as 127.0.0.1:9191.
        address: SocketAddr,
        /// Between two scrapes, in milliseconds.
        #[arg(long)]
        every_ms: u64,
        /// For how long.
        #[arg(long)]
        seconds: u64,
    },
}

fn main() -> Result<()> {
    match Arguments::parse().task {
        Task::Echo { listen } => echo(listen),
        Task::Heartbeat { server, interval_ms } => heartbeat(server, Duration::from_millis(interval_ms)),
        Task::Knock { server, within_ms } => knock(server, Duration::from_millis(within_ms)),
        Task::Receive { listen } => receive(listen),
        Task::Send { receiver, bytes, seed } => send(receiver, bytes, seed),
        Task::ReceiveDatagrams { listen, count } => receive_datagrams(listen, count),
        Task::SendDatagrams { receiver, count, size } => send_datagrams(receiver, count, size),
        Task::UdpSink { listen, report } => udp_sink(listen, &report),
        Task::UdpSend { destinations, port, copies, per_second, source_port, until } => {
            udp_send(&destinations, port, copies, per_second, source_port, until.as_deref())
        }
        Task::BgpHostile { connect, source, orders, knocks } => {
            let source = SocketAddr::new(source, 0);
            match (orders, knocks) {
                (Some(orders), _) => hostile::play(connect, source, &orders),
                (None, times) => hostile::knock(connect, source, times.unwrap_or(1)),
            }
        }
        Task::BgpChurn { connect, source, as_number, nexthops, routes, per_second, seconds, go } => {
            let nexthops = nexthops.try_into().map_err(|given| anyhow!("two next hops, not {given:?}"))?;
            let time = Duration::from_secs(seconds);
            let plan = churn::Plan { as_number, nexthops, routes, per_second, time, go: &go };
            churn::churn(connect, SocketAddr::new(source, 0), &plan)
        }
        Task::Scrape { address, every_ms, seconds } => {
            churn::scrape(address, Duration::from_millis(every_ms), Duration::from_secs(seconds))
        }
    }
}

/// One line of JSON on standard output, at once.
fn tell(line: &serde_json::Value) -> Result<()> {
    let mut output = std::io::stdout().lock();
    writeln!(output, "{line}")?;
    output.flush().context("standard output is closed")
}

fn echo(listen: SocketAddr) -> Result<()> {
    let listener = TcpListener::bind(listen).with_context(|| format!("cannot listen on {listen}"))?;
    for stream in listener.incoming() {
        let mut stream = stream?;
        thread::spawn(move || {
            let mut reader = stream.try_clone()?;
            std::io::copy(&mut reader, &mut stream)
        });
    }
    Ok(())
}

fn connect(server: SocketAddr) -> Result<TcpStream> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match TcpStream::connect_timeout(&server, Duration::from_secs(1)) {
            Ok(stream) => return Ok(stream),
            Err(error) if Instant::now() >= deadline => {
                return Err(error).with_context(|| format!("cannot connect to {server}"));
            }
            Err(_) => thread::sleep(Duration::from_millis(100)),
        }
    }
}

fn knock(server: SocketAddr, within: Duration) -> Result<()> {
    let outcome = match TcpStream::connect_timeout(&server, within) {
        Ok(_) => "open",
        Err(error) if error.kind() == ErrorKind::TimedOut => "silent",
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => "refused",
        Err(error) => return Err(error).with_context(|| format!("cannot knock at {server}")),
    };
    tell(&json!(outcome))
}

/// A beat that comes back late is told with its time; a connection that dies ends the program with an error.
fn heartbeat(server: SocketAddr, interval: Duration) -> Result<()> {
    let mut stream = connect(server)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(BEAT_LIMIT))?;
    let begin = Instant::now();
    for beat in 0_u64.. {
        let sent = Instant::now();
        stream.write_all(&beat.to_be_bytes()).context("the session died")?;
        while !answered(&mut stream, beat)? {
            tell(&json!({ "beat": beat, "missing_ms": millis(sent.elapsed()) }))?;
        }
        tell(&json!({ "beat": beat, "at_ms": millis(begin.elapsed()), "took_ms": millis(sent.elapsed()) }))?;
        thread::sleep(interval.saturating_sub(sent.elapsed()));
    }
    Ok(())
}

/// Whether the beat came back within [`BEAT_LIMIT`].
fn answered(stream: &mut TcpStream, beat: u64) -> Result<bool> {
    let mut bytes = [0; 8];
    match stream.read_exact(&mut bytes) {
        Ok(()) => {
            ensure!(u64::from_be_bytes(bytes) == beat, "the echo of beat {beat} is {bytes:02x?}");
            Ok(true)
        }
        // Nothing of the eight bytes can have been read: they were written as one segment.
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => Ok(false),
        Err(error) => Err(error).context("the session died"),
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn receive(listen: SocketAddr) -> Result<()> {
    let listener = TcpListener::bind(listen).with_context(|| format!("cannot listen on {listen}"))?;
    let (mut stream, _) = listener.accept()?;
    let begin = Instant::now();
    let mut hash = Sha256::new();
    let mut chunk = vec![0; CHUNK];
    let mut bytes = 0_u64;
    loop {
        let length = stream.read(&mut chunk)?;
        if length == 0 {
            break;
        }
        hash.update(&chunk[..length]);
        bytes += length as u64;
    }
    tell(&transfer(bytes, hash, begin))
}

fn send(receiver: SocketAddr, bytes: u64, seed: u64) -> Result<()> {
    let mut stream = connect(receiver)?;
    let begin = Instant::now();
    let mut hash = Sha256::new();
    let mut noise = Numbers::new(seed);
    let mut chunk = vec![0; CHUNK];
    let mut left = bytes;
    while left > 0 {
        let length = usize::try_from(left).map_or(CHUNK, |left| left.min(CHUNK));
        noise.fill(&mut chunk[..length]);
        hash.update(&chunk[..length]);
        stream.write_all(&chunk[..length]).context("the transfer was cut")?;
        left -= length as u64;
    }
    tell(&transfer(bytes, hash, begin))
}

fn receive_datagrams(listen: SocketAddr, count: u32) -> Result<()> {
    let socket = UdpSocket::bind(listen).with_context(|| format!("cannot listen on {listen}"))?;
    socket.set_read_timeout(Some(PATIENCE))?;
    wait_here(&socket)?;
    let begin = Instant::now();
    let (mut hash, mut bytes, mut datagram) = (Sha256::new(), 0_u64, vec![0; 65_536]);
    for got in 0..count {
        let length = loop {
            match socket.recv(&mut datagram) {
                // Stopped and continued (signal(7)).
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                received => break received.with_context(|| format!("only {got} datagrams came"))?,
            }
        };
        hash.update(&datagram[..length]);
        bytes += length as u64;
    }
    tell(&transfer(bytes, hash, begin))
}

fn send_datagrams(receiver: SocketAddr, count: u32, size: usize) -> Result<()> {
    const BETWEEN: Duration = Duration::from_millis(5);
    let any = match receiver {
        SocketAddr::V4(_) => "0.0.0.0:0",
        SocketAddr::V6(_) => "[::]:0",
    };
    let socket = UdpSocket::bind(any)?;
    socket.connect(receiver)?;
    let begin = Instant::now();
    let (mut hash, mut noise, mut datagram) = (Sha256::new(), Numbers::new(1), vec![0; size]);
    for _ in 0..count {
        noise.fill(&mut datagram);
        hash.update(&datagram);
        socket.send(&datagram).context("a datagram was refused")?;
        thread::sleep(BETWEEN);
    }
    tell(&transfer(u64::from(count) * size as u64, hash, begin))
}

fn transfer(bytes: u64, hash: Sha256, begin: Instant) -> serde_json::Value {
    let digest: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    json!({ "bytes": bytes, "sha256": digest, "seconds": begin.elapsed().as_secs_f64() })
}

/// Bursts must wait at the socket and not be lost by the test itself, whatever the machine allows others
/// (`net.core.rmem_max`).
fn wait_here(socket: &UdpSocket) -> Result<()> {
    setsockopt(socket, RcvBufForce, &(8 << 20)).context("no room for what a receiver hasn't read yet")
}

/// A datagram of `udp-send` holds the text of its destination: what a sink gets for somebody else shows.
fn udp_sink(listen: SocketAddr, report: &Path) -> Result<()> {
    let socket = UdpSocket::bind(listen).with_context(|| format!("cannot listen on {listen}"))?;
    wait_here(&socket)?;
    socket.set_read_timeout(Some(REPORT_EVERY))?;
    let mut counts: BTreeMap<IpAddr, u64> = BTreeMap::new();
    let mut foreign = 0_u64;
    // How often nothing has come for as long as between two reports: whoever asks knows then that all is counted.
    let mut quiet = 0_u64;
    let mut reported = None;
    let mut last_report = Instant::now();
    let mut datagram = [0; 2048];
    loop {
        match socket.recv(&mut datagram) {
            Ok(length) => {
                let text = std::str::from_utf8(&datagram[..length]).ok();
                match text.and_then(|text| text.parse().ok()) {
                    Some(destination) => *counts.entry(destination).or_default() += 1,
                    None => foreign += 1,
                }
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => quiet += 1,
            // Stopped and continued (signal(7)).
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error).context("cannot receive"),
        }
        let packets: u64 = counts.values().sum();
        if last_report.elapsed() >= REPORT_EVERY && reported != Some((packets, foreign, quiet)) {
            let told =
                json!({ "packets": packets, "foreign": foreign, "quiet": quiet, "destinations": counts });
            write_whole(report, &told)?;
            reported = Some((packets, foreign, quiet));
            last_report = Instant::now();
        }
    }
}

/// Replaces the file in one step: a reader never sees half a report.
fn write_whole(path: &Path, value: &serde_json::Value) -> Result<()> {
    let new = path.with_extension("new");
    std::fs::write(&new, value.to_string())?;
    std::fs::rename(&new, path).with_context(|| format!("cannot write {}", path.display()))
}

fn udp_send(
    destinations: &Path,
    port: u16,
    copies: u32,
    per_second: u32,
    source_port: u16,
    until: Option<&Path>,
) -> Result<()> {
    ensure!(per_second > 0, "--per-second must be at least 1");
    let text = std::fs::read_to_string(destinations)
        .with_context(|| format!("cannot read {}", destinations.display()))?;
    let destinations: Vec<IpAddr> = text.lines().map(str::parse).collect::<Result<_, _>>()?;
    let ipv4 = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, source_port))?;
    // A machine without IPv6 can still send to the rest.
    let next_port = if source_port == 0 { 0 } else { source_port + 1 };
    let ipv6 = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, next_port)).ok();
    let begin = Instant::now();
    let interval = Duration::from_secs(1) / per_second;
    let (mut sent, mut due) = (0_u32, begin);
    for _ in 0..copies {
        if until.is_some_and(Path::exists) {
            break;
        }
        for &destination in &destinations {
            let socket = if destination.is_ipv4() { Some(&ipv4) } else { ipv6.as_ref() };
            let Some(socket) = socket else { bail!("no IPv6 here, and {destination} is asked for") };
            socket
                .send_to(destination.to_string().as_bytes(), (destination, port))
                .with_context(|| format!("cannot send to {destination}"))?;
            sent += 1;
            let now = Instant::now();
            due = (due + interval).max(now.checked_sub(interval * MADE_UP_FOR).unwrap_or(begin));
            thread::sleep(due.saturating_duration_since(now));
        }
    }
    tell(&json!({ "packets": sent, "seconds": begin.elapsed().as_secs_f64() }))
}

//! Traffic and what it tells: ping, iperf3, transfers with their hash, sessions that must live, UDP to many.

mod iperf3;
mod ping;

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

pub use self::iperf3::{
    Datagrams, Throughput, iperf3, iperf3_megabytes, iperf3_segments, iperf3_streams, iperf3_udp,
};
pub use self::ping::{Ping, RoundTrip, answered, answered_with, ping, reaches};
pub(crate) use self::ping::{lost, replies};
use crate::netns::Namespace;
use crate::process::Process;
use crate::{Lab, wait};

/// How long a transfer of a few hundred megabytes may take through a debug kernel on a busy machine.
const TRANSFER: Duration = Duration::from_secs(300);
/// Where [`datagrams`] go: noise, of which no dissector is to make anything.
pub(crate) const DATAGRAMS_PORT: u16 = 9300;
/// How long a server may take until it listens.
const LISTEN: Duration = Duration::from_secs(60);

/// How long a few beats of a session may take. Whoever isn't let in at once tries again ever later (RFC 6298 §5.5).
const BEATS: Duration = Duration::from_secs(60);
/// How long datagrams may go on coming that were sent before.
const LAST_DATAGRAMS: Duration = Duration::from_secs(60);

/// Waits until somebody listens on a TCP port inside.
///
/// # Errors
/// Nobody does.
pub(crate) fn listening(namespace: &Namespace, port: u16) -> Result<()> {
    wait::until_true(&format!("a server on port {port} of {}", namespace.name()), LISTEN, || {
        Ok(namespace.run("ss", &["-Hltn", &format!("sport = :{port}")])?.contains("LISTEN"))
    })
}

/// What one end of a transfer saw.
#[derive(Clone, Debug, Deserialize, PartialEq)]
pub struct Transfer {
    /// How many bytes.
    pub bytes: u64,
    /// Their SHA-256, in hexadecimal.
    pub sha256: String,
    /// How long it took.
    pub seconds: f64,
}

/// Sends `bytes` over TCP and compares the hashes of both ends.
///
/// # Errors
/// The transfer fails, or something else arrived than was sent.
pub fn transfer(
    lab: &Lab,
    from: &Namespace,
    to: &Namespace,
    address: IpAddr,
    bytes: u64,
) -> Result<Transfer> {
    transfer_by(lab, from, to, address, address, bytes)
}

/// As [`transfer`], to an address that is translated to the one that the receiver listens at.
///
/// # Errors
/// As [`transfer`].
pub fn transfer_by(
    lab: &Lab,
    from: &Namespace,
    to: &Namespace,
    address: IpAddr,
    listens_at: IpAddr,
    bytes: u64,
) -> Result<Transfer> {
    const PORT: u16 = 9100;
    let target = SocketAddr::new(address, PORT).to_string();
    let mut receiver = agent(lab, to, "receive", &[&SocketAddr::new(listens_at, PORT).to_string()])?;
    listening(to, PORT)?;
    lab.step(&format!("sending {} MB from {} to {}", bytes / 1_000_000, from.name(), to.name()));
    let mut sender = agent(lab, from, "send", &[&target, "--bytes", &bytes.to_string()])?;
    let sent: Transfer = json(&sender.finish(TRANSFER)?)?;
    let received: Transfer = json(&receiver.finish(TRANSFER)?)?;
    unchanged(&sent, received)
}

/// What arrived, if it is what was sent.
fn unchanged(sent: &Transfer, received: Transfer) -> Result<Transfer> {
    ensure!(
        sent.bytes == received.bytes && sent.sha256 == received.sha256,
        "{} bytes with SHA-256 {} were sent, {} bytes with {} arrived",
        sent.bytes,
        sent.sha256,
        received.bytes,
        received.sha256
    );
    Ok(received)
}

/// Sends `count` UDP datagrams of `size` bytes and compares the hashes of both ends. The ways and the path's MTU must be
/// known: none may be lost.
///
/// # Errors
/// One is lost, or something else arrived than was sent.
pub fn datagrams(
    lab: &Lab,
    from: &Namespace,
    to: &Namespace,
    address: IpAddr,
    count: u32,
    size: usize,
) -> Result<Transfer> {
    let target = SocketAddr::new(address, DATAGRAMS_PORT).to_string();
    let (count, size) = (count.to_string(), size.to_string());
    let mut receiver = agent(lab, to, "receive-datagrams", &[&target, "--count", &count])?;
    wait::until_true("the receiver's socket", LISTEN, || {
        Ok(to.run("ss", &["-Hlun"])?.contains(&format!(":{DATAGRAMS_PORT}")))
    })?;
    let mut sender = agent(lab, from, "send-datagrams", &[&target, "--count", &count, "--size", &size])?;
    let sent: Transfer = json(&sender.finish(TRANSFER)?)?;
    let received: Transfer = json(&receiver.finish(TRANSFER)?)?;
    unchanged(&sent, received)
}

/// What comes of trying to connect.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum Knock {
    /// A connection.
    Open,
    /// A refusal.
    Refused,
    /// Nothing.
    Silent,
}

/// Tries to connect to a port, for half a second.
///
/// # Errors
/// There is no way there, or the agent cannot run.
pub fn knock(lab: &Lab, from: &Namespace, server: SocketAddr) -> Result<Knock> {
    let mut knock = agent(lab, from, "knock", &[&server.to_string(), "--within-ms", "500"])?;
    json(&knock.finish(LISTEN)?)
}

/// A server on a port of all addresses, for as long as the process lives.
///
/// # Errors
/// It does not come up.
pub fn serve(lab: &Lab, namespace: &Namespace, port: u16) -> Result<Process> {
    let echo = agent(lab, namespace, "echo", &[&format!("[::]:{port}")])?;
    listening(namespace, port)?;
    Ok(echo)
}

/// A task of the lab's agent inside a namespace.
///
/// # Errors
/// It cannot be started.
pub fn agent(lab: &Lab, namespace: &Namespace, task: &str, arguments: &[&str]) -> Result<Process> {
    let mut command = namespace.command(&lab.tools().agent);
    // Its error is what a person wants to see at the end of its log.
    command.arg(task).args(arguments).env("RUST_LIB_BACKTRACE", "0");
    lab.spawn(&format!("{task}-{}", namespace.name()), command)
}

/// A TCP session that beats ten times a second for as long as it lives: what an ssh session would notice.
pub struct Session {
    heartbeat: Process,
    echo: Option<Process>,
    target: String,
}

/// One answered or missing beat of a [`Session`].
#[derive(Clone, Copy, Debug, Deserialize)]
struct Beat {
    beat: u64,
    took_ms: Option<u64>,
}

impl Session {
    /// Opens a session from one namespace to an address of another and waits for the first beats.
    ///
    /// # Errors
    /// The session does not come up.
    pub fn open(lab: &Lab, from: &Namespace, to: &Namespace, address: IpAddr) -> Result<Session> {
        Session::open_at(lab, from, to, SocketAddr::new(address, 2222))
    }

    /// As [`Session::open`], to a port that nobody listens on yet.
    ///
    /// # Errors
    /// The session does not come up.
    pub fn open_at(lab: &Lab, from: &Namespace, to: &Namespace, server: SocketAddr) -> Result<Session> {
        let target = server.to_string();
        let echo = agent(lab, to, "echo", &[&target])?;
        listening(to, server.port())?;
        let heartbeat = agent(lab, from, "heartbeat", &[&target])?;
        let mut session = Session { heartbeat, echo: Some(echo), target };
        session.beats_on(5)?;
        Ok(session)
    }

    /// Tries to open another session to the same place, which must last as long as the new one; it may not come up.
    ///
    /// # Errors
    /// The program that tries can't be started.
    pub fn try_another(&self, lab: &Lab, from: &Namespace) -> Result<Session> {
        let mut command = from.command(&lab.tools().agent);
        command.args(["heartbeat", &self.target]);
        // A log of its own beside the first one's.
        let heartbeat = lab.spawn(&format!("another-heartbeat-{}", from.name()), command)?;
        Ok(Session { heartbeat, echo: None, target: self.target.clone() })
    }

    /// Ends the session, but not the place that it led to, for as long as what is returned lives.
    pub fn hang_up(self) -> Option<Process> {
        self.echo
    }

    /// Waits for this many more answered beats.
    ///
    /// # Errors
    /// The session died, or they didn't come in time.
    pub fn beats_on(&mut self, more: usize) -> Result<()> {
        let before = self.answered()?.len();
        wait::until_true("the session's next beats", BEATS, || {
            self.heartbeat.must_run()?;
            Ok(self.answered()?.len() >= before + more)
        })
    }

    /// The longest time a beat took so far.
    ///
    /// # Errors
    /// The log cannot be read.
    pub fn longest_beat(&self) -> Result<Duration> {
        let longest = self.answered()?.iter().filter_map(|beat| beat.took_ms).max().unwrap_or(0);
        Ok(Duration::from_millis(longest))
    }

    /// How many beats were answered so far.
    ///
    /// # Errors
    /// The log cannot be read.
    pub fn beats(&self) -> Result<u64> {
        Ok(self.answered()?.last().map_or(0, |last| last.beat + 1))
    }

    fn answered(&self) -> Result<Vec<Beat>> {
        let text = wait::read(self.heartbeat.output())?;
        let beats = text.lines().filter_map(|line| serde_json::from_str::<Beat>(line).ok());
        Ok(beats.filter(|beat| beat.took_ms.is_some()).collect())
    }
}

/// A place where UDP datagrams for any address arrive and are counted by destination.
pub struct Sink {
    report: PathBuf,
    process: Process,
}

/// What a [`Sink`] counted.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct SinkReport {
    /// All datagrams of ours.
    pub packets: u64,
    /// By destination.
    pub destinations: std::collections::BTreeMap<IpAddr, u64>,
    /// How often nothing had come for 0.2 s.
    quiet: u64,
}

impl Sink {
    /// The port that sinks listen on.
    pub const PORT: u16 = 9000;

    /// Makes every address that `namespace` has no other route to its own and counts what comes.
    /// It needs a route back to whoever sends, or the kernel takes the sender for itself and drops what it sent.
    ///
    /// # Errors
    /// The routes or the receiver cannot be made.
    pub fn open(lab: &Lab, namespace: &Namespace) -> Result<Sink> {
        for family in ["-4", "-6"] {
            namespace.ip(&format!("{family} route add local default dev lo table 100"))?;
            // After the main table (32766): the way back to the sender counts first.
            namespace.ip(&format!("{family} rule add pref 40000 table 100"))?;
        }
        let report = lab.directory().join(format!("sink-{}.json", namespace.name()));
        let listen = format!("[::]:{}", Self::PORT);
        let path = report.to_str().context("the temporary directory's name is not UTF-8")?;
        let process = agent(lab, namespace, "udp-sink", &[&listen, "--report", path])?;
        wait::until_true("the sink's socket", LISTEN, || {
            Ok(namespace.run("ss", &["-Hlun"])?.contains(&format!(":{}", Self::PORT)))
        })?;
        Ok(Sink { report, process })
    }

    /// What has been counted so far.
    ///
    /// # Errors
    /// The sink has ended.
    pub fn counted(&mut self) -> Result<SinkReport> {
        self.process.must_run()?;
        if !self.report.exists() {
            return Ok(SinkReport::default());
        }
        json(&wait::read(&self.report)?)
    }

    /// What it has counted once nothing has come for a while, by its own clock: on a busy machine what was sent may be
    /// on its way, or in its socket, for longer than anybody would wait.
    ///
    /// # Errors
    /// As [`Sink::counted`], or something comes all the time.
    pub fn settled(&mut self, lab: &Lab) -> Result<SinkReport> {
        // The first may have begun before.
        const QUIET: u64 = 3;
        let mut last = self.counted()?;
        lab.wait("the last datagrams", LAST_DATAGRAMS, || {
            let now = self.counted()?;
            if now.packets != last.packets {
                last = now;
                return Ok(None);
            }
            Ok((now.quiet >= last.quiet + QUIET).then_some(now))
        })
    }
}

/// Sends `copies` datagrams to each of the destinations, from one namespace.
///
/// # Errors
/// A datagram cannot be sent.
pub fn udp_to_many(
    lab: &Lab,
    from: &Namespace,
    destinations: &[IpAddr],
    copies: u32,
    per_second: u32,
) -> Result<u64> {
    UdpFlows::start(lab, from, destinations, copies, per_second, 0)?.finish()
}

/// Datagrams on their way to many destinations: each is a flow.
pub struct UdpFlows {
    sender: Process,
    /// The sender stops once it exists.
    until: PathBuf,
}

impl UdpFlows {
    /// Begins to send `copies` datagrams to each of the destinations, all from this port (by IPv6 the next one), or from
    /// any where it is 0.
    ///
    /// # Errors
    /// The sender cannot be started.
    pub fn start(
        lab: &Lab,
        from: &Namespace,
        destinations: &[IpAddr],
        copies: u32,
        per_second: u32,
        source_port: u16,
    ) -> Result<UdpFlows> {
        let file = lab.directory().join(format!("destinations-{}", from.name()));
        let until = file.with_extension("enough");
        std::fs::write(&file, destinations.iter().map(|address| format!("{address}\n")).collect::<String>())?;
        let utf8 = "the temporary directory's name is not UTF-8";
        let (path, enough) = (file.to_str().context(utf8)?, until.to_str().context(utf8)?);
        let [port, copies, rate, source] =
            [u32::from(Sink::PORT), copies, per_second, source_port.into()].map(|number| number.to_string());
        let arguments = [
            &["--destinations", path, "--port", &port, "--copies", &copies][..],
            &["--per-second", &rate, "--source-port", &source, "--until", enough],
        ];
        if until.exists() {
            std::fs::remove_file(&until)?;
        }
        let sender = agent(lab, from, "udp-send", &arguments.concat())?;
        Ok(UdpFlows { sender, until })
    }

    /// Fails if the last datagram has been sent.
    ///
    /// # Errors
    /// As said.
    pub fn must_go_on(&mut self) -> Result<()> {
        self.sender.must_run()
    }

    /// Ends the flows, however many datagrams are left, and says how many there were.
    ///
    /// # Errors
    /// As [`UdpFlows::finish`].
    pub fn stop(self) -> Result<u64> {
        std::fs::write(&self.until, "")?;
        self.finish()
    }

    /// Waits for the last datagram and says how many there were.
    ///
    /// # Errors
    /// A datagram cannot be sent.
    pub fn finish(mut self) -> Result<u64> {
        let told: Value = json(&self.sender.finish(TRANSFER)?)?;
        told["packets"].as_u64().context("udp-send told no number of packets")
    }
}

fn json<Answer: DeserializeOwned>(text: &str) -> Result<Answer> {
    serde_json::from_str(text).with_context(|| format!("not the expected JSON: {text}"))
}

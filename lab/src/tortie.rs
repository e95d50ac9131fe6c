//! A node whose router is Tortie, and what `tortie show` says of it.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::process::{Command, Output};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::netns::Namespace;
use crate::process::Process;
use crate::{Lab, command};

/// How long a question to a running router may take.
const QUESTION: Duration = Duration::from_secs(30);
/// How long a router may take until it answers questions.
const START: Duration = Duration::from_secs(90);

/// What stands in a node's configuration file, as far as scenarios change it.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The interfaces that face other machines.
    pub uplinks: Vec<String>,
    /// How many pinned cores.
    pub workers: u32,
    /// Where metrics are served, if they are.
    pub metrics: Option<SocketAddr>,
    /// Where resources are read, in YAML's flow form; as the lab has it where nothing is said.
    pub datastore: Option<String>,
    /// Further lines, each with its end.
    pub more: String,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            uplinks: vec!["eth0".to_owned()],
            workers: 1,
            metrics: None,
            datastore: None,
            more: String::new(),
        }
    }
}

/// A Calico node with Tortie in the place of Felix and BIRD.
pub struct TortieNode {
    namespace: Namespace,
    configuration: PathBuf,
    socket: PathBuf,
    binary: PathBuf,
    process: RefCell<Option<Process>>,
}

impl TortieNode {
    /// Writes the node's configuration file; [`TortieNode::start`] starts it.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn configure(
        lab: &Lab,
        namespace: &Namespace,
        resources: &std::path::Path,
        settings: &Settings,
    ) -> Result<TortieNode> {
        let name = namespace.name();
        let configuration = lab.directory().join(format!("{name}.yaml"));
        let socket = lab.directory().join(format!("{name}.sock"));
        let metrics =
            settings.metrics.map_or(String::new(), |listen| format!("metrics: {{ listen: \"{listen}\" }}\n"));
        let datastore = match &settings.datastore {
            Some(datastore) => datastore.clone(),
            None => lab.datastore(resources)?,
        };
        let text = format!(
            "node: {name}\n\
             datastore: {}\n\
             uplinks: [{}]\n\
             workloads: {{ prefix: cali, mtu_file: {} }}\n\
             workers: {}\n\
             control_socket: {}\n\
             log: {{ format: text, level: info }}\n\
             mode: auto\n\
             {metrics}{}",
            datastore,
            settings.uplinks.join(", "),
            // Not this machine's own: other labs have theirs, and a CNI plugin may read it.
            lab.directory().join(format!("{name}.mtu")).display(),
            settings.workers,
            socket.display(),
            settings.more
        );
        std::fs::write(&configuration, text)?;
        Ok(TortieNode {
            namespace: namespace.clone(),
            configuration,
            socket,
            binary: lab.tools().tortie.clone(),
            process: RefCell::default(),
        })
    }

    /// Its name, in the lab and as a Calico node.
    pub fn name(&self) -> &str {
        self.namespace.name()
    }

    /// Where it runs.
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// The command that runs the router.
    pub fn run_command(&self) -> Command {
        let mut command = self.namespace.command(&self.binary);
        command.arg("run").arg("-c").arg(&self.configuration);
        command
    }

    /// Its configuration file.
    pub fn configuration(&self) -> &std::path::Path {
        &self.configuration
    }

    /// Starts the router and waits until it answers questions.
    ///
    /// # Errors
    /// It ends, or does not answer in time; its last words are told.
    pub fn start(&self, lab: &Lab) -> Result<()> {
        self.spawn(lab)?;
        self.answers(lab, START)
    }

    /// Starts the router.
    ///
    /// # Errors
    /// The program can't be started.
    pub fn spawn(&self, lab: &Lab) -> Result<()> {
        *self.process.borrow_mut() = Some(lab.spawn(self.name(), self.run_command())?);
        Ok(())
    }

    /// Waits until the router answers questions.
    ///
    /// # Errors
    /// It ends, or does not answer in time; its last words are told.
    pub fn answers(&self, lab: &Lab, limit: Duration) -> Result<()> {
        lab.wait(&format!("tortie on {}", self.name()), limit, || {
            if let Err(error) = self.must_run() {
                // Waiting longer cannot help.
                return Ok(Some(Err(error)));
            }
            self.show::<ShowDrops>("drops").map(|_| Some(Ok(())))
        })?
    }

    /// SIGKILL to the router.
    ///
    /// # Errors
    /// It does not run.
    pub fn kill(&self) -> Result<()> {
        self.process.borrow_mut().as_mut().with_context(|| self.not_running())?.kill()
    }

    /// SIGTERM to the router, and the wait for its end.
    ///
    /// # Errors
    /// It does not run.
    pub fn stop(&self) -> Result<()> {
        self.process.borrow_mut().as_mut().with_context(|| self.not_running())?.stop()
    }

    /// Fails with the router's last words if it has ended.
    ///
    /// # Errors
    /// It has ended.
    pub fn must_run(&self) -> Result<()> {
        self.process.borrow_mut().as_mut().with_context(|| self.not_running())?.must_run()
    }

    /// All that the router has logged since it was started.
    pub fn said(&self) -> String {
        self.process.borrow().as_ref().map(Process::said).unwrap_or_default()
    }

    /// The router's process.
    ///
    /// # Errors
    /// It does not run.
    pub fn identity(&self) -> Result<crate::process::Identity> {
        Ok(self.process.borrow().as_ref().with_context(|| self.not_running())?.identity())
    }

    /// The memory that the router holds, in bytes.
    ///
    /// # Errors
    /// It does not run.
    pub fn resident_bytes(&self) -> Result<u64> {
        self.process.borrow().as_ref().with_context(|| self.not_running())?.resident_bytes()
    }

    /// For how long the router's threads of these names have run.
    ///
    /// # Errors
    /// It does not run.
    pub fn threads_time(&self, names: &[&str]) -> Result<Duration> {
        self.process.borrow().as_ref().with_context(|| self.not_running())?.threads_time(names)
    }

    /// `tortie show WHAT -o json` of this node.
    ///
    /// # Errors
    /// The router does not answer, or in another form than documented.
    pub fn show<Answer: DeserializeOwned>(&self, what: &str) -> Result<Answer> {
        let mut question = self.show_command(what);
        let text = command::run(question.args(["-o", "json"]), QUESTION)?;
        serde_json::from_str(&text).with_context(|| format!("`{}` said: {text}", command::typed(&question)))
    }

    /// `tortie show WHAT` as a person reads it, whatever its exit status.
    ///
    /// # Errors
    /// It cannot be run.
    pub fn show_text(&self, what: &str) -> Result<Output> {
        command::output(&mut self.show_command(what), QUESTION)
    }

    /// The command that asks this node.
    pub fn show_command(&self, what: &str) -> Command {
        let mut command = Command::new(&self.binary);
        command.arg("show").args(what.split(' ')).arg("--socket").arg(&self.socket);
        command
    }

    /// The command that captures frames into a file, with these arguments.
    pub fn capture_command(&self, arguments: &str) -> Command {
        let mut command = Command::new(&self.binary);
        command.arg("capture").args(arguments.split(' ')).arg("--socket").arg(&self.socket);
        command
    }

    /// `tortie trace` of this node, with some arguments and as JSON: the command that asks.
    pub fn trace_command(&self, arguments: &str) -> Command {
        let mut command = Command::new(&self.binary);
        command.arg("trace").args(arguments.split(' ')).args(["-o", "json", "--socket"]).arg(&self.socket);
        command
    }

    /// The BGP sessions that are Established, or why not all are.
    ///
    /// # Errors
    /// The router does not answer, or fewer than `expected` sessions are up.
    pub fn established(&self, expected: usize) -> Result<Vec<Peer>> {
        let peers = self.show::<ShowBgp>("bgp")?.peers;
        let up = peers.iter().filter(|peer| peer.up && peer.state == "Established").count();
        if up < expected || up < peers.len() {
            let state = |peer: &Peer| {
                let error = peer.last_error.as_deref().map(|error| format!(", {error}")).unwrap_or_default();
                format!("{} is {}{error}", peer.address, peer.state)
            };
            bail!("{}: {}", self.name(), peers.iter().map(state).collect::<Vec<_>>().join("; "));
        }
        Ok(peers)
    }

    fn not_running(&self) -> String {
        format!("tortie on {} was not started", self.name())
    }
}

/// `tortie show bgp`.
#[derive(Clone, Debug, Deserialize)]
pub struct ShowBgp {
    /// Every session asked for.
    pub peers: Vec<Peer>,
}

/// One session of [`ShowBgp`].
#[derive(Clone, Debug, Deserialize)]
pub struct Peer {
    /// Such as `Mesh_172_18_0_2`.
    pub name: String,
    /// The peer's address.
    pub address: IpAddr,
    /// The peer's AS number.
    pub asn: u32,
    /// `node-to-node mesh`, `global` or `node specific`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The state's name in RFC 4271.
    pub state: String,
    /// Whether it is Established.
    pub up: bool,
    /// When it entered the state: RFC 3339, UTC.
    pub since: String,
    /// Seconds in the state.
    pub since_seconds: u64,
    /// How often it came up.
    pub established_count: u64,
    /// Routes received.
    pub received: PerFamily,
    /// Routes announced.
    pub announced: PerFamily,
    /// Why the session last went down.
    pub last_error: Option<String>,
}

/// A number per family.
#[derive(Clone, Copy, Debug, Deserialize)]
pub struct PerFamily {
    /// Of IPv4.
    pub ipv4: u64,
    /// Of IPv6.
    pub ipv6: u64,
}

/// `tortie show routes`.
#[derive(Clone, Debug, Deserialize)]
pub struct ShowRoutes {
    /// Every route.
    pub routes: Vec<Route>,
    /// How many.
    pub total: u64,
    /// How many of each source.
    #[serde(default)]
    pub counts: BTreeMap<String, u64>,
}

/// One route of [`ShowRoutes`].
#[derive(Clone, Debug, Deserialize)]
pub struct Route {
    /// Where to.
    pub prefix: String,
    /// Who offered it.
    pub source: String,
    /// The ways there.
    pub nexthops: Vec<Nexthop>,
    /// Whether the fast path has it.
    pub installed: bool,
}

/// `tortie show route ADDR`.
#[derive(Clone, Debug, Deserialize)]
pub struct ShowRoute {
    /// The longest prefix that covers the address.
    pub prefix: Option<String>,
    /// Who offered it.
    pub source: Option<String>,
    /// What becomes of a packet to it.
    pub fate: String,
    /// The ways there.
    #[serde(default)]
    pub nexthops: Vec<Nexthop>,
}

/// One way of a route.
#[derive(Clone, Debug, Deserialize)]
pub struct Nexthop {
    /// The neighbor it goes through.
    pub via: Option<IpAddr>,
    /// The port it leaves by.
    pub port: Option<String>,
    /// The neighbor's MAC address.
    pub mac: Option<String>,
    /// `blackhole` and the like, where it goes through nobody.
    pub kind: Option<String>,
    /// The tunnel that the neighbor leads to.
    pub tunnel: Option<Tunnel>,
}

/// The tunnel of a [`Nexthop`].
#[derive(Clone, Debug, Deserialize)]
pub struct Tunnel {
    /// `ipip` or `vxlan`.
    pub kind: String,
    /// The outer source address.
    pub local: IpAddr,
    /// The outer destination address.
    pub remote: IpAddr,
    /// VXLAN's network identifier.
    pub vni: Option<u32>,
}

/// `tortie show datastore`.
#[derive(Clone, Debug, Deserialize)]
pub struct ShowDatastore {
    /// Whether its first snapshot is in.
    pub in_sync: bool,
    /// How long it took until that was in force.
    pub load_seconds: Option<f64>,
    /// Since when it can't be followed: RFC 3339.
    pub stale_since: Option<String>,
    /// Why.
    pub stale_reason: Option<String>,
    /// Changes that came and are in force.
    pub changes: u64,
    /// Half of those since the first snapshot took no longer, from the datastore's word until they were in force.
    pub median_delay_seconds: f64,
    /// 99 of 100 of them took no longer.
    pub p99_delay_seconds: f64,
    /// The longest that one took.
    pub longest_delay_seconds: f64,
    /// What can't be read, with the reason for each.
    pub invalid: BTreeMap<String, String>,
}

/// `tortie show tables --fingerprints`.
#[derive(Clone, Debug, Deserialize)]
pub struct ShowFingerprints {
    /// A table each.
    pub fingerprints: Vec<Fingerprint>,
}

/// What one table means.
#[derive(Clone, Debug, Deserialize)]
pub struct Fingerprint {
    /// Which.
    pub table: String,
    /// How many rows it has.
    pub rows: usize,
    /// The same where it means the same.
    pub fingerprint: String,
}

/// `tortie show ports`.
#[derive(Clone, Debug, Deserialize)]
pub struct ShowPorts {
    /// Every port.
    pub ports: Vec<Port>,
    /// The MTU that workloads are brought down to, if they are.
    #[serde(default)]
    pub workload_mtu: Option<u32>,
}

/// One port of [`ShowPorts`].
#[derive(Clone, Debug, Deserialize)]
pub struct Port {
    /// The interface's name.
    pub name: String,
    /// Uplink, workload, host.
    pub kind: String,
    /// Its MTU in bytes.
    pub mtu: u16,
    /// Whether it carries frames.
    pub up: bool,
    /// What is wrong with it, in words.
    #[serde(default)]
    pub warnings: Vec<String>,
    /// Limits of its endpoint, if it has any.
    #[serde(default)]
    pub qos: Option<Qos>,
    /// What each queue really got.
    #[serde(default)]
    pub queues: Vec<Queue>,
}

/// The limits of a [`Port`]'s endpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Qos {
    /// Every limit.
    pub limits: Vec<Limit>,
    /// The DSCP that packets leave with.
    pub dscp: Option<u8>,
}

/// One limit of [`Qos`].
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Limit {
    /// `ingress` or `egress`.
    pub direction: String,
    /// `bandwidth`, `packet_rate` or `connections`.
    pub limit: String,
    /// Bits or packets a second, or connections at a time.
    pub rate: u64,
    /// Packets dropped.
    pub dropped: u64,
}

/// One queue of [`Port`].
#[derive(Clone, Debug, Deserialize)]
pub struct Queue {
    /// Its number.
    pub queue: u32,
    /// The worker that owns it.
    pub worker: u32,
    /// `zero-copy` or `copy`.
    pub mode: String,
    /// `native` or `generic`.
    pub attach: String,
    /// Largest IP packet that it can receive, in bytes.
    #[serde(default)]
    pub receivable: u32,
    /// What it really got, in words.
    #[serde(default)]
    pub notes: String,
    /// What the kernel counted.
    pub xdp: XdpCounts,
}

/// The kernel's counters of one queue (`XDP_STATISTICS`), as far as they tell of losses; at most a second old.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
pub struct XdpCounts {
    /// Frames that came when a worker asked the driver.
    #[serde(default)]
    pub rx_busy_polled: u64,
    /// Frames dropped for other reasons than a full ring.
    pub rx_dropped: u64,
    /// Frames longer than any of the router's.
    #[serde(default)]
    pub rx_too_long: u64,
    /// Frames lost because the receive ring was full.
    pub rx_ring_full: u64,
    /// How often the kernel found no free frame to receive into.
    pub rx_fill_ring_empty: u64,
}

/// `tortie show segments`.
#[derive(Clone, Debug, Deserialize)]
pub struct ShowSegments {
    /// Every segment.
    pub segments: Vec<Segment>,
}

/// A VXLAN segment.
#[derive(Clone, Debug, Deserialize)]
pub struct Segment {
    /// Its name.
    pub name: String,
    /// What an operator should know.
    pub problems: Vec<String>,
    /// Its forwarding database.
    pub fdb: Vec<FdbEntry>,
    /// The other ends that routes lead to.
    pub ends: Vec<SegmentEnd>,
    /// What has happened, by name.
    pub counts: BTreeMap<String, u64>,
}

/// Behind which tunnel a station is.
#[derive(Clone, Debug, Deserialize)]
pub struct FdbEntry {
    /// Its MAC address.
    pub mac: String,
    /// The other end's address outside.
    pub remote: IpAddr,
    /// `static`, `learned` or `flood`.
    pub origin: String,
}

/// An end that routes lead to.
#[derive(Clone, Debug, Deserialize)]
pub struct SegmentEnd {
    /// Its address inside.
    pub address: IpAddr,
    /// Its MAC address, once known.
    pub mac: Option<String>,
    /// Its address outside, once known.
    pub remote: Option<IpAddr>,
    /// How sure the router is.
    pub state: String,
}

/// `tortie show drops`: the books of the fast path (D6).
#[derive(Clone, Debug, Deserialize)]
pub struct ShowDrops {
    /// Frames that ports received.
    pub received: u64,
    /// Frames that the slow path sent down.
    pub injected: u64,
    /// Frames given to a port.
    pub forwarded: u64,
    /// Packets cut into fragments.
    pub fragmented: u64,
    /// Fragments made.
    pub fragments: u64,
    /// Frames given to the slow path.
    pub punted: ByReason,
    /// Frames lost, each for a reason.
    pub dropped: ByReason,
    /// Whether the router itself finds its books balanced.
    pub balanced: bool,
}

/// A total and its parts.
#[derive(Clone, Debug, Deserialize)]
pub struct ByReason {
    /// The sum.
    pub total: u64,
    /// Its parts.
    pub reasons: BTreeMap<String, u64>,
}

impl ByReason {
    /// How many for this reason.
    pub fn of(&self, reason: &str) -> u64 {
        self.reasons.get(reason).copied().unwrap_or(0)
    }
}

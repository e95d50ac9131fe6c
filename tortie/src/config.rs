//! `tortie.yaml`: read once, validated into a [`Config`] that can't be wrong.
//!
//! ```yaml
//! node: node1
//! datastore: { directory: /etc/tortie/resources }
//! uplinks: [eth0]
//! workloads: { prefix: cali, mtu: auto }
//! workers: 2
//! cores: [2, 3]
//! control_socket: /run/tortie/tortie.sock
//! bird_sockets: /var/run/calico
//! metrics: { listen: "127.0.0.1:9191" }
//! looking_glass: { listen: "127.0.0.1:9192" }
//! log: { format: text, level: info }
//! mode: auto
//! queues: 2
//! waiting: adaptive
//! segments: []
//! bgp: { announce: calico, secrets: /etc/tortie/secrets }
//! bfd: { minimum_recv_interval: 10, minimum_send_interval: 100, idle_send_interval: 1000, multiplier: 5 }
//! ecmp: { symmetric: false }
//! limits: { routes_v4: 1000000 }
//! ```
//!
//! Only `node` (or `NODENAME` in the environment), `datastore` and `uplinks` must be there. Unknown fields are refused: a misspelt one would otherwise
//! silently leave its default in force.

mod bgp;
mod datastore;
mod endpoints;
mod error;
mod field;
mod file;
mod peer_options;
mod segments;
mod startup;
mod stations;
mod tuning;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

pub(crate) use endpoints::{Endpoint, TlsFiles};
pub(crate) use error::{ConfigError, Reason};

use ::datastore::DatastoreSettings;
use fastpath::Waiting;
use slowpath::{BfdSettings, BgpSettings, Segment};

use crate::limits::{self, Limits};
use crate::tuning::Tuning;
use field::Field;
use file::{Entry, File, LimitsFields, Section};

/// Where the file is unless the command line says otherwise.
pub(crate) const CONFIGURATION: &str = "/etc/tortie/tortie.yaml";
/// Where the control socket is unless the file says otherwise.
pub(crate) const CONTROL_SOCKET: &str = "/run/tortie/tortie.sock";
/// Where passwords are unless the file says otherwise.
const SECRETS: &str = "/etc/tortie/secrets";
/// Where Calico's CNI plugin looks for it (`writeMTUFile` in `felix/dataplane/linux/int_dataplane.go`).
const MTU_FILE: &str = "/var/lib/calico/mtu";

/// Everything that an operator can set for this box.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Config {
    /// This node's name in the datastore.
    pub(crate) node: String,
    /// Where Calico's resources are.
    pub(crate) datastore: DatastoreSettings,
    /// The directory of BGP sessions' passwords.
    pub(crate) secrets: PathBuf,
    /// How peers are watched by BFD.
    pub(crate) bfd: BfdSettings,
    /// Interfaces towards other nodes and routers; at least one, no two alike.
    pub(crate) uplinks: Vec<String>,
    /// Interfaces whose names begin with this lead to workloads.
    pub(crate) workload_prefix: String,
    /// Is the MTU of workload interfaces brought down to what the tunnels in use leave?
    pub(crate) lower_workload_mtu: bool,
    /// Where the CNI plugin reads the MTU of new workloads.
    pub(crate) mtu_file: PathBuf,
    /// Pinned cores of the fast path.
    pub(crate) workers: usize,
    /// The core of each worker; absent where the program chooses.
    pub(crate) cores: Option<Vec<usize>>,
    /// Where `tortie show` asks.
    pub(crate) control_socket: PathBuf,
    /// The directory of BIRD's control sockets, where calicoctl asks; absent is off.
    pub(crate) bird_sockets: Option<PathBuf>,
    /// Where metrics are served; absent is off.
    pub(crate) metrics: Option<Endpoint>,
    /// Where the looking glass is served; absent is off.
    pub(crate) looking_glass: Option<Endpoint>,
    /// How the log is written.
    pub(crate) log: LogConfig,
    /// What to ask the driver for.
    pub(crate) mode: Mode,
    /// Queues of each uplink that are asked for.
    pub(crate) queues: usize,
    /// What a worker does while there are no packets.
    pub(crate) waiting: Waiting,
    /// Do workers' own calls have the drivers of uplinks bring packets, instead of interrupts?
    pub(crate) busy_poll: bool,
    /// VXLAN overlays that this node joins besides Calico's.
    pub(crate) segments: Vec<Segment>,
    /// BGP beyond Calico's resources.
    pub(crate) bgp: BgpSettings,
    /// How flows choose among equally good next hops.
    pub(crate) ecmp: EcmpConfig,
    /// The size of every table.
    pub(crate) limits: Limits,
    /// What calico/node does at its start, by environment variable; absent where the datastore is only read.
    pub(crate) startup: Option<BTreeMap<&'static str, String>>,
    /// What may be changed of the machine; absent where nothing may.
    pub(crate) tuning: Option<Tuning>,
}

/// How flows choose among equally good next hops.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct EcmpConfig {
    /// Do both directions of a flow choose alike?
    pub(crate) symmetric: bool,
    /// What the choice depends on besides the flow; absent where it follows from the boot and the node's name.
    pub(crate) seed: Option<u64>,
}

/// How the log is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LogConfig {
    /// For people or for programs.
    pub(crate) format: LogFormat,
    /// The least severe messages that are written.
    pub(crate) level: tracing::Level,
}

/// The form of a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LogFormat {
    /// A line for people.
    Text,
    /// One JSON object a line.
    Json,
}

/// What a queue is asked to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Zero-copy where the driver can, copy elsewhere.
    Auto,
    /// Zero-copy on uplinks or nothing.
    ZeroCopy,
    /// Copy everywhere.
    Copy,
}

impl Config {
    /// Where the router writes down which of the kernel's reserved ports are its own: beside the control socket, in a
    /// directory that a restart of the machine empties, as it empties the kernel's list.
    pub(crate) fn reserved_ports(&self) -> PathBuf {
        self.control_socket.with_extension("reserved-ports")
    }

    /// Where it writes down what the kernel's settings were before, likewise.
    pub(crate) fn former_settings(&self) -> PathBuf {
        self.control_socket.with_extension("former-settings")
    }

    /// Where it writes down what it tuned was before, likewise.
    pub(crate) fn tuned(&self) -> PathBuf {
        self.control_socket.with_extension("tuned")
    }

    /// Reads and validates the file.
    ///
    /// # Errors
    /// The first thing that is wrong, with file, line, field, reason and what to do.
    pub(crate) fn read(path: &Path) -> Result<Config, ConfigError> {
        let at = |reason| ConfigError { file: path.to_owned(), position: None, field: None, reason };
        let bytes = std::fs::metadata(path).map_err(|error| at(Reason::Unreadable(error)))?.len();
        if bytes > file::MAX_BYTES {
            return Err(at(Reason::TooLarge { bytes, max: file::MAX_BYTES }));
        }
        let text = std::fs::read_to_string(path).map_err(|error| at(Reason::Unreadable(error)))?;
        Config::parse(path, &text)
    }

    /// Validates a file's text; `path` is for error messages.
    fn parse(path: &Path, text: &str) -> Result<Config, ConfigError> {
        // An empty file is one without fields, and is told which one it lacks first.
        let file: Option<Section<File>> =
            serde_saphyr::from_str(text).map_err(|error| ConfigError::yaml(path, &error))?;
        let Section(file) = file.unwrap_or_default();
        Config::from_file(&file).map_err(|fault| fault.within(path))
    }

    fn from_file(file: &File) -> Result<Config, field::Fault> {
        let workers = field("workers", &file.workers)
            .map(|field| field.number(limits::WORKERS))
            .transpose()?
            .unwrap_or(1);
        let workload_prefix = workload_prefix(file)?;
        let (waiting, busy_poll) = waiting(file)?;
        let limits = table_limits(file.limits.as_ref().map(|Section(fields)| fields))?;
        Ok(Config {
            node: node(file)?,
            datastore: datastore::datastore(file)?,
            secrets: secrets(file)?,
            bfd: bfd(file)?,
            uplinks: uplinks(file, &workload_prefix)?,
            workload_prefix,
            lower_workload_mtu: lower_workload_mtu(file)?,
            mtu_file: mtu_file(file)?,
            workers,
            cores: cores(file, workers)?,
            control_socket: control_socket(file)?,
            bird_sockets: bird_sockets(file)?,
            metrics: endpoints::endpoint("metrics", &file.metrics)?,
            looking_glass: endpoints::endpoint("looking_glass", &file.looking_glass)?,
            log: log(file)?,
            mode: mode(file)?,
            queues: field("queues", &file.queues)
                .map(|field| field.number(limits::WORKERS))
                .transpose()?
                .unwrap_or(workers),
            waiting,
            busy_poll,
            segments: segments::segments(file)?,
            bgp: bgp::settings(file, &limits)?,
            ecmp: ecmp(file)?,
            limits,
            startup: startup::startup(file)?,
            tuning: tuning::tuning(file, busy_poll)?,
        })
    }
}

/// A field that is there and not empty.
fn field<'a>(path: &'static str, entry: &'a Option<Entry>) -> Option<Field<'a>> {
    Field::new(path, entry.as_ref()?)
}

fn required<'a>(
    path: &'static str,
    entry: &'a Option<Entry>,
    example: &'static str,
) -> Result<Field<'a>, field::Fault> {
    field(path, entry).ok_or(field::Fault::missing(path, example))
}

fn node(file: &File) -> Result<String, field::Fault> {
    let Some(field) = field("node", &file.node) else {
        // As calico/node is told.
        return std::env::var("NODENAME")
            .ok()
            .filter(|name| is_node_name(name))
            .ok_or_else(|| field::Fault::missing("node", "node: node1"));
    };
    let name = field.text()?;
    if !is_node_name(name) {
        return Err(field.fault(Reason::NodeName { given: name.to_owned() }));
    }
    Ok(name.to_owned())
}

fn is_node_name(name: &str) -> bool {
    let letter = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = name.as_bytes();
    let framed = bytes.first().is_some_and(|b| letter(*b)) && bytes.last().is_some_and(|b| letter(*b));
    framed && name.len() <= 253 && bytes.iter().all(|b| letter(*b) || b"-.".contains(b))
}

fn secrets(file: &File) -> Result<PathBuf, field::Fault> {
    let entry = file.bgp.as_ref().and_then(|Section(section)| section.secrets.as_ref());
    let field = entry.and_then(|entry| Field::new("bgp.secrets", entry));
    field.map_or(Ok(PathBuf::from(SECRETS)), |field| field.text().map(PathBuf::from))
}

/// Milliseconds, and Calico Enterprise's names (BFDConfiguration).
fn bfd(file: &File) -> Result<BfdSettings, field::Fault> {
    let mut settings = BfdSettings::default();
    let Some(Section(section)) = &file.bfd else { return Ok(settings) };
    let pace = &mut settings.pace;
    for (path, entry, interval) in [
        ("bfd.minimum_recv_interval", &section.minimum_recv_interval, &mut pace.required_min_rx),
        ("bfd.minimum_send_interval", &section.minimum_send_interval, &mut pace.desired_min_tx),
        ("bfd.idle_send_interval", &section.idle_send_interval, &mut pace.idle_tx),
    ] {
        if let Some(field) = field(path, entry) {
            *interval = Duration::from_millis(field.number(limits::BFD_INTERVAL)? as u64);
        }
    }
    if let Some(field) = field("bfd.multiplier", &section.multiplier) {
        pace.detect_mult = field.number((1, u8::MAX.into()))? as u8;
    }
    let truth = |path, entry| field(path, entry).map_or(Ok(false), |field| field.truth());
    settings.multihop = truth("bfd.multihop", &section.multihop)?;
    settings.mesh = truth("bfd.mesh", &section.mesh)?;
    Ok(settings)
}

fn workload_prefix(file: &File) -> Result<String, field::Fault> {
    let entry = file.workloads.as_ref().and_then(|Section(section)| section.prefix.as_ref());
    let Some(field) = entry.and_then(|entry| Field::new("workloads.prefix", entry)) else {
        return Ok("cali".to_owned());
    };
    field.interface_name().map(str::to_owned)
}

fn lower_workload_mtu(file: &File) -> Result<bool, field::Fault> {
    let entry = file.workloads.as_ref().and_then(|Section(section)| section.mtu.as_ref());
    let field = entry.and_then(|entry| Field::new("workloads.mtu", entry));
    field.map_or(Ok(true), |field| field.one_of(&[("auto", true), ("leave", false)]))
}

fn mtu_file(file: &File) -> Result<PathBuf, field::Fault> {
    let entry = file.workloads.as_ref().and_then(|Section(section)| section.mtu_file.as_ref());
    let field = entry.and_then(|entry| Field::new("workloads.mtu_file", entry));
    field.map_or(Ok(PathBuf::from(MTU_FILE)), |field| field.text().map(PathBuf::from))
}

fn uplinks(file: &File, workload_prefix: &str) -> Result<Vec<String>, field::Fault> {
    const EXAMPLE: &str = "uplinks: [eth0]";
    let field = required("uplinks", &file.uplinks, EXAMPLE)?;
    let mut seen = BTreeSet::new();
    let mut names = Vec::new();
    for item in field.items()? {
        let name = item.interface_name()?;
        if name.starts_with(workload_prefix) {
            let prefix = workload_prefix.to_owned();
            return Err(item.fault(Reason::UplinkIsWorkload { name: name.to_owned(), prefix }));
        }
        if !seen.insert(name) {
            return Err(item.fault(Reason::Twice { given: name.to_owned() }));
        }
        names.push(name.to_owned());
    }
    if names.is_empty() { Err(field.fault(Reason::Missing { example: EXAMPLE })) } else { Ok(names) }
}

fn cores(file: &File, workers: usize) -> Result<Option<Vec<usize>>, field::Fault> {
    let Some(field) = field("cores", &file.cores) else { return Ok(None) };
    let mut cores = Vec::new();
    for item in field.items()? {
        let core = item.number((0, 4_095))?;
        if cores.contains(&core) {
            return Err(item.fault(Reason::Twice { given: core.to_string() }));
        }
        cores.push(core);
    }
    if cores.len() != workers {
        return Err(field.fault(Reason::CoresAndWorkers { cores: cores.len(), workers }));
    }
    Ok(Some(cores))
}

/// `sun_path` of `sockaddr_un`, without its closing zero (unix(7)).
const SOCKET_PATH_BYTES: usize = 107;

fn control_socket(file: &File) -> Result<PathBuf, field::Fault> {
    let Some(field) = field("control_socket", &file.control_socket) else {
        return Ok(PathBuf::from(CONTROL_SOCKET));
    };
    socket_path(&field, SOCKET_PATH_BYTES)
}

fn bird_sockets(file: &File) -> Result<Option<PathBuf>, field::Fault> {
    let field = field("bird_sockets", &file.bird_sockets);
    field.map(|field| socket_path(&field, SOCKET_PATH_BYTES - "/bird6.ctl".len())).transpose()
}

fn socket_path(field: &field::Field<'_>, max: usize) -> Result<PathBuf, field::Fault> {
    let path = field.text()?;
    if path.len() > max {
        return Err(field.fault(Reason::SocketPath { bytes: path.len(), max }));
    }
    Ok(PathBuf::from(path))
}

fn log(file: &File) -> Result<LogConfig, field::Fault> {
    use tracing::Level;
    let formats = [("text", LogFormat::Text), ("json", LogFormat::Json)];
    let levels = [
        ("error", Level::ERROR),
        ("warn", Level::WARN),
        ("info", Level::INFO),
        ("debug", Level::DEBUG),
        ("trace", Level::TRACE),
    ];
    let section = file.log.as_ref();
    let format = section.and_then(|Section(log)| field("log.format", &log.format));
    let level = section.and_then(|Section(log)| field("log.level", &log.level));
    Ok(LogConfig {
        format: format.map_or(Ok(LogFormat::Text), |field| field.one_of(&formats))?,
        level: level.map_or(Ok(Level::INFO), |field| field.one_of(&levels))?,
    })
}

fn ecmp(file: &File) -> Result<EcmpConfig, field::Fault> {
    let Some(Section(section)) = &file.ecmp else { return Ok(EcmpConfig::default()) };
    let symmetric = field("ecmp.symmetric", &section.symmetric);
    let seed = field("ecmp.seed", &section.seed);
    Ok(EcmpConfig {
        symmetric: symmetric.map_or(Ok(false), |field| field.truth())?,
        seed: seed.map(|field| field.number((0, usize::MAX))).transpose()?.map(|seed| seed as u64),
    })
}

fn mode(file: &File) -> Result<Mode, field::Fault> {
    let modes = [("auto", Mode::Auto), ("zero-copy", Mode::ZeroCopy), ("copy", Mode::Copy)];
    field("mode", &file.mode).map_or(Ok(Mode::Auto), |field| field.one_of(&modes))
}

/// What workers do while there are no packets, and whether they poll the drivers then.
fn waiting(file: &File) -> Result<(Waiting, bool), field::Fault> {
    let ways = [
        ("adaptive", (Waiting::Adaptive, false)),
        ("busy", (Waiting::Busy, false)),
        ("busy-poll", (Waiting::Busy, true)),
        ("interrupt", (Waiting::Interrupt, false)),
    ];
    field("waiting", &file.waiting).map_or(Ok((Waiting::default(), false)), |field| field.one_of(&ways))
}

fn table_limits(fields: Option<&LimitsFields>) -> Result<Limits, field::Fault> {
    let mut limits = Limits::default();
    let Some(fields) = fields else { return Ok(limits) };
    let places = [
        ("limits.routes_v4", &fields.routes_v4, Limits::ROUTES, &mut limits.routes_v4),
        ("limits.routes_v6", &fields.routes_v6, Limits::ROUTES, &mut limits.routes_v6),
        ("limits.ports", &fields.ports, Limits::PORTS, &mut limits.ports),
        ("limits.adjacencies", &fields.adjacencies, Limits::ROWS, &mut limits.adjacencies),
        ("limits.groups", &fields.groups, Limits::GROUPS, &mut limits.groups),
        ("limits.frames", &fields.frames, Limits::FRAMES, &mut limits.frames),
        ("limits.large_frames", &fields.large_frames, Limits::LARGE_FRAMES, &mut limits.large_frames),
        ("limits.neighbors", &fields.neighbors, Limits::ROWS, &mut limits.neighbors),
        ("limits.flows", &fields.flows, Limits::FLOWS, &mut limits.flows),
        (
            "limits.nat_ports_per_address",
            &fields.nat_ports_per_address,
            Limits::NAT_PORTS,
            &mut limits.nat_ports_per_address,
        ),
        (
            "limits.policy_programs",
            &fields.policy_programs,
            Limits::POLICY_PROGRAMS,
            &mut limits.policy_programs,
        ),
        ("limits.policy_rules", &fields.policy_rules, Limits::ROUTES, &mut limits.policy_rules),
        ("limits.policy_members", &fields.policy_members, Limits::ROUTES, &mut limits.policy_members),
        ("limits.policy_bytes", &fields.policy_bytes, Limits::POLICY_BYTES, &mut limits.policy_bytes),
        ("limits.mirror_routes", &fields.mirror_routes, Limits::ROUTES, &mut limits.mirror_routes),
        (
            "limits.prefixes_per_peer",
            &fields.prefixes_per_peer,
            Limits::ROUTES,
            &mut limits.prefixes_per_peer,
        ),
    ];
    for (path, entry, range, limit) in places {
        if let Some(field) = field(path, entry) {
            *limit = field.number(range)?;
        }
    }
    limits.mtu = field("limits.mtu", &fields.mtu).map(|field| field.number(Limits::MTU)).transpose()?;
    Ok(limits)
}

#[cfg(test)]
pub(crate) mod tests;

//! What `tortie` hands the slow path at start-up.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use datastore::DatastoreSettings;
use tables::{Flows, Inject, PolicyReport, Punt, RingConsumer, RingProducer, Writer};
use tokio::sync::{mpsc, oneshot};

use crate::PortOpener;
use crate::bfd::BfdSettings;
use crate::peer_groups::BgpSettings;
use crate::segments::Segment;
use crate::session_guard::SocketOptions;
use crate::status::{Answer, Query};

/// Settings, checked before they come here.
#[derive(Clone, Debug)]
pub struct Config {
    /// This node's name in the datastore.
    pub node: String,
    /// Where Calico's resources are.
    pub datastore: DatastoreSettings,
    /// The directory of BGP sessions' passwords: a file `NAME/KEY` for each that a resource names.
    pub secrets: PathBuf,
    /// How peers are watched whose BGPPeers ask for it.
    pub bfd: BfdSettings,
    /// Interfaces that are uplinks.
    pub uplinks: Vec<String>,
    /// Interfaces whose names begin with this are workload ports: Calico's `interfacePrefix`.
    pub workload_prefix: String,
    /// Is the MTU of workload interfaces brought down to what the tunnels in use leave?
    pub lower_workload_mtu: bool,
    /// The file that names the MTU of new workloads.
    pub mtu_file: PathBuf,
    /// The file that says which of the kernel's reserved ports are ours.
    pub reserved_ports: PathBuf,
    /// Where the kernel's settings are written down as they were before the router changed them.
    pub former_settings: PathBuf,
    /// Largest IP packet that frames hold, in bytes.
    pub receivable: u32,
    /// VXLAN segments that this node joins besides Calico's.
    pub segments: Vec<Segment>,
    /// BGP beyond Calico's resources.
    pub bgp: BgpSettings,
    /// Most routes that the kernel's mirror may hold.
    pub mirror_routes: usize,
    /// Most neighbours that are remembered.
    pub neighbors: usize,
    /// Most prefixes taken from one BGP peer.
    pub prefixes_per_peer: usize,
    /// How long a clean stop waits for its last messages to leave.
    pub stop_within: Duration,
}

/// The slow path's ends of what it shares with the workers.
pub struct Ends {
    /// The tables.
    pub writer: Writer,
    /// One punt ring a worker.
    pub punts: Vec<RingConsumer<Punt>>,
    /// One inject ring a worker.
    pub injects: Vec<RingProducer<Inject>>,
    /// What the workers remember of flows.
    pub flows: Flows,
    /// What the workers tell of policy.
    pub policy_report: PolicyReport,
    /// Who opens ports.
    pub ports: Box<dyn PortOpener>,
    /// Who sets the options of BGP's sockets that need unsafe code.
    pub session_sockets: Arc<dyn SocketOptions>,
    /// Has the calling thread come before others, where that is permitted; that needs unsafe code, too.
    pub come_first: fn() -> std::io::Result<()>,
}

/// A question and where its answer goes.
pub struct Request {
    /// The question.
    pub query: Query,
    /// Where the answer goes; a questioner that went away is ignored.
    pub reply: oneshot::Sender<Answer>,
}

/// Starts the slow path and runs it until `stop` is set, then closes in an orderly way:
/// sessions end so that peers keep our routes (RFC 4724), ports stay with their fall-back (D1).
pub struct Slowpath {
    pub(crate) config: Config,
    pub(crate) ends: Ends,
    pub(crate) requests: mpsc::Receiver<Request>,
    pub(crate) stop: Arc<AtomicBool>,
}

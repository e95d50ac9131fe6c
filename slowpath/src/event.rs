//! Everything that can happen to the slow path but what BGP says (`bgp_thread.rs`): one closed list, one queue.

use std::io;
use std::net::SocketAddr;
use std::time::Instant;

use bgp::ConnectionId;
use bgp::bmp::StationId;
use model::AsNumber;
use tokio::net::TcpStream;

use crate::interfaces::KernelEvent;
use crate::peers::AttemptId;
use crate::stations::StationEvent;

/// One thing that happened. I/O tasks send these; the event loop alone acts on them.
#[derive(Debug)]
pub enum Event {
    /// The kernel's links, addresses, neighbours or routes changed.
    Kernel(KernelEvent),
    /// The kernel can't be listened to any more.
    KernelLost(String),
    /// A resource, or a file that is no resource.
    Datastore {
        /// What the datastore told.
        event: datastore::Event,
        /// When.
        at: Instant,
    },
    /// Somebody connected to the BGP port.
    Accepted {
        /// The connection.
        stream: TcpStream,
        /// Who.
        remote: SocketAddr,
    },
    /// Somebody who connected without being anybody's peer has said who it is.
    Introduced {
        /// The connection, of which nothing is read yet.
        stream: TcpStream,
        /// Who.
        remote: SocketAddr,
        /// Of this AS, by its OPEN.
        as_number: AsNumber,
    },
    /// A connection that the speaker asked for stands.
    Connected {
        /// By this attempt, which may have been given up meanwhile.
        attempt: AttemptId,
        /// The connection.
        stream: TcpStream,
    },
    /// A connection that the speaker asked for did not come to be.
    ConnectFailed {
        /// By this attempt, likewise.
        attempt: AttemptId,
        /// Why.
        error: io::Error,
    },
    /// Something has happened to a monitoring station.
    Station {
        /// To which.
        id: StationId,
        /// What.
        event: StationEvent,
        /// Why, where it is lost.
        problem: Option<String>,
    },
    /// A BGP connection's queue has room again.
    Drained {
        /// Which.
        connection: ConnectionId,
    },
}

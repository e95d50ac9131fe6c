//! A BGP peer that sends whatever it is told, played by the lab's agent.

use std::io::Write;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use serde::Deserialize;

use crate::netns::Namespace;
use crate::process::Process;
use crate::{Lab, command, traffic, wait};

/// The port of BGP.
const PORT: u16 = 179;
/// How long an answer of the router may take.
const ANSWER: Duration = Duration::from_secs(60);
/// How long some hundred connects may take.
const KNOCKS: Duration = Duration::from_secs(180);

/// A NOTIFICATION as it came (RFC 4271 §4.5).
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Notification {
    /// Error code.
    pub code: u8,
    /// Error subcode.
    pub subcode: u8,
    /// What goes with it.
    pub data: Vec<u8>,
}

/// One line of what the agent tells.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Told {
    connected: bool,
    message: Option<u8>,
    notification: Option<Notification>,
    closed: bool,
}

/// A peer with an open connection.
pub struct HostilePeer {
    process: Process,
    orders: PathBuf,
}

impl HostilePeer {
    /// Connects from an address of `namespace` to a router; nothing is sent yet.
    ///
    /// # Errors
    /// The connection does not come up.
    pub fn connect(lab: &Lab, namespace: &Namespace, source: IpAddr, router: IpAddr) -> Result<HostilePeer> {
        let orders = lab.directory().join(format!("orders-{source}"));
        std::fs::write(&orders, "")?;
        let path = orders.to_str().context("the temporary directory's name is not UTF-8")?;
        let connect = SocketAddr::new(router, PORT).to_string();
        let arguments = ["--connect", &connect, "--source", &source.to_string(), "--orders", path];
        let process = traffic::agent(lab, namespace, "bgp-hostile", &arguments)?;
        let mut peer = HostilePeer { process, orders };
        wait::until(&format!("the connection from {source}"), ANSWER, || {
            peer.process.must_run()?;
            Ok(peer.told()?.iter().any(|told| told.connected).then_some(()))
        })?;
        Ok(peer)
    }

    /// Sends these octets.
    ///
    /// # Errors
    /// The order cannot be given.
    pub fn send(&self, octets: &[u8]) -> Result<()> {
        let hex: String = octets.iter().map(|octet| format!("{octet:02x}")).collect();
        self.order(&format!("send {hex}"))
    }

    /// Waits until a message of this type has come.
    ///
    /// # Errors
    /// None came in time.
    pub fn hears(&mut self, kind: u8) -> Result<()> {
        wait::until(&format!("a message of type {kind}"), ANSWER, || {
            self.process.must_run()?;
            Ok(self.told()?.iter().any(|told| told.message == Some(kind)).then_some(()))
        })
    }

    /// Closes the connection without a word.
    ///
    /// # Errors
    /// The agent does not end.
    pub fn close(mut self) -> Result<()> {
        self.order("close")?;
        self.process.finish(ANSWER).map(|_| ())
    }

    /// Waits until the router has closed the connection, and returns the NOTIFICATION that came before.
    ///
    /// # Errors
    /// The connection stays open, or no NOTIFICATION came.
    pub fn is_thrown_out(mut self) -> Result<Notification> {
        wait::until("the router to close the connection", ANSWER, || {
            Ok(self.told()?.iter().any(|told| told.closed).then_some(()))
        })?;
        self.process.finish(ANSWER)?;
        let notification = self.told()?.into_iter().find_map(|told| told.notification);
        notification.context("the router closed the connection without a NOTIFICATION")
    }

    fn order(&self, order: &str) -> Result<()> {
        let mut file = std::fs::OpenOptions::new().append(true).open(&self.orders)?;
        writeln!(file, "{order}").with_context(|| format!("cannot write {}", self.orders.display()))
    }

    fn told(&self) -> Result<Vec<Told>> {
        let text = wait::read(self.process.output())?;
        Ok(text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect())
    }
}

/// Connects `times` times in a row and closes at once; tells how often the router accepted.
///
/// # Errors
/// The agent fails.
pub fn knock(namespace: &Namespace, lab: &Lab, source: IpAddr, router: IpAddr, times: u32) -> Result<u64> {
    let mut agent = namespace.command(&lab.tools().agent);
    agent.args(["bgp-hostile", "--connect", &SocketAddr::new(router, PORT).to_string()]);
    agent.args(["--source", &source.to_string(), "--knocks", &times.to_string()]);
    let told: serde_json::Value = serde_json::from_str(&command::run(&mut agent, KNOCKS)?)?;
    told["accepted"].as_u64().context("the agent told no number of accepted connections")
}

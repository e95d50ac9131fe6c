//! An etcd of a lab, to which a scenario may do anything.
//!
//! Routers live in namespaces of their own, so it listens on a socket of the file system, which all of them share; and on
//! an address, where it is given one, so that a network can come between.

mod mirror;

use std::cell::RefCell;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use datastore::settings::EtcdSettings;
use rustix::process::Signal;

use crate::netns::Namespace;
use crate::process::Process;
use crate::{Lab, command};

pub(crate) use mirror::MirroringEtcd;

/// How long it may take until it answers.
const START: Duration = Duration::from_secs(90);
/// How long one of its own commands may take.
const COMMAND: Duration = Duration::from_secs(90);
const CLIENT: &str = "http://127.0.0.1:2379";
const PEER: &str = "http://127.0.0.1:2380";

/// An etcd of one member.
pub struct EtcdServer {
    namespace: Namespace,
    directory: PathBuf,
    address: Option<IpAddr>,
    arguments: Vec<String>,
    process: RefCell<Option<Process>>,
}

impl EtcdServer {
    /// Starts it in a namespace, whose name it has, and waits until it answers. `address`: one of the namespace's.
    ///
    /// # Errors
    /// It doesn't start.
    pub fn start(
        lab: &Lab,
        namespace: &Namespace,
        address: Option<IpAddr>,
        arguments: &[&str],
    ) -> Result<EtcdServer> {
        let server = EtcdServer {
            namespace: namespace.clone(),
            directory: lab.directory().to_owned(),
            address,
            arguments: arguments.iter().map(ToString::to_string).collect(),
            process: RefCell::default(),
        };
        server.run(lab)?;
        Ok(server)
    }

    /// Runs it again, with what it has stored.
    ///
    /// # Errors
    /// It doesn't start.
    pub fn run(&self, lab: &Lab) -> Result<()> {
        // etcd takes a socket's name for a host and wants a port behind it.
        let mut listen = format!("unix://{},{CLIENT}", self.socket_name());
        if let Some(url) = self.url() {
            listen.push(',');
            listen.push_str(&url);
        }
        // A socket that was left behind is in the way.
        let _ = std::fs::remove_file(self.socket());
        let name = self.namespace.name();
        let mut command = self.namespace.command("etcd");
        command
            .current_dir(&self.directory)
            .args(["--name", name, "--data-dir"])
            .arg(self.data())
            .args(["--listen-client-urls", &listen, "--advertise-client-urls", CLIENT])
            .args(["--listen-peer-urls", PEER, "--initial-advertise-peer-urls", PEER])
            .args(["--initial-cluster", &format!("{name}={PEER}"), "--log-level", "error"])
            .args(&self.arguments);
        let process = lab.spawn(name, command).context("cannot start etcd: is etcd-server installed?")?;
        *self.process.borrow_mut() = Some(process);
        lab.wait(name, START, || Ok(self.ctl(&["get", "/"]).ok().map(drop)))
    }

    /// SIGKILL, as a power cut would have it.
    ///
    /// # Errors
    /// It doesn't run.
    pub fn kill(&self) -> Result<()> {
        self.process.borrow_mut().take().context("etcd doesn't run")?.kill()
    }

    /// It stays as it is and says nothing, until [`EtcdServer::go_on`].
    ///
    /// # Errors
    /// It doesn't run.
    pub fn pause(&self) -> Result<()> {
        self.signal(Signal::STOP)
    }

    /// See [`EtcdServer::pause`].
    ///
    /// # Errors
    /// It doesn't run.
    pub fn go_on(&self) -> Result<()> {
        self.signal(Signal::CONT)
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        self.process.borrow().as_ref().context("etcd doesn't run")?.identity().signal(signal)
    }

    /// A copy of what it has stored, in a file of this name in the lab's directory.
    ///
    /// # Errors
    /// etcdctl refuses.
    pub fn snapshot(&self, name: &str) -> Result<PathBuf> {
        let path = self.directory.join(name);
        self.ctl(&["snapshot", "save", &path.to_string_lossy()])?;
        Ok(path)
    }

    /// Puts a copy in the place of what it has stored, as an operator would after a loss. It must not run.
    ///
    /// # Errors
    /// etcdctl refuses.
    pub fn restore(&self, copy: &Path) -> Result<()> {
        std::fs::remove_dir_all(self.data())?;
        let name = self.namespace.name();
        let mut restore = Command::new("etcdctl");
        restore.env("ETCDCTL_API", "3").args(["snapshot", "restore"]).arg(copy);
        restore.args(["--name", name, "--initial-cluster", &format!("{name}={PEER}")]);
        restore.args(["--initial-advertise-peer-urls", PEER, "--initial-cluster-token", "restored"]);
        restore.arg("--data-dir").arg(self.data());
        command::run(&mut restore, COMMAND).map(drop)
    }

    /// etcd's own client; its output.
    ///
    /// # Errors
    /// It fails.
    pub fn ctl(&self, arguments: &[&str]) -> Result<String> {
        let mut ctl = self.namespace.command("etcdctl");
        ctl.env("ETCDCTL_API", "3").args(["--endpoints", CLIENT]).args(arguments);
        command::run(&mut ctl, COMMAND)
    }

    /// Where anybody of this machine finds it.
    pub fn endpoint(&self) -> String {
        format!("unix://{}", self.socket().display())
    }

    /// Where it is found through the network, if it has an address there.
    pub fn url(&self) -> Option<String> {
        self.address.map(|address| format!("http://{}", std::net::SocketAddr::new(address, 2379)))
    }

    /// How this process gets at it.
    pub fn settings(&self) -> EtcdSettings {
        EtcdSettings { endpoints: vec![self.endpoint()], ..EtcdSettings::default() }
    }

    fn socket_name(&self) -> String {
        format!("{}.socket:0", self.namespace.name())
    }

    fn socket(&self) -> PathBuf {
        self.directory.join(self.socket_name())
    }

    fn data(&self) -> PathBuf {
        self.directory.join(format!("{}.data", self.namespace.name()))
    }
}

//! A real etcd for a test: on loopback, in a directory that goes away, ended by its process id.
//!
//! Each process that tests has an address of its own there, so that no other one's etcd comes to a port that this one has left
//! for a moment.

#![allow(dead_code, reason = "each test takes what it needs of this")]

pub mod babbler;
pub mod proxy;

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use datastore::settings::EtcdSettings;

/// How long it may take to come up, or to answer, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running etcd of one member, or a member of one.
pub struct Etcd {
    directory: tempfile::TempDir,
    process: Option<Child>,
    has_run: bool,
    name: String,
    /// All members and their addresses, where there are several.
    members: Option<String>,
    pub client: SocketAddr,
    peer: SocketAddr,
    scheme: &'static str,
    arguments: Vec<String>,
}

impl Etcd {
    /// Starts one; nothing, after a word about it, where this machine has none.
    pub fn start() -> Option<Etcd> {
        Etcd::with("http", &[])
    }

    /// Three members of one etcd.
    pub fn cluster() -> Option<Vec<Etcd>> {
        let mut cluster: Vec<Etcd> = (0..3).map(|_| Etcd::stopped("http", &[])).collect::<Option<_>>()?;
        for (number, member) in cluster.iter_mut().enumerate() {
            member.name = format!("t{number}");
        }
        let members = cluster.iter().map(|member| format!("{}=http://{}", member.name, member.peer));
        let members = members.collect::<Vec<_>>().join(",");
        // None is up before most of them are.
        for member in &mut cluster {
            member.members = Some(members.clone());
            member.process = Some(member.command().spawn().expect("etcd starts"));
        }
        assert!(cluster.iter_mut().all(Etcd::is_up), "the members find each other");
        Some(cluster)
    }

    /// The same with more arguments.
    pub fn with(scheme: &'static str, arguments: &[&str]) -> Option<Etcd> {
        let mut etcd = Etcd::stopped(scheme, arguments)?;
        etcd.run();
        Some(etcd)
    }

    fn stopped(scheme: &'static str, arguments: &[&str]) -> Option<Etcd> {
        if Command::new("etcd").arg("--version").output().is_err() {
            println!("skipped: no etcd here (Debian's etcd-server has it)");
            return None;
        }
        Some(Etcd {
            directory: tempfile::tempdir().expect("a directory"),
            process: None,
            has_run: false,
            name: "t".to_owned(),
            members: None,
            client: free_port(),
            peer: free_port(),
            scheme,
            arguments: arguments.iter().map(ToString::to_string).collect(),
        })
    }

    /// Runs it again, with what it had stored, at the same place.
    pub fn run(&mut self) {
        assert!(self.process.is_none(), "it runs already");
        for _ in 0..5 {
            let process = self.command().spawn().expect("etcd starts");
            self.process = Some(process);
            if self.is_up() {
                self.has_run = true;
                return;
            }
            self.kill();
            // Whoever listens at every address may have taken a port; once it has run, others know its address.
            if !self.has_run {
                (self.client, self.peer) = (free_port(), free_port());
            }
        }
        panic!("etcd doesn't come up: {}", std::fs::read_to_string(self.log()).unwrap_or_default());
    }

    fn command(&self) -> Command {
        let client = format!("{}://{}", self.scheme, self.client);
        let peer = format!("http://{}", self.peer);
        let members = self.members.clone().unwrap_or_else(|| format!("{}={peer}", self.name));
        let log = std::fs::File::create(self.log()).expect("a log");
        let mut command = Command::new("etcd");
        command
            .args(["--name", &self.name, "--data-dir"])
            .arg(self.directory.path().join("data"))
            .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
            .args(["--initial-cluster", &members, "--log-level", "error"])
            .args(&self.arguments)
            .stdout(Stdio::null())
            .stderr(log);
        command
    }

    fn log(&self) -> std::path::PathBuf {
        self.directory.path().join("log")
    }

    fn is_up(&mut self) -> bool {
        let end = Instant::now() + PATIENCE;
        while Instant::now() < end {
            let ended =
                self.process.as_mut().is_some_and(|process| process.try_wait().is_ok_and(|s| s.is_some()));
            if ended {
                return false;
            }
            // It listens to clients only once it is part of its cluster.
            if TcpStream::connect(self.client).is_ok() {
                return true;
            }
            sleep(Duration::from_millis(20));
        }
        false
    }

    /// Ends it as a power cut would.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }

    /// Puts a copy in the place of what it had stored, as an operator would after a loss.
    pub fn restore(&self, copy: &Path) {
        let data = self.directory.path().join("data");
        std::fs::remove_dir_all(&data).expect("its data");
        let peer = format!("http://{}", self.peer);
        let output = Command::new("etcdctl")
            .env("ETCDCTL_API", "3")
            .args(["snapshot", "restore"])
            .arg(copy)
            .args([
                "--name",
                "t",
                "--initial-cluster",
                &format!("t={peer}"),
                "--initial-advertise-peer-urls",
                &peer,
            ])
            .args(["--initial-cluster-token", "restored", "--data-dir"])
            .arg(data)
            .output()
            .expect("Debian's etcd-client is installed with etcd-server");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    /// How a store gets at it.
    pub fn settings(&self) -> EtcdSettings {
        EtcdSettings { endpoints: vec![self.url()], ..EtcdSettings::default() }
    }

    pub fn url(&self) -> String {
        format!("{}://{}", self.scheme, self.client)
    }

    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// etcd's own client; its output.
    pub fn ctl(&self, arguments: &[&str]) -> String {
        let output = self.try_ctl(arguments);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert!(output.status.success(), "etcdctl {arguments:?}: {}", text(&output.stderr));
        text(&output.stdout)
    }

    pub fn try_ctl(&self, arguments: &[&str]) -> Output {
        // It waits 2 s for a connection and 5 s for an answer, unless it is told to.
        let patience = format!("{}s", PATIENCE.as_secs());
        Command::new("etcdctl")
            .env("ETCDCTL_API", "3")
            .args(["--endpoints", &self.url(), "--dial-timeout", &patience, "--command-timeout", &patience])
            .args(arguments)
            .output()
            .expect("Debian's etcd-client is installed with etcd-server")
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        self.kill();
    }
}

/// This process's own address on loopback: 127.64.0.0/10 has one for each process id there can be.
pub fn host() -> Ipv4Addr {
    Ipv4Addr::from(0x7f40_0000 | std::process::id() & 0x003f_ffff)
}

/// An address where nobody listens, and nobody will by chance: it is below the ports that the kernel gives away, and no
/// other test of this process gets it. So an etcd that was ended finds it free again.
pub fn free_port() -> SocketAddr {
    static GIVEN: AtomicU16 = AtomicU16::new(0);
    loop {
        let port = 20_000 + GIVEN.fetch_add(1, Ordering::Relaxed) % 12_000;
        let address = SocketAddr::from((host(), port));
        if TcpListener::bind(address).is_ok() {
            return address;
        }
    }
}

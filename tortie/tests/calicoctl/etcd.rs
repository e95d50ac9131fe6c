//! A real etcd for a test.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// How long an etcd may take to come up on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// A running etcd of one member, on loopback, in a directory that goes away.
pub(super) struct Etcd {
    process: Child,
    /// Where it listens.
    pub(super) client: SocketAddr,
    /// A directory that goes away with it.
    pub(super) place: tempfile::TempDir,
}

impl Etcd {
    /// Starts one; nothing, after a word about it, where this machine has none.
    pub(super) fn start() -> Option<Etcd> {
        if Command::new("etcd").arg("--version").output().is_err() {
            println!("skipped: no etcd here (Debian's etcd-server has it)");
            return None;
        }
        // Somebody else may take the ports in between.
        (0..5).find_map(|_| Etcd::run()).or_else(|| panic!("etcd doesn't come up"))
    }

    fn run() -> Option<Etcd> {
        let [client, peer] = [(); 2].map(|()| {
            let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
            listener.local_addr().expect("its address")
        });
        let place = tempfile::tempdir().expect("a directory");
        let process = Command::new("etcd")
            .arg("--data-dir")
            .arg(place.path().join("data"))
            .arg(format!("--listen-client-urls=http://{client}"))
            .arg(format!("--advertise-client-urls=http://{client}"))
            .arg(format!("--listen-peer-urls=http://{peer}"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("etcd starts");
        let mut etcd = Etcd { process, client, place };
        let until = Instant::now() + PATIENCE;
        while Instant::now() < until {
            if !matches!(etcd.process.try_wait(), Ok(None)) {
                return None;
            }
            if TcpStream::connect(client).is_ok() {
                return Some(etcd);
            }
            sleep(Duration::from_millis(20));
        }
        None
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

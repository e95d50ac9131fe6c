//! The binary under calicoctl's name, on a directory and on a real etcd.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// How long an etcd may take to come up on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

const PEER: &str = "\
apiVersion: projectcalico.org/v3
kind: BGPPeer
metadata:
  name: bgppeer1
spec:
  node: node1
  peerIP: 192.168.0.250
  asNumber: 64514
";

/// calicoctl with these variables, asked within a directory that has its link.
fn calicoctl(place: &Path, variables: &[(&str, &str)], words: &[&str]) -> (i32, String, String) {
    let link = place.join("calicoctl");
    if !link.exists() {
        std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_tortie"), &link).expect("a link");
        std::fs::write(place.join("peer.yaml"), PEER).expect("a file");
    }
    let Output { status, stdout, stderr } = Command::new(link)
        .args(words)
        .current_dir(place)
        .env_remove("RUST_LOG")
        .env_remove("ETCD_ENDPOINTS")
        .env_remove("DATASTORE_TYPE")
        .envs(variables.iter().copied())
        .output()
        .expect("the binary runs");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
    (status.code().expect("an exit status"), text(stdout), text(stderr))
}

/// What holds on any store.
fn a_resource_lives_and_dies(place: &Path, variables: &[(&str, &str)]) {
    let run = |words: &[&str]| calicoctl(place, variables, words);
    let said = |status, out: &str, error: &str| (status, out.to_owned(), error.to_owned());
    assert_eq!(
        run(&["create", "-f", "peer.yaml"]),
        said(0, "Successfully created 1 'BGPPeer' resource(s)\n", "")
    );
    assert_eq!(
        run(&["create", "-f", "peer.yaml"]),
        said(1, "", "failed to create 'BGPPeer' resource: [resource already exists: BGPPeer(bgppeer1)]\n")
    );
    assert_eq!(
        run(&["get", "bgpPeers"]),
        said(
            0,
            "NAME       PEERIP          NODE    ASN     \nbgppeer1   192.168.0.250   node1   64514   \n\n",
            ""
        )
    );
    let (status, yaml, _) = run(&["get", "bgppeer", "bgppeer1", "-o", "yaml"]);
    assert!(status == 0 && yaml.contains("\n  resourceVersion: \""), "{yaml}");
    assert_eq!(
        run(&["delete", "bgppeer", "bgppeer1"]),
        said(0, "Successfully deleted 1 'BGPPeer' resource(s)\n", "")
    );
    let (status, _, error) = run(&["delete", "bgppeer", "bgppeer1"]);
    assert_eq!(status, 1);
    let expected =
        "Failed to delete 'BGPPeer' resource: resource does not exist: BGPPeer(bgppeer1) with error: <nil>";
    assert!(error.starts_with(expected), "{error}");
    let (status, out, _) = run(&["version"]);
    assert!(status == 0 && out.contains("\nCluster Version:   "), "{out}");
}

#[test]
fn a_directory_is_a_datastore_of_calicoctls() {
    let place = tempfile::tempdir().expect("a directory");
    let resources = place.path().join("resources");
    std::fs::create_dir(&resources).expect("a directory");
    let directory = resources.display().to_string();
    let variables = [("DATASTORE_TYPE", "directory"), ("DATASTORE_DIRECTORY", directory.as_str())];
    a_resource_lives_and_dies(place.path(), &variables);
}

#[test]
fn an_etcd_is_a_datastore_of_calicoctls() {
    let Some(etcd) = Etcd::start() else { return };
    let endpoints = format!("http://{}", etcd.client);
    a_resource_lives_and_dies(etcd.place.path(), &[("ETCD_ENDPOINTS", &endpoints)]);
}

#[test]
fn a_usage_error_is_told_in_calicoctls_words() {
    let place = tempfile::tempdir().expect("a directory");
    let (status, _, error) = calicoctl(place.path(), &[], &["get", "node", "-m"]);
    assert_eq!(status, 1);
    assert!(error.contains("Invalid option: 'get node -m'. Use flag '--help' to read about"), "{error}");
}

#[test]
fn shells_and_man_learn_the_commands() {
    let place = tempfile::tempdir().expect("a directory");
    let tortie = |words: &[&str]| {
        Command::new(env!("CARGO_BIN_EXE_tortie"))
            .args(words)
            .current_dir(place.path())
            .output()
            .expect("it runs")
    };
    for shell in ["bash", "zsh", "fish"] {
        let out = tortie(&["completion", shell]).stdout;
        assert!(String::from_utf8_lossy(&out).contains("ippool") || out.len() > 1000, "{shell}");
    }
    assert!(tortie(&["man", "."]).status.success());
    let page = std::fs::read_to_string(place.path().join("tortie-get.1")).expect("a page");
    assert!(page.contains("Show resources"), "{page}");
}

/// A running etcd of one member, on loopback, in a directory that goes away.
struct Etcd {
    process: Child,
    client: SocketAddr,
    place: tempfile::TempDir,
}

impl Etcd {
    /// Starts one; nothing, after a word about it, where this machine has none.
    fn start() -> Option<Etcd> {
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

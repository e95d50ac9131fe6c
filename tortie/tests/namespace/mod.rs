//! Routers in network namespaces of a test's own.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

pub const BINARY: &str = env!("CARGO_BIN_EXE_tortie");
/// How long a start or a stop may take on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A network namespace; gone when dropped, also after a panic.
pub struct Namespace(pub String);

impl Namespace {
    /// An empty one. `None` where namespaces can't be made here; says why.
    pub fn new(name: &str) -> Option<Namespace> {
        let name = format!("tortie-{name}-{}", std::process::id());
        let made = Command::new("ip").args(["netns", "add", &name]).output();
        match made {
            Ok(output) if output.status.success() => {}
            Ok(output) => {
                println!("skipped: no network namespace: {}", String::from_utf8_lossy(&output.stderr).trim());
                return None;
            }
            Err(error) => {
                println!("skipped: no `ip` command: {error}");
                return None;
            }
        }
        Some(Namespace(name))
    }

    /// What `ip` does inside.
    pub fn ip(&self, command: &str) {
        let arguments: Vec<&str> = ["-n", &self.0].into_iter().chain(command.split(' ')).collect();
        let output = Command::new("ip").args(&arguments).output().expect("ip runs");
        assert!(output.status.success(), "ip {command}: {}", String::from_utf8_lossy(&output.stderr));
    }

    /// A command that runs inside.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.0, program]).env_remove("RUST_LOG");
        command
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.0]).status();
    }
}

/// A running router; killed when dropped.
pub struct Router {
    /// `ip netns exec` becomes the program it runs, so the child's id is the router's.
    pub child: Child,
    log: PathBuf,
}

impl Router {
    /// Starts one by a file of its directory.
    pub fn start(namespace: &Namespace, directory: &Path, config: &str) -> Router {
        let log = directory.join(format!("{config}.log"));
        let file = std::fs::OpenOptions::new().create(true).append(true).open(&log).expect("a log file");
        let child = namespace
            .command(BINARY)
            .args(["run", "-c", config])
            .current_dir(directory)
            .stdout(Stdio::null())
            .stderr(file)
            .spawn()
            .expect("it starts");
        Router { child, log }
    }

    pub fn said(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Waits until `seen` holds.
    pub fn wait(&mut self, what: &str, mut seen: impl FnMut() -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !seen() {
            let ended = self.child.try_wait().expect("its state");
            assert!(ended.is_none(), "it ended while {what} was waited for: {}", self.said());
            assert!(Instant::now() < deadline, "{what} took too long: {}", self.said());
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Router {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// May this test make namespaces? Says so where it may not.
pub fn root() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let root = status.lines().any(|line| line.starts_with("Uid:\t0\t"));
    if !root {
        println!("skipped: needs root");
    }
    root
}

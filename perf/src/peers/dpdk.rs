//! Building programs against Debian's DPDK, starting them, and asking them what they count.

use std::fmt;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use perf::huge_pages::HugePages;
use serde_json::Value;
use socket2::{Domain, SockAddr, Socket, Type};
use tempfile::TempDir;

/// What DPDK's memory consists of.
#[derive(Clone, Copy)]
pub(super) enum Pages<'a> {
    /// Ordinary memory, of this many mebibytes.
    Small(usize),
    /// Huge pages of 2 MiB, as DPDK is meant to run.
    Huge(&'a HugePages),
}

impl Pages<'_> {
    /// Both are told of, since DPDK is often measured without huge pages, and far better with them.
    pub(super) fn rival(self) -> &'static str {
        match self {
            Pages::Small(_) => "DPDK, 4 KiB pages",
            Pages::Huge(_) => "DPDK, 2 MiB pages",
        }
    }
}

impl fmt::Display for Pages<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Pages::Small(_) => "4 KiB pages",
            Pages::Huge(_) => "2 MiB pages",
        })
    }
}

/// Versions of what is compared with; empty where DPDK isn't installed.
pub(super) fn versions() -> Vec<(&'static str, String)> {
    let dpdk = output(Command::new("pkg-config").args(["--modversion", "libdpdk"]));
    let gcc = output(Command::new("gcc").arg("-dumpfullversion"));
    [("DPDK", dpdk), ("gcc", gcc)]
        .into_iter()
        .filter_map(|(what, version)| Some((what, version.ok()?)))
        .collect()
}

/// Whether programs can be built here.
///
/// # Errors
/// Says what is missing.
pub(super) fn check() -> Result<()> {
    for what in ["DPDK", "gcc"] {
        let there = versions().iter().any(|(found, _)| *found == what);
        ensure!(there, "{what} is not installed here (`cargo xtask bench --peers` installs it)");
    }
    Ok(())
}

/// What a command says, without the newline at the end.
///
/// # Errors
/// Where it can't be started or fails.
pub(super) fn output(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("starting {command:?}"))?;
    if !output.status.success() {
        bail!("{command:?}: {}\n{}", output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Where what is built for the peers is kept: beside this program, so that `cargo clean` takes it too.
///
/// # Errors
/// Where there can't be such a folder.
pub(super) fn cache() -> Result<PathBuf> {
    let program = std::env::current_exe()?;
    let folder = program.parent().context("this program is in a folder")?.join("peers");
    fs::create_dir_all(&folder).with_context(|| format!("creating {}", folder.display()))?;
    Ok(folder)
}

/// A folder for large files, in [`cache`], that goes away when dropped.
///
/// # Errors
/// Where there can't be one.
pub(super) fn scratch() -> Result<TempDir> {
    Ok(tempfile::Builder::new().prefix(&format!("{SCRATCH}{}-", std::process::id())).tempdir_in(cache()?)?)
}

/// Removes what runs left that were killed.
///
/// # Errors
/// Where it can't be removed.
pub(super) fn sweep() -> Result<()> {
    for entry in fs::read_dir(cache()?)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let of = name.strip_prefix(SCRATCH).and_then(|rest| rest.split('-').next());
        if of.is_some_and(|process| !Path::new("/proc").join(process).exists()) {
            fs::remove_dir_all(entry.path())?;
        }
    }
    Ok(())
}

/// How scratch folders' names begin; the process and something random follow.
const SCRATCH: &str = "run-";

/// Builds a C program against DPDK, for this very machine.
///
/// # Errors
/// Where the compiler says so.
pub(super) fn compile(sources: &[PathBuf], flags: &[&str], program: &Path) -> Result<()> {
    let pkg_config = |what| output(Command::new("pkg-config").args([what, "libdpdk"]));
    let mut gcc = Command::new("gcc");
    // Debian's flags ask for a CPU of 2008; the last -march counts.
    gcc.args(["-O3", "-DALLOW_EXPERIMENTAL_API"]).args(pkg_config("--cflags")?.split_whitespace());
    gcc.arg("-march=native").args(flags).args(sources).arg("-o").arg(program);
    output(gcc.args(pkg_config("--libs")?.split_whitespace()))?;
    Ok(())
}

/// The cores of this machine, by number from 0 on.
///
/// # Errors
/// Where there are fewer than two: a peer's main thread needs one besides the one that is measured.
pub(super) fn cores() -> Result<usize> {
    // Not `available_parallelism`, which counts only those that this thread may use, and we pin ourselves.
    let online = fs::read_to_string("/sys/devices/system/cpu/online")?;
    let last = online.trim().rsplit(['-', ',']).next().and_then(|last| last.parse::<usize>().ok());
    let cores = 1 + last.context("a list of cores")?;
    ensure!(cores > 1, "two cores are needed");
    Ok(cores)
}

/// A DPDK program that runs, with a folder of its own. It is killed when this is dropped, and when we die.
pub(super) struct Program {
    /// The process; its standard input and output are pipes where they were asked for.
    pub child: Child,
    folder: TempDir,
    name: String,
}

impl Program {
    /// Starts a program; its environment arguments are ours, `arguments` are its own. What it says on standard error is
    /// kept for error messages. `interactive` pipes its standard output to us.
    ///
    /// # Errors
    /// Where it can't be started.
    pub(super) fn start(
        program: &Path,
        pages: Pages<'_>,
        environment: &[String],
        arguments: &[String],
        interactive: bool,
    ) -> Result<Program> {
        // In /tmp: a socket's path must be short.
        let folder = tempfile::tempdir()?;
        // We are pinned to one core, and a child begins as its parent: DPDK's own threads shall not share that core.
        let last = cores()? - 1;
        let mut command = Command::new("taskset");
        command.arg("-c").arg(format!("0-{last}")).args(["setpriv", "--pdeathsig", "KILL"]).arg(program);
        command.args(["--no-pci", "--force-max-simd-bitwidth=512", "--log-level=error"]);
        match pages {
            Pages::Huge(pages) => {
                pages.renew()?;
                command.arg("--in-memory")
            }
            Pages::Small(mebibytes) => command.args(["--no-huge", "-m", &mebibytes.to_string()]),
        };
        command.args(environment).arg("--").args(arguments);
        // DPDK keeps its sockets there, away from those of any DPDK that runs on this machine.
        command.env("RUNTIME_DIRECTORY", folder.path());
        command.stdin(Stdio::piped()).stderr(File::create(folder.path().join("stderr"))?);
        command.stdout(if interactive { Stdio::piped() } else { Stdio::null() });
        let name = program.file_name().unwrap_or(program.as_os_str()).to_string_lossy().into_owned();
        let child = command.spawn().with_context(|| format!("starting {}", program.display()))?;
        Ok(Program { child, folder, name })
    }

    /// An error that repeats the program's last words.
    pub(super) fn failed(&mut self, what: &str) -> anyhow::Error {
        let words = fs::read_to_string(self.folder.path().join("stderr")).unwrap_or_default();
        let last: Vec<&str> = words.lines().rev().take(5).collect();
        let ended =
            self.child.try_wait().ok().flatten().map_or(String::new(), |status| format!(" ({status})"));
        let last: Vec<&str> = last.into_iter().rev().collect();
        anyhow::anyhow!("{}: {what}{ended}\n{}", self.name, last.join("\n"))
    }

    /// Lets it run on.
    pub(super) fn go_on(&self) {
        self.signal(rustix::process::Signal::CONT);
    }

    /// Stops it where it is; it takes no CPU time until told to go on.
    pub(super) fn pause(&self) {
        self.signal(rustix::process::Signal::STOP);
    }

    fn signal(&self, signal: rustix::process::Signal) {
        // Where it has ended, the next question to it fails.
        let _ = rustix::process::kill_process(rustix::process::Pid::from_child(&self.child), signal);
    }

    /// Waits until it can be asked for its counters.
    ///
    /// # Errors
    /// Where it ends before, or takes longer than `patience`.
    pub(super) fn telemetry(&mut self, patience: Duration) -> Result<Telemetry> {
        let path = self.folder.path().join("dpdk/rte/dpdk_telemetry.v2");
        let deadline = Instant::now() + patience;
        loop {
            if let Ok(telemetry) = Telemetry::connect(&path) {
                return Ok(telemetry);
            }
            if self.child.try_wait()?.is_some() || Instant::now() > deadline {
                return Err(self.failed("didn't get ready"));
            }
            thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A DPDK program's answers about itself.
pub(super) struct Telemetry {
    socket: Socket,
}

/// Packets since the program began.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    /// Received, by all ports.
    pub received: u64,
    /// Sent, by each port.
    pub sent: Vec<u64>,
}

impl Telemetry {
    fn connect(path: &Path) -> Result<Telemetry> {
        let socket = Socket::new(Domain::UNIX, Type::SEQPACKET, None)?;
        socket.connect(&SockAddr::unix(path)?)?;
        socket.set_read_timeout(Some(Duration::from_secs(5)))?;
        let mut telemetry = Telemetry { socket };
        // It introduces itself.
        telemetry.read()?;
        Ok(telemetry)
    }

    fn read(&mut self) -> Result<Value> {
        let mut answer = vec![0; 16384];
        let len = self.socket.read(&mut answer)?;
        Ok(serde_json::from_slice(&answer[..len])?)
    }

    fn ask(&mut self, question: &str) -> Result<Value> {
        self.socket.write_all(question.as_bytes())?;
        self.read()
    }

    /// What `ports` ports have counted.
    ///
    /// # Errors
    /// Where the program doesn't answer so.
    pub(super) fn counts(&mut self, ports: usize) -> Result<Counts> {
        let mut counts = Counts::default();
        for port in 0..ports {
            let answer = self.ask(&format!("/ethdev/stats,{port}"))?;
            counts.received += number(&answer, "ipackets")?;
            counts.sent.push(number(&answer, "opackets")?);
        }
        Ok(counts)
    }
}

fn number(answer: &Value, name: &str) -> Result<u64> {
    answer["/ethdev/stats"][name].as_u64().with_context(|| format!("no {name} in {answer}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counter_is_read_from_the_answer() {
        let answer = serde_json::json!({ "/ethdev/stats": { "ipackets": 147_057_152u64, "opackets": 32 } });
        assert_eq!(number(&answer, "ipackets").ok(), Some(147_057_152));
        assert!(number(&answer, "imissed").is_err());
        assert!(number(&serde_json::json!({ "/ethdev/stats": null }), "ipackets").is_err());
    }
}

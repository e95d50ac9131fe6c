//! Programs that run beside a scenario, and their certain end.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use crate::{command, wait};

/// How long a program may take to end after SIGTERM, before it gets SIGKILL.
const GRACE: Duration = Duration::from_secs(20);

/// Which process it is, for as long as the machine is up: numbers are used again, start times tell them apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The process number.
    pub pid: u32,
    /// Field 22 of `/proc/PID/stat`: clock ticks since boot (proc(5)).
    pub started: u64,
}

impl Identity {
    /// This process.
    ///
    /// # Errors
    /// `/proc` is not there.
    pub fn own() -> Result<Identity> {
        Identity::of(std::process::id())
    }

    /// The process that has this number now.
    ///
    /// # Errors
    /// There is none.
    pub fn of(pid: u32) -> Result<Identity> {
        let stat = wait::read(Path::new(&format!("/proc/{pid}/stat")))?;
        // The name stands in parentheses and may hold anything; state is field 3, start time field 22.
        let after_name = stat.rsplit_once(')').context("no process name in /proc/PID/stat")?.1;
        let started = after_name.split_whitespace().nth(19).context("no start time in /proc/PID/stat")?;
        Ok(Identity { pid, started: started.parse()? })
    }

    /// Reads what [`fmt::Display`] wrote.
    pub fn parse(text: &str) -> Option<Identity> {
        let (pid, started) = text.trim().split_once(' ')?;
        Some(Identity { pid: pid.parse().ok()?, started: started.split(' ').next()?.parse().ok()? })
    }

    /// Whether this very process still runs.
    pub fn is_alive(self) -> bool {
        Identity::of(self.pid).is_ok_and(|now| now == self)
    }

    /// The memory it holds, in bytes: `VmRSS` of `/proc/PID/status`.
    ///
    /// # Errors
    /// It has ended.
    pub fn resident_bytes(self) -> Result<u64> {
        self.status_bytes("VmRSS:")
    }

    /// The most memory that it has ever held, in bytes: `VmHWM` of `/proc/PID/status`.
    ///
    /// # Errors
    /// It has ended.
    pub fn peak_bytes(self) -> Result<u64> {
        self.status_bytes("VmHWM:")
    }

    fn status_bytes(self, field: &str) -> Result<u64> {
        let status = wait::read(Path::new(&format!("/proc/{}/status", self.pid)))?;
        let line = status.lines().find_map(|line| line.strip_prefix(field));
        let line = line.with_context(|| format!("no line {field}"))?;
        let kilobytes: u64 = line.trim().trim_end_matches(" kB").trim().parse()?;
        Ok(kilobytes * 1024)
    }

    /// Processor time that it has taken: user and system, in `/proc/PID/stat` in hundredths of a second (proc(5)).
    ///
    /// # Errors
    /// It has ended.
    pub fn processor_time(self) -> Result<Duration> {
        Ok(named_and_taken(&wait::read(Path::new(&format!("/proc/{}/stat", self.pid)))?)?.1)
    }

    /// The same of each of its threads that there is now, by name; of those of one name together.
    ///
    /// # Errors
    /// It has ended.
    pub fn processor_time_of_threads(self) -> Result<BTreeMap<String, Duration>> {
        let mut taken: BTreeMap<String, Duration> = BTreeMap::new();
        for task in fs::read_dir(format!("/proc/{}/task", self.pid))? {
            // One that has ended meanwhile is none.
            let Ok(stat) = fs::read_to_string(task?.path().join("stat")) else { continue };
            let (name, time) = named_and_taken(&stat)?;
            *taken.entry(name).or_default() += time;
        }
        Ok(taken)
    }

    /// For how long its threads of these names have run, to the nanosecond: `/proc/PID/task/*/schedstat` (proc(5)). What else
    /// the machine does isn't in it.
    ///
    /// # Errors
    /// It has ended.
    pub fn threads_time(self, names: &[&str]) -> Result<Duration> {
        let mut sum = 0;
        for task in std::fs::read_dir(format!("/proc/{}/task", self.pid)).context("the process has ended")? {
            let read = |file| std::fs::read_to_string(task.as_ref().ok()?.path().join(file)).ok();
            // A thread that has ended meanwhile is none of these.
            let (Some(name), Some(statistics)) = (read("comm"), read("schedstat")) else { continue };
            if names.contains(&name.trim()) {
                sum += statistics.split(' ').next().unwrap_or_default().parse::<u64>()?;
            }
        }
        Ok(Duration::from_nanos(sum))
    }

    /// Sends a signal, unless the process is gone.
    ///
    /// # Errors
    /// The signal is not permitted.
    pub fn signal(self, signal: Signal) -> Result<()> {
        if !self.is_alive() {
            return Ok(());
        }
        let pid = i32::try_from(self.pid).ok().and_then(Pid::from_raw).context("not a process number")?;
        match kill_process(pid, signal) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
            Err(error) => Err(error).with_context(|| format!("cannot signal process {}", self.pid)),
        }
    }
}

/// The name and the processor time in a `/proc/…/stat`.
fn named_and_taken(stat: &str) -> Result<(String, Duration)> {
    let (before, after_name) = stat.rsplit_once(')').context("no name in a stat of /proc")?;
    let name = before.split_once('(').context("no name in a stat of /proc")?.1;
    // Fields 14 and 15; after the name comes field 3.
    let ticks =
        after_name.split_whitespace().skip(11).take(2).map(str::parse::<u64>).sum::<Result<u64, _>>()?;
    Ok((name.to_owned(), Duration::from_millis(ticks * 10)))
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.pid, self.started)
    }
}

/// A running program. Dropping it ends it, unless its lab is kept.
pub struct Process {
    name: String,
    child: Child,
    identity: Identity,
    output: PathBuf,
    log: PathBuf,
    kept: Rc<Cell<bool>>,
}

impl Process {
    /// Starts `command` with its output in `logs`.
    ///
    /// # Errors
    /// It cannot be started.
    pub(crate) fn spawn(
        name: &str,
        mut command: Command,
        logs: &Path,
        kept: Rc<Cell<bool>>,
    ) -> Result<Process> {
        let output = logs.join(format!("{name}.out"));
        let log = logs.join(format!("{name}.log"));
        let text = command::typed(&command);
        let child = command
            .stdin(Stdio::null())
            .stdout(File::create(&output)?)
            .stderr(File::create(&log)?)
            // A ctrl-C on the terminal is for us; we end the rest in order.
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot start `{text}`"))?;
        let identity = Identity::of(child.id())?;
        Ok(Process { name: name.to_owned(), child, identity, output, log, kept })
    }

    /// The process itself: `ip netns exec` becomes the program it starts.
    pub fn identity(&self) -> Identity {
        self.identity
    }

    /// Where its standard output goes.
    pub fn output(&self) -> &Path {
        &self.output
    }

    /// All it has written to standard output and standard error so far.
    pub fn said(&self) -> String {
        let read = |path: &Path| fs::read_to_string(path).unwrap_or_default();
        read(&self.output) + &read(&self.log)
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Fails with the end of its log if it has ended.
    ///
    /// # Errors
    /// It has ended.
    pub fn must_run(&mut self) -> Result<()> {
        if let Some(status) = self.child.try_wait()? {
            bail!("{} has ended ({status}): {}", self.name, last_lines(&self.said(), 8));
        }
        Ok(())
    }

    /// Waits until it ends by itself and returns its standard output.
    ///
    /// # Errors
    /// It runs for longer than `limit`, or ends with another exit status than zero.
    pub fn finish(&mut self, limit: Duration) -> Result<String> {
        let what = format!("the end of {}", self.name);
        let status = wait::until(&what, limit, || Ok(self.child.try_wait()?))?;
        if !status.success() {
            bail!("{} failed ({status}): {}", self.name, last_lines(&self.said(), 8));
        }
        wait::read(&self.output)
    }

    /// SIGTERM, then SIGKILL if it has not ended soon.
    ///
    /// # Errors
    /// It cannot be signalled.
    pub fn stop(&mut self) -> Result<()> {
        if !self.is_running() {
            return Ok(());
        }
        self.identity.signal(Signal::TERM)?;
        let ended = ends_within(&mut self.child, GRACE);
        if ended { Ok(()) } else { self.kill() }
    }

    /// SIGKILL, at once.
    ///
    /// # Errors
    /// It cannot be signalled.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// The memory it holds, in bytes.
    ///
    /// # Errors
    /// It has ended.
    pub fn resident_bytes(&self) -> Result<u64> {
        self.identity.resident_bytes()
    }

    /// [`Identity::threads_time`].
    ///
    /// # Errors
    /// It has ended.
    pub fn threads_time(&self, names: &[&str]) -> Result<Duration> {
        self.identity.threads_time(names)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if !self.kept.get() {
            // Nothing more can be done about a process that refuses; the sweep tries again.
            let _ = self.stop();
        }
    }
}

/// Waits without regard to signals: this runs while a lab is being taken down.
fn ends_within(child: &mut Child, limit: Duration) -> bool {
    let deadline = std::time::Instant::now() + limit;
    while std::time::Instant::now() < deadline {
        if !matches!(child.try_wait(), Ok(None)) {
            return true;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    false
}

/// The last lines of a text, for an error message.
fn last_lines(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sleeper(logs: &Path) -> Process {
        let mut command = Command::new("sleep");
        command.arg("60");
        Process::spawn("sleeper", command, logs, Rc::default()).expect("sleep is everywhere")
    }

    #[test]
    fn an_identity_survives_being_written_down() {
        let own = Identity::own().expect("we run");
        assert_eq!(Identity::parse(&format!("{own} a name")), Some(own));
        assert!(own.is_alive());
        assert!(!Identity { started: own.started + 1, ..own }.is_alive(), "another process with our number");
    }

    #[test]
    fn a_dropped_process_is_gone() {
        let logs = tempfile::tempdir().expect("a directory for logs");
        let process = sleeper(logs.path());
        let identity = process.identity();
        assert!(identity.is_alive());
        drop(process);
        assert!(!identity.is_alive());
    }

    #[test]
    fn a_process_that_ended_is_told_with_its_last_words() {
        let logs = tempfile::tempdir().expect("a directory for logs");
        let mut command = Command::new("sh");
        command.args(["-c", "echo farewell; exit 7"]);
        let mut process =
            Process::spawn("short", command, logs.path(), Rc::default()).expect("sh is everywhere");
        let error = process.finish(Duration::from_secs(60)).expect_err("it fails").to_string();
        assert!(error.contains("farewell") && error.contains('7'), "{error}");
    }
}

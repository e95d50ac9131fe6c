//! Programs that run to their end, within a deadline.

use std::ffi::OsStr;
use std::io::Read;
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// How long a program that only changes a setting may take.
pub const SETTING: Duration = Duration::from_secs(60);

/// How often a running program is looked at.
const TICK: Duration = Duration::from_millis(2);

/// The command as one would type it, for messages.
pub fn typed(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(OsStr::to_string_lossy).collect::<Vec<_>>().join(" ")
}

/// Runs a program to its end and returns what it printed, whatever its exit status.
///
/// # Errors
/// It could not be started, or was still running after `limit` and was ended.
pub fn output(command: &mut Command, limit: Duration) -> Result<Output> {
    let text = typed(command);
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start `{text}`"))?;
    let stdout = drain(child.stdout.take());
    let stderr = drain(child.stderr.take());
    let deadline = Instant::now() + limit;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if Instant::now() >= deadline {
            child.kill()?;
            child.wait()?;
            bail!("`{text}` was still running after {} s and was ended", limit.as_secs());
        }
        thread::sleep(TICK);
    };
    let collect = |reader: thread::JoinHandle<Vec<u8>>| reader.join().unwrap_or_default();
    Ok(Output { status, stdout: collect(stdout), stderr: collect(stderr) })
}

/// Runs a program that must succeed and returns its standard output.
///
/// # Errors
/// As [`output`], and when the program's exit status is not zero.
pub fn run(command: &mut Command, limit: Duration) -> Result<String> {
    let text = typed(command);
    let output = output(command, limit)?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("`{text}` failed ({}): {}", output.status, said.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Reads a pipe to its end on a thread of its own, so that a full pipe never stops the program that writes it.
fn drain(pipe: Option<impl Read + Send + 'static>) -> thread::JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = pipe {
            // A broken pipe ends the output; what came before it is still worth having.
            let _ = pipe.read_to_end(&mut bytes);
        }
        bytes
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_is_collected_and_the_exit_status_is_left_to_the_caller() {
        let output = output(Command::new("sh").args(["-c", "echo out; echo err >&2; exit 3"]), SETTING);
        let output = output.expect("sh is everywhere");
        assert_eq!(output.stdout, b"out\n");
        assert_eq!(output.stderr, b"err\n");
        assert_eq!(output.status.code(), Some(3));
    }

    #[test]
    fn a_failure_is_told_with_the_command_and_its_own_words() {
        let error = run(Command::new("sh").args(["-c", "echo no such thing >&2; exit 1"]), SETTING);
        let error = error.expect_err("it exits with 1").to_string();
        assert!(error.contains("sh -c") && error.contains("no such thing"), "{error}");
    }

    #[test]
    fn a_program_that_outlives_its_deadline_is_ended() {
        let error = run(Command::new("sleep").arg("60"), Duration::from_millis(50));
        assert!(error.expect_err("it sleeps").to_string().contains("was still running"));
    }
}

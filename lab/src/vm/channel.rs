//! Commands through a virtual console: a line of text each way, in hexadecimal, so that nothing in it can be taken for
//! another line.

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// How long one look at the console waits for something to come.
const LOOK: Duration = Duration::from_millis(50);
/// How long an answer may take before the script is sent again.
const PATIENCE: Duration = Duration::from_secs(5);
/// What `init.sh` says first.
const READY: &str = "ready";
/// More than any answer has.
const LONGEST: usize = 64 << 20;

/// The host's end of the console that `init.sh` reads.
pub(super) struct Channel {
    stream: UnixStream,
    sent: u64,
    /// The line sent last, and when.
    command: String,
    written: Instant,
    received: Vec<u8>,
}

/// How a script ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Reply {
    /// Its exit status; 143 or 137 if it took too long.
    pub(super) status: i32,
    /// What it wrote to standard output.
    pub(super) output: String,
    /// What it wrote to standard error.
    pub(super) error: String,
}

impl Channel {
    /// Connects to the socket that QEMU listens on.
    pub(super) fn open(socket: &Path) -> Result<Channel> {
        let stream =
            UnixStream::connect(socket).with_context(|| format!("cannot connect to {}", socket.display()))?;
        stream.set_read_timeout(Some(LOOK))?;
        stream.set_write_timeout(Some(Duration::from_secs(10)))?;
        Ok(Channel::new(stream))
    }

    fn new(stream: UnixStream) -> Channel {
        Channel { stream, sent: 0, command: String::new(), written: Instant::now(), received: Vec::new() }
    }

    /// Whether the first process has said that it reads.
    pub(super) fn ready(&mut self) -> Result<bool> {
        Ok(self.lines()?.iter().any(|line| line.trim() == READY))
    }

    /// Sends a script, which may run for `limit`.
    pub(super) fn send(&mut self, script: &str, limit: Duration) -> Result<()> {
        self.sent += 1;
        let script = hexadecimal(script.as_bytes());
        // The empty line ends whatever was left of another.
        self.command = format!("\n{} {} {} {script}\n", self.sent, limit.as_secs().max(1), script.len());
        self.write()
    }

    fn write(&mut self) -> Result<()> {
        self.written = Instant::now();
        Ok(self.stream.write_all(self.command.as_bytes())?)
    }

    /// Sends the script again if no answer has come for a while. A machine that shares its cores with much else loses a
    /// character or an interrupt of its console now and then; it runs no script twice.
    pub(super) fn insist(&mut self) -> Result<()> {
        if self.written.elapsed() >= PATIENCE { self.write() } else { Ok(()) }
    }

    /// The answer to the script sent last, if it is there.
    pub(super) fn receive(&mut self) -> Result<Option<Reply>> {
        let replies = self.lines()?.into_iter().filter_map(|line| parse(&line));
        Ok(replies.filter(|(number, _)| *number == self.sent).map(|(_, reply)| reply).next())
    }

    /// The whole lines that have come, waiting a moment for more.
    fn lines(&mut self) -> Result<Vec<String>> {
        let mut bytes = [0; 4096];
        match self.stream.read(&mut bytes) {
            Ok(0) => bail!("the console was closed"),
            Ok(count) => self.received.extend(bytes.iter().take(count)),
            // A process that was stopped for a while and goes on is interrupted (signal(7)).
            Err(error)
                if matches!(
                    error.kind(),
                    ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted
                ) => {}
            Err(error) => return Err(error.into()),
        }
        if self.received.len() > LONGEST {
            bail!("an answer of more than {LONGEST} bytes");
        }
        let whole = self.received.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        let lines: Vec<u8> = self.received.drain(..whole).collect();
        Ok(String::from_utf8_lossy(&lines).lines().map(str::to_owned).collect())
    }
}

/// Reads `reply NUMBER STATUS oHEX eHEX`; anything else is nothing of ours.
fn parse(line: &str) -> Option<(u64, Reply)> {
    let mut words = line.split_whitespace();
    if words.next()? != "reply" {
        return None;
    }
    let number = words.next()?.parse().ok()?;
    let status = words.next()?.parse().ok()?;
    let output = text(words.next()?.strip_prefix('o')?)?;
    let error = text(words.next()?.strip_prefix('e')?)?;
    Some((number, Reply { status, output, error }))
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn text(hexadecimal: &str) -> Option<String> {
    let digits = hexadecimal.as_bytes().chunks(2);
    let bytes = digits.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok());
    Some(String::from_utf8_lossy(&bytes.collect::<Option<Vec<u8>>>()?).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_read_with_whatever_bytes_the_program_wrote() {
        let (output, error) = ("two\nlines, reply 9 0 o e\n", "é");
        let line =
            format!("reply 7 3 o{} e{}\r\n", hexadecimal(output.as_bytes()), hexadecimal(error.as_bytes()));
        let expected = Reply { status: 3, output: output.to_owned(), error: error.to_owned() };
        assert_eq!(parse(&line), Some((7, expected)));
    }

    #[test]
    fn what_is_no_answer_is_passed_over() {
        for line in ["", "reply", "reply 1 0 o", "reply 1 0 oxy e", "reply 1 0 61 62", "a kernel's words"] {
            assert_eq!(parse(line), None, "{line}");
        }
    }

    #[test]
    fn an_answer_in_pieces_and_one_that_nobody_waits_for_any_more() {
        let (stream, mut machine) = UnixStream::pair().expect("a pair of sockets");
        stream.set_read_timeout(Some(LOOK)).expect("a time limit");
        let mut channel = Channel::new(stream);
        channel.send("sleep 9", Duration::from_secs(1)).expect("it is sent");
        channel.send("true", Duration::from_secs(1)).expect("it is sent");
        assert_eq!(channel.receive().expect("nothing yet"), None);
        machine.write_all(b"noise\nreply 1 143 o e\nreply 2 0 o6f").expect("it is written");
        assert_eq!(channel.receive().expect("half an answer"), None);
        machine.write_all(b"6b e\n").expect("it is written");
        let reply = channel.receive().expect("an answer").expect("to the second");
        assert_eq!((reply.status, reply.output.as_str()), (0, "ok"));
    }

    #[test]
    fn a_script_without_an_answer_is_sent_again_as_the_same_one() {
        let (stream, mut machine) = UnixStream::pair().expect("a pair of sockets");
        let mut channel = Channel::new(stream);
        channel.send("true", Duration::from_secs(1)).expect("it is sent");
        // An hour from now: however slow the machine is, nothing has been waited for.
        channel.written += Duration::from_secs(3600);
        channel.insist().expect("it is too early for that");
        channel.written = Instant::now().checked_sub(PATIENCE).expect("this machine is up for longer");
        channel.insist().expect("it is sent again");
        drop(channel);
        let mut text = String::new();
        machine.read_to_string(&mut text).expect("all that was sent");
        assert_eq!(text, "\n1 1 8 74727565\n".repeat(2));
    }
}

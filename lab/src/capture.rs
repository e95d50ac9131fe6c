//! Captures with tcpdump, and what can be read from them.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use model::MacAddr;
use rustix::process::Signal;

use crate::netns::Namespace;
use crate::process::Process;
use crate::{Lab, command, wait};

/// How long tcpdump may take to read a capture of a few hundred megabytes.
const READING: Duration = Duration::from_secs(120);

/// How long tcpdump may take to say what it has counted.
const ANSWER: Duration = Duration::from_secs(30);
/// After how long without a further frame it has read all that it will.
const STANDSTILL: Duration = Duration::from_secs(2);

/// A running capture of one interface.
pub struct Capture {
    process: Process,
    file: PathBuf,
}

/// A finished capture.
pub struct Captured {
    file: PathBuf,
    /// Frames that tcpdump itself could not keep up with.
    pub missed: u64,
}

impl Capture {
    /// Captures what matches `filter` on an interface, whole frames, from now on.
    ///
    /// # Errors
    /// tcpdump does not begin to listen.
    pub fn start(lab: &Lab, namespace: &Namespace, interface: &str, filter: &str) -> Result<Capture> {
        let name = format!("capture-{}-{interface}", namespace.name());
        let file = lab.directory().join(format!("{name}.pcap"));
        let mut tcpdump = namespace.command("tcpdump");
        // -Z root: as its own user tcpdump may not write into our directory.
        // -s, -B: whole frames of our largest MTU, and KiB enough for a transfer of 100 MB on a busy machine.
        // --immediate-mode: otherwise up to a second of frames waits in the kernel, and is lost when it stops.
        tcpdump
            .args([
                "-n",
                "-U",
                "--immediate-mode",
                "-Z",
                "root",
                "-s",
                "9300",
                "-B",
                "262144",
                "-i",
                interface,
                "-w",
            ])
            .arg(&file)
            .arg(filter);
        let mut process = lab.spawn(&name, tcpdump)?;
        wait::until_true("tcpdump to listen", Duration::from_secs(30), || {
            process.must_run()?;
            Ok(process.said().contains("listening on"))
        })?;
        Ok(Capture { process, file })
    }

    /// Ends the capture, once tcpdump has read what the kernel has for it: what waits there when it ends is lost.
    ///
    /// # Errors
    /// tcpdump cannot be ended, or doesn't keep up.
    pub fn stop(mut self) -> Result<Captured> {
        self.process.must_run()?;
        let (mut last, mut since) = (None, Instant::now());
        wait::until_true("tcpdump to have read all", READING, || {
            let counts = self.counts()?;
            if last.replace(counts) != Some(counts) {
                since = Instant::now();
            }
            // A frame that went round on a loopback is received twice and read once.
            Ok(counts.captured + counts.dropped >= counts.received || since.elapsed() >= STANDSTILL)
        })?;
        self.process.stop()?;
        Ok(Captured { missed: missed(&self.process.said()), file: self.file.clone() })
    }

    /// What tcpdump counts now, which it says when it gets SIGUSR1 (tcpdump(1)).
    fn counts(&mut self) -> Result<Counts> {
        self.process.must_run()?;
        let said = |process: &Process| process.said().lines().filter_map(counts).collect::<Vec<_>>();
        let before = said(&self.process).len();
        self.process.identity().signal(Signal::USR1)?;
        let deadline = Instant::now() + ANSWER;
        loop {
            if let Some(counts) = said(&self.process).get(before) {
                return Ok(*counts);
            }
            self.process.must_run()?;
            ensure!(Instant::now() < deadline, "tcpdump doesn't say what it has counted");
            thread::sleep(Duration::from_millis(2));
        }
    }
}

/// What tcpdump says that it has counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Counts {
    captured: u64,
    received: u64,
    dropped: u64,
}

/// Reads `tcpdump: 6 packets captured, 6 packets received by filter, 0 packets dropped by kernel`.
fn counts(line: &str) -> Option<Counts> {
    let mut numbers = line
        .strip_prefix("tcpdump: ")?
        .split(", ")
        .zip(["captured", "received by filter", "dropped by kernel"])
        .map(|(part, words)| part.strip_suffix(words)?.split(' ').next()?.parse().ok());
    Some(Counts { captured: numbers.next()??, received: numbers.next()??, dropped: numbers.next()?? })
}

impl Captured {
    /// Where it is.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// The capture as tcpdump prints it, a frame per line with its link-layer header.
    ///
    /// # Errors
    /// tcpdump cannot read it.
    pub fn lines(&self) -> Result<Vec<String>> {
        let text = self.read(&["-e", "-n", "-t"])?;
        Ok(text.lines().map(str::to_owned).collect())
    }

    /// The source and destination MAC addresses of each frame.
    ///
    /// # Errors
    /// tcpdump cannot read it.
    pub fn macs(&self) -> Result<Vec<(MacAddr, MacAddr)>> {
        self.lines()?
            .iter()
            .map(|line| macs(line).with_context(|| format!("no MAC addresses in: {line}")))
            .collect()
    }

    /// How many frames it holds; fails if any of them has a checksum that is not right.
    ///
    /// # Errors
    /// A checksum is wrong, or tcpdump cannot read it.
    pub fn checksums_are_right(&self) -> Result<usize> {
        let text = self.read(&["-n", "-t", "-vv"])?;
        if let Some(wrong) = text.lines().find(|line| has_bad_checksum(line)) {
            let count = text.lines().filter(|line| has_bad_checksum(line)).count();
            bail!("{count} bad checksums, the first: {}", wrong.trim());
        }
        // With -vv an IPv4 packet takes two lines, of which only the first begins at the margin.
        Ok(text.lines().filter(|line| !line.starts_with(char::is_whitespace)).count())
    }

    fn read(&self, options: &[&str]) -> Result<String> {
        let mut tcpdump = Command::new("tcpdump");
        tcpdump.args(["-Z", "root"]).args(options).arg("-r").arg(&self.file);
        command::run(&mut tcpdump, READING)
    }
}

/// How tcpdump marks the IPv4 header's checksum (`bad cksum`), and those of TCP, UDP and ICMP (`incorrect`, `bad`).
fn has_bad_checksum(line: &str) -> bool {
    ["bad cksum", "(incorrect", "bad udp cksum", "bad icmp6 cksum", "wrong icmp cksum"]
        .iter()
        .any(|mark| line.contains(mark))
}

/// `02:…:01 > 02:…:02, ethertype …`
fn macs(line: &str) -> Option<(MacAddr, MacAddr)> {
    let (source, rest) = line.split_once(" > ")?;
    let (destination, _) = rest.split_once(',')?;
    Some((source.trim().parse().ok()?, destination.trim().parse().ok()?))
}

/// Reads `N packets dropped by kernel`.
fn missed(said: &str) -> u64 {
    let line = said.lines().find(|line| line.ends_with("dropped by kernel"));
    line.and_then(|line| line.split(' ').next()?.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_mark_of_a_bad_checksum_is_known() {
        for line in [
            "10.0.0.1.1 > 10.0.0.2.2: Flags [S], cksum 0x1428 (incorrect -> 0x4940), seq 1",
            "IP (tos 0x0, ttl 64, id 0, len 84, bad cksum 0 (->269d)!)",
            "10.0.0.1.1 > 10.0.0.2.2: [bad udp cksum 0x1428 -> 0x4940!] UDP, length 1",
        ] {
            assert!(has_bad_checksum(line), "{line}");
        }
        assert!(!has_bad_checksum("10.0.0.1.1 > 10.0.0.2.2: Flags [S], cksum 0x1428 (correct), seq 1"));
    }

    #[test]
    fn mac_addresses_and_losses_are_read() {
        let line =
            "02:00:00:00:00:01 > 02:00:00:00:00:02, ethertype IPv4 (0x0800), length 98: 10.0.0.1 > 10.0.0.2";
        assert_eq!(macs(line), Some((MacAddr([2, 0, 0, 0, 0, 1]), MacAddr([2, 0, 0, 0, 0, 2]))));
        assert_eq!(
            missed("3 packets captured\n3 packets received by filter\n7 packets dropped by kernel\n"),
            7
        );
    }

    #[test]
    fn what_tcpdump_has_counted_so_far_is_read() {
        let line = "tcpdump: 1 packet captured, 3 packets received by filter, 2 packets dropped by kernel";
        assert_eq!(counts(line), Some(Counts { captured: 1, received: 3, dropped: 2 }));
        assert_eq!(counts("tcpdump: listening on eth0, link-type EN10MB (Ethernet)"), None);
        assert_eq!(counts("1 packet captured"), None);
    }
}

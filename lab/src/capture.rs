//! Captures with tcpdump, and what can be read from them.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use model::MacAddr;

use crate::netns::Namespace;
use crate::process::Process;
use crate::{Lab, command, wait};

/// How long tcpdump may take to read a capture of a few hundred megabytes.
const READING: Duration = Duration::from_secs(120);

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
        wait::until_true("tcpdump to listen", Duration::from_secs(10), || {
            process.must_run()?;
            Ok(process.said().contains("listening on"))
        })?;
        Ok(Capture { process, file })
    }

    /// Ends the capture.
    ///
    /// # Errors
    /// tcpdump cannot be ended.
    pub fn stop(mut self) -> Result<Captured> {
        self.process.must_run()?;
        self.process.stop()?;
        Ok(Captured { missed: missed(&self.process.said()), file: self.file.clone() })
    }
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
}

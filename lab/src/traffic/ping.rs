//! `ping`, and what it counts.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::netns::Namespace;
use crate::{Lab, command};

/// How long replies that must come may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// What `ping` counted.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Ping {
    /// Requests.
    pub sent: u32,
    /// Replies.
    pub received: u32,
    /// The TTL or hop limit of the last reply.
    pub ttl: Option<u32>,
    /// How long the replies took.
    pub round_trip: Option<RoundTrip>,
}

/// Round trips of a [`Ping`], in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RoundTrip {
    /// The shortest.
    pub min_ms: f64,
    /// The mean.
    pub mean_ms: f64,
    /// The longest.
    pub max_ms: f64,
}

/// Sends `count` echo requests, ten a second, and counts the replies, whatever comes of them.
///
/// # Errors
/// `ping` cannot run, or says nothing that can be read.
pub fn ping(from: &Namespace, to: IpAddr, count: u32) -> Result<Ping> {
    let mut ping = from.command("ping");
    ping.args(["-n", "-c", &count.to_string(), "-i", "0.1", "-W", "1", &to.to_string()]);
    let output = command::output(&mut ping, Duration::from_secs(u64::from(count) / 5 + 60))?;
    let text = String::from_utf8_lossy(&output.stdout);
    read_ping(&text).with_context(|| {
        format!("`{}`: {}", command::typed(&ping), String::from_utf8_lossy(&output.stderr).trim())
    })
}

/// Sends echo requests, ten a second, until `count` of them are answered, and fails if any was lost.
///
/// A reply may be late: with `-c` alone, ping waits for the last one no longer than a tenth of a second where others took
/// less, which a router on a busy machine may need. With `-w` it goes on sending until it has its count of replies, so that
/// a lost request shows as a gap among those that were answered.
///
/// # Errors
/// One was lost, or `ping` cannot run.
pub fn answered(from: &Namespace, to: IpAddr, count: u32) -> Result<Ping> {
    answered_with(from, to, count, &[])
}

/// [`answered`], with further options of ping's; every byte of the replies must be right.
///
/// # Errors
/// As [`answered`], or a reply has another byte than its request.
pub fn answered_with(from: &Namespace, to: IpAddr, count: u32, options: &[&str]) -> Result<Ping> {
    let mut ping = from.command("ping");
    let limit = PATIENCE + Duration::from_secs(u64::from(count) / 10);
    let seconds = limit.as_secs().to_string();
    ping.args(["-n", "-c", &count.to_string(), "-i", "0.1", "-w", &seconds])
        .args(options)
        .arg(to.to_string());
    let output = command::output(&mut ping, limit + Duration::from_secs(10))?;
    let text = String::from_utf8_lossy(&output.stdout);
    ensure!(!text.contains("wrong data"), "{to} answers with other bytes: {text}");
    let lost = lost(&text, count);
    if lost > 0 {
        bail!("{lost} of {count} pings from {} to {to} were lost: {text}", from.name());
    }
    let counted = read_ping(&text).with_context(|| format!("`{}` said: {text}", command::typed(&ping)))?;
    // What was sent while the last reply was waited for is nobody's loss.
    Ok(Ping { sent: counted.received, ..counted })
}

/// Pings until a reply comes: the first packet of a way may wait for a neighbor.
///
/// # Errors
/// No reply came within `limit`.
pub fn reaches(lab: &Lab, from: &Namespace, to: IpAddr, limit: Duration) -> Result<Ping> {
    lab.wait(&format!("a reply from {to} to {}", from.name()), limit, || {
        let ping = ping(from, to, 1)?;
        Ok((ping.received > 0).then_some(ping))
    })
}

/// Reads the summary of iputils' ping, and the last reply's TTL.
fn read_ping(text: &str) -> Option<Ping> {
    let summary = text.lines().find(|line| line.contains("packets transmitted"))?;
    let number_before = |words: &str| {
        let before = summary.split(words).next()?;
        before.rsplit([' ', ',']).find(|word| !word.is_empty())?.parse().ok()
    };
    let ttl = text
        .lines()
        .filter_map(|line| line.split("ttl=").nth(1)?.split(' ').next()?.parse().ok())
        .next_back();
    Some(Ping {
        sent: number_before(" packets transmitted")?,
        received: number_before(" received")?,
        ttl,
        round_trip: read_round_trip(text),
    })
}

/// Reads a line such as `rtt min/avg/max/mdev = 0.046/0.051/0.060/0.000 ms`.
fn read_round_trip(text: &str) -> Option<RoundTrip> {
    let line = text.lines().find(|line| line.starts_with("rtt "))?;
    let mut numbers = line.split(" = ").nth(1)?.split('/').map(|number| number.parse().ok());
    Some(RoundTrip { min_ms: numbers.next()??, mean_ms: numbers.next()??, max_ms: numbers.next()?? })
}

/// The numbers of the requests that were answered, by ping's lines about replies.
pub(crate) fn replies(text: &str) -> BTreeSet<u64> {
    text.lines()
        .filter(|line| line.contains(" bytes from "))
        .filter_map(|line| line.split("icmp_seq=").nth(1)?.split(' ').next()?.parse().ok())
        .collect()
}

/// How many of the first `count` requests, and of those before the last that was answered, were not, by the words of a
/// ping without `-q`.
pub(crate) fn lost(text: &str, count: u32) -> u64 {
    let answered = replies(text);
    let last = answered.last().copied().unwrap_or(0).max(u64::from(count));
    last - answered.len() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_of_ping_is_read() {
        let text = "PING 10.0.0.1 (10.0.0.1) 56(84) bytes of data.\n\
            64 bytes from 10.0.0.1: icmp_seq=1 ttl=62 time=0.046 ms\n\n\
            --- 10.0.0.1 ping statistics ---\n\
            3 packets transmitted, 1 received, 66.6667% packet loss, time 205ms\n\
            rtt min/avg/max/mdev = 0.046/0.051/0.060/0.000 ms\n";
        let round_trip = RoundTrip { min_ms: 0.046, mean_ms: 0.051, max_ms: 0.060 };
        let expected = Ping { sent: 3, received: 1, ttl: Some(62), round_trip: Some(round_trip) };
        assert_eq!(read_ping(text), Some(expected));
    }

    #[test]
    fn a_ping_with_errors_and_no_replies_is_read() {
        let text = "--- 10.0.0.1 ping statistics ---\n\
            4 packets transmitted, 0 received, +4 errors, 100% packet loss, time 3055ms\n";
        assert_eq!(read_ping(text), Some(Ping { sent: 4, received: 0, ttl: None, round_trip: None }));
        assert_eq!(read_ping("ping: connect: Network is unreachable"), None);
    }

    #[test]
    fn a_late_reply_is_none_that_is_lost() {
        let reply = |sequence| format!("64 bytes from 10.0.0.1: icmp_seq={sequence} ttl=63 time=0.1 ms\n");
        let said = |sequences: &[u64]| sequences.iter().copied().map(reply).collect::<String>();
        assert_eq!(lost(&said(&[1, 2, 3]), 3), 0, "whatever was sent meanwhile");
        assert_eq!(lost(&said(&[1, 3, 4]), 3), 1, "the second");
        assert_eq!(lost(&said(&[1]), 3), 2);
        assert_eq!(lost("", 3), 3);
    }
}

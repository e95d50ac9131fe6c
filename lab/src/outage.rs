//! A steady stream of echo requests, and what of it got lost while something happened: how much, and for how long.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::Lab;
use crate::netns::Namespace;
use crate::process::Process;
use rustix::process::Signal;

/// Between two requests, as a rule: what is lost is known to this.
pub const EVERY: Duration = Duration::from_millis(5);
/// How long `ping` may take to print what it counted.
const LAST_WORDS: Duration = Duration::from_secs(30);

/// A stream under way.
pub struct Stream {
    name: String,
    every: Duration,
    process: Process,
}

/// What became of a [`Stream`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outage {
    /// What the stream was called.
    pub name: String,
    /// Requests sent.
    pub sent: u64,
    /// Requests without a reply.
    pub lost: u64,
    /// How many times in a row replies were missing.
    pub times: usize,
    /// The longest of these, to the time between two requests.
    pub longest: Duration,
}

impl Stream {
    /// Begins to send, `name` being what is shown of it.
    ///
    /// # Errors
    /// `ping` can't be started.
    pub fn start(lab: &Lab, name: &str, from: &Namespace, to: IpAddr) -> Result<Stream> {
        Stream::start_slowly(lab, name, from, to, EVERY)
    }

    /// The same with other pauses, for what takes minutes: after 65,535 requests `ping`'s numbers begin again.
    ///
    /// # Errors
    /// `ping` can't be started.
    pub fn start_slowly(
        lab: &Lab,
        name: &str,
        from: &Namespace,
        to: IpAddr,
        every: Duration,
    ) -> Result<Stream> {
        let mut ping = from.command("ping");
        ping.args(["-n", "-i", &format!("{}", every.as_secs_f64()), "-W", "1", &to.to_string()]);
        let process = lab.spawn(&format!("stream-{}", name.replace(' ', "-")), ping)?;
        Ok(Stream { name: name.to_owned(), every, process })
    }

    /// Ends it and counts.
    ///
    /// # Errors
    /// `ping` says nothing that can be read.
    pub fn finish(mut self) -> Result<Outage> {
        // It then prints its summary.
        self.process.identity().signal(Signal::INT)?;
        crate::wait::until_true(&format!("the end of {}", self.name), LAST_WORDS, || {
            Ok(!self.process.is_running())
        })?;
        let said = self.process.said();
        read(&self.name, self.every, &said).with_context(|| format!("ping said: {said}"))
    }
}

impl Outage {
    /// One line for people.
    pub fn line(&self) -> String {
        format!(
            "{}: {} of {} lost, {} at a stretch at most ({} times)",
            self.name,
            self.lost,
            self.sent,
            humane(self.longest),
            self.times
        )
    }
}

fn humane(time: Duration) -> String {
    format!("{} ms", time.as_millis())
}

fn read(name: &str, every: Duration, text: &str) -> Result<Outage> {
    let summary = text.lines().find(|line| line.contains("packets transmitted")).context("no summary")?;
    let sent: u64 = summary.split(' ').next().unwrap_or_default().parse()?;
    let answered = crate::traffic::replies(text);
    ensure!(sent < 65_536, "the sequence numbers of ping begin again after 65,535");
    // The last ones may still be under way.
    let last = answered.last().copied().unwrap_or(sent);
    let (mut runs, mut run) = (Vec::new(), 0u64);
    for sequence in 1..=last {
        if answered.contains(&sequence) {
            runs.extend((run > 0).then_some(run));
            run = 0;
        } else {
            run += 1;
        }
    }
    let longest = runs.iter().max().copied().unwrap_or(0);
    Ok(Outage {
        name: name.to_owned(),
        sent: last,
        lost: runs.iter().sum(),
        times: runs.len(),
        longest: every * u32::try_from(longest)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_between_replies_is_counted() {
        let reply = |sequence| format!("64 bytes from 10.0.0.1: icmp_seq={sequence} ttl=63 time=0.1 ms\n");
        let mut text: String = [1, 2, 5, 6, 10].into_iter().map(reply).collect();
        text.push_str("\n--- 10.0.0.1 ping statistics ---\n12 packets transmitted, 5 received, 58% packet loss, time 55ms\n");
        let outage = read("x", EVERY, &text).expect("it is ping's form");
        assert_eq!((outage.sent, outage.lost, outage.times), (10, 5, 2));
        assert_eq!(outage.longest, Duration::from_millis(15));
        assert_eq!(outage.line(), "x: 5 of 10 lost, 15 ms at a stretch at most (2 times)");
    }
}

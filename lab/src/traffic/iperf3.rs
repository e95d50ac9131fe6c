//! iperf3, one server and one client at a time.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;

use super::{LISTEN, listening};
use crate::netns::Namespace;
use crate::{Lab, command};

/// How long iperf3 may take; nobody asks it for more than some seconds of traffic.
const IPERF3: Duration = Duration::from_secs(180);

/// What iperf3 measured.
#[derive(Clone, Copy, Debug)]
pub struct Throughput {
    /// What the receiver got, in bits a second.
    pub bits_per_second: f64,
    /// Segments sent again.
    pub retransmits: u64,
}

/// TCP for `seconds` from one namespace to an address of another, in one stream.
///
/// # Errors
/// iperf3 fails on either side.
pub fn iperf3(
    lab: &Lab,
    from: &Namespace,
    to: &Namespace,
    address: IpAddr,
    seconds: u32,
) -> Result<Throughput> {
    iperf3_streams(lab, from, to, address, seconds, 1)
}

/// [`iperf3`] in several streams at once, summed up.
///
/// # Errors
/// As [`iperf3`].
pub fn iperf3_streams(
    lab: &Lab,
    from: &Namespace,
    to: &Namespace,
    address: IpAddr,
    seconds: u32,
    streams: u32,
) -> Result<Throughput> {
    let (seconds, streams) = (seconds.to_string(), streams.to_string());
    let end = iperf3_end(lab, from, to, address, &["-t", &seconds, "-P", &streams])?;
    read_throughput(&end)
}

/// [`iperf3`] in segments of at most so many bytes.
///
/// # Errors
/// As [`iperf3`].
pub fn iperf3_segments(
    lab: &Lab,
    from: &Namespace,
    to: &Namespace,
    address: IpAddr,
    seconds: u32,
    segment: u32,
) -> Result<Throughput> {
    let (seconds, segment) = (seconds.to_string(), segment.to_string());
    read_throughput(&iperf3_end(lab, from, to, address, &["-t", &seconds, "-M", &segment])?)
}

/// So many megabytes of TCP from one namespace to an address of another.
///
/// # Errors
/// As [`iperf3`].
pub fn iperf3_megabytes(
    lab: &Lab,
    from: &Namespace,
    to: &Namespace,
    address: IpAddr,
    megabytes: u32,
) -> Result<Throughput> {
    read_throughput(&iperf3_end(lab, from, to, address, &["-n", &format!("{megabytes}M")])?)
}

fn read_throughput(end: &Value) -> Result<Throughput> {
    let bits_per_second = end["sum_received"]["bits_per_second"].as_f64();
    Ok(Throughput {
        bits_per_second: bits_per_second.context("iperf3 told no throughput")?,
        retransmits: end["sum_sent"]["retransmits"].as_u64().unwrap_or(0),
    })
}

/// What iperf3 measured of UDP, at the receiver.
#[derive(Clone, Copy, Debug)]
pub struct Datagrams {
    /// Datagrams a second that arrived.
    pub per_second: f64,
    /// Bits a second that arrived, of payload.
    pub bits_per_second: f64,
    /// Datagrams sent.
    pub sent: u64,
    /// Datagrams lost.
    pub lost: u64,
}

/// UDP for `seconds` from one namespace to an address of another: datagrams of `payload` bytes, at a rate in bits a second
/// of payload.
///
/// # Errors
/// As [`iperf3`].
pub fn iperf3_udp(
    lab: &Lab,
    from: &Namespace,
    to: &Namespace,
    address: IpAddr,
    seconds: u32,
    (payload, rate): (u32, u64),
) -> Result<Datagrams> {
    let [seconds, length, rate] = [seconds.to_string(), payload.to_string(), rate.to_string()];
    let end = iperf3_end(lab, from, to, address, &["-u", "-t", &seconds, "-l", &length, "-b", &rate])?;
    // Of the datagrams that arrived, `sum` counts those up to the last one: as many as were sent, where none is lost.
    let count =
        |name: &str| end["sum"][name].as_u64().with_context(|| format!("iperf3 told no {name}: {end}"));
    let bits = end["sum_received"]["bits_per_second"].as_f64().context("iperf3 told no throughput")?;
    Ok(Datagrams {
        per_second: bits / 8.0 / f64::from(payload),
        bits_per_second: bits,
        sent: count("packets")?,
        lost: count("lost_packets")?,
    })
}

/// The `end` of what an iperf3 client says, its server having ended too.
fn iperf3_end(
    lab: &Lab,
    from: &Namespace,
    to: &Namespace,
    address: IpAddr,
    arguments: &[&str],
) -> Result<Value> {
    let mut server = to.command("iperf3");
    server.args(["-s", "-1", "-B", &address.to_string()]);
    let mut server = lab.spawn(&format!("iperf3-server-{}", to.name()), server)?;
    listening(to, 5201)?;
    lab.step(&format!("iperf3 from {} to {}", from.name(), to.name()));
    let mut client = from.command("iperf3");
    client.args(["-J", "-c", &address.to_string()]).args(arguments);
    let text = command::run(&mut client, IPERF3)?;
    let mut json: Value = serde_json::from_str(&text)?;
    server.finish(LISTEN)?;
    Ok(json["end"].take())
}

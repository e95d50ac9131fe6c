//! `tortie explain policy`: what becomes of one packet at one endpoint, and by which tiers, policies and rules.
//!
//! From manifests alone: the resolver makes of them what a node would, and the slow judge says each step.

mod answer;
mod known;
mod table;

use std::net::IpAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, bail, ensure};
use clap::{Args, ValueEnum};
use model::{Family, Protocol};
use policy::judge::Packet;

use crate::output::{self, Form};
use known::Known;

pub(super) const EXAMPLES: &str = "\
Examples:
  tortie explain policy -f policies.yaml -f endpoints.yaml --endpoint default/web-0 --direction ingress \\
      --proto tcp --src 10.65.0.2 --dst 10.65.0.7 --dport 80
  tortie explain policy -f /etc/tortie/resources --endpoint eth0 --direction egress \\
      --proto icmp --src 192.0.2.1 --dst 192.0.2.2 -o json";

/// The answer was "denied".
const NO: u8 = 1;
/// Where a client's port isn't said: the first of those that systems choose from (RFC 6335 §6).
const SOME_CLIENTS_PORT: u16 = 49_152;

#[derive(Debug, Args)]
pub(super) struct PolicyArgs {
    /// Resources: a file of YAML or JSON, or a directory of them; as many as there are
    #[arg(short = 'f', long = "file", value_name = "FILE", required = true, num_args = 1..)]
    files: Vec<PathBuf>,

    /// The endpoint: NAMESPACE/NAME, its name, or its interface
    #[arg(short, long, value_name = "ENDPOINT")]
    endpoint: String,

    /// ingress is towards the endpoint, egress is from it
    #[arg(short, long, value_enum)]
    direction: Direction,

    /// The protocol, by name or number
    #[arg(short, long = "proto", value_name = "PROTOCOL")]
    protocol: Protocol,

    /// Where the packet comes from
    #[arg(long = "src", value_name = "ADDR")]
    source: IpAddr,

    /// Its source port; one that clients use where it isn't said
    #[arg(long = "sport", value_name = "N")]
    source_port: Option<u16>,

    /// Where the packet goes to
    #[arg(long = "dst", value_name = "ADDR")]
    destination: IpAddr,

    /// Its destination port
    #[arg(long = "dport", value_name = "N")]
    destination_port: Option<u16>,

    /// Type of an ICMP message; echo request where it isn't said
    #[arg(long, value_name = "N")]
    icmp_type: Option<u8>,

    /// Code of an ICMP message
    #[arg(long, value_name = "N", default_value_t = 0)]
    icmp_code: u8,

    /// At a host endpoint: a packet that the host forwards, rather than one of its own
    #[arg(long)]
    forwarded: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Direction {
    Ingress,
    Egress,
}

impl Direction {
    fn name(self) -> &'static str {
        match self {
            Direction::Ingress => "ingress",
            Direction::Egress => "egress",
        }
    }
}

/// Answers and prints: exit status 0 where the packet is allowed, 1 where it is denied.
///
/// # Errors
/// A file can't be read or isn't valid, the endpoint isn't in it, or the packet makes no sense.
pub(super) fn run(args: &PolicyArgs, form: Form) -> anyhow::Result<ExitCode> {
    let packet = args.packet()?;
    let known = Known::read(&args.files)?;
    let endpoint = known.endpoint(&args.endpoint)?;
    let answer = answer::answer(&known, endpoint, args.direction, args.forwarded, &packet)?;
    match form {
        Form::Json => {
            let text =
                serde_json::to_string_pretty(&answer).context("the answer can't be written as JSON")?;
            output::print(&(text + "\n"))?;
        }
        Form::Table => output::print(&table::table(&answer))?,
    }
    Ok(if answer.is_allowed() { ExitCode::SUCCESS } else { ExitCode::from(NO) })
}

impl PolicyArgs {
    fn packet(&self) -> anyhow::Result<Packet> {
        let (source, destination, protocol) = (self.source, self.destination, self.protocol);
        let family = Family::of(source);
        ensure!(
            family == Family::of(destination),
            "a packet is of one family: --src {source} is {family}, --dst {destination} isn't"
        );
        let has_ports = protocol.has_ports() || protocol == Protocol::UDP_LITE;
        let is_icmp = match family {
            Family::V4 => protocol == Protocol::ICMP,
            Family::V6 => protocol == Protocol::ICMPV6,
        };
        let ports = match (has_ports, self.destination_port) {
            (true, Some(destination)) => Some((self.source_port.unwrap_or(SOME_CLIENTS_PORT), destination)),
            (true, None) => bail!("{protocol} has ports: say which one it goes to by --dport"),
            (false, None) if self.source_port.is_none() => None,
            (false, _) => bail!("{protocol} has no ports: leave --sport and --dport out"),
        };
        ensure!(is_icmp || self.icmp_type.is_none(), "{protocol} over {family} has no ICMP types");
        let echo_request = if family == Family::V4 { 8 } else { 128 };
        let icmp = is_icmp.then(|| (self.icmp_type.unwrap_or(echo_request), self.icmp_code));
        Ok(Packet { protocol: protocol.0, source, destination, ports, icmp })
    }
}

//! `tortie trace`: why a packet goes where it goes, stage by stage of the running router's walk.
//!
//! Of a packet that is made up, at once; with `--live`, of packets that pass.

mod table;

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use clap::{Args, Parser, ValueEnum};
use model::{Family, Protocol};
use slowpath::status::TracesStatus;

use crate::config::CONTROL_SOCKET;
use crate::control::{self, Question};
use crate::output::{self, Form};
use crate::traces::{FilterQuestion, PacketQuestion, TunnelQuestion, echo_request};

pub(crate) const EXAMPLES: &str = "\
A packet that is made up goes through the walk by the tables that are in force. It leaves nowhere, no counter counts it, and
no flow begins with it.

Examples:
  tortie trace --src 10.65.0.2 --dst 10.65.1.7 --proto tcp --dport 443
  tortie trace --in eth0 --src 10.65.1.7 --dst 10.65.0.2 --proto udp --dport 53 --encap vxlan --outer-src 172.16.0.9
  tortie trace --live --src 10.65.0.2 --dport 443 --count 5
  tortie trace --live --dropped --for 30 -o json";

/// The answer is \"dropped\".
const NO: u8 = 1;
/// Where a client's port isn't said: the first of those that systems choose from (RFC 6335 §6).
const SOME_CLIENTS_PORT: u16 = 49_152;
/// How often the router is asked what it has found.
const LOOK_EVERY: Duration = Duration::from_millis(200);

#[derive(Debug, Args)]
pub(crate) struct TraceArgs {
    /// Follow packets that pass, instead of making one up
    #[arg(long)]
    live: bool,

    /// The port that it comes in by: an interface, or the endpoint behind one. Of a made-up packet, that of the workload
    /// which has the source, unless given
    #[arg(long = "in", value_name = "PORT")]
    port: Option<String>,

    /// Where it comes from; with --live also a network
    #[arg(long = "src", value_name = "ADDR")]
    source: Option<String>,

    /// Where it goes to; with --live also a network
    #[arg(long = "dst", value_name = "ADDR")]
    destination: Option<String>,

    /// The protocol, by name or number
    #[arg(long = "proto", value_name = "PROTOCOL")]
    protocol: Option<Protocol>,

    /// Source port; of a made-up packet one that clients use, unless given
    #[arg(long = "sport", value_name = "N")]
    source_port: Option<u16>,

    /// Destination port
    #[arg(long = "dport", value_name = "N")]
    destination_port: Option<u16>,

    #[command(flatten)]
    made_up: MadeUpArgs,

    #[command(flatten)]
    live_only: LiveArgs,

    /// For people, or JSON for programs
    #[arg(short, long, value_enum, default_value = "table")]
    output: Form,

    /// The control socket of the router to ask: `control_socket` of its tortie.yaml
    #[arg(long, value_name = "PATH", default_value = CONTROL_SOCKET)]
    socket: PathBuf,
}

/// What only a made-up packet has.
#[derive(Debug, Args)]
#[command(next_help_heading = "A made-up packet")]
struct MadeUpArgs {
    /// TTL or hop limit
    #[arg(long, value_name = "N", default_value_t = 64, conflicts_with = "live")]
    ttl: u8,
    /// Differentiated services code point
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..64), conflicts_with = "live")]
    dscp: u8,
    /// TCP's flags: syn begins a connection
    #[arg(long, value_name = "FLAGS", value_delimiter = ',', default_value = "syn", conflicts_with = "live")]
    tcp_flags: Vec<TcpFlag>,
    /// Type of an ICMP message; echo request unless given
    #[arg(long, value_name = "N", conflicts_with = "live")]
    icmp_type: Option<u8>,
    /// Code of an ICMP message
    #[arg(long, value_name = "N", default_value_t = 0, conflicts_with = "live")]
    icmp_code: u8,
    /// Bytes of payload
    #[arg(long, value_name = "BYTES", default_value_t = 0, conflicts_with = "live")]
    payload: u16,
    /// Routers may cut it into fragments
    #[arg(long, conflicts_with = "live")]
    may_fragment: bool,
    /// It comes in a tunnel that ends here
    #[arg(long, value_enum, requires = "outer_src", conflicts_with = "live")]
    encap: Option<Encap>,
    /// Where the tunnel begins: another node
    #[arg(long, value_name = "ADDR", requires = "encap")]
    outer_src: Option<IpAddr>,
    /// Where it ends here; the first tunnel end of that kind unless given
    #[arg(long, value_name = "ADDR", requires = "encap")]
    outer_dst: Option<IpAddr>,
    /// VXLAN's network identifier; that of the tunnel end unless given
    #[arg(long, value_name = "N", requires = "encap")]
    vni: Option<u32>,
}

/// What only packets that pass are asked for by.
#[derive(Debug, Args)]
#[command(next_help_heading = "With --live")]
struct LiveArgs {
    /// How many packets, at most
    #[arg(long, value_name = "N", default_value_t = 10, requires = "live")]
    count: u32,
    /// How long, at most
    #[arg(long = "for", value_name = "SECS", default_value_t = 60, requires = "live")]
    seconds: u64,
    /// One in so many of those that match
    #[arg(long, value_name = "N", default_value_t = 1, requires = "live")]
    sample: u32,
    /// Also those that go the other way
    #[arg(long, requires = "live")]
    both_ways: bool,
    /// Only what is dropped; for this reason, where one is given
    #[arg(long, value_name = "REASON", num_args = 0..=1, default_missing_value = "", requires = "live")]
    dropped: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Encap {
    Ipip,
    Vxlan,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum TcpFlag {
    Fin,
    Syn,
    Rst,
    Psh,
    Ack,
    Urg,
}

/// The arguments by themselves.
#[derive(Debug, Parser)]
#[command(name = "trace", disable_help_flag = true)]
struct Line {
    #[command(flatten)]
    args: TraceArgs,
}

/// What another than the command line may say of a made-up packet.
const OF_A_PACKET: [&str; 16] = [
    "in",
    "src",
    "dst",
    "proto",
    "sport",
    "dport",
    "ttl",
    "dscp",
    "tcp-flags",
    "icmp-type",
    "icmp-code",
    "payload",
    "encap",
    "outer-src",
    "outer-dst",
    "vni",
];

/// The packet that is made up of these options of `tortie trace`, each with its value.
///
/// # Errors
/// They make none; in the command line's own words.
pub(crate) fn packet_of(options: Vec<(String, String)>) -> Result<PacketQuestion, String> {
    if let Some((name, _)) = options.iter().find(|(name, _)| !OF_A_PACKET.contains(&name.as_str())) {
        return Err(format!("a packet that is made up has no `{}`", name.escape_default()));
    }
    let words = options.into_iter().map(|(name, value)| format!("--{name}={value}"));
    let line = Line::try_parse_from(std::iter::once("trace".to_owned()).chain(words)).map_err(|error| {
        let text = error.render().to_string();
        let first = text.lines().next().unwrap_or_default();
        first.strip_prefix("error: ").unwrap_or(first).to_owned()
    })?;
    line.args.packet().map_err(|error| format!("{error:#}"))
}

/// Asks and prints. Exit status 0; of a made-up packet 1 where it is dropped, of packets that pass 1 where none did.
///
/// # Errors
/// The router doesn't answer, or the question makes no sense.
pub(crate) fn run(args: &TraceArgs) -> anyhow::Result<ExitCode> {
    match args.live {
        true => live(args),
        false => made_up(args),
    }
}

fn made_up(args: &TraceArgs) -> anyhow::Result<ExitCode> {
    let question = Question::Trace { packet: args.packet()? };
    let answer: TracesStatus = control::ask(&args.socket, &question)?;
    match args.output {
        Form::Json => output::print(&json(&answer)?)?,
        Form::Table => output::print(&table::packets(&answer.packets))?,
    }
    let is_dropped = answer.packets.iter().any(|packet| packet.fate == "drop");
    Ok(if is_dropped { ExitCode::from(NO) } else { ExitCode::SUCCESS })
}

fn live(args: &TraceArgs) -> anyhow::Result<ExitCode> {
    let LiveArgs { count, seconds, .. } = args.live_only;
    let question = Question::Follow { filter: args.filter(), count, seconds };
    let begun: TracesStatus = control::ask(&args.socket, &question)?;
    let mut all = TracesStatus { id: begun.id, ..TracesStatus::default() };
    loop {
        std::thread::sleep(LOOK_EVERY);
        let found: TracesStatus = control::ask(&args.socket, &Question::Followed { id: begun.id })?;
        if args.output == Form::Table {
            output::print(&table::packets(&found.packets))?;
        }
        all.packets.extend(found.packets);
        all.missed = found.missed;
        if !found.running {
            break;
        }
    }
    end(&args.socket, begun.id);
    match args.output {
        Form::Json => output::print(&json(&all)?)?,
        Form::Table => output::print(&table::sum(&all))?,
    }
    Ok(if all.packets.is_empty() { ExitCode::from(NO) } else { ExitCode::SUCCESS })
}

/// Says that nobody waits any more. Without it, the router finds out by itself when the time is over.
fn end(socket: &Path, id: u64) {
    let _ = control::ask::<TracesStatus>(socket, &Question::EndFollowing { id });
}

fn json(status: &TracesStatus) -> anyhow::Result<String> {
    let text = serde_json::to_string_pretty(status).context("the answer can't be written as JSON")?;
    Ok(text + "\n")
}

impl TraceArgs {
    fn packet(&self) -> anyhow::Result<PacketQuestion> {
        let address = |text: &Option<String>, name: &str| -> anyhow::Result<IpAddr> {
            let text = text
                .as_ref()
                .with_context(|| format!("say by {name} what packet to make up, or ask for --live"))?;
            text.parse().with_context(|| format!("{name} {text}: not an address"))
        };
        let (source, destination) = (address(&self.source, "--src")?, address(&self.destination, "--dst")?);
        let family = Family::of(source);
        ensure!(
            family == Family::of(destination),
            "a packet is of one family: --src {source} is {family}, --dst {destination} isn't"
        );
        let protocol =
            self.protocol.context("say by --proto what packet to make up, such as tcp, udp or icmp")?;
        let has_ports = protocol.has_ports();
        let ports = match (has_ports, self.destination_port) {
            (true, Some(to)) => (self.source_port.unwrap_or(SOME_CLIENTS_PORT), to),
            (true, None) => bail!("{protocol} has ports: say which one it goes to by --dport"),
            (false, None) if self.source_port.is_none() => (1, 0),
            (false, _) => bail!("{protocol} has no ports: leave --sport and --dport out"),
        };
        let MadeUpArgs { ttl, dscp, icmp_code, payload, may_fragment, outer_dst, vni, .. } = self.made_up;
        let tunnel = self.made_up.encap.zip(self.made_up.outer_src).map(|(encap, source)| TunnelQuestion {
            is_vxlan: encap == Encap::Vxlan,
            source,
            destination: outer_dst,
            vni,
        });
        let flags = self.made_up.tcp_flags.iter().fold(0, |flags, flag| flags | 1 << *flag as u8);
        Ok(PacketQuestion {
            port: self.port.clone(),
            source: Some(source),
            destination: Some(destination),
            protocol: protocol.0,
            source_port: ports.0,
            destination_port: ports.1,
            tcp_flags: flags,
            icmp_type: self.made_up.icmp_type.unwrap_or_else(|| echo_request(protocol, family)),
            icmp_code,
            ttl,
            dscp,
            may_fragment,
            payload,
            tunnel,
        })
    }

    fn filter(&self) -> FilterQuestion {
        let LiveArgs { sample, both_ways, dropped, .. } = &self.live_only;
        FilterQuestion {
            port: self.port.clone(),
            source: self.source.clone(),
            destination: self.destination.clone(),
            protocol: self.protocol.map(|protocol| protocol.0),
            source_port: self.source_port,
            destination_port: self.destination_port,
            both_ways: *both_ways,
            dropped: dropped.is_some(),
            reason: dropped.clone().filter(|reason| !reason.is_empty()),
            one_in: *sample,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(text: &str) -> TraceArgs {
        Line::try_parse_from(["trace"].into_iter().chain(text.split(' '))).unwrap().args
    }

    #[test]
    fn a_packet_is_made_up_of_what_is_given() {
        let packet = args(
            "--in eth0 --src 10.0.0.1 --dst 10.0.0.2 --proto tcp --dport 80 --tcp-flags syn,ack --ttl 3",
        )
        .packet()
        .unwrap();
        assert_eq!((packet.source_port, packet.destination_port), (SOME_CLIENTS_PORT, 80));
        assert_eq!((packet.tcp_flags, packet.ttl, packet.protocol), (0x12, 3, 6));
        let ping = args("--src fd00::1 --dst fd00::2 --proto icmpv6").packet().unwrap();
        assert_eq!((ping.icmp_type, ping.port), (128, None));
        let inside = args(
            "--in eth0 --src 10.0.0.1 --dst 10.0.0.2 --proto udp --dport 5 --encap vxlan --outer-src 192.0.2.9 --vni 7",
        );
        let tunnel = inside.packet().unwrap().tunnel.unwrap();
        assert_eq!((tunnel.is_vxlan, tunnel.vni), (true, Some(7)));
    }

    #[test]
    fn what_makes_no_packet_is_refused_with_what_to_do() {
        for (text, says) in [
            ("--src 10.0.0.1 --proto tcp", "--dst"),
            ("--src 10.0.0.1 --dst fd00::1 --proto tcp --dport 1", "one family"),
            ("--src 10.0.0.1 --dst 10.0.0.2", "--proto"),
            ("--src 10.0.0.1 --dst 10.0.0.2 --proto tcp", "--dport"),
            ("--src 10.0.0.1 --dst 10.0.0.2 --proto icmp --dport 1", "no ports"),
            ("--src 10.0.0.0/8 --dst 10.0.0.2 --proto icmp", "not an address"),
        ] {
            let error = format!("{:#}", args(text).packet().unwrap_err());
            assert!(error.contains(says), "{text}: {error}");
        }
    }

    #[test]
    fn a_filter_is_what_is_given() {
        let filter = args("--live --src 10.0.0.0/8 --dport 80 --dropped --sample 10 --both-ways").filter();
        assert_eq!(filter.source.as_deref(), Some("10.0.0.0/8"));
        assert!(filter.dropped && filter.both_ways && filter.reason.is_none());
        assert_eq!(args("--live --dropped blackhole").filter().reason.as_deref(), Some("blackhole"));
        let refused = Line::try_parse_from(["trace", "--live", "--ttl", "3"]);
        assert!(refused.is_err(), "packets that pass have their own TTL");
        assert!(Line::try_parse_from(["trace", "--count", "3"]).is_err());
    }
}

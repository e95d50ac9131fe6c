//! `tortie explain mrt`: what a table in MRT's form says (RFC 6396 TABLE_DUMP_V2), of ours or of a collector's.
//!
//! Lines are those of RIPE's `bgpdump -m`, which other tools read:
//! `TABLE_DUMP2|time|B|peer|peer's AS|prefix|AS path|origin|next hop|LOCAL_PREF|MED|communities|AG or NAG|aggregator|`.

use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use bgp::mrt::{Dump, DumpPath};
use bgp::wire::attributes::{AsPath, SegmentKind, code};
use clap::Args;
use model::Prefix;
use serde::Serialize;

use crate::output::{self, Form};

pub(super) const EXAMPLES: &str = "\
Examples:
  tortie show bgp --mrt table.mrt && tortie explain mrt table.mrt
  tortie explain mrt rib.mrt --peer 192.0.2.1 --prefix 10.0.0.0/8 -o json";

/// There is no such path.
const NO: u8 = 1;

#[derive(Debug, Args)]
pub(super) struct MrtArgs {
    /// The file, as it is written: not compressed
    #[arg(value_name = "FILE")]
    file: PathBuf,

    /// Only paths of the peer at this address
    #[arg(long, value_name = "ADDR")]
    peer: Option<IpAddr>,

    /// Only paths to this network and to what is inside it
    #[arg(long, value_name = "PREFIX")]
    prefix: Option<Prefix>,
}

/// One path, for programs.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
struct Line {
    /// When the table was written, in seconds since 1970.
    time: u32,
    peer: Option<IpAddr>,
    peer_as: u32,
    prefix: String,
    /// Path identifier (RFC 7911), 0 without add-path.
    path_id: u32,
    as_path: String,
    origin: String,
    nexthop: Option<IpAddr>,
    local_pref: Option<u32>,
    med: Option<u32>,
    communities: Vec<String>,
    large_communities: Vec<String>,
    atomic_aggregate: bool,
    aggregator: Option<String>,
}

/// Reads and prints: exit status 1 where no path is as asked for.
///
/// # Errors
/// The file can't be read, or is malformed.
pub(super) fn run(args: &MrtArgs, form: Form) -> anyhow::Result<ExitCode> {
    let name = args.file.display();
    let bytes = std::fs::read(&args.file).with_context(|| format!("can't read {name}"))?;
    let dump =
        Dump::read(&bytes).with_context(|| format!("{name} is no table in MRT's form; is it compressed?"))?;
    let of_peer = |path: &&DumpPath<'_>| {
        args.peer.is_none_or(|wanted| peer(&dump, path).is_some_and(|(address, _)| address == wanted))
    };
    let inside = |path: &&DumpPath<'_>| args.prefix.is_none_or(|wanted| wanted.covers(path.nlri.prefix));
    let lines: Vec<Line> =
        dump.paths.iter().filter(of_peer).filter(inside).map(|path| line(&dump, path)).collect();
    match form {
        Form::Json => output::print(&(serde_json::to_string_pretty(&lines)? + "\n"))?,
        Form::Table => output::print(&lines.iter().map(text).collect::<String>())?,
    }
    Ok(if lines.is_empty() { ExitCode::from(NO) } else { ExitCode::SUCCESS })
}

fn peer(dump: &Dump<'_>, path: &DumpPath<'_>) -> Option<(IpAddr, u32)> {
    dump.peers.get(usize::from(path.peer)).map(|peer| (peer.address, peer.as_number))
}

fn line(dump: &Dump<'_>, path: &DumpPath<'_>) -> Line {
    let peer = peer(dump, path);
    let mut line = Line {
        time: path.time,
        peer: peer.map(|(address, _)| address),
        peer_as: peer.map_or(0, |(_, number)| number),
        prefix: path.nlri.prefix.to_string(),
        path_id: path.nlri.path_id,
        ..Line::default()
    };
    for raw in path.iter() {
        let number = || raw.value.first_chunk().map(|octets| u32::from_be_bytes(*octets));
        match raw.code {
            code::ORIGIN => {
                line.origin = match raw.value {
                    [0] => "IGP",
                    [1] => "EGP",
                    _ => "INCOMPLETE",
                }
                .to_owned();
            }
            code::AS_PATH => line.as_path = as_path(raw.value),
            code::NEXT_HOP => {
                line.nexthop = raw.value.first_chunk::<4>().map(|octets| Ipv4Addr::from(*octets).into());
            }
            code::MP_REACH_NLRI => line.nexthop = mp_nexthop(raw.value).or(line.nexthop),
            code::MULTI_EXIT_DISC => line.med = number(),
            code::LOCAL_PREF => line.local_pref = number(),
            code::ATOMIC_AGGREGATE => line.atomic_aggregate = true,
            code::AGGREGATOR => line.aggregator = aggregator(raw.value),
            code::COMMUNITIES => {
                let all = raw.value.as_chunks::<4>().0.iter();
                line.communities = all.map(|octets| community(u32::from_be_bytes(*octets))).collect();
            }
            code::LARGE_COMMUNITIES => {
                let part = |octets: &[u8; 4]| u32::from_be_bytes(*octets).to_string();
                let all = raw.value.as_chunks::<12>().0.iter();
                line.large_communities = all
                    .map(|octets| octets.as_chunks::<4>().0.iter().map(part).collect::<Vec<_>>().join(":"))
                    .collect();
            }
            _ => {}
        }
    }
    line
}

/// Of MP_REACH_NLRI there is the length and the next hop (RFC 6396 §4.3.4); files of some writers have all of it.
fn mp_nexthop(value: &[u8]) -> Option<IpAddr> {
    let address = |octets: &[u8]| octets.first_chunk::<16>().map(|octets| Ipv6Addr::from(*octets).into());
    match value {
        [16 | 32, rest @ ..] => address(rest),
        [_, _, _, 16 | 32, rest @ ..] => address(rest),
        _ => None,
    }
}

fn aggregator(value: &[u8]) -> Option<String> {
    let (number, address) = match value {
        [a, b, c, d, address @ ..] if address.len() == 4 => (u32::from_be_bytes([*a, *b, *c, *d]), address),
        [a, b, address @ ..] if address.len() == 4 => (u32::from(u16::from_be_bytes([*a, *b])), address),
        _ => return None,
    };
    let address = Ipv4Addr::from(*address.first_chunk::<4>()?);
    Some(format!("{number} {address}"))
}

/// Well-known ones by name, as `bgpdump` has them.
fn community(community: u32) -> String {
    match community {
        0xffff_ff01 => "no-export".to_owned(),
        0xffff_ff02 => "no-advertise".to_owned(),
        0xffff_ff03 => "local-AS".to_owned(),
        _ => format!("{}:{}", community >> 16, community & 0xffff),
    }
}

/// Sequences as they are, sets in braces, those of confederations in parentheses and brackets.
fn as_path(value: &[u8]) -> String {
    let segment = |segment: bgp::wire::attributes::Segment<'_>| {
        let (open, between, close) = match segment.kind {
            SegmentKind::Sequence => ("", " ", ""),
            SegmentKind::Set => ("{", ",", "}"),
            SegmentKind::ConfedSequence => ("(", " ", ")"),
            SegmentKind::ConfedSet => ("[", ",", "]"),
        };
        let numbers: Vec<String> = segment.as_numbers().map(|number| number.to_string()).collect();
        format!("{open}{}{close}", numbers.join(between))
    };
    AsPath::four_octet(value).map(segment).collect::<Vec<_>>().join(" ")
}

fn text(line: &Line) -> String {
    let or_nothing = |address: Option<IpAddr>| address.map_or(String::new(), |address| address.to_string());
    let peer = or_nothing(line.peer);
    let mut text = String::new();
    let kind = if line.path_id == 0 { "TABLE_DUMP2" } else { "TABLE_DUMP2_AP" };
    // Writing to a text can't fail.
    let _ = write!(text, "{kind}|{}|B|{peer}|{}|{}|", line.time, line.peer_as, line.prefix);
    if line.path_id != 0 {
        let _ = write!(text, "{}|", line.path_id);
    }
    let (local_pref, med) = (line.local_pref.unwrap_or(0), line.med.unwrap_or(0));
    let communities = line.communities.join(" ");
    let aggregated = if line.atomic_aggregate { "AG" } else { "NAG" };
    let aggregator = line.aggregator.as_deref().unwrap_or_default();
    let (path, origin, nexthop) = (&line.as_path, &line.origin, or_nothing(line.nexthop));
    let _ = writeln!(
        text,
        "{path}|{origin}|{nexthop}|{local_pref}|{med}|{communities}|{aggregated}|{aggregator}|"
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    /// Two peers; 192.0.2.0/24 of the first with all there is, 2001:db8::/32 of the second.
    fn table() -> Vec<u8> {
        let record = |subtype: u16, body: &[u8]| {
            let mut record = 1_700_000_000_u32.to_be_bytes().to_vec();
            record.extend([13_u16, subtype].map(u16::to_be_bytes).concat());
            record.extend((body.len() as u32).to_be_bytes());
            record.extend(body);
            record
        };
        let peers = [
            &[10, 0, 0, 1, 0, 0, 0, 2][..],
            &[2, 10, 0, 0, 2, 10, 0, 0, 2, 0, 0, 0xfd, 0xe9],
            &[2, 10, 0, 0, 3, 10, 0, 0, 3, 0, 0, 0xfd, 0xe8],
        ];
        let attributes = [
            &[0x40, 1, 1, 0][..],
            &[0x40, 2, 16, 2, 1, 0, 0, 0xfd, 0xe9, 1, 2, 0, 0, 0, 7, 0, 0, 0, 8],
            &[0x40, 3, 4, 10, 0, 0, 2, 0x80, 4, 4, 0, 0, 0, 5, 0x40, 5, 4, 0, 0, 0, 100, 0x40, 6, 0],
            &[0xc0, 7, 8, 0, 0, 0xfd, 0xe9, 10, 0, 0, 2],
            &[0xc0, 8, 8, 0xfd, 0xe9, 0, 9, 0xff, 0xff, 0xff, 1],
        ]
        .concat();
        let v6 = [&[0x40, 1, 1, 2, 0x40, 2, 0, 0x80, 14, 17, 16][..], &[0x20, 1, 0x0d, 0xb8], &[0; 11], &[2]]
            .concat();
        let path = |peer: u8, attributes: &[u8]| {
            [&[0, 1, 0, peer][..], &[0; 4], &(attributes.len() as u16).to_be_bytes(), attributes].concat()
        };
        [
            record(1, &peers.concat()),
            record(2, &[&[0, 0, 0, 0, 24, 192, 0, 2][..], &path(0, &attributes)].concat()),
            record(4, &[&[0, 0, 0, 1, 32, 0x20, 1, 0x0d, 0xb8][..], &path(1, &v6)].concat()),
        ]
        .concat()
    }

    fn lines(bytes: &[u8]) -> String {
        let dump = Dump::read(bytes).unwrap();
        dump.paths.iter().map(|path| text(&line(&dump, path))).collect()
    }

    #[test]
    fn a_path_is_a_line_with_everything_in_its_place() {
        assert_eq!(
            lines(&table()),
            "TABLE_DUMP2|1700000000|B|10.0.0.2|65001|192.0.2.0/24|65001 {7,8}|IGP|10.0.0.2|100|5|65001:9 no-export|AG|65001 10.0.0.2|\n\
             TABLE_DUMP2|1700000000|B|10.0.0.3|65000|2001:db8::/32||INCOMPLETE|2001:db8::2|0|0||NAG||\n"
        );
    }

    #[test]
    fn bgpdump_prints_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("table.mrt");
        std::fs::write(&file, table()).unwrap();
        match Command::new("bgpdump").arg("-q").arg("-m").arg(&file).output() {
            Ok(output) => assert_eq!(String::from_utf8(output.stdout).unwrap(), lines(&table())),
            Err(error) => println!("skipped: bgpdump can't be run: {error}"),
        }
    }
}

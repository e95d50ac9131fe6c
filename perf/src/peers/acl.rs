//! New flows beside DPDK's rte_acl and beside rules read one after the other: the same rules, the same packets, every
//! answer compared.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use perf::acl::{self, AclRule, FiveTuple, Kind};
use perf::huge_pages::HugePages;
use perf::judged::{self, Judged};
use perf::measure::{self, Readings};

use super::Arguments;
use super::compare::Comparison;
use super::conversation::Conversation;
use super::dpdk::{self, Pages};

const ROUND: Duration = Duration::from_millis(250);
/// Packets in a bulk of theirs; the faster one counts.
const BULKS: [usize; 2] = [32, 128];
/// rte_acl's ways to go through its tree.
const WAYS: [&str; 3] = ["avx2", "avx512x16", "avx512x32"];
/// More than any list here takes in DPDK.
const MEBIBYTES: usize = 1024;
const MAGIC: u32 = u32::from_le_bytes(*b"TACL");

/// A list of rules, its name, and how many times as fast as rte_acl ours is to be.
const WORKS: [(&str, Kind, usize, Option<f64>); 6] = [
    ("new flows, 100 rules, acl", Kind::Acl, 100, None),
    ("new flows, 1,000 rules, acl", Kind::Acl, 1_000, None),
    ("new flows, 10,000 rules, acl", Kind::Acl, 10_000, Some(2.0)),
    ("new flows, 100 rules, fw", Kind::Firewall, 100, None),
    ("new flows, 1,000 rules, fw", Kind::Firewall, 1_000, None),
    ("new flows, 10,000 rules, fw", Kind::Firewall, 10_000, Some(2.0)),
];

/// Compares all lists.
pub(super) fn compare(arguments: &Arguments) -> Result<Vec<Comparison>> {
    println!("\nnew flows");
    let peer = match dpdk::check().and_then(|()| build()) {
        Ok(program) => Some(program),
        Err(error) => {
            println!("skipped: new flows beside rte_acl: {error:#}");
            None
        }
    };
    let huge = if arguments.no_huge {
        None
    } else {
        HugePages::reserve(MEBIBYTES).inspect_err(|error| println!("skipped: huge pages: {error:#}")).ok()
    };
    let mut all = Vec::new();
    for (work, kind, count, goal) in WORKS {
        let rules = acl::rules(kind, count, 1);
        let packets = acl::packets(&rules, judged::PACKETS, 2);
        let mut judged = Judged::new(Arc::new(acl::checks(&rules)), packets.clone())?;
        let (mut ours, mut sequential) = (Readings::default(), Readings::default());
        for _ in 0..arguments.rounds {
            ours.0.push(measure::rate_on_core(ROUND, || judged.batches()));
            sequential.0.push(measure::rate_on_core(ROUND, || judged.sequentially()));
        }
        let comparison = |peer: String, rival, ours: &Readings, theirs, goal| Comparison {
            work,
            rival,
            unit: "M/s",
            peer,
            ours: Some(ours.clone()),
            theirs,
            goal,
            disturbed: 0,
            floor: false,
        };
        let one = comparison("rules one after the other".to_owned(), "ours", &ours, sequential, None);
        one.tell();
        all.push(one);
        let Some(program) = &peer else { continue };
        let folder = dpdk::scratch()?;
        let file = folder.path().join("rules");
        write(&file, &rules, &packets, judged.rules())?;
        let pages = huge.as_ref().map_or(Pages::Small(MEBIBYTES), Pages::Huge);
        for way in WAYS {
            let mut theirs = match Theirs::start(program, pages, arguments.core()?, &file, way) {
                Ok(theirs) => theirs,
                Err(error) => {
                    println!("skipped: rte_acl {way}: {error:#}");
                    continue;
                }
            };
            println!("rte_acl {way}, {pages}: built in {} s, {} KiB", theirs.seconds, theirs.kibibytes);
            theirs.verify()?;
            let (mut ours, mut by_memory) = (Readings::default(), Readings::default());
            let mut rates = BULKS.map(|_| Readings::default());
            for _ in 0..arguments.rounds {
                ours.0.push(measure::rate_on_core(ROUND, || judged.batches()));
                by_memory.0.push(measure::rate_on_core(ROUND, || judged.batches_by_memory()));
                for (bulk, rates) in BULKS.iter().zip(&mut rates) {
                    rates.0.push(theirs.rate(*bulk)?);
                }
            }
            for (bulk, rate) in BULKS.iter().zip(rates) {
                let name = format!("rte_acl {way}, bulk {bulk}, {pages}");
                let first = format!("{name}; ours without memory");
                for (name, ours, goal) in [(first, &ours, None), (name, &by_memory, goal)] {
                    let comparison = comparison(name, pages.rival(), ours, rate.clone(), goal);
                    comparison.tell();
                    all.push(comparison);
                }
            }
        }
    }
    Ok(all)
}

/// Builds `perf/peers/rte_acl.c`.
fn build() -> Result<PathBuf> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("peers/rte_acl.c");
    let program = dpdk::cache()?.join("rte_acl");
    dpdk::compile(&[source], &["-Wall", "-Wextra"], &program)?;
    Ok(program)
}

/// Writes what `rte_acl.c` reads: little-endian, but packets as on the wire.
fn write(path: &Path, rules: &[AclRule], packets: &[FiveTuple], expected: &[u32]) -> Result<()> {
    let file = File::create(path).with_context(|| format!("creating {}", path.display()))?;
    let mut out = BufWriter::with_capacity(1 << 20, file);
    for number in [MAGIC, rules.len() as u32, packets.len() as u32] {
        out.write_all(&number.to_le_bytes())?;
    }
    for rule in rules {
        out.write_all(&rule.source.0.to_le_bytes())?;
        out.write_all(&rule.destination.0.to_le_bytes())?;
        for ports in [rule.source_ports, rule.destination_ports] {
            out.write_all(&ports.0.to_le_bytes())?;
            out.write_all(&ports.1.to_le_bytes())?;
        }
        let (protocol, mask) = rule.protocol.map_or((0, 0), |protocol| (protocol, u8::MAX));
        out.write_all(&[rule.source.1, rule.destination.1, protocol, mask])?;
    }
    for packet in packets {
        out.write_all(&[packet.protocol, 0, 0, 0])?;
        out.write_all(&packet.source.to_be_bytes())?;
        out.write_all(&packet.destination.to_be_bytes())?;
        out.write_all(&packet.source_port.to_be_bytes())?;
        out.write_all(&packet.destination_port.to_be_bytes())?;
    }
    for rule in expected {
        out.write_all(&rule.to_le_bytes())?;
    }
    out.flush().with_context(|| format!("writing {}", path.display()))
}

/// The C program with its rules built.
struct Theirs {
    conversation: Conversation,
    /// What building took, and DPDK's memory afterwards.
    seconds: String,
    kibibytes: usize,
}

impl Theirs {
    fn start(program: &Path, pages: Pages<'_>, core: usize, file: &Path, way: &str) -> Result<Theirs> {
        let arguments = [file.display().to_string(), way.to_owned()];
        let mut conversation = Conversation::start(program, pages, core, &arguments)?;
        let ready = conversation.answer("ready")?;
        let (seconds, bytes) = ready.split_once(' ').context("two numbers")?;
        let (seconds, kibibytes) = (seconds.to_owned(), bytes.parse::<usize>()? >> 10);
        Ok(Theirs { conversation, seconds, kibibytes })
    }

    fn verify(&mut self) -> Result<()> {
        let answer = self.conversation.ask("verify", "verify")?;
        let (wrong, of) = answer.split_once(' ').context("two numbers")?;
        ensure!(wrong == "0", "{wrong} of {of} answers differ from ours");
        Ok(())
    }

    /// Millions of packets a second of its core's time.
    fn rate(&mut self, bulk: usize) -> Result<f64> {
        let answer = self.conversation.ask(&format!("rate {bulk} {}", ROUND.as_millis()), "rate")?;
        let (rate, _sum) = answer.split_once(' ').context("two numbers")?;
        Ok(rate.parse()?)
    }
}

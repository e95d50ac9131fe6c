//! `tortie capture`: frames that pass the running router, for tcpdump and Wireshark, each with what became of it.

mod pcapng;

use std::fs::File;
use std::io::{self, BufWriter, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::Args;
use model::Protocol;

use crate::captures::{CaptureQuestion, CapturesStatus};
use crate::config::CONTROL_SOCKET;
use crate::control::{self, Question};
use crate::traces::FilterQuestion;

pub(crate) const EXAMPLES: &str = "\
The kernel's own capture (tcpdump -i eth0) doesn't see what AF_XDP takes before it. What comes in is captured as it came, and a
comment says what became of it and why; what leaves, as it leaves. The format is pcapng, with each port as an interface.

Examples:
  tortie capture --in eth0 -w in.pcapng
  tortie capture --in cali1 --out eth0 --proto tcp --dport 443 --count 100 -w both.pcapng
  tortie capture --dropped ingress_denied --for 600 -w denied.pcapng
  tortie capture --src 10.65.0.0/24 -w - | tcpdump -n -r -";

/// No frame passed.
const NO: u8 = 1;
/// How often the router is asked while there is nothing new.
const LOOK_EVERY: Duration = Duration::from_millis(100);

#[derive(Debug, Args)]
pub(crate) struct CaptureArgs {
    /// Where to: a file, which must not exist, or - for standard output
    #[arg(short = 'w', long = "write", value_name = "FILE")]
    write: PathBuf,

    /// What comes in by this port: an interface, or the endpoint behind one. Without --in and --out, both ways everywhere
    #[arg(long = "in", value_name = "PORT")]
    port: Option<String>,

    /// What leaves by this port
    #[arg(long = "out", value_name = "PORT")]
    leaves_by: Option<String>,

    /// Only what is dropped, as it came in; for this reason, where one is given
    #[arg(long, value_name = "REASON", num_args = 0..=1, default_missing_value = "", conflicts_with = "leaves_by")]
    dropped: Option<String>,

    /// Where it comes from: an address or a network. Headers inside a tunnel count as well
    #[arg(long = "src", value_name = "NET")]
    source: Option<String>,

    /// Where it goes to
    #[arg(long = "dst", value_name = "NET")]
    destination: Option<String>,

    /// The protocol, by name or number
    #[arg(long = "proto", value_name = "PROTOCOL")]
    protocol: Option<Protocol>,

    /// Source port
    #[arg(long = "sport", value_name = "N")]
    source_port: Option<u16>,

    /// Destination port
    #[arg(long = "dport", value_name = "N")]
    destination_port: Option<u16>,

    /// Also those that go the other way
    #[arg(long)]
    both_ways: bool,

    /// How many frames, at most
    #[arg(short = 'c', long, value_name = "N", default_value_t = 10_000)]
    count: u32,

    /// How long, at most
    #[arg(long = "for", value_name = "SECS", default_value_t = 60)]
    seconds: u64,

    /// Bytes of each frame, at most
    #[arg(short = 's', long, value_name = "BYTES", default_value_t = crate::limits::CAPTURED_BYTES)]
    snaplen: usize,

    /// The control socket of the router to ask: `control_socket` of its tortie.yaml
    #[arg(long, value_name = "PATH", default_value = CONTROL_SOCKET)]
    socket: PathBuf,
}

/// Captures until there is enough, the time is over, or Ctrl-C. Exit status 1 where nothing passed.
///
/// # Errors
/// The router doesn't answer, the question makes no sense, or the file can't be written.
pub(crate) fn run(args: &CaptureArgs) -> anyhow::Result<ExitCode> {
    if is_stdout(&args.write) && io::stdout().is_terminal() {
        bail!(
            "frames make no text: write them to a file, or pipe them: tortie capture -w - | tcpdump -n -r -"
        );
    }
    let interrupted = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&interrupted)).context("can't wait for Ctrl-C")?;
    }
    // The router is asked first: a file is begun only where there will be something to put into it.
    let question =
        Question::Capture { filter: args.question(), count: args.count.max(1), seconds: args.seconds };
    let begun: CapturesStatus = control::ask(&args.socket, &question)?;
    let captured = capture(args, begun.id, &interrupted);
    // Who has the turn next needn't wait. The router finds out by itself, too.
    let _ = control::ask::<CapturesStatus>(&args.socket, &Question::EndCapture { id: begun.id });
    let (frames, missed) = captured?;
    let plural = if frames == 1 { "" } else { "s" };
    eprintln!("{frames} frame{plural} captured, {missed} missed");
    Ok(if frames == 0 { ExitCode::from(NO) } else { ExitCode::SUCCESS })
}

fn capture(args: &CaptureArgs, id: u64, interrupted: &AtomicBool) -> anyhow::Result<(u64, u64)> {
    let to =
        || if is_stdout(&args.write) { "standard output".into() } else { args.write.display().to_string() };
    let out: Box<dyn Write> = if is_stdout(&args.write) {
        Box::new(io::stdout())
    } else {
        Box::new(File::create_new(&args.write).with_context(|| format!("can't begin {}", to()))?)
    };
    let mut file = pcapng::Writer::new(BufWriter::new(out), args.snaplen)
        .with_context(|| format!("writing {}", to()))?;
    eprintln!("capturing {} frames or {} s at most; Ctrl-C ends", args.count.max(1), args.seconds);
    let mut frames = 0;
    loop {
        let last = interrupted.load(Ordering::Relaxed);
        let found: CapturesStatus = control::ask(&args.socket, &Question::Captured { id })?;
        for frame in &found.frames {
            file.frame(frame).with_context(|| format!("writing {}", to()))?;
        }
        file.flush().with_context(|| format!("writing {}", to()))?;
        frames += found.frames.len() as u64;
        if last || !found.running {
            return Ok((frames, found.missed));
        }
        if found.frames.is_empty() {
            std::thread::sleep(LOOK_EVERY);
        }
    }
}

fn is_stdout(path: &Path) -> bool {
    path.as_os_str() == "-"
}

impl CaptureArgs {
    fn question(&self) -> CaptureQuestion {
        let CaptureArgs { port, leaves_by, dropped, .. } = self;
        CaptureQuestion {
            packet: FilterQuestion {
                port: port.clone(),
                source: self.source.clone(),
                destination: self.destination.clone(),
                protocol: self.protocol.map(|protocol| protocol.0),
                source_port: self.source_port,
                destination_port: self.destination_port,
                both_ways: self.both_ways,
                dropped: dropped.is_some(),
                reason: dropped.clone().filter(|reason| !reason.is_empty()),
                one_in: 1,
            },
            incoming: port.is_some() || leaves_by.is_none(),
            outgoing: leaves_by.is_some() || port.is_none() && dropped.is_none(),
            leaves_by: leaves_by.clone(),
            bytes: self.snaplen,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        args: CaptureArgs,
    }

    fn ways(text: &str) -> (bool, bool) {
        let words = ["capture", "-w", "-"].into_iter().chain(text.split_whitespace());
        let question = Line::try_parse_from(words).unwrap().args.question();
        (question.incoming, question.outgoing)
    }

    #[test]
    fn what_is_named_is_captured_and_without_a_name_everything() {
        assert_eq!(ways(""), (true, true));
        assert_eq!(ways("--in eth0"), (true, false));
        assert_eq!(ways("--out eth0"), (false, true));
        assert_eq!(ways("--in eth0 --out cali1"), (true, true));
        assert_eq!(ways("--dropped"), (true, false));
        assert_eq!(ways("--dropped blackhole --in eth0"), (true, false));
        assert!(Line::try_parse_from(["capture", "-w", "-", "--dropped", "x", "--out", "eth0"]).is_err());
        assert!(Line::try_parse_from(["capture", "--in", "eth0"]).is_err(), "where to?");
    }
}

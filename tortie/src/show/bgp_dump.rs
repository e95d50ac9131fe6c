//! `tortie show bgp --mrt FILE`: BGP's table in the form that collectors keep and `bgpdump` reads.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, bail};
use slowpath::status::BgpDumpStatus;

use crate::control::{self, Question};

/// Asks for piece after piece and writes them.
///
/// # Errors
/// The router doesn't answer, or the file can't be written.
pub(super) fn write(socket: &Path, file: &Path) -> anyhow::Result<ExitCode> {
    let writing = || format!("can't write to {}", file.display());
    let mut out: Box<dyn Write> = match file.to_str() {
        Some("-") => Box::new(io::stdout().lock()),
        _ => Box::new(BufWriter::new(File::create(file).with_context(writing)?)),
    };
    let mut id = None;
    loop {
        let piece: BgpDumpStatus = control::ask(socket, &Question::BgpDump { id })?;
        let octets = piece.octets().context("the router's answer is not hexadecimal")?;
        if piece.id == 0 {
            match id {
                None => bail!("the router doesn't speak BGP yet: its node has no address, or no resource"),
                Some(_) => bail!("the router has forgotten the table in between; ask again"),
            }
        }
        out.write_all(&octets).with_context(writing)?;
        if piece.done {
            break;
        }
        id = Some(piece.id);
    }
    out.flush().with_context(writing)?;
    Ok(ExitCode::SUCCESS)
}

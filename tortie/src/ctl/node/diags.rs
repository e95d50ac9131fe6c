//! `node diags`: an archive of what this machine, its kernel and a running router have to say.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use super::Said;
use crate::control::{self, Question};
use crate::limits;

/// What is said, what is run, and the file that it goes to.
const COMMANDS: [(&str, &str, &str); 11] = [
    ("", "date", "date"),
    ("", "hostname", "hostname"),
    ("Dumping sockets", "ss -a -n", "netstat"),
    ("Dumping routes (IPv4)", "ip -4 route show table all", "ipv4_route"),
    ("Dumping routes (IPv6)", "ip -6 route show table all", "ipv6_route"),
    ("Dumping interface info (IPv4)", "ip -4 addr", "ipv4_addr"),
    ("Dumping interface info (IPv6)", "ip -6 addr", "ipv6_addr"),
    ("Dumping links", "ip -d -s link", "links"),
    ("Dumping neighbours", "ip neigh", "neighbours"),
    ("Dumping nftables", "nft list ruleset", "nftables"),
    ("Copying journal for tortie.service", "journalctl -u tortie.service --no-pager", "journalctl_tortie"),
];

/// `node diags`.
pub(super) fn collect(log_dir: &Path, socket: &Path) -> Said {
    let mut out = "Collecting diagnostics\n".to_owned();
    let error = gather(log_dir, socket, &mut out).err();
    Said { out, error: error.map(|error| format!("Error collecting diagnostics: {error}")) }
}

fn gather(log_dir: &Path, socket: &Path, out: &mut String) -> io::Result<()> {
    let stamp = humantime::format_rfc3339_seconds(std::time::SystemTime::now()).to_string();
    let stamp = stamp.replace(['-', ':', 'Z'], "").replace('T', "_");
    let place = std::env::temp_dir().join(format!("calico{}-{stamp}", std::process::id()));
    let diagnostics = place.join("diagnostics");
    // A directory of this name that is there already isn't ours: it is an error.
    fs::create_dir(&place)?;
    fs::create_dir(&diagnostics)?;
    out.push_str(&format!("Using temp dir: {}\n", place.display()));
    for (info, command, file) in COMMANDS {
        if !info.is_empty() {
            out.push_str(&format!("{info}\n"));
        }
        fs::write(diagnostics.join(file), run(command, out))?;
    }
    ask(socket, &diagnostics, out)?;
    if log_dir.is_dir() {
        out.push_str("Copying Calico logs\n");
        copy(log_dir, &diagnostics.join("logs"), out)?;
    } else {
        out.push_str(&format!("No logs found in {}; skipping log copying\n", log_dir.display()));
    }
    let archive = place.join(format!("diags-{stamp}.tar.gz"));
    let packed =
        Command::new("tar").arg("-C").arg(&place).arg("-zcf").arg(&archive).arg("diagnostics").status();
    match packed {
        Ok(status) if status.success() => {
            fs::remove_dir_all(&diagnostics)?;
            out.push_str(&format!("\nDiags saved to {}\n", archive.display()));
            Ok(())
        }
        Ok(status) => Err(io::Error::other(format!("tar: {status}"))),
        Err(error) => Err(error),
    }
}

/// What a command prints, on either stream.
fn run(command: &str, out: &mut String) -> Vec<u8> {
    let mut words = command.split(' ');
    let Some(program) = words.next() else { return Vec::new() };
    match Command::new(program).args(words).output() {
        Ok(output) => [output.stdout, output.stderr].concat(),
        Err(error) => {
            out.push_str(&format!("Failed to run command: {command}\nError: {error}\n"));
            Vec::new()
        }
    }
}

/// What a running router says of itself.
fn ask(socket: &Path, diagnostics: &Path, out: &mut String) -> io::Result<()> {
    out.push_str("Asking the router\n");
    let limit = limits::ROUTES_SHOWN;
    for (name, question) in [
        ("bgp", Question::Bgp),
        ("routes", Question::Routes { limit, source: None }),
        ("neighbors", Question::Neighbors),
        ("ports", Question::Ports),
        ("drops", Question::Drops),
        ("policy", Question::Policy { endpoint: None, all: true }),
    ] {
        match control::ask::<Value>(socket, &question) {
            Ok(answer) => fs::write(diagnostics.join(format!("tortie_{name}.json")), answer.to_string())?,
            Err(error) => {
                out.push_str(&format!("No answer: {error}\n"));
                break;
            }
        }
    }
    Ok(())
}

/// Copies files and directories; links and the like stay behind.
fn copy(from: &Path, to: &Path, out: &mut String) -> io::Result<()> {
    let mut left: Vec<(PathBuf, PathBuf)> = vec![(from.to_owned(), to.to_owned())];
    while let Some((from, to)) = left.pop() {
        fs::create_dir(&to)?;
        for entry in fs::read_dir(&from)? {
            let entry = entry?;
            let (kind, to) = (entry.file_type()?, to.join(entry.file_name()));
            if kind.is_dir() {
                left.push((entry.path(), to));
            } else if kind.is_file()
                && let Err(error) = fs::copy(entry.path(), to)
            {
                out.push_str(&format!("Error copying log files: {error}\n"));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logs_are_copied_with_their_directories() {
        let place = tempfile::tempdir().unwrap();
        let from = place.path().join("log");
        fs::create_dir_all(from.join("bird")).unwrap();
        fs::write(from.join("bird/current"), "up").unwrap();
        let to = place.path().join("copy");
        copy(&from, &to, &mut String::new()).unwrap();
        assert_eq!(fs::read_to_string(to.join("bird/current")).unwrap(), "up");
    }

    #[test]
    fn a_command_that_is_not_there_is_named() {
        let mut out = String::new();
        assert!(run("no-such-program-at-all -x", &mut out).is_empty());
        assert!(out.starts_with("Failed to run command: no-such-program-at-all -x\n"), "{out}");
    }
}

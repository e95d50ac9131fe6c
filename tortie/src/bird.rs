//! The dialogue on BIRD's control sockets, as far as calicoctl holds it: `show protocols`, from both its ends.
//!
//! A stock `calicoctl node status` asks the BIRD of each family at its socket. The [`server`] answers in a BIRD's stead;
//! [`ask`] is what calicoctl does, for nodes where BIRD still runs.

mod server;

use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use slowpath::status::BgpStatus;

use crate::show;

pub(crate) use server::Servers;

/// Where Calico's BIRD listens, and where a distribution's does.
pub(crate) const DIRECTORIES: [&str; 2] = ["/var/run/calico", "/var/run/bird"];
/// The sockets of both families.
pub(crate) const SOCKETS: [&str; 2] = ["bird.ctl", "bird6.ctl"];
/// The heading of the table, which calicoctl compares word for word.
const HEADING: &str = "name     proto    table    state  since       info";
/// A silent BIRD is given up after this.
const PATIENCE: Duration = Duration::from_secs(2);

/// One session's row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    /// The peer's address.
    pub(crate) address: String,
    /// Such as `node-to-node mesh`.
    pub(crate) kind: &'static str,
    /// `up`, `start` and the like.
    pub(crate) state: String,
    /// A time of day or a date.
    pub(crate) since: String,
    /// The BGP state, and what else there is to know.
    pub(crate) info: String,
}

/// What BIRD says to one who comes.
pub(crate) fn greeting() -> String {
    format!("0001 BIRD (tortie {}) ready.\n", env!("CARGO_PKG_VERSION"))
}

/// The answer to `command` about the sessions of a family.
pub(crate) fn answer(command: &str, bgp: &BgpStatus, is_v4: bool) -> String {
    let words: Vec<&str> = command.split_whitespace().collect();
    match words.as_slice() {
        ["show", "protocols"] => protocols(bgp, is_v4),
        ["show", "status"] => {
            let router_id = bgp.router_id.as_deref().unwrap_or("0.0.0.0");
            format!(
                "1000-tortie {}\n1011-Router ID is {router_id}\n0013 Daemon is up and running\n",
                env!("CARGO_PKG_VERSION")
            )
        }
        _ => "9001 syntax error\n".to_owned(),
    }
}

fn protocols(bgp: &BgpStatus, is_v4: bool) -> String {
    let mut text = format!("2002-{HEADING}\n");
    let mut lead = "1002-";
    for peer in bgp.peers.iter().filter(|peer| peer.address.is_ipv4() == is_v4) {
        let state = if peer.up { "up" } else { "start" };
        let (since, info) = (show::bgp::since(peer), show::bgp::info(peer));
        text.push_str(&format!("{lead}{:<8} BGP      master   {state:<6} {since:<10}  {info}\n", peer.name));
        lead = " ";
    }
    text.push_str("0000 \n");
    text
}

/// Asks the BIRD at `socket` for its sessions.
///
/// # Errors
/// It isn't there, or its answer is none.
pub(crate) fn ask(socket: &Path) -> io::Result<Vec<Row>> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.write_all(b"show protocols\n")?;
    let separator = if socket.ends_with(SOCKETS[1]) { ":" } else { "." };
    read(BufReader::new(stream), separator)
}

/// Reads the answer.
fn read(answer: impl BufRead, separator: &str) -> io::Result<Vec<Row>> {
    let unknown = |what| io::Error::new(io::ErrorKind::InvalidData, what);
    let mut rows = Vec::new();
    for line in answer.lines() {
        let line = line?;
        let row = if line.starts_with("0000") {
            break;
        } else if line.starts_with("0001") {
            continue;
        } else if let Some(heading) = line.strip_prefix("2002-") {
            if !heading.split_whitespace().eq(HEADING.split_whitespace()) {
                return Err(unknown("unknown BIRD table output format"));
            }
            continue;
        } else if let Some(row) = line.strip_prefix("1002-").or_else(|| line.strip_prefix(' ')) {
            row
        } else {
            return Err(unknown("unexpected output line from BIRD"));
        };
        rows.extend(session(row, separator));
    }
    Ok(rows)
}

/// The row of a session of Calico's; BIRD has other protocols, too.
fn session(row: &str, separator: &str) -> Option<Row> {
    let columns: Vec<&str> = row.split_whitespace().collect();
    let [name, "BGP", _, state, since, info @ ..] = columns.as_slice() else { return None };
    let (kind, address) = name.split_once('_')?;
    let kind = match kind {
        "Global" => "global",
        "Mesh" => "node-to-node mesh",
        "Node" => "node specific",
        _ => return None,
    };
    (!info.is_empty() && !address.is_empty()).then(|| Row {
        address: address.replace('_', separator),
        kind,
        state: (*state).to_owned(),
        since: (*since).to_owned(),
        info: info.join(" "),
    })
}

#[cfg(test)]
mod tests;

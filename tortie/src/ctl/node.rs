//! `node`: this machine, by calicoctl's commands.

mod diags;
mod system;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Subcommand};
use slowpath::status::BgpStatus;

use super::Said;
use crate::bird::{self, Row};
use crate::config::{CONFIGURATION, CONTROL_SOCKET};
use crate::control::{self, Question};
use crate::show;
use crate::show::table::Table;
use crate::tuning::survey::survey;

/// What `node` takes.
#[derive(Clone, Debug, Args)]
pub(crate) struct NodeArgs {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Clone, Debug, Subcommand)]
enum Verb {
    /// Is Calico's node running here, and how are its BGP sessions?
    Status {
        /// The control socket of the router to ask
        #[arg(long, value_name = "PATH", default_value = CONTROL_SOCKET)]
        socket: PathBuf,
    },
    /// Does this machine have what Calico needs?
    Checksystem {
        /// The kernel's configuration, where it isn't in a usual place
        #[arg(short = 'f', long, value_name = "KERNEL_CONFIG")]
        kernel_config: Option<PathBuf>,
        /// The router's configuration: what its uplinks lack is told, too
        #[arg(long, value_name = "FILE", default_value = CONFIGURATION)]
        router_config: PathBuf,
        /// The control socket of the router to ask what its ports got
        #[arg(long, value_name = "PATH", default_value = CONTROL_SOCKET)]
        socket: PathBuf,
    },
    /// Not here: `tortie run` is the node
    #[command(hide = true)]
    Run {
        /// What calicoctl takes
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        words: Vec<String>,
    },
    /// Collect what helps to find an error into an archive
    Diags {
        /// Logs to put in
        #[arg(long, value_name = "LOG_DIR", default_value = "/var/log/calico")]
        log_dir: PathBuf,
        /// The control socket of the router to ask
        #[arg(long, value_name = "PATH", default_value = CONTROL_SOCKET)]
        socket: PathBuf,
    },
}

/// `node`.
///
/// # Errors
/// Standard output can't be written.
pub(crate) fn run(args: &NodeArgs, _: &super::GlobalArgs) -> anyhow::Result<ExitCode> {
    match &args.verb {
        Verb::Status { socket } => status(socket),
        Verb::Checksystem { kernel_config, router_config, socket } => {
            let said = system::check(kernel_config.as_deref());
            // calicoctl's own output ends there.
            let more = if super::is_calicoctl() { String::new() } else { survey(router_config, socket) };
            Said { out: said.out + &more, ..said }
        }
        Verb::Run { .. } => Said::failed(NO_CONTAINER),
        Verb::Diags { log_dir, socket } => diags::collect(log_dir, socket),
    }
    .finish()
}

const NO_CONTAINER: &str = "there is no container to run: the router is this program, begun by `tortie run -c \
                            tortie.yaml`; a node's name, addresses and AS number stand in that file";
const NOT_RUNNING: &str = "Calico process is not running.";

/// Sessions of our own router where one answers, those of BIRD otherwise.
fn status(socket: &Path) -> Said {
    if let Ok(bgp) = control::ask::<BgpStatus>(socket, &Question::Bgp) {
        let of = |is_v4| {
            let peers = bgp.peers.iter().filter(move |peer| peer.address.is_ipv4() == is_v4);
            peers.map(own).collect()
        };
        return Said::fine(shown([Family::Rows(of(true)), Family::Rows(of(false))]));
    }
    let processes = processes();
    let runs = |argv: &[&str]| processes.iter().any(|process| is(process, argv));
    if !runs(&["calico-felix"]) && !runs(&["calico-node", "-felix"]) {
        return Said::failed(NOT_RUNNING);
    }
    let families = ["bird", "bird6"];
    if !families.iter().any(|process| runs(&[process])) {
        return Said::fine(
            "Calico process is running.\n\nNone of the BGP backend processes (BIRD or GoBGP) are running.\n\n",
        );
    }
    let mut asked = Vec::new();
    for (process, socket) in families.iter().zip(bird::SOCKETS) {
        asked.push(if runs(&[process]) { of_bird(socket) } else { Family::NoProcess });
    }
    match <[Family; 2]>::try_from(asked) {
        Ok(families) => Said::fine(shown(families)),
        Err(_) => Said::failed(NOT_RUNNING),
    }
}

/// What is known of a family's sessions.
enum Family {
    Rows(Vec<Row>),
    Unknown(String),
    NoProcess,
}

fn of_bird(socket: &str) -> Family {
    let mut failed = None;
    for directory in bird::DIRECTORIES {
        match bird::ask(&Path::new(directory).join(socket)) {
            Ok(rows) => return Family::Rows(rows),
            Err(error) => failed = Some(format!("dial unix {directory}/{socket}: {error}")),
        }
    }
    Family::Unknown(failed.unwrap_or_default())
}

fn own(peer: &slowpath::status::PeerStatus) -> Row {
    Row {
        address: peer.address.to_string(),
        kind: match peer.kind.as_str() {
            "global" => "global",
            "node specific" => "node specific",
            _ => "node-to-node mesh",
        },
        state: if peer.up { "up" } else { "start" }.to_owned(),
        since: show::bgp::since(peer),
        info: show::bgp::info(peer),
    }
}

fn shown(families: [Family; 2]) -> String {
    let mut text = "Calico process is running.\n".to_owned();
    for (family, version) in families.iter().zip(["4", "6"]) {
        match family {
            Family::NoProcess => {
                let suffix = if version == "6" { "6" } else { "" };
                text.push_str(&format!("\nINFO: BIRDv{version} process: 'bird{suffix}' is not running.\n"));
                continue;
            }
            Family::Rows(_) | Family::Unknown(_) => text.push_str(&format!("\nIPv{version} BGP status\n")),
        }
        match family {
            Family::Rows(rows) if rows.is_empty() => {
                text.push_str(&format!("No IPv{version} peers found.\n"))
            }
            Family::Rows(rows) => text.push_str(&boxes(rows)),
            Family::Unknown(error) => {
                text.push_str(&format!(
                    "Error querying BIRD: unable to connect to BIRDv{version} socket: {error}"
                ));
            }
            Family::NoProcess => {}
        }
    }
    text.push('\n');
    text
}

fn boxes(rows: &[Row]) -> String {
    let mut table = Table::new(&["PEER ADDRESS", "PEER TYPE", "STATE", "SINCE", "INFO"]);
    for Row { address, kind, state, since, info } in rows {
        let cells = [address.as_str(), kind, state, since, info];
        table.row(cells.map(str::to_owned).to_vec());
    }
    table.boxes()
}

/// The command lines of all processes.
fn processes() -> Vec<Vec<String>> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    let lines = entries.flatten().filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok());
    let words = |line: Vec<u8>| {
        let words = line.split(|byte| *byte == 0).map(|word| String::from_utf8_lossy(word).into_owned());
        words.collect()
    };
    lines.map(words).collect()
}

/// calicoctl's own idea of a process: one of these words is at its place.
fn is(process: &[String], argv: &[&str]) -> bool {
    argv.iter().zip(process).any(|(wanted, word)| wanted == word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_stand_in_calicoctls_table() {
        let row = Row {
            address: "172.17.8.102".to_owned(),
            kind: "node-to-node mesh",
            state: "up".to_owned(),
            since: "23:30:04".to_owned(),
            info: "Established".to_owned(),
        };
        assert_eq!(
            shown([Family::Rows(vec![row]), Family::Rows(Vec::new())]),
            "\
Calico process is running.

IPv4 BGP status
+--------------+-------------------+-------+----------+-------------+
| PEER ADDRESS | PEER TYPE         | STATE | SINCE    | INFO        |
+--------------+-------------------+-------+----------+-------------+
| 172.17.8.102 | node-to-node mesh | up    | 23:30:04 | Established |
+--------------+-------------------+-------+----------+-------------+

IPv6 BGP status
No IPv6 peers found.

"
        );
    }

    #[test]
    fn a_family_without_its_bird_is_passed_over_with_a_word() {
        let text = shown([Family::NoProcess, Family::NoProcess]);
        assert!(text.contains("INFO: BIRDv4 process: 'bird' is not running."), "{text}");
        assert!(text.contains("INFO: BIRDv6 process: 'bird6' is not running."), "{text}");
    }

    #[test]
    fn a_process_is_known_by_a_word_at_its_place() {
        let words = |line: &str| line.split(' ').map(str::to_owned).collect::<Vec<_>>();
        assert!(is(&words("calico-node -felix"), &["calico-node", "-felix"]));
        assert!(is(&words("bird -felix run"), &["calico-node", "-felix"]));
        assert!(is(&words("bird -felix run"), &["bird"]));
        assert!(!is(&words("tortie run"), &["calico-node", "-felix"]));
    }

    #[test]
    fn nobody_there_is_said_and_is_an_error() {
        let nowhere = Path::new("/nonexistent/tortie.sock");
        let said = status(nowhere);
        if let Some(error) = said.error {
            assert_eq!(error, NOT_RUNNING);
        }
    }
}

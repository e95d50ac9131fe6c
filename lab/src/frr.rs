//! Debian's FRR: its BGP daemon alone, without zebra, as what it says and has is what is tried.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::netns::Namespace;
use crate::process::Process;
use crate::{Lab, command};

/// Debian's name of the program that asks it.
pub const PROGRAM: &str = "vtysh";
/// No program that a shell would find.
const BGPD: &str = "/usr/lib/frr/bgpd";
/// How long it may take until it answers.
const START: Duration = Duration::from_secs(90);
/// How long a question may take.
const QUESTION: Duration = Duration::from_secs(60);

/// A running `bgpd`.
pub struct Frr {
    directory: PathBuf,
    process: Process,
}

impl Frr {
    /// Starts it with this configuration in a namespace and waits until it answers.
    ///
    /// # Errors
    /// It doesn't start, or doesn't answer.
    pub fn start(lab: &Lab, namespace: &Namespace, configuration: &str) -> Result<Frr> {
        let name = format!("frr-{}", namespace.name());
        let directory = lab.directory().join(&name);
        std::fs::create_dir_all(&directory)?;
        let file = directory.join("bgpd.conf");
        std::fs::write(&file, configuration)?;
        let mut bgpd = namespace.command(BGPD);
        bgpd.arg("-f")
            .arg(&file)
            .arg("-i")
            .arg(directory.join("bgpd.pid"))
            .arg("--vty_socket")
            .arg(&directory);
        // -Z: no zebra; -S: as the user that it is started by.
        bgpd.args(["-Z", "-S", "--log", "stdout", "--log-level", "errors"]);
        let mut frr = Frr { directory, process: lab.spawn(&name, bgpd)? };
        lab.wait(&format!("bgpd on {}", namespace.name()), START, || {
            if let Err(error) = frr.process.must_run() {
                // Waiting longer cannot help.
                return Ok(Some(Err(error)));
            }
            frr.ask("show bgp summary").map(|_| Some(Ok(())))
        })??;
        Ok(frr)
    }

    /// What `vtysh -c "QUESTION json"` says.
    ///
    /// # Errors
    /// It doesn't answer, or not in JSON.
    pub fn ask(&self, question: &str) -> Result<Value> {
        let mut vtysh = Command::new(PROGRAM);
        vtysh.arg("--vty_socket").arg(&self.directory).args([
            "-d",
            "bgpd",
            "-c",
            &format!("{question} json"),
        ]);
        let text = command::run(&mut vtysh, QUESTION)?;
        serde_json::from_str(&text).with_context(|| format!("`{question}` said: {text}"))
    }
}
